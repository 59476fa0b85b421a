//! The results of `doctor`: how a worker locks itself down here, and how attacks on that ended. It holds
//! vocabulary, and no behaviour; the attacks are `sandbox::attacks`, and their host is `host::doctor`.

use serde::{Deserialize, Serialize};

use proto::policy::{SandboxLayer, SandboxReport};
use proto::probe::AttackOutcome;

/// One attack and its outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AttackReport {
    /// Its name.
    pub name: String,
    /// It tries this.
    pub tries: String,
    /// The layers that are there to stop it.
    pub against: Vec<SandboxLayer>,
    /// Its outcome.
    pub outcome: AttackOutcome,
}

/// The findings of [`Doctor::run`](crate::sandbox::Doctor::run).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DoctorReport {
    /// The layers, with [`verified`](crate::sandbox::LayerReport::verified) filled in: a layer that stands is
    /// verified if every attack that it is there to stop came to nothing while it stood.
    pub sandbox: SandboxReport,
    /// Every attack.
    pub attacks: Vec<AttackReport>,
    /// Facts of this system that decide about layers: name and value.
    pub system: Vec<(String, String)>,
}

impl DoctorReport {
    /// The attacks that did not come to nothing, though a layer that stands is there to stop them.
    pub fn holes(&self) -> impl Iterator<Item = &AttackReport> {
        self.attacks.iter().filter(|attack| {
            !attack.outcome.failed() && attack.against.iter().any(|layer| self.sandbox.has(*layer))
        })
    }

    /// The attacks that succeeded, whatever was there to stop them.
    pub fn succeeded(&self) -> impl Iterator<Item = &AttackReport> {
        self.attacks.iter().filter(|attack| matches!(attack.outcome, AttackOutcome::Succeeded(_)))
    }
}
