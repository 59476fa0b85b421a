//! Runs on a system without /proc or /dev, where all must work that does not need them.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use wasmpool::sandbox::{SandboxLayer, SandboxPolicy};

use super::Case;
use super::reports::{builder, wasm};
use crate::support::PATIENCE;

/// Hides both from a program that is about to start, in a mount namespace of its own.
pub(crate) fn hide(command: &mut Command) {
    let is_root = rustix::process::getuid().is_root();
    let as_user = move || -> io::Result<()> {
        // The user may have been changed since `is_root` was read.
        let flags = match is_root && rustix::process::getuid().is_root() {
            true => libc::CLONE_NEWNS,
            false => libc::CLONE_NEWNS | libc::CLONE_NEWUSER,
        };
        let check = |failed| if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
        // SAFETY: the child of a fork has one thread.
        check(unsafe { libc::unshare(flags) })?;
        for (place, kind, flags) in [
            (c"/", None, libc::MS_REC | libc::MS_PRIVATE),
            (c"/proc", Some(c"tmpfs"), 0),
            (c"/dev", Some(c"tmpfs"), 0),
        ] {
            let kind = kind.map_or(std::ptr::null(), std::ffi::CStr::as_ptr);
            // SAFETY: each pointer is null or leads to a C string.
            check(unsafe { libc::mount(c"none".as_ptr(), place.as_ptr(), kind, flags, std::ptr::null()) })?;
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls and nothing else, which is allowed after a fork.
    unsafe { command.pre_exec(as_user) };
}

pub(crate) fn are_done_without(_: &Case) {
    assert!(!std::path::Path::new("/proc/self").exists() && !std::path::Path::new("/dev/null").exists());
    // The descriptors that an embedder has left open must be closed all the same.
    let pool = builder(SandboxPolicy::BestEffort).build().expect("builds");
    let module = pool.load(&wasm()).unwrap_or_else(|error| panic!("{error}"));
    let echo = module.raw_task("echo").expect("has the task");
    let answer = pool.submit_bytes(&echo, "on").expect("submits").result_timeout(PATIENCE).expect("in time");
    assert_eq!(answer.unwrap_or_else(|error| panic!("{error}")), "on");
    let report = pool.sandbox().expect("a worker is ready");
    let said = report.layer(SandboxLayer::OomScore).expect("is reported");
    assert!(said.requested && !said.applied && said.reason.contains("is /proc mounted"), "{said:?}");
    for stands in [SandboxLayer::Seccomp, SandboxLayer::ResourceLimits, SandboxLayer::Descriptors] {
        assert!(report.has(stands), "{report}");
    }
}
