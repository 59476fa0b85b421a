//! What the future cell synchronises with. It is named here, and nowhere else in the cell, so
//! that `tests/model` can put loom's in its place and try every interleaving.

pub(crate) use std::sync::atomic::{AtomicU8, Ordering};
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

pub(crate) use crossbeam_channel::Sender;
