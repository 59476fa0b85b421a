//! Schemas that are made node by node, from types that somebody else has described.

use super::{Node, NodeId, SchemaError, TypeSchema};
use crate::limits::SCHEMA_NODES_MAX;

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
