//! Puts safepoints into a module: places at which its code reads a byte of a page of memory, the polling page, so that a
//! worker can stop it by taking the page's access rights away.
//!
//! A read costs next to nothing, where a look at the engine's epoch is a load, a comparison and a branch
//! (`benches/README.md`). What it must not be is left out:
//!
//! - Cranelift takes a load for a repetition if an earlier one read the same address and nothing was stored between.
//!   So each safepoint of a function reads another byte of the page, or reads it in another way.
//! - A load that may trap is neither moved out of a loop nor left out because nobody uses what it read.
//!
//! A safepoint that is left out all the same costs the worker, which is killed once the grace period is over; the task's
//! error says so (`killed`).
//!
//! # Which page
//! A page of the module's own memory, since tight loops have that memory's address in a register: another memory's would
//! be read from the stack in each turn, which took a loop of a sieve a quarter more time. It is the page with the first
//! bytes of the module's data, which most instances touch anyway. A module without such a page gets a memory of its own
//! for it.
//!
//! # Where they stand
//! At the head of each loop, and at the beginning of each function that calls others outside of its loops, or is long.
//! Code between two safepoints has no loops, and is of functions that are short or have called nobody: it ends soon.
//!
//! A loop has none if each turn of it calls a function that polls at its beginning, and a function that calls itself in
//! each turn of a loop polls at its beginning. A loop with a call would keep the page's address in a register, which each
//! call has to save.
//!
//! # What does not change
//! The code, the memories, the exports and the start are rewritten; everything else is copied byte by byte. New entries
//! come last, so that all indices stay. [`Insertions`](proto::safepoints::Insertions) tell places as those of the author's
//! module.

use std::collections::HashSet;
use std::ops::Range;

use rayon::prelude::*;
use wasm_encoder::{Encode, ExportKind, MemoryType};
use wasmparser::{BinaryReaderError, Data, DataKind, FunctionBody, Operator, Parser, Payload, TypeRef};

use proto::description::MemoryKind;
use proto::safepoints::{POLLING_PAGE_BYTES, Recorder, Safepoints};

/// A function that calls nobody and whose body has at most this many bytes does not poll at its beginning.
const SHORT_BODY_BYTES: usize = 2048;

/// The loads by which a byte is read, by their opcodes: `i64.load8_s`, `i64.load8_u`, `i32.load8_s` and `i32.load8_u`,
/// those first that modules use least. Each is another load for Cranelift, so a function has four times as many
/// safepoints as the page has bytes before two of them are the same.
const LOADS: [u8; 4] = [0x30, 0x31, 0x2c, 0x2d];

const I32_CONST: u8 = 0x41;
const I64_CONST: u8 = 0x42;
const DROP: u8 = 0x1a;

/// The flag of a memory access that is followed by the memory's index. The rest of the byte is the alignment, which is
/// that of a byte: zero.
const HAS_MEMORY_INDEX: u8 = 0x40;

/// The names of what is exported in addition, if the module itself has no such exports: a name that is taken gets
/// another stroke.
const PAGE_EXPORT: &str = "wasmpool polling page";
const START_EXPORT: &str = "wasmpool start";

/// A module with safepoints, and what was added.
#[derive(Debug)]
pub struct Instrumented {
    /// The module with them.
    pub wasm: Vec<u8>,
    /// The things that were added.
    pub safepoints: Safepoints,
    /// A module that is not valid may have become so: only the author's own says whether it is.
    pub hides_faults: bool,
}

