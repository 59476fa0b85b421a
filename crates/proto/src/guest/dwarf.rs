//! The debug information (DWARF) of a module: which places in the source its code is of, and which functions were inlined.
//! Apart from the engine, so that it can be fuzzed without it.
//!
//! Addresses in it are offsets from the beginning of the code section's contents.
//!
//! # What it may cost
//! Whoever writes such information can have a few bytes stand for very many: units that share one table, entries without a
//! byte for each attribute, long texts that are named again and again. So every part is charged to one account, which has a
//! few units of work for each byte that there is ([`Work`]), and whatever is kept is counted by [`Collected`]. What is
//! broken costs its unit; what goes beyond the bounds ends the reading, and what was read stays.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use gimli::constants as dw;
use gimli::{
    Abbreviations, Attribute, AttributeValue, DebugAbbrev, DebugAbbrevOffset, DebugAddrBase, DebugInfoOffset,
    DebugLineOffset, DebugLocListsBase, DebugRngListsBase, DebugStrOffsetsBase, Dwarf, EndianSlice,
    EntriesRaw, IncompleteLineProgram, LineProgramHeader, LineRow, LittleEndian, Reader as _, SectionId,
    Unit, UnitHeader, UnitOffset,
};

use crate::limits::{
    DWARF_ABBREVIATIONS_BYTES_MAX, DWARF_BYTES_MAX, DWARF_DEPTH_MAX, DWARF_LINE_HEAD_BYTES_MAX,
    DWARF_UNITS_MAX, DWARF_WORK_PER_BYTE, LINES_NAME_BYTES_MAX, LINES_PATH_BYTES_MAX, LINES_ROWS_MAX,
};
use crate::lines::{At, Call, Collected, Full, Inlined, Row};

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Any module is granted this much work, however little information it has.
const WORK_MIN: u64 = 65_536;

/// So many entries are looked at for a function's name: the one that is named, and those that it names.
const NAME_STEPS_MAX: usize = 4;

/// The custom sections of one module that have its debug information.
#[derive(Debug, Default)]
pub struct DebugSections<'a>(HashMap<&'static str, &'a [u8]>);

impl<'a> DebugSections<'a> {
    /// Keeps a custom section, if it has debug information.
    pub fn add(&mut self, name: &str, contents: &'a [u8]) {
        const READ: [SectionId; 9] = [
            SectionId::DebugAbbrev,
            SectionId::DebugAddr,
            SectionId::DebugInfo,
            SectionId::DebugLine,
            SectionId::DebugLineStr,
            SectionId::DebugRanges,
            SectionId::DebugRngLists,
            SectionId::DebugStr,
            SectionId::DebugStrOffsets,
        ];
        if let Some(known) = READ.into_iter().find(|known| known.name() == name) {
            self.0.insert(known.name(), contents);
        }
    }

    /// Returns whether there is anything from which places could be known.
    pub fn is_empty(&self) -> bool {
        self.get(SectionId::DebugInfo).is_empty() || self.get(SectionId::DebugLine).is_empty()
    }

    fn get(&self, id: SectionId) -> &'a [u8] {
        self.0.get(id.name()).copied().unwrap_or_default()
    }

    fn bytes(&self) -> usize {
        self.0.values().map(|contents| contents.len()).sum()
    }
}

/// How far the information could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    All,
    /// Parts of it are broken, and were passed over.
    Damaged,
    /// It goes beyond a bound.
    TooMuch,
}

/// Why a unit is not read to its end.
enum Stop {
    Damaged,
    TooMuch,
}

impl From<gimli::Error> for Stop {
    fn from(_: gimli::Error) -> Self {
        Stop::Damaged
    }
}

impl From<Full> for Stop {
    fn from(_: Full) -> Self {
        Stop::TooMuch
    }
}

/// The account of one module.
struct Work(u64);

impl Work {
    fn charge(&mut self, work: usize) -> Result<(), Stop> {
        self.0 = self.0.checked_sub(work as u64).ok_or(Stop::TooMuch)?;
        Ok(())
    }
}

