//! The `wasmpool` command, run as its users run it.

#[path = "cli/harness.rs"]
mod harness;
#[path = "cli/bounds.rs"]
mod bounds;
#[path = "cli/cases.rs"]
mod cases;
#[path = "cli/commands.rs"]
mod commands;
#[path = "cli/dev.rs"]
mod dev;
#[path = "cli/doors.rs"]
mod doors;
#[path = "cli/ends.rs"]
mod ends;
#[path = "cli/files.rs"]
mod files;
#[path = "cli/joblog.rs"]
mod joblog;
#[path = "cli/logs.rs"]
mod logs;
#[path = "cli/map.rs"]
mod map;
#[path = "cli/modules.rs"]
mod modules;
#[path = "cli/owners.rs"]
mod owners;
#[path = "cli/places.rs"]
mod places;
#[path = "cli/poison.rs"]
mod poison;
#[path = "cli/reports.rs"]
mod reports;
#[path = "cli/run.rs"]
mod run;
#[path = "cli/signals.rs"]
mod signals;
#[path = "cli/swaps.rs"]
mod swaps;
#[path = "cli/say.rs"]
mod say;
#[path = "cli/scarce.rs"]
mod scarce;
#[path = "cli/streams.rs"]
mod streams;
#[path = "cli/trace.rs"]
mod trace;
#[path = "cli/tools.rs"]
mod tools;
#[path = "cli/uses.rs"]
mod uses;
#[path = "cli/words.rs"]
mod words;
