//! A worker's ring is read, and what did not fit is sent, by the link's own thread, or by a caller that waits for an
//! answer and reads in its place, the *inline reader*. Here are the loops of both, and each step by which one leaves the
//! rest to the other, so that neither sleeps while something is to be done.
//!
//! The loops know neither frames nor rings. They ask [`LinkSide`] and [`ReaderSide`], and the link answers. In
//! `model.rs` numbers answer, and loom tries every interleaving of these very loops.

#[cfg(all(test, wasmpool_loom))]
mod model;

use std::sync::PoisonError;
use std::time::Duration;

use crate::sync::{AtomicBool, Mutex, MutexGuard, Ordering};
use proto::event_count::{EventCount, FOR_DATA, FOR_SPACE};
use proto::reader_lock::ReaderLock;
use proto::ring::Violation;
use proto::spin::Spinning;

/// A piece that the control socket refused is tried again after this long.
const SEND_AGAIN: Duration = Duration::from_millis(5);

/// A caller that reads in place of the link's thread handles at most this many frames after its own result: a
/// worker that never stops sending must not keep it.
const FRAMES_BEYOND: usize = 4096;

/// What the link's thread, an inline reader and those who submit have in common.
pub(super) struct Handoff<R, O> {
    pub(super) reader: ReaderLock<R>,
    spinning: Spinning,
    /// The same for the link's own thread, while a payload is under way.
    streaming: Spinning,
    outbox: Mutex<O>,
    /// Something in the outbox did not fit; changes under its lock.
    has_rest: AtomicBool,
    /// It is set once the process is gone; the reader then drains the ring and ends.
    gone: AtomicBool,
}

impl<R, O> Handoff<R, O> {
    pub(super) fn new(reader: R, outbox: O) -> Self {
        Handoff {
            reader: ReaderLock::new(reader),
            spinning: Spinning::new(),
            streaming: Spinning::new(),
            outbox: Mutex::new(outbox),
            has_rest: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        }
    }

    pub(super) fn outbox(&self) -> MutexGuard<'_, O> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What has been read of a worker's ring, in the hands of the one who reads.
pub(super) trait RingReader {
    /// Returns whether there is something to be handled.
    fn has_news(&self) -> bool;

    /// The worker has committed a violation: nothing is read after it.
    fn is_violated(&self) -> bool;

    /// What the worker's tasks log waits for the next look, since it is too much.
    fn is_flooded(&self) -> bool;

    /// Returns whether a payload is under way.
    fn is_amid(&self) -> bool;

    /// Notes whether an inline reader went before it had handled all that it had read ahead.
    fn set_left(&mut self, is_left: bool);
}

/// What is to be sent to a worker, in the order in which it goes.
pub(super) trait RingOutbox {
    fn is_empty(&self) -> bool;

    /// Returns whether the next piece waits for room in the ring.
    fn waits_for_space(&self) -> bool;

    /// Returns whether the ring has room.
    fn has_space(&self) -> bool;

    /// Returns whether the next piece could not be sent on the control socket just now.
    fn waits_for_the_system(&self) -> bool;
}

/// What the loops need of a link, whoever hears what is read.
pub(super) trait LinkSide {
    type Reader: RingReader;
    type Outbox: RingOutbox;
    /// What has been sent, which is dropped after the outbox's lock has been given back.
    type Sent: Default;

    fn handoff(&self) -> &Handoff<Self::Reader, Self::Outbox>;

    /// Returns what the host sleeps on.
    fn event_count(&self) -> &EventCount;

    /// Returns how long the host may sleep, if it wants to sleep for so long.
    fn at_most(&self, asked: Option<Duration>) -> Option<Duration>;

    /// Writes what fits, after what was ordered has been put at the outbox's end.
    fn write(&self, outbox: &mut Self::Outbox, sent: &mut Self::Sent) -> Result<(), Violation>;

    /// Ends a worker whose ring says what cannot be.
    fn kill_for_violation(&self, violation: Violation);

