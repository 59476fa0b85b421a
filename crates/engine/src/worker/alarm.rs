//! Stops a task at its limit of CPU time by the clock of the thread that runs it.
//!
//! The host judges what a task has used. But it may have to wait for its turn on a busy machine, and so may the
//! watcher, while the task computes on. Timers of the kernel fire where the task runs, and need no other thread. There
//! are two: one on the thread's CPU time, which fires at a tick of its processor only (every 4 ms at 250 Hz), and near
//! the limit one on the wall clock, which is exact while the thread has the processor. A task that sleeps is left to
//! the timer of CPU time, since each signal costs some of the very clock that it guards.
//!
//! A third timer fires where somebody asks for the task's stack ([`samples`](super::samples)).

use std::ffi::c_int;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::samples::Registers;
use super::signals::{self, SOON, Timer};
use super::watcher::{ThreadClock, WatcherState};

/// The default action of this signal ends the process. Nobody else here uses it.
const SIGNAL: c_int = libc::SIGVTALRM;

/// The timer of CPU time is set this much before the limit. It fires at most a tick later than it is set for, which is
/// 10 ms at 100 Hz, the longest that Linux has.
const NEAR: Duration = Duration::from_millis(11);

/// A task with less than this left is left to the timer of CPU time.
const LITTLE: Duration = Duration::from_micros(100);

/// Holds the timers, and what else the handler needs. A handler of signals has no argument of its own, so it
/// stands in a static.
struct Target {
    watcher: Arc<WatcherState>,
    clock: ThreadClock,
    of_cpu: Timer,
    of_wall: Timer,
    of_samples: Timer,
}

static TARGET: OnceLock<Target> = OnceLock::new();

/// The run that the timers are set for.
static RUN: AtomicU64 = AtomicU64::new(0);

/// The run has used up its limit when the thread's clock shows this many nanoseconds.
static AT_NS: AtomicU64 = AtomicU64::new(u64::MAX);

/// This is what the thread's clock showed when the timer of the wall clock was set, and for how long that was, in
/// nanoseconds.
static SET_NS: AtomicU64 = AtomicU64::new(0);
static WAIT_NS: AtomicU64 = AtomicU64::new(0);

/// Says that the timers are there.
#[derive(Debug)]
pub(super) struct Alarm(());

impl Alarm {
    /// Makes the timers for the calling thread, which must be the one that runs tasks, before the sandbox forbids it.
    /// Returns `None` where the system makes none: then the host alone stops tasks.
    pub(super) fn new(watcher: &Arc<WatcherState>) -> Option<Alarm> {
        let made = signals::handle(SIGNAL, on_alarm, libc::SA_RESTART, None).and_then(|()| {
            let of_cpu = Timer::new(libc::CLOCK_THREAD_CPUTIME_ID, SIGNAL, OF_CPU)?;
            let of_wall = Timer::new(libc::CLOCK_MONOTONIC, SIGNAL, OF_WALL)?;
            Ok((of_cpu, of_wall, Timer::new(libc::CLOCK_MONOTONIC, SIGNAL, OF_SAMPLES)?))
        });
        match made {
            Ok((of_cpu, of_wall, of_samples)) => {
                TARGET.get_or_init(|| Target {
                    watcher: watcher.clone(),
                    clock: ThreadClock::own(),
                    of_cpu,
                    of_wall,
                    of_samples,
                });
                Some(Alarm(()))
            }
            Err(error) => {
                tracing::debug!(%error, "no timers: only the host stops tasks at their limit of CPU time");
                None
            }
        }
    }

