//! The command heeds and touches only what may be heeded and touched: settings that a stranger has left,
//! directories as the workers see them, and links to or from what the command writes.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::doors::{Home, is_root, users};
use crate::harness::{Ended, end, end_with, wat};

/// A user who is neither root nor the ordinary user of these tests.
const STRANGER: u32 = 4321;

/// A command that writes what `/d/f` holds to stdout, or ends with the errno.
const READER_WAT: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "f")
  (data (i32.const 16) "\40\00\00\00\40\00\00\00")
  (func (export "_start") (local $errno i32)
    (local.set $errno (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0)
      (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 32)))
    (if (local.get $errno) (then (call $exit (local.get $errno))))
    (drop (call $read (i32.load (i32.const 32)) (i32.const 16) (i32.const 1) (i32.const 36)))
    (i32.store (i32.const 20) (i32.load (i32.const 36)))
    (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 40)))))"#;

fn mode(home: &Home, name: &str, mode: u32) {
    fs::set_permissions(home.place.path(name), Permissions::from_mode(mode)).expect("has a mode");
}

fn give_to(home: &Home, name: &str, user: u32) {
    lchown(home.place.path(name), Some(user), Some(user)).expect("gives");
}

/// Returns what `wasmpool config` shows.
fn timeout(ended: &Ended) -> String {
    let line = ended.text().lines().find(|line| line.starts_with("timeout")).expect("is listed").to_string();
    line.split_whitespace().nth(1).expect("has a value").to_string()
}

/// The settings' file is left out, with one warning that says why.
#[track_caller]
fn assert_left_out(home: &Home, why: &str) {
    let ended = end(&mut home.command(&["config"])).expect(0);
    assert_eq!((timeout(&ended).as_str(), ended.stderr.lines().count()), ("1h", 1), "{}", ended.stderr);
    ended.says("wasmpool.toml is not read: ").says(why).says("--config");
    let quiet = end(&mut home.command(&["config", "--quiet"])).expect(0);
    assert_eq!(quiet.stderr, "");
}

#[test]
fn settings_that_a_stranger_can_have_written_are_left_out_and_stop_nothing() {
    for user in users() {
        let home = Home::new(*user);
        let write = |text: &str| {
            let _ = fs::remove_file(home.place.path("wasmpool.toml"));
            fs::write(home.place.path("wasmpool.toml"), text).expect("writes");
            home.give("wasmpool.toml");
        };
        write("timeout = \"1s\"");
        let own = end(&mut home.command(&["config"])).expect(0);
        assert_eq!((timeout(&own).as_str(), &*own.stderr), ("1s", ""), "its owner's own file counts");
        mode(&home, "wasmpool.toml", 0o646);
        assert_left_out(&home, "every user may write to it");
        mode(&home, "wasmpool.toml", 0o644);
        for open in [0o777, 0o1777] {
            mode(&home, "", open);
            for text in ["timeout = \"1s\"", "timeout = \"9h\"", "no settings", "log-keep = 0"] {
                write(text);
                assert_left_out(&home, "every user may put a file into its folder");
            }
            fs::remove_file(home.place.path("wasmpool.toml")).expect("is there");
            home.place.fifo("wasmpool.toml");
            home.give("wasmpool.toml");
            assert_left_out(&home, "every user may put a file into its folder");
            fs::remove_file(home.place.path("wasmpool.toml")).expect("is there");
            symlink("canary", home.place.path("wasmpool.toml")).expect("links");
            home.give("wasmpool.toml");
            assert_left_out(&home, "every user may put a file into its folder");
            mode(&home, "", 0o755);
        }
    }
}

#[test]
fn another_users_settings_are_left_out_whatever_they_are() {
    if !is_root() {
        // Only root can give files away.
        return;
    }
    for user in users() {
        let home = Home::new(*user);
        let file = home.place.path("wasmpool.toml");
        fs::write(&file, "timeout = \"1s\"").expect("writes");
        give_to(&home, "wasmpool.toml", STRANGER);
        assert_left_out(&home, "it belongs to user 4321");
        let named = end(&mut home.command(&["config", "--config", "wasmpool.toml"])).expect(0);
        assert_eq!((timeout(&named).as_str(), &*named.stderr), ("1s", ""), "somebody vouches for it");
        let owner = user.unwrap_or(0);
        give_to(&home, "wasmpool.toml", owner);
        give_to(&home, "", STRANGER);
        assert_left_out(&home, "its folder belongs to user 4321");
        give_to(&home, "", owner);
        fs::remove_file(&file).expect("is there");
        fs::create_dir(&file).expect("makes");
        give_to(&home, "wasmpool.toml", STRANGER);
        assert_left_out(&home, "it belongs to user 4321");
        fs::remove_dir(&file).expect("is there");
        symlink("canary", &file).expect("links");
        give_to(&home, "wasmpool.toml", STRANGER);
        assert_left_out(&home, "it belongs to user 4321");
        fs::remove_file(&file).expect("is there");
        home.place.fifo("wasmpool.toml");
        give_to(&home, "wasmpool.toml", STRANGER);
        assert_left_out(&home, "it belongs to user 4321");
        fs::remove_file(&file).expect("is there");
        // The same goes for the file in a home that is another's.
        for folder in ["home/.config", "home/.config/wasmpool"] {
            fs::create_dir(home.place.path(folder)).expect("makes");
            home.give(folder);
        }
        let own = "home/.config/wasmpool/wasmpool.toml";
        for text in ["timeout = \"1s\"", "no settings", "sandbox = \"off\""] {
            fs::write(home.place.path(own), text).expect("writes");
            give_to(&home, own, STRANGER);
            assert_left_out(&home, "it belongs to user 4321");
        }
    }
}

