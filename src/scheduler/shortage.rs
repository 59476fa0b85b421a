//! Decides what follows when a worker cannot be started because descriptors, processes or memory are short.
//!
//! A shortage is nobody's fault and may pass, so it never breaks the pool: the pool goes on with the workers
//! it has. While one more is wanted and cannot be had, the pool counts as having no room for it
//! ([`Scheduler::room`]): tasks wait behind busy workers, and idle workers of other domains leave for them.
//! One start at a time is tried again, after a pause that doubles, or at once when one of the pool's own
//! workers has ended. If no process lives and none could be had for [`NO_WORKER_AFTER`], the waiting tasks
//! fail with that error; tasks that come later are a new try.

use super::check::Mutant;
use super::slot::SlotState;
use super::{Action, Now, Resolution, Scheduler, WorkerKey};
use proto::limits::{NO_WORKER_AFTER, SHORTAGE_BACKOFF, SHORTAGE_BACKOFF_MAX, SHORTAGE_TOLD_EVERY};

#[derive(Debug, Default)]
pub(super) struct Shortage {
    /// The number of starts that failed since the last worker was ready; 0 means no shortage.
    failures: u32,
    /// The scheduler tries no start before this time.
    retry_at: Now,
    /// The pool has had no process, and could have none, since this time.
    alone_since: Option<Now>,
    /// This shortage was reported already; it lasts until no more workers are wanted.
    is_told: bool,
    told_at: Option<Now>,
}

impl Shortage {
    pub(super) fn is_on(&self) -> bool {
        self.failures > 0
    }

    pub(super) fn retry_at(&self) -> Now {
        self.retry_at
    }

    /// Allows a start at once, because a worker got ready. Starts still come one at a time.
    pub(super) fn has_eased(&mut self, now: Now) {
        self.failures = self.failures.min(1);
        self.retry_at = self.retry_at.min(now);
        self.alone_since = None;
    }

    /// Allows a start at once, because a process has ended and what it held is free.
    pub(super) fn has_room(&mut self, now: Now) {
        self.retry_at = self.retry_at.min(now);
    }

    /// Ends the shortage, because no more workers are wanted.
    pub(super) fn is_over(&mut self) {
        *self = Shortage { told_at: self.told_at, ..Shortage::default() };
    }

    /// Returns whether the shortage is to be reported: once, and not more often than every `SHORTAGE_TOLD_EVERY`.
    fn tell(&mut self, now: Now) -> bool {
        let is_due = self.told_at.is_none_or(|at| now.saturating_sub(at) >= SHORTAGE_TOLD_EVERY);
        let tells = !self.is_told && is_due;
        if tells {
            self.is_told = true;
            self.told_at = Some(now);
        }
        tells
    }

    fn note_failure(&mut self, now: Now) {
        // Starts that were asked for together fail together, so they cause one pause.
        if self.is_on() && now < self.retry_at {
            return;
        }
        let doublings = self.failures.min(30);
        self.failures = self.failures.saturating_add(1);
        let pause = SHORTAGE_BACKOFF.saturating_mul(1 << doublings).min(SHORTAGE_BACKOFF_MAX);
        self.retry_at = now.saturating_add(pause);
    }
}

impl Scheduler {
    /// Returns how many more workers there is room for. In a shortage, a new one only takes the slot of one
    /// that is leaving.
    pub(super) fn room(&self) -> usize {
        let room = self.config.workers_max.saturating_sub(self.occupied());
        if !self.shortage.is_on() || self.mutant(Mutant::RoomInShortage) {
            return room;
        }
        let leaves = |slot: &&super::Slot| slot.state != SlotState::Vacant && !slot.is_occupied();
        self.slots.iter().filter(leaves).count().min(room)
    }

    /// Returns how many of the wanted workers to start now.
    pub(super) fn tries(&self, wanted: usize, starting: usize) -> usize {
        match self.shortage.is_on() {
            true => wanted.min(1_usize.saturating_sub(starting)),
            false => wanted,
        }
    }

    /// Notes that this worker's process could not be made, or could not get ready, because something was
    /// short.
    pub(super) fn not_started(&mut self, worker: WorkerKey, now: Now, actions: &mut Vec<Action>) {
        let Some(slot) = self.live(worker) else { return };
        match self.slots[slot].state {
            SlotState::Starting { .. } => {}
            // The worker is unwanted by now, or its end has another cause.
            _ => return self.dead(worker, now, actions),
        }
        self.slots[slot].vacate();
        self.shortage.note_failure(now);
        if self.shortage.tell(now) {
            let workers = self.slots.iter().filter(|slot| slot.state.is_of_use()).count();
            actions.push(Action::Short { workers });
        }
        let is_alone = self.slots.iter().all(|slot| slot.state == SlotState::Vacant);
        let is_impatient = self.mutant(Mutant::ImpatientInShortage);
        if is_alone || is_impatient {
            let since = *self.shortage.alone_since.get_or_insert(now);
            let for_long = now.saturating_sub(since) >= NO_WORKER_AFTER;
            if (for_long || is_impatient) && !self.mutant(Mutant::EndlessShortage) {
                self.shortage.alone_since = None;
                for task in self.queue.take_ready() {
                    self.resolve(task, Resolution::NoWorker, actions);
                }
            }
        } else {
            self.shortage.alone_since = None;
        }
    }
}
