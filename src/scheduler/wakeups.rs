//! Decides whether a task waits behind one that runs, or an idle worker is woken for it.
//!
//! To wake a worker costs many times what a short task does, and gains nothing once as many workers compute as there
//! are CPUs. So while tasks are short, no more workers than that are *at work*, and further tasks are *held*: they wait
//! in the queue, or inside of a worker, although others are idle. (The completion ports of Windows bound their threads
//! in the same way.)
//!
//! How long a task takes is known when it has ended, so each may be the first that is long. A worker that has begun
//! nothing for [`LONG_AFTER`] is at a long task: it is not at work any more, what waits behind it comes back, and an idle
//! worker is woken in its place. Long tasks mostly come together. So each that is found has [`MORE_FOR_EACH`] further
//! workers woken, until a short task has ended: a handful of them wait hardly longer than one does.
//!
//! The answers of short tasks are read many at a time, so the host is late to know how far a worker has come. It is
//! looked up where the worker claims its tasks ([`Action::Locate`]). A worker that claims what it does not run gains
//! [`STEAL_AFTER`] by that.
//!
//! A worker that waits for a CPU begins nothing, either. Were it taken for one at a long task, another would be woken, and
//! wait for a CPU as well; with two CPUs and 64 workers, most of them soon would. So while the CPUs are contended, only
//! [`STEAL_AFTER`] counts.

use std::time::Duration;

use super::check::Mutant;
use super::slot::{Progress, Slot, SlotState};
use super::{Action, Domain, Fate, Found, Now, Place, ScheduledTask, Scheduler, WorkerKey};
use proto::limits::OVERTAKEN_MAX;
use proto::task::TaskId;

/// Tasks are short while they mostly take no longer than this, which is what a wake-up may cost.
const SHORT: Duration = Duration::from_micros(50);

/// A worker that has begun nothing for so long is at a long task. One look may come just before that time is up, so
/// what waits behind such a task waits for twice as long at most.
pub(super) const LONG_AFTER: Duration = Duration::from_micros(75);

/// A worker that may wait for a CPU is looked at again so much later: the CPUs will not be free a moment after.
const CONTENDED_FOR: Duration = Duration::from_micros(225);

/// While a task is held, somebody is looked at within this time.
#[cfg(test)]
pub(super) const LOOKED_AT_WITHIN: Duration = CONTENDED_FOR.saturating_add(LONG_AFTER);

/// See the module's documentation.
const MORE_FOR_EACH: usize = 2;

/// A task that waits behind one that has run for so long, by the host's clock, may go to an idle worker whatever the
/// worker claims.
pub(super) const STEAL_AFTER: Duration = Duration::from_millis(1);

impl Scheduler {
    // ── To wait ──────────────────────────────────────────────────────────────

    /// Returns whether tasks are mostly short.
    fn are_short(&self) -> bool {
        let typical = self.typical.duration();
        !typical.is_zero() && typical <= SHORT
    }

    /// Returns how many workers may be at work at a time.
    fn at_work_max(&self) -> usize {
        self.config.cpus.saturating_add(self.more_at_work).max(1)
    }

    /// Returns whether the worker is at work for this domain: what it runs may be short, and it will take another task.
    fn is_at_work(&self, slot: usize, domain: Domain) -> bool {
        let Slot { state, domain: bound, progress, draining, .. } = &self.slots[slot];
        !matches!(progress, Progress::Long { .. })
            && *bound == Some(domain)
            && !draining
            && matches!(state, SlotState::Busy { stop: None, .. })
    }

    fn at_work(&self, domain: Domain) -> usize {
        self.busy.iter().filter(|&&slot| self.is_at_work(slot, domain)).count()
    }

    /// Returns whether the first that waits is to go on waiting, although a worker is idle that could take it.
    pub(super) fn is_held(&self) -> bool {
        if self.busy.len() < self.at_work_max() || !self.are_short() {
            return false;
        }
        let Some((rank, domain)) = self.queue.first() else { return false };
        self.is_alone(domain)
            && self.idle_for(domain, &[]).is_some()
            && !self.is_alone_there(rank.1)
            && (self.at_work(domain) >= self.at_work_max() || self.mutant(Mutant::HeldForEver))
    }

    /// Returns how many idle workers tasks of this domain will be handed to, as soon as there are some.
    pub(super) fn to_be_woken(&self, domain: Domain) -> usize {
        let max = match self.are_short() {
            true => self.at_work_max().saturating_sub(self.at_work(domain)),
            false => usize::MAX,
        };
        self.idle.iter().filter(|&&idle| self.fits(idle, domain)).take(max).count()
    }

    /// Returns whether there is neither room for another worker nor one that comes or goes.
    pub(super) fn has_all(&self) -> bool {
        self.are_idle_or_busy() && self.occupied() == self.config.workers_max
    }

    // ── No longer than that ──────────────────────────────────────────────────

    /// Notes that the worker comes on: it has begun so many tasks, from the one at hand on.
    pub(super) fn moves(&mut self, slot: usize, begun: u64, now: Now) {
        self.slots[slot].progress = Progress::Moving { since: now, begun };
        self.look_from = self.look_from.min(self.look_on_slot_from(slot));
    }

    /// Has a worker that was handed something more looked at again, if it is at a long task.
    pub(super) fn look_again(&mut self, slot: usize) {
        if let Progress::Long { may_have } = &mut self.slots[slot].progress {
            *may_have = true;
            self.look_from = Duration::ZERO;
        }
    }

    fn found_long(&mut self, slot: usize) {
        self.slots[slot].progress = Progress::Long { may_have: true };
        self.look_from = Duration::ZERO;
        if self.are_short() {
            self.more_at_work = self.more_at_work.saturating_add(MORE_FOR_EACH).min(self.config.workers_max);
        }
    }

