//! Seeded schedules of faults, with real processes: workers are killed and stopped, tasks time
//! out and are cancelled and aborted, the pool is resized, shut down, terminated, killed or
//! dropped, all at random moments. Whatever happens, every future resolves once, within its
//! bound, with a result that its schedule allows; and no process, descriptor, thread or mapping
//! is left.
//!
//! `WASMPOOL_SCHEDULES=10000 cargo test --release --test schedules` runs more of them, and
//! `WASMPOOL_SCHEDULE_SEED=1234` one alone. A failure names its seed; the moments differ from
//! run to run, the steps do not.
//!
//! This suite has an executable of its own because its processes take all processors for minutes: tests that run
//! beside it would miss their deadlines.

mod support;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::{Holdings, PATIENCE, eventually, is_child, raw, signal};
use wasmpool::error::SubmitError;
use wasmpool::event::EventKind;
use wasmpool::module::RawTask;
use wasmpool::pool::{OnWorkerDeath, Replacement, ShutdownMode};
use wasmpool::task::{Retry, TaskId};
use wasmpool::{Bytes, Pool, TaskError, TaskFailure, TaskFuture, TaskOptions};

/// Schedules in a run that asks for no number.
const SCHEDULES: u64 = 240;
/// Processes that run them side by side: they mostly wait.
const LANES: u64 = 4;
/// The most time from the last step of a schedule to the end of its last task.
const BOUND: Duration = Duration::from_secs(30);

/// Echoes, counts its first eight bytes down to zero before, or divides by zero.
const TASKS_WAT: &str = r#"(module
    (memory (export "memory") 16)
    (func (export "wasmpool_abi_v1"))
    (func (export "wasmpool_alloc") (param i32) (result i32) i32.const 1025)
    (func (export "work") (param $at i32) (param $len i32) (result i64)
        (local $left i64)
        (local.set $left (i64.load (local.get $at)))
        (block $done
            (loop $again
                (br_if $done (i64.eqz (local.get $left)))
                (local.set $left (i64.sub (local.get $left) (i64.const 1)))
                (br $again)))
        (i32.store8 (i32.const 1024) (i32.const 0))
        (i64.or (i64.shl (i64.const 1024) (i64.const 32))
                (i64.extend_i32_u (i32.add (local.get $len) (i32.const 1)))))
    (func (export "trap") (param i32 i32) (result i64)
        (i64.extend_i32_u (i32.div_u (i32.const 1) (i32.const 0)))))"#;

/// SplitMix64 (Steele, Lea, Flood 2014): a seed is a schedule.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        (!of.is_empty()).then(|| &of[self.below(of.len() as u64) as usize])
    }

    /// Lets a moment pass, or none.
    fn pause(&mut self) {
        let micros = [0, 0, 0, 50, 500, 5000][self.below(6) as usize];
        if micros > 0 {
            std::thread::sleep(Duration::from_micros(self.below(micros)));
        }
    }
}

/// The record of what was done to a task or its pool, from which follows what its result may be.
#[derive(Default)]
struct Meddled {
    cancelled: AtomicBool,
    aborted: AtomicBool,
}

struct Submitted {
    future: TaskFuture<Bytes>,
    input: Bytes,
    traps: bool,
    endless: bool,
    timeout: Option<Duration>,
    retries: bool,
    meddled: Meddled,
    called: Arc<AtomicUsize>,
}

struct Schedule {
    seed: u64,
    replaces: bool,
    pool: Pool,
    work: RawTask,
    trap: RawTask,
    submitted: Mutex<Vec<Arc<Submitted>>>,
    /// A worker was killed or stopped by somebody else than the pool.
    lethal: AtomicBool,
    /// The pool was told to end without waiting.
    cut_short: AtomicBool,
    cancelled_pending: AtomicBool,
}

