//! Decides how far and for how long a compiler steps back behind tasks.
//!
//! A compiler that somebody waits for runs as any process does, beside strangers and beside this pool's own
//! tasks. A bomb must not: it would take CPU time from tasks for as long as somebody sends bombs. The two are
//! told apart by the CPU time that a compiler has used, measured against the size of its module
//! ([`COMPILE_ALLOWANCE`]). A compiler over its allowance steps back while tasks of this process compute, and
//! runs freely when they do not. For a while after that, the pool mistrusts other modules, too.
//!
//! Stepping back means being stopped (SIGSTOP) most of the time, measured by the compiler's own clock: so it
//! gets the same part of the CPUs on a busy machine as on an idle one. Priorities cannot do this: niceness is
//! a share, of which bombs still got too much; an idle-only process (`SCHED_IDLE`) gets nothing on a busy
//! machine; and an ordinary user cannot take either back.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::cpu::ProcessClock;
use crate::fork::PerProcess;
use proto::limits::{
    COMPILE_ALLOWANCE, COMPILE_ALLOWANCE_MISTRUSTED, COMPILE_ALLOWANCE_NS_PER_BYTE, COMPILE_MISTRUST,
    COMPILE_STEPPED_BACK_PART, COMPILE_STEPPED_BACK_PART_MIN,
};
use proto::sync::Lock;

/// A compiler that steps back, or would, asks this often whether tasks compute.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// A compiler near its allowance is looked at this soon: each of its threads exceeds it by as much.
const LOOK_NEAR: Duration = Duration::from_millis(4);

/// A compiler that steps back runs for this long at a time. Each interruption of the tasks costs more than the time it
/// takes, so that a few long ones leave more to them than many short ones.
const RUN: Duration = Duration::from_millis(20);

/// A compiler that steps back is stopped for at most this long at a time.
const STOP_MAX: Duration = Duration::from_secs(2);

/// The first stop, before it is known how much a moment takes.
const STOP_FIRST: Duration = Duration::from_millis(100);

/// Tasks count as computing if they used at least this fraction of one CPU since the last look.
const COMPUTING_PART: u32 = 10;

/// A pool that met a bomb mistrusts other modules until this time.
#[derive(Debug, Default)]
pub(crate) struct Mistrust(Mutex<Option<Instant>>);

impl Mistrust {
    /// Begins to mistrust, because a module was or may be a bomb.
    pub(super) fn begin(&self, now: Instant) {
        *self.0.hold() = now.checked_add(COMPILE_MISTRUST);
    }

    fn is_on(&self, now: Instant) -> bool {
        self.0.hold().is_some_and(|until| now < until)
    }
}

/// The clocks of all workers of this process's pools, and what they had computed at the last look.
#[derive(Debug)]
struct Tasks {
    workers: Vec<(u32, ProcessClock)>,
    looked: Option<(Instant, Duration)>,
    compute: bool,
}

static TASKS: PerProcess<Mutex<Tasks>> =
    PerProcess::new(|| Mutex::new(Tasks { workers: Vec::new(), looked: None, compute: false }));

/// The number of this process's compilers that step back.
static STEPPED_BACK: PerProcess<AtomicUsize> = PerProcess::new(|| AtomicUsize::new(0));

fn tasks() -> MutexGuard<'static, Tasks> {
    TASKS.get().hold()
}

/// Registers a worker: its computing counts as the tasks'.
pub(super) fn worker_comes(pid: u32, clock: ProcessClock) {
    tasks().workers.push((pid, clock));
}

/// Unregisters a worker that is gone.
pub(super) fn worker_goes(pid: u32) {
    tasks().workers.retain(|(held, _)| *held != pid);
}

