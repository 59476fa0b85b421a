//! Checks of a schema that came from a stranger: it is bounded, a tree, and plain to read as JSON.

use std::collections::HashSet;

use super::{Node, SchemaError, TypeSchema, Variant};
use crate::limits::{SCHEMA_DEPTH_MAX, SCHEMA_NAME_BYTES_MAX, SCHEMA_NAMES_BYTES_MAX, SCHEMA_NODES_MAX};
use crate::text::is_blank;

/// # Errors
/// [`SchemaError`], for the first thing that is wrong.
pub(super) fn check(schema: &TypeSchema) -> Result<(), SchemaError> {
    let nodes = &schema.nodes;
    if nodes.is_empty() {
        return Err(SchemaError::Malformed);
    }
    if nodes.len() > SCHEMA_NODES_MAX {
        return Err(SchemaError::TooLarge);
    }
    let mut names_bytes = 0;
    for name in nodes.iter().flat_map(Node::names) {
        names_bytes += name.len();
        if name.len() > SCHEMA_NAME_BYTES_MAX || names_bytes > SCHEMA_NAMES_BYTES_MAX {
            return Err(SchemaError::NamesTooLong);
        }
    }
    check_tree(nodes)?;
    nodes.iter().try_for_each(check_names)?;
    check_counts(nodes)
}

fn check_tree(nodes: &[Node]) -> Result<(), SchemaError> {
    let mut depths = Vec::with_capacity(nodes.len());
    // Each node has one parent: shared children would let a small arena stand for a type of
    // exponential size, and every walk of it would take that long.
    let mut has_parent = vec![false; nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        let mut depth = 0;
        for child in node.children() {
            if child as usize >= index || std::mem::replace(&mut has_parent[child as usize], true) {
                return Err(SchemaError::Malformed);
            }
            depth = depth.max(depths[child as usize] + 1);
        }
        if depth > SCHEMA_DEPTH_MAX {
            return Err(SchemaError::TooLarge);
        }
        depths.push(depth);
    }
    Ok(())
}

/// Names say in JSON which field or variant is meant, so that each is there once, and can be seen. A type may have no
/// name, which nothing depends on.
fn check_names(node: &Node) -> Result<(), SchemaError> {
    let type_name = |name: &String| match is_blank(name) && !name.is_empty() {
        true => Err(SchemaError::BlankName),
        false => Ok(()),
    };
    match node {
        Node::Struct { name, fields } => {
            type_name(name)?;
            check_distinct(fields.iter().map(|(name, _)| name))
        }
        Node::Enum { name, variants } => {
            type_name(name)?;
            check_distinct(variants.iter().map(|(name, _)| name))?;
            variants.iter().try_for_each(|(_, variant)| match variant {
                Variant::Struct(fields) => check_distinct(fields.iter().map(|(name, _)| name)),
                Variant::Unit | Variant::Newtype(_) | Variant::Tuple(_) => Ok(()),
            })
        }
        _ => Ok(()),
    }
}

/// # Errors
/// [`SchemaError::BlankName`], [`SchemaError::RepeatedName`].
pub fn check_distinct<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), SchemaError> {
    let mut seen = HashSet::new();
    for name in names {
        if is_blank(name) {
            return Err(SchemaError::BlankName);
        }
        if !seen.insert(name) {
            return Err(SchemaError::RepeatedName { name: name.clone() });
        }
    }
    Ok(())
}

/// Refuses lists and maps whose items take no bytes: a few bytes would say that there are 2^60 of them, and whoever
/// reads such a list is at it for years.
fn check_counts(nodes: &[Node]) -> Result<(), SchemaError> {
    let mut has_bytes: Vec<bool> = Vec::with_capacity(nodes.len());
    for node in nodes {
        // Children stand before their parents.
        let of = |id: &u32| has_bytes.get(*id as usize).copied().unwrap_or(false);
        has_bytes.push(match node {
            Node::Unit => false,
            Node::Tuple(types) => types.iter().any(of),
            Node::Struct { fields, .. } => fields.iter().any(|(_, id)| of(id)),
            Node::Seq(item) if !of(item) => return Err(SchemaError::ItemsWithoutBytes),
            Node::Map(key, value) if !of(key) && !of(value) => return Err(SchemaError::ItemsWithoutBytes),
            _ => true,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn schema(nodes: Vec<Node>) -> Result<(), SchemaError> {
        check(&TypeSchema { nodes })
    }

    fn fields(names: &[&str]) -> Vec<(String, u32)> {
        (0..).zip(names).map(|(id, name)| (name.to_string(), id)).collect()
    }

    /// A struct, a variant with fields, and an enum, with these names.
    fn named(names: &[&str]) -> [Result<(), SchemaError>; 3] {
        let units = || vec![Node::Unit; names.len()];
        let with = |node| schema([units(), vec![node]].concat());
        let variants = |variants| Node::Enum { name: "E".into(), variants };
        [
            with(Node::Struct { name: "S".into(), fields: fields(names) }),
            with(variants(vec![("V".into(), Variant::Struct(fields(names)))])),
            with(variants(
                fields(names).into_iter().map(|(name, id)| (name, Variant::Newtype(id))).collect(),
            )),
        ]
    }

    #[test]
    fn names_are_distinct_and_can_be_seen() {
        assert_eq!(named(&["a", "b", "ä", "a b"]), [Ok(()), Ok(()), Ok(())]);
        let repeated = || Err(SchemaError::RepeatedName { name: "a".into() });
        assert_eq!(named(&["a", "b", "a"]), [repeated(), repeated(), repeated()]);
        for blank in
            ["", " ", "\t", "\u{a0}", "\u{3000}", "\u{2800}", "\u{200b}", "\u{3164}\u{2003}", "\u{e0041}"]
        {
            let refused = || Err(SchemaError::BlankName);
            assert_eq!(named(&["a", blank]), [refused(), refused(), refused()], "{blank:?}");
            let of_type = schema(vec![Node::Struct { name: blank.into(), fields: Vec::new() }]);
            assert_eq!(of_type.is_ok(), blank.is_empty(), "{blank:?}");
        }
    }

    #[test]
    fn the_items_of_lists_and_maps_take_bytes() {
        type Empty = ((), [(); 3], ((),));
        let refused = Err(SchemaError::ItemsWithoutBytes);
        for schema in [
            TypeSchema::of::<Vec<()>>(),
            TypeSchema::of::<Vec<Empty>>(),
            TypeSchema::of::<Option<Vec<(Empty, ())>>>(),
            TypeSchema::of::<BTreeMap<(), Empty>>(),
            TypeSchema::of::<(u8, Vec<Vec<()>>)>(),
        ] {
            assert_eq!(check(&schema), refused, "{schema}");
        }
        for schema in [
            TypeSchema::of::<Vec<(Empty, bool)>>(),
            TypeSchema::of::<Vec<Option<()>>>(),
            TypeSchema::of::<Vec<Vec<u8>>>(),
            TypeSchema::of::<BTreeMap<u8, ()>>(),
            TypeSchema::of::<BTreeMap<(), u8>>(),
            TypeSchema::of::<Empty>(),
        ] {
            assert_eq!(check(&schema), Ok(()), "{schema}");
        }
    }
}
