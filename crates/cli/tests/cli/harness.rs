//! Runs the real binary, with a deadline.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

/// No test waits longer for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A guest of guest-tasks/prebuilt.
pub(crate) fn prebuilt(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("prebuilt").join(format!("{name}.wasm"))
}

/// The command with a verb and a module, and a cache that the tests share.
pub(crate) fn wasmpool(verb: &str, module: impl AsRef<Path>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wasmpool"));
    command.env_clear();
    command.arg(verb).arg(module.as_ref()).arg("--cache-dir").arg(cache());
    command
}

pub(crate) fn cache() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cli-cache")
}

/// All that the command left behind.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.text(), self.stderr);
        self
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// All of stdout as one JSON value.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Each line of stdout as JSON.
    #[track_caller]
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.text().lines().map(parse).collect()
    }

    #[track_caller]
    pub(crate) fn says(self, part: &str) -> Self {
        assert!(self.stderr.contains(part), "no {part:?} in: {}", self.stderr);
        self
    }
}

/// Runs it with nothing behind stdin.
#[track_caller]
pub(crate) fn end(command: &mut Command) -> Ended {
    ended(spawn(command.stdin(Stdio::null())))
}

/// Runs it with these bytes behind stdin.
#[track_caller]
pub(crate) fn end_with(command: &mut Command, stdin: impl Into<Vec<u8>>) -> Ended {
    let mut child = spawn(command.stdin(Stdio::piped()));
    let mut pipe = child.stdin.take().expect("a pipe");
    let stdin = stdin.into();
    // The command may end without reading everything, which is no failure of this side.
    let writer = std::thread::spawn(move || drop(pipe.write_all(&stdin)));
    let ended = ended(child);
    writer.join().expect("the writer ends");
    ended
}

pub(crate) fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        match command.spawn() {
            // A program that was copied is still open in a child that another test has just forked, until that
            // executes its own.
            Err(error)
                if error.kind() == std::io::ErrorKind::ExecutableFileBusy
                    && std::time::Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            spawned => return spawned.expect("it starts"),
        }
    }
}

/// Waits for the end of a child, and kills it if that does not come.
#[track_caller]
pub(crate) fn ended(child: Child) -> Ended {
    let pid = rustix::process::Pid::from_child(&child);
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = receiver.recv_timeout(PATIENCE) else {
        // Still unreaped, so the number is still its own.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        panic!("it did not end within {PATIENCE:?}");
    };
    let Output { status, stdout, stderr } = output.expect("its output can be read");
    let code = status.code().unwrap_or_else(|| panic!("{status}: {}", String::from_utf8_lossy(&stderr)));
    Ended { code, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() }
}

/// Waits until the condition holds, and fails after a deadline.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A module from text, as a file.
pub(crate) fn wat(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, wat::parse_str(text).expect("valid text")).expect("writes");
    path
}
