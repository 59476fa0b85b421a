//! See `targets/host_frames.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wasmpool_fuzz::targets::host_frames::run(data));
