//! Opens files by paths that a person named.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::folder::TRIES_MAX;
use super::walk::{Need, Walk};
use super::writers::{Writers, is_trusted};
use super::{Folder, HostFiles, OpenError};

/// A pipe that is opened to be written waits this long for its reader.
const READER_PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

const MODE: Mode = Mode::from_raw_mode(0o666);

/// Every file is opened with these flags: they follow no link at its end, wait for nobody, and take no
/// terminal as the controlling one.
const SAFE: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// A file to read, and the folder in which it stands.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) file: File,
    pub(crate) folder: Folder,
}

/// A file to write.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) file: File,
    /// A file that is not regular is a pipe, a terminal or a device.
    pub(crate) is_regular: bool,
}

/// This says how the path of a file to read was found, which decides what may stand there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// A person named it: it may be a link, and also a pipe or a device where nobody else could put one.
    Named,
    /// It is a usual place for the file: it must be a regular file, and may be behind a link.
    Usual,
    /// The folder may be anybody's: it must be a regular file and no link.
    Stray,
}

impl HostFiles {
    /// Opens an input that somebody named.
    ///
    /// # Errors
    /// [`OpenError`]
    pub(crate) fn read(&self, path: &Path) -> Result<File, OpenError> {
        self.read_by(path, Need::Input, Finding::Named).map(|source| source.file)
    }

    /// Opens a file whose word counts, such as settings: tasks must not be able to write it.
    ///
    /// # Errors
    /// [`OpenError`]
    pub(crate) fn read_own(&self, path: &Path, finding: Finding) -> Result<Source, OpenError> {
        self.read_by(path, Need::Own, finding)
    }

    /// Opens a folder of inputs, which must exist.
    ///
    /// # Errors
    /// [`OpenError`]
    pub(crate) fn folder(&self, path: &Path) -> Result<Folder, OpenError> {
        Walk::begin(self, path, Need::Input)?.reach_end()
    }

    /// Opens a folder to write in; it and those above it are made if they are missing.
    ///
    /// # Errors
    /// [`OpenError`]
    pub(crate) fn make_folder(&self, path: &Path, mode: u32) -> Result<Folder, OpenError> {
        Walk::begin(self, path, Need::Own)?.making(mode).reach_end()
    }

    /// Opens an existing folder that tasks must not reach.
    ///
    /// # Errors
    /// [`OpenError`]
    pub(crate) fn own_folder(&self, path: &Path) -> Result<Folder, OpenError> {
        Walk::begin(self, path, Need::Own)?.reach_end()
    }

