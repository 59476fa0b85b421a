//! The structs and enums that signatures name.

use std::collections::HashSet;

use proto::schema::{Node, TypeSchema, Variant};
use proto::text::Name;
use wasmpool::module::TaskDescription;

/// Longer definitions take a line for each field.
const ONE_LINE_BYTES_MAX: usize = 72;

/// A type with a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TypeDefinition {
    /// `struct` or `enum`.
    pub(super) kind: &'static str,
    pub(super) name: String,
    parts: Vec<String>,
}

/// Every named type of the tasks' inputs and outputs, once, in the order of appearance.
pub(super) fn collect(tasks: &[TaskDescription]) -> Vec<TypeDefinition> {
    let mut found = Vec::new();
    let mut defined = HashSet::new();
    let schemas = tasks.iter().flat_map(|task| [Some(&task.input), Some(&task.output), task.error.as_ref()]);
    for schema in schemas.flatten() {
        let mut collector =
            Collector { schema, seen: HashSet::new(), defined: &mut defined, found: &mut found };
        collector.node(schema.root());
    }
    found
}

impl TypeDefinition {
    /// Shows the definition as Rust would write it.
    pub(super) fn text(&self) -> String {
        let TypeDefinition { kind, name, parts } = self;
        let line = format!("{kind} {name} {{ {} }}", parts.join(", "));
        match parts.len() {
            0 => format!("{kind} {name} {{}}"),
            _ if line.len() <= ONE_LINE_BYTES_MAX => line,
            _ => format!("{kind} {name} {{\n    {},\n}}", parts.join(",\n    ")),
        }
    }
}

struct Collector<'a> {
    schema: &'a TypeSchema,
    /// Children may be shared, so that walking all paths could take for ever.
    seen: HashSet<u32>,
    /// It is a set because a module may define a million types.
    defined: &'a mut HashSet<TypeDefinition>,
    found: &'a mut Vec<TypeDefinition>,
}

impl Collector<'_> {
    fn child(&mut self, id: u32) {
        if self.seen.insert(id) {
            self.node(self.schema.node(id));
        }
    }

    fn node(&mut self, node: &Node) {
        // This one everybody knows.
        if let Some((value, error)) = self.schema.result_parts(node) {
            return [value, error].into_iter().for_each(|id| self.child(id));
        }
        match node {
            Node::Option(id) | Node::Seq(id) => self.child(*id),
            Node::Map(key, value) => [*key, *value].into_iter().for_each(|id| self.child(id)),
            Node::Tuple(ids) => ids.iter().for_each(|id| self.child(*id)),
            Node::Struct { name, fields } => {
                self.define("struct", name, self.fields(fields));
                fields.iter().for_each(|(_, id)| self.child(*id));
            }
            Node::Enum { name, variants } => {
                let parts = variants.iter().map(|(name, kind)| self.variant(name, kind)).collect();
                self.define("enum", name, parts);
                variants.iter().for_each(|(_, kind)| match kind {
                    Variant::Unit => {}
                    Variant::Newtype(id) => self.child(*id),
                    Variant::Tuple(ids) => ids.iter().for_each(|id| self.child(*id)),
                    Variant::Struct(fields) => fields.iter().for_each(|(_, id)| self.child(*id)),
                });
            }
            _ => {}
        }
    }

    fn define(&mut self, kind: &'static str, name: &str, parts: Vec<String>) {
        // A long definition has each part on a line of its own, so no part may hold a line break.
        let parts = parts.iter().map(|part| Name(part).to_string()).collect();
        let definition = TypeDefinition { kind, name: Name(name).to_string(), parts };
        // A type without a name stands in full wherever it is used.
        if !name.is_empty() && self.defined.insert(definition.clone()) {
            self.found.push(definition);
        }
    }

    fn show(&self, id: u32) -> String {
        self.schema.show_inside(self.schema.node(id))
    }

    fn fields(&self, fields: &[(String, u32)]) -> Vec<String> {
        fields.iter().map(|(name, id)| format!("{name}: {}", self.show(*id))).collect()
    }

    fn variant(&self, name: &str, kind: &Variant) -> String {
        match kind {
            Variant::Unit => name.into(),
            Variant::Newtype(id) => format!("{name}({})", self.show(*id)),
            Variant::Tuple(ids) => {
                let types: Vec<_> = ids.iter().map(|id| self.show(*id)).collect();
                format!("{name}({})", types.join(", "))
            }
            Variant::Struct(fields) => format!("{name} {{ {} }}", self.fields(fields).join(", ")),
        }
    }
}
