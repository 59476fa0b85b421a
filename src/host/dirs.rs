//! The directories that a pool gives its tasks, opened once, when it is built: what a path means later
//! changes nothing.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, AtFlags, Mode, OFlags};

use crate::directory::{DirAccess, GuestDir};
use crate::error::BuildError;
use crate::files::{HostFiles, TaskDirs};
use crate::limits::{DIRS_MAX, GUEST_PATH_BYTES_MAX};
use crate::walls::{SandboxLayer, SandboxRequest};

/// A directory, open.
#[derive(Debug, Clone)]
pub(crate) struct HostDir {
    descriptor: Arc<OwnedFd>,
    pub(crate) guest: GuestDir,
}

impl AsFd for HostDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// A directory as the builder was told of it.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) host_path: PathBuf,
    pub(crate) guest: GuestDir,
}

/// Opens all of them, for workers that lock themselves down as `request` says.
///
/// # Errors
/// [`BuildError::Directory`], with the first that cannot be given.
pub(crate) fn open_all(wanted: &[Wanted], request: &SandboxRequest) -> Result<Vec<HostDir>, BuildError> {
    let mut open: Vec<HostDir> = Vec::new();
    let writable = wanted.iter().filter(|wanted| wanted.guest.access.is_writable());
    let tasks = TaskDirs::open(writable.map(|wanted| &*wanted.host_path))
        .map_err(|(path, source)| BuildError::Directory { path, source })?;
    let files = HostFiles::new(tasks);
    for Wanted { host_path, guest } in wanted {
        let refused = |source| BuildError::Directory { path: host_path.clone(), source };
        let invalid = |why: String| refused(io::Error::new(io::ErrorKind::InvalidInput, why));
        let name = &guest.guest_path;
        if open.len() == DIRS_MAX {
            return Err(invalid(format!("a pool has at most {DIRS_MAX}")));
        }
        if name.is_empty() || name.len() > GUEST_PATH_BYTES_MAX || name.contains('\0') {
            let max = GUEST_PATH_BYTES_MAX;
            return Err(invalid(format!("its path in the guest must have 1 to {max} bytes, none of them 0")));
        }
        if open.iter().any(|other| other.guest.guest_path == *name) {
            return Err(invalid(format!("another one is `{}` in the guest, too", name.escape_debug())));
        }
        let descriptor = open_one(host_path, &files, guest.access, request).map_err(refused)?;
        open.push(HostDir { descriptor: Arc::new(descriptor), guest: guest.clone() });
    }
    Ok(open)
}

/// Makes the door to the host's own files. It knows what tasks may write by the very descriptors that they
/// are given.
///
/// # Errors
/// A call that the system refuses.
pub(crate) fn host_files(dirs: &[HostDir]) -> io::Result<HostFiles> {
    let writable = dirs.iter().filter(|dir| dir.guest.access.is_writable());
    let held: io::Result<Vec<_>> = writable.map(|dir| dir.descriptor.try_clone()).collect();
    Ok(HostFiles::new(TaskDirs::new(held?)?))
}

fn open_one(
    path: &Path,
    files: &HostFiles,
    access: DirAccess,
    request: &SandboxRequest,
) -> io::Result<OwnedFd> {
    // A place, and no right to read: that the worker has or has not by itself.
    let dir = files.folder(path)?.into_descriptor();
    let mut wanted = Access::READ_OK | Access::EXEC_OK;
    if access.is_writable() {
        wanted |= Access::WRITE_OK;
    }
    rustix::fs::accessat(&dir, ".", wanted, AtFlags::EACCESS)?;
    let is_root = rustix::process::geteuid().is_root();
    if is_root && request.requests(SandboxLayer::Identity) {
        may(&dir, access, request.identity)?;
    }
    Ok(dir)
}

/// Whether somebody else may, by the mode. Only a process of theirs would know for certain: where an
/// access control list has a say, the benefit of the doubt.
fn may(dir: &OwnedFd, access: DirAccess, (uid, gid): (u32, u32)) -> io::Result<()> {
    let stat = rustix::fs::fstat(dir)?;
    let class = match () {
        () if stat.st_uid == uid => 6,
        () if stat.st_gid == gid => 3,
        () => 0,
    };
    let bits = if access.is_writable() { 0o7 } else { 0o5 };
    if stat.st_mode >> class & bits == bits || has_access_list(dir) {
        return Ok(());
    }
    let what = if access.is_writable() { "read and write" } else { "read" };
    let why = format!(
        "user {uid} and group {gid}, which the workers of a root host become, may not {what} it: \
         change its owner or mode, or run as a user who may"
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

fn has_access_list(dir: &OwnedFd) -> bool {
    // Attributes need a descriptor that is open for reading, which one of a mere place is not: so "." of it
    // is opened.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut room = [0u8; 0];
    rustix::fs::openat(dir, ".", flags, Mode::empty())
        .and_then(|dir| rustix::fs::fgetxattr(&dir, "system.posix_acl_access", &mut room))
        .is_ok_and(|bytes| bytes > 0)
}
