//! Bounds what a task's memories and tables hold together.

use std::time::Instant;

use wasmtime::{ResourceLimiter, Result};

use crate::config::CORE_INSTANCES_MAX;
use proto::limits::TABLE_ELEMENTS_MAX;
use proto::safepoints::POLLING_PAGE_BYTES;
use proto::task::{Refusal, RefusalKind, Refusals};

/// Bytes that one table entry counts for.
const TABLE_ENTRY_BYTES: usize = 8;

/// Counts all memories and tables of one store against one limit.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    used: u64,
    pub(super) peak: u64,
    /// The total that the last refused request would have made.
    pub(super) refused: Option<u64>,
    /// Entries of a table that no worker has room for, where that was the last refusal.
    pub(super) refused_entries: Option<u64>,
    /// Refusals are timed from here, when the task began.
    began: Instant,
    refusals: Refusals,
}

impl Budget {
    pub(super) fn new(limit: u64, began: Instant) -> Self {
        Budget {
            limit,
            used: 0,
            peak: 0,
            refused: None,
            refused_entries: None,
            began,
            refusals: Refusals::default(),
        }
    }

    /// Returns what they hold now.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// The next task's: what is held stays, and counts for it.
    pub(super) fn begin(&mut self, limit: u64, began: Instant) {
        *self = Budget { used: self.used, peak: self.used, ..Budget::new(limit, began) };
    }

    /// Returns how often the task was refused something.
    pub(super) fn refusals(&self) -> u64 {
        self.refusals.count()
    }

    /// Returns what the task was refused.
    pub(super) fn report(&self) -> Refusals {
        self.refusals.clone()
    }

    fn grow(&mut self, bytes: u64) -> bool {
        let total = self.used.saturating_add(bytes);
        if total > self.limit {
            self.refused = Some(total);
            self.refused_entries = None;
            self.refuse(RefusalKind::Memory, total, self.limit);
            return false;
        }
        self.used = total;
        self.peak = self.peak.max(total);
        true
    }

    fn refuse(&mut self, kind: RefusalKind, requested: u64, limit: u64) {
        self.refusals.add(Refusal::new(kind, requested, limit, self.began.elapsed()));
    }
}

impl ResourceLimiter for Budget {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        // Only a polling page has such a maximum: those of guests are multiples of 64 KiB.
        if maximum == Some(POLLING_PAGE_BYTES as usize) {
            return Ok(true);
        }
        // The module's own maximum is exceeded, so the instruction fails, and nobody's budget is touched.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        Ok(self.grow(desired.saturating_sub(current) as u64))
    }

    // A task is one instance of a module, or one component with its modules; what these may define is the worker's room
    // (`config.rs`).
    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX as usize
    }

    /// Granted here, and then refused by the system: the process is at its own limit.
    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> Result<()> {
        self.refused = Some(self.used);
        self.refused_entries = None;
        self.refuse(RefusalKind::System, self.used, self.limit);
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        // The tables of the engine's pool have no larger maximum than the room for one; others have the module's
        // own.
        if desired > maximum.map_or(TABLE_ELEMENTS_MAX, |maximum| maximum.min(TABLE_ELEMENTS_MAX)) {
            // A table that would exceed the room that the worker has for one meets a limit of ours.
            if maximum.is_none_or(|maximum| maximum >= TABLE_ELEMENTS_MAX) {
                self.refused_entries = Some(desired as u64);
                self.refuse(RefusalKind::Table, desired as u64, TABLE_ELEMENTS_MAX as u64);
            }
            return Ok(false);
        }
        let bytes = desired.saturating_sub(current).saturating_mul(TABLE_ENTRY_BYTES);
        Ok(self.grow(bytes as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_and_tables_share_one_limit() {
        let mut budget = Budget::new(1000, Instant::now());
        assert!(budget.memory_growing(0, 600, None).expect("answers"));
        assert!(budget.table_growing(0, 50, None).expect("answers"));
        assert!(!budget.memory_growing(600, 601, None).expect("answers"));
        assert_eq!((budget.peak, budget.refused), (1000, Some(1001)));
    }

    #[test]
    fn what_is_refused_is_counted_with_the_first_and_the_last_time() {
        let mut budget = Budget::new(1000, Instant::now());
        assert!(budget.report().is_empty());
        assert!(!budget.memory_growing(0, 5000, None).expect("answers"));
        assert!(budget.memory_growing(0, 600, None).expect("answers"));
        assert!(!budget.table_growing(0, 51, None).expect("answers"));
        assert!(!budget.table_growing(0, TABLE_ELEMENTS_MAX + 1, None).expect("answers"));
        let refusals = budget.report();
        assert_eq!((refusals.count(), budget.refusals()), (3, 3));
        let first = refusals.first().expect("there is one");
        let last = refusals.last().expect("there is one");
        assert_eq!((first.kind, first.requested, first.limit), (RefusalKind::Memory, 5000, 1000));
        assert_eq!((last.kind, last.requested), (RefusalKind::Table, TABLE_ELEMENTS_MAX as u64 + 1));
        assert!(first.after <= last.after);
        // The next task starts without refusals.
        budget.begin(1000, Instant::now());
        assert!(budget.report().is_empty());
    }

    #[test]
    fn growth_beyond_the_modules_own_maximum_is_not_the_limits_doing() {
        let mut budget = Budget::new(1000, Instant::now());
        assert!(!budget.memory_growing(0, 600, Some(500)).expect("answers"));
        assert_eq!(budget.refused, None);
    }

    #[test]
    fn no_table_is_larger_than_a_worker_has_room_for_whoever_allocates_it() {
        for maximum in [None, Some(TABLE_ELEMENTS_MAX), Some(usize::MAX)] {
            let mut budget = Budget::new(u64::MAX, Instant::now());
            assert!(budget.table_growing(0, TABLE_ELEMENTS_MAX, maximum).expect("answers"));
            assert!(!budget.table_growing(0, TABLE_ELEMENTS_MAX + 1, maximum).expect("answers"));
            assert_eq!(budget.refused_entries, Some(TABLE_ELEMENTS_MAX as u64 + 1));
        }
        let mut budget = Budget::new(u64::MAX, Instant::now());
        assert!(!budget.table_growing(0, TABLE_ELEMENTS_MAX + 1, Some(10)).expect("answers"));
        assert_eq!(budget.refused_entries, None);
    }
}
