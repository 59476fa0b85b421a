//! Directories that a pool gives its tasks: what can be done in them, and nothing beyond.

mod beyond;
mod files;
mod refusals;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::{self, PATIENCE};
use wasmpool::sandbox::DirAccess;
use wasmpool::{Module, Pool, PoolBuilder};

pub(crate) const WAT: &str = include_str!("dirs/guest.wat");

/// Errnos of WASI.
pub(crate) const FBIG: u8 = 22;
pub(crate) const MFILE: u8 = 33;
pub(crate) const NOENT: u8 = 44;
pub(crate) const NOTEMPTY: u8 = 55;
pub(crate) const PERM: u8 = 63;

/// A folder that everybody may enter, with a secret in it; the pool's directories are beside that.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        open_to_all(folder.path());
        let place = Place { folder };
        place.file("secret", "the secret");
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file that everybody may read and write.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("writes");
        open_to_all(&path);
        path
    }

    /// A directory in which everybody may do everything.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).expect("is made");
        open_to_all(&path);
        path
    }
}

pub(crate) fn open_to_all(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("has a mode");
}

/// A pool whose tasks are the guest's.
pub(crate) struct Guest {
    pub(crate) pool: support::Guarded,
    module: Module,
}

impl Guest {
    pub(crate) fn new(builder: PoolBuilder) -> Guest {
        let pool = support::build(builder);
        let module = support::wat(&pool, WAT);
        Guest { pool, module }
    }

    /// Makes a guest with one directory, which is descriptor 3.
    pub(crate) fn in_dir(dir: &Path, access: DirAccess) -> Guest {
        Guest::new(support::builder(1).dir(dir, "/dir", access))
    }

    /// Returns what a task answers: what it read, or its errno. The task itself must succeed.
    #[track_caller]
    pub(crate) fn ask(&self, task: &str, dir: u8, first: &str, second: &str) -> Result<Vec<u8>, u8> {
        ask(&self.pool, &self.module, task, dir, first, second)
    }

    #[track_caller]
    pub(crate) fn text(&self, task: &str, dir: u8, path: &str) -> Result<String, u8> {
        self.ask(task, dir, path, "").map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The names of a directory's entries, but for `.` and `..`.
    #[track_caller]
    pub(crate) fn names(&self, dir: u8, path: &str) -> Result<Vec<String>, u8> {
        let mut entries = &self.ask("list", dir, path, "")?[..];
        let mut names = Vec::new();
        // `dirent`: where the next one is, the inode, the length of the name, the type; then the name.
        while entries.len() > 24 {
            let len = u32::from_le_bytes(entries[16..20].try_into().expect("four bytes")) as usize;
            names.push(String::from_utf8_lossy(&entries[24..24 + len]).into_owned());
            entries = &entries[24 + len..];
        }
        names.retain(|name| name != "." && name != "..");
        names.sort();
        Ok(names)
    }

    #[track_caller]
    pub(crate) fn given(&self) -> Vec<String> {
        let names = self.ask("given", 0, "", "").expect("no error");
        let names = String::from_utf8_lossy(&names).into_owned();
        names.split_terminator('\0').map(str::to_string).collect()
    }

    /// Asserts that no worker has died, as every test must at its end.
    #[track_caller]
    pub(crate) fn assert_nobody_died(&self) {
        let stats = self.pool.stats();
        assert_eq!(stats.workers_died, 0, "{stats:?}");
    }
}

#[track_caller]
pub(crate) fn ask(
    pool: &Pool,
    module: &Module,
    task: &str,
    dir: u8,
    first: &str,
    second: &str,
) -> Result<Vec<u8>, u8> {
    let mut input = vec![dir, first.len() as u8];
    input.extend(first.bytes());
    input.extend(second.bytes());
    let future = pool.submit_bytes(&support::raw(module, task), input).expect("is accepted");
    let output = future.result_timeout(PATIENCE).expect("in time");
    let output = output.unwrap_or_else(|failure| panic!("{task} of `{first}`: {failure}"));
    match output[0] {
        0 => Ok(output[1..].to_vec()),
        errno => Err(errno),
    }
}
