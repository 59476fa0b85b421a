//! Ways into and out of the command by names: links that a task has left, and its own descriptors; outputs that meet
//! something that is there.

use std::fs::{self, Permissions};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::files::Place;
use crate::harness::{Ended, end, end_with, ended, prebuilt, wat};

/// A command that makes links, target and name by turns, as its arguments say. It ends with the last one's errno.
const LINK_WAT: &str = r#"(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_symlink" (func $symlink (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func $len (param $at i32) (result i32) (local $n i32)
    (loop $more
      (if (i32.load8_u (i32.add (local.get $at) (local.get $n)))
        (then (local.set $n (i32.add (local.get $n) (i32.const 1))) (br $more))))
    (local.get $n))
  (func (export "_start") (local $target i32) (local $name i32)
    (drop (call $sizes (i32.const 64) (i32.const 68)))
    (drop (call $args (i32.const 256) (i32.const 1024)))
    (local.set $target (i32.load (i32.const 260)))
    (local.set $name (i32.load (i32.const 264)))
    (call $exit (call $symlink (local.get $target) (call $len (local.get $target)) (i32.const 3)
      (local.get $name) (call $len (local.get $name))))))"#;

const PERM: i32 = 63;

/// The ordinary user that this test becomes where it is root.
const USER: u32 = 1234;

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns the users as whom commands are run: this one, and an ordinary one where that can be had.
pub(crate) fn users() -> &'static [Option<u32>] {
    if is_root() { &[None, Some(USER)] } else { &[None] }
}

/// A place that belongs to a user, with a program that they can run.
pub(crate) struct Home {
    pub(crate) place: Place,
    user: Option<u32>,
}

impl Home {
    pub(crate) fn new(user: Option<u32>) -> Home {
        let home = Home { place: Place::new(), user };
        fs::copy(env!("CARGO_BIN_EXE_wasmpool"), home.place.path("wasmpool")).expect("copies");
        for guest in ["primes", "word_count"] {
            fs::copy(prebuilt(guest), home.place.path(guest)).expect("copies");
        }
        for name in ["outside", "home"] {
            fs::create_dir(home.place.path(name)).expect("makes");
        }
        fs::remove_dir(home.place.path("d")).expect("is there");
        fs::create_dir(home.place.path("d")).expect("makes");
        fs::write(home.place.path("outside/canary"), "the canary").expect("writes");
        for name in ["", "outside", "outside/canary", "canary", "d", "home"] {
            home.give(name);
        }
        home
    }

    pub(crate) fn give(&self, name: &str) {
        if let Some(user) = self.user {
            std::os::unix::fs::lchown(self.place.path(name), Some(user), Some(user)).expect("gives");
        }
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.place.path("wasmpool"));
        command.env_clear().env("HOME", self.place.path("home")).current_dir(self.place.folder.path());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command.args(words);
        command
    }

    pub(crate) fn shell(&self, script: &str) -> Ended {
        let mut command = Command::new("bash");
        command
            .args(["-c", script])
            .current_dir(self.place.folder.path())
            .env("HOME", self.place.path("home"));
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        end(&mut command)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.place.path(name)).expect(name)
    }
}

