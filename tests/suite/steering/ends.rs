//! `terminate` and `kill`.

use super::*;

#[test]
fn terminate_and_kill_cancel_what_is_pending_and_break_what_runs() {
    for (end, number) in [(Pool::terminate as fn(&Pool), 15), (Pool::kill, 9)] {
        let pool = pool(2);
        let tasks = tasks(&pool);
        let spins = several(&pool, &tasks.spin, 2);
        let pids = [0, 1].map(|number: usize| worker_of(&pool, spins[number].task_id()));
        let pending = several(&pool, &tasks.echo, 20);
        let events = pool.events();
        end(&pool);
        assert!(pool.worker_pids().is_empty() && pids.iter().all(|pid| !is_alive(*pid)));
        assert!(pending.iter().all(|echo| echo.is_cancelled() && attempts(echo) == 0));
        for (spin, pid) in spins.iter().zip(pids) {
            let failed = failure(spin);
            match failed.error() {
                TaskError::Broken(broken) => {
                    assert_eq!((broken.pid(), &broken.death().cause), (pid, &DeathCause::Killed));
                    assert_eq!(broken.tasks_in_flight(), [spin.task_id()]);
                }
                other => panic!("{other}"),
            }
            assert!(failed.may_have_run());
        }
        assert!(pool.broken().is_none());
        assert!(matches!(pool.submit_bytes(&tasks.echo, "x"), Err(SubmitError::ShutDown { .. })));
        let deaths: Vec<_> = events
            .filter_map(|event| match event.kind {
                EventKind::WorkerEnded { death, expected } => Some((death.cause, expected)),
                _ => None,
            })
            .collect();
        assert_eq!(deaths, [(DeathCause::Signaled(number), true), (DeathCause::Signaled(number), true)]);
        let stats = pool.stats();
        assert_eq!((stats.ended.cancelled, stats.ended.lost, stats.workers_died), (20, 2, 0));
        // A second call changes nothing.
        pool.terminate();
        pool.kill();
    }
}

#[test]
fn answers_under_way_do_not_break_a_pool_that_is_terminated() {
    for _ in 0..20 {
        let pool = pool(2);
        let tasks = tasks(&pool);
        pool.prestart(2);
        idle_workers(&pool, 2);
        let echoes = several(&pool, &tasks.echo, 2_000);
        pool.terminate();
        assert_eq!(pool.broken(), None);
        assert!(matches!(pool.submit_bytes(&tasks.echo, "x"), Err(SubmitError::ShutDown { .. })));
        assert!(echoes.iter().all(TaskFuture::is_done));
        assert_eq!(pool.stats().workers_died, 0);
    }
}

#[test]
fn a_worker_that_does_not_heed_the_termination_is_killed_after_the_grace_period() {
    let pool = build(builder(1).grace(ms(50)));
    let tasks = tasks(&pool);
    let pid = warm(&pool, &tasks);
    let events = pool.events();
    let frozen = Frozen::new(pid);
    let began = Instant::now();
    in_time("terminate", {
        let pool = pool.clone();
        move || pool.terminate()
    });
    assert!(began.elapsed() >= ms(50) && !is_alive(pid));
    drop(frozen);
    let death = events.into_iter().find_map(|event| match event.kind {
        EventKind::WorkerEnded { death, expected: true } => Some(death.cause),
        _ => None,
    });
    assert_eq!(death, Some(DeathCause::Signaled(9)));
}

#[test]
fn what_a_worker_was_handed_ahead_is_cancelled_with_the_rest() {
    for end in [Pool::terminate, Pool::kill] {
        let pool = pool(1);
        let tasks = tasks(&pool);
        let (endless, ahead) = stocked(&pool, &tasks, || several(&pool, &tasks.spin, 60));
        end(&pool);
        assert!(ahead.iter().all(|spin| spin.is_cancelled() && attempts(spin) == 0));
        assert!(matches!(error(&endless), TaskError::Broken(_)));
    }
}

#[test]
fn a_pool_may_be_ended_while_its_workers_start() {
    for end in [Pool::terminate, Pool::kill] {
        let pool = pool(2);
        let tasks = tasks(&pool);
        let futures = several(&pool, &tasks.spin, 4);
        in_time("the end", {
            let pool = pool.clone();
            move || end(&pool)
        });
        assert!(futures.iter().all(TaskFuture::is_done) && pool.worker_pids().is_empty());
        assert_eq!((pool.stats().pending, pool.stats().running), (0, 0));
    }
}
