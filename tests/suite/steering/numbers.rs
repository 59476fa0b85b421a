//! `Pool::stats`.

use super::*;

#[test]
fn the_numbers_are_right_at_a_known_moment() {
    let pool = pool(2);
    let tasks = tasks(&pool);
    let before = pool.stats();
    assert_eq!((before.workers_min, before.workers_max), (0, 2));
    assert_eq!((before.submitted, before.workers_started, before.workers.len()), (0, 0, 0));

    let spins = several(&pool, &tasks.spin, 2);
    for spin in &spins {
        worker_of(&pool, spin.task_id());
    }
    let echoes = several(&pool, &tasks.echo, 3);
    let during = pool.stats();
    assert_eq!((during.pending, during.running, during.submitted), (3, 2, 5));
    assert_eq!((during.workers_started, during.workers_died, during.workers_recycled), (2, 0, 0));
    assert_eq!(during.ended, wasmpool::event::TaskCounts::default());
    let mut running = HashSet::new();
    for worker in &during.workers {
        assert_eq!((worker.state, worker.answered), (WorkerState::Busy, 0));
        running.insert(worker.task.expect("a task").0);
    }
    assert_eq!(running, spins.iter().map(TaskFuture::task_id).collect());
    let pids: Vec<_> = during.workers.iter().map(|worker| worker.pid).collect();
    assert_eq!(pids, pool.worker_pids());

    let pid = worker_of(&pool, spins[0].task_id());
    spins[0].abort();
    echoes.iter().for_each(|echo| drop(output(echo)));
    let after = pool.stats();
    assert_eq!((after.pending, after.running, after.submitted), (0, 1, 5));
    assert_eq!((after.ended.succeeded, after.ended.aborted), (3, 1));
    let worker = after.workers.iter().find(|worker| worker.pid == pid).expect("it lives");
    assert_eq!((worker.state, worker.task, worker.answered), (WorkerState::Idle, None, 4));
    let busy = |stats: &PoolStats| stats.workers.iter().find_map(|worker| worker.task).expect("a task");
    let first = busy(&after);
    let second = busy(&pool.stats());
    assert_eq!(first.0, spins[1].task_id());
    assert!(first.0 == second.0 && first.1 <= second.1, "a task runs for ever longer");
    pool.kill();
    let ended = pool.stats();
    assert_eq!((ended.pending, ended.running, ended.workers.len(), ended.ended.lost), (0, 0, 0, 1));
}

#[test]
fn a_worker_is_starting_until_it_speaks_and_leaving_until_it_is_gone() {
    eventually("a worker to be seen as it starts", || {
        let pool = pool(1);
        pool.prestart(1);
        eventually("a process", || !pool.worker_pids().is_empty());
        let stats = pool.stats();
        assert_eq!((stats.workers.len(), stats.workers_started), (1, 1));
        stats.workers[0].state == WorkerState::Starting
    });

    let pool = build(builder(1).grace(PATIENCE));
    pool.prestart(1);
    let frozen = Frozen::new(idle_workers(&pool, 1)[0]);
    pool.begin_shutdown(ShutdownMode::Finish);
    assert_eq!(pool.stats().workers[0].state, WorkerState::Leaving);
    drop(frozen);
    pool.shutdown(ShutdownMode::Finish);
    assert!(pool.stats().workers.is_empty());
}

#[test]
fn the_numbers_add_up_over_500_mixed_tasks() {
    let pool = build(builder(2).on_worker_death(OnWorkerDeath::replace()));
    let tasks = tasks(&pool);
    let sum = |stats: &PoolStats| {
        let ended = &stats.ended;
        let failures = ended.failed + ended.timed_out + ended.cancelled + ended.aborted + ended.lost;
        stats.pending as u64 + stats.running as u64 + ended.succeeded + failures
    };
    let over = Arc::new(AtomicBool::new(false));
    let auditor = std::thread::spawn({
        let pool = pool.clone();
        let over = over.clone();
        move || {
            while !over.load(Ordering::SeqCst) {
                let stats = pool.stats();
                assert_eq!(sum(&stats), stats.submitted, "{stats:?}");
                assert!(stats.running <= 2, "{stats:?}");
                std::thread::yield_now();
            }
        }
    });
    let futures = mixture(&pool, &tasks, 500);
    let mut expected: HashMap<TaskOutcome, u64> = HashMap::new();
    futures.iter().for_each(|future| *expected.entry(outcome(future)).or_default() += 1);
    over.store(true, Ordering::SeqCst);
    auditor.join().expect("the numbers add up at every moment");

    let stats = pool.stats();
    let ended = stats.ended;
    let of = |outcome| expected.get(&outcome).copied().unwrap_or_default();
    assert_eq!((stats.submitted, stats.pending, stats.running), (500, 0, 0));
    assert_eq!(ended.succeeded, of(TaskOutcome::Succeeded));
    assert_eq!((ended.failed, ended.timed_out), (of(TaskOutcome::Failed), of(TaskOutcome::TimedOut)));
    assert_eq!((ended.cancelled, ended.aborted), (of(TaskOutcome::Cancelled), of(TaskOutcome::Aborted)));
    assert_eq!((ended.failed, ended.timed_out, ended.lost), (100, 100, 5));
    let again: u32 = futures.iter().map(|future| attempts(future).saturating_sub(1)).sum();
    assert_eq!(stats.retries, u64::from(again));
    assert_eq!(stats.retries, 50, "each of those that are retried after a timeout, once");
    assert_eq!(stats.workers_died, 5);
    assert!(stats.workers_started >= 5 + stats.workers.len() as u64, "{stats:?}");
}
