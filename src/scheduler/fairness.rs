//! Decides which of the waiting tasks is served by which worker, across trust domains.
//!
//! The queue's order says who is next: the first in line gets an idle worker of its domain, else
//! an unbound one, else the next that will be ready, else the slot of an idle worker of another
//! domain, which leaves. Whoever comes later may go before it where that costs it nothing: on an
//! idle worker of its own domain, while the first waits for one that starts.
//!
//! A worker that is to leave for the first in line goes on with its own domain for a moment more, where tasks of
//! the same priority wait: else two domains that take turns would start a process for each task. The moment is
//! counted once for each task that waits, so nobody is bypassed for longer.

use std::cmp::Reverse;

use super::check::Mutant;
use super::ranks::Rank;
use super::{Action, Domain, Fate, Now, Place, RetireReason, Scheduler};
use proto::limits::OVERTAKEN_MAX;
use proto::task::TaskId;

/// The line: what the queue's order makes of the workers there are.
#[derive(Debug, Default)]
struct Line {
    /// The first that an idle worker can take.
    next: Option<(Rank, Domain, usize)>,
    /// The first that nobody is there for: no idle worker, and none that starts.
    first: Option<Rank>,
    /// Idle workers whose slots are needed for such tasks.
    leaving: usize,
}

impl Scheduler {
    /// Looks at the queue's head, no further than there are workers to give away.
    fn line(&self) -> Line {
        let mut line = Line::default();
        let mut coming = self.workers_to_come();
        let mut taken = Vec::new();
        for (rank, domain) in self.queue.in_order() {
            let free = self.idle.len() - taken.len() - line.leaving;
            if free == 0 && line.first.is_some() {
                break;
            }
            if free > 0
                && let Some(slot) = self.idle_for(domain, &taken)
            {
                line.next.get_or_insert((rank, domain, slot));
                if self.is_alone(domain) {
                    break;
                }
                taken.push(slot);
            } else if coming > 0 {
                coming -= 1;
            } else {
                line.first.get_or_insert(rank);
                line.leaving += usize::from(free > 0);
            }
        }
        line
    }

    /// Unbound workers that start, or that there is room for.
    fn workers_to_come(&self) -> usize {
        self.starting() + self.room()
    }

    /// Returns whether all that waits is of this domain.
    pub(super) fn is_alone(&self, domain: Domain) -> bool {
        self.queue.ready() == self.queue.ready_of(domain)
    }

    /// Returns whether a worker may be handed tasks of this domain.
    pub(super) fn fits(&self, slot: usize, domain: Domain) -> bool {
        self.slots[slot].domain.is_none_or(|bound| bound == domain) || self.mutant(Mutant::DomainsMixed)
    }

    /// An idle worker for a task of this domain: one of its own, else an unbound one, and of those
    /// the one that was busy last.
    pub(super) fn idle_for(&self, domain: Domain, taken: &[usize]) -> Option<usize> {
        let fits = |slot: &&usize| self.fits(**slot, domain) && !taken.contains(slot);
        let is_own = |slot: &&usize| self.slots[**slot].domain.is_some() && fits(slot);
        let mut last_first = self.idle.iter().rev();
        last_first.clone().find(is_own).or_else(|| last_first.find(fits)).copied()
    }

    // ── To idle workers ──────────────────────────────────────────────────────

    /// Hands tasks to idle workers. `false` if they have asked for prefetched ones instead: those
    /// come with the next event, and all else is decided then.
    pub(super) fn hand_out(&mut self, now: Now, actions: &mut Vec<Action>) -> bool {
        loop {
            if self.idle.is_empty() {
                return true;
            }
            // Prefetched tasks have been asked for, to be queued again.
            if self.recalled > 0 {
                return false;
            }
            if self.is_held() {
                return true;
            }
            let Some((rank, domain, slot)) = self.next_run(now) else { return true };
            // A task that waits behind a busy worker of this domain may come before it.
            if let Some(earlier) = self.prefetched_before(rank, domain)
                && self.revoke(earlier, Fate::Requeue, actions)
            {
                return false;
            }
            self.idle.retain(|&idle| idle != slot);
            self.queue.take(rank, domain);
            self.run(slot, rank.1, now, actions);
        }
    }

