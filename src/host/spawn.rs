//! Starting a child, and learning how it ended.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};

use super::cache::Stamp;
use super::cgroup::Group;
use crate::error::{BuildError, DeathCause};
use crate::init;
use proto::fingerprint::{self, fnv};
use proto::limits::STDERR_TAIL_BYTES;
use proto::memfd;
use proto::refused::calling;
use proto::role::Role;

/// This path leads to the running program, even if its file was replaced or removed.
const OWN_EXECUTABLE: &str = "/proc/self/exe";

/// The executable behind workers and compilers: an open descriptor, since the file on
/// disk may be replaced while the pool lives.
#[derive(Debug)]
pub(crate) struct Program {
    file: File,
    /// The path at which the program was found. It is executed if there is no /proc; another file of that
    /// name would fail the exchange of fingerprints.
    path: PathBuf,
    /// The fingerprint of the machine code that it makes and runs.
    machine_code: u64,
}

/// The fingerprint of the machine code of this very executable.
#[cfg(feature = "engine")]
const OWN_MACHINE_CODE: u64 = engine::MACHINE_CODE;
#[cfg(not(feature = "engine"))]
const OWN_MACHINE_CODE: u64 = 0;

impl Program {
    /// Opens the program that children are started from: the one that is named, or this very executable.
    ///
    /// # Errors
    /// [`BuildError`], if it cannot be opened, or this executable would not do a child's work.
    pub(crate) fn choose(named: Option<&Path>) -> Result<Program, BuildError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            |source| BuildError::WorkerProgram { path, source }
        };
        match named {
            Some(path) => Program::named(path).map_err(failed(path)),
            None if cfg!(not(feature = "engine")) => Err(BuildError::NoEngine),
            None if !init::is_initialized() => Err(BuildError::InitMissing),
            None => Program::this_executable().map_err(failed(Path::new(OWN_EXECUTABLE))),
        }
    }

    /// Opens a program that is not this executable. Nothing is known of its engine, so its machine code is that of
    /// this very file: who builds it anew has modules compiled anew.
    fn named(path: &Path) -> io::Result<Program> {
        let program = Program::open(path)?;
        let stat = rustix::fs::fstat(&program.file)?;
        let machine_code = Stamp::words(&stat)
            .iter()
            .fold(fingerprint::DESCRIPTIONS, |hash, part| fnv(hash, &part.to_le_bytes()));
        Ok(Program { machine_code, ..program })
    }

    /// Returns the fingerprint of the machine code that the program makes and runs.
    pub(crate) fn machine_code(&self) -> u64 {
        self.machine_code
    }

    fn open(path: &Path) -> io::Result<Program> {
        // It is not opened for reading, since an executable need not be readable.
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?);
        // The path is made absolute, since children start in another directory.
        Ok(Program { file, path: std::path::absolute(path)?, machine_code: OWN_MACHINE_CODE })
    }

    fn this_executable() -> io::Result<Program> {
        Program::open(Path::new(OWN_EXECUTABLE)).or_else(|error| {
            let named = Path::new(OsStr::from_bytes(rustix::param::linux_execfn().to_bytes()));
            Program::open(named).map_err(|_| calling("open /proc/self/exe")(error))
        })
    }

    /// Returns the path by which to execute it.
    fn name(&self) -> PathBuf {
        let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        let is_there = rustix::fs::access(&by_descriptor, rustix::fs::Access::EXISTS).is_ok();
        if is_there { by_descriptor } else { self.path.clone() }
    }
}

/// A process just started.
pub(crate) struct Child {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) stderr: StderrTail,
    /// The cgroup that holds it, if one does.
    pub(crate) group: Option<Group>,
}

/// Kills a process, which must still be reaped.
pub(crate) fn kill(pidfd: &OwnedFd) {
    // The signal fails only for a process that is gone already.
    let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
}

