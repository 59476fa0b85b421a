//! What is in a module: kind, tasks, imports, exports, memories.

use wasmparser::{Parser, Payload};
use wasmtime::{Engine, ExternType, FuncType, Module, ValType};

use super::section;
use crate::error::ModuleError;
use crate::limits::{TASK_NAME_BYTES_MAX, TASKS_PER_MODULE_MAX};
use crate::module::{
    CodeKind, Codec, MemoryDescription, MemoryKind, ModuleDescription, ModuleKind, TaskDescription,
};
use crate::schema::Schema;
use crate::text::truncated;
use crate::worker;

/// The byte ABI's marker export and custom section.
const MARKER: &str = "wasmpool_abi_v1";
const SECTION: &str = "wasmpool.tasks";

/// # Errors
/// [`ModuleError::UnknownImports`], [`ModuleError::Abi`].
pub(super) fn describe(
    engine: &Engine,
    module: &Module,
    wasm: &[u8],
    artifact_bytes: u64,
    code: CodeKind,
    memory_kind: MemoryKind,
) -> Result<ModuleDescription, ModuleError> {
    known_imports(engine, module)?;
    let has_function = |name: &str| matches!(module.get_export(name), Some(ExternType::Func(_)));
    let is_tasks = module.get_export(MARKER).is_some();
    let kind = match (is_tasks, has_function("_start")) {
        (true, _) => ModuleKind::Tasks,
        (false, true) => ModuleKind::Command,
        (false, false) => ModuleKind::Library,
    };
    let tasks = if is_tasks { tasks(module, wasm)? } else { Vec::new() };
    let memories = module
        .imports()
        .map(|import| import.ty())
        .chain(module.exports().map(|export| export.ty()))
        .filter_map(|ty| ty.memory().cloned())
        .map(|memory| MemoryDescription {
            min_bytes: memory.minimum().saturating_mul(memory.page_size()),
            max_bytes: memory.maximum().map(|pages| pages.saturating_mul(memory.page_size())),
        })
        .collect();
    let imports = module
        .imports()
        .map(|import| format!("{}.{}: {}", import.module(), import.name(), show(&import.ty())))
        .collect();
    Ok(ModuleDescription {
        kind,
        tasks,
        imports,
        exports: module
            .exports()
            .map(|export| format!("{}: {}", export.name(), show(&export.ty())))
            .collect(),
        memories,
        uses_wasi: module.imports().any(|import| import.module() == worker::WASI_MODULE),
        has_initializer: has_function("wasmpool_init"),
        has_reactor_start: kind != ModuleKind::Command && has_function("_initialize"),
        has_start: has_start(wasm),
        memory_kind,
        metered: code.is_metered(),
        deterministic: code.is_deterministic(),
        interrupt: code.interrupt(),
        wasm_bytes: wasm.len() as u64,
        machine_code_bytes: artifact_bytes,
    })
}

fn has_start(wasm: &[u8]) -> bool {
    let mut sections = Parser::new(0).parse_all(wasm);
    sections.any(|payload| matches!(payload, Ok(Payload::StartSection { .. })))
}

fn known_imports(engine: &Engine, module: &Module) -> Result<(), ModuleError> {
    let refused = |error: wasmtime::Error| ModuleError::Compiler { message: format!("{error:#}") };
    let linker = worker::linker(engine, true).map_err(refused)?;
    let mut store = wasmtime::Store::new(engine, worker::TaskState::for_linking());
    let imports: Vec<_> = module
        .imports()
        .filter(|import| linker.get_by_import(&mut store, import).is_none())
        .map(|import| format!("{}.{}: {}", import.module(), import.name(), show(&import.ty())))
        .collect();
    if !imports.is_empty() {
        return Err(ModuleError::UnknownImports { imports: shortened(imports) });
    }
    // Known by name; now the types.
    linker
        .instantiate_pre(module)
        .map(|_| ())
        .map_err(|error| ModuleError::UnknownImports { imports: vec![format!("{error:#}")] })
}

