//! Turns postcard into JSON.
//!
//! The text is written as the bytes are read: a tree of values would need a hundred bytes
//! of the host's memory for one byte of a guest's.

use std::collections::HashSet;
use std::fmt::{self, Write};
use std::io;

use super::{is_nullable, write_base64, write_bytes, write_string};
use proto::limits::JSON_BYTES_PER_BYTE;
use proto::schema::{Node, TypeSchema, Variant};

/// Values without bytes (`()`, empty structs) that may be more than the output has bytes:
/// a list of 2^60 of them is a few bytes long.
const EMPTY_VALUES_MAX: usize = 65_536;

/// The reason why bytes are not what the schema says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    offset: usize,
    message: String,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.offset, self.message)
    }
}

impl std::error::Error for DecodeError {}

/// The reason why an output cannot be shown as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undecodable {
    /// The bytes do not fit the schema.
    Bytes(DecodeError),
    /// The JSON would have at least this many bytes.
    TooLong(usize),
}

impl From<DecodeError> for Undecodable {
    fn from(error: DecodeError) -> Self {
        Undecodable::Bytes(error)
    }
}

/// The JSON of one value that takes up all of `bytes`, on one line.
///
/// The printed text is bounded by `bytes_max`, the limit of outputs, plus what the bytes themselves can
/// account for. A guest chooses the names of its fields, and an empty value takes no bytes, so three bytes
/// could otherwise become hundreds of millions.
pub fn decode(schema: &TypeSchema, bytes: &[u8], bytes_max: usize) -> Result<String, Undecodable> {
    let mut text = String::new();
    decode_into(&mut text, schema, bytes, text_max(bytes, bytes_max), BytesAs::Text)?;
    Ok(text)
}

/// Checks that there is such a JSON, without making it.
pub fn check(schema: &TypeSchema, bytes: &[u8], bytes_max: usize) -> Result<(), Undecodable> {
    decode_into(&mut Nowhere, schema, bytes, text_max(bytes, bytes_max), BytesAs::Text)
}

/// Writes the JSON as it is made, so that it is never held as a whole. [`check`] tells before whether all of it
/// can be made.
pub(crate) fn write(
    out: &mut impl io::Write,
    schema: &TypeSchema,
    bytes: &[u8],
    bytes_max: usize,
) -> io::Result<()> {
    let mut text = IoText { out, error: None };
    let decoded = decode_into(&mut text, schema, bytes, text_max(bytes, bytes_max), BytesAs::Text);
    match (text.error, decoded) {
        (Some(error), _) => Err(error),
        (None, Err(_)) => Err(io::ErrorKind::InvalidData.into()),
        (None, Ok(())) => Ok(()),
    }
}

/// Returns how long the JSON of these bytes may be.
fn text_max(bytes: &[u8], bytes_max: usize) -> usize {
    bytes_max.saturating_add(bytes.len().saturating_mul(JSON_BYTES_PER_BYTE))
}

/// Says how bytes are written that are inside of other values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BytesAs {
    /// As a string if they are UTF-8, else as base64: people read it.
    Text,
    /// As base64 in any case: a guest need not look which it is.
    Base64,
}

/// Writes the JSON, of at most `max` bytes.
pub(crate) fn decode_into(
    out: &mut impl Write,
    schema: &TypeSchema,
    bytes: &[u8],
    max: usize,
    bytes_as: BytesAs,
) -> Result<(), Undecodable> {
    let out = Bounded { out, left: max, exceeded_by: 0 };
    let mut reader = Reader { schema, bytes, offset: 0, empty: 0, bytes_as, out };
    let read = reader.value(schema.root());
    if reader.out.exceeded_by > 0 {
        let written = max - reader.out.left;
        return Err(Undecodable::TooLong(written.saturating_add(reader.out.exceeded_by)));
    }
    read?;
    match bytes.len() - reader.offset {
        0 => Ok(()),
        left => Err(reader.error(format!("{left} bytes are left over")).into()),
    }
}

/// Text that is only counted.
struct Nowhere;

impl Write for Nowhere {
    fn write_str(&mut self, _: &str) -> fmt::Result {
        Ok(())
    }
}

/// Text on its way to a stream.
pub(crate) struct IoText<'a, W> {
    pub out: &'a mut W,
    /// The error after which it went no further.
    pub error: Option<io::Error>,
}

impl<W: io::Write> Write for IoText<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.out.write_all(text.as_bytes()).map_err(|error| {
            self.error = Some(error);
            fmt::Error
        })
    }
}

/// Text that refuses to grow beyond `left` more bytes.
struct Bounded<'o, W> {
    out: &'o mut W,
    left: usize,
    /// This is the length of the text that was refused.
    exceeded_by: usize,
}

