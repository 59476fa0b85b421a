//! Every way to end: failures, their exit codes, and their names in JSON.

use std::io;
use std::path::{Path, PathBuf};

use super::origin;
use proto::text::{Name, Words};
use wasmpool::error::{BuildError, Death, DeathCause, ModuleError, ShareError, SubmitError};
use wasmpool::internal::{SETTINGS, Setting};
use wasmpool::limits::{CompileLimit, ExceededLimit};
use wasmpool::{TaskError, TaskFailure};

/// The end of this process. The codes are decided here and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// Everything was done.
    Success,
    /// The task failed.
    Task,
    /// `test`: some cases failed.
    CaseFailed,
    /// The arguments or the input are wrong. Also clap's own code.
    Usage,
    /// The module cannot be used.
    Module,
    /// `map`: some inputs failed.
    PartialFailure,
    /// The failure is neither the task's nor the caller's doing.
    Internal,
    /// A signal asked for the end; the code is the one that shells show.
    Interrupted(u8),
    /// The command ends with the exit code of the WASI command that it ran.
    Command(i32),
}

impl Exit {
    pub(super) fn code(self) -> u8 {
        match self {
            Exit::Success | Exit::Command(0) => 0,
            Exit::Task | Exit::CaseFailed => 1,
            Exit::Usage => 2,
            Exit::Module => 3,
            Exit::PartialFailure => 4,
            Exit::Internal => 5,
            Exit::Interrupted(code) => code,
            // The system keeps eight bits; a failure must not become a success by that.
            Exit::Command(code) => ((code & 0xff) as u8).max(1),
        }
    }
}

/// The reason why a command stopped.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The arguments do not go together, or not with the module.
    #[error("{0}")]
    Usage(String),
    /// The input cannot be read, or does not fit the task.
    #[error("{0}")]
    Input(String),
    /// The module has nothing that could be called.
    #[error("{0}")]
    Uncallable(String),
    #[error("{}", with_flag(.0))]
    Module(ModuleError),
    /// The module in this file cannot be loaded.
    #[error("{}", of_file(file, error))]
    Load { file: PathBuf, error: Box<ModuleError> },
    #[error("{}", of_build(.0))]
    Build(BuildError),
    #[error("{}", with_sources(.0))]
    Share(ShareError),
    #[error(transparent)]
    Submit(#[from] SubmitError),
    #[error(transparent)]
    Task(#[from] TaskFailure),
    /// A command's exit code, where one was wanted that says success.
    #[error("{0}")]
    Exited(String),
    /// Something of this machine, that is in the way of all inputs.
    #[error("{0}")]
    Internal(String),
    #[error("cannot write to stdout: {0}")]
    Output(io::Error),
}

// `#[from]` would make them sources, and print twice what `Display` says already.
impl From<ModuleError> for Failure {
    fn from(error: ModuleError) -> Self {
        Failure::Module(error)
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        Failure::Build(error)
    }
}

impl From<ShareError> for Failure {
    fn from(error: ShareError) -> Self {
        Failure::Share(error)
    }
}

impl Failure {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Failure::Usage(_) | Failure::Input(_) => Exit::Usage,
            Failure::Uncallable(_) => Exit::Module,
            Failure::Module(error) => module_exit(error),
            Failure::Load { error, .. } => module_exit(error),
            Failure::Build(
                BuildError::Workers { .. }
                | BuildError::Setting { .. }
                | BuildError::Directory { .. }
                | BuildError::CacheDir { .. },
            ) => Exit::Usage,
            Failure::Build(_) => Exit::Internal,
            Failure::Share(ShareError::System { .. }) => Exit::Internal,
            Failure::Share(_) => Exit::Usage,
            Failure::Submit(
                SubmitError::Encode { .. }
                | SubmitError::InputTooLarge { .. }
                | SubmitError::NoRoomInMap { .. }
                | SubmitError::Unrepresentable { .. }
                | SubmitError::StdinTaken { .. }
                | SubmitError::StdinReadOnce { .. }
                | SubmitError::TooManyShared { .. },
            ) => Exit::Usage,
            Failure::Submit(_) => Exit::Internal,
            Failure::Task(failure)
                if matches!(
                    failure.error(),
                    TaskError::Broken(_) | TaskError::WorkerDied(_) | TaskError::NoWorker(_)
                ) =>
            {
                Exit::Internal
            }
            Failure::Task(_) | Failure::Exited(_) => Exit::Task,
            // A reader who closed the pipe has what they wanted.
            Failure::Output(_) if self.is_closed_pipe() => Exit::Success,
            Failure::Output(_) | Failure::Internal(_) => Exit::Internal,
        }
    }

    /// Returns whether the reader of stdout went away, as `head` does.
    pub(super) fn is_closed_pipe(&self) -> bool {
        matches!(self, Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Returns whether the pool is lost, so that nothing more can be submitted.
    pub(super) fn is_end_of_pool(&self) -> bool {
        match self {
            Failure::Submit(error) => matches!(error, SubmitError::Broken(_) | SubmitError::ShutDown { .. }),
            Failure::Task(failure) => {
                matches!(failure.error(), TaskError::Broken(_) | TaskError::NoWorker(_))
            }
            _ => false,
        }
    }

    /// Returns its name in JSON, for programs to branch on.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Failure::Usage(_) => "usage",
            Failure::Input(_) => "input",
            Failure::Uncallable(_) => "unknown_task",
            Failure::Module(error) => error.kind(),
            Failure::Load { error, .. } => error.kind(),
            Failure::Build(_) => "pool",
            Failure::Share(_) => "share",
            Failure::Submit(error) => error.kind(),
            Failure::Task(failure) => failure.error().kind(),
            Failure::Exited(_) => "exit",
            Failure::Internal(_) => "system",
            Failure::Output(_) => "stdout",
        }
    }
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

