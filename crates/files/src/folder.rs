//! A folder that is held open: its names are looked up in it, whatever its path leads to by now.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, RawDir, ResolveFlags, Stat};
use rustix::io::Errno;

use super::open::kind;
use super::output::keep_mode;
use super::writers::{TaskDirs, Writers, is_trusted};
use super::{HostFiles, OpenError, Waiting};
use proto::refused::explained;

/// A lookup that raced a rename is tried this often before it is an error.
pub(super) const TRIES_MAX: usize = 16;

/// A killed process may have left its lock to a forked child, which keeps it until it executes another
/// program.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// This has room for at least one name: where a folder is read only to wait for a change under way, no more
/// are needed.
const SOME_NAMES_BYTES: usize = 512;

/// A name of this many random bytes cannot be guessed.
const NAME_BYTES: usize = 16;

#[derive(Debug)]
pub struct Folder {
    descriptor: OwnedFd,
    /// The path is for messages only, since it may lead elsewhere by now. It is empty for the working
    /// directory.
    path: PathBuf,
    writers: Writers,
    /// Tasks of this command may write to some directory, be it this one or another.
    beside_tasks: bool,
}

/// A name in a folder, and its kind.
#[derive(Debug, Clone)]
pub struct Entry {
    pub name: OsString,
    /// Some file systems do not say: the kind is then unknown.
    pub kind: FileType,
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Folder {
    pub(super) fn new(descriptor: OwnedFd, path: PathBuf, tasks: &TaskDirs) -> Result<Folder, OpenError> {
        let stat = rustix::fs::fstat(&descriptor)?;
        let writers = Writers::of(&descriptor, &stat, tasks);
        Ok(Folder { descriptor, path, writers, beside_tasks: !tasks.is_empty() })
    }

    /// Opens the folder once more.
    pub(super) fn try_clone(&self) -> io::Result<Folder> {
        Ok(Folder {
            descriptor: self.descriptor.try_clone()?,
            path: self.path.clone(),
            writers: self.writers,
            beside_tasks: self.beside_tasks,
        })
    }

    pub(super) fn beside_tasks(&self) -> bool {
        self.beside_tasks
    }

    pub fn into_descriptor(self) -> OwnedFd {
        self.descriptor
    }

    pub fn writers(&self) -> Writers {
        self.writers
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns its path as messages show it.
    pub fn shown(&self) -> PathBuf {
        if self.path.as_os_str().is_empty() { ".".into() } else { self.path.clone() }
    }

    /// Asks the kernel for its present path.
    pub fn current_path(&self) -> Option<PathBuf> {
        path_of(&self.descriptor).ok().filter(|path| path.is_absolute())
    }

    pub fn stat(&self) -> io::Result<Stat> {
        Ok(rustix::fs::fstat(&self.descriptor)?)
    }

    /// Looks up a name without following a link; returns `None` if there is nothing.
    pub fn look(&self, name: impl AsRef<OsStr>) -> io::Result<Option<Stat>> {
        match rustix::fs::statat(&self.descriptor, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Lists all names but `.` and `..`, in no order.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        for entry in Dir::new(rustix::fs::openat(&self.descriptor, ".", flags, Mode::empty())?)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                entries.push(Entry { name: name.to_os_string(), kind: entry.file_type() });
            }
        }
        Ok(entries)
    }

    /// Opens a regular file beneath this folder as an input, following no link on the way.
    ///
    /// # Errors
    /// [`OpenError`]; a file that was swapped for something else meanwhile is refused.
    pub fn open_beneath(&self, files: &HostFiles, path: &Path) -> Result<File, OpenError> {
        // The folder is opened first, and asked who may change it: a moment later its name may stand for
        // another one.
        let held = match path.parent().filter(|parent| *parent != Path::new("")) {
            Some(parent) => Some(self.folder_beneath(files, parent)?),
            None => None,
        };
        let folder = held.as_ref().unwrap_or(self);
        let name = path.file_name().ok_or(Errno::ISDIR)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = folder.beneath(Path::new(name), flags)?;
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(OpenError::NotRegular(kind(&stat)));
        }
        folder.check_names(name, &file, &stat)?;
        Ok(file.into())
    }

