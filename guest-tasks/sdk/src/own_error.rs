//! A task's own error as its caller gets it: its text, the texts of its causes, and the error
//! itself where its type is marked with [`error`](macro@crate::error).

use std::error::Error;
use std::fmt::Display;

use postcard_schema::schema::NamedType;
use postcard_schema::Schema;
use serde::Serialize;

use crate::answer::{text, Returned, STATUS_ERROR, STATUS_ERROR_IN_PARTS};

/// A host keeps errors of up to this many bytes.
const ERROR_BYTES_MAX: usize = 64 * 1024;
/// A host keeps this many causes; one that is its own cause has no end of them.
const CAUSES_MAX: usize = 32;

/// An error that its caller gets as data: `#[wasmpool_guest::error]` implements it.
pub trait ErrorData: Display + Serialize + Schema {}

/// The envelope of an error.
#[derive(Debug)]
pub struct OwnError(pub(crate) Vec<u8>);

/// An error, of which the compiler finds out what can be told: a macro does not see its type. Of
/// the traits below the first one goes that the error has.
#[derive(Debug)]
pub struct Own<E>(pub E);

/// The error is data.
pub trait ViaData {
    /// The error with its type's data.
    fn own_error(&self) -> OwnError;
}

/// The error may have causes.
pub trait ViaSource {
    /// The error with its causes.
    fn own_error(&self) -> OwnError;
}

/// The error has one inside that may have causes: `anyhow::Error`, `Box<dyn Error>`.
pub trait ViaInner {
    /// The error with the causes of the one inside.
    fn own_error(&self) -> OwnError;
}

/// The error is a text.
pub trait ViaText {
    /// The error's text, in its alternate form.
    fn own_error(&self) -> OwnError;
}

impl<E: ErrorData> ViaData for &&&Own<E> {
    fn own_error(&self) -> OwnError {
        let data = postcard::to_allocvec(&self.0).unwrap_or_default();
        in_parts(&self.0, &[], &data)
    }
}

impl<E: Error> ViaSource for &&Own<E> {
    fn own_error(&self) -> OwnError {
        in_parts(&self.0, &causes(&self.0), &[])
    }
}

impl<E: Display + AsRef<dyn Error>> ViaInner for &Own<E> {
    fn own_error(&self) -> OwnError {
        in_parts(&self.0, &causes(self.0.as_ref()), &[])
    }
}

impl<E: Display> ViaText for Own<E> {
    fn own_error(&self) -> OwnError {
        OwnError(text(STATUS_ERROR, &self.0))
    }
}

fn causes(error: &dyn Error) -> Vec<String> {
    let causes = std::iter::successors(error.source(), |error| (*error).source());
    causes.take(CAUSES_MAX).map(|cause| cause.to_string()).collect()
}

/// The envelope of an error that has causes or data; else, and where these are too long, of its text.
fn in_parts(error: &dyn Display, causes: &[String], data: &[u8]) -> OwnError {
    let as_text = || OwnError(text(STATUS_ERROR, error));
    if causes.is_empty() && data.is_empty() {
        return as_text();
    }
    match postcard::to_extend(&(error.to_string(), causes, data), vec![STATUS_ERROR_IN_PARTS]) {
        Ok(envelope) if envelope.len() <= ERROR_BYTES_MAX => OwnError(envelope),
        _ => as_text(),
    }
}

impl<T, E: ErrorData> Returned<Result<T, E>> {
    /// The type of the error, which is data.
    pub const ERROR: Option<&'static NamedType> = Some(E::SCHEMA);
}

/// See [`Returned`].
pub trait PlainError {
    /// The error, if there is one, is no data.
    const ERROR: Option<&'static NamedType> = None;
}

impl<R> PlainError for Returned<R> {}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug, Serialize, Schema)]
    enum Fault {
        Missing { id: u32 },
    }

    impl Display for Fault {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let Fault::Missing { id } = self;
            write!(f, "no such invoice: {id}")
        }
    }

    impl ErrorData for Fault {}

    #[derive(Debug)]
    struct Outer(Option<std::num::ParseIntError>);

    impl Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("outer")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.0.as_ref().map(|error| error as _)
        }
    }

    /// What a host reads of an envelope: the status, and the parts behind 3.
    fn read(error: &OwnError) -> (String, Vec<String>, Vec<u8>) {
        assert_eq!(error.0[0], STATUS_ERROR_IN_PARTS);
        postcard::from_bytes(&error.0[1..]).unwrap()
    }

    #[test]
    #[expect(clippy::needless_borrow, reason = "which trait goes depends on how often it is borrowed")]
    fn what_can_be_told_of_an_error_is_told() {
        let data = (&&&&Own(Fault::Missing { id: 7 })).own_error();
        assert_eq!(read(&data), ("no such invoice: 7".into(), vec![], vec![0, 7]));
        let outer = (&&&&Own(Outer("x".parse::<u8>().err()))).own_error();
        assert_eq!(read(&outer), ("outer".into(), vec!["invalid digit found in string".into()], vec![]));
        let boxed: Box<dyn Error> = Box::new(Outer("x".parse::<u8>().err()));
        assert_eq!(read(&(&&&&Own(boxed)).own_error()), read(&outer));
        assert_eq!((&&&&Own(Outer(None))).own_error().0, b"\x01outer");
        assert_eq!((&&&&Own("text")).own_error().0, b"\x01text");
        assert_eq!((&&&&Own("long ".repeat(20_000))).own_error().0[0], STATUS_ERROR);
    }

    #[test]
    fn only_an_error_that_is_data_has_a_type() {
        assert!(<Returned<Result<u8, Fault>>>::ERROR.is_some_and(|ty| ty.name == "Fault"));
        assert!(<Returned<Result<u8, String>>>::ERROR.is_none());
        assert!(<Returned<Vec<u8>>>::ERROR.is_none());
    }
}
