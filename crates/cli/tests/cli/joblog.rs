//! The job log: whatever ends the command, nothing that is recorded is done twice, and nothing is lost.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{PATIENCE, end, end_with, ended, prebuilt, spawn, wasmpool};

fn count(log: &Path, flags: &[&str]) -> Command {
    let mut command = wasmpool("map", prebuilt("primes"));
    command.args(["count", "--lines", "--joblog"]).arg(log).args(flags);
    command
}

/// Sequence numbers and exit codes, in the order of the records.
fn records(log: &Path) -> Vec<(u64, i32)> {
    let text = std::fs::read_to_string(log).expect("reads");
    let mut lines = text.lines();
    assert!(lines.next().is_some_and(|header| header.starts_with("Seq\tHost\tStarttime\tJobRuntime\t")));
    lines
        .map(|line| {
            let columns: Vec<_> = line.split('\t').collect();
            assert_eq!(columns.len(), 10, "{line}");
            (columns[0].parse().expect(line), columns[6].parse().expect(line))
        })
        .collect()
}

fn log_in(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("jobs.tsv")
}

#[test]
fn a_log_has_gnu_parallels_columns_and_a_record_for_each_input() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = log_in(&folder);
    end_with(&mut count(&log, &[]), "10\nx\n30\n").expect(4);
    assert_eq!(records(&log), [(1, 0), (2, 2), (3, 0)]);
    let text = std::fs::read_to_string(&log).expect("reads");
    assert_eq!(text.lines().nth(3).and_then(|line| line.split('\t').nth(8)), Some("30"));
}

#[test]
fn what_is_recorded_is_left_out_and_failures_are_run_again_only_on_demand() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = log_in(&folder);
    end_with(&mut count(&log, &[]), "10\nx\n").expect(4);
    let resumed = end_with(&mut count(&log, &["--resume"]), "10\nx\n30\n").expect(0);
    assert_eq!(resumed.json_lines().len(), 1);
    resumed.says("1 input: 1 ok, 0 failed, 2 done before");
    let again = end_with(&mut count(&log, &["--resume-failed"]), "10\nx\n30\n").expect(4);
    assert_eq!(again.json_lines()[0]["line"], 2);
    assert_eq!(records(&log), [(1, 0), (2, 2), (3, 0), (2, 2)]);
}

#[test]
fn a_log_that_is_there_is_neither_overwritten_nor_continued_unasked() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = log_in(&folder);
    end_with(&mut count(&log, &[]), "10\n").expect(0);
    let before = std::fs::read(&log).expect("reads");
    end_with(&mut count(&log, &[]), "10\n").expect(2).says("go on with it by --resume");
    assert_eq!(std::fs::read(&log).expect("reads"), before);
    end_with(wasmpool("map", prebuilt("primes")).arg("--resume"), "10\n").expect(2).says("--joblog");
    // A run that could not begin has left nothing to go on with.
    let other = folder.path().join("other.tsv");
    end_with(wasmpool("map", prebuilt("primes")).arg("none").arg("--joblog").arg(&other), "10\n").expect(3);
    end_with(&mut count(&other, &[]), "10\n").expect(0);
}

#[test]
fn a_result_is_not_lost_behind_a_line_that_a_kill_has_torn() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = log_in(&folder);
    let results = folder.path().join("results.jsonl");
    std::fs::write(&results, r#"{"line":1,"inp"#).expect("writes");
    end_with(&mut count(&log, &[]), "10\n").expect(0);
    let stdin = folder.path().join("in.txt");
    std::fs::write(&stdin, "10\n20\n").expect("writes");
    let mut command = count(&log, &["--resume"]);
    command.stdin(std::fs::File::open(&stdin).expect("opens"));
    let appended = std::fs::File::options().append(true).open(&results).expect("opens");
    let status = command.stdout(appended).stderr(std::process::Stdio::null()).status().expect("runs");
    assert!(status.success(), "{status}");
    let text = std::fs::read_to_string(&results).expect("reads");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(lines[1]).expect("whole")["line"], 2);
}

#[test]
fn a_dry_run_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = log_in(&folder);
    let outputs = folder.path().join("out");
    let mut command = count(&log, &["--dry-run", "--output-dir"]);
    end_with(command.arg(&outputs), "10\n").expect(0);
    assert!(!log.exists() && !outputs.exists());
}

#[test]
fn other_inputs_than_the_logs_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = log_in(&folder);
    end_with(&mut count(&log, &[]), "10\n20\n").expect(0);
    let ended = end_with(&mut count(&log, &["--resume"]), "10\n21\n").expect(2);
    ended.says("input 2, line 2 (21), is not the one that the job log has");
    end_with(&mut count(&log, &["--resume", "--dry-run"]), "10\n21\n").expect(2);
    let dry = end_with(&mut count(&log, &["--resume", "--dry-run"]), "10\n20\n30\n").expect(0);
    assert_eq!(dry.text(), "primes.wasm count < line 3 (30)\n");
}

