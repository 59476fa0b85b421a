//! Errors say which limit it is and what has set it, and their advice helps when it is followed.

use std::path::Path;
use std::process::Command;

use crate::ends::FOREVER;
use crate::harness::{Ended, cache, end, end_with, prebuilt, wasmpool, wat};

/// Runs the command in a shell that has set limits; `to` is where its stdout goes, if that is a file.
fn within(limits: &str, args: &[&str], to: Option<&Path>, stdin: impl Into<Vec<u8>>) -> Ended {
    let mut command = Command::new("/bin/sh");
    let script = match to {
        Some(_) => format!("{limits} && to=$1 && shift && exec \"$@\" > \"$to\""),
        None => format!("{limits} && shift && exec \"$@\""),
    };
    command.env_clear().env("PATH", "/usr/bin:/bin").args(["-c", &script, "sh"]);
    command.arg(to.unwrap_or(Path::new("-"))).arg(env!("CARGO_BIN_EXE_wasmpool")).args(args);
    end_with(command.arg("--cache-dir").arg(cache()), stdin)
}

/// Returns more lines than there is room for, each with a result.
fn many_lines() -> String {
    (0..40_000).map(|n| format!("{n}\n")).collect()
}

/// Files have at most 1 MiB, as a shell counts: machine code and rings have room.
const SMALL_FILES: &str = "ulimit -f 2048";

fn names_the_limit_of_files(said: &str) {
    for part in ["File too large", "RLIMIT_FSIZE is 1048576", "ulimit -f"] {
        assert!(said.contains(part), "no {part:?} in: {said}");
    }
}

#[test]
fn whatever_is_written_beyond_the_limit_of_files_names_the_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let echo = prebuilt("echo").display().to_string();
    end(wasmpool("run", &echo).args(["echo", "--input", "\"x\""])).expect(0);
    let map = ["map", &echo, "echo", "--lines"];
    let ended = within(SMALL_FILES, &map, Some(&path("stdout")), many_lines()).expect(5);
    names_the_limit_of_files(&ended.stderr);
    for flag in ["--joblog", "--trace"] {
        let file = path(flag).display().to_string();
        let ended = within(SMALL_FILES, &[&map[..], &[flag, &file]].concat(), None, many_lines()).expect(5);
        names_the_limit_of_files(&ended.stderr);
    }
    let outputs = path("outputs").display().to_string();
    let line = "x".repeat(2 << 20);
    let ended = within(SMALL_FILES, &[&map[..], &["--output-dir", &outputs]].concat(), None, line).expect(4);
    names_the_limit_of_files(&ended.stderr);
    names_the_limit_of_files(&ended.json_lines()[0]["error"]["message"].to_string());
    // A page of the manual has more than 512 bytes.
    let pages = path("pages").display().to_string();
    let ended = within("ulimit -f 1", &["man", "--dir", &pages], None, "").expect(5);
    ended.says("RLIMIT_FSIZE is 512").says("ulimit -f");
}

/// The module's file has rested for long, so that its digest is known the second time, where the file system allows that.
#[test]
fn a_damaged_cache_entry_is_told_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wasmpool"));
        command.env_clear().arg("run").arg(prebuilt("primes")).args([
            "count",
            "--input",
            "10",
            "--cache-dir",
        ]);
        end(command.arg(folder.path()))
    };
    run().expect(0);
    run().expect(0);
    for entry in std::fs::read_dir(folder.path()).expect("reads").flatten() {
        if entry.path().extension().is_some_and(|kind| kind == "module") {
            let bytes = std::fs::read(entry.path()).expect("reads");
            std::fs::write(entry.path(), &bytes[..bytes.len() / 2]).expect("writes");
        }
    }
    let ended = run().expect(0);
    assert_eq!(ended.stderr.matches("a cache entry is not used").count(), 1, "{}", ended.stderr);
}