    /// Notes how long a task has run.
    pub(super) fn has_ended_in(&mut self, ran: Duration) {
        if ran <= SHORT {
            self.more_at_work = 0;
        }
    }

    /// Returns when to look at the workers next.
    pub(super) fn look_on_at(&self) -> Option<Now> {
        if self.idle.is_empty() {
            return None;
        }
        self.busy.iter().filter_map(|&slot| self.look_on_slot_at(slot)).min()
    }

    /// Returns when to look whether that worker comes on, if anything waits for it while a worker is idle.
    fn look_on_slot_at(&self, slot: usize) -> Option<Now> {
        let Slot { state: SlotState::Busy { began, .. }, domain, behind, progress, .. } = &self.slots[slot]
        else {
            return None;
        };
        let is_free = |task| {
            matches!(self.tasks.get(task), Some(ScheduledTask { place: Place::Prefetched(_, None), .. }))
        };
        let has_free = *progress != Progress::Long { may_have: false } && behind.iter().any(is_free);
        if !has_free && self.queue.ready() == 0 {
            return None;
        }
        let fits = self.idle.iter().any(|&idle| domain.is_none_or(|domain| self.fits(idle, domain)));
        let look_at = match *progress {
            // An idle worker of another domain takes a task over later, since it must leave its slot to a new worker:
            // that takes longer than most tasks.
            _ if !fits => return has_free.then(|| began.saturating_add(OVERTAKEN_MAX)),
            Progress::Moving { since, .. } => Some(since.saturating_add(LONG_AFTER)),
            Progress::Asked { .. } => None,
            Progress::Long { .. } => return has_free.then_some(*began),
        };
        let look_at = look_at.filter(|_| !self.mutant(Mutant::HeldForEver));
        look_at.into_iter().chain([began.saturating_add(STEAL_AFTER)]).min()
    }

    /// Looks whether the workers come on that others wait for while a worker is idle. Has what waits behind a long task
    /// come back. Returns whether a task that was held may be handed out now.
    pub(super) fn look_on(&mut self, now: Now, actions: &mut Vec<Action>) -> bool {
        if self.idle.is_empty() || now < self.look_from {
            return false;
        }
        let mut is_found = false;
        for index in 0..self.busy.len() {
            let slot = self.busy[index];
            if self.look_on_slot_at(slot).is_some_and(|at| at <= now) {
                is_found |= self.look_on_slot(slot, now, actions);
            }
        }
        let look_from = self.busy.iter().map(|&slot| self.look_on_slot_from(slot)).min();
        self.look_from = look_from.unwrap_or(Duration::MAX);
        is_found
    }

    /// Returns the earliest time at which that worker may have to be looked at, whatever comes to wait for it meanwhile.
    fn look_on_slot_from(&self, slot: usize) -> Now {
        let SlotState::Busy { began, .. } = self.slots[slot].state else { return Duration::MAX };
        match self.slots[slot].progress {
            Progress::Moving { since, .. } => {
                since.saturating_add(LONG_AFTER).min(began.saturating_add(STEAL_AFTER))
            }
            Progress::Long { may_have: true } => Duration::ZERO,
            Progress::Long { .. } | Progress::Asked { .. } => Duration::MAX,
        }
    }

    /// The time of a look has come; returns whether the worker is at a long task.
    fn look_on_slot(&mut self, slot: usize, now: Now, actions: &mut Vec<Action>) -> bool {
        let Slot { state, domain, progress, .. } = &self.slots[slot];
        let &SlotState::Busy { task, began, .. } = state else { return false };
        let fits = self.idle.iter().filter(|&&idle| domain.is_none_or(|domain| self.fits(idle, domain)));
        let fits = fits.count();
        let is_late = now >= began.saturating_add(STEAL_AFTER);
        match *progress {
            Progress::Moving { begun, .. } if fits > 0 && !is_late => {
                self.slots[slot].progress = Progress::Asked { begun };
                actions.push(Action::Locate { worker: self.slots[slot].key(slot), task, begun });
                return false;
            }
            Progress::Moving { .. } | Progress::Asked { .. } => {
                self.slots[slot].progress = Progress::Long { may_have: true }
            }
            Progress::Long { .. } => {}
        }
        let hands = if fits > 0 { fits } else { self.idle.len() };
        self.take_back(slot, if self.are_short() { usize::MAX } else { hands }, actions);
        true
    }

    /// Has so many tasks come back that wait behind a long one; the last first, since the worker may come to the first.
    fn take_back(&mut self, slot: usize, hands: usize, actions: &mut Vec<Action>) {
        let mut taken = 0;
        for index in (0..self.slots[slot].behind.len()).rev() {
            if taken == hands {
                return;
            }
            let task = self.slots[slot].behind[index];
            taken += usize::from(self.revoke(task, Fate::Requeue, actions));
        }
        if let Progress::Long { may_have } = &mut self.slots[slot].progress {
            *may_have = false;
        }
    }

    /// The worker was looked at. One that has begun nothing at all waits to be woken, or for a CPU, and another would wait
    /// as well.
    pub(super) fn located(&mut self, worker: WorkerKey, task: TaskId, found: Found, now: Now) {
        let Some(slot) = self.live(worker) else { return };
        let Progress::Asked { begun } = self.slots[slot].progress else { return };
        if self.slots[slot].state.task() != Some(task) {
            return;
        }
        match found {
            Found::Computing if begun > 0 => self.found_long(slot),
            Found::Computing => self.moves(slot, begun, now),
            Found::Waiting => self.moves(slot, begun, now + CONTENDED_FOR),
            Found::Begun(begun) => self.moves(slot, begun, now),
        }
    }
}
