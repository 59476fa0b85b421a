//! Signals that ask for the end: running tasks are finished or stopped, and no process is left.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use wasm_encoder::{CodeSection, Function, FunctionSection, Module, TypeSection};

use crate::ends::{FOREVER, children, signal, signal_again, spin, wait_for, wait_until_busy};
use crate::harness::{PATIENCE, cache, ended, prebuilt, spawn};

const ALL: [(Signal, i32); 5] =
    [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129), (Signal::QUIT, 131), (Signal::XCPU, 152)];

/// Makes a command that handles every signal, even one that the tests' own parent ignores.
fn heeding(verb: &str) -> Command {
    let mut command = Command::new("/usr/bin/env");
    command.env_clear().arg("--default-signal=INT,TERM,HUP,QUIT,XCPU").arg(env!("CARGO_BIN_EXE_wasmpool"));
    command.arg(verb).arg("--cache-dir").arg(cache());
    command
}

fn endless_map(flags: &[&str]) -> (Child, ChildStdin) {
    let mut command = heeding("map");
    command.arg(prebuilt("echo")).args(["spin", "--lines", "--workers", "1"]).args(flags);
    let mut child = spawn(command.stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().expect("a pipe");
    writeln!(stdin, "{FOREVER}").expect("it reads");
    wait_until_busy(&child);
    (child, stdin)
}

/// Waits until these processes, which were children of the command, are gone.
#[track_caller]
fn assert_gone(children: &[String]) {
    assert!(!children.is_empty(), "there were children");
    let deadline = Instant::now() + PATIENCE;
    let is_there = |pid: &String| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
    };
    while let Some(pid) = children.iter().find(|pid| is_there(pid)) {
        assert!(Instant::now() < deadline, "process {pid} is left");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_map_that_is_terminated_stops_what_runs_once_its_grace_period_is_over() {
    let folder = tempfile::tempdir().expect("a folder");
    for (which, code) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::XCPU, 152)] {
        let log = folder.path().join(code.to_string());
        let log_flag = format!("--joblog={}", log.display());
        let (child, _stdin) = endless_map(&["--stop-grace", "1s", &log_flag]);
        let workers = children(&child);
        let began = Instant::now();
        signal(&child, which);
        let ended = ended(child).expect(code).says("1 running are finished within 1s").says("1 stopped");
        assert!(began.elapsed() >= Duration::from_secs(1), "the grace period is given");
        assert_eq!(ended.text(), "");
        let log = std::fs::read_to_string(&log).expect("the log is there");
        assert_eq!((log.lines().count(), log.ends_with('\n')), (1, true), "{log:?}");
        assert_gone(&workers);
    }
}

#[test]
fn the_grace_period_is_ten_seconds_and_can_be_set_as_any_setting() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("settings.toml"), "stop-grace = \"3s\"\n").expect("writes");
    let shown = |command: &mut Command| {
        let text = ended(spawn(command.arg("config").stdin(Stdio::null()))).expect(0).text();
        let line = text.lines().find(|line| line.starts_with("stop-grace")).expect("it is a setting");
        line.split_whitespace().nth(1).map(String::from)
    };
    let config = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wasmpool"));
        command.env_clear().current_dir(folder.path());
        command
    };
    assert_eq!(shown(&mut config()).as_deref(), Some("10s"));
    assert_eq!(shown(config().env("WASMPOOL_STOP_GRACE", "2s")).as_deref(), Some("2s"));
    assert_eq!(shown(config().args(["--config", "settings.toml"])).as_deref(), Some("3s"));
}

#[test]
fn a_map_that_is_to_quit_stops_what_runs_at_once() {
    let (child, _stdin) = endless_map(&["--stop-grace", "1h"]);
    let workers = children(&child);
    signal(&child, Signal::QUIT);
    ended(child).expect(131).says("1 running are stopped").says("1 stopped");
    assert_gone(&workers);
}

#[test]
fn a_second_signal_does_not_wait_for_the_grace_period() {
    let (mut child, _stdin) = endless_map(&["--stop-grace", "1h"]);
    signal(&child, Signal::TERM);
    wait_for(&mut child, "within 1h");
    signal_again(&child, Signal::TERM);
    ended(child).expect(143).says("1 stopped");
}

#[test]
fn a_run_and_a_measurement_end_on_every_signal() {
    for (which, code) in ALL {
        for verb in ["run", "bench"] {
            let mut command = heeding(verb);
            command.arg(prebuilt("echo")).args(["spin", "--input", FOREVER]);
            let child = spawn(command.stdin(Stdio::null()));
            wait_until_busy(&child);
            let workers = children(&child);
            signal(&child, which);
            ended(child).expect(code);
            assert_gone(&workers);
        }
    }
}

/// Makes a module that takes long to compile.
fn slow_module(folder: &Path) -> PathBuf {
    const FUNCTIONS: u32 = 90_000;
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let mut functions = FunctionSection::new();
    let mut code = CodeSection::new();
    for _ in 0..FUNCTIONS {
        functions.function(0);
        let mut function = Function::new([]);
        function.instructions().end();
        code.function(&function);
    }
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&code);
    let path = folder.join("slow.wasm");
    std::fs::write(&path, module.finish()).expect("writes");
    path
}

