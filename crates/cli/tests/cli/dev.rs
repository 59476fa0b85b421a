//! `wasmpool dev`: the input is run again when the module changes, or what it is built from; and a signal ends it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use rustix::process::{Pid, Signal, kill_process};

use crate::ends::wait_until_busy;
use crate::harness::{PATIENCE, ended, wasmpool};

/// Makes a module whose task `answer` returns this number.
fn answer(number: i32) -> Vec<u8> {
    wat::parse_str(text(number)).expect("valid text")
}

fn text(number: i32) -> String {
    format!(
        r#"(module (func (export "answer") (param i32) (result i32) (i32.const {number})) (func (export "spin") (loop (br 0))))"#
    )
}

/// A command that was started, and the lines that it has printed on both streams.
struct Dev {
    child: Running,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    folder: tempfile::TempDir,
}

fn lines(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

#[track_caller]
fn next(lines: &Receiver<String>, part: &str) -> String {
    let mut seen = Vec::new();
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) if line.contains(part) => return line,
            Ok(line) => seen.push(line),
            Err(_) => panic!("no {part:?} in {seen:#?}"),
        }
    }
}

/// The command; it never ends by itself, so a test that fails kills it.
struct Running(Option<Child>);

impl Running {
    fn pid(&self) -> Pid {
        Pid::from_child(self.0.as_ref().expect("it has not been waited for"))
    }

