//! Pieces that several suites need. Each test crate is its own worker program.

#![allow(dead_code, unreachable_pub, reason = "every suite has its own copy and uses a part of it")]

pub mod bombs;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use wasmpool::module::RawTask;
use wasmpool::{Module, Pool, PoolBuilder, TaskError, TaskFailure};

wasmpool::init_at_load!();

/// No test waits longer for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A module of guest-tasks/prebuilt.
pub fn prebuilt(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("guest-tasks/prebuilt").join(format!("{name}.wasm"))
}

/// A builder with a cache that the test run shares: each guest is compiled once. An interrupt is
/// heeded within microseconds, unless the machine does other things.
pub fn builder(workers: usize) -> PoolBuilder {
    let cache = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cache");
    Pool::builder().workers(workers).cache_dir(cache).grace(Duration::from_secs(5))
}

pub fn pool(workers: usize) -> Pool {
    builder(workers).build().expect("the pool builds")
}

/// A pool that is killed when its test fails: it would wait for tasks that never end.
pub struct Guarded(Pool);

impl std::ops::Deref for Guarded {
    type Target = Pool;

    fn deref(&self) -> &Pool {
        &self.0
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.kill();
        }
    }
}

pub fn build(builder: PoolBuilder) -> Guarded {
    Guarded(builder.build().expect("the pool builds"))
}

pub fn load(pool: &Pool, name: &str) -> Module {
    pool.load_file(prebuilt(name)).unwrap_or_else(|error| panic!("{name} loads: {error}"))
}

/// A module from text.
pub fn wat(pool: &Pool, text: &str) -> Module {
    pool.load(&wat::parse_str(text).expect("valid text")).unwrap_or_else(|error| panic!("loads: {error}"))
}

/// A raw task that returns its input with a status byte of 0 in front, by the bare byte ABI.
pub const ECHO_WAT: &str = r#"(module
    (memory (export "memory") 4)
    (func (export "wasmpool_abi_v1"))
    (func (export "wasmpool_alloc") (param i32) (result i32) i32.const 1025)
    (func (export "echo") (param $at i32) (param $len i32) (result i64)
        (i32.store8 (i32.const 1024) (i32.const 0))
        (i64.or (i64.shl (i64.const 1024) (i64.const 32))
                (i64.extend_i32_u (i32.add (local.get $len) (i32.const 1)))))
    (func (export "spin") (param i32 i32) (result i64) (loop (br 0)) unreachable))"#;

pub fn raw(module: &Module, task: &str) -> RawTask {
    module.raw_task(task).unwrap_or_else(|error| panic!("{error}"))
}

/// The error of a future that must fail, within [`PATIENCE`].
pub fn failure<O: std::fmt::Debug>(future: &wasmpool::TaskFuture<O>) -> TaskFailure {
    match future.result_timeout(PATIENCE) {
        Ok(Err(failure)) => failure,
        Ok(Ok(output)) => panic!("it succeeded with {output:?}"),
        Err(timeout) => panic!("{timeout}"),
    }
}

pub fn error<O: std::fmt::Debug>(future: &wasmpool::TaskFuture<O>) -> TaskError {
    failure(future).error().clone()
}

/// Waits until `met`, and says what it waited for if that takes too long.
pub fn eventually(what: &str, mut met: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !met() {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        std::thread::yield_now();
    }
}

/// What the process has had of a CPU, in steps of ten milliseconds.
pub fn cpu_of(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = fields.get(11).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or_default();
    Duration::from_millis(ticks * 10)
}

/// Whether a process exists and is not a zombie.
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !matches!(stat.rsplit(") ").next().and_then(|rest| rest.chars().next()), None | Some('Z' | 'X'))
}

/// Whether this process has such a child; a pid that was reaped may be anybody's.
pub fn is_child(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1));
    parent == Some(&std::process::id().to_string())
}

/// Sends a signal to a child, or to nobody: its pid may have become somebody else's meanwhile.
pub fn signal(pid: u32, signal: rustix::process::Signal) {
    use rustix::io::Errno;
    use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
    let child = match pidfd_open(Pid::from_raw(pid as i32).expect("a pid"), PidfdFlags::empty()) {
        Err(Errno::SRCH) => return,
        child => child.expect("opens a child"),
    };
    if !is_child(pid) {
        return;
    }
    match pidfd_send_signal(child, signal) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => panic!("{signal:?} cannot be sent: {error}"),
    }
}

/// What this process holds: descriptors, threads, shared memory, children.
#[derive(Debug, Clone, Copy)]
pub struct Holdings {
    pub descriptors: usize,
    pub threads: usize,
    pub mappings: usize,
    pub children: usize,
}

impl Holdings {
    pub fn now() -> Holdings {
        let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).expect("reads").count();
        let maps = std::fs::read_to_string("/proc/self/maps").expect("reads");
        let children = std::fs::read_dir("/proc/self/task").expect("reads").flatten().map(|thread| {
            let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            children.split_whitespace().count()
        });
        Holdings {
            descriptors: count("fd"),
            threads: count("task"),
            mappings: maps.lines().filter(|line| line.contains("memfd:")).count(),
            children: children.sum(),
        }
    }
}

/// Returns `true` in the process that a test has of its own. Elsewhere it runs the test in such a process,
/// which must succeed within [`PATIENCE`], and returns `false`.
pub fn is_own_process(test: &str) -> bool {
    const VARIABLE: &str = "WASMPOOL_TEST_PROCESS";
    if std::env::var_os(VARIABLE).is_some_and(|own| own == test) {
        return true;
    }
    let mut child = std::process::Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", test, "--nocapture"])
        .env(VARIABLE, test)
        .spawn()
        .expect("runs");
    let deadline = Instant::now() + 2 * PATIENCE;
    let status = loop {
        match child.try_wait().expect("waits") {
            Some(status) => break status,
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("{test} hangs in its own process");
            }
        }
    };
    assert!(status.success(), "{test} in its own process: {status}");
    false
}
