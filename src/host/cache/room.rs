//! Keeps the cache within its bound: the least recently used entries are removed first.
//!
//! Several processes may do this at once. Each looks at the same names and times, so they choose the same
//! entries, and an entry that another one has removed is no error. An entry that is being read is read to its
//! end, from the file that was opened.
//!
//! A writer locks its unfinished file for as long as it lives. An unfinished file that can be locked was left
//! behind by a killed writer, and is removed.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{FileType, FlockOperation, Mode, OFlags};

use super::{Cache, is_a};

/// The names of unfinished files end in this.
const NEW: &str = "new";

/// A new file may be taken for a leftover, before it is locked, this many times.
const TRIES_MAX: usize = 8;

/// A cache of more files than this has their sizes looked at only one time of [`TENDED_IN_FULL`] that it is
/// tended, since each costs a system call.
const FEW_FILES: usize = 1_000;
const TENDED_IN_FULL: u8 = 16;

/// The size of a block as stat(2) counts.
const BLOCK_BYTES: u64 = 512;

/// A finished file of the cache.
pub(super) struct Kept {
    name: OsString,
    pub(super) bytes: u64,
    /// The time when it was used last.
    used: (i64, u64),
}

/// Keeps an unfinished file from being swept.
pub(super) struct BeingWritten(#[expect(dead_code, reason = "it is held")] Option<File>);

impl Cache {
    /// Makes a new file and locks it.
    pub(super) fn make_new(&self) -> io::Result<(OsString, File, BeingWritten)> {
        for _ in 0..TRIES_MAX {
            let (name, file) = self.dir.make_new(NEW, 0o600)?;
            let held = match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => Some(file.try_clone()?),
                // Another process sweeps, and has taken the file for a leftover.
                Err(rustix::io::Errno::WOULDBLOCK) => continue,
                // A file system without locks is not swept by others either.
                Err(_) => None,
            };
            if rustix::fs::fstat(&file)?.st_nlink > 0 {
                return Ok((name, file, BeingWritten(held)));
            }
        }
        Err(io::Error::other("others take away what is being written"))
    }

    /// Looks after a cache that nothing is stored in: removes leftovers, and entries that are over the bound, which
    /// may be lower than it was. Called when a pool opens the cache, and now and then while it is used.
    pub(crate) fn tend(&self) {
        let names: Vec<_> =
            self.dir.entries().unwrap_or_default().into_iter().map(|entry| entry.name).collect();
        self.sweep(&names);
        let are_few = names.iter().filter(|name| is_counted(name)).count() <= FEW_FILES;
        let mut random = [0];
        if are_few || (getrandom::fill(&mut random).is_ok() && random[0].is_multiple_of(TENDED_IN_FULL)) {
            self.shrink(0);
        }
    }

    /// Removes leftovers, then the least recently used entries until there is room for `wanted` more bytes.
    /// Returns whether there is.
    pub(super) fn make_room(&self, wanted: u64) -> bool {
        let entries = self.dir.entries().unwrap_or_default();
        self.sweep(&entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>());
        self.shrink(wanted)
    }

    fn shrink(&self, wanted: u64) -> bool {
        let Some(room) = self.bytes_max.checked_sub(wanted) else { return false };
        let mut kept = self.files();
        let mut bytes: u64 = kept.iter().map(|file| file.bytes).sum();
        if bytes <= room {
            return true;
        }
        kept.sort_unstable_by(|a, b| (a.used, &a.name).cmp(&(b.used, &b.name)));
        for file in kept {
            if bytes <= room {
                break;
            }
            match self.dir.remove_file(&file.name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    let dir = self.dir.shown();
                    let name = file.name.to_string_lossy();
                    tracing::debug!(dir = %dir.display(), %name, %error, "an old cache entry stays");
                }
                _ => bytes = bytes.saturating_sub(file.bytes),
            }
        }
        bytes <= room
    }

    /// Lists the files that count: entries, and digests of files.
    pub(super) fn files(&self) -> Vec<Kept> {
        let entries = self.dir.entries().unwrap_or_default();
        let names = entries.into_iter().map(|entry| entry.name).filter(|name| is_counted(name));
        let kept = names.filter_map(|name| {
            let stat = self.dir.look(&name).ok()??;
            let bytes = (stat.st_size as u64).max(stat.st_blocks as u64 * BLOCK_BYTES);
            let used = (stat.st_mtime, stat.st_mtime_nsec);
            is_a(&stat, FileType::RegularFile).then_some(Kept { name, bytes, used })
        });
        kept.collect()
    }

    fn sweep(&self, names: &[OsString]) {
        for name in names {
            if is_directory_aside(name) {
                let _ = self.dir.remove_folder(name);
            } else if is_new(name) {
                self.sweep_one(name);
            }
        }
    }

    fn sweep_one(&self, name: &OsStr) {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let Ok(file) = rustix::fs::openat(&self.dir, name, flags, Mode::empty()) else { return };
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = self.dir.remove_file(name);
        }
    }
}

fn is_counted(name: &OsStr) -> bool {
    let name = name.as_bytes();
    !name.starts_with(b".") && (name.ends_with(b".module") || name.ends_with(b".known"))
}

fn is_new(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".") && name.as_bytes().ends_with(b".new")
}

