//! The shape of a postcard value: what a module says its tasks take and return.
//!
//! Guests describe themselves, so this reader trusts nothing: it works on bytes, counts
//! nodes and depth, and builds a flat arena in which a child always comes before its
//! parent. A decoded [`TypeSchema`] can therefore be walked without fear of cycles or of a
//! stack that runs out.

mod builder;
mod checks;
mod guest;
mod words;

use std::fmt;

use postcard_schema::schema::{DataModelType, DataModelVariant, NamedType};
use serde::{Deserialize, Serialize};

use crate::limits::{SCHEMA_DEPTH_MAX, SCHEMA_NAME_BYTES_MAX, SCHEMA_NAMES_BYTES_MAX, SCHEMA_NODES_MAX};
use crate::text::Name;

pub use builder::{SchemaBuilder, Unfit};
pub use checks::check_distinct;
pub use words::words;

/// One type, as postcard puts it on the wire.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
pub struct TypeSchema {
    /// Children stand before their parents; the last node is the type itself.
    nodes: Vec<Node>,
}

/// Index of a node in its schema.
pub type NodeId = u32;

/// A type's kind, and its children by index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
pub enum Node {
    Bool,
    I8,
    U8,
    I16,
    I32,
    I64,
    I128,
    U16,
    U32,
    U64,
    U128,
    Usize,
    Isize,
    F32,
    F64,
    Char,
    String,
    Bytes,
    Unit,
    Option(NodeId),
    Seq(NodeId),
    Tuple(Vec<NodeId>),
    Map(NodeId, NodeId),
    Struct { name: String, fields: Vec<(String, NodeId)> },
    Enum { name: String, variants: Vec<(String, Variant)> },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
pub enum Variant {
    Unit,
    Newtype(NodeId),
    Tuple(Vec<NodeId>),
    Struct(Vec<(String, NodeId)>),
}

/// Says why bytes are not a schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// The bytes end inside a value.
    #[error("the schema is cut off")]
    Truncated,
    /// A number that names no kind of type, or a length that cannot be.
    #[error("the schema has an unknown type tag {0}")]
    UnknownTag(u64),
    /// A name is not UTF-8, or a number does not fit.
    #[error("the schema has a malformed name or length")]
    Malformed,
    /// It exceeds a bound of `limits.rs`.
    #[error("the schema is larger than {SCHEMA_NODES_MAX} nodes or deeper than {SCHEMA_DEPTH_MAX} levels")]
    TooLarge,
    /// The names of types, fields and variants go over a limit of `limits.rs`.
    #[error(
        "the schema has a name of more than {SCHEMA_NAME_BYTES_MAX} bytes, or names of more than \
         {SCHEMA_NAMES_BYTES_MAX} together"
    )]
    NamesTooLong,
    /// A field or variant without a name that can be seen, or a type whose name cannot.
    #[error("the schema has a name that is blank")]
    BlankName,
    /// Two fields of a struct, or two variants of an enum, or two arguments.
    #[error("`{}` is there twice", Name(name))]
    RepeatedName {
        /// The name of both.
        name: String,
    },
    /// The items of a list or a map take no bytes, so that a few bytes could announce any number of them.
    #[error(
        "the schema has a list or a map of values that take no bytes, such as Vec<()>: give their number instead"
    )]
    ItemsWithoutBytes,
}

impl TypeSchema {
    /// The schema of a Rust type.
    pub fn of<T: postcard_schema::Schema + ?Sized>() -> TypeSchema {
        let mut nodes = Vec::new();
        push_static(T::SCHEMA, &mut nodes);
        TypeSchema { nodes }
    }

    /// The values of a function: none, one, or a tuple of several. They have no children.
    pub(crate) fn of_values(values: impl Iterator<Item = Node>) -> TypeSchema {
        let mut nodes: Vec<Node> = values.collect();
        match nodes.len() {
            0 => nodes.push(Node::Unit),
            1 => {}
            several => nodes.push(Node::Tuple((0..several as NodeId).collect())),
        }
        TypeSchema { nodes }
    }

    /// A value whose bytes are the payload, without a codec.
    pub fn raw_bytes() -> TypeSchema {
        TypeSchema { nodes: vec![Node::Bytes] }
    }