#[test]
fn settings_where_tasks_may_write_are_left_out_and_stop_nothing() {
    for user in users() {
        let home = Home::new(*user);
        wat(home.place.folder.path(), "reader.wasm", READER_WAT);
        fs::write(home.place.path("f"), "the file").expect("writes");
        fs::write(home.place.path("wasmpool.toml"), "no settings").expect("writes");
        home.give("wasmpool.toml");
        // The workers of root are another user.
        mode(&home, "", if user.is_none() && is_root() { 0o777 } else { 0o755 });
        let words = ["run", "reader.wasm", "--no-cache", "--dir", ".:/d:rw"];
        let ended = end(&mut home.command(&words)).expect(0);
        assert_eq!((&*ended.text(), ended.stderr.lines().count()), ("the file", 1), "{}", ended.stderr);
        ended.says("wasmpool.toml is not read: ");
        let named = [&words[..], &["--config", "wasmpool.toml"]].concat();
        end(&mut home.command(&named)).expect(2).says("tasks may write to");
        fs::remove_file(home.place.path("wasmpool.toml")).expect("is there");
        assert_eq!(end(&mut home.command(&words)).expect(0).stderr, "");
        // A file in the user's own folder of settings was not made by chance, so it is not passed over.
        fs::create_dir_all(home.place.path("home/.config/wasmpool")).expect("makes");
        fs::write(home.place.path("home/.config/wasmpool/wasmpool.toml"), "timeout = \"9s\"")
            .expect("writes");
        end(&mut home.command(&words)).expect(2).says("tasks may write to");
    }
}

/// Takes rights away from a command that root starts.
fn without(command: &mut Command, capabilities: &'static [libc::c_ulong]) {
    let drop_all = move || {
        let dropped = |capability: &libc::c_ulong| {
            // SAFETY: the option takes numbers only.
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, *capability, 0, 0, 0) == 0 }
        };
        if capabilities.iter().all(dropped) { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: the closure makes system calls, which are safe between fork and exec.
    unsafe { command.pre_exec(drop_all) };
}

const SETGID: libc::c_ulong = 6;
const SETUID: libc::c_ulong = 7;

#[test]
fn a_directory_is_judged_by_the_user_whom_workers_become() {
    for user in users() {
        let home = Home::new(*user);
        wat(home.place.folder.path(), "reader.wasm", READER_WAT);
        fs::write(home.place.path("d/f"), "the file").expect("writes");
        home.give("d/f");
        mode(&home, "d", 0o700);
        let words = ["run", "reader.wasm", "--no-cache", "--dir", "d:/d"];
        if user.is_some() || !is_root() {
            assert_eq!(end(&mut home.command(&words)).expect(0).text(), "the file");
            // This user is root in a user namespace of its own, and there is no other for the workers to
            // become.
            if home.shell("unshare -r true").code == 0 {
                let script = format!("unshare -r ./wasmpool {}", words.join(" "));
                assert_eq!(home.shell(&script).expect(0).text(), "the file");
            }
            continue;
        }
        end(&mut home.command(&words)).expect(2).says("workers run as user 65534 and group 65534");
        let off = [&words[..], &["--sandbox", "off"]].concat();
        assert_eq!(end(&mut home.command(&off)).expect(0).text(), "the file");
        for capabilities in [&[SETUID][..], &[SETUID, SETGID]] {
            let run = || {
                let mut command = home.command(&words);
                without(&mut command, capabilities);
                end(&mut command)
            };
            assert_eq!(run().expect(0).text(), "the file");
            // Root without its rights may not do in another's folder what it may otherwise.
            give_to(&home, "d", STRANGER);
            run().expect(2).says("workers run as user 0").says("can become no other here");
            give_to(&home, "d", 0);
        }
        give_to(&home, "d", 65534);
        give_to(&home, "d/f", 65534);
        assert_eq!(end(&mut home.command(&words)).expect(0).text(), "the file");
    }
}

