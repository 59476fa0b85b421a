//! Fault windows: a page of a memory is opened by the fault of whoever touches it first.
//!
//! To ask the kernel what a task has touched costs three system calls an instance, which is a third of what
//! a small one costs. So nothing of a small memory can be accessed at first: who touches it faults, and the
//! handler here opens the four pages around. What was opened stays open for the tasks that follow (it is
//! zeroed between them), so that the second or third of a kind has no faults and asks nothing.
//!
//! # What the argument in `memories.rs` needs of this
//! Memory that is not open has not been touched since the slot was given back to the kernel: neither wasm nor this process's
//! own code can access it, and no system call is ever given a pointer into a guest's memory (inputs and answers go
//! through the ring, which is memory). A page is opened by the handler alone, and closed only together with giving
//! everything back, or with being zero.
//!
//! # The handler
//! It is called for every fault of this process, before wasmtime's, which turns the others into traps. It is for
//! faults *below* a memory's size only; beyond it, the window is shut. It does what can be done in a signal's
//! handler: it reads atomics and makes system calls. Only the thread that has the slot touches its memory, and
//! changes its fault window, so that the two never do so at once.
//!
//! Memory that cannot be accessed does not count against `RLIMIT_DATA`, and a fault cannot be refused as a `memory.grow`
//! can. So as much as a window could ever open is held in reserve ([`hold_reserve`]), and handed back to the
//! kernel by the fault that finds no room.

use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

use crate::config::MEMORIES_MAX;
use crate::worker::faults;

/// Faults open nothing beyond this many bytes.
pub(super) const FAULT_WINDOW_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Faults open at most this much step by step, and then everything: what is open is all zeroed, whether it was
/// touched or not.
pub(super) const WINDOW_BYTES_MAX: usize = 256 * 1024;

/// A fault opens this much: a multiple of the page size, which is more than 4 KiB on some machines.
const STEP_BYTES: usize = 16 * 1024;

/// A process has this many fault windows, for a worker's memories, which all its engines share. Tests have many.
const WINDOWS_MAX: usize = if cfg!(test) { 4096 } else { MEMORIES_MAX };

static WINDOWS: [Window; WINDOWS_MAX] = [const { Window::new() }; WINDOWS_MAX];

/// The address of [`FAULT_WINDOW_BYTES_MAX`] bytes that are mapped for a fault that finds no room; 0 means that
/// there are none.
static RESERVE: AtomicUsize = AtomicUsize::new(0);

/// The handler's knowledge of a slot. Offsets are bytes from its base, in whole pages.
struct Window {
    is_taken: AtomicBool,
    base: AtomicUsize,
    /// Faults from here on are none of this window's.
    limit: AtomicUsize,
    /// The slot is open from here to `high`.
    low: AtomicUsize,
    high: AtomicUsize,
}

impl Window {
    const fn new() -> Window {
        Window {
            is_taken: AtomicBool::new(false),
            base: AtomicUsize::new(0),
            limit: AtomicUsize::new(0),
            low: AtomicUsize::new(0),
            high: AtomicUsize::new(0),
        }
    }

    fn open(&self) -> Range<usize> {
        self.low.load(Ordering::Acquire)..self.high.load(Ordering::Acquire)
    }

    fn set_open(&self, open: Range<usize>) {
        self.low.store(open.start, Ordering::Release);
        self.high.store(open.end, Ordering::Release);
    }

    /// Returns what a fault at `address` should open: all between the address and what is open, so that it stays
    /// one range; or everything, if that would be large. Returns `None` if the address is not this window's.
    fn wanted(&self, address: usize, step: usize) -> Option<(usize, Range<usize>)> {
        let base = self.base.load(Ordering::Acquire);
        let limit = self.limit.load(Ordering::Acquire);
        let at = address.checked_sub(base).filter(|at| *at < limit)?;
        let open = self.open();
        if open.contains(&at) {
            return None;
        }
        let from = at - at % step;
        let to = (at - at % step + step).min(limit);
        let all = match open.is_empty() {
            true => from..to,
            false => from.min(open.start)..to.max(open.end),
        };
        Some((base, if all.len() > WINDOW_BYTES_MAX { 0..limit } else { all }))
    }

