//! Turns what was given as an input into what a task or a command takes.

use std::io::{self, BufRead, BufReader, IsTerminal as _, Read};
use std::path::Path;

use super::args::Command;
use super::exit::Failure;
use super::streams;
use bytes::Bytes;
use files::{HostFiles, OpenError};
use json::EncodeError;
use proto::limits::FRAME_PAYLOAD_BYTES_MAX;
use proto::text::quoted;
use wasmpool::module::{Codec, TaskDescription};

/// An error shows this many bytes of a text that is not JSON.
const TEXT_SHOWN_BYTES_MAX: usize = 60;

/// A stream of JSON is read in pieces of this size.
const STREAM_BYTES: usize = 64 * 1024;

/// U+FEFF in UTF-8.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// One input, by the way it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum InputArg {
    Nothing,
    /// stdin is handed to the command, which reads it itself.
    Stdin,
    /// Typed after `--input`: JSON to a typed task, else bytes.
    Argument(String),
    /// A file, stdin or a line: the text itself where the task takes one, else JSON.
    Content(Vec<u8>),
    /// A line of `--jsonl`: JSON in any case.
    Json(Vec<u8>),
    /// The arguments of a call in WAVE.
    Wave(String),
    /// The input was encoded by the task's codec already.
    Encoded(Bytes),
}

impl InputArg {
    /// Returns the bytes as they stand, for a command's stdin.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        match self {
            InputArg::Nothing | InputArg::Stdin => Vec::new(),
            InputArg::Argument(text) | InputArg::Wave(text) => text.into_bytes(),
            InputArg::Content(bytes) | InputArg::Json(bytes) => bytes,
            InputArg::Encoded(bytes) => bytes.into(),
        }
    }
}

/// Returns whether a task cannot be called without an input.
pub(super) fn is_needed(task: &TaskDescription) -> bool {
    task.codec == Codec::Raw || !task.params.is_empty()
}

/// Returns whether a file or a line is the input itself, and not JSON.
pub(super) fn is_text(task: &TaskDescription) -> bool {
    task.codec == Codec::Raw || task.input.is_bytes() || task.input.is_string()
}

/// The bytes that the task's codec makes of an input.
pub(super) fn encode(task: &TaskDescription, given: InputArg) -> Result<Bytes, Failure> {
    match task.codec {
        Codec::Raw => raw(task, given),
        // A task that reads JSON is sent postcard as well.
        Codec::Postcard | Codec::Json => typed(task, given),
        other => Err(Failure::Uncallable(format!("this command cannot encode an input as {}", other.name()))),
    }
}

fn raw(task: &TaskDescription, given: InputArg) -> Result<Bytes, Failure> {
    match given {
        InputArg::Wave(_) => Err(Failure::Usage(format!(
            "`{}` takes bytes: give them with --input or --input-file",
            task.signature()
        ))),
        InputArg::Json(text) => {
            let bytes = json::bytes_of(without_bom(&text)).map_err(|error| failure(task, &error, &text))?;
            Ok(bytes.into())
        }
        other => Ok(other.into_bytes().into()),
    }
}

fn typed(task: &TaskDescription, given: InputArg) -> Result<Bytes, Failure> {
    let json = match given {
        InputArg::Nothing if is_needed(task) => {
            return Err(Failure::Usage(format!(
                "`{}` needs an input: arguments follow its name; or give it with --input or --input-file, or pipe it to stdin",
                task.signature()
            )));
        }
        InputArg::Encoded(bytes) => return Ok(bytes),
        InputArg::Wave(text) => {
            let encoded = json::encode_wave(task, &text).map_err(|error| failure(task, &error, &[]))?;
            return Ok(encoded.into());
        }
        InputArg::Nothing | InputArg::Stdin => b"null".to_vec(),
        InputArg::Content(bytes) if task.input.is_bytes() => return Ok(json::encode_bytes(&bytes).into()),
        InputArg::Content(bytes) if task.input.is_string() => {
            let text = std::str::from_utf8(without_bom(&bytes)).map_err(|error| {
                let place = error.valid_up_to();
                Failure::Input(format!(
                    "`{}` takes text, but the input is not UTF-8 at byte {place}",
                    task.name
                ))
            })?;
            return Ok(json::encode_text(text).into());
        }
        InputArg::Argument(text) => text.into_bytes(),
        InputArg::Content(bytes) | InputArg::Json(bytes) => bytes,
    };
    let encoded = json::encode_arguments(task, without_bom(&json));
    Ok(encoded.map_err(|error| failure(task, &error, &json))?.into())
}

