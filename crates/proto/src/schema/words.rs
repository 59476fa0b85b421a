//! A value in words, by its schema: for a message. It is written in the manner of WAVE, the component model's way to write
//! values, and cut off where it is long.

use std::fmt::Write as _;

use super::{Node, NodeId, TypeSchema, Variant};

/// Writes a value that takes up all of `bytes`; a text alone without its quotes, and a case without content by its name.
/// `None` if the bytes are not of this type. No more is written than about `bytes_max` bytes.
pub fn words(schema: &TypeSchema, bytes: &[u8], bytes_max: usize) -> Option<String> {
    let mut writer = Writer { schema, rest: bytes, text: String::new(), bytes_max };
    match schema.root() {
        Node::String => {
            let text: &str = writer.read()?;
            writer.push(text);
        }
        node => writer.value(node)?,
    }
    writer.rest.is_empty().then_some(writer.text)
}

struct Writer<'a> {
    schema: &'a TypeSchema,
    rest: &'a [u8],
    text: String,
    bytes_max: usize,
}

impl<'a> Writer<'a> {
    fn read<T: serde::Deserialize<'a>>(&mut self) -> Option<T> {
        let (value, rest) = postcard::take_from_bytes(self.rest).ok()?;
        self.rest = rest;
        Some(value)
    }

    fn is_full(&self) -> bool {
        self.text.len() >= self.bytes_max
    }

    fn push(&mut self, text: &str) {
        if !self.is_full() {
            self.text.push_str(text);
        }
    }

    fn end(&mut self, text: &str) -> Option<()> {
        self.push(text);
        Some(())
    }

    fn show(&mut self, value: impl std::fmt::Debug) -> Option<()> {
        if !self.is_full() {
            // Writing to a String cannot fail.
            let _ = write!(self.text, "{value:?}");
        }
        Some(())
    }

    fn number<T: serde::Deserialize<'a> + std::fmt::Debug>(&mut self) -> Option<()> {
        let value: T = self.read()?;
        self.show(value)
    }

    fn value(&mut self, node: &'a Node) -> Option<()> {
        match node {
            Node::Bool => self.number::<bool>(),
            Node::I8 => self.number::<i8>(),
            Node::U8 => self.number::<u8>(),
            Node::I16 => self.number::<i16>(),
            Node::I32 => self.number::<i32>(),
            Node::I64 => self.number::<i64>(),
            Node::I128 => self.number::<i128>(),
            Node::U16 => self.number::<u16>(),
            Node::U32 => self.number::<u32>(),
            Node::U64 => self.number::<u64>(),
            Node::U128 => self.number::<u128>(),
            Node::Usize => self.number::<usize>(),
            Node::Isize => self.number::<isize>(),
            Node::F32 => self.number::<f32>(),
            Node::F64 => self.number::<f64>(),
            Node::Char => self.number::<char>(),
            Node::String => self.number::<&str>(),
            Node::Bytes => self.items(&Node::U8),
            Node::Unit => self.end("()"),
            Node::Option(of) => match self.read::<u8>()? {
                0 => self.end("none"),
                1 => self.around("some(", std::slice::from_ref(of), ")"),
                _ => None,
            },
            Node::Seq(of) => self.items(self.schema.node(*of)),
            Node::Tuple(of) => self.around("(", of, ")"),
            Node::Map(key, value) => {
                let len: usize = self.read()?;
                self.push("{");
                for index in 0..len {
                    self.push(if index > 0 { ", " } else { "" });
                    self.value(self.schema.node(*key))?;
                    self.push(": ");
                    self.value(self.schema.node(*value))?;
                }
                self.end("}")
            }
            Node::Struct { fields, .. } => self.fields(fields),
            Node::Enum { variants, .. } => {
                let case: u32 = self.read()?;
                let (name, kind) = variants.get(case as usize)?;
                self.push(name);
                match kind {
                    Variant::Unit => Some(()),
                    Variant::Newtype(of) => self.around("(", std::slice::from_ref(of), ")"),
                    Variant::Tuple(of) => self.around("(", of, ")"),
                    Variant::Struct(fields) => self.fields(fields),
                }
            }
        }
    }

    fn around(&mut self, open: &str, of: &'a [NodeId], close: &str) -> Option<()> {
        self.push(open);
        for (index, id) in of.iter().enumerate() {
            self.push(if index > 0 { ", " } else { "" });
            self.value(self.schema.node(*id))?;
        }
        self.end(close)
    }

    fn fields(&mut self, fields: &'a [(String, NodeId)]) -> Option<()> {
        self.push("{");
        for (index, (name, id)) in fields.iter().enumerate() {
            self.push(if index > 0 { ", " } else { "" });
            self.push(name);
            self.push(": ");
            self.value(self.schema.node(*id))?;
        }
        self.end("}")
    }

    fn items(&mut self, item: &'a Node) -> Option<()> {
        let len: usize = self.read()?;
        // An item takes a byte at least: the schema's checks see to that.
        if len > self.rest.len() {
            return None;
        }
        self.push("[");
        for index in 0..len {
            self.push(if index > 0 { ", " } else { "" });
            self.value(item)?;
        }
        self.end("]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Serialize, postcard_schema::Schema)]
    enum Fault {
        Missing,
        Denied { by: String, codes: Vec<u16> },
        At(Option<(u8, char)>),
    }

    fn shown<T: serde::Serialize + postcard_schema::Schema>(value: T) -> String {
        let bytes = postcard::to_stdvec(&value).expect("serialises");
        let schema = TypeSchema::of::<T>();
        for end in 0..bytes.len() {
            assert_eq!(words(&schema, &bytes[..end], 1000), None, "{end} bytes of {bytes:?}");
        }
        words(&schema, &bytes, 1000).expect("is of its type")
    }

    #[test]
    fn a_text_stands_as_it_is_and_other_values_as_in_wave() {
        assert_eq!(shown("no \"numbers\""), "no \"numbers\"");
        assert_eq!(shown(Fault::Missing), "Missing");
        assert_eq!(
            shown(Fault::Denied { by: "a\nb".into(), codes: vec![1, 2] }),
            r#"Denied{by: "a\nb", codes: [1, 2]}"#
        );
        assert_eq!(shown(Fault::At(Some((7, 'x')))), "At(some((7, 'x')))");
    }

    proptest::proptest! {
        /// The bytes are a worker's, which may be anybody's.
        #[test]
        fn any_bytes_are_words_or_none(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let schemas = [
                TypeSchema::of::<Fault>(),
                TypeSchema::of::<Vec<Option<(String, char)>>>(),
                TypeSchema::of::<std::collections::BTreeMap<u8, Vec<i128>>>(),
                TypeSchema::of::<Result<(f32, f64), Vec<Vec<bool>>>>(),
            ];
            for schema in schemas {
                if let Some(text) = words(&schema, &bytes, 50) {
                    proptest::prop_assert!(text.len() <= 50 + 2 * bytes.len() + 40, "{text}");
                }
            }
        }
    }

    #[test]
    fn a_long_value_is_cut_off_and_bytes_of_another_type_are_none() {
        let bytes = postcard::to_stdvec(&vec![123u32; 100_000]).expect("serialises");
        let text = words(&TypeSchema::of::<Vec<u32>>(), &bytes, 100).expect("is a list");
        assert!(text.len() < 120, "{}", text.len());
        assert_eq!(words(&TypeSchema::of::<Vec<String>>(), &[0xff, 0xff, 0xff, 0x7f], 100), None);
    }
}
