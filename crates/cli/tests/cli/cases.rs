//! `wasmpool test`: files of cases, what their lines show, and how they end.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{Ended, end, end_with, prebuilt, wasmpool, wat};

/// Writes a file of cases of a sample module, and returns the folder and the file.
fn cases(module: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::copy(prebuilt(module), folder.path().join("guest.wasm")).expect("copies");
    let path = folder.path().join("cases.toml");
    fs::write(&path, format!("module = \"guest.wasm\"\n{text}")).expect("writes");
    (folder, path)
}

fn test(path: &Path, more: &[&str]) -> Ended {
    end(wasmpool("test", path).args(more))
}

fn lines_of(module: &str, text: &str, code: i32) -> Vec<Value> {
    let (_folder, path) = cases(module, text);
    test(&path, &["--json"]).expect(code).json_lines()
}

/// Returns what was found wrong with the only case, which fails.
fn mismatch(module: &str, text: &str) -> Value {
    let lines = lines_of(module, text, 1);
    assert_eq!(lines[1], json!({"ok": false, "passed": 0, "failed": 1, "filtered": 0}));
    assert_eq!(lines[0]["ok"], false);
    lines[0]["mismatches"].clone()
}

const WORDS: &str = r#"
[[case]]
name = "two words"
task = "count"
input = "a b"
output = { words = 2, lines = 0, bytes = 3, distinct = 2, top = [["a", 1], ["b", 1]] }
fuel_max = 100_000

[[case]]
name = "in WAVE"
wave = 'count("a b")'
output_json = '{"words":2,"lines":0,"bytes":3,"distinct":2,"top":[["a",1],["b",1]]}'

[[case]]
name = "from a file, to a file"
input_file = "text"
output_file = "expected.json"
"#;

#[test]
fn cases_that_are_as_expected_pass_in_the_order_of_the_file() {
    let (folder, path) = cases("word_count", WORDS);
    fs::write(folder.path().join("text"), "a b").expect("writes");
    let expected = r#"{ "lines": 0, "bytes": 3, "words": 2, "distinct": 2, "top": [["a", 1], ["b", 1]] }"#;
    fs::write(folder.path().join("expected.json"), expected).expect("writes");
    let ended = test(&path, &["--workers", "2"]).expect(0);
    let text = ended.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    for (line, name) in lines.iter().zip(["two words", "in WAVE", "from a file, to a file"]) {
        assert!(line.starts_with(&format!("ok      {name} ")) && line.ends_with(" fuel"), "{text}");
    }
    assert_eq!(lines[4], "test result: ok. 3 passed; 0 failed; 0 filtered out");
    assert_eq!(ended.stderr, "running 3 cases of guest.wasm\n");
    let filtered = test(&path, &["WAVE", "--json"]).expect(0).json_lines();
    assert_eq!((&filtered[0]["name"], filtered.len()), (&json!("in WAVE"), 2));
    assert_eq!(filtered[1], json!({"ok": true, "passed": 1, "failed": 0, "filtered": 2}));
    assert!(filtered[0]["report"]["fuel_used"].as_u64().is_some_and(|fuel| fuel > 0), "{filtered:?}");
    test(&path, &["no such"]).expect(2).says("none of its 3 cases has `no such` in its name");
    // The cases may come from stdin, and paths then begin here.
    let text = format!(
        "module = '{}'\n{}",
        prebuilt("primes").display(),
        "[[case]]\nname = 'x'\ntask = 'count'\ninput = 10\noutput = 4"
    );
    end_with(&mut wasmpool("test", "-"), text).expect(0);
}

