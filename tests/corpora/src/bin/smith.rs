//! Runs generated, mutated and damaged modules through pools, and prints what came of them.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use corpora::command::Modules;
use corpora::smith::{Campaign, Settings, Source, prebuilt};

/// Modules that nobody wrote, through a pool: the host must live, and every outcome have a name.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    modules: Modules,
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
    let source = Source::start(args.modules.seed, args.modules.first, args.modules.count, prebuilt()?)?;
    let campaign = |done: &(dyn Fn() + Sync)| Campaign::run(&source, &settings, done);
    args.modules.watch(campaign, |summary| summary.check().err())
}
