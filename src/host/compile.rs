//! Bringing a module in: digest, cache, and where the cache has nothing, a compiler process.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::RecvFlags;

use super::core::Core;
use super::spawn::{self, Child};
use super::supervise::Job;
use crate::compile::cache::Compiled;
use crate::error::{Death, DeathCause, ModuleError, Phase};
use crate::limits::ARTIFACT_BYTES_MAX;
use crate::wire::control::{self, ControlSocket};
use crate::wire::fingerprint;
use crate::wire::message::{CompileReply, CompileRequest};

/// Most bytes of a module's description.
const DESCRIPTION_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Compiles in a process of its own, which is killed if it takes longer than the pool's
/// compile timeout. Waits for it.
///
/// # Errors
/// The compiler's own, [`ModuleError::CompileLimit`], or how the process died.
pub(crate) fn compile(core: &Core, wasm: &[u8], metered: bool) -> Result<Compiled, ModuleError> {
    let system = |error: io::Error| ModuleError::Compiler { message: error.to_string() };
    let source = sealed_memfd("wasmpool-wasm", wasm).map_err(system)?;
    let artifact = empty_memfd("wasmpool-artifact").map_err(system)?;
    let description = empty_memfd("wasmpool-description").map_err(system)?;
    let (ours, theirs) = control::pair().map_err(system)?;
    let sandbox = core.settings.sandbox.clone();
    let request = CompileRequest { build: fingerprint::BUILD, metered, sandbox };
    ours.send(&request, &[source.as_fd(), artifact.as_fd(), description.as_fd()]).map_err(system)?;

    let (reply, child) = crossbeam_channel::bounded(1);
    core.mailbox.post(Job::SpawnCompiler { socket: theirs, reply });
    // The supervisor answers at once, or drops the job because the pool has stopped.
    let child = child.recv_timeout(core.settings.start_timeout).map_err(|_| closed())?.map_err(system)?;

    attend(core.settings.compile_timeout, &ours, child).map_err(|error| match error {
        // Children die with the supervisor's thread.
        ModuleError::CompilerDied { .. } if core.is_stopped() => closed(),
        error => error,
    })?;
    let artifact_bytes = finish(&artifact, ARTIFACT_BYTES_MAX).map_err(system)?;
    finish(&description, DESCRIPTION_BYTES_MAX).map_err(system)?;
    let (mut artifact, mut description) = (File::from(artifact), File::from(description));
    rewind(&mut artifact).and_then(|()| rewind(&mut description)).map_err(system)?;
    Compiled::read(artifact, description, artifact_bytes)
        .ok_or_else(|| ModuleError::Compiler { message: "it described the module in an unknown way".into() })
}

fn closed() -> ModuleError {
    ModuleError::Closed { message: "it was shut down or is broken".into() }
}

/// Waits for the answer and the end of the compiler, whichever way it goes.
fn attend(timeout: Duration, socket: &ControlSocket, mut child: Child) -> Result<(), ModuleError> {
    // Without one where the timeout is beyond all time.
    let deadline = Instant::now().checked_add(timeout);
    let mut reply: Option<CompileReply> = None;
    let mut timed_out = false;
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) && !timed_out {
            timed_out = true;
            // It fails only for a process that is gone already.
            let _ = rustix::process::pidfd_send_signal(&child.pidfd, rustix::process::Signal::KILL);
        }
        let mut fds =
            vec![PollFd::new(&child.pidfd, PollFlags::IN), PollFd::new(&child.stderr.pipe, PollFlags::IN)];
        if reply.is_none() {
            fds.push(PollFd::new(&socket.0, PollFlags::IN));
        }
        let wait = if timed_out { None } else { left.and_then(|left| left.try_into().ok()) };
        if rustix::event::poll(&mut fds, wait.as_ref()).is_err() {
            continue;
        }
        let (gone, spoke) =
            (!fds[0].revents().is_empty(), fds.get(2).is_some_and(|fd| !fd.revents().is_empty()));
        child.stderr.drain();
        if spoke && let Ok(Some((message, _))) = socket.receive::<CompileReply>(0, RecvFlags::DONTWAIT) {
            reply = Some(message);
        }
        if !gone {
            continue;
        }
        let cause = spawn::reap_in(child.group.as_ref(), child.pidfd.as_fd());
        return match (reply, cause) {
            _ if timed_out => Err(ModuleError::CompileLimit {
                limit: format!("{timeout:?}"),
                seen: "it was still compiling and was killed".into(),
            }),
            (Some(Err(error)), _) => Err(error),
            (Some(Ok(())), DeathCause::Exited(0) | DeathCause::Unknown) => Ok(()),
            (_, cause) => {
                let death = Death::new(child.pid, cause, Phase::Compiling, child.stderr.text());
                Err(ModuleError::CompilerDied { death })
            }
        };
    }
}

fn empty_memfd(name: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?)
}

/// Seals what the compiler has written: from here on nobody can change it. Returns its size.
fn finish(file: &OwnedFd, bytes_max: u64) -> io::Result<u64> {
    let bytes = rustix::fs::fstat(file)?.st_size as u64;
    if bytes == 0 || bytes > bytes_max {
        return Err(io::Error::other(format!("it wrote {bytes} bytes, the limit is {bytes_max}")));
    }
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(file, seals)?;
    Ok(bytes)
}

fn sealed_memfd(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(empty_memfd(name)?);
    file.write_all(bytes)?;
    rewind(&mut file)?;
    let file = OwnedFd::from(file);
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file)
}

fn rewind(file: &mut File) -> io::Result<()> {
    file.seek(SeekFrom::Start(0)).map(|_| ())
}

/// Reads a module's file, with its limit.
///
/// # Errors
/// [`ModuleError::Read`], [`ModuleError::TooLarge`].
pub(crate) fn read_wasm(path: &std::path::Path, bytes_max: u64) -> Result<Vec<u8>, ModuleError> {
    let read = |error: io::Error| ModuleError::Read { path: path.into(), message: error.to_string() };
    let file = File::open(path).map_err(read)?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > bytes_max {
        return Err(ModuleError::TooLarge { bytes: bytes.len() as u64, max: bytes_max });
    }
    Ok(bytes)
}
