//! Files in which the kernel says something.

use std::path::Path;

/// Reads a file in `/proc` or `/sys`, which only the kernel can put there.
pub(crate) fn kernel_text(path: impl AsRef<Path>) -> std::io::Result<String> {
    let path = path.as_ref();
    debug_assert!(path.starts_with("/proc") || path.starts_with("/sys"), "{}", path.display());
    std::fs::read_to_string(path)
}
