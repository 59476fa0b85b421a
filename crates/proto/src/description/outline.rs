//! A module's outline: what can be told without loading it.

use serde::{Deserialize, Serialize};

use super::checks::are_well_formed;
use super::{MemoryDescription, ModuleForm, ModuleKind, TaskDescription, UncallableFunction};

/// The kind of a module, its imports and exports, read without compiling it: `Pool::outline_file`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
#[non_exhaustive]
pub struct ModuleOutline {
    /// The kind of program.
    pub kind: ModuleKind,
    /// The form of the file.
    pub form: ModuleForm,
    /// Its tasks; this is empty if it breaks the byte ABI.
    pub tasks: Vec<TaskDescription>,
    /// Says how it breaks the byte ABI, if it does.
    pub defect: Option<String>,
    /// The functions that a component exports and that cannot be called.
    pub uncallable: Vec<UncallableFunction>,
    /// Each import as `module.name: type`.
    pub imports: Vec<String>,
    /// The imports that no host function answers; each has the host function's type if that differs.
    pub unknown_imports: Vec<String>,
    /// Each export as `name: type`.
    pub exports: Vec<String>,
    /// The memories that it imports or exports.
    pub memories: Vec<MemoryDescription>,
    /// The size of the wasm file.
    pub wasm_bytes: u64,
}

impl ModuleOutline {
    /// A module in which nothing was found yet.
    #[doc(hidden)]
    pub fn empty(kind: ModuleKind) -> ModuleOutline {
        ModuleOutline {
            kind,
            form: ModuleForm::Core,
            tasks: Vec::new(),
            defect: None,
            uncallable: Vec::new(),
            imports: Vec::new(),
            unknown_imports: Vec::new(),
            exports: Vec::new(),
            memories: Vec::new(),
            wasm_bytes: 0,
        }
    }

    /// Checks an outline that came from a compiler against its bounds.
    pub fn is_well_formed(&self) -> bool {
        are_well_formed(&self.tasks)
    }
}

/// The task or command that a module is loaded to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
pub struct WantedEntry {
    /// The module's name, for errors.
    pub module: String,
    /// The task's name, or `None` for whatever the module has to run.
    pub task: Option<String>,
}
