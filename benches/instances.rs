//! Measures what a fresh instance costs, with its calls and its end: memories of the engine's pool against
//! the worker's own, in interleaved rounds of one run: `cargo bench --bench instances`.
//!
//! There is no worker and no sandbox: the engine runs in this process, set up as a worker has it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use wasmtime::{
    Engine, InstancePre, Linker, Module, ModuleExport, Store, StoreLimits, StoreLimitsBuilder, WasmParams,
    WasmResults,
};

use engine::config::{self, EngineKind, Running};
use engine::memories::Memories;
use proto::description::{CodeKind, MemoryKind};

const ROUNDS: usize = 11;
const INSTANCES: u32 = 1_000;

struct Guest {
    instance: InstancePre<StoreLimits>,
    memory: ModuleExport,
    alloc: ModuleExport,
    task: ModuleExport,
}

impl Guest {
    fn new(wasm: &[u8], task: &str, memories: MemoryKind) -> anyhow::Result<Guest> {
        let mut config =
            config::engine_config(EngineKind::Modules(CodeKind::Unchecked, memories), Running::default())?;
        if memories == MemoryKind::Own {
            config.with_host_memory(Arc::new(Memories::new(config::Reserve::Full)));
        }
        let engine = Engine::new(&config)?;
        let module = Module::new(&engine, wasm)?;
        let mut linker = Linker::new(&engine);
        linker.define_unknown_imports_as_traps(&module)?;
        let export = |name: &str| module.get_export_index(name).with_context(|| format!("no {name}"));
        Ok(Guest {
            instance: linker.instantiate_pre(&module)?,
            memory: export("memory")?,
            alloc: export("wasmpool_alloc")?,
            task: export(&format!("wasmpool_task_{task}")).or_else(|_| export(task))?,
        })
    }

    /// Runs it as a worker does for a task.
    fn run(&self, input: &[u8]) -> anyhow::Result<u32> {
        let mut store = Store::new(self.instance.module().engine(), StoreLimitsBuilder::new().build());
        store.limiter(|limits| limits);
        let instance = self.instance.instantiate(&mut store)?;
        fn call<P: WasmParams, R: WasmResults>(
            store: &mut Store<StoreLimits>,
            instance: &wasmtime::Instance,
            function: &ModuleExport,
            params: P,
        ) -> anyhow::Result<R> {
            let function =
                instance.get_module_export(&mut *store, function).and_then(|export| export.into_func());
            Ok(function.context("no function")?.typed::<P, R>(&*store)?.call(&mut *store, params)?)
        }
        let len = u32::try_from(input.len())?;
        let at: u32 = call(&mut store, &instance, &self.alloc, len)?;
        let memory = instance.get_module_export(&mut store, &self.memory);
        let memory = memory.and_then(|memory| memory.into_memory()).context("no memory")?;
        memory.write(&mut store, at as usize, input)?;
        let packed: i64 = call(&mut store, &instance, &self.task, (at, len))?;
        let envelope = memory.data(&store).get((packed as u64 >> 32) as usize).context("a bad pointer")?;
        anyhow::ensure!(*envelope == 0, "the task failed");
        Ok(packed as u32)
    }

    fn time(&self, input: &[u8]) -> anyhow::Result<Duration> {
        let start = Instant::now();
        for _ in 0..INSTANCES {
            self.run(input)?;
        }
        Ok(start.elapsed() / INSTANCES)
    }
}

/// Makes a module with this much data at the start of its memory, of which a task writes to some pages of 4
/// KiB.
fn with_data(kib: usize, written: usize) -> anyhow::Result<Vec<u8>> {
    let bytes = kib * 1024;
    let pages = bytes.div_ceil(65536) + 2;
    let step = (bytes / 4096).max(1) / written.max(1) * 4096;
    Ok(wat::parse_str(format!(
        r#"(module (memory (export "memory") {pages}) (data (i32.const 0) "{}")
            (func (export "wasmpool_alloc") (param i32) (result i32) (i32.const {bytes}))
            (func (export "run") (param i32 i32) (result i64) (local $left i32) (local $at i32)
                (local.set $left (i32.const {written}))
                (block $done (loop $more
                    (br_if $done (i32.eqz (local.get $left)))
                    (i32.store8 (local.get $at) (i32.const 0))
                    (local.set $at (i32.add (local.get $at) (i32.const {step})))
                    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
                    (br $more)))
                (i32.store8 (i32.const {bytes}) (i32.const 0))
                (i64.or (i64.shl (i64.const {bytes}) (i64.const 32)) (i64.const 1))))"#,
        "x".repeat(bytes),
    ))?)
}

/// Makes a module whose task writes to this many pages beyond its data.
fn that_writes(pages: usize) -> anyhow::Result<Vec<u8>> {
    let memory = pages.div_ceil(16) + 1;
    Ok(wat::parse_str(format!(
        r#"(module (memory (export "memory") {memory})
            (func (export "wasmpool_alloc") (param i32) (result i32) (i32.const 16))
            (func (export "run") (param i32 i32) (result i64) (local $left i32) (local $at i32)
                (local.set $left (i32.const {pages}))
                (block $done (loop $more
                    (br_if $done (i32.eqz (local.get $left)))
                    (i32.store8 (local.get $at) (i32.const 0))
                    (local.set $at (i32.add (local.get $at) (i32.const 4096)))
                    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
                    (br $more)))
                (i64.const 34359738369)))"#,
    ))?)
}

fn main() -> anyhow::Result<()> {
    // `cargo test --benches` runs this too, without that argument: it only has to start.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let prebuilt = |name: &str| std::fs::read(benches::prebuilt(name)).with_context(|| name.to_string());
    let mut cases = vec![
        ("echo".to_string(), prebuilt("echo")?, "echo", vec![7; 64]),
        ("primes below 1,000".into(), prebuilt("primes")?, "count", vec![0xe8, 0x07]),
    ];
    for kib in [16, 64, 128, 256, 512, 1024] {
        for written in [1, 8] {
            cases.push((
                format!("{kib} KiB of data, {written} written"),
                with_data(kib, written)?,
                "run",
                vec![0; 64],
            ));
        }
    }
    for pages in [1, 16, 64, 256, 1000] {
        cases.push((format!("{pages} pages written"), that_writes(pages)?, "run", vec![0; 64]));
    }
    println!("{:<34} {:>10} {:>10} {:>8}", "fresh instance, calls, end", "pooled", "own", "ratio");
    let times = MemoryKind::ALL.map(|kind| {
        let start = Instant::now();
        let made = config::engine_config(EngineKind::Modules(CodeKind::Unchecked, kind), Running::default())
            .and_then(|made| Engine::new(&made));
        made.map(|_| start.elapsed())
    });
    let [pooled, own] = times;
    println!("(an engine: {:?} and {:?})", pooled?, own?);
    for (name, wasm, task, input) in cases {
        let guests = MemoryKind::ALL.map(|kind| Guest::new(&wasm, task, kind));
        let [pooled, own] = guests;
        let guests = [pooled.with_context(|| name.clone())?, own?];
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (guest, times) in guests.iter().zip(&mut times) {
                times.push(guest.time(&input)?.as_secs_f64() * 1e6);
            }
        }
        let [pooled, own] = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[ROUNDS / 2]
        });
        println!("{name:<34} {pooled:>7.1} µs {own:>7.1} µs {:>8.2}", pooled / own);
    }
    Ok(())
}
