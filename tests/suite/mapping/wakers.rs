//! Wakers that do, and destructors of inputs.

use super::*;

type Action = Box<dyn FnOnce() + Send>;

/// Does something once when it is woken.
struct OnWake(Mutex<Option<Action>>);

impl Wake for OnWake {
    fn wake(self: Arc<Self>) {
        let action = self.0.lock().expect("locks").take();
        if let Some(action) = action {
            action();
        }
    }
}

/// Has `action` done by the waker of a future that is not done yet.
fn when_woken(future: &mut Future, action: impl FnOnce() + Send + 'static) {
    let waker = Waker::from(Arc::new(OnWake(Mutex::new(Some(Box::new(action))))));
    let polled = std::future::Future::poll(Pin::new(future), &mut Context::from_waker(&waker));
    assert!(polled.is_pending(), "it runs or waits");
}

#[test]
fn a_waker_may_submit_and_a_full_queue_refuses() {
    let pool = build(builder(1).queue_tasks_max(1));
    let act = act(&pool);
    let mut spin = running(&pool, &act);
    let (told, submitted) = unbounded();
    when_woken(&mut spin, {
        let pool = pool.clone();
        let act = act.clone();
        // The first takes all the room there is, and does not end.
        move || ["s", "e"].into_iter().for_each(|what| drop(told.send(pool.submit_bytes(&act, what))))
    });
    spin.abort();
    let [first, second] = [0, 1].map(|_| submitted.recv_timeout(PATIENCE).expect("woken"));
    let first = first.expect("there is room");
    assert!(matches!(second.expect_err("full"), SubmitError::QueueFull { max: 1 }));
    first.abort();
    error(&first);
}

#[test]
fn wakers_may_submit_panic_or_drop_handles_while_the_pool_breaks() {
    let pool = builder(1).build().expect("builds");
    let act = act(&pool);
    let mut futures = vec![running(&pool, &act)];
    futures.extend((0..30).map(|_| submit(&pool, &act, "e")));
    let (told, woken) = unbounded();
    for (number, future) in futures.iter_mut().enumerate() {
        let pool = pool.clone();
        let act = act.clone();
        let told = told.clone();
        when_woken(future, move || {
            let refused = pool.submit_bytes(&act, "e").expect_err("broken");
            told.send(matches!(refused, SubmitError::Broken(_))).expect("sends");
            match number % 3 {
                0 => drop(pool),
                1 => pool.shutdown(ShutdownMode::Finish),
                _ => panic!("as a test"),
            }
        });
    }
    let events = pool.events();
    signal(pool.worker_pids()[0], Signal::KILL);
    drop(pool);
    for _ in &futures {
        assert!(woken.recv_timeout(PATIENCE).expect("woken"));
    }
    futures.iter().for_each(|future| assert!(matches!(error(future), TaskError::Broken(_))));
    assert_eq!(in_time("the pool", move || events.last()).expect("an event").kind, EventKind::Stopped);
}

#[test]
fn a_waker_that_ends_the_pool_only_begins_it() {
    let ends: [fn(&Pool); 3] = [|pool| pool.shutdown(ShutdownMode::Finish), Pool::terminate, Pool::kill];
    for (number, end) in ends.into_iter().enumerate() {
        let pool = pool(1);
        let act = act(&pool);
        let mut spin = running(&pool, &act);
        let pending: Vec<_> = (0..20).map(|_| submit(&pool, &act, "e")).collect();
        let (told, returned) = unbounded();
        when_woken(&mut spin, {
            let pool = pool.clone();
            move || {
                end(&pool);
                told.send(()).expect("sends");
            }
        });
        spin.abort();
        returned.recv_timeout(PATIENCE).expect("it does not wait");
        in_time("the end", {
            let pool = pool.clone();
            move || pool.shutdown(ShutdownMode::Finish)
        });
        assert!(pending.iter().all(TaskFuture::is_done) && pool.worker_pids().is_empty());
        let succeeded = pending.iter().filter(|future| future.result().is_ok()).count();
        assert!(number > 0 || succeeded == 20, "a shutdown finishes what was submitted");
    }
}

#[test]
fn a_panicking_waker_costs_nobody_anything() {
    let pool = pool(1);
    let act = act(&pool);
    let spin = running(&pool, &act);
    let mut futures: Vec<_> = (0..100).map(|_| submit(&pool, &act, "e")).collect();
    for future in futures.iter_mut().step_by(3) {
        when_woken(future, || panic!("as a test"));
    }
    spin.abort();
    futures.iter().for_each(|future| assert_eq!(output(future), "e"));
    assert_eq!(output(&submit(&pool, &act, "e")), "e");
    assert_eq!((pool.stats().workers_died, pool.broken()), (0, None));
}

#[test]
fn a_waker_that_waits_for_a_task_does_not_hold_up_the_pool() {
    let pool = pool(1);
    let act = act(&pool);
    let mut spin = running(&pool, &act);
    let [awaited, other] = ["e0", "e1"].map(|what| submit(&pool, &act, what));
    let (told, is_woken) = unbounded();
    when_woken(&mut spin, move || {
        told.send(()).expect("sends");
        let _ = awaited.result_timeout(PATIENCE);
    });
    spin.abort();
    is_woken.recv_timeout(PATIENCE).expect("woken");
    assert!(matches!(other.result_timeout(PATIENCE / 6), Ok(Ok(_))), "the worker's answers are not heard");
}

#[test]
fn an_inputs_destructor_that_panics_costs_nobody_a_result() {
    struct Bomb;
    impl AsRef<[u8]> for Bomb {
        fn as_ref(&self) -> &[u8] {
            b"e"
        }
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("as a test");
        }
    }
    let pool = pool(1);
    let act = act(&pool);
    let bomb = pool.submit_bytes(&act, Bytes::from_owner(Bomb)).expect("submits");
    for future in [bomb, submit(&pool, &act, "e")] {
        let result = future.result_timeout(PATIENCE / 6).expect("it is resolved");
        assert_eq!(result.expect("succeeds"), "e");
    }
    assert_eq!(pool.broken(), None);
}
