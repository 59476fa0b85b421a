//! The death of a worker costs no more than it may, in both modes.

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::*;
use crate::support::BadWorker;

#[test]
fn with_replacement_a_death_costs_only_the_task_that_ran() {
    let pool = build(builder(2).on_worker_death(OnWorkerDeath::replace()));
    let tasks = tasks(&pool);
    let spins = several(&pool, &tasks.spin, 2);
    let pids = [0, 1].map(|number: usize| worker_of(&pool, spins[number].task_id()));
    let pending = several(&pool, &tasks.echo, 50);
    signal(pids[0], Signal::KILL);
    assert!(matches!(error(&spins[0]), TaskError::WorkerDied(_)));
    pending.iter().for_each(|echo| drop(output(echo)));
    assert!(spins[1].is_running() && !spins[1].is_done(), "another worker's task goes on");
    assert_eq!(worker_of(&pool, spins[1].task_id()), pids[1]);
    let stats = pool.stats();
    assert_eq!((stats.workers_died, stats.ended.lost, stats.ended.succeeded), (1, 1, 50));
    assert!(pool.broken().is_none() && !is_alive(pids[0]));
    pool.kill();
}

#[test]
fn what_a_dead_worker_had_been_handed_ahead_runs_elsewhere() {
    let pool = build(builder(1).on_worker_death(OnWorkerDeath::replace()));
    let tasks = tasks(&pool);
    let (endless, ahead) = stocked(&pool, &tasks, || several(&pool, &tasks.echo, 60));
    let pid = worker_of(&pool, endless.task_id());
    signal(pid, Signal::KILL);
    let failure = failure(&endless);
    assert!(matches!(failure.error(), TaskError::WorkerDied(_)) && failure.may_have_run(), "{failure}");
    for echo in &ahead {
        output(echo);
        let report = echo.report().expect("done");
        assert!(report.attempts == 1 && report.worker_pid != Some(pid), "{report:?}");
    }
}

/// A pool whose workers are bad, and its tasks.
fn pool_of(bad: BadWorker, policy: OnWorkerDeath) -> (Guarded, Tasks, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a directory");
    let builder = builder(1).cache_dir(folder.path()).worker_program(bad.program(folder.path()));
    let pool = build(builder.on_worker_death(policy));
    let tasks = tasks(&pool);
    (pool, tasks, folder)
}

#[test]
fn workers_that_die_at_their_start_break_the_pool_once_their_budget_is_spent() {
    let policy = Replacement::new().crashes_max(2).backoff(ms(20), ms(30));
    let (pool, tasks, _cache) = pool_of(BadWorker::Exits, OnWorkerDeath::Replace(policy));
    let events = pool.events();
    let future = submit(&pool, &tasks.echo);
    let failure = failure(&future);
    match failure.error() {
        TaskError::Broken(broken) => {
            assert_eq!((broken.exit_code(), broken.death().phase), (Some(1), Phase::Start));
            assert!(broken.tasks_in_flight().is_empty());
            let words = broken.to_string();
            assert!(words.contains("exited with code 1 while it started"), "{words}");
        }
        other => panic!("{other}"),
    }
    assert!(!failure.may_have_run());
    assert!(failure.to_string().ends_with("; this task never started"), "{failure}");
    assert!(matches!(pool.submit_bytes(&tasks.echo, "x"), Err(SubmitError::Broken(_))));
    let stats = pool.stats();
    assert_eq!((stats.workers_started, stats.workers_died, stats.ended.lost), (3, 3, 1));
    let mut ended = None;
    let mut pauses = Vec::new();
    for PoolEvent { at, kind, .. } in events {
        match kind {
            EventKind::WorkerEnded { expected, .. } => {
                assert!(!expected);
                ended = Some(at);
            }
            EventKind::WorkerStarted { .. } => pauses.extend(ended.take().map(|ended| at - ended)),
            _ => {}
        }
    }
    assert!(pauses.len() == 2 && pauses[0] >= ms(20) && pauses[1] >= ms(30), "{pauses:?}");
}

#[test]
fn crashes_are_forgiven_once_a_task_is_done_and_counted_in_a_row() {
    let policy = Replacement::new().crashes_max(2).backoff(ms(1), ms(1));
    let pool = build(builder(1).workers_min(1).on_worker_death(OnWorkerDeath::Replace(policy)));
    let tasks = tasks(&pool);
    let mut events = pool.events();
    let mut crash = || {
        let pid = idle_workers(&pool, 1)[0];
        signal(pid, Signal::KILL);
        let told = events_to(
            &mut events,
            "its end",
            |kind| matches!(kind, EventKind::WorkerEnded { death, .. } if death.pid == pid),
        );
        assert!(matches!(told.last(), Some(EventKind::WorkerEnded { expected: false, .. })));
    };
    for _ in 0..3 {
        crash();
        crash();
        output(&submit(&pool, &tasks.echo));
    }
    crash();
    crash();
    assert!(pool.broken().is_none());
    crash();
    eventually("the pool to break", || pool.broken().is_some());
    let broken = pool.broken().expect("broken");
    assert_eq!((broken.signal(), broken.death().phase), (Some(9), Phase::Idle));
    assert_eq!(pool.stats().workers_died, 9);
}