/// Starts `program` in `role`, with `socket` as its stdin, nothing in its environment and a pipe for its stderr.
/// It must be called on a thread that lives as long as the child should: the child asks the kernel to be killed
/// when its parent *thread* ends.
///
/// # Errors
/// What the system says.
pub(crate) fn spawn(program: &Program, role: Role, socket: OwnedFd) -> io::Result<Child> {
    let child = Command::new(program.name())
        .arg0(match role {
            Role::Worker => "wasmpool-worker",
            Role::Compiler => "wasmpool-compiler",
        })
        .arg(role.argument())
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(socket))
        .stdout(Stdio::from(memfd::null()?))
        .stderr(Stdio::piped())
        .spawn()
        .map_err(calling("start a process (pipe, fork, exec)"))?;
    let pid = child.id();
    let pidfd = Pid::from_raw(pid as i32)
        .ok_or(rustix::io::Errno::SRCH)
        .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()));
    let (pidfd, stderr) = match (pidfd, child.stderr) {
        (Ok(pidfd), Some(stderr)) => (pidfd, OwnedFd::from(stderr)),
        (pidfd, _) => {
            // A process without a pidfd could be neither watched nor killed safely.
            if let Some(pid) = Pid::from_raw(pid as i32) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            }
            return Err(pidfd.err().map_or(io::ErrorKind::Other.into(), calling("pidfd_open")));
        }
    };
    if let Err(error) = rustix::io::ioctl_fionbio(&stderr, true) {
        let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
        reap(pidfd.as_fd());
        return Err(calling("ioctl (FIONBIO)")(error));
    }
    Ok(Child {
        pid,
        pidfd,
        stderr: StderrTail { pipe: File::from(stderr), tail: VecDeque::new() },
        group: None,
    })
}

/// A process that was killed may have been killed by the kernel, because its group was out of memory.
pub(crate) fn in_group(group: Option<&Group>, cause: DeathCause) -> DeathCause {
    let killed = cause == DeathCause::Signaled(rustix::process::Signal::KILL.as_raw());
    killed.then_some(group).flatten().and_then(Group::out_of_memory).unwrap_or(cause)
}

/// Reaps an ended process and says how it ended.
pub(crate) fn reap(pidfd: BorrowedFd<'_>) -> DeathCause {
    let status =
        rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED));
    match status {
        Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => DeathCause::Exited(code),
            (None, Some(signal)) => DeathCause::Signaled(signal),
            (None, None) => DeathCause::Unknown,
        },
        // The embedder ignores SIGCHLD or reaps every child itself.
        Ok(None) | Err(_) => DeathCause::Unknown,
    }
}

/// The end of what a child writes to stderr.
#[derive(Debug)]
pub(crate) struct StderrTail {
    pub(crate) pipe: File,
    tail: VecDeque<u8>,
}

impl StderrTail {
    /// Reads what there is, without waiting, and at most a few pages at a time so that one
    /// child's flood does not keep the supervisor. `false` at the end of the stream.
    pub(crate) fn drain(&mut self) -> bool {
        let mut bytes = [0; 4096];
        for _ in 0..16 {
            match self.pipe.read(&mut bytes) {
                Ok(0) => return false,
                Ok(len) => {
                    self.tail.extend(&bytes[..len]);
                    let excess = self.tail.len().saturating_sub(STDERR_TAIL_BYTES);
                    self.tail.drain(..excess);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    }

    pub(crate) fn text(&self) -> String {
        let bytes: Vec<u8> = self.tail.iter().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_code_of_a_named_program_is_that_of_this_very_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
        for path in [&one, &other] {
            std::fs::write(path, "a program").expect("writes");
        }
        let code = |path: &Path| Program::choose(Some(path)).expect("opens").machine_code();
        assert_eq!(code(&one), code(&one));
        assert_ne!(code(&one), code(&other));
        assert_ne!(code(&one), OWN_MACHINE_CODE);
        let before = code(&one);
        std::fs::write(&one, "a program that was built anew").expect("writes");
        assert_ne!(code(&one), before);
    }
}
