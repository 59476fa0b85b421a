//! Compiled modules on disk, by content.
//!
//! One file an entry: a head with the hash of everything behind it, the description as workers read
//! it, and the artifact, machine code as the engine wrote it. The head names the entry, so that one
//! entry in another's place is none. Anything that does not fit is compiled again, never loaded:
//! machine code is run.
//!
//! # Whom this holds off
//! *Other users*: directory and files are this user's, and only this user may write to them; that is
//! asked of what was opened, not of a path, and nothing in the directory is reached by a path.
//! *Accidents*, such as full disks, crashes and bad sectors: the hash. *Races*: what is hashed is what is mapped, see
//! [`Cache::find`]. It does not hold off *this user*: whoever may write here can store an entry
//! with a proper hash. A key would change little, since it would have to lie where the same user can
//! read it; and who runs as this user can as well trace the host, or replace its executable. Those
//! who mistrust something of their own user's take [`without_cache`](crate::PoolBuilder::without_cache).

mod dir;
mod known;
mod room;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use crate::module::Digest;
use files::Folder;
use proto::artifact::{self, DESCRIPTION_FILE_BYTES_MAX};
use proto::description::{CodeKind, ModuleDescription};
use proto::kernel::kernel_text;
use proto::limits::ARTIFACT_BYTES_MAX;
use proto::memfd;
use proto::refused::explained;

pub(crate) use known::Stamp;

/// An entry begins with this; then comes the hash of all the rest.
const MAGIC: &[u8; 16] = b"wasmpool entry 3";

/// Bytes of the part that is hashed and stands before the description.
const HEAD_BYTES: usize = KEY_BYTES + 8 + 8;

/// Bytes of the hash of an entry's name.
const KEY_BYTES: usize = 32;

/// Read, hashed and copied at a time: it stays in the processor's cache.
const CHUNK_BYTES: usize = 256 * 1024;

/// Bytes that have a digest of their own, the last ones of a part fewer: what threads share the work by. The
/// hash of an entry is that of its head and of the digests of its segments, in order.
const SEGMENT_BYTES: u64 = 1024 * 1024;

/// The cache is tended after so many looks for an entry.
const LOOKS_BETWEEN: usize = 64;

/// A thread more has that many to do, at least; and no more threads than that copy an entry.
const SEGMENTS_PER_THREAD_MIN: usize = 2;
const THREADS_MAX: usize = 4;

/// A compiled module, ready for workers: two sealed memfds, which nobody can change any more.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) description: ModuleDescription,
    pub(crate) artifact: File,
    pub(crate) description_file: File,
}

impl Compiled {
    /// Reads what the compiler process has just written. Returns `None` if that is malformed.
    pub(crate) fn read(artifact: File, description_file: File, artifact_bytes: u64) -> Option<Compiled> {
        let described = artifact::read(&description_file)?;
        (described.artifact_bytes == artifact_bytes).then_some(Compiled {
            description: described.description,
            artifact,
            description_file,
        })
    }
}

/// A directory of compiled modules that belongs to this user alone.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: Folder,
    /// All entries together may take this many bytes; see `room`.
    bytes_max: u64,
    /// Counts the entries that were looked for.
    looks: AtomicUsize,
}

/// The name of an entry.
pub(crate) struct CacheKey(String);

impl CacheKey {
    /// The entry of this module, compiled in this way by a program that makes machine code of this fingerprint.
    pub(crate) fn new(digest: Digest, code: CodeKind, machine_code: u64) -> CacheKey {
        CacheKey(format!("{digest}-{machine_code:016x}-{:016x}-{}", cpu_fingerprint(), code.name()))
    }

    fn file_name(&self) -> String {
        format!("{}.module", self.0)
    }

    fn hash(&self) -> [u8; KEY_BYTES] {
        *blake3::hash(self.0.as_bytes()).as_bytes()
    }
}

/// Machine code is made for this processor's features.
fn cpu_fingerprint() -> u64 {
    let cpuinfo = kernel_text("/proc/cpuinfo").unwrap_or_default();
    let features = cpuinfo.lines().find(|line| line.starts_with("flags") || line.starts_with("Features"));
    let hash = blake3::hash(features.unwrap_or_default().as_bytes());
    u64::from_le_bytes(std::array::from_fn(|index| hash.as_bytes()[index]))
}

/// A file or directory is ours alone if it has our uid and nobody else may write to it. (An access list that
/// grants a right to write shows as the group's.)
fn is_ours(stat: &Stat) -> bool {
    stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o022 == 0
}

fn is_a(stat: &Stat, file_type: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == file_type
}

