//! Messages for tests and fuzz targets, which run no task for them.

use crate::message::Verdict;
use crate::trap::{Frame, TrapCode};

/// Returns verdicts of every kind, with texts that a terminal would obey.
pub fn verdicts() -> Vec<Verdict> {
    let backtrace = || vec![Frame::new(Some("fib".into()), 7, Some(0x1234)), Frame::new(None, 8, None)];
    let message = || "it says \u{202e}so".to_string();
    vec![
        Verdict::Ok,
        Verdict::Exited { code: 3 },
        Verdict::Guest,
        Verdict::InputDecode,
        Verdict::Trap { code: TrapCode::Other, message: message(), backtrace: backtrace() },
        Verdict::Trap { code: TrapCode::Unreachable, message: message(), backtrace: Vec::new() },
        Verdict::Panic { message: message(), location: "src/lib.rs:1:1".into(), backtrace: backtrace() },
        Verdict::Interrupted,
        Verdict::Memory { requested: 1 << 40, backtrace: backtrace() },
        Verdict::Table { requested: 1 << 40, backtrace: backtrace() },
        Verdict::InputTooLarge { bytes: 1 << 40 },
        Verdict::Fuel { backtrace: backtrace() },
        Verdict::OutputTooLarge { bytes: 1 << 40 },
        Verdict::LogsTooLarge { bytes: 1 << 40 },
        Verdict::BadPointer { pointer: 1, len: 2, memory_bytes: 3 },
        Verdict::Abi { message: message() },
        Verdict::Instantiate { message: message() },
    ]
}