#[test]
fn a_broken_pool_says_which_tasks_may_have_run() {
    let pool = pool(1);
    let tasks = tasks(&pool);
    let (endless, ahead) = stocked(&pool, &tasks, || several(&pool, &tasks.echo, 60));
    signal(worker_of(&pool, endless.task_id()), Signal::KILL);
    let failed = failure(&endless);
    assert!(failed.may_have_run() && failed.to_string().ends_with("; it may have run"), "{failed}");
    for echo in &ahead {
        let failed = failure(echo);
        assert!(matches!(failed.error(), TaskError::Broken(_)), "{failed}");
        assert!(!failed.may_have_run() && failed.worker_pid().is_none());
        assert!(failed.to_string().ends_with("; this task never started"), "{failed}");
    }
}

/// CPU time that a process has used.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_secs(ticks(11) + ticks(12)) / rustix::param::clock_ticks_per_second() as u32
}

/// An input whose destructor keeps the thread that drops it, which is the one that hears the worker.
struct Deaf(Sender<()>, Receiver<()>);

impl AsRef<[u8]> for Deaf {
    fn as_ref(&self) -> &[u8] {
        b"x"
    }
}

impl Drop for Deaf {
    fn drop(&mut self) {
        let _ = self.0.send(());
        let _ = self.1.recv_timeout(PATIENCE);
    }
}

/// A task that has the host hear nothing of the worker that ran it, as long as nobody says so.
fn deafening(pool: &Pool, tasks: &Tasks) -> (Future, Receiver<()>, Sender<()>) {
    let (dropped, is_dropped) = unbounded();
    let (listen, deaf) = unbounded();
    let input = wasmpool::Bytes::from_owner(Deaf(dropped, deaf));
    (pool.submit_bytes(&tasks.echo, input).expect("submits"), is_dropped, listen)
}

/// A worker that is ahead of what the host has heard of it.
struct Ahead {
    pid: u32,
    /// The task that the worker runs as far as the host knows; it has ended that.
    known: Future,
    /// The task that the worker really runs, which was handed to it ahead.
    unknown: Future,
    /// Lets the host listen again.
    listen: Sender<()>,
    _first: Future,
}

/// Has the one worker that is free get ahead of the host: at a task of `long`, behind a short one.
fn ahead(pool: &Pool, tasks: &Tasks, long: impl Fn() -> Future) -> Ahead {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let before = submit(pool, &tasks.spin);
        let pid = worker_of(pool, before.task_id());
        let (first, is_dropped, listen) = deafening(pool, tasks);
        // Long enough for its answer to come after the host went deaf, and not with that before it.
        let some_ms = 50_000_000_u64.to_le_bytes().to_vec();
        let known = pool.submit_bytes(&tasks.count, some_ms).expect("submits");
        let unknown = long();
        // There are enough tasks that its share of those that wait is large enough.
        let others = several(pool, &tasks.echo, 20);
        before.abort();
        is_dropped.recv_timeout(PATIENCE).expect("the first is done");
        for other in &others {
            other.cancel();
        }
        let began = Instant::now();
        let used = cpu(pid);
        // A worker that does not rest is at the long task, since those before it take some milliseconds. It
        // is not if tasks took so long of late that it was not handed that many.
        while began.elapsed() < Duration::from_secs(3) {
            if cpu(pid) > used + ms(200) {
                return Ahead { pid, known, unknown, listen, _first: first };
            }
        }
        assert!(Instant::now() < give_up, "the worker never gets ahead");
        unknown.abort();
        drop(listen);
        output(&known);
        unknown.result_timeout(PATIENCE).expect("done").expect_err("aborted");
        several(pool, &tasks.echo, 100).iter().for_each(|echo| drop(output(echo)));
    }
}

#[test]
fn a_task_that_its_worker_had_begun_may_have_run_when_the_pool_is_killed() {
    let pool = pool(1);
    let tasks = tasks(&pool);
    warm(&pool, &tasks);
    let ahead = ahead(&pool, &tasks, || submit(&pool, &tasks.spin));
    assert!(!ahead.unknown.cancel(), "it runs");
    let killer = std::thread::spawn({
        let pool = pool.clone();
        move || pool.kill()
    });
    let known = failure(&ahead.known);
    let unknown = failure(&ahead.unknown);
    ahead.listen.send(()).expect("it waits");
    killer.join().expect("joins");
    assert!(known.may_have_run(), "{known}");
    assert!(matches!(unknown.error(), TaskError::Broken(_)), "{unknown}");
    assert!(unknown.may_have_run(), "{unknown}");
}

