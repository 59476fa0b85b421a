//! The shared state of a pool, behind one lock that no user code and no I/O ever runs under.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use smallvec::SmallVec;

use super::batch::Batch;
use super::domains::Domains;
use super::effects::Effect;
use super::link::Link;
use super::observers::{Observers, Subscription};
use super::resolve;
use super::settings::Settings;
use super::shares::TaskShares;
use super::supervise::{Job, Mailbox};
use crate::dispatch::{self, Action, Dispatch, Domain, Event, Now, Refusal, Spec, WorkerKey};
use crate::error::{BrokenPool, Death, DeathCause, Phase, SubmitError};
use crate::foreign::Foreign;
use crate::future::{Cell, Labels, Queues};
use crate::limits::{BATCH_WORK_MAX, MODULES_PER_WORKER_MAX};
use crate::module::Module;
use crate::observe::{EventKind, PoolStats, WorkerStats};
use crate::task::{TaskId, TaskLimits, TaskOptions};
use crate::walls::SandboxReport;
use crate::wire::message::{Cost, Entry, Verdict};

/// One task on its way to a worker.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) module: Module,
    pub(crate) entry: Entry,
    pub(crate) limits: TaskLimits,
    pub(crate) input: Foreign<Bytes>,
    pub(crate) shares: TaskShares,
}

/// What the host knows of an unresolved task.
pub(super) struct Record {
    pub(super) cell: Arc<Cell>,
    /// Kept until the task is resolved: it may have to be run again.
    pub(super) call: Call,
    /// What it is, if it is a batch.
    pub(super) batch: Option<Arc<Batch>>,
    pub(super) timeout: Option<Duration>,
    domain: Domain,
    pub(super) submitted: Now,
    pub(super) began: Option<Now>,
    pub(super) attempts: u32,
    pub(super) worker_pid: Option<u32>,
    /// Who was handed it last.
    worker: Option<WorkerKey>,
}

pub(super) struct State {
    dispatch: Dispatch,
    records: HashMap<TaskId, Record>,
    domains: Domains,
    links: HashMap<WorkerKey, Arc<Link>>,
    /// Killed or retired before they were spawned.
    unwanted: HashSet<WorkerKey>,
    /// Ended by the pool's own decision.
    expected: HashSet<WorkerKey>,
    /// How a worker ended, noted before its `Dead` event.
    pub(super) deaths: HashMap<WorkerKey, Death>,
    pub(super) broken: Option<BrokenPool>,
    /// The deadline that the supervisor sleeps towards.
    armed: Option<Now>,
    /// Threads that sleep on `changed`.
    sleepers: usize,
    /// Tasks of executors that wait for room in the queue, by their ticket.
    wakers: HashMap<u64, Waker>,
    observers: Observers,
    tally: PoolStats,
    /// Tasks accepted in batches, but one of each: so many more than dispatch knows of.
    batched: u64,
    /// Empty between two events; kept for its memory.
    actions: Vec<Action>,
    /// Of the worker that became ready last.
    sandbox: Option<Arc<SandboxReport>>,
}

/// What a worker said of a task that it has ended.
pub(crate) struct Answered {
    pub(crate) verdict: Verdict,
    pub(crate) payload: Vec<u8>,
    pub(crate) cost: Cost,
}

/// A pool's shared state.
pub(crate) struct Core {
    pub(crate) id: u64,
    pub(crate) settings: Settings,
    pub(crate) mailbox: Mailbox,
    pub(crate) queues: Arc<Queues>,
    began: Instant,
    next_task: AtomicU64,
    next_chunk: AtomicU64,
    next_ticket: AtomicU64,
    state: Mutex<State>,
    /// A task was resolved, or the pool stopped.
    changed: Condvar,
}

/// What a task belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Group {
    Alone,
    /// Tasks with this number stay together where they can.
    Chunk(u64),
    /// It is so many tasks.
    Batch(u64),
}

impl Group {
    fn items(self) -> Option<u64> {
        match self {
            Group::Batch(items) => Some(items),
            Group::Alone | Group::Chunk(_) => None,
        }
    }

