//! Reads what a component returned: from where the canonical ABI has put it, value by value, to postcard.
//!
//! Every place is the component's word, and is checked before it is read. The bytes that are written are bounded by the
//! task's limit: lists that lie in one place may stand in a list many times over.

use std::cell::Cell;

use wasmtime::component::__internal::{
    CanonicalAbiInfo, InstanceType, InterfaceType, LiftContext, wasmtime_environ,
};
use wasmtime::component::{ComponentNamedList, ComponentType, Lift};
use wasmtime::{Result, ValRaw};
use wasmtime_environ::component::{MAX_FLAT_RESULTS, StringEncoding, VariantInfo};

use super::flags_bytes;
use proto::limits::GUEST_TEXT_BYTES_MAX;

/// The result of a call, as postcard.
pub enum Returned {
    Value(Vec<u8>),
    /// The function returned an error, which is this.
    Error(Vec<u8>),
}

/// A result cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unliftable {
    #[error("the output is over its limit")]
    TooLarge { bytes: u64 },
    #[error("the component returned {0}")]
    Malformed(String),
}

fn malformed(what: impl std::fmt::Display) -> wasmtime::Error {
    Unliftable::Malformed(what.to_string()).into()
}

thread_local! {
    /// A result is lifted without access to the store, where the limits of the task at hand are.
    static OUTPUT_BYTES_MAX: Cell<u64> = const { Cell::new(0) };
}

/// The most bytes of a result, for as long as this exists. Only the thread that runs tasks sets it, for one at a time.
pub struct Limit(());

impl Limit {
    pub fn set(output_bytes_max: u64) -> Limit {
        OUTPUT_BYTES_MAX.set(output_bytes_max);
        Limit(())
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        OUTPUT_BYTES_MAX.set(0);
    }
}

// SAFETY: `Lower` is one `ValRaw`, and a function of core WebAssembly that a component lifts returns one value at most. No
// size in memory is promised to anybody: a result in memory is found by its address.
unsafe impl ComponentType for Returned {
    type Lower = [ValRaw; MAX_FLAT_RESULTS];

    const ABI: CanonicalAbiInfo = CanonicalAbiInfo::SCALAR4;

    fn typecheck(_: &InterfaceType, _: &InstanceType<'_>) -> Result<()> {
        // The types are walked with the values, and what cannot be lifted is refused there.
        Ok(())
    }
}

// SAFETY: as above; the type that is walked is that of the function's results.
unsafe impl ComponentNamedList for Returned {}

// SAFETY: any value of `src` is taken, and each place that it leads to is checked.
unsafe impl Lift for Returned {
    fn linear_lift_from_flat(cx: &mut LiftContext<'_>, ty: InterfaceType, src: &Self::Lower) -> Result<Self> {
        let InterfaceType::Tuple(index) = ty else { return Err(unexpected()) };
        let result = cx.types[index].types.first().copied();
        let mut output = Output { bytes: Vec::new(), max: OUTPUT_BYTES_MAX.get() };
        let Some(result) = result else { return Ok(Returned::Value(output.bytes)) };
        let abi = cx.types.canonical_abi(&ty);
        let [slot] = src;
        let from = match abi.flat_count(MAX_FLAT_RESULTS) {
            Some(_) => Place::Flat(*slot),
            None => {
                let at = slot.get_u32() as usize;
                if !at.is_multiple_of(abi.align32 as usize) {
                    return Err(malformed("a place that is not aligned"));
                }
                bytes_at(cx, at, abi.size32 as usize)?;
                Place::At(at)
            }
        };
        // A result at the root says whether the task succeeded.
        let InterfaceType::Result(index) = result else {
            lift(cx, result, from, &mut output)?;
            return Ok(Returned::Value(output.bytes));
        };
        let info = &cx.types[index].info.clone();
        let ok = cx.types[index].ok;
        let err = cx.types[index].err;
        let case = case(cx, info, from, 2)?;
        if case == 0 {
            if let Some(ty) = ok {
                lift(cx, ty, from.payload(info)?, &mut output)?;
            }
            return Ok(Returned::Value(output.bytes));
        }
        // An error is kept as it is, for as long as somebody has the failure.
        output.max = GUEST_TEXT_BYTES_MAX as u64;
        if let Some(ty) = err {
            lift(cx, ty, from.payload(info)?, &mut output).map_err(of_error)?;
        }
        Ok(Returned::Error(output.bytes))
    }

