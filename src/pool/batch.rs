//! Short tasks of a map travel together: this decides how many, and takes their results apart.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::account::Charge;
use crate::error::{MapError, SubmitError, TaskFailure};
use crate::ewma::Ewma;
use crate::fork::OfProcess;
use crate::future::{Item, TaskFuture};
use crate::host::batch::Inputs;
use crate::module::TaskOutput;
use crate::report::TaskReport;
use crate::sync::Sender;
use proto::limits::{BATCH_ANSWERS_BYTES_MAX, BATCH_ITEMS_MAX};
use proto::task::TaskId;

/// Tasks that take longer travel alone: what they cost on the way is little beside that. In nanoseconds.
const SHORT_NS: u64 = 100_000;

/// The work of one batch: large beside what it costs on the way, small beside what anyone notices.
const WORK_NS: u64 = 500_000;

/// Results that are looked at before the first batch.
const SEEN_MIN: u64 = 4;

/// One result, as a map sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    run: Duration,
    /// `None` if nothing came back.
    bytes: Option<u64>,
}

/// After the first ones, the size is decided anew after this many results: to divide for each would cost a map of tiny
/// tasks a twelfth of its time.
const DECIDED_EVERY: u64 = 16;

/// The facts that a map learns of its tasks: how long they take, and how long their answers are.
#[derive(Debug, Default)]
pub(super) struct Batching {
    run: Ewma,
    /// The length of an answer, as a moving average.
    bytes: u64,
    seen: u64,
}

impl Batching {
    pub(super) fn learn(&mut self, seen: Option<Seen>) {
        let Some(Seen { run, bytes }) = seen else { return };
        self.run.learn(run);
        self.bytes = bytes.map_or(self.bytes, |bytes| (self.bytes * 7 + bytes) / 8);
        self.seen = self.seen.saturating_add(1);
    }

    /// Returns whether to ask for the size of a batch after this result.
    pub(super) fn is_due(&self) -> bool {
        self.seen <= DECIDED_EVERY || self.seen.is_multiple_of(DECIDED_EVERY)
    }

    /// Returns how many tasks make a batch; 1 means none. Their answers mostly fit into what a batch is
    /// charged for.
    pub(super) fn size(&self) -> usize {
        if self.seen < SEEN_MIN || self.run.nanos() > SHORT_NS {
            return 1;
        }
        let by_work = WORK_NS / self.run.nanos().max(1);
        let by_answers = BATCH_ANSWERS_BYTES_MAX / 2 / self.bytes.max(1);
        usize::try_from(by_work.min(by_answers)).unwrap_or(usize::MAX).clamp(1, BATCH_ITEMS_MAX)
    }
}

/// Something that a map has submitted and not fully yielded.
pub(super) struct Submitted<O> {
    what: What<O>,
    /// The charge is given back when all of it was yielded.
    charge: OfProcess<Arc<Charge>>,
}

enum What<O> {
    /// The future of a task, until its result is taken.
    One(Option<TaskFuture<O>>),
    Many(Many<O>),
    /// This many inputs were rejected.
    Rejected(SubmitError, usize),
}

/// The next result of something that was submitted.
pub(super) enum Next<O> {
    Result(Result<O, MapError>, Option<Seen>),
    /// The deadline came first.
    Late,
    /// These tasks of a batch were not begun and are handed back.
    HandedBack(Inputs),
}

impl<O> Submitted<O> {
    pub(super) fn one(future: TaskFuture<O>, charge: Arc<Charge>) -> Self {
        Submitted { what: What::One(Some(future)), charge: OfProcess::new(charge) }
    }

    /// Makes a batch of these inputs.
    pub(super) fn many(
        future: TaskFuture<O>,
        (inputs, count): (Bytes, usize),
        submitted: Instant,
        charge: Arc<Charge>,
    ) -> Self {
        let many = Many { future, inputs, count, left: count, ready: VecDeque::new(), submitted };
        Submitted { what: What::Many(many), charge: OfProcess::new(charge) }
    }

    pub(super) fn rejected(error: SubmitError, count: usize, charge: Arc<Charge>) -> Self {
        Submitted { what: What::Rejected(error, count), charge: OfProcess::new(charge) }
    }

    /// Returns `None` in a process that was forked from the map's.
    pub(super) fn charge(&self) -> Option<Arc<Charge>> {
        self.charge.here().cloned()
    }

    /// Inputs whose results have not been taken.
    pub(super) fn left(&self) -> usize {
        match &self.what {
            What::One(future) => usize::from(future.is_some()),
            What::Many(many) => many.left,
            What::Rejected(_, left) => *left,
        }
    }

