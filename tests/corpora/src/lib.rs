//! WebAssembly that the authors of `wasmpool` did not write, through a pool with real processes:
//! the specification's tests, and modules that were generated or mutated at random.
//!
//! `cargo run --release -p corpora --bin spec` and `--bin smith` run all of it, the tests a sample.

pub mod outline;
pub mod pool;
#[path = "../generator/random.rs"]
mod random;
pub mod rewrite;
pub mod smith;
pub mod spec;
mod values;
