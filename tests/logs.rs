//! Guests' records come out of the host's `tracing` subscriber, attributed and in order.
//!
//! This suite has an executable of its own because the subscriber is the whole process's.

mod support;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};

use support::{load, pool, say};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Metadata, Subscriber, span};
use wasmpool::TaskOptions;

type Record = BTreeMap<String, String>;

/// Keeps what guests said; a subscriber as small as can be.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Record>>>);

struct Fields<'a>(&'a mut Record);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().into(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }
}

impl Subscriber for Kept {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("wasmpool")
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut record = Record::from([
            ("level".into(), metadata.level().to_string()),
            ("from".into(), metadata.target().to_string()),
        ]);
        event.record(&mut Fields(&mut record));
        if record.get("label").is_some_and(|label| label == SLOW) {
            std::thread::sleep(SLOWLY);
        }
        self.0.lock().expect("locks").push(record);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// The one subscriber of this process.
fn kept() -> &'static Kept {
    static KEPT: OnceLock<Kept> = OnceLock::new();
    KEPT.get_or_init(|| {
        let kept = Kept::default();
        tracing::subscriber::set_global_default(kept.clone()).expect("the only one");
        kept
    })
}

/// The label of what the subscriber takes its time for, and how long.
const SLOW: &str = "slow to hear";
const SLOWLY: std::time::Duration = std::time::Duration::from_millis(100);

/// Returns what was said under a label, in order.
fn of(label: &str) -> Vec<Record> {
    let records = kept().0.lock().expect("locks");
    let is_of = |record: &&Record| record.get("label").is_some_and(|found| found == label);
    records.iter().filter(|record| record["from"] == "wasmpool::guest").filter(is_of).cloned().collect()
}

/// Returns what the pools said of records that they dropped.
fn reports() -> Vec<Record> {
    let records = kept().0.lock().expect("locks");
    records.iter().filter(|record| record.contains_key("dropped_records")).cloned().collect()
}

#[test]
fn records_lines_and_tracing_events_arrive_with_task_label_module_and_worker() {
    kept();
    let pool = pool(2);
    let orders = load(&pool, "traced").task::<u32, u64>("orders").expect("types agree");
    let options = TaskOptions::new().label("with spans");
    let future = pool.submit_with(&orders, &3, options).expect("submits");
    future.result().expect("logs");
    let task = future.task_id();
    let pid = future.report().and_then(|report| report.worker_pid).expect("ran");
    let records = of("with spans");
    assert!(!records.is_empty());
    for record in &records {
        assert_eq!(record["task"], task.to_string());
        assert_eq!(record["worker_pid"], pid.to_string());
        assert!(record["module"].starts_with("traced.wasm (sha256 "), "{record:?}");
    }
    assert!(records.iter().any(|record| record["fields"].contains("spans")), "{records:?}");

    let echo = load(&pool, "echo").task::<u32, u32>("log_lines").expect("types agree");
    pool.submit_with(&echo, &10, TaskOptions::new().label("levels"))
        .expect("submits")
        .result()
        .expect("logs");
    let records = of("levels");
    let levels: std::collections::BTreeSet<_> =
        records.iter().map(|record| record["level"].clone()).collect();
    assert_eq!(levels.len(), 5, "every level: {levels:?}");
    let messages: Vec<_> = records.iter().map(|record| record["message"].clone()).collect();
    assert_eq!(messages, (0..10).map(|n| format!("line {n}")).collect::<Vec<_>>(), "in order");
}

#[test]
fn a_guests_terminal_sequences_are_escaped_in_its_output_lines() {
    // The prebuilt guests print harmless text; this one writes ESC to its stdout.
    kept();
    let pool = pool(1);
    let module = support::wat(
        &pool,
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 100) "\1b[2Jgone\n")
            (data (i32.const 200) "\64\00\00\00\09\00\00\00")
            (func (export "wasmpool_abi_v1"))
            (func (export "wasmpool_alloc") (param i32) (result i32) i32.const 512)
            (func (export "say") (param i32 i32) (result i64)
                (drop (call $write (i32.const 1) (i32.const 200) (i32.const 1) (i32.const 300)))
                (i64.const 0x30000000001)))"#,
    );
    let options = TaskOptions::new().label("escape");
    let say = support::raw(&module, "say");
    pool.submit_with(&say, "", options).expect("submits").result().expect("says");
    let said = of("escape");
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!((&*said[0]["message"], &*said[0]["source"]), ("\\u{1b}[2Jgone", "stdout"));
}

