//! The host's whole side of its workers, as it stands in `src/host` and `src/dispatch`, against workers
//! that do anything to the shared memory: positions, claims and frames that cannot be, at any time.
//!
//! Here are no processes and no threads: the target is the supervisor, and plays the workers. A worker
//! dies when the script says so; then its link's thread, which is this one, reads to the end. Before, it
//! is read where the script has a caller wait for a task: as an attendant. What a worker does while it is
//! being read, it does at each of its log records.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, unbounded};
use rustix::mm::{MapFlags, ProtFlags};

use super::description::{of_tasks, task};
use super::host_frames::verdicts;
use super::text::assert_harmless;
use crate::bounded::within;
use crate::dispatch::{Event, Recycling, WorkerKey};
use crate::error::{Death, DeathCause, Frame, Phase, TaskError, TaskFailure};
use crate::foreign::Foreign;
use crate::future::{Cell, Item, Queues};
use crate::host::cgroup::CgroupChoice;
use crate::host::core::{Call, Core, Group, WhenFull};
use crate::host::link::Link;
use crate::host::settings::Settings;
use crate::host::supervise::{Job, Mailbox};
use crate::host::{bury, read_loop};
use crate::input::Input;
use crate::limits::compile::CompileLimits;
use crate::limits::{
    BACKTRACE_FRAMES_MAX, FRAME_META_BYTES_MAX, GUEST_TEXT_BYTES_MAX, LOG_RECORD_BYTES_MAX, RING_BYTES,
};
use crate::module::{Answer, Digest, Loaded, Module};
use crate::policy::{OnWorkerDeath, Replacement, Retry};
use crate::schema::Schema;
use crate::task::{LogOverflow, TaskId, TaskLimits, TaskOptions};
use crate::walls::{SandboxPolicy, SandboxReport, SandboxRequest};
use crate::wire::control;
use crate::wire::frame::write_frame;
use crate::wire::message::{Cost, Entry, FromWorker, LogRecord, LogSource, ModuleId, Verdict};
use crate::wire::ring::{self, CLAIMS};

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

const ITEMS_MAX: u64 = 8;
const LOG_BYTES_MAX: u64 = u16::MAX as u64;

/// Most that all of it may hold: tasks with their inputs and answers, a frame that is being read.
const HELD_BYTES_MAX: usize = TASKS_MAX
    * (INPUT_BYTES_MAX + 3 * ITEMS_MAX as usize * OUTPUT_BYTES_MAX as usize)
    + 64 * FRAME_META_BYTES_MAX;

const NEVER: Duration = Duration::from_secs(1 << 20);

/// The input: the pool's settings, then what happens, step by step.
pub fn run(data: &[u8]) {
    static SUBSCRIBED: Once = Once::new();
    SUBSCRIBED.call_once(|| drop(tracing::subscriber::set_global_default(Logs)));
    let mut input = Input(data);
    LOGGED.with_borrow_mut(HashMap::clear);
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
    tasks: Vec<Submitted>,
    workers: Vec<Worker>,
    started: u32,
    _callbacks: Receiver<Box<dyn FnOnce() + Send>>,
    _wakers: Receiver<Box<dyn FnOnce() + Send>>,
}

/// A task, or a batch of so many, and what was taken of its results.
struct Submitted {
    cell: Arc<Cell>,
    items: Option<u64>,
    taken: VecDeque<Item>,
}

