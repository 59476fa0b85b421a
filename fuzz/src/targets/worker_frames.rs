//! What a worker reads from its ring.

use super::frames;
use crate::task::{LogOverflow, TaskId, TaskLimits};
use crate::wire::message::{Entry, ModuleId, ToWorker};

/// See `frames`.
pub fn run(data: &[u8]) {
    frames::run::<ToWorker>(data, |_, _| {});
}

/// A task, a command, and both in one stream.
pub fn seeds() -> Vec<Vec<u8>> {
    let order = |entry| ToWorker::Run {
        task: TaskId(7),
        run: 1,
        claim: 3,
        module: ModuleId(2),
        entry,
        limits: TaskLimits {
            memory_bytes_max: 1 << 29,
            output_bytes_max: 1 << 26,
            fuel: Some(1000),
            log_bytes_max: 1 << 18,
            log_overflow: LogOverflow::Fail,
        },
    };
    let command = || Entry::Command {
        args: vec!["python".into(), "-c".into(), "print(6*7)".into()],
        env: vec![("LANG".into(), "C".into())],
    };
    vec![
        frames::seed(255, 1 << 16, &[(order(Entry::Task(0)), b"input")]),
        frames::seed(1, 64, &[(order(command()), b"")]),
        frames::seed(5, 64, &[(order(Entry::Task(1)), b""), (order(command()), b"stdin")]),
    ]
}
