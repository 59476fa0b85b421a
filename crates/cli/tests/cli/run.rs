//! `wasmpool run`: inputs, outputs, errors and exit codes.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{PATIENCE, end, end_with, ended, prebuilt, spawn, wasmpool, wat};

#[test]
fn a_typed_task_takes_json_and_prints_json() {
    let ended = end(wasmpool("run", prebuilt("primes")).args(["list", "--input", "20"])).expect(0);
    assert_eq!((ended.text().as_str(), ended.stderr.as_str()), ("[2,3,5,7,11,13,17,19]\n", ""));
}

#[test]
fn several_arguments_come_as_an_array_or_by_name() {
    for input in ["[2, -5]", r#"{"b": -5, "a": 2}"#] {
        let ended = end(wasmpool("run", prebuilt("echo")).args(["add", "--input", input])).expect(0);
        assert_eq!(ended.text(), "-3\n");
    }
}

#[test]
fn a_task_without_arguments_needs_no_input() {
    assert_eq!(end(wasmpool("run", prebuilt("faults")).arg("ok")).expect(0).text(), "42\n");
}

#[test]
fn a_trust_domain_changes_no_result() {
    let mut command = wasmpool("run", prebuilt("echo"));
    let ended = end(command.args(["add", "--input", "[2, -5]", "--domain", "tenant 17"])).expect(0);
    assert_eq!(ended.text(), "-3\n");
}

#[test]
fn shared_files_are_there_for_the_task_and_must_be_readable() {
    let folder = tempfile::tempdir().expect("a folder");
    let table = folder.path().join("table.tsv");
    std::fs::write(&table, "ann\t30\nbob\t40\n").expect("writes");
    let find = |path: &std::path::Path| {
        let mut command = wasmpool("run", prebuilt("lookup"));
        end(command.args(["find", "--input", "\"bob\"", "--share"]).arg(path))
    };
    assert_eq!(find(&table).expect(0).text(), "\"40\"\n");
    assert!(find(&folder.path().join("none")).expect(2).stderr.contains("none"));
    let mut without = wasmpool("run", prebuilt("lookup"));
    let ended = end(without.args(["find", "--input", "\"bob\""])).expect(1);
    assert!(ended.stderr.contains("no table is shared"), "{}", ended.stderr);
}

#[test]
fn the_only_task_needs_no_name() {
    let ended = end(wasmpool("run", prebuilt("word_count")).args(["--input", r#""a b a""#])).expect(0);
    assert_eq!(ended.json()["top"], json!([["a", 2], ["b", 1]]));
}

#[test]
fn structs_and_enums_cross_as_objects_and_names() {
    let contract = json!({
        "right": "Call", "spot": 100, "strike": 100.0, "rate": 0.05, "volatility": 0.2, "years": 1,
        "samples": 20000, "seed": 1,
    });
    let input = contract.to_string();
    let ended =
        end(wasmpool("run", prebuilt("monte_carlo")).args(["option_price", "--input", &input])).expect(0);
    let price = ended.json()["price"].as_f64().expect("a price");
    // Black and Scholes give 10.45.
    assert!((9.5..11.5).contains(&price), "{price}");
}

#[test]
fn files_and_stdin_are_the_text_itself_for_text_and_json_for_the_rest() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("input");
    std::fs::write(&file, "\"quoted\"\n").expect("writes");
    let mut count = wasmpool("run", prebuilt("word_count"));
    let ended = end(count.arg("--input-file").arg(&file)).expect(0);
    assert_eq!(ended.json()["bytes"], 9);

    let piped = end_with(&mut wasmpool("run", prebuilt("word_count")), "one two").expect(0);
    assert_eq!(piped.json()["words"], 2);
    let piped = end_with(wasmpool("run", prebuilt("tokenize")).arg("normalize"), "[1, 3]").expect(0);
    assert_eq!(piped.text(), "[-1.0,1.0]\n");
}

#[test]
fn an_untyped_task_passes_bytes_in_and_out() {
    let bytes: Vec<u8> = (0..=255).collect();
    let ended = end_with(wasmpool("run", prebuilt("echo")).arg("echo"), bytes.clone()).expect(0);
    assert_eq!(ended.stdout, bytes);
    let small = end_with(wasmpool("run", prebuilt("compress")).arg("deflate"), "text ".repeat(100)).expect(0);
    let back = end_with(wasmpool("run", prebuilt("compress")).arg("inflate"), small.stdout).expect(0);
    assert_eq!(back.text(), "text ".repeat(100));
}

#[test]
fn bytes_in_json_are_text_or_base64() {
    for (input, output) in [("hi", json!("hi")), ("\u{9b}", json!("\u{9b}"))] {
        let ended =
            end(wasmpool("run", prebuilt("echo")).args(["echo", "--json", "--input", input])).expect(0);
        assert_eq!(ended.json()["output"], output);
        assert!(!ended.text().contains('\u{9b}'), "a control character reached stdout");
    }
    let ended = end_with(wasmpool("run", prebuilt("echo")).args(["echo", "--json"]), [0xff]).expect(0);
    assert_eq!(ended.json()["output"], json!({"base64": "/w=="}));
}

#[test]
fn a_command_gets_its_arguments_and_stdin_and_its_exit_code_is_passed_on() {
    let csv = "name,age\nAda,36\nAlan,41\n";
    let run = |args: &[&str]| end_with(wasmpool("run", prebuilt("csv_stats")).arg("--").args(args), csv);
    let table = run(&["--column", "age"]).expect(0);
    assert_eq!(table.text(), "column\tcount\tmin\tmax\tmean\tstddev\nage\t2\t36\t41\t38.5\t3.535534\n");
    run(&["--column", "name"]).expect(1).says("'Ada' is not a number");
    run(&["--bogus"]).expect(2).says("unknown argument '--bogus'");
}

#[test]
fn a_commands_result_as_json_has_its_exit_code_and_streams() {
    let run = |column: &str| {
        let mut command = wasmpool("run", prebuilt("csv_stats"));
        end_with(command.args(["--json", "--", "--column", column]), "a\n1\n")
    };
    let good = run("a").expect(0).json();
    assert_eq!((&good["ok"], &good["exit_code"], &good["stderr"]), (&json!(true), &json!(0), &json!("")));
    assert!(good["stdout"].as_str().is_some_and(|text| text.starts_with("column\t")));
    let bad = run("b").expect(1).json();
    assert_eq!(
        (&bad["ok"], &bad["exit_code"], &bad["error"]["kind"]),
        (&json!(false), &json!(1), &json!("exit"))
    );
    assert_eq!(bad["stderr"], "csv_stats: there is no column 'b'\n");
}

/// Writes its environment to stdout and exits with 7.
const ENVIRONMENT: &str = r#"(module
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func $get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (func (export "_start")
        (drop (call $sizes (i32.const 0) (i32.const 4)))
        (drop (call $get (i32.const 100) (i32.const 1000)))
        (i32.store (i32.const 8) (i32.const 1000))
        (i32.store (i32.const 12) (i32.load (i32.const 4)))
        (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 16)))
        (call $exit (i32.const 7))))"#;

