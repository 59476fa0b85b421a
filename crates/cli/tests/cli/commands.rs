//! `run` and `map` of WASI commands: their output is shown however they end.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use serde_json::json;

use crate::harness::{Ended, end, end_with, ended, spawn, wasmpool, wat};

/// The guest says `out` and `err`. Then it exits with its first argument as its code, or else it traps
/// (`trap`), loops (`loop`), or is refused memory and exits with 7 (`memory`).
const SAYS: &str = r#"(module
    (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "out\nerr\n")
    (func $say (param $fd i32) (param $at i32)
        (i32.store (i32.const 0) (local.get $at))
        (i32.store (i32.const 4) (i32.const 4))
        (drop (call $write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
    (func (export "_start") (local $at i32) (local $c i32) (local $code i32)
        (drop (call $args (i32.const 1024) (i32.const 2048)))
        (local.set $at (i32.load (i32.const 1028)))
        (local.set $c (i32.load8_u (local.get $at)))
        (call $say (i32.const 1) (i32.const 100))
        (call $say (i32.const 2) (i32.const 104))
        (if (i32.eq (local.get $c) (i32.const 0x74)) (then unreachable))
        (if (i32.eq (local.get $c) (i32.const 0x6c)) (then (loop (br 0))))
        (if (i32.eq (local.get $c) (i32.const 0x6d)) (then
            (drop (memory.grow (i32.const 65000)))
            (call $exit (i32.const 7))))
        (block $end (loop $digits
            (br_if $end (i32.eqz (local.get $c)))
            (local.set $code (i32.add (i32.mul (local.get $code) (i32.const 10))
                (i32.sub (local.get $c) (i32.const 48))))
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (local.set $c (i32.load8_u (local.get $at)))
            (br $digits)))
        (call $exit (local.get $code))))"#;

#[test]
fn what_a_command_wrote_before_it_failed_is_shown_in_text_and_in_json() {
    let folder = tempfile::tempdir().expect("a folder");
    let says = wat(folder.path(), "says.wasm", SAYS);
    for (flags, how, kind, words) in [
        (&[][..], "trap", "trap", "unreachable executed"),
        (&["--timeout", "2s"], "loop", "timeout", "timed out after 2s"),
    ] {
        let run = |json: &[&str]| end(wasmpool("run", &says).args(flags).args(json).args(["--", how]));
        let text = run(&[]).expect(1).says(words);
        assert_eq!(text.text(), "out\n", "{how}");
        assert!(text.stderr.starts_with("err\nerror: "), "{how}: {}", text.stderr);
        let json = run(&["--json"]).expect(1).json();
        let said = (&json["ok"], &json["error"]["kind"], &json["stdout"], &json["stderr"]);
        assert_eq!(said, (&json!(false), &json!(kind), &json!("out\n"), &json!("err\n")), "{how}");
        let mut map = wasmpool("map", &says);
        let map = end_with(map.args(flags).args(["--lines", "--", "{}"]), format!("{how}\n0\n")).expect(4);
        let lines = map.json_lines();
        let said = (&lines[0]["error"]["kind"], &lines[0]["stdout"], &lines[0]["stderr"]);
        assert_eq!(said, (&json!(kind), &json!("out\n"), &json!("err\n")), "{how}");
        assert_eq!(lines[1]["ok"], true);
        let outputs = folder.path().join(how);
        let mut map = wasmpool("map", &says);
        map.args(flags).arg("--output-dir").arg(&outputs).args(["--lines", "--", "{}"]);
        let line = &end_with(&mut map, format!("{how}\n")).expect(4).json_lines()[0];
        let read = |name: &str| std::fs::read_to_string(outputs.join(name)).expect("a file");
        assert_eq!((read("1.out"), read("1.err")), ("out\n".into(), "err\n".into()), "{how}");
        assert!(line["file"].as_str().is_some_and(|file| file.ends_with("1.out")), "{line}");
    }
}

#[test]
fn exit_codes_up_to_255_are_passed_on_and_others_are_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let says = wat(folder.path(), "says.wasm", SAYS);
    for (code, shown) in
        [(0, 0), (1, 1), (125, 125), (126, 126), (200, 200), (255, 255), (256, 1), (511, 255)]
    {
        let argument = code.to_string();
        let text = end(wasmpool("run", &says).args(["--", &argument])).expect(shown);
        assert_eq!(text.text(), "out\n");
        assert_eq!(text.stderr.contains(&format!("exited with code {code}:")), code > 255, "{}", text.stderr);
        let json = end(wasmpool("run", &says).args(["--json", "--", &argument])).expect(shown).json();
        assert_eq!((&json["exit_code"], &json["stdout"]), (&json!(code), &json!("out\n")));
    }
}

#[test]
fn memory_that_was_refused_is_in_the_report_and_said_where_the_command_failed() {
    let folder = tempfile::tempdir().expect("a folder");
    let says = wat(folder.path(), "says.wasm", SAYS);
    end(wasmpool("run", &says).args(["--", "memory"])).expect(7).says("memory was refused once, first ");
    let refusals = |how: &str| {
        end(wasmpool("run", &says).args(["--json", "--", how])).json()["report"]["refusals"].clone()
    };
    let refused = refusals("memory");
    assert_eq!((&refused["count"], &refused["first"]["kind"]), (&json!(1), &json!("memory")));
    assert_eq!(refused["first"], refused["last"]);
    assert_eq!(refused["last"]["requested"], json!(65_001_u64 << 16));
    assert_eq!(refusals("7"), json!({"count": 0, "first": null, "last": null}));
}

#[test]
fn a_line_with_a_nul_is_no_argument_and_the_others_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let says = wat(folder.path(), "says.wasm", SAYS);
    let map = |flags: &[&str]| {
        let mut command = wasmpool("map", &says);
        command.args(["--lines"]).args(flags).args(["--", "{}"]);
        end_with(&mut command, &b"0\n0\0trap\n0\n"[..])
    };
    let lines = map(&[]).expect(4).json_lines();
    let oks: Vec<_> = lines.iter().map(|line| line["ok"] == true).collect();
    assert_eq!(oks, [true, false, true]);
    assert_eq!(lines[1]["error"]["kind"], "input");
    assert!(lines[1].get("stdout").is_none(), "it never ran: {}", lines[1]);
    map(&["--dry-run"]).says("an argument with '\\0' in it");
}

