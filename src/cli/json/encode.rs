//! JSON in, postcard out.

use std::fmt::{self, Write as _};

use serde_json::{Map, Value};

use super::base64;
use crate::module::TaskDescription;
use crate::schema::{Node, Schema, Variant};
use crate::text::truncated;

/// What an error shows of a value.
const SHOWN_BYTES_MAX: usize = 60;

/// Where a value does not fit its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// From `$`, the whole input: `$.points[3].x`.
    pub(crate) path: String,
    /// The argument in which it lies, where the input was an array of them.
    pub(crate) argument: Option<String>,
    /// What is wrong there.
    pub(crate) message: String,
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
pub(crate) fn encode_arguments(task: &TaskDescription, value: &Value) -> Result<Vec<u8>, Mismatch> {
    let mut encoder = Encoder::new(&task.input);
    match (&task.params[..], task.input.root()) {
        ([], Node::Unit) if is_empty(value) => {}
        (names, Node::Tuple(types)) if names.len() > 1 && names.len() == types.len() => match value {
            Value::Object(object) => {
                let fields: Vec<_> = names.iter().cloned().zip(types.iter().copied()).collect();
                encoder.fields(&fields, object, "argument")?;
            }
            Value::Array(items) if items.len() == types.len() => {
                for (index, (id, item)) in types.iter().zip(items).enumerate() {
                    let argument = |at: Mismatch| Mismatch { argument: Some(names[index].clone()), ..at };
                    encoder
                        .at(Step::Index(index), |e| e.value(e.schema.node(*id), item))
                        .map_err(argument)?;
                }
            }
            _ => {
                let expected = format!("an array of {} arguments, or an object by their names", names.len());
                return Err(encoder.mismatch(&expected, value));
            }
        },
        (_, root) => encoder.value(root, value)?,
    }
    Ok(encoder.out)
}

/// The postcard of bytes.
pub(crate) fn encode_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 10);
    push_varint(&mut out, bytes.len() as u128);
    out.extend_from_slice(bytes);
    out
}

/// The postcard of a string.
pub(crate) fn encode_text(text: &str) -> Vec<u8> {
    encode_bytes(text.as_bytes())
}

/// The bytes that a JSON value stands for: a string's UTF-8, an array's numbers, base64.
pub(crate) fn bytes_of(value: &Value) -> Result<Vec<u8>, Mismatch> {
    Encoder::new(&Schema::raw_bytes()).bytes(value)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// A step from a value to one inside of it.
#[derive(Debug, Clone)]
enum Step {
    Index(usize),
    Key(String),
}

struct Encoder<'a> {
    schema: &'a Schema,
    out: Vec<u8>,
    path: Vec<Step>,
}

impl<'a> Encoder<'a> {
    fn new(schema: &'a Schema) -> Self {
        Encoder { schema, out: Vec::new(), path: Vec::new() }
    }

    fn at<T>(
        &mut self,
        step: Step,
        inner: impl FnOnce(&mut Self) -> Result<T, Mismatch>,
    ) -> Result<T, Mismatch> {
        self.path.push(step);
        let done = inner(self);
        self.path.pop();
        done
    }

