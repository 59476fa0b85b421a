//! Runs the command where the system gives it few descriptors.

use std::collections::HashSet;
use std::process::Command;

use crate::harness::{Ended, cache, end_with, prebuilt};

/// This many rounds of `spin` take some milliseconds, so that more than one worker is wanted.
const ROUNDS: &str = "3000000";

const INPUTS: usize = 64;

/// Runs `map` with 16 workers, after the shell has set limits.
fn map_within(limits: &str) -> Ended {
    let inputs = format!("{ROUNDS}\n").repeat(INPUTS);
    let script = format!("{limits} && exec \"$0\" \"$@\"");
    let mut command = Command::new("/bin/sh");
    command.env_clear().args(["-c", &script, env!("CARGO_BIN_EXE_wasmpool"), "map"]).arg(prebuilt("echo"));
    command.args(["spin", "--lines", "--workers", "16", "--cache-dir"]).arg(cache());
    end_with(&mut command, inputs)
}

fn warnings(ended: &Ended) -> usize {
    ended.stderr.lines().filter(|line| line.contains("worker can be started")).count()
}

#[test]
fn a_low_soft_limit_of_descriptors_is_raised_to_the_hard_one() {
    let ended = map_within("ulimit -Sn 40").expect(0);
    assert_eq!(ended.json_lines().iter().filter(|line| line["ok"] == true).count(), INPUTS);
    assert_eq!(warnings(&ended), 0, "{}", ended.stderr);
}

#[test]
fn a_low_hard_limit_of_descriptors_means_fewer_workers_which_is_said_once() {
    for limit in [28, 40, 64] {
        let ended = map_within(&format!("ulimit -n {limit}")).expect(0);
        assert_eq!(ended.json_lines().iter().filter(|line| line["ok"] == true).count(), INPUTS);
        assert_eq!(warnings(&ended), 1, "{limit}: {}", ended.stderr);
        ended.says("ulimit -n");
    }
}

#[test]
fn too_few_descriptors_to_begin_with_are_an_error_that_names_the_limit() {
    for limit in [12, 14, 16] {
        let ended = map_within(&format!("ulimit -n {limit}")).expect(5);
        // The cache, the compiler and the error may each say it, but it is not said for each input.
        let said = ended.stderr.lines().filter(|line| line.contains("ulimit -n")).count();
        assert!((1..=4).contains(&said), "{limit}: {}", ended.stderr);
    }
}

/// Workers that could hold no second module were replaced after each task.
#[test]
fn with_few_descriptors_workers_stay_or_the_error_names_the_limit() {
    // The module is in the cache then: a compiler has its own test.
    map_within("true").expect(0);
    for limit in (16..=64).step_by(4) {
        let inputs = "100\n".repeat(INPUTS);
        let script = format!("ulimit -n {limit} && exec \"$0\" \"$@\"");
        let mut command = Command::new("/bin/sh");
        command
            .env_clear()
            .args(["-c", &script, env!("CARGO_BIN_EXE_wasmpool"), "map"])
            .arg(prebuilt("echo"));
        command.args(["spin", "--lines", "--report", "--workers", "4", "--cache-dir"]).arg(cache());
        let ended = end_with(&mut command, inputs);
        if ended.code == 5 && limit < 24 {
            ended.says("ulimit -n");
            continue;
        }
        let lines = ended.expect(0).json_lines();
        let pids: HashSet<_> =
            lines.iter().filter_map(|line| line["report"]["worker_pid"].as_u64()).collect();
        assert!((1..=4).contains(&pids.len()), "{limit}: {} workers for {INPUTS} tasks", pids.len());
    }
}

/// The module is in the cache, so that it is the task's own memory that finds no room.
#[test]
fn a_memory_without_room_names_the_limit_of_addresses() {
    let run = |limits: &str| {
        let script = format!("{limits} && exec \"$0\" \"$@\"");
        let mut command = Command::new("/bin/sh");
        command
            .env_clear()
            .args(["-c", &script, env!("CARGO_BIN_EXE_wasmpool"), "run"])
            .arg(prebuilt("primes"));
        command.args(["count", "--input", "10", "--cache-dir"]).arg(cache());
        end_with(&mut command, "")
    };
    run("true").expect(0);
    let ended = run("ulimit -v 2000000");
    assert_ne!(ended.code, 0);
    ended.says("RLIMIT_AS is 2048000000: raise it (ulimit -v)").says("KiB are enough");
}
