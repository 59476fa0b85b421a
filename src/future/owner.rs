//! A future reaches its pool through this trait, and so need not know the pool.

use std::time::Instant;

use super::cell::Cell;
use proto::task::TaskId;

/// The pool, as far as the futures of its tasks need it.
pub(crate) trait TaskOwner: Send + Sync {
    /// Cancels the task if it has not begun.
    fn cancel(&self, task: TaskId);

    /// Stops the task, even if it runs. Does not wait.
    fn abort(&self, task: TaskId);

    /// Reads the answers of the task's worker on this thread until the cell is filled, or until the deadline. It may return
    /// early.
    fn drive_inline(&self, cell: &Cell, deadline: Option<Instant>);
}
