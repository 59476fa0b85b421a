//! Values, made at random, as postcard and as wasmtime's `Val`.

use wasmtime::component::Val;

use super::types::Type;
use crate::random::Random;

/// Values in one value, after which lists and strings in it are empty.
const PARTS_MAX: usize = 600;

/// Numbers at the edges of what a varint, an encoding or a type has room for.
const EDGES: [u64; 16] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x3fff,
    0x4000,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 63,
    u64::MAX,
];

const CHARS: [char; 24] = [
    '\0',
    '\t',
    '\n',
    '\r',
    '"',
    '\\',
    '/',
    'a',
    '\x1b',
    '\x7f',
    '\u{80}',
    '\u{a0}',
    '\u{ff}',
    '\u{100}',
    '\u{7ff}',
    '\u{800}',
    '\u{200b}',
    '\u{202e}',
    '\u{d7ff}',
    '\u{e000}',
    '\u{feff}',
    '\u{ffff}',
    '\u{10000}',
    '\u{10ffff}',
];

/// A value of a type. It is complete only together with that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    /// The bits of floats, since not all NaNs are the same.
    F32(u32),
    F64(u64),
    Char(char),
    String(String),
    List(Vec<Value>),
    /// The parts of a record or a tuple.
    Parts(Vec<Value>),
    /// The case of a variant, enum, option or result, and what it has with it.
    Case(usize, Option<Box<Value>>),
    Flags(u32),
}

impl Value {
    pub(super) fn random(ty: &Type, random: &mut Random) -> Value {
        Maker { random, parts_left: PARTS_MAX }.value(ty)
    }

    /// The same value, but each NaN in it is the one that JSON stands for.
    pub(super) fn with_plain_nans(&self) -> Value {
        let all = |values: &[Value]| values.iter().map(Value::with_plain_nans).collect();
        match self {
            Value::F32(bits) if f32::from_bits(*bits).is_nan() => Value::F32(f32::NAN.to_bits()),
            Value::F64(bits) if f64::from_bits(*bits).is_nan() => Value::F64(f64::NAN.to_bits()),
            Value::List(items) => Value::List(all(items)),
            Value::Parts(parts) => Value::Parts(all(parts)),
            Value::Case(case, payload) => {
                Value::Case(*case, payload.as_ref().map(|payload| Box::new(payload.with_plain_nans())))
            }
            other => other.clone(),
        }
    }

    /// Appends the value as postcard, by the schema that the compiler makes of such a type.
    pub(super) fn push_postcard(&self, ty: &Type, out: &mut Vec<u8>) {
        match (ty, self) {
            (_, Value::Bool(is_set)) => out.push((*is_set).into()),
            (Type::Signed(8), Value::Signed(number)) => out.push(*number as u8),
            (Type::Unsigned(8), Value::Unsigned(number)) => out.push(*number as u8),
            // Small magnitudes become small numbers.
            (_, Value::Signed(number)) => push_varint(out, ((number << 1) ^ (number >> 63)).cast_unsigned()),
            (_, Value::Unsigned(number)) => push_varint(out, *number),
            (_, Value::F32(bits)) => out.extend(bits.to_le_bytes()),
            (_, Value::F64(bits)) => out.extend(bits.to_le_bytes()),
            (_, Value::Char(char)) => push_text(out, char.encode_utf8(&mut [0; 4])),
            (_, Value::String(text)) => push_text(out, text),
            (Type::List(of), Value::List(items)) => {
                push_varint(out, items.len() as u64);
                items.iter().for_each(|item| item.push_postcard(of, out));
            }
            (_, Value::Parts(parts)) => {
                parts.iter().zip(ty.parts()).for_each(|(part, ty)| part.push_postcard(ty, out));
            }
            (_, Value::Case(case, payload)) => {
                push_varint(out, *case as u64);
                if let (Some(ty), Some(payload)) = (ty.payload(*case), payload) {
                    payload.push_postcard(ty, out);
                }
            }
            (Type::Flags { flags, .. }, Value::Flags(bits)) => {
                out.extend((0..flags.len()).map(|flag| (bits >> flag & 1) as u8));
            }
            (ty, value) => unreachable!("{value:?} is no value of {ty}"),
        }
    }

