use std::sync::atomic::{AtomicU32, Ordering};
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
