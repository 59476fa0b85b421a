//! Spinning before sleeping, where it pays: a sleep and a wake-up cost many times what a short
//! answer takes.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A spin takes at most as long as a short answer if the other side has to be woken for it, which depends on
/// how deep the processor sleeps. Once both sides spin, neither is woken, and a spin ends after a few
/// microseconds.
const SPIN_MAX: Duration = Duration::from_micros(120);

/// Waits of this length and less would have been worth spinning for: two wake-ups are a part of them.
const WORTH: Duration = Duration::from_micros(200);

/// The score with which spinning begins, and its bounds: each wait that was worth it counts for
/// one, each other takes more away. At zero nobody spins, until waits are short again.
const SCORE_MAX: u32 = 16;
const SCORE_LOSS: u32 = 2;

/// One reader's experience with waiting. A reader that has nothing to wait for does not spin: an idle
/// pool costs a few spins, once.
#[derive(Debug)]
pub struct Spinning {
    score: AtomicU32,
    /// Spinning needs several processors: on a single one, it would keep the thread that is waited for from
    /// running.
    has_processors: bool,
}

/// Returns whether there are several processors. To find out, std reads three files of the cgroup.
fn has_processors() -> bool {
    const UNKNOWN: u8 = 2;
    static HAS: AtomicU8 = AtomicU8::new(UNKNOWN);
    match HAS.load(Ordering::Relaxed) {
        UNKNOWN => {
            let has = std::thread::available_parallelism().is_ok_and(|count| count.get() > 1);
            HAS.store(u8::from(has), Ordering::Relaxed);
            has
        }
        has => has == 1,
    }
}

impl Default for Spinning {
    #[inline]
    fn default() -> Self {
        Spinning::new()
    }
}

impl Spinning {
    /// Asks the system for the number of processors, the first time: a worker makes its first before it locks itself
    /// down.
    #[inline]
    pub fn new() -> Self {
        // Loom cannot try what depends on the time: there, one look is all.
        let has_processors = !cfg!(wasmpool_loom) && has_processors();
        Spinning { score: AtomicU32::new(SCORE_MAX / 2), has_processors }
    }

    /// Waits until `is_ready`, awake where that has paid; then by `sleep`, which may return early.
    #[inline]
    pub fn wait(&self, is_ready: impl Fn() -> bool, sleep: impl FnOnce()) {
        let began = Instant::now();
        if !self.spin(is_ready) {
            sleep();
        }
        self.learn(began.elapsed());
    }

    #[inline]
    fn spin(&self, is_ready: impl Fn() -> bool) -> bool {
        if self.score.load(Ordering::Relaxed) == 0 || !self.has_processors {
            return is_ready();
        }
        let began = Instant::now();
        loop {
            for _ in 0..32 {
                if is_ready() {
                    return true;
                }
                std::hint::spin_loop();
            }
            if began.elapsed() > SPIN_MAX {
                return false;
            }
        }
    }

    /// Learns how long was waited, awake or asleep.
    #[inline]
    fn learn(&self, waited: Duration) {
        let score = self.score.load(Ordering::Relaxed);
        let score = match waited <= WORTH {
            true => (score + 1).min(SCORE_MAX),
            false => score.saturating_sub(SCORE_LOSS),
        };
        self.score.store(score, Ordering::Relaxed);
    }
}
