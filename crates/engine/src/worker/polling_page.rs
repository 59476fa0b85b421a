//! The polling page: guests read it at their safepoints (`compile/safepoints.rs`), and stop where they find it closed.
//!
//! It is a page of the instance's first memory, which its own code reads and writes as well; or, for the few modules
//! without one, a page that all instances share.
//!
//! # Who opens and closes it
//! While a run is at hand, its page is *lent* to it. Whoever stops it notes that, and then closes the page: the thread that
//! computes, in the handler of the host's signal or of a timer, or the watcher. The thread that finds the page closed opens
//! it, and *then* looks whether the run is to stop. So a request is never lost: if the page was closed again before it was
//! opened, the request had been noted, and is seen.
//!
//! Whoever finds it closed is a safepoint, any other access of the guest's, or the host's own code on the same thread,
//! which copies something from or to the guest. A guest ends there with a trap. The host goes on: the watcher closes
//! the page again in a moment.
//!
//! # Why nothing else is hit
//! A page is another memory's once its instance is gone, and a page that the next run finds closed could fail a system
//! call of that run's. So whoever closes says for which run, and between the two steps of that the run cannot end
//! ([`PollingPage::settle`] waits for them): a run that has ended leaves its page open, and a late request closes none.
//!
//! A page of a memory of the worker's own is lent once it has been opened by its window's faults, and the window knows
//! ([`fault_window`](super::memories::fault_window)): instantiation has written the module's first data there.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

use super::watcher::WatcherState;
use crate::config::{GUARD_BYTES, MEMORY_BYTES, Reserve};

/// Where a worker that may not reserve addresses has its page: far from where the system maps anything by itself, since
/// the engine takes the four gibibytes behind it for the page's, and no other memory may lie there.
const REMOTE: usize = 0x2000_0000_0000;

/// The page of the worker's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OwnPage(usize);

impl OwnPage {
    /// Maps the page, with the addresses behind it in which the engine expects nothing else. It is there until the
    /// process ends.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn new(reserve: Reserve) -> io::Result<OwnPage> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let page = rustix::param::page_size();
        let (hint, bytes, flags) = match reserve {
            Reserve::None => {
                let at = ptr::without_provenance_mut(REMOTE);
                (at, page, flags | MapFlags::FIXED_NOREPLACE)
            }
            _ => (ptr::null_mut(), MEMORY_BYTES + GUARD_BYTES, flags),
        };
        // SAFETY: a new mapping that replaces nothing.
        let at = unsafe { rustix::mm::mmap_anonymous(hint, bytes, ProtFlags::empty(), flags)? };
        // SAFETY: the mapping's first page, to which nobody refers yet.
        unsafe { rustix::mm::mprotect(at, page, MprotectFlags::READ)? };
        Ok(OwnPage(at.expose_provenance()))
    }

    pub(super) fn base(self) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.0)
    }

    /// Returns whether a memory that begins there would overlap what the engine takes for this page's.
    pub(super) fn overlaps(self, memory: *const u8) -> bool {
        memory.addr().abs_diff(self.0) < MEMORY_BYTES + GUARD_BYTES
    }
}

/// The page that the run at hand polls.
#[derive(Debug, Default)]
pub(super) struct PollingPage {
    /// The page that all instances share which have none of their own: it is only ever read.
    own: usize,
    /// The page that is lent, as the system has pages; 0 while none is.
    at: AtomicUsize,
    /// Threads that are about to close it.
    closing: AtomicUsize,
    /// It may be closed.
    is_closed: AtomicBool,
}

impl PollingPage {
    pub(super) fn new(own: Option<OwnPage>) -> PollingPage {
        PollingPage { own: own.map_or(0, |page| page.0), ..PollingPage::default() }
    }

    /// Lends a page to the run at hand; `None` is the one that all instances share. Whoever was to stop the run before
    /// has closed nothing: it must be asked now.
    pub(super) fn lend(&self, page: Option<usize>) {
        let page = page.unwrap_or(self.own);
        self.at.store(page - page % rustix::param::page_size(), Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// The run at hand is over: its page is open, and nobody closes it any more.
    pub(super) fn settle(&self) {
        let at = self.at.swap(0, Ordering::SeqCst);
        while self.closing.load(Ordering::SeqCst) > 0 {
            std::hint::spin_loop();
        }
        if at != 0 && self.is_closed.load(Ordering::SeqCst) {
            self.open(at);
        }
    }

    /// Has the next safepoint fault, if `is_at_hand` says, after this has looked which page is lent, that the run is the
    /// one that was meant. Safe in a signal handler.
    pub(super) fn close(&self, is_at_hand: impl FnOnce() -> bool) {
        self.closing.fetch_add(1, Ordering::SeqCst);
        let at = self.at.load(Ordering::SeqCst);
        // If this fails, the task runs on, and the host ends the worker once the grace period is over.
        if at != 0 && is_at_hand() && protect(at, MprotectFlags::empty()).is_ok() {
            self.is_closed.store(true, Ordering::SeqCst);
        }
        self.closing.fetch_sub(1, Ordering::SeqCst);
    }

    fn open(&self, at: usize) {
        // The other way around, a page that is closed meanwhile would be taken for open.
        self.is_closed.store(false, Ordering::SeqCst);
        let flags = match at == self.own {
            true => MprotectFlags::READ,
            false => MprotectFlags::READ | MprotectFlags::WRITE,
        };
        if protect(at, flags).is_err() {
            // Whoever reads it next would fault for ever.
            std::process::abort();
        }
    }
}

/// Safe in a signal handler.
fn protect(at: usize, flags: MprotectFlags) -> rustix::io::Result<()> {
    let at = ptr::with_exposed_provenance_mut(at);
    // SAFETY: the page is of a memory of the instance at hand, which allows that it is read and written, or the one that
    // all instances share. Whoever finds it closed opens it.
    unsafe { rustix::mm::mprotect(at, rustix::param::page_size(), flags) }
}

/// A handler of signals has no argument of its own, so what it needs stands in a static.
static TARGET: OnceLock<Arc<WatcherState>> = OnceLock::new();

/// Has faults of the page handled for this watcher, once a process.
pub(super) fn serve(watcher: &Arc<WatcherState>) {
    let _ = TARGET.set(watcher.clone());
}

/// What the handler of faults is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Polled {
    /// The fault is none of the page that is lent.
    NotOurs,
    /// The page is open again.
    GoOn,
    /// The page is open again, and the run is to end with a trap.
    Stop,
}

/// Called by the handler of faults, on the thread that runs tasks: code at `pc` found the page at this address closed.
pub(super) fn polled(address: usize, pc: usize) -> Polled {
    let Some(watcher) = TARGET.get() else { return Polled::NotOurs };
    let at = watcher.page.at.load(Ordering::SeqCst);
    if at == 0 || address - address % rustix::param::page_size() != at {
        return Polled::NotOurs;
    }
    watcher.page.open(at);
    fence(Ordering::SeqCst);
    // The host's own code cannot end with a trap.
    if watcher.runs_at(pc) && watcher.is_to_stop() { Polled::Stop } else { Polled::GoOn }
}
