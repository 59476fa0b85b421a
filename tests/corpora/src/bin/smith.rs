//! Runs generated, mutated and damaged modules through pools, and prints what came of them.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use corpora::smith::{Campaign, Settings, Source, prebuilt};
use indicatif::{ProgressBar, ProgressStyle};

/// Modules that nobody wrote, through a pool: the host must live, and every outcome have a name.
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
    /// Modules before a pool makes room for the next one. Default: 2000, or what there are
    /// descriptors for.
    #[arg(long)]
    per_pool: Option<u64>,
    /// Worker processes. Default: one a CPU.
    #[arg(long)]
    workers: Option<usize>,
    /// Threads that load. Default: one more than CPUs.
    #[arg(long)]
    loaders: Option<usize>,
    /// The folder that keeps modules with an unexplained outcome.
    #[arg(long, default_value = "target/smith")]
    keep: PathBuf,
}

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    wasmpool::init();
    let room = corpora::pool::raise_descriptor_limit();
    let args = Args::parse();
    let cpus = std::thread::available_parallelism()?.get();
    let settings = Settings {
        workers: args.workers.unwrap_or(cpus),
        loaders: args.loaders.unwrap_or(cpus + 1),
        modules_per_pool: args.per_pool.unwrap_or(room.min(2000)),
        keep: args.keep,
    };
    let source = Source::start(args.seed, args.first, args.count, prebuilt()?)?;
    let bar = ProgressBar::new(args.count);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed}, {per_sec}, {eta} left")?);
    let summary = Campaign::run(&source, &settings, || {
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
