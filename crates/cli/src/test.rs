//! `wasmpool test`: cases from a file, each run in the pool as `run` would run it, and held to what the file expects.

mod cases;
mod judge;

use std::collections::VecDeque;
use std::path::Path;

use anstyle::{AnsiColor, Style};

use super::args::{Target, TestArgs};
use super::bench::{show_ns, stopped_by_signals};
use super::call::{Call, CallFuture};
use super::console::{self, Console, indented};
use super::exit::{Exit, Failure};
use super::input::{self, InputArg};
use super::interrupt;
use super::object::{self, Object};
use super::settings::{self, Settings};
use cases::{Case, Cases};
use judge::{Actual, Mismatch};
use proto::text::Escaped;
use wasmpool::pool::ShutdownMode;
use wasmpool::task::TaskReport;
use wasmpool::{Module, Pool, TaskOptions};

/// A case that sets no ceiling is measured under this one, which no task reaches.
const FUEL_UNBOUNDED: u64 = i64::MAX as u64;

/// Cases under way for each worker. Their results are held until those before them were shown.
const AHEAD_PER_WORKER: usize = 4;

/// Names stand below each other up to this width.
const NAME_COLUMNS_MAX: usize = 60;

const PASSED: Style = AnsiColor::Green.on_default();
const FAILED: Style = AnsiColor::Red.on_default().bold();

/// All that the cases share.
struct Bench<'a> {
    args: &'a TestArgs,
    settings: &'a Settings,
    pool: Pool,
    module: Module,
    target: Target,
    options: TaskOptions,
    folder: &'a Path,
    name_columns: usize,
}

/// A case that was submitted, or could not be.
struct Begun<'a> {
    case: &'a Case,
    call: Result<(CallFuture, Option<String>), Failure>,
}

/// The end of a case, and each expectation that it did not meet.
struct Judged<'a> {
    case: &'a Case,
    task: Option<String>,
    actual: Actual,
    report: Option<TaskReport>,
    mismatches: Vec<Mismatch>,
}

pub(super) fn test(args: &TestArgs, settings: &Settings, console: &Console) -> Result<Exit, Failure> {
    let file = &args.cases;
    let cases = Cases::read(file, &settings.files)?;
    let chosen: Vec<_> = cases.list.iter().filter(|case| args.has_chosen(&case.name)).collect();
    let filtered = cases.list.len() - chosen.len();
    if chosen.is_empty() {
        let filter = args.filter.as_deref().unwrap_or_default();
        return Err(Failure::Usage(format!(
            "{}: none of its {filtered} cases has `{filter}` in its name",
            file.display()
        )));
    }
    let folder = cases.folder();
    let mut target = args.target(folder.join(&cases.module));
    // Fuel is counted in any case, so that a ceiling can be read off before it is set.
    target.limits.worded.fuel.get_or_insert(FUEL_UNBOUNDED);
    let pool = settings.pool_for(&target, Pool::builder(), None)?;
    let module = settings::load(&pool, &target.module, settings::module_options(&target)?)?;
    let options = settings::shared_options(&pool, &target, &settings.files)?;
    let columns = chosen.iter().map(|case| case.name.chars().count()).max().unwrap_or(0);
    let name_columns = columns.min(NAME_COLUMNS_MAX);
    let bench = Bench { args, settings, pool, module, target, options, folder, name_columns };
    if !args.json && !settings.quiet {
        console.say(&format!("running {} cases of {}", chosen.len(), bench.module.name()));
    }
    let failed = stopped_by_signals(&bench.pool, || bench.run(&chosen));
    if failed.is_err() {
        bench.pool.kill();
    }
    bench.pool.shutdown(ShutdownMode::Finish);
    if let Some(exit) = interrupt::exit() {
        return Ok(exit);
    }
    let failed = failed?;
    bench.summarise(chosen.len() - failed, failed, filtered)?;
    Ok(if failed == 0 { Exit::Success } else { Exit::CaseFailed })
}

