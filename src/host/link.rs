//! The host's end of one worker: its rings, its control socket, its process.
//!
//! Nothing here waits for the worker. A submitting thread writes what fits into the ring;
//! the rest stays in the outbox, and the link's own thread pumps it as space comes back.
//! So a stopped or lying worker can hold up nobody but itself.

mod aside;
mod reader;
mod reading;

use reader::Reader;
pub(crate) use reader::read_loop;
use reading::{Handoff, LinkSide, RingOutbox};

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::{Duration, Instant};
use std::vec;

use bytes::{Buf, Bytes};
use smallvec::SmallVec;

use super::asks::{Asks, TaskAsks};
use super::batch::Batch;
use super::completion::Received;
use super::cpu::WorkerClock;
use super::invocation::{self, Invocation, TaskShares, payload_bytes_max};
use super::logs::Dropped;
use super::priority;
use super::sent::Sent;
use crate::error::{Death, DeathCause};
use crate::future::Cell;
use crate::held::Holder;
use crate::module::Loaded;
use crate::panic_guard::PanicGuard;
use crate::scheduler::{Now, WorkerKey};
use crate::shared_input::SharedInput;
use proto::control::ControlSocket;
use proto::event_count::EventCount;
use proto::frame::encode_head_into;
use proto::kernel::kernel_text;
use proto::limits::task::TaskLimits;
use proto::message::{BatchSlice, FromWorker, ModuleId, RunEnd, RunMessage, ToWorker};
use proto::ring::{self, End, Producer, Violation};
use proto::sync::Lock;
use proto::task::{Subject, TaskId};

/// Inputs up to here travel with their frame's head, and are copied once more for that.
const SMALL_INPUT_BYTES: usize = 4096;

/// Room for the frame of a small task.
const FRAME_BYTES_USUAL: usize = 192;

/// Memory of more frames than that is not kept.
const FRAMES_BYTES_KEPT: usize = 16 * 1024;

/// This is what one order comes to, mostly, and what is mostly sent at once.
const PIECES_USUAL: usize = 3;
const FRAMES_USUAL: usize = 8;

/// Takes what a worker says and how it ends, as the reader of its ring hands it on. The core implements this; a
/// model or a fuzz target may, too.
pub(crate) trait WorkerEvents {
    /// Returns the time of the pool's clock.
    fn now(&self) -> Now;

