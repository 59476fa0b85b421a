//! `test_deadlock.py`.

use std::sync::Barrier;

use rustix::process::Signal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use wasmpool::error::{Frame, SubmitError, TrapCode};
use wasmpool::pool::ShutdownMode;
use wasmpool::postcard_schema::Schema;
use wasmpool::postcard_schema::schema::NamedType;
use wasmpool::{Pool, TaskError, TaskFuture, TaskOptions};

use super::{Bytes, Mode, Tasks, in_both_modes, in_time, is_death, output};
use crate::support::{error, eventually, is_alive, load, raw, signal, wat};

/// A number that cannot be encoded.
struct Unspeakable;

impl Schema for Unspeakable {
    const SCHEMA: &'static NamedType = u64::SCHEMA;
}

impl Serialize for Unspeakable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("as a test"))
    }
}

/// A number that cannot be decoded: an error, or a panic.
#[derive(Debug)]
struct Unreadable;

#[derive(Debug)]
struct Explosive;

impl Schema for Unreadable {
    const SCHEMA: &'static NamedType = u64::SCHEMA;
}

impl Schema for Explosive {
    const SCHEMA: &'static NamedType = u64::SCHEMA;
}

impl<'de> Deserialize<'de> for Unreadable {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("as a test"))
    }
}

impl<'de> Deserialize<'de> for Explosive {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("as a test")
    }
}

/// The pool runs tasks, with the very worker if the pool has but one.
fn goes_on(pool: &Pool, pid: u32) {
    let future = Tasks::new(pool).echo(pool);
    output(&future);
    assert_eq!(future.report().expect("done").worker_pid, Some(pid));
}

/// A pool of one worker that is up, and its pid.
fn one(mode: Mode) -> (Pool, Tasks, u32) {
    let pool = mode.pool(1);
    let tasks = Tasks::new(&pool);
    output(&tasks.echo(&pool));
    let pid = pool.worker_pids()[0];
    (pool, tasks, pid)
}

/// A module whose way from the input to the output ends the guest's program, or traps, on its way.
fn module_that(pool: &Pool, at_alloc: &str, at_task: &str) -> wasmpool::module::RawTask {
    let text = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1)
            (func (export "wasmpool_abi_v1"))
            (func (export "wasmpool_alloc") (param i32) (result i32) {at_alloc} i32.const 64)
            (func (export "task") (param i32 i32) (result i64) {at_task} unreachable))"#
    );
    raw(&wat(pool, &text), "task")
}

