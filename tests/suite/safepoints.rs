//! Safepoints: code of every shape stops where it is to stop, with its worker alive, and where it is in the author's
//! module is told as if there were none.

use std::time::Duration;

use crate::support::{self, PATIENCE, error, prebuilt};
use wasmpool::module::{Interrupt, ModuleOptions};
use wasmpool::task::CommandInput;
use wasmpool::{Bytes, Pool, TaskError, TaskOptions};

const LIMIT: Duration = Duration::from_millis(30);

/// Programs that never end. Each has a `_start`.
const ENDLESS: [(&str, &str); 19] = [
    ("a loop, without a memory", r#"(func (export "_start") (loop $l (br $l)))"#),
    ("a memory without data", r#"(memory 1) (func (export "_start") (loop $l (br $l)))"#),
    ("a memory without room", r#"(memory 0) (func (export "_start") (loop $l (br $l)))"#),
    ("data", r#"(memory 1) (data (i32.const 70) "x") (func (export "_start") (loop $l (br $l)))"#),
    (
        "data in the last page",
        r#"(memory 2) (data (i32.const 131071) "x") (func (export "_start") (loop $l (br $l)))"#,
    ),
    (
        "a memory of 64 bits",
        r#"(memory i64 1) (data (i64.const 5000) "x") (func (export "_start") (loop $l (br $l)))"#,
    ),
    (
        "a loop that writes to its data",
        r#"(memory 1) (data (i32.const 0) "x")
        (func (export "_start") (loop $l (i64.store8 (i32.const 0) (i64.const 1)) (br $l)))"#,
    ),
    (
        "a loop that reads and writes the whole page",
        r#"(memory 1) (data (i32.const 0) "x") (func (export "_start") (local $i i32) (loop $l
            (i64.store8 (local.get $i) (i64.load8_s (local.get $i)))
            (local.set $i (i32.and (i32.add (local.get $i) (i32.const 1)) (i32.const 4095))) (br $l)))"#,
    ),
    (
        "floats without a store",
        r#"(func (export "_start") (local $x f64) (loop $l
        (local.set $x (f64.add (f64.mul (local.get $x) (f64.const 1.5)) (f64.const 1))) (br $l)))"#,
    ),
    ("calls of itself by the tail", r#"(func $f (export "_start") (return_call $f))"#),
    (
        "two that call each other by the tail",
        r#"(func $f (export "_start") (return_call $g)) (func $g (return_call $f))"#,
    ),
    (
        "calls through a table",
        r#"(type $t (func)) (table funcref (elem $f)) (func $f (export "_start")
            (return_call_indirect (type $t) (i32.const 0)))"#,
    ),
    (
        "calls that take too long, without a loop",
        r#"(func $f (param $n i32) (if (local.get $n) (then
            (call $f (i32.sub (local.get $n) (i32.const 1))) (call $f (i32.sub (local.get $n) (i32.const 1))))))
        (func (export "_start") (call $f (i32.const 60)))"#,
    ),
    (
        "a loop of calls of a function that polls",
        r#"(func $h) (func $g (call $h)) (func (export "_start") (loop $l (call $g) (br $l)))"#,
    ),
    (
        "a loop of calls of itself",
        r#"(func $f (param $turns i32) (if (local.get $turns) (then (loop $l (call $f (i32.const 0)) (br $l)))))
        (func (export "_start") (call $f (i32.const 1)))"#,
    ),
    ("the start function", r#"(func $s (loop $l (br $l))) (start $s) (func (export "_start"))"#),
    (
        "the start function, with data",
        r#"(memory 1) (data (i32.const 8) "x") (func $s (loop $l (br $l))) (start $s) (func (export "_start"))"#,
    ),
    (
        "a loop with a parameter",
        r#"(func (export "_start") i32.const 1 (loop $l (param i32) i32.const 1 i32.add br $l) unreachable)"#,
    ),
    (
        "a branch table",
        r#"(func (export "_start") (local $n i32) (loop $l (block $b
            (br_table $b $l $l (i32.and (local.get $n) (i32.const 1)))) (br $l)))"#,
    ),
];

const WASI_START: &str = r#"(func (export "_start") (loop))"#;

/// An import that gives a module its memories from the engine's pool.
const WASI: &str = r#"(import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))"#;

fn endless(pool: &Pool, what: &str, text: &str) {
    let command = support::wat(pool, &format!("(module {text})")).command().expect("is a command");
    let options = TaskOptions::new().timeout(LIMIT);
    let future = pool.submit_with(&command, &CommandInput::new(), options).expect("submits");
    assert!(future.failure_timeout(PATIENCE).is_ok(), "{what}: it ends");
    assert_eq!(error(&future), TaskError::Timeout { limit: LIMIT, killed: false }, "{what}");
}

#[test]
fn code_of_every_shape_stops_at_its_deadline_and_its_worker_goes_on() {
    let pool = support::build(support::builder(1).grace(PATIENCE));
    for (what, text) in ENDLESS {
        endless(&pool, what, text);
        endless(&pool, &format!("{what}, with WASI"), &format!("{WASI} {text}"));
    }
    assert_eq!(pool.stats().workers_started, 1);
}

