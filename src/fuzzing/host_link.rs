//! The host's whole side of its workers, `host` and `scheduler`, against workers that do anything to the
//! shared memory: positions, claims and frames that cannot be, at any time.
//!
//! There are no processes and no threads: the target is the supervisor, and plays the workers. A worker
//! dies when the script says so; then its link's thread, which is this one, reads to the end. Before, it
//! is read where the script has a caller wait for a task: as an inline reader. What a worker does while it is
//! being read, it does at each of its log records.

mod logs;
mod memory;
mod seeds;

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};

use memory::Memory;

pub use seeds::seeds;

use super::text::assert_harmless;
use super::{Bounded, Input, within};
use crate::error::{Death, DeathCause, Phase, TaskError, TaskFailure};
use crate::future::{Cell, Item, Queues, TaskOwner};
use crate::held::{Held, Life, Permits};
use crate::host::become_io_thread;
use crate::host::cgroup::CgroupChoice;
use crate::host::core::{Core, WhenFull};
use crate::host::invocation::TaskShares;
use crate::host::link::{Link, WorkerEvents, read_loop};
use crate::host::request::{Request, RequestInput};
use crate::host::requests::{self, SupervisorRequest, SupervisorRequests};
use crate::host::settings::PoolSettings;
use crate::module::{About, Aim, Digest, Entrance, Loaded, TaskOutput};
use crate::options::TaskOptions;
use crate::policy::{DropPolicy, OnWorkerDeath, Replacement, Retry};
use crate::scheduler::{Event, WorkerKey};
use crate::shared_input::{SharedInput, Shares};
use crate::stdin::StdinSource;
use proto::control;
use proto::description::samples::{of_tasks, task};
use proto::limits::{BACKTRACE_FRAMES_MAX, FRAME_META_BYTES_MAX, GUEST_TEXT_BYTES_MAX};
use proto::message::{EventLevels, ModuleId, TaskIndex};
use proto::payload::Payload;
use proto::policy::{SandboxPolicy, SandboxReport};
use proto::ring::{self, CLAIMS};
use proto::schema::TypeSchema;
use proto::task::TaskId;
use proto::trap::Frame;

const OUTPUT_BYTES_MAX: u64 = 100_000;
const INPUT_BYTES_MAX: usize = 300_000;
const TASKS_MAX: usize = 40;
const STEPS_MAX: usize = 200;
const WORKERS_MAX: usize = 12;

const SHARE_BYTES: u64 = 64;
const ITEMS_MAX: u64 = 8;
const LOG_BYTES_MAX: u64 = u16::MAX as u64;

/// Most that all of it may hold: tasks with their inputs and answers, a frame that is being read.
const HELD_BYTES_MAX: usize = TASKS_MAX
    * (INPUT_BYTES_MAX + 3 * ITEMS_MAX as usize * OUTPUT_BYTES_MAX as usize)
    + 64 * FRAME_META_BYTES_MAX;

const NEVER: Duration = Duration::from_secs(1 << 20);

/// The input: the pool's settings, then what happens, step by step.
pub fn run(data: &[u8], bounded: Bounded) {
    let mut input = Input(data);
    logs::begin();
    // This thread is the supervisor's and the links' at once: it waits for nobody.
    become_io_thread();
    within(bounded, HELD_BYTES_MAX, || {
        let mut world = World::new(&mut input);
        for _ in 0..STEPS_MAX {
            if input.is_empty() {
                break;
            }
            world.step(&mut input);
            world.supervise();
        }
        world.end();
    });
}

