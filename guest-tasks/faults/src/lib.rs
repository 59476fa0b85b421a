//! A guest that misbehaves: one task for each way to go wrong, each named for
//! what it does. The pool's tests call them; nothing else should.
//!
//! `traps` stop the instance, `resources` take more than their share, `lies`
//! break the ABI, `host_calls` go through WASI, `surroundings` ask what there is. For `wasm32-wasip1` only;
//! natively the crate is empty.

#![cfg(target_arch = "wasm32")]
// Inline assembly for wasm is not stable yet; the build script of the guests
// lets this one crate use it.
#![feature(asm_experimental_arch)]

mod traps;
mod resources;
mod lies;
mod host_calls;
mod surroundings;

/// Returns 42: the control.
#[wasmpool_guest::task]
fn ok() -> u32 {
    42
}

type Outcome = Result<(), String>;

/// Returns its argument as the task's own error, by a type that is not called `Result`.
#[wasmpool_guest::task]
fn own_error_under_another_name(message: String) -> Outcome {
    Err(message)
}

/// Returns its argument as the task's own error.
#[wasmpool_guest::task]
fn own_error(message: String) -> Result<(), String> {
    Err(message)
}
