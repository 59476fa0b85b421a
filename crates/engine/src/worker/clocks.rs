//! The clocks that a guest reads: the system's, cut to a resolution, or one that only its own
//! readings move.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use wasmtime_wasi::{HostMonotonicClock, HostWallClock};

use proto::limits::task::CLOCK_RESOLUTION_MAX;
use proto::limits::{VIRTUAL_TIME_EPOCH, VIRTUAL_TIME_STEP};

/// The clocks of one task.
#[derive(Debug, Clone)]
pub(super) enum Clock {
    System(Coarse),
    Virtual(VirtualTime),
}

impl Clock {
    /// Makes a clock for a store in which nothing reads it.
    pub(super) fn none() -> Self {
        Clock::Virtual(VirtualTime::default())
    }

    /// Returns what the monotonic clock and the wall clock say at the same moment.
    pub(super) fn read(&self) -> (Duration, Duration) {
        match self {
            Clock::System(clock) => (clock.monotonic(), HostWallClock::now(clock)),
            Clock::Virtual(time) => {
                let now = Duration::from_nanos(time.read());
                (now, VIRTUAL_TIME_EPOCH + now)
            }
        }
    }
}

/// The last nanosecond of virtual time: WASI counts nanoseconds since 1970 in 64 bits, and
/// guests do so in 63.
const VIRTUAL_TIME_MAX: u64 = i64::MAX as u64 - VIRTUAL_TIME_EPOCH.as_nanos() as u64;

/// The system's clocks, never finer than the resolution. The monotonic clock begins with the task, so that it
/// tells nothing of the machine's. It begins at one step, since programs take 0 for a clock that does not run
/// (Go's runtime ends with "nanotime returning zero").
#[derive(Debug, Clone)]
pub(super) struct Coarse {
    resolution: Duration,
    began: Instant,
}

impl Coarse {
    /// Makes clocks of this resolution; 0 means as fine as the system's.
    pub(super) fn new(resolution: Duration) -> Self {
        let resolution = resolution.clamp(Duration::from_nanos(1), CLOCK_RESOLUTION_MAX);
        Coarse { resolution, began: Instant::now() }
    }

    /// Returns the time since the task began, which is never 0.
    fn monotonic(&self) -> Duration {
        self.cut(self.began.elapsed()).saturating_add(self.resolution)
    }

    fn cut(&self, time: Duration) -> Duration {
        let beyond = time.as_nanos() % self.resolution.as_nanos();
        // The part beyond a multiple is less than the time itself, whose nanoseconds fit.
        time.saturating_sub(duration(beyond))
    }
}

/// Converts any number of nanoseconds.
fn duration(nanoseconds: u128) -> Duration {
    const PER_SECOND: u128 = 1_000_000_000;
    let seconds = u64::try_from(nanoseconds / PER_SECOND).unwrap_or(u64::MAX);
    Duration::new(seconds, (nanoseconds % PER_SECOND) as u32)
}

impl HostWallClock for Coarse {
    fn resolution(&self) -> Duration {
        self.resolution
    }

    fn now(&self) -> Duration {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // The clock never says 0, which would look like a clock that does not run: a machine that has lost the
        // time may say 1970.
        self.cut(now).max(self.resolution)
    }
}

