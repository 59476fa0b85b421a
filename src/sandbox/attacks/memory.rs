//! Code and memory that a process should not make.

use super::{Attack, call};
use crate::walls::SandboxLayer::{ResourceLimits, Seccomp};

const PAGE: usize = 4096;
const READ_WRITE: usize = (libc::PROT_READ | libc::PROT_WRITE) as usize;
const ALL: usize = (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) as usize;
const PRIVATE: usize = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "map-write-execute",
        tries: "map memory that is writable and executable",
        against: &[Seccomp],
        run: |_| map(ALL).map(|_| "mapped".into()),
    },
    Attack {
        name: "map-execute",
        tries: "map executable memory",
        against: &[Seccomp],
        run: |_| map((libc::PROT_READ | libc::PROT_EXEC) as usize).map(|_| "mapped".into()),
    },
    Attack {
        name: "protect-write-execute",
        tries: "make memory writable and executable",
        against: &[Seccomp],
        run: |_| {
            let page = map(READ_WRITE)?;
            call(libc::SYS_mprotect, [page, PAGE, ALL, 0, 0, 0]).map(|_| "made".into())
        },
    },
    Attack {
        name: "protect-upper-bits",
        tries: "the same, with bits in the half of the argument that the kernel ignores",
        against: &[Seccomp],
        run: |_| {
            let page = map(READ_WRITE)?;
            call(libc::SYS_mprotect, [page, PAGE, ALL | 1 << 40, 0, 0, 0]).map(|_| "made".into())
        },
    },
    Attack {
        name: "pkey-execute",
        tries: "make memory executable by pkey_mprotect",
        against: &[Seccomp],
        run: |_| {
            let page = map(READ_WRITE)?;
            let no_key = usize::MAX;
            call(libc::SYS_pkey_mprotect, [page, PAGE, ALL, no_key, 0, 0]).map(|_| "made".into())
        },
    },
    Attack {
        name: "memory-file",
        tries: "make a file in memory",
        against: &[Seccomp],
        run: |_| {
            let name = c"x".as_ptr() as usize;
            call(libc::SYS_memfd_create, [name, 0, 0, 0, 0, 0]).map(|_| "made".into())
        },
    },
    Attack {
        name: "lock-memory",
        tries: "lock memory into RAM",
        against: &[Seccomp],
        run: |_| {
            let page = map(READ_WRITE)?;
            call(libc::SYS_mlock, [page, PAGE, 0, 0, 0, 0]).map(|_| "locked".into())
        },
    },
    Attack {
        name: "all-memory",
        tries: "take 1 TiB of writable memory",
        against: &[ResourceLimits],
        run: |_| {
            let no_reserve = PRIVATE | libc::MAP_NORESERVE as usize;
            call(libc::SYS_mmap, [0, 1 << 40, READ_WRITE, no_reserve, usize::MAX, 0]).map(|_| "taken".into())
        },
    },
    Attack {
        name: "page-faults",
        tries: "handle page faults (userfaultfd), which helps to win races in the kernel",
        against: &[Seccomp],
        run: |_| call(libc::SYS_userfaultfd, [1, 0, 0, 0, 0, 0]).map(|_| "a descriptor".into()),
    },
    Attack {
        name: "shared-memory",
        tries: "make a System V segment",
        against: &[Seccomp],
        run: |_| {
            let id = call(libc::SYS_shmget, [libc::IPC_PRIVATE as usize, PAGE, 0o600, 0, 0, 0])?;
            call(libc::SYS_shmctl, [id, libc::IPC_RMID as usize, 0, 0, 0, 0]).map(|_| "made".into())
        },
    },
    Attack {
        name: "message-queue",
        tries: "make a System V message queue",
        against: &[Seccomp],
        run: |_| {
            let id = call(libc::SYS_msgget, [libc::IPC_PRIVATE as usize, 0o600, 0, 0, 0, 0])?;
            call(libc::SYS_msgctl, [id, libc::IPC_RMID as usize, 0, 0, 0, 0]).map(|_| "made".into())
        },
    },
];

fn map(protection: usize) -> std::io::Result<usize> {
    call(libc::SYS_mmap, [0, PAGE, protection, PRIVATE, usize::MAX, 0])
}
