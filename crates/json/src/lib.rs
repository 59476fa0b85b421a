//! JSON to postcard and back, by the schema that a module gives of its tasks.
//!
//! | type | JSON |
//! |---|---|
//! | integers | a number; `u128` and `i128` beyond 64 bits: a string (as input, either) |
//! | `f32`, `f64` | a number, or `"NaN"`, `"inf"`, `"-inf"` |
//! | `char`, `String` | a string |
//! | `Vec<u8>`, bytes | out: a string if they are UTF-8, else `{"base64": "…"}`; in: these, or an array of numbers |
//! | `Option` | `null` or the value; of one whose value may itself be `null` (an `Option`, `()`), `{"Some": value}` |
//! | `()` | `null` |
//! | `Vec`, tuple, array | an array |
//! | struct | an object; an `Option` may be left out, other fields may not, and unknown ones are refused |
//! | enum | `"Variant"` or `{"Variant": content}` |
//! | map | an object if the keys are `String`, else an array of `[key, value]` |
//!
//! A guest that reads and writes JSON itself is given the same forms: see `guest.rs`.
//!
//! The arguments of a call may also be WAVE, the text that the component model has for values: see `wave.rs`.
//!
//! The user writes what goes in, and errors say where it is wrong and what was expected there. A guest has
//! written what comes out: each length is compared with what is there, nothing is allocated by announcement,
//! and values without bytes are counted.

mod base64;
mod decode;
mod encode;
pub mod guest;
mod large;
mod wave;
#[cfg(test)]
mod tests;

use std::fmt::{self, Write};
use std::io;

use serde_json::Value;

use proto::schema::Node;
use proto::text::is_harmless;

pub use decode::{Undecodable, check, decode};
pub use encode::{EncodeError, bytes_of, encode_arguments, encode_bytes, encode_stream, encode_text};
pub use large::{LARGE_BYTES, LargeValue};
pub use wave::{Call, call, encode_wave};

/// Returns whether the JSON of a value of this type may be `null`, so that an `Option` around it needs a form
/// of its own.
fn is_nullable(node: &Node) -> bool {
    matches!(node, Node::Unit | Node::Option(_))
}

/// Appends a JSON string.
pub fn push_string(out: &mut String, text: &str) {
    // Writing to a String cannot fail.
    let _ = write_string(out, text);
}

/// Appends bytes: as a string if they are UTF-8, else as `{"base64": "…"}`.
pub fn push_bytes(out: &mut String, bytes: &[u8]) {
    let _ = write_bytes(out, bytes);
}

/// Writes bytes to a stream, as [`push_bytes`] appends them.
pub fn write_bytes_to(out: &mut impl io::Write, bytes: &[u8]) -> io::Result<()> {
    let mut text = decode::IoText { out, error: None };
    match write_bytes(&mut text, bytes) {
        Ok(()) => Ok(()),
        Err(fmt::Error) => Err(text.error.unwrap_or_else(|| io::ErrorKind::InvalidData.into())),
    }
}

/// Writes a JSON string in pieces, without building the escaped text beside it.
fn write_string(out: &mut impl Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    // Most text needs no escape, so it is written in the longest pieces possible.
    let mut rest = text;
    while let Some(at) = rest.find(|c| matches!(c, '"' | '\\' | '\n' | '\t') || !is_harmless(c)) {
        let (plain, escaped) = rest.split_at(at);
        out.write_str(plain)?;
        let mut chars = escaped.chars();
        match chars.next() {
            Some('"') => out.write_str("\\\"")?,
            Some('\\') => out.write_str("\\\\")?,
            Some('\n') => out.write_str("\\n")?,
            Some('\t') => out.write_str("\\t")?,
            Some('\r') => out.write_str("\\r")?,
            Some(other) => write_unit_escapes(out, other)?,
            None => {}
        }
        rest = chars.as_str();
    }
    out.write_str(rest)?;
    out.write_char('"')
}

/// Writes bytes: as a string if they are UTF-8, else as `{"base64": "…"}`.
fn write_bytes(out: &mut impl Write, bytes: &[u8]) -> fmt::Result {
    match std::str::from_utf8(bytes) {
        Ok(text) => write_string(out, text),
        Err(_) => write_base64(out, bytes),
    }
}

/// Writes bytes as `{"base64": "…"}`.
fn write_base64(out: &mut impl Write, bytes: &[u8]) -> fmt::Result {
    out.write_str("{\"base64\":\"")?;
    base64::write(out, bytes)?;
    out.write_str("\"}")
}

/// Escapes a character as one or two UTF-16 units.
fn write_unit_escapes(out: &mut impl Write, c: char) -> fmt::Result {
    c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(out, "\\u{unit:04x}"))
}

/// Appends a value, on one line.
pub fn push_value(out: &mut String, value: &Value) {
    // Writing to a String cannot fail.
    let _ = write_harmless(out, &value.to_string());
}

/// Writes JSON, escaping the characters that JSON allows but that control a terminal or mislead a reader.
/// JSON is ASCII outside of strings, so each of them is inside of one, where `\u` means the same.
fn write_harmless(out: &mut impl Write, json: &str) -> fmt::Result {
    let mut rest = json;
    while let Some(at) = rest.find(|c| !is_harmless(c)) {
        let (plain, escaped) = rest.split_at(at);
        out.write_str(plain)?;
        let mut chars = escaped.chars();
        if let Some(c) = chars.next() {
            write_unit_escapes(out, c)?;
        }
        rest = chars.as_str();
    }
    out.write_str(rest)
}
