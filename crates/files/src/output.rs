//! Opens files to write by paths that a person named.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{Access, AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use super::folder::TRIES_MAX;
use super::open::{Finding, SAFE, check_stream, kind, kind_of, wait_from_here};
use super::walk::{Need, Walk};
use super::writers::{Writers, is_trusted};
use super::{Folder, HostFiles, Identity, InUse, OpenError, Waiting, own};

/// A pipe that is opened to be written waits this long for its reader.
const READER_PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

const MODE: Mode = Mode::from_raw_mode(0o666);

/// A file to write.
#[derive(Debug)]
pub struct Output {
    pub file: OutputFile,
    /// `false` stands for a pipe, a terminal, a device, or a descriptor that this process was given.
    pub is_regular: bool,
    /// The folder of a regular file, and its name in there, wherever the path led.
    pub entry: Option<(Folder, OsString)>,
}

/// An open file that is written; as long as it is held, nothing else of the same command writes to it.
#[derive(Debug)]
pub struct OutputFile {
    file: Waiting<File>,
    in_use: Option<Arc<InUse>>,
}

impl HostFiles {
    /// Opens a file to append to and to read; it is made if it is missing. A pipe waits a while for its
    /// reader. Errors of other files of the command call this one `what`.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn append(&self, path: &Path, what: &'static str) -> Result<Output, OpenError> {
        self.write_at(path, what, |folder, name, looked| match looked {
            Some(stat) => folder.append_existing(name, stat),
            None => match folder.create(name) {
                Err(OpenError::System(error)) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
                created => created.map(Some),
            },
        })
    }

    /// Opens a file to write from its beginning. An existing file is replaced by a new file of that name; a pipe, a
    /// terminal or a device is written to.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn replace(&self, path: &Path, what: &'static str) -> Result<Output, OpenError> {
        self.write_at(path, what, |folder, name, looked| match looked {
            None => folder.make_named(name, None).map(Some),
            Some(stat) => match kind_of(stat) {
                FileType::RegularFile => folder.replace_regular(name, stat).map(Some),
                FileType::Directory => Err(Errno::ISDIR.into()),
                _ => folder.append_existing(name, stat),
            },
        })
    }

    /// Opens what a path leads to, by its links; `open` has what is no link. It returns `None` if the name was given
    /// to something else after the look at it: then this looks again.
    fn write_at(
        &self,
        path: &Path,
        what: &'static str,
        open: impl Fn(&Folder, &OsStr, Option<&Stat>) -> Result<Option<Output>, OpenError>,
    ) -> Result<Output, OpenError> {
        if let Some(number) = own::named(path) {
            return Output::own(number);
        }
        let mut walk = Walk::begin(self, path, Need::Own)?;
        for _ in 0..TRIES_MAX {
            let name = walk.reach_last()?.ok_or(Errno::ISDIR)?;
            let looked = walk.folder.look(&name)?;
            // The entry is checked before a file that stood there is gone.
            self.check_entry(&walk.folder, &name, looked.as_ref())?;
            let opened = match &looked {
                Some(stat) if kind_of(stat) == FileType::Symlink => {
                    match self.beyond_link(&mut walk, &name, stat, path)? {
                        Beyond::Opened(output) => return self.in_use(output, what),
                        Beyond::Followed => None,
                    }
                }
                looked => open(&walk.folder, &name, looked.as_ref())?,
            };
            if let Some(output) = opened {
                return self.in_use(output.at(walk.folder, name), what);
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// Returns what is done about a link at the end of a path that is written.
    fn beyond_link(
        &self,
        walk: &mut Walk<'_>,
        name: &OsStr,
        link: &Stat,
        path: &Path,
    ) -> Result<Beyond, OpenError> {
        if walk.is_in_proc() {
            return Ok(Beyond::Opened(match own::in_folder(&walk.folder, name) {
                Some(number) => Output::own(number)?,
                None => open_reached(&walk.folder, name)?,
            }));
        }
        if is_roots(walk, link) {
            return Ok(match walk.follow_last()? {
                Some(number) => Beyond::Opened(Output::own(number)?),
                None => Beyond::Followed,
            });
        }
        match self.own_behind(path) {
            Some(number) => Output::own(number).map(Beyond::Opened),
            None => Err(OpenError::output_link(&walk.folder, name)),
        }
    }

    /// The descriptor of this process to which a path leads by links that may be followed.
    fn own_behind(&self, path: &Path) -> Option<RawFd> {
        let mut walk = Walk::begin(self, path, Need::Own).ok()?;
        loop {
            let name = walk.reach_last().ok()??;
            let stat = walk.folder.look(&name).ok()??;
            match kind_of(&stat) {
                FileType::Symlink if walk.is_in_proc() => return own::in_folder(&walk.folder, &name),
                FileType::Symlink => {
                    if let Some(number) = walk.follow_last().ok()? {
                        return Some(number);
                    }
                }
                _ => return None,
            }
        }
    }
}

/// The place beyond a link at the end of a path that is written.
enum Beyond {
    Opened(Output),
    /// The walk goes on there.
    Followed,
}

impl Output {
    fn new(file: OwnedFd, is_regular: bool) -> Output {
        Output { file: OutputFile { file: Waiting(file.into()), in_use: None }, is_regular, entry: None }
    }

    /// One of this process's own descriptors: whatever it is, it is a stream, in which others may write as well.
    fn own(number: RawFd) -> Result<Output, OpenError> {
        own::to_write(number).map(|file| Output::new(file, false))
    }

    fn at(mut self, folder: Folder, name: OsString) -> Output {
        self.entry = self.is_regular.then_some((folder, name));
        self
    }
}

impl OutputFile {
    pub fn file(&self) -> &File {
        &self.file.0
    }

    pub(super) fn keep(&mut self, in_use: Arc<InUse>) {
        self.in_use = Some(in_use);
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Folder {
    /// Makes a new file of that name.
    fn create(&self, name: &OsStr) -> Result<Output, OpenError> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL | SAFE;
        Ok(Output::new(rustix::fs::openat(self, name, flags, MODE)?, true))
    }

    /// Opens a regular file of that name to append to; it is made if it is missing. No link is followed.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn append(&self, name: &OsStr) -> Result<Output, OpenError> {
        for _ in 0..TRIES_MAX {
            match self.look(name)? {
                None => match self.create(name) {
                    Err(OpenError::System(error)) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                    created => return created,
                },
                Some(stat) if kind_of(&stat) == FileType::Symlink => {
                    return Err(OpenError::output_link(self, name));
                }
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
        let file = match if kind_of(looked) == FileType::Fifo { with_reader(open)? } else { open() } {
            Err(Errno::NOENT | Errno::LOOP) => return Ok(None),
            file => file?,
        };
        let stat = rustix::fs::fstat(&file)?;
        if kind_of(&stat) != kind_of(looked) {
            return Ok(None);
        }
        if !is_regular {
            wait_from_here(&file)?;
            return Ok(Some(Output::new(file, is_regular)));
        }
        if stat.st_nlink > 1 && !self.may_have_names(&stat) {
            return Err(OpenError::SeveralNames);
        }
        match self.writers() {
            _ if is_trusted(stat.st_uid) => {}
            Writers::Nobody => {}
            Writers::Owner(folder) if stat.st_uid == folder => {}
            Writers::Owner(folder) => {
                return Err(OpenError::NotTheFolderOwners { file: stat.st_uid, folder });
            }
            Writers::Anyone | Writers::AnyoneAdds | Writers::Tasks => {
                return Err(OpenError::NotOurs(stat.st_uid));
            }
        }
        self.check_names(name, &file, &stat)?;
        Ok(Some(Output::new(file, is_regular)))
    }

    /// Returns whether a file of this name may have others: it is this user's or root's, and so is the name,
    /// since nobody else can have given it. The other names do no harm then, unless tasks of this command may
    /// write by one of them.
    fn may_have_names(&self, file: &Stat) -> bool {
        self.writers() == Writers::Nobody && is_trusted(file.st_uid) && !self.beside_tasks()
    }

    /// Makes a new file in place of whatever has that name; it has the mode and the owner of `before`, if there was one.
    fn make_named(&self, name: &OsStr, before: Option<&Stat>) -> Result<Output, OpenError> {
        // Nobody else sees it before it has its mode.
        let mode = before.map_or(MODE.as_raw_mode(), |_| 0o600);
        let (made, file) = self.make_new("new", mode)?;
        let kept = before.map_or(Ok(()), |before| keep_mode(&file, before));
        if let Err(error) = kept.and_then(|()| self.rename(&made, name)) {
            let _ = self.remove_file(&made);
            return Err(error.into());
        }
        Ok(Output::new(file.into(), true))
    }

    /// Returns the regular file of that name that is to be replaced, if its mode and owner are to be kept.
    ///
    /// # Errors
    /// There is one, and this user may not write to it; or there is a link.
    pub(super) fn before(&self, name: &OsStr) -> io::Result<Option<Stat>> {
        match self.look(name)? {
            Some(stat) if kind_of(&stat) == FileType::RegularFile => match self.kept(name, stat) {
                // Other files of the folder may be written.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    Err(io::Error::other("this user may not write to the file that it would replace"))
                }
                kept => kept,
            },
            Some(stat) if kind_of(&stat) == FileType::Symlink => {
                Err(OpenError::output_link(self, name).into())
            }
            _ => Ok(None),
        }
    }

    fn kept(&self, name: &OsStr, looked: Stat) -> io::Result<Option<Stat>> {
        // The kernel asks only for the folder's permission to replace a file; but who may not write to a file
        // is not to empty it.
        rustix::fs::accessat(self, name, Access::WRITE_OK, AtFlags::EACCESS)?;
        let is_believed = match self.writers() {
            Writers::Nobody => true,
            Writers::Owner(uid) => looked.st_uid == uid || is_trusted(looked.st_uid),
            Writers::AnyoneAdds => is_trusted(looked.st_uid),
            Writers::Anyone | Writers::Tasks => false,
        };
        Ok(is_believed.then_some(looked))
    }

    /// Does what [`append`](Self::append) does, where a file begins anew: one that is empty gets the mode and
    /// the owner of the one before it.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn append_after(&self, name: &OsStr, before: &File) -> Result<Output, OpenError> {
        let before = rustix::fs::fstat(before)?;
        let output = self.append(name)?;
        let file = output.file.file();
        let stat = rustix::fs::fstat(file)?;
        if stat.st_size == 0 && Identity::of(&stat) != Identity::of(&before) {
            keep_mode(file, &before)?;
        }
        Ok(output)
    }

    fn replace_regular(&self, name: &OsStr, looked: &Stat) -> Result<Output, OpenError> {
        let kept = self.kept(name, *looked)?;
        match self.make_named(name, kept.as_ref()) {
            // A file can be writable although its folder is not, or be a mount point that cannot be replaced.
            Err(OpenError::System(error)) if self.writers() == Writers::Nobody => {
                match self.append_existing(name, looked) {
                    Ok(Some(output)) => {
                        rustix::fs::ftruncate(output.file.file(), 0)?;
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

/// Gives a new file the owner, as far as that is possible, and the mode of the one that it replaces.
pub(super) fn keep_mode(file: &File, before: &Stat) -> io::Result<()> {
    let made = rustix::fs::fstat(file)?;
    let uid = Uid::from_raw(before.st_uid);
    let gid = Gid::from_raw(before.st_gid);
    let has_owner = made.st_uid == before.st_uid || rustix::fs::fchown(file, Some(uid), None).is_ok();
    let has_group = made.st_gid == before.st_gid || rustix::fs::fchown(file, None, Some(gid)).is_ok();
    let mut mode = before.st_mode & 0o777;
    // A file that was for one group is not for another.
    if !has_group {
        mode &= !0o070;
    }
    if !has_owner {
        mode |= 0o600;
    }
    Ok(rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?)
}

/// Returns whether a link at the end of a path to write to is root's, such as `/dev/stdout`. This user's own
/// links are not followed: unless this user is root, tasks have the same user and may have made them.
fn is_roots(walk: &Walk<'_>, link: &Stat) -> bool {
    link.st_uid == 0 && matches!(walk.folder.writers(), Writers::Nobody | Writers::AnyoneAdds)
}

/// Opens what a link in `/proc` leads to: another process of this user's has it open.
fn open_reached(folder: &Folder, name: &OsStr) -> Result<Output, OpenError> {
    let reached = rustix::fs::statat(folder, name, AtFlags::empty())?;
    if kind_of(&reached) == FileType::Socket {
        return Err(OpenError::NotRegular(kind(&reached)));
    }
    let flags = OFlags::APPEND | (SAFE - OFlags::NOFOLLOW);
    let open = |access: OFlags| rustix::fs::openat(folder, name, access | flags, Mode::empty());
    let file = match open(OFlags::RDWR) {
        // Only a regular file is kept open for reading: as a pipe's own reader this process would never see
        // that nobody reads.
        Ok(file) if kind_of(&rustix::fs::fstat(&file)?) == FileType::RegularFile => file,
        Ok(_) | Err(Errno::ACCESS | Errno::NXIO | Errno::ISDIR) => match kind_of(&reached) {
            FileType::Fifo => with_reader(|| open(OFlags::WRONLY))??,
            _ => open(OFlags::WRONLY)?,
        },
        Err(error) => return Err(error.into()),
    };
    let stat = rustix::fs::fstat(&file)?;
    wait_from_here(&file)?;
    Ok(Output::new(file, kind_of(&stat) == FileType::RegularFile))
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
