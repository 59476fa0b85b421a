//! The pool works under smol: tasks of its executor, results as they come, and a race against a timer.

use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use smol::Timer;
use smol::future::or;
use wasmpool::Pool;

fn main() -> anyhow::Result<()> {
    wasmpool::init();
    let pool = Pool::builder().workers(2).queue_tasks_max(2).build()?;
    let factors = pool.load_file("prebuilt/init_table.wasm")?.task::<u32, Vec<u32>>("lookup")?;

    smol::block_on(async {
        // One of smol's tasks for each number; the queue holds two, so most wait for room first.
        let mut answers: FuturesUnordered<_> = [1001, 65_537, 99_991, 131_072, 199_999]
            .map(|number| {
                let pool = pool.clone();
                let factors = factors.clone();
                smol::spawn(async move {
                    let accepted = pool.submit_async(&factors, &number).await?;
                    anyhow::Ok((number, accepted.await?))
                })
            })
            .into_iter()
            .collect();
        while let Some(answer) = answers.next().await {
            let (number, factors) = answer?;
            println!("{number} = {factors:?}");
        }

        let future = pool.submit_async(&factors, &1024).await?;
        let patience = async {
            Timer::after(Duration::from_secs(10)).await;
            anyhow::bail!("the timer was first")
        };
        println!("1024 = {:?}", or(async { anyhow::Ok(future.await?) }, patience).await?);
        Ok(())
    })
}
