//! The shared state of a pool, behind one lock that no user code and no I/O ever runs under.

mod drive;
mod from_workers;
mod questions;
mod resolve;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::cpu::CpuCount;
use super::domains::{Breakage, Domains};
use super::invocation::Invocation;
use super::link::Link;
use super::observers::Observers;
use super::priority::Mistrust;
use super::request::Request;
use super::requests::SupervisorHandle;
use super::settings::PoolSettings;
use crate::account::Charge;
use crate::error::{Death, DeathCause, Phase, SubmitError};
use crate::future::{Cell, Labels, Queues, TaskOwner};
use crate::id_map::IdMap;
use crate::observe::{EventKind, PoolStats};
use crate::options::TaskOptions;
use crate::scheduler::{self, Action, Domain, Event, Now, Rejection, Scheduler, TaskSpec, WorkerKey};
use proto::description::Interrupt;
use proto::limits::{BATCH_WORK_MAX, CPU_MEASURED_FROM};
use proto::policy::SandboxReport;
use proto::shortage::Shortage;
use proto::sync::{Lock, Sleep};
use proto::task::TaskId;

/// Holds what the host knows of an unresolved task.
pub(super) struct TaskRecord {
    pub(super) cell: Arc<Cell>,
    /// Kept until the task is resolved: it may have to be run again.
    pub(super) call: Invocation,
    /// The batch that it is, if it is one.
    pub(super) batch: Option<Arc<Batch>>,
    /// The map's account charges for the task here.
    pub(super) charge: Option<Arc<Charge>>,
    pub(super) timeout: Option<Duration>,
    pub(super) cpu: Option<CpuCount>,
    pub(super) domain: Domain,
    pub(super) submitted: Now,
    pub(super) began: Option<Now>,
    /// The worker's process had computed this by then; known if its clock was read.
    computed_before: Option<Duration>,
    /// Says how long its last attempt took, and what it computed, if that ended without an answer.
    last_attempt: Option<Measured>,
    pub(super) attempts: u32,
    pub(super) worker_pid: Option<u32>,
    /// This worker was handed it last.
    worker: Option<WorkerKey>,
}

impl TaskRecord {
    /// A worker has begun it.
    fn begin(&mut self, worker_pid: u32, computed: Option<Duration>, now: Now) {
        self.began = Some(now);
        self.last_attempt = None;
        self.computed_before = computed;
        self.attempts += 1;
        self.worker_pid = Some(worker_pid);
        self.batch.iter().for_each(|batch| batch.begin(now));
        self.cell.set_dispatched();
    }

    /// Returns whether the clock of its worker is worth reading when it begins, if tasks typically take so long.
    fn is_worth_measuring(&self, typical: Duration) -> bool {
        let is_uninterruptible = self.call.module.about.description.interrupt == Interrupt::Kill;
        is_uninterruptible || self.cpu.is_some() || typical.is_zero() || typical >= CPU_MEASURED_FROM
    }

    /// Notes, of a batch, that the next of its tasks has not begun.
    fn give_back(&mut self) {
        if let Some(batch) = &self.batch {
            batch.give_back();
            self.began = None;
            self.attempts = 0;
            self.worker_pid = None;
        }
    }
}

/// Says how long a task ran, and what it computed, where that is known: as the pool measured it.
pub(super) type Measured = (Duration, Option<Duration>);

impl State {
    /// Returns what a task that has no answer took until now; nothing, if it never began.
    pub(super) fn measured(&self, record: &TaskRecord, now: Now) -> Measured {
        let Some(began) = record.began else { return (Duration::ZERO, None) };
        if let Some(measured) = record.last_attempt {
            return measured;
        }
        let worker = record.worker;
        let dead = || self.deaths.get(&worker?).and_then(|ended| ended.computed);
        let live = || self.links.get(&worker?).and_then(|link| link.computed());
        // The process has computed for other tasks of a batch, too.
        let before = record.computed_before.filter(|_| record.batch.is_none());
        let computed = before.and_then(|before| Some((before, dead().or_else(live)?)));
        let cpu = match &record.cpu {
            Some(cpu) => Some(cpu.cut_off(computed.map(|(_, now)| now))),
            None => computed.map(|(before, now)| now.saturating_sub(before)),
        };
        // The time of the tasks of a batch that were answered is not that of the task at hand.
        let before = record.batch.as_ref().map_or(Duration::ZERO, |batch| batch.ran());
        (now.saturating_sub(began).saturating_sub(before), cpu)
    }
}

