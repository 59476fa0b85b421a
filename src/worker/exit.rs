//! `proc_exit`, in the place of wasmtime's own, which takes codes from 126 on for a trap: programs exit with any
//! code that a process can have, and say by it what became of them.

use wasmtime::{Linker, Result};
use wasmtime_wasi::I32Exit;

use super::linker::{TaskState, WASI_MODULE};

/// Replaces wasmtime's.
///
/// # Errors
/// What wasmtime says; nothing is expected.
pub(super) fn define(linker: &mut Linker<TaskState>) -> Result<()> {
    linker.allow_shadowing(true);
    linker.func_wrap(WASI_MODULE, "proc_exit", |code: i32| -> Result<()> { Err(I32Exit(code).into()) })?;
    linker.allow_shadowing(false);
    Ok(())
}
