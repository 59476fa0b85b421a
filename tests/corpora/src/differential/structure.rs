//! Compares the bytes of a module with those of the same module with safepoints, without running either.
//!
//! Whatever is not a safepoint must be there as its author wrote it, in order, and at the place that is told of it. All
//! operators of a safepoint are told to be where the next operator is: it is known by that. A loop has one, unless each
//! turn of it calls a function with one at its beginning.

use std::collections::HashSet;
use std::ops::Range;

use engine::compile::safepoints::Instrumented;
use proto::safepoints::POLLING_PAGE_BYTES;
use wasmparser::{FunctionBody, MemArg, Operator, Parser, Payload};

/// Sections in which something may be added, or that may be dropped.
const CUSTOM: u8 = 0;
const MEMORY: u8 = 5;
const EXPORT: u8 = 7;
const START: u8 = 8;
const CODE: u8 = 10;

/// To be told of one place takes a step for each safepoint before it. Of a larger module some places are looked at.
const STEPS_MAX: usize = 100_000;

/// A function has so many safepoints before two of them are the same.
const DISTINCT: usize = 4 * POLLING_PAGE_BYTES as usize;

/// # Errors
/// What is different, for a person.
pub(super) fn compare(wasm: &[u8], instrumented: &Instrumented) -> Result<(), String> {
    let plain = Module::read(wasm).map_err(|error| format!("the plain module: {error}"))?;
    let other = Module::read(&instrumented.wasm).map_err(|error| format!("with safepoints: {error}"))?;
    compare_sections(&plain, &other, instrumented)?;
    if plain.bodies.len() != other.bodies.len() {
        return Err(format!("{} functions, not {}", other.bodies.len(), plain.bodies.len()));
    }
    let bodies = plain.bodies.iter().zip(&other.bodies);
    let grown = bodies.clone().map(|(plain, other)| other.range().len().saturating_sub(plain.range().len()));
    // A safepoint has some seven bytes, and an operator two.
    let safepoints = grown.sum::<usize>() / 7;
    let instructions = wasm.len() / 2;
    let mut places = Places {
        instrumented,
        stride: (safepoints * instructions / STEPS_MAX).max(1),
        imported_functions: plain.imported_functions,
        polls: Vec::new(),
    };
    for body in &other.bodies {
        let operators = operators(body).map_err(|error| error.to_string())?;
        places.polls.push(places.has_safepoint(&operators));
    }
    for (index, (plain, other)) in bodies.enumerate() {
        compare_bodies(wasm, plain, other, &places).map_err(|what| format!("body {index}: {what}"))?;
    }
    Ok(())
}

/// What is told of places.
struct Places<'a> {
    instrumented: &'a Instrumented,
    /// Each place of such a number is looked at.
    stride: usize,
    imported_functions: u32,
    /// Of each function, whether it polls at its beginning.
    polls: Vec<bool>,
}

