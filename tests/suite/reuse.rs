//! `Isolation::Reuse`: the instance lives on between tasks that succeed, and only between those.

use crate::support::{PATIENCE, build, builder, error, eventually, raw, wat};
use wasmpool::module::{ModuleOptions, RawTask};
use wasmpool::task::Isolation;
use wasmpool::{Bytes, Pool, TaskError, TaskFuture, TaskOptions};

/// Counts its calls in a global and in memory, and answers with both; then does what its input says:
/// `t` traps, `r` is an error of its own, `o` is too much output, `p` a pointer to nowhere, `s` spins.
const COUNT_WAT: &str = r#"(module
    (memory (export "memory") 4)
    (global $calls (mut i32) (i32.const 0))
    (func (export "wasmpool_abi_v1"))
    (func (export "wasmpool_alloc") (param i32) (result i32) i32.const 4096)
    (func (export "count") (param $at i32) (param $len i32) (result i64) (local $what i32)
        (local.set $what (i32.load8_u (local.get $at)))
        (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
        (i32.store8 (i32.const 2048) (i32.add (i32.load8_u (i32.const 2048)) (i32.const 1)))
        (i32.store8 (i32.const 1025) (global.get $calls))
        (i32.store8 (i32.const 1026) (i32.load8_u (i32.const 2048)))
        (if (i32.eq (local.get $what) (i32.const 115)) (then (loop (br 0))))
        (if (i32.eq (local.get $what) (i32.const 116)) (then unreachable))
        (if (i32.eq (local.get $what) (i32.const 111)) (then (return (i64.const 0x40000010000))))
        (if (i32.eq (local.get $what) (i32.const 112)) (then (return (i64.const -1))))
        (i32.store8 (i32.const 1024) (i32.eq (local.get $what) (i32.const 114)))
        (i64.const 0x40000000003)))"#;

fn reuse() -> TaskOptions {
    TaskOptions::new().isolation(Isolation::Reuse)
}

fn submit(pool: &Pool, task: &RawTask, what: &'static str, options: TaskOptions) -> TaskFuture<Bytes> {
    pool.submit_with(task, &Bytes::from_static(what.as_bytes()), options).expect("submits")
}

/// Returns how many calls the task's instance has seen, by its global and by its memory.
fn calls(pool: &Pool, task: &RawTask, options: TaskOptions) -> (u8, u8) {
    let future = submit(pool, task, "x", options);
    let output = future.result_timeout(PATIENCE).expect("in time").expect("succeeds");
    (output[0], output[1])
}

#[test]
fn an_instance_lives_on_from_task_to_task_where_it_is_asked_for_and_nowhere_else() {
    let pool = build(builder(1));
    let count = raw(&wat(&pool, COUNT_WAT), "count");
    for _ in 0..5 {
        assert_eq!(calls(&pool, &count, TaskOptions::new()), (1, 1), "a fresh one is the default");
    }
    for number in 1..=20 {
        assert_eq!(calls(&pool, &count, reuse()), (number, number));
    }
    assert_eq!(calls(&pool, &count, TaskOptions::new()), (1, 1), "who asks for a fresh one gets it");
    assert_eq!(calls(&pool, &count, reuse()), (1, 1), "and what was kept is gone");
}