    /// Opens a folder beneath this one.
    pub fn folder_beneath(&self, files: &HostFiles, path: &Path) -> Result<Folder, OpenError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Folder::new(self.beneath(path, flags)?, self.path.join(path), &files.tasks)
    }

    fn beneath(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, OpenError> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..TRIES_MAX {
            match rustix::fs::openat2(&self.descriptor, path, flags, Mode::empty(), resolve) {
                Ok(file) => return Ok(file),
                // A component was renamed during the lookup.
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::LOOP) => return Err(OpenError::Link(self.path.join(path))),
                // An old kernel or a system call filter does not know this call.
                Err(Errno::NOSYS | Errno::PERM) => return self.beneath_stepwise(path, flags),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// Opens what `beneath` opens, one component at a time: every kernel can do that.
    pub(super) fn beneath_stepwise(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, OpenError> {
        let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut held: Option<OwnedFd> = None;
        let mut components = path.components().peekable();
        while let Some(component) = components.next() {
            let Component::Normal(name) = component else { return Err(Errno::XDEV.into()) };
            let flags = if components.peek().is_some() { folder } else { flags | OFlags::NOFOLLOW };
            let at = held.as_ref().map_or(self.descriptor.as_fd(), AsFd::as_fd);
            let opened = rustix::fs::openat(at, name, flags, Mode::empty()).map_err(|error| match error {
                Errno::LOOP => OpenError::Link(self.path.join(path)),
                error => error.into(),
            })?;
            held = Some(opened);
        }
        held.ok_or_else(|| Errno::NOENT.into())
    }

    /// Makes a new hidden file whose name nobody can guess; the name ends in `.suffix`.
    pub fn make_new(&self, suffix: &str, mode: u32) -> io::Result<(OsString, File)> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for _ in 0..TRIES_MAX {
            let name = random_name(suffix)?;
            match rustix::fs::openat(&self.descriptor, &name, flags, Mode::from_raw_mode(mode)) {
                Err(Errno::EXIST) => {}
                opened => return Ok((name.into(), opened.map_err(explained)?.into())),
            }
        }
        Err(Errno::EXIST.into())
    }

    /// Returns whether [`make_new`](Self::make_new) may have made this name.
    pub fn is_made_name(name: &OsStr, suffix: &str) -> bool {
        let digits = name.as_bytes().strip_prefix(b".").and_then(|rest| rest.strip_suffix(suffix.as_bytes()));
        let digits = digits.and_then(|rest| rest.strip_suffix(b"."));
        digits
            .is_some_and(|digits| digits.len() == 2 * NAME_BYTES && digits.iter().all(u8::is_ascii_hexdigit))
    }

    /// Writes a whole file: a reader finds the new file, or what was there before.
    pub fn put(&self, name: impl AsRef<OsStr>, suffix: &str, bytes: &[u8]) -> io::Result<()> {
        self.put_by(name.as_ref(), suffix, None, |file| file.write_all(bytes))
    }

    /// Writes a whole file for a user, to whom what is there counts: a file that this user may not write to is not replaced,
    /// and the new file has its mode and its owner.
    pub fn replace_by(
        &self,
        name: impl AsRef<OsStr>,
        suffix: &str,
        write: impl FnOnce(&mut Waiting<File>) -> io::Result<()>,
    ) -> io::Result<()> {
        let name = name.as_ref();
        self.put_by(name, suffix, self.before(name)?, write)
    }

    /// Writes a whole file that has the mode and the owner of `before`, if there was one.
    fn put_by(
        &self,
        name: &OsStr,
        suffix: &str,
        before: Option<Stat>,
        write: impl FnOnce(&mut Waiting<File>) -> io::Result<()>,
    ) -> io::Result<()> {
        // Nobody else sees it before it has its mode.
        let (made, file) = self.make_new(suffix, before.map_or(0o666, |_| 0o600))?;
        let kept = before.map_or(Ok(()), |before| keep_mode(&file, &before));
        let mut file = Waiting(file);
        let written = kept.and_then(|()| write(&mut file)).and_then(|()| self.rename(&made, name));
        if written.is_err() {
            let _ = self.remove_file(&made);
        }
        written
    }

    pub fn rename(&self, from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) -> io::Result<()> {
        let from = from.as_ref();
        let to = to.as_ref();
        Ok(rustix::fs::renameat(&self.descriptor, from, &self.descriptor, to)?)
    }

    /// Removes a name that is not a folder's; a link is removed itself.
    pub fn remove_file(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.descriptor, name.as_ref(), AtFlags::empty())?)
    }

    /// Removes an empty folder.
    pub fn remove_folder(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.descriptor, name.as_ref(), AtFlags::REMOVEDIR)?)
    }

    /// Locks the folder until the returned lock is dropped. It does not wait for another holder: the files that
    /// one writes here must not be replaced a moment later.
    pub fn lock(&self) -> io::Result<Locked> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let folder = match rustix::fs::openat(&self.descriptor, ".", flags, Mode::empty()) {
            // A folder can be writable without being readable, and then there is nothing to lock.
            Err(Errno::ACCESS) => return Ok(Locked::NotHere),
            folder => folder?,
        };
        try_lock(&folder).map(|locked| match locked {
            Locked::Ours(_) => Locked::Ours(Some(folder)),
            other => other,
        })
    }
}