/// A process that is not there.
struct Worker {
    key: WorkerKey,
    link: Arc<Link>,
    /// Elsewhere only while it is read.
    shared: Option<Shared>,
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
            compile_limits: CompileLimits::default(),
            compile_threads: 1,
            compilers_max: 1,
            on_worker_death,
            recycle: Recycling {
                tasks_max: Some(u64::from(input.byte())).filter(|n| *n > 0),
                ..Default::default()
            },
            offers_max: usize::from(input.byte()) % CLAIMS,
            pagemap_scan: false,
            wasm_stack_bytes_max: 1 << 20,
            dirs: Vec::new(),
            defaults: TaskOptions::new(),
            sandbox: SandboxRequest::default(),
            cgroup: CgroupChoice::Off,
            verified: Vec::new(),
        };
        let ((callbacks, _callbacks), (wakers, _wakers)) = (unbounded(), unbounded());
        let queues = Arc::new(Queues { callbacks, wakers });
        let core = Core::new(1, settings, Mailbox::default(), queues);
        World { core, tasks: Vec::new(), workers: Vec::new(), started: 0, _callbacks, _wakers }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let step = input.byte();
        let choice = usize::from(input.byte());
        match step % 16 {
            0 | 1 => self.submit(choice, input),
            2 => self.core.handle(Event::Cancel { task: self.task(choice) }),
            3 => self.core.handle(Event::Abort { task: self.task(choice) }),
            4 if choice >= 128 => self.take(choice),
            4 => {
                let (workers_min, workers_max) = (0, 1 + choice % 3);
                self.core.handle(Event::Resize { workers_min, workers_max });
            }
            _ if self.workers.is_empty() => {}
            5 | 6 => {
                let index = choice % self.workers.len();
                let worker = &mut self.workers[index];
                if !std::mem::replace(&mut worker.is_ready, true) {
                    self.core.ready(&worker.link, report());
                }
            }
            7 => {
                let index = choice % self.workers.len();
                let len = usize::from(input.u16() % 1024);
                self.die(index, input.bytes(len));
            }
            8 | 9 => {
                let (wait_us, len) = (input.byte(), usize::from(input.u16() % 1024));
                self.attend(choice, Duration::from_micros(u64::from(wait_us % 4)), input.bytes(len));
            }
            _ => {
                let index = choice % self.workers.len();
                self.workers[index].shared.iter_mut().for_each(|shared| shared.lie(input));
            }
        }
        // What is due, as the supervisor's poll would end for it.
        self.core.arm();
    }

    /// One that there is, or one that is yet to come.
    fn task(&self, choice: usize) -> TaskId {
        let task = self.tasks.get(choice % (self.tasks.len() + 1));
        task.map_or(TaskId(1_000_000), |task| task.cell.task())
    }

    /// Takes the results of a batch that have come, as a map does.
    fn take(&mut self, choice: usize) {
        let count = self.tasks.len().max(1);
        if let Some(task) = self.tasks.get_mut(choice % count) {
            let is_over = task.cell.take_items(&mut task.taken);
            assert_eq!(is_over, task.cell.is_filled());
        }
    }

    /// A caller waits for a task for a moment, and reads its worker's answers meanwhile.
    fn attend(&mut self, choice: usize, wait: Duration, script: &[u8]) {
        let Some(task) = self.tasks.get(choice % self.tasks.len().max(1)) else { return };
        // Whichever worker has it: only this script's is known to the subscriber.
        let index = choice / 16 % self.workers.len();
        let shared = self.workers[index].shared.take();
        DYING.set(shared.map(|shared| Dying { shared, script: script.to_vec(), at: 0 }));
        self.core.attend(&task.cell, Some(Instant::now() + wait));
        self.workers[index].shared = DYING.take().map(|dying| dying.shared);
    }

    fn submit(&mut self, choice: usize, input: &mut Input<'_>) {
        if self.tasks.len() >= TASKS_MAX {
            return;
        }
        let limits = TaskLimits {
            memory_bytes_max: 1 << 20,
            output_bytes_max: OUTPUT_BYTES_MAX >> (choice % 16),
            fuel: None,
            clock_resolution: Duration::ZERO,
            seed: None,
            log_bytes_max: u64::from(input.u16()),
            log_overflow: LogOverflow::Drop,
            instance_tasks_max: 1,
        };
        let len = usize::from(input.u16());
        let len = if choice >= 128 { (len * 8).min(INPUT_BYTES_MAX) } else { len % 64 };
        let (module, name) = (module(), Arc::from("count"));
        let items = (choice % 4 == 3).then_some(1 + choice as u64 / 4 % ITEMS_MAX);
        let bytes = match items {
            None => vec![choice as u8; len],
            // Each preceded by its length.
            Some(items) => {
                [&(len as u32 / 8).to_le_bytes()[..], &vec![7; len / 8]].concat().repeat(items as usize)
            }
        };
        let input_bytes = Foreign::new(Bytes::from(bytes));
        let call = Call { module, entry: Entry::Task(0), limits, input: input_bytes };
        let options = TaskOptions::new().retry(Retry::attempts(1 + choice as u32 % 3));
        // A pool that is broken or full says so.
        let group = match items {
            Some(items) => Group::Batch(items),
            None if choice % 4 == 0 => Group::Alone,
            None => Group::Chunk(choice as u64 % 4),
        };
        if let Ok(cell) = self.core.submit(call, &name, &options, group, WhenFull::Refuse) {
            self.tasks.push(Submitted { cell, items, taken: VecDeque::new() });
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
        let link = Link::new(key, self.started, pidfd, control, end);
        if self.core.register(link.clone()) {
            self.core.handle(Event::Spawned { worker: key });
        }
        let shared = Some(Shared::map(&rings));
        self.workers.push(Worker { key, link, shared, is_ready: false, _control: theirs });
    }

    /// The process is gone; what it has written is read to the end, while `script` goes on writing.
    fn die(&mut self, index: usize, script: &[u8]) {
        let Worker { key, link, shared, is_ready, _control } = self.workers.swap_remove(index);
        let phase = if is_ready { Phase::Idle } else { Phase::Start };
        bury(
            &link,
            Death::new(self.started, DeathCause::Signaled(9), phase, "its last \u{1b}[1mwords".into()),
        );
        DYING.set(shared.map(|shared| Dying { shared, script: script.to_vec(), at: 0 }));
        read_loop(&self.core, &link);
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
        let submitted: u64 = self.tasks.iter().map(|task| task.items.unwrap_or(1)).sum();
        assert_eq!((stats.submitted, tasks), (submitted, submitted));
        self.tasks.iter_mut().for_each(check);
    }
}

