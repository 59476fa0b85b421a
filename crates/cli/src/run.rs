//! `wasmpool run`: one task, or one command.

use std::path::PathBuf;
use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::args::RunArgs;
use super::call::{Call, CallFuture, CallOutput};
use super::console::{self, Console};
use super::exit::{Exit, Failure};
use super::input::{self, InputArg};
use super::interrupt::{self, StopRequest};
use super::object::{self, Object};
use super::profile::Profile;
use super::result_file::ResultFile;
use super::settings::{self, Settings};
use super::trace::Trace;
use proto::refused::calling;
use wasmpool::task::{CommandOutput, PartialOutput, TaskReport};
use wasmpool::{Module, Pool, TaskFailure};

pub(super) fn run(args: &RunArgs, settings: &Settings, console: &Console) -> Result<Exit, Failure> {
    let target = &args.target;
    let pool = settings.pool_for(target, Pool::builder(), Some(1))?;
    let trace = Trace::begin(target, &settings.files, &pool)?;
    let module = settings::load(&pool, &target.module, settings::module_options(target)?)?;
    let shared = settings::shared_options(&pool, target, &settings.files)?;
    let call = Call::resolve(&pool, &module, target, shared)?;
    let given = given(args, &call, settings)?;
    let prepared = call.prepare(given, None)?;
    let profile = Profile::begin(target, &settings.files, &pool)?;
    let file = ResultFile::open(args.output.as_deref(), &settings.files)?;
    let signals = interrupt::listen();
    let future = Arc::new(call.submit_prepared(&prepared, None)?);
    let result = wait(&future, signals)?;
    let report = future.report();
    // Logs of the guest may still be on their way; they belong before the result.
    pool.shutdown(wasmpool::pool::ShutdownMode::Finish);
    trace.map_or(Ok(()), |trace| trace.end(console))?;
    profile.map_or(Ok(()), |profile| profile.end(module.name(), console))?;
    let dropped = report.log_bytes_dropped.unwrap_or_default();
    if dropped > 0 && !settings.quiet {
        console.say(&format!("warning: {dropped} bytes of the task's logs were dropped: raise --log-limit"));
    }
    match result {
        Ok(output) if args.json => print_json(&output, &call, &module, &report, file),
        Ok(output) => print(&output, &report, (!settings.quiet).then_some(console), file),
        Err(failure) if args.json => {
            let failure = Failure::Task(failure);
            let object = head(&call, &module).field("ok", false).raw("error", &object::error(&failure));
            let object = match (&failure, file) {
                (Failure::Task(task), Some(file)) if let Some(output) = task.output() => {
                    let path = file.path().display().to_string();
                    file.write_partly(&output.stdout)?;
                    object.field("file", path).bytes("stderr", &output.stderr)
                }
                _ => object.partial_output(&failure),
            };
            let line = object.raw("report", &object::report(&report)).into_line();
            console::print_line_by(|out| line.write(out))?;
            Ok(interrupt::exit().unwrap_or(failure.exit()))
        }
        Err(failure) => {
            let printed = match (failure.output(), file) {
                (Some(PartialOutput { stdout, stderr, .. }), Some(file)) => {
                    console::write_stderr(stderr);
                    file.write_partly(stdout)
                }
                (Some(PartialOutput { stdout, stderr, .. }), None) => print_command(stdout, stderr),
                (None, _) => Ok(()),
            };
            match interrupt::exit() {
                Some(exit) => {
                    console.error(&failure.to_string());
                    Ok(exit)
                }
                // The task's failure counts for more than a failure to print what it had written.
                None => Err(failure.into()),
            }
            .inspect_err(|_| {
                if let Err(error) = printed {
                    console.error(&error.to_string());
                }
            })
        }
    }
}

/// Waits for the task, which the first signal stops: what was asked for of it is written all the same.
fn wait(
    future: &Arc<CallFuture>,
    signals: Receiver<StopRequest>,
) -> Result<Result<CallOutput, TaskFailure>, Failure> {
    let stopped = future.clone();
    let stop = move || signals.iter().for_each(|_| stopped.abort());
    let cannot = |error| Failure::Internal(format!("cannot start the thread that stops the task: {error}"));
    std::thread::Builder::new()
        .name("wasmpool-stop".into())
        .spawn(stop)
        .map_err(calling("start a thread"))
        .map_err(cannot)?;
    Ok(future.wait())
}

/// The input is what the arguments say, else stdin. A command reads stdin itself; for a task it is read here,
/// if the task needs an input and stdin is no keyboard.
fn given(args: &RunArgs, call: &Call, settings: &Settings) -> Result<InputArg, Failure> {
    let has_input = args.input.is_some() || args.input_file.is_some();
    let bytes_max = settings::input_bytes_max(&args.target);
    let arguments = args.target.words();
    if let Some(given) =
        input::of_arguments(call.description(), args.target.wave(), &arguments, has_input, bytes_max)?
    {
        return Ok(given);
    }
    if let Some(text) = &args.input {
        return input::typed_input(text, bytes_max);
    }
    let is_stdin = |path: &&PathBuf| call.description().is_none() && path.as_os_str() == "-";
    if let Some(path) = args.input_file.as_ref().filter(|path| !is_stdin(path)) {
        return input::from_file(&settings.files, path, call.description(), bytes_max);
    }
    if args.no_stdin {
        return Ok(InputArg::Nothing);
    }
    let Some(task) = call.description() else { return Ok(InputArg::Stdin) };
    if !input::is_needed(task) || !input::is_piped() {
        return Ok(InputArg::Nothing);
    }
    input::from_stdin(Some(task), bytes_max)
}

