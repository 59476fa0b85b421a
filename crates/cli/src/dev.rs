//! `wasmpool dev`: one input, run again whenever its module changes, or what that is built from.
//!
//! The build is the user's own command and runs as such. The module is replaced in the pool as a library's user would do it
//! ([`Pool::replace_module_file`]), so the worker stays.

mod watch;

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded, select, unbounded};
use rustix::process::{Pid, Signal};

use super::args::{DevArgs, Stop, Target};
use super::bench::{given, show_ns};
use super::call::{Call, CallFuture, CallOutput};
use super::console::Console;
use super::exit::{Exit, Failure};
use super::interrupt::{self, StopRequest};
use super::result_file;
use super::run;
use super::settings::{self, Settings};
use proto::refused::calling;
use wasmpool::pool::{OnWorkerDeath, ShutdownMode};
use wasmpool::task::TaskReport;
use wasmpool::{Module, Pool, TaskError, TaskFailure};
use watch::Change;

/// Fuel is counted up to here where no limit was typed: no task reaches it.
const FUEL_UNBOUNDED: u64 = i64::MAX as u64;

/// Changes that come closer together than this are one: an editor writes a file in several steps.
const TOGETHER: Duration = Duration::from_millis(100);

/// Changes that never end are one after this time.
const TOGETHER_AT_MOST: Duration = Duration::from_secs(2);

/// A build that was told to end has this long.
const BUILD_GRACE: Duration = Duration::from_secs(5);

struct Dev<'a> {
    args: &'a DevArgs,
    target: Target,
    settings: &'a Settings,
    console: &'a Console,
    pool: Pool,
    signals: Receiver<StopRequest>,
    changes: Receiver<Change>,
    module: Option<Module>,
    last: Option<Ran>,
    /// These came while a build or a run was under way, and are reason for the next.
    pending: Vec<Change>,
    /// The last build has changed these files of the sources. If the next one changes them as well, they are what it makes, and
    /// no reason for another.
    made: HashSet<PathBuf>,
    /// The last run was stopped for a change: it is due again even if the module is the same.
    is_owed: bool,
}

/// A run that succeeded.
struct Ran {
    /// The output as a file would have it.
    output: Vec<u8>,
    took: Duration,
    fuel: Option<u64>,
}

/// The end of a build, or of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Done,
    Failed,
    /// A signal asks for the end.
    Stopped,
}

pub(super) fn dev(args: &DevArgs, settings: &Settings, console: &Console) -> Result<Exit, Failure> {
    let mut target = args.target.clone();
    if target.profile.is_some() || target.trace.is_some() {
        let message = "dev makes no --profile and no --trace, which would be of many runs: run makes them";
        return Err(Failure::Usage(message.into()));
    }
    if !matches!(target.interrupt, Some(Stop::Kill)) {
        target.limits.worded.fuel.get_or_insert(FUEL_UNBOUNDED);
    }
    let pool =
        settings.pool_for(&target, Pool::builder().on_worker_death(OnWorkerDeath::replace()), Some(1))?;
    let roots = match (&args.build, &args.watch[..]) {
        (None, _) => Vec::new(),
        (Some(_), []) => vec![PathBuf::from(".")],
        (Some(_), folders) => folders.to_vec(),
    };
    let signals = interrupt::listen();
    let changes = watch::begin(&settings.files, &target.module, &roots)?;
    let mut dev = Dev {
        args,
        target,
        settings,
        console,
        pool,
        signals,
        changes,
        module: None,
        last: None,
        pending: Vec::new(),
        made: HashSet::new(),
        is_owed: false,
    };
    let done = dev.follow();
    let pool = dev.pool.clone();
    drop(dev);
    pool.kill();
    pool.shutdown(ShutdownMode::CancelPending);
    done?;
    Ok(interrupt::exit().unwrap_or(Exit::Success))
}

