//! Steering a pool, and seeing what it does: numbers, events, bounds, recycling, priorities,
//! retries, replacement, the ends of a pool, and what a worker is handed ahead.
//!
//! A *frozen* worker is one under SIGSTOP: what it was handed counts as running and comes to no
//! end, and no test has to hit a moment.

mod common;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{PATIENCE, builder, error, eventually, failure, is_alive, raw, signal};
use rustix::process::Signal;
use wasmpool::{
    DeathCause, EventKind, Events, LeaveReason, OnWorkerDeath, Phase, Pool, PoolBuilder, PoolEvent,
    PoolStats, RawTask, Replacement, Retry, ShutdownMode, SubmitError, TaskError, TaskFuture, TaskId,
    TaskOptions, TaskOutcome, WorkerState,
};

type Future = TaskFuture<wasmpool::Bytes>;

/// A pool that is killed when its test fails: it would wait for tasks that never end.
struct Guarded(Pool);

impl std::ops::Deref for Guarded {
    type Target = Pool;

    fn deref(&self) -> &Pool {
        &self.0
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.kill();
        }
    }
}

fn build(builder: PoolBuilder) -> Guarded {
    Guarded(builder.build().expect("the pool builds"))
}

fn pool(workers: usize) -> Guarded {
    build(builder(workers))
}

/// Tasks by the bare byte ABI, one for each way to end.
struct Tasks {
    /// Returns its input.
    echo: RawTask,
    /// Never ends.
    spin: RawTask,
    /// Executes `unreachable`.
    trap: RawTask,
    /// Returns an error of its own.
    refuse: RawTask,
    /// Counts down from the number that is its input.
    count: RawTask,
}

const TASKS_WAT: &str = r#"(module
    (memory (export "memory") 4)
    (func (export "wasmpool_abi_v1"))
    (func (export "wasmpool_alloc") (param i32) (result i32) i32.const 1025)
    (func $envelope (param $status i32) (param $len i32) (result i64)
        (i32.store8 (i32.const 1024) (local.get $status))
        (i64.or (i64.shl (i64.const 1024) (i64.const 32))
                (i64.extend_i32_u (i32.add (local.get $len) (i32.const 1)))))
    (func (export "echo") (param $at i32) (param $len i32) (result i64)
        (call $envelope (i32.const 0) (local.get $len)))
    (func (export "refuse") (param i32 i32) (result i64) (call $envelope (i32.const 1) (i32.const 0)))
    (func (export "trap") (param i32 i32) (result i64) unreachable)
    (func (export "spin") (param i32 i32) (result i64) (loop (br 0)) unreachable)
    (func (export "count") (param $at i32) (param i32) (result i64) (local $left i64)
        (local.set $left (i64.load align=1 (local.get $at)))
        (loop
            (local.set $left (i64.sub (local.get $left) (i64.const 1)))
            (br_if 0 (i64.gt_s (local.get $left) (i64.const 0))))
        (call $envelope (i32.const 0) (i32.const 0))))"#;

fn tasks(pool: &Pool) -> Tasks {
    let module = common::wat(pool, TASKS_WAT);
    let task = |name| raw(&module, name);
    Tasks {
        echo: task("echo"),
        spin: task("spin"),
        trap: task("trap"),
        refuse: task("refuse"),
        count: task("count"),
    }
}

fn submit(pool: &Pool, task: &RawTask) -> Future {
    pool.submit_bytes(task, "x").expect("submits")
}

fn submit_with(pool: &Pool, task: &RawTask, options: TaskOptions) -> Future {
    pool.submit_with(task, &"x".into(), options).expect("submits")
}

fn several(pool: &Pool, task: &RawTask, count: usize) -> Vec<Future> {
    (0..count).map(|_| submit(pool, task)).collect()
}

/// The output of a future that must succeed, within [`PATIENCE`].
fn output(future: &Future) -> wasmpool::Bytes {
    match future.result_timeout(PATIENCE) {
        Ok(Ok(output)) => output,
        Ok(Err(failure)) => panic!("{failure}"),
        Err(timeout) => panic!("{timeout}"),
    }
}

