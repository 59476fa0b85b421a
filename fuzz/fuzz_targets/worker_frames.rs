//! See `targets/worker_frames.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wasmpool_fuzz::targets::worker_frames::run(data));
