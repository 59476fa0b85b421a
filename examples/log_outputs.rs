//! Two outputs, one owner: what guests log goes to a file as text, what the pool itself says to stderr.

use std::fs::File;
use std::sync::Mutex;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

fn main() -> anyhow::Result<()> {
    wasmpool::init();
    let path = std::env::temp_dir().join(format!("wasmpool-guests-{}.log", std::process::id()));
    let guests = Targets::new().with_target("wasmpool::guest", LevelFilter::DEBUG);
    let pools = Targets::new()
        .with_target("wasmpool", LevelFilter::DEBUG)
        .with_target("wasmpool::guest", LevelFilter::OFF);
    let file =
        tracing_subscriber::fmt::layer().with_ansi(false).with_writer(Mutex::new(File::create(&path)?));
    let stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry().with(file.with_filter(guests)).with(stderr.with_filter(pools)).init();

    let pool = wasmpool::Pool::builder().workers(2).log_rate_max(1 << 20).build()?;
    let logs = pool.load_file("prebuilt/echo.wasm")?.task::<u32, u32>("log_lines")?;
    for result in pool.map(&logs, [3, 4]) {
        result?;
    }
    let dropped = pool.stats().log_records_dropped;
    pool.shutdown(wasmpool::pool::ShutdownMode::Finish);
    print!("{}", std::fs::read_to_string(&path)?);
    println!("{dropped} records were dropped");
    Ok(std::fs::remove_file(&path)?)
}
