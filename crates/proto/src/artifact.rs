//! The file that stands beside a module's machine code and describes it. The compiler writes it; host and workers read
//! it.

use std::fs::File;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use crate::description::ModuleDescription;
use crate::limits::LINES_BYTES_MAX;
use crate::safepoints::Safepoints;

/// Most bytes of a module's description.
pub const DESCRIPTION_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Most bytes of the file that it is in, with the table of places in the source behind it.
pub const DESCRIPTION_FILE_BYTES_MAX: u64 = DESCRIPTION_BYTES_MAX + LINES_BYTES_MAX as u64;

/// The bytes before the description: the hash of all behind it but the table, and how many bytes the description has.
const HEAD_BYTES: usize = 32 + 8;

/// A description file holds this, behind its hash and its length; the table of places in the source
/// ([`lines`](crate::lines)) stands behind it, and is read when a task has failed.
#[derive(Debug, Serialize, Deserialize, postcard_schema::Schema)]
pub struct Described {
    /// The size of the machine code.
    pub artifact_bytes: u64,
    pub description: ModuleDescription,
    /// The module's functions are the first so many bytes of its machine code; the engine's own pieces stand behind them.
    pub functions_bytes: u64,
    /// There are some where the code reads a polling page.
    pub safepoints: Option<Safepoints>,
    /// The size of the table of places in the source; 0 where none are known.
    pub lines_bytes: u64,
}

impl Described {
    /// A module to which nothing was added.
    pub fn new(description: ModuleDescription, artifact_bytes: u64) -> Described {
        Described { artifact_bytes, description, functions_bytes: 0, safepoints: None, lines_bytes: 0 }
    }
}

/// Returns the bytes of a description file. The table, of as many bytes as it says, is to be appended.
///
/// # Errors
/// Only what postcard cannot encode.
pub fn encode(described: &Described) -> postcard::Result<Vec<u8>> {
    let body = postcard::to_stdvec(described)?;
    let mut file = hash(&body).to_vec();
    file.extend((body.len() as u64).to_le_bytes());
    file.extend(body);
    Ok(file)
}

fn hash(body: &[u8]) -> [u8; 32] {
    *blake3::hash(body).as_bytes()
}

/// Reads a description file at offsets: several workers share one open file, and with it one position. Returns `None`
/// if it is too long, damaged or malformed. The table behind it is not read: nothing that it has can do more than name a
/// wrong place.
pub fn read(file: &File) -> Option<Described> {
    let len = file.metadata().ok()?.len();
    let mut head = [0; HEAD_BYTES];
    file.read_exact_at(&mut head, 0).ok()?;
    let (hashed, body_len) = head.split_first_chunk::<32>()?;
    let body_len = u64::from_le_bytes(*body_len.first_chunk()?);
    if body_len > DESCRIPTION_BYTES_MAX || body_len > len {
        return None;
    }
    let mut body = vec![0; body_len as usize];
    file.read_exact_at(&mut body, HEAD_BYTES as u64).ok()?;
    if hash(&body) != *hashed {
        return None;
    }
    let described: Described = postcard::from_bytes(&body).ok()?;
    let lines_bytes = len.checked_sub(HEAD_BYTES as u64 + body_len)?;
    let is_whole = described.lines_bytes == lines_bytes && lines_bytes <= LINES_BYTES_MAX as u64;
    (is_whole && described.description.is_well_formed()).then_some(described)
}
