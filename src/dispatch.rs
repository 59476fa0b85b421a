//! Who runs what, when: a pure state machine, `(event, now) -> actions`.
//!
//! It knows no clock, no thread, no process, no bytes: times are [`Duration`]s since the
//! pool began, workers are [`WorkerKey`]s, and what is to happen is returned. Everything
//! that could go wrong between two events is decided here, in one place.
//!
//! | slot | holds | leaves by |
//! |---|---|---|
//! | `Vacant` | nothing | a pending task and no idle worker: `Start` |
//! | `Starting` | a process that has not spoken yet | `Ready`, `Dead`, its deadline |
//! | `Idle` | a ready worker | a task, `Retire` |
//! | `Busy` | a worker and its one task | `Done`, `Dead`, its deadline |
//! | `Doomed` | a process under SIGKILL, perhaps with the task it took along | `Dead` |
//! | `Retiring` | a worker that was asked to leave | `Dead`, its deadline |
//!
//! Invariant, checked by [`Dispatch::check`]: `accepted = pending + running + resolved`,
//! every running task is in exactly one slot, and a task is resolved exactly once.

mod slot;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

pub(crate) use slot::WorkerKey;
use slot::{Slot, State, Stop, StopReason};

use crate::task::TaskId;

/// Time since the pool began.
pub(crate) type Now = Duration;

/// The settings that decisions depend on.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) workers_max: usize,
    pub(crate) queue_tasks_max: usize,
    pub(crate) grace: Duration,
    pub(crate) start_timeout: Duration,
}

/// Everything that can happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// An accepted task; ask [`Dispatch::admits`] first, under the same lock.
    Submit { task: TaskId, timeout: Option<Duration> },
    /// Resolve the task as cancelled if it is still pending.
    Cancel { task: TaskId },
    /// As `Cancel`; a running task is interrupted.
    Abort { task: TaskId },
    /// The worker's process exists; its time to speak begins.
    Spawned { worker: WorkerKey },
    /// The worker has spoken and waits for tasks.
    Ready { worker: WorkerKey },
    /// The worker has answered, perhaps that it heeded an interrupt.
    Done { worker: WorkerKey, task: TaskId, interrupted: bool },
    /// The process is gone, and everything it had said has been handled.
    Dead { worker: WorkerKey },
    /// Time has passed.
    Tick,
    /// Finish (or cancel) what is pending, then stop. May come again.
    Shutdown { cancel_pending: bool },
    /// Cancel what is pending, kill what runs.
    Kill,
}

/// Everything that the effects side may be asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start a process for this slot.
    Start { worker: WorkerKey },
    /// Hand the task to the worker.
    Run { worker: WorkerKey, task: TaskId },
    /// Ask the worker to stop this task.
    Interrupt { worker: WorkerKey, task: TaskId },
    /// SIGKILL.
    Kill { worker: WorkerKey, reason: KillReason },
    /// Close the worker's socket; it exits.
    Retire { worker: WorkerKey },
    /// Complete the task's future.
    Resolve { task: TaskId, how: Resolution },
    /// The pool is broken by this worker, which held these tasks. Precedes the `Resolve`s.
    Break { worker: WorkerKey, in_flight: Vec<TaskId> },
    /// No process is left, and none will be started.
    Stopped,
}

/// Why the pool kills a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KillReason {
    /// It was not ready in time.
    StartTimeout,
    /// It did not heed an interrupt, or did not leave.
    Grace,
    /// It answered what it was not asked.
    Violation,
    /// The pool broke, or the embedder asked for it.
    PoolEnds,
}

/// How a task ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// With the worker's answer.
    Answered,
    Cancelled,
    TimedOut {
        killed: bool,
    },
    Aborted {
        killed: bool,
    },
    /// With the pool.
    Broken,
}

/// Why a task is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Full,
    ShutDown,
    Broken,
}

/// What the pool accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    Closing,
    Broken,
    Stopped,
}

#[derive(Debug)]
struct Entry {
    timeout: Option<Duration>,
    /// Where it runs; pending while `None`.
    slot: Option<usize>,
}

/// The state machine.
#[derive(Debug)]
pub(crate) struct Dispatch {
    config: Config,
    mode: Mode,
    /// Whether the pool broke before it stopped, for the right refusal afterwards.
    broken: bool,
    slots: Vec<Slot>,
    /// Idle slots, the most recently used last: its caches are warm.
    idle: Vec<usize>,
    tasks: HashMap<TaskId, Entry>,
    /// Ids grow, so their order is the order of submission.
    pending: BTreeSet<TaskId>,
    accepted: u64,
    resolved: u64,
}

