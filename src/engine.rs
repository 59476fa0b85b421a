//! What the two roles that know wasmtime have in common: the settings of engines, their errors, and what a worker provides
//! to modules.

use std::collections::HashMap;

pub(crate) mod error;
pub(crate) mod settings;

/// The functions that a worker provides to modules, by the names of module and function.
pub(crate) type Provided = HashMap<(String, String), wasmtime::FuncType>;
