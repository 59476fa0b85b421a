//! Reads what a process had used when it ended.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::process::{WaitId, WaitIdOptions};

use super::cpu::ProcessClock;
use crate::error::DeathCause;
use proto::kernel::kernel_text;

/// Holds what a process has used in its life.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    /// The CPU time of all its threads.
    pub(super) cpu: Duration,
    /// The same as the kernel holds it against `RLIMIT_CPU`, where it says so.
    pub(super) ticks: Option<Duration>,
    /// The most that was resident, where the kernel said so. What it shared with its parent until it
    /// became another program counts too.
    pub(super) peak_bytes: Option<u64>,
}

/// Waits for the end of a process as [`spawn::reap`](super::spawn::reap) does, and says how it ended and what
/// it had used.
pub(super) fn reap(pidfd: BorrowedFd<'_>, pid: u32) -> (DeathCause, Usage) {
    // The process's clocks are gone once it is reaped. If the wait fails, so does the next one, which says why.
    let _ = rustix::io::retry_on_intr(|| {
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        rustix::process::waitid(WaitId::PidFd(pidfd), ended)
    });
    let ticks = ProcessClock::of(pid).and_then(|clock| clock.in_ticks().read());
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    let reaped = rustix::io::retry_on_intr(|| {
        // SAFETY: waitid(2) with its fifth argument, which libc's function does not have. Both
        // pointers are to memory of the right type that outlives the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_waitid,
                libc::P_PIDFD,
                pidfd.as_raw_fd(),
                info.as_mut_ptr(),
                libc::WEXITED,
                usage.as_mut_ptr(),
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(rustix::io::Errno::from_io_error(&std::io::Error::last_os_error())
                .unwrap_or(rustix::io::Errno::INVAL))
        }
    });
    // SAFETY: both are plain data for which zeros are values, and the kernel has filled them if it could.
    let (info, usage) = unsafe { (info.assume_init(), usage.assume_init()) };
    if reaped.is_err() {
        // The embedder ignores SIGCHLD or reaps every child itself.
        return (DeathCause::Unknown, Usage { cpu: Duration::ZERO, ticks: None, peak_bytes: None });
    }
    // SAFETY: a siginfo that waitid has filled has a status.
    let status = unsafe { info.si_status() };
    let cause = match info.si_code {
        libc::CLD_EXITED => DeathCause::Exited(status),
        libc::CLD_KILLED | libc::CLD_DUMPED => DeathCause::Signaled(status),
        _ => DeathCause::Unknown,
    };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    let peak_bytes = Some(usage.ru_maxrss.unsigned_abs() * 1024);
    (cause, Usage { cpu: time(usage.ru_utime) + time(usage.ru_stime), ticks, peak_bytes })
}

/// Ticks may be ahead of what a process has truly used by this much, where the kernel does not say what it has
/// counted by them.
const TICKS_AHEAD: Duration = Duration::from_millis(250);

/// Returns how it ended, if that was at the limit of CPU time that all children inherit from this process.
pub(super) fn at_cpu_limit(cause: DeathCause, used: &Usage) -> DeathCause {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Cpu).maximum;
    told_by_limit(cause, used, limit.map(Duration::from_secs))
}

fn told_by_limit(cause: DeathCause, used: &Usage, limit: Option<Duration>) -> DeathCause {
    let signals = [rustix::process::Signal::KILL, rustix::process::Signal::XCPU];
    let is_ended = signals.iter().any(|signal| cause == DeathCause::Signaled(signal.as_raw()));
    let counted = used.ticks.unwrap_or(used.cpu.saturating_add(TICKS_AHEAD));
    match limit {
        Some(limit) if is_ended && counted >= limit => DeathCause::CpuTimeUsedUp { limit },
        _ => cause,
    }
}

/// The most that was ever resident of this process; 0 if that cannot be known.
pub(super) fn own_peak() -> u64 {
    let status = kernel_text("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    kib.and_then(|kib| kib.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_is_the_cpu_limits_where_the_kernel_has_counted_up_to_it_whatever_was_computed() {
        let limit = Duration::from_secs(60);
        let used = |cpu: u64, ticks: Option<u64>| Usage {
            cpu: Duration::from_millis(cpu),
            ticks: ticks.map(Duration::from_millis),
            peak_bytes: None,
        };
        let told = |cause: i32, used: &Usage| told_by_limit(DeathCause::Signaled(cause), used, Some(limit));
        for signal in [libc::SIGKILL, libc::SIGXCPU] {
            // Ticks are ahead by more the longer a process has lived that sleeps and computes in turns.
            assert_eq!(told(signal, &used(58_900, Some(60_000))), DeathCause::CpuTimeUsedUp { limit });
            assert_eq!(
                told(signal, &used(60_900, Some(59_990))),
                DeathCause::Signaled(signal),
                "somebody else's"
            );
            assert_eq!(told(signal, &used(59_800, None)), DeathCause::CpuTimeUsedUp { limit });
            assert_eq!(told(signal, &used(59_000, None)), DeathCause::Signaled(signal));
        }
        assert_eq!(told(libc::SIGSEGV, &used(60_000, Some(60_000))), DeathCause::Signaled(libc::SIGSEGV));
        let killed = DeathCause::Signaled(libc::SIGKILL);
        assert_eq!(told_by_limit(killed.clone(), &used(90_000, Some(90_000)), None), killed);
    }
}
