//! Puts a text of types into a module that any compiler made.

use wasm_encoder::{CustomSection, Section as _};
use wasmparser::{Encoding, Parser, Payload};

use super::WitError;
use proto::guest::section::{self, TEXT_RECORD, text_record};

/// Says why types were not put into a module.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// The types are no types.
    #[error("the types: {0}")]
    Types(#[from] WitError),
    /// The module is no module, up to some place.
    #[error("the module is not valid: {0}")]
    Module(#[from] wasmparser::BinaryReaderError),
    /// A component says of itself what types it has.
    #[error("it is a component, which has types of its own: each function that it exports is a task already")]
    Component,
    /// The compiler has described the tasks, as the SDK for Rust does.
    #[error(
        "it describes its tasks already: its section {} is not text, so its compiler has made it",
        section::NAME
    )]
    Described,
}

/// Returns the module with these types in its section of tasks. Types that were embedded before are replaced.
///
/// # Errors
/// [`EmbedError`]
pub fn embed(module: &[u8], types: &str) -> Result<Vec<u8>, EmbedError> {
    super::tasks(types)?;
    let mut embedded = Vec::with_capacity(module.len() + types.len() + 64);
    let mut copied = 0;
    let mut begin = 8;
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload?;
        match &payload {
            Payload::Version { encoding: Encoding::Component, .. } => return Err(EmbedError::Component),
            Payload::CustomSection(custom) if custom.name() == section::NAME => {
                if !is_text(custom.data()) {
                    return Err(EmbedError::Described);
                }
                embedded.extend_from_slice(&module[copied..begin]);
                copied = custom.range().end;
            }
            _ => {}
        }
        // The parser tells of the code's bodies one by one, behind the section's begin.
        if let Some((_, range)) = payload.as_section() {
            begin = range.end;
        }
        if let Payload::CodeSectionStart { range, .. } = payload {
            begin = range.end;
        }
    }
    embedded.extend_from_slice(&module[copied..]);
    CustomSection { name: section::NAME.into(), data: text_record(types).into() }.append_to(&mut embedded);
    Ok(embedded)
}

/// Returns whether all records of a section are text.
fn is_text(mut records: &[u8]) -> bool {
    while let Some((len, rest)) = records.split_first_chunk::<4>() {
        let len = u32::from_le_bytes(*len) as usize;
        match rest.split_at_checked(len) {
            Some(([TEXT_RECORD, ..], rest)) => records = rest,
            _ => return false,
        }
    }
    records.is_empty()
}
