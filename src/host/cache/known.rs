//! The digests of files that have been read before: a large module is neither read nor hashed again as
//! long as its file has not changed, by what the file system says of it.
//!
//! Like `make` and `git`, this believes the time of a file's last change, to the nanosecond: every write sets
//! it, and nobody can set it back without setting the system's clock. A file is not believed while it is so
//! young that another write could fall into the same tick of that clock.
//!
//! A write through a mapping is no system call. The kernel notices it if the page was clean, since such a
//! page is write-protected: it asks the file system (`page_mkwrite`), which sets the time. A page that is
//! dirty already is written to without notice. So a file is written back before it is read to be remembered,
//! which makes every page clean, and it is remembered only on file systems whose `page_mkwrite` sets the
//! time. Files on tmpfs, overlays, FUSE and network file systems are read and hashed each time: there a
//! change may go unnoticed.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::time::{Duration, SystemTime};

use rustix::fs::{FileType, Stat};

use super::{Cache, is_a, touch};
use crate::module::Digest;

/// The number rose when files began to be written back first: older records cannot be trusted.
const MAGIC: &[u8; 16] = b"wasmpool known 2";

/// A file must have rested so long: file systems count in ticks of 1 to 10 ms, a few in seconds.
const RESTED: Duration = Duration::from_secs(3);

/// These file systems set a file's time when a clean page is written to through a mapping, by their numbers
/// in statfs(2): ext2 to ext4, XFS, Btrfs, F2FS.
const NOTICE_MAPPINGS: [u64; 4] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010];

const STAMP_BYTES: usize = 7 * 8;
const FILE_BYTES: usize = MAGIC.len() + STAMP_BYTES + 32 + blake3::OUT_LEN;

/// A file, and when its bytes or its attributes were changed last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp([u64; 7]);

impl Stamp {
    /// Returns the stamp of a file whose every later change will change the stamp, however it is made.
    /// Returns `None` if the file changed too recently: it is not to be remembered.
    pub(crate) fn rested(file: &File) -> Option<Stamp> {
        Stamp::of(file).filter(Stamp::has_rested)?;
        rustix::fs::fdatasync(file).ok()?;
        Stamp::of(file)
    }

    /// Returns the stamp of an open regular file, if its file system notices every change.
    pub(crate) fn of(file: &File) -> Option<Stamp> {
        let system = rustix::fs::fstatfs(file).ok()?;
        NOTICE_MAPPINGS.contains(&(system.f_type as u64)).then_some(())?;
        let stat = rustix::fs::fstat(file).ok().filter(|stat| is_a(stat, FileType::RegularFile))?;
        Some(Stamp(Stamp::words(&stat)))
    }

    /// The facts by which a file system tells a file from others, and from itself before a change.
    pub(crate) fn words(stat: &Stat) -> [u64; 7] {
        [
            stat.st_dev,
            stat.st_ino,
            stat.st_size as u64,
            stat.st_mtime as u64,
            stat.st_mtime_nsec,
            stat.st_ctime as u64,
            stat.st_ctime_nsec,
        ]
    }

    fn has_rested(&self) -> bool {
        // An image of a file system that is only read (ISO, squashfs) tells the times that it was made with, in
        // seconds, and the next image perhaps the same.
        if self.0[6] == 0 {
            return false;
        }
        // A file from the future has not rested, and one from before 1970 counts as not rested.
        let changed = Duration::from_secs(self.0[5].max(self.0[3]));
        SystemTime::UNIX_EPOCH
            .checked_add(changed)
            .and_then(|changed| SystemTime::now().duration_since(changed).ok())
            .is_some_and(|age| age > RESTED)
    }

    fn to_bytes(self) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        bytes.as_chunks_mut().0.iter_mut().zip(self.0).for_each(|(to, word)| *to = word.to_le_bytes());
        bytes
    }

    /// Returns one of 4096 names, by device and number and not by content: of two files with the same name
    /// the last one is remembered.
    fn file_name(&self) -> String {
        let file = self.to_bytes();
        format!("{}.known", &blake3::hash(&file[..16]).to_hex()[..3])
    }
}

fn to_file(stamp: Stamp, digest: Digest) -> Vec<u8> {
    let mut bytes = [&MAGIC[..], &stamp.to_bytes(), &digest.0].concat();
    bytes.extend(blake3::hash(&bytes).as_bytes());
    bytes
}

impl Cache {
    /// Returns the digest of the file's bytes when they were read last, if they have not changed since.
    pub(crate) fn digest_of(&self, stamp: Stamp) -> Option<Digest> {
        let mut file = self.open_entry(&stamp.file_name()).ok()??;
        let mut bytes = [0; FILE_BYTES];
        file.read_exact(&mut bytes).ok()?;
        touch(&file);
        let digest = Digest(*bytes[MAGIC.len() + STAMP_BYTES..].first_chunk()?);
        (bytes[..] == to_file(stamp, digest)).then_some(digest)
    }

