//! The compiler role: wasm bytes in, machine code and a description out, then gone.
//!
//! It runs in a process of its own, so that a module that makes the compiler explode takes nothing else along. What
//! compiles a module must be what runs it: both roles take their engines from `config`.

mod choice;
mod component;
mod confine;
mod describe;
mod diagnose;
mod foreign;
mod lines;
mod numbers;
mod outline;
pub mod safepoints;
mod shape;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use rustix::net::RecvFlags;

use crate::config::{self, EngineKind};
use crate::error::engine_error;
use crate::{Provided, ProvidedBy};
use describe::Outlined;
use proto::artifact::{self, Described};
use proto::control::ControlSocket;
use proto::description::{CodeKind, MemoryKind, ModuleForm, WantedEntry};
use proto::fingerprint;
use proto::limits::MODULE_BYTES_MAX;
use proto::limits::compile::CompileLimits;
use proto::message::{CompileError, CompileReply, CompileRequest, CompileWork};
use proto::policy::SandboxRequest;
use proto::refused::{calling, writing};
use proto::safepoints::Safepoints;
use sandbox::{self, LockedDown, Profile};

/// The compiler process, from its first line to its exit code. `provided` tells what a worker gives to modules.
pub(crate) fn main(provided: ProvidedBy) -> i32 {
    match serve(provided) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("wasmpool compiler: {error}");
            1
        }
    }
}

fn serve(provided: ProvidedBy) -> io::Result<()> {
    confine::give_way();
    let (socket, entered) = sandbox::enter()?;
    let socket = ControlSocket(socket);
    // The end of the stream: the host is gone, or has changed its mind.
    let Some((request, files)) = socket.receive::<CompileRequest>(3, RecvFlags::empty())? else {
        return Ok(());
    };
    if request.wire != fingerprint::WIRE {
        return Err(io::Error::other("the host was built from another version of wasmpool"));
    }
    let Ok([wasm, artifact, description]) = <[OwnedFd; 3]>::try_from(files) else {
        return Err(io::Error::other("the host sent too few files"));
    };
    let failed = |error: io::Error| {
        let reply: CompileReply = Err(CompileError::Compiler { message: error.to_string() });
        socket.send(&reply, &[])
    };
    // Engines read /proc while they are made, and so before the file may be read as a whole.
    let engines = match Engines::new(request.code, &begin(&wasm)?, provided) {
        Ok(engines) => engines,
        Err(error) => return failed(engine_error("make the compiler's engines", &error)),
    };
    confine::count_threads(request.threads);
    // The limit of memory is the module's own, and not that of workers.
    let sandbox =
        SandboxRequest { memory_bytes_max: confine::data_bytes(&request.limits), ..request.sandbox.clone() };
    let data_at_start = entered.data_bytes;
    let locked = match entered.lock(&sandbox, Profile::Compiler, &mut []) {
        Ok(locked) => locked,
        Err(error) => return failed(error.into()),
    };
    if let Err(error) = confine::limit(&request.limits, request.threads, &request.sandbox, data_at_start) {
        return failed(error);
    }
    // After `lock` this process dies with its host. A host that died before that has sent the request
    // already, and would leave a compiler whose answer nobody reads.
    if socket.is_hung_up()? {
        return Ok(());
    }
    let locked = match locked.seal() {
        Ok((locked, _)) => locked,
        Err(error) => return failed(error.into()),
    };
    let mut bytes = Vec::new();
    File::from(wasm).take(MODULE_BYTES_MAX as u64).read_to_end(&mut bytes)?;
    let done = match &request.work {
        CompileWork::Compile { entry } => {
            let module =
                Source { wasm: &bytes, code: request.code, limits: &request.limits, entry: entry.as_ref() };
            compile(&locked, &engines, &module, File::from(artifact))
        }
        CompileWork::Outline => Ok(outline(&locked, &engines, &bytes)),
    };
    let compiled = done.and_then(|compiled| match compiled {
        Ok(file) => File::from(description)
            .write_all(&file)
            .map(Ok)
            .map_err(calling("write (of a module's description)")),
        Err(error) => Ok(Err(error)),
    });
    match compiled {
        Ok(reply) => socket.send::<CompileReply>(&reply, &[]),
        Err(error) => failed(error),
    }
}

/// The engines that a file may need for one kind of code, by the form that its first bytes claim.
struct Engines {
    kind: EnginesKind,
    provided: ProvidedBy,
}

