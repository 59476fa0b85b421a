//! A system that lacks something, played by a filter on this process and all that it starts.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// A system call that is answered with an error.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refusal {
    number: i64,
    errno: i32,
    when: When,
}

/// The condition under which a call is refused.
#[derive(Debug, Clone, Copy)]
enum When {
    Always,
    /// Argument `.0` is `.1`.
    Is(u8, u64),
    /// Argument `.0` has the bits `.1`.
    Has(u8, u64),
    /// Argument `.0` is no null pointer.
    IsThere(u8),
    /// Argument `.0` is no null pointer, and argument `.1` is `.2`.
    IsThereAnd(u8, u8, u64),
}

const fn refusal(number: i64, when: When, errno: i32) -> Refusal {
    Refusal { number, errno, when }
}

/// A kernel that was built without it.
pub(crate) const LANDLOCK: &[Refusal] =
    &[refusal(libc::SYS_landlock_create_ruleset, When::Always, libc::ENOSYS)];

/// A kernel that has it switched off (`lsm=` without it).
pub(crate) const LANDLOCK_OFF: &[Refusal] =
    &[refusal(libc::SYS_landlock_create_ruleset, When::Always, libc::EOPNOTSUPP)];

/// Containers refuse like this, and so does `user.max_user_namespaces=0`.
pub(crate) const NAMESPACES: &[Refusal] =
    &[refusal(libc::SYS_unshare, When::Has(0, libc::CLONE_NEWUSER as u64), libc::EPERM)];

/// AppArmor's profile for unprivileged user namespaces, and SELinux, refuse like this.
pub(crate) const MOUNTS: &[Refusal] = &[
    refusal(libc::SYS_mount, When::Always, libc::EPERM),
    refusal(libc::SYS_pivot_root, When::Always, libc::EPERM),
];

/// The mount itself is allowed, and what follows is not.
pub(crate) const PIVOT: &[Refusal] = &[refusal(libc::SYS_pivot_root, When::Always, libc::EPERM)];

/// Limits stay as they are, and can be asked for.
pub(crate) const LIMITS: &[Refusal] = &[refusal(libc::SYS_prlimit64, When::IsThere(2), libc::EPERM)];

/// One of the limits cannot be changed.
pub(crate) const ONE_LIMIT: &[Refusal] =
    &[refusal(libc::SYS_prlimit64, When::IsThereAnd(2, 1, libc::RLIMIT_SIGPENDING as u64), libc::EPERM)];

/// All timers of the user's other processes may be what is allowed (`RLIMIT_SIGPENDING`).
pub(crate) const TIMERS: &[Refusal] = &[refusal(libc::SYS_timer_create, When::Always, libc::EAGAIN)];

/// Linux before 5.9 answers like this, and so do containers that do not know the call.
pub(crate) const CLOSE_RANGE: &[Refusal] = &[refusal(libc::SYS_close_range, When::Always, libc::ENOSYS)];

/// Containers answer like this if their filter is older than the call.
pub(crate) const CLOSE_RANGE_FORBIDDEN: &[Refusal] =
    &[refusal(libc::SYS_close_range, When::Always, libc::EPERM)];

/// A call that a worker cannot do without, its refusal, and the words that the first error must have.
pub(crate) struct Needed {
    pub(crate) refused: Refusal,
    says: &'static [&'static str],
}

const fn needed(number: i64, errno: i32, says: &'static [&'static str]) -> Needed {
    Needed { refused: refusal(number, When::Always, errno), says }
}

pub(crate) const NEEDED: &[Needed] = &[
    needed(libc::SYS_memfd_create, libc::ENOSYS, &["memfd_create", "this kernel does not have it"]),
    needed(libc::SYS_memfd_create, libc::EPERM, &["memfd_create", "seccomp profile", "allow it there"]),
    needed(libc::SYS_memfd_create, libc::EMFILE, &["memfd_create", "RLIMIT_NOFILE is", "ulimit -n"]),
    needed(libc::SYS_ftruncate, libc::EPERM, &["ftruncate", "seccomp profile"]),
    needed(libc::SYS_socketpair, libc::EPERM, &["socketpair", "seccomp profile"]),
    needed(libc::SYS_socketpair, libc::EMFILE, &["socketpair", "RLIMIT_NOFILE is"]),
    needed(libc::SYS_eventfd2, libc::ENOSYS, &["eventfd", "this kernel does not have it"]),
    needed(libc::SYS_pipe2, libc::EPERM, &["pipe", "seccomp profile"]),
    needed(libc::SYS_pidfd_open, libc::ENOSYS, &["pidfd_open", "this kernel does not have it"]),
    needed(libc::SYS_pidfd_open, libc::EPERM, &["pidfd_open", "seccomp profile"]),
    needed(libc::SYS_execve, libc::EACCES, &["start a process", "seccomp profile"]),
    needed(libc::SYS_ioctl, libc::EPERM, &["ioctl", "seccomp profile"]),
    needed(libc::SYS_sendmsg, libc::EPERM, &["sendmsg", "seccomp profile"]),
];

