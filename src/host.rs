//! The effects: processes, rings, timers, logs. Nothing is decided here, but in `scheduler`.
//!
//! | thread | does |
//! |---|---|
//! | any caller's | submits: handles the event, writes the frame to the worker's ring itself |
//! | `wasmpool-link-N`, one a worker | reads that worker's ring, completes futures, hands out the next task |
//! | `wasmpool-supervisor`, one a pool | starts and reaps processes, reads their sockets and stderr, keeps the one timer |
//! | `wasmpool-callbacks`, one a pool | runs done callbacks |
//! | `wasmpool-wakers`, one a pool | wakes the tasks of executors |

pub(crate) mod asks;
pub(crate) mod batch;
pub(crate) mod cache;
pub(crate) mod cgroup;
pub(crate) mod compile;
pub(crate) mod completion;
pub(crate) mod core;
mod cpu;
mod descriptors;
mod domains;
pub(crate) mod dirs;
mod effects;
pub(crate) mod invocation;
pub(crate) mod doctor;
pub(crate) mod link;
mod logs;
pub(crate) mod memory;
mod observers;
mod poll_set;
pub(crate) mod priority;
pub(crate) mod request;
pub(crate) mod requests;
mod resident;
pub(crate) mod sent;
pub(crate) mod settings;
pub(crate) mod spawn;
pub(crate) mod supervise;
mod usage;

pub(crate) use self::core::Core;

pub(crate) use self::observers::Subscription;

use std::cell::Cell;

thread_local! {
    static IS_IO_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as one that the pool's progress depends on, or that of an executor.
pub(crate) fn become_io_thread() {
    IS_IO_THREAD.set(true);
}

/// Returns whether waiting for the pool on this thread would be waiting for oneself, or hold up an executor:
/// destructors of inputs and wakers run on such threads, and may drop the last handle of the pool.
pub(crate) fn is_io_thread() -> bool {
    IS_IO_THREAD.get()
}
