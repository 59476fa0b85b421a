//! Namespaces: a network without devices, no System V objects, an empty file system.
//!
//! No PID namespace: as pid 1 of one, `abort()` does not end the process by SIGABRT, and the
//! classification of deaths would be wrong.

use std::ffi::CStr;
use std::io;
use std::ptr;

use rustix::thread::UnshareFlags;

use super::doing;

/// A user namespace first: it is what lets an ordinary user have the others.
pub(super) fn unshare_user() -> io::Result<String> {
    // SAFETY: the descriptors' table is not unshared, and this thread is the only one.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }.map_err(doing("unshare"))?;
    Ok("user".into())
}

/// This takes longer than all else that a child does to itself, since the kernel sets up a stack of protocols. It is a
/// step of its own because another thread may work meanwhile, which a user namespace does not allow.
pub(super) fn unshare_network() -> io::Result<String> {
    let flags = UnshareFlags::NEWNET | UnshareFlags::NEWIPC;
    // SAFETY: the descriptors' table is not unshared. Only this thread moves into the namespaces.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(doing("unshare net and ipc"))?;
    Ok("net, ipc".into())
}

/// Makes an empty root if this process is root, and returns whether there is one now. Without the capabilities (in a
/// container) it is refused, and may be had behind a user namespace.
pub(super) fn empty_root_as_root() -> bool {
    rustix::process::getuid().is_root() && put_up_empty_root().is_ok()
}

/// This is how an empty root is reported.
pub(super) const EMPTY_ROOT: &str = "an empty tmpfs, read-only";

/// Makes an empty, read-only file system the root. It covers what Landlock does not: the metadata of files. It needs
/// the capabilities that come with a user namespace.
pub(super) fn empty_root() -> io::Result<String> {
    put_up_empty_root()?;
    Ok(EMPTY_ROOT.into())
}

fn put_up_empty_root() -> io::Result<()> {
    // SAFETY: as in `unshare_user`.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.map_err(doing("unshare mounts"))?;
    let nothing_back = libc::MS_REC | libc::MS_PRIVATE;
    mount(None, c"/", None, nothing_back, None).map_err(doing("make mounts private"))?;
    let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let options = c"size=4k,nr_inodes=1,mode=0555";
    // Any directory that exists will do, since it is gone a moment later.
    let over = [c"/tmp", c"/proc", c"/dev", c"/usr"]
        .into_iter()
        .find(|dir| mount(Some(c"none"), dir, Some(c"tmpfs"), flags, Some(options)).is_ok())
        .ok_or_else(|| io::Error::other("mount of an empty tmpfs is refused"))?;
    let entered = enter(over);
    if entered.is_err() {
        // A layer must not stand by halves, so what was covered is shown again.
        let _ = rustix::process::chdir(c"/");
        // SAFETY: the path is a valid C string.
        unsafe { libc::umount2(over.as_ptr(), libc::MNT_DETACH) };
    }
    entered
}

/// Makes what is mounted there the root, and lets go of the old one.
fn enter(mounted: &CStr) -> io::Result<()> {
    rustix::process::chdir(mounted).map_err(doing("enter the empty root"))?;
    // The idiom of pivot_root(2): the old root lands on top of the new one, and is detached.
    // SAFETY: both paths are valid C strings.
    if unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) } != 0 {
        return Err(doing("pivot_root")(io::Error::last_os_error()));
    }
    // SAFETY: the path is a valid C string.
    if unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) } != 0 {
        return Err(doing("detach the old root")(io::Error::last_os_error()));
    }
    rustix::process::chdir(c"/").map_err(doing("enter the empty root"))
}

fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
    options: Option<&CStr>,
) -> io::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: each pointer is null or a valid C string.
    let failed = unsafe {
        libc::mount(pointer(source), target.as_ptr(), pointer(kind), flags, pointer(options).cast())
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
