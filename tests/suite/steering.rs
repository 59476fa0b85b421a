//! Steering a pool, and seeing what it does: numbers, events, bounds, recycling, priorities,
//! retries, replacement, the ends of a pool, and what a worker is handed ahead.
//!
//! A *frozen* worker is one under SIGSTOP: what it was handed counts as running and comes to no
//! end, and no test has to hit a moment.

mod ahead;
mod deaths;
mod ends;
mod events;
mod numbers;
mod order;
mod recycling;
mod retries;
mod workers;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::{
    self, Guarded, PATIENCE, build, builder, error, eventually, failure, is_alive, raw, signal,
};
use rustix::process::Signal;
use wasmpool::error::{DeathCause, Phase, SubmitError};
use wasmpool::event::{EventKind, Events, LeaveReason, PoolEvent, PoolStats, TaskOutcome, WorkerState};
use wasmpool::module::RawTask;
use wasmpool::pool::{OnWorkerDeath, Replacement, ShutdownMode};
use wasmpool::task::{Retry, TaskId};
use wasmpool::{Pool, TaskError, TaskFuture, TaskOptions};

type Future = TaskFuture<wasmpool::Bytes>;

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
    let module = support::wat(pool, TASKS_WAT);
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
    pool.submit_with(task, "x", options).expect("submits")
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

/// Returns how often the task began, once it is done.
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
        let runs_it = |worker: &wasmpool::event::WorkerStats| worker.task.is_some_and(|(id, _)| id == task);
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
            // The task is aborted at whatever place it is by now.
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
