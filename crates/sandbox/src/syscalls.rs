//! Seccomp: the system calls that a child needs once it stands, and no others.
//!
//! A list of data with reasons; whatever is not on it ends the process by SIGSYS. Derived from
//! `strace -f` of the workers under the whole test-suite, and held by tests: each call that is
//! not listed kills, each condition is tried both ways.

mod program;

use std::io;

use libc::{c_int, c_long};
use seccompiler::BpfProgram;

use super::doing;
use proto::preopen::DirAccess;

/// The process that is to live with the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Runs tasks.
    Worker,
    /// Runs tasks, and resets their instances by a scan of its own page map.
    ScanningWorker,
    /// Runs tasks that have directories: a weaker wall, for pools that ask for it.
    WithDirectories {
        /// The directories are only read, or also written.
        access: DirAccess,
        /// The worker also scans the page map, as [`ScanningWorker`](Self::ScanningWorker) does.
        scans: bool,
    },
    /// Compiles one module, in several threads.
    Compiler,
}

impl Profile {
    pub(super) fn has_many_threads(self) -> bool {
        self == Profile::Compiler
    }
}

/// One system call of a list.
#[derive(Debug, Clone)]
pub struct Allowed {
    pub name: &'static str,
    pub number: c_long,
    /// Any of these; always, if there are none.
    pub when: Vec<When>,
}

/// All of these tests must hold.
pub type When = Vec<Test>;

/// Says what must be true of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// Argument `.0` is `.1`.
    Is(u8, u64),
    /// Argument `.0` has none of the bits `.1`.
    Lacks(u8, u64),
    /// Argument `.0`, without the bits `.1`, is `.2`. All 64 bits are compared.
    IsBut(u8, u64, u64),
    /// The same, but only the lower 32 bits are compared, since the kernel ignores the others.
    LowIsBut(u8, u32, u32),
}

use Test::{Is, IsBut, Lacks, LowIsBut};

fn always(name: &'static str, number: c_long) -> Allowed {
    Allowed { name, number, when: Vec::new() }
}

/// Allows the call if one of these tests holds.
fn when(name: &'static str, number: c_long, when: &[Test]) -> Allowed {
    Allowed { name, number, when: when.iter().map(|test| vec![*test]).collect() }
}

const EXEC: u64 = libc::PROT_EXEC as u64;
const WRITE: u64 = libc::PROT_WRITE as u64;

/// These flags are allowed beside `MAP_PRIVATE`. All others are refused, because they make memory that no
/// limit counts (`MAP_GROWSDOWN` makes a stack, `MAP_HUGETLB` takes pages of another pool, and later kernels
/// may add kinds) or because nobody here needs them.
const PRIVATE_WITH: u64 = (libc::MAP_ANONYMOUS
    | libc::MAP_FIXED
    | libc::MAP_FIXED_NOREPLACE
    | libc::MAP_NORESERVE
    | libc::MAP_STACK) as u64;

/// Allocators and the engine give this advice. Other advice could merge a page of this process with pages of
/// other processes (`MADV_MERGEABLE`), or fill page tables without a page (`MADV_GUARD_INSTALL`).
const ADVICE: [c_int; 6] = [
    libc::MADV_DONTNEED,
    libc::MADV_FREE,
    libc::MADV_HUGEPAGE,
    libc::MADV_NOHUGEPAGE,
    libc::MADV_DONTDUMP,
    libc::MADV_DODUMP,
];

/// This is `PR_SET_VMA` of linux/prctl.h; its only operation gives a mapping a name.
const SET_MAPPINGS_NAME: u64 = 0x5356_4d41;

/// Lists the calls that a profile may make.
pub fn allowed(profile: Profile) -> Vec<Allowed> {
    let mut list = both();
    match profile {
        Profile::Worker | Profile::ScanningWorker | Profile::WithDirectories { .. } => list.extend([
            // The watcher waits a moment between two interrupts of one run, WASI for its timers.
            always("clock_nanosleep", libc::SYS_clock_nanosleep),
            // The timers that were made before are set: they stop a task at its limit of CPU time, have its stack taken,
            // and wake the watcher.
            always("timer_settime", libc::SYS_timer_settime),
            // This clock is the CPU time of the thread; the other clocks are read without a system call.
            always("clock_gettime", libc::SYS_clock_gettime),
            // It tells which pages of a memory a task has touched. It says of this process's own pages, and of
            // files' that it has mapped and may write to, whether they are in memory, and no more.
            always("mincore", libc::SYS_mincore),
            naming(&[]),
        ]),
        Profile::Compiler => list.extend([
            // The module comes, and the artifact goes, by descriptor.
            always("read", libc::SYS_read),
            // These are the first steps of threads that were started before the process was sealed, and may
            // still come.
            always("set_robust_list", libc::SYS_set_robust_list),
            always("rseq", libc::SYS_rseq),
            // std looks for the stack of each thread that it starts.
            always("sched_getaffinity", libc::SYS_sched_getaffinity),
            naming(&[vec![Is(0, libc::PR_SET_NAME as u64)]]),
        ]),
    }
    if let Profile::WithDirectories { access, .. } = profile {
        // These calls tell whether a name is there, and what it is, without following it.
        let stat = list.iter_mut().filter(|allowed| allowed.number == libc::SYS_newfstatat);
        stat.for_each(|stat| stat.when.push(vec![Is(3, libc::AT_SYMLINK_NOFOLLOW as u64)]));
        list.extend(files(access));
    }
    if matches!(profile, Profile::ScanningWorker | Profile::WithDirectories { scans: true, .. }) {
        // The call is for the page map, which the process has open; any other descriptor answers with an
        // error.
        list.push(when("ioctl", libc::SYS_ioctl, &[Is(1, PAGEMAP_SCAN)]));
    }
    list
}