/// Every task has ended in one way, and what is told of a batch is told in order and never twice.
fn check(task: &mut Submitted) {
    assert!(task.cell.take_items(&mut task.taken), "every future is done");
    let outcome = task.cell.outcome().expect("every future is done");
    let _ = outcome.report.transfer();
    let Some(items) = task.items else {
        assert!(task.taken.is_empty(), "results of a batch that is none");
        return check_result(&outcome.result, task.cell.task());
    };
    let answered = task.taken.len() as u64;
    assert!(answered <= items, "{answered} results of {items}");
    assert!(answered == items || outcome.result.is_err(), "a batch succeeds once all have an answer");
    for (index, item) in task.taken.iter().enumerate() {
        check_result(&item.result, TaskId(task.cell.task().0 + index as u64));
    }
    if outcome.result.is_err() {
        // Of the first that has no result, which is none of the batch's if all have.
        check_result(&outcome.result, TaskId(task.cell.task().0 + answered));
    }
}

/// How a task ended is something that can be shown to the caller.
fn check_result(result: &Result<Answer, TaskFailure>, task: TaskId) {
    match result {
        Ok(Answer::Output(output)) => {
            assert!(output.len() as u64 <= (2 * OUTPUT_BYTES_MAX).max(GUEST_TEXT_BYTES_MAX as u64));
        }
        Ok(Answer::Command(_)) => panic!("a task answered as a command"),
        Err(failure) => {
            assert_eq!(failure.task_id(), task);
            let frames: &[Frame] = match failure.error() {
                TaskError::Trap { backtrace, .. }
                | TaskError::Panic { backtrace, .. }
                | TaskError::Memory { backtrace, .. }
                | TaskError::Table { backtrace, .. }
                | TaskError::Fuel { backtrace, .. } => backtrace,
                _ => &[],
            };
            assert!(frames.len() <= BACKTRACE_FRAMES_MAX, "a backtrace of {} frames", frames.len());
            assert_harmless(&failure.to_string());
        }
    }
}

