//! Holds the end of a case to what its file expects. Nothing is run or opened here.

use std::fmt;

use bytes::Bytes;
use serde_json::Value;

use super::cases::{self, Case};
use crate::call::CallOutput;
use crate::console::indented;
use crate::exit::Failure;
use crate::object::{self, Object};
use crate::result_file;
use proto::text::{Words, truncated};

/// A mismatch says this of a case that has no end to be judged.
const NOT_RUN: &str = "run";

/// Errors of tasks that were stopped from outside.
const STOPPED: [&str; 3] = ["timeout", "cpu_time", "aborted"];

/// Most bytes of a value that are shown.
const SHOWN_BYTES_MAX: usize = 2_000;

/// The end of a case, in JSON where it is a value.
#[derive(Debug, Default)]
pub(super) struct Actual {
    output: Option<Value>,
    /// The result as a file would have it.
    file: Vec<u8>,
    error: Option<Value>,
    command: Option<OfCommand>,
}

#[derive(Debug, Default)]
struct OfCommand {
    /// It is absent if the command failed before it exited.
    exit: Option<u32>,
    stdout: Bytes,
    stderr: Bytes,
}

/// An expectation that was not met.
#[derive(Debug, PartialEq)]
pub(super) struct Mismatch {
    what: &'static str,
    expected: Value,
    actual: Value,
    /// The place of the first difference, where both are values with parts.
    at: Option<String>,
}

impl Actual {
    pub(super) fn of(ended: &Result<CallOutput, Failure>) -> Result<Actual, Failure> {
        let cannot = |error| Failure::Internal(format!("an output cannot be read as JSON: {error}"));
        let mut actual = Actual::default();
        match ended {
            Ok(output) => {
                // Writing to a Vec cannot fail.
                let _ = result_file::write_to(&mut actual.file, output);
                match output {
                    CallOutput::Command(output) => {
                        actual.command = Some(OfCommand {
                            exit: Some(output.exit_code.cast_unsigned()),
                            stdout: output.stdout.clone(),
                            stderr: output.stderr.clone(),
                        });
                    }
                    output => {
                        let object = output.add_to(Object::new()).finish();
                        let mut value: Value = serde_json::from_str(&object).map_err(cannot)?;
                        actual.output = value.get_mut("output").map(Value::take);
                    }
                }
            }
            Err(failure) => {
                actual.error = Some(serde_json::from_str(&object::error(failure)).map_err(cannot)?);
                if let Failure::Task(failure) = failure
                    && let Some(partial) = failure.output()
                {
                    actual.command = Some(OfCommand {
                        exit: None,
                        stdout: partial.stdout.clone(),
                        stderr: partial.stderr.clone(),
                    });
                }
            }
        }
        Ok(actual)
    }

    /// Adds what happened to the line of a case.
    pub(super) fn add_to(&self, object: Object) -> Object {
        let object = object.field_if_some("output", self.output.clone());
        let object = object.field_if_some("error", self.error.clone());
        match &self.command {
            Some(command) => object
                .field_if_some("exit_code", command.exit)
                .bytes("stdout", &command.stdout)
                .bytes("stderr", &command.stderr),
            None => object,
        }
    }

    /// Returns what came in place of an expected output or error.
    fn end(&self) -> Value {
        if let Some(error) = &self.error {
            return error.get("message").cloned().unwrap_or_default();
        }
        match &self.command {
            Some(command) => command.exit.map(|code| format!("exited with code {code}")).into(),
            None => self.output.clone().unwrap_or_default(),
        }
    }
}

/// Returns each expectation that is not met; `file` is what the file with the expected output has.
pub(super) fn mismatches(
    case: &Case,
    actual: &Actual,
    file: Option<&[u8]>,
    fuel_used: Option<u64>,
) -> Vec<Mismatch> {
    let mut found = Vec::new();
    match &actual.error {
        Some(error) if case.wants_error() => of_error(case, error, &mut found),
        Some(_) => found.push(Mismatch::new("end", "a success".into(), actual.end())),
        None if case.wants_error() => found.push(Mismatch::new("end", "an error".into(), actual.end())),
        None => of_output(case, actual, file, &mut found),
    }
    if let Some(command) = &actual.command {
        of_streams(case, command, &mut found);
    }
    if let Some(max) = case.fuel_max {
        let most = || format!("at most {max}").into();
        // Nobody knows how much fuel a task had used that was stopped from outside.
        let was_stopped = actual.error.as_ref().is_some_and(|error| {
            STOPPED.iter().any(|kind| error.get("kind").and_then(Value::as_str) == Some(kind))
        });
        match fuel_used.filter(|_| !was_stopped) {
            Some(used) if used > max => found.push(Mismatch::new("fuel", most(), used.into())),
            None if was_stopped => {
                found.push(Mismatch::new("fuel", most(), "not known, since the task was stopped".into()));
            }
            _ => {}
        }
    }
    found
}

