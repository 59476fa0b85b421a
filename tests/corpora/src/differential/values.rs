//! Arguments for generated functions, and what is seen of their results.

use wasmtime::{AnyRef, ExternRef, Func, HeapType, I31, Ref, Store, Val, ValType};

use super::run::State;
use crate::random::Random;

/// Objects are looked into so deep, and so many of an object's parts are looked at.
const DEPTH: u32 = 3;
const PARTS: u32 = 16;

/// A value as far as two instances can be compared by it: functions and the host's objects are only told from null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    I32(i32),
    I64(i64),
    F32(u32),
    F64(u64),
    V128(u128),
    Null,
    Func,
    Extern,
    Exn,
    I31(i32),
    Struct(Vec<Value>),
    /// The length, and the first elements.
    Array(u32, Vec<Value>),
    /// A reference beyond the depth that is looked at, or one that cannot be read.
    Opaque,
}

impl Value {
    pub(super) fn of(store: &mut Store<State>, value: Val) -> Value {
        Value::within(store, value, DEPTH)
    }

    pub(super) fn of_ref(store: &mut Store<State>, reference: Ref) -> Value {
        Value::within(store, reference.into(), 1)
    }

    fn within(store: &mut Store<State>, value: Val, depth: u32) -> Value {
        match value {
            Val::I32(value) => Value::I32(value),
            Val::I64(value) => Value::I64(value),
            Val::F32(bits) => Value::F32(bits),
            Val::F64(bits) => Value::F64(bits),
            Val::V128(value) => Value::V128(value.as_u128()),
            Val::FuncRef(None) | Val::ExternRef(None) | Val::AnyRef(None) | Val::ExnRef(None) => Value::Null,
            Val::FuncRef(Some(_)) => Value::Func,
            Val::ExternRef(Some(_)) => Value::Extern,
            Val::ExnRef(Some(_)) => Value::Exn,
            Val::AnyRef(Some(any)) => {
                Value::object(store, &any, depth).ok().flatten().unwrap_or(Value::Opaque)
            }
            _ => Value::Opaque,
        }
    }

    fn object(
        store: &mut Store<State>,
        any: &wasmtime::Rooted<AnyRef>,
        depth: u32,
    ) -> wasmtime::Result<Option<Value>> {
        if let Some(number) = any.as_i31(&*store)? {
            return Ok(Some(Value::I31(number.get_i32())));
        }
        let Some(depth) = depth.checked_sub(1) else { return Ok(None) };
        if let Some(object) = any.as_struct(&*store)? {
            let fields = object.ty(&*store)?.fields().len().min(PARTS as usize);
            let fields: Vec<_> =
                (0..fields).map(|index| object.field(&mut *store, index)).collect::<Result<_, _>>()?;
            let fields = fields.into_iter().map(|field| Value::within(store, field, depth));
            return Ok(Some(Value::Struct(fields.collect())));
        }
        if let Some(array) = any.as_array(&*store)? {
            let len = array.len(&*store)?;
            let elements: Vec<_> =
                (0..len.min(PARTS)).map(|index| array.get(&mut *store, index)).collect::<Result<_, _>>()?;
            let elements = elements.into_iter().map(|element| Value::within(store, element, depth));
            return Ok(Some(Value::Array(len, elements.collect())));
        }
        Ok(None)
    }
}

/// Makes an argument of this type; `None` if nobody but a guest can.
pub(super) fn argument(
    store: &mut Store<State>,
    ty: &ValType,
    function: Func,
    random: &mut Random,
) -> Option<Val> {
    let bits = bits(random);
    Some(match ty {
        ValType::I32 => Val::I32(bits as i32),
        ValType::I64 => Val::I64(bits.cast_signed()),
        ValType::F32 => {
            Val::F32(if random.percent(50) { (bits as i32 as f32).to_bits() } else { bits as u32 })
        }
        ValType::F64 => Val::F64(if random.percent(50) { (bits as i64 as f64).to_bits() } else { bits }),
        ValType::V128 => Val::V128((u128::from(bits) | u128::from(random.number()) << 64).into()),
        ValType::Ref(ty) => {
            let is_null = ty.is_nullable() && random.percent(40);
            match ty.heap_type() {
                HeapType::Any | HeapType::Eq | HeapType::I31 if !is_null => {
                    Val::AnyRef(Some(AnyRef::from_i31(&mut *store, I31::wrapping_u32(bits as u32))))
                }
                HeapType::Extern if !is_null => Val::ExternRef(Some(ExternRef::new(&mut *store, bits).ok()?)),
                HeapType::Func if !is_null => Val::FuncRef(Some(function)),
                heap if ty.is_nullable() => Val::null_ref(heap),
                _ => return None,
            }
        }
    })
}

/// Numbers that guests often do something with: small ones, addresses, the edges, and any.
fn bits(random: &mut Random) -> u64 {
    let number = random.number();
    match number >> 61 {
        0..3 => number % 8,
        3 | 4 => number % 70_000,
        5 => [u64::MAX, 1 << 31, 1 << 63, 65_536, 65_535, i32::MAX as u64, u32::MAX.into(), 4096]
            [number as usize % 8],
        _ => number,
    }
}
