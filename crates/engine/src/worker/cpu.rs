//! Measures what a task took: wall time, and CPU time of this thread.

use std::time::{Duration, Instant};

use rustix::time::ClockId;

/// Tasks that run shorter than this are taken to have run all the time: the thread's clock is a
/// system call, and would cost a short task a part of what it takes.
const MEASURED_FROM_NS: u64 = 50_000;

/// The thread's clock is read anew before a task if what is known of it is older than this: what
/// the thread did meanwhile, besides tasks, would count for the task.
const KNOWN_FOR: Duration = Duration::from_millis(1);

/// Measures one task after the other.
pub(super) struct CpuClock {
    began: Instant,
    known_at: Instant,
    /// The thread's clock when it was last read, plus what was estimated since.
    known_cpu_ns: u64,
}

impl CpuClock {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        CpuClock { began: now, known_at: now, known_cpu_ns: thread_cpu_ns() }
    }

    pub(super) fn begin(&mut self) {
        self.began = Instant::now();
        if self.began.saturating_duration_since(self.known_at) > KNOWN_FOR {
            self.known_at = self.began;
            self.known_cpu_ns = thread_cpu_ns();
        }
    }

    /// Returns what the thread's clock showed when the task at hand began, in nanoseconds. It may say up to
    /// twice [`KNOWN_FOR`] too much: between two tasks, the thread counts as computing.
    pub(super) fn began_cpu_ns(&self) -> u64 {
        let since = self.began.saturating_duration_since(self.known_at).as_nanos();
        self.known_cpu_ns.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// Returns when the task at hand began.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// Wall and CPU time since `begin`, in nanoseconds.
    pub(super) fn end(&mut self) -> (u64, u64) {
        let run_ns = self.began.elapsed().as_nanos() as u64;
        if run_ns < MEASURED_FROM_NS {
            self.known_cpu_ns += run_ns;
            return (run_ns, run_ns);
        }
        let now = thread_cpu_ns();
        // The result is never less than the alarm has seen: where the wall clock is slewed, it may have gone
        // slower than this one.
        let since_began = now.saturating_sub(self.began_cpu_ns());
        let cpu_ns = now.saturating_sub(self.known_cpu_ns).min(run_ns).max(since_began);
        self.known_at = Instant::now();
        self.known_cpu_ns = now;
        (run_ns, cpu_ns)
    }
}

fn thread_cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64)
}
