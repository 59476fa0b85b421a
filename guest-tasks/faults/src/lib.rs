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

use std::error::Error;
use std::fmt;
use std::num::ParseIntError;

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

/// An error that callers get as data.
#[wasmpool_guest::error]
#[derive(Debug)]
enum Refusal {
    NoSuchInvoice { id: u32 },
    Locked(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NoSuchInvoice { id } => write!(f, "no such invoice: {id}"),
            Refusal::Locked(by) => write!(f, "locked by {by}"),
        }
    }
}

/// Returns an error that is data: of 0 one case, of others another.
#[wasmpool_guest::task]
fn own_error_as_data(id: u32) -> Result<(), Refusal> {
    Err(if id == 0 { Refusal::Locked("Ann".into()) } else { Refusal::NoSuchInvoice { id } })
}

/// Returns an error with causes.
#[wasmpool_guest::task]
fn own_error_with_causes(number: String) -> Result<i32, Box<dyn Error>> {
    Ok(number.parse::<i32>().map_err(NoNumber)?)
}

#[derive(Debug)]
struct NoNumber(ParseIntError);

impl fmt::Display for NoNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no number of an invoice")
    }
}

impl Error for NoNumber {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}
