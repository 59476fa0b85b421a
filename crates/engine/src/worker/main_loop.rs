//! The main thread: one frame in, one task run (or a batch of them), one frame out for each. Over any
//! streams, so that it can be tested without a process.

use std::io;
use std::sync::{Arc, Mutex};

use super::events::{Reporter, ToHost};
use super::instance::Runner;
use proto::frame::write_frame;
use proto::inbox::{Inbound, Inbox, Input, Item};
use proto::limits::BATCH_WORK_MAX;
use proto::limits::task::TaskLimits;
use proto::message::{BatchSlice, Completion, Cost, FromWorker, RunEnd, RunMessage, ToWorker};
use proto::ring::End;
use proto::sync::Lock;
use proto::task::TaskId;
use sandbox::LockedDown;

/// The host's first run says nothing of limits, and there is none before it.
const NO_LIMITS: &str = "the first run came without limits";

/// Runs until the stream ends (which a ring never does: the watcher ends the process).
///
/// # Errors
/// A stream that breaks, or a host that does not speak the protocol.
pub(super) fn run<W: ToHost>(
    _: &LockedDown,
    from_host: impl Inbound,
    to_host: &Arc<Mutex<W>>,
    reporter: &Reporter,
    mut runner: Runner,
    claims: &End,
) -> io::Result<()> {
    let mut inbox = Inbox::new(from_host);
    let mut scratch = Vec::new();
    let mut limits = None;
    let mut say = |message: FromWorker, payload: &[u8]| {
        let mut to_host = to_host.hold();
        let frame_bytes = write_frame(&mut *to_host, &mut scratch, &message, payload)?;
        reporter.answered(&mut *to_host);
        Ok(frame_bytes)
    };
    loop {
        // Modules may end while no task runs.
        runner.let_go();
        while !inbox.has_more() {
            inbox.wait()?;
            runner.let_go();
        }
        let ToWorker::Run(mut message) = inbox.next_message()?;
        let RunMessage { task, run, claim, .. } = message;
        // They count for the next run, too, if this one is skipped.
        limits = message.limits.or(limits);
        let limits = limits.as_ref().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, NO_LIMITS))?;
        // The host may have taken it back while others ran.
        if !claims.claim(claim, run) {
            inbox.skip()?;
            continue;
        }
        reporter.begin(TaskId(task.0 + message.slice.map_or(0, |slice| u64::from(slice.first))));
        // The CPU time that is used after this point counts as the task's.
        runner.bring(message.module);
        claims.begin(claim, run);
        match message.slice {
            None => {
                runner.run(&message, limits, &mut inbox, &mut |input, completion, payload| {
                    // The host takes no answer before it has sent the whole input.
                    input.skip()?;
                    say(FromWorker::Done { task, completion }, payload).map(drop)
                })?
            }
            Some(slice) => {
                let mut so_far = SoFar { end: RunEnd::Ok, run_ns: 0, answer_bytes: 0 };
                for item in (u64::from(slice.first)..).take(slice.count as usize) {
                    // The rest of the batch goes back, so that no task behind it waits longer than this.
                    if so_far.is_over(&slice) {
                        break;
                    }
                    message.task = TaskId(task.0 + item);
                    reporter.begin(message.task);
                    run_item(&mut runner, &message, limits, &mut inbox, &mut say, &mut so_far)?;
                }
                inbox.skip()?;
                let SoFar { end, run_ns, .. } = so_far;
                let cost = Cost { run_ns, ..Cost::default() };
                say(FromWorker::Done { task, completion: Completion { end, cost, stdout_bytes: 0 } }, &[])?;
            }
        }
        if !inbox.has_more() {
            runner.prepare();
        }
    }
}

/// The state of a batch.
struct SoFar {
    /// The end of the batch's run: `Interrupted` if its last task was interrupted.
    end: RunEnd,
    run_ns: u64,
    answer_bytes: u64,
}

impl SoFar {
    /// Returns whether the batch must not begin another task.
    fn is_over(&self, slice: &BatchSlice) -> bool {
        matches!(self.end, RunEnd::Interrupted)
            || self.run_ns > BATCH_WORK_MAX.as_nanos() as u64
            || self.answer_bytes > slice.answer_bytes_max
    }
}

/// Runs the next task of a batch and answers it. An interrupted task gets no answer of its own: its end becomes
/// the batch's.
fn run_item(
    runner: &mut Runner,
    message: &RunMessage,
    limits: &TaskLimits,
    inbox: &mut Inbox<impl Inbound>,
    say: &mut impl FnMut(FromWorker, &[u8]) -> io::Result<u64>,
    so_far: &mut SoFar,
) -> io::Result<()> {
    let mut input = Item::next(inbox)?;
    runner.run(message, limits, &mut input, &mut |_, completion, payload| {
        so_far.run_ns += completion.cost.run_ns;
        if matches!(completion.end, RunEnd::Interrupted) {
            so_far.end = completion.end;
            return Ok(());
        }
        let task = message.task;
        let ended = match completion.end {
            RunEnd::Ok => FromWorker::Returned { task, run_ns: completion.cost.run_ns },
            _ => FromWorker::Item { task, completion },
        };
        so_far.answer_bytes += say(ended, payload)?;
        Ok(())
    })?;
    input.skip()
}