/// Reads the information of a module whose code section has its contents at this place of the file.
pub fn read(sections: &DebugSections<'_>, code: Range<u32>, into: &mut Collected) -> Extent {
    let bytes = sections.bytes();
    if bytes > DWARF_BYTES_MAX {
        return Extent::TooMuch;
    }
    let load = |id| Ok::<_, gimli::Error>(EndianSlice::new(sections.get(id), LittleEndian));
    let Ok(dwarf) = Dwarf::load(load) else { return Extent::Damaged };
    let work = Work(DWARF_WORK_PER_BYTE * bytes as u64 + WORK_MIN);
    let mut reading = Reading {
        sections,
        dwarf,
        code,
        work,
        units: Vec::new(),
        abbreviations: HashMap::new(),
        abbreviations_bytes: 0,
        names: HashMap::new(),
        programs: HashSet::new(),
        into,
    };
    reading.all()
}

struct Reading<'a, 'b> {
    sections: &'b DebugSections<'a>,
    dwarf: Dwarf<Slice<'a>>,
    code: Range<u32>,
    work: Work,
    /// They are in the order of their offsets.
    units: Vec<Unit<Slice<'a>>>,
    abbreviations: HashMap<usize, Arc<Abbreviations>>,
    abbreviations_bytes: usize,
    /// The numbers of functions' names, by the offsets of their entries.
    names: HashMap<usize, u32>,
    /// The offsets of the line programs that were run.
    programs: HashSet<usize>,
    into: &'b mut Collected,
}

/// An entry below which others are read: a function, or one that was inlined.
#[derive(Clone, Copy)]
struct Scope {
    depth: isize,
    call: Option<u32>,
    inlined: u32,
}

