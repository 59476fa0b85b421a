//! The `wasmpool` command needs this of the library beyond its promises. Nothing here is for embedders: it changes
//! without notice.

use std::path::{Path, PathBuf};

use bytes::Bytes;

pub use crate::account::{Account, Charge, Need, Waited};
use crate::command::{CommandInput, Stdin};
use crate::error::{ModuleError, SubmitError, TaskError, TaskFailure};
use crate::future::TaskFuture;
use crate::host::cache::Cache;
use crate::host::{memory, request};
use crate::limits;
use crate::module::Digest;
use crate::options::TaskOptions;
use crate::pool::Pool;
use crate::report::TaskReport;
pub use crate::setting::{InFiles, Measure, SetLimit, Setting, SettingDefault, settings_markdown};
use crate::sync::Sender;
use files::{HostFiles, OpenError};
use proto::limits::compile::{CompileLimit, CompileLimits};

/// The table of what can be set.
pub const SETTINGS: &[Setting] = limits::SETTINGS;

/// Refuses arguments and an environment that no command could be given.
pub fn check_texts(task: &str, args: &[String], env: &[(String, String)]) -> Result<(), SubmitError> {
    request::check_texts(task, args, env)
}

/// Returns the bytes of memory that a compiler may have here unless a limit is set.
pub fn compile_memory_bytes_default() -> u64 {
    memory::for_a_compiler()
}

/// Returns the most bytes that a map may hold (`set`, if it is given), and the most bytes of one result.
pub fn map_bytes_max(pool: &Pool, is_command: bool, options: &TaskOptions, set: Option<u64>) -> (u64, u64) {
    pool.core().map_or((0, 0), |core| {
        request::map_bytes_max(&core.settings, core.workers_max(), is_command, options.clone(), set)
    })
}

/// Returns whether tasks of this pool may write to directories that `files` does not know as theirs.
pub fn has_other_dirs_than(pool: &Pool, files: &HostFiles) -> bool {
    let dirs = pool.core().map(|core| &core.settings.sandbox.dirs);
    dirs.into_iter().flatten().any(|dir| dir.guest.access.is_writable() && !files.knows(dir))
}

/// Returns the digest and the length of a file, whatever is in it.
pub fn digest_file(pool: &Pool, path: &Path) -> Result<(Digest, u64), ModuleError> {
    let max = CompileLimits::trusted().get(CompileLimit::WasmBytes);
    let wasm = pool.read_wasm(path, max)?;
    Ok((Digest::of(&wasm), wasm.len() as u64))
}

/// Returns the directory that the cache of machine code has unless one is named.
pub fn cache_dir_default() -> Option<PathBuf> {
    Cache::default_dir()
}

/// Returns the number of files in the cache at `dir`, or else in the usual one, and the bytes that they take; `None` if
/// there is none.
pub fn cache_size(
    dir: Option<&Path>,
    files: &HostFiles,
    bytes_max: u64,
) -> Result<Option<(usize, u64)>, OpenError> {
    let cache = match dir {
        Some(dir) => Some(Cache::try_open(dir, files, bytes_max)?),
        None => Cache::try_open_default(files, bytes_max)?,
    };
    Ok(cache.map(|cache| cache.size()))
}

/// Returns how many bytes the texts of a command take in memory, and the stdin that is sent with it.
pub fn command_input_bytes(input: &CommandInput) -> usize {
    let env = input.env.iter().flat_map(|(name, value)| [name, value]);
    let texts: usize = input.args.iter().chain(env).map(String::len).sum();
    match &input.stdin {
        Stdin::Bytes(bytes) => texts + Bytes::len(bytes),
        Stdin::Source(_) => texts,
    }
}

/// Returns the limit for a task's output, if one is set.
pub fn output_bytes_max(options: &TaskOptions) -> Option<usize> {
    options.output_bytes_max
}

/// Returns the domain of a task, if it has one.
pub fn domain(options: &TaskOptions) -> Option<&str> {
    options.domain.as_deref()
}

/// Sends `number` when the task is done, at once if it is. Nothing is sent in a forked process.
pub fn announce<O>(future: &TaskFuture<O>, to: &Sender<usize>, number: usize) {
    if let Some(cell) = future.cell() {
        cell.watch(to, number);
    }
}

/// Returns the failure of a task whose output does not fit.
pub fn failure<O>(future: &TaskFuture<O>, error: TaskError, report: TaskReport) -> TaskFailure {
    future.labels().failure(error, report)
}
