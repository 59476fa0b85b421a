//! The host's end of one worker: its rings, its control socket, its process.
//!
//! Nothing here waits for the worker. A submitting thread writes what fits into the ring;
//! the rest stays in the outbox, and the link's own thread pumps it as space comes back.
//! So a stopped or lying worker can hold up nobody but itself.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::{Buf, Bytes};
use rustix::process::Signal;

use super::core::{Answered, Call, Core};
use super::logs;
use crate::dispatch::WorkerKey;
use crate::error::{Death, DeathCause};
use crate::foreign::{Foreign, guarded};
use crate::limits::{FRAME_PAYLOAD_BYTES_MAX, GUEST_TEXT_BYTES_MAX, LOG_RECORD_BYTES_MAX};
use crate::module::Module;
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
    /// Written under the core's lock, so that runs are sent in the order in which they were
    /// decided; held for moments only.
    orders: Mutex<Orders>,
    outbox: Mutex<Outbox>,
    /// Runs whose frames have been written to their last byte.
    runs_sent: AtomicU64,
    modules_sent: AtomicUsize,
    /// Set once the process is gone; the reader then drains the ring and ends.
    gone: AtomicBool,
    /// Why we killed it, where the signal alone would not say.
    killed_for: OnceLock<DeathCause>,
    /// How it ended; set before `gone`.
    death: OnceLock<Death>,
}

/// What the worker has been, or is about to be, handed.
struct Orders {
    /// In the order in which it will answer; what was taken back is not among them.
    outstanding: VecDeque<Outstanding>,
    /// Not in the outbox yet.
    unsent: Vec<Piece>,
    runs: u64,
    /// Claim words in use, one bit each.
    claims: u64,
}

/// A run that has no answer yet.
#[derive(Debug, Clone, Copy)]
struct Outstanding {
    task: TaskId,
    run: u64,
    claim: u8,
    payload_bytes_max: u64,
    log_bytes_max: u64,
}

/// Something to be sent.
enum Piece {
    /// On the control socket, unless the worker has been sent it.
    Module(Module),
    Bytes(Foreign<Bytes>),
    /// The run's frame is complete.
    EndOfRun,
}

struct Outbox {
    ring: Producer,
    /// What did not fit.
    waiting: VecDeque<Piece>,
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
        let orders = Orders { outstanding: VecDeque::new(), unsent: Vec::new(), runs: 0, claims: 0 };
        let link = Link {
            key,
            pid,
            control,
            pidfd,
            end,
            orders: Mutex::new(orders),
            outbox: Mutex::new(outbox),
            runs_sent: AtomicU64::new(0),
            modules_sent: AtomicUsize::new(0),
            gone: AtomicBool::new(false),
            killed_for: OnceLock::new(),
            death: OnceLock::new(),
        };
        (Arc::new(link), consumer)
    }

    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the worker is to run the task; [`flush`](Self::flush) sends it. Neither
    /// waits nor calls anyone: for use under the core's lock.
    pub(super) fn order(&self, task: TaskId, call: &Call) {
        let mut orders = self.orders();
        // The dispatcher never has more outstanding than there are words.
        let claim = (!orders.claims).trailing_zeros().min(ring::CLAIMS as u32 - 1) as u8;
        orders.claims |= 1 << claim;
        orders.runs += 1;
        let run = orders.runs;
        self.end.open_claim(claim, run);
        // A command answers with stdout and stderr; error texts are bounded, too.
        let payload_bytes_max = call.limits.output_bytes_max.saturating_mul(2);
        let payload_bytes_max = payload_bytes_max.clamp(GUEST_TEXT_BYTES_MAX as u64, FRAME_PAYLOAD_BYTES_MAX);
        let log_bytes_max = call.limits.log_bytes_max;
        orders.outstanding.push_back(Outstanding { task, run, claim, payload_bytes_max, log_bytes_max });
        let (module, entry, limits) = (call.module.0.id, call.entry.clone(), call.limits);
        let message = ToWorker::Run { task, run, claim, module, entry, limits };
        orders.unsent.push(Piece::Module(call.module.clone()));
        match encode_head(&message, call.input.len()) {
            // Small frames in one piece: one publication, one wake-up.
            Ok(mut head) if call.input.len() <= 4096 => {
                head.extend_from_slice(&call.input);
                orders.unsent.push(Piece::Bytes(Foreign::new(head.into())));
            }
            Ok(head) => {
                orders
                    .unsent
                    .extend([Piece::Bytes(Foreign::new(head.into())), Piece::Bytes(call.input.clone())]);
            }
            // `submit` has held the metadata to its limit.
            Err(error) => return self.kill_for(DeathCause::ProtocolViolation(error.to_string())),
        }
        orders.unsent.push(Piece::EndOfRun);
    }

    /// Takes a task back that the worker has not begun. For use under the core's lock.
    pub(super) fn revoke(&self, task: TaskId) -> bool {
        let mut orders = self.orders();
        let Some(index) = orders.outstanding.iter().position(|held| held.task == task) else { return false };
        let Outstanding { run, claim, .. } = orders.outstanding[index];
        let revoked = self.end.revoke(claim, run);
        if revoked {
            orders.outstanding.remove(index);
            orders.claims &= !(1 << claim);
        }
        revoked
    }

    /// Which run of the worker's this task is.
    pub(super) fn run_of(&self, task: TaskId) -> Option<u64> {
        self.orders().outstanding.iter().find(|held| held.task == task).map(|held| held.run)
    }

    /// Sends what was ordered, as far as it fits.
    pub(super) fn flush(&self) {
        match self.pump() {
            Ok(true) => {}
            // The link's thread takes over; it must learn that it waits for space now.
            Ok(false) => self.end.wake_self(),
            Err(violation) => self.kill_for(DeathCause::ProtocolViolation(violation.to_string())),
        }
    }

    /// How many modules the worker holds, or will.
    pub(super) fn modules_sent(&self) -> usize {
        self.modules_sent.load(Ordering::Relaxed)
    }

    fn send_module(&self, module: &Module) -> bool {
        let loaded = &module.0;
        let message = ToWorkerControl::Module { module: loaded.id, code: loaded.description.code() };
        self.modules_sent.fetch_add(1, Ordering::Relaxed);
        let sent = self.control.send(&message, &[loaded.artifact.as_fd(), loaded.description_file.as_fd()]);
        if let Err(error) = &sent
            // A gone worker is reported by its death. One that cannot be sent a module (it does
            // not read, or the system has no room for descriptors) is of no use.
            && !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
        {
            self.kill_for(DeathCause::ProtocolViolation(format!("a module cannot be sent: {error}")));
        }
        sent.is_ok()
    }

    /// Asks the worker to stop the run. A late request hits nothing.
    pub(super) fn interrupt(&self, run: u64) {
        // If it cannot be delivered, the grace period ends with a SIGKILL.
        if let Err(error) = self.control.send(&ToWorkerControl::Interrupt { run }, &[]) {
            guarded(|| tracing::debug!(pid = self.pid, run, %error, "an interrupt could not be sent"));
        }
    }

    /// Resident memory of the process, where the system says it.
    pub(super) fn resident_bytes(&self) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.pid)).ok()?;
        let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
        Some(pages * rustix::param::page_size() as u64)
    }

    pub(super) fn terminate(&self) {
        // It fails only for a process that is gone already.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::TERM);
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

    /// Writes what fits; `true` if that was all.
    fn pump(&self) -> Result<bool, Violation> {
        let mut outbox = self.outbox();
        outbox.waiting.extend(std::mem::take(&mut self.orders().unsent));
        let sent = outbox.pump(self)?;
        let all_sent = outbox.waiting.is_empty();
        drop(outbox);
        // Dropping an input may be the caller's code (`Bytes::from_owner`): not under the lock.
        drop(sent);
        Ok(all_sent)
    }

    /// The run that the worker is at, by what it has answered.
    fn at_hand(&self) -> Option<Outstanding> {
        self.orders().outstanding.front().copied()
    }

    fn has_sent(&self, run: u64) -> bool {
        let has_sent = || self.runs_sent.load(Ordering::SeqCst) >= run;
        // The worker may be quicker than the thread that has just written the last byte to it:
        // then that thread still holds the outbox.
        has_sent() || {
            drop(self.outbox());
            has_sent()
        }
    }

    /// The worker has answered what it was at.
    fn settle(&self) {
        let mut orders = self.orders();
        if let Some(held) = orders.outstanding.pop_front() {
            orders.claims &= !(1 << held.claim);
        }
    }
}

