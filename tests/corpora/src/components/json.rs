//! Values as JSON: in the one form in which the pool's command prints them, and in any form in which it reads them.

use super::types::Type;
use super::value::Value;
use crate::random::Random;

/// The text of a value as it is printed.
pub(super) fn printed(value: &Value, ty: &Type) -> String {
    let mut writer = Writer { out: String::new(), random: None };
    writer.value(value, ty);
    writer.out
}

/// A text of a value as somebody may have typed it.
pub(super) fn typed(value: &Value, ty: &Type, random: &mut Random) -> String {
    let mut writer = Writer { out: String::new(), random: Some(random) };
    writer.gap();
    writer.value(value, ty);
    writer.gap();
    writer.out
}

struct Writer<'a> {
    out: String,
    /// Decides where there is more than one form. Without it, it is the printed one.
    random: Option<&'a mut Random>,
}

impl Writer<'_> {
    /// True in so many of a hundred cases, and never for what is printed.
    fn differs(&mut self, percent: u64) -> bool {
        self.random.as_mut().is_some_and(|random| random.percent(percent))
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random.as_mut().map_or(0, |random| random.below(bound as u64) as usize)
    }

    fn gap(&mut self) {
        if self.differs(4) {
            let gap = [" ", "\n", "\t ", "\r\n"][self.below(4)];
            self.out.push_str(gap);
        }
    }

    fn put(&mut self, text: &str) {
        self.gap();
        self.out.push_str(text);
        self.gap();
    }

    fn value(&mut self, value: &Value, ty: &Type) {
        match (ty, value) {
            (_, Value::Bool(is_set)) => self.out.push_str(if *is_set { "true" } else { "false" }),
            (_, Value::Signed(number)) => self.out.push_str(&number.to_string()),
            (_, Value::Unsigned(number)) => self.out.push_str(&number.to_string()),
            (_, Value::F32(bits)) => self.float32(f32::from_bits(*bits)),
            (_, Value::F64(bits)) => self.float64(f64::from_bits(*bits)),
            (_, Value::Char(char)) => self.text(char.encode_utf8(&mut [0; 4])),
            (_, Value::String(text)) => self.text(text),
            (Type::List(of), Value::List(items)) => match **of {
                Type::Unsigned(8) => self.bytes(items),
                _ => self.array(items.iter().map(|item| (item, &**of))),
            },
            (Type::Record { fields, .. }, Value::Parts(parts)) => {
                // A field that may be absent may also be left out.
                let mut fields: Vec<_> = fields.iter().zip(parts).collect();
                fields.retain(|((_, ty), part)| {
                    let is_none = matches!((ty, part), (Type::Option(_), Value::Case(0, _)));
                    !(is_none && self.differs(30))
                });
                self.object(fields, |writer, ((name, ty), part)| {
                    writer.key(name);
                    writer.value(part, ty);
                });
            }
            (_, Value::Parts(parts)) => self.array(parts.iter().zip(ty.parts())),
            (Type::Flags { flags, .. }, Value::Flags(bits)) => {
                let flags: Vec<_> = flags.iter().enumerate().collect();
                self.object(flags, |writer, (index, name)| {
                    writer.key(name);
                    writer.out.push_str(if bits >> index & 1 == 1 { "true" } else { "false" });
                });
            }
            (Type::Option(of), Value::Case(_, payload)) => match payload {
                None => self.out.push_str("null"),
                Some(payload) => self.some(payload, of),
            },
            (Type::Result(..), Value::Case(case, payload)) => {
                let payload = ty.payload(*case).zip(payload.as_deref());
                self.one_of(["Ok", "Err"][*case], |writer| match payload {
                    Some((ty, payload)) => writer.value(payload, ty),
                    None => writer.out.push_str("null"),
                });
            }
            (Type::Variant { cases, .. }, Value::Case(case, payload)) => {
                let (name, ty) = &cases[*case];
                match ty.as_ref().zip(payload.as_deref()) {
                    Some((ty, payload)) => self.one_of(name, |writer| writer.value(payload, ty)),
                    None => self.case(name),
                }
            }
            (Type::Enum { cases, .. }, Value::Case(case, _)) => self.case(&cases[*case]),
            (ty, value) => unreachable!("{value:?} is no value of {ty}"),
        }
    }

    /// A case without content. It may also be written as one whose content is `null`.
    fn case(&mut self, name: &str) {
        match self.differs(15) {
            true => self.one_of(name, |writer| writer.out.push_str("null")),
            false => self.text(name),
        }
    }

    /// What might be `null` itself stands in an object.
    fn some(&mut self, payload: &Value, of: &Type) {
        match of {
            Type::Option(_) => self.one_of("Some", |writer| writer.value(payload, of)),
            _ => self.value(payload, of),
        }
    }

    fn one_of(&mut self, name: &str, content: impl FnOnce(&mut Self)) {
        self.put("{");
        self.key(name);
        content(self);
        self.put("}");
    }

    fn key(&mut self, name: &str) {
        self.text(name);
        self.put(":");
    }

    fn array<'v>(&mut self, items: impl Iterator<Item = (&'v Value, &'v Type)>) {
        self.put("[");
        for (index, (item, ty)) in items.enumerate() {
            if index > 0 {
                self.put(",");
            }
            self.value(item, ty);
        }
        self.put("]");
    }

    /// The order of an object's entries does not matter.
    fn object<T>(&mut self, mut entries: Vec<T>, mut entry: impl FnMut(&mut Self, T)) {
        if self.differs(30) {
            for index in 0..entries.len() {
                let other = self.below(entries.len());
                entries.swap(index, other);
            }
        }
        self.put("{");
        for (index, content) in entries.into_iter().enumerate() {
            if index > 0 {
                self.put(",");
            }
            entry(self, content);
        }
        self.put("}");
    }

    fn text(&mut self, text: &str) {
        if !self.differs(50) {
            return json::push_string(&mut self.out, text);
        }
        self.out.push('"');
        for char in text.chars() {
            let must_escape = char < ' ' || matches!(char, '"' | '\\');
            if must_escape || self.differs(10) {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    let digits = if self.differs(50) { format!("{unit:04X}") } else { format!("{unit:04x}") };
                    self.out.push_str("\\u");
                    self.out.push_str(&digits);
                }
            } else {
                self.out.push(char);
            }
        }
        self.out.push('"');
    }

    /// Bytes are a string if they are UTF-8, otherwise base64, and as an input they may also be numbers.
    fn bytes(&mut self, items: &[Value]) {
        let bytes: Vec<u8> = items
            .iter()
            .map(|item| if let Value::Unsigned(number) = item { *number as u8 } else { 0 })
            .collect();
        let form = self.below(3);
        match std::str::from_utf8(&bytes) {
            _ if form == 1 => self.array(items.iter().map(|item| (item, &Type::Unsigned(8)))),
            Ok(text) if form == 0 => self.text(text),
            _ => self.one_of("base64", |writer| {
                let base64 = base64(&bytes);
                writer.text(&base64);
            }),
        }
    }

    fn float32(&mut self, number: f32) {
        let near = self.whole_near(number);
        let text = match self.below(6) {
            _ if !number.is_finite() => return self.float64(number.into()),
            1 => format!("{number:?}"),
            2 => format!("{number:e}"),
            3 => number.to_string(),
            // These are all of its digits.
            4 => f64::from(number).to_string(),
            5 => near.map_or(number.to_string(), |near| near.to_string()),
            _ => serde_json::to_string(&number).unwrap_or_default(),
        };
        self.out.push_str(&text);
    }

    /// An integer that is rounded to this number, from as far away as there are such, unless it is none itself.
    fn whole_near(&mut self, number: f32) -> Option<i64> {
        if number.fract() != 0.0 || number == 0.0 || number.abs() > 4e18 {
            return None;
        }
        let whole = number as i64;
        let half = (number.abs().next_up() as i64 - number.abs() as i64) / 2;
        let offset = half + self.below(3) as i64 - 1;
        let near = if self.differs(50) { whole + offset } else { whole - offset };
        (near as f32 == number).then_some(near)
    }

    fn float64(&mut self, number: f64) {
        let text = match self.below(4) {
            _ if number.is_nan() => "\"NaN\"".into(),
            _ if number == f64::INFINITY => "\"inf\"".into(),
            _ if number == f64::NEG_INFINITY => "\"-inf\"".into(),
            1 => format!("{number:?}"),
            2 => format!("{number:e}"),
            3 => number.to_string(),
            _ => serde_json::to_string(&number).unwrap_or_default(),
        };
        self.out.push_str(&text);
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            text.push(match digit <= group.len() {
                true => DIGITS[bits >> (18 - 6 * digit) & 63].into(),
                false => '=',
            });
        }
    }
    text
}
