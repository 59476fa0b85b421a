//! A batch: tasks of a map that travel, run and are answered together, and are one task to the
//! dispatcher. Each still has its own number, instance, limits and error.
//!
//! A worker runs some of them and gives the rest back, so that nobody waits for long behind a batch.
//! Where one fails with its worker, or at its deadline, the others go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::core::Answered;
use super::resolve;
use crate::error::TaskFailure;
use crate::future::{Cell, Item};
use crate::module::Answer;
use crate::observe::{Ended, TaskOutcome};
use crate::task::{TaskId, TaskLimits, TaskReport};
use crate::wire::message::{Entry, Items};

/// What the host knows of a batch under way. Its cell is filled when the batch is over, and takes the
/// items' results before.
#[derive(Debug)]
pub(crate) struct Batch {
    cell: Arc<Cell>,
    entry: Entry,
    limits: TaskLimits,
    count: u64,
    /// Tasks that have ended, and those among them that have answered, by what; in one word, so that whoever
    /// counts them while the worker still speaks counts each once. Written by whoever reads the worker's
    /// ring, or reports its end.
    ended: AtomicU64,
}

/// One task in [`Batch::ended`]. There are at most `BATCH_ITEMS_MAX`.
const ENDED: u64 = 1;
const SUCCEEDED: u64 = 1 << 16;
const FAILED: u64 = 1 << 32;

fn count_of(ended: u64, what: u64) -> u64 {
    ended / what % SUCCEEDED
}

impl Batch {
    pub(super) fn new(cell: Arc<Cell>, entry: Entry, limits: TaskLimits, count: u64) -> Arc<Batch> {
        Arc::new(Batch { cell, entry, limits, count, ended: AtomicU64::new(0) })
    }

    /// Those without an answer.
    pub(super) fn items(&self) -> Items {
        // There are at most `BATCH_ITEMS_MAX`.
        Items { first: self.answered() as u32, count: self.left() as u32 }
    }

    /// Where the inputs of those without an answer begin, in the inputs of all.
    pub(super) fn offset(&self, inputs: &[u8]) -> usize {
        (0..self.answered()).fold(0, |at, _| {
            let len = inputs.get(at..).and_then(|rest| rest.first_chunk::<4>());
            at + 4 + len.map_or(0, |len| u32::from_le_bytes(*len) as usize)
        })
    }

    pub(super) fn cell(&self) -> &Arc<Cell> {
        &self.cell
    }

    /// Its tasks that have no answer.
    pub(super) fn left(&self) -> u64 {
        self.count - self.answered()
    }

    pub(super) fn answered(&self) -> u64 {
        count_of(self.ended.load(Ordering::SeqCst), ENDED)
    }

    /// Whether this task is the next to be answered.
    pub(super) fn is_at(&self, task: TaskId) -> bool {
        self.left() > 0 && task.0 == self.cell.task().0 + self.answered()
    }

    /// The next task has been answered.
    pub(super) fn answer(&self, worker_pid: u32, answered: Answered) {
        let task = TaskId(self.cell.task().0 + self.answered());
        let cost = answered.cost.clone();
        let output_bytes = answered.payload.len() as u64;
        let run = Duration::from_nanos(cost.run_ns);
        let result = resolve::read_verdict(answered, &self.entry, &self.limits).map_err(|error| {
            let mut report = TaskReport {
                attempts: 1,
                worker_pid: Some(worker_pid),
                output_bytes,
                ..TaskReport::default()
            };
            resolve::add_cost(&mut report, &cost);
            self.cell.labels().failure_of(task, error, report)
        });
        let how = if result.is_ok() { SUCCEEDED } else { FAILED };
        self.push(how, result, run);
    }

    /// The task at hand has ended without an answer; `false` if all had one already.
    pub(super) fn fail(&self, failure: TaskFailure) -> bool {
        let is_at_hand = self.left() > 0;
        if is_at_hand {
            self.push(0, Err(failure), Duration::ZERO);
        }
        is_at_hand
    }

    /// All of it has ended, those without an answer so. Those that `fail` was told of are counted.
    pub(super) fn count_ends(&self, ended: &mut Ended, how: TaskOutcome) {
        let so_far = self.count_answers(ended);
        resolve::count(ended, how, self.count - count_of(so_far, ENDED));
    }

    /// Those of its tasks that have answered. What it counted.
    pub(super) fn count_answers(&self, ended: &mut Ended) -> u64 {
        let so_far = self.ended.load(Ordering::SeqCst);
        ended.succeeded += count_of(so_far, SUCCEEDED);
        ended.failed += count_of(so_far, FAILED);
        so_far
    }

    fn push(&self, how: u64, result: Result<Answer, TaskFailure>, run: Duration) {
        self.ended.fetch_add(ENDED + how, Ordering::SeqCst);
        self.cell.push(Item { result, run });
    }
}
