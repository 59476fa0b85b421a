//! Measures how long something mostly takes.

use std::time::Duration;

/// A moving average that outliers move little: on a busy machine whatever is short may have to wait for a
/// processor now and then, and nothing is ever shorter than it is. In plain numbers, since it is asked for each
/// task.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ewma {
    /// 0 as long as nothing is known.
    nanos: u64,
}

impl Ewma {
    pub(crate) fn learn(&mut self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.nanos = match self.nanos {
            0 => took,
            before if took < before => before.midpoint(took),
            before => before - before / 16 + took / 16,
        };
    }

    /// Returns nanoseconds, 584 years at most; 0 if nothing is known.
    pub(crate) fn nanos(self) -> u64 {
        self.nanos
    }

    /// Returns zero if nothing is known.
    pub(crate) fn duration(self) -> Duration {
        Duration::from_nanos(self.nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_first_then_falls_fast_and_rises_slowly() {
        let mut typical = Ewma::default();
        assert_eq!(typical.nanos(), 0, "nothing is known");
        typical.learn(Duration::ZERO);
        assert_eq!(typical.nanos(), 1, "something is known");
        let mut typical = Ewma::default();
        typical.learn(Duration::from_micros(160));
        assert_eq!(typical.duration(), Duration::from_micros(160));
        typical.learn(Duration::from_micros(80));
        assert_eq!(typical.duration(), Duration::from_micros(120));
        typical.learn(Duration::from_micros(1720));
        assert_eq!(typical.duration(), Duration::from_micros(220), "a sixteenth of the way");
        typical.learn(Duration::MAX);
        (0..64).for_each(|_| typical.learn(Duration::from_micros(10)));
        assert!(typical.duration() <= Duration::from_micros(11), "{:?}", typical.duration());
    }
}
