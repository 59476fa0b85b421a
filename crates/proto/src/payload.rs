//! Bytes, inline of them in place: to make room elsewhere for a number takes longer than all else that is
//! done with it.

use std::ops::Deref;

use bytes::Bytes;

/// A payload of up to this many bytes is stored in place, which makes the value no larger.
pub const INLINE_BYTES: usize = 30;

/// An input or an output, as it is kept.
#[derive(Debug, Clone)]
pub enum Payload {
    Inline { len: u8, bytes: [u8; INLINE_BYTES] },
    Heap(Bytes),
}

impl Payload {
    /// Returns a copy that is stored in place, if the bytes are short enough.
    #[inline]
    pub fn inline(of: &[u8]) -> Option<Payload> {
        let mut bytes = [0; INLINE_BYTES];
        bytes.get_mut(..of.len())?.copy_from_slice(of);
        Some(Payload::Inline { len: of.len() as u8, bytes })
    }

    /// Returns the bytes, which share their memory with this value if they are on the heap.
    #[inline]
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Payload::Inline { .. } => Bytes::copy_from_slice(self),
            Payload::Heap(bytes) => bytes.clone(),
        }
    }
}

impl Deref for Payload {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Payload::Inline { len, bytes } => &bytes[..*len as usize],
            Payload::Heap(bytes) => bytes,
        }
    }
}

impl From<Bytes> for Payload {
    #[inline]
    fn from(bytes: Bytes) -> Self {
        Payload::Heap(bytes)
    }
}

impl From<Vec<u8>> for Payload {
    #[inline]
    fn from(bytes: Vec<u8>) -> Self {
        Payload::Heap(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inline_and_on_the_heap_they_are_the_same_bytes() {
        let all: Vec<u8> = (0..=INLINE_BYTES as u8).collect();
        for len in 0..=INLINE_BYTES {
            let inline = Payload::inline(&all[..len]).expect("is short");
            assert_eq!((&*inline, &*inline.to_bytes()), (&all[..len], &all[..len]));
        }
        assert!(Payload::inline(&all).is_none());
        let many = Payload::from(all.clone());
        assert_eq!((&*many, many.to_bytes()), (&*all, Bytes::from(all.clone())));
    }
}
