//! The JSON that a guest reads and writes, if its types are written as text ([`Codec::Json`](proto::description::Codec)).
//!
//! A whole input or output that is bytes is no JSON: it is given and taken as it is. Bytes inside of another value are
//! always written as base64, so that a guest need not look at which of two forms it has.

use std::fmt;

use super::decode::{BytesAs, Undecodable, decode_into};
use super::encode::{EncodeError, encode_value, push_varint};
use proto::limits::JSON_BYTES_PER_BYTE;
use proto::schema::{Node, TypeSchema};

/// Beyond what an output's own bytes account for, its JSON may have this many: spaces, and long names of fields.
const SLACK_BYTES: u64 = 1024 * 1024;

/// The reason why a guest's JSON is not the output.
#[derive(Debug)]
pub enum OutputError {
    /// It is longer than the output may be, by at least this many bytes in all.
    TooLong(u64),
    /// It is not JSON, or does not fit its type.
    Encode(EncodeError),
}

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OutputError::TooLong(bytes) => write!(f, "it has {bytes} bytes or more"),
            OutputError::Encode(error) => error.fmt(f),
        }
    }
}

/// The input of a task as its guest reads it. The JSON is written where it is wanted, and never held.
#[derive(Debug)]
pub struct GuestInput<'a> {
    schema: &'a TypeSchema,
    bytes: &'a [u8],
    is_json: bool,
    len: usize,
}

impl<'a> GuestInput<'a> {
    /// Takes a task's input, of which the JSON may have so many bytes.
    ///
    /// # Errors
    /// [`Undecodable`], for bytes that are no value of this type.
    pub fn new(schema: &'a TypeSchema, bytes: &'a [u8], text_max: usize) -> Result<Self, Undecodable> {
        if schema.is_bytes() {
            let (len, rest) = postcard::take_from_bytes::<u64>(bytes).unwrap_or((0, &[]));
            if len == rest.len() as u64 && !bytes.is_empty() {
                return Ok(GuestInput { schema, bytes: rest, is_json: false, len: rest.len() });
            }
        }
        let mut counted = Counted(0);
        decode_into(&mut counted, schema, bytes, text_max, BytesAs::Base64)?;
        Ok(GuestInput { schema, bytes, is_json: true, len: counted.0 })
    }

    /// Returns how many bytes the guest reads.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the guest reads nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes it. Of a place that has not [`len`](Self::len) bytes, what does not fit is left out.
    pub fn write(&self, into: &mut [u8]) {
        if !self.is_json {
            let len = into.len().min(self.bytes.len());
            into[..len].copy_from_slice(&self.bytes[..len]);
            return;
        }
        let mut into = Slice { into, at: 0 };
        // The same bytes have been decoded before.
        let _ = decode_into(&mut into, self.schema, self.bytes, self.len, BytesAs::Base64);
    }
}

/// Text that is only counted.
struct Counted(usize);

impl fmt::Write for Counted {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

struct Slice<'a> {
    into: &'a mut [u8],
    at: usize,
}

impl fmt::Write for Slice<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let place = self.into.get_mut(self.at..self.at + text.len()).ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.at += text.len();
        Ok(())
    }
}

/// Returns the postcard of a task's own error, which is JSON even if it is bytes.
///
/// # Errors
/// [`EncodeError`]
pub fn own_error(schema: &TypeSchema, written: &[u8], bytes_max: usize) -> Result<Vec<u8>, EncodeError> {
    encode_value(schema, written, bytes_max)
}

/// Returns the postcard of what a guest wrote.
///
/// # Errors
/// [`OutputError`]
pub fn output(schema: &TypeSchema, written: &[u8], bytes_max: u64) -> Result<Vec<u8>, OutputError> {
    let len = written.len() as u64;
    if schema.is_bytes() {
        if len > bytes_max {
            return Err(OutputError::TooLong(len));
        }
        let mut bytes = Vec::with_capacity(written.len() + 10);
        push_varint(&mut bytes, u128::from(len));
        bytes.extend_from_slice(written);
        return Ok(bytes);
    }
    // A guest without a result need not write one.
    if written.is_empty() && matches!(schema.root(), Node::Unit) {
        return Ok(Vec::new());
    }
    // A text that is longer cannot come to so few bytes, unless it is padded.
    if len > bytes_max.saturating_mul(JSON_BYTES_PER_BYTE as u64).saturating_add(SLACK_BYTES) {
        return Err(OutputError::TooLong(len));
    }
    let max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    encode_value(schema, written, max).map_err(|error| match error {
        EncodeError::Mismatch(mismatch) if mismatch.is_too_long => {
            OutputError::TooLong(bytes_max.saturating_add(1))
        }
        error => OutputError::Encode(error),
    })
}
