//! Collects the calls' results: it decides about order, retries, the job log, and when to stop.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, select};

use super::Plan;
use super::budget::Budget;
use super::feed::{Fed, Job};
use super::joblog::{JobLog, Record};
use super::outputs::Outputs;
use super::progress::Progress;
use super::source::Label;
use super::tally::Tally;
use crate::args::HaltStop as Stop;
use crate::call::{CallFuture, CallOutput};
use crate::console::{Console, Lines};
use crate::exit::Failure;
use crate::interrupt::{self, StopRequest};
use crate::object::Line;
use proto::limits::RESULT_BYTES_BESIDE;
use wasmpool::error::DeathCause;
use wasmpool::internal::Charge;
use wasmpool::task::TaskReport;
use wasmpool::{Pool, TaskError};

/// Something to be done.
enum Event {
    Fed(Fed),
    /// There are no more inputs.
    FedAll,
    Finished(u64),
    Signal(StopRequest),
    /// The time has come to show how far it is.
    Tick,
}

/// The sources of events.
pub(super) struct Sources<'a> {
    pub(super) fed: &'a Receiver<Fed>,
    pub(super) signals: &'a Receiver<StopRequest>,
}

/// One input that is done, until its result comes out.
enum Finished {
    Done {
        line: Line,
        record: Option<Record>,
        charge: Arc<Charge>,
    },
    /// The map was stopped.
    Stopped {
        charge: Arc<Charge>,
    },
}

pub(super) struct Collector<'a> {
    plan: &'a Plan,
    pool: &'a Pool,
    console: &'a Console,
    budget: &'a Budget,
    outputs: Outputs,
    log: Option<JobLog>,
    progress: Progress,
    lines: Lines,
    pub(super) tally: Tally,
    stop: Stop,
    has_all: bool,
    /// The calls under way, by number.
    open: HashMap<u64, (Job, CallFuture)>,
    finished: (Sender<usize>, Receiver<usize>),
    /// These inputs are done, and wait for the results of earlier ones.
    ready: BTreeMap<u64, Finished>,
    /// The number of the input whose result comes out next.
    next: u64,
}

