//! The table's bytes: written once, and read wherever they come from.

use super::{At, BLOCK_CALLS, BLOCK_ROWS, Call, HEAD_NUMBERS, MergedRow, NUMBER_BYTES, Row, number};
use crate::limits::{BACKTRACE_FRAMES_MAX, LINES_BYTES_MAX};

/// In the first number of a row, beside the bytes since the row before.
const SAME_FILE: u64 = 1;
const SAME_CALL: u64 = 2;
const FLAG_BITS: u32 = 2;

/// Returns the table's bytes; none where it would have too many.
pub(super) fn encode(rows: &[MergedRow], calls: &[Call], files: &[Box<str>], names: &[Box<str>]) -> Vec<u8> {
    let (row_index, row_bytes) = encode_rows(rows);
    let (call_index, call_bytes) = encode_calls(calls);
    let (file_ends, file_bytes) = encode_texts(files);
    let (name_ends, name_bytes) = encode_texts(names);
    let parts = [&row_bytes, &call_bytes, &file_bytes, &name_bytes];
    let counts = [rows.len(), calls.len(), files.len(), names.len()].map(number);
    let head = counts.into_iter().chain(parts.map(|part| number(part.len())));
    let numbers = head.chain(row_index).chain(call_index).chain(file_ends).chain(name_ends);
    let mut bytes: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
    if bytes.len() + parts.iter().map(|part| part.len()).sum::<usize>() > LINES_BYTES_MAX {
        return Vec::new();
    }
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

fn encode_rows(rows: &[MergedRow]) -> (Vec<u32>, Vec<u8>) {
    let (mut index, mut bytes) = (Vec::new(), Vec::new());
    for block in rows.chunks(BLOCK_ROWS) {
        let mut before = (Row { offset: block[0].0.offset, at: At::default() }, None);
        index.extend([before.0.offset, number(bytes.len())]);
        for (row, call) in block {
            let (last, last_call) = before;
            let is_same_file = row.at.file == last.at.file;
            let is_same_call = *call == last_call;
            let gap = u64::from(row.offset - last.offset) << FLAG_BITS;
            let same_file = if is_same_file { SAME_FILE } else { 0 };
            let same_call = if is_same_call { SAME_CALL } else { 0 };
            push(&mut bytes, gap | same_file | same_call);
            push_signed(&mut bytes, i64::from(row.at.line) - i64::from(last.at.line));
            push(&mut bytes, row.at.column.into());
            if !is_same_file {
                push(&mut bytes, row.at.file.into());
            }
            if !is_same_call {
                push_signed(&mut bytes, call_number(*call) - call_number(last_call));
            }
            before = (*row, *call);
        }
    }
    (index, bytes)
}

/// A row's call as one number: 0 is none.
fn call_number(call: Option<u32>) -> i64 {
    call.map_or(0, |call| i64::from(call) + 1)
}

fn encode_calls(calls: &[Call]) -> (Vec<u32>, Vec<u8>) {
    let (mut index, mut bytes) = (Vec::new(), Vec::new());
    for (number_of_block, block) in calls.chunks(BLOCK_CALLS).enumerate() {
        index.push(number(bytes.len()));
        for (place, call) in block.iter().enumerate() {
            // How far back the outer call is; 0 is none.
            let own = number(number_of_block * BLOCK_CALLS + place);
            let back = call.inside.map_or(0, |inside| own.saturating_sub(inside));
            for value in [back, call.function, call.at.file, call.at.line, call.at.column] {
                push(&mut bytes, value.into());
            }
        }
    }
    (index, bytes)
}

fn encode_texts(texts: &[Box<str>]) -> (Vec<u32>, Vec<u8>) {
    let (mut ends, mut bytes) = (Vec::new(), Vec::new());
    for text in texts {
        bytes.extend_from_slice(text.as_bytes());
        ends.push(number(bytes.len()));
    }
    (ends, bytes)
}

fn push(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn push_signed(bytes: &mut Vec<u8>, value: i64) {
    push(bytes, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

/// Takes a number off the front.
fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    u32::try_from(take(bytes)?).ok()
}

/// Takes a difference off the front, and adds it.
fn take_sum(bytes: &mut &[u8], before: u32) -> Option<u32> {
    let value = take(bytes)?;
    let difference = (value >> 1).cast_signed() ^ -(value & 1).cast_signed();
    u32::try_from(i64::from(before).checked_add(difference)?).ok()
}

/// A place in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    pub file: &'a str,
    pub line: u32,
    pub column: Option<u32>,
}

/// A function whose code stands at an offset, and the place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Within<'a> {
    /// The name of a function that was inlined. `None`: the function is the module's own, of which the table has no name.
    pub inlined: Option<&'a str>,
    pub place: Option<Place<'a>>,
}

/// Numbers of 32 bits.
#[derive(Debug, Clone, Copy)]
struct Numbers<'a>(&'a [u8]);

impl<'a> Numbers<'a> {
    fn get(self, index: usize) -> Option<u32> {
        let bytes = self.0.get(index.checked_mul(NUMBER_BYTES)?..)?;
        bytes.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
    }

    /// Takes so many off the front of these bytes.
    fn split(bytes: &mut &'a [u8], count: usize) -> Option<Numbers<'a>> {
        let (numbers, rest) = bytes.split_at_checked(count.checked_mul(NUMBER_BYTES)?)?;
        *bytes = rest;
        Some(Numbers(numbers))
    }
}

/// Texts, and where each ends.
#[derive(Debug, Clone, Copy)]
struct TextsAt<'a> {
    ends: Numbers<'a>,
    bytes: &'a [u8],
}

