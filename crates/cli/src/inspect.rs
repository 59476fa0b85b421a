//! `wasmpool inspect`: what a module is and which tasks it has.

mod types;

use std::fmt::{self, Display, Write as _};

use anstyle::{AnsiColor, Style};
use bytesize::ByteSize;
use serde_json::{Value, json};

use super::args::InspectArgs;
use super::console;
use super::exit::{Exit, Failure};
use super::object::{self, Object};
use super::settings::{self, Settings};
use proto::imports::Preview;
use proto::schema::Node;
use proto::text::{Escaped, Name};
use types::TypeDefinition;
use wasmpool::internal;
use wasmpool::module::Digest;
use wasmpool::module::{
    Codec, MemoryDescription, ModuleDescription, ModuleForm, ModuleKind, ModuleOptions, ModuleOutline,
    SourceLines, TaskDescription, UncallableFunction,
};
use wasmpool::{Module, Pool};

const HEADING: Style = Style::new().bold();
const NAME: Style = AnsiColor::Green.on_default().bold();
const DOC: Style = Style::new().dimmed();

pub(super) fn inspect(args: &InspectArgs, settings: &Settings) -> Result<Exit, Failure> {
    let pool = settings.pool(Some(1))?;
    let module = match settings::load(&pool, &args.module, ModuleOptions::new()) {
        Ok(module) => module,
        Err(failure) => return unloadable(&pool, args, failure),
    };
    let types = types::collect(&module.description().tasks);
    if args.json {
        console::print_line(&to_json(&module, &types))?;
        return Ok(Exit::Success);
    }
    let mut page = String::new();
    // Writing to a String cannot fail.
    let _ = write_page(&mut page, &module, &types);
    console::print_page(page)?;
    Ok(Exit::Success)
}

/// Shows what can be read of a module that cannot be loaded, and why it cannot be. A file that is no module has its
/// digest and its size to show.
fn unloadable(pool: &Pool, args: &InspectArgs, failure: Failure) -> Result<Exit, Failure> {
    let Ok((digest, bytes)) = internal::digest_file(pool, &args.module) else { return Err(failure) };
    let outline = pool.outline_file(&args.module).ok();
    if args.json {
        let object = Object::new()
            .field("ok", false)
            .raw("error", &object::error(&failure))
            .field("sha256", digest.to_string())
            .field("wasm_bytes", bytes);
        let object = match outline {
            None => object,
            Some(outline) => object
                .field("kind", outline.kind.name())
                .field("memories", memories_to_json(&outline.memories))
                .field("form", outline.form.name())
                .field("tasks", outline.tasks.iter().map(task_to_json).collect::<Value>())
                .field("uncallable", uncallable_to_json(&outline.uncallable))
                .field("imports", outline.imports)
                .field("unknown_imports", outline.unknown_imports)
                .field("exports", outline.exports)
                .field("defect", outline.defect),
        };
        console::print_line(&object.finish())?;
        return Ok(failure.exit());
    }
    let mut page = String::new();
    // Writing to a String cannot fail.
    let _ = write_head(&mut page, args, digest, bytes, outline.as_ref())
        .and_then(|()| outline.map_or(Ok(()), |outline| write_outline(&mut page, &outline)));
    console::print_page(page)?;
    Err(failure)
}

/// Returns the versions of WASI that a module imports. A component names them itself.
fn previews(imports: &[String]) -> impl Iterator<Item = Preview> {
    let is_of = |import: &String, preview: Preview| {
        import.strip_prefix(preview.module()).is_some_and(|rest| rest.starts_with('.'))
    };
    Preview::ALL.into_iter().filter(move |preview| imports.iter().any(|import| is_of(import, *preview)))
}

fn write_head(
    page: &mut String,
    args: &InspectArgs,
    digest: Digest,
    bytes: u64,
    outline: Option<&ModuleOutline>,
) -> fmt::Result {
    let name = args.module.file_name().unwrap_or_default().to_string_lossy();
    let kind = outline.map_or("no module".into(), |outline| outline.kind.to_string());
    writeln!(page, "{NAME}{}{NAME:#}  {kind}, which cannot be loaded", Name(name))?;
    row(page, "sha256", digest)?;
    row(page, "wasm", ByteSize::b(bytes).display().iec())
}

