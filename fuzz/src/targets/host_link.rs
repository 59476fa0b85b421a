//! The host's whole side of its workers, as it stands in `src/host` and `src/dispatch`, against workers
//! that do anything to the shared memory: positions, claims and frames that cannot be, at any time.
//!
//! Here are no processes and no threads: the target is the supervisor, and plays the workers. A worker
//! dies when the script says so; only then does its link's thread, which is this one, read to the end.
//! What a worker does while it is being read, it does at each of its log records.

use std::cell::RefCell;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, unbounded};
use rustix::mm::{MapFlags, ProtFlags};

use super::description::{of_tasks, task};
use super::host_frames::verdicts;
use super::text::assert_harmless;
use crate::bounded::within;
use crate::dispatch::{Event, Recycling, WorkerKey};
use crate::error::{Death, DeathCause, Frame, Phase, TaskError};
use crate::foreign::Foreign;
use crate::future::{Cell, Queues};
use crate::host::core::{Call, Core, WhenFull};
use crate::host::link::Link;
use crate::host::settings::Settings;
use crate::host::supervise::{Job, Mailbox};
use crate::host::{bury, read_loop};
use crate::input::Input;
use crate::limits::{BACKTRACE_FRAMES_MAX, FRAME_META_BYTES_MAX, GUEST_TEXT_BYTES_MAX, RING_BYTES};
use crate::module::{Answer, Digest, Loaded, Module};
use crate::policy::{OnWorkerDeath, Replacement, Retry};
use crate::schema::Schema;
use crate::task::{LogOverflow, TaskId, TaskLimits, TaskOptions};
use crate::wire::control;
use crate::wire::frame::write_frame;
use crate::wire::message::{Cost, Entry, FromWorker, LogRecord, LogSource, ModuleId};
use crate::wire::ring::{self, CLAIMS, Consumer};

/// The shared file, as `wire/ring.rs` lays it out.
const HEADER_BYTES: usize = 4096;
const MAP_BYTES: usize = HEADER_BYTES + 2 * RING_BYTES;
const TO_WORKER_TAKEN: usize = 0;
const TO_WORKER_PUT: usize = 128;
const TO_HOST_PUT: usize = 384;
const CLAIM_WORDS: usize = 768;

const OUTPUT_BYTES_MAX: u64 = 100_000;
const INPUT_BYTES_MAX: usize = 300_000;
const TASKS_MAX: usize = 40;
const STEPS_MAX: usize = 200;
const WORKERS_MAX: usize = 12;

/// Most that all of it may hold: tasks with their inputs and answers, a frame that is being read.
const HELD_BYTES_MAX: usize =
    TASKS_MAX * (INPUT_BYTES_MAX + 3 * OUTPUT_BYTES_MAX as usize) + 64 * FRAME_META_BYTES_MAX;

const NEVER: Duration = Duration::from_secs(1 << 20);

/// The input: the pool's settings, then what happens, step by step.
pub fn run(data: &[u8]) {
    static SUBSCRIBED: Once = Once::new();
    SUBSCRIBED.call_once(|| drop(tracing::subscriber::set_global_default(Logs)));
    let mut input = Input(data);
    within(HELD_BYTES_MAX, || {
        let mut world = World::new(&mut input);
        for _ in 0..STEPS_MAX {
            if input.is_empty() {
                break;
            }
            world.step(&mut input);
            world.do_jobs();
        }
        world.end();
    });
}

struct World {
    core: Core,
    cells: Vec<Arc<Cell>>,
    workers: Vec<Worker>,
    started: u32,
    _callbacks: Receiver<Box<dyn FnOnce() + Send>>,
    _wakers: Receiver<Box<dyn FnOnce() + Send>>,
}

/// A process that is not there.
struct Worker {
    key: WorkerKey,
    link: Arc<Link>,
    ring: Consumer,
    shared: Shared,
    is_ready: bool,
    _control: OwnedFd,
}