impl Schedule {
    fn new(seed: u64) -> Schedule {
        let mut random = Random(seed);
        let workers = [1, 2, 8][random.below(3) as usize];
        let replaces = random.one_in(2);
        let mut builder = support::builder(workers).grace(Duration::from_millis(20));
        if replaces {
            let policy = Replacement::new()
                .crashes_max(50)
                .backoff(Duration::from_millis(1), Duration::from_millis(5));
            builder = builder.on_worker_death(OnWorkerDeath::Replace(policy));
        }
        if random.one_in(3) {
            builder = builder.recycle_after_tasks(1 + random.below(4));
        }
        if random.one_in(4) {
            builder = builder.idle_timeout(Duration::from_millis(1 + random.below(10)));
        }
        if random.one_in(4) {
            builder = builder.workers_min(random.below(workers as u64 + 1) as usize);
        }
        if random.one_in(3) {
            builder = builder.prefetch_max(random.below(4) as usize);
        }
        if random.one_in(4) {
            builder = builder.queue_tasks_max(1 + random.below(8) as usize);
        }
        let pool = builder.build().expect("builds");
        let module = support::wat(&pool, TASKS_WAT);
        let work = raw(&module, "work");
        let trap = raw(&module, "trap");
        Schedule {
            seed,
            replaces,
            pool,
            work,
            trap,
            submitted: Mutex::default(),
            lethal: AtomicBool::new(false),
            cut_short: AtomicBool::new(false),
            cancelled_pending: AtomicBool::new(false),
        }
    }

    /// One of the tasks; half of the time one that runs, if there is one.
    fn some(&self, random: &mut Random) -> Option<Arc<Submitted>> {
        let submitted = self.submitted.lock().expect("locks");
        let running: Vec<_> = submitted.iter().filter(|some| some.future.is_running()).collect();
        let one = if random.one_in(2) { random.pick(&running).copied() } else { None };
        one.or_else(|| random.pick(&submitted)).cloned()
    }

    /// Makes a task of a module that ends with it, unless another task has it; returns `None` if the pool
    /// takes no more.
    fn own_task(&self, traps: bool, random: &mut Random) -> Option<RawTask> {
        let global = format!("(global i32 (i32.const {})) (memory", random.below(4));
        let wasm = wat::parse_str(TASKS_WAT.replacen("(memory", &global, 1)).expect("valid text");
        let module = self.pool.load(&wasm).ok()?;
        Some(raw(&module, if traps { "trap" } else { "work" }))
    }

    /// One task; `false` if the pool takes no more.
    fn submit(&self, random: &mut Random) -> bool {
        let traps = random.one_in(8);
        let endless = !traps && random.one_in(6);
        let steps = if endless { u64::MAX } else { [0, 0, 0, 10_000, 1_000_000][random.below(5) as usize] };
        let mut input = steps.to_le_bytes().to_vec();
        // Now and then more than a ring holds.
        input.resize(
            if random.one_in(15) { 900_000 } else { 8 + random.below(3000) as usize },
            random.next() as u8,
        );
        let input = Bytes::from(input);
        // Every task has a timeout, since a worker may be stopped at any moment.
        let timeout = Duration::from_millis(if endless { 1 + random.below(40) } else { 3000 });
        let timeout = (endless || !random.one_in(3)).then_some(timeout);
        let retries = random.one_in(5);
        let mut options =
            TaskOptions::new().priority(random.below(3) as i32).label(format!("seed {}", self.seed));
        if let Some(timeout) = timeout {
            options = options.timeout(timeout);
        }
        if retries {
            options = options.retry(Retry::attempts(3).after_timeouts());
        }
        let own = if random.one_in(4) { self.own_task(traps, random) } else { None };
        let task = own.as_ref().unwrap_or(if traps { &self.trap } else { &self.work });
        let future = if random.one_in(2) {
            self.pool.submit_with(task, &input, options)
        } else {
            self.pool.task(task).options(options).try_submit(&input)
        };
        let future = match future {
            Ok(future) => future,
            Err(SubmitError::QueueFull { .. }) => return true,
            Err(SubmitError::Broken(broken)) => {
                assert!(self.lethal.load(Ordering::SeqCst), "nobody broke it: {broken}");
                return false;
            }
            Err(SubmitError::ShutDown { .. }) => return false,
            Err(other) => panic!("{other}"),
        };
        let called = Arc::new(AtomicUsize::new(0));
        future.on_done({
            let called = called.clone();
            move |_| {
                called.fetch_add(1, Ordering::SeqCst);
            }
        });
        let submitted = Submitted {
            future,
            input,
            traps,
            endless,
            timeout,
            retries,
            meddled: Meddled::default(),
            called,
        };
        self.submitted.lock().expect("locks").push(Arc::new(submitted));
        true
    }

