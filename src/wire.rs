//! The part that both sides of the process boundary share: rings, frames, messages, sockets.
//!
//! Knows nothing of pools, futures or wasm. The other side may be hostile: whatever it
//! wrote is copied out before it is looked at, and a length is checked before it is used.

pub(crate) mod bell;
pub(crate) mod control;
pub(crate) mod fingerprint;
pub(crate) mod frame;
pub(crate) mod inbox;
pub(crate) mod memfd;
pub(crate) mod message;
pub(crate) mod ring;
pub(crate) mod spin;
pub(crate) mod turn;