/// Puts safepoints into a module. Only a module that is valid as its author wrote it may be compiled with them.
///
/// A safepoint takes nothing from the stack and leaves nothing on it, so a module with them is valid if and only if it was
/// so without, unless it could name the memory that is added, use what the engine allows for that, or lose a start
/// function that cannot be one ([`Instrumented::hides_faults`]).
///
/// # Errors
/// Only those of a module that is not valid.
pub fn insert(wasm: &[u8], memories: MemoryKind) -> Result<Instrumented, BinaryReaderError> {
    let parts = Parts::read(wasm)?;
    let page = parts.page(memories);
    // Whether a page is the worker's own is known before there is an instance. Where another one is, the engine says once
    // there is one, and then it would have called the start function.
    let is_known = page.memory == parts.memories && memories == MemoryKind::Own;
    let page_export = (!is_known).then(|| parts.free_name(PAGE_EXPORT));
    let start = parts.start.filter(|_| !is_known);
    let start_export = start.map(|_| parts.free_name(START_EXPORT));
    let shapes = parts
        .bodies
        .par_iter()
        .enumerate()
        .map(|(number, body)| Shape::of(body, parts.imported_functions, number))
        .collect::<Result<Vec<_>, _>>()?;
    let functions = parts
        .bodies
        .par_iter()
        .zip(&shapes)
        .map(|(body, shape)| Function::with_safepoints(body, wasm, shape.places(&shapes), &page))
        .collect::<Vec<_>>();
    let exports = [
        page_export.as_deref().map(|name| (name, ExportKind::Memory, page.memory)),
        start_export.as_deref().zip(start).map(|(name, start)| (name, ExportKind::Func, start)),
    ];
    let added = Added {
        memory: page.memory == parts.memories,
        exports: exports.into_iter().flatten().collect(),
        replaces_start: start.is_some(),
    };
    let mut writer =
        Writer { wasm, out: wasm[..HEADER_BYTES].to_vec(), recorder: Recorder::default(), added: &added };
    writer.module(&parts.sections, &functions);
    let Writer { out, recorder, .. } = writer;
    let insertions = recorder.end();
    let hides_faults = added.memory || added.replaces_start || parts.has_custom_pages;
    let safepoints = Safepoints { page_export, page_offset: page.offset, start_export, insertions };
    Ok(Instrumented { wasm: out, safepoints, hides_faults })
}

/// The page that safepoints read.
#[derive(Debug, Clone, Copy)]
struct Page {
    memory: u32,
    /// The memory is addressed by 64 bits.
    is_64: bool,
    /// Where the page begins in the memory.
    offset: u64,
}

/// The magic number and the version.
const HEADER_BYTES: usize = 8;

/// The identifiers of sections, and the order in which they stand. (The identifiers do not say it: some came later.)
mod section {
    pub(super) const CUSTOM: u8 = 0;
    pub(super) const MEMORY: u8 = 5;
    pub(super) const EXPORT: u8 = 7;
    pub(super) const START: u8 = 8;
    pub(super) const CODE: u8 = 10;
    const ORDER: [u8; 13] = [1, 2, 3, 4, MEMORY, 13, 6, EXPORT, START, 9, 12, CODE, 11];

    /// Returns the place of a section among the others. Custom ones may stand anywhere, and come last here.
    pub(super) fn rank(id: u8) -> usize {
        ORDER.iter().position(|other| *other == id).unwrap_or(ORDER.len())
    }
}

/// The parts of a module that are read before anything is written.
struct Parts<'a> {
    /// Identifiers and contents, in order; of the custom ones that with the names alone, since the engine needs no
    /// other, and what else tools put there tells of places that move.
    sections: Vec<(u8, Range<usize>)>,
    bodies: Vec<FunctionBody<'a>>,
    imported_functions: u32,
    /// The module has so many memories: the index of the next.
    memories: u32,
    /// A memory has pages of another size, which is not offered.
    has_custom_pages: bool,
    /// The first memory, if the module defines it.
    first: Option<wasmparser::MemoryType>,
    /// Where in the first memory the module's data begins.
    data: Option<u64>,
    start: Option<u32>,
    exports: HashSet<&'a str>,
}

