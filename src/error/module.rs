//! The errors of bringing a module in.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::Death;
use proto::imports::component::GUEST_PACKAGE;
use proto::imports::{HOST_MODULE, HostFunction, Preview, SCRIPT_MODULE, ScriptFunction};
use proto::limits::compile::{CompileLimit, ExceededLimit};
use proto::message::CompileError;
use proto::shortage::Shortage;
use proto::text::{Name, Words};

/// The reason why a module cannot be used.
#[derive(Debug, Clone, thiserror::Error, Serialize)]
#[non_exhaustive]
pub enum ModuleError {
    /// The file cannot be read.
    #[error("cannot read {}: {}", Name(path.to_string_lossy()), Words(message))]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's message.
        message: String,
    },
    /// More bytes than [`MODULE_BYTES_MAX`](proto::limits::MODULE_BYTES_MAX), which no setting raises.
    #[error("the module has {bytes} bytes, more than the limit of {max}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// It is not WebAssembly, is cut off, or is not valid.
    #[error("not a valid wasm module: {}", Words(message))]
    Invalid {
        /// The defect, with its offset where that is known.
        message: String,
    },
    /// The module is valid, but needs something that this pool does not have.
    #[error("the module needs {}, which this pool does not offer: {}", Name(feature), Words(message))]
    Unsupported {
        /// The WebAssembly feature's name.
        feature: String,
        /// The validator's words.
        message: String,
    },
    /// Imports that no host function answers.
    #[error(
        "the module imports what this pool does not provide: {}; it provides {}, {}, {} ({}) and {} ({}) to modules, \
         WASI 0.2 and {} to components",
        Name(imports.join(", ")),
        Preview::One.module(),
        Preview::Zero.module(),
        HOST_MODULE,
        HostFunction::names(),
        SCRIPT_MODULE,
        ScriptFunction::names(),
        GUEST_PACKAGE
    )]
    UnknownImports {
        /// Each import as `module.name` with its type, and with the host function's type if that differs.
        imports: Vec<String>,
    },
    /// The custom section `wasmpool.tasks` or the exports break the byte ABI.
    #[error("the module does not keep to the byte ABI: {}", Words(message))]
    Abi {
        /// A description of the defect.
        message: String,
    },
    /// The module's shape, or compiling it, went over one of the [`CompileLimits`](crate::limits::CompileLimits).
    #[error("{}", over(*kind, *limit, *seen, (*function, *offset), others, *quarantined))]
    CompileLimit {
        /// The limit, which knows the setting that raises it.
        kind: CompileLimit,
        /// The limit: bytes, milliseconds or a number, by its kind.
        limit: u64,
        /// The value that was seen. For the shape: the number that the module needs. For memory: the least
        /// that would have been needed, which is the peak plus the allocation that failed. For both times:
        /// the milliseconds of CPU time that the compiler had used when it was killed.
        seen: u64,
        /// The function, by its index in the module (imported ones come first), where it is one function's.
        function: Option<u32>,
        /// The byte of the module where it was seen, of the shape.
        offset: Option<u64>,
        /// The other bounds on the shape that it goes over, so that all can be raised at once.
        others: Vec<ExceededLimit>,
        /// Whether this pool had met the module before, and did not try again.
        quarantined: bool,
    },
    /// One of the [`CompileLimits`](crate::limits::CompileLimits) is more than this process can grant.
    #[error(
        "the compile limit `{}` is {asked}, but no more than {most} can be had: {}", kind.setting(), Words(why)
    )]
    CompileLimitUnavailable {
        /// The limit.
        kind: CompileLimit,
        /// The value that was asked for.
        asked: u64,
        /// The most that it can be set to.
        most: u64,
        /// The reason why there is no more.
        why: String,
    },
    /// The compiler process died.
    #[error("the compiler process died: {death}{}", again(*quarantined))]
    CompilerDied {
        /// The death.
        death: Death,
        /// Whether this pool had met the module before, and did not try again.
        quarantined: bool,
    },
    /// The compiler process could not be started or spoken to.
    #[error("cannot run the compiler process: {}", Words(message))]
    Compiler {
        /// The system's message.
        message: String,
    },
    /// No compiler process could be started for [`NO_COMPILER_AFTER`](proto::limits::NO_COMPILER_AFTER),
    /// because something was short. Loading again is a new try.
    #[error("no compiler process can be started: {shortage}")]
    NoCompiler {
        /// The thing that was short.
        shortage: Shortage,
    },
    /// The module has no task of that name.
    #[error("module {} has no task `{}`{}", Name(module), Name(name), known_tasks(known))]
    UnknownTask {
        /// The module's name.
        module: String,
        /// The value that was asked for.
        name: String,
        /// The tasks that exist.
        known: Vec<String>,
    },
    /// The caller's types and the module's schema disagree.
    #[error(
        "task `{}` of {} has the {} {}, but the caller's type is {}",
        Name(task),
        Name(module),
        Name(side),
        Name(declared),
        Name(asked)
    )]
    SchemaMismatch {
        /// The module's name.
        module: String,
        /// The task.
        task: String,
        /// `input` or `output`.
        side: String,
        /// The type that the module declares.
        declared: String,
        /// The type that the caller asked for.
        asked: String,
    },
    /// A typed handle was asked for a task that takes and returns plain bytes.
    #[error(
        "task `{}` of {} takes and returns plain bytes: ask for it by `raw_task`",
        Name(task),
        Name(module)
    )]
    RawTask {
        /// The module's name.
        module: String,
        /// The task.
        task: String,
    },
    /// A command was asked of a module without `_start`.
    #[error(
        "module {} is not a WASI command: it does not export `_start`{}",
        Name(module),
        known_tasks(known)
    )]
    NotACommand {
        /// The module's name.
        module: String,
        /// The tasks that exist.
        known: Vec<String>,
    },
    /// The pool holds as many modules as [`PoolBuilder::modules_max`](crate::PoolBuilder::modules_max)
    /// allows.
    #[error(
        "{max} modules are held already, no more than that at a time: drop every handle of one first, \
         or raise `modules_max`"
    )]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// The system has no descriptor left for the module or its compiler. Each loaded module needs two.
    #[error(
        "no file descriptor is left for this module: raise the limit of open files (RLIMIT_NOFILE, `ulimit -n`), or drop \
         others that are held: {}",
        Words(message)
    )]
    NoDescriptors {
        /// The system's message.
        message: String,
    },
    /// A version that was to [replace](crate::Pool::replace_module) the module does not fit a handle that somebody holds. The
    /// module is as it was.
    #[error(
        "cannot replace {}, which goes on as it is: a handle is held that the new version does not fit: {why}",
        Name(module)
    )]
    Replacement {
        /// The module that was to be replaced.
        module: String,
        /// The way in which the new one does not fit: a task is missing, or has another type.
        why: Box<ModuleError>,
    },
    /// The module that was to be replaced was loaded by another pool.
    #[error("{} was loaded by another pool: ask that one to replace it", Name(module))]
    ForeignModule {
        /// The module's name.
        module: String,
    },
    /// This process was forked from the one that built the pool, and has none of its workers and threads.
    #[error("the pool is of another process: after a fork, the child builds a pool of its own")]
    OtherProcess,
    /// The pool is shut down or broken.
    #[error("the pool takes no more modules: {}", Words(message))]
    Closed {
        /// The reason.
        message: String,
    },
}

