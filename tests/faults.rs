//! Each way for a guest to go wrong is an error of its own, and the worker goes on.

mod common;

use std::time::Duration;

use common::{builder, error, load};
use wasmpool::{Callable, Frame, Module, Pool, TaskError, TaskOptions, TrapCode};

/// How often each fault is repeated; the promise is made for 1,000.
fn rounds() -> usize {
    std::env::var("WASMPOOL_FAULT_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1000)
}

/// Resident memory of this process, in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("reads");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

fn names(backtrace: &[Frame]) -> String {
    backtrace.iter().map(|frame| frame.function.clone().unwrap_or_default()).collect::<Vec<_>>().join(" < ")
}

/// Runs one task many times, holds every error to `expected`, and the workers to their pids.
fn repeat<C: Callable>(
    pool: &Pool,
    task: &C,
    input: &C::Input,
    options: TaskOptions,
    expected: impl Fn(&TaskError) -> bool,
) where
    C::Output: std::fmt::Debug,
{
    let pids = pool.worker_pids();
    assert_eq!(pids.len(), 2, "both workers run");
    let futures: Vec<_> =
        (0..rounds()).map(|_| pool.submit_with(task, input, options.clone()).expect("submits")).collect();
    for future in futures {
        let error = error(&future);
        assert!(expected(&error), "{error:?}");
    }
    assert_eq!(pool.worker_pids(), pids, "the same workers go on");
}

/// A pool with both workers up, and the faults.
fn faults() -> (Pool, Module) {
    let pool = builder(2).build().expect("builds");
    let faults = load(&pool, "faults");
    let ok = faults.task::<(), u32>("ok").expect("types agree");
    common::eventually("both workers to run", || {
        let pair = [pool.submit(&ok, &()).expect("submits"), pool.submit(&ok, &()).expect("submits")];
        pair.iter().for_each(|future| assert_eq!(future.result().expect("runs"), 42));
        pool.worker_pids().len() == 2
    });
    (pool, faults)
}

fn plain() -> TaskOptions {
    TaskOptions::new().memory_bytes_max(16 << 20)
}

#[test]
fn every_trap_has_its_code_and_a_backtrace_with_names() {
    let (pool, faults) = faults();
    for (name, expected) in [
        ("unreachable", TrapCode::Unreachable),
        ("out_of_bounds", TrapCode::MemoryOutOfBounds),
        ("divide_by_zero", TrapCode::IntegerDivideByZero),
        ("stack_overflow", TrapCode::StackOverflow),
        ("indirect_call_mismatch", TrapCode::IndirectCallTypeMismatch),
    ] {
        // The output types differ, and no output ever comes: bytes will do.
        let (task, input) = (common::raw(&faults, name), wasmpool::Bytes::new());
        // The innermost frames are those of the recursion.
        let function = if name == "stack_overflow" { "descend" } else { name };
        repeat(&pool, &task, &input, plain(), |error| match error {
            TaskError::Trap { code, backtrace, .. } => {
                *code == expected && names(backtrace).contains(function)
            }
            _ => false,
        });
    }
}

#[test]
fn panics_and_own_errors_carry_their_words() {
    let (pool, faults) = faults();
    let panic = faults.task::<String, ()>("panic").expect("types agree");
    repeat(&pool, &panic, &"over \u{1b}[31mthere".to_string(), plain(), |error| match error {
        TaskError::Panic { message, location, .. } => {
            // Raw in the API, escaped when shown.
            message == "over \u{1b}[31mthere"
                && location.contains(".rs:")
                && !error.to_string().contains('\u{1b}')
        }
        _ => false,
    });
    let located = common::raw(&faults, "panic_with_location");
    repeat(
        &pool,
        &located,
        &wasmpool::Bytes::new(),
        plain(),
        |error| matches!(error, TaskError::Panic { location, .. } if location.starts_with("faults/src/traps.rs:")),
    );
    let own = faults.task::<String, ()>("own_error").expect("types agree");
    repeat(
        &pool,
        &own,
        &"no such invoice".to_string(),
        plain(),
        |error| matches!(error, TaskError::Guest { message } if message == "no such invoice"),
    );
}

#[test]
fn memory_and_table_bombs_end_at_the_limit() {
    let (pool, faults) = faults();
    for name in ["memory_bomb", "table_bomb"] {
        let task = faults.task::<(), ()>(name).expect("types agree");
        repeat(
            &pool,
            &task,
            &(),
            plain(),
            |error| matches!(error, TaskError::Memory { limit, requested, .. } if *limit == 16 << 20 && requested > limit),
        );
    }
    let polite = faults.task::<u64, ()>("memory_grow_polite").expect("types agree");
    repeat(&pool, &polite, &4096, plain(), |error| matches!(error, TaskError::Guest { .. }));
}

#[test]
fn endless_loops_and_sleeps_are_interrupted_at_their_deadline() {
    let (pool, faults) = faults();
    let options = plain().timeout(Duration::from_millis(3));
    for name in ["endless_loop", "sleep_forever"] {
        let task = faults.task::<(), ()>(name).expect("types agree");
        repeat(&pool, &task, &(), options.clone(), |error| {
            *error == TaskError::Timeout { limit: Duration::from_millis(3), killed: false }
        });
    }
}

#[test]
fn pointers_lengths_and_envelopes_that_lie_fail_only_their_task() {
    let (pool, faults) = faults();
    let input = wasmpool::Bytes::new();
    for (name, expected) in [
        ("bad_pointer", (|error| matches!(error, TaskError::BadPointer { .. })) as fn(&TaskError) -> bool),
        ("bad_length", |error| matches!(error, TaskError::BadPointer { .. })),
        ("zero_length", |error| matches!(error, TaskError::Abi { message } if message.contains("empty"))),
        ("bad_status", |error| matches!(error, TaskError::Abi { message } if message.contains("77"))),
    ] {
        repeat(&pool, &common::raw(&faults, name), &input, plain(), expected);
    }
}

#[test]
fn outputs_are_held_to_their_limit_and_their_type() {
    let (pool, faults) = faults();
    let huge = faults.task::<u64, Vec<u8>>("huge_output").expect("types agree");
    repeat(
        &pool,
        &huge,
        &100_000,
        plain().output_bytes_max(50_000),
        |error| matches!(error, TaskError::OutputTooLarge { limit: 50_000, bytes } if *bytes >= 100_000),
    );
    let bad = faults.task::<u64, String>("bad_output").expect("types agree");
    repeat(&pool, &bad, &1, plain(), |error| matches!(error, TaskError::OutputDecode { .. }));
    let undecodable = wasmpool::Bytes::from_static(&[0xff; 12]);
    repeat(&pool, &common::raw(&faults, "own_error"), &undecodable, plain(), |error| {
        matches!(error, TaskError::InputDecode { .. })
    });
}

#[test]
fn an_exit_is_the_tasks_own_end() {
    let (pool, faults) = faults();
    let exit = faults.task::<i32, ()>("proc_exit").expect("types agree");
    repeat(
        &pool,
        &exit,
        &7,
        plain(),
        |error| matches!(error, TaskError::Exit { output } if output.exit_code == 7),
    );
}

#[test]
fn floods_of_output_and_logs_are_cut_and_counted_and_the_host_stays_flat() {
    let (pool, faults) = faults();
    let before = resident_kib();
    for (name, amount) in [("stdout_flood", 20_000_000), ("stderr_flood", 20_000_000), ("log_flood", 300_000)]
    {
        let flood = faults.task::<u64, ()>(name).expect("types agree");
        for future in [0, 1].map(|_| pool.submit(&flood, &amount).expect("submits")) {
            future.result().unwrap_or_else(|failure| panic!("{name}: {failure}"));
            let report = future.report().expect("done");
            assert!(report.log_bytes_dropped > 1_000_000, "{name}: {report:?}");
        }
    }
    let pids = pool.worker_pids();
    for (name, amount) in [("stdout_flood", 400_000), ("stderr_flood", 400_000), ("log_flood", 20_000)] {
        let flood = faults.task::<u64, ()>(name).expect("types agree");
        let futures: Vec<_> = (0..rounds()).map(|_| pool.submit(&flood, &amount).expect("submits")).collect();
        for future in futures {
            future.result().unwrap_or_else(|failure| panic!("{name}: {failure}"));
            assert!(future.report().expect("done").log_bytes_dropped > 0, "{name}");
        }
    }
    assert_eq!(pool.worker_pids(), pids, "the same workers go on");
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 32 * 1024, "the host grew by {grown} KiB");
}

#[test]
fn the_hosts_memory_stays_flat_over_many_failures() {
    let (pool, faults) = faults();
    let own = faults.task::<String, ()>("own_error").expect("types agree");
    let text = "x".repeat(10_000);
    let run = || {
        for _ in 0..rounds() {
            error(&pool.submit(&own, &text).expect("submits"));
        }
    };
    run();
    let before = resident_kib();
    (0..5).for_each(|_| run());
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 8 * 1024, "the host grew by {grown} KiB");
}

#[test]
fn every_fault_is_named_in_a_test() {
    let pool = common::pool(1);
    let tests = include_str!("faults.rs");
    for task in &load(&pool, "faults").description().tasks {
        let named = tests.contains(&format!("{:?}", task.name));
        assert!(named, "no test for the fault {}", task.name);
    }
}
