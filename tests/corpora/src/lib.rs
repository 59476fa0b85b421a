//! WebAssembly that the authors of `wasmpool` did not write, through a pool with real processes:
//! the specification's tests, and modules that were generated or mutated at random.
//!
//! Beside that, what the compiler adds to modules is tried without a pool: they must do the same with and without it. And
//! values of random types of the component model go through components of our own.
//!
//! `cargo run --release -p corpora --bin spec`, `--bin smith`, `--bin differential` and `--bin values` run all of it, the
//! tests a sample.

pub mod command;
pub mod components;
pub mod differential;
pub mod outline;
pub mod pool;
#[path = "../generator/random.rs"]
mod random;
pub mod rewrite;
pub mod smith;
pub mod spec;
mod values;
