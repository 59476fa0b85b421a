//! `map`: many inputs, results in input order, a bounded look-ahead.

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroUsize;

use super::Pool;
use crate::error::{SubmitError, TaskFailure};
use crate::future::TaskFuture;
use crate::module::Callable;
use crate::task::TaskOptions;

/// Inputs pulled ahead of the results, unless set: enough to keep many workers busy.
const BUFFER_SIZE: usize = 1024;

/// Why one item of a [`Map`] has no result. The others go on.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// It could not be submitted.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// It failed.
    #[error(transparent)]
    Task(#[from] TaskFailure),
}

/// The iterator of [`Pool::map`]. Submits as it is pulled; dropping it cancels what does
/// not run yet.
pub struct Map<C: Callable, I> {
    pool: Pool,
    task: C,
    inputs: I,
    options: TaskOptions,
    buffer_size: usize,
    exhausted: bool,
    ahead: VecDeque<Result<TaskFuture<C::Output>, SubmitError>>,
}

impl<C, I> Map<C, I>
where
    C: Callable,
    I: Iterator<Item = C::Input>,
{
    pub(super) fn new(pool: Pool, task: C, inputs: I) -> Self {
        let options = TaskOptions::new();
        let ahead = VecDeque::new();
        Map { pool, task, inputs, options, buffer_size: BUFFER_SIZE, exhausted: false, ahead }
    }

    /// Most inputs that are pulled ahead of the results. Default 1024.
    pub fn buffer_size(mut self, items: NonZeroUsize) -> Self {
        self.buffer_size = items.get();
        self
    }

    /// Options of each task.
    pub fn options(mut self, options: TaskOptions) -> Self {
        self.options = options;
        self
    }

    fn fill(&mut self) {
        while !self.exhausted && self.ahead.len() < self.buffer_size {
            match self.inputs.next() {
                None => self.exhausted = true,
                Some(input) => {
                    let submitted = self.pool.submit_with(&self.task, &input, self.options.clone());
                    self.ahead.push_back(submitted);
                }
            }
        }
    }
}

impl<C, I> Iterator for Map<C, I>
where
    C: Callable,
    I: Iterator<Item = C::Input>,
{
    type Item = Result<C::Output, MapError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.fill();
        Some(match self.ahead.pop_front()? {
            Ok(future) => future.result().map_err(MapError::Task),
            Err(error) => Err(MapError::Submit(error)),
        })
    }
}

impl<C: Callable, I> Drop for Map<C, I> {
    fn drop(&mut self) {
        for future in self.ahead.drain(..).flatten() {
            future.cancel();
        }
    }
}

impl<C: Callable, I> fmt::Debug for Map<C, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Map({} ahead of at most {})", self.ahead.len(), self.buffer_size)
    }
}
