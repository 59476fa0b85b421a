//! Calls a task, with or without types, or a command, and reads its result.

use std::os::fd::AsFd as _;
use std::sync::Arc;

use bytes::Bytes;

use super::args::Target;
use super::exit::Failure;
use super::input::{self, InputArg};
use json::{LARGE_BYTES, LargeValue, Undecodable};
use proto::description::find_task;
use proto::limits;
use proto::limits::FRAME_META_BYTES_MAX;
use wasmpool::error::SubmitError;
use wasmpool::internal;
use wasmpool::module::{Codec, ModuleKind, RawTask, TaskDescription};
use wasmpool::task::{CommandInput, CommandOutput, TaskId, TaskReport};
use wasmpool::{Command, Module, Pool, TaskError, TaskFailure, TaskFuture, TaskOptions};

/// The name that the pool and its reports use for a command's task.
const COMMAND: &str = "_start";

/// This stands for the input where an argument has it.
const PLACEHOLDER: &str = "{}";

/// Something of a module that can be called with one input after the other.
#[derive(Debug)]
pub(super) struct Call {
    pool: Pool,
    options: TaskOptions,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Task { handle: RawTask, description: Arc<TaskDescription> },
    Command { handle: Command, args: Vec<String>, env: Vec<(String, String)> },
}

/// A call under way.
#[derive(Debug)]
pub(super) enum CallFuture {
    Task {
        future: TaskFuture<Bytes>,
        description: Arc<TaskDescription>,
        /// The JSON that is printed may have this many bytes, plus what the result's own bytes account for.
        output_max: usize,
    },
    Command(TaskFuture<CommandOutput>),
}

/// A call that may be submitted, and submitted again: the input is encoded, and shared by all of them.
#[derive(Debug, Clone)]
pub(super) enum Prepared {
    Task(Bytes),
    Command(CommandInput),
}

impl Prepared {
    /// Returns how many bytes it takes in this process until it is done.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Prepared::Task(input) => input.len(),
            Prepared::Command(input) => internal::command_input_bytes(input),
        }
    }
}

/// The result of a call.
#[derive(Debug)]
pub(super) enum CallOutput {
    /// A typed task's result is one line of JSON.
    Json(String),
    /// A typed task's result that is large, or bytes, becomes JSON when it is written.
    Value(LargeValue),
    /// An untyped task's result is bytes.
    Bytes(Bytes),
    /// A command's result, whatever its exit code.
    Command(CommandOutput),
}

impl Call {
    /// Finds what `target` names; without a name, the only task there is.
    pub(super) fn resolve(
        pool: &Pool,
        module: &Module,
        target: &Target,
        options: TaskOptions,
    ) -> Result<Call, Failure> {
        let description = module.description();
        let is_command = description.kind == ModuleKind::Command;
        let has_task = |name: &str| find_task(&description.tasks, name).is_some();
        let kind = match target.task_name() {
            None if is_command => {
                let args = target.args.clone();
                let env = target.env.clone();
                Kind::Command { handle: module.command()?, args, env }
            }
            Some(task) if is_command && !has_task(task) => {
                let names: Vec<_> = description.tasks.iter().map(|task| format!("`{}`", task.name)).collect();
                let others = match &names[..] {
                    [] => String::new(),
                    names => format!(", but {}", names.join(", ")),
                };
                return Err(Failure::Uncallable(format!(
                    "{} is a WASI command and has no task `{task}`{others}; arguments for it follow `--`",
                    module.name()
                )));
            }
            Some(task) => Kind::task(module, task)?,
            None => match &description.tasks[..] {
                [only] => Kind::task(module, &only.name)?,
                // `command()` fails here, and its error says what the module lacks.
                [] => Kind::Command { handle: module.command()?, args: Vec::new(), env: Vec::new() },
                several => {
                    let names: Vec<_> = several.iter().map(|task| format!("`{}`", task.name)).collect();
                    let name = module.name();
                    let names = names.join(", ");
                    return Err(Failure::Usage(format!("{name} has several tasks: name one of {names}")));
                }
            },
        };
        if matches!(kind, Kind::Task { .. }) && !target.env.is_empty() {
            let name = module.name();
            return Err(Failure::Usage(format!("{name} has tasks: --env is for WASI commands")));
        }
        Ok(Call { pool: pool.clone(), options, kind })
    }

    /// The most bytes that a map over this call may hold (`set`, if it is given), and the most bytes of one
    /// result.
    pub(super) fn map_bytes_max(&self, set: Option<u64>) -> (u64, u64) {
        internal::map_bytes_max(&self.pool, matches!(self.kind, Kind::Command { .. }), &self.options, set)
    }

