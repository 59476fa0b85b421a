//! Tasks that compute: two workers beside one, and wasm beside the same source compiled natively.

use std::hint::black_box;

use wasmpool::Pool;
use wasmpool::module::{Callable, Interrupt, ModuleOptions};

use super::Bench;
use crate::engine::{Guest, on_threads};
use crate::native::{mandelbrot, monte_carlo, primes};
use crate::ours::{self, WORKERS, prebuilt};
use crate::work::{Goal, MILLIS, TIMES, Work, p50, seconds};

/// Tasks of one batch: a multiple of the workers, and enough that the last one weighs little.
const BATCH: usize = 60;

#[derive(Debug, Clone, Copy)]
pub(super) enum Sample {
    Primes,
    MonteCarlo,
    Mandelbrot,
}

pub(super) const SAMPLES: [Sample; 3] = [Sample::Primes, Sample::MonteCarlo, Sample::Mandelbrot];

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
        }
    }

    fn native(self) {
        match self {
            Sample::Primes => drop(black_box(primes::count(black_box(UPTO)))),
            Sample::MonteCarlo => drop(black_box(monte_carlo::pi(black_box(SAMPLES_OF_PI), SEED))),
            Sample::Mandelbrot => drop(black_box(mandelbrot::tile(black_box(TILE)))),
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
        };
        Ok((Guest::new(&std::fs::read(prebuilt(self.name()))?, task, scan)?, input))
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
        let module = pool.load_file_with(prebuilt(self.name()), options)?;
        match self {
            Sample::Primes => batch(pool, &module.task::<u64, u64>("count")?, || UPTO),
            Sample::MonteCarlo => {
                batch(pool, &module.task::<(u64, u64), f64>("pi")?, || (SAMPLES_OF_PI, SEED))
            }
            Sample::Mandelbrot => {
                batch(pool, &module.task::<mandelbrot::Tile, mandelbrot::Image>("tile")?, || TILE)
            }
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

pub(super) fn native<'a>(
    name: &str,
    bench: &'a Bench,
    sample: Sample,
    interrupt: Interrupt,
) -> anyhow::Result<Work<'a>> {
    let one = warm(bench, 1)?;
    let (guest, input) = sample.guest(bench.scan)?;
    let title = match interrupt {
        Interrupt::Kill => "the same, compiled without checks for an interrupt",
        _ => "a task, one worker, beside one native thread",
    };
    Ok(Work::new(name, title, MILLIS)
        .goal(Goal::FloorMost(1.3))
        .ours(move || Ok(sample.batch(&one, interrupt)? / BATCH as f64))
        .floor("native", move || Ok(sample.native_batch(1)? / BATCH as f64))
        .floor("wasm, in process", move || p50(5, || guest.call(&input).map(drop))))
}