#[test]
fn lines_of_a_hundred_tasks_at_once_are_never_mixed_and_each_has_its_task() {
    kept();
    let pool = pool(4);
    let module = support::wat(&pool, &say::text(1));
    let say = support::raw(&module, "say");
    let submit = |n: usize| {
        let options = TaskOptions::new().label(format!("interleaved {n}"));
        pool.submit_with(&say, &format!("word{n}"), options).expect("submits")
    };
    let futures: Vec<_> = (0..100).map(submit).collect();
    for future in &futures {
        future.result_timeout(support::PATIENCE).expect("in time").expect("says");
    }
    for (n, future) in futures.iter().enumerate() {
        let records = of(&format!("interleaved {n}"));
        assert_eq!(records.len(), 20, "task {n}");
        for record in records {
            assert_eq!(record["message"], format!("word{n}-word{n}"));
            assert_eq!(record["task"], future.task_id().to_string());
        }
    }
}

/// Returns what this worker said of itself, in order.
fn of_worker(pid: u32) -> Vec<Record> {
    let records = kept().0.lock().expect("locks");
    let pid = pid.to_string();
    let is_its = |record: &&Record| record["from"] == "wasmpool::worker" && record["worker_pid"] == pid;
    records.iter().filter(is_its).cloned().collect()
}

#[test]
fn a_workers_own_events_arrive_with_its_pid_and_of_a_task_with_that() {
    kept();
    let pool = support::builder(1).worker_log_level(LevelFilter::DEBUG).build().expect("builds");
    let module = support::wat(&pool, &say::text(1));
    let say = support::raw(&module, "say");
    let table = pool.share(&b"shared"[..]).expect("shares");
    let options = TaskOptions::new().label("first of its module").shared(&table);
    let future = pool.submit_with(&say, "word", options).expect("submits");
    future.result().expect("says");
    // A record that the watcher had no room for comes with the next answer at the latest.
    pool.submit(&say, "word").expect("submits").result().expect("says");
    let pid = future.report().and_then(|report| report.worker_pid).expect("it ran");
    let events = of_worker(pid);
    let event = |message: &str| {
        let found = events.iter().find(|event| event["message"] == message);
        found.unwrap_or_else(|| panic!("no {message:?} in {events:#?}"))
    };
    let ready = event("ready");
    assert_eq!((ready.get("task"), &*ready["level"], &*ready["source"]), (None, "DEBUG", "worker"));
    assert!(ready["origin"].starts_with("wasmpool::worker") && ready["fields"].contains("\"policy\":"));
    let mapped = event("a module is mapped");
    assert_eq!(mapped["task"], future.task_id().to_string());
    assert_eq!(mapped["label"], "first of its module");
    assert!(mapped["module"].contains("(sha256 ") && mapped["fields"].contains("\"took_us\":"));
    assert!(event("a shared input is mapped")["fields"].ends_with("\"bytes\":6}"));
    // The record stands among the task's lines where it was said.
    let records = kept().0.lock().expect("locks");
    let at = |is_it: &dyn Fn(&Record) -> bool| records.iter().position(is_it).expect("a record");
    let line = |record: &Record| {
        record["from"] == "wasmpool::guest"
            && record.get("task") == mapped.get("task")
            && record["worker_pid"] == mapped["worker_pid"]
    };
    assert!(at(&|record| record == mapped) < at(&line));
}

