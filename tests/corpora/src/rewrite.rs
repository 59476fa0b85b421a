//! Gives a module the byte ABI, without moving a single index: what is added comes last, and what
//! was imported is defined in its place.

use std::borrow::Cow;
use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;

use wasm_encoder::reencode::{self, Reencode, RoundtripReencoder};
use wasm_encoder::{
    CodeSection, ConstExpr, DataCountSection, DataSection, ElementSection, ExportKind, ExportSection,
    Function, FunctionSection, GlobalSection, ImportSection, MemorySection, MemoryType, Module, RefType,
    StartSection, TableSection, TableType, TagSection, TypeSection, ValType,
};
use wasmparser::{Import, TypeRef};

use crate::outline::Outline;

/// Original exports keep their meaning under another name: some names are the byte ABI's.
const EXPORTED: &str = "original:";

/// The ways to treat a module's imports.
#[derive(Debug)]
pub enum Imports<'a> {
    /// They stay: the pool provides them, or refuses the module.
    Keep,
    /// They become definitions: those of the test-suite's module `spectest`, and these. There must
    /// be no others.
    Define(&'a Definitions),
}

/// A definition that takes the place of something that another module exports, without a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Definition {
    /// A function with this body, which refers to nothing.
    Body(Vec<u8>),
    /// A function that throws what the same module exports under this name.
    Throws(String),
    /// A tag.
    Tag,
}

/// The definitions, by the module and name that they are imported from.
pub type Definitions = HashMap<(String, String), Definition>;

/// A tag that is imported twice is one tag.
struct SameTags(HashMap<u32, u32>);

impl Reencode for SameTags {
    type Error = Infallible;

    fn tag_index(&mut self, tag: u32) -> Result<u32, reencode::Error> {
        Ok(self.0.get(&tag).copied().unwrap_or(tag))
    }
}

/// A module in the making: the original, and what is added.
#[derive(Debug)]
pub struct Rewrite<'a> {
    outline: &'a Outline<'a>,
    imports: Imports<'a>,
    types: Vec<(Vec<ValType>, Vec<ValType>)>,
    functions: Vec<(u32, Function)>,
    exports: Vec<(String, u32)>,
    own_memory: bool,
    exported_memory: Option<u32>,
}

impl<'a> Rewrite<'a> {
    /// Begins with nothing added, not even the byte ABI.
    pub fn new(outline: &'a Outline<'a>, imports: Imports<'a>) -> Self {
        Rewrite {
            outline,
            imports,
            types: Vec::new(),
            functions: Vec::new(),
            exports: Vec::new(),
            own_memory: false,
            exported_memory: None,
        }
    }

    /// Adds and exports a memory of one page that the original code cannot know. Returns its index.
    pub fn own_memory(&mut self) -> u32 {
        self.own_memory = true;
        self.exported_memory = Some(self.outline.memories.len() as u32);
        self.outline.memories.len() as u32
    }

    /// Exports the original's first memory, so that host and module write to the same one. Returns
    /// its index, if there is one of 32-bit addresses.
    pub fn shared_memory(&mut self) -> Option<u32> {
        self.exported_memory = self.outline.memories.first().filter(|ty| !ty.memory64).map(|_| 0);
        self.exported_memory
    }

    /// Adds the byte ABI's marker, and an allocator that always answers with `input`.
    pub fn byte_abi(&mut self, input: i32) {
        let mut marker = Function::new([]);
        marker.instructions().end();
        let marker = self.function(&[], &[], marker);
        self.export("wasmpool_abi_v1", marker);
        let mut alloc = Function::new([]);
        alloc.instructions().i32_const(input).end();
        let alloc = self.function(&[ValType::I32], &[ValType::I32], alloc);
        self.export("wasmpool_alloc", alloc);
    }

    /// Adds a function and returns its index.
    pub fn function(&mut self, params: &[ValType], results: &[ValType], body: Function) -> u32 {
        let ty = (params.to_vec(), results.to_vec());
        let known = self.types.iter().position(|known| *known == ty);
        let added = known.unwrap_or_else(|| {
            self.types.push(ty);
            self.types.len() - 1
        });
        let index = self.next_function();
        self.functions.push(((self.outline.types.len() + added) as u32, body));
        index
    }

