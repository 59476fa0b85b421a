//! Fuzzes what the host reads from a worker's ring: frames that a hostile worker wrote.

use std::time::Duration;

use super::frames;
use crate::task::{Refusal, RefusalKind, Refusals, TaskId};
use crate::trap::{Frame, TrapCode};
use crate::wire::message::{Cost, FromWorker, LogRecord, LogSource, Question, RunEnd};

/// See `frames`.
pub fn run(data: &[u8]) {
    frames::run::<FromWorker>(data);
}

/// Every verdict, and a record.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<_> = verdicts()
        .into_iter()
        .map(|verdict| frames::seed(255, 1 << 16, &[(done(verdict), b"payload")]))
        .collect();
    seeds.push(frames::seed(3, 64, &[(log(), b""), (done(RunEnd::Ok), b"out")]));
    seeds.push(frames::seed(
        9,
        64,
        &[(item(1), b"1"), (item(2), b""), (log(), b""), (done(RunEnd::Ok), b"")],
    ));
    seeds.push(frames::seed(7, 64, &[(ask(1), b""), (log(), b""), (ask(2), b""), (done(RunEnd::Ok), b"")]));
    // Longer than what is read at once.
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
    let refusal =
        |kind| Refusal { kind, requested: 1 << 40, limit: 1 << 29, after: Duration::from_millis(3) };
    let mut refusals = Refusals::default();
    refusals.add(refusal(RefusalKind::Memory));
    refusals.add(refusal(RefusalKind::System));
    refusals
}

fn done(verdict: RunEnd) -> FromWorker {
    FromWorker::Done { task: TaskId(1), verdict, cost: cost(), stdout_bytes: 2 }
}

fn ask(number: u64) -> FromWorker {
    FromWorker::Ask { task: TaskId(1), run: 1, number, question: Question::Stdin { bytes_max: 4096 } }
}

fn item(task: u64) -> FromWorker {
    FromWorker::Item { task: TaskId(task), verdict: RunEnd::Ok, cost: cost() }
}

pub(super) fn verdicts() -> Vec<RunEnd> {
    // Not all of a frame's fields can be set from outside of its module, but all can be read.
    let backtrace = || -> Vec<Frame> {
        let frame = (Some("fib"), 7u32, Some(0x1234u64));
        let bytes = postcard::to_stdvec(&vec![frame, (None, 8, None)]).expect("encodes");
        postcard::from_bytes(&bytes).expect("decodes")
    };
    let message = || "it says \u{202e}so".to_string();
    vec![
        RunEnd::Ok,
        RunEnd::Exited { code: 3 },
        RunEnd::Guest,
        RunEnd::InputDecode,
        RunEnd::Trap { code: TrapCode::Other, message: message(), backtrace: backtrace() },
        RunEnd::Trap { code: TrapCode::Unreachable, message: message(), backtrace: Vec::new() },
        RunEnd::Panic { message: message(), location: "src/lib.rs:1:1".into(), backtrace: backtrace() },
        RunEnd::Interrupted,
        RunEnd::Memory { requested: 1 << 40, backtrace: backtrace() },
        RunEnd::Table { requested: 1 << 40, backtrace: backtrace() },
        RunEnd::InputTooLarge { bytes: 1 << 40 },
        RunEnd::Fuel { backtrace: backtrace() },
        RunEnd::OutputTooLarge { bytes: 1 << 40 },
        RunEnd::LogsTooLarge { bytes: 1 << 40 },
        RunEnd::BadPointer { pointer: 1, len: 2, memory_bytes: 3 },
        RunEnd::Abi { message: message() },
        RunEnd::Instantiate { message: message() },
    ]
}
