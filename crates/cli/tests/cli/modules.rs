//! Modules that load, modules that do not, and `wasmpool inspect`.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{end, prebuilt, wasmpool, wat};

#[test]
fn an_unknown_task_lists_those_there_are() {
    let ended = end(wasmpool("run", prebuilt("primes")).args(["cuont", "--input", "1"])).expect(3);
    ended.says("has no task `cuont`").says("`count`, `is_prime`, `list`");
    let json = end(wasmpool("run", prebuilt("primes")).args(["cuont", "--json"])).expect(3).json();
    assert_eq!(json["error"]["kind"], "unknown_task");
    assert_eq!(json["error"]["tasks"], json!(["count", "is_prime", "list"]));
    end(wasmpool("run", prebuilt("csv_stats")).arg("task")).expect(3).says("is a WASI command");
}

#[test]
fn modules_that_cannot_be_loaded_are_code_3_and_say_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let whole = std::fs::read(prebuilt("primes")).expect("readable");
    std::fs::write(path("cut.wasm"), &whole[..whole.len() / 2]).expect("writes");
    std::fs::write(path("text.wasm"), "no wasm at all").expect("writes");
    let imports = r#"(module (import "env" "launch" (func (param i32))) (func (export "_start")))"#;
    wat(folder.path(), "imports.wasm", imports);
    wat(folder.path(), "library.wasm", r#"(module (func (export "f") (param externref)))"#);
    let cases = [
        ("missing.wasm", "cannot read", "module_unreadable"),
        ("cut.wasm", "not a valid wasm module", "module_invalid"),
        ("text.wasm", "not a valid wasm module", "module_invalid"),
        ("imports.wasm", "env.launch", "unknown_imports"),
        (
            "library.wasm",
            "is not a WASI command: it does not export `_start`; it has no tasks",
            "not_a_command",
        ),
    ];
    for (name, says, kind) in cases {
        // The error names the file wherever it is one of several.
        end(&mut wasmpool("run", path(name))).expect(3).says(says).says(name);
        let json = end(wasmpool("run", path(name)).arg("--json")).expect(3).json();
        assert_eq!((&json["ok"], &json["error"]["kind"]), (&json!(false), &json!(kind)), "{name}");
        assert_eq!(json["error"]["file"], *path(name).to_string_lossy());
    }
    end(&mut wasmpool("map", path("cut.wasm"))).expect(3).says("not a valid wasm module");
    end(&mut wasmpool("inspect", path("cut.wasm"))).expect(3).says("not a valid wasm module");
}

#[test]
fn inspect_shows_tasks_with_signatures_docs_and_types() {
    let text = end(&mut wasmpool("inspect", prebuilt("monte_carlo"))).expect(0).text();
    for part in [
        "pi(samples: u64, seed: u64) -> f64",
        "Prices a European option",
        "option_price(contract: Contract) -> Price",
        "struct Price { price: f64, standard_error: f64 }",
        "enum Right { Call, Put }",
        "sha256        ",
    ] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "colours in a pipe");
    let always = end(wasmpool("inspect", prebuilt("monte_carlo")).args(["--color", "always"])).expect(0);
    assert!(always.text().contains('\u{1b}'));
}

#[test]
fn inspect_as_json_has_every_field() {
    let json = end(wasmpool("inspect", prebuilt("echo")).arg("--json")).expect(0).json();
    let wasm = std::fs::metadata(prebuilt("echo")).expect("there").len();
    assert_eq!((&json["name"], &json["kind"]), (&json!("echo.wasm"), &json!("tasks")));
    assert_eq!(json["wasm_bytes"], wasm);
    assert!(json["machine_code_bytes"].as_u64().is_some_and(|bytes| bytes > 0));
    assert_eq!(json["sha256"].as_str().map(str::len), Some(64));
    assert!(json["memories"][0]["min_bytes"].is_u64() && json["imports"].is_array());
    let names: Vec<_> = json["tasks"].as_array().into_iter().flatten().map(|task| &task["name"]).collect();
    assert!(names.contains(&&json!("echo")) && names.contains(&&json!("add")), "{names:?}");
    let add = task(&json, "add");
    assert_eq!(add["signature"], "add(a: i64, b: i64) -> i64");
    assert_eq!(add["params"], json!([{"name": "a", "type": "i64"}, {"name": "b", "type": "i64"}]));
    assert_eq!((&add["codec"], &add["output"]), (&json!("postcard"), &json!("i64")));
    assert_eq!(task(&json, "echo")["codec"], "raw");
}

