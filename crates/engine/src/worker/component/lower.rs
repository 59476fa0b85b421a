//! Puts a task's input into a component: from postcard, value by value, to where the canonical ABI wants it.
//!
//! What is read here was checked by the host against the task's schema only in part, so nothing of it is trusted: each
//! value is as long as there are bytes, and a list has no more items than bytes are left.

use std::mem::MaybeUninit;
use std::slice::IterMut;
use std::str;

use wasmtime::component::__internal::{
    CanonicalAbiInfo, InstanceType, InterfaceType, LowerContext, wasmtime_environ,
};
use wasmtime::component::{ComponentNamedList, ComponentType, Lower};
use wasmtime::{Result, ValRaw};
use wasmtime_environ::component::{MAX_FLAT_PARAMS, VariantInfo};

use super::flags_bytes;
use proto::inbox::{self, Input};

/// The input is not what the function takes. The text is for its caller.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct BadInput(pub(super) String);

fn bad(what: impl std::fmt::Display) -> wasmtime::Error {
    BadInput(format!("the input is not the values of the function: {what}")).into()
}

/// All arguments of a call, whatever the function: their types are looked up when they are lowered.
pub struct Arguments(Vec<u8>);

impl Arguments {
    /// Reads a task's input; or returns how long it is, if there is no memory for it.
    ///
    /// # Errors
    /// If the host is gone.
    pub fn read(input: &mut dyn Input) -> Result<std::result::Result<Arguments, u64>> {
        Ok(inbox::read_whole(input)?.map(Arguments))
    }
}

// SAFETY: `Lower` is a sequence of `ValRaw`, of as many as any function takes. It is filled as a whole, whatever the types
// are. No size in memory is promised to anybody: arguments that are too many to be passed as such are put into memory here.
unsafe impl ComponentType for Arguments {
    type Lower = [ValRaw; MAX_FLAT_PARAMS];

    const ABI: CanonicalAbiInfo = CanonicalAbiInfo::SCALAR4;

    fn typecheck(_: &InterfaceType, _: &InstanceType<'_>) -> Result<()> {
        // The types are walked with the values, and what cannot be lowered is refused there.
        Ok(())
    }
}

// SAFETY: as above; the type that is walked is that of the function's parameters.
unsafe impl ComponentNamedList for Arguments {}

// SAFETY: all of `dst` is written. What core WebAssembly reads of it are as many values as the parameters have when they
// are flat, or the address of where they are.
unsafe impl Lower for Arguments {
    fn linear_lower_to_flat<T>(
        &self,
        cx: &mut LowerContext<'_, T>,
        ty: InterfaceType,
        dst: &mut MaybeUninit<Self::Lower>,
    ) -> Result<()> {
        let mut slots = [ValRaw::u64(0); MAX_FLAT_PARAMS];
        let mut input = Bytes(&self.0);
        let abi = cx.types.canonical_abi(&ty);
        if abi.flat_count(MAX_FLAT_PARAMS).is_some() {
            flat(cx, ty, &mut input, &mut slots.iter_mut())?;
        } else {
            let at = cx.realloc(0, 0, abi.align32, abi.size32 as usize)?;
            store(cx, ty, &mut input, at)?;
            slots[0] = ValRaw::u64(at as u64);
        }
        if !input.0.is_empty() {
            return Err(bad(format_args!("{} bytes are left over", input.0.len())));
        }
        dst.write(slots);
        Ok(())
    }

    fn linear_lower_to_memory<T>(
        &self,
        _: &mut LowerContext<'_, T>,
        _: InterfaceType,
        _: usize,
    ) -> Result<()> {
        Err(wasmtime::format_err!("arguments are lowered as a whole"))
    }
}

/// The rest of the input.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(|| bad("it is cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn value<T: serde::Deserialize<'a>>(&mut self) -> Result<T> {
        let (value, rest) = postcard::take_from_bytes(self.0).map_err(bad)?;
        self.0 = rest;
        Ok(value)
    }

    fn bool(&mut self) -> Result<bool> {
        self.value()
    }

    /// A length, of something each part of which takes a byte at least.
    fn len(&mut self) -> Result<usize> {
        let len: u64 = self.value()?;
        match usize::try_from(len) {
            Ok(len) if len <= self.0.len() => Ok(len),
            _ => Err(bad("it is cut off")),
        }
    }

    /// The number of one of so many cases.
    fn case(&mut self, count: usize) -> Result<u32> {
        let case: u32 = self.value()?;
        if (case as usize) < count { Ok(case) } else { Err(bad(format_args!("there is no case {case}"))) }
    }

    fn text(&mut self) -> Result<&'a str> {
        let len = self.len()?;
        str::from_utf8(self.take(len)?).map_err(bad)
    }
}

