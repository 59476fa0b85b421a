//! One place for a worker, and the states of what stands there.

use super::{Now, Resolution};
use crate::task::TaskId;

/// A worker: its slot, and which of the slot's successive processes it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct WorkerKey {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) generation: u32,
    pub(super) state: State,
}

/// The states of the table in the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Vacant,
    /// The deadline is set when the process exists, and spent once the kill is under way.
    Starting {
        deadline: Option<Now>,
    },
    Idle,
    /// The deadline is the task's, or after an interrupt the end of the grace period.
    Busy {
        task: TaskId,
        deadline: Option<Now>,
        stop: Option<Stop>,
    },
    Doomed {
        task: Option<(TaskId, StopReason)>,
    },
    Retiring {
        deadline: Now,
    },
}

/// A task was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stop {
    pub(super) reason: StopReason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopReason {
    Timeout,
    Abort,
}

impl StopReason {
    pub(super) fn resolution(self, killed: bool) -> Resolution {
        match self {
            StopReason::Timeout => Resolution::TimedOut { killed },
            StopReason::Abort => Resolution::Aborted { killed },
        }
    }
}

impl Slot {
    pub(super) fn new() -> Self {
        Slot { generation: 0, state: State::Vacant }
    }

    /// The next process of this slot.
    pub(super) fn begin(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.state = State::Starting { deadline: None };
    }

    pub(super) fn key(&self, index: usize) -> WorkerKey {
        WorkerKey { slot: index as u32, generation: self.generation }
    }

    pub(super) fn deadline(&self) -> Option<Now> {
        match self.state {
            State::Starting { deadline } | State::Busy { deadline, .. } => deadline,
            State::Retiring { deadline } => Some(deadline),
            State::Vacant | State::Idle | State::Doomed { .. } => None,
        }
    }
}
