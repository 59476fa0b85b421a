//! Resource limits: hard ones, which nobody raises again.
//!
//! Not `RLIMIT_AS`: the engine reserves gigabytes of addresses that it never touches.
//! `RLIMIT_DATA` counts what can be written; a refused `memory.grow` then returns −1, and a
//! refused allocation of the process's own ends it by SIGABRT.

use std::io;

use rustix::process::{Resource, Rlimit};

use super::{Profile, doing};
use crate::limits::{MODULE_BYTES_MAX, WORKER_DESCRIPTORS_MAX};

pub(super) fn apply(memory_bytes_max: u64) -> io::Result<String> {
    let limits = [
        // A core dump would hold the tasks' data.
        (Resource::Core, 0),
        // Modules arrive as pairs of descriptors, of which one stays open while the module is mapped.
        (Resource::Nofile, WORKER_DESCRIPTORS_MAX),
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
    Ok(format!("DATA {mib} MiB, NOFILE {WORKER_DESCRIPTORS_MAX}, CORE, MEMLOCK, MSGQUEUE, RTPRIO 0"))
}

/// Neither a process nor a thread more. The kernel does not hold root to it.
pub(super) fn no_more_threads(profile: Profile) -> io::Result<()> {
    if profile.starts_threads() {
        return Ok(());
    }
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    Ok(rustix::process::setrlimit(Resource::Nproc, none)?)
}
