//! The file that stands beside a module's machine code and describes it. The compiler writes it; host and workers read
//! it.

use std::fs::File;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use crate::description::ModuleDescription;
use crate::safepoints::Safepoints;

/// Most bytes of a module's description.
pub const DESCRIPTION_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// A description file holds this, after the hash of these bytes.
#[derive(Debug, Serialize, Deserialize, postcard_schema::Schema)]
pub struct Described {
    /// The size of the machine code.
    pub artifact_bytes: u64,
    pub description: ModuleDescription,
    /// The module's functions are the first so many bytes of its machine code; the engine's own pieces stand behind them.
    pub functions_bytes: u64,
    /// There are some where the code reads a polling page.
    pub safepoints: Option<Safepoints>,
}

impl Described {
    /// A module to which nothing was added.
    pub fn new(description: ModuleDescription, artifact_bytes: u64) -> Described {
        Described { artifact_bytes, description, functions_bytes: 0, safepoints: None }
    }
}

/// Returns the bytes of a description file.
///
/// # Errors
/// Only what postcard cannot encode.
pub fn encode(described: &Described) -> postcard::Result<Vec<u8>> {
    let body = postcard::to_stdvec(described)?;
    let mut file = blake3::hash(&body).as_bytes().to_vec();
    file.extend(body);
    Ok(file)
}

/// Reads a description file at offsets: several workers share one open file, and with it one position. Returns `None`
/// if it is too long, damaged or malformed.
pub fn read(file: &File) -> Option<Described> {
    let len = file.metadata().ok()?.len();
    if len > DESCRIPTION_BYTES_MAX {
        return None;
    }
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, 0).ok()?;
    let (hash, body) = bytes.split_first_chunk::<32>()?;
    if blake3::hash(body) != *hash {
        return None;
    }
    let described: Described = postcard::from_bytes(body).ok()?;
    described.description.is_well_formed().then_some(described)
}