/// The command says what was typed, where the table of settings has a flag for the builder's method.
fn of_build(error: &BuildError) -> String {
    match error {
        BuildError::Setting { setting, value, must } => {
            let is_it =
                |row: &&Setting| row.method.split_once("::").is_some_and(|(_, name)| name == *setting);
            let flag = SETTINGS.iter().find(is_it).and_then(|row| row.flag);
            let name = flag.map_or(setting.to_string(), |flag| format!("--{flag}"));
            format!("{} is {value}, but must be {}", origin::told(&name), Words(must))
        }
        error => with_sources(error),
    }
}

/// A limit of the compiler comes with the flag that raises it.
fn with_flag(error: &ModuleError) -> String {
    let flag = match error {
        ModuleError::CompileLimit { kind: CompileLimit::CpuTime, .. } => "--compile-cpu-time".to_string(),
        ModuleError::CompileLimit { kind: CompileLimit::Time, .. } => "--compile-timeout".to_string(),
        ModuleError::CompileLimit { kind: CompileLimit::Memory, .. } => "--compile-memory".to_string(),
        ModuleError::CompileLimit { kind, seen, others, .. } => {
            let mut flags = format!("--compile-limit {kind}={seen}");
            for ExceededLimit { kind, seen, .. } in others {
                flags += &format!(" --compile-limit {kind}={seen}");
            }
            format!("{flags} or, for a module that you trust, --trust-module")
        }
        _ => return error.to_string(),
    };
    format!("{error}; raise it with {flag}")
}

fn of_file(file: &Path, error: &ModuleError) -> String {
    match error {
        // This error names the file itself.
        ModuleError::Read { .. } => error.to_string(),
        _ => format!("{}: {}", Name(file.to_string_lossy()), with_flag(error)),
    }
}

fn module_exit(error: &ModuleError) -> Exit {
    match error {
        // These errors are about this machine, not about the module.
        ModuleError::CompilerDied {
            death: Death { cause: DeathCause::CpuTimeUsedUp { .. }, .. }, ..
        } => Exit::Internal,
        ModuleError::Compiler { .. }
        | ModuleError::CompileLimitUnavailable { .. }
        | ModuleError::NoCompiler { .. }
        | ModuleError::Closed { .. }
        | ModuleError::TooMany { .. }
        | ModuleError::NoDescriptors { .. }
        | ModuleError::OtherProcess => Exit::Internal,
        _ => Exit::Module,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commands_failure_never_becomes_a_success() {
        for (code, seen) in [(0, 0), (3, 3), (255, 255), (256, 1), (-1, 255), (257, 1)] {
            assert_eq!(Exit::Command(code).code(), seen, "{code}");
        }
    }

    #[test]
    fn a_closed_pipe_is_a_quiet_end() {
        let closed = Failure::Output(io::ErrorKind::BrokenPipe.into());
        assert_eq!((closed.is_closed_pipe(), closed.exit()), (true, Exit::Success));
        let full = Failure::Output(io::ErrorKind::StorageFull.into());
        assert_eq!((full.is_closed_pipe(), full.exit()), (false, Exit::Internal));
    }
}
