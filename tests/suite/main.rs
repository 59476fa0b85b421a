//! The suites that can share a process: each is a module, and `cargo test --test suite batches::` runs one. So the
//! engine is linked once for all of them.
//!
//! A test that changes or counts what is the whole process's (limits, signals, a subscriber, descriptors, memory)
//! runs in a process of its own (`support::is_own_process`). Suites that could not be made so stand beside this
//! folder, each with the reason in its head.

#[path = "../support/mod.rs"]
mod support;

// Tasks, from guests to what they return.
mod guests;
mod components;
mod functions;
mod json_codec;
mod modules;
mod inputs;
mod arguments;
mod commands;
mod stdin;
mod wasi;
mod dirs;
mod shared;
mod deterministic;
mod memory;
mod stack;
mod faults;
mod backtraces;
mod edges;

// The suites that are about WASI, once more with guests for its preview 0. Each has what it asserts in one place.
#[expect(clippy::duplicate_mod, reason = "the same tests, with other guests")]
#[path = "."]
mod preview0 {
    mod commands;
    mod deterministic;
    mod dirs;
    mod stdin;
    mod wasi;
}

// The pool: its order, limits and ends.
mod executors;
mod mapping;
mod batches;
mod steering;
mod interrupt;
mod safepoints;
mod cpu_time;
mod reuse;
mod domains;
mod drops;
mod lives;
mod forks;
mod conformance;

// Its words, and the things that it keeps.
mod reports;
mod metrics;
mod subscriber;
mod cache;
mod releases;
mod replacing;

// The machine around it.
mod scarce;
mod cgroup;
mod isolation;
