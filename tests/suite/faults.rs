//! Each way for a guest to go wrong is an error of its own, and the worker goes on.

use std::time::Duration;

use crate::support::{self, builder, error, is_own_process, load, resident_kib};
use wasmpool::error::{Frame, TrapCode};
use wasmpool::module::RawTask;
use wasmpool::task::{LogOverflow, RefusalKind};
use wasmpool::{Bytes, Module, Pool, TaskError, TaskFailure, TaskOptions};

/// Returns how often each fault is repeated, all in one pool; the promise is made for 1,000.
fn rounds() -> usize {
    std::env::var("WASMPOOL_FAULT_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1000)
}

fn names(backtrace: &[Frame]) -> String {
    backtrace.iter().map(|frame| frame.function.clone().unwrap_or_default()).collect::<Vec<_>>().join(" < ")
}

/// One way to go wrong, and the error that it has to be.
struct Fault {
    name: &'static str,
    input: Vec<u8>,
    options: TaskOptions,
    expected: fn(&TaskError) -> bool,
    /// The kind of memory that it is refused before it traps, and the limit.
    refused: Option<(RefusalKind, u64)>,
}

fn fault(name: &'static str, expected: fn(&TaskError) -> bool) -> Fault {
    let options = TaskOptions::new().memory_bytes_max(16 << 20);
    Fault { name, input: Vec::new(), options, expected, refused: None }
}

impl Fault {
    fn input(mut self, input: impl serde::Serialize) -> Self {
        self.input = postcard::to_stdvec(&input).expect("encodes");
        self
    }

    fn options(mut self, change: impl Fn(TaskOptions) -> TaskOptions) -> Self {
        self.options = change(self.options);
        self
    }

    fn refused(mut self, kind: RefusalKind, limit: u64) -> Self {
        self.refused = Some((kind, limit));
        self
    }

    /// Logging over its limit ends it.
    fn flood(self, amount: u64) -> Self {
        self.input(amount).options(|options| options.log_bytes_max(4096).log_overflow(LogOverflow::Fail))
    }
}

/// A pool with both workers up, and the faults.
fn faults() -> (Pool, Module) {
    let pool = builder(2).build().expect("builds");
    let faults = load(&pool, "faults");
    let ok = faults.task::<(), u32>("ok").expect("types agree");
    support::eventually("both workers to run", || {
        let pair = [pool.submit(&ok, &()).expect("submits"), pool.submit(&ok, &()).expect("submits")];
        pair.iter().for_each(|future| assert_eq!(future.result().expect("runs"), 42));
        pool.worker_pids().len() == 2
    });
    (pool, faults)
}

fn is_trap(error: &TaskError, expected: TrapCode, function: &str) -> bool {
    matches!(error, TaskError::Trap { code, backtrace, .. }
        if *code == expected && names(backtrace).contains(function))
}

/// Checks the last refusal and its limit. The trap that follows is the guest's own affair.
fn is_refused(failure: &TaskFailure, kind: RefusalKind, limit: u64) -> bool {
    let last = failure.report().refusals.as_ref().and_then(|refusals| refusals.last());
    last.is_some_and(|last| last.kind == kind && last.limit == limit && last.requested > limit)
}

fn is_flood(error: &TaskError) -> bool {
    matches!(error, TaskError::LogsTooLarge { limit: 4096, bytes } if *bytes > 4096)
}

/// The tasks that only ask for things: tests/suite/wasi.rs, tests/suite/dirs and tests/suite/deterministic.rs call them.
const ASKING: [&str; 7] =
    ["look_around", "hash_order", "clocks", "read_file", "write_file", "change_file", "list_dir"];

fn all() -> Vec<Fault> {
    [list(), own_errors()].into_iter().flatten().collect()
}

/// Errors of a task's own, with what is behind them.
fn own_errors() -> Vec<Fault> {
    vec![
        fault(
            "own_error_as_data",
            |error| matches!(error, TaskError::Guest { message, data: Some(_), .. } if message == "no such invoice: 300"),
        )
        .input(300_u32),
        fault(
            "own_error_with_causes",
            |error| matches!(error, TaskError::Guest { chain, data: None, .. } if chain.len() == 1),
        )
        .input("seven"),
    ]
}

/// Every way to go wrong.
fn list() -> Vec<Fault> {
    let deadline = |options: TaskOptions| options.timeout(Duration::from_millis(3));
    let timed_out: fn(&TaskError) -> bool =
        |error| *error == TaskError::Timeout { limit: Duration::from_millis(3), killed: false };
    vec![
        fault("unreachable", |error| is_trap(error, TrapCode::Unreachable, "unreachable")),
        fault("out_of_bounds", |error| is_trap(error, TrapCode::MemoryOutOfBounds, "out_of_bounds")),
        fault("divide_by_zero", |error| is_trap(error, TrapCode::IntegerDivideByZero, "divide_by_zero")),
        // The innermost frames are those of the recursion.
        fault("stack_overflow", |error| is_trap(error, TrapCode::StackOverflow, "descend")),
        fault("indirect_call_mismatch", |error| {
            is_trap(error, TrapCode::IndirectCallTypeMismatch, "indirect_call_mismatch")
        }),
        fault("panic", |error| {
            // Raw in the API, escaped when shown.
            matches!(error, TaskError::Panic { message, location, .. }
                if message == "over \u{1b}[31mthere" && location.contains(".rs:"))
                && !error.to_string().contains('\u{1b}')
        })
        .input("over \u{1b}[31mthere"),
        fault(
            "panic_with_location",
            |error| matches!(error, TaskError::Panic { location, .. } if location.starts_with("faults/src/traps.rs:")),
        ),
        fault(
            "own_error",
            |error| matches!(error, TaskError::Guest { message, .. } if message == "no such invoice"),
        )
        .input("no such invoice"),
        fault(
            "own_error_under_another_name",
            |error| matches!(error, TaskError::Guest { message, .. } if message == "no such invoice"),
        )
        .input("no such invoice"),
        // No text is as long as its length says.
        Fault {
            input: vec![0xff; 12],
            ..fault("own_error", |error| matches!(error, TaskError::InputDecode { .. }))
        },
        fault("memory_bomb", |error| is_trap(error, TrapCode::Unreachable, "memory_bomb"))
            .refused(RefusalKind::Memory, 16 << 20),
        fault("table_bomb", |error| is_trap(error, TrapCode::Unreachable, "table_bomb"))
            .refused(RefusalKind::Table, proto::limits::TABLE_ELEMENTS_MAX as u64),
        fault("memory_grow_polite", |error| matches!(error, TaskError::Guest { .. }))
            .input(4096_u64)
            .refused(RefusalKind::Memory, 16 << 20),
        fault("endless_loop", timed_out).options(deadline),
        fault("sleep_forever", timed_out).options(deadline),
        fault("bad_pointer", |error| matches!(error, TaskError::BadPointer { .. })),
        fault("bad_length", |error| matches!(error, TaskError::BadPointer { .. })),
        fault(
            "zero_length",
            |error| matches!(error, TaskError::Abi { message } if message.contains("empty")),
        ),
        fault("bad_status", |error| matches!(error, TaskError::Abi { message } if message.contains("77"))),
        fault(
            "huge_output",
            |error| matches!(error, TaskError::OutputTooLarge { limit: 50_000, bytes } if *bytes >= 100_000),
        )
        .input(100_000_u64)
        .options(|options| options.output_bytes_max(50_000)),
        fault("proc_exit", |error| matches!(error, TaskError::Exit { output } if output.exit_code == 7))
            .input(7_i32),
        fault("stdout_flood", is_flood).flood(1_000_000),
        fault("stderr_flood", is_flood).flood(1_000_000),
        fault("log_flood", is_flood).flood(100_000),
    ]
}

#[test]
fn each_fault_gives_its_own_error_a_thousand_times_in_one_pool() {
    // The other tests of this process use memory, too.
    if !is_own_process(module_path!(), "each_fault_gives_its_own_error_a_thousand_times_in_one_pool") {
        return;
    }
    let (pool, faults) = faults();
    let pids = pool.worker_pids();
    let list: Vec<(Fault, RawTask)> = all()
        .into_iter()
        .map(|fault| {
            let task = support::raw(&faults, fault.name);
            (fault, task)
        })
        .collect();
    let undecodable = faults.task::<u64, String>("bad_output").expect("types agree");
    let mut resident = None;
    for round in 0..rounds() {
        // One after the other, so that each fault runs where another has just been.
        let futures: Vec<_> = list
            .iter()
            .map(|(fault, task)| {
                pool.submit_with(task, &Bytes::from(fault.input.clone()), fault.options.clone())
                    .expect("submits")
            })
            .collect();
        let typed = pool.submit(&undecodable, &1).expect("submits");
        for (future, (fault, _)) in futures.iter().zip(&list) {
            let failure = support::failure(future);
            let error = failure.error();
            assert!((fault.expected)(error), "{} in round {round}: {error:?}", fault.name);
            let refusals = &failure.report().refusals;
            let is_told = match fault.refused {
                Some((kind, limit)) => is_refused(&failure, kind, limit),
                None => refusals.as_ref().is_some_and(|refusals| refusals.is_empty()),
            };
            assert!(is_told, "{} in round {round}: {refusals:?}", fault.name);
        }
        let error = error(&typed);
        assert!(matches!(error, TaskError::OutputDecode { .. }), "bad_output: {error:?}");
        if round == rounds() / 10 {
            resident = Some(resident_kib());
        }
    }
    assert_eq!(pool.worker_pids(), pids, "the same workers go on");
    let grown = resident_kib().saturating_sub(resident.expect("a tenth of the rounds"));
    assert!(grown < 8 * 1024, "the host grew by {grown} KiB over {} failures", list.len() * rounds());
}

#[test]
fn floods_of_output_and_logs_are_cut_and_counted_and_the_host_stays_flat() {
    if !is_own_process(
        module_path!(),
        "floods_of_output_and_logs_are_cut_and_counted_and_the_host_stays_flat",
    ) {
        return;
    }
    let (pool, faults) = faults();
    let before = resident_kib();
    for (name, amount) in [("stdout_flood", 20_000_000), ("stderr_flood", 20_000_000), ("log_flood", 300_000)]
    {
        let flood = faults.task::<u64, ()>(name).expect("types agree");
        for future in [0, 1].map(|_| pool.submit(&flood, &amount).expect("submits")) {
            future.result().unwrap_or_else(|failure| panic!("{name}: {failure}"));
            let report = future.report().expect("done");
            assert!(report.log_bytes_dropped.is_some_and(|bytes| bytes > 1_000_000), "{name}: {report:?}");
        }
    }
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 32 * 1024, "the host grew by {grown} KiB");
}

#[test]
fn every_task_of_the_module_is_on_the_list() {
    let pool = support::pool(1);
    let list = all();
    for task in &load(&pool, "faults").description().tasks {
        let is_listed = list.iter().any(|fault| fault.name == task.name);
        let is_elsewhere = ["ok", "bad_output"].contains(&&*task.name) || ASKING.contains(&&*task.name);
        assert!(is_listed || is_elsewhere, "no test for {}", task.name);
    }
}