/// The result of asking for a lock.
#[derive(Debug)]
pub enum Locked {
    /// The lock is held until the file is closed: a folder's by this descriptor.
    Ours(Option<OwnedFd>),
    /// Another process has it.
    Others,
    /// The file system has no locks, or this kind of file has none.
    NotHere,
}

/// Locks a file for as long as this open file description lives. It is `flock`, since closing another
/// descriptor of the same file (a reader's) would release a POSIX lock. If another process has the lock, it
/// waits for a moment.
pub fn lock(file: impl AsFd) -> io::Result<Locked> {
    let began = Instant::now();
    loop {
        match try_lock(&file)? {
            Locked::Others if began.elapsed() <= LOCK_PATIENCE => std::thread::sleep(LOOK_AGAIN),
            locked => return Ok(locked),
        }
    }
}

fn try_lock(file: impl AsFd) -> io::Result<Locked> {
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Locked::Ours(None)),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) => return Ok(Locked::Others),
            Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::BADF) => {
                return Ok(Locked::NotHere);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The kernel's path of an open file ends in this once its name was removed.
const TAKEN_AWAY: &[u8] = b" (deleted)";

impl Folder {
    /// Refuses a file that was opened here if it has a second name: somebody may have given that name to a
    /// file of ours, to have it read or written as theirs.
    ///
    /// The second name could be removed between the opening and the count. So a file with one name must still
    /// have the name by which it was opened. The kernel says whether that name was removed, and it stays so;
    /// if it was there all the while, it is the one that was counted. A removal lowers the count first and
    /// drops the name second, and holds the folder's lock for both: reading the folder, or looking up a name in
    /// it that the kernel does not remember, waits for a removal that is halfway.
    pub(super) fn check_names(&self, name: &OsStr, file: impl AsFd, stat: &Stat) -> Result<(), OpenError> {
        let is_suspect = match self.writers {
            Writers::Nobody => false,
            Writers::Tasks => true,
            Writers::Anyone | Writers::AnyoneAdds | Writers::Owner(_) => is_trusted(stat.st_uid),
        };
        // A file without any name has no second one.
        if !is_suspect || stat.st_nlink == 0 {
            return Ok(());
        }
        if stat.st_nlink > 1 {
            return Err(OpenError::SeveralNames);
        }
        self.wait_for_removals()?;
        let before = path_of(&self.descriptor)?;
        let found = path_of(file)?;
        let is_still_there = before.join(name) == found && path_of(&self.descriptor)? == before;
        // A name may itself end in the kernel's mark, and then its path proves nothing.
        if !is_still_there || name.as_bytes().ends_with(TAKEN_AWAY) {
            return Err(OpenError::Replaced);
        }
        Ok(())
    }
}

impl Folder {
    /// Waits until whoever has the folder locked, to take a name away, is done.
    fn wait_for_removals(&self) -> Result<(), OpenError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let listed = match rustix::fs::openat(&self.descriptor, ".", flags, Mode::empty()) {
            // The folder may be written to, and not be listed. A name that nobody has looked for is looked up
            // under the same lock.
            Err(Errno::ACCESS) => {
                self.look(random_name("none")?)?;
                return Ok(());
            }
            listed => listed?,
        };
        let mut some = [MaybeUninit::uninit(); SOME_NAMES_BYTES];
        match RawDir::new(listed, &mut some).next() {
            Some(Err(error)) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// A hidden name that nobody can guess, and that ends in `.suffix`.
fn random_name(suffix: &str) -> io::Result<String> {
    let mut random = [0; NAME_BYTES];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(format!(".{:032x}.{suffix}", u128::from_ne_bytes(random)))
}

/// Asks the kernel for the path of an open file.
fn path_of(file: impl AsFd) -> io::Result<PathBuf> {
    let link = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let path = rustix::fs::readlink(link, Vec::new())?;
    Ok(PathBuf::from(OsStr::from_bytes(path.as_bytes())))
}