#[test]
fn clocks_are_as_fine_as_the_flag_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = wat(
        folder.path(),
        "clock.wasm",
        r#"(module
            (import "wasi_snapshot_preview1" "clock_res_get" (func $resolution (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1)
            (func (export "_start")
                (drop (call $resolution (i32.const 1) (i32.const 8)))
                (call $exit (i32.wrap_i64 (i64.div_u (i64.load (i32.const 8)) (i64.const 1000))))))"#,
    );
    for (flags, code) in
        [(&["--clock-resolution", "20us"][..], 20), (&["--clock-resolution", "0s"], 0), (&[], 1000 & 0xff)]
    {
        end(wasmpool("run", &clock).args(flags)).expect(code);
    }
}

/// The guest ignores its stdin (`n`), copies it (`c`), or reads three bytes (`r`), as its first argument
/// says.
const READS: &str = r#"(module
    (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 2)
    (data (i32.const 100) "ok\n")
    (func $at (param $at i32) (param $len i32)
        (i32.store (i32.const 0) (local.get $at))
        (i32.store (i32.const 4) (local.get $len)))
    (func $copy (param $len i32) (result i32)
        (call $at (i32.const 65536) (local.get $len))
        (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
        (call $at (i32.const 65536) (i32.load (i32.const 8)))
        (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))
        (i32.load (i32.const 8)))
    (func (export "_start") (local $how i32)
        (drop (call $args (i32.const 1024) (i32.const 2048)))
        (local.set $how (i32.load8_u (i32.load (i32.const 1028))))
        (if (i32.eq (local.get $how) (i32.const 0x63)) (then (loop (br_if 0 (call $copy (i32.const 65536))))))
        (if (i32.eq (local.get $how) (i32.const 0x72)) (then (drop (call $copy (i32.const 3)))))
        (call $at (i32.const 100) (i32.const 3))
        (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))))"#;

/// Runs it with this stdin.
fn reads(module: &std::path::Path, how: &str, stdin: impl Into<Stdio>) -> Ended {
    ended(spawn(wasmpool("run", module).args(["--", how]).stdin(stdin)))
}

