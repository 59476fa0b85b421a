//! A map can end before its inputs do, and answer failures in several ways: halts, retries, signals.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::{PATIENCE, end, end_with, ended, prebuilt, spawn, wasmpool, wat};

/// This many rounds of `spin` outlast every test.
pub(crate) const FOREVER: &str = "100000000000000";

/// A command that fails the first time, and leaves a file by which it knows the next.
const FLAKY: &str = r#"(module
    (import "wasi_snapshot_preview1" "path_open"
        (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "seen")
    (func (export "_start")
        (call $exit (i32.eqz (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 4)
            (i32.const 5) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 16))))))"#;

pub(crate) fn spin(flags: &[&str]) -> std::process::Command {
    let mut command = wasmpool("map", prebuilt("echo"));
    command.env("WASMPOOL_WORKERS", "2").args(["spin", "--lines"]).args(flags);
    command
}

fn inputs(lines: &[Value]) -> Vec<&str> {
    lines.iter().filter_map(|line| line["input"].as_str()).collect()
}

#[test]
fn results_that_are_not_to_be_in_order_come_as_they_are_done() {
    let mut child = spawn(spin(&["--unordered"]).stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    writeln!(stdin, "{FOREVER}\n7").expect("it reads");
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a line");
    assert_eq!(serde_json::from_str::<Value>(&line).expect("JSON")["line"], 2);
    interrupt_twice(child);
}

#[test]
fn in_order_is_the_default_and_can_be_said() {
    let ended = end_with(&mut spin(&["--keep-order"]), "30000000\n1\n2\n").expect(0);
    assert_eq!(inputs(&ended.json_lines()), ["30000000", "1", "2"]);
}

#[test]
fn a_halt_now_stops_what_runs_and_the_summary_says_how_much() {
    let text = format!("{FOREVER}\nx\n{FOREVER}\n1\n");
    let ended = end_with(&mut spin(&["--halt", "now,fail=1"]), text).expect(4);
    let lines = ended.json_lines();
    assert!(lines.iter().any(|line| line["error"]["kind"] == "input"), "{lines:?}");
    assert!(!inputs(&lines).contains(&FOREVER));
    ended.says(", 1 failed").says(" stopped; ");
}

#[test]
fn a_halt_soon_finishes_what_runs_and_reads_no_more() {
    let endless: String = "3\n".repeat(100_000);
    let mut command = wasmpool("map", prebuilt("primes"));
    let ended = end_with(command.args(["count", "--halt", "soon,fail=2"]), format!("1\nx\n2\ny\n{endless}"))
        .expect(4);
    let lines = ended.json_lines();
    assert!(lines.len() < 1_000, "{} lines", lines.len());
    assert!(lines.iter().filter(|line| line["ok"] == false).count() >= 2);
}

/// They are read ahead, and found to be none, long before the first of them is told.
#[test]
fn inputs_that_do_not_fit_end_a_map_as_any_failure_does() {
    for (halt, told) in [("now,fail=1", 1), ("soon,fail=3", 3)] {
        let ended = end_with(&mut spin(&["--halt", halt]), "x\n".repeat(1000)).expect(4);
        assert_eq!(ended.json_lines().len(), told, "{halt}");
    }
}

#[test]
fn enough_successes_are_a_success() {
    let text = format!("x\n5\n{FOREVER}\n{FOREVER}\n");
    let ended = end_with(&mut spin(&["--halt", "now,success=1"]), text).expect(0);
    assert!(ended.json_lines().iter().any(|line| line["ok"] == true));
}

#[test]
fn a_halt_that_is_none_is_refused() {
    for (halt, says) in [("soon", "soon,fail=1"), ("now,fail=0", "from 1"), ("never,fail=1", "soon or now")] {
        end_with(&mut spin(&["--halt", halt]), "1\n").expect(2).says(says);
    }
}

#[test]
fn what_fails_is_run_again_as_often_as_was_asked_for() {
    let ended = end_with(
        wasmpool("map", prebuilt("init_table")).args(["lookup", "--retries", "2", "--report"]),
        "12\n0\n",
    )
    .expect(4)
    .says("2 inputs: 1 ok, 1 failed, 2 retried");
    let lines = ended.json_lines();
    let attempts: Vec<_> = lines.iter().map(|line| &line["report"]["attempts"]).collect();
    assert_eq!(attempts, [&json!(1), &json!(3)]);
    assert_eq!(ended.stderr.matches("error:").count(), 1, "the last one is told: {}", ended.stderr);
}

#[test]
fn what_succeeds_the_second_time_is_a_success() {
    let folder = tempfile::tempdir().expect("a folder");
    let flaky = wat(folder.path(), "flaky.wasm", FLAKY);
    let once = |name: &str, retries: &str| {
        let dir = folder.path().join(name);
        std::fs::create_dir(&dir).expect("a folder");
        // Workers are another user where this one is root.
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).expect("is ours");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("is ours");
        let dir = format!("{}:/:rw", dir.display());
        let mut command = wasmpool("map", &flaky);
        end_with(command.args(["--retries", retries, "--dir", &dir]), "a\n")
    };
    once("none", "0").expect(4);
    once("one", "1").expect(0).says("1 input: 1 ok, 0 failed, 1 retried");
}