impl HostMonotonicClock for Coarse {
    fn resolution(&self) -> u64 {
        u64::try_from(self.resolution.as_nanos()).unwrap_or(u64::MAX)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.monotonic().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Time that passes by being read: both clocks of a deterministic task. Clones are the same clock.
#[derive(Debug, Clone)]
pub(super) struct VirtualTime(Arc<Moments>);

#[derive(Debug)]
struct Moments {
    now: AtomicU64,
    /// The first of the moments that are waited for together.
    awaited: AtomicU64,
    /// This rises with each wait, and with each moment that comes in it: of those that are waited for together, only those that
    /// have said so since then are known.
    round: AtomicU64,
}

impl Default for VirtualTime {
    /// It begins with one step, as the other clocks do: a clock never says 0.
    fn default() -> Self {
        let now = AtomicU64::new(VIRTUAL_TIME_STEP.as_nanos() as u64);
        VirtualTime(Arc::new(Moments { now, awaited: AtomicU64::new(u64::MAX), round: AtomicU64::new(0) }))
    }
}

impl VirtualTime {
    /// Returns the nanoseconds since the task began, plus one step. Each reading moves the clock by one step.
    fn read(&self) -> u64 {
        let now = self.now();
        self.advance_to(now.saturating_add(VIRTUAL_TIME_STEP.as_nanos() as u64));
        now
    }

    /// Sets the clock forward; at the end of time it stays where it is.
    pub(super) fn sleep(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.advance_to(self.now().saturating_add(nanoseconds));
    }

    /// Returns the nanoseconds since the task began, plus one step, and does not move the clock.
    pub(super) fn now(&self) -> u64 {
        self.0.now.load(Ordering::Relaxed)
    }

    /// Begins a wait for some moments.
    pub(super) fn begin_wait(&self) {
        self.0.awaited.store(u64::MAX, Ordering::Relaxed);
        self.0.round.store(self.round() + 1, Ordering::Relaxed);
    }

    fn round(&self) -> u64 {
        self.0.round.load(Ordering::Relaxed)
    }

    /// Says that a moment is waited for, perhaps beside others, and returns the round in which that is known.
    pub(super) fn awaits(&self, at: u64) -> u64 {
        self.0.awaited.store(self.0.awaited.load(Ordering::Relaxed).min(at), Ordering::Relaxed);
        self.round()
    }

    /// Returns whether a moment is in the past. One beyond the end of time has come at the end.
    pub(super) fn has_come(&self, at: u64) -> bool {
        at.min(VIRTUAL_TIME_MAX) <= self.now()
    }

    /// Sets the clock forward to this moment if it is the first of those that are waited for in this round, and says whether it
    /// is.
    pub(super) fn comes_next(&self, at: u64, round: u64) -> bool {
        let is_first = round == self.round() && self.0.awaited.load(Ordering::Relaxed) >= at;
        if is_first {
            self.begin_wait();
            self.advance_to(at);
        }
        is_first
    }

    fn advance_to(&self, time: u64) {
        // Only one thread runs the task, so no read-modify-write is needed.
        self.0.now.store(time.min(VIRTUAL_TIME_MAX), Ordering::Relaxed);
    }
}

impl HostWallClock for VirtualTime {
    fn resolution(&self) -> Duration {
        VIRTUAL_TIME_STEP
    }

    fn now(&self) -> Duration {
        VIRTUAL_TIME_EPOCH + Duration::from_nanos(self.read())
    }
}

impl HostMonotonicClock for VirtualTime {
    fn resolution(&self) -> u64 {
        VIRTUAL_TIME_STEP.as_nanos() as u64
    }

    fn now(&self) -> u64 {
        self.read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_multiples_of_the_resolution_and_never_ahead() {
        for nanoseconds in [0, 1, 1_000, 1_000_000, 7_000_003, 2_000_000_000] {
            let clock = Coarse::new(Duration::from_nanos(nanoseconds));
            let step = u128::from(nanoseconds.max(1));
            for time in [0, 1, 999_999, 1_000_000, 5_123_456_789, u64::MAX] {
                let cut = clock.cut(Duration::from_nanos(time));
                assert_eq!(cut.as_nanos() % step, 0);
                assert!(cut <= Duration::from_nanos(time));
                assert!(u128::from(time) - cut.as_nanos() < step);
            }
        }
        let wall = Coarse::new(Duration::from_secs(3600));
        assert_eq!(HostWallClock::now(&wall).as_secs() % 3600, 0);
        assert_eq!(HostMonotonicClock::now(&wall), 3_600_000_000_000);
    }

    #[test]
    fn no_clock_says_0_whatever_its_resolution() {
        for resolution in [0, 1, 1_000_000, 3_600_000_000_000, u64::MAX] {
            let clock = Coarse::new(Duration::from_nanos(resolution));
            assert!(HostMonotonicClock::now(&clock) > 0, "{resolution}");
            assert!(!HostWallClock::now(&clock).is_zero(), "{resolution}");
            let (monotonic, wall) = Clock::System(clock).read();
            assert!(!monotonic.is_zero() && !wall.is_zero(), "{resolution}");
        }
        assert_eq!(Coarse::new(Duration::MAX).resolution, CLOCK_RESOLUTION_MAX);
        let time = VirtualTime::default();
        assert!(HostMonotonicClock::now(&time) > 0 && !HostWallClock::now(&time).is_zero());
        let (monotonic, wall) = Clock::Virtual(VirtualTime::default()).read();
        assert!(!monotonic.is_zero() && !wall.is_zero());
    }

    #[test]
    fn virtual_time_moves_by_readings_and_sleeps_and_ends_rather_than_wraps() {
        let time = VirtualTime::default();
        assert_eq!((time.read(), time.read()), (1_000, 2_000));
        assert_eq!(HostWallClock::now(&time), VIRTUAL_TIME_EPOCH + Duration::from_nanos(3_000));
        time.sleep(Duration::from_millis(1));
        assert_eq!(HostMonotonicClock::now(&time), 1_004_000);
        time.sleep(Duration::MAX);
        assert_eq!((time.read(), time.read()), (VIRTUAL_TIME_MAX, VIRTUAL_TIME_MAX));
        assert_eq!(HostWallClock::now(&time).as_nanos(), i64::MAX as u128);
    }
}
