//! Bounds of what a long input costs, and of how much a short output can become.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use postcard_schema::Schema;
use postcard_schema::schema::owned::{
    OwnedDataModelType, OwnedDataModelVariant, OwnedNamedType, OwnedNamedValue, OwnedNamedVariant,
};
use serde_json::json;

use crate::harness::{Ended, end, end_with, ended, prebuilt, spawn, wasmpool, wat};

/// Runs the command, and returns the most memory that it held, in bytes.
fn ended_with_peak(command: &mut Command) -> (Ended, u64) {
    let child = spawn(command);
    let pid = child.id();
    let (done, is_done) = mpsc::channel::<()>();
    let peak = move || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() * 1024
    };
    let watcher = std::thread::spawn(move || {
        let mut most = 0;
        while is_done.recv_timeout(Duration::from_millis(2)) == Err(mpsc::RecvTimeoutError::Timeout) {
            most = most.max(peak());
        }
        most
    });
    let ended = ended(child);
    drop(done);
    (ended, watcher.join().expect("it reads"))
}

const MIB: u64 = 1024 * 1024;

/// A tree of JSON values would be many times as large as the text.
#[test]
fn an_input_that_does_not_fit_is_refused_where_it_begins_whatever_its_length() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("large.json");
    let text = format!("[{}1]", "1,".repeat(50_000_000));
    std::fs::write(&path, &text).expect("writes");
    let says = "expected u64 (0 to 18446744073709551615), found an array";
    let mut by_name = wasmpool("run", prebuilt("primes"));
    by_name.args(["count", "--input-file"]).arg(&path).stdin(Stdio::null());
    let mut by_stdin = wasmpool("run", prebuilt("primes"));
    by_stdin.arg("count").stdin(std::fs::File::open(&path).expect("opens"));
    for command in [&mut by_name, &mut by_stdin] {
        let (ended, peak) = ended_with_peak(command);
        ended.expect(2).says(says);
        assert!(peak < 96 * MIB, "{peak} bytes");
    }
    // A map holds each line, since its job log knows the line by its digest.
    let mut by_line = wasmpool("map", prebuilt("primes"));
    by_line.args(["count", "--jsonl"]).stdin(std::fs::File::open(&path).expect("opens"));
    let (ended, peak) = ended_with_peak(&mut by_line);
    ended.expect(4).says(says);
    assert!(peak < 400 * MIB, "{peak} bytes");
}

#[test]
fn an_input_that_fits_is_held_as_what_it_stands_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("numbers.json");
    let mut command = wasmpool("run", prebuilt("monte_carlo"));
    let spaces = " ".repeat(50 << 20);
    std::fs::write(&path, format!("{{\"seed\": {spaces}42, {spaces}\"samples\": 1000}}")).expect("writes");
    command.args(["pi", "--input-file"]).arg(&path).stdin(Stdio::null());
    let (ended, peak) = ended_with_peak(&mut command);
    assert!(ended.expect(0).json().to_string().contains("3."), "about pi");
    assert!(peak < 96 * MIB, "{peak} bytes");
}

/// Writes a module whose task `t` has an output of this type, and always returns these bytes.
fn returning(folder: &Path, name: &str, output: &OwnedNamedType, bytes: &str) -> PathBuf {
    let mut record =
        postcard::to_stdvec(&(1u8, 0u8, "t", "t", "", 1u8, Vec::<&str>::new())).expect("encodes");
    for ty in [&OwnedNamedType::from(<()>::SCHEMA), output] {
        record.extend(postcard::to_stdvec(ty).expect("encodes"));
    }
    let section = [&(record.len() as u32).to_le_bytes()[..], &record].concat();
    let section: String = section.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let len = 1 + bytes.len() / 3;
    wat(
        folder,
        name,
        &format!(
            r#"(module
            (@custom "wasmpool.tasks" "{section}")
            (memory (export "memory") 1)
            (data (i32.const 16) "\00{bytes}")
            (func (export "wasmpool_abi_v1"))
            (func (export "wasmpool_alloc") (param i32) (result i32) (i32.const 1024))
            (func (export "t") (param i32 i32) (result i64)
                (i64.or (i64.shl (i64.const 16) (i64.const 32)) (i64.const {len}))))"#
        ),
    )
}

#[derive(postcard_schema::Schema)]
#[expect(dead_code, reason = "it is its type that counts")]
struct NamedAtSomeLength {
    a_field_without_bytes: (),
}