impl ModuleError {
    /// Returns the error's name for programs to branch on, as the command's JSON has it. Names are never changed.
    pub fn kind(&self) -> &'static str {
        match self {
            ModuleError::Read { .. } => "module_unreadable",
            ModuleError::TooLarge { .. } => "module_too_large",
            ModuleError::Invalid { .. } => "module_invalid",
            ModuleError::Unsupported { .. } => "module_unsupported",
            ModuleError::UnknownImports { .. } => "unknown_imports",
            ModuleError::Abi { .. } => "module_abi",
            ModuleError::CompileLimit { .. } => "compile_limit",
            ModuleError::CompileLimitUnavailable { .. } => "compile_limit_unavailable",
            ModuleError::CompilerDied { .. } => "compiler_died",
            ModuleError::Compiler { .. } => "compiler",
            ModuleError::NoCompiler { .. } => "no_compiler",
            ModuleError::UnknownTask { .. } => "unknown_task",
            ModuleError::SchemaMismatch { .. } => "schema_mismatch",
            ModuleError::RawTask { .. } => "raw_task",
            ModuleError::NotACommand { .. } => "not_a_command",
            ModuleError::TooMany { .. } => "too_many_modules",
            ModuleError::NoDescriptors { .. } => "no_descriptors",
            ModuleError::Replacement { .. } => "replacement",
            ModuleError::ForeignModule { .. } => "foreign_module",
            ModuleError::OtherProcess => "other_process",
            ModuleError::Closed { .. } => "pool_closed",
        }
    }
}

