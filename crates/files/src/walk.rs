//! Walks a path to its folder, one component after the other, and holds the folder open.

use std::ffi::{OsStr, OsString};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, PROC_SUPER_MAGIC, Stat};
use rustix::io::Errno;

use super::writers::{Writers, is_trusted};
use super::{Folder, HostFiles, Identity, OpenError, own};

/// This many links are followed at most, as in the kernel.
const LINKS_MAX: usize = 40;

const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The purpose of a file decides who may have had a hand in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// An input is handed to tasks, so tasks may have written it.
    Input,
    /// A file of the command's own is written to, or its word counts, so tasks must not reach it.
    Own,
}

#[derive(Debug)]
pub(super) struct Walk<'a> {
    files: &'a HostFiles,
    need: Need,
    /// The walk has reached this folder.
    pub(super) folder: Folder,
    /// The folders above it through which the walk came, the nearest last. A step up must lead to the same folder.
    above: Vec<Identity>,
    /// These components are left, the next one last.
    rest: Vec<OsString>,
    /// The path can only be a folder's: it ends with a slash, or with a slash and a dot.
    is_folders: bool,
    links_left: usize,
    /// A link was followed whose owner is neither this user nor root.
    via: Option<u32>,
    /// The target of the last link that was followed.
    target: PathBuf,
    /// Missing folders are made with this mode.
    make: Option<Mode>,
}

