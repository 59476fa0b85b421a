//! Untyped tasks: bytes in, bytes out. A Rust guest compresses, a C guest counts.

use wasmpool::Pool;

fn main() -> anyhow::Result<()> {
    wasmpool::init();
    let pool = Pool::builder().workers(2).build()?;

    let compress = pool.load_file("prebuilt/compress.wasm")?;
    let deflate = compress.raw_task("deflate")?;
    let inflate = compress.raw_task("inflate")?;
    let text = include_bytes!("../Cargo.lock");
    let packed = pool.submit_bytes(&deflate, &text[..])?.result()?;
    let unpacked = pool.submit_bytes(&inflate, packed.clone())?.result()?;
    println!("{} bytes, packed {}, unpacked {}", text.len(), packed.len(), unpacked.len());
    anyhow::ensure!(unpacked == text[..], "compression lost something");

    let histogram = pool.load_file("prebuilt/c_histogram.wasm")?.raw_task("histogram")?;
    let counts = pool.submit_bytes(&histogram, &text[..])?.result()?;
    let (byte, count) = counts
        .chunks_exact(8)
        .map(|count| count.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)))
        .enumerate()
        .max_by_key(|(_, count)| *count)
        .unwrap_or_default();
    println!("the most frequent byte is {:?}, {count} times", byte as u8 as char);
    Ok(())
}