struct World {
    core: Core,
    requests: SupervisorRequests,
    tasks: Vec<Submitted>,
    shares: Shares,
    /// The newest: what is older lives as long as tasks have it.
    shared: Option<SharedInput>,
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
    link: Arc<Link>,
    /// It is `None` only while this worker is read: it is then with the reader.
    memory: Option<Memory>,
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
        let mut settings = PoolSettings::usual(1);
        let workers = &mut settings.workers;
        workers.max = 1 + usize::from(input.byte() % 3);
        workers.grace = NEVER;
        workers.start_timeout = NEVER;
        workers.on_death = on_worker_death;
        workers.recycle.tasks_max = Some(u64::from(input.byte())).filter(|n| *n > 0);
        workers.prefetch_max = usize::from(input.byte()) % CLAIMS;
        workers.modules_max = usize::MAX;
        settings.tasks.queued_max = TASKS_MAX;
        settings.tasks.input_bytes_max = INPUT_BYTES_MAX;
        settings.held.share_bytes_max = SHARE_BYTES;
        settings.held.shares_max = TASKS_MAX;
        settings.held.modules_max = TASKS_MAX;
        settings.logs.bytes_per_second = 1 << 16;
        settings.logs.worker_events = EventLevels::default();
        settings.on_drop = DropPolicy::Kill;
        settings.sandbox.cgroup = CgroupChoice::Off;
        let (callbacks, _callbacks) = unbounded();
        let (wakers, _wakers) = unbounded();
        let queues = Arc::new(Queues { callbacks, wakers });
        let (supervisor, requests) = requests::channel().expect("descriptors");
        World {
            core: Core::new(1, settings, supervisor, queues),
            requests,
            tasks: Vec::new(),
            shares: Shares::default(),
            shared: None,
            workers: Vec::new(),
            started: 0,
            _callbacks,
            _wakers,
        }
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
                let workers_min = 0;
                let workers_max = 1 + choice % 3;
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
                let wait_us = input.byte();
                let len = usize::from(input.u16() % 1024);
                self.attend(choice, Duration::from_micros(u64::from(wait_us % 4)), input.bytes(len));
            }
            _ => {
                let index = choice % self.workers.len();
                self.workers[index].memory.iter_mut().for_each(|memory| memory.lie(input));
            }
        }
        // The supervisor's poll would end for what is due.
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
        let memory = self.workers[index].memory.take();
        logs::reading(memory, script);
        self.core.drive_inline(&task.cell, Some(Instant::now() + wait));
        self.workers[index].memory = logs::read();
    }

    fn submit(&mut self, choice: usize, input: &mut Input<'_>) {
        if self.tasks.len() >= TASKS_MAX {
            return;
        }
        let mut options = TaskOptions::new()
            .retry(Retry::attempts(if choice % 8 == 5 { 1 } else { 1 + choice as u32 % 3 }))
            .output_bytes_max((OUTPUT_BYTES_MAX >> (choice % 16)) as usize)
            .log_bytes_max(usize::from(input.u16()));
        let len = usize::from(input.u16());
        let len = if choice >= 128 { (len * 8).min(INPUT_BYTES_MAX) } else { len % 64 };
        let aim = Aim { module: module(), name: Arc::from("count"), index: TaskIndex(0) };
        let count = 1 + choice / 4 % ITEMS_MAX as usize;
        let items = (choice % 4 == 3).then_some(count as u64);
        options.shared = self.shares(input.byte());
        let work = match items {
            None => {
                let bytes = vec![choice as u8; len];
                let input = Payload::inline(&bytes).unwrap_or_else(|| bytes.into());
                let chunk = (!choice.is_multiple_of(4)).then_some(choice as u64 % 4);
                // Some tasks may ask for their stdin, which ends.
                let stdin = (choice % 8 == 5).then(|| StdinSource::of_reader(&b"what it reads"[..]));
                RequestInput::One { entrance: Entrance::Task, input, owns_input: true, chunk, stdin }
            }
            // Each input of a batch is preceded by its length.
            Some(_) => {
                let one = [&(len as u32 / 8).to_le_bytes()[..], &vec![7; len / 8]].concat();
                RequestInput::Batch { inputs: one.repeat(count).into(), count }
            }
        };
        let request = Request::new(self.core.bounds(), aim, work, options).expect("it is within all bounds");
        // A pool that is broken or full says so.
        if let Ok(cell) = self.core.submit(request, WhenFull::Reject) {
            self.tasks.push(Submitted { cell, items, taken: VecDeque::new() });
        }
    }

    /// The inputs that a task shares with others: none, what the last had, a new one, both.
    fn shares(&mut self, choice: u8) -> TaskShares {
        let mut shares = Vec::new();
        if choice & 1 != 0 {
            shares.extend(self.shared.clone());
        }
        if choice & 2 != 0 {
            let bytes = vec![choice; usize::from(choice) % SHARE_BYTES as usize];
            // There may be too many.
            self.shared = self.shares.share(1, &bytes, SHARE_BYTES, TASKS_MAX).ok();
            shares.extend(self.shared.clone());
        }
        (!shares.is_empty()).then(|| shares.into())
    }

    /// Does what the supervisor is asked for, as it would.
    fn supervise(&mut self) {
        loop {
            self.requests.clear_wake();
            let requests: Vec<_> = std::iter::from_fn(|| self.requests.next()).collect();
            if requests.is_empty() {
                return;
            }
            for request in requests {
                let SupervisorRequest::Spawn(key) = request else { panic!("nobody compiles here") };
                if !self.core.wants(key) || self.started as usize >= WORKERS_MAX {
                    let cause = DeathCause::SpawnFailed("there are enough".into());
                    self.core.died(key, Death::new(0, cause, Phase::Start, String::new()));
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
        let link =
            Link::new(key, self.started, pidfd, control, end, self.core.settings.logs.bytes_per_second);
        if self.core.register(link.clone()) {
            self.core.handle(Event::Spawned { worker: key });
        }
        let memory = Some(Memory::map(&rings));
        self.workers.push(Worker { link, memory, is_ready: false, _control: theirs });
    }

    /// The process is gone; what it has written is read to the end, while `script` goes on writing.
    fn die(&mut self, index: usize, script: &[u8]) {
        let Worker { link, memory, is_ready, _control } = self.workers.swap_remove(index);
        let phase = if is_ready { Phase::Idle } else { Phase::Start };
        let last_words = "its last \u{1b}[1mwords".into();
        link.report_exit(Death::new(self.started, DeathCause::Signaled(9), phase, last_words));
        logs::reading(memory, script);
        read_loop(&self.core, &link);
        logs::read();
        assert!(self.core.stats().workers.iter().all(|worker| worker.pid != link.pid), "it is still there");
    }

    /// Everyone dies; every task has ended in one way.
    fn end(mut self) {
        self.core.handle(Event::Kill { gently: false });
        for _ in 0..100 {
            self.supervise();
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
        self.tasks.iter_mut().for_each(check);
        let submitted: u64 = self.tasks.iter().map(Submitted::ended).sum();
        assert_eq!((stats.submitted, tasks), (submitted, submitted));
    }
}

impl Submitted {
    /// Returns how many tasks have ended: all, except those that a batch handed back because its answers had
    /// no room.
    fn ended(&self) -> u64 {
        let is_answered = self.cell.outcome().is_some_and(|outcome| outcome.result.is_ok());
        match self.items {
            Some(_) if is_answered => self.taken.len() as u64,
            items => items.unwrap_or(1),
        }
    }
}

/// Every task has ended in one way, and what is told of a batch is told in order and never twice.
fn check(task: &mut Submitted) {
    assert!(task.cell.take_items(&mut task.taken), "every future is done");
    let outcome = task.cell.outcome().expect("every future is done");
    let _ = outcome.report.transfer();
    let result = match &outcome.result {
        Ok(output) => Ok(output.clone()),
        Err(failed) => Err(outcome.failure_of(task.cell.labels(), failed)),
    };
    let Some(items) = task.items else {
        assert!(task.taken.is_empty(), "results of a batch that is none");
        return check_result(&result, task.cell.task());
    };
    let answered = task.taken.len() as u64;
    assert!(answered <= items, "{answered} results of {items}");
    assert!(
        answered > 0 || outcome.result.is_err(),
        "a batch was handed back that had all the room there is"
    );
    for (index, item) in task.taken.iter().enumerate() {
        check_result(&item.result, TaskId(task.cell.task().0 + index as u64));
    }
    if outcome.result.is_err() {
        // The failure has the id of the first task without a result, or, if all have one, an id beyond the batch.
        check_result(&result, TaskId(task.cell.task().0 + answered));
    }
}

/// Checks that the end of a task can be shown to the caller.
fn check_result(result: &Result<TaskOutput, TaskFailure>, task: TaskId) {
    match result {
        Ok(TaskOutput::Output(output)) => {
            assert!(output.len() as u64 <= (2 * OUTPUT_BYTES_MAX).max(GUEST_TEXT_BYTES_MAX as u64));
        }
        Ok(TaskOutput::Command(_)) => panic!("a task answered as a command"),
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
    SandboxReport::new(SandboxPolicy::Off, Vec::new())
}

fn module() -> Arc<Loaded> {
    thread_local! {
        static MODULE: Arc<Loaded> = {
            let file = || File::open("/dev/null").expect("opens");
            let description = of_tasks(vec![task("count", &["upto"], TypeSchema::of::<u64>(), TypeSchema::of::<u64>())]);
            let about = About {
                shown: "primes".into(),
                name: "primes".into(),
                digest: Digest::of(b"wasm"),
                description,
                from_cache: false,
            };
            Arc::new(Loaded {
                pool: 1,
                id: ModuleId(0),
                about: Arc::new(about),
                artifact: file(),
                description_file: file(),
                life: Life::new(Held::Module(ModuleId(0)), Permits::default().take(1).expect("the first").1),
            })
        };
    }
    MODULE.with(Arc::clone)
}
