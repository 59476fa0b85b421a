//! The types that WAVE has forms of its own for, as they stand in a schema.

use proto::schema::{Node, TypeSchema, Variant};

/// Returns whether fields are flags: there is one at least, and each is a `bool`.
pub(super) fn are_flags(schema: &TypeSchema, fields: &[(String, u32)]) -> bool {
    !fields.is_empty() && fields.iter().all(|(_, id)| matches!(schema.node(*id), Node::Bool))
}

/// Returns the type of a variant's content, if it is one value. The schema of Rust's `Result` has tuples of one there,
/// which are the same on the wire.
pub(super) fn content(kind: &Variant) -> Option<u32> {
    match kind {
        Variant::Newtype(id) => Some(*id),
        Variant::Tuple(ids) => match ids[..] {
            [id] => Some(id),
            _ => None,
        },
        Variant::Unit | Variant::Struct(_) => None,
    }
}

/// Returns the types of both sides of a result: an enum of `Ok(…)` and `Err(…)`.
pub(super) fn sides(node: &Node) -> Option<[u32; 2]> {
    let Node::Enum { variants, .. } = node else { return None };
    match &variants[..] {
        [(ok, of_ok), (err, of_err)] if ok == "Ok" && err == "Err" => {
            Some([content(of_ok)?, content(of_err)?])
        }
        _ => None,
    }
}

/// Returns whether the content of an option or of a result may be written without `some(…)` or `ok(…)` around it.
/// Of an option in an option, `none` could not be told apart.
pub(super) fn may_stand_alone(content: &Node) -> bool {
    !matches!(content, Node::Option(_) | Node::Unit) && sides(content).is_none()
}

/// Returns whether a map may have such keys. Each of them is one word of the text.
pub(super) fn is_key(node: &Node) -> bool {
    !matches!(
        node,
        Node::Unit
            | Node::Bytes
            | Node::Option(_)
            | Node::Seq(_)
            | Node::Tuple(_)
            | Node::Map(..)
            | Node::Struct { .. }
    )
}
