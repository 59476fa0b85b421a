//! Postcard in, JSON out.
//!
//! The text is written as the bytes are read: a tree of values would need a hundred bytes
//! of the host's memory for one byte of a guest's.

use std::collections::HashSet;
use std::fmt::{self, Write as _};

use super::{push_bytes, push_string};
use crate::schema::{Node, Schema, Variant};

/// Most bytes of JSON for one output. A guest names its own fields, and can make each as
/// long as it likes.
const JSON_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Values without bytes (`()`, empty structs) that may be more than the output has bytes:
/// a list of 2^60 of them is a few bytes long.
const EMPTY_VALUES_MAX: usize = 65_536;

/// Why bytes are not what the schema says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DecodeError {
    offset: usize,
    message: String,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.offset, self.message)
    }
}

impl std::error::Error for DecodeError {}

/// The JSON of one value that takes up all of `bytes`, on one line.
pub(crate) fn decode(schema: &Schema, bytes: &[u8]) -> Result<String, DecodeError> {
    let mut reader = Reader { schema, bytes, offset: 0, empty: 0, out: String::new() };
    reader.value(schema.root())?;
    match bytes.len() - reader.offset {
        0 => Ok(reader.out),
        left => Err(reader.error(format!("{left} bytes are left over"))),
    }
}

struct Reader<'a> {
    schema: &'a Schema,
    bytes: &'a [u8],
    offset: usize,
    /// Values so far that had no bytes of their own.
    empty: usize,
    out: String,
}

impl<'a> Reader<'a> {
    fn value(&mut self, node: &Node) -> Result<(), DecodeError> {
        let start = self.offset;
        self.content(node)?;
        if self.offset == start {
            self.empty += 1;
            if self.empty > EMPTY_VALUES_MAX + self.bytes.len() {
                return Err(self.error("too many values without content".into()));
            }
        }
        if self.out.len() > JSON_BYTES_MAX {
            return Err(self.error(format!("as JSON it is longer than {JSON_BYTES_MAX} bytes")));
        }
        Ok(())
    }

    fn content(&mut self, node: &Node) -> Result<(), DecodeError> {
        match node {
            Node::Bool => match self.byte("bool")? {
                0 => self.out.push_str("false"),
                1 => self.out.push_str("true"),
                other => return Err(self.error(format!("{other} is no bool"))),
            },
            Node::I8 => {
                let number = self.byte("i8")? as i8;
                self.number(number);
            }
            Node::U8 => {
                let number = self.byte("u8")?;
                self.number(number);
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
                self.float(number.into(), serde_json::to_string(&number).unwrap_or_default());
            }
            Node::F64 => {
                let number = f64::from_le_bytes(self.array("f64")?);
                self.float(number, serde_json::to_string(&number).unwrap_or_default());
            }
            Node::Char => {
                let text = self.text()?;
                if text.chars().count() != 1 {
                    return Err(self.error("a char must be one character".into()));
                }
                push_string(&mut self.out, text);
            }
            Node::String => {
                let text = self.text()?;
                push_string(&mut self.out, text);
            }
            Node::Bytes => {
                let bytes = self.length_and_bytes()?;
                push_bytes(&mut self.out, bytes);
            }
            Node::Unit => self.out.push_str("null"),
            Node::Option(of) => match self.byte("Option")? {
                0 => self.out.push_str("null"),
                1 => self.value(self.schema.node(*of))?,
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

    fn seq(&mut self, of: &Node) -> Result<(), DecodeError> {
        let count = self.varint(64)?;
        self.out.push('[');
        for index in 0..count {
            self.comma(index > 0);
            self.value(of)?;
        }
        self.out.push(']');
        Ok(())
    }

    fn tuple(&mut self, types: &[u32]) -> Result<(), DecodeError> {
        self.out.push('[');
        for (index, id) in types.iter().enumerate() {
            self.comma(index > 0);
            self.value(self.schema.node(*id))?;
        }
        self.out.push(']');
        Ok(())
    }

    fn fields(&mut self, fields: &[(String, u32)]) -> Result<(), DecodeError> {
        self.out.push('{');
        for (index, (name, id)) in fields.iter().enumerate() {
            self.comma(index > 0);
            push_string(&mut self.out, name);
            self.out.push(':');
            self.value(self.schema.node(*id))?;
        }
        self.out.push('}');
        Ok(())
    }

    fn map(&mut self, key: &Node, of: &Node) -> Result<(), DecodeError> {
        let count = self.varint(64)?;
        if !matches!(key, Node::String) {
            self.out.push('[');
            for index in 0..count {
                self.comma(index > 0);
                self.out.push('[');
                self.value(key)?;
                self.out.push(',');
                self.value(of)?;
                self.out.push(']');
            }
            self.out.push(']');
            return Ok(());
        }
        // Readers of JSON disagree on what a key means that occurs twice.
        let mut seen = HashSet::new();
        self.out.push('{');
        for index in 0..count {
            self.comma(index > 0);
            let name = self.text()?;
            if !seen.insert(name) {
                return Err(self.error("a map has the same key twice".into()));
            }
            push_string(&mut self.out, name);
            self.out.push(':');
            self.value(of)?;
        }
        self.out.push('}');
        Ok(())
    }

    fn variant(&mut self, variants: &[(String, Variant)]) -> Result<(), DecodeError> {
        let index = self.varint(32)?;
        let Some((name, kind)) = usize::try_from(index).ok().and_then(|index| variants.get(index)) else {
            return Err(self.error(format!("{index} is no variant: there are {}", variants.len())));
        };
        if matches!(kind, Variant::Unit) {
            push_string(&mut self.out, name);
            return Ok(());
        }
        self.out.push('{');
        push_string(&mut self.out, name);
        self.out.push(':');
        match kind {
            Variant::Unit => {}
            Variant::Newtype(id) => self.value(self.schema.node(*id))?,
            Variant::Tuple(types) => self.tuple(types)?,
            Variant::Struct(fields) => self.fields(fields)?,
        }
        self.out.push('}');
        Ok(())
    }

    fn signed(&mut self, bits: u32) -> Result<(), DecodeError> {
        let number = self.varint(bits)?;
        let number = (number >> 1) as i128 ^ -((number & 1) as i128);
        match i64::try_from(number) {
            Ok(number) => self.number(number),
            Err(_) => push_string(&mut self.out, &number.to_string()),
        }
        Ok(())
    }

    fn unsigned(&mut self, bits: u32) -> Result<(), DecodeError> {
        let number = self.varint(bits)?;
        match u64::try_from(number) {
            Ok(number) => self.number(number),
            Err(_) => push_string(&mut self.out, &number.to_string()),
        }
        Ok(())
    }

    fn number(&mut self, number: impl fmt::Display) {
        // Writing to a String cannot fail.
        let _ = write!(self.out, "{number}");
    }

    fn float(&mut self, number: f64, shown: String) {
        match number {
            _ if number.is_finite() => self.out.push_str(&shown),
            _ if number.is_nan() => self.out.push_str("\"NaN\""),
            _ if number > 0.0 => self.out.push_str("\"inf\""),
            _ => self.out.push_str("\"-inf\""),
        }
    }

    fn comma(&mut self, between: bool) {
        if between {
            self.out.push(',');
        }
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

    /// As postcard does: no more bytes than the width needs, and no bits beyond it.
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
