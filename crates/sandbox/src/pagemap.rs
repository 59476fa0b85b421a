//! Decides where instances may be reset by a scan of the page map.
//!
//! The scan asks the kernel for the pages that are present and written. A page that was swapped
//! out is written, but not present: it is passed over, and the next instance reads what the last
//! one left there. So the pool refuses the scan unless swap cannot happen, and where it cannot
//! tell, it refuses as well. Of a page that the kernel is about to move the same is true, and
//! nothing rules that out: hence the scan is not for tasks that must not see each other.
//! (Swap, as seen upstream: <https://github.com/bytecodealliance/wasmtime/pull/14357>.)

use std::path::Path;

use proto::kernel::kernel_text;

/// The first kernel with `PAGEMAP_SCAN`:
/// <https://www.man7.org/linux/man-pages/man2/PAGEMAP_SCAN.2const.html>.
const KERNEL_MIN: (u32, u32) = (6, 7);

/// Returns why the workers of this process may not scan; `None` if they may.
pub fn objection() -> Option<String> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    too_old(&release).or_else(|| {
        let read = |path: &str| kernel_text(path).ok();
        swap_is_possible(read("/proc/swaps").as_deref(), read("/proc/self/cgroup").as_deref(), |cgroup| {
            read(&Path::new("/sys/fs/cgroup").join(cgroup).join("memory.swap.max").to_string_lossy())
        })
    })
}

fn too_old(release: &str) -> Option<String> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
    let version = (numbers.next().flatten().unwrap_or(0), numbers.next().flatten().unwrap_or(0));
    let (major, minor) = KERNEL_MIN;
    (version < KERNEL_MIN).then(|| format!("it needs Linux {major}.{minor}, and this is {release}"))
}