impl Dispatch {
    pub(crate) fn new(config: Config) -> Self {
        let slots = (0..config.workers_max).map(|_| Slot::new()).collect();
        Dispatch {
            config,
            mode: Mode::Open,
            broken: false,
            slots,
            idle: Vec::new(),
            tasks: HashMap::new(),
            pending: BTreeSet::new(),
            accepted: 0,
            resolved: 0,
        }
    }

    /// Whether a task may be submitted now.
    pub(crate) fn admits(&self) -> Result<(), Refusal> {
        match self.mode {
            _ if self.broken => Err(Refusal::Broken),
            Mode::Closing | Mode::Stopped => Err(Refusal::ShutDown),
            Mode::Broken => Err(Refusal::Broken),
            Mode::Open if self.tasks.len() >= self.config.queue_tasks_max => Err(Refusal::Full),
            Mode::Open => Ok(()),
        }
    }

    /// Tasks accepted and not yet resolved.
    pub(crate) fn unresolved(&self) -> usize {
        self.tasks.len()
    }

    /// Whether every process is gone for good.
    pub(crate) fn is_stopped(&self) -> bool {
        self.mode == Mode::Stopped
    }

    /// When to come with the next `Tick`, at the latest.
    pub(crate) fn next_deadline(&self) -> Option<Now> {
        self.slots.iter().filter_map(Slot::deadline).min()
    }

    /// Takes one event and appends what is to be done, in this order.
    pub(crate) fn handle(&mut self, event: Event, now: Now, actions: &mut Vec<Action>) {
        match event {
            Event::Submit { task, timeout } => {
                self.accepted += 1;
                self.tasks.insert(task, Entry { timeout, slot: None });
                self.pending.insert(task);
            }
            Event::Cancel { task } => self.cancel(task, actions),
            Event::Abort { task } => self.abort(task, now, actions),
            Event::Spawned { worker } => self.spawned(worker, now),
            Event::Ready { worker } => self.ready(worker),
            Event::Done { worker, task, interrupted } => self.done(worker, task, interrupted, actions),
            Event::Dead { worker } => self.dead(worker, actions),
            Event::Tick => self.tick(now, actions),
            Event::Shutdown { cancel_pending } => {
                if self.mode == Mode::Open {
                    self.mode = Mode::Closing;
                }
                if cancel_pending {
                    self.resolve_pending(Resolution::Cancelled, actions);
                }
            }
            Event::Kill => {
                if self.mode == Mode::Open {
                    self.mode = Mode::Closing;
                }
                self.resolve_pending(Resolution::Cancelled, actions);
                self.kill_all(actions);
            }
        }
        self.settle(now, actions);
    }

    /// What follows from any state: tasks to workers, workers for tasks, the way out.
    fn settle(&mut self, now: Now, actions: &mut Vec<Action>) {
        if matches!(self.mode, Mode::Open | Mode::Closing) {
            while !self.pending.is_empty() {
                let Some(slot) = self.idle.pop() else { break };
                let Some(task) = self.pending.pop_first() else { break };
                self.run(slot, task, now, actions);
            }
            self.start_for_pending(actions);
        }
        if self.mode != Mode::Open {
            self.wind_down(now, actions);
        }
    }

    fn run(&mut self, slot: usize, task: TaskId, now: Now, actions: &mut Vec<Action>) {
        let Some(entry) = self.tasks.get_mut(&task) else { return };
        entry.slot = Some(slot);
        let deadline = entry.timeout.map(|timeout| now.saturating_add(timeout));
        self.slots[slot].state = State::Busy { task, deadline, stop: None };
        actions.push(Action::Run { worker: self.slots[slot].key(slot), task });
    }