fn is_directory_aside(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".") && name.as_bytes().ends_with(b".new.directory")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::super::tests::with_code;
    use super::*;
    use crate::host::cache::CacheKey;
    use crate::module::Digest;
    use files::HostFiles;
    use proto::description::CodeKind;

    const CODE_BYTES: usize = 10_000;

    fn key(number: u64) -> CacheKey {
        CacheKey::new(Digest::of(&number.to_le_bytes()), CodeKind::Plain, 7)
    }

    fn cache(bytes_max: u64) -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().expect("a directory");
        let cache =
            Cache::open(dir.path(), &HostFiles::default(), bytes_max).expect("is allowed").expect("opens");
        (dir, cache)
    }

    fn store(cache: &Cache, number: u64) {
        cache.store(&key(number), &with_code(number, &[7; CODE_BYTES])).expect("stores");
    }

    /// Sets an entry's time of use, in seconds.
    fn age(dir: &tempfile::TempDir, number: u64, seconds: u64) {
        let file = File::options().write(true).open(dir.path().join(key(number).file_name())).expect("opens");
        file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).expect("sets");
    }

    #[test]
    fn the_least_recently_used_go_when_there_is_no_room() {
        let (dir, cache) = cache(50_000);
        for number in 0..4 {
            store(&cache, number);
            age(&dir, number, 100 - number);
        }
        let is_there = |number| dir.path().join(key(number).file_name()).exists();
        assert!((0..4).all(is_there));
        assert!(cache.find(&key(0)).is_some(), "and from here on it is the last that was used");
        store(&cache, 4);
        store(&cache, 5);
        assert_eq!([0, 1, 2, 3, 4, 5].map(is_there), [true, false, false, true, true, true]);
        let (_, bytes) = cache.size();
        assert!(bytes <= cache.bytes_max, "{bytes}");
    }

    #[test]
    fn what_is_larger_than_all_the_room_is_not_stored_and_costs_no_other() {
        let (dir, cache) = cache(3 * 16_384);
        store(&cache, 0);
        cache.store(&key(1), &with_code(1, &[7; 200_000])).expect("is no failure");
        assert!(cache.find(&key(0)).is_some() && cache.find(&key(1)).is_none());
        std::fs::write(dir.path().join("notes.txt"), [0; 100_000]).expect("writes");
        store(&cache, 2);
        assert!(dir.path().join("notes.txt").exists(), "what is not the cache's is left alone");
        assert!(cache.find(&key(0)).is_some());
    }

    #[test]
    fn leftovers_of_the_killed_are_swept_and_files_of_the_living_are_not() {
        let (dir, cache) = cache(1 << 20);
        let (name, _file, held) = cache.make_new().expect("makes");
        for left in [".123-0-5f.new", ".0123456789abcdef0123456789abcdef.new"] {
            std::fs::write(dir.path().join(left), "half").expect("writes");
        }
        std::fs::create_dir(dir.path().join(".1-2-3.new.directory")).expect("makes");
        store(&cache, 0);
        let hidden = || {
            let names =
                std::fs::read_dir(dir.path()).expect("reads").map(|entry| entry.expect("one").file_name());
            names.filter(|name| name.as_bytes().starts_with(b".")).collect::<Vec<_>>()
        };
        assert_eq!(hidden(), [name], "it is being written");
        drop((_file, held));
        store(&cache, 1);
        assert_eq!(hidden(), [""; 0]);
    }

    #[test]
    fn a_cache_is_tended_without_a_store() {
        let (dir, cache) = cache(1 << 20);
        for number in 0..4 {
            store(&cache, number);
            age(&dir, number, 100 - number);
        }
        let left = dir.path().join(".0123456789abcdef0123456789abcdef.new");
        let is_there = || [0, 1, 2, 3].map(|number| dir.path().join(key(number).file_name()).exists());
        std::fs::write(&left, "half").expect("writes");
        cache.tend();
        assert_eq!((left.exists(), is_there()), (false, [true; 4]));
        let reopened = Cache::open(dir.path(), &HostFiles::default(), 2 * 16_384);
        let reopened = reopened.expect("is allowed").expect("opens");
        reopened.tend();
        assert_eq!(is_there(), [false, false, true, true], "the bound is lower now");
        // The cache is tended while it is only read.
        std::fs::write(&left, "half").expect("writes");
        for _ in 0..super::super::LOOKS_BETWEEN {
            assert!(reopened.find(&key(3)).is_some());
        }
        assert!(!left.exists());
    }

    #[test]
    fn several_that_store_at_once_stay_within_the_bound_and_lose_nothing_that_is_being_stored() {
        let (dir, first) = cache(8 * 16_384);
        std::thread::scope(|scope| {
            for writer in 0..4_u64 {
                let dir = dir.path();
                scope.spawn(move || {
                    let opened = Cache::open(dir, &HostFiles::default(), 8 * 16_384);
                    let cache = opened.expect("is allowed").expect("opens");
                    for number in 0..50 {
                        store(&cache, writer * 1_000 + number);
                    }
                });
            }
        });
        first.make_room(0);
        let (count, bytes) = first.size();
        assert!(count > 0 && bytes <= first.bytes_max, "{count} files, {bytes} bytes");
    }
}