    /// The most bytes of one result if the task may return nothing, which is what its error takes.
    pub(super) fn least_result_bytes(&self) -> u64 {
        let options = self.options.clone().output_bytes_max(0);
        internal::map_bytes_max(&self.pool, matches!(self.kind, Kind::Command { .. }), &options, None).1
    }

    /// The task's name; none for a command.
    pub(super) fn task_name(&self) -> Option<&str> {
        self.description().map(|description| description.name.as_str())
    }

    /// The task's description; none for a command.
    pub(super) fn description(&self) -> Option<&TaskDescription> {
        match &self.kind {
            Kind::Task { description, .. } => Some(description),
            Kind::Command { .. } => None,
        }
    }

    /// Submits one input. `label` appears in errors and logs; `placeholder` is what `{}` in a
    /// command's arguments stands for, if it is not the input itself.
    pub(super) fn submit(
        &self,
        given: InputArg,
        label: Option<&str>,
        placeholder: Option<&str>,
    ) -> Result<CallFuture, Failure> {
        self.submit_prepared(&self.prepare(given, placeholder)?, label)
    }

    /// Encodes one input, as [`submit`](Self::submit) does.
    pub(super) fn prepare(&self, given: InputArg, placeholder: Option<&str>) -> Result<Prepared, Failure> {
        match &self.kind {
            Kind::Task { description, .. } => Ok(Prepared::Task(input::encode(description, given)?)),
            Kind::Command { args, env, .. } => {
                let mut input = command_input(args, given, placeholder)?;
                for (name, value) in env {
                    input = input.env(name, value);
                }
                Ok(Prepared::Command(input))
            }
        }
    }

    /// Submits what this call has prepared.
    pub(super) fn submit_prepared(
        &self,
        prepared: &Prepared,
        label: Option<&str>,
    ) -> Result<CallFuture, Failure> {
        let options = match label {
            Some(label) => self.options.clone().label(label),
            None => self.options.clone(),
        };
        match (&self.kind, prepared) {
            (Kind::Task { handle, description }, Prepared::Task(input)) => {
                let future = self.pool.submit_with(handle, input, options)?;
                let output_max =
                    internal::output_bytes_max(&self.options).unwrap_or(limits::task::OUTPUT_BYTES_MAX);
                // The pool lets no larger output through.
                let output_max = output_max.min(limits::FRAME_PAYLOAD_BYTES_MAX as usize / 2);
                Ok(CallFuture::Task { future, description: description.clone(), output_max })
            }
            (Kind::Command { handle, .. }, Prepared::Command(input)) => {
                Ok(CallFuture::Command(self.pool.submit_with(handle, input, options)?))
            }
            (Kind::Task { .. }, Prepared::Command(_)) | (Kind::Command { .. }, Prepared::Task(_)) => {
                Err(Failure::Internal("an input was prepared for another call".into()))
            }
        }
    }

    /// Checks what [`submit`](Self::submit) would refuse, without submitting.
    pub(super) fn check(&self, given: InputArg, placeholder: Option<&str>) -> Result<(), Failure> {
        match &self.kind {
            Kind::Task { description, .. } => input::encode(description, given).map(drop),
            Kind::Command { args, env, .. } => {
                check_placeholder(args, placeholder)?;
                let args: Vec<_> = args.iter().map(|arg| with_placeholder(arg, placeholder)).collect();
                Ok(internal::check_texts(COMMAND, &args, env)?)
            }
        }
    }

    /// Says in words what would be run with this input.
    pub(super) fn show(&self, module: &str, stdin: &str, placeholder: Option<&str>) -> String {
        match &self.kind {
            Kind::Task { description, .. } => format!("{module} {} < {stdin}", description.name),
            Kind::Command { args, .. } => {
                let args =
                    args.iter().map(|arg| arg.replace(PLACEHOLDER, placeholder.unwrap_or(PLACEHOLDER)));
                let words: Vec<_> = std::iter::once(module.to_string()).chain(args).collect();
                format!("{} < {stdin}", words.join(" "))
            }
        }
    }

    /// Returns whether the arguments have a place for each input: then stdin does not carry it.
    pub(super) fn has_placeholder(&self) -> bool {
        match &self.kind {
            Kind::Task { .. } => false,
            Kind::Command { args, .. } => args.iter().any(|arg| arg.contains(PLACEHOLDER)),
        }
    }
}

