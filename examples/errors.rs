//! A failure of a task is that task's error; the worker goes on.

use std::time::Duration;

use wasmpool::{Pool, TaskError};

fn main() -> anyhow::Result<()> {
    wasmpool::init();
    let pool = Pool::builder().workers(1).build()?;
    let faults = pool.load_file("prebuilt/faults.wasm")?;
    for name in ["unreachable", "stack_overflow", "endless_loop", "memory_bomb", "panic_with_location"] {
        let task = faults.raw_task(name)?;
        let future = pool
            .task(&task)
            .timeout(Duration::from_millis(100))
            .memory_bytes_max(32 << 20)
            .label("the errors example")
            .submit("")?;
        let Some(failure) = future.failure() else { anyhow::bail!("{name} succeeded") };
        let kind = match failure.error() {
            TaskError::Trap { code, .. } => match &failure.report().refusals {
                Some(refusals) if !refusals.is_empty() => {
                    format!("a trap, {code:?}, of a task that was refused memory ({refusals})")
                }
                _ => format!("a trap, {code:?}"),
            },
            TaskError::Panic { location, .. } => format!("a panic at {location}"),
            TaskError::Timeout { limit, .. } => format!("a timeout after {limit:?}"),
            other => anyhow::bail!("{name}: {other}"),
        };
        let message = failure.to_string();
        println!("{name}: {kind}\n    {}", message.lines().next().unwrap_or_default());
    }
    println!("worker pids at the end: {:?}", pool.worker_pids());
    Ok(())
}
