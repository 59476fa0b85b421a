//! Frames: sixteen bytes of header, postcard metadata, raw payload.
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 4 | magic and version, `"WP1\0"` |
//! | 4 | 4 | length of the metadata, little endian |
//! | 8 | 8 | length of the payload, little endian |
//!
//! Lengths are checked before anything is allocated for them.

use std::io::{self, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::FRAME_META_BYTES_MAX;
use crate::payload::{INLINE_BYTES, Payload};

pub(crate) const MAGIC: [u8; 4] = *b"WP1\0";
const HEADER_BYTES: usize = 16;

/// A read takes at most this much at once: many small frames, or the start of a large one.
const READ_AHEAD_BYTES: usize = 64 * 1024;

/// Payloads up to here are written together with their header: one wake-up instead of two.
const INLINE_PAYLOAD_BYTES: usize = 8 * 1024;

/// Says why a frame cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame starts with {0:02x?}")]
    Magic([u8; 4]),
    #[error("a frame announces {bytes} bytes of {what}, the limit is {max}")]
    TooLong { what: &'static str, bytes: u64, max: u64 },
    #[error("a frame's metadata is malformed: {0}")]
    Meta(postcard::Error),
    #[error(transparent)]
    Io(io::Error),
}

/// Appends header and metadata of a frame whose payload, of `payload_bytes`, follows.
///
/// # Errors
/// Metadata that postcard cannot encode, or that is over its limit; what is in `head` is then of no
/// use.
pub fn encode_head_into<M: Serialize>(head: &mut Vec<u8>, meta: &M, payload_bytes: usize) -> io::Result<()> {
    let start = head.len();
    head.extend_from_slice(&[0; HEADER_BYTES]);
    head[start..start + 4].copy_from_slice(&MAGIC);
    head[start + 8..start + 16].copy_from_slice(&(payload_bytes as u64).to_le_bytes());
    *head = postcard::to_extend(meta, std::mem::take(head)).map_err(io::Error::other)?;
    let meta_bytes = head.len() - start - HEADER_BYTES;
    if meta_bytes > FRAME_META_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a frame's metadata is too long"));
    }
    head[start + 4..start + 8].copy_from_slice(&(meta_bytes as u32).to_le_bytes());
    Ok(())
}

/// Writes one frame, and returns its length; `scratch` is memory that is used again.
///
/// # Errors
/// Those of [`encode_head_into`], and the writer's.
pub fn write_frame<M: Serialize>(
    to: &mut (impl Write + ?Sized),
    scratch: &mut Vec<u8>,
    meta: &M,
    payload: &[u8],
) -> io::Result<u64> {
    scratch.clear();
    encode_head_into(scratch, meta, payload.len())?;
    let frame_bytes = (scratch.len() + payload.len()) as u64;
    if payload.len() <= INLINE_PAYLOAD_BYTES {
        scratch.extend_from_slice(payload);
        to.write_all(scratch)?;
    } else {
        to.write_all(scratch)?;
        to.write_all(payload)?;
    }
    Ok(frame_bytes)
}

/// A source of frames. It takes what is there, and waits for nothing.
pub trait Source {
    /// Copies out at most `into.len()` bytes; 0 if there are none now.
    ///
    /// # Errors
    /// The source's own.
    fn take(&mut self, into: &mut [u8]) -> io::Result<usize>;

    /// Appends at most `most` bytes, for which there is room without growing; 0 if there are none now.
    ///
    /// # Errors
    /// The source's own.
    fn append(&mut self, into: &mut Vec<u8>, most: usize) -> io::Result<usize>;
}

/// The part of a stream that has been read, up to a frame's payload.
#[derive(Debug)]
pub struct Incoming {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes of the frame's head that must fit.
    head_bytes: usize,
    /// The length of the last frame whose head was complete, with its payload.
    frame_bytes: u64,
}

impl Default for Incoming {
    fn default() -> Self {
        Incoming::new()
    }
}

impl Incoming {
    pub fn new() -> Self {
        let bytes = vec![0; READ_AHEAD_BYTES].into();
        Incoming { bytes, start: 0, end: 0, head_bytes: HEADER_BYTES, frame_bytes: 0 }
    }