#[test]
fn where_the_sandbox_cannot_be_tried_the_doctor_looks_at_the_machine_and_says_why_in_one_line() {
    for (limit, says) in [
        ("ulimit -s 512", "tasks need 2048 KiB of stack, and the hard limit (RLIMIT_STACK) is 512 KiB"),
        ("ulimit -d 50000", "RLIMIT_DATA is 51200000: raise it (ulimit -d)"),
        ("ulimit -n 10", "RLIMIT_NOFILE is 10: raise it (ulimit -n)"),
    ] {
        let ended = within(limit, &["doctor"], None, "").expect(5).says(says);
        assert!(ended.text().contains("this machine") && ended.text().contains("CPUs"), "{}", ended.text());
        assert!(!ended.stderr.contains("not known") && !ended.stderr.contains("\\n"), "{}", ended.stderr);
        let json = within(limit, &["doctor", "--json"], None, "").expect(5).json();
        assert_eq!(json["ok"], false);
        assert!(json["machine"].is_array() && json["error"]["message"].as_str().is_some(), "{json}");
    }
}

#[test]
fn with_few_descriptors_the_doctor_goes_on_and_says_what_is_not_attacked() {
    for limit in [16, 18, 20] {
        let ended = within(&format!("ulimit -n {limit}"), &["doctor"], None, "").expect(0);
        let page = ended.text();
        let said = format!("RLIMIT_NOFILE is {limit}: raise it (ulimit -n)");
        assert!(page.contains("not attacked") && page.contains(&said), "{page}");
        assert!(!page.contains("not known"), "{page}");
    }
    let page = within("ulimit -n 64", &["doctor"], None, "").expect(0).text();
    assert!(!page.contains("not attacked"), "{page}");
}

#[test]
fn with_less_stack_than_tasks_have_by_default_the_doctor_tries_the_sandbox_and_says_what_tasks_want() {
    let ended = within("ulimit -s 1500", &["doctor", "--only", "seccomp"], None, "");
    let page = ended.text();
    assert!(page.contains("attacks") && page.contains("`ulimit -Hs` is 2048"), "{page}{}", ended.stderr);
    assert!(page.contains("--wasm-stack 476KiB"), "{page}");
    let run = |flags: &[&str]| {
        let primes = prebuilt("primes").display().to_string();
        let run = ["run", &primes, "count", "--input", "10"];
        within("ulimit -s 1500", &[&run[..], flags].concat(), None, "")
    };
    run(&[]).expect(2).says("--wasm-stack");
    run(&["--wasm-stack", "476KiB"]).expect(0);
}

#[test]
fn too_few_descriptors_are_told_in_the_commands_words() {
    let primes = prebuilt("primes").display().to_string();
    for limit in 9..16 {
        let run = ["run", &primes, "count", "--input", "10"];
        let ended = within(&format!("ulimit -n {limit}"), &run, None, "");
        assert!(ended.code == 5 || ended.code == 0, "{limit}: {}", ended.stderr);
        assert!(!ended.stderr.contains("handle"), "{limit}: {}", ended.stderr);
        if ended.code == 5 {
            ended.says("ulimit -n");
        }
    }
}

#[test]
fn of_an_option_that_is_given_twice_the_last_one_counts() {
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wasmpool"));
        end(command.env_clear().args(args).arg("--cache-dir").arg(cache()))
    };
    let primes = prebuilt("primes").display().to_string();
    for flags in [
        &["--input", "x", "--input", "10"][..],
        &["--input=10", "--timeout", "1ns", "--timeout", "10s"],
        &["--input=10", "--workers=3", "--workers=2", "--quiet", "--quiet", "--json", "--json"],
        &["--input=10", "--sandbox", "off", "--sandbox", "best-effort"],
        &["--input=10", "--no-cache", "--no-cache", "--cache-dir", "/nowhere"],
    ] {
        let ended = run(&[&["run", &primes, "count"][..], flags].concat()).expect(0);
        assert!(ended.text().contains('4'), "{flags:?}: {}", ended.text());
    }
    run(&["run", &primes, "count", "--input", "10", "--timeout", "10s", "--timeout", "soon"]).expect(2);
    // A flag may stand before the verb and behind it.
    let config = run(&["--workers", "3", "config", "--json", "--workers", "2"]).expect(0).json();
    let workers = config["settings"].as_array().expect("a list").iter().find(|one| one["key"] == "workers");
    assert_eq!(workers.expect("is there")["value"], "2");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("settings.toml");
    std::fs::write(&file, "workers = 5\n").expect("writes");
    let file = file.display().to_string();
    let config = run(&["--config", "/nowhere", "config", "--json", "--config", &file]).expect(0).json();
    assert!(config["settings"].to_string().contains(&file), "{config}");
}