impl Dev<'_> {
    /// Runs the input, and again at each change, until a signal comes.
    fn follow(&mut self) -> Result<(), Failure> {
        let mut builds = self.args.build.is_some();
        loop {
            let built = if builds { self.build()? } else { Step::Done };
            let step = if built == Step::Done { self.reload_and_run()? } else { built };
            if step == Step::Stopped {
                return Ok(());
            }
            let Some(changes) = self.next_changes()? else { return Ok(()) };
            let of_sources = changes.iter().find(|change| **change != Change::Module);
            builds = of_sources.is_some();
            if let Some(change) = of_sources.or(changes.first()) {
                self.say(match change {
                    Change::Module => format!("changed: {}", self.target.module.display()),
                    Change::Source(path) => format!("changed: {}", path.display()),
                });
            }
        }
    }

    /// Waits for changes until there are no more of them; returns `None` if a signal came.
    fn next_changes(&mut self) -> Result<Option<Vec<Change>>, Failure> {
        let mut changes = std::mem::take(&mut self.pending);
        if changes.is_empty() {
            self.say(format!("waiting for a change of {}", self.watched()));
            let first = select! {
                recv(self.signals) -> _ => return Ok(None),
                recv(self.changes) -> change => change,
            };
            let cannot = |_| Failure::Internal("files are no longer watched".into());
            changes.push(first.map_err(cannot)?);
        }
        let deadline = Instant::now() + TOGETHER_AT_MOST;
        while Instant::now() < deadline
            && let Ok(change) = self.changes.recv_timeout(TOGETHER)
        {
            changes.push(change);
        }
        Ok(Some(changes))
    }

    fn watched(&self) -> String {
        let module = self.target.module.display();
        match (&self.args.build, &self.args.watch[..]) {
            (None, _) => module.to_string(),
            (Some(_), []) => format!("{module} or this folder"),
            (Some(_), folders) => {
                let folders: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
                format!("{module} or {}", folders.join(", "))
            }
        }
    }

    fn say(&self, text: String) {
        if !self.settings.quiet {
            self.console.say(&text);
        }
    }

    /// Runs the build.
    fn build(&mut self) -> Result<Step, Failure> {
        let command = self.args.build.as_deref().unwrap_or_default();
        self.say(format!("building: {command}"));
        let Some(status) = self.wait_for(start(command)?)? else { return Ok(Step::Stopped) };
        let mut made = HashSet::new();
        // The kernel tells of a build's files soon after the build has ended.
        while let Ok(change) = self.changes.recv_timeout(TOGETHER) {
            let Change::Source(path) = &change else { continue };
            made.insert(path.clone());
            if !self.made.contains(path) {
                self.pending.push(change);
            }
        }
        self.made = made;
        if status.success() {
            return Ok(Step::Done);
        }
        self.console.error(&format!("the build failed: {status}"));
        Ok(Step::Failed)
    }

    /// Waits for the build; returns `None` if a signal has ended it.
    fn wait_for(&self, mut build: Child) -> Result<Option<ExitStatus>, Failure> {
        let group = Pid::from_child(&build);
        let (sender, ended) = bounded(1);
        let waiter = std::thread::Builder::new().name("wasmpool-build".into());
        let waiter = waiter.spawn(move || drop(sender.send(build.wait())));
        let cannot = |error| Failure::Internal(format!("cannot wait for the build: {error}"));
        if let Err(error) = waiter.map_err(calling("start a thread")) {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
            return Err(cannot(error));
        }
        let status = select! {
            recv(ended) -> status => status,
            recv(self.signals) -> _ => {
                // The whole group, since a shell does not pass it on. What is gone needs no signal.
                let _ = rustix::process::kill_process_group(group, Signal::TERM);
                if ended.recv_timeout(BUILD_GRACE).is_err() {
                    let _ = rustix::process::kill_process_group(group, Signal::KILL);
                }
                return Ok(None);
            }
        };
        status.map_err(io::Error::other).flatten().map(Some).map_err(cannot)
    }

    /// Puts the module's file into force and runs the input, if it is another module than before. What a change may mend is
    /// said, and everything else is an error.
    fn reload_and_run(&mut self) -> Result<Step, Failure> {
        let is_last = |failure: &Failure| {
            failure.is_end_of_pool() || matches!(failure, Failure::Internal(_) | Failure::Output(_))
        };
        let reloaded = self.reload();
        let ran = reloaded.and_then(|is_new| match is_new || self.is_owed {
            true => self.run(),
            false => Ok(Step::Done),
        });
        ran.or_else(|failure| {
            if interrupt::exit().is_some() {
                return Ok(Step::Stopped);
            }
            if is_last(&failure) {
                return Err(failure);
            }
            self.console.error(&failure.to_string());
            Ok(Step::Failed)
        })
    }

    /// Returns whether the file has another module than before.
    fn reload(&mut self) -> Result<bool, Failure> {
        let path = &self.target.module;
        let module = match &self.module {
            None => settings::load(&self.pool, path, settings::module_options(&self.target)?)?,
            Some(module) => self
                .pool
                .replace_module_file(module, path)
                .map_err(|error| Failure::Load { file: path.clone(), error: error.into() })?,
        };
        let is_new = self.module.as_ref() != Some(&module);
        if !is_new {
            self.say("the module is the same as before".into());
        }
        self.module = Some(module);
        Ok(is_new)
    }

    fn run(&mut self) -> Result<Step, Failure> {
        let Some(module) = &self.module else { return Ok(Step::Failed) };
        let options = settings::shared_options(&self.pool, &self.target, &self.settings.files)?;
        // The handle is made anew for each version, whose task may have other types.
        let call = Call::resolve(&self.pool, module, &self.target, options)?;
        let input = (self.args.input.as_deref(), self.args.input_file.as_deref());
        let given = given(&self.target, input, &call, self.settings)?;
        let future = call.submit(given, None, None)?;
        let (sender, done) = unbounded();
        future.announce(&sender, 0);
        select! {
            recv(done) -> _ => {}
            recv(self.signals) -> _ => {
                future.abort();
                return Ok(Step::Stopped);
            }
            recv(self.changes) -> change => {
                future.abort();
                self.pending.extend(change);
            }
        }
        let result = future.wait();
        if !self.pending.is_empty() && matches!(&result, Err(failure) if is_aborted(failure)) {
            self.say("the run was stopped, since something has changed".into());
            self.is_owed = true;
            return Ok(Step::Failed);
        }
        self.is_owed = false;
        self.show(&future, result)?;
        Ok(Step::Done)
    }

    /// Shows the result, what it took, and how that differs from the last one.
    fn show(&mut self, future: &CallFuture, result: Result<CallOutput, TaskFailure>) -> Result<(), Failure> {
        let report = future.report();
        let output = result?;
        run::print(&output, &report, (!self.settings.quiet).then_some(self.console), None)?;
        let mut bytes = Vec::new();
        // Writing to a Vec cannot fail.
        let _ = result_file::write_to(&mut bytes, &output);
        let ran = Ran { output: bytes, took: report.run, fuel: report.fuel_used };
        self.say(ran.compared(self.last.as_ref(), &report));
        self.last = Some(ran);
        Ok(())
    }
}