/// Returns whether tasks of this process's pools want the CPUs.
fn tasks_compute(now: Instant) -> bool {
    let mut tasks = tasks();
    let used = || tasks.workers.iter().filter_map(|(_, clock)| clock.read()).sum();
    match tasks.looked {
        Some((looked, _)) if now.saturating_duration_since(looked) < LOOK_AGAIN / 2 => {}
        Some((looked, before)) => {
            let used: Duration = used();
            let enough = now.saturating_duration_since(looked) / COMPUTING_PART;
            // The sum lacks workers that are gone by now, so it may be smaller than before.
            tasks.compute = used.saturating_sub(before) >= enough;
            tasks.looked = Some((now, used));
        }
        None => tasks.looked = Some((now, used())),
    }
    tasks.compute
}

/// The pace of one compiler, from its start to its end.
pub(super) struct Pace<'a> {
    mistrust: &'a Mistrust,
    pidfd: BorrowedFd<'a>,
    allowance: Duration,
    is_over: bool,
    gait: Gait,
}

/// A compiler runs freely, or alternates between short moments and long stops.
#[derive(Debug, Clone, Copy)]
enum Gait {
    Runs,
    /// It steps back, and has a moment to run until its next stop.
    Moment {
        until: Instant,
        began: Instant,
        used: Duration,
    },
    Stopped {
        until: Instant,
    },
}

impl<'a> Pace<'a> {
    pub(super) fn new(mistrust: &'a Mistrust, pidfd: BorrowedFd<'a>, wasm_bytes: usize) -> Pace<'a> {
        Pace { mistrust, pidfd, allowance: allowance(wasm_bytes), is_over: false, gait: Gait::Runs }
    }

    /// Lets the compiler run or stops it, by the CPU time it has used, and returns when to look again if
    /// `threads` of its threads run.
    pub(super) fn look(&mut self, used: Duration, threads: u32, now: Instant) -> Duration {
        if used > self.allowance && !self.is_over {
            self.is_over = true;
            self.mistrust.begin(now);
        }
        let allowance = match self.mistrust.is_on(now) {
            true => self.allowance.min(COMPILE_ALLOWANCE_MISTRUSTED),
            false => self.allowance,
        };
        if used < allowance {
            self.run();
            return ((allowance - used) / threads.max(1)).max(LOOK_NEAR);
        }
        if !tasks_compute(now) {
            self.run();
            return LOOK_AGAIN;
        }
        self.step_back(used, now);
        match self.gait {
            Gait::Runs => LOOK_AGAIN,
            Gait::Moment { until, .. } | Gait::Stopped { until } => {
                until.saturating_duration_since(now).min(LOOK_AGAIN)
            }
        }
    }

    fn step_back(&mut self, used: Duration, now: Instant) {
        self.gait = match self.gait {
            Gait::Runs => {
                STEPPED_BACK.get().fetch_add(1, Ordering::SeqCst);
                self.signal(Signal::STOP);
                Gait::Stopped { until: now + STOP_FIRST }
            }
            Gait::Stopped { until } if until <= now => {
                self.signal(Signal::CONT);
                Gait::Moment { until: now + RUN, began: now, used }
            }
            Gait::Moment { until, began, used: before } if until <= now => {
                self.signal(Signal::STOP);
                let wanted = used.saturating_sub(before).div_f64(part());
                Gait::Stopped { until: (began + wanted.min(STOP_MAX)).max(now + RUN) }
            }
            gait => gait,
        };
    }

    fn run(&mut self) {
        if matches!(self.gait, Gait::Runs) {
            return;
        }
        self.signal(Signal::CONT);
        self.gait = Gait::Runs;
        STEPPED_BACK.get().fetch_sub(1, Ordering::SeqCst);
    }

    fn signal(&self, signal: Signal) {
        // The signal fails only for a process that is gone already.
        let _ = rustix::process::pidfd_send_signal(self.pidfd, signal);
    }
}

impl Drop for Pace<'_> {
    /// Lets the compiler run: a host that fails must not leave it stopped for ever.
    fn drop(&mut self) {
        self.run();
    }
}

