use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode};

use super::*;

/// A folder that holds a canary and a folder `d`.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let place = Place { folder: tempfile::tempdir().expect("a folder") };
        fs::write(place.path("canary"), "canary").expect("writes");
        fs::create_dir(place.path("d")).expect("makes");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The files as a command sees them whose tasks may write to `d`.
    fn with_tasks(&self) -> HostFiles {
        HostFiles::new(TaskDirs::open([&*self.path("d")]).expect("opens"))
    }

    fn open_to_all(&self, name: &str) {
        fs::set_permissions(self.path(name), Permissions::from_mode(0o777)).expect("has a mode");
    }

    fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("makes a pipe");
        path
    }

    fn canary(&self) -> String {
        fs::read_to_string(self.path("canary")).expect("is there")
    }
}

fn text(file: Result<impl std::io::Read, OpenError>) -> String {
    let mut text = String::new();
    file.expect("opens").read_to_string(&mut text).expect("reads");
    text
}

#[test]
fn nothing_of_the_hosts_own_lies_where_tasks_may_write() {
    let place = Place::new();
    fs::create_dir_all(place.path("d/sub/deep")).expect("makes");
    symlink(place.path("d/sub"), place.path("into")).expect("links");
    symlink(place.path("d"), place.path("d2")).expect("links");
    // The tasks could have made this link, since they may write to where it stands.
    fs::create_dir(place.path("out")).expect("makes");
    symlink(place.path("out"), place.path("d/away")).expect("links");
    let files = place.with_tasks();
    for path in ["d", "d/sub", "d/sub/deep", "into", "into/deep", "d2", "d/away", "d/sub/../sub", "d/away/.."]
    {
        let refused = |result: Result<(), OpenError>| {
            assert!(matches!(result, Err(OpenError::TasksMayWrite(_))), "{path}: {result:?}");
        };
        let folder = place.path(path);
        let file = folder.join("file");
        refused(files.make_folder(&folder, 0o700).map(drop));
        refused(files.make_folder(&folder.join("new"), 0o700).map(drop));
        refused(files.own_folder(&folder).map(drop));
        refused(files.append(&file, "a test").map(drop));
        refused(files.replace(&file, "a test").map(drop));
        refused(files.read_own(&file, Finding::Named).map(drop));
        refused(files.make_new_folder(&folder.join("new")).map(drop));
    }
    assert_eq!(fs::read_dir(place.path("d/sub/deep")).expect("reads").count(), 0);
    assert_eq!(fs::read_dir(place.path("out")).expect("reads").count(), 0);
    // Tasks reach neither the folder beside theirs nor the one above.
    for path in ["file", "out/file"] {
        files.append(&place.path(path), "a test").expect("opens");
    }
    let above = files.make_folder(place.folder.path(), 0o700).expect("opens");
    assert!(files.has_task_dirs_in(&above));
    assert!(!files.has_task_dirs_in(&files.own_folder(&place.path("out")).expect("opens")));
}

/// The way up from the other mount does not pass the tasks' directory.
#[test]
fn another_mount_of_the_tasks_directory_is_known_by_its_place() {
    let place = Place::new();
    fs::create_dir_all(place.path("d/sub")).expect("makes");
    fs::create_dir(place.path("elsewhere")).expect("makes");
    let is_refused = std::thread::scope(|scope| {
        let mounted = scope.spawn(|| {
            // SAFETY: only this thread gets other mounts, and it ends with this test.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }.ok()?;
            // SAFETY: only this thread gets other mounts, and it ends with this test.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.ok()?;
            let path =
                |path: PathBuf| std::ffi::CString::new(path.into_os_string().into_encoded_bytes()).ok();
            let root = c"/".as_ptr();
            let flags = libc::MS_REC | libc::MS_PRIVATE;
            let from = path(place.path("d/sub"))?;
            let to = path(place.path("elsewhere"))?;
            let none = std::ptr::null();
            // SAFETY: the paths are valid C strings, and the other pointers may be null for these flags.
            let made = unsafe {
                libc::mount(none, root, none, flags, none.cast()) == 0
                    && libc::mount(from.as_ptr(), to.as_ptr(), none, libc::MS_BIND, none.cast()) == 0
            };
            made.then(|| {
                // `/proc/self` shows the main thread's mounts, which are the old ones.
                let files = place.with_tasks();
                matches!(
                    files.append(&place.path("elsewhere/file"), "a test"),
                    Err(OpenError::TasksMayWrite(_))
                )
            })
        });
        mounted.join().expect("ends")
    });
    // Only root may mount; otherwise there is nothing to check.
    assert!(is_refused.unwrap_or(true));
}