#[test]
fn an_instance_that_is_kept_is_stopped_in_its_second_task_too() {
    let pool = support::build(support::builder(1).grace(PATIENCE));
    let spin = support::load(&pool, "echo").task::<u64, u64>("spin").expect("has it");
    let options = TaskOptions::new().isolation(wasmpool::task::Isolation::Reuse).timeout(LIMIT);
    for _ in 0..3 {
        let first = pool.submit_with(&spin, &10, options.clone()).expect("submits");
        first.result_timeout(PATIENCE).expect("in time").expect("succeeds");
        let second = pool.submit_with(&spin, &u64::MAX, options.clone()).expect("submits");
        assert!(second.failure_timeout(PATIENCE).is_ok(), "it ends");
        assert_eq!(error(&second), TaskError::Timeout { limit: LIMIT, killed: false });
    }
    assert_eq!(pool.stats().workers_started, 1);
}

#[test]
fn backtraces_name_the_places_of_the_authors_module() {
    let pool = support::pool(2);
    let backtrace_of = |interrupt| {
        let options = ModuleOptions::new().interrupt(interrupt);
        let module = pool.load_file_with(prebuilt("faults"), options).expect("loads");
        ["out_of_bounds", "divide_by_zero", "indirect_call_mismatch", "panic_with_location", "unreachable"]
            .map(|task| {
                let task = support::raw(&module, task);
                let future = pool.submit_bytes(&task, Bytes::new()).expect("submits");
                assert!(future.failure_timeout(PATIENCE).is_ok(), "it ends");
                match error(&future) {
                    TaskError::Trap { code, backtrace, .. } => (format!("{code:?}"), backtrace),
                    TaskError::Panic { backtrace, .. } => ("panic".into(), backtrace),
                    other => panic!("{other:?}"),
                }
            })
    };
    let (with, without) = (backtrace_of(Interrupt::Check), backtrace_of(Interrupt::Kill));
    for (with, without) in with.iter().zip(&without) {
        assert!(!with.1.is_empty() && with.1.iter().all(|frame| frame.module_offset.is_some()), "{with:?}");
        assert_eq!(with, without);
    }
}

/// Most of these moments are in the engine's own pieces, by which the host calls functions.
#[test]
fn stacks_that_are_asked_for_all_the_time_stop_nobody() {
    let pool = support::build(support::builder(2).grace(PATIENCE));
    let echo = support::load(&pool, "echo").task::<u64, u64>("spin").expect("has it");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                pool.sample();
                std::thread::yield_now();
            }
        });
        let results: Result<Vec<_>, _> = pool.map(&echo, 0..20_000).collect();
        let lengths = results.map(|results| results.len());
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(lengths.expect("all succeed"), 20_000);
    });
    assert_eq!((pool.stats().workers_started, pool.stats().workers_died), (2, 0));
}

#[test]
fn nothing_of_a_safepoint_is_seen_of_a_module() {
    let pool = support::pool(1);
    let text = r#"(module (memory (export "memory") 1) (data (i32.const 0) "x") (func $s) (start $s)
        (func (export "_start") (loop)))"#;
    let module = support::wat(&pool, text);
    let description = module.description();
    assert_eq!(description.exports.len(), 2, "{:?}", description.exports);
    assert_eq!(description.memories.len(), 1);
    assert!(description.has_start);
    // The page that a module without memories polls counts for nobody.
    let least = support::wat(&pool, r#"(module (func (export "_start") (loop)))"#).command().expect("is one");
    let options = TaskOptions::new().memory_bytes_max(0);
    let future = pool.submit_with(&least, &CommandInput::new(), options).expect("submits");
    future.result_timeout(PATIENCE).expect("in time").expect("succeeds without a byte of memory");
    assert_eq!(future.report().expect("has run").peak_memory_bytes, Some(0));
}

/// The engine's pool has room for one memory more, which is for a page that is added.
#[test]
fn as_many_memories_are_allowed_as_without_safepoints() {
    let pool = support::pool(1);
    let data = r#"(data (i32.const 0) "x")"#;
    for interrupt in [Interrupt::Check, Interrupt::Kill] {
        let load = |count: usize, data: &str| {
            let text = format!(r#"(module {} {data} {WASI_START})"#, "(memory 1) ".repeat(count));
            let wasm =
                wat::parse_str(text.replace("(module", &format!("(module {WASI}"))).expect("valid text");
            pool.load_with(&wasm, ModuleOptions::new().interrupt(interrupt))
        };
        for data in ["", data] {
            let command = load(8, data).expect("loads").command().expect("is a command");
            let future = pool.submit(&command, &CommandInput::new()).expect("submits");
            future.result_timeout(PATIENCE).expect("in time").expect("succeeds");
            let error = load(9, data).expect_err("is too much").to_string();
            assert!(error.contains("memories count of 9 exceeds the per-instance limit of 8"), "{error}");
        }
    }
}