    /// Interrupts it, and returns its exit code.
    #[track_caller]
    fn interrupted(mut self) -> i32 {
        kill_process(self.pid(), Signal::INT).expect("it runs");
        ended(self.0.take().expect("it has not been waited for")).code
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Dev {
    fn start(lay_out: impl FnOnce(&Path), words: &[&str]) -> Dev {
        let folder = tempfile::tempdir().expect("a folder");
        lay_out(folder.path());
        let mut command: Command = wasmpool("dev", "answer.wasm");
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).args(words);
        command.current_dir(folder.path()).stdin(Stdio::null());
        let mut child = crate::harness::spawn(&mut command);
        let stdout = lines(child.stdout.take().expect("a pipe"));
        let stderr = lines(child.stderr.take().expect("a pipe"));
        Dev { child: Running(Some(child)), stdout, stderr, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits until nothing is under way.
    #[track_caller]
    fn rests(&self) {
        next(&self.stderr, "waiting for a change");
    }

    #[track_caller]
    fn ends(self) {
        assert_eq!(self.child.interrupted(), 130);
    }
}

#[test]
fn a_module_that_is_written_or_renamed_into_place_is_run_again() {
    let dev =
        Dev::start(|at| fs::write(at.join("answer.wasm"), answer(1)).expect("writes"), &["answer", "7"]);
    assert_eq!(next(&dev.stdout, ""), "1");
    assert!(next(&dev.stderr, "took").contains("fuel"));
    dev.rests();
    fs::write(dev.path("answer.wasm"), answer(2)).expect("writes");
    assert_eq!(next(&dev.stdout, ""), "2");
    assert!(next(&dev.stderr, "took").ends_with("the output has changed"));
    dev.rests();
    fs::write(dev.path("new"), answer(3)).expect("writes");
    fs::rename(dev.path("new"), dev.path("answer.wasm")).expect("renames");
    assert_eq!(next(&dev.stdout, ""), "3");
    dev.rests();
    // Neither what is no module nor the same one again runs.
    fs::write(dev.path("answer.wasm"), "no module").expect("writes");
    next(&dev.stderr, "not a valid wasm module");
    dev.rests();
    fs::write(dev.path("answer.wasm"), answer(3)).expect("writes");
    next(&dev.stderr, "the same as before");
    dev.rests();
    // The task's types may change: the input is read anew.
    let wider =
        r#"(module (func (export "answer") (param i64) (result i64) (i64.mul (local.get 0) (i64.const 2))))"#;
    fs::write(dev.path("answer.wasm"), wat::parse_str(wider).expect("valid text")).expect("writes");
    assert_eq!(next(&dev.stdout, ""), "14");
    dev.ends();
}

#[test]
fn a_change_of_the_sources_is_built_and_a_build_that_fails_is_waited_out() {
    // The build copies one of several modules into place, as the source says.
    let build = "echo building >&2; test -e src/ok && cp $(cat src/which).wasm answer.wasm";
    let lay_out = |at: &Path| {
        for folder in ["src", "target"] {
            fs::create_dir(at.join(folder)).expect("makes");
        }
        for number in 1..=3 {
            fs::write(at.join(format!("{number}.wasm")), answer(number)).expect("writes");
        }
        fs::write(at.join("src/which"), "1").expect("writes");
        fs::write(at.join("src/ok"), "").expect("writes");
    };
    let dev = Dev::start(lay_out, &["answer", "7", "--build", build]);
    assert_eq!(next(&dev.stdout, ""), "1");
    dev.rests();
    fs::write(dev.path("src/which"), "2").expect("writes");
    next(&dev.stderr, "changed: ./src/which");
    assert_eq!(next(&dev.stdout, ""), "2");
    dev.rests();
    fs::remove_file(dev.path("src/ok")).expect("is there");
    next(&dev.stderr, "the build failed: exit status: 1");
    dev.rests();
    // A folder that is made later is watched, too; what is made in `target` is not.
    fs::write(dev.path("target/made"), "").expect("writes");
    fs::write(dev.path("src/which"), "3").expect("writes");
    next(&dev.stderr, "the build failed");
    dev.rests();
    fs::write(dev.path("src/ok"), "").expect("writes");
    assert_eq!(next(&dev.stdout, ""), "3");
    dev.rests();
    fs::create_dir(dev.path("src/more")).expect("makes");
    next(&dev.stderr, "the same as before");
    dev.rests();
    fs::write(dev.path("src/more/file"), "").expect("writes");
    next(&dev.stderr, "changed: ./src/more/file");
    dev.rests();
    dev.ends();
}

#[test]
fn a_run_that_goes_on_is_stopped_by_a_change_and_by_a_signal() {
    let dev = Dev::start(|at| fs::write(at.join("answer.wasm"), answer(1)).expect("writes"), &["spin"]);
    wait_until_busy(dev.child.0.as_ref().expect("it runs"));
    fs::write(dev.path("answer.wasm"), answer(2)).expect("writes");
    next(&dev.stderr, "the run was stopped");
    next(&dev.stderr, "changed: answer.wasm");
    let quick = r#"(module (func (export "spin")))"#;
    fs::write(dev.path("answer.wasm"), wat::parse_str(quick).expect("valid text")).expect("writes");
    assert_eq!(next(&dev.stdout, ""), "null");
    fs::write(dev.path("answer.wasm"), answer(3)).expect("writes");
    next(&dev.stderr, "changed");
    dev.ends();
}

#[test]
fn a_signal_ends_the_build_and_what_it_has_started() {
    let lay_out = |at: &Path| fs::write(at.join("answer.wasm"), answer(1)).expect("writes");
    let build = "echo $$ > pid; sleep 1000 & wait";
    let dev = Dev::start(lay_out, &["answer", "1", "--build", build]);
    next(&dev.stderr, "building");
    let mut pid = String::new();
    crate::harness::eventually("the build to run", || {
        pid.clear();
        fs::File::open(dev.path("pid"))
            .is_ok_and(|mut file| file.read_to_string(&mut pid).is_ok_and(|len| len > 1))
    });
    let folder = dev.folder;
    assert_eq!(dev.child.interrupted(), 130);
    let pid = pid.trim().to_string();
    crate::harness::eventually("the build to be gone", || !Path::new("/proc").join(&pid).exists());
    drop(folder);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("answer.wasm"), answer(1)).expect("writes");
    let dev = |words: &[&str]| {
        let mut command = wasmpool("dev", "answer.wasm");
        crate::harness::end(command.current_dir(folder.path()).args(words))
    };
    dev(&["answer", "1", "--watch", "src"]).expect(2).says("--build");
    dev(&["answer", "1", "--build", "true", "--watch", "nowhere"]).expect(2).says("cannot watch nowhere");
    dev(&["answer", "1", "--trace", "x"]).expect(2).says("--trace");
}
