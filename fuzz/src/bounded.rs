//! Bounds that a target declares for the code under test, and what enforces them: an allocator
//! that counts, and the thread's own clock.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

/// The system's allocator, with this thread's bytes counted.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// Bytes held. May be below zero: what one thread allocates, another may free.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static HELD_MAX: Cell<isize> = const { Cell::new(isize::MAX) };
}

fn count(by: isize) {
    // A thread that ends frees after its locals are gone; nothing is bounded there.
    let _ = HELD.try_with(|held| {
        let now = held.get() + by;
        held.set(now);
        if by > 0 && now > HELD_MAX.get() {
            over(by, now - HELD_MAX.get());
        }
    });
}

/// Nothing may unwind out of an allocator, nor allocate there: the process ends.
fn over(by: isize, over: isize) -> ! {
    HELD_MAX.set(isize::MAX);
    eprintln!("an allocation of {by} bytes goes over the declared bound by {over}");
    std::process::abort();
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs `work`, which may hold at most `bytes` more than is held now, and use at most a second of
/// CPU time: wall time would measure the machine's other guests.
pub(crate) fn within<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let (outer, began) = (HELD_MAX.get(), cpu());
    HELD_MAX.set(outer.min(HELD.get().saturating_add_unsigned(bytes)));
    let result = work();
    HELD_MAX.set(outer);
    let took = cpu() - began;
    assert!(took < Duration::from_secs(1), "it took {took:?}");
    result
}

/// The same, for the targets that stand in wasmpool.
pub(crate) fn bounded(bytes: usize, work: &mut dyn FnMut()) {
    within(bytes, work);
}

fn cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
