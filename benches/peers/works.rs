//! The works that are measured, in the order of the table.

mod bytes;
mod calls;
mod commands;
mod compute;
mod life;

use std::cell::OnceCell;

use wasmpool::{Pool, PoolBuilder};

use crate::ours::{self, WORKERS};
use crate::peers::Peers;
use crate::work::Work;

/// The things that works share.
pub(crate) struct Bench {
    pub(crate) peers: Peers,
    pub(crate) scan: bool,
    pool: OnceCell<Pool>,
}

impl Bench {
    pub(crate) fn new(scan: bool) -> Bench {
        Bench { peers: Peers::find(), scan, pool: OnceCell::new() }
    }

    pub(crate) fn builder(&self, workers: usize) -> PoolBuilder {
        ours::builder(workers, self.scan)
    }

    /// Returns a pool with the defaults, warm.
    pub(crate) fn pool(&self) -> anyhow::Result<&Pool> {
        if self.pool.get().is_none() {
            // Only this thread fills it.
            let _ = self.pool.set(ours::warm(self.builder(WORKERS).build()?)?);
        }
        self.pool.get().ok_or_else(|| anyhow::anyhow!("no pool"))
    }
}

type Build = Box<dyn for<'a> Fn(&'a Bench) -> anyhow::Result<Work<'a>>>;

/// Every work by its name; nothing of it is prepared before it is asked for.
pub(crate) fn all(with_allocations: bool) -> Vec<(String, Build)> {
    fn named<F>(name: &str, build: F) -> (String, Build)
    where
        F: for<'a> Fn(&str, &'a Bench) -> anyhow::Result<Work<'a>> + 'static,
    {
        let own = name.to_string();
        (name.to_string(), Box::new(move |bench| build(&own, bench)))
    }
    let mut all = vec![
        named("floor_futex_asleep", calls::futex_asleep),
        named("floor_futex_spinning", calls::futex_spinning),
        named("floor_socketpair", calls::socketpair),
        named("floor_instance", calls::instance),
        named("floor_instance_scan", calls::instance_with_scan),
        named("round_trip", calls::round_trip),
        named("round_trip_raw", calls::round_trip_raw),
        named("pipelined", calls::pipelined),
        named("map", calls::map),
        named("map_reuse", calls::map_reuse),
        named("map_local", calls::map_local),
        named("map_chunked", calls::map_chunked),
        named("echo_16mib", bytes::echo_16mib),
        named("argument_1mib", bytes::argument_1mib),
    ];
    for sample in compute::SAMPLES {
        all.push(named(&format!("scaling_{}", sample.name()), move |name, bench| {
            compute::scaling(name, bench, sample)
        }));
    }
    for sample in compute::SAMPLES.into_iter().chain(compute::KERNELS) {
        all.push(named(&format!("native_{}", sample.name()), move |name, bench| {
            compute::native(name, bench, sample)
        }));
        all.push(named(&format!("unchecked_{}", sample.name()), move |name, bench| {
            compute::unchecked(name, bench, sample)
        }));
    }
    all.extend([
        named("native_cpython", commands::cpython_loop),
        named("native_quickjs", commands::quickjs_loop),
        named("command_small", commands::small),
        named("command_least", commands::least),
        named("cpython_print", commands::cpython_print),
        named("cpython_load", commands::cpython_load),
        named("command_line", commands::command_line),
        named("death_10k", life::death),
        named("idle_memory", life::idle_memory),
        named("idle_cpu", life::idle_cpu),
        named("sandbox_start", life::sandbox_start),
        named("sandbox_throughput", life::sandbox_throughput),
    ]);
    if with_allocations {
        all.extend([
            named("allocations_round_trip", life::allocations_round_trip),
            named("allocations_pipelined", life::allocations_pipelined),
            named("sleeps_round_trip", life::sleeps_round_trip),
            named("sleeps_pipelined", life::sleeps_pipelined),
        ]);
    }
    all
}
