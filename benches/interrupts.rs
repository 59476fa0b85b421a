//! Measures how soon code that computes is stopped: each kernel is aborted at random moments of its run, and the time
//! until its future has resolved is taken. Counts those that did not heed, whose worker had to be killed.
//!
//! `cargo bench -p benches --bench interrupts`; `-- --moments 100000` takes as many in each kernel, `--only NAME` one of
//! them.

use std::time::{Duration, Instant};

use rand_xoshiro::Xoshiro256StarStar;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};
use wasmpool::module::Task;
use wasmpool::{Pool, TaskError};

/// A task of the guest `kernels`, and a size with which it runs for some two milliseconds.
const KERNELS: [(&str, u32); 8] = [
    ("sieve", 1_000_000),
    ("matrix", 150),
    ("sha256", 1_000),
    ("sort", 100_000),
    ("json", 2_000),
    ("search", 100),
    ("interpret", 70_000),
    ("fibonacci", 30),
];

const MOMENTS: usize = 2_000;

/// The goal for all but one of a thousand (`PEERS` of the project's goals).
const MOST: Duration = Duration::from_millis(1);

struct Arguments {
    moments: usize,
    only: Option<String>,
}

fn main() -> anyhow::Result<()> {
    wasmpool::init();
    let Some(arguments) = arguments()? else { return Ok(()) };
    let pool = Pool::builder().workers(1).build()?;
    let module = pool.load_file(benches::prebuilt("kernels"))?;
    println!(
        "{:<10} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>5}",
        "kernel", "moments", "runs for", "p50", "p99", "p99.9", "most", "killed", "goal"
    );
    for (name, size) in KERNELS {
        if arguments.only.as_deref().is_some_and(|only| only != name) {
            continue;
        }
        let kernel = module.task::<u32, u64>(name)?;
        let mut seen = stopped(&pool, &kernel, size, arguments.moments)?;
        seen.times.sort_unstable();
        let at =
            |share: f64| seen.times[((seen.times.len() as f64 * share) as usize).min(seen.times.len() - 1)];
        let shown = |time: Duration| format!("{:.0} µs", time.as_secs_f64() * 1e6);
        println!(
            "{name:<10} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>5}",
            seen.times.len(),
            shown(seen.whole),
            shown(at(0.5)),
            shown(at(0.99)),
            shown(at(0.999)),
            shown(at(1.0)),
            seen.killed,
            if at(0.999) <= MOST && seen.killed == 0 { "met" } else { "NOT" },
        );
    }
    Ok(())
}

/// `None`: `cargo test --benches` runs this too, without `--bench`, and then it only has to start.
fn arguments() -> anyhow::Result<Option<Arguments>> {
    let mut given = std::env::args().skip(1);
    let mut parsed = Arguments { moments: MOMENTS, only: None };
    let mut is_bench = false;
    while let Some(argument) = given.next() {
        let mut value = || given.next().ok_or_else(|| anyhow::anyhow!("{argument} needs a value"));
        match argument.as_str() {
            "--bench" => is_bench = true,
            "--moments" => parsed.moments = value()?.parse::<usize>()?.max(1),
            "--only" => parsed.only = Some(value()?),
            _ => anyhow::bail!("unknown argument {argument}; see benches/interrupts.rs"),
        }
    }
    Ok(is_bench.then_some(parsed))
}

struct Seen {
    /// The kernel's run, if nobody stops it.
    whole: Duration,
    /// From each abort until the future had resolved.
    times: Vec<Duration>,
    killed: usize,
}

fn stopped(pool: &Pool, kernel: &Task<u32, u64>, size: u32, moments: usize) -> anyhow::Result<Seen> {
    let mut runs = Vec::new();
    for _ in 0..20 {
        let future = pool.submit(kernel, &size)?;
        future.result()?;
        runs.extend(future.report().map(|report| report.run));
    }
    runs.sort_unstable();
    let whole = runs[runs.len() / 2];
    let mut seen = Seen { whole, times: Vec::with_capacity(moments), killed: 0 };
    let mut random = Xoshiro256StarStar::seed_from_u64(7);
    while seen.times.len() < moments {
        let moment = whole.mul_f64(random.next_u64() as f64 / u64::MAX as f64);
        let future = pool.submit(kernel, &size)?;
        std::thread::sleep(moment);
        let asked = Instant::now();
        future.abort();
        let result = future.result();
        let took = asked.elapsed();
        // A run that has ended by itself was not stopped.
        if let Err(failure) = result {
            match failure.error() {
                TaskError::Aborted { killed, .. } => {
                    seen.killed += usize::from(*killed);
                    seen.times.push(took);
                }
                // It had not begun.
                TaskError::Cancelled => {}
                _ => anyhow::bail!("{failure}"),
            }
        }
    }
    Ok(seen)
}
