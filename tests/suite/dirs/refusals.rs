//! Directories that cannot be given: said when the pool is built, with the path.

use std::error::Error as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use wasmpool::error::BuildError;
use wasmpool::sandbox::{DirAccess, SandboxPolicy};

use super::{Guest, Place};
use crate::support;

/// The error's own words, and its source's.
#[track_caller]
fn refused(builder: wasmpool::PoolBuilder, path: &Path) -> String {
    let error = builder.build().expect_err("is refused");
    assert!(matches!(&error, BuildError::Directory { path: named, .. } if named == path), "{error:?}");
    assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
    format!("{error}: {}", error.source().expect("a source"))
}

#[test]
fn what_is_not_there_or_no_directory_is_named() {
    let place = Place::new();
    let file = place.file("file", "");
    let missing = place.path("missing");
    for (path, words) in [(&missing, "No such file"), (&file, "Not a directory")] {
        let message = refused(support::builder(1).dir(path, "/dir", DirAccess::ReadOnly), path);
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn what_the_workers_user_may_not_read_or_write_is_refused() {
    let place = Place::new();
    let dir = place.dir("dir");
    let set = |mode| fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).expect("has a mode");
    let pool = |access| support::builder(1).dir(&dir, "/dir", access);
    let is_root = rustix::process::getuid().is_root();
    set(if is_root { 0o755 } else { 0o555 });
    pool(DirAccess::ReadOnly).build().expect("can be read");
    let message = refused(pool(DirAccess::ReadWrite), &dir);
    set(if is_root { 0o700 } else { 0o300 });
    refused(pool(DirAccess::ReadOnly), &dir);
    set(0o777);
    pool(DirAccess::ReadWrite).build().expect("can be written");
    if is_root {
        for words in ["user 65534", "change its owner", "write"] {
            assert!(message.contains(words), "{message}");
        }
        // The worker's own user and group count, and root's rights where workers stay root.
        set(0o700);
        pool(DirAccess::ReadWrite).sandbox(SandboxPolicy::Off).build().expect("root may");
        std::os::unix::fs::chown(&dir, Some(4711), Some(4712)).expect("root may");
        pool(DirAccess::ReadWrite).worker_identity(4711, 1).build().expect("its owner may");
        set(0o070);
        pool(DirAccess::ReadWrite).worker_identity(1, 4712).build().expect("its group may");
        refused(pool(DirAccess::ReadWrite).worker_identity(4711, 4712), &dir);
    }
}

/// The user that workers become decides about files, too.
#[test]
fn the_workers_user_reads_what_is_its_own() {
    if !rustix::process::getuid().is_root() {
        return println!("only root can become somebody else");
    }
    let place = Place::new();
    let dir = place.dir("dir");
    let file = place.file("dir/own", "of 4711");
    for path in [&dir, &file] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("has a mode");
        std::os::unix::fs::chown(path, Some(4711), Some(4711)).expect("root may");
    }
    let builder = support::builder(1).dir(&dir, "/dir", DirAccess::ReadWrite);
    let guest = Guest::new(builder.worker_identity(4711, 4711));
    assert_eq!(guest.text("read", 3, "own"), Ok("of 4711".into()));
    assert_eq!(guest.ask("write", 3, "own", "again"), Ok(Vec::new()));
}

#[test]
fn names_in_the_guest_are_bounded_and_differ() {
    let place = Place::new();
    let dir = place.dir("dir");
    let pool = |name: &str| support::builder(1).dir(&dir, name, DirAccess::ReadOnly);
    for name in ["", "a\0b", &"x".repeat(5000)] {
        let message = refused(pool(name), &dir);
        assert!(message.contains("1 to 4096 bytes"), "{message}");
    }
    let message = refused(pool("/dir").dir(&dir, "/dir", DirAccess::ReadWrite), &dir);
    assert!(message.contains("`/dir`"), "{message}");
    let many = |count: usize| {
        let add = |builder: wasmpool::PoolBuilder, number: usize| {
            builder.dir(&dir, format!("{number}{}", "x".repeat(4090)), DirAccess::ReadOnly)
        };
        (0..count).fold(support::builder(1), add)
    };
    let message = refused(many(17), &dir);
    assert!(message.contains("at most 16"), "{message}");
    let guest = Guest::new(many(16));
    assert_eq!(guest.ask("list", 18, ".", "").map(|_| ()), Ok(()));
    assert_eq!(guest.text("list", 19, "."), Err(8));
}
