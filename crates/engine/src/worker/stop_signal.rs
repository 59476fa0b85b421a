//! Stops a run where it computes, at the host's signal.
//!
//! The host writes the run's number where the rings lie, and signals this process: the kernel interrupts the very thread
//! that computes. So a task that has a processor is stopped without another thread of the worker's having its turn.
//!
//! The watcher does what a handler of signals cannot do: it wakes a run that waits in a host call, and asks again where
//! the engine has swallowed an interrupt. A timer interrupts the watcher for that, at once if the thread was in no code
//! of the module's, and otherwise only if the run is not over after a while.

use std::ffi::{c_int, c_void};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use proto::control::STOP_SIGNAL;
use proto::ring::End;

use super::samples::Registers;
use super::signals::{self, SOON, Timer};
use super::watcher::WatcherState;

/// Interrupts the watcher's wait for a message. Only the watcher's thread gets it, and nobody else here uses it; its
/// default action ends the process.
const LATE_SIGNAL: c_int = libc::SIGPROF;

/// A run that computes is over so soon after the host's signal.
const LATE_AFTER: Duration = Duration::from_micros(500);

/// The watcher is interrupted again after this, since it may have been about to wait.
const LATE_EVERY: Duration = Duration::from_millis(2);

/// Holds what the handler needs. It has no argument of its own, so this stands in a static.
struct Target {
    watcher: Arc<WatcherState>,
    end: End,
    late: Timer,
}

static TARGET: OnceLock<Target> = OnceLock::new();

/// The run that the watcher is to see to once the timer fires; 0 is none.
static LATE: AtomicU64 = AtomicU64::new(0);

/// Has the host's signal handled, once a process. The watcher's thread must call this, before the sandbox forbids it.
///
/// # Errors
/// The errors of timer_create and sigaction; then the host must send messages.
pub(super) fn handle(watcher: &Arc<WatcherState>, end: &End) -> io::Result<()> {
    let late = Timer::new(libc::CLOCK_MONOTONIC, LATE_SIGNAL, 0)?;
    // Without `SA_RESTART`, so that the wait for a message ends.
    signals::handle(LATE_SIGNAL, on_late, 0, None)?;
    TARGET.get_or_init(|| Target { watcher: watcher.clone(), end: end.clone(), late });
    // One handler at a time: a thread's stack for signals need not have room for both.
    signals::handle(STOP_SIGNAL.as_raw(), on_stop, libc::SA_RESTART, Some(LATE_SIGNAL))
}

extern "C" fn on_late(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {}

/// Runs between any two instructions of the thread that computes, or of another one while that waits for its turn: it
/// takes no lock and allocates nothing.
extern "C" fn on_stop(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    if let Some(target) = TARGET.get() {
        // SAFETY: the kernel hands over the context of the code that it interrupts.
        signals::keeping_errno(|| target.stop(unsafe { Registers::of(context) }));
    }
}

impl Target {
    fn stop(&self, at: Registers) {
        let run = self.end.run_to_stop();
        // Somebody else has sent the signal.
        if run == 0 {
            return;
        }
        self.watcher.stop_in_handler(run);
        // A run that is yet to begin looks for itself.
        if self.watcher.is_at_hand(run) {
            // On another thread, this may have been at hand a while ago.
            LATE.fetch_max(run, Ordering::SeqCst);
            let after = if self.watcher.runs_at(at.pc) { LATE_AFTER } else { SOON };
            self.late.set_again_and_again(after, LATE_EVERY);
        }
    }
}

/// Returns the run that the watcher is to see to, once. Only the watcher asks: whenever it has been interrupted, and when it
/// looks for its next message.
pub(super) fn late(was_interrupted: bool) -> Option<u64> {
    if !was_interrupted && LATE.load(Ordering::SeqCst) == 0 {
        return None;
    }
    // In this order. The handler may set the timer again meanwhile, for a run that is returned here: then it fires, and the
    // watcher asks once more.
    TARGET.get().inspect(|target| target.late.unset());
    Some(LATE.swap(0, Ordering::SeqCst)).filter(|run| *run != 0)
}