    /// Stops the run once the thread's clock shows `at`, which may be past. A run that was set before is forgotten.
    pub(super) fn set(&self, run: u64, at: Duration) {
        // The handler reads them the other way around. If it finds this run, it never finds the limit of another.
        AT_NS.store(u64::MAX, Ordering::SeqCst);
        RUN.store(run, Ordering::SeqCst);
        AT_NS.store(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
        if let Some(target) = TARGET.get() {
            match at.saturating_sub(target.clock.read()).checked_sub(NEAR) {
                Some(left) if !left.is_zero() => target.of_cpu.set(libc::TIMER_ABSTIME, at - NEAR),
                // The handler sees to the rest on its thread.
                _ => {
                    WAIT_NS.store(0, Ordering::SeqCst);
                    target.of_wall.set(0, SOON);
                }
            }
        }
    }
}

impl Alarm {
    /// Has the thread that runs tasks note where it is, if that is asked for.
    pub(super) fn signal_at_once(&self) {
        if let Some(target) = TARGET.get() {
            target.of_samples.set(0, SOON);
        }
    }
}

/// These tell the handler which timer has fired.
const OF_CPU: usize = 1;
const OF_WALL: usize = 2;
const OF_SAMPLES: usize = 3;

/// Runs on the thread that computes, between any two of its instructions: it takes no lock and allocates nothing.
extern "C" fn on_alarm(_: c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands a valid one over, and that of a timer has a value.
    let fired = unsafe { (*info).si_value().sival_ptr.addr() };
    signals::keeping_errno(|| match TARGET.get() {
        // SAFETY: the kernel hands over the context of the code that it interrupts.
        Some(target) if fired == OF_SAMPLES => target.watcher.note_stack(unsafe { Registers::of(context) }),
        Some(target) => target.look(fired),
        None => {}
    });
}

impl Target {
    /// Stops the run if it is over its limit, or sets a timer again. Called in the signal handler.
    fn look(&self, fired: usize) {
        let run = RUN.load(Ordering::SeqCst);
        let at_ns = AT_NS.load(Ordering::SeqCst);
        // A run that has ended needs no timer any more.
        if !self.watcher.is_at_hand(run) {
            return;
        }
        let now_ns = u64::try_from(self.clock.read().as_nanos()).unwrap_or(u64::MAX);
        let left_ns = at_ns.saturating_sub(now_ns);
        if left_ns == 0 {
            self.watcher.stop_in_handler(run);
            return;
        }
        // This signal was under way when the timers were set for another run, whose own signal is yet to come.
        if left_ns > 2 * NEAR.as_nanos() as u64 {
            return;
        }
        let computed_ns = now_ns.saturating_sub(SET_NS.load(Ordering::SeqCst));
        let has_computed = fired == OF_CPU || computed_ns >= WAIT_NS.load(Ordering::SeqCst) / 2;
        if has_computed && left_ns >= LITTLE.as_nanos() as u64 {
            SET_NS.store(now_ns, Ordering::SeqCst);
            WAIT_NS.store(left_ns, Ordering::SeqCst);
            self.of_wall.set(0, Duration::from_nanos(left_ns));
        } else {
            // The thread sleeps, or had to wait for its turn. The timer fires at the first tick at which it has
            // computed on.
            let soon_ns = (left_ns / 2).min(LITTLE.as_nanos() as u64);
            self.of_cpu.set(libc::TIMER_ABSTIME, Duration::from_nanos(now_ns.saturating_add(soon_ns.max(1))));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proto::task::TaskId;

    use super::super::polling_page::PollingPage;
    use super::*;

    /// One test, since the timers are of one thread and of one process.
    #[test]
    fn a_run_is_stopped_by_its_own_thread_once_it_has_computed_and_not_for_sleeping() {
        let watcher = Arc::new(WatcherState::new(|| (), PollingPage::new(None)));
        let alarm = Alarm::new(&watcher).expect("timers");
        let clock = ThreadClock::own();
        let deadline = Instant::now() + Duration::from_secs(60);
        for run in 1..=20 {
            watcher.begin(run, TaskId(1), 0);
            // The limit of the run before is forgotten, though it comes sooner.
            alarm.set(run - 1, clock.read() + Duration::from_millis(5));
            let at = clock.read() + Duration::from_millis(12);
            alarm.set(run, at);
            while !watcher.is_interrupted(run) {
                assert!(Instant::now() < deadline, "run {run} is not stopped");
            }
            assert!(clock.read() >= at, "run {run} is stopped too early");
        }
        let run = 21;
        watcher.begin(run, TaskId(1), 0);
        let began = clock.read();
        alarm.set(run, began + Duration::from_millis(3));
        let asleep = Instant::now();
        while asleep.elapsed() < Duration::from_millis(700) {
            std::thread::sleep(Duration::from_millis(700).saturating_sub(asleep.elapsed()));
        }
        let used = clock.read() - began;
        assert!(!watcher.is_interrupted(run), "it was charged with {used:?}");
        while !watcher.is_interrupted(run) {
            assert!(Instant::now() < deadline, "it is not stopped");
        }
        assert!(clock.read() - began >= Duration::from_millis(3));
        // A run that has ended is looked at no more.
        watcher.begin(22, TaskId(1), 0);
        alarm.set(22, clock.read() + Duration::from_millis(2));
        watcher.end();
        let until = clock.read() + Duration::from_millis(30);
        while clock.read() < until {
            assert!(Instant::now() < deadline, "it does not compute");
        }
        assert!(!watcher.is_interrupted(22));
    }
}
