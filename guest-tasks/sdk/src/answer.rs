//! From the bytes of an input to the bytes of an envelope. Pure: no pointers,
//! no host, so it is tested natively.
//!
//! An envelope is one status byte and a payload.

use std::any::Any;
use std::convert::Infallible;
use std::fmt::Display;
use std::marker::PhantomData;

use postcard::ser_flavors::Flavor;
use postcard_schema::schema::NamedType;
use postcard_schema::Schema;
use serde::de::DeserializeOwned;
use serde::Serialize;

use crate::own_error::OwnError;

/// The payload is the task's output.
pub const STATUS_OK: u8 = 0;
/// The task returned an error; the payload is its text.
pub const STATUS_ERROR: u8 = 1;
/// The input could not be decoded, so the task did not run; the payload says
/// why.
pub const STATUS_UNDECODABLE: u8 = 2;
/// The task returned an error; the payload is the postcard of its text, the texts of its causes, and
/// its data.
pub const STATUS_ERROR_IN_PARTS: u8 = 3;

/// What a task returns, of the type `R`. A macro sees how a type is spelled, not what it is:
/// `type R = Result<…>` is a `Result` as well, and an error must not count as a success. So the
/// compiler decides: an item of the type itself, here for `Result` only, goes before the one of
/// the trait [`Plain`], which is for every type.
#[allow(missing_debug_implementations, reason = "there is no value of it")]
pub struct Returned<R>(PhantomData<R>);

impl<T: Schema, E> Returned<Result<T, E>> {
    /// The type of a success.
    pub const SCHEMA: &'static NamedType = T::SCHEMA;
}

impl<T, E> Returned<Result<T, E>> {
    /// The result as it is.
    ///
    /// # Errors
    ///
    /// The task's own error.
    // The bound is the function's: were it the block's, a `Result` whose error cannot be shown
    // would be taken for a value.
    pub fn into_result(result: Result<T, E>) -> Result<T, E>
    where
        E: Display,
    {
        result
    }
}

/// See [`Returned`].
pub trait PlainSchema {
    /// The type of what the task returns.
    const SCHEMA: &'static NamedType;
}

impl<R: Schema> PlainSchema for Returned<R> {
    const SCHEMA: &'static NamedType = R::SCHEMA;
}

/// See [`Returned`].
pub trait Plain {
    /// What the task returns.
    type Value;

    /// A value is a success.
    ///
    /// # Errors
    ///
    /// None.
    fn into_result(value: Self::Value) -> Result<Self::Value, Infallible>;
}

impl<R> Plain for Returned<R> {
    type Value = R;

    fn into_result(value: R) -> Result<R, Infallible> {
        Ok(value)
    }
}

/// Decodes all of `input`.
pub(crate) fn decode<T: DeserializeOwned + 'static>(input: &[u8]) -> Result<T, Vec<u8>> {
    // serde takes a vector of bytes one by one, which is the most that a task with a picture does.
    let mut value: Option<T> = None;
    if let Some(bytes) = (&mut value as &mut dyn Any).downcast_mut::<Option<Vec<u8>>>() {
        *bytes = bytes_alone(input);
    }
    if let Some(bytes) = value {
        return Ok(bytes);
    }
    match postcard::take_from_bytes(input) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(text(
            STATUS_UNDECODABLE,
            &format_args!("{} of {} bytes are left over after the input", rest.len(), input.len()),
        )),
        Err(error) => Err(text(STATUS_UNDECODABLE, &error)),
    }
}

/// The bytes, if an input is nothing but their length and they themselves.
fn bytes_alone(input: &[u8]) -> Option<Vec<u8>> {
    let (len, bytes) = postcard::take_from_bytes::<u32>(input).ok()?;
    (len as usize == bytes.len()).then(|| bytes.to_vec())
}

/// The envelope of a typed task's result.
pub(crate) fn typed<T: Serialize + 'static>(result: Result<T, OwnError>) -> Vec<u8> {
    match result {
        Ok(output) => {
            if let Some(bytes) = (&output as &dyn Any).downcast_ref::<Vec<u8>>() {
                return envelope_of_bytes(bytes);
            }
            postcard::serialize_with_flavor(&output, Envelope(vec![STATUS_OK])).unwrap_or_else(
                // The types promise that this does not happen; a hand-written
                // `Serialize` can still refuse.
                |error| text(STATUS_ERROR, &format_args!("failed to encode the output: {error}")),
            )
        }
        Err(OwnError(envelope)) => envelope,
    }
}

