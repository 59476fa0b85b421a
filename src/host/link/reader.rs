//! Reads what a worker says, on the link's own thread or on that of a caller that waits for an answer.

use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use super::reading::{
    Awaited, Drained, LinkSide, ReaderSide, RingReader, drive_inline, listen, wait_until_gone,
};
use super::{HeldRun, InFlight, Link, TaskEnd, WorkerEvents};
use crate::error::DeathCause;
use crate::ewma::Ewma;
use crate::future::Cell;
use crate::host::asks::SendReply;
use crate::host::become_io_thread;
use crate::host::completion::Received;
use crate::host::logs::{FLOOD_PAUSE, LogForwarder};
use proto::frame::Assembly;
use proto::limits::LOG_RECORD_BYTES_MAX;
use proto::message::FromWorker;
use proto::message::{LogRecord, LogSource};
use proto::payload::Payload;
use proto::ring::Consumer;
use proto::slice;
use proto::task::TaskId;

/// Answers that are handled under one lock, at most; their inputs are dropped after the last one.
const ANSWERS_AT_ONCE: usize = 64;

/// Answers are handled one by one while no more runs than this are under way.
const FEW_OUTSTANDING: usize = 8;

/// A caller does not wait for the next answer alone while this many runs are under way.
const MANY_OUTSTANDING: u64 = 4;

/// Bounds of the time that a reader looks away while many runs are under way.
const PAUSE_MIN: Duration = Duration::from_micros(20);
const PAUSE_MAX: Duration = Duration::from_micros(320);

/// Reads what the worker says: one thread at a time, the link's own or an inline reader.
pub(super) struct Reader {
    ring: Consumer,
    frames: Assembly<FromWorker>,
    /// The run and the task that logged last, and how much.
    logged: (u64, TaskId, u64),
    /// Empty between two looks; kept for its memory.
    answers: Vec<TaskEnd>,
    /// The run that the worker has spoken of, until it has answered: it is not taken back, and nobody else
    /// removes it from what is outstanding.
    held: Option<InFlight>,
    /// This exists once the worker's tasks log.
    log_forwarder: Option<LogForwarder>,
    /// Says how long a task runs.
    typical: Ewma,
    /// The violation that the worker has committed; nothing is read after it.
    violation: Option<String>,
    /// An inline reader went before it had heard all: of what was read ahead there may be whole frames.
    is_left: bool,
}

/// The number of frames that are handled between two questions whether to go on.
const FRAMES_UNASKED: usize = 64;

impl RingReader for Reader {
    #[inline]
    fn has_news(&self) -> bool {
        self.violation.is_none() && (self.is_left || self.ring.available() != Ok(0))
    }

    #[inline]
    fn is_violated(&self) -> bool {
        self.violation.is_some()
    }

    #[inline]
    fn is_flooded(&self) -> bool {
        self.log_forwarder.as_ref().is_some_and(LogForwarder::is_flooded)
    }

    #[inline]
    fn is_amid(&self) -> bool {
        self.frames.is_amid()
    }

    #[inline]
    fn set_left(&mut self, is_left: bool) {
        self.is_left = is_left;
    }
}

impl Reader {
    pub(super) fn new(ring: Consumer) -> Self {
        Reader {
            ring,
            frames: Assembly::new(),
            logged: (0, TaskId(0), 0),
            answers: Vec::new(),
            held: None,
            log_forwarder: None,
            typical: Ewma::default(),
            violation: None,
            is_left: false,
        }
    }

    /// Handles what the worker has said so far, unless after some frames it is over.
    fn drain(&mut self, events: &impl WorkerEvents, link: &Link, is_over: impl Fn(usize) -> bool) -> Drained {
        let mut drained = Drained { frames: 0, is_all: false };
        self.is_left = false;
        let mut answers = std::mem::take(&mut self.answers);
        // While few runs are under way, each answer is handled by itself, and its input is dropped with it.
        let at_once = if link.orders().in_flight.len() > FEW_OUTSTANDING { ANSWERS_AT_ONCE } else { 1 };
        self.log_forwarder.iter_mut().for_each(LogForwarder::resume);
        while self.violation.is_none() && !self.is_flooded() {
            if drained.frames % FRAMES_UNASKED == FRAMES_UNASKED - 1 && is_over(drained.frames) {
                break;
            }
            // This is asked once a frame is there, and not before: the run that it answers may be ordered
            // meanwhile.
            let held = &self.held;
            let payload_bytes_max = || match held {
                Some(held) => held.payload_bytes_max,
                None => link.payload_bytes_max(),
            };
            let heard = match self.frames.next(&mut self.ring, payload_bytes_max) {
                Ok(None) => {
                    drained.is_all = true;
                    break;
                }
                Ok(Some((message, payload))) => {
                    let frame_bytes = self.frames.frame_bytes();
                    self.hear(events, link, message, (payload, frame_bytes), &mut answers)
                }
                Err(error) => Err(error.to_string()),
            };
            drained.frames += 1;
            if answers.len() >= at_once {
                events.completed(link, answers.drain(..));
            }
            self.violation = heard.err();
        }
        if !answers.is_empty() {
            events.completed(link, answers.drain(..));
        }
        self.answers = answers;
        if let Some(violation) = &self.violation {
            link.kill_for(DeathCause::ProtocolViolation(violation.clone()));
        }
        drained
    }

