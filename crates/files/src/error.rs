//! The reasons for which a file is not opened.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::Folder;
use super::writers::Stranger;
use proto::refused::explained;
use proto::text::Name;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A task could replace the file, or a folder on the way to it.
    #[error(
        "tasks may write to {}, and could put a link in its place: name a path outside of the directories that tasks \
         may write to",
        Name(.0.to_string_lossy())
    )]
    TasksMayWrite(PathBuf),
    /// One of the directories that tasks may write to lies in it.
    #[error("a directory that tasks may write to lies in {}: name another folder", Name(.0.to_string_lossy()))]
    HasTasksDir(PathBuf),
    #[error("{} is a symbolic link that others may have made: name what it leads to", Name(.0.to_string_lossy()))]
    Link(PathBuf),
    #[error(
        "{} is a symbolic link of user {owner}, which is not followed here: name what it leads to",
        Name(.path.to_string_lossy())
    )]
    LinkOf { path: PathBuf, owner: u32 },
    /// The path of an output ends in it.
    #[error(
        "{} is a symbolic link: an output is neither written through one, which a task may have made, nor takes its \
         place: name what it leads to",
        Name(.0.to_string_lossy())
    )]
    OutputLink(PathBuf),
    #[error(
        "a symbolic link of user {0} leads there, and it is not that user's: name it by a path without that link"
    )]
    NotTheLinkers(u32),
    #[error("this process was given no descriptor {0}")]
    NoDescriptor(i32),
    #[error("descriptor {0} of this process can only be {1}")]
    WrongWay(i32, &'static str),
    /// The file is open for something else in the same command.
    #[error("it is {0} of this command as well: name another file")]
    Twice(&'static str),
    #[error("its old files are to have the name {name}, which is {what} of this command: name another file")]
    NameTaken { name: String, what: &'static str },
    /// A file of this kind is never taken from a folder that others may change.
    #[error("it is {0}, and no regular file")]
    NotRegular(&'static str),
    /// The file is relied on only if nobody else can have decided what it holds.
    #[error(transparent)]
    Strangers(Stranger),
    #[error(
        "the file has a second name (a hard link), by which others may reach it: name a file that has one, such as a \
         copy of it"
    )]
    SeveralNames,
    #[error("it was moved or replaced while it was opened")]
    Replaced,
    /// A step up would not have led to where the path came from.
    #[error("the folder {} was moved while the path led through it", Name(.0.to_string_lossy()))]
    Moved(PathBuf),
    /// The folder's owner may have taken the file from anywhere.
    #[error(
        "it belongs to user {file}, and its folder to user {folder}, who could have anything written to by that: name a \
         file of your own or of user {folder}, or one in a folder of your own"
    )]
    NotTheFolderOwners { file: u32, folder: u32 },
    #[error(
        "it belongs to user {0}, and every user may put a file into its folder: name a file of your own, or one in a \
         folder of your own"
    )]
    NotOurs(u32),
    #[error("it is a pipe, and nobody has opened it to read")]
    NoReader,
    #[error(transparent)]
    System(io::Error),
}

impl OpenError {
    /// Returns whether there is nothing of that name.
    pub fn is_missing(&self) -> bool {
        matches!(self, OpenError::System(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// Returns whether nothing has that name, or nothing that this user may look at.
    pub fn is_absence(&self) -> bool {
        let OpenError::System(error) = self else { return false };
        let kinds = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory, io::ErrorKind::PermissionDenied];
        // Nothing can stand behind links that lead to each other, or under a name that is too long.
        kinds.contains(&error.kind())
            || matches!(Errno::from_io_error(error), Some(Errno::LOOP | Errno::NAMETOOLONG))
    }

    pub(super) fn link(folder: &Path, name: &OsStr) -> OpenError {
        OpenError::Link(folder.join(name))
    }

    pub(super) fn output_link(folder: &Folder, name: &OsStr) -> OpenError {
        OpenError::OutputLink(folder.path().join(name))
    }
}

impl From<Errno> for OpenError {
    fn from(errno: Errno) -> OpenError {
        OpenError::System(explained(errno))
    }
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> OpenError {
        OpenError::System(explained(error))
    }
}

impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> io::Error {
        match error {
            OpenError::System(error) => error,
            other => io::Error::other(other),
        }
    }
}
