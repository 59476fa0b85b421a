//! Pieces that several benches need: the modules that they run, interpreters among them, and the command.

pub mod interpreters;
pub mod reactor;

use std::path::{Path, PathBuf};

/// Returns the path of a module of guest-tasks/prebuilt.
pub fn prebuilt(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest-tasks/prebuilt").join(format!("{name}.wasm"))
}

/// Returns the path of the `wasmpool` command, if it was built with the same profile: it stands above the folder of the
/// bench's own executable.
pub fn command() -> Option<PathBuf> {
    built("wasmpool")
}

/// Returns the path of `wasmpool-worker`, likewise.
pub fn worker() -> Option<PathBuf> {
    built("wasmpool-worker")
}

fn built(name: &str) -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?.ancestors().nth(2)?.join(name);
    path.exists().then_some(path)
}
