//! The custom section `wasmpool.tasks`: what a module says of its tasks. Apart from the engine, so
//! that it can be fuzzed without it.

use crate::description::{CallingConvention, Codec, TaskDefect, TaskDescription};
use crate::limits::{TASK_NAME_BYTES_MAX, TASK_TYPES_BYTES_MAX, TASKS_PER_MODULE_MAX};
use crate::schema::TypeSchema;

/// The section's name.
pub const NAME: &str = "wasmpool.tasks";

/// The first byte of a record that is text.
pub const TEXT_RECORD: u8 = 2;

/// The version of a record that has the type of the task's own errors as well; without one, it is 1.
const ERROR_RECORD: u8 = 3;

/// The tasks that a module describes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Described {
    /// Those whose types are encoded.
    pub tasks: Vec<TaskDescription>,
    /// The types and functions that are written as text, one record behind the other.
    pub text: String,
}

/// Returns a record that is text, as a module has it in the section.
pub fn text_record(text: &str) -> Vec<u8> {
    let len = text.len() as u32 + 1;
    [&len.to_le_bytes()[..], &[TEXT_RECORD], text.as_bytes()].concat()
}

/// Reads the records of the section: each is a length (u32, little endian) and a body, which is postcard or text.
///
/// # Errors
/// The words for what is wrong with the section.
pub fn records(mut section: &[u8]) -> Result<Described, String> {
    let mut tasks = Vec::new();
    let mut text = String::new();
    while !section.is_empty() {
        let (len, rest) = section.split_first_chunk::<4>().ok_or("its section wasmpool.tasks is cut off")?;
        let len = u32::from_le_bytes(*len) as usize;
        let body = rest.get(..len).ok_or("a record of its section wasmpool.tasks is cut off")?;
        section = &rest[len..];
        if let Some((&TEXT_RECORD, more)) = body.split_first() {
            push_text(&mut text, more)?;
            continue;
        }
        if let Some(task) = record(body).map_err(|error| format!("in its section wasmpool.tasks, {error}"))? {
            tasks.push(task);
        }
        if tasks.len() > TASKS_PER_MODULE_MAX {
            break;
        }
    }
    Ok(Described { tasks, text })
}

fn push_text(text: &mut String, more: &[u8]) -> Result<(), String> {
    let bytes = text.len() + more.len();
    if bytes > TASK_TYPES_BYTES_MAX {
        return Err(format!(
            "its section wasmpool.tasks has {bytes} bytes of text, and {TASK_TYPES_BYTES_MAX} is the limit"
        ));
    }
    let more =
        std::str::from_utf8(more).map_err(|_| "the text of its section wasmpool.tasks is not UTF-8")?;
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(more);
    Ok(())
}

/// Reads one record; returns `None` for an initializer's.
fn record(body: &[u8]) -> Result<Option<TaskDescription>, String> {
    type Head<'a> = (u8, u8, &'a str, &'a str, &'a str, u8, Vec<&'a str>);
    let ((version, kind, export, name, doc, codec, params), rest) =
        postcard::take_from_bytes::<Head<'_>>(body)
            .map_err(|error| format!("a record is malformed: {error}"))?;
    if version != 1 && version != ERROR_RECORD {
        return Err(format!("a record has version {version}; this pool knows 1 and 3, and 2, which is text"));
    }
    // The length is checked before any error can name it.
    if name.len() > TASK_NAME_BYTES_MAX {
        return Err(TaskDefect::TooLong.to_string());
    }
    let schema = |error| format!("the types of `{name}` are malformed: {error}");
    let (input, rest) = TypeSchema::decode_guest(rest).map_err(schema)?;
    let (output, rest) = TypeSchema::decode_guest(rest).map_err(schema)?;
    let (error, rest) = match version {
        ERROR_RECORD => {
            TypeSchema::decode_guest(rest).map(|(error, rest)| (Some(error), rest)).map_err(schema)?
        }
        _ => (None, rest),
    };
    if !rest.is_empty() {
        return Err(format!("the record of `{name}` has {} bytes left over", rest.len()));
    }
    let codec = match codec {
        0 => Codec::Raw,
        1 => Codec::Postcard,
        other => return Err(format!("`{name}` has an unknown codec {other}")),
    };
    let task = TaskDescription {
        name: name.into(),
        doc: doc.into(),
        export: export.into(),
        convention: CallingConvention::Bytes,
        codec,
        params: params.into_iter().map(Into::into).collect(),
        input,
        output,
        error,
    };
    task.check().map_err(|defect| format!("of the task `{name}`: {defect}"))?;
    match kind {
        0 => Ok(Some(task)),
        1 => Ok(None),
        other => Err(format!("`{name}` has an unknown kind {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::CONTROL_BYTES_MAX;

    #[test]
    fn records_of_text_are_read_as_one() {
        let section = [text_record("f: func();"), text_record("record a { b: u8 }")].concat();
        let described = records(&section).expect("is read");
        assert_eq!((&*described.text, described.tasks.len()), ("f: func();\nrecord a { b: u8 }", 0));
        let long = text_record(&"a".repeat(TASK_TYPES_BYTES_MAX));
        assert!(records(&long).is_ok());
        assert!(records(&[&long[..], &long].concat()).is_err(), "is over the limit");
        assert!(records(&[2, 0, 0, 0, TEXT_RECORD, 0xff]).is_err(), "is not UTF-8");
    }

    #[test]
    fn a_refusal_fits_the_message_that_carries_it() {
        // The name is too long, and the types are cut off: the error must not repeat the name.
        let name = "n".repeat(2 * CONTROL_BYTES_MAX);
        let head = (1u8, 0u8, "f", name.as_str(), "", 1u8, Vec::<&str>::new());
        let body = postcard::to_stdvec(&head).expect("encodes");
        let section = [&(body.len() as u32).to_le_bytes()[..], &body].concat();
        let error = records(&section).expect_err("is refused");
        assert!(error.len() < 1000, "{} bytes", error.len());
    }
}
