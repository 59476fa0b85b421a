//! A compiler process and its end: the request, the deadline, and what its death says of the module.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::cache::{Compiled, Stamp};
use super::core::Core;
use super::cpu::ProcessClock;
use super::memory;
use super::poll_set::{self, PollSet};
use super::priority::Pace;
use super::requests::SupervisorRequest;
use super::spawn::{self, Child};
use super::usage::{self, Usage};
use crate::error::{Death, DeathCause, ModuleError, Phase};
use files::{HostFiles, Waiting};
use proto::artifact::{DESCRIPTION_BYTES_MAX, DESCRIPTION_FILE_BYTES_MAX};
use proto::control::{self, ControlSocket};
use proto::description::{CodeKind, ModuleOutline, WantedEntry};
use proto::limits::compile::{CompileLimit, CompileLimits};
use proto::limits::{
    ARTIFACT_BYTES_MAX, MODULE_BYTES_MAX, NO_COMPILER_AFTER, SHORTAGE_BACKOFF, SHORTAGE_BACKOFF_MAX,
};
use proto::message::{CompileError, CompileReply, CompileRequest, CompileWork};
use proto::refused::{calling, errno};
use proto::shortage::Shortage;
use proto::sync::{Lock, Sleep};
use proto::{fingerprint, memfd};

/// A failed allocation says this on stderr before it aborts; the number of bytes stands between.
const ALLOCATION_FAILED: (&str, &str) = ("memory allocation of ", " bytes failed");

/// Compiles in a process of its own, and waits for it. The process is killed if it goes over a limit.
///
/// # Errors
/// The compiler's own, [`ModuleError::CompileLimit`], [`ModuleError::CompileLimitUnavailable`], or how the process
/// died.
pub(crate) fn compile(
    core: &Core,
    wasm: &[u8],
    code: CodeKind,
    limits: &CompileLimits,
    entry: Option<WantedEntry>,
) -> Result<Compiled, ModuleError> {
    let [artifact, description] = run(core, wasm, code, limits, CompileWork::Compile { entry })?;
    let artifact_bytes = finish(&artifact, ARTIFACT_BYTES_MAX).map_err(system)?;
    finish(&description, DESCRIPTION_FILE_BYTES_MAX).map_err(system)?;
    Compiled::read(artifact, description, artifact_bytes).ok_or_else(unknown_way)
}

/// Reads a module's outline, in a process of its own as well.
///
/// # Errors
/// Those of [`compile`].
pub(crate) fn outline(
    core: &Core,
    wasm: &[u8],
    limits: &CompileLimits,
) -> Result<ModuleOutline, ModuleError> {
    let [_, outline] = run(core, wasm, CodeKind::Plain, limits, CompileWork::Outline)?;
    let len = finish(&outline, DESCRIPTION_BYTES_MAX).map_err(system)?;
    let mut bytes = vec![0; len as usize];
    outline.read_exact_at(&mut bytes, 0).map_err(system)?;
    let outline = postcard::from_bytes(&bytes).ok();
    outline.filter(ModuleOutline::is_well_formed).ok_or_else(unknown_way)
}

fn unknown_way() -> ModuleError {
    ModuleError::Compiler { message: "it described the module in an unknown way".into() }
}

/// The two files that a compiler has written, which are not sealed yet.
fn run(
    core: &Core,
    wasm: &[u8],
    code: CodeKind,
    limits: &CompileLimits,
    work: CompileWork,
) -> Result<[File; 2], ModuleError> {
    can_be_had(limits)?;
    let Started { artifact, description, socket, child } = start(core, wasm, code, limits, &work)?;
    await_end(core, limits, wasm.len(), socket, child).map_err(|error| match error {
        // A compiler dies with the supervisor's thread, so its death says nothing of the module.
        ModuleError::CompilerDied { .. } if core.is_stopped() => closed(),
        error => error,
    })?;
    Ok([artifact, description])
}

/// Sorts an error of the system's: a lack of descriptors is told apart.
fn system(error: io::Error) -> ModuleError {
    let message = error.to_string();
    match errno(&error) {
        Some(Errno::MFILE | Errno::NFILE) => ModuleError::NoDescriptors { message },
        _ => ModuleError::Compiler { message },
    }
}

/// A compiler process, and the files that it writes.
struct Started {
    artifact: File,
    description: File,
    socket: ControlSocket,
    child: Child,
}