    /// Reads the postcard encoding of a `postcard_schema::schema::OwnedNamedType`
    /// from the front of `bytes`, and returns what is left.
    ///
    /// # Errors
    /// [`SchemaError`] for anything that is not one, or is over the limits.
    pub fn decode_guest(bytes: &[u8]) -> Result<(TypeSchema, &[u8]), SchemaError> {
        let (nodes, rest) = guest::read(bytes)?;
        let schema = TypeSchema { nodes };
        schema.check()?;
        Ok((schema, rest))
    }

    /// Holds a schema that came over a wire to what the constructors promise.
    ///
    /// # Errors
    /// [`SchemaError`]
    pub fn check(&self) -> Result<(), SchemaError> {
        checks::check(self)
    }

    /// The type itself.
    pub fn root(&self) -> &Node {
        self.nodes.last().unwrap_or(&Node::Unit)
    }

    /// A child of a node of this schema.
    pub fn node(&self, id: NodeId) -> &Node {
        self.nodes.get(id as usize).unwrap_or(&Node::Unit)
    }

    /// Returns whether both put the same bytes on the wire: names of types do not count, names of fields and
    /// variants do.
    pub fn is_compatible(&self, other: &TypeSchema) -> bool {
        same(self, self.root(), other, other.root())
    }

    /// Returns whether a value is plain bytes on the wire: `Vec<u8>`, `[u8]` or a raw payload.
    pub fn is_bytes(&self) -> bool {
        match self.root() {
            Node::Bytes => true,
            Node::Seq(item) => matches!(self.node(*item), Node::U8),
            _ => false,
        }
    }

    /// Returns whether a value is a `String`.
    pub fn is_string(&self) -> bool {
        matches!(self.root(), Node::String)
    }

    /// Returns, of each of so many arguments, whether it is text or bytes. Several arguments travel as a tuple.
    pub fn are_text(&self, count: usize) -> Vec<bool> {
        let is_text = |node: &Node| match node {
            Node::String | Node::Char | Node::Bytes => true,
            Node::Seq(item) => matches!(self.node(*item), Node::U8),
            _ => false,
        };
        match self.root() {
            Node::Tuple(types) if count > 1 && types.len() == count => {
                types.iter().map(|id| is_text(self.node(*id))).collect()
            }
            root => vec![is_text(root); count],
        }
    }

    /// A node in full, with the fields of a struct.
    pub fn show(&self, node: &Node) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(node, &mut text);
        text
    }

    /// A node as it stands inside a signature: structs by name.
    pub fn show_inside(&self, node: &Node) -> String {
        let mut text = String::new();
        let _ = self.write_inside(node, &mut text);
        text
    }

    /// Returns the types of a `Result`'s value and error, if it is one.
    pub fn result_parts(&self, node: &Node) -> Option<(NodeId, NodeId)> {
        let Node::Enum { name, variants } = node else { return None };
        match &variants[..] {
            [(ok, Variant::Newtype(value)), (err, Variant::Newtype(error))]
                // The second is how postcard's schema has it.
                if ["Result", "Result<T, E>"].contains(&name.as_str()) && ok == "Ok" && err == "Err" =>
            {
                Some((*value, *error))
            }
            _ => None,
        }
    }

    /// Writes a node as it stands inside of another one: a struct or an enum that has a name by its name.
    fn write_inside(&self, node: &Node, out: &mut impl fmt::Write) -> fmt::Result {
        if let Some((value, error)) = self.result_parts(node) {
            return self.write_around(out, "Result<", &[value, error], ">");
        }
        match node {
            Node::Struct { name, .. } | Node::Enum { name, .. } if !name.is_empty() => out.write_str(name),
            node => self.write(node, out),
        }
    }

    fn write(&self, node: &Node, out: &mut impl fmt::Write) -> fmt::Result {
        if let Some(word) = node.word() {
            return out.write_str(word);
        }
        match node {
            Node::Option(id) => self.write_around(out, "Option<", &[*id], ">"),
            Node::Seq(id) => self.write_around(out, "Vec<", &[*id], ">"),
            Node::Tuple(ids) => self.write_around(out, "(", ids, if ids.len() == 1 { ",)" } else { ")" }),
            Node::Map(key, value) => self.write_around(out, "Map<", &[*key, *value], ">"),
            Node::Struct { name, fields } => {
                write!(out, "{name}{}{{ ", if name.is_empty() { "" } else { " " })?;
                self.write_fields(out, fields)?;
                out.write_str(" }")
            }
            Node::Enum { name, variants } => {
                write!(out, "{name}{}", if name.is_empty() { "" } else { " " })?;
                for (index, (variant, kind)) in variants.iter().enumerate() {
                    out.write_str(if index > 0 { " | " } else { "" })?;
                    out.write_str(variant)?;
                    self.write_variant(out, kind)?;
                }
                Ok(())
            }
            // The other nodes have a word of their own.
            _ => Ok(()),
        }
    }

    /// Writes what a variant carries, which stands behind its name.
    fn write_variant(&self, out: &mut impl fmt::Write, variant: &Variant) -> fmt::Result {
        match variant {
            Variant::Unit => Ok(()),
            Variant::Newtype(id) => self.write_around(out, "(", &[*id], ")"),
            Variant::Tuple(ids) => self.write_around(out, "(", ids, ")"),
            Variant::Struct(fields) => {
                out.write_str(" { ")?;
                self.write_fields(out, fields)?;
                out.write_str(" }")
            }
        }
    }

    /// Writes nodes with commas between them, and `open` and `close` around them.
    fn write_around(
        &self,
        out: &mut impl fmt::Write,
        open: &str,
        ids: &[NodeId],
        close: &str,
    ) -> fmt::Result {
        out.write_str(open)?;
        for (index, id) in ids.iter().enumerate() {
            if index > 0 {
                out.write_str(", ")?;
            }
            self.write_inside(self.node(*id), out)?;
        }
        out.write_str(close)
    }

    fn write_fields(&self, out: &mut impl fmt::Write, fields: &[(String, NodeId)]) -> fmt::Result {
        for (index, (name, id)) in fields.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(out, "{comma}{name}: ")?;
            self.write_inside(self.node(*id), out)?;
        }
        Ok(())
    }
}

