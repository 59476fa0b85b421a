//! A pure state machine decides who runs what, and when: `(event, now) -> actions`.
//!
//! It knows no clock, no thread, no process, no bytes: times are [`Duration`]s since the
//! pool began, workers are [`WorkerKey`]s, and what is to happen is returned. Everything
//! that could go wrong between two events is decided here, in one place.
//!
//! # The way of a task
//! ```text
//!             ┌────────── retry after a pause ───────────┐
//!  Submit ─► Queued ──► Prefetched ─► Running ─► resolved   │
//!             │  ▲         │  │       ├──────────────────┘
//!             │  └ Revoke ─┘  │       └─ Done, Dead, deadline, Abort
//!             └───────────────┴─ Cancel
//! ```
//! A *queued* task waits here. A *prefetched* one waits inside of a worker, behind the task
//! that runs there: it can still be revoked, and begins as soon as the one before it has
//! ended. A *running* one has begun.
//!
//! # The way of a worker
//! | slot | holds | leaves by |
//! |---|---|---|
//! | `Vacant` | nothing | a task that nobody else can take: `Start` |
//! | `Starting` | a process that has not spoken yet | `Ready`, `Dead`, `NotStarted`, its deadline |
//! | `Idle` | a ready worker | a task of its domain, its idle timeout, `Retire` |
//! | `Busy` | a worker, its task, and those prefetched behind it | `Done`, `Dead`, its deadline |
//! | `Killed` | a process under SIGKILL, perhaps with the task it took along | `Dead` |
//! | `Faulty` | the same, but for its own fault: its death counts as unexpected | `Dead` |
//! | `Retiring` | a worker that was asked to leave | `Dead`, its deadline |
//!
//! A worker is *unbound* until it is handed its first task. From then on it takes tasks of that
//! task's trust domain only, for its whole life: `fairness` says who is next across domains.
//!
//! Invariant, checked by `Scheduler::check` after every event of every test:
//! `accepted = queued + prefetched + running + resolved`, every task is in exactly one `Place`,
//! and is resolved exactly once.
//!
//! `workers` decides about processes, `shortage` about those that cannot be had, `tasks` about tasks,
//! `spending` about their CPU time, `fairness` about who is served by whom, and `wakeups` about who waits although
//! a worker is idle; `check` holds the invariants.

mod check;
mod fairness;
mod queue;
mod ranks;
mod shortage;
#[cfg(test)]
mod simulation;
mod slot;
mod spending;
mod tasks;
#[cfg(test)]
mod tests;
mod wakeups;
mod workers;

use std::time::Duration;

use check::Mutant;
use queue::Queue;
use shortage::Shortage;
use slot::Slot;
pub(crate) use slot::{Seen, WorkerKey};

use crate::ewma::Ewma;
use crate::id_map::IdMap;
use proto::limits;
use proto::task::TaskId;

/// Time since the pool began.
pub(crate) type Now = Duration;

/// The settings that decisions depend on.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Workers kept running even without work.
    pub(crate) workers_min: usize,
    pub(crate) workers_max: usize,
    pub(crate) queue_tasks_max: usize,
    pub(crate) grace: Duration,
    pub(crate) start_timeout: Duration,
    /// Idle for so long, a worker above the minimum leaves.
    pub(crate) idle_timeout: Option<Duration>,
    /// Running for so long, a task is reported as slow.
    pub(crate) slow_after: Option<Duration>,
    pub(crate) on_death: OnDeath,
    pub(crate) recycle: Recycling,
    /// Most tasks prefetched to a worker behind the one that it runs.
    pub(crate) prefetch_max: usize,
    /// So many tasks can be computed at a time.
    pub(crate) cpus: usize,
}

/// Says what an unexpected death does to the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnDeath {
    Break,
    /// Only the task that ran there fails. `crashes_max` deaths in a row that no task can be
    /// blamed for still break the pool; between them is a pause that doubles.
    Replace {
        crashes_max: u32,
        backoff: Duration,
        backoff_max: Duration,
    },
}

/// Says when a worker is replaced although nothing is wrong with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Recycling {
    pub(crate) tasks_max: Option<u64>,
    pub(crate) memory_bytes_max: Option<u64>,
    pub(crate) age_max: Option<Duration>,
}

/// A trust domain, by a number that never means another. No domain is one, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Domain(pub(crate) u64);

