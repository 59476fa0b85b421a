//! Directories that a pool gives its tasks: what can be done in them, and nothing beyond.
//!
//! These tests are run three times: in this package the guest is a module for WASI preview 1, and one for preview 0; in
//! tests/componentized it is a component of the same text, over WASI 0.2. Each assertion holds for both, but for what the table of errnos says.

mod beyond;
mod files;
mod refusals;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::support::{self, PATIENCE, componentize, preview0};
use wasmpool::module::{ModuleForm, ModuleOptions, RawTask};
use wasmpool::sandbox::DirAccess;
use wasmpool::{Bytes, Module, Pool, PoolBuilder};

pub(crate) const WAT: &str = include_str!("dirs/guest.wat");

/// Errnos of WASI. The adapter of a component gives the same ones, but for [`TOO_MANY`].
pub(crate) const FBIG: u8 = 22;
pub(crate) const NOENT: u8 = 44;
pub(crate) const NOTEMPTY: u8 = 55;
pub(crate) const PERM: u8 = 63;

/// How many descriptors a program for preview 1 can have, and the errno of one more. A component's adapter has a table
/// of its own, which is smaller than the pool's limit, and says that there is no memory; what the pool itself says to a
/// component is tested in tests/componentized.
pub(crate) const DESCRIPTORS_MAX: usize =
    if componentize::IS_HERE { 128 } else { proto::limits::TASK_DESCRIPTORS_MAX };
pub(crate) const TOO_MANY: u8 = if componentize::IS_HERE { 48 } else { 33 };

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
        let module = load(&pool);
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

/// Loads the guest in the form that the tests of this package are about.
pub(crate) fn load(pool: &Pool) -> Module {
    load_with(pool, ModuleOptions::new())
}

pub(crate) fn load_with(pool: &Pool, options: ModuleOptions) -> Module {
    static GUEST: OnceLock<Vec<u8>> = OnceLock::new();
    let guest = GUEST.get_or_init(|| match componentize::IS_HERE {
        true => componentize::of_tasks(WAT),
        false => wat::parse_str(preview0::guest(module_path!(), WAT)).expect("valid text"),
    });
    let module = pool.load_with(guest, options).unwrap_or_else(|error| panic!("loads: {error}"));
    assert_eq!(module.description().form == ModuleForm::Component, componentize::IS_HERE);
    module
}

/// Returns a task of the guest, by its name in the module.
pub(crate) fn task(module: &Module, name: &str) -> RawTask {
    match componentize::IS_HERE {
        true => support::raw(module, &name.replace('_', "-")),
        false => support::raw(module, name),
    }
}

/// Returns the input of a task: for a component it is a list of bytes, whose length is in front.
pub(crate) fn input(dir: u8, first: &str, second: &str) -> Bytes {
    let mut input = vec![dir, first.len() as u8];
    input.extend(first.bytes());
    input.extend(second.bytes());
    if componentize::IS_HERE {
        let len = input.len();
        assert!(len < 1 << 14, "two digits hold the length");
        // Seven bits a digit, the lowest ones first; all but the last digit have the high bit.
        let digits = [len as u8 | 0x80, (len >> 7) as u8];
        match len {
            0..0x80 => input.insert(0, len as u8),
            _ => drop(input.splice(..0, digits)),
        }
    }
    input.into()
}

/// Returns a task's output without the length that a list has in front.
fn output(output: &[u8]) -> &[u8] {
    match componentize::IS_HERE {
        true => {
            let digits = output.iter().take_while(|byte| **byte >= 0x80).count();
            &output[digits + 1..]
        }
        false => output,
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
    let future =
        pool.submit_bytes(&self::task(module, task), input(dir, first, second)).expect("is accepted");
    let bytes = future.result_timeout(PATIENCE).expect("in time");
    let bytes = bytes.unwrap_or_else(|failure| panic!("{task} of `{first}`: {failure}"));
    match output(&bytes) {
        [0, data @ ..] => Ok(data.to_vec()),
        [errno, ..] => Err(*errno),
        [] => panic!("{task} of `{first}` has no errno"),
    }
}
