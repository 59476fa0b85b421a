//! A task's own error in parts: what it says, what it comes from, and the error itself as data.

use serde::{Deserialize, Serialize};

use crate::limits::GUEST_TEXT_BYTES_MAX;

/// An error as a guest sends it, in postcard, behind the status byte 3.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnError<'a> {
    /// The error's text, without those of its causes.
    pub message: &'a str,
    /// The texts of its causes, the nearest first.
    #[serde(borrow)]
    pub chain: Vec<&'a str>,
    /// The error in postcard, by the type that the task's description has for it; nothing, if it has none.
    pub data: &'a [u8],
}

impl<'a> OwnError<'a> {
    /// Reads what a guest wrote.
    ///
    /// # Errors
    /// The words for what is wrong with it.
    pub fn read(payload: &'a [u8]) -> Result<OwnError<'a>, String> {
        if payload.len() > GUEST_TEXT_BYTES_MAX {
            return Err(too_long(payload.len()));
        }
        match postcard::take_from_bytes(payload) {
            Ok((error, [])) => Ok(error),
            Ok((_, rest)) => Err(format!("its error has {} bytes left over", rest.len())),
            Err(error) => Err(format!("its error is malformed: {error}")),
        }
    }
}

/// The words for an error of more bytes than are kept.
pub fn too_long(bytes: usize) -> String {
    format!("its error has {bytes} bytes, and {GUEST_TEXT_BYTES_MAX} at most are kept")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_back_and_nothing_else_does() {
        let error = OwnError { message: "no such file", chain: vec!["a", "b"], data: &[1, 2, 3] };
        let bytes = postcard::to_stdvec(&error).expect("encodes");
        assert_eq!(OwnError::read(&bytes), Ok(error));
        for end in 0..bytes.len() {
            assert!(OwnError::read(&bytes[..end]).is_err(), "{end} bytes");
        }
        assert!(OwnError::read(&[&bytes[..], &[0]].concat()).is_err(), "a byte is left over");
        assert!(OwnError::read(&vec![0; GUEST_TEXT_BYTES_MAX + 1]).is_err(), "it is too long");
    }
}