#[test]
fn an_input_that_does_not_fit_is_not_tried_again() {
    let ended = end_with(&mut spin(&["--retries", "5"]), "x\n").expect(4);
    assert!(!ended.stderr.contains("retried"), "{}", ended.stderr);
}

#[test]
fn a_dry_run_names_what_would_be_run_and_what_does_not_fit() {
    let ended = end_with(&mut spin(&["--dry-run"]), "7\nx\n").expect(4).says("error: line 2 (x): ");
    assert_eq!(ended.text(), "echo.wasm spin < line 1 (7)\n");
    ended.says("dry run: 1 would be run, 1 do not fit");
    let mut command = wasmpool("map", prebuilt("csv_stats"));
    let ended = end_with(command.args(["--dry-run", "--", "--column", "{}"]), "age\n").expect(0);
    assert_eq!(ended.text(), "csv_stats.wasm --column age < /dev/null\n", "the argument is all there is");
}

#[test]
fn outputs_are_files_of_their_own_by_the_number_of_their_input() {
    let folder = tempfile::tempdir().expect("a folder");
    let outputs = folder.path().join("made/here");
    let read = |name: &str| {
        std::fs::read_to_string(outputs.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let dir = |command: &mut std::process::Command, stdin: &str| {
        end_with(command.arg("--output-dir").arg(&outputs).current_dir(folder.path()), stdin)
    };
    let typed = dir(wasmpool("map", prebuilt("primes")).args(["count", "--lines"]), "10\nx\n").expect(4);
    assert_eq!(read("1.json"), "4\n");
    let lines = typed.json_lines();
    assert_eq!(lines[0]["file"], outputs.join("1.json").display().to_string());
    assert_eq!((&lines[0]["output"], &lines[1]["error"]["kind"]), (&Value::Null, &json!("input")));
    dir(wasmpool("map", prebuilt("echo")).arg("echo"), "as it is\n").expect(0);
    assert_eq!(read("1.bin"), "as it is");
    std::fs::write(folder.path().join("a.csv"), "n\n1\n").expect("writes");
    let mut command = wasmpool("map", prebuilt("csv_stats"));
    let files = ["--files", "a.csv", "--output-dir"];
    end(command.current_dir(folder.path()).args(files).arg(&outputs).args(["--", "--column", "n"])).expect(0);
    assert!(read("1-a.csv.out").starts_with("column\t"));
    let left: Vec<_> =
        std::fs::read_dir(&outputs).expect("reads").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left.len(), 3, "nothing unfinished: {left:?}");
}

#[test]
fn a_folder_that_cannot_be_made_is_refused_before_anything_runs() {
    let mut command = wasmpool("map", prebuilt("primes"));
    let ended = end_with(command.args(["count", "--output-dir", "/dev/null/here"]), "1\n").expect(5);
    assert_eq!(ended.says("cannot make the folder /dev/null/here").text(), "");
}

#[test]
fn progress_is_lines_where_there_is_no_terminal_and_it_is_asked_for() {
    let run = |flags: &[&str]| end_with(&mut spin(flags), "1\nx\n3\n").expect(4).stderr;
    let always = run(&["--progress", "always"]);
    let last = always.lines().rfind(|line| line.starts_with("progress: ")).expect("progress");
    assert!(last.starts_with("progress: 3 done, 1 failed, ") && last.contains("workers "), "{last}");
    assert!(!run(&["--progress", "never"]).contains("progress"));
    assert!(!run(&[]).contains("progress"));
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("a"), "one").expect("writes");
    let mut command = wasmpool("map", prebuilt("word_count"));
    let ended = end(command.args(["--progress", "always", "--files"]).arg(folder.path())).expect(0);
    ended.says("progress: 1 of 1 done").says(", 0s left, ");
}

#[test]
fn to_watch_is_to_see_each_worker_with_what_it_runs() {
    let mut child = spawn(spin(&["--watch", "--workers", "1"]).stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().expect("a pipe");
    writeln!(stdin, "{FOREVER}").expect("it reads");
    wait_for(&mut child, "answered");
    wait_for(&mut child, " busy ");
    wait_for(&mut child, " MiB  line 1\n");
    interrupt_twice(child);
}

#[test]
fn a_task_that_runs_for_long_is_told_of_with_its_input() {
    // Code of every kind is told of: that looks at nothing, and that counts its fuel.
    for kind in [&[][..], &["--interrupt", "kill"], &["--fuel", "1000000000000000"]] {
        let mut child = spawn(spin(&[&["--slow-after", "50ms"], kind].concat()).stdin(Stdio::piped()));
        let mut stdin = child.stdin.take().expect("a pipe");
        writeln!(stdin, "{FOREVER}").expect("it reads");
        wait_for(&mut child, "warning: a task has run for ");
        wait_for(&mut child, "label=line 1 ");
        wait_for(&mut child, "stack: it is at ");
        interrupt_twice(child);
    }
    end_with(&mut spin(&["--slow-after", "soon"]), "1\n").expect(2).says("examples: 500ms");
}

// ── Signals ──────────────────────────────────────────────────────────────────

pub(crate) fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("it is there");
}

