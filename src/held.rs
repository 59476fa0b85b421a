//! What workers hold of the host's: modules and shared inputs. Who is told when one of them ends, and how many
//! there may be at a time.
//!
//! Each worker is sent one with the first task that needs it. When the last handle and the last task that has
//! it are gone, those workers that hold it are told to let go of it. No number is used twice, so that what a
//! worker is told of one never hits another.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::fork::Birth;
use crate::wire::message::{ModuleId, ShareId};

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    Module(ModuleId),
    Share(ShareId),
}

/// The host's end of a worker that has been sent some.
pub(crate) trait Holder: Send + Sync {
    /// No task to come has it. Neither waits nor calls anyone, and takes no lock of the pool's.
    fn forget(&self, held: Held);
}

/// How long one is needed: it is dropped with the last handle of it, and the last task that has it.
pub(crate) struct Life {
    held: Held,
    birth: Birth,
    holders: Mutex<Vec<Weak<dyn Holder>>>,
    /// Given back last.
    _place: Place,
}

impl Life {
    pub(crate) fn new(held: Held, place: Place) -> Life {
        Life { held, birth: Birth::here(), holders: Mutex::new(Vec::new()), _place: place }
    }

    /// Who is to be told of its end. The caller keeps it meanwhile.
    pub(crate) fn add_holder(&self, holder: Weak<dyn Holder>) {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        // Workers come and go while it stays.
        holders.retain(|holder| holder.strong_count() > 0);
        holders.push(holder);
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // The workers are the original's, which may need it still.
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

/// How many there are of one kind, and the numbers of those to come.
#[derive(Debug, Default)]
pub(crate) struct Places {
    taken: Arc<AtomicUsize>,
    numbered: AtomicU64,
}

/// A place among those that there may be; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Places {
    /// A place, and a number that nobody has had; `None` if `max` are taken.
    pub(crate) fn take(&self, max: usize) -> Option<(u64, Place)> {
        let one_more = |taken| (taken < max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok()?;
        Some((self.numbered.fetch_add(1, Ordering::Relaxed), Place(self.taken.clone())))
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }
}

impl Drop for Place {
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
        let places = Places::default();
        let (number, place) = places.take(1).expect("there is one");
        let held = Held::Module(ModuleId(number));
        let life = Life::new(held, place);
        let (stays, leaves) = (Arc::new(Told::default()), Arc::new(Told::default()));
        for holder in [&stays, &leaves] {
            let holder: Weak<dyn Holder> = Arc::downgrade(&(holder.clone() as Arc<dyn Holder>));
            life.add_holder(holder);
        }
        drop(leaves);
        assert!(stays.0.lock().expect("not poisoned").is_empty() && places.take(1).is_none());
        drop(life);
        assert_eq!(*stays.0.lock().expect("not poisoned"), [held]);
        assert_eq!(places.taken(), 0);
    }

    #[test]
    fn a_place_may_be_taken_again_and_its_number_may_not() {
        let places = Places::default();
        let numbers: Vec<_> = (0..100).map(|_| places.take(1).expect("it was given back").0).collect();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    }
}