    fn hear(
        &mut self,
        events: &impl WorkerEvents,
        link: &Link,
        message: FromWorker,
        (payload, frame_bytes): (Payload, u64),
        answers: &mut Vec<TaskEnd>,
    ) -> Result<(), String> {
        if let FromWorker::Event { task: None, record } = &message {
            answer(events, link, answers);
            return self.log_event(events, link, None, record, &payload);
        }
        if self.held.is_none() {
            self.held = link.spoken_of(&message);
        }
        let Some(held) = self.held.as_ref().filter(|held| held.may_say(&message)) else {
            return Err("it spoke of a task that it does not have".into());
        };
        match message {
            FromWorker::Log { task, record } => {
                let held = held.clone();
                self.count_log(&held, task, &record, &payload)?;
                answer(events, link, answers);
                self.log(events, link, Some((&held, task)), &record);
            }
            FromWorker::Event { task, record } => {
                let held = held.clone();
                answer(events, link, answers);
                let of = task.map(|task| (&held, task));
                self.log_event(events, link, of, &record, &payload)?;
            }
            FromWorker::Ask { task: _, run, number, question } => {
                let Some(asks) = &held.asks else {
                    return Err("it asked for what its task does not have".into());
                };
                if run != held.run || !payload.is_empty() {
                    return Err("it asked for something in the name of another run, or with a payload".into());
                }
                let to: Weak<dyn SendReply> = link.this.clone();
                asks.ask(&to, run, number, question)?;
            }
            FromWorker::Item { task, completion } => {
                let batch = held.batch_for(task)?;
                self.typical.learn(Duration::from_nanos(completion.cost.run_ns));
                batch.answer(link.pid, || events.now(), Received { completion, payload, frame_bytes });
            }
            FromWorker::Returned { task, run_ns } => {
                let batch = held.batch_for(task)?;
                self.typical.learn(Duration::from_nanos(run_ns));
                batch.returned(link.pid, run_ns, payload, frame_bytes);
            }
            FromWorker::Done { task, completion } => {
                if !link.has_sent(held.run) {
                    return Err("it answered before it had read its input".into());
                }
                let unfinished = held.is_unfinished(&completion.end, &payload)?;
                self.held = None;
                link.complete();
                self.report_dropped(events, link);
                self.typical.learn(Duration::from_nanos(completion.cost.run_ns));
                let received = Received { completion, payload, frame_bytes };
                answers.push(TaskEnd { task, unfinished, received });
            }
        }
        Ok(())
    }

    /// Counts a record against its task's limit, and checks it.
    fn count_log(
        &mut self,
        held: &InFlight,
        task: TaskId,
        record: &LogRecord,
        payload: &[u8],
    ) -> Result<(), String> {
        if (held.run, task) != (self.logged.0, self.logged.1) {
            self.logged = (held.run, task, 0);
        }
        self.logged.2 += (record.target.len() + record.message.len() + record.fields.len()) as u64;
        // A worker keeps the limit. Twice the limit leaves room for the marks of what was cut.
        let log_bytes_max = held.log_bytes_max.saturating_mul(2).max(LOG_RECORD_BYTES_MAX as u64);
        if !payload.is_empty() || self.logged.2 > log_bytes_max {
            return Err("its logs are over the limit that it has to keep".into());
        }
        if record.source == LogSource::Worker {
            return Err("it gave its own words for a task's".into());
        }
        Ok(())
    }

    /// Handles an event of the worker's own.
    fn log_event(
        &mut self,
        events: &impl WorkerEvents,
        link: &Link,
        of: Option<(&InFlight, TaskId)>,
        record: &LogRecord,
        payload: &[u8],
    ) -> Result<(), String> {
        let bytes = record.target.len() + record.message.len() + record.fields.len();
        // A worker keeps half of this bound.
        if !payload.is_empty() || record.source != LogSource::Worker || bytes > 2 * LOG_RECORD_BYTES_MAX {
            return Err("it said something of itself that cannot be".into());
        }
        self.log(events, link, of, record);
        Ok(())
    }

