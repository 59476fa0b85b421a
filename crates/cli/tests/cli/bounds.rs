//! Bounds of what a long input costs, and of how much a short output can become.

use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use postcard_schema::Schema;
use postcard_schema::schema::NamedType;
use postcard_schema::schema::owned::{
    OwnedDataModelType, OwnedDataModelVariant, OwnedNamedType, OwnedNamedValue, OwnedNamedVariant,
};
use rustix::process::{Pid, Signal};
use serde_json::json;
use sha2::Digest as _;

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
    a_field_with_a_long_name_and_few_bytes: bool,
}

#[test]
fn what_is_printed_is_held_to_the_limit_of_outputs() {
    let folder = tempfile::tempdir().expect("a folder");
    // This is a list of 30,000 in as many bytes, and more than a megabyte of JSON.
    let bytes = format!("\\b0\\ea\\01{}", "\\00".repeat(30_000));
    let ty = OwnedNamedType::from(<Vec<NamedAtSomeLength>>::SCHEMA);
    let module = returning(folder.path(), "many.wasm", &ty, &bytes);
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

/// Such a list is six bytes long, and reading it would take years.
#[test]
fn a_module_whose_lists_are_of_values_without_bytes_is_refused_when_it_is_loaded() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = "\\80\\80\\80\\80\\80\\20";
    for (name, ty) in [("list", <Vec<()>>::SCHEMA), ("tuples", <Option<Vec<((), [(); 2])>>>::SCHEMA)] {
        let module = returning(folder.path(), &format!("{name}.wasm"), &OwnedNamedType::from(ty), bytes);
        for verb in ["run", "map", "inspect"] {
            let mut command = wasmpool(verb, &module);
            let args = if verb == "inspect" { &[][..] } else { &["t"] };
            let (ended, peak) = ended_with_peak(command.args(args).stdin(Stdio::null()));
            ended.expect(3).says("a list or a map of values that take no bytes");
            assert!(peak < 96 * MIB, "{peak} bytes");
        }
    }
}

