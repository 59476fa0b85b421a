//! Guests' log records come out of this program's own `tracing` subscriber, attributed.

fn main() -> anyhow::Result<()> {
    wasmpool::init();
    tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).without_time().init();
    let pool = wasmpool::Pool::builder().workers(1).build()?;
    let logs = pool.load_file("prebuilt/echo.wasm")?.task::<u32, u32>("log_lines")?;
    let logs = pool.task(&logs).label("the logging example");
    println!("{} records were logged", logs.submit(&2)?.result()?);
    Ok(())
}
