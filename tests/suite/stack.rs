//! The pool has a setting for how deep wasm may recurse; an overflow is a trap, whatever it is set to.

use crate::support::{self, PATIENCE};
use wasmpool::error::TrapCode;
use wasmpool::module::RawTask;
use wasmpool::{Module, Pool, TaskError, limits};

/// `deep` recurses as often as its input says, and makes a host call at each step.
fn deep_wat(import: &str, call: &str) -> String {
    format!(
        r#"(module {import}
        (memory (export "memory") 4)
        (func (export "wasmpool_abi_v1"))
        (func (export "wasmpool_alloc") (param i32) (result i32) (i32.const 1024))
        (func $down (param i64) (result i64)
            {call}
            (if (result i64) (i64.eqz (local.get 0))
                (then (i64.const 0))
                (else (i64.add (i64.const 1) (call $down (i64.sub (local.get 0) (i64.const 1)))))))
        (func (export "deep") (param i32 i32) (result i64)
            (drop (call $down (i64.load (i32.const 1024))))
            (i32.store8 (i32.const 1024) (i32.const 0))
            (i64.or (i64.shl (i64.const 1024) (i64.const 32)) (i64.const 1))))"#
    )
}

/// Returns modules that make no host call, one that allocates and formats on the main stack, and WASI's on a
/// fiber: to look at a clock, to write, to fill a buffer, to wait.
fn variants() -> Vec<(&'static str, String)> {
    let wasi = |name: &str, params: &str| {
        format!(r#"(import "wasi_snapshot_preview1" "{name}" (func $host (param {params}) (result i32)))"#)
    };
    let log = r#"(import "wasmpool" "log" (func $host (param i32 i32 i32 i32 i32 i32 i32)))"#;
    let zeros = "(i32.const 0) (i32.const 0) (i32.const 0)";
    vec![
        ("plain", deep_wat("", "")),
        ("log", deep_wat(log, &format!("(call $host (i32.const 5) {zeros} {zeros})"))),
        (
            "clock",
            deep_wat(
                &wasi("clock_time_get", "i32 i64 i32"),
                "(drop (call $host (i32.const 0) (i64.const 0) (i32.const 0)))",
            ),
        ),
        (
            "write",
            deep_wat(
                &wasi("fd_write", "i32 i32 i32 i32"),
                "(drop (call $host (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 80)))",
            ),
        ),
        (
            "random",
            deep_wat(&wasi("random_get", "i32 i32"), "(drop (call $host (i32.const 2048) (i32.const 64)))"),
        ),
        (
            "poll",
            deep_wat(
                &wasi("poll_oneoff", "i32 i32 i32 i32"),
                "(drop (call $host (i32.const 128) (i32.const 256) (i32.const 1) (i32.const 80)))",
            ),
        ),
    ]
}

fn run(pool: &Pool, task: &RawTask, depth: u64) -> Result<(), TaskError> {
    let future = pool.submit_bytes(task, depth.to_le_bytes().to_vec()).expect("is accepted");
    let ended = future.result_timeout(PATIENCE).expect("in time");
    ended.map(|_| ()).map_err(|failure| failure.error().clone())
}

/// The deepest that succeeds; what is deeper is a trap, and nothing else.
fn depth(pool: &Pool, module: &Module) -> u64 {
    let task = support::raw(module, "deep");
    let mut good = 0;
    let mut bad = 1 << 22;
    while bad - good > good / 64 + 1 {
        let middle = good + (bad - good) / 2;
        match run(pool, &task, middle) {
            Ok(()) => good = middle,
            Err(TaskError::Trap { code: TrapCode::StackOverflow, .. }) => bad = middle,
            Err(error) => panic!("{middle} deep: {error}"),
        }
    }
    good
}

#[test]
fn recursion_goes_as_deep_as_the_pool_says_on_both_stacks() {
    let sizes = [64, 256, 1024, 4096].map(|kib| kib * 1024);
    let mut before: Option<[u64; 2]> = None;
    for bytes in sizes {
        let pool = support::build(support::builder(1).wasm_stack_bytes_max(bytes));
        // The second has the same frames and runs on a fiber.
        let fiber =
            deep_wat(r#"(import "wasi_snapshot_preview1" "sched_yield" (func $host (result i32)))"#, "");
        let depths = [deep_wat("", ""), fiber].map(|text| depth(&pool, &support::wat(&pool, &text)));
        println!("{} KiB: {} deep, on a fiber {}", bytes / 1024, depths[0], depths[1]);
        for (before, depth) in before.iter().flatten().zip(depths) {
            assert!(depth > before * 3, "{bytes} bytes: {depth} deep, {before} with a quarter");
        }
        before = Some(depths);
        assert_eq!(pool.stats().workers_died, 0);
    }
}

#[test]
fn an_overflow_is_a_trap_through_any_host_call_with_any_stack() {
    let least = limits::WASM_STACK_BYTES_MIN;
    let most = limits::WASM_STACK_BYTES_AT_MOST;
    for bytes in [least, limits::WASM_STACK_BYTES_MAX, most] {
        let pool = support::build(support::builder(1).wasm_stack_bytes_max(bytes));
        for (name, text) in variants() {
            let task = support::raw(&support::wat(&pool, &text), "deep");
            let error = run(&pool, &task, u64::MAX).expect_err(name);
            let overflow = matches!(error, TaskError::Trap { code: TrapCode::StackOverflow, .. });
            assert!(overflow, "{name}, {bytes} bytes: {error}");
            assert!(run(&pool, &task, 1).is_ok(), "{name}, {bytes} bytes: the next task");
        }
        assert_eq!(pool.stats().workers_died, 0, "{bytes} bytes");
    }
}

/// Files are where WASI's own calls are deepest.
#[test]
fn an_overflow_among_files_is_a_trap() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .expect("has a mode");
    let import = r#"(import "wasi_snapshot_preview1" "fd_readdir"
        (func $host (param i32 i32 i32 i64 i32) (result i32)))"#;
    let call =
        "(drop (call $host (i32.const 3) (i32.const 2048) (i32.const 64) (i64.const 0) (i32.const 80)))";
    for bytes in [limits::WASM_STACK_BYTES_MIN, limits::WASM_STACK_BYTES_MAX] {
        let builder = support::builder(1).wasm_stack_bytes_max(bytes);
        let pool = support::build(builder.dir(folder.path(), "/", wasmpool::sandbox::DirAccess::ReadWrite));
        let task = support::raw(&support::wat(&pool, &deep_wat(import, call)), "deep");
        let error = run(&pool, &task, u64::MAX).expect_err("overflows");
        assert!(matches!(error, TaskError::Trap { code: TrapCode::StackOverflow, .. }), "{error}");
        assert_eq!(pool.stats().workers_died, 0, "{bytes} bytes");
    }
}

#[test]
fn the_same_machine_code_serves_every_size() {
    let cache = tempfile::tempdir().expect("a folder");
    let kept = || std::fs::read_dir(cache.path()).expect("reads").count();
    let mut first = None;
    for bytes in [limits::WASM_STACK_BYTES_MIN, limits::WASM_STACK_BYTES_AT_MOST] {
        let builder = Pool::builder().workers(1).cache_dir(cache.path()).wasm_stack_bytes_max(bytes);
        let pool = support::build(builder);
        let module = support::wat(&pool, &deep_wat("", ""));
        run(&pool, &support::raw(&module, "deep"), 1).expect("succeeds");
        assert_eq!(*first.get_or_insert_with(kept), kept());
    }
    assert!(first.is_some_and(|kept| kept > 0));
}

#[test]
fn a_size_out_of_bounds_is_refused() {
    for bytes in [0, limits::WASM_STACK_BYTES_MIN - 1, limits::WASM_STACK_BYTES_AT_MOST + 1, usize::MAX] {
        let error = Pool::builder().wasm_stack_bytes_max(bytes).build().expect_err("is refused");
        assert!(error.to_string().contains("wasm_stack_bytes_max"), "{error}");
    }
}