    /// The next task to be handed out, and to whom.
    fn next_run(&mut self, now: Now) -> Option<(Rank, Domain, usize)> {
        let (rank, domain) = self.queue.first()?;
        if let Some(slot) = self.idle_for(domain, &[]) {
            return Some((rank, domain, slot));
        }
        let line = self.line();
        if line.next.is_some() {
            return line.next;
        }
        // Every idle worker is to leave: one of them may go on with its own for a moment.
        let first = line.first?;
        let domains = self.idle.iter().filter_map(|&slot| self.slots[slot].domain);
        let own = domains.filter_map(|domain| Some((self.queue.first_of(domain)?, domain)));
        let (rank, domain) = own.min()?;
        let slot = self.idle_for(domain, &[])?;
        self.may_overtake(rank, first, now).then_some((rank, domain, slot))
    }

    /// Has idle workers leave whose slots are needed for tasks of other domains.
    pub(super) fn make_room(&mut self, now: Now) {
        if self.idle.is_empty() || self.queue.ready() == 0 {
            return;
        }
        // Workers that were busy last stay.
        let leaving: Vec<_> = self.idle.iter().copied().take(self.line().leaving).collect();
        for slot in leaving {
            self.retire(slot, RetireReason::Domain, now);
        }
    }

    // ── To busy workers ──────────────────────────────────────────────────────

    /// The next task to be handed to a busy worker, behind those that it has.
    pub(super) fn next_behind(&mut self, slot: usize, now: Now) -> Option<(Rank, Domain)> {
        let domain = self.slots[slot].domain?;
        let rank = self.queue.first_of(domain)?;
        if self.is_alone(domain) {
            return Some((rank, domain));
        }
        let may = match self.idle.is_empty() {
            true => {
                self.line().first.is_none_or(|first| rank <= first || self.may_overtake(rank, first, now))
            }
            // It is not known yet whom the idle workers will serve, so nobody counts as bypassed meanwhile.
            false => self.queue.first().is_some_and(|(first, _)| first == rank),
        };
        may.then_some((rank, domain))
    }

    /// Returns whether a task may be begun before the first in line, which is of another domain.
    fn may_overtake(&mut self, rank: Rank, first: Rank, now: Now) -> bool {
        rank.0 == first.0 && self.can_wait(first, now)
    }

    fn can_wait(&mut self, (_, first): Rank, now: Now) -> bool {
        let endless = self.mutant(Mutant::OvertakenForEver);
        self.tasks.get_mut(&first).is_none_or(|entry| {
            let since = *entry.bypassed_since.get_or_insert(now);
            endless || now.saturating_sub(since) < OVERTAKEN_MAX
        })
    }

    /// Has workers of other domains give back what they have in store that comes after the first in line, once
    /// that has waited for long enough. The next of them that ends its task leaves.
    pub(super) fn recall_after_first(&mut self, now: Now, actions: &mut Vec<Action>) {
        let has_store = |slot: &super::Slot| {
            !slot.behind.is_empty() && slot.domain.is_some_and(|domain| !self.is_alone(domain))
        };
        if self.queue.ready() == 0 || !self.slots.iter().any(has_store) {
            return;
        }
        let Some(first) = self.line().first else { return };
        if self.can_wait(first, now) {
            return;
        }
        let domain = self.tasks.get(&first.1).map(|entry| entry.spec.domain);
        for slot in 0..self.slots.len() {
            if self.slots[slot].domain != domain {
                for task in self.slots[slot].behind.clone() {
                    if self.rank(task).is_some_and(|rank| rank > first) {
                        self.revoke(task, Fate::Requeue, actions);
                    }
                }
            }
        }
    }

    // ── What was prefetched ─────────────────────────────────────────────────────

    fn rank(&self, task: TaskId) -> Option<Rank> {
        self.tasks.get(&task).map(|entry| (Reverse(entry.spec.priority), task))
    }

    /// The first prefetched task of this domain, if it comes before the one of this rank. Tasks of a
    /// chunk stay where they are.
    fn prefetched_before(&self, rank: Rank, domain: Domain) -> Option<TaskId> {
        let waits = |task: &&TaskId| {
            self.tasks.get(*task).is_some_and(|entry| {
                matches!(entry.place, Place::Prefetched(_, None)) && entry.spec.chunk.is_none()
            })
        };
        let slots = self.slots.iter().filter(|slot| slot.domain == Some(domain));
        let prefetched = slots.filter_map(|slot| slot.behind.iter().find(waits));
        let earliest = prefetched.filter_map(|&task| self.rank(task)).min();
        earliest.filter(|&earliest| earliest < rank).map(|(_, task)| task)
    }
}
