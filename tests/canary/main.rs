//! No byte of one task is visible to the next one in the same worker.
//!
//! One task fills everything that a guest can write with a canary and ends in one of many ways;
//! the next one, of the same module or another, counts what it finds where nothing should be.
//! The modules have more memories, together, than a worker has room for: they must share slots.
//!
//! This suite has an executable of its own because it reads what the subscriber saw, which is the whole process's.

#[path = "../support/mod.rs"]
mod support;
mod vault;

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, span};

use support::{Guarded, PATIENCE, build, builder, raw};
use vault::{CANARY, ENDINGS, Ending, FILLINGS, FOUND, Filling, Shape};
use wasmpool::error::BuildError;
use wasmpool::module::{ModuleOptions, RawTask};
use wasmpool::task::CommandInput;
use wasmpool::{Bytes, Module, PoolBuilder, TaskError, TaskOptions};

/// Returns how often every pair of modules is tried, with other endings each time.
fn rounds() -> usize {
    std::env::var("WASMPOOL_CANARY_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

/// 30 memories, and 3 heaps of objects, of the engine's; 14 and 3 of the worker's own. It has room for 16 of each.
const SHAPES: [Shape; 8] = [
    Shape {
        name: "images in all of 8 memories",
        memories: &[4, 4, 4, 4, 4, 4, 4, 4],
        image_pages: 2,
        grown_pages: 4,
        table_entries: 100,
        wasi: true,
        gc: true,
    },
    Shape {
        name: "no image",
        memories: &[2, 1, 1, 1, 1, 1, 1, 1],
        image_pages: 0,
        grown_pages: 8,
        table_entries: 10,
        wasi: false,
        gc: true,
    },
    Shape {
        name: "larger, with large tables",
        memories: &[24, 16, 16, 8, 8, 8, 8],
        image_pages: 4,
        grown_pages: 24,
        table_entries: 20_000,
        wasi: true,
        gc: true,
    },
    Shape {
        name: "smaller than the image of others",
        memories: &[2, 1, 1, 1, 1, 1, 1, 1],
        image_pages: 2,
        grown_pages: 1,
        table_entries: 3,
        wasi: false,
        gc: false,
    },
    Shape {
        name: "memories that begin empty",
        memories: &[2, 0, 0, 0, 0, 0, 0],
        image_pages: 0,
        grown_pages: 40,
        table_entries: 1,
        wasi: true,
        gc: true,
    },
    Shape {
        name: "one large memory",
        memories: &[160],
        image_pages: 3,
        grown_pages: 96,
        table_entries: 50,
        wasi: false,
        gc: true,
    },
    Shape {
        name: "small images, and more than a worker zeroes",
        memories: &[3, 1, 1, 0],
        image_pages: 1,
        grown_pages: 300,
        table_entries: 2_000,
        wasi: false,
        gc: true,
    },
    Shape {
        name: "a little of everything",
        memories: &[1],
        image_pages: 0,
        grown_pages: 2,
        table_entries: 1,
        wasi: false,
        gc: false,
    },
];

/// Modules whose memories are the worker's own: without WASI, and with little data.
fn has_own_memories(shape: &Shape) -> bool {
    let names = [
        "no image",
        "one large memory",
        "small images, and more than a worker zeroes",
        "a little of everything",
    ];
    names.contains(&shape.name)
}

/// A pool of one worker, with its modules.
struct Worker {
    pool: Guarded,
    modules: Vec<Module>,
    pid: Mutex<Option<u32>>,
}

impl Worker {
    fn new(builder: PoolBuilder, options: &ModuleOptions) -> Worker {
        let pool = build(builder.prefetch_max(0));
        let modules = SHAPES.iter().map(|shape| {
            let wasm = wat::parse_str(shape.text()).unwrap_or_else(|error| panic!("{}: {error}", shape.name));
            let options = options.clone().name(shape.name);
            let module = pool.load_with(&wasm, options).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(module.description().has_own_memories(), has_own_memories(shape), "{}", shape.name);
            module
        });
        Worker { modules: modules.collect(), pid: Mutex::new(None), pool }
    }

    /// The same process as all others; a dead one has no secrets to keep.
    fn is_the_same(&self, pid: Option<u32>) {
        let pid = pid.expect("it ran");
        assert_eq!(*self.pid.lock().expect("locks").get_or_insert(pid), pid, "another worker");
    }

    fn run(&self, task: &RawTask, input: &[u8], options: TaskOptions) -> Result<Bytes, TaskError> {
        let input = Bytes::copy_from_slice(input);
        let future = self.pool.submit_with(task, &input, options).expect("submits");
        let result = future.result_timeout(PATIENCE).expect("in time");
        self.is_the_same(future.report().and_then(|report| report.worker_pid));
        result.map_err(|failure| failure.error().clone())
    }

    fn fill(&self, module: usize, filling: Filling, ending: Ending) {
        let options = TaskOptions::new().output_bytes_max(2048);
        let options = match ending {
            Ending::Spin | Ending::Sleep => options.timeout(Duration::from_millis(20)),
            _ => options,
        };
        let task = raw(&self.modules[module], "fill");
        let result = self.run(&task, &[ending as u8, filling as u8], options);
        let is_so = match (ending, &result) {
            (Ending::Ok, Ok(output)) => output.iter().filter(|byte| **byte == CANARY).count() >= 1023,
            (Ending::OwnError, Err(TaskError::Guest { message, .. })) => message.contains("ZZZZ"),
            (Ending::Panic, Err(TaskError::Panic { message, .. })) => message.contains("ZZZZ"),
            (Ending::Unreachable | Ending::OutOfBounds, Err(TaskError::Trap { .. })) => true,
            (Ending::StackOverflow | Ending::Exception, Err(TaskError::Trap { .. })) => true,
            (Ending::OutputTooLarge, Err(TaskError::OutputTooLarge { .. })) => true,
            (Ending::Spin | Ending::Sleep, Err(TaskError::Timeout { killed: false, .. })) => true,
            (Ending::Exit, Err(TaskError::Exit { output })) => output.exit_code == 7,
            _ => false,
        };
        assert!(is_so, "{} ends by {ending:?} after {filling:?}: {result:?}", SHAPES[module].name);
    }

    /// Returns what a task of the module finds, by [`FOUND`].
    fn scan(&self, module: usize, task: &str, label: &str) -> Vec<u64> {
        let options = TaskOptions::new().label(label);
        let found = self.run(&raw(&self.modules[module], task), &[], options).expect("scans");
        found.chunks(8).map(|word| u64::from_le_bytes(word.try_into().expect("whole words"))).collect()
    }

    fn sees_nothing(&self, module: usize, after: &str) {
        for (what, found) in FOUND.iter().zip(self.scan(module, "scan", "scan")) {
            assert_eq!(found, 0, "{what}, found by {} after {after}", SHAPES[module].name);
        }
    }

    /// Every pair of modules, in an order of endings and fillings that differs in each round.
    fn no_pair_sees_anything(&self) {
        let mut count = 0;
        for _ in 0..rounds() {
            for (first, shape) in SHAPES.iter().enumerate() {
                for second in 0..SHAPES.len() {
                    let possible = if shape.wasi { ENDINGS.len() } else { ENDINGS.len() - 2 };
                    let ending = ENDINGS[count % possible];
                    let filling = FILLINGS[count % FILLINGS.len()];
                    self.fill(first, filling, ending);
                    self.sees_nothing(second, &format!("{}, {filling:?}, {ending:?}", shape.name));
                    // Another step than the numbers of modules, endings and fillings have.
                    count += 1;
                }
            }
        }
    }
}

fn one_worker() -> PoolBuilder {
    builder(1)
}

/// Returns a builder whose workers use pagemap_scan, where the machine allows it.
fn with_scan() -> Option<PoolBuilder> {
    match one_worker().pagemap_scan(true).build() {
        Ok(_) => Some(one_worker().pagemap_scan(true)),
        Err(error) => {
            assert!(matches!(error, BuildError::PagemapScan { .. }), "{error}");
            eprintln!("not tested: {error}");
            None
        }
    }
}

#[test]
fn a_task_that_looks_at_what_it_filled_itself_finds_it() {
    let worker = Worker::new(one_worker(), &ModuleOptions::new());
    for (module, shape) in SHAPES.iter().enumerate() {
        let found = worker.scan(module, "fill_and_scan", "itself");
        let memory = found[0] + found[1];
        let pages: u32 = shape.memories.iter().map(|pages| pages + shape.grown_pages).sum();
        assert!(memory + found[8] + 2 * 8192 >= u64::from(pages) * 8192, "{}: {found:?}", shape.name);
        let entries = u64::from(2 * shape.table_entries);
        assert_eq!(&found[3..6], [entries, entries, 6], "{}: {found:?}", shape.name);
        assert_eq!(found[8] > 0, shape.image_pages > 0, "{}: {found:?}", shape.name);
    }
}

#[test]
fn no_task_sees_a_byte_of_another_whatever_it_filled_and_however_it_ended() {
    kept();
    let worker = Worker::new(one_worker(), &ModuleOptions::new());
    worker.no_pair_sees_anything();
    no_record_has_the_canary();
}

#[test]
fn no_task_sees_a_byte_of_another_with_pagemap_scan() {
    kept();
    let Some(builder) = with_scan() else { return };
    let worker = Worker::new(builder, &ModuleOptions::new());
    worker.no_pair_sees_anything();
    no_record_has_the_canary();
}

#[test]
fn metered_and_plain_modules_of_one_worker_see_nothing_of_each_other() {
    let worker = Worker::new(one_worker(), &ModuleOptions::new());
    let load = |shape: &Shape| {
        let wasm = wat::parse_str(shape.text()).expect("valid text");
        worker.pool.load_with(&wasm, ModuleOptions::new().metered(true)).expect("loads")
    };
    let metered = Worker { modules: SHAPES.iter().map(load).collect(), pid: Mutex::new(None), ..worker };
    let plain = support::wat(&metered.pool, &SHAPES[0].text());
    for ending in [Ending::Ok, Ending::Unreachable, Ending::Spin] {
        for module in 0..SHAPES.len() {
            metered.fill(module, Filling::Everything, ending);
            let found = metered.run(&raw(&plain, "scan"), &[], TaskOptions::new()).expect("scans");
            assert!(found.iter().all(|byte| *byte == 0), "{found:?}");
            metered.sees_nothing(module, "a plain one");
        }
    }
}

#[test]
fn hundreds_of_megabytes_are_gone_for_the_next_task() {
    let shape = Shape { name: "large", grown_pages: 4096, ..SHAPES[7] };
    let worker = Worker::new(one_worker(), &ModuleOptions::new());
    let wasm = wat::parse_str(shape.text()).expect("valid text");
    let large = worker.pool.load(&wasm).expect("loads");
    assert!(large.description().has_own_memories());
    for (filling, ending) in [
        (Filling::Everything, Ending::Ok),
        (Filling::Sparse, Ending::Unreachable),
        (Filling::End, Ending::Spin),
    ] {
        let mut options = TaskOptions::new();
        if ending == Ending::Spin {
            options = options.timeout(Duration::from_millis(500));
        }
        let result = worker.run(&raw(&large, "fill"), &[ending as u8, filling as u8], options);
        assert!(result.is_ok() == (ending == Ending::Ok), "{result:?}");
        for module in [1, 7] {
            worker.sees_nothing(module, "a large one");
        }
        let found = worker.run(&raw(&large, "scan"), &[], TaskOptions::new()).expect("scans");
        assert!(found.iter().all(|byte| *byte == 0), "{filling:?}: {found:?}");
    }
}

/// A command that says what it was given, and then fills its memory with it.
const COMMAND: &str = r#"(module
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (memory (export "memory") 4)
    (func $say (param $fd i32) (param $at i32) (param $len i32)
        (i32.store (i32.const 0) (local.get $at))
        (i32.store (i32.const 4) (local.get $len))
        (drop (call $write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
    (func (export "_start")
        (drop (call $random (i32.const 65520) (i32.const 16)))
        (call $say (i32.const 1) (i32.const 65520) (i32.const 16))
        (drop (call $args_sizes (i32.const 16) (i32.const 20)))
        (drop (call $args (i32.const 1024) (i32.const 65536)))
        (call $say (i32.const 1) (i32.const 65536) (i32.load (i32.const 20)))
        (drop (call $environ_sizes (i32.const 16) (i32.const 20)))
        (drop (call $environ (i32.const 1024) (i32.const 98304)))
        (call $say (i32.const 1) (i32.const 98304) (i32.load (i32.const 20)))
        (i32.store (i32.const 0) (i32.const 131072))
        (i32.store (i32.const 4) (i32.const 65536))
        (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 24)))
        (call $say (i32.const 1) (i32.const 131072) (i32.load (i32.const 24)))
        ;; What it has not filled itself is part of its answer, too.
        (call $say (i32.const 2) (i32.const 196608) (i32.const 65536))
        (memory.fill (i32.const 0) (i32.const 90) (i32.const 262144))))"#;

#[test]
fn arguments_environment_stdin_outputs_and_randomness_are_each_commands_own() {
    let worker = Worker::new(one_worker(), &ModuleOptions::new());
    let command = support::wat(&worker.pool, COMMAND).command().expect("a command");
    let mut seen = HashSet::new();
    for round in 0..100 {
        let canary = "Z".repeat(20_000);
        let full = CommandInput::new().program("a").arg(&canary).env("A", &canary).stdin(canary.into_bytes());
        let own = format!("{round}");
        let empty = CommandInput::new().program(&own);
        for (input, expected) in [(full, 60_000), (empty, 0)] {
            let future = worker.pool.submit(&command, &input).expect("submits");
            let output = future.result_timeout(PATIENCE).expect("in time").expect("runs");
            worker.is_the_same(future.report().and_then(|report| report.worker_pid));
            let (random, said) = output.stdout.split_at(16);
            assert!(seen.insert(random.to_vec()), "random bytes came twice");
            let canaries = said.iter().filter(|byte| **byte == CANARY).count();
            assert_eq!(canaries, expected, "round {round}");
            if expected == 0 {
                assert_eq!(said, [own.as_bytes(), b"\0"].concat(), "round {round}");
            }
            assert!(output.stderr.len() == 65536 && output.stderr.iter().all(|byte| *byte == 0));
        }
        // A task after a command, and a command after a task.
        worker.sees_nothing(2 * (round % 3), "a command");
        worker.fill(2 * (round % 3), Filling::Everything, Ending::Ok);
    }
}

/// The lines that `scan` tasks logged, as the host's subscriber saw them.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<(String, String)>>>);

struct Text<'a>(&'a mut (String, String));

impl Visit for Text<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "label" {
            self.0.0 = value.into();
        } else {
            self.0.1 += value;
        }
    }
}

impl Subscriber for Kept {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "wasmpool::guest"
    }

    fn event(&self, event: &Event<'_>) {
        let mut record = Default::default();
        event.record(&mut Text(&mut record));
        self.0.lock().expect("locks").push(record);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// The one subscriber of this process.
fn kept() -> &'static Kept {
    static KEPT: OnceLock<Kept> = OnceLock::new();
    KEPT.get_or_init(|| {
        let kept = Kept::default();
        tracing::subscriber::set_global_default(kept.clone()).expect("the only one");
        kept
    })
}

/// No record has a line that another task did not end, or anything else of it.
fn no_record_has_the_canary() {
    let records = kept().0.lock().expect("locks");
    let scans: Vec<_> = records.iter().filter(|(label, _)| label == "scan").collect();
    assert!(!scans.is_empty() && records.iter().any(|(_, text)| text.contains("ZZZZ")));
    for (_, text) in scans {
        assert!(text.contains("clean") && !text.contains("ZZ"), "{text}");
    }
}