impl<'a> Parts<'a> {
    fn read(wasm: &'a [u8]) -> Result<Parts<'a>, BinaryReaderError> {
        let mut parts = Parts {
            sections: Vec::new(),
            bodies: Vec::new(),
            imported_functions: 0,
            memories: 0,
            has_custom_pages: false,
            first: None,
            data: None,
            start: None,
            exports: HashSet::new(),
        };
        for payload in Parser::new(0).parse_all(wasm) {
            let payload = payload?;
            match &payload {
                Payload::CustomSection(custom) if custom.name() != "name" => continue,
                Payload::ImportSection(imports) => {
                    for import in imports.clone().into_imports() {
                        match import?.ty {
                            TypeRef::Func(_) | TypeRef::FuncExact(_) => parts.imported_functions += 1,
                            TypeRef::Memory(memory) => {
                                parts.memories += 1;
                                parts.has_custom_pages |= memory.page_size_log2.is_some();
                            }
                            _ => {}
                        }
                    }
                }
                Payload::MemorySection(memories) => {
                    for memory in memories.clone() {
                        let memory = memory?;
                        parts.has_custom_pages |= memory.page_size_log2.is_some();
                        if parts.memories == 0 {
                            parts.first = Some(memory);
                        }
                        parts.memories += 1;
                    }
                }
                Payload::DataSection(segments) => {
                    for segment in segments.clone() {
                        let segment = segment?;
                        parts.data = parts.data.or(beginning(&segment)?);
                    }
                }
                Payload::ExportSection(exports) => {
                    for export in exports.clone() {
                        parts.exports.insert(export?.name);
                    }
                }
                Payload::StartSection { func, .. } => parts.start = Some(*func),
                Payload::CodeSectionEntry(body) => {
                    parts.bodies.push(body.clone());
                    continue;
                }
                _ => {}
            }
            if let Some((id, contents)) = payload.as_section() {
                parts.sections.push((id, contents));
            }
        }
        Ok(parts)
    }

    /// Chooses the page.
    fn page(&self, memories: MemoryKind) -> Page {
        let begins = |first: &wasmparser::MemoryType| {
            // Other sizes of pages are not offered to guests.
            let bytes = first.initial.saturating_mul(64 * 1024);
            let at = match memories {
                // The worker's own memories are opened where they are touched, and that is done by then.
                MemoryKind::Own => self.data?,
                // Without a pool (`Reserve::None`) a large memory may move.
                MemoryKind::Pooled if first.memory64 => return None,
                MemoryKind::Pooled => self.data.unwrap_or(0),
            };
            (at < bytes).then_some(at - at % POLLING_PAGE_BYTES)
        };
        match self.first.as_ref().and_then(|first| Some((first.memory64, begins(first)?))) {
            Some((is_64, offset)) => Page { memory: 0, is_64, offset },
            None => Page { memory: self.memories, is_64: false, offset: 0 },
        }
    }

    fn free_name(&self, name: &str) -> String {
        let mut name = name.to_string();
        while self.exports.contains(&name[..]) {
            name.push('\'');
        }
        name
    }
}

/// Returns where an active segment of the first memory begins, if that is a number and the segment is not empty.
fn beginning(segment: &Data<'_>) -> Result<Option<u64>, BinaryReaderError> {
    let DataKind::Active { memory_index: 0, offset_expr } = &segment.kind else { return Ok(None) };
    let mut operators = offset_expr.get_operators_reader();
    let offset = match operators.read()? {
        Operator::I32Const { value } => u64::from(value.cast_unsigned()),
        Operator::I64Const { value } => value.cast_unsigned(),
        _ => return Ok(None),
    };
    let is_all = matches!(operators.read()?, Operator::End);
    Ok((is_all && !segment.data.is_empty()).then_some(offset))
}

/// A function's body with its safepoints.
struct Function {
    /// Where the body stood in the module.
    original: usize,
    bytes: Vec<u8>,
    /// Offsets in `bytes` at which a safepoint was inserted, and how long it is.
    safepoints: Vec<(usize, usize)>,
}

impl Function {
    /// Copies the body, with safepoints at these places of the module.
    fn with_safepoints(
        body: &FunctionBody<'_>,
        wasm: &[u8],
        places: impl Iterator<Item = usize>,
        page: &Page,
    ) -> Function {
        let range = body.range();
        let mut bytes = Vec::with_capacity(range.len() + range.len() / 8);
        let mut safepoints = Vec::new();
        let mut copied = range.start;
        for (number, place) in places.enumerate() {
            bytes.extend_from_slice(&wasm[copied..place]);
            copied = place;
            let at = bytes.len();
            push_safepoint(&mut bytes, number, page);
            safepoints.push((at, bytes.len() - at));
        }
        bytes.extend_from_slice(&wasm[copied..range.end]);
        Function { original: range.start, bytes, safepoints }
    }
}

/// The facts about a function by which its safepoints are placed.
struct Shape {
    /// Where its first instruction stands.
    beginning: usize,
    polls_at_beginning: bool,
    loops: Vec<Loop>,
}

struct Loop {
    /// Where its body begins.
    body: usize,
    /// A function of the module that is called in each turn, before anything that may branch. Functions that are
    /// imported do not count.
    calls: Option<usize>,
}

impl Shape {
    /// `number` is the function's among those that the module defines.
    fn of(
        body: &FunctionBody<'_>,
        imported_functions: u32,
        number: usize,
    ) -> Result<Shape, BinaryReaderError> {
        let mut operators = body.get_operators_reader()?;
        let beginning = operators.original_position();
        let mut loops: Vec<Loop> = Vec::new();
        // It calls functions of the module's outside of its loops.
        let mut calls_outside = false;
        // Of each block that is open, whether it is a loop; and how many are.
        let mut open = Vec::new();
        let mut loops_open = 0;
        // Nothing has branched since the last loop's body began.
        let mut in_straight_line = false;
        while !operators.eof() {
            let operator = operators.read()?;
            match operator {
                Operator::Loop { .. } => {
                    loops.push(Loop { body: operators.original_position(), calls: None });
                    open.push(true);
                    loops_open += 1;
                }
                Operator::Block { .. } | Operator::If { .. } | Operator::TryTable { .. } => open.push(false),
                // The last one is the function's own.
                Operator::End => loops_open -= usize::from(open.pop().unwrap_or(false)),
                _ => calls_outside |= loops_open == 0 && may_call_back(&operator, imported_functions),
            }
            match operator {
                Operator::Loop { .. } => in_straight_line = true,
                Operator::Call { function_index } if in_straight_line => {
                    if let Some(last) = loops.last_mut() {
                        let callee = function_index.checked_sub(imported_functions);
                        last.calls = last.calls.or(callee.map(|callee| callee as usize));
                    }
                }
                _ => in_straight_line &= goes_on(&operator),
            }
        }
        let calls_itself = loops.iter().any(|its| its.calls == Some(number));
        let polls_at_beginning = calls_outside || calls_itself || body.range().len() > SHORT_BODY_BYTES;
        Ok(Shape { beginning, polls_at_beginning, loops })
    }

