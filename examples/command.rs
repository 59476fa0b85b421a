//! An unmodified WASI program: argv and stdin in, stdout, stderr and exit code out.

use wasmpool::task::CommandInput;
use wasmpool::{Pool, TaskError};

fn main() -> anyhow::Result<()> {
    wasmpool::init();
    let pool = Pool::builder().workers(2).build()?;
    let csv_stats = pool.load_file("prebuilt/csv_stats.wasm")?.command()?;

    let table = "city,people\nBern,134000\nBasel,178000\nChur,38000\n";
    let output = pool.submit(&csv_stats, &CommandInput::new().stdin(table))?.result()?;
    print!("{}", String::from_utf8_lossy(&output.stdout));

    let wrong = pool.submit(&csv_stats, &CommandInput::new().args(["--column", "rivers"]).stdin(table))?;
    match wrong.failure() {
        Some(failure) => match failure.error() {
            TaskError::Exit { output } => println!("exit code {}, as expected", output.exit_code),
            _ => return Err(failure.into()),
        },
        None => anyhow::bail!("there is no such column"),
    }
    Ok(())
}
