//! Remembers what a command reads and writes already. One file is there for one thing: an output that took
//! the place of an input, or of another output, would be lost, or would be both.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Weak};

use rustix::fs::{FileType, Stat};

use super::open::kind_of;
use super::output::Output;
use super::{Folder, HostFiles, Identity, OpenError};
use proto::sync::Lock;
use proto::text::Name;

/// A file that a command reads or writes, or names that it will use, for as long as this is held.
#[derive(Debug)]
pub struct InUse {
    used: Used,
    what: &'static str,
}

#[derive(Debug)]
enum Used {
    File(Identity),
    Names { folder: Folder, own: OsString, others: Names },
}

/// The names in a folder that a command will use.
pub struct Names(pub Box<dyn Fn(&OsStr) -> bool + Send + Sync>);

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

impl HostFiles {
    /// Says that a path is an input: nothing is written to it while the answer is held. `None` of what is no regular
    /// file, or cannot be looked at.
    pub fn hold_input(&self, path: &Path, what: &'static str) -> Option<Arc<InUse>> {
        self.hold_if_regular(&self.look(path).ok()?, what)
    }

    /// Says that a descriptor of this process is written to; `None` if no regular file is behind it.
    pub fn hold_stream(&self, stream: impl AsFd, what: &'static str) -> Option<Arc<InUse>> {
        self.hold_if_regular(&rustix::fs::fstat(stream).ok()?, what)
    }

    /// Returns what else a regular file behind a descriptor is for this command.
    pub fn use_of_stream(&self, stream: impl AsFd) -> Option<&'static str> {
        let stat = rustix::fs::fstat(stream).ok()?;
        self.use_of(Identity::of(&stat)).filter(|_| is_regular(&stat))
    }

    fn hold_if_regular(&self, stat: &Stat, what: &'static str) -> Option<Arc<InUse>> {
        is_regular(stat).then(|| self.hold(Used::File(Identity::of(stat)), what))
    }

    /// Says that the file of the name `own` in a folder, which is in use, will be given the other names, and that new
    /// ones will take its place.
    ///
    /// # Errors
    /// A file of another name is there already, and is something else of this command's.
    pub fn hold_names(
        &self,
        (folder, own): (&Folder, &OsStr),
        others: Names,
        what: &'static str,
    ) -> Result<Arc<InUse>, OpenError> {
        for (name, file) in files_of(folder, &others) {
            if let Some(what) = self.use_of(file) {
                return Err(OpenError::NameTaken { name: Name(name.to_string_lossy()).to_string(), what });
            }
        }
        let folder = folder.try_clone()?;
        Ok(self.hold(Used::Names { folder, own: own.to_os_string(), others }, what))
    }

    fn hold(&self, used: Used, what: &'static str) -> Arc<InUse> {
        let held = Arc::new(InUse { used, what });
        let mut all = self.in_use.hold();
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&held));
        held
    }

    fn all_in_use(&self) -> Vec<Arc<InUse>> {
        let all = self.in_use.hold();
        all.iter().filter_map(Weak::upgrade).collect()
    }

    fn use_of(&self, file: Identity) -> Option<&'static str> {
        let all = self.all_in_use();
        let found = all.iter().find(|other| matches!(other.used, Used::File(other) if other == file));
        found.map(|other| other.what)
    }

    /// Refuses an output by this name if the command has the file that is there, or the name, for something else.
    ///
    /// # Errors
    /// [`OpenError::Twice`], or the folder cannot be looked at.
    pub fn check_output(&self, folder: &Folder, name: &OsStr) -> Result<(), OpenError> {
        self.check_entry(folder, name, folder.look(name)?.as_ref())
    }

    /// Does the same for a name that was looked up.
    pub(super) fn check_entry(
        &self,
        folder: &Folder,
        name: &OsStr,
        looked: Option<&Stat>,
    ) -> Result<(), OpenError> {
        // A rotation leaves alone what is no regular file, and several may write to it.
        if looked.is_some_and(|stat| !is_regular(stat)) {
            return Ok(());
        }
        if let Some(what) = looked.and_then(|stat| self.use_of(Identity::of(stat))) {
            return Err(OpenError::Twice(what));
        }
        for other in self.all_in_use() {
            let Used::Names { folder: held, own, others } = &other.used else { continue };
            let is_meant = name == own || others.0(name);
            if is_meant && Identity::of_open(held)? == Identity::of_open(folder)? {
                return Err(OpenError::Twice(other.what));
            }
        }
        Ok(())
    }

    /// Says that an output is open, if it is a file; it is refused where the command has that file for something else.
    pub(super) fn in_use(&self, mut output: Output, what: &'static str) -> Result<Output, OpenError> {
        if output.is_regular {
            let file = Identity::of_open(output.file.file())?;
            if let Some(what) = self.use_of(file) {
                return Err(OpenError::Twice(what));
            }
            output.file.keep(self.hold(Used::File(file), what));
        }
        Ok(output)
    }

    /// Lists the files that have a name which this command will use.
    pub fn files_of_held_names(&self) -> Vec<Identity> {
        let mut files = Vec::new();
        for held in self.all_in_use() {
            if let Used::Names { folder, others, .. } = &held.used {
                files.extend(files_of(folder, others).into_iter().map(|(_, file)| file));
            }
        }
        files
    }
}

/// The regular files that have one of these names; none if the folder cannot be listed.
fn files_of(folder: &Folder, names: &Names) -> Vec<(OsString, Identity)> {
    let entries = folder.entries().unwrap_or_default().into_iter().map(|entry| entry.name);
    let meant = entries.filter(|name| names.0(name));
    let file = |name: OsString| {
        let stat = folder.look(&name).ok().flatten().filter(is_regular)?;
        Some((name, Identity::of(&stat)))
    };
    meant.filter_map(file).collect()
}

fn is_regular(stat: &Stat) -> bool {
    kind_of(stat) == FileType::RegularFile
}
