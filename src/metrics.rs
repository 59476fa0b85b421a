//! A pool's numbers through the [`metrics`](https://docs.rs/metrics) facade, for whichever exporter the
//! embedder has installed before [`Pool::publish_metrics`] is called.
//!
//! | name | type | unit | labels, besides `pool` | what |
//! |---|---|---|---|---|
//! | `wasmpool_tasks_queued` | gauge | | | tasks that have not begun |
//! | `wasmpool_tasks_running` | gauge | | | tasks that run |
//! | `wasmpool_tasks_total` | counter | | `outcome`: `succeeded`, `failed`, `timed_out`, `cancelled`, `aborted`, `lost` | tasks that ended |
//! | `wasmpool_task_retries_total` | counter | | `outcome`, of the attempt | attempts that were followed by another |
//! | `wasmpool_tasks_slow_total` | counter | | | tasks that ran for longer than [`PoolBuilder::slow_after`](crate::PoolBuilder::slow_after) |
//! | `wasmpool_task_queued_seconds` | histogram | seconds | | from submission to the hand-over to a worker |
//! | `wasmpool_task_transfer_seconds` | histogram | seconds | | on the way there and back |
//! | `wasmpool_task_run_seconds` | histogram | seconds | | in the worker |
//! | `wasmpool_task_cpu_seconds` | histogram | seconds | | of a CPU, while it ran |
//! | `wasmpool_task_memory_bytes` | histogram | bytes | | most memory and tables of a task |
//! | `wasmpool_input_bytes_total` | counter | bytes | | encoded inputs of tasks that have begun and ended, where they are known |
//! | `wasmpool_output_bytes_total` | counter | bytes | | what came back: encoded outputs, texts of errors |
//! | `wasmpool_modules_loaded_total` | counter | | `from`: `cache`, `compiler` | modules loaded for the first time |
//! | `wasmpool_log_dropped_bytes_total` | counter | bytes | | over the tasks' log limits |
//! | `wasmpool_log_dropped_records_total` | counter | | | over a worker's rate, [`PoolBuilder::log_rate_max`](crate::PoolBuilder::log_rate_max); told once a second |
//! | `wasmpool_workers` | gauge | | `state`: `starting`, `idle`, `busy` | worker processes that live; those that leave are none of these |
//! | `wasmpool_workers_started_total` | counter | | | worker processes started |
//! | `wasmpool_workers_leaving_total` | counter | | `reason`: `idle`, `resized`, `recycled`, `domain`, `pool_ends` | workers that the pool asked to leave |
//! | `wasmpool_workers_died_total` | counter | | `cause`: `exited`, `signaled`, `out_of_memory`, `memory_exceeded`, `protocol_violation`, `start_timeout`, `sandbox_refused`, `spawn_failed`, `unreachable`, `killed`, `unknown` | workers that died unexpectedly |
//! | `wasmpool_sandbox_layers` | gauge | | | layers that stand around the worker that became ready last |
//! | `wasmpool_workers_short_total` | counter | | | how often more workers were wanted than could be had: [`EventKind::WorkersShort`] |
//! | `wasmpool_broken` | gauge | | | 1 once a death has broken the pool |
//! | `wasmpool_events_dropped_total` | counter | | | events that were missed: the other numbers lack them |
//!
//! They are made from [`Pool::events`], by a thread of their own that tasks never wait for; as while
//! anyone listens there, short tasks of a map then travel alone, not in batches.

use std::collections::HashMap;

use metrics::{Counter, Gauge, Histogram, Unit, counter, gauge, histogram};

use crate::error::DeathCause;
use crate::observe::{EventKind, LeaveReason, TaskOutcome};
use crate::pool::Pool;
use crate::pool::events::Events;
use crate::report::TaskReport;
use proto::refused::calling;
use proto::task::TaskId;

impl Pool {
    /// Tells the `metrics` facade what happens in this pool from now on, until it has stopped. Each
    /// number has the label `pool`, with this name. Pools of one name share their counters; their
    /// gauges are those of whichever spoke last. The table is in the documentation of this crate's
    /// feature `metrics`, [`metrics`](crate::metrics).
    ///
    /// # Errors
    /// If the system has no thread for it.
    pub fn publish_metrics(&self, name: impl Into<String>) -> std::io::Result<()> {
        describe();
        let name = name.into();
        let events = self.events();
        let publish = move || publish(&name, events);
        let thread = std::thread::Builder::new().name("wasmpool-metrics".into()).spawn(publish);
        thread.map(drop).map_err(calling("start a thread"))
    }
}

