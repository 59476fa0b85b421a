//! Works for what workers cost beside their tasks: deaths, idleness, the second wall.

use std::time::{Duration, Instant};

use wasmpool::Pool;
use wasmpool::sandbox::SandboxPolicy;

use super::Bench;
use crate::allocations;
use crate::ours::{self, WORKERS, prebuilt};
use crate::peers::Under;
use crate::work::{Goal, MIB, MILLIS, PER_TASK, PERCENT, TASKS, Work, p50, seconds};

pub(super) fn death<'a>(name: &str, bench: &'a Bench) -> anyhow::Result<Work<'a>> {
    const FUTURES: usize = 10_000;
    let work = Work::new(name, "SIGKILL of a worker to the last of 10,000 failures, p99", MILLIS)
        .goal(Goal::Most(5.0))
        .p99()
        .rounds_least(40)
        .ours(|| ours::death(bench.builder(WORKERS), FUTURES));
    Ok(work.python(&bench.peers, Under::Usual, ("executor", "death"), FUTURES, |seconds| seconds))
}

pub(super) fn idle_memory<'a>(name: &str, bench: &'a Bench) -> anyhow::Result<Work<'a>> {
    let pool = ours::warm(bench.builder(WORKERS).build()?)?;
    Ok(Work::new(name, "private memory of an idle worker that has run a task", MIB)
        .goal(Goal::Most(15.0))
        .ours(move || ours::private_mib(&pool))
        .python(&bench.peers, Under::All, ("executor", "memory"), 1, |mib| mib)
        .python(&bench.peers, Under::Usual, ("wasmtime", "memory"), 1, |mib| mib))
}

pub(super) fn idle_cpu<'a>(name: &str, bench: &'a Bench) -> anyhow::Result<Work<'a>> {
    let pool = ours::warm(bench.builder(WORKERS).build()?)?;
    Ok(Work::new(name, "CPU of host and workers while nothing is to do, over 1 s", PERCENT)
        // 0.0 as it would be printed.
        .goal(Goal::Most(0.05))
        .ours(move || {
            let before = ours::cpu_seconds(&pool)?;
            let began = Instant::now();
            std::thread::sleep(Duration::from_secs(1));
            Ok((ours::cpu_seconds(&pool)? - before) / began.elapsed().as_secs_f64() * 100.0)
        }))
}

pub(super) fn sandbox_start<'a>(name: &str, bench: &'a Bench) -> anyhow::Result<Work<'a>> {
    const STARTS: usize = 10;
    let builder = || bench.builder(1);
    let start = |builder| ours::worker_start(builder).map(drop);
    // The events' own times, without the pool around them.
    let middle = move |off: bool| {
        let mut times = Vec::new();
        for _ in 0..STARTS {
            let builder = if off { builder().sandbox(SandboxPolicy::Off) } else { builder() };
            times.push(ours::worker_start(builder)?);
        }
        times.sort_by(f64::total_cmp);
        Ok(times[STARTS / 2])
    };
    start(builder())?;
    Ok(Work::new(name, "a worker's start to its first word", MILLIS)
        .goal(Goal::FloorAndMost(1.0))
        .rounds_least(7)
        .ours(move || middle(false))
        .floor("without the sandbox", move || middle(true)))
}

/// Tasks a second, many on their way.
fn throughput(pool: &Pool) -> anyhow::Result<f64> {
    const COUNT: i64 = 20_000;
    let add = pool.load_file(prebuilt("echo"))?.task::<(i64, i64), i64>("add")?;
    Ok(COUNT as f64 / seconds(|| ours::pipelined(pool, &add, (0..COUNT).map(|n| (n, 1))))?)
}

pub(super) fn sandbox_throughput<'a>(name: &str, bench: &'a Bench) -> anyhow::Result<Work<'a>> {
    let with = ours::warm(bench.builder(WORKERS).build()?)?;
    let without = ours::warm(bench.builder(WORKERS).sandbox(SandboxPolicy::Off).build()?)?;
    Ok(Work::new(name, "tiny tasks, many on their way", TASKS)
        .goal(Goal::FloorLeast(0.99))
        // One in a hundred is less than a round differs from the next.
        .rounds_least(21)
        .ours(move || throughput(&with))
        .floor("without the sandbox", move || throughput(&without)))
}

fn one_at_a_time(pool: &Pool, count: usize) -> anyhow::Result<()> {
    let add = pool.load_file(prebuilt("echo"))?.task::<(i64, i64), i64>("add")?;
    p50(count, || Ok(pool.submit(&add, &(1, 2))?.result().map(drop)?)).map(drop)
}

fn many(pool: &Pool, count: usize) -> anyhow::Result<()> {
    let add = pool.load_file(prebuilt("echo"))?.task::<(i64, i64), i64>("add")?;
    ours::pipelined(pool, &add, (0..count as i64).map(|n| (n, 1)))
}

const COUNTED: usize = 10_000;

pub(super) fn allocations_round_trip<'a>(name: &str, bench: &'a Bench) -> anyhow::Result<Work<'a>> {
    let pool = bench.pool()?;
    Ok(Work::new(name, "allocations of the host, tasks one at a time", PER_TASK)
        .ours(|| Ok(allocations::during(|| one_at_a_time(pool, COUNTED))? / COUNTED as f64)))
}

pub(super) fn allocations_pipelined<'a>(name: &str, bench: &'a Bench) -> anyhow::Result<Work<'a>> {
    let pool = bench.pool()?;
    Ok(Work::new(name, "allocations of the host, many tasks on their way", PER_TASK)
        .ours(|| Ok(allocations::during(|| many(pool, COUNTED))? / COUNTED as f64)))
}

fn sleeps(pool: &Pool, once: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let before = ours::sleeps(pool)?;
    once()?;
    Ok((ours::sleeps(pool)? - before) / COUNTED as f64)
}

pub(super) fn sleeps_round_trip<'a>(name: &str, bench: &'a Bench) -> anyhow::Result<Work<'a>> {
    let pool = bench.pool()?;
    Ok(Work::new(name, "times a thread of the pool went to sleep, tasks one at a time", PER_TASK)
        .ours(|| sleeps(pool, || one_at_a_time(pool, COUNTED))))
}

pub(super) fn sleeps_pipelined<'a>(name: &str, bench: &'a Bench) -> anyhow::Result<Work<'a>> {
    let pool = bench.pool()?;
    Ok(Work::new(name, "times a thread of the pool went to sleep, many on their way", PER_TASK)
        .ours(|| sleeps(pool, || many(pool, COUNTED))))
}
