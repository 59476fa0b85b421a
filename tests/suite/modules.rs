//! A module that cannot be loaded says why, and modules of current tool-chains can be loaded.

use std::time::Duration;

use crate::support::{self, bombs, error, pool, prebuilt, raw, wat};
use wasmpool::TaskError;
use wasmpool::error::ModuleError;
use wasmpool::limits::{CompileLimit, CompileLimits};
use wasmpool::module::{ModuleKind, ModuleOptions};

fn refused(pool: &wasmpool::Pool, text: &str) -> ModuleError {
    pool.load(&wat::parse_str(text).expect("valid text")).expect_err("must be refused")
}

#[test]
fn junk_text_components_and_truncations_are_told_apart() {
    let pool = pool(1);
    for (bytes, words) in [
        (&b""[..], "empty"),
        (b"hello", "magic number"),
        (b"(module)", "wat2wasm"),
        (b"\n;; A comment.\n(module)", "wat2wasm"),
        (b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0", "it is a native program: build it for WebAssembly"),
        (b"!<arch>\nf.o/", "static library (.a): link the objects"),
        (b"\x1f\x8b\x08\0", "compressed (gzip): unpack it"),
        (b"\0asm", "cut off"),
        (b"\0asm\x0b\0\x01\0", "another version of the component model"),
        (b"\0asm\x02\0\0\0", "unknown version"),
    ] {
        let error = pool.load(bytes).expect_err("must be refused").to_string();
        assert!(error.contains(words), "{bytes:?}: {error}");
    }
    let whole = std::fs::read(prebuilt("primes")).expect("reads");
    for part in 1..8 {
        let cut = &whole[..whole.len() * part / 8];
        let error = pool.load(cut).expect_err("must be refused");
        assert!(matches!(error, ModuleError::Invalid { .. }), "{part}/8: {error:?}");
    }
    let missing = pool.load_file("no/such.wasm").expect_err("missing").to_string();
    assert!(missing.contains("no/such.wasm"), "{missing}");
}

#[test]
fn unknown_imports_are_all_named_with_their_types() {
    let pool = pool(1);
    let error = refused(
        &pool,
        r#"(module (import "env" "sqrt" (func (param f64) (result f64)))
                   (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
                   (import "host" "memory" (memory 1)))"#,
    );
    match error {
        ModuleError::UnknownImports { imports } => {
            assert_eq!(imports, ["env.sqrt: (f64) -> (f64)", "host.memory: memory, 1 pages"]);
        }
        other => panic!("{other:?}"),
    }
    let wrong_type = refused(&pool, r#"(module (import "wasmpool" "log" (func (param i64))))"#);
    assert!(matches!(wrong_type, ModuleError::UnknownImports { .. }), "{wrong_type:?}");
}

#[test]
fn a_module_for_a_linker_or_another_host_says_so() {
    let pool = pool(1);
    let of = |section: &str| {
        format!(r#"(module (import "env" "__linear_memory" (memory 0)) (@custom "{section}" "\02"))"#)
    };
    for (section, needed) in [
        (
            "linking",
            "the module needs a linker, which this pool does not offer: it is an object file (.o): link it first",
        ),
        (
            "dylink.0",
            "the module needs dynamic linking, which this pool does not offer: it is a shared library",
        ),
    ] {
        let error = refused(&pool, &of(section)).to_string();
        assert!(error.contains(needed), "{section}: {error}");
    }
    let error = refused(&pool, r#"(module (import "wbg" "__wbg_log_1" (func (param i32))))"#).to_string();
    assert!(error.contains("wbg.__wbg_log_1: (i32) -> () (of wasm-bindgen, for JavaScript)"), "{error}");
}

#[test]
fn atomics_work_on_a_memory_that_is_not_shared() {
    let pool = pool(1);
    let module = support::wat(
        &pool,
        r#"(module (memory 1)
            (func (export "count") (result i32)
                (drop (i32.atomic.rmw.add (i32.const 0) (i32.const 5)))
                (drop (memory.atomic.notify (i32.const 0) (i32.const 1)))
                (i32.atomic.load (i32.const 0)))
            (func (export "wait") (result i32)
                (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1))))"#,
    );
    let count = module.task::<(), i32>("count").expect("has these types");
    assert_eq!(pool.submit(&count, &()).expect("submits").result().expect("succeeds"), 5);
    let wait = module.task::<(), i32>("wait").expect("has these types");
    let error = pool.submit(&wait, &()).expect("submits").result().expect_err("nobody would wake it");
    assert!(matches!(error.error(), TaskError::Trap { .. }), "{error}");
}

#[test]
fn a_feature_that_is_not_offered_is_named() {
    let pool = pool(1);
    for (text, feature) in [
        ("(module (memory 1 1 shared))", "threads"),
        ("(module (memory 1 (pagesize 1)))", "custom-page-sizes"),
    ] {
        match refused(&pool, text) {
            ModuleError::Unsupported { feature: named, .. } => assert!(named.contains(feature), "{named}"),
            other => panic!("{feature}: {other:?}"),
        }
    }
}

#[test]
fn a_valid_module_that_the_compiler_cannot_translate_is_not_called_invalid() {
    let pool = pool(1);
    // The validator takes exact types; the compiler of wasmtime 48 does not.
    let exact = "(module (type $s (struct)) (func (param (ref any)) (drop (ref.test (ref (exact $s)) (local.get 0)))))";
    match refused(&pool, exact) {
        ModuleError::Unsupported { message, .. } => assert!(message.contains("Exact"), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pool_runs_more_modules_than_a_worker_may_hold() {
    let pool = pool(1);
    let modules = proto::limits::MODULES_PER_WORKER_MAX + 60;
    let tasks: Vec<_> = (0..modules)
        .map(|number| {
            let text = support::ECHO_WAT.replace("1025", &(1025 + number).to_string());
            raw(&wat(&pool, &text), "echo")
        })
        .collect();
    // One after the other, and as many at once as a worker takes.
    for task in &tasks {
        let ended = pool.submit_bytes(task, &b""[..]).expect("submits").result();
        assert!(ended.is_ok(), "{}", ended.expect_err("failed"));
    }
    let futures: Vec<_> =
        tasks.iter().map(|task| pool.submit_bytes(task, &b""[..]).expect("submits")).collect();
    for future in futures {
        let ended = future.result();
        assert!(ended.is_ok(), "{}", ended.expect_err("failed"));
    }
    assert_eq!(pool.stats().workers_died, 0);
    assert!(pool.stats().workers_recycled > 0);
}

/// Loaded and run as they come, none twice in a row, by whichever worker is free: each is replaced
/// before it has been sent more than it may hold.
#[test]
fn six_hundred_modules_run_on_one_worker_and_on_two_without_a_death() {
    const MODULES: usize = 600;
    for workers in [1, 2] {
        let pool = pool(workers);
        let tasks: Vec<_> = (0..MODULES)
            .map(|number| {
                let text = support::ECHO_WAT
                    .replace("(module", &format!("(module (global i32 (i32.const {number}))"));
                let task = raw(&wat(&pool, &text), "echo");
                let answer = pool.submit_bytes(&task, number.to_string()).expect("submits").result();
                assert_eq!(answer.expect("echoes"), number.to_string());
                task
            })
            .collect();
        let futures: Vec<_> =
            tasks.iter().rev().map(|task| pool.submit_bytes(task, &b"again"[..]).expect("submits")).collect();
        for future in futures {
            assert_eq!(future.result_timeout(support::PATIENCE).expect("in time").expect("echoes"), "again");
        }
        let stats = pool.stats();
        assert_eq!(stats.workers_died, 0, "{workers} workers");
        assert!(stats.workers_recycled >= 2, "{workers} workers: {} replaced", stats.workers_recycled);
    }
}

#[test]
fn modules_that_break_the_abi_are_refused_at_load() {
    let pool = pool(1);
    for (text, words) in [
        (r#"(module (func (export "wasmpool_abi_v1")))"#, "memory"),
        (r#"(module (func (export "wasmpool_abi_v1")) (memory (export "memory") 1))"#, "wasmpool_alloc"),
        (
            r#"(module (func (export "wasmpool_abi_v1")) (memory (export "memory") 1)
               (func (export "wasmpool_alloc") (param i32) (result i32) i32.const 8)
               (@custom "wasmpool.tasks" "\ff\00\00\00"))"#,
            "cut off",
        ),
        (
            r#"(module (func (export "wasmpool_abi_v1")) (memory (export "memory") 1)
               (func (export "wasmpool_alloc") (param i32) (result i32) i32.const 8)
               (@custom "wasmpool.tasks" "\0f\00\00\00\01\00\01x\01x\00\01\00\00\09\00\09\00\00"))"#,
            "",
        ),
    ] {
        match refused(&pool, text) {
            ModuleError::Abi { message } => assert!(message.contains(words), "{message}"),
            other => panic!("{words}: {other:?}"),
        }
    }
}

#[test]
fn what_current_tool_chains_emit_runs() {
    let pool = pool(1);
    // One body for each feature; it leaves an i32 that must be 42.
    for (feature, defs, body) in [
        (
            "simd",
            "",
            "(i32x4.extract_lane 2 (i32x4.add (v128.const i32x4 1 2 40 4) (v128.const i32x4 0 0 2 0)))",
        ),
        (
            "relaxed simd",
            "",
            "(i32x4.extract_lane 0 (i32x4.relaxed_trunc_f32x4_s (v128.const f32x4 42 0 0 0)))",
        ),
        (
            "bulk memory",
            "",
            "(memory.fill (i32.const 200) (i32.const 42) (i32.const 8)) (i32.load8_u (i32.const 203))",
        ),
        ("multi-value", "(func $two (result i32 i32) i32.const 40 i32.const 2)", "(call $two) i32.add"),
        (
            "tail calls",
            "(func $down (param i32) (result i32)
               (if (result i32) (i32.eqz (local.get 0)) (then (i32.const 42))
                 (else (return_call $down (i32.sub (local.get 0) (i32.const 1))))))",
            "(call $down (i32.const 1000000))",
        ),
        (
            "exceptions",
            "(tag $e (param i32)) (func $throws (throw $e (i32.const 42)))",
            "(block $caught (result i32) (try_table (catch $e $caught) (call $throws)) (i32.const 0))",
        ),
        (
            "gc",
            "(type $p (struct (field i32) (field i32)))",
            "(struct.get $p 1 (struct.new $p (i32.const 1) (i32.const 42)))",
        ),
        ("extended const", "(global $g i32 (i32.add (i32.const 40) (i32.const 2)))", "(global.get $g)"),
        (
            "multi-memory",
            "(memory $second 1)",
            "(i32.store $second (i32.const 0) (i32.const 42)) (i32.load $second (i32.const 0))",
        ),
        (
            "typed function references",
            "(type $f (func (result i32))) (func $answer (type $f) i32.const 42) (elem declare func $answer)",
            "(call_ref $f (ref.func $answer))",
        ),
    ] {
        let module = wat(
            &pool,
            &format!(
                r#"(module
                    (memory (export "memory") 1)
                    {defs}
                    (func $body (result i32) {body})
                    (func (export "wasmpool_abi_v1"))
                    (func (export "wasmpool_alloc") (param i32) (result i32) i32.const 512)
                    (func (export "run") (param i32 i32) (result i64)
                        (i32.store8 (i32.const 64) (i32.const 0))
                        (i32.store (i32.const 65) (call $body))
                        (i64.const 0x4000000005)))"#
            ),
        );
        let answer = pool.submit_bytes(&raw(&module, "run"), "").expect("submits").result();
        assert_eq!(
            &answer.unwrap_or_else(|failure| panic!("{feature}: {failure}"))[..],
            42i32.to_le_bytes(),
            "{feature}"
        );
    }
}

#[test]
fn an_uncaught_exception_is_a_trap_of_its_own() {
    let pool = pool(1);
    let module = wat(
        &pool,
        r#"(module (memory (export "memory") 1) (tag $e) (func (export "wasmpool_abi_v1"))
            (func (export "wasmpool_alloc") (param i32) (result i32) i32.const 512)
            (func $thrower (export "run") (param i32 i32) (result i64) throw $e))"#,
    );
    match error(&pool.submit_bytes(&raw(&module, "run"), "").expect("submits")) {
        TaskError::Trap { code, .. } => assert_eq!(code, wasmpool::error::TrapCode::UncaughtException),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_compilation_that_takes_too_long_is_killed_and_nothing_else_is_disturbed() {
    let pool = pool(1);
    // Deeply nested loops: valid, small, and slow to compile.
    let trusted = CompileLimits::trusted().timeout(Duration::from_millis(400));
    let options = ModuleOptions::new().compile_limits(trusted);
    match pool.load_with(&bombs::nested_loops(40_000), options).expect_err("a bomb") {
        ModuleError::CompileLimit { kind, limit, .. } => assert_eq!((kind, limit), (CompileLimit::Time, 400)),
        other => panic!("{other:?}"),
    }
    let module = wat(&pool, support::ECHO_WAT);
    assert_eq!(
        pool.submit_bytes(&raw(&module, "echo"), "on").expect("submits").result().expect("echoes"),
        "on"
    );
}

#[test]
fn a_module_is_compiled_once_and_found_again_by_content() {
    let dir = tempfile::tempdir().expect("a directory");
    let load = || {
        let pool = wasmpool::Pool::builder().workers(1).cache_dir(dir.path()).build().expect("builds");
        pool.load_file(prebuilt("primes")).expect("loads")
    };
    let first = load();
    let second = load();
    assert!(!first.from_cache() && second.from_cache());
    assert_eq!(first.digest(), second.digest());
    assert_eq!(first.description(), second.description());
}

#[test]
fn a_library_without_tasks_is_described_but_offers_nothing() {
    let pool = pool(1);
    let module = wat(&pool, r#"(module (func (export "add") (param externref) (result i32) i32.const 0))"#);
    assert_eq!(module.description().kind, ModuleKind::Library);
    assert!(module.raw_task("add").expect_err("no tasks").to_string().contains("it has no tasks"));
    assert!(module.command().is_err());
}

#[test]
fn a_guest_without_room_for_its_input_says_so() {
    let pool = pool(1);
    let full = support::ECHO_WAT.replace("i32.const 1025)", "i32.const 0)");
    let module = wat(&pool, &full);
    match error(&pool.submit_bytes(&raw(&module, "echo"), "x").expect("submits")) {
        TaskError::Abi { message } => assert!(message.starts_with("wasmpool_alloc returned 0"), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_first_memory_over_the_limit_is_a_memory_error() {
    let pool = pool(1);
    let module = wat(&pool, support::ECHO_WAT);
    let options = wasmpool::TaskOptions::new().memory_bytes_max(65_536);
    let future = pool.submit_with(&raw(&module, "echo"), "x", options).expect("submits");
    assert!(matches!(error(&future), TaskError::Memory { limit: 65_536, .. }), "{:?}", error(&future));
}

/// Makes a module that takes minutes to compile, with these parts before its code.
fn slow(parts: &str) -> Vec<u8> {
    const LOOPS: usize = 5_000;
    let opened = "loop ".repeat(LOOPS);
    let closed = "local.get 0 br_if 0 end ".repeat(LOOPS);
    let text = format!("(module {parts} (func $slow (param i32) {opened} {closed}))");
    ::wat::parse_str(text).expect("valid text")
}

#[test]
fn whatever_stands_against_a_module_beside_its_code_is_said_before_it_is_compiled() {
    let pool = pool(1);
    let limits = CompileLimits::trusted().cpu_time(Duration::from_millis(1500));
    let load = |wasm: &[u8], options: ModuleOptions| {
        pool.load_with(wasm, options.compile_limits(limits.clone())).expect_err("is refused")
    };
    let error = load(&slow(""), ModuleOptions::new());
    assert!(matches!(error, ModuleError::CompileLimit { kind: CompileLimit::CpuTime, .. }), "{error}");
    let tasks = r#"(memory (export "memory") 1) (func (export "wasmpool_abi_v1"))
        (func (export "wasmpool_alloc") (param i32) (result i32) i32.const 0)"#;
    let cases = [
        (r#"(import "env" "nope" (func))"#.to_string(), "env.nope: () -> ()"),
        (r#"(import "env" "memory" (memory 1))"#.to_string(), "env.memory: memory"),
        (
            r#"(import "wasi_snapshot_preview1" "fd_write" (func (param i32) (result i32)))"#.to_string(),
            "fd_write: (i32) -> (i32), which is (i32, i32, i32, i32) -> (i32) here",
        ),
        (
            r#"(import "wasmpool" "shared_len" (func (param i64)))"#.to_string(),
            "which is (i32) -> (i64) here",
        ),
        (
            r#"(import "wasi_unstable" "proc_exit" (func (param i64)))"#.to_string(),
            "wasi_unstable.proc_exit: (i64) -> (), which is (i32) -> () here",
        ),
        (
            r#"(import "wasi_unstable" "sock_accept" (func (param i32 i32 i32) (result i32)))"#.to_string(),
            "wasi_unstable.sock_accept: (i32, i32, i32) -> (i32); it provides",
        ),
        (r#"(func (export "_start") (result i32) i32.const 7)"#.to_string(), "`_start` is () -> (i32)"),
        (r#"(func (export "wasmpool_abi_v1"))"#.to_string(), "no 32-bit `memory`"),
        (r#"(memory (export "memory") 1) (func (export "wasmpool_abi_v1"))"#.to_string(), "wasmpool_alloc"),
        (format!(r#"{tasks} (func (export "wasmpool_init"))"#), "`wasmpool_init` is () -> ()"),
        (format!(r#"{tasks} (func (export "_initialize") (param i32))"#), "`_initialize` is (i32) -> ()"),
    ];
    for (parts, words) in &cases {
        let error = load(&slow(parts), ModuleOptions::new()).to_string();
        assert!(error.contains(words), "{parts}: {error}");
    }
    // The module lacks what is to be run.
    let none = None::<String>;
    let error =
        load(&slow(r#"(func (export "add") (param externref))"#), ModuleOptions::new().to_run(none.clone()));
    assert!(matches!(error, ModuleError::NotACommand { .. }), "{error}");
    let error = load(&slow(r#"(func (export "add"))"#), ModuleOptions::new().to_run(Some("sub")));
    assert!(matches!(error, ModuleError::UnknownTask { .. }), "{error}");
    let task = format!(r#"{tasks} (func (export "a") (param i32 i32) (result i64) i64.const 0)"#);
    let error = load(&slow(&task), ModuleOptions::new().name("m").to_run(Some("b")));
    match error {
        ModuleError::UnknownTask { module, name, known } => {
            assert_eq!((module.as_str(), name.as_str(), known), ("m", "b", vec!["a".to_string()]));
        }
        other => panic!("{other}"),
    }
    let error = load(&slow(&task), ModuleOptions::new().to_run(Some("a")));
    assert!(matches!(error, ModuleError::CompileLimit { kind: CompileLimit::CpuTime, .. }), "{error}");
}