impl World {
    fn new(input: &mut Input<'_>) -> World {
        let on_worker_death = match input.byte() % 3 {
            0 => OnWorkerDeath::Break,
            crashes => OnWorkerDeath::Replace(
                Replacement::new()
                    .crashes_max(u32::from(crashes) * 3)
                    .backoff(Duration::ZERO, Duration::ZERO),
            ),
        };
        let settings = Settings {
            workers_min: 0,
            workers_max: 1 + usize::from(input.byte() % 3),
            queue_tasks_max: TASKS_MAX,
            input_bytes_max: INPUT_BYTES_MAX,
            grace: NEVER,
            start_timeout: NEVER,
            idle_timeout: None,
            slow_after: None,
            compile_timeout: NEVER,
            on_worker_death,
            recycle: Recycling {
                tasks_max: Some(u64::from(input.byte())).filter(|n| *n > 0),
                ..Default::default()
            },
            offers_max: usize::from(input.byte()) % CLAIMS,
            defaults: TaskOptions::new(),
        };
        let ((callbacks, _callbacks), (wakers, _wakers)) = (unbounded(), unbounded());
        let queues = Arc::new(Queues { callbacks, wakers });
        let core = Core::new(1, settings, Mailbox::default(), queues);
        World { core, cells: Vec::new(), workers: Vec::new(), started: 0, _callbacks, _wakers }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let step = input.byte();
        let choice = usize::from(input.byte());
        match step % 16 {
            0 | 1 => self.submit(choice, input),
            2 => {
                let task = TaskId(1 + choice as u64 % (self.cells.len() as u64 + 1));
                self.core.handle(Event::Cancel { task });
            }
            3 => {
                let task = TaskId(1 + choice as u64 % (self.cells.len() as u64 + 1));
                self.core.handle(Event::Abort { task });
            }
            4 => {
                let (workers_min, workers_max) = (0, 1 + choice % 3);
                self.core.handle(Event::Resize { workers_min, workers_max });
            }
            _ if self.workers.is_empty() => {}
            5 | 6 => {
                let index = choice % self.workers.len();
                let worker = &mut self.workers[index];
                if !std::mem::replace(&mut worker.is_ready, true) {
                    self.core.ready(&worker.link);
                }
            }
            7 => {
                let index = choice % self.workers.len();
                let len = usize::from(input.u16() % 1024);
                self.die(index, input.bytes(len));
            }
            _ => {
                let index = choice % self.workers.len();
                self.workers[index].shared.lie(input);
            }
        }
        // What is due, as the supervisor's poll would end for it.
        self.core.arm();
    }

    fn submit(&mut self, choice: usize, input: &mut Input<'_>) {
        if self.cells.len() >= TASKS_MAX {
            return;
        }
        let limits = TaskLimits {
            memory_bytes_max: 1 << 20,
            output_bytes_max: OUTPUT_BYTES_MAX >> (choice % 16),
            fuel: None,
            log_bytes_max: u64::from(input.u16()),
            log_overflow: LogOverflow::Drop,
        };
        let len = usize::from(input.u16());
        let len = if choice >= 128 { (len * 8).min(INPUT_BYTES_MAX) } else { len % 64 };
        let (module, name) = (module(), Arc::from("count"));
        let input_bytes = Foreign::new(Bytes::from(vec![choice as u8; len]));
        let call = Call { module, entry: Entry::Task(0), limits, input: input_bytes };
        let options = TaskOptions::new().retry(Retry::attempts(1 + choice as u32 % 3));
        // A pool that is broken or full says so.
        if let Ok(cell) = self.core.submit(call, &name, &options, choice as u64 % 4, WhenFull::Refuse) {
            self.cells.push(cell);
        }
    }

    /// As the supervisor does it.
    fn do_jobs(&mut self) {
        loop {
            let jobs = self.core.mailbox.take();
            if jobs.is_empty() {
                return;
            }
            for Job::Spawn(key) in jobs {
                if !self.core.wants(key) || self.started as usize >= WORKERS_MAX {
                    let cause = DeathCause::SpawnFailed("there are enough".into());
                    self.core.dead(key, Death::new(0, cause, Phase::Start, String::new()));
                    continue;
                }
                self.spawn(key);
            }
            self.core.arm();
        }
    }

