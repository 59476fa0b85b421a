//! The two readers under loom: every interleaving of a worker, the link's thread and a caller that reads inline, up to
//! three preemptions, or two where there is more to be gone through. A wake-up that is lost is a deadlock, which loom
//! reports.
//!
//! The loops, their lock and their event count are the host's own. What they ask a link is answered by numbers: those
//! that a worker says and those that it takes.

use std::cell::Cell;
use std::sync::{Arc, Weak};
use std::time::Duration;

use loom::thread;

use super::{
    Awaited, Drained, FRAMES_BEYOND, Handoff, LinkSide, ReaderSide, RingOutbox, RingReader, drive_inline,
    listen, wait_until_gone,
};
use crate::sync::Ordering;
use proto::event_count::{EventCount, FOR_DATA, FOR_SPACE};
use proto::ring::Violation;
use proto::sync::{AtomicU32, check};

/// The host's end of a worker that says so many numbers, or takes so many, and then ends.
struct Numbers {
    handoff: Handoff<Incoming, Outgoing>,
    event_count: EventCount,
    /// The count of numbers that the worker has said.
    put: Arc<AtomicU32>,
    /// The count of numbers that the worker has room for, and ever had.
    room: Arc<AtomicU32>,
    /// The count of numbers that the worker is to be sent, and of which the outbox need not know yet.
    ordered: AtomicU32,
    /// The count of numbers that have been handled, as a cell knows it.
    handled: AtomicU32,
    /// All that the worker will say.
    total: u32,
    /// All that it will be sent.
    to_send: u32,
    this: Weak<Numbers>,
}

struct Incoming {
    put: Arc<AtomicU32>,
    /// Out of the ring, read ahead.
    taken: u32,
    /// The number of these that were handled.
    heard: u32,
    is_left: bool,
}

struct Outgoing {
    room: Arc<AtomicU32>,
    /// What has been put into the outbox, and what has been sent of it.
    total: u32,
    sent: u32,
}

/// A worker that has been sent all that there was does it and ends. It does so where the last of it is dropped.
#[derive(Default)]
struct Ends(Option<Arc<Numbers>>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.iter().for_each(|link| link.set_gone());
    }
}

impl Numbers {
    /// A worker that says so much.
    fn that_says(total: u32) -> Arc<Numbers> {
        Numbers::new(total, 0)
    }

    /// A worker that is to be sent so much.
    fn that_takes(total: u32) -> Arc<Numbers> {
        Numbers::new(u32::MAX, total)
    }

    fn new(total: u32, to_send: u32) -> Arc<Numbers> {
        let put = Arc::new(AtomicU32::new(0));
        let room = Arc::new(AtomicU32::new(0));
        let incoming = Incoming { put: put.clone(), taken: 0, heard: 0, is_left: false };
        let outgoing = Outgoing { room: room.clone(), total: 0, sent: 0 };
        Arc::new_cyclic(|this| Numbers {
            handoff: Handoff::new(incoming, outgoing),
            event_count: EventCount::default(),
            put,
            room,
            ordered: AtomicU32::new(0),
            handled: AtomicU32::new(0),
            total,
            to_send,
            this: this.clone(),
        })
    }

    /// The worker says one thing more.
    fn publish(&self) {
        let put = self.put.load(Ordering::Relaxed);
        self.put.store(put + 1, Ordering::Release);
        self.event_count.notify(FOR_DATA);
    }

    /// A caller submits one thing more for the worker.
    fn submit(&self) {
        self.ordered.fetch_add(1, Ordering::SeqCst);
        self.send();
    }

    /// The worker takes one thing out.
    fn make_room(&self) {
        let room = self.room.load(Ordering::Relaxed);
        self.room.store(room + 1, Ordering::Release);
        self.event_count.notify(FOR_SPACE);
    }

    /// The link's thread, which looks away when `looks_away`.
    fn listen(&self, looks_away: impl Fn(&Incoming) -> bool) {
        listen(&Seat { link: self, looks_away });
        wait_until_gone(self);
    }

    /// A caller reads until so many numbers have been handled.
    fn drive_inline(&self, until: u32) {
        drive_inline(&Seat { link: self, looks_away: |_: &Incoming| false }, || Until {
            link: self,
            until,
            left: None,
        });
    }

    /// A caller does so, and its deadline passes once it has looked at the clock.
    fn drive_inline_for_a_moment(&self, until: u32) {
        drive_inline(&Seat { link: self, looks_away: |_: &Incoming| false }, || Until {
            link: self,
            until,
            left: Some(Cell::new(Duration::from_nanos(1))),
        });
    }

    /// A caller does so whose deadline has passed: it looks once.
    fn look_inline(&self) {
        drive_inline(&Seat { link: self, looks_away: |_: &Incoming| false }, || Until {
            link: self,
            until: 9,
            left: Some(Cell::new(Duration::ZERO)),
        });
    }

