//! Inputs that may be under way at one time, by their number and their bytes.

use std::sync::{Condvar, Mutex, PoisonError};

/// A counter that makes its taker wait. What is larger than the whole budget goes alone. Who waits for an
/// input's place is woken once a quarter of them is free, not for each.
#[derive(Debug)]
pub(super) struct Budget {
    inputs_max: usize,
    bytes_max: usize,
    taken: Mutex<Taken>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Taken {
    inputs: usize,
    bytes: usize,
    closed: bool,
    /// The taker sleeps until so many bytes have room.
    awaited: Option<usize>,
}

impl Budget {
    pub(super) fn new(inputs_max: usize, bytes_max: usize) -> Self {
        Budget { inputs_max, bytes_max, taken: Mutex::default(), changed: Condvar::new() }
    }

    /// Waits until there is room for an input, and takes it; `false` if there will be none. What was
    /// taken must be given back by another thread. There is one taker.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked again once woken: more may have been charged meanwhile.
        while !self.has_room(&taken, bytes, self.inputs_max) {
            taken.awaited = Some(bytes);
            let waits = |taken: &mut Taken| taken.awaited.is_some();
            taken = self.changed.wait_while(taken, waits).unwrap_or_else(PoisonError::into_inner);
        }
        if !taken.closed {
            taken.inputs += 1;
            taken.bytes += bytes;
        }
        !taken.closed
    }

    pub(super) fn give(&self, bytes: usize) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.inputs -= 1;
        taken.bytes -= bytes;
        let least_free = (self.inputs_max / 4).max(1);
        if taken.awaited.is_some_and(|bytes| self.has_room(&taken, bytes, self.inputs_max + 1 - least_free)) {
            taken.awaited = None;
            self.changed.notify_one();
        }
    }

    fn has_room(&self, taken: &Taken, bytes: usize, inputs_max: usize) -> bool {
        let fits = taken.inputs < inputs_max && taken.bytes.saturating_add(bytes) <= self.bytes_max;
        taken.closed || taken.inputs == 0 || fits
    }

    /// What is under way holds so many bytes more, whether there is room or not: who takes waits for it.
    pub(super) fn charge(&self, bytes: usize) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).bytes += bytes;
    }

    /// Inputs that were taken and not given back.
    pub(super) fn inputs(&self) -> usize {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).inputs
    }

    /// Nothing more is to begin.
    pub(super) fn close(&self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        (taken.closed, taken.awaited) = (true, None);
        self.changed.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_taken(budget: &Budget) -> usize {
        budget.taken.lock().expect("no panic").bytes
    }

    #[test]
    fn a_full_budget_waits_and_the_oversized_go_alone() {
        let budget = Budget::new(9, 10);
        assert!(budget.take(6) && budget.take(4));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| budget.take(100));
            budget.give(6);
            budget.give(4);
            assert!(waiting.join().expect("it got its turn"));
        });
        assert_eq!(bytes_taken(&budget), 100);
    }

    #[test]
    fn inputs_without_bytes_count_too_and_who_waits_learns_of_the_end() {
        let budget = Budget::new(2, 10);
        assert!(budget.take(0) && budget.take(0));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| budget.take(0));
            budget.close();
            assert!(!waiting.join().expect("it was told"));
        });
        assert!(budget.is_closed() && !budget.take(1));
    }

    #[test]
    fn who_waits_for_a_place_is_woken_once_a_quarter_of_them_is_free() {
        let budget = Budget::new(8, 10);
        assert!((0..8).all(|_| budget.take(0)));
        let is_awaited = || budget.taken.lock().expect("no panic").awaited.is_some();
        let awaited_after: Vec<_> = std::thread::scope(|scope| {
            scope.spawn(|| budget.take(0));
            while !is_awaited() {
                std::thread::yield_now();
            }
            let give = || {
                budget.give(0);
                is_awaited()
            };
            let awaited_after = (0..2).map(|_| give()).collect();
            budget.close();
            awaited_after
        });
        assert_eq!(awaited_after, [true, false]);
    }
}
