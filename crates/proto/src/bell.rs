//! A side's bell: by which the other side wakes it. It stands in shared memory.
//!
//! Waking follows Dekker: a sleeper announces what it waits for, fences, and looks again;
//! a waker publishes, fences, and reads the announcement. One of the two sees the other. The
//! waker takes the announcement down, so that a second one costs no system call.
//!
//! A side has one usual sleeper, and the host may have an *attendant* besides: a caller that
//! waits for an answer and reads the ring itself. While there is one, data rings for it alone.
//!
//! `tests/model` tries every interleaving of this file.

use std::time::Duration;

use crate::sync::{AtomicU32, Ordering, Word, fence};

/// What a sleeper waits for, as bits of [`Bell::waiting`].
pub const FOR_DATA: u32 = 1;
/// See [`FOR_DATA`].
pub const FOR_SPACE: u32 = 2;
/// There is an attendant: data does not ring for the usual sleeper.
const ATTENDED: u32 = 4;
/// The attendant sleeps.
const ATTENDANT_SLEEPS: u32 = 8;

#[derive(Default)]
#[repr(C)]
pub struct Bell {
    /// Changes whenever the sleeper is to look again.
    rung: Word,
    /// The bits that the sleeper waits for, and whether there is an attendant; 0 while nobody is to be woken.
    waiting: AtomicU32,
    /// Changes whenever the attendant is to look again.
    called: Word,
}

impl Bell {
    /// Wakes whoever on the other side waits for `what`. The caller has published its change before.
    #[inline]
    pub fn ring(&self, what: u32) {
        fence(Ordering::SeqCst);
        let waiting = self.waiting.load(Ordering::SeqCst);
        let (wanted, word) = match what {
            FOR_DATA if waiting & ATTENDED != 0 => (ATTENDANT_SLEEPS, &self.called),
            _ => (what, &self.rung),
        };
        if waiting & wanted != 0 {
            self.waiting.fetch_and(!wanted, Ordering::SeqCst);
            word.wake();
        }
    }

    /// Sleeps until woken for one of `what`, at most for so long, unless `ready` says that there is no need
    /// to. May wake early; the caller looks again.
    #[inline]
    pub fn wait(&self, what: u32, at_most: Option<Duration>, ready: impl Fn() -> bool) {
        let rung = self.rung.load();
        self.waiting.fetch_or(what, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if !ready() {
            self.rung.sleep(rung, at_most);
        }
        self.waiting.fetch_and(!(FOR_DATA | FOR_SPACE), Ordering::SeqCst);
    }

    /// Sleeps for so long without asking the other side to wake it: for a reader that knows that there
    /// is more to come, and would be woken for each bit of it. [`wake`](Self::wake) ends it.
    #[inline]
    pub fn nap(&self, duration: Duration) {
        self.rung.sleep(self.rung.load(), Some(duration));
    }

    /// Makes this side's own sleeper look again.
    #[inline]
    pub fn wake(&self) {
        self.rung.wake();
    }

    /// From here on data wakes the attendant, or nobody while it is awake. There is one attendant at a time.
    #[inline]
    pub fn attend(&self) {
        self.waiting.fetch_or(ATTENDED, Ordering::SeqCst);
    }

    /// The attendant goes. What came meanwhile has rung for nobody: look, and [`wake`](Self::wake).
    #[inline]
    pub fn leave(&self) {
        self.waiting.fetch_and(!(ATTENDED | ATTENDANT_SLEEPS), Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Waits for data as [`wait`](Self::wait) does, for the attendant.
    #[inline]
    pub fn wait_attending(&self, at_most: Option<Duration>, ready: impl Fn() -> bool) {
        let called = self.called.load();
        self.waiting.fetch_or(ATTENDANT_SLEEPS, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if !ready() {
            self.called.sleep(called, at_most);
        }
        self.waiting.fetch_and(!ATTENDANT_SLEEPS, Ordering::SeqCst);
    }

    /// Sleeps as [`nap`](Self::nap) does, for the attendant; [`wake_attendant`](Self::wake_attendant) ends
    /// it.
    #[inline]
    pub fn nap_attending(&self, duration: Duration, is_over: impl Fn() -> bool) {
        let called = self.called.load();
        if !is_over() {
            self.called.sleep(called, Some(duration));
        }
    }

    /// Makes this side's own attendant look again.
    #[inline]
    pub fn wake_attendant(&self) {
        self.called.wake();
    }
}