    /// The index of the function that is added next.
    pub fn next_function(&self) -> u32 {
        (self.outline.functions.len() + self.functions.len()) as u32
    }

    /// Exports an added function.
    pub fn export(&mut self, name: impl Into<String>, function: u32) {
        self.exports.push((name.into(), function));
    }

    /// The module's bytes.
    ///
    /// # Errors
    /// What cannot be encoded again, or is imported and not the test-suite's.
    pub fn finish(self) -> Result<Vec<u8>, RewriteError> {
        let outline = self.outline;
        let sections = &self.outline.sections;
        let mut same = RoundtripReencoder;
        let mut parts = Parts::default();
        if let Some(section) = &sections.types {
            same.parse_type_section(&mut parts.types, section.clone())?;
        }
        for (params, results) in &self.types {
            parts.types.ty().function(params.iter().copied(), results.iter().copied());
        }
        for import in &outline.imports {
            match self.imports {
                Imports::Keep => same.parse_import(&mut parts.imports, *import)?,
                Imports::Define(definitions) => parts.define(outline, import, definitions)?,
            }
        }
        if let Some(section) = &sections.functions {
            same.parse_function_section(&mut parts.functions, section.clone())?;
        }
        if let Some(section) = &sections.tables {
            same.parse_table_section(&mut parts.tables, section.clone())?;
        }
        if let Some(section) = &sections.memories {
            same.parse_memory_section(&mut parts.memories, section.clone())?;
        }
        if let Some(section) = &sections.tags {
            same.parse_tag_section(&mut parts.tags, section.clone())?;
        }
        if let Some(section) = &sections.globals {
            same.parse_global_section(&mut parts.globals, section.clone())?;
        }
        for export in &outline.exports {
            let kind = same.export_kind(export.kind)?;
            parts.exports.export(&format!("{EXPORTED}{}", export.name), kind, export.index);
        }
        if let Some(section) = &sections.elements {
            same.parse_element_section(&mut parts.elements, section.clone())?;
        }
        if let Some(section) = &sections.data {
            same.parse_data_section(&mut parts.data, section.clone())?;
        }
        let mut tags = SameTags(self.same_tags());
        for body in &outline.bodies {
            match tags.0.is_empty() {
                true => parts.code.raw(body.as_bytes()),
                false => {
                    tags.parse_function_body(&mut parts.code, body.clone())?;
                    &mut parts.code
                }
            };
        }
        self.add_own(&mut parts);
        Ok(parts.module(outline.start, outline.data_count))
    }

    /// Adds the memory, the functions and the exports that the module did not have.
    fn add_own(&self, parts: &mut Parts) {
        if self.own_memory {
            parts.memories.memory(MemoryType {
                minimum: 1,
                maximum: Some(1),
                memory64: false,
                shared: false,
                page_size_log2: None,
            });
        }
        if let Some(memory) = self.exported_memory {
            parts.exports.export("memory", ExportKind::Memory, memory);
        }
        for (ty, body) in &self.functions {
            parts.functions.function(*ty);
            parts.code.function(body);
        }
        for (name, function) in &self.exports {
            parts.exports.export(name, ExportKind::Func, *function);
        }
    }

    /// Returns where imported tags become definitions: each later one of the same name, and the first.
    fn same_tags(&self) -> HashMap<u32, u32> {
        let Imports::Define(_) = self.imports else { return HashMap::new() };
        let tags = self.outline.imported_tags().enumerate();
        let first = tags.filter_map(|(tag, import)| {
            let first = self.outline.imported_tag(import.module, import.name)?;
            (first != tag as u32).then_some((tag as u32, first))
        });
        first.collect()
    }
}

#[derive(Default)]
struct Parts {
    types: TypeSection,
    imports: ImportSection,
    functions: FunctionSection,
    tables: TableSection,
    memories: MemorySection,
    tags: TagSection,
    globals: GlobalSection,
    exports: ExportSection,
    elements: ElementSection,
    code: CodeSection,
    data: DataSection,
}

