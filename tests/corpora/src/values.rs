//! References that a guest can make by itself.

use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{AbstractHeapType, HeapType};
use wasmparser::CompositeInnerType;

use crate::outline::Outline;

/// An abstract type of references, not shared.
pub(crate) fn heap(ty: AbstractHeapType) -> HeapType {
    HeapType::Abstract { shared: false, ty }
}

/// The type of a null that fits wherever a reference of this type does.
pub(crate) fn bottom_of(outline: &Outline<'_>, ty: wasmparser::ValType) -> Option<HeapType> {
    let wasmparser::ValType::Ref(ty) = ty else { return None };
    let bottom = match RoundtripReencoder.heap_type(ty.heap_type()).ok()? {
        HeapType::Abstract { ty, .. } => match ty {
            AbstractHeapType::Func | AbstractHeapType::NoFunc => AbstractHeapType::NoFunc,
            AbstractHeapType::Extern | AbstractHeapType::NoExtern => AbstractHeapType::NoExtern,
            AbstractHeapType::Exn | AbstractHeapType::NoExn => AbstractHeapType::NoExn,
            _ => AbstractHeapType::None,
        },
        HeapType::Concrete(index) | HeapType::Exact(index) => {
            match outline.types.get(index as usize)?.composite_type.inner {
                CompositeInnerType::Func(_) => AbstractHeapType::NoFunc,
                _ => AbstractHeapType::None,
            }
        }
    };
    Some(heap(bottom))
}