impl Places<'_> {
    fn of(&self, operator: &Placed<'_>) -> usize {
        self.instrumented.safepoints.insertions.original(operator.range.start as u64) as usize
    }

    /// Returns whether these begin with a safepoint. What is none differs from what its author wrote there, or is told to
    /// be elsewhere.
    fn has_safepoint(&self, operators: &[Placed<'_>]) -> bool {
        matches!(operators, [first, next, ..] if self.of(first) == self.of(next))
    }

    /// Returns whether a loop with this body calls a function that polls, whenever it turns.
    fn polls_by_call(&self, body: &[Placed<'_>]) -> bool {
        body.iter().map_while(|placed| straight(&placed.operator)).flatten().any(|callee| {
            let defined = callee.checked_sub(self.imported_functions);
            defined.is_some_and(|index| self.polls.get(index as usize) == Some(&true))
        })
    }

    fn check(&self, operator: &Placed<'_>, expected: usize) -> Result<(), String> {
        if !operator.range.start.is_multiple_of(self.stride) {
            return Ok(());
        }
        let told = self.of(operator);
        if told == expected { Ok(()) } else { Err(format!("{expected:#x} is told to be {told:#x}")) }
    }
}

#[derive(Default)]
struct Module<'a> {
    /// Identifiers and contents of those that must be the same.
    sections: Vec<(u8, &'a [u8])>,
    /// The entries of the sections to which something may be added, by their bytes.
    memories: Vec<&'a [u8]>,
    exports: Vec<(&'a [u8], &'a str)>,
    start: Option<u32>,
    bodies: Vec<FunctionBody<'a>>,
    imported_memories: u32,
    imported_functions: u32,
}

impl<'a> Module<'a> {
    fn read(wasm: &'a [u8]) -> wasmparser::Result<Module<'a>> {
        let mut module = Module::default();
        for payload in Parser::new(0).parse_all(wasm) {
            let payload = payload?;
            match &payload {
                Payload::CustomSection(custom) if custom.name() != "name" => continue,
                Payload::ImportSection(imports) => {
                    for import in imports.clone().into_imports() {
                        use wasmparser::TypeRef::{Func, FuncExact, Memory};
                        let import = import?.ty;
                        module.imported_memories += u32::from(matches!(import, Memory(_)));
                        module.imported_functions += u32::from(matches!(import, Func(_) | FuncExact(_)));
                    }
                }
                Payload::MemorySection(memories) => {
                    let starts = memories.clone().into_iter_with_offsets();
                    let starts =
                        starts.map(|memory| Ok(memory?.0)).collect::<wasmparser::Result<Vec<_>>>()?;
                    module.memories =
                        entries(&starts, memories.range().end).map(|range| &wasm[range]).collect();
                }
                Payload::ExportSection(exports) => {
                    let all = exports.clone().into_iter_with_offsets();
                    let all = all.collect::<wasmparser::Result<Vec<_>>>()?;
                    let starts: Vec<_> = all.iter().map(|(at, _)| *at).collect();
                    let bytes = entries(&starts, exports.range().end).map(|range| &wasm[range]);
                    module.exports = bytes.zip(all.iter().map(|(_, export)| export.name)).collect();
                }
                Payload::StartSection { func, .. } => module.start = Some(*func),
                Payload::CodeSectionEntry(body) => {
                    module.bodies.push(body.clone());
                    continue;
                }
                _ => {}
            }
            if let Some((id, contents)) = payload.as_section()
                && ![MEMORY, EXPORT, START, CODE].contains(&id)
            {
                module.sections.push((id, &wasm[contents]));
            }
        }
        Ok(module)
    }
}

fn entries(starts: &[usize], end: usize) -> impl Iterator<Item = Range<usize>> {
    let ends = starts.iter().skip(1).copied().chain([end]);
    starts.iter().copied().zip(ends).map(|(start, end)| start..end)
}

fn compare_sections(
    plain: &Module<'_>,
    other: &Module<'_>,
    instrumented: &Instrumented,
) -> Result<(), String> {
    let added = &instrumented.safepoints;
    if plain.sections != other.sections {
        let ids = |module: &Module<'_>| module.sections.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        return Err(format!("sections {:?}, not {:?}, or their contents", ids(other), ids(plain)));
    }
    debug_assert!(plain.sections.iter().filter(|(id, _)| *id == CUSTOM).count() <= 1);
    let more_memories = other.memories.strip_prefix(&plain.memories[..]).ok_or("other memories")?;
    // The whole entry: a maximum, 4096 bytes at the least and at the most, in pages of one byte.
    if more_memories.len() > 1
        || more_memories.iter().any(|bytes| *bytes != [0b1001, 0x80, 0x20, 0x80, 0x20, 0])
    {
        return Err(format!("these memories are added: {more_memories:?}"));
    }
    let more_exports = other.exports.strip_prefix(&plain.exports[..]).ok_or("other exports")?;
    let names: Vec<_> = more_exports.iter().map(|(_, name)| *name).collect();
    let told: Vec<_> = [&added.page_export, &added.start_export].into_iter().flatten().collect();
    if names != told {
        return Err(format!("these exports are added: {names:?}, not {told:?}"));
    }
    if names.iter().any(|name| plain.exports.iter().any(|(_, taken)| taken == name)) {
        return Err(format!("one of {names:?} is taken"));
    }
    let start = if added.start_export.is_some() { None } else { plain.start };
    if other.start != start || (added.start_export.is_some() && plain.start.is_none()) {
        return Err(format!("the start is {:?}, not {start:?}", other.start));
    }
    Ok(())
}

/// An operator, and its bytes.
struct Placed<'a> {
    operator: Operator<'a>,
    range: Range<usize>,
}

fn operators<'a>(body: &FunctionBody<'a>) -> wasmparser::Result<Vec<Placed<'a>>> {
    let mut reader = body.get_operators_reader()?;
    let mut operators = Vec::new();
    while !reader.eof() {
        let start = reader.original_position();
        let operator = reader.read()?;
        operators.push(Placed { operator, range: start..reader.original_position() });
    }
    Ok(operators)
}

