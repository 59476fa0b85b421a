//! Turns JSON into postcard.
//!
//! The text is parsed along the schema and encoded value by value: a tree of JSON values would take many
//! times the text's memory. A value that does not fit is refused where it begins, however long it is.

mod inside;
mod words;

use std::fmt::{self, Write as _};
use std::io;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};

use self::words::expected;
pub(crate) use self::words::{or, quoted};
use super::is_nullable;
use proto::description::TaskDescription;
use proto::limits::INPUT_BYTES_MAX;
use proto::schema::{Node, TypeSchema, Variant};
use proto::text::truncated;

/// An error shows this much of a value.
pub(crate) const SHOWN_BYTES_MAX: usize = 60;

/// The reason why a text cannot be the input.
#[derive(Debug)]
pub enum EncodeError {
    /// The text is not JSON, or reading it failed.
    Json(serde_json::Error),
    /// The text is JSON and does not fit the schema, or is meant as WAVE and is none, or does not fit.
    Mismatch(Mismatch),
}

impl EncodeError {
    /// Reading the text failed.
    pub fn io(error: io::Error) -> EncodeError {
        EncodeError::Json(serde_json::Error::io(error))
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EncodeError::Json(error) => write!(f, "it is not JSON: {error}"),
            EncodeError::Mismatch(mismatch) => mismatch.fmt(f),
        }
    }
}

/// A place at which a value does not fit its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The path begins at `$`, the whole input: `$.points[3].x`.
    pub path: String,
    /// The argument in which it lies, where the input was an array of them, or those of a call.
    pub argument: Option<String>,
    /// The words for what is wrong there.
    pub message: String,
    /// Says whether the value fits its type and has only become too long.
    pub is_too_long: bool,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}", self.path)?;
        if let Some(argument) = &self.argument {
            write!(f, " (argument `{argument}`)")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for Mismatch {}

/// Encodes the input of a task: one argument is the value itself; several are an array in
/// their order, or an object by their names; none are `null`, `[]` or `{}`.
pub fn encode_arguments(task: &TaskDescription, json: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let bytes_max = INPUT_BYTES_MAX.max(json.len());
    encode(&task.input, arguments(task), serde_json::Deserializer::from_slice(json), bytes_max)
}

/// Encodes the input of a task from a text that is read meanwhile.
pub fn encode_stream(
    task: &TaskDescription,
    json: impl io::BufRead,
    bytes_max: usize,
) -> Result<Vec<u8>, EncodeError> {
    let bytes_max = INPUT_BYTES_MAX.max(bytes_max);
    encode(&task.input, arguments(task), serde_json::Deserializer::from_reader(json), bytes_max)
}

fn arguments(task: &TaskDescription) -> Want<'_> {
    match (&task.params[..], task.input.root()) {
        ([], Node::Unit) => Want::Nothing,
        (names, Node::Tuple(types)) if names.len() > 1 && names.len() == types.len() => {
            Want::Arguments(names, types)
        }
        (_, root) => Want::Value(root),
    }
}

/// Returns the bytes that a JSON text stands for: a string's UTF-8, an array's numbers, or base64.
pub fn bytes_of(json: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let bytes_max = INPUT_BYTES_MAX.max(json.len());
    encode(&TypeSchema::raw_bytes(), Want::RawBytes, serde_json::Deserializer::from_slice(json), bytes_max)
}

/// Encodes one value of any type.
pub(crate) fn encode_value(
    schema: &TypeSchema,
    json: &[u8],
    bytes_max: usize,
) -> Result<Vec<u8>, EncodeError> {
    encode(schema, Want::Value(schema.root()), serde_json::Deserializer::from_slice(json), bytes_max)
}

fn encode<'de, R: serde_json::de::Read<'de>>(
    schema: &TypeSchema,
    want: Want<'_>,
    mut json: serde_json::Deserializer<R>,
    bytes_max: usize,
) -> Result<Vec<u8>, EncodeError> {
    let out = Vec::new();
    let path = Vec::new();
    let mut encoder = Encoder { schema, out, bytes_max, path, argument: None, mismatch: None };
    let read = Seed { encoder: &mut encoder, want }.deserialize(&mut json).and_then(|()| json.end());
    match (encoder.mismatch, read) {
        (Some(mismatch), _) => Err(EncodeError::Mismatch(mismatch)),
        (None, Err(error)) => Err(EncodeError::Json(error)),
        (None, Ok(())) => Ok(encoder.out),
    }
}

/// The postcard of bytes.
pub fn encode_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 10);
    push_bytes(&mut out, bytes);
    out
}

