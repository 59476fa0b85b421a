//! The watcher thread, and what it shares with the main thread.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock, mpsc};

use std::time::Duration;

use rustix::net::RecvFlags;
use tokio::sync::Notify;
use wasmtime::Engine;

use super::alarm::Alarm;
use super::arrivals::Arrivals;
use super::asks::Replies;
use super::events::Reporter;
use super::loaded::{Arrived, Loaded, ModuleFiles};
use super::polling_page::PollingPage;
use super::run_end;
use super::samples::{CodeAtHand, Registers, Sample};
use super::shares::Mappings;
use super::stop_signal;
use super::task_log::TaskLog;
use proto::control::ControlSocket;
use proto::limits::SHARES_PER_TASK_MAX;
use proto::message::{ModuleId, ShareId, ToWorkerControl};
use proto::refused::calling;
use proto::ring::End;
use proto::slice;
use proto::task::TaskId;
use proto::trap::Frame;

/// An interrupt that is not heeded is repeated this often at last, and for as long as this many times take.
const REPEAT_EVERY: Duration = Duration::from_millis(2);
const REPEATS: u32 = 20;

/// Most interrupts are heeded by then. The next message waits meanwhile, which may be the next run's interrupt, so the
/// first repetitions come sooner.
const SOON: Duration = Duration::from_micros(20);

/// A task that has computed for so long since it was interrupted, and not looked, is worth a word: on a machine that is
/// busy, others may have had the processor meanwhile.
const DEAF_AFTER: Duration = Duration::from_millis(30);

/// A stack is waited for so long: on a busy machine its thread may have to wait for its turn.
const STACK_PATIENCE: Duration = Duration::from_secs(1);

/// Holds what the watcher and the main thread tell each other.
pub(crate) struct WatcherState {
    pub(super) modules: Arrivals<ModuleId, Arrived>,
    pub(super) inputs: Mappings,
    pub(super) replies: Replies,
    /// This is set when modules have ended: the main thread must drop what it keeps of them.
    pub(super) is_called: Arc<AtomicBool>,
    /// Wakes a main thread that waits for a task.
    wake: Box<dyn Fn() + Send + Sync>,
    /// The run that is to stop; numbers are never used twice, so a late request hits nothing.
    interrupted: AtomicU64,
    /// The run whose stack is asked for; 0 is none.
    sampled: AtomicU64,
    /// The run at hand, or 0.
    current: AtomicU64,
    /// The run that was begun last: its number stays when it has ended.
    begun: AtomicU64,
    /// This interrupts a task that waits inside a host call.
    pub(super) interrupt: Notify,
    /// The engines whose epoch an interrupt bumps, for a metered task that computes.
    engines: OnceLock<Vec<Engine>>,
    /// The page that an interrupt closes, for any other task that computes.
    pub(super) page: PollingPage,
    pub(super) code: CodeAtHand,
    sample: Sample,
    /// The run that was stopped at a safepoint last.
    stopped: AtomicU64,
    /// The task at hand, and where a stack is told that was asked for.
    task: AtomicU64,
    task_log: OnceLock<TaskLog>,
    /// The clock of the thread that runs tasks.
    clock: ThreadClock,
    /// Says what that clock showed when the run at hand began, in nanoseconds.
    began_cpu_ns: AtomicU64,
}

/// The CPU time of a thread, which others of its process may read.
#[derive(Debug, Clone, Copy)]
pub(super) struct ThreadClock(libc::clockid_t);

impl ThreadClock {
    pub(super) fn own() -> ThreadClock {
        let mut clock = libc::CLOCK_PROCESS_CPUTIME_ID;
        // SAFETY: the thread is this one, and the clock's number is written to a variable of that type. Where that
        // fails, the variable is as it was.
        unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) };
        ThreadClock(clock)
    }

    pub(super) fn read(self) -> Duration {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: it writes a time to a variable of that type; if it fails, that is zero.
        unsafe { libc::clock_gettime(self.0, &raw mut time) };
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    }
}

/// A stack that was asked for and is not there yet.
#[derive(Debug)]
struct AskedStack {
    run: u64,
    /// It is looked for again after this.
    wait: Duration,
    waited: Duration,
}

/// Says what came of an interrupt, as far as the watcher waits for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heeded {
    Yes,
    /// The task has computed for long enough since to have looked whether it is to stop.
    No,
    /// It has not had the processor.
    NotYet,
}

