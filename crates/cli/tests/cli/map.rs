//! `wasmpool map`: order, sources, failures by input.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::harness::{end, end_with, ended, prebuilt, spawn, wasmpool, wat};

fn outputs(lines: &[Value]) -> Vec<&Value> {
    lines.iter().map(|line| &line["output"]).collect()
}

#[test]
fn results_come_in_input_order_whatever_the_tasks_take() {
    // The first takes longest.
    let inputs: Vec<u64> = (0..200).map(|n| if n % 50 == 0 { 3_000_000 } else { n }).collect();
    let text: String = inputs.iter().map(|n| format!("{n}\n")).collect();
    let ended =
        end_with(wasmpool("map", prebuilt("primes")).args(["count", "--workers", "4"]), text).expect(0);
    let lines = ended.json_lines();
    assert_eq!(lines.len(), 200);
    for (index, (line, input)) in lines.iter().zip(&inputs).enumerate() {
        assert_eq!(line["line"], index + 1);
        assert_eq!(line["input"], input.to_string());
        assert_eq!(line["ok"], true);
    }
    assert_eq!((&lines[0]["output"], &lines[5]["output"]), (&json!(216_816), &json!(3)));
    ended.says("200 inputs: 200 ok, 0 failed");
}

/// Answers with how often it was called in its instance, as one byte.
const COUNT_WAT: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "wasmpool_abi_v1"))
    (func (export "wasmpool_alloc") (param i32) (result i32) i32.const 4096)
    (func (export "count") (param i32 i32) (result i64)
        (i32.store8 (i32.const 1025) (i32.add (i32.load8_u (i32.const 1025)) (i32.const 1)))
        (i64.const 0x40000000002)))"#;

#[test]
fn tasks_share_an_instance_where_that_is_asked_for_and_only_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let module = wat(folder.path(), "count.wasm", COUNT_WAT);
    for (level, last) in [("reuse", 5), ("instance", 1)] {
        let mut command = wasmpool("map", &module);
        command.args(["count", "--lines", "--workers", "1", "--isolation", level]);
        let lines = end_with(&mut command, "a\nb\nc\nd\ne\n").expect(0).json_lines();
        let bytes = char::from(last).to_string();
        assert_eq!(lines[4]["output"], json!(bytes), "{level}: {lines:?}");
    }
}

#[test]
fn lines_are_text_where_the_task_takes_text_and_json_elsewhere() {
    let ended =
        end_with(wasmpool("map", prebuilt("echo")).args(["hash", "--lines"]), "foobar\n\n\"q\"").expect(0);
    let lines = ended.json_lines();
    assert_eq!(outputs(&lines[..2]), [&json!(0x8594_4171_f739_67e8_u64), &json!(0xcbf2_9ce4_8422_2325_u64)]);
    let echoed = end_with(wasmpool("map", prebuilt("echo")).args(["echo", "--lines"]), "\"q\"\r\n").expect(0);
    assert_eq!(outputs(&echoed.json_lines()), [&json!("\"q\"")]);
    let sums =
        end_with(wasmpool("map", prebuilt("echo")).args(["add", "--lines"]), "[1,2]\n{\"a\":3,\"b\":4}\n");
    assert_eq!(outputs(&sums.expect(0).json_lines()), [&json!(3), &json!(7)]);
}

#[test]
fn json_lines_are_json_for_every_task() {
    let text = "\"foobar\"\n\n{\"base64\": \"Zm9vYmFy\"}\n";
    let ended = end_with(wasmpool("map", prebuilt("echo")).args(["hash", "--jsonl"]), text).expect(0);
    let lines = ended.json_lines();
    assert_eq!(lines[0]["output"], lines[1]["output"]);
    assert_eq!((&lines[1]["line"], lines.len()), (&json!(3), 2));
}

#[test]
fn an_input_that_fails_does_so_alone_and_the_code_says_so() {
    let ended = end_with(wasmpool("map", prebuilt("primes")).arg("count"), "10\nten\n-1\n20\n").expect(4);
    let lines = ended.json_lines();
    let ok: Vec<_> = lines.iter().map(|line| line["ok"].as_bool()).collect();
    assert_eq!(ok, [Some(true), Some(false), Some(false), Some(true)]);
    assert_eq!(lines[1]["error"]["kind"], "input");
    assert!(lines[2]["error"]["message"].as_str().is_some_and(|text| text.contains("expected u64")));
    ended.says("error: line 2 (ten): ").says("error: line 3 (-1): ").says("4 inputs: 2 ok, 2 failed");
}

#[test]
fn tasks_that_fail_are_reported_by_input() {
    let mut command = wasmpool("map", prebuilt("init_table"));
    let ended = end_with(command.arg("lookup"), "12\n0\n13\n")
        .expect(4)
        .says("error: line 2 (0): 0 is not in the table");
    let lines = ended.json_lines();
    assert_eq!(outputs(&lines), [&json!([2, 2, 3]), &Value::Null, &json!([13])]);
    assert_eq!(lines[1]["error"]["kind"], "guest");
}

#[test]
fn a_timeout_holds_for_each_input() {
    let inputs = "1\n1000000000000\n2\n";
    let mut command = wasmpool("map", prebuilt("echo"));
    let ended = end_with(command.args(["spin", "--timeout", "300ms", "--workers", "1"]), inputs).expect(4);
    let lines = ended.json_lines();
    assert_eq!(lines[1]["error"]["kind"], "timeout");
    assert_eq!((&lines[0]["ok"], &lines[2]["ok"]), (&json!(true), &json!(true)));
}

