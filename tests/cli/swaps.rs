//! Everything in the tasks' directory is replaced in a tight loop by links to a canary, pipes, devices and
//! hard links. For every option that names a path, the command neither reads nor writes the canary, and it
//! ends.
//!
//! A thread of the test replaces the names: it is quicker than any task, and has more rights. In some rounds
//! a task swaps as well. `WASMPOOL_SWAP_ROUNDS` sets the number of rounds; if this test is root, an ordinary
//! user runs half of them. `src/files/tests/swaps.rs` tests the names' own swaps without a process for each
//! round.

use std::fs::{self, Permissions};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, FileType, Mode, RenameFlags, inotify};

use crate::files::SWAP_WAT;
use crate::harness::{end_with, prebuilt, wat};

/// If this test is root, it also becomes this user.
const USER: u32 = 1234;

fn rounds() -> usize {
    std::env::var("WASMPOOL_SWAP_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(240)
}

/// These names are replaced in the directory.
const NAMES: [&str; 4] = ["f", "sub", "sub/f", "wasmpool.toml"];

/// The options that name a path, each with a verb: files that are written, relied on, and read.
const OPTIONS: [(&str, &[&str]); 18] = [
    ("map", &["--output-dir", "d"]),
    ("map", &["--output-dir", "d/sub"]),
    ("map", &["--joblog", "d/f"]),
    ("map", &["--joblog", "d/sub/f", "--resume"]),
    ("map", &["--log-file", "d/f", "--log-rotate", "size=1KiB"]),
    ("run", &["--log-file", "d/sub/f"]),
    ("map", &["--profile", "d/f"]),
    ("run", &["--profile", "d/sub/f"]),
    ("map", &["--trace", "d/f"]),
    ("run", &["--trace", "d/sub/f"]),
    ("map", &["--cache-dir", "d/sub"]),
    ("run", &["--cache-dir", "d"]),
    ("run", &["--config", "d/wasmpool.toml"]),
    ("run", &["--share", "d/f"]),
    ("run", &["--input-file", "d/sub/f"]),
    ("map", &["--files", "d", "d/f"]),
    ("map", &["--files", "d/sub"]),
    ("run", &["--dir", "d/sub:/sub"]),
];

struct Cage {
    folder: tempfile::TempDir,
    program: PathBuf,
    module: PathBuf,
    swap: PathBuf,
    watch: OwnedFd,
}

impl Cage {
    fn new() -> Cage {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        for name in ["", "d", "outside", "cache", "home"] {
            fs::create_dir_all(path(name)).expect("makes");
            let mode = if name == "d" { 0o777 } else { 0o755 };
            fs::set_permissions(path(name), Permissions::from_mode(mode)).expect("has a mode");
        }
        for (name, mode) in [("canary", 0o666), ("outside/f", 0o666), ("outside/wasmpool.toml", 0o666)] {
            fs::write(path(name), "the canary").expect("writes");
            fs::set_permissions(path(name), Permissions::from_mode(mode)).expect("has a mode");
        }
        let program = path("wasmpool");
        let module = path("echo.wasm");
        fs::copy(env!("CARGO_BIN_EXE_wasmpool"), &program).expect("copies");
        fs::copy(prebuilt("echo"), &module).expect("copies");
        let swap = wat(folder.path(), "swap.wasm", SWAP_WAT);
        let watch =
            inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).expect("watches");
        let file = inotify::WatchFlags::ACCESS | inotify::WatchFlags::MODIFY;
        let names = inotify::WatchFlags::CREATE
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::MOVED_FROM;
        for (name, flags) in [("canary", file), ("outside/f", file), ("outside", file | names)] {
            inotify::add_watch(&watch, path(name), flags).expect("watches");
        }
        Cage { program, module, swap, watch, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes the command of a round, as `user` if there is one. In every eighth round a task swaps, too.
    fn command(&self, round: usize, user: Option<u32>) -> Command {
        let (verb, option) = OPTIONS[round % OPTIONS.len()];
        let mut command = Command::new(&self.program);
        command.env_clear().env("HOME", self.path("home")).current_dir(self.folder.path()).arg(verb);
        let is_swapping = round % 8 == 7;
        match (is_swapping, verb) {
            (true, _) => command.arg(&self.swap),
            (false, "map") => command.arg(&self.module).arg("hash"),
            (false, _) => command.arg(&self.module).args(["hash", "--input", "\"a\""]),
        };
        if option.contains(&"--input-file") && !is_swapping {
            command = Command::new(&self.program);
            command.env_clear().env("HOME", self.path("home")).current_dir(self.folder.path());
            command.arg(verb).arg(&self.module).arg("hash");
        }
        command.args(option).args(["--dir", "d:/d:rw", "--workers", "1", "--timeout", "10s"]);
        if !option.contains(&"--cache-dir") {
            command.arg("--cache-dir").arg(self.path(if user.is_some() { "home/cache" } else { "cache" }));
        }
        if is_swapping {
            command.args(["--", NAMES[round % NAMES.len()]]);
        }
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        command
    }

    #[track_caller]
    fn assert_untouched(&self, what: &str) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.watch, &mut buffer);
        if let Ok(event) = reader.next() {
            panic!("{what}: the canary was touched: {event:?}");
        }
    }
}