fn envelope_of_bytes(bytes: &[u8]) -> Vec<u8> {
    // A length has at most five bytes.
    let mut envelope = Vec::with_capacity(bytes.len() + 6);
    envelope.push(STATUS_OK);
    let mut len = bytes.len();
    while len >= 0x80 {
        envelope.push(len as u8 | 0x80);
        len >>= 7;
    }
    envelope.push(len as u8);
    envelope.extend_from_slice(bytes);
    envelope
}

/// The envelope of a raw task's result.
pub(crate) fn raw<T: Into<Vec<u8>>>(result: Result<T, OwnError>) -> Vec<u8> {
    match result {
        Ok(output) => {
            let mut envelope = output.into();
            envelope.insert(0, STATUS_OK);
            envelope
        }
        Err(OwnError(envelope)) => envelope,
    }
}

pub(crate) fn text(status: u8, error: &dyn Display) -> Vec<u8> {
    let mut envelope = vec![status];
    envelope.extend_from_slice(format!("{error:#}").as_bytes());
    envelope
}

/// Writes the payload straight behind the status byte.
struct Envelope(Vec<u8>);

impl Flavor for Envelope {
    type Output = Vec<u8>;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;
    use crate::own_error::{Own, ViaText as _};

    #[test]
    fn a_value_follows_the_ok_byte_in_postcard() {
        let value = (300_u32, "text".to_owned(), vec![1_u8, 2, 3]);
        let envelope = typed(Ok(value.clone()));
        assert_eq!(envelope[0], STATUS_OK);
        assert_eq!(envelope[1..], postcard::to_allocvec(&value).unwrap());
    }

    #[test]
    fn bytes_are_copied_as_postcard_would_write_and_read_them() {
        for len in [0, 1, 127, 128, 300, 70_000] {
            let bytes: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let encoded = postcard::to_allocvec(&bytes).unwrap();
            assert_eq!(typed(Ok(bytes.clone()))[1..], encoded);
            assert_eq!(decode::<Vec<u8>>(&encoded), Ok(bytes));
            let cut = decode::<Vec<u8>>(&encoded[..encoded.len() - 1]);
            assert_eq!(cut.unwrap_err()[0], STATUS_UNDECODABLE);
            let more = decode::<Vec<u8>>(&[&encoded[..], &[0]].concat());
            assert_eq!(more.unwrap_err()[0], STATUS_UNDECODABLE);
        }
    }

    #[test]
    fn an_error_is_sent_in_its_alternate_form() {
        struct Chain;
        impl Display for Chain {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(if f.alternate() { "outer: inner" } else { "outer" })
            }
        }
        let own = || Own(Chain).own_error();
        assert_eq!(typed(Err::<(), _>(own())), b"\x01outer: inner");
        assert_eq!(raw(Err::<Vec<u8>, _>(own())), b"\x01outer: inner");
    }

    #[test]
    fn an_input_must_be_used_up() {
        assert_eq!(decode::<u64>(&[7]), Ok(7));
        assert_eq!(decode::<()>(&[]), Ok(()));
        let envelope = decode::<u64>(&[7, 8, 9]).unwrap_err();
        assert_eq!(envelope[0], STATUS_UNDECODABLE);
        assert_eq!(&envelope[1..], b"2 of 3 bytes are left over after the input");
        assert_eq!(decode::<()>(&[0]).unwrap_err()[0], STATUS_UNDECODABLE);
    }

    #[test]
    fn an_input_that_ends_early_or_lies_is_refused() {
        for input in [&[][..], &[5, b'a'], &[1, 0xff], &[0xff; 11]] {
            let envelope = decode::<String>(input).unwrap_err();
            assert_eq!(envelope[0], STATUS_UNDECODABLE, "{input:?}");
            assert!(std::str::from_utf8(&envelope[1..]).is_ok_and(|text| !text.is_empty()));
        }
    }

    #[test]
    fn raw_output_is_not_encoded() {
        assert_eq!(raw(Ok(vec![1, 2])), [0, 1, 2]);
        assert_eq!(raw(Ok(Vec::new())), [0]);
    }

    #[test]
    fn an_output_that_refuses_to_be_encoded_is_an_error() {
        struct Refuses;
        impl Serialize for Refuses {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("no"))
            }
        }
        let envelope = typed(Ok(Refuses));
        assert_eq!(envelope[0], STATUS_ERROR);
    }
}
