//! A component's outline: its imports, its exported functions and their types, read without compiling it.
//!
//! The schema of a function's parameters and of its result is made from their types. Types share their parts where they
//! are described, and a schema is a tree: whoever makes one stops at a schema's bounds, so that a few bytes of types
//! cannot come to a tree of any size. A function that has no schema is not callable, and says why.

mod schema;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use wasmparser::component_types::{
    ComponentAnyTypeId, ComponentDefinedTypeId, ComponentEntityType, ComponentFuncTypeId,
};
use wasmparser::types::{Types, TypesRef};
use wasmparser::{Encoding, Parser, Payload, ValidPayload, Validator, WasmFeatures};

use proto::description::{TaskDescription, UncallableFunction};
use proto::imports::component::{self, Provision};
use proto::limits::TASKS_PER_MODULE_MAX;

/// The parts of a component that others can see.
pub(super) struct ComponentOutline {
    /// Each import as `name: type`.
    pub(super) imports: Vec<String>,
    /// The imports that a worker does not provide, each with the reason where there is one.
    pub(super) unknown_imports: Vec<String>,
    /// Each export as `name: type`, and each function of an exported interface.
    pub(super) exports: Vec<String>,
    pub(super) tasks: Vec<TaskDescription>,
    pub(super) uncallable: Vec<UncallableFunction>,
    /// The export that is a command's program.
    pub(super) program: Option<String>,
    pub(super) uses_wasi: bool,
    /// Says whether one of its modules runs code of its own while it is instantiated.
    pub(super) has_start: bool,
}

/// The interface of a WASI 0.2 command, without its version.
const RUN_INTERFACE: &str = "wasi:cli/run";
const RUN_FUNCTION: &str = "run";

impl ComponentOutline {
    /// Reads a component; `None` if it is not valid up to its code: the engine then says what is wrong.
    pub(super) fn of(wasm: &[u8]) -> Option<ComponentOutline> {
        let mut validator = Validator::new_with_features(WasmFeatures::all());
        let mut names = Names::default();
        let mut depth = 0usize;
        let mut has_start = false;
        let mut types: Option<Types> = None;
        for payload in Parser::new(0).parse_all(wasm) {
            let payload = payload.ok()?;
            match &payload {
                Payload::Version { encoding, .. } => {
                    if depth == 0 && *encoding != Encoding::Component {
                        return None;
                    }
                    depth += 1;
                }
                Payload::ComponentImportSection(imports) if depth == 1 => {
                    for import in imports.clone() {
                        names.imports.push(import.ok()?.name.name.to_string());
                    }
                }
                Payload::ComponentExportSection(exports) if depth == 1 => {
                    for export in exports.clone() {
                        names.exports.push(export.ok()?.name.name.to_string());
                    }
                }
                Payload::StartSection { .. } | Payload::ComponentStartSection { .. } => has_start = true,
                Payload::End(_) => depth = depth.checked_sub(1)?,
                _ => {}
            }
            // The bodies of functions are validated by the engine.
            if let ValidPayload::End(whole) = validator.payload(&payload).ok()?
                && depth == 0
            {
                types = Some(whole);
            }
        }
        let types = types?;
        let mut reader = Reader::new(types.as_ref());
        reader.read(&names);
        let mut outline = reader.outline;
        outline.has_start = has_start;
        Some(outline)
    }

    /// Returns whether it is a WASI 0.2 command.
    pub(super) fn is_command(&self) -> bool {
        self.program.is_some()
    }
}

/// The names of the imports and exports of the component itself, and not of those inside of it.
#[derive(Default)]
struct Names {
    imports: Vec<String>,
    exports: Vec<String>,
}

struct Reader<'a> {
    types: TypesRef<'a>,
    /// The names under which types are exported.
    type_names: HashMap<ComponentDefinedTypeId, String>,
    outline: ComponentOutline,
}

impl<'a> Reader<'a> {
    fn new(types: TypesRef<'a>) -> Self {
        let outline = ComponentOutline {
            imports: Vec::new(),
            unknown_imports: Vec::new(),
            exports: Vec::new(),
            tasks: Vec::new(),
            uncallable: Vec::new(),
            program: None,
            uses_wasi: false,
            has_start: false,
        };
        Reader { types, type_names: HashMap::new(), outline }
    }