#[test]
fn a_wrong_variable_is_told_by_its_own_name_and_a_wrong_flag_by_its_own() {
    let run = |verb: &str, variable: (&str, &str), flags: &[&str]| {
        let mut command = wasmpool(verb, prebuilt("primes"));
        end(command.env(variable.0, variable.1).args(["count"]).args(flags))
    };
    for (name, value) in [
        ("WASMPOOL_TIMEOUT", "soon"),
        ("WASMPOOL_MEMORY", "0"),
        ("WASMPOOL_WORKERS", "0"),
        ("WASMPOOL_COLOR", "green"),
        ("WASMPOOL_WASM_STACK", "1KiB"),
        ("WASMPOOL_INPUT_LIMIT", "1TiB"),
        ("WASMPOOL_OUTPUT_LIMIT", "2GiB"),
        ("WASMPOOL_LOG_RATE", "none"),
        ("WASMPOOL_SANDBOX", "perhaps"),
    ] {
        let ended = run("run", (name, value), &["--input", "10"]).expect(2).says(name).says(value);
        let flag = format!("--{}", name.trim_start_matches("WASMPOOL_").to_lowercase().replace('_', "-"));
        assert!(!ended.stderr.contains(&flag), "{}", ended.stderr);
        // The flag goes before the variable, and is itself what is wrong.
        let ended = run("run", (name, value), &["--input", "10", &format!("{flag}=?")]).expect(2).says(&flag);
        assert!(!ended.stderr.contains(name), "{}", ended.stderr);
    }
    // An error that comes later than the arguments' own.
    let ended = run("map", ("WASMPOOL_MAP_MEMORY", "1MiB"), &["--lines"]).expect(2);
    ended.says("WASMPOOL_MAP_MEMORY 1.0 MiB has no room");
}

#[test]
fn config_refuses_a_value_that_the_command_it_is_for_would_refuse() {
    let config = |name: &str, value: &str, flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wasmpool"));
        end(command.env_clear().env(name, value).arg("config").args(flags))
    };
    for (name, value) in [
        ("WASMPOOL_TIMEOUT", "soon"),
        ("WASMPOOL_MEMORY", "0"),
        ("WASMPOOL_WASM_STACK", "1KiB"),
        ("WASMPOOL_PROGRESS", "often"),
        ("WASMPOOL_MAP_MEMORY", "much"),
        ("WASMPOOL_WORKERS", "0"),
        ("WASMPOOL_WORKERS", "1000000"),
    ] {
        for flags in [&[][..], &["--json"]] {
            let ended = config(name, value, flags).expect(2);
            let said = format!("{}{}", ended.text(), ended.stderr);
            assert!(said.contains(name) && said.contains(value) && !said.contains("for '--"), "{said}");
        }
    }
    config("WASMPOOL_TIMEOUT", "5s", &[]).expect(0);
}

/// A command that reads its stdin to the end, as long as that is at most 4 KiB, and says how many bytes it had.
const COUNTS: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (func (export "_start")
        (i32.store (i32.const 0) (i32.const 1024))
        (i32.store (i32.const 4) (i32.const 4096))
        (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
        (call $exit (i32.load (i32.const 8)))))"#;

