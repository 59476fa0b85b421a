//! A module's outline can be told without loading it.

use serde::{Deserialize, Serialize};

use super::{MemoryDescription, ModuleKind, TaskDescription};
use crate::limits;

/// The kind of a module, its imports and exports, read without compiling it: [`Pool::outline_file`](crate::Pool::outline_file).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ModuleOutline {
    /// The kind of program.
    pub kind: ModuleKind,
    /// Its tasks; none if it breaks the byte ABI.
    pub tasks: Vec<TaskDescription>,
    /// `module.name: type` of each import.
    pub imports: Vec<String>,
    /// Those among them that no host function answers; with the host function's type, where it has another.
    pub unknown_imports: Vec<String>,
    /// `name: type` of each export.
    pub exports: Vec<String>,
    /// Its memories that are imported or exported.
    pub memories: Vec<MemoryDescription>,
    /// Size of the wasm file.
    pub wasm_bytes: u64,
}

impl ModuleOutline {
    /// Holds an outline that came over a wire to its bounds.
    pub(crate) fn is_well_formed(&self) -> bool {
        self.tasks.len() <= limits::TASKS_PER_MODULE_MAX
            && self.tasks.iter().all(TaskDescription::is_well_formed)
    }
}

/// The part that will be run of a module that is loaded for nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WantedEntry {
    /// The module's name, for errors.
    pub(crate) module: String,
    /// The task, or whatever it has.
    pub(crate) task: Option<String>,
}