/// Tasks with directories also need these calls, which WASI makes for each of its own. The filter does not
/// see which files they reach, neither by path nor by descriptor: Landlock and the mounts do.
fn files(access: DirAccess) -> Vec<Allowed> {
    let read_only = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64;
    let open = match access.is_writable() {
        false => when("openat", libc::SYS_openat, &[Lacks(2, read_only)]),
        true => always("openat", libc::SYS_openat),
    };
    let mut list = vec![
        // A directory is entered before it is opened for a task.
        always("fchdir", libc::SYS_fchdir),
        open,
        // The path's side of it reaches nothing beyond the directory. Its flags are behind a pointer, unseen.
        always("openat2", libc::SYS_openat2),
        always("readlinkat", libc::SYS_readlinkat),
        always("getdents64", libc::SYS_getdents64),
        always("fadvise64", libc::SYS_fadvise64),
        // The second is WASI's way to append where a file system has no other.
        when("fcntl", libc::SYS_fcntl, &[Is(1, libc::F_GETFL as u64), Is(1, libc::F_SETFL as u64)]),
        // A task may try to write to what it has opened to read, and is to be told that it cannot.
        always("pwrite64", libc::SYS_pwrite64),
        // The call appends.
        always("pwritev2", libc::SYS_pwritev2),
        // It is harmless, even for a file that is only read.
        always("fsync", libc::SYS_fsync),
        always("fdatasync", libc::SYS_fdatasync),
    ];
    if access.is_writable() {
        list.extend([
            always("ftruncate", libc::SYS_ftruncate),
            always("mkdirat", libc::SYS_mkdirat),
            always("unlinkat", libc::SYS_unlinkat),
            always("renameat", libc::SYS_renameat),
            always("linkat", libc::SYS_linkat),
            always("symlinkat", libc::SYS_symlinkat),
            always("utimensat", libc::SYS_utimensat),
        ]);
    }
    list
}

/// `_IOWR('f', 16, struct pm_scan_arg)`, of linux/fs.h; the structure has 96 bytes.
const PAGEMAP_SCAN: u64 = 0xc060_6610;

/// These operations on a futex are allowed, with these flags.
const FUTEX_OPERATIONS: [c_int; 4] =
    [libc::FUTEX_WAIT, libc::FUTEX_WAKE, libc::FUTEX_WAIT_BITSET, libc::FUTEX_WAKE_BITSET];
const FUTEX_FLAGS: u32 = (libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME) as u32;

