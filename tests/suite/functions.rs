//! Exported functions over numbers are tasks, in any module that keeps to no ABI.

use std::time::Duration;

use crate::support::{self, PATIENCE, failure, pool, wat};
use proptest::prelude::*;
use wasmpool::error::{ModuleError, TrapCode};

use wasmpool::module::{CallingConvention, ModuleKind, ModuleOptions};
use wasmpool::task::{CommandInput, Isolation};
use wasmpool::{TaskError, TaskOptions};

/// A module has at most so many tasks.
const TASKS_PER_MODULE_MAX: usize = 512;

const NUMBERS_WAT: &str = r#"(module
    (memory (export "memory") 1)
    (global $calls (mut i32) (i32.const 0))
    (func (export "add") (param $left i32) (param $right i32) (result i32)
        (i32.add (local.get $left) (local.get $right)))
    (func (export "mixed") (param $a i64) (param $b f32) (param $c f64) (result f64)
        (f64.add (f64.convert_i64_s (local.get $a))
                 (f64.add (f64.promote_f32 (local.get $b)) (local.get $c))))
    (func (export "halves") (param $of i64) (result i64 i64)
        (i64.div_s (local.get 0) (i64.const 2))
        (i64.sub (local.get 0) (i64.div_s (local.get 0) (i64.const 2))))
    (func (export "nothing"))
    (func (export "calls") (result i32)
        (global.set $calls (i32.add (global.get $calls) (i32.const 1))) (global.get $calls))
    (func $divide (export "divide") (param i32 i32) (result i32) (i32.div_s (local.get 0) (local.get 1)))
    (func (export "spin") (loop (br 0)))
    (func (export "deep") (param i32) (result i32) (call 7 (local.get 0)))
    (func (export "wide") (param v128) (result i32) (i32.const 1))
    (func (export "reference") (param externref))
)"#;

#[test]
fn a_function_over_numbers_is_called_with_them_and_returns_its_results() {
    let pool = pool(2);
    let module = wat(&pool, NUMBERS_WAT);
    let description = module.description();
    assert_eq!(description.kind, ModuleKind::Functions);
    let signatures: Vec<_> = description.tasks.iter().map(|task| task.signature()).collect();
    assert_eq!(
        signatures,
        [
            "add(left: i32, right: i32) -> i32",
            "mixed(a: i64, b: f32, c: f64) -> f64",
            "halves(of: i64) -> (i64, i64)",
            "nothing() -> ()",
            "calls() -> i32",
            "divide(p0: i32, p1: i32) -> i32",
            "spin() -> ()",
            "deep(p0: i32) -> i32",
        ]
    );
    assert!(description.tasks.iter().all(|task| task.convention == CallingConvention::Numbers));

    let add = module.task::<(i32, i32), i32>("add").expect("has these types");
    let sums = [(3, 4, 7), (-3, 4, 1), (i32::MAX, 1, i32::MIN), (i32::MIN, -1, i32::MAX)];
    for (left, right, sum) in sums {
        assert_eq!(pool.submit(&add, &(left, right)).expect("submits").result().expect("succeeds"), sum);
    }
    let mixed = module.task::<(i64, f32, f64), f64>("mixed").expect("has these types");
    let sum = pool.submit(&mixed, &(-2, 0.5, 1e300)).expect("submits").result().expect("succeeds");
    assert_eq!(sum, -2.0 + 0.5 + 1e300);
    let halves = module.task::<i64, (i64, i64)>("halves").expect("has these types");
    let (less, more) = pool.submit(&halves, &i64::MIN).expect("submits").result().expect("succeeds");
    assert_eq!((less, more), (i64::MIN / 2, i64::MIN / 2));
    let nothing = module.task::<(), ()>("nothing").expect("has these types");
    pool.submit(&nothing, &()).expect("submits").result().expect("succeeds");
    // A map goes the same way, in batches.
    let inputs: Vec<_> = (0..1000).map(|number| (number, number)).collect();
    let doubled: Result<Vec<_>, _> = pool.map(&add, inputs).collect();
    assert_eq!(doubled.expect("all succeed"), (0..1000).map(|number| 2 * number).collect::<Vec<_>>());
    // The types are checked as those of any task.
    let error = module.task::<(u32, u32), u32>("add").expect_err("has other types");
    assert!(matches!(error, ModuleError::SchemaMismatch { .. }), "{error}");
    let error = module.task::<(), i32>("wide").expect_err("is none").to_string();
    assert!(error.contains("`wide`") && error.contains("`add`"), "{error}");
}

