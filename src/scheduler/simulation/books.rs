//! The simulated world's own books: its processes and tasks as they really are.

use std::collections::{HashSet, VecDeque};

use super::super::*;

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A process as it is, whatever the scheduler believes of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Process {
    pub(super) spawned: bool,
    pub(super) ready: bool,
    /// The domain of the first task that it was handed.
    pub(super) domain: Option<Domain>,
    /// These tasks were handed over and not begun.
    pub(super) prefetched: VecDeque<TaskId>,
    pub(super) running: Option<TaskId>,
    /// The process has said this, and the scheduler has not heard it yet.
    pub(super) said: VecDeque<(TaskId, bool)>,
    pub(super) interrupted: HashSet<TaskId>,
    /// The process has begun these tasks at any time.
    pub(super) ran: HashSet<TaskId>,
    /// The process was killed or asked to leave, and will die.
    pub(super) ending: bool,
    /// The pool itself ended the process.
    pub(super) expected: bool,
    /// The process has begun nothing since then, and its pool has heard all that it said.
    pub(super) quiet_since: Now,
    /// The time of the first tick after it was quiet for long.
    pub(super) quiet_at: Option<Now>,
}

/// The world's record of a task.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) spec: TaskSpec,
    pub(super) begun: u32,
    /// This many processes truly began it.
    pub(super) ran: u32,
    /// The scheduler said at this time that it began.
    pub(super) began: Option<Now>,
    pub(super) interrupted_at: Option<Now>,
    /// Says whether it computes while it runs; `used` is what it has computed so far.
    pub(super) computes: bool,
    pub(super) used: Duration,
    pub(super) resolved: Option<Resolution>,
}

impl Process {
    pub(super) fn has(&self, task: TaskId) -> bool {
        self.prefetched.contains(&task) || self.running == Some(task)
    }

    pub(super) fn knows(&self, task: TaskId) -> bool {
        self.has(task) || self.said.iter().any(|said| said.0 == task)
    }

    /// It does something, or is handed something, or something is taken from it.
    pub(super) fn moves(&mut self, now: Now) {
        self.quiet_since = now;
        self.quiet_at = None;
    }

    /// How many tasks it has begun from this one on; `None` if it was heard to have ended it.
    pub(super) fn begun_from(&self, task: TaskId) -> Option<u64> {
        let begun: Vec<_> = self.said.iter().map(|said| said.0).chain(self.running).collect();
        match begun.iter().position(|&begun| begun == task) {
            Some(at) => Some((begun.len() - at) as u64),
            None => self.prefetched.contains(&task).then_some(0),
        }
    }

    pub(super) fn can_work(&self) -> bool {
        !self.ready || !self.said.is_empty() || self.running.is_some() || !self.prefetched.is_empty()
    }
}
