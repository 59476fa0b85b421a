//! Events of `tracing`, forwarded to the host: level, target, message, and the
//! other fields as a JSON object. The names of the spans around an event, the
//! outermost first, are its field `spans`; the fields of spans are not kept.

use std::collections::HashMap;
use std::fmt::{Debug, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Current, Id, Record};
use tracing_core::{dispatcher, Dispatch, Event, Metadata, Subscriber};

use crate::host::{self, Level};

/// A guest that set its own subscriber keeps it.
pub(crate) fn install() {
    let _ = dispatcher::set_global_default(Dispatch::new(Forward::default()));
}

#[derive(Default)]
struct Forward {
    spans: Mutex<Spans>,
}

#[derive(Default)]
struct Spans {
    last: u64,
    open: HashMap<u64, Open>,
    entered: Vec<u64>,
}

struct Open {
    metadata: &'static Metadata<'static>,
    handles: usize,
}

impl Forward {
    fn spans(&self) -> MutexGuard<'_, Spans> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fields(&self, event: &Event<'_>) -> Fields {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let spans = self.spans();
        let names = spans.entered.iter().filter_map(|id| spans.open.get(id)).map(|span| span.metadata.name());
        fields.spans(names);
        fields
    }
}

impl Subscriber for Forward {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut spans = self.spans();
        spans.last += 1;
        let id = spans.last;
        let metadata = attributes.metadata();
        spans.open.insert(id, Open { metadata, handles: 1 });
        Id::from_u64(id)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let fields = self.fields(event);
        let metadata = event.metadata();
        let level = match *metadata.level() {
            tracing_core::Level::ERROR => Level::Error,
            tracing_core::Level::WARN => Level::Warn,
            tracing_core::Level::INFO => Level::Info,
            tracing_core::Level::DEBUG => Level::Debug,
            tracing_core::Level::TRACE => Level::Trace,
        };
        host::log(level, metadata.target(), &fields.message, &fields.json());
    }

    fn enter(&self, id: &Id) {
        self.spans().entered.push(id.into_u64());
    }

    fn exit(&self, id: &Id) {
        let mut spans = self.spans();
        if let Some(at) = spans.entered.iter().rposition(|e| *e == id.into_u64()) {
            spans.entered.remove(at);
        }
    }

    fn clone_span(&self, id: &Id) -> Id {
        if let Some(span) = self.spans().open.get_mut(&id.into_u64()) {
            span.handles += 1;
        }
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let mut spans = self.spans();
        let Some(span) = spans.open.get_mut(&id.into_u64()) else {
            return false;
        };
        span.handles -= 1;
        if span.handles > 0 {
            return false;
        }
        spans.open.remove(&id.into_u64());
        true
    }

    fn current_span(&self) -> Current {
        let spans = self.spans();
        spans
            .entered
            .last()
            .and_then(|id| Some(Current::new(Id::from_u64(*id), spans.open.get(id)?.metadata)))
            .unwrap_or_else(Current::none)
    }
}

/// The fields of one event: its message, and the rest as members of an object.
#[derive(Default)]
struct Fields {
    message: String,
    members: String,
}

impl Fields {
    fn json(&self) -> String {
        if self.members.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", self.members)
        }
    }

    fn key(&mut self, name: &str) {
        if !self.members.is_empty() {
            self.members.push(',');
        }
        string(&mut self.members, name);
        self.members.push(':');
    }

    fn text(&mut self, field: &Field, text: &str) {
        if field.name() == "message" {
            self.message.push_str(text);
        } else {
            self.key(field.name());
            string(&mut self.members, text);
        }
    }

    /// `value` must print as JSON.
    fn bare(&mut self, field: &Field, value: impl std::fmt::Display) {
        self.key(field.name());
        let _ = write!(self.members, "{value}");
    }

    fn spans<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        let mut names = names.peekable();
        if names.peek().is_none() {
            return;
        }
        self.key("spans");
        for (i, name) in names.enumerate() {
            self.members.push(if i == 0 { '[' } else { ',' });
            string(&mut self.members, name);
        }
        self.members.push(']');
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no word for infinities and NaN.
        if value.is_finite() {
            self.bare(field, value);
        } else {
            self.text(field, &value.to_string());
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(field, &value.to_string());
    }
}

