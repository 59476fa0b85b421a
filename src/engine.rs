//! The two roles that know wasmtime share this: the settings of engines, their errors, and the list of functions that a
//! worker provides to modules.

use std::collections::HashMap;

pub(crate) mod error;
pub(crate) mod settings;

/// The functions that a worker provides to modules, by the names of module and function.
pub(crate) type Provided = HashMap<(String, String), wasmtime::FuncType>;
