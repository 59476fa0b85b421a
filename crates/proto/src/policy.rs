//! The second wall: what it is made of, how much of it is asked for, and how much of it
//! stands. Vocabulary, no behaviour; the wall itself is `sandbox`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::text::Name;

/// Says how much of the operating system's sandbox around workers and compilers is demanded.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, postcard_schema::Schema,
)]
#[non_exhaustive]
pub enum SandboxPolicy {
    /// Every layer; a process that cannot apply one of them does not serve.
    Strict,
    /// Every layer that the system offers. [`Seccomp`](SandboxLayer::Seccomp) and
    /// [`NoNewPrivileges`](SandboxLayer::NoNewPrivileges) must be among them: a process that
    /// cannot apply these does not serve.
    #[default]
    BestEffort,
    /// This leaves only what keeps the processes tidy: their own session, no inherited descriptors, no core dumps,
    /// no new privileges. What escapes from WebAssembly then has the host's rights.
    Off,
}

impl SandboxPolicy {
    /// Returns whether a process serves without this layer, should it be refused.
    pub fn can_do_without(self, layer: SandboxLayer) -> bool {
        match self {
            SandboxPolicy::Strict => false,
            SandboxPolicy::BestEffort => {
                !matches!(layer, SandboxLayer::Seccomp | SandboxLayer::NoNewPrivileges)
            }
            SandboxPolicy::Off => true,
        }
    }
}

impl fmt::Display for SandboxPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SandboxPolicy::Strict => "strict",
            SandboxPolicy::BestEffort => "best-effort",
            SandboxPolicy::Off => "off",
        })
    }
}

/// One layer of the sandbox, in about the order in which they are applied.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, postcard_schema::Schema,
)]
#[non_exhaustive]
pub enum SandboxLayer {
    /// Limits on memory, processes and CPU by a cgroup of version 2, applied by the host.
    Cgroup,
    /// A session of its own, no signal blocked, umask 077, killed when the host's thread ends.
    Session,
    /// The process has no descriptor but the control socket, `/dev/null` and the pipe to the host's log.
    Descriptors,
    /// The kernel's out-of-memory killer takes it before the host.
    OomScore,
    /// `RLIMIT_CORE`, `_NOFILE`, `_DATA`, `_FSIZE`, `_NPROC` and others.
    ResourceLimits,
    /// Another user and group; possible for root only.
    Identity,
    /// A user, network and IPC namespace of its own: no network devices, no System V objects.
    Namespaces,
    /// A mount namespace whose root is an empty, read-only directory. It takes root, or the rights that
    /// come with [`Namespaces`](Self::Namespaces): for an ordinary user there is none without them.
    EmptyRoot,
    /// The process has no capability, not even in its own user namespace, and an empty bounding set, where there
    /// was the right to empty it: for root, or with [`Namespaces`](Self::Namespaces).
    Capabilities,
    /// `PR_SET_NO_NEW_PRIVS`: no set-uid program gives anything back. To leave it out has no effect where
    /// [`Landlock`](Self::Landlock) or [`Seccomp`](Self::Seccomp) stands, neither of which can do without: it
    /// is then reported as applied, though nobody asked.
    NoNewPrivileges,
    /// The process is not dumpable: nobody of the same user attaches to it or reads its memory.
    NotDumpable,
    /// Landlock: no file by path, no TCP port, no signal or abstract socket beyond itself.
    Landlock,
    /// Seccomp: every system call that is not on a short list ends the process.
    Seccomp,
}

impl SandboxLayer {
    /// All of them.
    pub const ALL: [SandboxLayer; 13] = [
        SandboxLayer::Cgroup,
        SandboxLayer::Session,
        SandboxLayer::Descriptors,
        SandboxLayer::OomScore,
        SandboxLayer::ResourceLimits,
        SandboxLayer::Identity,
        SandboxLayer::Namespaces,
        SandboxLayer::EmptyRoot,
        SandboxLayer::Capabilities,
        SandboxLayer::NoNewPrivileges,
        SandboxLayer::NotDumpable,
        SandboxLayer::Landlock,
        SandboxLayer::Seccomp,
    ];

    /// Returns the layer's name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            SandboxLayer::Cgroup => "cgroup",
            SandboxLayer::Session => "session",
            SandboxLayer::Descriptors => "descriptors",
            SandboxLayer::OomScore => "oom-score",
            SandboxLayer::ResourceLimits => "rlimits",
            SandboxLayer::Identity => "identity",
            SandboxLayer::Namespaces => "namespaces",
            SandboxLayer::EmptyRoot => "empty-root",
            SandboxLayer::Capabilities => "capabilities",
            SandboxLayer::NoNewPrivileges => "no-new-privs",
            SandboxLayer::NotDumpable => "not-dumpable",
            SandboxLayer::Landlock => "landlock",
            SandboxLayer::Seccomp => "seccomp",
        }
    }

    /// Returns whether it can be left out: the others are what any well-kept child does.
    pub fn is_optional(self) -> bool {
        !matches!(self, SandboxLayer::Session | SandboxLayer::Descriptors)
    }

    /// Returns whether it belongs to a sandbox at all, or to good order even without one.
    pub fn is_kept_when_off(self) -> bool {
        matches!(
            self,
            SandboxLayer::Session
                | SandboxLayer::Descriptors
                | SandboxLayer::OomScore
                | SandboxLayer::NoNewPrivileges
                | SandboxLayer::NotDumpable
        )
    }
}

