//! The main thread: one frame in, one task run (or a batch of them), one frame out for each. Over any
//! streams, so that it can be tested without a process.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::events::{Reporter, ToHost};
use super::instance::{Order, Outcome, Runner};
use proto::frame::write_frame;
use proto::inbox::{Inbound, Inbox, Input, Item};
use proto::limits::BATCH_WORK_MAX;
use proto::message::{Cost, FromWorker, Items, ToWorker, Verdict};
use proto::ring::End;
use proto::task::TaskId;
use sandbox::LockedDown;

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
    let mut say = |message: FromWorker, payload: &[u8]| {
        let mut to_host = to_host.lock().unwrap_or_else(PoisonError::into_inner);
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
        let ToWorker::Run { task, run, claim: index, module, entry, limits, items, shares } =
            inbox.next_message()?;
        // The host may have taken it back while others ran.
        if !claims.claim(index, run) {
            inbox.skip()?;
            continue;
        }
        reporter.begin(TaskId(task.0 + items.map_or(0, |items| u64::from(items.first))));
        // From here on the CPU time counts as the task's.
        runner.bring(module);
        claims.begin(index, run);
        let mut order = Order { task, run, module, entry, limits, shares };
        match items {
            None => {
                runner.run(&order, &mut inbox, &mut |input, outcome| {
                    // The host takes no answer before it has sent the whole input.
                    input.skip()?;
                    let Outcome { verdict, cost, stdout_bytes, payload } = outcome;
                    say(FromWorker::Done { task, verdict, cost, stdout_bytes }, payload).map(drop)
                })?
            }
            Some(items) => {
                let mut so_far = SoFar { verdict: Verdict::Ok, run_ns: 0, answer_bytes: 0 };
                for item in (u64::from(items.first)..).take(items.count as usize) {
                    // The rest goes back: whoever waits behind it, waits no longer than this.
                    if so_far.is_over(&items) {
                        break;
                    }
                    order.task = TaskId(task.0 + item);
                    reporter.begin(order.task);
                    run_item(&mut runner, &order, &mut inbox, &mut say, &mut so_far)?;
                }
                inbox.skip()?;
                let SoFar { verdict, run_ns, .. } = so_far;
                let cost = Cost { run_ns, ..Cost::default() };
                say(FromWorker::Done { task, verdict, cost, stdout_bytes: 0 }, &[])?;
            }
        }
        if !inbox.has_more() {
            runner.prepare();
        }
    }
}

/// The state of a batch.
struct SoFar {
    /// The batch's own verdict: `Interrupted` if its last task was interrupted.
    verdict: Verdict,
    run_ns: u64,
    answer_bytes: u64,
}

impl SoFar {
    /// Whether the batch must not begin another task.
    fn is_over(&self, items: &Items) -> bool {
        matches!(self.verdict, Verdict::Interrupted)
            || self.run_ns > BATCH_WORK_MAX.as_nanos() as u64
            || self.answer_bytes > items.answer_bytes_max
    }
}

/// Runs the next task of a batch and answers it. An interrupted task gets no answer of its own: it becomes
/// the batch's verdict.
fn run_item(
    runner: &mut Runner,
    order: &Order,
    inbox: &mut Inbox<impl Inbound>,
    say: &mut impl FnMut(FromWorker, &[u8]) -> io::Result<u64>,
    so_far: &mut SoFar,
) -> io::Result<()> {
    let mut input = Item::next(inbox)?;
    runner.run(order, &mut input, &mut |_, outcome| {
        let Outcome { verdict, cost, payload, .. } = outcome;
        so_far.run_ns += cost.run_ns;
        if matches!(verdict, Verdict::Interrupted) {
            so_far.verdict = verdict;
            return Ok(());
        }
        so_far.answer_bytes += say(FromWorker::Item { task: order.task, verdict, cost }, payload)?;
        Ok(())
    })?;
    input.skip()
}