impl fmt::Display for TypeSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Name(self.show_inside(self.root())))
    }
}

impl fmt::Debug for TypeSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TypeSchema({})", Name(self.show(self.root())))
    }
}

impl Node {
    /// Returns how a type without parts is written; `None` for one that has parts.
    fn word(&self) -> Option<&'static str> {
        Some(match self {
            Node::Bool => "bool",
            Node::I8 => "i8",
            Node::U8 => "u8",
            Node::I16 => "i16",
            Node::I32 => "i32",
            Node::I64 => "i64",
            Node::I128 => "i128",
            Node::U16 => "u16",
            Node::U32 => "u32",
            Node::U64 => "u64",
            Node::U128 => "u128",
            Node::Usize => "usize",
            Node::Isize => "isize",
            Node::F32 => "f32",
            Node::F64 => "f64",
            Node::Char => "char",
            Node::String => "String",
            Node::Bytes => "bytes",
            Node::Unit => "()",
            Node::Option(_)
            | Node::Seq(_)
            | Node::Tuple(_)
            | Node::Map(..)
            | Node::Struct { .. }
            | Node::Enum { .. } => return None,
        })
    }

    fn children(&self) -> Vec<NodeId> {
        match self {
            Node::Option(id) | Node::Seq(id) => vec![*id],
            Node::Map(key, value) => vec![*key, *value],
            Node::Tuple(ids) => ids.clone(),
            Node::Struct { fields, .. } => fields.iter().map(|(_, id)| *id).collect(),
            Node::Enum { variants, .. } => variants
                .iter()
                .flat_map(|(_, variant)| match variant {
                    Variant::Unit => Vec::new(),
                    Variant::Newtype(id) => vec![*id],
                    Variant::Tuple(ids) => ids.clone(),
                    Variant::Struct(fields) => fields.iter().map(|(_, id)| *id).collect(),
                })
                .collect(),
            _ => Vec::new(),
        }
    }
}

impl Node {
    /// Returns its own name, and those of its fields and variants.
    fn names(&self) -> Vec<&str> {
        fn of<T>(parts: &[(String, T)]) -> impl Iterator<Item = &str> {
            parts.iter().map(|(name, _)| name.as_str())
        }
        match self {
            Node::Struct { name, fields } => std::iter::once(name.as_str()).chain(of(fields)).collect(),
            Node::Enum { name, variants } => {
                let mut names: Vec<_> = std::iter::once(name.as_str()).chain(of(variants)).collect();
                for (_, kind) in variants {
                    if let Variant::Struct(fields) = kind {
                        names.extend(of(fields));
                    }
                }
                names
            }
            _ => Vec::new(),
        }
    }
}

