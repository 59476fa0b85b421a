//! Pseudo-random numbers that a seed determines.

/// The generator is SplitMix64 (Steele, Lea, Flood, 2014).
pub(in crate::scheduler) struct Random(pub(in crate::scheduler) u64);

impl Random {
    pub(in crate::scheduler) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(in crate::scheduler) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// Returns `true` once in `n` times.
    pub(in crate::scheduler) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(in crate::scheduler) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Reads a number from the environment.
pub(in crate::scheduler) fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}