    /// Remembers what the file's bytes hash to, which were read between the two stamps.
    pub(crate) fn remember(&self, before: Stamp, after: Stamp, digest: Digest) {
        if before != after || !before.has_rested() {
            return;
        }
        let bytes = to_file(before, digest);
        let stored =
            self.write_beside(&before.file_name(), bytes.len() as u64, |mut file| file.write_all(&bytes));
        if let Err(error) = stored {
            let dir = self.dir.shown();
            let dir = dir.display();
            tracing::debug!(%dir, %error, "the digest of a file could not be remembered");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use files::HostFiles;
    use proto::limits::CACHE_BYTES_MAX;

    /// The stamp of a file that has not changed for long.
    const STAMP: Stamp = Stamp([1, 2, 3, 1_000_000_000, 5, 1_000_000_001, 7]);

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().expect("a directory");
        let opened = Cache::open(dir.path(), &HostFiles::default(), CACHE_BYTES_MAX);
        let cache = opened.expect("is allowed").expect("opens");
        (dir, cache)
    }

    #[test]
    fn what_is_remembered_counts_as_the_entries_do() {
        let dir = tempfile::tempdir().expect("a directory");
        for bytes_max in [0, 20_000] {
            let opened = Cache::open(dir.path(), &HostFiles::default(), bytes_max);
            let cache = opened.expect("is allowed").expect("opens");
            for number in 0..200 {
                let mut stamp = STAMP;
                stamp.0[1] = number;
                cache.remember(stamp, stamp, Digest::of(b"wasm"));
                let (files, bytes) = cache.size();
                assert!(bytes <= bytes_max, "{files} files of {bytes} bytes");
            }
            assert_eq!(cache.size().0 > 0, bytes_max > 0);
        }
    }

    #[test]
    fn a_file_that_has_not_changed_is_known_and_one_that_has_is_not() {
        let (_dir, cache) = cache();
        let digest = Digest::of(b"wasm");
        assert_eq!(cache.digest_of(STAMP), None);
        cache.remember(STAMP, STAMP, digest);
        assert_eq!(cache.digest_of(STAMP), Some(digest));
        for word in 0..STAMP.0.len() {
            let mut other = STAMP;
            other.0[word] += 1;
            assert_eq!(cache.digest_of(other), None, "word {word} differs");
        }
        // The same file was changed, and is now known with its new stamp.
        let mut changed = STAMP;
        changed.0[5] += 1;
        cache.remember(changed, changed, Digest::of(b"other"));
        assert_eq!(cache.digest_of(changed), Some(Digest::of(b"other")));
        assert_eq!(cache.digest_of(STAMP), None);
    }

    #[test]
    fn a_file_that_changed_while_it_was_read_or_just_before_is_not_remembered() {
        let (_dir, cache) = cache();
        let mut after = STAMP;
        after.0[6] += 1;
        cache.remember(STAMP, after, Digest::of(b"wasm"));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
        for changed in [now, now + 3600, u64::MAX, (-1_i64) as u64] {
            let mut young = STAMP;
            young.0[5] = changed;
            cache.remember(young, young, Digest::of(b"wasm"));
            assert_eq!(cache.digest_of(young), None, "changed at {changed}, and now is {now}");
        }
        // Times in whole seconds may stand for any moment of theirs.
        let mut coarse = STAMP;
        coarse.0[6] = 0;
        cache.remember(coarse, coarse, Digest::of(b"wasm"));
        assert_eq!([STAMP, after, coarse].map(|stamp| cache.digest_of(stamp)), [None; 3]);
    }

    #[test]
    fn what_is_remembered_is_believed_whole_and_in_its_place_only() {
        let (dir, cache) = cache();
        cache.remember(STAMP, STAMP, Digest::of(b"wasm"));
        let path = dir.path().join(STAMP.file_name());
        let whole = std::fs::read(&path).expect("is stored");
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, &flipped).expect("writes");
            assert_eq!(cache.digest_of(STAMP), None, "byte {at}");
            std::fs::write(&path, &whole[..at]).expect("writes");
            assert_eq!(cache.digest_of(STAMP), None, "cut at {at}");
        }
        std::fs::write(&path, &whole).expect("writes");
        assert!(cache.digest_of(STAMP).is_some());
        let mut other = STAMP;
        other.0[1] += 1;
        assert_ne!(other.file_name(), STAMP.file_name());
        std::fs::rename(&path, dir.path().join(other.file_name())).expect("moves");
        assert_eq!(cache.digest_of(other), None);
    }
}
