//! The synchronisation that the future cell, the ring's event counts, the reader's lock and the two readers of a
//! worker's ring use. They name it only here, so that `--cfg wasmpool_loom` puts loom's in its place, and the models
//! beside them try every interleaving (`tests/model/run`). It also has [`Lock`], by which everything else takes its
//! locks.

#[cfg(wasmpool_loom)]
mod modelled;
#[cfg(not(wasmpool_loom))]
mod word;

#[cfg(wasmpool_loom)]
pub use modelled::{
    AtomicBool, AtomicU8, AtomicU32, Condvar, Mutex, MutexGuard, Ordering, Word, check, fence,
};
#[cfg(not(wasmpool_loom))]
pub use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering, fence};
#[cfg(not(wasmpool_loom))]
pub use std::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(wasmpool_loom))]
pub use word::Word;

pub use std::sync::TryLockError;

use std::sync::{MutexGuard as Guard, PoisonError};
use std::time::Duration;

/// Takes a lock whether or not a thread has panicked while it held it.
///
/// A poisoned lock says that a thread of ours ended half way, by a bug: strangers' code does not run under these locks,
/// or is guarded there. What the lock protects is of use all the same, since each change to it is made in steps that
/// are whole. The other threads still have to resolve futures, to reap processes and to give things back, much of it in
/// destructors: if they panicked as well, one lost thread would become a pool that hangs, or the end of the embedder's
/// process.
///
/// The modelled code does the same by hand, since loom's locks have no such method.
pub trait Lock<T: ?Sized> {
    fn hold(&self) -> Guard<'_, T>;
}

impl<T: ?Sized> Lock<T> for std::sync::Mutex<T> {
    #[inline]
    fn hold(&self) -> Guard<'_, T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sleeps on a condition whose lock is taken as by [`Lock`].
pub trait Sleep {
    /// Gives the lock back, sleeps until the condition is notified, at most for so long, and takes the lock again. It
    /// may wake up for no reason.
    fn sleep<'a, T>(&self, held: Guard<'a, T>, at_most: Option<Duration>) -> Guard<'a, T>;
}

impl Sleep for std::sync::Condvar {
    fn sleep<'a, T>(&self, held: Guard<'a, T>, at_most: Option<Duration>) -> Guard<'a, T> {
        match at_most {
            None => self.wait(held).unwrap_or_else(PoisonError::into_inner),
            Some(at_most) => self.wait_timeout(held, at_most).unwrap_or_else(PoisonError::into_inner).0,
        }
    }
}
