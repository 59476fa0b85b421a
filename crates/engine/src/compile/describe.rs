//! Describes a module: its kind, tasks, imports, exports and memories.

use wasmparser::{FuncType, MemoryType, Parser, Payload, ValType};

use super::component::ComponentOutline;
use super::foreign;
use super::numbers;
use super::outline::{self, Export, Import, Item, Outline};
use crate::Provided;
use proto::description::{
    CodeKind, MemoryDescription, MemoryKind, ModuleDescription, ModuleForm, ModuleKind, ModuleOutline,
    PROGRAM, TaskDescription, UNNAMED_PROGRAM, WantedEntry, find_task,
};
use proto::guest::section;
use proto::imports::Preview;
use proto::limits::{TASK_NAME_BYTES_MAX, TASKS_PER_MODULE_MAX};
use proto::message::CompileError;
use proto::text::truncated;

/// The byte ABI's marker export.
const MARKER: &str = "wasmpool_abi_v1";

/// The outline of a file, in either form.
pub(super) enum Outlined {
    Core(Outline),
    Component(ComponentOutline),
}

impl Outlined {
    /// Reads a file of this form; `None` if it is not valid up to its code.
    pub(super) fn of(form: ModuleForm, wasm: &[u8]) -> Option<Outlined> {
        match form {
            ModuleForm::Component => ComponentOutline::of(wasm).map(Outlined::Component),
            _ => Outline::of(wasm).map(Outlined::Core),
        }
    }
}

/// Checks from its outline that a module can be loaded and has the wanted task or command.
///
/// # Errors
/// [`CompileError::UnknownImports`], [`CompileError::Unsupported`] for what is not linked, [`CompileError::Abi`],
/// [`CompileError::UnknownTask`], [`CompileError::NotACommand`].
pub(super) fn loadable(
    provided: &Provided,
    outline: &Outlined,
    wasm: &[u8],
    entry: Option<&WantedEntry>,
) -> Result<(), CompileError> {
    let unknown = match outline {
        Outlined::Core(outline) => unknown_imports(provided, outline),
        Outlined::Component(component) => component.unknown_imports.clone(),
    };
    if !unknown.is_empty() {
        let imports = shortened(unknown);
        return Err(foreign::unlinked(wasm).unwrap_or(CompileError::UnknownImports { imports }));
    }
    let (kind, tasks) = match outline {
        Outlined::Core(outline) => {
            let kind = kind(outline);
            if kind == ModuleKind::Command && !has_unnamed_program(outline) {
                keeps(outline, PROGRAM, &[], &[])?;
            }
            (kind, tasks_of(kind, outline, wasm)?)
        }
        Outlined::Component(component) => (component_kind(component), component_tasks(component)),
    };
    let Some(WantedEntry { module, task }) = entry else { return Ok(()) };
    let module = module.clone();
    let known = || tasks.iter().map(|task| task.name.clone()).collect::<Vec<_>>();
    match (kind, task) {
        (ModuleKind::Command, _) => Ok(()),
        (_, None) if tasks.is_empty() => Err(CompileError::NotACommand { module, known: known() }),
        (_, Some(name)) if find_task(&tasks, name).is_none() => {
            Err(CompileError::UnknownTask { module, name: name.clone(), known: known() })
        }
        _ => Ok(()),
    }
}

fn component_kind(component: &ComponentOutline) -> ModuleKind {
    match (component.is_command(), component.tasks.is_empty()) {
        (true, _) => ModuleKind::Command,
        (false, false) => ModuleKind::Component,
        (false, true) => ModuleKind::Library,
    }
}

/// Returns the tasks of a component: its functions, but for a command's program.
fn component_tasks(component: &ComponentOutline) -> Vec<TaskDescription> {
    let is_task = |task: &&TaskDescription| component.program.as_ref() != Some(&task.export);
    component.tasks.iter().filter(is_task).cloned().collect()
}

fn kind(outline: &Outline) -> ModuleKind {
    let is_command = has_unnamed_program(outline) || outline.function(PROGRAM).is_some();
    match (outline.export(MARKER).is_some(), is_command) {
        (true, _) => ModuleKind::Tasks,
        (false, true) => ModuleKind::Command,
        (false, false) if numbers::are_there(outline) => ModuleKind::Functions,
        (false, false) => ModuleKind::Library,
    }
}

/// Returns whether the module's program is the export without a name.
fn has_unnamed_program(outline: &Outline) -> bool {
    outline.function(UNNAMED_PROGRAM).is_some_and(|ty| outline::is(ty, &[], &[]))
}

/// Returns the tasks of a module of this kind.
fn tasks_of(kind: ModuleKind, outline: &Outline, wasm: &[u8]) -> Result<Vec<TaskDescription>, CompileError> {
    match kind {
        ModuleKind::Tasks => tasks(outline, wasm),
        ModuleKind::Functions => {
            keeps(outline, "_initialize", &[], &[])?;
            Ok(numbers::tasks(outline, wasm))
        }
        // The program runs whatever `_initialize` is; the functions need one that can be called.
        ModuleKind::Command if keeps(outline, "_initialize", &[], &[]).is_ok() => {
            Ok(numbers::tasks(outline, wasm))
        }
        _ => Ok(Vec::new()),
    }
}