/// Starts a compiler. If the system has no room for one just then, it is tried again after a pause.
fn start(
    core: &Core,
    wasm: &[u8],
    code: CodeKind,
    limits: &CompileLimits,
    work: &CompileWork,
) -> Result<Started, ModuleError> {
    let began = Instant::now();
    let mut pause = SHORTAGE_BACKOFF;
    loop {
        let error = match try_start(core, wasm, code, limits, work) {
            Ok(started) => return started.ok_or_else(closed),
            Err(error) => error,
        };
        let Some(shortage) = Shortage::of(&error) else { return Err(system(error)) };
        if began.elapsed() >= NO_COMPILER_AFTER {
            return Err(match system(error) {
                error @ ModuleError::NoDescriptors { .. } => error,
                _ => ModuleError::NoCompiler { shortage },
            });
        }
        if pause == SHORTAGE_BACKOFF {
            tracing::warn!("no compiler can be started, and it is tried again: {shortage}");
        }
        if poll_set::is_ready(&core.supervisor.gone, pause) {
            return Err(closed());
        }
        pause = pause.saturating_mul(2).min(SHORTAGE_BACKOFF_MAX);
    }
}

/// Returns `None` if the pool has stopped.
fn try_start(
    core: &Core,
    wasm: &[u8],
    code: CodeKind,
    limits: &CompileLimits,
    work: &CompileWork,
) -> io::Result<Option<Started>> {
    let source = memfd::sealed("wasmpool-wasm", wasm)?;
    let artifact = memfd::empty("wasmpool-artifact")?;
    let description = memfd::empty("wasmpool-description")?;
    let (socket, theirs) = control::pair()?;
    let threads = u32::try_from(core.settings.compiler.threads).unwrap_or(u32::MAX);
    // The group may hold twice the limit, since it also counts the files in memory that the compiler writes.
    let limit_bytes = limits.get(CompileLimit::Memory);
    let memory_bytes_max = limit_bytes.saturating_mul(2);
    let request = CompileRequest {
        wire: fingerprint::WIRE,
        work: work.clone(),
        code,
        limits: limits.clone(),
        threads,
        sandbox: core.settings.sandbox.request.clone(),
    };
    socket
        .send(&request, &[source.as_fd(), artifact.as_fd(), description.as_fd()])
        .map_err(calling("sendmsg (to the compiler)"))?;
    let (reply, child) = crossbeam_channel::bounded(1);
    core.supervisor.send(SupervisorRequest::SpawnCompiler {
        socket: theirs,
        memory_bytes_max,
        limit_bytes,
        reply,
    });
    // If there is no answer within this time, the pool has stopped: the supervisor answers at once, or drops the
    // job.
    match child.recv_timeout(core.settings.workers.start_timeout) {
        Ok(child) => Ok(Some(Started { artifact, description, socket, child: child? })),
        Err(_) => Ok(None),
    }
}

fn closed() -> ModuleError {
    ModuleError::Closed { message: "it was shut down or is broken".into() }
}

/// Refuses a limit that this process cannot grant: a lower one would not be what was asked for.
fn can_be_had(limits: &CompileLimits) -> Result<(), ModuleError> {
    let wanted = limits.get(CompileLimit::Memory);
    let most = memory::data_bytes_max();
    if wanted <= most {
        return Ok(());
    }
    let why = "this process itself may have no more (its hard limit of data, `ulimit -Hd`)".into();
    Err(ModuleError::CompileLimitUnavailable { kind: CompileLimit::Memory, asked: wanted, most, why })
}

/// Says why the host has ended a compiler.
enum Ended {
    Over(CompileLimit),
    /// The pool was closed.
    Closed,
}

/// The clocks and limits of one compiler.
struct Times<'a> {
    limits: &'a CompileLimits,
    /// `None` means that the timeout is beyond all time.
    deadline: Option<Instant>,
    clock: Option<ProcessClock>,
    threads: u32,
    pace: Pace<'a>,
}

impl Times<'_> {
    /// Returns how long to wait before the next look, or the limit that was passed.
    fn look(&mut self) -> Result<Option<Duration>, CompileLimit> {
        let now = Instant::now();
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(now));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(CompileLimit::Time);
        }
        // A process that is gone has no clock; only its end is waited for.
        let Some(used) = self.clock.and_then(ProcessClock::read) else { return Ok(left) };
        let left_cpu = self.limits.cpu().saturating_sub(used);
        if left_cpu.is_zero() {
            return Err(CompileLimit::CpuTime);
        }
        let again = self.pace.look(used, self.threads, now).min(left_cpu / self.threads);
        Ok(Some(left.map_or(again, |left| left.min(again)).max(LOOK_AGAIN_MIN)))
    }
}

/// A compiler is looked at no more often than this.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(1);

