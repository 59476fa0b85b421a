//! The CPU time of other processes, by the kernel's count: the host asks no process for it.

use std::sync::OnceLock;
use std::time::Duration;

use proto::kernel::kernel_text;

/// The clock of the CPU time of all threads of a process. Its number cannot mean another process before this
/// one is reaped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProcessClock(libc::clockid_t);

impl ProcessClock {
    /// Returns `None` if there is no such process.
    pub(crate) fn of(pid: u32) -> Option<ProcessClock> {
        let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0)?;
        let mut clock = 0;
        // SAFETY: clock_getcpuclockid writes a clock's number to a variable of that type.
        let failed = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
        (failed == 0).then_some(ProcessClock(clock))
    }

    /// Returns the clock of the same time that the kernel compares with `RLIMIT_CPU`. That one counts by ticks: whoever
    /// computes when a tick comes has computed since the last one, so that it may be ahead, or behind.
    pub(crate) fn in_ticks(self) -> ProcessClock {
        // The kernel's CPUCLOCK_PROF is 0, in the lowest two bits.
        ProcessClock(self.0 & !0b11)
    }

    /// Reads the clock, in nanoseconds. It lacks what a thread that runs just now has computed since the last tick of
    /// its processor ([`CLOCK_LAG`]). Returns `None` once the process has been reaped.
    pub(crate) fn read(self) -> Option<Duration> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: clock_gettime writes a time to a variable of that type.
        let failed = unsafe { libc::clock_gettime(self.0, &raw mut time) };
        let seconds = u64::try_from(time.tv_sec).ok()?;
        let nanos = u32::try_from(time.tv_nsec).ok()?;
        (failed == 0).then(|| Duration::new(seconds, nanos))
    }
}

/// Returns whether more threads want a CPU than there are CPUs, so that some wait for their turn. A thread of the
/// pool's own that asks will be gone in a moment. Where the system does not say, they are taken to be contended.
pub(super) fn are_contended(cpus: usize) -> bool {
    let own = usize::from(super::is_io_thread());
    let runnable = kernel_text("/proc/loadavg").ok().and_then(|text| runnable(&text));
    runnable.is_none_or(|runnable| runnable.saturating_sub(own) > cpus)
}

/// Reads the number of threads that run or want to, of `0.20 0.18 0.12 3/80 11206`.
fn runnable(loadavg: &str) -> Option<usize> {
    loadavg.split(' ').nth(3)?.split('/').next()?.parse().ok()
}

/// The clock of a worker, which goes on to say what it said last once the process has ended.
#[derive(Debug)]
pub(super) struct WorkerClock {
    clock: Option<ProcessClock>,
    stopped_at: OnceLock<Duration>,
}

impl WorkerClock {
    pub(super) fn of(pid: u32) -> WorkerClock {
        WorkerClock { clock: ProcessClock::of(pid), stopped_at: OnceLock::new() }
    }

    /// Returns the clock itself.
    pub(super) fn of_process(&self) -> Option<ProcessClock> {
        self.clock
    }

    pub(super) fn read(&self) -> Option<Duration> {
        self.stopped_at.get().copied().or_else(|| self.clock.and_then(ProcessClock::read))
    }

    /// Keeps what the clock says of a process that has ended and is about to be reaped, which takes the clock away.
    pub(super) fn stop(&self) {
        if let Some(computed) = self.clock.and_then(ProcessClock::read) {
            let _ = self.stopped_at.set(computed);
        }
    }
}

/// The clock of another process may lag behind by this much while its thread runs: two ticks at 100 Hz, the longest
/// that Linux has. With one thread at work on a machine of 250 Hz, the clock was seen to go forward by 4 ms at a time,
/// and by 8 once in a while. A worker that lies may have its own task end as over its limit by this much too early.
const CLOCK_LAG: Duration = Duration::from_millis(20);

/// A task with a limit of CPU time, and how much of it is used, by its worker's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct CpuCount {
    pub(super) limit: Duration,
    /// The worker's clock when it was handed the task, and when the task was last seen not to have begun.
    handed_at: Duration,
    begins_at: Duration,
    /// The worker's clock when the task was first seen to have begun.
    seen_at: Option<Duration>,
    /// The worker has been told the limit.
    is_told: bool,
    pub(super) used: Duration,
}

/// A worker that claims for this long not to have begun is not believed: mapping the largest module takes
/// less.
const BEGINS_WITHIN: Duration = Duration::from_secs(1);

impl CpuCount {
    pub(super) fn new(limit: Duration) -> CpuCount {
        let none = Duration::ZERO;
        CpuCount { limit, handed_at: none, begins_at: none, seen_at: None, is_told: false, used: none }
    }

    /// Notes the clock of an idle worker that is handed the task.
    pub(super) fn hand(&mut self, computed: Duration) {
        *self = CpuCount { handed_at: computed, begins_at: computed, ..CpuCount::new(self.limit) };
    }