    fn value(&mut self, node: &Node, value: &Value) -> Result<(), Mismatch> {
        match node {
            Node::Bool => match value {
                Value::Bool(truth) => self.out.push(u8::from(*truth)),
                _ => return Err(self.mismatch("bool", value)),
            },
            Node::I8 => self.small(value, "i8", i8::MIN.into(), i8::MAX.into())?,
            Node::U8 => self.small(value, "u8", 0, u8::MAX.into())?,
            Node::I16 => self.signed(value, "i16", i16::MIN.into(), i16::MAX.into())?,
            Node::I32 => self.signed(value, "i32", i32::MIN.into(), i32::MAX.into())?,
            Node::I64 => self.signed(value, "i64", i64::MIN.into(), i64::MAX.into())?,
            Node::Isize => self.signed(value, "isize", i64::MIN.into(), i64::MAX.into())?,
            Node::I128 => {
                let number = self.integer(value, "i128", |text| text.parse().ok())?;
                push_varint(&mut self.out, zigzag(number));
            }
            Node::U16 => self.unsigned(value, "u16", u16::MAX.into())?,
            Node::U32 => self.unsigned(value, "u32", u32::MAX.into())?,
            Node::U64 => self.unsigned(value, "u64", u64::MAX.into())?,
            Node::Usize => self.unsigned(value, "usize", u64::MAX.into())?,
            Node::U128 => {
                let number: u128 = self.integer(value, "u128", |text| text.parse().ok())?;
                push_varint(&mut self.out, number);
            }
            Node::F32 => {
                let number = self.float(value, "f32")?;
                if number.is_finite() && !(number as f32).is_finite() {
                    return Err(self.mismatch("f32", value));
                }
                self.out.extend((number as f32).to_le_bytes());
            }
            Node::F64 => {
                let number = self.float(value, "f64")?;
                self.out.extend(number.to_le_bytes());
            }
            Node::Char => match value {
                Value::String(text) if text.chars().count() == 1 => self.out.extend(encode_text(text)),
                _ => return Err(self.mismatch("a string of one character", value)),
            },
            Node::String => match value {
                Value::String(text) => self.out.extend(encode_text(text)),
                _ => return Err(self.mismatch("a string", value)),
            },
            Node::Bytes => {
                let bytes = self.bytes(value)?;
                self.out.extend(encode_bytes(&bytes));
            }
            Node::Unit => match value {
                Value::Null => {}
                _ => return Err(self.mismatch("null", value)),
            },
            Node::Option(_) if value.is_null() => self.out.push(0),
            Node::Option(of) => {
                self.out.push(1);
                self.value(self.schema.node(*of), value)?;
            }
            Node::Seq(of) => self.seq(self.schema.node(*of), value)?,
            Node::Tuple(types) => self.tuple(types, value)?,
            Node::Map(key, of) => self.map(self.schema.node(*key), self.schema.node(*of), value)?,
            Node::Struct { name, fields } => match value {
                Value::Object(object) => self.fields(fields, object, "field")?,
                _ => return Err(self.mismatch(&format!("an object for {}", or(name, "a struct")), value)),
            },
            Node::Enum { name, variants } => self.variant(name, variants, value)?,
        }
        Ok(())
    }

    /// One byte on the wire, signed or not.
    fn small(&mut self, value: &Value, ty: &str, min: i128, max: i128) -> Result<(), Mismatch> {
        let number = self.between(value, ty, min, max)?;
        self.out.push(number as u8);
        Ok(())
    }

    fn signed(&mut self, value: &Value, ty: &str, min: i128, max: i128) -> Result<(), Mismatch> {
        let number = self.between(value, ty, min, max)?;
        push_varint(&mut self.out, zigzag(number));
        Ok(())
    }

    fn unsigned(&mut self, value: &Value, ty: &str, max: i128) -> Result<(), Mismatch> {
        let number = self.between(value, ty, 0, max)?;
        push_varint(&mut self.out, number as u128);
        Ok(())
    }

    fn between(&self, value: &Value, ty: &str, min: i128, max: i128) -> Result<i128, Mismatch> {
        match whole(value) {
            Some(number) if (min..=max).contains(&number) => Ok(number),
            _ => Err(self.mismatch(&format!("{ty} ({min} to {max})"), value)),
        }
    }

    /// 128 bits: a number as far as JSON's reader goes, which is 64 bits, or a string.
    fn integer<T: TryFrom<i128>>(
        &self,
        value: &Value,
        ty: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, Mismatch> {
        let number = match value {
            Value::String(text) => parse(text),
            other => whole(other).and_then(|number| T::try_from(number).ok()),
        };
        number.ok_or_else(|| self.mismatch(&format!("{ty} (beyond 64 bits as a string)"), value))
    }

    fn float(&self, value: &Value, ty: &str) -> Result<f64, Mismatch> {
        let number = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => match text.as_str() {
                "NaN" => Some(f64::NAN),
                "inf" => Some(f64::INFINITY),
                "-inf" => Some(f64::NEG_INFINITY),
                _ => None,
            },
            _ => None,
        };
        number.ok_or_else(|| self.mismatch(&format!("{ty} (a number, \"NaN\", \"inf\" or \"-inf\")"), value))
    }

