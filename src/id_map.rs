//! A table of what is numbered by this process itself.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// Keys are numbers that count up from 1, and need not be defended against being chosen to collide.
///
/// Entries that were numbered in a row lie in a row, as long as it fits: where thousands of tasks end in the
/// order in which they came, as they do when a pool breaks, the processor reads ahead. Scattered, each is a
/// wait for memory (benches/README.md, "Records of tasks").
pub(crate) type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// A set of such keys.
pub(crate) type IdSet<K> = HashSet<K, BuildHasherDefault<NumberHasher>>;

#[derive(Default)]
pub(crate) struct NumberHasher(u64);

/// A table finds the place by the lowest bits, and tells neighbours apart by the seven highest.
const HIGHEST: u64 = 0x7f << 57;

impl Hasher for NumberHasher {
    fn write_u64(&mut self, number: u64) {
        // The first is itself; a key of several numbers is scattered.
        self.0 = self.0.wrapping_mul(SCATTER).wrapping_add(number);
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn finish(&self) -> u64 {
        // Batches are numbered in steps of a power of two, which would all have the same lowest bits. This
        // way each number of a range has a place of its own, and near ones stay near.
        let place = self.0 ^ (self.0 >> 10);
        (place & !HIGHEST) | (self.0.wrapping_mul(SCATTER) & HIGHEST)
    }
}

/// Knuth's: 2^64 divided by the golden ratio, made odd.
const SCATTER: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn places(numbers: impl Iterator<Item = u64>, size: u64) -> usize {
        let place = |number| {
            let mut hasher = NumberHasher::default();
            hasher.write_u64(number);
            hasher.finish() % size
        };
        numbers.map(place).collect::<HashSet<_>>().len()
    }

    #[test]
    fn numbers_in_a_row_have_a_place_each_and_steps_do_not_share_one() {
        for start in [0, 4096, 1 << 40] {
            assert_eq!(places(start..start + 4096, 4096), 4096);
        }
        assert!(places(17..17 + 4096, 4096) > 3500, "not aligned");
        for step in [64, 256, 1024] {
            assert!(places((0..256).map(|n| 1 + n * step), 512) >= 64, "{step}");
        }
    }

    #[test]
    fn what_is_put_in_is_found() {
        let mut map: IdMap<(u32, u64), u64> = IdMap::default();
        for n in 0..3_000 {
            map.insert((n as u32 % 7, n), n);
        }
        assert!((0..3_000).all(|n| map.get(&(n as u32 % 7, n)) == Some(&n)));
        assert!(!map.contains_key(&(0, 3_000)));
    }
}
