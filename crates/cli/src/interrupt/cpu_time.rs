//! The limit of this process's own CPU time (`RLIMIT_CPU`), which is to end it in order and not without a word.
//!
//! The kernel kills without a word at the hard limit, and sends SIGXCPU at the soft one. If both are one
//! (`ulimit -t`), the soft one is lowered by a second, the least that it can be, or a timer sends the signal
//! where there is only one second. Children have their own clocks, and raise their soft limits again.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The clock that the kernel compares with the limit: `MAKE_PROCESS_CPUCLOCK(0, CPUCLOCK_PROF)`, of this process.
const OWN_TICKS: libc::clockid_t = !0 << 3;

/// This much of one second is left for an orderly end.
const LAST_NANOS: libc::c_long = 500_000_000;

/// The lower of both limits, as this process was started with them.
static GIVEN: OnceLock<Option<u64>> = OnceLock::new();

/// Sees to it that the signal comes while there is CPU time left.
pub(super) fn keep_some() {
    let Rlimit { current, maximum } = getrlimit(Resource::Cpu);
    GIVEN.get_or_init(|| [current, maximum].into_iter().flatten().min());
    match maximum {
        Some(hard) if hard > 1 && current == maximum => {
            // Nobody is refused a lower limit.
            let _ = setrlimit(Resource::Cpu, Rlimit { current: Some(hard - 1), maximum });
        }
        Some(1) => signal_at(libc::timespec { tv_sec: 0, tv_nsec: LAST_NANOS }),
        _ => {}
    }
}

/// Has the kernel send SIGXCPU once this process has computed for so long. If there is no timer, the process
/// is killed a little later, as it would have been.
fn signal_at(computed: libc::timespec) {
    // SAFETY: a sigevent is plain data for which zeros are a value.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = libc::SIGXCPU;
    let mut timer: libc::timer_t = std::ptr::null_mut();
    // SAFETY: timer_create reads the event, and writes a timer to a variable of that type.
    if unsafe { libc::timer_create(OWN_TICKS, &raw mut event, &raw mut timer) } != 0 {
        return;
    }
    let none = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let at = libc::itimerspec { it_interval: none, it_value: computed };
    // SAFETY: the timer was just made and is never deleted; the old time is not asked for.
    unsafe { libc::timer_settime(timer, libc::TIMER_ABSTIME, &raw const at, std::ptr::null_mut()) };
}

/// Says why this process ends.
pub(super) fn is_up() -> String {
    let limit = GIVEN.get().copied().flatten();
    let limit = limit.map(|seconds| format!(" of {seconds} s")).unwrap_or_default();
    format!("stopping: this process has used up its CPU time (RLIMIT_CPU{limit}): raise it (ulimit -t)")
}