    fn log(
        &mut self,
        events: &impl WorkerEvents,
        link: &Link,
        of: Option<(&InFlight, TaskId)>,
        record: &LogRecord,
    ) {
        let task = of.map(|(_, task)| task);
        let cell = || match of {
            Some((InFlight { batch: Some(batch), .. }, _)) => Some(batch.cell().clone()),
            Some((_, task)) => events.cell(task),
            None => None,
        };
        self.report_dropped(events, link);
        let log_forwarder =
            self.log_forwarder.get_or_insert_with(|| LogForwarder::new(link.pid, link.log_bytes_per_second));
        if !log_forwarder.take(cell, task, record) {
            events.log_record_dropped();
        }
    }

    /// Says what went over the rate, if it is time.
    fn report_dropped(&mut self, events: &impl WorkerEvents, link: &Link) {
        if let Some(dropped) = self.log_forwarder.as_mut().and_then(LogForwarder::report) {
            events.logs_dropped(link.pid, dropped);
        }
    }

    /// Returns how long to look away if many runs are under way and each is short: until about two thirds of
    /// them are done. A wake-up for each would cost more than the tasks do.
    fn pause(&self, link: &Link) -> Option<Duration> {
        if self.is_flooded() {
            return Some(FLOOD_PAUSE);
        }
        let orders = link.orders();
        let items = |held: &HeldRun| held.run.batch.as_ref().map_or(1, |batch| batch.left());
        let outstanding = orders.in_flight.iter().map(items).sum::<u64>();
        drop(orders);
        let typical = self.typical.duration();
        let until_most = typical.saturating_mul((outstanding * 2 / 3) as u32).min(PAUSE_MAX);
        (outstanding >= MANY_OUTSTANDING && typical <= PAUSE_MAX).then(|| until_most.max(PAUSE_MIN))
    }
}

/// Answers that came before a log record are handled before it.
fn answer(events: &impl WorkerEvents, link: &Link, answers: &mut Vec<TaskEnd>) {
    if !answers.is_empty() {
        events.completed(link, answers.drain(..));
    }
}

/// A reader of the link's ring, and who hears what it reads.
struct Hearing<'a, E> {
    events: &'a E,
    link: &'a Link,
}

impl<E: WorkerEvents> ReaderSide for Hearing<'_, E> {
    type Link = Link;

    #[inline]
    fn link(&self) -> &Link {
        self.link
    }

    #[inline]
    fn drain(&self, reader: &mut Reader, is_over: impl Fn(usize) -> bool) -> Drained {
        reader.drain(self.events, self.link, is_over)
    }

    #[inline]
    fn pause(&self, reader: &Reader) -> Option<Duration> {
        reader.pause(self.link)
    }
}

/// A caller waits for this. A thread that fills the cell elsewhere wakes it by the waker.
struct AwaitedCell<'a> {
    cell: &'a Cell,
    waker: Waker,
    deadline: Option<Instant>,
}

impl AwaitedCell<'_> {
    fn begin<'a>(link: &Arc<Link>, cell: &'a Cell, deadline: Option<Instant>) -> AwaitedCell<'a> {
        let waker = Waker::from(link.clone());
        cell.add_inline_reader(&waker);
        AwaitedCell { cell, waker, deadline }
    }
}

impl Drop for AwaitedCell<'_> {
    fn drop(&mut self) {
        self.cell.remove_inline_reader(&self.waker);
    }
}

impl Awaited for AwaitedCell<'_> {
    #[inline]
    fn is_done(&self) -> bool {
        self.cell.has_news()
    }

    #[inline]
    fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

impl Link {
    /// The calling thread reads what the worker says until the cell is filled, or until the deadline:
    /// one thread less to be woken for an answer. Returns at once if another thread is at it.
    pub(in super::super) fn drive_inline(
        self: &Arc<Self>,
        events: &impl WorkerEvents,
        cell: &Cell,
        deadline: Option<Instant>,
    ) {
        drive_inline(&Hearing { events, link: self }, || AwaitedCell::begin(self, cell, deadline));
    }
}

/// The cells that the inline reader waits for wake it by this.
impl Wake for Link {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_inline_reader();
    }
}

/// The link's thread: reads until the process is gone, then reports its death.
pub(crate) fn read_loop(events: &impl WorkerEvents, link: &Arc<Link>) {
    become_io_thread();
    slice::be_usual();
    // Its pauses are short, and the kernel's usual slack would double them. If the slack cannot be set, they
    // are longer.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1_000));
    // Wakers and inputs' destructors are others' code; whatever they do, the death is reported.
    if catch_unwind(AssertUnwindSafe(|| listen(&Hearing { events, link }))).is_err() {
        link.kill_for(DeathCause::ProtocolViolation("the host's own thread panicked".into()));
    }
    wait_until_gone(&**link);
    if let Some(death) = link.death.get() {
        let mut death = death.clone();
        let log_forwarder = link.handoff.reader.take().log_forwarder.take();
        if let Some((last, dropped)) = log_forwarder.map(LogForwarder::close) {
            death.last_logs = last;
            dropped.into_iter().for_each(|dropped| events.logs_dropped(link.pid, dropped));
        }
        events.died(link.key, death);
    }
}
