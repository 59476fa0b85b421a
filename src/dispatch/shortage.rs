//! What follows when a worker cannot be started for want of something: descriptors, processes, memory.
//!
//! That is nobody's fault, and may pass: it never breaks the pool. The pool goes on with the workers it has.
//! As long as one more is wanted and cannot be had, there counts as no room for another ([`Dispatch::room`]):
//! tasks wait behind busy workers, and idle workers of other domains leave for them. One start at a time is
//! tried again, after a pause that doubles, or at once when a worker of the pool's own is gone. Where no
//! process lives and none could be had for [`NO_WORKER_AFTER`], the tasks that wait fail with that; tasks that
//! come later are a new try.

use super::check::Mutant;
use super::slot::State;
use super::{Action, Dispatch, Now, Resolution, WorkerKey};
use crate::limits::{NO_WORKER_AFTER, SHORTAGE_BACKOFF, SHORTAGE_BACKOFF_MAX, SHORTAGE_TOLD_EVERY};

#[derive(Debug, Default)]
pub(super) struct Shortage {
    /// Starts that failed since the last worker was ready; 0 is no shortage.
    failures: u32,
    /// No start is tried before.
    retry_at: Now,
    /// Since when no process lives and none can be had.
    alone_since: Option<Now>,
    /// This shortage has been told, which lasts until nothing more is wanted.
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

    /// A worker is ready, so one more is worth a try. The others still come one at a time.
    pub(super) fn has_eased(&mut self, now: Now) {
        self.failures = self.failures.min(1);
        self.retry_at = self.retry_at.min(now);
        self.alone_since = None;
    }

    /// A process is gone: what it held is free.
    pub(super) fn has_room(&mut self, now: Now) {
        self.retry_at = self.retry_at.min(now);
    }

    /// Nothing more is wanted.
    pub(super) fn is_over(&mut self) {
        *self = Shortage { told_at: self.told_at, ..Shortage::default() };
    }

    /// Whether this is to be told: once, and not more often than so.
    fn tell(&mut self, now: Now) -> bool {
        let is_due = self.told_at.is_none_or(|at| now.saturating_sub(at) >= SHORTAGE_TOLD_EVERY);
        let tells = !self.is_told && is_due;
        if tells {
            (self.is_told, self.told_at) = (true, Some(now));
        }
        tells
    }

    fn note_failure(&mut self, now: Now) {
        // Starts that were asked for together fail together: one pause for all of them.
        if self.is_on() && now < self.retry_at {
            return;
        }
        let doublings = self.failures.min(30);
        self.failures = self.failures.saturating_add(1);
        let pause = SHORTAGE_BACKOFF.saturating_mul(1 << doublings).min(SHORTAGE_BACKOFF_MAX);
        self.retry_at = now.saturating_add(pause);
    }
}

impl Dispatch {
    /// How many more workers there is room for: in a shortage, for those whose place another one is leaving.
    pub(super) fn room(&self) -> usize {
        let room = self.config.workers_max.saturating_sub(self.occupied());
        if !self.shortage.is_on() || self.mutant(Mutant::RoomInShortage) {
            return room;
        }
        let leaves = |slot: &&super::Slot| slot.state != State::Vacant && !slot.is_occupied();
        self.slots.iter().filter(leaves).count().min(room)
    }

    /// How many of the wanted workers are to be started now.
    pub(super) fn tries(&self, wanted: usize, starting: usize) -> usize {
        match self.shortage.is_on() {
            true => wanted.min(1_usize.saturating_sub(starting)),
            false => wanted,
        }
    }

    /// There was no way to make this worker's process, or for it to get ready.
    pub(super) fn not_started(&mut self, worker: WorkerKey, now: Now, actions: &mut Vec<Action>) {
        let Some(slot) = self.live(worker) else { return };
        match self.slots[slot].state {
            State::Starting { .. } => {}
            // It has become unwanted meanwhile, or is to blame for its end.
            _ => return self.dead(worker, now, actions),
        }
        self.slots[slot].vacate();
        self.shortage.note_failure(now);
        if self.shortage.tell(now) {
            let workers = self.slots.iter().filter(|slot| slot.state.is_of_use()).count();
            actions.push(Action::Short { workers });
        }
        let is_alone = self.slots.iter().all(|slot| slot.state == State::Vacant);
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
