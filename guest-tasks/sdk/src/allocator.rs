//! Where the heap comes from.
//!
//! The allocator is `dlmalloc`, which the standard library uses as well. What differs is
//! where it gets memory. The initial memory ends at a multiple of 64 KiB, and what is
//! left of it behind `__heap_base` is there for nothing; `memory.grow` is a system call
//! or two in the host, for each fresh instance. So the rest comes first, in steps, since
//! each page of the host's that is touched costs a page fault.

use std::cell::Cell;

use dlmalloc::{Allocator, Dlmalloc};

/// A page of the host's.
const STEP: usize = 4096;

/// A page of WebAssembly's.
const PAGE: usize = 64 * 1024;

/// The alignment of what the host's memory is cut into.
const ALIGN: usize = 16;

/// An instance's memory.
///
/// # Safety
///
/// Both hand out zeroed memory that nobody else uses: `grow` new one each time, `rest`
/// the same each time.
pub(crate) unsafe trait Memory {
    /// What is there from the start; it begins at a multiple of [`ALIGN`].
    fn rest(&self) -> (*mut u8, usize);

    /// At least so many bytes; null if there are none.
    fn grow(&self, bytes: usize) -> (*mut u8, usize);
}

/// Hands a memory out to `dlmalloc`: one piece behind the other, wherever that can be.
pub(crate) struct Source<M> {
    memory: M,
    /// Bytes of the rest that are handed out.
    taken: Cell<usize>,
}

// SAFETY: `Memory` hands out memory that nobody else uses, and no byte of the rest goes
// out twice, since `taken` only grows.
unsafe impl<M: Memory + Send> Allocator for Source<M> {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        let (rest, len) = self.memory.rest();
        let taken = self.taken.get();
        let left = len - taken;
        let next = rest.wrapping_add(taken);
        if size <= left {
            let end = (next as usize + size).next_multiple_of(STEP) - next as usize;
            let end = end.min(left);
            self.taken.set(taken + end);
            return (next, end, 0);
        }
        let (grown, bytes) = self.memory.grow(size);
        if grown.is_null() {
            return (grown, 0, 0);
        }
        // Not to be used otherwise: the heap has gone on elsewhere.
        self.taken.set(len);
        if left > 0 && grown == next.wrapping_add(left) {
            return (next, left + bytes, 0);
        }
        (grown, bytes, 0)
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        std::ptr::null_mut()
    }

    fn free_part(&self, _: *mut u8, _: usize, _: usize) -> bool {
        false
    }

    fn free(&self, _: *mut u8, _: usize) -> bool {
        false
    }

    fn can_release_part(&self, _: u32) -> bool {
        false
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        PAGE
    }
}

/// A heap in this memory, which asks it for no more than it needs: `Source` rounds up.
pub(crate) const fn heap<M>(memory: M) -> Dlmalloc<Source<M>> {
    let mut heap = Dlmalloc::new_with_allocator(Source { memory, taken: Cell::new(0) });
    assert!(heap.set_granularity(ALIGN));
    heap
}

#[cfg(all(target_arch = "wasm32", target_os = "unknown", not(target_feature = "atomics")))]
mod global {
    use std::alloc::{GlobalAlloc, Layout};
    use std::arch::wasm32::memory_grow;
    use std::cell::UnsafeCell;

    use super::*;

    unsafe extern "C" {
        // Made by the linker: where static data ends, and where the initial memory does.
        static mut __heap_base: u8;
        static mut __heap_end: u8;
    }

    /// The only memory of the module.
    struct Linear;

    // SAFETY: the linker puts nothing between its two symbols, and guests that have
    // another allocator are told to turn this one off; `memory.grow` returns new pages.
    unsafe impl Memory for Linear {
        fn rest(&self) -> (*mut u8, usize) {
            let (base, end) = (&raw mut __heap_base, &raw mut __heap_end);
            let skip = base.align_offset(ALIGN);
            (base.wrapping_add(skip), (end as usize).saturating_sub(base as usize + skip))
        }

        fn grow(&self, bytes: usize) -> (*mut u8, usize) {
            let pages = bytes.div_ceil(PAGE);
            let before = memory_grow::<0>(pages);
            if before == usize::MAX {
                return (std::ptr::null_mut(), 0);
            }
            let (at, bytes) = (before * PAGE, pages * PAGE);
            // No object may end at the very end of all addresses.
            let bytes = if at.wrapping_add(bytes) == 0 { bytes - ALIGN } else { bytes };
            (at as *mut u8, bytes)
        }
    }

    struct Global(UnsafeCell<Dlmalloc<Source<Linear>>>);

    // SAFETY: without the target feature `atomics` an instance has one thread.
    unsafe impl Sync for Global {}

    #[global_allocator]
    static GLOBAL: Global = Global(UnsafeCell::new(heap(Linear)));

    // SAFETY: `dlmalloc` keeps the contract; it calls nothing that allocates, so that no
    // two of these borrows are alive at once.
    unsafe impl GlobalAlloc for Global {
        #[inline]
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the only borrow.
            unsafe { (*self.0.get()).malloc(layout.size(), layout.align()) }
        }