impl Domain {
    /// This is the domain of tasks that name none.
    pub(crate) const NONE: Domain = Domain(0);
}

/// Holds what a task asks of the scheduler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TaskSpec {
    pub(crate) timeout: Option<Duration>,
    /// The CPU time that it may use. Such a task has its worker to itself: no task is prefetched before or
    /// behind it, so that all that the worker computes is the task's.
    pub(crate) cpu_time: Option<Duration>,
    /// Higher ones first; equal ones in the order of submission.
    pub(crate) priority: i32,
    pub(crate) retry: Retry,
    /// Tasks of one chunk go to one worker together if they can.
    pub(crate) chunk: Option<u64>,
    /// A batch has this many tasks beyond the first.
    pub(crate) more: usize,
    /// Workers that have run a task of another one are not for it.
    pub(crate) domain: Domain,
    /// It hears no interrupt: to stop it, its worker is killed at once.
    pub(crate) uninterruptible: bool,
}

/// Says when a task is run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retry {
    /// Says how often it may begin in all; 1 is no retry.
    pub(crate) attempts_max: u32,
    /// The pause after the first attempt; it doubles.
    pub(crate) backoff: Duration,
    pub(crate) on_timeout: bool,
}

impl Retry {
    /// The rest of a batch is run again once the task at hand has failed. Each attempt leaves less of it.
    pub(crate) const OF_A_BATCH: Retry =
        Retry { attempts_max: u32::MAX, backoff: Duration::ZERO, on_timeout: true };
}

impl Default for Retry {
    fn default() -> Self {
        Retry { attempts_max: 1, backoff: Duration::ZERO, on_timeout: false }
    }
}

/// Everything that can happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// An accepted task; ask [`Scheduler::admits`] first, under the same lock.
    Submit { task: TaskId, spec: TaskSpec },
    /// Resolve the task as cancelled if it has not begun.
    Cancel { task: TaskId },
    /// A running task is interrupted as well, unlike with `Cancel`.
    Abort { task: TaskId },
    /// The worker's process exists; its time to speak begins.
    Spawned { worker: WorkerKey },
    /// The worker has spoken and waits for tasks.
    Ready { worker: WorkerKey },
    /// The worker has answered.
    Done { worker: WorkerKey, task: TaskId, report: RunReport },
    /// The answer to [`Action::Look`]: the CPU time that the task has used, or `None` if its worker has not
    /// begun it.
    Looked { worker: WorkerKey, task: TaskId, used: Option<Duration> },
    /// The answer to [`Action::Locate`].
    Located { worker: WorkerKey, task: TaskId, found: Found },
    /// The answer to [`Action::Revoke`]: `false` if the worker has begun the task.
    Revoked { worker: WorkerKey, task: TaskId, revoked: bool },
    /// The process is gone, and everything it had said has been handled.
    Dead { worker: WorkerKey },
    /// The process could not be made, or could not get ready, because something was short that may be there
    /// later.
    NotStarted { worker: WorkerKey },
    /// Time has passed.
    Tick,
    /// Have so many workers running, at most the maximum.
    Prestart { workers: usize },
    /// Other bounds for the number of workers, as in [`Config`].
    Resize { workers_min: usize, workers_max: usize },
    /// Finish (or cancel) what is pending, then stop. May come again.
    Shutdown { cancel_pending: bool },
    /// Cancel what is pending; end what runs, gently (SIGTERM first) or not.
    Kill { gently: bool },
}

/// Says how a worker that was looked at comes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// It has begun so many tasks by now.
    Begun(u64),
    /// It has begun no more, and there are CPUs for all that computes: so it is at one task, or sleeps in it.
    Computing,
    /// It has begun no more, but it may wait for a CPU.
    Waiting,
}

/// Holds what the scheduler needs to know of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RunReport {
    /// The worker heeded an interrupt.
    pub(crate) interrupted: bool,
    /// Says how long the task ran.
    pub(crate) ran: Duration,
    /// The CPU time that it used, if that is limited.
    pub(crate) used: Option<Duration>,
    /// Resident memory of the worker, where recycling asks for it.
    pub(crate) resident_bytes: Option<u64>,
    /// The worker holds as many modules as it may.
    pub(crate) is_full: bool,
    /// The task is not done, and is queued again at its old rank.
    pub(crate) unfinished: bool,
}

