//! Tests what callers write, and what they get: inputs that are borrowed, options in one way, results that are awaited,
//! and the words of events and reports for programs.

#[path = "../support/mod.rs"]
mod support;

mod awaiting;
mod calling;
mod words;
