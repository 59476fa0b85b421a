//! Python's own tests of `ProcessPoolExecutor`, as they read for this pool: one Rust test for
//! each Python test, of the same name, in one file for each Python file
//! (`Lib/test/test_concurrent_futures/`, CPython 3.14), in both modes of
//! [`OnWorkerDeath`](wasmpool::pool::OnWorkerDeath).
//!
//! `tests/conformance/rows.tsv` lists every Python test with what became of it; the script `table` beside it
//! runs the tests and prints that list with their results.

use crate::support;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use wasmpool::module::RawTask;
use wasmpool::pool::OnWorkerDeath;
use wasmpool::{Bytes, Pool, PoolBuilder, TaskFuture};

mod as_completed;
mod beyond;
mod deadlock;
mod executor;
mod future;
mod init;
mod process_pool;
mod shutdown;
mod wait;

/// The two ways to take a worker's death; every test of a pool runs in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Break,
    Replace,
}

impl Mode {
    fn policy(self) -> OnWorkerDeath {
        match self {
            Mode::Break => OnWorkerDeath::Break,
            Mode::Replace => OnWorkerDeath::replace(),
        }
    }

    fn builder(self, workers: usize) -> PoolBuilder {
        support::builder(workers).on_worker_death(self.policy())
    }

    fn pool(self, workers: usize) -> Pool {
        self.builder(workers).build().expect("the pool builds")
    }
}

/// `fn test_submit(mode: Mode) { … }` as two tests, `test_submit::breaking` and
/// `test_submit::replacing`.
macro_rules! in_both_modes {
    ($($(#[$meta:meta])* fn $name:ident($mode:ident: $kind:ty) $body:block)*) => {$(
        #[allow(non_snake_case, reason = "Python's name")]
        mod $name {
            #[allow(unused_imports, reason = "not every test needs everything")]
            use super::*;

            $(#[$meta])*
            fn body($mode: $kind) $body

            #[test]
            fn breaking() {
                body($crate::conformance::Mode::Break);
            }

            #[test]
            fn replacing() {
                body($crate::conformance::Mode::Replace);
            }
        }
    )*};
}
use in_both_modes;

/// Tasks of a few lines of text, by the bare byte ABI.
const TASKS_WAT: &str = r#"(module $tasks
    (memory (export "memory") 4)
    (func (export "wasmpool_abi_v1"))
    (func (export "wasmpool_alloc") (param i32) (result i32) i32.const 1025)
    (func $echo (export "echo") (param $at i32) (param $len i32) (result i64)
        (i32.store8 (i32.const 1024) (i32.const 0))
        (i64.or (i64.shl (i64.const 1024) (i64.const 32))
                (i64.extend_i32_u (i32.add (local.get $len) (i32.const 1)))))
    (func (export "work") (param $at i32) (param $len i32) (result i64)
        (local $left i64)
        (local.set $left (i64.load (local.get $at)))
        (block $done
            (loop $again
                (br_if $done (i64.eqz (local.get $left)))
                (local.set $left (i64.sub (local.get $left) (i64.const 1)))
                (br $again)))
        (call $echo (local.get $at) (local.get $len)))
    (func $divide (param i32) (result i32) (i32.div_u (i32.const 1) (local.get 0)))
    (func $trap (export "trap") (param i32 i32) (result i64)
        (i64.extend_i32_u (call $divide (i32.const 0)))))"#;

/// This is more steps than anyone waits for.
const FOREVER: u64 = u64::MAX;

/// The tasks of [`TASKS_WAT`].
struct Tasks {
    /// Returns its input.
    echo: RawTask,
    /// Counts its input, eight bytes, down to zero, and returns it.
    work: RawTask,
    /// Divides by zero.
    trap: RawTask,
}

impl Tasks {
    fn new(pool: &Pool) -> Tasks {
        let module = support::wat(pool, TASKS_WAT);
        let task = |name| support::raw(&module, name);
        Tasks { echo: task("echo"), work: task("work"), trap: task("trap") }
    }

    fn echo(&self, pool: &Pool) -> TaskFuture<Bytes> {
        pool.submit_bytes(&self.echo, "x").expect("submits")
    }

    fn endless(&self, pool: &Pool) -> TaskFuture<Bytes> {
        // The timeout is only for a test that fails: the pool's drop waits for the task.
        let options = wasmpool::TaskOptions::new().timeout(2 * support::PATIENCE);
        pool.submit_with(&self.work, &steps(FOREVER), options).expect("submits")
    }

    fn trap(&self, pool: &Pool) -> TaskFuture<Bytes> {
        pool.submit_bytes(&self.trap, "").expect("submits")
    }

    /// An endless one that a worker has begun, with that worker's pid.
    fn running(&self, pool: &Pool) -> (TaskFuture<Bytes>, u32) {
        let future = self.endless(pool);
        let pid = pid_of(pool, &future);
        (future, pid)
    }
}

/// The input of `work`.
fn steps(steps: u64) -> Bytes {
    Bytes::copy_from_slice(&steps.to_le_bytes())
}

/// The worker that runs the task, once one does.
fn pid_of<O>(pool: &Pool, future: &TaskFuture<O>) -> u32 {
    let mut pid = None;
    support::eventually("the task to run", || {
        assert!(!future.is_done(), "it is done already: {future:?}");
        let workers = pool.stats().workers;
        let its = workers.iter().find(|worker| worker.task.is_some_and(|(task, _)| task == future.task_id()));
        pid = its.map(|worker| worker.pid);
        pid.is_some()
    });
    pid.expect("found")
}

/// The result of a task that must succeed, in time.
fn output<O: std::fmt::Debug>(future: &TaskFuture<O>) -> O {
    match future.result_timeout(support::PATIENCE) {
        Ok(Ok(output)) => output,
        Ok(Err(failure)) => panic!("it failed: {failure}"),
        Err(timeout) => panic!("{timeout}"),
    }
}

/// Returns whether the error is what a death leaves of the task that ran there.
fn is_death(mode: Mode, error: &wasmpool::TaskError) -> bool {
    match mode {
        Mode::Break => matches!(error, wasmpool::TaskError::Broken(_)),
        Mode::Replace => matches!(error, wasmpool::TaskError::WorkerDied(_)),
    }
}

/// Runs `work` on a thread of its own; a deadlock fails the test instead of hanging it.
fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = crossbeam_channel::bounded(1);
    let thread = std::thread::spawn(move || sender.send(work()));
    match receiver.recv_timeout(support::PATIENCE) {
        Ok(result) => result,
        Err(crossbeam_channel::RecvTimeoutError::Timeout) => panic!("{what} hangs"),
        Err(_) => std::panic::resume_unwind(thread.join().expect_err("it panicked")),
    }
}

