//! How a module is compiled.

use serde::{Deserialize, Serialize};

/// What is compiled into machine code besides the module itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum CodeKind {
    Plain,
    /// Counts fuel.
    Metered,
    /// Counts fuel, and gives every NaN the same bits.
    Deterministic,
}

impl CodeKind {
    pub(crate) const ALL: [CodeKind; 3] = [CodeKind::Plain, CodeKind::Metered, CodeKind::Deterministic];

    pub(super) fn of(metered: bool, deterministic: bool) -> Self {
        match (metered, deterministic) {
            (_, true) => CodeKind::Deterministic,
            (true, false) => CodeKind::Metered,
            (false, false) => CodeKind::Plain,
        }
    }

    pub(crate) fn is_metered(self) -> bool {
        self != CodeKind::Plain
    }

    pub(crate) fn is_deterministic(self) -> bool {
        self == CodeKind::Deterministic
    }

    /// As part of a file's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            CodeKind::Plain => "plain",
            CodeKind::Metered => "metered",
            CodeKind::Deterministic => "deterministic",
        }
    }
}

/// Whose linear memories the instances of a module have. It shapes the machine code, and so is decided
/// when the module is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum MemoryKind {
    /// Of the engine's pool: copied on write from an image of the data segments.
    Pooled,
    /// The worker's own: zeroed and used again, and the data segments are copied.
    Own,
}

impl MemoryKind {
    pub(crate) const ALL: [MemoryKind; 2] = [MemoryKind::Pooled, MemoryKind::Own];
}