impl<'a> Collector<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        pool: &'a Pool,
        budget: &'a Budget,
        (outputs, log): (Outputs, Option<JobLog>),
        progress: Progress,
        console: &'a Console,
    ) -> Self {
        Collector {
            plan,
            pool,
            console,
            budget,
            outputs,
            log,
            progress,
            lines: Lines::new(console),
            tally: Tally::default(),
            stop: Stop::No,
            has_all: false,
            open: HashMap::new(),
            finished: crossbeam_channel::unbounded(),
            ready: BTreeMap::new(),
            next: 0,
        }
    }

    /// Prints results until all is done, or what was begun is and no more is wanted.
    pub(super) fn run(&mut self, sources: &Sources<'_>) -> Result<(), Failure> {
        while !self.is_done() {
            let event = self.next_event(sources)?;
            self.handle(event)?;
            let Collector { open, progress, tally, pool, console, .. } = self;
            let label = |task| {
                let (job, _) = open.values().find(|(_, future)| future.task_id() == task)?;
                Some(job.label.short())
            };
            progress.show(tally, || pool.stats(), label, console);
        }
        // Stopped inputs left gaps in the order.
        for (_, finished) in std::mem::take(&mut self.ready) {
            self.put(finished)?;
        }
        self.lines.flush()
    }

    /// Returns whether nothing more will come. A stopped map takes nothing new, but what was submitted before
    /// may have run, and counts.
    fn is_done(&self) -> bool {
        let is_stopped = || self.stop > Stop::No && self.budget.inputs() == self.ready.len();
        self.open.is_empty() && (self.has_all || is_stopped())
    }

    /// Takes the bar away and says what was done, however it ended.
    pub(super) fn end(&mut self, quiet: bool) {
        self.progress.end(&self.tally, || self.pool.stats(), self.console);
        if quiet {
            return;
        }
        if self.tally.passed() + self.tally.stopped == 0 && self.tally.interrupted.is_none() {
            self.console.say("warning: there were no inputs");
        }
        let workers = self.pool.stats().workers_started as usize;
        self.tally.logs_dropped = self.pool.stats().log_records_dropped;
        self.console.say(&self.tally.summary(self.progress.elapsed(), workers.min(self.pool.workers_max())));
        if self.stop > Stop::No && self.log.is_some() && !self.tally.sufficed {
            self.console.say("the same command with --resume goes on from here");
        }
    }

    /// Returns an event that is there; otherwise it shows what is buffered, and waits.
    fn next_event(&mut self, sources: &Sources<'_>) -> Result<Event, Failure> {
        if let Ok(request) = sources.signals.try_recv() {
            return Ok(Event::Signal(request));
        }
        if let Ok(number) = self.finished.1.try_recv() {
            return Ok(Event::Finished(number as u64));
        }
        if !self.has_all {
            match sources.fed.try_recv() {
                Ok(fed) => return Ok(Event::Fed(fed)),
                Err(TryRecvError::Disconnected) => return Ok(Event::FedAll),
                Err(TryRecvError::Empty) => {}
            }
        }
        self.lines.flush()?;
        let never = crossbeam_channel::never();
        let fed = if self.has_all { &never } else { sources.fed };
        let due = match self.progress.due() {
            Some(due) => crossbeam_channel::at(due),
            None => crossbeam_channel::never(),
        };
        Ok(select! {
            recv(fed) -> fed => fed.map_or(Event::FedAll, Event::Fed),
            recv(self.finished.1) -> number => number.map_or(Event::Tick, |number| Event::Finished(number as u64)),
            recv(sources.signals) -> signal => signal.map_or(Event::Tick, Event::Signal),
            recv(due) -> _ => Event::Tick,
        })
    }

    fn handle(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Fed(Fed::Started(started)) => self.begin(started.job, started.future),
            Event::Fed(Fed::Skipped) => {
                self.tally.before += 1;
                Ok(())
            }
            Event::Fed(Fed::Unusable(failure)) => Err(failure),
            Event::FedAll => {
                self.has_all = true;
                Ok(())
            }
            Event::Finished(number) => match self.open.remove(&number) {
                Some((job, future)) => {
                    self.finish(job, future.wait().map_err(Failure::Task), Some(future.report()))
                }
                None => Ok(()),
            },
            Event::Signal(request) => {
                self.interrupt(request);
                Ok(())
            }
            Event::Tick => Ok(()),
        }
    }

    fn begin(&mut self, job: Job, future: Result<CallFuture, Failure>) -> Result<(), Failure> {
        match future {
            Ok(future) => {
                future.announce(&self.finished.0, job.number as usize);
                if self.stop > Stop::No {
                    future.cancel();
                }
                self.open.insert(job.number, (job, future));
                Ok(())
            }
            // This input was read ahead of a stop: a later run tells what is wrong with it.
            Err(_) if self.stop > Stop::No => {
                self.tally.stopped += 1;
                self.take_turn(job.number, Finished::Stopped { charge: job.charge })
            }
            Err(failure) => self.finish(job, Err(failure), None),
        }
    }

    fn interrupt(&mut self, request: StopRequest) {
        self.tally.interrupted = Some(interrupt::code());
        let running = self.pool.stats().running;
        match request {
            StopRequest::Soon(grace) => {
                let grace = grace.map(|grace| format!(" within {}", humantime::format_duration(grace)));
                let grace = grace.unwrap_or_default();
                self.console.say(&format!(
                    "stopping: {running} running are finished{grace}; again to stop them, too"
                ));
                self.stop(Stop::Soon);
            }
            StopRequest::Now | StopRequest::Leave => {
                self.console.say(&format!("stopping: {running} running are stopped"));
                self.stop(Stop::Now);
            }
        }
    }

    fn stop(&mut self, stop: Stop) {
        if stop <= self.stop {
            return;
        }
        self.stop = stop;
        self.budget.close();
        if stop == Stop::Now {
            // Each of them is then done, in whichever way.
            self.pool.kill();
        } else {
            self.open.values().for_each(|(_, future)| future.cancel());
        }
    }

    /// Finishes a call that is done. It has no report if it was never submitted.
    fn finish(
        &mut self,
        mut job: Job,
        result: Result<CallOutput, Failure>,
        mut report: Option<TaskReport>,
    ) -> Result<(), Failure> {
        let number = job.number;
        let charge = job.charge.clone();
        if self.stop > Stop::No && result.as_ref().is_err_and(is_stopped) {
            self.tally.stopped += 1;
            return self.take_turn(number, Finished::Stopped { charge });
        }
        let message = failure_message(&result);
        if message.is_some()
            && self.may_retry(&job, &result)
            && let Some(future) = job.retry(self.plan, report.as_ref())
        {
            self.tally.retried += 1;
            return self.begin(job, future);
        }
        report.iter_mut().for_each(|report| report.attempts += job.begun);
        let is_end = result.as_ref().is_err_and(Failure::is_end_of_pool);
        // A task that ended with the pool did not fail by itself: if there is a log, it will be run again,
        // and has its line then.
        let is_left_open = is_end && self.log.is_some();
        let line = (!is_left_open).then(|| self.outputs.line(&job, result.as_ref(), report.as_ref()));
        // An input has succeeded only once its output is written.
        let message = message.or_else(|| match &line {
            Some(Ok((_, unwritten))) => unwritten.as_ref().map(ToString::to_string),
            Some(Err(failure)) => Some(failure.to_string()),
            None => None,
        });
        self.count(&job, message.as_deref(), report.as_ref());
        self.tally.pool_lost |= is_end;
        if result.as_ref().is_err_and(is_for_want_of_a_worker) {
            // No other input would find a worker either.
            self.tally.no_worker = true;
            self.stop(Stop::Soon);
        }
        let Some(line) = line else { return self.take_turn(number, Finished::Stopped { charge }) };
        let (line, unwritten) = line?;
        // A stdin that cannot be read is no input that a later run could skip.
        let is_recorded = self.log.is_some() && !matches!(job.label, Label::Stdin);
        let record = is_recorded.then(|| record(&job, &result, unwritten.as_ref(), report.as_ref()));
        // The line is held until it is written. Its large outputs are as they came, and so within what the task was
        // charged for; what is small has room there as JSON, too.
        let held = line.held_bytes() as u64 + RESULT_BYTES_BESIDE;
        debug_assert!(
            held <= charge.bytes() || result.is_err(),
            "{held} bytes wait where {} are charged",
            charge.bytes()
        );
        charge.settle(held.min(charge.bytes()));
        let stop = self.plan.halt.after(self.tally.ok, self.tally.failed);
        if stop > self.stop {
            self.tally.sufficed = self.plan.halt.is_success();
            self.stop(stop);
        }
        self.take_turn(number, Finished::Done { line, record, charge })
    }

    /// Counts an input, which has failed if there is a message, and then says so.
    fn count(&mut self, job: &Job, message: Option<&str>, report: Option<&TaskReport>) {
        let dropped = report.and_then(|report| report.log_bytes_dropped);
        self.tally.log_bytes_dropped += dropped.unwrap_or_default();
        let Some(message) = message else {
            self.tally.ok += 1;
            return;
        };
        self.tally.failed += 1;
        let refusals = report.and_then(TaskReport::refused).map(|refusals| format!("\n    {refusals}"));
        self.console.error(&format!("{}: {message}{}", job.label, refusals.unwrap_or_default()));
    }

    fn may_retry(&self, job: &Job, result: &Result<CallOutput, Failure>) -> bool {
        let is_own = match result {
            Ok(_) => true,
            Err(failure) => matches!(failure, Failure::Task(_)) && !failure.is_end_of_pool(),
        };
        is_own && self.stop == Stop::No && job.attempts <= self.plan.retries
    }

    /// Writes what is done, in the order that was asked for.
    fn take_turn(&mut self, number: u64, finished: Finished) -> Result<(), Failure> {
        if self.plan.unordered {
            return self.put(finished);
        }
        self.ready.insert(number, finished);
        while let Some(finished) = self.ready.remove(&self.next) {
            self.next += 1;
            self.put(finished)?;
        }
        Ok(())
    }

    fn put(&mut self, finished: Finished) -> Result<(), Failure> {
        let charge = match finished {
            Finished::Stopped { charge } => charge,
            Finished::Done { line, record, charge } => {
                self.lines.push_by(|out| line.write(out))?;
                if let (Some(log), Some(record)) = (&mut self.log, record) {
                    // A result must be written before it is recorded.
                    self.lines.flush()?;
                    log.append(&record)?;
                }
                charge
            }
        };
        self.budget.give(charge);
        Ok(())
    }
}

