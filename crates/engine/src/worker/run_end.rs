//! Turns the engine's error into the end of its run.

use rustix::io::Errno;
use wasmtime::{Error, GcHeapOutOfMemory, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::linker::TaskState;
use super::loaded::Loaded;
use super::memories::NO_ROOM;
use super::panic_frames;
use proto::limits::{BACKTRACE_FRAMES_MAX, GUEST_TEXT_BYTES_MAX};
use proto::lines::{Place, Within};
use proto::message::{Panicked, RunEnd, Trapped};
use proto::refused;
use proto::text::truncated;
use proto::trap::{Frame, SourceLocation, TrapCode};

/// Bytes of one function's name in a backtrace.
const NAME_BYTES_MAX: usize = 1024;

/// What is known of a run beside its error.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stopped {
    /// The task was to stop.
    pub(super) is_interrupted: bool,
    /// It was stopped at a safepoint: what looks like a trap of its own is none.
    pub(super) at_safepoint: bool,
}

/// Judges a failed call of this module.
pub(super) fn of_error(error: &Error, loaded: &Loaded, state: &TaskState, stopped: Stopped) -> RunEnd {
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        // A system call may have found the page closed that was to stop the task, and the task may have given up for that.
        if stopped.is_interrupted && exit.0 != 0 {
            return RunEnd::Interrupted;
        }
        return RunEnd::Exited { code: exit.0 };
    }
    let trap = error.downcast_ref::<Trap>().copied();
    let mut backtrace = backtrace(error, loaded);
    if state.panic.is_some() || trap == Some(Trap::UnreachableCodeReached) {
        backtrace = panic_frames::left_out(backtrace);
    }
    backtrace.truncate(BACKTRACE_FRAMES_MAX);
    match trap {
        Some(Trap::Interrupt) if stopped.is_interrupted => return RunEnd::Interrupted,
        Some(Trap::MemoryOutOfBounds) if stopped.at_safepoint => return RunEnd::Interrupted,
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
fn backtrace(error: &Error, loaded: &Loaded) -> Vec<Frame> {
    error.downcast_ref::<WasmBacktrace>().map(|backtrace| frames(backtrace, loaded)).unwrap_or_default()
}

/// A stack as one line: the function at hand, and who called whom.
pub(super) fn shown(frames: &[Frame]) -> String {
    let frames: Vec<_> = frames.iter().map(ToString::to_string).collect();
    format!("it is at {}", frames.join(", called by "))
}

/// The frames, of which the engine tells a few, with places in the module as its author wrote it, and in its source where they are known. Functions that were
/// inlined have frames of their own.
fn frames(backtrace: &WasmBacktrace, loaded: &Loaded) -> Vec<Frame> {
    let lines = loaded.lines();
    let mut frames = Vec::new();
    for own in backtrace.frames() {
        let offset = own.module_offset().map(|offset| loaded.original(offset as u64));
        let frame = frame(own.func_name(), own.func_index(), offset);
        let within = lines.zip(offset).map(|(lines, offset)| lines.at(offset));
        match within {
            Some(within) => frames.extend(within.into_iter().map(|within| placed(&frame, within))),
            None => frames.push(frame),
        }
    }
    frames
}

/// Returns the frame of a function whose code is in that of this frame's.
fn placed(own: &Frame, within: Within<'_>) -> Frame {
    let mut frame = match within.inlined {
        None => own.clone(),
        Some(name) => {
            let name = Some(name).filter(|name| !name.is_empty());
            let mut inlined = self::frame(name, own.function_index, own.module_offset);
            inlined.is_inlined = true;
            inlined
        }
    };
    let place = within.place;
    frame.location = place.map(|Place { file, line, column }| SourceLocation::new(file.into(), line, column));
    frame
}

pub(super) fn frame(name: Option<&str>, index: u32, offset: Option<u64>) -> Frame {
    let demangled = |name| format!("{:#}", rustc_demangle::demangle(name));
    Frame::new(name.map(|name| truncated(&demangled(name), NAME_BYTES_MAX)), index, offset)
}
