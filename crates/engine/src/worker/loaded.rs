//! The engines, and the modules that this worker keeps mapped until the host ends them.

use std::collections::HashMap;
use std::fs::File;
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use wasmtime::{Engine, ExternType, InstancePre, Module, ModuleExport};

use super::linker::{self, TaskState};
use super::memories::Memories;
use super::watcher::WatcherState;
use crate::config;
use proto::artifact;
use proto::description::{CodeKind, MemoryKind, ModuleDescription};
use proto::message::ModuleId;

/// A module ready to be instantiated, with every lookup by name done.
pub(super) struct Loaded {
    pub(super) instance: InstancePre<TaskState>,
    pub(super) description: ModuleDescription,
    pub(super) memory: Option<ModuleExport>,
    pub(super) alloc: Option<ModuleExport>,
    pub(super) start: Option<ModuleExport>,
    pub(super) reactor_start: Option<ModuleExport>,
    pub(super) initializer: Option<ModuleExport>,
    /// The exported function of each task, in the description's order.
    pub(super) tasks: Vec<Option<ModuleExport>>,
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
    engines: HashMap<(CodeKind, MemoryKind), Engine>,
}

impl Modules {
    pub(super) fn new(
        watcher: Arc<WatcherState>,
        running: config::Running,
        own: &Arc<Memories>,
    ) -> wasmtime::Result<Modules> {
        let mut engines = HashMap::new();
        for (code, memories) in
            CodeKind::ALL.iter().flat_map(|code| MemoryKind::ALL.map(|kind| (*code, kind)))
        {
            let mut config = config::engine_config(code, memories, running)?;
            if memories == MemoryKind::Own {
                config.with_host_memory(own.clone());
            }
            let engine = Engine::new(&config)?;
            engines.insert((code, memories), engine);
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
                let tasks = loaded.tasks.len();
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
        let description =
            artifact::read(&File::from(files.description)).ok_or("its description is damaged")?.description;
        let kind = (files.code, description.memory_kind);
        let engine = self.engines.get(&kind).ok_or("there is no engine for it")?;
        // SAFETY: the file was written by this build's compiler role (the cache key holds the
        // build's fingerprint and the file's hash was checked by the host), is sealed or owned by
        // this user alone, and is not changed while it is mapped.
        let module = unsafe { Module::deserialize_open_file(engine, File::from(files.artifact)) }
            .map_err(|error| format!("{error:#}"))?;
        prepare(engine, &module, description).map_err(|error| format!("{error:#}"))
    }
}

fn prepare(engine: &Engine, module: &Module, description: ModuleDescription) -> wasmtime::Result<Loaded> {
    let linker = match description.uses_wasi {
        true => linker::linker_with_wasi(engine)?,
        false => linker::linker(engine)?,
    };
    let instance = linker.instantiate_pre(module)?;
    let function = |name: &str| match module.get_export(name) {
        Some(ExternType::Func(_)) => module.get_export_index(name),
        _ => None,
    };
    Ok(Loaded {
        memory: module.get_export_index("memory"),
        alloc: function("wasmpool_alloc"),
        start: function("_start"),
        reactor_start: description.has_reactor_start.then(|| function("_initialize")).flatten(),
        initializer: description.has_initializer.then(|| function("wasmpool_init")).flatten(),
        tasks: description.tasks.iter().map(|task| function(&task.export)).collect(),
        instance,
        description,
    })
}
