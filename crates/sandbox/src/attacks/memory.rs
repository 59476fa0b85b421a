//! Code and memory that a process should not make.

use std::io;
use std::ptr;

use super::{Attack, call};
use proto::policy::SandboxLayer::{ResourceLimits, Seccomp};

const PAGE: usize = 4096;

/// This is more address space than a worker may have; none of it is touched.
const BEYOND_ALL_LIMITS: usize = 1 << 43;

/// This is more memory than a throw-away worker may hold.
const TO_HOLD: usize = 192 << 20;

/// Each round fills this much memory and hides it from the limits.
const ROUND: usize = 16 << 20;
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
        name: "heap-memory",
        tries: "move the heap's end beyond every limit",
        against: &[ResourceLimits],
        run: |_| {
            let end = call(libc::SYS_brk, [0; 6])?;
            let moved = call(libc::SYS_brk, [end + (8 << 30), 0, 0, 0, 0, 0])?;
            if moved == end { Err(io::ErrorKind::OutOfMemory.into()) } else { Ok("moved".into()) }
        },
    },
    Attack {
        name: "file-copy-memory",
        tries: "map a file for writes of its own, far beyond its end",
        against: &[ResourceLimits],
        run: |_| {
            of_any_file(|file| call(libc::SYS_mmap, [0, BEYOND_ALL_LIMITS, READ_WRITE, 0x4002, file, 0]))
        },
    },
    Attack {
        name: "shared-anonymous",
        tries: "take memory that RLIMIT_DATA does not count: shared",
        against: &[Seccomp],
        run: |_| uncounted(libc::MAP_SHARED | libc::MAP_ANONYMOUS),
    },
    Attack {
        name: "shared-validate",
        tries: "the same, by the newer way to ask for it",
        against: &[Seccomp],
        run: |_| uncounted(libc::MAP_SHARED_VALIDATE | libc::MAP_ANONYMOUS),
    },
    Attack {
        name: "shared-file",
        tries: "map a file that it was given for writes that its other readers see",
        against: &[Seccomp],
        run: |_| of_any_file(|file| call(libc::SYS_mmap, [0, PAGE, READ_WRITE, 1, file, 0])),
    },
    Attack {
        name: "growing-stack",
        tries: "take memory that RLIMIT_DATA does not count: a stack",
        against: &[Seccomp],
        run: |_| uncounted(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_GROWSDOWN),
    },
    Attack {
        name: "moved-stack",
        tries: "move a page of the main thread's stack and make it larger than every limit (mremap)",
        against: &[Seccomp],
        run: |_| {
            let page = below_the_stack(256 << 10);
            fill(page, PAGE);
            let flags = libc::MREMAP_MAYMOVE as usize;
            call(libc::SYS_mremap, [page, PAGE, 8 << 30, flags, 0, 0]).map(|_| "8 GiB".into())
        },
    },
    Attack {
        name: "stack-in-pieces",
        tries: "grow the main thread's stack beyond RLIMIT_STACK, by cutting off what it has",
        against: &[ResourceLimits],
        run: |_| {
            let top = below_the_stack(256 << 10);
            for (number, page) in (1..=TO_HOLD / PAGE).map(|number| (number, top - number * PAGE)) {
                fill(page, PAGE);
                // The part below the gap is a new, small stack to the kernel.
                if number % (ROUND / 4 / PAGE) == 0 {
                    call(libc::SYS_munmap, [page + PAGE, PAGE, 0, 0, 0, 0])?;
                }
            }
            Ok(format!("holds {} MiB", TO_HOLD >> 20))
        },
    },
    Attack {
        name: "read-only-memory",
        tries: "fill memory and make it read-only, which RLIMIT_DATA counts no longer, again and again",
        against: &[ResourceLimits],
        run: |_| {
            for _ in 0..TO_HOLD / ROUND {
                let round = call(libc::SYS_mmap, [0, ROUND, READ_WRITE, PRIVATE, usize::MAX, 0])?;
                fill(round, ROUND);
                call(libc::SYS_mprotect, [round, ROUND, libc::PROT_READ as usize, 0, 0, 0])?;
            }
            Ok(format!("holds {} MiB", TO_HOLD >> 20))
        },
    },
    Attack {
        name: "page-tables",
        tries: "fill page tables: read a byte of each 2 MiB of 8 TiB",
        against: &[ResourceLimits],
        run: |_| {
            let flags = PRIVATE | libc::MAP_NORESERVE as usize;
            let read = libc::PROT_READ as usize;
            let at = call(libc::SYS_mmap, [0, BEYOND_ALL_LIMITS, read, flags, usize::MAX, 0])?;
            for page in (0..32_768).map(|number| at + number * (2 << 20)) {
                // SAFETY: the page lies within what was just mapped, and is only read.
                unsafe { ptr::with_exposed_provenance::<u8>(page).read_volatile() };
            }
            Ok("128 MiB of page tables".into())
        },
    },
    Attack {
        name: "huge-pages",
        tries: "take pages of the system's own pool of huge ones",
        against: &[Seccomp],
        run: |_| {
            let flags = PRIVATE | libc::MAP_HUGETLB as usize;
            call(libc::SYS_mmap, [0, 2 << 20, READ_WRITE, flags, usize::MAX, 0]).map(|_| "mapped".into())
        },
    },
    Attack {
        name: "merge-memory",
        tries: "have the kernel merge its pages with those of other processes (MADV_MERGEABLE)",
        against: &[Seccomp],
        run: |_| {
            let page = map(READ_WRITE)?;
            let advice = libc::MADV_MERGEABLE as usize;
            call(libc::SYS_madvise, [page, PAGE, advice, 0, 0, 0]).map(|_| "agreed".into())
        },
    },
    Attack {
        name: "pipe-buffer",
        tries: "make the buffer of its pipe larger",
        against: &[Seccomp],
        run: |_| {
            let set = libc::F_SETPIPE_SZ as usize;
            call(libc::SYS_fcntl, [2, set, 1 << 20, 0, 0, 0]).map(|bytes| format!("{bytes} bytes"))
        },
    },
    Attack {
        name: "socket-buffer",
        tries: "make the buffer of its socket larger",
        against: &[Seccomp],
        run: |_| {
            let bytes = 1u32 << 30;
            let level = libc::SOL_SOCKET as usize;
            let option = libc::SO_SNDBUF as usize;
            let at = (&raw const bytes).expose_provenance();
            of_any_file(|file| call(libc::SYS_setsockopt, [file, level, option, at, 4, 0]))
        },
    },
    Attack {
        name: "timers",
        tries: "make a timer, of which the kernel keeps a record each",
        against: &[Seccomp],
        run: |_| {
            let mut id = 0u32;
            let at = (&raw mut id).expose_provenance();
            call(libc::SYS_timer_create, [0, 0, at, 0, 0, 0]).map(|_| "made".into())
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

fn map(protection: usize) -> io::Result<usize> {
    call(libc::SYS_mmap, [0, PAGE, protection, PRIVATE, usize::MAX, 0])
}

/// Maps 8 GiB, which is more than `RLIMIT_DATA` allows, and writes to a page of it.
fn uncounted(flags: libc::c_int) -> io::Result<String> {
    let flags = (flags | libc::MAP_NORESERVE) as usize;
    let at = call(libc::SYS_mmap, [0, 8 << 30, READ_WRITE, flags, usize::MAX, 0])?;
    fill(at + (8 << 30) - PAGE, PAGE);
    Ok("8 GiB".into())
}

/// Tries the call on each descriptor that a worker may have, and returns the first success.
fn of_any_file(call: impl Fn(usize) -> io::Result<usize>) -> io::Result<String> {
    let mut last = Err(io::ErrorKind::NotFound.into());
    for file in 3..32 {
        last = call(file);
        if last.is_ok() {
            break;
        }
    }
    last.map(|_| "done".into())
}

/// Returns the start of a page this far below the used part of this thread's stack, which is the main
/// thread's.
fn below_the_stack(bytes: usize) -> usize {
    let here = 0u8;
    ((&raw const here).expose_provenance() - bytes) & !(PAGE - 1)
}

fn fill(at: usize, len: usize) {
    for page in (at..at + len).step_by(PAGE) {
        // SAFETY: the page is mapped to be written, or is where the stack grows if it may. If it is neither,
        // the process dies, and that outcome is what the attack looks for.
        unsafe { ptr::with_exposed_provenance_mut::<u8>(page).write_volatile(1) };
    }
}
