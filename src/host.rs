//! The effects: processes, rings, timers, logs. Decides nothing: `dispatch` does.
//!
//! | thread | does |
//! |---|---|
//! | any caller's | submits: handles the event, writes the frame to the worker's ring itself |
//! | `wasmpool-link-N`, one a worker | reads that worker's ring, completes futures, hands out the next task |
//! | `wasmpool-supervisor`, one a pool | starts and reaps processes, reads control sockets and stderr, keeps the one timer |
//! | `wasmpool-callbacks`, one a pool | runs done callbacks |

pub(crate) mod compile;
pub(crate) mod core;
mod effects;
pub(crate) mod link;
mod logs;
pub(crate) mod spawn;
pub(crate) mod supervise;

pub(crate) use self::core::Core;
