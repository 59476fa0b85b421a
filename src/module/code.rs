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
