//! Finds out how much memory this process and its children may have.

use std::path::Path;
use std::sync::OnceLock;

use rustix::process::Resource;

use proto::kernel::kernel_text;
use proto::limits::{COMPILE_MEMORY_BYTES_MAX, COMPILE_MEMORY_BYTES_MIN};

/// The default of [`CompileLimits::memory_bytes_max`](crate::limits::CompileLimits::memory_bytes_max) on this
/// machine: half of its memory, or less if this process may have less.
pub(crate) fn for_a_compiler() -> u64 {
    static BYTES: OnceLock<u64> = OnceLock::new();
    *BYTES.get_or_init(|| default_of(there_is(), data_bytes_max()))
}

fn default_of(there_is: u64, data_bytes_max: u64) -> u64 {
    (there_is / 2).min(data_bytes_max).clamp(COMPILE_MEMORY_BYTES_MIN, COMPILE_MEMORY_BYTES_MAX)
}

/// Returns the most that a child of this process can be allowed, since nobody raises a hard limit.
pub(crate) fn data_bytes_max() -> u64 {
    rustix::process::getrlimit(Resource::Data).maximum.unwrap_or(u64::MAX)
}

/// Returns the machine's memory, or the part that a container may use.
fn there_is() -> u64 {
    let info = rustix::system::sysinfo();
    let machine = (info.totalram as u64).saturating_mul(info.mem_unit.into());
    let groups = kernel_text("/proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().filter_map(limit_of_group);
    limits.fold(machine, u64::min)
}

/// Returns the smallest limit of the group in a line of /proc/self/cgroup and of the groups above it. In a
/// container the path may be the host's, while the group itself is what is mounted.
fn limit_of_group(line: &str) -> Option<u64> {
    let (mount, file, path) = match line.splitn(3, ':').collect::<Vec<_>>()[..] {
        ["0", "", path] => ("/sys/fs/cgroup", "memory.max", path),
        [_, controllers, path] if controllers.split(',').any(|name| name == "memory") => {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", path)
        }
        _ => return None,
    };
    let group = Path::new(path.trim_start_matches('/'));
    let dirs = group.ancestors().map(|dir| Path::new(mount).join(dir));
    dirs.filter_map(|dir| kernel_text(dir.join(file)).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compilers_default_is_half_of_what_there_is_within_bounds() {
        const GIB: u64 = 1 << 30;
        assert_eq!(default_of(4 * GIB, u64::MAX), 2 * GIB);
        assert_eq!(default_of(512 * GIB, u64::MAX), COMPILE_MEMORY_BYTES_MAX);
        assert_eq!(default_of(64 * GIB, GIB), GIB);
        assert_eq!(default_of(1, 1), COMPILE_MEMORY_BYTES_MIN);
        assert!(there_is() > COMPILE_MEMORY_BYTES_MIN);
        assert_eq!(limit_of_group("3:cpuset:/"), None);
        assert_eq!(limit_of_group("junk"), None);
    }
}