#[test]
fn a_link_that_a_task_leaves_leads_no_later_command_out() {
    for user in users() {
        let home = Home::new(*user);
        wat(home.place.folder.path(), "link.wasm", LINK_WAT);
        fs::write(home.place.path("cases.toml"), "module = 'word_count'\n[[case]]\nname = 'a'\ninput = 'a'")
            .expect("writes");
        let linked = "module = 'word_count'\n[[case]]\nname = 'input'\ninput_file = 'd/f'\noutput_file = 'd/up/canary'\n\
                      [[case]]\nname = 'module'\noutput_file = 'd/f'\ninput = 'a'";
        fs::write(home.place.path("linked.toml"), linked).expect("writes");
        home.give("cases.toml");
        home.give("linked.toml");
        let absolute = home.place.path("outside").display().to_string();
        let targets = [
            ("..", "up"),
            ("../canary", "f"),
            ("../outside", "o"),
            ("sub/../../canary", "f"),
            ("./../outside/canary", "f"),
            (&*absolute, "o"),
        ];
        for (target, name) in targets {
            // A worker of root's without the sandbox has root's name, as an ordinary user's has theirs.
            let mut words = vec!["run", "link.wasm", "--no-cache", "--dir", "d:/d:rw"];
            if user.is_none() {
                words.extend(["--sandbox", "off"]);
            }
            words.extend(["--", target, name]);
            end(&mut home.command(&words)).expect(PERM);
        }
        for words in [
            &["run", "word_count", "count", "--input-file", "d/f"][..],
            &["run", "word_count", "count", "--input-file", "d/up/canary"],
            &["run", "d/o/canary", "count"],
            &["test", "d/f"],
            &["test", "d/o/cases.toml"],
            &["test", "cases.toml", "--share", "d/f"],
            &["test", "linked.toml", "input"],
            &["test", "linked.toml", "module"],
            &["run", "word_count", "count", "--input", "\"a\"", "--share", "d/f"],
            &["run", "word_count", "count", "--input", "\"a\"", "--config", "d/f"],
            &["map", "word_count", "count", "--files", "d/f", "d/o", "d/up/outside"],
            &["map", "word_count", "count", "--output-dir", "d/o"],
            &["map", "word_count", "count", "--output-dir", "d/up/outside/new"],
            &["map", "word_count", "count", "--joblog", "d/o/jobs"],
            &["map", "word_count", "count", "--log-file", "d/o/log"],
            &["run", "word_count", "count", "--input", "\"a\"", "--profile", "d/o/profile"],
            &["run", "word_count", "count", "--input", "\"a\"", "--output", "d/o/result"],
            &["run", "word_count", "count", "--input", "\"a\"", "--trace", "d/up/outside/trace"],
            &["run", "link.wasm", "--dir", "d/o:/o:rw", "--", "x", "made"],
        ] {
            let ended = end_with(home.command(words).arg("--no-cache"), "a\n");
            // A file to write may be made beneath `d`, where there is no link; a file to read is not there.
            let is_read =
                ["--input-file", "--share", "--config", "--files"].iter().any(|flag| words.contains(flag));
            let expected: &[i32] = match words[0] {
                // A case whose file cannot be read fails.
                "test" => &[1, 2],
                _ if is_read => &[2, 3],
                _ => &[0, 2, 3],
            };
            assert!(expected.contains(&ended.code), "{words:?}: {}: {}", ended.code, ended.stderr);
            assert!(!ended.text().contains("\"words\":2"), "{words:?}: {}", ended.text());
        }
        let words = ["run", "word_count", "count", "--input", "\"a\"", "--cache-dir", "d/o/cache"];
        end(&mut home.command(&words));
        home.place.assert_canary();
        let names: Vec<_> = fs::read_dir(home.place.path("outside")).expect("lists").flatten().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        assert_eq!(home.read("outside/canary"), "the canary");
    }
}

