//! Measures what bombs cost everybody else: `cargo bench --bench bombs`.
//!
//! Tasks of the same pool and of another, with and without bombs in the compiler, in interleaved
//! rounds; how far past its limits each bomb gets; and how fast a module's shape is read.
//!
//! `cargo bench --bench bombs -- cpython.wasm go.wasm` measures before that how long each of these modules takes to
//! compile: on a quiet machine, beside processes that compute, and in a pool whose own workers do.

#[path = "../tests/support/bombs.rs"]
mod bombs;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wasmpool::error::ModuleError;
use wasmpool::limits::{CompileLimit, CompileLimits};
use wasmpool::module::ModuleOptions;
use wasmpool::{Pool, PoolBuilder, Task};

const ROUNDS: usize = 5;
const WINDOW: Duration = Duration::from_secs(3);
const MIB: u64 = 1 << 20;

/// This many tasks wait for each worker. With four of the short ones, workers were idle for a tenth of the time beside
/// bombs, because the one thread that submits them had to wait for its turn.
const WAITING: usize = 64;

/// Counting these few numbers takes about 36 µs, and a worker would be idle if its next task came later than
/// that.
const SHORT: u64 = 20_000;

/// Counting these takes about 250 µs.
const LONG: u64 = 300_000;

fn main() -> anyhow::Result<()> {
    wasmpool::init();
    let modules: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if !modules.is_empty() {
        compiles(&modules)?;
    }
    throughput()?;
    limits()?;
    shape()?;
    Ok(())
}

fn pool() -> PoolBuilder {
    Pool::builder().without_cache()
}

/// One computing process for each CPU: all in one session, or each in its own, which matters where the kernel
/// groups by sessions.
struct Loops(Vec<std::process::Child>);

impl Loops {
    fn new(own_sessions: bool) -> anyhow::Result<Loops> {
        let program = if own_sessions { "setsid" } else { "env" };
        let cpus = std::thread::available_parallelism()?.get();
        let busy = || std::process::Command::new(program).args(["sh", "-c", "while :; do :; done"]).spawn();
        Ok(Loops((0..cpus).map(|_| busy()).collect::<Result<_, _>>()?))
    }
}

impl Drop for Loops {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn compiles(modules: &[String]) -> anyhow::Result<()> {
    println!("compiling, as many processes as CPUs beside it; how many times as long as on a quiet machine");
    println!(
        "| module | MB | quiet | beside busy loops | loops in sessions of their own | own workers compute |"
    );
    println!("|---|---|---|---|---|---|");
    for path in modules {
        let wasm = std::fs::read(path)?;
        let load = |pool: &Pool| -> anyhow::Result<Duration> {
            let began = Instant::now();
            pool.load(&wasm)?;
            Ok(began.elapsed())
        };
        let quiet = load(&pool().build()?)?;
        let shown = |took: Duration| format!("{took:.1?}, {:.1} ×", took.as_secs_f64() / quiet.as_secs_f64());
        let beside = |own_sessions| -> anyhow::Result<Duration> {
            let _loops = Loops::new(own_sessions)?;
            load(&pool().build()?)
        };
        let one_session = beside(false)?;
        let own_sessions = beside(true)?;
        let in_busy_pool = {
            let pool = pool().build()?;
            let count = pool.load_file(benches::prebuilt("primes"))?.task::<u64, u64>("count")?;
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| -> anyhow::Result<Duration> {
                let keep_busy = || -> anyhow::Result<()> {
                    while !stop.load(Ordering::Relaxed) {
                        pool.submit(&count, &300_000)?.result()?;
                    }
                    Ok(())
                };
                let tasks: Vec<_> = (0..pool.workers_max()).map(|_| scope.spawn(keep_busy)).collect();
                std::thread::sleep(Duration::from_millis(500));
                let took = load(&pool);
                stop.store(true, Ordering::Relaxed);
                for task in tasks {
                    task.join().map_err(|_| anyhow::anyhow!("a caller panicked"))??;
                }
                took
            })?
        };
        println!(
            "| {} | {:.1} | {quiet:.1?} | {} | {} | {} |",
            path.rsplit('/').next().unwrap_or(path),
            wasm.len() as f64 / 1e6,
            shown(one_session),
            shown(own_sessions),
            shown(in_busy_pool),
        );
    }
    println!();
    Ok(())
}

/// Tasks answered in [`WINDOW`], with every worker busy all the time: each counts the primes below `below`.
fn tasks(pool: &Pool, count: &Task<u64, u64>, below: u64) -> anyhow::Result<u64> {
    let began = Instant::now();
    let mut open = std::collections::VecDeque::new();
    let mut answered = 0;
    while began.elapsed() < WINDOW {
        while open.len() < pool.workers_max() * WAITING {
            open.push_back(pool.submit(count, &below)?);
        }
        if let Some(future) = open.pop_front() {
            future.result()?;
            answered += 1;
        }
    }
    for future in open {
        future.result()?;
    }
    Ok(answered)
}

