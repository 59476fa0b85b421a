//! The words of an error: what was expected, and what was found.

use std::fmt::Write as _;

use serde_json::Value;

use super::{SHOWN_BYTES_MAX, Want, integer};
use proto::schema::{Node, TypeSchema};
use proto::text::truncated;

/// An error lists the known names up to this many bytes.
const NAMES_BYTES_MAX: usize = 1024;

/// These are the ways to write bytes.
const BYTES: &str = "bytes (a string, an array of numbers, or {\"base64\": …})";

pub(super) fn expected(schema: &TypeSchema, want: Want<'_>) -> String {
    let node = match want {
        Want::Value(node) => node,
        Want::Arguments(names, _) => {
            return format!("an array of {} arguments, or an object by their names", names.len());
        }
        Want::Nothing => return "null".into(),
        Want::RawBytes => return BYTES.into(),
        Want::Tuple(types) => return format!("an array of {} values", types.len()),
        Want::Fields(variant, _) => return format!("an object for the variant {variant}"),
        Want::Some(_) => return "null, or {\"Some\": …} for an Option that holds one".into(),
        Want::Pair(..) => return "a pair [key, value]".into(),
    };
    match node {
        Node::I128 | Node::U128 => format!("{} (beyond 64 bits as a string)", schema.show(node)),
        Node::F32 | Node::F64 => format!("{} (a number, \"NaN\", \"inf\" or \"-inf\")", schema.show(node)),
        Node::Char => "a string of one character".into(),
        Node::String => "a string".into(),
        Node::Bytes => BYTES.into(),
        Node::Unit => "null".into(),
        Node::Option(of) => expected(schema, Want::Value(schema.node(*of))),
        Node::Seq(of) => match schema.node(*of) {
            Node::U8 => BYTES.into(),
            of => format!("an array of {}", schema.show_inside(of)),
        },
        Node::Tuple(types) => format!("an array of {} values", types.len()),
        Node::Map(key, _) if matches!(schema.node(*key), Node::String) => "an object".into(),
        Node::Map(..) => "an array of pairs [key, value]".into(),
        Node::Struct { name, .. } => format!("an object for {}", or(name, "a struct")),
        Node::Enum { name, variants } => {
            let names = quoted(variants.iter().map(|(variant, _)| variant.as_str()));
            format!("a variant of {} ({names})", or(name, "an enum"))
        }
        other => match integer(other) {
            Some((min, max)) => format!("{} ({min} to {max})", schema.show(other)),
            None => schema.show(other),
        },
    }
}

pub(crate) fn or<'a>(name: &'a str, otherwise: &'a str) -> &'a str {
    if name.is_empty() { otherwise } else { name }
}

/// Lists the known names, up to the bound.
pub(crate) fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut text = String::new();
    for name in names {
        let comma = if text.is_empty() { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(text, "{comma}`{name}`");
        if text.len() > NAMES_BYTES_MAX {
            break;
        }
    }
    if text.is_empty() { "none".into() } else { truncated(&text, NAMES_BYTES_MAX) }
}

/// Appends a step to a path.
pub(super) fn push_key(path: &mut String, key: &str) -> std::fmt::Result {
    match is_identifier(key) {
        true => write!(path, ".{key}"),
        false => write!(path, "[{}]", Value::from(truncated(key, SHOWN_BYTES_MAX))),
    }
}

fn is_identifier(key: &str) -> bool {
    key.len() <= SHOWN_BYTES_MAX
        && key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
