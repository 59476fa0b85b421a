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

// The machine around it.
mod scarce;
mod cgroup;
mod isolation;