impl Cache {
    /// Returns an entry whose every byte is what was stored; else `None`.
    ///
    /// The bytes are copied as they are hashed, and the copy is what workers map: sealed, so that
    /// nobody changes it between the check and the use, or later. Mapping the file itself would save
    /// the copy, but then a rewrite in place would be run; a lease only delays one, and few file systems
    /// have fs-verity. Threads share the work by segments, which is faster than one that copies and one that
    /// hashes, and each writes by calls, since a mapping costs a fault for each page (`benches/README.md`). This
    /// happens once a pool; its workers share the pages, and other pools have their own.
    pub(crate) fn find(&self, key: &CacheKey) -> Option<Compiled> {
        if self.looks.fetch_add(1, Ordering::Relaxed) % LOOKS_BETWEEN == LOOKS_BETWEEN - 1 {
            self.tend();
        }
        let file = match self.open_entry(&key.file_name()) {
            Ok(file) => file?,
            Err(error) => {
                self.warn(key, error);
                return None;
            }
        };
        touch(&file);
        read_entry(file, key).map_err(|error| self.warn(key, error)).ok()
    }

    /// A regular file of this user's that nobody else can write to and that has one name; follows no
    /// symlink, waits for no pipe. `None` if there is no such entry.
    fn open_entry(&self, name: &str) -> io::Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.dir, name, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            file => file.map_err(explained)?,
        };
        let stat = rustix::fs::fstat(&file)?;
        // A file without a name was replaced meanwhile, by rename: its bytes are what they were.
        if !is_a(&stat, FileType::RegularFile) || !is_ours(&stat) || stat.st_nlink > 1 {
            return Err(io::Error::other("it is not a file of this user's alone"));
        }
        Ok(Some(File::from(file)))
    }

    fn warn(&self, key: &CacheKey, error: io::Error) {
        let error = explained(error);
        let dir = self.dir.shown();
        let dir = dir.display();
        tracing::warn!(%dir, entry = key.0, %error, "a cache entry is not used, and compiled again");
    }

    /// Stores an entry: written beside, then moved into place, whatever was there.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn store(&self, key: &CacheKey, compiled: &Compiled) -> io::Result<()> {
        self.write_beside(&key.file_name(), entry_bytes(compiled)?, |file| write_entry(file, key, compiled))
    }

    /// Makes a file of so many bytes, if the cache has room for it.
    fn write_beside(
        &self,
        name: &str,
        bytes: u64,
        write: impl FnOnce(File) -> io::Result<()>,
    ) -> io::Result<()> {
        if !self.make_room(bytes) {
            return Ok(());
        }
        let (beside, file, held) = self.make_new()?;
        let stored = write(file).and_then(|()| self.put(&beside, name));
        if stored.is_err() {
            let _ = self.dir.remove_file(&beside);
        }
        drop(held);
        // Other processes may have stored entries meanwhile.
        self.make_room(0);
        stored
    }

    /// A rename replaces anything but a directory: that is moved aside first, and removed if it is empty.
    fn put(&self, from: &OsStr, to: &str) -> io::Result<()> {
        match self.dir.rename(from, to) {
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                let mut aside = from.to_os_string();
                aside.push(".directory");
                self.dir.rename(to, &aside)?;
                let _ = self.dir.remove_folder(&aside);
                self.dir.rename(from, to)
            }
            renamed => renamed,
        }
    }
}

/// Marks an entry as used, since the least recently used entries are removed first.
fn touch(file: &File) {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
    };
    // It fails on a read-only file system, where nothing is removed either.
    let _ = rustix::fs::futimens(file, &times);
}

/// Copies an entry into two sealed memfds, if the copy is what was stored under this name.
fn read_entry(mut file: File, key: &CacheKey) -> io::Result<Compiled> {
    let damaged = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut start = [0; MAGIC.len() + blake3::OUT_LEN];
    let mut head = [0; HEAD_BYTES];
    file.read_exact(&mut start)?;
    file.read_exact(&mut head)?;
    let (magic, expected) = start.split_at(MAGIC.len());
    let (name, sizes) = head.split_at(KEY_BYTES);
    if magic != MAGIC || *name != key.hash() {
        return Err(damaged("it is another entry, or none"));
    }
    // The lengths come before any allocation, and are bounded before they are believed.
    let size = |at: usize| {
        let bytes = sizes[at..].first_chunk().copied();
        bytes.map(u64::from_le_bytes).ok_or_else(|| damaged("it is cut off"))
    };
    let description_bytes = size(0)?;
    let artifact_bytes = size(8)?;
    if description_bytes > DESCRIPTION_FILE_BYTES_MAX || artifact_bytes > ARTIFACT_BYTES_MAX {
        return Err(damaged("its sizes are out of bounds"));
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&head);
    let start = (start.len() + head.len()) as u64;
    let copied = |name: &str, start: u64, len: u64, hasher: &mut blake3::Hasher| {
        let copy = memfd::empty(name)?;
        let digests = copy_segments(&file, start, len, &copy)?;
        for digest in &digests {
            hasher.update(digest.as_bytes());
        }
        memfd::seal(&copy)?;
        Ok::<_, io::Error>(copy)
    };
    let description_file = copied("wasmpool-description", start, description_bytes, &mut hasher)?;
    // The name is for those who read /proc/PID/maps: which module is it?
    let name = format!("wasmpool-artifact-{}", key.0.get(..12).unwrap_or_default());
    let start = start + description_bytes;
    let artifact = copied(&name, start, artifact_bytes, &mut hasher)?;
    let is_all = file.read_at(&mut [0], start + artifact_bytes)? == 0;
    if hasher.finalize().as_bytes() != expected || !is_all {
        return Err(damaged("its bytes are not what was stored"));
    }
    Compiled::read(artifact, description_file, artifact_bytes)
        .ok_or_else(|| damaged("its description is of an unknown form"))
}

