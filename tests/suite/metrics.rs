//! The pool's numbers, scraped through an exporter. The recorder is the whole process's, and only the pool of this
//! test publishes its numbers.

use crate::support;
use std::collections::BTreeMap;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use rustix::process::Signal;
use wasmpool::pool::{OnWorkerDeath, ShutdownMode};
use wasmpool::task::Retry;
use wasmpool::{Pool, Task, TaskOptions};

/// Returns what stands in one scrape, by name and labels as they are written.
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

/// Submits what ends well, with an error of its own, and with too many logs; returns how many records the pool
/// dropped because they came too fast.
fn run_tasks_that_end_by_themselves(pool: &Pool, hash: &Task<Vec<u8>, u64>) -> u64 {
    let faults = support::load(pool, "faults");
    for _ in 0..5 {
        pool.submit(hash, &vec![1; 100]).expect("submits").result().expect("hashes");
    }
    let own_error = faults.task::<String, ()>("own_error").expect("types agree");
    support::error(&pool.submit(&own_error, "no").expect("submits"));
    let flood = faults.task::<u64, ()>("stdout_flood").expect("types agree");
    let options = TaskOptions::new().log_bytes_max(1_000);
    pool.submit_with(&flood, &5_000, options).expect("submits").result().expect("floods");
    // These come faster than a worker may log. The count that is told once a second is also told at the
    // pool's end.
    let options = TaskOptions::new().log_bytes_max(1_000_000);
    pool.submit_with(&flood, &200_000, options).expect("submits").result().expect("floods");
    pool.stats().log_records_dropped
}

/// Submits a task that loses its first worker and is aborted in its second, with another one waiting behind it.
fn run_a_task_that_loses_its_worker(
    pool: &Pool,
    handle: &PrometheusHandle,
    spin: &Task<u64, u64>,
    hash: &Task<Vec<u8>, u64>,
) {
    let shows = |name: &str| scrape(handle).get(name) == Some(&1.0);
    let options = TaskOptions::new().retry(Retry::attempts(2));
    let killed = pool.submit_with(spin, &u64::MAX, options).expect("submits");
    support::eventually("it to run", || killed.is_running());
    support::signal(pool.worker_pids()[0], Signal::KILL);
    support::eventually("the other attempt", || {
        shows("wasmpool_task_retries_total{pool=\"test\",outcome=\"lost\"}")
    });
    support::eventually("a busy worker", || shows("wasmpool_workers{pool=\"test\",state=\"busy\"}"));
    let waiting = pool.submit(hash, &vec![1]).expect("submits");
    support::eventually("a task in the queue", || {
        let seen = scrape(handle);
        ["queued", "running"]
            .iter()
            .all(|what| seen.get(&format!("wasmpool_tasks_{what}{{pool=\"test\"}}")) == Some(&1.0))
    });
    killed.abort();
    support::error(&killed);
    waiting.result().expect("hashes");
}

fn assert_tasks_add_up(value: impl Fn(&str, &str) -> f64) {
    assert_eq!(value("tasks_total", ",outcome=\"succeeded\""), 8.0);
    assert_eq!(value("tasks_total", ",outcome=\"failed\""), 1.0);
    assert_eq!(value("tasks_total", ",outcome=\"aborted\""), 1.0);
    assert_eq!((value("tasks_queued", ""), value("tasks_running", "")), (0.0, 0.0));
    for phase in ["queued", "transfer", "run", "cpu"] {
        assert_eq!(value(&format!("task_{phase}_seconds_count"), ""), 10.0, "{phase}");
    }
    assert!(value("task_run_seconds_sum", "") > 0.0 && value("task_memory_bytes_sum", "") > 65_536.0);
    // Five times a hundred bytes and their length; a text, and numbers of one to ten bytes.
    assert_eq!(value("input_bytes_total", ""), 5.0 * 101.0 + 3.0 + 2.0 + 3.0 + 10.0 + 2.0);
    assert!(value("output_bytes_total", "") > 6.0);
}

fn assert_workers_add_up(value: impl Fn(&str, &str) -> f64) {
    assert_eq!(value("workers_started_total", ""), 2.0);
    assert_eq!(value("workers_died_total", ",cause=\"signaled\""), 1.0);
    assert!(value("sandbox_layers", "") >= 2.0);
}

#[test]
fn every_number_is_scraped_with_its_labels_and_adds_up() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).expect("the first");
    let pool = support::builder(1)
        .on_worker_death(OnWorkerDeath::replace())
        .log_rate_max(50_000)
        .build()
        .expect("builds");
    pool.publish_metrics("test").expect("starts");
    let echo = support::load(&pool, "echo");
    let hash = echo.task::<Vec<u8>, u64>("hash").expect("types agree");
    let spin = echo.task::<u64, u64>("spin").expect("types agree");
    let over_the_rate = run_tasks_that_end_by_themselves(&pool, &hash);
    assert!(over_the_rate > 0);
    run_a_task_that_loses_its_worker(&pool, &handle, &spin, &hash);
    pool.shutdown(ShutdownMode::Finish);
    let leaving = "wasmpool_workers_leaving_total{pool=\"test\",reason=\"pool_ends\"}";
    support::eventually("the end to be told", || scrape(&handle).get(leaving) == Some(&1.0));
    let seen = scrape(&handle);
    let value = |name: &str, labels: &str| {
        let key = format!("wasmpool_{name}{{pool=\"test\"{labels}}}");
        *seen.get(&key).unwrap_or_else(|| panic!("no {key} in {:#?}", seen.keys()))
    };
    assert_tasks_add_up(value);
    assert_workers_add_up(value);
    assert_eq!(value("log_dropped_records_total", ""), pool.stats().log_records_dropped as f64);
    assert!(value("log_dropped_records_total", "") >= over_the_rate as f64);
    assert!(value("log_dropped_bytes_total", "") >= 3_500.0);
    let loaded = seen.iter().filter(|(name, _)| name.starts_with("wasmpool_modules_loaded_total{"));
    assert_eq!(loaded.map(|(_, count)| count).sum::<f64>(), 2.0);
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
