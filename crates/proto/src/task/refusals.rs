//! The memory that a task asked for and did not get.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The requests of a task for memory, or room in tables, that were refused. Mostly there are none, which is then known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, postcard_schema::Schema)]
pub struct Refusals(Option<Box<Refused>>);

/// It is boxed because it is rare and large.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, postcard_schema::Schema)]
struct Refused {
    count: u64,
    first: Refusal,
    last: Refusal,
}

/// One refused request of a task for more memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, postcard_schema::Schema)]
#[non_exhaustive]
pub struct Refusal {
    /// The limit that it would have exceeded.
    pub kind: RefusalKind,
    /// Says what the task would have held: bytes of all its memories and tables together, or entries of a table.
    pub requested: u64,
    /// The limit, in the same unit.
    pub limit: u64,
    /// Says how long the task had run.
    pub after: Duration,
}

/// The reason why a task was refused memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, postcard_schema::Schema)]
#[non_exhaustive]
pub enum RefusalKind {
    /// `TaskOptions::memory_bytes_max`.
    Memory,
    /// [`TABLE_ELEMENTS_MAX`](limits::TABLE_ELEMENTS_MAX), for one table.
    Table,
    /// The worker process has none left, by its own limit (`PoolBuilder::worker_memory_bytes_max`) or the
    /// machine's.
    System,
}

impl Refusal {
    #[doc(hidden)]
    pub fn new(kind: RefusalKind, requested: u64, limit: u64, after: Duration) -> Refusal {
        Refusal { kind, requested, limit, after }
    }
}

impl RefusalKind {
    /// Returns its name as the command's tables and JSON have it.
    pub fn name(self) -> &'static str {
        match self {
            RefusalKind::Memory => "memory",
            RefusalKind::Table => "table",
            RefusalKind::System => "system",
        }
    }
}

impl Refusals {
    /// Returns the number of refusals.
    pub fn count(&self) -> u64 {
        // A worker that lies may give a first refusal and the number 0.
        self.0.as_ref().map_or(0, |refused| refused.count.max(1))
    }

    /// Returns whether nothing was refused.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Returns the first refusal.
    pub fn first(&self) -> Option<&Refusal> {
        self.0.as_ref().map(|refused| &refused.first)
    }

    /// Returns the last refusal.
    pub fn last(&self) -> Option<&Refusal> {
        self.0.as_ref().map(|refused| &refused.last)
    }

    pub fn add(&mut self, refusal: Refusal) {
        let first = || Box::new(Refused { count: 0, first: refusal, last: refusal });
        let refused = self.0.get_or_insert_with(first);
        refused.count += 1;
        refused.last = refusal;
    }
}

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.first() else { return f.write_str("no memory was refused") };
        let times = if self.count() == 1 { "once".into() } else { format!("{} times", self.count()) };
        let Refusal { requested, limit, after, .. } = first;
        match first.kind {
            RefusalKind::Memory => write!(
                f,
                "memory was refused {times}, first {after:.1?} into the run: \
                 {requested} bytes in all were asked for, the limit is {limit}"
            ),
            RefusalKind::Table => write!(
                f,
                "room in a table was refused {times}, first {after:.1?} into the run: \
                 {requested} entries were asked for, the limit is {limit}"
            ),
            RefusalKind::System => write!(
                f,
                "memory was refused {times}, first {after:.1?} into the run: the worker had none left for \
                 {requested} bytes in all"
            ),
        }
    }
}
