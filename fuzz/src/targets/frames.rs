//! Frames of either direction, put together from a source that has them in pieces.

use std::io;

use proto::frame::{Assembly, FrameError, Source, write_frame};
use proto::limits::FRAME_META_BYTES_MAX;
use proto::text::is_harmless;
use serde::Serialize;
use serde::de::DeserializeOwned;
use wasmpool::fuzzing::Input;

use crate::bounded::within;

const HEADER_BYTES: usize = 16;

/// Most bytes that one byte of metadata may cost once it is decoded: a frame of a backtrace takes
/// three on the wire, and a vector that grows has twice the room that it needs.
const DECODED_PER_BYTE: usize = 48;

/// What serde reserves at most for a sequence that says how long it will be.
const RESERVED_BYTES: usize = 1024 * 1024;

/// What is read ahead of a frame's end, at most.
const READ_AHEAD_BYTES: usize = 64 * 1024;

/// A source that hands out at most so many bytes at a time, and now and then has nothing yet.
pub(crate) struct Pieces<'a> {
    bytes: &'a [u8],
    at: usize,
    most: usize,
    turns: usize,
}

impl<'a> Pieces<'a> {
    pub(crate) fn new(bytes: &'a [u8], most: usize) -> Self {
        Pieces { bytes, at: 0, most, turns: 0 }
    }

    /// Bytes that were taken.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    fn next(&mut self, most: usize) -> &'a [u8] {
        self.turns += 1;
        if self.most < 16 && self.turns.is_multiple_of(3) {
            return &[];
        }
        let piece = &self.bytes[self.at..];
        let piece = &piece[..piece.len().min(self.most).min(most)];
        self.at += piece.len();
        piece
    }
}

impl Source for Pieces<'_> {
    fn take(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let piece = self.next(into.len());
        into[..piece.len()].copy_from_slice(piece);
        Ok(piece.len())
    }

    fn append(&mut self, into: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        assert!(into.capacity() - into.len() >= most, "there is no room for what is asked for");
        let piece = self.next(most);
        into.extend_from_slice(piece);
        Ok(piece.len())
    }
}

/// What the bytes from here on are, said by a reader that has all of them.
pub(crate) enum Expected<'a, M> {
    Frame(M, &'a [u8]),
    /// There is no more of it.
    Cut,
    Magic,
    TooLong,
    Meta,
}

impl<'a, M: DeserializeOwned> Expected<'a, M> {
    /// And the frame's bytes, header included.
    pub(crate) fn of(stream: &'a [u8], payload_bytes_max: u64) -> (Self, usize) {
        let Some((meta_bytes, payload_bytes)) = announced(stream) else { return (Expected::Cut, 0) };
        if !stream.starts_with(b"WP1\0") {
            return (Expected::Magic, 0);
        }
        if meta_bytes as usize > FRAME_META_BYTES_MAX || payload_bytes > payload_bytes_max {
            return (Expected::TooLong, 0);
        }
        let rest = &stream[HEADER_BYTES..];
        let Some((meta, rest)) = rest.split_at_checked(meta_bytes as usize) else {
            return (Expected::Cut, 0);
        };
        let Ok((message, [])) = postcard::take_from_bytes(meta) else { return (Expected::Meta, 0) };
        let Some(payload) = usize::try_from(payload_bytes).ok().and_then(|len| rest.get(..len)) else {
            return (Expected::Cut, 0);
        };
        (Expected::Frame(message, payload), HEADER_BYTES + meta.len() + payload.len())
    }
}

/// The lengths that a header announces.
fn announced(stream: &[u8]) -> Option<(u32, u64)> {
    let mut header = Input(stream.get(4..HEADER_BYTES)?);
    Some((header.u32(), header.u64()))
}