impl Parts {
    /// Defines what the test-suite's host module offers, with the same limits and values; or what
    /// another module exports.
    fn define(
        &mut self,
        outline: &Outline<'_>,
        import: &Import<'_>,
        definitions: &Definitions,
    ) -> Result<(), RewriteError> {
        let foreign = || RewriteError::Imports(format!("{}.{}", import.module, import.name));
        if import.module != "spectest" {
            let definition = definitions.get(&(import.module.to_string(), import.name.to_string()));
            match (definition, import.ty) {
                (Some(Definition::Body(body)), TypeRef::Func(ty)) => {
                    self.functions.function(ty);
                    self.code.raw(body);
                }
                (Some(Definition::Throws(tag)), TypeRef::Func(ty)) => {
                    let tag = outline.imported_tag(import.module, tag).ok_or_else(foreign)?;
                    let mut throws = Function::new([]);
                    throws.instructions().throw(tag).end();
                    self.functions.function(ty);
                    self.code.function(&throws);
                }
                (Some(Definition::Tag), TypeRef::Tag(ty)) => {
                    self.tags.tag(RoundtripReencoder.tag_type(ty)?);
                }
                _ => return Err(foreign()),
            }
            return Ok(());
        }
        match (import.name, import.ty) {
            (name, TypeRef::Func(ty)) if name.starts_with("print") => {
                self.functions.function(ty);
                let mut nothing = Function::new([]);
                nothing.instructions().end();
                self.code.function(&nothing);
            }
            ("memory", TypeRef::Memory(_)) => {
                self.memories.memory(MemoryType {
                    minimum: 1,
                    maximum: Some(2),
                    memory64: false,
                    shared: false,
                    page_size_log2: None,
                });
            }
            (name @ ("table" | "table64"), TypeRef::Table(_)) => {
                self.tables.table(TableType {
                    element_type: RefType::FUNCREF,
                    table64: name == "table64",
                    minimum: 10,
                    maximum: Some(20),
                    shared: false,
                });
            }
            (name, TypeRef::Global(ty)) => {
                let value = match name {
                    "global_i32" => ConstExpr::i32_const(666),
                    "global_i64" => ConstExpr::i64_const(666),
                    "global_f32" => ConstExpr::f32_const(666.6f32.into()),
                    "global_f64" => ConstExpr::f64_const(666.6f64.into()),
                    _ => return Err(foreign()),
                };
                self.globals.global(RoundtripReencoder.global_type(ty)?, &value);
            }
            _ => return Err(foreign()),
        }
        Ok(())
    }

    fn module(self, start: Option<u32>, data_count: Option<u32>) -> Vec<u8> {
        let mut module = Module::new();
        module.section(&self.types);
        if !self.imports.is_empty() {
            module.section(&self.imports);
        }
        module.section(&self.functions);
        if !self.tables.is_empty() {
            module.section(&self.tables);
        }
        if !self.memories.is_empty() {
            module.section(&self.memories);
        }
        if !self.tags.is_empty() {
            module.section(&self.tags);
        }
        if !self.globals.is_empty() {
            module.section(&self.globals);
        }
        module.section(&self.exports);
        if let Some(function_index) = start {
            module.section(&StartSection { function_index });
        }
        if !self.elements.is_empty() {
            module.section(&self.elements);
        }
        if let Some(count) = data_count {
            module.section(&DataCountSection { count });
        }
        module.section(&self.code);
        if !self.data.is_empty() {
            module.section(&self.data);
        }
        module.finish()
    }
}

/// Why a module cannot be given the byte ABI.
#[derive(Debug)]
pub enum RewriteError {
    /// The module imports this, which nobody here defines.
    Imports(String),
    /// The module has something that the encoder does not know.
    Encoder(Cow<'static, str>),
}

impl fmt::Display for RewriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RewriteError::Imports(import) => write!(f, "it imports {import}"),
            RewriteError::Encoder(words) => f.write_str(words),
        }
    }
}

impl std::error::Error for RewriteError {}

impl From<reencode::Error> for RewriteError {
    fn from(error: reencode::Error) -> Self {
        RewriteError::Encoder(error.to_string().into())
    }
}
