//! `wasmpool` is `concurrent.futures` for code you do not trust: a pool of worker
//! **processes**, each hosting a wasmtime engine, that runs tasks compiled to WebAssembly.
//!
//! ```text
//!  caller's thread        |  host process (the pool)                  |  worker process (one per slot)
//!                         |                                           |
//!  Pool::submit ─ encode ─┼─► scheduler (pure) ─► link ─► ring/socket ─┼─► main_loop ─► instance (wasmtime)
//!                         |                                           |                    │ fresh Store per task
//!  TaskFuture ◄───────────┼── completion ◄──── link reader ◄──────────┼── outcome ◄────────┘
//!                         |                                           |
//!                         |  compiler process: wasm bytes in, machine code out (sealed memfd), then gone
//! ```
//!
//! The host process never parses, compiles or runs wasm: it sees bytes, digests and
//! frames. A trap is an ordinary task error; the unexpected death of a worker breaks the
//! pool, as in Python.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! fn main() -> anyhow::Result<()> {
//!     wasmpool::init();
//!     let pool = wasmpool::Pool::builder().workers(4).timeout(Duration::from_secs(5)).build()?;
//!     let module = pool.load_file("guest-tasks/prebuilt/primes.wasm")?;
//!     let count = module.task::<u64, u64>("count")?;
//!     let future = pool.submit(&count, &1_000_000)?;
//!     println!("{}", future.result()?);
//!     for primes in pool.map(&count, 1..=100u64) {
//!         println!("{}", primes?);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! Those who know Python's module start at [Coming from `concurrent.futures`](python): each of its
//! names, and what differs.
//!
//! # Reading order
//! The modules below stand in the order in which a reader wants them: the vocabulary
//! (options, reports, [`limits`], [`error`](TaskError)), what the caller
//! holds (the pool and its futures), the decisions (`scheduler`, pure), the effects
//! (`host`). Below this crate stand what both sides of the process boundary share (`crates/proto`), the door to the
//! host's files (`crates/files`), the second wall (`crates/sandbox`) and the children (`crates/engine`). ARCHITECTURE.md
//! says who may know whom, and where each promise is kept.
//!
//! # Features
//! - `engine` (default) puts the engine into this very executable, for its workers. Without it, pools need
//!   [`PoolBuilder::worker_program`].
//! - `metrics` (default) is `Pool::publish_metrics`: the pool's numbers through the `metrics` facade.

#![warn(missing_debug_implementations, missing_docs)]

#[cfg(not(target_os = "linux"))]
compile_error!("wasmpool needs Linux: memfd, pidfd and futexes across processes");

pub mod limits;
mod options;
mod setting;
mod report;
mod command;
mod policy;
mod error;
mod doctor;
mod observe;
mod module;
mod shared_input;
mod stdin;

mod pool;
mod account;
mod future;
pub mod python;
#[cfg(feature = "metrics")]
pub mod metrics;

mod scheduler;
mod host;

mod init;
mod held;
mod fork;
mod panic_guard;
mod sync;
mod id_map;
mod ewma;
#[doc(hidden)]
pub mod internal;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;

pub use command::CommandInput;
pub use doctor::{AttackReport, DoctorReport};
pub use error::{
    BrokenPool, BuildError, Death, DeathCause, ModuleError, Phase, ShareError, SubmitError, TaskError,
    TaskFailure,
};
pub use future::{
    AsCompleted, AsCompletedTimeout, FutureState, ReturnWhen, TaskFuture, WaitTimeout, Waited, as_completed,
    as_completed_timeout, wait,
};
pub use host::doctor::Doctor;
pub use init::init;
pub use module::{Callable, Command, Digest, Module, ModuleOptions, RawTask, Task};
pub use observe::{
    EventKind, LeaveReason, PoolEvent, PoolStats, TaskCounts, TaskOutcome, WorkerState, WorkerStats,
};
pub use options::{Isolation, TaskOptions};
pub use policy::{DropPolicy, OnWorkerDeath, Replacement, Retry};
pub use pool::{Events, Map, MapError, Pool, PoolBuilder, ShutdownMode, SubmitAsync, UnorderedMap};
#[doc(inline)]
pub use proto::description::{
    Codec, Interrupt, MemoryDescription, ModuleDescription, ModuleKind, ModuleOutline, TaskDescription,
};
#[doc(inline)]
pub use proto::limits::compile::{CompileLimit, CompileLimits};
#[doc(inline)]
pub use proto::policy::{LayerReport, SandboxLayer, SandboxPolicy, SandboxReport};
#[doc(inline)]
pub use proto::preopen::DirAccess;
#[doc(inline)]
pub use proto::probe::AttackOutcome;
#[doc(inline)]
pub use proto::schema::{Schema, SchemaError};
#[doc(inline)]
pub use proto::shortage::{Scarce, Shortage};
#[doc(inline)]
pub use proto::task::{LogOverflow, Refusal, RefusalKind, Refusals, TaskId};
#[doc(inline)]
pub use proto::trap::{Frame, TrapCode};
pub use report::{CommandOutput, PartialOutput, TaskReport};
pub use shared_input::SharedInput;

/// Bytes that are cheap to clone: inputs and outputs of untyped tasks.
pub use bytes::Bytes;
/// For `#[derive(postcard_schema::Schema)]` on the types of typed tasks.
pub use postcard_schema;
