//! Components made of modules for WASI preview 1. Only in the package tests/componentized are they made, whose build
//! script is the program that does it: its Cargo.toml has the reason.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// The program that makes components; none where this is compiled as a part of another package.
const PROGRAM: Option<&str> = option_env!("WASMPOOL_COMPONENTIZE");

/// Says whether the tests of this executable are those of components.
pub const IS_HERE: bool = PROGRAM.is_some();

/// Returns a WASI command as a component that exports `wasi:cli/run`.
pub fn command(module: &[u8]) -> Vec<u8> {
    run(&["command"], module)
}

/// Returns a module as a component of a world: WIT text that holds one world. The module has the exports that the
/// world's functions take by the canonical ABI.
pub fn of_world(module: &[u8], wit: &str) -> Vec<u8> {
    run(&["world", wit], module)
}

fn run(arguments: &[&str], module: &[u8]) -> Vec<u8> {
    let program = PROGRAM.expect("only tests/componentized makes components");
    let mut command = Command::new(program);
    let mut child =
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("runs");
    // It reads all before it writes.
    child.stdin.take().expect("a pipe").write_all(module).expect("is read");
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success(), "{arguments:?}: {}", output.status);
    output.stdout
}

/// The head of an untyped task that has a name, in a module's text.
const TASK: &str = "(func (export \"";
const TASK_TYPE: &str = "\") (param $at i32) (param $size i32) (result i64)";

/// Returns a module of untyped tasks as a component with a function from bytes to bytes for each task. The tasks must
/// be headed as [`TASK`] and [`TASK_TYPE`] have it, and each of them must succeed: their status byte is left out.
pub fn of_tasks(text: &str) -> Vec<u8> {
    let mut names = Vec::new();
    // The exports of the tasks' own names belong to the functions by the canonical ABI.
    let mut core = String::new();
    for line in text.lines() {
        let task = line.trim_start().strip_prefix(TASK).and_then(|line| line.split_once(TASK_TYPE));
        match task {
            Some((name, rest)) => {
                core += &format!("(func $task_{name} {}{rest}\n", &TASK_TYPE[3..]);
                names.push(name);
            }
            None => core += &format!("{line}\n"),
        }
    }
    let core = core.trim_end().strip_suffix(')').expect("the module's end");
    let functions = names.iter().map(|name| {
        let kebab = name.replace('_', "-");
        format!(
            "(func (export \"{kebab}\") (param i32 i32) (result i32)
                (call $lift (call $task_{name} (local.get 0) (local.get 1))))\n"
        )
    });
    let core = format!("{core} {CANONICAL} {})", functions.collect::<String>());
    let exports = names
        .iter()
        .map(|name| format!("export %{}: func(input: list<u8>) -> list<u8>;\n", name.replace('_', "-")));
    let wit = format!("package tests:guest; world guest {{ {} }}", exports.collect::<String>());
    of_world(&wat::parse_str(&core).expect("valid text"), &wit)
}

/// The functions of the canonical ABI over those of the byte ABI. The input goes where `wasmpool_alloc` has it. What
/// the adapter asks for lies above all that the guest uses (its four pages), and is never given back. A result is
/// where the guest put it, behind the status byte; its pointer and its length are at 3072.
const CANONICAL: &str = r#"
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
    (global $end (mut i32) (i32.const 262144))
    (func (export "cabi_realloc_adapter")
        (param $old i32) (param $old_len i32) (param $align i32) (param $len i32) (result i32)
        (local $at i32) (local $pages i32)
        (local.set $at (i32.and (i32.add (global.get $end) (i32.sub (local.get $align) (i32.const 1)))
                                (i32.sub (i32.const 0) (local.get $align))))
        (global.set $end (i32.add (local.get $at) (local.get $len)))
        (local.set $pages (i32.sub (i32.shr_u (i32.add (global.get $end) (i32.const 65535)) (i32.const 16))
                                   (memory.size)))
        (if (i32.gt_s (local.get $pages) (i32.const 0))
            (then (if (i32.eq (memory.grow (local.get $pages)) (i32.const -1)) (then unreachable))))
        (if (local.get $old_len)
            (then (memory.copy (local.get $at) (local.get $old) (local.get $old_len))))
        (local.get $at))
    (func $lift (param $packed i64) (result i32)
        (i32.store (i32.const 3072)
            (i32.add (i32.wrap_i64 (i64.shr_u (local.get $packed) (i64.const 32))) (i32.const 1)))
        (i32.store (i32.const 3076) (i32.sub (i32.wrap_i64 (local.get $packed)) (i32.const 1)))
        (i32.const 3072))
"#;
