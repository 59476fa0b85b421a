//! `--report`: what is not known is `null`, and what never began has no attempts.

use std::io::Write as _;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::ends::{FOREVER, children, wait_until_busy};
use crate::harness::{end_with, ended, prebuilt, spawn, wasmpool};

/// The fields that only a worker could have filled.
const BY_THE_WORKER: [&str; 4] = ["output_bytes", "log_bytes_dropped", "refusals", "peak_memory_bytes"];

fn is_unknown(report: &Value) {
    for key in BY_THE_WORKER {
        assert_eq!(report.get(key), Some(&Value::Null), "{key}: {report}");
    }
}

#[test]
fn inputs_that_a_broken_pool_never_began_have_no_attempts_and_a_killed_one_no_output() {
    let mut command = wasmpool("map", prebuilt("echo"));
    command.args(["spin", "--lines", "--report", "--workers", "1"]).stdin(Stdio::piped());
    let mut child = spawn(&mut command);
    let mut stdin = child.stdin.take().expect("a pipe");
    write!(stdin, "{FOREVER}\n1\n2\n").expect("it reads");
    wait_until_busy(&child);
    for pid in children(&child) {
        let pid = Pid::from_raw(pid.parse().expect("a number")).expect("a pid");
        // The signal fails for a process that is gone already.
        let _ = kill_process(pid, Signal::KILL);
    }
    drop(stdin);
    let lines = ended(child).expect(5).json_lines();
    let reports: Vec<_> = lines.iter().map(|line| &line["report"]).collect();
    assert!(!reports.is_empty(), "{lines:?}");
    for (report, attempts) in reports.iter().zip([1, 0, 0]) {
        is_unknown(report);
        assert_eq!(report["attempts"], attempts, "{report}");
        assert_eq!(report["run_us"] == 0, attempts == 0, "{report}");
        assert_eq!(report["worker_pid"].is_null(), attempts == 0, "{report}");
    }
}

#[test]
fn a_task_whose_worker_was_killed_for_its_timeout_has_no_output_and_one_attempt_each_time() {
    let spin = |flags: &[&str]| {
        let mut command = wasmpool("map", prebuilt("echo"));
        command.args(["spin", "--lines", "--report", "--interrupt", "kill", "--timeout", "50ms"]).args(flags);
        end_with(&mut command, format!("{FOREVER}\n")).expect(4).json_lines().remove(0)["report"].clone()
    };
    for (flags, attempts) in [(&[][..], 1), (&["--retries", "2"], 3)] {
        let report = spin(flags);
        is_unknown(&report);
        assert_eq!(report["attempts"], attempts, "{report}");
    }
}

#[test]
fn an_input_that_was_never_submitted_has_no_report_and_one_that_ran_has_one() {
    let mut command = wasmpool("map", prebuilt("primes"));
    command.args(["count", "--lines", "--report"]);
    let lines = end_with(&mut command, "x\n10\n").expect(4).json_lines();
    assert_eq!(lines[0].get("report"), Some(&Value::Null), "{}", lines[0]);
    let report = &lines[1]["report"];
    assert_eq!((&report["attempts"], &report["log_bytes_dropped"]), (&json!(1), &json!(0)), "{report}");
    assert_eq!(report["refusals"]["count"], 0, "{report}");
    assert!(report["output_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{report}");
}
