//! Turns the engine's error into the end of its run.

use rustix::io::Errno;
use wasmtime::{Error, GcHeapOutOfMemory, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::linker::TaskState;
use super::memories::NO_ROOM;
use proto::limits::{BACKTRACE_FRAMES_MAX, GUEST_TEXT_BYTES_MAX};
use proto::message::{Panicked, RunEnd, Trapped};
use proto::refused;
use proto::text::truncated;
use proto::trap::{Frame, TrapCode};

/// Bytes of one function's name in a backtrace.
const NAME_BYTES_MAX: usize = 1024;

/// Judges a failed call; `interrupted` says whether this task was to stop.
pub(super) fn of_error(error: &Error, state: &TaskState, interrupted: bool) -> RunEnd {
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return RunEnd::Exited { code: exit.0 };
    }
    let trap = error.downcast_ref::<Trap>().copied();
    let backtrace = backtrace(error);
    match trap {
        Some(Trap::Interrupt) if interrupted => return RunEnd::Interrupted,
        Some(Trap::OutOfFuel) => return RunEnd::Fuel { backtrace },
        _ => {}
    }
    if let Some((message, location)) = &state.panic {
        let message = truncated(message, GUEST_TEXT_BYTES_MAX);
        let location = location.clone();
        return RunEnd::Panic(Box::new(Panicked { message, location, backtrace }));
    }
    // Only two failures surely come of refused memory. Without a backtrace the task never ran, so the memory
    // that its module begins with was refused; or the engine says that its heap of objects is full. A guest
    // whose `memory.grow` is refused is told so and goes on: why it trapped later, only it knows, and its
    // report says that it was refused memory.
    let is_full = error.is::<GcHeapOutOfMemory<()>>();
    if trap.is_none() && (is_full || backtrace.is_empty()) {
        if let Some(requested) = state.budget.refused_entries {
            return RunEnd::Table { requested, backtrace };
        }
        if let Some(requested) = state.budget.refused {
            return RunEnd::Memory { requested, backtrace };
        }
    }
    match trap {
        Some(trap) => {
            RunEnd::Trap(Box::new(Trapped { code: code(trap), message: trap.to_string(), backtrace }))
        }
        None if backtrace.is_empty() => {
            let mut message = truncated(&format!("{error:#}"), GUEST_TEXT_BYTES_MAX);
            if (message.contains(NO_ROOM) || is_out_of_memory(error))
                && let Some(limits) = refused::limits_of_memory()
            {
                message = format!("{message}; {limits}");
            }
            RunEnd::Instantiate { message }
        }
        None => {
            let message = truncated(&format!("{:#}", error.root_cause()), GUEST_TEXT_BYTES_MAX);
            let uncaught = error.is::<wasmtime::ThrownException>();
            let code = if uncaught { TrapCode::UncaughtException } else { TrapCode::Other };
            RunEnd::Trap(Box::new(Trapped { code, message, backtrace }))
        }
    }
}

/// Returns whether the system had no room, where the engine asked it for some.
fn is_out_of_memory(error: &Error) -> bool {
    error.chain().any(|cause| {
        let by_io = cause.downcast_ref::<std::io::Error>().and_then(refused::errno);
        by_io.or_else(|| cause.downcast_ref::<Errno>().copied()) == Some(Errno::NOMEM)
    })
}

fn code(trap: Trap) -> TrapCode {
    match trap {
        Trap::UnreachableCodeReached => TrapCode::Unreachable,
        Trap::MemoryOutOfBounds => TrapCode::MemoryOutOfBounds,
        Trap::TableOutOfBounds => TrapCode::TableOutOfBounds,
        Trap::StackOverflow => TrapCode::StackOverflow,
        Trap::IntegerDivisionByZero => TrapCode::IntegerDivideByZero,
        Trap::IntegerOverflow => TrapCode::IntegerOverflow,
        Trap::BadConversionToInteger => TrapCode::InvalidConversionToInteger,
        Trap::IndirectCallToNull => TrapCode::IndirectCallToNull,
        Trap::BadSignature => TrapCode::IndirectCallTypeMismatch,
        Trap::NullReference => TrapCode::NullReference,
        Trap::CastFailure => TrapCode::CastFailure,
        Trap::ArrayOutOfBounds => TrapCode::ArrayOutOfBounds,
        _ => TrapCode::Other,
    }
}

/// The frames, innermost first, with names where the module has them.
fn backtrace(error: &Error) -> Vec<Frame> {
    error.downcast_ref::<WasmBacktrace>().map(frames).unwrap_or_default()
}

/// A stack as one line: the function at hand, and who called whom.
pub(super) fn shown(backtrace: &WasmBacktrace) -> String {
    let frames: Vec<_> = frames(backtrace).iter().map(ToString::to_string).collect();
    format!("it is at {}", frames.join(", called by "))
}

fn frames(backtrace: &WasmBacktrace) -> Vec<Frame> {
    backtrace
        .frames()
        .iter()
        .take(BACKTRACE_FRAMES_MAX)
        .map(|frame| {
            let demangled = |name| format!("{:#}", rustc_demangle::demangle(name));
            let function = frame.func_name().map(|name| truncated(&demangled(name), NAME_BYTES_MAX));
            Frame::new(function, frame.func_index(), frame.module_offset().map(|offset| offset as u64))
        })
        .collect()
}
