//! The right to read belongs to the usual reader or to an inline reader. Neither ever waits for the other.
//!
//! A usual reader that finds the lock taken goes to sleep, since data now wakes the reader that has it. That
//! reader may be about to go, and may have looked for the last time. Therefore it notes that it came, and the reader
//! that gives the lock back says that it is free.
//!
//! The model of the host's readers (`src/host/link/reading/model.rs`) tries every interleaving of this file, together
//! with them and with `event_count.rs`.

use std::sync::PoisonError;

use crate::sync::{AtomicBool, Mutex, MutexGuard, Ordering, TryLockError, fence};

#[derive(Debug)]
pub struct ReaderLock<R> {
    reader: Mutex<R>,
    /// The usual reader found the lock taken, and is to be told.
    is_contended: AtomicBool,
    is_read_inline: AtomicBool,
    /// The inline reader is to be woken.
    inline_reader_sleeps: AtomicBool,
}

impl<R> ReaderLock<R> {
    #[inline]
    pub fn new(reader: R) -> Self {
        let [is_contended, is_read_inline, inline_reader_sleeps] = [(); 3].map(|()| AtomicBool::new(false));
        ReaderLock { reader: Mutex::new(reader), is_contended, is_read_inline, inline_reader_sleeps }
    }

    /// Waits for it: for the usual reader, once nobody stays.
    #[inline]
    pub fn take(&self) -> MutexGuard<'_, R> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lock for an inline reader, if nobody has it.
    #[inline]
    pub fn try_lock_inline(&self) -> Option<MutexGuard<'_, R>> {
        match self.reader.try_lock() {
            Ok(reader) => Some(reader),
            Err(TryLockError::Poisoned(reader)) => Some(reader.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Takes the lock for the usual reader, if nobody has it. Otherwise its holder sees to it that this reader is
    /// woken.
    #[inline]
    pub fn try_take(&self) -> Option<MutexGuard<'_, R>> {
        self.try_lock_inline().or_else(|| {
            self.is_contended.store(true, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            // It may have been given back before that was seen.
            self.try_lock_inline()
        })
    }

    /// Gives the inline reader's lock back; `true` if the usual reader found it taken meanwhile and is to be woken.
    #[inline]
    pub fn give_back(&self, reader: MutexGuard<'_, R>) -> bool {
        drop(reader);
        fence(Ordering::SeqCst);
        self.is_contended.load(Ordering::SeqCst) && self.is_contended.swap(false, Ordering::SeqCst)
    }

    /// Has the inline reader also send what the usual reader would send.
    #[inline]
    pub fn begin_inline(&self) {
        self.is_read_inline.store(true, Ordering::SeqCst);
    }

    /// The inline reader is about to go: `hand_over` wakes the usual reader if there is something to be sent.
    #[inline]
    pub fn end_inline(&self, hand_over: impl FnOnce()) {
        self.is_read_inline.store(false, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        hand_over();
    }

    /// The inline reader sleeps, by `sleep`, and sends nothing meanwhile; `hand_over` as for
    /// [`end_inline`](Self::end_inline).
    #[inline]
    pub fn sleep_inline(&self, hand_over: impl FnOnce(), sleep: impl FnOnce()) {
        self.inline_reader_sleeps.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        hand_over();
        sleep();
        self.inline_reader_sleeps.store(false, Ordering::SeqCst);
    }

    /// Returns whether somebody else sends what is to be sent, so that the usual reader need not. If this is true
    /// and the reader sleeps, the hand-over wakes it, provided that it has looked since it was ready to be woken.
    #[inline]
    pub fn has_awake_inline_reader(&self) -> bool {
        fence(Ordering::SeqCst);
        self.is_read_inline.load(Ordering::SeqCst) && !self.inline_reader_sleeps.load(Ordering::SeqCst)
    }

    /// Returns whether an inline reader must be woken to learn of what is not in the ring. It is said here, and
    /// not in shared memory, where a worker may change what stands there.
    #[inline]
    pub fn has_sleeping_inline_reader(&self) -> bool {
        fence(Ordering::SeqCst);
        self.inline_reader_sleeps.load(Ordering::SeqCst)
    }
}
