//! Compares what /proc shows of a worker with what the worker says of itself.

use std::fs;
use std::path::PathBuf;

use wasmpool::sandbox::{LayerReport, SandboxLayer, SandboxReport};

/// Seccomp filters that a worker installs.
const FILTERS: u64 = 1;

/// Reads about one process; what may not be read is `None`.
struct Process(String);

impl Process {
    fn path(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.0))
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap_or_else(|error| panic!("/proc/{}/{file}: {error}", self.0))
    }

    /// A line of `status`, without its name.
    fn status(&self, name: &str) -> String {
        let status = self.read("status");
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_string()
    }

    fn number(&self, name: &str) -> u64 {
        self.status(name).parse().expect("a number")
    }

    fn capabilities(&self, name: &str) -> u64 {
        u64::from_str_radix(&self.status(name), 16).expect("a mask")
    }

    /// The soft and the hard limit of a line of `limits`.
    fn limit(&self, name: &str) -> (String, String) {
        let limits = self.read("limits");
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect("has the line");
        let mut values = line.split_whitespace().map(str::to_string);
        (values.next().expect("a soft one"), values.next().expect("a hard one"))
    }

    /// Only whoever might attach to the process may read it.
    fn namespace(&self, name: &str) -> Option<PathBuf> {
        fs::read_link(self.path(&format!("ns/{name}"))).ok()
    }

    fn session(&self) -> String {
        let stat = self.read("stat");
        let after_name = stat.rsplit(") ").next().expect("a name");
        after_name.split(' ').nth(3).expect("a session").to_string()
    }
}

/// Each layer that is said to stand does, and each that is said not to does not, as far as this process
/// may look.
pub(crate) fn holds(pid: u32, report: &SandboxReport) {
    // A filter on this thread plays a system without the layer.
    let worker = Process(pid.to_string());
    let own = Process("thread-self".into());
    for layer in SandboxLayer::ALL {
        let said = report.layer(layer).unwrap_or_else(|| panic!("no {layer} in\n{report}"));
        assert!(!said.reason.is_empty(), "{said:?}");
        let shown = shown(&worker, &own, said, report);
        assert!(shown.is_none_or(|shown| shown == said.applied), "{layer}: it is not as {said:?}\n{report}");
    }
}

/// Returns whether the layer is seen to stand; `None` where that cannot be seen.
fn shown(worker: &Process, own: &Process, said: &LayerReport, report: &SandboxReport) -> Option<bool> {
    let applied = said.applied;
    match said.layer {
        // Written to no group of this system's: then it is in that of its host.
        SandboxLayer::Cgroup => (!applied).then(|| worker.read("cgroup") != own.read("cgroup")),
        SandboxLayer::Session => Some(worker.session() == worker.0),
        SandboxLayer::Descriptors => {
            let open = fs::read_dir(worker.path("fd")).ok()?;
            let targets = open.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
            Some(!targets.into_iter().any(|target| target.ends_with(super::LEAKED)))
        }
        SandboxLayer::OomScore => Some(worker.read("oom_score_adj").trim() == "500"),
        SandboxLayer::ResourceLimits => Some(limited(worker, own, applied)),
        SandboxLayer::Identity => {
            let is_other = worker.status("Uid") != own.status("Uid");
            if applied {
                assert_eq!(worker.status("Uid"), "65534\t65534\t65534\t65534");
                assert_eq!(worker.status("Gid"), "65534\t65534\t65534\t65534");
                assert_eq!(worker.status("Groups"), "");
            }
            Some(is_other)
        }
        SandboxLayer::Namespaces => {
            let differs = |name| Some(worker.namespace(name)? != own.namespace(name)?);
            let differ: Option<Vec<_>> = ["user", "net", "ipc"].into_iter().map(differs).collect();
            let differ = differ?;
            assert!(differ.iter().all(|each| *each == differ[0]), "in part: {differ:?}");
            Some(differ[0])
        }
        SandboxLayer::EmptyRoot => {
            let is_empty = fs::read_dir(worker.path("root")).ok()?.next().is_none();
            assert!(!is_empty || worker.namespace("mnt")? != own.namespace("mnt")?);
            Some(is_empty)
        }
        SandboxLayer::Capabilities => capabilities(worker, own, said, report),
        SandboxLayer::NoNewPrivileges => Some(worker.number("NoNewPrivs") == 1),
        SandboxLayer::NotDumpable => {
            use std::os::unix::fs::MetadataExt;
            // The process's files belong to root if it is not dumpable. A change of the user has the same
            // effect.
            let owner = fs::metadata(worker.path("stat")).expect("is there").uid();
            let user: u32 = worker.status("Uid").split('\t').next()?.parse().expect("a number");
            (user != 0 && (applied || !report.has(SandboxLayer::Identity))).then_some(owner == 0)
        }
        // Nothing shows it: the doctor's attacks do.
        SandboxLayer::Landlock => None,
        SandboxLayer::Seccomp => {
            let filters = worker.number("Seccomp_filters") - own.number("Seccomp_filters");
            assert!(filters == 0 || filters == FILTERS, "{filters} filters");
            assert!(filters == 0 || worker.number("Seccomp") == 2);
            Some(filters == FILTERS)
        }
        other => panic!("nobody knows how {other} shows"),
    }
}