#[test]
fn inputs_come_from_the_tasks_directory_only_as_regular_files_of_one_name() {
    let place = Place::new();
    let files = place.with_tasks();
    fs::create_dir(place.path("d/sub")).expect("makes");
    for path in ["d/a", "d/sub/b"] {
        fs::write(place.path(path), "input").expect("writes");
        assert_eq!(text(files.read(&place.path(path))), "input");
    }
    symlink("../canary", place.path("d/link")).expect("links");
    symlink("a", place.path("d/near")).expect("links");
    symlink("..", place.path("d/up")).expect("links");
    symlink("/dev/zero", place.path("d/zero")).expect("links");
    fs::hard_link(place.path("canary"), place.path("d/hard")).expect("links");
    place.fifo("d/pipe");
    let folder = files.folder(&place.path("d")).expect("opens");
    for name in ["link", "near", "up/canary", "zero", "hard", "pipe", "sub"] {
        files.read(&place.path("d").join(name)).expect_err(name);
        folder.open_beneath(&files, Path::new(name)).expect_err(name);
    }
    folder.open_beneath(&files, Path::new("../canary")).expect_err("is outside");
    folder.open_beneath(&files, &place.path("canary")).expect_err("is outside");
    folder.folder_beneath(&files, Path::new("up")).expect_err("is outside");
    assert_eq!(text(folder.open_beneath(&files, Path::new("sub/b"))), "input");
}

#[test]
fn without_openat2_each_step_is_taken_alone() {
    let place = Place::new();
    fs::create_dir(place.path("d/sub")).expect("makes");
    fs::write(place.path("d/sub/b"), "input").expect("writes");
    symlink("sub", place.path("d/link")).expect("links");
    symlink("b", place.path("d/sub/link")).expect("links");
    let files = HostFiles::default();
    let folder = files.folder(&place.path("d")).expect("opens");
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
    let open = |path: &str| folder.beneath_stepwise(Path::new(path), flags).map(File::from);
    assert_eq!(text(open("sub/b")), "input");
    for path in ["link/b", "sub/link", "../canary", "/etc/passwd", "sub/none", ""] {
        open(path).expect_err(path);
    }
}

#[test]
fn what_somebody_names_may_be_their_own_link_pipe_or_device() {
    let place = Place::new();
    let files = HostFiles::default();
    symlink("canary", place.path("link")).expect("links");
    symlink(place.path("d"), place.path("folder")).expect("links");
    fs::write(place.path("d/a"), "input").expect("writes");
    fs::hard_link(place.path("d/a"), place.path("hard")).expect("links");
    assert_eq!(text(files.read(&place.path("link"))), "canary");
    assert_eq!(text(files.read(&place.path("folder/a"))), "input");
    assert_eq!(text(files.read(&place.path("hard"))), "input");
    assert_eq!(text(files.read(Path::new("/dev/null"))), "");
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    // A shell gives a descriptor that is not closed when another program is executed.
    let reader = rustix::io::dup(reader).expect("has another number");
    let substituted = format!("/dev/fd/{}", reader.as_raw_fd());
    writer.write_all(b"piped").expect("writes");
    drop(writer);
    assert_eq!(text(files.read(Path::new(&substituted))), "piped");
    let pipe = place.fifo("pipe");
    let writer = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::write(pipe, "late").expect("writes")
    });
    assert_eq!(text(files.read(&pipe)), "late");
    writer.join().expect("ends");
    symlink("loop", place.path("loop")).expect("links");
    assert!(files.read(&place.path("loop")).is_err());
}

#[test]
fn in_a_folder_that_is_open_to_all_nobody_is_believed() {
    let place = Place::new();
    place.open_to_all("d");
    let files = HostFiles::default();
    symlink("../canary", place.path("d/link")).expect("links");
    fs::hard_link(place.path("canary"), place.path("d/hard")).expect("links");
    place.fifo("d/pipe");
    for name in ["link", "hard", "pipe"] {
        let path = place.path("d").join(name);
        files.read(&path).expect_err(name);
        files.append(&path, "a test").expect_err(name);
    }
    fs::write(place.path("d/own"), "before\n").expect("writes");
    files.append(&place.path("d/own"), "a test").expect("opens").file.write_all(b"after\n").expect("writes");
    assert_eq!(fs::read_to_string(place.path("d/own")).expect("reads"), "before\nafter\n");
    // A new file takes the place of a second name, and leaves the other file alone; none that of a link.
    let hard = place.path("d/hard");
    files.replace(&hard, "a test").expect("opens").file.write_all(b"new").expect("writes");
    let metadata = fs::symlink_metadata(&hard).expect("is there");
    assert!(metadata.is_file() && metadata.nlink() == 1);
    let link = place.path("d/link");
    assert!(matches!(files.replace(&link, "a test"), Err(OpenError::OutputLink(_))));
    assert!(fs::symlink_metadata(&link).expect("is there").is_symlink());
    assert_eq!(place.canary(), "canary");
}

