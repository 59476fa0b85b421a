//! Cgroups of version 2: one group a worker, where somebody has delegated a group above them.
//!
//! It is the only layer that the host puts up, since a process may not join a group that it is
//! to be held by; the child waits for its first message meanwhile. What a group adds to the
//! child's own limits: memory that `RLIMIT_DATA` does not count, and a death that says that it
//! was for want of memory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::DeathCause;
use proto::kernel::kernel_text;
use proto::policy::{LayerReport, LayerState, SandboxLayer};

/// Most processes and threads in a worker's group, and in a compiler's.
const PIDS_MAX: u64 = 64;

/// Says where the groups of workers are made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum CgroupChoice {
    /// It is made beside the host's own group, if systemd has marked the group above as delegated.
    #[default]
    Auto,
    /// The groups are made in this directory.
    Dir(PathBuf),
    Off,
}

/// The group above the children's, and what every group is limited to.
#[derive(Debug)]
pub(crate) struct Cgroups {
    parent: Result<PathBuf, String>,
    is_requested: bool,
    memory_bytes_max: u64,
}

/// The group of one child; removed when it is dropped, which is after the child was reaped.
#[derive(Debug)]
pub(crate) struct Group {
    dir: PathBuf,
    memory_bytes_max: u64,
}

impl Cgroups {
    pub(crate) fn new(choice: &CgroupChoice, memory_bytes_max: u64) -> Cgroups {
        let (parent, is_requested) = match choice {
            CgroupChoice::Off => (Err("not asked for".into()), false),
            CgroupChoice::Dir(dir) => (Ok(dir.clone()), true),
            CgroupChoice::Auto => (delegated(), false),
        };
        Cgroups { parent, is_requested, memory_bytes_max }
    }

    /// Puts a worker into a group of its own, and reports whether that succeeded.
    pub(crate) fn hold(&self, name: &str, pid: u32) -> (Option<Group>, LayerReport) {
        self.hold_to(self.memory_bytes_max, name, pid)
    }

    /// Does the same as [`hold`](Self::hold), with another limit.
    pub(crate) fn hold_to(
        &self,
        memory_bytes_max: u64,
        name: &str,
        pid: u32,
    ) -> (Option<Group>, LayerReport) {
        let report = |state, reason| LayerReport::new(SandboxLayer::Cgroup, state, reason);
        let parent = match &self.parent {
            Ok(parent) => parent,
            Err(why) => {
                let state = if self.is_requested { LayerState::Refused } else { LayerState::NotRequested };
                return (None, report(state, why.clone()));
            }
        };
        let group = Group { dir: parent.join(name), memory_bytes_max };
        match group.set_up(pid) {
            Ok(what) => (Some(group), report(LayerState::Applied, what)),
            // A group that is not complete is removed.
            Err(error) => (None, report(LayerState::Refused, error.to_string())),
        }
    }
}

