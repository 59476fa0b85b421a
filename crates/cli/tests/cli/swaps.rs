//! The command neither reads nor writes a canary, and ends, while everything in a directory is replaced in a
//! tight loop by links to the canary, pipes, devices and hard links. This is so for every option that names a
//! path.
//!
//! There are three kinds of rounds. In the first the option names a path in the tasks' own directory, which is refused
//! unless it is an input. In the second it names one beside that directory, and the command goes on while names are
//! replaced. In the third it names one in a folder that is open to all, in which the command writes and reads while names
//! are replaced there, in some rounds by the task of another command as well.
//!
//! A thread of the test replaces the names: it is quicker than any task, and has more rights. In some rounds
//! a task swaps as well. `WASMPOOL_SWAP_ROUNDS` sets the number of rounds; if this test is root, an ordinary
//! user runs half of them. `crates/files/src/tests/swaps.rs` tests the names' own swaps without a process for
//! each round.

use std::fs::{self, Permissions};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, FileType, Mode, RenameFlags, inotify};

use crate::files::SWAP_WAT;
use crate::harness::{end_with, prebuilt, spawn, wat};

/// A test that is root also becomes this user.
const USER: u32 = 1234;

fn rounds() -> usize {
    std::env::var("WASMPOOL_SWAP_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(288)
}

/// The names that are replaced in the directory and in the folder that is open to all, besides what the
/// command makes there.
const NAMES: [&str; 4] = ["f", "sub", "sub/f", "wasmpool.toml"];

/// A verb, and options that name a path. `D` stands for the tasks' directory, or the folder in its place; `N` for the
/// round's number.
type Options = (&'static str, &'static [&'static str]);

/// Options of what is written, of what is relied on, and of what is read.
const INSIDE: [Options; 20] = [
    ("run", &["--output", "D/f"]),
    ("run", &["--output", "D/sub/f"]),
    ("map", &["--output-dir", "D"]),
    ("map", &["--output-dir", "D/sub"]),
    ("map", &["--joblog", "D/f"]),
    ("map", &["--joblog", "D/sub/f", "--resume"]),
    ("map", &["--log-file", "D/f", "--log-rotate", "size=1KiB"]),
    ("run", &["--log-file", "D/sub/f"]),
    ("map", &["--profile", "D/f"]),
    ("run", &["--profile", "D/sub/f"]),
    ("map", &["--trace", "D/f"]),
    ("run", &["--trace", "D/sub/f"]),
    ("map", &["--cache-dir", "D/sub"]),
    ("run", &["--cache-dir", "D"]),
    ("run", &["--config", "D/wasmpool.toml"]),
    ("run", &["--share", "D/f"]),
    ("run", &["--input-file", "D/sub/f"]),
    ("map", &["--files", "D", "D/f"]),
    ("map", &["--files", "D/sub"]),
    ("run", &["--dir", "D/sub:/sub"]),
];

/// Options whose places nobody replaces, or by names that the command makes itself.
const MADE: [Options; 13] = [
    ("run", &["--output", "D/rN"]),
    ("map", &["--output-dir", "D"]),
    ("map", &["--output-dir", "D/oN/sub"]),
    ("map", &["--joblog", "D/jN"]),
    ("map", &["--joblog", "D/kN", "--resume"]),
    ("map", &["--log-file", "D/lN", "--log-rotate", "size=1KiB", "-vv"]),
    ("run", &["--log-file", "D/l", "--log-rotate", "size=1KiB", "-vv"]),
    ("map", &["--profile", "D/pN"]),
    ("run", &["--profile", "D/f"]),
    ("map", &["--trace", "D/tN"]),
    ("run", &["--trace", "D/f"]),
    ("map", &["--cache-dir", "D/cN"]),
    ("run", &["--cache-dir", "D/sub"]),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Inside,
    Beside,
    Open,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Inside, Kind::Beside, Kind::Open];

    fn of(round: usize) -> Kind {
        Kind::ALL[round % 3]
    }
}

/// The tasks' directory, and a folder that is open to all.
const OPEN: [&str; 2] = ["d", "e"];

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
        for name in ["", "d", "e", "outside", "cache", "home", "home/out", "out"] {
            fs::create_dir_all(path(name)).expect("makes");
            let mode = if OPEN.contains(&name) { 0o777 } else { 0o755 };
            fs::set_permissions(path(name), Permissions::from_mode(mode)).expect("has a mode");
        }
        symlink("d", path("into")).expect("links");
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
        let kind = Kind::of(round);
        let turn = round / 3;
        let (verb, option) = match kind {
            Kind::Inside => INSIDE[turn % INSIDE.len()],
            Kind::Beside => MADE[turn % MADE.len()],
            // Options of what is only read, or is to be there, are among those of the inside.
            Kind::Open if turn % 4 == 3 => INSIDE[12 + turn / 4 % 6],
            Kind::Open => MADE[turn % MADE.len()],
        };
        let folder = match kind {
            Kind::Inside => "d",
            Kind::Beside if user.is_some() => "home/out",
            Kind::Beside => "out",
            Kind::Open => "e",
        };
        let is_swapping = turn % 8 == 7;
        let mut command = self.wasmpool(verb, user);
        match (is_swapping, verb) {
            (true, _) => command.arg(&self.swap),
            (false, "map") => command.arg(&self.module).arg("hash"),
            (false, _) if option.contains(&"--input-file") => command.arg(&self.module).arg("hash"),
            (false, _) => command.arg(&self.module).args(["hash", "--input", "\"a\""]),
        };
        command.args(option.iter().map(|word| match word.strip_prefix("D") {
            Some(rest) => format!("{folder}{}", rest.replace('N', &round.to_string())),
            None => word.to_string(),
        }));
        // The directory is given by a link of the host's own, now and then.
        let dir = if turn % 5 == 4 { "into:/d:rw" } else { "d:/d:rw" };
        command.args(["--dir", dir, "--workers", "1", "--timeout", "10s"]);
        if !option.contains(&"--cache-dir") {
            command.arg("--cache-dir").arg(self.path(if user.is_some() { "home/cache" } else { "cache" }));
        }
        if is_swapping {
            command.args(["--", NAMES[turn % NAMES.len()]]);
        }
        command
    }

    /// Another command, whose task replaces names in the folder that is open to all.
    fn other(&self, user: Option<u32>) -> Command {
        let mut command = self.wasmpool("run", user);
        command.arg(&self.swap).args(["--dir", "e:/d:rw", "--no-cache", "--timeout", "10s", "--", "f"]);
        command
    }

    fn wasmpool(&self, verb: &str, user: Option<u32>) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().env("HOME", self.path("home")).current_dir(self.folder.path()).arg(verb);
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
    let mut below = |bound: usize| {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        (*random % bound as u64) as usize
    };
    let d = cage.path(OPEN[below(OPEN.len())]);
    // The names that the command has just made are replaced, too.
    let mut names: Vec<PathBuf> = NAMES.map(PathBuf::from).into();
    let found = fs::read_dir(&d).into_iter().flatten().flatten();
    names.extend(found.map(|entry| PathBuf::from(entry.file_name())));
    let name = names.swap_remove(below(names.len()));
    let made = d.join(".made");
    let _ = fs::remove_file(&made).or_else(|_| fs::remove_dir_all(&made));
    let canary = if name.starts_with("sub/") { "../../canary" } else { "../canary" };
    let _ = match below(10) {
        0..=2 => fs::write(&made, "\"input\""),
        3 => fs::write(&made, "timeout = \"1s\""),
        4 => symlink(canary, &made),
        5 => symlink(cage.path("outside"), &made),
        6 => fs::hard_link(cage.path("canary"), &made),
        7 => rustix::fs::mknodat(CWD, &made, FileType::Fifo, Mode::from_raw_mode(0o666), 0)
            .map_err(std::io::Error::from),
        8 => symlink("/dev/zero", &made),
        // Open to all, as the folder is: one of this user's own would be believed.
        _ => fs::create_dir(&made)
            .and_then(|()| fs::set_permissions(&made, Permissions::from_mode(0o777)))
            .and_then(|()| fs::write(made.join("f"), "\"input\"")),
    };
    let (folder, name) = match name.strip_prefix("sub") {
        Ok(rest) if rest == std::path::Path::new("f") => (d.join("sub"), rest.to_path_buf()),
        _ => (d, name),
    };
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::NOFOLLOW;
    let Ok(folder) = rustix::fs::open(&folder, flags, Mode::empty()) else { return };
    // Names that the command has made go, so that there are not ever more of them.
    let is_ours = NAMES.iter().any(|ours| name == std::path::Path::new(ours));
    let exchanged = match is_ours || below(3) > 0 {
        true => rustix::fs::renameat_with(CWD, &made, &folder, &name, RenameFlags::EXCHANGE),
        false => rustix::fs::unlinkat(&folder, &name, rustix::fs::AtFlags::empty())
            .or_else(|_| rustix::fs::unlinkat(&folder, &name, rustix::fs::AtFlags::REMOVEDIR)),
    };
    let _ = exchanged.or_else(|_| rustix::fs::renameat(CWD, &made, &folder, &name));
}

