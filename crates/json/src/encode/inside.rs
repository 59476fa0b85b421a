//! Values that hold other values: arrays, objects, variants.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::words::quoted;
use super::{Encoder, SHOWN_BYTES_MAX, Step, Want, len_at, push_bytes, push_varint};
use crate::base64;
use proto::schema::{Node, Variant};
use proto::text::truncated;

impl<'a> Encoder<'a> {
    /// Reads the next item of an array; returns `false` if there is none.
    fn item<'de, A: SeqAccess<'de>>(
        &mut self,
        index: usize,
        want: Want<'a>,
        items: &mut A,
    ) -> Result<bool, A::Error> {
        self.path.push(Step::Index(index));
        let read = items.next_element_seed(self.read(want))?;
        self.path.pop();
        Ok(read.is_some())
    }

    pub(super) fn seq<'de, A: SeqAccess<'de>>(
        &mut self,
        want: Want<'a>,
        mut items: A,
    ) -> Result<(), A::Error> {
        let start = self.out.len();
        let mut count = 0;
        while self.item(count, want, &mut items)? {
            count += 1;
        }
        self.insert_count(start, count);
        Ok(())
    }

    pub(super) fn tuple<'de, A: SeqAccess<'de>>(
        &mut self,
        types: &'a [u32],
        mut items: A,
    ) -> Result<(), A::Error> {
        for (index, id) in types.iter().enumerate() {
            let want = Want::Value(self.node(*id));
            if !self.item(index, want, &mut items)? {
                return Err(self.wrong(format!("expected {} values, found {index}", types.len())));
            }
        }
        match items.next_element::<IgnoredAny>()? {
            None => Ok(()),
            Some(_) => Err(self.wrong(format!("expected {} values, found more", types.len()))),
        }
    }

    pub(super) fn arguments<'de, A: SeqAccess<'de>>(
        &mut self,
        names: &'a [String],
        types: &'a [u32],
        mut items: A,
    ) -> Result<(), A::Error> {
        let found = |encoder: &mut Self, found: &str| -> A::Error {
            encoder.argument = None;
            let expected = super::expected(encoder.schema, Want::Arguments(names, types));
            encoder.mismatch(&expected, found)
        };
        for (index, (name, id)) in names.iter().zip(types).enumerate() {
            self.argument = Some(name);
            let want = Want::Value(self.node(*id));
            if !self.item(index, want, &mut items)? {
                return Err(found(self, &format!("an array of {index}")));
            }
        }
        self.argument = None;
        match items.next_element::<IgnoredAny>()? {
            None => Ok(()),
            Some(_) => Err(found(self, "a longer array")),
        }
    }

    pub(super) fn pair<'de, A: SeqAccess<'de>>(
        &mut self,
        key: &'a Node,
        of: &'a Node,
        mut items: A,
    ) -> Result<(), A::Error> {
        let is_pair = self.item(0, Want::Value(key), &mut items)?
            && self.item(1, Want::Value(of), &mut items)?
            && items.next_element::<IgnoredAny>()?.is_none();
        match is_pair {
            true => Ok(()),
            false => Err(self.mismatch("a pair [key, value]", "an array of another length")),
        }
    }

    /// Reads bytes from an array of numbers.
    pub(super) fn bytes<'de, A: SeqAccess<'de>>(&mut self, want: Want<'a>, items: A) -> Result<(), A::Error> {
        let start = self.out.len();
        self.seq(Want::Value(&Node::U8), items)?;
        if matches!(want, Want::RawBytes) {
            let (_, end) = len_at(&self.out, start);
            self.out.drain(start..end);
        }
        Ok(())
    }

