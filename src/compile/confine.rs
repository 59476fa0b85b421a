//! What the compiler process does to itself, so that a bomb costs nobody else: priority, memory, threads.

use std::fs::File;
use std::io::{self, Write};
use std::time::Duration;

use rustix::process::{Resource, Rlimit};

use super::settings;
use crate::limits::compile::{CompileLimit, CompileLimits};
use crate::walls::{SandboxLayer, SandboxRequest};

/// How far compilation stands back behind what else runs, tasks first: at 12 each of its threads gets about
/// a fifteenth of a CPU that others want all of. Not 19: then a busy machine would run an honest module into
/// its deadline, and that into quarantine.
const NICE: i32 = 12;

/// The kernel takes one change of an autogroup's niceness in a tenth of a second from all but root, of all
/// processes: so often one is tried that it did not take at once, and how often.
const TRY_AGAIN: Duration = Duration::from_millis(25);
const TRIES_MAX: usize = 40;

/// Lets everything else go first. What cannot be had is left: it is a courtesy, and the limits do not rest
/// on it.
pub(super) fn give_way() {
    let _ = rustix::process::setpriority_process(None, NICE);
    interrupt_nobody();
    // With autogroups each session is one competitor, and niceness counts within it only: the
    // session has a niceness of its own. Hence the session is made here, and not by what follows.
    let _ = rustix::process::setsid();
}

/// The niceness of a session that lets everything else go first, where that could not be set at once. A
/// descriptor that stays open while the module is compiled, for a second at most: whoever takes the compiler
/// over meanwhile can give its session back the niceness that it had.
pub(super) struct Standing(File);

/// Has the whole session give way. Before the process is locked down, since that closes /proc, and after
/// its descriptors are.
pub(super) fn stand_back() -> Option<Standing> {
    let file = File::options().write(true).open("/proc/self/autogroup").ok()?;
    let standing = Standing(file);
    (!standing.step_back()).then_some(standing)
}

impl Standing {
    /// `false` if the kernel is to be asked again.
    fn step_back(&self) -> bool {
        let refused = (&self.0).write_all(NICE.to_string().as_bytes()).err();
        refused.and_then(|error| error.raw_os_error()) != Some(rustix::io::Errno::AGAIN.raw_os_error())
    }

    /// Asks again, while the module is compiled: nobody waits for this, and most modules are done before.
    fn keep_trying(self) -> io::Result<()> {
        let retry = move || {
            for _ in 0..TRIES_MAX {
                // Sleeps by futex, which the filter allows.
                std::thread::park_timeout(TRY_AGAIN);
                if self.step_back() {
                    return;
                }
            }
        };
        // Its stack counts as the module's memory.
        std::thread::Builder::new().name("give-way".into()).stack_size(64 * 1024).spawn(retry).map(drop)
    }
}

/// Its share of the CPU is one thing, when it takes it another: a worker that has waited a moment for its
/// host is not to wait for the end of our slice, nor to be interrupted by the beginning of one. As a batch it
/// preempts nobody; and since Linux 6.12 who has the shorter slice preempts, and ours is as long as there is.
fn interrupt_nobody() {
    const SLICE_NS: u64 = 100_000_000;
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_BATCH as u32,
        sched_flags: 0,
        sched_nice: NICE,
        sched_priority: 0,
        sched_runtime: SLICE_NS,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: sched_setattr(2) reads a structure of the size that stands in it.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}

/// Limits the process to what the request allows, for good. Before the first byte of a module is read.
///
/// These limits are the module's and no layer of the sandbox: they are set under every policy. Where the
/// system refuses to set them, they are demanded as the layer `rlimits` is.
///
/// # Errors
/// What the system says.
pub(super) fn limit(
    limits: &CompileLimits,
    threads: u32,
    sandbox: &SandboxRequest,
    standing: Option<Standing>,
) -> io::Result<()> {
    let layer = SandboxLayer::ResourceLimits;
    match limit_resources(limits) {
        Err(error) if sandbox.requests(layer) && !sandbox.policy.can_do_without(layer) => return Err(error),
        _ => {}
    }
    if let Some(standing) = standing {
        // Without, it stands where it stood.
        let _ = standing.keep_trying();
    }
    // All of the engine's parallel work is on this pool.
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1) as usize)
        .thread_name(|index| format!("compile-{index}"))
        .build_global()
        .map_err(|error| io::Error::other(format!("cannot start {threads} threads: {error}")))
}

fn limit_resources(limits: &CompileLimits) -> io::Result<()> {
    let memory = limits.get(CompileLimit::Memory);
    // Data, and not addresses: what the engine reserves and never touches is for the most part neither.
    // Beyond it an allocation fails, and with it the process, by SIGABRT.
    set(Resource::Data, memory.saturating_add(settings::RESERVED_DATA_BYTES))?;
    // The main thread's stack is not data. The others' are.
    let stack = rustix::process::getrlimit(Resource::Stack).current.unwrap_or(u64::MAX);
    set(Resource::Stack, stack.min(settings::COMPILER_STACK_BYTES))?;
    // What is written stays in memory too: it is a memfd.
    set(Resource::Fsize, memory)
}

/// Both limits: a process that was taken over does not raise them again.
fn set(resource: Resource, bytes: u64) -> io::Result<()> {
    // The hard limit may be lower already, and is then enough.
    let hard = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let bytes = Some(bytes.min(hard));
    Ok(rustix::process::setrlimit(resource, Rlimit { current: bytes, maximum: bytes })?)
}
