//! The words for what the pool does when something goes wrong that is nobody's input. There is no
//! behaviour.

use std::time::Duration;

use proto::limits;

/// The effect of a worker's unexpected death on its pool. A worker that the pool itself
/// ends (a deadline, an abort, recycling, fewer workers) is never unexpected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OnWorkerDeath {
    /// The pool is broken, as Python's is: every task that is not done fails with
    /// [`TaskError::Broken`](crate::TaskError::Broken), and so does every later submit.
    #[default]
    Break,
    /// Only the task that ran there fails, with
    /// [`TaskError::WorkerDied`](crate::TaskError::WorkerDied), or is tried again if its
    /// [`Retry`] says so; another worker takes the place.
    Replace(Replacement),
}

impl OnWorkerDeath {
    /// [`Replace`](Self::Replace) with the defaults.
    pub fn replace() -> Self {
        OnWorkerDeath::Replace(Replacement::default())
    }
}

/// The way in which workers are replaced: deaths that a running task can be blamed for cost that task and
/// nothing else. Deaths while starting or idle are crashes: between them is a pause that
/// doubles, and too many in a row break the pool after all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Replacement {
    pub(crate) crashes_max: u32,
    pub(crate) backoff: Duration,
    pub(crate) backoff_max: Duration,
}

impl Default for Replacement {
    fn default() -> Self {
        Replacement {
            crashes_max: limits::CRASHES_MAX,
            backoff: limits::CRASH_BACKOFF,
            backoff_max: limits::CRASH_BACKOFF_MAX,
        }
    }
}

impl Replacement {
    /// The defaults: 5 crashes in a row, pauses from 50 ms to 5 s.
    pub fn new() -> Self {
        Self::default()
    }

    /// Most crashes in a row, without a task done between them, that the pool survives.
    pub fn crashes_max(mut self, crashes: u32) -> Self {
        self.crashes_max = crashes;
        self
    }

    /// The pause after the first crash, and the longest one.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        (self.backoff, self.backoff_max) = (first, longest.max(first));
        self
    }
}

/// The rule by which a task is run again after a failure that may not be its own. It is only for tasks that may
/// run more than once: the attempt before may have got to its end.
///
/// Failures that would come again (a trap, the task's own error, a limit) are never retried.
///
/// ```
/// use std::time::Duration;
/// let retry = wasmpool::task::Retry::attempts(3).backoff(Duration::from_millis(10)).after_timeouts();
/// let options = wasmpool::TaskOptions::new().retry(retry);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Retry {
    pub(crate) attempts_max: u32,
    pub(crate) backoff: Duration,
    pub(crate) after_timeouts: bool,
}

impl Default for Retry {
    fn default() -> Self {
        Retry { attempts_max: 1, backoff: Duration::ZERO, after_timeouts: false }
    }
}

impl Retry {
    /// Allows at most so many attempts in all, the first included; 0 counts as 1. Another one follows
    /// the death of the worker (with [`OnWorkerDeath::Replace`]).
    pub fn attempts(attempts: u32) -> Self {
        Retry { attempts_max: attempts.max(1), ..Self::default() }
    }

    /// The pause after the first attempt; it doubles. Default: none.
    pub fn backoff(mut self, pause: Duration) -> Self {
        self.backoff = pause;
        self
    }

    /// Allows another attempt after a timeout, too.
    pub fn after_timeouts(mut self) -> Self {
        self.after_timeouts = true;
        self
    }
}

/// The fate of a pool's tasks when its last handle is dropped. A drop during a panic always does
/// [`Kill`](Self::Kill).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropPolicy {
    /// All of them run, and the drop waits for that, as the end of Python's `with` block does.
    #[default]
    Finish,
    /// Tasks that have not begun are cancelled; running ones are finished and waited for.
    CancelPending,
    /// Tasks that have not begun are cancelled, and the workers of running ones are killed: those fail with
    /// [`TaskError::Broken`](crate::TaskError::Broken), or count as cancelled if they had not begun.
    Kill,
}
