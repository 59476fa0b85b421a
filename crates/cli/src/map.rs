//! `wasmpool map`: one call for each input, results in the order of the inputs or as they come.
//!
//! ```text
//!  feeder thread                                   this thread
//!  source ─► encode ─► submit ─► bounded channel ─► completions, signals ─► retries, order ─► stdout, log
//! ```
//!
//! The budget bounds what is ahead of the results: once it is used up, the feeder reads nothing more, so
//! neither an endless stdin nor a slow first task makes the memory grow. It counts the inputs' bytes, too,
//! since a few large files are as bad as many lines, and those of results: nothing is submitted unless its
//! largest result has room.
//!
//! A result is written, then recorded in the job log: what is recorded is never run again, and what
//! is not has at most been written.

mod source;
mod walk;
mod budget;
mod feed;
mod collect;
mod joblog;
mod outputs;
mod progress;
mod tally;
mod watch;

use std::sync::Arc;

use super::args::{Halt, MapArgs};
use super::call::Call;
use super::console::{self, Console, Lines};
use super::exit::{Exit, Failure};
use super::input;
use super::interrupt::{self, StopRequest};
use super::profile::Profile;
use super::settings::{self, Settings};
use super::trace::Trace;
use budget::Budget;
use collect::{Collector, Sources};
use joblog::{Done, JobLog};
use outputs::Outputs;
use progress::Progress;
use proto::refused::calling;
use source::{Reading, Source};
use tally::Tally;
use wasmpool::pool::{OnWorkerDeath, ShutdownMode};
use wasmpool::{Pool, PoolBuilder};

/// Calls ahead of the oldest one whose result is not out, for each worker. If it were an eighth, the feeder
/// and two workers would wait for each other: 100,000 tiny tasks a second in place of 180,000, measured.
const AHEAD_PER_WORKER: usize = 128;
const AHEAD_MIN: usize = 512;

/// The plan for each input.
#[derive(Debug)]
struct Plan {
    call: Call,
    /// Lines are JSON in any case.
    json: bool,
    done: Done,
    retries: u32,
    unordered: bool,
    halt: Halt,
}

/// Somebody is told this who gives a map arguments for its task.
const ONE_INPUT_EACH: &str =
    "a map calls its task once for each input: give the inputs by --files, or as lines of stdin";

pub(super) fn map(args: &MapArgs, settings: &Settings, console: &Console) -> Result<Exit, Failure> {
    if !args.target.task_args.is_empty() || args.target.wave().is_some() {
        return Err(Failure::Usage(ONE_INPUT_EACH.into()));
    }
    let source = Source::resolve(args, settings)?;
    if !settings.quiet {
        warn_of_inputs_left_out(&source, console);
    }
    let target = &args.target;
    let (log, done) = open_job_log(args, settings, console)?;
    let pool = settings.pool_for(target, builder(args), None)?;
    let module = settings::load(&pool, &target.module, settings::module_options(target)?)?;
    let call =
        Call::resolve(&pool, &module, target, settings::shared_options(&pool, target, &settings.files)?)?;
    if call.description().is_some() && !target.args.is_empty() {
        return Err(Failure::Usage(ONE_INPUT_EACH.into()));
    }
    check(&call, &source)?;
    let plan = Plan {
        call,
        json: matches!(source, Source::JsonLines),
        done,
        retries: args.retries,
        unordered: args.unordered,
        halt: args.halt,
    };
    let ahead = (pool.workers_max() * AHEAD_PER_WORKER).max(AHEAD_MIN);
    let (bytes_max, result_bytes_max) = plan.call.map_bytes_max(args.map_memory.map(|bytes| bytes.as_u64()));
    let budget = Budget::new(ahead, bytes_max, result_bytes_max, plan.call.least_result_bytes())?;
    let budget = Arc::new(budget);
    let reading = Reading { bytes_max: settings::input_bytes_max(target), console: console.clone() };
    if args.dry_run {
        return dry_run(&plan, module.name(), (source, &reading), settings.quiet, console);
    }
    let outputs = Outputs::open(args.output_dir.as_deref(), args.report, &settings.files, console)?;
    if args.resume || args.resume_failed {
        console::end_torn_line()?;
    }
    let signals = interrupt::listen();
    let profile = Profile::begin(target, &settings.files, &pool)?;
    let trace = Trace::begin(target, &settings.files, &pool)?;
    let progress = Progress::begin(args, settings.quiet, source.len().map(|len| len as u64), console);
    let plan = Arc::new(plan);
    let mut collector = Collector::new(&plan, &pool, &budget, (outputs, log), progress, console);
    let done = run(&mut collector, &signals, (&plan, source, reading), &budget);
    let is_closed_pipe = done.as_ref().is_err_and(Failure::is_closed_pipe);
    if collector.tally.pool_lost && done.is_ok() {
        say_that_inputs_are_missing(&collector.tally, console);
    }
    collector.end(settings.quiet || is_closed_pipe);
    end_pool(&pool, done.is_ok(), trace, console)?;
    profile.map_or(Ok(()), |profile| profile.end(module.name(), console))?;
    match done {
        // The reader has left; but what had failed by then has failed all the same.
        Err(failure) if failure.is_closed_pipe() && collector.tally.failed > 0 => Ok(collector.tally.exit()),
        done => done.map(|()| collector.tally.exit()),
    }
}