    /// Reads bytes from `{"base64": "…"}`.
    pub(super) fn base64<'de, A: MapAccess<'de>>(
        &mut self,
        want: Want<'a>,
        mut entries: A,
    ) -> Result<(), A::Error> {
        let expected = super::expected(self.schema, want);
        match entries.next_key::<String>()? {
            Some(key) if key == "base64" => {}
            Some(key) => {
                let found = format!("an object with `{}`", truncated(&key, SHOWN_BYTES_MAX));
                return Err(self.mismatch(&expected, &found));
            }
            None => return Err(self.mismatch(&expected, "an empty object")),
        }
        self.path.push(Step::Name("base64"));
        let Some(bytes) = entries.next_value_seed(Base64)? else {
            return Err(self.wrong("expected base64 (standard alphabet, padded)".into()));
        };
        self.path.pop();
        if entries.next_key::<IgnoredAny>()?.is_some() {
            return Err(self.mismatch(&expected, "an object with more than that"));
        }
        match want {
            Want::RawBytes => self.out.extend_from_slice(&bytes),
            _ => push_bytes(&mut self.out, &bytes),
        }
        Ok(())
    }

    /// Reads fields of a struct, or arguments by name, in any order. If a name comes twice, the last one
    /// counts.
    pub(super) fn fields<'de, A: MapAccess<'de>>(
        &mut self,
        fields: &[(&'a str, u32)],
        mut entries: A,
        what: &str,
    ) -> Result<(), A::Error> {
        let start = self.out.len();
        let mut found: Vec<Option<Range<usize>>> = vec![None; fields.len()];
        let mut expected = 0;
        let mut in_order = true;
        while let Some(key) = entries.next_key_seed(FieldKey { fields, expected })? {
            let index = match key {
                Ok(index) => index,
                Err(unknown) => {
                    let known = quoted(fields.iter().map(|(name, _)| *name));
                    return Err(self.wrong(format!("unknown {what} `{unknown}`; there is {known}")));
                }
            };
            let (name, id) = fields[index];
            let begin = self.out.len();
            self.path.push(Step::Name(name));
            entries.next_value_seed(self.read(Want::Value(self.node(id))))?;
            self.path.pop();
            found[index] = Some(begin..self.out.len());
            in_order &= index == expected;
            expected = index + 1;
        }
        if in_order && expected == fields.len() {
            return Ok(());
        }
        let written = self.out.split_off(start);
        for ((name, id), found) in fields.iter().zip(found) {
            match (found, self.node(*id)) {
                (Some(at), _) => self.out.extend_from_slice(&written[at.start - start..at.end - start]),
                (None, Node::Option(_)) => self.out.push(0),
                (None, node) => {
                    let ty = self.schema.show_inside(node);
                    return Err(self.wrong(format!("missing {what} `{name}: {ty}`")));
                }
            }
        }
        Ok(())
    }

    /// Reads a map whose keys are strings.
    pub(super) fn map<'de, A: MapAccess<'de>>(
        &mut self,
        of: &'a Node,
        mut entries: A,
    ) -> Result<(), A::Error> {
        let start = self.out.len();
        let hashes = RandomState::new();
        let mut places = Vec::new();
        while let Some((hash, at)) = entries.next_key_seed(MapKey { out: &mut self.out, hashes: &hashes })? {
            self.path.push(Step::Key(at));
            entries.next_value_seed(self.read(Want::Value(of)))?;
            self.path.pop();
            places.push((hash, at));
        }
        let mut count = places.len();
        places.sort_unstable();
        if places.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            count = self.without_repeated_keys(start, places.into_iter().map(|(_, at)| at).collect());
        }
        self.insert_count(start, count);
        Ok(())
    }

    /// Removes entries whose key comes again: the first one's place takes the last one's value.
    fn without_repeated_keys(&mut self, start: usize, mut places: Vec<usize>) -> usize {
        places.sort_unstable();
        let written = self.out.split_off(start);
        let ends = places.iter().skip(1).copied().chain([start + written.len()]);
        let mut entries: Vec<&[u8]> = Vec::with_capacity(places.len());
        let mut by_key = HashMap::new();
        for (at, end) in places.iter().zip(ends) {
            let entry = &written[at - start..end - start];
            let (len, begin) = len_at(entry, 0);
            let count = entries.len();
            match *by_key.entry(&entry[begin..begin + len]).or_insert(count) {
                first if first < count => entries[first] = entry,
                _ => entries.push(entry),
            }
        }
        entries.iter().for_each(|entry| self.out.extend_from_slice(entry));
        entries.len()
    }

    /// Reads the content of an `Option` that may be `null` itself.
    pub(super) fn some<'de, A: MapAccess<'de>>(
        &mut self,
        want: Want<'a>,
        of: &'a Node,
        mut entries: A,
    ) -> Result<(), A::Error> {
        let expected = super::expected(self.schema, want);
        match entries.next_key::<String>()? {
            Some(key) if key == "Some" => {}
            Some(key) => {
                let found = format!("an object with `{}`", truncated(&key, SHOWN_BYTES_MAX));
                return Err(self.mismatch(&expected, &found));
            }
            None => return Err(self.mismatch(&expected, "an empty object")),
        }
        self.path.push(Step::Name("Some"));
        entries.next_value_seed(self.read(Want::Value(of)))?;
        self.path.pop();
        match entries.next_key::<IgnoredAny>()? {
            None => Ok(()),
            Some(_) => Err(self.mismatch(&expected, "an object with more than that")),
        }
    }

    pub(super) fn variant<'de, A: MapAccess<'de>>(
        &mut self,
        want: Want<'a>,
        variants: &'a [(String, Variant)],
        mut entries: A,
    ) -> Result<(), A::Error> {
        const ONE: &str = "an object with one key, the variant";
        let Some(chosen) = entries.next_key::<String>()? else {
            return Err(self.mismatch(ONE, "an empty object"));
        };
        let Some(index) = variants.iter().position(|(variant, _)| *variant == chosen) else {
            let expected = super::expected(self.schema, want);
            let found = format!("an object with `{}`", truncated(&chosen, SHOWN_BYTES_MAX));
            return Err(self.mismatch(&expected, &found));
        };
        push_varint(&mut self.out, index as u128);
        let (name, kind) = &variants[index];
        let content = match kind {
            Variant::Unit => Want::Value(&Node::Unit),
            Variant::Newtype(id) => Want::Value(self.node(*id)),
            Variant::Tuple(types) => Want::Tuple(types),
            Variant::Struct(fields) => Want::Fields(name, fields),
        };
        self.path.push(Step::Name(name));
        entries.next_value_seed(self.read(content))?;
        self.path.pop();
        match entries.next_key::<IgnoredAny>()? {
            None => Ok(()),
            Some(_) => Err(self.mismatch(ONE, "one with several")),
        }
    }
}

/// Reads the name of a field into its number, or returns the name if no field has it.
struct FieldKey<'f, 'a> {
    fields: &'f [(&'a str, u32)],
    /// Fields mostly come in order, so this one is tried first.
    expected: usize,
}

