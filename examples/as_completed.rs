//! Results in the order in which they come, from tasks with several arguments.

use std::time::Duration;

use wasmpool::Pool;
use wasmpool::future::{ReturnWhen, as_completed, wait};

fn main() -> anyhow::Result<()> {
    wasmpool::init();
    let pool = Pool::builder().workers(2).build()?;
    let pi = pool.load_file("prebuilt/monte_carlo.wasm")?.task::<(u64, u64), f64>("pi")?;

    let futures: Vec<_> =
        (0..8u64).map(|seed| pool.submit(&pi, &(400_000 >> seed, seed))).collect::<Result<_, _>>()?;
    let first = wait(&futures, Some(Duration::from_secs(10)), ReturnWhen::FirstCompleted);
    println!("{} done, {} to go", first.done.len(), first.not_done.len());
    for future in as_completed(futures) {
        println!("task {}: {:.5}", future.task_id(), future.result()?);
    }
    Ok(())
}