/// Everything that the effects side may be asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start a process for this slot.
    Start { worker: WorkerKey },
    /// Hand the task to the worker, behind what it has been handed already.
    Assign { worker: WorkerKey, task: TaskId },
    /// Take the task back if the worker has not begun it, and say so: [`Event::Revoked`].
    Revoke { worker: WorkerKey, task: TaskId },
    /// The worker now runs this task, which it was sent ahead.
    Begin { worker: WorkerKey, task: TaskId },
    /// Ask the worker to stop this task.
    Interrupt { worker: WorkerKey, task: TaskId },
    /// Find out how much CPU time the task has used, and report it: [`Event::Looked`].
    Look { worker: WorkerKey, task: TaskId },
    /// Find out whether the worker has begun more than so many tasks, from this one on, and report it:
    /// [`Event::Located`].
    Locate { worker: WorkerKey, task: TaskId, begun: u64 },
    /// Report that the task takes long.
    Slow { worker: WorkerKey, task: TaskId },
    /// The worker has given back what is left of a batch: none of that has begun.
    GivenBack { task: TaskId },
    /// The attempt failed; there will be another.
    Retry { task: TaskId, how: Resolution },
    /// Report, once for each shortage, that more workers are wanted than can be had, and how many there are.
    Short { workers: usize },
    /// SIGKILL.
    Kill { worker: WorkerKey, reason: KillReason },
    /// SIGTERM.
    Terminate { worker: WorkerKey },
    /// Close the worker's socket; it exits.
    Retire { worker: WorkerKey, reason: RetireReason },
    /// Complete the task's future.
    Resolve { task: TaskId, how: Resolution },
    /// The pool is broken by this worker, which ran these tasks. Precedes the `Resolve`s.
    Break { worker: WorkerKey, in_flight: Vec<TaskId> },
    /// The pool has no process left, and will start none.
    Stopped,
}

/// Says why the pool kills a worker.
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

/// Says why the pool lets a worker go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetireReason {
    /// It was idle for long enough.
    Idle,
    /// The pool is to have fewer workers.
    Resized,
    /// It has run enough tasks, is old enough, or large enough.
    Recycled,
    /// A task of another trust domain needs its slot.
    Domain,
    /// The pool ends.
    PoolEnds,
}

/// Says how a task ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// Its run was completed: the worker says how.
    Completed,
    Cancelled,
    TimedOut {
        killed: bool,
    },
    /// It used more CPU time than its limit.
    Overspent {
        killed: bool,
    },
    Aborted {
        killed: bool,
    },
    /// Its worker died, and the pool lives on.
    Died {
        worker: WorkerKey,
    },
    /// It was lost with the pool.
    Broken,
    /// It never began: there is no worker, and none could be had.
    NoWorker,
}

/// Says why a task is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejection {
    Full,
    ShutDown,
    Broken,
}

/// Says what the pool accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    Closing,
    Broken,
    Stopped,
}

#[derive(Debug)]
struct ScheduledTask {
    spec: TaskSpec,
    /// Says how often it has begun.
    attempts: u32,
    /// It is stopped as soon as it begins.
    abort: bool,
    /// The tasks that its worker gives back are not wanted any more.
    discard_rest: bool,
    /// It is the first in line since then, and tasks of other domains may begin before it for a while.
    bypassed_since: Option<Now>,
    place: Place,
}

impl ScheduledTask {
    /// Moves it, and keeps the count of the [recalled](Place::is_recalled).
    fn move_to(&mut self, place: Place, recalled: &mut usize) {
        *recalled += usize::from(place.is_recalled());
        *recalled -= usize::from(self.place.is_recalled());
        self.place = place;
    }
}

/// Says where a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Queued,
    /// Queued again at this time.
    Delayed(Now),
    /// The task waits in the worker behind the running task of this slot; it is being revoked if there is a fate.
    Prefetched(usize, Option<Fate>),
    Running(usize),
}

impl Place {
    /// Returns whether it was prefetched, and has been asked for to be queued again.
    fn is_recalled(self) -> bool {
        matches!(self, Place::Prefetched(_, Some(Fate::Requeue)))
    }
}

/// The plan for a prefetched task once it is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Cancel,
    Requeue,
    /// It ends with the pool.
    Break,
    /// The scheduler had no part in it: the worker has begun the task, and its answer to the one before is on the
    /// way.
    Begun,
}

