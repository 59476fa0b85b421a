//! `path_symlink`, wasmtime's own, which makes links that lead downwards only.
//!
//! Within WASI a link leads nowhere beyond the directory, wherever it points. But the directory is the host's, too:
//! there a program follows the link as what it is, a link of the user as whom the worker runs, which for an ordinary
//! user is the user. So a link that leads out of the directory is an escape in two steps, the second of which somebody
//! else does by naming it.
//!
//! A target is refused if it begins at the root, has a `..` anywhere, or names nothing (`.`, `./.`). What is left is a
//! series of names, one at least, which is looked up from the folder that holds the link, each in what the one before
//! it led to. So by induction over the steps a link leads at least as deep beneath the directory as its own name
//! stands: the folder that holds it is one step less deep, and each name in the target is one step down, or a link
//! that leads at least as deep as its own name. That they are renamed, given a second name, or moved with the folder
//! that holds them (`path_rename`, `path_link`) changes where they begin and not this. A target such as `sub/../x` is
//! refused as well: it stays inside of the directory only for as long as `sub` is no link.
//!
//! It follows that a path leads nowhere beyond the directory if it has no more `..` than names before them, whoever
//! wrote it: each name in it leads at least one step down. A link to `.` would lead less deep than its name stands,
//! and what the user calls `d/link/../x` would be beside `d`; so would a link of the user's own that leads upwards
//! *within* the directory, named by a path through such a link.
//!
//! Links that lead upwards and that the *user* has put into the directory are beyond this: they are the user's word.
//! A task can point at them, and can move them with their folder; by themselves they cannot be moved or given a
//! second name ([`open_parent`]).

use wasmtime::{Caller, Extern, Linker, Result};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p1::types::Errno;
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self, WasiSnapshotPreview1};
use wiggle::GuestMemory;

use super::linker::TaskState;
use proto::imports::Preview;
use proto::limits::WASI_CALL_BYTES_MAX;

/// Bytes of a path and of a link's target, at most: as Linux has it.
const TARGET_BYTES_MAX: usize = 4096;

/// This is where the answers of calls of our own go, in a memory of our own.
const NUMBER_AT: usize = 0;
const LEN_AT: usize = 4;
const TARGET_AT: usize = 8;
const TEXT_AT: usize = TARGET_AT + TARGET_BYTES_MAX;

/// `lookupflags`: the way to the folder may lead over links.
const FOLLOW: i32 = 1;
/// `oflags`.
const DIRECTORY: i32 = 2;

/// The arguments are in the order of WASI's specification.
type LinkArguments = (i32, i32, i32, i32, i32, i32, i32);
type RenameArguments = (i32, i32, i32, i32, i32, i32);
type SymlinkArguments = (i32, i32, i32, i32, i32);

