//! See `targets/description.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wasmpool_fuzz::targets::description::run(data));