#[test]
fn a_descriptors_name_works_for_pipes_sockets_and_files_and_overwrites_nothing() {
    for user in users() {
        let home = Home::new(*user);
        let map = "./wasmpool map primes count --no-cache --quiet";
        symlink("/dev/stdout", home.place.path("to-stdout")).expect("links");
        home.give("to-stdout");
        // One position for the results and the log, before, behind and between what others write.
        for name in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "to-stdout", "/dev/fd/3"] {
            let script =
                format!("exec > f 3>&1; echo before; seq 10 12 | {map} --joblog {name}; echo behind");
            home.shell(&script).expect(0);
            let text = home.read("f");
            let lines: Vec<_> = text.lines().collect();
            assert_eq!((lines.len(), lines[0], lines[8]), (9, "before", "behind"), "{name}: {text}");
            assert!(lines.iter().filter(|line| line.contains("\"output\":")).count() == 3, "{name}: {text}");
        }
        for option in ["--trace", "--profile"] {
            let text = home.shell(&format!("seq 3 | {map} {option} to-stdout | cat")).expect(0).text();
            assert!(
                text.contains("\"output\":") && (text.contains("\"ph\":") || text.contains("speedscope"))
            );
            home.shell(&format!("seq 3 | {map} {option} >(cat > t; echo END >> t)")).expect(0);
            crate::harness::eventually("the other end of the pipe", || home.read("t").ends_with("END\n"));
        }
        let link = fs::symlink_metadata(home.place.path("to-stdout")).expect("is there");
        assert!(link.is_symlink(), "it is what it was");
        for script in [
            "./wasmpool run /dev/stdin count --input 10 < primes",
            "cat primes | ./wasmpool run /dev/stdin count --input 10",
            "./wasmpool run <(cat primes) count --input-file <(echo 10)",
            "./wasmpool run primes count --input-file /dev/fd/7 7< <(echo 10)",
            "(read; ./wasmpool run primes count --input-file /dev/stdin) < <(echo 99; echo 10)",
            "./wasmpool run primes count --input 10 --trace /dev/null --log-file /dev/stderr",
        ] {
            assert_eq!(home.shell(script).expect(0).text(), "4\n", "{script}");
        }
        home.shell("./wasmpool run primes count --input 10 --trace /dev/fd/9 9>&-")
            .expect(2)
            .says("this process was given no descriptor 9");
        home.shell("seq 3 | ./wasmpool map primes count --trace /dev/full").expect(5).says("No space left");
    }
}

#[test]
fn a_socket_in_the_place_of_stdout_is_written_to_at_once() {
    for user in users() {
        let home = Home::new(*user);
        for option in ["--joblog", "--trace", "--profile", "--log-file"] {
            let (mut mine, theirs) = UnixStream::pair().expect("a pair");
            let began = std::time::Instant::now();
            let mut command =
                home.command(&["map", "primes", "count", "--no-cache", option, "/dev/stdout", "-vv"]);
            fs::write(home.place.path("in"), "10\n").expect("writes");
            command.stdin(Stdio::from(fs::File::open(home.place.path("in")).expect("opens")));
            command.stdout(Stdio::from(OwnedFd::from(theirs))).stderr(Stdio::piped());
            let child = command.spawn().expect("starts");
            drop(command);
            let mut text = String::new();
            mine.read_to_string(&mut text).expect("reads");
            ended(child).expect(0);
            assert!(
                !text.is_empty() && began.elapsed() < std::time::Duration::from_secs(8),
                "{option}: {text}"
            );
        }
    }
}

#[test]
fn in_a_user_namespace_devices_and_descriptors_are_as_ever() {
    let script = "echo 10 | ./wasmpool map primes count --no-cache --quiet";
    let home = Home::new(users().last().copied().flatten());
    if home.shell("unshare -r true").code != 0 {
        // The system does not let this user have one.
        return;
    }
    for words in [
        "--joblog /dev/null",
        "--trace /dev/null --profile /dev/null",
        "--log-file /dev/stderr",
        "--joblog /dev/stdout",
        "--trace >(cat > t)",
    ] {
        let ended = home.shell(&format!("{script} {words}").replace("./wasmpool", "unshare -r ./wasmpool"));
        assert!(ended.expect(0).text().contains("\"output\":4"), "{words}");
    }
    let run = "cat primes | unshare -r ./wasmpool run /dev/stdin count --input-file <(echo 10) --no-cache";
    assert_eq!(home.shell(run).expect(0).text(), "4\n");
}

