//! The description of a task, encoded at compile time.
//!
//! Pure and const: a record becomes bytes of the custom section
//! `wasmpool.tasks` while the guest is compiled, so that a host can read the
//! signature of every task without running anything. The bytes are what
//! postcard would write for the same structure; the tests below hold that.

use postcard_schema::schema::{DataModelType, DataModelVariant, NamedType, NamedValue, NamedVariant};
use postcard_schema::Schema;

/// The version of a record, and of one that has the type of errors as well.
const VERSION: u8 = 1;
const VERSION_WITH_ERROR: u8 = 3;

/// The schema of either side of the raw codec.
pub const BYTES: &NamedType = &NamedType { name: "bytes", ty: &DataModelType::ByteArray };

/// The schema of no arguments and of no result.
pub const UNIT: &NamedType = <() as Schema>::SCHEMA;

/// What an export is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Called once for each task.
    Task = 0,
    /// Called once in a fresh instance, before any task.
    Init = 1,
}

/// How input and output are written as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// As they are.
    Raw = 0,
    /// In postcard, by the record's schemas.
    Postcard = 1,
}

/// One entry of the section `wasmpool.tasks`.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// What the export is for.
    pub kind: Kind,
    /// The name of the WebAssembly export.
    pub export: &'a str,
    /// The name that callers use.
    pub name: &'a str,
    /// The doc comment, its lines joined by `\n`.
    pub doc: &'a str,
    /// How input and output are written.
    pub codec: Codec,
    /// The names of the arguments.
    pub params: &'a [&'a str],
    /// The schema of the input: of the only argument, or of a tuple of them.
    pub input: &'a NamedType,
    /// The schema of the output; for a fallible task, of its success.
    pub output: &'a NamedType,
    /// The schema of the task's own errors, where these are data.
    pub error: Option<&'a NamedType>,
}

impl<'a> Record<'a> {
    /// A task that takes bytes and returns bytes.
    pub const fn raw(export: &'a str, name: &'a str, doc: &'a str) -> Self {
        Self {
            kind: Kind::Task,
            export,
            name,
            doc,
            codec: Codec::Raw,
            params: &["input"],
            input: BYTES,
            output: BYTES,
            error: None,
        }
    }

    /// A task with one typed argument, which is called `input`.
    pub const fn typed<In: Schema, Out: Schema>(export: &'a str, name: &'a str, doc: &'a str) -> Self {
        Self {
            kind: Kind::Task,
            export,
            name,
            doc,
            codec: Codec::Postcard,
            params: &["input"],
            input: In::SCHEMA,
            output: Out::SCHEMA,
            error: None,
        }
    }

    /// The length of [`encode`](Self::encode)'s result, in bytes.
    pub const fn encoded_len(&self) -> usize {
        LENGTH_BYTES + self.body_len()
    }

    /// The record as the section holds it: the body's length as a little-endian
    /// `u32`, then the body.
    ///
    /// # Panics
    ///
    /// If `N` is not [`encoded_len`](Self::encoded_len); in const context that
    /// is a compile error.
    pub const fn encode<const N: usize>(&self) -> [u8; N] {
        assert!(N == self.encoded_len());
        assert!(self.body_len() <= u32::MAX as usize);
        let mut bytes = [0; N];
        let (length, body) = bytes.split_at_mut(LENGTH_BYTES);
        let body_len = (body.len() as u32).to_le_bytes();
        let mut i = 0;
        while i < LENGTH_BYTES {
            length[i] = body_len[i];
            i += 1;
        }
        let mut sink = Sink { out: body, at: 0 };
        sink.record(self);
        assert!(sink.at == N - LENGTH_BYTES);
        bytes
    }

    const fn body_len(&self) -> usize {
        let mut sink = Sink { out: &mut [], at: 0 };
        sink.record(self);
        sink.at
    }
}

/// Each body in the section follows its length as a `u32`.
const LENGTH_BYTES: usize = size_of::<u32>();