#[test]
fn another_users_link_opens_only_what_is_theirs() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    let files = HostFiles::default();
    let give =
        |name: &str| std::os::unix::fs::lchown(place.path(name), Some(1234), Some(1234)).expect("gives");
    fs::write(place.path("d/theirs"), "theirs").expect("writes");
    symlink("theirs", place.path("d/near")).expect("links");
    symlink("../canary", place.path("d/far")).expect("links");
    fs::hard_link(place.path("canary"), place.path("d/hard")).expect("links");
    ["d/theirs", "d/near", "d/far", "d"].into_iter().for_each(give);
    assert_eq!(text(files.read(&place.path("d/near"))), "theirs");
    files.read(&place.path("d/far")).expect_err("is ours");
    files.read(&place.path("d/hard")).expect_err("is ours");
    assert!(matches!(files.append(&place.path("d/near"), "a test"), Err(OpenError::OutputLink(_))));
    files.read_own(&place.path("d/near"), Finding::Usual).expect_err("is another's");
    // A link of another user's is no better where somebody moved it into our folder.
    fs::rename(place.path("d/far"), place.path("far")).expect("moves");
    files.read(&place.path("far")).expect_err("is ours");
}

#[test]
fn a_refusal_says_whose_file_and_whose_folder_it_is() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    let files = HostFiles::default();
    let give = |name: &str, user: u32| {
        std::os::unix::fs::lchown(place.path(name), Some(user), Some(99)).expect("gives");
    };
    let message = |opened: Result<Output, OpenError>| opened.expect_err("is refused").to_string();
    fs::write(place.path("d/log"), "").expect("writes");
    symlink("log", place.path("d/link")).expect("links");
    // A folder of a group, whose members 1234 and 4321 are.
    fs::set_permissions(place.path("d"), Permissions::from_mode(0o2775)).expect("has a mode");
    give("d", 1234);
    give("d/log", 4321);
    give("d/link", 4321);
    let refused = message(files.append(&place.path("d/log"), "a test"));
    assert!(refused.starts_with("it belongs to user 4321, and its folder to user 1234"), "{refused}");
    let refused = message(files.append(&place.path("d/link/x"), "a test"));
    assert!(refused.contains("d/link is a symbolic link of user 4321, which is not followed"), "{refused}");
    give("d/log", 1234);
    files.append(&place.path("d/log"), "a test").expect("is the folder's owner's");
    // Each member's file is as good in a folder of root's that is the group's.
    give("d", 0);
    give("d/log", 4321);
    files.append(&place.path("d/log"), "a test").expect("the folder's owner has put it there");
    place.open_to_all("d");
    let refused = message(files.append(&place.path("d/log"), "a test"));
    assert!(refused.starts_with("it belongs to user 4321, and every user may put a file into"), "{refused}");
}

#[test]
fn a_pipe_without_a_reader_is_an_error_and_not_for_ever() {
    let place = Place::new();
    let pipe = place.fifo("pipe");
    let files = HostFiles::default();
    assert!(matches!(files.append(&pipe, "a test"), Err(OpenError::NoReader)));
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read_to_string(pipe).expect("reads")
    });
    let mut output = files.replace(&pipe, "a test").expect("has a reader");
    assert!(!output.is_regular);
    output.file.write_all(b"line\n").expect("writes");
    drop(output);
    assert_eq!(reader.join().expect("ends"), "line\n");
}

