//! The host's end of one worker: its rings, its control socket, its process.
//!
//! Nothing here waits for the worker. A submitting thread writes what fits into the ring;
//! the rest stays in the outbox, and the link's own thread pumps it as space comes back.
//! So a stopped or lying worker can hold up nobody but itself.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::{Buf, Bytes};
use rustix::process::Signal;

use super::core::{Answered, Call, Core};
use super::logs;
use crate::dispatch::WorkerKey;
use crate::error::{Death, DeathCause};
use crate::limits::{FRAME_PAYLOAD_BYTES_MAX, GUEST_TEXT_BYTES_MAX, LOG_RECORD_BYTES_MAX};
use crate::task::TaskId;
use crate::wire::control::ControlSocket;
use crate::wire::frame::{FrameError, encode_head, read_frame};
use crate::wire::message::{FromWorker, ModuleId, ToWorker, ToWorkerControl};
use crate::wire::ring::{self, Consumer, End, Producer, Violation};

pub(crate) struct Link {
    pub(crate) key: WorkerKey,
    pub(crate) pid: u32,
    pub(crate) control: ControlSocket,
    pidfd: OwnedFd,
    end: End,
    outbox: Mutex<Outbox>,
    /// The task at hand: nothing else may be spoken of.
    current: AtomicU64,
    /// What it may answer.
    payload_bytes_max: AtomicU64,
    /// What it may log.
    log_bytes_max: AtomicU64,
    /// Set once the process is gone; the reader then drains the ring and ends.
    gone: AtomicBool,
    /// Why we killed it, where the signal alone would not say.
    killed_for: OnceLock<DeathCause>,
    /// How it ended; set before `gone`.
    death: OnceLock<Death>,
}

struct Outbox {
    ring: Producer,
    /// Frames, or what is left of them, that did not fit.
    waiting: VecDeque<Bytes>,
    /// Modules that the worker has been sent.
    modules: HashSet<ModuleId>,
}

impl Link {
    pub(crate) fn new(
        key: WorkerKey,
        pid: u32,
        pidfd: OwnedFd,
        control: ControlSocket,
        end: End,
    ) -> (Arc<Link>, Consumer) {
        let (producer, consumer) = end.split();
        let outbox = Outbox { ring: producer, waiting: VecDeque::new(), modules: HashSet::new() };
        let link = Link {
            key,
            pid,
            control,
            pidfd,
            end,
            outbox: Mutex::new(outbox),
            current: AtomicU64::new(0),
            payload_bytes_max: AtomicU64::new(0),
            log_bytes_max: AtomicU64::new(0),
            gone: AtomicBool::new(false),
            killed_for: OnceLock::new(),
            death: OnceLock::new(),
        };
        (Arc::new(link), consumer)
    }

    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands the task over, and its module first if the worker has not seen it.
    pub(super) fn run(&self, task: TaskId, call: Call) {
        let module = &call.module.0;
        // A command answers with stdout and stderr; error texts are bounded, too.
        let answer_bytes_max = call.limits.output_bytes_max.saturating_mul(2);
        let answer_bytes_max = answer_bytes_max.clamp(GUEST_TEXT_BYTES_MAX as u64, FRAME_PAYLOAD_BYTES_MAX);
        self.payload_bytes_max.store(answer_bytes_max, Ordering::SeqCst);
        self.log_bytes_max.store(call.limits.log_bytes_max, Ordering::SeqCst);
        self.current.store(task.0, Ordering::SeqCst);
        let message = ToWorker::Run { task, module: module.id, entry: call.entry, limits: call.limits };
        let head = match encode_head(&message, call.input.len()) {
            Ok(head) => head,
            Err(error) => return self.kill_for(DeathCause::ProtocolViolation(error.to_string())),
        };
        let mut outbox = self.outbox();
        if outbox.modules.insert(module.id) {
            let message = ToWorkerControl::Module { module: module.id, metered: module.description.metered };
            let descriptors = [module.artifact.as_fd(), module.description_file.as_fd()];
            if let Err(error) = self.control.send(&message, &descriptors) {
                // A gone worker is reported by its death. One that cannot be sent a module (it does
                // not read, or the system has no room for descriptors) is of no use.
                if !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) {
                    self.kill_for(DeathCause::ProtocolViolation(format!("a module cannot be sent: {error}")));
                }
                return;
            }
        }
        // Small frames in one piece: one publication, one wake-up.
        if call.input.len() <= 4096 && outbox.waiting.is_empty() {
            let mut frame = head;
            frame.extend_from_slice(&call.input);
            outbox.waiting.push_back(frame.into());
        } else {
            outbox.waiting.push_back(head.into());
            outbox.waiting.push_back(call.input);
        }
        let pumped = outbox.pump();
        let all_sent = outbox.waiting.is_empty();
        drop(outbox);
        match pumped {
            Ok(_sent) if all_sent => {}
            // The link's thread takes over; it must learn that it waits for space now.
            Ok(_sent) => self.end.wake_self(),
            Err(violation) => self.kill_for(DeathCause::ProtocolViolation(violation.to_string())),
        }
    }

    /// Asks the worker to stop the task. A late request hits nothing.
    pub(super) fn interrupt(&self, task: TaskId) {
        // If it cannot be delivered, the grace period ends with a SIGKILL.
        if let Err(error) = self.control.send(&ToWorkerControl::Interrupt { task }, &[]) {
            tracing::debug!(pid = self.pid, %task, %error, "an interrupt could not be sent");
        }
    }

    pub(crate) fn kill(&self) {
        // It fails only for a process that is gone already.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    pub(crate) fn kill_for(&self, cause: DeathCause) {
        // The first reason is the reason.
        let _ = self.killed_for.set(cause);
        self.kill();
    }

    pub(super) fn retire(&self) {
        // The worker's watcher sees the end of the stream and exits.
        let _ = rustix::net::shutdown(&self.control, rustix::net::Shutdown::Both);
    }

    /// For the supervisor: the process has been reaped.
    pub(super) fn bury(&self, mut death: Death) {
        if let Some(cause) = self.killed_for.get() {
            death.cause = cause.clone();
        }
        let _ = self.death.set(death);
        self.gone.store(true, Ordering::SeqCst);
        self.end.wake_self();
    }

    /// Writes what fits.
    fn pump(&self) -> Result<bool, Violation> {
        let mut outbox = self.outbox();
        let sent = outbox.pump()?;
        let all_sent = outbox.waiting.is_empty();
        drop(outbox);
        drop(sent);
        Ok(all_sent)
    }
}