    /// Writes what fits; `true` if that was all.
    fn pump(&self) -> Result<bool, Violation> {
        let handoff = self.handoff();
        let mut outbox = handoff.outbox();
        // Dropping an input may be the caller's code (`Bytes::from_owner`): not under the lock.
        let mut sent = Self::Sent::default();
        let pumped = self.write(&mut outbox, &mut sent);
        let all_sent = outbox.is_empty();
        handoff.has_rest.store(!all_sent, Ordering::SeqCst);
        drop(outbox);
        drop(sent);
        pumped.map(|()| all_sent)
    }

    /// Sends what was ordered, as far as it fits.
    fn send(&self) {
        match self.pump() {
            Ok(true) => {}
            // The link's thread takes over, if no inline reader does; it must learn that it waits for space now.
            Ok(false) => self.event_count().wake(),
            Err(violation) => self.kill_for_violation(violation),
        }
    }

    fn has_rest(&self) -> bool {
        self.handoff().has_rest.load(Ordering::SeqCst)
    }

    /// Returns whether some of the rest could be sent now. `false` while another thread is at it.
    fn can_send(&self) -> bool {
        let can = |outbox: MutexGuard<'_, Self::Outbox>| outbox.waits_for_space() && outbox.has_space();
        self.has_rest() && self.handoff().outbox.try_lock().is_ok_and(can)
    }

    /// Hands the rest over for an inline reader that goes or sleeps.
    fn hand_over(&self) {
        if self.has_rest() {
            self.event_count().wake();
        }
    }

    /// Returns whether the next piece could not be sent on the control socket just now.
    fn waits_for_the_system(&self) -> bool {
        self.has_rest() && self.handoff().outbox().waits_for_the_system()
    }

    fn is_gone(&self) -> bool {
        self.handoff().gone.load(Ordering::SeqCst)
    }

    /// Notes that the process is gone: nothing more comes.
    fn set_gone(&self) {
        self.handoff().gone.store(true, Ordering::SeqCst);
        self.event_count().wake();
        // An inline reader then lets go of the reader's lock.
        self.wake_inline_reader();
    }

    /// Wakes the inline reader, if there is one and it sleeps.
    fn wake_inline_reader(&self) {
        if self.handoff().reader.has_sleeping_inline_reader() {
            self.event_count().wake_inline();
        }
    }

    /// The link's thread sleeps until it is woken for one of `what`, or until `ready`.
    fn wait(&self, what: u32, ready: impl Fn() -> bool) {
        self.event_count().wait(what, self.at_most(None), ready);
    }
}

/// The result of one look at what the worker said.
pub(super) struct Drained {
    pub(super) frames: usize,
    /// It heard all there was; else it stopped, and there may be more that is not in the ring any more.
    pub(super) is_all: bool,
}

/// A reader of the ring, with the one who hears what is read.
pub(super) trait ReaderSide {
    type Link: LinkSide;

    fn link(&self) -> &Self::Link;

    /// Handles what the worker has said so far, unless after some frames it is over.
    fn drain(&self, reader: &mut ReaderOf<Self>, is_over: impl Fn(usize) -> bool) -> Drained;

    /// Returns how long to look away, if that is better than to be woken for each frame.
    fn pause(&self, reader: &ReaderOf<Self>) -> Option<Duration>;
}

type ReaderOf<S> = <<S as ReaderSide>::Link as LinkSide>::Reader;

/// What an inline reader waits for. It is dropped when the waiting is over, before the reader's lock is given back.
pub(super) trait Awaited {
    fn is_done(&self) -> bool;

    /// Returns the time until its deadline, if it has one.
    fn left(&self) -> Option<Duration>;
}

/// An inline reader is there; it goes even if a panic takes it.
struct InlineReading<'a, L: LinkSide>(&'a L);

impl<L: LinkSide> InlineReading<'_, L> {
    fn begin(link: &L) -> InlineReading<'_, L> {
        link.event_count().begin_inline();
        link.handoff().reader.begin_inline();
        InlineReading(link)
    }
}

impl<L: LinkSide> Drop for InlineReading<'_, L> {
    fn drop(&mut self) {
        self.0.handoff().reader.end_inline(|| self.0.hand_over());
        self.0.event_count().end_inline();
    }
}

