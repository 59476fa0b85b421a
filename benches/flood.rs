//! Measures what a guest that floods the log costs the others: `cargo bench --bench flood`.
//!
//! One worker runs a task that logs a gigabyte (`WASMPOOL_FLOOD_BYTES`), or one that only computes; beside
//! it another runs short tasks. Their throughput, the host's memory and what was dropped, in
//! interleaved rounds.

use std::time::{Duration, Instant};

use wasmpool::{Pool, Task, TaskOptions};

const ROUNDS: usize = 3;
const FLOOD_BYTES: u64 = 1 << 30;

/// A round of computing, in place of a flood.
const WINDOW: Duration = Duration::from_secs(5);

fn main() -> anyhow::Result<()> {
    wasmpool::init();
    tracing_subscriber::fmt().with_writer(std::io::sink).init();
    let bytes = match std::env::var("WASMPOOL_FLOOD_BYTES") {
        Ok(bytes) => bytes.parse()?,
        Err(_) => FLOOD_BYTES,
    };
    let pool = Pool::builder().workers(2).build()?;
    let flood = pool.load_file(benches::prebuilt("faults"))?.task::<u64, ()>("stdout_flood")?;
    let spin = pool.load_file(benches::prebuilt("echo"))?.task::<u64, u64>("spin")?;
    let count = pool.load_file(benches::prebuilt("primes"))?.task::<u64, u64>("count")?;
    println!("{:>10}  {:>10}  {:>12}  {:>10}  {:>10}", "beside", "seconds", "tasks/s", "RSS MiB", "dropped");
    let mut calm = Vec::new();
    let mut flooded = Vec::new();
    for _ in 0..ROUNDS {
        let computing = pool.submit(&spin, &u64::MAX)?;
        let (rate, took) = throughput(&pool, &count, |began| began.elapsed() >= WINDOW)?;
        computing.abort();
        let _ = computing.result();
        row("computing", took, rate, 0);
        calm.push(rate);

        let before = pool.stats().log_records_dropped;
        let flooding = pool.submit_with(&flood, &bytes, TaskOptions::new().log_bytes_max(usize::MAX))?;
        let (rate, took) = throughput(&pool, &count, |_| flooding.is_done())?;
        flooding.result()?;
        row("a flood", took, rate, pool.stats().log_records_dropped - before);
        flooded.push(rate);
    }
    let ratio = median(&mut flooded) / median(&mut calm);
    println!("\nbeside a flood of {bytes} bytes: {:.1} % of the throughput", 100.0 * ratio);
    Ok(())
}

/// Short tasks a second, one worker busy with them all the time.
fn throughput(
    pool: &Pool,
    count: &Task<u64, u64>,
    is_over: impl Fn(Instant) -> bool,
) -> anyhow::Result<(f64, Duration)> {
    let began = Instant::now();
    let mut open = std::collections::VecDeque::new();
    let mut answered = 0_u64;
    while !is_over(began) {
        while open.len() < 8 {
            open.push_back(pool.submit(count, &20_000)?);
        }
        if let Some(future) = open.pop_front() {
            future.result()?;
            answered += 1;
        }
    }
    let took = began.elapsed();
    for future in open {
        future.result()?;
    }
    Ok((answered as f64 / took.as_secs_f64(), took))
}

fn row(beside: &str, took: Duration, rate: f64, dropped: u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = resident.and_then(|kib| kib.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or_default();
    println!(
        "{beside:>10}  {:>10.1}  {rate:>12.0}  {:>10.1}  {dropped:>10}",
        took.as_secs_f64(),
        kib / 1024.0
    );
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
