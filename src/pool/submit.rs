//! Handing tasks over: encode, check, and give them to the core.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;

use super::{Handle, Pool};
use crate::error::SubmitError;
use crate::future::{Cell, TaskFuture};
use crate::host::Core;
use crate::host::core::WhenFull;
use crate::host::request::{Request, RequestInput};
use crate::module::{Callable, RawTask};
use crate::options::TaskOptions;
use crate::panic_guard::PanicGuard;

impl Pool {
    /// Hands a task over. The input is encoded at once: later changes to it are not seen.
    /// Waits while the queue is full.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn submit<C: Callable>(
        &self,
        task: &C,
        input: &C::Input,
    ) -> Result<TaskFuture<C::Output>, SubmitError> {
        self.submit_with(task, input, TaskOptions::new())
    }

    /// Does the same as [`submit`](Self::submit), with options of the task's own.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn submit_with<C: Callable>(
        &self,
        task: &C,
        input: &C::Input,
        options: TaskOptions,
    ) -> Result<TaskFuture<C::Output>, SubmitError> {
        let handle = self.here_for(task)?;
        let request = handle.request(task, input, options)?;
        handle.give::<C>(request, WhenFull::Wait(None)).map_err(|refused| refused.0)
    }

    /// Does the same as [`submit_with`](Self::submit_with), but does not wait.
    ///
    /// # Errors
    /// [`SubmitError::QueueFull`], and the others.
    pub fn try_submit<C: Callable>(
        &self,
        task: &C,
        input: &C::Input,
        options: TaskOptions,
    ) -> Result<TaskFuture<C::Output>, SubmitError> {
        let handle = self.here_for(task)?;
        let request = handle.request(task, input, options)?;
        handle.give::<C>(request, WhenFull::Refuse).map_err(|refused| refused.0)
    }

    /// As [`submit_with`](Self::submit_with), for asynchronous callers: while the queue is full
    /// the task of the executor waits, and no thread does. The input is encoded by this call;
    /// dropping what it returns before it is ready submits nothing.
    ///
    /// ```no_run
    /// # async fn example(pool: wasmpool::Pool, count: wasmpool::Task<u64, u64>) -> anyhow::Result<()> {
    /// let future = pool.submit_async(&count, &1000, wasmpool::TaskOptions::new()).await?;
    /// println!("{}", future.await?);
    /// # Ok(()) }
    /// ```
    pub fn submit_async<C: Callable>(
        &self,
        task: &C,
        input: &C::Input,
        options: TaskOptions,
    ) -> SubmitAsync<C> {
        let handle = self.here_for(task);
        let request = handle.and_then(|handle| handle.request(task, input, options)).map(Some);
        let ticket = self.core().map_or(0, |core| core.new_ticket());
        SubmitAsync { pool: self.clone(), request, ticket, callable: std::marker::PhantomData }
    }

    /// Submits bytes to an untyped task.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn submit_bytes(
        &self,
        task: &RawTask,
        input: impl Into<Bytes>,
    ) -> Result<TaskFuture<Bytes>, SubmitError> {
        // The worker may be quicker than this thread, whose copy is then the last one.
        self.submit(task, &PanicGuard::new(input.into()))
    }

    /// Returns the handle of a task of this process's pool, or why it cannot be submitted.
    fn here_for<C: Callable>(&self, task: &C) -> Result<&Handle, SubmitError> {
        self.here().ok_or_else(|| other_process(&task.target().name))
    }
}

impl Handle {
    /// Encodes the input; [`Request::new`] makes every check.
    fn request<C: Callable>(
        &self,
        task: &C,
        input: &C::Input,
        options: TaskOptions,
    ) -> Result<Request, SubmitError> {
        let stdin = task.stdin(input).cloned();
        let (callee, encoded) = task.encode(input)?;
        let work =
            RequestInput::One { callee, input: encoded, owns_input: C::OWNS_INPUT, chunk: None, stdin };
        Request::new(self.core.bounds(), task.target(), work, options)
    }

    /// Gives the request to the core, which gives it back if it is refused.
    fn give<C: Callable>(
        &self,
        request: Request,
        when_full: WhenFull,
    ) -> Result<TaskFuture<C::Output>, Box<(SubmitError, Request)>> {
        self.core.submit(request, when_full).map(|cell| self.future::<C>(cell))
    }

    fn future<C: Callable>(&self, cell: Arc<Cell>) -> TaskFuture<C::Output> {
        let owner: Weak<Core> = Arc::downgrade(&self.core);
        TaskFuture::new(cell, C::decode, owner)
    }
}

pub(super) fn other_process(task: &str) -> SubmitError {
    SubmitError::OtherProcess { task: task.to_string() }
}

/// The future of [`Pool::submit_async`]. Its output is the task's own future.
#[must_use = "nothing is submitted until it is awaited"]
pub struct SubmitAsync<C> {
    pool: Pool,
    /// Taken when it is accepted.
    request: Result<Option<Request>, SubmitError>,
    /// It waits for room under this ticket.
    ticket: u64,
    callable: std::marker::PhantomData<fn() -> C>,
}

impl<C: Callable> Future for SubmitAsync<C> {
    type Output = Result<TaskFuture<C::Output>, SubmitError>;

    /// # Panics
    /// When polled after it was ready, as every future may.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let request = match &mut this.request {
            Ok(request) => request.take().expect("a SubmitAsync was polled after it was ready"),
            Err(error) => return Poll::Ready(Err(error.clone())),
        };
        let Some(handle) = this.pool.here() else {
            return Poll::Ready(Err(other_process(request.task_name())));
        };
        let waker = context.waker().clone();
        match handle.give::<C>(request, WhenFull::Wake { ticket: this.ticket, waker, not_after: None }) {
            Ok(future) => Poll::Ready(Ok(future)),
            Err(refused) => match *refused {
                (SubmitError::QueueFull { .. }, request) => {
                    this.request = Ok(Some(request));
                    Poll::Pending
                }
                (error, _) => Poll::Ready(Err(error)),
            },
        }
    }
}

impl<C> Drop for SubmitAsync<C> {
    fn drop(&mut self) {
        if let Some(core) = self.pool.core() {
            core.forget_ticket(self.ticket);
        }
    }
}

impl<C> fmt::Debug for SubmitAsync<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SubmitAsync")
    }
}
