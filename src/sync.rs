//! The synchronisation that the future cell uses: what the wire uses, and the channel of those who wait for many futures.

pub(crate) use crossbeam_channel::Sender;
pub(crate) use proto::sync::{AtomicU8, Condvar, Mutex, MutexGuard, Ordering};