    fn spawn(&mut self, key: WorkerKey) {
        self.started += 1;
        let (rings, end) = ring::create().expect("rings");
        let (control, theirs) = control::pair().expect("a socket pair");
        // No process: whoever sends it a signal is told so.
        let pidfd = OwnedFd::from(File::open("/dev/null").expect("opens"));
        let (link, ring) = Link::new(key, self.started, pidfd, control, end);
        if self.core.register(link.clone()) {
            self.core.handle(Event::Spawned { worker: key });
        }
        let shared = Shared::map(&rings);
        self.workers.push(Worker { key, link, ring, shared, is_ready: false, _control: theirs });
    }

    /// The process is gone; what it has written is read to the end, while `script` goes on writing.
    fn die(&mut self, index: usize, script: &[u8]) {
        let Worker { key, link, ring, shared, is_ready, _control } = self.workers.swap_remove(index);
        let phase = if is_ready { Phase::Idle } else { Phase::Start };
        bury(
            &link,
            Death::new(self.started, DeathCause::Signaled(9), phase, "its last \u{1b}[1mwords".into()),
        );
        DYING.set(Some(Dying { shared, script: script.to_vec(), at: 0 }));
        read_loop(&self.core, &link, ring);
        DYING.take();
        assert!(self.core.stats().workers.iter().all(|worker| worker.pid != link.pid), "it is still there");
        let _ = key;
    }

    /// Everyone dies; every task has ended in one way.
    fn end(mut self) {
        self.core.handle(Event::Kill { gently: false });
        for _ in 0..100 {
            self.do_jobs();
            if self.workers.is_empty() {
                break;
            }
            self.die(0, &[]);
            self.core.arm();
        }
        assert!(self.core.is_stopped() && self.core.unresolved() == 0, "tasks or workers are left");
        let stats = self.core.stats();
        let ended = stats.ended;
        let tasks =
            ended.succeeded + ended.failed + ended.timed_out + ended.cancelled + ended.aborted + ended.lost;
        assert_eq!((stats.submitted, tasks), (self.cells.len() as u64, self.cells.len() as u64));
        self.cells.iter().for_each(|cell| check(cell));
    }
}

/// How a task ended is something that can be shown to the caller.
fn check(cell: &Cell) {
    let outcome = cell.outcome().expect("every future is done");
    let _ = outcome.report.transfer();
    match &outcome.result {
        Ok(Answer::Output(output)) => {
            assert!(output.len() as u64 <= (2 * OUTPUT_BYTES_MAX).max(GUEST_TEXT_BYTES_MAX as u64));
        }
        Ok(Answer::Command(_)) => panic!("a task answered as a command"),
        Err(failure) => {
            let frames: &[Frame] = match failure.error() {
                TaskError::Trap { backtrace, .. }
                | TaskError::Panic { backtrace, .. }
                | TaskError::Memory { backtrace, .. }
                | TaskError::Fuel { backtrace, .. } => backtrace,
                _ => &[],
            };
            assert!(frames.len() <= BACKTRACE_FRAMES_MAX, "a backtrace of {} frames", frames.len());
            assert_harmless(&failure.to_string());
        }
    }
}

fn module() -> Module {
    thread_local! {
        static MODULE: Module = {
            let file = || File::open("/dev/null").expect("opens");
            let description = of_tasks(vec![task("count", Schema::of::<u64>(), Schema::of::<u64>())]);
            Module(Arc::new(Loaded {
                pool: 1,
                id: ModuleId(0),
                shown: "primes".into(),
                name: "primes".into(),
                digest: Digest::of(b"wasm"),
                description,
                from_cache: false,
                artifact: file(),
                description_file: file(),
            }))
        };
    }
    MODULE.with(Module::clone)
}

/// The worker's own mapping of the rings: it may write wherever it likes.
struct Shared {
    base: NonNull<u8>,
    /// What it has put into the ring towards the host, if it were honest.
    put: u64,
}

