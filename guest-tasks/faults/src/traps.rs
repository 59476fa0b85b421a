//! Tasks that end in a trap, each in another one.

use std::arch::asm;
use std::hint::black_box;

/// Executes the instruction `unreachable`.
#[wasmpool_guest::task]
fn unreachable() {
    core::arch::wasm32::unreachable()
}

/// Loads four bytes from the last address there is, far beyond the memory.
#[wasmpool_guest::task]
fn out_of_bounds() -> u32 {
    let loaded: u32;
    // In assembly, since to Rust such a load is undefined, not a trap.
    // SAFETY: the load traps, so that no value of it is ever seen.
    unsafe {
        asm!(
            "i32.const -1",
            "i32.load 0",
            "local.set {}",
            out(local) loaded,
        );
    }
    loaded
}

/// Divides an integer by zero, with no check in front of the instruction.
#[wasmpool_guest::task]
fn divide_by_zero() -> i32 {
    let quotient: i32;
    // SAFETY: the division traps; nothing else is touched.
    unsafe {
        asm!(
            "i32.const 1",
            "i32.const 0",
            "i32.div_s",
            "local.set {}",
            out(local) quotient,
        );
    }
    quotient
}

/// Recurses until the stack is used up.
#[wasmpool_guest::task]
fn stack_overflow() -> u64 {
    descend(black_box(u64::MAX))
}

/// The result is needed after the call and no buffer is: neither a loop nor the
/// stack in linear memory replaces the frames of the engine.
#[inline(never)]
fn descend(depth: u64) -> u64 {
    if depth == 0 {
        return 1;
    }
    descend(depth - 1).rotate_left(7) ^ depth
}

/// Calls a function through a pointer of another type.
#[wasmpool_guest::task]
fn indirect_call_mismatch() -> i32 {
    extern "C" fn two_arguments(a: i64, b: i64) -> i64 {
        a ^ b
    }
    let right = black_box(two_arguments as extern "C" fn(i64, i64) -> i64);
    // SAFETY: wrong on purpose. WebAssembly compares the types at the call and
    // traps; the optimiser cannot know which function it is.
    let wrong = black_box(unsafe {
        std::mem::transmute::<extern "C" fn(i64, i64) -> i64, extern "C" fn() -> i32>(right)
    });
    wrong()
}

/// Panics with a message.
#[wasmpool_guest::task]
fn panic(message: String) {
    panic!("{message}")
}

/// Panics at a place that the tests know: this file, in this function.
#[wasmpool_guest::task]
fn panic_with_location() {
    panic!("look at the location")
}
