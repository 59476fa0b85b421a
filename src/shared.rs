//! Inputs that many tasks share: one sealed file each, which workers map.
//!
//! Each worker is sent the file once, before the first task that has it. When the last handle and the
//! last task that has it are gone, those that hold it are told.

use std::fmt;
use std::fs::File;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::error::ShareError;
use crate::wire::memfd;
use crate::wire::message::ShareId;

/// A large input of one pool that many tasks share: see [`Pool::share`](crate::Pool::share). Cheap to clone;
/// all clones are the same input.
#[derive(Clone)]
pub struct Shared(Arc<Parts>);

struct Parts {
    pool: u64,
    id: ShareId,
    bytes: u64,
    file: File,
    holders: Mutex<Vec<Weak<dyn Holder>>>,
    living: Arc<AtomicUsize>,
}

/// The host's end of a worker that has been sent some.
pub(crate) trait Holder: Send + Sync {
    /// No task to come has it. Neither waits nor calls anyone, and takes no lock of the pool's.
    fn forget(&self, share: ShareId);
}

impl Shared {
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

    /// Who is to be told of its end.
    pub(crate) fn add_holder(&self, holder: Weak<dyn Holder>) {
        let mut holders = self.0.holders.lock().unwrap_or_else(PoisonError::into_inner);
        // Workers come and go while it stays.
        holders.retain(|holder| holder.strong_count() > 0);
        holders.push(holder);
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.living.fetch_sub(1, Ordering::SeqCst);
        let holders = self.holders.get_mut().unwrap_or_else(PoisonError::into_inner);
        for holder in holders.iter().filter_map(Weak::upgrade) {
            holder.forget(self.id);
        }
    }
}

impl PartialEq for Shared {
    fn eq(&self, other: &Shared) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Shared {}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({} bytes)", self.0.bytes)
    }
}

/// What a pool knows of those that it has made.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    living: Arc<AtomicUsize>,
    made: AtomicU64,
}

impl Shares {
    /// Copies the bytes to a file of their own.
    pub(crate) fn share(
        &self,
        pool: u64,
        bytes: &[u8],
        bytes_max: u64,
        shares_max: usize,
    ) -> Result<Shared, ShareError> {
        let len = bytes.len() as u64;
        if len > bytes_max {
            return Err(ShareError::TooLarge { bytes: len, max: bytes_max });
        }
        let one_more = |living| (living < shares_max).then_some(living + 1);
        let living = &self.living;
        if living.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).is_err() {
            return Err(ShareError::TooMany { max: shares_max });
        }
        let file = memfd::sealed("wasmpool-shared", bytes).map_err(|source| {
            living.fetch_sub(1, Ordering::SeqCst);
            ShareError::System { bytes: len, source }
        })?;
        let id = ShareId(self.made.fetch_add(1, Ordering::Relaxed));
        let (holders, living) = (Mutex::new(Vec::new()), living.clone());
        Ok(Shared(Arc::new(Parts { pool, id, bytes: len, file, holders, living })))
    }
}
