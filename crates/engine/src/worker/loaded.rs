//! The engines, and the modules that this worker keeps mapped until the host ends them.

use std::collections::HashMap;
use std::fs::File;
use std::mem;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Instant;

use wasmtime::component::Component;
use wasmtime::{Engine, ExternType, InstancePre, Module, ModuleExport};

use super::component::ComponentProgram;
use super::linker::{self, Previews, TaskState};
use super::memories::Memories;
use super::run_end;
use super::shares::Mapping;
use super::watcher::WatcherState;
use crate::config::{self, EngineKind};
use proto::artifact::{self, Described};
use proto::description::{
    CallingConvention, CodeKind, Codec, MemoryKind, ModuleDescription, ModuleForm, PROGRAM, TaskDescription,
    UNNAMED_PROGRAM,
};
use proto::lines::Table;
use proto::message::ModuleId;
use proto::safepoints::Safepoints;
use proto::trap::Frame;

/// A module ready to be instantiated, with every lookup by name done.
pub(super) struct Loaded {
    pub(super) program: Program,
    pub(super) description: ModuleDescription,
    /// The machine code of the module's functions lies here; that of a component's functions is not told.
    code: Range<usize>,
    safepoints: Option<Safepoints>,
    lines: Option<MappedLines>,
}

/// The table of places in the module's source: the last bytes of the file that describes it, read when a task has failed.
struct MappedLines {
    file: Mapping,
    bytes: usize,
}

impl MappedLines {
    /// Maps the file, if there is a table in it. One that cannot be mapped costs lines only.
    fn new(file: &File, described: &Described) -> Option<MappedLines> {
        let bytes = usize::try_from(described.lines_bytes).ok().filter(|bytes| *bytes > 0)?;
        let len = file.metadata().ok()?.len();
        match Mapping::new(file, len) {
            Ok(file) => Some(MappedLines { file, bytes }),
            Err(error) => {
                tracing::warn!(error, "a module's places in its source are not known");
                None
            }
        }
    }

    fn table(&self) -> Option<Table<'_>> {
        let file = self.file.bytes();
        Table::new(file.get(file.len().checked_sub(self.bytes)?..)?)
    }
}

/// What is instantiated and called, by the form of the module.
pub(super) enum Program {
    Core(Box<CoreProgram>),
    Component(ComponentProgram),
}

/// A module of WebAssembly, and what is called in it.
pub(super) struct CoreProgram {
    pub(super) instance: InstancePre<TaskState>,
    pub(super) memory: Option<ModuleExport>,
    pub(super) alloc: Option<ModuleExport>,
    pub(super) start: Option<ModuleExport>,
    pub(super) reactor_start: Option<ModuleExport>,
    pub(super) initializer: Option<ModuleExport>,
    /// The exported function of each task, in the description's order.
    pub(super) tasks: Vec<Option<ModuleExport>>,
    /// The memory that has the page which the code polls, and where the page begins in it. `None`: the instances of the
    /// module share a page; or the code does not poll.
    pub(super) polling_page: Option<(ModuleExport, u64)>,
    /// The function that the module names as its start, where the engine does not call it.
    pub(super) module_start: Option<ModuleExport>,
}

impl Loaded {
    /// Returns the engine that it was compiled for.
    pub(super) fn engine(&self) -> &Engine {
        match &self.program {
            Program::Core(program) => program.instance.module().engine(),
            Program::Component(program) => program.engine(),
        }
    }

    /// Returns whether its code looks at the engine's epoch.
    pub(super) fn looks_at_epoch(&self) -> bool {
        self.description.metered || matches!(self.program, Program::Component(_))
    }

    /// Returns where the machine code of the module's functions lies.
    pub(super) fn code(&self) -> Range<usize> {
        self.code.clone()
    }

    /// Returns whether the task's function takes its numbers as parameters.
    pub(super) fn takes_numbers(&self, task: usize) -> bool {
        let task = self.description.tasks.get(task);
        task.is_some_and(|task| task.convention == CallingConvention::Numbers)
    }

    /// Returns the task, if it reads and writes JSON.
    pub(super) fn json_task(&self, task: usize) -> Option<&TaskDescription> {
        self.description.tasks.get(task).filter(|task| task.codec == Codec::Json)
    }