fn task<'a>(json: &'a Value, name: &str) -> &'a Value {
    let mut tasks = json["tasks"].as_array().into_iter().flatten();
    tasks.find(|task| task["name"] == name).unwrap_or_else(|| panic!("no task {name}: {json}"))
}

#[test]
fn the_cache_is_used_the_second_time_and_not_with_no_cache() {
    let cache = tempfile::tempdir().expect("a folder");
    let from_cache = |flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wasmpool"));
        command.env_clear().arg("inspect").arg(prebuilt("c_histogram")).arg("--json").args(flags);
        end(&mut command).expect(0).json()["from_cache"].clone()
    };
    let dir = cache.path().to_str().expect("UTF-8");
    assert_eq!(from_cache(&["--cache-dir", dir]), false);
    assert_eq!(from_cache(&["--cache-dir", dir]), true);
    assert_eq!(from_cache(&["--no-cache"]), false);
}

#[test]
fn what_is_over_a_limit_of_the_compiler_says_how_to_raise_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let loops = format!(r#"(module (func (export "_start") {}{}))"#, "(loop ".repeat(251), ")".repeat(251));
    let module = wat(folder.path(), "loops.wasm", &loops);
    let inspect = |flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wasmpool"));
        end(command.env_clear().arg("inspect").arg(&module).arg("--no-cache").args(flags))
    };
    inspect(&[]).expect(3).says("251 levels of loops").says("--compile-limit loop-nesting=251");
    let error = inspect(&["--json"]).expect(3).json()["error"].clone();
    assert_eq!(error["kind"], "compile_limit");
    assert_eq!((&error["compile_limit"], &error["limit"]), (&"loop-nesting".into(), &250.into()), "{error}");
    inspect(&["--compile-limit", "loop-nesting=251"]).expect(0);
    // All that it goes over is told at once.
    let flags = ["--compile-limit", "blocks=5"];
    inspect(&flags).expect(3).says("--compile-limit blocks=251 --compile-limit loop-nesting=251 or");
    let error = inspect(&[&flags[..], &["--json"]].concat()).expect(3).json()["error"].clone();
    let other = json!({"compile_limit": "loop-nesting", "limit": 250, "seen": 251});
    assert_eq!((&error["compile_limit"], &error["others"]), (&"blocks".into(), &json!([other])), "{error}");
    inspect(&["--trust-module"]).expect(0);
    inspect(&["--trust-module", "--compile-limit", "functions=0"]).expect(3).says("functions=1");
    inspect(&["--trust-module", "--compile-cpu-time", "1ns"]).expect(3).says("--compile-cpu-time");
    inspect(&["--trust-module", "--compile-timeout", "1ns"]).expect(3).says("--compile-timeout");
    // Each instruction of a function is compiled with all others, so two megabytes of them take long.
    let product = "(local.set 0 (i64.add (i64.mul (local.get 0) (local.get 0)) (i64.load (i32.const 8))))";
    let products = product.repeat(150_000);
    let text = format!(r#"(module (memory 1) (func (export "_start") (local i64) {products}))"#);
    let module = wat(folder.path(), "large.wasm", &text);
    let large = |memory: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wasmpool"));
        command.env_clear().arg("inspect").arg(&module).args(["--no-cache", "--trust-module"]);
        end(command.args(["--compile-memory", memory]))
    };
    large("64MiB").expect(3).says("raise it with --compile-memory");
    large("1GiB").expect(0);
    inspect(&["--compile-memory", "63MiB"]).expect(2).says("it must be a size from 64.0 MiB");
    inspect(&["--compile-limit", "depth=9"]).expect(2).says("loop-nesting");
}