/// Encodes JSON while it is read, so that the text is never held whole.
pub(super) fn encode_stream(
    task: &TaskDescription,
    name: &str,
    source: impl Read,
    bytes_max: usize,
) -> Result<Bytes, Failure> {
    let mut counted = Counted { source, left: bytes_max, is_over: false };
    let mut text = BufReader::with_capacity(STREAM_BYTES, &mut counted);
    let encoded = skip_bom(&mut text)
        .map_err(EncodeError::io)
        .and_then(|()| json::encode_stream(task, text, bytes_max));
    match encoded {
        Ok(encoded) => Ok(encoded.into()),
        Err(_) if counted.is_over => Err(too_long(name, bytes_max)),
        Err(EncodeError::Json(error)) if error.is_io() => {
            Err(Failure::Input(format!("cannot read {name}: {}", io::Error::from(error))))
        }
        Err(error) => Err(failure(task, &error, &[])),
    }
}

/// The error of an input that has more bytes than it may.
pub(super) fn too_long(name: &str, bytes_max: usize) -> Failure {
    let advice = match bytes_max as u64 >= FRAME_PAYLOAD_BYTES_MAX {
        true => "no input may be longer, so give it in parts",
        false => "raise --input-limit",
    };
    Failure::Input(format!("{name} is longer than {bytes_max} bytes: {advice}"))
}

/// An input that was typed, as far as the limit of inputs allows.
pub(super) fn typed_input(text: &str, bytes_max: usize) -> Result<InputArg, Failure> {
    match text.len() <= bytes_max {
        true => Ok(InputArg::Argument(text.into())),
        false => Err(too_long("the input", bytes_max)),
    }
}

/// Returns the input that arguments are, if a task is given any: those of a call in WAVE (`wave`), or words. `has_input` says
/// whether it is given an input as well.
pub(super) fn of_arguments(
    task: Option<&TaskDescription>,
    wave: Option<&str>,
    arguments: &[String],
    has_input: bool,
    bytes_max: usize,
) -> Result<Option<InputArg>, Failure> {
    match (task, wave) {
        (Some(task), Some(_)) if has_input || !arguments.is_empty() => {
            return Err(Failure::Usage(format!(
                "`{}` is given its arguments between parentheses, and others as well: leave one of them out",
                task.signature()
            )));
        }
        (Some(_), Some(wave)) if wave.len() > bytes_max => return Err(too_long("the input", bytes_max)),
        (Some(_), Some(wave)) => return Ok(Some(InputArg::Wave(wave.into()))),
        _ => {}
    }
    match task {
        Some(task) if has_input && !arguments.is_empty() => Err(Failure::Usage(format!(
            "`{}` is given arguments, and an input as well: leave one of them out",
            task.signature()
        ))),
        Some(task) if !arguments.is_empty() => words(task, arguments, bytes_max).map(Some),
        _ => Ok(None),
    }
}

/// Makes the input of a task from its arguments, as they stand on the command line: JSON, or text where the task takes text or
/// bytes, or the word is no JSON.
fn words(task: &TaskDescription, words: &[String], bytes_max: usize) -> Result<InputArg, Failure> {
    let signature = task.signature();
    if task.codec == Codec::Raw {
        return Err(Failure::Usage(format!(
            "`{signature}` takes bytes: give them with --input or --input-file"
        )));
    }
    if task.params.len() != words.len() {
        let wanted = task.params.len();
        let given = words.len();
        return Err(Failure::Usage(format!("`{signature}` takes {wanted} arguments, and not {given}")));
    }
    let json: Vec<_> = words
        .iter()
        .zip(task.input.are_text(words.len()))
        .map(|(word, is_text)| as_json(word, is_text))
        .collect();
    let text = match &json[..] {
        [only] => only.clone(),
        several => format!("[{}]", several.join(",")),
    };
    match text.len() <= bytes_max {
        true => Ok(InputArg::Json(text.into_bytes())),
        false => Err(too_long("the input", bytes_max)),
    }
}

fn as_json(word: &str, is_text: bool) -> String {
    let is_json = !is_text && serde_json::from_str::<serde::de::IgnoredAny>(word).is_ok();
    if is_json { word.into() } else { serde_json::Value::from(word).to_string() }
}

/// Reads a file that tasks are to share.
pub(super) fn read_shared(files: &HostFiles, path: &Path, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let too_long = |name: &str, bytes_max: usize| {
        Failure::Input(format!(
            "{name} is longer than {bytes_max} bytes, the most that tasks can share in one file"
        ))
    };
    read_named(files, path, bytes_max, too_long)
}

/// Reads a file that is a part of a module, or is one: `what` it is stands in the error of one that is too long.
pub(super) fn read_part(
    files: &HostFiles,
    path: &Path,
    what: &str,
    bytes_max: usize,
) -> Result<Vec<u8>, Failure> {
    let too_long = |name: &str, bytes_max: usize| {
        Failure::Input(format!("{name} is longer than {bytes_max} bytes, the limit of {what}"))
    };
    read_named(files, path, bytes_max, too_long)
}

