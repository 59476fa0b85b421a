//! Lists the files that determine a build, and hashes them. The build script computes the hash, and the tests
//! check it.

use std::io;
use std::path::{Path, PathBuf};

/// Nothing that crosses a process boundary can be defined in this part of the sources, since no other part
/// may know it (`tests/architecture.rs`). Every other file counts, so that none can be forgotten.
const COMMAND_LINE: [&str; 3] = ["cli", "cli.rs", "main.rs"];

/// Lists the files that count, relative to the folder of Cargo.toml, in the same order everywhere.
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

/// Hashes the version, and the names and contents of all files that count.
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

/// This is FNV-1a with 64 bits. It is no defence against malice, and two halves of one program need none.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
