//! `wasmpool bench`: one's own task, its latency and throughput at each isolation level.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use super::args::{self, BenchArgs, Target};
use super::call::{Call, CallFuture, CallOutput};
use super::console::{self, Console};
use super::exit::{Exit, Failure};
use super::input::{self, InputArg};
use super::interrupt;
use super::object::Object;
use super::settings::{self, Settings};
use super::trace::Trace;
use proto::refused::calling;
use wasmpool::pool::ShutdownMode;
use wasmpool::task::Isolation;
use wasmpool::{Module, Pool, TaskOptions};

/// The levels that can be measured, and how they are typed.
const LEVELS: [(&str, Isolation, args::Level); 2] = [
    ("instance", Isolation::Instance, args::Level::Instance),
    ("reuse", Isolation::Reuse, args::Level::Reuse),
];

/// Calls before anything counts: the worker is started, the module mapped.
const WARM_UP: usize = 10;

/// Calls that are measured one at a time, at most.
const SAMPLES_MAX: usize = 200_000;

/// Calls under way for each worker, where throughput is measured.
const AHEAD_PER_WORKER: usize = 16;

/// Width of the longest bar.
const PLOT_COLUMNS: usize = 40;

/// The plot has at most this many rows; each row is a doubling.
const PLOT_ROWS_MAX: usize = 12;

/// The measurements at one level.
struct Level {
    name: &'static str,
    /// They are sorted.
    latencies_ns: Vec<u64>,
    calls: u64,
    took: Duration,
}

pub(super) fn bench(args: &BenchArgs, settings: &Settings, console: &Console) -> Result<Exit, Failure> {
    let target = &args.target;
    if target.profile.is_some() {
        let message = "bench makes no --profile, which would be of its many calls: run and map make one";
        return Err(Failure::Usage(message.into()));
    }
    let pool = settings.pool_for(target, Pool::builder(), None)?;
    let trace = Trace::begin(target, &settings.files, &pool)?;
    let module = settings::load(&pool, &target.module, settings::module_options(target)?)?;
    let options = settings::shared_options(&pool, target, &settings.files)?;
    let measured =
        stopped_by_signals(&pool, || measure_all(args, settings, console, &pool, &module, &options));
    if measured.is_err() {
        pool.kill();
    }
    pool.shutdown(ShutdownMode::Finish);
    trace.map_or(Ok(()), |trace| trace.end(console))?;
    // A call that fails once a signal has asked for the end fails because of that, and nobody need be told.
    if let Some(exit) = interrupt::exit() {
        return Ok(exit);
    }
    let levels = measured?;
    let workers = pool.workers_max();
    if args.json {
        console::print_line(&to_json(module.name(), workers, &levels))?;
    } else {
        let mut page = String::new();
        // Writing to a String cannot fail.
        let _ = write_page(&mut page, workers, &levels);
        console::write_stdout(page.as_bytes())?;
    }
    Ok(Exit::Success)
}

/// A signal stops what runs; what was asked for beside the work is written all the same.
pub(super) fn stopped_by_signals<T>(
    pool: &Pool,
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let signals = interrupt::listen();
    let stopped = pool.clone();
    let stop = move || signals.iter().for_each(|_| stopped.kill());
    let thread = std::thread::Builder::new().name("wasmpool-stop".into()).spawn(stop);
    let cannot = |error| Failure::Internal(format!("cannot stop the work on a signal: {error}"));
    thread.map_err(calling("start a thread")).map_err(cannot)?;
    work()
}

fn measure_all(
    args: &BenchArgs,
    settings: &Settings,
    console: &Console,
    pool: &Pool,
    module: &Module,
    options: &TaskOptions,
) -> Result<Vec<Level>, Failure> {
    let target = &args.target;
    let mut levels = Vec::new();
    for (name, isolation, level) in LEVELS {
        if target.isolation.is_some_and(|wanted| wanted != level) {
            continue;
        }
        let call = Call::resolve(pool, module, target, options.clone().isolation(isolation))?;
        // A command's instance ends with it.
        if isolation == Isolation::Reuse && call.description().is_none() {
            continue;
        }
        if !settings.quiet {
            console.say(&format!(
                "measuring {name}: {:?} for latency, {:?} for throughput",
                args.time, args.time
            ));
        }
        let given = given(target, (args.input.as_deref(), args.input_file.as_deref()), &call, settings)?;
        levels.push(measure(name, &call, &given, pool, args.time)?);
    }
    Ok(levels)
}

/// Returns the input that was typed, or that of the file: stdin is not read.
pub(super) fn given(
    target: &Target,
    (typed, file): (Option<&str>, Option<&Path>),
    call: &Call,
    settings: &Settings,
) -> Result<InputArg, Failure> {
    let bytes_max = settings::input_bytes_max(target);
    let has_input = typed.is_some() || file.is_some();
    let arguments = target.words();
    if let Some(given) =
        input::of_arguments(call.description(), target.wave(), &arguments, has_input, bytes_max)?
    {
        return Ok(given);
    }
    Ok(match (typed, file) {
        (Some(text), _) => input::typed_input(text, bytes_max)?,
        (None, Some(path)) => InputArg::Content(input::read_file(&settings.files, path, bytes_max)?),
        (None, None) => InputArg::Nothing,
    })
}

