//! The `wasmpool` command, run as its users run it.

#![cfg(feature = "cli")]

#[path = "cli/harness.rs"]
mod harness;
#[path = "cli/map.rs"]
mod map;
#[path = "cli/modules.rs"]
mod modules;
#[path = "cli/run.rs"]
mod run;
