//! The errors: one type for each boundary.
//!
//! | boundary | type |
//! |---|---|
//! | starting a pool | [`BuildError`] |
//! | bringing a module in | [`ModuleError`] |
//! | sharing an input | [`ShareError`] |
//! | handing a task over | [`SubmitError`] |
//! | a task that did not succeed | [`TaskFailure`], whose [`error`](TaskFailure::error) is a [`TaskError`] |
//! | an item of a map | [`MapError`] |
//! | waiting for a result for some time only | [`WaitTimeout`] |
//! | a process that died | [`BrokenPool`], made from a [`Death`] |
//! | a process that could not be started just then | [`Shortage`] |

mod death;
mod module;
mod task;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use death::{BrokenPool, Death, DeathCause, Phase};
pub use module::ModuleError;
pub use task::{ErrorData, TaskError, TaskFailure};

#[doc(inline)]
pub use proto::schema::SchemaError;
#[doc(inline)]
pub use proto::shortage::{Scarce, Shortage};
use proto::task::TaskId;
use proto::text::{Name, Words};
#[doc(inline)]
pub use proto::trap::{Frame, SourceLocation, TrapCode};

/// The reason why a pool could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The program never called [`wasmpool::init()`](crate::init), so its workers would run `main` again.
    #[error(
        "wasmpool::init() was not called: make it the first line of main (in a test crate: \
         wasmpool::init_at_load!()), or name a worker with PoolBuilder::worker_program"
    )]
    InitMissing,
    /// The program has no engine in it, so it cannot serve as its own workers.
    #[error(
        "this program was built without wasmpool's feature `engine`: name a worker with \
         PoolBuilder::worker_program, such as wasmpool-worker"
    )]
    NoEngine,
    /// A worker or compiler process reached the code that builds a pool.
    #[error(
        "this process is itself a wasmpool worker: wasmpool::init() must come before the code that builds a pool"
    )]
    NestedInit,
    /// The number of workers is zero or too large.
    #[error("cannot run with {workers} workers: choose 1 to {max}")]
    Workers {
        /// The value that was asked for.
        workers: usize,
        /// [`WORKERS_MAX`](proto::limits::WORKERS_MAX).
        max: usize,
    },
    /// A limit that cannot be.
    #[error("{setting} is {value}, but must be {}", Words(must))]
    Setting {
        /// The builder's method.
        setting: &'static str,
        /// The value that was asked for.
        value: u64,
        /// The values that are possible.
        must: String,
    },
    /// This system cannot filter system calls, and the pool's policy does not do without.
    #[error(
        "this system has no seccomp filters (or refuses them), without which workers are not isolated: \
         run where there are, or switch the sandbox off knowingly (the policy `off`)"
    )]
    NoSeccomp,
    /// A layer of the sandbox that the policy demands cannot be applied, or nothing could be tried.
    #[error("{}", Words(message))]
    SandboxRefused {
        /// It says which layers are missing, why, and how to go on.
        message: String,
    },
    /// [`PoolBuilder::verify_sandbox`](crate::PoolBuilder::verify_sandbox): an attack came through a layer that is there to stop it.
    #[error(
        "the sandbox does not hold here: attack `{}`: {}; `wasmpool doctor` shows all",
        Name(attack),
        Words(outcome)
    )]
    SandboxHole {
        /// Its name.
        attack: String,
        /// Its outcome.
        outcome: String,
    },
    /// [`PoolBuilder::pagemap_scan`](crate::PoolBuilder::pagemap_scan) where it could leave bytes of one task to the next.
    #[error("cannot reset instances by a scan of the page map: {}", Words(reason))]
    PagemapScan {
        /// The obstacle.
        reason: String,
    },
    /// A directory of [`PoolBuilder::dir`](crate::PoolBuilder::dir) that cannot be given to tasks.
    #[error("cannot give tasks the directory {}", Name(path.to_string_lossy()))]
    Directory {
        /// Its path on the host.
        path: PathBuf,
        /// The reason why tasks cannot have it.
        source: io::Error,
    },
    /// The cache of compiled modules lies where tasks may write, or tasks may write to something in it.
    #[error("cannot keep compiled modules in {}", Name(path.to_string_lossy()))]
    CacheDir {
        /// Its path.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The worker's executable cannot be opened.
    #[error("cannot open the worker program {}", Name(path.to_string_lossy()))]
    WorkerProgram {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The system refused a thread, a descriptor or memory.
    #[error("cannot {what}")]
    System {
        /// The step that failed.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

/// The reason why an input cannot be shared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// The input has more bytes than [`PoolBuilder::share_bytes_max`](crate::PoolBuilder::share_bytes_max).
    #[error("the input to share has {bytes} bytes, more than the limit of {max}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// This process was forked from the one that built the pool.
    #[error("the pool is of another process: after a fork, the child builds a pool of its own")]
    OtherProcess,
    /// [`PoolBuilder::shares_max`](crate::PoolBuilder::shares_max) allows no more shared inputs: drop one first.
    #[error("{max} inputs are shared already: no more than that at a time")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// The system refused a descriptor or memory.
    #[error("cannot share an input of {bytes} bytes")]
    System {
        /// Its size.
        bytes: u64,
        /// The system's error.
        source: io::Error,
    },
}

/// The reason why a task was not accepted.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The input's `Serialize` failed.
    #[error("cannot encode the input of `{}`: {}", Name(task), Words(message))]
    Encode {
        /// The task.
        task: String,
        /// The codec's words.
        message: String,
    },
    /// The input has more bytes than [`PoolBuilder::input_bytes_max`](crate::PoolBuilder::input_bytes_max).
    #[error("the input of `{}` has {bytes} bytes, more than the limit of {max}", Name(task))]
    InputTooLarge {
        /// The task.
        task: String,
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// An argument or environment variable of a WASI command holds a character that it cannot have: a program
    /// would see it cut off at a NUL byte, and a variable's name ends at `=`.
    #[error("`{}` cannot be given {what} with {character:?} in it: {}", Name(task), Name(text))]
    Unrepresentable {
        /// The command.
        task: String,
        /// An argument, a variable's name, or a variable's value.
        what: &'static str,
        /// The character that it cannot have.
        character: char,
        /// The text, or the beginning of a long one.
        text: String,
    },
    /// The command's [reader](crate::task::CommandInput::stdin_reader) was given to another task, and can be read
    /// only once.
    #[error("another task reads the stdin of `{}`: a reader can be given to one", Name(task))]
    StdinTaken {
        /// The command.
        task: String,
    },
    /// The command is to be retried when it fails ([`TaskOptions::retry`](crate::TaskOptions::retry)), but
    /// its [reader](crate::task::CommandInput::stdin_reader) can be read only once.
    #[error(
        "`{}` is to be tried again where it fails, but its stdin can be read only once: give it as bytes, or do \
         without the retry",
        Name(task)
    )]
    StdinReadOnce {
        /// The command.
        task: String,
    },
    /// [`PoolBuilder::queue_tasks_max`](crate::PoolBuilder::queue_tasks_max)
    /// allows no more tasks that wait or run. It comes from `try_submit`, and from `submit` inside of a
    /// [`Waker`](std::task::Waker), which may not wait.
    #[error("the queue is full: {max} tasks are waiting or running")]
    QueueFull {
        /// The limit.
        max: usize,
    },
    /// Fuel was asked for, but the module was not loaded metered.
    #[error("`{}` is to run with fuel, but {} was not loaded to be `metered`", Name(task), Name(module))]
    NotMetered {
        /// The task.
        task: String,
        /// The module.
        module: String,
    },
    /// A seed was given, but the module was not loaded deterministic.
    #[error(
        "`{}` is to be deterministic, but {} was not loaded to be `deterministic`",
        Name(task),
        Name(module)
    )]
    NotDeterministic {
        /// The task.
        task: String,
        /// The module.
        module: String,
    },
    /// A seed was given, but the pool's [directories](crate::PoolBuilder::dir) are an input that it does not determine.
    #[error(
        "`{}` is to be deterministic, but its pool gives tasks directories, whose files are no part of the input: \
         use a pool without",
        Name(task)
    )]
    DirsNotDeterministic {
        /// The task.
        task: String,
    },
    /// The module belongs to another pool.
    #[error("`{}` belongs to a module that another pool loaded", Name(task))]
    ForeignModule {
        /// The task.
        task: String,
    },
    /// A [shared input](crate::TaskOptions::shared) belongs to another pool.
    #[error("`{}` is to have an input that another pool shares", Name(task))]
    ForeignShared {
        /// The task.
        task: String,
    },
    /// More [shared inputs](crate::TaskOptions::shared) than one task may have.
    #[error("`{}` is to have {count} shared inputs: a task has at most {max}", Name(task))]
    TooManyShared {
        /// The task.
        task: String,
        /// The number that it was given.
        count: usize,
        /// [`SHARES_PER_TASK_MAX`](proto::limits::SHARES_PER_TASK_MAX).
        max: usize,
    },
    /// The input, and the largest result that may come of it, need more room than the map has that it belongs to
    /// ([`Map::bytes_max`](crate::pool::Map::bytes_max), [`PoolBuilder::map_bytes_max`](crate::PoolBuilder::map_bytes_max)).
    #[error(
        "an input of `{}` and its largest result need {bytes} bytes, and the map may hold {max}: raise the map's \
         bytes_max, or lower the tasks' output_bytes_max",
        Name(task)
    )]
    NoRoomInMap {
        /// The task.
        task: String,
        /// The bytes that both need together.
        bytes: u64,
        /// The bytes that the map may hold.
        max: u64,
    },
    /// `shutdown`, `terminate` or `kill` was called.
    #[error("cannot submit `{}` after the pool was shut down", Name(task))]
    ShutDown {
        /// The task.
        task: String,
    },
    /// This process was forked from the one that built the pool, and has none of its workers and threads.
    #[error(
        "cannot submit `{}`: the pool is of another process; after a fork, the child builds a pool of its own",
        Name(task)
    )]
    OtherProcess {
        /// The task.
        task: String,
    },
    /// A worker died; the pool takes no more tasks.
    #[error(transparent)]
    Broken(#[from] BrokenPool),
}

