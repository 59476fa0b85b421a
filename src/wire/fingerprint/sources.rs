//! Which files make a build what it is, and their hash. The build script computes it; the tests hold it.

use std::io;
use std::path::{Path, PathBuf};

/// The part of the sources that nothing which crosses a process boundary is defined in: nobody else may know
/// it (`tests/architecture.rs`). Every other file counts, so that none can be forgotten.
const COMMAND_LINE: [&str; 3] = ["cli", "cli.rs", "main.rs"];

/// The files that count, relative to the folder of Cargo.toml, in one order everywhere.
pub(crate) fn files(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::from("Cargo.toml")];
    walk(root, Path::new("src"), &mut found)?;
    found.sort();
    Ok(found)
}

fn walk(root: &Path, dir: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(root.join(dir))? {
        let entry = entry?;
        let path = dir.join(entry.file_name());
        let is_command_line = COMMAND_LINE.iter().any(|name| path == Path::new("src").join(name));
        if is_command_line {
            continue;
        }
        if entry.file_type()?.is_dir() {
            walk(root, &path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

/// A hash of the version, and of the names and contents of all files that count.
pub(crate) fn fingerprint(root: &Path, version: &str) -> io::Result<u64> {
    let mut hash = fnv(0xcbf2_9ce4_8422_2325, version.as_bytes());
    for path in files(root)? {
        let bytes = std::fs::read(root.join(&path))?;
        hash = fnv(hash, path.to_string_lossy().as_bytes());
        hash = fnv(hash, &(bytes.len() as u64).to_le_bytes());
        hash = fnv(hash, &bytes);
    }
    Ok(hash)
}

/// FNV-1a, 64 bits: no defence against malice, and none is needed between halves of one program.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