    /// The worker has ended these tasks, in this order.
    fn completed(&self, link: &Link, ended: vec::Drain<'_, TaskEnd>);

    /// Returns the cell of a task that is not resolved: its labels stand in the task's log records.
    fn cell(&self, task: TaskId) -> Option<Arc<Cell>>;

    /// A log record was dropped, since its worker logs faster than it may.
    fn log_record_dropped(&self);

    /// Tells how much of a worker's logs was dropped since this was told last.
    fn logs_dropped(&self, pid: u32, dropped: Dropped);

    /// The process is gone, and all that it had said has been handled.
    fn died(&self, worker: WorkerKey, death: Death);
}

/// The end of a worker's run of a task.
pub(crate) struct TaskEnd {
    pub(crate) task: TaskId,
    /// The task is a batch, of which there is more to be run.
    pub(crate) unfinished: bool,
    pub(crate) received: Received,
}

pub(crate) struct Link {
    pub(crate) key: WorkerKey,
    pub(crate) pid: u32,
    pub(crate) control: ControlSocket,
    pidfd: OwnedFd,
    pub(super) clock: WorkerClock,
    end: End,
    handoff: Handoff<Reader, Outbox>,
    /// Written under the core's lock, so that runs are sent in the order in which they were
    /// decided; held for moments only.
    orders: Mutex<Orders>,
    /// Runs whose frames have been written to their last byte.
    runs_sent: AtomicU64,
    /// The worker stops runs at a signal.
    stops_by_signal: AtomicBool,
    pub(super) sent: Sent,
    /// The worker's tasks may log this much in a second.
    log_bytes_per_second: u64,
    /// The ends of modules and shared inputs are reported to the link by this.
    this: Weak<Link>,
    /// Says why we killed it, where the signal alone would not say.
    killed_for: OnceLock<DeathCause>,
    /// Says how it ended; set before it is gone.
    death: OnceLock<Death>,
}

/// Holds what the worker has been, or is about to be, handed.
struct Orders {
    /// The runs are in the order in which the worker will answer; what was taken back is not among them.
    in_flight: VecDeque<HeldRun>,
    /// The pieces that are not in the outbox yet.
    unsent: SmallVec<[OutboxItem; PIECES_USUAL]>,
    /// Memory of frames that have been sent, for those to come.
    spare: Vec<u8>,
    /// The worker was sent this module of the last run, or will be. It may have ended: then no later run has
    /// it.
    last_module: Option<ModuleId>,
    /// The limits of the last run: the worker keeps them.
    last_limits: Option<TaskLimits>,
    runs: u64,
    /// Claim words in use, one bit each.
    claims: u128,
}

const _: () = assert!(ring::CLAIMS <= u128::BITS as usize);

/// A run that the worker was handed, with what it needs: that must not be forgotten before its answer.
struct HeldRun {
    run: InFlight,
    _needs: (Arc<Loaded>, TaskShares),
}

/// A run that has no answer yet.
#[derive(Debug, Clone)]
struct InFlight {
    task: TaskId,
    run: u64,
    claim: u8,
    payload_bytes_max: u64,
    log_bytes_max: u64,
    batch: Option<Arc<Batch>>,
    /// Says what it was sent of the batch.
    slice: Option<BatchSlice>,
    /// The worker has spoken of it. An honest one has claimed it before, but that stands in shared memory.
    has_begun: bool,
    /// The task may ask for this.
    asks: Option<Arc<Asks>>,
}

impl InFlight {
    /// Returns whether the worker may say this now, judged by the task that it names.
    fn may_say(&self, message: &FromWorker) -> bool {
        match message.subject() {
            Subject::Worker => true,
            Subject::Task(task) => match &self.batch {
                None => task == self.task,
                // A task that has ended may log nothing more, since its logs were counted against its limit.
                Some(batch) => batch.is_at(task),
            },
            Subject::Run(task) => task == self.task,
        }
    }

    /// Returns the batch that the worker answers for this task of, or why it may not.
    fn batch_for(&self, task: TaskId) -> Result<&Batch, String> {
        let Some(batch) = &self.batch else {
            return Err(format!("it answered for task {task} as one of a batch"));
        };
        // An honest worker stops here, since it was told how many bytes its answers may have.
        if !batch.has_room() {
            return Err("it went on with a batch whose answers have no room".into());
        }
        Ok(batch)
    }

    /// Returns whether the batch that the worker has ended with this end has tasks left; or why it may not say
    /// that.
    fn is_unfinished(&self, end: &RunEnd, payload: &[u8]) -> Result<bool, String> {
        let Some(batch) = &self.batch else { return Ok(false) };
        let is_unfinished = batch.left() > 0;
        if !payload.is_empty() {
            return Err("it answered for a batch as a whole".into());
        }
        // The worker has reported the end of each of the batch's tasks already.
        if !matches!(end, RunEnd::Ok | RunEnd::Interrupted) {
            return Err("it gave a batch one end".into());
        }
        let was_to_begin = self.slice.is_some_and(|slice| slice.count > 0);
        if is_unfinished && was_to_begin && Some(batch.slice()) == self.slice && *end == RunEnd::Ok {
            return Err("it gave a batch back without having done anything".into());
        }
        // A batch without room for another answer ends here: the map is handed back what is left.
        Ok(is_unfinished && batch.has_room())
    }
}

/// Something to be sent.
enum OutboxItem {
    /// A module goes by the control socket.
    Module(Arc<Loaded>),
    /// The shared inputs of a task that are new to the worker go by the control socket.
    Shares(Vec<SharedInput>),
    /// Small frames, one after the other: one publication, one wake-up.
    Frames(Frames),
    Bytes(PanicGuard<Bytes>),
    /// The run's frame is complete.
    EndOfRun,
}

#[derive(Default)]
struct Frames {
    bytes: Vec<u8>,
    written: usize,
    /// The end of each frame, and how many of them are written.
    ends: SmallVec<[usize; FRAMES_USUAL]>,
    sent: usize,
}

struct Outbox {
    ring: Producer,
    /// These pieces did not fit.
    waiting: VecDeque<OutboxItem>,
    /// See [`Orders::spare`].
    spare: Vec<u8>,
    /// The first that waits could not be sent on the control socket since then.
    unsent_since: Option<Instant>,
}

impl Link {
    pub(crate) fn new(
        key: WorkerKey,
        pid: u32,
        pidfd: OwnedFd,
        control: ControlSocket,
        end: End,
        log_bytes_per_second: u64,
    ) -> Arc<Link> {
        let (producer, ring) = end.split();
        let reader = Reader::new(ring);
        let outbox =
            Outbox { ring: producer, waiting: VecDeque::new(), spare: Vec::new(), unsent_since: None };
        let orders = Orders {
            in_flight: VecDeque::new(),
            unsent: SmallVec::new(),
            spare: Vec::new(),
            last_module: None,
            last_limits: None,
            runs: 0,
            claims: 0,
        };
        let clock = WorkerClock::of(pid);
        clock.of_process().into_iter().for_each(|clock| priority::worker_comes(pid, clock));
        Arc::new_cyclic(|this| Link {
            key,
            pid,
            control,
            pidfd,
            clock,
            end,
            handoff: Handoff::new(reader, outbox),
            orders: Mutex::new(orders),
            runs_sent: AtomicU64::new(0),
            stops_by_signal: AtomicBool::new(false),
            sent: Sent::default(),
            log_bytes_per_second,
            this: this.clone(),
            killed_for: OnceLock::new(),
            death: OnceLock::new(),
        })
    }

    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.hold()
    }