    fn linear_lift_from_memory(_: &mut LiftContext<'_>, _: InterfaceType, _: &[u8]) -> Result<Self> {
        Err(wasmtime::format_err!("a result is lifted as a whole"))
    }
}

/// An error that is too large is none that a caller can have.
fn of_error(error: wasmtime::Error) -> wasmtime::Error {
    match error.downcast_ref() {
        Some(Unliftable::TooLarge { bytes }) => malformed(format_args!(
            "an error of {bytes} bytes or more, and {GUEST_TEXT_BYTES_MAX} at most are kept"
        )),
        _ => error,
    }
}

/// Bytes that are written, and how many there may be.
struct Output {
    bytes: Vec<u8>,
    max: u64,
}

impl Output {
    fn make_room(&mut self, len: usize) -> Result<()> {
        let bytes = self.bytes.len() as u64 + len as u64;
        if bytes > self.max {
            return Err(Unliftable::TooLarge { bytes }.into());
        }
        // The process may be at its own limit.
        match self.bytes.try_reserve(len) {
            Ok(()) => Ok(()),
            Err(_) => Err(Unliftable::TooLarge { bytes }.into()),
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.make_room(bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn value<T: serde::Serialize>(&mut self, value: T) -> Result<()> {
        // The longest is a number of 64 bits.
        let mut room = [0; 16];
        let encoded = postcard::to_slice(&value, &mut room)?;
        self.push(encoded)
    }
}

/// Where a value is.
#[derive(Clone, Copy)]
enum Place {
    /// It is this one of core WebAssembly.
    Flat(ValRaw),
    /// It is at this place in memory, which has room for its type.
    At(usize),
}

impl Place {
    /// Where the payload of a case is.
    fn payload(self, info: &VariantInfo) -> Result<Place> {
        match self {
            Place::At(at) => Ok(Place::At(at + info.payload_offset32 as usize)),
            // One value of core WebAssembly says which case it is, and there is none for a payload.
            Place::Flat(_) => Err(unexpected()),
        }
    }

    fn read<const BYTES: usize>(self, cx: &LiftContext<'_>) -> Result<[u8; BYTES]> {
        match self {
            Place::At(at) => {
                let bytes = bytes_at(cx, at, BYTES)?;
                bytes.try_into().map_err(|_| unexpected())
            }
            Place::Flat(value) => {
                let bytes = value.get_u64().to_le_bytes();
                bytes.first_chunk().copied().ok_or_else(unexpected)
            }
        }
    }
}

/// A type that no task has: the compiler has refused it.
fn unexpected() -> wasmtime::Error {
    wasmtime::format_err!("a task has a type that it cannot have")
}

fn bytes_at<'a>(cx: &LiftContext<'a>, at: usize, len: usize) -> Result<&'a [u8]> {
    let memory = cx.memory();
    let bytes = at.checked_add(len).and_then(|end| memory.get(at..end));
    bytes.ok_or_else(|| malformed(format_args!("a place outside of its memory: {len} bytes at {at}")))
}

/// Reads which case it is.
fn case(cx: &LiftContext<'_>, info: &VariantInfo, from: Place, count: usize) -> Result<u32> {
    let case = match (info.size.byte_size(), from) {
        (_, Place::Flat(value)) => value.get_u32(),
        (1, _) => u32::from(from.read::<1>(cx)?[0]),
        (2, _) => u32::from(u16::from_le_bytes(from.read(cx)?)),
        _ => u32::from_le_bytes(from.read(cx)?),
    };
    if (case as usize) < count { Ok(case) } else { Err(malformed(format_args!("case {case} of {count}"))) }
}

/// Writes the number of a case, and its payload.
fn choice(
    cx: &mut LiftContext<'_>,
    info: &VariantInfo,
    from: Place,
    cases: &[Option<InterfaceType>],
    output: &mut Output,
) -> Result<()> {
    let case = case(cx, info, from, cases.len())?;
    output.value(case)?;
    match cases.get(case as usize) {
        Some(Some(ty)) => lift(cx, *ty, from.payload(info)?, output),
        _ => Ok(()),
    }
}

/// Writes a value.
fn lift(cx: &mut LiftContext<'_>, ty: InterfaceType, from: Place, output: &mut Output) -> Result<()> {
    let types = cx.types.clone();
    match ty {
        InterfaceType::Bool => {
            let is_set = match from {
                Place::Flat(value) => value.get_u32() != 0,
                Place::At(_) => from.read::<1>(cx)? != [0],
            };
            output.value(is_set)
        }
        InterfaceType::U8 | InterfaceType::S8 => output.push(&from.read::<1>(cx)?),
        InterfaceType::U16 => output.value(u16::from_le_bytes(from.read(cx)?)),
        InterfaceType::S16 => output.value(i16::from_le_bytes(from.read(cx)?)),
        InterfaceType::U32 => output.value(u32::from_le_bytes(from.read(cx)?)),
        InterfaceType::S32 => output.value(i32::from_le_bytes(from.read(cx)?)),
        InterfaceType::U64 => output.value(u64::from_le_bytes(from.read(cx)?)),
        InterfaceType::S64 => output.value(i64::from_le_bytes(from.read(cx)?)),
        // The bits are written as they are: a NaN stays the one that it is.
        InterfaceType::Float32 => output.push(&from.read::<4>(cx)?),
        InterfaceType::Float64 => output.push(&from.read::<8>(cx)?),
        InterfaceType::Char => {
            let number = u32::from_le_bytes(from.read(cx)?);
            let char = char::from_u32(number);
            output.value(char.ok_or_else(|| malformed(format_args!("{number:#x} for a character")))?)
        }
        InterfaceType::Record(index) => {
            let parts = types[index].fields.iter().map(|field| field.ty);
            lift_parts(cx, parts, from, output)
        }
        InterfaceType::Tuple(index) => lift_parts(cx, types[index].types.iter().copied(), from, output),
        InterfaceType::Variant(index) => {
            let cases: Vec<_> = types[index].cases.values().copied().collect();
            choice(cx, &types[index].info, from, &cases, output)
        }
        InterfaceType::Enum(index) => {
            let cases = vec![None; types[index].names.len()];
            choice(cx, &types[index].info, from, &cases, output)
        }
        InterfaceType::Option(index) => {
            let of = &types[index];
            choice(cx, &of.info, from, &[None, Some(of.ty)], output)
        }
        InterfaceType::Result(index) => {
            let of = &types[index];
            choice(cx, &of.info, from, &[of.ok, of.err], output)
        }
        InterfaceType::Flags(index) => {
            let count = types[index].names.len();
            for flag in 0..count {
                let is_set = flag_word(cx, count, from, flag / 32)? >> (flag % 32) & 1 == 1;
                output.value(is_set)?;
            }
            Ok(())
        }
        InterfaceType::String => text(cx, pair(cx, from)?, output),
        InterfaceType::List(index) => list(cx, types[index].element, pair(cx, from)?, output),
        _ => Err(unexpected()),
    }
}

fn lift_parts(
    cx: &mut LiftContext<'_>,
    parts: impl Iterator<Item = InterfaceType>,
    from: Place,
    output: &mut Output,
) -> Result<()> {
    let mut offset = 0;
    for ty in parts {
        let place = match from {
            Place::At(at) => Place::At(at + cx.types.canonical_abi(&ty).next_field32_size(&mut offset)),
            // There is one part.
            Place::Flat(_) => from,
        };
        lift(cx, ty, place, output)?;
    }
    Ok(())
}

/// So many flags, from this word of theirs on.
fn flag_word(cx: &LiftContext<'_>, count: usize, from: Place, word: usize) -> Result<u32> {
    let Place::At(at) = from else { return Ok(u32::from_le_bytes(from.read(cx)?)) };
    Ok(match flags_bytes(count) {
        1 => u32::from(from.read::<1>(cx)?[0]),
        2 => u32::from(u16::from_le_bytes(from.read(cx)?)),
        _ => u32::from_le_bytes(Place::At(at + 4 * word).read(cx)?),
    })
}

/// Where a text or a list is, and its length.
fn pair(cx: &LiftContext<'_>, from: Place) -> Result<(usize, usize)> {
    let bytes = from.read::<8>(cx)?;
    let (numbers, _) = bytes.as_chunks::<4>();
    match numbers {
        [at, len] => Ok((u32::from_le_bytes(*at) as usize, u32::from_le_bytes(*len) as usize)),
        _ => Err(unexpected()),
    }
}

/// The bit of a text's length that says, of a component with two encodings, that it is UTF-16.
const UTF16_TAG: usize = 1 << 31;

fn text(cx: &LiftContext<'_>, (at, len): (usize, usize), output: &mut Output) -> Result<()> {
    let encoding = cx.options().string_encoding;
    let is_wide = match encoding {
        StringEncoding::Utf8 => {
            let text = std::str::from_utf8(bytes_at(cx, at, len)?);
            let text = text.map_err(|error| malformed(format_args!("a text that is not UTF-8: {error}")))?;
            output.value(text.len() as u64)?;
            return output.push(text.as_bytes());
        }
        StringEncoding::Utf16 => true,
        StringEncoding::CompactUtf16 => len & UTF16_TAG != 0,
    };
    if !at.is_multiple_of(2) {
        return Err(malformed("a text that is not aligned"));
    }
    let mut text = String::new();
    let fits = |text: &String| match text.len() as u64 + output.bytes.len() as u64 {
        bytes if bytes > output.max => Err(Unliftable::TooLarge { bytes }),
        _ => Ok(()),
    };
    if is_wide {
        let units = if encoding == StringEncoding::Utf16 { len } else { len & !UTF16_TAG };
        let bytes = bytes_at(cx, at, units.checked_mul(2).ok_or_else(unexpected)?)?;
        let (units, _) = bytes.as_chunks::<2>();
        for char in char::decode_utf16(units.iter().map(|unit| u16::from_le_bytes(*unit))) {
            text.push(char.map_err(|error| malformed(format_args!("a text that is not UTF-16: {error}")))?);
            fits(&text)?;
        }
    } else {
        for byte in bytes_at(cx, at, len)? {
            text.push(char::from(*byte));
            fits(&text)?;
        }
    }
    output.value(text.len() as u64)?;
    output.push(text.as_bytes())
}

fn list(
    cx: &mut LiftContext<'_>,
    element: InterfaceType,
    (at, len): (usize, usize),
    output: &mut Output,
) -> Result<()> {
    let abi = cx.types.canonical_abi(&element);
    let item_bytes = abi.size32 as usize;
    if !at.is_multiple_of(abi.align32 as usize) {
        return Err(malformed("a list that is not aligned"));
    }
    let whole = bytes_at(cx, at, len.checked_mul(item_bytes).ok_or_else(unexpected)?)?;
    output.value(len as u64)?;
    match element {
        // These are in postcard as they are in memory.
        InterfaceType::U8 | InterfaceType::S8 | InterfaceType::Float32 | InterfaceType::Float64 => {
            output.push(whole)
        }
        InterfaceType::U16 => items(whole, output, u16::from_le_bytes),
        InterfaceType::S16 => items(whole, output, i16::from_le_bytes),
        InterfaceType::U32 => items(whole, output, u32::from_le_bytes),
        InterfaceType::S32 => items(whole, output, i32::from_le_bytes),
        InterfaceType::U64 => items(whole, output, u64::from_le_bytes),
        InterfaceType::S64 => items(whole, output, i64::from_le_bytes),
        _ => (0..len).try_for_each(|index| lift(cx, element, Place::At(at + index * item_bytes), output)),
    }
}

/// Writes numbers of one type.
fn items<N: serde::Serialize, const BYTES: usize>(
    whole: &[u8],
    output: &mut Output,
    of_bytes: fn([u8; BYTES]) -> N,
) -> Result<()> {
    let (items, _) = whole.as_chunks::<BYTES>();
    items.iter().try_for_each(|item| output.value(of_bytes(*item)))
}