impl fmt::Display for SandboxLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Holds what became of one layer in one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
#[non_exhaustive]
pub struct LayerReport {
    /// The layer that this is about.
    pub layer: SandboxLayer,
    /// Says whether it was asked for.
    pub requested: bool,
    /// Says whether it stands.
    pub applied: bool,
    /// Says whether a throw-away child under the same code path tried the attacks that this layer is against, and
    /// all of them failed; `None` if nobody tried.
    pub verified: Option<bool>,
    /// Says what exactly was applied, or why it was not.
    pub reason: String,
}

/// Says how one worker or compiler process locked itself down, layer by layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
#[non_exhaustive]
pub struct SandboxReport {
    /// Says what was demanded.
    pub policy: SandboxPolicy,
    /// Every layer, in the order of [`SandboxLayer::ALL`].
    pub layers: Vec<LayerReport>,
}

/// Says what became of a layer when a process locked itself down.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerState {
    Applied,
    /// It was asked for, and does not stand.
    Refused,
    /// Nobody asked for it, or it does not exist for this process.
    NotRequested,
}

impl LayerReport {
    /// Reports a layer that nobody has tried to get through yet.
    #[doc(hidden)]
    pub fn new(layer: SandboxLayer, state: LayerState, reason: String) -> LayerReport {
        LayerReport {
            layer,
            requested: state != LayerState::NotRequested,
            applied: state == LayerState::Applied,
            verified: None,
            reason,
        }
    }
}

impl SandboxReport {
    #[doc(hidden)]
    pub fn new(policy: SandboxPolicy, layers: Vec<LayerReport>) -> SandboxReport {
        SandboxReport { policy, layers }
    }

    /// Returns what became of this layer.
    pub fn layer(&self, layer: SandboxLayer) -> Option<&LayerReport> {
        self.layers.iter().find(|report| report.layer == layer)
    }

    /// Returns whether this layer stands.
    pub fn has(&self, layer: SandboxLayer) -> bool {
        self.layer(layer).is_some_and(|report| report.applied)
    }

    /// The layers that were asked for and do not stand.
    pub fn missing(&self) -> impl Iterator<Item = &LayerReport> {
        self.layers.iter().filter(|report| report.requested && !report.applied)
    }

    /// Holds a report that came over a wire to its bounds: each layer once, texts of a line.
    pub fn is_well_formed(&self) -> bool {
        let mut layers: Vec<_> = self.layers.iter().map(|report| report.layer).collect();
        layers.sort_unstable();
        layers.windows(2).all(|pair| pair[0] != pair[1])
            && self.layers.iter().all(|report| report.reason.len() <= limits::GUEST_TEXT_BYTES_MAX)
    }
}

/// A table: one line a layer.
impl fmt::Display for SandboxReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<14} {:<9} {:<7} {:<8} reason", "layer", "requested", "applied", "verified")?;
        for report in &self.layers {
            let word = |yes: bool| if yes { "yes" } else { "no" };
            let verified = report.verified.map_or("-", word);
            let requested = word(report.requested);
            let applied = word(report.applied);
            let LayerReport { layer, reason, .. } = report;
            writeln!(f, "{layer:<14} {requested:<9} {applied:<7} {verified:<8} {}", Name(reason))?;
        }
        Ok(())
    }
}

/// Holds what the host asks of a child, with its first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
pub struct SandboxRequest {
    pub policy: SandboxPolicy,
    /// Layers that the caller does without, whatever the policy.
    pub without: Vec<SandboxLayer>,
    /// The worker becomes this user and group if the host is root.
    pub identity: (u32, u32),
    /// `RLIMIT_DATA`: private writable memory of the whole process.
    pub memory_bytes_max: u64,
    /// Says what the host itself has done, before it started the child.
    pub cgroup: Option<LayerReport>,
}

impl SandboxRequest {
    pub fn requests(&self, layer: SandboxLayer) -> bool {
        let is_requested = self.policy != SandboxPolicy::Off || layer.is_kept_when_off();
        is_requested
            && layer != SandboxLayer::Cgroup
            && !(layer.is_optional() && self.without.contains(&layer))
    }
}

impl SandboxRequest {
    /// Returns why nothing is to be started, where a group was asked for that the policy does not do without.
    pub fn refused_cgroup(&self) -> Option<String> {
        let report = self.cgroup.as_ref()?;
        let missing = report.requested && !report.applied;
        let demanded = !self.policy.can_do_without(SandboxLayer::Cgroup);
        (missing && demanded).then(|| {
            format!(
                "the sandbox's layer `cgroup` cannot be applied: {}; policy `{}`",
                report.reason, self.policy
            )
        })
    }
}

impl Default for SandboxRequest {
    fn default() -> Self {
        SandboxRequest {
            policy: SandboxPolicy::default(),
            without: Vec::new(),
            identity: (limits::WORKER_UID, limits::WORKER_UID),
            memory_bytes_max: limits::WORKER_MEMORY_BYTES_MAX,
            cgroup: None,
        }
    }
}
