//! Guest text on its way to a person: see `wasmpool::fuzzing::text`.

use wasmpool::fuzzing::text;

use crate::bounded::bounded;

pub use text::seeds;

/// See `wasmpool::fuzzing::text`.
pub fn run(data: &[u8]) {
    text::run(data, bounded);
}
