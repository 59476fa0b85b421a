//! Shortages: what the system did not have just then.

use std::fmt;
use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use serde::{Deserialize, Serialize};

use crate::refused::errno;
use crate::refused::near::{self, Near};
use crate::text::Words;

/// A resource that is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Scarce {
    /// Open files that this process may have (`RLIMIT_NOFILE`).
    Descriptors,
    /// Open files of the whole system (`fs.file-max`).
    SystemDescriptors,
    /// Processes and threads: of this user (`RLIMIT_NPROC`), of a cgroup (`pids.max`) or of the system.
    Processes,
    /// Memory, or addresses (`RLIMIT_AS`).
    Memory,
}

/// A process could not be started because something was short that may be there later. This is nobody's
/// fault: the pool goes on with the workers it has, and tries again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Shortage {
    /// The resource that is short.
    pub of: Scarce,
    /// This process's own soft limit of the resource, if that is the cause.
    pub limit: Option<u64>,
    /// The system's message.
    pub message: String,
}

/// A child that something is too short for exits with this code plus the resource's index in [`SCARCE`].
const EXIT_CODES: i32 = 211;

const SCARCE: [Scarce; 4] =
    [Scarce::Descriptors, Scarce::SystemDescriptors, Scarce::Processes, Scarce::Memory];

impl Scarce {
    fn of(error: &io::Error) -> Option<Scarce> {
        match errno(error)? {
            Errno::MFILE => Some(Scarce::Descriptors),
            // The kernel also limits how many descriptors one user may have under way in sockets.
            Errno::NFILE | Errno::TOOMANYREFS => Some(Scarce::SystemDescriptors),
            // The C library says this where there is no room for a thread's stack.
            Errno::AGAIN if matches!(near::what_refuses_a_thread(), Some(Near::Limit(resource)) if resource != Resource::Nproc) => {
                Some(Scarce::Memory)
            }
            Errno::AGAIN => Some(Scarce::Processes),
            Errno::NOMEM | Errno::NOBUFS => Some(Scarce::Memory),
            _ => None,
        }
    }
}

impl Shortage {
    /// Sorts an error: `Some` if it is a shortage.
    pub fn of(error: &io::Error) -> Option<Shortage> {
        Scarce::of(error).map(|of| Shortage::new(of, error.to_string()))
    }

    /// Returns the same error; a shortage then also says what to do about it.
    pub fn explained(error: io::Error) -> io::Error {
        match Shortage::of(&error) {
            Some(shortage) => io::Error::new(error.kind(), shortage),
            None => error,
        }
    }

    /// Finds the shortage that a child has met that exited with this code, if it is one's. `message` is what it said.
    pub fn of_exit_code(code: i32, message: &str) -> Option<Shortage> {
        let index = usize::try_from(code.checked_sub(EXIT_CODES)?).ok()?;
        Some(Shortage::new(*SCARCE.get(index)?, message.trim().to_string()))
    }

    /// Returns the exit code for a child that met this error before it was ready.
    pub fn exit_code(error: &io::Error) -> Option<i32> {
        let of = Scarce::of(error)?;
        let index = SCARCE.iter().position(|scarce| *scarce == of)?;
        Some(EXIT_CODES + index as i32)
    }

    pub fn new(of: Scarce, message: String) -> Shortage {
        let resource = match of {
            Scarce::Descriptors => Some(Resource::Nofile),
            Scarce::Processes => Some(Resource::Nproc),
            Scarce::Memory => Some(Resource::As),
            Scarce::SystemDescriptors => None,
        };
        let limit = resource.and_then(|resource| getrlimit(resource).current);
        Shortage { of, limit, message }
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = self.limit.map(|limit| format!(", {limit} now")).unwrap_or_default();
        // A message that names its limit is right about it, and the others are not guessed at.
        if self.message.contains("RLIMIT_") || self.message.contains("pids.max is") {
            let what = match self.of {
                Scarce::Descriptors | Scarce::SystemDescriptors => "no further file can be opened",
                Scarce::Processes => "no further process or thread may be started",
                Scarce::Memory => "there is no memory for another process or thread",
            };
            return write!(f, "{what}: {}; or ask for fewer workers", Words(&self.message));
        }
        match self.of {
            Scarce::Descriptors => write!(
                f,
                "this process has as many files open as it may: raise RLIMIT_NOFILE (ulimit -n{limit}), or ask for fewer \
                 workers"
            )?,
            Scarce::SystemDescriptors => f.write_str(
                "the system has as many files open, or under way, as it may: raise fs.file-max or ulimit -n, or ask \
                 for fewer workers",
            )?,
            Scarce::Processes => write!(
                f,
                "no further process or thread may be started: raise RLIMIT_NPROC (ulimit -u{limit}), the cgroup's \
                 pids.max or kernel.threads-max, or ask for fewer workers"
            )?,
            Scarce::Memory => write!(
                f,
                "there is no memory for another process: free some, raise RLIMIT_AS (ulimit -v{limit}) or the cgroup's \
                 memory.max, or ask for fewer workers"
            )?,
        }
        match self.message.as_str() {
            "" => Ok(()),
            message => write!(f, " ({})", Words(message)),
        }
    }
}

impl std::error::Error for Shortage {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_known_by_its_error_and_by_the_end_of_a_child_that_met_it() {
        let errors = [
            (Errno::MFILE, Scarce::Descriptors, "ulimit -n"),
            (Errno::NFILE, Scarce::SystemDescriptors, "fs.file-max"),
            (Errno::AGAIN, Scarce::Processes, "ulimit -u"),
            (Errno::NOMEM, Scarce::Memory, "ulimit -v"),
        ];
        for (errno, of, advice) in errors {
            let error = io::Error::from(errno);
            let shortage = Shortage::of(&error).expect("a shortage");
            assert_eq!(shortage.of, of);
            assert!(shortage.to_string().contains(advice), "{shortage}");
            let code = Shortage::exit_code(&error).expect("a code");
            let of_child = Shortage::of_exit_code(code, "its words\n").expect("a shortage");
            assert_eq!((of_child.of, of_child.message.as_str()), (of, "its words"));
        }
        for errno in [Errno::NOENT, Errno::ACCESS, Errno::PERM, Errno::NOEXEC] {
            assert_eq!(Shortage::of(&errno.into()), None);
        }
        for code in [i32::MIN, -1, 0, 1, 101, 210, 215, i32::MAX] {
            assert_eq!(Shortage::of_exit_code(code, ""), None);
        }
    }
}
