//! A module's shape held to its bounds, before anything is validated or compiled.
//!
//! One pass over the bytes: no recursion, no table that grows with the module but for the open blocks
//! of one function, which are bounded too. What it decodes is decoded again by the engine, from the
//! very bytes; here it is only counted. The first bound that is exceeded ends the pass.

use wasmparser::{
    BinaryReaderError, BlockType, CompositeInnerType, ElementItems, ElementSectionReader, Encoding,
    FunctionBody, ImportSectionReader, Operator, Parser, Payload, TypeRef, TypeSectionReader,
};

use proto::limits::GUEST_TEXT_BYTES_MAX;
use proto::limits::compile::{CompileLimit, CompileLimits};
use proto::message::CompileError;
use proto::text::truncated;

/// # Errors
/// [`CompileError::CompileLimit`] with the place, [`CompileError::Invalid`] for what cannot be decoded.
pub(super) fn check(wasm: &[u8], limits: &CompileLimits) -> Result<(), CompileError> {
    Shape::new(limits).module(wasm).map_err(|stop| match stop {
        Stop::Limit(error) => *error,
        Stop::Shared => CompileError::Unsupported {
            feature: "threads (a shared memory)".into(),
            message:
                "a task has one thread: build it without threads; atomics on a memory of its own are offered"
                    .into(),
        },
        Stop::Malformed(error) => {
            CompileError::Invalid { message: truncated(&error.to_string(), GUEST_TEXT_BYTES_MAX / 2) }
        }
    })
}

/// Says why the pass ended early.
enum Stop {
    Limit(Box<CompileError>),
    /// A memory is shared between threads. Its instances would be made, and fail.
    Shared,
    Malformed(BinaryReaderError),
}

impl From<BinaryReaderError> for Stop {
    fn from(error: BinaryReaderError) -> Stop {
        Stop::Malformed(error)
    }
}

/// Holds what has been counted of the module so far.
struct Shape<'a> {
    limits: &'a CompileLimits,
    types: Types,
    type_count: u64,
    imported_functions: u64,
    bodies: u64,
    memories: u64,
    globals: u64,
    element_items: u64,
    branch_targets: u64,
    /// Types of a component itself, of all its sections and of the components in it.
    component_types: u64,
}

/// Holds how many values a block of each function type takes and leaves, in two bytes a type, of which there are
/// up to a thousand. A type of another kind has none.
#[derive(Default)]
struct Types(Vec<u16>);

/// Holds what has been counted of one function, and the blocks that are open in it.
#[derive(Default)]
struct Open {
    blocks: Vec<Block>,
    loops: u64,
    /// Handlers of all open `try_table`s: each call in them has an edge to each.
    handlers: u64,
    block_count: u64,
    block_values: u64,
    branch_targets: u64,
}

struct Block {
    is_loop: bool,
    handlers: u32,
}

