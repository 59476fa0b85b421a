//! Nothing outside of the folder is read or written while an attacker replaces names in a tight loop.
//!
//! The attacker is stronger than a task: a thread of the same user, which can make hard links to the canary and
//! pipes, and sees every name that the host makes.

use std::ffi::OsString;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, OFlags, RenameFlags, inotify};

use super::*;

/// A test takes seconds; this is when it is given up.
const PATIENCE: Duration = Duration::from_secs(300);

fn rounds() -> u64 {
    std::env::var("WASMPOOL_SWAP_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(10_000)
}

/// A canary, a folder with another one, and the folder `d` in which names change. The kernel (inotify) says
/// whether a canary was read or written.
struct Cage {
    place: Place,
    watch: OwnedFd,
}

impl Cage {
    fn new() -> Cage {
        let place = Place::new();
        fs::create_dir(place.path("outside")).expect("makes");
        fs::write(place.path("outside/canary"), "canary").expect("writes");
        let watch =
            inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).expect("watches");
        let file = inotify::WatchFlags::ACCESS | inotify::WatchFlags::MODIFY;
        let folder = file
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::MOVED_FROM;
        for (path, flags) in [("canary", file), ("outside/canary", file), ("outside", folder)] {
            inotify::add_watch(&watch, place.path(path), flags).expect("watches");
        }
        Cage { place, watch }
    }

    fn assert_untouched(&self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.watch, &mut buffer);
        if let Ok(event) = reader.next() {
            panic!("the canary was touched: {event:?}");
        }
        assert_eq!(self.place.canary(), "canary");
        assert_eq!(fs::read_to_string(self.place.path("outside/canary")).expect("is there"), "canary");
        assert_eq!(fs::read_dir(self.place.path("outside")).expect("lists").count(), 1);
    }
}

/// A step up leads to where the path came from, or nowhere: not to what is above the folder by then.
#[test]
fn a_folder_that_is_moved_while_a_path_leads_through_it_leads_nowhere_else() {
    let place = Place::new();
    for folder in ["d/a", "d/a/b"] {
        fs::create_dir(place.path(folder)).expect("makes");
    }
    fs::write(place.path("x"), "outside").expect("writes");
    fs::write(place.path("d/x"), "inside").expect("writes");
    let files = place.with_tasks();
    let path = place.path("d/a/b/../../x");
    let goes_on = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while goes_on.load(Ordering::Relaxed) {
                let _ = fs::rename(place.path("d/a/b"), place.path("d/b"));
                let _ = fs::rename(place.path("d/b"), place.path("d/a/b"));
            }
        });
        let mut moved = 0;
        let deadline = Instant::now() + PATIENCE;
        // Each way was hit at least a few times: where nothing is checked, some of them end outside.
        for round in 0.. {
            let read = files.read(&path).map(std::io::read_to_string);
            match read {
                Ok(text) => assert_eq!(text.expect("reads"), "inside"),
                Err(OpenError::Moved(_)) => moved += 1,
                Err(OpenError::System(error)) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
                Err(error) => panic!("{error}"),
            }
            if round > 3_000 && moved > 10 || Instant::now() > deadline {
                break;
            }
        }
        goes_on.store(false, Ordering::Relaxed);
        assert!(moved > 10, "the folder was moved {moved} times while a path led through it");
    });
}

/// The names that the host asks for.
const NAMES: [&str; 4] = ["a", "sub", "out", "out.1"];

struct Attacker<'a> {
    cage: &'a Cage,
    random: u64,
}

impl Attacker<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    /// Replaces a name that the host asks for, or one that it has just made.
    fn swap(&mut self) {
        let place = &self.cage.place;
        let d = place.path("d");
        let made = place.path("d/made");
        let mut names: Vec<OsString> = NAMES.map(OsString::from).into();
        names.push("sub/a".into());
        names.extend(fs::read_dir(&d).into_iter().flatten().flatten().map(|entry| entry.file_name()));
        let name = names[self.below(names.len() as u64) as usize].clone();
        let _ = fs::remove_file(&made).or_else(|_| fs::remove_dir_all(&made));
        // The host may have put a file into the folder under this name meanwhile. A stranger could not write
        // there, so this attacker does not either.
        if fs::symlink_metadata(&made).is_ok() {
            return;
        }
        let depth = if name.as_encoded_bytes().contains(&b'/') { "../.." } else { ".." };
        let _ = match self.below(8) {
            0 | 1 => fs::write(&made, "input"),
            2 => symlink(format!("{depth}/canary"), &made),
            3 => symlink(format!("{depth}/outside"), &made),
            4 => fs::hard_link(place.path("canary"), &made),
            5 => rustix::fs::mknodat(CWD, &made, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
                .map_err(std::io::Error::from),
            6 => symlink("/dev/zero", &made),
            _ => {
                // The folder is open to all, as `d` is: the host would believe one that only this user may
                // write to.
                let made_for_all = fs::create_dir(&made)
                    .and_then(|()| fs::set_permissions(&made, Permissions::from_mode(0o777)));
                made_for_all.and_then(|()| fs::write(made.join("a"), "input"))
            }
        };
        // The folder may be a link by now, and the attacker itself must not follow it.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let (folder, name) = match name.to_str().and_then(|name| name.split_once('/')) {
            Some((folder, name)) => (d.join(folder), name.into()),
            None => (d, name),
        };
        let Ok(folder) = rustix::fs::open(folder, flags, Mode::empty()) else { return };
        let exchanged = rustix::fs::renameat_with(CWD, &made, &folder, &name, RenameFlags::EXCHANGE);
        let _ = exchanged.or_else(|_| rustix::fs::renameat(CWD, &made, &folder, &name));
        // The name is removed again, perhaps while the host counts the file's names.
        if self.below(4) == 0 {
            let _ = rustix::fs::unlinkat(&folder, &name, AtFlags::empty());
        }
    }
}

