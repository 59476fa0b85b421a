//! Readers of what a guest wrote: the envelopes that its tasks return, the section in which it describes them, and its
//! debug information. They stand apart from the engine, so that they can be fuzzed without it.

pub mod abi;
#[cfg(feature = "dwarf")]
pub mod dwarf;
pub mod own_error;
pub mod section;
