//! The README's program, word for word.

use std::time::Duration;

fn main() -> anyhow::Result<()> {
    wasmpool::init();
    let pool = wasmpool::Pool::builder().workers(4).timeout(Duration::from_secs(5)).build()?;
    let module = pool.load_file("prebuilt/primes.wasm")?;
    let count = module.task::<u64, u64>("count")?;

    let future = pool.submit(&count, &1_000_000)?;
    println!("{}", future.result()?);

    for primes in pool.map(&count, 1..=100u64) {
        println!("{}", primes?);
    }
    Ok(())
}