/// Replaces names while `round` runs as often as `rounds()` says.
fn under_attack(cage: &Cage, seed: u64, mut round: impl FnMut(u64)) {
    let goes_on = AtomicBool::new(true);
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut attacker = Attacker { cage, random: seed };
            while goes_on.load(Ordering::Relaxed) {
                attacker.swap();
            }
        });
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for number in 0..rounds() {
                round(number);
                assert!(began.elapsed() < PATIENCE, "round {number} is not to be this late");
            }
        }));
        goes_on.store(false, Ordering::Relaxed);
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
    cage.assert_untouched();
}

fn seed() -> u64 {
    let seed = u64::from(std::process::id()) << 20 | 1;
    println!("seed {seed}");
    seed
}

/// Checks that whatever was opened is an input of the folder.
fn check(opened: Result<impl std::io::Read, OpenError>) -> bool {
    let Ok(mut file) = opened else { return false };
    let mut text = String::new();
    file.read_to_string(&mut text).expect("is a regular file");
    assert!(text.is_empty() || text.starts_with("input"), "{text}");
    true
}

#[test]
fn inputs_in_the_tasks_directory_are_never_what_lies_outside() {
    let cage = Cage::new();
    let files = cage.place.with_tasks();
    let d = cage.place.path("d");
    let mut read = 0;
    under_attack(&cage, seed(), |_| {
        read += u64::from(check(files.read(&d.join("a"))));
        read += u64::from(check(files.read(&d.join("sub/a"))));
        let folder = files.folder(&d).expect("is there");
        read += u64::from(check(folder.open_beneath(&files, Path::new("a"))));
        read += u64::from(check(folder.open_beneath(&files, Path::new("sub/a"))));
        for name in ["out", "sub/out"] {
            let path = d.join(name);
            files.append(&path, "a test").expect_err("is the tasks'");
            files.replace(&path, "a test").expect_err("is the tasks'");
            files.make_folder(&path, 0o777).expect_err("is the tasks'");
            files.read_own(&path, Finding::Stray).expect_err("is the tasks'");
        }
    });
    assert!(read > 0, "it has read something");
}

#[test]
fn files_in_a_folder_that_is_open_to_all_never_lead_out_of_it() {
    let cage = Cage::new();
    cage.place.open_to_all("d");
    let files = HostFiles::default();
    let d = cage.place.path("d");
    let folder = files.make_folder(&d, 0o777).expect("is there");
    let mut done = 0;
    under_attack(&cage, seed() ^ 0xff00, |number| {
        check(files.read(&d.join("a")));
        check(files.read_own(&d.join("a"), Finding::Stray));
        check(folder.open_beneath(&files, Path::new("sub/a")));
        let outputs = [files.replace(&d.join("out"), "a test"), folder.append(OsStr::new("out.1"))];
        for mut output in outputs.into_iter().flatten() {
            assert!(output.is_regular);
            done += u64::from(output.file.write_all(b"input from the host\n").is_ok());
        }
        if let Ok(mut output) = files.append(&d.join("out"), "a test") {
            done += u64::from(output.is_regular && output.file.write_all(b"input\n").is_ok());
        }
        done += u64::from(folder.put("out", "unfinished", b"input").is_ok());
        let _ = folder.rename("out", "out.1");
        // This is not tried beneath `sub`: the host trusts a folder of its own user's, and this attacker is
        // that user.
        if let Ok(made) = files.make_folder(&d.join("own/made"), 0o700) {
            let _ = made.put("x", "new", b"input");
        }
        if number % 64 == 0 {
            for entry in folder.entries().expect("lists") {
                let _ = folder.remove_file(&entry.name).or_else(|_| fs::remove_dir_all(d.join(&entry.name)));
            }
        }
    });
    assert!(done > 0, "it has written something");
}
