//! The cache of machine code: see `wasmpool::fuzzing::cache`.

use wasmpool::fuzzing::cache;

use crate::bounded::bounded;

pub use cache::seeds;

/// See `wasmpool::fuzzing::cache`.
pub fn run(data: &[u8]) {
    cache::run(data, bounded);
}
