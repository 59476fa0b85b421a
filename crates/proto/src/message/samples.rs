//! Messages for tests and fuzz targets, which run no task for them.

use crate::message::{Panicked, RunEnd, Trapped};
use crate::trap::{Frame, TrapCode};

/// Returns ends of every kind, with texts that a terminal would obey.
pub fn run_ends() -> Vec<RunEnd> {
    let backtrace = || vec![Frame::new(Some("fib".into()), 7, Some(0x1234)), Frame::new(None, 8, None)];
    let message = || "it says \u{202e}so".to_string();
    let trap = |code, backtrace| RunEnd::Trap(Box::new(Trapped { code, message: message(), backtrace }));
    let panicked = Panicked { message: message(), location: "src/lib.rs:1:1".into(), backtrace: backtrace() };
    vec![
        RunEnd::Ok,
        RunEnd::Exited { code: 3 },
        RunEnd::Guest,
        RunEnd::GuestData,
        RunEnd::GuestParts,
        RunEnd::InputDecode,
        trap(TrapCode::Other, backtrace()),
        trap(TrapCode::Unreachable, Vec::new()),
        RunEnd::Panic(Box::new(panicked)),
        RunEnd::Interrupted,
        RunEnd::Memory { requested: 1 << 40, backtrace: backtrace() },
        RunEnd::Table { requested: 1 << 40, backtrace: backtrace() },
        RunEnd::InputTooLarge { bytes: 1 << 40 },
        RunEnd::Fuel { backtrace: backtrace() },
        RunEnd::OutputTooLarge { bytes: 1 << 40 },
        RunEnd::LogsTooLarge { bytes: 1 << 40 },
        RunEnd::BadPointer { pointer: 1, len: 2, memory_bytes: 3 },
        RunEnd::Abi { message: message() },
        RunEnd::Instantiate { message: message() },
    ]
}