enum EnginesKind {
    /// One for each kind of memories: it is not known yet which one the module needs.
    Core {
        pooled: wasmtime::Engine,
        own: wasmtime::Engine,
        /// Says whether a module is valid as its author wrote it, where another one is compiled.
        author: Option<wasmtime::Engine>,
    },
    Component(wasmtime::Engine),
}

impl Engines {
    fn new(code: CodeKind, begin: &[u8], provided: ProvidedBy) -> wasmtime::Result<Engines> {
        let engine = |kind| wasmtime::Engine::new(&config::engine_config(kind, config::Running::nothing())?);
        let kind = match diagnose::form(begin) {
            Ok(ModuleForm::Component) => {
                let kind = EngineKind::of(code, ModuleForm::Component, MemoryKind::Pooled);
                EnginesKind::Component(engine(kind)?)
            }
            // A file that is neither a module nor a component is refused before an engine is used.
            _ => {
                let author = EngineKind::Modules(CodeKind::Unchecked, MemoryKind::Own);
                let author = code.has_safepoints().then(|| engine(author)).transpose()?;
                let pooled = engine(EngineKind::Modules(code, MemoryKind::Pooled))?;
                let own = engine(EngineKind::Modules(code, MemoryKind::Own))?;
                EnginesKind::Core { pooled, own, author }
            }
        };
        Ok(Engines { kind, provided })
    }

    /// Returns the engine for what has these memories.
    fn of(&self, memories: MemoryKind) -> &wasmtime::Engine {
        match (&self.kind, memories) {
            (EnginesKind::Component(engine), _) => engine,
            (EnginesKind::Core { pooled, .. }, MemoryKind::Pooled) => pooled,
            (EnginesKind::Core { own, .. }, MemoryKind::Own) => own,
        }
    }
}

/// Returns the first bytes of a file, which say of what form it is.
fn begin(wasm: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut begin = vec![0; 8];
    let len = rustix::io::pread(wasm, &mut begin, 0)?;
    begin.truncate(len);
    Ok(begin)
}

/// A module to be compiled, and the options for it.
struct Source<'a> {
    wasm: &'a [u8],
    code: CodeKind,
    limits: &'a CompileLimits,
    entry: Option<&'a WantedEntry>,
}

/// Returns the bytes of the file that describes the module's outline.
fn outline(_: &LockedDown, engines: &Engines, wasm: &[u8]) -> Result<Vec<u8>, CompileError> {
    let form = diagnose::form(wasm)?;
    let outline = Outlined::of(form, wasm).ok_or_else(no_outline)?;
    let told = describe::outlined(&provided(engines)?, &outline, wasm)?;
    postcard::to_stdvec(&told).map_err(|error| CompileError::Compiler { message: error.to_string() })
}

fn provided(engines: &Engines) -> Result<Provided, CompileError> {
    let failed = |error: wasmtime::Error| CompileError::Compiler { message: format!("{error:#}") };
    (engines.provided.to_modules)(engines.of(MemoryKind::Pooled)).map_err(failed)
}

fn no_outline() -> CompileError {
    CompileError::Invalid { message: "its imports and exports cannot be read".into() }
}