impl<'a> Shape<'a> {
    fn new(limits: &'a CompileLimits) -> Shape<'a> {
        Shape {
            limits,
            types: Types::default(),
            type_count: 0,
            imported_functions: 0,
            bodies: 0,
            memories: 0,
            globals: 0,
            element_items: 0,
            branch_targets: 0,
            component_types: 0,
        }
    }

    /// Begins to count a module of a component: most bounds are those of one module.
    fn begin_module(&mut self) {
        let Shape { limits, branch_targets, component_types, .. } = *self;
        *self = Shape { branch_targets, component_types, ..Shape::new(limits) };
    }

    fn module(mut self, wasm: &[u8]) -> Result<(), Stop> {
        self.hold(CompileLimit::WasmBytes, wasm.len() as u64, None, 0)?;
        for payload in Parser::new(0).parse_all(wasm) {
            self.section(payload?)?;
        }
        Ok(())
    }

    fn section(&mut self, payload: Payload<'_>) -> Result<(), Stop> {
        use CompileLimit as Kind;
        match payload {
            Payload::Version { encoding: Encoding::Module, .. } => {
                self.begin_module();
                Ok(())
            }
            Payload::ComponentTypeSection(section) => {
                self.component_types(section.count(), section.range().start)
            }
            Payload::CoreTypeSection(section) => self.component_types(section.count(), section.range().start),
            Payload::TypeSection(types) => self.types(types),
            Payload::ImportSection(imports) => self.imports(imports),
            Payload::FunctionSection(section) => {
                self.hold(Kind::Functions, section.count().into(), None, section.range().start)
            }
            Payload::TableSection(section) => self.memories(section.count(), section.range().start),
            Payload::MemorySection(section) => {
                self.memories(section.count(), section.range().start)?;
                for memory in section {
                    if memory?.shared {
                        return Err(Stop::Shared);
                    }
                }
                Ok(())
            }
            Payload::GlobalSection(section) => self.globals(section.count(), section.range().start),
            Payload::TagSection(section) => self.globals(section.count(), section.range().start),
            Payload::ExportSection(section) => {
                self.hold(Kind::Exports, section.count().into(), None, section.range().start)
            }
            Payload::ElementSection(section) => self.elements(section),
            Payload::DataCountSection { count, range } => {
                self.hold(Kind::DataSegments, count.into(), None, range.start)
            }
            Payload::DataSection(section) => {
                self.hold(Kind::DataSegments, section.count().into(), None, section.range().start)
            }
            Payload::CodeSectionStart { count, range, .. } => {
                self.hold(Kind::Functions, count.into(), None, range.start)
            }
            Payload::CodeSectionEntry(body) => {
                let function = u32::try_from(self.imported_functions + self.bodies).unwrap_or(u32::MAX);
                self.bodies += 1;
                self.function(&body, function)
            }
            // Custom sections are skipped, not read; everything else is of constant size.
            _ => Ok(()),
        }
    }

    fn types(&mut self, types: TypeSectionReader<'_>) -> Result<(), Stop> {
        let at = types.range().start;
        self.hold(CompileLimit::Types, types.count().into(), None, at)?;
        for group in types {
            for ty in group?.into_types() {
                self.type_count += 1;
                self.hold(CompileLimit::Types, self.type_count, None, at)?;
                self.types.push(&ty.composite_type.inner);
            }
        }
        Ok(())
    }

    fn component_types(&mut self, count: u32, at: usize) -> Result<(), Stop> {
        self.component_types += u64::from(count);
        self.hold(CompileLimit::Types, self.component_types, None, at)
    }

    fn imports(&mut self, imports: ImportSectionReader<'_>) -> Result<(), Stop> {
        let at = imports.range().start;
        self.hold(CompileLimit::Imports, imports.count().into(), None, at)?;
        let mut count = 0;
        for import in imports.into_imports() {
            count += 1;
            self.hold(CompileLimit::Imports, count, None, at)?;
            match import?.ty {
                TypeRef::Func(_) | TypeRef::FuncExact(_) => self.imported_functions += 1,
                TypeRef::Memory(_) | TypeRef::Table(_) => self.memories(1, at)?,
                TypeRef::Global(_) | TypeRef::Tag(_) => self.globals(1, at)?,
            }
        }
        Ok(())
    }

    fn elements(&mut self, section: ElementSectionReader<'_>) -> Result<(), Stop> {
        self.hold(CompileLimit::Elements, section.count().into(), None, section.range().start)?;
        for segment in section {
            let segment = segment?;
            self.element_items += u64::from(match segment.items {
                ElementItems::Functions(items) => items.count(),
                ElementItems::Expressions(_, items) => items.count(),
            });
            self.hold(CompileLimit::ElementItems, self.element_items, None, segment.range.start)?;
        }
        Ok(())
    }

    fn function(&mut self, body: &FunctionBody<'_>, index: u32) -> Result<(), Stop> {
        use CompileLimit as Kind;
        let range = body.range();
        self.hold(Kind::FunctionBytes, range.len() as u64, Some(index), range.start)?;
        let mut locals = 0u64;
        for group in body.get_locals_reader()? {
            locals += u64::from(group?.0);
            self.hold(Kind::Locals, locals, Some(index), range.start)?;
        }
        if self.body_is_unbounded() {
            return Ok(());
        }
        let mut open = Open::default();
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            let at = operators.original_position();
            let operator = operators.read()?;
            let targets = open.see(&operator, &self.types);
            if !matters(&operator) && targets == 0 {
                continue;
            }
            open.branch_targets += targets;
            self.branch_targets += targets;
            self.hold(Kind::Nesting, open.blocks.len() as u64, Some(index), at)?;
            self.hold(Kind::LoopNesting, open.loops, Some(index), at)?;
            self.hold(Kind::Blocks, open.block_count, Some(index), at)?;
            self.hold(Kind::BlockValues, open.block_values, Some(index), at)?;
            self.hold(Kind::BranchTargets, open.branch_targets, Some(index), at)?;
            self.hold(Kind::BranchTargetsTotal, self.branch_targets, Some(index), at)?;
        }
        Ok(())
    }

