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
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError, Weak};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use rustix::process::Signal;

use super::batch::Batch;
use super::core::{Answered, Call, Core};
use super::logs;
use super::shares::{self, Sent, TaskShares};
use crate::dispatch::WorkerKey;
use crate::error::{Death, DeathCause};
use crate::foreign::{Foreign, guarded};
use crate::future::Cell;
use crate::limits::{FRAME_PAYLOAD_BYTES_MAX, GUEST_TEXT_BYTES_MAX, LOG_RECORD_BYTES_MAX};
use crate::module::Module;
use crate::shared::Shared;
use crate::task::TaskId;
use crate::wire::control::ControlSocket;
use crate::wire::frame::{Assembly, encode_head};
use crate::wire::message::{FromWorker, Items, ModuleId, ToWorker, ToWorkerControl, Verdict};
use crate::wire::ring::{self, Consumer, End, Producer, Violation};
use crate::wire::spin::Spinning;

/// Answers that are handled under one lock, at most.
const ANSWERS_AT_ONCE: usize = 64;

/// So many runs under way are many: nobody waits for the next one alone.
const MANY_OUTSTANDING: u64 = 4;

/// Bounds of the time that a reader looks away while many runs are under way.
const PAUSE_MIN: Duration = Duration::from_micros(20);
const PAUSE_MAX: Duration = Duration::from_micros(250);