        #[inline]
        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the only borrow.
            unsafe { (*self.0.get()).calloc(layout.size(), layout.align()) }
        }

        #[inline]
        unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
            // SAFETY: the only borrow; the caller's contract is `dlmalloc`'s.
            unsafe { (*self.0.get()).free(ptr, layout.size(), layout.align()) }
        }

        #[inline]
        unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            // SAFETY: the only borrow; the caller's contract is `dlmalloc`'s.
            unsafe { (*self.0.get()).realloc(ptr, layout.size(), layout.align(), size) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A memory of so many bytes, of which some are there from the start.
    struct Fake {
        base: *mut u8,
        rest: usize,
        pages_at: Cell<usize>,
        end: usize,
    }

    // SAFETY: each test has its own, on one thread.
    unsafe impl Send for Fake {}

    // SAFETY: a buffer of its own that is never freed, and `pages_at` only grows.
    unsafe impl Memory for Fake {
        fn rest(&self) -> (*mut u8, usize) {
            (self.base, self.rest)
        }

        fn grow(&self, bytes: usize) -> (*mut u8, usize) {
            let bytes = bytes.next_multiple_of(PAGE);
            let at = self.pages_at.get();
            if bytes > self.end - at {
                return (std::ptr::null_mut(), 0);
            }
            self.pages_at.set(at + bytes);
            (self.base.wrapping_add(at), bytes)
        }
    }

    /// `gap` is what somebody else has grown the memory by.
    fn fake(rest: usize, gap: usize) -> Fake {
        let end = rest + gap + 64 * PAGE;
        let buffer = vec![0u8; end + ALIGN].leak();
        let base = buffer.as_mut_ptr();
        let base = base.wrapping_add(base.align_offset(ALIGN));
        Fake { base, rest, pages_at: Cell::new(rest + gap), end }
    }

    /// Allocates, fills, resizes and frees, and finds each byte where it was put.
    fn exercise(memory: Fake, sizes: impl Fn(u64) -> usize) {
        let (from, to) = (memory.base as usize, memory.base as usize + memory.end);
        let mut heap = heap(memory);
        let mut random = 7u64;
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let mut held: Vec<(*mut u8, usize, usize, u8)> = Vec::new();
        for round in 0..1000u32 {
            let byte = round as u8;
            let check = |&(ptr, len, _, byte): &(*mut u8, usize, usize, u8)| {
                // SAFETY: allocated with this length, and filled.
                let bytes = unsafe { std::slice::from_raw_parts(ptr, len) };
                assert!(bytes.iter().all(|found| *found == byte), "somebody else wrote there");
            };
            match next() % 8 {
                0..4 if held.len() < 64 => {
                    let (len, align) = (sizes(next()), 1 << (next() % 8));
                    // SAFETY: a size and a power of two.
                    let ptr = unsafe {
                        if byte.is_multiple_of(2) {
                            heap.malloc(len, align)
                        } else {
                            heap.calloc(len, align)
                        }
                    };
                    if ptr.is_null() {
                        continue;
                    }
                    assert!(
                        ptr as usize >= from
                            && ptr as usize + len <= to
                            && (ptr as usize).is_multiple_of(align)
                    );
                    if !byte.is_multiple_of(2) {
                        check(&(ptr, len, align, 0));
                    }
                    // SAFETY: `len` bytes were allocated.
                    unsafe { ptr.write_bytes(byte, len) };
                    held.push((ptr, len, align, byte));
                }
                4 if !held.is_empty() => {
                    let index = next() as usize % held.len();
                    let (ptr, len, align, byte) = held[index];
                    let new = sizes(next());
                    // SAFETY: as it was allocated.
                    let moved = unsafe { heap.realloc(ptr, len, align, new) };
                    if !moved.is_null() {
                        check(&(moved, len.min(new), align, byte));
                        // SAFETY: `new` bytes were allocated.
                        unsafe { moved.write_bytes(byte, new) };
                        held[index] = (moved, new, align, byte);
                    }
                }
                _ if !held.is_empty() => {
                    let one = held.swap_remove(next() as usize % held.len());
                    check(&one);
                    // SAFETY: as it was allocated.
                    unsafe { heap.free(one.0, one.1, one.2) };
                }
                _ => {}
            }
        }
    }

    #[test]
    fn it_is_a_heap_whatever_is_left_and_whoever_else_grows_the_memory() {
        for rest in [0, 1, 15, 16, 64, 100, 1000, 4095, 4096, 4097, 30_000, PAGE - 16, PAGE] {
            for gap in [0, PAGE] {
                exercise(fake(rest, gap), |random| random as usize % 300);
                exercise(fake(rest, gap), |random| 1 << (random % 17));
                exercise(fake(rest, gap), |random| random as usize % (2 * PAGE));
            }
        }
    }

    #[test]
    fn what_fits_into_the_rest_grows_nothing_and_what_does_not_uses_it_up() {
        let memory = fake(20_000, 0);
        let base = memory.base as usize;
        let mut heap = heap(memory);
        // SAFETY: sizes and powers of two.
        let [first, second] = [0, 0].map(|_| unsafe { heap.malloc(8000, 16) } as usize);
        assert!(first >= base && second + 8000 <= base + 20_000, "both are in the rest");
        // SAFETY: as above.
        let third = unsafe { heap.malloc(40_000, 16) } as usize;
        assert!(third < base + 20_000, "it begins in what is left");
    }
}