    /// Returns where the function polls, among functions of these shapes.
    fn places(&self, shapes: &[Shape]) -> impl Iterator<Item = usize> {
        let polls = |callee: usize| shapes.get(callee).is_some_and(|shape| shape.polls_at_beginning);
        let loops = self.loops.iter().filter(move |its| !its.calls.is_some_and(polls)).map(|its| its.body);
        self.polls_at_beginning.then_some(self.beginning).into_iter().chain(loops)
    }
}

/// Returns whether what stands behind this instruction is always what comes next, unless it traps. Only common ones are
/// named: the others count as if they branched.
fn goes_on(operator: &Operator<'_>) -> bool {
    use Operator as Op;
    matches!(
        operator,
        Op::LocalGet { .. }
            | Op::LocalSet { .. }
            | Op::LocalTee { .. }
            | Op::GlobalGet { .. }
            | Op::GlobalSet { .. }
            | Op::I32Const { .. }
            | Op::I64Const { .. }
            | Op::F64Const { .. }
            | Op::I32Add
            | Op::I32Sub
            | Op::I64Add
            | Op::I64Sub
            | Op::I32Load { .. }
            | Op::I64Load { .. }
            | Op::I32Store { .. }
            | Op::I64Store { .. }
            | Op::Drop
    )
}

/// Returns whether code of the module's may run below this instruction: functions that are imported are the host's,
/// which does not call back.
fn may_call_back(operator: &Operator<'_>, imported_functions: u32) -> bool {
    match operator {
        Operator::Call { function_index } | Operator::ReturnCall { function_index } => {
            *function_index >= imported_functions
        }
        Operator::CallIndirect { .. }
        | Operator::ReturnCallIndirect { .. }
        | Operator::CallRef { .. }
        | Operator::ReturnCallRef { .. } => true,
        _ => false,
    }
}

/// Appends the safepoint of this number in its function: it reads a byte and drops it.
fn push_safepoint(bytes: &mut Vec<u8>, number: usize, page: &Page) {
    let offset = page.offset + number as u64 % POLLING_PAGE_BYTES;
    let load = LOADS[number / POLLING_PAGE_BYTES as usize % LOADS.len()];
    bytes.extend([if page.is_64 { I64_CONST } else { I32_CONST }, 0, load]);
    // The first memory's index is not named: older readers know no other.
    if page.memory == 0 {
        bytes.push(0);
    } else {
        bytes.push(HAS_MEMORY_INDEX);
        page.memory.encode(bytes);
    }
    offset.encode(bytes);
    bytes.push(DROP);
}

/// The things that are added to the module beside the safepoints.
struct Added<'a> {
    /// A memory for the polling page.
    memory: bool,
    exports: Vec<(&'a str, ExportKind, u32)>,
    /// The start function is exported, and not named as the start any more.
    replaces_start: bool,
}

struct Writer<'a> {
    wasm: &'a [u8],
    out: Vec<u8>,
    recorder: Recorder,
    added: &'a Added<'a>,
}

