//! Readers of what a guest wrote: the envelopes that its tasks return, and the section in which it describes them. They
//! stand apart from the engine, so that they can be fuzzed without it.

pub mod abi;
pub mod own_error;
pub mod section;