in_both_modes! {
    fn test_error_at_task_pickle(mode: Mode) {
        let (pool, _, pid) = one(mode);
        let count = load(&pool, "primes").task::<Unspeakable, u64>("count").expect("the schema agrees");
        match pool.submit(&count, &Unspeakable).expect_err("cannot be encoded") {
            SubmitError::Encode { task, message } => {
                assert_eq!(task, "count");
                assert!(!message.is_empty());
            }
            other => panic!("{other}"),
        }
        assert_eq!(pool.unresolved_tasks(), 0);
        goes_on(&pool, pid);
    }

    fn test_error_at_task_unpickle(mode: Mode) {
        let (pool, _, pid) = one(mode);
        let count = raw(&load(&pool, "primes"), "count");
        // A number whose bytes never end.
        let future = pool.submit_bytes(&count, vec![0xff; 12]).expect("submits");
        assert!(matches!(error(&future), TaskError::InputDecode { .. }), "{}", error(&future));
        goes_on(&pool, pid);
    }

    fn test_exit_at_task_unpickle(mode: Mode) {
        let (pool, _, pid) = one(mode);
        let task = module_that(&pool, "(call $exit (i32.const 3))", "");
        match error(&pool.submit_bytes(&task, "input").expect("submits")) {
            TaskError::Exit { output } => assert_eq!(output.exit_code, 3),
            other => panic!("{other}"),
        }
        goes_on(&pool, pid);
    }

    fn test_crash_at_task_unpickle(mode: Mode) {
        let (pool, tasks, pid) = one(mode);
        let trap = module_that(&pool, "unreachable", "");
        assert!(matches!(error(&pool.submit_bytes(&trap, "").expect("submits")), TaskError::Trap { .. }));
        goes_on(&pool, pid);
        // The process itself, which has read nothing of its input.
        signal(pid, Signal::STOP);
        let unread = tasks.echo(&pool);
        signal(pid, Signal::KILL);
        match (mode, error(&unread)) {
            (Mode::Break, TaskError::Broken(broken)) => assert_eq!(broken.pid(), pid),
            (Mode::Replace, TaskError::WorkerDied(death)) => assert_eq!(death.pid, pid),
            (_, other) => panic!("{other}"),
        }
    }

    fn test_crash_during_func_exec_on_worker(mode: Mode) {
        let (pool, tasks, pid) = one(mode);
        assert!(matches!(error(&tasks.trap(&pool)), TaskError::Trap { .. }));
        goes_on(&pool, pid);
        let (running, pid) = tasks.running(&pool);
        // The engine takes the first for a fault of the guest that will come again; see lives.rs.
        eventually("the worker to die", || {
            if is_alive(pid) {
                signal(pid, Signal::SEGV);
            }
            running.is_done()
        });
        let failed = error(&running);
        assert!(is_death(mode, &failed) && failed.to_string().contains("SIGSEGV"), "{failed}");
    }

    fn test_exit_during_func_exec_on_worker(mode: Mode) {
        let (pool, _, pid) = one(mode);
        let exit = load(&pool, "faults").task::<i32, ()>("proc_exit").expect("types agree");
        for code in [0, 1, 42] {
            match error(&pool.submit(&exit, &code).expect("submits")) {
                TaskError::Exit { output } => assert_eq!(output.exit_code, code),
                other => panic!("{other}"),
            }
        }
        goes_on(&pool, pid);
    }

    fn test_error_during_func_exec_on_worker(mode: Mode) {
        let (pool, _, pid) = one(mode);
        let own = load(&pool, "faults").task::<String, ()>("own_error").expect("types agree");
        match error(&pool.submit(&own, "mine").expect("submits")) {
            TaskError::Guest { message, .. } => assert_eq!(message, "mine"),
            other => panic!("{other}"),
        }
        for (code, body) in [
            (TrapCode::Unreachable, "unreachable"),
            (TrapCode::MemoryOutOfBounds, "(drop (i32.load (i32.const -1)))"),
            (TrapCode::TableOutOfBounds, "(drop (table.get $functions (i32.const 9)))"),
            (TrapCode::StackOverflow, "(call $again)"),
            (TrapCode::IntegerDivideByZero, "(drop (i32.div_s (i32.const 1) (i32.const 0)))"),
            (TrapCode::IntegerOverflow, "(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))"),
            (TrapCode::InvalidConversionToInteger, "(drop (i32.trunc_f32_s (f32.const nan)))"),
            (TrapCode::IndirectCallToNull, "(call_indirect $functions (type $nothing) (i32.const 0))"),
            (TrapCode::IndirectCallTypeMismatch, "(drop (call_indirect $functions (result i32) (i32.const 1)))"),
            (TrapCode::NullReference, "(call_ref $nothing (ref.null $nothing))"),
            (TrapCode::CastFailure, "(drop (ref.cast (ref struct) (ref.i31 (i32.const 1))))"),
            (TrapCode::ArrayOutOfBounds, "(drop (array.get $bytes (array.new $bytes (i32.const 0) (i32.const 1)) (i32.const 1)))"),
            (TrapCode::UncaughtException, "(throw $thrown)"),
        ] {
            let text = format!(
                r#"(module
                    (type $nothing (func))
                    (type $bytes (array (mut i32)))
                    (tag $thrown)
                    (memory (export "memory") 1)
                    (table $functions 2 funcref)
                    (elem (table $functions) (i32.const 1) func $again)
                    (func $again (call $again))
                    (func (export "wasmpool_abi_v1"))
                    (func (export "wasmpool_alloc") (param i32) (result i32) i32.const 64)
                    (func $culprit (export "task") (param i32 i32) (result i64) {body} i64.const 0))"#
            );
            let task = raw(&wat(&pool, &text), "task");
            match error(&pool.submit_bytes(&task, "").expect("submits")) {
                TaskError::Trap { code: seen, backtrace, message, .. } => {
                    assert_eq!(seen, code, "{message}");
                    let names = |frame: &Frame| frame.function.clone();
                    let expected = if code == TrapCode::StackOverflow { "again" } else { "culprit" };
                    assert!(backtrace.first().and_then(names).is_some_and(|name| name.contains(expected) || name == "task"), "{code}: {backtrace:?}");
                }
                other => panic!("{code}: {other}"),
            }
        }
        goes_on(&pool, pid);
    }

    fn test_crash_during_result_pickle_on_worker(mode: Mode) {
        // Killed while it builds and writes 48 MiB.
        let mut deaths = 0;
        for _ in 0..20 {
            let (pool, _, _) = one(mode);
            let huge = load(&pool, "faults").task::<u64, Vec<u8>>("huge_output").expect("types agree");
            let future = pool.submit(&huge, &(48 << 20)).expect("submits");
            eventually("it to run", || future.is_running() || future.is_done());
            signal(pool.worker_pids()[0], Signal::KILL);
            match future.result_timeout(crate::support::PATIENCE).expect("in time") {
                Ok(bytes) => assert_eq!(bytes.len(), 48 << 20, "whole, or not at all"),
                Err(failure) => {
                    assert!(is_death(mode, failure.error()), "{failure}");
                    deaths += 1;
                }
            }
            if deaths == 3 {
                return;
            }
        }
        panic!("only {deaths} of 20 were caught at it");
    }

    fn test_exit_during_result_pickle_on_worker(mode: Mode) {
        let (pool, _, pid) = one(mode);
        let faults = load(&pool, "faults");
        for lie in ["bad_pointer", "bad_length"] {
            let failed = error(&pool.submit_bytes(&raw(&faults, lie), "").expect("submits"));
            assert!(matches!(failed, TaskError::BadPointer { .. }), "{lie}: {failed}");
        }
        goes_on(&pool, pid);
    }

    fn test_error_during_result_pickle_on_worker(mode: Mode) {
        let (pool, _, pid) = one(mode);
        let faults = load(&pool, "faults");
        for lie in ["zero_length", "bad_status"] {
            let failed = error(&pool.submit_bytes(&raw(&faults, lie), "").expect("submits"));
            assert!(matches!(failed, TaskError::Abi { .. }), "{lie}: {failed}");
        }
        // The output is larger than may be answered.
        let huge = faults.task::<u64, Vec<u8>>("huge_output").expect("types agree");
        let options = TaskOptions::new().output_bytes_max(1000);
        let failed = error(&pool.submit_with(&huge, &10_000, options).expect("submits"));
        assert!(matches!(failed, TaskError::OutputTooLarge { limit: 1000, .. }), "{failed}");
        goes_on(&pool, pid);
    }

    fn test_error_during_result_unpickle_in_result_handler(mode: Mode) {
        let (pool, _, pid) = one(mode);
        let count = load(&pool, "primes").task::<u64, Unreadable>("count").expect("the schema agrees");
        let futures: Vec<_> = (0..5).map(|_| pool.submit(&count, &100).expect("submits")).collect();
        for future in &futures {
            let failed = error(future);
            assert!(matches!(failed, TaskError::OutputDecode { .. }), "{failed}");
        }
        goes_on(&pool, pid);
    }

    fn test_exit_during_result_unpickle_in_result_handler(mode: Mode) {
        let (pool, _, pid) = one(mode);
        let count = load(&pool, "primes").task::<u64, Explosive>("count").expect("the schema agrees");
        let future = pool.submit(&count, &100).expect("submits");
        let (sender, receiver) = crossbeam_channel::bounded(1);
        future.on_done(move |_| sender.send(()).expect("never"));
        // The panic is the caller's who asks, in the thread that asks; no thread of the pool's dies.
        let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| future.result()));
        assert!(asked.is_err());
        assert!(receiver.recv_timeout(crate::support::PATIENCE).is_err(), "the callback's input panicked");
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let after = Tasks::new(&pool).echo(&pool);
        after.on_done(move |echoed| sender.send(echoed).expect("listens"));
        assert!(receiver.recv_timeout(crate::support::PATIENCE).expect("later callbacks run").is_ok());
        goes_on(&pool, pid);
    }

    fn test_shutdown_deadlock(mode: Mode) {
        let (pool, tasks, _) = one(mode);
        let (running, pid) = tasks.running(&pool);
        pool.begin_shutdown(ShutdownMode::Finish);
        signal(pid, Signal::KILL);
        assert!(is_death(mode, &error(&running)));
        in_time("the end of a pool whose worker died after the shutdown", move || drop((tasks, pool)));
    }

    fn test_shutdown_deadlock_pickle(mode: Mode) {
        let (pool, tasks, _) = one(mode);
        let count = load(&pool, "primes").task::<Unspeakable, u64>("count").expect("the schema agrees");
        assert!(matches!(pool.submit(&count, &Unspeakable), Err(SubmitError::Encode { .. })));
        pool.begin_shutdown(ShutdownMode::Finish);
        in_time("the end of a pool whose last submit failed", move || drop((tasks, count, pool)));
    }

    fn test_crash_big_data(mode: Mode) {
        let (pool, _, pid) = one(mode);
        let echo = raw(&load(&pool, "echo"), "echo");
        // The worker takes some of the frame, so that it is torn, and no more.
        signal(pid, Signal::STOP);
        let large = pool.submit_bytes(&echo, vec![7u8; 4 << 20]).expect("submits");
        let behind = pool.submit_bytes(&echo, "behind it").expect("submits");
        signal(pid, Signal::KILL);
        assert!(is_death(mode, &error(&large)));
        match mode {
            Mode::Break => assert!(is_death(mode, &error(&behind))),
            Mode::Replace => assert_eq!(output(&behind), "behind it", "only the one that ran there is lost"),
        }
    }

    fn test_gh105829_should_not_deadlock_if_wakeup_pipe_full(mode: Mode) {
        // Nobody reads what the pool is told: neither the worker, which is stopped, nor, while it
        // waits for a lock that this test holds, the callback thread.
        let (pool, tasks, pid) = one(mode);
        let gate = std::sync::Arc::new(std::sync::Mutex::new(()));
        let held = gate.lock().expect("locks");
        let first = tasks.echo(&pool);
        first.on_done({
            let gate = gate.clone();
            move |_| drop(gate.lock())
        });
        output(&first);
        signal(pid, Signal::STOP);
        let futures = in_time("20,000 submits that nobody reads", {
            let pool = pool.clone();
            let echo = tasks.echo.clone();
            move || {
                let barrier = Barrier::new(4);
                std::thread::scope(|scope| {
                    let submitters: Vec<_> = (0..4)
                        .map(|_| {
                            scope.spawn(|| {
                                barrier.wait();
                                (0..5000).map(|_| pool.submit_bytes(&echo, "x").expect("submits")).collect::<Vec<_>>()
                            })
                        })
                        .collect();
                    submitters.into_iter().flat_map(|thread| thread.join().expect("ends")).collect::<Vec<TaskFuture<Bytes>>>()
                })
            }
        });
        drop(held);
        signal(pid, Signal::CONT);
        assert_eq!(futures.iter().map(output).filter(|echoed| *echoed == "x").count(), 20_000);
    }
}