/// The limits of a worker whose host has no lower ones.
const LIMITS: [(&str, u64); 8] = [
    ("Max core file size", 0),
    ("Max open files", 704),
    ("Max stack size", 8 << 20),
    ("Max file size", 2 << 30),
    ("Max locked memory", 0),
    ("Max pending signals", 4 * 1024),
    ("Max realtime priority", 0),
    ("Max processes", 0),
];

/// Returns whether the limit is as it should be.
fn stands(worker: &Process, own: &Process, name: &str, value: u64) -> bool {
    let hard = own.limit(name).1.parse().unwrap_or(u64::MAX);
    let value = value.min(hard).to_string();
    worker.limit(name) == (value.clone(), value)
}

/// Checks that all limits but this one stand, and that it is the same as this process's.
pub(crate) fn limits_stand_but_for(pid: u32, name: &str) {
    let worker = Process(pid.to_string());
    let own = Process("thread-self".into());
    for (other, value) in LIMITS.iter().filter(|(other, _)| *other != name) {
        assert!(stands(&worker, &own, other, *value), "{other}: {:?}", worker.limit(other));
    }
    assert_eq!(worker.limit(name), own.limit(name));
    assert!(worker.limit("Max data size").1.parse::<u64>().is_ok_and(|bytes| bytes >> 30 == 4));
}

fn limited(worker: &Process, own: &Process, applied: bool) -> bool {
    let expected = LIMITS;
    let stand: Vec<_> = expected.map(|(name, value)| (name, stands(worker, own, name, value))).into();
    if applied {
        assert!(stand.iter().all(|(_, stands)| *stands), "in part: {stand:?}");
    } else {
        for name in expected.map(|(name, _)| name) {
            // The library for threads and the C library leave them alone.
            assert_eq!(worker.limit(name), own.limit(name), "{name}");
        }
    }
    let of_data = |process: &Process| process.limit("Max data size").1.parse().unwrap_or(u64::MAX);
    // The limit is the host's own, or lower.
    let max = 4 << 30;
    applied && of_data(worker) <= (max + (1 << 28)).min(of_data(own)) || of_data(worker) != of_data(own)
}

fn capabilities(worker: &Process, own: &Process, said: &LayerReport, report: &SandboxReport) -> Option<bool> {
    let sets = ["CapInh", "CapPrm", "CapEff", "CapAmb"].map(|name| worker.capabilities(name));
    let bounding = worker.capabilities("CapBnd");
    if said.applied {
        assert_eq!(said.reason.contains("bounding set empty"), bounding == 0, "{bounding:x}: {said:?}");
        let had_the_right = own.capabilities("CapEff") != 0 || report.has(SandboxLayer::Namespaces);
        assert_eq!(had_the_right, bounding == 0, "{bounding:x}: {said:?}");
        return Some(sets == [0; 4]);
    }
    // A change of user takes them, and a namespace gives them anew.
    let untouched = !report.has(SandboxLayer::Identity) && !report.has(SandboxLayer::Namespaces);
    if untouched {
        assert_eq!(worker.capabilities("CapEff"), own.capabilities("CapEff"));
        assert_eq!(bounding, own.capabilities("CapBnd"));
    }
    None
}
