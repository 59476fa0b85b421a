//! A pool can be watched by its [events](crate::Pool::events) as they happen, and its
//! [numbers](crate::Pool::stats) at one moment.

pub use crate::observe::{
    EventKind, LeaveReason, PoolEvent, PoolStats, TaskCounts, TaskOutcome, WorkerState, WorkerStats,
};
pub use crate::pool::events::Events;
