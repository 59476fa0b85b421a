//! `wasmpool map`: one call for each input, results in the order of the inputs.
//!
//! ```text
//!  feeder thread                                   this thread
//!  source ─► encode ─► submit ─► bounded channel ─► wait for the oldest ─► a line on stdout
//! ```
//!
//! The channel is the look-ahead: while it is full the feeder reads nothing more, so
//! neither an endless stdin nor a slow first task makes the memory grow. Inputs are also
//! counted in bytes, since a few large files are as bad as many lines.

mod budget;
mod source;

use std::fmt::Write;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::args::MapArgs;
use super::call::{Call, Pending};
use super::console::{Console, Lines};
use super::exit::{Exit, Failure};
use super::input::{self, Given};
use super::object::{self, Object};
use super::settings::{self, Settings};
use crate::{Pool, TaskError};
use budget::Budget;
use source::{Item, Label, Source};

/// Calls ahead of the oldest one that is not done, for each worker.
const AHEAD_PER_WORKER: usize = 16;
const AHEAD_MIN: usize = 64;

/// Bytes of all inputs ahead. One input may be larger, and is then alone.
const AHEAD_BYTES_MAX: usize = 256 * 1024 * 1024;

pub(super) fn map(args: MapArgs, settings: &Settings, console: &Console) -> Result<Exit, Failure> {
    let source = Source::resolve(&args)?;
    let target = &args.target;
    let pool = settings.pool_for(&args.target, None)?;
    let module = settings::load(&pool, &target.module, settings::module_options(target))?;
    let call = Call::resolve(&pool, &module, target, settings::shared_options(&pool, target)?)?;
    check(&call, &source)?;

    if !settings.quiet && std::io::stderr().is_terminal() {
        console.set_bar(Some(bar(source.len())));
    }
    let started = Instant::now();
    let done = run(call, source, &pool, console);
    console.set_bar(None);
    match done {
        Ok(tally) => {
            if tally.pool_lost {
                console.error("the pool is lost: inputs that are not listed were not run");
            }
            if !settings.quiet {
                if tally.ok + tally.failed == 0 {
                    console.say("warning: there were no inputs");
                }
                console.say(&tally.summary(started.elapsed(), pool.worker_pids().len()));
            }
            Ok(tally.exit())
        }
        Err(failure) => {
            // Dropping the pool would wait for results that nobody will read.
            pool.kill();
            Err(failure)
        }
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

fn run(call: Call, source: Source, pool: &Pool, console: &Console) -> Result<Tally, Failure> {
    let ahead = (pool.workers_max() * AHEAD_PER_WORKER).max(AHEAD_MIN);
    let (sender, receiver) = crossbeam_channel::bounded(ahead);
    let budget = Arc::new(Budget::new(AHEAD_BYTES_MAX));
    let feeder = std::thread::Builder::new()
        .name("wasmpool-feeder".into())
        .spawn({
            let budget = budget.clone();
            move || feed(&call, source, &budget, &sender)
        })
        .map_err(|error| Failure::Input(format!("cannot start the thread that reads the inputs: {error}")))?;
    let tally = collect(&receiver, &budget, console)?;
    // It has let go of its end of the channel. If stdout had failed, it might be waiting
    // for stdin, and is left to end with the process.
    if feeder.join().is_err() {
        return Err(Failure::Input("the thread that reads the inputs panicked".into()));
    }
    Ok(tally)
}

/// A call that was made, or why it could not be.
struct Started {
    label: Label,
    bytes: usize,
    pending: Result<Pending, Failure>,
}

/// Submits until the source is at its end, the pool is lost, or nobody listens.
fn feed(call: &Call, source: Source, budget: &Budget, sender: &Sender<Started>) {
    let json = matches!(source, Source::JsonLines);
    for Item { label, content, path } in source.items() {
        let bytes = content.as_ref().map_or(0, Vec::len);
        budget.take(bytes);
        let pending = content.and_then(|content| submit(call, &label, content, path.as_deref(), json));
        let is_last = pending.as_ref().is_err_and(Failure::is_end_of_pool);
        if sender.send(Started { label, bytes, pending }).is_err() || is_last {
            return;
        }
    }
}

fn submit(
    call: &Call,
    label: &Label,
    mut content: Vec<u8>,
    path: Option<&str>,
    json: bool,
) -> Result<Pending, Failure> {
    let label = label.short();
    if call.description().is_some() {
        let given = if json { Given::Json(content) } else { Given::Content(content) };
        return call.submit(given, Some(&label), None);
    }
    match path {
        Some(path) => call.submit(Given::Content(content), Some(&label), Some(path)),
        None if call.has_placeholder() => {
            let line = String::from_utf8(content)
                .map_err(|_| Failure::Input("the line is not UTF-8, so it cannot be an argument".into()))?;
            call.submit(Given::Nothing, Some(&label), Some(&line))
        }
        None => {
            // Programs that read lines expect them to end.
            content.push(b'\n');
            call.submit(Given::Content(content), Some(&label), None)
        }
    }
}

/// Prints results in order until the feeder is done.
fn collect(receiver: &Receiver<Started>, budget: &Budget, console: &Console) -> Result<Tally, Failure> {
    let mut lines = Lines::new(console);
    let mut tally = Tally::default();
    loop {
        let started = match receiver.try_recv() {
            Ok(started) => started,
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => {
                lines.flush()?;
                match receiver.recv() {
                    Ok(started) => started,
                    Err(_) => break,
                }
            }
        };
        if started.pending.as_ref().is_ok_and(|pending| !pending.done()) {
            lines.flush()?;
        }
        lines.push(&tally.settle(&started, console))?;
        budget.give(started.bytes);
        console.advance();
    }
    lines.flush()?;
    Ok(tally)
}

/// What has become of the inputs so far.
#[derive(Debug, Default)]
struct Tally {
    ok: u64,
    failed: u64,
    pool_lost: bool,
}

impl Tally {
    /// Waits for one call, counts it, reports a failure on stderr, and returns its line.
    fn settle(&mut self, started: &Started, console: &Console) -> String {
        let object = started.label.add_to(Object::new());
        let result = match &started.pending {
            Ok(pending) => pending.wait().map_err(Failure::Task),
            Err(failure) => {
                self.fail(&started.label, failure, &failure.to_string(), console);
                return object.field("ok", false).raw("error", &object::error(failure)).finish();
            }
        };
        match result {
            Ok(answer) => {
                match answer.exit_error() {
                    None => self.ok += 1,
                    Some(error) => self.report(&started.label, &error.to_string(), console),
                }
                answer.add_to(object).finish()
            }
            Err(failure) => {
                let message = match &failure {
                    // The input's label stands for the task's name here.
                    Failure::Task(failure) => failure.error().to_string(),
                    other => other.to_string(),
                };
                self.fail(&started.label, &failure, &message, console);
                object.field("ok", false).raw("error", &object::error(&failure)).finish()
            }
        }
    }

    fn fail(&mut self, label: &Label, failure: &Failure, message: &str, console: &Console) {
        self.pool_lost |= failure.is_end_of_pool();
        self.report(label, message, console);
    }

    fn report(&mut self, label: &Label, message: &str, console: &Console) {
        self.failed += 1;
        console.error(&format!("{label}: {message}"));
    }

    fn exit(&self) -> Exit {
        match self {
            Tally { pool_lost: true, .. } => Exit::Machinery,
            Tally { failed: 0, .. } => Exit::Success,
            _ => Exit::Some,
        }
    }

    fn summary(&self, elapsed: Duration, workers: usize) -> String {
        let Tally { ok, failed, .. } = self;
        let (inputs, seconds) = (ok + failed, elapsed.as_secs_f64());
        let rate = inputs as f64 / seconds.max(1e-6);
        let (inputs, workers) = (counted(inputs, "input"), counted(workers as u64, "worker"));
        format!("{inputs}: {ok} ok, {failed} failed; {seconds:.2} s, {rate:.1} tasks/s, {workers}")
    }
}

fn counted(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

impl super::call::Answer {
    /// A command's exit code other than 0, in the words of the pool.
    fn exit_error(&self) -> Option<TaskError> {
        match self {
            super::call::Answer::Command(output) if !self.is_ok() => {
                Some(TaskError::Exit { output: output.clone() })
            }
            _ => None,
        }
    }
}

fn bar(len: Option<usize>) -> ProgressBar {
    let (bar, template) = match len {
        Some(len) => (
            ProgressBar::new(len as u64),
            "{elapsed_precise} {wide_bar} {human_pos}/{human_len}, {rate}, {eta} left",
        ),
        None => (ProgressBar::new_spinner(), "{elapsed_precise} {spinner} {human_pos} done, {rate}"),
    };
    let rate = |state: &ProgressState, out: &mut dyn Write| {
        // Writing to the bar's own buffer cannot fail.
        let _ = write!(out, "{:.0}/s", state.per_sec());
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.with_key("rate", rate)),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_pool_counts_for_more_than_failed_inputs() {
        let tally = |failed, pool_lost| Tally { ok: 1, failed, pool_lost }.exit();
        assert_eq!(
            [tally(0, false), tally(2, false), tally(2, true)],
            [Exit::Success, Exit::Some, Exit::Machinery]
        );
    }

    #[test]
    fn the_summary_says_how_many_and_how_fast() {
        let summary = Tally { ok: 3, failed: 1, pool_lost: false }.summary(Duration::from_secs(2), 1);
        assert_eq!(summary, "4 inputs: 3 ok, 1 failed; 2.00 s, 2.0 tasks/s, 1 worker");
    }

    #[test]
    fn both_styles_of_the_bar_are_templates() {
        for len in [None, Some(3)] {
            bar(len).finish_and_clear();
        }
    }
}
