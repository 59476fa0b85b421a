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
//! Absent on purpose: anything that takes a path twice. What has been opened is used by its descriptor.

mod error;
mod writers;
mod walk;
mod open;
mod output;
mod own;
mod folder;
mod waiting;
mod kernel;

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::fs::{FileType, Stat};

pub(crate) use error::OpenError;
pub(crate) use folder::{Folder, Locked, lock};
pub(crate) use kernel::kernel_text;
pub(crate) use open::Finding;
pub(crate) use output::{Output, OutputFile};
pub(crate) use waiting::Waiting;
pub(crate) use writers::{TaskDirs, are_own};

/// A file or folder, whatever it is called: its device and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    device: u64,
    number: u64,
}

impl Identity {
    pub(crate) fn of(stat: &Stat) -> Identity {
        Identity { device: stat.st_dev, number: stat.st_ino }
    }

    /// Returns the identity of an open file or folder.
    pub(crate) fn of_open(file: impl AsFd) -> rustix::io::Result<Identity> {
        rustix::fs::fstat(file).map(|stat| Identity::of(&stat))
    }
}

/// The host's files, with the directories in which tasks may change names.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostFiles {
    tasks: Arc<TaskDirs>,
    in_use: Arc<Mutex<Vec<Weak<InUse>>>>,
}

/// A file that a command reads or writes, for as long as this is held.
#[derive(Debug)]
pub(crate) struct InUse {
    file: Identity,
    what: &'static str,
}

impl HostFiles {
    pub(crate) fn new(tasks: TaskDirs) -> HostFiles {
        HostFiles { tasks: Arc::new(tasks), ..HostFiles::default() }
    }

    /// Whether these are the directories that are known here as the tasks' own.
    pub(crate) fn knows(&self, dir: impl AsFd) -> bool {
        self.tasks.holds(dir)
    }

    /// Whether tasks can change the names in this folder, which was opened when nobody had said which directories are
    /// theirs.
    pub(crate) fn are_reached_in(&self, folder: &Folder) -> bool {
        self.tasks.reach(folder)
    }

    /// Says that a path is an input: nothing is written to it while the answer is held. `None` of what is no regular
    /// file, or cannot be looked at.
    pub(crate) fn hold_input(&self, path: &Path, what: &'static str) -> Option<Arc<InUse>> {
        let stat = self.look(path).ok()?;
        let is_regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        is_regular.then(|| self.hold(Identity::of(&stat), what))
    }

    fn hold(&self, file: Identity, what: &'static str) -> Arc<InUse> {
        let held = Arc::new(InUse { file, what });
        let mut all = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&held));
        held
    }

    /// Refuses a file that the command reads or writes already.
    fn check_use(&self, file: Identity) -> Result<(), OpenError> {
        let all = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        let mut others = all.iter().filter_map(Weak::upgrade);
        match others.find(|other| other.file == file) {
            Some(other) => Err(OpenError::Twice(other.what)),
            None => Ok(()),
        }
    }

    /// Says that an output is open, if it is a file; it is refused where the command has that file for something else.
    fn in_use(&self, mut output: Output, what: &'static str) -> Result<Output, OpenError> {
        if output.is_regular {
            let file = Identity::of_open(output.file.file())?;
            self.check_use(file)?;
            output.file.keep(self.hold(file, what));
        }
        Ok(output)
    }

    /// Whether such a directory lies in this folder, however deep.
    pub(crate) fn has_task_dirs_in(&self, folder: &Folder) -> bool {
        self.tasks.any_in(folder)
    }
}

/// Opens the file behind one of this process's own descriptors once more, to read it.
pub(crate) fn reopened(descriptor: impl AsFd) -> std::io::Result<std::fs::File> {
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
