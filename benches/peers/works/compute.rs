//! Tasks that compute: two workers beside one, and wasm beside the same source compiled natively.

use std::hint::black_box;
use std::rc::Rc;

use wasmpool::Pool;
use wasmpool::module::{Callable, Interrupt, ModuleOptions};

use super::Bench;
use crate::engine::{Guest, on_threads};
use crate::native::{kernels, mandelbrot, monte_carlo, primes};
use crate::ours::{self, WORKERS, prebuilt};
use crate::work::{Goal, MILLIS, TIMES, Work, p50, seconds};

/// Tasks of one batch: a multiple of the workers, and enough that the last one weighs little.
const BATCH: usize = 60;

#[derive(Debug, Clone, Copy)]
pub(super) enum Sample {
    Primes,
    MonteCarlo,
    Mandelbrot,
    /// A function of the guest `kernels`, how large its work is, and the same function here.
    Kernel(&'static str, u32, fn(u32) -> u64),
}

pub(super) const SAMPLES: [Sample; 3] = [Sample::Primes, Sample::MonteCarlo, Sample::Mandelbrot];

pub(super) const KERNELS: [Sample; 8] = [
    Sample::Kernel("sieve", 1_000_000, kernels::sieve),
    Sample::Kernel("matrix", 200, kernels::matrix),
    Sample::Kernel("sha256", 1_024, kernels::sha256),
    Sample::Kernel("sort", 100_000, kernels::sort),
    Sample::Kernel("json", 4_000, kernels::json),
    Sample::Kernel("search", 1_000, kernels::search),
    Sample::Kernel("interpret", 100_000, kernels::interpret),
    Sample::Kernel("fibonacci", 30, kernels::fibonacci),
];

// Some milliseconds each.
const UPTO: u64 = 3_000_000;
const SAMPLES_OF_PI: u64 = 1_000_000;
const SEED: u64 = 7;
const TILE: mandelbrot::Tile =
    mandelbrot::Tile { left: -0.8, top: 0.2, step: 0.001, width: 100, height: 100, iterations: 600 };

impl Sample {
    pub(super) fn name(self) -> &'static str {
        match self {
            Sample::Primes => "primes",
            Sample::MonteCarlo => "monte_carlo",
            Sample::Mandelbrot => "mandelbrot",
            Sample::Kernel(name, ..) => name,
        }
    }

    /// The guest that it is a task of.
    fn module(self) -> &'static str {
        match self {
            Sample::Kernel(..) => "kernels",
            sample => sample.name(),
        }
    }

    fn native(self) {
        match self {
            Sample::Primes => drop(black_box(primes::count(black_box(UPTO)))),
            Sample::MonteCarlo => drop(black_box(monte_carlo::pi(black_box(SAMPLES_OF_PI), SEED))),
            Sample::Mandelbrot => drop(black_box(mandelbrot::tile(black_box(TILE)))),
            Sample::Kernel(_, size, kernel) => drop(black_box(kernel(black_box(size)))),
        }
    }

    /// Seconds of a batch on so many threads.
    fn native_batch(self, threads: usize) -> anyhow::Result<f64> {
        seconds(|| {
            on_threads(&mut vec![(); threads], BATCH, |(), _| {
                self.native();
                Ok(())
            })
        })
    }

    /// The same module in this process, and its input.
    fn guest(self, scan: bool) -> anyhow::Result<(Guest, Vec<u8>)> {
        let (task, input) = match self {
            Sample::Primes => ("count", postcard::to_stdvec(&UPTO)?),
            Sample::MonteCarlo => ("pi", postcard::to_stdvec(&(SAMPLES_OF_PI, SEED))?),
            Sample::Mandelbrot => ("tile", postcard::to_stdvec(&TILE)?),
            Sample::Kernel(name, size, _) => (name, postcard::to_stdvec(&size)?),
        };
        Ok((Guest::new(&std::fs::read(prebuilt(self.module()))?, task, scan)?, input))
    }

    /// Seconds of a batch in a pool.
    fn batch(self, pool: &Pool, interrupt: Interrupt) -> anyhow::Result<f64> {
        fn batch<C: Callable>(pool: &Pool, task: &C, input: impl Fn() -> C::Input) -> anyhow::Result<f64>
        where
            C::Input: Sized,
        {
            seconds(|| ours::pipelined(pool, task, (0..BATCH).map(|_| input())))
        }
        let options = ModuleOptions::new().interrupt(interrupt);
        let module = pool.load_file_with(prebuilt(self.module()), options)?;
        match self {
            Sample::Primes => batch(pool, &module.task::<u64, u64>("count")?, || UPTO),
            Sample::MonteCarlo => {
                batch(pool, &module.task::<(u64, u64), f64>("pi")?, || (SAMPLES_OF_PI, SEED))
            }
            Sample::Mandelbrot => {
                batch(pool, &module.task::<mandelbrot::Tile, mandelbrot::Image>("tile")?, || TILE)
            }
            Sample::Kernel(name, size, _) => batch(pool, &module.task::<u32, u64>(name)?, || size),
        }
    }
}

fn warm(bench: &Bench, workers: usize) -> anyhow::Result<Pool> {
    ours::warm(bench.builder(workers).build()?)
}

pub(super) fn scaling<'a>(name: &str, bench: &'a Bench, sample: Sample) -> anyhow::Result<Work<'a>> {
    let one = warm(bench, 1)?;
    let two = warm(bench, WORKERS)?;
    let title = format!("throughput of {WORKERS} workers, in those of one");
    Ok(Work::new(name, title, TIMES)
        .goal(Goal::Least(1.95))
        .ours(move || Ok(sample.batch(&one, Interrupt::Check)? / sample.batch(&two, Interrupt::Check)?))
        .floor(format!("native, {WORKERS} threads"), move || {
            Ok(sample.native_batch(1)? / sample.native_batch(WORKERS)?)
        }))
}

/// Runs a sample as users do, beside the same code without safepoints in the same pool, and beside the machine's own
/// code.
pub(super) fn native<'a>(name: &str, bench: &'a Bench, sample: Sample) -> anyhow::Result<Work<'a>> {
    let one = Rc::new(warm(bench, 1)?);
    let unchecked = one.clone();
    let (guest, input) = sample.guest(bench.scan)?;
    Ok(Work::new(name, "a task, one worker, beside the same code without safepoints", MILLIS)
        .goal(Goal::FloorMost(1.15))
        .ours(move || Ok(sample.batch(&one, Interrupt::Check)? / BATCH as f64))
        .floor("unchecked", move || Ok(sample.batch(&unchecked, Interrupt::Kill)? / BATCH as f64))
        .floor("native", move || Ok(sample.native_batch(1)? / BATCH as f64))
        .floor("wasm, in process", move || p50(5, || guest.call(&input).map(drop))))
}

pub(super) fn unchecked<'a>(name: &str, bench: &'a Bench, sample: Sample) -> anyhow::Result<Work<'a>> {
    let one = warm(bench, 1)?;
    Ok(Work::new(name, "without safepoints, beside one native thread", MILLIS)
        .goal(Goal::FloorMost(1.3))
        .ours(move || Ok(sample.batch(&one, Interrupt::Kill)? / BATCH as f64))
        .floor("native", move || Ok(sample.native_batch(1)? / BATCH as f64)))
}
