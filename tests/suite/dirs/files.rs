//! Tasks can do this in their directories.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use wasmpool::TaskOptions;
use wasmpool::error::SubmitError;
use wasmpool::module::ModuleOptions;
use wasmpool::sandbox::{DirAccess, SandboxLayer, SandboxPolicy};

use super::{DESCRIPTORS_MAX, FBIG, Guest, NOENT, NOTEMPTY, PERM, Place, TOO_MANY, WAT, ask};
use crate::support::{self, PATIENCE, componentize, preview0};

#[test]
fn without_a_directory_nothing_is_given() {
    let guest = Guest::new(support::builder(1));
    assert_eq!(guest.given(), [""; 0]);
    for path in ["/", "/etc/passwd", ".", "tests"] {
        assert_eq!(guest.text("read", 3, path), Err(8), "{path}: there is no descriptor");
    }
    guest.assert_nobody_died();
}

#[test]
fn a_read_only_directory_is_read() {
    let place = Place::new();
    let dir = place.dir("dir");
    place.file("dir/a", "first");
    place.dir("dir/sub");
    place.file("dir/sub/b", "second");
    symlink("sub/b", dir.join("link")).expect("is made");
    let guest = Guest::in_dir(&dir, DirAccess::ReadOnly);
    assert_eq!(guest.given(), ["/dir"]);
    assert_eq!(guest.text("read", 3, "a"), Ok("first".into()));
    assert_eq!(guest.text("read", 3, "sub/b"), Ok("second".into()));
    assert_eq!(guest.text("read", 3, "sub/../a"), Ok("first".into()));
    assert_eq!(guest.text("read", 3, "link"), Ok("second".into()));
    assert_eq!(guest.text("read_link", 3, "link"), Ok("sub/b".into()));
    assert_eq!(guest.text("read", 3, "c"), Err(NOENT));
    assert_eq!(guest.names(3, "."), Ok(vec!["a".into(), "link".into(), "sub".into()]));
    assert_eq!(guest.names(3, "sub"), Ok(vec!["b".into()]));
    for (path, type_and_size) in [("a", (4, 5)), ("sub/b", (4, 6)), ("sub", (3, 0)), ("link", (7, 5))] {
        let stat = guest.ask("stat", 3, path, "").unwrap_or_else(|errno| panic!("{path}: {errno}"));
        // `filestat`: device, inode, type, links, size.
        let size = u64::from_le_bytes(stat[32..40].try_into().expect("eight bytes"));
        let size = if stat[16] == 3 { 0 } else { size };
        assert_eq!((stat[16], size), type_and_size, "{path}");
    }
    assert!(guest.ask("stat_followed", 3, "link", "").is_ok());
    for path in ["a", "sub", "link", "."] {
        assert_eq!(guest.text("all_calls_reading", 3, path), Ok(String::new()), "{path}");
    }
    // The next task sees what the host changes.
    place.file("dir/a", "changed");
    assert_eq!(guest.text("read", 3, "a"), Ok("changed".into()));
    guest.assert_nobody_died();
}

#[test]
fn whoever_writes_in_a_read_only_directory_gets_an_error_and_goes_on() {
    let place = Place::new();
    let dir = place.dir("dir");
    place.file("dir/a", "as it was");
    let guest = Guest::in_dir(&dir, DirAccess::ReadOnly);
    let writing = [
        ("write", "a", "x"),
        ("write", "new", "x"),
        ("append", "a", "x"),
        ("make_dir", "new", ""),
        ("remove_dir", "sub", ""),
        ("unlink", "a", ""),
        ("rename", "a", "b"),
        ("symlink", "a", "b"),
        ("link", "a", "b"),
        ("touch", "a", ""),
        ("touch_link", "a", ""),
        ("enlarge", "a", ""),
        ("write_far", "a", ""),
        ("all_calls_writing", "a", ""),
    ];
    for (task, first, second) in writing {
        assert_eq!(guest.ask(task, 3, first, second), Err(PERM), "{task}");
    }
    assert_eq!(guest.text("read", 3, "a"), Ok("as it was".into()));
    assert_eq!(guest.names(3, "."), Ok(vec!["a".into()]));
    guest.assert_nobody_died();
}