    /// A caller does so that looks away before it waits.
    fn drive_inline_with_a_pause(&self, until: u32) {
        let is_first = Cell::new(true);
        let looks_away = |_: &Incoming| is_first.replace(false);
        drive_inline(&Seat { link: self, looks_away }, || Until { link: self, until, left: None });
    }
}

impl LinkSide for Numbers {
    type Reader = Incoming;
    type Outbox = Outgoing;
    type Sent = Ends;

    fn handoff(&self) -> &Handoff<Incoming, Outgoing> {
        &self.handoff
    }

    fn event_count(&self) -> &EventCount {
        &self.event_count
    }

    /// Loom's time does not pass: what would be found by looking again after a while is to be found without.
    fn at_most(&self, asked: Option<Duration>) -> Option<Duration> {
        asked
    }

    fn write(&self, outbox: &mut Outgoing, sent: &mut Ends) -> Result<(), Violation> {
        let before = outbox.sent;
        outbox.total = self.ordered.load(Ordering::SeqCst);
        outbox.sent = outbox.room.load(Ordering::Acquire).min(outbox.total);
        if outbox.sent > before && outbox.sent == self.to_send {
            sent.0 = self.this.upgrade();
        }
        Ok(())
    }

    fn kill_for_violation(&self, violation: Violation) {
        panic!("{violation}");
    }
}

impl RingReader for Incoming {
    fn has_news(&self) -> bool {
        self.is_left || self.put.load(Ordering::Acquire) != self.taken
    }

    fn is_violated(&self) -> bool {
        false
    }

    fn is_flooded(&self) -> bool {
        false
    }

    fn is_amid(&self) -> bool {
        false
    }

    fn set_left(&mut self, is_left: bool) {
        self.is_left = is_left;
    }
}

impl RingOutbox for Outgoing {
    fn is_empty(&self) -> bool {
        self.sent == self.total
    }

    fn waits_for_space(&self) -> bool {
        !self.is_empty()
    }

    fn has_space(&self) -> bool {
        self.room.load(Ordering::Acquire) != self.sent
    }

    fn waits_for_the_system(&self) -> bool {
        false
    }
}

/// The seat of one who reads.
struct Seat<'a, F> {
    link: &'a Numbers,
    looks_away: F,
}

impl<F: Fn(&Incoming) -> bool> ReaderSide for Seat<'_, F> {
    type Link = Numbers;

    fn link(&self) -> &Numbers {
        self.link
    }

    /// A number stands for more frames than a caller handles beyond its own, so that it may stop after each.
    fn drain(&self, reader: &mut Incoming, is_over: impl Fn(usize) -> bool) -> Drained {
        reader.is_left = false;
        let mut frames = 0;
        let is_all = loop {
            if reader.heard == reader.taken {
                reader.taken = reader.put.load(Ordering::Acquire);
            }
            if reader.heard == reader.taken {
                break true;
            }
            if is_over(frames + FRAMES_BEYOND + 1) {
                break false;
            }
            frames += 1;
            reader.heard += 1;
            self.link.handled.store(reader.heard, Ordering::SeqCst);
        };
        if reader.heard == self.link.total {
            // The end of the process is told, so that everyone may leave.
            self.link.set_gone();
        }
        Drained { frames, is_all }
    }

    fn pause(&self, reader: &Incoming) -> Option<Duration> {
        (self.looks_away)(reader).then_some(Duration::ZERO)
    }
}

struct Until<'a> {
    link: &'a Numbers,
    until: u32,
    left: Option<Cell<Duration>>,
}

impl Awaited for Until<'_> {
    fn is_done(&self) -> bool {
        self.link.handled.load(Ordering::SeqCst) >= self.until
    }

    fn left(&self) -> Option<Duration> {
        self.left.as_ref().map(|left| left.replace(Duration::ZERO))
    }
}

/// A worker that says so much, the link's thread, and a caller.
fn receive(preemptions: usize, total: u32, caller: impl Fn(&Numbers) + Send + Sync + Copy + 'static) {
    check(preemptions, move || {
        let link = Numbers::that_says(total);
        let worker = link.clone();
        let listener = link.clone();
        let worker = thread::spawn(move || (0..total).for_each(|_| worker.publish()));
        let listener = thread::spawn(move || listener.listen(|reader| reader.heard == 1));
        caller(&link);
        worker.join().expect("says it");
        listener.join().expect("reads to the end");
        assert_eq!(link.handled.load(Ordering::SeqCst), total);
    });
}

#[test]
fn a_sleeper_hears_of_everything() {
    receive(3, 3, |_| {});
}