    /// Returns whether bytes were read that are part of nothing yet.
    #[inline]
    pub fn has_rest(&self) -> bool {
        self.len() > 0
    }

    #[inline]
    fn len(&self) -> usize {
        self.end - self.start
    }

    /// Metadata and payload length of the next frame, once its head is complete; then its payload is
    /// next. The payload's limit is asked for once the header is there.
    ///
    /// # Errors
    /// [`FrameError`]; after one, the stream is out of step and must be given up.
    pub fn head<M: DeserializeOwned>(
        &mut self,
        payload_bytes_max: impl FnOnce() -> u64,
    ) -> Result<Option<(M, u64)>, FrameError> {
        let unread = &self.bytes[self.start..self.end];
        let Some((header, rest)) = unread.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [m0, m1, m2, m3, l0, l1, l2, l3, p0, p1, p2, p3, p4, p5, p6, p7] = *header;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(FrameError::Magic([m0, m1, m2, m3]));
        }
        let meta_bytes = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let payload_bytes = u64::from_le_bytes([p0, p1, p2, p3, p4, p5, p6, p7]);
        if meta_bytes > FRAME_META_BYTES_MAX {
            let bytes = meta_bytes as u64;
            let max = FRAME_META_BYTES_MAX as u64;
            return Err(FrameError::TooLong { what: "metadata", bytes, max });
        }
        let payload_bytes_max = payload_bytes_max();
        if payload_bytes > payload_bytes_max {
            return Err(FrameError::TooLong {
                what: "payload",
                bytes: payload_bytes,
                max: payload_bytes_max,
            });
        }
        let Some(meta) = rest.get(..meta_bytes) else {
            self.head_bytes = HEADER_BYTES + meta_bytes;
            return Ok(None);
        };
        let meta = match postcard::take_from_bytes(meta) {
            Ok((meta, [])) => meta,
            Ok(_) => return Err(FrameError::Meta(postcard::Error::DeserializeBadEncoding)),
            Err(error) => return Err(FrameError::Meta(error)),
        };
        self.start += HEADER_BYTES + meta_bytes;
        self.head_bytes = HEADER_BYTES;
        self.frame_bytes = (HEADER_BYTES + meta_bytes) as u64 + payload_bytes;
        Ok(Some((meta, payload_bytes)))
    }

    /// Returns at most `most` bytes of the payload, as far as they have been read.
    #[inline]
    pub fn payload(&mut self, most: u64) -> &[u8] {
        let len = usize::try_from(most).unwrap_or(usize::MAX).min(self.len());
        let start = self.start;
        self.start += len;
        &self.bytes[start..start + len]
    }

    /// All of the payload, if it is short and has been read.
    fn few(&mut self, payload_bytes: u64) -> Option<Payload> {
        let len =
            usize::try_from(payload_bytes).ok().filter(|len| *len <= INLINE_BYTES && *len <= self.len())?;
        let few = Payload::inline(&self.bytes[self.start..self.start + len])?;
        self.start += len;
        Some(few)
    }

    /// Reads ahead; `read` as [`Read::read`]. How much came.
    ///
    /// # Errors
    /// What `read` says.
    pub fn fill(&mut self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> Result<usize, FrameError> {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
        if self.bytes.len() - self.start < self.head_bytes.max(READ_AHEAD_BYTES / 2) {
            self.bytes.copy_within(self.start..self.end, 0);
            // The length is that from the old start.
            self.end = self.len();
            self.start = 0;
        }
        if self.bytes.len() < self.head_bytes {
            let mut bytes = std::mem::take(&mut self.bytes).into_vec();
            // The length is bounded by the limit for metadata.
            bytes.resize(self.head_bytes, 0);
            self.bytes = bytes.into();
        }
        let len = read(&mut self.bytes[self.end..]).map_err(FrameError::Io)?;
        self.end += len;
        Ok(len)
    }
}

/// Frames with their payloads, put together from what a [`Source`] has.
#[derive(Debug)]
pub struct Assembly<M> {
    incoming: Incoming,
    /// A frame whose payload is not complete, and what is missing of it.
    partial: Option<(M, Vec<u8>, u64)>,
}

