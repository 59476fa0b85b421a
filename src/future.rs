//! The future of a task: a cell that is filled once, and everything that can wait for it.
//!
//! [`TaskFuture`] is `concurrent.futures.Future` with types, and a
//! [`std::future::Future`] for any executor. The cell knows nothing of pools: the host
//! completes it, from whichever thread learns the outcome first.

mod cell;
mod owner;
mod wait;

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

pub use cell::FutureState;
pub(crate) use cell::{Cell, Failed, Filled, Item, Labels, Queues, TaskResult};
pub(crate) use owner::TaskOwner;
pub use wait::{
    AsCompleted, AsCompletedTimeout, ReturnWhen, Waited, as_completed, as_completed_timeout, wait,
};

use crate::error::{TaskError, TaskFailure, WaitTimeout};
use crate::fork::OfProcess;
use crate::module::TaskOutput;
use crate::report::TaskReport;
use proto::task::TaskId;

/// The result of a task, now or later.
///
/// Dropping it changes nothing for the task. All methods may be called from any thread,
/// any number of times. In a process that was forked from the pool's it is done, with
/// [`TaskError::OtherProcess`].
pub struct TaskFuture<O> {
    cell: OfProcess<Arc<Cell>>,
    decode: fn(&TaskOutput) -> Result<O, String>,
    owner: Weak<dyn TaskOwner>,
}

impl<O> TaskFuture<O> {
    pub(crate) fn new(
        cell: Arc<Cell>,
        decode: fn(&TaskOutput) -> Result<O, String>,
        owner: Weak<dyn TaskOwner>,
    ) -> Self {
        TaskFuture { cell: OfProcess::new(cell), decode, owner }
    }

    /// Returns its cell, or `None` in a process that was forked from its own.
    pub(crate) fn cell(&self) -> Option<&Arc<Cell>> {
        self.cell.here()
    }

    /// Returns the address of its cell, which no two tasks share.
    pub(crate) fn task_key(&self) -> *const Cell {
        Arc::as_ptr(self.cell.unchanging())
    }

    pub(crate) fn labels(&self) -> &Labels {
        self.cell.unchanging().labels()
    }

    /// Returns its pool, if this is its process and the pool still exists.
    fn owner(&self) -> Option<Arc<dyn TaskOwner>> {
        self.cell().and_then(|_| self.owner.upgrade())
    }

    pub(crate) fn elsewhere(&self) -> TaskFailure {
        self.labels().failure(TaskError::OtherProcess, TaskReport::default())
    }

    /// The task's id.
    pub fn task_id(&self) -> TaskId {
        self.labels().task
    }

    /// Waits for the task and returns its output.
    ///
    /// # Errors
    /// [`TaskFailure`], which says what happened to which task.
    pub fn result(&self) -> Result<O, TaskFailure> {
        self.drive_inline(None);
        match self.cell() {
            Some(cell) => self.read(&cell.wait()),
            None => Err(self.elsewhere()),
        }
    }

    /// Does the same as [`result`](Self::result), but waits at most `timeout`.
    ///
    /// # Errors
    /// The outer error means that the time ran out; the task goes on.
    pub fn result_timeout(&self, timeout: Duration) -> Result<Result<O, TaskFailure>, WaitTimeout> {
        let deadline = Instant::now().checked_add(timeout);
        self.result_until(deadline).ok_or(WaitTimeout { task: self.task_id(), waited: timeout })
    }

    /// Does the same as [`result`](Self::result), but returns `None` if the deadline comes first.
    pub(crate) fn result_until(&self, deadline: Option<Instant>) -> Option<Result<O, TaskFailure>> {
        self.drive_inline(deadline);
        let Some(cell) = self.cell() else { return Some(Err(self.elsewhere())) };
        cell.wait_until(deadline).map(|outcome| self.read(&outcome))
    }

    /// Waits for the task and returns its failure, if it failed: what
    /// [`result`](Self::result) would return.
    pub fn exception(&self) -> Option<TaskFailure> {
        self.result().err()
    }

    /// Does the same as [`exception`](Self::exception), but waits at most `timeout`.
    ///
    /// # Errors
    /// The time ran out; the task goes on.
    pub fn exception_timeout(&self, timeout: Duration) -> Result<Option<TaskFailure>, WaitTimeout> {
        Ok(self.result_timeout(timeout)?.err())
    }