impl WatcherState {
    /// Makes the state. The thread that runs tasks must call this, since its clock is taken.
    pub(super) fn new(wake: impl Fn() + Send + Sync + 'static, page: PollingPage) -> Self {
        WatcherState {
            modules: Arrivals::new(),
            inputs: Mappings::new(),
            replies: Replies::default(),
            is_called: Arc::new(AtomicBool::new(false)),
            wake: Box::new(wake),
            interrupted: AtomicU64::new(0),
            sampled: AtomicU64::new(0),
            current: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            interrupt: Notify::new(),
            engines: OnceLock::new(),
            page,
            code: CodeAtHand::default(),
            sample: Sample::none(),
            stopped: AtomicU64::new(0),
            task: AtomicU64::new(0),
            task_log: OnceLock::new(),
            clock: ThreadClock::own(),
            began_cpu_ns: AtomicU64::new(0),
        }
    }

    /// Tells which engines there are, once.
    pub(super) fn set_engines(&self, engines: Vec<Engine>) {
        let _ = self.engines.set(engines);
    }

    /// Tells where the stacks of tasks are told, once.
    pub(super) fn set_task_log(&self, task_log: TaskLog) {
        let _ = self.task_log.set(task_log);
    }

    /// Returns whether this very run is to stop: the host wants it to, or it is at its limit of CPU time.
    pub(super) fn is_interrupted(&self, run: u64) -> bool {
        self.interrupted.load(Ordering::SeqCst) == run
    }

    /// Returns whether the run at hand is to stop, and notes that it does. Called in the handler of faults: it takes no
    /// lock and allocates nothing.
    pub(super) fn is_to_stop(&self) -> bool {
        let run = self.current.load(Ordering::SeqCst);
        let is_to_stop = run != 0 && self.is_interrupted(run);
        if is_to_stop {
            self.stopped.store(run, Ordering::SeqCst);
        }
        is_to_stop
    }

    /// Returns whether this run was stopped where it found its polling page closed, and so ended with what looks like a
    /// trap of its own.
    pub(super) fn was_stopped(&self, run: u64) -> bool {
        self.stopped.load(Ordering::SeqCst) == run
    }

    /// Returns whether an address is in the code of the module at hand.
    pub(super) fn runs_at(&self, pc: usize) -> bool {
        self.code.has(pc)
    }

    /// Notes where the run at hand is, if its stack is asked for. Called in the handler of a signal, on its thread.
    pub(super) fn note_stack(&self, registers: Registers) {
        let run = self.sampled.load(Ordering::SeqCst);
        if run == 0 || !self.is_at_hand(run) || !self.runs_at(registers.pc) {
            return;
        }
        self.sample.fill(run, self.task.load(Ordering::SeqCst), registers, &self.code);
        self.sampled.store(0, Ordering::SeqCst);
    }

    /// Notes which run of which task is at hand, and what its thread's clock shows.
    pub(super) fn begin(&self, run: u64, task: TaskId, cpu_ns: u64) {
        self.task.store(task.0, Ordering::SeqCst);
        self.began_cpu_ns.store(cpu_ns, Ordering::SeqCst);
        self.current.store(run, Ordering::SeqCst);
        self.begun.store(run, Ordering::SeqCst);
    }

    /// Notes that no run is at hand.
    pub(super) fn end(&self) {
        self.current.store(0, Ordering::SeqCst);
    }

    /// Returns whether this run is at hand.
    pub(super) fn is_at_hand(&self, run: u64) -> bool {
        self.current.load(Ordering::SeqCst) == run
    }

    /// Asks the run to stop, if it is at hand. Safe in a signal handler: it takes no lock and allocates nothing. If the
    /// engine swallows it (see `stop_run`), somebody must ask again.
    pub(super) fn stop_in_handler(&self, run: u64) {
        self.interrupted.fetch_max(run, Ordering::SeqCst);
        self.bump_epochs();
        self.page.close(|| self.is_at_hand(run));
    }

    /// Returns when the run's thread will have computed for this long since the run began: `None` if the run has ended.
    /// The host may know of the begin a little earlier than this thread does.
    fn limit_of(&self, run: u64, cpu: Duration) -> Option<Duration> {
        for _ in 0..REPEATS {
            // The time at which a run begins is noted before the run's number. If another run has begun since,
            // this limit hits nothing.
            if self.is_at_hand(run) {
                let began = Duration::from_nanos(self.began_cpu_ns.load(Ordering::SeqCst));
                return began.checked_add(cpu);
            }
            if self.begun.load(Ordering::SeqCst) >= run {
                return None;
            }
            std::thread::sleep(REPEAT_EVERY);
        }
        None
    }

    /// Asks the run to stop, and says so if it does not.
    pub(super) fn interrupt(&self, run: u64) {
        if self.stop_run(run) == Heeded::No {
            tracing::warn!(
                run,
                "an interrupt is not heeded, though the task has computed for {DEAF_AFTER:?} since: the host ends \
                 this process if that goes on"
            );
        }
    }

