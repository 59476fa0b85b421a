//! Compiled modules on disk, by content.
//!
//! Two files a module: the artifact (`.cwasm`, machine code as the engine wrote it) and
//! its description (`.desc`), which holds the artifact's hash, its own, and their name. The name
//! holds the digest of the wasm and the fingerprint of everything else that shaped the machine
//! code. Anything that does not fit is compiled again, never loaded: machine code is run.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::module::{Digest, ModuleDescription};
use crate::wire::fingerprint;

/// Most bytes of a description file in the cache.
const DESCRIPTION_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// A compiled module, ready for workers.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) description: ModuleDescription,
    pub(crate) artifact: File,
    pub(crate) description_file: File,
}

/// What a description file holds, after the hash of these bytes.
#[derive(Serialize, Deserialize)]
struct Body {
    /// The name of the entry that it belongs to; empty until it is stored.
    entry: String,
    artifact_blake3: [u8; 32],
    artifact_bytes: u64,
    description: ModuleDescription,
}

/// The bytes of a description file.
///
/// # Errors
/// Only what postcard cannot encode.
pub(super) fn describe_artifact(
    description: ModuleDescription,
    artifact: &[u8],
) -> postcard::Result<Vec<u8>> {
    let artifact_blake3 = *blake3::hash(artifact).as_bytes();
    let artifact_bytes = artifact.len() as u64;
    Body { entry: String::new(), artifact_blake3, artifact_bytes, description }.to_file()
}

impl Body {
    fn to_file(&self) -> postcard::Result<Vec<u8>> {
        let body = postcard::to_stdvec(self)?;
        let mut file = blake3::hash(&body).as_bytes().to_vec();
        file.extend(body);
        Ok(file)
    }
}

/// Reads a description file, in whichever process.
pub(crate) fn read_description(file: &File) -> Option<ModuleDescription> {
    read_body(file).map(|body| body.description)
}

/// Reads at offsets: several workers share one open file, and with it one position.
fn read_body(file: &File) -> Option<Body> {
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
    let body: Body = postcard::from_bytes(body).ok()?;
    body.description.is_well_formed().then_some(body)
}

impl Compiled {
    /// What the compiler process has just written. `None` if it is not what it should be.
    pub(crate) fn read(artifact: File, description_file: File, artifact_bytes: u64) -> Option<Compiled> {
        let body = read_body(&description_file)?;
        (body.artifact_bytes == artifact_bytes).then_some(Compiled {
            description: body.description,
            artifact,
            description_file,
        })
    }
}

/// A directory of compiled modules that belongs to this user alone.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
}

/// The name of an entry.
pub(crate) struct CacheKey(String);

impl CacheKey {
    pub(crate) fn new(digest: Digest, metered: bool) -> CacheKey {
        let kind = if metered { "metered" } else { "plain" };
        CacheKey(format!("{digest}-{:016x}-{:016x}-{kind}", fingerprint::BUILD, cpu_fingerprint()))
    }
}

/// Machine code is made for this processor's features.
fn cpu_fingerprint() -> u64 {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let features = cpuinfo.lines().find(|line| line.starts_with("flags") || line.starts_with("Features"));
    let hash = blake3::hash(features.unwrap_or_default().as_bytes());
    u64::from_le_bytes(std::array::from_fn(|index| hash.as_bytes()[index]))
}

impl Cache {
    /// `$XDG_CACHE_HOME/wasmpool`, else `$HOME/.cache/wasmpool`.
    pub(crate) fn default_dir() -> Option<PathBuf> {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
        Some(base.join("wasmpool"))
    }

    /// Opens or makes the directory. `None`, with a warning, if others may write to it:
    /// the pool then works without a cache.
    pub(crate) fn open(dir: &Path) -> Option<Cache> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        let checked = made.and_then(|()| std::fs::symlink_metadata(dir)).and_then(|meta| {
            let owner = rustix::process::geteuid().as_raw();
            if !meta.is_dir() || meta.uid() != owner || meta.mode() & 0o022 != 0 {
                return Err(io::Error::other("it must be a directory that only this user can write to"));
            }
            Ok(())
        });
        match checked {
            Ok(()) => Some(Cache { dir: dir.into() }),
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "the cache of compiled modules is not used");
                None
            }
        }
    }

    fn paths(&self, key: &CacheKey) -> (PathBuf, PathBuf) {
        (self.dir.join(format!("{}.cwasm", key.0)), self.dir.join(format!("{}.desc", key.0)))
    }

    /// An entry whose every byte is what was stored under this key; else `None`.
    pub(crate) fn find(&self, key: &CacheKey) -> Option<Compiled> {
        let (artifact, description) = self.paths(key);
        let mut artifact = open_own(&artifact)?;
        let description_file = open_own(&description)?;
        let body = read_body(&description_file)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&mut artifact).ok()?;
        // The files of another entry are whole, but another module's machine code.
        if hasher.finalize() != body.artifact_blake3 || body.entry != key.0 {
            tracing::warn!(entry = key.0, "a damaged cache entry is compiled again");
            return None;
        }
        artifact.seek(SeekFrom::Start(0)).ok()?;
        Some(Compiled { description: body.description, artifact, description_file })
    }

    /// Stores an entry: complete files, moved into place; the description last.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn store(&self, key: &CacheKey, compiled: &Compiled) -> io::Result<()> {
        let (artifact, description) = self.paths(key);
        let body = read_body(&compiled.description_file);
        let body = Body { entry: key.0.clone(), ..body.ok_or(io::ErrorKind::InvalidData)? };
        let mut machine_code = compiled.artifact.try_clone()?;
        machine_code.seek(SeekFrom::Start(0))?;
        self.place(&mut machine_code, &artifact)?;
        self.place(&mut &body.to_file().map_err(io::Error::other)?[..], &description)
    }

    fn place(&self, from: &mut impl Read, to: &Path) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        io::copy(from, &mut file)?;
        file.flush()?;
        file.persist(to).map_err(|error| error.error)?;
        Ok(())
    }
}