impl Shared {
    fn map(rings: &OwnedFd) -> Shared {
        // SAFETY: a fresh mapping at an address of the kernel's choice, of a file of that size.
        let base = unsafe {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            rustix::mm::mmap(std::ptr::null_mut(), MAP_BYTES, protection, MapFlags::SHARED, rings.as_fd(), 0)
        };
        Shared { base: NonNull::new(base.expect("maps").cast()).expect("an address"), put: 0 }
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at < HEADER_BYTES);
        // SAFETY: aligned, and inside of the mapping, which lives as long as self.
        unsafe { self.base.add(at).cast().as_ref() }
    }

    /// One thing that a worker may do to the memory that it shares.
    fn lie(&mut self, input: &mut Input<'_>) {
        match input.byte() % 12 {
            0 => self.write(input),
            1 | 2 => self.say(&log(input), &[]),
            3 | 4 => {
                let message = done(input);
                let len = usize::from(input.u16()) * usize::from(input.byte() % 8);
                self.say(&message, &vec![b'x'; len]);
            }
            5 => self.word(TO_HOST_PUT).store(input.u64(), Ordering::SeqCst),
            6 => {
                // Near to where it should be.
                let by = i64::from(input.byte() as i8);
                self.word(TO_HOST_PUT).store(self.put.wrapping_add_signed(by), Ordering::SeqCst);
            }
            7 => self.word(TO_WORKER_TAKEN).store(input.u64(), Ordering::SeqCst),
            8 => {
                // It has read everything.
                let put = self.word(TO_WORKER_PUT).load(Ordering::SeqCst);
                self.word(TO_WORKER_TAKEN).store(put, Ordering::SeqCst);
            }
            9 => {
                // It begins a run, or says so.
                let (claim, run) = (usize::from(input.byte()) % CLAIMS, u64::from(input.byte()));
                self.word(CLAIM_WORDS + 8 * claim).store(run << 2 | 1, Ordering::SeqCst);
            }
            10 => {
                let at = usize::from(input.u16()) % (HEADER_BYTES / 8) * 8;
                self.word(at).store(input.u64(), Ordering::SeqCst);
            }
            _ => {
                // Every run is begun.
                for claim in 0..CLAIMS {
                    self.word(CLAIM_WORDS + 8 * claim).fetch_or(1, Ordering::SeqCst);
                }
            }
        }
    }

    fn write(&mut self, input: &mut Input<'_>) {
        let len = usize::from(input.byte());
        let bytes = input.bytes(len);
        self.put(bytes);
    }

    fn say(&mut self, message: &FromWorker, payload: &[u8]) {
        let mut frame = Vec::new();
        // One that is longer than a frame may be is not written.
        if write_frame(&mut frame, message, payload).is_ok() {
            self.put(&frame);
        }
    }

    /// Puts it into the ring, whether there is room or not, and publishes it.
    fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let at = self.put as usize % RING_BYTES;
            let (now, rest) = bytes.split_at(bytes.len().min(RING_BYTES - at));
            // SAFETY: inside of the ring towards the host; nobody else holds a reference there.
            unsafe {
                let to = self.base.add(HEADER_BYTES + RING_BYTES + at).as_ptr();
                std::ptr::copy_nonoverlapping(now.as_ptr(), to, now.len());
            }
            self.put = self.put.wrapping_add(now.len() as u64);
            bytes = rest;
        }
        self.word(TO_HOST_PUT).store(self.put, Ordering::SeqCst);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: this mapping was made in `map`, and nobody holds a reference into it any more.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), MAP_BYTES) };
    }
}

fn log(input: &mut Input<'_>) -> FromWorker {
    let task = TaskId(u64::from(input.byte()));
    let source = [LogSource::Guest, LogSource::Stdout, LogSource::Stderr][usize::from(input.byte()) % 3];
    let (level, len) = (input.byte(), usize::from(input.byte()));
    let message = String::from_utf8_lossy(input.bytes(len)).repeat(1 + usize::from(level & 7) * 40);
    let record = LogRecord { source, level, target: "guest".into(), message, fields: "\u{9b}".into() };
    FromWorker::Log { task, record }
}

