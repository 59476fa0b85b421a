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
/// Dropping it changes nothing for the task, unless [`abort_on_drop`](Self::abort_on_drop) was asked for. All
/// methods may be called from any thread, any number of times. It is awaited by value, or by reference as often
/// as one likes: `(&future).await`. In a process that was forked from the pool's it is done, with
/// [`TaskError::OtherProcess`].
#[doc(alias = "Future")]
pub struct TaskFuture<O> {
    cell: OfProcess<Arc<Cell>>,
    decode: fn(&TaskOutput) -> Result<O, String>,
    owner: Weak<dyn TaskOwner>,
    aborts_on_drop: bool,
}

impl<O> TaskFuture<O> {
    pub(crate) fn new(
        cell: Arc<Cell>,
        decode: fn(&TaskOutput) -> Result<O, String>,
        owner: Weak<dyn TaskOwner>,
    ) -> Self {
        TaskFuture { cell: OfProcess::new(cell), decode, owner, aborts_on_drop: false }
    }

    /// Returns its cell, or `None` in a process that was forked from its own.
    pub(crate) fn cell(&self) -> Option<&Arc<Cell>> {
        self.cell.here()
    }

    /// Returns the address of its cell, which no two tasks share.
    /// Returns a number that no other task's futures have while this one lives.
    pub(crate) fn task_key(&self) -> usize {
        // The addresses of cells are multiples of their size's largest power of two, at least of this.
        Arc::as_ptr(self.cell.unchanging()).addr() / align_of::<Cell>()
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
    #[doc(alias = "exception")]
    pub fn failure(&self) -> Option<TaskFailure> {
        self.result().err()
    }

    /// Does the same as [`failure`](Self::failure), but waits at most `timeout`.
    ///
    /// # Errors
    /// The time ran out; the task goes on.
    #[doc(alias = "exception")]
    pub fn failure_timeout(&self, timeout: Duration) -> Result<Option<TaskFailure>, WaitTimeout> {
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
        if self.is_done() {
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

    /// Has the drop of this future [abort](Self::abort) the task, if it is not done then: for callers that may
    /// give up, as an executor's task that is cancelled does. The drop does not wait.
    ///
    /// ```no_run
    /// # fn main() -> anyhow::Result<()> {
    /// # wasmpool::init();
    /// # let pool = wasmpool::Pool::new()?;
    /// # let count = pool.load_file("primes.wasm")?.task::<u64, u64>("count")?;
    /// let future = pool.submit(&count, &1_000_000)?.abort_on_drop();
    /// let primes = future.result_timeout(std::time::Duration::from_millis(5))??;
    /// # Ok(()) }
    /// ```
    pub fn abort_on_drop(mut self) -> Self {
        self.aborts_on_drop = true;
        self
    }

    /// Returns whether the task is done: finished, failed or cancelled.
    #[doc(alias = "done")]
    pub fn is_done(&self) -> bool {
        self.cell().is_none_or(|cell| cell.is_filled())
    }

    /// Returns whether it was cancelled.
    #[doc(alias = "cancelled")]
    pub fn is_cancelled(&self) -> bool {
        self.state() == FutureState::Cancelled
    }

    /// Returns whether a worker has begun it and it is not done; so it may wait for another attempt.
    #[doc(alias = "running")]
    pub fn is_running(&self) -> bool {
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

    /// Returns what the task cost, once it is done.
    pub fn report(&self) -> Option<TaskReport> {
        self.cell()?.outcome().map(|outcome| outcome.report)
    }

    /// Calls `callback` once when the task is done, at once if it is. Callbacks run on a
    /// thread of the pool's that does nothing else, so they may submit, wait or block; a
    /// panic in one is logged, and the next still runs.
    #[doc(alias = "add_done_callback")]
    pub fn on_done(&self, callback: impl FnOnce(Result<O, TaskFailure>) + Send + 'static)
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
        Ok(output) => decode(output)
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

impl<O> Drop for TaskFuture<O> {
    fn drop(&mut self) {
        if self.aborts_on_drop {
            self.abort();
        }
    }
}

impl<'a, O> IntoFuture for &'a TaskFuture<O> {
    type Output = Result<O, TaskFailure>;
    type IntoFuture = Awaiting<'a, O>;

    fn into_future(self) -> Awaiting<'a, O> {
        Awaiting { future: self, waker_key: None }
    }
}

/// Waits for a [`TaskFuture`] that stays where it is: what `(&future).await` polls. Several may wait for one
/// future, each on an executor's task of its own.
///
/// Cancellation safe: dropping it neither cancels the task nor loses its result.
#[must_use = "it waits only when it is polled"]
pub struct Awaiting<'a, O> {
    future: &'a TaskFuture<O>,
    /// The cell keeps its waker under this key.
    waker_key: Option<u64>,
}

impl<O> std::future::Future for Awaiting<'_, O> {
    type Output = Result<O, TaskFailure>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.future;
        let Some(cell) = future.cell() else { return Poll::Ready(Err(future.elsewhere())) };
        match cell.poll_beside(&mut self.waker_key, context.waker()) {
            Some(outcome) => Poll::Ready(future.read(&outcome)),
            None => Poll::Pending,
        }
    }
}

impl<O> Drop for Awaiting<'_, O> {
    fn drop(&mut self) {
        if let Some((cell, waker_key)) = self.future.cell().zip(self.waker_key) {
            cell.forget_waker(waker_key);
        }
    }
}

impl<O> fmt::Debug for Awaiting<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Awaiting({:?})", self.future)
    }
}

impl<O> fmt::Debug for TaskFuture<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskFuture(task {}, {:?})", self.task_id(), self.state())
    }
}