#[test]
fn a_task_that_its_worker_had_begun_may_have_run_when_another_worker_breaks_the_pool() {
    let pool = pool(2);
    let tasks = tasks(&pool);
    let other = submit(&pool, &tasks.spin);
    let pid = worker_of(&pool, other.task_id());
    several(&pool, &tasks.echo, 50).iter().for_each(|echo| drop(output(echo)));
    let ahead = ahead(&pool, &tasks, || submit(&pool, &tasks.spin));
    assert_ne!(ahead.pid, pid);
    signal(pid, Signal::KILL);
    let known = failure(&ahead.known);
    let unknown = failure(&ahead.unknown);
    ahead.listen.send(()).expect("it waits");
    assert!(known.may_have_run(), "{known}");
    assert!(matches!(unknown.error(), TaskError::Broken(_)), "{unknown}");
    assert!(unknown.may_have_run(), "{unknown}");
}

#[test]
fn a_task_that_succeeded_has_begun_though_its_worker_was_killed_for_the_one_before() {
    let pool = build(builder(1).grace(ms(50)));
    let tasks = tasks(&pool);
    warm(&pool, &tasks);
    let long = || pool.submit_bytes(&tasks.count, 1_000_000_000_u64.to_le_bytes().to_vec()).expect("submits");
    let ahead = ahead(&pool, &tasks, long);
    let stat = || std::fs::read_to_string(format!("/proc/{}/stat", ahead.pid)).expect("it lives");
    eventually("the worker to rest", || stat().contains(") S "));
    // Both are over, but the host does not know that.
    assert!(ahead.known.abort());
    eventually("the worker to be killed", || !is_alive(ahead.pid));
    ahead.listen.send(()).expect("it waits");
    output(&ahead.known);
    output(&ahead.unknown);
    let reports = [&ahead.known, &ahead.unknown].map(|future| future.report().expect("done"));
    assert_eq!(reports.map(|report| (report.attempts, report.worker_pid)), [(1, Some(ahead.pid)); 2]);
}

#[test]
fn a_task_is_not_run_twice_unasked_because_its_worker_was_killed_for_the_one_before() {
    let pool = build(builder(1).grace(ms(50)));
    let tasks = tasks(&pool);
    warm(&pool, &tasks);
    let ahead = ahead(&pool, &tasks, || submit(&pool, &tasks.spin));
    // That task is over, but the host does not know it.
    assert!(ahead.known.abort());
    eventually("the worker to be killed", || !is_alive(ahead.pid));
    ahead.listen.send(()).expect("it waits");
    output(&ahead.known);
    let is_elsewhere =
        |worker: &wasmpool::event::WorkerStats| worker.pid != ahead.pid && worker.task.is_some();
    eventually("it to end, or to run again", || {
        ahead.unknown.is_done() || pool.stats().workers.iter().any(is_elsewhere)
    });
    assert!(ahead.unknown.is_done(), "it had begun, and now runs again");
    assert!(failure(&ahead.unknown).may_have_run());
}

#[test]
fn an_inputs_slow_destructor_holds_up_no_deadline_of_other_workers() {
    let pool = pool(2);
    let tasks = tasks(&pool);
    pool.prestart(2);
    let pids = idle_workers(&pool, 2);
    let before = submit(&pool, &tasks.spin);
    let healthy = worker_of(&pool, before.task_id());
    let frozen = Frozen::new(*pids.iter().find(|pid| **pid != healthy).expect("two"));
    let (_first, is_dropped, listen) = deafening(&pool, &tasks);
    let limited = || submit_with(&pool, &tasks.spin, TaskOptions::new().timeout(ms(50)));
    // The task's time begins as the destructor does.
    let next = limited();
    drop(frozen);
    is_dropped.recv_timeout(PATIENCE).expect("the first is done");
    before.abort();
    assert!(matches!(error(&before), TaskError::Aborted { .. }));
    let other = limited();
    assert_eq!(worker_of(&pool, other.task_id()), healthy);
    let failed = other.result_timeout(PATIENCE / 6).expect("its time is up").expect_err("it never ends");
    assert!(matches!(failed.error(), TaskError::Timeout { .. }), "{failed}");
    listen.send(()).expect("it waits");
    assert!(matches!(error(&next), TaskError::Timeout { .. }));
}