#[test]
fn a_commands_environment_is_what_env_says_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let module = wat(folder.path(), "env.wasm", ENVIRONMENT);
    let mut command = wasmpool("run", &module);
    let ended = end(command.env("SECRET", "1").args(["--env", "A=b=c", "--env", "D="])).expect(7);
    assert_eq!(ended.text(), "A=b=c\0D=\0");
}

#[test]
fn the_json_of_a_result_has_what_it_cost() {
    let ended =
        end(wasmpool("run", prebuilt("primes")).args(["count", "--input", "100000", "--json"])).expect(0);
    let json = ended.json();
    assert_eq!((&json["task"], &json["module"]), (&json!("count"), &json!("primes.wasm")));
    assert_eq!((&json["ok"], &json["output"]), (&json!(true), &json!(9592)));
    let report = &json["report"];
    for field in ["queued_us", "run_us", "total_us", "cpu_us", "peak_memory_bytes", "worker_pid"] {
        assert!(report[field].is_u64(), "{field}: {report}");
    }
    assert_eq!(report["fuel_used"], Value::Null);
    assert!(report["total_us"].as_u64() >= report["run_us"].as_u64());
}

#[test]
fn fuel_is_counted_and_limited() {
    let run = |fuel: &str| {
        let mut command = wasmpool("run", prebuilt("primes"));
        end(command.args(["count", "--input", "1000", "--json", "--fuel", fuel]))
    };
    let used = run("100000000").expect(0).json()["report"]["fuel_used"].as_u64().expect("fuel");
    assert!(used > 1000, "{used}");
    assert_eq!(run("1000").expect(1).json()["error"]["kind"], "fuel");
}

