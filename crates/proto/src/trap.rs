//! A trap, as a worker tells it: its kind, and the frames of the guest's stack.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::text::Name;

/// A trap's kind, by the specification's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, postcard_schema::Schema)]
#[non_exhaustive]
pub enum TrapCode {
    /// The `unreachable` instruction.
    Unreachable,
    /// A load or store outside of its memory.
    MemoryOutOfBounds,
    /// An access outside of a table.
    TableOutOfBounds,
    /// The call stack ran out.
    StackOverflow,
    /// Integer division by zero.
    IntegerDivideByZero,
    /// Integer overflow.
    IntegerOverflow,
    /// A float that no integer can hold.
    InvalidConversionToInteger,
    /// `call_indirect` to an empty table entry.
    IndirectCallToNull,
    /// `call_indirect` to a function of another type.
    IndirectCallTypeMismatch,
    /// A null reference was used.
    NullReference,
    /// A failed `ref.cast`.
    CastFailure,
    /// An access outside of a GC array.
    ArrayOutOfBounds,
    /// An exception that nobody caught.
    UncaughtException,
    /// Any other; the message says which.
    Other,
}

impl fmt::Display for TrapCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrapCode::Unreachable => "unreachable executed",
            TrapCode::MemoryOutOfBounds => "out of bounds memory access",
            TrapCode::TableOutOfBounds => "out of bounds table access",
            TrapCode::StackOverflow => "call stack exhausted",
            TrapCode::IntegerDivideByZero => "integer divide by zero",
            TrapCode::IntegerOverflow => "integer overflow",
            TrapCode::InvalidConversionToInteger => "invalid conversion to integer",
            TrapCode::IndirectCallToNull => "indirect call to an empty table entry",
            TrapCode::IndirectCallTypeMismatch => "indirect call type mismatch",
            TrapCode::NullReference => "null reference",
            TrapCode::CastFailure => "cast failure",
            TrapCode::ArrayOutOfBounds => "out of bounds array access",
            TrapCode::UncaughtException => "uncaught exception",
            TrapCode::Other => "trap",
        })
    }
}

/// One frame of a wasm backtrace, innermost first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, postcard_schema::Schema)]
#[non_exhaustive]
pub struct Frame {
    /// The function's name, demangled, where the module has names.
    pub function: Option<String>,
    /// The function's index in the module.
    pub function_index: u32,
    /// Byte offset in the wasm file.
    pub module_offset: Option<u64>,
}

impl Frame {
    #[doc(hidden)]
    pub fn new(function: Option<String>, function_index: u32, module_offset: Option<u64>) -> Frame {
        Frame { function, function_index, module_offset }
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.function {
            Some(name) => write!(f, "{}", Name(name))?,
            None => write!(f, "<function {}>", self.function_index)?,
        }
        match self.module_offset {
            Some(offset) => write!(f, " (0x{offset:x})"),
            None => Ok(()),
        }
    }
}
