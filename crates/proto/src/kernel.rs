//! Files in which the kernel says something.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Most of these files are shorter, and are read by one call: the kernel says of none how long it is.
const LENGTH: usize = 4096;

/// Reads a file in `/proc` or `/sys`, which only the kernel can put there.
pub fn kernel_text(path: impl AsRef<Path>) -> std::io::Result<String> {
    let path = path.as_ref();
    debug_assert!(path.starts_with("/proc") || path.starts_with("/sys"), "{}", path.display());
    let mut text = String::with_capacity(LENGTH);
    File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
}