#[test]
fn each_call_has_a_fresh_instance_unless_it_is_reused() {
    let pool = pool(1);
    let module = wat(&pool, NUMBERS_WAT);
    let calls = module.task::<(), i32>("calls").expect("has these types");
    let count = |isolation| {
        let options = TaskOptions::new().isolation(isolation);
        let run =
            || pool.submit_with(&calls, &(), options.clone()).expect("submits").result().expect("succeeds");
        [run(), run(), run()]
    };
    assert_eq!(count(wasmpool::task::Isolation::Instance), [1, 1, 1]);
    assert_eq!(count(wasmpool::task::Isolation::Reuse), [1, 2, 3]);
}

#[test]
fn a_function_over_numbers_fails_as_any_task_does() {
    let pool = pool(1);
    let module = wat(&pool, NUMBERS_WAT);
    let divide = module.task::<(i32, i32), i32>("divide").expect("has these types");
    match support::error(&pool.submit(&divide, &(1, 0)).expect("submits")) {
        TaskError::Trap { code: TrapCode::IntegerDivideByZero, backtrace, .. } => {
            assert_eq!(backtrace[0].function.as_deref(), Some("divide"));
        }
        other => panic!("{other:?}"),
    }
    let spin = module.task::<(), ()>("spin").expect("has these types");
    let spins = pool.task(&spin).timeout(Duration::from_millis(100)).submit(&()).expect("submits");
    assert!(matches!(failure(&spins).error(), TaskError::Timeout { .. }));
    let deep = module.task::<i32, i32>("deep").expect("has these types");
    let overflow = support::error(&pool.submit(&deep, &1).expect("submits"));
    assert!(matches!(overflow, TaskError::Trap { code: TrapCode::StackOverflow, .. }), "{overflow:?}");
    // Bytes that are not the function's numbers are the caller's mistake, and the worker goes on.
    let raw = module.raw_task("add").expect("is there");
    for bytes in
        [&b""[..], b"\x02", b"\x02\x04\x06", b"\xff\xff\xff\xff\xff\xff", &[0x80; 100], &[0; 1 << 20]]
    {
        let error = support::error(&pool.submit_bytes(&raw, bytes.to_vec()).expect("submits"));
        assert!(matches!(error, TaskError::InputDecode { .. }), "{bytes:?}: {error:?}");
    }
    let four = pool.submit_bytes(&raw, b"\x02\x06".to_vec()).expect("submits").result_timeout(PATIENCE);
    assert_eq!(&four.expect("in time").expect("succeeds")[..], b"\x08");
    // An output has its bound here, too.
    let options = TaskOptions::new().output_bytes_max(0);
    let add = module.task::<(i32, i32), i32>("add").expect("has these types");
    let error = support::error(&pool.submit_with(&add, &(1, 2), options).expect("submits"));
    assert!(matches!(error, TaskError::OutputTooLarge { .. }), "{error:?}");
    assert_eq!(pool.stats().workers_started, 1);
}

#[test]
fn a_reactor_is_initialised_first_with_wasi_and_without() {
    let pool = pool(1);
    let plain = wat(
        &pool,
        r#"(module (global $ready (mut i32) (i32.const 0))
            (func (export "_initialize") (global.set $ready (i32.const 7)))
            (func (export "ready") (result i32) (global.get $ready)))"#,
    );
    let wasi = wat(
        &pool,
        r#"(module (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
            (memory (export "memory") 1)
            (global $ready (mut i32) (i32.const 0))
            (func (export "_initialize") (global.set $ready (i32.add (i32.const 7) (call $random (i32.const 0) (i32.const 8)))))
            (func (export "ready") (result i32) (global.get $ready)))"#,
    );
    for module in [plain, wasi] {
        let names = module.description().task_names();
        assert_eq!(names, ["ready"]);
        let ready = module.task::<(), i32>("ready").expect("has these types");
        assert_eq!(pool.submit(&ready, &()).expect("submits").result().expect("succeeds"), 7);
    }
    let odd = wat::parse_str(r#"(module (func (export "_initialize") (param i32)) (func (export "f")))"#);
    let error = pool.load(&odd.expect("valid text")).expect_err("it cannot be initialised");
    assert!(error.to_string().contains("_initialize"), "{error}");
}