fn describe() {
    metrics::describe_gauge!("wasmpool_tasks_queued", "Tasks that have not begun");
    metrics::describe_gauge!("wasmpool_tasks_running", "Tasks that run");
    metrics::describe_counter!("wasmpool_tasks_total", "Tasks that ended, by how they did");
    metrics::describe_counter!("wasmpool_task_retries_total", "Attempts that were followed by another");
    metrics::describe_counter!("wasmpool_tasks_slow_total", "Tasks that ran for long");
    for (name, what) in [
        ("wasmpool_task_queued_seconds", "From submission to scheduler"),
        ("wasmpool_task_transfer_seconds", "On the way to the worker and back"),
        ("wasmpool_task_run_seconds", "In the worker"),
        ("wasmpool_task_cpu_seconds", "Of a CPU, while the task ran"),
    ] {
        metrics::describe_histogram!(name, Unit::Seconds, what);
    }
    metrics::describe_histogram!(
        "wasmpool_task_memory_bytes",
        Unit::Bytes,
        "Most memory and tables of a task"
    );
    metrics::describe_counter!("wasmpool_input_bytes_total", Unit::Bytes, "Inputs of tasks that have ended");
    metrics::describe_counter!("wasmpool_output_bytes_total", Unit::Bytes, "What came back of them");
    metrics::describe_counter!("wasmpool_modules_loaded_total", "Modules, by where their code came from");
    metrics::describe_counter!("wasmpool_log_dropped_bytes_total", Unit::Bytes, "Over the tasks' log limits");
    metrics::describe_counter!("wasmpool_log_dropped_records_total", "Over the workers' rate of logs");
    metrics::describe_gauge!("wasmpool_workers", "Worker processes that live, by what they do");
    metrics::describe_counter!("wasmpool_workers_started_total", "Worker processes started");
    metrics::describe_counter!("wasmpool_workers_leaving_total", "Workers that were asked to leave");
    metrics::describe_counter!("wasmpool_workers_died_total", "Workers that died unexpectedly");
    metrics::describe_gauge!("wasmpool_sandbox_layers", "Layers around the worker that became ready last");
    metrics::describe_counter!(
        "wasmpool_workers_short_total",
        "How often more workers were wanted than could be had"
    );
    metrics::describe_gauge!("wasmpool_broken", "1 once a death has broken the pool");
    metrics::describe_counter!("wasmpool_events_dropped_total", "Events that were missed");
}

/// The state of a worker, as far as events tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Starting,
    Idle,
    Busy,
    Leaving,
}

/// A counter with one label besides the pool's, looked up once for each of its values.
struct Labelled {
    name: &'static str,
    label: &'static str,
    pool: String,
    counters: HashMap<&'static str, Counter>,
}

impl Labelled {
    fn new(pool: &str, name: &'static str, label: &'static str) -> Self {
        Labelled { name, label, pool: pool.into(), counters: HashMap::new() }
    }

    fn count(&mut self, value: &'static str) {
        let Labelled { name, label, pool, counters } = self;
        let counter =
            counters.entry(value).or_insert_with(|| counter!(*name, "pool" => pool.clone(), *label => value));
        counter.increment(1);
    }
}

/// The numbers of one pool, each looked up once: at the exporter's that takes longer than to count.
struct Numbers {
    workers: HashMap<u32, Doing>,
    /// Tasks that are not done, and the worker of those that run.
    tasks: HashMap<TaskId, Option<u32>>,
    running: usize,
    tasks_queued: Gauge,
    tasks_running: Gauge,
    ended: Labelled,
    retries: Labelled,
    slow: Counter,
    queued: Histogram,
    transfer: Histogram,
    run: Histogram,
    cpu: Histogram,
    memory: Histogram,
    input_bytes: Counter,
    output_bytes: Counter,
    modules_loaded: Labelled,
    log_bytes_dropped: Counter,
    log_records_dropped: Counter,
    workers_starting: Gauge,
    workers_idle: Gauge,
    workers_busy: Gauge,
    workers_started: Counter,
    workers_leaving: Labelled,
    workers_died: Labelled,
    sandbox_layers: Gauge,
    workers_short: Counter,
    broken: Gauge,
    events_dropped: Counter,
}