impl<'a> TextsAt<'a> {
    fn get(self, index: u32) -> Option<&'a str> {
        let index = index as usize;
        let start = index.checked_sub(1).map_or(Some(0), |before| self.ends.get(before))?;
        let bytes = self.bytes.get(start as usize..self.ends.get(index)? as usize)?;
        std::str::from_utf8(bytes).ok()
    }
}

/// A table, wherever it comes from.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    row_index: Numbers<'a>,
    row_blocks: usize,
    row_count: usize,
    rows: &'a [u8],
    call_index: Numbers<'a>,
    call_count: u32,
    calls: &'a [u8],
    files: TextsAt<'a>,
    names: TextsAt<'a>,
}

impl<'a> Table<'a> {
    /// Returns `None` if the parts do not have the sizes that the head says.
    pub fn new(bytes: &'a [u8]) -> Option<Table<'a>> {
        let mut rest = bytes;
        let head = Numbers::split(&mut rest, HEAD_NUMBERS)?;
        let count = |index| head.get(index).map(|count| count as usize);
        let [row_count, calls, files, names] = [count(0)?, count(1)?, count(2)?, count(3)?];
        let row_blocks = row_count.div_ceil(BLOCK_ROWS);
        let row_index = Numbers::split(&mut rest, row_blocks.checked_mul(2)?)?;
        let call_index = Numbers::split(&mut rest, calls.div_ceil(BLOCK_CALLS))?;
        let file_ends = Numbers::split(&mut rest, files)?;
        let name_ends = Numbers::split(&mut rest, names)?;
        let mut part = |index| {
            let (part, behind) = rest.split_at_checked(count(index)?)?;
            rest = behind;
            Some(part)
        };
        Some(Table {
            row_index,
            row_blocks,
            row_count,
            rows: part(4)?,
            call_index,
            call_count: head.get(1)?,
            calls: part(5)?,
            files: TextsAt { ends: file_ends, bytes: part(6)? },
            names: TextsAt { ends: name_ends, bytes: part(7)? },
        })
    }

    /// Returns the functions whose code stands at this offset of the module, innermost first: those that were inlined, and
    /// the module's own as the last. At most [`BACKTRACE_FRAMES_MAX`] are told.
    pub fn at(&self, offset: u64) -> Vec<Within<'a>> {
        let found = u32::try_from(offset).ok().and_then(|offset| self.row(offset));
        let Some((at, mut call)) = found else { return vec![Within { inlined: None, place: None }] };
        let mut place = self.place(at);
        let mut within = Vec::new();
        while let Some(number) = call
            && let Some(Call { inside, function, at }) = self.call(number)
            && within.len() + 1 < BACKTRACE_FRAMES_MAX
        {
            within.push(Within { inlined: Some(self.names.get(function).unwrap_or_default()), place });
            place = self.place(at);
            call = inside;
        }
        within.push(Within { inlined: None, place });
        within
    }

    /// Returns the row of an offset: the last one that is not behind it.
    fn row(&self, offset: u32) -> Option<(At, Option<u32>)> {
        let (mut low, mut high) = (0, self.row_blocks);
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.row_index.get(2 * middle)? <= offset {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        let block = low.checked_sub(1)?;
        let mut bytes = self.rows.get(self.row_index.get(2 * block + 1)? as usize..)?;
        let mut next = (self.row_index.get(2 * block)?, At::default(), 0);
        let mut found = None;
        for _ in 0..BLOCK_ROWS.min(self.row_count - block * BLOCK_ROWS) {
            next = take_row(&mut bytes, next)?;
            if next.0 > offset {
                break;
            }
            found = Some((next.1, next.2.checked_sub(1)));
        }
        found
    }

    fn call(&self, index: u32) -> Option<Call> {
        if index >= self.call_count {
            return None;
        }
        let block = index as usize / BLOCK_CALLS;
        let mut bytes = self.calls.get(self.call_index.get(block)? as usize..)?;
        let mut call = None;
        for _ in 0..=index as usize % BLOCK_CALLS {
            let [back, function, file, line, column] = [(); 5].map(|()| take_u32(&mut bytes));
            let at = At { file: file?, line: line?, column: column? };
            let inside = index.checked_sub(back?).filter(|inside| *inside != index);
            call = Some(Call { inside, function: function?, at });
        }
        call
    }

    fn place(&self, at: At) -> Option<Place<'a>> {
        let file = self.files.get(at.file)?;
        let column = (at.column > 0).then_some(at.column);
        (at.line > 0).then_some(Place { file, line: at.line, column })
    }
}

/// Takes the row behind this one off the front: its offset, place, and call (0 is none).
fn take_row(bytes: &mut &[u8], before: (u32, At, u32)) -> Option<(u32, At, u32)> {
    let (offset, at, call) = before;
    let first = take(bytes)?;
    let gap = u32::try_from(first >> FLAG_BITS).ok()?;
    let line = take_sum(bytes, at.line)?;
    let column = take_u32(bytes)?;
    let file = if first & SAME_FILE != 0 { at.file } else { take_u32(bytes)? };
    let call = if first & SAME_CALL != 0 { call } else { take_sum(bytes, call)? };
    Some((offset.checked_add(gap)?, At { file, line, column }, call))
}