impl Outbox {
    /// Writes what fits, and returns what is done with: dropping an input may be the caller's
    /// code (`Bytes::from_owner`), which must not run under the lock.
    fn pump(&mut self) -> Result<Vec<Bytes>, Violation> {
        let mut sent = Vec::new();
        while let Some(bytes) = self.waiting.front_mut() {
            let written = self.ring.try_write(bytes)?;
            bytes.advance(written);
            if bytes.is_empty() {
                sent.extend(self.waiting.pop_front());
            } else if written == 0 {
                break;
            }
        }
        Ok(sent)
    }
}

/// The ring as a stream that ends when the process is gone, pumping the outbox meanwhile.
struct LinkReader<'a> {
    link: &'a Link,
    ring: Consumer,
}

impl io::Read for LinkReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let drained = self.link.pump()?;
            let len = self.ring.try_read(into)?;
            if len > 0 || into.is_empty() {
                return Ok(len);
            }
            // Everything it wrote, it wrote before it was gone: look once more after the flag.
            if self.link.gone.load(Ordering::SeqCst) {
                return Ok(self.ring.try_read(into)?);
            }
            let what = if drained { ring::FOR_DATA } else { ring::FOR_DATA | ring::FOR_SPACE };
            self.link.end.wait(what, || {
                let outbox = self.link.outbox();
                let pumpable = !outbox.waiting.is_empty() && (drained || outbox.ring.space() != Ok(0));
                drop(outbox);
                pumpable || self.ring.available() != Ok(0) || self.link.gone.load(Ordering::SeqCst)
            });
        }
    }
}

/// The link's thread: reads until the process is gone, then reports its death.
pub(super) fn read_loop(core: &Core, link: &Arc<Link>, ring: Consumer) {
    super::become_io_thread();
    // Wakers and inputs' destructors are others' code; whatever they do, the death is reported.
    let listened = catch_unwind(AssertUnwindSafe(|| listen(core, link, ring)));
    let violation = listened.unwrap_or_else(|_| Some("the host's own thread panicked".into()));
    if let Some(violation) = violation {
        link.kill_for(DeathCause::ProtocolViolation(violation));
    }
    // After a violation the stream is of no use, but the process must be reaped first.
    while !link.gone.load(Ordering::SeqCst) {
        link.end.wait(ring::FOR_DATA, || link.gone.load(Ordering::SeqCst));
    }
    if let Some(death) = link.death.get() {
        core.dead(link.key, death.clone());
    }
}

/// Handles what the worker says, to the end of the stream or the first violation.
fn listen(core: &Core, link: &Link, ring: Consumer) -> Option<String> {
    let mut reader = LinkReader { link, ring };
    // Of the task that logged last.
    let (mut logged_task, mut logged_bytes) = (TaskId(0), 0);
    loop {
        let frame = read_frame::<FromWorker>(&mut reader, || link.payload_bytes_max.load(Ordering::SeqCst));
        let (message, payload) = match frame {
            Ok(Some(frame)) => frame,
            Ok(None) | Err(FrameError::Truncated) => return None,
            Err(error) => return Some(error.to_string()),
        };
        let (FromWorker::Log { task, .. } | FromWorker::Done { task, .. }) = &message;
        if task.0 != link.current.load(Ordering::SeqCst) {
            return Some("it spoke of a task that it does not have".into());
        }
        match message {
            FromWorker::Log { task, record } => {
                if task != logged_task {
                    (logged_task, logged_bytes) = (task, 0);
                }
                logged_bytes += (record.target.len() + record.message.len() + record.fields.len()) as u64;
                // The worker keeps the limit; twice that leaves room for the marks of what was cut.
                let log_bytes_max = link.log_bytes_max.load(Ordering::SeqCst).saturating_mul(2);
                if !payload.is_empty() || logged_bytes > log_bytes_max.max(LOG_RECORD_BYTES_MAX as u64) {
                    return Some("its logs are over the limit that it has to keep".into());
                }
                logs::emit(core, link.pid, task, &record);
            }
            FromWorker::Done { task, verdict, cost } => {
                if !link.outbox().waiting.is_empty() {
                    return Some("it answered before it had read its input".into());
                }
                // No task is at hand until the next one is sent.
                link.current.store(0, Ordering::SeqCst);
                core.answered(link.key, task, Answered { verdict, payload, cost });
            }
        }
    }
}
