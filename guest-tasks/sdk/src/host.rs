//! What the host offers to every guest: two imports of the module `wasmpool`, and what is
//! installed so that ordinary Rust reaches them.

use std::sync::Once;

/// Severity, in the ABI's numbers.
#[allow(dead_code, reason = "without the features of logs, what is printed is information")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Level {
    Error = 1,
    Warn = 2,
    Info = 3,
    Debug = 4,
    Trace = 5,
}

/// Panic hook and loggers, before the first call of an instance. Natively this
/// never runs: tests keep the hooks of their harness.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        std::panic::set_hook(Box::new(report_panic));
        #[cfg(feature = "log")]
        crate::logging::install();
        #[cfg(feature = "tracing")]
        crate::spans::install();
    });
}

/// Tells the host; the trap follows when the hook returns, since guests are
/// built with `panic = "abort"`.
fn report_panic(info: &std::panic::PanicHookInfo<'_>) {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let message = text.or(payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("(not a string)");
    match info.location() {
        Some(at) => panicked(message, at.file(), at.line(), at.column()),
        None => panicked(message, "", 0, 0),
    }
}

#[cfg(target_arch = "wasm32")]
mod imports {
    #[link(wasm_import_module = "wasmpool")]
    unsafe extern "C" {
        #[link_name = "log"]
        pub(super) safe fn log(
            level: u32,
            target_ptr: *const u8,
            target_len: usize,
            msg_ptr: *const u8,
            msg_len: usize,
            fields_ptr: *const u8,
            fields_len: usize,
        );
        #[link_name = "panic"]
        pub(super) safe fn panic(
            msg_ptr: *const u8,
            msg_len: usize,
            file_ptr: *const u8,
            file_len: usize,
            line: u32,
            column: u32,
        );
    }
}

/// Sends one record. `fields` is the text of a JSON object, or empty.
#[allow(dead_code, reason = "natively, and without the features of logs, nothing may call it")]
pub(crate) fn log(level: Level, target: &str, message: &str, fields: &str) {
    #[cfg(target_arch = "wasm32")]
    imports::log(
        level as u32,
        target.as_ptr(),
        target.len(),
        message.as_ptr(),
        message.len(),
        fields.as_ptr(),
        fields.len(),
    );
    #[cfg(not(target_arch = "wasm32"))]
    eprintln!("{level:?} {target}: {message} {fields}");
}

fn panicked(message: &str, file: &str, line: u32, column: u32) {
    #[cfg(target_arch = "wasm32")]
    imports::panic(message.as_ptr(), message.len(), file.as_ptr(), file.len(), line, column);
    #[cfg(not(target_arch = "wasm32"))]
    eprintln!("panicked at {file}:{line}:{column}: {message}");
}
