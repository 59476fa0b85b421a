//! Runs values of random types of the component model through components, and prints what came of them.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use corpora::command::Modules;
use corpora::components::{Campaign, Settings};

/// Values of the component model: JSON to a task and back, and the canonical ABI against wasmtime's own. Each module is a
/// component for one type.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    modules: Modules,
    /// Values of each type.
    #[arg(long, default_value_t = 200)]
    values: u64,
    /// Worker processes.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// The folder that keeps components whose values differ.
    #[arg(long, default_value = "target/values")]
    keep: PathBuf,
}

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    wasmpool::init();
    let Args { modules, values, workers, keep } = Args::parse();
    let Modules { seed, first, count } = modules;
    let settings = Settings { seed, first, count, values, workers, keep };
    modules.watch(|done| Campaign::run(&settings, done), |summary| summary.check().err())
}
