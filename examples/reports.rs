//! Reports say what a task cost: where the time went, in which worker.

use std::time::Duration;

fn main() -> anyhow::Result<()> {
    wasmpool::init();
    let pool = wasmpool::Pool::builder().workers(2).timeout(Duration::from_secs(5)).build()?;
    let module = pool.load_file("prebuilt/primes.wasm")?;
    let count = module.task::<u64, u64>("count")?;

    let future = pool.submit(&count, &1_000_000)?;
    println!("primes up to 1,000,000: {}", future.result()?);
    if let Some(report) = future.report() {
        println!("it waited {:?}, ran {:?} in worker {:?}", report.queued, report.run, report.worker_pid);
    }

    let upto = (1..=10).map(|n| n * 100_000);
    for (upto, primes) in upto.clone().zip(pool.map(&count, upto)) {
        println!("primes up to {upto:>9}: {:>6}", primes?);
    }
    Ok(())
}
