//! The buffers that cross the boundary, and the calls that use them.
//!
//! The input belongs to the host between [`wasmpool_alloc`] and the call, then
//! to the call, which frees it. The output stays where it is until the next
//! call into the instance, which frees it: an instance that serves many calls
//! (`Reuse`) holds at most one.

use std::alloc::Layout;
use std::sync::{Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde::Serialize;

use crate::own_error::OwnError;
use crate::{answer, host};

/// Enough for every scalar and vector of WebAssembly.
const INPUT_ALIGN: usize = 16;

/// The output of the last call. The lock is never contended: instances have one
/// thread, and it is not held while a task runs.
static OUTPUT: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Runs a typed task: decode, call, encode.
pub fn typed<A, T>(ptr: u32, len: u32, task: impl FnOnce(A) -> Result<T, OwnError>) -> u64
where
    A: DeserializeOwned + 'static,
    T: Serialize + 'static,
{
    let input = begin(ptr, len);
    let decoded = answer::decode(input.bytes());
    // Before the task runs: its memory is worth more than our bytes.
    drop(input);
    finish(match decoded {
        Ok(arguments) => answer::typed(task(arguments)),
        Err(envelope) => envelope,
    })
}

/// Runs a task of the raw codec.
pub fn raw<T>(ptr: u32, len: u32, task: impl FnOnce(&[u8]) -> Result<T, OwnError>) -> u64
where
    T: Into<Vec<u8>>,
{
    let input = begin(ptr, len);
    finish(answer::raw(task(input.bytes())))
}

/// Runs the initialiser, which has no input and no output.
pub fn init(run: impl FnOnce() -> Result<(), OwnError>) -> u64 {
    drop(begin(0, 0));
    finish(answer::raw(run().map(|()| Vec::new())))
}

fn begin(ptr: u32, len: u32) -> Input {
    host::install();
    free_output();
    // SAFETY: the ABI: the host passes a pointer that it got from
    // `wasmpool_alloc(len)`, with that length, filled, once; or zero for none.
    unsafe { Input::from_host(ptr as usize as *mut u8, len as usize) }
}

fn finish(envelope: Vec<u8>) -> u64 {
    #[cfg(target_os = "wasi")]
    crate::console::flush();
    let packed = pack(envelope.as_ptr() as usize, envelope.len());
    *OUTPUT.lock().unwrap_or_else(PoisonError::into_inner) = envelope;
    packed
}

fn free_output() {
    *OUTPUT.lock().unwrap_or_else(PoisonError::into_inner) = Vec::new();
}

/// `ptr << 32 | len`: both fit, since addresses of wasm32 have 32 bits.
fn pack(ptr: usize, len: usize) -> u64 {
    ((ptr as u64) << 32) | len as u64
}

/// An input buffer, taken over from the host.
struct Input {
    ptr: *mut u8,
    len: usize,
}

impl Input {
    /// # Safety
    ///
    /// `ptr` is null, or it came from [`allocate`] with this `len`, all of it
    /// has been written, and nobody else uses or frees it.
    unsafe fn from_host(ptr: *mut u8, len: usize) -> Self {
        Self { ptr, len }
    }

    fn bytes(&self) -> &[u8] {
        if self.ptr.is_null() {
            return &[];
        }
        // SAFETY: `from_host`'s contract; the borrow ends before the drop.
        unsafe { std::slice::from_raw_parts(self.ptr, self.len) }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        if let (false, Some(layout)) = (self.ptr.is_null(), layout(self.len)) {
            // SAFETY: `from_host`'s contract: allocated with this very layout,
            // and not yet freed.
            unsafe { std::alloc::dealloc(self.ptr, layout) }
        }
    }
}

/// The layout of an input of `len` bytes; an empty one still has an address.
fn layout(len: usize) -> Option<Layout> {
    Layout::from_size_align(len.max(1), INPUT_ALIGN).ok()
}

/// Null if there is no memory for it. Not zeroed: the host writes all of it.
#[cfg(any(test, target_arch = "wasm32"))]
fn allocate(len: usize) -> *mut u8 {
    let Some(layout) = layout(len) else {
        return std::ptr::null_mut();
    };
    // SAFETY: the layout's size is at least one.
    unsafe { std::alloc::alloc(layout) }
}

/// What the host finds in the module besides the tasks.
#[cfg(target_arch = "wasm32")]
mod exports {
    /// Says that the module speaks version 1 of the byte ABI.
    #[unsafe(no_mangle)]
    extern "C" fn wasmpool_abi_v1() {}

    /// Room for an input; zero if there is none.
    #[unsafe(no_mangle)]
    extern "C" fn wasmpool_alloc(len: u32) -> u32 {
        super::free_output();
        super::allocate(len as usize) as usize as u32
    }

    /// Makes a `cdylib` for WASI a reactor. Without an explicit call of
    /// `__wasm_call_ctors` the linker takes each export for a command of its
    /// own and runs constructors and destructors around every call.
    #[cfg(target_os = "wasi")]
    #[unsafe(no_mangle)]
    extern "C" fn _initialize() {
        unsafe extern "C" {
            fn __wasm_call_ctors();
        }
        // SAFETY: made by the linker for this one call; the host calls
        // `_initialize` once, before anything else.
        unsafe { __wasm_call_ctors() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocation_is_aligned_and_never_null_even_when_empty() {
        for len in [0, 1, 15, 16, 4096] {
            let ptr = allocate(len);
            assert!(!ptr.is_null());
            assert_eq!(ptr as usize % INPUT_ALIGN, 0);
            // SAFETY: `len` bytes were allocated.
            unsafe { ptr.write_bytes(7, len) };
            // SAFETY: from `allocate` with this length, filled, freed here only.
            let input = unsafe { Input::from_host(ptr, len) };
            assert_eq!(input.bytes().len(), len);
        }
    }

    #[test]
    fn an_impossible_length_is_refused() {
        assert!(allocate(usize::MAX).is_null());
    }

    #[test]
    fn a_null_input_is_empty_whatever_its_length() {
        // SAFETY: null is allowed.
        let input = unsafe { Input::from_host(std::ptr::null_mut(), 9) };
        assert!(input.bytes().is_empty());
    }

    #[test]
    fn pointer_and_length_are_packed_side_by_side() {
        assert_eq!(pack(0x1234_5678, 0x9abc), 0x1234_5678_0000_9abc);
        assert_eq!(pack(0xffff_fff0, 1), 0xffff_fff0_0000_0001);
    }
}
