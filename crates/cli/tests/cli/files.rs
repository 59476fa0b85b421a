//! The host opens no name that a task or another user can change, and never waits for a stranger.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{CWD, FileType, Mode};

use crate::harness::{Ended, end, end_with, ended, prebuilt, spawn, wasmpool, wat};

/// A command that puts a link in the place of `/d/NAME`, again and again: the name is its argument. It leads to a file
/// beside it, since tasks make no links that lead upwards.
/// It answers with `done` on stdout.
pub(crate) const SWAP_WAT: &str = r#"(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_symlink" (func $symlink (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_unlink_file" (func $unlink (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_rename" (func $rename (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "./000")
  (data (i32.const 16) ".swap")
  (data (i32.const 32) "done\n")
  (data (i32.const 48) "\20\00\00\00\05\00\00\00")
  (func (export "_start") (local $name i32) (local $len i32) (local $left i32)
    (drop (call $sizes (i32.const 64) (i32.const 68)))
    (drop (call $args (i32.const 256) (i32.const 1024)))
    ;; The second argument ends where all of them end.
    (local.set $name (i32.load (i32.const 260)))
    (local.set $len (i32.sub (i32.sub (i32.add (i32.const 1024) (i32.load (i32.const 68))) (local.get $name)) (i32.const 1)))
    (local.set $left (i32.const 200))
    (loop $again
      (drop (call $unlink (i32.const 3) (i32.const 16) (i32.const 5)))
      (drop (call $symlink (i32.const 0) (i32.const 5) (i32.const 3) (i32.const 16) (i32.const 5)))
      (drop (call $rename (i32.const 3) (i32.const 16) (i32.const 5) (i32.const 3) (local.get $name) (local.get $len)))
      (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (drop (call $write (i32.const 1) (i32.const 48) (i32.const 1) (i32.const 80)))))"#;

/// A folder with a canary, a directory `d` for tasks that everybody may write to, and the module that swaps.
pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
    swap: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("has a mode");
        let swap = wat(folder.path(), "swap.wasm", SWAP_WAT);
        let place = Place { folder, swap };
        fs::write(place.path("canary"), "the canary").expect("writes");
        place.dir("d");
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn dir(&self, name: &str) {
        fs::create_dir_all(self.path(name)).expect("makes");
        fs::set_permissions(self.path(name), Permissions::from_mode(0o777)).expect("has a mode");
    }

    pub(crate) fn fifo(&self, name: &str) {
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(CWD, self.path(name), FileType::Fifo, mode, 0).expect("makes a pipe");
    }

    pub(crate) fn command(&self, verb: &str, module: impl AsRef<Path>, words: &[&str]) -> Command {
        let mut command = wasmpool(verb, module);
        command.current_dir(self.folder.path()).args(words);
        command
    }

    pub(crate) fn assert_canary(&self) {
        assert_eq!(fs::read_to_string(self.path("canary")).expect("is there"), "the canary");
    }
}

#[test]
fn no_file_of_the_hosts_lies_where_tasks_may_write() {
    let place = Place::new();
    place.dir("d/sub");
    symlink("d/sub", place.path("into")).expect("links");
    fs::write(place.path("d/wasmpool.toml"), "timeout = \"1s\"\n").expect("writes");
    let map = |words: &[&str]| {
        let mut command = place.command("map", &place.swap, &["--lines", "--dir", "d:/d:rw"]);
        end_with(command.args(words).args(["--", "x"]), "1\n")
    };
    let refused = |ended: Ended| {
        ended.expect(2).says("tasks may write to");
        assert!(!place.path("d/x").exists(), "nothing has run");
    };
    for path in ["d", "d/new", "d/sub", "into", "into/new", "d/sub/.."] {
        refused(map(&["--output-dir", path]));
    }
    for path in ["d/f", "d/sub/f", "into/f", "d/../d/f"] {
        for flag in ["--joblog", "--log-file", "--profile", "--trace"] {
            refused(map(&[flag, path]));
        }
    }
    refused(map(&["--config", "d/wasmpool.toml"]));
    for dir in ["d/cache", "into/cache", "."] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wasmpool"));
        command.env_clear().current_dir(place.folder.path()).arg("map").arg(&place.swap);
        refused(end_with(command.args(["--dir", "d:/d:rw", "--cache-dir", dir, "--", "x"]), "1\n"));
    }
    let names: Vec<_> = fs::read_dir(place.path("d")).expect("lists").flatten().collect();
    assert_eq!(names.len(), 2, "{names:?}");
    // Outside of the tasks' directory all options work, even if that lies beneath.
    let words =
        ["--output-dir", ".", "--joblog", "jobs", "--log-file", "log", "--profile", "p", "--trace", "t"];
    map(&words).expect(0);
    assert_eq!(fs::read_to_string(place.path("1.out")).expect("is there"), "done\n");
    place.assert_canary();
}