impl Ran {
    /// Says what the run took, and what has changed since the last one.
    fn compared(&self, last: Option<&Ran>, report: &TaskReport) -> String {
        let ns = u64::try_from(self.took.as_nanos()).unwrap_or(u64::MAX);
        let mut text = format!("took {}", show_ns(ns));
        if let Some(last) = last {
            text.push_str(&changed_by(self.took.as_secs_f64(), last.took.as_secs_f64()));
        }
        if let Some(fuel) = self.fuel {
            text.push_str(&format!(", {fuel} fuel"));
            if let Some(before) = last.and_then(|last| last.fuel) {
                text.push_str(&match fuel == before {
                    true => " (the same)".to_string(),
                    false => changed_by(fuel as f64, before as f64),
                });
            }
        }
        if let Some(bytes) = report.peak_memory_bytes {
            text.push_str(&format!(", {} KiB of memory", bytes / 1024));
        }
        if let Some(last) = last {
            let is_same = last.output == self.output;
            text.push_str(if is_same { "; the output is the same" } else { "; the output has changed" });
        }
        text
    }
}

fn changed_by(now: f64, before: f64) -> String {
    match before > 0.0 {
        true => format!(" ({:+.1} %)", 100.0 * (now - before) / before),
        false => String::new(),
    }
}

fn is_aborted(failure: &TaskFailure) -> bool {
    matches!(failure.error(), TaskError::Aborted { .. } | TaskError::Cancelled)
}

/// Starts the build in a group of its own. What it prints goes to stderr: stdout has the results.
fn start(command: &str) -> Result<Child, Failure> {
    let cannot = |error| Failure::Internal(format!("cannot start the build: {error}"));
    let stderr = std::io::stderr().as_fd().try_clone_to_owned().map_err(cannot)?;
    Command::new("sh")
        .arg("-c")
        .arg(command)
        .stdin(Stdio::null())
        .stdout(stderr)
        .process_group(0)
        .spawn()
        .map_err(cannot)
}