impl<'a> Reading<'a, '_> {
    fn all(&mut self) -> Extent {
        let mut extent = match self.find_units() {
            Ok(()) => Extent::All,
            Err(Stop::Damaged) => Extent::Damaged,
            Err(Stop::TooMuch) => return Extent::TooMuch,
        };
        for index in 0..self.units.len() {
            match self.unit(index) {
                Ok(()) => {}
                Err(Stop::Damaged) => extent = extent.max(Extent::Damaged),
                Err(Stop::TooMuch) => return Extent::TooMuch,
            }
        }
        extent
    }

    /// Finds all units first, since entries of one may name those of another.
    fn find_units(&mut self) -> Result<(), Stop> {
        let mut headers = self.dwarf.units();
        let mut is_damaged = false;
        while let Some(header) = headers.next()? {
            if self.units.len() >= DWARF_UNITS_MAX {
                return Err(Stop::TooMuch);
            }
            match self.root(header) {
                Ok(unit) => self.units.push(unit),
                Err(Stop::Damaged) => is_damaged = true,
                Err(Stop::TooMuch) => return Err(Stop::TooMuch),
            }
        }
        if is_damaged { Err(Stop::Damaged) } else { Ok(()) }
    }

    /// Reads what a unit says of itself.
    fn root(&mut self, header: UnitHeader<Slice<'a>>) -> Result<Unit<Slice<'a>>, Stop> {
        let abbreviations = self.abbreviations(header.debug_abbrev_offset().0)?;
        let encoding = header.encoding();
        let file_type = self.dwarf.file_type;
        let mut unit = Unit {
            abbreviations,
            name: None,
            comp_dir: None,
            low_pc: 0,
            str_offsets_base: DebugStrOffsetsBase::default_for_encoding_and_file(encoding, file_type),
            addr_base: DebugAddrBase(0),
            loclists_base: DebugLocListsBase::default_for_encoding_and_file(encoding, file_type),
            rnglists_base: DebugRngListsBase::default_for_encoding_and_file(encoding, file_type),
            line_program: None,
            dwo_id: None,
            header,
        };
        let abbreviations = unit.abbreviations.clone();
        let mut entries = unit.header.entries_raw(&abbreviations, None)?;
        let attributes = attributes(&mut entries, &mut self.work)?.ok_or(Stop::Damaged)?;
        for attribute in &attributes {
            match attribute.value() {
                AttributeValue::DebugStrOffsetsBase(base) => unit.str_offsets_base = base,
                AttributeValue::DebugAddrBase(base) => unit.addr_base = base,
                AttributeValue::DebugRngListsBase(base) => unit.rnglists_base = base,
                _ => {}
            }
        }
        // These may be given by numbers in tables, whose places are known only now.
        for attribute in attributes {
            match attribute.name() {
                dw::DW_AT_comp_dir => {
                    let folder = self.text(&unit, attribute.value(), LINES_PATH_BYTES_MAX);
                    unit.comp_dir = folder.map(|folder| EndianSlice::new(folder, LittleEndian));
                }
                dw::DW_AT_low_pc => {
                    unit.low_pc = self.dwarf.attr_address(&unit, attribute.value())?.unwrap_or(0);
                }
                _ => {}
            }
        }
        Ok(unit)
    }

    /// Returns the abbreviations at an offset, which many units may share.
    fn abbreviations(&mut self, offset: usize) -> Result<Arc<Abbreviations>, Stop> {
        if let Some(known) = self.abbreviations.get(&offset) {
            return Ok(known.clone());
        }
        let section = self.sections.get(SectionId::DebugAbbrev);
        let left = section.get(offset..).ok_or(Stop::Damaged)?;
        let len = abbreviations_len(left).ok_or(Stop::Damaged)?;
        self.work.charge(len)?;
        self.abbreviations_bytes += len;
        if self.abbreviations_bytes > DWARF_ABBREVIATIONS_BYTES_MAX {
            return Err(Stop::TooMuch);
        }
        let own = DebugAbbrev::new(&left[..len], LittleEndian);
        let abbreviations = Arc::new(own.abbreviations(DebugAbbrevOffset(0))?);
        self.abbreviations.insert(offset, abbreviations.clone());
        Ok(abbreviations)
    }

    fn unit(&mut self, index: usize) -> Result<(), Stop> {
        let Some(program) = self.line_program(index)? else { return Ok(()) };
        let mut files = HashMap::new();
        if self.programs.insert(program.header().offset().0) {
            self.lines(index, program.clone(), &mut files)?;
        }
        self.functions(index, program.header(), &mut files)
    }

    /// Returns the unit's line program, if it has one. Its head is read here, and is not very long.
    fn line_program(&mut self, index: usize) -> Result<Option<IncompleteLineProgram<Slice<'a>>>, Stop> {
        let unit = &self.units[index];
        let abbreviations = unit.abbreviations.clone();
        let mut entries = unit.header.entries_raw(&abbreviations, None)?;
        let attributes = attributes(&mut entries, &mut self.work)?.ok_or(Stop::Damaged)?;
        let place = attributes.iter().find_map(|attribute| match attribute.value() {
            AttributeValue::DebugLineRef(DebugLineOffset(offset)) => Some(offset),
            _ => None,
        });
        let Some(offset) = place else { return Ok(None) };
        let section = self.sections.get(SectionId::DebugLine);
        let head_bytes = section.get(offset..).and_then(line_head_len).ok_or(Stop::Damaged)?;
        if head_bytes > DWARF_LINE_HEAD_BYTES_MAX {
            return Err(Stop::TooMuch);
        }
        self.work.charge(head_bytes)?;
        let (size, folder) = (unit.header.address_size(), unit.comp_dir);
        Ok(Some(self.dwarf.debug_line.program(DebugLineOffset(offset), size, folder, None)?))
    }

    /// Collects the rows of a line program.
    fn lines(
        &mut self,
        index: usize,
        program: IncompleteLineProgram<Slice<'a>>,
        files: &mut HashMap<u64, u32>,
    ) -> Result<(), Stop> {
        self.work.charge(program.header().raw_program_buf().len())?;
        let mut rows = program.rows();
        // The linker has left functions out: what they had still says that it begins at 0, where no function is.
        let mut is_left_out = false;
        let mut is_first = true;
        while let Some((header, row)) = rows.next_row()? {
            self.work.charge(1)?;
            let address = row.address();
            if is_first {
                is_left_out = address == 0;
            }
            is_first = row.end_sequence();
            if is_left_out {
                continue;
            }
            if let Some(offset) = self.offset(address) {
                let at = match row.end_sequence() {
                    true => At::default(),
                    false => self.row_at(index, header, row, files)?,
                };
                self.into.row(Row { offset, at })?;
            }
        }
        Ok(())
    }

    fn row_at(
        &mut self,
        index: usize,
        header: &LineProgramHeader<Slice<'a>>,
        row: &LineRow,
        files: &mut HashMap<u64, u32>,
    ) -> Result<At, Stop> {
        let line = row.line().map_or(0, |line| u32::try_from(line.get()).unwrap_or(0));
        let column = match row.column() {
            gimli::ColumnType::LeftEdge => 0,
            gimli::ColumnType::Column(column) => u32::try_from(column.get()).unwrap_or(0),
        };
        let file = self.file(index, header, row.file_index(), files)?;
        Ok(At { file, line, column })
    }

    /// Returns the place in the module's file; the end of the code counts.
    fn offset(&self, address: u64) -> Option<u32> {
        let offset = u64::from(self.code.start).checked_add(address)?;
        u32::try_from(offset).ok().filter(|offset| address > 0 && *offset <= self.code.end)
    }

    /// Returns the number of a file of the unit's.
    fn file(
        &mut self,
        index: usize,
        header: &LineProgramHeader<Slice<'a>>,
        number: u64,
        files: &mut HashMap<u64, u32>,
    ) -> Result<u32, Stop> {
        if let Some(known) = files.get(&number) {
            return Ok(*known);
        }
        let unit = &self.units[index];
        let text = |value| {
            let text = self.text(unit, value, LINES_PATH_BYTES_MAX);
            text.map(String::from_utf8_lossy).unwrap_or_default()
        };
        let path = header.file(number).map(|file| {
            let folder = file.directory(header).map(text).unwrap_or_default();
            let compiled_in = unit.comp_dir.map(|folder| String::from_utf8_lossy(folder.slice()));
            path(&compiled_in.unwrap_or_default(), &folder, &text(file.path_name()))
        });
        self.work.charge(LINES_PATH_BYTES_MAX / 16)?;
        let file = self.into.file(&path.unwrap_or_else(|| "?".into()))?;
        files.insert(number, file);
        Ok(file)
    }

    /// Collects the functions that were inlined.
    fn functions(
        &mut self,
        index: usize,
        header: &LineProgramHeader<Slice<'a>>,
        files: &mut HashMap<u64, u32>,
    ) -> Result<(), Stop> {
        let abbreviations = self.units[index].abbreviations.clone();
        let unit_header = self.units[index].header;
        let mut entries = unit_header.entries_raw(&abbreviations, None)?;
        let mut scopes: Vec<Scope> = Vec::new();
        while !entries.is_empty() {
            let depth = entries.next_depth();
            self.work.charge(1)?;
            let Some(abbreviation) = entries.read_abbreviation()? else { continue };
            self.work.charge(abbreviation.attributes().len())?;
            while scopes.pop_if(|scope| scope.depth >= depth).is_some() {}
            if scopes.len() > DWARF_DEPTH_MAX {
                return Err(Stop::Damaged);
            }
            match abbreviation.tag() {
                dw::DW_TAG_subprogram => {
                    entries.skip_attributes(abbreviation.attributes())?;
                    scopes.push(Scope { depth, call: None, inlined: 0 });
                }
                dw::DW_TAG_inlined_subroutine => {
                    let mut own = Vec::new();
                    for specification in abbreviation.attributes() {
                        own.push(entries.read_attribute(*specification)?);
                    }
                    let around = scopes.last().copied().unwrap_or(Scope { depth, call: None, inlined: 0 });
                    let call = self.inlined(index, &own, around, header, files)?;
                    scopes.push(Scope { depth, call, inlined: around.inlined + 1 });
                }
                _ => entries.skip_attributes(abbreviation.attributes())?,
            }
        }
        Ok(())
    }

    /// Collects one function that was inlined, where it has any code. Returns its call's number.
    fn inlined(
        &mut self,
        index: usize,
        attributes: &[Attribute<Slice<'a>>],
        around: Scope,
        header: &LineProgramHeader<Slice<'a>>,
        files: &mut HashMap<u64, u32>,
    ) -> Result<Option<u32>, Stop> {
        let ranges = self.ranges(index, attributes)?;
        if ranges.is_empty() {
            return Ok(around.call);
        }
        let number = |name| {
            let value = attributes.iter().find(|attribute| attribute.name() == name)?;
            value.udata_value()
        };
        let small = |name| number(name).and_then(|value| u32::try_from(value).ok()).unwrap_or(0);
        let (line, column) = (small(dw::DW_AT_call_line), small(dw::DW_AT_call_column));
        let file = attributes.iter().find_map(|attribute| match attribute.value() {
            AttributeValue::FileIndex(file) if attribute.name() == dw::DW_AT_call_file => Some(file),
            _ => None,
        });
        let at = match file {
            Some(file) => At { file: self.file(index, header, file, files)?, line, column },
            None => At::default(),
        };
        let origin = attributes.iter().find(|attribute| attribute.name() == dw::DW_AT_abstract_origin);
        let function = match origin {
            Some(origin) => self.name(index, origin.value())?,
            None => self.into.name("")?,
        };
        let call = self.into.call(Call { inside: around.call, function, at })?;
        for range in ranges {
            let Range { start, end } = range;
            self.into.inlined(Inlined { start, end, depth: around.inlined, call })?;
        }
        Ok(Some(call))
    }

    /// Returns the ranges of code of an entry.
    fn ranges(&mut self, index: usize, attributes: &[Attribute<Slice<'a>>]) -> Result<Vec<Range<u32>>, Stop> {
        let unit = &self.units[index];
        let (mut low, mut high, mut size, mut list) = (None, None, None, None);
        for attribute in attributes {
            match attribute.name() {
                dw::DW_AT_low_pc => low = self.dwarf.attr_address(unit, attribute.value())?,
                dw::DW_AT_high_pc => match attribute.value() {
                    AttributeValue::Udata(bytes) => size = Some(bytes),
                    value => high = self.dwarf.attr_address(unit, value)?,
                },
                dw::DW_AT_ranges => list = self.dwarf.attr_ranges_offset(unit, attribute.value())?,
                _ => {}
            }
        }
        let mut found = Vec::new();
        let mut keep = |begin: u64, end: u64| {
            if let (Some(start), Some(end)) = (self.offset(begin), self.offset(end))
                && start < end
            {
                found.push(start..end);
            }
        };
        match (list, low) {
            (Some(list), _) => {
                let mut ranges = self.dwarf.ranges(unit, list)?;
                let mut seen = 0;
                // The account is charged below, since it cannot be while its parts are lent.
                while let Some(range) = ranges.next()? {
                    seen += 1;
                    if seen as u64 > self.work.0 || seen > LINES_ROWS_MAX {
                        return Err(Stop::TooMuch);
                    }
                    keep(range.begin, range.end);
                }
                self.work.charge(seen)?;
            }
            (None, Some(low)) => {
                let end = high.or_else(|| low.checked_add(size?));
                keep(low, end.unwrap_or(low));
            }
            (None, None) => {}
        }
        Ok(found)
    }

    /// Returns the number of the name of a function, whose entry another one names.
    fn name(&mut self, index: usize, origin: AttributeValue<Slice<'a>>) -> Result<u32, Stop> {
        let mut found = (None, None);
        let mut next = self.entry(index, origin);
        let first = next.and_then(|(unit, entry)| entry.to_debug_info_offset(&self.units[unit].header));
        if let Some(DebugInfoOffset(first)) = first
            && let Some(known) = self.names.get(&first)
        {
            return Ok(*known);
        }
        for _ in 0..NAME_STEPS_MAX {
            let Some((unit, entry)) = next.take() else { break };
            let abbreviations = self.units[unit].abbreviations.clone();
            let header = self.units[unit].header;
            let mut entries = header.entries_raw(&abbreviations, Some(entry))?;
            for attribute in attributes(&mut entries, &mut self.work)?.unwrap_or_default() {
                let text = || self.text(&self.units[unit], attribute.value(), LINES_NAME_BYTES_MAX);
                match attribute.name() {
                    dw::DW_AT_linkage_name | dw::DW_AT_MIPS_linkage_name => found.0 = found.0.or_else(text),
                    dw::DW_AT_name => found.1 = found.1.or_else(text),
                    dw::DW_AT_abstract_origin | dw::DW_AT_specification => {
                        next = self.entry(unit, attribute.value());
                    }
                    _ => {}
                }
            }
        }
        let name = match found {
            // Only names of Rust's say more than the source does, and can be read by those who show them.
            (Some(linkage), name) if is_rusts(linkage) || name.is_none() => linkage,
            (_, name) => name.unwrap_or_default(),
        };
        self.work.charge(name.len() / 16)?;
        let number = self.into.name(&String::from_utf8_lossy(name))?;
        if let Some(DebugInfoOffset(first)) = first {
            self.names.insert(first, number);
        }
        Ok(number)
    }

    /// Returns the unit in which an entry stands that is named in this one, and its place there.
    fn entry(&self, index: usize, named: AttributeValue<Slice<'a>>) -> Option<(usize, UnitOffset)> {
        match named {
            AttributeValue::UnitRef(offset) => Some((index, offset)),
            AttributeValue::DebugInfoRef(offset) => {
                let start =
                    |unit: &Unit<Slice<'a>>| unit.header.debug_info_offset().map_or(0, |start| start.0);
                let unit = self.units.partition_point(|unit| start(unit) <= offset.0).checked_sub(1)?;
                Some((unit, offset.to_unit_offset(&self.units[unit].header)?))
            }
            _ => None,
        }
    }

    /// Returns the first bytes of a text.
    fn text(&self, unit: &Unit<Slice<'a>>, value: AttributeValue<Slice<'a>>, max: usize) -> Option<&'a [u8]> {
        let in_section = |id, offset: usize| {
            let left = self.sections.get(id).get(offset..)?;
            let left = &left[..left.len().min(max)];
            left.split(|byte| *byte == 0).next()
        };
        match value {
            AttributeValue::String(text) => Some(&text.slice()[..text.len().min(max)]),
            AttributeValue::DebugStrRef(offset) => in_section(SectionId::DebugStr, offset.0),
            AttributeValue::DebugLineStrRef(offset) => in_section(SectionId::DebugLineStr, offset.0),
            AttributeValue::DebugStrOffsetsIndex(number) => {
                let (format, base) = (unit.header.format(), unit.str_offsets_base);
                let offset = self.dwarf.debug_str_offsets.get_str_offset(format, base, number).ok()?;
                in_section(SectionId::DebugStr, offset.0)
            }
            _ => None,
        }
    }
}

