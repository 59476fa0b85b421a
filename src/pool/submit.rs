//! Hands tasks over: encodes them, checks them, and gives them to the core.

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
use crate::module::{Callable, InputOf, RawTask};
use crate::options::TaskOptions;
use crate::panic_guard::PanicGuard;

impl Pool {
    /// Hands a task over. The input is encoded at once: later changes to it are not seen.
    /// Waits while the queue is full.
    ///
    /// The input is a reference to what the task takes, or to a borrowed form of it ([`InputOf`]): a task that
    /// takes a `String` is submitted with a `&str`, one that takes a `Vec<T>` with a slice. Several arguments
    /// are one tuple. [`task`](Self::task) gives the task options of its own.
    ///
    /// ```no_run
    /// # fn main() -> anyhow::Result<()> {
    /// # wasmpool::init();
    /// let pool = wasmpool::Pool::new()?;
    /// let count = pool.load_file("primes.wasm")?.task::<u64, u64>("count")?;
    /// println!("{}", pool.submit(&count, &1_000_000)?.result()?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn submit<C, I>(&self, task: &C, input: &I) -> Result<TaskFuture<C::Output>, SubmitError>
    where
        C: Callable,
        I: InputOf<C> + ?Sized,
    {
        self.submit_with(task, input, TaskOptions::new())
    }

    /// Does the same as [`submit`](Self::submit) with options that are made already, and as
    /// `pool.task(task).options(options).submit(input)`.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn submit_with<C, I>(
        &self,
        task: &C,
        input: &I,
        options: TaskOptions,
    ) -> Result<TaskFuture<C::Output>, SubmitError>
    where
        C: Callable,
        I: InputOf<C> + ?Sized,
    {
        self.submit_when(task, input, options, WhenFull::Wait(None))
    }

    /// Does the same as [`submit`](Self::submit), but does not wait.
    ///
    /// # Errors
    /// [`SubmitError::QueueFull`], and the others.
    pub fn try_submit<C, I>(&self, task: &C, input: &I) -> Result<TaskFuture<C::Output>, SubmitError>
    where
        C: Callable,
        I: InputOf<C> + ?Sized,
    {
        self.task(task).try_submit(input)
    }

    /// Does the same as [`submit`](Self::submit), for asynchronous callers: while the queue is full
    /// the task of the executor waits, and no thread does. The input is encoded by this call;
    /// dropping what it returns before it is ready submits nothing.
    ///
    /// ```no_run
    /// # async fn example(pool: wasmpool::Pool, count: wasmpool::Task<u64, u64>) -> anyhow::Result<()> {
    /// let future = pool.submit_async(&count, &1000).await?;
    /// println!("{}", future.await?);
    /// # Ok(()) }
    /// ```
    pub fn submit_async<C, I>(&self, task: &C, input: &I) -> Submit<C>
    where
        C: Callable,
        I: InputOf<C> + ?Sized,
    {
        self.task(task).submit_async(input)
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
        self.submit(task, &*PanicGuard::new(input.into()))
    }

    pub(super) fn submit_when<C, I>(
        &self,
        task: &C,
        input: &I,
        options: TaskOptions,
        when_full: WhenFull,
    ) -> Result<TaskFuture<C::Output>, SubmitError>
    where
        C: Callable,
        I: InputOf<C> + ?Sized,
    {
        let handle = self.here_for(task)?;
        let request = handle.request(task, input, options)?;
        handle.give::<C>(request, when_full).map_err(|rejected| rejected.0)
    }

    pub(super) fn submit_later<C, I>(&self, task: &C, input: &I, options: TaskOptions) -> Submit<C>
    where
        C: Callable,
        I: InputOf<C> + ?Sized,
    {
        let handle = self.here_for(task);
        let request = handle.and_then(|handle| handle.request(task, input, options)).map(Some);
        let ticket = self.core().map_or(0, |core| core.new_ticket());
        Submit { pool: self.clone(), request, ticket, callable: std::marker::PhantomData }
    }

    /// Returns the handle of a task of this process's pool, or why it cannot be submitted.
    fn here_for<C: Callable>(&self, task: &C) -> Result<&Handle, SubmitError> {
        self.here().ok_or_else(|| other_process(&task.target().name))
    }
}

impl Handle {
    /// Encodes the input; [`Request::new`] makes every check.
    fn request<C, I>(&self, task: &C, input: &I, options: TaskOptions) -> Result<Request, SubmitError>
    where
        C: Callable,
        I: InputOf<C> + ?Sized,
    {
        let stdin = input.stdin().cloned();
        let (entrance, encoded) = input.encode(task)?;
        let work =
            RequestInput::One { entrance, input: encoded, owns_input: C::OWNS_INPUT, chunk: None, stdin };
        Request::new(self.core.bounds(), task.target().aim(), work, options)
    }

    /// Gives the request to the core, which gives it back if it is rejected.
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
pub struct Submit<C> {
    pool: Pool,
    /// The request is taken when it is accepted.
    request: Result<Option<Request>, SubmitError>,
    /// It waits for room under this ticket.
    ticket: u64,
    callable: std::marker::PhantomData<fn() -> C>,
}

impl<C: Callable> Future for Submit<C> {
    type Output = Result<TaskFuture<C::Output>, SubmitError>;

    /// # Panics
    /// When polled after it was ready, as every future may.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let request = match &mut this.request {
            Ok(request) => request.take().expect("a Submit was polled after it was ready"),
            Err(error) => return Poll::Ready(Err(error.clone())),
        };
        let Some(handle) = this.pool.here() else {
            return Poll::Ready(Err(other_process(request.task_name())));
        };
        let waker = context.waker().clone();
        match handle.give::<C>(request, WhenFull::Wake { ticket: this.ticket, waker, not_after: None }) {
            Ok(future) => Poll::Ready(Ok(future)),
            Err(rejected) => match *rejected {
                (SubmitError::QueueFull { .. }, request) => {
                    this.request = Ok(Some(request));
                    Poll::Pending
                }
                (error, _) => Poll::Ready(Err(error)),
            },
        }
    }
}

impl<C> Drop for Submit<C> {
    fn drop(&mut self) {
        if let Some(core) = self.pool.core() {
            core.forget_ticket(self.ticket);
        }
    }
}

impl<C> fmt::Debug for Submit<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Submit")
    }
}
