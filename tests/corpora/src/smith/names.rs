//! A name for every outcome, and whether it may be.

use wasmpool::TaskError;
use wasmpool::error::{ModuleError, TrapCode};
use wasmpool::module::ModuleKind;

/// The outcome of a load or a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) name: String,
    /// It is set if nothing that a module is or does explains the outcome.
    pub(crate) unexplained: bool,
}

fn fine(name: impl Into<String>) -> Named {
    Named { name: name.into(), unexplained: false }
}

fn bad(name: impl Into<String>) -> Named {
    Named { name: name.into(), unexplained: true }
}

pub(crate) fn of_load(loaded: &Result<ModuleKind, ModuleError>) -> Named {
    match loaded {
        Ok(kind) => fine(format!("loaded: {kind:?}")),
        Err(error) => match error {
            ModuleError::Invalid { .. } => fine("Invalid"),
            ModuleError::Unsupported { .. } => fine("Unsupported"),
            ModuleError::UnknownImports { .. } => fine("UnknownImports"),
            ModuleError::Abi { .. } => fine("Abi"),
            ModuleError::CompileLimit { .. } => fine("CompileLimit"),
            ModuleError::TooLarge { .. } => fine("TooLarge"),
            ModuleError::CompilerDied { .. } => bad("CompilerDied"),
            ModuleError::Compiler { .. } => bad("Compiler"),
            ModuleError::Closed { .. } => bad("Closed"),
            _ => bad("a ModuleError of no known name"),
        },
    }
}

pub(crate) fn of_task<T>(ran: &Result<T, TaskError>) -> Named {
    let Err(error) = ran else { return fine("succeeded") };
    match error {
        // The name leaves out the numbers.
        TaskError::Trap { code: TrapCode::Other, message, .. } => fine(format!(
            "Trap: {}",
            message.trim_start_matches("wasm trap: ").split([':', '[']).next().unwrap_or(message)
        )),
        TaskError::Trap { code, .. } => fine(format!("Trap: {code:?}")),
        TaskError::Panic { .. } => fine("Panic"),
        TaskError::Guest { .. } => fine("Guest"),
        TaskError::InputDecode { .. } => fine("InputDecode"),
        TaskError::Timeout { killed: false, .. } => fine("Timeout"),
        TaskError::Timeout { killed: true, .. } => bad("Timeout, killed"),
        TaskError::Memory { .. } => fine("Memory"),
        TaskError::Table { .. } => fine("Table"),
        TaskError::Fuel { .. } => fine("Fuel"),
        TaskError::OutputTooLarge { .. } => fine("OutputTooLarge"),
        TaskError::LogsTooLarge { .. } => fine("LogsTooLarge"),
        TaskError::Exit { .. } => fine("Exit"),
        TaskError::BadPointer { .. } => fine("BadPointer"),
        TaskError::Abi { .. } => fine("Abi"),
        TaskError::Instantiate { .. } => fine("Instantiate"),
        TaskError::InputTooLarge { .. } => bad("InputTooLarge"),
        TaskError::OutputDecode { .. } => bad("OutputDecode"),
        TaskError::Aborted { .. } => bad("Aborted"),
        TaskError::Cancelled => bad("Cancelled"),
        TaskError::WorkerDied(_) => bad("WorkerDied"),
        TaskError::Broken(_) => bad("Broken"),
        _ => bad("a TaskError of no known name"),
    }
}