#[test]
fn json_that_does_not_fit_is_refused_with_its_place() {
    let cases = [
        (&["echo", "add", "--input", "[1, 2.5]"][..], "at $[1] (argument `b`): expected i64"),
        (&["echo", "add", "--input", r#"{"a": 1}"#], "missing argument `b: i64`"),
        (&["echo", "add", "--input", "[1"], "is not JSON: EOF while parsing"),
        (&["tokenize", "normalize", "--input", r#"[1, 2, "x"]"#], "at $[2]: expected f64"),
        (&["tokenize", "tokenize", "--input", "hello"], "text needs quotes here"),
        (
            &["monte_carlo", "option_price", "--input", r#"{"right": "Hold"}"#],
            "expected a variant of Right (`Call`, `Put`)",
        ),
        (&["primes", "count"], "`count(upto: u64) -> u64` needs an input"),
    ];
    for (words, says) in cases {
        let ended = end(wasmpool("run", prebuilt(words[0])).args(&words[1..])).expect(2).says(says);
        assert_eq!(ended.text(), "");
    }
    let mut command = wasmpool("run", prebuilt("primes"));
    let json = end(command.args(["count", "--json", "--input", "-1"])).expect(2).json();
    assert_eq!((&json["ok"], &json["error"]["kind"]), (&json!(false), &json!("input")));
}

#[test]
fn a_task_that_fails_is_code_1_and_says_how() {
    let cases = [
        (&["own_error", "--input", r#""not today""#][..], "not today", "guest"),
        (&["panic", "--input", r#""boom""#], "boom", "panic"),
        (&["unreachable"], "unreachable executed", "trap"),
        (&["bad_pointer"], "the guest returned pointer", "bad_pointer"),
        (&["bad_output", "--input", "1"], "cannot decode the task's output", "output_decode"),
        (&["proc_exit", "--input", "3"], "exited with code 3", "exit"),
        (&["memory_bomb", "--memory", "16MiB"], "memory was refused 2 times", "trap"),
        (&["sleep_forever", "--timeout", "100ms"], "timed out after 100ms", "timeout"),
        (
            &["huge_output", "--input", "9000", "--output-limit", "8KiB"],
            "output is too large",
            "output_too_large",
        ),
        (
            &["log_flood", "--input", "9000", "--log-limit", "4KiB", "--log-overflow", "fail"],
            "the logs are too large: 4",
            "logs_too_large",
        ),
    ];
    for (words, says, kind) in cases {
        let ended = end(wasmpool("run", prebuilt("faults")).args(words)).expect(1).says(says);
        assert_eq!(ended.text(), "", "{words:?}");
        let json = end(wasmpool("run", prebuilt("faults")).args(words).arg("--json")).expect(1).json();
        assert_eq!((&json["ok"], &json["error"]["kind"]), (&json!(false), &json!(kind)));
    }
}

#[test]
fn an_endless_task_ends_at_its_timeout() {
    let started = Instant::now();
    let mut command = wasmpool("run", prebuilt("faults"));
    let json = end(command.args(["endless_loop", "--timeout", "200ms", "--json"])).expect(1).json();
    assert_eq!((&json["error"]["kind"], &json["error"]["limit_us"]), (&json!("timeout"), &json!(200_000)));
    assert!(started.elapsed() >= Duration::from_millis(200));
}

#[test]
fn a_task_ends_at_its_limit_of_cpu_time_and_the_report_says_what_it_used() {
    let command = |task| {
        let mut command = wasmpool("run", prebuilt("faults"));
        command.args([task, "--cpu-time", "50ms", "--timeout", "400ms", "--json"]);
        end(&mut command).expect(1).json()["error"].clone()
    };
    let error = command("endless_loop");
    assert_eq!((&error["kind"], &error["limit_us"]), (&json!("cpu_time"), &json!(50_000)), "{error}");
    let error = command("sleep_forever");
    assert_eq!((&error["kind"], &error["limit_us"]), (&json!("timeout"), &json!(400_000)), "{error}");
    let mut command = wasmpool("run", prebuilt("primes"));
    command.args(["count", "--input", "100000", "--cpu-time", "60s", "--json"]);
    let cpu = end(&mut command).expect(0).json()["report"]["cpu_us"].as_u64();
    assert!(cpu.is_some_and(|cpu| cpu > 0 && cpu < 60_000_000), "{cpu:?}");
}

#[test]
fn an_endless_task_without_checks_ends_at_its_timeout_with_its_worker() {
    for (how, killed) in [("kill", true), ("check", false)] {
        let mut command = wasmpool("run", prebuilt("faults"));
        command.args(["endless_loop", "--timeout", "100ms", "--json", "--interrupt", how]);
        let json = end(&mut command).expect(1).json();
        assert_eq!(
            (&json["error"]["kind"], &json["error"]["worker_killed"]),
            (&json!("timeout"), &json!(killed))
        );
    }
}

#[test]
fn what_a_guest_says_is_escaped() {
    let input = r#""\u001b[31mred\nerror: more""#;
    let ended = end(wasmpool("run", prebuilt("faults")).args(["own_error", "--input", input])).expect(1);
    assert!(ended.stderr.contains("\\u{1b}[31mred\n    error: more"), "{}", ended.stderr);
    assert!(!ended.stderr.contains('\u{1b}'), "{}", ended.stderr);
}

#[test]
fn logs_of_guests_are_on_stderr_from_info_up_and_quiet_silences_them() {
    let log =
        |flag: &[&str]| end(wasmpool("run", prebuilt("echo")).args(["log_lines", "--input", "5"]).args(flag));
    let shown = log(&[]).expect(0).says("line 0").says("line 2");
    assert!(!shown.stderr.contains("line 3") && shown.text() == "5\n", "{}", shown.stderr);
    assert_eq!(log(&["-q"]).expect(0).stderr, "");
    log(&["-v"]).expect(0).says("line 3");
}

#[test]
fn a_result_goes_to_a_file_with_bytes_as_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("result");
    let run = |module: &str, words: &[&str]| {
        let mut command = wasmpool("run", prebuilt(module));
        command.args(words).arg("-o").arg(&file);
        let ran = end(&mut command).expect(0);
        (ran.text(), std::fs::read(&file).expect("is there"))
    };
    let all: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let input = folder.path().join("input");
    std::fs::write(&input, &all).expect("writes");
    let input = input.to_str().expect("UTF-8");
    // A task without a codec, a typed one that returns bytes, one that returns something else.
    assert_eq!(run("echo", &["echo", "--input-file", input]), (String::new(), all.clone()));
    assert_eq!(run("primes", &["count", "100"]), (String::new(), b"25\n".to_vec()));
    let text = "the same again ".repeat(5_000);
    let (printed, packed) = run("compress", &["deflate_at", "6", &text]);
    assert!(printed.is_empty() && packed.len() < 1_000, "{} bytes: {printed}", packed.len());
    let packed_file = folder.path().join("packed");
    std::fs::write(&packed_file, packed).expect("writes");
    let (_, unpacked) = run("compress", &["inflate", "--input-file", packed_file.to_str().expect("UTF-8")]);
    assert!(unpacked == text.as_bytes(), "{} bytes", unpacked.len());
    let (line, written) = run("primes", &["count", "100", "--json"]);
    let line: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(written, b"25\n");
    assert!(
        line["file"] == file.to_str().expect("UTF-8") && line["output"].is_null() && line["ok"] == true,
        "{line}"
    );
    // A task that is not called, or fails, leaves the file as it was, or makes none.
    for words in [
        &["count", "x"][..],
        &["count"],
        &["count", "1", "2"],
        &["count", "100000000000", "--timeout", "20ms"],
    ] {
        std::fs::write(&file, "before").expect("writes");
        let mut command = wasmpool("run", prebuilt("primes"));
        let ran = end(command.args(words).arg("-o").arg(&file));
        assert!(ran.code != 0, "{words:?}");
        assert_eq!(std::fs::read(&file).expect("is there"), b"before", "{words:?}");
        std::fs::remove_file(&file).expect("removes");
        end(wasmpool("run", prebuilt("primes")).args(words).arg("-o").arg(&file));
        assert!(!file.exists(), "{words:?}");
    }
    // The file has what a command wrote to stdout until it failed, and its stderr is not lost.
    let says = r#"(module (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1) (data (i32.const 0) "\10\00\00\00\03\00\00\00outXerr") (data (i32.const 32) "\14\00\00\00")
        (data (i32.const 16) "outerr") (data (i32.const 40) "\13\00\00\00\03\00\00\00")
        (func (export "_start")
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 64)))
            (drop (call $write (i32.const 2) (i32.const 40) (i32.const 1) (i32.const 64))) unreachable))"#;
    let says = wat(folder.path(), "says.wasm", says);
    let ran = end(wasmpool("run", &says).arg("-o").arg(&file)).expect(1).says("err").says("unreachable");
    assert!(ran.stdout.is_empty() && std::fs::read(&file).expect("is there") == b"out");
    let json = end(wasmpool("run", &says).arg("--json").arg("-o").arg(&file)).expect(1).json();
    assert!(json["stderr"] == "err" && json["file"] == file.to_str().expect("UTF-8"), "{json}");
    // A file that cannot be written is told before the task runs, and an input is not overwritten.
    let mut nowhere = wasmpool("run", prebuilt("primes"));
    end(nowhere.args(["count", "100", "--output", "no/such/folder"]))
        .expect(2)
        .says("cannot write the result to");
    let mut itself = wasmpool("run", prebuilt("echo"));
    end(itself.args(["echo", "--input-file", input, "--output", input])).expect(2).says("the result");
    assert_eq!(std::fs::read(input).expect("is there"), all);
}

/// A module that keeps to no ABI.
const FUNCTIONS_WAT: &str = r#"(module (memory (export "memory") 1)
    (func (export "add") (param $left i32) (param $right i32) (result i32)
        (i32.add (local.get 0) (local.get 1)))
    (func (export "both") (param f64) (result f64 i64) (local.get 0) (i64.const -1))
    (func (export "vector") (param v128)))"#;

#[test]
fn the_arguments_of_a_task_follow_its_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let module = wat(folder.path(), "add.wasm", FUNCTIONS_WAT);
    let run = |words: &[&str]| end(wasmpool("run", &module).args(words));
    for (words, output) in [
        (&["add", "3", "4"][..], "7"),
        (&["add", "-3", "4"], "1"),
        (&["add", "2147483647", "1"], "-2147483648"),
        (&["add", "--input", "[3, 4]"], "7"),
        (&["add", "--input", r#"{"right": 4, "left": 3}"#], "7"),
        (&["both", "0.5"], "[0.5,-1]"),
        (&["both", "-1e300", "--json"], ""),
        // These begin with a hyphen, and are no numbers to the reader of arguments.
        (&["both", "--", "-1e-5"], "[-0.00001,-1]"),
        (&["both", "--", "-inf"], r#"["-inf",-1]"#),
        (&["add", "-0", "5"], "5"),
    ] {
        let ran = run(words).expect(0);
        assert!(output.is_empty() || ran.text() == format!("{output}\n"), "{words:?}: {}", ran.text());
    }
    end(wasmpool("run", prebuilt("primes")).args(["count", "1000"])).expect(0).says("");
    let words = end(wasmpool("run", prebuilt("word_count")).args(["count", "one two two"])).expect(0);
    let piped = end(wasmpool("run", prebuilt("word_count")).args(["count", "--input", r#""one two two""#]));
    assert_eq!(words.text(), piped.expect(0).text());
    for (words, says) in [
        (&["add", "3"][..], "`add(left: i32, right: i32) -> i32` takes 2 arguments, and not 1"),
        (&["add", "3", "4", "5"], "takes 2 arguments, and not 3"),
        (&["add", "3", "x"], "does not fit"),
        (&["add", "3", "1.5"], "does not fit"),
        (&["add", "3", "2147483648"], "does not fit"),
        (&["add", "3", "4", "--input", "[]"], "cannot be used with"),
        (&["vector", "3"], "no task `vector`"),
    ] {
        let ran = run(words);
        assert!(ran.code != 0, "{words:?}");
        ran.says(says);
    }
    end(wasmpool("map", &module).args(["add", "3", "4"])).expect(2).says("lines of stdin");
    end(wasmpool("run", prebuilt("echo")).args(["echo", "x"])).expect(2).says("--input-file");
    let page = end(&mut wasmpool("inspect", &module)).expect(0);
    for says in ["functions over numbers", "add(left: i32, right: i32) -> i32", "both(p0: f64) -> (f64, i64)"]
    {
        assert!(page.text().contains(says), "{}", page.text());
    }
    let page = page.text();
    let (tasks, others) = page.split_once("not callable").expect("there is one");
    assert!(!tasks.contains("vector") && others.contains("vector: (v128) -> ()"), "{page}");
    assert!(others.contains("byte ABI"), "{others}");
    // Functions that are more than there may be, imported, or have a name that cannot be seen, are told apart.
    let many: String = (0..514).map(|number| format!(r#"(func (export "f{number}"))"#)).collect();
    let import =
        r#"(import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))"#;
    let many = format!(
        r#"(module {import} (export "random" (func $random)) (func (export " ") (param i32)) {many})"#
    );
    let page = end(&mut wasmpool("inspect", wat(folder.path(), "many.wasm", &many))).expect(0).text();
    let (tasks, others) = page.split_once("not callable, since they are imported").expect("there is one");
    assert!(tasks.contains("f511()") && !tasks.contains("random("), "{tasks}");
    assert!(others.contains("f512: () -> ()") && others.contains("random: (i32, i32) -> (i32)"), "{others}");
}

#[test]
fn arguments_that_do_not_go_together_are_wrong_usage() {
    let cases = [
        (&["primes", "--input", "1"][..], "name one of `count`"),
        (&["primes", "count", "--input", "1", "--", "x"], "is given arguments, and an input as well"),
        (&["primes", "count", "--input", "1", "--input-file", "x"], "cannot be used with"),
        (&["primes", "count", "--input-file", "no such file"], "cannot read no such file"),
        (&["primes", "count", "--input", "1", "--timeout", "5"], "time unit needed"),
        (&["primes", "count", "--input", "1", "--workers", "0"], "choose 1 to 1024"),
    ];
    for (words, says) in cases {
        end(wasmpool("run", prebuilt(words[0])).args(&words[1..])).expect(2).says(says);
    }
}

#[test]
fn a_worker_that_is_killed_breaks_the_pool() {
    // Compiled beforehand, so that the only child will be the worker.
    end(wasmpool("run", prebuilt("faults")).arg("ok")).expect(0);
    let child = spawn(wasmpool("run", prebuilt("faults")).args(["endless_loop", "--json"]));
    let worker = worker_of(child.id());
    rustix::process::kill_process(worker, rustix::process::Signal::KILL).expect("it is there");
    let json = ended(child).expect(5).json();
    let error = &json["error"];
    assert_eq!((&error["kind"], &error["signal"]), (&json!("broken_pool"), &json!(9)));
    assert_eq!(error["worker_pid"], worker.as_raw_nonzero().get());
}

/// The worker process of a `wasmpool run`, once it computes: one that is still starting
/// would be replaced.
fn worker_of(parent: u32) -> rustix::process::Pid {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let found = std::fs::read_dir("/proc").expect("proc is there").flatten().find_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let arguments = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // State and parent follow the name, which may hold anything; the tenth field from there is the
            // time spent in user mode, in ticks of 10 ms.
            let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            let is_child = *fields.get(1)? == parent.to_string() && arguments.contains("role=worker");
            (is_child && fields.get(11)?.parse::<u64>().ok()? >= 10).then_some(pid)
        });
        if let Some(pid) = found.and_then(rustix::process::Pid::from_raw) {
            return pid;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("no worker computed within {PATIENCE:?}");
}

#[test]
fn a_seed_makes_a_run_repeat_itself() {
    let run = |seed: &[&str]| {
        let mut command = wasmpool("run", prebuilt("faults"));
        end(command.args(["hash_order", "--input", "50", "--json"]).args(seed)).expect(0).json()
    };
    let first = run(&["--deterministic", "7"]);
    let again = run(&["--deterministic", "7"]);
    let other = run(&["--deterministic", "8"]);
    assert_eq!(first["output"], again["output"]);
    assert_eq!(first["report"]["fuel_used"], again["report"]["fuel_used"]);
    assert!(first["report"]["fuel_used"].is_u64() && first["output"] != other["output"]);
    assert!(run(&[])["report"]["fuel_used"].is_null());
}

/// Copies `in/a` to `out/b`: of two directories, as they are given.
const COPY_WAT: &str = r#"(module
    (import "wasi_snapshot_preview1" "path_open"
        (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "ab")
    (data (i32.const 16) "\00\10\00\00\00\10\00\00")
    (func $check (param i32) (if (local.get 0) (then (call $exit (local.get 0)))))
    (func (export "_start")
        (call $check (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1)
            (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 8)))
        (call $check (call $read (i32.load (i32.const 8)) (i32.const 16) (i32.const 1) (i32.const 20)))
        (call $check (call $open (i32.const 4) (i32.const 0) (i32.const 1) (i32.const 1)
            (i32.const 9) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 8)))
        (call $check (call $write (i32.load (i32.const 8)) (i32.const 16) (i32.const 1) (i32.const 12)))))"#;

#[test]
fn a_command_is_given_directories_to_read_and_to_write() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    let from = folder.path().join("in");
    let to = folder.path().join("out");
    for dir in [&from, &to] {
        std::fs::create_dir(dir).expect("is made");
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o777)).expect("has a mode");
    }
    std::fs::write(from.join("a"), "copied").expect("writes");
    std::fs::set_permissions(from.join("a"), std::fs::Permissions::from_mode(0o644)).expect("has a mode");
    let copy = wat(folder.path(), "copy.wasm", COPY_WAT);
    let run = |dirs: &[String]| {
        let mut command = wasmpool("run", &copy);
        dirs.iter().for_each(|dir| {
            command.args(["--dir", dir]);
        });
        end(&mut command)
    };
    let from = from.to_str().expect("text");
    let to = to.to_str().expect("text");
    // The task gets EBADF without a directory, and EPERM with one that is read-only, as it is unless the flag
    // says otherwise.
    run(&[]).expect(8);
    run(&[from.into(), to.into()]).expect(63);
    run(&[from.into(), format!("{to}:/out:ro")]).expect(63);
    run(&[from.into(), format!("{to}:/out:rw")]).expect(0);
    assert_eq!(std::fs::read_to_string(format!("{to}/b")).expect("reads"), "copied");
    std::fs::remove_file(format!("{to}/b")).expect("is there");
    let mut command = wasmpool("map", &copy);
    command.args(["--lines", "--dir", from, "--dir", &format!("{to}:{to}:rw")]);
    end_with(&mut command, "once\n").expect(0);
    assert_eq!(std::fs::read_to_string(format!("{to}/b")).expect("reads"), "copied");
}

#[test]
fn a_directory_that_cannot_be_given_is_wrong_usage() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("missing");
    let missing = missing.to_str().expect("text");
    for (typed, words) in [
        (missing.to_string(), format!("{missing}: No such file")),
        ("data:/in:rx".into(), "HOST[:GUEST[:ro|rw]], not `rx`".into()),
        ("data:rw".into(), "write data:data:rw".into()),
        (":/in".into(), "HOST[:GUEST[:ro|rw]]".into()),
    ] {
        let ended = end(wasmpool("run", prebuilt("csv_stats")).args(["--dir", &typed])).expect(2);
        assert!(ended.stderr.contains(&words), "{}", ended.stderr);
    }
}

/// Recurses as often as its stack allows, or as the input's length says.
const DEEP_WAT: &str = r#"(module
    (memory (export "memory") 4)
    (func (export "wasmpool_abi_v1"))
    (func (export "wasmpool_alloc") (param i32) (result i32) (i32.const 1024))
    (func $down (param i64) (result i64)
        (if (result i64) (i64.eqz (local.get 0))
            (then (i64.const 0))
            (else (i64.add (i64.const 1) (call $down (i64.sub (local.get 0) (i64.const 1)))))))
    (func (export "deep") (param i32 i32) (result i64)
        (i32.store8 (i32.const 1024) (i32.const 0))
        (drop (call $down (i64.const 100000)))
        (i64.or (i64.shl (i64.const 1024) (i64.const 32)) (i64.const 1))))"#;

#[test]
fn the_stack_of_wasm_is_a_limit_like_the_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let deep = wat(folder.path(), "deep.wasm", DEEP_WAT);
    let run = |stack: &[&str]| end(wasmpool("run", &deep).arg("deep").args(stack));
    let trapped = run(&["--wasm-stack", "64KiB", "--json"]).expect(1).json();
    assert_eq!(trapped["error"]["kind"], "trap");
    run(&["--wasm-stack", "4MiB"]).expect(0);
    for size in ["1KiB", "5MiB"] {
        let ended = run(&["--wasm-stack", size]).expect(2);
        assert!(ended.stderr.contains("--wasm-stack"), "{}", ended.stderr);
    }
}

/// The shell that started it may have set a small one.
#[test]
fn a_small_stack_of_the_process_is_raised_or_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let deep = wat(folder.path(), "deep.wasm", DEEP_WAT);
    let under = |limit: &str, stack: &str| {
        let mut command = std::process::Command::new("/bin/sh");
        let line = format!("ulimit -{limit} && exec \"$@\"");
        let run = wasmpool("run", &deep);
        command.args(["-c", &line, "sh"]).arg(run.get_program()).args(run.get_args());
        command.env_clear();
        end(command.args(["deep", "--json", "--wasm-stack", stack]))
    };
    // The limits are in KiB. If only the soft one is small there is room, and an overflow is a trap.
    under("Ss 512", "4MiB").expect(0);
    let trapped = under("Ss 128", "1MiB").expect(1).json();
    assert_eq!(trapped["error"]["kind"], "trap");
    let ended = under("s 3000", "2MiB").expect(2);
    assert!(ended.text().contains("RLIMIT_STACK"), "{}", ended.text());
    under("s 4000", "2MiB").expect(0);
}

