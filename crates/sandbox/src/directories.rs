//! Directories that were given: each becomes a mount of its own, hung up nowhere.
//!
//! A descriptor alone would be a way to the rest of its file system: Landlock forbids to open what is beyond it,
//! and not to look whether it is there. In a mount that hangs nowhere, `..` of its root is its root. It is
//! read-only if it is to be, and without devices, programs or set-uid.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::thread::UnshareFlags;

use super::doing;
use proto::preopen::DirAccess;

/// A directory that this process may use.
#[derive(Debug)]
pub struct Granted {
    pub descriptor: OwnedFd,
    pub access: DirAccess,
}

/// Puts a mount in the place of each directory.
///
/// The kernel copies only what is mounted in the caller's own namespace, and a descriptor of the host's is not;
/// but a thread's working directory moves along into a new one. So each directory has a thread for that, whose
/// namespace is gone with it. It needs the capabilities that [`unshare`](super::namespaces::unshare) has brought,
/// or root.
pub(super) fn confine(dirs: &mut [Granted]) -> io::Result<()> {
    let mount = |dir: &Granted| {
        std::thread::scope(|scope| scope.spawn(|| mounted(dir)).join())
            .unwrap_or_else(|_| Err(io::Error::other("the thread for it panicked")))
    };
    let mounted: io::Result<Vec<_>> = dirs.iter().map(mount).collect();
    // All or none are confined, so that the report is true of all.
    for (dir, mount) in dirs.iter_mut().zip(mounted?) {
        dir.descriptor = mount;
    }
    Ok(())
}

/// Mounts one directory. It runs on a thread that is thrown away.
fn mounted(dir: &Granted) -> io::Result<OwnedFd> {
    // SAFETY: neither flag touches the table of descriptors; this thread ends without another step.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }.map_err(doing("unshare"))?;
    rustix::process::fchdir(&dir.descriptor).map_err(doing("enter the directory"))?;
    // SAFETY: as above.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.map_err(doing("unshare mounts"))?;
    // The copy has what is mounted below as well, since an ordinary user may not have it otherwise.
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | libc::AT_RECURSIVE;
    // SAFETY: the path is a valid C string.
    let tree = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, c".".as_ptr(), flags) };
    if tree < 0 {
        return Err(doing("open_tree")(io::Error::last_os_error()));
    }
    // SAFETY: the kernel has just made it, for us.
    let tree = unsafe { OwnedFd::from_raw_fd(tree as i32) };
    let mut attributes =
        MountAttributes { set: MOUNT_NOSUID | MOUNT_NODEV | MOUNT_NOEXEC, ..MountAttributes::default() };
    if !dir.access.is_writable() {
        attributes.set |= MOUNT_RDONLY;
    }
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: a valid C string, and a structure of the size that is given, which the kernel reads.
    let failed = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    if failed == 0 { Ok(tree) } else { Err(doing("mount_setattr")(io::Error::last_os_error())) }
}

/// This is from linux/mount.h.
const OPEN_TREE_CLONE: libc::c_int = 1;

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
#[derive(Default)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// `MOUNT_ATTR_*` of linux/mount.h.
const MOUNT_RDONLY: u64 = 1;
const MOUNT_NOSUID: u64 = 2;
const MOUNT_NODEV: u64 = 4;
const MOUNT_NOEXEC: u64 = 8;
