//! Places that lack something: locks, a home, the right to look at a folder. The command does what it can there, and
//! says what it cannot.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use crate::files::{Place, is_root};
use crate::harness::{Ended, end, end_with, prebuilt};

/// This user has no rights in any of these places.
const STRANGER: u32 = 1234;

/// Makes every flock(2) of the command and its children fail with this error, as on a file system without locks.
fn without_locks(command: &mut Command, errno: i32) {
    let architecture = TargetArch::try_from(std::env::consts::ARCH).expect("is supported");
    let answer = SeccompAction::Errno(errno.unsigned_abs());
    let rules = [(libc::SYS_flock, Vec::new())].into();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, architecture);
    let program = filter.and_then(BpfProgram::try_from).expect("a filter");
    let install = move || {
        let filter =
            libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut().cast() };
        // SAFETY: only the second call takes a pointer, to a valid program in the kernel's layout, which the kernel
        // copies. Root needs no `no_new_privs` for it, and workers would inherit that.
        let refused = unsafe {
            (libc::getuid() != 0 && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) != 0
        };
        if refused { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: the closure makes system calls, which are safe between fork and exec.
    unsafe { command.pre_exec(install) };
}

#[test]
fn where_nothing_can_be_locked_a_map_works_and_says_so() {
    for errno in [libc::ENOLCK, libc::EOPNOTSUPP, libc::ENOSYS] {
        let place = Place::new();
        let map = |words: &[&str], stdin: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_wasmpool"));
            command.env_clear().current_dir(place.folder.path()).arg("map").arg(prebuilt("primes"));
            command.args(["count", "--cache-dir", "cache"]).args(words);
            without_locks(&mut command, errno);
            end_with(&mut command, stdin)
        };
        let first = map(&["--joblog", "jobs", "--output-dir", "out", "--log-file", "log"], "10\n").expect(0);
        first.says("the job log jobs cannot be locked").says("the folder out cannot be locked");
        assert_eq!(fs::read_to_string(place.path("out/1.json")).expect("is there"), "4\n");
        let again = map(&["--joblog", "jobs", "--resume"], "10\n20\n").expect(0);
        assert_eq!(again.json_lines().len(), 1, "the other one is done");
        again.says("cannot be locked").says("1 done before");
        // The cache keeps what it stores, and what others may be storing.
        let others = place.path("cache/.0123456789abcdef0123456789abcdef.new");
        fs::write(&others, "half").expect("writes");
        let names = || fs::read_dir(place.path("cache")).expect("lists").count();
        let before = names();
        assert!(before >= 2, "the module, and what others store");
        map(&[], "10\n").expect(0);
        assert_eq!(
            (names(), others.exists()),
            (before, true),
            "nothing is compiled again, and nothing is swept"
        );
    }
}

#[test]
fn a_job_log_can_be_what_a_shell_puts_in_its_place() {
    let place = Place::new();
    let script = r#"printf '10\n20\n' | "$0" map "$1" count --lines --no-cache --joblog >(cat >copy; echo >done)
        code=$?; until [ -e done ]; do :; done; exit $code"#;
    let mut shell = Command::new("timeout");
    shell.args(["50", "bash", "-c", script, env!("CARGO_BIN_EXE_wasmpool")]).arg(prebuilt("primes"));
    end(shell.current_dir(place.folder.path())).expect(0);
    let copy = fs::read_to_string(place.path("copy")).expect("is there");
    assert_eq!(copy.lines().count(), 3, "{copy}");
}

/// The command where `variable` says so, in its own working directory, as another user if one is given.
fn run_with(place: &Place, variables: &[(&str, &Path)], user: Option<u32>) -> Ended {
    let mut command = Command::new(place.path("wasmpool"));
    command.env_clear().envs(variables.iter().copied()).current_dir(place.folder.path());
    command.arg("run").arg(place.path("primes.wasm")).args(["count", "--input", "10"]);
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    end(&mut command)
}

/// A place with the program and a module that everybody can read.
fn open_place() -> Place {
    let place = Place::new();
    fs::copy(env!("CARGO_BIN_EXE_wasmpool"), place.path("wasmpool")).expect("copies");
    fs::copy(prebuilt("primes"), place.path("primes.wasm")).expect("copies");
    place
}

#[test]
fn where_settings_and_cache_would_be_and_nothing_can_be_there_is_none() {
    let place = open_place();
    // The user may not enter this folder.
    fs::create_dir(place.path("closed")).expect("makes");
    let mode =
        |mode| fs::set_permissions(place.path("closed"), Permissions::from_mode(mode)).expect("has a mode");
    mode(0o000);
    symlink("loop", place.path("loop")).expect("links");
    let user = is_root().then_some(STRANGER);
    let long = "a".repeat(300);
    let paths =
        ["canary", "canary/x", "closed", "closed/x", "loop", "loop/x", "nowhere", "nowhere/x", &*long];
    let mut paths: Vec<_> = paths.iter().map(|path| place.path(path)).collect();
    paths.extend(["/", "/dev/null", "/proc", "relative", ""].map(Into::into));
    for path in &paths {
        let config = [("XDG_CONFIG_HOME", path.as_path())];
        let all = [("HOME", path.as_path()), ("XDG_CACHE_HOME", path), ("XDG_CONFIG_HOME", path)];
        for variables in [&all[..1], &all[1..2], &config[..], &all[..]] {
            let ended = run_with(&place, variables, user);
            assert_eq!((ended.code, &*ended.text()), (0, "4\n"), "{variables:?}: {}", ended.stderr);
            // Nobody has asked for a cache there.
            assert!(ended.stderr.is_empty(), "{variables:?}: {}", ended.stderr);
        }
    }
    mode(0o755);
    let left = fs::read_dir(place.path("closed")).expect("lists").count();
    assert!(left == 0 && !place.path("nowhere").exists() && !place.path("relative").exists());
}

#[test]
fn root_leaves_nothing_of_its_own_in_anothers_home() {
    if !is_root() {
        // Only root can be in a home that is not its own.
        return;
    }
    let place = open_place();
    let home = place.path("home");
    fs::create_dir(&home).expect("makes");
    chown(&home, Some(STRANGER), Some(STRANGER)).expect("gives");
    // The user itself makes its cache there.
    run_with(&place, &[("HOME", &home)], Some(STRANGER)).expect(0);
    let listed = || {
        let mut command = Command::new("find");
        command.arg(&home).args(["-printf", "%P %U:%G %m %i\n"]);
        let mut lines: Vec<_> = end(&mut command).expect(0).text().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let before = listed();
    assert!(before.len() > 3, "{before:?}");
    let cache = home.join(".cache");
    for variables in [&[("HOME", &*home)][..], &[("HOME", &*home), ("XDG_CACHE_HOME", &*cache)]] {
        run_with(&place, variables, None).expect(0);
        assert_eq!(listed(), before);
    }
}
