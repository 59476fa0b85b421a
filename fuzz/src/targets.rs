//! The targets: each takes any bytes, and panics where a promise is broken.

pub mod abi;
pub mod cache;
pub mod control;
pub mod description;
pub mod dwarf;
pub(crate) mod frames;
pub mod host_frames;
pub mod host_link;
pub mod section;
pub mod text;
pub mod worker_frames;

/// A target's name, its function, and inputs that reach what it is about.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// All of them.
pub const ALL: &[Target] = &[
    ("abi", abi::run, abi::seeds),
    ("cache", cache::run, cache::seeds),
    ("control", control::run, control::seeds),
    ("description", description::run, description::seeds),
    ("dwarf", dwarf::run, dwarf::seeds),
    ("host_frames", host_frames::run, host_frames::seeds),
    ("host_link", host_link::run, host_link::seeds),
    ("section", section::run, section::seeds),
    ("text", text::run, text::seeds),
    ("worker_frames", worker_frames::run, worker_frames::seeds),
];