#[test]
fn an_option_in_an_option_is_told_from_none() {
    let folder = tempfile::tempdir().expect("a folder");
    type Nested = (Option<Option<u8>>, Option<Option<u8>>, Option<Option<u8>>, Option<()>, Option<u8>);
    let ty = OwnedNamedType::from(<Nested>::SCHEMA);
    let module = returning(folder.path(), "nested.wasm", &ty, "\\00\\01\\00\\01\\01\\07\\01\\01\\07");
    let ended = end(wasmpool("run", &module).arg("t")).expect(0);
    assert_eq!(ended.text().trim(), r#"[null,{"Some":null},{"Some":7},{"Some":null},7]"#);
}

fn unit() -> OwnedNamedType {
    OwnedNamedType::from(<()>::SCHEMA)
}

fn of_struct(name: &str, field: &str) -> OwnedNamedType {
    let field = OwnedNamedValue { name: field.into(), ty: unit() };
    OwnedNamedType { name: name.into(), ty: OwnedDataModelType::Struct(vec![field]) }
}

#[test]
fn a_module_whose_names_cannot_be_told_apart_is_refused_when_it_is_loaded() {
    let folder = tempfile::tempdir().expect("a folder");
    let field = |name: &str| OwnedNamedValue { name: name.into(), ty: unit() };
    let of_fields = |names: &[&str]| OwnedNamedType {
        name: "S".into(),
        ty: OwnedDataModelType::Struct(names.iter().map(|name| field(name)).collect()),
    };
    for (name, ty, says) in [
        ("twice", of_fields(&["a", "b", "a"]), "`a` is there twice"),
        ("blank", of_fields(&["a", "\u{2800}\u{3000}"]), "a name that is blank"),
        ("variant", of_enum("\u{a0}"), "a name that is blank"),
        ("type", of_struct("\u{3164}", "a"), "a name that is blank"),
    ] {
        let module = returning(folder.path(), &format!("{name}.wasm"), &ty, "\\00");
        let ended = end(&mut wasmpool("inspect", &module)).expect(3).says(says);
        assert!(ended.text().contains("memory"), "what can be shown is: {}", ended.text());
        end(wasmpool("run", &module).arg("t")).expect(3).says(says);
    }
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

/// Answers with 32 MiB of a control character, which are six times as long in JSON: as raw bytes, or as a `Vec<u8>`.
fn long_in_json(folder: &Path, output: Option<&'static NamedType>) -> PathBuf {
    let mut record = postcard::to_stdvec(&(1u8, 0u8, "t", "t", "", 1u8, vec!["nothing"])).expect("encodes");
    for ty in [<()>::SCHEMA, output.unwrap_or(<()>::SCHEMA)] {
        record.extend(postcard::to_stdvec(&OwnedNamedType::from(ty)).expect("encodes"));
    }
    let section = [&(record.len() as u32).to_le_bytes()[..], &record].concat();
    let section: String = section.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let section =
        if output.is_some() { format!("(@custom \"wasmpool.tasks\" \"{section}\")") } else { String::new() };
    let text = format!(
        r#"(module {section}
        (memory (export "memory") 516)
        (data (i32.const 1024) "\00\80\80\80\10")
        (func (export "wasmpool_abi_v1"))
        (func (export "wasmpool_alloc") (param i32) (result i32) i32.const 2048)
        (func (export "t") (param i32 i32) (result i64)
            (memory.fill (i32.const 1029) (i32.const 1) (i32.const 33554432))
            (i64.or (i64.shl (i64.const 1024) (i64.const 32)) (i64.const 33554437))))"#
    );
    wat(folder, if output.is_some() { "typed.wasm" } else { "raw.wasm" }, &text)
}

/// The JSON of the output is 192 MiB for bytes, and 128 for a list that has the same bytes on the wire.
#[test]
fn what_is_written_is_held_as_it_came_and_within_the_bound() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = Some(<Vec<u8>>::SCHEMA);
    let list = Some(<Vec<(u8,)>>::SCHEMA);
    for (output, args, file) in [
        (None, &["--lines"][..], None),
        (bytes, &["--jsonl"], None),
        (bytes, &["--jsonl", "--unordered", "--retries", "1"], None),
        (bytes, &["--jsonl", "--output-dir", "out"], Some(("out/1.bin", 31 * MIB))),
        (list, &["--jsonl", "--output-dir", "out"], Some(("out/1.json", 120 * MIB))),
    ] {
        let mut command = wasmpool("map", long_in_json(folder.path(), output));
        let bound = ["--map-memory", "36MiB", "--output-limit", "33MiB", "--workers", "2", "--quiet"];
        command.arg("t").args(args).args(bound).current_dir(folder.path());
        std::fs::write(folder.path().join("inputs"), "null\nnull\n").expect("writes");
        command.stdin(std::fs::File::open(folder.path().join("inputs")).expect("opens"));
        let (ended, peak) = ended_with_peak(&mut command);
        let printed = ended.expect(0).stdout.len() as u64;
        // Raw, its first bytes are no UTF-8, so that it becomes base64. A file has bytes as they are.
        let (len, at_least) = match (file, output) {
            (Some((file, at_least)), _) => {
                (std::fs::metadata(folder.path().join(file)).expect("is there").len(), at_least)
            }
            (None, Some(_)) => (printed / 2, 192 * MIB),
            (None, None) => (printed / 2, 42 * MIB),
        };
        assert!(len > at_least, "{len} bytes");
        assert!(peak < 80 * MIB, "{args:?}: {peak} bytes where 36 MiB may be held");
    }
}

#[test]
fn a_map_that_has_no_room_for_one_result_says_so_before_anything_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let module = wat(folder.path(), "large.wasm", LARGE_ANSWERS);
    let map = |args: &[&str], inputs: &str| {
        let mut command = wasmpool("map", &module);
        end_with(command.args(["answer", "--lines"]).args(args), inputs)
    };
    let ended = map(&["--output-limit", "2MiB", "--map-memory", "2MiB"], "1\n2\n").expect(2);
    let ended = ended.says("--map-memory 2.0 MiB has no room").says("lower --output-limit");
    assert!(ended.stdout.is_empty());
    // There is room for a short input, and none for a long one.
    let bound = (2 * MIB + MIB + 4096 + 100).to_string();
    let long = "x".repeat(101);
    let inputs = format!("1\n{long}\n2\n");
    let lines = map(&["--output-limit", "2MiB", "--map-memory", &bound], &inputs).expect(4).json_lines();
    let oks: Vec<_> = lines.iter().map(|line| line["ok"] == true).collect();
    assert_eq!(oks, [true, false, true]);
    assert_eq!(lines[1]["error"]["kind"], "input");
    assert!(lines[1]["error"]["message"].to_string().contains("--map-memory"), "{}", lines[1]);
}

