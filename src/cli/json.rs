//! JSON to postcard and back, by the schema that a module gives of its tasks.
//!
//! | type | JSON |
//! |---|---|
//! | integers | a number; `u128` and `i128` beyond 64 bits: a string (as input, either) |
//! | `f32`, `f64` | a number, or `"NaN"`, `"inf"`, `"-inf"` |
//! | `char`, `String` | a string |
//! | `Vec<u8>`, bytes | out: a string if they are UTF-8, else `{"base64": "…"}`; in: these, or an array of numbers |
//! | `Option` | `null` or the value, so that `Some(None)` cannot be told from `None` (as in serde_json) |
//! | `()` | `null` |
//! | `Vec`, tuple, array | an array |
//! | struct | an object; an `Option` may be left out, other fields may not, and unknown ones are refused |
//! | enum | `"Variant"` or `{"Variant": content}` |
//! | map | an object if the keys are `String`, else an array of `[key, value]` |
//!
//! What goes in comes from the user, and errors say where it is wrong and what was expected
//! there. What comes out was written by a guest: each length is compared with what is
//! there, nothing is allocated by announcement, and values without bytes are counted.

mod base64;
mod decode;
mod encode;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use serde_json::Value;

use crate::text::is_harmless;

pub(super) use decode::decode;
pub(super) use encode::{Mismatch, bytes_of, encode_arguments, encode_bytes, encode_text};

/// Appends a JSON string.
pub(super) fn push_string(out: &mut String, text: &str) {
    // Most strings, and all names of fields, need no escape.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        push_value(out, &Value::from(text));
    }
}

/// Appends bytes: as a string if they are UTF-8, else as `{"base64": "…"}`.
pub(super) fn push_bytes(out: &mut String, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => push_string(out, text),
        Err(_) => {
            out.push_str("{\"base64\":\"");
            base64::push(out, bytes);
            out.push_str("\"}");
        }
    }
}

/// Appends a value, on one line.
pub(super) fn push_value(out: &mut String, value: &Value) {
    out.push_str(&harmless(&value.to_string()));
}

/// The same JSON without the characters that JSON lets stand although terminals obey them
/// or readers are misled by them. Outside of strings JSON is ASCII, so that each of them
/// stands inside of one, where `\u` means the same.
fn harmless(json: &str) -> Cow<'_, str> {
    if json.chars().all(is_harmless) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if !is_harmless(c) {
            // All of them lie below U+10000: one unit of UTF-16.
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}
