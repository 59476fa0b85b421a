//! Other programs leave stdin, stdout and stderr in various states, and put a mark before a text.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use crate::harness::{cache, end, end_with, ended, prebuilt, wasmpool, wat};

/// Makes a pipe whose open files are non-blocking for everybody who has them.
fn non_blocking_pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    for end in [&reader, &writer] {
        rustix::io::ioctl_fionbio(end, true).expect("it is a pipe");
    }
    (reader, writer)
}

/// Writes everything, however slowly the other end reads, then closes.
fn write_all(end: OwnedFd, bytes: &[u8]) {
    let mut left = bytes;
    while !left.is_empty() {
        match rustix::io::write(&end, &left[..left.len().min(10_000)]) {
            Ok(written) => left = &left[written..],
            Err(rustix::io::Errno::AGAIN) => std::thread::sleep(std::time::Duration::from_millis(1)),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Reads until the end, a little at a time.
fn read_all(end: OwnedFd) -> Vec<u8> {
    let mut all = Vec::new();
    let mut piece = [0; 1000];
    loop {
        match rustix::io::read(&end, &mut piece) {
            Ok(0) => return all,
            Ok(len) => all.extend_from_slice(&piece[..len]),
            Err(rustix::io::Errno::AGAIN) => std::thread::sleep(std::time::Duration::from_millis(1)),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn streams_that_do_not_block_are_waited_for() {
    let text: String = (0..300_000).map(|n| format!("{n} ")).collect();
    let lines: String = (0..30_000).map(|n| format!("{n}\n")).collect();
    let cases: [(&[&str], &str, usize); 2] = [
        (&["run", "echo", "echo"], &text, text.len()),
        (&["map", "echo", "echo", "--lines", "--report"], &lines, 30_000 * 100),
    ];
    for (words, input, least) in cases {
        let (stdin, feed) = non_blocking_pipe();
        let (drain, stdout) = non_blocking_pipe();
        let (warnings, stderr) = non_blocking_pipe();
        let mut command = wasmpool(words[0], prebuilt(words[1]));
        command.args(&words[2..]).stdin(stdin).stdout(stdout).stderr(stderr);
        let child = command.spawn().expect("it starts");
        // The parent's ends are closed here, since the pipes could not end otherwise.
        drop(command);
        let output = std::thread::scope(|scope| {
            scope.spawn(|| write_all(feed, input.as_bytes()));
            let warnings = scope.spawn(|| read_all(warnings));
            let output = read_all(drain);
            let warnings = warnings.join().expect("it reads");
            assert!(
                !String::from_utf8_lossy(&warnings).contains("error"),
                "{}",
                String::from_utf8_lossy(&warnings)
            );
            output
        });
        ended(child).expect(0);
        assert!(output.len() >= least, "{words:?}: {} bytes", output.len());
        if words[0] == "run" {
            assert_eq!(output, input.as_bytes());
        }
    }
}

/// Only a shell can start a program without a stdout.
fn with_closed_stdout(words: &[&str]) -> crate::harness::Ended {
    let mut command = Command::new("/bin/sh");
    command.env_clear().args(["-c", r#"exec "$@" >&-"#, "sh", env!("CARGO_BIN_EXE_wasmpool")]).args(words);
    end_with(command.env("WASMPOOL_CACHE_DIR", cache()), "12\n")
}

#[test]
fn what_cannot_be_printed_since_stdout_is_closed_is_no_success() {
    let primes = prebuilt("primes");
    let primes = primes.to_str().expect("UTF-8");
    let csv = prebuilt("csv_stats");
    let csv = csv.to_str().expect("UTF-8");
    for words in [
        &["run", primes, "count"][..],
        &["run", primes, "count", "--json"],
        &["map", primes, "count", "--lines"],
        &["inspect", primes],
        &["inspect", primes, "--json"],
        &["bench", primes, "count", "--input", "7", "--time", "10ms"],
        &["config"],
        &["completions", "bash"],
        &["man"],
        &["--version"],
        &["--help"],
        &["help", "run"],
    ] {
        with_closed_stdout(words).expect(5).says("cannot write to stdout: it is closed");
    }
    // The command writes nothing to stdout, so nothing is lost.
    let silent = with_closed_stdout(&["run", csv, "--", "--column", "missing"]);
    assert_ne!(silent.code, 5, "{}", silent.stderr);
}

#[test]
fn output_that_somebody_throws_away_is_written() {
    let mut command = wasmpool("run", prebuilt("primes"));
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").expect("opens");
    command.args(["count", "--input", "12"]).stdin(Stdio::null()).stdout(null);
    ended(command.stderr(Stdio::piped()).spawn().expect("it starts")).expect(0);
}

// ── What stands before a text, and what is empty ─────────────────────────────

const BOM: &str = "\u{feff}";

#[test]
fn a_byte_order_mark_is_no_content() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("input");
    std::fs::write(&path, format!("{BOM}12")).expect("writes");
    let path = path.to_str().expect("UTF-8");
    let run = |words: &[&str], stdin: &str| {
        end_with(wasmpool("run", prebuilt("primes")).args(words), stdin).expect(0).text()
    };
    let twelve = "5\n";
    assert_eq!(run(&["count", "--input-file", path], ""), twelve);
    assert_eq!(run(&["count"], &format!("{BOM}12\r\n")), twelve);
    assert_eq!(run(&["count", "--input", &format!("{BOM}12")], ""), twelve);
    let map = |module: &str, words: &[&str], stdin: String| {
        end_with(wasmpool("map", prebuilt(module)).args(words), stdin).expect(0).json_lines()
    };
    let lines = map("primes", &["count", "--lines"], format!("{BOM}12\r\n12\n"));
    assert_eq!((&lines[0]["output"], &lines[1]["output"]), (&5.into(), &5.into()));
    assert_eq!(lines[0]["input"], "12");
    let lines = map("primes", &["count", "--jsonl"], format!("{BOM}12\n{BOM}12\n"));
    assert_eq!((&lines[0]["output"], &lines[1]["output"]), (&5.into(), &5.into()));
    let lines = map("primes", &["count", "--files", path], String::new());
    assert_eq!(lines[0]["output"], 5);
    // The bytes of an untyped task stay as they are.
    let same = end_with(wasmpool("run", prebuilt("echo")).arg("echo"), format!("{BOM}a")).expect(0);
    assert_eq!(same.text(), format!("{BOM}a"));
}

#[test]
fn a_mark_in_a_settings_file_is_none_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("settings.toml"), format!("{BOM}workers = 3\r\n")).expect("writes");
    let mut command = Command::new(env!("CARGO_BIN_EXE_wasmpool"));
    command.env_clear().current_dir(folder.path()).args(["--config", "settings.toml", "config"]);
    let shown = end(&mut command).expect(0).text();
    let workers = shown.lines().find(|line| line.starts_with("workers")).expect("a setting");
    assert_eq!(workers.split_whitespace().nth(1), Some("3"));
}

#[test]
fn a_variable_that_is_empty_says_nothing() {
    let mut config = Command::new(env!("CARGO_BIN_EXE_wasmpool"));
    let shown = end(config.env_clear().args(["config", "--json"])).expect(0).json();
    let keys: Vec<_> = shown["settings"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|key| key["key"].as_str().expect("text"))
        .collect();
    assert!(keys.len() > 15, "{keys:?}");
    let mut command = wasmpool("map", prebuilt("primes"));
    for key in keys.iter().chain(&["log", "config"]) {
        command.env(format!("WASMPOOL_{}", key.replace('-', "_").to_uppercase()), "");
    }
    end_with(command.arg("count"), "12\n").expect(0);
    let mut empty = Command::new(env!("CARGO_BIN_EXE_wasmpool"));
    let shown = end(empty.env_clear().env("WASMPOOL_TIMEOUT", "").arg("config")).expect(0).text();
    let timeout = shown.lines().find(|line| line.starts_with("timeout")).expect("a setting");
    assert!(timeout.contains("1h") && timeout.contains("the default"), "{timeout}");
    // A variable with a wrong value is still refused.
    let mut wrong = wasmpool("run", prebuilt("primes"));
    end(wrong.env("WASMPOOL_TIMEOUT", "soon").args(["count", "--input", "1"])).expect(2);
}

#[test]
fn stdin_is_a_dash_and_a_file_of_that_name_is_named_by_its_path() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("-"), "of the file").expect("writes");
    let map = |path: &str| {
        let mut command = wasmpool("map", prebuilt("echo"));
        command.args(["echo", "--files", path]).current_dir(folder.path());
        let line = end_with(&mut command, "of stdin").expect(0).json_lines().remove(0);
        line["output"].as_str().map(String::from)
    };
    assert_eq!(map("-").as_deref(), Some("of stdin"));
    assert_eq!(map("./-").as_deref(), Some("of the file"));
    assert_eq!(map(".").as_deref(), Some("of the file"));
    std::fs::remove_file(folder.path().join("-")).expect("it was there");
    assert_eq!(map("-").as_deref(), Some("of stdin"));
}

/// A program that writes a line and exits with 3.
const WRITES_AND_FAILS_WAT: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (data (i32.const 16) "text\n")
    (func (export "_start")
        (i32.store (i32.const 0) (i32.const 16))
        (i32.store (i32.const 4) (i32.const 5))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
        (call $exit (i32.const 3))))"#;

#[test]
fn what_has_failed_is_no_success_because_its_reader_has_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let fails = wat(folder.path(), "fails.wasm", WRITES_AND_FAILS_WAT);
    let code = |command: &mut Command, input: &str| {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
        drop(reader);
        let mut child =
            command.stdin(Stdio::piped()).stdout(writer).stderr(Stdio::piped()).spawn().expect("starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        // The command may leave without having read its input.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        ended(child).code
    };
    assert_eq!(code(wasmpool("run", &fails).args(["--"]), ""), 3);
    assert_eq!(code(wasmpool("run", &fails).args(["--json", "--"]), ""), 3);
    assert_eq!(code(wasmpool("run", prebuilt("primes")).args(["count", "--input", "10"]), ""), 0);
    assert_eq!(code(wasmpool("map", prebuilt("primes")).args(["count", "--lines"]), "10\n"), 0);
}