/// The input: how the stream comes, the limit of a payload, the stream.
pub(super) fn run<M: Serialize + DeserializeOwned>(data: &[u8]) {
    let mut input = Input(data);
    let most = most(input.byte());
    let payload_bytes_max = u64::from(input.u32()) & 0xf_ffff;
    let stream = input.0;
    let (mut source, mut assembly) = (Pieces::new(stream, most), Assembly::<M>::new());
    let mut end = 0;
    // Each turn takes something, or is one of three that do not.
    for _ in 0..3 * stream.len() + 8 {
        let (expected, len) = Expected::<M>::of(&stream[end..], payload_bytes_max);
        let bytes_max = 2 * FRAME_META_BYTES_MAX
            + RESERVED_BYTES
            + payload_bytes_max as usize
            + DECODED_PER_BYTE * stream.len().min(FRAME_META_BYTES_MAX)
            + 4096;
        let read = within(bytes_max, || assembly.next(&mut source, || payload_bytes_max));
        assert!(source.at() <= end + len.max(HEADER_BYTES + FRAME_META_BYTES_MAX) + READ_AHEAD_BYTES);
        match (read, expected) {
            (Ok(Some((message, payload))), Expected::Frame(expected, expected_payload)) => {
                assert_eq!(*payload, *expected_payload);
                assert_eq!(encode(&message), encode(&expected));
                end += len;
                assert!(source.at() >= end && source.at() <= end + READ_AHEAD_BYTES, "read too far");
                round_trip(&message, &payload);
            }
            (Ok(None), Expected::Cut) if source.is_empty() => return,
            (Ok(None), Expected::Frame(..) | Expected::Cut) => {
                assert!(!source.is_empty(), "a frame that is there is not seen");
            }
            (Ok(None), _) => assert!(!source.is_empty(), "an error that is there is not seen"),
            (Ok(Some(_)), _) => panic!("a frame where there is none"),
            (Err(error), expected) => return explain(&error, &expected),
        }
    }
    panic!("it never ends");
}

/// How many bytes come at once: few, or many.
pub(super) fn most(choice: u8) -> usize {
    match usize::from(choice) {
        many @ 128.. => (many - 127) * 1024,
        few => 1 + few,
    }
}

fn encode<M: Serialize>(message: &M) -> Vec<u8> {
    postcard::to_stdvec(message).expect("encodes")
}

/// A message must be read as it was written.
fn round_trip<M: Serialize + DeserializeOwned>(message: &M, payload: &[u8]) {
    // Scratch memory is used again, whatever is in it.
    let (mut written, mut scratch) = (Vec::new(), b"what was before".to_vec());
    if write_frame(&mut written, &mut scratch, message, payload).is_err() {
        panic!("what was read cannot be written");
    }
    let mut source = Pieces::new(&written, written.len());
    let read = Assembly::<M>::new().next(&mut source, || payload.len() as u64);
    let (message, read_payload) = read.expect("what was written reads").expect("it is a frame");
    assert!(source.is_empty());
    let mut again = Vec::new();
    write_frame(&mut again, &mut scratch, &message, &read_payload).expect("writes to memory");
    assert_eq!(written, again);
}

/// An error is the one that the bytes are.
fn explain<M>(error: &FrameError, expected: &Expected<'_, M>) {
    let shown = error.to_string();
    assert!(shown.chars().all(is_harmless) && shown.len() < 300, "{shown:?}");
    let fits = match expected {
        Expected::Magic => matches!(error, FrameError::Magic(_)),
        Expected::TooLong => matches!(error, FrameError::TooLong { .. }),
        Expected::Meta => matches!(error, FrameError::Meta(_)),
        Expected::Frame(..) | Expected::Cut => false,
    };
    assert!(fits, "{error}");
}

/// A seed: the stream in pieces (`most` says how), with these frames in it.
pub(super) fn seed<M: Serialize>(most: u8, payload_bytes_max: u32, frames: &[(M, &[u8])]) -> Vec<u8> {
    let mut seed = vec![most];
    seed.extend(payload_bytes_max.to_le_bytes());
    let mut scratch = Vec::new();
    for (message, payload) in frames {
        write_frame(&mut seed, &mut scratch, message, payload).expect("writes to memory");
    }
    seed
}
