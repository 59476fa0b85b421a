//! Values of the component model through a pool and back, and the canonical ABI against that of wasmtime.
//!
//! A worker puts a task's input into a component by the canonical ABI, and reads the result from there, without a value in
//! between (`crates/engine/src/worker/component`). Wasmtime does the same by way of its `Val`. Here types are made at
//! random, a component for each of them, and values of it, and both must agree:
//!
//! - what is put into memory is what is read from there, and each side reads what the other one has put;
//! - what one refuses to read, since somebody has changed bytes of it, the other one refuses as well;
//! - the values of core WebAssembly that a flat argument becomes are the same, to the bit;
//! - a JSON text is the same after it was a task's input and its output, in a pool with real processes.
//!
//! The postcard, the JSON and the flat types that are expected are made here, by code of their own.

mod types;
mod value;
mod json;
mod text;
mod in_process;
mod through_pool;
mod campaign;

pub use campaign::{Campaign, Settings, Summary};