fn of_error(case: &Case, error: &Value, found: &mut Vec<Mismatch>) {
    let part = |key: &str| error.get(key).cloned().unwrap_or_default();
    if let Some(expected) = &case.error_kind
        && part("kind") != **expected
    {
        found.push(Mismatch::new("error's kind", expected.as_str().into(), part("kind")));
    }
    let message = part("message");
    // Messages come as they are shown; an author of cases writes what the guest says.
    let as_shown = |text: &str| Words(text).to_string();
    if let Some(expected) = &case.error
        && message != as_shown(expected)
        && message != **expected
    {
        found.push(Mismatch::new("error", as_shown(expected).into(), message.clone()));
    }
    if let Some(expected) = &case.trap
        && !part("trap").as_str().is_some_and(|trap| trap.contains(expected))
    {
        // An error that is no trap has only its message to show.
        found.push(Mismatch::new("trap", expected.as_str().into(), message.clone()));
    }
    if let Some(text) = &case.error_contains
        && !message
            .as_str()
            .is_some_and(|message| message.contains(&as_shown(text)) || message.contains(text))
    {
        found.push(Mismatch::new("error", format!("something with {text:?} in it").into(), message));
    }
    if let Some(expected) = &case.error_data {
        found.extend(Mismatch::between("error's data", &cases::to_json(expected), &part("data")));
    }
}

fn of_output(case: &Case, actual: &Actual, file: Option<&[u8]>, found: &mut Vec<Mismatch>) {
    if let (Some(expected), Some(output)) = (case.expected_output(), &actual.output) {
        found.extend(Mismatch::between("output", &expected, output));
    }
    if let Some(expected) = file
        && expected != actual.file
    {
        // Spaces and the order of fields do not count in JSON.
        let json = |bytes| serde_json::from_slice::<Value>(bytes).ok();
        let text = |bytes| Value::from(String::from_utf8_lossy(bytes).into_owned());
        match json(expected).zip(json(&actual.file)).filter(|_| actual.output.is_some()) {
            Some((expected, output)) => found.extend(Mismatch::between("output", &expected, &output)),
            None => found.push(Mismatch::new("output", text(expected), text(&actual.file))),
        }
    }
    if let Some(command) = &actual.command {
        let expected = case.exit.unwrap_or(0);
        if command.exit.map(i64::from) != Some(expected) {
            found.push(Mismatch::new("exit code", expected.into(), command.exit.into()));
        }
    }
}

fn of_streams(case: &Case, command: &OfCommand, found: &mut Vec<Mismatch>) {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    if let Some(expected) = &case.stdout
        && command.stdout != expected.as_bytes()
    {
        found.push(Mismatch::new("stdout", expected.as_str().into(), text(&command.stdout).into()));
    }
    for (what, wanted, stream) in [
        ("stdout", &case.stdout_contains, &command.stdout),
        ("stderr", &case.stderr_contains, &command.stderr),
    ] {
        let actual = text(stream);
        if let Some(wanted) = wanted
            && !actual.contains(wanted)
        {
            found.push(Mismatch::new(what, format!("something with {wanted:?} in it").into(), actual.into()));
        }
    }
}

impl Mismatch {
    fn new(what: &'static str, expected: Value, actual: Value) -> Mismatch {
        Mismatch { what, expected, actual, at: None }
    }

    /// The case could not be run, or its file of outputs not be read.
    pub(super) fn not_run(failure: &Failure) -> Mismatch {
        Mismatch::new(NOT_RUN, Value::Null, failure.to_string().into())
    }

    fn between(what: &'static str, expected: &Value, actual: &Value) -> Option<Mismatch> {
        let at = difference(expected, actual)?;
        let at = (!at.is_empty()).then(|| format!("${at}"));
        Some(Mismatch { what, expected: in_order_of(actual, expected), actual: actual.clone(), at })
    }

    pub(super) fn to_json(&self) -> Value {
        serde_json::json!({
            "what": self.what,
            "expected": self.expected,
            "actual": self.actual,
            "at": self.at,
        })
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (NOT_RUN, Value::String(why)) = (self.what, &self.actual) {
            return writeln!(f, "    cannot be run: {}", indented(why));
        }
        writeln!(f, "    {}:", self.what)?;
        writeln!(f, "        expected  {}", shown(&self.expected))?;
        writeln!(f, "        actual    {}", shown(&self.actual))?;
        match &self.at {
            Some(at) => writeln!(f, "        differs   at {at}"),
            None => Ok(()),
        }
    }
}