/// Reads the attributes of the next entry; `None` if there is none.
fn attributes<'a>(
    entries: &mut EntriesRaw<'_, Slice<'a>>,
    work: &mut Work,
) -> Result<Option<Vec<Attribute<Slice<'a>>>>, Stop> {
    let Some(abbreviation) = entries.read_abbreviation()? else { return Ok(None) };
    work.charge(abbreviation.attributes().len())?;
    let read = abbreviation.attributes().iter().map(|attribute| entries.read_attribute(*attribute));
    Ok(Some(read.collect::<Result<_, _>>()?))
}

/// Returns how many bytes the abbreviations take with which these bytes begin.
fn abbreviations_len(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    loop {
        let code = take(&mut rest)?;
        if code == 0 {
            return Some(bytes.len() - rest.len());
        }
        // Its tag, and whether it has children.
        take(&mut rest)?;
        rest = rest.get(1..)?;
        loop {
            let (name, form) = (take(&mut rest)?, take(&mut rest)?);
            if form == u64::from(dw::DW_FORM_implicit_const.0) {
                take(&mut rest)?;
            }
            if (name, form) == (0, 0) {
                break;
            }
        }
    }
}

/// Takes a LEB128 off the front.
fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    let mut shift = 0;
    loop {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if shift < u64::BITS {
            value |= u64::from(byte & 0x7f) << shift;
        }
        shift += 7;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
}

