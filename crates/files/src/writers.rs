//! Finds out who else may change the names in a folder.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat};

use super::folder::Folder;
use super::{HostFiles, Identity};
use proto::kernel::kernel_text;

/// A path has no room for this many folders, so a way up that is longer is not followed.
const DEPTH_MAX: usize = 4096;

const STICKY: u32 = 0o1000;
const WRITE_BY_OTHERS: u32 = 0o002;

/// The strangers who may change the names in a folder: neither this user nor root. A group's right to write
/// does not count, since its members trust each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    Nobody,
    /// Everybody may add names, and remove only their own, as in `/tmp`.
    AnyoneAdds,
    Anyone,
    /// This other user owns the folder.
    Owner(u32),
    /// The tasks of this command may write to it.
    Tasks,
}

impl Writers {
    pub(super) fn of(folder: impl AsFd, stat: &Stat, tasks: &TaskDirs) -> Writers {
        if tasks.reach(folder) {
            return Writers::Tasks;
        }
        match stat.st_mode {
            mode if mode & WRITE_BY_OTHERS != 0 && mode & STICKY == 0 => Writers::Anyone,
            _ if !is_trusted(stat.st_uid) => Writers::Owner(stat.st_uid),
            mode if mode & WRITE_BY_OTHERS != 0 => Writers::AnyoneAdds,
            _ => Writers::Nobody,
        }
    }
}

/// Somebody besides this user and root who can decide what a file holds, or what stands under its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    #[error("it belongs to user {0}")]
    Owner(u32),
    #[error("every user may write to it")]
    Anyone,
    #[error("its folder belongs to user {0}, who can put any file there")]
    FolderOwner(u32),
    #[error("every user may put a file into its folder")]
    FolderAnyone,
    #[error("tasks may put a file into its folder")]
    Tasks,
}

impl Stranger {
    /// Looks at what has a name in this folder; returns `None` if only this user or root can have decided about it.
    pub(super) fn of(folder: &Folder, named: &Stat) -> Option<Stranger> {
        // Nobody asks for the mode of a link, which lets everybody do everything.
        let is_link = FileType::from_raw_mode(named.st_mode) == FileType::Symlink;
        match folder.writers() {
            _ if !is_trusted(named.st_uid) => Some(Stranger::Owner(named.st_uid)),
            _ if !is_link && named.st_mode & WRITE_BY_OTHERS != 0 => Some(Stranger::Anyone),
            Writers::Nobody => None,
            Writers::Owner(uid) => Some(Stranger::FolderOwner(uid)),
            Writers::Anyone | Writers::AnyoneAdds => Some(Stranger::FolderAnyone),
            Writers::Tasks => Some(Stranger::Tasks),
        }
    }
}

/// Trusts this user and root. In a user namespace without root, the owner of `/` stands for root.
pub(super) fn is_trusted(uid: u32) -> bool {
    let own = rustix::process::geteuid();
    uid == 0
        || uid == own.as_raw()
        || !own.is_root() && rustix::fs::stat("/").is_ok_and(|root| root.st_uid == uid)
}

/// The directories that tasks may write to, held open.
#[derive(Debug, Default)]
pub struct TaskDirs {
    dirs: Vec<(OwnedFd, Identity)>,
    /// The directories' locations in their file systems, and those of the file systems that are mounted in them:
    /// another mount of the same file system leads to them by another way.
    locations: Vec<Location>,
    /// The mounts at the time when this was made; a mount that is in use keeps its number.
    mounts: Vec<Mount>,
}

/// A directory's location in its file system, independent of mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Location {
    /// The device as `/proc/self/mountinfo` names it.
    device: String,
    path: PathBuf,
}

impl Location {
    fn is_in(&self, other: &Location) -> bool {
        self.device == other.device && self.path.starts_with(&other.path)
    }
}

