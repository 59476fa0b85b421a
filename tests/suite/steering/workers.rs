//! Resizing, prestarting, the minimum and the idle timeout.

use super::*;

#[test]
fn a_smaller_pool_lets_busy_workers_finish_and_a_larger_one_starts_more() {
    let pool = pool(4);
    let tasks = tasks(&pool);
    let mut events = pool.events();
    let spins = several(&pool, &tasks.spin, 12);
    let running = || spins.iter().filter(|spin| spin.is_running() && !spin.is_done()).count();
    eventually("four to run", || {
        assert!(pool.worker_pids().len() <= 4, "at most four at any moment");
        running() == 4
    });
    assert_eq!(pool.stats().workers_started, 4);

    pool.resize(0, 2);
    let stats = pool.stats();
    assert_eq!((stats.workers_max, stats.running, stats.workers.len()), (2, 4, 4), "nobody is disturbed");
    assert_eq!(pool.workers_max(), 2);
    spins[..4].iter().for_each(|spin| assert!(spin.abort()));
    spins[..4].iter().for_each(|spin| assert_eq!(error(spin), TaskError::Aborted { killed: false }));
    eventually("two to be left", || {
        assert_eq!(pool.stats().workers_started, 4, "nobody is needed");
        pool.worker_pids().len() == 2 && running() == 2
    });
    let mut leaving = 0;
    events_to(&mut events, "the second to be gone", |kind| matches!(kind, EventKind::WorkerEnded { .. }))
        .iter()
        .for_each(|kind| match kind {
            EventKind::WorkerLeaving { reason, .. } => {
                assert_eq!(*reason, LeaveReason::Resized);
                leaving += 1;
            }
            EventKind::WorkerEnded { expected, .. } => assert!(expected),
            _ => {}
        });
    assert!(leaving > 0);

    pool.resize(0, 3);
    eventually("three to run", || {
        assert!(pool.worker_pids().len() <= 3);
        running() == 3
    });
    pool.kill();
}

#[test]
fn idle_workers_leave_a_smaller_pool_at_once() {
    let pool = pool(3);
    pool.prestart(3);
    let pids = idle_workers(&pool, 3);
    pool.resize(0, 1);
    let left = idle_workers(&pool, 1);
    assert!(pids.contains(&left[0]));
    pool.resize(2, 3);
    assert!(idle_workers(&pool, 2).contains(&left[0]), "the minimum is started at once");
    assert_eq!(pool.stats().workers_started, 4);
}

#[test]
fn bounds_are_clamped() {
    let pool = pool(1);
    let tasks = tasks(&pool);
    let bounds = |pool: &Pool| (pool.stats().workers_min, pool.stats().workers_max);
    pool.resize(0, 0);
    assert_eq!(bounds(&pool), (0, 1));
    // No worker is started to meet a minimum in a pool that ends.
    let spin = submit(&pool, &tasks.spin);
    worker_of(&pool, spin.task_id());
    pool.begin_shutdown(ShutdownMode::Finish);
    pool.resize(7, 3);
    assert_eq!(bounds(&pool), (3, 3), "the minimum to the maximum");
    pool.kill();
}

#[test]
fn the_minimum_is_clamped_to_the_most_that_a_pool_can_have() {
    let pool = pool(1);
    pool.begin_shutdown(ShutdownMode::Finish);
    pool.resize(5_000, 2_000);
    assert_eq!((pool.stats().workers_min, pool.stats().workers_max), (1024, 1024));
}

#[test]
fn a_pool_made_smaller_and_larger_again_runs_no_more_than_its_maximum() {
    let pool = pool(2);
    let tasks = tasks(&pool);
    let spins = several(&pool, &tasks.spin, 3);
    worker_of(&pool, spins[0].task_id());
    worker_of(&pool, spins[1].task_id());
    pool.resize(0, 1);
    pool.resize(0, 2);
    // Three rounds give other pools the time to start their workers and to run something.
    for _ in 0..3 {
        let clock = self::pool(1);
        output(&submit(&clock, &self::tasks(&clock).echo));
        assert_eq!((pool.stats().running, spins[2].is_running()), (2, false));
    }
    spins[0].abort();
    worker_of(&pool, spins[2].task_id());
    assert_eq!(pool.stats().running, 2);
    pool.kill();
}

#[test]
fn prestart_starts_so_many_and_no_more_than_the_maximum() {
    let pool = pool(3);
    let tasks = tasks(&pool);
    assert!(pool.worker_pids().is_empty());
    pool.prestart(2);
    let pids = idle_workers(&pool, 2);
    pool.prestart(2);
    output(&submit(&pool, &tasks.echo));
    assert_eq!((idle_workers(&pool, 2), pool.stats().workers_started), (pids, 2), "there are two");
    pool.prestart(100);
    idle_workers(&pool, 3);
    assert_eq!(pool.stats().workers_started, 3);
}

#[test]
fn the_minimum_is_started_at_once_and_kept_while_the_others_leave() {
    let timeout = ms(30);
    let pool = build(builder(3).workers_min(2).idle_timeout(timeout));
    let tasks = tasks(&pool);
    assert_eq!(pool.stats().workers_min, 2);
    idle_workers(&pool, 2);
    let mut events = pool.events();
    let spins = several(&pool, &tasks.spin, 3);
    for spin in &spins {
        worker_of(&pool, spin.task_id());
    }
    spins.iter().for_each(|spin| assert!(spin.abort()));
    events_to(&mut events, "one to leave", |kind| {
        matches!(kind, EventKind::WorkerLeaving { reason: LeaveReason::Idle, .. })
    });
    let kept = idle_workers(&pool, 2);
    // Time enough for those to leave, too: others do.
    let clock = build(builder(1).idle_timeout(timeout));
    for _ in 0..2 {
        clock.prestart(1);
        eventually("a worker", || clock.stats().workers_started > 0);
        eventually("nobody", || clock.worker_pids().is_empty());
    }
    assert_eq!((idle_workers(&pool, 2), pool.stats().workers_started), (kept, 3));
}

#[test]
fn idle_workers_leave_and_come_back_for_new_tasks() {
    let pool = build(builder(2).idle_timeout(ms(20)));
    let tasks = tasks(&pool);
    let mut events = pool.events();
    pool.prestart(2);
    for _ in 0..2 {
        let told = events_to(&mut events, "a worker to be gone", |kind| {
            matches!(kind, EventKind::WorkerEnded { expected: true, .. })
        });
        assert!(told.iter().all(|kind| match kind {
            EventKind::WorkerLeaving { reason, .. } => *reason == LeaveReason::Idle,
            _ => true,
        }));
    }
    assert!(pool.worker_pids().is_empty());
    output(&submit(&pool, &tasks.echo));
    assert_eq!(pool.stats().workers_started, 3);
}

#[test]
fn no_task_is_lost_to_workers_that_are_leaving() {
    let pool = build(builder(2).idle_timeout(Duration::from_micros(200)));
    let tasks = tasks(&pool);
    for round in 0..100 {
        several(&pool, &tasks.echo, 1 + round % 3).iter().for_each(|echo| {
            output(echo);
            assert_eq!(attempts(echo), 1);
        });
    }
    assert_eq!(pool.stats().workers_died, 0);
}
