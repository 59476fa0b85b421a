//! What an error says of where a task failed: lines of its source, the frames that matter, and the words of its language's
//! runtime.

use wasmpool::error::{Frame, TrapCode};
use wasmpool::module::{Interrupt, ModuleOptions, SourceLines};
use wasmpool::task::CommandInput;
use wasmpool::{Module, Pool, TaskError, TaskOptions};

use crate::support::{self, error, raw, wat};

/// Compiled from crates/proto/fixtures/places.c, with DWARF 4 and with DWARF 5.
const PLACES: [&[u8]; 2] = [
    include_bytes!("../../crates/proto/fixtures/places4.wasm"),
    include_bytes!("../../crates/proto/fixtures/places5.wasm"),
];

fn divided(pool: &Pool, module: &Module) -> Vec<Frame> {
    let task = module.task::<(i32, i32), i32>("divided").expect("has these types");
    assert_eq!(pool.submit(&task, &(3, 1)).expect("submits").result().expect("succeeds"), 7);
    match error(&pool.submit(&task, &(3, 0)).expect("submits")) {
        TaskError::Trap { code: TrapCode::IntegerDivideByZero, backtrace, .. } => backtrace,
        other => panic!("{other:?}"),
    }
}

/// Each frame without its offset, which depends on the compiler.
fn shown(backtrace: &[Frame]) -> Vec<String> {
    let without_offset = |frame: &Frame| {
        let shown = frame.to_string();
        match (shown.find(" (0x"), shown.find(") at ")) {
            (Some(start), Some(end)) => format!("{}{}", &shown[..start], &shown[end + 1..]),
            _ => shown,
        }
    };
    backtrace.iter().map(without_offset).collect()
}

const EXPECTED: [&str; 4] = [
    "divide (inlined) at src/places.c:7:14",
    "twice (inlined) at src/places.c:11:16",
    "outer at src/places.c:17:16",
    "divided at src/places.c:23:12",
];

#[test]
fn a_backtrace_names_file_line_and_column_of_inlined_functions_too() {
    let pool = support::pool(1);
    for wasm in PLACES {
        for options in [
            ModuleOptions::new(),
            ModuleOptions::new().metered(true),
            ModuleOptions::new().deterministic(true),
            ModuleOptions::new().interrupt(Interrupt::Kill),
        ] {
            let module = pool.load_with(wasm, options.clone()).expect("loads");
            assert_eq!(module.description().source_lines, SourceLines::Known);
            assert_eq!(shown(&divided(&pool, &module)), EXPECTED, "{options:?}");
        }
    }
}

#[test]
fn a_module_from_the_cache_knows_its_lines_and_one_without_debug_information_none() {
    for from_cache in [false, true] {
        let pool = support::pool(1);
        let module = pool.load(PLACES[0]).expect("loads");
        assert!(!from_cache || module.from_cache());
        assert_eq!(shown(&divided(&pool, &module)), EXPECTED);
    }
    let pool = support::pool(1);
    let module = wat(&pool, r#"(module (func (export "f") unreachable))"#);
    assert_eq!(module.description().source_lines, SourceLines::Absent);
    let failed = error(&pool.submit(&module.task::<(), ()>("f").expect("has it"), &()).expect("submits"));
    assert!(matches!(failed, TaskError::Trap { backtrace, .. } if backtrace[0].location.is_none()));
}

#[test]
fn the_modules_in_a_component_have_their_lines() {
    let text = r#"(component
        (core module $m (func (export "divided") (param i32 i32) (result i32) unreachable))
        (core instance $i (instantiate $m))
        (func (export "divided") (param "a" s32) (param "b" s32) (result s32)
            (canon lift (core func $i "divided"))))"#;
    let component = wat::parse_str(text).expect("valid text");
    // The first section is the module: one byte for what it is, and one for its length.
    let (head, rest) = component.split_at(8);
    assert_eq!(rest[0], 1, "a core module");
    let behind = &rest[2 + usize::from(rest[1])..];
    let len = PLACES[0].len();
    let section = [1, len as u8 | 0x80, (len >> 7) as u8];
    let component = [head, &section[..], PLACES[0], behind].concat();

    let pool = support::pool(1);
    let module = pool.load(&component).expect("loads");
    assert_eq!(module.description().source_lines, SourceLines::Known);
    assert_eq!(shown(&divided(&pool, &module)), EXPECTED);
}