/// The descriptors by which a compiler is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watched {
    Compiler,
    Stderr,
    Socket,
    /// It hangs up when the pool's supervisor is gone.
    Supervisor,
}

/// Waits for the answer and the end of the compiler, whichever way it goes.
fn await_end(
    core: &Core,
    limits: &CompileLimits,
    wasm_bytes: usize,
    socket: ControlSocket,
    mut child: Child,
) -> Result<(), ModuleError> {
    // A process inherits its parent's peak at its start, which is not its own.
    let inherited = usage::own_peak();
    let mut times = Times {
        limits,
        deadline: Instant::now().checked_add(limits.time()),
        clock: ProcessClock::of(child.pid),
        // The main thread works, too.
        threads: u32::try_from(core.settings.compiler.threads).unwrap_or(u32::MAX).saturating_add(1),
        pace: Pace::new(&core.mistrust, child.pidfd.as_fd(), wasm_bytes),
    };
    let mut reply: Option<CompileReply> = None;
    let mut ended = None;
    // Socket and stderr are dropped at their ends, which would poll as readable for ever.
    let mut socket = Some(socket);
    let mut stderr_open = true;
    loop {
        let mut wait = None;
        if ended.is_none() {
            match times.look() {
                Ok(again) => wait = again,
                Err(kind) => {
                    ended = Some(Ended::Over(kind));
                    spawn::kill(&child.pidfd);
                }
            }
        }
        let mut set = PollSet::new();
        set.watch(Watched::Compiler, child.pidfd.as_fd());
        if stderr_open {
            set.watch(Watched::Stderr, child.stderr.pipe.as_fd());
        }
        if let Some(socket) = &socket {
            set.watch(Watched::Socket, socket.0.as_fd());
        }
        if ended.is_none() {
            set.watch(Watched::Supervisor, core.supervisor.gone.as_fd());
        }
        let ready = set.wait(wait);
        if ready.has(Watched::Supervisor) {
            // A child that had not yet asked to die with the supervisor outlives it.
            ended = Some(Ended::Closed);
            spawn::kill(&child.pidfd);
        }
        stderr_open = stderr_open && child.stderr.drain();
        let said = socket.as_ref().map(|socket| socket.receive::<CompileReply>(0, RecvFlags::DONTWAIT));
        match said {
            Some(Ok(Some((message, _)))) => {
                reply = Some(message);
                socket = None;
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Some(Ok(None) | Err(_)) => socket = None,
            None => {}
        }
        if ready.has(Watched::Compiler) {
            break;
        }
    }
    drop(times);
    let (cause, usage) = usage::reap(child.pidfd.as_fd(), child.pid);
    let cause = usage::at_cpu_limit(spawn::in_group(child.group.as_ref(), cause), &usage);
    let peak = usage.peak_bytes.filter(|peak| *peak > inherited);
    let death = Death::new(child.pid, cause, Phase::Compiling, child.stderr.text());
    let end = judge(limits, ended, reply, death, &Usage { peak_bytes: peak, ..usage });
    if let Err(ModuleError::CompileLimit { kind, .. }) = &end
        && matches!(kind, CompileLimit::CpuTime | CompileLimit::Time | CompileLimit::Memory)
    {
        core.mistrust.begin(Instant::now());
    }
    end
}

/// Says how the compilation ended.
fn judge(
    limits: &CompileLimits,
    ended: Option<Ended>,
    reply: Option<CompileReply>,
    death: Death,
    usage: &Usage,
) -> Result<(), ModuleError> {
    match (ended, reply, &death.cause) {
        (Some(Ended::Closed), ..) => Err(closed()),
        (Some(Ended::Over(kind)), ..) => Err(over_time(limits, kind, usage)),
        (None, Some(Err(CompileError::CompileLimit { kind: CompileLimit::Memory, .. })), _) => {
            Err(over_memory(limits, usage, 0))
        }
        (None, Some(Err(refusal)), _) => Err(refusal.into()),
        (None, Some(Ok(())), DeathCause::Exited(0) | DeathCause::Unknown) => Ok(()),
        (None, ..) => Err(of_death(limits, death, usage)),
    }
}

fn over_time(limits: &CompileLimits, kind: CompileLimit, usage: &Usage) -> ModuleError {
    let seen = u64::try_from(usage.cpu.as_millis()).unwrap_or(u64::MAX);
    over(limits, kind, seen)
}

/// `failed` is the allocation that there was no room for, or 0 if that is not known.
fn over_memory(limits: &CompileLimits, usage: &Usage, failed: u64) -> ModuleError {
    let resident = usage.peak_bytes.unwrap_or(0).saturating_add(failed);
    // The limit counts what is allocated, of which some is not resident: that much it was.
    over(limits, CompileLimit::Memory, resident.max(limits.get(CompileLimit::Memory)))
}

fn over(limits: &CompileLimits, kind: CompileLimit, seen: u64) -> ModuleError {
    let limit = limits.get(kind);
    let others = Vec::new();
    ModuleError::CompileLimit { kind, limit, seen, function: None, offset: None, others, quarantined: false }
}

/// Returns whether the module was too much for the memory that there is, or the compiler died of something else.
fn of_death(limits: &CompileLimits, death: Death, usage: &Usage) -> ModuleError {
    let aborted = death.cause == DeathCause::Signaled(rustix::process::Signal::ABORT.as_raw());
    let killed = death.cause == DeathCause::Signaled(rustix::process::Signal::KILL.as_raw());
    // The kernel's own limit on a group of processes may lie a little under ours.
    let near = limits.get(CompileLimit::Memory) / 10 * 9;
    match failed_allocation(&death.stderr_tail) {
        Some(failed) if aborted => over_memory(limits, usage, failed),
        _ if killed && usage.peak_bytes.is_some_and(|peak| peak >= near) => over_memory(limits, usage, 0),
        _ => ModuleError::CompilerDied { death, quarantined: false },
    }
}

/// Returns how many bytes an allocation asked for. Several threads may have failed at once, and the first to
/// abort may have cut off what others said: it returns 0 if no number is whole.
fn failed_allocation(stderr: &str) -> Option<u64> {
    let mut said = stderr.split(ALLOCATION_FAILED.0).skip(1).peekable();
    said.peek()?;
    let number = |rest: &str| rest.split_once(ALLOCATION_FAILED.1)?.0.parse().ok();
    Some(said.find_map(number).unwrap_or(0))
}

/// Seals what the compiler has written: from here on nobody can change it. Returns its size.
fn finish(file: &File, bytes_max: u64) -> io::Result<u64> {
    let bytes = file.metadata()?.len();
    if bytes == 0 || bytes > bytes_max {
        return Err(io::Error::other(format!("it wrote {bytes} bytes, the limit is {bytes_max}")));
    }
    memfd::seal(file)?;
    Ok(bytes)
}

/// Lets only so many compilers run at a time, in the order in which they were asked for.
///
/// There is no deadline on the wait: each holder gives its slot up within its own timeout, so the wait ends,
/// and a module is not blamed for those before it.
#[derive(Debug)]
pub(crate) struct CompileSlots {
    queue: Mutex<Queue>,
    moved: Condvar,
}

#[derive(Debug)]
struct Queue {
    free: usize,
    /// The ticket that is next, and the one that the next to come gets.
    next: u64,
    last: u64,
}

/// A slot that is held; dropping it lets the next in.
#[derive(Debug)]
pub(crate) struct CompileSlot<'a>(&'a CompileSlots);