    /// Notes that the worker is to run the task; [`flush`](Self::flush) sends it. Neither
    /// waits nor calls anyone: for use under the core's lock.
    pub(super) fn order(&self, task: TaskId, call: &Invocation, batch: Option<&Arc<Batch>>) {
        let mut orders = self.orders();
        // The scheduler never has more outstanding than there are words.
        let claim = (!orders.claims).trailing_zeros().min(ring::CLAIMS as u32 - 1) as u8;
        orders.claims |= 1 << claim;
        orders.runs += 1;
        let run = orders.runs;
        self.end.open_claim(claim, run);
        let payload_bytes_max = payload_bytes_max(&call.callee, &call.limits);
        let log_bytes_max = call.limits.log_bytes_max;
        let slice = batch.map(|batch| batch.slice());
        // A batch is sent from its first task without an answer.
        let start = batch.map_or(0, |batch| batch.offset(&call.input).min(call.input.len()));
        let input = &call.input[start..];
        let batch = batch.cloned();
        let has_begun = false;
        let asks = call.asks.as_ref().map(TaskAsks::asks);
        let in_flight =
            InFlight { task, run, claim, payload_bytes_max, log_bytes_max, batch, slice, has_begun, asks };
        let needs = (call.module.clone(), call.shares.clone());
        orders.in_flight.push_back(HeldRun { run: in_flight, _needs: needs });
        let module = call.module.id;
        let callee = call.callee.clone();
        let are_new = orders.last_limits.replace(call.limits) != Some(call.limits);
        let limits = are_new.then_some(call.limits);
        let shares = invocation::ids(&call.shares);
        let message = ToWorker::Run(RunMessage { task, run, claim, module, callee, limits, slice, shares });
        if orders.last_module.replace(module) != Some(module) && self.sent.order_module(&call.module) {
            orders.unsent.push(OutboxItem::Module(call.module.clone()));
        }
        if let Some(new) = self.sent.order_shares(&call.shares) {
            orders.unsent.push(OutboxItem::Shares(new));
        }
        let is_open = matches!(orders.unsent.last(), Some(OutboxItem::Frames(_)));
        let mut frames = match if is_open { orders.unsent.pop() } else { None } {
            Some(OutboxItem::Frames(frames)) => frames,
            _ => Frames { bytes: std::mem::take(&mut orders.spare), ..Frames::default() },
        };
        if frames.bytes.capacity() == 0 {
            frames.bytes.reserve(FRAME_BYTES_USUAL);
        }
        if let Err(error) = encode_head_into(&mut frames.bytes, &message, input.len()) {
            // `submit` has held the metadata to its limit.
            return self.kill_for(DeathCause::ProtocolViolation(error.to_string()));
        }
        if input.len() <= SMALL_INPUT_BYTES {
            frames.bytes.extend_from_slice(input);
            frames.ends.push(frames.bytes.len());
            orders.unsent.push(OutboxItem::Frames(frames));
        } else {
            let mut input = PanicGuard::new(call.input.to_bytes());
            input.advance(start);
            orders.unsent.extend([
                OutboxItem::Frames(frames),
                OutboxItem::Bytes(input),
                OutboxItem::EndOfRun,
            ]);
        }
    }

