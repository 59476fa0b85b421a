//! Log files: two formats, rotation, limits, and whose each line is.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::{end, end_with, prebuilt, wasmpool, wat};
use crate::say as guest;

fn say(folder: &Path, flags: &[&str]) -> Command {
    let module = wat(folder, "say.wasm", &guest::text(2));
    let mut command = wasmpool("map", module);
    command.args(["say", "--workers", "4", "--log-file"]).arg(folder.join("log")).args(flags);
    command
}

fn words(count: usize) -> String {
    (0..count).map(|n| format!("word{n}\n")).collect()
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path.as_ref())
        .unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

#[test]
fn a_hundred_tasks_lines_in_a_file_are_whole_and_say_whose_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let ended = end_with(&mut say(folder.path(), &["-q", "--log-format", "json"]), words(100)).expect(0);
    assert_eq!(ended.stderr, "", "-q silences the terminal, not the file");
    let mut seen = HashMap::<String, u32>::new();
    for line in read(folder.path().join("log")).lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        if line["target"] != "wasmpool::guest" {
            continue;
        }
        let number: usize = line["label"]
            .as_str()
            .and_then(|label| label.strip_prefix("line "))
            .and_then(|n| n.parse().ok())
            .expect("a label");
        let word = format!("word{}", number - 1);
        assert_eq!(line["message"], format!("{word}-{word}"));
        assert!(line["task"].is_u64() && line["worker_pid"].is_u64() && line["source"] == "stderr", "{line}");
        assert!(line["module"].as_str().is_some_and(|module| module.starts_with("say.wasm")));
        *seen.entry(word).or_default() += 1;
    }
    assert!(seen.len() == 100 && seen.values().all(|count| *count == 20), "{seen:?}");
}

#[test]
fn text_lines_have_time_level_and_task_and_a_file_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    for _ in 0..2 {
        end_with(&mut say(folder.path(), &[]), "hello\n").expect(0);
    }
    let text = read(folder.path().join("log"));
    let lines: Vec<_> = text.lines().filter(|line| line.ends_with(" hello-hello")).collect();
    assert_eq!(lines.len(), 40);
    assert!(
        lines[0].contains("Z INFO wasmpool::guest: task=1 label=\"line 1\" module=\"say.wasm "),
        "{}",
        lines[0]
    );
}

#[test]
fn a_file_that_is_full_begins_anew_and_so_many_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = ["-q", "--log-rotate", "size=4KiB", "--log-keep", "2"];
    end_with(&mut say(folder.path(), &flags), words(20)).expect(0);
    let size = |name: &str| std::fs::metadata(folder.path().join(name)).map(|metadata| metadata.len());
    for name in ["log", "log.1", "log.2"] {
        assert!((1..=4096).contains(&size(name).expect(name)), "{name}");
    }
    assert!(size("log.3").is_err());
}

#[test]
fn a_new_day_begins_a_new_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log");
    std::fs::write(&log, "of another day\n").expect("writes");
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    std::fs::File::options()
        .write(true)
        .open(&log)
        .and_then(|file| file.set_modified(long_ago))
        .expect("sets");
    end_with(&mut say(folder.path(), &["-q", "--log-rotate", "daily"]), "hello\n").expect(0);
    assert_eq!(read(folder.path().join("log.2001-09-09")), "of another day\n");
    assert!(read(log).contains("hello-hello"));
}

#[test]
fn what_is_over_the_rate_is_dropped_and_the_file_says_how_much() {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = ["--log-rate", "100", "--log-format", "json"];
    let ended = end_with(&mut say(folder.path(), &flags), words(10)).expect(0);
    let lines: Vec<Value> =
        read(folder.path().join("log")).lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let dropped: u64 = lines.iter().filter_map(|line| line["dropped_records"].as_u64()).sum();
    let written = lines.iter().filter(|line| line["target"] == "wasmpool::guest").count() as u64;
    assert!(dropped > 100 && dropped + written == 200, "{dropped} dropped, {written} written");
    ended.says(&format!("0 failed, {dropped} log records dropped; "));
}

#[test]
fn a_file_that_cannot_be_opened_and_settings_that_cannot_be_are_wrong_usage() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = |flags: &[&str], says: &str| {
        let mut command = wasmpool("inspect", prebuilt("primes"));
        end(command.current_dir(folder.path()).args(flags)).expect(2).says(says);
    };
    refused(&["--log-file", "no/such/log"], "its folder must be there");
    refused(&["--log-rotate", "weekly"], "daily");
    refused(&["--log-rotate", "size=3"], "1KiB");
    refused(&["--log-format", "xml"], "json");
    refused(&["--log-rate", "0"], "from 1");
    refused(&["--log-keep", "many"], "invalid");
}

#[test]
fn workers_say_what_they_are_asked_for_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |flags: &[&str]| {
        let mut command = wasmpool("run", prebuilt("primes"));
        command.current_dir(folder.path()).args(["count", "--input", "10"]).args(flags);
        end(&mut command).expect(0).stderr
    };
    assert_eq!(run(&[]), "");
    let of_workers = |stderr: String| {
        // The host has words of its own for them, without a number in front.
        let lines = stderr.lines().filter_map(|line| line.strip_prefix("debug: worker "));
        let lines = lines.filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
        lines
            .map(|line| line.trim_start_matches(|c: char| c.is_ascii_digit()).to_string())
            .collect::<Vec<_>>()
    };
    let said = of_workers(run(&["--worker-log", "debug"]));
    assert!(
        said.iter().any(|line| line.starts_with(", task 1: a module is mapped {\"module\":")),
        "{said:?}"
    );
    assert!(!of_workers(run(&["-v"])).is_empty());
    assert!(of_workers(run(&["-v", "--worker-log", "off"])).is_empty());
    assert!(!of_workers(run(&["--verbose"])).is_empty());
    let engines = |flags: &[&str]| run(flags).lines().any(|line| line.contains(", wasmtime::"));
    assert!(engines(&["--engine-log", "debug"]) && !engines(&["-v"]));
    run(&["-q", "--worker-log", "debug", "--log-file", "log", "--log-format", "json"]);
    let lines: Vec<Value> =
        read(folder.path().join("log")).lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let mapped = lines.iter().find(|line| line["message"] == "a module is mapped").expect("it is told");
    assert_eq!((&mapped["target"], &mapped["task"]), (&"wasmpool::worker".into(), &1.into()));
    assert!(mapped["worker_pid"].is_u64() && mapped["fields"]["took_us"].is_u64(), "{mapped}");
}

#[test]
fn what_a_task_logs_beyond_its_limit_is_counted_on_stderr() {
    let limit = ["--log-limit", "1KiB"];
    let mut run = wasmpool("run", prebuilt("echo"));
    let ended = end(run.args(["log_lines", "--input", "1000"]).args(limit)).expect(0);
    assert_eq!(ended.text(), "1000\n");
    ended.says("bytes of the task's logs were dropped: raise --log-limit");
    let quiet =
        end(wasmpool("run", prebuilt("echo")).args(["log_lines", "--input", "1000", "-q"]).args(limit));
    assert_eq!(quiet.expect(0).stderr, "");
    let mut map = wasmpool("map", prebuilt("echo"));
    end_with(map.arg("log_lines").args(limit), "1000\n1000\n")
        .expect(0)
        .says("bytes of logs over --log-limit dropped");
}