    fn read(&mut self, names: &Names) {
        for name in &names.imports {
            let Some(item) = self.types.component_item_for_import(name) else { continue };
            self.import(name, item.ty);
        }
        // A type that two interfaces name has the name of the last one, which is the more specific.
        for name in &names.exports {
            let Some(item) = self.types.component_item_for_export(name) else { continue };
            self.name_types(name, item.ty);
        }
        for name in &names.exports {
            let Some(item) = self.types.component_item_for_export(name) else { continue };
            self.export(name, item.ty);
        }
    }

    fn name_types(&mut self, name: &str, ty: ComponentEntityType) {
        match ty {
            ComponentEntityType::Type { created: ComponentAnyTypeId::Defined(id), .. } => {
                self.type_names.insert(id, name.to_string());
            }
            ComponentEntityType::Instance(id) => {
                for (name, item) in &self.types[id].exports {
                    if let ComponentEntityType::Type { created: ComponentAnyTypeId::Defined(id), .. } =
                        item.ty
                    {
                        self.type_names.insert(id, name.clone());
                    }
                }
            }
            _ => {}
        }
    }

    fn import(&mut self, name: &str, ty: ComponentEntityType) {
        self.name_types(name, ty);
        let shown = format!("{name}: {}", self.show(ty));
        self.outline.uses_wasi |= name.starts_with("wasi:");
        let needs_something = match ty {
            // A type says what something is, and nobody has to provide it.
            ComponentEntityType::Type { referenced, .. } => {
                matches!(referenced, ComponentAnyTypeId::Resource(_))
            }
            ComponentEntityType::Instance(id) => self.types[id].exports.values().any(|item| {
                !matches!(item.ty, ComponentEntityType::Type { referenced, .. }
                    if !matches!(referenced, ComponentAnyTypeId::Resource(_)))
            }),
            _ => true,
        };
        if needs_something {
            match component::provision(name) {
                Provision::Provided => {}
                Provision::Refused(why) => self.outline.unknown_imports.push(format!("{name} ({why})")),
                Provision::Unknown => self.outline.unknown_imports.push(shown.clone()),
            }
        }
        self.outline.imports.push(shown);
    }

    fn export(&mut self, name: &str, ty: ComponentEntityType) {
        match ty {
            ComponentEntityType::Func(id) => self.function(name.to_string(), id),
            ComponentEntityType::Instance(id) => {
                let unversioned = name.split_once('@').map_or(name, |(unversioned, _)| unversioned);
                self.outline.exports.push(format!("{name}: {}", self.show(ty)));
                let types = self.types;
                for (function, item) in &types[id].exports {
                    let ComponentEntityType::Func(id) = item.ty else { continue };
                    let full = format!("{name}#{function}");
                    if unversioned == RUN_INTERFACE && function == RUN_FUNCTION && !self.types[id].async_ {
                        self.outline.program = Some(full.clone());
                    }
                    self.function(full, id);
                }
            }
            other => self.outline.exports.push(format!("{name}: {}", self.show(other))),
        }
    }

    fn function(&mut self, export: String, id: ComponentFuncTypeId) {
        self.outline.exports.push(format!("{export}: {}", schema::show(&self.types, &self.type_names, id)));
        let described = match self.outline.tasks.len() {
            TASKS_PER_MODULE_MAX.. => Err(format!("a module has at most {TASKS_PER_MODULE_MAX} tasks")),
            _ => schema::task(&self.types, &self.type_names, &export, id),
        };
        match described {
            Ok(task) => self.outline.tasks.push(task),
            Err(reason) => self.outline.uncallable.push(UncallableFunction::new(export, reason)),
        }
    }

    /// Shows a type to a person.
    fn show(&self, ty: ComponentEntityType) -> String {
        match ty {
            ComponentEntityType::Module(_) => "core module".into(),
            ComponentEntityType::Func(id) => schema::show(&self.types, &self.type_names, id),
            ComponentEntityType::Value(_) => "value".into(),
            ComponentEntityType::Type { referenced: ComponentAnyTypeId::Resource(_), .. } => {
                "resource".into()
            }
            ComponentEntityType::Type { .. } => "type".into(),
            ComponentEntityType::Instance(id) => {
                let exports = &self.types[id].exports;
                let is_function = |item: &&wasmparser::component_types::ComponentItem| {
                    matches!(item.ty, ComponentEntityType::Func(_))
                };
                match exports.values().filter(is_function).count() {
                    1 => "interface, 1 function".into(),
                    several => format!("interface, {several} functions"),
                }
            }
            ComponentEntityType::Component(_) => "component".into(),
        }
    }
}
