//! Measures what the start of a worker costs, by the program that it is started from: the program that has the pool in
//! it (here this bench), the command, and `wasmpool-worker`, in alternating rounds of one run.
//!
//! `cargo build --release --workspace`, then `cargo bench --bench starts -- [PROGRAM...]`: others of the same build, to be
//! compared. Each program is copied first, as it is when it is installed: the linker writes a file page by page, and the
//! kernel keeps it so, which makes each of its pages a little dearer to map. The figures are medians, and between
//! them lies the middle half. Page faults are those of the worker until its first word, read from /proc; the sizes are
//! the file's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use wasmpool::Pool;
use wasmpool::event::EventKind;

const STARTS: usize = 60;

/// A program, and what its starts cost.
struct Program {
    name: String,
    /// `None` is this very executable.
    path: Option<PathBuf>,
    starts: Vec<Duration>,
    faults: Vec<u64>,
}

fn main() -> anyhow::Result<()> {
    wasmpool::init();
    // `cargo test --benches` runs this too, without that argument: it only has to start.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let mut programs = vec![program("this bench", None)];
    let installed = tempfile::tempdir()?;
    for (name, path) in [("wasmpool", benches::command()), ("wasmpool-worker", benches::worker())] {
        match path {
            Some(path) => programs.push(program(name, Some(copied(&path, &installed.path().join(name))?))),
            None => println!("{name} is not built: cargo build --release --workspace"),
        }
    }
    for (number, other) in std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).enumerate()
    {
        let copy = copied(Path::new(&other), &installed.path().join(format!("other-{number}")))?;
        programs.push(program(&other, Some(copy)));
    }
    for _ in 0..STARTS {
        for program in &mut programs {
            let (start, faults) = start(program.path.as_deref())?;
            program.starts.push(start);
            program.faults.push(faults);
        }
    }
    println!(
        "{:<18} {:>10} {:>14} {:>8} {:>12} {:>12}",
        "program", "start", "middle half", "ratio", "page faults", "file"
    );
    let mut first = None;
    for program in &mut programs {
        program.starts.sort_unstable();
        program.faults.sort_unstable();
        let [low, start, high] =
            [1, 2, 3].map(|quarter| program.starts[STARTS * quarter / 4].as_secs_f64() * 1e3);
        let ratio = start / *first.get_or_insert(start);
        let file = program.path.clone().map_or_else(std::env::current_exe, Ok)?;
        let mebibytes = std::fs::metadata(file)?.len() >> 20;
        let faults = program.faults[STARTS / 2];
        println!(
            "{:<18} {start:>7.2} ms {low:>7.2} - {high:<4.2} {ratio:>8.2} {faults:>12} {mebibytes:>8} MiB",
            program.name
        );
    }
    Ok(())
}

fn program(name: &str, path: Option<PathBuf>) -> Program {
    Program { name: name.to_string(), path, starts: Vec::new(), faults: Vec::new() }
}

fn copied(program: &Path, copy: &Path) -> anyhow::Result<PathBuf> {
    std::fs::copy(program, copy)?;
    Ok(copy.to_path_buf())
}

/// Starts one worker, and returns how long it took from the process's beginning to its first word, and its page faults
/// until then.
fn start(program: Option<&Path>) -> anyhow::Result<(Duration, u64)> {
    let mut builder = Pool::builder().workers(1).without_cache();
    if let Some(path) = program {
        builder = builder.worker_program(path);
    }
    let pool = builder.build()?;
    let events = pool.events();
    pool.prestart(1);
    let mut started = Duration::ZERO;
    for event in events {
        match event.kind {
            EventKind::WorkerStarted { .. } => started = event.at,
            EventKind::WorkerReady { pid, .. } => return Ok((event.at - started, page_faults(pid))),
            EventKind::WorkerEnded { death, .. } => anyhow::bail!("{death}"),
            _ => {}
        }
    }
    anyhow::bail!("the pool ended before its worker was ready")
}

/// Returns the page faults of a process that needed no disk, by /proc/PID/stat.
fn page_faults(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name of the program may have spaces, so the fields are counted from behind it.
    let fields = text.rsplit(") ").next().unwrap_or_default();
    fields.split(' ').nth(7).and_then(|faults| faults.parse().ok()).unwrap_or_default()
}
