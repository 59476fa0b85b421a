//! Records of the worker's own code and of the engine (through `tracing` and `log`), on their way to the
//! host's subscriber.
//!
//! The main thread sends its records at once, and waits for room as with a task's logs, so that both keep their
//! order. Any other thread is the watcher, which nothing may hold up: a record that would have to wait goes into a
//! short queue, and is sent before the next one. Records from before the rings exist are kept as well. Records
//! that the queue has no room for are counted, and the count is reported.
//!
//! A thread that writes to the ring holds its lock, so the code under that lock must not log.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError};
use std::thread::ThreadId;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Metadata, Subscriber, span};

use proto::frame::encode_head_into;
use proto::limits::{LOG_RECORD_BYTES_MAX, WORKER_EVENTS_WAITING_MAX};
use proto::message::{EventLevels, FromWorker, LogRecord, LogSource};
use proto::ring::Producer;
use proto::sync::Lock;
use proto::task::TaskId;

/// The level of what the reporter says itself.
const WARN: u8 = 2;

/// The way to the host, of which one knows how much can be written without waiting.
pub(super) trait ToHost: Write + Send {
    fn space(&self) -> usize;
}

impl ToHost for Producer {
    fn space(&self) -> usize {
        // A host that lies is told nothing more.
        Producer::space(self).unwrap_or(0)
    }
}

/// Takes events from every thread of the worker. There is one in a process.
pub(super) struct Reporter {
    levels: EventLevels,
    /// It may wait.
    main: ThreadId,
    to_host: OnceLock<Arc<Mutex<dyn ToHost>>>,
    /// The task at hand, or 0. It ends under the lock of `to_host`, with its answer: what names it is
    /// before that.
    task: AtomicU64,
    queue: Mutex<Queue>,
    /// This is set while the queue is not empty, so that a look needs no lock.
    is_waiting: AtomicBool,
}

/// Says what the writer of events does while the ring has no room for the next one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NoRoom {
    Wait,
    /// Puts the event back, and leaves the rest to whoever writes next.
    Leave,
}

#[derive(Default)]
struct Queue {
    /// Each with the task at hand when it was said, or 0.
    events: VecDeque<(u64, LogRecord)>,
    dropped: u64,
}

impl Reporter {
    pub(super) fn new(levels: EventLevels) -> Arc<Reporter> {
        Arc::new(Reporter {
            levels,
            main: std::thread::current().id(),
            to_host: OnceLock::new(),
            task: AtomicU64::new(0),
            queue: Mutex::default(),
            is_waiting: AtomicBool::new(false),
        })
    }

    /// Takes what this process says from here on. Where nothing is wanted, nothing is installed, and what
    /// would be said costs a look at a static.
    pub(super) fn install(self: &Arc<Self>) {
        if self.levels.own > 0 || self.levels.engine > 0 {
            // Another subscriber can only be installed if the embedder set it before `init`; then that one has the
            // events.
            let _ = tracing::subscriber::set_global_default(ToReporter(self.clone()));
        }
        if self.levels.engine > 0 {
            // The reporter is leaked, once in the life of the process.
            let logger: &'static ToReporter = Box::leak(Box::new(ToReporter(self.clone())));
            if log::set_logger(logger).is_ok() {
                log::set_max_level(log_filter(self.levels.engine));
            }
        }
    }

    /// Sends what has waited, and from here on everything: the host listens.
    pub(super) fn connect(&self, to_host: Arc<Mutex<dyn ToHost>>) {
        let _ = self.to_host.set(to_host);
        self.send();
    }

    /// Counts the records that follow as this task's.
    pub(super) fn begin(&self, task: TaskId) {
        self.task.store(task.0, Ordering::Relaxed);
    }

    /// The task at hand has been answered on this ring, which the caller holds: what follows is of none.
    pub(super) fn answered(&self, to_host: &mut dyn ToHost) {
        self.task.store(0, Ordering::Relaxed);
        if self.is_waiting.load(Ordering::Relaxed) {
            self.flush(to_host, NoRoom::Wait);
        }
    }