    /// Asks the run to stop, and waits a while for it to do so.
    fn stop_run(&self, run: u64) -> Heeded {
        // Interrupts of two runs may be sent in either order; the numbers only grow.
        if self.interrupted.fetch_max(run, Ordering::SeqCst) > run {
            return Heeded::Yes;
        }
        // A run that is yet to begin looks for itself. Who waited for one that has ended would be late for the next.
        if !self.is_at_hand(run) {
            return Heeded::Yes;
        }
        let computed = self.clock.read();
        self.bump(run);
        // The engine may be about to extend its deadline in answer to an earlier bump, and so swallow this one:
        // repeat it while the run goes on. A thread that has the processor for that long looks more than once.
        let mut wait = SOON;
        let mut waited = Duration::ZERO;
        while waited < REPEAT_EVERY * REPEATS {
            std::thread::sleep(wait);
            if !self.is_at_hand(run) {
                return Heeded::Yes;
            }
            self.bump(run);
            waited += wait;
            wait = (wait * 2).min(REPEAT_EVERY);
        }
        let computed = self.clock.read().saturating_sub(computed);
        if computed < DEAF_AFTER { Heeded::NotYet } else { Heeded::No }
    }

    /// Has the run's thread note where it is. It does so once it has its turn, and is in code of the module's.
    fn ask_for_stack(&self, run: u64, alarm: &Alarm) -> AskedStack {
        self.sampled.store(run, Ordering::SeqCst);
        alarm.signal_at_once();
        AskedStack { run, wait: SOON, waited: Duration::ZERO }
    }

    /// Tells the host of the stack, if it is there. Returns what is still to be waited for: nothing if the run has ended,
    /// or has been in a host call for long.
    fn look_for_stack(&self, asked: AskedStack, alarm: &Alarm) -> Option<AskedStack> {
        let AskedStack { run, wait, waited } = asked;
        if let Some((task, addresses)) = self.sample.take(run) {
            if let Some(log) = self.task_log.get() {
                log.record_stack(TaskId(task), &run_end::shown(&self.frames_at(&addresses)));
            }
            return None;
        }
        if !self.is_at_hand(run) || waited > STACK_PATIENCE {
            self.sampled.store(0, Ordering::SeqCst);
            return None;
        }
        alarm.signal_at_once();
        Some(AskedStack { run, wait: (wait * 2).min(REPEAT_EVERY), waited: waited + wait })
    }

    /// Names the frames of a stack of the module at hand then.
    fn frames_at(&self, addresses: &[usize]) -> Vec<Frame> {
        let has = |loaded: &Loaded| addresses.first().is_some_and(|address| loaded.code().contains(address));
        let loaded = self.modules.lock().values().find_map(|arrived| match arrived {
            Arrived::Mapped(Ok(loaded)) if has(loaded) => Some(loaded.clone()),
            _ => None,
        });
        loaded.map(|loaded| loaded.frames_at(addresses)).unwrap_or_default()
    }

    /// Asks the run to look whether it is to stop.
    fn bump(&self, run: u64) {
        self.bump_epochs();
        self.page.close(|| self.is_at_hand(run));
        self.interrupt.notify_one();
    }

    fn bump_epochs(&self) {
        fence(Ordering::SeqCst);
        self.engines.get().into_iter().flatten().for_each(Engine::increment_epoch);
    }

    /// Unmaps what has ended, except for what a task still uses and what the main thread keeps: that is
    /// called to drop it.
    fn forget(&self, modules: &[ModuleId], shares: &[ShareId]) {
        self.inputs.forget(shares);
        self.modules.forget(modules);
        if !modules.is_empty() {
            tracing::debug!(modules = modules.len(), "modules have ended");
            self.is_called.store(true, Ordering::SeqCst);
            (self.wake)();
        }
    }

    /// Returns whether the main thread was called; it returns `true` once for each call.
    pub(super) fn takes_call(&self) -> bool {
        self.is_called.load(Ordering::SeqCst) && self.is_called.swap(false, Ordering::SeqCst)
    }
}

/// Starts the watcher. Whoever seals the process waits for it first.
///
/// # Errors
/// What the system says.
pub(super) fn start(
    socket: Arc<ControlSocket>,
    watcher: Arc<WatcherState>,
    alarm: Option<Alarm>,
    end: End,
    reporter: Arc<Reporter>,
) -> io::Result<Started> {
    // There is room for the word, so that the watcher does not wait until somebody takes it.
    let (stands, standing) = mpsc::sync_channel(1);
    let watcher = move || {
        // An interrupt is as late as this thread's turn.
        slice::be_brief();
        let by_signal = stop_signal::handle(&watcher, &end);
        if let Err(error) = &by_signal {
            tracing::debug!(%error, "runs are not stopped by a signal, but by messages");
        }
        // Sending fails only if nobody waits any more.
        let _ = stands.send(by_signal.is_ok());
        watch(&socket, &watcher, alarm.as_ref(), &reporter);
    };
    std::thread::Builder::new().name("watcher".into()).spawn(watcher).map_err(calling("start a thread"))?;
    Ok(Started(standing))
}