#[test]
fn a_file_that_is_put_is_whole_and_nothing_is_left_beside_it() {
    let place = Place::new();
    let folder = HostFiles::default().make_folder(&place.path("d/a/b"), 0o777).expect("makes");
    folder.put("x", "new", b"one").expect("writes");
    folder.put("x", "new", b"two").expect("writes");
    fs::create_dir(place.path("d/a/b/taken")).expect("makes");
    folder.put("taken", "new", b"three").expect_err("is a folder");
    let mut names: Vec<_> = folder.entries().expect("lists").into_iter().map(|entry| entry.name).collect();
    names.sort_unstable();
    assert_eq!(
        (names, fs::read_to_string(place.path("d/a/b/x")).expect("reads")),
        (vec!["taken".into(), "x".into()], "two".into())
    );
    let (name, _file) = folder.make_new("new", 0o600).expect("makes");
    assert!(Folder::is_made_name(&name, "new") && !Folder::is_made_name(&name, "ne"));
    for name in [".new", "x.new", ".0123.new", ".0123456789abcdef0123456789abcdeg.new"] {
        assert!(!Folder::is_made_name(OsStr::new(name), "new"), "{name}");
    }
}

#[test]
fn a_lock_is_held_as_long_as_the_file_is_open_whoever_else_closes_it() {
    let place = Place::new();
    let files = HostFiles::default();
    let first = files.append(&place.path("log"), "a test").expect("opens");
    assert!(matches!(lock(first.file.file()), Ok(Locked::Ours(_))));
    // This closes a second descriptor of the log, as reading the log as an input does.
    drop(files.read(&place.path("log")).expect("opens"));
    let second = HostFiles::default().append(&place.path("log"), "another command's").expect("opens").file;
    assert!(matches!(lock(second.file()), Ok(Locked::Others)));
    drop(first);
    assert!(matches!(lock(second.file()), Ok(Locked::Ours(_))));
    let (reader, _writer) = std::io::pipe().expect("a pipe");
    assert!(lock(&reader).is_ok(), "with or without one, it is no error");
}

#[test]
fn a_name_of_an_own_descriptor_means_the_descriptor_itself() {
    let place = Place::new();
    let files = HostFiles::default();
    // A descriptor that was given to this process outlives an `exec`; so does this one.
    let given = |file: OwnedFd| rustix::io::dup(file).expect("has another number");
    let (mine, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let socket = given(mine.into());
    let names = |number: i32| {
        let direct = format!("/dev/fd/{number}");
        let by_link = place.path(&format!("to-{number}"));
        symlink(&direct, &by_link).expect("links");
        [PathBuf::from(direct), format!("/proc/self/fd/{number}").into(), by_link]
    };
    let number = socket.as_raw_fd();
    for path in names(number) {
        for output in [files.append(&path, "a test"), files.replace(&path, "another")] {
            let mut output = output.expect("is open");
            assert!(!output.is_regular && output.entry.is_none());
            output.file.write_all(b"x").expect("writes");
        }
    }
    let mut six = [0; 6];
    (&theirs).read_exact(&mut six).expect("reads");
    assert_eq!(&six, b"xxxxxx");
    // A file has one position, whoever writes.
    let path = place.path("f");
    let file = given(File::create(&path).expect("makes").into());
    for path in names(file.as_raw_fd()) {
        let mut output = files.append(&path, "a test").expect("is open");
        output.file.write_all(b"one ").expect("writes");
        rustix::io::write(&file, b"two ").expect("writes");
        files.read(&path).expect_err("can only be written");
    }
    assert_eq!(fs::read_to_string(&path).expect("reads"), "one two ".repeat(3));
    // Reading goes on where others have read.
    let mut source = given(File::open(&path).expect("opens").into());
    rustix::io::read(&mut source, &mut [0; 4]).expect("reads");
    let by_name = format!("/dev/fd/{}", source.as_raw_fd());
    assert!(matches!(files.append(Path::new(&by_name), "a test"), Err(OpenError::WrongWay(..))));
    assert_eq!(text(files.read(Path::new(&by_name))), "two one two one two ");
    // A descriptor that this process has opened for itself is neither written to nor read, and one that is
    // closed is not there.
    let own = File::create(place.path("own")).expect("makes");
    for number in [own.as_raw_fd(), 1 << 20] {
        let path = PathBuf::from(format!("/dev/fd/{number}"));
        assert!(matches!(files.replace(&path, "a test"), Err(OpenError::NoDescriptor(_))), "{number}");
        assert!(matches!(files.read(&path), Err(OpenError::NoDescriptor(_))), "{number}");
    }
}

#[test]
fn what_would_block_is_waited_for_under_a_descriptors_name_too() {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let reader = rustix::io::dup(reader).expect("has another number");
    rustix::io::ioctl_fionbio(&reader, true).expect("it is a pipe");
    let path = format!("/dev/fd/{}", reader.as_raw_fd());
    let read = std::thread::spawn(move || text(HostFiles::default().read(Path::new(&path))));
    writer.write_all(b"late").expect("writes");
    drop(writer);
    assert_eq!(read.join().expect("ends"), "late");
    let flags = rustix::fs::fcntl_getfl(&reader).expect("is open");
    assert!(flags.contains(rustix::fs::OFlags::NONBLOCK), "the pipe is not only ours");
}

#[test]
fn a_file_that_is_replaced_keeps_its_mode_and_owner() {
    let place = Place::new();
    let files = HostFiles::default();
    let path = place.path("f");
    for mode in [0o600, 0o640, 0o666, 0o755] {
        fs::write(&path, "before").expect("writes");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("has a mode");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(1234), Some(1235)).expect("gives");
        }
        let before = fs::metadata(&path).expect("is there");
        files.replace(&path, "a test").expect("opens").file.write_all(b"new").expect("writes");
        let after = fs::metadata(&path).expect("is there");
        let kept = |metadata: &fs::Metadata| (metadata.mode(), metadata.uid(), metadata.gid());
        assert_eq!(kept(&before), kept(&after));
        assert_eq!(fs::read_to_string(&path).expect("reads"), "new");
    }
    if !rustix::process::geteuid().is_root() {
        fs::set_permissions(&path, Permissions::from_mode(0o444)).expect("has a mode");
        files.replace(&path, "a test").expect_err("may not be written");
        assert_eq!(fs::read_to_string(&path).expect("reads"), "new");
    }
}

