//! The envelope that a task returned: any memory, any packed value, any limit.

use proto::guest::abi::read_envelope;
use proto::guest::own_error::too_long;
use proto::limits::{FRAME_PAYLOAD_BYTES_MAX, GUEST_TEXT_BYTES_MAX};
use proto::message::RunEnd;
use wasmpool::fuzzing::Input;

use crate::bounded::within;

/// The input: the memory's size, the packed value, the limit, the memory's first bytes (they are repeated).
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    // Small ones are quick; one of two pages and a bit is longer than a text may be.
    let most = if input.byte() % 8 == 0 { 2 * 65_536 + 100 } else { 256 };
    let size = input.u32() as usize % most;
    let (pointer, len) = match input.byte() % 4 {
        0 => (input.u32(), input.u32()),
        // These sizes matter: they are about the memory's end, and inside of it.
        1 => (size as u32, u32::from(input.byte())),
        2 => {
            let before = input.u32() % (size as u32 + 1);
            (size as u32 - before, before.wrapping_add_signed(i32::from(input.byte() as i8) % 3))
        }
        _ => (input.u32() % (size as u32 + 1), input.u32() % (size as u32 + 2)),
    };
    let output_bytes_max = match input.byte() % 3 {
        0 => input.u64(),
        1 => u64::from(input.u16()),
        _ => u64::from(len).wrapping_add_signed(i64::from(input.byte() as i8) % 4),
    };
    let mut memory = input.0.repeat(size.div_ceil(input.0.len().max(1)));
    memory.truncate(size);

    let packed = (u64::from(pointer) << 32 | u64::from(len)) as i64;
    // Nothing is copied: it says where the payload is.
    let (end, payload) = within(1024, || read_envelope(&memory, packed, output_bytes_max));
    let payload = memory.get(payload).expect("it is inside of the memory");
    let wanted = wanted(&memory, pointer, len, output_bytes_max);
    assert_eq!((&end, payload), (&wanted.0, wanted.1));

    // An honest worker's answer is never over what the host reads (`Link::order`).
    let limit = output_bytes_max.min(FRAME_PAYLOAD_BYTES_MAX / 2);
    if output_bytes_max == limit {
        let host_max = limit.saturating_mul(2).clamp(GUEST_TEXT_BYTES_MAX as u64, FRAME_PAYLOAD_BYTES_MAX);
        assert!(payload.len() as u64 <= host_max);
    }
}

/// The same, said another way: in 128 bits, byte by byte.
fn wanted(memory: &[u8], pointer: u32, len: u32, output_bytes_max: u64) -> (RunEnd, &[u8]) {
    if i128::from(pointer) + i128::from(len) > memory.len() as i128 {
        return (RunEnd::BadPointer { pointer, len, memory_bytes: memory.len() as u64 }, &[]);
    }
    let envelope = memory.get(pointer as usize..).and_then(|from| from.get(..len as usize));
    let text = |bytes: &'static str| RunEnd::Abi { message: bytes.into() };
    match envelope.expect("it is inside") {
        [] => (text("the envelope is empty: it has no status byte"), &[]),
        [0, output @ ..] if output.len() as u64 > output_bytes_max => {
            (RunEnd::OutputTooLarge { bytes: output.len() as u64 }, &[])
        }
        [0, output @ ..] => (RunEnd::Ok, output),
        [status @ (1 | 2), message @ ..] => {
            let kept = message.get(..GUEST_TEXT_BYTES_MAX).unwrap_or(message);
            (if *status == 1 { RunEnd::Guest } else { RunEnd::InputDecode }, kept)
        }
        [3, parts @ ..] if parts.len() > GUEST_TEXT_BYTES_MAX => {
            (RunEnd::Abi { message: too_long(parts.len()) }, &[])
        }
        [3, parts @ ..] => (RunEnd::GuestParts, parts),
        [status, ..] => {
            let message = format!("the envelope has an unknown status byte {status}; 0 to 3 are defined");
            (RunEnd::Abi { message }, &[])
        }
    }
}

/// Each way to choose pointer and limit, with each status.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for status in 0..5u8 {
        for choice in 0..4u8 {
            let mut seed = vec![choice, 100, 0, status & 1, 0, choice];
            seed.extend([1, 0, 0, 0, 5, 0, 0, 0, choice, 3, 0, status, status, 0, 1, 2]);
            seeds.push(seed);
        }
    }
    seeds
}