fn read_named(
    files: &HostFiles,
    path: &Path,
    bytes_max: usize,
    too_long: impl Fn(&str, usize) -> Failure,
) -> Result<Vec<u8>, Failure> {
    let name = path.display().to_string();
    match path.as_os_str() == "-" {
        true => read("stdin", Ok(streams::stdin()), bytes_max, too_long),
        false => read(&name, files.read(path).map_err(io::Error::from), bytes_max, too_long),
    }
}

/// Fails once it has read `left` bytes, so that an endless source ends.
struct Counted<R> {
    source: R,
    left: usize,
    is_over: bool,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(into)?;
        match self.left.checked_sub(read) {
            Some(left) => {
                self.left = left;
                Ok(read)
            }
            None => {
                self.is_over = true;
                Err(io::ErrorKind::FileTooLarge.into())
            }
        }
    }
}

fn failure(task: &TaskDescription, error: &EncodeError, text: &[u8]) -> Failure {
    let signature = task.signature();
    Failure::Input(match error {
        EncodeError::Mismatch(error) => format!("the input does not fit `{signature}`: {error}"),
        EncodeError::Json(error) => {
            let shown = match text.trim_ascii() {
                [] => String::new(),
                text => format!(": {}", quoted(text, TEXT_SHOWN_BYTES_MAX)),
            };
            let hint = if is_text(task) { "; text needs quotes here, such as '\"hello\"'" } else { "" };
            format!("the input of `{signature}` is not JSON: {error}{shown}{hint}")
        }
    })
}

/// Removes the byte order mark (EF BB BF) that some editors put before a text.
pub(super) fn without_bom(text: &[u8]) -> &[u8] {
    text.strip_prefix(BOM).unwrap_or(text)
}

/// Removes the byte order mark in place: a line is held in one buffer, and copied nowhere.
pub(super) fn without_bom_in_place(line: &mut Vec<u8>) {
    if line.starts_with(BOM) {
        line.drain(..BOM.len());
    }
}

fn skip_bom(text: &mut impl BufRead) -> io::Result<()> {
    // A reader may return one byte at a time, so the mark is matched byte by byte.
    let mut seen = 0;
    while seen < BOM.len() {
        let buffer = text.fill_buf()?;
        if buffer.first() != Some(&BOM[seen]) {
            break;
        }
        text.consume(1);
        seen += 1;
    }
    match seen {
        0 | 3 => Ok(()),
        // No JSON begins with a part of the mark, so what was consumed need not be given back.
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it begins with a part of a byte order mark")),
    }
}

/// The files that a verb reads, and what errors call each; those of `map --files` are not among them.
pub(super) fn files_of(verb: &Command) -> Vec<(&Path, &'static str)> {
    const MODULE: &str = "the module";
    let (target, input) = match verb {
        Command::Run(args) => (&args.target, &args.input_file),
        Command::Map(args) => (&args.target, &None),
        Command::Bench(args) => (&args.target, &args.input_file),
        Command::Dev(args) => (&args.target, &args.input_file),
        Command::Test(args) => {
            let shared = args.share.iter().map(|path| (&**path, "a shared file"));
            return std::iter::once((&*args.cases, "the cases")).chain(shared).collect();
        }
        Command::Inspect(args) => return vec![(&args.module, MODULE)],
        _ => return Vec::new(),
    };
    let inputs = input.iter().map(|path| (&**path, "the input"));
    let shared = target.share.iter().map(|path| (&**path, "a shared file"));
    std::iter::once((&*target.module, MODULE)).chain(inputs).chain(shared).collect()
}

/// Reads a file, or stdin for `-`, as far as the pool would take it.
pub(super) fn read_file(files: &HostFiles, path: &Path, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    if path.as_os_str() == "-" {
        return read_stdin(bytes_max);
    }
    read_opened(path, files.read(path), bytes_max)
}

/// Reads a file that was opened, or reports why it was not.
pub(super) fn read_opened(
    path: &Path,
    file: Result<impl io::Read, OpenError>,
    bytes_max: usize,
) -> Result<Vec<u8>, Failure> {
    read(&path.display().to_string(), file.map_err(io::Error::from), bytes_max, too_long)
}

