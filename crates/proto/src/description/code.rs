//! The choices by which a module is compiled.

use serde::{Deserialize, Serialize};

/// Says how a running task of a module is stopped: at its deadline, or when it is aborted.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, postcard_schema::Schema,
)]
#[non_exhaustive]
pub enum Interrupt {
    /// Its code reads a page of memory at every loop and call. To stop it, the page's access rights are taken away: it
    /// ends within microseconds, and its worker goes on. Metered modules look at a counter instead.
    #[default]
    Check,
    /// Its code is compiled without that, which saves a load in each turn of a loop. To stop it, its worker
    /// is killed and replaced: the milliseconds of a worker's start, for each task that is stopped. What waited
    /// behind it goes to other workers, and nothing counts as a crash. This has no effect on modules that are
    /// metered: they look at their fuel.
    Kill,
}

/// Says what is compiled into machine code besides the module itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, postcard_schema::Schema)]
pub enum CodeKind {
    Plain,
    /// Does not look whether it is to stop.
    Unchecked,
    /// Counts fuel.
    Metered,
    /// Counts fuel, and gives every NaN the same bits.
    Deterministic,
}

impl CodeKind {
    pub const ALL: [CodeKind; 4] =
        [CodeKind::Plain, CodeKind::Unchecked, CodeKind::Metered, CodeKind::Deterministic];

    pub fn of(metered: bool, deterministic: bool, interrupt: Interrupt) -> Self {
        match (metered, deterministic, interrupt) {
            (_, true, _) => CodeKind::Deterministic,
            (true, false, _) => CodeKind::Metered,
            (false, false, Interrupt::Check) => CodeKind::Plain,
            (false, false, Interrupt::Kill) => CodeKind::Unchecked,
        }
    }

    pub fn is_metered(self) -> bool {
        matches!(self, CodeKind::Metered | CodeKind::Deterministic)
    }

    pub fn interrupt(self) -> Interrupt {
        if self == CodeKind::Unchecked { Interrupt::Kill } else { Interrupt::Check }
    }

    pub fn is_deterministic(self) -> bool {
        self == CodeKind::Deterministic
    }

    /// Returns whether its code reads a polling page, by which its tasks are stopped. Metered code looks at the
    /// engine's epoch instead, where it counts fuel anyway: what a safepoint adds would count as fuel.
    pub fn has_safepoints(self) -> bool {
        self == CodeKind::Plain
    }

    /// Returns its name as a part of a file's name.
    pub fn name(self) -> &'static str {
        match self {
            CodeKind::Plain => "plain",
            CodeKind::Unchecked => "unchecked",
            CodeKind::Metered => "metered",
            CodeKind::Deterministic => "deterministic",
        }
    }
}

/// The owner of the linear memories that a module's instances have. It shapes the machine code, and so is
/// decided when the module is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, postcard_schema::Schema)]
pub enum MemoryKind {
    /// They come from the engine's pool, copied on write from an image of the data segments.
    Pooled,
    /// The worker's own: zeroed and used again, and the data segments are copied.
    Own,
}

impl MemoryKind {
    pub const ALL: [MemoryKind; 2] = [MemoryKind::Pooled, MemoryKind::Own];
}
