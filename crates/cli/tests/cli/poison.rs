//! A stranger's text is shown, and neither obeyed nor taken for ours. A module may choose any names, and so
//! may another user who names a file.

use std::process::Command;

use postcard_schema::Schema;
use postcard_schema::schema::owned::{
    OwnedDataModelType, OwnedDataModelVariant, OwnedNamedType, OwnedNamedValue, OwnedNamedVariant,
};

use crate::harness::{Ended, end, end_with, wasmpool, wat};

/// This begins a line, sets the terminal's title, reorders text, and hides text.
const POISON: &str = "x\nforged: y\r\u{1b}]0;t\u{7}\u{9b}31m\u{200b}\u{ad}\u{e0041}\u{202e}\u{fe0f}\u{2028}";

fn is_poison(c: char) -> bool {
    c != '\n' && (c.is_control() || POISON.contains(c) && !c.is_ascii())
}

#[track_caller]
fn assert_clean(ended: &Ended) {
    for text in [&ended.text(), &ended.stderr] {
        assert!(!text.contains(is_poison), "{text:?}");
        // Further lines of a message or doc comment are indented by four or more.
        let is_forged = |line: &str| line.trim_start().starts_with("forged") && !line.starts_with("    ");
        assert!(!text.lines().any(is_forged), "{text:?}");
    }
}

fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\{byte:02x}")).collect()
}

/// Makes a module in which everything that has a name has this one. It returns its own error, or traps.
fn poisoned(folder: &std::path::Path) -> std::path::PathBuf {
    let value = || OwnedNamedValue { name: POISON.into(), ty: OwnedNamedType::from(<u8>::SCHEMA) };
    let variant =
        OwnedNamedVariant { name: POISON.into(), ty: OwnedDataModelVariant::StructVariant(vec![value()]) };
    let input = OwnedNamedType { name: POISON.into(), ty: OwnedDataModelType::Struct(vec![value()]) };
    let output = OwnedNamedType { name: format!("E{POISON}"), ty: OwnedDataModelType::Enum(vec![variant]) };
    let mut section = Vec::new();
    for (name, export) in [(POISON, POISON), ("fails", "fails"), ("traps", "traps")] {
        let head = (1u8, 0u8, export, name, format!("{POISON}\n{POISON}"), 1u8, vec![POISON]);
        let mut record = postcard::to_stdvec(&head).expect("encodes");
        record.extend(postcard::to_stdvec(&input).expect("encodes"));
        record.extend(postcard::to_stdvec(&output).expect("encodes"));
        section.extend((record.len() as u32).to_le_bytes());
        section.extend(record);
    }
    let section = escaped(&section);
    let name = escaped(POISON.as_bytes());
    let words = escaped(POISON.as_bytes());
    let len = 1 + POISON.len();
    wat(
        folder,
        "poisoned.wasm",
        &format!(
            r#"(module
            (@custom "wasmpool.tasks" "{section}")
            (memory (export "memory") 1)
            (data (i32.const 16) "\01{words}")
            (func (export "wasmpool_abi_v1"))
            (func (export "wasmpool_alloc") (param i32) (result i32) (i32.const 1024))
            (func $fails (export "fails") (export "{name}") (param i32 i32) (result i64)
                (i64.or (i64.shl (i64.const 16) (i64.const 32)) (i64.const {len})))
            (func (@name "{name}") (export "traps") (param i32 i32) (result i64) unreachable))"#
        ),
    )
}

#[test]
fn nothing_that_is_printed_of_a_module_is_raw() {
    let folder = tempfile::tempdir().expect("a folder");
    let module = poisoned(folder.path());
    let ran = |verb: &str, words: &[&str]| end(wasmpool(verb, &module).args(words));
    let shown = ran("inspect", &[]).expect(0);
    assert!(shown.text().contains("x\\nforged: y\\r\\u{1b}]0;t"), "it is shown: {}", shown.text());
    let input = format!("{{{}: 7}}", serde_json::Value::from(POISON));
    let input = ["--input", &input];
    let mut all = vec![
        shown,
        ran("inspect", &["--json"]).expect(0),
        ran("run", &[]).expect(2),
        ran("run", &["--json"]).expect(2),
        ran("run", &["missing"]).expect(3),
        ran("run", &[POISON]).expect(2),
        ran("run", &["fails", "--input", "7"]).expect(2),
        ran("run", &["fails", "--input", "{\"a\": 7}"]).expect(2),
        ran("run", &["fails", "--domain", POISON, input[0], input[1]]).expect(1),
        ran("run", &["--deterministic", "7", "traps", input[0], input[1], "-v"]).expect(1),
        ran("bench", &["fails", input[0], input[1]]).expect(1),
    ];
    for task in ["fails", "traps", POISON] {
        all.push(ran("run", &[task, input[0], input[1]]).expect(1));
        all.push(ran("run", &[task, input[0], input[1], "--json"]).expect(1));
        let mut map = wasmpool("map", &module);
        all.push(
            end_with(map.args([task, "--jsonl", "--progress", "always"]), format!("{}\n7\n", input[1]))
                .expect(4),
        );
        let mut rehearsed = wasmpool("map", &module);
        all.push(
            end_with(rehearsed.args([task, "--jsonl", "--dry-run"]), format!("{}\n7\n", input[1])).expect(4),
        );
    }
    all.iter().for_each(assert_clean);
}

#[test]
fn nothing_that_is_printed_of_what_somebody_else_named_is_raw() {
    let folder = tempfile::tempdir().expect("a folder");
    let import = escaped(POISON.as_bytes());
    let text = format!(r#"(module (import "{import}" "{import}" (func)))"#);
    let unknown = wat(folder.path(), "unknown.wasm", &text);
    let named = folder.path().join(format!("{POISON}.wasm"));
    std::fs::copy(poisoned(folder.path()), &named).expect("copies");
    let missing = folder.path().join(format!("{POISON}.missing"));
    let bad = folder.path().join(format!("{POISON}.bad"));
    std::fs::write(&bad, "no module").expect("writes");
    let mut all: Vec<_> =
        [&unknown, &missing, &bad].map(|path| end(&mut wasmpool("inspect", path)).expect(3)).into();
    all.push(end(wasmpool("inspect", &unknown).arg("--json")).expect(3));
    all.push(end(&mut wasmpool("inspect", &named)).expect(0));
    all.push(end(wasmpool("inspect", &named).arg("--json")).expect(0));
    let mut files = wasmpool("map", &named);
    all.push(end(files.args(["fails", "--files"]).arg(&bad)).expect(4));
    let mut usage = Command::new(env!("CARGO_BIN_EXE_wasmpool"));
    all.push(end(usage.env_clear().args(["inspect", "a", POISON])).expect(2));
    let mut config = Command::new(env!("CARGO_BIN_EXE_wasmpool"));
    all.push(end(config.env_clear().env("WASMPOOL_CACHE_DIR", POISON).arg("config")).expect(0));
    all.iter().for_each(assert_clean);
}
