//! Frames: sixteen bytes of header, postcard metadata, raw payload.
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 4 | magic and version, `"WP1\0"` |
//! | 4 | 4 | length of the metadata, little endian |
//! | 8 | 8 | length of the payload, little endian |
//!
//! Lengths are checked before anything is allocated for them.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::FRAME_META_BYTES_MAX;

const MAGIC: [u8; 4] = *b"WP1\0";
const HEADER_BYTES: usize = 16;

/// Payloads up to here are written together with their header: one wake-up instead of two.
const INLINE_PAYLOAD_BYTES: usize = 8 * 1024;

/// Why a frame cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame starts with {0:02x?}")]
    Magic([u8; 4]),
    #[error("a frame announces {bytes} bytes of {what}, the limit is {max}")]
    TooLong { what: &'static str, bytes: u64, max: u64 },
    #[error("a frame's metadata is malformed: {0}")]
    Meta(postcard::Error),
    #[error("the stream ends inside a frame")]
    Truncated,
    #[error(transparent)]
    Io(io::Error),
}

/// Header and metadata of a frame whose payload, of `payload_bytes`, follows.
///
/// # Errors
/// Metadata that postcard cannot encode, or that is over its limit.
pub(crate) fn encode_head<M: Serialize>(meta: &M, payload_bytes: usize) -> io::Result<Vec<u8>> {
    let mut head = vec![0; HEADER_BYTES];
    head[..4].copy_from_slice(&MAGIC);
    head[8..16].copy_from_slice(&(payload_bytes as u64).to_le_bytes());
    let mut head = postcard::to_extend(meta, head).map_err(io::Error::other)?;
    let meta_bytes = head.len() - HEADER_BYTES;
    if meta_bytes > FRAME_META_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a frame's metadata is too long"));
    }
    head[4..8].copy_from_slice(&(meta_bytes as u32).to_le_bytes());
    Ok(head)
}

/// Writes one frame.
///
/// # Errors
/// As [`encode_head`], and what the writer says.
pub(crate) fn write_frame<M: Serialize>(
    to: &mut (impl Write + ?Sized),
    meta: &M,
    payload: &[u8],
) -> io::Result<()> {
    let mut head = encode_head(meta, payload.len())?;
    if payload.len() <= INLINE_PAYLOAD_BYTES {
        head.extend_from_slice(payload);
        return to.write_all(&head);
    }
    to.write_all(&head)?;
    to.write_all(payload)
}

/// Reads one frame; `None` if the stream ends before it starts. The payload's limit is
/// asked for once the header is there, which may be long after the call.
///
/// # Errors
/// [`FrameError`]; after one, the stream is out of step and must be given up.
pub(crate) fn read_frame<M: DeserializeOwned>(
    from: &mut impl Read,
    payload_bytes_max: impl FnOnce() -> u64,
) -> Result<Option<(M, Vec<u8>)>, FrameError> {
    let Some((meta, payload_bytes)) = read_head(from, payload_bytes_max)? else { return Ok(None) };
    Ok(Some((meta, read_exactly(from, payload_bytes)?)))
}

/// A payload; `None` if there was no memory for it.
pub(crate) type Payload = Option<Vec<u8>>;

/// As [`read_frame`], for whoever can say so if there is no memory for a payload, and go on: then
/// there is none, and the stream is in step behind it.
///
/// # Errors
/// As [`read_frame`].
pub(crate) fn read_frame_or_skip<M: DeserializeOwned>(
    from: &mut impl Read,
    payload_bytes_max: impl FnOnce() -> u64,
) -> Result<Option<(M, Payload)>, FrameError> {
    let Some((meta, payload_bytes)) = read_head(from, payload_bytes_max)? else { return Ok(None) };
    match read_exactly(from, payload_bytes) {
        Ok(payload) => Ok(Some((meta, Some(payload)))),
        // Asked for before the first byte is read.
        Err(FrameError::Io(error)) if error.kind() == io::ErrorKind::OutOfMemory => {
            let skipped = io::copy(&mut from.take(payload_bytes), &mut io::sink());
            match skipped.map_err(FrameError::Io)? {
                skipped if skipped == payload_bytes => Ok(Some((meta, None))),
                _ => Err(FrameError::Truncated),
            }
        }
        Err(error) => Err(error),
    }
}