    /// Returns how much CPU time the task has used since it was first seen to have begun; `None` if it has not begun.
    /// Whether the task computed what the worker had computed before is not known, so nobody is stopped for that.
    pub(super) fn look(&mut self, computed: Duration, has_begun: bool) -> Option<Duration> {
        let since_handed = computed.saturating_sub(self.handed_at);
        // A run that has begun once has begun, whatever the worker says of it later.
        if self.seen_at.is_none() && !has_begun && since_handed < self.limit.saturating_add(BEGINS_WITHIN) {
            self.begins_at = computed;
            return None;
        }
        let seen_at = *self.seen_at.get_or_insert(if has_begun { computed } else { self.begins_at });
        self.used = computed.saturating_sub(seen_at);
        Some(self.used)
    }

    /// Returns the limit once: when the task has been seen to have begun.
    pub(super) fn take_limit(&mut self) -> Option<Duration> {
        if self.seen_at.is_none() || self.is_told {
            return None;
        }
        self.is_told = true;
        Some(self.limit)
    }

    /// Counts for a task that has ended without an answer, and returns how much it has used.
    pub(super) fn cut_off(&self, computed: Option<Duration>) -> Duration {
        computed.map_or(self.used, |computed| computed.saturating_sub(self.begins_at)).max(self.used)
    }

    /// Counts for a task that has answered. The worker's own word is exact, and keeps out what it has computed since.
    /// It counts only between what was seen before and what the clock may show now.
    pub(super) fn end(&mut self, computed: Option<Duration>, said: Duration) -> Duration {
        let measured = computed.map_or(self.used, |computed| computed.saturating_sub(self.begins_at));
        self.used = measured.saturating_add(CLOCK_LAG).min(said).max(self.used);
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threads_that_want_a_cpu_are_read_where_they_stand() {
        assert_eq!(runnable("0.20 0.18 0.12 3/80 11206\n"), Some(3));
        assert_eq!(runnable("0.20 0.18"), None);
        assert!(!are_contended(usize::MAX), "there are as many CPUs as anyone may want");
    }

    #[test]
    fn a_process_has_computed_more_after_it_has_computed_and_of_none_nothing_is_known() {
        let own = ProcessClock::of(std::process::id()).expect("it is there");
        let before = own.read().expect("is told");
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while own.read().expect("is told") < before + Duration::from_millis(20) {
            assert!(std::time::Instant::now() < deadline, "it has computed nothing");
        }
        assert!(ProcessClock::of(0).is_none());
        let mut child = std::process::Command::new("true").spawn().expect("starts");
        let clock = ProcessClock::of(child.id()).expect("it is not reaped");
        child.wait().expect("ends");
        assert_eq!(clock.read(), None);
    }

    #[test]
    fn the_kernels_ticks_are_told_of_a_process_that_has_ended_until_it_is_reaped() {
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .expect("starts");
        let clock = ProcessClock::of(child.id()).expect("it is not reaped").in_ticks();
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while clock.read().expect("is told") < Duration::from_millis(50) {
            assert!(std::time::Instant::now() < deadline, "it has computed nothing");
            std::thread::yield_now();
        }
        child.kill().expect("it is there");
        let pid = rustix::process::Pid::from_child(&child);
        let ended = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(pid), ended).expect("ends");
        assert!(clock.read().is_some_and(|ticks| ticks >= Duration::from_millis(50)));
        child.wait().expect("ended");
        assert_eq!(clock.read(), None);
    }

    #[test]
    fn what_a_worker_computes_before_a_task_begins_and_after_its_answer_is_not_the_tasks() {
        let ms = Duration::from_millis;
        let mut cpu = CpuCount::new(ms(10));
        cpu.hand(ms(100));
        assert_eq!(
            (cpu.look(ms(102), false), cpu.look(ms(107), false), cpu.take_limit()),
            (None, None, None)
        );
        assert_eq!((cpu.look(ms(110), true), cpu.look(ms(115), true)), (Some(ms(0)), Some(ms(5))));
        assert_eq!((cpu.take_limit(), cpu.take_limit()), (Some(ms(10)), None));
        // The run has begun, and the worker does not take that back.
        assert_eq!(cpu.look(ms(115), false), Some(ms(5)));
        // The worker has computed since its answer, and that is not the task's.
        assert_eq!(cpu.end(Some(ms(200)), ms(9)), ms(9));
        // The worker's word counts only between what was seen before and what the clock may show now.
        assert_eq!((cpu.end(Some(ms(117)), ms(1)), cpu.end(Some(ms(119)), ms(50))), (ms(9), ms(32)));
        // A worker that says it never begins does not escape the limit.
        cpu.hand(ms(0));
        assert_eq!((cpu.look(ms(900), false), cpu.look(ms(1010), false)), (None, Some(ms(110))));
    }
}
