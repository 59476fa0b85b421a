//! Attacks that try to get beyond the directories that a process was given.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::RawFd;

use super::{Attack, call, refused};
use proto::policy::SandboxLayer::{EmptyRoot, Landlock, Seccomp};
use proto::probe::Targets;

/// The host has put its secret beside them, and in each a file of the name `inside`.
pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "dir-read-beyond",
        tries: "read a file beside a directory that was given, by `..`",
        against: &[EmptyRoot, Landlock],
        run: |targets| open(first(targets)?, c"../secret", libc::O_RDONLY),
    },
    Attack {
        name: "dir-write-beyond",
        tries: "write to it",
        against: &[EmptyRoot, Landlock],
        run: |targets| open(last(targets)?, c"../secret", libc::O_WRONLY | libc::O_APPEND),
    },
    Attack {
        name: "dir-create-beyond",
        tries: "make a file there",
        against: &[EmptyRoot, Landlock],
        run: |targets| {
            let dir = last(targets)?;
            let name = c"created".as_ptr() as usize;
            let opened = open(dir, c"../created", libc::O_WRONLY | libc::O_CREAT)?;
            // The path `..` is the directory itself if that has nothing above it.
            match call(libc::SYS_unlinkat, [dir as usize, name, 0, 0, 0, 0]) {
                Ok(_) => Err(refused("it was made in the directory itself")),
                Err(_) => Ok(opened),
            }
        },
    },
    Attack {
        // Landlock does not cover it; a mount that hangs nowhere does.
        name: "dir-stat-beyond",
        tries: "learn whether it exists",
        against: &[EmptyRoot],
        run: |targets| {
            let mut stat = [0u8; 256];
            let flags = libc::AT_SYMLINK_NOFOLLOW as usize;
            let path = c"../secret".as_ptr() as usize;
            let dir = first(targets)? as usize;
            call(libc::SYS_newfstatat, [dir, path, stat.as_mut_ptr() as usize, flags, 0, 0])
                .map(|_| "it exists".into())
        },
    },
    Attack {
        name: "dir-climb",
        tries: "reach the root of all files by many `..`",
        against: &[EmptyRoot, Landlock],
        run: |targets| {
            let path = c"../../../../../../../../../../../../../../../../usr";
            open(first(targets)?, path, libc::O_RDONLY | libc::O_DIRECTORY)
        },
    },
    Attack {
        name: "dir-link-beyond",
        tries: "read it through a symbolic link",
        against: &[EmptyRoot, Landlock, Seccomp],
        run: |targets| {
            let dir = last(targets)?;
            let target = CString::new(format!("{}/secret", targets.dir));
            let target = target.map_err(io::Error::other)?;
            let name = c"link";
            call(
                libc::SYS_symlinkat,
                [target.as_ptr() as usize, dir as usize, name.as_ptr() as usize, 0, 0, 0],
            )?;
            let opened = open(dir, name, libc::O_RDONLY);
            call(libc::SYS_unlinkat, [dir as usize, name.as_ptr() as usize, 0, 0, 0, 0])?;
            opened
        },
    },
    Attack {
        name: "dir-write-read-only",
        tries: "write to a file in a directory that was given to be read",
        against: &[EmptyRoot, Landlock],
        run: |targets| {
            let path = c"inside".as_ptr() as usize;
            let how = [libc::O_WRONLY as u64, 0, 0];
            let how = how.as_ptr() as usize;
            call(libc::SYS_openat2, [first(targets)? as usize, path, how, 24, 0, 0]).map(|_| "opened".into())
        },
    },
    Attack {
        name: "dir-exec",
        tries: "run a program in a directory that was given",
        against: &[EmptyRoot, Landlock, Seccomp],
        run: |targets| {
            let none: [*const u8; 1] = [std::ptr::null()];
            let path = c"inside".as_ptr() as usize;
            let none = none.as_ptr() as usize;
            call(libc::SYS_execveat, [first(targets)? as usize, path, none, none, 0, 0])
                .map(|_| "came back".into())
        },
    },
    Attack {
        name: "dir-make-fifo",
        tries: "make a FIFO, upon which others would wait",
        against: &[Landlock, Seccomp],
        run: |targets| {
            let path = c"fifo".as_ptr() as usize;
            let mode = (libc::S_IFIFO | 0o666) as usize;
            call(libc::SYS_mknodat, [last(targets)? as usize, path, mode, 0, 0, 0]).map(|_| "made".into())
        },
    },
    Attack {
        name: "dir-change-mode",
        tries: "make a file set-uid",
        against: &[Seccomp],
        run: |targets| {
            let path = c"inside".as_ptr() as usize;
            call(libc::SYS_fchmodat, [last(targets)? as usize, path, 0o4755, 0, 0, 0])
                .map(|_| "changed".into())
        },
    },
];

/// Returns the directory that may be read.
fn first(targets: &Targets) -> io::Result<RawFd> {
    targets.dirs.first().copied().ok_or_else(|| refused("there is no directory"))
}

/// Returns the directory that may be written to, if there is one.
fn last(targets: &Targets) -> io::Result<RawFd> {
    targets.dirs.last().copied().ok_or_else(|| refused("there is no directory"))
}

fn open(dir: RawFd, path: &CStr, flags: i32) -> io::Result<String> {
    let arguments = [dir as usize, path.as_ptr() as usize, flags as usize, 0o600, 0, 0];
    call(libc::SYS_openat, arguments).map(|_| "opened".into())
}