impl Writer<'_> {
    fn module(&mut self, sections: &[(u8, Range<usize>)], functions: &[Function]) {
        let mut lacks_memory = self.added.memory;
        let mut lacks_exports = !self.added.exports.is_empty();
        for (id, contents) in sections {
            let contents = &self.wasm[contents.clone()];
            // Custom sections may stand anywhere, and say nothing of the order.
            if *id != section::CUSTOM {
                self.sections_before(section::rank(*id), &mut lacks_memory, &mut lacks_exports);
            }
            match *id {
                section::MEMORY if lacks_memory => {
                    lacks_memory = false;
                    self.memories(contents);
                }
                section::EXPORT if lacks_exports => {
                    lacks_exports = false;
                    self.exports(contents);
                }
                // The worker calls it.
                section::START if self.added.replaces_start => {}
                section::CODE => self.code(functions),
                id => self.section(id, contents),
            }
        }
        self.sections_before(usize::MAX, &mut lacks_memory, &mut lacks_exports);
    }

    /// Writes the sections that the module does not have, and that stand before a section of this rank.
    fn sections_before(&mut self, rank: usize, lacks_memory: &mut bool, lacks_exports: &mut bool) {
        const NONE: [u8; 1] = [0];
        if *lacks_memory && section::rank(section::MEMORY) < rank {
            *lacks_memory = false;
            self.memories(&NONE);
        }
        if *lacks_exports && section::rank(section::EXPORT) < rank {
            *lacks_exports = false;
            self.exports(&NONE);
        }
    }

    fn memories(&mut self, contents: &[u8]) {
        self.extended(section::MEMORY, contents, 1, &polling_page());
    }

    fn exports(&mut self, contents: &[u8]) {
        let exports = &self.added.exports;
        self.extended(section::EXPORT, contents, exports.len(), &encoded(exports));
    }

    fn section(&mut self, id: u8, contents: &[u8]) {
        self.out.push(id);
        contents.len().encode(&mut self.out);
        self.out.extend_from_slice(contents);
    }

    /// Writes a section that begins with the number of its entries, with some more of them.
    fn extended(&mut self, id: u8, contents: &[u8], more: usize, entries: &[u8]) {
        let (count, rest) = leading_number(contents);
        let mut extended = Vec::with_capacity(contents.len() + entries.len() + 4);
        (count + more).encode(&mut extended);
        extended.extend_from_slice(rest);
        extended.extend_from_slice(entries);
        self.section(id, &extended);
    }

    fn code(&mut self, functions: &[Function]) {
        let bytes = functions.iter().map(|function| encoded_len(function.bytes.len()) + function.bytes.len());
        self.out.push(section::CODE);
        (encoded_len(functions.len()) + bytes.sum::<usize>()).encode(&mut self.out);
        functions.len().encode(&mut self.out);
        for function in functions {
            function.bytes.len().encode(&mut self.out);
            let start = self.out.len();
            self.recorder.moved(start as u64, function.original as u64);
            for (at, len) in &function.safepoints {
                self.recorder.inserted((start + at) as u64, *len as u64);
            }
            self.out.extend_from_slice(&function.bytes);
        }
    }
}

/// The entry of the polling page in the section of memories. Its pages are of one byte, as no guest's are.
fn polling_page() -> Vec<u8> {
    let mut bytes = Vec::new();
    let size = POLLING_PAGE_BYTES;
    let memory = MemoryType {
        minimum: size,
        maximum: Some(size),
        memory64: false,
        shared: false,
        page_size_log2: Some(0),
    };
    memory.encode(&mut bytes);
    bytes
}

fn encoded(exports: &[(&str, ExportKind, u32)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, kind, index) in exports {
        name.encode(&mut bytes);
        kind.encode(&mut bytes);
        index.encode(&mut bytes);
    }
    bytes
}

fn encoded_len(number: usize) -> usize {
    let mut bytes = Vec::new();
    number.encode(&mut bytes);
    bytes.len()
}

/// Splits off the number that a section begins with. A valid one does.
fn leading_number(contents: &[u8]) -> (usize, &[u8]) {
    let end = contents.iter().position(|byte| byte & 0x80 == 0).map_or(contents.len(), |last| last + 1);
    let (number, rest) = contents.split_at(end);
    let number = number.iter().rev().fold(0, |number, byte| (number << 7) | usize::from(byte & 0x7f));
    (number, rest)
}

#[cfg(test)]
mod tests;