/// Returns how long the head of the line program is with which these bytes begin.
fn line_head_len(bytes: &[u8]) -> Option<usize> {
    // A length of 64 bits is announced by this one. The modules that are read here are far smaller.
    const IS_64_BITS: u32 = 0xffff_ffff;
    let number = |at: usize| bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    if number(0)? == IS_64_BITS {
        return None;
    }
    let version = u16::from_le_bytes(*bytes.get(4..)?.first_chunk()?);
    number(if version >= 5 { 8 } else { 6 }).map(|len| len as usize)
}

/// Returns whether a name was mangled by a compiler of Rust, in either way.
fn is_rusts(name: &[u8]) -> bool {
    name.starts_with(b"_R") || name.starts_with(b"_ZN") && name.windows(3).any(|part| part == b"17h")
}

/// Puts a path together. It is relative to the folder in which the unit was compiled, if it lies there.
fn path(compiled_in: &str, folder: &str, file: &str) -> String {
    let is_absolute = |path: &str| path.starts_with('/') || path.as_bytes().get(1) == Some(&b':');
    let whole: Cow<'_, str> = if is_absolute(file) || folder.is_empty() || folder == "." {
        file.into()
    } else {
        let separator = if folder.contains('\\') { '\\' } else { '/' };
        format!("{}{separator}{file}", folder.trim_end_matches(['/', '\\'])).into()
    };
    let inside =
        whole.strip_prefix(compiled_in.trim_end_matches(['/', '\\'])).filter(|_| !compiled_in.is_empty());
    let inside =
        inside.and_then(|inside| inside.strip_prefix(['/', '\\'])).filter(|inside| !inside.is_empty());
    let path = inside.unwrap_or(&whole);
    let path = path.strip_prefix("./").unwrap_or(path);
    // Its end says more than its beginning.
    let cut = path.len().saturating_sub(LINES_PATH_BYTES_MAX);
    let start = (cut..path.len()).find(|start| path.is_char_boundary(*start)).unwrap_or(path.len());
    if start == 0 { path.into() } else { format!("…{}", &path[start..]) }
}

#[cfg(test)]
mod tests;
