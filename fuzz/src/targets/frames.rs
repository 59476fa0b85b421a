//! Frames of either direction, read from a stream that comes in pieces.

use std::io::{self, Read};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bounded::within;
use crate::input::Input;
use crate::limits::FRAME_META_BYTES_MAX;
use crate::text::is_harmless;
use crate::wire::frame::{FrameError, read_frame, write_frame};

const HEADER_BYTES: usize = 16;

/// Most bytes that one byte of metadata may cost once it is decoded: a frame of a backtrace takes
/// three on the wire, and a vector that grows has twice the room that it needs.
const DECODED_PER_BYTE: usize = 48;

/// What serde reserves at most for a sequence that says how long it will be.
const RESERVED_BYTES: usize = 1024 * 1024;

/// A stream that hands out at most so many bytes at a time, and is interrupted now and then.
struct Pieces<'a> {
    bytes: &'a [u8],
    most: usize,
    reads: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        if self.most < 16 && self.reads.is_multiple_of(3) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = self.most.min(into.len());
        self.bytes.read(&mut into[..len])
    }
}

/// The input: how the stream comes, the limit of a payload, the stream. `check` is shown what was read.
pub(super) fn run<M: Serialize + DeserializeOwned>(data: &[u8], check: impl Fn(M, Vec<u8>)) {
    let mut input = Input(data);
    let most = 1 + usize::from(input.byte());
    let payload_bytes_max = u64::from(input.u32()) & 0xf_ffff;
    let mut stream = Pieces { bytes: input.0, most, reads: 0 };
    loop {
        let before = stream.bytes;
        let bytes_max = FRAME_META_BYTES_MAX
            + RESERVED_BYTES
            + payload_bytes_max as usize
            + DECODED_PER_BYTE * before.len().min(FRAME_META_BYTES_MAX)
            + 4096;
        let read = within(bytes_max, || read_frame::<M>(&mut stream, || payload_bytes_max));
        let consumed = before.len() - stream.bytes.len();
        let (message, payload) = match read {
            Ok(Some(frame)) => frame,
            Ok(None) => return assert!(before.is_empty(), "bytes were taken for the end"),
            Err(error) => return explain(&error, before, payload_bytes_max),
        };
        assert!(payload.len() as u64 <= payload_bytes_max);
        let (meta_bytes, payload_bytes) = announced(before).expect("a frame has a header");
        assert_eq!(consumed as u64, HEADER_BYTES as u64 + u64::from(meta_bytes) + payload_bytes);
        assert_eq!(payload, &before[consumed - payload.len()..consumed]);
        let meta = &before[HEADER_BYTES..consumed - payload.len()];
        let (_, left_over) = postcard::take_from_bytes::<M>(meta).expect("it was read");
        assert!(left_over.is_empty(), "bytes of the metadata were not looked at");
        round_trip(&message, &payload);
        check(message, payload);
    }
}

/// The lengths that a header announces.
fn announced(stream: &[u8]) -> Option<(u32, u64)> {
    let mut header = Input(stream.get(4..HEADER_BYTES)?);
    Some((header.u32(), header.u64()))
}

/// What is written is what is read.
fn round_trip<M: Serialize + DeserializeOwned>(message: &M, payload: &[u8]) {
    let mut written = Vec::new();
    if write_frame(&mut written, message, payload).is_err() {
        panic!("what was read cannot be written");
    }
    let read = read_frame::<M>(&mut &written[..], || payload.len() as u64);
    let (message, read_payload) = read.expect("what was written reads").expect("it is a frame");
    let mut again = Vec::new();
    write_frame(&mut again, &message, &read_payload).expect("writes to memory");
    assert_eq!(written, again);
}

/// An error is the one that the bytes are.
fn explain(error: &FrameError, stream: &[u8], payload_bytes_max: u64) {
    let shown = error.to_string();
    assert!(shown.chars().all(is_harmless) && shown.len() < 300, "{shown:?}");
    let (meta_bytes, payload_bytes) = match announced(stream) {
        _ if stream.len() >= HEADER_BYTES && !stream.starts_with(b"WP1\0") => {
            return assert!(matches!(error, FrameError::Magic(_)), "{error}");
        }
        None => return assert!(matches!(error, FrameError::Truncated), "{error}"),
        Some(lengths) => lengths,
    };
    if meta_bytes as usize > FRAME_META_BYTES_MAX || payload_bytes > payload_bytes_max {
        return assert!(matches!(error, FrameError::TooLong { .. }), "{error}");
    }
    let follows = (stream.len() - HEADER_BYTES) as u64;
    if follows < u64::from(meta_bytes) + payload_bytes {
        // Malformed metadata is said as soon as it is there.
        let is_meta = follows >= u64::from(meta_bytes) && matches!(error, FrameError::Meta(_));
        return assert!(is_meta || matches!(error, FrameError::Truncated), "{error}");
    }
    assert!(matches!(error, FrameError::Meta(_)), "{error}");
}

/// A seed: the stream in pieces of `most`, with these frames in it.
pub(super) fn seed<M: Serialize>(most: u8, payload_bytes_max: u32, frames: &[(M, &[u8])]) -> Vec<u8> {
    let mut seed = vec![most];
    seed.extend(payload_bytes_max.to_le_bytes());
    for (message, payload) in frames {
        write_frame(&mut seed, message, payload).expect("writes to memory");
    }
    seed
}