fn warn_of_inputs_left_out(source: &Source, console: &Console) {
    let Source::Files(files) = source else { return };
    for path in &files.left_out {
        let path = path.display();
        console.say(&format!("warning: {path} is no input: this command writes to it"));
    }
}

/// Returns the job log, where the map writes one, and what is recorded in it already.
fn open_job_log(
    args: &MapArgs,
    settings: &Settings,
    console: &Console,
) -> Result<(Option<JobLog>, Done), Failure> {
    match JobLog::open(args, &settings.files)? {
        None => Ok((None, JobLog::look(args, &settings.files)?)),
        Some((log, done, warnings)) => {
            warnings.iter().for_each(|warning| console.say(&format!("warning: {warning}")));
            Ok((Some(log), done))
        }
    }
}

fn say_that_inputs_are_missing(tally: &Tally, console: &Console) {
    console.error(match tally.no_worker {
        true => "without a worker, inputs that are not listed were not run",
        false => {
            "the pool is lost: inputs that are not listed were not run; with --retries 1 it outlives a worker"
        }
    });
}

/// Ends the pool before it is dropped: a drop would wait for results that nobody reads. A timeline that cannot
/// be written fails a map that has succeeded, and is no more than a message of one that has failed itself.
fn end_pool(
    pool: &Pool,
    has_succeeded: bool,
    trace: Option<Trace>,
    console: &Console,
) -> Result<(), Failure> {
    match has_succeeded {
        true if trace.is_some() => pool.shutdown(ShutdownMode::CancelPending),
        true => return Ok(()),
        false => pool.kill(),
    }
    match trace.map(|trace| trace.end(console)) {
        Some(Err(error)) if has_succeeded => Err(error),
        Some(Err(error)) => {
            console.error(&error.to_string());
            Ok(())
        }
        Some(Ok(())) | None => Ok(()),
    }
}

/// A worker's death is a failure like any other where there are retries.
fn builder(args: &MapArgs) -> PoolBuilder {
    match args.retries {
        0 => Pool::builder(),
        _ => Pool::builder().on_worker_death(OnWorkerDeath::replace()),
    }
}

/// Refuses what could only fail for each input anew.
fn check(call: &Call, source: &Source) -> Result<(), Failure> {
    match call.description() {
        Some(task) if !input::is_needed(task) => {
            let signature = task.signature();
            Err(Failure::Usage(format!("`{signature}` takes no input that map could give it: use run")))
        }
        None if matches!(source, Source::JsonLines) => {
            Err(Failure::Usage("a WASI command takes text, not JSON: use --lines".into()))
        }
        _ => Ok(()),
    }
}

fn run(
    collector: &mut Collector<'_>,
    signals: &crossbeam_channel::Receiver<StopRequest>,
    (plan, source, reading): (&Arc<Plan>, Source, Reading),
    budget: &Arc<Budget>,
) -> Result<(), Failure> {
    let (sender, fed) = crossbeam_channel::bounded(AHEAD_MIN);
    let feeder = std::thread::Builder::new()
        .name("wasmpool-feeder".into())
        .spawn({
            let plan = plan.clone();
            let budget = budget.clone();
            move || feed::feed(&plan, (source, &reading), &budget, &sender)
        })
        .map_err(|error| {
            let error = calling("start a thread")(error);
            Failure::Internal(format!("cannot start the thread that reads the inputs: {error}"))
        })?;
    collector.run(&Sources { fed: &fed, signals })?;
    // The feeder has let go of its end of the channel, unless it was told to stop. One that was told to stop
    // may be waiting for stdin; it is left to end with the process, as it is if stdout failed.
    if !budget.is_closed() && feeder.join().is_err() {
        return Err(Failure::Internal("the thread that reads the inputs panicked".into()));
    }
    Ok(())
}

/// `--dry-run`: a line for each input that would be run, an error for each that does not fit.
fn dry_run(
    plan: &Plan,
    module: &str,
    source: (Source, &Reading),
    quiet: bool,
    console: &Console,
) -> Result<Exit, Failure> {
    let mut lines = Lines::new(console);
    let mut tally = Tally::default();
    feed::dry_run(plan, module, source, |label, shown| {
        match shown {
            Ok(shown) => {
                tally.ok += 1;
                lines.push(&proto::text::Name(shown).to_string())?;
            }
            Err(failure) => {
                tally.failed += 1;
                console.error(&format!("{label}: {failure}"));
            }
        }
        Ok(())
    })?;
    lines.flush()?;
    if !quiet {
        let Tally { ok, failed, .. } = tally;
        console.say(&format!("dry run: {ok} would be run, {failed} do not fit"));
    }
    Ok(tally.exit())
}