/// Describes a module that [`loadable`] has let through.
pub(super) fn describe(
    outline: &Outlined,
    wasm: &[u8],
    artifact_bytes: u64,
    code: CodeKind,
    memory_kind: MemoryKind,
) -> Result<ModuleDescription, CompileError> {
    let mut description = match outline {
        Outlined::Core(outline) => describe_core(outline, wasm, code, memory_kind)?,
        Outlined::Component(component) => describe_component(component, code, memory_kind),
    };
    description.wasm_bytes = wasm.len() as u64;
    description.machine_code_bytes = artifact_bytes;
    Ok(description)
}

fn describe_component(
    component: &ComponentOutline,
    code: CodeKind,
    memory_kind: MemoryKind,
) -> ModuleDescription {
    let mut description = ModuleDescription::empty(component_kind(component), code, memory_kind);
    description.form = ModuleForm::Component;
    description.tasks = component_tasks(component);
    description.uncallable = component.uncallable.clone();
    description.imports = component.imports.clone();
    description.exports = component.exports.clone();
    description.uses_wasi = component.uses_wasi;
    description.has_start = component.has_start;
    description
}

fn describe_core(
    outline: &Outline,
    wasm: &[u8],
    code: CodeKind,
    memory_kind: MemoryKind,
) -> Result<ModuleDescription, CompileError> {
    let kind = kind(outline);
    let tasks = tasks_of(kind, outline, wasm)?;
    let mut description = ModuleDescription::empty(kind, code, memory_kind);
    description.tasks = tasks;
    description.imports = imports(outline);
    description.exports = exports(outline);
    description.memories = memories(outline);
    description.uses_wasi = outline.imports.iter().any(|import| Preview::is_module(&import.module));
    description.has_initializer = kind == ModuleKind::Tasks && outline.function("wasmpool_init").is_some();
    // Of another type it is no reactor's: a command is run without it, and nothing else is let through.
    description.has_reactor_start =
        outline.function("_initialize").is_some_and(|ty| outline::is(ty, &[], &[]));
    description.has_start = outline.has_start;
    Ok(description)
}

/// Describes the outline of any module, even of one that cannot be loaded.
pub(super) fn outlined(
    provided: &Provided,
    outline: &Outlined,
    wasm: &[u8],
) -> Result<ModuleOutline, CompileError> {
    let outline = match outline {
        Outlined::Core(outline) => outline,
        Outlined::Component(component) => {
            let mut described = ModuleOutline::empty(component_kind(component));
            described.form = ModuleForm::Component;
            described.tasks = component_tasks(component);
            described.uncallable = component.uncallable.clone();
            described.unknown_imports = component.unknown_imports.clone();
            described.imports = component.imports.clone();
            described.exports = component.exports.clone();
            described.wasm_bytes = wasm.len() as u64;
            return Ok(described);
        }
    };
    let kind = kind(outline);
    let mut described = ModuleOutline::empty(kind);
    match tasks_of(kind, outline, wasm) {
        Ok(tasks) => described.tasks = tasks,
        Err(CompileError::Abi { message }) => described.defect = Some(message),
        Err(error) => return Err(error),
    }
    described.unknown_imports = unknown_imports(provided, outline);
    described.imports = imports(outline);
    described.exports = exports(outline);
    described.memories = memories(outline);
    described.wasm_bytes = wasm.len() as u64;
    Ok(described)
}

fn imports(outline: &Outline) -> Vec<String> {
    let show = |Import { module, name, item }: &Import| format!("{module}.{name}: {}", item.show());
    outline.imports.iter().map(show).collect()
}

fn exports(outline: &Outline) -> Vec<String> {
    outline.exports.iter().map(|Export { name, item, .. }| format!("{name}: {}", item.show())).collect()
}

fn memories(outline: &Outline) -> Vec<MemoryDescription> {
    let describe = |memory: &MemoryType| {
        let page_bytes = 1u64.checked_shl(memory.page_size_log2.unwrap_or(16)).unwrap_or(u64::MAX);
        let max_bytes = memory.maximum.map(|pages| pages.saturating_mul(page_bytes));
        MemoryDescription::new(memory.initial.saturating_mul(page_bytes), max_bytes)
    };
    outline.memories().map(describe).collect()
}

/// Lists the imports that the workers' linker does not provide. An import of another type than the host's
/// function is listed with the function's type.
fn unknown_imports(provided: &Provided, outline: &Outline) -> Vec<String> {
    let mut unknown = Vec::new();
    for Import { module, name, item } in &outline.imports {
        let shown = || format!("{module}.{name}: {}", item.show());
        match provided.get(&(module.clone(), name.clone())) {
            Some(provided) => {
                let provided = show_provided(provided);
                if item.show() != provided {
                    unknown.push(format!("{}, which is {provided} here", shown()));
                }
            }
            None => {
                let of = foreign::host_of(module).map(|host| format!(" ({host})")).unwrap_or_default();
                unknown.push(shown() + &of);
            }
        }
    }
    unknown
}