#[test]
fn an_input_that_a_task_replaces_is_an_error_of_that_input() {
    let place = Place::new();
    place.dir("in");
    let inputs = 400;
    for number in 0..inputs {
        fs::write(place.path(&format!("in/{number:03}")), "input").expect("writes");
    }
    // The first task turns the last file into a link; files are read ahead, but not as far as that one.
    let words = ["--files", "in", "--dir", "in:/d:rw", "--workers", "1", "--timeout", "30s", "--", "399"];
    let ended = end(&mut place.command("map", &place.swap, &words)).expect(4);
    let lines = ended.json_lines();
    let is_refused = |line: &serde_json::Value| line["error"]["kind"] == "input";
    assert!(lines.iter().any(is_refused), "{}", ended.stderr);
    assert!(!ended.text().contains("canary") && lines.len() >= inputs, "{} lines", lines.len());
    place.assert_canary();
}

#[test]
fn a_pipe_among_inputs_keeps_nobody_waiting() {
    let place = Place::new();
    place.dir("in");
    fs::write(place.path("in/a"), "one two").expect("writes");
    place.fifo("in/.gitignore");
    place.fifo("in/b");
    let module = prebuilt("word_count");
    let ended = end(&mut place.command("map", &module, &["count", "--files", "in"])).expect(0);
    assert_eq!(ended.json_lines().len(), 1);
    // Somebody else could have put this pipe there, so naming it does not help.
    let ended = end(&mut place.command("map", &module, &["count", "--files", "in/a", "in/b"])).expect(4);
    ended.says("it is a pipe, and no regular file");
    end(&mut place.command("run", &module, &["count", "--input-file", "in/b"])).expect(2);
    end(&mut place.command("run", place.path("in/b"), &["count"])).expect(3);
}

#[test]
fn what_somebody_names_may_be_a_link_or_a_pipe_of_their_own() {
    let place = Place::new();
    fs::write(place.path("text"), "one two").expect("writes");
    fs::create_dir(place.path("own")).expect("makes");
    symlink("../text", place.path("own/link")).expect("links");
    symlink(prebuilt("word_count"), place.path("own/module.wasm")).expect("links");
    let mut command =
        place.command("run", place.path("own/module.wasm"), &["count", "--input-file", "own/link"]);
    assert_eq!(end(&mut command).expect(0).json()["words"], 2);
    let mut command = place.command("map", prebuilt("word_count"), &["count", "--files", "own/link"]);
    assert_eq!(end(&mut command).expect(0).json_lines()[0]["output"]["words"], 2);
    // A shell's process substitution names a pipe, here for the module and for its input.
    let script = "\"$0\" run <(cat \"$1\") count --input-file <(printf 'a b c') --no-cache";
    let mut shell = Command::new("bash");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_wasmpool")]).arg(prebuilt("word_count"));
    assert_eq!(end(&mut shell).expect(0).json()["words"], 3);
    let module = fs::read(prebuilt("word_count")).expect("reads");
    let mut command = place.command("run", "/dev/stdin", &["count", "--input", "\"a\""]);
    assert_eq!(end_with(&mut command, module).expect(0).json()["words"], 1);
    // A device can be written to.
    let mut command = place.command("map", prebuilt("primes"), &["count", "--joblog", "/dev/stdout"]);
    let text = end_with(&mut command, "10\n").expect(0).text();
    assert!(text.contains("Seq\tHost\t") && text.contains("\"output\":4"), "{text}");
}

#[test]
fn in_a_folder_that_is_open_to_all_nothing_is_followed() {
    let place = Place::new();
    let files = ["--joblog", "--log-file", "--profile", "--trace"];
    for flag in files {
        symlink("../canary", place.path("d").join(flag)).expect("links");
    }
    for flag in files {
        let path = format!("d/{flag}");
        let mut command = place.command("map", prebuilt("primes"), &["count", "--resume", flag, &path]);
        if flag != "--joblog" {
            command = place.command("map", prebuilt("primes"), &["count", flag, &path]);
        }
        let code = end_with(&mut command, "10\n").code;
        assert_eq!(code, 2, "{flag}");
        assert!(fs::symlink_metadata(place.path(&path)).expect("is there").is_symlink());
        place.assert_canary();
    }
    let mut command = place.command("map", prebuilt("primes"), &["count", "--output-dir", "d"]);
    symlink("../canary", place.path("d/1.json")).expect("links");
    let ended = end_with(&mut command, "10\n20\n").expect(4);
    ended.says("d/1.json is a symbolic link: an output is neither written through one");
    assert_eq!(fs::read_to_string(place.path("d/2.json")).expect("is there"), "8\n");
    place.assert_canary();
}