/// Replaces a name in the directory.
fn swap(cage: &Cage, random: &mut u64) {
    let mut below = |bound: u64| {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        (*random % bound) as usize
    };
    let name = NAMES[below(NAMES.len() as u64)];
    let made = cage.path("d/.made");
    let _ = fs::remove_file(&made).or_else(|_| fs::remove_dir_all(&made));
    let canary = if name.contains('/') { "../../canary" } else { "../canary" };
    let _ = match below(8) {
        0 => fs::write(&made, "\"input\""),
        1 => fs::write(&made, "timeout = \"1s\""),
        2 => symlink(canary, &made),
        3 => symlink(cage.path("outside"), &made),
        4 => fs::hard_link(cage.path("canary"), &made),
        5 => rustix::fs::mknodat(CWD, &made, FileType::Fifo, Mode::from_raw_mode(0o666), 0)
            .map_err(std::io::Error::from),
        6 => symlink("/dev/zero", &made),
        _ => fs::create_dir(&made).and_then(|()| fs::write(made.join("f"), "\"input\"")),
    };
    let (folder, name) =
        name.split_once('/').map_or(("d".into(), name), |(folder, name)| (format!("d/{folder}"), name));
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::NOFOLLOW;
    let Ok(folder) = rustix::fs::open(cage.path(&folder), flags, Mode::empty()) else { return };
    let exchanged = rustix::fs::renameat_with(CWD, &made, &folder, name, RenameFlags::EXCHANGE);
    let _ = exchanged.or_else(|_| rustix::fs::renameat(CWD, &made, &folder, name));
}

#[test]
fn no_option_leads_out_of_the_directory_in_which_everything_is_replaced() {
    let cage = Cage::new();
    let users: &[Option<u32>] = match rustix::process::geteuid().is_root() {
        true => {
            std::os::unix::fs::chown(cage.path("home"), Some(USER), Some(USER)).expect("gives");
            &[None, Some(USER)]
        }
        false => &[None],
    };
    let goes_on = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = u64::from(std::process::id()) << 20 | 1;
            println!("seed {random}");
            while goes_on.load(Ordering::Relaxed) {
                swap(&cage, &mut random);
            }
        });
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| play(&cage, users)));
        goes_on.store(false, Ordering::Relaxed);
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
    for name in ["canary", "outside/f"] {
        assert_eq!(fs::read_to_string(cage.path(name)).expect("is there"), "the canary");
    }
    assert_eq!(fs::read_dir(cage.path("outside")).expect("lists").count(), 2);
}

/// Runs the rounds. Each command must end by itself, within the harness's patience.
fn play(cage: &Cage, users: &[Option<u32>]) {
    let mut succeeded = 0;
    let mut refused = 0;
    for round in 0..rounds() {
        let user = users[round / OPTIONS.len() % users.len()];
        let mut command = cage.command(round, user);
        let what = format!("round {round}, as {user:?}: {:?}", command.get_args().collect::<Vec<_>>());
        let ended = end_with(&mut command, "a\nb\n");
        assert!([0, 2, 3, 4].contains(&ended.code), "{what}: {}: {}", ended.code, ended.stderr);
        let said = format!("{}{}", ended.text(), ended.stderr);
        assert!(!said.contains("the canary"), "{what}: {said}");
        if ended.code == 0 {
            succeeded += 1
        } else {
            refused += 1
        };
        cage.assert_untouched(&what);
    }
    println!("{succeeded} commands succeeded, {refused} were refused, or inputs of theirs");
    assert!(refused > 0);
}

#[test]
fn every_option_that_names_a_path_is_swapped() {
    let page = |verb: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wasmpool"));
        end_with(command.env_clear().args([verb, "--help"]), "").expect(0).text()
    };
    let pages = [page("run"), page("map")].concat();
    let is_path = |line: &&str| {
        ["<FILE>", "<DIR>", "<PATH>", "<PATH>..."].iter().any(|value| line.trim_end().contains(value))
    };
    let flags =
        pages.lines().filter(is_path).filter_map(|line| line.split("--").nth(1)?.split([' ', '=']).next());
    let mut flags: Vec<_> = flags.collect();
    flags.sort_unstable();
    flags.dedup();
    let is_swapped = |flag: &&str| OPTIONS.iter().any(|(_, option)| option.contains(&&*format!("--{flag}")));
    let missing: Vec<_> = flags.iter().filter(|flag| !is_swapped(flag)).collect();
    assert!(flags.len() >= 10 && missing.is_empty(), "{missing:?} of {flags:?}");
}