/// Writes the artifact; returns the bytes of the file that describes it.
///
/// # Errors
/// The outer ones are this process's own: its files.
fn compile(
    _: &LockedDown,
    engines: &Engines,
    &Source { wasm, code, limits, entry }: &Source<'_>,
    artifact_file: File,
) -> io::Result<Result<Vec<u8>, CompileError>> {
    let form = match diagnose::form(wasm).and_then(|form| shape::check(wasm, limits).map(|()| form)) {
        Ok(form) => form,
        Err(error) => return Ok(Err(error)),
    };
    // Compiling may take minutes, so everything else that is wrong with the module is reported first.
    let outline = Outlined::of(form, wasm);
    if let Some(outline) = &outline
        && let Err(error) =
            provided(engines).and_then(|provided| describe::loadable(&provided, outline, wasm, entry))
    {
        return Ok(Err(error));
    }
    let choice = choice::choose(wasm, form);
    let engine = engines.of(choice.memories);
    let (artifact, safepoints) = match machine_code(engines, engine, wasm, choice.memories) {
        Ok(made) => made,
        Err(error) => return Ok(Err(diagnose::failure(wasm, &error, limits))),
    };
    if let Some(error) = choice.too_many_memories() {
        return Ok(Err(diagnose::too_large_for_the_pool(&error, limits)));
    }
    let writing = writing("write (of the machine code)", artifact.len());
    (&artifact_file).write_all(&artifact).map_err(writing)?;
    let artifact_bytes = artifact.len() as u64;
    let functions_bytes = match form {
        ModuleForm::Component => {
            let checked = check_component(engines, engine, &artifact, limits);
            drop(artifact);
            checked.map(|()| 0)
        }
        _ => {
            // The machine code is mapped from its file from here on, which costs no memory of this process's own.
            drop(artifact);
            // SAFETY: the bytes come from this very engine, a few lines above, and the host does not write to the file
            // that it gave us.
            let module = unsafe { wasmtime::Module::deserialize_open_file(engine, artifact_file) };
            module
                .map(|module| functions_bytes(&module))
                .map_err(|error| diagnose::too_large_for_the_pool(&error, limits))
        }
    };
    let described = functions_bytes.and_then(|functions_bytes| {
        let outline = outline.ok_or_else(no_outline)?;
        let mut description = describe::describe(&outline, wasm, artifact_bytes, code, choice.memories)?;
        let (table, source_lines) = lines::of(wasm, limits);
        description.source_lines = source_lines;
        let lines_bytes = table.len() as u64;
        let described = Described { artifact_bytes, description, functions_bytes, safepoints, lines_bytes };
        let mut file = artifact::encode(&described)
            .map_err(|error| CompileError::Compiler { message: error.to_string() })?;
        file.extend(table);
        Ok(file)
    });
    Ok(described)
}

/// Checks that a worker has room for an instance of a component, and what it imports.
///
/// # Errors
/// [`CompileError::Unsupported`] where it has no room, [`CompileError::UnknownImports`] with the engine's words: an
/// interface that is provided may lack a function that the component wants.
fn check_component(
    engines: &Engines,
    engine: &wasmtime::Engine,
    artifact: &[u8],
    limits: &CompileLimits,
) -> Result<(), CompileError> {
    // SAFETY: the bytes come from this very engine.
    let component = unsafe { wasmtime::component::Component::deserialize(engine, artifact) }
        .map_err(|error| diagnose::too_large_for_the_pool(&error, limits))?;
    (engines.provided.to_component)(&component)
        .map_err(|error| CompileError::UnknownImports { imports: vec![diagnose::words(&error)] })
}

/// Returns how many bytes at the start of the machine code are functions of the module's. Between two of them there is
/// only what aligns them.
fn functions_bytes(module: &wasmtime::Module) -> u64 {
    const ALIGNMENT_MAX: usize = 64;
    let mut functions: Vec<_> =
        module.functions().map(|function| function.offset..function.offset + function.len).collect();
    functions.sort_by_key(|function| function.start);
    let mut end = 0;
    for function in functions {
        if function.start >= end + ALIGNMENT_MAX {
            break;
        }
        end = function.end;
    }
    end as u64
}

/// Returns whether a module has more memories than one may have. The engine's pool does not refuse all of these: it has room
/// for one more, which may be added for safepoints.
pub fn has_too_many_memories(wasm: &[u8]) -> bool {
    choice::choose(wasm, ModuleForm::Core).too_many_memories().is_some()
}

/// Returns the machine code, and what was added to the module for it.
///
/// # Errors
/// The engine's, which name places in the module as its author wrote it.
fn machine_code(
    engines: &Engines,
    engine: &wasmtime::Engine,
    wasm: &[u8],
    memories: MemoryKind,
) -> wasmtime::Result<(Vec<u8>, Option<Safepoints>)> {
    let EnginesKind::Core { author, .. } = &engines.kind else {
        return Ok((engine.precompile_component(wasm)?, None));
    };
    let Some(author) = author else { return Ok((engine.precompile_module(wasm)?, None)) };
    let compiled = safepoints::insert(wasm, memories).map_err(wasmtime::Error::from).and_then(|with| {
        if with.hides_faults {
            wasmtime::Module::validate(author, wasm)?;
        }
        Ok((engine.precompile_module(&with.wasm)?, Some(with.safepoints)))
    });
    // The engine reads the author's module for the error, since places have moved in the other.
    compiled.map_err(|error| author.precompile_module(wasm).err().unwrap_or(error))
}
