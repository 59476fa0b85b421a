//! The description of a module: its kind, tasks, imports, exports and memories, as the compiler process found them and
//! as the module says of itself.

mod checks;
mod code;
mod find;
mod outline;
#[cfg(any(test, feature = "samples"))]
pub mod samples;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::schema::{Node, TypeSchema};
use crate::text::Name;

pub use checks::TaskDefect;
pub use code::Interrupt;
pub use code::{CodeKind, MemoryKind};
pub use find::find_task;
pub use outline::ModuleOutline;
pub use outline::WantedEntry;

/// A command's program is the export without a name, if it is a function that takes and returns nothing, else `_start`: as
/// the `wasmtime` command has it.
pub const UNNAMED_PROGRAM: &str = "";
pub const PROGRAM: &str = "_start";

/// The kind of program that a module is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, postcard_schema::Schema)]
#[non_exhaustive]
pub enum ModuleKind {
    /// Keeps to the byte ABI: it has tasks.
    Tasks,
    /// Keeps to no ABI, but exports functions over numbers, each of which is a task.
    Functions,
    /// A component of the component model: each function that it exports is a task.
    Component,
    /// A WASI command: it has `_start`, or is a component that exports `wasi:cli/run`. What else it exports that could be
    /// called if it were none are its tasks.
    Command,
    /// Valid, but neither: nothing in it can be called through a pool.
    Library,
}

impl ModuleKind {
    /// Returns its name as the command's tables and JSON have it.
    pub fn name(self) -> &'static str {
        match self {
            ModuleKind::Tasks => "tasks",
            ModuleKind::Functions => "functions",
            ModuleKind::Component => "component",
            ModuleKind::Command => "command",
            ModuleKind::Library => "library",
        }
    }
}

impl fmt::Display for ModuleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ModuleKind::Tasks => "tasks",
            ModuleKind::Functions => "functions over numbers",
            ModuleKind::Component => "component",
            ModuleKind::Command => "WASI command",
            ModuleKind::Library => "library (no tasks, no functions over numbers, no _start)",
        })
    }
}

/// Says how a task's input and output are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, postcard_schema::Schema)]
#[non_exhaustive]
pub enum Codec {
    /// The payload is the value.
    Raw,
    /// The payload is postcard, by the task's schemas.
    Postcard,
    /// The payload is postcard for the caller and JSON for the guest: the worker writes one as the other, by the task's
    /// schemas. A whole input or output that is bytes is given to the guest as it is.
    Json,
}

impl Codec {
    /// Returns its name as the command's tables and JSON have it.
    pub fn name(self) -> &'static str {
        match self {
            Codec::Raw => "raw",
            Codec::Postcard => "postcard",
            Codec::Json => "json",
        }
    }
}

/// Says how a task's function is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, postcard_schema::Schema)]
#[non_exhaustive]
pub enum CallingConvention {
    /// By the byte ABI: the encoded input's place in memory goes in, that of an envelope comes out.
    Bytes,
    /// Each number of the input is a parameter, and each result a number of the output.
    Numbers,
    /// By the canonical ABI of the component model: each value of the input is a parameter, and the result is the output.
    Canonical,
}

impl CallingConvention {
    /// Returns its name as the command's JSON has it.
    pub fn name(self) -> &'static str {
        match self {
            CallingConvention::Bytes => "bytes",
            CallingConvention::Numbers => "numbers",
            CallingConvention::Canonical => "canonical",
        }
    }
}

/// One task of a module, as the module describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
#[non_exhaustive]
pub struct TaskDescription {
    /// Its name.
    pub name: String,
    /// Its doc comment.
    pub doc: String,
    /// The exported function behind it.
    pub export: String,
    /// Says how that is called.
    pub convention: CallingConvention,
    /// Says how input and output are encoded.
    pub codec: Codec,
    /// The names of its arguments. Several arguments travel as one tuple.
    pub params: Vec<String>,
    /// The type of its input.
    pub input: TypeSchema,
    /// The type of its output.
    pub output: TypeSchema,
    /// The type of its own errors, where these are data. `None`: they are text.
    pub error: Option<TypeSchema>,
}

/// The type of a number that WebAssembly's functions take and return. It has no signs of its own; here `i32` and `i64` have
/// one, as the `wasmtime` command reads and prints them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberType {
    I32,
    I64,
    F32,
    F64,
}