/// Options that name an output, and what runs with them.
const OUTPUTS: [&str; 5] = ["--joblog", "--log-file", "--profile", "--trace", "--output"];

#[test]
fn a_link_is_neither_written_through_nor_replaced_whichever_option_names_it() {
    for user in users() {
        let home = Home::new(*user);
        for option in OUTPUTS {
            for target in ["canary", "nowhere", "outside"] {
                let _ = fs::remove_file(home.place.path("link"));
                symlink(target, home.place.path("link")).expect("links");
                home.give("link");
                let verb = if option == "--output" { "run" } else { "map" };
                let words = [verb, "primes", "count", "--no-cache", option, "link"];
                let ended = end_with(&mut home.command(&words), "10\n");
                let is_link = fs::symlink_metadata(home.place.path("link")).expect("is there").is_symlink();
                assert!(is_link, "{option} {target}: {}", ended.stderr);
                // Root's own links are followed, as /dev/stdout is.
                if user.is_some() || !is_root() {
                    ended.expect(2).says("link is a symbolic link: an output is neither");
                    home.place.assert_canary();
                    assert!(!home.place.path("nowhere").exists());
                }
            }
            let _ = fs::remove_file(home.place.path("nowhere"));
            fs::write(home.place.path("canary"), "the canary").expect("writes");
        }
        for name in ["out", "pages"] {
            fs::create_dir(home.place.path(name)).expect("makes");
            home.give(name);
        }
        for link in ["out/1.json", "pages/wasmpool.1"] {
            symlink("../canary", home.place.path(link)).expect("links");
            home.give(link);
        }
        let words = ["map", "primes", "count", "--no-cache", "--output-dir", "out"];
        let ended = end_with(&mut home.command(&words), "10\n10\n").expect(4);
        ended.says("out/1.json: ").says("is a symbolic link: an output is neither");
        assert_eq!(home.read("out/2.json"), "4\n");
        end(&mut home.command(&["man", "--dir", "pages"])).expect(5).says("is a symbolic link");
        for link in ["out/1.json", "pages/wasmpool.1"] {
            let link = fs::symlink_metadata(home.place.path(link)).expect("is there");
            assert!(link.is_symlink());
        }
        home.place.assert_canary();
        // A link to a folder on the way is followed, if it is the user's own.
        symlink("outside", home.place.path("to-outside")).expect("links");
        home.give("to-outside");
        let words = [
            "map",
            "primes",
            "count",
            "--no-cache",
            "--output-dir",
            "to-outside",
            "--joblog",
            "to-outside/j",
        ];
        end_with(&mut home.command(&words), "10\n").expect(0);
        assert_eq!(home.read("outside/1.json"), "4\n");
    }
}

/// An option that names a file or a folder is known to these tests: a new one is put into one of the lists.
#[test]
fn every_option_that_names_an_output_is_tested() {
    let home = Home::new(None);
    let inputs = ["--input-file", "--config", "--share", "--files", "--dir", "--watch"];
    let folders = ["--output-dir", "--cache-dir"];
    for verb in ["run", "map", "bench", "test", "dev", "inspect", "doctor"] {
        let help = end(&mut home.command(&[verb, "--help"])).expect(0).text();
        let named = help
            .lines()
            .filter(|line| ["<FILE>", "<DIR>", "<PATH>", "<HOST"].iter().any(|value| line.contains(value)));
        for line in named {
            let Some(option) = line.split_whitespace().find(|word| word.starts_with("--")) else { continue };
            let is_known = [&OUTPUTS[..], &inputs, &folders].concat().contains(&option);
            assert!(is_known, "{verb}: {line}");
        }
    }
}

#[test]
fn a_second_name_of_ones_own_file_does_no_harm_unless_tasks_can_have_it() {
    for user in users() {
        let home = Home::new(*user);
        let map = |words: &[&str]| {
            let words = [&["map", "primes", "count", "--no-cache"][..], words].concat();
            end_with(&mut home.command(&words), "10\n")
        };
        map(&["--joblog", "jobs", "--log-file", "log"]).expect(0);
        for name in ["jobs", "log"] {
            fs::hard_link(home.place.path(name), home.place.path(&format!("{name}.bak"))).expect("links");
        }
        map(&["--joblog", "jobs", "--resume"]).expect(0).says("1 done before");
        map(&["--log-file", "log"]).expect(0);
        mode(&home, "d", 0o777);
        for option in [&["--joblog", "jobs", "--resume"][..], &["--log-file", "log"]] {
            // The other name may be the tasks' where they may write.
            map(&[option, &["--dir", "d:/d:rw"]].concat()).expect(2).says("second name (a hard link)");
        }
        fs::hard_link(home.place.path("log"), home.place.path("d/log")).expect("links");
        map(&["--log-file", "d/log"]).expect(2).says("second name (a hard link)");
    }
}