impl Kind {
    fn task(module: &Module, name: &str) -> Result<Kind, Failure> {
        let handle = module.raw_task(name)?;
        let tasks = &module.description().tasks;
        match find_task(tasks, name).and_then(|index| tasks.get(index)) {
            Some(description) => Ok(Kind::Task { handle, description: Arc::new(description.clone()) }),
            None => Err(Failure::Uncallable(format!("{} does not describe `{name}`", module.name()))),
        }
    }
}

/// Refuses what is too long before it is made: a long input may stand in many places.
fn check_placeholder(args: &[String], placeholder: Option<&str>) -> Result<(), Failure> {
    let places: usize = args.iter().map(|arg| arg.matches(PLACEHOLDER).count()).sum();
    let bytes = places.saturating_mul(placeholder.map_or(0, str::len));
    let max = FRAME_META_BYTES_MAX / 2;
    if bytes <= max {
        return Ok(());
    }
    let task = COMMAND.to_string();
    Err(Failure::Submit(SubmitError::InputTooLarge { task, bytes, max }))
}

fn command_input(
    args: &[String],
    given: InputArg,
    placeholder: Option<&str>,
) -> Result<CommandInput, Failure> {
    check_placeholder(args, placeholder)?;
    let args = args.iter().map(|arg| with_placeholder(arg, placeholder));
    let input = CommandInput::new().args(args);
    Ok(match given {
        InputArg::Stdin => match std::io::stdin().as_fd().try_clone_to_owned() {
            Ok(stdin) => input.stdin_from(stdin),
            Err(error) => return Err(Failure::Input(format!("cannot read stdin: {error}"))),
        },
        other => input.stdin(other.into_bytes()),
    })
}

fn with_placeholder(arg: &str, placeholder: Option<&str>) -> String {
    placeholder.map_or_else(|| arg.to_string(), |placeholder| arg.replace(PLACEHOLDER, placeholder))
}

impl CallFuture {
    /// Sends `number` when it is done, at once if it is.
    pub(super) fn announce(&self, to: &crossbeam_channel::Sender<usize>, number: usize) {
        match self {
            CallFuture::Task { future, .. } => internal::announce(future, to, number),
            CallFuture::Command(future) => internal::announce(future, to, number),
        }
    }

    pub(super) fn task_id(&self) -> TaskId {
        match self {
            CallFuture::Task { future, .. } => future.task_id(),
            CallFuture::Command(future) => future.task_id(),
        }
    }

    /// Cancels it, if it has not begun.
    pub(super) fn cancel(&self) {
        match self {
            CallFuture::Task { future, .. } => future.cancel(),
            CallFuture::Command(future) => future.cancel(),
        };
    }

    /// Stops it, if it runs; it then ends with a failure.
    pub(super) fn abort(&self) {
        match self {
            CallFuture::Task { future, .. } => future.abort(),
            CallFuture::Command(future) => future.abort(),
        };
    }

    /// Waits for the result. Output that does not fit the task's own schema is the task's
    /// failure.
    pub(super) fn wait(&self) -> Result<CallOutput, TaskFailure> {
        match self {
            CallFuture::Task { future, description, output_max } => {
                let bytes = future.result()?;
                if description.codec == Codec::Raw {
                    return Ok(CallOutput::Bytes(bytes));
                }
                let output_max = *output_max;
                let read = match bytes.len() > LARGE_BYTES || description.output.is_bytes() {
                    false => json::decode(&description.output, &bytes, output_max).map(CallOutput::Json),
                    true => json::check(&description.output, &bytes, output_max).map(|()| {
                        CallOutput::Value(LargeValue { description: description.clone(), bytes, output_max })
                    }),
                };
                read.map_err(|error| {
                    let error = match error {
                        Undecodable::Bytes(error) => TaskError::OutputDecode { message: error.to_string() },
                        Undecodable::TooLong(bytes) => {
                            TaskError::OutputTooLarge { limit: output_max as u64, bytes: bytes as u64 }
                        }
                    };
                    internal::failure(future, error, self.report())
                })
            }
            CallFuture::Command(future) => match future.result() {
                Ok(output) => Ok(CallOutput::Command(output)),
                Err(failure) => match failure.error() {
                    TaskError::Exit { output } => Ok(CallOutput::Command(output.clone())),
                    _ => Err(failure),
                },
            },
        }
    }

    /// Returns what the call cost, once it is done.
    pub(super) fn report(&self) -> TaskReport {
        match self {
            CallFuture::Task { future, .. } => future.report(),
            CallFuture::Command(future) => future.report(),
        }
        .unwrap_or_default()
    }
}