impl CompileSlots {
    pub(crate) fn new(slots: usize) -> CompileSlots {
        CompileSlots { queue: Mutex::new(Queue { free: slots, next: 0, last: 0 }), moved: Condvar::new() }
    }

    /// Waits for a slot.
    pub(crate) fn take(&self) -> CompileSlot<'_> {
        let mut queue = self.queue.hold();
        let ticket = queue.last;
        queue.last += 1;
        while queue.free == 0 || queue.next != ticket {
            queue = self.moved.sleep(queue, None);
        }
        queue.free -= 1;
        queue.next += 1;
        // The one behind may find a slot free too.
        self.moved.notify_all();
        CompileSlot(self)
    }
}

impl Drop for CompileSlot<'_> {
    fn drop(&mut self) {
        self.0.queue.hold().free += 1;
        self.0.moved.notify_all();
    }
}

/// A module's file.
pub(crate) struct WasmFile<'a> {
    path: &'a Path,
    file: Waiting<File>,
    /// It is read from its beginning: somebody else may have read from a descriptor.
    is_whole: bool,
}

impl<'a> WasmFile<'a> {
    /// Opens it, and holds its size to the limit.
    ///
    /// # Errors
    /// [`ModuleError::Read`], and as [`check_wasm_bytes`].
    pub(crate) fn open(path: &'a Path, files: &HostFiles, max: u64) -> Result<Self, ModuleError> {
        let file = files.read(path).map_err(|error| unreadable(path, &error.into()))?;
        // A pipe or device has no length; then as much is read as is allowed.
        let bytes = file.0.metadata().map_err(|error| unreadable(path, &error))?.len();
        check_wasm_bytes(bytes, max)?;
        let is_whole = rustix::fs::tell(&file.0).is_ok_and(|position| position == 0);
        Ok(WasmFile { path, file, is_whole })
    }

