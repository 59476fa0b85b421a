//! Runs the specification's test-suite through one pool, and prints what came of it.
//!
//! `spec [PATH…]`: only the scripts whose path (`gc/array.wast`) contains one of the words.

use std::process::ExitCode;
use std::time::Instant;

use corpora::spec::{pool, run, scripts};
use indicatif::{ProgressBar, ProgressStyle};

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    wasmpool::init();
    corpora::pool::raise_descriptor_limit();
    let words: Vec<_> = std::env::args().skip(1).collect();
    let mut scripts = scripts();
    scripts.retain(|script| words.is_empty() || words.iter().any(|word| script.path().contains(word)));

    let cpus = std::thread::available_parallelism()?.get();
    let began = Instant::now();
    let pool = pool(cpus)?;
    let bar = ProgressBar::new(scripts.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed} {msg}")?);
    let tally = run(&pool, &scripts, cpus + 1, |script| {
        bar.set_message(script.path());
        bar.inc(1);
    });
    bar.finish_and_clear();

    let surprises = tally.surprises();
    for surprise in &surprises {
        println!("{surprise}");
    }
    println!("{tally}");
    let stats = pool.stats();
    println!(
        "{} tasks in {:.1} s by {cpus} workers; {} were replaced, since they held as many modules as they may",
        stats.submitted,
        began.elapsed().as_secs_f64(),
        stats.workers_recycled
    );
    if let Err(different) = corpora::pool::check(&pool) {
        println!("{different}");
        return Ok(ExitCode::FAILURE);
    }
    Ok(if surprises.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
