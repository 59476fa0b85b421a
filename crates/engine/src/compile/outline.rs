//! A module's outline: its imports, its exports and their types, read without compiling it.
//!
//! An outline that rules out loading is reported at once, since compiling may take minutes. A module that is
//! not valid up to its code has no outline; the engine then says what is wrong with it.

use wasmparser::types::{EntityType, TypesRef};
use wasmparser::{FuncType, MemoryType, Parser, Payload, ValType, Validator, WasmFeatures};

/// The parts of a module that others can see.
pub(super) struct Outline {
    pub(super) imports: Vec<Import>,
    pub(super) exports: Vec<Export>,
    /// Says whether the module runs code of its own while it is instantiated.
    pub(super) has_start: bool,
}

pub(super) struct Import {
    pub(super) module: String,
    pub(super) name: String,
    pub(super) item: Item,
}

pub(super) struct Export {
    pub(super) name: String,
    pub(super) item: Item,
    /// Its number among the module's things of this kind.
    pub(super) index: u32,
}

/// Something that is imported or exported.
pub(super) enum Item {
    Func(FuncType),
    Global(ValType),
    Table,
    Memory(MemoryType),
    Tag,
}

impl Outline {
    pub(super) fn of(wasm: &[u8]) -> Option<Outline> {
        let mut validator = Validator::new_with_features(WasmFeatures::all());
        let mut outline = Outline { imports: Vec::new(), exports: Vec::new(), has_start: false };
        for payload in Parser::new(0).parse_all(wasm) {
            let payload = payload.ok()?;
            // The engine validates the bodies, and the outline needs nothing behind them.
            if let Payload::CodeSectionStart { .. } | Payload::DataSection(_) = payload {
                break;
            }
            validator.payload(&payload).ok()?;
            match payload {
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        let import = import.ok()?;
                        let types = validator.types(0)?;
                        let item = Item::of(types, types.entity_type_from_import(&import)?);
                        let module = import.module.into();
                        let name = import.name.into();
                        outline.imports.push(Import { module, name, item });
                    }
                }
                Payload::ExportSection(exports) => {
                    for export in exports {
                        let export = export.ok()?;
                        let types = validator.types(0)?;
                        let item = Item::of(types, types.entity_type_from_export(&export)?);
                        let name = export.name.into();
                        outline.exports.push(Export { name, item, index: export.index });
                    }
                }
                Payload::StartSection { .. } => outline.has_start = true,
                _ => {}
            }
        }
        Some(outline)
    }

    pub(super) fn export(&self, name: &str) -> Option<&Item> {
        self.exports.iter().find(|export| export.name == name).map(|export| &export.item)
    }

    /// Returns the type of an exported function.
    pub(super) fn function(&self, name: &str) -> Option<&FuncType> {
        match self.export(name) {
            Some(Item::Func(ty)) => Some(ty),
            _ => None,
        }
    }

    /// Returns the memories that are imported or exported.
    pub(super) fn memories(&self) -> impl Iterator<Item = &MemoryType> {
        let imported = self.imports.iter().map(|import| &import.item);
        imported.chain(self.exports.iter().map(|export| &export.item)).filter_map(|item| match item {
            Item::Memory(memory) => Some(memory),
            _ => None,
        })
    }
}

impl Item {
    fn of(types: TypesRef<'_>, ty: EntityType) -> Item {
        match ty {
            EntityType::Func(id) | EntityType::FuncExact(id) => Item::Func(types[id].unwrap_func().clone()),
            EntityType::Table(_) => Item::Table,
            EntityType::Memory(memory) => Item::Memory(memory),
            EntityType::Global(global) => Item::Global(global.content_type),
            EntityType::Tag(_) => Item::Tag,
        }
    }

    /// Shows the type to a person.
    pub(super) fn show(&self) -> String {
        match self {
            Item::Func(ty) => show(ty),
            Item::Global(ty) => format!("global {ty}"),
            Item::Table => "table".into(),
            Item::Memory(memory) => format!("memory, {} pages", memory.initial),
            Item::Tag => "tag".into(),
        }
    }
}

pub(super) fn show(ty: &FuncType) -> String {
    let list = |types: &[ValType]| types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!("({}) -> ({})", list(ty.params()), list(ty.results()))
}

pub(super) fn is(ty: &FuncType, params: &[ValType], results: &[ValType]) -> bool {
    ty.params() == params && ty.results() == results
}