#[test]
fn a_file_of_a_command_is_there_for_one_thing() {
    let place = Place::new();
    let files = HostFiles::default();
    fs::create_dir(place.path("sub")).expect("makes");
    symlink(place.path("d"), place.path("d2")).expect("links");
    let is_refused = |opened: Result<Output, OpenError>| matches!(opened, Err(OpenError::Twice("the first")));
    for name in ["d/new", "d/old"] {
        if name == "d/old" {
            fs::write(place.path(name), "before").expect("writes");
        }
        let first = files.append(&place.path(name), "the first").expect("opens");
        let again = place.path(&name.replace('/', "2/../sub/../d/"));
        for path in [place.path(name), again] {
            assert!(is_refused(files.append(&path, "the second")), "{}", path.display());
            assert!(is_refused(files.replace(&path, "the second")), "{}", path.display());
        }
        assert!(files.clone().append(&place.path("d/other"), "the second").is_ok());
        // Another command's is another matter, and what is closed is free.
        assert!(HostFiles::default().append(&place.path(name), "the second").is_ok());
        drop(first);
        assert!(files.append(&place.path(name), "the second").is_ok());
    }
    let held = files.hold_input(&place.path("canary"), "the first").expect("is a file");
    assert!(is_refused(files.replace(&place.path("canary"), "the second")));
    assert_eq!(place.canary(), "canary");
    drop(held);
    assert!(files.hold_input(Path::new("/dev/null"), "the first").is_none());
}

#[test]
fn another_users_link_opens_only_their_own_folders() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    let files = HostFiles::default();
    fs::create_dir(place.path("d/sub")).expect("makes");
    symlink("sub", place.path("d/near")).expect("links");
    symlink("..", place.path("d/up")).expect("links");
    for name in ["d/sub", "d/near", "d/up", "d"] {
        std::os::unix::fs::lchown(place.path(name), Some(1234), Some(1234)).expect("gives");
    }
    files.folder(&place.path("d/near")).expect("is theirs");
    assert!(matches!(files.folder(&place.path("d/up")), Err(OpenError::NotTheLinkers(1234))));
    // The directories of tasks are opened in this way.
    TaskDirs::open([&*place.path("d/near")]).expect("is theirs");
    TaskDirs::open([&*place.path("d/up")]).expect_err("is ours");
}

/// A map that waited would replace what the other one has written until then.
#[test]
fn a_folder_that_is_in_use_is_not_waited_for() {
    let place = Place::new();
    let folder = || HostFiles::default().own_folder(&place.path("d")).expect("opens");
    let first = folder().lock().expect("asks");
    assert!(matches!(first, Locked::Ours(_)));
    std::thread::scope(|scope| {
        let (asks, asked) = std::sync::mpsc::channel();
        scope.spawn(move || {
            asked.recv().expect("asks");
            // Long enough for one that does not wait, and too short for one that does.
            std::thread::sleep(std::time::Duration::from_millis(200));
            drop(first);
        });
        asks.send(()).expect("listens");
        assert!(matches!(folder().lock(), Ok(Locked::Others)));
    });
    assert!(matches!(folder().lock(), Ok(Locked::Ours(_))));
}

mod swaps;
