//! The places in the source of a module's code: a table that the compiler role makes of the module's debug information, and
//! that a worker looks at when a task has failed.
//!
//! ```text
//! head       eight numbers: rows, calls, files, names, and the bytes of each of these parts
//! row index  for each block of rows: the offset of its first row, and where the block begins
//! call index for each block of calls: where the block begins
//! texts      for each file and each name: where it ends
//! rows, calls, files, names: the parts
//! ```
//! Numbers are of 32 bits, little endian; within the parts they are LEB128, mostly as differences: a row takes some four
//! bytes. Nothing is read of the table but what one place needs, so that its pages cost nothing before.
//!
//! A worker may be given a table that is damaged: every number is checked where it is used, and costs lines only.

mod table;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use crate::limits::{LINES_CALLS_MAX, LINES_FILES_MAX, LINES_ROWS_MAX, LINES_TEXT_BYTES_MAX};

pub use table::{Place, Table, Within};

/// Rows in a block, which is read from its beginning.
const BLOCK_ROWS: usize = 64;
/// Calls in a block. A chain of inlined functions reads one for each function.
const BLOCK_CALLS: usize = 16;

const HEAD_NUMBERS: usize = 8;
const NUMBER_BYTES: usize = 4;

/// A place in the source. A line of 0 is one that nobody knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct At {
    /// The file's number in the table.
    pub file: u32,
    pub line: u32,
    pub column: u32,
}

/// From this offset on the code is of this place, up to the next row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub offset: u32,
    pub at: At,
}

/// The code of a function that was inlined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inlined {
    pub start: u32,
    pub end: u32,
    /// How many inlined functions it is in.
    pub depth: u32,
    /// The number of its call.
    pub call: u32,
}

/// A call of a function that was inlined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The call in whose function it stands, if that was inlined as well; it has a smaller number.
    pub inside: Option<u32>,
    /// The function's number among the names.
    pub function: u32,
    /// Where the call stands.
    pub at: At,
}

/// The table may not grow further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Collects what becomes a table.
#[derive(Debug, Default)]
pub struct Collected {
    rows: Vec<Row>,
    inlined: Vec<Inlined>,
    calls: Vec<Call>,
    files: Texts,
    names: Texts,
}

impl Collected {
    pub fn row(&mut self, row: Row) -> Result<(), Full> {
        push(&mut self.rows, row, LINES_ROWS_MAX)
    }

    /// The calls' ranges: each is in that of the call inside of which it stands.
    pub fn inlined(&mut self, inlined: Inlined) -> Result<(), Full> {
        push(&mut self.inlined, inlined, LINES_ROWS_MAX)
    }

    /// Returns the call's number.
    pub fn call(&mut self, call: Call) -> Result<u32, Full> {
        push(&mut self.calls, call, LINES_CALLS_MAX)?;
        Ok(number(self.calls.len() - 1))
    }

    /// Returns the file's number.
    pub fn file(&mut self, path: &str) -> Result<u32, Full> {
        self.files.number(path, LINES_FILES_MAX)
    }

    /// Returns the function's number.
    pub fn name(&mut self, name: &str) -> Result<u32, Full> {
        self.names.number(name, LINES_CALLS_MAX)
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.inlined.is_empty()
    }

    /// Returns the table. It is not larger than [`LINES_BYTES_MAX`](crate::limits::LINES_BYTES_MAX), whatever was collected.
    pub fn into_table(mut self) -> Vec<u8> {
        self.rows.sort_by_key(|row| row.offset);
        let segments = segments(&mut self.inlined);
        let rows = merged(&self.rows, &segments);
        drop((self.rows, segments));
        table::encode(&rows, &self.calls, &self.files.all, &self.names.all)
    }
}

/// Appends, where there is room and memory.
fn push<T>(all: &mut Vec<T>, one: T, max: usize) -> Result<(), Full> {
    if all.len() >= max || all.try_reserve(1).is_err() {
        return Err(Full);
    }
    all.push(one);
    Ok(())
}

/// Lengths here are far below 2^32.
fn number(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Different texts, each with a number.
#[derive(Debug, Default)]
struct Texts {
    all: Vec<Box<str>>,
    numbers: HashMap<Box<str>, u32>,
    bytes: usize,
}

impl Texts {
    fn number(&mut self, text: &str, max: usize) -> Result<u32, Full> {
        if let Some(known) = self.numbers.get(text) {
            return Ok(*known);
        }
        if self.bytes + text.len() > LINES_TEXT_BYTES_MAX {
            return Err(Full);
        }
        push(&mut self.all, text.into(), max)?;
        let number = number(self.all.len() - 1);
        self.bytes += text.len();
        self.numbers.insert(text.into(), number);
        Ok(number)
    }
}

/// From this offset on the code is of this call's function, or of none that was inlined.
type Segment = (u32, Option<u32>);

/// Lays nested ranges out side by side. Ranges that are not nested, as those of damaged information may be, end with
/// those that they began in.
fn segments(inlined: &mut [Inlined]) -> Vec<Segment> {
    inlined.sort_by_key(|range| (range.start, range.depth, range.call));
    let mut segments: Vec<Segment> = Vec::new();
    let mut open: Vec<Inlined> = Vec::new();
    let mut begin = |segment: Segment| match segments.last_mut() {
        Some(last) if last.0 == segment.0 => *last = segment,
        _ => segments.push(segment),
    };
    let close = |open: &mut Vec<Inlined>, until: u32, begin: &mut dyn FnMut(Segment)| {
        while let Some(ended) = open.pop_if(|last| last.end <= until) {
            begin((ended.end, open.last().map(|around| around.call)));
        }
    };
    for range in inlined.iter().filter(|range| range.start < range.end) {
        close(&mut open, range.start, &mut begin);
        let around = open.last().map_or(u32::MAX, |around| around.end);
        open.push(Inlined { end: range.end.min(around), ..*range });
        begin((range.start, Some(range.call)));
    }
    close(&mut open, u32::MAX, &mut begin);
    segments
}

/// A row, and the call of the inlined function that its code is of.
type MergedRow = (Row, Option<u32>);

/// Puts places and inlined functions into one list, without rows that say nothing new.
fn merged(rows: &[Row], segments: &[Segment]) -> Vec<MergedRow> {
    let mut merged: Vec<MergedRow> = Vec::new();
    let (mut rows, mut segments) = (rows.iter().peekable(), segments.iter().peekable());
    let mut at = At::default();
    let mut call = None;
    loop {
        let next_row = rows.peek().map(|row| row.offset);
        let next_segment = segments.peek().map(|segment| segment.0);
        let Some(offset) = [next_row, next_segment].into_iter().flatten().min() else { break };
        // Of several rows at one offset the last one counts.
        while let Some(row) = rows.next_if(|row| row.offset == offset) {
            at = row.at;
        }
        while let Some(segment) = segments.next_if(|segment| segment.0 == offset) {
            call = segment.1;
        }
        if merged.last().is_none_or(|(last, last_call)| (last.at, *last_call) != (at, call)) {
            merged.push((Row { offset, at }, call));
        }
    }
    merged
}