#[test]
fn what_is_replaced_keeps_its_mode_and_what_may_not_be_written_stays() {
    for user in users() {
        let home = Home::new(*user);
        for option in ["--profile", "--trace"] {
            let run = |name: &str| {
                end(&mut home.command(&[
                    "run",
                    "primes",
                    "count",
                    "--input",
                    "10",
                    "--no-cache",
                    option,
                    name,
                ]))
            };
            fs::write(home.place.path("p"), "before").expect("writes");
            fs::set_permissions(home.place.path("p"), Permissions::from_mode(0o600)).expect("has a mode");
            home.give("p");
            run("p").expect(0);
            let after = fs::metadata(home.place.path("p")).expect("is there");
            assert_eq!((after.mode() & 0o777, after.uid()), (0o600, user.unwrap_or(after.uid())));
            assert!(home.read("p").starts_with('{') || home.read("p").starts_with('['));
            if user.is_some() || !is_root() {
                fs::write(home.place.path("p"), "before").expect("writes");
                fs::set_permissions(home.place.path("p"), Permissions::from_mode(0o444)).expect("has a mode");
                run("p").expect(2).says("Permission denied");
                assert_eq!(home.read("p"), "before");
            }
            fs::remove_file(home.place.path("p")).expect("is there");
        }
    }
}

#[test]
fn an_output_that_replaces_another_keeps_its_mode_and_one_that_may_not_be_written_fails_its_input_only() {
    for user in users() {
        let home = Home::new(*user);
        fs::create_dir(home.place.path("out")).expect("makes");
        home.give("out");
        for (name, mode) in [("out/1.json", 0o600), ("out/2.json", 0o444)] {
            fs::write(home.place.path(name), "before").expect("writes");
            fs::set_permissions(home.place.path(name), Permissions::from_mode(mode)).expect("has a mode");
            home.give(name);
        }
        let mut command =
            home.command(&["map", "primes", "count", "--lines", "--no-cache", "--output-dir", "out"]);
        let ended = end_with(&mut command, "10\n10\n10\n");
        let mode = |name: &str| fs::metadata(home.place.path(name)).expect("is there").mode() & 0o777;
        assert_eq!((home.read("out/1.json").as_str(), mode("out/1.json")), ("4\n", 0o600));
        assert_eq!(home.read("out/3.json"), "4\n");
        assert_eq!(mode("out/2.json"), 0o444);
        if user.is_some() || !is_root() {
            ended.expect(4).says("may not write");
            assert_eq!(home.read("out/2.json"), "before");
        } else {
            // Root may write to it.
            ended.expect(0);
            assert_eq!(home.read("out/2.json"), "4\n");
        }
    }
}

#[test]
fn a_descriptor_that_the_command_opened_for_itself_is_nobodys_input() {
    let home = Home::new(None);
    for number in 3..16 {
        let path = format!("/dev/fd/{number}");
        let mut command = home.command(&["run", "word_count", "--no-cache", "--input-file", &path]);
        // The test's own shell, or cargo, may have given it some.
        if fs::metadata(format!("/proc/self/fd/{number}")).is_ok() {
            continue;
        }
        end(&mut command).expect(2).says(&format!("was given no descriptor {number}"));
    }
}

#[test]
fn one_file_is_not_two_outputs_or_an_output_and_an_input() {
    let place = Place::new();
    fs::copy(prebuilt("primes"), place.path("primes.wasm")).expect("copies");
    fs::write(place.path("in"), "10").expect("writes");
    let refused = |words: &[&str], what: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wasmpool"));
        command.env_clear().current_dir(place.folder.path()).args(words).arg("--no-cache");
        end_with(&mut command, "10\n").expect(2).says(what);
    };
    let run = ["run", "primes.wasm", "count"];
    let map = ["map", "primes.wasm", "count"];
    for (words, options, what) in [
        (run, &["--input", "10", "--profile", "x", "--trace", "x"][..], "it is the timeline of this command"),
        (map, &["--joblog", "x", "--log-file", "x"], "it is the log file of this command"),
        (map, &["--joblog", "y", "--log-file", "./d/../y"], "it is the log file of this command"),
        (map, &["--trace", "z", "--log-file", "z"], "it is the log file of this command"),
        (run, &["--input", "10", "--trace", "primes.wasm"], "it is the module of this command"),
        (run, &["--input-file", "in", "--profile", "in"], "it is the input of this command"),
        (run, &["--input", "10", "--share", "in", "--log-file", "in"], "it is a shared file of this command"),
        (map, &["--files", "in", "--profile", "in"], "in is an input, and would be replaced by the profile"),
    ] {
        refused(&[&words[..], options].concat(), what);
    }
    assert_eq!(
        fs::read(place.path("primes.wasm")).expect("reads"),
        fs::read(prebuilt("primes")).expect("reads")
    );
    assert_eq!(fs::read_to_string(place.path("in")).expect("reads"), "10");
}