pub(crate) struct Link {
    pub(crate) key: WorkerKey,
    pub(crate) pid: u32,
    pub(crate) control: ControlSocket,
    pidfd: OwnedFd,
    end: End,
    reader: Mutex<Reader>,
    /// The attendant is to be woken.
    attendant_sleeps: AtomicBool,
    spinning: Spinning,
    /// Written under the core's lock, so that runs are sent in the order in which they were
    /// decided; held for moments only.
    orders: Mutex<Orders>,
    outbox: Mutex<Outbox>,
    /// Runs whose frames have been written to their last byte.
    runs_sent: AtomicU64,
    modules_sent: AtomicUsize,
    pub(super) shares: Sent,
    /// For those who are to tell it of the end of what is shared.
    this: Weak<Link>,
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
#[derive(Debug, Clone)]
struct Outstanding {
    task: TaskId,
    run: u64,
    claim: u8,
    payload_bytes_max: u64,
    log_bytes_max: u64,
    batch: Option<Arc<Batch>>,
    /// What it was sent of the batch.
    items: Option<Items>,
    /// Kept until it has answered: it is told to forget none that it may be about to look for.
    #[expect(dead_code, reason = "it is held, not read")]
    shares: TaskShares,
}

impl Outstanding {
    /// Whether it may speak of this task now.
    fn is_at(&self, task: TaskId) -> bool {
        match &self.batch {
            None => task == self.task,
            // After the last one, of the batch itself.
            Some(batch) => task == self.task || batch.is_at(task),
        }
    }
}

/// Something to be sent.
enum Piece {
    /// On the control socket, unless the worker has been sent it.
    Module(Module),
    /// Those of them that the worker has not been sent, likewise.
    Shares(Arc<[Shared]>),
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
    ) -> Arc<Link> {
        let (producer, ring) = end.split();
        let frames = Assembly::new();
        let reader =
            Reader { ring, frames, logged: (0, TaskId(0), 0), typical: Duration::ZERO, violation: None };
        let outbox = Outbox { ring: producer, waiting: VecDeque::new(), modules: HashSet::new() };
        let orders = Orders { outstanding: VecDeque::new(), unsent: Vec::new(), runs: 0, claims: 0 };
        Arc::new_cyclic(|this| Link {
            key,
            pid,
            control,
            pidfd,
            end,
            reader: Mutex::new(reader),
            attendant_sleeps: AtomicBool::new(false),
            spinning: Spinning::new(),
            orders: Mutex::new(orders),
            outbox: Mutex::new(outbox),
            runs_sent: AtomicU64::new(0),
            modules_sent: AtomicUsize::new(0),
            shares: Sent::default(),
            this: this.clone(),
            gone: AtomicBool::new(false),
            killed_for: OnceLock::new(),
            death: OnceLock::new(),
        })
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
    pub(super) fn order(&self, task: TaskId, call: &Call, batch: Option<&Arc<Batch>>) {
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
        let items = batch.map(|batch| batch.items());
        let mut input = call.input.clone();
        if let Some(batch) = batch {
            input.advance(batch.offset(&call.input).min(call.input.len()));
        }
        let batch = batch.cloned();
        let shares = call.shares.clone();
        let outstanding =
            Outstanding { task, run, claim, payload_bytes_max, log_bytes_max, batch, items, shares };
        orders.outstanding.push_back(outstanding);
        let (module, entry, limits) = (call.module.0.id, call.entry.clone(), call.limits);
        let shares = shares::ids(&call.shares);
        let message = ToWorker::Run { task, run, claim, module, entry, limits, items, shares };
        orders.unsent.push(Piece::Module(call.module.clone()));
        orders.unsent.extend(call.shares.clone().map(Piece::Shares));
        match encode_head(&message, input.len()) {
            // Small frames in one piece: one publication, one wake-up.
            Ok(mut head) if input.len() <= 4096 => {
                head.extend_from_slice(&input);
                orders.unsent.push(Piece::Bytes(Foreign::new(head.into())));
            }
            Ok(head) => {
                orders.unsent.extend([Piece::Bytes(Foreign::new(head.into())), Piece::Bytes(input)]);
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
        let &Outstanding { run, claim, .. } = &orders.outstanding[index];
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
        let files = [loaded.artifact.as_fd(), loaded.description_file.as_fd()];
        self.has_been_sent("a module", self.control.send(&message, &files))
    }

    fn has_been_sent(&self, what: &str, sent: io::Result<()>) -> bool {
        if let Err(error) = &sent
            // A gone worker is reported by its death. One that cannot be sent a file (it does
            // not read, or the system has no room for descriptors) is of no use.
            && !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
        {
            self.kill_for(DeathCause::ProtocolViolation(format!("{what} cannot be sent: {error}")));
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
        let mut fields = text.split(' ').skip(1).map(|pages| pages.parse::<u64>().ok());
        let (pages, of_files) = (fields.next()??, fields.next()??);
        let page_size = rustix::param::page_size() as u64;
        // Shared inputs are not its own, and it does not grow by them.
        let shared = self.shares.bytes().min(of_files * page_size);
        Some((pages * page_size).saturating_sub(shared))
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
        self.orders().outstanding.front().cloned()
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
        let held = orders.outstanding.pop_front();
        if let Some(held) = &held {
            orders.claims &= !(1 << held.claim);
        }
        drop(orders);
        // Its shared inputs may end here: others are told, not under the lock.
        drop(held);
    }
}

impl Outbox {
    /// Writes what fits, and returns what is done with.
    fn pump(&mut self, link: &Link) -> Result<Vec<Piece>, Violation> {
        let mut done = Vec::new();
        while let Some(piece) = self.waiting.front_mut() {
            match piece {
                Piece::Module(module) => {
                    if self.modules.insert(module.0.id) && !link.send_module(module) {
                        return Ok(done);
                    }
                }
                Piece::Shares(shares) => {
                    let sent = link.shares.send(&link.control, shares, &link.this);
                    if !link.has_been_sent("a shared input", sent) {
                        return Ok(done);
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
            done.extend(self.waiting.pop_front());
        }
        Ok(done)
    }
}

/// Reads what the worker says: one thread at a time, the link's own or an attendant.
struct Reader {
    ring: Consumer,
    frames: Assembly<FromWorker>,
    /// The run and the task that logged last, and how much.
    logged: (u64, TaskId, u64),
    /// How long a task runs, as a moving average.
    typical: Duration,
    /// What it was that cannot be; nothing is read after it.
    violation: Option<String>,
}

impl Reader {
    fn has_news(&self) -> bool {
        self.violation.is_none() && self.ring.available() != Ok(0)
    }

    /// Handles what the worker has said so far, and says how many frames that were.
    fn drain(&mut self, core: &Core, link: &Link) -> usize {
        let mut frames = 0;
        let mut answers = Vec::new();
        while self.violation.is_none() {
            let payload_bytes_max = || link.at_hand().map_or(0, |held| held.payload_bytes_max);
            let heard = match self.frames.next(&mut self.ring, payload_bytes_max) {
                Ok(None) => break,
                Ok(Some((message, payload))) => self.hear(core, link, message, payload, &mut answers),
                Err(error) => Err(error.to_string()),
            };
            frames += 1;
            if answers.len() >= ANSWERS_AT_ONCE {
                core.answered(link, std::mem::take(&mut answers));
            }
            self.violation = heard.err();
        }
        if !answers.is_empty() {
            core.answered(link, answers);
        }
        if let Some(violation) = &self.violation {
            link.kill_for(DeathCause::ProtocolViolation(violation.clone()));
        }
        frames
    }

    fn hear(
        &mut self,
        core: &Core,
        link: &Link,
        message: FromWorker,
        payload: Vec<u8>,
        answers: &mut Vec<(TaskId, bool, Answered)>,
    ) -> Result<(), String> {
        let (FromWorker::Log { task, .. } | FromWorker::Done { task, .. } | FromWorker::Item { task, .. }) =
            &message;
        let Some(held) = link.at_hand().filter(|held| held.is_at(*task)) else {
            return Err("it spoke of a task that it does not have".into());
        };
        match message {
            FromWorker::Log { task, record } => {
                if (held.run, task) != (self.logged.0, self.logged.1) {
                    self.logged = (held.run, task, 0);
                }
                self.logged.2 += (record.target.len() + record.message.len() + record.fields.len()) as u64;
                // The worker keeps the limit; twice that leaves room for the marks of what was cut.
                let log_bytes_max = held.log_bytes_max.saturating_mul(2).max(LOG_RECORD_BYTES_MAX as u64);
                if !payload.is_empty() || self.logged.2 > log_bytes_max {
                    return Err("its logs are over the limit that it has to keep".into());
                }
                // What was said before comes before.
                if !answers.is_empty() {
                    core.answered(link, std::mem::take(answers));
                }
                let labels = match &held.batch {
                    Some(batch) => Some(batch.labels()),
                    None => core.labels(task),
                };
                logs::emit(labels.as_deref(), link.pid, task, &record);
            }
            FromWorker::Item { task, verdict, cost } => {
                let Some(batch) = held.batch.filter(|batch| batch.is_at(task)) else {
                    return Err("it answered for a task of a batch that it does not have".into());
                };
                self.typical = self.typical * 7 / 8 + Duration::from_nanos(cost.run_ns) / 8;
                batch.answer(link.pid, Answered { verdict, payload, cost });
            }
            FromWorker::Done { task, verdict, cost } => {
                if task != held.task {
                    return Err("it ended a part of a batch".into());
                }
                if !link.has_sent(held.run) {
                    return Err("it answered before it had read its input".into());
                }
                link.settle();
                self.typical = self.typical * 7 / 8 + Duration::from_nanos(cost.run_ns) / 8;
                let mut unfinished = false;
                if let Some(batch) = &held.batch {
                    unfinished = batch.left() > 0;
                    if !payload.is_empty()
                        || (unfinished && Some(batch.items()) == held.items && verdict == Verdict::Ok)
                    {
                        return Err("it gave a batch back without having done anything".into());
                    }
                }
                answers.push((task, unfinished, Answered { verdict, payload, cost }));
            }
        }
        Ok(())
    }

    /// Where many runs are under way and each is short: how long to look away, until about half of
    /// them are done. To be woken for each would cost more than they do.
    fn pause(&self, link: &Link) -> Option<Duration> {
        let orders = link.orders();
        let items = |held: &Outstanding| held.batch.as_ref().map_or(1, |batch| batch.left());
        let outstanding = orders.outstanding.iter().map(items).sum::<u64>();
        drop(orders);
        let until_half = self.typical.saturating_mul((outstanding / 2) as u32).min(PAUSE_MAX);
        (outstanding >= MANY_OUTSTANDING && self.typical <= PAUSE_MAX).then(|| until_half.max(PAUSE_MIN))
    }
}

impl Link {
    fn reader(&self) -> MutexGuard<'_, Reader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reader, unless another thread has it.
    fn try_reader(&self) -> Option<MutexGuard<'_, Reader>> {
        match self.reader.try_lock() {
            Ok(reader) => Some(reader),
            Err(TryLockError::Poisoned(reader)) => Some(reader.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// The calling thread reads what the worker says until the cell is filled, or until the deadline:
    /// one thread less to be woken for an answer. Returns at once if another thread is at it.
    pub(super) fn attend(self: &Arc<Self>, core: &Core, cell: &Cell, deadline: Option<Instant>) {
        let Some(mut reader) = self.try_reader() else { return };
        // Whoever fills it elsewhere wakes us.
        let waker = Waker::from(self.clone());
        cell.set_attendant(&waker);
        let is_done = || cell.has_news();
        let attendance = Attendance::begin(self);
        loop {
            reader.drain(core, self);
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if is_done() || self.is_gone() || reader.violation.is_some() || left == Some(Duration::ZERO) {
                break;
            }
            let is_over = || is_done() || self.is_gone();
            match reader.pause(self) {
                Some(pause) => self.doze(left.map_or(pause, |left| left.min(pause)), is_over),
                None => {
                    let is_ready = || reader.has_news() || is_over();
                    self.spinning.wait(is_ready, || {
                        self.attendant_sleeps.store(true, Ordering::SeqCst);
                        self.end.wait_attending(left, is_ready);
                        self.attendant_sleeps.store(false, Ordering::SeqCst);
                    });
                }
            }
        }
        drop(attendance);
        cell.unset_attendant(&waker);
        // What rang for nobody is for the link's own thread.
        let has_news = reader.has_news() || reader.violation.is_some();
        drop(reader);
        if has_news || self.is_gone() {
            self.end.wake_self();
        }
    }

    /// The attendant looks away for a moment.
    fn doze(&self, pause: Duration, is_over: impl Fn() -> bool) {
        self.attendant_sleeps.store(true, Ordering::SeqCst);
        self.end.nap_attending(pause, is_over);
        self.attendant_sleeps.store(false, Ordering::SeqCst);
    }
}

/// Wakes the attendant, if there is one and it sleeps.
impl Wake for Link {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Not by what stands in shared memory: the worker may have changed that.
        if self.attendant_sleeps.load(Ordering::SeqCst) {
            self.end.wake_attendant();
        }
    }
}

/// An attendant is there; it goes even if a panic takes it.
struct Attendance<'a>(&'a Link);

impl Attendance<'_> {
    fn begin(link: &Link) -> Attendance<'_> {
        link.end.attend();
        Attendance(link)
    }
}

impl Drop for Attendance<'_> {
    fn drop(&mut self) {
        self.0.attendant_sleeps.store(false, Ordering::SeqCst);
        self.0.end.leave();
    }
}

/// The link's thread: reads until the process is gone, then reports its death.
pub(super) fn read_loop(core: &Core, link: &Arc<Link>) {
    super::become_io_thread();
    // Wakers and inputs' destructors are others' code; whatever they do, the death is reported.
    if catch_unwind(AssertUnwindSafe(|| listen(core, link))).is_err() {
        link.kill_for(DeathCause::ProtocolViolation("the host's own thread panicked".into()));
    }
    // After a violation the stream is of no use, but the process must be reaped first.
    while !link.is_gone() {
        link.end.wait(ring::FOR_DATA, || link.is_gone());
    }
    if let Some(death) = link.death.get() {
        core.dead(link.key, death.clone());
    }
}

/// Handles what the worker says, to the end of the stream or the first violation.
fn listen(core: &Core, link: &Link) {
    loop {
        let drained = match link.pump() {
            Ok(drained) => drained,
            Err(violation) => return link.kill_for(DeathCause::ProtocolViolation(violation.to_string())),
        };
        let is_gone = link.is_gone();
        // Whoever attends leaves when the process is gone; what is there then is all there is.
        let reader = if is_gone { Some(link.reader()) } else { link.try_reader() };
        if let Some(mut reader) = reader {
            let frames = reader.drain(core, link);
            if is_gone || reader.violation.is_some() {
                return;
            }
            let pause = reader.pause(link).filter(|_| frames > 0 && drained);
            drop(reader);
            if let Some(pause) = pause {
                link.end.nap(pause);
                continue;
            }
        }
        let what = if drained { ring::FOR_DATA } else { ring::FOR_DATA | ring::FOR_SPACE };
        link.end.wait(what, || {
            let outbox = link.outbox();
            let blocked = outbox.waiting.front().is_some_and(|piece| matches!(piece, Piece::Bytes(_)));
            let pumpable = blocked && (drained || outbox.ring.space() != Ok(0));
            drop(outbox);
            pumpable || link.is_gone() || link.try_reader().is_some_and(|reader| reader.has_news())
        });
    }
}
