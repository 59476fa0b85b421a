//! Compares generated and mutated modules with safepoints against the same modules without, and prints what came of
//! them.
//!
//! This is the fuzz target of `compile/safepoints.rs`, driven by seeds: a libFuzzer target would need wasmtime with
//! coverage, which the packages of `fuzz/` do without.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use corpora::differential::{Campaign, Settings, cases};
use corpora::smith::{Source, prebuilt};
use indicatif::{ProgressBar, ProgressStyle};

/// Modules with safepoints against the same modules without.
#[derive(Parser)]
struct Args {
    /// Names the sequence of modules.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The first module of the sequence.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// The number of modules.
    #[arg(long, default_value_t = 1000)]
    count: u64,
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
    let source = Source::start(args.seed, args.first, args.count, files)?;
    let bar = ProgressBar::new(args.count);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed}, {per_sec}, {eta} left")?);
    let summary = Campaign::run(&source, &Settings { keep: args.keep }, || {
        bar.inc(1);
        // A log has no bar.
        if bar.is_hidden() && bar.position().is_multiple_of(1000) {
            eprintln!("{} of {}, {:.0} s", bar.position(), args.count, bar.elapsed().as_secs_f64());
        }
    })?;
    bar.finish_and_clear();
    println!("{summary}");
    match summary.check() {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(wrong) => {
            println!("{wrong}");
            Ok(ExitCode::FAILURE)
        }
    }
}