    /// This process is about to end.
    pub(super) fn last_words(&self) {
        self.send();
    }

    /// Returns the records that nobody will take, for stderr, whose end is kept.
    pub(super) fn rest(&self) -> Vec<String> {
        let queue = std::mem::take(&mut *self.queue());
        queue.events.into_iter().map(|(_, record)| format!("{} {}", record.message, record.fields)).collect()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.hold()
    }

    fn say(&self, record: LogRecord) {
        let task = self.task.load(Ordering::Relaxed);
        let mut queue = self.queue();
        if queue.events.len() < WORKER_EVENTS_WAITING_MAX {
            queue.events.push_back((task, record));
        } else {
            queue.dropped += 1;
        }
        self.is_waiting.store(true, Ordering::Relaxed);
        drop(queue);
        self.send();
    }

    fn send(&self) {
        let Some(to_host) = self.to_host.get() else { return };
        if std::thread::current().id() == self.main {
            return self.flush(&mut *to_host.hold(), NoRoom::Wait);
        }
        // The thread that holds the lock sends the waiting records, or they go out with the next one.
        let mut to_host = match to_host.try_lock() {
            Ok(to_host) => to_host,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        self.flush(&mut *to_host, NoRoom::Leave);
    }

    /// Writes what waits, all of it or as far as there is room.
    fn flush(&self, to_host: &mut dyn ToHost, no_room: NoRoom) {
        let mut frame = Vec::new();
        while let Some((task, record)) = self.next() {
            // A record of a task that was answered meanwhile would come too late.
            let is_at_hand = task != 0 && task == self.task.load(Ordering::Relaxed);
            let event = FromWorker::Event { task: is_at_hand.then_some(TaskId(task)), record };
            frame.clear();
            if encode_head_into(&mut frame, &event, 0).is_err() {
                continue;
            }
            if no_room == NoRoom::Leave && to_host.space() < frame.len() {
                let FromWorker::Event { record, .. } = event else { return };
                self.queue().events.push_front((task, record));
                return self.is_waiting.store(true, Ordering::Relaxed);
            }
            // A broken ring ends the worker at its next answer.
            let _ = to_host.write_all(&frame);
        }
    }

    /// The next that waits; in the end, how many had no room.
    fn next(&self) -> Option<(u64, LogRecord)> {
        let mut queue = self.queue();
        let next = queue.events.pop_front().or_else(|| {
            let dropped = std::mem::take(&mut queue.dropped);
            let message = format!("{dropped} events were dropped: there was no room for them");
            (dropped > 0).then(|| (0, record(WARN, module_path!(), message, String::new())))
        });
        self.is_waiting.store(next.is_some(), Ordering::Relaxed);
        next
    }
}

fn record(level: u8, target: &str, message: String, fields: String) -> LogRecord {
    let target = own_target(target).map_or_else(|| target.into(), |rest| format!("wasmpool{rest}"));
    LogRecord { source: LogSource::Worker, level, target, message, fields }
}

/// Returns what stands behind the crate's name in a target of wasmpool's own, such as `::worker::loaded`; `None` for a
/// target of the engine's. Users know the crates of wasmpool as one.
fn own_target(target: &str) -> Option<&str> {
    let crates = ["wasmpool_engine", "wasmpool_sandbox", "wasmpool_proto", "wasmpool"];
    let rest = crates.iter().find_map(|name| target.strip_prefix(name))?;
    (rest.is_empty() || rest.starts_with("::")).then_some(rest)
}

/// The global subscriber, and the global logger.
struct ToReporter(Arc<Reporter>);

impl ToReporter {
    fn level(&self, target: &str) -> u8 {
        if own_target(target).is_some() { self.0.levels.own } else { self.0.levels.engine }
    }
}

impl Subscriber for ToReporter {
    /// It decides by what is known of a place in the code, and is asked once for each place.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && number(metadata.level()) <= self.level(metadata.target())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let EventLevels { own, engine } = self.0.levels;
        Some(filter(own.max(engine)))
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let metadata = event.metadata();
        let level = number(metadata.level());
        let fields = text.fields();
        self.0.say(record(level, metadata.target(), text.message.text, fields));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

impl log::Log for ToReporter {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() as usize <= self.level(metadata.target()).into()
    }