#[test]
fn the_limit_of_inputs_counts_their_own_bytes_and_not_what_is_added_on_the_way() {
    let folder = tempfile::tempdir().expect("a folder");
    let counts = wat(folder.path(), "counts.wasm", COUNTS);
    let map = |module: &Path, args: &[&str], stdin: &str| {
        let mut command = wasmpool("map", module);
        end_with(command.args(args).args(["--input-limit", "5B"]), stdin)
    };
    // A command's line has its line feed back.
    let lines = map(&counts, &["--lines"], "12345\n").json_lines();
    assert_eq!(lines[0]["exit_code"], 6, "{}", lines[0]);
    map(&counts, &["--lines"], "123456\n")
        .expect(4)
        .says("line 1 is longer than 5 bytes: raise --input-limit");
    // A text travels with its length, and numbers are longer than they are typed.
    map(&prebuilt("word_count"), &["--lines"], "a b c\n").expect(0);
    map(&prebuilt("word_count"), &["--lines"], "a b cd\n").expect(4).says("--input-limit");
    map(&prebuilt("primes"), &["count", "--jsonl"], "99999\n").expect(0);
    let run = |input: &str| {
        let mut command = wasmpool("run", prebuilt("word_count"));
        end(command.args(["--input-limit", "5B", "--input", input]))
    };
    run("\"a b\"").expect(0);
    run("\"a bc\"").expect(2).says("the input is longer than 5 bytes: raise --input-limit");
}

#[test]
fn advice_about_shared_files_and_the_memory_of_a_map_helps_when_it_is_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let sparse = folder.path().join("sparse");
    std::fs::File::create(&sparse).and_then(|file| file.set_len((1 << 30) + 1)).expect("a file with a hole");
    let ended =
        end(wasmpool("run", prebuilt("primes")).args(["count", "--input", "1", "--share"]).arg(&sparse));
    let ended = ended.expect(2).says("is longer than 1073741824 bytes, the most that tasks can share");
    assert!(!ended.stderr.contains("--input-limit"), "{}", ended.stderr);

    let map = |flags: &[&str], stdin: &str| {
        let mut command = wasmpool("map", prebuilt("word_count"));
        end_with(command.arg("--lines").args(flags), stdin)
    };
    let advised = |said: &str| {
        let (_, rest) = said.split_once("give --map-memory ").unwrap_or_else(|| panic!("no advice: {said}"));
        rest.split_once(" or more").expect("an amount").0.to_string()
    };
    for memory in ["1B", "1MiB", "64MiB"] {
        let ended = map(&["--map-memory", memory], "a\n").expect(2);
        // A lower limit of outputs does not help where errors have no room.
        assert_eq!(ended.stderr.contains("--output-limit"), memory == "64MiB", "{}", ended.stderr);
        map(&["--map-memory", &advised(&ended.stderr)], "a\n").expect(0);
    }
    map(&["--map-memory", "64MiB", "--output-limit", "1MiB"], "a\n").expect(0);
    let long = format!("a{}\n", " ".repeat(3 << 20));
    let memory = ["--output-limit", "1MiB", "--map-memory", "3MiB"];
    let ended = map(&memory, &long).expect(4);
    map(&["--output-limit", "1MiB", "--map-memory", &advised(&ended.stderr)], &long).expect(0);
}

/// The kernel ends a worker at the limit that it inherits, and its error says so, every time.
#[test]
fn a_worker_at_its_inherited_limit_of_cpu_time_is_told_by_that_limit() {
    let echo = prebuilt("echo").display().to_string();
    let run = ["run", &echo, "spin", "--input", FOREVER];
    let ended = within("ulimit -t 1", &run, None, "").expect(5).says("RLIMIT_CPU is 1 s").says("ulimit -t");
    assert!(!ended.stderr.contains("out-of-memory"), "{}", ended.stderr);
}