/// The reason why one item of a [`Map`](crate::pool::Map) has no result. The others go on.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// It could not be submitted.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// It failed.
    #[error(transparent)]
    Task(#[from] TaskFailure),
    /// The time of the whole map ran out; nothing follows.
    #[error("the map was not done within {limit:?}")]
    Timeout {
        /// [`Map::timeout`](crate::pool::Map::timeout).
        limit: Duration,
    },
}

/// The time given to a `*_timeout` method ran out; the task goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
#[error("task {task} was not done within {waited:?}")]
pub struct WaitTimeout {
    /// The task.
    pub task: TaskId,
    /// The time that was waited.
    pub waited: Duration,
}

impl BuildError {
    /// Returns the error's name for programs to branch on. Names are never changed.
    pub fn kind(&self) -> &'static str {
        match self {
            BuildError::InitMissing => "init_missing",
            BuildError::NoEngine => "no_engine",
            BuildError::NestedInit => "nested_init",
            BuildError::Workers { .. } => "workers",
            BuildError::Setting { .. } => "setting",
            BuildError::NoSeccomp => "no_seccomp",
            BuildError::SandboxRefused { .. } => "sandbox_refused",
            BuildError::SandboxHole { .. } => "sandbox_hole",
            BuildError::PagemapScan { .. } => "pagemap_scan",
            BuildError::Directory { .. } => "directory",
            BuildError::CacheDir { .. } => "cache_dir",
            BuildError::WorkerProgram { .. } => "worker_program",
            BuildError::System { .. } => "system",
        }
    }
}