/// The guest answers with 2 MiB; it never ends if its input begins with `s`.
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

/// Returns its input.
const ECHO: &str = r#"(module
  (memory (export "memory") 64)
  (func (export "wasmpool_abi_v1"))
  (func (export "wasmpool_alloc") (param i32) (result i32) i32.const 1025)
  (func (export "echo") (param i32 i32) (result i64)
    (i64.or (i64.shl (i64.const 1024) (i64.const 32))
            (i64.extend_i32_u (i32.add (local.get 1) (i32.const 1))))))"#;

#[test]
fn a_line_without_an_end_is_an_error_at_once_and_a_signal_ends_what_waits_for_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let module = wat(folder.path(), "echo.wasm", ECHO);
    for (order, signal, code) in [("--keep-order", Signal::INT, 130), ("--unordered", Signal::TERM, 143)] {
        let mut command = wasmpool("map", &module);
        command.args(["echo", "--lines", "--input-limit", "1MiB", order]).stdin(Stdio::piped());
        let mut child = spawn(&mut command);
        let pid = Pid::from_child(&child);
        let mut stdin = child.stdin.take().expect("a pipe");
        let writer = std::thread::spawn(move || {
            let zeros = vec![0; 1 << 16];
            let mut written = stdin.write_all(b"a\nb\n");
            while written.is_ok() {
                written = stdin.write_all(&zeros);
            }
        });
        let mut lines = std::io::BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut next = || lines.next().expect("a line").expect("reads");
        let mut found: Vec<serde_json::Value> =
            (0..3).map(|_| serde_json::from_str(&next()).expect("JSON")).collect();
        found.sort_by_key(|line| line["line"].as_u64());
        assert_eq!((&found[0]["output"], &found[1]["output"]), (&json!("a"), &json!("b")));
        let message = "line 3 is longer than 1048576 bytes: raise --input-limit";
        assert_eq!(found[2]["error"], json!({"kind": "input", "message": message}));
        let mut errors = std::io::BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let mut told = || errors.next().expect("it says so").expect("reads");
        while !told().contains("line 3 has no end so far") {}
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        let peak: u64 = peak.expect("a number").parse().expect("a number");
        assert!(peak < 64 * 1024, "{peak} KiB");
        rustix::process::kill_process(pid, signal).expect("signals");
        let said: Vec<String> = errors.map_while(Result::ok).collect();
        assert_eq!(ended(child).expect(code).code, code, "{said:?}");
        assert_eq!(said.iter().filter(|line| line.contains("no end so far")).count(), 0, "once is enough");
        writer.join().expect("it ends");
    }
}

#[test]
fn the_limit_of_inputs_holds_wherever_they_come_from_and_can_be_set() {
    let folder = tempfile::tempdir().expect("a folder");
    let echo = wat(folder.path(), "echo.wasm", ECHO);
    let long = folder.path().join("long");
    let fits = folder.path().join("fits");
    std::fs::write(&long, "9".repeat(1001)).expect("writes");
    std::fs::write(&fits, "9".repeat(1000)).expect("writes");
    let limit = ["--input-limit", "1000B"];
    let says = "is longer than 1000 bytes: raise --input-limit";
    let open = |path: &Path| std::fs::File::open(path).expect("opens");
    let run = |module: &Path, task: &str| {
        let mut command = wasmpool("run", module);
        command.arg(task).args(limit).stdin(Stdio::null());
        command
    };
    for (module, task) in [(echo.clone(), "echo"), (prebuilt("primes"), "count")] {
        ended(spawn(run(&module, task).arg("--input-file").arg(&long))).expect(2).says(says);
        ended(spawn(run(&module, task).args(["--input-file", "-"]).stdin(open(&long)))).expect(2).says(says);
        ended(spawn(run(&module, task).stdin(open(&long)))).expect(2).says(says);
    }
    ended(spawn(run(&echo, "echo").arg("--input-file").arg(&fits))).expect(0);
    ended(spawn(run(&echo, "echo").args(["--input", &"9".repeat(1001)]))).expect(2).says(says);
    let map = |args: &[&str], stdin: Stdio| {
        let mut command = wasmpool("map", &echo);
        ended(spawn(command.arg("echo").args(limit).args(args).stdin(stdin).current_dir(folder.path())))
    };
    map(&["--files", "long", "fits"], Stdio::null()).expect(4).says(says).says("1 ok, 1 failed");
    map(&["--lines"], open(&long).into()).expect(4).says("line 1").says(says);
    map(&["--lines"], open(&fits).into()).expect(0);
    // An input without an end is read no further than that.
    let zeros = || Stdio::from(open(Path::new("/dev/zero")));
    ended(spawn(run(&echo, "echo").stdin(zeros()))).expect(2).says(says);
    ended(spawn(run(&prebuilt("primes"), "count").stdin(zeros()))).expect(2);
    map(&["--files", "-"], zeros()).expect(4).says(says);
}

