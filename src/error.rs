//! What can go wrong, one type for each boundary.
//!
//! | boundary | type |
//! |---|---|
//! | starting a pool | [`BuildError`] |
//! | bringing a module in | [`ModuleError`] |
//! | handing a task over | [`SubmitError`] |
//! | a task that did not succeed | [`TaskFailure`], whose [`error`](TaskFailure::error) is a [`TaskError`] |
//! | a process that died | [`BrokenPool`], made from a [`Death`] |

mod death;
mod module;
mod task;

use std::io;
use std::path::PathBuf;

pub use death::{BrokenPool, Death, DeathCause, Phase};
pub use module::ModuleError;
pub use task::{Frame, TaskError, TaskFailure, TrapCode};

/// Why a pool could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The program never called [`wasmpool::init()`](crate::init), so its workers would run `main` again.
    #[error(
        "wasmpool::init() was not called: make it the first line of main (in a test crate: \
         wasmpool::init_at_load!()), or name a worker with PoolBuilder::worker_program"
    )]
    InitMissing,
    /// A worker or compiler process reached the code that builds a pool.
    #[error(
        "this process is itself a wasmpool worker: wasmpool::init() must come before the code that builds a pool"
    )]
    NestedInit,
    /// The number of workers is zero or too large.
    #[error("cannot run with {workers} workers: choose 1 to {max}")]
    Workers {
        /// What was asked for.
        workers: usize,
        /// [`WORKERS_MAX`](crate::limits::WORKERS_MAX).
        max: usize,
    },
    /// A limit that cannot be.
    #[error("{setting} is {value}, but must be {must}")]
    Setting {
        /// The builder's method.
        setting: &'static str,
        /// What was asked for.
        value: u64,
        /// What is possible.
        must: String,
    },
    /// This system cannot filter system calls, and the pool's policy does not do without.
    #[error(
        "this system has no seccomp filters (or refuses them), without which workers are not isolated: \
         run where there are, or switch the sandbox off knowingly (SandboxPolicy::Off, --sandbox off)"
    )]
    NoSeccomp,
    /// The worker's executable cannot be opened.
    #[error("cannot open the worker program {}", path.display())]
    WorkerProgram {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused a thread, a descriptor or memory.
    #[error("cannot set up the pool: {what}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a task was not accepted.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The input's `Serialize` failed.
    #[error("cannot encode the input of `{task}`: {message}")]
    Encode {
        /// The task.
        task: String,
        /// The codec's words.
        message: String,
    },
    /// More bytes than [`PoolBuilder::input_bytes_max`](crate::PoolBuilder::input_bytes_max).
    #[error("the input of `{task}` has {bytes} bytes, more than the limit of {max}")]
    InputTooLarge {
        /// The task.
        task: String,
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// As many tasks wait as [`PoolBuilder::queue_tasks_max`](crate::PoolBuilder::queue_tasks_max) allows; from `try_submit`, and from `submit` inside of a [`Waker`](std::task::Waker), which may not wait.
    #[error("the queue is full: {max} tasks are waiting or running")]
    QueueFull {
        /// The limit.
        max: usize,
    },
    /// Fuel was asked for, but the module was not loaded metered.
    #[error("`{task}` is to run with fuel, but {module} was not loaded with ModuleOptions::metered")]
    NotMetered {
        /// The task.
        task: String,
        /// The module.
        module: String,
    },
    /// The module belongs to another pool.
    #[error("`{task}` belongs to a module that another pool loaded")]
    ForeignModule {
        /// The task.
        task: String,
    },
    /// `shutdown`, `terminate` or `kill` was called.
    #[error("cannot submit `{task}` after the pool was shut down")]
    ShutDown {
        /// The task.
        task: String,
    },
    /// A worker died; the pool takes no more tasks.
    #[error(transparent)]
    Broken(#[from] BrokenPool),
}