fn done(input: &mut Input<'_>) -> FromWorker {
    let task = TaskId(u64::from(input.byte()));
    let (choice, frames) = (usize::from(input.byte()), usize::from(input.byte()));
    let mut verdicts = verdicts();
    let count = verdicts.len();
    let mut verdict = verdicts.swap_remove(choice % count);
    use crate::wire::message::Verdict::{Fuel, Memory, Panic, Trap};
    if let Trap { backtrace, .. } | Panic { backtrace, .. } | Memory { backtrace, .. } | Fuel { backtrace } =
        &mut verdict
        && let Some(frame) = backtrace.first().cloned()
    {
        backtrace.resize(frames * 8, frame);
    }
    let cost = Cost { run_ns: input.u64(), cpu_ns: input.u64(), ..Cost::default() };
    FromWorker::Done { task, verdict, cost }
}

thread_local! {
    /// The worker that is being read.
    static DYING: RefCell<Option<Dying>> = const { RefCell::new(None) };
}

struct Dying {
    shared: Shared,
    script: Vec<u8>,
    at: usize,
}

impl Dying {
    /// It goes on writing while the host reads.
    fn go_on(&mut self) {
        let script = std::mem::take(&mut self.script);
        let mut input = Input(script.get(self.at..).unwrap_or_default());
        if !input.is_empty() {
            self.shared.lie(&mut input);
        }
        self.at = script.len() - input.0.len();
        self.script = script;
    }
}

/// The embedder's subscriber: no event of the pool carries what a terminal obeys.
struct Logs;

impl tracing::Subscriber for Logs {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut Harmless);
        if event.metadata().target() == "wasmpool::guest" {
            DYING.with_borrow_mut(|dying| dying.iter_mut().for_each(Dying::go_on));
        }
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

struct Harmless;

impl tracing::field::Visit for Harmless {
    fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        assert_harmless(&format!("{value:?}"));
    }

    fn record_str(&mut self, _: &tracing::field::Field, value: &str) {
        assert_harmless(value);
    }
}

/// Lives of workers: honest ones, and one for each lie.
pub fn seeds() -> Vec<Vec<u8>> {
    // Settings: the policy, workers, recycling, offers. Then a task, the worker's first word, its lies.
    let life = |policy: u8, offers: u8, lies: &[&[u8]]| {
        let mut seed = vec![policy, 0, 0, offers];
        for _ in 0..3 {
            seed.extend([0, 3, 255, 255, 5, 0]);
        }
        seed.extend([5, 0]);
        for lie in lies {
            seed.extend([8, 0]);
            seed.extend(*lie);
        }
        // It dies, and says a little more while it is read.
        seed.extend([7, 0, 40, 0]);
        seed.extend([1, 1, 0, 0, 2, b'h', b'i', 3, 2, 0, 0]);
        seed.extend([0; 40]);
        seed
    };
    let begun: &[u8] = &[11];
    let logged: &[u8] = &[1, 1, 0, 3, 5, 0x1b, b'[', b'3', b'1', b'm'];
    let done = |task: u8, verdict: u8, frames: u8| {
        let mut lie = vec![3, task, verdict, frames];
        lie.extend([9; 16]);
        lie.extend([10, 0, 1]);
        lie
    };
    let mut seeds = Vec::new();
    for verdict in 0..15 {
        seeds.push(life(verdict % 3, verdict, &[begun, logged, &done(1, verdict, 20), &done(2, 0, 0)]));
    }
    let lies: [&[u8]; 9] = [
        &[0, 6, b'W', b'P', b'1', 0, 255, 255],
        &[5, 255, 255, 255, 255, 255, 255, 255, 255],
        &[6, 200],
        &[7, 1, 0, 0, 0, 0, 0, 0, 0],
        &[7, 0, 0, 4, 0, 0, 0, 0, 0],
        &[8],
        &[9, 1, 2],
        &[10, 16, 0, 255, 255, 255, 255, 255, 255, 255, 255],
        &[10, 48, 0, 0, 0, 0, 0, 0, 0, 0, 128],
    ];
    for lie in lies {
        seeds.push(life(1, 7, &[begun, lie, &done(1, 0, 0), lie, &done(2, 0, 0)]));
        seeds.push(life(0, 0, &[lie, logged, lie]));
    }
    seeds
}
