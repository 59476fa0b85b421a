//! What the kernel says in files.

use std::path::Path;

/// The text of a file of the kernel's (`/proc`, `/sys`), which nobody else can put there.
pub(crate) fn kernel_text(path: impl AsRef<Path>) -> std::io::Result<String> {
    let path = path.as_ref();
    debug_assert!(path.starts_with("/proc") || path.starts_with("/sys"), "{}", path.display());
    std::fs::read_to_string(path)
}