impl NumberType {
    fn node(self) -> Node {
        match self {
            NumberType::I32 => Node::I32,
            NumberType::I64 => Node::I64,
            NumberType::F32 => Node::F32,
            NumberType::F64 => Node::F64,
        }
    }
}

impl TaskDescription {
    /// An exported function over numbers. The parameters are called `p0`, `p1` and so on where `names` has not one for
    /// each of them.
    #[doc(hidden)]
    pub fn numbers(
        export: &str,
        names: Vec<String>,
        params: &[NumberType],
        results: &[NumberType],
    ) -> TaskDescription {
        let schema = |types: &[NumberType]| TypeSchema::of_values(types.iter().map(|ty| ty.node()));
        let named = TaskDescription {
            name: export.into(),
            doc: String::new(),
            export: export.into(),
            convention: CallingConvention::Numbers,
            codec: Codec::Postcard,
            params: names,
            input: schema(params),
            output: schema(results),
            error: None,
        };
        if named.params.len() == params.len() && named.check().is_ok() {
            return named;
        }
        TaskDescription { params: (0..params.len()).map(|index| format!("p{index}")).collect(), ..named }
    }

    /// A component's exported function; `error` is there if it returns a result whose errors are data.
    #[doc(hidden)]
    pub fn canonical(
        export: &str,
        params: Vec<String>,
        input: TypeSchema,
        output: TypeSchema,
        error: Option<TypeSchema>,
    ) -> TaskDescription {
        TaskDescription {
            name: export.into(),
            doc: String::new(),
            export: export.into(),
            convention: CallingConvention::Canonical,
            codec: Codec::Postcard,
            params,
            input,
            output,
            error,
        }
    }

    /// A task whose types are written as text, and which reads and writes JSON.
    #[doc(hidden)]
    pub fn json(
        name: &str,
        doc: &str,
        params: Vec<String>,
        input: TypeSchema,
        output: TypeSchema,
        error: Option<TypeSchema>,
    ) -> TaskDescription {
        TaskDescription {
            doc: doc.into(),
            convention: CallingConvention::Bytes,
            codec: Codec::Json,
            ..TaskDescription::canonical(name, params, input, output, error)
        }
    }

    /// A function that takes bytes and returns bytes; nothing else is known of it.
    #[doc(hidden)]
    pub fn raw(name: &str) -> TaskDescription {
        TaskDescription {
            name: name.into(),
            doc: String::new(),
            export: name.into(),
            convention: CallingConvention::Bytes,
            codec: Codec::Raw,
            params: Vec::new(),
            input: TypeSchema::raw_bytes(),
            output: TypeSchema::raw_bytes(),
            error: None,
        }
    }

    /// The signature in the manner of Rust: `count(upto: u64) -> u64`. It may be shown on a terminal:
    /// control characters in the module's names are escaped.
    pub fn signature(&self) -> String {
        let input = match (&self.params[..], self.input.root()) {
            ([], Node::Unit) => String::new(),
            ([one], _) => format!("{one}: {}", self.input),
            (names, Node::Tuple(types)) if names.len() == types.len() => names
                .iter()
                .zip(types)
                .map(|(name, ty)| format!("{name}: {}", self.input.show_inside(self.input.node(*ty))))
                .collect::<Vec<_>>()
                .join(", "),
            _ => self.input.to_string(),
        };
        let output = match &self.error {
            None => self.output.to_string(),
            Some(error) => format!("Result<{}, {error}>", self.output),
        };
        Name(format!("{}({input}) -> {output}", self.name)).to_string()
    }
}

/// A linear memory that a module defines or imports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
#[non_exhaustive]
pub struct MemoryDescription {
    /// Bytes at the start.
    pub min_bytes: u64,
    /// Bytes at the most, where the module says so.
    pub max_bytes: Option<u64>,
}

impl MemoryDescription {
    #[doc(hidden)]
    pub fn new(min_bytes: u64, max_bytes: Option<u64>) -> MemoryDescription {
        MemoryDescription { min_bytes, max_bytes }
    }
}

/// An exported function that is no task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
#[non_exhaustive]
pub struct UncallableFunction {
    /// The name under which it is exported.
    pub export: String,
    /// Says why it cannot be called.
    pub reason: String,
}

