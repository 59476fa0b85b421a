//! What a child does to itself before it touches anything of a guest's.
//!
//! Linear steps, in an order that matters; each has its *why*. The result is a
//! [`LockedDown`], which the main loops demand: no step can be forgotten on the way.

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};

/// Proof that this process has locked itself down. Only [`enter`] makes one.
#[derive(Debug)]
pub(crate) struct LockedDown(());

/// Takes the control socket that came as stdin, and locks the process down.
///
/// # Errors
/// Any step that fails: a child that is not locked down does nothing.
pub(crate) fn enter() -> io::Result<(OwnedFd, LockedDown)> {
    // The socket moves away from 0, and /dev/null takes its place: nothing that reads stdin
    // by mistake can swallow a message.
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    drop(null);

    // Its own session: the terminal's Ctrl-C is the host's to handle. It fails only for a
    // process group leader, which a child is not.
    let _ = rustix::process::setsid();

    // The host's death is ours, even in an endless loop of native code. If it died before
    // this line, the socket is at its end, and the first receive says so.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;

    // Descriptors that the embedder opened without CLOEXEC.
    close_above(&socket)?;

    // A core dump would hold the tasks' data. The hard limit goes too: nobody raises it again.
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;

    // Under memory pressure the kernel takes a child before it takes the host. Before the step
    // that makes /proc/self root's. Where it is refused, the kernel's own choice stands.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");

    // No exec regains what we gave up, and no other process of this user reads our memory.
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;

    Ok((socket, LockedDown(())))
}

/// Closes every descriptor above the socket's. Those below are 0 to 2: dup took the first free one.
fn close_above(socket: &OwnedFd) -> io::Result<()> {
    use std::os::fd::AsRawFd;
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
