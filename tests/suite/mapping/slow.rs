//! Iterators that wait must not hold up a result that is there.

use super::*;

/// Sends each input through a channel once fewer than `window` results are missing. Ends after `count`
/// results, or hangs.
fn closed_loop(is_unordered: bool, window: usize, count: usize) {
    let pool = pool(2);
    let act = act(&pool);
    let (inputs, source) = std::sync::mpsc::channel();
    let mut map = either(is_unordered, pool.map(&act, source));
    let yielded = in_time("a closed loop", move || {
        (0..window).for_each(|number| inputs.send(numbered(number)).expect("sends"));
        let mut yielded = Vec::new();
        for sent in window..window + count {
            let (number, result) = map.next().expect("a result");
            assert_eq!(result.expect("succeeds"), numbered(number));
            yielded.push(number);
            inputs.send(numbered(sent)).expect("sends");
        }
        drop(inputs);
        yielded.extend(map.map(|(number, _)| number));
        yielded
    });
    let mut sorted = yielded.clone();
    sorted.sort_unstable();
    assert!(sorted.into_iter().eq(0..window + count), "each once");
    assert!(is_unordered || yielded.is_sorted());
}

#[test]
fn a_source_that_waits_for_the_result_before_is_never_waited_for() {
    for is_unordered in [false, true] {
        closed_loop(is_unordered, 1, 2_000);
    }
}

/// Short tasks travel in batches by then: an input that is gathered must not wait for inputs that wait for
/// its result.
#[test]
fn a_source_that_waits_for_a_window_of_results_is_never_waited_for() {
    for is_unordered in [false, true] {
        for window in [2, 7, 100] {
            closed_loop(is_unordered, window, 3_000);
        }
    }
}

#[test]
fn a_source_that_stops_amid_a_batch_has_what_it_gave_done() {
    for is_unordered in [false, true] {
        let pool = pool(2);
        let act = act(&pool);
        let (inputs, source) = std::sync::mpsc::channel();
        let mut map = either(is_unordered, pool.map(&act, source));
        in_time("inputs that stop coming", move || {
            for round in 0..40 {
                // The counts are both larger and smaller than a batch.
                let count = 1 + round * 53 % 700;
                (0..count).for_each(|number| inputs.send(numbered(number)).expect("sends"));
                for _ in 0..count {
                    map.next().expect("a result").1.expect("succeeds");
                }
            }
        });
    }
}

#[test]
fn a_long_task_holds_up_neither_short_ones_nor_what_they_are_gathered_for() {
    let pool = pool(2);
    let act = act(&pool);
    let (inputs, source) = std::sync::mpsc::channel();
    let options = TaskOptions::new().timeout(PATIENCE);
    let mut map = pool.map(&act, source).options(options).unordered();
    let (pool, map) = in_time("short tasks behind a long one", move || {
        (0..3_000).for_each(|number| inputs.send(numbered(number)).expect("sends"));
        (0..3_000).for_each(|_| drop(map.next().expect("a result").1.expect("succeeds")));
        // The last batch ends after its last result, and would be taken for the long task.
        eventually("the last batch to end", || pool.stats().running == 0);
        inputs.send("s".into()).expect("sends");
        // A task that is gathered with the long one would run behind it, so it is sent once the long one
        // runs.
        let first = std::thread::spawn({
            let inputs = inputs.clone();
            let pool = pool.clone();
            move || {
                eventually("the long task to run", || pool.stats().running == 1);
                inputs.send(numbered(0)).expect("sends");
            }
        });
        assert_eq!(map.next().expect("a result").1.expect("succeeds"), numbered(0));
        first.join().expect("sends");
        for number in 1..500 {
            inputs.send(numbered(number)).expect("sends");
            assert_eq!(map.next().expect("a result").1.expect("succeeds"), numbered(number));
        }
        (pool, map)
    });
    pool.kill();
    drop(map);
}

#[test]
fn the_results_of_a_slow_source_come_as_they_are_done() {
    for (is_unordered, is_local) in [(false, false), (true, false), (false, true), (true, true)] {
        let pool = pool(2);
        let act = act(&pool);
        let began = std::time::Instant::now();
        let pause = ms(5);
        let slow = (0..200).map(move |number| {
            std::thread::sleep(pause);
            (numbered(number), began.elapsed()).0
        });
        let map = if is_local { pool.map_local(&act, slow) } else { pool.map(&act, slow) };
        let mut worst = Duration::ZERO;
        for (number, (_, result)) in either(is_unordered, map).enumerate() {
            result.expect("succeeds");
            // A source that waits for nobody would send it at this time; a busy machine is later.
            worst = worst.max(began.elapsed().saturating_sub(pause * (number as u32 + 1)));
        }
        let whole = began.elapsed();
        // Sleeps that took too long are no lag of the map's.
        let slack = whole.saturating_sub(pause * 200);
        assert!(
            worst < slack + ms(100),
            "{worst:?} late, {slack:?} in all: unordered {is_unordered}, local {is_local}"
        );
    }
}

#[test]
fn a_maps_time_is_up_though_its_source_never_returns() {
    for is_unordered in [false, true] {
        let pool = pool(1);
        let act = act(&pool);
        let (inputs, source) = std::sync::mpsc::channel();
        inputs.send(numbered(0)).expect("sends");
        let mut map = either(is_unordered, pool.map(&act, source).timeout(ms(200)));
        let ends = in_time("the map", move || {
            assert_eq!(map.next().expect("a result").1.expect("succeeds"), numbered(0));
            (is_timeout(&map.next().expect("an end").1), map.next().is_none())
        });
        assert_eq!(ends, (true, true));
        drop(inputs);
    }
}

#[test]
fn a_map_whose_source_never_returns_can_be_dropped_and_so_can_its_pool() {
    for is_unordered in [false, true] {
        let pool = builder(1).build().expect("builds");
        let act = act(&pool);
        let events = pool.events();
        let (inputs, source) = std::sync::mpsc::channel();
        inputs.send(numbered(0)).expect("sends");
        let mut map = either(is_unordered, pool.map(&act, source));
        drop(pool);
        in_time("the drop", move || {
            assert!(map.next().expect("a result").1.is_ok());
            drop(map);
        });
        let last = in_time("the pool", move || events.last()).expect("an event");
        assert_eq!(last.kind, EventKind::Stopped, "the map's was the last handle");
        // The thread to which the source returns drops it.
        eventually("the source to be dropped", || inputs.send(numbered(1)).is_err());
    }
}

#[test]
fn a_map_over_what_is_borrowed_pulls_where_it_is_asked() {
    let pool = pool(2);
    let act = act(&pool);
    let inputs: Vec<_> = (0..5_000).map(numbered).collect();
    let here = std::thread::current().id();
    let pulled = std::cell::Cell::new(0);
    let borrowing = || {
        inputs.iter().inspect(|_| {
            assert_eq!(std::thread::current().id(), here);
            pulled.set(pulled.get() + 1);
        })
    };
    let outputs: Vec<_> =
        pool.map_local(&act, borrowing().cloned()).map(|result| result.expect("succeeds")).collect();
    assert_eq!((outputs == inputs, pulled.get()), (true, 5_000));
    let mut unordered: Vec<_> = pool
        .map_local(&act, borrowing().cloned())
        .unordered()
        .map(|(number, result)| (number, result.expect("succeeds")))
        .collect();
    unordered.sort();
    assert!(unordered.into_iter().eq(inputs.iter().cloned().enumerate()));
}
