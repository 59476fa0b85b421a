//! Fuzzes what the host reads from a worker's ring: frames that a hostile worker wrote.

use std::time::Duration;

use proto::message::samples::run_ends;
use proto::message::{Completion, Cost, FromWorker, LogRecord, LogSource, Question, RunEnd};
use proto::task::{Refusal, RefusalKind, Refusals, TaskId};

use super::frames;

/// See `frames`.
pub fn run(data: &[u8]) {
    frames::run::<FromWorker>(data);
}

/// Every end of a run, and a record.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<_> =
        run_ends().into_iter().map(|end| frames::seed(255, 1 << 16, &[(done(end), b"payload")])).collect();
    seeds.push(frames::seed(3, 64, &[(log(), b""), (done(RunEnd::Ok), b"out")]));
    seeds.push(frames::seed(
        9,
        64,
        &[(item(1), b"1"), (item(2), b""), (log(), b""), (done(RunEnd::Ok), b"")],
    ));
    seeds.push(frames::seed(7, 64, &[(ask(1), b""), (log(), b""), (ask(2), b""), (done(RunEnd::Ok), b"")]));
    // Longer than what is read at once.
    seeds.push(frames::seed(
        255,
        1 << 16,
        &[(returned(1), b"1"), (returned(2), b""), (item(3), b""), (done(RunEnd::Ok), b"")],
    ));
    seeds.push(frames::seed(255, 1 << 18, &[(item(1), &[b'x'; 100_000]), (done(RunEnd::Ok), b"")]));
    seeds
}

fn log() -> FromWorker {
    let record = LogRecord {
        source: LogSource::Guest,
        level: 3,
        target: "guest".into(),
        message: "half way \u{1b}[31m".into(),
        fields: r#"{"rows":7}"#.into(),
    };
    FromWorker::Log { task: TaskId(1), record }
}

fn cost() -> Cost {
    Cost {
        run_ns: 1000,
        cpu_ns: 900,
        peak_memory_bytes: 65536,
        fuel_used: Some(7),
        log_bytes_dropped: 0,
        refusals: refusals(),
    }
}

fn refusals() -> Refusals {
    let refusal = |kind| Refusal::new(kind, 1 << 40, 1 << 29, Duration::from_millis(3));
    let mut refusals = Refusals::default();
    refusals.add(refusal(RefusalKind::Memory));
    refusals.add(refusal(RefusalKind::System));
    refusals
}

fn done(end: RunEnd) -> FromWorker {
    FromWorker::Done { task: TaskId(1), completion: Completion { end, cost: cost(), stdout_bytes: 2 } }
}

fn ask(number: u64) -> FromWorker {
    FromWorker::Ask { task: TaskId(1), run: 1, number, question: Question::Stdin { bytes_max: 4096 } }
}

fn returned(task: u64) -> FromWorker {
    FromWorker::Returned { task: TaskId(task), run_ns: 300 }
}

fn item(task: u64) -> FromWorker {
    FromWorker::Item {
        task: TaskId(task),
        completion: Completion { end: RunEnd::Ok, cost: cost(), stdout_bytes: 0 },
    }
}
