//! The pool works under tokio: submitters that wait for room without a thread each, a timeout around a
//! future, and the first of two. The pool wakes tokio's tasks, and has no runtime of its own.

use std::time::Duration;

use futures::future::{Either, select};
use wasmpool::module::RawTask;
use wasmpool::{Bytes, Pool, Task};

fn main() -> anyhow::Result<()> {
    wasmpool::init();
    // Calls that block stand outside of the runtime: building, loading, and the drop at the end.
    let pool = Pool::builder().workers(2).queue_tasks_max(4).build()?;
    let pi = pool.load_file("prebuilt/monte_carlo.wasm")?.task::<(u64, u64), f64>("pi")?;
    let endless = pool.load_file("prebuilt/faults.wasm")?.raw_task("endless_loop")?;

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build()?;
    runtime.block_on(async {
        println!("pi is about {:.5}", average(&pool, &pi, 100).await?);
        out_of_time(&pool, &endless).await?;
        first_of_two(&pool, &pi, &endless).await
    })
}

/// A hundred of tokio's tasks, of which the pool takes four at a time.
async fn average(pool: &Pool, pi: &Task<(u64, u64), f64>, parts: u64) -> anyhow::Result<f64> {
    let parts: Vec<_> = (0..parts)
        .map(|seed| {
            let pool = pool.clone();
            let pi = pi.clone();
            tokio::spawn(async move {
                let accepted = pool.submit_async(&pi, &(10_000, seed)).await?;
                anyhow::Ok(accepted.await?)
            })
        })
        .collect();
    let mut sum = 0.0;
    let count = parts.len() as f64;
    for part in parts {
        sum += part.await??;
    }
    Ok(sum / count)
}

/// A timeout of tokio's ends the waiting, not the task: that is stopped by hand.
async fn out_of_time(pool: &Pool, endless: &RawTask) -> anyhow::Result<()> {
    let mut future = pool.submit_async(endless, &Bytes::new()).await?;
    let waited = tokio::time::timeout(Duration::from_millis(100), &mut future).await;
    anyhow::ensure!(waited.is_err() && !future.is_done(), "an endless loop has ended");
    future.abort();
    match future.await {
        Err(failure) => println!("{failure}"),
        Ok(_) => anyhow::bail!("an endless loop has succeeded"),
    }
    Ok(())
}

/// The other one is stopped.
async fn first_of_two(pool: &Pool, pi: &Task<(u64, u64), f64>, endless: &RawTask) -> anyhow::Result<()> {
    let slow = pool.submit_async(endless, &Bytes::new()).await?;
    let fast = pool.submit_async(pi, &(10_000, 7)).await?;
    match select(fast, slow).await {
        Either::Left((result, slow)) => {
            println!("the first of two: {:.5}", result?);
            slow.abort();
        }
        Either::Right(_) => anyhow::bail!("an endless loop was first"),
    }
    Ok(())
}