/// Its program writes one byte, and its functions count from what `_initialize` leaves.
fn command_with_functions(initialize: &str) -> String {
    format!(
        r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "\10\00\00\00\01\00\00\00")
        (global $count (mut i32) (i32.const 0))
        {initialize}
        (func (export "_start")
            (i32.store8 (i32.const 16) (i32.add (i32.const 0x30) (global.get $count)))
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
        (func (export "add") (param i32) (result i32)
            (global.set $count (i32.add (global.get $count) (local.get 0))) (global.get $count))
        (func (export "reference") (param externref)))"#
    )
}

#[test]
fn a_command_has_its_functions_as_tasks_beside_its_program() {
    let pool = pool(1);
    let module = |initialize: &str| wat(&pool, &command_with_functions(initialize));
    let of_seven = r#"(func (export "_initialize") (global.set $count (i32.const 7)))"#;
    for (initialize, start) in [("", 0), (of_seven, 7)] {
        let module = module(initialize);
        assert_eq!(module.description().kind, ModuleKind::Command);
        assert_eq!(module.description().task_names(), ["add"]);
        let add = module.task::<i32, i32>("add").expect("has these types");
        let program = module.command().expect("a command");
        // Whichever comes first, each call has an instance of its own, which is initialised.
        for number in 0..3 {
            let sum = pool.submit(&add, &number).expect("submits").result().expect("succeeds");
            assert_eq!(sum, start + number);
            let output =
                pool.submit(&program, &CommandInput::new()).expect("submits").result().expect("runs");
            assert_eq!((output.exit_code, &output.stdout[..]), (0, start.to_string().as_bytes()));
        }
        let sums: Result<Vec<_>, _> = pool.map(&add, 0..100).collect();
        assert_eq!(sums.expect("all succeed"), (start..start + 100).collect::<Vec<_>>());
        let error = module.task::<(), ()>("_start").expect_err("the program is no task");
        assert!(matches!(&error, ModuleError::UnknownTask { known, .. } if known == &["add"]), "{error}");
    }
    // The program of a module that cannot be initialised runs as ever.
    let odd = module(r#"(func (export "_initialize") (param i32))"#);
    assert!(odd.description().tasks.is_empty(), "{:?}", odd.description().tasks);
    let program = odd.command().expect("a command");
    let output = pool.submit(&program, &CommandInput::new()).expect("submits").result().expect("runs");
    assert_eq!(&output.stdout[..], b"0");
}

#[test]
fn a_function_of_a_command_shares_no_instance_with_its_program() {
    let pool = pool(1);
    let module = wat(&pool, &command_with_functions(""));
    let add = module.task::<i32, i32>("add").expect("has these types");
    let program = module.command().expect("a command");
    let reuse = || TaskOptions::new().isolation(Isolation::Reuse);
    for sum in [2, 4] {
        let future = pool.submit_with(&add, &2, reuse()).expect("submits");
        assert_eq!(future.result().expect("succeeds"), sum);
    }
    let output = pool.submit_with(&program, &CommandInput::new(), reuse()).expect("submits").result();
    assert_eq!(&output.expect("runs").stdout[..], b"0");
    let future = pool.submit_with(&add, &2, reuse()).expect("submits");
    assert_eq!(future.result().expect("succeeds"), 2);
}

#[test]
fn metered_and_deterministic_functions_are_counted() {
    let pool = pool(1);
    let wasm = wat::parse_str(NUMBERS_WAT).expect("valid text");
    let module = pool.load_with(&wasm, ModuleOptions::new().metered(true)).expect("loads");
    let spin = module.task::<(), ()>("spin").expect("has these types");
    let future = pool.task(&spin).fuel(10_000).submit(&()).expect("submits");
    assert!(matches!(failure(&future).error(), TaskError::Fuel { .. }));
}

#[test]
fn a_module_has_at_most_so_many_tasks_and_none_without_functions_over_numbers() {
    let pool = pool(1);
    let functions: String =
        (0..TASKS_PER_MODULE_MAX + 10).map(|number| format!(r#"(func (export "f{number}"))"#)).collect();
    let module = wat(&pool, &format!("(module {functions})"));
    assert_eq!(module.description().tasks.len(), TASKS_PER_MODULE_MAX);
    // One has a name that a task cannot have.
    let module = wat(&pool, r#"(module (func (export "") (param i32)) (func (export "f") (nop)))"#);
    assert_eq!(module.description().task_names(), ["f"]);
    let module = wat(&pool, r#"(module (func (export "f") (param externref)) (memory (export "memory") 1))"#);
    assert_eq!(module.description().kind, ModuleKind::Library);
    let error = module.command().expect_err("has none");
    assert!(matches!(error, ModuleError::NotACommand { .. }), "{error}");
}

#[test]
fn names_of_one_function_that_is_exported_often_cost_no_more_than_they_may() {
    let pool = pool(1);
    let params: String = (0..1000).map(|number| format!("(param $a{number:0200} i32)")).collect();
    let exports: String = (0..512).map(|number| format!(r#"(export "f{number}" (func $f))"#)).collect();
    let module = wat(&pool, &format!("(module (func $f {params}) {exports})"));
    let tasks = &module.description().tasks;
    assert_eq!(tasks.len(), 512);
    let bytes: usize = tasks.iter().flat_map(|task| &task.params).map(String::len).sum();
    assert!(bytes < 4 << 20, "{bytes} bytes of names");
    assert_eq!(tasks[511].params[999], "p999");
}

#[test]
fn numbers_of_128_bits_are_added_in_halves() {
    let pool = pool(1);
    let halves = "(local.get 0) (local.get 1) (local.get 2) (local.get 3)";
    let text = format!(
        r#"(module (func (export "add") (param i64 i64 i64 i64) (result i64 i64) {halves} i64.add128))"#
    );
    let add = wat(&pool, &text).task::<(i64, i64, i64, i64), (i64, i64)>("add").expect("has these types");
    let sum = pool.submit(&add, &(-1, 0, 1, 0)).expect("submits").result().expect("succeeds");
    assert_eq!(sum, (0, 1));
}

#[test]
fn names_of_parameters_that_are_malformed_or_missing_are_replaced() {
    let pool = pool(1);
    let signature = |text: &str| wat(&pool, text).description().tasks[0].signature();
    assert_eq!(
        signature(r#"(module (func (export "f") (param $x i32) (param i32)))"#),
        "f(p0: i32, p1: i32) -> ()"
    );
    // A section of names that is none.
    let mut wasm = wat::parse_str(r#"(module (func (export "f") (param i32)))"#).expect("valid text");
    wasm.extend(b"\0\x0a\x04name\x02\xff\xff\xff\x0f");
    let module = pool.load(&wasm).expect("loads");
    assert_eq!(module.description().tasks[0].signature(), "f(p0: i32) -> ()");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn numbers_come_back_as_they_went_whatever_their_bits(values: [(i32, i64, u32, u64); 4]) {
        let types = "i32 i64 f32 f64 ".repeat(4);
        let returned: String = (0..16).map(|index| format!("(local.get {index})")).collect();
        let text = format!(r#"(module (func (export "same") (param {types}) (result {types}) {returned}))"#);
        let pool = pool(1);
        let same = support::raw(&wat(&pool, &text), "same");
        let mut bytes = Vec::new();
        for (a, b, c, d) in values {
            bytes = postcard::to_extend(&(a, b), bytes).expect("encodes");
            bytes.extend(c.to_le_bytes());
            bytes.extend(d.to_le_bytes());
        }
        let output = pool.submit_bytes(&same, bytes.clone()).expect("submits").result().expect("succeeds");
        prop_assert_eq!(&output[..], &bytes[..]);
    }
}
