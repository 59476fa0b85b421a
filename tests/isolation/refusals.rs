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

/// Which of its calls.
#[derive(Debug, Clone, Copy)]
enum When {
    Always,
    /// Argument `.0` is `.1`.
    Is(u8, u64),
    /// Argument `.0` has the bits `.1`.
    Has(u8, u64),
    /// Argument `.0` is no null pointer.
    IsThere(u8),
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

/// As in containers, or by `user.max_user_namespaces=0`.
pub(crate) const NAMESPACES: &[Refusal] =
    &[refusal(libc::SYS_unshare, When::Has(0, libc::CLONE_NEWUSER as u64), libc::EPERM)];

/// As by AppArmor's profile for unprivileged user namespaces, or SELinux.
pub(crate) const MOUNTS: &[Refusal] = &[
    refusal(libc::SYS_mount, When::Always, libc::EPERM),
    refusal(libc::SYS_pivot_root, When::Always, libc::EPERM),
];

/// The mount itself is allowed, and what follows is not.
pub(crate) const PIVOT: &[Refusal] = &[refusal(libc::SYS_pivot_root, When::Always, libc::EPERM)];

/// Limits stay as they are, and can be asked for.
pub(crate) const LIMITS: &[Refusal] = &[refusal(libc::SYS_prlimit64, When::IsThere(2), libc::EPERM)];

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

/// It says that it could, and does not.
pub(crate) const SECCOMP_IN_THE_END: &[Refusal] =
    &[refusal(libc::SYS_seccomp, When::Is(0, libc::SECCOMP_SET_MODE_FILTER as u64), libc::EINVAL)];

/// `prctl(PR_SET_NO_NEW_PRIVS)`.
pub(crate) const NO_NEW_PRIVS: &[Refusal] =
    &[refusal(libc::SYS_prctl, When::Is(0, libc::PR_SET_NO_NEW_PRIVS as u64), libc::EPERM)];

/// From here on, for this thread and what it starts. Root needs no `no_new_privs` for it, and does
/// not get it: workers would inherit it.
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
    let condition = match refusal.when {
        When::Always => None,
        When::Is(argument, value) => Some(SeccompCondition::new(argument, Dword, Eq, value)),
        When::Has(argument, bits) => Some(SeccompCondition::new(argument, Qword, MaskedEq(bits), bits)),
        When::IsThere(argument) => Some(SeccompCondition::new(argument, Qword, Ne, 0)),
    };
    let rule = condition.map(|condition| SeccompRule::new(vec![condition.expect("a condition")]));
    let rules = rule.map(|rule| rule.expect("a rule")).into_iter().collect();
    let architecture = TargetArch::try_from(std::env::consts::ARCH).expect("is supported");
    let answer = SeccompAction::Errno(refusal.errno.unsigned_abs());
    SeccompFilter::new([(refusal.number, rules)].into(), SeccompAction::Allow, answer, architecture)
        .and_then(BpfProgram::try_from)
        .expect("a filter")
}
