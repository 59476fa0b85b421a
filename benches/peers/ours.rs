//! The pool under test, as a user would have it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use wasmpool::error::SubmitError;
use wasmpool::future::as_completed;
use wasmpool::module::Callable;
use wasmpool::task::Isolation;
use wasmpool::{Pool, PoolBuilder, TaskFailure, TaskOptions};

/// Both sides have so many.
pub(crate) const WORKERS: usize = 2;

/// The options of a task that asks for an instance that is kept from one to the next.
pub(crate) fn reuse() -> TaskOptions {
    TaskOptions::new().isolation(Isolation::Reuse)
}

pub(crate) use benches::prebuilt;

/// Returns what the bench keeps from one run to the next.
pub(crate) fn kept_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers")
}

pub(crate) fn builder(workers: usize, scan: bool) -> PoolBuilder {
    Pool::builder().workers(workers).cache_dir(kept_dir().join("cache")).pagemap_scan(scan)
}

/// Has every worker answer something.
pub(crate) fn warm(pool: Pool) -> anyhow::Result<Pool> {
    let spin = pool.load_file(prebuilt("echo"))?.task::<u64, u64>("spin")?;
    let deadline = Instant::now() + Duration::from_secs(60);
    let is_warm = || {
        let workers = pool.stats().workers;
        workers.len() == pool.workers_max() && workers.iter().all(|worker| worker.answered > 0)
    };
    while !is_warm() {
        anyhow::ensure!(Instant::now() < deadline, "not every worker answers");
        let futures = submit_all(&pool, &spin, (0..2 * pool.workers_max()).map(|_| 1_000_000))?;
        for future in futures {
            future.result()?;
        }
    }
    Ok(pool)
}

pub(crate) fn submit_all<C: Callable>(
    pool: &Pool,
    task: &C,
    inputs: impl Iterator<Item = C::Input>,
) -> Result<Vec<wasmpool::TaskFuture<C::Output>>, SubmitError>
where
    C::Input: Sized,
{
    inputs.map(|input| pool.submit(task, &input)).collect()
}

/// Submits all, then takes the results as they come.
pub(crate) fn pipelined<C: Callable>(
    pool: &Pool,
    task: &C,
    inputs: impl Iterator<Item = C::Input>,
) -> anyhow::Result<()>
where
    C::Input: Sized,
{
    for future in as_completed(submit_all(pool, task, inputs)?) {
        future.result()?;
    }
    Ok(())
}

/// Measures a worker from its start to its first word.
pub(crate) fn worker_start(builder: PoolBuilder) -> anyhow::Result<f64> {
    use wasmpool::event::EventKind;
    let pool = builder.build()?;
    let events = pool.events();
    pool.prestart(1);
    let mut started = Duration::ZERO;
    for event in events {
        match event.kind {
            EventKind::WorkerStarted { .. } => started = event.at,
            EventKind::WorkerReady { .. } => return Ok(event.at.saturating_sub(started).as_secs_f64()),
            EventKind::WorkerEnded { death, .. } => anyhow::bail!("{death}"),
            _ => {}
        }
    }
    anyhow::bail!("the pool ended before its worker was ready")
}

/// Measures from the SIGKILL of one worker to the failure of the last of so many futures that wait or run.
pub(crate) fn death(builder: PoolBuilder, futures: usize) -> anyhow::Result<f64> {
    let pool = warm(builder.build()?)?;
    let spin = pool.load_file(prebuilt("echo"))?.task::<u64, u64>("spin")?;
    let futures = submit_all(&pool, &spin, (0..futures).map(|_| u64::MAX))?;
    let pid = *pool.worker_pids().first().ok_or_else(|| anyhow::anyhow!("no worker"))?;
    let pid = rustix::process::Pid::from_raw(pid as i32).ok_or_else(|| anyhow::anyhow!("no process"))?;
    let began = Instant::now();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    for future in &futures {
        let failed: Result<u64, TaskFailure> = future.result();
        anyhow::ensure!(failed.is_err(), "an endless task has ended");
    }
    Ok(began.elapsed().as_secs_f64())
}

/// Sums the numbers after each of these words in a file of /proc.
fn sum_in(path: &str, words: &[&str]) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(path).map_err(|error| anyhow::anyhow!("{path}: {error}"))?;
    let number = |line: &str| {
        words.iter().find_map(|word| line.strip_prefix(word)?.split_whitespace().next()?.parse::<f64>().ok())
    };
    Ok(text.lines().filter_map(number).sum())
}

/// Private MiB of the largest worker.
pub(crate) fn private_mib(pool: &Pool) -> anyhow::Result<f64> {
    let mut most: f64 = 0.0;
    for pid in pool.worker_pids() {
        let kib = sum_in(&format!("/proc/{pid}/smaps_rollup"), &["Private_Clean:", "Private_Dirty:"])?;
        most = most.max(kib / 1024.0);
    }
    Ok(most)
}

/// Sums over every thread of the pool's workers and of this process, except the one that asks.
fn of_all_threads(pool: &Pool, one: impl Fn(&str) -> anyhow::Result<f64>) -> anyhow::Result<f64> {
    let own = rustix::thread::gettid().as_raw_nonzero().to_string();
    let mut sum = 0.0;
    for pid in pool.worker_pids().into_iter().chain([std::process::id()]) {
        for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let thread = thread?;
            if thread.file_name().to_str() != Some(&own) {
                sum += one(&thread.path().to_string_lossy())?;
            }
        }
    }
    Ok(sum)
}

/// Seconds on a CPU so far.
pub(crate) fn cpu_seconds(pool: &Pool) -> anyhow::Result<f64> {
    // The scheduler's figure is in nanoseconds, where utime and stime count ticks of 10 ms.
    of_all_threads(pool, |thread| Ok(sum_in(&format!("{thread}/schedstat"), &[""])? / 1e9))
}

/// Returns how often a thread has gone to sleep so far.
pub(crate) fn sleeps(pool: &Pool) -> anyhow::Result<f64> {
    of_all_threads(pool, |thread| sum_in(&format!("{thread}/status"), &["voluntary_ctxt_switches:"]))
}