impl<'a> Walk<'a> {
    pub(super) fn begin(files: &'a HostFiles, path: &Path, need: Need) -> Result<Walk<'a>, OpenError> {
        if path.as_os_str().is_empty() {
            return Err(Errno::NOENT.into());
        }
        let start = if path.is_absolute() { "/" } else { "." };
        let folder = enter(files, need, rustix::fs::open(start, FOLDER, Mode::empty())?, PathBuf::new())?;
        let text = path.as_os_str().as_bytes();
        let mut walk = Walk {
            files,
            need,
            folder,
            above: Vec::new(),
            rest: Vec::new(),
            is_folders: text.ends_with(b"/") || text.ends_with(b"/."),
            links_left: LINKS_MAX,
            via: None,
            target: PathBuf::new(),
            make: None,
        };
        walk.push(path)?;
        Ok(walk)
    }

    pub(super) fn making(mut self, mode: u32) -> Self {
        (self.make, self.is_folders) = (Some(Mode::from_raw_mode(mode)), false);
        self
    }

    /// Walks to the folder in which the last component stands, and returns that component, or `None` if the
    /// path can only be a folder's (`/`, `.`, `..`, `a/`).
    pub(super) fn reach_last(&mut self) -> Result<Option<OsString>, OpenError> {
        loop {
            match &self.rest[..] {
                [] => return Ok(None),
                [last] if last != ".." && !self.is_folders => return Ok(Some(last.clone())),
                _ => self.step()?,
            }
        }
    }

    /// Walks to the folder that the path names.
    pub(super) fn reach_end(mut self) -> Result<Folder, OpenError> {
        while !self.rest.is_empty() {
            self.step()?;
        }
        self.check_reached(&self.folder.stat()?)?;
        Ok(self.folder)
    }

    /// Another user's link leads to what is that same user's: to nobody else's they can lead us.
    pub(super) fn check_reached(&self, reached: &Stat) -> Result<(), OpenError> {
        match self.via {
            Some(owner) if owner != reached.st_uid => Err(OpenError::NotTheLinkers(owner)),
            _ => Ok(()),
        }
    }

    /// Follows the last component, which is a link; returns the number if it leads to a descriptor of this process.
    pub(super) fn follow_last(&mut self) -> Result<Option<RawFd>, OpenError> {
        let Some(name) = self.rest.pop() else { return Ok(None) };
        self.follow(&name)?;
        Ok(own::named(&self.target))
    }

    /// Returns whether the links here are the kernel's own, which lead to open files and not to paths.
    pub(super) fn is_in_proc(&self) -> bool {
        rustix::fs::fstatfs(&self.folder).is_ok_and(|system| system.f_type == PROC_SUPER_MAGIC)
    }

    fn step(&mut self) -> Result<(), OpenError> {
        let Some(name) = self.rest.pop() else { return Ok(()) };
        if name == ".." {
            return self.step_up(&name);
        }
        let open =
            |folder: &Folder| rustix::fs::openat(folder, &name, FOLDER | OFlags::NOFOLLOW, Mode::empty());
        let opened = match (open(&self.folder), self.make) {
            (Err(Errno::NOENT), Some(mode)) => {
                match rustix::fs::mkdirat(&self.folder, &name, mode) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                open(&self.folder)
            }
            (opened, _) => opened,
        };
        match opened {
            Ok(folder) => self.step_down(folder, &name),
            Err(Errno::NOTDIR | Errno::LOOP) => self.follow(&name),
            Err(error) => Err(error.into()),
        }
    }

    fn step_down(&mut self, folder: OwnedFd, name: &OsStr) -> Result<(), OpenError> {
        let above = Identity::of_open(&self.folder)?;
        self.enter(folder, name)?;
        self.above.push(above);
        Ok(())
    }

    /// Whoever may rename the folder meanwhile decides what is above it: a task could lead the way out of its directory.
    fn step_up(&mut self, name: &OsStr) -> Result<(), OpenError> {
        let folder = rustix::fs::openat(&self.folder, "..", FOLDER, Mode::empty())?;
        if let Some(came_from) = self.above.pop()
            && came_from != Identity::of_open(&folder)?
        {
            return Err(OpenError::Moved(self.folder.shown()));
        }
        self.enter(folder, name)
    }

    fn enter(&mut self, folder: OwnedFd, name: &OsStr) -> Result<(), OpenError> {
        let shown = self.folder.path().join(name);
        self.folder = enter(self.files, self.need, folder, shown)?;
        Ok(())
    }

    /// Follows a link, if that is safe.
    fn follow(&mut self, name: &OsStr) -> Result<(), OpenError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let link = rustix::fs::openat(&self.folder, name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&link)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            return Err(Errno::NOTDIR.into());
        }
        self.links_left = self.links_left.checked_sub(1).ok_or(Errno::LOOP)?;
        if self.is_in_proc() {
            let folder = rustix::fs::openat(&self.folder, name, FOLDER, Mode::empty())?;
            self.above.clear();
            return self.enter(folder, name);
        }
        if !self.may_follow(&stat) {
            return Err(match is_trusted(stat.st_uid) {
                true => OpenError::link(self.folder.path(), name),
                false => OpenError::LinkOf { path: self.folder.path().join(name), owner: stat.st_uid },
            });
        }
        // The target is read from the link that was checked: the name may stand for another one by now.
        let target = rustix::fs::readlinkat(&link, "", Vec::new())?;
        self.target = OsString::from_vec(target.into_bytes()).into();
        self.push(&self.target.clone())
    }

    /// A link of this user's or root's is followed unless somebody else can have put it there. Another user's
    /// is followed only in a folder where just that user can have put it, and only to an input of the same
    /// user: so its maker learns nothing new by it.
    fn may_follow(&mut self, link: &Stat) -> bool {
        let owner = link.st_uid;
        let has_one_name = link.st_nlink <= 1;
        match self.folder.writers() {
            Writers::Tasks | Writers::Anyone => false,
            _ if is_trusted(owner) => has_one_name,
            Writers::AnyoneAdds => false,
            Writers::Owner(other) if other != owner => false,
            Writers::Nobody | Writers::Owner(_) => {
                self.need == Need::Input && *self.via.get_or_insert(owner) == owner
            }
        }
    }

    fn push(&mut self, path: &Path) -> Result<(), OpenError> {
        if path.is_absolute() {
            let root = rustix::fs::open("/", FOLDER, Mode::empty())?;
            self.folder = enter(self.files, self.need, root, PathBuf::from("/"))?;
            self.above.clear();
        }
        self.rest.extend(path.components().rev().filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_os_string()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        }));
        Ok(())
    }
}

/// Opens a folder, if its purpose allows it.
fn enter(files: &HostFiles, need: Need, folder: OwnedFd, shown: PathBuf) -> Result<Folder, OpenError> {
    let folder = Folder::new(folder, shown, &files.tasks)?;
    if need == Need::Own && folder.writers() == Writers::Tasks {
        return Err(OpenError::TasksMayWrite(folder.shown()));
    }
    Ok(folder)
}
