//! Bytes that may be under way at one time.

use std::sync::{Condvar, Mutex, PoisonError};

/// A counter that makes its taker wait. What is larger than the whole budget goes alone.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_max: usize,
    taken: Mutex<usize>,
    given_back: Condvar,
}

impl Budget {
    pub(super) fn new(bytes_max: usize) -> Self {
        Budget { bytes_max, taken: Mutex::new(0), given_back: Condvar::new() }
    }

    /// Waits until there is room. What was taken must be given back by another thread.
    pub(super) fn take(&self, bytes: usize) {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |taken: &mut usize| *taken > 0 && taken.saturating_add(bytes) > self.bytes_max;
        let mut taken = self.given_back.wait_while(taken, is_full).unwrap_or_else(PoisonError::into_inner);
        *taken += bytes;
    }

    pub(super) fn give(&self, bytes: usize) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        *taken -= bytes;
        self.given_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_budget_waits_and_the_oversized_go_alone() {
        let budget = Budget::new(10);
        budget.take(6);
        budget.take(4);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| budget.take(100));
            budget.give(6);
            budget.give(4);
            waiting.join().expect("it got its turn");
        });
        assert_eq!(*budget.taken.lock().expect("no panic"), 100);
    }
}