    /// One thing that goes wrong; `false` if it was the pool's end.
    fn meddle(&self, random: &mut Random) -> bool {
        let pids = self.pool.worker_pids();
        match random.below(20) {
            0..4 => {
                if let Some(some) = self.some(random) {
                    some.meddled.cancelled.store(true, Ordering::SeqCst);
                    some.future.cancel();
                }
            }
            4..8 => {
                if let Some(some) = self.some(random) {
                    some.meddled.aborted.store(true, Ordering::SeqCst);
                    some.future.abort();
                }
            }
            8..11 => {
                if let Some(pid) = random.pick(&pids) {
                    self.lethal.store(true, Ordering::SeqCst);
                    let sent =
                        [Signal::KILL, Signal::TERM, Signal::ABORT, Signal::SEGV][random.below(4) as usize];
                    signal(*pid, sent);
                }
            }
            11..13 => {
                if let Some(pid) = random.pick(&pids) {
                    self.lethal.store(true, Ordering::SeqCst);
                    signal(*pid, Signal::STOP);
                }
            }
            13..15 => {
                pids.iter().for_each(|pid| signal(*pid, Signal::CONT));
            }
            15 => self.pool.resize(random.below(3) as usize, 1 + random.below(8) as usize),
            16 => self.pool.prestart(random.below(9) as usize),
            17 if random.one_in(4) => {
                let mode = if random.one_in(2) { ShutdownMode::Finish } else { ShutdownMode::CancelPending };
                self.begin_shutdown(mode);
                return false;
            }
            18 if random.one_in(6) => {
                self.cut_short.store(true, Ordering::SeqCst);
                if random.one_in(2) {
                    self.pool.kill()
                } else {
                    self.pool.terminate()
                }
                return false;
            }
            _ => {
                let stats = self.pool.stats();
                assert!(stats.pending + stats.running <= stats.submitted as usize);
                assert_eq!(
                    stats.workers.len(),
                    stats.workers.iter().map(|worker| worker.pid).collect::<HashSet<_>>().len()
                );
            }
        }
        true
    }

    fn begin_shutdown(&self, mode: ShutdownMode) {
        if mode == ShutdownMode::CancelPending {
            self.cancelled_pending.store(true, Ordering::SeqCst);
        }
        self.pool.begin_shutdown(mode);
    }

    /// Submits and meddles, from two threads at once.
    fn play(&self) {
        let mut submits = Random(self.seed ^ 0xA5A5);
        let mut meddles = Random(self.seed ^ 0x5A5A);
        std::thread::scope(|scope| {
            let submitter = scope.spawn(move || {
                for _ in 0..5 + submits.below(40) {
                    if !self.submit(&mut submits) {
                        return;
                    }
                    submits.pause();
                }
            });
            for _ in 0..3 + meddles.below(20) {
                meddles.pause();
                if !self.meddle(&mut meddles) {
                    break;
                }
            }
            // The submitter may wait for room behind a task without a deadline, in a worker that is stopped.
            eventually("every task to be submitted", || {
                self.wake_stopped();
                submitter.is_finished()
            });
        });
    }

    fn wake_stopped(&self) {
        self.pool.worker_pids().into_iter().for_each(|pid| signal(pid, Signal::CONT));
    }

    /// Lets stopped workers go on, and ends what has no deadline of its own.
    fn heal(&self) {
        eventually("every task without a deadline to be done, or its worker to be wakened", || {
            self.wake_stopped();
            let submitted = self.submitted.lock().expect("locks");
            submitted.iter().all(|some| some.timeout.is_some() || some.future.is_done())
        });
    }

    /// Ends the pool in one of the ways there are.
    fn end(&self) {
        let mut random = Random(self.seed ^ 0xE4D);
        if random.one_in(2) {
            self.heal();
        }
        match random.below(6) {
            0 => {
                self.cut_short.store(true, Ordering::SeqCst);
                self.pool.kill();
            }
            1 => {
                self.cut_short.store(true, Ordering::SeqCst);
                self.pool.terminate();
            }
            2 => {
                self.cancelled_pending.store(true, Ordering::SeqCst);
                self.cut_short.store(true, Ordering::SeqCst);
                self.pool
                    .shutdown_timeout(ShutdownMode::CancelPending, Duration::from_millis(random.below(30)));
            }
            3 => {
                self.begin_shutdown(ShutdownMode::CancelPending);
                self.heal();
            }
            4 => {
                self.begin_shutdown(ShutdownMode::Finish);
                self.heal();
            }
            // The last handle's drop ends it.
            _ => self.heal(),
        }
    }

