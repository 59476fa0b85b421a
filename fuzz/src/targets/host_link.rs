//! The host's side of its workers: see `wasmpool::fuzzing::host_link`.

use wasmpool::fuzzing::host_link;

use crate::bounded::bounded;

pub use host_link::seeds;

/// See `wasmpool::fuzzing::host_link`.
pub fn run(data: &[u8]) {
    host_link::run(data, bounded);
}
