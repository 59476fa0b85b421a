//! Measures what a component costs beside a module, and this pool beside wasmtime in this process, in interleaved rounds of one
//! run: `cargo bench --bench components`. Each call has a fresh instance.
//!
//! `cargo bench --bench components -- words.wasm …` measures components of yours as well: instantiation
//! alone, by wasmtime with its defaults and its pooling allocator, and a call of a function that takes nothing or a text by the pool.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use wasmpool::{Module, Pool, Task};
use wasmtime::component::{Component, InstancePre, Linker, ResourceTable};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

const ROUNDS: usize = 11;
const CALLS: u32 = 2_000;
const LARGE_CALLS: u32 = 50;

const MODULE: &str = r#"(module
    (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))"#;

const COMPONENT: &str = r#"(component
    (core module $m
        (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))
    (core instance $i (instantiate $m))
    (func (export "add") (param "a" s32) (param "b" s32) (result s32) (canon lift (core func $i "add"))))"#;

/// The state behind the imports of a component, whoever built it.
struct Host {
    table: ResourceTable,
    wasi: WasiCtx,
}

impl Host {
    fn new() -> Host {
        Host { table: ResourceTable::new(), wasi: WasiCtx::builder().build() }
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

fn main() -> anyhow::Result<()> {
    wasmpool::init();
    // `cargo test --benches` runs this too, without that argument: it only has to start.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let own: Vec<_> = arguments.into_iter().filter(|argument| argument != "--bench").collect();
    small()?;
    own.iter().try_for_each(|path| large(Path::new(path)))
}

/// Calls `add` in four ways.
fn small() -> anyhow::Result<()> {
    let module = wat::parse_str(MODULE)?;
    let component = wat::parse_str(COMPONENT)?;
    let engine = Engine::new(&pooling())?;
    let in_process =
        wasmtime::Linker::new(&engine).instantiate_pre(&wasmtime::Module::new(&engine, &module)?)?;
    let in_process_component: InstancePre<()> =
        Linker::new(&engine).instantiate_pre(&Component::new(&engine, &component)?)?;
    let pool = Pool::builder().workers(1).build()?;
    let of_module = add(&pool.load(&module)?)?;
    let of_component = add(&pool.load(&component)?)?;

    let mut module_calls = || {
        let mut store = Store::new(&engine, ());
        let instance = in_process.instantiate(&mut store)?;
        let add = instance.get_typed_func::<(i32, i32), i32>(&mut store, "add")?;
        anyhow::ensure!(add.call(&mut store, (3, 4))? == 7, "a wrong sum");
        Ok(())
    };
    let mut component_calls = || {
        let mut store = Store::new(&engine, ());
        let instance = in_process_component.instantiate(&mut store)?;
        let add = instance.get_typed_func::<(i32, i32), (i32,)>(&mut store, "add")?;
        anyhow::ensure!(add.call(&mut store, (3, 4))? == (7,), "a wrong sum");
        Ok(())
    };
    let call = |task: &Task<(i32, i32), i32>| {
        anyhow::ensure!(pool.submit(task, &(3, 4))?.result()? == 7, "a wrong sum");
        Ok(())
    };
    let [in_module, in_component, by_module, by_component] = interleaved(
        CALLS,
        [&mut module_calls, &mut component_calls, &mut || call(&of_module), &mut || call(&of_component)],
    )?;
    println!("add(3, 4), a fresh instance for each call");
    row("wasmtime in this process, a module", in_module, in_module);
    row("wasmtime in this process, a component", in_component, in_module);
    row("this pool, a module", by_module, by_module);
    row("this pool, a component", by_component, by_module);
    Ok(())
}

fn add(module: &Module) -> Result<Task<(i32, i32), i32>, wasmpool::error::ModuleError> {
    module.task("add")
}

/// Instantiates a large component, by wasmtime in two ways and by the pool, which calls a function too.
fn large(path: &Path) -> anyhow::Result<()> {
    let wasm = std::fs::read(path).with_context(|| path.display().to_string())?;
    let prepared = |config: &Config| -> anyhow::Result<(Engine, InstancePre<Host>)> {
        let engine = Engine::new(config)?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_sync(&mut linker)?;
        linker.define_unknown_imports_as_traps(&Component::new(&engine, &wasm)?)?;
        let instance = linker.instantiate_pre(&Component::new(&engine, &wasm)?)?;
        Ok((engine, instance))
    };
    let (default, of_default) = prepared(&Config::new())?;
    let (pooled, of_pooled) = prepared(&pooling())?;
    let instantiate = |engine: &Engine, instance: &InstancePre<Host>| {
        let mut store = Store::new(engine, Host::new());
        instance.instantiate(&mut store)?;
        Ok(())
    };
    let pool = Pool::builder().workers(1).build()?;
    let module = pool.load(&wasm)?;
    let mut tasks = module.description().tasks.iter();
    let task = tasks.find(|task| task.params.is_empty() || task.input.is_string());
    let task = task.context("it has no function that takes nothing or a text")?;
    let input = if task.params.is_empty() { Vec::new() } else { postcard::to_stdvec("one two")? };
    let task = module.raw_task(&task.name)?;
    let mut call = || {
        pool.submit(&task, &input)?.result()?;
        Ok(())
    };
    let [of_default, of_pooled, ours] = interleaved(
        LARGE_CALLS,
        [&mut || instantiate(&default, &of_default), &mut || instantiate(&pooled, &of_pooled), &mut call],
    )?;
    println!("{}", path.display());
    row("wasmtime in this process, its defaults, instantiation", of_default, of_default);
    row("wasmtime in this process, its pool, instantiation", of_pooled, of_default);
    row("this pool, instantiation and a call", ours, of_default);
    Ok(())
}

/// Room for the components that tool-chains make of whole interpreters.
fn pooling() -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(4).total_core_instances(256).total_memories(64).total_tables(256);
    pool.max_core_instances_per_component(256).max_memories_per_component(64).max_tables_per_component(256);
    pool.max_component_instance_size(16 << 20).max_core_instance_size(16 << 20).table_elements(100_000);
    let mut config = Config::new();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool)).concurrency_support(false);
    config
}

/// Times each of these in turn, round by round, and returns the medians of one call.
fn interleaved<const N: usize>(
    calls: u32,
    mut these: [&mut dyn FnMut() -> anyhow::Result<()>; N],
) -> anyhow::Result<[Duration; N]> {
    let mut times = [(); N].map(|()| Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        for (times, call) in times.iter_mut().zip(&mut these) {
            let start = Instant::now();
            for _ in 0..calls {
                call()?;
            }
            times.push(start.elapsed() / calls);
        }
    }
    Ok(times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    }))
}

fn row(name: &str, time: Duration, beside: Duration) {
    let ratio = time.as_secs_f64() / beside.as_secs_f64();
    println!("  {name:<56}{:>10.1} us   {ratio:.2}", time.as_secs_f64() * 1e6);
}
