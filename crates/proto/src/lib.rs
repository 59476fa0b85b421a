//! This crate is what both sides of the process boundary share: the vocabulary of tasks and modules, and the wire.
//!
//! Knows no pool, no engine and no policy of either side; nothing here starts a process or opens a file of a user's.
//! The other side may be hostile: whatever it wrote is copied out before it is looked at, and a length is checked
//! before it is used.
//!
//! # Reading order
//! Bounds and words that everything else uses (`limits` to `text`), what a task and a module are (`task` to `probe`),
//! how guests' bytes are read (`guest`), and then the wire: messages, frames, rings, the control socket, and how a
//! reader sleeps.

pub mod limits;
pub mod imports;
pub mod text;
pub mod refused;
pub mod kernel;
pub mod slice;
pub mod sync;

pub mod payload;
pub mod task;
pub mod schema;
pub mod description;
pub mod trap;
pub mod shortage;
pub mod policy;
pub mod preopen;
pub mod probe;
pub mod guest;
pub mod artifact;
pub mod safepoints;
pub mod lines;

pub mod role;
pub mod fingerprint;
pub mod message;
pub mod frame;
pub mod inbox;
pub mod memfd;
pub mod control;
pub mod ring;
pub mod event_count;
pub mod spin;
pub mod reader_lock;
