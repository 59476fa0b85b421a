//! The compiler process confines itself, so that a bomb costs nobody else memory, threads or CPU time.

use std::io;
use std::time::Duration;

use rustix::process::{Resource, Rlimit};

use crate::config;
use proto::limits::compile::{CompileLimit, CompileLimits};
use proto::policy::{SandboxLayer, SandboxRequest};
use proto::refused::calling;
use proto::slice;

/// Makes the compiler preempt nobody, in a session of its own. A refused call is ignored: this is a courtesy,
/// and no limit rests on it. The host decides when the compiler steps back (`src/host/priority.rs`).
pub(super) fn give_way() {
    interrupt_nobody();
    // Where there are autogroups, each session is one competitor for the CPUs, so the compiler gets its own before
    // it has threads.
    let _ = rustix::process::setsid();
}

/// Makes each thread count as one competitor, as without autogroups: there the session with all its threads
/// counts as one, and would get a smaller part beside busy processes. Only root may do this; others keep
/// their smaller part. It happens before the process is locked down, which closes /proc.
pub(super) fn count_threads(threads: u32) {
    // Neighbouring niceness values have weights of 5 to 4, so this gives the session the weight of its
    // threads.
    let nice = -(f64::from(threads.max(1)).ln() / 1.25f64.ln()).round();
    let _ = std::fs::write("/proc/self/autogroup", nice.max(-20.0).to_string());
}

/// Decides when the process takes its share of the CPU: a worker that has waited a moment for its host must
/// not wait for the end of our time slice, nor be interrupted by the beginning of one. A batch process
/// preempts nobody; and since Linux 6.12 the process with the shorter slice preempts, so ours is as long as
/// possible.
fn interrupt_nobody() {
    slice::set(libc::SCHED_BATCH, Duration::from_millis(100));
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
    data_at_start: u64,
) -> io::Result<()> {
    let layer = SandboxLayer::ResourceLimits;
    match limit_resources(limits, data_at_start) {
        Err(error) if sandbox.requests(layer) && !sandbox.policy.can_do_without(layer) => return Err(error),
        _ => {}
    }
    start_threads(threads)
}

/// Starts the pool on which the engine does all its parallel work. The pool cannot be built a second time, so
/// its threads are started first and wait for their work: it gets as many as can be had. If none can be had,
/// the main thread does everything.
fn start_threads(wanted: u32) -> io::Result<()> {
    let (sender, works) = crossbeam_channel::unbounded::<rayon::ThreadBuilder>();
    let started = (0..wanted.max(1)).map_while(|index| {
        let works = works.clone();
        let thread = std::thread::Builder::new().name(format!("compile-{index}"));
        thread.spawn(move || works.recv().into_iter().for_each(rayon::ThreadBuilder::run)).ok()
    });
    let built = match started.count() {
        0 => rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global(),
        threads => rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .spawn_handler(move |work| sender.send(work).map_err(|_| io::Error::other("it is gone")))
            .build_global(),
    };
    built.map_err(|error| io::Error::other(format!("cannot set up {wanted} threads: {error}")))
}

/// The limit is on data and not on addresses, since most of what the engine reserves and never touches is not
/// data. An allocation beyond it fails and ends the process by SIGABRT.
pub(super) fn data_bytes(limits: &CompileLimits) -> u64 {
    limits.get(CompileLimit::Memory).saturating_add(config::RESERVED_DATA_BYTES)
}

/// Sets each limit for itself: one that cannot be set does not stop the others. What the process had at its
/// start is added.
fn limit_resources(limits: &CompileLimits, data_at_start: u64) -> io::Result<()> {
    let memory = limits.get(CompileLimit::Memory);
    let data = set(Resource::Data, data_bytes(limits).saturating_add(data_at_start));
    let data = data.map_err(calling("setrlimit (DATA)"));
    // The main thread's stack is not data. The others' are.
    let stack = rustix::process::getrlimit(Resource::Stack).current.unwrap_or(u64::MAX);
    let stack = set(Resource::Stack, stack.min(config::COMPILER_STACK_BYTES));
    // A file counts as memory, since it is a memfd.
    let files = set(Resource::Fsize, memory);
    data.and(stack.map_err(calling("setrlimit (STACK)"))).and(files.map_err(calling("setrlimit (FSIZE)")))
}

/// Sets both the soft and the hard limit, since a process that was taken over must not raise them again.
fn set(resource: Resource, bytes: u64) -> io::Result<()> {
    // The hard limit may be lower already, and is then enough.
    let hard = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let bytes = Some(bytes.min(hard));
    Ok(rustix::process::setrlimit(resource, Rlimit { current: bytes, maximum: bytes })?)
}