/// A number, as the canonical ABI has it.
#[derive(Clone, Copy)]
enum Scalar {
    One(u8),
    Two(u16),
    Four(u32),
    Eight(u64),
    F32([u8; 4]),
    F64([u8; 8]),
}

/// Reads a value of a type without parts; `None` for any other type.
fn scalar(ty: InterfaceType, input: &mut Bytes<'_>) -> Result<Option<Scalar>> {
    Ok(Some(match ty {
        InterfaceType::Bool => Scalar::One(input.bool()?.into()),
        InterfaceType::U8 => Scalar::One(input.value()?),
        InterfaceType::S8 => Scalar::One(input.value::<i8>()?.cast_unsigned()),
        InterfaceType::U16 => Scalar::Two(input.value()?),
        InterfaceType::S16 => Scalar::Two(input.value::<i16>()?.cast_unsigned()),
        InterfaceType::U32 => Scalar::Four(input.value()?),
        InterfaceType::S32 => Scalar::Four(input.value::<i32>()?.cast_unsigned()),
        InterfaceType::Char => Scalar::Four(input.value::<char>()?.into()),
        InterfaceType::U64 => Scalar::Eight(input.value()?),
        InterfaceType::S64 => Scalar::Eight(input.value::<i64>()?.cast_unsigned()),
        // The bits are taken as they are: a NaN stays the one that it is.
        InterfaceType::Float32 => Scalar::F32(bits(input)?),
        InterfaceType::Float64 => Scalar::F64(bits(input)?),
        _ => return Ok(None),
    }))
}

fn bits<const BYTES: usize>(input: &mut Bytes<'_>) -> Result<[u8; BYTES]> {
    let bytes = input.take(BYTES)?;
    bytes.try_into().map_err(|_| bad("it is cut off"))
}

impl Scalar {
    /// The value as one of core WebAssembly. Small integers keep their sign in 32 bits.
    fn flat(self, ty: InterfaceType) -> ValRaw {
        match self {
            Scalar::One(value) if matches!(ty, InterfaceType::S8) => ValRaw::i32(value.cast_signed().into()),
            Scalar::One(value) => ValRaw::u32(value.into()),
            Scalar::Two(value) if matches!(ty, InterfaceType::S16) => ValRaw::i32(value.cast_signed().into()),
            Scalar::Two(value) => ValRaw::u32(value.into()),
            Scalar::Four(value) => ValRaw::u32(value),
            Scalar::Eight(value) => ValRaw::u64(value),
            Scalar::F32(bits) => ValRaw::f32(u32::from_le_bytes(bits)),
            Scalar::F64(bits) => ValRaw::f64(u64::from_le_bytes(bits)),
        }
    }

    fn store<T>(self, cx: &mut LowerContext<'_, T>, at: usize) {
        match self {
            Scalar::One(value) => *cx.get::<1>(at) = [value],
            Scalar::Two(value) => *cx.get::<2>(at) = value.to_le_bytes(),
            Scalar::Four(value) => *cx.get::<4>(at) = value.to_le_bytes(),
            Scalar::Eight(value) => *cx.get::<8>(at) = value.to_le_bytes(),
            Scalar::F32(bits) => *cx.get::<4>(at) = bits,
            Scalar::F64(bits) => *cx.get::<8>(at) = bits,
        }
    }
}

/// A value with one of several cases.
struct Chosen {
    case: u32,
    payload: Option<InterfaceType>,
}

/// Reads which case of a variant, enum, option or result it is; `None` for any other type.
fn chosen<T>(cx: &LowerContext<'_, T>, ty: InterfaceType, input: &mut Bytes<'_>) -> Result<Option<Chosen>> {
    Ok(Some(match ty {
        InterfaceType::Variant(index) => {
            let cases = &cx.types[index].cases;
            let case = input.case(cases.len())?;
            let payload = cases.get_index(case as usize).and_then(|(_, payload)| *payload);
            Chosen { case, payload }
        }
        InterfaceType::Enum(index) => {
            Chosen { case: input.case(cx.types[index].names.len())?, payload: None }
        }
        InterfaceType::Option(index) => {
            let is_some = input.bool()?;
            Chosen { case: is_some.into(), payload: is_some.then_some(cx.types[index].ty) }
        }
        InterfaceType::Result(index) => {
            let case = input.case(2)?;
            let of = &cx.types[index];
            Chosen { case, payload: if case == 0 { of.ok } else { of.err } }
        }
        _ => return Ok(None),
    }))
}

