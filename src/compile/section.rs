//! The custom section `wasmpool.tasks`: what a module says of its tasks. Apart from the engine, so
//! that it can be fuzzed without it.

use crate::limits::TASKS_PER_MODULE_MAX;
use crate::module::{Codec, TaskDescription};
use crate::schema::Schema;

/// Bytes of a name, or of a doc comment, that a module may give a task.
pub(super) const NAME_BYTES_MAX: usize = 256;
pub(super) const DOC_BYTES_MAX: usize = 16 * 1024;

/// The records of the section: each a length (u32, little endian) and a postcard body.
pub(super) fn records(mut section: &[u8]) -> Result<Vec<TaskDescription>, String> {
    let mut tasks = Vec::new();
    while !section.is_empty() {
        let (len, rest) = section.split_first_chunk::<4>().ok_or("its section wasmpool.tasks is cut off")?;
        let len = u32::from_le_bytes(*len) as usize;
        let body = rest.get(..len).ok_or("a record of its section wasmpool.tasks is cut off")?;
        section = &rest[len..];
        if let Some(task) = record(body).map_err(|error| format!("in its section wasmpool.tasks, {error}"))? {
            tasks.push(task);
        }
        if tasks.len() > TASKS_PER_MODULE_MAX {
            break;
        }
    }
    Ok(tasks)
}

/// One record; `None` for an initializer's.
fn record(body: &[u8]) -> Result<Option<TaskDescription>, String> {
    type Head<'a> = (u8, u8, &'a str, &'a str, &'a str, u8, Vec<&'a str>);
    let ((version, kind, export, name, doc, codec, params), rest) =
        postcard::take_from_bytes::<Head<'_>>(body)
            .map_err(|error| format!("a record is malformed: {error}"))?;
    if version != 1 {
        return Err(format!("a record has version {version}; this pool knows version 1"));
    }
    let schema = |error| format!("the types of `{name}` are malformed: {error}");
    let (input, rest) = Schema::decode_guest(rest).map_err(schema)?;
    let (output, rest) = Schema::decode_guest(rest).map_err(schema)?;
    if !rest.is_empty() {
        return Err(format!("the record of `{name}` has {} bytes left over", rest.len()));
    }
    let too_long = |text: &str| text.len() > NAME_BYTES_MAX;
    if too_long(name)
        || too_long(export)
        || params.iter().any(|param| too_long(param))
        || doc.len() > DOC_BYTES_MAX
    {
        return Err("a name or doc comment is too long".into());
    }
    let codec = match codec {
        0 => Codec::Raw,
        1 => Codec::Postcard,
        other => return Err(format!("`{name}` has an unknown codec {other}")),
    };
    match kind {
        0 => Ok(Some(TaskDescription {
            name: name.into(),
            doc: doc.into(),
            export: export.into(),
            codec,
            params: params.into_iter().map(Into::into).collect(),
            input,
            output,
        })),
        1 => Ok(None),
        other => Err(format!("`{name}` has an unknown kind {other}")),
    }
}
