//! The ring's event counts and the reader's lock as they stand in `crates/proto/src/event_count.rs` and `crates/proto/src/reader_lock.rs`,
//! under loom: every interleaving of a worker, the link's thread and a caller that attends, up to three
//! preemptions, or two where there is more to be gone through. A wake-up that is lost is a deadlock, which loom reports.
//!
//! The kernel's futex is modelled: a word, and a lock under which it is compared before the sleep. A sleep
//! with a timeout is one that ends at once. The parts of `src/host/link.rs` and `src/host/link/reader.rs`
//! that stand here are a copy in small, of `listen`, `begin_inline` and `report_exit`: the order of their
//! steps is theirs.

#![allow(dead_code, unreachable_pub, reason = "the included sources have more than is checked here")]

mod sync {
    use std::time::Duration;

    use loom::sync::Condvar;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
    pub(crate) use loom::sync::{Mutex, MutexGuard};
    pub(crate) use std::sync::TryLockError;

    pub(crate) struct Word {
        value: AtomicU32,
        bucket: Mutex<()>,
        woken: Condvar,
    }

    impl Default for Word {
        fn default() -> Self {
            Word { value: AtomicU32::new(0), bucket: Mutex::new(()), woken: Condvar::new() }
        }
    }

    impl Word {
        pub(crate) fn load(&self) -> u32 {
            self.value.load(Ordering::SeqCst)
        }

        pub(crate) fn wake(&self) {
            self.value.fetch_add(1, Ordering::SeqCst);
            let bucket = self.bucket.lock().expect("no panic under it");
            self.woken.notify_one();
            drop(bucket);
        }

        pub(crate) fn sleep(&self, was: u32, at_most: Option<Duration>) {
            let bucket = self.bucket.lock().expect("no panic under it");
            if at_most.is_none() && self.value.load(Ordering::SeqCst) == was {
                drop(self.woken.wait(bucket).expect("no panic under it"));
            }
        }
    }
}

#[path = "../../../crates/proto/src/event_count.rs"]
mod event_count;
#[path = "../../../crates/proto/src/reader_lock.rs"]
mod reader_lock;

use std::sync::Arc;
use std::time::Duration;

use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::thread;

use event_count::{EventCount, FOR_DATA, FOR_SPACE};
use reader_lock::ReaderLock;

fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// The host's side of a worker: a ring whose bytes are numbers, and what has been read of it.
struct Link {
    event_count: EventCount,
    put: AtomicU32,
    reader_lock: ReaderLock<Reader>,
    gone: AtomicBool,
    /// The number of answers that have been handled, as a cell knows it.
    handled: AtomicU32,
    /// All that there will be.
    total: u32,
}

struct Reader {
    /// Out of the ring, read ahead.
    taken: u32,
    /// The number of these that were handled.
    heard: u32,
    /// An inline reader went before it had handled what it had read ahead.
    is_left: bool,
}

impl Link {
    fn new(total: u32) -> Arc<Link> {
        let put = AtomicU32::new(0);
        let handled = AtomicU32::new(0);
        let event_count = EventCount::default();
        let reader_lock = ReaderLock::new(Reader { taken: 0, heard: 0, is_left: false });
        let gone = AtomicBool::new(false);
        Arc::new(Link { event_count, put, reader_lock, gone, handled, total })
    }

    /// The worker says one thing more.
    fn publish(&self) {
        let put = self.put.load(Ordering::Relaxed);
        self.put.store(put + 1, Ordering::Release);
        self.event_count.notify(FOR_DATA);
    }

    fn has_news(&self, reader: &Reader) -> bool {
        reader.is_left || self.put.load(Ordering::Acquire) != reader.taken
    }

    /// `true` if it heard all there was, before it was over.
    fn drain(&self, reader: &mut Reader, is_over: impl Fn() -> bool) -> bool {
        reader.is_left = false;
        let is_all = loop {
            if reader.heard == reader.taken {
                reader.taken = self.put.load(Ordering::Acquire);
            }
            if reader.heard == reader.taken {
                break true;
            }
            if is_over() {
                break false;
            }
            reader.heard += 1;
            self.handled.store(reader.heard, Ordering::SeqCst);
        };
        if reader.heard == self.total {
            // The end of the process is told, so that everyone may leave.
            self.report_exit();
        }
        is_all
    }

    fn report_exit(&self) {
        self.gone.store(true, Ordering::SeqCst);
        self.event_count.wake();
        self.call_inline_reader();
    }