#[test]
fn what_json_cannot_say_on_a_full_disk_is_said_on_stderr() {
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").expect("opens");
    for flags in [&["--input", "10", "--json"][..], &["--input", "10"]] {
        let mut command = wasmpool("run", prebuilt("primes"));
        command.arg("count").args(flags).stdin(Stdio::null()).stdout(full()).stderr(Stdio::piped());
        ended(command.spawn().expect("it starts")).expect(5).says("cannot write to stdout: No space left");
    }
}

#[test]
fn code_that_looks_at_its_fuel_is_not_stopped_with_its_worker() {
    for flag in [["--fuel", "1000"], ["--deterministic", "1"]] {
        let mut command = wasmpool("run", prebuilt("primes"));
        command.args(["count", "--input", "10", "--interrupt", "kill"]).args(flag);
        end(&mut command).expect(2).says("--interrupt kill is not for --fuel or --deterministic");
    }
}

#[test]
fn colours_are_as_asked_for_where_the_arguments_are_wrong_too() {
    for (flags, variable, has) in [
        (&["--color", "always"][..], "never", true),
        (&["--color=never"], "always", false),
        (&[], "always", true),
        (&["--", "--color=always"], "auto", false),
    ] {
        let mut command = wasmpool("run", prebuilt("primes"));
        let ended = end(command.env("WASMPOOL_COLOR", variable).arg("--frob").args(flags)).expect(2);
        assert_eq!(ended.stderr.contains('\u{1b}'), has, "{flags:?}: {}", ended.stderr);
    }
}

