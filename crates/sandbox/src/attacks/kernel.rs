//! The kernel's wide front: calls that no worker needs, each with holes in its history.

use super::{Attack, call, call_past_rights};
use proto::policy::SandboxLayer::{Capabilities, Landlock, Seccomp};

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "io-uring",
        tries: "set up a ring of system calls that no filter sees",
        against: &[Seccomp],
        run: |_| {
            let parameters = [0u64; 16];
            let parameters = parameters.as_ptr() as usize;
            call(libc::SYS_io_uring_setup, [1, parameters, 0, 0, 0, 0]).map(|_| "a descriptor".into())
        },
    },
    Attack {
        name: "bpf",
        tries: "make a BPF map",
        against: &[Capabilities, Seccomp],
        run: |_| {
            // The attributes are those of BPF_MAP_CREATE for an array of one entry with keys of four bytes.
            let mut attributes = [0u32; 32];
            attributes[..4].copy_from_slice(&[2, 4, 8, 1]);
            let attributes = attributes.as_ptr() as usize;
            call(libc::SYS_bpf, [0, attributes, 128, 0, 0, 0]).map(|_| "a descriptor".into())
        },
    },
    Attack {
        name: "performance-events",
        tries: "count events of the processor",
        against: &[Seccomp],
        run: |_| {
            // The attributes (`perf_event_attr`) ask for the software event task-clock, of this process, in user
            // space only.
            let mut attributes = [0u64; 16];
            attributes[0] = 1 | 128 << 32;
            attributes[1] = 1;
            attributes[5] = 1 << 5 | 1 << 6;
            let attributes = attributes.as_ptr() as usize;
            let any = usize::MAX;
            call(libc::SYS_perf_event_open, [attributes, 0, any, any, 0, 0]).map(|_| "a descriptor".into())
        },
    },
    Attack {
        name: "keyring",
        tries: "add a key to the session's keyring",
        against: &[Seccomp],
        run: |_| {
            let kind = c"user".as_ptr() as usize;
            let name = c"wasmpool".as_ptr() as usize;
            // The thread's own keyring is gone with the thread.
            let ring = -1isize as usize;
            call(libc::SYS_add_key, [kind, name, name, 1, ring, 0]).map(|key| format!("key {key}"))
        },
    },
    Attack {
        name: "keyctl",
        tries: "ask for the session's keyring",
        against: &[Seccomp],
        run: |_| {
            let session = -3isize as usize;
            call(libc::SYS_keyctl, [0, session, 0, 0, 0, 0]).map(|key| format!("key {key}"))
        },
    },
    Attack {
        name: "mount",
        tries: "change mounts (in two ways that exclude each other)",
        against: &[Capabilities, Landlock, Seccomp],
        run: |_| {
            let root = c"/".as_ptr() as usize;
            let both = (libc::MS_PRIVATE | libc::MS_SHARED) as usize;
            call_past_rights(libc::SYS_mount, [0, root, 0, both, 0, 0], &[libc::EINVAL])
        },
    },
    Attack {
        name: "new-mount-api",
        tries: "open a file system",
        against: &[Capabilities, Seccomp],
        run: |_| {
            let tmpfs = c"tmpfs".as_ptr() as usize;
            call(libc::SYS_fsopen, [tmpfs, 0, 0, 0, 0, 0]).map(|_| "a descriptor".into())
        },
    },
    Attack {
        name: "chroot",
        tries: "change the root directory to what it is",
        against: &[Capabilities, Seccomp],
        run: |_| {
            let root = c"/".as_ptr() as usize;
            call(libc::SYS_chroot, [root, 0, 0, 0, 0, 0]).map(|_| "changed".into())
        },
    },
    Attack {
        name: "kernel-log",
        tries: "ask for the size of the kernel's log",
        against: &[Seccomp],
        run: |_| call(libc::SYS_syslog, [10, 0, 0, 0, 0, 0]).map(|bytes| format!("{bytes} bytes")),
    },
    Attack {
        name: "load-module",
        tries: "load a module into the kernel (of no bytes)",
        against: &[Capabilities, Seccomp],
        run: |_| {
            let past = [libc::EFAULT, libc::ENOEXEC, libc::EINVAL];
            call_past_rights(libc::SYS_init_module, [0, 0, c"".as_ptr() as usize, 0, 0, 0], &past)
        },
    },
    Attack {
        name: "load-kernel",
        tries: "load another kernel (with flags that do not exist)",
        against: &[Capabilities, Seccomp],
        run: |_| call_past_rights(libc::SYS_kexec_load, [0, 17, 0, 0xffff, 0, 0], &[libc::EINVAL]),
    },
    Attack {
        name: "reboot",
        tries: "reboot (with the wrong magic number)",
        against: &[Capabilities, Seccomp],
        run: |_| call_past_rights(libc::SYS_reboot, [0; 6], &[libc::EINVAL]),
    },
    Attack {
        name: "swap-on",
        tries: "swap to a file that does not exist",
        against: &[Capabilities, Seccomp],
        run: |_| {
            let nowhere = c"/nowhere/at/all".as_ptr() as usize;
            call_past_rights(libc::SYS_swapon, [nowhere, 0, 0, 0, 0, 0], &[libc::ENOENT])
        },
    },
    Attack {
        name: "accounting",
        tries: "have processes accounted in a file that does not exist",
        against: &[Capabilities, Seccomp],
        run: |_| {
            let nowhere = c"/nowhere/at/all".as_ptr() as usize;
            call_past_rights(libc::SYS_acct, [nowhere, 0, 0, 0, 0, 0], &[libc::ENOENT])
        },
    },
    Attack {
        name: "host-name",
        tries: "set the machine's name to what it is",
        against: &[Capabilities, Seccomp],
        run: |_| {
            let mut names = [0u8; 6 * 65];
            call(libc::SYS_uname, [names.as_mut_ptr() as usize, 0, 0, 0, 0, 0])?;
            // The name is the second field of `struct utsname`, whose fields have 65 bytes each.
            let name = &names[65..130];
            let len = name.iter().position(|byte| *byte == 0).unwrap_or_default();
            call(libc::SYS_sethostname, [name.as_ptr() as usize, len, 0, 0, 0, 0]).map(|_| "set".into())
        },
    },
    Attack {
        name: "clock",
        tries: "adjust the clock (by a tick that cannot be)",
        against: &[Capabilities, Seccomp],
        run: |_| {
            // The first field of `struct timex` is `modes`: ADJ_TICK, with a tick of zero.
            let mut adjustment = [0u64; 32];
            adjustment[0] = 0x4000;
            let adjustment = adjustment.as_mut_ptr() as usize;
            call_past_rights(libc::SYS_adjtimex, [adjustment, 0, 0, 0, 0, 0], &[libc::EINVAL])
        },
    },
    Attack {
        name: "open-by-handle",
        tries: "open a file past all directories (by a handle that is none)",
        against: &[Capabilities, Seccomp],
        run: |_| {
            let handle = [8u32, 1, 0, 0];
            let at = libc::AT_FDCWD as isize as usize;
            let arguments = [at, handle.as_ptr() as usize, 0, 0, 0, 0];
            call_past_rights(libc::SYS_open_by_handle_at, arguments, &[libc::ESTALE, libc::EINVAL])
        },
    },
    Attack {
        name: "watch-everything",
        tries: "be told of every file that is opened (fanotify)",
        against: &[Seccomp],
        run: |_| call(libc::SYS_fanotify_init, [0; 6]).map(|_| "a descriptor".into()),
    },
    #[cfg(target_arch = "x86_64")]
    Attack {
        name: "ports",
        tries: "speak to hardware by its ports",
        against: &[Capabilities, Seccomp],
        run: |_| {
            call(libc::SYS_iopl, [3, 0, 0, 0, 0, 0])?;
            call(libc::SYS_iopl, [0; 6]).map(|_| "could".into())
        },
    },
    #[cfg(target_arch = "x86_64")]
    Attack {
        // The entry has other numbers, which a filter that does not look at the entry lets through.
        name: "old-entry",
        tries: "enter the kernel as a program of 32 bits does (getpid)",
        against: &[Seccomp],
        run: |_| {
            let pid: u64;
            // SAFETY: getpid takes nothing and changes nothing; where the entry does not exist the
            // process dies, which is an outcome.
            unsafe { std::arch::asm!("int 0x80", inout("rax") 20u64 => pid) };
            Ok(format!("returned {pid}"))
        },
    },
    #[cfg(target_arch = "x86_64")]
    Attack {
        name: "segments",
        tries: "read the table of its own segments (modify_ldt)",
        against: &[Seccomp],
        run: |_| {
            let mut table = [0u8; 64];
            call(libc::SYS_modify_ldt, [0, table.as_mut_ptr() as usize, 64, 0, 0, 0])
                .map(|bytes| format!("{bytes} bytes"))
        },
    },
];
