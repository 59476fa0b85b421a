//! The guest's stdout and stderr: captured whole for a command, line by line into the task log for a task. It is
//! never the worker's own.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::task_log::TaskLog;
use proto::limits::{LOG_RECORD_BYTES_MAX, STDERR_WORDS_BYTES_MAX};
use proto::message::LogSource;
use proto::sync::Lock;

/// A guest is told that it may write this much at once.
const WRITE_BYTES: usize = 64 * 1024;

/// One output stream of a guest.
#[derive(Clone)]
pub(super) struct GuestOutput(Arc<Mutex<Sink>>);

enum Sink {
    Capture {
        bytes: Vec<u8>,
        bytes_max: usize,
        overflow: u64,
    },
    /// `last` is the end of what was written to stderr.
    Lines {
        task_log: TaskLog,
        source: LogSource,
        line: Vec<u8>,
        last: Vec<u8>,
    },
}

impl GuestOutput {
    pub(super) fn capture(bytes_max: u64) -> Self {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        GuestOutput(Arc::new(Mutex::new(Sink::Capture { bytes: Vec::new(), bytes_max, overflow: 0 })))
    }

    pub(super) fn lines(task_log: TaskLog, source: LogSource) -> Self {
        GuestOutput(Arc::new(Mutex::new(Sink::Lines {
            task_log,
            source,
            line: Vec::new(),
            last: Vec::new(),
        })))
    }

    /// Takes what was captured.
    pub(super) fn take(&self) -> Vec<u8> {
        match &mut *self.0.hold() {
            Sink::Capture { bytes, .. } => std::mem::take(bytes),
            Sink::Lines { .. } => Vec::new(),
        }
    }

    /// Returns the end of what a task wrote to stderr.
    pub(super) fn last_words(&self) -> Vec<u8> {
        match &*self.0.hold() {
            Sink::Lines { last, .. } => last[last.len().saturating_sub(STDERR_WORDS_BYTES_MAX)..].to_vec(),
            Sink::Capture { .. } => Vec::new(),
        }
    }

    /// Bytes that were written in all, if that was more than allowed.
    pub(super) fn overflow(&self) -> Option<u64> {
        match &*self.0.hold() {
            Sink::Capture { bytes, overflow, .. } if *overflow > 0 => Some(bytes.len() as u64 + overflow),
            _ => None,
        }
    }

    /// Sends an unfinished last line.
    pub(super) fn flush_line(&self) {
        if let Sink::Lines { task_log, source, line, .. } = &mut *self.0.hold()
            && !line.is_empty()
        {
            // The task log notes it if this is over the limit; the task has ended already.
            let _ = send_line(task_log, *source, line);
            line.clear();
        }
    }
}

fn send_line(task_log: &TaskLog, source: LogSource, line: &[u8]) -> StreamResult<()> {
    let sent = task_log.record(source, 3, "", &String::from_utf8_lossy(line), "");
    sent.map_err(|over| StreamError::Trap(wasmtime::Error::new(over)))
}

/// Appends to what was written; of that a little more than the end is kept, so that not every write moves it.
fn keep_end(last: &mut Vec<u8>, written: &[u8]) {
    last.extend_from_slice(&written[written.len().saturating_sub(STDERR_WORDS_BYTES_MAX)..]);
    if last.len() > 2 * STDERR_WORDS_BYTES_MAX {
        last.drain(..last.len() - STDERR_WORDS_BYTES_MAX);
    }
}

impl Sink {
    fn write(&mut self, written: &[u8]) -> StreamResult<()> {
        match self {
            Sink::Capture { bytes, bytes_max, overflow } => {
                let room = *bytes_max - bytes.len();
                bytes.extend_from_slice(&written[..written.len().min(room)]);
                *overflow += written.len().saturating_sub(room) as u64;
                if *overflow > 0 {
                    return Err(StreamError::Trap(wasmtime::format_err!("the output is over its limit")));
                }
            }
            Sink::Lines { task_log, source, line, last } => {
                if *source == LogSource::Stderr {
                    keep_end(last, written);
                }
                let mut rest = written;
                while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
                    line.extend_from_slice(&rest[..end]);
                    send_line(task_log, *source, line)?;
                    line.clear();
                    rest = &rest[end + 1..];
                }
                line.extend_from_slice(rest);
                // A line without an end is sent in pieces rather than kept.
                if line.len() > LOG_RECORD_BYTES_MAX / 2 {
                    send_line(task_log, *source, line)?;
                    line.clear();
                }
            }
        }
        Ok(())
    }
}

impl IsTerminal for GuestOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestOutput {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // Only WASI 0.3 calls this, and it is not linked.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl OutputStream for GuestOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0.hold().write(&bytes)
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for GuestOutput {
    async fn ready(&mut self) {}
}
