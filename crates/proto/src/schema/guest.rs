//! Parses a guest's own description of its types from its bytes.

use super::{Node, NodeId, SchemaError, Variant, push};
use crate::limits::{SCHEMA_DEPTH_MAX, SCHEMA_NAME_BYTES_MAX, SCHEMA_NAMES_BYTES_MAX, SCHEMA_NODES_MAX};

/// Returns the nodes of the first type, and the bytes behind it.
pub(super) fn read(bytes: &[u8]) -> Result<(Vec<Node>, &[u8]), SchemaError> {
    let mut reader = Reader { bytes, nodes: Vec::new(), names_bytes: 0 };
    reader.named_type(0)?;
    Ok((reader.nodes, reader.bytes))
}

/// Reads `OwnedNamedType` by postcard's rules: varints, length-prefixed names, and enum tags in declaration
/// order (postcard-schema 0.2, `schema/owned.rs`).
struct Reader<'a> {
    bytes: &'a [u8],
    nodes: Vec<Node>,
    /// The length of all names so far.
    names_bytes: usize,
}

impl Reader<'_> {
    fn varint(&mut self) -> Result<u64, SchemaError> {
        let mut value = 0u64;
        for shift in 0..5 {
            let (&byte, rest) = self.bytes.split_first().ok_or(SchemaError::Truncated)?;
            self.bytes = rest;
            value |= u64::from(byte & 0x7f) << (7 * shift);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(SchemaError::Malformed)
    }

    fn count(&mut self) -> Result<usize, SchemaError> {
        let count = self.varint()? as usize;
        if count > SCHEMA_NODES_MAX { Err(SchemaError::TooLarge) } else { Ok(count) }
    }

    fn name(&mut self) -> Result<String, SchemaError> {
        let len = self.varint()? as usize;
        if len > self.bytes.len() {
            return Err(SchemaError::Truncated);
        }
        self.names_bytes = self.names_bytes.saturating_add(len);
        if len > SCHEMA_NAME_BYTES_MAX || self.names_bytes > SCHEMA_NAMES_BYTES_MAX {
            return Err(SchemaError::NamesTooLong);
        }
        let (name, rest) = self.bytes.split_at(len);
        self.bytes = rest;
        String::from_utf8(name.to_vec()).map_err(|_| SchemaError::Malformed)
    }

    fn push(&mut self, node: Node) -> Result<NodeId, SchemaError> {
        if self.nodes.len() >= SCHEMA_NODES_MAX {
            return Err(SchemaError::TooLarge);
        }
        Ok(push(&mut self.nodes, node))
    }

    fn list(&mut self, depth: usize) -> Result<Vec<NodeId>, SchemaError> {
        (0..self.count()?).map(|_| self.named_type(depth)).collect()
    }

    fn fields(&mut self, depth: usize) -> Result<Vec<(String, NodeId)>, SchemaError> {
        (0..self.count()?).map(|_| Ok((self.name()?, self.named_type(depth)?))).collect()
    }

    fn named_type(&mut self, depth: usize) -> Result<NodeId, SchemaError> {
        if depth > SCHEMA_DEPTH_MAX {
            return Err(SchemaError::TooLarge);
        }
        let deeper = depth + 1;
        let name = self.name()?;
        let node = match self.varint()? {
            0 => Node::Bool,
            1 => Node::I8,
            2 => Node::U8,
            3 => Node::I16,
            4 => Node::I32,
            5 => Node::I64,
            6 => Node::I128,
            7 => Node::U16,
            8 => Node::U32,
            9 => Node::U64,
            10 => Node::U128,
            11 => Node::Usize,
            12 => Node::Isize,
            13 => Node::F32,
            14 => Node::F64,
            15 => Node::Char,
            16 => Node::String,
            17 => Node::Bytes,
            18 => Node::Option(self.named_type(deeper)?),
            19 | 20 => Node::Unit,
            21 => return self.named_type(deeper),
            22 => Node::Seq(self.named_type(deeper)?),
            23 | 24 => Node::Tuple(self.list(deeper)?),
            25 => {
                let key = self.named_type(deeper)?;
                Node::Map(key, self.named_type(deeper)?)
            }
            26 => Node::Struct { name, fields: self.fields(deeper)? },
            27 => {
                let mut variants = Vec::new();
                for _ in 0..self.count()? {
                    let variant = self.name()?;
                    let kind = match self.varint()? {
                        0 => Variant::Unit,
                        1 => Variant::Newtype(self.named_type(deeper)?),
                        2 => match self.list(deeper)?[..] {
                            // As in `TypeSchema::of`.
                            [only] => Variant::Newtype(only),
                            ref several => Variant::Tuple(several.to_vec()),
                        },
                        3 => Variant::Struct(self.fields(deeper)?),
                        tag => return Err(SchemaError::UnknownTag(tag)),
                    };
                    variants.push((variant, kind));
                }
                Node::Enum { name, variants }
            }
            28 => Node::String,
            tag => return Err(SchemaError::UnknownTag(tag)),
        };
        self.push(node)
    }
}
