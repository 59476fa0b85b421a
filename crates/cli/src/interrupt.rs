//! Signals that ask the command to end: Ctrl-C, SIGTERM, SIGHUP, SIGQUIT. Workers do not receive the
//! terminal's signals, since each is a session of its own.
//!
//! | signal | a map | everything else |
//! |---|---|---|
//! | SIGINT (Ctrl-C) | starts nothing more and finishes what runs, however long that takes | ends at once |
//! | SIGTERM, SIGHUP | the same, but stops what runs once the grace period is over | ends at once |
//! | SIGXCPU (`ulimit -t`: all but the last of this process's own CPU time is used, see `cpu_time`) | as SIGTERM | ends at once |
//! | SIGQUIT (Ctrl-\) | stops what runs | ends at once |
//!
//! The second signal stops what runs, whatever the first one was. This process then ends within
//! [`LAST_RESORT`], whatever it waits for: a reader of stdout that does not read, a file that does not open.
//! One more signal ends it at once.
//!
//! The handlers are installed on a command's first line, so that signals count in a container, too: the
//! kernel ignores a signal to the first process of a container (`docker stop`) if it has no handler for it.

mod cpu_time;
mod sayings;

use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use super::console::Console;
use super::exit::{Exit, Failure};
use super::streams;
use proto::limits::STOP_GRACE;
use proto::refused::calling;
use proto::sync::Lock;
use sayings::Sayings;

/// Signals that come closer together than this count as one: `timeout` signals both the command and its
/// group, and systemd sends a SIGHUP right after its SIGTERM.
const TOGETHER: Duration = Duration::from_millis(50);

/// SIGHUPs count as one for longer: a terminal that closes sends one, and its shell sends another a little
/// later.
const HANGUPS_TOGETHER: Duration = Duration::from_secs(1);

/// This process ends this long after it was told to stop what runs, whatever it is waiting for.
const LAST_RESORT: Duration = Duration::from_secs(5);

/// Sent when the soft limit of CPU time is reached, and again each second after that.
const SIGXCPU: i32 = libc::SIGXCPU;

/// Within this time somebody is told what this process still waits for.
const SAID_WITHIN: Duration = Duration::from_millis(500);

/// Clearing the progress bar may take this long: a terminal that was stopped by Ctrl-S would block it for
/// ever.
const BAR_PATIENCE: Duration = Duration::from_millis(200);

/// This process waits so long at its end for what it still says, since nobody may read stderr.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The messages about signals that are being written.
static SAYINGS: Sayings = Sayings::new();

/// This is the signal that asked for the end; 0 means that none came.
static STOPPED_BY: AtomicI32 = AtomicI32::new(0);

/// The listener receives what a signal asks for. A signal ends this process at once where there is no
/// listener.
static LISTENER: Mutex<Option<Sender<StopRequest>>> = Mutex::new(None);

/// A signal requests this of work that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopRequest {
    /// Start nothing more, and let what runs go on for at most this long.
    Soon(Option<Duration>),
    /// Stop what runs.
    Now,
    /// End this process at once.
    Leave,
}

/// Begins to handle signals. After SIGTERM or SIGHUP, running tasks have `grace` to end.
pub(super) fn begin(grace: Option<Duration>, console: &Console) -> Result<(), Failure> {
    let cannot = |error| Failure::Internal(format!("cannot listen for signals: {error}"));
    cpu_time::keep_some();
    let listening = calling("socketpair, sigaction");
    let mut signals = Signals::new(heeded()).map_err(listening).map_err(cannot)?;
    let (sender, receiver) = unbounded();
    let thread = |name: &str| std::thread::Builder::new().name(name.into());
    let pass_on = move || {
        for signal in signals.forever() {
            // The receiving thread never ends, so the send cannot fail.
            let _ = sender.send(signal);
        }
    };
    thread("wasmpool-signals").spawn(pass_on).map_err(calling("start a thread")).map_err(cannot)?;
    let course = Course::new(grace.unwrap_or(STOP_GRACE));
    let console = console.clone();
    let follow = move || follow(course, &receiver, &console);
    thread("wasmpool-interrupt").spawn(follow).map_err(calling("start a thread")).map_err(cannot)?;
    Ok(())
}

