//! The table of places in a module's source, made of its debug information. Whatever is wrong with that costs lines, and
//! never the module.

use std::ops::Range;

use wasmparser::{Parser, Payload};

use proto::description::SourceLines;
use proto::guest::dwarf::{self, DebugSections, Extent};
use proto::limits::DWARF_MEMORY_BYTES_MIN;
use proto::limits::compile::{CompileLimit, CompileLimits};
use proto::lines::Collected;

/// Returns the table, which is empty where nothing is known, and what there is to say of it. `wasm` is valid, and is the file
/// as its author wrote it. A component's modules all go into one table: offsets in its frames are those in its file.
pub(super) fn of(wasm: &[u8], limits: &CompileLimits) -> (Vec<u8>, SourceLines) {
    let mut collected = Collected::default();
    let mut lines = SourceLines::Absent;
    // The last one is what the parser is in: the file, or a module or component in it.
    let mut open: Vec<Inside<'_>> = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload {
            Ok(Payload::Version { .. }) => open.push(Inside::default()),
            Ok(Payload::CodeSectionStart { range, .. }) => {
                if let Some(inside) = open.last_mut() {
                    inside.code = Some(range);
                }
            }
            Ok(Payload::CustomSection(custom)) => {
                if let Some(inside) = open.last_mut() {
                    inside.debug.add(custom.name(), custom.data());
                }
            }
            Ok(Payload::End(_)) => {
                let Some(Inside { code: Some(code), debug }) = open.pop() else { continue };
                if !debug.is_empty() {
                    lines = worse(lines, read(&debug, code, limits, &mut collected));
                }
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    if collected.is_empty() {
        // Optimisers that know nothing of it leave information whose addresses are all 0.
        let lines = if lines == SourceLines::Known { SourceLines::Absent } else { lines };
        return (Vec::new(), lines);
    }
    let table = collected.into_table();
    let lines = if table.is_empty() { SourceLines::TooMuch } else { lines };
    (table, lines)
}

/// What was seen of a module.
#[derive(Default)]
struct Inside<'a> {
    /// The contents of its code section, from the number of functions on: addresses count from there.
    code: Option<Range<usize>>,
    debug: DebugSections<'a>,
}

fn read(
    debug: &DebugSections<'_>,
    code: Range<usize>,
    limits: &CompileLimits,
    collected: &mut Collected,
) -> SourceLines {
    // The reader's own memory must not be what a module fails for.
    if limits.get(CompileLimit::Memory) < DWARF_MEMORY_BYTES_MIN {
        return SourceLines::TooMuch;
    }
    let (Ok(start), Ok(end)) = (u32::try_from(code.start), u32::try_from(code.end)) else {
        return SourceLines::TooMuch;
    };
    match dwarf::read(debug, start..end, collected) {
        Extent::All => SourceLines::Known,
        Extent::Damaged => SourceLines::Damaged,
        Extent::TooMuch => SourceLines::TooMuch,
    }
}

/// Returns what is to be said of both. A module without debug information, such as an adapter in a component, does not count.
fn worse(one: SourceLines, other: SourceLines) -> SourceLines {
    let rank = |lines| match lines {
        SourceLines::TooMuch => 3,
        SourceLines::Damaged => 2,
        SourceLines::Known => 1,
        _ => 0,
    };
    if rank(one) >= rank(other) { one } else { other }
}