    /// The value as wasmtime has it.
    pub(super) fn to_val(&self, ty: &Type) -> Val {
        match (ty, self) {
            (_, Value::Bool(is_set)) => Val::Bool(*is_set),
            (Type::Signed(bits), Value::Signed(number)) => match bits {
                8 => Val::S8(*number as i8),
                16 => Val::S16(*number as i16),
                32 => Val::S32(*number as i32),
                _ => Val::S64(*number),
            },
            (Type::Unsigned(bits), Value::Unsigned(number)) => match bits {
                8 => Val::U8(*number as u8),
                16 => Val::U16(*number as u16),
                32 => Val::U32(*number as u32),
                _ => Val::U64(*number),
            },
            (_, Value::F32(bits)) => Val::Float32(f32::from_bits(*bits)),
            (_, Value::F64(bits)) => Val::Float64(f64::from_bits(*bits)),
            (_, Value::Char(char)) => Val::Char(*char),
            (_, Value::String(text)) => Val::String(text.clone()),
            (Type::List(of), Value::List(items)) => {
                Val::List(items.iter().map(|item| item.to_val(of)).collect())
            }
            (Type::Record { fields, .. }, Value::Parts(parts)) => {
                let fields = fields.iter().zip(parts);
                Val::Record(fields.map(|((name, ty), part)| (name.clone(), part.to_val(ty))).collect())
            }
            (Type::Tuple(types), Value::Parts(parts)) => {
                Val::Tuple(types.iter().zip(parts).map(|(ty, part)| part.to_val(ty)).collect())
            }
            (Type::Flags { flags, .. }, Value::Flags(bits)) => {
                let set = flags.iter().enumerate().filter(|(index, _)| bits >> index & 1 == 1);
                Val::Flags(set.map(|(_, name)| name.clone()).collect())
            }
            (_, Value::Case(case, payload)) => {
                let payload = ty.payload(*case).zip(payload.as_ref());
                let payload = payload.map(|(ty, payload)| Box::new(payload.to_val(ty)));
                match ty {
                    Type::Variant { cases, .. } => Val::Variant(cases[*case].0.clone(), payload),
                    Type::Enum { cases, .. } => Val::Enum(cases[*case].clone()),
                    Type::Option(_) => Val::Option(payload),
                    _ => Val::Result(if *case == 0 { Ok(payload) } else { Err(payload) }),
                }
            }
            (ty, value) => unreachable!("{value:?} is no value of {ty}"),
        }
    }

