//! Handing tasks over: encode, check, and give them to the core.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;

use super::batch::Inputs;
use super::{Handle, Pool};
use crate::error::SubmitError;
use crate::foreign::Foreign;
use crate::future::{Cell, TaskFuture};
use crate::host::asks::TaskAsks;
use crate::host::core::{Call, Group, WhenFull};
use crate::limits;
use crate::module::{Callable, RawTask, Target};
use crate::task::TaskOptions;
use crate::text::truncated;
use crate::wire::message::Entry;

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

    /// As [`submit`](Self::submit), with options of the task's own.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn submit_with<C: Callable>(
        &self,
        task: &C,
        input: &C::Input,
        options: TaskOptions,
    ) -> Result<TaskFuture<C::Output>, SubmitError> {
        self.submit_in(task, input, options, Group::Alone, None)
    }

    /// As [`submit_with`](Self::submit_with), but does not wait.
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
        let cell = handle.give(request, Group::Alone, WhenFull::Refuse).map_err(|refused| refused.0)?;
        Ok(handle.future::<C>(cell))
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
        self.submit(task, &Foreign::new(input.into()))
    }

    /// Submits a task. Waits for room until the deadline.
    pub(super) fn submit_in<C: Callable>(
        &self,
        task: &C,
        input: &C::Input,
        options: TaskOptions,
        group: Group,
        deadline: Option<Instant>,
    ) -> Result<TaskFuture<C::Output>, SubmitError> {
        let handle = self.here_for(task)?;
        let request = handle.request(task, input, options)?;
        let cell = handle.give(request, group, WhenFull::Wait(deadline)).map_err(|refused| refused.0)?;
        Ok(handle.future::<C>(cell))
    }

    /// Submits a batch of a map. Waits for room until the deadline. Its future is of the batch as a
    /// whole, and has results of each task before.
    pub(super) fn submit_batch<C: Callable>(
        &self,
        task: &C,
        inputs: Inputs,
        options: TaskOptions,
        deadline: Option<Instant>,
    ) -> Result<TaskFuture<C::Output>, SubmitError> {
        let handle = self.here_for(task)?;
        let target = task.target();
        let mut options = handle.admissible(target, options)?;
        let group = Group::Batch(inputs.count() as u64);
        let input = Foreign::new(inputs.into_bytes().into());
        let call = Call {
            module: target.module.clone(),
            entry: target.entry(),
            limits: options.limits(),
            input,
            owns_input: true,
            shares: options.shared.take(),
            asks: None,
        };
        let request = Request { call, name: target.name.clone(), options };
        let cell = handle.give(request, group, WhenFull::Wait(deadline)).map_err(|refused| refused.0)?;
        Ok(handle.future::<C>(cell))
    }

    /// What it is made of, for a task that is to be submitted.
    fn here_for<C: Callable>(&self, task: &C) -> Result<&Handle, SubmitError> {
        self.here().ok_or_else(|| other_process(&task.target().name))
    }
}

impl Handle {
    /// Encodes the input and holds the request to the pool's limits.
    fn request<C: Callable>(
        &self,
        task: &C,
        input: &C::Input,
        options: TaskOptions,
    ) -> Result<Request, SubmitError> {
        let target = task.target();
        let name = || target.name.to_string();
        let mut options = self.admissible(target, options)?;
        let (entry, encoded) = task.encode(input)?;
        let max = self.core.settings.input_bytes_max;
        if encoded.len() > max {
            return Err(SubmitError::InputTooLarge { task: name(), bytes: encoded.len(), max });
        }
        if let Entry::Command { args, env, .. } = &entry {
            check_texts(&target.name, args, env)?;
            let texts = args.iter().chain(env.iter().flat_map(|(name, value)| [name, value]));
            let bytes = texts.map(|text| text.len() + 8).sum();
            let max = limits::FRAME_META_BYTES_MAX / 2;
            if bytes > max {
                return Err(SubmitError::InputTooLarge { task: name(), bytes, max });
            }
        }
        let asks = match task.stdin(input) {
            None => None,
            Some(_) if options.retry.is_some_and(|retry| retry.attempts_max > 1) => {
                return Err(SubmitError::StdinReadOnce { task: name() });
            }
            Some(source) => match source.lend() {
                // What it reads must not depend on when it comes.
                Some(lent) => Some(TaskAsks::new(lent, options.seed.is_some())),
                None => return Err(SubmitError::StdinTaken { task: name() }),
            },
        };
        let call = Call {
            module: target.module.clone(),
            entry,
            limits: options.limits(),
            input: Foreign::new(encoded),
            owns_input: C::OWNS_INPUT,
            shares: options.shared.take(),
            asks,
        };
        Ok(Request { call, name: target.name.clone(), options })
    }

