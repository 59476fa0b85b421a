//! Limits of CPU time: when to look at what a task has used, and what follows.
//!
//! Such a task is handed to an idle worker, and nothing is in store behind it: so what the process computes from
//! its begin to its answer is the task's. Nobody says when it has used up its limit. But it has one thread, and so
//! cannot have before as much time has passed as it had left: that is when it is looked at next.

use std::time::Duration;

use super::check::Mutant;
use super::slot::{State, StopReason};
use super::{Action, Answer, Dispatch, Now, WorkerKey};
use crate::task::TaskId;

/// CPU time is looked at no more often. A task that goes over its limit does so by this much, mostly.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(2);

impl Dispatch {
    /// Asks for the CPU time of what runs in the slot, if it is time.
    pub(super) fn look(&mut self, slot: usize, now: Now, actions: &mut Vec<Action>) {
        let worker = self.slots[slot].key(slot);
        if let State::Busy { task, look_at, stop: None, .. } = &mut self.slots[slot].state
            && look_at.is_some_and(|at| at <= now)
        {
            // Until there is an answer, which may show that it is the last.
            *look_at = Some(now.saturating_add(LOOK_AGAIN));
            actions.push(Action::Look { worker, task: *task });
        }
    }

    /// The task has used so much: it is stopped, or looked at again when it may have used up the rest. A task has
    /// one thread.
    pub(super) fn looked(
        &mut self,
        worker: WorkerKey,
        task: TaskId,
        used: Option<Duration>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(slot) = self.live(worker) else { return };
        let Some(limit) = self.tasks.get(&task).and_then(|entry| entry.spec.cpu_time) else { return };
        let State::Busy { task: held, look_at, stop: None, .. } = &mut self.slots[slot].state else { return };
        if *held != task {
            return;
        }
        match used {
            Some(used) if used > limit => self.stop(slot, StopReason::CpuTime, now, actions),
            Some(used) => *look_at = Some(now.saturating_add((limit - used).max(LOOK_AGAIN))),
            None => *look_at = Some(now.saturating_add(LOOK_AGAIN)),
        }
    }

    /// Whether what has ended used more than it may.
    pub(super) fn is_over(&self, task: TaskId, answer: &Answer) -> bool {
        let limit = self.tasks.get(&task).and_then(|entry| entry.spec.cpu_time);
        limit.zip(answer.used).is_some_and(|(limit, used)| used > limit)
            && !self.mutant(Mutant::CpuTimeForgotten)
    }

    /// Whether the task must have its worker for itself.
    pub(super) fn is_alone_there(&self, task: TaskId) -> bool {
        self.tasks.get(&task).is_some_and(|entry| entry.spec.cpu_time.is_some())
    }
}
