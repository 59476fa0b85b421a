//! From what was given as an input to what a task or a command takes.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::path::Path;

use bytes::Bytes;
use serde_json::Value;

use super::exit::Failure;
use super::json;
use crate::limits::INPUT_BYTES_MAX;
use crate::text::truncated;
use crate::{Codec, TaskDescription};

/// One input, by the way it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Given {
    Nothing,
    /// Typed after `--input`: JSON to a typed task, else bytes.
    Argument(String),
    /// A file, stdin or a line: the text itself where the task takes one, else JSON.
    Content(Vec<u8>),
    /// A line of `--jsonl`: JSON in any case.
    Json(Vec<u8>),
}

impl Given {
    /// As they stand: a command's stdin.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        match self {
            Given::Nothing => Vec::new(),
            Given::Argument(text) => text.into_bytes(),
            Given::Content(bytes) | Given::Json(bytes) => bytes,
        }
    }
}

/// Whether a task cannot be called without an input.
pub(super) fn is_needed(task: &TaskDescription) -> bool {
    task.codec == Codec::Raw || !task.params.is_empty()
}

/// Whether a file or a line is the input itself, and not JSON.
pub(super) fn is_text(task: &TaskDescription) -> bool {
    task.codec == Codec::Raw || task.input.is_bytes() || task.input.is_string()
}

/// The bytes that the task's codec makes of an input.
pub(super) fn encode(task: &TaskDescription, given: Given) -> Result<Bytes, Failure> {
    match task.codec {
        Codec::Raw => raw(task, given),
        Codec::Postcard => typed(task, given),
    }
}

fn raw(task: &TaskDescription, given: Given) -> Result<Bytes, Failure> {
    match given {
        Given::Json(text) => {
            let bytes = json::bytes_of(&parse(task, &text)?);
            Ok(bytes.map_err(|error| does_not_fit(task, &error))?.into())
        }
        other => Ok(other.into_bytes().into()),
    }
}

fn typed(task: &TaskDescription, given: Given) -> Result<Bytes, Failure> {
    let value = match given {
        Given::Nothing if is_needed(task) => {
            return Err(Failure::Usage(format!(
                "`{}` needs an input: give it with --input or --input-file, or pipe it to stdin",
                task.signature()
            )));
        }
        Given::Nothing => Value::Null,
        Given::Content(bytes) if task.input.is_bytes() => return Ok(json::encode_bytes(&bytes).into()),
        Given::Content(bytes) if task.input.is_string() => {
            let text = std::str::from_utf8(&bytes).map_err(|error| {
                let place = error.valid_up_to();
                Failure::Input(format!(
                    "`{}` takes text, but the input is not UTF-8 at byte {place}",
                    task.name
                ))
            })?;
            return Ok(json::encode_text(text).into());
        }
        Given::Argument(text) => parse(task, text.as_bytes())?,
        Given::Content(bytes) | Given::Json(bytes) => parse(task, &bytes)?,
    };
    let encoded = json::encode_arguments(task, &value).map_err(|error| does_not_fit(task, &error))?;
    Ok(encoded.into())
}

fn parse(task: &TaskDescription, text: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(text).map_err(|error| {
        let shown = truncated(String::from_utf8_lossy(text).trim(), 60);
        let hint = if is_text(task) { "; text needs quotes here, such as '\"hello\"'" } else { "" };
        Failure::Input(format!("the input of `{}` is not JSON: {error}: {shown}{hint}", task.signature()))
    })
}

fn does_not_fit(task: &TaskDescription, error: &json::Mismatch) -> Failure {
    Failure::Input(format!("the input does not fit `{}`: {error}", task.signature()))
}

/// Reads a file, or stdin for `-`, as far as the pool would take it.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    if path == Path::new("-") {
        return read_stdin();
    }
    let shown = path.display().to_string();
    read(&shown, File::open(path))
}

/// Reads all of stdin.
pub(super) fn read_stdin() -> Result<Vec<u8>, Failure> {
    read("stdin", Ok(io::stdin().lock()))
}

/// Whether something other than a keyboard is behind stdin.
pub(super) fn is_piped() -> bool {
    !io::stdin().is_terminal()
}

fn read(name: &str, source: io::Result<impl Read>) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    source
        .and_then(|source| source.take(INPUT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure::Input(format!("cannot read {name}: {error}")))?;
    if bytes.len() > INPUT_BYTES_MAX {
        return Err(Failure::Input(format!("{name} has more than {INPUT_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Schema;

    fn task<I: postcard_schema::Schema>(codec: Codec, params: &[&str]) -> TaskDescription {
        TaskDescription {
            name: "t".into(),
            doc: String::new(),
            export: "t".into(),
            codec,
            params: params.iter().map(ToString::to_string).collect(),
            input: Schema::of::<I>(),
            output: Schema::of::<()>(),
        }
    }

    fn content(text: &str) -> Given {
        Given::Content(text.into())
    }

    #[test]
    fn content_is_the_text_itself_where_the_task_takes_one() {
        let text = task::<String>(Codec::Postcard, &["text"]);
        assert_eq!(encode(&text, content("\"a\"")).expect("fits"), "\x03\"a\"");
        assert_eq!(encode(&text, Given::Argument("\"a\"".into())).expect("fits"), "\x01a");
        let bytes = task::<Vec<u8>>(Codec::Postcard, &["data"]);
        assert_eq!(encode(&bytes, content("[1]")).expect("fits"), "\x03[1]");
        assert_eq!(encode(&bytes, Given::Json(b"[1]".into())).expect("fits"), "\x01\x01");
        let number = task::<u64>(Codec::Postcard, &["n"]);
        assert_eq!(encode(&number, content("7\n")).expect("fits"), "\x07");
    }

    #[test]
    fn raw_tasks_take_what_stands_there() {
        let raw = task::<Vec<u8>>(Codec::Raw, &["input"]);
        assert_eq!(encode(&raw, Given::Argument("\"a\"".into())).expect("fits"), "\"a\"");
        assert_eq!(encode(&raw, Given::Json(br#"{"base64":"/w=="}"#.into())).expect("fits"), &b"\xff"[..]);
        assert_eq!(encode(&raw, Given::Nothing).expect("fits"), "");
    }

    #[test]
    fn a_missing_or_wrong_input_names_the_signature() {
        let pair = task::<(u64, String)>(Codec::Postcard, &["n", "name"]);
        let says = |given| encode(&pair, given).expect_err("does not fit").to_string();
        assert!(says(Given::Nothing).contains("t(n: u64, name: String)"));
        let wrong = says(Given::Argument("[1, 2]".into()));
        assert!(wrong.ends_with("at $[1] (argument `name`): expected a string, found 2"), "{wrong}");
        let wrong = says(Given::Argument(r#"{"n": -1, "name": ""}"#.into()));
        assert!(wrong.contains("at $.n: expected u64 (0 to 18446744073709551615), found -1"), "{wrong}");
        assert!(says(Given::Argument("nope".into())).contains("is not JSON"));
    }
}
