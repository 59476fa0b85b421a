//! Outputs that become JSON as they are written: large ones, and bytes, which a file has as they are.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::decode::write;
use proto::description::TaskDescription;

/// Outputs of more bytes stay as they are until their line is written: as JSON they would be up to
/// [`JSON_BYTES_PER_BYTE`](proto::limits::JSON_BYTES_PER_BYTE) times as large.
pub const LARGE_BYTES: usize = 64 * 1024;

/// The result of a typed task whose JSON is made only as it is written. Its bytes have been checked.
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

    /// Returns the bytes that it is, if it is bytes.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        if !self.description.output.is_bytes() {
            return None;
        }
        // Lists and bytes begin with their length.
        let (len, bytes) = postcard::take_from_bytes::<u64>(&self.bytes).ok()?;
        (len == bytes.len() as u64).then_some(bytes)
    }

    /// Returns how many bytes it takes in this process.
    pub fn held_bytes(&self) -> usize {
        self.bytes.len()
    }
}
