//! Large outputs, which become JSON as they are written.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::decode::write;
use proto::description::TaskDescription;

/// Outputs of more bytes stay as they are until their line is written: as JSON they would be up to
/// [`JSON_BYTES_PER_BYTE`](proto::limits::JSON_BYTES_PER_BYTE) times as large.
pub const LARGE_BYTES: usize = 64 * 1024;

/// The result of a typed task that is so large that its JSON is made only as it is written.
#[derive(Debug, Clone)]
pub struct LargeValue {
    pub description: Arc<TaskDescription>,
    pub bytes: Bytes,
    /// Most bytes of the JSON.
    pub output_max: usize,
}

impl LargeValue {
    pub fn write(&self, out: &mut impl io::Write) -> io::Result<()> {
        write(out, &self.description.output, &self.bytes, self.output_max)
    }

    /// Returns how many bytes it takes in this process.
    pub fn held_bytes(&self) -> usize {
        self.bytes.len()
    }
}