/// Returns whether the task never began because there was no worker for it.
fn is_for_want_of_a_worker(failure: &Failure) -> bool {
    matches!(failure, Failure::Task(failure) if matches!(failure.error(), TaskError::NoWorker(_)))
}

/// Returns whether it ended because everything was to end.
fn is_stopped(failure: &Failure) -> bool {
    match failure {
        Failure::Task(failure) => {
            matches!(
                failure.error(),
                TaskError::Cancelled
                    | TaskError::Aborted { .. }
                    | TaskError::Broken(_)
                    | TaskError::NoWorker(_)
            )
        }
        failure => failure.is_end_of_pool(),
    }
}

/// Returns why an input failed, if it did.
fn failure_message(result: &Result<CallOutput, Failure>) -> Option<String> {
    match result {
        Ok(output) => output.exit_error().map(|error| error.to_string()),
        // The input's label stands for the task's name here.
        Err(Failure::Task(failure)) => Some(failure.error().to_string()),
        Err(other) => Some(other.to_string()),
    }
}

fn record(
    job: &Job,
    result: &Result<CallOutput, Failure>,
    unwritten: Option<&Failure>,
    report: Option<&TaskReport>,
) -> Record {
    let (exit_code, signal) = match result {
        Ok(_) if let Some(failure) = unwritten => (failure.exit().code().into(), 0),
        Ok(CallOutput::Command(output)) => (output.exit_code, 0),
        Ok(_) => (0, 0),
        Err(failure) => match failure {
            Failure::Task(task) => match task.error() {
                TaskError::WorkerDied(death) => match death.cause {
                    DeathCause::Signaled(signal) => (1, signal),
                    _ => (1, 0),
                },
                _ => (1, 0),
            },
            _ => (2, 0),
        },
    };
    let command = match &job.label {
        Label::Line { text, .. } => text.clone(),
        other => other.short(),
    };
    Record {
        seq: job.seq,
        run: report.map_or(Duration::ZERO, |report| report.run),
        sent_bytes: job.bytes,
        received_bytes: match result {
            Ok(output) => output.bytes(),
            // A command may have written something before it failed.
            Err(Failure::Task(task)) => task.output().map_or(0, |written| written.stdout.len()),
            Err(_) => 0,
        },
        exit_code,
        signal,
        command,
        digest: job.digest,
    }
}

impl CallOutput {
    /// A command's exit code other than 0, in the words of the pool.
    fn exit_error(&self) -> Option<TaskError> {
        match self {
            CallOutput::Command(output) if !self.is_ok() => Some(TaskError::Exit { output: output.clone() }),
            _ => None,
        }
    }

    /// Bytes of its output.
    fn bytes(&self) -> usize {
        match self {
            CallOutput::Json(json) => json.len(),
            CallOutput::Value(value) => value.held_bytes(),
            CallOutput::Bytes(bytes) => bytes.len(),
            CallOutput::Command(output) => output.stdout.len(),
        }
    }
}
