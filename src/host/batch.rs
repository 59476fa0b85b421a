//! A batch: tasks of a map that travel, run and are answered together, and are one task to the
//! scheduler. Each still has its own number, instance, limits and error.
//!
//! A worker runs some of them and gives the rest back, so that nobody waits for long behind a batch.
//! Where one fails with its worker, or at its deadline, the others go on.
//!
//! A batch is charged for its answers as short tasks have them, not for the largest answer of each task. Once
//! its answers have come to more, none of its remaining tasks is begun. They are handed back to the map,
//! which submits them again when the earlier answers have been taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::completion::{self, Received};
use super::invocation::Invocation;
use crate::error::TaskFailure;
use crate::future::{Cell, Item};
use crate::module::TaskOutput;
use crate::observe::{TaskCounts, TaskOutcome};
use crate::report::TaskReport;
use crate::scheduler::Now;
use proto::limits::task::TaskLimits;
use proto::limits::{BATCH_ANSWERS_BYTES_MAX, BATCH_BYTES_MAX};
use proto::message::{BatchSlice, Callee};
use proto::payload::Payload;
use proto::schema::TypeSchema;
use proto::task::TaskId;

/// Each input is preceded by its length in this many bytes.
const LENGTH_BYTES: usize = 4;

/// The inputs of a batch, as they travel: each preceded by its length.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    bytes: Vec<u8>,
    count: usize,
}

impl Inputs {
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Adds an input, unless there is no room for it.
    pub(crate) fn push(&mut self, input: &[u8]) -> bool {
        let has_room = self.bytes.len() + LENGTH_BYTES + input.len() <= BATCH_BYTES_MAX;
        if has_room {
            // The length fits, since it is at most `BATCH_BYTES_MAX`.
            self.bytes.extend_from_slice(&(input.len() as u32).to_le_bytes());
            self.bytes.extend_from_slice(input);
            self.count += 1;
        }
        has_room
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        self.bytes.into()
    }

    /// Returns these inputs without the first ones.
    pub(crate) fn rest(of: &Bytes, count: usize, skipped: usize) -> Inputs {
        let bytes = of.get(start_of(of, skipped)..).unwrap_or_default().to_vec();
        Inputs { bytes, count: count - skipped }
    }
}

/// Returns the length of the longest input.
pub(super) fn longest_input(inputs: &[u8]) -> usize {
    let mut at = 0;
    let mut longest = 0;
    while let Some(len) = length_at(inputs, at) {
        at += LENGTH_BYTES + len;
        longest = longest.max(len);
    }
    longest
}

fn length_at(inputs: &[u8], at: usize) -> Option<usize> {
    let len = inputs.get(at..).and_then(|rest| rest.first_chunk::<LENGTH_BYTES>());
    len.map(|len| u32::from_le_bytes(*len) as usize)
}

/// Finds where an input begins.
fn start_of(inputs: &[u8], number: usize) -> usize {
    (0..number).fold(0, |at, _| at + LENGTH_BYTES + length_at(inputs, at).unwrap_or_default())
}

/// Holds what the host knows of a batch under way. Its cell is filled when the batch is over, and takes the items'
/// results before.
#[derive(Debug)]
pub(crate) struct Batch {
    cell: Arc<Cell>,
    callee: Callee,
    /// The type of its tasks' own errors, where these are data.
    error: Option<Arc<TypeSchema>>,
    limits: TaskLimits,
    count: u64,
    /// Tasks that have ended, and those among them that have answered, by what; in one word, so that whoever
    /// counts them while the worker still speaks counts each once. Written by whoever reads the worker's
    /// ring, or reports its end.
    ended: AtomicU64,
    /// The size of the frames of all answers so far; it is written by the same threads as `ended`.
    answer_bytes: AtomicU64,
    submitted: Now,
    /// Says when its last attempt began, in nanoseconds, or [`NOT_BEGUN`].
    began_ns: AtomicU64,
    /// Says how long the tasks that were answered in this attempt ran.
    ran_ns: AtomicU64,
}

const NOT_BEGUN: u64 = u64::MAX;

/// One task in [`Batch::ended`]. There are at most `BATCH_ITEMS_MAX`.
const ENDED: u64 = 1;
const SUCCEEDED: u64 = 1 << 16;
const FAILED: u64 = 1 << 32;

fn count_of(ended: u64, what: u64) -> u64 {
    ended / what % SUCCEEDED
}

impl Batch {
    pub(super) fn new(cell: Arc<Cell>, call: &Invocation, count: u64, submitted: Now) -> Arc<Batch> {
        Arc::new(Batch {
            cell,
            callee: call.callee.clone(),
            error: call.error_schema(),
            limits: call.limits,
            count,
            ended: AtomicU64::new(0),
            answer_bytes: AtomicU64::new(0),
            submitted,
            began_ns: AtomicU64::new(NOT_BEGUN),
            ran_ns: AtomicU64::new(0),
        })
    }

    /// A worker begins it, or what is left of it.
    pub(super) fn begin(&self, now: Now) {
        self.began_ns.store(u64::try_from(now.as_nanos()).unwrap_or(NOT_BEGUN - 1), Ordering::SeqCst);
        self.ran_ns.store(0, Ordering::SeqCst);
    }

    /// Notes that what is left of it has not begun.
    pub(super) fn give_back(&self) {
        self.began_ns.store(NOT_BEGUN, Ordering::SeqCst);
    }

