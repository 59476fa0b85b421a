//! Tasks that break the ABI: their exports are written by hand.

use wasmpool_guest::{Record, emit_record};

const fn pack(ptr: u32, len: u32) -> u64 {
    ((ptr as u64) << 32) | len as u64
}

fn pack_static(bytes: &'static [u8]) -> u64 {
    pack(bytes.as_ptr() as usize as u32, bytes.len() as u32)
}

emit_record!(Record::raw("bad_pointer", "bad_pointer", "Returns an envelope that lies beyond the memory."));
#[unsafe(no_mangle)]
extern "C" fn bad_pointer(_: u32, _: u32) -> u64 {
    pack(0xffff_0000, 16)
}

emit_record!(Record::raw(
    "bad_length",
    "bad_length",
    "Returns an envelope that begins in the memory and ends far beyond it."
));
#[unsafe(no_mangle)]
extern "C" fn bad_length(_: u32, _: u32) -> u64 {
    static START: [u8; 1] = [0];
    pack(START.as_ptr() as usize as u32, u32::MAX)
}

emit_record!(Record::raw("zero_length", "zero_length", "Returns an envelope without even a status byte."));
#[unsafe(no_mangle)]
extern "C" fn zero_length(_: u32, _: u32) -> u64 {
    0
}

emit_record!(Record::raw("bad_status", "bad_status", "Returns an envelope with the unknown status 77."));
#[unsafe(no_mangle)]
extern "C" fn bad_status(_: u32, _: u32) -> u64 {
    pack_static(&[77, b'?'])
}

emit_record!(Record::typed::<u64, String>(
    "bad_output",
    "bad_output",
    "Returns bytes that are not the promised string: two of them, not UTF-8."
));
#[unsafe(no_mangle)]
extern "C" fn bad_output(_: u32, _: u32) -> u64 {
    pack_static(&[0, 2, 0xff, 0xfe])
}