    fn chunk(self) -> u64 {
        match self {
            Group::Chunk(chunk) => chunk,
            Group::Alone | Group::Batch(_) => 0,
        }
    }
}

/// What a submitter does when the queue is full.
pub(crate) enum WhenFull {
    /// For room, or until the deadline; then it is refused.
    Wait(Option<Instant>),
    Refuse,
    /// Refuses, and wakes the task of an executor when there may be room. Of each ticket the last
    /// waker counts.
    Wake {
        ticket: u64,
        waker: Waker,
    },
}

impl Core {
    pub(crate) fn new(id: u64, settings: Settings, mailbox: Mailbox, queues: Arc<Queues>) -> Core {
        let state = State {
            dispatch: Dispatch::new(settings.for_dispatch()),
            records: HashMap::new(),
            domains: Domains::default(),
            links: HashMap::new(),
            unwanted: HashSet::new(),
            expected: HashSet::new(),
            deaths: HashMap::new(),
            broken: None,
            armed: None,
            sleepers: 0,
            wakers: HashMap::new(),
            observers: Observers::default(),
            tally: PoolStats::default(),
            batched: 0,
            actions: Vec::new(),
            sandbox: None,
        };
        Core {
            id,
            settings,
            mailbox,
            queues,
            began: Instant::now(),
            next_task: AtomicU64::new(1),
            next_chunk: AtomicU64::new(1),
            next_ticket: AtomicU64::new(1),
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn now(&self) -> Now {
        self.began.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until something has changed, or the deadline.
    fn sleep<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        deadline: Option<Instant>,
    ) -> (MutexGuard<'a, State>, bool) {
        state.sleepers += 1;
        let mut in_time = true;
        state = match deadline {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                in_time = !left.is_zero();
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.sleepers -= 1;
        (state, in_time)
    }

    // ── Tasks ────────────────────────────────────────────────────────────────

    /// Accepts a task, or a batch of so many; or says why not and gives the call back.
    pub(crate) fn submit(
        &self,
        call: Call,
        name: &Arc<str>,
        options: &TaskOptions,
        group: Group,
        when_full: WhenFull,
    ) -> Result<Arc<Cell>, Box<(SubmitError, Call)>> {
        let mut state = self.lock();
        loop {
            match (state.dispatch.admits(), &when_full) {
                (Ok(()), _) => break,
                // An I/O thread (inside a waker) would wait for itself.
                (Err(Refusal::Full), WhenFull::Wait(deadline))
                    if !super::is_io_thread()
                        && deadline.is_none_or(|deadline| Instant::now() < deadline) =>
                {
                    state = self.sleep(state, *deadline).0;
                }
                (Err(refusal), _) => {
                    let error = self.refused(refusal, &state, name);
                    let replaced = match (refusal, when_full) {
                        (Refusal::Full, WhenFull::Wake { ticket, waker }) => {
                            state.wakers.insert(ticket, waker)
                        }
                        _ => None,
                    };
                    // Dropping a waker is the executor's code: not under the lock.
                    drop(state);
                    drop(replaced);
                    return Err(Box::new((error, call)));
                }
            }
        }
        // Under the lock, so that the order of ids is the order of submission.
        let items = group.items();
        let task = TaskId(self.next_task.fetch_add(items.unwrap_or(1), Ordering::Relaxed));
        let module = call.module.0.shown.clone();
        let labels = Labels { task, name: name.clone(), module, label: options.label.clone() };
        let cell = Cell::new(labels, self.queues.clone());
        let now = self.now();
        state.observers.tell(now, || {
            let labels = cell.labels();
            let (name, module, label) = (labels.name.clone(), labels.module.clone(), labels.label.clone());
            EventKind::TaskQueued { task, name, module, label }
        });
        let domain = state.domains.enter(options.domain.as_ref());
        let batch = items.map(|count| Batch::new(cell.clone(), call.entry.clone(), call.limits, count));
        state.batched += items.map_or(0, |count| count - 1);
        let record = Record {
            cell: cell.clone(),
            call,
            batch,
            timeout: options.timeout,
            domain,
            submitted: now,
            began: None,
            attempts: 0,
            worker_pid: None,
            worker: None,
        };
        state.records.insert(task, record);
        let retry = options.retry.unwrap_or_default();
        let retry = match items {
            None => dispatch::Retry {
                attempts_max: retry.attempts_max,
                backoff: retry.backoff,
                on_timeout: retry.after_timeouts,
            },
            // With what is left of it, once the task at hand has failed.
            Some(_) => dispatch::Retry { attempts_max: u32::MAX, backoff: Duration::ZERO, on_timeout: true },
        };
        // The last task of a batch that a worker begins, it begins so much later at most.
        let timeout = options.timeout.filter(|timeout| *timeout < Duration::MAX);
        let timeout = timeout.map(|timeout| match items {
            None => timeout,
            Some(_) => timeout.saturating_add(BATCH_WORK_MAX),
        });
        let spec = Spec {
            timeout,
            priority: options.priority.unwrap_or_default(),
            retry,
            chunk: group.chunk(),
            domain,
        };
        self.drive(state, [(Event::Submit { task, spec }, None)]);
        Ok(cell)
    }

    fn refused(&self, refusal: Refusal, state: &State, name: &str) -> SubmitError {
        let task = name.to_string();
        match (refusal, &state.broken) {
            (Refusal::Full, _) => SubmitError::QueueFull { max: self.settings.queue_tasks_max },
            (Refusal::Broken, Some(broken)) => SubmitError::Broken(broken.clone()),
            (Refusal::Broken | Refusal::ShutDown, _) => SubmitError::ShutDown { task },
        }
    }

    /// Whether tasks with these options may travel in batches. Those who watch want to see each task,
    /// and a batch has no attempts of its own.
    pub(crate) fn may_batch(&self, options: &TaskOptions) -> bool {
        let retry = options.retry.or(self.settings.defaults.retry).unwrap_or_default();
        retry.attempts_max <= 1
            && self.settings.recycle.tasks_max.is_none()
            && self.lock().observers.is_empty()
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
        let waker = self.lock().wakers.remove(&ticket);
        drop(waker);
    }

    /// The cell of an unresolved task.
    pub(crate) fn unresolved_cell(&self, task: TaskId) -> Option<Arc<Cell>> {
        self.lock().records.get(&task).map(|record| record.cell.clone())
    }

    /// Handles one event and does what follows from it.
    pub(crate) fn handle(&self, event: Event) {
        self.drive(self.lock(), [(event, None)]);
    }

    /// The worker has ended these tasks, in this order; of some there is more to be done.
    pub(crate) fn answered(&self, link: &Link, answers: Vec<(TaskId, bool, Answered)>) {
        let resident_bytes = self.settings.recycle.memory_bytes_max.and_then(|_| link.resident_bytes());
        let is_full = link.modules_sent() >= MODULES_PER_WORKER_MAX;
        let events = answers.into_iter().map(|(task, unfinished, answered)| {
            let answer = dispatch::Answer {
                unfinished,
                interrupted: answered.verdict == Verdict::Interrupted,
                ran: Duration::from_nanos(answered.cost.run_ns),
                resident_bytes,
                is_full,
            };
            (Event::Done { worker: link.key, task, answer }, Some(answered))
        });
        self.drive(self.lock(), events);
    }

    /// Waits for the cell to be filled, in the place of the thread that would fill it; until the
    /// deadline. Returns early where that cannot be done: the caller goes on to wait.
    pub(crate) fn attend(&self, cell: &Cell, deadline: Option<Instant>) {
        let state = self.lock();
        let Some(worker) = state.records.get(&cell.task()).and_then(|record| record.worker) else { return };
        let Some(link) = state.links.get(&worker).cloned() else { return };
        drop(state);
        link.attend(self, cell, deadline);
    }

    /// What an unresolved task is called.
    pub(crate) fn labels(&self, task: TaskId) -> Option<Arc<Labels>> {
        self.lock().records.get(&task).map(|record| record.cell.labels().clone())
    }

    // ── Processes ────────────────────────────────────────────────────────────

    /// The process is gone, and its ring is drained.
    pub(crate) fn dead(&self, worker: WorkerKey, death: Death) {
        let mut state = self.lock();
        let expected = state.expected.remove(&worker) || state.dispatch.expects_death(worker);
        state.links.remove(&worker);
        state.unwanted.remove(&worker);
        state.domains.unbind(worker);
        state.tally.workers_died += u64::from(!expected);
        let now = self.now();
        state.observers.tell(now, || EventKind::WorkerEnded { death: death.clone(), expected });
        state.deaths.insert(worker, death);
        self.drive(state, [(Event::Dead { worker }, None)]);
        self.lock().deaths.remove(&worker);
    }

    /// For the supervisor: whether this worker is still wanted.
    pub(crate) fn wants(&self, worker: WorkerKey) -> bool {
        !self.lock().unwanted.contains(&worker)
    }

    /// For the supervisor: the worker has been spawned. `false` if it was unwanted meanwhile.
    pub(crate) fn register(&self, link: Arc<Link>) -> bool {
        let mut state = self.lock();
        let wanted = !state.unwanted.remove(&link.key);
        state.tally.workers_started += 1;
        let (now, pid) = (self.now(), link.pid);
        state.observers.tell(now, || EventKind::WorkerStarted { pid });
        state.links.insert(link.key, link);
        wanted
    }

    /// For the supervisor: the worker has said its first word.
    pub(crate) fn ready(&self, link: &Link, sandbox: SandboxReport) {
        let sandbox = Arc::new(sandbox);
        let mut state = self.lock();
        let (now, pid) = (self.now(), link.pid);
        state.sandbox = Some(sandbox.clone());
        state.observers.tell(now, || EventKind::WorkerReady { pid, sandbox });
        self.drive(state, [(Event::Ready { worker: link.key }, None)]);
    }

    /// For the supervisor: handles what is due, and says when to come again.
    pub(crate) fn arm(&self) -> Option<Duration> {
        let mut state = self.lock();
        let due = state.dispatch.next_deadline().is_some_and(|deadline| deadline <= self.now());
        if due {
            self.drive(state, [(Event::Tick, None)]);
            state = self.lock();
        }
        state.armed = state.dispatch.next_deadline();
        state.armed.map(|deadline| deadline.saturating_sub(self.now()))
    }

    // ── Questions ────────────────────────────────────────────────────────────

    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().dispatch.is_stopped()
    }

    pub(crate) fn sandbox(&self) -> Option<Arc<SandboxReport>> {
        self.lock().sandbox.clone()
    }

    pub(crate) fn unresolved(&self) -> usize {
        self.lock().dispatch.unresolved()
    }

    pub(crate) fn workers_max(&self) -> usize {
        self.lock().dispatch.workers().1
    }

    pub(crate) fn broken(&self) -> Option<BrokenPool> {
        self.lock().broken.clone()
    }

    /// Pids of the workers that live now.
    pub(crate) fn worker_pids(&self) -> Vec<u32> {
        let mut pids: Vec<_> = self.lock().links.values().map(|link| link.pid).collect();
        pids.sort_unstable();
        pids
    }

    pub(crate) fn stats(&self) -> PoolStats {
        let state = self.lock();
        let now = self.now();
        let counts = state.dispatch.counts();
        let mut workers: Vec<_> = state
            .links
            .iter()
            .filter_map(|(key, link)| {
                let seen = state.dispatch.worker(*key)?;
                let task = seen.task.map(|(task, began)| (task, now.saturating_sub(began)));
                let domain = state.domains.of(*key);
                let (pid, answered, shared) = (link.pid, seen.answered, link.shares.count());
                Some(WorkerStats { pid, state: seen.state, domain, task, answered, shared })
            })
            .collect();
        workers.sort_unstable_by_key(|worker| worker.pid);
        let (workers_min, workers_max) = state.dispatch.workers();
        let waiting =
            |record: &Record| record.batch.as_ref().map_or(0, |batch| batch.left().saturating_sub(1));
        let waiting: u64 = match state.batched {
            0 => 0,
            _ => state.records.values().map(waiting).sum(),
        };
        let (pending, running) = (counts.pending + waiting as usize, counts.running);
        let submitted = counts.accepted + state.batched;
        PoolStats { workers_min, workers_max, pending, running, submitted, workers, ..state.tally.clone() }
    }

    pub(crate) fn subscribe(&self, capacity: usize) -> Subscription {
        let mut state = self.lock();
        let subscription = state.observers.subscribe(capacity);
        if state.dispatch.is_stopped() {
            let now = self.now();
            state.observers.tell(now, || EventKind::Stopped);
        }
        subscription
    }

    /// Waits until no process is left; `false` if the deadline came first.
    pub(crate) fn wait_stopped(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.lock();
        while !state.dispatch.is_stopped() {
            let (woken, in_time) = self.sleep(state, deadline);
            state = woken;
            if !in_time {
                return state.dispatch.is_stopped();
            }
        }
        true
    }

    // ── Events to effects ────────────────────────────────────────────────────

    /// Decides under the lock, acts after it. Each event may come with a worker's answer.
    fn drive(
        &self,
        mut state: MutexGuard<'_, State>,
        events: impl IntoIterator<Item = (Event, Option<Answered>)>,
    ) {
        let now = self.now();
        let mut changed = false;
        let mut effects = SmallVec::<[Effect; 4]>::new();
        let mut actions = std::mem::take(&mut state.actions);
        // Revocations are answered at once, and may lead to more.
        let mut revoked = Vec::new();
        for (event, mut answered) in events {
            // A submitter that waits for room must learn that there will be none.
            changed |= matches!(event, Event::Shutdown { .. } | Event::Kill { .. });
            let mut next = Some(event);
            while let Some(event) = next.take().or_else(|| revoked.pop()) {
                state.dispatch.handle(event, now, &mut actions);
                for action in actions.drain(..) {
                    changed |=
                        matches!(action, Action::Resolve { .. } | Action::Break { .. } | Action::Stopped);
                    if let Action::Revoke { worker, task } = action {
                        let is_back = state.links.get(&worker).is_some_and(|link| link.revoke(task));
                        revoked.push(Event::Revoked { worker, task, revoked: is_back });
                    } else {
                        effects.extend(self.effect(&mut state, action, now, &mut answered));
                    }
                }
            }
        }
        state.actions = actions;
        let deadline = state.dispatch.next_deadline();
        let earlier = match (deadline, state.armed) {
            (Some(next), Some(armed)) => next < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if earlier {
            state.armed = deadline;
        }
        let wakers = match changed && !state.wakers.is_empty() {
            true => std::mem::take(&mut state.wakers),
            false => HashMap::new(),
        };
        let has_sleepers = changed && state.sleepers > 0;
        drop(state);
        if earlier {
            self.mailbox.wake();
        }
        let done_with: SmallVec<[Call; 4]> =
            effects.into_iter().filter_map(|effect| effect.perform(self)).collect();
        if has_sleepers {
            self.changed.notify_all();
        }
        wakers.into_values().for_each(|waker| self.queues.wake(waker));
        // Last: to drop an input may be the caller's code, and may block.
        drop(done_with);
    }

    /// What an action means for the processes, links and cells at hand.
    fn effect(
        &self,
        state: &mut State,
        action: Action,
        now: Now,
        answered: &mut Option<Answered>,
    ) -> Option<Effect> {
        let link = |state: &State, worker: &WorkerKey| state.links.get(worker).cloned();
        match action {
            Action::Start { worker } => Some(Effect::Job(Job::Spawn(worker))),
            Action::Offer { worker, task } => {
                let link = link(state, &worker)?;
                let record = state.records.get_mut(&task)?;
                record.worker = Some(worker);
                link.order(task, &record.call, record.batch.as_ref());
                if let Some(domain) = state.domains.bind(worker, record.domain) {
                    let pid = link.pid;
                    state.observers.tell(now, || EventKind::WorkerBound { pid, domain });
                }
                Some(Effect::Flush { link })
            }
            // Answered where it is asked, in `drive`.
            Action::Revoke { .. } => None,
            Action::Begin { worker, task } => {
                // Of a worker that is gone, its death tells.
                let pid = link(state, &worker).map(|link| link.pid);
                let pid = pid.or_else(|| Some(state.deaths.get(&worker)?.pid))?;
                let record = state.records.get_mut(&task)?;
                record.began = Some(now);
                record.attempts += 1;
                record.worker_pid = Some(pid);
                record.cell.set_dispatched();
                let attempt = record.attempts;
                state.observers.tell(now, || EventKind::TaskStarted { task, pid, attempt });
                None
            }
            Action::Interrupt { worker, task } => {
                let link = link(state, &worker)?;
                let run = link.run_of(task)?;
                Some(Effect::Interrupt { link, run })
            }
            Action::Slow { worker, task } => {
                let pid = link(state, &worker)?.pid;
                state.observers.tell(now, || EventKind::TaskSlow { task, pid });
                let record = state.records.get(&task)?;
                let (labels, after) = (record.cell.labels().clone(), now.saturating_sub(record.began?));
                Some(Effect::Slow { labels, pid, after })
            }
            Action::Retry { task, how } => {
                let outcome = resolve::outcome(how, None);
                if let Some(record) = state.records.get(&task)
                    && let Some(batch) = &record.batch
                {
                    let (result, _) = resolve::result(state, record, how, now, None);
                    if let Err(failure) = result {
                        batch.fail(failure);
                    }
                    resolve::count(&mut state.tally.ended, outcome, 1);
                    *answered = None;
                    return None;
                }
                state.tally.retries += 1;
                state.observers.tell(now, || EventKind::TaskRetried { task, outcome });
                // An answer that says "interrupted" belongs to this attempt.
                *answered = None;
                None
            }
            Action::Kill { worker, reason } => {
                if resolve::is_expected(reason) {
                    state.expected.insert(worker);
                }
                self.to_process(state, worker, |link| Effect::Kill { link, reason })
            }
            Action::Terminate { worker } => {
                state.expected.insert(worker);
                self.to_process(state, worker, |link| Effect::Terminate { link })
            }
            Action::Retire { worker, reason } => {
                state.expected.insert(worker);
                let reason = resolve::leave_reason(reason);
                state.tally.workers_recycled += u64::from(reason == crate::observe::LeaveReason::Recycled);
                if let Some(link) = link(state, &worker) {
                    let pid = link.pid;
                    state.observers.tell(now, || EventKind::WorkerLeaving { pid, reason });
                }
                self.to_process(state, worker, |link| Effect::Retire { link })
            }
            Action::Resolve { task, how } => {
                let record = state.records.remove(&task)?;
                state.domains.leave(record.domain);
                let (result, report) = resolve::result(state, &record, how, now, answered.take());
                let outcome = resolve::outcome(how, Some(&result));
                match &record.batch {
                    None => resolve::count(&mut state.tally.ended, outcome, 1),
                    Some(batch) => batch.count_ends(&mut state.tally.ended, outcome),
                }
                state.observers.tell(now, || {
                    let report = report.clone();
                    EventKind::TaskFinished { task, outcome, report }
                });
                // Here, so that whoever learns of it in another way finds the future done.
                record.cell.fill(result, report);
                // The call goes out with the rest: dropping an input may be the caller's code.
                Some(Effect::Announce { cell: record.cell, call: record.call })
            }
            Action::Break { worker, in_flight } => {
                let death = state.deaths.get(&worker).cloned();
                let mut death = death.unwrap_or_else(|| unknown_death(Phase::Idle));
                if !in_flight.is_empty() {
                    death.phase = Phase::Running;
                }
                state.observers.tell(now, || EventKind::Broken { death: death.clone() });
                state.broken = Some(BrokenPool::new(death, in_flight));
                None
            }
            Action::Stopped => {
                state.observers.tell(now, || EventKind::Stopped);
                Some(Effect::Stopped)
            }
        }
    }

    /// The effect on a process that exists; one that is yet to be made will not be.
    fn to_process(
        &self,
        state: &mut State,
        worker: WorkerKey,
        effect: impl FnOnce(Arc<Link>) -> Effect,
    ) -> Option<Effect> {
        match state.links.get(&worker) {
            Some(link) => Some(effect(link.clone())),
            None => {
                state.unwanted.insert(worker);
                None
            }
        }
    }
}

/// The caller's own `kill`: nobody died unexpectedly.
pub(super) fn unknown_death(phase: Phase) -> Death {
    Death::new(0, DeathCause::Killed, phase, String::new())
}
