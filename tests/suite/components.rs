//! Components: each exported function is a task with types, and a command runs as any command does.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use wasmpool::error::{ModuleError, TrapCode};
use wasmpool::module::{CallingConvention, Interrupt, ModuleForm, ModuleKind, ModuleOptions};
use wasmpool::task::{Isolation, LogOverflow};
use wasmpool::{Module, Pool, Schema, TaskError, TaskFailure, TaskFuture, TaskOptions};

use crate::support::{self, PATIENCE, build, builder, pool, wat};

/// A module that gives out memory and never takes it back, with functions over it.
const CORE: &str = r#"
    (core module $m
        (memory (export "memory") 1)
        (global $end (mut i32) (i32.const 1024))
        (global $calls (mut i32) (i32.const 0))
        (func $alloc (export "realloc") (param $old i32) (param $old_len i32) (param $align i32) (param $len i32) (result i32)
            (local $at i32) (local $pages i32)
            (local.set $at (i32.and (i32.add (global.get $end) (i32.sub (local.get $align) (i32.const 1)))
                                    (i32.sub (i32.const 0) (local.get $align))))
            (global.set $end (i32.add (local.get $at) (local.get $len)))
            (local.set $pages (i32.sub (i32.shr_u (i32.add (global.get $end) (i32.const 65535)) (i32.const 16)) (memory.size)))
            (if (i32.gt_s (local.get $pages) (i32.const 0))
                (then (if (i32.eq (memory.grow (local.get $pages)) (i32.const -1)) (then unreachable))))
            (if (local.get $old_len)
                (then (memory.copy (local.get $at) (local.get $old) (local.get $old_len))))
            (local.get $at))
        (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
        (func (export "calls") (result i32)
            (global.set $calls (i32.add (global.get $calls) (i32.const 1))) (global.get $calls))
        (func $pair (export "pair") (param i32 i32) (result i32) (local $at i32)
            (local.set $at (call $alloc (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 8)))
            (i32.store (local.get $at) (local.get 0))
            (i32.store offset=4 (local.get $at) (local.get 1))
            (local.get $at))
        (func (export "same") (param i32) (result i32) (local.get 0))
        (func (export "divide") (param i32 i32) (result i32) (local $at i32)
            (local.set $at (call $alloc (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 12)))
            (if (i32.eqz (local.get 1))
                (then (i32.store8 (local.get $at) (i32.const 1))
                      (i32.store8 offset=4 (local.get $at) (i32.const 1))
                      (i32.store offset=8 (local.get $at) (local.get 0)))
                (else (i32.store offset=4 (local.get $at) (i32.div_s (local.get 0) (local.get 1)))))
            (local.get $at))
        (func (export "spin") (loop (br 0)))
        (func (export "trap") (unreachable))
        (func (export "far") (result i32) (i32.const -4))
        (func (export "crooked") (result i32) (i32.const 3))
        (func (export "long") (result i32) (call $pair (i32.const 16) (i32.const 0x7fffffff)))
        (func (export "wild") (result i32) (i32.const 77))
        (func (export "many") (param $times i32) (param $len i32) (result i32)
            ;; A list of lists, all of which lie in the same place.
            (local $at i32) (local $index i32)
            (local.set $at (call $alloc (i32.const 0) (i32.const 0) (i32.const 4) (i32.mul (local.get $times) (i32.const 8))))
            (loop $next
                (if (i32.lt_u (local.get $index) (local.get $times))
                    (then
                        (i32.store offset=4 (i32.add (local.get $at) (i32.shl (local.get $index) (i32.const 3))) (local.get $len))
                        (local.set $index (i32.add (local.get $index) (i32.const 1)))
                        (br $next))))
            (call $pair (local.get $at) (local.get $times)))
    )
    (core instance $i (instantiate $m))
    (alias core export $i "memory" (core memory $memory))
    (alias core export $i "realloc" (core func $realloc))
"#;

/// A component around [`CORE`] with these functions: each has a name, a type, and the core function behind it.
fn component(functions: &[(&str, &str, &str)], more: &str) -> String {
    let lifted = functions.iter().map(|(name, ty, core)| {
        format!(
            "(func ${name} {ty} (canon lift (core func $i \"{core}\") (memory $memory) (realloc $realloc)))
             (export \"{name}\" (func ${name}))\n"
        )
    });
    format!("(component {CORE} {} {more})", lifted.collect::<String>())
}

fn load(pool: &Pool, functions: &[(&str, &str, &str)]) -> Module {
    wat(pool, &component(functions, ""))
}

const ADD: (&str, &str, &str) = ("add", r#"(param "left" u32) (param "right" u32) (result u32)"#, "add");
const CALLS: (&str, &str, &str) = ("calls", "(result u32)", "calls");
const TEXT: (&str, &str, &str) = ("text", r#"(param "text" string) (result string)"#, "pair");
const RESULTS: (&str, &str, &str) = (
    "results",
    r#"(param "x" (list (result u32 (error (tuple s8 (option char))))))
       (result (list (result u32 (error (tuple s8 (option char))))))"#,
    "pair",
);
const BYTES: (&str, &str, &str) = ("bytes", r#"(param "bytes" (list u8)) (result (list u8))"#, "pair");

fn ok<O>(future: Result<TaskFuture<O>, wasmpool::error::SubmitError>) -> O
where
    O: serde::de::DeserializeOwned + std::fmt::Debug,
{
    future.expect("submits").result_timeout(PATIENCE).expect("in time").expect("succeeds")
}

fn failure<O: std::fmt::Debug>(future: TaskFuture<O>) -> TaskFailure {
    support::failure(&future)
}

#[test]
fn an_exported_function_is_a_task_with_its_own_types() {
    let pool = pool(2);
    let module = load(&pool, &[ADD, TEXT, BYTES, RESULTS]);
    let description = module.description();
    assert_eq!((description.kind, description.form), (ModuleKind::Component, ModuleForm::Component));
    let signatures: Vec<_> = description.tasks.iter().map(|task| task.signature()).collect();
    assert_eq!(
        signatures,
        [
            "add(left: u32, right: u32) -> u32",
            "text(text: String) -> String",
            "bytes(bytes: Vec<u8>) -> Vec<u8>",
            "results(x: Vec<Result<u32, (i8, Option<char>)>>) -> Vec<Result<u32, (i8, Option<char>)>>",
        ]
    );
    assert!(description.tasks.iter().all(|task| task.convention == CallingConvention::Canonical));

    let add = module.task::<(u32, u32), u32>("add").expect("has these types");
    assert_eq!(pool.submit(&add, &(3, 4)).expect("submits").result().expect("succeeds"), 7);
    let text = module.task::<String, String>("text").expect("has these types");
    for said in [String::new(), "grüße, 你好".into(), "x".repeat(300_000)] {
        assert_eq!(pool.submit(&text, &said).expect("submits").result().expect("succeeds"), said);
    }
    let bytes = module.task::<Vec<u8>, Vec<u8>>("bytes").expect("has these types");
    let picture: Vec<u8> = (0..3_000_000u32).map(|index| (index % 251) as u8).collect();
    assert_eq!(pool.submit(&bytes, &picture).expect("submits").result().expect("succeeds"), picture);
    type Results = Vec<Result<u32, (i8, Option<char>)>>;
    let results = module.task::<Results, Results>("results").expect("has these types");
    let mixed: Results = vec![Ok(7), Err((-128, Some('\u{10ffff}'))), Err((127, None)), Ok(u32::MAX)];
    assert_eq!(ok(pool.submit(&results, &mixed)), mixed);
    // A map goes the same way, in batches.
    let inputs: Vec<_> = (0..1000).map(|number| (number, number)).collect();
    let doubled: Result<Vec<_>, _> = pool.map(&add, inputs).collect();
    assert_eq!(doubled.expect("all succeed"), (0..1000).map(|number| 2 * number).collect::<Vec<_>>());
    let error = module.task::<(i32, i32), u32>("add").expect_err("has other types");
    assert!(matches!(error, ModuleError::SchemaMismatch { .. }), "{error}");
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
#[serde(rename_all = "kebab-case")]
enum Shape {
    Empty,
    Circle((Point, f64)),
    Polygon(Vec<Point>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
struct Point {
    x: f64,
    y: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
#[serde(rename_all = "kebab-case")]
struct Picture {
    #[serde(rename = "its-name")]
    name: Option<String>,
    shapes: Vec<Shape>,
    style: Style,
    nested: Vec<Result<u32, (i8, char)>>,
}

/// A set of flags is a struct of bools.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
struct Style {
    bold: bool,
    dashed: bool,
}

#[test]
fn records_variants_flags_and_results_are_structs_enums_bools_and_results() {
    let pool = pool(1);
    // Arguments that are too many to be passed as values are put into memory, in the very form of a result.
    let pads: String = (0..17).map(|pad| format!("(param \"p{pad}\" u8)")).collect();
    let text = format!(
        r#"(component {CORE}
        (type $point' (record (field "x" f64) (field "y" f64)))
        (export $point "point" (type $point'))
        (type $shape' (variant (case "empty") (case "circle" (tuple $point f64)) (case "polygon" (list $point))))
        (export $shape "shape" (type $shape'))
        (type $style' (flags "bold" "dashed"))
        (export $style "style" (type $style'))
        (type $picture' (record
            (field "its-name" (option string)) (field "shapes" (list $shape)) (field "style" $style)
            (field "nested" (list (result u32 (error (tuple s8 char)))))))
        (export $picture "picture" (type $picture'))
        (func $same (param "picture" $picture) {pads} (result (tuple $picture {bytes}))
            (canon lift (core func $i "same") (memory $memory) (realloc $realloc)))
        (export "same" (func $same)))"#,
        bytes = "u8 ".repeat(17),
    );
    let module = wat(&pool, &text);
    let task = &module.description().tasks[0];
    assert!(task.signature().starts_with("same(picture: picture, p0: u8"), "{}", task.signature());
    let picture = Picture {
        name: Some("a".into()),
        shapes: vec![
            Shape::Empty,
            Shape::Circle((Point { x: 1.5, y: -0.0 }, 2.0)),
            Shape::Polygon(vec![Point { x: f64::INFINITY, y: 1e-300 }; 3]),
        ],
        style: Style { bold: false, dashed: true },
        nested: vec![Ok(7), Err((-128, '\u{10ffff}')), Ok(u32::MAX)],
    };
    let same = module.raw_task("same").expect("is there");
    let mut input = postcard::to_stdvec(&picture).expect("serialises");
    input.extend(0..17u8);
    let output = pool.submit(&same, &input[..]).expect("submits").result().expect("succeeds");
    assert_eq!(output, input);
    // What is not of the type is the caller's mistake, and is told so.
    for (end, what) in [(input.len() - 1, "cut off"), (0, "cut off")] {
        let error = failure(pool.submit(&same, &input[..end]).expect("submits"));
        assert!(matches!(error.error(), TaskError::InputDecode { .. }), "{what}: {error}");
    }
    let longer = [&input[..], &[0]].concat();
    let error = failure(pool.submit(&same, &longer[..]).expect("submits"));
    assert!(error.to_string().contains("1 bytes are left over"), "{error}");
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
#[serde(rename_all = "kebab-case")]
enum Fault {
    Other,
    ByZero(u32),
}

#[test]
fn an_error_of_a_function_is_the_tasks_own_error_and_stays_data() {
    let pool = pool(1);
    let divide = format!(
        r#"(component {CORE}
        (type $fault' (variant (case "other") (case "by-zero" u32)))
        (export $fault "fault" (type $fault'))
        (func $divide (param "a" s32) (param "b" s32) (result (result s32 (error $fault)))
            (canon lift (core func $i "divide") (memory $memory) (realloc $realloc)))
        (export "divide" (func $divide)))"#
    );
    let module = wat(&pool, &divide);
    assert_eq!(module.description().tasks[0].signature(), "divide(a: i32, b: i32) -> Result<i32, fault>");
    let divide = module.task::<(i32, i32), i32>("divide").expect("has these types");
    assert_eq!(pool.submit(&divide, &(-7, 2)).expect("submits").result().expect("succeeds"), -3);
    let error = failure(pool.submit(&divide, &(9, 0)).expect("submits"));
    let TaskError::Guest { message, data: Some(data), .. } = error.error() else { panic!("{error}") };
    assert_eq!(message, "by-zero(9)");
    assert_eq!(data.get::<Fault>(), Some(Fault::ByZero(9)));
    assert_eq!(data.get::<String>(), None, "it is of another type");
    // In a map as well.
    let results: Vec<_> = pool.map(&divide, vec![(1, 1), (2, 0), (4, 2)]).collect();
    assert!(matches!(&results[..], [Ok(1), Err(_), Ok(2)]), "{results:?}");
    let Err(second) = &results[1] else { panic!("{results:?}") };
    assert!(second.to_string().contains("by-zero(2)"), "{second}");
}

#[test]
fn each_call_has_a_fresh_instance_unless_it_is_reused() {
    let pool = pool(1);
    let module = load(&pool, &[CALLS]);
    let calls = module.task::<(), u32>("calls").expect("has these types");
    let count = |options: TaskOptions| [(); 4].map(|()| ok(pool.submit_with(&calls, &(), options.clone())));
    assert_eq!(count(TaskOptions::new()), [1, 1, 1, 1]);
    let reuse = TaskOptions::new().isolation(Isolation::Reuse);
    assert_eq!(count(reuse.instance_tasks_max(3)), [1, 2, 3, 1]);
}

#[test]
fn a_component_is_stopped_at_its_deadline_in_each_way_and_its_worker_goes_on() {
    let pool = pool(1);
    let text = component(&[("spin", "", "spin"), ADD], "");
    let kinds = [
        ModuleOptions::new(),
        ModuleOptions::new().metered(true),
        ModuleOptions::new().deterministic(true),
        ModuleOptions::new().interrupt(Interrupt::Kill),
    ];
    for options in kinds {
        let is_killed = options == ModuleOptions::new().interrupt(Interrupt::Kill);
        let bytes = ::wat::parse_str(&text).expect("valid text");
        let module = pool.load_with(&bytes, options).expect("loads");
        let spin = module.task::<(), ()>("spin").expect("has these types");
        let submitted = pool.submit_with(&spin, &(), TaskOptions::new().timeout(Duration::from_millis(50)));
        let error = failure(submitted.expect("submits"));
        assert!(
            matches!(error.error(), TaskError::Timeout { killed, .. } if *killed == is_killed),
            "{error}"
        );
        let add = module.task::<(u32, u32), u32>("add").expect("has these types");
        assert_eq!(pool.submit(&add, &(1, 2)).expect("submits").result().expect("succeeds"), 3);
    }
}

#[test]
fn fuel_counts_in_a_component_and_what_it_uses_is_told() {
    let pool = pool(1);
    let bytes = ::wat::parse_str(component(&[("spin", "", "spin"), ADD], "")).expect("valid text");
    let module = pool.load_with(&bytes, ModuleOptions::new().metered(true)).expect("loads");
    let add = module.task::<(u32, u32), u32>("add").expect("has these types");
    let future = pool.submit(&add, &(1, 2)).expect("submits");
    assert_eq!(future.result_timeout(PATIENCE).expect("in time").expect("succeeds"), 3);
    let report = future.report().expect("it is done");
    assert!(report.fuel_used.is_some_and(|fuel| fuel > 0 && fuel < 1000), "{report:?}");
    let spin = module.task::<(), ()>("spin").expect("has these types");
    let error = failure(pool.submit_with(&spin, &(), TaskOptions::new().fuel(10_000)).expect("submits"));
    assert!(matches!(error.error(), TaskError::Fuel { limit: 10_000, .. }), "{error}");
}

#[test]
fn a_trap_and_a_result_that_is_none_fail_the_task_and_nothing_else() {
    let pool = pool(1);
    let strings = "(result string)";
    let module = load(
        &pool,
        &[
            ("trap", "", "trap"),
            ("far", strings, "far"),
            ("crooked", strings, "crooked"),
            ("long", strings, "long"),
            ("wild", "(result bool)", "wild"),
            ("wild-char", "(result char)", "far"),
            ("wild-case", r#"(param "case" u32) (param "of" u32) (result (option u32))"#, "pair"),
            ADD,
        ],
    );
    let run = |name: &str| {
        let task = module.raw_task(name).expect("is there");
        let input: &[u8] = if name == "wild-case" { &[77, 2] } else { &[] };
        failure(pool.submit(&task, input).expect("submits"))
    };
    let error = run("trap");
    let TaskError::Trap { code: TrapCode::Unreachable, backtrace, .. } = error.error() else {
        panic!("{error}")
    };
    assert!(!backtrace.is_empty());
    for (name, word) in [
        ("far", "outside of its memory"),
        ("crooked", "not aligned"),
        ("long", "outside of its memory"),
        ("wild-char", "for a character"),
        ("wild-case", "case 77 of 2"),
    ] {
        let error = run(name);
        assert!(matches!(error.error(), TaskError::Abi { .. }), "{name}: {error}");
        assert!(error.to_string().contains(word), "{name}: {error}");
    }
    // Any number but 0 is true, by the canonical ABI.
    let wild = module.task::<(), bool>("wild").expect("has these types");
    assert!(pool.submit(&wild, &()).expect("submits").result().expect("succeeds"));
}

#[test]
fn a_list_that_stands_for_gigabytes_is_over_the_limit_and_costs_the_worker_nothing() {
    let pool = build(builder(1).output_bytes_max(1 << 20));
    let many = ("many", r#"(param "times" u32) (param "len" u32) (result (list (list u8)))"#, "many");
    let module = load(&pool, &[many]);
    let many = module.task::<(u32, u32), Vec<Vec<u8>>>("many").expect("has these types");
    let lists = pool.submit(&many, &(3, 5)).expect("submits").result().expect("succeeds");
    assert_eq!(lists.iter().map(Vec::len).collect::<Vec<_>>(), [5, 5, 5]);
    // A hundred thousand lists of 60,000 bytes each are six gigabytes, and take one page more than a megabyte.
    let error = failure(pool.submit(&many, &(100_000, 60_000)).expect("submits"));
    assert!(matches!(error.error(), TaskError::OutputTooLarge { limit, .. } if *limit == 1 << 20), "{error}");
    assert_eq!(pool.stats().workers_died, 0);
}

#[test]
fn the_memories_of_a_component_are_held_to_the_limit_together() {
    let pool = pool(1);
    let module = load(&pool, &[BYTES]);
    let bytes = module.task::<Vec<u8>, Vec<u8>>("bytes").expect("has these types");
    let options = TaskOptions::new().memory_bytes_max(1 << 20);
    let input = vec![7; 2 << 20];
    let error = failure(pool.submit_with(&bytes, &input, options).expect("submits"));
    // The component's own allocator traps when it gets nothing.
    let refused = error.report().refusals.as_ref().map(|refusals| refusals.count());
    assert_eq!(refused, Some(1), "{error}");
}

#[test]
fn what_cannot_be_called_says_why_and_the_rest_can_be() {
    let pool = pool(1);
    let text = r#"(component (import "host" (instance $host (export "r" (type (sub resource))))))"#;
    // A resource of its own: it cannot be handed to another process.
    let own = format!(
        r#"(component {CORE}
        (type $r' (resource (rep i32)))
        (export $r "r" (type $r'))
        (func $take (param "r" (own $r)) (canon lift (core func $i "drop-r")))
        (export "take" (func $take))
        (func $add (param "left" u32) (param "right" u32) (result u32) (canon lift (core func $i "add")))
        (export "add" (func $add)))"#
    )
    .replace("(func (export \"trap\")", "(func (export \"drop-r\") (param i32)) (func (export \"trap\")");
    let module = wat(&pool, &own);
    let names: Vec<_> = module.description().tasks.iter().map(|task| task.name.clone()).collect();
    assert_eq!(names, ["add"]);
    let [take] = &module.description().uncallable[..] else { panic!("{:?}", module.description()) };
    assert_eq!((take.export.as_str(), take.reason.contains("a resource")), ("take", true), "{take:?}");

    let error = pool.load(&::wat::parse_str(text).expect("valid text")).expect_err("imports a host's");
    let ModuleError::UnknownImports { imports } = &error else { panic!("{error}") };
    assert!(imports[0].contains("host"), "{error}");
}

#[test]
fn imports_that_are_not_given_are_named_with_the_way_out() {
    let pool = pool(1);
    let import = |name: &str| {
        let text = format!(r#"(component (import "{name}" (instance (export "f" (func)))))"#);
        pool.load(&::wat::parse_str(text).expect("valid text")).expect_err("is not given").to_string()
    };
    for (name, word) in [
        ("wasi:http/types@0.2.3", "tasks have no network"),
        ("wasi:cli/stdout@0.3.0", "WASI 0.3 is not offered"),
        ("some:where/else@1.0.0", "some:where/else@1.0.0: interface, 1 function"),
        // The interface is there, and has no such function.
        ("wasi:cli/stdout@0.2.3", "`f`"),
    ] {
        let error = import(name);
        assert!(error.contains(name) && error.contains(word), "{error}");
    }
}

#[test]
fn a_component_logs_and_reads_shared_inputs_by_the_world_of_the_pool() {
    let pool = pool(1);
    let text = r#"(component
        (import "wasmpool:guest/log@0.1.0" (instance $log
            (type $level' (enum "error" "warn" "info" "debug" "trace"))
            (export "level" (type $level (eq $level')))
            (export "record" (func (param "level" $level) (param "target" string) (param "message" string)
                                   (param "fields" (list (tuple string string)))))))
        (import "wasmpool:guest/shared@0.1.0" (instance $shared
            (export "length" (func (param "index" u32) (result (option u64))))
            (export "read" (func (param "index" u32) (param "offset" u64) (param "length" u32) (result (option (list u8)))))))
        (core module $libc
            (memory (export "memory") 4)
            (global $end (mut i32) (i32.const 65536))
            (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                (global.get $end)
                (global.set $end (i32.add (global.get $end) (i32.and (i32.add (local.get 3) (i32.const 15)) (i32.const -16))))))
        (core instance $libc (instantiate $libc))
        (alias core export $libc "memory" (core memory $memory))
        (alias core export $libc "realloc" (core func $realloc))
        (core func $record (canon lower (func $log "record") (memory $memory) (realloc $realloc)))
        (core func $read (canon lower (func $shared "read") (memory $memory) (realloc $realloc)))
        (core func $length (canon lower (func $shared "length") (memory $memory) (realloc $realloc)))
        (core module $m
            (import "libc" "memory" (memory 1))
            (import "" "record" (func $record (param i32 i32 i32 i32 i32 i32 i32)))
            (import "" "read" (func $read (param i32 i64 i32 i32)))
            (import "" "length" (func $length (param i32 i32)))
            (data (i32.const 100) "word")
            (func (export "first") (param $index i32) (param $len i32) (result i32)
                (call $record (i32.const 1) (i32.const 100) (i32.const 4) (i32.const 100) (i32.const 4) (i32.const 0) (i32.const 0))
                (call $length (local.get $index) (i32.const 200))
                (call $read (local.get $index) (i64.const 1) (local.get $len) (i32.const 400))
                ;; The result is a tuple of both options.
                (i64.store (i32.const 600) (i64.load (i32.const 200)))
                (i64.store (i32.const 608) (i64.load (i32.const 208)))
                (i32.store (i32.const 616) (i32.load (i32.const 400)))
                (i64.store (i32.const 620) (i64.load (i32.const 404)))
                (i32.const 600)))
        (core instance $i (instantiate $m
            (with "libc" (instance $libc))
            (with "" (instance
                (export "record" (func $record)) (export "read" (func $read)) (export "length" (func $length))))))
        (func $first (param "index" u32) (param "len" u32) (result (tuple (option u64) (option (list u8))))
            (canon lift (core func $i "first") (memory $memory) (realloc $realloc)))
        (export "first" (func $first)))"#;
    let module = wat(&pool, text);
    let first = module.task::<(u32, u32), (Option<u64>, Option<Vec<u8>>)>("first").expect("has these types");
    let shared = pool.share(&b"0123456789"[..]).expect("shares");
    let read = |input: (u32, u32)| {
        let options = TaskOptions::new().shared(&shared);
        pool.submit_with(&first, &input, options).expect("submits").result().expect("succeeds")
    };
    assert_eq!(read((0, 4)), (Some(10), Some(b"1234".to_vec())));
    assert_eq!(read((0, 1000)), (Some(10), Some(b"123456789".to_vec())));
    assert_eq!(read((1, 4)), (None, None));
    let strict = TaskOptions::new().shared(&shared).log_bytes_max(3).log_overflow(LogOverflow::Fail);
    let error = failure(pool.submit_with(&first, &(0, 1), strict).expect("submits"));
    assert!(matches!(error.error(), TaskError::LogsTooLarge { .. }), "{error}");
}

#[test]
fn no_byte_of_one_task_is_visible_to_the_next() {
    let pool = pool(1);
    let text =
        component(&[BYTES, ("peek", r#"(param "at" u32) (param "len" u32) (result (list u8))"#, "pair")], "");
    let module = wat(&pool, &text);
    let bytes = module.task::<Vec<u8>, Vec<u8>>("bytes").expect("has these types");
    let peek = module.task::<(u32, u32), Vec<u8>>("peek").expect("has these types");
    for _ in 0..20 {
        let secret = vec![0x5a; 40_000];
        pool.submit(&bytes, &secret).expect("submits").result().expect("succeeds");
        let seen = pool.submit(&peek, &(2_000, 50_000)).expect("submits").result().expect("succeeds");
        assert!(seen.iter().all(|byte| *byte == 0));
    }
}

/// Sleeps, and says by how much the clock has moved.
const SLEEP: &str = r#"(component $C
    (import "wasi:io/poll@0.2.0" (instance $poll
        (export "pollable" (type $pollable (sub resource)))
        (export "[method]pollable.block" (func (param "self" (borrow $pollable))))
        (export "poll" (func (param "in" (list (borrow $pollable))) (result (list u32))))))
    (alias export $poll "pollable" (type $pollable))
    (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
        (alias outer $C $pollable (type $outer))
        (export "pollable" (type $pollable (eq $outer)))
        (export "now" (func (result u64)))
        (export "subscribe-duration" (func (param "when" u64) (result (own $pollable))))))
    (core module $libc
        (memory (export "memory") 1)
        (global $end (mut i32) (i32.const 4096))
        (func (export "realloc") (param i32 i32 i32 i32) (result i32)
            (global.get $end)
            (global.set $end (i32.add (global.get $end) (i32.and (i32.add (local.get 3) (i32.const 15)) (i32.const -16))))))
    (core instance $libc (instantiate $libc))
    (alias core export $libc "memory" (core memory $memory))
    (alias core export $libc "realloc" (core func $realloc))
    (core func $now (canon lower (func $clock "now")))
    (core func $subscribe (canon lower (func $clock "subscribe-duration")))
    (core func $block (canon lower (func $poll "[method]pollable.block")))
    (core func $poll (canon lower (func $poll "poll") (memory $memory) (realloc $realloc)))
    (core func $drop (canon resource.drop $pollable))
    (core module $m
        (import "libc" "memory" (memory 1))
        (import "" "now" (func $now (result i64)))
        (import "" "subscribe" (func $subscribe (param i64) (result i32)))
        (import "" "block" (func $block (param i32)))
        (import "" "poll" (func $poll (param i32 i32 i32)))
        (import "" "drop" (func $drop (param i32)))
        (func (export "sleep") (param $for i64) (result i64) (local $began i64) (local $p i32)
            (local.set $began (call $now))
            (local.set $p (call $subscribe (local.get $for)))
            (call $block (local.get $p))
            (call $drop (local.get $p))
            (i64.sub (call $now) (local.get $began)))
        ;; Of several that are waited for, the number of the first one that is ready.
        (func (export "first") (param $a i64) (param $b i64) (param $c i64) (result i32)
            (i32.store (i32.const 0) (call $subscribe (local.get $a)))
            (i32.store (i32.const 4) (call $subscribe (local.get $b)))
            (i32.store (i32.const 8) (call $subscribe (local.get $c)))
            (call $poll (i32.const 0) (i32.const 3) (i32.const 16))
            ;; How many are ready, and which one is.
            (i32.add (i32.mul (i32.const 10) (i32.load (i32.const 20)))
                     (i32.load (i32.load (i32.const 16)))))
        (func (export "hoard") (param $count i32)
            (loop $next
                (drop (call $subscribe (i64.const 1)))
                (br_if $next (local.tee $count (i32.sub (local.get $count) (i32.const 1))))))
        (func (export "crowd") (param $count i32) (local $p i32) (local $index i32)
            (local.set $p (call $subscribe (i64.const 0)))
            (drop (memory.grow (i32.const 16)))
            (loop $next
                (i32.store (i32.add (i32.const 65536) (i32.shl (local.get $index) (i32.const 2))) (local.get $p))
                (br_if $next (i32.lt_u (local.tee $index (i32.add (local.get $index) (i32.const 1))) (local.get $count))))
            (call $poll (i32.const 65536) (local.get $count) (i32.const 16))))
    (core instance $i (instantiate $m
        (with "libc" (instance $libc))
        (with "" (instance (export "now" (func $now)) (export "subscribe" (func $subscribe))
                           (export "block" (func $block)) (export "poll" (func $poll)) (export "drop" (func $drop))))))
    (func $sleep (param "nanoseconds" u64) (result u64) (canon lift (core func $i "sleep")))
    (export "sleep" (func $sleep))
    (func $first (param "a" u64) (param "b" u64) (param "c" u64) (result u32) (canon lift (core func $i "first")))
    (export "first" (func $first))
    (func $hoard (param "count" u32) (canon lift (core func $i "hoard")))
    (export "hoard" (func $hoard))
    (func $crowd (param "count" u32) (canon lift (core func $i "crowd")))
    (export "crowd" (func $crowd)))"#;

const SECOND_NS: u64 = 1_000_000_000;

#[test]
fn a_component_that_sleeps_is_stopped_in_the_middle_of_it() {
    let pool = pool(1);
    let module = wat(&pool, SLEEP);
    let sleep = module.task::<u64, u64>("sleep").expect("has these types");
    assert!(ok(pool.submit(&sleep, &20_000_000)) >= 19_000_000);
    let options = TaskOptions::new().timeout(Duration::from_millis(50));
    let error = failure(pool.submit_with(&sleep, &(3_600 * SECOND_NS), options).expect("submits"));
    assert!(matches!(error.error(), TaskError::Timeout { killed: false, .. }), "{error}");
    assert!(ok(pool.submit(&sleep, &0)) < SECOND_NS);
}

#[test]
fn in_virtual_time_a_sleep_takes_none_and_the_first_moment_comes_first() {
    let pool = pool(1);
    let bytes = ::wat::parse_str(SLEEP).expect("valid text");
    let module = pool.load_with(&bytes, ModuleOptions::new().deterministic(true)).expect("loads");
    let sleep = module.task::<u64, u64>("sleep").expect("has these types");
    let options = || TaskOptions::new().deterministic(7);
    let slept = [(); 2].map(|()| ok(pool.submit_with(&sleep, &(3_600 * SECOND_NS), options())));
    assert_eq!(slept[0], slept[1]);
    assert!((3_600 * SECOND_NS..3_601 * SECOND_NS).contains(&slept[0]), "{slept:?}");
    let first = module.task::<(u64, u64, u64), u32>("first").expect("has these types");
    for (moments, ready) in [
        ((30_000, 60_000, 40_000), 10),
        ((90_000, 20_000, 30_000), 11),
        ((u64::MAX, u64::MAX, 5_000_000), 12),
    ] {
        assert_eq!(ok(pool.submit_with(&first, &moments, options())), ready, "{moments:?}");
    }
}

#[test]
fn resources_of_wasi_are_bounded_and_what_is_over_is_the_tasks_end() {
    let pool = pool(1);
    let module = wat(&pool, SLEEP);
    let hoard = module.task::<u32, ()>("hoard").expect("has these types");
    ok(pool.submit(&hoard, &1_000));
    let error = failure(pool.submit(&hoard, &1_000_000).expect("submits"));
    assert!(matches!(error.error(), TaskError::Trap { .. }), "{error}");
    let crowd = module.task::<u32, ()>("crowd").expect("has these types");
    ok(pool.submit(&crowd, &4_096));
    let error = failure(pool.submit(&crowd, &4_097).expect("submits"));
    assert!(error.to_string().contains("4096 pollables"), "{error}");
    assert_eq!(pool.stats().workers_died, 0);
}

#[test]
fn a_socket_that_is_asked_for_is_refused() {
    let pool = pool(1);
    let text = r#"(component $C
        (import "wasi:sockets/network@0.2.0" (instance $network
            (export "network" (type (sub resource)))
            (type $code' (enum "unknown" "access-denied" "not-supported" "invalid-argument" "out-of-memory" "timeout"
                "concurrency-conflict" "not-in-progress" "would-block" "invalid-state" "new-socket-limit"
                "address-not-bindable" "address-in-use" "remote-unreachable" "connection-refused" "connection-reset"
                "connection-aborted" "datagram-too-large" "name-unresolvable" "temporary-resolver-failure"
                "permanent-resolver-failure"))
            (export "error-code" (type (eq $code')))
            (type $family' (enum "ipv4" "ipv6"))
            (export "ip-address-family" (type (eq $family')))))
        (alias export $network "error-code" (type $code))
        (alias export $network "ip-address-family" (type $family))
        (import "wasi:sockets/tcp@0.2.0" (instance $tcp (export "tcp-socket" (type (sub resource)))))
        (alias export $tcp "tcp-socket" (type $socket))
        (import "wasi:sockets/tcp-create-socket@0.2.0" (instance $create
            (alias outer $C $code (type $code')) (export "error-code" (type $code (eq $code')))
            (alias outer $C $family (type $family')) (export "ip-address-family" (type $family (eq $family')))
            (alias outer $C $socket (type $socket')) (export "tcp-socket" (type $socket (eq $socket')))
            (export "create-tcp-socket"
                (func (param "address-family" $family) (result (result (own $socket) (error $code)))))))
        (core module $libc (memory (export "memory") 1))
        (core instance $libc (instantiate $libc))
        (alias core export $libc "memory" (core memory $memory))
        (core func $create (canon lower (func $create "create-tcp-socket") (memory $memory)))
        (core module $m
            (import "libc" "memory" (memory 1))
            (import "" "create" (func $create (param i32 i32)))
            (func (export "create") (result i32)
                (call $create (i32.const 0) (i32.const 16))
                (i32.add (i32.mul (i32.const 100) (i32.load8_u (i32.const 16))) (i32.load8_u (i32.const 20)))))
        (core instance $i (instantiate $m
            (with "libc" (instance $libc)) (with "" (instance (export "create" (func $create))))))
        (func $create-it (result u32) (canon lift (core func $i "create")))
        (export "create" (func $create-it)))"#;
    let module = wat(&pool, text);
    let create = module.task::<(), u32>("create").expect("has these types");
    // An error, and it is the second one: access-denied.
    assert_eq!(ok(pool.submit(&create, &())), 101);
    assert_eq!(pool.stats().workers_died, 0);
}

/// A command that is a component: it ends with an error, or exits.
fn command(body: &str) -> String {
    format!(
        r#"(component
        (import "wasi:cli/exit@0.2.0" (instance $exit (export "exit" (func (param "status" (result))))))
        (core func $exit (canon lower (func $exit "exit")))
        (core module $m
            (import "" "exit" (func $exit (param i32)))
            (func (export "run") (result i32) {body}))
        (core instance $i (instantiate $m (with "" (instance (export "exit" (func $exit))))))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (component $shim (import "run" (func $run (result (result)))) (export "run" (func $run)))
        (instance $shim (instantiate $shim (with "run" (func $run))))
        (export "wasi:cli/run@0.2.3" (instance $shim)))"#
    )
}

#[test]
fn a_command_that_is_a_component_ends_as_any_command_does() {
    let pool = pool(1);
    let run = |body: &str| {
        let module = wat(&pool, &command(body));
        assert_eq!(module.description().kind, ModuleKind::Command);
        let command = module.command().expect("is a command");
        let future = pool.submit(&command, &wasmpool::task::CommandInput::new()).expect("submits");
        future.result_timeout(PATIENCE).expect("in time")
    };
    assert_eq!(run("(i32.const 0)").expect("succeeds").exit_code, 0);
    assert_eq!(run("(call $exit (i32.const 0)) (i32.const 1)").expect("succeeds").exit_code, 0);
    for body in ["(i32.const 1)", "(call $exit (i32.const 1)) (i32.const 0)"] {
        let failure = run(body).expect_err("fails");
        assert!(
            matches!(failure.error(), TaskError::Exit { output } if output.exit_code == 1),
            "{body}: {failure}"
        );
    }
    let failure = run("(unreachable)").expect_err("traps");
    assert!(matches!(failure.error(), TaskError::Trap { .. }), "{failure}");
}

#[test]
fn a_command_that_is_a_component_has_its_other_functions_as_tasks() {
    let pool = pool(1);
    let text = command("(i32.const 0)");
    let text = text.strip_suffix(')').expect("the component's end");
    let added = format!(
        r#"{text}
        (core module $more (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))
        (core instance $more (instantiate $more))
        (func $add (param "left" u32) (param "right" u32) (result u32) (canon lift (core func $more "add")))
        (export "add" (func $add)))"#
    );
    let module = wat(&pool, &added);
    assert_eq!(module.description().kind, ModuleKind::Command);
    assert_eq!(module.description().task_names(), ["add"]);
    let add = module.task::<(u32, u32), u32>("add").expect("has these types");
    let program = module.command().expect("is a command");
    for _ in 0..2 {
        let sum = pool.submit(&add, &(3, 4)).expect("submits").result_timeout(PATIENCE).expect("in time");
        assert_eq!(sum.expect("succeeds"), 7);
        let output = pool.submit(&program, &wasmpool::task::CommandInput::new()).expect("submits");
        let output = output.result_timeout(PATIENCE).expect("in time").expect("succeeds");
        assert_eq!(output.exit_code, 0);
    }
}

#[test]
fn a_few_bytes_of_types_or_instances_that_stand_for_very_many_are_refused() {
    let pool = pool(1);
    let doubled = |levels: usize| {
        let mut types = String::from("(type $t0 (tuple u8 u8))");
        for level in 1..=levels {
            let before = level - 1;
            types.push_str(&format!("(type $t{level} (tuple $t{before} $t{before}))"));
        }
        let text = format!(
            r#"(component {CORE} {types}
            (func $same (param "x" $t{levels}) (result $t{levels})
                (canon lift (core func $i "same") (memory $memory) (realloc $realloc)))
            (export "same" (func $same))
            (func $add (param "left" u32) (param "right" u32) (result u32) (canon lift (core func $i "add")))
            (export "add" (func $add)))"#
        );
        pool.load(&::wat::parse_str(text).expect("valid text"))
    };
    // As a tree it has 2^13 leaves, more than a schema may have.
    let module = doubled(12).expect("loads");
    let [same] = &module.description().uncallable[..] else { panic!("{:?}", module.description()) };
    assert!(same.reason.contains("2048 nodes"), "{same:?}");
    assert!(module.task::<(u32, u32), u32>("add").is_ok());
    let error = doubled(60).expect_err("stands for 2^61 values");
    assert!(matches!(error, ModuleError::Invalid { .. }), "{error}");

    let many = |count: usize, what: &str| {
        let instances = "(core instance (instantiate $m))".repeat(count);
        let text = format!("(component (core module $m {what}) {instances})");
        pool.load(&::wat::parse_str(text).expect("valid text"))
    };
    many(100, "").expect("a component may have many instances");
    for (count, what, says) in [
        (300, "", "300 core module instances"),
        (9, "(memory 1)", "memories"),
        (17, "(table 1 funcref)", "tables"),
    ] {
        let error = many(count, what).expect_err("is more than a worker has room for");
        assert!(matches!(error, ModuleError::Unsupported { .. }), "{count} {what}: {error}");
        assert!(error.to_string().contains(says), "{count} {what}: {error}");
    }
    let shared = r#"(component (core module $m (memory 1 1 shared)) (core instance (instantiate $m)))"#;
    let error = pool.load(&::wat::parse_str(shared).expect("valid text")).expect_err("has threads");
    assert!(error.to_string().contains("a task has one thread"), "{error}");
}

#[test]
fn an_instance_that_is_reused_keeps_its_streams() {
    let pool = pool(1);
    let text = r#"(component $C
        (import "wasi:io/error@0.2.0" (instance $error (export "error" (type (sub resource)))))
        (alias export $error "error" (type $error))
        (import "wasi:io/streams@0.2.0" (instance $streams
            (export "output-stream" (type $out (sub resource)))
            (alias outer $C $error (type $error')) (export "error" (type $error (eq $error')))
            (type $failed' (variant (case "last-operation-failed" (own $error)) (case "closed")))
            (export "stream-error" (type $failed (eq $failed')))
            (export "[method]output-stream.blocking-write-and-flush"
                (func (param "self" (borrow $out)) (param "contents" (list u8)) (result (result (error $failed)))))))
        (alias export $streams "output-stream" (type $out))
        (import "wasi:cli/stdout@0.2.0" (instance $stdout
            (alias outer $C $out (type $out')) (export "output-stream" (type $out (eq $out')))
            (export "get-stdout" (func (result (own $out))))))
        (core module $libc (memory (export "memory") 1))
        (core instance $libc (instantiate $libc))
        (alias core export $libc "memory" (core memory $memory))
        (core func $get (canon lower (func $stdout "get-stdout")))
        (core func $write
            (canon lower (func $streams "[method]output-stream.blocking-write-and-flush") (memory $memory)))
        (core module $m
            (import "libc" "memory" (memory 1))
            (import "" "get" (func $get (result i32)))
            (import "" "write" (func $write (param i32 i32 i32 i32)))
            (data (i32.const 100) "word\n")
            (global $stdout (mut i32) (i32.const -1))
            (func (export "say") (result i32)
                (if (i32.eq (global.get $stdout) (i32.const -1)) (then (global.set $stdout (call $get))))
                (call $write (global.get $stdout) (i32.const 100) (i32.const 5) (i32.const 200))
                (i32.load8_u (i32.const 200))))
        (core instance $i (instantiate $m
            (with "libc" (instance $libc))
            (with "" (instance (export "get" (func $get)) (export "write" (func $write))))))
        (func $say (result u32) (canon lift (core func $i "say")))
        (export "say" (func $say)))"#;
    let module = wat(&pool, text);
    let say = module.task::<(), u32>("say").expect("has these types");
    let reuse = || TaskOptions::new().isolation(Isolation::Reuse);
    for _ in 0..3 {
        assert_eq!(ok(pool.submit_with(&say, &(), reuse())), 0);
    }
    // What it writes is the log of the task at hand.
    let strict = reuse().log_bytes_max(3).log_overflow(LogOverflow::Fail);
    let error = failure(pool.submit_with(&say, &(), strict).expect("submits"));
    assert!(matches!(error.error(), TaskError::LogsTooLarge { .. }), "{error}");
    assert_eq!(ok(pool.submit(&say, &())), 0);
}
