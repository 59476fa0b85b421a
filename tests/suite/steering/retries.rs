//! Tasks that are run again.

use super::*;

#[test]
fn a_task_whose_worker_dies_is_run_again_only_where_that_was_asked_for() {
    let pool = build(builder(1).on_worker_death(OnWorkerDeath::replace()));
    let tasks = tasks(&pool);
    let mut events = pool.events();
    for retry in [Retry::attempts(1), Retry::attempts(2), Retry::attempts(0)] {
        let pid = warm(&pool, &tasks);
        let frozen = Frozen::new(pid);
        let future = submit_with(&pool, &tasks.echo, TaskOptions::new().retry(retry).label("once or twice"));
        let behind = several(&pool, &tasks.echo, 20);
        assert_eq!(worker_of(&pool, future.task_id()), pid);
        signal(pid, Signal::KILL);
        if retry == Retry::attempts(2) {
            assert_eq!(output(&future), "x");
            let report = future.report().expect("done");
            assert_eq!(report.attempts, 2);
            assert!(report.worker_pid.is_some_and(|another| another != pid));
        } else {
            let failure = failure(&future);
            match failure.error() {
                TaskError::WorkerDied(death) => {
                    let cause = &death.cause;
                    let phase = death.phase;
                    assert_eq!((death.pid, cause, phase), (pid, &DeathCause::Signaled(9), Phase::Running));
                }
                other => panic!("{other}"),
            }
            assert_eq!((failure.worker_pid(), failure.report().attempts), (Some(pid), 1));
            assert!(failure.may_have_run());
            let words = failure.to_string();
            assert!(words.contains("(once or twice)") && words.contains("the worker that ran it died"));
            assert!(words.ends_with("; it may have run"), "{words}");
        }
        for echo in &behind {
            output(echo);
            assert_eq!(attempts(echo), 1, "what was pending had not begun");
        }
        drop(frozen);
    }
    assert_eq!((pool.stats().retries, pool.stats().ended.lost, pool.stats().workers_died), (1, 2, 3));
    let retried = std::iter::from_fn(|| events.try_next()).filter_map(|event| match event.kind {
        EventKind::TaskRetried { outcome, .. } => Some(outcome),
        _ => None,
    });
    assert_eq!(retried.collect::<Vec<_>>(), [TaskOutcome::Lost]);
    assert!(pool.broken().is_none());
}

#[test]
fn attempts_run_out() {
    let pool = build(builder(1).on_worker_death(OnWorkerDeath::replace()));
    let tasks = tasks(&pool);
    let spin = submit_with(&pool, &tasks.spin, TaskOptions::new().retry(Retry::attempts(3)));
    let mut pids: Vec<u32> = Vec::new();
    while pids.len() < 3 {
        let pid = worker_of(&pool, spin.task_id());
        if !pids.contains(&pid) {
            pids.push(pid);
            signal(pid, Signal::KILL);
        }
    }
    let failure = failure(&spin);
    assert!(matches!(failure.error(), TaskError::WorkerDied(death) if death.pid == pids[2]), "{failure}");
    assert_eq!((failure.report().attempts, pool.stats().retries), (3, 2));
    assert!(failure.to_string().ends_with("; this was attempt 3"), "{failure}");
}

#[test]
fn a_timeout_is_retried_only_where_asked_and_after_its_pause() {
    let pool = pool(1);
    let tasks = tasks(&pool);
    let events = pool.events();
    let limited = || TaskOptions::new().timeout(ms(5));
    let once = submit_with(&pool, &tasks.spin, limited().retry(Retry::attempts(3)));
    let thrice =
        submit_with(&pool, &tasks.spin, limited().retry(Retry::attempts(3).backoff(ms(20)).after_timeouts()));
    for (future, began) in [(&once, 1), (&thrice, 3)] {
        assert_eq!(error(future), TaskError::Timeout { limit: ms(5), killed: false });
        assert_eq!(attempts(future), began);
    }
    drop(pool);
    let task = thrice.task_id();
    let mut retried = None;
    let mut pauses = Vec::new();
    for PoolEvent { at, kind, .. } in events {
        match kind {
            EventKind::TaskRetried { task: of, outcome } => {
                assert_eq!((of, outcome), (task, TaskOutcome::TimedOut));
                retried = Some(at);
            }
            EventKind::TaskStarted { task: of, attempt: 2.., .. } if of == task => {
                pauses.extend(retried.take().map(|ended| at - ended));
            }
            _ => {}
        }
    }
    assert!(pauses.len() == 2 && pauses[0] >= ms(20) && pauses[1] >= ms(40), "{pauses:?}");
}

#[test]
fn a_failure_of_the_tasks_own_is_never_retried() {
    let pool = build(builder(1).on_worker_death(OnWorkerDeath::replace()));
    let tasks = tasks(&pool);
    let retry = || TaskOptions::new().retry(Retry::attempts(5).after_timeouts());
    let trap = submit_with(&pool, &tasks.trap, retry());
    let refuse = submit_with(&pool, &tasks.refuse, retry());
    let large = pool.submit_with(&tasks.echo, &vec![7; 100], retry().output_bytes_max(10)).expect("submits");
    assert!(matches!(error(&trap), TaskError::Trap { .. }));
    assert!(matches!(error(&refuse), TaskError::Guest { .. }));
    assert!(matches!(error(&large), TaskError::OutputTooLarge { .. }));
    for future in [&trap, &refuse, &large] {
        assert_eq!(attempts(future), 1);
    }
    assert_eq!(pool.stats().retries, 0);
}

#[test]
fn a_task_between_two_attempts_can_be_cancelled_and_a_shutdown_waits_for_its_next() {
    let pool = pool(1);
    let tasks = tasks(&pool);
    let mut events = pool.events();
    let mut next_retry =
        || drop(events_to(&mut events, "a retry", |kind| matches!(kind, EventKind::TaskRetried { .. })));
    let options = |pause| {
        let retry = Retry::attempts(2).backoff(pause).after_timeouts();
        TaskOptions::new().timeout(ms(5)).retry(retry)
    };
    for stop in [TaskFuture::cancel, TaskFuture::abort] {
        let future = submit_with(&pool, &tasks.spin, options(PATIENCE * 10));
        next_retry();
        assert_eq!((pool.stats().pending, pool.stats().running), (1, 0));
        assert!(stop(&future) && future.is_cancelled());
        assert_eq!(attempts(&future), 1);
    }
    let future = submit_with(&pool, &tasks.spin, options(ms(50)));
    next_retry();
    pool.shutdown(ShutdownMode::Finish);
    assert!(matches!(error(&future), TaskError::Timeout { .. }));
    assert_eq!(attempts(&future), 2);
}

#[test]
fn an_abort_ends_a_task_that_has_just_timed_out_and_would_be_retried() {
    let pool = build(builder(1).slow_after(ms(100)).grace(PATIENCE * 10));
    let tasks = tasks(&pool);
    let pid = warm(&pool, &tasks);
    let mut events = pool.events();
    let frozen = Frozen::new(pid);
    let retry = Retry::attempts(2).after_timeouts();
    let spin = submit_with(&pool, &tasks.spin, TaskOptions::new().timeout(ms(50)).retry(retry));
    // The task's time is over by then, and it has been asked to stop.
    events_to(&mut events, "TaskSlow", |kind| matches!(kind, EventKind::TaskSlow { .. }));
    assert!(spin.abort(), "it is not done");
    drop(frozen);
    error(&spin);
    assert_eq!(attempts(&spin), 1);
}
