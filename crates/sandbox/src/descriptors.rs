//! Leaves three descriptors: one socket, `/dev/null`, the pipe for stderr. Nothing of the embedder's is left.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::process::{Resource, getrlimit};

use proto::memfd;
use proto::refused::calling;

/// Numbers of descriptors are tried one by one up to this one, if there is no other way: it is the kernel's own
/// bound of descriptors (`fs.nr_open`), unless somebody has raised it.
const NUMBERS_MAX: u64 = 1 << 20;

/// Lists the descriptors that are left in the end.
pub(super) fn left(dirs: usize) -> String {
    let but = if dirs == 0 { String::new() } else { format!(", {dirs} directories") };
    format!("one socket, /dev/null, a pipe for stderr{but}")
}

/// The socket moves away from 0, and /dev/null takes its place: nothing that reads stdin by
/// mistake can swallow a message.
pub(super) fn take_socket() -> io::Result<OwnedFd> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)
        .map_err(calling("fcntl (F_DUPFD_CLOEXEC of the control socket)"))?;
    rustix::stdio::dup2_stdin(memfd::null()?).map_err(calling("dup2 (of /dev/null)"))?;
    Ok(socket)
}

/// Closes what the embedder opened without CLOEXEC: every descriptor from 3 but the socket.
///
/// # Errors
/// The open descriptors cannot be found: `close_range`, /proc and a limit are all missing.
pub(super) fn close_others(socket: &OwnedFd) -> io::Result<()> {
    let Err(refused) = close_ranges(socket.as_raw_fd()) else { return Ok(()) };
    close_listed(socket.as_raw_fd()).or_else(|_| close_numbers(socket.as_raw_fd())).map_err(|()| {
        let refused = calling("close_range")(refused);
        io::Error::other(format!("{refused}. /proc/self/fd, which would do as well, cannot be read"))
    })
}

fn close_ranges(socket: RawFd) -> io::Result<()> {
    let first = socket as u32 + 1;
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

/// Closes what /proc lists. `close_range` came with Linux 5.9, and old filters of containers refuse it.
fn close_listed(socket: RawFd) -> Result<(), ()> {
    let entries = std::fs::read_dir("/proc/self/fd").map_err(drop)?;
    // The names are collected first, since the directory itself is open meanwhile.
    let names: Result<Vec<_>, _> = entries.map(|entry| entry.map(|entry| entry.file_name())).collect();
    let numbers = names.map_err(drop)?.into_iter().filter_map(|name| name.to_str()?.parse().ok());
    numbers.for_each(|number| close(number, socket));
    Ok(())
}

/// Tries to close each possible number.
fn close_numbers(socket: RawFd) -> Result<(), ()> {
    let max = getrlimit(Resource::Nofile).maximum.filter(|max| *max <= NUMBERS_MAX).ok_or(())?;
    (3..max as RawFd).for_each(|number| close(number, socket));
    Ok(())
}

fn close(number: RawFd, socket: RawFd) {
    if number >= 3 && number != socket {
        // SAFETY: as in `close_ranges`, nothing in this process owns the descriptor. Closing an unused number
        // is an error that changes nothing.
        unsafe { libc::close(number) };
    }
}
