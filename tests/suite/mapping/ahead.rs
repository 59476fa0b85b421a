//! What a map has ahead of its results, and what becomes of it.

use super::*;

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
        // Nothing comes of the first: it is as far ahead as it gets.
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

/// As above, where the map holds the pool's last handle: the pool waits for what runs, only.
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

/// Resident memory of this process, in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("reads");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

#[test]
fn a_hundred_thousand_items_leave_the_hosts_memory_flat() {
    // In a process of its own: other tests have a memory, too.
    if std::env::var_os("WASMPOOL_FLAT_CHILD").is_none() {
        let child = std::process::Command::new(std::env::current_exe().expect("a path"))
            .args(["--exact", "ahead::a_hundred_thousand_items_leave_the_hosts_memory_flat"])
            .env("WASMPOOL_FLAT_CHILD", "1")
            .output()
            .expect("runs");
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success(), "{said}{}", String::from_utf8_lossy(&child.stderr));
        assert!(said.contains("1 passed"), "it was not run: {said}");
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
