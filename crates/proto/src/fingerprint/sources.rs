//! Lists the files that determine a build, and hashes them. The build script computes the hash, and the tests
//! check it.

use std::io;
use std::path::{Path, PathBuf};

/// The crates whose sources count, beside this one, where they are beside it: in a published package they are not, and
/// their versions are one version (`=`).
const OTHERS: [&str; 2] = ["../sandbox", "../engine"];

/// Lists the folders that count.
pub(super) fn folders(root: &Path) -> Vec<PathBuf> {
    let others =
        OTHERS.iter().map(|other| root.join(other)).filter(|other| other.join("Cargo.toml").exists());
    std::iter::once(root.to_path_buf()).chain(others).collect()
}

/// Lists the files that count, relative to their folder, in the same order everywhere.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::from("Cargo.toml")];
    walk(folder, Path::new("src"), &mut found)?;
    found.sort();
    Ok(found)
}

fn walk(root: &Path, dir: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(root.join(dir))? {
        let entry = entry?;
        let path = dir.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            walk(root, &path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

/// Hashes the version, and the names and contents of all files that count.
pub(super) fn fingerprint(root: &Path, version: &str) -> io::Result<u64> {
    let mut hash = fnv(0xcbf2_9ce4_8422_2325, version.as_bytes());
    for folder in folders(root) {
        for path in files(&folder)? {
            let bytes = std::fs::read(folder.join(&path))?;
            hash = fnv(hash, path.to_string_lossy().as_bytes());
            hash = fnv(hash, &(bytes.len() as u64).to_le_bytes());
            hash = fnv(hash, &bytes);
        }
    }
    Ok(hash)
}

/// This is FNV-1a with 64 bits. It is no defence against malice, and two halves of one program need none.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
