//! The tasks that wait for a worker: by priority, then by age. It also holds those that wait for a time, between
//! two attempts.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::ranks::{Rank, Ranks, merged};
use super::{Domain, Now, Place, ScheduledTask, TaskSpec};
use crate::id_map::IdMap;
use proto::task::TaskId;

/// Tasks without a domain stand apart, so that those who have no domains do not pay for them.
#[derive(Debug, Default)]
pub(super) struct Queue {
    plain: Ranks,
    /// Tasks with a domain, all together and by domain. A domain without tasks has no entry.
    bound: BTreeMap<Rank, Domain>,
    by_domain: HashMap<Domain, Ranks>,
    delayed: BTreeSet<(Now, TaskId)>,
}

impl Queue {
    /// Waiting tasks, the delayed ones included.
    pub(super) fn len(&self) -> usize {
        self.ready() + self.delayed.len()
    }

    /// Tasks that a worker could take now.
    pub(super) fn ready(&self) -> usize {
        self.plain.len() + self.bound.len()
    }

    /// Returns how many of them are of this domain.
    pub(super) fn ready_of(&self, domain: Domain) -> usize {
        self.of(domain).map_or(0, Ranks::len)
    }

    fn of(&self, domain: Domain) -> Option<&Ranks> {
        if domain == Domain::NONE { Some(&self.plain) } else { self.by_domain.get(&domain) }
    }

    pub(super) fn push(&mut self, task: TaskId, spec: &TaskSpec) {
        let rank = (Reverse(spec.priority), task);
        if spec.domain == Domain::NONE {
            self.plain.insert(rank);
        } else {
            self.bound.insert(rank, spec.domain);
            self.by_domain.entry(spec.domain).or_default().insert(rank);
        }
    }

    pub(super) fn delay(&mut self, task: TaskId, until: Now) {
        self.delayed.insert((until, task));
    }

    /// The first task of all.
    pub(super) fn first(&self) -> Option<(Rank, Domain)> {
        let plain = self.plain.first().map(|rank| (rank, Domain::NONE));
        let bound = self.bound.first_key_value().map(|(&rank, &domain)| (rank, domain));
        plain.into_iter().chain(bound).min()
    }

    /// The first task of this domain.
    pub(super) fn first_of(&self, domain: Domain) -> Option<Rank> {
        self.of(domain)?.first()
    }

    /// Everything that a worker could take now, in order.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (Rank, Domain)> {
        let plain = self.plain.iter().map(|rank| (rank, Domain::NONE));
        merged(plain, self.bound.iter().map(|(&rank, &domain)| (rank, domain)))
    }

    /// Takes a ready task out; `false` if it is not there.
    pub(super) fn take(&mut self, (priority, task): Rank, domain: Domain) -> bool {
        let rank = (priority, task);
        if domain == Domain::NONE {
            return self.plain.remove(rank);
        }
        if let Some(of) = self.by_domain.get_mut(&domain) {
            of.remove(rank);
            if of.is_empty() {
                self.by_domain.remove(&domain);
            }
        }
        self.bound.remove(&rank).is_some()
    }

    /// Takes a waiting task out; `false` if it does not wait.
    pub(super) fn remove(&mut self, task: TaskId, entry: &ScheduledTask) -> bool {
        match entry.place {
            Place::Queued => self.take((Reverse(entry.spec.priority), task), entry.spec.domain),
            Place::Delayed(until) => self.delayed.remove(&(until, task)),
            Place::Prefetched(..) | Place::Running(_) => false,
        }
    }

    /// Returns when the next delayed task is to be released.
    pub(super) fn next_due(&self) -> Option<Now> {
        self.delayed.first().map(|&(until, _)| until)
    }

    /// Lets go the delayed tasks whose time has come.
    pub(super) fn release(&mut self, now: Now, tasks: &mut IdMap<TaskId, ScheduledTask>) {
        while let Some(&(until, task)) = self.delayed.first() {
            if until > now {
                break;
            }
            self.delayed.pop_first();
            if let Some(entry) = tasks.get_mut(&task) {
                entry.place = Place::Queued;
                self.push(task, &entry.spec);
            }
        }
    }

    /// Takes all tasks out that a worker could take now, in order.
    pub(super) fn take_ready(&mut self) -> Vec<TaskId> {
        let ready = self.in_order().map(|((_, task), _)| task).collect();
        self.plain = Ranks::default();
        self.bound.clear();
        self.by_domain.clear();
        ready
    }

    /// Takes everything out, in order.
    pub(super) fn drain(&mut self) -> Vec<TaskId> {
        let mut all = self.take_ready();
        all.extend(std::mem::take(&mut self.delayed).into_iter().map(|(_, task)| task));
        all
    }
}