/// Returns why a page of a process in these cgroups may be swapped out; `None` if none may.
///
/// `swaps` is /proc/swaps, `cgroups` is /proc/self/cgroup, and `swap_max` reads the file
/// memory.swap.max of a cgroup of version 2. What cannot be read is no proof of anything.
fn swap_is_possible(
    swaps: Option<&str>,
    cgroups: Option<&str>,
    swap_max: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let Some(swaps) = swaps else { return Some("/proc/swaps cannot be read".into()) };
    let mut lines = swaps.lines().filter(|line| !line.trim().is_empty());
    if !lines.next().is_some_and(|line| line.starts_with("Filename")) {
        return Some("/proc/swaps is not as it should be".into());
    }
    let device = lines.next()?.split_whitespace().next().unwrap_or("a device");
    let because = |what: &str| Some(format!("{device} is in use for swap, and {what}"));
    let Some(cgroups) = cgroups else { return because("/proc/self/cgroup cannot be read") };
    // Each line has a hierarchy, its controllers and a path. Version 2 has the hierarchy 0 and no controllers.
    let mut unified = None;
    for line in cgroups.lines() {
        let mut parts = line.splitn(3, ':');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("0"), Some(""), Some(path)) => unified = Some(path),
            // Its limits are for what the cgroup itself swaps, or for memory and swap together:
            // under pressure from elsewhere the kernel swaps out its pages all the same.
            (Some(_), Some(controllers), Some(_)) if controllers.split(',').any(|name| name == "memory") => {
                return because("no limit of a memory cgroup of version 1 excludes that");
            }
            (Some(_), Some(_), Some(_)) => {}
            _ => return because("/proc/self/cgroup is not as it should be"),
        }
    }
    let Some(path) = unified else { return because("this process is in no cgroup of version 2") };
    // This cgroup is outside of the cgroup namespace, and so not where the path says.
    if path.split('/').any(|name| name == "..") {
        return because("its cgroup lies outside of its cgroup namespace");
    }
    let path = path.trim_matches('/');
    let ends = path.match_indices('/').map(|(at, _)| at).chain([0, path.len()]);
    // The limit of any cgroup above holds as well.
    for end in ends {
        if swap_max(&path[..end]).is_some_and(|max| max.trim() == "0") {
            return None;
        }
    }
    because("memory.swap.max is 0 for no cgroup that this process is in")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_SWAPS: &str = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
    const ONE_SWAP: &str = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/dev/zram0 partition 8 0 100\n";

    fn with_limits(cgroups: &str, limits: &[(&str, &str)]) -> Option<String> {
        swap_is_possible(Some(ONE_SWAP), Some(cgroups), |cgroup| {
            limits.iter().find(|(name, _)| *name == cgroup).map(|(_, max)| max.to_string())
        })
    }

    #[test]
    fn without_a_swap_device_nothing_is_swapped_out_whatever_the_cgroups_are() {
        for cgroups in [None, Some(""), Some("0::/\n"), Some("4:memory:/x\n"), Some("junk")] {
            assert_eq!(swap_is_possible(Some(NO_SWAPS), cgroups, |_| None), None, "{cgroups:?}");
            assert_eq!(swap_is_possible(Some(NO_SWAPS.trim_end()), cgroups, |_| None), None);
        }
    }

    #[test]
    fn what_cannot_be_read_is_no_proof() {
        for swaps in [None, Some(""), Some("\n"), Some("/dev/sda2 partition 1 0 -2\n")] {
            let says = swap_is_possible(swaps, Some("0::/a\n"), |_| Some("0".into()));
            assert!(says.is_some_and(|says| says.contains("/proc/swaps")), "{swaps:?}");
        }
        let says = swap_is_possible(Some(ONE_SWAP), None, |_| Some("0".into()));
        assert!(says.is_some_and(|says| says.contains("/dev/zram0") && says.contains("/proc/self/cgroup")));
        for cgroups in ["junk", "0:x", "0::/a\njunk\n"] {
            assert!(with_limits(cgroups, &[("a", "0")]).is_some(), "{cgroups}");
        }
        assert!(with_limits("", &[("", "0")]).is_some_and(|says| says.contains("no cgroup of version 2")));
        assert!(with_limits("1:name=systemd:/a\n", &[("a", "0")]).is_some());
    }

    #[test]
    fn a_limit_of_0_on_the_cgroup_or_above_it_excludes_swap() {
        let cgroups = "1:name=systemd:/else\n0::/system.slice/pool.service/workers\n";
        assert!(with_limits(cgroups, &[]).is_some_and(|says| says.contains("memory.swap.max")));
        for at in ["", "system.slice", "system.slice/pool.service", "system.slice/pool.service/workers"] {
            assert_eq!(with_limits(cgroups, &[(at, "0\n")]), None, "{at}");
            for other in ["max\n", "4096\n", "", "00"] {
                assert!(with_limits(cgroups, &[(at, other)]).is_some(), "{at}: {other:?}");
            }
        }
        for elsewhere in ["system", "else", "workers", "pool.service"] {
            assert!(with_limits(cgroups, &[(elsewhere, "0")]).is_some(), "{elsewhere}");
        }
        assert_eq!(with_limits("0::/\n", &[("", "0")]), None, "the root of a container");
    }

    #[test]
    fn version_1_and_foreign_namespaces_exclude_nothing() {
        for cgroups in ["4:memory:/a\n0::/a\n", "0::/a\n4:cpu,memory:/a\n", "4:memory:/a\n"] {
            assert!(with_limits(cgroups, &[("a", "0"), ("", "0")]).is_some(), "{cgroups}");
        }
        assert_eq!(with_limits("4:cpu,cpuacct:/a\n0::/a\n", &[("a", "0")]), None, "memory is version 2's");
        assert!(with_limits("0::/../a\n", &[("", "0"), ("..", "0"), ("../a", "0")]).is_some());
    }

    #[test]
    fn kernels_before_6_7_do_not_scan() {
        for old in ["6.6.99-generic", "5.15.0", "4.4", "junk", "", "6"] {
            assert!(too_old(old).is_some(), "{old}");
        }
        for new in ["6.7.0", "6.18.44-fc", "7.0-rc1", "10.1"] {
            assert_eq!(too_old(new), None, "{new}");
        }
    }
}
