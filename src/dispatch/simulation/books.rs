//! What the world knows: its processes as they are, and its tasks as they were asked for.

use std::collections::{HashSet, VecDeque};

use super::super::*;

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A process as it is, beside what the dispatcher believes of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Process {
    pub(super) spawned: bool,
    pub(super) ready: bool,
    /// Of the first task that it was ever handed.
    pub(super) domain: Option<Domain>,
    /// Handed over and not begun.
    pub(super) offered: VecDeque<TaskId>,
    pub(super) running: Option<TaskId>,
    /// Said, and not yet heard.
    pub(super) said: VecDeque<(TaskId, bool)>,
    pub(super) interrupted: HashSet<TaskId>,
    /// All that it has ever begun.
    pub(super) ran: HashSet<TaskId>,
    /// Under SIGKILL, or asked to leave: it will die.
    pub(super) ending: bool,
    /// Its end was the pool's doing.
    pub(super) expected: bool,
}

/// What the world knows of a task.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) spec: Spec,
    pub(super) begun: u32,
    /// How often a process truly began it.
    pub(super) ran: u32,
    /// Since when it runs, by the dispatcher's word.
    pub(super) began: Option<Now>,
    pub(super) interrupted_at: Option<Now>,
    /// Whether it computes while it runs, and what it has used so far.
    pub(super) computes: bool,
    pub(super) used: Duration,
    pub(super) resolved: Option<Resolution>,
}

impl Process {
    pub(super) fn has(&self, task: TaskId) -> bool {
        self.offered.contains(&task) || self.running == Some(task)
    }

    pub(super) fn knows(&self, task: TaskId) -> bool {
        self.has(task) || self.said.iter().any(|said| said.0 == task)
    }

    pub(super) fn can_work(&self) -> bool {
        !self.ready || !self.said.is_empty() || self.running.is_some() || !self.offered.is_empty()
    }
}