impl<'de> DeserializeSeed<'de> for FieldKey<'_, '_> {
    type Value = Result<usize, String>;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<Self::Value, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldKey<'_, '_> {
    type Value = Result<usize, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        let is_it = |(_, (field, _)): &(usize, &(&str, u32))| *field == name;
        let mut fields = self.fields.iter().enumerate();
        let expected = fields.clone().nth(self.expected).filter(is_it);
        let found = expected.or_else(|| fields.find(is_it)).map(|(index, _)| index);
        Ok(found.ok_or_else(|| truncated(name, SHOWN_BYTES_MAX)))
    }
}

/// Writes a key, and returns its hash and where it begins.
struct MapKey<'o> {
    out: &'o mut Vec<u8>,
    hashes: &'o RandomState,
}

impl<'de> DeserializeSeed<'de> for MapKey<'_> {
    type Value = (u64, usize);

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<Self::Value, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for MapKey<'_> {
    type Value = (u64, usize);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        let at = self.out.len();
        push_bytes(self.out, key.as_bytes());
        Ok((self.hashes.hash_one(key), at))
    }
}

/// Reads the bytes of a text in base64; returns `None` if it is not base64.
struct Base64;

impl<'de> DeserializeSeed<'de> for Base64 {
    type Value = Option<Vec<u8>>;

    fn deserialize<D: Deserializer<'de>>(self, text: D) -> Result<Self::Value, D::Error> {
        text.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Base64 {
    type Value = Option<Vec<u8>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("base64")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(base64::decode(text))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
        IgnoredAny.visit_seq(items).map(|_| None)
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Self::Value, A::Error> {
        IgnoredAny.visit_map(entries).map(|_| None)
    }
}
