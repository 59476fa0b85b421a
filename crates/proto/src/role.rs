//! The role of a process that a pool started, and what holds for host and children alike from their first line on.

/// Says what a child process is for. The host names it in the first argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Worker,
    Compiler,
}

impl Role {
    pub fn argument(self) -> &'static str {
        match self {
            Role::Worker => "--wasmpool-role=worker",
            Role::Compiler => "--wasmpool-role=compiler",
        }
    }

    /// The role of this very process, if the pool started it for one.
    pub fn of_this_process() -> Option<Role> {
        let argument = std::env::args_os().nth(1)?;
        [Role::Worker, Role::Compiler].into_iter().find(|role| argument == role.argument())
    }
}

/// A write beyond `RLIMIT_FSIZE` is an error (`EFBIG`) from here on, and does not end the process. A program that has
/// chosen what SIGXFSZ does keeps its choice.
pub fn ignore_file_size_signal() {
    // SAFETY: a default action is replaced by none, and any other is put back: neither runs code of ours.
    unsafe {
        let before = libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        if before != libc::SIG_DFL && before != libc::SIG_ERR {
            libc::signal(libc::SIGXFSZ, before);
        }
    }
}
