//! The invariants, and the ways to break them on purpose: a test that no broken variant
//! fails would prove nothing.

#[cfg(test)]
use super::{Mode, Now, Place, Scheduler, slot::SlotState, wakeups};

/// A deliberate mistake. Only tests can make one; `mutants_are_caught` makes each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "made by tests only"))]
pub(super) enum Mutant {
    /// Tasks prefetched to a worker that died are lost.
    OfferedForgotten,
    /// A task is resolved twice.
    ResolvedTwice,
    /// A task that the worker has begun is taken back all the same.
    BegunTakenBack,
    /// The task behind an answered one is never begun.
    NextForgotten,
    /// A running task can be cancelled.
    RunningCancelled,
    /// The mutant forgets the deadlines of tasks.
    DeadlineForgotten,
    /// A limit of CPU time has no effect.
    CpuTimeForgotten,
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
    /// Idle workers are handed tasks of any trust domain.
    DomainsMixed,
    /// A worker stays with its domain for as long as there are tasks of it.
    OvertakenForEver,
    /// A worker that could not be started is not tried again.
    ShortageForgotten,
    /// Idle workers of other domains stay while the task that waits cannot have another.
    RoomInShortage,
    /// Tasks fail for want of a worker while there are some.
    ImpatientInShortage,
    /// Tasks wait for ever for a worker that cannot be had.
    EndlessShortage,
    /// A batch takes the room of one task in the queue.
    BatchAsOne,
    /// Tasks that wait for a worker which is at a long task are not handed to an idle one.
    HeldForEver,
}

#[cfg(test)]
impl Mutant {
    pub(super) const ALL: [Mutant; 22] = [
        Mutant::OfferedForgotten,
        Mutant::ResolvedTwice,
        Mutant::BegunTakenBack,
        Mutant::NextForgotten,
        Mutant::RunningCancelled,
        Mutant::DeadlineForgotten,
        Mutant::CpuTimeForgotten,
        Mutant::GraceEndless,
        Mutant::AttemptsNotCounted,
        Mutant::TooManyWorkers,
        Mutant::GenerationIgnored,
        Mutant::StoppedTooEarly,
        Mutant::CrashesUnbounded,
        Mutant::BegunForgotten,
        Mutant::DomainsMixed,
        Mutant::OvertakenForEver,
        Mutant::ShortageForgotten,
        Mutant::RoomInShortage,
        Mutant::ImpatientInShortage,
        Mutant::EndlessShortage,
        Mutant::BatchAsOne,
        Mutant::HeldForEver,
    ];
}