    /// Returns the value that wasmtime has; `None` if it is none of this type.
    pub(super) fn of_val(val: &Val, ty: &Type) -> Option<Value> {
        let payload = |case, payload: &Option<Box<Val>>| {
            let payload = match (ty.payload(case), payload) {
                (Some(ty), Some(payload)) => Some(Box::new(Value::of_val(payload, ty)?)),
                (None, None) => None,
                _ => return None,
            };
            Some(Value::Case(case, payload))
        };
        Some(match (ty, val) {
            (Type::Bool, Val::Bool(is_set)) => Value::Bool(*is_set),
            (Type::Signed(8), Val::S8(number)) => Value::Signed((*number).into()),
            (Type::Signed(16), Val::S16(number)) => Value::Signed((*number).into()),
            (Type::Signed(32), Val::S32(number)) => Value::Signed((*number).into()),
            (Type::Signed(64), Val::S64(number)) => Value::Signed(*number),
            (Type::Unsigned(8), Val::U8(number)) => Value::Unsigned((*number).into()),
            (Type::Unsigned(16), Val::U16(number)) => Value::Unsigned((*number).into()),
            (Type::Unsigned(32), Val::U32(number)) => Value::Unsigned((*number).into()),
            (Type::Unsigned(64), Val::U64(number)) => Value::Unsigned(*number),
            (Type::F32, Val::Float32(number)) => Value::F32(number.to_bits()),
            (Type::F64, Val::Float64(number)) => Value::F64(number.to_bits()),
            (Type::Char, Val::Char(char)) => Value::Char(*char),
            (Type::String, Val::String(text)) => Value::String(text.clone()),
            (Type::List(of), Val::List(items)) => {
                Value::List(items.iter().map(|item| Value::of_val(item, of)).collect::<Option<_>>()?)
            }
            (Type::Record { fields, .. }, Val::Record(parts)) => {
                let same_names = fields.iter().map(|(name, _)| name).eq(parts.iter().map(|(name, _)| name));
                let parts = fields.iter().zip(parts).map(|((_, ty), (_, part))| Value::of_val(part, ty));
                Value::Parts(parts.collect::<Option<_>>().filter(|_| same_names)?)
            }
            (Type::Tuple(types), Val::Tuple(parts)) if types.len() == parts.len() => {
                let parts = types.iter().zip(parts).map(|(ty, part)| Value::of_val(part, ty));
                Value::Parts(parts.collect::<Option<_>>()?)
            }
            (Type::Variant { cases, .. }, Val::Variant(name, of)) => {
                payload(cases.iter().position(|(case, _)| case == name)?, of)?
            }
            (Type::Enum { cases, .. }, Val::Enum(name)) => {
                payload(cases.iter().position(|case| case == name)?, &None)?
            }
            (Type::Option(_), Val::Option(of)) => payload(of.is_some().into(), of)?,
            (Type::Result(..), Val::Result(Ok(of))) => payload(0, of)?,
            (Type::Result(..), Val::Result(Err(of))) => payload(1, of)?,
            (Type::Flags { flags, .. }, Val::Flags(set)) => {
                let bits = set.iter().map(|name| Some(1 << flags.iter().position(|flag| flag == name)?));
                Value::Flags(bits.collect::<Option<Vec<u32>>>()?.into_iter().fold(0, |all, bit| all | bit))
            }
            _ => return None,
        })
    }
}

fn push_varint(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    push_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

struct Maker<'a> {
    random: &'a mut Random,
    parts_left: usize,
}