#[test]
fn a_memory_limit_of_the_compiler_that_cannot_be_had_is_an_error_that_says_what_can_be() {
    let folder = tempfile::tempdir().expect("a folder");
    let module = wat(folder.path(), "small.wasm", r#"(module (func (export "_start")))"#);
    let inspect = |flags: &str| {
        let script = format!(r#"ulimit -d 2000000; exec "$0" inspect "$1" --no-cache {flags}"#);
        let mut shell = Command::new("sh");
        end(shell.args(["-c", &script, env!("CARGO_BIN_EXE_wasmpool")]).arg(&module))
    };
    let error = inspect("--compile-memory 8GiB --json").expect(5).json()["error"].clone();
    assert_eq!(
        (&error["kind"], &error["most"]),
        (&"compile_limit_unavailable".into(), &2_048_000_000u64.into())
    );
    inspect("--compile-memory 8GiB").expect(5).says("no more than 2048000000 can be had").says("ulimit -Hd");
    // The default never asks for more than this process may have.
    inspect("").expect(0);
    inspect("--compile-memory 1GiB").expect(0);
}

#[test]
fn inspect_shows_what_there_is_of_a_module_that_cannot_be_loaded() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = r#"(module (import "wasmpool" "shared_len" (func (param i32) (result i64)))
        (import "env" "nope\u{1b}[31m" (func)) (memory (export "memory") 1 3) (func (export "_start")))"#;
    let module = wat(folder.path(), "unknown.wasm", text);
    let inspect = |flags: &[&str]| {
        end(Command::new(env!("CARGO_BIN_EXE_wasmpool")).arg("inspect").arg(&module).args(flags))
    };
    let ended = inspect(&["--no-cache"]).expect(3).says("shared_len, shared_read").says("env.nope");
    for words in
        ["cannot be loaded", "not provided  1", "wasmpool.shared_len: (i32) -> (i64)", "_start: () -> ()"]
    {
        assert!(ended.text().contains(words), "{words}: {}", ended.text());
    }
    assert!(!ended.text().contains('\u{1b}'), "{:?}", ended.text());
    let json = inspect(&["--no-cache", "--json"]).expect(3).json();
    assert_eq!((&json["ok"], &json["error"]["kind"]), (&false.into(), &"unknown_imports".into()));
    let lens = ["imports", "unknown_imports", "exports"].map(|list| json[list].as_array().map(Vec::len));
    assert_eq!((lens, &json["kind"]), ([Some(2), Some(1), Some(2)], &"command".into()), "{json}");
    // A module that is refused for its shape can still be seen.
    let json = inspect(&["--no-cache", "--json", "--compile-limit", "functions=0"]).expect(3).json();
    assert_eq!((&json["error"]["kind"], &json["kind"]), (&"compile_limit".into(), &"command".into()));
}

#[test]
fn every_help_has_the_exit_codes_and_examples() {
    for words in [&["--help"][..], &["help", "run"], &["map", "--help"], &["inspect", "--help"]] {
        let text = end(Command::new(env!("CARGO_BIN_EXE_wasmpool")).args(words)).expect(0).text();
        assert!(
            text.contains("Exit codes:") && text.contains("4  map: some of the inputs failed"),
            "{words:?}"
        );
    }
    end(&mut Command::new(env!("CARGO_BIN_EXE_wasmpool"))).expect(2);
    end(Command::new(env!("CARGO_BIN_EXE_wasmpool")).arg("--version")).expect(0);
}

/// A guest that returns what it reads, under the names that compilers give to the task `same-value`.
const GUEST: &str = r#"(module
    (memory (export "memory") 4)
    (func (export "wasmpool_abi_v1"))
    (func (export "wasmpool_alloc") (param i32) (result i32) i32.const 1025)
    (func (export "same_value") (param $at i32) (param $len i32) (result i64)
        (i32.store8 (i32.const 1024) (i32.const 0))
        (i64.or (i64.shl (i64.const 1024) (i64.const 32))
                (i64.extend_i32_u (i32.add (local.get $len) (i32.const 1))))))"#;