/// Exits with a code of more than 31 bits.
const EXITS: &str = r#"(module
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (func (export "_start") (call $exit (i32.const -2))))"#;

#[test]
fn an_exit_code_is_shown_without_a_sign() {
    let folder = tempfile::tempdir().expect("a folder");
    let module = wat(folder.path(), "exits.wasm", EXITS);
    let ended = end(wasmpool("run", &module).arg("--json")).expect(254);
    let object = ended.json();
    assert_eq!((&object["exit_code"], object["ok"] == false), (&json!(4_294_967_294_u32), true), "{object}");
    end(&mut wasmpool("run", &module)).expect(254).says("exited with code 4294967294");
    let log = folder.path().join("log");
    let mut map = wasmpool("map", &module);
    end_with(map.arg("--joblog").arg(&log).arg("--lines"), "a\n")
        .expect(4)
        .says("exited with code 4294967294");
    let log = std::fs::read_to_string(&log).expect("is there");
    assert!(log.contains("\t4294967294\t0\t"), "{log}");
}

#[test]
fn an_input_whose_output_cannot_be_written_has_failed_and_the_others_have_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let module = wat(folder.path(), "echo.wasm", ECHO);
    // The place of the second's file is taken by a folder that is not empty.
    std::fs::create_dir_all(folder.path().join("out/2.bin/in")).expect("makes");
    let mut map = wasmpool("map", &module);
    map.args(["echo", "--lines", "--output-dir", "out", "--joblog", "log"]).current_dir(folder.path());
    let ended =
        end_with(&mut map, "a\nb\nc\n").expect(4).says("2 ok, 1 failed").says("cannot write out/2.bin");
    let lines = ended.json_lines();
    let oks: Vec<_> = lines.iter().map(|line| line["ok"] == true).collect();
    assert_eq!(oks, [true, false, true]);
    assert_eq!((&lines[1]["error"]["kind"], &lines[1]["file"]), (&json!("system"), &json!(null)));
    assert!(folder.path().join("out/3.bin").exists());
    // Only this input is run again by --resume-failed.
    std::fs::remove_dir_all(folder.path().join("out/2.bin")).expect("removes");
    let mut again = wasmpool("map", &module);
    again.args(["echo", "--lines", "--output-dir", "out", "--joblog", "log", "--resume-failed"]);
    end_with(again.current_dir(folder.path()), "a\nb\nc\n").expect(0).says("1 ok, 0 failed, 2 done before");
    assert_eq!(std::fs::read(folder.path().join("out/2.bin")).expect("is there"), b"b");
}

#[test]
fn a_file_that_cannot_be_loaded_is_named_by_its_digest_and_size() {
    let folder = tempfile::tempdir().expect("a folder");
    let imports = wat(folder.path(), "imports.wasm", r#"(module (import "a" "b" (func)))"#);
    let none = folder.path().join("none.wasm");
    std::fs::write(&none, "no module").expect("writes");
    for (path, says) in [(imports, "a.b"), (none, "no module")] {
        let bytes = std::fs::read(&path).expect("reads");
        let digest: String = sha2::Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let page = end(&mut wasmpool("inspect", &path)).expect(3).text();
        assert!(page.contains(&digest) && page.contains(says) && page.contains("cannot be loaded"), "{page}");
        let object = end(wasmpool("inspect", &path).arg("--json")).expect(3).json();
        assert_eq!((&object["sha256"], &object["wasm_bytes"]), (&json!(digest), &json!(bytes.len())));
        assert_eq!(object["ok"], false);
    }
}