    /// Takes a task back that the worker has not begun. For use under the core's lock.
    pub(super) fn revoke(&self, task: TaskId) -> bool {
        let mut orders = self.orders();
        // Where many are taken back, it is the last.
        let Some(index) = orders.in_flight.iter().rposition(|held| held.run.task == task) else {
            return false;
        };
        let &InFlight { run, claim, has_begun, .. } = &orders.in_flight[index].run;
        let revoked = !has_begun && self.end.revoke(claim, run);
        if revoked {
            orders.in_flight.remove(index);
            orders.claims &= !(1 << claim);
        }
        revoked
    }

    /// Returns which run of the worker's this task is.
    pub(super) fn run_of(&self, task: TaskId) -> Option<u64> {
        self.orders().in_flight.iter().find(|held| held.run.task == task).map(|held| held.run.run)
    }

    /// Returns how many runs the worker says that it has begun, from this task's on; `None` once it has answered the
    /// task.
    pub(super) fn begun_from(&self, task: TaskId) -> Option<u64> {
        let orders = self.orders();
        let at = orders.in_flight.iter().position(|held| held.run.task == task)?;
        let from = orders.in_flight.iter().skip(at);
        Some(from.take_while(|held| !self.end.is_open(held.run.claim, held.run.run)).count() as u64)
    }

    /// Reads how much CPU time the process has used.
    pub(super) fn computed(&self) -> Option<Duration> {
        self.clock.read()
    }

    /// Returns whether the worker says that it has begun the task. It has begun what it has answered, which may
    /// not have been handled yet.
    pub(super) fn has_begun(&self, task: TaskId) -> bool {
        let orders = self.orders();
        let held = orders.in_flight.iter().find(|held| held.run.task == task);
        held.is_none_or(|held| self.end.has_begun(held.run.claim, held.run.run))
    }

    /// Sends what was ordered, as far as it fits.
    pub(super) fn flush(&self) {
        self.send();
    }

    /// Resident memory of the process, where the system says it.
    pub(super) fn resident_bytes(&self) -> Option<u64> {
        let text = kernel_text(format!("/proc/{}/statm", self.pid)).ok()?;
        let mut fields = text.split(' ').skip(1).map(|pages| pages.parse::<u64>().ok());
        let pages = fields.next()??;
        let of_files = fields.next()??;
        let page_size = rustix::param::page_size() as u64;
        // Shared inputs are not its own, and it does not grow by them.
        let shared = self.sent.share_bytes().min(of_files * page_size);
        Some((pages * page_size).saturating_sub(shared))
    }

    /// Notes for the supervisor that the process has been reaped.
    pub(crate) fn report_exit(&self, mut death: Death) {
        priority::worker_goes(self.pid);
        if let Some(cause) = self.killed_for.get() {
            death.cause = cause.clone();
        }
        let _ = self.death.set(death);
        self.set_gone();
    }

    /// The run that the worker is at, by what it has answered.
    fn at_hand(&self) -> Option<InFlight> {
        self.orders().in_flight.front().map(|held| held.run.clone())
    }

    /// Most bytes of a payload that the worker may send now.
    fn payload_bytes_max(&self) -> u64 {
        self.orders().in_flight.front().map_or(0, |held| held.run.payload_bytes_max)
    }

    /// Returns the same as [`at_hand`](Self::at_hand), if the worker may say this. Such a run is not taken back
    /// any more.
    fn spoken_of(&self, message: &FromWorker) -> Option<InFlight> {
        let mut orders = self.orders();
        let held = &mut orders.in_flight.front_mut()?.run;
        if !held.may_say(message) {
            return None;
        }
        held.has_begun = true;
        Some(held.clone())
    }

