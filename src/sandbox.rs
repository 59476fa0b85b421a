//! The second wall, around the processes that run and compile modules: how much of it is
//! [demanded](SandboxPolicy), how much [stands](SandboxReport), and [attacks](Doctor) on it.

pub use crate::doctor::{AttackReport, DoctorReport};
pub use crate::host::doctor::Doctor;
#[doc(inline)]
pub use proto::policy::{LayerReport, SandboxLayer, SandboxPolicy, SandboxReport};
#[doc(inline)]
pub use proto::preopen::DirAccess;
#[doc(inline)]
pub use proto::probe::AttackOutcome;
