//! The one door to the host's files: everything that the host opens by a path is opened here.
//!
//! A task with a writable directory can put any name into it, and replace it while the host works: by a link
//! to somewhere else, by a FIFO that nobody writes to, by a device. Another user can do the same in a folder
//! that is open to all. So every folder on the way to a file is opened first and held, and is asked [who may
//! change it](Writers). Links are followed only where nobody else can have made them, or where they give
//! their maker no more than is his. Opening waits for nobody, and what was opened is checked afterwards.
//! | the host | may lie in a tasks' directory | how |
//! |---|---|---|
//! | reads an input ([`HostFiles::read`], [`HostFiles::folder`]) | yes | no links there, regular files of one name |
//! | relies on a file ([`HostFiles::read_own`]) | no | as above |
//! | appends ([`HostFiles::append`]) | no | a new file is made exclusively; one that was there must have one name |
//! | replaces ([`HostFiles::replace`], [`Folder::put`]) | no | made under a name that nobody can guess, then renamed |
//!
//! A name of this process's own descriptors (`/dev/stdout`, `/dev/fd/3`), or a link to one, means the descriptor itself:
//! nothing is opened (`own`).
//!
//! Absent on purpose: anything that takes a path twice. A file that has been opened is used by its
//! descriptor.

mod error;
mod writers;
mod walk;
mod open;
mod output;
mod in_use;
mod own;
mod folder;
mod waiting;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, Weak};

use rustix::fs::Stat;

pub use error::OpenError;
pub use folder::{Folder, Locked, lock};
pub use in_use::InUse;
pub use in_use::Names;
pub use open::Finding;
pub use output::{Output, OutputFile};
pub use own::was_closed;
pub use waiting::Waiting;
pub use writers::Stranger;
pub use writers::TaskDirs;

/// A file or folder, whatever it is called: its device and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    device: u64,
    number: u64,
}

impl Identity {
    pub fn of(stat: &Stat) -> Identity {
        Identity { device: stat.st_dev, number: stat.st_ino }
    }

    /// Returns the identity of an open file or folder.
    pub fn of_open(file: impl AsFd) -> rustix::io::Result<Identity> {
        rustix::fs::fstat(file).map(|stat| Identity::of(&stat))
    }
}

/// The host's files, with the directories in which tasks may change names.
#[derive(Debug, Clone, Default)]
pub struct HostFiles {
    tasks: Arc<TaskDirs>,
    in_use: Arc<Mutex<Vec<Weak<InUse>>>>,
    tell: Tell,
}

/// Says to a person that something is waited for.
#[derive(Debug, Clone, Copy)]
struct Tell(fn(&str));

impl Default for Tell {
    fn default() -> Tell {
        Tell(|text| tracing::warn!(target: "wasmpool::files", "{text}"))
    }
}

impl HostFiles {
    pub fn new(tasks: TaskDirs) -> HostFiles {
        HostFiles { tasks: Arc::new(tasks), ..HostFiles::default() }
    }

    /// Returns whether these are the directories that are known here as the tasks' own.
    pub fn knows(&self, dir: impl AsFd) -> bool {
        self.tasks.holds(dir)
    }

    /// Has somebody told what is waited for, in place of the log.
    pub fn telling(self, tell: fn(&str)) -> HostFiles {
        HostFiles { tell: Tell(tell), ..self }
    }

    /// Returns whether such a directory lies in this folder, however deep.
    pub fn has_task_dirs_in(&self, folder: &Folder) -> bool {
        self.tasks.any_in(folder)
    }
}

/// Opens the file behind one of this process's own descriptors once more, to read it.
pub fn reopened(descriptor: impl AsFd) -> std::io::Result<std::fs::File> {
    use std::os::fd::AsRawFd as _;
    let path = format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd());
    let flags = rustix::fs::OFlags::RDONLY
        | rustix::fs::OFlags::NONBLOCK
        | rustix::fs::OFlags::NOCTTY
        | rustix::fs::OFlags::CLOEXEC;
    let opened: OwnedFd = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
    Ok(opened.into())
}

#[cfg(test)]
mod tests;
