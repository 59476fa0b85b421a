//! A task with options of its own, on its way to be submitted.

use std::time::Duration;

use super::{Map, Pool, Submit};
use crate::error::SubmitError;
use crate::future::TaskFuture;
use crate::host::core::WhenFull;
use crate::module::{Callable, InputOf};
use crate::options::{Isolation, TaskOptions, task_options};
use crate::policy::Retry;
use crate::shared_input::SharedInput;
use proto::task::LogOverflow;

/// A task and its options: [`Pool::task`] makes it, and [`submit`](Self::submit) or [`map`](Self::map) uses it,
/// any number of times. Each method for an option does what the method of [`TaskOptions`] of the same name
/// does, where the option is described.
#[derive(Debug, Clone)]
#[must_use = "nothing is submitted until submit() or map() is called"]
pub struct Submission<'a, C> {
    pool: &'a Pool,
    task: &'a C,
    options: TaskOptions,
}

impl Pool {
    /// Names a task to be submitted with options of its own.
    ///
    /// ```no_run
    /// # fn main() -> anyhow::Result<()> {
    /// # wasmpool::init();
    /// use std::time::Duration;
    /// let pool = wasmpool::Pool::new()?;
    /// let count = pool.load_file("primes.wasm")?.task::<u64, u64>("count")?;
    /// let count = pool.task(&count).timeout(Duration::from_secs(5)).label("primes");
    /// println!("{}", count.submit(&1_000_000)?.result()?);
    /// for primes in count.map(1..=100) {
    ///     println!("{}", primes?);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn task<'a, C: Callable>(&'a self, task: &'a C) -> Submission<'a, C> {
        Submission { pool: self, task, options: TaskOptions::new() }
    }
}

macro_rules! methods {
    ($({$($name:ident($argument:ident: $type:ty);)*})*) => {
        /// Options, each as in [`TaskOptions`].
        impl<C: Callable> Submission<'_, C> {
            $($(
                #[doc = concat!("[`TaskOptions::", stringify!($name), "`].")]
                pub fn $name(mut self, $argument: $type) -> Self {
                    self.options = self.options.$name($argument);
                    self
                }
            )*)*
        }
    };
}

task_options!(methods);

impl<C: Callable> Submission<'_, C> {
    /// All options at once, in place of those so far.
    pub fn options(mut self, options: TaskOptions) -> Self {
        self.options = options;
        self
    }

    /// Hands the task over, and waits while the queue is full: [`Pool::submit`].
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn submit<I>(&self, input: &I) -> Result<TaskFuture<C::Output>, SubmitError>
    where
        I: InputOf<C> + ?Sized,
    {
        self.pool.submit_with(self.task, input, self.options.clone())
    }

    /// Does the same as [`submit`](Self::submit), but does not wait.
    ///
    /// # Errors
    /// [`SubmitError::QueueFull`], and the others.
    pub fn try_submit<I>(&self, input: &I) -> Result<TaskFuture<C::Output>, SubmitError>
    where
        I: InputOf<C> + ?Sized,
    {
        self.pool.submit_when(self.task, input, self.options.clone(), WhenFull::Reject)
    }

    /// Does the same as [`submit`](Self::submit), for asynchronous callers: [`Pool::submit_async`].
    pub fn submit_async<I>(&self, input: &I) -> Submit<C>
    where
        I: InputOf<C> + ?Sized,
    {
        self.pool.submit_later(self.task, input, self.options.clone())
    }

    /// Runs the task over every input, each with these options: [`Pool::map`].
    pub fn map<I>(&self, inputs: I) -> Map<C, I::IntoIter>
    where
        C: Clone + 'static,
        I: IntoIterator,
        I::Item: InputOf<C>,
        I::IntoIter: Send + 'static,
    {
        self.pool.map(self.task, inputs).options(self.options.clone())
    }

    /// Does the same as [`map`](Self::map) for an iterator that borrows or cannot go to another thread:
    /// [`Pool::map_local`].
    pub fn map_local<I>(&self, inputs: I) -> Map<C, I::IntoIter>
    where
        C: Clone,
        I: IntoIterator,
        I::Item: InputOf<C>,
    {
        self.pool.map_local(self.task, inputs).options(self.options.clone())
    }
}