    /// Returns how long its tasks waited that were answered in this attempt. A worker may have answered before the
    /// host has learnt that it has begun.
    fn queued(&self) -> Duration {
        match self.began_ns.load(Ordering::SeqCst) {
            NOT_BEGUN => Duration::ZERO,
            began => Duration::from_nanos(began).saturating_sub(self.submitted),
        }
    }

    /// Returns how long the tasks ran that were answered in this attempt, by the worker's word.
    pub(super) fn ran(&self) -> Duration {
        Duration::from_nanos(self.ran_ns.load(Ordering::SeqCst))
    }

    /// Returns the tasks without an answer, or none if there is no room for another answer.
    pub(super) fn slice(&self) -> BatchSlice {
        let answer_bytes_max = BATCH_ANSWERS_BYTES_MAX.saturating_sub(self.answer_bytes());
        let count = if self.has_room() { self.left() } else { 0 };
        // The numbers fit, since a batch has at most `BATCH_ITEMS_MAX` tasks.
        BatchSlice { first: self.answered() as u32, count: count as u32, answer_bytes_max }
    }

    /// Finds where the inputs without an answer begin.
    pub(super) fn offset(&self, inputs: &[u8]) -> usize {
        start_of(inputs, self.answered() as usize)
    }

    /// Returns the size of the frames of all answers so far.
    pub(super) fn answer_bytes(&self) -> u64 {
        self.answer_bytes.load(Ordering::SeqCst)
    }

    /// Returns whether another task may begin: the charge covers one answer of any size beyond the bound.
    pub(super) fn has_room(&self) -> bool {
        self.answer_bytes() <= BATCH_ANSWERS_BYTES_MAX
    }

    pub(super) fn cell(&self) -> &Arc<Cell> {
        &self.cell
    }

    /// Returns how many tasks it has.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Returns how many of its tasks have no answer.
    pub(super) fn left(&self) -> u64 {
        self.count - self.answered()
    }

    pub(super) fn answered(&self) -> u64 {
        count_of(self.ended.load(Ordering::SeqCst), ENDED)
    }

    /// Returns whether this task is the next to be answered.
    pub(super) fn is_at(&self, task: TaskId) -> bool {
        self.left() > 0 && task.0 == self.cell.task().0 + self.answered()
    }

    /// The next task has returned.
    pub(super) fn returned(&self, worker_pid: u32, run_ns: u64, output: Payload, frame_bytes: u64) {
        self.add_answer_bytes(frame_bytes);
        let queued = self.queued();
        self.ran_ns.fetch_add(run_ns, Ordering::SeqCst);
        let result = Ok(TaskOutput::Output(output));
        let run = Duration::from_nanos(run_ns);
        self.push(SUCCEEDED, Item { result, run, queued, worker_pid: Some(worker_pid) });
    }

    /// Only the thread that reads the ring answers, so this need not be one step.
    fn add_answer_bytes(&self, bytes: u64) {
        self.answer_bytes.store(self.answer_bytes().saturating_add(bytes), Ordering::Release);
    }

    /// The next task has been answered.
    pub(super) fn answer(&self, worker_pid: u32, now: impl FnOnce() -> Now, received: Received) {
        self.add_answer_bytes(received.frame_bytes);
        let task = TaskId(self.cell.task().0 + self.answered());
        let cost = received.completion.cost.clone();
        let output_bytes = Some(received.payload.len() as u64);
        let run = Duration::from_nanos(cost.run_ns);
        let queued = self.queued();
        let result =
            completion::read(received, &self.callee, &self.limits, || self.error.clone()).map_err(|error| {
                let mut report = TaskReport {
                    queued,
                    total: now().saturating_sub(self.submitted),
                    attempts: 1,
                    worker_pid: Some(worker_pid),
                    output_bytes,
                    ..TaskReport::default()
                };
                completion::add_cost(&mut report, &cost);
                self.cell.labels().failure_of(task, error, report.with_bounded_wait())
            });
        let how = if result.is_ok() { SUCCEEDED } else { FAILED };
        self.ran_ns.fetch_add(cost.run_ns, Ordering::SeqCst);
        self.push(how, Item { result, run, queued, worker_pid: Some(worker_pid) });
    }

    /// The task at hand has ended without an answer; `false` if all had one already.
    pub(super) fn fail(&self, failure: TaskFailure) -> bool {
        let is_at_hand = self.left() > 0;
        if is_at_hand {
            let TaskReport { run, queued, worker_pid, .. } = *failure.report();
            self.push(0, Item { result: Err(failure), run, queued, worker_pid });
        }
        is_at_hand
    }

    /// Counts the end of the whole batch: tasks without an answer ended in this way. Those that `fail` was
    /// told of are counted already.
    pub(super) fn count_ends(&self, ended: &mut TaskCounts, how: TaskOutcome) {
        let so_far = self.count_answers(ended);
        ended.add(how, self.count - count_of(so_far, ENDED));
    }

    /// Counts the tasks that have answered, and returns the counters.
    pub(super) fn count_answers(&self, ended: &mut TaskCounts) -> u64 {
        let so_far = self.ended.load(Ordering::SeqCst);
        ended.succeeded += count_of(so_far, SUCCEEDED);
        ended.failed += count_of(so_far, FAILED);
        so_far
    }

    fn push(&self, how: u64, item: Item) {
        self.ended.fetch_add(ENDED + how, Ordering::SeqCst);
        self.cell.push(item);
    }
}