impl Outbox {
    /// Writes what fits, and returns what is done with.
    fn pump(&mut self, link: &Link) -> Result<Vec<Piece>, Violation> {
        let mut sent = Vec::new();
        while let Some(piece) = self.waiting.front_mut() {
            match piece {
                Piece::Module(module) => {
                    if self.modules.insert(module.0.id) && !link.send_module(module) {
                        return Ok(sent);
                    }
                }
                Piece::Bytes(bytes) => {
                    let written = self.ring.try_write(bytes)?;
                    bytes.advance(written);
                    if !bytes.is_empty() {
                        break;
                    }
                }
                Piece::EndOfRun => {
                    link.runs_sent.fetch_add(1, Ordering::SeqCst);
                }
            }
            sent.extend(self.waiting.pop_front());
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
                let blocked = outbox.waiting.front().is_some_and(|piece| matches!(piece, Piece::Bytes(_)));
                let pumpable = blocked && (drained || outbox.ring.space() != Ok(0));
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
    // Of the run that logged last.
    let (mut logged_run, mut logged_bytes) = (0, 0);
    loop {
        let payload_bytes_max = || link.at_hand().map_or(0, |held| held.payload_bytes_max);
        let (message, payload) = match read_frame::<FromWorker>(&mut reader, payload_bytes_max) {
            Ok(Some(frame)) => frame,
            Ok(None) | Err(FrameError::Truncated) => return None,
            Err(error) => return Some(error.to_string()),
        };
        let (FromWorker::Log { task, .. } | FromWorker::Done { task, .. }) = &message;
        let Some(held) = link.at_hand().filter(|held| held.task == *task) else {
            return Some("it spoke of a task that it does not have".into());
        };
        match message {
            FromWorker::Log { task, record } => {
                if held.run != logged_run {
                    (logged_run, logged_bytes) = (held.run, 0);
                }
                logged_bytes += (record.target.len() + record.message.len() + record.fields.len()) as u64;
                // The worker keeps the limit; twice that leaves room for the marks of what was cut.
                let log_bytes_max = held.log_bytes_max.saturating_mul(2).max(LOG_RECORD_BYTES_MAX as u64);
                if !payload.is_empty() || logged_bytes > log_bytes_max {
                    return Some("its logs are over the limit that it has to keep".into());
                }
                logs::emit(core, link.pid, task, &record);
            }
            FromWorker::Done { task, verdict, cost } => {
                if !link.has_sent(held.run) {
                    return Some("it answered before it had read its input".into());
                }
                link.settle();
                core.answered(link, task, Answered { verdict, payload, cost });
            }
        }
    }
}