/// A frame's metadata, and how many bytes of payload follow.
fn read_head<M: DeserializeOwned>(
    from: &mut impl Read,
    payload_bytes_max: impl FnOnce() -> u64,
) -> Result<Option<(M, u64)>, FrameError> {
    let mut header = [0; HEADER_BYTES];
    let mut filled = 0;
    while filled < HEADER_BYTES {
        match from.read(&mut header[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(FrameError::Truncated),
            Ok(len) => filled += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(FrameError::Io(error)),
        }
    }
    let [m0, m1, m2, m3, l0, l1, l2, l3, p0, p1, p2, p3, p4, p5, p6, p7] = header;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(FrameError::Magic([m0, m1, m2, m3]));
    }
    let meta_bytes = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let payload_bytes = u64::from_le_bytes([p0, p1, p2, p3, p4, p5, p6, p7]);
    if meta_bytes > FRAME_META_BYTES_MAX {
        let (bytes, max) = (meta_bytes as u64, FRAME_META_BYTES_MAX as u64);
        return Err(FrameError::TooLong { what: "metadata", bytes, max });
    }
    let payload_bytes_max = payload_bytes_max();
    if payload_bytes > payload_bytes_max {
        return Err(FrameError::TooLong { what: "payload", bytes: payload_bytes, max: payload_bytes_max });
    }
    let meta = read_exactly(from, meta_bytes as u64)?;
    let meta = match postcard::take_from_bytes(&meta) {
        Ok((meta, [])) => meta,
        Ok(_) => return Err(FrameError::Meta(postcard::Error::DeserializeBadEncoding)),
        Err(error) => return Err(FrameError::Meta(error)),
    };
    Ok(Some((meta, payload_bytes)))
}

/// `len` bytes; memory is committed as they arrive, not as they are announced.
fn read_exactly(from: &mut impl Read, len: u64) -> Result<Vec<u8>, FrameError> {
    let mut bytes = Vec::new();
    let refused = |_| FrameError::Io(io::ErrorKind::OutOfMemory.into());
    bytes.try_reserve_exact(len as usize).map_err(refused)?;
    match from.take(len).read_to_end(&mut bytes) {
        Ok(read) if read as u64 == len => Ok(bytes),
        Ok(_) => Err(FrameError::Truncated),
        Err(error) => Err(FrameError::Io(error)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(meta: &(u64, String), payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, meta, payload).expect("writes to memory");
        bytes
    }

    proptest! {
        #[test]
        fn a_frame_reads_back(number: u64, text: String, payload: Vec<u8>) {
            let meta = (number, text);
            let bytes = frame(&meta, &payload);
            let mut stream = &bytes[..];
            let read = read_frame::<(u64, String)>(&mut stream, || 1 << 20).expect("reads").expect("a frame");
            prop_assert_eq!(read, (meta, payload));
            prop_assert!(read_frame::<(u64, String)>(&mut stream, || 1 << 20).expect("the end").is_none());
        }

        #[test]
        fn any_bytes_are_a_frame_or_an_error(bytes: Vec<u8>) {
            let _ = read_frame::<(u64, String)>(&mut &bytes[..], || 1 << 20);
        }

        #[test]
        fn a_damaged_frame_is_a_frame_or_an_error(at in 0usize..64, value: u8) {
            let mut bytes = frame(&(7, "hello".into()), &[1; 40]);
            let at = at % bytes.len();
            bytes[at] = value;
            let _ = read_frame::<(u64, String)>(&mut &bytes[..], || 1 << 20);
        }
    }

    #[test]
    fn announced_lengths_are_refused_before_allocation() {
        let mut bytes = frame(&(1, String::new()), &[]);
        bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        let error = read_frame::<(u64, String)>(&mut &bytes[..], || 1 << 20).expect_err("too long");
        assert!(matches!(error, FrameError::TooLong { what: "payload", .. }), "{error}");
    }

    /// No process has so much; that the stream goes on behind one is shown by `tests/isolation`.
    #[test]
    fn a_payload_that_there_is_no_room_for_is_skipped_to_the_end_of_the_stream_at_most() {
        let mut bytes = frame(&(1, String::new()), b"some of it");
        bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        let error = read_frame_or_skip::<(u64, String)>(&mut &bytes[..], || u64::MAX).expect_err("cut off");
        assert!(matches!(error, FrameError::Truncated), "{error}");
        let error = read_frame::<(u64, String)>(&mut &bytes[..], || u64::MAX).expect_err("too large");
        assert!(matches!(error, FrameError::Io(_)), "{error}");
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = frame(&(1, "x".into()), b"payload");
        for end in 1..bytes.len() {
            let error = read_frame::<(u64, String)>(&mut &bytes[..end], || 1 << 20).expect_err("cut off");
            assert!(matches!(error, FrameError::Truncated), "{error}");
        }
    }
}