/// Prints a result, or writes it to the file.
pub(super) fn print(
    output: &CallOutput,
    report: &TaskReport,
    notes: Option<&Console>,
    file: Option<ResultFile>,
) -> Result<Exit, Failure> {
    let printed = match (file, output) {
        (Some(file), output) => {
            if let CallOutput::Command(output) = output {
                console::write_stderr(&output.stderr);
            }
            file.write(output)
        }
        (None, CallOutput::Json(line)) => console::print_line(line),
        (None, CallOutput::Value(value)) => console::print_line_by(|out| value.write(out)),
        (None, CallOutput::Bytes(bytes)) => console::write_stdout(bytes),
        (None, CallOutput::Command(output)) => print_command(&output.stdout, &output.stderr),
    };
    let exit = exit_of(output, printed)?;
    if let Some(console) = notes {
        if let Exit::Command(code) = exit
            && u8::try_from(code).is_err()
        {
            let code = code.cast_unsigned();
            let shown = exit.code();
            console.say(&format!(
                "the program exited with code {code}: a process can only pass on 0 to 255, so this is {shown}"
            ));
        }
        if exit.code() != 0
            && let Some(refusals) = report.refused()
        {
            console.say(&refusals.to_string());
        }
    }
    Ok(exit)
}

/// Prints what a command wrote, stderr first: if stdout is closed, stderr was still said.
fn print_command(stdout: &[u8], stderr: &[u8]) -> Result<(), Failure> {
    console::write_stderr(stderr);
    console::write_stdout(stdout)
}

fn print_json(
    output: &CallOutput,
    call: &Call,
    module: &Module,
    report: &TaskReport,
    file: Option<ResultFile>,
) -> Result<Exit, Failure> {
    let object = head(call, module);
    let object = match file {
        Some(file) => {
            let path = file.path().display().to_string();
            file.write(output)?;
            let object = output.add_status_to(object).field("file", path);
            match output {
                CallOutput::Command(output) => object.bytes("stderr", &output.stderr),
                _ => object,
            }
        }
        None => output.add_to(object),
    };
    let line = object.raw("report", &object::report(report)).into_line();
    exit_of(output, console::print_line_by(|out| line.write(out)))
}

/// A reader who has left has what they wanted; but a program that failed has failed all the same.
fn exit_of(output: &CallOutput, printed: Result<(), Failure>) -> Result<Exit, Failure> {
    match printed {
        Err(failure) if !failure.is_closed_pipe() => Err(failure),
        _ => Ok(output.exit()),
    }
}

fn head(call: &Call, module: &Module) -> Object {
    Object::new().field("task", call.task_name()).field("module", module.name())
}

impl CallOutput {
    fn exit(&self) -> Exit {
        match self {
            CallOutput::Command(output) => Exit::Command(output.exit_code),
            CallOutput::Json(_) | CallOutput::Value(_) | CallOutput::Bytes(_) => Exit::Success,
        }
    }

    /// Returns whether it is a success: of a command, by its exit code.
    pub(super) fn is_ok(&self) -> bool {
        self.exit().code() == 0
    }

    /// `ok`, and what a command ended with.
    pub(super) fn add_status_to(&self, object: Object) -> Object {
        let object = object.field("ok", self.is_ok());
        match self {
            CallOutput::Command(output) if !self.is_ok() => {
                let object = object.raw("error", &exit_error(output));
                object.field("exit_code", output.exit_code.cast_unsigned())
            }
            CallOutput::Command(output) => object.field("exit_code", output.exit_code.cast_unsigned()),
            CallOutput::Json(_) | CallOutput::Value(_) | CallOutput::Bytes(_) => object,
        }
    }

    /// `ok` and the output. A command that failed has `error` besides.
    pub(super) fn add_to(&self, object: Object) -> Object {
        let object = object.field("ok", self.is_ok());
        match self {
            CallOutput::Json(json) => object.raw("output", json),
            CallOutput::Value(value) => object.value("output", value),
            CallOutput::Bytes(bytes) => object.bytes("output", bytes),
            CallOutput::Command(output) if self.is_ok() => object.command_output(output),
            CallOutput::Command(output) => object.raw("error", &exit_error(output)).command_output(output),
        }
    }
}

fn exit_error(output: &CommandOutput) -> String {
    let message = format!("exited with code {}", output.exit_code.cast_unsigned());
    Object::new().field("kind", "exit").field("message", message).finish()
}