fn report() -> SandboxReport {
    SandboxReport { policy: SandboxPolicy::Off, layers: Vec::new() }
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
        match input.byte() % 16 {
            0 => self.write(input),
            1 | 2 => self.say(&log(input), &[]),
            3 | 4 => {
                let (task, verdict, cost) = ended(input);
                let len = usize::from(input.u16()) * usize::from(input.byte() % 8);
                self.say(&FromWorker::Done { task, verdict, cost }, &vec![b'x'; len]);
            }
            12 | 13 => {
                let (task, verdict, cost) = ended(input);
                let len = usize::from(input.u16()) * usize::from(input.byte() % 8);
                self.say(&FromWorker::Item { task, verdict, cost }, &vec![b'x'; len]);
            }
            14 => self.batch(input),
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

    /// Some of a batch, as an honest worker runs it, or one too many; a record in the middle; and the end,
    /// if it comes to that.
    fn batch(&mut self, input: &mut Input<'_>) {
        let (first, count, choice) = (u64::from(input.byte()), u64::from(input.byte() % 16), input.byte());
        let cost = Cost { run_ns: u64::from(choice) * 1000, ..Cost::default() };
        for task in first..first + count {
            if choice % 4 == 3 {
                let record = LogRecord {
                    source: LogSource::Stdout,
                    level: 3,
                    target: String::new(),
                    message: "a line of its own ".repeat(usize::from(choice)),
                    fields: String::new(),
                };
                // Of this one, or of the one before.
                self.say(
                    &FromWorker::Log { task: TaskId(task - u64::from(choice & 4 != 0).min(task)), record },
                    &[],
                );
            }
            self.say(&FromWorker::Item { task: TaskId(task), verdict: Verdict::Ok, cost }, b"an output");
        }
        if choice % 8 != 0 {
            let batch = TaskId(first - u64::from(input.byte() % 4).min(first));
            let verdict = if choice % 8 == 1 { Verdict::Interrupted } else { Verdict::Ok };
            self.say(&FromWorker::Done { task: batch, verdict, cost }, &[]);
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
        if write_frame(&mut frame, &mut Vec::new(), message, payload).is_ok() {
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

/// How a task ended.
fn ended(input: &mut Input<'_>) -> (TaskId, Verdict, Cost) {
    let task = TaskId(u64::from(input.byte()));
    let (choice, frames) = (usize::from(input.byte()), usize::from(input.byte()));
    let mut verdicts = verdicts();
    let count = verdicts.len();
    let mut verdict = verdicts.swap_remove(choice % count);
    use crate::wire::message::Verdict::{Fuel, Memory, Panic, Table, Trap};
    if let Trap { backtrace, .. }
    | Panic { backtrace, .. }
    | Memory { backtrace, .. }
    | Table { backtrace, .. }
    | Fuel { backtrace } = &mut verdict
        && let Some(frame) = backtrace.first().cloned()
    {
        backtrace.resize(frames * 8, frame);
    }
    let cost = Cost { run_ns: input.u64(), cpu_ns: input.u64(), ..Cost::default() };
    (task, verdict, cost)
}

thread_local! {
    /// The worker that is being read.
    static DYING: RefCell<Option<Dying>> = const { RefCell::new(None) };
    /// Bytes of records that came out, of each worker's each task.
    static LOGGED: RefCell<HashMap<(u64, String), u64>> = RefCell::default();
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
        let mut harmless = Harmless::default();
        event.record(&mut harmless);
        if event.metadata().target() == "wasmpool::guest" {
            harmless.count();
            DYING.with_borrow_mut(|dying| dying.iter_mut().for_each(Dying::go_on));
        }
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// And the fields that say whose record it is.
#[derive(Default)]
struct Harmless {
    task: String,
    pid: u64,
    message_bytes: u64,
}

impl Harmless {
    /// A worker cannot say more of a task than twice the limit that it has to keep. A task may be run
    /// again, a few times alone, and for each result as part of a batch.
    fn count(self) {
        let runs = 3.max(ITEMS_MAX);
        let most = runs * (2 * LOG_BYTES_MAX).max(LOG_RECORD_BYTES_MAX as u64);
        LOGGED.with_borrow_mut(|logged| {
            let bytes = logged.entry((self.pid, self.task)).or_default();
            *bytes += self.message_bytes;
            assert!(*bytes <= most, "{bytes} bytes of records of one task");
        });
    }
}

impl tracing::field::Visit for Harmless {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        let shown = format!("{value:?}");
        assert_harmless(&shown);
        match field.name() {
            // What was escaped is longer than what was said.
            "message" if !shown.contains('\\') => self.message_bytes = shown.len() as u64,
            "task" => self.task = shown,
            _ => {}
        }
    }

    fn record_u64(&mut self, field: &tracing::field::Field, value: u64) {
        if field.name() == "worker_pid" {
            self.pid = value;
        }
    }

    fn record_str(&mut self, _: &tracing::field::Field, value: &str) {
        assert_harmless(value);
    }
}

/// Lives of workers: honest ones, and one for each lie, about tasks and about batches; some of them read
/// by a caller that waits.
pub fn seeds() -> Vec<Vec<u8>> {
    /// Choices of a submission: a task of a chunk; a batch of eight.
    const TASK: u8 = 1;
    const BATCH: u8 = 3 + 7 * 4;
    // Settings: the policy, workers, recycling, offers. Then tasks, the worker's first word, its lies.
    let life = |policy: u8, offers: u8, what: u8, attended: bool, lies: &[&[u8]]| {
        let mut seed = vec![policy, 0, 0, offers];
        for choice in [what, TASK, what] {
            seed.extend([0, choice, 255, 255, 40, 0]);
        }
        seed.extend([5, 0]);
        for lie in lies {
            seed.extend([10, 0]);
            seed.extend(*lie);
            if attended {
                // Now, or for a few microseconds; the worker logs, and goes on while it is read.
                seed.extend([8, 0, 3, 4, 0, 14, 2, 1, 0, 4, 200]);
            }
        }
        // It dies, and says a little more while it is read.
        seed.extend([7, 0, 40, 0]);
        seed.extend([1, 1, 0, 0, 2, b'h', b'i', 3, 2, 0, 0]);
        seed.extend([0; 40]);
        seed
    };
    let begun: &[u8] = &[11];
    let logged: &[u8] = &[1, 1, 0, 3, 5, 0x1b, b'[', b'3', b'1', b'm'];
    let ended = |message: u8, task: u8, verdict: u8, frames: u8, payload_bytes: u8| {
        let mut lie = vec![message, task, verdict, frames];
        lie.extend([9; 16]);
        lie.extend([payload_bytes, 0, 1]);
        lie
    };
    let done = |task: u8, verdict: u8, frames: u8| ended(3, task, verdict, frames, 10);
    let mut seeds = Vec::new();
    let verdicts = verdicts().len() as u8;
    for verdict in 0..verdicts {
        let lies = [begun, logged, &done(1, verdict, 20), &done(2, 0, 0)];
        seeds.push(life(verdict % 3, verdict, TASK, verdict % 2 == 1, &lies));
        let item = |task, verdict| ended(12, task, verdict, 20, 10);
        let lies = [begun, &item(1, verdict), logged, &item(2, 0), &[14, 3, 6, 2, 2]];
        seeds.push(life(verdict % 3, 7, BATCH, verdict % 2 == 0, &lies));
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
    for (number, lie) in lies.into_iter().enumerate() {
        let attended = number % 2 == 0;
        seeds.push(life(1, 7, TASK, attended, &[begun, lie, &done(1, 0, 0), lie, &done(2, 0, 0)]));
        seeds.push(life(0, 0, TASK, false, &[lie, logged, lie]));
        seeds.push(life(1, 3, BATCH, attended, &[begun, &[14, 1, 3, 0], lie, &[14, 4, 5, 2, 3], lie]));
    }
    // Of the batch 1 to 8: whole, in two parts, with logs of the task at hand and of the one before, a part and
    // an interrupt, one too many, nothing, the wrong ones, more after the end; its end with a payload.
    let whole: &[u8] = &[14, 1, 8, 2, 0];
    let batches: [&[&[u8]]; 10] = [
        &[whole],
        &[&[14, 1, 3, 2, 0], begun, &[14, 4, 5, 2, 3]],
        &[&[14, 1, 8, 3, 0]],
        &[&[14, 1, 8, 7, 0]],
        &[&[14, 1, 3, 1, 0], begun, &[14, 4, 5, 2, 3]],
        &[&[14, 1, 9, 2, 0]],
        &[&[14, 1, 0, 2, 0]],
        &[&[14, 5, 3, 2, 0]],
        &[whole, &[14, 1, 1, 0]],
        &[&[14, 1, 8, 0], &done(1, 0, 0)],
    ];
    for (number, batch) in batches.into_iter().enumerate() {
        for attended in [false, true] {
            let next = done(9, 0, 0);
            let lies = [&[begun], batch, &[begun, &next, begun, &[14, 10, 8, 2, 0]]].concat();
            seeds.push(life(number as u8 % 3, 7, BATCH, attended, &lies));
        }
    }
    seeds
}
