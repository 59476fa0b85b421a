//! Fuzzes what a worker reads from its ring.

use proto::limits::FRAME_META_BYTES_MAX;
use proto::limits::task::TaskLimits;
use proto::message::{BatchSlice, Callee, CommandStdin, ModuleId, RunMessage, ShareId, TaskIndex, ToWorker};
use proto::task::{LogOverflow, TaskId};
use wasmpool::fuzzing::Input;

use super::frames;
use crate::bounded::within;
use crate::inboxes;

/// See `frames`; then as the worker itself reads it, with payloads of any length announced.
pub fn run(data: &[u8]) {
    frames::run::<ToWorker>(data);
    let mut input = Input(data);
    let (most, choices) = (frames::most(input.byte()), input.byte());
    let [_, _, _] = [(); 3].map(|()| input.byte());
    // The same, whatever is announced: a payload goes to where it is wanted.
    within(6 * FRAME_META_BYTES_MAX + 64 * data.len(), || inboxes::run(input.0, most, choices));
}

/// A task, a command, a batch, and all in one stream.
pub fn seeds() -> Vec<Vec<u8>> {
    let order = |callee, slice| {
        ToWorker::Run(RunMessage {
            task: TaskId(7),
            run: 1,
            claim: 3,
            module: ModuleId(2),
            callee,
            limits: Some(TaskLimits {
                fuel: Some(1000),
                seed: Some(42),
                log_overflow: LogOverflow::Fail,
                ..TaskLimits::default()
            }),
            slice,
            shares: vec![ShareId(7), ShareId(u64::MAX)],
        })
    };
    let command = || Callee::Command {
        args: vec!["python".into(), "-c".into(), "print(6*7)".into()],
        env: vec![("LANG".into(), "C".into())],
        stdin: CommandStdin::Asked,
    };
    let batch = || {
        (
            order(
                Callee::Task(TaskIndex(0)),
                Some(BatchSlice { first: 2, count: 3, answer_bytes_max: 1 << 20 }),
            ),
            &b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c"[..],
        )
    };
    let task = |payload: &'static [u8]| (order(Callee::Task(TaskIndex(0)), None), payload);
    let mut seeds = vec![
        frames::seed(255, 1 << 16, &[task(b"input")]),
        frames::seed(1, 64, &[(order(command(), None), b"")]),
        frames::seed(5, 64, &[task(b""), (order(command(), None), b"stdin")]),
        frames::seed(200, 1 << 16, &[task(&[7; 20_000]), batch(), task(b"more")]),
    ];
    // Each payload is read in another way.
    for choices in [0u8, 0x55, 0xaa, 0xff, 0xe4, 0x1b] {
        let limit = 0xff00 | u32::from(choices);
        seeds.push(frames::seed(choices, limit, &[task(b"input"), batch(), batch(), task(b"0123456789")]));
    }
    seeds
}
