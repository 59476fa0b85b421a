//! The pool's numbers, scraped through an exporter. A process of its own, since a recorder is global.

mod common;

use std::collections::BTreeMap;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use rustix::process::Signal;
use wasmpool::TaskOptions;
use wasmpool::pool::{OnWorkerDeath, ShutdownMode};
use wasmpool::task::Retry;

/// What stands in one scrape, by name and labels as they are written.
fn scrape(handle: &PrometheusHandle) -> BTreeMap<String, f64> {
    let text = handle.render();
    let samples = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a sample");
            (name.to_string(), value.parse().expect("a number"))
        })
        .collect()
}

#[test]
fn every_number_is_scraped_with_its_labels_and_adds_up() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).expect("the first");
    let pool = common::builder(1)
        .on_worker_death(OnWorkerDeath::replace())
        .log_rate_max(50_000)
        .build()
        .expect("builds");
    pool.publish_metrics("test").expect("starts");
    let faults = common::load(&pool, "faults");
    let echo = common::load(&pool, "echo");
    let hash = echo.task::<Vec<u8>, u64>("hash").expect("types agree");
    let spin = echo.task::<u64, u64>("spin").expect("types agree");
    for _ in 0..5 {
        pool.submit(&hash, &vec![1; 100]).expect("submits").result().expect("hashes");
    }
    let own_error = faults.task::<String, ()>("own_error").expect("types agree");
    common::error(&pool.submit(&own_error, "no").expect("submits"));
    let flood = faults.task::<u64, ()>("stdout_flood").expect("types agree");
    let options = TaskOptions::new().log_bytes_max(1_000);
    pool.submit_with(&flood, &5_000, options).expect("submits").result().expect("floods");
    // The same beyond the worker's rate: all at once, and what is told once a second is told at its end.
    let options = TaskOptions::new().log_bytes_max(1_000_000);
    pool.submit_with(&flood, &200_000, options).expect("submits").result().expect("floods");
    let over_the_rate = pool.stats().log_records_dropped;
    assert!(over_the_rate > 0);
    // One attempt with a worker that dies, and one at its deadline.
    let options = TaskOptions::new().retry(Retry::attempts(2));
    let killed = pool.submit_with(&spin, &u64::MAX, options).expect("submits");
    common::eventually("it to run", || killed.is_running());
    common::signal(pool.worker_pids()[0], Signal::KILL);
    common::eventually("the other attempt", || {
        scrape(&handle).get("wasmpool_task_retries_total{pool=\"test\",outcome=\"lost\"}") == Some(&1.0)
    });
    let busy = "wasmpool_workers{pool=\"test\",state=\"busy\"}";
    common::eventually("a busy worker", || scrape(&handle).get(busy) == Some(&1.0));
    let waiting = pool.submit(&hash, &vec![1]).expect("submits");
    common::eventually("a task in the queue", || {
        let seen = scrape(&handle);
        ["queued", "running"]
            .iter()
            .all(|what| seen.get(&format!("wasmpool_tasks_{what}{{pool=\"test\"}}")) == Some(&1.0))
    });
    killed.abort();
    common::error(&killed);
    waiting.result().expect("hashes");
    pool.shutdown(ShutdownMode::Finish);
    let leaving = "wasmpool_workers_leaving_total{pool=\"test\",reason=\"pool_ends\"}";
    common::eventually("the end to be told", || scrape(&handle).get(leaving) == Some(&1.0));
    let seen = scrape(&handle);
    let value = |name: &str, labels: &str| {
        let key = format!("wasmpool_{name}{{pool=\"test\"{labels}}}");
        *seen.get(&key).unwrap_or_else(|| panic!("no {key} in {:#?}", seen.keys()))
    };
    assert_eq!(value("log_dropped_records_total", ""), pool.stats().log_records_dropped as f64);
    assert!(value("log_dropped_records_total", "") >= over_the_rate as f64);
    assert_eq!(value("tasks_total", ",outcome=\"succeeded\""), 8.0);
    assert_eq!(value("tasks_total", ",outcome=\"failed\""), 1.0);
    assert_eq!(value("tasks_total", ",outcome=\"aborted\""), 1.0);
    assert_eq!((value("tasks_queued", ""), value("tasks_running", "")), (0.0, 0.0));
    for phase in ["queued", "transfer", "run", "cpu"] {
        assert_eq!(value(&format!("task_{phase}_seconds_count"), ""), 10.0, "{phase}");
    }
    assert!(value("task_run_seconds_sum", "") > 0.0 && value("task_memory_bytes_sum", "") > 65_536.0);
    assert!(value("log_dropped_bytes_total", "") >= 3_500.0);
    // Five times a hundred bytes and their length; a text, and numbers of one to ten bytes.
    assert_eq!(value("input_bytes_total", ""), 5.0 * 101.0 + 3.0 + 2.0 + 3.0 + 10.0 + 2.0);
    assert!(value("output_bytes_total", "") > 6.0);
    let loaded = seen.iter().filter(|(name, _)| name.starts_with("wasmpool_modules_loaded_total{"));
    assert_eq!(loaded.map(|(_, count)| count).sum::<f64>(), 2.0);
    assert_eq!(value("workers_started_total", ""), 2.0);
    assert_eq!(value("workers_died_total", ",cause=\"signaled\""), 1.0);
    assert!(value("sandbox_layers", "") >= 2.0);
    assert!(handle.render().contains("# TYPE wasmpool_task_run_seconds summary"), "described");
}

/// The table in the documentation is the numbers' contract: each name stands in it, and nothing else does.
#[test]
fn the_documented_table_is_what_the_code_tells() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/metrics.rs");
    let text = std::fs::read_to_string(path).expect("reads");
    let (docs, code): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with("//!"));
    let names = |lines: &[&str], quote: char| {
        let mut names: Vec<String> = lines
            .iter()
            .flat_map(|line| line.split(quote))
            .filter(|word| word.starts_with("wasmpool_") && !word.contains(' '))
            .map(String::from)
            .collect();
        names.sort();
        names.dedup();
        names
    };
    assert_eq!(names(&docs, '`'), names(&code, '"'));
    assert_eq!(names(&docs, '`').len(), 23);
}