    fn bytes(&mut self, value: &Value) -> Result<Vec<u8>, Mismatch> {
        const EXPECTED: &str = "bytes (a string, an array of numbers, or {\"base64\": …})";
        match value {
            Value::String(text) => Ok(text.clone().into_bytes()),
            Value::Array(items) => {
                let mut bytes = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    let byte = self.at(Step::Index(index), |e| e.between(item, "u8", 0, u8::MAX.into()))?;
                    bytes.push(byte as u8);
                }
                Ok(bytes)
            }
            Value::Object(object) if object.len() == 1 => match object.get("base64") {
                Some(Value::String(text)) => match base64::decode(text) {
                    Some(bytes) => Ok(bytes),
                    None => {
                        let key = Step::Key("base64".into());
                        self.at(key, |e| {
                            Err(e.mismatch("base64 (standard alphabet, padded)", &object["base64"]))
                        })
                    }
                },
                _ => Err(self.mismatch(EXPECTED, value)),
            },
            _ => Err(self.mismatch(EXPECTED, value)),
        }
    }

    fn seq(&mut self, of: &Node, value: &Value) -> Result<(), Mismatch> {
        if matches!(of, Node::U8) {
            let bytes = self.bytes(value)?;
            self.out.extend(encode_bytes(&bytes));
            return Ok(());
        }
        let Value::Array(items) = value else {
            let expected = format!("an array of {}", self.schema.show_inside(of));
            return Err(self.mismatch(&expected, value));
        };
        push_varint(&mut self.out, items.len() as u128);
        for (index, item) in items.iter().enumerate() {
            self.at(Step::Index(index), |e| e.value(of, item))?;
        }
        Ok(())
    }

    fn tuple(&mut self, types: &[u32], value: &Value) -> Result<(), Mismatch> {
        let Value::Array(items) = value else {
            return Err(self.mismatch(&format!("an array of {} values", types.len()), value));
        };
        if items.len() != types.len() {
            let found = format!("expected {} values, found {}", types.len(), items.len());
            return Err(self.wrong(found));
        }
        for (index, (id, item)) in types.iter().zip(items).enumerate() {
            self.at(Step::Index(index), |e| e.value(e.schema.node(*id), item))?;
        }
        Ok(())
    }

    fn map(&mut self, key: &Node, of: &Node, value: &Value) -> Result<(), Mismatch> {
        match (key, value) {
            (Node::String, Value::Object(object)) => {
                push_varint(&mut self.out, object.len() as u128);
                for (name, item) in object {
                    self.out.extend(encode_text(name));
                    self.at(Step::Key(name.clone()), |e| e.value(of, item))?;
                }
                Ok(())
            }
            (Node::String, _) => Err(self.mismatch("an object", value)),
            (_, Value::Array(pairs)) => {
                push_varint(&mut self.out, pairs.len() as u128);
                for (index, pair) in pairs.iter().enumerate() {
                    self.at(Step::Index(index), |e| match pair.as_array().map(Vec::as_slice) {
                        Some([left, right]) => {
                            e.at(Step::Index(0), |e| e.value(key, left))?;
                            e.at(Step::Index(1), |e| e.value(of, right))
                        }
                        _ => Err(e.mismatch("a pair [key, value]", pair)),
                    })?;
                }
                Ok(())
            }
            _ => Err(self.mismatch("an array of pairs [key, value]", value)),
        }
    }

    /// Fields of a struct, or arguments by name.
    fn fields(
        &mut self,
        fields: &[(String, u32)],
        object: &Map<String, Value>,
        what: &str,
    ) -> Result<(), Mismatch> {
        if let Some(unknown) = object.keys().find(|key| !fields.iter().any(|(name, _)| name == *key)) {
            let known: Vec<_> = fields.iter().map(|(name, _)| format!("`{name}`")).collect();
            let known = if known.is_empty() { "none".to_string() } else { known.join(", ") };
            let unknown = truncated(unknown, SHOWN_BYTES_MAX);
            return Err(self.wrong(format!("unknown {what} `{unknown}`; there is {known}")));
        }
        for (name, id) in fields {
            let node = self.schema.node(*id);
            match object.get(name) {
                Some(value) => self.at(Step::Key(name.clone()), |e| e.value(node, value))?,
                None if matches!(node, Node::Option(_)) => self.out.push(0),
                None => {
                    let ty = self.schema.show_inside(node);
                    return Err(self.wrong(format!("missing {what} `{name}: {ty}`")));
                }
            }
        }
        Ok(())
    }

    fn variant(&mut self, name: &str, variants: &[(String, Variant)], value: &Value) -> Result<(), Mismatch> {
        let (chosen, content) = match value {
            Value::String(chosen) => (chosen, None),
            Value::Object(object) => match object.iter().next() {
                Some((chosen, content)) if object.len() == 1 => (chosen, Some(content)),
                _ => return Err(self.mismatch("an object with one key, the variant", value)),
            },
            _ => return Err(self.mismatch(&one_of(name, variants), value)),
        };
        let Some(index) = variants.iter().position(|(variant, _)| variant == chosen) else {
            return Err(self.mismatch(&one_of(name, variants), value));
        };
        push_varint(&mut self.out, index as u128);
        let kind = &variants[index].1;
        let Some(content) = content else {
            return match kind {
                Variant::Unit => Ok(()),
                _ => {
                    Err(self.mismatch(&format!("{{\"{chosen}\": …}}, since that variant has content"), value))
                }
            };
        };
        self.at(Step::Key(chosen.clone()), |e| match kind {
            Variant::Unit => e.value(&Node::Unit, content),
            Variant::Newtype(id) => e.value(e.schema.node(*id), content),
            Variant::Tuple(types) => e.tuple(types, content),
            Variant::Struct(fields) => match content {
                Value::Object(object) => e.fields(fields, object, "field"),
                _ => Err(e.mismatch(&format!("an object for the variant {chosen}"), content)),
            },
        })
    }

    fn mismatch(&self, expected: &str, found: &Value) -> Mismatch {
        self.wrong(format!("expected {expected}, found {}", show(found)))
    }

    fn wrong(&self, message: String) -> Mismatch {
        let mut path = String::from("$");
        for step in &self.path {
            // Writing to a String cannot fail.
            let _ = match step {
                Step::Index(index) => write!(path, "[{index}]"),
                Step::Key(key) if is_identifier(key) => write!(path, ".{key}"),
                Step::Key(key) => write!(path, "[{}]", Value::from(truncated(key, SHOWN_BYTES_MAX))),
            };
        }
        Mismatch { path, argument: None, message }
    }
}

