//! The names of trust domains, as the numbers that decisions are made by; and what one is told of another.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{BrokenPool, Death};
use crate::scheduler::{Domain, WorkerKey};
use proto::task::TaskId;

/// The domains in use: those of unresolved tasks and of workers. A name that comes back later
/// gets a new number, so nothing grows with the names that a pool has seen.
#[derive(Debug, Default)]
pub(super) struct Domains {
    numbers: HashMap<Arc<str>, Domain>,
    uses: HashMap<Domain, Use>,
    /// Workers whose tasks have a domain.
    workers: HashMap<WorkerKey, Domain>,
    given: u64,
}

/// A worker's death has broken the pool.
#[derive(Debug, Clone)]
pub(super) struct Breakage {
    pub(super) broken: BrokenPool,
    /// Tasks of other domains get this one, without any words of this domain's.
    wordless: BrokenPool,
    /// The domain of the worker that died.
    domain: Option<Arc<str>>,
}

impl Breakage {
    pub(super) fn new(death: Death, tasks_in_flight: Vec<TaskId>, domain: Option<Arc<str>>) -> Self {
        let wordless = BrokenPool::new(death.without_words(), tasks_in_flight.clone());
        Breakage { broken: BrokenPool::new(death, tasks_in_flight), wordless, domain }
    }

    /// Returns the breakage as a task of this domain may see it.
    pub(super) fn told_to(&self, domain: Option<&Arc<str>>) -> BrokenPool {
        let is_its_own = self.domain.as_ref() == domain;
        if is_its_own { self.broken.clone() } else { self.wordless.clone() }
    }
}

#[derive(Debug)]
struct Use {
    name: Arc<str>,
    count: usize,
}

impl Domains {
    /// A task of the domain of this name has come.
    pub(super) fn enter(&mut self, name: Option<&Arc<str>>) -> Domain {
        let Some(name) = name else { return Domain::NONE };
        if let Some(&domain) = self.numbers.get(name) {
            self.count(domain);
            return domain;
        }
        self.given += 1;
        let domain = Domain(self.given);
        self.numbers.insert(name.clone(), domain);
        self.uses.insert(domain, Use { name: name.clone(), count: 1 });
        domain
    }

    fn count(&mut self, domain: Domain) {
        if let Some(used) = self.uses.get_mut(&domain) {
            used.count += 1;
        }
    }

    /// A worker is handed a task of this domain, which is in use. The name if it is its first.
    pub(super) fn bind(&mut self, worker: WorkerKey, domain: Domain) -> Option<Arc<str>> {
        if domain == Domain::NONE || self.workers.insert(worker, domain).is_some() {
            return None;
        }
        self.count(domain);
        self.name(domain)
    }

    /// The worker is gone.
    pub(super) fn unbind(&mut self, worker: WorkerKey) {
        if let Some(domain) = self.workers.remove(&worker) {
            self.leave(domain);
        }
    }

    /// The task is resolved.
    pub(super) fn leave(&mut self, domain: Domain) {
        let Some(used) = self.uses.get_mut(&domain) else { return };
        used.count -= 1;
        if used.count == 0
            && let Some(used) = self.uses.remove(&domain)
        {
            self.numbers.remove(&used.name);
        }
    }

    /// Returns what the caller calls it; the domain of tasks that name none has no name.
    pub(super) fn name(&self, domain: Domain) -> Option<Arc<str>> {
        if domain == Domain::NONE {
            return None;
        }
        self.uses.get(&domain).map(|used| used.name.clone())
    }

    /// The domain that the worker belongs to.
    pub(super) fn of(&self, worker: WorkerKey) -> Option<Arc<str>> {
        self.name(*self.workers.get(&worker)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number_while_it_is_used_and_leaves_nothing_behind() {
        let mut domains = Domains::default();
        assert_eq!(domains.enter(None), Domain::NONE);
        domains.leave(Domain::NONE);
        let a = Arc::<str>::from("a");
        let b = Arc::<str>::from("b");
        let first = domains.enter(Some(&a));
        assert_eq!(domains.enter(Some(&a)), first);
        let other = domains.enter(Some(&b));
        assert!(other != first && other != Domain::NONE);
        let worker = WorkerKey { slot: 0, generation: 1 };
        assert_eq!(domains.bind(worker, first).as_deref(), Some("a"));
        assert_eq!(domains.bind(worker, first), None, "told once");
        domains.leave(first);
        domains.leave(first);
        assert_eq!(domains.of(worker).as_deref(), Some("a"), "the worker lives");
        domains.unbind(worker);
        assert_eq!(domains.of(worker), None);
        let again = domains.enter(Some(&a));
        assert!(again != first && again != other, "numbers are never used twice");
        domains.leave(again);
        domains.leave(other);
        assert!(domains.numbers.is_empty() && domains.uses.is_empty() && domains.workers.is_empty());
    }

    #[test]
    fn a_million_names_take_no_room() {
        let mut domains = Domains::default();
        for number in 0..1_000_000 {
            let domain = domains.enter(Some(&number.to_string().into()));
            let worker = WorkerKey { slot: 0, generation: number };
            domains.bind(worker, domain);
            domains.leave(domain);
            domains.unbind(worker);
        }
        assert!(domains.numbers.is_empty() && domains.uses.is_empty());
        assert!(domains.numbers.capacity() < 100 && domains.uses.capacity() < 100);
    }
}
