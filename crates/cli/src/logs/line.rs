//! One event as one line of a log file: as text, or as a JSON object.

use std::fmt::{self, Write as _};
use std::time::SystemTime;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata};

use crate::args::LogFormat;
use crate::object::Object;
use proto::text::Escaped;

/// Fields of guests' records that have a place of their own; see `src/host/logs.rs`.
const FIELDS: &str = "fields";

/// The event's line, without its end. A guest's words break no line.
pub(super) fn line(format: LogFormat, event: &Event<'_>) -> String {
    let mut values = Values::default();
    event.record(&mut values);
    write(format, SystemTime::now(), event.metadata(), &values)
}

/// A line that is not an event's.
pub(super) fn note(format: LogFormat, message: &str) -> String {
    let now = humantime::format_rfc3339_micros(SystemTime::now());
    match format {
        LogFormat::Text => format!("{now} WARN wasmpool: {}", Escaped(message)),
        LogFormat::Json => Object::new()
            .field("time", now.to_string())
            .field("level", "WARN")
            .field("target", "wasmpool")
            .field("message", message)
            .finish(),
    }
}

#[derive(Debug, Default)]
struct Values {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Values {
    fn take(&mut self, field: &Field, value: Value) {
        match (field.name(), &value) {
            ("message", Value::String(text)) => self.message = text.clone(),
            // A guest's own fields are JSON in a string.
            (FIELDS, Value::String(text)) if text.is_empty() || text == "{}" => {}
            (FIELDS, Value::String(text)) => {
                let parsed = serde_json::from_str(text).unwrap_or(value);
                self.fields.push((FIELDS, parsed));
            }
            (_, Value::String(text)) if text.is_empty() => {}
            (name, _) => self.fields.push((name, value)),
        }
    }
}

impl Visit for Values {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.take(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.take(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.take(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.take(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        // A task's number is shown by `Display`; other words may look like one, and are words.
        let number = if field.name() == "task" { text.parse::<u64>().ok() } else { None };
        self.take(field, number.map_or(Value::String(text), Value::from));
    }
}

fn write(format: LogFormat, now: SystemTime, metadata: &Metadata<'_>, values: &Values) -> String {
    let now = humantime::format_rfc3339_micros(now);
    let level = metadata.level().as_str();
    let target = metadata.target();
    match format {
        LogFormat::Json => {
            let object =
                Object::new().field("time", now.to_string()).field("level", level).field("target", target);
            let object = object.field("message", values.message.as_str());
            values
                .fields
                .iter()
                .fold(object, |object, (name, value)| object.field(name, value.clone()))
                .finish()
        }
        LogFormat::Text => {
            let mut line = format!("{now} {level} {target}:");
            for (name, value) in &values.fields {
                // Writing to a String cannot fail.
                let _ = write!(line, " {name}={}", Escaped(value.to_string()));
            }
            let _ = write!(line, " {}", Escaped(values.message.replace('\n', "\\n")));
            line
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

    use super::*;

    struct Kept(LogFormat, Arc<Mutex<Vec<String>>>);

    impl<S: tracing::Subscriber> Layer<S> for Kept {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.1.lock().expect("locks").push(line(self.0, event));
        }
    }

    fn lines(format: LogFormat) -> Vec<String> {
        let kept = Arc::default();
        let subscriber = tracing_subscriber::registry().with(Kept(format, Arc::clone(&kept)));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(
                target: "wasmpool::guest",
                task = %7, label = "line \"1\"", origin = "", fields = %"{\"n\":1}", "two\nlines\u{1b}"
            );
        });
        kept.lock().expect("locks").clone()
    }

    #[test]
    fn words_that_look_like_numbers_are_words_and_nothing_drives_a_terminal() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let kept = Arc::default();
            let subscriber = tracing_subscriber::registry().with(Kept(format, Arc::clone(&kept)));
            tracing::subscriber::with_default(subscriber, || {
                let fields = r#"{"a":"\u009b31m"}"#;
                tracing::info!(label = "\u{9b}1m\u{7f}", fields = %fields, "{}", "007");
            });
            let line = kept.lock().expect("locks").remove(0);
            assert!(line.chars().all(proto::text::is_harmless), "{line:?}");
            match format {
                LogFormat::Text => assert!(line.ends_with(" 007"), "{line}"),
                LogFormat::Json => {
                    let json: Value = serde_json::from_str(&line).expect("JSON");
                    assert_eq!(json["message"], "007");
                    assert_eq!(line.matches("message").count(), 1, "{line}");
                }
            }
        }
    }

    #[test]
    fn an_event_is_one_line_whatever_a_guest_writes() {
        let text = lines(LogFormat::Text).remove(0);
        let expected =
            "INFO wasmpool::guest: task=7 label=\"line \\\"1\\\"\" fields={\"n\":1} two\\nlines\\u{1b}";
        assert!(text.ends_with(expected), "{text}");
        let json = lines(LogFormat::Json).remove(0);
        assert!(!json.contains('\n'));
        let json: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!((&json["task"], &json["fields"]["n"]), (&7.into(), &1.into()));
        assert_eq!((&json["message"], &json["label"]), (&"two\nlines\u{1b}".into(), &"line \"1\"".into()));
    }
}