/// How often the task began, once it is done.
fn attempts(future: &Future) -> u32 {
    future.report().expect("done").attempts
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Waits until the task runs, and says where.
fn worker_of(pool: &Pool, task: TaskId) -> u32 {
    let mut found = None;
    eventually("the task to run", || {
        let runs_it = |worker: &wasmpool::WorkerStats| worker.task.is_some_and(|(id, _)| id == task);
        found = pool.stats().workers.into_iter().find(runs_it).map(|worker| worker.pid);
        found.is_some()
    });
    found.expect("a pid")
}

/// Waits until so many workers are up and idle, and says which.
fn idle_workers(pool: &Pool, count: usize) -> Vec<u32> {
    let mut pids = Vec::new();
    eventually("the workers to be idle", || {
        let workers = pool.stats().workers;
        pids = workers.iter().map(|worker| worker.pid).collect();
        workers.len() == count && workers.iter().all(|worker| worker.state == WorkerState::Idle)
    });
    pids
}

/// A worker under SIGSTOP; it goes on when this is dropped.
struct Frozen(u32);

impl Frozen {
    fn new(pid: u32) -> Frozen {
        signal(pid, Signal::STOP);
        eventually("the worker to stop", || {
            let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
            let mut stats =
                threads.flatten().map(|thread| std::fs::read_to_string(thread.path().join("stat")));
            stats.all(|stat| stat.is_ok_and(|stat| stat.contains(") T ")))
        });
        Frozen(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        signal(self.0, Signal::CONT);
    }
}

/// A pool's only worker, up, with an idea of how short tasks are.
fn warm(pool: &Pool, tasks: &Tasks) -> u32 {
    several(pool, &tasks.echo, 50).iter().for_each(|future| drop(output(future)));
    idle_workers(pool, 1)[0]
}

/// A task without end on the pool's only worker, which was handed what `rest` submits, or the
/// first of it, as it began.
fn stocked<T>(pool: &Pool, tasks: &Tasks, rest: impl FnOnce() -> T) -> (Future, T) {
    warm(pool, tasks);
    let before = submit(pool, &tasks.spin);
    worker_of(pool, before.task_id());
    let endless = submit(pool, &tasks.spin);
    let rest = rest();
    before.abort();
    worker_of(pool, endless.task_id());
    (endless, rest)
}

/// Runs `work` on a thread of its own; a deadlock fails the test instead of hanging it.
fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = crossbeam_channel::bounded(1);
    std::thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{what} hangs"))
}

/// The events up to the first that `last` is true of.
fn events_to(events: &mut Events, what: &str, last: impl Fn(&EventKind) -> bool) -> Vec<EventKind> {
    let mut seen = Vec::new();
    loop {
        let Some(PoolEvent { kind, .. }) = events.next_timeout(PATIENCE) else {
            panic!("waited in vain for {what} after {seen:?}");
        };
        let is_last = last(&kind);
        seen.push(kind);
        if is_last {
            return seen;
        }
    }
}

/// Tasks in the order in which they began.
fn order_of_starts(events: &[EventKind]) -> Vec<TaskId> {
    let started = |event: &EventKind| match event {
        EventKind::TaskStarted { task, .. } => Some(*task),
        _ => None,
    };
    events.iter().filter_map(started).collect()
}

// ── Numbers ──────────────────────────────────────────────────────────────────

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
    assert_eq!(during.ended, wasmpool::Ended::default());
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
    let (first, second) = (busy(&after), busy(&pool.stats()));
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

/// A seeded mixture of every way to end, with one worker killed on the way. Returns the futures.
fn mixture(pool: &Pool, tasks: &Tasks, count: usize) -> Vec<Future> {
    let limited = || TaskOptions::new().timeout(ms(3));
    let retried = || limited().retry(Retry::attempts(2).after_timeouts());
    let mut futures: Vec<Future> = Vec::new();
    for number in 0..count {
        futures.push(match number % 10 {
            0 => submit(pool, &tasks.trap),
            1 => submit(pool, &tasks.refuse),
            2 => submit_with(pool, &tasks.spin, limited()),
            3 => submit_with(pool, &tasks.spin, retried()),
            4 | 5 => submit(pool, &tasks.spin),
            _ => submit(pool, &tasks.echo),
        });
        let last = &futures[number];
        match number % 10 {
            // At whatever place it is by now.
            4 => drop(last.abort()),
            6 => drop(last.cancel()),
            5 if number % 100 == 5 => {
                signal(worker_of(pool, last.task_id()), Signal::KILL);
                assert!(matches!(error(last), TaskError::WorkerDied(_)));
            }
            5 => {
                worker_of(pool, last.task_id());
                last.abort();
            }
            _ => {}
        }
    }
    futures
}

fn outcome(future: &Future) -> TaskOutcome {
    match future.result_timeout(PATIENCE).expect("done in time").map_err(|failure| failure.error().clone()) {
        Ok(_) => TaskOutcome::Succeeded,
        Err(TaskError::Timeout { .. }) => TaskOutcome::TimedOut,
        Err(TaskError::Cancelled) => TaskOutcome::Cancelled,
        Err(TaskError::Aborted { .. }) => TaskOutcome::Aborted,
        Err(TaskError::WorkerDied(_) | TaskError::Broken(_)) => TaskOutcome::Lost,
        Err(_) => TaskOutcome::Failed,
    }
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
        let (pool, over) = (pool.clone(), over.clone());
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

// ── Events ───────────────────────────────────────────────────────────────────

#[test]
fn the_life_of_a_task_and_of_its_worker_is_told_in_order() {
    let pool = pool(1);
    let tasks = tasks(&pool);
    let events = pool.events();
    let future = submit_with(&pool, &tasks.echo, TaskOptions::new().label("invoice 4711"));
    output(&future);
    let pid = pool.worker_pids()[0];
    pool.shutdown(ShutdownMode::Finish);
    let told: Vec<PoolEvent> = events.collect();
    assert!(told.windows(2).all(|pair| pair[0].at <= pair[1].at), "time does not run backwards");
    let task = future.task_id();
    let mut kinds = told.into_iter().map(|event| event.kind);
    match kinds.next() {
        Some(EventKind::TaskQueued { task: queued, name, module, label }) => {
            assert_eq!((queued, &*name, label.as_deref()), (task, "echo", Some("invoice 4711")));
            assert!(module.contains("sha256"), "{module}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(kinds.next(), Some(EventKind::WorkerStarted { pid }));
    assert_eq!(kinds.next(), Some(EventKind::WorkerReady { pid }));
    assert_eq!(kinds.next(), Some(EventKind::TaskStarted { task, pid, attempt: 1 }));
    let report = future.report().expect("done");
    assert_eq!(kinds.next(), Some(EventKind::TaskFinished { task, outcome: TaskOutcome::Succeeded, report }));
    assert_eq!(kinds.next(), Some(EventKind::WorkerLeaving { pid, reason: LeaveReason::PoolEnds }));
    match kinds.next() {
        Some(EventKind::WorkerEnded { death, expected: true }) => {
            assert_eq!((death.pid, death.cause), (pid, DeathCause::Exited(0)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(kinds.next(), Some(EventKind::Stopped));
    assert_eq!(kinds.next(), None);
}

/// Follows a pool by its events, and holds them to the rules that they keep among themselves.
#[derive(Default)]
struct Chronicle {
    /// Workers that live; of those that are ready, what they run.
    workers: HashMap<u32, Option<Option<TaskId>>>,
    /// Open tasks, by how often they began.
    open: HashMap<TaskId, u32>,
    finished: BTreeMap<TaskId, TaskOutcome>,
    stopped: bool,
}

impl Chronicle {
    fn follow(&mut self, kind: &EventKind) {
        assert!(!self.stopped, "{kind:?} after the end");
        match kind {
            EventKind::WorkerStarted { pid } => assert_eq!(self.workers.insert(*pid, None), None),
            EventKind::WorkerReady { pid } => {
                assert_eq!(self.workers.insert(*pid, Some(None)), Some(None), "started and not ready");
            }
            EventKind::WorkerLeaving { pid, .. } => assert!(self.workers.contains_key(pid)),
            EventKind::WorkerEnded { death, .. } => {
                assert!(self.workers.remove(&death.pid).is_some(), "{death}");
            }
            EventKind::TaskQueued { task, .. } => {
                assert_eq!(self.open.insert(*task, 0), None);
                assert!(!self.finished.contains_key(task));
            }
            EventKind::TaskStarted { task, pid, attempt } => {
                let attempts = self.open.get_mut(task).expect("a task that is open");
                *attempts += 1;
                assert_eq!(*attempts, *attempt);
                let runs = self.workers.get_mut(pid).and_then(Option::as_mut).expect("a ready worker");
                assert_eq!(runs.replace(*task), None, "one task at a time");
            }
            EventKind::TaskRetried { task, .. } => self.leave(*task),
            EventKind::TaskFinished { task, outcome, report } => {
                let attempts = self.open.remove(task).expect("a task that is open");
                assert_eq!(attempts, report.attempts, "{task} {outcome:?}");
                assert!(attempts > 0 || *outcome == TaskOutcome::Cancelled || *outcome == TaskOutcome::Lost);
                assert_eq!(self.finished.insert(*task, *outcome), None);
                self.leave(*task);
            }
            EventKind::Stopped => self.stopped = true,
            other => panic!("{other:?} has no place here"),
        }
    }

    fn leave(&mut self, task: TaskId) {
        for runs in self.workers.values_mut().flatten() {
            if *runs == Some(task) {
                *runs = None;
            }
        }
    }
}

#[test]
fn each_task_that_is_queued_finishes_once_over_1000_mixed_tasks() {
    let pool = build(builder(2).on_worker_death(OnWorkerDeath::replace()));
    let tasks = tasks(&pool);
    let events = pool.events();
    let futures = mixture(&pool, &tasks, 1_000);
    let expected: BTreeMap<_, _> = futures.iter().map(|future| (future.task_id(), outcome(future))).collect();
    drop(pool);
    let mut chronicle = Chronicle::default();
    for event in events {
        chronicle.follow(&event.kind);
    }
    assert!(chronicle.stopped && chronicle.open.is_empty() && chronicle.workers.is_empty());
    assert_eq!(chronicle.finished, expected);
}

#[test]
fn a_subscriber_that_does_not_read_holds_nothing_up_and_what_it_misses_is_counted() {
    let pool = pool(1);
    let tasks = tasks(&pool);
    let (all, mut few) = (pool.events(), pool.events_buffered(4));
    several(&pool, &tasks.echo, 200).iter().for_each(|echo| drop(output(echo)));
    assert!(few.dropped() > 500);
    pool.shutdown(ShutdownMode::Finish);
    assert_eq!(all.dropped(), 0);
    let all: Vec<_> = all.collect();
    assert_eq!(all.last().map(|event| &event.kind), Some(&EventKind::Stopped));
    assert_eq!(few.dropped(), all.len() as u64 - 4);
    let kept: Vec<_> = std::iter::from_fn(|| few.try_next()).collect();
    assert_eq!(kept[..], all[..4], "the first are kept");
    assert_eq!(few.next(), None, "and nothing follows");
}

#[test]
fn events_end_with_the_pool_and_do_not_keep_it_alive() {
    let pool = pool(1);
    let mut events = pool.events();
    let another = pool.clone();
    drop(pool);
    assert_eq!(events.try_next(), None, "it lives");
    another.shutdown(ShutdownMode::Finish);
    assert_eq!(events.next().map(|event| event.kind), Some(EventKind::Stopped));
    assert_eq!(events.next(), None);
    let late: Vec<_> = another.events().map(|event| event.kind).collect();
    assert_eq!(late, [EventKind::Stopped], "whoever comes after the end learns of it");

    let dropped = self::pool(1);
    dropped.prestart(1);
    idle_workers(&dropped, 1);
    let events = dropped.events();
    drop(dropped);
    assert_eq!(in_time("the iterator", move || events.last()).expect("an event").kind, EventKind::Stopped);
}

#[test]
fn a_slow_task_is_told_once() {
    let pool = build(builder(1).slow_after(ms(20)));
    let tasks = tasks(&pool);
    let mut events = pool.events();
    let spin = submit(&pool, &tasks.spin);
    let (task, pid) = (spin.task_id(), worker_of(&pool, spin.task_id()));
    events_to(&mut events, "TaskSlow", |kind| *kind == EventKind::TaskSlow { task, pid });
    let running = || pool.stats().workers[0].task.map_or(Duration::ZERO, |(_, since)| since);
    assert!(running() >= ms(20));
    eventually("it to run for much longer", || running() > ms(100));
    spin.abort();
    let rest = events_to(&mut events, "its end", |kind| matches!(kind, EventKind::TaskFinished { .. }));
    assert!(matches!(rest[..], [EventKind::TaskFinished { outcome: TaskOutcome::Aborted, .. }]), "{rest:?}");
}

#[test]
fn a_breakage_is_told_before_the_ends_that_follow_from_it() {
    let pool = pool(1);
    let tasks = tasks(&pool);
    let spin = submit(&pool, &tasks.spin);
    let pending = submit(&pool, &tasks.echo);
    let pid = worker_of(&pool, spin.task_id());
    let events = pool.events();
    signal(pid, Signal::KILL);
    let told: Vec<_> = events.map(|event| event.kind).collect();
    let lost = |kind: &EventKind| match kind {
        EventKind::TaskFinished { task, outcome: TaskOutcome::Lost, report } => (*task, report.attempts),
        other => panic!("{other:?}"),
    };
    match &told[..] {
        [
            EventKind::WorkerEnded { death, expected: false },
            EventKind::Broken { death: why },
            ends @ ..,
            last,
        ] => {
            assert_eq!((death.pid, &death.cause), (pid, &DeathCause::Signaled(9)));
            assert_eq!((why.pid, why.phase), (pid, Phase::Running));
            let ends: Vec<_> = ends.iter().map(lost).collect();
            assert_eq!(ends, [(spin.task_id(), 1), (pending.task_id(), 0)]);
            assert_eq!(*last, EventKind::Stopped);
        }
        other => panic!("{other:?}"),
    }
}

// ── The number of workers ────────────────────────────────────────────────────

#[test]
fn a_smaller_pool_lets_busy_workers_finish_and_a_larger_one_starts_more() {
    let pool = pool(4);
    let tasks = tasks(&pool);
    let mut events = pool.events();
    let spins = several(&pool, &tasks.spin, 12);
    let running = || spins.iter().filter(|spin| spin.running() && !spin.done()).count();
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
    // In a pool that ends, no worker is started to meet a minimum.
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
    // As long as other pools need to start their workers, and to run something.
    for _ in 0..3 {
        let clock = self::pool(1);
        output(&submit(&clock, &self::tasks(&clock).echo));
        assert_eq!((pool.stats().running, spins[2].running()), (2, false));
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

// ── Recycling ────────────────────────────────────────────────────────────────

#[test]
fn a_worker_is_replaced_after_exactly_so_many_tasks() {
    let pool = build(builder(1).recycle_after_tasks(7));
    let tasks = tasks(&pool);
    let futures = several(&pool, &tasks.echo, 100);
    let mut pids: Vec<u32> = Vec::new();
    let mut shares: Vec<u32> = Vec::new();
    for future in &futures {
        output(future);
        let pid = future.report().expect("done").worker_pid.expect("it ran");
        if pids.last() == Some(&pid) {
            *shares.last_mut().expect("a share") += 1;
        } else {
            assert!(!pids.contains(&pid), "nobody comes back");
            pids.push(pid);
            shares.push(1);
        }
    }
    let mut expected = vec![7; 14];
    expected.push(2);
    assert_eq!(shares, expected);
    let stats = pool.stats();
    assert_eq!((stats.workers_recycled, stats.workers_started, stats.workers_died), (14, 15, 0));
    assert_eq!((stats.ended.succeeded, stats.retries), (100, 0));
}

#[test]
fn several_workers_are_recycled_under_load_and_no_task_is_lost_or_run_twice() {
    let pool = build(builder(3).recycle_after_tasks(5));
    let tasks = tasks(&pool);
    let futures = several(&pool, &tasks.echo, 300);
    let mut shares: HashMap<u32, u32> = HashMap::new();
    for future in &futures {
        output(future);
        assert_eq!(attempts(future), 1);
        *shares.entry(future.report().and_then(|report| report.worker_pid).expect("ran")).or_default() += 1;
    }
    assert!(shares.values().all(|share| *share <= 5), "{shares:?}");
    let recycled = shares.values().filter(|share| **share == 5).count();
    assert_eq!(pool.stats().workers_recycled, recycled as u64);
    assert_eq!(pool.stats().ended.succeeded, 300);
}

#[test]
fn a_task_that_is_cut_short_counts_towards_its_workers_share() {
    let pool = build(builder(1).recycle_after_tasks(2));
    let tasks = tasks(&pool);
    let spin = submit(&pool, &tasks.spin);
    let first = worker_of(&pool, spin.task_id());
    spin.abort();
    let pid_of = |future: &Future| {
        output(future);
        future.report().and_then(|report| report.worker_pid).expect("ran")
    };
    assert_eq!(pid_of(&submit(&pool, &tasks.echo)), first);
    assert_ne!(pid_of(&submit(&pool, &tasks.echo)), first);
}

#[test]
fn a_worker_is_replaced_when_it_is_too_large_or_too_old() {
    let distinct = |pool: &Pool| {
        let tasks = tasks(pool);
        let mut pids = HashSet::new();
        for _ in 0..5 {
            let echo = submit(pool, &tasks.echo);
            output(&echo);
            pids.insert(echo.report().and_then(|report| report.worker_pid).expect("ran"));
        }
        (pids.len(), pool.stats().workers_recycled)
    };
    assert_eq!(distinct(&build(builder(1).recycle_above_memory(1))), (5, 5));
    assert_eq!(distinct(&build(builder(1).recycle_above_memory(1 << 40))), (1, 0));
    assert_eq!(distinct(&build(builder(1).recycle_after(Duration::ZERO))), (5, 5));
    assert_eq!(distinct(&build(builder(1).recycle_after(Duration::MAX))), (1, 0));
}

#[test]
fn a_worker_gets_as_old_as_it_may() {
    let age = ms(100);
    let pool = build(builder(1).recycle_after(age));
    let tasks = tasks(&pool);
    let mut events = pool.events();
    eventually("it to be recycled", || {
        output(&submit(&pool, &tasks.echo));
        pool.stats().workers_recycled == 1
    });
    let (mut ready, mut left) = (None, None);
    while let Some(event) = events.try_next() {
        match event.kind {
            EventKind::WorkerReady { .. } => drop(ready.get_or_insert(event.at)),
            EventKind::WorkerLeaving { reason, .. } => {
                assert_eq!(reason, LeaveReason::Recycled);
                left = Some(event.at);
            }
            _ => {}
        }
    }
    assert!(left.expect("it left") - ready.expect("it was ready") >= age);
}

// ── Order ────────────────────────────────────────────────────────────────────

#[test]
fn pending_tasks_run_by_priority_and_then_by_age() {
    for prefetch in [0, 63] {
        let pool = build(builder(1).prefetch_max(prefetch));
        let tasks = tasks(&pool);
        warm(&pool, &tasks);
        let spin = submit(&pool, &tasks.spin);
        worker_of(&pool, spin.task_id());
        let mut events = pool.events();
        let submitted: Vec<_> = (0..100)
            .map(|number| {
                let priority = [0, 7, i32::MIN, -1, i32::MAX][number * 7 % 5];
                let future = submit_with(&pool, &tasks.echo, TaskOptions::new().priority(priority));
                (std::cmp::Reverse(priority), future.task_id(), future)
            })
            .collect();
        spin.abort();
        submitted.iter().for_each(|(.., future)| drop(output(future)));
        let mut expected: Vec<_> = submitted.iter().map(|(priority, task, _)| (*priority, *task)).collect();
        expected.sort();
        let expected: Vec<_> = expected.into_iter().map(|(_, task)| task).collect();
        let told = std::iter::from_fn(|| events.try_next()).map(|event| event.kind).collect::<Vec<_>>();
        assert_eq!(order_of_starts(&told), expected);
    }
}

#[test]
fn a_task_of_higher_priority_goes_before_what_waits_inside_of_a_worker() {
    let pool = pool(1);
    let tasks = tasks(&pool);
    warm(&pool, &tasks);
    let mut events = pool.events();
    // Until the machine has let us submit while the long task ran.
    for billions in 1.. {
        let before = submit(&pool, &tasks.spin);
        worker_of(&pool, before.task_id());
        let steps = (billions * 200_000_000_u64).to_le_bytes().to_vec();
        let long = pool.submit_bytes(&tasks.count, steps).expect("submits");
        let low = several(&pool, &tasks.echo, 30);
        before.abort();
        worker_of(&pool, long.task_id());
        let high = submit_with(&pool, &tasks.echo, TaskOptions::new().priority(1));
        let in_time = !long.done();
        low.iter().chain([&high]).for_each(|future| drop(output(future)));
        let told = std::iter::from_fn(|| events.try_next()).map(|event| event.kind).collect::<Vec<_>>();
        if in_time {
            let started = order_of_starts(&told);
            let place = |task| started.iter().position(|started| *started == task).expect("it began");
            assert_eq!(place(high.task_id()), place(long.task_id()) + 1, "{started:?}");
            return;
        }
    }
}

// ── Retries ──────────────────────────────────────────────────────────────────

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
                    let (cause, phase) = (&death.cause, death.phase);
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
    let (task, mut retried, mut pauses) = (thrice.task_id(), None, Vec::new());
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
    let large =
        pool.submit_with(&tasks.echo, &vec![7; 100].into(), retry().output_bytes_max(10)).expect("submits");
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
        assert!(stop(&future) && future.cancelled());
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
    // By then its time is over, and it has been asked to stop.
    events_to(&mut events, "TaskSlow", |kind| matches!(kind, EventKind::TaskSlow { .. }));
    assert!(spin.abort(), "it is not done");
    drop(frozen);
    error(&spin);
    assert_eq!(attempts(&spin), 1);
}

// ── Deaths ───────────────────────────────────────────────────────────────────

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
    assert!(spins[1].running() && !spins[1].done(), "another worker's task goes on");
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

/// A pool of `worker_program`, and a task of it that a healthy pool has compiled.
fn pool_of(program: &str, policy: OnWorkerDeath) -> (Guarded, Tasks, tempfile::TempDir) {
    let cache = tempfile::tempdir().expect("a directory");
    let healthy = build(builder(1).cache_dir(cache.path()));
    tasks(&healthy);
    let builder = builder(1).cache_dir(cache.path()).worker_program(program);
    let pool = build(builder.on_worker_death(policy));
    let tasks = tasks(&pool);
    (pool, tasks, cache)
}

#[test]
fn workers_that_die_at_their_start_break_the_pool_once_their_budget_is_spent() {
    let policy = Replacement::new().crashes_max(2).backoff(ms(20), ms(30));
    let (pool, tasks, _cache) = pool_of("/bin/false", OnWorkerDeath::Replace(policy));
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
    let (mut ended, mut pauses) = (None, Vec::new());
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
struct Deaf(crossbeam_channel::Sender<()>, crossbeam_channel::Receiver<()>);

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

/// A worker that is ahead of what the host has heard of it.
struct Ahead {
    pid: u32,
    /// What it runs, as far as the host knows; it has ended that.
    known: Future,
    /// What it runs, handed to it ahead.
    unknown: Future,
    /// Lets the host listen again.
    listen: crossbeam_channel::Sender<()>,
    _first: Future,
}

/// Has the one worker that is free get ahead of the host: at a task of `long`, behind a short one.
fn ahead(pool: &Pool, tasks: &Tasks, known: TaskOptions, long: impl Fn() -> Future) -> Ahead {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let before = submit(pool, &tasks.spin);
        let pid = worker_of(pool, before.task_id());
        let (dropped, is_dropped) = crossbeam_channel::unbounded();
        let (listen, deaf) = crossbeam_channel::unbounded();
        let input = wasmpool::Bytes::from_owner(Deaf(dropped, deaf));
        let first = pool.submit_bytes(&tasks.echo, input).expect("submits");
        let known = submit_with(pool, &tasks.echo, known.clone());
        let unknown = long();
        // So that its share of what waits is large enough.
        let others = several(pool, &tasks.echo, 20);
        before.abort();
        is_dropped.recv_timeout(PATIENCE).expect("the first is done");
        for other in &others {
            other.cancel();
        }
        let (began, used) = (Instant::now(), cpu(pid));
        // It does not rest, so it is at the long one: echoing takes microseconds. Unless tasks took
        // so long of late that it was not handed that many.
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
    let ahead = ahead(&pool, &tasks, TaskOptions::new(), || submit(&pool, &tasks.spin));
    assert!(!ahead.unknown.cancel(), "it runs");
    let killer = std::thread::spawn({
        let pool = pool.clone();
        move || pool.kill()
    });
    let (known, unknown) = (failure(&ahead.known), failure(&ahead.unknown));
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
    let ahead = ahead(&pool, &tasks, TaskOptions::new(), || submit(&pool, &tasks.spin));
    assert_ne!(ahead.pid, pid);
    signal(pid, Signal::KILL);
    let (known, unknown) = (failure(&ahead.known), failure(&ahead.unknown));
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
    // The one before it is over long before its time is, but the host does not hear that.
    let ahead = ahead(&pool, &tasks, TaskOptions::new().timeout(Duration::from_secs(8)), long);
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
    let known = TaskOptions::new().timeout(Duration::from_secs(8));
    let ahead = ahead(&pool, &tasks, known, || submit(&pool, &tasks.spin));
    eventually("the worker to be killed", || !is_alive(ahead.pid));
    ahead.listen.send(()).expect("it waits");
    output(&ahead.known);
    let is_elsewhere = |worker: &wasmpool::WorkerStats| worker.pid != ahead.pid && worker.task.is_some();
    eventually("it to end, or to run again", || {
        ahead.unknown.done() || pool.stats().workers.iter().any(is_elsewhere)
    });
    assert!(ahead.unknown.done(), "it had begun, and now runs again");
    assert!(failure(&ahead.unknown).may_have_run());
}

// ── The ends of a pool ───────────────────────────────────────────────────────

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
        assert!(pending.iter().all(|echo| echo.cancelled() && attempts(echo) == 0));
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
        // Once more changes nothing.
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
        assert!(echoes.iter().all(TaskFuture::done));
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
        assert!(ahead.iter().all(|spin| spin.cancelled() && attempts(spin) == 0));
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
        assert!(futures.iter().all(TaskFuture::done) && pool.worker_pids().is_empty());
        assert_eq!((pool.stats().pending, pool.stats().running), (0, 0));
    }
}

// ── Handed ahead ─────────────────────────────────────────────────────────────

#[test]
fn a_cancelled_task_never_runs_though_a_worker_had_been_handed_it() {
    let pool = pool(1);
    let tasks = tasks(&pool);
    // Had the worker begun one of them, it would be at it still.
    let (endless, ahead) = stocked(&pool, &tasks, || several(&pool, &tasks.spin, 200));
    for spin in &ahead {
        assert!(spin.cancel() && spin.done(), "{spin:?}");
    }
    for spin in &ahead {
        assert!(spin.cancelled());
        assert_eq!(attempts(spin), 0);
        assert!(!failure(spin).may_have_run());
    }
    let answered = pool.stats().workers[0].answered;
    endless.abort();
    assert!(matches!(error(&endless), TaskError::Aborted { killed: false }));
    several(&pool, &tasks.echo, 50).iter().for_each(|echo| drop(output(echo)));
    assert_eq!(pool.stats().workers[0].answered, answered + 51);
    assert_eq!((pool.stats().ended.cancelled, pool.stats().workers_started), (200, 1));
}

#[test]
fn a_task_is_either_cancelled_and_never_runs_or_it_runs() {
    let pool = pool(2);
    let tasks = tasks(&pool);
    let futures = several(&pool, &tasks.echo, 3_000);
    // From the end, where they are pending, to the front, where they run.
    let (mut cancelled, mut ran) = (0, 0);
    for echo in futures.iter().rev() {
        let is_cancelled = echo.cancel();
        assert!(!is_cancelled || echo.done());
        cancelled += u64::from(is_cancelled);
    }
    for echo in &futures {
        match echo.result_timeout(PATIENCE).expect("done in time") {
            Ok(_) => {
                ran += 1;
                assert_eq!(attempts(echo), 1);
            }
            Err(failure) => {
                assert_eq!((failure.error(), failure.may_have_run()), (&TaskError::Cancelled, false));
            }
        }
    }
    assert_eq!((cancelled + ran, pool.stats().ended.cancelled), (3_000, cancelled));
    let mut workers = Vec::new();
    eventually("the workers to rest", || {
        workers = pool.stats().workers;
        workers.iter().all(|worker| worker.state == WorkerState::Idle)
    });
    let answered: u64 = workers.iter().map(|worker| worker.answered).sum();
    assert_eq!(answered, ran, "workers ran what was not cancelled, and nothing else");
}

#[test]
fn quick_tasks_behind_an_endless_one_move_to_an_idle_worker() {
    // Whether the worker that has them answers or not.
    for freeze in [false, true] {
        let pool = pool(2);
        let tasks = tasks(&pool);
        let before = several(&pool, &tasks.spin, 2);
        let pids = [0, 1].map(|number: usize| worker_of(&pool, before[number].task_id()));
        before[0].abort();
        assert!(matches!(error(&before[0]), TaskError::Aborted { .. }));
        several(&pool, &tasks.echo, 50).iter().for_each(|echo| drop(output(echo)));
        let blocked = submit(&pool, &tasks.spin);
        worker_of(&pool, blocked.task_id());
        let endless = submit(&pool, &tasks.spin);
        let quick = several(&pool, &tasks.echo, 60);
        // The first worker goes on to the endless one, and is handed its share of the quick ones.
        blocked.abort();
        assert_eq!(worker_of(&pool, endless.task_id()), pids[0]);
        let frozen = freeze.then(|| Frozen::new(pids[0]));
        before[1].abort();
        for echo in &quick {
            output(echo);
            let report = echo.report().expect("done");
            assert_eq!((report.attempts, report.worker_pid), (1, Some(pids[1])));
        }
        assert!(endless.running() && !endless.done());
        assert_eq!(pool.stats().workers_started, 2);
        drop(frozen);
        pool.kill();
    }
}

#[test]
fn a_frozen_worker_holds_up_nothing_but_the_task_that_it_runs() {
    let pool = pool(2);
    let tasks = tasks(&pool);
    pool.prestart(2);
    let frozen = Frozen::new(idle_workers(&pool, 2)[0]);
    let quick = several(&pool, &tasks.echo, 300);
    eventually("all but one to be done", || quick.iter().filter(|echo| echo.done()).count() == 299);
    let stuck = quick.iter().find(|echo| !echo.done()).expect("the one");
    assert_eq!(worker_of(&pool, stuck.task_id()), frozen.0);
    assert!(!stuck.cancel(), "it runs");
    drop(frozen);
    quick.iter().for_each(|echo| drop(output(echo)));
    assert!(quick.iter().all(|echo| attempts(echo) == 1));
}