/// At most so many, each at most so long: the list travels in one message, to be read.
fn shortened(mut imports: Vec<String>) -> Vec<String> {
    const IMPORTS_MAX: usize = 100;
    let more = imports.len().saturating_sub(IMPORTS_MAX);
    imports.truncate(IMPORTS_MAX);
    let mut imports: Vec<_> = imports.iter().map(|import| truncated(import, TASK_NAME_BYTES_MAX)).collect();
    if more > 0 {
        imports.push(format!("and {more} more"));
    }
    imports
}

/// From the custom section; without one, every export of a task's type is a raw task.
fn tasks(module: &Module, wasm: &[u8]) -> Result<Vec<TaskDescription>, ModuleError> {
    let abi = |message: String| ModuleError::Abi { message };
    let memory = matches!(module.get_export("memory"), Some(ExternType::Memory(memory)) if !memory.is_64());
    if !memory {
        return Err(abi("it exports the marker, but no 32-bit `memory`".into()));
    }
    match module.get_export("wasmpool_alloc") {
        Some(ExternType::Func(ty)) if is(&ty, &[ValType::I32], &[ValType::I32]) => {}
        _ => return Err(abi("it must export `wasmpool_alloc: (i32) -> i32`".into())),
    }
    let mut bytes = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        if let Ok(Payload::CustomSection(custom)) = payload
            && custom.name() == SECTION
        {
            bytes.extend_from_slice(custom.data());
        }
    }
    let tasks = if bytes.is_empty() { bare_tasks(module) } else { section::records(&bytes).map_err(abi)? };
    if tasks.len() > TASKS_PER_MODULE_MAX {
        return Err(abi(format!("it has {} tasks, the limit is {TASKS_PER_MODULE_MAX}", tasks.len())));
    }
    for (index, task) in tasks.iter().enumerate() {
        if !task.is_well_formed() {
            return Err(abi(section::TOO_LONG.into()));
        }
        match module.get_export(&task.export) {
            Some(ExternType::Func(ty)) if is_task(&ty) => {}
            _ => {
                let TaskDescription { name, export, .. } = task;
                return Err(abi(format!("task `{name}` needs an export `{export}: (i32, i32) -> i64`")));
            }
        }
        if tasks[..index].iter().any(|other| other.name == task.name) {
            return Err(abi(format!("two tasks are called `{}`", task.name)));
        }
    }
    Ok(tasks)
}

fn bare_tasks(module: &Module) -> Vec<TaskDescription> {
    let is_init = |name: &str| name == "wasmpool_init";
    module
        .exports()
        .filter(|export| {
            !is_init(export.name()) && matches!(export.ty(), ExternType::Func(ty) if is_task(&ty))
        })
        .map(|export| TaskDescription {
            name: export.name().to_string(),
            doc: String::new(),
            export: export.name().to_string(),
            codec: Codec::Raw,
            params: Vec::new(),
            input: Schema::raw_bytes(),
            output: Schema::raw_bytes(),
        })
        .collect()
}

fn is_task(ty: &FuncType) -> bool {
    is(ty, &[ValType::I32, ValType::I32], &[ValType::I64])
}

fn is(ty: &FuncType, params: &[ValType], results: &[ValType]) -> bool {
    let same = |have: Vec<ValType>, want: &[ValType]| {
        have.len() == want.len() && have.iter().zip(want).all(|(have, want)| ValType::eq(have, want))
    };
    same(ty.params().collect(), params) && same(ty.results().collect(), results)
}

fn show(ty: &ExternType) -> String {
    match ty {
        ExternType::Func(ty) => {
            let list = |types: &mut dyn Iterator<Item = ValType>| {
                types.map(|ty| ty.to_string()).collect::<Vec<_>>().join(", ")
            };
            format!("({}) -> ({})", list(&mut ty.params()), list(&mut ty.results()))
        }
        ExternType::Global(ty) => format!("global {}", ty.content()),
        ExternType::Table(_) => "table".into(),
        ExternType::Memory(memory) => format!("memory, {} pages", memory.minimum()),
        ExternType::Tag(_) => "tag".into(),
    }
}
