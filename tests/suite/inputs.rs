//! An input that a worker has no memory for costs its task, and nobody else.

use crate::support::{self, PATIENCE, build, builder, error, raw, wat};
use wasmpool::task::CommandInput;
use wasmpool::{Bytes, TaskError, limits};

const MIB: usize = 1 << 20;

/// A command that could read its stdin, and does not.
const COMMAND_WAT: &str = r#"(module
    (import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")))"#;

#[test]
fn a_stdin_that_the_worker_has_no_memory_for_fails_its_command_and_the_worker_goes_on() {
    let size = 300 * MIB;
    let pool =
        build(builder(1).worker_memory_bytes_max(limits::WORKER_MEMORY_BYTES_MIN).input_bytes_max(size));
    let command = wat(&pool, COMMAND_WAT).command().expect("a command");
    let submit = |stdin: Bytes| pool.submit(&command, &CommandInput::new().stdin(stdin)).expect("submits");
    let succeeds = |stdin: &'static str| {
        submit(Bytes::from_static(stdin.as_bytes()))
            .result_timeout(PATIENCE)
            .expect("in time")
            .expect("exits with 0")
    };
    succeeds("before");
    let pids = pool.worker_pids();
    // The input is more than the worker has beside its room for tables; commands of either kind wait behind
    // each other.
    let input = Bytes::from(vec![7; size]);
    let futures: Vec<_> = (0..6)
        .map(|number| submit(if number % 2 == 0 { input.clone() } else { Bytes::from_static(b"small") }))
        .collect();
    for (number, future) in futures.iter().enumerate() {
        if number % 2 == 1 {
            future.result_timeout(PATIENCE).expect("in time").expect("exits with 0");
            continue;
        }
        let error = error(future);
        assert!(matches!(error, TaskError::InputTooLarge { bytes } if bytes == size as u64), "{error}");
        assert!(error.to_string().contains("worker_memory_bytes_max"), "{error}");
    }
    succeeds("after");
    assert_eq!((pool.worker_pids(), pool.stats().workers_died), (pids, 0));
}

#[test]
fn an_input_goes_into_the_guests_own_memory_and_costs_the_worker_none_beside_it() {
    let size = 300 * MIB;
    let pool =
        build(builder(1).worker_memory_bytes_max(limits::WORKER_MEMORY_BYTES_MIN).input_bytes_max(size));
    let echo = raw(&wat(&pool, support::ECHO_WAT), "echo");
    let pids = {
        let small = pool.submit_bytes(&echo, "before").expect("submits");
        small.result_timeout(PATIENCE).expect("in time").expect("echoes");
        pool.worker_pids()
    };
    let large = pool.submit_bytes(&echo, vec![7; size]).expect("submits");
    let small = pool.submit_bytes(&echo, "after").expect("submits");
    // This guest does not grow its memory for it: it says where the input is to go, and that is outside.
    let error = error(&large);
    assert!(matches!(error, TaskError::BadPointer { len, .. } if len as usize == size), "{error}");
    assert_eq!(small.result_timeout(PATIENCE).expect("in time").expect("echoes"), "after");
    assert_eq!((pool.worker_pids(), pool.stats().workers_died), (pids, 0));
}