/// Replaces wasmtime's.
///
/// # Errors
/// What wasmtime says; nothing is expected.
pub(super) fn define(linker: &mut Linker<TaskState>) -> Result<()> {
    let module = Preview::One.module();
    linker.allow_shadowing(true);
    linker.func_wrap_async(module, "path_symlink", |caller: Caller<'_, TaskState>, arguments| {
        Box::new(symlink(caller, arguments))
    })?;
    linker.func_wrap_async(module, "path_rename", |caller: Caller<'_, TaskState>, arguments| {
        Box::new(rename(caller, arguments))
    })?;
    linker.func_wrap_async(module, "path_link", |caller: Caller<'_, TaskState>, arguments| {
        Box::new(link(caller, arguments))
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Returns whether a link to this target could lead less deep than its own name stands, wherever that is.
pub(super) fn leads_out(target: &[u8]) -> bool {
    let mut parts = target.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    let names_nothing = parts.clone().next().is_none();
    target.starts_with(b"/") || names_nothing || parts.any(|part| part == b"..")
}

async fn symlink(mut caller: Caller<'_, TaskState>, arguments: SymlinkArguments) -> Result<i32> {
    let (wasi, memory) = parts(&mut caller)?;
    let (target, target_len, dir, path, path_len) = arguments;
    if text(memory, target, target_len).is_some_and(leads_out) {
        return Ok(Errno::Perm as i32);
    }
    let mut guest = GuestMemory::Unshared(memory);
    wasi_snapshot_preview1::path_symlink(wasi, &mut guest, target, target_len, dir, path, path_len).await
}

async fn rename(caller: Caller<'_, TaskState>, arguments: RenameArguments) -> Result<i32> {
    let (dir, path, path_len, to_dir, to, to_len) = arguments;
    give_name(
        caller,
        Naming::Rename,
        GuestPath { dir, path, path_len },
        GuestPath { dir: to_dir, path: to, path_len: to_len },
    )
    .await
}

async fn link(caller: Caller<'_, TaskState>, arguments: LinkArguments) -> Result<i32> {
    let (dir, lookup, path, path_len, to_dir, to, to_len) = arguments;
    let naming = Naming::Link { lookup };
    give_name(
        caller,
        naming,
        GuestPath { dir, path, path_len },
        GuestPath { dir: to_dir, path: to, path_len: to_len },
    )
    .await
}

/// Says how something gets a name: it is moved, or has a second one.
#[derive(Clone, Copy)]
enum Naming {
    Rename,
    Link { lookup: i32 },
}

/// A descriptor, and a path from there that lies in the guest's memory.
#[derive(Clone, Copy)]
struct GuestPath {
    dir: i32,
    path: i32,
    path_len: i32,
}

/// Gives what is at `from` the name `to`, unless it is a link that leads out.
async fn give_name(
    mut caller: Caller<'_, TaskState>,
    naming: Naming,
    from: GuestPath,
    to: GuestPath,
) -> Result<i32> {
    let (wasi, memory) = parts(&mut caller)?;
    let looked = match (text(memory, from.path, from.path_len), text(memory, to.path, to.path_len)) {
        (Some(source), Some(target)) => open_parent(wasi, from.dir, source, target).await?,
        _ => ParentLookup::AsItIs,
    };
    match looked {
        ParentLookup::Failed(errno) => Ok(errno),
        ParentLookup::AsItIs => call(wasi, GuestMemory::Unshared(memory), naming, from, to).await,
        ParentLookup::Open(mut parent) => {
            let from = GuestPath { dir: parent.dir, path: parent.name.0, path_len: parent.name.1 };
            let to = GuestPath { dir: to.dir, path: parent.to.0, path_len: parent.to.1 };
            let errno = call(wasi, GuestMemory::Unshared(&mut parent.memory), naming, from, to).await;
            parent.close(wasi).await;
            errno
        }
    }
}

/// Makes WASI's own call.
async fn call(
    wasi: &mut WasiP1Ctx,
    mut guest: GuestMemory<'_>,
    naming: Naming,
    from: GuestPath,
    to: GuestPath,
) -> Result<i32> {
    let GuestPath { dir, path, path_len } = from;
    match naming {
        Naming::Rename => {
            wasi_snapshot_preview1::path_rename(
                wasi,
                &mut guest,
                dir,
                path,
                path_len,
                to.dir,
                to.path,
                to.path_len,
            )
            .await
        }
        Naming::Link { lookup } => {
            wasi_snapshot_preview1::path_link(
                wasi,
                &mut guest,
                dir,
                lookup,
                path,
                path_len,
                to.dir,
                to.path,
                to.path_len,
            )
            .await
        }
    }
}

/// Says what comes of the look at a name that is to be moved or given a second name.
enum ParentLookup {
    /// The path has a form that the call itself refuses, or leads nowhere in memory: it has its own words for that.
    AsItIs,
    /// It may not be, or there is no such folder.
    Failed(i32),
    Open(OpenParent),
}

/// A folder that a path leads to, open, and its last part.
struct OpenParent {
    dir: i32,
    is_ours: bool,
    /// The name stands in this memory: wiggle's pointer to its beginning, and its length.
    name: (i32, i32),
    to: (i32, i32),
    memory: Vec<u8>,
}

impl OpenParent {
    async fn close(mut self, wasi: &mut WasiP1Ctx) {
        if self.is_ours {
            // The descriptor is open, so it can be closed.
            let guest = &mut GuestMemory::Unshared(&mut self.memory);
            let _ = wasi.fd_close(guest, (self.dir as u32).into()).await;
        }
    }
}

/// Opens the folder of a path, and refuses a name in it that is a link which could lead out from elsewhere.
///
/// Another task may rename at the same time. But no link that could lead out comes to be in a folder that is open: no
/// task can make one, and none moves one there, since each that tries is here. So what was looked at can only have been
/// replaced by something harmless.
async fn open_parent(wasi: &mut WasiP1Ctx, dir: i32, from: &[u8], to: &[u8]) -> Result<ParentLookup> {
    if from.len().max(to.len()) > TARGET_BYTES_MAX {
        return Ok(ParentLookup::Failed(Errno::Nametoolong as i32));
    }
    let trimmed = &from[..from.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1)];
    let begin = trimmed.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let name_len = trimmed.len() - begin;
    if from.starts_with(b"/") || matches!(&trimmed[begin..], b"" | b"." | b"..") {
        return Ok(ParentLookup::AsItIs);
    }
    let mut memory = vec![0; TEXT_AT];
    memory.extend(from);
    memory.extend(to);
    let at = |offset: usize| (TEXT_AT + offset) as i32;
    let name = (at(begin), (from.len() - begin) as i32);
    let mut parent = OpenParent { dir, is_ours: false, name, to: (at(from.len()), to.len() as i32), memory };
    if begin > 0 {
        let mut guest = GuestMemory::Unshared(&mut parent.memory);
        let errno = wasi_snapshot_preview1::path_open(
            wasi,
            &mut guest,
            dir,
            FOLLOW,
            at(0),
            begin as i32,
            DIRECTORY,
            0,
            0,
            0,
            NUMBER_AT as i32,
        )
        .await?;
        if errno != Errno::Success as i32 {
            return Ok(ParentLookup::Failed(errno));
        }
        parent.dir = number(&parent.memory, NUMBER_AT);
        parent.is_ours = true;
    }
    let mut guest = GuestMemory::Unshared(&mut parent.memory);
    let buffer = TARGET_AT as i32;
    let room = TARGET_BYTES_MAX as i32;
    let looked = wasi_snapshot_preview1::path_readlink(
        wasi,
        &mut guest,
        parent.dir,
        name.0,
        name_len as i32,
        buffer,
        room,
        LEN_AT as i32,
    )
    .await?;
    let len = number(&parent.memory, LEN_AT) as u32 as usize;
    let failed = match looked {
        errno if errno == Errno::Success as i32 => {
            let target = parent.memory.get(TARGET_AT..TARGET_AT + len.min(TARGET_BYTES_MAX));
            target.is_none_or(leads_out).then_some(Errno::Perm as i32)
        }
        // The name is no link, or is not there.
        errno if errno == Errno::Inval as i32 || errno == Errno::Noent as i32 => None,
        errno => Some(errno),
    };
    match failed {
        None => Ok(ParentLookup::Open(parent)),
        Some(errno) => {
            parent.close(wasi).await;
            Ok(ParentLookup::Failed(errno))
        }
    }
}