    /// Returns whether `next` would not wait.
    pub(super) fn is_ready(&self) -> bool {
        match &self.what {
            What::One(future) => future.as_ref().is_none_or(TaskFuture::is_done),
            What::Many(many) => {
                !many.ready.is_empty() || many.future.cell().is_none_or(|cell| cell.has_news())
            }
            What::Rejected(..) => true,
        }
    }

    /// Sends `number` whenever it has become ready.
    pub(super) fn announce(&self, to: &Sender<usize>, number: usize) {
        match &self.what {
            What::One(Some(future)) => drop(future.cell().map(|cell| cell.watch(to, number))),
            What::One(None) => {}
            What::Many(many) => {
                many.future.cell().into_iter().for_each(|cell| cell.watch_items(to, number));
                if !many.ready.is_empty() {
                    let _ = to.send(number);
                }
            }
            What::Rejected(..) => drop(to.send(number)),
        }
    }

    /// Waits for the next result, until the deadline.
    pub(super) fn next(&mut self, deadline: Option<Instant>) -> Next<O> {
        match &mut self.what {
            What::One(future) => {
                let result = future.as_ref().and_then(|future| future.result_until(deadline));
                let Some(result) = result else { return Next::Late };
                let report = future.take().and_then(|future| future.report());
                let seen = report.map(|report| Seen { run: report.run, bytes: report.output_bytes });
                Next::Result(result.map_err(MapError::Task), seen)
            }
            What::Many(many) => many.next(deadline),
            What::Rejected(error, left) => {
                *left = left.saturating_sub(1);
                Next::Result(Err(MapError::Submit(error.clone())), None)
            }
        }
    }

    pub(super) fn cancel(self) {
        match self.what {
            What::One(future) => drop(future.map(|future| future.cancel())),
            What::Many(many) => drop(many.future.cancel()),
            What::Rejected(..) => {}
        }
    }
}

/// A batch under way.
struct Many<O> {
    /// The future of the batch; its tasks' results come before it is done.
    future: TaskFuture<O>,
    inputs: Bytes,
    count: usize,
    left: usize,
    ready: VecDeque<Item>,
    submitted: Instant,
}

impl<O> Many<O> {
    fn next(&mut self, deadline: Option<Instant>) -> Next<O> {
        loop {
            if let Some(Item { result, run, queued, worker_pid }) = self.ready.pop_front() {
                let task = self.next_task();
                self.left -= 1;
                let output_bytes = match &result {
                    Ok(TaskOutput::Output(output)) => Some(output.len() as u64),
                    Ok(TaskOutput::Command(_)) => None,
                    Err(failure) => failure.report().output_bytes,
                };
                let report = || {
                    let total = self.submitted.elapsed();
                    let report = TaskReport {
                        queued,
                        run,
                        total,
                        attempts: 1,
                        worker_pid,
                        output_bytes,
                        ..TaskReport::default()
                    };
                    report.with_bounded_wait()
                };
                let result = self.future.read_item(task, result, report).map_err(MapError::Task);
                return Next::Result(result, Some(Seen { run, bytes: output_bytes }));
            }
            let is_over = self.future.cell().is_none_or(|cell| cell.take_items(&mut self.ready));
            if !self.ready.is_empty() {
                continue;
            }
            if is_over {
                return match self.failure() {
                    Some(failure) => {
                        self.left -= 1;
                        Next::Result(Err(MapError::Task(failure)), None)
                    }
                    None => Next::HandedBack(Inputs::rest(&self.inputs, self.count, self.count - self.left)),
                };
            }
            self.future.drive_inline(deadline);
            if self.future.cell().is_some_and(|cell| !cell.wait_items(deadline)) {
                return Next::Late;
            }
        }
    }

    /// Returns the task whose result is next.
    fn next_task(&self) -> TaskId {
        TaskId(self.future.task_id().0 + (self.count - self.left) as u64)
    }

    /// Returns how the next task failed with the batch, if that failed. Only the one that was at hand may have begun.
    fn failure(&self) -> Option<TaskFailure> {
        let labels = self.future.labels();
        let Some(cell) = self.future.cell() else { return Some(self.future.elsewhere()) };
        let failure = cell.outcome().and_then(|outcome| outcome.failure(labels))?;
        let task = self.next_task();
        if task == failure.task_id() {
            return Some(failure);
        }
        let report = TaskReport::never_begun(failure.report().total);
        Some(labels.failure_of(task, failure.error().clone(), report))
    }
}
