//! The byte ABI's envelope: a packed pointer and length, a status byte, a payload.
//!
//! Everything here comes from the guest, and is checked against its current memory in 64
//! bits before a byte is copied; the limit is checked before the copy.

use std::ops::Range;

use super::own_error;
use crate::limits::GUEST_TEXT_BYTES_MAX;
use crate::message::RunEnd;

/// Reads the envelope that a task returned, and says where in the memory its payload is. `memory` is
/// the guest's memory as it is now.
pub fn read_envelope(memory: &[u8], packed: i64, output_bytes_max: u64) -> (RunEnd, Range<usize>) {
    let pointer = (packed as u64 >> 32) as u32;
    let len = packed as u32;
    let end = pointer as u64 + len as u64;
    if end > memory.len() as u64 {
        return (RunEnd::BadPointer { pointer, len, memory_bytes: memory.len() as u64 }, 0..0);
    }
    let envelope = &memory[pointer as usize..end as usize];
    let Some((&status, payload)) = envelope.split_first() else {
        return (RunEnd::Abi { message: "the envelope is empty: it has no status byte".into() }, 0..0);
    };
    let start = pointer as usize + 1;
    let whole = start..end as usize;
    let text = start..start + payload.len().min(GUEST_TEXT_BYTES_MAX);
    match status {
        0 if payload.len() as u64 > output_bytes_max => {
            (RunEnd::OutputTooLarge { bytes: payload.len() as u64 }, 0..0)
        }
        0 => (RunEnd::Ok, whole),
        1 => (RunEnd::Guest, text),
        2 => (RunEnd::InputDecode, text),
        3 if payload.len() > GUEST_TEXT_BYTES_MAX => {
            (RunEnd::Abi { message: own_error::too_long(payload.len()) }, 0..0)
        }
        3 => (RunEnd::GuestParts, whole),
        other => {
            let message = format!("the envelope has an unknown status byte {other}; 0 to 3 are defined");
            (RunEnd::Abi { message }, 0..0)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pack(pointer: u32, len: u32) -> i64 {
        ((pointer as u64) << 32 | len as u64) as i64
    }

    proptest! {
        #[test]
        fn no_packed_value_reads_outside_of_memory(packed: i64, memory in prop::collection::vec(any::<u8>(), 0..64)) {
            let (end, payload) = read_envelope(&memory, packed, 1 << 20);
            prop_assert!(payload.end <= memory.len() && payload.len() < memory.len().max(1));
            if (packed as u64 >> 32) + (packed as u64 & 0xffff_ffff) > memory.len() as u64 {
                let is_bad_pointer = matches!(end, RunEnd::BadPointer { .. });
                prop_assert!(is_bad_pointer);
            }
        }
    }

    #[test]
    fn the_limit_is_checked_before_the_copy() {
        let memory = [0, 1, 2, 3];
        assert_eq!(read_envelope(&memory, pack(0, 4), 3), (RunEnd::Ok, 1..4));
        assert_eq!(read_envelope(&memory, pack(0, 4), 2), (RunEnd::OutputTooLarge { bytes: 3 }, 0..0));
    }

    #[test]
    fn wrapping_and_empty_envelopes_are_errors() {
        assert!(matches!(read_envelope(&[0; 8], pack(u32::MAX, u32::MAX), 9).0, RunEnd::BadPointer { .. }));
        assert!(matches!(read_envelope(&[0; 8], pack(8, 1), 9).0, RunEnd::BadPointer { .. }));
        assert!(matches!(read_envelope(&[0; 8], pack(8, 0), 9).0, RunEnd::Abi { .. }));
    }
}
