//! `--trace`: what it writes is what viewers of Chrome's trace format take.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{end, end_with, prebuilt, wasmpool};

fn events(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("reads");
    match serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")) {
        Value::Array(events) => events,
        other => panic!("{other}"),
    }
}

/// Holds every event to the format: the fields of its phase, their types, and pairs that match.
fn validate(events: &[Value]) {
    let mut waits = HashMap::<u64, i32>::new();
    for event in events {
        let number = |field: &str| {
            let number = event[field].as_f64().unwrap_or_else(|| panic!("{field} is no number: {event}"));
            assert!(number >= 0.0, "{field} is negative: {event}");
            number
        };
        assert!(event["name"].is_string() && event["pid"].is_u64(), "{event}");
        let phase = event["ph"].as_str().unwrap_or_else(|| panic!("no phase: {event}"));
        match phase {
            "M" => assert!(event["args"]["name"].is_string(), "{event}"),
            "X" => {
                number("ts");
                number("dur");
                assert!(event["tid"].is_u64() && event["cat"].is_string(), "{event}");
            }
            "b" | "e" => {
                number("ts");
                assert!(event["cat"].is_string(), "{event}");
                let id = event["id"].as_u64().unwrap_or_else(|| panic!("no id: {event}"));
                *waits.entry(id).or_default() += if phase == "b" { 1 } else { -1 };
            }
            "i" => {
                number("ts");
                assert!(["t", "p", "g"].contains(&event["s"].as_str().unwrap_or_default()), "{event}");
            }
            "C" => {
                number("ts");
                let args = event["args"].as_object().unwrap_or_else(|| panic!("no args: {event}"));
                assert!(!args.is_empty() && args.values().all(Value::is_number), "{event}");
            }
            other => panic!("an unknown phase {other}: {event}"),
        }
    }
    assert!(waits.values().all(|open| *open == 0), "waits that begin and do not end: {waits:?}");
}

/// Slices of one row lie inside of each other or apart.
fn assert_nested(events: &[Value]) {
    let mut rows = BTreeMap::<u64, Vec<(f64, f64)>>::new();
    for event in events.iter().filter(|event| event["ph"] == "X") {
        let ts = event["ts"].as_f64().expect("checked");
        let dur = event["dur"].as_f64().expect("checked");
        rows.entry(event["tid"].as_u64().expect("checked")).or_default().push((ts, ts + dur));
    }
    for (row, slices) in rows {
        for (index, a) in slices.iter().enumerate() {
            for b in &slices[index + 1..] {
                let apart = a.1 <= b.0 + 0.002 || b.1 <= a.0 + 0.002;
                let inside =
                    (a.0 <= b.0 + 0.002 && b.1 <= a.1 + 0.002) || (b.0 <= a.0 + 0.002 && a.1 <= b.1 + 0.002);
                assert!(apart || inside, "row {row}: {a:?} and {b:?} cross");
            }
        }
    }
}

#[test]
fn workers_are_rows_and_tasks_slices_with_what_they_waited_and_ran() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("trace.json");
    let mut command = wasmpool("map", prebuilt("primes"));
    command.args(["count", "--workers", "2", "--trace"]).arg(&path);
    let text: String = (0..100).map(|n| format!("{}\n", 10_000 + n)).collect();
    end_with(&mut command, text).expect(0);
    let events = events(&path);
    validate(&events);
    assert_nested(&events);
    let of = |category: &str| events.iter().filter(|event| event["cat"] == category).collect::<Vec<_>>();
    let tasks = of("task");
    assert_eq!((tasks.len(), of("guest").len(), of("queued").len()), (100, 100, 200));
    for number in 1..=100 {
        let name = format!("line {number}");
        assert_eq!(tasks.iter().filter(|task| task["name"] == name).count(), 1, "{name}");
    }
    for task in tasks {
        let args = &task["args"];
        assert!(
            args["outcome"] == "Succeeded" && args["run_us"].as_f64().is_some_and(|us| us > 0.0),
            "{task}"
        );
        let ran_in = events.iter().find(|event| event["ph"] == "M" && event["tid"] == task["tid"]);
        let row = ran_in.and_then(|row| row["args"]["name"].as_str()).expect("a row with a name");
        assert!(row.starts_with("worker "), "{row}");
    }
    assert!(events.iter().any(|event| event["ph"] == "C" && event["args"]["running"].as_u64() >= Some(1)));
}

