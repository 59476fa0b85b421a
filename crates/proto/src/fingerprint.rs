//! The build's fingerprint: both sides must speak the very same wire.
//!
//! A worker that is started from the host's own executable has the same. So this only ever differs for a
//! `worker_program`, and for cached artifacts.

#[cfg(test)]
mod sources;

/// A hash of the version and of the sources of the wire, the sandbox and the engine. So it covers all that defines the
/// wire, the engine's settings and the cache's content, in whichever file that is. The build script makes it
/// (`build.rs`).
pub const BUILD: u64 = number(env!("WASMPOOL_BUILD"));

const fn number(digits: &str) -> u64 {
    let digits = digits.as_bytes();
    let mut value = 0u64;
    let mut index = 0;
    while index < digits.len() {
        value = value * 10 + (digits[index] - b'0') as u64;
        index += 1;
    }
    value
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const ROOT: &str = env!("CARGO_MANIFEST_DIR");
    const VERSION: &str = env!("CARGO_PKG_VERSION");

    #[test]
    fn the_fingerprint_is_that_of_the_sources_that_were_built() {
        assert_eq!(sources::fingerprint(Path::new(ROOT), VERSION).expect("reads"), BUILD);
    }

    /// Every file counts, so nobody needs to know where the wire's types are defined.
    #[test]
    fn a_change_of_any_file_is_another_build() {
        fn walk(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
            for entry in std::fs::read_dir(dir).expect("reads").flatten() {
                match entry.path() {
                    path if path.is_dir() => walk(&path, found),
                    path => found.push(path),
                }
            }
        }
        let crates = Path::new(ROOT).parent().expect("a folder");
        let copy = tempfile::tempdir().expect("a folder");
        let mut all = Vec::new();
        for folder in sources::folders(Path::new(ROOT)) {
            let folder = folder.canonicalize().expect("is there");
            walk(&folder.join("src"), &mut all);
            all.push(folder.join("Cargo.toml"));
        }
        let all: Vec<_> = all.iter().map(|path| path.strip_prefix(crates).expect("inside")).collect();
        for path in &all {
            let to = copy.path().join(path);
            std::fs::create_dir_all(to.parent().expect("a folder")).expect("makes");
            std::fs::copy(crates.join(path), to).expect("copies");
        }
        let own = Path::new(ROOT).file_name().expect("a name");
        let hash = || sources::fingerprint(&copy.path().join(own), VERSION).expect("reads");
        assert_eq!(hash(), BUILD);
        for path in &all {
            let text = std::fs::read(copy.path().join(path)).expect("reads");
            std::fs::write(copy.path().join(path), [&text[..], b" "].concat()).expect("writes");
            assert_ne!(hash(), BUILD, "{}", path.display());
            std::fs::write(copy.path().join(path), text).expect("writes");
        }
        assert!(all.len() > 60, "{} files", all.len());
        // A new file changes the fingerprint, too.
        std::fs::write(copy.path().join(own).join("src/new.rs"), "").expect("writes");
        assert_ne!(hash(), BUILD);
        assert_ne!(sources::fingerprint(Path::new(ROOT), "0.0.0").expect("reads"), BUILD);
    }
}
