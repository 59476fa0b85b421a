//! A side's event count, by which the other side wakes it. It stands in shared memory.
//!
//! Waking follows Dekker: a sleeper announces what it waits for, fences, and looks again;
//! a waker publishes, fences, and reads the announcement. One of the two sees the other. The
//! waker takes the announcement down, so that a second one costs no system call.
//!
//! A side has one usual sleeper, and the host may have an *inline reader* besides: a caller that waits for an
//! answer and reads the ring itself. While there is one, data wakes it alone.
//!
//! `model.rs` tries every interleaving of this file, and that of the host's readers (`src/host/link/reading/model.rs`)
//! as well, together with them.

#[cfg(all(test, wasmpool_loom))]
mod model;

use std::time::Duration;

use crate::sync::{AtomicU32, Ordering, Word, fence};

/// This is what a sleeper waits for, as bits of [`EventCount::waiting`].
pub const FOR_DATA: u32 = 1;
/// See [`FOR_DATA`].
pub const FOR_SPACE: u32 = 2;
/// The bit that says that there is an inline reader: data does not wake the usual sleeper.
const READ_INLINE: u32 = 4;
/// The inline reader sleeps.
const INLINE_READER_SLEEPS: u32 = 8;

#[derive(Default)]
#[repr(C)]
pub struct EventCount {
    /// Changes whenever the sleeper is to look again.
    epoch: Word,
    /// The bits that the sleeper waits for, and whether there is an inline reader; 0 while nobody is to be woken.
    waiting: AtomicU32,
    /// Changes whenever the inline reader is to look again.
    inline_epoch: Word,
}

impl EventCount {
    /// Wakes whoever on the other side waits for `what`. The caller has published its change before.
    #[inline]
    pub fn notify(&self, what: u32) {
        fence(Ordering::SeqCst);
        let waiting = self.waiting.load(Ordering::SeqCst);
        let (wanted, word) = match what {
            FOR_DATA if waiting & READ_INLINE != 0 => (INLINE_READER_SLEEPS, &self.inline_epoch),
            _ => (what, &self.epoch),
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
        let epoch = self.epoch.load();
        self.waiting.fetch_or(what, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if !ready() {
            self.epoch.sleep(epoch, at_most);
        }
        self.waiting.fetch_and(!(FOR_DATA | FOR_SPACE), Ordering::SeqCst);
    }

    /// Sleeps for so long without asking the other side to wake it: for a reader that knows that there
    /// is more to come, and would be woken for each bit of it. [`wake`](Self::wake) ends it.
    #[inline]
    pub fn sleep_unnotified(&self, duration: Duration) {
        self.epoch.sleep(self.epoch.load(), Some(duration));
    }

    /// Makes this side's own sleeper look again.
    #[inline]
    pub fn wake(&self) {
        self.epoch.wake();
    }

    /// Has data wake the inline reader, or nobody while it is awake. There is one inline reader at a time.
    #[inline]
    pub fn begin_inline(&self) {
        self.waiting.fetch_or(READ_INLINE, Ordering::SeqCst);
    }

    /// The inline reader goes. What came meanwhile has woken nobody, so the caller looks, and calls
    /// [`wake`](Self::wake).
    #[inline]
    pub fn end_inline(&self) {
        self.waiting.fetch_and(!(READ_INLINE | INLINE_READER_SLEEPS), Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Waits for data as [`wait`](Self::wait) does, for the inline reader.
    #[inline]
    pub fn wait_inline(&self, at_most: Option<Duration>, ready: impl Fn() -> bool) {
        let inline_epoch = self.inline_epoch.load();
        self.waiting.fetch_or(INLINE_READER_SLEEPS, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if !ready() {
            self.inline_epoch.sleep(inline_epoch, at_most);
        }
        self.waiting.fetch_and(!INLINE_READER_SLEEPS, Ordering::SeqCst);
    }

    /// Sleeps as [`sleep_unnotified`](Self::sleep_unnotified) does, for the inline reader;
    /// [`wake_inline`](Self::wake_inline) ends it.
    #[inline]
    pub fn sleep_inline(&self, duration: Duration, is_over: impl Fn() -> bool) {
        let inline_epoch = self.inline_epoch.load();
        if !is_over() {
            self.inline_epoch.sleep(inline_epoch, Some(duration));
        }
    }

    /// Makes this side's own inline reader look again.
    #[inline]
    pub fn wake_inline(&self) {
        self.inline_epoch.wake();
    }
}
