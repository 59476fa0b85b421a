//! Tasks that read and write JSON: the input is written as such into the guest's memory, and what the guest has written is
//! read from there. Postcard is on the wire in any case.

use std::borrow::Cow;
use std::io;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::call::{CallPayload, CallResult};
use json::guest::{self, GuestInput, OutputError};
use json::{EncodeError, Undecodable};
use proto::description::TaskDescription;
use proto::guest::own_error::OwnError;
use proto::inbox::{self, Input};
use proto::limits::task::TaskLimits;
use proto::limits::{GUEST_TEXT_BYTES_MAX, JSON_BYTES_PER_BYTE};
use proto::message::RunEnd;

/// The bytes of an input, before they are JSON.
pub(super) struct Encoded(Vec<u8>);

impl Encoded {
    /// Reads an input; or returns how long it is, if there is no memory for it.
    ///
    /// # Errors
    /// If the host is gone.
    pub(super) fn read(input: &mut dyn Input) -> io::Result<Result<Encoded, u64>> {
        Ok(inbox::read_whole(input)?.map(Encoded))
    }

    /// Returns what the guest reads; or the end of a run that cannot begin. An input never has more bytes than the guest's
    /// memory may have, so no more are counted.
    pub(super) fn for_guest<'a>(
        &'a self,
        task: &'a TaskDescription,
        limits: &TaskLimits,
    ) -> Result<JsonInput<'a>, CallResult> {
        let text_max = usize::try_from(limits.memory_bytes_max).unwrap_or(usize::MAX);
        GuestInput::new(&task.input, &self.0, text_max).map(JsonInput::Unread).map_err(|error| {
            let message = match error {
                Undecodable::Bytes(error) => error.to_string(),
                Undecodable::TooLong(bytes) => {
                    format!(
                        "as JSON it has {bytes} bytes or more, and the task's memory has at most {text_max}"
                    )
                }
            };
            text(RunEnd::InputDecode, message)
        })
    }
}

/// The input in the form that is written into the guest's memory.
pub(super) enum JsonInput<'a> {
    Unread(GuestInput<'a>),
    Read,
}

impl Input for JsonInput<'_> {
    fn left(&self) -> u64 {
        match self {
            JsonInput::Unread(input) => input.len() as u64,
            JsonInput::Read => 0,
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<()> {
        if let JsonInput::Unread(input) = self {
            input.write(into);
        }
        self.skip()
    }

    fn skip(&mut self) -> io::Result<()> {
        *self = JsonInput::Read;
        Ok(())
    }
}

/// Returns how many bytes the output of a task may have as its guest writes it.
pub(super) fn written_bytes_max(output_bytes_max: u64) -> u64 {
    // The codec holds the text to a bound of its own, of about this many for each byte of the output.
    output_bytes_max.saturating_mul(2 * JSON_BYTES_PER_BYTE as u64).saturating_add(u64::from(u32::MAX))
}

/// Returns the result of a call of which the guest's words are these.
pub(super) fn ended(task: &TaskDescription, end: RunEnd, written: &[u8], limits: &TaskLimits) -> CallResult {
    match end {
        RunEnd::Ok => match guest::output(&task.output, written, limits.output_bytes_max) {
            Ok(bytes) => owned(RunEnd::Ok, bytes),
            Err(OutputError::TooLong(bytes)) => CallResult::of(RunEnd::OutputTooLarge { bytes }),
            Err(error) => {
                let message = format!("the output is not a {}: {error}", task.output);
                CallResult::of(RunEnd::Abi { message })
            }
        },
        // An error that is not of its type is text: a guest's runtime may have words of its own.
        RunEnd::Guest => match error_data(task, written) {
            Some(Ok(bytes)) => owned(RunEnd::GuestData, bytes),
            Some(Err(_)) | None => owned(RunEnd::Guest, written.to_vec()),
        },
        RunEnd::GuestParts => match serde_json::from_slice::<Parts<'_>>(written) {
            Ok(parts) => in_parts(task, &parts),
            Err(error) => CallResult::of(RunEnd::Abi { message: format!("its error is malformed: {error}") }),
        },
        end => owned(end, written.to_vec()),
    }
}

/// A task's own error in parts, as its guest writes it.
#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(borrow)]
    message: Cow<'a, str>,
    #[serde(borrow, default)]
    chain: Vec<Cow<'a, str>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

fn in_parts(task: &TaskDescription, parts: &Parts<'_>) -> CallResult {
    // The guest's own words are not lost for what is wrong with the data behind them.
    let (data, defect) = match parts.data.map(|data| error_data(task, data.get().as_bytes())) {
        None => (Vec::new(), None),
        Some(Some(Ok(data))) => (data, None),
        Some(Some(Err(error))) => (Vec::new(), Some(format!("its data is not of its type: {error}"))),
        Some(None) => (Vec::new(), Some("its data has no type: the task's result names none".into())),
    };
    let chain = parts.chain.iter().map(|cause| &**cause).chain(defect.as_deref()).collect();
    match postcard::to_stdvec(&OwnError { message: &parts.message, chain, data: &data }) {
        Ok(bytes) => owned(RunEnd::GuestParts, bytes),
        Err(error) => CallResult::of(RunEnd::Abi { message: error.to_string() }),
    }
}

/// Returns the postcard of an error; `None` if the task's errors have no type.
fn error_data(task: &TaskDescription, json: &[u8]) -> Option<Result<Vec<u8>, EncodeError>> {
    Some(guest::own_error(task.error.as_ref()?, json, GUEST_TEXT_BYTES_MAX))
}

fn owned(end: RunEnd, bytes: Vec<u8>) -> CallResult {
    CallResult { payload: CallPayload::Owned(bytes), ..CallResult::of(end) }
}

fn text(end: RunEnd, message: String) -> CallResult {
    owned(end, message.into_bytes())
}