/// A module of this size may use this much CPU time without stepping back.
fn allowance(wasm_bytes: usize) -> Duration {
    let for_bytes = (wasm_bytes as u64).saturating_mul(COMPILE_ALLOWANCE_NS_PER_BYTE);
    COMPILE_ALLOWANCE.saturating_add(Duration::from_nanos(for_bytes))
}

/// Each compiler that steps back gets this part of a CPU.
fn part() -> f64 {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let sharers = STEPPED_BACK.get().load(Ordering::SeqCst).max(1) as f64;
    let least = 1.0 / f64::from(COMPILE_STEPPED_BACK_PART_MIN);
    (cpus / f64::from(COMPILE_STEPPED_BACK_PART) / sharers).max(least)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::process::{Pid, PidfdFlags};

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A process that computes until it is killed stands for workers and compilers.
    struct Busy(std::process::Child);

    impl Busy {
        fn new() -> Busy {
            let busy = std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn();
            Busy(busy.expect("starts"))
        }

        fn clock(&self) -> ProcessClock {
            ProcessClock::of(self.0.id()).expect("it is there")
        }

        fn pidfd(&self) -> std::os::fd::OwnedFd {
            let pid = Pid::from_raw(self.0.id() as i32).expect("a number");
            rustix::process::pidfd_open(pid, PidfdFlags::empty()).expect("opens")
        }

        fn is_stopped(&self) -> bool {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("reads");
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        }
    }

    impl Drop for Busy {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Drives a compiler for this long, as the host does, and returns the CPU time it used.
    fn drive(compiler: &Busy, pace: &mut Pace<'_>, time: Duration) -> Duration {
        let clock = compiler.clock();
        let began = Instant::now();
        let before = clock.read().expect("is told");
        while began.elapsed() < time {
            let used = clock.read().expect("is told");
            std::thread::sleep(pace.look(used, 1, Instant::now()).min(ms(20)));
        }
        clock.read().expect("is told") - before
    }

    #[test]
    fn what_is_over_its_allowance_steps_back_only_while_tasks_compute_and_never_to_nothing() {
        let compiler = Busy::new();
        let mistrust = Mistrust::default();
        let pidfd = compiler.pidfd();
        let mut pace = Pace::new(&mistrust, pidfd.as_fd(), 0);
        pace.allowance = ms(1);
        assert!(drive(&compiler, &mut pace, ms(400)) > ms(20), "nobody computes");
        assert!(!compiler.is_stopped() && pace.is_over && mistrust.is_on(Instant::now()));
        let worker = Busy::new();
        worker_comes(worker.0.id(), worker.clock());
        drive(&compiler, &mut pace, ms(300));
        let time = ms(3000);
        let stepped_back = drive(&compiler, &mut pace, time);
        // The compiler gets its part, plus what one moment may be late, and never nothing.
        let part = part() * time.as_secs_f64();
        assert!(stepped_back.as_secs_f64() < 2.0 * part + 0.1, "{stepped_back:?}, its part is {part} s");
        assert!(stepped_back > ms(10), "{stepped_back:?}");
        worker_goes(worker.0.id());
        drop(worker);
        drive(&compiler, &mut pace, ms(300));
        assert!(matches!(pace.gait, Gait::Runs) && !compiler.is_stopped());
        drop(pace);
        assert!(!compiler.is_stopped());
    }

    #[test]
    fn a_module_has_an_allowance_by_its_size_unless_another_was_a_bomb() {
        assert_eq!(allowance(0), COMPILE_ALLOWANCE);
        assert_eq!(allowance(10 << 20) - COMPILE_ALLOWANCE, Duration::from_nanos(3000 * (10 << 20)));
        let mistrust = Mistrust::default();
        let now = Instant::now();
        assert!(!mistrust.is_on(now));
        mistrust.begin(now);
        assert!(mistrust.is_on(now + COMPILE_MISTRUST - ms(1)) && !mistrust.is_on(now + COMPILE_MISTRUST));
    }
}
