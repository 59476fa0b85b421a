//! What modules of AssemblyScript import from `env`: their compiler expects it of every host, and names the place of an error
//! in it. Texts are UTF-16, and the four bytes before a text say how many bytes it has.

use std::fmt::Write as _;

use rand_core::TryRng as _;
use wasmtime::{Caller, Extern, Linker, Result, Trap};

use super::linker::TaskState;
use super::random::{Seeded, System};
use proto::imports::{SCRIPT_MODULE, ScriptFunction};
use proto::limits::{GUEST_TEXT_BYTES_MAX, LOG_RECORD_BYTES_MAX};
use proto::message::LogSource;

/// The level of a line that `trace` writes: as of what a guest prints.
const INFO: u8 = 3;

/// Bits of a random number that an `f64` holds exactly.
const F64_BITS: u32 = 53;

/// # Errors
/// Returns wasmtime's; each name is defined once, so none is expected.
pub(super) fn define(linker: &mut Linker<TaskState>) -> Result<()> {
    for function in ScriptFunction::ALL {
        let name = function.name();
        match function {
            ScriptFunction::Abort => linker.func_wrap(SCRIPT_MODULE, name, abort)?,
            ScriptFunction::Trace => linker.func_wrap(SCRIPT_MODULE, name, trace)?,
            ScriptFunction::Seed => linker.func_wrap(SCRIPT_MODULE, name, seed)?,
        };
    }
    Ok(())
}

/// Ends the task: what the guest says becomes the message and place of its panic.
fn abort(mut caller: Caller<'_, TaskState>, message: u32, file: u32, line: u32, column: u32) -> Result<()> {
    let message = text(&mut caller, message, GUEST_TEXT_BYTES_MAX)?;
    let message = if message.is_empty() { "abort".into() } else { message };
    let file = text(&mut caller, file, LOG_RECORD_BYTES_MAX)?;
    caller.data_mut().panic.get_or_insert((message, format!("{file}:{line}:{column}")));
    Err(wasmtime::format_err!("the guest has aborted"))
}

#[expect(clippy::too_many_arguments, reason = "the signature that AssemblyScript's compiler gives it")]
fn trace(
    mut caller: Caller<'_, TaskState>,
    message: u32,
    count: u32,
    first: f64,
    second: f64,
    third: f64,
    fourth: f64,
    fifth: f64,
) -> Result<()> {
    let mut line = text(&mut caller, message, LOG_RECORD_BYTES_MAX)?;
    let numbers = [first, second, third, fourth, fifth];
    for (index, number) in numbers.iter().take(count as usize).enumerate() {
        let before = if index == 0 { " " } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(line, "{before}{number}");
    }
    Ok(caller.data().task_log.record(LogSource::Guest, INFO, "", &line, "")?)
}

/// Draws a number for the guest to begin its random ones with; a deterministic task's come from its seed.
fn seed(mut caller: Caller<'_, TaskState>) -> f64 {
    let state = caller.data_mut();
    let Ok(bits) = match state.limits.seed {
        None => System.try_next_u64(),
        Some(seed) => state.seeds.get_or_insert_with(|| Seeded::new(seed, "env.seed")).try_next_u64(),
    };
    (bits >> (u64::BITS - F64_BITS)) as f64
}

/// Reads a text; none stands at 0.
fn text(caller: &mut Caller<'_, TaskState>, pointer: u32, bytes_max: usize) -> Result<String> {
    if pointer == 0 {
        return Ok(String::new());
    }
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        return Err(wasmtime::format_err!("the module has no memory to read a text from"));
    };
    read(memory.data(&*caller), pointer, bytes_max).ok_or_else(|| Trap::MemoryOutOfBounds.into())
}

/// Returns at most the text that so many bytes hold; `None` if it is not inside of the memory.
fn read(memory: &[u8], pointer: u32, bytes_max: usize) -> Option<String> {
    const LEN_BYTES: u64 = 4;
    let start = u64::from(pointer);
    let len_at = usize::try_from(start.checked_sub(LEN_BYTES)?).ok()?;
    let len = u32::from_le_bytes(*memory.get(len_at..)?.first_chunk()?);
    // Both are 32 bits wide, so the sum does not overflow.
    let end = start + u64::from(len);
    let bytes = memory.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)?;
    let cut = &bytes[..bytes.len().min(bytes_max)];
    let units = cut.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
    let mut text: String =
        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    if cut.len() < bytes.len() {
        text.push('…');
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A memory of 64 bytes with a text whose length says something else.
    fn memory(at: usize, len: u32, text: &str) -> Vec<u8> {
        let mut memory = vec![0; 64];
        memory[at - 4..at].copy_from_slice(&len.to_le_bytes());
        for (index, unit) in text.encode_utf16().enumerate() {
            memory[at + 2 * index..][..2].copy_from_slice(&unit.to_le_bytes());
        }
        memory
    }

    #[test]
    fn a_text_is_read_inside_of_the_memory_only() {
        assert_eq!(read(&memory(8, 6, "aä漢"), 8, 100).as_deref(), Some("aä漢"));
        assert_eq!(read(&memory(8, 56, ""), 8, 100).map(|text| text.len()), Some(28));
        for (pointer, len) in [(8, 57), (8, u32::MAX), (60, 5), (62, 3)] {
            assert_eq!(read(&memory(pointer as usize, len, ""), pointer, 100), None, "{pointer} {len}");
        }
        for pointer in [0, 1, 3, 64, 68, u32::MAX] {
            assert_eq!(read(&[0; 64], pointer, 100).unwrap_or_default(), "", "{pointer}");
        }
    }

    #[test]
    fn a_long_text_is_cut_and_a_broken_one_is_made_whole() {
        assert_eq!(read(&memory(8, 8, "abcd"), 8, 5).as_deref(), Some("ab…"));
        let mut half = memory(8, 4, "😀");
        half[10] = b'x';
        half[11] = 0;
        assert_eq!(read(&half, 8, 100).as_deref(), Some("\u{fffd}x"));
        // An odd byte at the end is no character.
        assert_eq!(read(&memory(8, 3, "ab"), 8, 100).as_deref(), Some("a"));
    }
}
