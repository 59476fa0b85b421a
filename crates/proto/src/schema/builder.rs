//! Schemas that are made node by node, from types that somebody else has described.

use super::{Node, NodeId, SchemaError, TypeSchema};
use crate::limits::SCHEMA_NODES_MAX;

/// Says why a type that somebody else has described has no schema.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// A value that means something in one process only.
    #[error("{0} cannot be handed to another process")]
    Handle(&'static str),
    /// A kind of type that schemas do not have.
    #[error("{0} has no place in a task's types")]
    Unknown(&'static str),
    /// The schema would break a bound of schemas.
    #[error("its types: {0}")]
    Schema(#[from] SchemaError),
}

/// A schema in the making. It never holds more nodes than a schema may have: types that share their parts are small where
/// they are described and can be very large as a tree.
#[derive(Debug, Default)]
pub struct SchemaBuilder {
    nodes: Vec<Node>,
}

impl SchemaBuilder {
    /// Adds a node, whose children were added before it.
    ///
    /// # Errors
    /// [`SchemaError::TooLarge`].
    pub fn push(&mut self, node: Node) -> Result<NodeId, SchemaError> {
        if self.nodes.len() >= SCHEMA_NODES_MAX {
            return Err(SchemaError::TooLarge);
        }
        self.nodes.push(node);
        Ok((self.nodes.len() - 1) as NodeId)
    }

    /// Returns the schema of which the node that was added last is the root.
    ///
    /// # Errors
    /// [`SchemaError`], for what the checks of any schema refuse.
    pub fn finish(self) -> Result<TypeSchema, SchemaError> {
        let schema = TypeSchema { nodes: self.nodes };
        schema.check()?;
        Ok(schema)
    }
}