    /// Returns the place in the module as its author wrote it.
    pub(super) fn original(&self, offset: u64) -> u64 {
        self.safepoints.as_ref().map_or(offset, |safepoints| safepoints.insertions.original(offset))
    }

    /// Returns the table of places in the module's source, if it has one.
    pub(super) fn lines(&self) -> Option<Table<'_>> {
        self.lines.as_ref()?.table()
    }

    /// Returns the frames of a stack: the first address is that of an instruction, and the others are those behind
    /// calls. Addresses that are in no function of the module's are left out.
    pub(super) fn frames_at(&self, addresses: &[usize]) -> Vec<Frame> {
        // Nothing of a component's code is found here.
        let Program::Core(program) = &self.program else { return Vec::new() };
        let module = program.instance.module();
        let inside = |(index, address): (usize, &usize)| {
            address.checked_sub(self.code.start)?.checked_sub(usize::from(index > 0))
        };
        let places: Vec<_> = addresses.iter().enumerate().filter_map(inside).collect();
        let mut functions: Vec<_> = places.iter().map(|_| None).collect();
        for function in module.functions() {
            let range = function.offset..function.offset + function.len;
            for (place, found) in places.iter().zip(&mut functions) {
                if range.contains(place) {
                    *found = Some((function.name.clone(), function.index.as_u32()));
                }
            }
        }
        let mut offsets: Vec<Option<u32>> = vec![None; places.len()];
        let last = places.iter().max().copied().unwrap_or(0);
        let map = module.address_map().into_iter().flatten();
        for (start, offset) in map.take_while(|(start, _)| *start <= last) {
            for (place, found) in places.iter().zip(&mut offsets) {
                if start <= *place {
                    *found = offset;
                }
            }
        }
        let frames = functions.into_iter().zip(offsets).filter_map(|(function, offset)| {
            let (name, index) = function?;
            Some(run_end::frame(name.as_deref(), index, offset.map(|offset| self.original(offset.into()))))
        });
        frames.collect()
    }
}

/// A module's files, as the host sent them.
pub(super) struct ModuleFiles {
    pub(super) code: CodeKind,
    pub(super) artifact: OwnedFd,
    pub(super) description: OwnedFd,
}

/// A module that the host has sent and not ended.
pub(super) enum Arrived {
    /// The files have arrived, and no task has looked for the module yet.
    Files(ModuleFiles),
    /// The main thread is mapping it for its first task.
    Mapping,
    /// It is mapped; or it could not be, and each of its tasks gets this message.
    Mapped(Result<Arc<Loaded>, String>),
}

/// Maps modules. Every engine is made at once: to make one takes system calls that
/// a sealed sandbox does not allow.
pub(super) struct Modules {
    watcher: Arc<WatcherState>,
    engines: HashMap<EngineKind, Engine>,
}

impl Modules {
    pub(super) fn new(
        watcher: Arc<WatcherState>,
        running: config::Running,
        own: &Arc<Memories>,
    ) -> wasmtime::Result<Modules> {
        let mut engines = HashMap::new();
        for kind in EngineKind::ALL {
            let mut config = config::engine_config(kind, running)?;
            if kind.memories() == MemoryKind::Own {
                config.with_host_memory(own.clone());
            }
            engines.insert(kind, Engine::new(&config)?);
        }
        watcher.set_engines(engines.values().cloned().collect());
        Ok(Modules { watcher, engines })
    }

    /// The module, mapped at its first use. A module that cannot be mapped stays so.
    pub(super) fn get(&self, id: ModuleId) -> Result<Arc<Loaded>, String> {
        let files = self.watcher.modules.wait_for(|there| match there.get_mut(&id)? {
            Arrived::Mapped(loaded) => Some(Err(loaded.clone())),
            arrived => Some(Ok(mem::replace(arrived, Arrived::Mapping))),
        });
        let files = match files {
            Ok(Arrived::Files(files)) => files,
            Err(loaded) => return loaded,
            // This cannot happen: only the main thread maps, one module at a time.
            Ok(Arrived::Mapping | Arrived::Mapped(_)) => return Err("it is being mapped".into()),
        };
        let began = Instant::now();
        let loaded = self.load(files).map(Arc::new);
        match &loaded {
            Ok(loaded) => {
                let module = id.0;
                let took_us = began.elapsed().as_micros() as u64;
                let tasks = loaded.description.tasks.len();
                let memories = loaded.description.memory_kind;
                tracing::debug!(module, took_us, tasks, ?memories, "a module is mapped");
            }
            Err(error) => tracing::warn!(module = id.0, error, "a module cannot be mapped"),
        }
        // A module that has ended meanwhile is not put back.
        if let Some(arrived) = self.watcher.modules.lock().get_mut(&id) {
            *arrived = Arrived::Mapped(loaded.clone());
        }
        loaded
    }

