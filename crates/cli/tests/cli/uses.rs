//! Files that a command would use for two things, pipes that nobody writes to, and streams that it was not given.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::doors::{Home, users};
use crate::files::Place;
use crate::harness::{Ended, end_with, ended, prebuilt};

fn map(place: &Place, words: &[&str]) -> Ended {
    let mut command = place.command("map", prebuilt("word_count"), &["count", "--no-cache"]);
    end_with(command.args(words), "one\n")
}

#[test]
fn what_the_command_writes_is_no_input_and_that_is_said() {
    let place = Place::new();
    fs::create_dir(place.path("in")).expect("makes");
    for name in ["a", "log", "log.1", "log.x", "p", "jobs", "log.2026-01-31"] {
        fs::write(place.path("in").join(name), "").expect("writes");
    }
    let inputs = |words: &[&str]| {
        let ended = map(&place, &[&["--files", "in"][..], words].concat()).expect(0);
        let lines = ended.json_lines();
        let name = |line: &serde_json::Value| line["input"].as_str().expect("text")[3..].to_string();
        let mut left_out: Vec<_> = ended
            .stderr
            .lines()
            .filter_map(|line| {
                line.strip_prefix("warning: in/")?.split_once(" is no input: this command writes to it")
            })
            .map(|(name, _)| name.to_string())
            .collect();
        left_out.sort();
        let read: Vec<_> = lines.iter().map(name).collect();
        (read.join(" "), left_out.join(" "))
    };
    let expected = |read: &str, left_out: &str| (read.to_string(), left_out.to_string());
    assert_eq!(
        inputs(&["--log-file", "in/log"]),
        expected("a jobs log.1 log.2026-01-31 log.x p", "log"),
        "what is not rotated has no old files"
    );
    assert_eq!(
        inputs(&["--log-file", "in/log", "--log-rotate", "size", "--profile", "in/p"]),
        expected("a jobs log.2026-01-31 log.x", "log log.1 p")
    );
    assert_eq!(
        inputs(&["--log-file", "in/log", "--log-rotate", "daily", "--joblog", "in/jobs"]),
        expected("a log.1 log.x p", "jobs log log.2026-01-31")
    );
    let quiet = map(&place, &["--files", "in", "--log-file", "in/log", "--quiet"]).expect(0);
    assert_eq!(quiet.stderr, "");
    // Named by themselves they are left out as well.
    let named = ["--files", "in/a", "in/log.1", "--log-file", "in/log", "--log-rotate", "size"];
    let ended = map(&place, &named).expect(0);
    assert_eq!(ended.json_lines().len(), 1);
    ended.says("warning: in/log.1 is no input: this command writes to it");
}

#[test]
fn a_name_that_an_output_will_have_is_no_other_outputs_and_no_inputs() {
    let place = Place::new();
    let size = ["--log-file", "l", "--log-rotate", "size=1KiB"];
    let daily = ["--log-file", "./d/../l", "--log-rotate", "daily"];
    let refused = |words: &[&[&str]], what: &str| {
        map(&place, &words.concat()).expect(2).says(what);
    };
    let old = "it is the log file, or an old one, of this command as well";
    for (log, name) in
        [(size, "l.1"), (size, "./l.7"), (daily, "l.2026-01-31"), (daily, "d/../l.2026-01-31.2")]
    {
        for option in ["--joblog", "--profile", "--trace"] {
            refused(&[&log, &[option, name]], old);
            assert!(!place.path(name).exists(), "{name}");
            fs::write(place.path(name), "").expect("writes");
            refused(&[&log, &[option, name]], old);
            fs::remove_file(place.path(name)).expect("is there");
        }
    }
    // A rotation would rename or remove the input.
    fs::write(place.path("l.1"), "shared").expect("writes");
    refused(
        &[&size, &["--share", "l.1"]],
        "its old files are to have the name l.1, which is a shared file of this command",
    );
    fs::remove_file(place.path("l.1")).expect("is there");
    // Other names are free.
    for (log, name) in
        [(size, "l.8"), (size, "l.01"), (size, "l.2026-01-31"), (size, "d/l.1"), (daily, "l.1")]
    {
        map(&place, &[&log, &["--joblog", name][..]].concat()).expect(0);
        fs::remove_file(place.path(name)).expect("is there");
    }
    let kept = ["--log-keep", "1", "--joblog", "l.2"];
    map(&place, &[&size, &kept[..]].concat()).expect(0);
    // The files of results are outputs, too.
    for option in ["--joblog", "--log-file", "--profile", "--trace"] {
        let _ = fs::remove_dir_all(place.path("out"));
        fs::create_dir(place.path("out")).expect("makes");
        let ended = map(&place, &["--output-dir", "out", option, "out/1.json"]).expect(4);
        ended.says("of this command as well: name another file");
    }
    map(&place, &["--output-dir", "out", "--log-file", "out/2.json"]).expect(0);
}

#[test]
fn the_streams_of_the_command_are_outputs_too() {
    let home = Home::new(users().last().copied().flatten());
    let map = "echo 10 | ./wasmpool map primes count --no-cache";
    for option in ["--joblog", "--log-file", "--profile", "--trace"] {
        home.shell(&format!("{map} {option} x > x")).expect(2).says("it is stdout of this command as well");
        home.shell(&format!("{map} {option} y 2> y")).expect(2);
        assert!(home.read("y").contains("it is stderr of this command as well"), "{}", home.read("y"));
        fs::write(home.place.path("in"), "10\n").expect("writes");
        let map = "./wasmpool map primes count --no-cache";
        home.shell(&format!("{map} {option} in < in")).expect(2).says("it is stdin of this command as well");
        assert_eq!(home.read("in"), "10\n");
        let map = format!("echo 10 | {map}");
        // A file under the name of the stream is the stream, and no input.
        let ended = home.shell(&format!("{map} --quiet {option} /dev/stdout > x")).expect(0);
        assert!(home.read("x").contains("\"output\":4"), "{}", ended.stderr);
    }
}

