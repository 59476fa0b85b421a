//! The `log` facade, forwarded to the host. Everything is sent: the host
//! filters, bounds and counts.

use log::{LevelFilter, Log, Metadata, Record};

use crate::host::{self, Level};

/// A guest that set its own logger keeps it.
pub(crate) fn install() {
    if log::set_logger(&Forward).is_ok() {
        log::set_max_level(LevelFilter::Trace);
    }
}

struct Forward;

impl Log for Forward {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let level = match record.level() {
            log::Level::Error => Level::Error,
            log::Level::Warn => Level::Warn,
            log::Level::Info => Level::Info,
            log::Level::Debug => Level::Debug,
            log::Level::Trace => Level::Trace,
        };
        match record.args().as_str() {
            Some(message) => host::log(level, record.target(), message, ""),
            None => host::log(level, record.target(), &record.args().to_string(), ""),
        }
    }

    fn flush(&self) {}
}
