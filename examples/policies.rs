//! This pool has what Python's has not: replacement, recycling, labels, priorities, retries, numbers.

use std::time::Duration;

use wasmpool::Pool;
use wasmpool::pool::OnWorkerDeath;
use wasmpool::task::Retry;

fn main() -> anyhow::Result<()> {
    wasmpool::init();
    let pool = Pool::builder()
        .workers(8)
        .workers_min(1)
        .idle_timeout(Duration::from_secs(30))
        .on_worker_death(OnWorkerDeath::replace()) // a death costs its task, not the pool
        .recycle_after_tasks(10_000)
        .queue_tasks_max(1_000)
        .build()?;
    let primes = pool.load_file("prebuilt/primes.wasm")?;
    let count = primes.task::<u64, u64>("count")?;
    let future = pool
        .task(&count)
        .label("invoice 4711")
        .timeout(Duration::from_secs(2))
        .priority(5)
        .retry(Retry::attempts(3)) // it may run more than once
        .submit(&1_000_000)?;
    println!("{} after {:?}", future.result()?, future.report().unwrap_or_default().run);
    println!("{:?}", pool.stats().ended);
    Ok(())
}
