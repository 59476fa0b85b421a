//! Bytes, few of them in place: to make room elsewhere for a number takes longer than all else that is
//! done with it.

use std::ops::Deref;

use bytes::Bytes;

/// A payload of up to this many bytes is stored in place, which makes the value no larger.
pub const FEW: usize = 30;

/// An input or an output, as it is kept.
#[derive(Debug, Clone)]
pub enum Octets {
    Few { len: u8, bytes: [u8; FEW] },
    Many(Bytes),
}

impl Octets {
    /// A copy, if they are few.
    #[inline]
    pub fn few(of: &[u8]) -> Option<Octets> {
        let mut bytes = [0; FEW];
        bytes.get_mut(..of.len())?.copy_from_slice(of);
        Some(Octets::Few { len: of.len() as u8, bytes })
    }

    /// Shared with these where they are many.
    #[inline]
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Octets::Few { .. } => Bytes::copy_from_slice(self),
            Octets::Many(bytes) => bytes.clone(),
        }
    }
}

impl Deref for Octets {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Octets::Few { len, bytes } => &bytes[..*len as usize],
            Octets::Many(bytes) => bytes,
        }
    }
}

impl From<Bytes> for Octets {
    #[inline]
    fn from(bytes: Bytes) -> Self {
        Octets::Many(bytes)
    }
}

impl From<Vec<u8>> for Octets {
    #[inline]
    fn from(bytes: Vec<u8>) -> Self {
        Octets::Many(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_are_the_same_bytes() {
        let all: Vec<u8> = (0..=FEW as u8).collect();
        for len in 0..=FEW {
            let few = Octets::few(&all[..len]).expect("few");
            assert_eq!((&*few, &*few.to_bytes()), (&all[..len], &all[..len]));
        }
        assert!(Octets::few(&all).is_none());
        let many = Octets::from(all.clone());
        assert_eq!((&*many, many.to_bytes()), (&*all, Bytes::from(all.clone())));
    }
}