    /// Holds one result to what may have become of its task.
    fn check(&self, some: &Submitted) {
        let said = |what: &str| format!("{what}: {:?}, {:?}", some.future, some.future.failure());
        let waited =
            some.future.result_timeout(Duration::ZERO).unwrap_or_else(|_| panic!("{}", said("is not done")));
        let report = some.future.report().expect("done");
        let lethal = self.lethal.load(Ordering::SeqCst);
        let cut_short = self.cut_short.load(Ordering::SeqCst);
        assert!(report.attempts <= if some.retries { 3 } else { 1 }, "{}", said("ran too often"));
        let failure = match &waited {
            Ok(output) => {
                assert_eq!(*output, some.input, "seed {}", self.seed);
                return assert!(!some.traps && !some.endless && report.attempts > 0, "{}", said("succeeded"));
            }
            Err(failure) => failure,
        };
        let allowed = match failure.error() {
            TaskError::Trap { .. } => some.traps,
            TaskError::Timeout { limit, .. } => some.timeout == Some(*limit),
            TaskError::Cancelled => {
                (some.retries || report.attempts == 0)
                    && (some.meddled.cancelled.load(Ordering::SeqCst)
                        || some.meddled.aborted.load(Ordering::SeqCst)
                        || cut_short
                        || self.cancelled_pending.load(Ordering::SeqCst))
            }
            TaskError::Aborted { .. } => some.meddled.aborted.load(Ordering::SeqCst),
            TaskError::WorkerDied(_) => self.replaces && lethal,
            TaskError::Broken(_) => cut_short || lethal && !self.replaces,
            _ => false,
        };
        assert!(allowed, "{}", said("ended in a way that nothing in its schedule explains"));
        assert_eq!(failure.task_id(), some.future.task_id());
    }
}

/// The number of tasks that ended, by kind.
type Tally = BTreeMap<&'static str, usize>;

/// Every kind of end that a schedule can have.
const ENDS: [&str; 8] =
    ["succeeded", "trapped", "timed out", "killed late", "cancelled", "aborted", "died", "broken"];

fn end_of(some: &Submitted) -> &'static str {
    match some.future.failure().as_ref().map(TaskFailure::error) {
        None => "succeeded",
        Some(TaskError::Trap { .. }) => "trapped",
        Some(TaskError::Timeout { killed: false, .. }) => "timed out",
        Some(TaskError::Timeout { killed: true, .. } | TaskError::Aborted { killed: true }) => "killed late",
        Some(TaskError::Cancelled) => "cancelled",
        Some(TaskError::Aborted { .. }) => "aborted",
        Some(TaskError::WorkerDied(_)) => "died",
        Some(_) => "broken",
    }
}

