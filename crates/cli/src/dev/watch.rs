//! Says which files change: the module's, and those in the folders of its sources.
//!
//! The kernel is asked by inotify, one watch a folder, since only folders tell of a file that is replaced by another. (The crate
//! `notify` would do the same; but its feature of mio has wasmtime's crates built anew, and it watches a folder with
//! everything in it, `target` and `node_modules` as well.) Links to folders are not followed.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::FileType;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::exit::Failure;
use files::{Folder, HostFiles};
use proto::refused::calling;

/// Most folders of sources, and how deep they lie in each other.
const FOLDERS_MAX: usize = 20_000;
const DEPTH_MAX: usize = 64;

/// A module's folder that is not there yet, or no longer, is looked for this often.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// These folders have what is made of the sources, not the sources.
const MADE: [&str; 2] = ["target", "node_modules"];

/// One read takes so many bytes of events.
const EVENTS_BYTES: usize = 64 * 1024;

/// Something that has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Module,
    /// A file or folder of the sources; of events that were lost, their root.
    Source(PathBuf),
}

struct Watch {
    kernel: OwnedFd,
    files: HostFiles,
    module: PathBuf,
    /// The watch on the module's folder.
    module_folder: Option<i32>,
    folders: HashMap<i32, PathBuf>,
    roots: Vec<PathBuf>,
}

/// Watches from here on, on a thread of its own, until nobody receives any more.
pub(super) fn begin(
    files: &HostFiles,
    module: &Path,
    roots: &[PathBuf],
) -> Result<Receiver<Change>, Failure> {
    let cannot = |error| Failure::Internal(format!("cannot watch files: {error}"));
    let kernel = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
    let kernel = kernel.map_err(std::io::Error::from).map_err(calling("inotify_init1")).map_err(cannot)?;
    let mut watch = Watch {
        kernel,
        files: files.clone(),
        module: module.into(),
        module_folder: None,
        folders: HashMap::new(),
        roots: roots.to_vec(),
    };
    for root in roots {
        let folder = files
            .folder(root)
            .map_err(|error| Failure::Usage(format!("cannot watch {}: {error}", root.display())))?;
        watch.add(&folder, root, 0)?;
    }
    watch.find_module();
    let (sender, receiver) = unbounded();
    std::thread::Builder::new()
        .name("wasmpool-watch".into())
        .spawn(move || watch.follow(&sender))
        .map_err(calling("start a thread"))
        .map_err(cannot)?;
    Ok(receiver)
}

impl Watch {
    fn watch(&self, folder: &Folder) -> Result<i32, Errno> {
        // The folder that was opened is meant, whatever has its name by now.
        let path = format!("/proc/self/fd/{}", folder.as_fd().as_raw_fd());
        let what = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR;
        inotify::add_watch(&self.kernel, path, what)
    }

    /// Watches a folder of sources, with those in it.
    fn add(&mut self, folder: &Folder, path: &Path, depth: usize) -> Result<(), Failure> {
        if self.folders.len() >= FOLDERS_MAX || depth > DEPTH_MAX {
            return Err(Failure::Usage(format!(
                "{} is one folder too many to watch: name those of the sources with --watch",
                path.display()
            )));
        }
        let watched = self.watch(folder).map_err(|error| {
            let advice = match error {
                Errno::NOSPC => ": raise fs.inotify.max_user_watches, or name fewer folders with --watch",
                _ => "",
            };
            Failure::Internal(format!("cannot watch {}: {error}{advice}", path.display()))
        })?;
        self.folders.insert(watched, path.into());
        // A folder that is gone by now has nothing to watch.
        for entry in folder.entries().unwrap_or_default() {
            let may_be_folder = matches!(entry.kind, FileType::Directory | FileType::Unknown);
            if may_be_folder
                && is_watched(&entry.name)
                && let Ok(inner) = folder.folder_beneath(&self.files, Path::new(&entry.name))
            {
                self.add(&inner, &path.join(&entry.name), depth + 1)?;
            }
        }
        Ok(())
    }

    fn module_name(&self) -> &OsStr {
        self.module.file_name().unwrap_or_default()
    }

    /// Watches the module's folder, if it is there.
    fn find_module(&mut self) {
        let folder = match self.module.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        self.module_folder = self.files.folder(folder).ok().and_then(|folder| self.watch(&folder).ok());
    }

    fn follow(mut self, changes: &Sender<Change>) {
        loop {
            let timeout = self.module_folder.is_none().then_some(LOOK_AGAIN);
            let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
            let mut waited = [PollFd::new(&self.kernel, PollFlags::IN)];
            match rustix::event::poll(&mut waited, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return tracing::error!(%error, "files are no longer watched"),
            }
            let mut found = Vec::new();
            if self.module_folder.is_none() {
                self.find_module();
                if self.module_folder.is_some() {
                    found.push(Change::Module);
                }
            }
            if let Err(error) = self.read(&mut found) {
                return tracing::error!(%error, "files are no longer watched");
            }
            for change in found {
                if changes.send(change).is_err() {
                    return;
                }
            }
        }
    }

    /// Reads what the kernel has to say by now.
    fn read(&mut self, found: &mut Vec<Change>) -> Result<(), Errno> {
        let mut events = Vec::new();
        let mut buffer = [const { MaybeUninit::uninit() }; EVENTS_BYTES];
        let mut reader = inotify::Reader::new(&self.kernel, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
                    events.push((event.wd(), event.events(), name));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error),
            }
        }
        for (watch, flags, name) in events {
            self.take(watch, flags, name.unwrap_or_default(), found);
        }
        Ok(())
    }

    fn take(&mut self, watch: i32, flags: ReadFlags, name: OsString, found: &mut Vec<Change>) {
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            found.push(Change::Module);
            found.extend(self.roots.first().cloned().map(Change::Source));
            return;
        }
        if flags.contains(ReadFlags::IGNORED) {
            // The folder is gone, and its watch with it.
            self.folders.remove(&watch);
            if self.module_folder == Some(watch) {
                self.module_folder = None;
            }
            return;
        }
        if self.module_folder == Some(watch) && name == self.module_name() {
            if !flags.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
                found.push(Change::Module);
            }
            return;
        }
        let Some(folder) = self.folders.get(&watch) else { return };
        if name.is_empty() || !is_watched(&name) {
            return;
        }
        let path = folder.join(&name);
        if flags.contains(ReadFlags::ISDIR)
            && flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO)
            && let Ok(inner) = self.files.folder(&path)
            && let Err(failure) = self.add(&inner, &path, 0)
        {
            tracing::warn!("{failure}");
        }
        found.push(Change::Source(path));
    }
}

/// Returns whether a name in a folder of sources counts.
fn is_watched(name: &OsStr) -> bool {
    !name.as_bytes().starts_with(b".") && !MADE.iter().any(|made| name == *made)
}