#[test]
fn what_no_level_asks_for_is_not_sent_and_what_is_sent_is_held_to_the_rate() {
    kept();
    let run = |builder: wasmpool::PoolBuilder| {
        let pool = builder.build().expect("builds");
        let say = support::raw(&support::wat(&pool, &say::text(1)), "say_nothing");
        pool.submit(&say, "").expect("submits").result().expect("runs");
        let pid = pool.worker_pids()[0];
        let dropped = pool.stats().log_records_dropped;
        pool.shutdown(wasmpool::pool::ShutdownMode::Finish);
        (of_worker(pid).len(), dropped)
    };
    // Records that are not sent cannot be dropped.
    assert_eq!(run(support::builder(1).worker_log_level(LevelFilter::OFF).log_rate_max(1)), (0, 0));
    assert_eq!(run(support::builder(1).log_rate_max(1)), (0, 0), "by default there are warnings only");
    let (arrived, dropped) = run(support::builder(1).worker_log_level(LevelFilter::TRACE).log_rate_max(1));
    assert!(arrived == 0 && dropped >= 2, "{arrived} arrived, {dropped} were dropped");
    let (arrived, _) =
        run(support::builder(1).worker_log_level(LevelFilter::OFF).engine_log_level(LevelFilter::TRACE));
    assert!(arrived > 0, "the engine says something of an instance");
}

#[test]
fn a_worker_that_dies_leaves_its_last_lines_in_the_breakage() {
    kept();
    let pool = support::builder(1).build().expect("builds");
    let module = support::wat(&pool, &say::text(1));
    let options = TaskOptions::new().label("to die");
    let spin = support::raw(&module, "say_and_spin");
    let future = pool.submit_with(&spin, "last words", options).expect("submits");
    support::eventually("all lines", || of("to die").len() == 20);
    support::signal(pool.worker_pids()[0], rustix::process::Signal::KILL);
    let wasmpool::TaskError::Broken(broken) = support::error(&future) else { panic!("not broken") };
    let last = &broken.death().last_logs;
    assert_eq!(last.len(), proto::limits::LAST_LOGS_MAX);
    let line = format!("task {}, stdout: last words-last words", future.task_id());
    assert!(last.iter().all(|kept| *kept == line), "{last:?}");
    assert!(broken.to_string().contains(&format!("the last of its logs: {line}")), "{broken}");
}

#[test]
fn what_is_over_the_rate_is_dropped_counted_and_told_and_the_task_goes_on() {
    kept();
    let pool = support::builder(1).log_rate_max(200).build().expect("builds");
    let say = support::raw(&support::wat(&pool, &say::text(1)), "say");
    let long = "x".repeat(40);
    let options = TaskOptions::new().label("over the rate");
    pool.submit_with(&say, &long, options).expect("submits").result().expect("says");
    let kept_lines = of("over the rate").len() as u64;
    let dropped = pool.stats().log_records_dropped;
    assert!(
        kept_lines + dropped == 20 && kept_lines >= 1 && dropped >= 10,
        "{kept_lines} kept, {dropped} dropped"
    );
    let pid = pool.worker_pids()[0].to_string();
    pool.shutdown(wasmpool::pool::ShutdownMode::Finish);
    let told: u64 = reports()
        .iter()
        .filter(|report| report["worker_pid"] == pid)
        .map(|report| report["dropped_records"].parse::<u64>().expect("a number"))
        .sum();
    assert_eq!(told, dropped);
}

#[test]
fn whoever_stops_reading_amid_a_flood_leaves_the_answer_to_others() {
    kept();
    let pool = support::builder(1).log_rate_max(100).build().expect("builds");
    let log_lines = load(&pool, "echo").task::<u32, u32>("log_lines").expect("types agree");
    pool.submit(&log_lines, &0).expect("submits").result().expect("the worker is there, and idle");
    // The task may log a little more than a flood: the answer is read ahead with the last of its records.
    let options = TaskOptions::new().label(SLOW);
    let future = pool.submit_with(&log_lines, &2100, options).expect("submits");
    let _ = future.result_timeout(SLOWLY / 2);
    let waited = wasmpool::future::wait(
        &[&future],
        Some(support::PATIENCE),
        wasmpool::future::ReturnWhen::AllCompleted,
    );
    assert!(future.is_done(), "its answer was heard: {waited:?}");
}
