//! The main thread: one frame in, one task run, one frame out. Over any streams, so that
//! it can be tested without a process.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use super::instance::{Ended, Order, Runner};
use crate::limits::FRAME_PAYLOAD_BYTES_MAX;
use crate::sandbox::LockedDown;
use crate::wire::frame::{read_frame_or_skip, write_frame};
use crate::wire::message::{Cost, FromWorker, ToWorker, Verdict};

/// Runs until the stream ends (which a ring never does: the watcher ends the process).
///
/// # Errors
/// A stream that breaks, or a host that does not speak the protocol.
pub(super) fn run<W: Write + Send + 'static>(
    _: &LockedDown,
    mut from_host: impl Read,
    to_host: &Arc<Mutex<W>>,
    mut runner: Runner,
    claim: impl Fn(u8, u64) -> bool,
) -> io::Result<()> {
    loop {
        let frame = read_frame_or_skip::<ToWorker>(&mut from_host, || FRAME_PAYLOAD_BYTES_MAX);
        let Some((message, input)) = frame.map_err(io::Error::other)? else { return Ok(()) };
        let ToWorker::Run { task, run, claim: index, module, entry, limits } = message;
        // The host may have taken it back while others ran.
        if !claim(index, run) {
            continue;
        }
        let ended = match input {
            Some(input) => runner.run(&Order { task, run, module, entry, limits }, input),
            None => Ended { verdict: Verdict::InputTooLarge, payload: Vec::new(), cost: Cost::default() },
        };
        let done = FromWorker::Done { task, verdict: ended.verdict, cost: ended.cost };
        let mut to_host = to_host.lock().unwrap_or_else(PoisonError::into_inner);
        write_frame(&mut *to_host, &done, &ended.payload)?;
    }
}
