//! The embedder's subscriber, and the worker that goes on while it is read: at each of its records.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Once;

use super::memory::Memory;
use super::{ITEMS_MAX, LOG_BYTES_MAX};
use crate::fuzzing::Input;
use crate::fuzzing::text::assert_harmless;
use proto::limits::LOG_RECORD_BYTES_MAX;

thread_local! {
    /// The worker that is being read.
    static DYING: RefCell<Option<Dying>> = const { RefCell::new(None) };
    /// Bytes of records that came out, of each worker's each task.
    static LOGGED: RefCell<HashMap<(u64, String), u64>> = RefCell::default();
}

struct Dying {
    memory: Memory,
    script: Vec<u8>,
    at: usize,
}

/// Forgets what was logged before.
pub(super) fn begin() {
    static SUBSCRIBED: Once = Once::new();
    SUBSCRIBED.call_once(|| drop(tracing::subscriber::set_global_default(Logs)));
    LOGGED.with_borrow_mut(HashMap::clear);
}

/// This worker is read from now on, and does what `script` says meanwhile.
pub(super) fn reading(memory: Option<Memory>, script: &[u8]) {
    DYING.set(memory.map(|memory| Dying { memory, script: script.to_vec(), at: 0 }));
}

/// Ends what [`reading`] began, and gives the memory back.
pub(super) fn read() -> Option<Memory> {
    DYING.take().map(|dying| dying.memory)
}

impl Dying {
    /// It goes on writing while the host reads.
    fn go_on(&mut self) {
        let script = std::mem::take(&mut self.script);
        let mut input = Input(script.get(self.at..).unwrap_or_default());
        if !input.is_empty() {
            self.memory.lie(&mut input);
        }
        self.at = script.len() - input.0.len();
        self.script = script;
    }
}

/// The embedder's subscriber: no event of the pool carries what a terminal obeys.
struct Logs;

impl tracing::Subscriber for Logs {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut harmless = Harmless::default();
        event.record(&mut harmless);
        if event.metadata().target() == "wasmpool::guest" {
            harmless.count();
            DYING.with_borrow_mut(|dying| dying.iter_mut().for_each(Dying::go_on));
        }
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// The fields that a record may have, with those that say whose it is.
#[derive(Default)]
struct Harmless {
    task: String,
    pid: u64,
    message_bytes: u64,
}

impl Harmless {
    /// A worker cannot say more of a task than twice the limit that it has to keep. A task may be run
    /// again, a few times alone, and for each result as part of a batch.
    fn count(self) {
        let runs = 3.max(ITEMS_MAX);
        let most = runs * (2 * LOG_BYTES_MAX).max(LOG_RECORD_BYTES_MAX as u64);
        LOGGED.with_borrow_mut(|logged| {
            let bytes = logged.entry((self.pid, self.task)).or_default();
            *bytes += self.message_bytes;
            assert!(*bytes <= most, "{bytes} bytes of records of one task");
        });
    }
}

impl tracing::field::Visit for Harmless {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        let shown = format!("{value:?}");
        assert_harmless(&shown);
        match field.name() {
            // Escaped text is longer than what was said.
            "message" if !shown.contains('\\') => self.message_bytes = shown.len() as u64,
            "task" => self.task = shown,
            _ => {}
        }
    }

    fn record_u64(&mut self, field: &tracing::field::Field, value: u64) {
        if field.name() == "worker_pid" {
            self.pid = value;
        }
    }

    fn record_str(&mut self, _: &tracing::field::Field, value: &str) {
        assert_harmless(value);
    }
}