#[test]
fn a_command_leaves_what_it_does_not_read_to_whoever_reads_next() {
    let folder = tempfile::tempdir().expect("a folder");
    let module = wat(folder.path(), "reads.wasm", READS);
    // The first stdin is a pipe, and the second a file, whose offset is shared.
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(b"onetworest").expect("writes");
    drop(writer);
    let input = folder.path().join("input");
    std::fs::write(&input, "onetworest").expect("writes");
    let file = std::fs::File::open(&input).expect("opens");
    let sources: [OwnedFd; 2] = [reader.into(), file.into()];
    for source in sources {
        let next = |how| reads(&module, how, source.try_clone().expect("a descriptor")).expect(0).text();
        assert_eq!(next("nothing"), "ok\n");
        assert_eq!(next("read"), "oneok\n");
        assert_eq!(next("read"), "twook\n");
        assert_eq!(next("nothing"), "ok\n");
        assert_eq!(next("copy"), "restok\n");
    }
    // The flag makes stdin empty, even for a command that asks for it.
    let file = std::fs::File::open(&input).expect("opens");
    let flag =
        ended(spawn(wasmpool("run", &module).args(["--no-stdin", "--", "copy"]).stdin(file))).expect(0);
    assert_eq!(flag.text(), "ok\n");
    end(wasmpool("run", &module).args(["--no-stdin", "--input", "x", "--", "copy"])).expect(2);
}

#[test]
fn a_command_that_reads_nothing_waits_for_nothing_and_one_that_waits_ends_at_its_deadline() {
    let folder = tempfile::tempdir().expect("a folder");
    let module = wat(folder.path(), "reads.wasm", READS);
    // The other end stays open and silent.
    let (reader, _writer) = std::io::pipe().expect("a pipe");
    assert_eq!(reads(&module, "nothing", reader.try_clone().expect("a descriptor")).expect(0).text(), "ok\n");
    let mut waits = wasmpool("run", &module);
    waits.args(["--timeout", "200ms", "--", "copy"]).stdin(reader);
    ended(spawn(&mut waits)).expect(1).says("timed out after 200ms");
    // A command that does not read must not be fed an endless stdin first.
    let zeros = std::fs::File::open("/dev/zero").expect("opens");
    assert_eq!(reads(&module, "nothing", zeros).expect(0).text(), "ok\n");
    // A folder cannot be read, but only a command that reads may complain.
    let directory = std::fs::File::open(folder.path()).expect("opens");
    assert_eq!(reads(&module, "nothing", directory).expect(0).text(), "ok\n");
}

#[test]
fn an_input_file_of_one_dash_is_the_stdin_that_is_read_as_it_comes() {
    let folder = tempfile::tempdir().expect("a folder");
    let module = wat(folder.path(), "reads.wasm", READS);
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(b"one").expect("writes");
    let mut command = wasmpool("run", &module);
    command.args(["--input-file", "-", "--", "read"]).stdin(reader);
    // The pipe stays open, and the command must end without its end.
    assert_eq!(ended(spawn(&mut command)).expect(0).text(), "oneok\n");
    drop(writer);
}

#[test]
fn a_function_that_a_command_exports_is_called_by_its_name_and_the_program_without_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = SAYS.trim_end().strip_suffix(')').expect("a module").to_string()
        + r#"(func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
            (func (export "reference") (param externref)))"#;
    let module = wat(folder.path(), "tool.wasm", &text);
    let run = |words: &[&str]| end(wasmpool("run", &module).args(words));
    for words in
        [&["add", "3", "4"][..], &["add", "--", "-3", "10"], &["add(3, 4)"], &["add", "--input", "[3,4]"]]
    {
        assert_eq!(run(words).expect(0).text(), "7\n", "{words:?}");
    }
    // Without a name, and whatever its arguments are, it is the program.
    for (words, code) in [(&[][..], 0), (&["--", "5"], 5)] {
        assert_eq!(run(words).expect(code).text(), "out\n", "{words:?}");
    }
    run(&["sub", "3"]).expect(3).says("has no task `sub`, but `add`").says("follow `--`");
    run(&["add", "3"]).expect(2).says("takes 2 arguments");
    run(&["add", "3", "4", "--env", "A=B"]).expect(2).says("--env is for");
    let lines =
        end_with(wasmpool("map", &module).args(["add", "--jsonl"]), b"[1,2]\n[3,4]\n").expect(0).json_lines();
    let mut sums: Vec<_> = lines.iter().map(|line| line["output"].clone()).collect();
    sums.sort_by_key(|sum| sum.as_i64());
    assert_eq!(sums, [json!(3), json!(7)]);
    let page = end(&mut wasmpool("inspect", &module)).expect(0).text();
    for words in ["WASI command", "add(p0: i32, p1: i32) -> i32", "reference: (externref) -> ()"] {
        assert!(page.contains(words), "no {words:?} in:\n{page}");
    }
    assert!(!page.contains("_start: "), "{page}");
    let page = end(wasmpool("inspect", &module).arg("--json")).expect(0).json();
    assert_eq!((&page["kind"], &page["tasks"][0]["name"]), (&json!("command"), &json!("add")));
    end(wasmpool("bench", &module).args(["add", "1", "2", "--time", "50ms"])).expect(0);
}
