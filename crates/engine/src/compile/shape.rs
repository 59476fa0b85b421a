//! A module's shape held to its bounds, before anything is validated or compiled.
//!
//! One pass over the bytes: no recursion, no table that grows with the module but for the open blocks
//! of one function, which are bounded too. What it decodes is decoded again by the engine, from the
//! very bytes; here it is only counted. The pass goes on where a bound is exceeded, so that the error has all of them, each with
//! the number that the module needs: whoever raises one need not find the next by another attempt.

use wasmparser::{
    BinaryReaderError, BlockType, CompositeInnerType, ElementItems, ElementSectionReader, Encoding,
    FunctionBody, ImportSectionReader, Operator, Parser, Payload, TypeRef, TypeSectionReader,
};

use proto::limits::GUEST_TEXT_BYTES_MAX;
use proto::limits::compile::{CompileLimit, CompileLimits, ExceededLimit};
use proto::message::CompileError;
use proto::text::truncated;

/// # Errors
/// [`CompileError::CompileLimit`] with the place, [`CompileError::Invalid`] for what cannot be decoded.
pub(super) fn check(wasm: &[u8], limits: &CompileLimits) -> Result<(), CompileError> {
    let mut shape = Shape::new(limits);
    let read = shape.module(wasm);
    // What is over a bound is so whatever follows.
    if let Some(error) = shape.over.error(limits) {
        return Err(error);
    }
    read.map_err(|stop| match stop {
        Stop::Deep => CompileError::Compiler { message: "a bound of the shape was not held".into() },
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
    /// So many blocks are open that they are not counted any further: that is over the bound.
    Deep,
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
    over: Excesses,
}

/// Blocks inside of blocks are counted this far beyond the bound, since each takes memory while it is open.
const NESTING_COUNTED_MAX: u64 = 100_000;

/// The bounds that are exceeded, in the order in which they were found, each with the largest number there was and its place.
#[derive(Default)]
struct Excesses(Vec<Excess>);

struct Excess {
    kind: CompileLimit,
    seen: u64,
    function: Option<u32>,
    offset: u64,
}

impl Excesses {
    fn add(&mut self, found: Excess) {
        match self.0.iter_mut().find(|excess| excess.kind == found.kind) {
            Some(excess) if found.seen <= excess.seen => {}
            // The place is where the function that has the most of it goes over the bound, or all of them together do.
            Some(excess)
                if found.function == excess.function || found.kind == CompileLimit::BranchTargetsTotal =>
            {
                excess.seen = found.seen;
            }
            Some(excess) => *excess = found,
            None => self.0.push(found),
        }
    }

    fn error(&self, limits: &CompileLimits) -> Option<CompileError> {
        let (first, others) = self.0.split_first()?;
        let other = |excess: &Excess| ExceededLimit::new(excess.kind, limits.get(excess.kind), excess.seen);
        Some(CompileError::CompileLimit {
            kind: first.kind,
            limit: limits.get(first.kind),
            seen: first.seen,
            function: first.function,
            offset: (first.kind != CompileLimit::WasmBytes).then_some(first.offset),
            others: others.iter().map(other).collect(),
        })
    }
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
            over: Excesses::default(),
        }
    }

    /// Begins to count a module of a component: most bounds are those of one module.
    fn begin_module(&mut self) {
        let Shape { limits, branch_targets, component_types, .. } = *self;
        let over = std::mem::take(&mut self.over);
        *self = Shape { branch_targets, component_types, over, ..Shape::new(limits) };
    }

    fn module(&mut self, wasm: &[u8]) -> Result<(), Stop> {
        self.hold(CompileLimit::WasmBytes, wasm.len() as u64, None, 0);
        for payload in Parser::new(0).parse_all(wasm) {
            self.section(payload?)?;
        }
        Ok(())
    }

    fn section(&mut self, payload: Payload<'_>) -> Result<(), Stop> {
        use CompileLimit as Kind;
        let mut counted = |kind, count: u32, at| self.hold(kind, count.into(), None, at);
        match payload {
            Payload::Version { encoding: Encoding::Module, .. } => self.begin_module(),
            Payload::ComponentTypeSection(section) => {
                self.component_types(section.count(), section.range().start);
            }
            Payload::CoreTypeSection(section) => self.component_types(section.count(), section.range().start),
            Payload::TypeSection(types) => self.types(types)?,
            Payload::ImportSection(imports) => self.imports(imports)?,
            Payload::FunctionSection(section) => {
                counted(Kind::Functions, section.count(), section.range().start);
            }
            Payload::TableSection(section) => self.memories(section.count(), section.range().start),
            Payload::MemorySection(section) => {
                self.memories(section.count(), section.range().start);
                for memory in section {
                    if memory?.shared {
                        return Err(Stop::Shared);
                    }
                }
            }
            Payload::GlobalSection(section) => self.globals(section.count(), section.range().start),
            Payload::TagSection(section) => self.globals(section.count(), section.range().start),
            Payload::ExportSection(section) => {
                counted(Kind::Exports, section.count(), section.range().start);
            }
            Payload::ElementSection(section) => self.elements(section)?,
            Payload::DataCountSection { count, range } => counted(Kind::DataSegments, count, range.start),
            Payload::DataSection(section) => {
                counted(Kind::DataSegments, section.count(), section.range().start);
            }
            Payload::CodeSectionStart { count, range, .. } => counted(Kind::Functions, count, range.start),
            Payload::CodeSectionEntry(body) => {
                let function = u32::try_from(self.imported_functions + self.bodies).unwrap_or(u32::MAX);
                self.bodies += 1;
                self.function(&body, function)?;
            }
            // Custom sections are skipped, not read; everything else is of constant size.
            _ => {}
        }
        Ok(())
    }

    fn types(&mut self, types: TypeSectionReader<'_>) -> Result<(), Stop> {
        let at = types.range().start;
        self.hold(CompileLimit::Types, types.count().into(), None, at);
        for group in types {
            for ty in group?.into_types() {
                self.type_count += 1;
                self.hold(CompileLimit::Types, self.type_count, None, at);
                self.types.push(&ty.composite_type.inner);
            }
        }
        Ok(())
    }

    fn component_types(&mut self, count: u32, at: usize) {
        self.component_types += u64::from(count);
        self.hold(CompileLimit::Types, self.component_types, None, at);
    }

    fn imports(&mut self, imports: ImportSectionReader<'_>) -> Result<(), Stop> {
        let at = imports.range().start;
        self.hold(CompileLimit::Imports, imports.count().into(), None, at);
        let mut count = 0;
        for import in imports.into_imports() {
            count += 1;
            self.hold(CompileLimit::Imports, count, None, at);
            match import?.ty {
                TypeRef::Func(_) | TypeRef::FuncExact(_) => self.imported_functions += 1,
                TypeRef::Memory(_) | TypeRef::Table(_) => self.memories(1, at),
                TypeRef::Global(_) | TypeRef::Tag(_) => self.globals(1, at),
            }
        }
        Ok(())
    }

    fn elements(&mut self, section: ElementSectionReader<'_>) -> Result<(), Stop> {
        self.hold(CompileLimit::Elements, section.count().into(), None, section.range().start);
        for segment in section {
            let segment = segment?;
            self.element_items += u64::from(match segment.items {
                ElementItems::Functions(items) => items.count(),
                ElementItems::Expressions(_, items) => items.count(),
            });
            self.hold(CompileLimit::ElementItems, self.element_items, None, segment.range.start);
        }
        Ok(())
    }

    fn function(&mut self, body: &FunctionBody<'_>, index: u32) -> Result<(), Stop> {
        use CompileLimit as Kind;
        let range = body.range();
        self.hold(Kind::FunctionBytes, range.len() as u64, Some(index), range.start);
        let mut locals = 0u64;
        for group in body.get_locals_reader()? {
            locals += u64::from(group?.0);
            self.hold(Kind::Locals, locals, Some(index), range.start);
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
            let nesting = open.blocks.len() as u64;
            self.hold(Kind::Nesting, nesting, Some(index), at);
            if nesting > NESTING_COUNTED_MAX.max(self.limits.get(Kind::Nesting)) {
                return Err(Stop::Deep);
            }
            self.hold(Kind::LoopNesting, open.loops, Some(index), at);
            self.hold(Kind::Blocks, open.block_count, Some(index), at);
            self.hold(Kind::BlockValues, open.block_values, Some(index), at);
            self.hold(Kind::BranchTargets, open.branch_targets, Some(index), at);
            self.hold(Kind::BranchTargetsTotal, self.branch_targets, Some(index), at);
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

    fn memories(&mut self, count: u32, at: usize) {
        self.memories += u64::from(count);
        self.hold(CompileLimit::Memories, self.memories, None, at);
    }

    fn globals(&mut self, count: u32, at: usize) {
        self.globals += u64::from(count);
        self.hold(CompileLimit::Globals, self.globals, None, at);
    }

    fn hold(&mut self, kind: CompileLimit, seen: u64, function: Option<u32>, at: usize) {
        if seen > self.limits.get(kind) {
            self.over.add(Excess { kind, seen, function, offset: at as u64 });
        }
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