    /// Starts as many workers as there are pending tasks that no starting one will take.
    fn start_for_pending(&mut self, actions: &mut Vec<Action>) {
        let starting = self.slots.iter().filter(|slot| matches!(slot.state, State::Starting { .. })).count();
        let mut wanted = self.pending.len().saturating_sub(starting);
        if wanted == 0 {
            return;
        }
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if wanted > 0 && slot.state == State::Vacant {
                slot.begin();
                actions.push(Action::Start { worker: slot.key(index) });
                wanted -= 1;
            }
        }
    }

    /// In a pool that ends: lets idle workers go, and says when the last process is gone.
    fn wind_down(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.mode == Mode::Closing && self.pending.is_empty() {
            let deadline = now.saturating_add(self.config.grace);
            for (index, slot) in self.slots.iter_mut().enumerate() {
                if matches!(slot.state, State::Idle | State::Starting { .. }) {
                    slot.state = State::Retiring { deadline };
                    actions.push(Action::Retire { worker: slot.key(index) });
                }
            }
            self.idle.clear();
        }
        let all_gone = self.slots.iter().all(|slot| slot.state == State::Vacant);
        if all_gone && self.tasks.is_empty() && self.mode != Mode::Stopped {
            self.mode = Mode::Stopped;
            actions.push(Action::Stopped);
        }
    }

    fn cancel(&mut self, task: TaskId, actions: &mut Vec<Action>) {
        if self.pending.remove(&task) {
            self.resolve(task, Resolution::Cancelled, actions);
        }
    }

    fn abort(&mut self, task: TaskId, now: Now, actions: &mut Vec<Action>) {
        match self.tasks.get(&task).map(|entry| entry.slot) {
            Some(Some(slot)) => self.stop(slot, StopReason::Abort, now, actions),
            Some(None) => self.cancel(task, actions),
            None => {}
        }
    }

    /// Interrupts what runs in the slot, once; the grace period starts.
    fn stop(&mut self, slot: usize, reason: StopReason, now: Now, actions: &mut Vec<Action>) {
        let kill_at = now.saturating_add(self.config.grace);
        let worker = self.slots[slot].key(slot);
        if let State::Busy { task, deadline, stop: stop @ None } = &mut self.slots[slot].state {
            *stop = Some(Stop { reason });
            *deadline = Some(kill_at);
            actions.push(Action::Interrupt { worker, task: *task });
        }
    }

    fn spawned(&mut self, worker: WorkerKey, now: Now) {
        if let Some(slot) = self.live(worker)
            && let State::Starting { deadline } = &mut self.slots[slot].state
        {
            *deadline = Some(now.saturating_add(self.config.start_timeout));
        }
    }

    fn ready(&mut self, worker: WorkerKey) {
        // A worker that is already Doomed or Retiring may still say that it is ready.
        if let Some(slot) = self.live(worker)
            && matches!(self.slots[slot].state, State::Starting { .. })
        {
            self.slots[slot].state = State::Idle;
            self.idle.push(slot);
        }
    }

    fn done(&mut self, worker: WorkerKey, task: TaskId, interrupted: bool, actions: &mut Vec<Action>) {
        let Some(slot) = self.live(worker) else { return };
        match self.slots[slot].state {
            // An interrupt that nobody sent cannot have been heeded.
            State::Busy { task: held, stop, .. } if held == task && (stop.is_some() || !interrupted) => {
                self.slots[slot].state = State::Idle;
                self.idle.push(slot);
                let how = match stop {
                    Some(Stop { reason }) if interrupted => reason.resolution(false),
                    _ => Resolution::Answered,
                };
                self.resolve(task, how, actions);
            }
            // The answer was under way when the kill was decided: it counts.
            State::Doomed { task: Some((held, reason)) } if held == task => {
                self.slots[slot].state = State::Doomed { task: None };
                let how = if interrupted { reason.resolution(false) } else { Resolution::Answered };
                self.resolve(task, how, actions);
            }
            State::Doomed { .. } => {}
            _ => self.violated(slot, actions),
        }
    }

    /// The worker lied. It dies as any other unexpected death: the slot keeps its state.
    fn violated(&mut self, slot: usize, actions: &mut Vec<Action>) {
        actions.push(Action::Kill { worker: self.slots[slot].key(slot), reason: KillReason::Violation });
    }

    fn dead(&mut self, worker: WorkerKey, actions: &mut Vec<Action>) {
        let Some(slot) = self.live(worker) else { return };
        let state = std::mem::replace(&mut self.slots[slot].state, State::Vacant);
        self.idle.retain(|&idle| idle != slot);
        match state {
            State::Vacant | State::Retiring { .. } => {}
            State::Doomed { task } => {
                if let Some((task, reason)) = task {
                    self.resolve(task, reason.resolution(true), actions);
                }
            }
            // The interrupt or its deadline made the worker fall over: that is the task's end,
            // not the pool's.
            State::Busy { task, stop: Some(stop), .. } => {
                self.resolve(task, stop.reason.resolution(true), actions);
            }
            State::Busy { task, stop: None, .. } => self.break_pool(worker, vec![task], actions),
            State::Starting { .. } | State::Idle => self.break_pool(worker, Vec::new(), actions),
        }
    }

    fn break_pool(&mut self, worker: WorkerKey, in_flight: Vec<TaskId>, actions: &mut Vec<Action>) {
        self.mode = Mode::Broken;
        self.broken = true;
        actions.push(Action::Break { worker, in_flight: in_flight.clone() });
        for task in in_flight {
            self.resolve(task, Resolution::Broken, actions);
        }
        self.kill_all(actions);
        self.resolve_pending(Resolution::Broken, actions);
    }

    /// Kills every process; what ran there breaks.
    fn kill_all(&mut self, actions: &mut Vec<Action>) {
        self.idle.clear();
        for index in 0..self.slots.len() {
            let lost = match self.slots[index].state {
                State::Vacant | State::Doomed { task: None } => continue,
                State::Doomed { task: Some((task, _)) } | State::Busy { task, .. } => Some(task),
                State::Starting { .. } | State::Idle | State::Retiring { .. } => None,
            };
            self.slots[index].state = State::Doomed { task: None };
            actions.push(Action::Kill { worker: self.slots[index].key(index), reason: KillReason::PoolEnds });
            if let Some(task) = lost {
                self.resolve(task, Resolution::Broken, actions);
            }
        }
    }

    fn tick(&mut self, now: Now, actions: &mut Vec<Action>) {
        for index in 0..self.slots.len() {
            if self.slots[index].deadline().is_none_or(|deadline| deadline > now) {
                continue;
            }
            let worker = self.slots[index].key(index);
            match self.slots[index].state {
                State::Busy { stop: None, .. } => self.stop(index, StopReason::Timeout, now, actions),
                State::Busy { task, stop: Some(stop), .. } => {
                    self.slots[index].state = State::Doomed { task: Some((task, stop.reason)) };
                    actions.push(Action::Kill { worker, reason: KillReason::Grace });
                }
                State::Retiring { .. } => {
                    self.slots[index].state = State::Doomed { task: None };
                    actions.push(Action::Kill { worker, reason: KillReason::Grace });
                }
                // It stays Starting without a deadline, so that its death breaks the pool.
                State::Starting { .. } => {
                    self.slots[index].state = State::Starting { deadline: None };
                    actions.push(Action::Kill { worker, reason: KillReason::StartTimeout });
                }
                State::Vacant | State::Idle | State::Doomed { .. } => {}
            }
        }
    }

    fn resolve_pending(&mut self, how: Resolution, actions: &mut Vec<Action>) {
        for task in std::mem::take(&mut self.pending) {
            self.resolve(task, how, actions);
        }
    }

    fn resolve(&mut self, task: TaskId, how: Resolution, actions: &mut Vec<Action>) {
        if self.tasks.remove(&task).is_some() {
            self.resolved += 1;
            actions.push(Action::Resolve { task, how });
        }
    }

    /// The slot of a worker, unless a later one has taken its place.
    fn live(&self, worker: WorkerKey) -> Option<usize> {
        let slot = self.slots.get(worker.slot as usize)?;
        (slot.generation == worker.generation && slot.state != State::Vacant).then_some(worker.slot as usize)
    }

    /// Asserts the invariants. Costs a walk over everything; tests call it after each event.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        assert_eq!(
            self.accepted,
            self.tasks.len() as u64 + self.resolved,
            "a task was lost or resolved twice"
        );
        let running = self.tasks.values().filter(|entry| entry.slot.is_some()).count();
        assert_eq!(self.tasks.len(), running + self.pending.len());
        for (task, entry) in &self.tasks {
            let Some(slot) = entry.slot else {
                assert!(self.pending.contains(task), "{task} is nowhere");
                continue;
            };
            let held = match self.slots[slot].state {
                State::Busy { task, .. } => Some(task),
                State::Doomed { task: Some((task, _)) } => Some(task),
                _ => None,
            };
            assert_eq!(held, Some(*task), "{task} is not where it should be");
        }
        let idle = self.slots.iter().filter(|slot| slot.state == State::Idle).count();
        assert_eq!(idle, self.idle.len());
        assert!(self.idle.is_empty() || self.pending.is_empty(), "a task waits beside an idle worker");
        if self.mode == Mode::Stopped {
            assert!(self.slots.iter().all(|slot| slot.state == State::Vacant) && self.tasks.is_empty());
        }
    }
}