#[test]
fn both_streams_may_go_to_one_file() {
    let home = Home::new(users().last().copied().flatten());
    for command in ["map primes count --lines < in", "run primes count --input 10"] {
        home.shell("echo 10 > in").expect(0);
        for redirection in ["> all 2>&1", ">> all 2>&1"] {
            home.shell(&format!("./wasmpool --no-cache {command} {redirection}")).expect(0);
            assert!(home.read("all").contains('4'), "{}", home.read("all"));
        }
        // A log is a third thing, and says so in the file that both streams go to.
        let log = "--log-file all > all 2>&1";
        home.shell(&format!("./wasmpool --no-cache {command} {log}")).expect(2);
        assert!(home.read("all").contains("of this command as well"), "{}", home.read("all"));
    }
}

#[test]
fn what_goes_to_a_file_that_is_read_would_be_read_again() {
    let home = Home::new(users().last().copied().flatten());
    let input = home.place.path("in");
    for (stream, name) in [(">>", "stdout"), ("2>>", "stderr")] {
        for command in
            ["map primes count --lines < in", "run primes count --input-file in", "run primes count < in"]
        {
            home.shell("echo 10 > in").expect(0);
            let ended = home.shell(&format!("./wasmpool --no-cache {command} {stream} in")).expect(2);
            let written = fs::read_to_string(&input).expect("reads");
            let said = if name == "stderr" { &written } else { &ended.stderr };
            assert!(said.contains(&format!("{name} goes to a file that is")), "{command}: {said}");
            assert!(name == "stderr" || written == "10\n", "{written}");
        }
    }
}

#[test]
fn a_pipe_that_nobody_writes_to_is_waited_for_aloud() {
    let place = Place::new();
    let module = prebuilt("word_count");
    let module = module.to_str().expect("text");
    place.fifo("pipe");
    let text = fs::read(module).expect("reads");
    let one = b"one\n".as_slice();
    let input = ["--input", "\"one\""];
    for (words, written) in [
        (&[&["run", "pipe", "count"][..], &input].concat()[..], &*text),
        (&["run", module, "count", "--input-file", "pipe"], one),
        (&[&["run", module, "count", "--share", "pipe"][..], &input].concat(), one),
        (&["map", module, "count", "--files", "pipe"], one),
        (&[&["run", module, "count", "--config", "pipe"][..], &input].concat(), b"timeout = \"9s\"\n"),
    ] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_wasmpool"));
        command.env_clear().current_dir(place.folder.path()).args(words).arg("--no-cache");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        let mut said = BufReader::new(child.stderr.take().expect("a pipe"));
        let (sender, receiver) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut line = String::new();
            let read = said.read_line(&mut line);
            let _ = sender.send(line);
            read.and_then(|_| std::io::copy(&mut said, &mut std::io::sink())).expect("reads");
        });
        let line = receiver.recv_timeout(crate::harness::PATIENCE).expect("it says something");
        assert!(
            line.contains("warning: pipe is a pipe to which nobody has written so far"),
            "{words:?}: {line}"
        );
        fs::write(place.path("pipe"), written).expect("writes");
        assert!(ended(child).expect(0).text().contains("\"words\":1"), "{words:?}");
        reader.join().expect("ends");
    }
    // Nobody is told of what comes at once.
    let script = format!("(echo one > pipe) & exec \"$0\" run {module} count --input-file pipe --no-cache");
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", &script, env!("CARGO_BIN_EXE_wasmpool")]).current_dir(place.folder.path());
    assert_eq!(crate::harness::end(&mut shell).expect(0).stderr, "");
}

#[test]
fn a_stream_that_was_not_given_is_neither_written_to_nor_read() {
    for user in users() {
        let home = Home::new(*user);
        let run = "./wasmpool run primes count --no-cache --input 10";
        let map = "echo 10 | ./wasmpool map primes count --no-cache";
        let not_given = |script: &str, number: u32| {
            home.shell(script).expect(2).says(&format!("this process was given no descriptor {number}"));
        };
        std::os::unix::fs::symlink("/dev/stdout", home.place.path("to-stdout")).expect("links");
        home.give("to-stdout");
        for name in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "to-stdout"] {
            for option in ["--joblog", "--log-file", "--profile", "--trace"] {
                not_given(&format!("{map} {option} {name} >&-"), 1);
            }
            not_given(&format!("{run} --trace {name} >&-"), 1);
        }
        for name in ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"] {
            not_given(&format!("./wasmpool run word_count count --no-cache --input-file {name} <&-"), 0);
            not_given(&format!("./wasmpool map word_count count --no-cache --config {name} <&-"), 0);
        }
        let script = "./wasmpool run primes count --no-cache --input 10 --log-file /dev/stderr 2>&-";
        home.shell(script).expect(2);
        // A stream that is closed and not named is nobody's error.
        assert_eq!(home.shell(&format!("{run} <&- 2>&-")).expect(0).text(), "4\n");
        // The null device is as good as ever, where it was given.
        home.shell(&format!("{map} --joblog /dev/stdout > /dev/null")).expect(0);
    }
}
