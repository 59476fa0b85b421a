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
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, postcard_schema::Schema)]
#[non_exhaustive]
pub struct Frame {
    /// The function's name, demangled, where the module has names.
    pub function: Option<String>,
    /// The function's index in the module. Of an inlined function, it is that of the function into which it was inlined.
    pub function_index: u32,
    /// Byte offset in the wasm file.
    pub module_offset: Option<u64>,
    /// The place in the source, where the module has debug information (DWARF).
    pub location: Option<SourceLocation>,
    /// Says whether the compiler of the module had inlined the function into that of the next frame.
    pub is_inlined: bool,
    /// How many frames stand before this one and were left out: what a panic runs of the standard library's before it
    /// stops the task, from which nobody learns where the panic is.
    pub left_out: u32,
    /// How many frames stand behind this one and were left out: those of the standard library's that called the program, of
    /// a stack that ends in a panic.
    pub left_out_behind: u32,
}

/// A place in a guest's source, as the module's debug information has it. It is a stranger's word.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, postcard_schema::Schema)]
#[non_exhaustive]
pub struct SourceLocation {
    /// The file. Its path is relative to the folder in which it was compiled, if it lies there.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1, where it is known.
    pub column: Option<u32>,
}

impl SourceLocation {
    #[doc(hidden)]
    pub fn new(file: String, line: u32, column: Option<u32>) -> SourceLocation {
        SourceLocation { file, line, column }
    }
}

impl Frame {
    #[doc(hidden)]
    pub fn new(function: Option<String>, function_index: u32, module_offset: Option<u64>) -> Frame {
        Frame { function, function_index, module_offset, ..Frame::default() }
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.function {
            Some(name) => write!(f, "{}", Name(name))?,
            None => write!(f, "<function {}>", self.function_index)?,
        }
        match self.module_offset {
            Some(_) if self.is_inlined => f.write_str(" (inlined)")?,
            Some(offset) => write!(f, " (0x{offset:x})")?,
            None => {}
        }
        match &self.location {
            Some(location) => write!(f, " at {location}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for SourceLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", Name(&self.file), self.line)?;
        match self.column {
            Some(column) => write!(f, ":{column}"),
            None => Ok(()),
        }
    }
}