/// The postcard of a string.
pub fn encode_text(text: &str) -> Vec<u8> {
    encode_bytes(text.as_bytes())
}

/// A step from a value to one inside of it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step<'a> {
    Index(usize),
    Name(&'a str),
    /// A map's entry: this is where its key begins in the encoded output.
    Key(usize),
}

/// Shows a path. The output is that into which the keys of maps were written.
pub(crate) fn shown(path: &[Step<'_>], out: &[u8]) -> String {
    let mut text = String::from("$");
    for step in path {
        // Writing to a String cannot fail.
        let _ = match step {
            Step::Index(index) => write!(text, "[{index}]"),
            Step::Name(name) => words::push_key(&mut text, name),
            Step::Key(start) => words::push_key(&mut text, &text_at(out, *start)),
        };
    }
    text
}

/// The value that is to be read.
#[derive(Debug, Clone, Copy)]
enum Want<'a> {
    Value(&'a Node),
    /// A task's arguments, by place or by name.
    Arguments(&'a [String], &'a [u32]),
    /// There are no arguments.
    Nothing,
    /// Bytes without a length before them.
    RawBytes,
    Tuple(&'a [u32]),
    /// The content of a variant with fields.
    Fields(&'a str, &'a [(String, u32)]),
    /// The content of an `Option` that may be `null` itself: `{"Some": …}`.
    Some(&'a Node),
    /// A key and a value of a map whose keys are not strings.
    Pair(&'a Node, &'a Node),
}

struct Encoder<'a> {
    schema: &'a TypeSchema,
    out: Vec<u8>,
    /// `out` has no more bytes than this.
    bytes_max: usize,
    path: Vec<Step<'a>>,
    argument: Option<&'a str>,
    /// The mismatch is kept here, since the parser's error type can only carry text.
    mismatch: Option<Mismatch>,
}

impl<'a> Encoder<'a> {
    fn read<'e>(&'e mut self, want: Want<'a>) -> Seed<'e, 'a> {
        Seed { encoder: self, want }
    }

    fn node(&self, id: u32) -> &'a Node {
        self.schema.node(id)
    }

    fn mismatch<E: serde::de::Error>(&mut self, expected: &str, found: &str) -> E {
        self.wrong(format!("expected {expected}, found {found}"))
    }

    fn wrong<E: serde::de::Error>(&mut self, message: String) -> E {
        let path = shown(&self.path, &self.out);
        let argument = self.argument.map(String::from);
        self.mismatch = Some(Mismatch { path, argument, message, is_too_long: false });
        E::custom("")
    }

    /// Inserts a length before everything that was written from `start` on.
    fn insert_count(&mut self, start: usize, count: usize) {
        let mut prefix = Vec::with_capacity(10);
        push_varint(&mut prefix, count as u128);
        self.out.splice(start..start, prefix);
    }
}

