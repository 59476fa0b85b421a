//! Signals of this process's own: how their handlers are set, and timers that send them.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem;
use std::ptr;
use std::time::Duration;

use proto::refused::calling;

/// A handler of a signal. It runs between any two instructions of a thread, so it takes no lock and allocates nothing.
pub(super) type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// A timer that is set to zero would be off.
pub(super) const SOON: Duration = Duration::from_micros(1);

/// Sets the handler of a signal. While it runs, its thread gets neither that signal nor `blocked`.
///
/// # Errors
/// The error of sigaction.
pub(super) fn handle(
    signal: c_int,
    handler: Handler,
    flags: c_int,
    blocked: Option<c_int>,
) -> io::Result<()> {
    // SAFETY: all bytes zero are such an action; the handler has the signature of one with `SA_SIGINFO`.
    let failed = unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler as usize;
        if let Some(blocked) = blocked {
            libc::sigaddset(&raw mut action.sa_mask, blocked);
        }
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | flags;
        libc::sigaction(signal, &action, ptr::null_mut())
    };
    if failed == 0 { Ok(()) } else { Err(calling("sigaction")(io::Error::last_os_error())) }
}

/// Does the work of a handler, and leaves the thread's `errno` as it was.
pub(super) fn keeping_errno(work: impl FnOnce()) {
    // SAFETY: the address of this thread's own variable.
    let errno = unsafe { *libc::__errno_location() };
    work();
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// A timer of the kernel's, which signals the thread that made it.
#[derive(Debug)]
pub(super) struct Timer(c_int);

impl Timer {
    /// Makes a timer that signals the calling thread; the signal's handler is told the number.
    ///
    /// # Errors
    /// The error of timer_create.
    pub(super) fn new(clock: libc::clockid_t, signal: c_int, told: usize) -> io::Result<Timer> {
        let mut timer: c_int = 0;
        // SAFETY: all bytes zero are such a description; the kernel reads it, and writes the timer's number, an `int`.
        let failed = unsafe {
            let mut event: libc::sigevent = mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = signal;
            event.sigev_value.sival_ptr = ptr::without_provenance_mut(told);
            event.sigev_notify_thread_id = libc::gettid();
            libc::syscall(libc::SYS_timer_create, clock, &raw mut event, &raw mut timer)
        };
        if failed == 0 { Ok(Timer(timer)) } else { Err(io::Error::last_os_error()) }
    }

    /// Sets the timer to fire once. Safe in a signal handler.
    pub(super) fn set(&self, flags: c_int, time: Duration) {
        self.set_times(flags, time, Duration::ZERO);
    }

    /// Sets the timer to fire after this time, and then again and again. Safe in a signal handler.
    pub(super) fn set_again_and_again(&self, first: Duration, every: Duration) {
        self.set_times(0, first, every);
    }

    /// Stops the timer. Safe in a signal handler.
    pub(super) fn unset(&self) {
        self.set_times(0, Duration::ZERO, Duration::ZERO);
    }

    fn set_times(&self, flags: c_int, first: Duration, every: Duration) {
        let [it_value, it_interval] = [first, every].map(|time| libc::timespec {
            tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: time.subsec_nanos().into(),
        });
        let times = libc::itimerspec { it_interval, it_value };
        let before: *mut libc::itimerspec = ptr::null_mut();
        // SAFETY: the kernel reads the times and writes nothing. If it refuses, the host stops the task.
        unsafe { libc::syscall(libc::SYS_timer_settime, self.0, flags, &raw const times, before) };
    }
}