#[test]
fn a_file_that_is_done_is_not_even_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = log_in(&folder);
    let text = folder.path().join("a.txt");
    let more = folder.path().join("b.txt");
    std::fs::write(&text, "one").expect("writes");
    std::fs::write(&more, "two words").expect("writes");
    let run = |resume: &[&str]| {
        let mut command = wasmpool("map", prebuilt("word_count"));
        end(command.args(resume).arg("--joblog").arg(&log).arg("--files").args([&text, &more]))
    };
    run(&[]).expect(0);
    std::fs::remove_file(&text).expect("was there");
    std::fs::create_dir(&text).expect("in its place");
    // A folder would be walked: nothing is in it, and b.txt is then the first input.
    run(&["--resume"]).expect(2).says("input 1");
    std::fs::remove_dir(&text).expect("was there");
    std::fs::write(&text, [0xff]).expect("writes");
    run(&["--resume"]).expect(0).says("0 inputs: 0 ok, 0 failed, 2 done before");
}

#[test]
fn a_torn_last_line_is_repaired_and_its_input_run_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = log_in(&folder);
    end_with(&mut count(&log, &[]), "10\n20\n30\n").expect(0);
    let whole = std::fs::read(&log).expect("reads");
    std::fs::write(&log, &whole[..whole.len() - 3]).expect("writes");
    let ended = end_with(&mut count(&log, &["--resume"]), "10\n20\n30\n").expect(0);
    assert_eq!(ended.says("warning: the last line of the job log").json_lines()[0]["line"], 3);
    assert_eq!(records(&log), [(1, 0), (2, 0), (3, 0)]);
}

#[test]
fn two_maps_do_not_share_a_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = log_in(&folder);
    let mut first = spawn(count(&log, &[]).stdin(std::process::Stdio::piped()));
    let stdin = first.stdin.take().expect("a pipe");
    let deadline = Instant::now() + PATIENCE;
    while std::fs::metadata(&log).map_or(0, |metadata| metadata.len()) == 0 {
        assert!(Instant::now() < deadline, "waited in vain for the log");
        std::thread::sleep(Duration::from_millis(1));
    }
    end_with(&mut count(&log, &["--resume"]), "10\n").expect(2).says("in use by another wasmpool");
    drop(stdin);
    ended(first).expect(0);
}

/// Returns how often it is killed in all; some 20 s.
fn rounds() -> u64 {
    std::env::var("WASMPOOL_KILL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(100)
}

/// One log of a thousand tasks, a command that is killed at random moments, and goes on each time.
#[test]
fn killed_at_random_moments_each_input_has_exactly_one_recorded_success() {
    const INPUTS: u64 = 1_000;
    for unordered in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let log = log_in(&folder);
        let outputs = folder.path().join("outputs");
        let inputs: String = (1..=INPUTS).map(|n| format!("{}\n", 40_000 + n)).collect();
        let stdin = folder.path().join("inputs");
        std::fs::write(&stdin, &inputs).expect("writes");
        let mut flags = vec!["--resume", "--workers", "2", "-q", "--output-dir"];
        flags.push(outputs.to_str().expect("text"));
        flags.extend(unordered.then_some("--unordered"));
        let seed = std::process::id().into();
        println!("seed {seed}");
        let mut random = Random(seed);
        let mut longest = Duration::from_millis(400);
        let mut kills = 0;
        let mut before = 0;
        while kills < rounds() / 2 {
            let mut command = count(&log, &flags);
            command.stdin(std::fs::File::open(&stdin).expect("opens"));
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
            let mut child = command.spawn().expect("it starts");
            // A moment of its life, and no wait for anything.
            std::thread::sleep(longest.mul_f64(random.fraction()));
            let status = child.try_wait().expect("is a child");
            match status {
                None => {
                    kill_process(Pid::from_child(&child), Signal::KILL).expect("unreaped");
                    child.wait().expect("is a child");
                    kills += 1;
                    // Records from before must stay.
                    let now = std::fs::metadata(&log).map_or(0, |metadata| metadata.len());
                    assert!(now + 200 > before, "records were lost: {before} bytes, then {now}");
                    before = now;
                }
                // Too quick for so many kills: begin anew.
                Some(status) => {
                    let mut said = String::new();
                    let _ = child.stderr.as_mut().map(|stderr| stderr.read_to_string(&mut said));
                    assert!(status.success(), "{status}: {said}");
                    assert_each_once(&log, INPUTS);
                    std::fs::remove_file(&log).expect("was there");
                    (longest, before) = (longest.mul_f64(0.8), 0);
                }
            }
        }
        let mut command = count(&log, &flags);
        command.stdin(std::fs::File::open(&stdin).expect("opens"));
        ended(spawn(&mut command)).expect(0);
        assert_each_once(&log, INPUTS);
        for seq in 1..=INPUTS {
            let output = std::fs::read_to_string(outputs.join(format!("{seq}.json"))).expect("is there");
            assert!(output.ends_with('\n') && output.trim().parse::<u64>().is_ok(), "{seq}: {output:?}");
        }
    }
}

fn assert_each_once(log: &Path, inputs: u64) {
    let mut successes = HashMap::<_, u32>::new();
    for (seq, exit_code) in records(log) {
        assert_eq!(exit_code, 0, "input {seq}");
        *successes.entry(seq).or_default() += 1;
    }
    let wrong: Vec<_> = (1..=inputs).filter(|seq| successes.get(seq) != Some(&1)).collect();
    assert!(wrong.is_empty() && successes.len() as u64 == inputs, "not exactly once: {wrong:?}");
}

/// xorshift: enough to choose moments by.
struct Random(u64);

impl Random {
    fn fraction(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % 10_000) as f64 / 10_000.0
    }
}