/// Every worker that the pool ever had is gone.
fn assert_reaped(events: wasmpool::event::Events) {
    let pids: Vec<u32> = events
        .filter_map(|event| match event.kind {
            wasmpool::event::EventKind::WorkerStarted { pid } => Some(pid),
            _ => None,
        })
        .collect();
    for pid in pids {
        assert!(!support::is_child(pid), "worker {pid} lives on");
    }
}

/// An input that counts how many of its kind there are.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn input(count: &Arc<AtomicUsize>) -> Bytes {
        count.fetch_add(1, Ordering::SeqCst);
        Bytes::from_owner(Counted(count.clone()))
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        b"counted"
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The test in a process of its own, or the process that started it.
enum Process {
    /// The child writes to this file what the parent is to know.
    Child(PathBuf),
    Parent(Child),
}

/// The same test in a process of its own; killed when this is dropped.
struct Child {
    process: std::process::Child,
    words: PathBuf,
}

impl Process {
    /// Starts the test of this name, with one mode or none, in a new process, unless this is that process.
    fn of(test: &str, mode: Option<Mode>) -> Process {
        if let Some(words) = std::env::var_os("WASMPOOL_CHILD") {
            return Process::Child(words.into());
        }
        let test = match mode {
            None => test.to_string(),
            Some(Mode::Break) => format!("{test}::breaking"),
            Some(Mode::Replace) => format!("{test}::replacing"),
        };
        let test = support::test_path(module_path!(), &test);
        let words = tempfile::NamedTempFile::new()
            .and_then(|file| Ok(file.into_temp_path().keep()?))
            .expect("a file");
        let process = support::own_process(&test)
            .arg("--test-threads=1")
            .env("WASMPOOL_CHILD", &words)
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("starts");
        Process::Parent(Child { process, words })
    }
}

impl Child {
    /// Returns what it has written.
    fn words(&self) -> String {
        std::fs::read_to_string(&self.words).expect("reads")
    }

    fn status(&mut self) -> std::process::ExitStatus {
        let deadline = std::time::Instant::now() + support::PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().expect("waits") {
                return status;
            }
            assert!(std::time::Instant::now() < deadline, "the test in a process of its own hangs");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for it; it must succeed.
    fn succeed(&mut self) {
        let status = self.status();
        assert!(status.success(), "the test in a process of its own: {status}");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.words);
    }
}