    /// Returns the stamp that tells whether the file has changed; `None` if it is no regular file, or is not
    /// read from its beginning.
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        Stamp::of(&self.file.0).filter(|_| self.is_whole)
    }

    /// Returns the stamp of a file that may be remembered once it is read.
    pub(crate) fn rested_stamp(&self) -> Option<Stamp> {
        Stamp::rested(&self.file.0).filter(|_| self.is_whole)
    }

    /// Reads it to its end.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn read(&mut self, max: u64) -> Result<Vec<u8>, ModuleError> {
        let mut bytes = Vec::new();
        let mut file = (&mut self.file).take(max.min(MODULE_BYTES_MAX as u64) + 1);
        file.read_to_end(&mut bytes).map_err(|error| unreadable(self.path, &error))?;
        check_wasm_bytes(bytes.len() as u64, max)?;
        Ok(bytes)
    }
}

fn unreadable(path: &Path, error: &io::Error) -> ModuleError {
    let message = error.to_string();
    match errno(error) {
        Some(Errno::MFILE | Errno::NFILE) => ModuleError::NoDescriptors { message },
        _ => ModuleError::Read { path: path.into(), message },
    }
}

/// # Errors
/// [`ModuleError::CompileLimit`] above `max`, [`ModuleError::TooLarge`] above what any pool takes.
pub(crate) fn check_wasm_bytes(bytes: u64, max: u64) -> Result<(), ModuleError> {
    if bytes > MODULE_BYTES_MAX as u64 {
        return Err(ModuleError::TooLarge { bytes, max: MODULE_BYTES_MAX as u64 });
    }
    if bytes > max {
        return Err(ModuleError::CompileLimit {
            kind: CompileLimit::WasmBytes,
            limit: max,
            seen: bytes,
            function: None,
            offset: None,
            others: Vec::new(),
            quarantined: false,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn death(signal: i32, stderr: &str) -> Death {
        Death::new(7, DeathCause::Signaled(signal), Phase::Compiling, stderr.into())
    }

    fn usage(peak_bytes: Option<u64>) -> Usage {
        Usage { cpu: Duration::from_secs(1), ticks: None, peak_bytes }
    }

    #[test]
    fn a_failed_allocation_is_the_memory_limit_and_another_abort_is_not() {
        let limits = CompileLimits::new().memory_bytes_max(100 << 20);
        let words = "wasmpool: x\nmemory allocation of 4096 bytes failed\n";
        match of_death(&limits, death(6, words), &usage(Some(200 << 20))) {
            ModuleError::CompileLimit { kind: CompileLimit::Memory, limit, seen, .. } => {
                assert_eq!((limit, seen), (100 << 20, (200 << 20) + 4096));
            }
            other => panic!("{other:?}"),
        }
        // Two threads fail at once: the second is cut off by the first, or each by the other.
        for (words, failed) in [
            ("memory allocation of 4096 bytes failed\nnote: x\nmemory allocation of ", 4096),
            ("memory allocation of memory allocation of 4096 bytes failed\n", 4096),
            ("memory allocation of memory allocation of 40964096 by", 0),
        ] {
            match of_death(&limits, death(6, words), &usage(Some(200 << 20))) {
                ModuleError::CompileLimit { seen, .. } => assert_eq!(seen, (200 << 20) + failed, "{words}"),
                other => panic!("{words}: {other:?}"),
            }
        }
        for (signal, words) in [(6, "thread main has overflowed its stack"), (11, words), (6, ""), (9, "")] {
            let error = of_death(&limits, death(signal, words), &usage(Some(50 << 20)));
            assert!(matches!(error, ModuleError::CompilerDied { .. }), "{signal} {words}: {error:?}");
        }
        let error = of_death(&limits, death(9, ""), &usage(Some(95 << 20)));
        assert!(matches!(error, ModuleError::CompileLimit { kind: CompileLimit::Memory, .. }), "{error:?}");
        let error = of_death(&limits, death(9, ""), &usage(None));
        assert!(matches!(error, ModuleError::CompilerDied { .. }), "{error:?}");
    }

    #[test]
    fn slots_are_taken_in_order_and_never_more_than_there_are() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let slots = CompileSlots::new(2);
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let slot = slots.take();
                        assert!(inside.fetch_add(1, Ordering::SeqCst) < 2);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(slot);
                    }
                });
            }
        });
        let queue = slots.queue.hold();
        assert_eq!((queue.free, queue.next, queue.last), (2, 3200, 3200));
    }
}