#[test]
fn what_is_written_in_a_read_write_directory_is_the_hosts_to_see() {
    let place = Place::new();
    let dir = place.dir("dir");
    place.file("dir/given", "by the host");
    let guest = Guest::in_dir(&dir, DirAccess::ReadWrite);
    let done = |task: &str, first: &str, second: &str| {
        assert_eq!(guest.ask(task, 3, first, second), Ok(Vec::new()), "{task} {first} {second}");
    };
    done("write", "a", "hello");
    assert_eq!(fs::read_to_string(dir.join("a")).expect("reads"), "hello");
    done("append", "a", ", world");
    assert_eq!(guest.text("read", 3, "a"), Ok("hello, world".into()));
    done("write", "given", "by the guest");
    assert_eq!(fs::read_to_string(dir.join("given")).expect("reads"), "by the guest");
    done("make_dir", "sub", "");
    done("write", "sub/b", "b");
    assert_eq!(guest.ask("remove_dir", 3, "sub", ""), Err(NOTEMPTY));
    done("rename", "sub/b", "c");
    done("remove_dir", "sub", "");
    done("link", "c", "d");
    done("symlink", "c", "e");
    assert_eq!(guest.text("read", 3, "e"), Ok("b".into()));
    done("touch_link", "e", "");
    assert_ne!(fs::metadata(dir.join("c")).expect("is there").mtime(), 1);
    done("touch", "e", "");
    assert_eq!(fs::metadata(dir.join("c")).expect("is there").mtime(), 1);
    done("unlink", "d", "");
    done("all_calls_writing", "all", "");
    assert_eq!(fs::metadata(dir.join("all")).expect("is there").len(), 3);
    assert!(guest.ask("all_calls_writing", 3, ".", "").is_err(), "a directory is not written");
    let mut names: Vec<_> =
        fs::read_dir(&dir).expect("reads").flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, ["a", "all", "c", "e", "given"]);
    // The mode is that of a file that is nobody else's.
    let metadata = fs::metadata(dir.join("a")).expect("is there");
    assert_eq!(metadata.mode() & 0o777, 0o600);
    let own = rustix::process::getuid();
    assert_eq!(metadata.uid(), if own.is_root() { 65534 } else { own.as_raw() });
    guest.assert_nobody_died();
}

#[test]
fn a_file_that_its_mode_keeps_from_the_worker_is_an_error() {
    let place = Place::new();
    let dir = place.dir("dir");
    let file = place.file("dir/a", "for others");
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o000)).expect("has a mode");
    let guest = Guest::in_dir(&dir, DirAccess::ReadWrite);
    for task in ["read", "write", "append"] {
        assert_eq!(guest.text(task, 3, "a"), Err(2), "{task}");
    }
    // WASI's last way to set the times of such a file is /proc, and there is none.
    assert!(guest.ask("touch", 3, "a", "").is_err());
    guest.assert_nobody_died();
}

#[test]
fn directories_have_their_own_rights_and_do_not_touch_each_other() {
    let place = Place::new();
    let maps = place.dir("maps");
    let results = place.dir("results");
    place.file("maps/a", "a map");
    let builder = support::builder(1).dir(&maps, "/maps", DirAccess::ReadOnly);
    let guest = Guest::new(builder.dir(&results, "results", DirAccess::ReadWrite));
    assert_eq!(guest.given(), ["/maps", "results"]);
    assert_eq!(guest.text("read", 3, "a"), Ok("a map".into()));
    assert_eq!(guest.text("read", 4, "a"), Err(NOENT));
    assert_eq!(guest.ask("write", 3, "b", "x"), Err(PERM));
    assert_eq!(guest.ask("write", 4, "b", "x"), Ok(Vec::new()));
    assert_eq!(guest.ask("carry", 3, "a", "a"), Err(PERM));
    assert_eq!(fs::read_to_string(results.join("b")).expect("reads"), "x");
    assert!(!maps.join("b").exists() && maps.join("a").exists());
    guest.assert_nobody_died();
}

