//! `test_init.py`. An initializer is a guest's own, and runs in each fresh instance, before the
//! task: no task can spoil it for the next.

use wasmpool::error::TrapCode;
use wasmpool::{TaskError, TaskOptions};

use super::{Duration, Mode, in_both_modes, output};
use crate::support::{error, load, raw, wat};

/// An initializer that ends as `init` says.
fn initialized_by(init: &str) -> String {
    format!(
        r#"(module
            (memory (export "memory") 1)
            (data (i32.const 16) "\01the table is missing")
            (func (export "wasmpool_abi_v1"))
            (func (export "wasmpool_alloc") (param i32) (result i32) i32.const 64)
            (func (export "wasmpool_init") (param i32 i32) (result i64) {init})
            (func (export "task") (param i32 i32) (result i64)
                (i32.store8 (i32.const 8) (i32.const 0))
                (i64.or (i64.shl (i64.const 8) (i64.const 32)) (i64.const 1))))"#
    )
}

in_both_modes! {
    fn test_initializer(mode: Mode) {
        let pool = mode.pool(2);
        let module = load(&pool, "init_table");
        let lookup = module.task::<u32, Vec<u32>>("lookup").expect("types agree");
        let runs = module.task::<(), u32>("init_runs").expect("types agree");
        for number in [12, 97, 199_999] {
            let factors = output(&pool.submit(&lookup, &number).expect("submits"));
            assert_eq!(factors.iter().product::<u32>(), number);
            assert_eq!(output(&pool.submit(&runs, &()).expect("submits")), 1, "once before each task");
        }
    }

    fn FailingInitializer(mode: Mode) {
        let pool = mode.pool(1);
        // The initializers fail with an error of their own, with a trap, and by not ending.
        let own = "(i64.or (i64.shl (i64.const 16) (i64.const 32)) (i64.const 21))";
        let task = |init| raw(&wat(&pool, &initialized_by(init)), "task");
        match error(&pool.submit_bytes(&task(own), "").expect("submits")) {
            TaskError::Guest { message, .. } => assert_eq!(message, "the table is missing"),
            other => panic!("{other}"),
        }
        match error(&pool.submit_bytes(&task("unreachable"), "").expect("submits")) {
            TaskError::Trap { code, .. } => assert_eq!(code, TrapCode::Unreachable),
            other => panic!("{other}"),
        }
        let limit = Duration::from_millis(50);
        let endless = task("(loop (br 0)) unreachable");
        let options = TaskOptions::new().timeout(limit);
        let future = pool.submit_with(&endless, "", options).expect("submits");
        assert_eq!(error(&future), TaskError::Timeout { limit, killed: false });
        // Unlike Python's, the pool is not broken.
        assert!(pool.broken().is_none());
    }

    fn FailingInitializerResources(mode: Mode) {
        let pool = mode.pool(1);
        let task = raw(&wat(&pool, &initialized_by("(drop (memory.grow (i32.const 500))) unreachable")), "task");
        let resident = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", pool.worker_pids()[0])).expect("lives");
            let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line").to_string();
            line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number")
        };
        let fail = || {
            for _ in 0..500 {
                let failed = error(&pool.submit_bytes(&task, "").expect("submits"));
                assert!(matches!(failed, TaskError::Trap { .. }), "{failed}");
            }
        };
        fail();
        let pids = pool.worker_pids();
        let before = resident();
        fail();
        assert_eq!(pool.worker_pids(), pids);
        assert!(resident() < before + 2048, "{} KiB, then {} KiB", before, resident());
    }
}