fn throughput() -> anyhow::Result<()> {
    let limits = CompileLimits::trusted().cpu_time(Duration::from_secs(3));
    let ours = pool().compile_limits(limits.clone()).build()?;
    let other = pool().compile_limits(limits).build()?;
    let own = ModuleOptions::new().compile_limits(CompileLimits::new());
    let module = ours.load_file_with(benches::prebuilt("primes"), own)?;
    let count = module.task::<u64, u64>("count")?;
    tasks(&ours, &count, SHORT)?;
    let depth = AtomicU32::new(80_000);
    println!("tasks answered in {WINDOW:?} by {} workers, {ROUNDS} rounds", ours.workers_max());
    for (bombed, name, below) in [
        (&ours, "the same pool, tasks of 36 µs", SHORT),
        (&ours, "the same pool, tasks of 250 µs", LONG),
        (&other, "another pool, tasks of 36 µs", SHORT),
    ] {
        let mut ratios = Vec::new();
        for _ in 0..ROUNDS {
            let alone = tasks(&ours, &count, below)?;
            let stop = AtomicBool::new(false);
            let stopped = AtomicU64::new(0);
            let beside = std::thread::scope(|scope| {
                // One more than may run at a time: there is always one.
                for _ in 0..3 {
                    scope.spawn(|| {
                        while !stop.load(Ordering::Relaxed) {
                            // Another each time, or it would be in quarantine. Many functions: every thread is busy.
                            let next = depth.fetch_add(1, Ordering::Relaxed);
                            let refused = if next.is_multiple_of(2) {
                                bombed.load(&bombs::nested_loops(next))
                            } else {
                                bombed.load(&bombs::trivial_functions(next * 2))
                            };
                            assert!(refused.is_err());
                            stopped.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
                let beside = tasks(&ours, &count, below);
                stop.store(true, Ordering::Relaxed);
                beside
            })?;
            println!("  alone {alone}, with bombs in {name} {beside} ({} bombs ended)", stopped.into_inner());
            ratios.push(beside as f64 / alone as f64);
        }
        ratios.sort_by(f64::total_cmp);
        println!("bombs in {name}: {:.0} % of the throughput (median)", ratios[ROUNDS / 2] * 100.0);
    }
    Ok(())
}

fn limits() -> anyhow::Result<()> {
    let timeout = Duration::from_secs(2);
    println!("\nwithout bounds on the shape, {timeout:?} and 512 MiB:");
    let all: [(&str, Vec<u8>); 7] = [
        ("80,000 loops in loops", bombs::nested_loops(80_000)),
        ("br_tables 1500 x 1500", bombs::br_tables(1500, 1500)),
        ("80,000 joins", bombs::joins(80_000, 1)),
        ("20,000 joins of 4,000 locals", bombs::joins_in_a_loop(20_000, 4000)),
        ("200,000 functions", bombs::trivial_functions(200_000)),
        ("one function of 7 MB", bombs::straight_line(6_000_000)),
        ("1,000 blocks of 1,000 values", bombs::wide_blocks(1000, 1000)),
    ];
    for (name, wasm) in all {
        let limits = CompileLimits::trusted().cpu_time(timeout).memory_bytes_max(512 * MIB);
        let pool = pool().workers(1).compile_limits(limits).build()?;
        let (took, error) = refusal(&pool, &wasm);
        let (again, _) = refusal(&pool, &wasm);
        let strict = self::pool().workers(1).build()?;
        let (by_shape, shape) = refusal(&strict, &wasm);
        println!(
            "{name:>30}, {:>5} KB: {took:>10.3?}, {error}; again {again:.0?}; by its shape {by_shape:.1?}, {shape}",
            wasm.len() / 1000
        );
    }
    Ok(())
}

fn refusal(pool: &Pool, wasm: &[u8]) -> (Duration, String) {
    let began = Instant::now();
    let result = pool.load(wasm);
    let took = began.elapsed();
    let text = match result {
        Ok(_) => "compiled".into(),
        Err(ModuleError::CompileLimit { kind: CompileLimit::Memory, seen, .. }) => {
            format!("memory, {} MiB needed", seen / MIB)
        }
        Err(ModuleError::CompileLimit { kind: CompileLimit::CpuTime, seen, .. }) => {
            format!("time, {seen} ms of CPU")
        }
        Err(ModuleError::CompileLimit { kind, .. }) => kind.to_string(),
        Err(other) => other.to_string(),
    };
    (took, text)
}

fn shape() -> anyhow::Result<()> {
    println!("\nthe shape alone, one instruction a byte, refused at the very end:");
    for bodies in [1, 8, 32] {
        let wasm = bombs::nops(bodies, 7_600_000);
        let only = CompileLimits::trusted()
            .with(CompileLimit::Nesting, 5000)
            .with(CompileLimit::DataSegments, 0)
            .memory_bytes_max(2048 * MIB);
        let (took, text) = refusal(&pool().workers(1).compile_limits(only).build()?, &wasm);
        println!("{:>6.1} MB: {took:.3?} ({text})", wasm.len() as f64 / 1e6);
    }
    Ok(())
}