    /// The result, if the task is done.
    pub fn try_result(&self) -> Option<Result<O, TaskFailure>> {
        let Some(cell) = self.cell() else { return Some(Err(self.elsewhere())) };
        cell.outcome().map(|outcome| self.read(&outcome))
    }

    /// Cancels the task if it does not run yet, or waits for another attempt. `true` if it is cancelled now, by this
    /// call or an earlier one; every waiter then wakes at once. A worker may have been handed
    /// the task and not begun it: it is then taken back.
    pub fn cancel(&self) -> bool {
        if let Some(owner) = self.owner() {
            owner.cancel(self.task_id());
        }
        self.cell().is_some_and(|cell| cell.is_cancelled())
    }

    /// Stops the task even if it runs: interrupts it, and kills its worker if it does not
    /// heed the interrupt within the pool's grace period; a pending one is cancelled. Does not
    /// wait. `false` if the task was done already.
    pub fn abort(&self) -> bool {
        if self.done() {
            return false;
        }
        match self.owner() {
            Some(owner) => {
                owner.abort(self.task_id());
                true
            }
            None => false,
        }
    }

    /// Whether the task is done: finished, failed or cancelled.
    pub fn done(&self) -> bool {
        self.cell().is_none_or(|cell| cell.is_filled())
    }

    /// Whether it was cancelled.
    pub fn cancelled(&self) -> bool {
        self.state() == FutureState::Cancelled
    }

    /// Whether a worker has begun it and it is not done; so it may wait for another attempt.
    pub fn running(&self) -> bool {
        self.state() == FutureState::Running
    }

    /// Its state now.
    pub fn state(&self) -> FutureState {
        let Some(cell) = self.cell() else { return FutureState::Finished };
        match cell.outcome() {
            Some(outcome) => outcome.state(),
            None => cell.open_state(),
        }
    }

    /// What the task cost, once it is done.
    pub fn report(&self) -> Option<TaskReport> {
        self.cell()?.outcome().map(|outcome| outcome.report)
    }

    /// Calls `callback` once when the task is done, at once if it is. Callbacks run on a
    /// thread of the pool's that does nothing else, so they may submit, wait or block; a
    /// panic in one is logged, and the next still runs.
    pub fn add_done_callback(&self, callback: impl FnOnce(Result<O, TaskFailure>) + Send + 'static)
    where
        O: 'static,
    {
        let decode = self.decode;
        let Some(cell) = self.cell() else { return callback(Err(self.elsewhere())) };
        cell.on_done(Box::new(move |labels, outcome| callback(read(decode, labels, &outcome))));
    }

    /// The result of one task of a batch, with the report that it has if its output cannot be decoded.
    pub(crate) fn read_item(
        &self,
        task: TaskId,
        result: Result<TaskOutput, TaskFailure>,
        report: impl FnOnce() -> TaskReport,
    ) -> Result<O, TaskFailure> {
        (self.decode)(&result?)
            .map_err(|message| self.labels().failure_of(task, TaskError::OutputDecode { message }, report()))
    }

    /// Lets this thread, which is about to wait, read the answer itself.
    pub(crate) fn drive_inline(&self, deadline: Option<Instant>) {
        if let Some(cell) = self.cell()
            && !cell.is_filled()
            && let Some(owner) = self.owner.upgrade()
        {
            owner.drive_inline(cell, deadline);
        }
    }

    fn read(&self, outcome: &TaskResult) -> Result<O, TaskFailure> {
        read(self.decode, self.labels(), outcome)
    }
}

fn read<O>(
    decode: fn(&TaskOutput) -> Result<O, String>,
    labels: &Labels,
    outcome: &TaskResult,
) -> Result<O, TaskFailure> {
    match &outcome.result {
        Err(failed) => Err(outcome.failure_of(labels, failed)),
        Ok(answer) => decode(answer)
            .map_err(|message| labels.failure(TaskError::OutputDecode { message }, outcome.report.clone())),
    }
}

impl<O> std::future::Future for TaskFuture<O> {
    type Output = Result<O, TaskFailure>;

    /// Cancellation safe: dropping the future neither cancels the task nor loses its result.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(cell) = self.cell() else { return Poll::Ready(Err(self.elsewhere())) };
        match cell.poll(context.waker()) {
            Some(outcome) => Poll::Ready(self.read(&outcome)),
            None => Poll::Pending,
        }
    }
}

impl<O> fmt::Debug for TaskFuture<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskFuture(task {}, {:?})", self.task_id(), self.state())
    }
}