impl Group {
    fn set_up(&self, pid: u32) -> io::Result<String> {
        match fs::create_dir(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(named(&self.dir, &error));
            }
            _ => {}
        }
        self.write("memory.max", self.memory_bytes_max)?;
        self.write("pids.max", PIDS_MAX)?;
        // A system without swap has no such file. With swap, the group could hide memory in it.
        let swap = self.write("memory.swap.max", 0).is_ok();
        self.write("cgroup.procs", pid.into())?;
        let swap = if swap { ", no swap" } else { "" };
        Ok(format!("memory {} MiB{swap}, {PIDS_MAX} pids", self.memory_bytes_max >> 20))
    }

    fn write(&self, file: &str, value: u64) -> io::Result<()> {
        let path = self.dir.join(file);
        fs::write(&path, value.to_string()).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => io::Error::other(format!(
                "{}: {error}; is its controller enabled in the cgroup.subtree_control above?",
                path.display()
            )),
            _ => named(&path, &error),
        })
    }

    /// Returns whether the kernel has killed somebody in this group for want of memory.
    pub(crate) fn out_of_memory(&self) -> Option<DeathCause> {
        let events = fs::read_to_string(self.dir.join("memory.events")).ok()?;
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
        let killed = kills.trim().parse::<u64>().is_ok_and(|kills| kills > 0);
        killed.then_some(DeathCause::OutOfMemory { limit_bytes: self.memory_bytes_max })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A group that still holds somebody stays; its limits go on holding them.
        let _ = fs::remove_dir(&self.dir);
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

/// The group above this process's own, if it is ours to make groups in.
fn delegated() -> Result<PathBuf, String> {
    let nowhere = |why: &str| format!("no delegated cgroup: {why}");
    let groups = kernel_text("/proc/self/cgroup").map_err(|error| nowhere(&error.to_string()))?;
    let mounts = kernel_text("/proc/self/mountinfo").map_err(|error| nowhere(&error.to_string()))?;
    let own = own_group(&groups).ok_or_else(|| nowhere("this process is in none of version 2"))?;
    let mount = mount_of_version_2(&mounts).ok_or_else(|| nowhere("version 2 is not mounted"))?;
    let above = Path::new(own).parent().ok_or_else(|| nowhere("this process is in the root group"))?;
    let dir = mount.join(above.strip_prefix("/").unwrap_or(above));
    let mut mark = [0; 8];
    match rustix::fs::getxattr(&dir, c"user.delegate", &mut mark) {
        Ok(len) if mark[..len] == *b"1" => Ok(dir),
        _ => Err(nowhere("the group above this process's is not marked as delegated; name one if it is")),
    }
}

/// The line of version 2 in /proc/self/cgroup: `0::/path`.
fn own_group(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| line.strip_prefix("0::"))
}

/// Returns where version 2 is mounted, by /proc/self/mountinfo: `… <mount point> … - cgroup2 …`.
fn mount_of_version_2(mounts: &str) -> Option<PathBuf> {
    let line = mounts
        .lines()
        .find(|line| line.split_once(" - ").is_some_and(|(_, after)| after.starts_with("cgroup2 ")))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_childs_group_is_limited_before_the_child_joins_it() {
        let parent = tempfile::tempdir().expect("a directory");
        let choice = CgroupChoice::Dir(parent.path().into());
        let (group, report) = Cgroups::new(&choice, 1 << 30).hold("w0", 4711);
        assert!(report.requested && report.applied, "{report:?}");
        let read = |file: &str| fs::read_to_string(parent.path().join("w0").join(file)).expect("reads");
        assert_eq!((read("memory.max"), read("cgroup.procs")), ((1u64 << 30).to_string(), "4711".into()));
        let group = group.expect("a group");
        assert_eq!(group.out_of_memory(), None);
        fs::write(parent.path().join("w0/memory.events"), "low 0\noom 1\noom_kill 1\n").expect("writes");
        assert_eq!(group.out_of_memory(), Some(DeathCause::OutOfMemory { limit_bytes: 1 << 30 }));
    }

    #[test]
    fn a_place_that_is_none_is_reported_and_nothing_is_left() {
        let choice = CgroupChoice::Dir("/proc/nowhere".into());
        let (group, report) = Cgroups::new(&choice, 1 << 30).hold("w0", 4711);
        assert!(group.is_none() && report.requested && !report.applied);
        assert!(report.reason.contains("/proc/nowhere/w0"), "{}", report.reason);
    }

    #[test]
    fn the_group_and_the_mount_are_found_in_what_the_kernel_prints() {
        let hybrid = "12:memory:/a\n0::/user.slice/unit/host\n";
        assert_eq!(own_group(hybrid), Some("/user.slice/unit/host"));
        assert_eq!(own_group("12:memory:/a\n"), None);
        let mounts = "24 1 0:22 / /proc rw - proc proc rw\n\
                      31 24 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_of_version_2(mounts), Some("/sys/fs/cgroup/unified".into()));
    }
}