fn publish(pool: &str, mut events: Events) {
    let mut numbers = Numbers::new(pool);
    let mut dropped = 0;
    while let Some(event) = events.next() {
        numbers.tell(&event.kind);
        let now = events.dropped();
        if now > dropped {
            numbers.events_dropped.increment(now - dropped);
            dropped = now;
            // The end of some tasks was missed: from here on only those count that are heard of.
            numbers.tasks.clear();
            numbers.running = 0;
        }
    }
}

impl Numbers {
    fn new(pool: &str) -> Self {
        let name = || pool.to_string();
        let workers = |state: &'static str| gauge!("wasmpool_workers", "pool" => name(), "state" => state);
        Numbers {
            workers: HashMap::new(),
            tasks: HashMap::new(),
            running: 0,
            tasks_queued: gauge!("wasmpool_tasks_queued", "pool" => name()),
            tasks_running: gauge!("wasmpool_tasks_running", "pool" => name()),
            ended: Labelled::new(pool, "wasmpool_tasks_total", "outcome"),
            retries: Labelled::new(pool, "wasmpool_task_retries_total", "outcome"),
            slow: counter!("wasmpool_tasks_slow_total", "pool" => name()),
            queued: histogram!("wasmpool_task_queued_seconds", "pool" => name()),
            transfer: histogram!("wasmpool_task_transfer_seconds", "pool" => name()),
            run: histogram!("wasmpool_task_run_seconds", "pool" => name()),
            cpu: histogram!("wasmpool_task_cpu_seconds", "pool" => name()),
            memory: histogram!("wasmpool_task_memory_bytes", "pool" => name()),
            input_bytes: counter!("wasmpool_input_bytes_total", "pool" => name()),
            output_bytes: counter!("wasmpool_output_bytes_total", "pool" => name()),
            modules_loaded: Labelled::new(pool, "wasmpool_modules_loaded_total", "from"),
            log_bytes_dropped: counter!("wasmpool_log_dropped_bytes_total", "pool" => name()),
            log_records_dropped: counter!("wasmpool_log_dropped_records_total", "pool" => name()),
            workers_starting: workers("starting"),
            workers_idle: workers("idle"),
            workers_busy: workers("busy"),
            workers_started: counter!("wasmpool_workers_started_total", "pool" => name()),
            workers_leaving: Labelled::new(pool, "wasmpool_workers_leaving_total", "reason"),
            workers_died: Labelled::new(pool, "wasmpool_workers_died_total", "cause"),
            sandbox_layers: gauge!("wasmpool_sandbox_layers", "pool" => name()),
            workers_short: counter!("wasmpool_workers_short_total", "pool" => name()),
            broken: gauge!("wasmpool_broken", "pool" => name()),
            events_dropped: counter!("wasmpool_events_dropped_total", "pool" => name()),
        }
    }

    fn tell(&mut self, kind: &EventKind) {
        match kind {
            EventKind::ModuleLoaded { from_cache, .. } => {
                self.modules_loaded.count(if *from_cache { "cache" } else { "compiler" });
            }
            EventKind::WorkerStarted { pid } => {
                self.workers_started.increment(1);
                self.set_worker(*pid, Some(Doing::Starting));
            }
            EventKind::WorkerReady { pid, sandbox } => {
                let layers = sandbox.layers.iter().filter(|layer| layer.applied).count();
                self.sandbox_layers.set(layers as f64);
                self.set_worker(*pid, Some(Doing::Idle));
            }
            EventKind::WorkerLeaving { pid, reason } => {
                self.workers_leaving.count(reason_name(*reason));
                self.set_worker(*pid, Some(Doing::Leaving));
            }
            EventKind::WorkerEnded { death, expected } => {
                if !expected {
                    self.workers_died.count(cause_name(&death.cause));
                }
                self.set_worker(death.pid, None);
            }
            EventKind::TaskQueued { task, .. } => {
                self.tasks.insert(*task, None);
                self.count_tasks();
            }
            EventKind::TaskStarted { task, pid, .. } => {
                // No event comes between two attempts of a task that travels with others.
                let before = self.tasks.insert(*task, Some(*pid)).flatten();
                self.running += usize::from(before.is_none());
                self.set_worker(*pid, Some(Doing::Busy));
                self.count_tasks();
            }
            EventKind::TaskSlow { .. } => self.slow.increment(1),
            EventKind::TaskRetried { task, outcome } => {
                self.retries.count(outcome_name(*outcome));
                let worker = self.tasks.insert(*task, None).flatten();
                self.rest(worker);
                self.count_tasks();
            }
            EventKind::TaskFinished { task, outcome, report } => {
                self.ended.count(outcome_name(*outcome));
                self.record(report);
                let worker = self.tasks.remove(task).flatten();
                self.rest(worker);
                self.count_tasks();
            }
            EventKind::LogsDropped { records, .. } => self.log_records_dropped.increment(*records),
            EventKind::Broken { .. } => self.broken.set(1.0),
            EventKind::WorkersShort { .. } => self.workers_short.increment(1),
            EventKind::WorkerBound { .. } | EventKind::Stopped => {}
        }
    }

