//! Calls `wasmpool::init()` first, as it should.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    wasmpool::init();
    let pool = wasmpool::Pool::builder().workers(1).build()?;
    println!("{}", embedder::count_primes(&pool, 1000)?);
    Ok(())
}