#[test]
fn failures_and_one_task_alone_are_in_it_too_and_text_is_escaped() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("trace.json");
    let mut command = wasmpool("run", prebuilt("faults"));
    end_with(command.args(["own_error", "--input", "\"no\"", "--trace"]).arg(&path), "").expect(1);
    let failed = events(&path);
    validate(&failed);
    assert!(
        failed.iter().any(|event| event["cat"] == "task" && event["args"]["outcome"] == "Failed"),
        "{failed:?}"
    );
}

#[test]
fn a_timeline_is_bounded_and_one_that_cannot_be_written_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("trace.json");
    let text = "10\n".repeat(500);
    let mut command = wasmpool("map", prebuilt("primes"));
    command.args(["count", "--trace-bytes", "8KiB", "--trace"]).arg(&path);
    end_with(&mut command, text).expect(0).says("is full: raise --trace-bytes");
    assert!(std::fs::metadata(&path).expect("is there").len() < 16 * 1024);
    events(&path);
    let mut command = wasmpool("map", prebuilt("primes"));
    end_with(command.args(["count", "--trace", "/dev/null/trace"]), "1\n")
        .expect(2)
        .says("cannot write the timeline");
}

/// Holds a profile to speedscope's schema, as far as it is used, and returns its functions' names.
fn functions_of(profile: &Value) -> Vec<String> {
    assert_eq!(profile["$schema"], "https://www.speedscope.app/file-format-schema.json");
    let frames = profile["shared"]["frames"].as_array().expect("frames");
    let names: Vec<_> =
        frames.iter().map(|frame| frame["name"].as_str().expect("a name").to_string()).collect();
    let one = &profile["profiles"][0];
    assert_eq!(
        (&one["type"], &one["unit"], &one["startValue"]),
        (&json!("sampled"), &json!("milliseconds"), &json!(0))
    );
    let samples = one["samples"].as_array().expect("samples");
    let weights = one["weights"].as_array().expect("weights");
    assert_eq!(samples.len(), weights.len());
    let sum: u64 = weights.iter().map(|weight| weight.as_u64().expect("a number")).sum();
    assert_eq!(one["endValue"], sum);
    let numbers = samples.iter().flat_map(|stack| stack.as_array().expect("a stack"));
    assert!(
        numbers
            .map(|number| number.as_u64().expect("a number"))
            .all(|number| (number as usize) < names.len())
    );
    names
}

#[test]
fn a_profile_says_where_tasks_spend_their_time_and_the_logs_do_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("profile.json");
    let profiled = |mut command: Command, input: &str| {
        command.args(["spin", "--timeout", "2s", "--profile"]).arg(&path);
        let ended = end_with(&mut command, input);
        assert!(!ended.stderr.contains("it is at"), "{}", ended.stderr);
        serde_json::from_slice::<Value>(&std::fs::read(&path).expect("reads")).expect("JSON")
    };
    // Neither ends but by its timeout.
    let forever = u64::MAX.to_string();
    let mut run = wasmpool("run", prebuilt("echo"));
    run.args(["--input", &forever]);
    for (command, input) in [(run, ""), (wasmpool("map", prebuilt("echo")), &*format!("{forever}\n1\n"))] {
        let names = functions_of(&profiled(command, input));
        assert!(names.iter().any(|name| name == "echo::spin"), "{names:?}");
    }
}

#[test]
fn a_profile_that_cannot_be_made_is_refused_before_anything_runs() {
    let mut nowhere = wasmpool("run", prebuilt("echo"));
    nowhere.args(["spin", "--input", "1", "--profile", "no/such/folder/p.json"]);
    end(&mut nowhere).expect(2).says("cannot write the profile");
    let mut deaf = wasmpool("run", prebuilt("echo"));
    deaf.args(["spin", "--input", "1", "--profile", "p.json", "--interrupt", "kill"]);
    end(&mut deaf).expect(2).says("--interrupt");
}
