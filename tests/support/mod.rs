//! Pieces that several suites need. Each test executable that has this module is its own worker program.

#![allow(dead_code, unreachable_pub, reason = "every suite has its own copy and uses a part of it")]

pub mod act;
pub mod bombs;
pub mod componentize;
pub mod preview0;
pub mod say;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use wasmpool::module::RawTask;
use wasmpool::{Module, Pool, PoolBuilder, TaskError, TaskFailure};

const _: () = {
    /// A link to this executable may be a bad worker; else this is what `wasmpool::init_at_load!` does.
    extern "C" fn at_load() {
        if std::env::args().any(|argument| argument == "--wasmpool-role=worker") {
            let program = std::fs::read_link("/proc/self/exe").unwrap_or_default();
            match BadWorker::ALL.into_iter().find(|bad| program.ends_with(bad.name())) {
                Some(BadWorker::Exits) => std::process::exit(1),
                Some(BadWorker::IsSilent) => loop {
                    std::thread::sleep(PATIENCE);
                },
                None => {}
            }
        }
        wasmpool::init();
    }
    // SAFETY: `.init_array` holds pointers to functions of this signature, which the loader calls once.
    #[used]
    #[unsafe(link_section = ".init_array")]
    static AT_LOAD: extern "C" fn() = at_load;
};

/// What a worker does in place of its work. As a compiler the same program does what is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadWorker {
    /// It exits at once, with code 1.
    Exits,
    /// It never says that it is ready.
    IsSilent,
}

impl BadWorker {
    const ALL: [BadWorker; 2] = [BadWorker::Exits, BadWorker::IsSilent];

    fn name(self) -> &'static str {
        match self {
            BadWorker::Exits => "worker-that-exits",
            BadWorker::IsSilent => "worker-that-is-silent",
        }
    }

    /// Makes a program in this folder that is such a worker: another name of this test's own executable.
    pub fn program(self, folder: &Path) -> PathBuf {
        let own = std::env::current_exe().expect("has a path");
        let path = folder.join(self.name());
        if std::fs::hard_link(&own, &path).is_err() {
            // The folder is on another file system.
            std::fs::copy(&own, &path).expect("copies");
        }
        path
    }
}

/// No test waits longer for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A test that hangs in a process of its own is ended after this time. Some repeat what they do a thousand times.
const OWN_PROCESS_MAX: Duration = Duration::from_secs(300);

/// A module of guest-tasks/prebuilt, by the link that a package has as a folder.
pub fn prebuilt(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("prebuilt").join(format!("{name}.wasm"))
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
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Returns what the process has had of a CPU, in steps of ten milliseconds.
pub fn cpu_of(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = fields.get(11).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or_default();
    Duration::from_millis(ticks * 10)
}

/// Returns whether a process exists and is not a zombie.
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !matches!(stat.rsplit(") ").next().and_then(|rest| rest.chars().next()), None | Some('Z' | 'X'))
}

/// Returns whether this process has such a child; a pid that was reaped may be anybody's.
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

/// Resident memory of this process, in KiB.
pub fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("reads");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

/// The things that this process holds: descriptors, threads, shared memory, children.
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

/// Returns the name by which the test harness knows a test of a module. `module_path!()` begins with the name of
/// the executable, which the harness leaves out.
pub fn test_path(module: &str, test: &str) -> String {
    match module.split_once("::") {
        Some((_, module)) => format!("{module}::{test}"),
        None => test.to_string(),
    }
}

/// Prepares a process that runs this test and no other. The test must exist: a process that finds none succeeds,
/// and would prove nothing.
pub fn own_process(test_path: &str) -> Command {
    let program = std::env::current_exe().expect("a path");
    let list = Command::new(&program).args(["--exact", test_path, "--list"]).output().expect("runs");
    let list = String::from_utf8_lossy(&list.stdout);
    assert!(list.contains(&format!("{test_path}: test")), "there is no test {test_path}: {list}");
    let mut command = Command::new(program);
    command.args(["--exact", test_path, "--nocapture"]);
    command
}

/// Returns `true` in the process that a test has of its own. Elsewhere it runs the test in such a process,
/// which must succeed within [`OWN_PROCESS_MAX`], and returns `false`. The module is `module_path!()`.
pub fn is_own_process(module: &str, test: &str) -> bool {
    const VARIABLE: &str = "WASMPOOL_TEST_PROCESS";
    let test = &test_path(module, test);
    if std::env::var_os(VARIABLE).is_some_and(|own| own == test.as_str()) {
        return true;
    }
    let mut child = own_process(test).env(VARIABLE, test).spawn().expect("runs");
    let deadline = Instant::now() + OWN_PROCESS_MAX;
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
