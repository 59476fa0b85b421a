//! The invariants, and the ways to break them on purpose: a test that no broken variant
//! fails would prove nothing.

#[cfg(test)]
use super::{Dispatch, Mode, Place, slot::State};

/// A deliberate mistake. Only tests can make one; `mutants_are_caught` makes each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "made by tests only"))]
pub(super) enum Mutant {
    /// Tasks offered to a worker that died are lost.
    OfferedForgotten,
    /// A task is resolved twice.
    ResolvedTwice,
    /// A task that the worker has begun is taken back all the same.
    RefusalIgnored,
    /// The task behind an answered one is never begun.
    NextForgotten,
    /// A running task can be cancelled.
    RunningCancelled,
    /// No task has a deadline.
    DeadlineForgotten,
    /// A task that does not heed its interrupt is left alone.
    GraceEndless,
    /// Retries are not counted.
    AttemptsNotCounted,
    /// One worker too many is started.
    TooManyWorkers,
    /// A dead worker's words are taken for its successor's.
    GenerationIgnored,
    /// The pool says that it has stopped while processes live.
    StoppedTooEarly,
    /// Workers that die at their start are replaced for ever.
    CrashesUnbounded,
    /// A task that was begun behind another is said to have never run.
    BegunForgotten,
}

#[cfg(test)]
impl Mutant {
    pub(super) const ALL: [Mutant; 13] = [
        Mutant::OfferedForgotten,
        Mutant::ResolvedTwice,
        Mutant::RefusalIgnored,
        Mutant::NextForgotten,
        Mutant::RunningCancelled,
        Mutant::DeadlineForgotten,
        Mutant::GraceEndless,
        Mutant::AttemptsNotCounted,
        Mutant::TooManyWorkers,
        Mutant::GenerationIgnored,
        Mutant::StoppedTooEarly,
        Mutant::CrashesUnbounded,
        Mutant::BegunForgotten,
    ];
}

#[cfg(test)]
impl Dispatch {
    /// Asserts the invariants. Costs a walk over everything; tests call it after each event.
    pub(crate) fn check(&self) {
        let unresolved = self.tasks.len() as u64;
        assert_eq!(self.accepted, unresolved + self.resolved, "a task was lost or resolved twice");
        let mut waiting = 0;
        for (task, entry) in &self.tasks {
            match entry.place {
                Place::Pending | Place::Delayed(_) => waiting += 1,
                Place::Offered(slot, _) => {
                    let places = self.slots.iter().flat_map(|slot| &slot.behind).filter(|&held| held == task);
                    assert_eq!(places.count(), 1, "{task} is offered twice or nowhere");
                    assert!(self.slots[slot].behind.contains(task), "{task} is offered elsewhere");
                }
                Place::Running(slot) => {
                    assert_eq!(self.slots[slot].state.task(), Some(*task), "{task} is not where it runs");
                }
            }
        }
        assert_eq!(waiting, self.queue.len(), "the queue and the tasks disagree");
        let behind: usize = self.slots.iter().map(|slot| slot.behind.len()).sum();
        let running = self.slots.iter().filter(|slot| slot.state.task().is_some()).count();
        assert_eq!(self.tasks.len(), waiting + behind + running, "a task is nowhere");
        for slot in &self.slots {
            let may_hold =
                matches!(slot.state, State::Busy { .. } | State::Doomed { .. } | State::Condemned { .. });
            assert!(may_hold || slot.behind.is_empty(), "{:?} holds tasks", slot.state);
        }
        let idle = self.slots.iter().filter(|slot| matches!(slot.state, State::Idle { .. })).count();
        assert_eq!(idle, self.idle.len());
        assert!(self.idle.is_empty() || self.queue.ready() == 0, "a task waits beside an idle worker");
        assert!(self.leaving.is_empty(), "a retirement was decided and not asked for");
        // After a resize, those under SIGKILL may be too many: nothing more can be done to them.
        let doomed =
            |slot: &&super::Slot| !matches!(slot.state, State::Doomed { .. } | State::Condemned { .. });
        let workers = self.slots.iter().filter(doomed).filter(|slot| slot.is_occupied()).count();
        let max = self.config.workers_max;
        assert!(workers <= max, "{workers} workers, and the maximum is {max}");
        if self.mode == Mode::Stopped {
            assert!(self.slots.iter().all(|slot| slot.state == State::Vacant) && self.tasks.is_empty());
        }
        // Whatever waits has a reason to go on: a worker, one under way, or a time.
        if self.queue.ready() > 0 && matches!(self.mode, Mode::Open | Mode::Closing) {
            let alive = self.slots.iter().any(|slot| slot.state != State::Vacant);
            assert!(alive || self.start_waits, "tasks wait, and nothing will happen");
        }
    }
}