#[test]
fn after_a_task_that_did_not_succeed_the_instance_is_gone() {
    let pool = build(builder(1));
    let count = raw(&wat(&pool, COUNT_WAT), "count");
    type Expected = fn(&TaskError) -> bool;
    let ends: [(&str, TaskOptions, Expected); 5] = [
        ("t", reuse(), |error| matches!(error, TaskError::Trap { .. })),
        ("r", reuse(), |error| matches!(error, TaskError::Guest { .. })),
        ("o", reuse().output_bytes_max(100), |error| matches!(error, TaskError::OutputTooLarge { .. })),
        ("p", reuse(), |error| matches!(error, TaskError::BadPointer { .. })),
        ("s", reuse().timeout(std::time::Duration::from_millis(30)), |error| {
            matches!(error, TaskError::Timeout { killed: false, .. })
        }),
    ];
    for (what, options, is_expected) in ends {
        for number in 1..=3 {
            assert_eq!(calls(&pool, &count, reuse()), (number, number), "before {what}");
        }
        let failed = error(&submit(&pool, &count, what, options));
        assert!(is_expected(&failed), "{what}: {failed}");
        assert_eq!(calls(&pool, &count, reuse()), (1, 1), "after {what}");
        let failed = error(&submit(&pool, &count, "t", reuse()));
        assert!(matches!(failed, TaskError::Trap { .. }), "{failed}");
    }
    // An abort in the middle of a change.
    assert_eq!(calls(&pool, &count, reuse()), (1, 1));
    let spins = submit(&pool, &count, "s", reuse());
    eventually("it to run", || spins.is_running());
    assert!(spins.abort());
    assert!(matches!(error(&spins), TaskError::Aborted { .. }));
    assert_eq!(calls(&pool, &count, reuse()), (1, 1));
    assert_eq!(pool.stats().workers_died, 0);
}

#[test]
fn an_instance_serves_so_many_tasks_and_no_more() {
    let pool = build(builder(1).isolation(Isolation::Reuse));
    let count = raw(&wat(&pool, COUNT_WAT), "count");
    let served: Vec<_> =
        (0..8).map(|_| calls(&pool, &count, TaskOptions::new().instance_tasks_max(3)).0).collect();
    assert_eq!(served, [1, 2, 3, 1, 2, 3, 1, 2]);
    for number in [0, 1] {
        let options = TaskOptions::new().instance_tasks_max(number);
        assert_eq!(calls(&pool, &count, options.clone()), (1, 1), "none is shared");
        assert_eq!(calls(&pool, &count, options), (1, 1));
    }
}

#[test]
fn a_module_never_sees_the_instance_of_another() {
    let pool = build(builder(1).isolation(Isolation::Reuse));
    let one = raw(&wat(&pool, COUNT_WAT), "count");
    let other = raw(
        &wat(&pool, &COUNT_WAT.replace("(memory (export \"memory\") 4)", "(memory (export \"memory\") 5)")),
        "count",
    );
    for _ in 0..3 {
        assert_eq!(calls(&pool, &one, TaskOptions::new()), (1, 1));
        assert_eq!(calls(&pool, &one, TaskOptions::new()), (2, 2));
        assert_eq!(calls(&pool, &other, TaskOptions::new()), (1, 1));
    }
}

#[test]
fn a_deterministic_task_has_an_instance_of_its_own() {
    let pool = build(builder(1).isolation(Isolation::Reuse));
    let wasm = ::wat::parse_str(COUNT_WAT).expect("valid");
    let module = pool.load_with(&wasm, ModuleOptions::new().deterministic(true)).expect("loads");
    let count = raw(&module, "count");
    for _ in 0..3 {
        assert_eq!(calls(&pool, &count, TaskOptions::new().deterministic(7)), (1, 1));
    }
    assert_eq!(calls(&pool, &count, TaskOptions::new()), (1, 1));
    assert_eq!(calls(&pool, &count, TaskOptions::new()), (2, 2));
}

#[test]
fn a_map_of_short_tasks_shares_an_instance_for_each_worker() {
    let pool = build(builder(2));
    let count = raw(&wat(&pool, COUNT_WAT), "count");
    let inputs = (0..5_000).map(|_| Bytes::from_static(b"x"));
    let outputs: Vec<_> = pool
        .map(&count, inputs)
        .options(reuse().instance_tasks_max(100))
        .map(|output| output.expect("succeeds")[0])
        .collect();
    assert_eq!(outputs.len(), 5_000);
    assert!(outputs.iter().all(|served| (1..=100).contains(served)));
    // Each begins anew after a hundred; and there are few beginnings more, where workers took turns.
    let fresh = outputs.iter().filter(|served| **served == 1).count();
    assert!((50..=200).contains(&fresh), "{fresh} fresh instances");
}