#[test]
fn a_directory_is_the_one_that_was_there_when_the_pool_was_built() {
    let place = Place::new();
    let dir = place.dir("dir");
    place.file("dir/a", "then");
    let guest = Guest::in_dir(&dir, DirAccess::ReadOnly);
    fs::rename(&dir, place.path("moved")).expect("is moved");
    place.dir("dir");
    place.file("dir/a", "now");
    assert_eq!(guest.text("read", 3, "a"), Ok("then".into()));
}

#[test]
fn a_file_beyond_the_limit_is_an_error_and_not_the_end_of_the_worker() {
    let place = Place::new();
    let dir = place.dir("dir");
    let guest = Guest::in_dir(&dir, DirAccess::ReadWrite);
    for task in ["enlarge", "write_far"] {
        assert_eq!(guest.ask(task, 3, "a", ""), Err(FBIG), "{task}");
    }
    guest.assert_nobody_died();
}

/// A worker needs descriptors for the modules that the host sends.
#[test]
fn a_task_that_opens_all_it_can_leaves_the_worker_what_it_needs() {
    let place = Place::new();
    let dir = place.dir("dir");
    place.file("dir/a", "a");
    let guest = Guest::in_dir(&dir, DirAccess::ReadOnly);
    for _ in 0..3 {
        let answer = guest.ask("hoard", 3, "a", "").expect("an answer");
        let times = u32::from_le_bytes(answer[1..5].try_into().expect("four bytes"));
        assert_eq!((answer[0], times), (TOO_MANY, DESCRIPTORS_MAX as u32 - 4));
    }
    guest.assert_nobody_died();
}