/// Only children make this call.
pub(crate) const PARENT_DEATH: &[Refusal] =
    &[refusal(libc::SYS_prctl, When::Is(0, libc::PR_SET_PDEATHSIG as u64), libc::EPERM)];

pub(crate) fn is_named_by_the_first_error(needed: &Needed) {
    install(&[needed.refused]);
    all_words(&first_error(), needed.says);
}

pub(crate) fn kill_with_their_host_is_needed(_: &super::Case) {
    all_words(&first_error(), &["prctl (PR_SET_PDEATHSIG)", "seccomp profile"]);
}

pub(crate) fn all_words(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
}

/// Returns a pool's first error, with all its sources.
pub(crate) fn first_error() -> String {
    fn chain(error: &dyn std::error::Error) -> String {
        let of_source = error.source().map(|source| format!(": {}", chain(source)));
        format!("{error}{}", of_source.unwrap_or_default())
    }
    let pool = match super::reports::builder(wasmpool::sandbox::SandboxPolicy::BestEffort).build() {
        Ok(pool) => pool,
        Err(error) => return chain(&error),
    };
    let module = match pool.load(&super::reports::wasm()) {
        Ok(module) => module,
        Err(error) => return chain(&error),
    };
    let echo = module.raw_task("echo").expect("has the task");
    let answer = match pool.submit_bytes(&echo, "on") {
        Ok(future) => future.result_timeout(crate::support::PATIENCE).expect("nothing hangs"),
        Err(error) => return chain(&error),
    };
    chain(&answer.expect_err("no worker starts"))
}

/// Directories cannot be made: a hierarchy of cgroups that is not delegated.
pub(crate) const DIRECTORIES: &[Refusal] = &[
    #[cfg(target_arch = "x86_64")]
    refusal(libc::SYS_mkdir, When::Always, libc::EACCES),
    refusal(libc::SYS_mkdirat, When::Always, libc::EACCES),
];

/// A kernel without seccomp(2).
pub(crate) const SECCOMP: &[Refusal] = &[refusal(libc::SYS_seccomp, When::Always, libc::ENOSYS)];

/// A kernel without filters (`CONFIG_SECCOMP_FILTER`).
pub(crate) const SECCOMP_FILTERS: &[Refusal] = &[refusal(libc::SYS_seccomp, When::Always, libc::EINVAL)];

/// The kernel says that it could, and does not.
pub(crate) const SECCOMP_IN_THE_END: &[Refusal] =
    &[refusal(libc::SYS_seccomp, When::Is(0, libc::SECCOMP_SET_MODE_FILTER as u64), libc::EINVAL)];

/// `prctl(PR_SET_NO_NEW_PRIVS)`.
pub(crate) const NO_NEW_PRIVS: &[Refusal] =
    &[refusal(libc::SYS_prctl, When::Is(0, libc::PR_SET_NO_NEW_PRIVS as u64), libc::EPERM)];

/// Refuses the calls from here on, for this thread and what it starts. Root needs no `no_new_privs` for it,
/// and does not get it: workers would inherit it.
pub(crate) fn install(refusals: &[Refusal]) {
    if !rustix::process::getuid().is_root() {
        rustix::thread::set_no_new_privs(true).expect("is allowed to everybody");
    }
    for refusal in refusals {
        let program = program(refusal);
        let filter = libc::sock_fprog {
            len: program.len().try_into().expect("a short program"),
            filter: program.as_ptr().cast_mut().cast(),
        };
        // SAFETY: the filter is a valid program in the kernel's layout, which the kernel copies.
        let refused =
            unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
        assert_eq!(refused, 0, "{refusal:?}: {}", std::io::Error::last_os_error());
    }
}

fn program(refusal: &Refusal) -> BpfProgram {
    use SeccompCmpArgLen::{Dword, Qword};
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let conditions = match refusal.when {
        When::Always => Vec::new(),
        When::Is(argument, value) => vec![SeccompCondition::new(argument, Dword, Eq, value)],
        When::Has(argument, bits) => vec![SeccompCondition::new(argument, Qword, MaskedEq(bits), bits)],
        When::IsThere(argument) => vec![SeccompCondition::new(argument, Qword, Ne, 0)],
        When::IsThereAnd(pointer, argument, value) => vec![
            SeccompCondition::new(pointer, Qword, Ne, 0),
            SeccompCondition::new(argument, Dword, Eq, value),
        ],
    };
    let conditions: Vec<_> =
        conditions.into_iter().map(|condition| condition.expect("a condition")).collect();
    let rules = match conditions.is_empty() {
        true => Vec::new(),
        false => vec![SeccompRule::new(conditions).expect("a rule")],
    };
    let architecture = TargetArch::try_from(std::env::consts::ARCH).expect("is supported");
    let answer = SeccompAction::Errno(refusal.errno.unsigned_abs());
    SeccompFilter::new([(refusal.number, rules)].into(), SeccompAction::Allow, answer, architecture)
        .and_then(BpfProgram::try_from)
        .expect("a filter")
}
