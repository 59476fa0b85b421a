//! stdin, stdout and stderr as this process was given them.
//!
//! Whoever opened them may have made them non-blocking. That is a property of the open file and not of this
//! process: another program at the same pipe or terminal sets it for all. A call that would wait then fails
//! with EAGAIN, which is no error: these streams wait themselves, and go on.
//!
//! Rust's runtime opens a closed stdout (`>&-`) as /dev/null before `main` begins, and all output would be
//! lost in silence. So this module looks at stdout earlier, when the executable is loaded, and fails each
//! write to a stdout that was closed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

static STDOUT_WAS_CLOSED: AtomicBool = AtomicBool::new(false);

extern "C" fn look_at_stdout() {
    // SAFETY: F_GETFD reads a descriptor's flags and touches no memory, whether the descriptor is open or
    // not.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    STDOUT_WAS_CLOSED.store(flags == -1, Ordering::Relaxed);
}

// SAFETY: `.init_array` holds pointers to functions of this signature, which the loader calls once; this
// function needs nothing of the runtime.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_AT_STDOUT: extern "C" fn() = look_at_stdout;

/// A stream whose calls wait, even if the open file is non-blocking.
#[derive(Debug)]
pub(super) struct Waiting<S>(S);

/// stdin without a buffer: what is not read here is left for the next process that reads it.
pub(super) fn stdin() -> Waiting<BorrowedFd<'static>> {
    Waiting(rustix::stdio::stdin())
}

/// stdout without a buffer.
pub(super) fn stdout() -> Waiting<io::StdoutLock<'static>> {
    Waiting(io::stdout().lock())
}

/// stderr without a buffer.
pub(super) fn stderr() -> Waiting<io::StderrLock<'static>> {
    Waiting(io::stderr().lock())
}

impl<S: AsFd> Waiting<S> {
    fn retried<T>(
        &self,
        event: PollFlags,
        mut call: impl FnMut(&S) -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match call(&self.0) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    // If the poll fails, the next call says why.
                    let _ = rustix::event::poll(&mut [PollFd::new(&self.0, event)], None);
                }
                done => return Ok(done?),
            }
        }
    }
}

impl io::Read for Waiting<BorrowedFd<'static>> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.retried(PollFlags::IN, |stream| rustix::io::read(stream, &mut *into))
    }
}

impl io::Write for Waiting<io::StdoutLock<'static>> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if STDOUT_WAS_CLOSED.load(Ordering::Relaxed) {
            return Err(io::Error::other("it is closed"));
        }
        self.retried(PollFlags::OUT, |stream| rustix::io::write(stream, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl io::Write for Waiting<io::StderrLock<'static>> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.retried(PollFlags::OUT, |stream| rustix::io::write(stream, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_block_is_waited_for() {
        let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
        for end in [&reader, &writer] {
            rustix::io::ioctl_fionbio(end, true).expect("it is a pipe");
        }
        let data: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
        let read = std::thread::scope(|scope| {
            let reads = scope.spawn(|| {
                let mut all = Vec::new();
                while all.len() < data.len() {
                    let read = Waiting(&reader).retried(PollFlags::IN, |fd| {
                        let mut piece = vec![0; 4096];
                        rustix::io::read(fd, &mut piece[..]).map(|len| piece[..len].to_vec())
                    });
                    all.extend(read.expect("it waits"));
                }
                all
            });
            let mut from = 0;
            while from < data.len() {
                let written =
                    Waiting(&writer).retried(PollFlags::OUT, |fd| rustix::io::write(fd, &data[from..]));
                from += written.expect("it waits");
            }
            reads.join().expect("it reads")
        });
        assert_eq!(read, data);
    }
}
