//! A tidy child: a session of its own, an end with its host, first in line when memory is short.

use std::io;

use rustix::process::Signal;

use proto::refused::calling;

pub(super) fn begin() -> io::Result<()> {
    // The terminal's Ctrl-C is the host's to handle. It fails only for a process group leader,
    // which a child is not.
    let _ = rustix::process::setsid();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    unblock_signals()?;
    die_with_the_host()
}

/// The host's death is ours, even in an endless loop of native code. If it died before this
/// line, the socket is at its end, and the first receive says so.
pub(super) fn die_with_the_host() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(calling("prctl (PR_SET_PDEATHSIG)"))
}

/// Has the kernel take a child before it takes the host, when memory runs out.
pub(super) fn prefer_for_oom() -> io::Result<String> {
    std::fs::write("/proc/self/oom_score_adj", "500").map_err(calling("write /proc/self/oom_score_adj"))?;
    Ok("oom_score_adj 500".into())
}

/// An embedder may have blocked signals in the thread that spawned us; SIGTERM must arrive.
fn unblock_signals() -> io::Result<()> {
    // SAFETY: an empty set is a valid one; only this thread's mask changes, and no other exists.
    let failed = unsafe {
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &none, std::ptr::null_mut())
    };
    if failed == 0 { Ok(()) } else { Err(calling("rt_sigprocmask")(io::Error::from_raw_os_error(failed))) }
}