    fn has_sent(&self, run: u64) -> bool {
        let has_sent = || self.runs_sent.load(Ordering::SeqCst) >= run;
        // The worker may be quicker than the thread that has just written the last byte to it:
        // then that thread still holds the outbox.
        has_sent() || {
            drop(self.handoff.outbox());
            has_sent()
        }
    }

    /// The worker has answered what it was at.
    fn complete(&self) {
        let mut orders = self.orders();
        let held = orders.in_flight.pop_front();
        if let Some(held) = &held {
            orders.claims &= !(1 << held.run.claim);
        }
        drop(orders);
        // Dropping it may end a module, and tells others of it: that must not happen under the lock.
        drop(held);
    }
}

impl LinkSide for Link {
    type Reader = Reader;
    type Outbox = Outbox;
    type Sent = SmallVec<[OutboxItem; PIECES_USUAL]>;

    #[inline]
    fn handoff(&self) -> &Handoff<Reader, Outbox> {
        &self.handoff
    }

    #[inline]
    fn event_count(&self) -> &EventCount {
        self.end.event_count()
    }

    #[inline]
    fn at_most(&self, asked: Option<Duration>) -> Option<Duration> {
        self.end.at_most(asked)
    }

    #[inline]
    fn write(&self, outbox: &mut Outbox, sent: &mut Self::Sent) -> Result<(), Violation> {
        let mut orders = self.orders();
        outbox.waiting.extend(orders.unsent.drain(..));
        if orders.spare.capacity() == 0 {
            orders.spare = std::mem::take(&mut outbox.spare);
        }
        drop(orders);
        outbox.pump(self, sent)
    }

    fn kill_for_violation(&self, violation: Violation) {
        self.kill_for(DeathCause::ProtocolViolation(violation.to_string()));
    }
}

impl RingOutbox for Outbox {
    #[inline]
    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Pieces for the control socket do not wait for room: if it refuses them, they are tried again after a pause.
    #[inline]
    fn waits_for_space(&self) -> bool {
        matches!(self.waiting.front(), Some(OutboxItem::Bytes(_) | OutboxItem::Frames(_)))
    }

    #[inline]
    fn has_space(&self) -> bool {
        self.ring.space() != Ok(0)
    }

    fn waits_for_the_system(&self) -> bool {
        self.unsent_since.is_some()
    }
}

impl Outbox {
    /// Writes what fits, and returns what is done with.
    fn pump(
        &mut self,
        link: &Link,
        sent: &mut SmallVec<[OutboxItem; PIECES_USUAL]>,
    ) -> Result<(), Violation> {
        while let Some(piece) = self.waiting.front_mut() {
            match piece {
                OutboxItem::Module(module) => {
                    let sent = link.sent.send_module(&link.control, module, &link.holder());
                    if !link.has_been_sent("a module", sent, &mut self.unsent_since) {
                        return Ok(());
                    }
                }
                OutboxItem::Shares(shares) => {
                    let sent = link.sent.send_shares(&link.control, shares, &link.holder());
                    if !link.has_been_sent("a shared input", sent, &mut self.unsent_since) {
                        return Ok(());
                    }
                }
                OutboxItem::Frames(frames) => {
                    frames.written += self.ring.try_write(&frames.bytes[frames.written..])?;
                    while frames.ends.get(frames.sent).is_some_and(|end| *end <= frames.written) {
                        frames.sent += 1;
                        link.runs_sent.fetch_add(1, Ordering::SeqCst);
                    }
                    if frames.written < frames.bytes.len() {
                        break;
                    }
                    self.spare = std::mem::take(&mut frames.bytes);
                    self.spare.clear();
                    if self.spare.capacity() > FRAMES_BYTES_KEPT {
                        self.spare = Vec::new();
                    }
                }
                OutboxItem::Bytes(bytes) => {
                    let written = self.ring.try_write(bytes)?;
                    bytes.advance(written);
                    if !bytes.is_empty() {
                        break;
                    }
                }
                OutboxItem::EndOfRun => {
                    link.runs_sent.fetch_add(1, Ordering::SeqCst);
                }
            }
            sent.extend(self.waiting.pop_front());
        }
        Ok(())
    }
}

impl Link {
    /// Returns itself as the one that is told of the ends of modules and shared inputs.
    fn holder(&self) -> Weak<dyn Holder> {
        self.this.clone()
    }
}