impl TaskDirs {
    /// Opens the directories twice, since one may lie in another. The second time it is known which they are,
    /// and a link that tasks may have made on the way is refused.
    ///
    /// # Errors
    /// The first path that cannot be opened, and why.
    pub fn open<'a>(
        paths: impl IntoIterator<Item = &'a Path> + Clone,
    ) -> Result<TaskDirs, (PathBuf, io::Error)> {
        let open = |path: &'a Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty()).map_err(|error| (path.to_path_buf(), error.into()))
        };
        let new = |dirs| TaskDirs::new(dirs).map_err(|error| (PathBuf::new(), error));
        let first = new(paths.clone().into_iter().map(open).collect::<Result<_, _>>()?)?;
        let files = HostFiles::new(first);
        let again = |path: &'a Path| {
            let folder = files.folder(path).map_err(|error| (path.to_path_buf(), error.into()))?;
            Ok(folder.into_descriptor())
        };
        new(paths.into_iter().map(again).collect::<Result<_, _>>()?)
    }

    /// Takes directories that are open already.
    pub fn new(dirs: Vec<OwnedFd>) -> io::Result<TaskDirs> {
        if dirs.is_empty() {
            return Ok(TaskDirs::default());
        }
        let mounts = Mount::all();
        let mut locations = Vec::new();
        for dir in &dirs {
            let Some((path, location)) = located(dir, &mounts) else { continue };
            locations.push(location);
            locations
                .extend(mounts.iter().filter(|mount| mount.point.starts_with(&path)).map(Mount::location));
        }
        let dirs = dirs.into_iter().map(|dir| {
            let identity = Identity::of_open(&dir)?;
            Ok((dir, identity))
        });
        Ok(TaskDirs { dirs: dirs.collect::<io::Result<_>>()?, locations, mounts })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.dirs.is_empty()
    }

    pub(super) fn holds(&self, dir: impl AsFd) -> bool {
        Identity::of_open(dir).is_ok_and(|identity| self.dirs.iter().any(|(_, held)| *held == identity))
    }

    /// Returns whether one of the directories lies in this folder.
    pub(super) fn any_in(&self, folder: &Folder) -> bool {
        let Ok(identity) = Identity::of_open(folder) else { return false };
        let is_above = |dir: &OwnedFd| Above::of(dir).any(|above| above == identity);
        if self.dirs.iter().any(|(dir, _)| is_above(dir)) {
            return true;
        }
        let location = (!self.dirs.is_empty()).then(|| self.located(folder)).flatten();
        location.is_some_and(|(_, location)| self.locations.iter().any(|tasks| tasks.is_in(&location)))
    }

    /// Returns whether tasks may change this folder, because it is one of the directories or lies in one.
    /// Both its way up and its location in its file system are asked: by another mount the way up leads
    /// elsewhere.
    pub(super) fn reach(&self, folder: impl AsFd) -> bool {
        if self.dirs.is_empty() {
            return false;
        }
        if Above::of(&folder).any(|above| self.dirs.iter().any(|(_, dir)| *dir == above)) {
            return true;
        }
        let location = self.located(&folder);
        location.is_some_and(|(_, location)| self.locations.iter().any(|tasks| location.is_in(tasks)))
    }

    fn located(&self, folder: impl AsFd) -> Option<(PathBuf, Location)> {
        // The folder may be in a mount that was added since.
        located(&folder, &self.mounts).or_else(|| located(&folder, &Mount::all()))
    }
}

/// Walks from a folder up to the root.
struct Above {
    folder: Option<OwnedFd>,
    last: Option<Identity>,
    left: usize,
}

impl Above {
    fn of(folder: impl AsFd) -> Above {
        Above { folder: opened(folder, "."), last: None, left: DEPTH_MAX }
    }
}

fn opened(folder: impl AsFd, name: &str) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::empty()).ok()
}

impl Iterator for Above {
    type Item = Identity;

    fn next(&mut self) -> Option<Identity> {
        let folder = self.folder.take()?;
        let identity = Identity::of_open(&folder).ok()?;
        self.left = self.left.checked_sub(1)?;
        // The folder above the root is the root itself.
        if self.last.replace(identity) == Some(identity) {
            return None;
        }
        self.folder = opened(&folder, "..");
        Some(identity)
    }
}

/// A line of `/proc/self/mountinfo`.
#[derive(Debug)]
struct Mount {
    number: u64,
    device: String,
    /// The part of its file system that is mounted.
    root: PathBuf,
    point: PathBuf,
}

impl Mount {
    /// Lists all mounts. Without `/proc` the list is empty, and only the way up decides.
    fn all() -> Vec<Mount> {
        let text = kernel_text("/proc/thread-self/mountinfo").unwrap_or_default();
        text.lines().filter_map(Mount::parse).collect()
    }

    fn parse(line: &str) -> Option<Mount> {
        let mut words = line.split(' ');
        let number = words.next()?.parse().ok()?;
        let device = words.nth(1)?.to_string();
        Some(Mount { number, device, root: unescaped(words.next()?), point: unescaped(words.next()?) })
    }

    fn location(&self) -> Location {
        Location { device: self.device.clone(), path: self.root.clone() }
    }
}

/// Undoes the kernel's escapes: it writes spaces, tabs, line feeds and backslashes as three octal digits.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, more)) = rest.split_first() {
        let digits = more.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &more[3..];
            }
            None => {
                bytes.push(first);
                rest = more;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

/// Finds a folder's path, and its location in its file system.
fn located(folder: impl AsFd, mounts: &[Mount]) -> Option<(PathBuf, Location)> {
    let number = folder.as_fd().as_raw_fd();
    let info = kernel_text(format!("/proc/self/fdinfo/{number}")).ok()?;
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse::<u64>().ok()?;
    let mount = mounts.iter().find(|mount| mount.number == id)?;
    let path = rustix::fs::readlink(format!("/proc/self/fd/{number}"), Vec::new()).ok()?;
    let path = PathBuf::from(std::ffi::OsStr::from_bytes(path.as_bytes()));
    let inside = path.strip_prefix(&mount.point).ok()?;
    let location = Location { device: mount.device.clone(), path: mount.root.join(inside) };
    Some((path, location))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounts_line_is_read_with_its_spaces() {
        let line = r"36 35 98:0 /mnt1 /mnt2/a\040b\134 rw,noatime master:1 - ext3 /dev/root rw";
        let mount = Mount::parse(line).expect("a mount");
        assert_eq!((mount.number, &*mount.device, mount.root), (36, "98:0", "/mnt1".into()));
        assert_eq!(mount.point, Path::new(r"/mnt2/a b\"));
        assert!(Mount::parse("36 35").is_none());
    }

    #[test]
    fn a_directory_is_located_where_it_lies() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("sub")).expect("a folder");
        let open = |path: &Path| {
            rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).expect("opens")
        };
        let mounts = Mount::all();
        let (_, above) = located(open(folder.path()), &mounts).expect("is located");
        let (path, below) = located(open(&folder.path().join("sub")), &mounts).expect("is located");
        assert!(below.is_in(&above) && !above.is_in(&below) && path.ends_with("sub"));
    }
}