impl Maker<'_> {
    fn value(&mut self, ty: &Type) -> Value {
        self.parts_left = self.parts_left.saturating_sub(1);
        match ty {
            Type::Bool => Value::Bool(self.random.percent(50)),
            Type::Signed(bits) => Value::Signed(self.bits().cast_signed() << (64 - bits) >> (64 - bits)),
            Type::Unsigned(bits) => Value::Unsigned(self.bits() << (64 - bits) >> (64 - bits)),
            Type::F32 => Value::F32(self.float32()),
            Type::F64 => Value::F64(self.float64()),
            Type::Char => Value::Char(self.char(4)),
            Type::String => Value::String(self.text()),
            Type::List(of) => Value::List(self.list(of)),
            Type::Record { .. } | Type::Tuple(_) => {
                Value::Parts(ty.parts().into_iter().map(|ty| self.value(ty)).collect())
            }
            Type::Variant { .. } | Type::Enum { .. } | Type::Option(_) | Type::Result(..) => {
                let count = ty.case_count();
                let case = match self.random.percent(15) {
                    true => [0, 127, 128, 255, 256, count - 1][self.random.below(6) as usize].min(count - 1),
                    false => self.random.below(count as u64) as usize,
                };
                Value::Case(case, ty.payload(case).map(|ty| Box::new(self.value(ty))))
            }
            Type::Flags { flags, .. } => {
                let all = u32::MAX >> (32 - flags.len());
                Value::Flags(all & [0, u32::MAX, self.random.number() as u32][self.random.below(3) as usize])
            }
        }
    }

    /// The bits of an integer: an edge, a power of two or its neighbour, or any, of any length.
    fn bits(&mut self) -> u64 {
        let number = self.random.number();
        match self.random.below(8) {
            0 | 1 => EDGES[number as usize % EDGES.len()],
            2 => !EDGES[number as usize % EDGES.len()],
            3 => (1 << (number % 64)) - 1,
            4 => 1 << (number % 64),
            5 => number,
            _ => number >> (number % 64),
        }
    }

    fn float32(&mut self) -> u32 {
        let number = self.random.number();
        let floats = [
            0.0,
            f32::INFINITY,
            f32::NAN,
            f32::MAX,
            f32::MIN_POSITIVE,
            f32::EPSILON,
            1.0,
            0.1,
            16_777_216.0,
            f32::from_bits(1),
            f32::from_bits(0x007f_ffff),
            // These are NaNs that are not the usual one.
            f32::from_bits(0x7f80_0001),
            f32::from_bits(0x7fff_ffff),
        ];
        let sign = (number as u32) & 0x8000_0000;
        match self.random.below(4) {
            0 => floats[number as usize % floats.len()].to_bits() | sign,
            1 => (self.bits() as i64 as f32).to_bits(),
            2 => (self.bits() as i16 as f32 / 100.0).to_bits(),
            _ => number as u32,
        }
    }

    fn float64(&mut self) -> u64 {
        let number = self.random.number();
        let floats = [
            0.0,
            f64::INFINITY,
            f64::NAN,
            f64::MAX,
            f64::MIN_POSITIVE,
            f64::EPSILON,
            1.0,
            0.1,
            9_007_199_254_740_992.0,
            f64::from_bits(1),
            f64::from_bits(0x000f_ffff_ffff_ffff),
            // These are NaNs that are not the usual one.
            f64::from_bits(0x7ff0_0000_0000_0001),
            f64::from_bits(0x7fff_ffff_ffff_ffff),
        ];
        let sign = number & 1 << 63;
        match self.random.below(4) {
            0 => floats[number as usize % floats.len()].to_bits() | sign,
            1 => (self.bits() as i64 as f64).to_bits(),
            2 => (self.bits() as i32 as f64 / 100.0).to_bits(),
            _ => number,
        }
    }

    /// A character that takes at most so many bytes: of 1 they are ASCII, of 4 they are of all planes. (Latin-1 needs two
    /// of some of its characters.)
    fn char(&mut self, bytes: usize) -> char {
        loop {
            let number = self.random.number();
            let char = match self.random.below(3) {
                0 => Some(CHARS[number as usize % CHARS.len()]),
                1 => char::from_u32(number as u32 % 0x80),
                _ => char::from_u32(number as u32 % [0x80, 0x800, 0x1_0000, 0x11_0000][bytes - 1]),
            };
            if let Some(char) = char
                && char.len_utf8() <= bytes
            {
                return char;
            }
        }
    }

    /// Of a component with two encodings, a text is in Latin-1 until a character comes that is not, wherever that is.
    fn text(&mut self) -> String {
        let len = match self.random.below(10) {
            _ if self.parts_left == 0 => 0,
            0 | 1 => 0,
            2..7 => self.random.below(8),
            7 | 8 => self.random.below(40),
            _ => 110 + self.random.below(200),
        };
        self.parts_left = self.parts_left.saturating_sub(len as usize / 8);
        let kind = self.random.below(6);
        let wide_at = self.random.below(len.max(1));
        let chars = (0..len).map(|index| match kind {
            0 => self.char(1),
            1 => char::from(self.random.number() as u8),
            2 if index != wide_at => char::from(self.random.number() as u8),
            3 => self.char(2),
            4 => self.char(3),
            _ => self.char(4),
        });
        chars.collect()
    }

    fn list(&mut self, of: &Type) -> Vec<Value> {
        let is_scalar = of.parts().is_empty() && of.case_count() == 0 && !matches!(of, Type::List(_));
        let len = match self.random.below(20) {
            0..4 => 0,
            4..13 => 1 + self.random.below(3),
            13..19 => self.random.below(16),
            _ if is_scalar => 120 + self.random.below(200),
            _ => 120 + self.random.below(20),
        };
        let mut items = Vec::new();
        while (items.len() as u64) < len && self.parts_left > 0 {
            items.push(self.value(of));
        }
        items
    }
}