fn info<'a, T>(cx: &LowerContext<'a, T>, ty: InterfaceType) -> Result<&'a VariantInfo> {
    let types = cx.types;
    Ok(match ty {
        InterfaceType::Variant(index) => &types[index].info,
        InterfaceType::Enum(index) => &types[index].info,
        InterfaceType::Option(index) => &types[index].info,
        InterfaceType::Result(index) => &types[index].info,
        _ => return Err(unexpected()),
    })
}

/// The types of the parts of a record or tuple; `None` for any other type.
fn parts<T>(cx: &LowerContext<'_, T>, ty: InterfaceType) -> Option<Vec<InterfaceType>> {
    match ty {
        InterfaceType::Record(index) => Some(cx.types[index].fields.iter().map(|field| field.ty).collect()),
        InterfaceType::Tuple(index) => Some(cx.types[index].types.to_vec()),
        _ => None,
    }
}

/// The bits of a set of flags, of which each is a bool in the input.
fn flags<T>(cx: &LowerContext<'_, T>, ty: InterfaceType, input: &mut Bytes<'_>) -> Result<Option<Vec<u32>>> {
    let InterfaceType::Flags(index) = ty else { return Ok(None) };
    let count = cx.types[index].names.len();
    let mut words = vec![0; count.div_ceil(32)];
    for flag in 0..count {
        words[flag / 32] |= u32::from(input.bool()?) << (flag % 32);
    }
    Ok(Some(words))
}

/// A type that no task has: the compiler has refused it.
fn unexpected() -> wasmtime::Error {
    wasmtime::format_err!("a task has a type that it cannot have")
}

/// Lowers a value to values of core WebAssembly.
fn flat<T>(
    cx: &mut LowerContext<'_, T>,
    ty: InterfaceType,
    input: &mut Bytes<'_>,
    slots: &mut IterMut<'_, ValRaw>,
) -> Result<()> {
    let mut put = |value| slots.next().map(|slot| *slot = value).ok_or_else(unexpected);
    if let Some(scalar) = scalar(ty, input)? {
        return put(scalar.flat(ty));
    }
    if let Some(parts) = parts(cx, ty) {
        return parts.into_iter().try_for_each(|ty| flat(cx, ty, input, slots));
    }
    if let Some(words) = flags(cx, ty, input)? {
        return words.into_iter().try_for_each(|word| put(ValRaw::u32(word)));
    }
    if let Some(Chosen { case, payload }) = chosen(cx, ty, input)? {
        put(ValRaw::u32(case))?;
        // The payloads of all cases share as many slots as the longest one has. Those that this one does not use are zero
        // already.
        let all = cx.types.canonical_abi(&ty).flat_count(MAX_FLAT_PARAMS).ok_or_else(unexpected)?;
        let mine = payload.map_or(Some(0), |ty| cx.types.canonical_abi(&ty).flat_count(MAX_FLAT_PARAMS));
        let unused = mine.and_then(|mine| (all - 1).checked_sub(mine)).ok_or_else(unexpected)?;
        if let Some(ty) = payload {
            flat(cx, ty, input, slots)?;
        }
        if unused > 0 {
            slots.nth(unused - 1).ok_or_else(unexpected)?;
        }
        return Ok(());
    }
    let (at, len) = match ty {
        InterfaceType::String => text_at(cx, input)?,
        InterfaceType::List(index) => list(cx, cx.types[index].element, input)?,
        _ => return Err(unexpected()),
    };
    put(ValRaw::u64(at.into()))?;
    put(ValRaw::u64(len.into()))
}

