//! Measures how soon code that computes is stopped: each kernel and each interpreter is aborted at random moments of its
//! run, and the time until its future has resolved is taken. Counts those that did not heed, whose worker had to be
//! killed.
//!
//! An interpreter's run begins with its own start, which is a part of it like the loop that follows. The script
//! `peers/venv` brings the interpreters; one that is missing is left out, and the reason is printed.
//!
//! `cargo bench -p benches --bench interrupts`; `-- --moments 100000` takes as many in each, `--only NAME` one of them.

use std::path::Path;
use std::time::{Duration, Instant};

use benches::interpreters::{Interpreters, Loop};
use rand_xoshiro::Xoshiro256StarStar;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};
use wasmpool::error::SubmitError;
use wasmpool::task::CommandInput;
use wasmpool::{Pool, TaskError, TaskFuture};

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

/// An interpreter, how its program is made, and a loop that runs for some milliseconds in it.
const INTERPRETERS: [(&str, MakeProgram, Loop); 2] =
    [("quickjs", quickjs, Loop(50_000)), ("cpython", cpython, Loop(20_000))];

type MakeProgram = fn(&Interpreters, Loop) -> anyhow::Result<Program>;

/// A command's module, and what it is given.
type Program = (Vec<u8>, CommandInput);

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
    let is_wanted = |name: &str| arguments.only.as_deref().is_none_or(|only| only == name);
    let pool = Pool::builder().workers(1).build()?;
    let kernels = pool.load_file(benches::prebuilt("kernels"))?;
    println!(
        "{:<10} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>5}",
        "code", "moments", "runs for", "p50", "p99", "p99.9", "most", "killed", "goal"
    );
    for (name, size) in KERNELS.into_iter().filter(|(name, _)| is_wanted(name)) {
        let kernel = kernels.task::<u32, u64>(name)?;
        row(name, arguments.moments, || pool.submit(&kernel, &size))?;
    }
    let wanted: Vec<_> = INTERPRETERS.into_iter().filter(|(name, ..)| is_wanted(name)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let found = Interpreters::find(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers"));
    for (name, program, turns) in wanted {
        let (wasm, input) = match program(&found, turns) {
            Ok(program) => program,
            Err(why) => {
                println!("{name:<10} is left out: {why:#}");
                continue;
            }
        };
        let command = pool.load(&wasm)?.command()?;
        let printed = pool.submit(&command, &input)?.result()?.stdout;
        anyhow::ensure!(printed == turns.prints(), "{name} printed {printed:?}");
        row(name, arguments.moments, || pool.submit(&command, &input))?;
    }
    Ok(())
}

fn cpython(found: &Interpreters, turns: Loop) -> anyhow::Result<Program> {
    let input = CommandInput::new().args(["-c", &turns.python()]);
    Ok((std::fs::read(found.cpython()?)?, input))
}

fn quickjs(found: &Interpreters, turns: Loop) -> anyhow::Result<Program> {
    Ok((found.quickjs(&turns.javascript())?, CommandInput::new()))
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
    /// One run, if nobody stops it.
    whole: Duration,
    /// From each abort until the future had resolved.
    times: Vec<Duration>,
    killed: usize,
}

/// Stops code at so many moments of its runs, each of which `submit` begins, and prints how long that took.
fn row<O>(
    name: &str,
    moments: usize,
    submit: impl Fn() -> Result<TaskFuture<O>, SubmitError>,
) -> anyhow::Result<()> {
    let mut seen = stopped(moments, submit)?;
    seen.times.sort_unstable();
    let at = |share: f64| seen.times[((seen.times.len() as f64 * share) as usize).min(seen.times.len() - 1)];
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
    Ok(())
}

fn stopped<O>(
    moments: usize,
    submit: impl Fn() -> Result<TaskFuture<O>, SubmitError>,
) -> anyhow::Result<Seen> {
    let mut runs = Vec::new();
    for _ in 0..20 {
        let future = submit()?;
        future.result()?;
        runs.extend(future.report().map(|report| report.run));
    }
    runs.sort_unstable();
    let whole = runs[runs.len() / 2];
    let mut seen = Seen { whole, times: Vec::with_capacity(moments), killed: 0 };
    let mut random = Xoshiro256StarStar::seed_from_u64(7);
    while seen.times.len() < moments {
        let moment = whole.mul_f64(random.next_u64() as f64 / u64::MAX as f64);
        let future = submit()?;
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