impl Bench<'_> {
    /// Runs the cases side by side and shows them in the file's order; returns how many failed.
    fn run(&self, cases: &[&Case]) -> Result<usize, Failure> {
        let ahead = self.pool.workers_max() * AHEAD_PER_WORKER;
        let mut waiting = cases.iter();
        let mut begun = VecDeque::with_capacity(ahead);
        let mut failed = 0;
        loop {
            while begun.len() < ahead
                && let Some(case) = waiting.next()
            {
                begun.push_back(Begun { case, call: self.begin(case) });
            }
            let Some(first) = begun.pop_front() else { return Ok(failed) };
            let judged = self.judged(first)?;
            failed += usize::from(!judged.mismatches.is_empty());
            self.show(&judged)?;
        }
    }

    fn begin(&self, case: &Case) -> Result<(CallFuture, Option<String>), Failure> {
        let mut target = self.target.clone();
        target.task = case.wave.clone().or_else(|| case.task.clone());
        target.args.clone_from(&case.args);
        target.env = case.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let call = Call::resolve(&self.pool, &self.module, &target, self.options.clone())?;
        let prepared = call.prepare(self.given(case, &call, &target)?, None)?;
        let future = call.submit_prepared(&prepared, Some(&case.name))?;
        Ok((future, call.task_name().map(str::to_string)))
    }

    fn given(&self, case: &Case, call: &Call, target: &Target) -> Result<InputArg, Failure> {
        let bytes_max = settings::input_bytes_max(target);
        let task = call.description();
        if let Some(words) = case.unfit_for(task.is_some()) {
            return Err(Failure::Usage(words.into()));
        }
        if let Some(given) = input::of_arguments(task, target.wave(), &[], false, bytes_max)? {
            return Ok(given);
        }
        if let Some(path) = &case.input_file {
            return input::from_file(&self.settings.files, &self.folder.join(path), task, bytes_max);
        }
        let given = match (&case.input, &case.input_json, &case.stdin) {
            (Some(value), _, _) => InputArg::Json(cases::to_json(value).to_string().into_bytes()),
            (None, Some(text), _) => InputArg::Json(text.clone().into_bytes()),
            (None, None, Some(text)) => InputArg::Content(text.clone().into_bytes()),
            (None, None, None) => return Ok(InputArg::Nothing),
        };
        match &given {
            InputArg::Json(bytes) | InputArg::Content(bytes) if bytes.len() > bytes_max => {
                Err(input::too_long("the input", bytes_max))
            }
            _ => Ok(given),
        }
    }

    /// Waits for a case's end, and holds it to what the file expects. What only this case cannot do fails it alone; an
    /// error that all others would meet as well ends the run.
    fn judged<'a>(&self, begun: Begun<'a>) -> Result<Judged<'a>, Failure> {
        let case = begun.case;
        let (future, task) = match begun.call {
            Ok(begun) => begun,
            Err(failure) if failure.is_end_of_pool() => return Err(failure),
            Err(failure) => {
                let mismatches = vec![Mismatch::not_run(&failure)];
                let actual = Actual::default();
                return Ok(Judged { case, task: case.task.clone(), actual, report: None, mismatches });
            }
        };
        let ended = match future.wait().map_err(Failure::Task) {
            Err(failure) if failure.exit() == Exit::Internal => return Err(failure),
            ended => ended,
        };
        let report = future.report();
        let actual = Actual::of(&ended)?;
        let read = |path| {
            let path = self.folder.join(path);
            input::read_file(&self.settings.files, &path, cases::OUTPUT_BYTES_MAX)
        };
        let mismatches = match case.output_file.as_ref().map(read).transpose() {
            Ok(expected) => judge::mismatches(case, &actual, expected.as_deref(), report.fuel_used),
            Err(failure) => vec![Mismatch::not_run(&failure)],
        };
        Ok(Judged { case, task, actual, report: Some(report), mismatches })
    }

    fn show(&self, judged: &Judged<'_>) -> Result<(), Failure> {
        if self.args.json {
            return console::print_line(&judged.to_json());
        }
        let (style, word) = match judged.mismatches.is_empty() {
            true => (PASSED, "ok    "),
            false => (FAILED, "FAILED"),
        };
        let columns = self.name_columns;
        let name = Escaped(indented(&judged.case.name)).to_string();
        let mut page = format!("{style}{word}{style:#}  {name:<columns$}");
        if let Some(report) = &judged.report {
            let ns = u64::try_from(report.run.as_nanos()).unwrap_or(u64::MAX);
            let fuel = report.fuel_used.map(|fuel| format!("  {fuel:>12} fuel")).unwrap_or_default();
            page.push_str(&format!("  {:>9}{fuel}", show_ns(ns)));
        }
        page.push('\n');
        for mismatch in &judged.mismatches {
            page.push_str(&Escaped(mismatch.to_string()).to_string());
        }
        console::print_page(page)
    }

    fn summarise(&self, passed: usize, failed: usize, filtered: usize) -> Result<(), Failure> {
        if self.args.json {
            let object = Object::new().field("ok", failed == 0).field("passed", passed);
            return console::print_line(&object.field("failed", failed).field("filtered", filtered).finish());
        }
        let (style, word) = if failed == 0 { (PASSED, "ok") } else { (FAILED, "FAILED") };
        let rest = format!("{passed} passed; {failed} failed; {filtered} filtered out");
        console::print_page(format!("\ntest result: {style}{word}{style:#}. {rest}\n"))
    }
}

impl Judged<'_> {
    fn to_json(&self) -> String {
        let object = Object::new()
            .field("name", self.case.name.as_str())
            .field("ok", self.mismatches.is_empty())
            .field("task", self.task.as_deref());
        let object = self.actual.add_to(object);
        let mismatches: Vec<_> = self.mismatches.iter().map(Mismatch::to_json).collect();
        let object = object.field("mismatches", mismatches);
        match &self.report {
            Some(report) => object.raw("report", &object::report(report)),
            None => object,
        }
        .finish()
    }
}