fn shown(value: &Value) -> String {
    let mut text = String::new();
    json::push_value(&mut text, value);
    truncated(&text, SHOWN_BYTES_MAX)
}

/// Returns the expected value with its fields in the order of the actual one's, so that both can be read side by side.
fn in_order_of(actual: &Value, expected: &Value) -> Value {
    match (actual, expected) {
        (Value::Object(actual), Value::Object(expected)) => {
            let both = actual
                .iter()
                .filter_map(|(key, actual)| Some((key.clone(), in_order_of(actual, expected.get(key)?))));
            let others = expected.iter().filter(|(key, _)| !actual.contains_key(*key));
            Value::Object(both.chain(others.map(|(key, value)| (key.clone(), value.clone()))).collect())
        }
        (Value::Array(actual), Value::Array(expected)) => {
            let absent = std::iter::repeat(&Value::Null);
            let pairs = actual.iter().chain(absent).zip(expected);
            pairs.map(|(actual, expected)| in_order_of(actual, expected)).collect()
        }
        (_, expected) => expected.clone(),
    }
}

/// Returns the place of the first difference; it is empty where the values themselves differ. Numbers are compared by what
/// they count, and a field that is not there is as good as one that is `null`: TOML has no word for it.
fn difference(expected: &Value, actual: &Value) -> Option<String> {
    match (expected, actual) {
        (Value::Number(expected), Value::Number(actual)) => {
            // An integer is compared with a float as an integer: a float cannot tell all of them apart.
            let whole = |number: &serde_json::Number| match (number.as_i128(), number.as_f64()) {
                (Some(whole), _) => Some(whole),
                (None, Some(float)) if float.fract() == 0.0 && float.abs() < 1e30 => Some(float as i128),
                _ => None,
            };
            let is_same = expected == actual || whole(expected).is_some_and(|it| whole(actual) == Some(it));
            (!is_same).then(String::new)
        }
        (Value::Array(expected), Value::Array(actual)) => {
            let of_parts = expected.iter().zip(actual).enumerate().find_map(|(index, (expected, actual))| {
                Some(format!("[{index}]{}", difference(expected, actual)?))
            });
            let shorter = expected.len().min(actual.len());
            of_parts.or_else(|| (expected.len() != actual.len()).then(|| format!("[{shorter}]")))
        }
        (Value::Object(expected), Value::Object(actual)) => {
            let others = actual.keys().filter(|key| !expected.contains_key(*key));
            let part = |values: &serde_json::Map<String, Value>, key: &str| {
                values.get(key).cloned().unwrap_or_default()
            };
            expected.keys().chain(others).find_map(|key| {
                Some(format!(".{key}{}", difference(&part(expected, key), &part(actual, key))?))
            })
        }
        (expected, actual) => (expected != actual).then(String::new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_difference_is_found_wherever_it_is() {
        let expected = json!({"a": [1, {"b": 2}], "c": "x"});
        for (actual, at) in [
            (json!({"c": "x", "a": [1, {"b": 2}]}), None),
            (json!({"c": "x", "a": [1.0, {"b": 2.0}], "d": null}), None),
            (json!({"c": "x", "a": [1, {"b": 3}]}), Some(".a[1].b")),
            (json!({"c": "x", "a": [1]}), Some(".a[1]")),
            (json!({"c": "x", "a": [1, {"b": 2}, 3]}), Some(".a[2]")),
            (json!({"a": [1, {"b": 2}]}), Some(".c")),
            (json!({"c": "x", "a": [1, {"b": 2}], "d": 0}), Some(".d")),
            (json!("x"), Some("")),
        ] {
            assert_eq!(difference(&expected, &actual).as_deref(), at, "{actual}");
        }
        let ordered = in_order_of(
            &json!({"c": 1, "a": {"y": 1, "x": 2}}),
            &json!({"a": {"x": 3, "y": 4, "z": 5}, "c": 6}),
        );
        assert_eq!(ordered.to_string(), r#"{"c":6,"a":{"y":4,"x":3,"z":5}}"#);
        // Beyond what a float can tell apart, numbers are compared as they are.
        assert!(difference(&json!(9_007_199_254_740_993_u64), &json!(9_007_199_254_740_992_u64)).is_some());
        assert!(difference(&json!(9_007_199_254_740_993_u64), &json!(9_007_199_254_740_992.0)).is_some());
        assert!(difference(&json!(u64::MAX), &json!(18_446_744_073_709_551_615.0)).is_some());
        assert!(
            difference(&json!(0.5), &json!(0.5)).is_none() && difference(&json!(0.5), &json!(0)).is_some()
        );
    }
}
