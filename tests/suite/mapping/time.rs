//! A map's time.

use super::*;

#[test]
fn when_a_maps_time_is_up_it_yields_what_is_done_then_says_so_once() {
    let limit = Duration::from_secs(1);
    let inputs = texts(&["e0", "e1", "s", "e3", "e4"]);
    // A map in order yields nothing behind what is not done; the other yields what can be done.
    for (is_unordered, expected) in [(false, &[0, 1][..]), (true, &[0, 1, 3, 4])] {
        let pool = pool(2);
        let act = act(&pool);
        pool.prestart(2);
        eventually("both workers to be ready", || {
            let workers = pool.stats().workers;
            workers.len() == 2 && workers.iter().all(|worker| worker.state == WorkerState::Idle)
        });
        let mut map = either(is_unordered, pool.map(&act, inputs.clone()).timeout(limit));
        let mut done = Vec::new();
        let end = loop {
            match map.next().expect("an end") {
                (number, Ok(output)) => done.push((number, output)),
                (_, Err(end)) => break end,
            }
        };
        assert!(matches!(end, MapError::Timeout { limit: told } if told == limit), "{end}");
        assert_eq!(end.to_string(), "the map was not done within 1s");
        assert!(map.next().is_none() && map.next().is_none());
        done.sort();
        assert_eq!(done, expected.iter().map(|&number| (number, numbered(number))).collect::<Vec<_>>());
        pool.kill();
    }
}

#[test]
fn what_was_done_in_time_is_yielded_however_late_it_is_asked_for() {
    let limit = Duration::from_secs(2);
    for is_unordered in [false, true] {
        let pool = pool(1);
        let act = act(&pool);
        let before = running(&pool, &act);
        let inputs = (0..8).map(numbered).chain(texts(&["s"]));
        let mut map = either(is_unordered, pool.map(&act, inputs).timeout(limit));
        // Nothing is done before all is pulled.
        let first = std::thread::scope(|scope| {
            let first = scope.spawn(|| map.next());
            eventually("all to be pulled", || pool.stats().pending == 9);
            before.abort();
            first.join().expect("joins").expect("a result")
        });
        eventually("all but the last to be done", || pool.stats().ended.succeeded == 8);
        submit(&pool, &act, "e").result_timeout(limit).expect_err("the worker is busy");
        let rest: Vec<_> = map.by_ref().take(7).collect();
        for (number, (place, result)) in std::iter::once(first).chain(rest).enumerate() {
            assert_eq!((place, result.expect("done")), (number, numbered(number)));
        }
        assert!(is_timeout(&map.next().expect("an end").1));
        assert!(map.next().is_none());
        pool.kill();
    }
}

/// Waits until a map's time is up, and until all that it has submitted is done before each
/// further result: of an endless map, as many as it may have ahead can follow, and then its end.
fn ends_when_its_time_is_up(is_unordered: bool) {
    let limit = ms(50);
    let ahead = 4;
    let pool = pool(1);
    let act = act(&pool);
    let map = pool.map(&act, std::iter::repeat_with(|| numbered(0))).timeout(limit).buffer_size(items(ahead));
    // Our time begins after the map's own, which is over no later than ours.
    let began = std::time::Instant::now();
    let mut map = either(is_unordered, map);
    let is_over = map.next().is_none_or(|(_, result)| is_timeout(&result));
    eventually("its time to be up", || began.elapsed() > limit);
    let submitted = pool.stats().submitted;
    let mut late = map.by_ref().take_while(|(_, result)| {
        eventually("all to be done", || pool.unresolved_tasks() == 0);
        !is_timeout(result)
    });
    assert!(is_over || late.by_ref().take(ahead + 1).count() <= ahead, "there is no end to it");
    assert_eq!(pool.stats().submitted, submitted, "nothing is pulled any more");
}

#[test]
fn an_endless_map_ends_when_its_time_is_up() {
    ends_when_its_time_is_up(false);
}

#[test]
fn an_endless_unordered_map_ends_when_its_time_is_up() {
    ends_when_its_time_is_up(true);
}

#[test]
fn a_maps_time_runs_while_it_waits_for_room_in_the_queue() {
    let pool = build(builder(1).queue_tasks_max(2));
    let act = act(&pool);
    let mut map = pool.map(&act, texts(&["s"; 5])).timeout(ms(100));
    let end = in_time("the map", move || map.next().expect("an end"));
    assert!(is_timeout(&end), "{end:?}");
    pool.kill();
}
