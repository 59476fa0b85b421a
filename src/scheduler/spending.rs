//! Limits of CPU time: decides when to look at what a task has used, and what follows.
//!
//! A limited task is handed to an idle worker, and no task is prefetched behind it: so all that the process
//! computes from the task's begin to its answer is the task's. Nobody reports that the limit is used up. But
//! the task has one thread, so it cannot use up what is left of its limit in less time than that: this is
//! when it is looked at next.

use std::time::Duration;

use super::check::Mutant;
use super::slot::{SlotState, StopReason};
use super::{Action, Now, RunReport, Scheduler, WorkerKey};
use proto::task::TaskId;

/// CPU time is looked at no more often than this, so a task may exceed its limit by about as much.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(2);

impl Scheduler {
    /// Asks for the CPU time of the slot's task, if a look is due.
    pub(super) fn look(&mut self, slot: usize, now: Now, actions: &mut Vec<Action>) {
        let worker = self.slots[slot].key(slot);
        if let SlotState::Busy { task, look_at, stop: None, .. } = &mut self.slots[slot].state
            && look_at.is_some_and(|at| at <= now)
        {
            // This holds until the answer comes, which may stop the task.
            *look_at = Some(now.saturating_add(LOOK_AGAIN));
            actions.push(Action::Look { worker, task: *task });
        }
    }

    /// Stops a task that has used more than its limit. Otherwise it is looked at again when it could have
    /// used up the rest.
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
        let SlotState::Busy { task: held, look_at, stop: None, .. } = &mut self.slots[slot].state else {
            return;
        };
        if *held != task {
            return;
        }
        match used {
            Some(used) if used > limit => self.stop(slot, StopReason::CpuTime, now, actions),
            Some(used) => *look_at = Some(now.saturating_add((limit - used).max(LOOK_AGAIN))),
            None => *look_at = Some(now.saturating_add(LOOK_AGAIN)),
        }
    }

    /// Returns whether a task that has ended used more than its limit.
    pub(super) fn is_over(&self, task: TaskId, report: &RunReport) -> bool {
        let limit = self.tasks.get(&task).and_then(|entry| entry.spec.cpu_time);
        limit.zip(report.used).is_some_and(|(limit, used)| used > limit)
            && !self.mutant(Mutant::CpuTimeForgotten)
    }

    /// Returns whether the task must have its worker to itself.
    pub(super) fn is_alone_there(&self, task: TaskId) -> bool {
        self.tasks.get(&task).is_some_and(|entry| entry.spec.cpu_time.is_some())
    }
}