#[test]
fn two_maps_do_not_share_a_folder_of_outputs() {
    let place = Place::new();
    let map = || place.command("map", prebuilt("primes"), &["count", "--output-dir", "out"]);
    let mut first = spawn(map().stdin(Stdio::piped()));
    let mut stdin = first.stdin.take().expect("a pipe");
    stdin.write_all(b"10\n").expect("reads");
    crate::harness::eventually("the first to have written there", || place.path("out/1.json").exists());
    end_with(&mut map(), "10\n").expect(2).says("in use by another wasmpool");
    drop(stdin);
    ended(first).expect(0);
    end_with(&mut map(), "10\n").expect(0);
    // The leftover of a map that was killed is removed.
    let left = place.path("out/.0123456789abcdef0123456789abcdef.unfinished");
    fs::write(&left, "half").expect("writes");
    end_with(&mut map(), "10\n").expect(0);
    assert!(!left.exists());
}

#[test]
fn a_job_log_among_the_inputs_is_none_of_them() {
    let place = Place::new();
    for name in ["a.txt", "b.txt"] {
        fs::write(place.path(name), "one").expect("writes");
    }
    let map = |words: &[&str]| {
        let mut command = place.command("map", prebuilt("word_count"), &["count", "--joblog", "jobs"]);
        end(command.args(words))
    };
    map(&["--files", "a.txt", "b.txt"]).expect(0);
    let again = map(&["--resume", "--files", "a.txt", "jobs", "b.txt"]).expect(0);
    again.says("warning: jobs is no input").says("2 done before");
}

#[test]
fn a_job_log_can_be_a_pipe_or_a_device_and_says_what_it_cannot_do() {
    let place = Place::new();
    place.fifo("pipe");
    let map = |words: &[&str]| {
        let mut command = place.command("map", prebuilt("primes"), &["count", "--joblog"]);
        end_with(command.args(words), "10\n")
    };
    let reader = std::thread::spawn({
        let pipe = place.path("pipe");
        move || fs::read_to_string(pipe).expect("reads")
    });
    map(&["pipe"]).expect(0);
    let text = reader.join().expect("ends");
    assert_eq!(text.lines().count(), 2, "{text}");
    map(&["/dev/null"]).expect(0);
    map(&["/dev/full"]).expect(5).says("cannot write to the job log /dev/full: No space left");
    map(&["/dev/null", "--resume"]).expect(2).says("is no regular file");
    // Nobody reads from the pipe.
    map(&["pipe"]).expect(2).says("nobody has opened it to read");
}

#[test]
fn a_stray_settings_file_only_lowers_and_is_never_waited_for_or_quoted() {
    let place = Place::new();
    let file = place.path("wasmpool.toml");
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wasmpool"));
        command.env_clear().current_dir(place.folder.path()).args(words);
        end(&mut command)
    };
    let version = || {
        for words in [&["--version"][..], &["--help"], &["run", "--help"], &["help", "map"]] {
            run(words).expect(0);
        }
    };
    for line in [
        "memory = \"16GiB\"",
        "timeout = \"2h\"",
        "output-limit = \"1GiB\"",
        "workers = 1000",
        "log-rate = \"1GiB\"",
        "compile-memory = \"1TiB\"",
        "log-limit = \"1GiB\"",
        "stop-grace = \"1h\"",
    ] {
        fs::write(&file, line).expect("writes");
        run(&["config"]).expect(2).says("may only be lowered");
        version();
    }
    for line in ["log-keep = 0", "log-rotate = \"size=1KiB\"", "cache-limit = 0", "engine-log = \"trace\""] {
        fs::write(&file, line).expect("writes");
        run(&["config"]).expect(2).says("is not taken from a file in the working directory");
    }
    for line in ["memory = \"1MiB\"", "timeout = \"1s\"", "workers = 1", "color = \"never\""] {
        fs::write(&file, line).expect("writes");
        run(&["config"]).expect(0);
    }
    for secret in
        ["root:$6$hunter2:1::", "PASSWORD = \"hunter2\"", "token_hunter2 = 1", "[hunter2]\nx = 1", "hunter2"]
    {
        fs::write(&file, secret).expect("writes");
        let refused = run(&["config"]).expect(2);
        assert!(
            !refused.stderr.contains("hunter2") && !refused.stderr.contains("PASSWORD"),
            "{}",
            refused.stderr
        );
    }
    fs::remove_file(&file).expect("is there");
    fs::write(place.path("secret"), "timeout = \"1s\"").expect("writes");
    symlink("secret", &file).expect("links");
    run(&["config"]).expect(2).says("is a symbolic link");
    version();
    fs::remove_file(&file).expect("is there");
    fs::hard_link(place.path("secret"), &file).expect("links");
    run(&["config"]).expect(2).says("second name");
    fs::remove_file(&file).expect("is there");
    place.fifo("wasmpool.toml");
    run(&["config"]).expect(2).says("it is a pipe");
    version();
    // A file that is named on the command line may be a link.
    fs::remove_file(&file).expect("is there");
    symlink("secret", &file).expect("links");
    run(&["config", "--config", "wasmpool.toml"]).expect(0);
    run(&["config", "--config", "/dev/null"]).expect(0);
}

