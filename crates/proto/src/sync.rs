//! The synchronisation that the future cell, the ring's event counts and the reader's lock use. They name it only
//! here, so that `tests/model` can put loom's in its place and try every interleaving. It also has [`Lock`], by
//! which everything else takes its locks.

pub use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering, fence};
pub use std::sync::{Condvar, Mutex, MutexGuard, TryLockError};

use std::sync::PoisonError;
use std::time::Duration;

use rustix::thread::futex::{self, Timespec};

/// A word that threads sleep on, of whichever process: it may stand in shared memory.
#[derive(Default)]
#[repr(transparent)]
pub struct Word(AtomicU32);

impl Word {
    #[inline]
    pub fn load(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }

    /// Changes it, and wakes whoever sleeps on it: all of them, since a peer may have lain down before us.
    #[inline]
    pub fn wake(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        // The address is mapped. A peer that holds the word as a lock of the kernel's makes it fail; then whoever
        // sleeps looks again in a while.
        let _ = futex::wake(&self.0, futex::Flags::empty(), i32::MAX as u32);
    }

    /// Sleeps while the word is as it was, at most for so long. An early return (EINTR, EAGAIN) is a
    /// wake-up like any other.
    #[inline]
    pub fn sleep(&self, was: u32, at_most: Option<Duration>) {
        let at_most = at_most.and_then(|at_most| Timespec::try_from(at_most).ok());
        let _ = futex::wait(&self.0, futex::Flags::empty(), was, at_most.as_ref());
    }
}

/// Takes a lock whether or not a thread has panicked while it held it.
///
/// A poisoned lock says that a thread of ours ended half way, by a bug: strangers' code does not run under these locks,
/// or is guarded there. What the lock protects is of use all the same, since each change to it is made in steps that
/// are whole. The other threads still have to resolve futures, to reap processes and to give things back, much of it in
/// destructors: if they panicked as well, one lost thread would become a pool that hangs, or the end of the embedder's
/// process.
///
/// [`reader_lock`](crate::reader_lock) and the future's cell do the same by hand, since loom's locks have no such
/// method.
pub trait Lock<T: ?Sized> {
    fn hold(&self) -> MutexGuard<'_, T>;
}

impl<T: ?Sized> Lock<T> for Mutex<T> {
    #[inline]
    fn hold(&self) -> MutexGuard<'_, T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sleeps on a condition whose lock is taken as by [`Lock`].
pub trait Sleep {
    /// Gives the lock back, sleeps until the condition is notified, at most for so long, and takes the lock again. It
    /// may wake up for no reason.
    fn sleep<'a, T>(&self, held: MutexGuard<'a, T>, at_most: Option<Duration>) -> MutexGuard<'a, T>;
}

impl Sleep for Condvar {
    fn sleep<'a, T>(&self, held: MutexGuard<'a, T>, at_most: Option<Duration>) -> MutexGuard<'a, T> {
        match at_most {
            None => self.wait(held).unwrap_or_else(PoisonError::into_inner),
            Some(at_most) => self.wait_timeout(held, at_most).unwrap_or_else(PoisonError::into_inner).0,
        }
    }
}