#[test]
fn files_are_walked_in_order_without_hidden_and_ignored_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("writes");
    std::fs::create_dir(folder.path().join("sub")).expect("a folder");
    write("b.txt", "one two");
    write("a.txt", "one");
    write("sub/c.txt", "one two three");
    write(".hidden", "hidden");
    write("skip.log", "ignored");
    write(".gitignore", "*.log\n");
    let mut command = wasmpool("map", prebuilt("word_count"));
    let ended = end(command.current_dir(folder.path()).args(["count", "--files", "sub", "."])).expect(0);
    let seen: Vec<_> = ended
        .json_lines()
        .iter()
        .map(|line| (line["input"].as_str().unwrap_or("?").to_string(), line["output"]["words"].as_u64()))
        .collect();
    let expected = [("sub/c.txt", 3), ("./a.txt", 1), ("./b.txt", 2), ("./sub/c.txt", 3)];
    assert_eq!(seen, expected.map(|(name, words)| (name.to_string(), Some(words))));
}

#[test]
fn a_file_that_is_not_there_is_refused_before_anything_runs() {
    let ended = end(wasmpool("map", prebuilt("word_count")).args(["--files", "no such file"])).expect(2);
    assert_eq!(ended.says("cannot read no such file").text(), "");
}

#[test]
fn a_command_runs_once_for_each_input() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("a.csv"), "n\n1\n3\n").expect("writes");
    std::fs::write(folder.path().join("b.csv"), "n\nx\n").expect("writes");
    let mut command = wasmpool("map", prebuilt("csv_stats"));
    command.current_dir(folder.path()).args(["--files", "a.csv", "b.csv", "--", "--column", "n"]);
    let ended = end(&mut command).expect(4).says("error: b.csv: exited with code 1");
    let lines = ended.json_lines();
    assert_eq!(lines[0]["stdout"], "column\tcount\tmin\tmax\tmean\tstddev\nn\t2\t1\t3\t2\t1.414214\n");
    assert_eq!((&lines[1]["ok"], &lines[1]["exit_code"]), (&json!(false), &json!(1)));
}

#[test]
fn a_placeholder_takes_the_line_into_the_arguments_and_stdin_takes_it_otherwise() {
    let placed =
        end_with(wasmpool("map", prebuilt("csv_stats")).args(["--", "--column", "{}"]), "a b\n").expect(4);
    assert_eq!(placed.json_lines()[0]["stderr"], "csv_stats: there is no column 'a b'\n");
    let piped =
        end_with(wasmpool("map", prebuilt("csv_stats")).args(["--", "--column", "x"]), "x\n").expect(0);
    assert_eq!(piped.json_lines()[0]["exit_code"], 0);
}

#[test]
fn what_could_never_work_is_refused_at_once() {
    let usage = |command: &mut std::process::Command, says: &str| {
        assert_eq!(end_with(command, "1\n").expect(2).says(says).text(), "");
    };
    usage(wasmpool("map", prebuilt("echo")).arg("bump"), "takes no input");
    usage(wasmpool("map", prebuilt("csv_stats")).arg("--jsonl"), "use --lines");
    usage(wasmpool("map", prebuilt("echo")).args(["hash", "--lines", "--jsonl"]), "cannot be used with");
}

/// stdin stays open: were the inputs read to their end first, the first result would never
/// come; were results held back, neither.
#[test]
fn results_are_printed_while_stdin_is_still_open() {
    let mut child = spawn(wasmpool("map", prebuilt("primes")).arg("count").stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    for (input, primes) in [(10, 4), (100, 25)] {
        writeln!(stdin, "{input}").expect("it reads");
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        let line: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(line["output"], primes);
    }
    drop(stdin);
    ended(child).expect(0);
}

#[test]
fn a_closed_stdout_ends_it_quietly_though_inputs_are_endless() {
    let mut child = spawn(wasmpool("map", prebuilt("primes")).arg("count").stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().expect("a pipe");
    let feeder = std::thread::spawn(move || while stdin.write_all(b"10\n").is_ok() {});
    let mut line = [0; 20];
    let mut stdout = child.stdout.take().expect("a pipe");
    stdout.read_exact(&mut line).expect("a result");
    drop(stdout);
    let ended = ended(child).expect(0);
    assert_eq!(ended.stderr, "");
    feeder.join().expect("it met a closed pipe");
}

#[test]
fn progress_is_for_terminals_and_quiet_leaves_only_errors() {
    let run = |flags: &[&str]| {
        end_with(wasmpool("map", prebuilt("primes")).arg("count").args(flags), "1\nx\n").expect(4)
    };
    assert_eq!(run(&[]).stderr.lines().count(), 2);
    assert_eq!(run(&["-q"]).stderr.lines().count(), 1);
    assert!(!run(&[]).stderr.contains('\u{1b}'));
    assert!(run(&["--color", "always"]).stderr.contains('\u{1b}'));
}

#[test]
fn no_file_is_left_behind_in_the_working_directory() {
    let folder = tempfile::tempdir().expect("a folder");
    end_with(wasmpool("map", prebuilt("primes")).arg("count").current_dir(folder.path()), "1\n").expect(0);
    let is_empty = |path: &Path| std::fs::read_dir(path).expect("readable").next().is_none();
    assert!(is_empty(folder.path()));
}

#[test]
fn a_file_whose_name_is_no_text_is_an_input_and_no_argument() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(std::ffi::OsStr::from_bytes(b"\xff.csv"));
    std::fs::write(&path, "n\n1\n").expect("writes");
    let map = |column: &str| {
        let mut command = wasmpool("map", prebuilt("csv_stats"));
        end(command.arg("--files").arg(&path).args(["--", "--column", column]))
    };
    map("n").expect(0);
    map("{}").expect(4).says("the file's name is not UTF-8, so it cannot be an argument");
}