/// A custom section that says it is debug information, and is anything.
#[test]
fn damaged_debug_information_costs_lines_and_never_the_module() {
    let pool = support::pool(1);
    let at = |name: &str| {
        let place = PLACES[0].windows(name.len()).position(|part| part == name.as_bytes()).expect("has it");
        place + name.len()
    };
    for (section, lines) in [(".debug_abbrev", SourceLines::Damaged), (".debug_line", SourceLines::Damaged)] {
        let mut wasm = PLACES[0].to_vec();
        wasm[at(section)..][..24].fill(0xff);
        let module = pool.load(&wasm).expect("loads");
        assert_eq!(module.description().source_lines, lines, "{section}");
        let backtrace = divided(&pool, &module);
        assert!(backtrace.iter().all(|frame| frame.location.is_none()), "{backtrace:?}");
        assert_eq!(backtrace.len(), 2);
    }
}

#[test]
fn the_frames_of_a_panic_in_rust_are_left_out_and_counted() {
    let pool = support::pool(1);
    let faults = support::load(&pool, "faults");
    let failed = error(&pool.submit_bytes(&raw(&faults, "panic_with_location"), "").expect("submits"));
    let TaskError::Panic { backtrace, .. } = &failed else { panic!("{failed:?}") };
    let names: Vec<_> = backtrace.iter().filter_map(|frame| frame.function.as_deref()).collect();
    let is_librarys = |name: &&str| {
        ["core::", "std::", "__rust"].iter().any(|start| name.starts_with(start))
            || name.contains("panic_hook")
    };
    assert!(!names.is_empty() && !names.iter().any(is_librarys), "{names:?}");
    let left_out = backtrace[0].left_out;
    assert!(left_out > 1, "{failed}");
    let said = format!("\n    ({left_out} frames of the panic's own are left out)\n    {left_out}: ");
    assert!(failed.to_string().contains(&said), "{failed}");
    // Of a trap that is no panic all frames are kept.
    match error(&pool.submit_bytes(&raw(&faults, "unreachable"), "").expect("submits")) {
        TaskError::Trap { backtrace, .. } => assert_eq!(backtrace[0].left_out, 0),
        other => panic!("{other:?}"),
    }
}

