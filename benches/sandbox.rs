//! Measures what the second wall costs: a worker's start and a task, with it and without, in one run.
//!
//! `cargo bench --bench sandbox`. Rounds alternate between the settings, so that whatever else
//! the machine does falls on all of them alike; the figures are medians.

use std::time::{Duration, Instant};

use wasmpool::event::EventKind;
use wasmpool::module::RawTask;
use wasmpool::sandbox::{SandboxLayer, SandboxPolicy};
use wasmpool::{Pool, PoolBuilder};

const STARTS: usize = 60;
const TASKS: usize = 4_000;

struct Setting {
    name: String,
    build: Box<dyn Fn(PoolBuilder) -> PoolBuilder>,
    starts: Vec<Duration>,
    tasks: Vec<Duration>,
}

fn setting(name: impl Into<String>, build: impl Fn(PoolBuilder) -> PoolBuilder + 'static) -> Setting {
    Setting { name: name.into(), build: Box::new(build), starts: Vec::new(), tasks: Vec::new() }
}

fn main() -> anyhow::Result<()> {
    wasmpool::init();
    let mut settings = vec![
        setting("off", |builder| builder.sandbox(SandboxPolicy::Off)),
        setting("best-effort (default)", |builder| builder),
    ];
    for layer in SandboxLayer::ALL {
        if !matches!(layer, SandboxLayer::Cgroup | SandboxLayer::Session | SandboxLayer::Descriptors) {
            settings
                .push(setting(format!("  without {layer}"), move |builder| builder.sandbox_without(layer)));
        }
    }
    // The cache is filled before anything is measured.
    echo(&Pool::builder().workers(1).build()?)?;
    for _ in 0..STARTS {
        for setting in &mut settings {
            setting.starts.push(start(&setting.build)?);
        }
    }
    for setting in settings.iter_mut().take(2) {
        tasks(setting, 200)?;
        setting.tasks.clear();
    }
    for _ in 0..TASKS / 400 {
        for setting in settings.iter_mut().take(2) {
            tasks(setting, 400)?;
        }
    }
    let start = median(&mut settings[0].starts);
    let task = median(&mut settings[0].tasks);
    println!("{:<28} {:>12} {:>7} {:>10} {:>7}", "sandbox", "start", "ratio", "task", "ratio");
    for setting in &mut settings {
        let started = median(&mut setting.starts);
        print!("{:<28} {:>9.2} ms {:>7.2}", setting.name, millis(started), ratio(started, start));
        if setting.tasks.is_empty() {
            println!();
        } else {
            let ran = median(&mut setting.tasks);
            println!(" {:>7.1} µs {:>7.2}", millis(ran) * 1000.0, ratio(ran, task));
        }
    }
    println!("\nmedians of {STARTS} starts (spawn to the first word) and {TASKS} tasks, one at a time");
    Ok(())
}

/// Measures a worker from the process's beginning to its first word.
fn start(build: &dyn Fn(PoolBuilder) -> PoolBuilder) -> anyhow::Result<Duration> {
    let pool = build(Pool::builder().workers(1)).build()?;
    let events = pool.events();
    pool.prestart(1);
    let mut started = None;
    for event in events {
        match event.kind {
            EventKind::WorkerStarted { .. } => started = Some(event.at),
            EventKind::WorkerReady { .. } => {
                return Ok(event.at.saturating_sub(started.unwrap_or_default()));
            }
            EventKind::WorkerEnded { death, .. } => anyhow::bail!("{death}"),
            _ => {}
        }
    }
    anyhow::bail!("the pool ended before its worker was ready")
}

fn tasks(setting: &mut Setting, count: usize) -> anyhow::Result<()> {
    let pool = (setting.build)(Pool::builder().workers(1)).build()?;
    let echo = echo(&pool)?;
    pool.submit(&echo, "warm")?.result()?;
    for _ in 0..count {
        let began = Instant::now();
        pool.submit(&echo, "x")?.result()?;
        setting.tasks.push(began.elapsed());
    }
    Ok(())
}

fn echo(pool: &Pool) -> anyhow::Result<RawTask> {
    Ok(pool.load_file(benches::prebuilt("echo"))?.raw_task("echo")?)
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn ratio(time: Duration, base: Duration) -> f64 {
    time.as_secs_f64() / base.as_secs_f64()
}
