//! The synchronisation that the future cell and the link's readers use: what the wire uses, and the channel of those who
//! wait for many futures. Under `--cfg wasmpool_loom` all of it is loom's, or modelled by what is loom's.

#[cfg(wasmpool_loom)]
mod channel;

#[cfg(wasmpool_loom)]
pub(crate) use channel::{Receiver, Sender, unbounded};
#[cfg(not(wasmpool_loom))]
pub(crate) use crossbeam_channel::{Receiver, Sender, unbounded};
pub(crate) use proto::sync::{AtomicBool, AtomicU8, Condvar, Mutex, MutexGuard, Ordering};