fn measure(
    name: &'static str,
    call: &Call,
    given: &InputArg,
    pool: &Pool,
    time: Duration,
) -> Result<Level, Failure> {
    for _ in 0..WARM_UP {
        finish(&call.submit(given.clone(), None, None)?)?;
    }
    let mut latencies_ns = Vec::new();
    let began = Instant::now();
    while latencies_ns.is_empty() || (began.elapsed() < time && latencies_ns.len() < SAMPLES_MAX) {
        let submitted = Instant::now();
        finish(&call.submit(given.clone(), None, None)?)?;
        latencies_ns.push(u64::try_from(submitted.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    latencies_ns.sort_unstable();
    let ahead = pool.workers_max() * AHEAD_PER_WORKER;
    let mut open = VecDeque::with_capacity(ahead);
    let mut calls = 0;
    let began = Instant::now();
    let mut took = Duration::ZERO;
    while took < time || calls == 0 {
        while open.len() < ahead {
            open.push_back(call.submit(given.clone(), None, None)?);
        }
        if let Some(first) = open.pop_front() {
            finish(&first)?;
            calls += 1;
        }
        took = began.elapsed();
    }
    open.iter().try_for_each(finish)?;
    Ok(Level { name, latencies_ns, calls, took })
}

/// Waits for a call, which must succeed: to measure failures would mislead.
fn finish(future: &CallFuture) -> Result<(), Failure> {
    match future.wait()? {
        CallOutput::Command(output) if output.exit_code != 0 => Err(Failure::Exited(format!(
            "the command exited with code {}: a benchmark wants calls that succeed",
            output.exit_code.cast_unsigned()
        ))),
        _ => Ok(()),
    }
}

impl Level {
    /// Returns a percentile by nearest rank.
    fn percentile_ns(&self, percent: usize) -> u64 {
        let rank = (self.latencies_ns.len() * percent).div_ceil(100).max(1);
        self.latencies_ns.get(rank - 1).copied().unwrap_or_default()
    }

    fn calls_per_second(&self) -> f64 {
        self.calls as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// Counts calls by how long they took, in doublings: the least that a bar's calls took, and how many they
    /// are.
    fn histogram(&self) -> Vec<(u64, usize)> {
        let mut bars: Vec<(u64, usize)> = Vec::new();
        for ns in &self.latencies_ns {
            let floor = 1_u64 << (*ns).max(1).ilog2();
            match bars.last_mut() {
                Some((last, count)) if *last == floor => *count += 1,
                _ => bars.push((floor, 1)),
            }
        }
        bars
    }
}

fn write_page(page: &mut String, workers: usize, levels: &[Level]) -> fmt::Result {
    writeln!(
        page,
        "{:<10}  {:>9}  {:>9}  {:>9}  {:>9}  {:>9}  {:>12}",
        "isolation", "p50", "p90", "p99", "max", "calls", "calls/s"
    )?;
    for level in levels {
        let [p50, p90, p99, max] = [50, 90, 99, 100].map(|percent| show_ns(level.percentile_ns(percent)));
        let samples = level.latencies_ns.len();
        let rate = level.calls_per_second();
        writeln!(
            page,
            "{:<10}  {p50:>9}  {p90:>9}  {p99:>9}  {max:>9}  {samples:>9}  {rate:>12.0}",
            level.name
        )?;
    }
    for level in levels {
        let bars = level.histogram();
        let most = bars.iter().map(|(_, count)| *count).max().unwrap_or(1);
        writeln!(page, "\n{}, one call at a time", level.name)?;
        for (floor, count) in bars.iter().take(PLOT_ROWS_MAX) {
            // The least of them is seen, too.
            let bar = "#".repeat((count * PLOT_COLUMNS / most).max(1));
            writeln!(page, "  from {:>8}  {bar:<PLOT_COLUMNS$}  {count}", show_ns(*floor))?;
        }
        if bars.len() > PLOT_ROWS_MAX {
            let rest: usize = bars.iter().skip(PLOT_ROWS_MAX).map(|(_, count)| count).sum();
            writeln!(page, "  longer: {rest}")?;
        }
    }
    writeln!(
        page,
        "\ncalls/s with {workers} workers kept busy; a figure means something only beside another of this run"
    )
}

pub(super) fn show_ns(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

fn to_json(module: &str, workers: usize, levels: &[Level]) -> String {
    let levels: Vec<_> = levels
        .iter()
        .map(|level| {
            let bars: Vec<_> =
                level.histogram().into_iter().map(|(floor, count)| vec![floor, count as u64]).collect();
            serde_json::json!({
                "isolation": level.name,
                "p50_ns": level.percentile_ns(50),
                "p90_ns": level.percentile_ns(90),
                "p99_ns": level.percentile_ns(99),
                "max_ns": level.percentile_ns(100),
                "calls": level.latencies_ns.len(),
                "calls_per_second": level.calls_per_second(),
                "histogram_ns": bars,
            })
        })
        .collect();
    Object::new()
        .field("ok", true)
        .field("module", module)
        .field("workers", workers)
        .field("levels", levels)
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(latencies_ns: Vec<u64>) -> Level {
        Level { name: "instance", latencies_ns, calls: 10, took: Duration::from_secs(2) }
    }

    #[test]
    fn percentiles_are_calls_that_were_measured() {
        let level = level((1..=200).collect());
        assert_eq!([50, 90, 99, 100].map(|percent| level.percentile_ns(percent)), [100, 180, 198, 200]);
        assert_eq!(level.calls_per_second(), 5.0);
    }

    #[test]
    fn a_bar_is_a_doubling_and_every_call_is_in_one() {
        let level = level(vec![0, 1, 2, 3, 4, 1000, 1023, 1024]);
        assert_eq!(level.histogram(), [(1, 2), (2, 2), (4, 1), (512, 2), (1024, 1)]);
        let mut page = String::new();
        write_page(&mut page, 2, &[level]).expect("writes");
        assert!(page.contains("from     1 ns") && page.contains("from   1.0 µs"), "{page}");
    }
}
