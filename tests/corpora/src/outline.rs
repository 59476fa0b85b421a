//! Lists what a module consists of, as far as adding to it needs it.

use wasmparser::{
    CompositeInnerType, DataSectionReader, ElementSectionReader, Export, ExportSectionReader, ExternalKind,
    FuncType, FunctionBody, FunctionSectionReader, GlobalSectionReader, GlobalType, Import,
    MemorySectionReader, MemoryType, Operator, Parser, Payload, SubType, TableSectionReader,
    TagSectionReader, TypeRef, TypeSectionReader,
};

use crate::rewrite::Definition;

/// A valid module, read once. Index spaces are complete: what is imported comes first.
#[derive(Debug, Default)]
pub struct Outline<'a> {
    pub(crate) types: Vec<SubType>,
    pub(crate) imports: Vec<Import<'a>>,
    /// The type index of each function.
    pub(crate) functions: Vec<u32>,
    pub(crate) memories: Vec<MemoryType>,
    pub(crate) globals: Vec<GlobalType>,
    pub(crate) exports: Vec<Export<'a>>,
    pub(crate) start: Option<u32>,
    pub(crate) data_count: Option<u32>,
    pub(crate) bodies: Vec<FunctionBody<'a>>,
    pub(crate) sections: Sections<'a>,
}

/// The sections that are copied item by item.
#[derive(Debug, Default)]
pub(crate) struct Sections<'a> {
    pub(crate) types: Option<TypeSectionReader<'a>>,
    pub(crate) functions: Option<FunctionSectionReader<'a>>,
    pub(crate) tables: Option<TableSectionReader<'a>>,
    pub(crate) memories: Option<MemorySectionReader<'a>>,
    pub(crate) tags: Option<TagSectionReader<'a>>,
    pub(crate) globals: Option<GlobalSectionReader<'a>>,
    pub(crate) exports: Option<ExportSectionReader<'a>>,
    pub(crate) elements: Option<ElementSectionReader<'a>>,
    pub(crate) data: Option<DataSectionReader<'a>>,
}

impl<'a> Outline<'a> {
    /// Reads a module.
    ///
    /// # Errors
    /// What the parser says of a module that is not valid.
    pub fn of(wasm: &'a [u8]) -> wasmparser::Result<Outline<'a>> {
        let mut outline = Outline::default();
        for payload in Parser::new(0).parse_all(wasm) {
            outline.read(payload?)?;
        }
        Ok(outline)
    }

    fn read(&mut self, payload: Payload<'a>) -> wasmparser::Result<()> {
        match payload {
            Payload::TypeSection(section) => {
                for group in section.clone() {
                    self.types.extend(group?.into_types());
                }
                self.sections.types = Some(section);
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    match import.ty {
                        TypeRef::Func(ty) | TypeRef::FuncExact(ty) => self.functions.push(ty),
                        TypeRef::Memory(ty) => self.memories.push(ty),
                        TypeRef::Global(ty) => self.globals.push(ty),
                        TypeRef::Table(_) | TypeRef::Tag(_) => {}
                    }
                    self.imports.push(import);
                }
            }
            Payload::FunctionSection(section) => {
                for ty in section.clone() {
                    self.functions.push(ty?);
                }
                self.sections.functions = Some(section);
            }
            Payload::TableSection(section) => self.sections.tables = Some(section),
            Payload::MemorySection(section) => {
                for memory in section.clone() {
                    self.memories.push(memory?);
                }
                self.sections.memories = Some(section);
            }
            Payload::TagSection(section) => self.sections.tags = Some(section),
            Payload::GlobalSection(section) => {
                for global in section.clone() {
                    self.globals.push(global?.ty);
                }
                self.sections.globals = Some(section);
            }
            Payload::ExportSection(section) => {
                for export in section.clone() {
                    self.exports.push(export?);
                }
                self.sections.exports = Some(section);
            }
            Payload::StartSection { func, .. } => self.start = Some(func),
            Payload::ElementSection(section) => self.sections.elements = Some(section),
            Payload::DataCountSection { count, .. } => self.data_count = Some(count),
            Payload::DataSection(section) => self.sections.data = Some(section),
            Payload::CodeSectionEntry(body) => self.bodies.push(body),
            _ => {}
        }
        Ok(())
    }

    /// The index of what is exported under a name.
    pub fn export(&self, name: &str, kind: ExternalKind) -> Option<u32> {
        self.exports
            .iter()
            .find(|export| export.name == name && export.kind == kind)
            .map(|export| export.index)
    }

    /// The type of a function.
    pub fn function_type(&self, function: u32) -> Option<&FuncType> {
        let ty = *self.functions.get(function as usize)?;
        match &self.types.get(ty as usize)?.composite_type.inner {
            CompositeInnerType::Func(ty) => Some(ty),
            _ => None,
        }
    }

    /// The tags that it imports.
    pub(crate) fn imported_tags(&self) -> impl Iterator<Item = &Import<'a>> {
        self.imports.iter().filter(|import| matches!(import.ty, TypeRef::Tag(_)))
    }

    /// The first index of an imported tag.
    pub(crate) fn imported_tag(&self, module: &str, name: &str) -> Option<u32> {
        let index = self.imported_tags().position(|import| (import.module, import.name) == (module, name));
        index.map(|index| index as u32)
    }

    /// Returns what can stand for an export wherever its type is known: tags, and functions that do nothing
    /// but return constants or throw.
    pub fn definition(&self, name: &str) -> Option<Definition> {
        if self.export(name, ExternalKind::Tag).is_some() {
            return Some(Definition::Tag);
        }
        let function = self.export(name, ExternalKind::Func)? as usize;
        let imported = self.functions.len() - self.bodies.len();
        let body = self.bodies.get(function.checked_sub(imported)?)?;
        let operators: Vec<_> =
            body.get_operators_reader().ok()?.into_iter().collect::<Result<_, _>>().ok()?;
        if let [Operator::Throw { tag_index }, Operator::End] = operators[..] {
            let is_tag = |export: &&Export<'_>| export.kind == ExternalKind::Tag && export.index == tag_index;
            return Some(Definition::Throws(self.exports.iter().find(is_tag)?.name.into()));
        }
        let is_constant = |operator: &Operator<'_>| {
            matches!(
                operator,
                Operator::I32Const { .. }
                    | Operator::I64Const { .. }
                    | Operator::F32Const { .. }
                    | Operator::F64Const { .. }
                    | Operator::End
            )
        };
        operators.iter().all(is_constant).then(|| Definition::Body(body.as_bytes().to_vec()))
    }
}
