//! The slot of one worker, and its states.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Domain, Now, Resolution};
use crate::observe::WorkerState;
use proto::task::TaskId;

/// A worker: its slot, and which of the slot's successive processes it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct WorkerKey {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) generation: u32,
    pub(super) state: SlotState,
    /// The domain of every task that this process has been handed; none before the first.
    pub(super) domain: Option<Domain>,
    /// Prefetched tasks, in the order in which the worker will come to them.
    pub(super) behind: VecDeque<TaskId>,
    /// Tasks that this process has answered.
    pub(super) answered: u64,
    /// Says when the process was ready.
    pub(super) ready_at: Now,
    /// It takes no more tasks than it has, then leaves: another worker may be starting in its stead already.
    pub(super) draining: bool,
    /// Says how a busy worker comes on.
    pub(super) progress: Progress,
}

/// Says what is known of how a busy worker comes on with what it was handed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// At that time it was last known to have begun something, or to have begun nothing yet. It had begun so many tasks
    /// then, from the one that is at hand here on.
    Moving { since: Now, begun: u64 },
    /// It is being asked how many it has begun by now.
    Asked { begun: u64 },
    /// It has been at one task for long. There may be something behind that to be taken back, or it is known that there
    /// is nothing.
    Long { may_have: bool },
}

/// The states of the table in the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotState {
    Vacant,
    /// The deadline is set when the process exists.
    Starting {
        deadline: Option<Now>,
    },
    Idle {
        since: Now,
    },
    Busy {
        task: TaskId,
        began: Now,
        /// The task's, or after an interrupt the end of the grace period.
        deadline: Option<Now>,
        slow_at: Option<Now>,
        /// The task's CPU time is to be looked at then, if it is limited.
        look_at: Option<Now>,
        stop: Option<StopReason>,
    },
    Killed {
        task: Option<(TaskId, StopReason)>,
    },
    Faulty {
        task: Option<TaskId>,
    },
    Retiring {
        deadline: Now,
    },
}

impl SlotState {
    /// Returns whether the pool has decided that the worker ends, or its task.
    pub(super) fn is_ending(self) -> bool {
        matches!(
            self,
            SlotState::Vacant
                | SlotState::Killed { .. }
                | SlotState::Retiring { .. }
                | SlotState::Busy { stop: Some(_), .. }
        )
    }

    /// Returns whether the slot has a process that runs tasks, or will.
    pub(super) fn is_of_use(self) -> bool {
        matches!(
            self,
            SlotState::Starting { deadline: Some(_) } | SlotState::Idle { .. } | SlotState::Busy { .. }
        )
    }

    pub(super) fn is_busy(self) -> bool {
        matches!(self, SlotState::Busy { .. })
    }

    /// The task that runs there.
    pub(super) fn task(self) -> Option<TaskId> {
        match self {
            SlotState::Busy { task, .. } | SlotState::Killed { task: Some((task, _)) } => Some(task),
            SlotState::Faulty { task } => task,
            _ => None,
        }
    }
}

/// A worker as it can be seen from outside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) state: WorkerState,
    /// The task that runs there, and since when.
    pub(crate) task: Option<(TaskId, Now)>,
    pub(crate) answered: u64,
}

/// Says why a task was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopReason {
    Timeout,
    CpuTime,
    Abort,
}

impl StopReason {
    /// Returns how a task ends that has answered the request to stop.
    pub(super) fn stopped(self) -> Resolution {
        self.resolution(false)
    }

    /// Returns how a task ends that was stopped with its worker.
    pub(super) fn killed(self) -> Resolution {
        self.resolution(true)
    }

    fn resolution(self, killed: bool) -> Resolution {
        match self {
            StopReason::Timeout => Resolution::TimedOut { killed },
            StopReason::CpuTime => Resolution::Overspent { killed },
            StopReason::Abort => Resolution::Aborted { killed },
        }
    }
}

impl Slot {
    pub(super) fn new() -> Self {
        Slot {
            generation: 0,
            state: SlotState::Vacant,
            domain: None,
            behind: VecDeque::new(),
            answered: 0,
            ready_at: Now::ZERO,
            draining: false,
            progress: Progress::Long { may_have: false },
        }
    }

    /// The next process of this slot.
    pub(super) fn begin(&mut self) {
        let generation = self.generation.wrapping_add(1);
        *self = Slot { generation, state: SlotState::Starting { deadline: None }, ..Slot::new() };
    }

    /// Empties the slot of a process that is gone. Returns its state, and the tasks that it had been prefetched.
    pub(super) fn vacate(&mut self) -> (SlotState, VecDeque<TaskId>) {
        self.draining = false;
        self.domain = None;
        (std::mem::replace(&mut self.state, SlotState::Vacant), std::mem::take(&mut self.behind))
    }

    /// Takes a prefetched task out.
    pub(super) fn forget(&mut self, task: TaskId) {
        // Where many are taken back, it is the last.
        if let Some(index) = self.behind.iter().rposition(|&prefetched| prefetched == task) {
            self.behind.remove(index);
        }
    }

    pub(super) fn key(&self, index: usize) -> WorkerKey {
        WorkerKey { slot: index as u32, generation: self.generation }
    }

    pub(super) fn seen(&self) -> Seen {
        let (state, task) = match self.state {
            SlotState::Starting { .. } => (WorkerState::Starting, None),
            SlotState::Idle { .. } => (WorkerState::Idle, None),
            SlotState::Busy { task, began, .. } => (WorkerState::Busy, Some((task, began))),
            SlotState::Vacant
            | SlotState::Killed { .. }
            | SlotState::Faulty { .. }
            | SlotState::Retiring { .. } => (WorkerState::Leaving, None),
        };
        Seen { state, task, answered: self.answered }
    }

    /// Returns whether it counts towards the number of workers.
    pub(super) fn is_occupied(&self) -> bool {
        !matches!(self.state, SlotState::Vacant | SlotState::Retiring { .. }) && !self.draining
    }

    pub(super) fn deadline(&self, idle_timeout: Option<Duration>) -> Option<Now> {
        match self.state {
            SlotState::Starting { deadline } => deadline,
            SlotState::Busy { deadline, slow_at, look_at, .. } => {
                [deadline, slow_at, look_at].into_iter().flatten().min()
            }
            SlotState::Retiring { deadline } => Some(deadline),
            SlotState::Idle { since } => idle_timeout.map(|timeout| since.saturating_add(timeout)),
            SlotState::Vacant | SlotState::Killed { .. } | SlotState::Faulty { .. } => None,
        }
    }
}