/// Plays one schedule, and counts how its tasks ended.
fn run(seed: u64, before: Option<Holdings>, tally: &mut Tally) {
    let schedule = Schedule::new(seed);
    let events = schedule.pool.events();
    schedule.play();
    let ended = Instant::now();
    schedule.end();
    let submitted = std::mem::take(&mut *schedule.submitted.lock().expect("locks"));
    for some in &submitted {
        let left = BOUND.saturating_sub(ended.elapsed());
        let done = some.future.result_timeout(left).is_ok();
        assert!(done, "seed {seed}: {:?} is not done within {BOUND:?}", some.future);
    }
    let Schedule { pool, work, trap, .. } = &schedule;
    let pool = pool.clone();
    let work = work.clone();
    let trap = trap.clone();
    submitted.iter().for_each(|some| schedule.check(some));
    drop((schedule, work, trap));
    pool.shutdown(ShutdownMode::Finish);
    assert_eq!(pool.stats().modules, 0, "seed {seed}: of whom nobody has one");
    drop(pool);
    for some in &submitted {
        assert_eq!(some.called.load(Ordering::SeqCst), 1, "seed {seed}: callbacks of {:?}", some.future);
    }
    // The pool's own account of it: each task queued has one end, each process is gone.
    let mut ends = HashMap::<TaskId, usize>::new();
    let mut pids = Vec::new();
    for event in events {
        match event.kind {
            EventKind::TaskQueued { task, .. } => {
                assert!(ends.insert(task, 0).is_none(), "seed {seed}: queued twice")
            }
            EventKind::TaskFinished { task, .. } => *ends.entry(task).or_default() += 1,
            EventKind::WorkerStarted { pid } => pids.push(pid),
            _ => {}
        }
    }
    assert_eq!(ends.len(), submitted.len(), "seed {seed}");
    assert!(ends.values().all(|ends| *ends == 1), "seed {seed}: {ends:?}");
    for pid in pids {
        assert!(!is_child(pid), "seed {seed}: worker {pid} lives on");
    }
    submitted.iter().for_each(|some| *tally.entry(end_of(some)).or_default() += 1);
    drop(submitted);
    if let Some(before) = before {
        eventually(&format!("seed {seed} to give everything back ({before:?})"), || {
            let now = Holdings::now();
            now.descriptors <= before.descriptors && now.threads <= before.threads && now.mappings == 0
        });
        assert_eq!(Holdings::now().children, 0, "seed {seed}");
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// The schedules of one lane, in this process.
fn run_lane(lane: u64, schedules: u64) {
    // A death while a test waits must not hang the run.
    let alive = Arc::new(Mutex::new((Instant::now(), 0)));
    std::thread::spawn({
        let alive = alive.clone();
        move || loop {
            std::thread::sleep(Duration::from_secs(1));
            let (since, seed) = *alive.lock().expect("locks");
            if since.elapsed() > PATIENCE + BOUND {
                eprintln!("schedule of seed {seed} hangs");
                std::process::abort();
            }
        }
    });
    let mut tally = Tally::new();
    let began = Instant::now();
    let mut before = None;
    for seed in (lane..schedules).step_by(LANES as usize) {
        *alive.lock().expect("locks") = (Instant::now(), seed);
        let played = catch_unwind(AssertUnwindSafe(|| run(seed, before, &mut tally)));
        if let Err(panic) = played {
            eprintln!("schedule of seed {seed} failed; WASMPOOL_SCHEDULE_SEED={seed} plays it alone");
            std::panic::resume_unwind(panic);
        }
        // The first schedule leaves behind what is the runtime's own.
        before = before.or_else(|| Some(Holdings::now()));
    }
    let tasks: usize = tally.values().sum();
    println!("lane {lane}: {tasks} tasks in {:.1?}: {tally:?}", began.elapsed());
    // A few schedules may well miss one.
    if schedules >= 1000 {
        let missing: Vec<_> = ENDS.iter().filter(|end| !tally.contains_key(*end)).collect();
        assert!(missing.is_empty(), "no task of lane {lane} ended so: {missing:?}");
    }
}

/// Killed if it is still there when the test ends.
struct Lane(Child);

impl Drop for Lane {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_future_resolves_once_whatever_happens() {
    let schedules = number("WASMPOOL_SCHEDULES").unwrap_or(SCHEDULES);
    if let Some(seed) = number("WASMPOOL_SCHEDULE_SEED") {
        run(seed, None, &mut Tally::new());
        return;
    }
    if let Some(lane) = number("WASMPOOL_SCHEDULE_LANE") {
        return run_lane(lane, schedules);
    }
    // Compiled once, before the lanes ask for it.
    support::wat(&support::pool(1), TASKS_WAT);
    let began = Instant::now();
    let lanes: Vec<_> = (0..LANES)
        .map(|lane| {
            let child = Command::new(std::env::current_exe().expect("has a path"))
                .args(["--exact", "every_future_resolves_once_whatever_happens", "--nocapture"])
                .env("WASMPOOL_SCHEDULES", schedules.to_string())
                .env("WASMPOOL_SCHEDULE_LANE", lane.to_string())
                .spawn()
                .expect("starts");
            Lane(child)
        })
        .collect();
    for (number, mut lane) in lanes.into_iter().enumerate() {
        let status = lane.0.wait().expect("waits");
        assert!(status.success(), "lane {number}: {status}");
    }
    println!("{schedules} schedules in {:.1?}", began.elapsed());
}