fn over(
    kind: CompileLimit,
    limit: u64,
    seen: u64,
    (function, offset): (Option<u32>, Option<u64>),
    others: &[ExceededLimit],
    quarantined: bool,
) -> String {
    let what = match kind {
        CompileLimit::CpuTime => {
            let time = Duration::from_millis;
            format!(
                "compiling took more than {:?} of CPU time and was stopped, after {:?}",
                time(limit),
                time(seen)
            )
        }
        CompileLimit::Time => {
            let time = Duration::from_millis;
            let busy = if seen < limit / 10 { ": the machine was busy" } else { "" };
            format!(
                "compiling took longer than {:?} and was stopped, after {:?} of CPU time{busy}",
                time(limit),
                time(seen)
            )
        }
        CompileLimit::Memory if seen <= limit => {
            format!("compiling needs more memory than the limit of {limit} bytes")
        }
        CompileLimit::Memory => {
            format!("compiling needs at least {seen} bytes of memory, more than the limit of {limit}")
        }
        shape => {
            let function = function.map(|index| format!(" (function {index})")).unwrap_or_default();
            let offset = offset.map(|offset| format!(", at byte {offset}")).unwrap_or_default();
            format!(
                "the module has {seen} {}{function}{offset}, more than the limit of {limit}",
                shape.what()
            )
        }
    };
    let other = |ExceededLimit { kind, limit, seen, .. }: &ExceededLimit| {
        format!("; and {seen} {}, more than {limit} (`{}`)", kind.what(), kind.setting())
    };
    let others: String = others.iter().map(other).collect();
    format!("{what} (the compile limit `{}`){others}{}", kind.setting(), again(quarantined))
}

fn again(quarantined: bool) -> &'static str {
    if quarantined { "; this was found earlier, and the module is in quarantine" } else { "" }
}

impl From<CompileError> for ModuleError {
    fn from(refusal: CompileError) -> ModuleError {
        match refusal {
            CompileError::Invalid { message } => ModuleError::Invalid { message },
            CompileError::Unsupported { feature, message } => ModuleError::Unsupported { feature, message },
            CompileError::UnknownImports { imports } => ModuleError::UnknownImports { imports },
            CompileError::Abi { message } => ModuleError::Abi { message },
            CompileError::CompileLimit { kind, limit, seen, function, offset, mut others } => {
                // No more than one of each kind is meant, whatever the compiler sends.
                others.truncate(CompileLimit::ALL.len());
                ModuleError::CompileLimit { kind, limit, seen, function, offset, others, quarantined: false }
            }
            CompileError::Compiler { message } => ModuleError::Compiler { message },
            CompileError::UnknownTask { module, name, known } => {
                ModuleError::UnknownTask { module, name, known }
            }
            CompileError::NotACommand { module, known } => ModuleError::NotACommand { module, known },
        }
    }
}

impl ModuleError {
    /// Marks an error that was found in quarantine, without another try.
    pub(crate) fn in_quarantine(mut self) -> ModuleError {
        if let ModuleError::CompileLimit { quarantined, .. } | ModuleError::CompilerDied { quarantined, .. } =
            &mut self
        {
            *quarantined = true;
        }
        self
    }
}

fn known_tasks(known: &[String]) -> String {
    match known {
        [] => "; it has no tasks (a module with tasks exports `wasmpool_abi_v1`, or functions over numbers)"
            .into(),
        known => format!(
            "; it has {}",
            known.iter().map(|name| format!("`{}`", Name(name))).collect::<Vec<_>>().join(", ")
        ),
    }
}
