//! The directories that a pool gives its tasks, opened once, when it is built: what a path means later
//! changes nothing.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::fs::{Access, AtFlags};
use rustix::io::Errno;

use crate::error::BuildError;
use crate::fork::PerProcess;
use files::{HostFiles, TaskDirs};
use proto::limits::{DIRS_MAX, GUEST_PATH_BYTES_MAX};
use proto::policy::{SandboxLayer, SandboxRequest};
use proto::preopen::{DirAccess, GuestDir};
use proto::refused::calling;
use proto::sync::Lock;

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
        let descriptor = open_one(host_path, &files, guest.access).map_err(refused)?;
        open.push(HostDir { descriptor: Arc::new(descriptor), guest: guest.clone() });
    }
    check_as_worker(wanted, &open, request)?;
    Ok(open)
}

/// Makes the handle by which the host opens its own files. It knows what tasks may write by the very descriptors
/// that they are given.
///
/// # Errors
/// A call that the system refuses.
pub(crate) fn host_files(dirs: &[HostDir]) -> io::Result<HostFiles> {
    let writable = dirs.iter().filter(|dir| dir.guest.access.is_writable());
    let held: io::Result<Vec<_>> = writable.map(|dir| dir.descriptor.try_clone()).collect();
    Ok(HostFiles::new(TaskDirs::new(held?)?))
}

fn open_one(path: &Path, files: &HostFiles, access: DirAccess) -> io::Result<OwnedFd> {
    // The descriptor is a place, and no right to read: the worker has that or not by itself.
    let dir = files.folder(path)?.into_descriptor();
    rustix::fs::accessat(&dir, ".", wanted_of(access), AtFlags::EACCESS)?;
    Ok(dir)
}

fn wanted_of(access: DirAccess) -> Access {
    let read = Access::READ_OK | Access::EXEC_OK;
    if access.is_writable() { read | Access::WRITE_OK } else { read }
}

/// Asks the kernel what workers may do in the directories, whoever they become: owners, modes, access control lists and
/// what the file system itself has to say all count. A thread of its own asks, since users and rights are a thread's on
/// Linux; it takes the very steps that a worker takes, and keeps what it has where one of them fails, as workers do.
///
/// # Errors
/// The first directory that workers may not use.
fn check_as_worker(wanted: &[Wanted], open: &[HostDir], request: &SandboxRequest) -> Result<(), BuildError> {
    let refused =
        |index: usize, source| BuildError::Directory { path: wanted[index].host_path.clone(), source };
    if open.is_empty() || !has_more_than_workers() {
        return Ok(());
    }
    // A change of user makes the whole process undumpable, which is undone below.
    static ONE_AT_A_TIME: PerProcess<Mutex<()>> = PerProcess::new(|| Mutex::new(()));
    let _one = ONE_AT_A_TIME.get().hold();
    let before = rustix::process::dumpable_behavior();
    let found = std::thread::scope(|scope| {
        let check = || become_worker(request)?.first_refused(open);
        let checking = std::thread::Builder::new().name("wasmpool-dirs".into()).spawn_scoped(scope, check);
        checking.map(|checking| checking.join().unwrap_or(None))
    });
    if let Ok(before) = before {
        // It is refused for a process that was undumpable for others before, and then nothing has changed.
        let _ = rustix::process::set_dumpable_behavior(before);
    }
    let found = found.map_err(|error| refused(0, calling("start a thread")(error)))?;
    found.map_or(Ok(()), |(index, source)| Err(refused(index, source)))
}

/// Returns whether this process may be allowed what its workers are not: they have the same user and rights
/// otherwise.
fn has_more_than_workers() -> bool {
    let own = rustix::thread::capabilities(None);
    rustix::process::getuid().is_root() || own.is_ok_and(|own| !own.effective.is_empty())
}

/// The user as whom workers run.
struct Worker {
    /// Says why it is this one.
    why: String,
}

/// Makes a worker of this thread, as far as it matters for files; returns `None` where workers do not start, which they
/// say themselves.
fn become_worker(request: &SandboxRequest) -> Option<Worker> {
    let mut why = String::new();
    if request.requests(SandboxLayer::Identity) {
        match sandbox::change_identity(request.identity) {
            Ok(Ok(_)) => why = ", which the workers of a root host become".into(),
            Ok(Err(_)) => {}
            Err(_) if !request.policy.can_do_without(SandboxLayer::Identity) => return None,
            Err(error) => why = format!(", since workers can become no other here ({error})"),
        }
    }
    if request.requests(SandboxLayer::Capabilities) {
        let dropped = sandbox::drop_capabilities();
        if dropped.is_err() && !request.policy.can_do_without(SandboxLayer::Capabilities) {
            return None;
        }
    }
    Some(Worker { why })
}

impl Worker {
    /// Returns the first of the directories that it may not use.
    fn first_refused(&self, dirs: &[HostDir]) -> Option<(usize, io::Error)> {
        dirs.iter()
            .enumerate()
            .find_map(|(index, dir)| Some((index, self.check(dir, dir.guest.access).err()?)))
    }

    fn check(&self, dir: impl AsFd, access: DirAccess) -> io::Result<()> {
        match rustix::fs::accessat(dir, ".", wanted_of(access), AtFlags::EACCESS) {
            Err(Errno::ACCESS | Errno::PERM) => {}
            // The rest of what can be wrong is said where it happens.
            _ => return Ok(()),
        }
        let what = if access.is_writable() { "read and write" } else { "read" };
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let why = format!(
            "workers run as user {uid} and group {gid}{}, who may not {what} it: change its owner or mode, or run as a \
             user who may",
            self.why
        );
        Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_look_as_a_worker_leaves_this_process_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).expect("has a mode");
        let guest = GuestDir { guest_path: "/d".into(), access: DirAccess::ReadWrite };
        let wanted = [Wanted { host_path: folder.path().into(), guest }];
        let own = || {
            let rights = rustix::thread::capabilities(None).map(|own| own.effective);
            (rustix::process::getuid(), rustix::process::getegid(), rights.ok())
        };
        let before = own();
        let opened = open_all(&wanted, &SandboxRequest::default());
        // This folder is closed to the workers of root only, since only those are another user.
        assert_eq!(opened.is_err(), rustix::process::getuid().is_root(), "{opened:?}");
        assert_eq!(own(), before);
        // Another test may look at this moment, too.
        let deadline = Instant::now() + Duration::from_secs(10);
        let is_dumpable = || {
            let now = rustix::process::dumpable_behavior().expect("is known");
            now == rustix::process::DumpableBehavior::Dumpable
        };
        while !is_dumpable() {
            assert!(Instant::now() < deadline, "it cannot be attached to any more");
            std::thread::yield_now();
        }
    }
}