fn parts<'a>(caller: &'a mut Caller<'_, TaskState>) -> Result<(&'a mut WasiP1Ctx, &'a mut [u8])> {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        return Err(wasmtime::format_err!("missing required memory export"));
    };
    let (memory, state) = memory.data_and_store_mut(caller);
    let wasi = state.wasi();
    wasi.set_hostcall_fuel(WASI_CALL_BYTES_MAX);
    Ok((wasi, memory))
}

/// A guest's text; `None` where the pointer leads nowhere: what is called with it says so.
fn text(memory: &[u8], at: i32, len: i32) -> Option<&[u8]> {
    let at = at as u32 as usize;
    let len = len as u32 as usize;
    memory.get(at..at.checked_add(len)?)
}

/// A number that a call has just written.
fn number(memory: &[u8], at: usize) -> i32 {
    let bytes = memory.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(-1, i32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_with_a_step_up_or_from_the_root_or_that_names_nothing_leads_out() {
        for target in [
            "..",
            "../x",
            "a/..",
            "a/../b",
            "./../x",
            "a/b/../../..",
            "/",
            "/etc",
            "//x",
            "a//..//b",
            "",
            ".",
            "./.",
            "./",
            ".//.",
        ] {
            assert!(leads_out(target.as_bytes()), "{target}");
        }
        for target in ["a", "a/b", "...", "..a", "a..", "a/..b/c", "./a", "a/", "a/."] {
            assert!(!leads_out(target.as_bytes()), "{target}");
        }
    }
}
