//! The pool, its floors and its peers in one run, in interleaved rounds: `cargo bench --bench peers`.
//!
//! A figure means something only beside another from the same run, so what counts is the ratio. The
//! floors are written here; the peers come from the Python package index, and what cannot be had is
//! named. Goals are those of two workers on two CPUs.
//!
//! - `-- --only NAME` runs the works whose names contain it; may be given several times
//! - `-- --rounds N` instead of 5
//! - `-- --json FILE` writes the rows there as well
//! - `-- --pagemap-scan` has workers and floors find written pages by a scan
//! - `-- --allocations` adds what the host allocates for a task, and how often it sleeps
//! - `-- --list` prints the works

mod work;
mod table;
mod json;
mod floors;
mod crowd;
mod engine;
mod native;
mod ours;
mod peers;
mod allocations;
mod works;

use std::path::PathBuf;

use anyhow::Context;

use ours::WORKERS;
use works::Bench;

#[derive(Debug)]
struct Arguments {
    only: Vec<String>,
    rounds: usize,
    json: Option<PathBuf>,
    pagemap_scan: bool,
    allocations: bool,
    list: bool,
}

fn arguments() -> anyhow::Result<Option<Arguments>> {
    let mut parsed = Arguments {
        only: Vec::new(),
        rounds: 5,
        json: None,
        pagemap_scan: false,
        allocations: false,
        list: false,
    };
    // `cargo test --benches` runs this too, without that argument: it only has to start.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(None);
    }
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        let mut value = || given.next().with_context(|| format!("{argument} wants a value"));
        match argument.as_str() {
            "--bench" => {}
            "--only" => parsed.only.push(value()?),
            "--rounds" => parsed.rounds = value()?.parse::<usize>()?.max(1),
            "--json" => parsed.json = Some(value()?.into()),
            "--pagemap-scan" => parsed.pagemap_scan = true,
            "--allocations" => parsed.allocations = true,
            "--list" => parsed.list = true,
            _ => anyhow::bail!("unknown argument {argument}; see benches/peers/main.rs"),
        }
    }
    Ok(Some(parsed))
}

fn main() -> anyhow::Result<()> {
    wasmpool::init();
    if floors::answer_if_asked()? || crowd::call_if_asked()? {
        return Ok(());
    }
    let Some(arguments) = arguments()? else { return Ok(()) };
    let listed: Vec<_> = works::all(arguments.allocations)
        .into_iter()
        .filter(|(name, _)| {
            arguments.only.is_empty() || arguments.only.iter().any(|only| name.contains(only.as_str()))
        })
        .collect();
    if arguments.list {
        listed.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(());
    }
    if arguments.pagemap_scan
        && let Some(objection) = sandbox::pagemap::objection()
    {
        anyhow::bail!("no scan of the page map: {objection}");
    }
    std::fs::create_dir_all(ours::kept_dir())?;
    let bench = Bench::new(arguments.pagemap_scan);
    println!(
        "{WORKERS} workers each, {} rounds or more; medians unless said otherwise. ×floor: ours in floors. \
         ×peer: how many times better.",
        arguments.rounds
    );
    bench.peers.versions().iter().for_each(|version| println!("{version}"));
    println!("\n{}", table::heading());
    let mut rows = Vec::new();
    let mut missing = bench.peers.missing.clone();
    for (name, build) in &listed {
        match build(&bench) {
            Err(error) => missing.push(format!("{name}: {error:#}")),
            Ok(mut work) => {
                work.run(arguments.rounds);
                for row in table::rows(&work) {
                    println!("{}", table::shown(&row));
                    missing.extend(row.missing());
                    rows.push(row);
                }
            }
        }
        bench.peers.close();
        if let Some(path) = &arguments.json {
            // The file is written after each work, so that what was measured stays, whatever happens next.
            std::fs::write(path, json::list(&rows)).with_context(|| path.display().to_string())?;
        }
    }
    println!();
    rows.iter()
        .filter(|row| !row.title.is_empty())
        .for_each(|row| println!("{:<24} {}", row.name, row.title));
    if let Some((mean, count)) = table::geometric_mean(&rows, "native_") {
        println!(
            "\ngeometric mean of the {count} rows native_*, beside the same code without safepoints: {mean:.3}"
        );
    }
    println!("\nmissing: {}", if missing.is_empty() { "nothing" } else { "" });
    missing.iter().for_each(|what| println!("  {what}"));
    let count = |met| rows.iter().filter(|row| row.goal.is_some() && row.met == met).count();
    println!("goals: {} met, {} not met, {} unknown", count(Some(true)), count(Some(false)), count(None));
    Ok(())
}
