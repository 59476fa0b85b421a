//! Short tasks of a map, together: how many, their inputs, their results.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::MapError;
use crate::error::{SubmitError, TaskError, TaskFailure};
use crate::future::{Item, TaskFuture};
use crate::limits::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX};
use crate::task::Typical;

/// Tasks that take longer travel alone: what they cost on the way is little beside that. In nanoseconds.
const SHORT_NS: u64 = 100_000;

/// The work of one batch: large beside what it costs on the way, small beside what anyone notices.
const WORK_NS: u64 = 500_000;

/// An iterator that takes longer for an input is not waited for: a batch would be long in coming.
const PACE_NS: u64 = 20_000;

/// Results that are looked at before the first batch.
const SEEN_MIN: u32 = 4;

/// What is known of how long a map's tasks take. Asked for each result.
#[derive(Debug, Default)]
pub(super) struct Batching {
    typical: Typical,
    seen: u32,
    /// How long the iterator takes for an input.
    pace: Typical,
}

impl Batching {
    pub(super) fn learn(&mut self, run: Option<Duration>) {
        let Some(run) = run else { return };
        self.typical.learn(run);
        self.seen = self.seen.saturating_add(1);
    }

    /// The iterator took so long for so many inputs.
    pub(super) fn pulled(&mut self, inputs: usize, took: Duration) {
        self.pace.learn(took / inputs.clamp(1, u32::MAX as usize) as u32);
    }

    /// How many make a batch; 1 is none.
    pub(super) fn size(&self) -> usize {
        if self.seen < SEEN_MIN || self.typical.nanos() > SHORT_NS || self.pace.nanos() > PACE_NS {
            return 1;
        }
        let items = WORK_NS / self.typical.nanos().max(1);
        usize::try_from(items).unwrap_or(usize::MAX).clamp(1, BATCH_ITEMS_MAX)
    }
}

/// Of an input's length, before it.
const LENGTH_BYTES: usize = 4;

/// The inputs of a batch, as they travel: each preceded by its length.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    bytes: Vec<u8>,
    count: usize,
}

impl Inputs {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Adds what `append` appends, unless it says that it cannot, or there is no room for it.
    pub(super) fn push(&mut self, append: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; LENGTH_BYTES]);
        let is_there = append(&mut self.bytes) && self.bytes.len() <= BATCH_BYTES_MAX;
        if is_there {
            // At most `BATCH_BYTES_MAX`.
            let len = (self.bytes.len() - start - LENGTH_BYTES) as u32;
            self.bytes[start..start + LENGTH_BYTES].copy_from_slice(&len.to_le_bytes());
            self.count += 1;
        } else {
            self.bytes.truncate(start);
        }
        is_there
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// What a map has submitted, as far as it has not been yielded.
pub(super) enum Submitted<O> {
    /// Until its result is taken.
    One(Option<TaskFuture<O>>),
    Many(Many<O>),
    /// So many inputs.
    Refused(SubmitError, usize),
}

impl<O> Submitted<O> {
    /// Inputs whose results have not been taken.
    pub(super) fn left(&self) -> usize {
        match self {
            Submitted::One(future) => usize::from(future.is_some()),
            Submitted::Many(many) => many.left,
            Submitted::Refused(_, left) => *left,
        }
    }

    /// Whether `next` would not wait.
    pub(super) fn is_ready(&self) -> bool {
        match self {
            Submitted::One(future) => future.as_ref().is_none_or(TaskFuture::done),
            Submitted::Many(many) => {
                !many.ready.is_empty() || many.future.cell().is_none_or(|cell| cell.has_news())
            }
            Submitted::Refused(..) => true,
        }
    }

    /// Sends `number` whenever it has become ready.
    pub(super) fn announce(&self, to: &Sender<usize>, number: usize) {
        match self {
            Submitted::One(Some(future)) => drop(future.cell().map(|cell| cell.watch(to, number))),
            Submitted::One(None) => {}
            Submitted::Many(many) => {
                many.future.cell().into_iter().for_each(|cell| cell.watch_items(to, number));
                if !many.ready.is_empty() {
                    let _ = to.send(number);
                }
            }
            Submitted::Refused(..) => drop(to.send(number)),
        }
    }

    /// The next result, and how long its task ran; `None` if the deadline came first.
    pub(super) fn next(
        &mut self,
        deadline: Option<Instant>,
    ) -> Option<(Result<O, MapError>, Option<Duration>)> {
        match self {
            Submitted::One(future) => {
                let result = future.as_ref()?.result_until(deadline)?;
                let future = future.take()?;
                Some((result.map_err(MapError::Task), future.report().map(|report| report.run)))
            }
            Submitted::Many(many) => {
                let (result, run) = many.next(deadline)?;
                Some((result.map_err(MapError::Task), run))
            }
            Submitted::Refused(error, left) => {
                *left = left.saturating_sub(1);
                Some((Err(MapError::Submit(error.clone())), None))
            }
        }
    }

    pub(super) fn cancel(self) {
        match self {
            Submitted::One(future) => drop(future.map(|future| future.cancel())),
            Submitted::Many(many) => drop(many.future.cancel()),
            Submitted::Refused(..) => {}
        }
    }
}

/// A batch under way.
pub(super) struct Many<O> {
    /// Of the batch; its results come before it is done.
    future: TaskFuture<O>,
    left: usize,
    ready: VecDeque<Item>,
}

impl<O> Many<O> {
    pub(super) fn new(future: TaskFuture<O>, count: usize) -> Self {
        Many { future, left: count, ready: VecDeque::new() }
    }

    fn next(&mut self, deadline: Option<Instant>) -> Option<(Result<O, TaskFailure>, Option<Duration>)> {
        loop {
            if let Some(Item { result, run }) = self.ready.pop_front() {
                self.left -= 1;
                return Some((self.future.read_item(result), Some(run)));
            }
            let is_over = self.future.cell().is_none_or(|cell| cell.take_items(&mut self.ready));
            if !self.ready.is_empty() {
                continue;
            }
            if is_over {
                // What has no result of its own has ended with the batch.
                self.left -= 1;
                return Some((Err(self.future.failure_or(unanswered)), None));
            }
            self.future.attend(deadline);
            if self.future.cell().is_some_and(|cell| !cell.wait_items(deadline)) {
                return None;
            }
        }
    }
}

/// Not to be expected: a batch succeeds once each of its tasks has an answer.
fn unanswered() -> TaskError {
    TaskError::Abi { message: "the batch ended without an answer for this task".into() }
}
