//! Resource limits: hard ones, which nobody raises again.
//!
//! Each limit is set for itself, to what is wanted or to what this process may have, if that is less: one
//! that cannot be set does not stop the others. `RLIMIT_DATA` counts what can be written: beyond it,
//! `memory.grow` returns −1, and an allocation of the process's own ends it by SIGABRT. `RLIMIT_AS` does not
//! bound memory, since the engines reserve addresses that they never touch; it bounds the page tables.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use proto::limits::{
    DIRS_MAX, MODULE_BYTES_MAX, TASK_DESCRIPTORS_MAX, WORKER_ADDRESSES_MAX, WORKER_DESCRIPTORS_MAX,
    WORKER_STACK_BYTES, WORKER_TIMERS, WORKERS_MAX,
};

/// Descriptors beyond those of any worker, where tasks have directories: theirs, and a few that calls
/// open on the way.
const FILE_DESCRIPTORS: u64 = (DIRS_MAX + TASK_DESCRIPTORS_MAX + 16) as u64;

/// Sets all limits, and returns a text that says to what.
///
/// # Errors
/// The error names each limit that could not be set; the others are set.
pub(super) fn apply(memory_bytes_max: u64, with_files: bool, data_at_start: u64) -> io::Result<String> {
    let descriptors_max = WORKER_DESCRIPTORS_MAX + if with_files { FILE_DESCRIPTORS } else { 0 };
    let limits = [
        ("DATA", Resource::Data, memory_bytes_max.saturating_add(data_at_start)),
        ("AS", Resource::As, memory_bytes_max.saturating_add(WORKER_ADDRESSES_MAX)),
        // The main thread's stack does not count as data, and grows by itself.
        ("STACK", Resource::Stack, WORKER_STACK_BYTES),
        // Modules arrive as pairs of descriptors, of which one stays open while the module is mapped.
        ("NOFILE", Resource::Nofile, descriptors_max),
        // A module's data segments are written to a memfd, which a limit of 0 would refuse.
        ("FSIZE", Resource::Fsize, MODULE_BYTES_MAX as u64 * 8),
        // A timer counts as one, and those of all of a user's workers count together. None is made once the filter stands.
        ("SIGPENDING", Resource::Sigpending, (WORKER_TIMERS * WORKERS_MAX) as u64),
        // A core dump would hold the tasks' data.
        ("CORE", Resource::Core, 0),
        ("MEMLOCK", Resource::Memlock, 0),
        ("MSGQUEUE", Resource::Msgqueue, 0),
        ("RTPRIO", Resource::Rtprio, 0),
    ];
    let set = limits.map(|(name, resource, value)| lower(name, resource, value));
    let said = |is_set: bool| {
        let said = set.iter().filter(|limit| limit.is_ok() == is_set);
        said.map(|limit| limit.as_ref().unwrap_or_else(|error| error).clone()).collect::<Vec<_>>().join(", ")
    };
    let stand = said(true);
    match set.iter().any(Result::is_err) {
        false => Ok(stand),
        true if stand.is_empty() => Err(io::Error::other(said(false))),
        true => Err(io::Error::other(format!("{}; the others stand: {stand}", said(false)))),
    }
}

/// Lowers both the soft and the hard limit to what is wanted, or to what is allowed if that is less. Says
/// what it is now.
fn lower(name: &str, resource: Resource, wanted: u64) -> Result<String, String> {
    let hard = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let value = wanted.min(hard);
    let limit = Rlimit { current: Some(value), maximum: Some(value) };
    setrlimit(resource, limit).map_err(|error| format!("setrlimit {name} {value}: {error}"))?;
    let shown = |value: u64| match value {
        _ if value >= 1 << 20 && resource != Resource::Nofile => format!("{} MiB", value >> 20),
        _ => value.to_string(),
    };
    Ok(match value < wanted {
        true => format!("{name} {} (no more is allowed here; {} are wanted)", shown(value), shown(wanted)),
        false => format!("{name} {}", shown(value)),
    })
}

/// Returns how many bytes this process can write to already: its stack, its allocator's reserve, the counters
/// of a coverage build. `RLIMIT_DATA` counts from there. Returns 0 if there is no /proc.
pub(super) fn data_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(5).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0).saturating_mul(rustix::param::page_size() as u64)
}

/// Allows neither a process nor a thread more. The kernel does not hold root to it.
pub(super) fn no_more_threads() -> io::Result<String> {
    lower("NPROC", Resource::Nproc, 0).map_err(io::Error::other)
}