    fn load(&self, files: ModuleFiles) -> Result<Loaded, String> {
        let description = File::from(files.description);
        let described = artifact::read(&description).ok_or("its description is damaged")?;
        let lines = MappedLines::new(&description, &described);
        let ModuleDescription { form, memory_kind, .. } = described.description;
        let kind = EngineKind::of(files.code, form, memory_kind);
        let engine = self.engines.get(&kind).ok_or("there is no engine for it")?;
        let artifact = File::from(files.artifact);
        let prepared = match form {
            ModuleForm::Component => prepare_component(engine, &artifact, described),
            _ => prepare(engine, artifact, described),
        };
        prepared.map(|loaded| Loaded { lines, ..loaded }).map_err(|error| format!("{error:#}"))
    }
}

/// Returns the export that is a command's program, as the compiler role has found it.
fn program(module: &Module) -> Option<&'static str> {
    let takes_and_returns_nothing = |name: &str| match module.get_export(name) {
        Some(ExternType::Func(ty)) => ty.params().len() == 0 && ty.results().len() == 0,
        _ => false,
    };
    [UNNAMED_PROGRAM, PROGRAM].into_iter().find(|name| takes_and_returns_nothing(name))
}

/// Loads a component. Its machine code is copied: wasmtime maps files of modules only, if they are open already.
fn prepare_component(engine: &Engine, artifact: &File, described: Described) -> wasmtime::Result<Loaded> {
    let Described { description, safepoints, artifact_bytes, .. } = described;
    let mut bytes = vec![0; usize::try_from(artifact_bytes)?];
    artifact.read_exact_at(&mut bytes, 0)?;
    // SAFETY: as for a module.
    let component = unsafe { Component::deserialize(engine, &bytes) }?;
    let program = Program::Component(ComponentProgram::new(engine, &component, &description)?);
    Ok(Loaded { program, description, code: 0..0, safepoints, lines: None })
}

fn prepare(engine: &Engine, artifact: File, described: Described) -> wasmtime::Result<Loaded> {
    // SAFETY: the file was written by this build's compiler role (the cache key holds the
    // build's fingerprint and the file's hash was checked by the host), is sealed or owned by
    // this user alone, and is not changed while it is mapped.
    let module = &unsafe { Module::deserialize_open_file(engine, artifact) }?;
    let Described { description, functions_bytes, safepoints, .. } = described;
    let linker = match description.uses_wasi {
        true => linker::linker_with_wasi(engine, Previews::of(module))?,
        false => linker::linker(engine)?,
    };
    let instance = linker.instantiate_pre(module)?;
    let function = |name: &str| match module.get_export(name) {
        Some(ExternType::Func(_)) => module.get_export_index(name),
        _ => None,
    };
    let added = safepoints.as_ref();
    let polling_page = added.and_then(|added| {
        let export = module.get_export_index(added.page_export.as_deref()?)?;
        Some((export, added.page_offset))
    });
    let module_start = added.and_then(|added| added.start_export.as_deref());
    let text = module.text().as_ptr_range();
    let functions = usize::try_from(functions_bytes)?.min(module.text().len());
    let program = CoreProgram {
        polling_page,
        module_start: module_start.and_then(function),
        memory: module.get_export_index("memory"),
        alloc: function("wasmpool_alloc"),
        start: program(module).and_then(|name| module.get_export_index(name)),
        reactor_start: description.has_reactor_start.then(|| function("_initialize")).flatten(),
        initializer: description.has_initializer.then(|| function("wasmpool_init")).flatten(),
        tasks: description.tasks.iter().map(|task| function(&task.export)).collect(),
        instance,
    };
    let code = text.start.addr()..text.start.addr() + functions;
    Ok(Loaded { program: Program::Core(Box::new(program)), description, code, safepoints, lines: None })
}