#[test]
fn a_command_that_compiles_ends_on_every_signal_and_so_does_a_doctor() {
    let folder = tempfile::tempdir().expect("a folder");
    let slow = slow_module(folder.path());
    for (which, code) in ALL {
        for verb in ["inspect", "run", "map", "bench", "doctor"] {
            let mut command = heeding(verb);
            if verb != "doctor" {
                command.arg("--no-cache").arg(&slow);
            }
            let mut child = spawn(command.stdin(Stdio::piped()));
            let stdin = child.stdin.take();
            let deadline = Instant::now() + PATIENCE;
            while children(&child).is_empty() {
                assert!(Instant::now() < deadline, "waited in vain for a child of {verb}");
                std::thread::sleep(Duration::from_millis(1));
            }
            let processes = children(&child);
            signal(&child, which);
            ended(child).expect(code);
            assert_gone(&processes);
            drop(stdin);
        }
    }
}

#[test]
fn a_hangup_that_is_ignored_stays_so() {
    let mut command = Command::new("/bin/sh");
    let script = r#"trap '' HUP; exec "$@""#;
    command.env_clear().args(["-c", script, "sh", env!("CARGO_BIN_EXE_wasmpool"), "map"]);
    command.arg(prebuilt("echo")).args(["spin", "--lines", "--workers", "1", "--cache-dir"]).arg(cache());
    let mut child = spawn(command.stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().expect("a pipe");
    writeln!(stdin, "1").expect("it reads");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    stdout.read_line(&mut String::new()).expect("a result");
    signal(&child, Signal::HUP);
    writeln!(stdin, "2").expect("it reads on");
    drop(stdin);
    ended(child).expect(0).says("2 inputs: 2 ok");
}

/// The kernel sends it SIGXCPU when all but the last second of its CPU time is used, and not SIGKILL at once.
#[test]
fn a_command_whose_cpu_time_is_used_up_ends_in_order_and_says_why() {
    for seconds in [1, 2] {
        ends_at_its_cpu_time(seconds);
    }
}

fn ends_at_its_cpu_time(seconds: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log");
    let mut command = Command::new("/bin/sh");
    let script = format!(r#"ulimit -t {seconds}; yes 1 | exec "$@""#);
    command.env_clear().env("PATH", "/usr/bin:/bin").args([
        "-c",
        &*script,
        "sh",
        env!("CARGO_BIN_EXE_wasmpool"),
        "map",
    ]);
    command.arg(prebuilt("echo")).args(["echo", "--lines", "--cache-dir"]).arg(cache());
    command.arg(format!("--joblog={}", log.display())).stdin(Stdio::null());
    let mut child = spawn(&mut command);
    let mut stdout = child.stdout.take().expect("a pipe");
    let reader = std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    let limit = format!("RLIMIT_CPU of {seconds} s");
    let ended = ended(child).expect(152).says("used up its CPU time").says(&limit).says("ulimit -t");
    assert!(ended.stderr.contains("--resume goes on"), "{}", ended.stderr);
    reader.join().expect("ends").expect("reads");
    let log = std::fs::read_to_string(&log).expect("the log is there");
    assert!(log.ends_with('\n') && log.lines().count() > 100);
}

/// A timeline that was asked for is there, though a signal ended its command.
#[test]
fn a_timeline_is_whole_whatever_ends_its_command() {
    let folder = tempfile::tempdir().expect("a folder");
    for verb in ["bench", "run"] {
        let path = folder.path().join(verb);
        let mut command = heeding(verb);
        command.arg(prebuilt("echo")).args(["spin", "--input", FOREVER, "--trace"]).arg(&path);
        let child = spawn(command.stdin(Stdio::null()));
        wait_until_busy(&child);
        signal(&child, Signal::TERM);
        ended(child).expect(143);
        let text = std::fs::read_to_string(&path).expect("the timeline is there");
        let events: serde_json::Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let events = events.as_array().expect("a list");
        assert!(events.iter().any(|event| event["cat"] == "task"), "{verb}: {text}");
    }
}

/// The reader of stdout does not read, and the pipe is full.
#[test]
fn a_map_whose_results_nobody_reads_ends_all_the_same() {
    let mut command = spin(&[]);
    let mut child = spawn(command.stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().expect("a pipe");
    let writer = std::thread::spawn(move || while stdin.write_all(&b"1\n".repeat(1000)).is_ok() {});
    // Each result is longer than its input, so once the pipe is full, the reader of inputs waits, too.
    let stdout = child.stdout.take().expect("a pipe");
    let deadline = Instant::now() + PATIENCE;
    // How many bytes fit into a pipe depends on how they were written, so it counts as full once nothing is
    // added any more.
    let mut last = (0, Instant::now());
    while last.0 == 0 || last.1.elapsed() < Duration::from_secs(1) {
        let bytes = rustix::io::ioctl_fionread(&stdout).expect("it is a pipe");
        if bytes != last.0 {
            last = (bytes, Instant::now());
        }
        assert!(Instant::now() < deadline, "waited in vain for a full pipe");
        std::thread::sleep(Duration::from_millis(10));
    }
    signal(&child, Signal::TERM);
    // The command says what it waits for, before anything is stopped.
    wait_for(&mut child, "waiting for the reader of stdout");
    signal_again(&child, Signal::TERM);
    let code = loop {
        if let Some(status) = child.try_wait().expect("it is ours") {
            break status.code();
        }
        assert!(Instant::now() < deadline, "it did not end");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(code, Some(143));
    drop(stdout);
    writer.join().expect("its pipe is closed");
}
