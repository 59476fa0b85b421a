//! Tasks that take more time, memory, table, output or log than is theirs.

use std::arch::asm;
use std::hint::black_box;

/// Computes for ever.
#[wasmpool_guest::task]
fn endless_loop() {
    let mut n = 0_u64;
    loop {
        n = black_box(n.wrapping_add(1));
    }
}

/// Allocates and touches memory until there is none, then aborts.
#[wasmpool_guest::task]
fn memory_bomb() {
    let mut hoard: Vec<Vec<u8>> = Vec::new();
    loop {
        hoard.push(black_box(vec![1; 1 << 20]));
    }
}

/// Asks for memory once, and says whether it was refused.
#[wasmpool_guest::task]
fn memory_grow_polite(pages: u64) -> Result<(), String> {
    let pages = usize::try_from(pages).unwrap_or(usize::MAX);
    if core::arch::wasm32::memory_grow(0, pages) == usize::MAX {
        return Err("memory.grow refused".into());
    }
    Ok(())
}

/// Grows the table of functions until that is refused, then traps.
#[wasmpool_guest::task]
fn table_bomb() {
    loop {
        let before: i32;
        // SAFETY: entries are added at the end; those in use stay.
        unsafe {
            asm!(
                ".tabletype __indirect_function_table, funcref",
                "ref.null_func",
                "i32.const 4096",
                "table.grow __indirect_function_table",
                "local.set {}",
                out(local) before,
            );
        }
        if before == -1 {
            core::arch::wasm32::unreachable();
        }
    }
}

/// Returns as many bytes.
#[wasmpool_guest::task]
fn huge_output(bytes: u64) -> Vec<u8> {
    vec![b'x'; usize::try_from(bytes).unwrap_or(usize::MAX)]
}

/// Logs as many records.
#[wasmpool_guest::task]
fn log_flood(records: u64) {
    for n in 0..records {
        log::info!("record {n} of {records}");
    }
}
