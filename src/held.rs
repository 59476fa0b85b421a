//! Modules and shared inputs that workers hold: who is told when one of them ends, and how many there may be
//! at a time.
//!
//! A worker is sent a module or shared input with the first task that needs it. When its last handle and the
//! last task that has it are gone, the workers that hold it are told to forget it. No number is used twice,
//! so that a message about one never hits another.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::fork::Birth;
use proto::message::{ModuleId, ShareId};
use proto::sync::Lock;

/// A module or a shared input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    Module(ModuleId),
    Share(ShareId),
}

/// The host's end of a worker that holds some.
pub(crate) trait Holder: Send + Sync {
    /// Tells the worker that no later task has it. This neither waits nor calls anyone, and takes no lock of
    /// the pool's, since it runs in destructors.
    fn forget(&self, held: Held);
}

/// The life of a module or shared input: it is dropped with its last handle and the last task that has it.
pub(crate) struct Life {
    held: Held,
    birth: Birth,
    holders: Mutex<Vec<Weak<dyn Holder>>>,
    /// The permit is given back last.
    _permit: Permit,
}

impl Life {
    pub(crate) fn new(held: Held, permit: Permit) -> Life {
        Life { held, birth: Birth::here(), holders: Mutex::new(Vec::new()), _permit: permit }
    }

    /// Adds a holder, which is told of its end. The caller keeps it alive meanwhile.
    pub(crate) fn add_holder(&self, holder: Weak<dyn Holder>) {
        let mut holders = self.holders.hold();
        // Workers come and go, and those that are gone must not pile up.
        holders.retain(|holder| holder.strong_count() > 0);
        holders.push(holder);
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // The workers of a forked process are the original's, which may still need it.
        if !self.birth.is_here() {
            return;
        }
        let holders = self.holders.get_mut().unwrap_or_else(PoisonError::into_inner);
        for holder in holders.iter().filter_map(Weak::upgrade) {
            holder.forget(self.held);
        }
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Life({:?})", self.held)
    }
}

/// Counts the modules or the shared inputs of a pool, and numbers them.
#[derive(Debug, Default)]
pub(crate) struct Permits {
    taken: Arc<AtomicUsize>,
    numbered: AtomicU64,
}

/// Allows one of the modules or shared inputs that there may be; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Permit(Arc<AtomicUsize>);

impl Permits {
    /// Takes a permit, and a number that nobody has had; returns `None` if `max` are taken.
    pub(crate) fn take(&self, max: usize) -> Option<(u64, Permit)> {
        let one_more = |taken| (taken < max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok()?;
        Some((self.numbered.fetch_add(1, Ordering::Relaxed), Permit(self.taken.clone())))
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Told(Mutex<Vec<Held>>);

    impl Holder for Told {
        fn forget(&self, held: Held) {
            self.0.lock().expect("not poisoned").push(held);
        }
    }

    #[test]
    fn those_who_hold_it_are_told_of_its_end_once_and_those_who_left_are_not() {
        let permits = Permits::default();
        let (number, permit) = permits.take(1).expect("there is one");
        let held = Held::Module(ModuleId(number));
        let life = Life::new(held, permit);
        let stays = Arc::new(Told::default());
        let leaves = Arc::new(Told::default());
        for holder in [&stays, &leaves] {
            let holder: Weak<dyn Holder> = Arc::downgrade(&(holder.clone() as Arc<dyn Holder>));
            life.add_holder(holder);
        }
        drop(leaves);
        assert!(stays.0.lock().expect("not poisoned").is_empty() && permits.take(1).is_none());
        drop(life);
        assert_eq!(*stays.0.lock().expect("not poisoned"), [held]);
        assert_eq!(permits.taken(), 0);
    }

    #[test]
    fn a_permit_may_be_taken_again_and_its_number_may_not() {
        let permits = Permits::default();
        let numbers: Vec<_> = (0..100).map(|_| permits.take(1).expect("it was given back").0).collect();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    }
}
