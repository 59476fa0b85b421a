//! The words of an error: what was expected, and what was found.

use wasm_wave::parser::{ParserError, ParserErrorKind};

use super::forms::{are_flags, sides};
use crate::encode::{SHOWN_BYTES_MAX, integer, or, quoted};
use proto::schema::{Node, TypeSchema, Variant};
use proto::text::{Name, truncated};

/// Shows a part of the text.
pub(super) fn found(text: &str) -> String {
    format!("`{}`", Name(truncated(text, SHOWN_BYTES_MAX)))
}

pub(super) fn expected(schema: &TypeSchema, node: &Node) -> String {
    match node {
        Node::Bool => "true or false".into(),
        Node::F32 | Node::F64 => format!("{} (a number, nan, inf or -inf)", schema.show(node)),
        Node::Char => "a character such as 'x'".into(),
        Node::String => "a string such as \"x\"".into(),
        Node::Bytes => "bytes (a list of numbers, or a string)".into(),
        Node::Unit => "{}, the empty record".into(),
        // What stands alone is compared with the type inside.
        Node::Option(_) => "none or some(…)".into(),
        Node::Seq(of) => match schema.node(*of) {
            Node::U8 => expected(schema, &Node::Bytes),
            of => format!("a list of {} such as […, …]", schema.show_inside(of)),
        },
        Node::Tuple(types) => tuple(types.len()),
        Node::Map(..) => "a map such as {key: value}".into(),
        Node::Struct { fields, .. } => record(schema, node, fields),
        Node::Enum { .. } if sides(node).is_some() => "ok(…) or err(…)".into(),
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

pub(super) fn tuple(count: usize) -> String {
    format!("a tuple of {count} values, in parentheses")
}

/// Describes the fields of a struct, or of a variant of `node`.
pub(super) fn record(schema: &TypeSchema, node: &Node, fields: &[(String, u32)]) -> String {
    let name = match node {
        Node::Struct { name, .. } | Node::Enum { name, .. } => or(name, "a struct"),
        _ => "a struct",
    };
    let names = quoted(fields.iter().map(|(name, _)| name.as_str()));
    match are_flags(schema, fields) {
        true => format!("flags for {name} such as {{…, …}} (of {names})"),
        false => format!("a record for {name} such as {{name: value}} (with {names})"),
    }
}

/// Says how a variant is written that has several values.
pub(super) fn several(name: &str, kind: &Variant) -> String {
    match kind {
        Variant::Struct(_) => format!("the variant `{name}` has fields: write case({{name: value}})"),
        _ => format!("the variant `{name}` has several values: write case((…, …))"),
    }
}

pub(super) fn count(expected: usize, found: usize) -> String {
    match expected {
        0 => format!("expected no arguments, found {found}"),
        1 => format!("expected 1 argument, found {found}"),
        _ => format!("expected {expected} arguments, found {found}"),
    }
}

/// Returns whether the parser has refused the arguments since there are none.
pub(super) fn is_without_values(error: &ParserError, source: &str) -> bool {
    error.kind() == ParserErrorKind::EmptyTuple && error.span() == (0..source.len())
}

/// Says why a text is no WAVE.
pub(super) fn cause(error: &ParserError, source: &str) -> String {
    let end = source.len().saturating_sub(2);
    let start = error.span().start;
    let rest = source.get(start..end).filter(|rest| !rest.trim_ascii().is_empty());
    let at = rest.map_or("the end".into(), found);
    match error.kind() {
        ParserErrorKind::UnexpectedToken | ParserErrorKind::UnexpectedEnd if rest.is_none() => {
            "the arguments end too early: a value or a closing bracket is missing".into()
        }
        ParserErrorKind::InvalidToken if matches!(source.as_bytes().get(start), Some(b'"')) => {
            format!(
                "a string must end with a quotation mark, on the same line, and `\\` begins an escape: {at}"
            )
        }
        ParserErrorKind::InvalidToken if matches!(source.as_bytes().get(start), Some(b'\'')) => {
            format!("a single character stands in single quotes, and text in double ones: {at}")
        }
        ParserErrorKind::InvalidToken | ParserErrorKind::UnexpectedToken | ParserErrorKind::UnexpectedEnd => {
            format!("unexpected {at}: a comma, a bracket or quotation marks may be missing before it")
        }
        ParserErrorKind::TrailingCharacters => format!("the arguments have ended before {at}"),
        ParserErrorKind::EmptyTuple => "`()` is no value in WAVE: write {}".into(),
        ParserErrorKind::NestingTooDeep => {
            "the values are nested too deep for WAVE: give them as JSON".into()
        }
        ParserErrorKind::InvalidEscape => format!("this escape stands for no character: {at}"),
        kind => match error.detail() {
            Some(detail) => format!("{kind} ({}): {at}", Name(truncated(detail, SHOWN_BYTES_MAX))),
            None => format!("{kind}: {at}"),
        },
    }
}