/// Sends the signal once more, but not together with the first: two at once would be one.
pub(crate) fn signal_again(child: &Child, which: Signal) {
    std::thread::sleep(std::time::Duration::from_millis(100));
    signal(child, which);
}

/// Waits until it has said this; what it says afterwards stays in the pipe.
fn interrupt_twice(mut child: Child) {
    signal(&child, Signal::INT);
    wait_for(&mut child, "stopping");
    signal_again(&child, Signal::INT);
    ended(child).expect(130);
}

pub(crate) fn wait_for(child: &mut Child, words: &str) {
    let stderr = child.stderr.as_mut().expect("a pipe");
    let mut said = Vec::new();
    let deadline = std::time::Instant::now() + PATIENCE;
    while !String::from_utf8_lossy(&said).contains(words) {
        assert!(std::time::Instant::now() < deadline, "waited in vain for {words:?}");
        let mut byte = [0];
        std::io::Read::read_exact(stderr, &mut byte).expect("it goes on talking");
        said.push(byte[0]);
    }
}

/// A map that is at work on this, and whose stdin stays open.
fn spinning(input: &str) -> (Child, ChildStdin) {
    let mut child = spawn(spin(&[]).stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().expect("a pipe");
    writeln!(stdin, "{input}").expect("it reads");
    wait_until_busy(&child);
    (child, stdin)
}

/// Two tasks: one that ends soon after a line on stdout says that they run, one that does not.
#[test]
fn the_first_interrupt_finishes_what_runs_and_reads_no_more() {
    for (which, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut child = spawn(spin(&[]).stdin(Stdio::piped()));
        let mut stdin = child.stdin.take().expect("a pipe");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        writeln!(stdin, "1\n400000000").expect("it reads");
        let mut first = String::new();
        stdout.read_line(&mut first).expect("a result");
        wait_until_busy(&child);
        signal(&child, which);
        // stdin stays open: whoever waited for it would wait for ever.
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut stdout, &mut rest).expect("reads");
        assert!(rest.contains("\"input\":\"400000000\",\"ok\":true"), "{rest:?}");
        ended(child).expect(code).says("stopping: ").says("2 inputs: 2 ok, 0 failed");
        drop(stdin);
    }
}

#[test]
fn the_second_interrupt_stops_what_runs_and_the_summary_is_printed_all_the_same() {
    let (mut child, _stdin) = spinning(FOREVER);
    signal(&child, Signal::INT);
    wait_for(&mut child, "stop them, too\n");
    signal_again(&child, Signal::INT);
    ended(child).expect(130).says("0 inputs: 0 ok, 0 failed, 1 stopped");
}

/// `timeout` sends its signals to the command and to its group.
#[test]
fn two_signals_that_come_together_are_one() {
    let (child, _stdin) = spinning("400000000");
    signal(&child, Signal::TERM);
    signal(&child, Signal::TERM);
    ended(child).expect(143).says("1 input: 1 ok, 0 failed");
}

#[test]
fn a_run_that_is_interrupted_says_so_and_writes_what_was_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let [trace, profile] = ["trace.json", "profile.json"].map(|name| folder.path().join(name));
    for (flags, which, code) in [(&[][..], Signal::INT, 130), (&["--json"], Signal::TERM, 143)] {
        let mut command = wasmpool("run", prebuilt("echo"));
        command.args(["spin", "--input", FOREVER]).args(flags);
        command.arg("--trace").arg(&trace).arg("--profile").arg(&profile);
        let child = spawn(command.stdin(Stdio::null()));
        wait_until_busy(&child);
        signal(&child, which);
        let ended = ended(child).expect(code);
        match flags {
            [] => drop(ended.says("error: task 1, `spin`").says("aborted")),
            _ => assert_eq!(ended.json()["error"]["kind"], "aborted"),
        }
        for path in [&trace, &profile] {
            let text = std::fs::read_to_string(path).expect("it is there");
            assert!(serde_json::from_str::<Value>(&text).is_ok(), "{}: {text}", path.display());
        }
    }
}

/// Lists the processes that it has started and that still exist.
pub(crate) fn children(child: &Child) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).expect("it is there").flatten();
    let of_task = |path: PathBuf| std::fs::read_to_string(path.join("children")).unwrap_or_default();
    let children: String = tasks.map(|task| of_task(task.path())).collect();
    children.split_whitespace().map(String::from).collect()
}

/// Waits until one of its workers has used the processor for some time.
pub(crate) fn wait_until_busy(child: &Child) {
    let deadline = std::time::Instant::now() + PATIENCE;
    let ticks = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = stat.rsplit(") ").next().unwrap_or_default().to_string();
        rest.split(' ').nth(11).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or_default()
    };
    loop {
        // Starting costs one or two.
        if children(child).iter().any(|pid| ticks(pid) >= 5) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "waited in vain for a busy worker");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