fn write_outline(page: &mut String, outline: &ModuleOutline) -> fmt::Result {
    for memory in &outline.memories {
        row(page, "memory", show_memory(memory))?;
    }
    let lists = [
        ("exports", &outline.exports),
        ("imports", &outline.imports),
        ("not provided", &outline.unknown_imports),
    ];
    for (name, items) in lists {
        row(page, name, items.len())?;
        for item in items {
            writeln!(page, "    {}", Name(item))?;
        }
    }
    if !outline.tasks.is_empty() {
        writeln!(page, "\n{HEADING}tasks{HEADING:#}")?;
    }
    for task in &outline.tasks {
        write_task(page, task)?;
    }
    write_reasons(page, &outline.uncallable)
}

fn memories_to_json(memories: &[MemoryDescription]) -> Value {
    let of_one =
        |memory: &MemoryDescription| json!({"min_bytes": memory.min_bytes, "max_bytes": memory.max_bytes});
    memories.iter().map(of_one).collect()
}

fn write_page(page: &mut String, module: &Module, types: &[TypeDefinition]) -> fmt::Result {
    let description = module.description();
    writeln!(page, "{NAME}{}{NAME:#}  {}", Name(module.name()), description.kind)?;
    row(page, "sha256", module.digest())?;
    row(page, "wasm", ByteSize::b(description.wasm_bytes).display().iec())?;
    let origin = if module.from_cache() { "from the cache" } else { "compiled now" };
    let machine_code = ByteSize::b(description.machine_code_bytes);
    row(page, "machine code", format_args!("{}, {origin}", machine_code.display().iec()))?;
    for memory in &description.memories {
        row(page, "memory", show_memory(memory))?;
    }
    if let Some(lines) = show_lines(description.source_lines) {
        row(page, "source lines", lines)?;
    }
    if description.has_initializer {
        row(page, "initializer", "yes")?;
    }
    row(page, "exports", description.exports.len())?;
    for preview in previews(&description.imports) {
        row(page, "WASI", format_args!("{preview} ({})", preview.module()))?;
    }
    row(page, "imports", description.imports.len())?;
    for import in &description.imports {
        writeln!(page, "    {}", Name(import))?;
    }
    if !description.tasks.is_empty() {
        writeln!(page, "\n{HEADING}tasks{HEADING:#}")?;
    }
    for task in &description.tasks {
        write_task(page, task)?;
    }
    let is_command_with_tasks = description.kind == ModuleKind::Command && !description.tasks.is_empty();
    let has_numbers = description.kind == ModuleKind::Functions || is_command_with_tasks;
    if has_numbers && description.form == ModuleForm::Core {
        write_uncallable(page, description)?;
    }
    write_reasons(page, &description.uncallable)?;
    if !types.is_empty() {
        writeln!(page, "\n{HEADING}types{HEADING:#}")?;
    }
    for definition in types {
        for line in definition.text().lines() {
            writeln!(page, "  {}", Escaped(line))?;
        }
    }
    Ok(())
}

/// Writes which functions of a component cannot be called, and why.
fn write_reasons(page: &mut String, uncallable: &[UncallableFunction]) -> fmt::Result {
    if !uncallable.is_empty() {
        writeln!(page, "\n{HEADING}not callable{HEADING:#}")?;
    }
    for function in uncallable {
        writeln!(page, "  {}: {}", Name(&function.export), Name(&function.reason))?;
    }
    Ok(())
}

fn uncallable_to_json(uncallable: &[UncallableFunction]) -> Value {
    uncallable.iter().map(|function| json!({"export": function.export, "reason": function.reason})).collect()
}

/// Writes which functions of a module without an ABI cannot be called, and which should not be.
fn write_uncallable(page: &mut String, description: &ModuleDescription) -> fmt::Result {
    let is_task = |name: &str| description.tasks.iter().any(|task| task.export == name);
    let others = description.exports.iter().filter_map(|export| export.rsplit_once(": "));
    let is_the_worlds = |name: &str| ["_initialize", "_start", ""].contains(&name);
    let others = others.filter(|(name, ty)| ty.contains(") -> (") && !is_the_worlds(name) && !is_task(name));
    let (of_numbers, others): (Vec<_>, Vec<_>) = others.partition(|(_, ty)| is_over_numbers(ty));
    let lists = [
        (others, "since they take or return what is no number"),
        (
            of_numbers,
            "since they are imported, have a name that a task cannot have, or are more than a module may have tasks",
        ),
    ];
    for (functions, why) in lists.iter().filter(|(functions, _)| !functions.is_empty()) {
        writeln!(page, "\n{HEADING}not callable{HEADING:#}, {why}")?;
        for (name, ty) in functions {
            writeln!(page, "  {}: {ty}", Name(name))?;
        }
    }
    if !description.memories.is_empty() {
        writeln!(
            page,
            "\n  An i32 may be a place in the module's memory, where no input can be put: text and bytes need the byte \
             ABI\n  (guest-tasks/README.md)."
        )?;
    }
    Ok(())
}

