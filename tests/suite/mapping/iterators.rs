//! Iterators that use the pool, end it, panic or wait for it.

use super::*;

/// Runs either map over 200 inputs, with `step` called for each before it is handed over.
fn with_an_iterator(
    what: &'static str,
    builder: PoolBuilder,
    step: impl Fn(usize, &Pool, &RawTask) + Send + Sync + 'static,
) {
    let step = Arc::new(step);
    for is_unordered in [false, true] {
        let pool = build(builder.clone());
        let act = act(&pool);
        let inner = pool.clone();
        let task = act.clone();
        let step = step.clone();
        let inputs = (0..200).map(move |number| {
            step(number, &inner, &task);
            numbered(number)
        });
        let map = either(is_unordered, pool.map(&act, inputs).buffer_size(items(16)));
        let mut results = in_time(what, move || map.collect::<Vec<_>>());
        results.sort_by_key(|(number, _)| *number);
        assert_eq!(results.len(), 200, "{what}");
        for (number, (place, result)) in results.into_iter().enumerate() {
            assert_eq!((place, result.expect("succeeds")), (number, numbered(number)), "{what}");
        }
    }
}

#[test]
fn an_iterator_may_submit_to_the_pool_and_wait_for_it() {
    for workers in [1, 2] {
        with_an_iterator("submitting", builder(workers).queue_tasks_max(4), |number, pool, act| {
            let another = pool.submit_bytes(act, numbered(number)).expect("submits");
            if number % 3 == 0 {
                assert_eq!(output(&another), numbered(number));
            }
        });
    }
}

#[test]
fn an_iterator_may_cancel_and_abort() {
    let earlier: Mutex<Option<Future>> = Mutex::new(None);
    with_an_iterator("cancelling", builder(2), move |number, pool, act| {
        let spin = submit(pool, act, "s");
        if let Some(earlier) = earlier.lock().expect("locks").replace(spin) {
            let stop = [TaskFuture::cancel, TaskFuture::abort][number % 2];
            if !stop(&earlier) {
                earlier.abort();
            }
        }
        if number == 199 {
            earlier.lock().expect("locks").take().expect("the last").abort();
        }
    });
}

#[test]
fn an_iterator_may_map_over_the_same_pool() {
    with_an_iterator("mapping", builder(1), |_, pool, act| {
        assert!(pool.map(act, (0..5).map(numbered)).all(|result| result.is_ok()));
    });
}

#[test]
fn an_iterator_may_drop_other_handles_of_the_pool() {
    for is_unordered in [false, true] {
        let pool = builder(2).build().expect("builds");
        let act = act(&pool);
        let events = pool.events();
        let mut handle = Some(pool.clone());
        let inputs = (0..200).map(move |number| {
            if number == 50 {
                drop(handle.take());
            }
            numbered(number)
        });
        let map = either(is_unordered, pool.map(&act, inputs).buffer_size(items(16)));
        drop(pool);
        let succeeded = in_time("the map", move || map.filter(|(_, result)| result.is_ok()).count());
        assert_eq!(succeeded, 200);
        assert_eq!(events.last().map(|event| event.kind), Some(EventKind::Stopped), "the map's was the last");
    }
}

/// A map whose iterator ends the pool half-way: each input has its result, or its error.
fn ends_in_an_iterator(end: fn(&Pool), may_lose: bool) {
    for is_unordered in [false, true] {
        let pool = pool(2);
        let act = act(&pool);
        let inner = pool.clone();
        let inputs = (0..100).map(move |number| {
            if number == 50 {
                end(&inner);
            }
            numbered(number)
        });
        let map = either(is_unordered, pool.map(&act, inputs).buffer_size(items(16)));
        let mut results = in_time("the map", move || map.collect::<Vec<_>>());
        results.sort_by_key(|(number, _)| *number);
        assert!(results.iter().map(|(number, _)| *number).eq(0..100));
        for (place, result) in results {
            match result {
                Ok(output) => assert_eq!(output, numbered(place)),
                Err(MapError::Submit(SubmitError::ShutDown { .. })) => assert!(place >= 50, "{place}"),
                Err(MapError::Task(failure)) => {
                    assert!(place < 50 && may_lose, "{place}: {failure}");
                    assert!(matches!(failure.error(), TaskError::Cancelled | TaskError::Broken(_)));
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(pool.unresolved_tasks(), 0);
    }
}

#[test]
fn an_iterator_may_shut_the_pool_down_or_kill_it() {
    ends_in_an_iterator(|pool| pool.shutdown(ShutdownMode::Finish), false);
    ends_in_an_iterator(|pool| pool.shutdown(ShutdownMode::CancelPending), true);
    ends_in_an_iterator(Pool::kill, true);
}

#[test]
fn an_iterator_may_terminate_the_pool() {
    (0..20).for_each(|_| ends_in_an_iterator(Pool::terminate, true));
}

#[test]
fn an_iterator_that_panics_costs_its_caller_one_result_and_nobody_else_any() {
    for is_unordered in [false, true] {
        let pool = pool(2);
        let act = act(&pool);
        let others: Vec<_> = (0..50).map(|_| submit(&pool, &act, "e")).collect();
        let inputs = (0..100).map(|number| {
            assert_ne!(number, 50, "as a test");
            numbered(number)
        });
        let mut map = either(is_unordered, pool.map(&act, inputs).buffer_size(items(16)));
        let mut results = Vec::new();
        let mut panics = 0;
        loop {
            match catch_unwind(AssertUnwindSafe(|| map.next())) {
                Ok(None) => break,
                Ok(Some((_, result))) => results.push(result.expect("succeeds")),
                Err(_) => panics += 1,
            }
        }
        assert_eq!(panics, 1);
        results.sort();
        let mut expected: Vec<_> = (0..100).filter(|number| *number != 50).map(numbered).collect();
        expected.sort();
        assert_eq!(results, expected, "nothing that was pulled is lost");
        others.iter().for_each(|other| drop(output(other)));
        assert_eq!(output(&submit(&pool, &act, "e")), "e");
    }
}