/// Signals that were ignored stay ignored: `nohup` ignores SIGHUP, and a shell without job control ignores
/// SIGQUIT for what it starts in the background.
fn heeded() -> Vec<i32> {
    let status = proto::kernel::kernel_text("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok())
        .unwrap_or_default();
    let is_ignored = |signal: i32| ignored >> (signal - 1) & 1 == 1;
    let unless_ignored = [SIGHUP, SIGQUIT].into_iter().filter(|signal| !is_ignored(*signal));
    [SIGINT, SIGTERM, SIGXCPU].into_iter().chain(unless_ignored).collect()
}

fn follow(mut course: Course, signals: &Receiver<i32>, console: &Console) {
    // This is the time of the next look at what the end waits for.
    let mut say_at: Option<Instant> = None;
    loop {
        let due = course.due.map(|(due, _)| due);
        let next = match due.into_iter().chain(say_at).min() {
            Some(until) => signals.recv_deadline(until),
            None => signals.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let now = Instant::now();
        if say_at.take_if(|at| *at <= now).is_some() {
            say_what_is_waited_for(course.due, now, console);
        }
        let request = match next {
            Ok(signal) => course.signal(signal, now),
            Err(RecvTimeoutError::Timeout) if due.is_none_or(|due| due > now) => None,
            Err(RecvTimeoutError::Timeout) => course.overdue(now),
            // The sending thread never ends, so this cannot happen.
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Some(request) = request else { continue };
        if course.stopped_by == SIGXCPU && STOPPED_BY.load(Ordering::SeqCst) == 0 {
            say(console, cpu_time::is_up());
        }
        STOPPED_BY.store(course.stopped_by, Ordering::SeqCst);
        say_at = now.checked_add(SAID_WITHIN);
        if request == StopRequest::Leave || !tell(request) {
            leave(console);
        }
    }
}

/// A write to stdout does not end while its reader does not read, and what it takes to stop is not seen there.
fn say_what_is_waited_for(due: Option<(Instant, StopRequest)>, now: Instant, console: &Console) {
    if !streams::is_stdout_waited_for() {
        return;
    }
    let ends = due.map(|(due, request)| {
        let last = if request == StopRequest::Leave { Duration::ZERO } else { LAST_RESORT };
        let within =
            Duration::from_secs((due.saturating_duration_since(now) + last).as_secs_f64().ceil() as u64);
        format!(", for {} at most", humantime::format_duration(within))
    });
    let ends = ends.unwrap_or_default();
    say(
        console,
        format!("stopping: waiting for the reader of stdout, who does not read{ends}; again to end sooner"),
    );
}

/// Says it from another thread: nobody may read stderr either, and this one must keep the time.
fn say(console: &Console, message: String) {
    let console = console.clone();
    SAYINGS.begin(move || console.say(&message));
}

/// Waits until what was said about signals is on stderr: the end of this process would cut it off.
pub(super) fn finish_saying() {
    SAYINGS.finish(LAST_WORDS);
}

/// Returns `false` if nobody listens: then only the end of this process stops the work.
fn tell(request: StopRequest) -> bool {
    let listener = LISTENER.hold();
    listener.as_ref().is_some_and(|listener| listener.send(request).is_ok())
}

/// Ends this process; workers and compilers die with it.
fn leave(console: &Console) -> ! {
    let console = console.clone();
    SAYINGS.begin(move || console.set_bar(None));
    SAYINGS.finish(BAR_PATIENCE);
    // This exit takes no lock and runs no destructor, so a stuck thread cannot hold it up.
    signal_hook::low_level::exit(i32::from(code()))
}

/// Listens to signals. The caller must act on what they request from here on.
pub(super) fn listen() -> Receiver<StopRequest> {
    let (sender, receiver) = unbounded();
    *LISTENER.hold() = Some(sender);
    receiver
}

/// Returns how to end, if a signal came.
pub(super) fn exit() -> Option<Exit> {
    (STOPPED_BY.load(Ordering::SeqCst) != 0).then(|| Exit::Interrupted(code()))
}

/// The exit code of a process that such a signal ended, as shells show it.
pub(super) fn code() -> u8 {
    128 + u8::try_from(STOPPED_BY.load(Ordering::SeqCst)).unwrap_or_default()
}

/// The state of an interruption: what was asked for so far, and what follows by itself. It knows no clock.
#[derive(Debug)]
struct Course {
    grace: Duration,
    /// The last signal that counted.
    stopped_by: i32,
    counted: Option<Instant>,
    done: Option<StopRequest>,
    due: Option<(Instant, StopRequest)>,
}

impl Course {
    fn new(grace: Duration) -> Course {
        Course { grace, stopped_by: 0, counted: None, done: None, due: None }
    }

    fn signal(&mut self, signal: i32, now: Instant) -> Option<StopRequest> {
        // SIGXCPU comes again by itself, and asks for nothing more.
        if signal == SIGXCPU && self.done.is_some() {
            return None;
        }
        let together =
            if signal == SIGHUP && self.stopped_by == SIGHUP { HANGUPS_TOGETHER } else { TOGETHER };
        let is_same = self.counted.is_some_and(|counted| now.duration_since(counted) < together);
        if is_same && signal != SIGQUIT {
            return None;
        }
        (self.stopped_by, self.counted) = (signal, Some(now));
        let request = match self.done {
            None if signal == SIGQUIT => StopRequest::Now,
            None if signal == SIGINT => StopRequest::Soon(None),
            None => StopRequest::Soon(Some(self.grace)),
            Some(StopRequest::Soon(_)) => StopRequest::Now,
            Some(StopRequest::Now | StopRequest::Leave) => StopRequest::Leave,
        };
        self.take(request, now)
    }

    /// The deadline in `due` has passed.
    fn overdue(&mut self, now: Instant) -> Option<StopRequest> {
        let (_, request) = self.due.take()?;
        self.take(request, now)
    }

    fn take(&mut self, request: StopRequest, now: Instant) -> Option<StopRequest> {
        self.done = Some(request);
        self.due = match request {
            // A deadline that is beyond what a clock can show never comes.
            StopRequest::Soon(grace) => {
                grace.and_then(|grace| now.checked_add(grace)).map(|due| (due, StopRequest::Now))
            }
            StopRequest::Now => now.checked_add(LAST_RESORT).map(|due| (due, StopRequest::Leave)),
            StopRequest::Leave => None,
        };
        Some(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    /// Makes a course, and a clock that starts at zero.
    fn course() -> (Course, impl Fn(u64) -> Instant) {
        let began = Instant::now();
        (Course::new(GRACE), move |millis| began + Duration::from_millis(millis))
    }

    #[test]
    fn what_runs_is_finished_and_stopped_once_its_grace_period_is_over() {
        for signal in [SIGTERM, SIGHUP] {
            let (mut course, at) = course();
            assert_eq!(course.signal(signal, at(0)), Some(StopRequest::Soon(Some(GRACE))));
            assert_eq!(course.due, Some((at(10_000), StopRequest::Now)));
            assert_eq!(course.overdue(at(10_000)), Some(StopRequest::Now));
            assert_eq!(course.due, Some((at(15_000), StopRequest::Leave)), "whatever it waits for");
            assert_eq!((course.overdue(at(15_000)), course.stopped_by), (Some(StopRequest::Leave), signal));
        }
    }

    #[test]
    fn the_first_interrupt_waits_for_what_runs_however_long_that_takes() {
        let (mut course, at) = course();
        assert_eq!((course.signal(SIGINT, at(0)), course.due), (Some(StopRequest::Soon(None)), None));
        assert_eq!(course.signal(SIGINT, at(1_000)), Some(StopRequest::Now));
        assert_eq!(course.due, Some((at(6_000), StopRequest::Leave)));
        assert_eq!(course.signal(SIGINT, at(2_000)), Some(StopRequest::Leave));
    }

    #[test]
    fn to_quit_waits_for_nothing_that_runs_nor_for_another_signals_grace_period() {
        let (mut first, at) = course();
        assert_eq!(first.signal(SIGQUIT, at(0)), Some(StopRequest::Now));
        let (mut second, _) = course();
        second.signal(SIGTERM, at(0));
        assert_eq!((second.signal(SIGQUIT, at(1)), second.stopped_by), (Some(StopRequest::Now), SIGQUIT));
    }

    #[test]
    fn signals_that_come_together_are_one_and_so_are_the_hangups_of_a_terminal_and_its_shell() {
        let (mut pair, at) = course();
        pair.signal(SIGTERM, at(0));
        assert_eq!((pair.signal(SIGHUP, at(10)), pair.stopped_by), (None, SIGTERM));
        assert_eq!(pair.signal(SIGTERM, at(100)), Some(StopRequest::Now));
        let (mut hangups, at) = course();
        hangups.signal(SIGHUP, at(0));
        assert_eq!(hangups.signal(SIGHUP, at(900)), None);
        assert_eq!(hangups.signal(SIGHUP, at(1_100)), Some(StopRequest::Now));
    }

    #[test]
    fn cpu_time_that_is_used_up_is_said_each_second_and_asks_once() {
        let (mut course, at) = course();
        assert_eq!(course.signal(SIGXCPU, at(0)), Some(StopRequest::Soon(Some(GRACE))));
        assert_eq!((course.signal(SIGXCPU, at(1_000)), course.signal(SIGXCPU, at(2_000))), (None, None));
        assert_eq!((course.signal(SIGTERM, at(3_000)), course.stopped_by), (Some(StopRequest::Now), SIGTERM));
    }

    #[test]
    fn a_grace_period_without_end_is_none() {
        let began = Instant::now();
        let mut course = Course::new(Duration::MAX);
        assert_eq!(
            (course.signal(SIGTERM, began), course.due),
            (Some(StopRequest::Soon(Some(Duration::MAX))), None)
        );
    }
}