/// Counts what is put into it, and keeps what fits: the same code measures a
/// record (into no space at all) and writes it, so the two cannot disagree.
struct Sink<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Sink<'_> {
    const fn byte(&mut self, byte: u8) {
        if self.at < self.out.len() {
            self.out[self.at] = byte;
        }
        self.at += 1;
    }

    /// Postcard's integers: seven bits a byte, lowest first, the top bit set in
    /// all but the last.
    const fn varint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    const fn str(&mut self, text: &str) {
        let bytes = text.as_bytes();
        self.varint(bytes.len());
        let mut i = 0;
        while i < bytes.len() {
            self.byte(bytes[i]);
            i += 1;
        }
    }

    const fn record(&mut self, record: &Record<'_>) {
        self.byte(if record.error.is_some() { VERSION_WITH_ERROR } else { VERSION });
        self.byte(record.kind as u8);
        self.str(record.export);
        self.str(record.name);
        self.str(record.doc);
        self.byte(record.codec as u8);
        self.varint(record.params.len());
        let mut i = 0;
        while i < record.params.len() {
            self.str(record.params[i]);
            i += 1;
        }
        self.named_type(record.input);
        self.named_type(record.output);
        if let Some(error) = record.error {
            self.named_type(error);
        }
    }

    const fn named_type(&mut self, named: &NamedType) {
        self.str(named.name);
        self.data_model(named.ty);
    }

    /// The numbers are the variants' positions in `DataModelType`.
    const fn data_model(&mut self, ty: &DataModelType) {
        match ty {
            DataModelType::Bool => self.varint(0),
            DataModelType::I8 => self.varint(1),
            DataModelType::U8 => self.varint(2),
            DataModelType::I16 => self.varint(3),
            DataModelType::I32 => self.varint(4),
            DataModelType::I64 => self.varint(5),
            DataModelType::I128 => self.varint(6),
            DataModelType::U16 => self.varint(7),
            DataModelType::U32 => self.varint(8),
            DataModelType::U64 => self.varint(9),
            DataModelType::U128 => self.varint(10),
            DataModelType::Usize => self.varint(11),
            DataModelType::Isize => self.varint(12),
            DataModelType::F32 => self.varint(13),
            DataModelType::F64 => self.varint(14),
            DataModelType::Char => self.varint(15),
            DataModelType::String => self.varint(16),
            DataModelType::ByteArray => self.varint(17),
            DataModelType::Option(inner) => {
                self.varint(18);
                self.named_type(inner);
            }
            DataModelType::Unit => self.varint(19),
            DataModelType::UnitStruct => self.varint(20),
            DataModelType::NewtypeStruct(inner) => {
                self.varint(21);
                self.named_type(inner);
            }
            DataModelType::Seq(inner) => {
                self.varint(22);
                self.named_type(inner);
            }
            DataModelType::Tuple(types) => {
                self.varint(23);
                self.named_types(types);
            }
            DataModelType::TupleStruct(types) => {
                self.varint(24);
                self.named_types(types);
            }
            DataModelType::Map { key, val } => {
                self.varint(25);
                self.named_type(key);
                self.named_type(val);
            }
            DataModelType::Struct(fields) => {
                self.varint(26);
                self.named_values(fields);
            }
            DataModelType::Enum(variants) => {
                self.varint(27);
                self.named_variants(variants);
            }
            DataModelType::Schema => self.varint(28),
        }
    }

    const fn named_types(&mut self, types: &[&NamedType]) {
        self.varint(types.len());
        let mut i = 0;
        while i < types.len() {
            self.named_type(types[i]);
            i += 1;
        }
    }

    const fn named_values(&mut self, values: &[&NamedValue]) {
        self.varint(values.len());
        let mut i = 0;
        while i < values.len() {
            self.str(values[i].name);
            self.named_type(values[i].ty);
            i += 1;
        }
    }

    const fn named_variants(&mut self, variants: &[&NamedVariant]) {
        self.varint(variants.len());
        let mut i = 0;
        while i < variants.len() {
            self.str(variants[i].name);
            match variants[i].ty {
                DataModelVariant::UnitVariant => self.varint(0),
                DataModelVariant::NewtypeVariant(inner) => {
                    self.varint(1);
                    self.named_type(inner);
                }
                DataModelVariant::TupleVariant(types) => {
                    self.varint(2);
                    self.named_types(types);
                }
                DataModelVariant::StructVariant(fields) => {
                    self.varint(3);
                    self.named_values(fields);
                }
            }
            i += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use postcard_schema::schema::owned::OwnedNamedType;
    use serde::{Deserialize, Serialize};

    use super::*;

    fn encoded_by_us(named: &NamedType) -> Vec<u8> {
        let mut sink = Sink { out: &mut [], at: 0 };
        sink.named_type(named);
        let mut bytes = vec![0; sink.at];
        let mut sink = Sink { out: &mut bytes, at: 0 };
        sink.named_type(named);
        bytes
    }

    fn same_as_postcard<T: Schema>() {
        let ours = encoded_by_us(T::SCHEMA);
        assert_eq!(ours, postcard::to_allocvec(T::SCHEMA).unwrap());
        let decoded: OwnedNamedType = postcard::from_bytes(&ours).unwrap();
        assert_eq!(decoded, OwnedNamedType::from(T::SCHEMA));
    }

    #[expect(dead_code, reason = "only the schemas matter")]
    mod shapes {
        use super::*;

        #[derive(Schema)]
        pub(super) struct Unit;
        #[derive(Schema)]
        pub(super) struct Newtype(pub u16);
        #[derive(Schema)]
        pub(super) struct Pair(pub u16, pub Newtype);
        #[derive(Schema)]
        pub(super) struct Nested {
            pub unit: Unit,
            pub pairs: Vec<Pair>,
            pub by_name: BTreeMap<String, Option<Newtype>>,
            pub hashed: HashMap<u8, (i8, char)>,
            pub array: [f32; 3],
        }
        #[derive(Schema)]
        pub(super) enum Every {
            Unit,
            Newtype(Nested),
            Tuple(u64, i128),
            Struct { left: bool, right: Box<Nested> },
        }
        #[derive(Schema)]
        pub(super) struct ANameOfMoreThanOneHundredAndTwentySevenBytesSoThatItsLengthNeedsASecondByteInPostcardsVariableLengthEncodingOfUnsignedIntegersXXXXXXX
        {
            pub field: u8,
        }
    }

    #[test]
    fn every_builtin_is_encoded_as_postcard_does() {
        same_as_postcard::<(bool, i8, u8, i16, i32, i64)>();
        same_as_postcard::<(i128, u16, u32, u64, u128, ())>();
        same_as_postcard::<(f32, f64, char, String)>();
        same_as_postcard::<Result<Option<u8>, String>>();
        same_as_postcard::<OwnedNamedType>();
        // No Rust type has these, but schemas do.
        for ty in [&DataModelType::Usize, &DataModelType::Isize, &DataModelType::ByteArray] {
            let named = NamedType { name: "it", ty };
            let bytes = encoded_by_us(&named);
            assert_eq!(bytes, postcard::to_allocvec(&named).unwrap());
        }
    }

    #[test]
    fn every_shape_of_struct_and_enum_is_encoded_as_postcard_does() {
        same_as_postcard::<shapes::Unit>();
        same_as_postcard::<shapes::Newtype>();
        same_as_postcard::<shapes::Pair>();
        same_as_postcard::<shapes::Nested>();
        same_as_postcard::<shapes::Every>();
        same_as_postcard::<Vec<Option<BTreeMap<String, shapes::Every>>>>();
    }

    #[test]
    fn a_name_longer_than_127_bytes_has_a_two_byte_length() {
        type Long = shapes::ANameOfMoreThanOneHundredAndTwentySevenBytesSoThatItsLengthNeedsASecondByteInPostcardsVariableLengthEncodingOfUnsignedIntegersXXXXXXX;
        assert!(Long::SCHEMA.name.len() > 127);
        same_as_postcard::<Long>();
    }

    #[test]
    fn varints_are_postcards() {
        for value in [0, 1, 127, 128, 16_383, 16_384, 1 << 31, usize::MAX] {
            let mut bytes = [0; 10];
            let mut sink = Sink { out: &mut bytes, at: 0 };
            sink.varint(value);
            let at = sink.at;
            assert_eq!(bytes[..at], postcard::to_allocvec(&value).unwrap());
        }
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Decoded {
        version: u8,
        kind: u8,
        export: String,
        name: String,
        doc: String,
        codec: u8,
        params: Vec<String>,
        input: OwnedNamedType,
        output: OwnedNamedType,
    }

    #[test]
    fn a_record_encoded_at_compile_time_decodes_as_the_host_reads_it() {
        const RECORD: Record<'static> = Record {
            kind: Kind::Task,
            export: "wasmpool_task_count",
            name: "count",
            doc: "Counts.\n\nTwo paragraphs, 🦀.",
            codec: Codec::Postcard,
            params: &["text", "limit"],
            input: <(String, u64)>::SCHEMA,
            output: <shapes::Every>::SCHEMA,
            error: None,
        };
        static SECTION: [u8; RECORD.encoded_len()] = RECORD.encode();

        let (length, body) = SECTION.split_at(4);
        assert_eq!(u32::from_le_bytes(length.try_into().unwrap()) as usize, body.len());
        let (decoded, rest): (Decoded, _) = postcard::take_from_bytes(body).unwrap();
        assert!(rest.is_empty());
        assert_eq!(
            decoded,
            Decoded {
                version: 1,
                kind: 0,
                export: "wasmpool_task_count".into(),
                name: "count".into(),
                doc: "Counts.\n\nTwo paragraphs, 🦀.".into(),
                codec: 1,
                params: vec!["text".into(), "limit".into()],
                input: OwnedNamedType::from(<(String, u64)>::SCHEMA),
                output: OwnedNamedType::from(<shapes::Every>::SCHEMA),
            }
        );
        assert_eq!(postcard::to_allocvec(&decoded).unwrap(), body);

        const FALLIBLE: Record<'static> = Record { error: Some(<Option<u8>>::SCHEMA), ..RECORD };
        static WITH_ERROR: [u8; FALLIBLE.encoded_len()] = FALLIBLE.encode();
        let error = postcard::to_allocvec(<Option<u8>>::SCHEMA).unwrap();
        assert_eq!(WITH_ERROR[4..], [&[3][..], &body[1..], &error].concat());
    }

    #[test]
    fn a_raw_record_has_bytes_on_both_sides() {
        let record = Record::raw("e", "n", "");
        assert_eq!((record.codec, record.kind), (Codec::Raw, Kind::Task));
        assert_eq!(record.input, BYTES);
        assert_eq!(record.output, BYTES);
    }
}