fn compare_bodies(
    wasm: &[u8],
    plain: &FunctionBody<'_>,
    other: &FunctionBody<'_>,
    places: &Places<'_>,
) -> Result<(), String> {
    let instrumented = places.instrumented;
    let read = |body| operators(body).map_err(|error| error.to_string());
    let (plain_operators, other_operators) = (read(plain)?, read(other)?);
    let first = |operators: &[Placed<'_>]| operators.first().map_or(0, |first| first.range.start);
    let locals = &wasm[plain.range().start..first(&plain_operators)];
    if instrumented.wasm[other.range().start..first(&other_operators)] != *locals {
        return Err("other locals".into());
    }
    let mut left = &other_operators[..];
    let mut loads = HashSet::new();
    let mut has_safepoint = places.has_safepoint(left);
    for (number, expected) in plain_operators.iter().enumerate() {
        let at = expected.range.start;
        if has_safepoint {
            let (safepoint, rest) = left.split_at_checked(3).ok_or("it ends in a safepoint")?;
            safepoint.iter().try_for_each(|operator| places.check(operator, at))?;
            let read = polled(safepoint, instrumented).map_err(|what| format!("before {at:#x} {what}"))?;
            if !loads.insert(read) && loads.len() < DISTINCT {
                return Err(format!("the safepoint before {at:#x} reads the same as another: {read:?}"));
            }
            left = rest;
        }
        let (here, rest) = left.split_first().ok_or("fewer operators")?;
        places.check(here, at)?;
        if instrumented.wasm[here.range.clone()] != wasm[expected.range.clone()] {
            return Err(format!("{at:#x} is another operator"));
        }
        left = rest;
        let is_loop = matches!(expected.operator, Operator::Loop { .. });
        has_safepoint =
            is_loop && (places.has_safepoint(left) || !places.polls_by_call(&plain_operators[number + 1..]));
    }
    if left.is_empty() { Ok(()) } else { Err("more operators".into()) }
}

/// `None` if something else may come next than what stands behind this operator; otherwise the function that it calls.
fn straight(operator: &Operator<'_>) -> Option<Option<u32>> {
    use Operator as Op;
    match operator {
        Op::Call { function_index } => Some(Some(*function_index)),
        Op::Block { .. } | Op::Loop { .. } | Op::If { .. } | Op::Else | Op::End | Op::TryTable { .. } => None,
        Op::Br { .. } | Op::BrIf { .. } | Op::BrTable { .. } | Op::Return | Op::Unreachable => None,
        Op::BrOnNull { .. } | Op::BrOnNonNull { .. } | Op::BrOnCast { .. } | Op::BrOnCastFail { .. } => None,
        Op::ReturnCall { .. } | Op::ReturnCallIndirect { .. } | Op::ReturnCallRef { .. } => None,
        Op::Throw { .. } | Op::ThrowRef => None,
        _ => Some(None),
    }
}

/// Returns the opcode of a safepoint's load, and the byte of the page that it reads.
fn polled(safepoint: &[Placed<'_>], instrumented: &Instrumented) -> Result<(u8, u64), String> {
    let [address, load, drop] = safepoint else { return Err("a safepoint of other length".into()) };
    let is_zero =
        matches!(address.operator, Operator::I32Const { value: 0 } | Operator::I64Const { value: 0 });
    let memarg: &MemArg = match &load.operator {
        Operator::I32Load8S { memarg }
        | Operator::I32Load8U { memarg }
        | Operator::I64Load8S { memarg }
        | Operator::I64Load8U { memarg } => memarg,
        other => return Err(format!("a safepoint loads by {other:?}")),
    };
    let byte = memarg.offset.checked_sub(instrumented.safepoints.page_offset);
    let byte = byte.filter(|byte| *byte < POLLING_PAGE_BYTES && memarg.align == 0 && is_zero);
    match (byte, &drop.operator) {
        (Some(byte), Operator::Drop) => Ok((instrumented.wasm[load.range.start], byte)),
        _ => Err(format!("a safepoint is {:?} and {memarg:?}", address.operator)),
    }
}

#[cfg(test)]
mod tests {
    use engine::compile::safepoints::insert;
    use proto::description::MemoryKind;

    use super::*;

    fn module() -> Vec<u8> {
        let text = "(module (memory 1) (data (i32.const 8192) \"a\")
            (func $f (loop (br_if 0 (i32.const 0))) (loop)) (func (loop (call $f)) (call $f)) (func $g (loop (call $g))) (start $f))";
        wat::parse_str(text).expect("valid text")
    }

    #[test]
    fn a_place_that_is_told_wrongly_is_noticed() {
        let wasm = module();
        for kind in MemoryKind::ALL {
            let mut instrumented = insert(&wasm, kind).expect("a valid module");
            compare(&wasm, &instrumented).expect("nothing differs");
            instrumented.safepoints.insertions = Default::default();
            compare(&wasm, &instrumented).expect_err("places are told wrongly");
        }
    }

    #[test]
    fn every_byte_is_compared() {
        let wasm = module();
        let mut instrumented = insert(&wasm, MemoryKind::Own).expect("a valid module");
        let mut unnoticed = 0;
        for at in 8..instrumented.wasm.len() {
            instrumented.wasm[at] ^= 1;
            unnoticed += usize::from(compare(&wasm, &instrumented).is_ok());
            instrumented.wasm[at] ^= 1;
        }
        // Of five safepoints: the load, and the two bytes that say which byte of the page it reads.
        assert_eq!(unnoticed, 5 * 3);
    }

    #[test]
    fn a_safepoint_that_is_missing_or_elsewhere_is_noticed() {
        let wasm = module();
        let mut instrumented = insert(&wasm, MemoryKind::Own).expect("a valid module");
        let other = wat::parse_str(
            "(module (memory 1) (data (i32.const 8192) \"a\")
            (func $f (loop (br_if 0 (i32.const 0))) (loop) (nop)) (func (loop (call $f)) (call $f)) (func $g (loop (call $g))) (start $f))",
        );
        compare(&other.expect("valid text"), &instrumented).expect_err("one operator less");
        instrumented.wasm.clone_from(&wasm);
        compare(&wasm, &instrumented).expect_err("no safepoints");
    }
}