/// Counts for `Pool::stats`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Tasks that have not begun: queued and prefetched ones.
    pub(crate) pending: usize,
    pub(crate) running: usize,
    pub(crate) accepted: u64,
}

/// The state machine.
#[derive(Debug)]
pub(crate) struct Scheduler {
    config: Config,
    mode: Mode,
    /// Says whether the pool broke before it stopped, for the right rejection afterwards.
    broken: bool,
    /// Says whether the embedder has killed it.
    killed: bool,
    slots: Vec<Slot>,
    /// Idle slots, the most recently used last: its caches are warm.
    idle: Vec<usize>,
    /// Slots whose state is `Busy`.
    busy: Vec<usize>,
    tasks: IdMap<TaskId, ScheduledTask>,
    queue: Queue,
    /// The number of tasks that are [recalled](Place::is_recalled).
    recalled: usize,
    accepted: u64,
    resolved: u64,
    /// The priority of every task that is not resolved, if they have but one.
    uniform: Option<i32>,
    /// Says how long a task takes, as a moving average; zero before the first.
    typical: Ewma,
    /// So many workers more than there are CPUs may be at short tasks, since some were found to be at long ones.
    more_at_work: usize,
    /// No worker need be looked at before this time, to see whether it comes on.
    look_from: Now,
    /// Deaths in a row that no task can be blamed for.
    crashes: u32,
    /// The scheduler starts no worker before this time.
    restart_at: Now,
    /// The shortage, while workers are wanted and cannot be had.
    shortage: Shortage,
    /// A worker is wanted, and its start waits for `restart_at` or the end of a shortage.
    start_waits: bool,
    /// Workers that are to be running, asked for once.
    prestart: usize,
    /// The chunk that was begun last, and where.
    affinity: Option<(u64, usize)>,
    /// The unresolved tasks of batches, not counting the first of each.
    more: usize,
    /// Slots whose workers are about to be asked to leave.
    leaving: Vec<(usize, RetireReason)>,
    mutant: Option<Mutant>,
}

impl Scheduler {
    /// Returns how long a task mostly takes; zero before the first.
    pub(crate) fn typical(&self) -> std::time::Duration {
        self.typical.duration()
    }

    pub(crate) fn new(config: Config) -> Self {
        Scheduler {
            config,
            mode: Mode::Open,
            broken: false,
            killed: false,
            slots: Vec::new(),
            idle: Vec::new(),
            busy: Vec::new(),
            tasks: IdMap::default(),
            queue: Queue::default(),
            recalled: 0,
            accepted: 0,
            resolved: 0,
            uniform: None,
            typical: Ewma::default(),
            more_at_work: 0,
            look_from: Duration::ZERO,
            crashes: 0,
            restart_at: Duration::ZERO,
            shortage: Shortage::default(),
            start_waits: false,
            prestart: 0,
            affinity: None,
            more: 0,
            leaving: Vec::new(),
            mutant: None,
        }
    }

    /// Returns whether a task may be submitted now, or a batch of `more` tasks beyond the first. A batch takes the
    /// room of all its tasks until it is resolved.
    pub(crate) fn admits(&self, more: usize) -> Result<(), Rejection> {
        let more = if self.mutant(Mutant::BatchAsOne) { 0 } else { more };
        let unresolved = self.unresolved().saturating_add(more);
        match self.mode {
            _ if self.broken => Err(Rejection::Broken),
            Mode::Closing | Mode::Stopped => Err(Rejection::ShutDown),
            Mode::Broken => Err(Rejection::Broken),
            Mode::Open if unresolved >= self.config.queue_tasks_max => Err(Rejection::Full),
            Mode::Open => Ok(()),
        }
    }

    /// Returns how many tasks were accepted and not resolved; those of a batch count until the whole batch is
    /// resolved.
    pub(crate) fn unresolved(&self) -> usize {
        self.tasks.len() + self.more
    }

    /// Returns whether every process is gone for good.
    pub(crate) fn is_stopped(&self) -> bool {
        self.mode == Mode::Stopped
    }

    /// The bounds for the number of workers.
    pub(crate) fn workers(&self) -> (usize, usize) {
        (self.config.workers_min, self.config.workers_max)
    }

    /// Returns what a worker does, if it is one of ours.
    pub(crate) fn worker(&self, worker: WorkerKey) -> Option<Seen> {
        self.live(worker).map(|slot| self.slots[slot].seen())
    }

