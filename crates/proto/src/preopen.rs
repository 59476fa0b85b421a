//! Directories that a pool gives its tasks, knowingly: by default there are none. Vocabulary, no
//! behaviour; the host opens them (`host::dirs`), the worker walls them in (`sandbox::directories`).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Says what tasks may do in a directory of `PoolBuilder::dir`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, postcard_schema::Schema,
)]
#[non_exhaustive]
pub enum DirAccess {
    /// List it, and read what is in it.
    #[default]
    ReadOnly,
    /// Tasks may also create, write, rename and remove what is in it.
    ReadWrite,
}

impl DirAccess {
    pub fn is_writable(self) -> bool {
        self == DirAccess::ReadWrite
    }
}

impl fmt::Display for DirAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            DirAccess::ReadOnly => "ro",
            DirAccess::ReadWrite => "rw",
        })
    }
}

/// One directory, as guests know it. Its descriptor travels beside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
pub struct GuestDir {
    pub guest_path: String,
    pub access: DirAccess,
}

/// Returns what a process is to be able to do because of all of its directories.
pub fn most(accesses: impl IntoIterator<Item = DirAccess>) -> Option<DirAccess> {
    accesses.into_iter().max_by_key(|access| access.is_writable())
}