/// Lowers a value to memory.
fn store<T>(cx: &mut LowerContext<'_, T>, ty: InterfaceType, input: &mut Bytes<'_>, at: usize) -> Result<()> {
    if let Some(scalar) = scalar(ty, input)? {
        scalar.store(cx, at);
        return Ok(());
    }
    if let Some(parts) = parts(cx, ty) {
        let mut offset = 0;
        for ty in parts {
            let place = cx.types.canonical_abi(&ty).next_field32_size(&mut offset);
            store(cx, ty, input, at + place)?;
        }
        return Ok(());
    }
    if let Some(words) = flags(cx, ty, input)? {
        let InterfaceType::Flags(index) = ty else { return Err(unexpected()) };
        let first = words.first().copied().unwrap_or_default();
        match flags_bytes(cx.types[index].names.len()) {
            1 => *cx.get::<1>(at) = [first as u8],
            2 => *cx.get::<2>(at) = (first as u16).to_le_bytes(),
            _ => {
                for (index, word) in words.into_iter().enumerate() {
                    *cx.get::<4>(at + 4 * index) = word.to_le_bytes();
                }
            }
        }
        return Ok(());
    }
    if let Some(Chosen { case, payload }) = chosen(cx, ty, input)? {
        let info = info(cx, ty)?;
        match info.size.byte_size() {
            1 => *cx.get::<1>(at) = [case as u8],
            2 => *cx.get::<2>(at) = (case as u16).to_le_bytes(),
            _ => *cx.get::<4>(at) = case.to_le_bytes(),
        }
        let payload_at = at + info.payload_offset32 as usize;
        return payload.map_or(Ok(()), |ty| store(cx, ty, input, payload_at));
    }
    let (pointer, len) = match ty {
        InterfaceType::String => text_at(cx, input)?,
        InterfaceType::List(index) => list(cx, cx.types[index].element, input)?,
        _ => return Err(unexpected()),
    };
    *cx.get::<4>(at) = pointer.to_le_bytes();
    *cx.get::<4>(at + 4) = len.to_le_bytes();
    Ok(())
}

/// Puts a text into memory, in the component's own encoding, and returns where it is and its length there.
fn text_at<T>(cx: &mut LowerContext<'_, T>, input: &mut Bytes<'_>) -> Result<(u32, u32)> {
    let text = input.text()?;
    let mut place = MaybeUninit::new([ValRaw::u64(0); 2]);
    // The engine knows the encodings.
    <str as Lower>::linear_lower_to_flat(text, cx, InterfaceType::String, &mut place)?;
    // SAFETY: it was initialised a line above, and two values are two values, whatever was written.
    let [pointer, len] = unsafe { place.assume_init() };
    Ok((pointer.get_u32(), len.get_u32()))
}

/// Puts a list into memory, and returns where it is and how many items it has.
fn list<T>(
    cx: &mut LowerContext<'_, T>,
    element: InterfaceType,
    input: &mut Bytes<'_>,
) -> Result<(u32, u32)> {
    // An item takes a byte at least.
    let len = input.len()?;
    let abi = cx.types.canonical_abi(&element);
    let item_bytes = abi.size32 as usize;
    let too_long = || bad(format_args!("a list of {len} items is more than a component can take"));
    let bytes =
        len.checked_mul(item_bytes).filter(|bytes| u32::try_from(*bytes).is_ok()).ok_or_else(too_long)?;
    let at = cx.realloc(0, 0, abi.align32, bytes)?;
    // The place was found to be inside of the memory, which never shrinks.
    let room = cx.as_slice_mut().get_mut(at..at + bytes).ok_or_else(unexpected)?;
    match element {
        InterfaceType::U8 | InterfaceType::S8 | InterfaceType::Float32 | InterfaceType::Float64 => {
            // These are in postcard as they are in memory.
            room.copy_from_slice(input.take(bytes)?);
        }
        InterfaceType::U16 => fill(room, input, u16::to_le_bytes)?,
        InterfaceType::S16 => fill(room, input, i16::to_le_bytes)?,
        InterfaceType::U32 => fill(room, input, u32::to_le_bytes)?,
        InterfaceType::S32 => fill(room, input, i32::to_le_bytes)?,
        InterfaceType::U64 => fill(room, input, u64::to_le_bytes)?,
        InterfaceType::S64 => fill(room, input, i64::to_le_bytes)?,
        _ => {
            for index in 0..len {
                store(cx, element, input, at + index * item_bytes)?;
            }
        }
    }
    Ok((at as u32, len as u32))
}

/// Fills memory with numbers of one type.
fn fill<'a, N: serde::Deserialize<'a>, const BYTES: usize>(
    room: &mut [u8],
    input: &mut Bytes<'a>,
    to_bytes: fn(N) -> [u8; BYTES],
) -> Result<()> {
    let (items, _) = room.as_chunks_mut::<BYTES>();
    for item in items {
        *item = to_bytes(input.value()?);
    }
    Ok(())
}