impl UncallableFunction {
    #[doc(hidden)]
    pub fn new(export: String, reason: String) -> UncallableFunction {
        UncallableFunction { export, reason }
    }
}

/// The form of the file that a module comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, postcard_schema::Schema)]
#[non_exhaustive]
pub enum ModuleForm {
    /// One module of WebAssembly.
    Core,
    /// A component of the component model: several modules, and types of their own.
    Component,
}

impl ModuleForm {
    /// Returns its name as the command's JSON has it.
    pub fn name(self) -> &'static str {
        match self {
            ModuleForm::Core => "core",
            ModuleForm::Component => "component",
        }
    }
}

/// Says whether the places in a module's source are known, which backtraces name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, postcard_schema::Schema)]
#[non_exhaustive]
pub enum SourceLines {
    /// It has no debug information, or none that names a place of its code.
    Absent,
    /// They are known.
    Known,
    /// A part of its debug information is damaged: what could be read of it is known.
    Damaged,
    /// Its debug information goes beyond the bounds ([`DWARF_BYTES_MAX`](crate::limits::DWARF_BYTES_MAX) and those below
    /// it): what was read up to them is known.
    TooMuch,
}

impl SourceLines {
    /// Returns its name as the command's JSON has it.
    pub fn name(self) -> &'static str {
        match self {
            SourceLines::Absent => "absent",
            SourceLines::Known => "known",
            SourceLines::Damaged => "damaged",
            SourceLines::TooMuch => "too_much",
        }
    }
}

/// The description of a module, as the compiler process found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
#[non_exhaustive]
pub struct ModuleDescription {
    /// The kind of program that it is.
    pub kind: ModuleKind,
    /// The form of its file.
    pub form: ModuleForm,
    /// Its tasks, in the order of its section `wasmpool.tasks`.
    pub tasks: Vec<TaskDescription>,
    /// The functions that a component exports and that cannot be called.
    pub uncallable: Vec<UncallableFunction>,
    /// `module.name: type` of each import.
    pub imports: Vec<String>,
    /// `name: type` of each export.
    pub exports: Vec<String>,
    /// Its memories.
    pub memories: Vec<MemoryDescription>,
    /// Says whether it imports WASI.
    pub uses_wasi: bool,
    /// Says whether it has an initializer (`#[wasmpool_guest::init]`).
    pub has_initializer: bool,
    pub has_reactor_start: bool,
    /// Says whether code of its own runs while it is instantiated.
    pub has_start: bool,
    pub memory_kind: MemoryKind,
    /// Says whether it was compiled with fuel metering.
    pub metered: bool,
    /// Says whether it was compiled for deterministic tasks.
    pub deterministic: bool,
    /// Says how its tasks are stopped.
    pub interrupt: Interrupt,
    /// Size of the wasm file.
    pub wasm_bytes: u64,
    /// Size of the machine code file.
    pub machine_code_bytes: u64,
    /// Says whether backtraces name places in its source.
    pub source_lines: SourceLines,
}

impl ModuleDescription {
    /// A module that is compiled in this way, and in which nothing was found yet.
    #[doc(hidden)]
    pub fn empty(kind: ModuleKind, code: CodeKind, memory_kind: MemoryKind) -> ModuleDescription {
        ModuleDescription {
            kind,
            form: ModuleForm::Core,
            tasks: Vec::new(),
            uncallable: Vec::new(),
            imports: Vec::new(),
            exports: Vec::new(),
            memories: Vec::new(),
            uses_wasi: false,
            has_initializer: false,
            has_reactor_start: false,
            has_start: false,
            memory_kind,
            metered: code.is_metered(),
            deterministic: code.is_deterministic(),
            interrupt: code.interrupt(),
            wasm_bytes: 0,
            machine_code_bytes: 0,
            source_lines: SourceLines::Absent,
        }
    }

    pub fn code(&self) -> CodeKind {
        CodeKind::of(self.metered, self.deterministic, self.interrupt)
    }

    /// Returns, for tests, whether its instances have memories of the worker's own, or the engine's.
    #[doc(hidden)]
    pub fn has_own_memories(&self) -> bool {
        self.memory_kind == MemoryKind::Own
    }

    pub fn task_names(&self) -> Vec<String> {
        self.tasks.iter().map(|task| task.name.clone()).collect()
    }
}