    /// Does the same as [`make_folder`](Self::make_folder), but refuses a path that ends in a link.
    ///
    /// # Errors
    /// [`OpenError`]
    pub(crate) fn make_own_folder(&self, path: &Path, mode: u32) -> Result<Folder, OpenError> {
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
    pub(crate) fn make_new_folder(&self, path: &Path) -> Result<Folder, OpenError> {
        let mut walk = Walk::begin(self, path, Need::Own)?.making(0o777);
        let name = walk.reach_last()?.ok_or(Errno::EXIST)?;
        rustix::fs::mkdirat(&walk.folder, &name, Mode::from_raw_mode(0o777))?;
        walk.reach_end()
    }

    /// Looks at what a path leads to, without opening it.
    ///
    /// # Errors
    /// [`OpenError`]
    pub(crate) fn look(&self, path: &Path) -> Result<Stat, OpenError> {
        let mut walk = Walk::begin(self, path, Need::Input)?;
        loop {
            let Some(name) = walk.reach_last()? else { return Ok(walk.folder.stat()?) };
            match walk.folder.look(&name)? {
                None => return Err(Errno::NOENT.into()),
                Some(stat) if kind_of(&stat) != FileType::Symlink => return Ok(stat),
                Some(_) if walk.is_in_proc() => {
                    return Ok(rustix::fs::statat(&walk.folder, &name, AtFlags::empty())?);
                }
                Some(_) => walk.follow_last()?,
            }
        }
    }

    /// Opens the folder in which a file is to be written, which must exist, and returns the file's name in
    /// it.
    ///
    /// # Errors
    /// [`OpenError`]
    pub(crate) fn folder_of(&self, path: &Path) -> Result<(Folder, OsString), OpenError> {
        let mut walk = Walk::begin(self, path, Need::Own)?;
        let name = walk.reach_last()?.ok_or(Errno::ISDIR)?;
        Ok((walk.folder, name))
    }

    /// Opens a file to append to and to read; it is made if it is missing. A pipe waits a while for its
    /// reader.
    ///
    /// # Errors
    /// [`OpenError`]
    pub(crate) fn append(&self, path: &Path) -> Result<Output, OpenError> {
        let mut walk = Walk::begin(self, path, Need::Own)?;
        for _ in 0..TRIES_MAX {
            let name = walk.reach_last()?.ok_or(Errno::ISDIR)?;
            let Some(stat) = walk.folder.look(&name)? else {
                match walk.folder.create(&name) {
                    Err(OpenError::System(error)) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                    created => return created,
                }
                continue;
            };
            match kind_of(&stat) {
                FileType::Symlink if walk.is_in_proc() => return open_reached(&walk.folder, &name),
                FileType::Symlink if is_roots(&walk, &stat) => walk.follow_last()?,
                FileType::Symlink => return Err(OpenError::link(walk.folder.path(), &name)),
                _ => match walk.folder.append_existing(&name, &stat)? {
                    Some(output) => return Ok(output),
                    None => continue,
                },
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// Opens a file to write from its beginning. An existing file or link is replaced by a new file of that
    /// name; a pipe, a terminal or a device is written to.
    ///
    /// # Errors
    /// [`OpenError`]
    pub(crate) fn replace(&self, path: &Path) -> Result<Output, OpenError> {
        let mut walk = Walk::begin(self, path, Need::Own)?;
        for _ in 0..TRIES_MAX {
            let name = walk.reach_last()?.ok_or(Errno::ISDIR)?;
            let Some(stat) = walk.folder.look(&name)? else { return walk.folder.make_named(&name) };
            match kind_of(&stat) {
                FileType::Symlink if walk.is_in_proc() => return open_reached(&walk.folder, &name),
                FileType::Symlink if is_roots(&walk, &stat) => walk.follow_last()?,
                FileType::Symlink => return walk.folder.make_named(&name),
                FileType::RegularFile => return walk.folder.replace_regular(&name, &stat),
                FileType::Directory => return Err(Errno::ISDIR.into()),
                _ => match walk.folder.append_existing(&name, &stat)? {
                    Some(output) => return Ok(output),
                    None => continue,
                },
            }
        }
        Err(Errno::AGAIN.into())
    }

    fn read_by(&self, path: &Path, need: Need, finding: Finding) -> Result<Source, OpenError> {
        let mut walk = Walk::begin(self, path, need)?;
        loop {
            let name = walk.reach_last()?.ok_or(Errno::ISDIR)?;
            let Some(stat) = walk.folder.look(&name)? else { return Err(Errno::NOENT.into()) };
            let is_link = kind_of(&stat) == FileType::Symlink;
            if is_link && finding == Finding::Stray {
                return Err(OpenError::link(walk.folder.path(), &name));
            }
            if is_link && walk.is_in_proc() {
                let flags = OFlags::RDONLY | (SAFE - OFlags::NOFOLLOW);
                let file = rustix::fs::openat(&walk.folder, &name, flags, Mode::empty())?;
                return Ok(Source { file: checked_stream(file, finding)?, folder: walk.folder });
            }
            if is_link {
                walk.follow_last()?;
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
            return Ok(Source { file: checked_input(file, &name, &walk, finding)?, folder: walk.folder });
        }
    }
}

impl Folder {
    /// Makes a new file of that name.
    fn create(&self, name: &OsStr) -> Result<Output, OpenError> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL | SAFE;
        let file = rustix::fs::openat(self, name, flags, MODE)?;
        Ok(Output { file: file.into(), is_regular: true })
    }

    /// Opens a regular file of that name to append to; it is made if it is missing. No link is followed.
    ///
    /// # Errors
    /// [`OpenError`]
    pub(crate) fn append(&self, name: &OsStr) -> Result<Output, OpenError> {
        for _ in 0..TRIES_MAX {
            match self.look(name)? {
                None => match self.create(name) {
                    Err(OpenError::System(error)) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                    created => return created,
                },
                Some(stat) if kind_of(&stat) != FileType::RegularFile => {
                    return Err(OpenError::NotRegular(kind(&stat)));
                }
                Some(stat) => {
                    if let Some(output) = self.append_existing(name, &stat)? {
                        return Ok(output);
                    }
                }
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// Opens the file that was looked at; returns `None` if the name stands for something else by now.
    fn append_existing(&self, name: &OsStr, looked: &Stat) -> Result<Option<Output>, OpenError> {
        let is_regular = kind_of(looked) == FileType::RegularFile;
        if !is_regular {
            check_stream(self.writers(), Finding::Named, looked)?;
        }
        let access = if is_regular { OFlags::RDWR | OFlags::APPEND } else { OFlags::WRONLY };
        let open = || rustix::fs::openat(self, name, access | SAFE, Mode::empty());
        let file = match if is_regular { open() } else { with_reader(open)? } {
            Err(Errno::NOENT | Errno::LOOP) => return Ok(None),
            file => file?,
        };
        let stat = rustix::fs::fstat(&file)?;
        if kind_of(&stat) != kind_of(looked) {
            return Ok(None);
        }
        if !is_regular {
            wait_from_here(&file)?;
            return Ok(Some(Output { file: file.into(), is_regular }));
        }
        if stat.st_nlink > 1 {
            return Err(OpenError::SeveralNames);
        }
        let is_ours = match self.writers() {
            Writers::Nobody => true,
            Writers::Owner(uid) => stat.st_uid == uid || is_trusted(stat.st_uid),
            Writers::Anyone | Writers::AnyoneAdds | Writers::Tasks => is_trusted(stat.st_uid),
        };
        if !is_ours {
            return Err(OpenError::NotOurs);
        }
        self.check_names(name, &file, &stat)?;
        Ok(Some(Output { file: file.into(), is_regular }))
    }

    /// Makes a new file in place of whatever has that name.
    fn make_named(&self, name: &OsStr) -> Result<Output, OpenError> {
        let (made, file) = self.make_new("new", MODE.as_raw_mode())?;
        if let Err(error) = self.rename(&made, name) {
            let _ = self.remove_file(&made);
            return Err(error.into());
        }
        Ok(Output { file, is_regular: true })
    }

    fn replace_regular(&self, name: &OsStr, looked: &Stat) -> Result<Output, OpenError> {
        if looked.st_mode & 0o222 == 0 && !rustix::process::geteuid().is_root() {
            return Err(Errno::ACCESS.into());
        }
        match self.make_named(name) {
            // A file can be writable although its folder is not, or be a mount point that cannot be replaced.
            Err(OpenError::System(error)) if self.writers() == Writers::Nobody => {
                match self.append_existing(name, looked) {
                    Ok(Some(output)) => {
                        rustix::fs::ftruncate(&output.file, 0)?;
                        Ok(output)
                    }
                    Ok(None) => Err(error.into()),
                    Err(error) => Err(error),
                }
            }
            made => made,
        }
    }
}

/// Whether a link at the end of a path to write to is root's, such as `/dev/stdout`. This user's own links
/// are not followed: unless this user is root, tasks have the same user and may have made them.
fn is_roots(walk: &Walk<'_>, link: &Stat) -> bool {
    link.st_uid == 0 && matches!(walk.folder.writers(), Writers::Nobody | Writers::AnyoneAdds)
}

/// Opens what a link in `/proc` leads to: it is already open in this process, or in another one of this
/// user's.
fn open_reached(folder: &Folder, name: &OsStr) -> Result<Output, OpenError> {
    let flags = OFlags::APPEND | (SAFE - OFlags::NOFOLLOW);
    let open = |access: OFlags| rustix::fs::openat(folder, name, access | flags, Mode::empty());
    let file = match open(OFlags::RDWR) {
        // Only a regular file is kept open for reading: as a pipe's own reader this process would never see
        // that nobody reads.
        Ok(file) if kind_of(&rustix::fs::fstat(&file)?) == FileType::RegularFile => file,
        Ok(_) | Err(Errno::ACCESS | Errno::NXIO | Errno::ISDIR) => with_reader(|| open(OFlags::WRONLY))??,
        Err(error) => return Err(error.into()),
    };
    let stat = rustix::fs::fstat(&file)?;
    wait_from_here(&file)?;
    Ok(Output { file: file.into(), is_regular: kind_of(&stat) == FileType::RegularFile })
}

/// Opens a pipe once it has a reader.
fn with_reader(
    open: impl Fn() -> rustix::io::Result<OwnedFd>,
) -> Result<rustix::io::Result<OwnedFd>, OpenError> {
    let began = Instant::now();
    loop {
        match open() {
            Err(Errno::NXIO) if began.elapsed() > READER_PATIENCE => return Err(OpenError::NoReader),
            Err(Errno::NXIO) => std::thread::sleep(LOOK_AGAIN),
            opened => return Ok(opened),
        }
    }
}

fn checked_input(file: OwnedFd, name: &OsStr, walk: &Walk<'_>, finding: Finding) -> Result<File, OpenError> {
    let stat = rustix::fs::fstat(&file)?;
    let writers = walk.folder.writers();
    if walk.via.is_some_and(|owner| owner != stat.st_uid) {
        return Err(OpenError::Link(walk.folder.shown()));
    }
    match kind_of(&stat) {
        FileType::RegularFile if finding == Finding::Stray && stat.st_nlink > 1 => {
            Err(OpenError::SeveralNames)
        }
        FileType::RegularFile => walk.folder.check_names(name, &file, &stat).map(|()| file.into()),
        FileType::Directory => Err(Errno::ISDIR.into()),
        kind => {
            check_stream(writers, finding, &stat)?;
            if kind == FileType::Fifo {
                wait_for_writer(&file)?;
            }
            wait_from_here(&file)?;
            Ok(file.into())
        }
    }
}

/// Checks a file that was reached by a link in `/proc`: some process of this user's has it open already.
fn checked_stream(file: OwnedFd, finding: Finding) -> Result<File, OpenError> {
    let stat = rustix::fs::fstat(&file)?;
    match kind_of(&stat) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Errno::ISDIR.into()),
        _ if finding != Finding::Named => return Err(OpenError::NotRegular(kind(&stat))),
        _ => wait_from_here(&file)?,
    }
    Ok(file.into())
}

/// Allows a pipe or a device only if somebody named it and nobody else can have put it there.
fn check_stream(writers: Writers, finding: Finding, stat: &Stat) -> Result<(), OpenError> {
    let is_safe = matches!(writers, Writers::Nobody | Writers::AnyoneAdds) && is_trusted(stat.st_uid);
    match kind_of(stat) {
        FileType::Directory => Err(Errno::ISDIR.into()),
        _ if finding == Finding::Named && is_safe => Ok(()),
        _ => Err(OpenError::NotRegular(kind(stat))),
    }
}

/// Waits for a pipe's writer, without a limit: whoever named the pipe asked for that.
fn wait_for_writer(pipe: impl AsFd) -> Result<(), OpenError> {
    loop {
        match rustix::event::poll(&mut [PollFd::new(&pipe, PollFlags::IN)], None) {
            Err(Errno::INTR) => {}
            polled => return Ok(polled.map(drop)?),
        }
    }
}

/// Makes a file blocking again, as stdin and stdout are: it was opened without waiting.
fn wait_from_here(file: impl AsFd) -> Result<(), OpenError> {
    let flags = rustix::fs::fcntl_getfl(&file)?;
    Ok(rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?)
}

fn kind_of(stat: &Stat) -> FileType {
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