/// Shows a provided function as an import of that type is shown.
fn show_provided(ty: &wasmtime::FuncType) -> String {
    let list = |types: &mut dyn Iterator<Item = wasmtime::ValType>| {
        types.map(|ty| ty.to_string()).collect::<Vec<_>>().join(", ")
    };
    format!("({}) -> ({})", list(&mut ty.params()), list(&mut ty.results()))
}

/// Checks the type of an export, if it exists.
///
/// # Errors
/// [`CompileError::Abi`] if it has another type.
fn keeps(outline: &Outline, name: &str, params: &[ValType], results: &[ValType]) -> Result<(), CompileError> {
    match outline.export(name) {
        Some(Item::Func(ty)) if outline::is(ty, params, results) => Ok(()),
        None => Ok(()),
        Some(item) => {
            let wanted = outline::show(&FuncType::new(params.iter().copied(), results.iter().copied()));
            let message = format!("its export `{name}` is {}, and must be {wanted}", item.show());
            Err(CompileError::Abi { message })
        }
    }
}

/// Shortens a list for a person: it travels in one message.
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

/// Reads the tasks from the custom section; without one, every export of a task's type is a raw task.
fn tasks(outline: &Outline, wasm: &[u8]) -> Result<Vec<TaskDescription>, CompileError> {
    let abi = |message: String| CompileError::Abi { message };
    let memory = matches!(outline.export("memory"), Some(Item::Memory(memory)) if !memory.memory64);
    if !memory {
        return Err(abi("it exports the marker, but no 32-bit `memory`".into()));
    }
    if !outline.function("wasmpool_alloc").is_some_and(|ty| outline::is(ty, &[ValType::I32], &[ValType::I32]))
    {
        return Err(abi("it must export `wasmpool_alloc: (i32) -> i32`".into()));
    }
    keeps(outline, "_initialize", &[], &[])?;
    keeps(outline, "wasmpool_init", &[ValType::I32, ValType::I32], &[ValType::I64])?;
    let mut bytes = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        if let Ok(Payload::CustomSection(custom)) = payload
            && custom.name() == section::NAME
        {
            bytes.extend_from_slice(custom.data());
        }
    }
    let tasks = match bytes.is_empty() {
        true => bare_tasks(outline),
        false => described_tasks(outline, &bytes).map_err(abi)?,
    };
    if tasks.len() > TASKS_PER_MODULE_MAX {
        return Err(abi(format!("it has {} tasks, the limit is {TASKS_PER_MODULE_MAX}", tasks.len())));
    }
    for (index, task) in tasks.iter().enumerate() {
        task.check().map_err(|defect| abi(format!("of the task `{}`: {defect}", task.name)))?;
        if !outline.function(&task.export).is_some_and(is_task) {
            let TaskDescription { name, export, .. } = task;
            return Err(abi(format!("task `{name}` needs an export `{export}: (i32, i32) -> i64`")));
        }
        if tasks[..index].iter().any(|other| other.name == task.name) {
            return Err(abi(format!("two tasks are called `{}`", task.name)));
        }
    }
    Ok(tasks)
}

/// Returns the tasks that the section describes, with the export of each.
fn described_tasks(outline: &Outline, section: &[u8]) -> Result<Vec<TaskDescription>, String> {
    let section::Described { mut tasks, text } = section::records(section)?;
    if text.is_empty() {
        return Ok(tasks);
    }
    let of_text =
        wit::tasks(&text).map_err(|error| format!("the types in its section wasmpool.tasks: {error}"))?;
    for mut task in of_text {
        let names = wit::export_names(&task.name);
        let is_exported = |name: &&String| outline.function(name).is_some_and(is_task);
        task.export = match names.iter().find(is_exported) {
            Some(export) => export.clone(),
            None => {
                let [as_it_is, with_underscores, in_camel_case] = &names;
                return Err(format!(
                    "its section wasmpool.tasks has the function `{}`, and no export (i32, i32) -> i64 is called \
                     `{as_it_is}`, `{with_underscores}` or `{in_camel_case}`",
                    task.name
                ));
            }
        };
        tasks.push(task);
    }
    Ok(tasks)
}

fn bare_tasks(outline: &Outline) -> Vec<TaskDescription> {
    let is_bare = |export: &&Export| {
        export.name != "wasmpool_init" && matches!(&export.item, Item::Func(ty) if is_task(ty))
    };
    outline.exports.iter().filter(is_bare).map(|export| TaskDescription::raw(&export.name)).collect()
}

fn is_task(ty: &FuncType) -> bool {
    outline::is(ty, &[ValType::I32, ValType::I32], &[ValType::I64])
}
