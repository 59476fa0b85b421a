//! A module's debug information, and the table that is made of it: whatever they say, reading ends, keeps its bounds, and
//! names no place that a terminal would obey.

use proto::guest::dwarf::{self, DebugSections};
use proto::limits::{BACKTRACE_FRAMES_MAX, LINES_BYTES_MAX, LINES_NAME_BYTES_MAX, LINES_PATH_BYTES_MAX};
use proto::lines::{Collected, Table};
use proto::trap::SourceLocation;
use wasmpool::fuzzing::Input;
use wasmpool::fuzzing::text::assert_harmless;

use crate::bounded::within;

/// Most that a byte may cost: one of a line program's head is a file, one of a line program is a row, and one of a unit is an
/// entry; a vector that grows has twice the room that it needs.
const BYTES_PER_BYTE: usize = 2048;
const RESERVED_BYTES: usize = 4 * 1024 * 1024;

/// The sections, in the order in which the input has them.
const SECTIONS: [&str; 9] = [
    ".debug_abbrev",
    ".debug_info",
    ".debug_line",
    ".debug_str",
    ".debug_line_str",
    ".debug_ranges",
    ".debug_rnglists",
    ".debug_addr",
    ".debug_str_offsets",
];

/// Where the code section begins, and its bytes.
const CODE: std::ops::Range<u32> = 100..4196;

/// The input: whether it is a table, then its bytes; or the sections, each but the last with its length in two bytes.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    if input.byte() % 4 == 0 {
        return look_at(input.0);
    }
    let mut sections = DebugSections::default();
    let mut rest = input.0;
    for name in SECTIONS {
        let Some((len, behind)) = rest.split_first_chunk::<2>() else { break };
        let len = usize::from(u16::from_le_bytes(*len)).min(behind.len());
        sections.add(name, &behind[..len]);
        rest = &behind[len..];
    }
    let table = within(RESERVED_BYTES + BYTES_PER_BYTE * data.len(), || {
        let mut collected = Collected::default();
        dwarf::read(&sections, CODE, &mut collected);
        collected.into_table()
    });
    assert!(table.len() <= LINES_BYTES_MAX);
    look_at(&table);
}

fn look_at(bytes: &[u8]) {
    let Some(table) = Table::new(bytes) else { return };
    for offset in (0..CODE.end + 50).step_by(7).chain([u32::MAX]) {
        let within = table.at(offset.into());
        assert!(!within.is_empty() && within.len() <= BACKTRACE_FRAMES_MAX);
        for one in within {
            if let Some(place) = one.place {
                assert!(place.line > 0);
                assert_harmless(
                    &SourceLocation::new(place.file.into(), place.line, place.column).to_string(),
                );
            }
        }
    }
}

/// The sections of a module, as the input has them.
fn seed(wasm: &[u8]) -> Vec<u8> {
    let section = |wanted: &str| {
        let mut rest = &wasm[8..];
        while let Some((id, behind)) = rest.split_first() {
            let (len, contents) = number(behind);
            let (contents, next) = contents.split_at(len);
            let (name_len, name) = number(contents);
            if *id == 0 && name[..name_len] == *wanted.as_bytes() {
                return name[name_len..].to_vec();
            }
            rest = next;
        }
        Vec::new()
    };
    let with_len = |bytes: Vec<u8>| [&(bytes.len() as u16).to_le_bytes()[..], &bytes].concat();
    [vec![1], SECTIONS.map(|name| with_len(section(name))).concat()].concat()
}

/// Splits a LEB128 of one or two bytes off the front.
fn number(bytes: &[u8]) -> (usize, &[u8]) {
    match bytes {
        [first @ 0..=0x7f, rest @ ..] => (usize::from(*first), rest),
        [first, second, rest @ ..] => (usize::from(first & 0x7f) | usize::from(*second) << 7, rest),
        _ => (0, &[]),
    }
}

/// Modules with DWARF 4 and 5, and the table of one.
pub fn seeds() -> Vec<Vec<u8>> {
    let modules: [&[u8]; 2] = [
        include_bytes!("../../../crates/proto/fixtures/places4.wasm"),
        include_bytes!("../../../crates/proto/fixtures/places5.wasm"),
    ];
    let mut seeds: Vec<_> = modules.into_iter().map(seed).collect();
    let mut collected = Collected::default();
    let long = "x".repeat(LINES_NAME_BYTES_MAX.min(LINES_PATH_BYTES_MAX));
    let (file, name) = (collected.file("a\u{1b}.c"), collected.name(&long));
    let at = proto::lines::At { file: file.expect("room"), line: 3, column: 4 };
    collected.row(proto::lines::Row { offset: 120, at }).expect("room");
    let call = proto::lines::Call { inside: None, function: name.expect("room"), at };
    let call = collected.call(call).expect("room");
    collected.inlined(proto::lines::Inlined { start: 130, end: 140, depth: 0, call }).expect("room");
    seeds.push([vec![0], collected.into_table()].concat());
    seeds
}