fn same(a: &TypeSchema, left: &Node, b: &TypeSchema, right: &Node) -> bool {
    let one = |x: &NodeId, y: &NodeId| same(a, a.node(*x), b, b.node(*y));
    let all = |x: &[NodeId], y: &[NodeId]| x.len() == y.len() && x.iter().zip(y).all(|(x, y)| one(x, y));
    let fields = |x: &[(String, NodeId)], y: &[(String, NodeId)]| {
        x.len() == y.len() && x.iter().zip(y).all(|(x, y)| x.0 == y.0 && one(&x.1, &y.1))
    };
    let is_u8 = |schema: &TypeSchema, id: &NodeId| matches!(schema.node(*id), Node::U8);
    match (left, right) {
        (Node::Option(x), Node::Option(y)) | (Node::Seq(x), Node::Seq(y)) => one(x, y),
        (Node::Bytes, Node::Seq(y)) => is_u8(b, y),
        (Node::Seq(x), Node::Bytes) => is_u8(a, x),
        (Node::Tuple(x), Node::Tuple(y)) => all(x, y),
        (Node::Map(k, v), Node::Map(l, w)) => one(k, l) && one(v, w),
        (Node::Struct { fields: x, .. }, Node::Struct { fields: y, .. }) => fields(x, y),
        (Node::Enum { variants: x, .. }, Node::Enum { variants: y, .. }) => {
            x.len() == y.len()
                && x.iter().zip(y).all(|((m, x), (n, y))| {
                    m == n
                        && match (x, y) {
                            (Variant::Unit, Variant::Unit) => true,
                            (Variant::Newtype(x), Variant::Newtype(y)) => one(x, y),
                            (Variant::Tuple(x), Variant::Tuple(y)) => all(x, y),
                            (Variant::Struct(x), Variant::Struct(y)) => fields(x, y),
                            _ => false,
                        }
                })
        }
        (x, y) => x == y,
    }
}

fn push(nodes: &mut Vec<Node>, node: Node) -> NodeId {
    nodes.push(node);
    (nodes.len() - 1) as NodeId
}

fn push_static(ty: &'static NamedType, nodes: &mut Vec<Node>) -> NodeId {
    let node = match ty.ty {
        DataModelType::Bool => Node::Bool,
        DataModelType::I8 => Node::I8,
        DataModelType::U8 => Node::U8,
        DataModelType::I16 => Node::I16,
        DataModelType::I32 => Node::I32,
        DataModelType::I64 => Node::I64,
        DataModelType::I128 => Node::I128,
        DataModelType::U16 => Node::U16,
        DataModelType::U32 => Node::U32,
        DataModelType::U64 => Node::U64,
        DataModelType::U128 => Node::U128,
        DataModelType::Usize => Node::Usize,
        DataModelType::Isize => Node::Isize,
        DataModelType::F32 => Node::F32,
        DataModelType::F64 => Node::F64,
        DataModelType::Char => Node::Char,
        DataModelType::String | DataModelType::Schema => Node::String,
        DataModelType::ByteArray => Node::Bytes,
        DataModelType::Unit | DataModelType::UnitStruct => Node::Unit,
        DataModelType::Option(of) => Node::Option(push_static(of, nodes)),
        // A newtype is its content, on the wire and in JSON.
        DataModelType::NewtypeStruct(of) => return push_static(of, nodes),
        DataModelType::Seq(of) => Node::Seq(push_static(of, nodes)),
        DataModelType::Tuple(of) | DataModelType::TupleStruct(of) => {
            Node::Tuple(of.iter().map(|ty| push_static(ty, nodes)).collect())
        }
        DataModelType::Map { key, val } => {
            let key = push_static(key, nodes);
            Node::Map(key, push_static(val, nodes))
        }
        DataModelType::Struct(fields) => {
            let fields =
                fields.iter().map(|field| (field.name.into(), push_static(field.ty, nodes))).collect();
            Node::Struct { name: ty.name.into(), fields }
        }
        DataModelType::Enum(variants) => {
            let variants = variants
                .iter()
                .map(|variant| {
                    let kind = match variant.ty {
                        DataModelVariant::UnitVariant => Variant::Unit,
                        DataModelVariant::NewtypeVariant(of) => Variant::Newtype(push_static(of, nodes)),
                        // `Result` is described so. On the wire both are the same, and serde has it as a newtype.
                        DataModelVariant::TupleVariant([only]) => Variant::Newtype(push_static(only, nodes)),
                        DataModelVariant::TupleVariant(of) => {
                            Variant::Tuple(of.iter().map(|ty| push_static(ty, nodes)).collect())
                        }
                        DataModelVariant::StructVariant(of) => Variant::Struct(
                            of.iter().map(|f| (f.name.into(), push_static(f.ty, nodes))).collect(),
                        ),
                    };
                    (variant.name.into(), kind)
                })
                .collect();
            Node::Enum { name: ty.name.into(), variants }
        }
    };
    push(nodes, node)
}