    fn call_inline_reader(&self) {
        if self.reader_lock.has_sleeping_inline_reader() {
            self.event_count.wake_inline();
        }
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// The link's thread.
    fn listen(&self, naps: bool) {
        loop {
            let is_gone = self.is_gone();
            let reader = if is_gone { Some(self.reader_lock.take()) } else { self.reader_lock.try_take() };
            if let Some(mut reader) = reader {
                self.drain(&mut reader, || false);
                if is_gone {
                    return;
                }
                if naps && reader.heard == 1 {
                    drop(reader);
                    self.event_count.sleep_unnotified(Duration::ZERO);
                }
            }
            self.event_count.wait(FOR_DATA, None, || {
                self.is_gone() || self.reader_lock.try_take().is_some_and(|reader| self.has_news(&reader))
            });
        }
    }

    /// A caller that waits until so much has been handled, or whose deadline has passed.
    fn begin_inline(&self, until: u32, deadline: bool, naps: bool) {
        let Some(mut reader) = self.reader_lock.try_lock_inline() else { return };
        self.event_count.begin_inline();
        let is_over = || self.handled.load(Ordering::SeqCst) >= until || self.is_gone();
        let mut is_first = true;
        let is_all = loop {
            let is_all = self.drain(&mut reader, is_over);
            if is_over() || (deadline && !is_first) {
                break is_all;
            }
            let left = deadline.then_some(Duration::ZERO);
            let sleep = || match naps && is_first {
                true => self.event_count.sleep_inline(Duration::ZERO, is_over),
                false => self.event_count.wait_inline(left, || self.has_news(&reader) || is_over()),
            };
            // All has been sent.
            self.reader_lock.sleep_inline(|| {}, sleep);
            is_first = false;
        };
        self.event_count.end_inline();
        reader.is_left = !is_all;
        let has_news = self.has_news(&reader);
        if self.reader_lock.give_back(reader) || has_news || self.is_gone() {
            self.event_count.wake();
        }
    }
}

/// A worker that says so much, the link's thread, and a caller.
fn play(preemptions: usize, total: u32, begin_inline: impl Fn(&Link) + Send + Sync + Copy + 'static) {
    check(preemptions, move || {
        let link = Link::new(total);
        let worker = link.clone();
        let listener = link.clone();
        let worker = thread::spawn(move || (0..total).for_each(|_| worker.publish()));
        let listener = thread::spawn(move || listener.listen(true));
        begin_inline(&link);
        worker.join().expect("says it");
        listener.join().expect("reads to the end");
        assert_eq!(link.handled.load(Ordering::SeqCst), total);
    });
}

#[test]
fn a_sleeper_hears_of_everything() {
    play(3, 3, |_| {});
}

#[test]
fn a_caller_that_waits_for_the_first_answer_leaves_the_second_to_the_links_thread() {
    play(3, 2, |link| link.begin_inline(1, false, false));
}

#[test]
fn a_caller_that_waits_for_the_last_answer_hears_of_it_and_of_the_end() {
    play(3, 2, |link| link.begin_inline(9, false, false));
}

#[test]
fn a_caller_whose_deadline_passes_leaves_nothing_unheard() {
    play(3, 1, |link| link.begin_inline(9, true, false));
}

#[test]
fn a_caller_that_looks_away_hears_of_it_afterwards() {
    play(3, 2, |link| link.begin_inline(2, false, true));
}

#[test]
fn callers_one_after_the_other_leave_nothing_unheard() {
    play(2, 2, |link| {
        link.begin_inline(9, true, false);
        link.begin_inline(2, false, false);
    });
}

#[test]
fn a_caller_that_sleeps_learns_of_what_is_not_in_the_ring() {
    check(2, || {
        let link = Link::new(9);
        let reaper = link.clone();
        let listener = link.clone();
        let reaper = thread::spawn(move || {
            // The caller's answer came from elsewhere; later, the worker dies without a word.
            reaper.handled.store(1, Ordering::SeqCst);
            reaper.call_inline_reader();
            reaper.report_exit();
        });
        let listener = thread::spawn(move || listener.listen(false));
        link.begin_inline(1, false, false);
        link.begin_inline(9, false, false);
        reaper.join().expect("buries");
        listener.join().expect("reads to the end");
    });
}

#[test]
fn one_sleeper_waits_for_data_and_for_space() {
    check(3, || {
        let event_count = EventCount::default();
        let data = AtomicU32::new(0);
        let space = AtomicU32::new(0);
        let shared = Arc::new((event_count, data, space));
        let reads = shared.clone();
        let writes = shared.clone();
        let threads = [
            thread::spawn(move || {
                reads.2.store(1, Ordering::Release);
                reads.0.notify(FOR_SPACE);
            }),
            thread::spawn(move || {
                writes.1.store(1, Ordering::Release);
                writes.0.notify(FOR_DATA);
            }),
        ];
        let (event_count, data, space) = &*shared;
        let missing = || data.load(Ordering::Acquire) == 0 || space.load(Ordering::Acquire) == 0;
        let mut seen = (0, 0);
        while missing() {
            event_count.wait(FOR_DATA | FOR_SPACE, None, || {
                (data.load(Ordering::Acquire), space.load(Ordering::Acquire)) != seen
            });
            seen = (data.load(Ordering::Acquire), space.load(Ordering::Acquire));
        }
        threads.into_iter().for_each(|thread| thread.join().expect("rings"));
    });
}

/// Sends what did not fit into the ring: `pump`, `can_send`, `hand_over` of the link.
struct Sending {
    event_count: EventCount,
    reader_lock: ReaderLock<()>,
    /// The amount that the worker has made room for.
    room: AtomicU32,
    /// The amount that has been sent.
    outbox: loom::sync::Mutex<u32>,
    has_rest: AtomicBool,
    total: u32,
}

impl Sending {
    fn new(total: u32) -> Arc<Sending> {
        let room = AtomicU32::new(0);
        let outbox = loom::sync::Mutex::new(0);
        let event_count = EventCount::default();
        let reader_lock = ReaderLock::new(());
        let has_rest = AtomicBool::new(false);
        Arc::new(Sending { event_count, reader_lock, room, outbox, has_rest, total })
    }

