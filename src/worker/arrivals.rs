//! What the host sends on the control socket, and tasks look for: it may come after the task that needs it,
//! which then waits; and the host says when it has ended.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What has arrived, by the host's numbers, none of which is used twice.
pub(super) struct Arrivals<I, T> {
    there: Mutex<HashMap<I, T>>,
    arrival: Condvar,
}

impl<I: Copy + Eq + Hash, T> Arrivals<I, T> {
    pub(super) fn new() -> Self {
        Arrivals { there: Mutex::new(HashMap::new()), arrival: Condvar::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<I, T>> {
        self.there.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn arrive(&self, id: I, what: T) {
        self.lock().insert(id, what);
        self.arrival.notify_all();
    }

    pub(super) fn has(&self, id: I) -> bool {
        self.lock().contains_key(&id)
    }

    /// The host says that no task to come looks for these. A task that still has one keeps it to its end.
    pub(super) fn forget(&self, ids: &[I]) {
        for id in ids {
            let gone = self.lock().remove(id);
            // To unmap takes a while: not under the lock.
            drop(gone);
        }
    }

    /// Waits until `look` finds what it wants. The host sent it before it sent the task, but on another channel:
    /// it may still be under way. It lets none of it end before it has the task's answer. If the host dies
    /// meanwhile, so does this process.
    pub(super) fn wait_for<R>(&self, mut look: impl FnMut(&mut HashMap<I, T>) -> Option<R>) -> R {
        let mut there = self.lock();
        loop {
            match look(&mut there) {
                Some(found) => return found,
                None => there = self.arrival.wait(there).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}