impl<M: DeserializeOwned> Default for Assembly<M> {
    fn default() -> Self {
        Assembly::new()
    }
}

impl<M: DeserializeOwned> Assembly<M> {
    pub fn new() -> Self {
        Assembly { incoming: Incoming::new(), partial: None }
    }

    /// Returns whether a frame has begun that is not complete.
    #[inline]
    pub fn is_amid(&self) -> bool {
        self.partial.is_some() || self.incoming.has_rest()
    }

    /// Returns the length of the frame that [`next`](Self::next) returned last.
    #[inline]
    pub fn frame_bytes(&self) -> u64 {
        self.incoming.frame_bytes
    }

    /// The next frame; `None` if there is no more of it now. The payload's limit is asked for once
    /// its header is there.
    ///
    /// # Errors
    /// [`FrameError`]; after one, the stream is out of step and must be given up.
    pub fn next(
        &mut self,
        from: &mut impl Source,
        payload_bytes_max: impl Fn() -> u64,
    ) -> Result<Option<(M, Payload)>, FrameError> {
        loop {
            match self.partial.take() {
                None => match self.incoming.head(&payload_bytes_max)? {
                    Some((meta, payload_bytes)) => {
                        if let Some(payload) = self.incoming.few(payload_bytes) {
                            return Ok(Some((meta, payload)));
                        }
                        let mut payload = Vec::new();
                        // Memory is committed as the bytes arrive, not as they are announced.
                        let no_memory = |_| FrameError::Io(io::ErrorKind::OutOfMemory.into());
                        payload.try_reserve_exact(payload_bytes as usize).map_err(no_memory)?;
                        payload.extend_from_slice(self.incoming.payload(payload_bytes));
                        let missing = payload_bytes - payload.len() as u64;
                        if missing == 0 {
                            return Ok(Some((meta, payload.into())));
                        }
                        self.partial = Some((meta, payload, missing));
                    }
                    None => {
                        if self.incoming.fill(|room| from.take(room))? == 0 {
                            return Ok(None);
                        }
                    }
                },
                Some((meta, payload, 0)) => return Ok(Some((meta, payload.into()))),
                Some((meta, mut payload, missing)) => {
                    let len = from.append(&mut payload, missing as usize).map_err(FrameError::Io)?;
                    self.partial = Some((meta, payload, missing - len as u64));
                    if len == 0 {
                        return Ok(None);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A stream that has so many bytes at a time.
    struct Pieces<'a>(&'a [u8], usize);

    impl Source for Pieces<'_> {
        fn take(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let len = self.0.len().min(self.1).min(into.len());
            into[..len].copy_from_slice(&self.0[..len]);
            self.0 = &self.0[len..];
            Ok(len)
        }

        fn append(&mut self, into: &mut Vec<u8>, most: usize) -> io::Result<usize> {
            let len = self.0.len().min(self.1).min(most);
            into.extend_from_slice(&self.0[..len]);
            self.0 = &self.0[len..];
            Ok(len)
        }
    }

    type Meta = (u64, String);

    fn frame(meta: &Meta, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &mut Vec::new(), meta, payload).expect("writes to memory");
        bytes
    }

    fn read(
        assembly: &mut Assembly<Meta>,
        from: &mut Pieces<'_>,
    ) -> Result<Option<(Meta, Vec<u8>)>, FrameError> {
        Ok(assembly.next(from, || 1 << 20)?.map(|(meta, payload)| (meta, payload.to_vec())))
    }

    /// Reads any bytes: what is read must lie in them where the head says; what is refused must not be a frame's start.
    fn check_read(bytes: &[u8], most: usize) -> Result<(), TestCaseError> {
        let mut assembly = Assembly::new();
        match read(&mut assembly, &mut Pieces(bytes, most)) {
            Ok(Some((_, payload))) => {
                prop_assert_eq!(&bytes[..4], &MAGIC);
                let number = |range: std::ops::Range<usize>| {
                    bytes[range].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
                };
                let at = HEADER_BYTES + number(4..8);
                prop_assert_eq!(&payload, &bytes[at..at + number(8..16)]);
            }
            Ok(None) => prop_assert_eq!(assembly.is_amid(), !bytes.is_empty()),
            Err(FrameError::Magic(start)) => {
                prop_assert_eq!(&start[..], &bytes[..4]);
                prop_assert_ne!(start, MAGIC);
            }
            Err(FrameError::TooLong { bytes: announced, max, .. }) => prop_assert!(announced > max),
            Err(FrameError::Meta(_)) => prop_assert_eq!(&bytes[..4], &MAGIC),
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn frames_read_back_however_they_come(
            frames in prop::collection::vec((any::<u64>(), any::<String>(), any::<Vec<u8>>(), 0usize..3), 1..8),
            most in 1usize..4000,
        ) {
            let frames: Vec<_> = frames
                .into_iter()
                .map(|(number, text, payload, size)| ((number, text), payload.repeat(1 + size * 999)))
                .collect();
            let bytes: Vec<u8> = frames.iter().flat_map(|(meta, payload)| frame(meta, payload)).collect();
            let mut stream = Pieces(&bytes, most);
            let mut assembly = Assembly::new();
            for expected in frames {
                let got = read(&mut assembly, &mut stream).expect("reads").expect("a frame");
                prop_assert_eq!(got, expected);
            }
            prop_assert!(read(&mut assembly, &mut stream).expect("the end").is_none());
            prop_assert!(!assembly.is_amid());
        }

        #[test]
        fn any_bytes_are_a_frame_or_an_error(bytes: Vec<u8>) {
            check_read(&bytes, 7)?;
        }

        #[test]
        fn a_damaged_frame_is_a_frame_or_an_error(at in 0usize..64, value: u8) {
            let mut bytes = frame(&(7, "hello".into()), &[1; 40]);
            let at = at % bytes.len();
            bytes[at] = value;
            check_read(&bytes, 9)?;
        }
    }

    #[test]
    fn more_frames_than_are_read_ahead_are_read_one_by_one() {
        let payload = [7; 40];
        let count = 4 * READ_AHEAD_BYTES as u64 / 60;
        let bytes: Vec<u8> =
            (0..count).flat_map(|number| frame(&(number, "text".into()), &payload)).collect();
        assert!(bytes.len() > 3 * READ_AHEAD_BYTES);
        let mut stream = Pieces(&bytes, 50_001);
        let mut assembly = Assembly::new();
        for number in 0..count {
            let got = read(&mut assembly, &mut stream).expect("reads").expect("a frame");
            assert_eq!(got, ((number, "text".into()), payload.to_vec()));
        }
        assert!(read(&mut assembly, &mut stream).expect("the end").is_none());
    }

    #[test]
    fn announced_lengths_are_refused_before_allocation() {
        let mut bytes = frame(&(1, String::new()), &[]);
        bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        let error = read(&mut Assembly::new(), &mut Pieces(&bytes, 99)).expect_err("too long");
        assert!(matches!(error, FrameError::TooLong { what: "payload", .. }), "{error}");
    }

    #[test]
    fn a_truncated_frame_is_not_there_yet() {
        let bytes = frame(&(1, "x".into()), b"payload");
        for end in 1..bytes.len() {
            let mut assembly = Assembly::new();
            assert!(read(&mut assembly, &mut Pieces(&bytes[..end], 5)).expect("no error").is_none());
            assert!(assembly.is_amid());
            let frame = read(&mut assembly, &mut Pieces(&bytes[end..], 5)).expect("no error");
            assert_eq!(frame.expect("the rest").1, b"payload");
        }
    }

    #[test]
    fn metadata_larger_than_what_is_read_at_once_fits() {
        let meta = (7, "m".repeat(FRAME_META_BYTES_MAX - 100));
        let bytes = [frame(&meta, b"one"), frame(&(8, String::new()), b"two")].concat();
        let mut stream = Pieces(&bytes, 10_000);
        let mut assembly = Assembly::new();
        assert_eq!(read(&mut assembly, &mut stream).expect("reads"), Some((meta, b"one".to_vec())));
        assert_eq!(read(&mut assembly, &mut stream).expect("reads").expect("another").1, b"two");
    }
}
