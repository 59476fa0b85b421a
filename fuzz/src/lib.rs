//! Everything in wasmpool that reads what another process, a file or a guest wrote, as functions of
//! bytes that hold it to its promises. `fuzz_targets/` drives them with libFuzzer, `tests/smoke.rs`
//! with a few thousand mutations of their seeds.
//!
//! The sources are included as they stand, all but those that name wasmtime: the engine takes ten
//! minutes to build with instrumentation, and is fuzzed by its own project.

mod bounded;
mod input;
pub mod targets;

/// The library's sources, from its own files.
#[allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "the included sources have more than is fuzzed here"
)]
#[path = "../../src"]
mod source {
    pub(crate) mod task;
    pub(crate) mod limits;
    pub(crate) mod text;
    pub(crate) mod foreign;
    pub(crate) mod policy;
    pub(crate) mod error;
    pub(crate) mod schema;
    pub(crate) mod module;
    pub(crate) mod wire;

    pub(crate) mod worker {
        mod abi;

        use crate::wire::message::Verdict;

        pub(crate) fn read_envelope(memory: &[u8], packed: i64, output_bytes_max: u64) -> (Verdict, Vec<u8>) {
            abi::read_envelope(memory, packed, output_bytes_max)
        }
    }
}

// The names by which the sources know each other.
use source::{error, foreign, limits, module, policy, schema, task, text, wire, worker};