#[test]
fn a_caller_that_waits_for_the_first_answer_leaves_the_second_to_the_links_thread() {
    receive(3, 2, |link| link.drive_inline(1));
}

#[test]
fn a_caller_that_waits_for_the_last_answer_hears_of_it_and_of_the_end() {
    receive(3, 2, |link| link.drive_inline(9));
}

#[test]
fn a_caller_whose_deadline_passes_leaves_nothing_unheard() {
    receive(3, 1, |link| link.drive_inline_for_a_moment(9));
}

#[test]
fn a_caller_that_looks_away_hears_of_it_afterwards() {
    receive(3, 2, |link| link.drive_inline_with_a_pause(2));
}

#[test]
fn callers_one_after_the_other_leave_nothing_unheard() {
    receive(2, 2, |link| {
        link.drive_inline_for_a_moment(9);
        link.drive_inline(2);
    });
}

#[test]
fn a_caller_that_sleeps_learns_of_what_is_not_in_the_ring() {
    check(2, || {
        let link = Numbers::that_says(9);
        let reaper = link.clone();
        let listener = link.clone();
        let reaper = thread::spawn(move || {
            // The caller's answer came from elsewhere; later, the worker dies without a word.
            reaper.handled.store(1, Ordering::SeqCst);
            reaper.wake_inline_reader();
            reaper.set_gone();
        });
        let listener = thread::spawn(move || listener.listen(|_| false));
        link.drive_inline(1);
        link.drive_inline(9);
        reaper.join().expect("reaps");
        listener.join().expect("reads to the end");
    });
}

#[test]
fn the_links_thread_that_was_refused_at_the_last_moment_looks_again() {
    check(3, || {
        let link = Numbers::that_says(1);
        let worker = link.clone();
        let caller = link.clone();
        let worker = thread::spawn(move || worker.publish());
        let caller = thread::spawn(move || caller.drive_inline_for_a_moment(9));
        // It is the first to run: so there are preemptions left for the moment at which the caller goes.
        link.listen(|_| false);
        worker.join().expect("says it");
        caller.join().expect("leaves");
        assert_eq!(link.handled.load(Ordering::SeqCst), 1);
    });
}

/// A caller that submits so much and then waits or not, the link's thread, and a worker that makes room.
fn send(preemptions: usize, total: u32, caller: impl Fn(&Numbers) + Send + Sync + Copy + 'static) {
    check(preemptions, move || {
        let link = Numbers::that_takes(total);
        let worker = link.clone();
        let listener = link.clone();
        let worker = thread::spawn(move || (0..total).for_each(|_| worker.make_room()));
        let listener = thread::spawn(move || listener.listen(|_| false));
        link.ordered.fetch_add(total - 1, Ordering::SeqCst);
        link.submit();
        caller(&link);
        worker.join().expect("makes room");
        listener.join().expect("sends to the end");
        assert!(link.handoff.outbox().is_empty());
    });
}

#[test]
fn what_does_not_fit_is_sent_by_the_links_thread_where_nobody_reads_inline() {
    send(3, 2, |_| {});
}

#[test]
fn what_does_not_fit_is_sent_while_an_inline_reader_sleeps() {
    send(2, 2, |link| link.drive_inline(9));
}

#[test]
fn what_does_not_fit_is_sent_when_an_inline_reader_has_gone() {
    send(2, 2, |link| link.drive_inline_for_a_moment(9));
}

/// What does not fit while there is no room at all, the link's thread, and in the end a worker that makes room.
fn leave(preemptions: usize, caller: impl Fn(&Numbers) + Send + Sync + Copy + 'static) {
    check(preemptions, move || {
        let link = Numbers::that_takes(1);
        let listener = link.clone();
        let listener = thread::spawn(move || listener.listen(|_| false));
        caller(&link);
        link.make_room();
        listener.join().expect("sends to the end");
        assert!(link.handoff.outbox().is_empty());
    });
}

#[test]
fn the_links_thread_learns_that_it_waits_for_room() {
    leave(5, Numbers::submit);
}

#[test]
fn the_links_thread_learns_that_two_inline_readers_went_before_there_was_room() {
    leave(4, |link| {
        link.submit();
        link.look_inline();
        link.look_inline();
    });
}

#[test]
fn what_another_caller_submits_is_sent_while_an_inline_reader_falls_asleep() {
    check(3, || {
        let link = Numbers::that_takes(1);
        let submitter = link.clone();
        let listener = link.clone();
        let submitter = thread::spawn(move || {
            submitter.submit();
            submitter.make_room();
        });
        let listener = thread::spawn(move || listener.listen(|_| false));
        link.drive_inline(9);
        submitter.join().expect("submits");
        listener.join().expect("sends to the end");
        assert!(link.handoff.outbox().is_empty());
    });
}