/// The calling thread reads what the worker says until what it waits for is done, or until the deadline.
/// Returns at once if another thread is at it; else `begin` says what is waited for.
pub(super) fn drive_inline<A: Awaited>(side: &impl ReaderSide, begin: impl FnOnce() -> A) {
    let link = side.link();
    let handoff = link.handoff();
    let Some(mut reader) = handoff.reader.try_lock_inline() else { return };
    let awaited = begin();
    let is_late = || awaited.left() == Some(Duration::ZERO);
    let is_over = || awaited.is_done() || link.is_gone();
    let inline_reading = InlineReading::begin(link);
    let is_all = loop {
        if link.can_send()
            && let Err(violation) = link.pump()
        {
            link.kill_for_violation(violation);
        }
        let Drained { is_all, .. } =
            side.drain(&mut reader, |frames| is_late() || (frames > FRAMES_BEYOND && awaited.is_done()));
        let left = awaited.left();
        if is_over() || reader.is_violated() || left == Some(Duration::ZERO) {
            break is_all;
        }
        match side.pause(&reader) {
            Some(pause) => {
                let pause = left.map_or(pause, |left| left.min(pause));
                let sleep = || link.event_count().sleep_inline(pause, is_over);
                handoff.reader.sleep_inline(|| link.hand_over(), sleep);
            }
            None => {
                let is_ready = || reader.has_news() || is_over();
                let sleep = || link.event_count().wait_inline(link.at_most(left), is_ready);
                let sleep = || handoff.reader.sleep_inline(|| link.hand_over(), sleep);
                handoff.spinning.wait(|| is_ready() || link.can_send(), sleep);
            }
        }
    };
    drop(inline_reading);
    drop(awaited);
    // The link's own thread must see to data that woke nobody, and to what was not read to its end.
    reader.set_left(!is_all);
    let has_news = reader.has_news() || reader.is_violated();
    if handoff.reader.give_back(reader) || has_news || link.is_gone() {
        link.event_count().wake();
    }
}

/// The link's thread handles what the worker says, to the end of the stream or the first violation, and waits until
/// the process is gone.
pub(super) fn listen(side: &impl ReaderSide) {
    let link = side.link();
    let handoff = link.handoff();
    loop {
        // An inline reader sends what there is.
        let is_read_inline = handoff.reader.has_awake_inline_reader();
        let drained = match if is_read_inline { Ok(true) } else { link.pump() } {
            Ok(drained) => drained,
            Err(violation) => return link.kill_for_violation(violation),
        };
        let is_gone = link.is_gone();
        // An inline reader leaves when the process is gone, and then nothing more can come.
        let reader = if is_gone { Some(handoff.reader.take()) } else { handoff.reader.try_take() };
        let mut is_amid = !drained;
        if let Some(mut reader) = reader {
            let Drained { frames, .. } = side.drain(&mut reader, |_| false);
            while is_gone && reader.is_flooded() {
                side.drain(&mut reader, |_| false);
            }
            if is_gone || reader.is_violated() {
                return;
            }
            let pause = side.pause(&reader).filter(|_| frames > 0 && drained);
            let pause = pause.or_else(|| (!drained && link.waits_for_the_system()).then_some(SEND_AGAIN));
            is_amid |= reader.is_amid();
            drop(reader);
            if let Some(pause) = pause {
                link.event_count().sleep_unnotified(pause);
                continue;
            }
        }
        let what = if drained { FOR_DATA } else { FOR_DATA | FOR_SPACE };
        let has_news = || {
            let outbox = handoff.outbox();
            let blocked = outbox.waits_for_space();
            let pumpable = blocked && !is_read_inline && (drained || outbox.has_space());
            drop(outbox);
            let is_other = link.has_rest() && handoff.reader.has_awake_inline_reader() != is_read_inline;
            pumpable
                || is_other
                || link.is_gone()
                || handoff.reader.try_take().is_some_and(|reader| reader.has_news())
        };
        if is_amid {
            handoff.streaming.wait(has_news, || link.wait(what, has_news));
        } else {
            link.wait(what, has_news);
        }
    }
}

/// The link's thread waits until the process is gone: the stream is of no use after a violation, but the process must
/// be reaped first.
pub(super) fn wait_until_gone(link: &impl LinkSide) {
    while !link.is_gone() {
        link.wait(FOR_DATA, || link.is_gone());
    }
}