impl<W: Write> Write for Bounded<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.len() > self.left {
            self.exceeded_by = text.len();
            return Err(fmt::Error);
        }
        self.left -= text.len();
        self.out.write_str(text)
    }
}

struct Reader<'a, 'o, W> {
    schema: &'a TypeSchema,
    bytes: &'a [u8],
    offset: usize,
    /// Values so far that had no bytes of their own.
    empty: usize,
    bytes_as: BytesAs,
    out: Bounded<'o, W>,
}

impl<'a, W: Write> Reader<'a, '_, W> {
    fn value(&mut self, node: &Node) -> Result<(), DecodeError> {
        let start = self.offset;
        self.content(node)?;
        if self.offset == start {
            self.empty += 1;
            if self.empty > EMPTY_VALUES_MAX + self.bytes.len() {
                return Err(self.error("too many values without content".into()));
            }
        }
        Ok(())
    }

    fn content(&mut self, node: &Node) -> Result<(), DecodeError> {
        match node {
            Node::Bool => match self.byte("bool")? {
                0 => self.put("false")?,
                1 => self.put("true")?,
                other => return Err(self.error(format!("{other} is no bool"))),
            },
            Node::I8 => {
                let number = self.byte("i8")? as i8;
                self.number(number)?;
            }
            Node::U8 => {
                let number = self.byte("u8")?;
                self.number(number)?;
            }
            Node::I16 => self.signed(16)?,
            Node::I32 => self.signed(32)?,
            Node::I64 | Node::Isize => self.signed(64)?,
            Node::I128 => self.signed(128)?,
            Node::U16 => self.unsigned(16)?,
            Node::U32 => self.unsigned(32)?,
            Node::U64 | Node::Usize => self.unsigned(64)?,
            Node::U128 => self.unsigned(128)?,
            Node::F32 => {
                let number = f32::from_le_bytes(self.array("f32")?);
                self.float(number.into(), serde_json::to_string(&number).unwrap_or_default())?;
            }
            Node::F64 => {
                let number = f64::from_le_bytes(self.array("f64")?);
                self.float(number, serde_json::to_string(&number).unwrap_or_default())?;
            }
            Node::Char => {
                let text = self.text()?;
                if text.chars().count() != 1 {
                    return Err(self.error("a char must be one character".into()));
                }
                self.string(text)?;
            }
            Node::String => {
                let text = self.text()?;
                self.string(text)?;
            }
            Node::Bytes => {
                let bytes = self.length_and_bytes()?;
                let written = match self.bytes_as {
                    BytesAs::Text => write_bytes(&mut self.out, bytes),
                    BytesAs::Base64 => write_base64(&mut self.out, bytes),
                };
                self.written(written)?;
            }
            Node::Unit => self.put("null")?,
            Node::Option(of) => match self.byte("Option")? {
                0 => self.put("null")?,
                1 => self.some(self.schema.node(*of))?,
                other => return Err(self.error(format!("{other} is no tag of an Option"))),
            },
            Node::Seq(of) => match self.schema.node(*of) {
                Node::U8 => self.content(&Node::Bytes)?,
                of => self.seq(of)?,
            },
            Node::Tuple(types) => self.tuple(types)?,
            Node::Map(key, of) => self.map(self.schema.node(*key), self.schema.node(*of))?,
            Node::Struct { fields, .. } => self.fields(fields)?,
            Node::Enum { variants, .. } => self.variant(variants)?,
        }
        Ok(())
    }

    /// Writes the content of an `Option`; if that may be `null` itself, it is marked.
    fn some(&mut self, of: &Node) -> Result<(), DecodeError> {
        if !is_nullable(of) {
            return self.value(of);
        }
        self.put("{\"Some\":")?;
        self.value(of)?;
        self.put("}")
    }

    fn seq(&mut self, of: &Node) -> Result<(), DecodeError> {
        let count = self.varint(64)?;
        self.put("[")?;
        for index in 0..count {
            self.comma(index > 0)?;
            self.value(of)?;
        }
        self.put("]")?;
        Ok(())
    }

    fn tuple(&mut self, types: &[u32]) -> Result<(), DecodeError> {
        self.put("[")?;
        for (index, id) in types.iter().enumerate() {
            self.comma(index > 0)?;
            self.value(self.schema.node(*id))?;
        }
        self.put("]")?;
        Ok(())
    }

    fn fields(&mut self, fields: &[(String, u32)]) -> Result<(), DecodeError> {
        self.put("{")?;
        for (index, (name, id)) in fields.iter().enumerate() {
            self.comma(index > 0)?;
            self.string(name)?;
            self.put(":")?;
            self.value(self.schema.node(*id))?;
        }
        self.put("}")?;
        Ok(())
    }

    fn map(&mut self, key: &Node, of: &Node) -> Result<(), DecodeError> {
        let count = self.varint(64)?;
        if !matches!(key, Node::String) {
            self.put("[")?;
            for index in 0..count {
                self.comma(index > 0)?;
                self.put("[")?;
                self.value(key)?;
                self.put(",")?;
                self.value(of)?;
                self.put("]")?;
            }
            self.put("]")?;
            return Ok(());
        }
        // Readers of JSON disagree on what a key means that occurs twice.
        let mut seen = HashSet::new();
        self.put("{")?;
        for index in 0..count {
            self.comma(index > 0)?;
            let name = self.text()?;
            if !seen.insert(name) {
                return Err(self.error("a map has the same key twice".into()));
            }
            self.string(name)?;
            self.put(":")?;
            self.value(of)?;
        }
        self.put("}")?;
        Ok(())
    }

    fn variant(&mut self, variants: &[(String, Variant)]) -> Result<(), DecodeError> {
        let index = self.varint(32)?;
        let Some((name, kind)) = usize::try_from(index).ok().and_then(|index| variants.get(index)) else {
            return Err(self.error(format!("{index} is no variant: there are {}", variants.len())));
        };
        if matches!(kind, Variant::Unit) {
            self.string(name)?;
            return Ok(());
        }
        self.put("{")?;
        self.string(name)?;
        self.put(":")?;
        match kind {
            Variant::Unit => {}
            Variant::Newtype(id) => self.value(self.schema.node(*id))?,
            Variant::Tuple(types) => self.tuple(types)?,
            Variant::Struct(fields) => self.fields(fields)?,
        }
        self.put("}")?;
        Ok(())
    }

    fn signed(&mut self, bits: u32) -> Result<(), DecodeError> {
        let number = self.varint(bits)?;
        let number = (number >> 1) as i128 ^ -((number & 1) as i128);
        match i64::try_from(number) {
            Ok(number) => self.number(number),
            Err(_) => self.string(&number.to_string()),
        }
    }

    fn unsigned(&mut self, bits: u32) -> Result<(), DecodeError> {
        let number = self.varint(bits)?;
        match u64::try_from(number) {
            Ok(number) => self.number(number),
            Err(_) => self.string(&number.to_string()),
        }
    }

    fn number(&mut self, number: impl fmt::Display) -> Result<(), DecodeError> {
        let written = write!(self.out, "{number}");
        self.written(written)
    }

    fn float(&mut self, number: f64, shown: String) -> Result<(), DecodeError> {
        self.put(match number {
            _ if number.is_finite() => &shown,
            _ if number.is_nan() => "\"NaN\"",
            _ if number > 0.0 => "\"inf\"",
            _ => "\"-inf\"",
        })
    }

    fn comma(&mut self, between: bool) -> Result<(), DecodeError> {
        if between { self.put(",") } else { Ok(()) }
    }

    fn string(&mut self, text: &str) -> Result<(), DecodeError> {
        let written = write_string(&mut self.out, text);
        self.written(written)
    }

    fn put(&mut self, text: &str) -> Result<(), DecodeError> {
        let written = self.out.write_str(text);
        self.written(written)
    }

    /// The bounded text itself records by how much it was exceeded.
    fn written(&self, written: fmt::Result) -> Result<(), DecodeError> {
        written.map_err(|fmt::Error| self.error("as JSON it is too long".into()))
    }

    fn text(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.length_and_bytes()?;
        std::str::from_utf8(bytes).map_err(|_| self.error("a string is not UTF-8".into()))
    }

    fn length_and_bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.varint(64)?;
        let left = self.bytes.len() - self.offset;
        match usize::try_from(len) {
            Ok(len) if len <= left => self.take(len, "bytes"),
            _ => Err(self.error(format!("a length of {len}, but only {left} bytes are left"))),
        }
    }

    /// Reads a number as postcard does: with no more bytes than its width needs, and no bits beyond it.
    fn varint(&mut self, bits: u32) -> Result<u128, DecodeError> {
        let mut number = 0u128;
        for shift in (0..bits).step_by(7) {
            let byte = self.byte("a number")?;
            let low = u128::from(byte & 0x7f);
            if bits - shift < 7 && low >> (bits - shift) != 0 {
                break;
            }
            number |= low << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(self.error(format!("a number does not fit into {bits} bits")))
    }

    fn byte(&mut self, what: &str) -> Result<u8, DecodeError> {
        self.take(1, what).map(|bytes| bytes[0])
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8], DecodeError> {
        match self.bytes.get(self.offset..).and_then(|left| left.get(..len)) {
            Some(taken) => {
                self.offset += len;
                Ok(taken)
            }
            None => Err(self.error(format!("it ends inside of {what}"))),
        }
    }

    fn error(&self, message: String) -> DecodeError {
        DecodeError { offset: self.offset, message }
    }
}
