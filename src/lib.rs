//! `wasmpool` is `concurrent.futures` for code you do not trust: a pool of worker
//! **processes**, each hosting a wasmtime engine, that runs tasks compiled to WebAssembly.
//!
//! ```text
//!  caller's thread        |  host process (the pool)                  |  worker process (one per slot)
//!                         |                                           |
//!  Pool::submit ─ encode ─┼─► dispatch (pure) ─► link ─► ring/socket ─┼─► main_loop ─► instance (wasmtime)
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
//! (`task`, [`limits`], [`error`](TaskError), the schema and module descriptions), what the caller
//! holds (the pool and its futures), the decisions (`dispatch`, pure), the effects
//! (`host`), what both sides share (`wire`), and the children (`compile`, `worker`,
//! `sandbox`). ARCHITECTURE.md says who may know whom, and where each promise is kept.

#[cfg(not(target_os = "linux"))]
compile_error!("wasmpool needs Linux: memfd, pidfd and futexes across processes");

mod task;
mod options;
mod report;
mod command;
mod id_map;
mod ewma;
mod imports;
pub mod limits;
mod text;
mod kernel;
mod refused;
mod slice;
mod foreign;
mod sync;
mod fork;
#[cfg_attr(
    not(feature = "cli"),
    allow(dead_code, unused_imports, reason = "only the command writes files, and walks through folders")
)]
mod files;
mod policy;
mod walls;
mod directory;
mod shortage;
mod trap;
mod probe;
mod doctor;
mod observe;
mod octets;
mod error;
mod schema;
mod artifact;
mod guest;
mod description;
mod module;
mod held;
mod shared;
mod stdin;

mod pool;
mod account;
mod future;
pub mod python;
#[cfg(feature = "metrics")]
pub mod numbers;

mod dispatch;
mod host;

mod wire;
mod role;
mod roles;
mod engine;
mod compile;
mod sandbox;
mod worker;

#[cfg(feature = "cli")]
mod internal;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;

pub use command::CommandInput;
pub use description::{
    Codec, Interrupt, MemoryDescription, ModuleDescription, ModuleKind, ModuleOutline, TaskDescription,
};
pub use directory::DirAccess;
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
pub use limits::compile::{CompileLimit, CompileLimits};
pub use module::{Callable, Command, Digest, Module, ModuleOptions, RawTask, Task};
pub use observe::{
    Ended, EventKind, LeaveReason, PoolEvent, PoolStats, TaskOutcome, WorkerState, WorkerStats,
};
pub use options::{Isolation, TaskOptions};
pub use policy::{DropPolicy, OnWorkerDeath, Replacement, Retry};
pub use pool::{Events, Map, MapError, Pool, PoolBuilder, ShutdownMode, SubmitAsync, UnorderedMap};
pub use probe::AttackOutcome;
pub use report::{CommandOutput, PartialOutput, TaskReport};
pub use roles::init;
pub use schema::{Schema, SchemaError};
pub use shared::Shared;
pub use shortage::{Scarce, Shortage};
pub use task::{LogOverflow, Refusal, RefusalKind, Refusals, TaskId};
pub use trap::{Frame, TrapCode};
pub use walls::{LayerReport, SandboxLayer, SandboxPolicy, SandboxReport};

/// Bytes that are cheap to clone: inputs and outputs of untyped tasks.
pub use bytes::Bytes;
/// For `#[derive(postcard_schema::Schema)]` on the types of typed tasks.
pub use postcard_schema;