const TYPES: &str = "
/// Returns what it is given.
same-value: func(of: value) -> result<value, string>;
record value { name: string, size: option<u32> }
";

#[test]
fn types_that_are_embedded_make_typed_tasks_of_any_modules_functions() {
    let folder = tempfile::tempdir().expect("a folder");
    let module = wat(folder.path(), "guest.wasm", GUEST);
    let types = folder.path().join("types.wit");
    std::fs::write(&types, TYPES).expect("writes");
    let untyped = std::fs::read(&module).expect("readable");

    let typed = folder.path().join("typed.wasm");
    let embed = |words: &[&str]| end(wasmpool("embed", &types).arg(&module).args(words));
    let says = embed(&["--output", &typed.to_string_lossy()]).expect(0).text();
    assert!(
        says.contains("typed.wasm has 1 task:\n  same-value(of: value) -> Result<value, String>"),
        "{says}"
    );
    assert!(says.contains("Returns what it is given."), "{says}");
    assert_eq!(std::fs::read(&module).expect("readable"), untyped, "only the other file is written");

    assert_eq!(embed(&["--output", "-"]).expect(0).stdout, std::fs::read(&typed).expect("readable"));

    let json = embed(&["--json"]).expect(0).json();
    assert_eq!((&json["ok"], &json["tasks"][0]["codec"]), (&json!(true), &json!("json")));
    // Once more: the types are replaced.
    embed(&[]).expect(0);
    assert_eq!(std::fs::read(&module).expect("readable"), std::fs::read(&typed).expect("readable"));

    let run = |words: &[&str]| end(wasmpool("run", &module).args(words));
    let value = r#"{"name": "a", "size": 3}"#;
    assert_eq!(run(&["same-value", value]).expect(0).text(), "{\"name\":\"a\",\"size\":3}\n");
    assert_eq!(run(&["same-value({name: \"b\"})"]).expect(0).text(), "{\"name\":\"b\",\"size\":null}\n");
    run(&["same-value", r#"{"name": "a", "size": -1}"#])
        .expect(2)
        .says("at $.size: expected u32 (0 to 4294967295), found -1");
    let inspected = end(wasmpool("inspect", &module).arg("--json")).expect(0).json();
    assert_eq!(inspected["tasks"][0]["name"], "same-value");
}

#[test]
fn types_that_cannot_be_embedded_leave_the_module_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let module = wat(folder.path(), "guest.wasm", GUEST);
    let plain = wat(
        folder.path(),
        "plain.wasm",
        r#"(module (func (export "f") (param i32 i32) (result i64) unreachable))"#,
    );
    let component = wat(folder.path(), "component.wasm", "(component)");
    std::fs::write(path("good.wit"), TYPES).expect("writes");
    std::fs::write(path("bad.wit"), "f: func(x: u32);\ng: func(x: page);\n").expect("writes");
    std::fs::write(path("other.wit"), "other-name: func();").expect("writes");
    std::fs::write(path("long.wit"), "/".repeat(100_000)).expect("writes");
    let rust = path("rust.wasm");
    std::fs::copy(prebuilt("primes"), &rust).expect("copies");
    let cases = [
        (2, "bad.wit", &module, "bad.wit: line 2, column 12: name `page` does not exist"),
        (3, "other.wit", &module, "is called `other-name`, `other_name` or `otherName`"),
        (2, "long.wit", &module, "long.wit is longer than 65536 bytes, the limit of a module's types"),
        (2, "missing.wit", &module, "cannot read"),
        (3, "good.wit", &plain, "it does not keep to the byte ABI"),
        (3, "good.wit", &component, "it is a component, which has types of its own"),
        (3, "good.wit", &rust, "it describes its tasks already"),
        (3, "good.wit", &path("good.wit"), "the module is not valid"),
    ];
    for (code, types, module, says) in cases {
        let before = std::fs::read(module).expect("readable");
        end(wasmpool("embed", path(types)).arg(module)).expect(code).says(says);
        assert_eq!(std::fs::read(module).expect("readable"), before, "{types}");
    }
}