    fn record(&self, report: &TaskReport) {
        if report.attempts == 0 {
            return;
        }
        self.queued.record(report.queued);
        self.transfer.record(report.transfer());
        self.run.record(report.run);
        if let Some(cpu) = report.cpu {
            self.cpu.record(cpu);
        }
        if let Some(bytes) = report.peak_memory_bytes {
            self.memory.record(bytes as f64);
        }
        self.input_bytes.increment(report.input_bytes.unwrap_or_default());
        self.output_bytes.increment(report.output_bytes.unwrap_or_default());
        self.log_bytes_dropped.increment(report.log_bytes_dropped.unwrap_or_default());
    }

    /// The worker has ended its task.
    fn rest(&mut self, worker: Option<u32>) {
        let Some(pid) = worker else { return };
        self.running = self.running.saturating_sub(1);
        if self.workers.get(&pid) == Some(&Doing::Busy) {
            self.set_worker(pid, Some(Doing::Idle));
        }
    }

    fn set_worker(&mut self, pid: u32, doing: Option<Doing>) {
        match doing {
            // A worker that was asked to leave may still run its last task.
            Some(Doing::Busy) if self.workers.get(&pid) == Some(&Doing::Leaving) => {}
            Some(doing) => drop(self.workers.insert(pid, doing)),
            None => drop(self.workers.remove(&pid)),
        }
        for (gauge, doing) in [
            (&self.workers_starting, Doing::Starting),
            (&self.workers_idle, Doing::Idle),
            (&self.workers_busy, Doing::Busy),
        ] {
            gauge.set(self.workers.values().filter(|found| **found == doing).count() as f64);
        }
    }

    fn count_tasks(&self) {
        self.tasks_running.set(self.running as f64);
        self.tasks_queued.set(self.tasks.len().saturating_sub(self.running) as f64);
    }
}

fn outcome_name(outcome: TaskOutcome) -> &'static str {
    match outcome {
        TaskOutcome::Succeeded => "succeeded",
        TaskOutcome::Failed => "failed",
        TaskOutcome::TimedOut => "timed_out",
        TaskOutcome::Cancelled => "cancelled",
        TaskOutcome::Aborted => "aborted",
        TaskOutcome::Lost => "lost",
    }
}

fn reason_name(reason: LeaveReason) -> &'static str {
    match reason {
        LeaveReason::Idle => "idle",
        LeaveReason::Resized => "resized",
        LeaveReason::Recycled => "recycled",
        LeaveReason::Domain => "domain",
        LeaveReason::PoolEnds => "pool_ends",
    }
}

fn cause_name(cause: &DeathCause) -> &'static str {
    match cause {
        DeathCause::Exited(_) => "exited",
        DeathCause::Signaled(_) => "signaled",
        DeathCause::OutOfMemory { .. } => "out_of_memory",
        DeathCause::MemoryExceeded { .. } => "memory_exceeded",
        DeathCause::CpuTimeUsedUp { .. } => "cpu_time_used_up",
        DeathCause::ProtocolViolation(_) => "protocol_violation",
        DeathCause::StartTimeout(_) => "start_timeout",
        DeathCause::SandboxRefused(_) => "sandbox_refused",
        DeathCause::SpawnFailed(_) => "spawn_failed",
        DeathCause::Unreachable(_) => "unreachable",
        DeathCause::Killed => "killed",
        DeathCause::Unknown => "unknown",
    }
}