#[cfg(test)]
impl Scheduler {
    /// Asserts the invariants. Costs a walk over everything; tests call it after each event.
    pub(crate) fn check(&self, now: Now) {
        let unresolved = self.tasks.len() as u64;
        assert_eq!(self.accepted, unresolved + self.resolved, "a task was lost or resolved twice");
        let more: usize = self.tasks.values().map(|entry| entry.spec.more).sum();
        assert_eq!(self.more, more, "the tasks of batches are miscounted");
        assert!(self.unresolved() <= self.config.queue_tasks_max, "more is accepted than the queue may hold");
        let recalled = self.tasks.values().filter(|entry| entry.place.is_recalled()).count();
        assert_eq!(self.recalled, recalled, "the tasks that come back are miscounted");
        let mut queued = 0;
        for (task, entry) in &self.tasks {
            match entry.place {
                Place::Queued | Place::Delayed(_) => queued += 1,
                Place::Prefetched(slot, _) => {
                    let found = self.slots.iter().flat_map(|slot| &slot.behind).filter(|&held| held == task);
                    assert_eq!(found.count(), 1, "{task} is prefetched twice or nowhere");
                    assert!(self.slots[slot].behind.contains(task), "{task} is prefetched elsewhere");
                }
                Place::Running(slot) => {
                    assert_eq!(self.slots[slot].state.task(), Some(*task), "{task} is not where it runs");
                }
            }
        }
        assert_eq!(queued, self.queue.len(), "the queue and the tasks disagree");
        let behind: usize = self.slots.iter().map(|slot| slot.behind.len()).sum();
        let running = self.slots.iter().filter(|slot| slot.state.task().is_some()).count();
        assert_eq!(self.tasks.len(), queued + behind + running, "a task is nowhere");
        for slot in &self.slots {
            let may_hold = matches!(
                slot.state,
                SlotState::Busy { .. } | SlotState::Killed { .. } | SlotState::Faulty { .. }
            );
            assert!(may_hold || slot.behind.is_empty(), "{:?} holds tasks", slot.state);
            let is_alone = |task: &proto::task::TaskId| self.tasks[task].spec.cpu_time.is_some();
            let alone = slot.state.task().iter().chain(&slot.behind).any(is_alone);
            assert!(!alone || slot.behind.is_empty(), "something waits behind a task that is to be alone");
            for task in slot.behind.iter().copied().chain(slot.state.task()) {
                let domain = self.tasks[&task].spec.domain;
                assert_eq!(slot.domain, Some(domain), "{task} is with a worker of another domain");
            }
        }
        let idle = self.slots.iter().filter(|slot| matches!(slot.state, SlotState::Idle { .. })).count();
        assert_eq!(idle, self.idle.len());
        self.check_idle(now);
        let is_busy = |slot: &usize| matches!(self.slots[*slot].state, SlotState::Busy { .. });
        let busy = self.slots.iter().filter(|slot| matches!(slot.state, SlotState::Busy { .. })).count();
        assert!(self.busy.iter().all(is_busy) && self.busy.len() == busy, "the busy ones are miscounted");
        assert!(self.leaving.is_empty(), "a retirement was decided and not asked for");
        // A resize may leave more processes than allowed under SIGKILL: nothing more can be done to them.
        let lives =
            |slot: &&super::Slot| !matches!(slot.state, SlotState::Killed { .. } | SlotState::Faulty { .. });
        let workers = self.slots.iter().filter(lives).filter(|slot| slot.is_occupied()).count();
        let max = self.config.workers_max;
        assert!(workers <= max, "{workers} workers, and the maximum is {max}");
        if self.mode == Mode::Stopped {
            assert!(self.slots.iter().all(|slot| slot.state == SlotState::Vacant) && self.tasks.is_empty());
        }
        // A task that waits has a reason to go on: a worker, one under way, or a time.
        if self.queue.ready() > 0 && matches!(self.mode, Mode::Open | Mode::Closing) {
            let moves =
                |slot: &super::Slot| !matches!(slot.state, SlotState::Vacant | SlotState::Idle { .. });
            let will_move = self.slots.iter().any(moves) || self.start_waits;
            assert!(will_move, "tasks wait, and nothing will happen");
        }
    }

    /// A worker is idle only if it has nothing to do, and its slot is not needed; or if what waits is held, and
    /// it is known when to look again.
    fn check_idle(&self, now: Now) {
        if self.is_held() {
            let looks_again = self.next_deadline().is_some_and(|at| at <= now + wakeups::LOOKED_AT_WITHIN);
            assert!(looks_again, "a task is held, and nobody looks again: {self:?}");
            return;
        }
        for &slot in &self.idle {
            let waiting = self.slots[slot].domain.map(|domain| self.queue.ready_of(domain));
            let waiting = waiting.unwrap_or(self.queue.ready());
            assert_eq!(waiting, 0, "a task waits beside an idle worker");
        }
        let starting =
            self.slots.iter().filter(|slot| matches!(slot.state, SlotState::Starting { .. })).count();
        let room = self.room();
        let is_enough = self.queue.ready() <= starting + room;
        assert!(
            self.idle.is_empty() || is_enough,
            "a task waits beside the slot of an idle worker: {self:?}"
        );
    }
}