    /// The options as they hold, if the task's module can keep them.
    fn admissible(&self, target: &Target, options: TaskOptions) -> Result<TaskOptions, SubmitError> {
        let core = &self.core;
        let task = || target.name.to_string();
        let module = &target.module.0;
        if module.pool != core.id {
            return Err(SubmitError::ForeignModule { task: task() });
        }
        let options = options.or(&core.settings.defaults);
        let shared = options.shared.as_deref().unwrap_or_default();
        if shared.iter().any(|shared| shared.pool() != core.id) {
            return Err(SubmitError::ForeignShared { task: task() });
        }
        let (count, max) = (shared.len(), limits::SHARES_PER_TASK_MAX);
        if count > max {
            return Err(SubmitError::TooManyShared { task: task(), count, max });
        }
        if options.fuel.is_some() && !module.description.metered {
            return Err(SubmitError::NotMetered { task: task(), module: module.shown.to_string() });
        }
        if options.seed.is_some() && !module.description.deterministic {
            return Err(SubmitError::NotDeterministic { task: task(), module: module.shown.to_string() });
        }
        if options.seed.is_some() && module.description.uses_wasi && !core.settings.dirs.is_empty() {
            return Err(SubmitError::DirsNotDeterministic { task: task() });
        }
        Ok(options)
    }

    /// Gives the request to the core, which gives it back if it is refused.
    fn give(
        &self,
        request: Request,
        group: Group,
        when_full: WhenFull,
    ) -> Result<Arc<Cell>, Box<(SubmitError, Request)>> {
        let Request { call, name, options } = request;
        let submitted = self.core.submit(call, &name, &options, group, when_full);
        submitted.map_err(|refused| {
            let (error, call) = *refused;
            Box::new((error, Request { call, name, options }))
        })
    }

    fn future<C: Callable>(&self, cell: Arc<Cell>) -> TaskFuture<C::Output> {
        TaskFuture::new(cell, C::decode, Arc::downgrade(&self.core))
    }
}

/// Whether a program can be given these as they are: in its memory they end at a NUL.
pub(crate) fn check_texts(task: &str, args: &[String], env: &[(String, String)]) -> Result<(), SubmitError> {
    let args = args.iter().map(|arg| ("an argument", arg, &['\0'][..]));
    let env = env.iter().flat_map(|(name, value)| {
        [("a variable's name", name, &['\0', '='][..]), ("a variable's value", value, &['\0'])]
    });
    for (what, text, excluded) in args.chain(env) {
        if let Some(character) = text.chars().find(|character| excluded.contains(character)) {
            let (task, text) = (task.to_string(), truncated(text, SHOWN_BYTES_MAX));
            return Err(SubmitError::Unrepresentable { task, what, character, text });
        }
    }
    Ok(())
}

/// How much of a text that is refused is shown.
const SHOWN_BYTES_MAX: usize = 60;

fn other_process(task: &str) -> SubmitError {
    SubmitError::OtherProcess { task: task.to_string() }
}

/// A task that is ready to be accepted.
struct Request {
    call: Call,
    name: Arc<str>,
    options: TaskOptions,
}

/// The future of [`Pool::submit_async`]. Its output is the task's own future.
#[must_use = "nothing is submitted until it is awaited"]
pub struct SubmitAsync<C> {
    pool: Pool,
    /// Taken when it is accepted.
    request: Result<Option<Request>, SubmitError>,
    /// Under which it waits for room.
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
            return Poll::Ready(Err(other_process(&request.name)));
        };
        match handle.give(
            request,
            Group::Alone,
            WhenFull::Wake { ticket: this.ticket, waker: context.waker().clone() },
        ) {
            Ok(cell) => Poll::Ready(Ok(handle.future::<C>(cell))),
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
