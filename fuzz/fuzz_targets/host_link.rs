//! See `targets/host_link.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wasmpool_fuzz::targets::host_link::run(data));
