//! A map has tasks ahead of its results; these tests say how many, and what becomes of them.

use super::*;
use crate::support::{is_own_process, resident_kib};

/// Inputs, and how many of them have been pulled.
fn counted(inputs: impl Iterator<Item = Bytes>) -> (impl Iterator<Item = Bytes>, Arc<AtomicUsize>) {
    let pulled = Arc::new(AtomicUsize::new(0));
    let counter = pulled.clone();
    let inputs = inputs.inspect(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    (inputs, pulled)
}

#[test]
fn inputs_are_pulled_up_to_the_buffers_size_and_no_further() {
    let pool = pool(2);
    let act = act(&pool);
    for (is_unordered, size) in [(false, 1), (true, 1), (false, 7), (true, 7)] {
        // The first task never ends, so the map is as far ahead as it gets.
        let (inputs, pulled) = counted(std::iter::repeat_with(|| Bytes::from_static(b"s")));
        let options = TaskOptions::new().timeout(PATIENCE);
        let map = pool.map(&act, inputs).buffer_size(items(size)).options(options).timeout(ms(100));
        let mut map = either(is_unordered, map);
        assert_eq!(pulled.load(Ordering::SeqCst), 0, "nothing was asked for");
        assert!(is_timeout(&map.next().expect("an end").1));
        assert_eq!(pulled.load(Ordering::SeqCst), size);
        drop(map);
    }
    pool.kill();
}

#[test]
fn results_make_room_for_as_many_inputs() {
    let pool = pool(2);
    let act = act(&pool);
    for (is_unordered, size) in [(false, 1), (true, 1), (false, 7), (true, 7)] {
        let (inputs, pulled) = counted((0..).map(numbered));
        let mut map = either(is_unordered, pool.map(&act, inputs).buffer_size(items(size)));
        for yielded in 0..500 {
            let result = map.next().expect("a result").1;
            result.expect("succeeds");
            let pulled = pulled.load(Ordering::SeqCst);
            assert!(
                pulled > yielded && pulled <= yielded + size,
                "{pulled} pulled, {yielded} yielded before"
            );
        }
    }
}

#[test]
fn dropping_either_map_cancels_what_does_not_run_yet() {
    for is_unordered in [false, true] {
        let pool = pool(1);
        let act = act(&pool);
        let mut map = either(is_unordered, pool.map(&act, texts(&["s"; 10])).timeout(ms(100)));
        assert!(is_timeout(&map.next().expect("an end").1));
        eventually("the first to run", || pool.stats().running == 1);
        assert_eq!(pool.stats().pending, 9);
        drop(map);
        let stats = pool.stats();
        assert_eq!((stats.pending, stats.running, stats.ended.cancelled), (0, 1, 9));
        pool.kill();
    }
}

/// Does the same where the map holds the pool's last handle: the pool waits for what runs, only.
fn cancels_before_the_pool_ends(is_unordered: bool) {
    let pool = builder(1).timeout(Duration::from_secs(2)).build().expect("builds");
    let act = act(&pool);
    let events = pool.events();
    let mut map = either(is_unordered, pool.map(&act, texts(&["s"; 10])).timeout(ms(100)));
    assert!(is_timeout(&map.next().expect("an end").1));
    eventually("the first to run", || pool.stats().running == 1);
    drop(pool);
    in_time("the drop", move || drop(map));
    let ends = events.filter_map(|event| match event.kind {
        EventKind::TaskFinished { outcome, .. } => Some(outcome),
        _ => None,
    });
    let ends: Vec<_> = ends.collect();
    let cancelled = ends.iter().filter(|end| **end == TaskOutcome::Cancelled).count();
    assert_eq!((ends.len(), cancelled), (10, 9), "{ends:?}");
}

#[test]
fn dropping_a_map_with_the_last_handle_of_its_pool_cancels_too() {
    cancels_before_the_pool_ends(false);
}

#[test]
fn dropping_an_unordered_map_with_the_last_handle_of_its_pool_cancels_too() {
    cancels_before_the_pool_ends(true);
}

#[test]
fn a_hundred_thousand_items_leave_the_hosts_memory_flat() {
    // The other tests of this process use memory, too.
    if !is_own_process(module_path!(), "a_hundred_thousand_items_leave_the_hosts_memory_flat") {
        return;
    }
    let pool = pool(2);
    let act = act(&pool);
    for is_unordered in [false, true] {
        let endless = (0..).map(numbered);
        let map = either(is_unordered, pool.map(&act, endless).buffer_size(items(16)));
        let mut early = None;
        let mut grown = 0;
        for (count, (_, result)) in map.take(100_000).enumerate() {
            result.expect("succeeds");
            if count >= 10_000 && count % 1_000 == 0 {
                let resident = resident_kib();
                grown = grown.max(resident.saturating_sub(*early.get_or_insert(resident)));
            }
        }
        assert!(grown < 8 * 1024, "the host grew by {grown} KiB");
    }
}
