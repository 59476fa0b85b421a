//! What a task's memories and tables may hold together.

use wasmtime::{ResourceLimiter, Result};

use crate::limits::TABLE_ELEMENTS_MAX;

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
}

impl Budget {
    pub(super) fn new(limit: u64) -> Self {
        Budget { limit, used: 0, peak: 0, refused: None, refused_entries: None }
    }

    /// What is held now.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// The next task's: what is held stays, and counts for it.
    pub(super) fn begin(&mut self, limit: u64) {
        *self = Budget { used: self.used, peak: self.used, ..Budget::new(limit) };
    }

    fn grow(&mut self, bytes: u64) -> bool {
        let total = self.used.saturating_add(bytes);
        if total > self.limit {
            (self.refused, self.refused_entries) = (Some(total), None);
            return false;
        }
        self.used = total;
        self.peak = self.peak.max(total);
        true
    }
}

impl ResourceLimiter for Budget {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        // Over the module's own maximum: the instruction fails, and nobody's budget is touched.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        Ok(self.grow(desired.saturating_sub(current) as u64))
    }

    // A task is one instance; what a module may define is the worker's room (`compile/settings.rs`).
    fn instances(&self) -> usize {
        1
    }

    /// Granted here, and then refused by the system: the process is at its own limit.
    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> Result<()> {
        (self.refused, self.refused_entries) = (Some(self.used), None);
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        // Tables of the engine's pool have no larger maximum than that; others have the module's own.
        if desired > maximum.map_or(TABLE_ELEMENTS_MAX, |maximum| maximum.min(TABLE_ELEMENTS_MAX)) {
            // Or over the room that the worker has for a table: then it is a limit of ours.
            if maximum.is_none_or(|maximum| maximum >= TABLE_ELEMENTS_MAX) {
                self.refused_entries = Some(desired as u64);
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
        let mut budget = Budget::new(1000);
        assert!(budget.memory_growing(0, 600, None).expect("answers"));
        assert!(budget.table_growing(0, 50, None).expect("answers"));
        assert!(!budget.memory_growing(600, 601, None).expect("answers"));
        assert_eq!((budget.peak, budget.refused), (1000, Some(1001)));
    }

    #[test]
    fn growth_beyond_the_modules_own_maximum_is_not_the_limits_doing() {
        let mut budget = Budget::new(1000);
        assert!(!budget.memory_growing(0, 600, Some(500)).expect("answers"));
        assert_eq!(budget.refused, None);
    }
}