/// Returns whether a function's type, as it is shown, is one over numbers.
fn is_over_numbers(ty: &str) -> bool {
    let mut words = ty.split(['(', ')', ',', ' ']).filter(|word| !word.is_empty());
    words.all(|word| ["i32", "i64", "f32", "f64", "->"].contains(&word))
}

pub(super) fn write_task(page: &mut String, task: &TaskDescription) -> fmt::Result {
    let signature = task.signature();
    // The signature is escaped in the same way, so it begins with the escaped name.
    let name = Name(&task.name).to_string();
    let rest = signature.strip_prefix(&name).unwrap_or(&signature);
    let untyped = if task.codec == Codec::Raw { "  (untyped: bytes as they are)" } else { "" };
    writeln!(page, "  {NAME}{}{NAME:#}{}{untyped}", name, rest)?;
    for line in task.doc.trim().lines() {
        writeln!(page, "      {DOC}{}{DOC:#}", Name(line.trim()))?;
    }
    Ok(())
}

fn row(page: &mut String, name: &str, value: impl Display) -> fmt::Result {
    writeln!(page, "  {name:<14}{value}")
}

fn show_memory(memory: &MemoryDescription) -> String {
    let show = |bytes| ByteSize::b(bytes).display().iec().to_string();
    match memory.max_bytes {
        Some(max) => format!("{}, at most {}", show(memory.min_bytes), show(max)),
        None => format!("{}, no maximum of its own", show(memory.min_bytes)),
    }
}

/// Says whether backtraces name lines; nothing of a module without debug information.
fn show_lines(lines: SourceLines) -> Option<&'static str> {
    match lines {
        SourceLines::Known => Some("known, from its debug information"),
        SourceLines::Damaged => Some("known in part: some of its debug information is damaged"),
        SourceLines::TooMuch => Some("known in part: its debug information goes beyond the bounds"),
        _ => None,
    }
}

fn to_json(module: &Module, types: &[TypeDefinition]) -> String {
    let ModuleDescription { kind, tasks, imports, exports, memories, .. } = module.description();
    let description = module.description();
    let kind = kind.name();
    let memories = memories_to_json(memories);
    let types: Value =
        types.iter().map(|ty| json!({"kind": ty.kind, "name": ty.name, "definition": ty.text()})).collect();
    Object::new()
        .field("ok", true)
        .field("name", module.name())
        .field("kind", kind)
        .field("sha256", module.digest().to_string())
        .field("wasm_bytes", description.wasm_bytes)
        .field("machine_code_bytes", description.machine_code_bytes)
        .field("source_lines", description.source_lines.name())
        .field("from_cache", module.from_cache())
        .field("uses_wasi", description.uses_wasi)
        .field("has_initializer", description.has_initializer)
        .field("memories", memories)
        .field("form", description.form.name())
        .field("tasks", tasks.iter().map(task_to_json).collect::<Value>())
        .field("uncallable", uncallable_to_json(&description.uncallable))
        .field("types", types)
        .field("imports", imports.clone())
        .field("exports", exports.clone())
        .finish()
}

pub(super) fn task_to_json(task: &TaskDescription) -> Value {
    let show = |node: &Node| task.input.show_inside(node);
    let types: Vec<String> = match (task.params.len(), task.input.root()) {
        (many, Node::Tuple(ids)) if many > 1 && many == ids.len() => {
            ids.iter().map(|id| show(task.input.node(*id))).collect()
        }
        (1, root) => vec![show(root)],
        _ => Vec::new(),
    };
    let params: Value =
        task.params.iter().zip(types).map(|(name, ty)| json!({"name": name, "type": ty})).collect();
    json!({
        "name": task.name,
        "signature": task.signature(),
        "doc": task.doc,
        "codec": task.codec.name(),
        "convention": task.convention.name(),
        "params": params,
        "output": task.output.show_inside(task.output.root()),
        "error": task.error.as_ref().map(|error| error.show_inside(error.root())),
    })
}