/// What AssemblyScript's compiler makes of `throw new Error("größer als 3")` in line 2 of a.ts, and of `trace` and
/// `Math.random`.
const SCRIPT_WAT: &str = r#"(module
    (import "env" "abort" (func $abort (param i32 i32 i32 i32)))
    (import "env" "trace" (func $trace (param i32 i32 f64 f64 f64 f64 f64)))
    (import "env" "seed" (func $seed (result f64)))
    (memory (export "memory") 1)
    (data (i32.const 16) "\18\00\00\00g\00r\00\f6\00\df\00e\00r\00 \00a\00l\00s\00 \003\00")
    (data (i32.const 64) "\08\00\00\00a\00.\00t\00s\00")
    (data (i32.const 65532) "\01\00\00\00")
    (func (export "throws") (call $abort (i32.const 20) (i32.const 68) (i32.const 2) (i32.const 14)) unreachable)
    (func (export "aborts") (call $abort (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
    (func (export "lies") (param i32) (call $abort (local.get 0) (i32.const 68) (i32.const 1) (i32.const 1)))
    (func (export "traces") (call $trace (i32.const 68) (i32.const 2) (f64.const 3) (f64.const 7.5) (f64.const 0)
        (f64.const 0) (f64.const 0)))
    (func (export "seeds") (result f64 f64) (call $seed) (call $seed)))"#;

#[test]
fn a_module_of_assembly_script_says_where_and_why_it_aborts() {
    let pool = support::pool(1);
    let module = wat(&pool, SCRIPT_WAT);
    let task = |name: &str| module.task::<(), ()>(name).expect("has it");
    let panicked = |name: &str| match error(&pool.submit(&task(name), &()).expect("submits")) {
        TaskError::Panic { message, location, backtrace } => {
            assert_eq!(backtrace.len(), 1, "{backtrace:?}");
            (message, location)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(panicked("throws"), ("größer als 3".into(), "a.ts:2:14".into()));
    assert_eq!(panicked("aborts"), ("abort".into(), ":0:0".into()));
    pool.submit(&task("traces"), &()).expect("submits").result().expect("succeeds");
    // A text that is not in the memory.
    let lies = module.task::<i32, ()>("lies").expect("has it");
    for pointer in [3, 65_534, 65_536, -1, i32::MIN] {
        match error(&pool.submit(&lies, &pointer).expect("submits")) {
            TaskError::Trap { code: TrapCode::MemoryOutOfBounds, .. } => {}
            other => panic!("{pointer}: {other:?}"),
        }
    }
}

#[test]
fn the_random_numbers_of_assembly_script_follow_the_seed_of_a_deterministic_task() {
    let pool = support::pool(1);
    let options = ModuleOptions::new().deterministic(true);
    let module = pool.load_with(&wat::parse_str(SCRIPT_WAT).expect("valid text"), options).expect("loads");
    let task = module.task::<(), (f64, f64)>("seeds").expect("has it");
    let drawn = |options: TaskOptions| {
        pool.submit_with(&task, &(), options).expect("submits").result().expect("ends")
    };
    let seeded = |seed| drawn(TaskOptions::new().deterministic(seed));
    assert_eq!(seeded(7), seeded(7));
    assert_ne!(seeded(7), seeded(8));
    let (first, second) = seeded(7);
    assert!(first != second && first.fract() == 0.0 && first >= 0.0, "{first} {second}");
}

/// A module that writes a text to stderr and then ends in this way, as a runtime does when it gives up.
fn writes_and(export: &str, end: &str, text: &str) -> Vec<u8> {
    let escaped = text.replace('\n', "\\0a");
    let (low, high) = (text.len() & 0xff, text.len() >> 8);
    let module = format!(
        r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 2)
        (data (i32.const 8) "\10\00\00\00\{low:02x}\{high:02x}\00\00")
        (data (i32.const 16) "{escaped}")
        (func (export "{export}")
            (drop (call $write (i32.const 2) (i32.const 8) (i32.const 1) (i32.const 0))) {end}))"#
    );
    wat::parse_str(module).expect("valid text")
}

const EXITS: &str = "(call $exit (i32.const 2))";

/// What Go writes before it gives up: its stack is longer than what an error shows of stderr.
fn words_of_go() -> String {
    format!("it began\npanic: nil map\n\ngoroutine 1 [running]:\n{}", "main.f() ".repeat(100))
}

#[test]
fn the_error_of_a_task_that_traps_or_exits_has_the_last_words_of_its_stderr() {
    let pool = support::pool(1);
    let failed = |end: &str, text: &str| {
        let module = pool.load(&writes_and("fails", end, text)).expect("loads");
        error(&pool.submit(&module.task::<(), ()>("fails").expect("has it"), &()).expect("submits"))
    };
    match failed("unreachable", "it was\ntoo large") {
        TaskError::Trap { stderr, .. } => assert_eq!(stderr, "it was\ntoo large"),
        other => panic!("{other:?}"),
    }
    let exited = failed(EXITS, "it was too large").to_string();
    assert_eq!(exited, "exited with code 2; stderr ends: it was too large");
    let panicked = failed("unreachable", &words_of_go()).to_string();
    assert!(panicked.starts_with("trap: unreachable executed; stderr has: panic: nil map\n"), "{panicked}");
}

#[test]
fn the_message_of_a_command_in_go_is_in_its_error() {
    let pool = support::pool(1);
    let module = pool.load(&writes_and("_start", EXITS, &words_of_go())).expect("loads");
    let command = module.command().expect("is one");
    let said = error(&pool.submit(&command, &CommandInput::new()).expect("submits")).to_string();
    assert!(said.starts_with("exited with code 2; stderr has: panic: nil map\n"), "{said}");
    assert!(said.len() < 600 && !said.contains("it began"), "{said}");
}
