//! Names of this process's own descriptors: `/dev/stdout`, `/dev/fd/3`, `/proc/self/fd/3`.
//!
//! Linux opens what is behind such a name once more. That makes a second position in a file, so that two writers
//! overwrite each other; it fails for a socket; it asks for rights anew that whoever gave the descriptor had; and it
//! needs a `/proc` and a `/dev` that are as usual. So the descriptor itself is used, as other systems do it, and as
//! shells do it that know these names.

use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::path::{Component, Path};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;
use rustix::io::{Errno, FdFlags};

use super::{Folder, Identity, OpenError};

/// stdin, stdout and stderr, which are never this process's own secret.
const STANDARD: std::ops::RangeInclusive<RawFd> = 0..=2;

/// The number of `/dev/null`.
const NULL: (u32, u32) = (1, 3);

/// The descriptor that a path names by its form.
pub(super) fn named(path: &Path) -> Option<RawFd> {
    let mut parts = path.components();
    if parts.next() != Some(Component::RootDir) {
        return None;
    }
    let mut words: [&str; 4] = [""; 4];
    let mut count = 0;
    for part in parts {
        let Component::Normal(word) = part else { return None };
        *words.get_mut(count)? = word.to_str()?;
        count += 1;
    }
    match &words[..count] {
        ["dev", "stdin"] => Some(0),
        ["dev", "stdout"] => Some(1),
        ["dev", "stderr"] => Some(2),
        ["dev", "fd", number] | ["proc", "self" | "thread-self", "fd", number] => parsed(number),
        ["proc", process, "fd", number] if parsed(process) == Some(own_number()) => parsed(number),
        _ => None,
    }
}

/// The descriptor that a name stands for in a folder of the kernel's, if that is this process's.
pub(super) fn in_folder(folder: &Folder, name: &OsStr) -> Option<RawFd> {
    let number = parsed(name.to_str()?)?;
    let found = Identity::of_open(folder).ok()?;
    let is_own = |path: &str| rustix::fs::stat(path).is_ok_and(|stat| Identity::of(&stat) == found);
    ["/proc/self/fd", "/proc/thread-self/fd"].into_iter().any(is_own).then_some(number)
}

/// One more descriptor of the same open file, to read from it.
pub(super) fn to_read(number: RawFd) -> Result<OwnedFd, OpenError> {
    check_given(number)?;
    duplicated(number, OFlags::WRONLY, "written")
}

/// The same, to write to it.
pub(super) fn to_write(number: RawFd) -> Result<OwnedFd, OpenError> {
    check_given(number)?;
    duplicated(number, OFlags::RDONLY, "read")
}

/// The standard descriptors that were closed when this executable was loaded.
static CLOSED: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];

/// Rust's runtime opens a closed one (`>&-`) as /dev/null before `main` begins, and what is written there would be lost
/// in silence. So this is looked at earlier.
extern "C" fn look_at_standard() {
    for (number, is_closed) in STANDARD.zip(&CLOSED) {
        // SAFETY: F_GETFD reads a descriptor's flags and touches no memory, whether the descriptor is open or not.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
        is_closed.store(flags == -1, Ordering::Relaxed);
    }
}

// SAFETY: `.init_array` holds pointers to functions of this signature, which the loader calls once; this
// function needs nothing of the runtime.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_AT_STANDARD: extern "C" fn() = look_at_standard;

/// Returns whether this process was started without that standard descriptor.
pub fn was_closed(number: RawFd) -> bool {
    let index = usize::try_from(number).unwrap_or(usize::MAX);
    CLOSED.get(index).is_some_and(|is_closed| is_closed.load(Ordering::Relaxed))
}

/// Returns whether only the runtime's /dev/null is behind a standard descriptor: something else may have been
/// put there since.
fn is_closed(number: RawFd) -> Result<bool, OpenError> {
    if !was_closed(number) {
        return Ok(false);
    }
    let stat = rustix::fs::fstat(copied(number)?)?;
    Ok((rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) == NULL)
}

/// Nobody may name what this process has opened for itself: whatever it was started with outlives an `exec`,
/// and what it opens does not.
fn check_given(number: RawFd) -> Result<(), OpenError> {
    if STANDARD.contains(&number) {
        return if is_closed(number)? { Err(OpenError::NoDescriptor(number)) } else { Ok(()) };
    }
    // The number is open, then, or names nothing.
    copied(number)?;
    // SAFETY: to ask a number for its flags touches nothing, whether it is open or not.
    let flags = rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) })?;
    if flags.contains(FdFlags::CLOEXEC) { Err(OpenError::NoDescriptor(number)) } else { Ok(()) }
}

/// One more descriptor of the same open file, whatever can be done with it.
pub(super) fn copied(number: RawFd) -> Result<OwnedFd, OpenError> {
    // SAFETY: the call makes a new descriptor or fails, whether this one is open or not.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, STANDARD.end() + 1) };
    if copy < 0 {
        return Err(match Errno::from_io_error(&std::io::Error::last_os_error()) {
            Some(Errno::BADF) | None => OpenError::NoDescriptor(number),
            Some(errno) => errno.into(),
        });
    }
    // SAFETY: the kernel has just made it, for us.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

fn duplicated(number: RawFd, other: OFlags, only: &'static str) -> Result<OwnedFd, OpenError> {
    let copy = copied(number)?;
    let flags = rustix::fs::fcntl_getfl(&copy)?;
    if flags.contains(OFlags::PATH) || flags & OFlags::RWMODE == other {
        return Err(OpenError::WrongWay(number, only));
    }
    Ok(copy)
}

fn parsed(text: &str) -> Option<RawFd> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn own_number() -> RawFd {
    rustix::process::getpid().as_raw_nonzero().get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_known_by_its_names() {
        let own = format!("/proc/{}/fd/7", own_number());
        for (path, number) in [
            ("/dev/stdin", 0),
            ("//dev/./stdout", 1),
            ("/dev/stderr", 2),
            ("/dev/fd/63", 63),
            ("/proc/self/fd/0", 0),
            ("/proc/thread-self/fd/4", 4),
            (&*own, 7),
        ] {
            assert_eq!(named(Path::new(path)), Some(number), "{path}");
        }
        for path in [
            "dev/stdin",
            "/dev/../dev/stdin",
            "/dev/fd",
            "/dev/fd/+1",
            "/dev/fd/",
            "/dev/fd/1/x",
            "/proc/1/fd/1",
        ] {
            assert_eq!(named(Path::new(path)), None, "{path}");
        }
    }
}
