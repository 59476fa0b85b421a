//! Keeps every worker in an endless loop and says their pids, until it is killed.

use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    wasmpool::init();
    let pool = wasmpool::Pool::builder().workers(2).build()?;
    let faults = pool.load_file(embedder::FAULTS)?;
    let endless = faults.task::<(), ()>("endless_loop")?;
    let futures = [pool.submit(&endless, &())?, pool.submit(&endless, &())?];
    while !futures.iter().all(wasmpool::TaskFuture::is_running) {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let pids: Vec<_> = pool.worker_pids().iter().map(ToString::to_string).collect();
    println!("{}", pids.join(" "));
    std::io::stdout().flush()?;
    let _ = futures[0].result();
    Err("an endless loop has ended".into())
}
