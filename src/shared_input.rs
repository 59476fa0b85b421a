//! Inputs that many tasks share: each is one sealed file, which workers map until it ends (`held.rs`).

use std::fmt;
use std::fs::File;
use std::sync::Arc;

use crate::error::ShareError;
use crate::held::{Held, Life, Permits};
use proto::memfd;
use proto::message::ShareId;

/// A large input of one pool that many tasks share: see [`Pool::share`](crate::Pool::share). Cheap to clone;
/// all clones are the same input.
#[derive(Clone)]
pub struct SharedInput(Arc<Parts>);

struct Parts {
    pool: u64,
    id: ShareId,
    bytes: u64,
    file: File,
    life: Life,
}

impl SharedInput {
    /// Its size in bytes.
    #[expect(clippy::len_without_is_empty, reason = "`len() == 0` says it, and nobody asks")]
    pub fn len(&self) -> u64 {
        self.0.bytes
    }

    pub(crate) fn pool(&self) -> u64 {
        self.0.pool
    }

    pub(crate) fn id(&self) -> ShareId {
        self.0.id
    }

    pub(crate) fn file(&self) -> &File {
        &self.0.file
    }

    pub(crate) fn life(&self) -> &Life {
        &self.0.life
    }
}

impl PartialEq for SharedInput {
    fn eq(&self, other: &SharedInput) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for SharedInput {}

impl fmt::Debug for SharedInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedInput({} bytes)", self.0.bytes)
    }
}

/// The pool's own record of the inputs that it has shared.
#[derive(Debug, Default)]
pub(crate) struct Shares(Permits);

impl Shares {
    /// Copies the bytes to a file of their own.
    pub(crate) fn share(
        &self,
        pool: u64,
        bytes: &[u8],
        bytes_max: u64,
        shares_max: usize,
    ) -> Result<SharedInput, ShareError> {
        let len = bytes.len() as u64;
        if len > bytes_max {
            return Err(ShareError::TooLarge { bytes: len, max: bytes_max });
        }
        let (number, permit) = self.0.take(shares_max).ok_or(ShareError::TooMany { max: shares_max })?;
        let file = memfd::sealed("wasmpool-shared", bytes)
            .map_err(|source| ShareError::System { bytes: len, source })?;
        let id = ShareId(number);
        Ok(SharedInput(Arc::new(Parts {
            pool,
            id,
            bytes: len,
            file,
            life: Life::new(Held::Share(id), permit),
        })))
    }
}
