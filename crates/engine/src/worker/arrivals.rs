//! Files that the host sends on the control socket for tasks to use. Each may arrive after the task that needs it, so
//! the task can wait for it; the host says when no task will need it any more.

use proto::sync::{Lock, Sleep};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Condvar, Mutex, MutexGuard};

/// The arrivals, by the host's numbers. No number is used twice.
pub(super) struct Arrivals<I, T> {
    there: Mutex<HashMap<I, T>>,
    arrival: Condvar,
}

impl<I: Copy + Eq + Hash, T> Arrivals<I, T> {
    pub(super) fn new() -> Self {
        Arrivals { there: Mutex::new(HashMap::new()), arrival: Condvar::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<I, T>> {
        self.there.hold()
    }

    pub(super) fn arrive(&self, id: I, what: T) {
        self.lock().insert(id, what);
        self.arrival.notify_all();
    }

    pub(super) fn has(&self, id: I) -> bool {
        self.lock().contains_key(&id)
    }

    /// Forgets what no later task will look for. A task that has one still keeps it until it ends.
    pub(super) fn forget(&self, ids: &[I]) {
        for id in ids {
            let gone = self.lock().remove(id);
            // Unmapping takes a while, so it happens outside of the lock.
            drop(gone);
        }
    }

    /// Waits until `look` finds what it wants. The host sent it before the task, but on another channel, so
    /// it may still be under way. The wait ends: the host does not forget it before it has the task's answer,
    /// and if the host dies, so does this process.
    pub(super) fn wait_for<R>(&self, mut look: impl FnMut(&mut HashMap<I, T>) -> Option<R>) -> R {
        let mut there = self.lock();
        loop {
            match look(&mut there) {
                Some(found) => return found,
                None => there = self.arrival.sleep(there, None),
            }
        }
    }
}
