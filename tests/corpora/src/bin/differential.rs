//! Compares generated and mutated modules with safepoints against the same modules without, and prints what came of
//! them.
//!
//! This is the fuzz target of `compile/safepoints.rs`, driven by seeds: a libFuzzer target would need wasmtime with
//! coverage, which the packages of `fuzz/` do without.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use corpora::command::Modules;
use corpora::differential::{Campaign, Settings, cases};
use corpora::smith::{Source, prebuilt};

/// Modules with safepoints against the same modules without.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    modules: Modules,
    /// Mutates the modules of the repository as well, which are large, and not only those of the fixed cases.
    #[arg(long)]
    prebuilt: bool,
    /// The folder that keeps modules that do something else with safepoints.
    #[arg(long, default_value = "target/differential")]
    keep: PathBuf,
}

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let args = Args::parse();
    let mut files = cases::write_small(&args.keep.join("cases"))?;
    if args.prebuilt {
        files.extend(prebuilt()?);
    }
    let source = Source::start(args.modules.seed, args.modules.first, args.modules.count, files)?;
    let campaign = |done: &(dyn Fn() + Sync)| Campaign::run(&source, &Settings { keep: args.keep }, done);
    args.modules.watch(campaign, |summary| summary.check().err())
}