impl ShareError {
    /// Returns the error's name for programs to branch on. Names are never changed.
    pub fn kind(&self) -> &'static str {
        match self {
            ShareError::TooLarge { .. } => "share_too_large",
            ShareError::OtherProcess => "other_process",
            ShareError::TooMany { .. } => "too_many_shared",
            ShareError::System { .. } => "system",
        }
    }
}

impl MapError {
    /// Returns the error's name for programs to branch on: that of the error inside, or `map_timeout`. Names are
    /// never changed.
    pub fn kind(&self) -> &'static str {
        match self {
            MapError::Submit(error) => error.kind(),
            MapError::Task(failure) => failure.kind(),
            MapError::Timeout { .. } => "map_timeout",
        }
    }
}

impl SubmitError {
    /// Returns the error's name for programs to branch on, as the command's JSON has it. Names are never changed.
    pub fn kind(&self) -> &'static str {
        match self {
            SubmitError::Encode { .. }
            | SubmitError::Unrepresentable { .. }
            | SubmitError::StdinTaken { .. }
            | SubmitError::StdinReadOnce { .. } => "input",
            SubmitError::InputTooLarge { .. } => "input_too_large",
            SubmitError::NoRoomInMap { .. } => "no_room_in_map",
            SubmitError::QueueFull { .. } => "queue_full",
            SubmitError::NotMetered { .. } => "not_metered",
            SubmitError::NotDeterministic { .. } => "not_deterministic",
            SubmitError::DirsNotDeterministic { .. } => "not_deterministic",
            SubmitError::ForeignModule { .. } => "foreign_module",
            SubmitError::ForeignShared { .. } => "foreign_shared",
            SubmitError::TooManyShared { .. } => "too_many_shared",
            SubmitError::ShutDown { .. } => "pool_closed",
            SubmitError::OtherProcess { .. } => "other_process",
            SubmitError::Broken(_) => "broken_pool",
        }
    }
}

#[cfg(test)]
mod tests;