/// Reads one value of the wanted type.
struct Seed<'e, 'a> {
    encoder: &'e mut Encoder<'a>,
    want: Want<'a>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        let Seed { encoder, want } = self;
        json.deserialize_any(Seed { encoder: &mut *encoder, want })?;
        let max = encoder.bytes_max;
        if encoder.out.len() > max {
            let error = encoder.wrong(format!("encoded, the input has more than {max} bytes"));
            encoder.mismatch.iter_mut().for_each(|mismatch| mismatch.is_too_long = true);
            return Err(error);
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&expected(self.encoder.schema, self.want))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        match self.want {
            Want::Nothing | Want::Value(Node::Unit) => Ok(()),
            Want::Value(Node::Option(_)) => {
                self.encoder.out.push(0);
                Ok(())
            }
            _ => self.mismatch("null"),
        }
    }

    fn visit_bool<E: serde::de::Error>(self, truth: bool) -> Result<(), E> {
        let seed = self.inside();
        match seed.want {
            Want::Value(Node::Bool) => {
                seed.encoder.out.push(u8::from(truth));
                Ok(())
            }
            _ => seed.mismatch(if truth { "true" } else { "false" }),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<(), E> {
        self.whole(number.into(), number as f64)
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        self.whole(number.into(), number as f64)
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        let seed = self.inside();
        let is_integer = matches!(seed.want, Want::Value(node) if integer(node).is_some());
        // JSON's reader takes -0 for a float.
        if number == 0.0 && number.is_sign_negative() && is_integer {
            return seed.whole(0, number);
        }
        let shown =
            || Number::from_f64(number).map_or_else(|| number.to_string(), |number| number.to_string());
        seed.float(number, shown)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.inside().text(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<(), A::Error> {
        let Seed { encoder, want } = self.inside();
        match want {
            Want::Arguments(names, types) => encoder.arguments(names, types, items),
            Want::Nothing => encoder.tuple(&[], items),
            Want::RawBytes | Want::Value(Node::Bytes) => encoder.bytes(want, items),
            Want::Value(Node::Seq(of)) => match encoder.node(*of) {
                Node::U8 => encoder.bytes(want, items),
                of => encoder.seq(Want::Value(of), items),
            },
            Want::Value(Node::Map(key, of)) if !matches!(encoder.node(*key), Node::String) => {
                let pair = Want::Pair(encoder.node(*key), encoder.node(*of));
                encoder.seq(pair, items)
            }
            Want::Value(Node::Tuple(types)) => encoder.tuple(types, items),
            Want::Tuple(types) => encoder.tuple(types, items),
            Want::Pair(key, of) => encoder.pair(key, of, items),
            Want::Value(_) | Want::Fields(..) | Want::Some(_) => Seed { encoder, want }.mismatch("an array"),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<(), A::Error> {
        let Seed { encoder, want } = self.inside();
        match want {
            Want::Arguments(names, types) => {
                let fields = names.iter().map(String::as_str).zip(types.iter().copied()).collect::<Vec<_>>();
                encoder.fields(&fields, entries, "argument")
            }
            Want::Nothing => encoder.fields(&[], entries, "argument"),
            Want::Value(Node::Struct { fields, .. }) => encoder.fields(&named(fields), entries, "field"),
            Want::Fields(_, fields) => encoder.fields(&named(fields), entries, "field"),
            Want::Value(Node::Enum { variants, .. }) => encoder.variant(want, variants, entries),
            Want::Value(Node::Map(key, of)) if matches!(encoder.node(*key), Node::String) => {
                let of = encoder.node(*of);
                encoder.map(of, entries)
            }
            Want::Some(of) => encoder.some(want, of, entries),
            Want::RawBytes | Want::Value(Node::Bytes) => encoder.base64(want, entries),
            Want::Value(Node::Seq(of)) if matches!(encoder.node(*of), Node::U8) => {
                encoder.base64(want, entries)
            }
            _ => {
                let found = first_key(entries)?;
                Seed { encoder, want }.mismatch(&found)
            }
        }
    }
}

fn named(fields: &[(String, u32)]) -> Vec<(&str, u32)> {
    fields.iter().map(|(name, id)| (name.as_str(), *id)).collect()
}

/// Describes an object for an error, by its first key.
fn first_key<'de, A: MapAccess<'de>>(mut entries: A) -> Result<String, A::Error> {
    Ok(match entries.next_key::<String>()? {
        None => "an empty object".into(),
        Some(key) => format!("an object with `{}`", truncated(&key, SHOWN_BYTES_MAX)),
    })
}

impl<'a> Seed<'_, 'a> {
    /// Any value but `null` is the content of all the `Option`s around it.
    fn inside(self) -> Self {
        let Seed { encoder, mut want } = self;
        while let Want::Value(Node::Option(of)) = want {
            encoder.out.push(1);
            let of = encoder.node(*of);
            want = if is_nullable(of) { Want::Some(of) } else { Want::Value(of) };
        }
        Seed { encoder, want }
    }

    fn mismatch<E: serde::de::Error>(self, found: &str) -> Result<(), E> {
        let expected = expected(self.encoder.schema, self.want);
        Err(self.encoder.mismatch(&expected, found))
    }

    fn whole<E: serde::de::Error>(self, number: i128, float: f64) -> Result<(), E> {
        let seed = self.inside();
        let out = &mut seed.encoder.out;
        match seed.want {
            Want::Value(node) if push_integer(out, node, number) => Ok(()),
            // By way of an f64 it would be rounded twice. Every integer of 64 bits is within an f32's range.
            Want::Value(Node::F32) => {
                out.extend((number as f32).to_le_bytes());
                Ok(())
            }
            Want::Value(Node::F64) => seed.float(float, || number.to_string()),
            _ => seed.mismatch(&number.to_string()),
        }
    }

    fn float<E: serde::de::Error>(self, number: f64, shown: impl FnOnce() -> String) -> Result<(), E> {
        match self.want {
            Want::Value(Node::F32) if number.is_finite() && !(number as f32).is_finite() => {
                Err(self.encoder.mismatch("f32", &shown()))
            }
            Want::Value(Node::F32) => {
                self.encoder.out.extend((number as f32).to_le_bytes());
                Ok(())
            }
            Want::Value(Node::F64) => {
                self.encoder.out.extend(number.to_le_bytes());
                Ok(())
            }
            _ => self.mismatch(&shown()),
        }
    }

    fn text<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        let shown = || format!("the string {}", Value::from(truncated(text, SHOWN_BYTES_MAX)));
        let schema = self.encoder.schema;
        let out = &mut self.encoder.out;
        match self.want {
            Want::RawBytes => out.extend_from_slice(text.as_bytes()),
            Want::Value(Node::String | Node::Bytes) => push_bytes(out, text.as_bytes()),
            Want::Value(Node::Char) if text.chars().nth(1).is_none() && !text.is_empty() => {
                push_bytes(out, text.as_bytes());
            }
            Want::Value(Node::Seq(of)) if matches!(schema.node(*of), Node::U8) => {
                push_bytes(out, text.as_bytes());
            }
            Want::Value(Node::F32 | Node::F64) => match text {
                "NaN" => return self.float(f64::NAN, shown),
                "inf" => return self.float(f64::INFINITY, shown),
                "-inf" => return self.float(f64::NEG_INFINITY, shown),
                _ => return self.mismatch(&shown()),
            },
            Want::Value(Node::I128) => match text.parse() {
                Ok(number) => push_varint(out, zigzag(number)),
                Err(_) => return self.mismatch(&shown()),
            },
            Want::Value(Node::U128) => match text.parse() {
                Ok(number) => push_varint(out, number),
                Err(_) => return self.mismatch(&shown()),
            },
            Want::Value(Node::Enum { variants, .. }) => {
                match variants.iter().position(|(variant, _)| variant == text) {
                    Some(index) if matches!(variants[index].1, Variant::Unit) => {
                        push_varint(out, index as u128);
                    }
                    Some(_) => {
                        let expected = format!("{{\"{text}\": …}}, since that variant has content");
                        return Err(self.encoder.mismatch(&expected, &shown()));
                    }
                    None => return self.mismatch(&shown()),
                }
            }
            _ => return self.mismatch(&shown()),
        }
        Ok(())
    }
}

/// Returns the smallest and the largest value of an integer's type, up to 64 bits.
pub(crate) fn integer(node: &Node) -> Option<(i128, i128)> {
    Some(match node {
        Node::I8 => (i8::MIN.into(), i8::MAX.into()),
        Node::U8 => (0, u8::MAX.into()),
        Node::I16 => (i16::MIN.into(), i16::MAX.into()),
        Node::I32 => (i32::MIN.into(), i32::MAX.into()),
        Node::I64 | Node::Isize => (i64::MIN.into(), i64::MAX.into()),
        Node::U16 => (0, u16::MAX.into()),
        Node::U32 => (0, u32::MAX.into()),
        Node::U64 | Node::Usize => (0, u64::MAX.into()),
        _ => return None,
    })
}

/// Reads a text that was written at `start`, with its length before it.
fn text_at(out: &[u8], start: usize) -> String {
    let (len, begin) = len_at(out, start);
    String::from_utf8_lossy(out.get(begin..begin + len).unwrap_or_default()).into_owned()
}

/// Reads a length that was written at `start`, and says where it ends.
fn len_at(out: &[u8], start: usize) -> (usize, usize) {
    let mut len = 0_usize;
    let mut at = start;
    for shift in (0..usize::BITS).step_by(7) {
        let byte = out.get(at).copied().unwrap_or_default();
        at += 1;
        len |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    (len, at)
}

pub(crate) fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    push_varint(out, bytes.len() as u128);
    out.extend_from_slice(bytes);
}

/// Writes an integer, and returns whether it is one of the type's values.
pub(crate) fn push_integer(out: &mut Vec<u8>, node: &Node, number: i128) -> bool {
    match (node, integer(node)) {
        (_, Some((min, max))) if !(min..=max).contains(&number) => return false,
        (Node::I8 | Node::U8, _) => out.push(number as u8),
        (Node::U16 | Node::U32 | Node::U64 | Node::Usize, _) => push_varint(out, number as u128),
        (Node::U128, _) if number >= 0 => push_varint(out, number as u128),
        (_, Some(_)) | (Node::I128, _) => push_varint(out, zigzag(number)),
        _ => return false,
    }
    true
}

/// Small magnitudes to small numbers, whatever their sign. Independent of the width.
fn zigzag(number: i128) -> u128 {
    ((number << 1) ^ (number >> 127)) as u128
}

pub(crate) fn push_varint(out: &mut Vec<u8>, mut number: u128) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