/// A watcher on its way.
pub(super) struct Started(mpsc::Receiver<bool>);

impl Started {
    /// Returns once the watcher runs: a thread's first steps take system calls that the sandbox does not allow later. Says
    /// whether runs are stopped by a signal.
    ///
    /// # Errors
    /// The watcher is gone.
    pub(super) fn wait(self) -> io::Result<bool> {
        self.0.recv().map_err(io::Error::other)
    }
}

fn watch(socket: &ControlSocket, watcher: &WatcherState, alarm: Option<&Alarm>, reporter: &Reporter) {
    let mut asked: Option<AskedStack> = None;
    let mut was_interrupted = false;
    loop {
        if let Some(run) = stop_signal::late(was_interrupted) {
            watcher.interrupt(run);
        }
        let flags = if asked.is_some() { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
        let received = socket.receive_unless_interrupted::<ToWorkerControl>(SHARES_PER_TASK_MAX, flags);
        was_interrupted = matches!(&received, Err(error) if error.kind() == io::ErrorKind::Interrupted);
        match received {
            Err(_) if was_interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(asked.as_ref().map_or(SOON, |asked| asked.wait));
                asked = asked.zip(alarm).and_then(|(asked, alarm)| watcher.look_for_stack(asked, alarm));
            }
            Ok(Some((ToWorkerControl::Interrupt { run }, _))) => watcher.interrupt(run),
            Ok(Some((ToWorkerControl::Limit { run, cpu_ns }, _))) => {
                if let Some(alarm) = alarm
                    && let Some(at) = watcher.limit_of(run, Duration::from_nanos(cpu_ns))
                {
                    alarm.set(run, at);
                }
            }
            Ok(Some((ToWorkerControl::Sample { run }, _))) => {
                asked = alarm.map(|alarm| watcher.ask_for_stack(run, alarm));
            }
            Ok(Some((ToWorkerControl::Module { module, code }, files))) => {
                let Ok([artifact, description]) = <[OwnedFd; 2]>::try_from(files) else { leave(1) };
                let files = ModuleFiles { code, artifact, description };
                watcher.modules.arrive(module, Arrived::Files(files));
            }
            Ok(Some((ToWorkerControl::Share { shares }, files))) => {
                if watcher.inputs.map(&shares, &files).is_none() {
                    leave(1);
                }
            }
            Ok(Some((ToWorkerControl::Forget { modules, shares }, _))) => watcher.forget(&modules, &shares),
            Ok(Some((ToWorkerControl::Reply { run, number, reply }, _))) => {
                watcher.replies.arrive(run, number, reply);
            }
            // The host is gone, or wants us gone.
            Ok(None) => {
                reporter.last_words();
                leave(0)
            }
            Ok(Some((ToWorkerControl::Setup { .. }, _))) | Err(_) => leave(1),
        }
    }
}

/// Ends the process whatever the main thread is doing: `exit` would run destructors that
/// a running task holds locks of.
fn leave(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    const RUN: u64 = 5;

    fn interrupted(work: impl FnOnce(&WatcherState, &AtomicBool)) -> Heeded {
        let watcher = WatcherState::new(|| (), PollingPage::new(None));
        watcher.begin(RUN, TaskId(1), 0);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let heeded = scope.spawn(|| {
                let heeded = watcher.stop_run(RUN);
                is_over.store(true, Ordering::SeqCst);
                heeded
            });
            work(&watcher, &is_over);
            heeded.join().expect("ends")
        })
    }

    #[test]
    fn only_a_task_that_has_computed_since_is_said_not_to_heed_its_interrupt() {
        // The thread waits here, as on a machine where others have the processor.
        assert_eq!(interrupted(|_, _| ()), Heeded::NotYet);
        // The run stops when it is asked.
        let heeds = |watcher: &WatcherState, _: &AtomicBool| {
            while !watcher.is_interrupted(RUN) {
                std::hint::spin_loop();
            }
            watcher.end();
        };
        assert_eq!(interrupted(heeds), Heeded::Yes);
        // The run goes on. It may not have the processor for long enough beside other tests, and then it is tried
        // again.
        let computes = |_: &WatcherState, is_over: &AtomicBool| {
            while !is_over.load(Ordering::SeqCst) {
                std::hint::spin_loop();
            }
        };
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while interrupted(computes) != Heeded::No {
            assert!(std::time::Instant::now() < deadline, "it is never said");
        }
    }
}