/// Every child needs these calls.
fn both() -> Vec<Allowed> {
    let own_pid = std::process::id();
    vec![
        // These calls are for the control socket and the last words on stderr.
        always("recvmsg", libc::SYS_recvmsg),
        always("sendmsg", libc::SYS_sendmsg),
        always("write", libc::SYS_write),
        // A module's files are read by descriptor. `statx` is answered with ENOSYS; a path that is given here
        // reaches an empty root.
        always("pread64", libc::SYS_pread64),
        when("newfstatat", libc::SYS_newfstatat, &[Is(3, libc::AT_EMPTY_PATH as u64)]),
        always("fstat", libc::SYS_fstat),
        always("close", libc::SYS_close),
        // Memory may be anything but writable and executable at the same time. A mapping is either private,
        // so that `RLIMIT_DATA` counts it, or a file from the host that is shared and only read.
        Allowed {
            name: "mmap",
            number: libc::SYS_mmap,
            when: vec![
                vec![Lacks(2, EXEC), IsBut(3, PRIVATE_WITH, libc::MAP_PRIVATE as u64)],
                vec![Is(2, libc::PROT_READ as u64), Is(3, libc::MAP_SHARED as u64)],
            ],
        },
        when("mprotect", libc::SYS_mprotect, &[Lacks(2, EXEC), Lacks(2, WRITE)]),
        always("munmap", libc::SYS_munmap),
        when("madvise", libc::SYS_madvise, &ADVICE.map(|advice| LowIsBut(2, 0, advice as u32))),
        always("brk", libc::SYS_brk),
        // A thread waits by these, and SIGSTOP and SIGCONT in the middle of a wait need the restart. It waits and
        // wakes. Other operations reach the sleepers of whoever shares the word, and the host shares some: to
        // requeue them elsewhere, or to hold the word as a lock that no wake-up passes.
        when(
            "futex",
            libc::SYS_futex,
            &FUTEX_OPERATIONS.map(|operation| LowIsBut(1, FUTEX_FLAGS, operation as u32)),
        ),
        always("sched_yield", libc::SYS_sched_yield),
        always("restart_syscall", libc::SYS_restart_syscall),
        // Traps are signals; alternate stacks come and go with threads.
        always("rt_sigreturn", libc::SYS_rt_sigreturn),
        always("rt_sigaction", libc::SYS_rt_sigaction),
        always("rt_sigprocmask", libc::SYS_rt_sigprocmask),
        always("sigaltstack", libc::SYS_sigaltstack),
        always("getrandom", libc::SYS_getrandom),
        // The process ends by these: exit, or an abort that is to be seen as one (SIGABRT, not SIGSYS).
        always("exit", libc::SYS_exit),
        always("exit_group", libc::SYS_exit_group),
        always("gettid", libc::SYS_gettid),
        always("getpid", libc::SYS_getpid),
        Allowed {
            name: "tgkill",
            number: libc::SYS_tgkill,
            when: vec![vec![LowIsBut(0, 0, own_pid), LowIsBut(2, 0, libc::SIGABRT as u32)]],
        },
    ]
}

/// Allows allocators to name their mappings, as /proc shows them: that changes nothing else.
fn naming(others: &[When]) -> Allowed {
    let mut when = vec![vec![Is(0, SET_MAPPINGS_NAME), Is(1, 0)]];
    when.extend_from_slice(others);
    Allowed { name: "prctl", number: libc::SYS_prctl, when }
}

/// Answered with ENOSYS instead of death: the C library and std ask for these first, and have
/// another way. Each would let through what cannot be seen from its arguments.
pub fn answered_enosys(profile: Profile) -> Vec<(&'static str, c_long)> {
    // `mremap` could grow any mapping, such as the main thread's stack, which no limit counts once it has
    // moved. The C library's realloc copies instead.
    let mut list = vec![("statx", libc::SYS_statx), ("mremap", libc::SYS_mremap)];
    if let Profile::WithDirectories { .. } = profile {
        // WASI asks for these on its way around a kernel that refuses `openat2`.
        list.extend([("faccessat", libc::SYS_faccessat), ("faccessat2", libc::SYS_faccessat2)]);
    }
    if profile != Profile::Compiler {
        // The engine asks for a file to hold the image of a component's memory, and copies the data without one. What is in
        // such a file no limit counts.
        list.push(("memfd_create", libc::SYS_memfd_create));
    }
    if profile.has_many_threads() {
        // The C library's malloc asks for the kernel's overcommit policy when it shrinks the heap
        // of a thread, and does without. (A worker has but one heap, see `one_heap`.)
        list.push(("openat", libc::SYS_openat));
    }
    list
}

/// Has malloc keep all threads on one heap: a second one, when it shrinks, reads a file of
/// /proc. To be called before a second thread allocates.
pub(super) fn one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers; no other thread exists that could be allocating.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// A profile's filter, made and not yet installed. It names this very process.
#[derive(Debug)]
pub(super) struct Filter {
    program: BpfProgram,
    calls: usize,
}

/// Makes the filter of this process.
pub(super) fn filter(profile: Profile) -> io::Result<Filter> {
    let list = allowed(profile);
    let program = program::assemble(&list, &answered_enosys(profile)).map_err(doing("seccomp"))?;
    Ok(Filter { program, calls: list.len() })
}

impl Filter {
    /// Installs the filter over all threads of this process.
    pub(super) fn install(&self, profile: Profile) -> io::Result<String> {
        seccompiler::apply_filter_all_threads(&self.program).map_err(doing("seccomp"))?;
        let files = match profile {
            Profile::WithDirectories { access, .. } => format!(", {} of them for files", files(access).len()),
            _ => String::new(),
        };
        Ok(format!("{} system calls{files}, the others kill", self.calls))
    }
}

/// Returns whether the kernel can end a process for a system call.
pub fn is_available() -> bool {
    let action: u32 = libc::SECCOMP_RET_KILL_PROCESS;
    // SAFETY: the pointer is to a u32 that lives through the call, as the operation wants it.
    let returned = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL as c_int, 0, &raw const action)
    };
    returned == 0
}
