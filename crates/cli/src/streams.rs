//! stdin, stdout and stderr as this process was given them.
//!
//! Whoever opened them may have made them non-blocking: [`Waiting`] goes on all the same.
//!
//! Rust's runtime opens a closed stdout (`>&-`) as /dev/null before `main` begins, and all output would be
//! lost in silence. So each write to a stdout that was closed fails.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use files::{self, Waiting};

/// A write to stdout is under way.
static STDOUT_IS_WRITTEN_TO: AtomicBool = AtomicBool::new(false);

/// Returns whether a write to stdout is under way at this moment, which mostly means that its reader does not
/// read.
pub(super) fn is_stdout_waited_for() -> bool {
    STDOUT_IS_WRITTEN_TO.load(Ordering::Relaxed)
}

/// stdin without a buffer: what is not read here is left for the next process that reads it.
pub(super) fn stdin() -> Waiting<BorrowedFd<'static>> {
    Waiting(rustix::stdio::stdin())
}

/// stdout without a buffer.
#[derive(Debug)]
pub(super) struct Stdout(Waiting<io::StdoutLock<'static>>);

pub(super) fn stdout() -> Stdout {
    Stdout(Waiting(io::stdout().lock()))
}

/// stderr without a buffer.
pub(super) fn stderr() -> Waiting<io::StderrLock<'static>> {
    Waiting(io::stderr().lock())
}

impl io::Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if files::was_closed(libc::STDOUT_FILENO) {
            return Err(io::Error::other("it is closed"));
        }
        // Whoever writes holds the lock of stdout.
        STDOUT_IS_WRITTEN_TO.store(true, Ordering::Relaxed);
        let written = self.0.write(bytes);
        STDOUT_IS_WRITTEN_TO.store(false, Ordering::Relaxed);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
