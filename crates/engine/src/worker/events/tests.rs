//! These tests have a list of bytes in the ring's place.

use std::io;

use super::*;
use proto::frame::{Assembly, Source};

/// The records that were written, and how much more can be written without waiting.
#[derive(Default)]
struct Written {
    bytes: Vec<u8>,
    space: usize,
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        self.space = self.space.saturating_sub(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ToHost for Written {
    fn space(&self) -> usize {
        self.space
    }
}

struct Read(VecDeque<u8>);

impl Source for Read {
    fn take(&mut self, into: &mut [u8]) -> io::Result<usize> {
        io::Read::read(&mut self.0, into)
    }

    fn append(&mut self, into: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        let len = most.min(self.0.len());
        into.extend(self.0.drain(..len));
        Ok(len)
    }
}

/// A reporter and its ring, with so much room for threads that do not wait.
fn connected(own: u8, space: usize) -> (Arc<Reporter>, Arc<Mutex<Written>>) {
    let reporter = Reporter::new(EventLevels { own, engine: 0 });
    let ring = Arc::new(Mutex::new(Written { bytes: Vec::new(), space }));
    reporter.connect(ring.clone());
    (reporter, ring)
}

/// Everything on the ring.
fn said(ring: &Mutex<Written>) -> Vec<(Option<u64>, LogRecord)> {
    let mut frames = Assembly::<FromWorker>::new();
    let mut source = Read(std::mem::take(&mut ring.lock().expect("locks").bytes).into());
    let mut said = Vec::new();
    while let Some((message, _)) = frames.next(&mut source, || 0).expect("frames") {
        let FromWorker::Event { task, record } = message else { panic!("no event: {message:?}") };
        said.push((task.map(|task| task.0), record));
    }
    said
}

fn messages(said: &[(Option<u64>, LogRecord)]) -> Vec<&str> {
    said.iter().map(|(_, record)| record.message.as_str()).collect()
}

fn with(reporter: &Arc<Reporter>, say: impl FnOnce()) {
    tracing::subscriber::with_default(ToReporter(reporter.clone()), say);
}

#[test]
fn an_event_is_a_record_with_its_task_until_that_is_answered() {
    let (reporter, ring) = connected(4, 0);
    with(&reporter, || {
        reporter.begin(TaskId(7));
        tracing::debug!(module = 3, kind = "own \"x\"\n", waits = true, "mapped {}", 1);
        reporter.answered(&mut *ring.lock().expect("locks"));
        tracing::warn!("between two");
        tracing::trace!("too fine");
    });
    let said = said(&ring);
    assert_eq!(said.len(), 2);
    let (task, first) = &said[0];
    assert_eq!((*task, first.level, &*first.message), (Some(7), 4, "mapped 1"));
    assert_eq!(first.fields, r#"{"module":3,"kind":"own \"x\"\u000a","waits":true}"#);
    // Users know the crates as one.
    assert_eq!(first.target, "wasmpool::worker::events::tests");
    assert_eq!((said[1].0, said[1].1.level), (None, 2));
}

#[test]
fn an_interrupt_that_is_not_heeded_is_told_with_the_task_at_hand() {
    let (reporter, ring) = connected(2, 10_000);
    // The thread that runs tasks, whose task computes for ever.
    let (sender, watcher) = std::sync::mpsc::channel();
    let runs = std::thread::spawn(move || {
        let watcher = Arc::new(crate::worker::watcher::WatcherState::new(
            || (),
            crate::worker::polling_page::PollingPage::new(None),
        ));
        sender.send(watcher.clone()).expect("is taken");
        while !watcher.is_interrupted(1_000_000) {
            std::hint::spin_loop();
        }
    });
    let watcher = watcher.recv().expect("is sent");
    // The reporter may go without the processor for a long time beside other tests, so the deadline is generous.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let said = loop {
        assert!(std::time::Instant::now() < deadline, "it is never said");
        with(&reporter, || {
            reporter.begin(TaskId(7));
            watcher.begin(3, TaskId(3), 0);
            watcher.interrupt(3);
            // The task has come to its end, or another has begun.
            watcher.end();
            watcher.interrupt(3);
            watcher.begin(5, TaskId(5), 0);
            watcher.interrupt(3);
        });
        match said(&ring) {
            said if said.is_empty() => {}
            said => break said,
        }
    };
    watcher.end();
    watcher.interrupt(1_000_000);
    runs.join().expect("ends");
    assert_eq!(said.len(), 1, "{said:?}");
    let (task, record) = &said[0];
    assert_eq!((*task, record.level, &*record.fields), (Some(7), 2, r#"{"run":3}"#));
    assert!(record.message.starts_with("an interrupt is not heeded, though"), "{record:?}");
}

#[test]
fn what_is_said_before_there_is_a_ring_waits_for_it() {
    let reporter = Reporter::new(EventLevels { own: 3, engine: 0 });
    with(&reporter, || tracing::info!("early"));
    let ring = Arc::new(Mutex::new(Written::default()));
    reporter.connect(ring.clone());
    assert_eq!(messages(&said(&ring)), ["early"]);
    assert_eq!(reporter.rest(), Vec::<String>::new());
}

#[test]
fn another_thread_never_waits_and_what_it_has_no_room_for_is_counted() {
    let (reporter, ring) = connected(3, 0);
    let held = ring.lock().expect("locks");
    let other = reporter.clone();
    // The thread would not end if it waited for the ring.
    let speaks = std::thread::spawn(move || {
        with(&other, || (0..WORKER_EVENTS_WAITING_MAX + 5).for_each(|n| tracing::info!("number {n}")));
    });
    speaks.join().expect("it says all");
    drop(held);
    let other = reporter.clone();
    // The watcher does not wait if the ring is free and full, either.
    let speaks = std::thread::spawn(move || with(&other, || tracing::info!("one more")));
    speaks.join().expect("it says all");
    assert!(said(&ring).is_empty());
    reporter.answered(&mut *ring.lock().expect("locks"));
    let said = said(&ring);
    assert_eq!(said.len(), WORKER_EVENTS_WAITING_MAX + 1);
    assert_eq!(said[0].1.message, "number 0");
    assert_eq!(said[said.len() - 1].1.message, "6 events were dropped: there was no room for them");
    assert!(!reporter.is_waiting.load(Ordering::Relaxed));
}

#[test]
fn another_thread_speaks_at_once_where_there_is_room() {
    let (reporter, ring) = connected(3, 10_000);
    reporter.begin(TaskId(2));
    let other = reporter.clone();
    let speaks = std::thread::spawn(move || with(&other, || tracing::info!("now")));
    speaks.join().expect("it says all");
    let said = said(&ring);
    assert_eq!((messages(&said), said[0].0), (vec!["now"], Some(2)));
}

#[test]
fn a_record_is_bounded_whatever_is_said() {
    let (reporter, ring) = connected(5, 0);
    let long = "ä".repeat(LOG_RECORD_BYTES_MAX);
    with(&reporter, || {
        tracing::info!(first = &*long, second = ?long, third = &*long, fourth = 4, "{long}");
    });
    let said = said(&ring);
    let record = &said[0].1;
    assert!(record.message.len() <= LOG_RECORD_BYTES_MAX / 2, "{}", record.message.len());
    assert!(record.fields.len() <= LOG_RECORD_BYTES_MAX / 4 + 2 && record.fields.contains("\"fourth\":4"));
}

#[test]
fn others_events_are_held_to_the_engines_level() {
    let (reporter, ring) = connected(5, 0);
    with(&reporter, || tracing::error!(target: "wasmtime::runtime", "not asked for"));
    let logger = ToReporter(reporter.clone());
    let line = log::Record::builder().target("cranelift").level(log::Level::Error).build();
    log::Log::log(&logger, &line);
    assert!(said(&ring).is_empty());
    let loud = Reporter::new(EventLevels { own: 0, engine: 2 });
    loud.connect(ring.clone());
    let line =
        log::Record::builder().target("cranelift").level(log::Level::Warn).args(format_args!("x")).build();
    log::Log::log(&ToReporter(loud), &line);
    assert_eq!(messages(&said(&ring)), ["x"]);
}
