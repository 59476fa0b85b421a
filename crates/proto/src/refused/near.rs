//! Finds out which limit it is that refuses a thread or a process.
//!
//! The system answers with one number (`EAGAIN`) for all of them: the limit of processes, the cgroup's, and
//! that of addresses or data, where the C library finds no room for the stack.

use std::path::Path;

use rustix::process::{Resource, getrlimit};

use crate::kernel::kernel_text;

/// Says what stands nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Near {
    /// A limit of this process.
    Limit(Resource),
    /// The limit of processes of its cgroup, or of one above it.
    Group {
        /// `pids.max`
        most: u64,
    },
}

/// Room that a thread's stack may want, and what else is made with it.
const THREAD_BYTES: u64 = 16 << 20;

/// Which number of `/proc/self/statm` a limit counts.
const PAGES_OF: [(usize, Resource); 2] = [(0, Resource::As), (5, Resource::Data)];

/// The limit that is reached, or nearly so; `None` if that cannot be seen from here.
pub fn what_refuses_a_thread() -> Option<Near> {
    let read = |path: &str| kernel_text(path).unwrap_or_default();
    let memory = memory_near(&read("/proc/self/statm"), |resource| getrlimit(resource).current);
    let group = || group_full(&read("/proc/self/cgroup"), |path| kernel_text(path).ok());
    // The kernel does not hold root to it.
    let processes = || {
        let is_held = !rustix::process::geteuid().is_root();
        (is_held && getrlimit(Resource::Nproc).current.is_some()).then_some(Near::Limit(Resource::Nproc))
    };
    memory.or_else(group).or_else(processes)
}

/// Looks for the limit by what the process has already (`/proc/self/statm`).
fn memory_near(statm: &str, limit: impl Fn(Resource) -> Option<u64>) -> Option<Near> {
    let fields: Vec<u64> = statm.split_whitespace().map_while(|pages| pages.parse().ok()).collect();
    let page = rustix::param::page_size() as u64;
    PAGES_OF.into_iter().find_map(|(field, resource)| {
        let used = fields.get(field)?.saturating_mul(page);
        (used.saturating_add(THREAD_BYTES) > limit(resource)?).then_some(Near::Limit(resource))
    })
}

/// Looks for a full group in the version 2 hierarchy, where it is mounted in the usual place.
fn group_full(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<Near> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Path::new(group).ancestors().find_map(|group| {
        let dir = Path::new("/sys/fs/cgroup").join(group);
        let number = |file: &str| read(&dir.join(file))?.trim().parse::<u64>().ok();
        let most = number("pids.max")?;
        (number("pids.current")? >= most).then_some(Near::Group { most })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_that_is_reached_is_the_one_that_is_named() {
        let limits = |of: Resource, value| move |resource| (resource == of).then_some(value);
        // This process has 100,000 pages of addresses, and 1,000 of data.
        let statm = "100000 500 300 10 0 1000 0";
        let page = rustix::param::page_size() as u64;
        let near = |of, value| memory_near(statm, limits(of, value));
        assert_eq!(near(Resource::As, 100_001 * page), Some(Near::Limit(Resource::As)));
        assert_eq!(near(Resource::As, 1 << 40), None);
        assert_eq!(near(Resource::Data, 1_001 * page), Some(Near::Limit(Resource::Data)));
        assert_eq!(near(Resource::Data, 1 << 40), None);
        assert_eq!(memory_near("", |_| Some(1)), None);
    }

    #[test]
    fn a_group_that_is_full_is_found_above_this_one() {
        let read = |path: &Path| {
            let text = match path.to_str()? {
                "/sys/fs/cgroup/a/b/pids.max" => "max",
                "/sys/fs/cgroup/a/b/pids.current" => "7",
                "/sys/fs/cgroup/a/pids.max" => "20",
                "/sys/fs/cgroup/a/pids.current" => "20",
                _ => return None,
            };
            Some(format!("{text}\n"))
        };
        assert_eq!(group_full("1:x:/y\n0::/a/b\n", read), Some(Near::Group { most: 20 }));
        assert_eq!(group_full("0::/c\n", read), None);
        assert_eq!(group_full("", read), None);
    }
}