    /// Returns whether nothing inside of a function is bounded, so that there is no need to look.
    fn body_is_unbounded(&self) -> bool {
        use CompileLimit as Kind;
        let inside = [
            Kind::Nesting,
            Kind::LoopNesting,
            Kind::Blocks,
            Kind::BlockValues,
            Kind::BranchTargets,
            Kind::BranchTargetsTotal,
        ];
        inside.into_iter().all(|kind| self.limits.get(kind) == u64::MAX)
    }

    fn memories(&mut self, count: u32, at: usize) -> Result<(), Stop> {
        self.memories += u64::from(count);
        self.hold(CompileLimit::Memories, self.memories, None, at)
    }

    fn globals(&mut self, count: u32, at: usize) -> Result<(), Stop> {
        self.globals += u64::from(count);
        self.hold(CompileLimit::Globals, self.globals, None, at)
    }

    fn hold(&self, kind: CompileLimit, seen: u64, function: Option<u32>, at: usize) -> Result<(), Stop> {
        let limit = self.limits.get(kind);
        if seen <= limit {
            return Ok(());
        }
        let offset = (kind != CompileLimit::WasmBytes).then_some(at as u64);
        Err(Stop::Limit(Box::new(CompileError::CompileLimit { kind, limit, seen, function, offset })))
    }
}

impl Types {
    fn push(&mut self, ty: &CompositeInnerType) {
        let values = match ty {
            CompositeInnerType::Func(ty) => ty.params().len() + ty.results().len(),
            _ => 0,
        };
        self.0.push(u16::try_from(values).unwrap_or(u16::MAX));
    }

    fn values_of(&self, ty: BlockType) -> u64 {
        match ty {
            BlockType::Empty => 0,
            BlockType::Type(_) => 1,
            BlockType::FuncType(index) => self.0.get(index as usize).copied().unwrap_or(0).into(),
        }
    }
}

/// Returns whether it opens a block or branches.
fn matters(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::Block { .. }
            | Operator::Loop { .. }
            | Operator::If { .. }
            | Operator::TryTable { .. }
            | Operator::Try { .. }
            | Operator::BrIf { .. }
            | Operator::BrTable { .. }
            | Operator::BrOnNull { .. }
            | Operator::BrOnNonNull { .. }
            | Operator::BrOnCast { .. }
            | Operator::BrOnCastFail { .. }
    )
}

impl Open {
    /// Counts an instruction; returns the targets that it adds.
    fn see(&mut self, operator: &Operator<'_>, types: &Types) -> u64 {
        match operator {
            Operator::Block { blockty } | Operator::If { blockty } | Operator::Try { blockty } => {
                self.open(Block { is_loop: false, handlers: 0 }, *blockty, types);
                0
            }
            Operator::Loop { blockty } => {
                self.open(Block { is_loop: true, handlers: 0 }, *blockty, types);
                0
            }
            Operator::TryTable { try_table } => {
                let handlers = u32::try_from(try_table.catches.len()).unwrap_or(u32::MAX);
                self.open(Block { is_loop: false, handlers }, try_table.ty, types);
                handlers.into()
            }
            // The last `end` closes the function, for which no block is open.
            Operator::End | Operator::Delegate { .. } => {
                if let Some(block) = self.blocks.pop() {
                    self.loops -= u64::from(block.is_loop);
                    self.handlers -= u64::from(block.handlers);
                }
                0
            }
            Operator::BrTable { targets } => {
                self.block_count += 1;
                u64::from(targets.len()) + 1
            }
            Operator::BrIf { .. }
            | Operator::BrOnNull { .. }
            | Operator::BrOnNonNull { .. }
            | Operator::BrOnCast { .. }
            | Operator::BrOnCastFail { .. } => {
                self.block_count += 1;
                0
            }
            Operator::Call { .. }
            | Operator::CallIndirect { .. }
            | Operator::CallRef { .. }
            | Operator::Throw { .. }
            | Operator::ThrowRef => self.handlers,
            _ => 0,
        }
    }

    fn open(&mut self, block: Block, ty: BlockType, types: &Types) {
        self.loops += u64::from(block.is_loop);
        self.handlers += u64::from(block.handlers);
        self.blocks.push(block);
        self.block_count += 1;
        self.block_values += types.values_of(ty);
    }
}

#[cfg(test)]
mod tests;