#[test]
fn ones_own_file_in_a_drop_box_is_written_to() {
    let home = Home::new(users().last().copied().flatten());
    let drop_box = home.place.path("d");
    if is_root() {
        std::os::unix::fs::chown(&drop_box, Some(0), Some(0)).expect("gives");
    }
    fs::set_permissions(&drop_box, Permissions::from_mode(0o1733)).expect("has a mode");
    for options in [
        &["--joblog", "d/jobs", "--resume"][..],
        &["--log-file", "d/log"],
        &["--trace", "d/trace"],
        &["--profile", "d/profile"],
    ] {
        // The first makes it, the others find it.
        for _ in 0..2 {
            let words = [&["map", "primes", "count", "--no-cache"][..], options].concat();
            end_with(&mut home.command(&words), "10\n").expect(0);
        }
    }
}

#[test]
fn a_cache_in_the_tasks_directory_is_left_out_unless_it_was_asked_for() {
    let home = Home::new(None);
    fs::set_permissions(home.place.path("home"), Permissions::from_mode(0o777)).expect("has a mode");
    fs::set_permissions(home.place.folder.path(), Permissions::from_mode(0o777)).expect("has a mode");
    for dir in ["home:/d:rw", ".:/d:rw"] {
        let words = ["run", "primes", "count", "--input", "10", "--dir", dir];
        let ended = end(&mut home.command(&words)).expect(0);
        assert_eq!((&*ended.text(), ended.stderr.matches("warning").count()), ("4\n", 1), "{}", ended.stderr);
        ended.says("compiled modules are not kept").says("tasks may write to");
        assert!(!home.place.path("home/.cache").exists());
        let words = [&words[..], &["--cache-dir", "home/cache"]].concat();
        end(&mut home.command(&words)).expect(2).says("tasks may write to");
    }
    // The folder above the tasks' directory is not theirs, and the message does not say so.
    let words = ["run", "primes", "count", "--input", "10", "--dir", "d:/d:rw", "--cache-dir", "."];
    fs::set_permissions(home.place.path("d"), Permissions::from_mode(0o777)).expect("has a mode");
    end(&mut home.command(&words)).expect(2).says("a directory that tasks may write to lies in");
}

#[test]
fn errors_name_what_is_wrong() {
    let home = Home::new(users().last().copied().flatten());
    let run = |words: &[&str]| {
        let words = [&["run", "primes", "count", "--no-cache", "--input", "10"], words].concat();
        end(&mut home.command(&words)).expect(2)
    };
    run(&["--log-file", "none/log"]).says("its folder must be there");
    let closed = home.place.path("closed");
    fs::create_dir(&closed).expect("makes");
    fs::set_permissions(&closed, Permissions::from_mode(0o000)).expect("has a mode");
    if home.user.is_some() || !is_root() {
        let refused = run(&["--log-file", "closed/log"]).says("Permission denied");
        assert!(!refused.stderr.contains("must be there"), "{}", refused.stderr);
    }
    if is_root() {
        // Another user's link leads to what is not theirs: that, and not the folder, is what is wrong.
        let theirs = home.place.path("theirs");
        fs::create_dir(&theirs).expect("makes");
        symlink("../canary", theirs.join("link")).expect("links");
        for path in [&theirs, &theirs.join("link")] {
            std::os::unix::fs::lchown(path, Some(4321), Some(4321)).expect("gives");
        }
        let words = ["run", "word_count", "count", "--no-cache", "--input-file", "theirs/link"];
        let refused = end(&mut home.command(&words)).expect(2);
        refused.says("a symbolic link of user 4321 leads there, and it is not that user's");
    }
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).expect("has a mode");
    assert!(Path::new(&closed).exists());
}