/// Opening a FIFO waits in the kernel for somebody who writes, and no interrupt is heeded there.
#[test]
fn a_fifo_costs_the_worker_at_the_deadline_and_nothing_else() {
    use std::time::Duration;
    let place = Place::new();
    let dir = place.dir("dir");
    place.file("dir/a", "a");
    let fifo = dir.join("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).expect("is made");
    super::open_to_all(&fifo);
    let builder =
        support::builder(1).dir(&dir, "/dir", DirAccess::ReadOnly).grace(Duration::from_millis(100));
    let pool = support::build(builder);
    let module = super::load(&pool);
    let options = TaskOptions::new().timeout(Duration::from_millis(300));
    let input = super::input(3, "fifo", "");
    let waits = pool.submit_with(&super::task(&module, "read"), &input, options).expect("is accepted");
    let error = support::error(&waits);
    assert!(matches!(error, wasmpool::TaskError::Timeout { .. }), "{error}");
    assert_eq!(ask(&pool, &module, "read", 3, "a", ""), Ok(b"a".to_vec()));
}

#[test]
fn a_command_reads_and_writes_as_tasks_do() {
    let place = Place::new();
    let dir = place.dir("dir");
    place.file("dir/in", "text");
    let pool = support::build(support::builder(1).dir(&dir, "/dir", DirAccess::ReadWrite));
    let text = WAT.replace("(func (export \"wasmpool_abi_v1\"))", "").replace(
        "(memory (export \"memory\") 4)",
        r#"(memory (export "memory") 4)
           (data (i32.const 4096) "\03\03outby a command")
           (func (export "_start")
             (global.set $len (i32.const 17))
             (drop (call $open (i32.const 9) (i64.const 64) (i32.const 0)))
             (drop (call $write_second)))"#,
    );
    let mut command = wat::parse_str(preview0::guest(module_path!(), &text)).expect("valid text");
    if componentize::IS_HERE {
        command = componentize::command(&command);
    }
    let command = pool.load(&command).expect("loads").command().expect("a command");
    let future = pool.submit(&command, &wasmpool::task::CommandInput::new()).expect("is accepted");
    let output = future.result_timeout(PATIENCE).expect("in time").expect("succeeds");
    assert_eq!(output.exit_code, 0);
    assert_eq!(fs::read_to_string(dir.join("out")).expect("reads"), "by a command");
}

#[test]
fn every_worker_has_the_directories() {
    let place = Place::new();
    let dir = place.dir("dir");
    let guest =
        Guest::new(support::builder(3).dir(&dir, "/dir", DirAccess::ReadWrite).recycle_after_tasks(2));
    for number in 0..12 {
        assert_eq!(guest.ask("write", 3, &format!("{number}"), "x"), Ok(Vec::new()));
    }
    assert_eq!(fs::read_dir(&dir).expect("reads").count(), 12);
}

#[test]
fn a_worker_says_that_it_has_directories() {
    let place = Place::new();
    let first = place.dir("first");
    let second = place.dir("second");
    let builder = support::builder(1).dir(&first, "/first", DirAccess::ReadOnly);
    let guest = Guest::new(builder.dir(&second, "/second", DirAccess::ReadWrite));
    assert_eq!(guest.given().len(), 2);
    let report = guest.pool.sandbox().expect("a worker");
    let reason = |layer| report.layer(layer).map(|layer| layer.reason.clone()).unwrap_or_default();
    assert!(reason(SandboxLayer::Descriptors).contains("2 directories"), "{report}");
    if report.has(SandboxLayer::Landlock) {
        assert!(reason(SandboxLayer::Landlock).contains("1 directories to read and 1 to write"), "{report}");
    }
    assert!(reason(SandboxLayer::Seccomp).contains("of them for files"), "{report}");
    if report.has(SandboxLayer::EmptyRoot) {
        assert!(reason(SandboxLayer::EmptyRoot).contains("2 directories as mounts"), "{report}");
    }
}

/// The weaker profile is for pools that ask for it.
#[test]
fn without_directories_the_filter_is_what_it_was() {
    let guest = Guest::new(support::builder(1));
    assert_eq!(guest.given().len(), 0);
    let report = guest.pool.sandbox().expect("a worker");
    let seccomp = report.layer(SandboxLayer::Seccomp).expect("is reported");
    let calls = wasmpool::sandbox::Doctor::system_calls().len();
    assert!(calls <= 30 && seccomp.reason == format!("{calls} system calls, the others kill"), "{report}");
}

#[test]
fn a_scan_of_the_page_map_and_directories_go_together() {
    let place = Place::new();
    let dir = place.dir("dir");
    place.file("dir/a", "a");
    let builder = support::builder(1).dir(&dir, "/dir", DirAccess::ReadOnly).pagemap_scan(true);
    let pool = match builder.build() {
        Ok(pool) => pool,
        Err(wasmpool::error::BuildError::PagemapScan { reason }) => return println!("not here: {reason}"),
        Err(error) => panic!("{error}"),
    };
    let module = super::load(&pool);
    for _ in 0..20 {
        assert_eq!(ask(&pool, &module, "read", 3, "a", ""), Ok(b"a".to_vec()));
    }
}

#[test]
fn all_layers_can_be_demanded_and_none() {
    let place = Place::new();
    let dir = place.dir("dir");
    place.file("dir/a", "a");
    for policy in [SandboxPolicy::Strict, SandboxPolicy::Off] {
        let builder = support::builder(1).without_cgroup().sandbox(policy);
        // A layer that only root has does not count as missing for an ordinary user.
        let pool = support::build(builder.dir(&dir, "/dir", DirAccess::ReadWrite));
        let module = super::load(&pool);
        assert_eq!(ask(&pool, &module, "read", 3, "a", ""), Ok(b"a".to_vec()), "{policy}");
        assert_eq!(ask(&pool, &module, "write", 3, "b", "b"), Ok(Vec::new()), "{policy}");
    }
}

#[test]
fn a_deterministic_task_that_could_see_files_is_refused() {
    let place = Place::new();
    let dir = place.dir("dir");
    let pool = support::build(support::builder(1).dir(&dir, "/dir", DirAccess::ReadOnly));
    let options = ModuleOptions::new().deterministic(true);
    let module = super::load_with(&pool, options.clone());
    let seeded = || TaskOptions::new().deterministic(1);
    let refused = pool.submit_with(&super::task(&module, "read"), &wasmpool::Bytes::new(), seeded());
    assert!(matches!(refused, Err(SubmitError::DirsNotDeterministic { .. })), "{refused:?}");
    // A module without WASI sees nothing of them.
    let echo = pool.load_with(&wat::parse_str(support::ECHO_WAT).expect("valid"), options).expect("loads");
    let future = pool.submit_with(&support::raw(&echo, "echo"), "x", seeded()).expect("is accepted");
    future.result_timeout(PATIENCE).expect("in time").expect("succeeds");
}
