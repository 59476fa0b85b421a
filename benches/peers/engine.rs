//! The engine in this very process, with the workers' configuration and their calls, and nothing around
//! it: no limits, no journal, no deadline.

use std::path::Path;

use anyhow::Context;
use wasmtime::{
    Engine, Instance, InstancePre, Linker, Memory, Module, ModuleExport, Store, TypedFunc, WasmParams,
    WasmResults,
};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};
use wasmtime_wasi::{I32Exit, WasiCtxBuilder};

use engine::config::{self, EngineKind};
use proto::description::{CodeKind, MemoryKind};

/// Makes an engine whose memories come from its pool.
pub(crate) fn engine(scan: bool) -> anyhow::Result<Engine> {
    let running = config::Running { pagemap_scan: scan, ..Default::default() };
    Ok(Engine::new(&config::engine_config(
        EngineKind::Modules(CodeKind::Unchecked, MemoryKind::Pooled),
        running,
    )?)?)
}

/// A module with one task, looked up as a worker does: by name once, then by index.
pub(crate) struct Guest {
    instance: InstancePre<()>,
    memory: ModuleExport,
    alloc: ModuleExport,
    task: ModuleExport,
}

impl Guest {
    pub(crate) fn new(wasm: &[u8], task: &str, scan: bool) -> anyhow::Result<Guest> {
        let engine = engine(scan)?;
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

    /// An instance that stays.
    pub(crate) fn instance(&self) -> anyhow::Result<Kept> {
        let mut store = Store::new(self.instance.module().engine(), ());
        let instance = self.instance.instantiate(&mut store)?;
        let memory = instance.get_module_export(&mut store, &self.memory);
        let memory = memory.and_then(|memory| memory.into_memory()).context("no memory")?;
        let alloc = typed(&mut store, &instance, &self.alloc)?;
        let task = typed(&mut store, &instance, &self.task)?;
        Ok(Kept { store, memory, alloc, task })
    }

    /// The task in an instance of its own: allocate, write the input, call, read the envelope.
    pub(crate) fn call(&self, input: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.instance()?.call(input)
    }
}

fn typed<T: 'static, P: WasmParams, R: WasmResults>(
    store: &mut Store<T>,
    instance: &Instance,
    export: &ModuleExport,
) -> anyhow::Result<TypedFunc<P, R>> {
    let function = instance.get_module_export(&mut *store, export).and_then(|export| export.into_func());
    Ok(function.context("no function")?.typed(&*store)?)
}

/// An instance, and its calls.
pub(crate) struct Kept {
    store: Store<()>,
    memory: Memory,
    alloc: TypedFunc<u32, u32>,
    task: TypedFunc<(u32, u32), i64>,
}

impl Kept {
    pub(crate) fn call(&mut self, input: &[u8]) -> anyhow::Result<Vec<u8>> {
        let len = u32::try_from(input.len())?;
        let pointer = self.alloc.call(&mut self.store, len)?;
        self.memory.write(&mut self.store, pointer as usize, input)?;
        let packed = self.task.call(&mut self.store, (pointer, len))? as u64;
        let start = (packed >> 32) as usize;
        let len = packed as u32 as usize;
        let envelope = self.memory.data(&self.store).get(start..start + len).context("a bad pointer")?;
        match envelope.split_first() {
            Some((0, payload)) => Ok(payload.to_vec()),
            _ => anyhow::bail!("the task failed"),
        }
    }
}

/// Runs `once` so many times on so many threads at once, shared out evenly, each with what `make`
/// made for it before.
pub(crate) fn on_threads<T: Send>(
    made: &mut [T],
    count: usize,
    once: impl Fn(&mut T, usize) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    let threads = made.len();
    let once = &once;
    std::thread::scope(|scope| {
        let handles: Vec<_> = made
            .iter_mut()
            .enumerate()
            .map(|(thread, made)| {
                scope.spawn(move || (thread..count).step_by(threads).try_for_each(|index| once(made, index)))
            })
            .collect();
        handles.into_iter().try_for_each(|handle| {
            handle.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread of the floor panicked")))
        })
    })
}

/// Machine code that was compiled in an earlier run, if it is still this engine's.
fn compiled(engine: &Engine, wasm: &Path, cache: &Path) -> anyhow::Result<std::path::PathBuf> {
    let name = wasm.file_name().context("no name")?.to_string_lossy().into_owned();
    let file = cache.join(format!("{name}.cwasm"));
    // SAFETY: a file of the build folder, written below, that nothing else writes to.
    if unsafe { Module::deserialize_file(engine, &file) }.is_err() {
        std::fs::create_dir_all(cache)?;
        std::fs::write(&file, Module::from_file(engine, wasm)?.serialize()?)?;
    }
    Ok(file)
}

/// A WASI command, on a fiber as in a worker.
pub(crate) struct Command {
    instance: InstancePre<WasiP1Ctx>,
    start: ModuleExport,
    runtime: tokio::runtime::Runtime,
}

/// A command's machine code on disk.
pub(crate) struct Stored {
    engine: Engine,
    file: std::path::PathBuf,
}

impl Stored {
    pub(crate) fn new(wasm: &Path, cache: &Path, scan: bool) -> anyhow::Result<Stored> {
        let engine = engine(scan)?;
        let file = compiled(&engine, wasm, cache)?;
        Ok(Stored { engine, file })
    }

    /// Reads the command from disk, and makes it ready to be instantiated.
    pub(crate) fn load(&self) -> anyhow::Result<Command> {
        // SAFETY: as in `compiled`.
        let module = unsafe { Module::deserialize_file(&self.engine, &self.file) }?;
        Command::new(&self.engine, &module)
    }
}

impl Command {
    fn new(engine: &Engine, module: &Module) -> anyhow::Result<Command> {
        let mut linker = Linker::new(engine);
        wasmtime_wasi::p1::add_to_linker_async(&mut linker, |wasi| wasi)?;
        Ok(Command {
            instance: linker.instantiate_pre(module)?,
            start: module.get_export_index("_start").context("no _start")?,
            runtime: tokio::runtime::Builder::new_current_thread().enable_time().build()?,
        })
    }

    pub(crate) fn compile(wasm: &[u8], scan: bool) -> anyhow::Result<Command> {
        let engine = engine(scan)?;
        let module = Module::new(&engine, wasm)?;
        Command::new(&engine, &module)
    }

    /// Runs the command, and returns its stdout.
    pub(crate) fn run(&self, args: &[&str], stdin: &[u8]) -> anyhow::Result<bytes::Bytes> {
        let stdout = MemoryOutputPipe::new(1 << 20);
        let mut wasi = WasiCtxBuilder::new();
        wasi.args(args).stdin(MemoryInputPipe::new(stdin.to_vec()));
        wasi.stdout(stdout.clone()).stderr(MemoryOutputPipe::new(1 << 20));
        let mut store = Store::new(self.instance.module().engine(), wasi.build_p1());
        let ran = self.runtime.block_on(async {
            let instance = self.instance.instantiate_async(&mut store).await?;
            let start: TypedFunc<(), ()> = typed(&mut store, &instance, &self.start)?;
            anyhow::Ok(start.call_async(&mut store, ()).await)
        })?;
        match ran {
            Ok(()) => Ok(stdout.contents()),
            Err(error) => match error.downcast_ref::<I32Exit>() {
                Some(I32Exit(0)) => Ok(stdout.contents()),
                _ => Err(error.into()),
            },
        }
    }
}
