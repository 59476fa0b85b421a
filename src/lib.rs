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
//!     let module = pool.load_file("prebuilt/primes.wasm")?;
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
//! Readers who know Python's module start at [Coming from `concurrent.futures`](python): each of its
//! names, and what differs.
//!
//! # Where things are
//! At the root is what most programs name; the rest is in modules:
//!
//! | module | holds |
//! |---|---|
//! | [`pool`] | the pool, its builder and policies, its maps |
//! | [`module`] | modules, what they offer, and the handles by which tasks are called |
//! | [`task`] | options, inputs, reports and outputs of one task |
//! | [`future`] | results, now or later, and waiting for many |
//! | [`mod@error`] | what can go wrong, one type for each boundary |
//! | [`event`] | what happens in a pool, and its numbers |
//! | [`sandbox`] | the second wall, and attacks on it |
//! | [`limits`] | the defaults and bounds of what can be set |
//! | [`python`] | a page for those who come from `concurrent.futures` |
//!
//! # Reading order
//! The modules of this crate's source stand in the order in which a reader wants them: the vocabulary
//! (options, reports, [`limits`], [`mod@error`]), what the caller
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
pub mod error;
mod doctor;
mod observe;
pub mod module;
mod shared_input;
mod stdin;

pub mod pool;
pub mod future;
mod account;
pub mod task;
pub mod event;
pub mod sandbox;
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
mod serial;
mod schema;
#[doc(hidden)]
pub mod internal;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;

/// Bytes that are cheap to clone: inputs and outputs of untyped tasks.
#[doc(no_inline)]
pub use bytes::Bytes;
pub use error::{TaskError, TaskFailure};
pub use future::TaskFuture;
pub use init::init;
pub use module::{Command, Module, Task};
pub use pool::{Pool, PoolBuilder};
pub use task::TaskOptions;

/// The derive of `Schema` expands to code that names this.
#[doc(hidden)]
pub use postcard_schema;
#[doc(inline)]
pub use schema::Schema;