/// Returns whether this test may become somebody else.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn what_may_not_be_looked_at_is_not_there_and_nothing_is_made_outside_of_a_home() {
    use std::os::unix::process::CommandExt as _;
    let place = Place::new();
    // The user's own program lies in a folder that is open to all.
    let program = place.path("wasmpool");
    fs::copy(env!("CARGO_BIN_EXE_wasmpool"), &program).expect("copies");
    let module = place.path("primes.wasm");
    fs::copy(prebuilt("primes"), &module).expect("copies");
    let run = |home: &Path, here: &Path, user: Option<u32>| {
        let mut command = Command::new(&program);
        command.env_clear().env("HOME", home).current_dir(here);
        command.arg("run").arg(&module).args(["count", "--input", "10"]);
        if let Some(user) = user {
            // The user changes after the working directory was entered.
            // SAFETY: neither call takes a pointer.
            let become_user = move || match unsafe { libc::setgid(user) | libc::setuid(user) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            };
            // SAFETY: it makes two system calls, which are safe between fork and exec.
            unsafe { command.pre_exec(become_user) };
        }
        let ended = end(&mut command).expect(0);
        assert_eq!((&*ended.text(), &*ended.stderr), ("4\n", ""));
    };
    run(&place.path("nowhere/x"), place.folder.path(), None);
    assert!(!place.path("nowhere").exists());
    let home = place.path("home");
    fs::create_dir(&home).expect("makes");
    if is_root() {
        // This user may enter neither the home nor the working directory.
        let closed = place.path("closed");
        fs::create_dir(&closed).expect("makes");
        fs::set_permissions(&closed, Permissions::from_mode(0o700)).expect("has a mode");
        run(&closed, &closed, Some(1234));
        // The home is another user's, and root must leave nothing of its own in there.
        std::os::unix::fs::chown(&home, Some(1234), Some(1234)).expect("gives");
        run(&home, place.folder.path(), None);
        assert_eq!(fs::read_dir(&home).expect("lists").count(), 0);
        run(&home, place.folder.path(), Some(1234));
    } else {
        run(&home, place.folder.path(), None);
    }
    assert!(home.join(".cache/wasmpool").is_dir());
}

#[test]
fn the_cache_is_kept_within_its_limit() {
    let place = Place::new();
    let run = |name: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wasmpool"));
        command.env_clear().current_dir(place.folder.path()).args(["inspect", "--cache-dir", "cache"]);
        end(command.args(["--json", "--cache-limit", "100KiB"]).arg(place.path(name))).expect(0).json()
    };
    for number in 0..12 {
        let padding = "a".repeat(2_000);
        let text =
            format!("(module (memory 1) (data (i32.const {number}) \"{padding}\") (func (export \"f\")))");
        wat(place.folder.path(), &format!("{number}.wasm"), &text);
        run(&format!("{number}.wasm"));
        let files = fs::read_dir(place.path("cache")).expect("lists").flatten();
        let bytes: u64 = files.map(|file| file.metadata().expect("is there").len()).sum();
        assert!(bytes <= 100 * 1024, "{bytes}");
    }
    assert_eq!(run("11.wasm")["from_cache"], true);
    assert_eq!(run("0.wasm")["from_cache"], false);
}