fn is_identifier(key: &str) -> bool {
    key.len() <= SHOWN_BYTES_MAX
        && key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn or<'a>(name: &'a str, otherwise: &'a str) -> &'a str {
    if name.is_empty() { otherwise } else { name }
}

fn one_of(name: &str, variants: &[(String, Variant)]) -> String {
    let names: Vec<_> = variants.iter().map(|(variant, _)| format!("`{variant}`")).collect();
    format!("a variant of {} ({})", or(name, "an enum"), names.join(", "))
}

/// A value for an error: its kind, and as much of it as is of use.
fn show(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("the string {}", Value::from(truncated(text, SHOWN_BYTES_MAX))),
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Object(object) => {
            let keys: Vec<_> = object.keys().map(|key| format!("`{key}`")).collect();
            match keys.len() {
                0 => "an empty object".into(),
                _ => format!("an object with {}", truncated(&keys.join(", "), SHOWN_BYTES_MAX)),
            }
        }
    }
}

/// A number without a fraction. `1.0` is none: JSON's reader takes it for a float.
fn whole(value: &Value) -> Option<i128> {
    let Value::Number(number) = value else { return None };
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

/// Small magnitudes to small numbers, whatever their sign. Independent of the width.
fn zigzag(number: i128) -> u128 {
    ((number << 1) ^ (number >> 127)) as u128
}

fn push_varint(out: &mut Vec<u8>, mut number: u128) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
