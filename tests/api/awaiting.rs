//! Results that are awaited by reference, tasks that end with their future, and loading and shutting down without a
//! thread of the caller's.

use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join;
use wasmpool::TaskError;
use wasmpool::error::ModuleError;
use wasmpool::module::ModuleOptions;
use wasmpool::pool::ShutdownMode;

use crate::support::{eventually, load, pool, prebuilt, raw};

#[test]
fn a_future_is_awaited_by_reference_by_several_at_once_and_again() {
    let pool = pool(1);
    let primes = load(&pool, "primes").task::<u64, u64>("count").expect("types agree");
    for _ in 0..50 {
        let future = pool.submit(&primes, &1000).expect("submits");
        let twice = smol::block_on(async {
            let executor = smol::LocalExecutor::new();
            let [one, other] = [(), ()].map(|()| executor.spawn(async { (&future).await.expect("counts") }));
            executor.run(join(one, other)).await
        });
        assert_eq!(twice, (168, 168));
        assert_eq!(smol::block_on(async { (&future).await }).expect("counts"), 168);
        assert_eq!(smol::block_on(future).expect("counts"), 168);
    }
}

#[test]
fn one_that_gives_up_takes_no_wake_up_from_another() {
    let pool = pool(1);
    let faults = load(&pool, "faults");
    let endless = faults.raw_task("endless_loop").expect("there is");
    let future = pool.task(&endless).timeout(Duration::from_millis(300)).submit("").expect("submits");
    smol::block_on(async {
        let giving_up = async {
            let after = smol::Timer::after(Duration::from_millis(20));
            futures::future::select(Box::pin(async { (&future).await.map(drop) }), after).await;
        };
        let ((), ended) = join(giving_up, async { (&future).await }).await;
        assert_eq!(ended.expect_err("it has a timeout").kind(), "timeout");
    });
}

#[test]
fn a_task_ends_with_its_future_if_that_was_asked_for() {
    let pool = pool(1);
    let faults = load(&pool, "faults");
    let endless = faults.raw_task("endless_loop").expect("there is");
    let future = pool.submit(&endless, "").expect("submits").abort_on_drop();
    eventually("it runs", || future.is_running());
    let pending = pool.submit(&endless, "").expect("submits").abort_on_drop();
    drop(pending);
    drop(future);
    eventually("both ended", || pool.stats().ended.aborted + pool.stats().ended.cancelled == 2);
    // The drop of one that is done does nothing.
    let echo = raw(&load(&pool, "echo"), "echo");
    let echoed = pool.submit(&echo, "x").expect("submits").abort_on_drop();
    assert_eq!(echoed.result().expect("echoes"), "x");
    drop(echoed);
    assert_eq!(pool.stats().ended.succeeded, 1);
}

#[test]
fn a_module_is_loaded_while_the_executor_does_other_things() {
    let pool = pool(1);
    let wasm = std::fs::read(prebuilt("echo")).expect("reads");
    let (from_file, from_bytes) = smol::block_on(join(
        pool.load_file_async(prebuilt("echo"), ModuleOptions::new()),
        pool.load_async(wasm, ModuleOptions::new()),
    ));
    assert_eq!(from_file.expect("loads"), from_bytes.expect("loads"));
    let error = smol::block_on(pool.load_async(&b"nothing"[..], ModuleOptions::new()));
    assert!(matches!(error, Err(ModuleError::Invalid { .. })), "{error:?}");
    // The work goes on without its future.
    drop(pool.load_file_async(prebuilt("primes"), ModuleOptions::new()));
    eventually("it is loaded", || pool.stats().modules == 0);
}

#[test]
fn a_pool_is_shut_down_without_a_thread_of_the_callers() {
    let pool = pool(1);
    let faults = load(&pool, "faults");
    let endless = faults.raw_task("endless_loop").expect("there is");
    let running = pool.task(&endless).timeout(Duration::from_millis(200)).submit("").expect("submits");
    eventually("it runs", || running.is_running());
    let pending = pool.submit(&endless, "").expect("submits");
    let pid = pool.worker_pids()[0];
    let shutdown = pool.shutdown_async(ShutdownMode::CancelPending);
    assert_eq!(*pending.failure().expect("fails").error(), TaskError::Cancelled);
    smol::block_on(shutdown);
    assert!(running.is_done() && !crate::support::is_alive(pid));
    // A second shutdown finds nothing left to do.
    smol::block_on(pool.shutdown_async(ShutdownMode::Finish));
}

#[test]
fn a_map_is_a_stream_in_input_order_or_as_results_come() {
    let pool = pool(2);
    let primes = load(&pool, "primes").task::<u64, u64>("count").expect("types agree");
    let expected: Vec<_> = pool.map(&primes, 0..300).map(|count| count.expect("counts")).collect();
    let stream = pool.map(&primes, 0..300).stream().expect("has a thread");
    let counts: Vec<_> = smol::block_on(stream.map(|count| count.expect("counts")).collect());
    assert_eq!(counts, expected);
    let stream = pool.map(&primes, 0..300).unordered().stream().expect("has a thread");
    let mut counts: Vec<_> =
        smol::block_on(stream.map(|(number, count)| (number, count.expect("counts"))).collect());
    counts.sort_unstable();
    assert_eq!(counts, expected.into_iter().enumerate().collect::<Vec<_>>());
}

#[test]
fn a_stream_pulls_nothing_before_it_is_polled_and_ends_for_good() {
    let pool = pool(1);
    let echo = raw(&load(&pool, "echo"), "echo");
    let (inputs, source) = std::sync::mpsc::channel::<&str>();
    let mut stream = pool.map(&echo, source).stream().expect("has a thread");
    inputs.send("a").expect("somebody listens");
    assert_eq!(pool.stats().submitted, 0);
    let first = smol::block_on(stream.next()).expect("one").expect("echoes");
    assert_eq!(first, "a");
    drop(inputs);
    assert!(smol::block_on(stream.next()).is_none() && smol::block_on(stream.next()).is_none());
}

#[test]
fn a_stream_that_is_dropped_cancels_what_does_not_run() {
    let pool = pool(1);
    let endless = load(&pool, "faults").raw_task("endless_loop").expect("there is");
    let mut stream = pool.map(&endless, std::iter::repeat_n("", 5)).stream().expect("has a thread");
    assert!(futures::FutureExt::now_or_never(stream.next()).is_none());
    eventually("all are submitted", || pool.stats().submitted == 5 && pool.stats().running == 1);
    drop(stream);
    eventually("the rest is cancelled", || pool.stats().ended.cancelled == 4);
    pool.kill();
}

#[test]
fn a_panic_of_a_streams_inputs_comes_out_of_it() {
    let pool = pool(1);
    let echo = raw(&load(&pool, "echo"), "echo");
    let inputs = (0..3).map(|number| if number == 2 { panic!("no more") } else { "x" });
    let mut stream = pool.map(&echo, inputs).stream().expect("has a thread");
    smol::block_on(async {
        let mut results = 0;
        let panic = loop {
            let next = std::panic::AssertUnwindSafe(stream.next());
            match futures::FutureExt::catch_unwind(next).await {
                Ok(Some(result)) => results += usize::from(result.is_ok()),
                Ok(None) => panic!("it ends without the panic"),
                Err(panic) => break panic,
            }
        };
        assert_eq!((results, panic.downcast_ref::<&str>()), (2, Some(&"no more")));
        assert!(stream.next().await.is_none());
    });
}