/// Copies a file and hashes it: each byte is read once, so that what is written to the copy is what was
/// hashed. If there are many segments, as many threads as there are processors share them.
fn copy_segments(file: &File, start: u64, len: u64, copy: &File) -> io::Result<Vec<blake3::Hash>> {
    let segments = len.div_ceil(SEGMENT_BYTES);
    let digests: Vec<OnceLock<blake3::Hash>> = (0..segments).map(|_| OnceLock::new()).collect();
    let next = AtomicUsize::new(0);
    let copy_some = || -> io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES.min(len as usize)];
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(digest) = digests.get(index) else { return Ok(()) };
            let mut hasher = blake3::Hasher::new();
            let mut at = index as u64 * SEGMENT_BYTES;
            let end = len.min((index as u64 + 1) * SEGMENT_BYTES);
            while at < end {
                let chunk = &mut chunk[..CHUNK_BYTES.min((end - at) as usize)];
                file.read_exact_at(chunk, start + at)?;
                hasher.update(chunk);
                copy.write_all_at(chunk, at)?;
                at += chunk.len() as u64;
            }
            let _ = digest.set(hasher.finalize());
        }
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let helpers =
        (segments as usize / SEGMENTS_PER_THREAD_MIN).min(processors).min(THREADS_MAX).saturating_sub(1);
    std::thread::scope(|scope| {
        let help =
            |_| std::thread::Builder::new().name("wasmpool-hash".into()).spawn_scoped(scope, copy_some);
        // The others or this thread do the part of one that cannot be started.
        let helpers: Vec<_> = (0..helpers).map(help).filter_map(Result::ok).collect();
        let own = copy_some();
        let gone = |_| Err(io::Error::other("a thread that copied is gone"));
        helpers.into_iter().fold(own, |so_far, helper| so_far.and(helper.join().unwrap_or_else(gone)))
    })?;
    let unread = || io::Error::other("a part was not copied");
    digests.into_iter().map(|digest| digest.into_inner().ok_or_else(unread)).collect()
}

/// Returns the length of an entry's file.
fn entry_bytes(compiled: &Compiled) -> io::Result<u64> {
    let head = (MAGIC.len() + blake3::OUT_LEN + HEAD_BYTES) as u64;
    let parts = [&compiled.description_file, &compiled.artifact];
    parts.iter().try_fold(head, |bytes, part| Ok(bytes + part.metadata()?.len()))
}

/// The file is not synced: if the machine crashes, what is left of it has another hash.
fn write_entry(mut file: File, key: &CacheKey, compiled: &Compiled) -> io::Result<()> {
    let parts = [&compiled.description_file, &compiled.artifact];
    let mut head = key.hash().to_vec();
    for part in parts {
        head.extend(part.metadata()?.len().to_le_bytes());
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&head);
    file.write_all(MAGIC)?;
    file.write_all(&[0; blake3::OUT_LEN])?;
    file.write_all(&head)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    for part in parts {
        let mut at = 0;
        let mut of_segment = blake3::Hasher::new();
        loop {
            // Workers map the same open file, so it is read at offsets. A segment consists of whole chunks.
            let wanted = (SEGMENT_BYTES - at % SEGMENT_BYTES).min(CHUNK_BYTES as u64) as usize;
            let len = part.read_at(&mut chunk[..wanted], at)?;
            of_segment.update(&chunk[..len]);
            file.write_all(&chunk[..len])?;
            at += len as u64;
            if of_segment.count() > 0 && (len == 0 || at % SEGMENT_BYTES == 0) {
                hasher.update(of_segment.finalize().as_bytes());
                of_segment.reset();
            }
            if len == 0 {
                break;
            }
        }
    }
    file.write_all_at(hasher.finalize().as_bytes(), MAGIC.len() as u64)
}

#[cfg(test)]
mod tests;
