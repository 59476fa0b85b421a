//! The imports that a guest may have: the functions that the byte ABI gives to it, and the names of WASI's modules. The
//! linker is built from these lists, and errors are written from them. It holds vocabulary, and no behaviour.

pub mod component;

use std::fmt;

/// The module name of these imports.
pub const HOST_MODULE: &str = "wasmpool";

/// A version of WASI whose functions a module may import. A component imports those of WASI 0.2 instead ([`component`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preview {
    /// What tool-chains of 2019 emit. The functions are those of preview 1; the order of three numbers and the layout of
    /// two records are others.
    Zero,
    One,
}

impl Preview {
    pub const ALL: [Preview; 2] = [Preview::One, Preview::Zero];

    /// The module name of its imports.
    pub const fn module(self) -> &'static str {
        match self {
            Preview::Zero => "wasi_unstable",
            Preview::One => "wasi_snapshot_preview1",
        }
    }

    /// Returns whether imports from this module are WASI's.
    pub fn is_module(name: &str) -> bool {
        Preview::ALL.iter().any(|preview| preview.module() == name)
    }
}

impl fmt::Display for Preview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Preview::Zero => "preview 0",
            Preview::One => "preview 1",
        })
    }
}

/// The module name of what modules import that AssemblyScript's compiler has made.
pub const SCRIPT_MODULE: &str = "env";

/// A function that modules of AssemblyScript import, whose compiler expects it of every host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptFunction {
    /// Ends the task, and says where and why.
    Abort,
    /// Writes a line and up to five numbers.
    Trace,
    /// Gives a number to begin random ones with.
    Seed,
}

impl ScriptFunction {
    pub const ALL: [ScriptFunction; 3] = [ScriptFunction::Abort, ScriptFunction::Trace, ScriptFunction::Seed];

    pub fn name(self) -> &'static str {
        match self {
            ScriptFunction::Abort => "abort",
            ScriptFunction::Trace => "trace",
            ScriptFunction::Seed => "seed",
        }
    }

    /// Lists their names for a person.
    pub fn names() -> String {
        ScriptFunction::ALL.map(ScriptFunction::name).join(", ")
    }
}

/// A function of the host's that a guest may import, besides WASI's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostFunction {
    /// Writes a log record.
    Log,
    /// Reports where and why the guest panics.
    Panic,
    /// Returns the length of a shared input.
    SharedLen,
    /// Copies a part of a shared input.
    SharedRead,
}

impl HostFunction {
    pub const ALL: [HostFunction; 4] =
        [HostFunction::Log, HostFunction::Panic, HostFunction::SharedLen, HostFunction::SharedRead];

    pub fn name(self) -> &'static str {
        match self {
            HostFunction::Log => "log",
            HostFunction::Panic => "panic",
            HostFunction::SharedLen => "shared_len",
            HostFunction::SharedRead => "shared_read",
        }
    }

    /// Lists their names for a person.
    pub fn names() -> String {
        HostFunction::ALL.map(HostFunction::name).join(", ")
    }
}
