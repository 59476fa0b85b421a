//! Tasks in the order of their ranks.
//!
//! Most come at the end and leave at the front, or come back to the front, and each of these takes a few
//! instructions. Anywhere else they come and go in logarithmic time.

use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};

use proto::task::TaskId;

/// A task's rank in the queue. Ids grow, so their order is the order of submission; a task that
/// comes back finds its old rank.
pub(super) type Rank = (Reverse<i32>, TaskId);

/// Gaps are closed once they are more than this, and more than the half.
const GAPS_MAX: usize = 32;

/// An empty row keeps room for about so many, and gives more back.
const ROOM_KEPT: usize = 1 << 16;

/// A sorted set of ranks.
#[derive(Debug, Default)]
pub(super) struct Ranks {
    /// Sorted. The first and the last are there, and those between them unless they were taken out.
    row: VecDeque<(Rank, Entry)>,
    gaps: usize,
    /// Those that came amid the row.
    amid: BTreeSet<Rank>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    There,
    /// It was taken out, and its place is kept.
    Gap,
}

impl Ranks {
    pub(super) fn len(&self) -> usize {
        self.row.len() - self.gaps + self.amid.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn insert(&mut self, rank: Rank) {
        // The row may have become shorter than it was when that came.
        if self.amid.contains(&rank) {
            return;
        }
        if self.row.back().is_none_or(|(last, _)| *last < rank) {
            return self.row.push_back((rank, Entry::There));
        }
        if self.row.front().is_some_and(|(first, _)| rank < *first) {
            return self.row.push_front((rank, Entry::There));
        }
        match self.find(rank) {
            None => {
                self.amid.insert(rank);
            }
            Some(index) => {
                self.gaps -= usize::from(self.row[index].1 == Entry::Gap);
                self.row[index].1 = Entry::There;
            }
        }
    }

    /// Takes it out; `false` if it is not there.
    pub(super) fn remove(&mut self, rank: Rank) -> bool {
        let Some(index) = self.find(rank) else { return self.amid.remove(&rank) };
        if self.row[index].1 == Entry::Gap {
            return false;
        }
        self.row[index].1 = Entry::Gap;
        self.gaps += 1;
        self.trim();
        if self.gaps > GAPS_MAX.max(self.row.len() / 2) {
            self.row.retain(|(_, entry)| *entry == Entry::There);
            self.gaps = 0;
        }
        true
    }

    pub(super) fn first(&self) -> Option<Rank> {
        let first = self.row.front().map(|(rank, _)| *rank);
        match self.amid.first() {
            None => first,
            Some(&amid) => first.into_iter().chain([amid]).min(),
        }
    }

    /// Returns them in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Rank> {
        let there = self.row.iter().filter(|(_, entry)| *entry == Entry::There);
        merged(there.map(|(rank, _)| *rank), self.amid.iter().copied())
    }

    fn find(&self, rank: Rank) -> Option<usize> {
        match self.row.front() {
            Some((first, _)) if *first == rank => Some(0),
            _ => self.row.binary_search_by(|(other, _)| other.cmp(&rank)).ok(),
        }
    }

    /// Takes the gaps away that are at the ends.
    fn trim(&mut self) {
        while let Some((_, Entry::Gap)) = self.row.front() {
            self.row.pop_front();
            self.gaps -= 1;
        }
        while let Some((_, Entry::Gap)) = self.row.back() {
            self.row.pop_back();
            self.gaps -= 1;
        }
        if self.row.is_empty() && self.row.capacity() > ROOM_KEPT {
            self.row = VecDeque::new();
        }
    }
}

/// Merges two sorted sequences into one.
pub(super) fn merged<T: Ord>(
    one: impl Iterator<Item = T>,
    other: impl Iterator<Item = T>,
) -> impl Iterator<Item = T> {
    let mut one = one.peekable();
    let mut other = other.peekable();
    std::iter::from_fn(move || match (one.peek(), other.peek()) {
        (Some(next), Some(of_other)) if of_other < next => other.next(),
        (Some(_), _) => one.next(),
        (None, _) => other.next(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::simulation::random::Random;

    /// Ends, gaps and what came amid, in any order, and the standard library's set beside it.
    #[test]
    fn a_set_of_ranks_holds_what_a_sorted_set_holds() {
        let mut random = Random(17);
        for round in 0..300 {
            let mut ranks = Ranks::default();
            let mut known = BTreeSet::new();
            let priorities = if round % 2 == 0 { 1 } else { 3 };
            let mut next = 1_000;
            let mut most_in_row = 0;
            for _ in 0..400 {
                let priority = Reverse(random.below(priorities) as i32);
                let rank = match random.below(6) {
                    0..=2 => {
                        next += 1;
                        (priority, TaskId(next))
                    }
                    3 => (priority, TaskId(900 + random.below(next - 899))),
                    4 => known.first().copied().unwrap_or((priority, TaskId(1))),
                    _ => {
                        let index = random.below(known.len() as u64) as usize;
                        known.iter().nth(index).copied().unwrap_or((priority, TaskId(1)))
                    }
                };
                if random.below(20) < 9 {
                    assert_eq!(ranks.remove(rank), known.remove(&rank));
                } else {
                    ranks.insert(rank);
                    known.insert(rank);
                }
                most_in_row = most_in_row.max(known.len());
                assert_eq!((ranks.len(), ranks.is_empty()), (known.len(), known.is_empty()));
                assert_eq!(ranks.first(), known.first().copied());
                assert!(ranks.iter().eq(known.iter().copied()));
                assert!(ranks.row.len() <= 2 * most_in_row + GAPS_MAX, "gaps are closed");
            }
        }
    }

    #[test]
    fn what_leaves_in_any_order_leaves_no_memory_in_use() {
        let mut ranks = Ranks::default();
        let rank = |id| (Reverse(0), TaskId(id));
        (0..10_000).for_each(|id| ranks.insert(rank(id)));
        // The ends stay until the last.
        let odd_first = (1..9_999).filter(|id| id % 2 == 1).chain((1..9_999).filter(|id| id % 2 == 0));
        for (taken, id) in odd_first.enumerate() {
            assert!(ranks.remove(rank(id)) && !ranks.remove(rank(id)));
            assert!(ranks.row.len() <= 2 * (10_000 - taken) + GAPS_MAX);
        }
        assert_eq!((ranks.len(), ranks.row.len()), (2, 2 + ranks.gaps));
        assert!(ranks.iter().eq([rank(0), rank(9_999)]));
        (10_000..200_000).for_each(|id| ranks.insert(rank(id)));
        let left: Vec<_> = ranks.iter().collect();
        left.into_iter().for_each(|rank| assert!(ranks.remove(rank)));
        assert!(ranks.is_empty() && ranks.row.capacity() <= ROOM_KEPT);
    }
}