/// Says how a worker ended.
#[derive(Debug, Clone)]
pub(super) struct WorkerEnd {
    pub(super) death: Death,
    /// The domain that it belonged to.
    pub(super) domain: Option<Arc<str>>,
    /// Its process had computed this in all.
    computed: Option<Duration>,
}

pub(super) struct State {
    scheduler: Scheduler,
    /// The ids are ours and count up, so the table need not be defended against them.
    records: IdMap<TaskId, TaskRecord>,
    pub(super) domains: Domains,
    links: IdMap<WorkerKey, Arc<Link>>,
    /// Killed or retired before they were spawned.
    unwanted: HashSet<WorkerKey>,
    /// These workers end by the pool's own decision.
    expected: HashSet<WorkerKey>,
    /// Says how a worker ended, noted before its `Dead` event.
    pub(super) deaths: HashMap<WorkerKey, WorkerEnd>,
    pub(super) broken: Option<Breakage>,
    /// The reason why the last worker that could not be started could not.
    pub(super) shortage: Option<Shortage>,
    /// The deadline that the supervisor sleeps towards.
    armed: Option<Now>,
    /// Threads that sleep on `changed`.
    sleepers: usize,
    /// Tasks of executors that wait for room in the queue, by their ticket.
    wakers: HashMap<u64, Waker>,
    observers: Observers,
    tally: PoolStats,
    /// Tasks accepted in batches, but one of each: so many more than the scheduler knows of.
    batched: u64,
    /// These vectors are empty between two events, and kept for their memory.
    actions: Vec<Action>,
    replies: Vec<Event>,
    /// The report of the worker that became ready last.
    sandbox: Option<Arc<SandboxReport>>,
    /// This is set once it was logged that layers are missing.
    is_missing_told: bool,
}

/// A pool's shared state.
pub(crate) struct Core {
    pub(crate) id: u64,
    pub(crate) settings: PoolSettings,
    pub(crate) supervisor: SupervisorHandle,
    pub(crate) queues: Arc<Queues>,
    began: Instant,
    next_task: AtomicU64,
    next_chunk: AtomicU64,
    next_ticket: AtomicU64,
    log_records_dropped: AtomicU64,
    pub(super) mistrust: Mistrust,
    state: Mutex<State>,
    /// A task was resolved, or the pool stopped.
    changed: Condvar,
}

/// Says what a submitter does when the queue is full.
pub(crate) enum WhenFull {
    /// Waits for room, at most until the deadline; then it is rejected.
    Wait(Option<Instant>),
    Reject,
    /// Rejects, and wakes the task of an executor when there may be room. For each ticket the last waker
    /// counts. After `not_after` it rejects even if there is room.
    Wake {
        ticket: u64,
        waker: Waker,
        not_after: Option<Instant>,
    },
}

