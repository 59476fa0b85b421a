//! Opens files to read, and folders, by paths that a person named.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::walk::{Need, Walk};
use super::writers::{Stranger, Writers, is_trusted};
use super::{Folder, HostFiles, OpenError, Waiting, own};
use proto::text::Name;

/// Every file is opened with these flags: they follow no link at its end, wait for nobody, and take no
/// terminal as the controlling one.
pub(super) const SAFE: OFlags =
    OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// A pipe that nobody writes to is waited for this long before that is said.
const WAITED_IN_SILENCE: Duration = Duration::from_secs(1);

/// This says how the path of a file to read was found, which decides what may stand there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// A person named it: it may be a link, and also a pipe or a device where nobody else could put one.
    Named,
    /// A usual place for the file. What is there must be a regular file, and may be behind a link.
    Usual,
    /// A usual place for settings. Besides, only this user or root can have put there what is there.
    Settings,
    /// The folder may be anybody's: it must be a regular file and no link, which only this user or root can have put
    /// there.
    Stray,
}

impl Finding {
    /// Refuses what a stranger can have put there, if it is relied on without anybody's word. This is asked before
    /// anything else is said about it: a stranger's link or pipe is no error of this user's.
    fn check_own(self, folder: &Folder, named: &Stat) -> Result<(), OpenError> {
        match self {
            Finding::Named | Finding::Usual => Ok(()),
            Finding::Settings | Finding::Stray => {
                Stranger::of(folder, named).map_or(Ok(()), |stranger| Err(OpenError::Strangers(stranger)))
            }
        }
    }
}

impl HostFiles {
    /// Opens an input that somebody named.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn read(&self, path: &Path) -> Result<Waiting<File>, OpenError> {
        self.read_by(path, Need::Input, Finding::Named)
    }

    /// Opens a file whose word counts, such as settings: tasks must not be able to write it.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn read_own(&self, path: &Path, finding: Finding) -> Result<Waiting<File>, OpenError> {
        self.read_by(path, Need::Own, finding)
    }

    /// Opens a folder of inputs, which must exist.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn folder(&self, path: &Path) -> Result<Folder, OpenError> {
        if let Some(number) = own::named(path) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let folder = rustix::fs::openat(own::copied(number)?, ".", flags, Mode::empty())?;
            return Folder::new(folder, path.to_path_buf(), &self.tasks);
        }
        Walk::begin(self, path, Need::Input)?.reach_end()
    }

    /// Opens a folder to write in; it and those above it are made if they are missing.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn make_folder(&self, path: &Path, mode: u32) -> Result<Folder, OpenError> {
        Walk::begin(self, path, Need::Own)?.making(mode).reach_end()
    }

    /// Opens an existing folder that tasks must not reach.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn own_folder(&self, path: &Path) -> Result<Folder, OpenError> {
        Walk::begin(self, path, Need::Own)?.reach_end()
    }

    /// Does the same as [`make_folder`](Self::make_folder), but refuses a path that ends in a link.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn make_own_folder(&self, path: &Path, mode: u32) -> Result<Folder, OpenError> {
        let mut walk = Walk::begin(self, path, Need::Own)?.making(mode);
        if let Some(name) = walk.reach_last()?
            && walk.folder.look(&name)?.is_some_and(|stat| kind_of(&stat) == FileType::Symlink)
        {
            return Err(OpenError::link(walk.folder.path(), &name));
        }
        walk.reach_end()
    }

    /// Makes a folder, which must not exist yet.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn make_new_folder(&self, path: &Path) -> Result<Folder, OpenError> {
        let mut walk = Walk::begin(self, path, Need::Own)?.making(0o777);
        let name = walk.reach_last()?.ok_or(Errno::EXIST)?;
        rustix::fs::mkdirat(&walk.folder, &name, Mode::from_raw_mode(0o777))?;
        walk.reach_end()
    }

    /// Looks at what a path leads to, without opening it.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn look(&self, path: &Path) -> Result<Stat, OpenError> {
        if let Some(number) = own::named(path) {
            return Ok(rustix::fs::fstat(own::copied(number)?)?);
        }
        let mut walk = Walk::begin(self, path, Need::Input)?;
        loop {
            let Some(name) = walk.reach_last()? else { return Ok(walk.folder.stat()?) };
            match walk.folder.look(&name)? {
                None => return Err(Errno::NOENT.into()),
                Some(stat) if kind_of(&stat) != FileType::Symlink => return Ok(stat),
                Some(_) if walk.is_in_proc() => {
                    return Ok(rustix::fs::statat(&walk.folder, &name, AtFlags::empty())?);
                }
                Some(_) => {
                    if let Some(number) = walk.follow_last()? {
                        return Ok(rustix::fs::fstat(own::copied(number)?)?);
                    }
                }
            }
        }
    }

    fn read_by(&self, path: &Path, need: Need, finding: Finding) -> Result<Waiting<File>, OpenError> {
        let may_be_own = finding == Finding::Named;
        if may_be_own && let Some(number) = own::named(path) {
            return own_source(number);
        }
        let mut walk = Walk::begin(self, path, need)?;
        loop {
            let name = walk.reach_last()?.ok_or(Errno::ISDIR)?;
            let Some(stat) = walk.folder.look(&name)? else { return Err(Errno::NOENT.into()) };
            finding.check_own(&walk.folder, &stat)?;
            let is_link = kind_of(&stat) == FileType::Symlink;
            if is_link && finding == Finding::Stray {
                return Err(OpenError::link(walk.folder.path(), &name));
            }
            if is_link && walk.is_in_proc() {
                if may_be_own && let Some(number) = own::in_folder(&walk.folder, &name) {
                    return own_source(number);
                }
                let flags = OFlags::RDONLY | (SAFE - OFlags::NOFOLLOW);
                let file = rustix::fs::openat(&walk.folder, &name, flags, Mode::empty())?;
                return checked_stream(file, finding);
            }
            if is_link {
                if let Some(number) = walk.follow_last()?.filter(|_| may_be_own) {
                    return own_source(number);
                }
                continue;
            }
            // Opening a device or a pipe can already have effects, so one that somebody else may have put
            // there is not opened.
            if kind_of(&stat) != FileType::RegularFile {
                check_stream(walk.folder.writers(), finding, &stat)?;
            }
            let file = rustix::fs::openat(&walk.folder, &name, OFlags::RDONLY | SAFE, Mode::empty());
            let file = file.map_err(|error| match error {
                Errno::LOOP => OpenError::link(walk.folder.path(), &name),
                error => error.into(),
            })?;
            let tell = || self.tell_of_pipe(path);
            return checked_input(file, &name, (&walk, finding), tell);
        }
    }

    fn tell_of_pipe(&self, path: &Path) {
        let path = Name(path.to_string_lossy());
        (self.tell.0)(&format!("{path} is a pipe to which nobody has written so far: waiting for that"));
    }
}

