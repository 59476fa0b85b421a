//! This `proc_exit` replaces wasmtime's own, which traps on codes from 126 on. Programs exit with any code
//! that a process can have, and mean something by it.

use wasmtime::{Linker, Result};
use wasmtime_wasi::I32Exit;

use super::linker::TaskState;
use proto::imports::Preview;

/// Replaces wasmtime's `proc_exit`.
///
/// # Errors
/// An error of wasmtime's; none is expected.
pub(super) fn define(linker: &mut Linker<TaskState>) -> Result<()> {
    linker.allow_shadowing(true);
    let exit = |code: i32| -> Result<()> { Err(I32Exit(code).into()) };
    linker.func_wrap(Preview::One.module(), "proc_exit", exit)?;
    linker.allow_shadowing(false);
    Ok(())
}