/// A component: a sum, a division with an error of its own, flags, and a function that nobody can call.
const COMPONENT_WAT: &str = r#"(component
    (core module $m
        (memory (export "memory") 1)
        (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
        (func (export "invert") (param i32) (result i32) (i32.xor (local.get 0) (i32.const 3)))
        (func (export "take") (param i32))
        (func (export "divide") (param i32 i32) (result i32)
            (if (i32.eqz (local.get 1))
                (then (i32.store8 (i32.const 64) (i32.const 1))
                      (i32.store8 (i32.const 68) (i32.const 1))
                      (i32.store (i32.const 72) (local.get 0)))
                (else (i32.store8 (i32.const 64) (i32.const 0))
                      (i32.store (i32.const 68) (i32.div_s (local.get 0) (local.get 1)))))
            (i32.const 64)))
    (core instance $i (instantiate $m))
    (type $fault' (variant (case "other") (case "by-zero" s32)))
    (export $fault "fault" (type $fault'))
    (type $style' (flags "bold" "dashed"))
    (export $style "style" (type $style'))
    (type $handle' (resource (rep i32)))
    (export $handle "handle" (type $handle'))
    (func $add (param "left" s32) (param "right" s32) (result s32) (canon lift (core func $i "add")))
    (func $invert (param "style" $style) (result $style) (canon lift (core func $i "invert")))
    (func $take (param "handle" (own $handle)) (canon lift (core func $i "take")))
    (func $divide (param "a" s32) (param "b" s32) (result (result s32 (error $fault)))
        (canon lift (core func $i "divide") (memory $i "memory")))
    (component $maths
        (import "add" (func $add (param "left" s32) (param "right" s32) (result s32)))
        (export "add" (func $add)))
    (instance $maths (instantiate $maths (with "add" (func $add))))
    (export "demo:maths/sums@1.2.0" (instance $maths))
    (export "invert" (func $invert))
    (export "take" (func $take))
    (export "divide" (func $divide)))"#;

#[test]
fn a_components_functions_are_called_by_name_with_words_json_or_wave() {
    let folder = tempfile::tempdir().expect("a folder");
    let module = wat(folder.path(), "maths.wasm", COMPONENT_WAT);
    let run = |words: &[&str]| end(wasmpool("run", &module).args(words));
    for (words, output) in [
        (&["add", "3", "4"][..], "7"),
        (&["demo:maths/sums#add", "3", "4"], "7"),
        (&["demo:maths/sums@1.2.0#add", "-3", "4"], "1"),
        (&["add(3, -4)"], "-1"),
        (&["demo:maths/sums#add(2147483647, 1)"], "-2147483648"),
        (&["invert({bold})"], r#"{"bold":false,"dashed":true}"#),
        (&["invert({})"], r#"{"bold":true,"dashed":true}"#),
        (&["invert", r#"{"bold": true, "dashed": true}"#], r#"{"bold":false,"dashed":false}"#),
        (&["divide", "7", "-2"], "-3"),
    ] {
        assert_eq!(run(words).expect(0).text(), format!("{output}\n"), "{words:?}");
    }
    for (words, says) in [
        (&["divide", "7", "0"][..], "by-zero(7)"),
        (&["take", "1"], "no task `take`"),
        (&["add(1)"], "does not fit"),
        (&["add(1, x)"], "does not fit"),
        (&["add(1, 2)", "3"], "between parentheses"),
        (&["subtract(1, 2)"], "no task `subtract`"),
    ] {
        let ran = run(words);
        assert!(ran.code != 0, "{words:?}");
        ran.says(says);
    }
    let failed = run(&["divide(9, 0)", "--json"]);
    let line: serde_json::Value = serde_json::from_str(&failed.text()).expect("is JSON");
    assert_eq!(line["error"]["kind"], "guest");
    assert_eq!(line["error"]["data"], serde_json::json!({"by-zero": 9}));
    let inputs = "[1, 2]\n[3, 4]\n";
    let mapped = end_with(wasmpool("map", &module).args(["add", "--jsonl"]), inputs).expect(0);
    assert_eq!(mapped.text().lines().count(), 2, "{}", mapped.text());
    end(wasmpool("map", &module).args(["add(1, 2)"])).expect(2).says("lines of stdin");
}

#[test]
fn inspect_says_of_a_component_what_it_has_and_what_cannot_be_called() {
    let folder = tempfile::tempdir().expect("a folder");
    let module = wat(folder.path(), "maths.wasm", COMPONENT_WAT);
    let page = end(&mut wasmpool("inspect", &module)).expect(0);
    for says in [
        "component",
        "demo:maths/sums@1.2.0#add(left: i32, right: i32) -> i32",
        "divide(a: i32, b: i32) -> Result<i32, fault>",
        "enum fault { other, by-zero(i32) }",
        "struct style { bold: bool, dashed: bool }",
        "take: of its parameters, a resource cannot be handed to another process",
    ] {
        assert!(page.text().contains(says), "{says}: {}", page.text());
    }
    let json = end(wasmpool("inspect", &module).arg("--json")).expect(0);
    let json: serde_json::Value = serde_json::from_str(&json.text()).expect("is JSON");
    assert_eq!((&json["kind"], &json["form"]), (&"component".into(), &"component".into()));
    assert_eq!(json["uncallable"][0]["export"], "take");
    assert_eq!(json["tasks"][2]["error"], "fault");
    // One that cannot be loaded says what it would need.
    let http = wat(
        folder.path(),
        "http.wasm",
        r#"(component (import "wasi:http/types@0.2.3" (instance (export "f" (func)))))"#,
    );
    let page = end(&mut wasmpool("inspect", &http));
    assert!(page.code != 0 && page.text().contains("tasks have no network"), "{}", page.text());
}
