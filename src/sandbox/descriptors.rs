//! Descriptors: one socket, `/dev/null`, the pipe for stderr. Nothing of the embedder's.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// What is left in the end.
pub(super) fn left(dirs: usize) -> String {
    let but = if dirs == 0 { String::new() } else { format!(", {dirs} directories") };
    format!("one socket, /dev/null, a pipe for stderr{but}")
}

/// The socket moves away from 0, and /dev/null takes its place: nothing that reads stdin by
/// mistake can swallow a message.
pub(super) fn take_socket() -> io::Result<OwnedFd> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(socket)
}

/// Closes what the embedder opened without CLOEXEC: every descriptor from 3 but the socket.
pub(super) fn close_others(socket: &OwnedFd) -> io::Result<()> {
    let first = socket.as_raw_fd() as u32 + 1;
    for (from, to) in [(3, first - 2), (first, u32::MAX)] {
        if from > to {
            continue;
        }
        // SAFETY: nothing in this process owns these descriptors: it has just started, and has
        // opened the socket only, which lies in neither range.
        if unsafe { libc::close_range(from, to, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