    /// The worker takes one out.
    fn make_room(&self) {
        let room = self.room.load(Ordering::Relaxed);
        self.room.store(room + 1, Ordering::Release);
        self.event_count.notify(FOR_SPACE);
    }

    fn is_done(&self) -> bool {
        *self.outbox.lock().expect("no panic under it") == self.total
    }

    fn pump(&self) -> bool {
        let mut sent = self.outbox.lock().expect("no panic under it");
        *sent = self.room.load(Ordering::Acquire).min(self.total);
        let is_done = *sent == self.total;
        self.has_rest.store(!is_done, Ordering::SeqCst);
        drop(sent);
        if is_done {
            // This takes the place of the answer, so that everyone may leave.
            self.event_count.wake();
            if self.reader_lock.has_sleeping_inline_reader() {
                self.event_count.wake_inline();
            }
        }
        is_done
    }

    fn has_rest(&self) -> bool {
        self.has_rest.load(Ordering::SeqCst)
    }

    fn has_room(&self, sent: u32) -> bool {
        sent < self.total && self.room.load(Ordering::Acquire) != sent
    }

    fn can_send(&self) -> bool {
        self.has_rest() && self.outbox.try_lock().is_ok_and(|sent| self.has_room(*sent))
    }

    fn hand_over(&self) {
        if self.has_rest() {
            self.event_count.wake();
        }
    }

    fn flush(&self) {
        if !self.pump() {
            self.event_count.wake();
        }
    }

    fn listen(&self) {
        while !self.is_done() {
            let is_read_inline = self.reader_lock.has_awake_inline_reader();
            let drained = is_read_inline || self.pump();
            let what = if drained { FOR_DATA } else { FOR_DATA | FOR_SPACE };
            self.event_count.wait(what, None, || {
                let sent = *self.outbox.lock().expect("no panic under it");
                let pumpable = !is_read_inline && sent < self.total && (drained || self.has_room(sent));
                let is_other =
                    self.has_rest() && self.reader_lock.has_awake_inline_reader() != is_read_inline;
                pumpable || is_other || self.is_done()
            });
        }
    }

    /// A caller that attends until all is sent, or looks twice.
    fn begin_inline(&self, until_done: bool) {
        let Some(reader) = self.reader_lock.try_lock_inline() else { return };
        self.event_count.begin_inline();
        self.reader_lock.begin_inline();
        let mut is_first = true;
        loop {
            if self.can_send() {
                self.pump();
            }
            if self.is_done() || !(until_done || is_first) {
                break;
            }
            let left = (!until_done).then_some(Duration::ZERO);
            let sleep = || self.event_count.wait_inline(left, || self.is_done());
            self.reader_lock.sleep_inline(|| self.hand_over(), sleep);
            is_first = false;
        }
        self.reader_lock.end_inline(|| self.hand_over());
        self.event_count.end_inline();
        if self.reader_lock.give_back(reader) {
            self.event_count.wake();
        }
    }
}

/// A caller that has sent what fits and then waits or not, the link's thread, and a worker that makes room.
fn send(preemptions: usize, total: u32, begin_inline: impl Fn(&Sending) + Send + Sync + Copy + 'static) {
    check(preemptions, move || {
        let sending = Sending::new(total);
        let worker = sending.clone();
        let listener = sending.clone();
        let worker = thread::spawn(move || (0..total).for_each(|_| worker.make_room()));
        let listener = thread::spawn(move || listener.listen());
        sending.flush();
        begin_inline(&sending);
        worker.join().expect("makes room");
        listener.join().expect("sends to the end");
        assert!(sending.is_done());
    });
}

#[test]
fn what_does_not_fit_is_sent_by_the_links_thread_where_nobody_attends() {
    send(3, 2, |_| {});
}

#[test]
fn what_does_not_fit_is_sent_while_an_inline_reader_sleeps() {
    send(2, 2, |sending| sending.begin_inline(true));
}

#[test]
fn what_does_not_fit_is_sent_when_an_inline_reader_has_gone() {
    send(2, 2, |sending| sending.begin_inline(false));
}
