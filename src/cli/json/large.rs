//! Large outputs, which become JSON as they are written.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::decode::write;
use crate::description::TaskDescription;

/// Outputs of more bytes stay as they are until their line is written: as JSON they would be up to
/// [`JSON_BYTES_PER_BYTE`](crate::limits::JSON_BYTES_PER_BYTE) times as large.
pub(in crate::cli) const LARGE_BYTES: usize = 64 * 1024;

/// The result of a typed task that is so large that its JSON is made only as it is written.
#[derive(Debug, Clone)]
pub(in crate::cli) struct LargeValue {
    pub(in crate::cli) description: Arc<TaskDescription>,
    pub(in crate::cli) bytes: Bytes,
    /// Most bytes of the JSON.
    pub(in crate::cli) output_max: usize,
}

impl LargeValue {
    pub(in crate::cli) fn write(&self, out: &mut impl io::Write) -> io::Result<()> {
        write(out, &self.description.output, &self.bytes, self.output_max)
    }

    /// Returns how many bytes it takes in this process.
    pub(in crate::cli) fn held_bytes(&self) -> usize {
        self.bytes.len()
    }
}
