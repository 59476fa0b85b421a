//! The targets: each takes any bytes, and panics where a promise is broken.

pub mod abi;
mod frames;
pub mod host_frames;
pub mod worker_frames;

/// A target's name, its function, and inputs that reach what it is about.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// All of them.
pub const ALL: &[Target] = &[
    ("abi", abi::run, abi::seeds),
    ("host_frames", host_frames::run, host_frames::seeds),
    ("worker_frames", worker_frames::run, worker_frames::seeds),
];