#[cfg(test)]
mod tests {
    use postcard_schema::Schema as _;
    use postcard_schema::schema::owned::OwnedNamedType;

    use super::*;
    use crate::text::is_harmless;

    #[derive(postcard_schema::Schema)]
    #[expect(dead_code, reason = "only its schema is used")]
    enum Shape {
        Empty,
        Circle(f64),
        Box(u32, u32),
        Named { name: String, tags: Vec<Option<(u8, char)>> },
    }

    #[test]
    fn a_guests_encoding_reads_back_as_the_hosts_own_schema() {
        let owned = OwnedNamedType::from(Shape::SCHEMA);
        let mut bytes = postcard::to_stdvec(&owned).expect("serialises");
        bytes.push(99);
        let (schema, rest) = TypeSchema::decode_guest(&bytes).expect("decodes");
        assert_eq!(rest, [99]);
        assert_eq!(schema, TypeSchema::of::<Shape>());
        assert!(schema.is_compatible(&TypeSchema::of::<Shape>()) && schema.check().is_ok());
        assert!(!schema.is_compatible(&TypeSchema::of::<u8>()));
    }

    #[test]
    fn every_prefix_of_an_encoding_is_an_error_and_no_panic() {
        let owned = OwnedNamedType::from(Shape::SCHEMA);
        let bytes = postcard::to_stdvec(&owned).expect("serialises");
        for end in 0..bytes.len() {
            assert!(TypeSchema::decode_guest(&bytes[..end]).is_err(), "prefix of {end} bytes");
        }
    }

    #[test]
    fn nesting_beyond_the_limit_is_refused_before_the_stack_is_in_danger() {
        let mut bytes = [0u8, 18].repeat(1_000_000);
        bytes.extend([0, 0]);
        assert_eq!(TypeSchema::decode_guest(&bytes), Err(SchemaError::TooLarge));
    }

    #[test]
    fn cycles_and_shared_children_in_a_received_schema_are_not_well_formed() {
        let looped = TypeSchema { nodes: vec![Node::Option(0)] };
        assert!(looped.check().is_err());
        let shared = TypeSchema { nodes: vec![Node::U8, Node::Tuple(vec![0, 0])] };
        assert!(shared.check().is_err(), "a shared child");
    }

    #[test]
    fn names_in_a_schema_cannot_drive_a_terminal() {
        let field = ("a\u{1b}[31m".to_string(), 0);
        let schema = TypeSchema {
            nodes: vec![Node::U8, Node::Struct { name: "\u{202e}b".into(), fields: vec![field] }],
        };
        for shown in [schema.to_string(), format!("{schema:?}")] {
            assert!(shown.chars().all(is_harmless), "{shown:?}");
        }
    }

    #[test]
    fn signatures_read_like_rust() {
        assert_eq!(TypeSchema::of::<(u64, Vec<String>)>().to_string(), "(u64, Vec<String>)");
        let result = TypeSchema::of::<Vec<Result<u8, Option<String>>>>();
        assert_eq!(result.to_string(), "Vec<Result<u8, Option<String>>>");
        let owned = postcard::to_stdvec(&OwnedNamedType::from(<Result<u8, ()>>::SCHEMA)).expect("serialises");
        let (decoded, _) = TypeSchema::decode_guest(&owned).expect("decodes");
        assert_eq!(decoded, TypeSchema::of::<Result<u8, ()>>());
        assert!(TypeSchema::raw_bytes().is_compatible(&TypeSchema::of::<Vec<u8>>()));
    }
}
