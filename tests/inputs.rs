//! An input that a worker has no memory for costs its task, and nobody else.

mod common;

use common::{PATIENCE, build, builder, error, raw, wat};
use wasmpool::{Bytes, TaskError, limits};

const MIB: usize = 1 << 20;

#[test]
fn an_input_that_the_worker_has_no_memory_for_fails_its_task_and_the_worker_goes_on() {
    let size = 300 * MIB;
    let pool =
        build(builder(1).worker_memory_bytes_max(limits::WORKER_MEMORY_BYTES_MIN).input_bytes_max(size));
    let echo = raw(&wat(&pool, common::ECHO_WAT), "echo");
    let answer = |input: &'static str| {
        let future = pool.submit_bytes(&echo, input).expect("submits");
        future.result_timeout(PATIENCE).expect("in time").expect("echoes")
    };
    assert_eq!(answer("before"), "before");
    let pids = pool.worker_pids();
    // More than the worker has beside its room for tables; tasks of either kind wait behind each other.
    let input = Bytes::from(vec![7; size]);
    let futures: Vec<_> = (0..6)
        .map(|number| {
            let input = if number % 2 == 0 { input.clone() } else { Bytes::from_static(b"small") };
            pool.submit_bytes(&echo, input).expect("submits")
        })
        .collect();
    for (number, future) in futures.iter().enumerate() {
        if number % 2 == 1 {
            assert_eq!(future.result_timeout(PATIENCE).expect("in time").expect("echoes"), "small");
            continue;
        }
        let error = error(future);
        assert!(matches!(error, TaskError::InputTooLarge { bytes } if bytes == size as u64), "{error}");
        assert!(error.to_string().contains("worker_memory_bytes_max"), "{error}");
    }
    assert_eq!(answer("after"), "after");
    assert_eq!((pool.worker_pids(), pool.stats().workers_died), (pids, 0));
}