    fn log(&self, said: &log::Record<'_>) {
        if !log::Log::enabled(self, said.metadata()) {
            return;
        }
        let mut message = Bounded::of(LOG_RECORD_BYTES_MAX / 2);
        // Writing fails once the text has its full length.
        let _ = write!(message, "{}", said.args());
        self.0.say(record(said.level() as u8, said.target(), message.text, String::new()));
    }

    fn flush(&self) {}
}

/// 1 error to 5 trace, as records have it.
fn number(level: &tracing::Level) -> u8 {
    match *level {
        tracing::Level::ERROR => 1,
        tracing::Level::WARN => 2,
        tracing::Level::INFO => 3,
        tracing::Level::DEBUG => 4,
        tracing::Level::TRACE => 5,
    }
}

fn filter(level: u8) -> LevelFilter {
    match level {
        0 => LevelFilter::OFF,
        1 => LevelFilter::ERROR,
        2 => LevelFilter::WARN,
        3 => LevelFilter::INFO,
        4 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    }
}

fn log_filter(level: u8) -> log::LevelFilter {
    log::LevelFilter::iter().nth(level.into()).unwrap_or(log::LevelFilter::Trace)
}

/// An event's message, and its fields as the text of a JSON object.
struct Text {
    message: Bounded,
    json: String,
}

impl Default for Text {
    fn default() -> Self {
        Text { message: Bounded::of(LOG_RECORD_BYTES_MAX / 2), json: String::new() }
    }
}

impl Text {
    fn fields(&mut self) -> String {
        match std::mem::take(&mut self.json) {
            none if none.is_empty() => none,
            json => format!("{{{json}}}"),
        }
    }

    /// Adds a field whose value is JSON, if there is room for all of it.
    fn push(&mut self, field: &Field, value: &str) {
        if self.json.len() + field.name().len() + value.len() > LOG_RECORD_BYTES_MAX / 4 {
            return;
        }
        let comma = if self.json.is_empty() { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(self.json, "{comma}{}:{value}", quoted(field.name()));
    }
}

impl Visit for Text {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, &value.to_string());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, &value.to_string());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, &value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing fails once the text has its full length.
            let _ = write!(self.message, "{value:?}");
            return;
        }
        let mut text = Bounded::of(LOG_RECORD_BYTES_MAX / 8);
        let _ = write!(text, "{value:?}");
        self.push(field, &quoted(&text.text));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let mut text = Bounded::of(LOG_RECORD_BYTES_MAX / 8);
        let _ = text.write_str(value);
        self.push(field, &quoted(&text.text));
    }
}

/// A string of JSON.
fn quoted(text: &str) -> String {
    let mut json = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            // Writing to a String cannot fail.
            c if c.is_control() => drop(write!(json, "\\u{:04x}", u32::from(c))),
            c => json.push(c),
        }
    }
    json.push('"');
    json
}

/// Text up to so many bytes; what is longer ends there, and whoever writes it is told.
struct Bounded {
    text: String,
    bytes_max: usize,
}

impl Bounded {
    fn of(bytes_max: usize) -> Bounded {
        Bounded { text: String::new(), bytes_max }
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes_max.saturating_sub(self.text.len());
        if text.len() <= room {
            self.text.push_str(text);
            return Ok(());
        }
        let end = (0..=room).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        self.text.push_str(&text[..end]);
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests;