/// Opens a regular file of this user's that nobody else can write to; follows no symlink, and
/// waits for nobody where there is a pipe.
fn open_own(path: &Path) -> Option<File> {
    use rustix::fs::OFlags;
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path).ok()?;
    let meta = file.metadata().ok()?;
    let ours = meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o022 == 0;
    (meta.is_file() && ours).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::ModuleKind;

    fn entry(dir: &Path) -> (Cache, CacheKey) {
        let cache = Cache::open(dir).expect("opens");
        let key = CacheKey::new(Digest::of(b"wasm"), false);
        let description = ModuleDescription {
            kind: ModuleKind::Library,
            tasks: Vec::new(),
            imports: Vec::new(),
            exports: Vec::new(),
            memories: Vec::new(),
            uses_wasi: false,
            has_initializer: false,
            has_reactor_start: false,
            metered: false,
            wasm_bytes: 4,
            machine_code_bytes: 12,
        };
        let bytes = describe_artifact(description, b"machine code").expect("encodes");
        let file = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(bytes).expect("writes");
            file
        };
        let compiled = Compiled::read(file(b"machine code"), file(&bytes), 12).expect("reads");
        cache.store(&key, &compiled).expect("stores");
        (cache, key)
    }

    #[test]
    fn what_was_stored_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let (cache, key) = entry(dir.path());
        assert!(cache.find(&key).is_some());
        assert!(cache.find(&CacheKey::new(Digest::of(b"wasm"), true)).is_none());
    }

    #[test]
    fn every_flipped_byte_of_either_file_is_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (cache, key) = entry(dir.path());
        let (artifact, description) = cache.paths(&key);
        for path in [artifact, description] {
            let good = std::fs::read(&path).expect("reads");
            for at in 0..good.len() {
                let mut bad = good.clone();
                bad[at] ^= 1;
                std::fs::write(&path, &bad).expect("writes");
                assert!(cache.find(&key).is_none(), "byte {at} of {}", path.display());
            }
            std::fs::write(&path, &good[..good.len() - 1]).expect("writes");
            assert!(cache.find(&key).is_none(), "truncated {}", path.display());
            std::fs::write(&path, &good).expect("writes");
        }
        assert!(cache.find(&key).is_some());
    }

    #[test]
    fn an_entry_under_another_name_is_not_that_entry() {
        let dir = tempfile::tempdir().expect("a directory");
        let (cache, key) = entry(dir.path());
        for other in [CacheKey::new(Digest::of(b"other"), false), CacheKey::new(Digest::of(b"wasm"), true)] {
            let (from, to) = (cache.paths(&key), cache.paths(&other));
            std::fs::copy(from.0, to.0).expect("copies");
            std::fs::copy(from.1, to.1).expect("copies");
            assert!(cache.find(&other).is_none());
        }
        assert!(cache.find(&key).is_some());
    }

    #[test]
    fn a_pipe_in_the_place_of_a_file_holds_up_nobody() {
        let dir = tempfile::tempdir().expect("a directory");
        let (cache, key) = entry(dir.path());
        let (artifact, _) = cache.paths(&key);
        std::fs::remove_file(&artifact).expect("removes");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &artifact,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .expect("a pipe");
        let (done, found) = std::sync::mpsc::channel();
        std::thread::spawn(move || done.send(cache.find(&key).is_some()));
        let found = found.recv_timeout(std::time::Duration::from_secs(10));
        assert_eq!(found, Ok(false), "it waits for someone to write into the pipe");
    }

    #[test]
    fn a_symlink_is_not_followed_and_a_shared_directory_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let (cache, key) = entry(dir.path());
        let (artifact, _) = cache.paths(&key);
        let elsewhere = dir.path().join("elsewhere");
        std::fs::rename(&artifact, &elsewhere).expect("moves");
        std::os::unix::fs::symlink(&elsewhere, &artifact).expect("links");
        assert!(cache.find(&key).is_none());
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).expect("opens up");
        assert!(Cache::open(dir.path()).is_none());
    }
}
