//! The shared state of a pool, behind one lock that no user code and no I/O ever runs under.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::effects::Effect;
use super::link::Link;
use super::supervise::{Job, Mailbox};
use crate::dispatch::{Action, Config, Dispatch, Event, Now, Refusal, Resolution, WorkerKey};
use crate::error::{BrokenPool, Death, DeathCause, Phase, SubmitError, TaskError};
use crate::future::{Cell, Labels};
use crate::module::Module;
use crate::task::{TaskId, TaskLimits, TaskOptions, TaskReport};
use crate::wire::message::{Cost, Entry, Verdict};

/// What the pool was built with.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) workers_max: usize,
    pub(crate) queue_tasks_max: usize,
    pub(crate) input_bytes_max: usize,
    pub(crate) grace: Duration,
    pub(crate) start_timeout: Duration,
    pub(crate) compile_timeout: Duration,
    pub(crate) defaults: TaskOptions,
}

/// One task on its way to a worker.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) module: Module,
    pub(crate) entry: Entry,
    pub(crate) limits: TaskLimits,
    pub(crate) input: Bytes,
}

/// What the host knows of an unresolved task.
struct Record {
    cell: Arc<Cell>,
    /// Taken when it is handed to a worker.
    call: Option<Call>,
    timeout: Option<Duration>,
    limits: TaskLimits,
    submitted: Now,
    dispatched: Option<Now>,
    worker_pid: Option<u32>,
}

struct State {
    dispatch: Dispatch,
    records: HashMap<TaskId, Record>,
    links: HashMap<WorkerKey, Arc<Link>>,
    /// Killed or retired before they were spawned.
    unwanted: HashSet<WorkerKey>,
    /// How a worker ended, noted before its `Dead` event.
    deaths: HashMap<WorkerKey, Death>,
    broken: Option<BrokenPool>,
    /// The deadline that the supervisor sleeps towards.
    armed: Option<Now>,
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
    pub(crate) callbacks: crate::future::CallbackQueue,
    began: Instant,
    next_task: AtomicU64,
    state: Mutex<State>,
    /// A task was resolved, or the pool stopped.
    changed: Condvar,
}