#[test]
fn what_is_printed_is_held_to_the_limit_of_outputs() {
    let folder = tempfile::tempdir().expect("a folder");
    // Three bytes are a list of 30,000 here, and a megabyte of JSON.
    let module = returning(
        folder.path(),
        "many.wasm",
        &OwnedNamedType::from(<Vec<NamedAtSomeLength>>::SCHEMA),
        "\\b0\\ea\\01",
    );
    let limited = |limit: &str| end(wasmpool("run", &module).args(["t", "--output-limit", limit, "--json"]));
    let ended = limited("1KiB").expect(1);
    let error = &ended.json()["error"];
    assert_eq!((&error["kind"], &error["limit_bytes"]), (&json!("output_too_large"), &json!(1024)));
    assert!(ended.stdout.len() < 1024, "{}", ended.text());
    let whole = limited("4MiB").expect(0).json();
    assert_eq!(whole["output"].as_array().map(Vec::len), Some(30_000));
    let mut map = wasmpool("map", &module);
    let inputs = "null\n";
    let refused = end_with(map.args(["t", "--jsonl", "--output-limit", "1KiB"]), inputs);
    assert!(refused.code != 0 && refused.stdout.len() < 1024, "{}", refused.text());
}

/// This JSON would be longer than the machine's memory.
#[test]
fn a_list_of_empty_values_without_end_is_an_error_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = "\\80\\80\\80\\80\\80\\20";
    let module = returning(folder.path(), "endless.wasm", &OwnedNamedType::from(<Vec<()>>::SCHEMA), bytes);
    let (ended, peak) = ended_with_peak(wasmpool("run", &module).arg("t").stdin(Stdio::null()));
    ended.expect(1).says("output");
    assert!(peak < 96 * MIB, "{peak} bytes");
}

fn unit() -> OwnedNamedType {
    OwnedNamedType::from(<()>::SCHEMA)
}

fn of_struct(name: &str, field: &str) -> OwnedNamedType {
    let field = OwnedNamedValue { name: field.into(), ty: unit() };
    OwnedNamedType { name: name.into(), ty: OwnedDataModelType::Struct(vec![field]) }
}

fn of_enum(variant: &str) -> OwnedNamedType {
    let variant = OwnedNamedVariant { name: variant.into(), ty: OwnedDataModelVariant::UnitVariant };
    OwnedNamedType { name: "E".into(), ty: OwnedDataModelType::Enum(vec![variant]) }
}

#[test]
fn a_module_whose_names_are_too_long_is_refused_when_it_is_loaded() {
    let folder = tempfile::tempdir().expect("a folder");
    let long = "n".repeat(1_000_000);
    for (name, ty) in
        [("type", of_struct(&long, "f")), ("field", of_struct("S", &long)), ("variant", of_enum(&long))]
    {
        let module = returning(folder.path(), &format!("{name}.wasm"), &ty, "\\00");
        let ended = end(&mut wasmpool("inspect", &module)).expect(3).says("name of more than 256 bytes");
        assert!(ended.stderr.len() < 2000, "{} bytes", ended.stderr.len());
    }
}

/// It answers with 2 MiB; an input that begins with `s` never ends.
const LARGE_ANSWERS: &str = r#"(module
  (memory (export "memory") 48)
  (func (export "wasmpool_abi_v1"))
  (func (export "wasmpool_alloc") (param i32) (result i32) i32.const 1024)
  (func (export "answer") (param $p i32) (param $l i32) (result i64)
    (if (i32.eq (i32.load8_u (local.get $p)) (i32.const 115)) (then (loop $x (br $x))))
    (memory.fill (i32.const 65537) (i32.const 255) (i32.const 2097151))
    (i64.or (i64.shl (i64.const 65536) (i64.const 32)) (i64.const 2097152))))"#;

/// The first input holds up the output of all others, whose results wait.
#[test]
fn results_that_wait_for_one_before_them_are_bounded_in_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let module = wat(folder.path(), "large.wasm", LARGE_ANSWERS);
    let path = folder.path().join("inputs");
    let inputs: String =
        std::iter::once("s\n".to_string()).chain((0..120).map(|n| format!("{n}\n"))).collect();
    std::fs::write(&path, inputs).expect("writes");
    let mut command = wasmpool("map", module);
    command.args(["answer", "--lines", "--workers", "2", "--timeout", "3s"]);
    command.args(["--output-limit", "2MiB", "--map-memory", "16MiB", "--quiet"]);
    command.stdin(std::fs::File::open(&path).expect("opens"));
    let (ended, peak) = ended_with_peak(&mut command);
    let lines = ended.expect(4).json_lines();
    assert_eq!(lines.len(), 121);
    assert_eq!(lines[0]["error"]["kind"], "timeout");
    assert!(lines[1..].iter().all(|line| line["ok"] == true));
    // The results come to much more than this bound.
    assert!(peak < 96 * MIB, "{peak} bytes");
}
