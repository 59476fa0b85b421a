//! Other processes, and more of one's own.

use std::io;

use super::{Attack, call, call_past_rights, refused};
use proto::policy::SandboxLayer::{Capabilities, Identity, Landlock, NotDumpable, ResourceLimits, Seccomp};
use proto::probe::Targets;

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "signal-host",
        tries: "send the host a signal (0)",
        against: &[Landlock, Seccomp],
        run: |targets| call(libc::SYS_kill, [host(targets), 0, 0, 0, 0, 0]).map(|_| "sent".into()),
    },
    Attack {
        name: "signal-sibling",
        tries: "send another worker a signal (0)",
        against: &[Landlock, Seccomp],
        run: |targets| call(libc::SYS_kill, [sibling(targets), 0, 0, 0, 0, 0]).map(|_| "sent".into()),
    },
    Attack {
        name: "signal-thread",
        tries: "send the host's main thread a signal (0)",
        against: &[Landlock, Seccomp],
        run: |targets| {
            call(libc::SYS_tgkill, [host(targets), host(targets), 0, 0, 0, 0]).map(|_| "sent".into())
        },
    },
    Attack {
        name: "abort-sibling",
        tries: "the one signal that the filter lets through (SIGABRT), to the sibling",
        against: &[Landlock, Seccomp],
        run: |targets| {
            let sibling = sibling(targets);
            let abort = libc::SIGABRT as usize;
            call(libc::SYS_tgkill, [sibling, sibling, abort, 0, 0, 0]).map(|_| "sent".into())
        },
    },
    Attack {
        name: "pidfd-host",
        tries: "hold the host by a descriptor",
        against: &[Seccomp],
        run: |targets| {
            call(libc::SYS_pidfd_open, [host(targets), 0, 0, 0, 0, 0]).map(|_| "a descriptor".into())
        },
    },
    Attack {
        name: "trace-host",
        tries: "attach to the host",
        against: &[Landlock, Identity, Seccomp],
        run: |targets| seize(host(targets)),
    },
    Attack {
        name: "trace-sibling",
        tries: "attach to another worker",
        against: &[Landlock, NotDumpable, Seccomp],
        run: |targets| seize(sibling(targets)),
    },
    Attack {
        name: "read-host-memory",
        tries: "read a secret from the host's memory",
        against: &[Landlock, Identity, Seccomp],
        run: |targets| transfer(libc::SYS_process_vm_readv, host(targets), targets.host_address),
    },
    Attack {
        name: "read-sibling-memory",
        tries: "read another worker's memory",
        against: &[Landlock, NotDumpable, Seccomp],
        run: |targets| transfer(libc::SYS_process_vm_readv, sibling(targets), 4096),
    },
    Attack {
        name: "write-sibling-memory",
        tries: "write to another worker's memory",
        against: &[Landlock, NotDumpable, Seccomp],
        run: |targets| transfer(libc::SYS_process_vm_writev, sibling(targets), 4096),
    },
    Attack {
        name: "compare-host",
        tries: "compare the host's kernel objects with one's own",
        against: &[Identity, Landlock, Seccomp],
        run: |targets| {
            let own = std::process::id() as usize;
            call(libc::SYS_kcmp, [own, host(targets), 1, 0, 0, 0]).map(|_| "compared".into())
        },
    },
    Attack {
        name: "host-priority",
        tries: "set the host's priority to what it is",
        against: &[Identity, Seccomp],
        run: |targets| {
            let process = libc::PRIO_PROCESS as usize;
            // The kernel counts from 40 down.
            let nice = 20 - call(libc::SYS_getpriority, [process, host(targets), 0, 0, 0, 0])? as isize;
            call(libc::SYS_setpriority, [process, host(targets), nice as usize, 0, 0, 0])
                .map(|_| "set".into())
        },
    },
    Attack {
        name: "host-affinity",
        tries: "set the host's processors to what they are",
        against: &[Identity, Seccomp],
        run: |targets| {
            let mut mask = [0u64; 16];
            let mask = mask.as_mut_ptr() as usize;
            call(libc::SYS_sched_getaffinity, [host(targets), 128, mask, 0, 0, 0])?;
            call(libc::SYS_sched_setaffinity, [host(targets), 128, mask, 0, 0, 0]).map(|_| "set".into())
        },
    },
    Attack {
        name: "host-limits",
        tries: "set one of the host's resource limits to what it is",
        against: &[Identity, Seccomp],
        run: |targets| {
            let mut limit = [0u64; 2];
            let files = libc::RLIMIT_NOFILE as usize;
            let limit = limit.as_mut_ptr() as usize;
            call(libc::SYS_prlimit64, [host(targets), files, 0, limit, 0, 0])?;
            call(libc::SYS_prlimit64, [host(targets), files, limit, 0, 0, 0]).map(|_| "set".into())
        },
    },
    Attack {
        name: "raise-limits",
        tries: "have core dumps again",
        against: &[ResourceLimits, Seccomp],
        run: |_| {
            let limit = [1u64 << 20; 2];
            let core = libc::RLIMIT_CORE as usize;
            let limit = limit.as_ptr() as usize;
            call(libc::SYS_prlimit64, [0, core, limit, 0, 0, 0]).map(|_| "raised".into())
        },
    },
    Attack {
        name: "fork",
        tries: "start a process",
        against: &[Seccomp],
        run: |_| {
            let child = call(libc::SYS_clone, [libc::SIGCHLD as usize, 0, 0, 0, 0, 0])?;
            if child == 0 {
                let _ = call(libc::SYS_exit_group, [0; 6]);
            }
            Ok(format!("process {child}"))
        },
    },
    Attack {
        name: "thread",
        tries: "start a thread",
        against: &[Seccomp],
        run: |_| {
            let thread = std::thread::Builder::new().spawn(|| ())?;
            thread.join().map(|()| "it ran".into()).map_err(|_| refused("it panicked"))
        },
    },
    Attack {
        name: "user-namespace",
        tries: "have all capabilities in a user namespace of its own",
        against: &[Seccomp],
        run: |_| {
            let flags = libc::CLONE_NEWUSER as usize;
            call(libc::SYS_unshare, [flags, 0, 0, 0, 0, 0]).map(|_| "unshared".into())
        },
    },
    Attack {
        name: "join-namespace",
        tries: "join the host's network namespace",
        against: &[Identity, Seccomp],
        run: |targets| {
            let pidfd = call(libc::SYS_pidfd_open, [host(targets), 0, 0, 0, 0, 0])?;
            call(libc::SYS_setns, [pidfd, libc::CLONE_NEWNET as usize, 0, 0, 0, 0]).map(|_| "joined".into())
        },
    },
    Attack {
        name: "become-root",
        tries: "become root",
        against: &[Identity, Seccomp],
        run: |_| {
            call(libc::SYS_setresuid, [0; 6])?;
            match call(libc::SYS_geteuid, [0; 6])? {
                0 => Ok("root".into()),
                other => Err(refused(&format!("still user {other}"))),
            }
        },
    },
    Attack {
        name: "take-capabilities",
        tries: "have a capability",
        against: &[Capabilities, Seccomp],
        run: |_| {
            // The header says version 3. The data are the effective, permitted and inheritable sets with
            // CAP_CHOWN, twice.
            let header = [0x2008_0522u32, 0];
            let data = [1u32, 1, 0, 0, 0, 0];
            let header = header.as_ptr() as usize;
            let data = data.as_ptr() as usize;
            call(libc::SYS_capset, [header, data, 0, 0, 0, 0]).map(|_| "has it".into())
        },
    },
    Attack {
        name: "be-dumpable",
        tries: "let others attach again",
        against: &[Seccomp],
        run: |_| {
            let dumpable = libc::PR_SET_DUMPABLE as usize;
            call(libc::SYS_prctl, [dumpable, 1, 0, 0, 0, 0]).map(|_| "dumpable".into())
        },
    },
    Attack {
        name: "outlive-host",
        tries: "not to be killed with the host's thread",
        against: &[Seccomp],
        run: |_| {
            let death = libc::PR_SET_PDEATHSIG as usize;
            call(libc::SYS_prctl, [death, 0, 0, 0, 0, 0]).map(|_| "forgotten".into())
        },
    },
    Attack {
        name: "real-time",
        tries: "run before all others (SCHED_FIFO)",
        against: &[Identity, Seccomp],
        run: |_| {
            let parameter = [1i32];
            let fifo = libc::SCHED_FIFO as usize;
            let parameter = parameter.as_ptr() as usize;
            call(libc::SYS_sched_setscheduler, [0, fifo, parameter, 0, 0, 0])?;
            let other = libc::SCHED_OTHER as usize;
            let none = [0i32];
            call(libc::SYS_sched_setscheduler, [0, other, none.as_ptr() as usize, 0, 0, 0])
                .map(|_| "did".into())
        },
    },
    Attack {
        name: "same-addresses",
        tries: "switch off the randomisation of addresses for what comes after exec",
        against: &[Seccomp],
        run: |_| {
            let fixed = libc::ADDR_NO_RANDOMIZE as usize;
            call(libc::SYS_personality, [fixed, 0, 0, 0, 0, 0]).map(|_| "switched off".into())
        },
    },
    Attack {
        name: "queue-signal",
        tries: "send the host a signal (0) with a forged sender",
        against: &[Landlock, Seccomp],
        run: |targets| {
            let info = [0u64; 16];
            let info = info.as_ptr() as usize;
            call_past_rights(libc::SYS_rt_sigqueueinfo, [host(targets), 0, info, 0, 0, 0], &[])
        },
    },
];

fn host(targets: &Targets) -> usize {
    targets.host_pid as usize
}

fn sibling(targets: &Targets) -> usize {
    targets.sibling_pid as usize
}

/// Attaches, stops nobody, and is detached when this process ends.
fn seize(pid: usize) -> io::Result<String> {
    call(libc::SYS_ptrace, [libc::PTRACE_SEIZE as usize, pid, 0, 0, 0, 0]).map(|_| "attached".into())
}

/// Moves bytes between this process's memory and another's. An error for a bad address says that it was looked at.
fn transfer(number: libc::c_long, pid: usize, address: u64) -> io::Result<String> {
    let mut bytes = [0u8; 8];
    let own = [bytes.as_mut_ptr() as usize, 8];
    let other = [address as usize, 8];
    let arguments = [pid, own.as_ptr() as usize, 1, other.as_ptr() as usize, 1, 0];
    call_past_rights(number, arguments, &[libc::EFAULT])
}
