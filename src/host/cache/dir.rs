//! Finds the cache's directory, and whether it can be used.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Cache, is_a, is_ours};
use files::{HostFiles, OpenError};

/// The directory is made with this mode, and so are those above it.
const MODE: u32 = 0o700;

impl Cache {
    /// Returns `$XDG_CACHE_HOME/wasmpool`, else `$HOME/.cache/wasmpool`.
    pub(crate) fn default_dir() -> Option<PathBuf> {
        Some(base()?.join("wasmpool"))
    }

    /// Opens or makes the directory in its default place. Returns `None` without a warning if there is no place for
    /// it: a missing home is not made, and nothing is made in another user's folder, or where this user may make none.
    /// Nobody has asked for a cache there, and `wasmpool doctor` says why there is none. It returns `None` with a
    /// warning if others can write to what is there: tasks, or other users.
    pub(crate) fn open_default(files: &HostFiles, bytes_max: u64) -> Option<Cache> {
        let dir = Cache::default_dir()?;
        Cache::try_open_default(files, bytes_max).unwrap_or_else(|error| {
            match is_nowhere(&error) {
                true => tracing::debug!(dir = %dir.display(), %error, "compiled modules are not kept"),
                false => tracing::warn!(dir = %dir.display(), %error, "compiled modules are not kept"),
            }
            None
        })
    }

    /// Does the same, and returns why there is none; `None` if no place is known at all.
    ///
    /// # Errors
    /// [`OpenError`]
    pub(crate) fn try_open_default(files: &HostFiles, bytes_max: u64) -> Result<Option<Cache>, OpenError> {
        let Some(dir) = Cache::default_dir() else { return Ok(None) };
        if !has_own_parents(files, &dir)? {
            return Err(OpenError::System(io::Error::new(
                io::ErrorKind::NotFound,
                "its folder is another user's",
            )));
        }
        Cache::try_open(&dir, files, bytes_max).map(Some)
    }

    /// Opens or makes the directory. Returns `None` with a warning if it is a symlink, or others own it or
    /// may write to it: the pool then works without a cache.
    ///
    /// # Errors
    /// [`OpenError::TasksMayWrite`], [`OpenError::HasTasksDir`]: tasks could write machine code that is then run.
    pub(crate) fn open(dir: &Path, files: &HostFiles, bytes_max: u64) -> Result<Option<Cache>, OpenError> {
        match Cache::try_open(dir, files, bytes_max) {
            Ok(cache) => Ok(Some(cache)),
            Err(error) if is_tasks(&error) => Err(error),
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "the cache of compiled modules is not used");
                Ok(None)
            }
        }
    }

    /// Opens the directory once, and checks what was opened. No path is followed after that, so the owner of a
    /// directory above can at worst lead us to another of our own directories.
    ///
    /// # Errors
    /// [`OpenError`]
    pub(crate) fn try_open(dir: &Path, files: &HostFiles, bytes_max: u64) -> Result<Cache, OpenError> {
        let unusable = |what: &str| OpenError::System(io::Error::other(what.to_string()));
        let folder = files.make_own_folder(dir, MODE)?;
        if files.has_task_dirs_in(&folder) {
            return Err(OpenError::HasTasksDir(folder.shown()));
        }
        let stat = folder.stat()?;
        if !is_a(&stat, FileType::Directory) || !is_ours(&stat) {
            return Err(unusable("it must be a directory that only this user can write to"));
        }
        // A directory that cannot be read is reported now, and not with each entry.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(&folder, ".", flags, Mode::empty())?;
        Ok(Cache { dir: folder, bytes_max, looks: AtomicUsize::new(0) })
    }

    /// Returns the number of its files, and the bytes that they take.
    pub(crate) fn size(&self) -> (usize, u64) {
        let files = self.files();
        (files.len(), files.iter().map(|file| file.bytes).sum())
    }
}

/// Returns whether no directory can be there, for whatever reason the system has.
fn is_nowhere(error: &OpenError) -> bool {
    error.is_absence() || matches!(error, OpenError::System(error) if Errno::from_io_error(error).is_some())
}

fn is_tasks(error: &OpenError) -> bool {
    matches!(error, OpenError::TasksMayWrite(_) | OpenError::HasTasksDir(_))
}

fn base() -> Option<PathBuf> {
    absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))
}

fn absolute(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Returns whether every existing folder from the home down to the directory belongs to this user, or to root
/// (where the kernel decides). The home itself must exist; what is missing beneath it can be made.
fn has_own_parents(files: &HostFiles, dir: &Path) -> Result<bool, OpenError> {
    let home = absolute("HOME").filter(|home| dir.starts_with(home));
    let Some(first) = home.or_else(base) else { return Ok(false) };
    let own = rustix::process::geteuid().as_raw();
    let mut path = first.clone();
    let rest = dir.strip_prefix(&first).unwrap_or(Path::new(""));
    let mut parts = rest.components();
    loop {
        match files.own_folder(&path) {
            Ok(folder) => {
                let owner = folder.stat()?.st_uid;
                if owner != own && owner != 0 {
                    return Ok(false);
                }
            }
            // A missing folder beneath an existing one can be made.
            Err(OpenError::System(error)) if error.kind() == io::ErrorKind::NotFound && path != first => {
                return Ok(true);
            }
            Err(error) => return Err(error),
        }
        match parts.next() {
            Some(part) => path.push(part),
            None => return Ok(true),
        }
    }
}