/// Reads the input from a file, or from stdin for `-`. JSON is encoded while it is read.
pub(super) fn from_file(
    files: &HostFiles,
    path: &Path,
    task: Option<&TaskDescription>,
    bytes_max: usize,
) -> Result<InputArg, Failure> {
    let Some(task) = task.filter(|task| !is_text(task)) else {
        return Ok(InputArg::Content(read_file(files, path, bytes_max)?));
    };
    if path.as_os_str() == "-" {
        return encode_stream(task, "stdin", streams::stdin(), bytes_max).map(InputArg::Encoded);
    }
    let name = path.display().to_string();
    let file = files.read(path).map_err(|error| Failure::Input(format!("cannot read {name}: {error}")))?;
    encode_stream(task, &name, file, bytes_max).map(InputArg::Encoded)
}

/// Reads the input from stdin, if the arguments give none.
pub(super) fn from_stdin(task: Option<&TaskDescription>, bytes_max: usize) -> Result<InputArg, Failure> {
    let Some(task) = task.filter(|task| !is_text(task)) else {
        return Ok(InputArg::Content(read_stdin(bytes_max)?));
    };
    let mut stdin = BufReader::with_capacity(STREAM_BYTES, streams::stdin());
    // JSON is never empty: an empty stdin is the `/dev/null` of a program that is given no input.
    match stdin.fill_buf() {
        Ok([]) => Ok(InputArg::Nothing),
        Ok(_) => encode_stream(task, "stdin", stdin, bytes_max).map(InputArg::Encoded),
        Err(error) => Err(Failure::Input(format!("cannot read stdin: {error}"))),
    }
}

/// Reads all of stdin.
pub(super) fn read_stdin(bytes_max: usize) -> Result<Vec<u8>, Failure> {
    read("stdin", Ok(streams::stdin()), bytes_max, too_long)
}

/// Returns whether something other than a keyboard is behind stdin.
pub(super) fn is_piped() -> bool {
    !io::stdin().is_terminal()
}

fn read(
    name: &str,
    source: io::Result<impl Read>,
    bytes_max: usize,
    too_long: impl FnOnce(&str, usize) -> Failure,
) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    source
        .and_then(|source| source.take((bytes_max as u64).saturating_add(1)).read_to_end(&mut bytes))
        .map_err(|error| Failure::Input(format!("cannot read {name}: {error}")))?;
    if bytes.len() > bytes_max {
        return Err(too_long(name, bytes_max));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::description::samples;
    use wasmpool::module::TypeSchema;

    fn task<I: postcard_schema::Schema>(codec: Codec, params: &[&str]) -> TaskDescription {
        let mut task = samples::task("t", params, TypeSchema::of::<I>(), TypeSchema::of::<()>());
        task.codec = codec;
        task
    }

    fn content(text: &str) -> InputArg {
        InputArg::Content(text.into())
    }

    #[test]
    fn content_is_the_text_itself_where_the_task_takes_one() {
        let text = task::<String>(Codec::Postcard, &["text"]);
        assert_eq!(encode(&text, content("\"a\"")).expect("fits"), "\x03\"a\"");
        assert_eq!(encode(&text, InputArg::Argument("\"a\"".into())).expect("fits"), "\x01a");
        let bytes = task::<Vec<u8>>(Codec::Postcard, &["data"]);
        assert_eq!(encode(&bytes, content("[1]")).expect("fits"), "\x03[1]");
        assert_eq!(encode(&bytes, InputArg::Json(b"[1]".into())).expect("fits"), "\x01\x01");
        let number = task::<u64>(Codec::Postcard, &["n"]);
        assert_eq!(encode(&number, content("7\n")).expect("fits"), "\x07");
    }

    #[test]
    fn raw_tasks_take_what_stands_there() {
        let raw = task::<Vec<u8>>(Codec::Raw, &["input"]);
        assert_eq!(encode(&raw, InputArg::Argument("\"a\"".into())).expect("fits"), "\"a\"");
        assert_eq!(encode(&raw, InputArg::Json(br#"{"base64":"/w=="}"#.into())).expect("fits"), &b"\xff"[..]);
        assert_eq!(encode(&raw, InputArg::Nothing).expect("fits"), "");
    }

    #[test]
    fn a_missing_or_wrong_input_names_the_signature() {
        let pair = task::<(u64, String)>(Codec::Postcard, &["n", "name"]);
        let says = |given| encode(&pair, given).expect_err("does not fit").to_string();
        assert!(says(InputArg::Nothing).contains("t(n: u64, name: String)"));
        let wrong = says(InputArg::Argument("[1, 2]".into()));
        assert!(wrong.ends_with("at $[1] (argument `name`): expected a string, found 2"), "{wrong}");
        let wrong = says(InputArg::Argument(r#"{"n": -1, "name": ""}"#.into()));
        assert!(wrong.contains("at $.n: expected u64 (0 to 18446744073709551615), found -1"), "{wrong}");
        assert!(says(InputArg::Argument("nope".into())).contains("is not JSON"));
    }
}