/// Appends `text` as a JSON string.
fn string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records what would be sent, instead of sending it.
    struct Keep(Forward, std::sync::Arc<Mutex<Vec<(String, String)>>>);

    impl Subscriber for Keep {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            self.0.enabled(metadata)
        }
        fn new_span(&self, attributes: &Attributes<'_>) -> Id {
            self.0.new_span(attributes)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            let fields = self.0.fields(event);
            let sent = (fields.message.clone(), fields.json());
            self.1.lock().unwrap().push(sent);
        }
        fn enter(&self, id: &Id) {
            self.0.enter(id);
        }
        fn exit(&self, id: &Id) {
            self.0.exit(id);
        }
        fn clone_span(&self, id: &Id) -> Id {
            self.0.clone_span(id)
        }
        fn try_close(&self, id: Id) -> bool {
            self.0.try_close(id)
        }
    }

    fn sent_by(work: impl FnOnce()) -> Vec<(String, serde_json::Value)> {
        let sent = std::sync::Arc::default();
        let dispatch = Dispatch::new(Keep(Forward::default(), std::sync::Arc::clone(&sent)));
        dispatcher::with_default(&dispatch, work);
        let sent = sent.lock().unwrap();
        sent.iter()
            .map(|(message, fields)| {
                let fields = match fields.as_str() {
                    "" => serde_json::Value::Null,
                    text => serde_json::from_str(text).unwrap(),
                };
                (message.clone(), fields)
            })
            .collect()
    }

    #[test]
    fn an_event_without_fields_has_no_object() {
        let sent = sent_by(|| tracing::info!("hello {}", "you"));
        assert_eq!(sent, [("hello you".into(), serde_json::Value::Null)]);
    }

    #[test]
    fn fields_keep_their_types_and_are_escaped() {
        let sent = sent_by(|| {
            tracing::warn!(
                count = 3_u64,
                delta = -4,
                ratio = 0.5,
                nothing = f64::NAN,
                yes = true,
                text = "a\"b\\c\n\u{1}🦀",
                shape = ?Some(1),
                "said \"so\""
            );
        });
        assert_eq!(
            sent,
            [(
                "said \"so\"".into(),
                serde_json::json!({
                    "count": 3, "delta": -4, "ratio": 0.5, "nothing": "NaN", "yes": true,
                    "text": "a\"b\\c\n\u{1}🦀", "shape": "Some(1)",
                })
            )]
        );
    }

    #[test]
    fn the_spans_around_an_event_are_named_outermost_first() {
        let sent = sent_by(|| {
            let outer = tracing::info_span!("outer", ignored = 1);
            let _outer = outer.enter();
            tracing::info_span!("inner").in_scope(|| tracing::debug!(n = 1, "deep"));
            tracing::debug!("shallow");
        });
        assert_eq!(
            sent,
            [
                ("deep".into(), serde_json::json!({"n": 1, "spans": ["outer", "inner"]})),
                ("shallow".into(), serde_json::json!({"spans": ["outer"]})),
            ]
        );
    }

    #[test]
    fn a_closed_span_is_forgotten() {
        let forward = Forward::default();
        let sent = std::sync::Arc::default();
        let dispatch = Dispatch::new(Keep(forward, sent));
        dispatcher::with_default(&dispatch, || {
            for _ in 0..100 {
                let span = tracing::info_span!("short");
                let twin = span.clone();
                drop(span);
                twin.in_scope(|| ());
            }
        });
        let keep = dispatch.downcast_ref::<Keep>().unwrap();
        assert!(keep.0.spans().open.is_empty());
        assert!(keep.0.spans().entered.is_empty());
    }
}
