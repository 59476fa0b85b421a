//! Everything in wasmpool that reads what another process, a file or a guest wrote, as functions of
//! bytes that hold it to its promises. `fuzz_targets/` drives them with libFuzzer, `tests/smoke.rs`
//! with a few thousand mutations of their seeds.
//!
//! The targets of what the host keeps to itself stand in wasmpool, in its module `fuzzing`; those of the crates below it
//! stand here. None of them needs wasmtime: the engine takes ten minutes to build with instrumentation, and is fuzzed by
//! its own project.

mod bounded;
mod inboxes;
pub mod targets;