    /// Called by the handler.
    fn serve(&self, address: usize) -> bool {
        let step = STEP_BYTES.max(rustix::param::page_size());
        let Some((base, all)) = self.wanted(address, step) else { return false };
        let open = self.open();
        let parts = match open.is_empty() {
            true => [all.clone(), 0..0],
            false => [all.start..open.start, open.end..all.end],
        };
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let is_open = make_accessible(base, &part) || (release_reserve() && make_accessible(base, &part));
            if !is_open {
                return false;
            }
        }
        self.set_open(all);
        true
    }
}

fn make_accessible(base: usize, part: &Range<usize>) -> bool {
    let at = ptr::with_exposed_provenance_mut(base + part.start);
    // SAFETY: within the slot of this window, below its limit: its owner, on this thread, lets it be accessed
    // there. Nothing that is mapped there is changed.
    unsafe { rustix::mm::mprotect(at, part.len(), MprotectFlags::READ | MprotectFlags::WRITE).is_ok() }
}

/// The part of a fault window that a slot owns.
#[derive(Debug)]
pub(super) struct FaultWindow(usize);

impl FaultWindow {
    /// Makes a fault window for a slot of which nothing can be accessed, with its base. Returns `None` if faults
    /// cannot be served.
    pub(super) fn new(base: *mut u8) -> Option<FaultWindow> {
        if !faults::are_handled() {
            return None;
        }
        let is_free = |window: &Window| {
            window.is_taken.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        let fault_window = FaultWindow(WINDOWS.iter().position(is_free)?);
        let window = fault_window.window();
        window.set_open(0..0);
        window.limit.store(0, Ordering::Release);
        window.base.store(base.expose_provenance(), Ordering::Release);
        Some(fault_window)
    }

    fn window(&self) -> &'static Window {
        &WINDOWS[self.0]
    }

    /// Returns the one range that can be accessed.
    pub(super) fn open(&self) -> Range<usize> {
        self.window().open()
    }

    /// The owner has opened or closed something itself.
    pub(super) fn set_open(&self, open: Range<usize>) {
        self.window().set_open(open);
    }

    /// Faults below `limit` open pages from now on.
    pub(super) fn set_limit(&self, limit: usize) {
        self.window().limit.store(limit.min(FAULT_WINDOW_BYTES_MAX), Ordering::Release);
    }
}

impl Drop for FaultWindow {
    fn drop(&mut self) {
        let window = self.window();
        window.limit.store(0, Ordering::Release);
        window.base.store(0, Ordering::Release);
        window.is_taken.store(false, Ordering::Release);
    }
}

/// Sees to it that a fault finds room. `false` if there is no reserve: then no fault window may be used.
pub(super) fn hold_reserve() -> bool {
    if RESERVE.load(Ordering::Acquire) != 0 {
        return true;
    }
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: a new mapping, at an address that the kernel chooses, replaces nothing; nobody touches it.
    let mapped =
        unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), FAULT_WINDOW_BYTES_MAX, access, flags) };
    let Ok(at) = mapped else { return false };
    if RESERVE.compare_exchange(0, at.expose_provenance(), Ordering::AcqRel, Ordering::Relaxed).is_err() {
        // Another thread was faster.
        // SAFETY: mapped just now, and nobody has been told where.
        let _ = unsafe { rustix::mm::munmap(at, FAULT_WINDOW_BYTES_MAX) };
    }
    true
}

/// Called by the handler.
fn release_reserve() -> bool {
    let at = RESERVE.swap(0, Ordering::AcqRel);
    // SAFETY: what `hold_reserve` mapped, and nobody touches; whoever takes the address out unmaps it.
    at != 0
        && unsafe { rustix::mm::munmap(ptr::with_exposed_provenance_mut(at), FAULT_WINDOW_BYTES_MAX).is_ok() }
}

/// Opens what was to be opened at this address, if it is in a window. Called by the handler of faults.
pub(crate) fn serve(address: usize) -> bool {
    WINDOWS.iter().any(|window| window.serve(address))
}