impl Core {
    pub(crate) fn new(
        id: u64,
        settings: PoolSettings,
        supervisor: SupervisorHandle,
        queues: Arc<Queues>,
    ) -> Core {
        let state = State {
            scheduler: Scheduler::new(settings.for_scheduler()),
            records: IdMap::default(),
            domains: Domains::default(),
            links: IdMap::default(),
            unwanted: HashSet::new(),
            expected: HashSet::new(),
            deaths: HashMap::new(),
            broken: None,
            shortage: None,
            armed: None,
            sleepers: 0,
            wakers: HashMap::new(),
            observers: Observers::default(),
            tally: PoolStats::default(),
            batched: 0,
            actions: Vec::new(),
            replies: Vec::new(),
            sandbox: None,
            is_missing_told: false,
        };
        Core {
            id,
            settings,
            supervisor,
            queues,
            began: Instant::now(),
            next_task: AtomicU64::new(1),
            next_chunk: AtomicU64::new(1),
            next_ticket: AtomicU64::new(1),
            log_records_dropped: AtomicU64::new(0),
            mistrust: Mistrust::default(),
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn now(&self) -> Now {
        self.began.elapsed()
    }

    /// Sleeps until something has changed, or the deadline.
    fn sleep<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        deadline: Option<Instant>,
    ) -> (MutexGuard<'a, State>, bool) {
        state.sleepers += 1;
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let in_time = left.is_none_or(|left| !left.is_zero());
        state = self.changed.sleep(state, left);
        state.sleepers -= 1;
        (state, in_time)
    }

    // ── Tasks ────────────────────────────────────────────────────────────────

    /// Accepts a request, or rejects it with a reason and gives it back.
    pub(crate) fn submit(
        &self,
        request: Request,
        when_full: WhenFull,
    ) -> Result<Arc<Cell>, Box<(SubmitError, Request)>> {
        let mut state = self.state.hold();
        loop {
            match (state.scheduler.admits(request.group.more()), &when_full) {
                (Ok(()), WhenFull::Wake { not_after: Some(not_after), .. })
                    if *not_after <= Instant::now() =>
                {
                    let error = self.rejected(Rejection::Full, &state, &request);
                    return Err(Box::new((error, request)));
                }
                (Ok(()), _) => break,
                // An I/O thread (inside a waker) would wait for itself.
                (Err(Rejection::Full), WhenFull::Wait(deadline))
                    if !super::is_io_thread()
                        && deadline.is_none_or(|deadline| Instant::now() < deadline) =>
                {
                    state = self.sleep(state, *deadline).0;
                }
                (Err(rejection), _) => {
                    let error = self.rejected(rejection, &state, &request);
                    let replaced = match (rejection, when_full) {
                        (Rejection::Full, WhenFull::Wake { ticket, waker, .. }) => {
                            state.wakers.insert(ticket, waker)
                        }
                        _ => None,
                    };
                    // Dropping a waker is the executor's code: not under the lock.
                    drop(state);
                    drop(replaced);
                    return Err(Box::new((error, request)));
                }
            }
        }
        Ok(self.accept(state, request))
    }

    fn accept(&self, mut state: MutexGuard<'_, State>, request: Request) -> Arc<Cell> {
        let Request { call, name, options, group, charge } = request;
        // The id is taken under the lock, so that the order of ids is the order of submission.
        let items = group.items();
        let task = TaskId(self.next_task.fetch_add(1 + group.more() as u64, Ordering::Relaxed));
        let module = call.module.about.shown.clone();
        let labels = Labels { task, name, module, label: options.label.clone() };
        let cell = Cell::new(labels, self.queues.clone());
        let now = self.now();
        state.observers.tell(now, || {
            let labels = cell.labels();
            let name = labels.name.clone();
            let module = labels.module.clone();
            let label = labels.label.clone();
            EventKind::TaskQueued { task, name, module, label }
        });
        let domain = state.domains.enter(options.domain.as_ref());
        let batch = items.map(|count| Batch::new(cell.clone(), &call, count as u64, now));
        state.batched += group.more() as u64;
        let is_uninterruptible = call.module.about.description.interrupt == Interrupt::Kill;
        let record = TaskRecord {
            cell: cell.clone(),
            call,
            batch,
            charge,
            timeout: options.timeout,
            cpu: options.cpu_time.map(CpuCount::new),
            domain,
            submitted: now,
            began: None,
            computed_before: None,
            last_attempt: None,
            attempts: 0,
            worker_pid: None,
            worker: None,
        };
        state.records.insert(task, record);
        let retry = options.retry.unwrap_or_default();
        let retry = match items {
            None => scheduler::Retry {
                attempts_max: retry.attempts_max,
                backoff: retry.backoff,
                on_timeout: retry.after_timeouts,
            },
            Some(_) => scheduler::Retry::OF_A_BATCH,
        };
        // A worker begins the last task of a batch at most this much later than the first.
        let timeout = options.timeout.filter(|timeout| *timeout < Duration::MAX);
        let timeout = timeout.map(|timeout| match items {
            None => timeout,
            Some(_) => timeout.saturating_add(BATCH_WORK_MAX),
        });
        let spec = TaskSpec {
            timeout,
            cpu_time: options.cpu_time,
            priority: options.priority.unwrap_or_default(),
            retry,
            chunk: group.chunk(),
            more: group.more(),
            domain,
            uninterruptible: is_uninterruptible,
        };
        self.drive(state, now, [(Event::Submit { task, spec }, None)]);
        cell
    }

    fn rejected(&self, rejection: Rejection, state: &State, request: &Request) -> SubmitError {
        let task = request.name.to_string();
        let options = &request.options;
        match (rejection, &state.broken) {
            (Rejection::Full, _) => SubmitError::QueueFull { max: self.settings.tasks.queued_max },
            (Rejection::Broken, Some(broken)) => SubmitError::Broken(broken.told_to(options.domain.as_ref())),
            (Rejection::Broken | Rejection::ShutDown, _) => SubmitError::ShutDown { task },
        }
    }

    /// Returns whether tasks with these options may travel in batches. An observer wants to see each task, a batch
    /// has no attempts of its own, and CPU time is counted for one task.
    pub(crate) fn may_batch(&self, options: &TaskOptions) -> bool {
        let retry = options.retry.or(self.settings.tasks.defaults.retry).unwrap_or_default();
        retry.attempts_max <= 1
            && options.cpu_time.or(self.settings.tasks.defaults.cpu_time).is_none()
            && self.settings.workers.recycle.tasks_max.is_none()
            && self.state.hold().observers.is_empty()
    }

    /// A number for tasks that are to stay together.
    pub(crate) fn new_chunk(&self) -> u64 {
        self.next_chunk.fetch_add(1, Ordering::Relaxed)
    }

    /// A number for a task of an executor that will wait for room.
    pub(crate) fn new_ticket(&self) -> u64 {
        self.next_ticket.fetch_add(1, Ordering::Relaxed)
    }

    /// It waits no longer.
    pub(crate) fn forget_ticket(&self, ticket: u64) {
        let waker = self.state.hold().wakers.remove(&ticket);
        drop(waker);
    }

    /// Handles one event and does what follows from it.
    pub(crate) fn handle(&self, event: Event) {
        let state = self.state.hold();
        self.drive(state, self.now(), [(event, None)]);
    }

    /// Returns the cell of a task that is not resolved.
    pub(crate) fn cell(&self, task: TaskId) -> Option<Arc<Cell>> {
        self.state.hold().records.get(&task).map(|record| record.cell.clone())
    }

    /// Tells observers that a module was loaded.
    pub(crate) fn loaded(&self, module: Arc<str>, from_cache: bool) {
        let now = self.now();
        self.state.hold().observers.tell(now, || EventKind::ModuleLoaded { module, from_cache });
    }

    // ── Processes ────────────────────────────────────────────────────────────

    /// Notes that the system lacked something to start the worker with.
    pub(crate) fn not_started(&self, worker: WorkerKey, shortage: Shortage) {
        let mut state = self.state.hold();
        state.unwanted.remove(&worker);
        state.expected.remove(&worker);
        state.shortage = Some(shortage);
        self.drive(state, self.now(), [(Event::NotStarted { worker }, None)]);
    }

    /// Returns, to the supervisor, whether this worker is still wanted.
    pub(crate) fn wants(&self, worker: WorkerKey) -> bool {
        !self.state.hold().unwanted.contains(&worker)
    }

    /// Notes for the supervisor that the worker has been spawned. Returns `false` if it was unwanted meanwhile.
    pub(crate) fn register(&self, link: Arc<Link>) -> bool {
        let mut state = self.state.hold();
        let wanted = !state.unwanted.remove(&link.key);
        state.tally.workers_started += 1;
        let now = self.now();
        let pid = link.pid;
        state.observers.tell(now, || EventKind::WorkerStarted { pid });
        state.links.insert(link.key, link);
        wanted
    }

    /// Notes for the supervisor that the worker has said its first word.
    pub(crate) fn ready(&self, link: &Link, sandbox: SandboxReport) {
        let sandbox = Arc::new(sandbox);
        let mut state = self.state.hold();
        let now = self.now();
        let pid = link.pid;
        state.sandbox = Some(sandbox.clone());
        state.observers.tell(now, || EventKind::WorkerReady { pid, sandbox });
        self.drive(state, now, [(Event::Ready { worker: link.key }, None)]);
    }

    /// Returns `true` once: the first time that layers of the sandbox are missing.
    pub(crate) fn is_news_of_missing_layers(&self) -> bool {
        !std::mem::replace(&mut self.state.hold().is_missing_told, true)
    }

    /// Handles what is due, and says when the supervisor is to come again.
    pub(crate) fn arm(&self) -> Option<Duration> {
        let mut state = self.state.hold();
        let now = self.now();
        let due = state.scheduler.next_deadline().is_some_and(|deadline| deadline <= now);
        if due {
            self.drive(state, now, [(Event::Tick, None)]);
            state = self.state.hold();
        }
        state.armed = state.scheduler.next_deadline();
        state.armed.map(|deadline| deadline.saturating_sub(self.now()))
    }
}

/// The caller's own `kill`: nobody died unexpectedly.
pub(super) fn unknown_death(phase: Phase) -> Death {
    Death::new(0, DeathCause::Killed, phase, String::new())
}

impl TaskOwner for Core {
    fn cancel(&self, task: TaskId) {
        self.handle(Event::Cancel { task });
    }

    fn abort(&self, task: TaskId) {
        self.handle(Event::Abort { task });
    }

    /// Waits for the cell to be filled, in the place of the thread that would fill it; until the
    /// deadline. Returns early where that cannot be done: the caller goes on to wait.
    fn drive_inline(&self, cell: &Cell, deadline: Option<Instant>) {
        let state = self.state.hold();
        let Some(worker) = state.records.get(&cell.task()).and_then(|record| record.worker) else { return };
        let Some(link) = state.links.get(&worker).cloned() else { return };
        drop(state);
        link.drive_inline(self, cell, deadline);
    }
}