#[test]
fn a_case_that_fails_shows_what_was_expected_what_came_and_where_they_differ() {
    let text = r#"
[[case]]
name = "wrong"
input = "a b"
output = { words = 3, lines = 0, bytes = 3, distinct = 2, top = [["a", 1], ["b", 1]] }
[[case]]
name = "right"
input = "a b"
"#;
    let (_folder, path) = cases("word_count", text);
    let ended = test(&path, &["--quiet"]).expect(1);
    let text = ended.text();
    for part in [
        "FAILED  wrong ",
        "    output:\n        expected  {\"lines\":0,\"words\":3,",
        "\n        actual    {\"lines\":0,\"words\":2,",
        "\n        differs   at $.words\n",
        "\nok      right ",
        "\ntest result: FAILED. 1 passed; 1 failed; 0 filtered out\n",
    ] {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
    assert_eq!(ended.stderr, "");
}

#[test]
fn errors_are_expected_by_message_part_kind_and_trap() {
    let text = r#"
[[case]]
name = "message"
task = "own_error"
input = "no such customer"
error = "no such customer"
error_kind = "guest"
[[case]]
name = "part"
task = "panic"
input = "at the disco"
error_contains = "disco"
error_kind = "panic"
[[case]]
name = "trap"
task = "unreachable"
trap = "unreachable"
[[case]]
name = "limit"
task = "endless_loop"
error_kind = "timeout"
"#;
    let (_folder, path) = cases("faults", text);
    let lines = test(&path, &["--json", "--timeout", "500ms"]).json_lines();
    assert_eq!(
        lines.last(),
        Some(&json!({"ok": true, "passed": 4, "failed": 0, "filtered": 0})),
        "{lines:?}"
    );
    let case = |more: &str| {
        format!("[[case]]\nname = \"x\"\ntask = \"own_error\"\ninput = \"no such customer\"\n{more}")
    };
    let wrong = mismatch("faults", &case("error = \"customer\""));
    assert_eq!(
        wrong[0],
        json!({"what": "error", "expected": "customer", "actual": "no such customer", "at": null})
    );
    let wrong = mismatch("faults", &case("trap = \"unreachable\""));
    assert_eq!((&wrong[0]["what"], &wrong[0]["actual"]), (&json!("trap"), &json!("no such customer")));
    let wrong = mismatch("faults", &case("output = 1"));
    assert_eq!((&wrong[0]["what"], &wrong[0]["expected"]), (&json!("end"), &json!("a success")));
    let wrong = mismatch("primes", "[[case]]\nname = \"x\"\ntask = \"count\"\ninput = 10\nerror = \"none\"");
    assert_eq!((&wrong[0]["expected"], &wrong[0]["actual"]), (&json!("an error"), &json!(4)));
}

#[test]
fn a_ceiling_of_fuel_fails_a_case_that_uses_more_and_says_how_much() {
    let wrong = mismatch(
        "primes",
        "[[case]]\nname = \"x\"\ntask = \"count\"\ninput = 100_000\noutput = 9592\nfuel_max = 1000",
    );
    assert_eq!((&wrong[0]["what"], &wrong[0]["expected"]), (&json!("fuel"), &json!("at most 1000")));
    assert!(wrong[0]["actual"].as_u64().is_some_and(|fuel| fuel > 1_000_000), "{wrong}");
    // --fuel is a limit: it ends the task.
    let (_folder, path) =
        cases("primes", "[[case]]\nname = \"x\"\ntask = \"count\"\ninput = 100_000\nerror_kind = \"fuel\"");
    test(&path, &["--fuel", "1000"]).expect(0);
}

#[test]
fn commands_are_held_to_their_exit_code_and_streams() {
    let text = r#"
[[case]]
name = "no such column"
args = ["--column", "age"]
exit = 1
stdout = ""
stderr_contains = "no column 'age'"
[[case]]
name = "two rows"
args = ["--column", "age"]
stdin = "age\n1\n3\n"
stdout_contains = "2"
"#;
    let lines = lines_of("csv_stats", text, 0);
    assert_eq!(lines[0]["exit_code"], 1);
    assert_eq!(lines[2]["passed"], 2);
    let wrong = mismatch("csv_stats", "[[case]]\nname = \"x\"\nargs = [\"--column\", \"age\"]");
    assert_eq!(wrong[0], json!({"what": "exit code", "expected": 0, "actual": 1, "at": null}));
    let wrong = mismatch("csv_stats", "[[case]]\nname = \"x\"\ninput = 1");
    assert!(wrong[0]["actual"].as_str().is_some_and(|text| text.contains("a WASI command takes")), "{wrong}");
    let wrong = mismatch("primes", "[[case]]\nname = \"x\"\ntask = \"count\"\ninput = 1\nexit = 0");
    assert!(wrong[0]["actual"].as_str().is_some_and(|text| text.contains("for WASI commands")), "{wrong}");
}

#[test]
fn a_case_that_cannot_run_fails_alone() {
    let text = "[[case]]\nname = \"bad\"\ntask = \"count\"\ninput = \"ten\"\n[[case]]\nname = \"good\"\ntask = \"count\"\ninput = 10\noutput = 4.0\n\
                [[case]]\nname = \"unknown\"\ntask = \"sum\"\n[[case]]\nname = \"gone\"\ntask = \"count\"\ninput_file = \"gone\"";
    let lines = lines_of("primes", text, 1);
    let oks: Vec<_> = lines.iter().map(|line| line["ok"].as_bool().expect("a bool")).collect();
    assert_eq!(oks, [false, true, false, false, false]);
    assert!(lines[0]["mismatches"][0]["actual"].as_str().is_some_and(|text| text.contains("does not fit")));
}

#[test]
fn what_is_wrong_with_the_file_is_said_with_its_line() {
    for (text, line, part) in [
        ("[[case]]\nname = \"x\"\nimput = 1", 4, "unknown field `imput`"),
        ("modul = 1", 2, "unknown field `modul`"),
        ("[[case]]\nname = 1", 3, "invalid type"),
        ("[[case]]\ntask = \"x\"", 2, "missing field `name`"),
        ("[[case]]\nname = \"x\"\n[[case]]\nname = \"x\"", 4, "case `x` has the name of that of line 2"),
        ("[[case]]\nname = \"x\"\ninput = 1\nwave = \"f(1)\"", 2, "`wave` and `input` do not go together"),
        ("[[case]]\nname = \"x\"\noutput = 1\nerror = \"e\"", 2, "with an error"),
        ("[[case]]\nname = \"x\"\nwave = \"f\"", 2, "`wave` must be a call"),
        ("[[case]]\nname = \"x\"\ninput_json = \"{\"", 2, "`input_json` is not JSON"),
        ("[[case]]\nname =", 3, ""),
    ] {
        let (_folder, path) = cases("primes", text);
        test(&path, &[]).expect(2).says(&format!("cases.toml, line {line}: ")).says(part);
    }
    let (_folder, path) = cases("primes", "");
    test(&path, &[]).expect(2).says("it has no [[case]]");
    test(Path::new("/nowhere/cases.toml"), &["--json"]).expect(2);
    let (folder, path) = cases("primes", "[[case]]\nname = \"x\"");
    fs::write(folder.path().join("guest.wasm"), "no module").expect("writes");
    test(&path, &[]).expect(3).says("not a valid wasm module");
}

#[test]
fn a_guest_cannot_write_lines_that_look_like_ours() {
    let text = "[[case]]\nname = \"x\"\ntask = \"own_error\"\ninput = \"\\u001b[2J\\ntest result: ok.\"\nerror = \"other\"";
    let (_folder, path) = cases("faults", text);
    let said = test(&path, &["--color", "always"]).expect(1).text();
    assert!(!said.contains("\u{1b}[2J") && !said.contains("\ntest result: ok."), "{said:?}");
}

#[test]
fn components_and_plain_functions_are_tested_as_well() {
    let folder = tempfile::tempdir().expect("a folder");
    wat(
        folder.path(),
        "plain.wasm",
        r#"(module (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))"#,
    );
    let path = folder.path().join("cases.toml");
    let text = "module = \"plain.wasm\"\n[[case]]\nname = \"words\"\ninput = [1, 2]\noutput = 3\n[[case]]\nname = \"call\"\nwave = \"add(3, 4)\"\noutput = 7";
    fs::write(&path, text).expect("writes");
    test(&path, &[]).expect(0);
}
