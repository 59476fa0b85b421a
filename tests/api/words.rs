//! Tests what programs read: kinds of errors, and reports, numbers and events as data.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json, to_value};
use wasmpool::error::{BuildError, MapError, ShareError};
use wasmpool::event::{EventKind, PoolEvent};
use wasmpool::pool::{OnWorkerDeath, Replacement, ShutdownMode};
use wasmpool::task::Retry;
use wasmpool::{Pool, PoolBuilder};

use crate::support::{builder, load, pool, raw};

#[test]
fn each_error_has_a_kind() {
    let error = Pool::builder().workers(0).build().expect_err("no workers");
    assert_eq!(error.kind(), "workers");
    let error: BuildError = Pool::builder().prefetch_max(usize::MAX).build().expect_err("too many");
    assert_eq!(error.kind(), "setting");
    let pool = builder(1).share_bytes_max(3).build().expect("builds");
    let error: ShareError = pool.share("four").expect_err("too large");
    assert_eq!(error.kind(), "share_too_large");
    let echo = raw(&load(&pool, "echo"), "echo");
    let spin = raw(&load(&pool, "faults"), "endless_loop");
    let errors: Vec<MapError> =
        pool.map(&spin, [""]).timeout(Duration::from_millis(20)).filter_map(Result::err).collect();
    assert_eq!(errors.iter().map(MapError::kind).collect::<Vec<_>>(), ["map_timeout"]);
    pool.kill();
    let error = pool.submit(&echo, "x").expect_err("it is closed");
    assert_eq!(error.kind(), "pool_closed");
}

#[test]
fn reports_numbers_and_events_are_data_with_units_in_their_names() {
    let pool = pool(1);
    let events = pool.events();
    let echo = raw(&load(&pool, "echo"), "echo");
    let future = pool.task(&echo).label("one").submit("x").expect("submits");
    future.result().expect("echoes");
    let report = to_value(future.report().expect("it is done")).expect("is data");
    for field in ["queued_us", "run_us", "total_us", "cpu_us", "attempts", "worker_pid", "peak_memory_bytes"]
    {
        assert!(report[field].is_u64(), "{field} in {report}");
    }
    let stats = to_value(pool.stats()).expect("is data");
    assert_eq!(stats["ended"]["succeeded"], 1, "{stats}");
    assert!(["idle", "busy"].contains(&stats["workers"][0]["state"].as_str().expect("a word")), "{stats}");
    pool.shutdown(ShutdownMode::Finish);
    let events: Vec<Value> = events.map(|event: PoolEvent| to_value(event).expect("is data")).collect();
    assert!(events.iter().all(|event| event["at_us"].is_u64() && event["kind"]["event"].is_string()));
    let names: HashSet<_> = events.iter().filter_map(|event| event["kind"]["event"].as_str()).collect();
    for name in ["module_loaded", "worker_ready", "task_queued", "task_started", "task_finished", "stopped"] {
        assert!(names.contains(name), "{name} among {names:?}");
    }
    let queued = events.iter().find(|event| event["kind"]["event"] == "task_queued").expect("one is");
    assert_eq!((&queued["kind"]["name"], &queued["kind"]["label"]), (&json!("echo"), &json!("one")));
    let stopped = to_value(PoolEvent::new(Duration::from_secs(1), EventKind::Stopped)).expect("is data");
    assert_eq!(stopped, json!({ "at_us": 1_000_000, "kind": { "event": "stopped" } }));
}

#[test]
fn what_is_chosen_can_be_compared_put_in_sets_and_left_out() {
    let policies: HashSet<_> =
        [OnWorkerDeath::default(), OnWorkerDeath::Break, OnWorkerDeath::replace()].into();
    assert_eq!(policies.len(), 2);
    assert_eq!(HashSet::from([Replacement::default(), Replacement::new()]).len(), 1);
    assert_eq!(HashSet::from([Retry::default(), Retry::attempts(2)]).len(), 2);
    assert_eq!(ShutdownMode::default(), ShutdownMode::Finish);
    let _: PoolBuilder = PoolBuilder::default().workers(1);
}