impl Core {
    pub(crate) fn new(
        id: u64,
        settings: Settings,
        mailbox: Mailbox,
        callbacks: crate::future::CallbackQueue,
    ) -> Core {
        let dispatch = Dispatch::new(Config {
            workers_max: settings.workers_max,
            queue_tasks_max: settings.queue_tasks_max,
            grace: settings.grace,
            start_timeout: settings.start_timeout,
        });
        let state = State {
            dispatch,
            records: HashMap::new(),
            links: HashMap::new(),
            unwanted: HashSet::new(),
            deaths: HashMap::new(),
            broken: None,
            armed: None,
        };
        Core {
            id,
            settings,
            mailbox,
            callbacks,
            began: Instant::now(),
            next_task: AtomicU64::new(1),
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

    /// Accepts a task, or says why not. With `wait`, a full queue makes the caller wait.
    pub(crate) fn submit(
        &self,
        call: Call,
        name: Arc<str>,
        options: TaskOptions,
        wait: bool,
    ) -> Result<Arc<Cell>, SubmitError> {
        let mut state = self.lock();
        loop {
            match state.dispatch.admits() {
                Ok(()) => break,
                // An I/O thread (inside a waker) would wait for itself.
                Err(Refusal::Full) if wait && !super::is_io_thread() => {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                Err(refusal) => return Err(self.refused(refusal, &state, &name)),
            }
        }
        // Under the lock, so that the order of ids is the order of submission.
        let task = TaskId(self.next_task.fetch_add(1, Ordering::Relaxed));
        let module = call.module.0.shown.clone();
        let labels = Labels { task, name, module, label: options.label };
        let cell = Cell::new(labels, self.callbacks.clone());
        let record = Record {
            cell: cell.clone(),
            limits: call.limits,
            call: Some(call),
            timeout: options.timeout,
            submitted: self.now(),
            dispatched: None,
            worker_pid: None,
        };
        state.records.insert(task, record);
        self.drive(state, Event::Submit { task, timeout: options.timeout }, None);
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

    /// Handles one event and does what follows from it.
    pub(crate) fn handle(&self, event: Event) {
        self.drive(self.lock(), event, None);
    }

    pub(crate) fn cancel(&self, task: TaskId) {
        self.handle(Event::Cancel { task });
    }

    pub(crate) fn abort(&self, task: TaskId) {
        self.handle(Event::Abort { task });
    }

    /// The worker has ended the task.
    pub(crate) fn answered(&self, worker: WorkerKey, task: TaskId, answered: Answered) {
        let interrupted = answered.verdict == Verdict::Interrupted;
        self.drive(self.lock(), Event::Done { worker, task, interrupted }, Some(answered));
    }

    /// The process is gone, and its ring is drained.
    pub(crate) fn dead(&self, worker: WorkerKey, death: Death) {
        let mut state = self.lock();
        state.links.remove(&worker);
        state.unwanted.remove(&worker);
        state.deaths.insert(worker, death);
        self.drive(state, Event::Dead { worker }, None);
        self.lock().deaths.remove(&worker);
    }

    /// What an unresolved task is called.
    pub(crate) fn labels(&self, task: TaskId) -> Option<Arc<Labels>> {
        self.lock().records.get(&task).map(|record| record.cell.labels().clone())
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().dispatch.is_stopped()
    }

    pub(crate) fn unresolved(&self) -> usize {
        self.lock().dispatch.unresolved()
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

    /// Waits until no process is left; `false` if the deadline came first.
    pub(crate) fn wait_stopped(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.lock();
        while !state.dispatch.is_stopped() {
            state = match deadline {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        true
    }

    /// For the supervisor: whether this worker is still wanted.
    pub(crate) fn wants(&self, worker: WorkerKey) -> bool {
        !self.lock().unwanted.contains(&worker)
    }

    /// For the supervisor: the worker has been spawned. `false` if it was unwanted meanwhile.
    pub(crate) fn register(&self, link: Arc<Link>) -> bool {
        let mut state = self.lock();
        let wanted = !state.unwanted.remove(&link.key);
        state.links.insert(link.key, link);
        wanted
    }

    /// For the supervisor: handles what is due, and says when to come again.
    pub(crate) fn arm(&self) -> Option<Duration> {
        let mut state = self.lock();
        let due = state.dispatch.next_deadline().is_some_and(|deadline| deadline <= self.now());
        if due {
            self.drive(state, Event::Tick, None);
            state = self.lock();
        }
        state.armed = state.dispatch.next_deadline();
        state.armed.map(|deadline| deadline.saturating_sub(self.now()))
    }

    /// Decides under the lock, acts after it.
    fn drive(&self, mut state: MutexGuard<'_, State>, event: Event, mut answered: Option<Answered>) {
        let now = self.now();
        let mut actions = Vec::with_capacity(4);
        // A submitter that waits for room must learn that there will be none.
        let mut changed = matches!(event, Event::Shutdown { .. } | Event::Kill);
        state.dispatch.handle(event, now, &mut actions);
        changed |= actions.iter().any(|action| matches!(action, Action::Break { .. }));
        let effects: Vec<Effect> = actions
            .into_iter()
            .filter_map(|action| self.effect(&mut state, action, now, &mut answered))
            .collect();
        let earlier = match (state.dispatch.next_deadline(), state.armed) {
            (Some(next), Some(armed)) => next < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if earlier {
            state.armed = state.dispatch.next_deadline();
        }
        drop(state);
        for effect in effects {
            changed |= effect.perform(self);
        }
        if changed {
            self.changed.notify_all();
        }
        if earlier {
            self.mailbox.wake();
        }
    }

    /// What an action means for the processes, links and cells at hand.
    fn effect(
        &self,
        state: &mut State,
        action: Action,
        now: Now,
        answered: &mut Option<Answered>,
    ) -> Option<Effect> {
        match action {
            Action::Start { worker } => Some(Effect::Job(Job::Spawn(worker))),
            Action::Run { worker, task } => {
                let link = state.links.get(&worker)?.clone();
                let record = state.records.get_mut(&task)?;
                record.dispatched = Some(now);
                record.worker_pid = Some(link.pid);
                record.cell.set_dispatched();
                Some(Effect::Run { link, task, call: record.call.take()? })
            }
            Action::Interrupt { worker, task } => {
                Some(Effect::Interrupt { link: state.links.get(&worker)?.clone(), task })
            }
            Action::Kill { worker, reason } => match state.links.get(&worker) {
                Some(link) => Some(Effect::Kill { link: link.clone(), reason }),
                None => {
                    state.unwanted.insert(worker);
                    None
                }
            },
            Action::Retire { worker } => match state.links.get(&worker) {
                Some(link) => Some(Effect::Retire { link: link.clone() }),
                None => {
                    state.unwanted.insert(worker);
                    None
                }
            },
            Action::Resolve { task, how } => {
                let record = state.records.remove(&task)?;
                let (result, report) = self.resolution(state, &record, how, now, answered.take());
                // The call goes out with the rest: dropping an input may be the caller's code.
                Some(Effect::Complete { cell: record.cell, call: record.call, result, report })
            }
            Action::Break { worker, in_flight } => {
                let mut death = state.deaths.remove(&worker).unwrap_or_else(|| unknown_death(Phase::Idle));
                if !in_flight.is_empty() {
                    death.phase = Phase::Running;
                }
                state.broken = Some(BrokenPool::new(death, in_flight));
                None
            }
            Action::Stopped => Some(Effect::Stopped),
        }
    }

    fn resolution(
        &self,
        state: &mut State,
        record: &Record,
        how: Resolution,
        now: Now,
        answered: Option<Answered>,
    ) -> (Result<crate::module::Answer, crate::error::TaskFailure>, TaskReport) {
        let mut report = TaskReport {
            queued: record.dispatched.unwrap_or(now).saturating_sub(record.submitted),
            total: now.saturating_sub(record.submitted),
            worker_pid: record.worker_pid,
            ..TaskReport::default()
        };
        if let Some(answered) = &answered {
            let cost = answered.cost;
            report.run = Duration::from_nanos(cost.run_ns);
            report.cpu = Duration::from_nanos(cost.cpu_ns);
            report.peak_memory_bytes = cost.peak_memory_bytes;
            report.fuel_used = cost.fuel_used;
            report.log_bytes_dropped = cost.log_bytes_dropped;
        }
        let limit = record.timeout.unwrap_or_default();
        let result = match how {
            Resolution::Answered => match answered {
                Some(answered) => super::effects::read_verdict(answered, &record.limits),
                None => Err(TaskError::Abi { message: "the worker's answer is missing".into() }),
            },
            Resolution::Cancelled => Err(TaskError::Cancelled),
            Resolution::TimedOut { killed } => Err(TaskError::Timeout { limit, killed }),
            Resolution::Aborted { killed } => Err(TaskError::Aborted { killed }),
            Resolution::Broken => {
                // Nobody broke it where the caller killed it: then each task has its own death.
                let broken = state.broken.clone().unwrap_or_else(|| {
                    let mut death = unknown_death(Phase::Running);
                    death.pid = record.worker_pid.unwrap_or_default();
                    BrokenPool::new(death, vec![record.cell.task()])
                });
                Err(TaskError::Broken(broken))
            }
        };
        let result = result.map_err(|error| record.cell.labels().failure(error, report.clone()));
        (result, report)
    }
}

/// The caller's own `kill`: nobody died unexpectedly.
fn unknown_death(phase: Phase) -> Death {
    Death::new(0, DeathCause::Killed, phase, String::new())
}
