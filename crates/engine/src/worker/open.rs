//! `path_open`, wasmtime's own, held to [`TASK_DESCRIPTORS_MAX`]: a task that kept the process's last
//! descriptor would leave none for the modules that the host sends, and that would be the worker's end.

use wasmtime::{Caller, Extern, Linker, Result};
use wasmtime_wasi::p1::types::Errno;
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self, WasiSnapshotPreview1};
use wiggle::GuestMemory;

use super::linker::TaskState;
use proto::imports::Preview;
use proto::limits::{TASK_DESCRIPTORS_MAX, WASI_CALL_BYTES_MAX};

/// These are the arguments of WASI's specification; the last one is where the new descriptor goes.
type Arguments = (i32, i32, i32, i32, i32, i64, i64, i32, i32);

/// Replaces wasmtime's.
///
/// # Errors
/// What wasmtime says; nothing is expected.
pub(super) fn define(linker: &mut Linker<TaskState>) -> Result<()> {
    linker.allow_shadowing(true);
    let module = Preview::One.module();
    linker.func_wrap_async(module, "path_open", |caller: Caller<'_, TaskState>, arguments| {
        Box::new(open(caller, arguments))
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

async fn open(mut caller: Caller<'_, TaskState>, arguments: Arguments) -> Result<i32> {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        return Err(wasmtime::format_err!("missing required memory export"));
    };
    let (memory, state) = memory.data_and_store_mut(&mut caller);
    let wasi = state.wasi();
    wasi.set_hostcall_fuel(WASI_CALL_BYTES_MAX);
    let (dir, lookup, path, path_len, flags, rights, inheriting, descriptor_flags, at) = arguments;
    let mut guest = GuestMemory::Unshared(&mut *memory);
    let errno = wasi_snapshot_preview1::path_open(
        wasi,
        &mut guest,
        dir,
        lookup,
        path,
        path_len,
        flags,
        rights,
        inheriting,
        descriptor_flags,
        at,
    )
    .await?;
    if errno != Errno::Success as i32 {
        return Ok(errno);
    }
    // The number was written there a moment ago.
    let start = at as u32 as usize;
    let number = memory.get(start..start + 4).and_then(|bytes| bytes.try_into().ok());
    let number = number.map_or(u32::MAX, u32::from_le_bytes);
    // The number of a new descriptor is the lowest free one, and `fd_renumber` only swaps, so it says how many
    // there are.
    if number as usize >= TASK_DESCRIPTORS_MAX {
        // The file is open, so closing it cannot fail.
        let _ = wasi.fd_close(&mut GuestMemory::Unshared(memory), number.into()).await;
        return Ok(Errno::Mfile as i32);
    }
    Ok(errno)
}