/// One of this process's own descriptors, which stands in no folder.
fn own_source(number: RawFd) -> Result<Waiting<File>, OpenError> {
    let file = own::to_read(number)?;
    match kind_of(&rustix::fs::fstat(&file)?) {
        FileType::Directory => Err(Errno::ISDIR.into()),
        _ => Ok(Waiting(file.into())),
    }
}

fn checked_input(
    file: OwnedFd,
    name: &OsStr,
    (walk, finding): (&Walk<'_>, Finding),
    tell: impl Fn(),
) -> Result<Waiting<File>, OpenError> {
    let stat = rustix::fs::fstat(&file)?;
    let writers = walk.folder.writers();
    walk.check_reached(&stat)?;
    // The name may stand for another file by now.
    finding.check_own(&walk.folder, &stat)?;
    match kind_of(&stat) {
        FileType::RegularFile if finding == Finding::Stray && stat.st_nlink > 1 => {
            Err(OpenError::SeveralNames)
        }
        FileType::RegularFile => walk.folder.check_names(name, &file, &stat).map(|()| Waiting(file.into())),
        FileType::Directory => Err(Errno::ISDIR.into()),
        kind => {
            check_stream(writers, finding, &stat)?;
            if kind == FileType::Fifo {
                wait_for_writer(&file, tell)?;
            }
            wait_from_here(&file)?;
            Ok(Waiting(file.into()))
        }
    }
}

/// Checks a file that was reached by a link in `/proc`: some process of this user's has it open already.
fn checked_stream(file: OwnedFd, finding: Finding) -> Result<Waiting<File>, OpenError> {
    let stat = rustix::fs::fstat(&file)?;
    match kind_of(&stat) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Errno::ISDIR.into()),
        _ if finding != Finding::Named => return Err(OpenError::NotRegular(kind(&stat))),
        _ => wait_from_here(&file)?,
    }
    Ok(Waiting(file.into()))
}

/// Allows a pipe or a device only if somebody named it and nobody else can have put it there.
pub(super) fn check_stream(writers: Writers, finding: Finding, stat: &Stat) -> Result<(), OpenError> {
    let is_safe = matches!(writers, Writers::Nobody | Writers::AnyoneAdds) && is_trusted(stat.st_uid)
        || writers != Writers::Tasks && is_harmless_device(stat);
    match kind_of(stat) {
        FileType::Directory => Err(Errno::ISDIR.into()),
        FileType::Socket => Err(OpenError::NotRegular(kind(stat))),
        _ if finding == Finding::Named && is_safe => Ok(()),
        _ => Err(OpenError::NotRegular(kind(stat))),
    }
}

/// Returns whether it is a device that does no harm wherever it stands, and whoever owns it: null, zero,
/// full, random, urandom, this process's terminal, or one that a program drives. Only root makes devices; but
/// in a user namespace that does not know root, root's folders are another user's.
fn is_harmless_device(stat: &Stat) -> bool {
    let number = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    kind_of(stat) == FileType::CharacterDevice
        && matches!(number, (1, 3 | 5 | 7 | 8 | 9) | (5, 0) | (136..=143, _))
}

/// Waits for a pipe's writer, without a limit, since whoever named the pipe asked for that; but `tell` is told.
fn wait_for_writer(pipe: impl AsFd, tell: impl Fn()) -> Result<(), OpenError> {
    let silence = Timespec { tv_sec: WAITED_IN_SILENCE.as_secs().cast_signed(), tv_nsec: 0 };
    let mut patience = Some(&silence);
    loop {
        match rustix::event::poll(&mut [PollFd::new(&pipe, PollFlags::IN)], patience) {
            Err(Errno::INTR) => {}
            Ok(0) => {
                tell();
                patience = None;
            }
            polled => return Ok(polled.map(drop)?),
        }
    }
}

/// Makes a file blocking again, as stdin and stdout are: it was opened without waiting.
pub(super) fn wait_from_here(file: impl AsFd) -> Result<(), OpenError> {
    let flags = rustix::fs::fcntl_getfl(&file)?;
    Ok(rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?)
}

pub(super) fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Names the kind of a file in words.
pub(super) fn kind(stat: &Stat) -> &'static str {
    match kind_of(stat) {
        FileType::RegularFile => "a regular file",
        FileType::Directory => "a folder",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "of an unknown kind",
    }
}
