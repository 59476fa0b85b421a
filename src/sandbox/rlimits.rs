//! Resource limits: hard ones, which nobody raises again.
//!
//! Not `RLIMIT_AS`: the engine reserves gigabytes of addresses that it never touches.
//! `RLIMIT_DATA` counts what can be written; a refused `memory.grow` then returns −1, and a
//! refused allocation of the process's own ends it by SIGABRT.

use std::io;

use rustix::process::{Resource, Rlimit};

use super::{Profile, doing};
use crate::limits::{DIRS_MAX, MODULE_BYTES_MAX, TASK_DESCRIPTORS_MAX, WORKER_DESCRIPTORS_MAX};

/// Descriptors beyond those of any worker, where tasks have directories: theirs, and a few that calls
/// open on the way.
const FILE_DESCRIPTORS: u64 = (DIRS_MAX + TASK_DESCRIPTORS_MAX + 16) as u64;

pub(super) fn apply(memory_bytes_max: u64, with_files: bool) -> io::Result<String> {
    let descriptors_max = WORKER_DESCRIPTORS_MAX + if with_files { FILE_DESCRIPTORS } else { 0 };
    let limits = [
        // A core dump would hold the tasks' data.
        (Resource::Core, 0),
        // Modules arrive as pairs of descriptors, of which one stays open while the module is mapped.
        (Resource::Nofile, descriptors_max),
        (Resource::Data, memory_bytes_max),
        // The image of a module's data segments is written to a memfd: 0 would kill.
        (Resource::Fsize, MODULE_BYTES_MAX as u64 * 8),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
        (Resource::Rtprio, 0),
        (Resource::Sigpending, 64),
    ];
    for (resource, value) in limits {
        let limit = Rlimit { current: Some(value), maximum: Some(value) };
        rustix::process::setrlimit(resource, limit).map_err(doing(&format!("setrlimit {resource:?}")))?;
    }
    let mib = memory_bytes_max >> 20;
    Ok(format!("DATA {mib} MiB, NOFILE {descriptors_max}, CORE, MEMLOCK, MSGQUEUE, RTPRIO 0"))
}

/// To write beyond `RLIMIT_FSIZE` is then an error of the call, and not the end of the process.
pub(super) fn too_large_is_an_error() {
    // SAFETY: to ignore a signal runs no code of ours.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Neither a process nor a thread more. The kernel does not hold root to it.
pub(super) fn no_more_threads(profile: Profile) -> io::Result<()> {
    if profile.starts_threads() {
        return Ok(());
    }
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    Ok(rustix::process::setrlimit(Resource::Nproc, none)?)
}
