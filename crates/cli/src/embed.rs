//! `wasmpool embed`: the types of a module's tasks, put into the module as text.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;

use serde_json::Value;

use super::args::EmbedArgs;
use super::console;
use super::exit::{Exit, Failure};
use super::input;
use super::inspect::{task_to_json, write_task};
use super::object::Object;
use super::settings::Settings;
use files::OpenError;
use proto::limits::TASK_TYPES_BYTES_MAX;
use proto::text::Name;
use wasmpool::module::ModuleOutline;

/// This path stands for stdout.
const STDOUT: &str = "-";

/// A longer module could not be loaded either.
const MODULE_BYTES_MAX: usize = 1 << 30;

pub(super) fn embed(args: &EmbedArgs, settings: &Settings) -> Result<Exit, Failure> {
    let EmbedArgs { types, module, output, json } = args;
    let text = input::read_part(&settings.files, types, "a module's types", TASK_TYPES_BYTES_MAX)?;
    let text = String::from_utf8(text).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        Failure::Input(format!("{} is not UTF-8 at byte {place}", types.display()))
    })?;
    let wasm = input::read_part(&settings.files, module, "modules", MODULE_BYTES_MAX)?;
    let embedded = wit::embed(&wasm, &text).map_err(|error| match error {
        wit::EmbedError::Types(error) => Failure::Input(format!("{}: {error}", types.display())),
        error => Failure::Uncallable(format!("{}: {error}", module.display())),
    })?;
    // Only the compiler's process can tell whether each function is exported as a task.
    let pool = settings.pool(Some(1))?;
    let outline = pool
        .outline(&embedded)
        .map_err(|error| Failure::Load { file: module.clone(), error: error.into() })?;
    check(module, &outline)?;
    let to = output.as_deref().unwrap_or(module);
    let written = match output {
        Some(path) => write_output(settings, path, &embedded),
        None => replace(settings, module, &embedded),
    };
    written.map_err(|error| {
        Failure::Usage(format!("cannot write {}: {}", to.display(), std::io::Error::from(error)))
    })?;
    if to.as_os_str() == STDOUT {
        return Ok(Exit::Success);
    }
    if *json {
        let tasks: Value = outline.tasks.iter().map(task_to_json).collect();
        let object = Object::new().field("ok", true).field("file", to.display().to_string());
        console::print_line(&object.field("tasks", tasks).finish())?;
        return Ok(Exit::Success);
    }
    let count = outline.tasks.len();
    let tasks = if count == 1 { "task" } else { "tasks" };
    let mut page = format!("{} has {count} {tasks}:\n", Name(to.display().to_string()));
    for task in &outline.tasks {
        // Writing to a String cannot fail.
        let _ = write_task(&mut page, task);
    }
    console::print_page(page)?;
    Ok(Exit::Success)
}

/// Says what keeps the functions from being tasks.
fn check(module: &Path, outline: &ModuleOutline) -> Result<(), Failure> {
    if let Some(defect) = &outline.defect {
        return Err(Failure::Uncallable(format!("{}: {}", module.display(), Name(defect))));
    }
    if outline.tasks.iter().any(|task| task.codec == wasmpool::module::Codec::Json) {
        return Ok(());
    }
    Err(Failure::Uncallable(format!(
        "{}: it does not keep to the byte ABI: it must export memory, wasmpool_abi_v1: () -> (), wasmpool_alloc: (i32) -> \
         (i32), and each task as (i32, i32) -> (i64); see guest-tasks/README.md",
        module.display()
    )))
}

/// Writes a file beside the module; `-` stands for stdout.
fn write_output(settings: &Settings, path: &Path, module: &[u8]) -> Result<(), OpenError> {
    let path = if path.as_os_str() == STDOUT { Path::new("/dev/stdout") } else { path };
    let mut file = settings.files.replace(path, "the typed module")?.file;
    Ok(file.write_all(module).and_then(|()| file.flush())?)
}

/// Replaces the module itself, as a whole or not at all.
fn replace(settings: &Settings, path: &Path, module: &[u8]) -> Result<(), OpenError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let folder = settings.files.make_folder(parent, 0o777)?;
    let name = path.file_name().unwrap_or(OsStr::new("module.wasm"));
    Ok(folder.replace_by(name, "new", |file| file.write_all(module))?)
}
