//! Looks from outside at the memory that a process holds.
//!
//! `RLIMIT_DATA` counts what a process can write to. An attacker who has taken a worker over can still fill
//! pages and make them read-only, grow its stack in pieces, or fill page tables: that is memory, too. A
//! cgroup counts all of it. Without one, the host looks from time to time, and kills a process that holds
//! more than it may.

use std::time::{Duration, Instant};

use proto::kernel::kernel_text;
use proto::limits::MEMORY_LOOKS;

/// A process may hold this much beyond its limit, for its stack, its own pages of the program's files, and
/// page tables.
const BEYOND_BYTES: u64 = 64 * 1024 * 1024;

/// Returns the size of its own pages, in memory or swapped out, and of its page tables. What it shares with
/// the host (modules, rings, shared inputs) does not count. Returns `None` if the process is gone or there is
/// no /proc.
pub(super) fn resident_bytes(pid: u32) -> Option<u64> {
    let status = kernel_text(format!("/proc/{pid}/status")).ok()?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    // A process that has ended and is not reaped has no such line.
    let own = kib("RssAnon:")?;
    let others = ["VmSwap:", "VmPTE:"].into_iter().filter_map(kib);
    Some(others.fold(own, u64::saturating_add).saturating_mul(1024))
}

/// Returns what the process holds, if that is more than this limit allows.
pub(super) fn excess(pid: u32, limit_bytes: u64) -> Option<u64> {
    let allowed = limit_bytes.saturating_add(limit_bytes / 8).saturating_add(BEYOND_BYTES);
    resident_bytes(pid).filter(|bytes| *bytes > allowed)
}

/// The time of the last look.
#[derive(Debug)]
pub(super) struct Looks(Instant);

impl Looks {
    pub(super) fn new() -> Looks {
        Looks(Instant::now())
    }

    /// Returns how long to wait for the next look; looks are more frequent while tasks run.
    pub(super) fn left(&self, is_busy: bool) -> Duration {
        MEMORY_LOOKS[usize::from(!is_busy)].saturating_sub(self.0.elapsed())
    }

    /// Returns whether it is time for a look, which then counts as taken.
    pub(super) fn are_due(&mut self, is_busy: bool) -> bool {
        let due = self.left(is_busy).is_zero();
        if due {
            self.0 = Instant::now();
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_counts_and_a_limit_has_some_room_above_it() {
        let own = std::process::id();
        let bytes = 96 << 20;
        let before = resident_bytes(own).expect("there is a /proc");
        let filled = std::hint::black_box(vec![1u8; bytes]);
        let after = resident_bytes(own).expect("there is a /proc");
        assert!(after >= before + (bytes as u64) / 2, "{before} and then {after}");
        assert!(excess(own, 0).is_some() && excess(own, u64::MAX).is_none());
        drop(std::hint::black_box(filled));
        assert_eq!(resident_bytes(u32::MAX), None);
    }
}