    /// Returns whether the pool itself has decided that this worker ends.
    pub(crate) fn expects_death(&self, worker: WorkerKey) -> bool {
        self.live(worker).is_none_or(|slot| self.slots[slot].state.is_ending())
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts { pending: self.queue.len(), accepted: self.accepted, ..Counts::default() };
        for slot in &self.slots {
            counts.pending += slot.behind.len();
            counts.running += usize::from(slot.state.task().is_some());
        }
        counts
    }

    /// Returns when to come with the next `Tick`, at the latest.
    pub(crate) fn next_deadline(&self) -> Option<Now> {
        let idle_timeout = self.config.idle_timeout.filter(|_| self.may_shrink());
        let deadline = |slot: &Slot| slot.deadline(idle_timeout);
        let slots = match self.are_idle_or_busy() {
            // The first of the idle ones is idle for the longest.
            true => self
                .busy
                .iter()
                .chain(self.idle.first())
                .filter_map(|&slot| deadline(&self.slots[slot]))
                .min(),
            false => self.slots.iter().filter_map(deadline).min(),
        };
        let start = self.start_waits.then_some(self.start_at());
        [slots, start, self.queue.next_due(), self.look_on_at()].into_iter().flatten().min()
    }

    /// Takes one event and appends what is to be done, in this order.
    pub(crate) fn handle(&mut self, event: Event, now: Now, actions: &mut Vec<Action>) {
        match event {
            Event::Submit { task, spec } => self.submit(task, spec, actions),
            Event::Cancel { task } => self.cancel(task, actions),
            Event::Abort { task } => self.abort(task, now, actions),
            Event::Spawned { worker } => self.spawned(worker, now),
            Event::Ready { worker } => self.ready(worker, now),
            Event::Done { worker, task, report } => self.done(worker, task, report, now, actions),
            Event::Looked { worker, task, used } => self.looked(worker, task, used, now, actions),
            Event::Located { worker, task, found } => self.located(worker, task, found, now),
            Event::Revoked { worker, task, revoked } => self.revoked(worker, task, revoked, now, actions),
            Event::Dead { worker } => self.dead(worker, now, actions),
            Event::NotStarted { worker } => self.not_started(worker, now, actions),
            Event::Tick => self.tick(now, actions),
            Event::Prestart { workers } => self.prestart = self.prestart.max(workers),
            Event::Resize { workers_min, workers_max } => {
                self.config.workers_max = workers_max.clamp(1, limits::WORKERS_MAX);
                self.config.workers_min = workers_min.min(self.config.workers_max);
                self.keep(0);
            }
            Event::Shutdown { cancel_pending } => {
                if self.mode == Mode::Open {
                    self.mode = Mode::Closing;
                }
                if cancel_pending {
                    self.cancel_waiting(actions);
                }
            }
            Event::Kill { gently } => {
                if self.mode == Mode::Open {
                    self.mode = Mode::Closing;
                }
                self.killed = true;
                self.cancel_waiting(actions);
                self.end_all(gently.then(|| now.saturating_add(self.config.grace)), actions);
            }
        }
        self.conclude(now, actions);
    }

    /// Draws the conclusions of any state: it hands tasks to workers, gets workers for tasks, and ends.
    fn conclude(&mut self, now: Now, actions: &mut Vec<Action>) {
        if matches!(self.mode, Mode::Open | Mode::Closing) {
            self.queue.release(now, &mut self.tasks);
            let are_all_busy = self.are_all_busy();
            if !are_all_busy {
                self.trim(now);
            }
            self.join_chunk(now, actions);
            if are_all_busy {
                // Nobody is there to hand tasks to, and there is no room for another worker.
                self.start_none();
                self.recall_after_first(now, actions);
            // The answer of a worker that was asked comes with the next event, and goes first.
            } else if self.hand_out(now, actions)
                && (!self.look_on(now, actions) || self.hand_out(now, actions))
            {
                if self.has_all() && self.is_held() {
                    self.start_none();
                } else {
                    self.make_room(now);
                    self.start_workers(now, actions);
                    self.keep(self.queue.ready());
                    self.recall_after_first(now, actions);
                }
            }
        }
        self.let_go(actions);
        if self.mode != Mode::Open {
            self.wind_down(now, actions);
        }
    }

    fn mutant(&self, mutant: Mutant) -> bool {
        cfg!(test) && self.mutant == Some(mutant)
    }
}