#[test]
fn no_option_leads_out_of_the_directory_in_which_everything_is_replaced() {
    let cage = Cage::new();
    let users: &[Option<u32>] = match rustix::process::geteuid().is_root() {
        true => {
            for name in ["home", "home/out"] {
                std::os::unix::fs::chown(cage.path(name), Some(USER), Some(USER)).expect("gives");
            }
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
    let began = std::time::Instant::now();
    let mut succeeded = Kind::ALL.map(|_| 0);
    for round in 0..rounds() {
        let turn = round / 3;
        let user = users[(turn + turn / INSIDE.len()) % users.len()];
        let mut command = cage.command(round, user);
        let what = format!("round {round}, as {user:?}: {:?}", command.get_args().collect::<Vec<_>>());
        let other = (round % 24 == 2).then(|| spawn(cage.other(user).stdin(Stdio::null())));
        let ended = end_with(&mut command, "a\nb\n");
        if let Some(other) = other {
            let ended = crate::harness::ended(other);
            assert!([0, 2].contains(&ended.code), "{what}: the other: {}: {}", ended.code, ended.stderr);
        }
        // A folder in the place of a file that is to be written is an error of the writing.
        let expected: &[i32] = if Kind::of(round) == Kind::Open { &[0, 2, 3, 4, 5] } else { &[0, 2, 3, 4] };
        assert!(expected.contains(&ended.code), "{what}: {}: {}", ended.code, ended.stderr);
        if Kind::of(round) == Kind::Beside {
            assert_eq!(ended.code, 0, "{what}: {}", ended.stderr);
        }
        let said = format!("{}{}", ended.text(), ended.stderr);
        assert!(!said.contains("the canary"), "{what}: {said}");
        if ended.code == 0 {
            succeeded[round % 3] += 1;
        }
        cage.assert_untouched(&what);
        if round % 300 == 299 {
            println!("{} rounds: {succeeded:?}, {:?}", round + 1, began.elapsed());
        }
    }
    let all = succeeded.iter().sum::<usize>();
    let took = began.elapsed();
    println!(
        "{all} of {} commands succeeded, by kind {succeeded:?}, in {took:?}; the others were refused",
        rounds()
    );
    assert!(2 * all >= rounds(), "so few show little: {succeeded:?} of {}", rounds());
}

#[test]
fn every_option_that_names_a_path_is_swapped() {
    let page = |verb: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wasmpool"));
        end_with(command.env_clear().args([verb, "--help"]), "").expect(0).text()
    };
    let pages = [page("run"), page("map"), page("test")].concat();
    let is_path = |line: &&str| {
        ["<FILE>", "<DIR>", "<PATH>", "<PATH>..."].iter().any(|value| line.trim_end().contains(value))
    };
    let flags =
        pages.lines().filter(is_path).filter_map(|line| line.split("--").nth(1)?.split([' ', '=']).next());
    let mut flags: Vec<_> = flags.collect();
    flags.sort_unstable();
    flags.dedup();
    let is_swapped = |flag: &&str| INSIDE.iter().any(|(_, option)| option.contains(&&*format!("--{flag}")));
    let missing: Vec<_> = flags.iter().filter(|flag| !is_swapped(flag)).collect();
    assert!(flags.len() >= 10 && missing.is_empty(), "{missing:?} of {flags:?}");
}
