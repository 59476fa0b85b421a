//! Done callbacks that do.

use super::*;

#[test]
fn callbacks_may_submit_while_the_pool_breaks() {
    let pool = pool(1);
    let act = act(&pool);
    let spin = running(&pool, &act);
    let pending: Vec<_> = (0..100).map(|_| submit(&pool, &act, "e")).collect();
    let (told, refusals) = unbounded();
    for future in pending.iter().chain([&spin]) {
        let pool = pool.clone();
        let act = act.clone();
        let told = told.clone();
        future.on_done(move |result| {
            assert!(matches!(result.expect_err("broken").error(), TaskError::Broken(_)));
            let again = pool.submit_bytes(&act, "again");
            let at_once = pool.try_submit(&act, "again");
            told.send((again.expect_err("broken"), at_once.expect_err("broken"))).expect("sends");
        });
    }
    signal(pool.worker_pids()[0], Signal::KILL);
    for _ in 0..101 {
        let refused = refusals.recv_timeout(PATIENCE).expect("called");
        assert!(matches!(refused, (SubmitError::Broken(_), SubmitError::Broken(_))), "{refused:?}");
    }
    assert!(pending.iter().all(TaskFuture::is_done));
    in_time("the end", move || drop(pool));
}

#[test]
fn a_callback_may_drop_the_last_handle_of_the_pool() {
    let pool = builder(2).build().expect("builds");
    let act = act(&pool);
    let events = pool.events();
    let spins = [0, 1].map(|_| submit(&pool, &act, "s"));
    let pending: Vec<_> = (0..50).map(|_| submit(&pool, &act, "e")).collect();
    let (called, calls) = unbounded();
    let owner = pool.clone();
    spins[0].on_done(move |_| drop(owner));
    for future in &pending {
        let called = called.clone();
        future.on_done(move |_| called.send(()).expect("sends"));
    }
    drop(pool);
    spins.iter().for_each(|spin| assert!(spin.abort()));
    for future in &pending {
        assert_eq!(output(future), "e", "what was submitted is finished");
        calls.recv_timeout(PATIENCE).expect("called");
    }
    assert_eq!(in_time("the pool", move || events.last()).expect("an event").kind, EventKind::Stopped);
}

#[test]
fn a_callback_may_end_the_pool() {
    let ends: [fn(&Pool); 4] = [
        |pool| pool.shutdown(ShutdownMode::Finish),
        |pool| assert!(pool.shutdown_timeout(ShutdownMode::CancelPending, PATIENCE)),
        Pool::terminate,
        Pool::kill,
    ];
    for end in ends {
        let pool = pool(1);
        let act = act(&pool);
        let first = running(&pool, &act);
        let pending: Vec<_> = (0..50).map(|_| submit(&pool, &act, "e")).collect();
        let (ended, is_ended) = unbounded();
        first.on_done({
            let pool = pool.clone();
            move |_| {
                end(&pool);
                ended.send(pool.worker_pids()).expect("sends");
            }
        });
        first.abort();
        assert!(is_ended.recv_timeout(PATIENCE).expect("called").is_empty());
        assert!(pending.iter().all(TaskFuture::is_done));
        // The pool can be dropped from outside, too.
        in_time("the end", move || drop(pool));
    }
}

#[test]
fn a_callback_may_wait_for_other_tasks_and_panic_and_the_next_still_run() {
    let pool = pool(1);
    let act = act(&pool);
    let first = running(&pool, &act);
    let (told, outputs) = unbounded();
    let earlier = Arc::new(submit(&pool, &act, "earlier"));
    first.on_done({
        let pool = pool.clone();
        let act = act.clone();
        let told = told.clone();
        let earlier = earlier.clone();
        move |_| {
            told.send(output(&earlier)).expect("sends");
            told.send(output(&submit(&pool, &act, "later"))).expect("sends");
            let mapped = pool.map(&act, texts(&["each"; 20])).filter(Result::is_ok).count();
            assert_eq!(mapped, 20);
            panic!("as a test");
        }
    });
    first.on_done(move |_| told.send("next".into()).expect("sends"));
    first.abort();
    for expected in ["earlier", "later", "next"] {
        assert_eq!(outputs.recv_timeout(PATIENCE).expect("called"), expected);
    }
    assert_eq!(output(&submit(&pool, &act, "e")), "e");
}
