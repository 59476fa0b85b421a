//! Tasks of a module that keeps to no ABI: its exported functions over numbers. A command may have some beside its
//! program.

use std::collections::HashMap;

use wasmparser::{FuncType, KnownCustom, Name, NameSectionReader, Parser, Payload, ValType};

use super::outline::{Export, Item, Outline};
use proto::description::{NumberType, PROGRAM, TaskDescription};
use proto::limits::{SCHEMA_NAMES_BYTES_MAX, TASK_NAME_BYTES_MAX, TASKS_PER_MODULE_MAX};
use proto::text::is_blank;

/// A reactor's constructors are called first, and are no task.
const REACTOR_START: &str = "_initialize";

/// Returns whether the module has any.
pub(super) fn are_there(outline: &Outline) -> bool {
    functions(outline).next().is_some()
}

/// Returns the tasks, at most as many as a module may have; further functions cannot be called. Functions that tool-chains
/// export beside a program's own (`malloc`) are among them, since nothing tells them apart.
pub(super) fn tasks(outline: &Outline, wasm: &[u8]) -> Vec<TaskDescription> {
    let functions: Vec<_> = functions(outline).take(TASKS_PER_MODULE_MAX).collect();
    let names = parameter_names(wasm, &functions);
    // A function may be exported many times, and each task has names of its own.
    let mut left = SCHEMA_NAMES_BYTES_MAX;
    let task = |(export, function): &(&Export, Function)| {
        let names = names.get(&export.index).filter(|names| {
            let bytes: usize = names.iter().map(String::len).sum();
            left = left.saturating_sub(bytes);
            left > 0
        });
        let names = names.cloned().unwrap_or_default();
        TaskDescription::numbers(&export.name, names, &function.params, &function.results)
    };
    functions.iter().map(task).filter(|task| task.check().is_ok()).collect()
}

struct Function {
    params: Vec<NumberType>,
    results: Vec<NumberType>,
}

fn functions(outline: &Outline) -> impl Iterator<Item = (&Export, Function)> {
    // Imported functions come first. One of the host's works on the memory of the module that calls it, and here none does.
    let imports = outline.imports.iter().filter(|import| matches!(import.item, Item::Func(_))).count();
    let has_a_name = |name: &str| !is_blank(name) && name.len() <= TASK_NAME_BYTES_MAX;
    let can_be_one = move |export: &&Export| {
        let name = export.name.as_str();
        !matches!(name, REACTOR_START | PROGRAM) && has_a_name(name) && export.index as usize >= imports
    };
    outline.exports.iter().filter(can_be_one).filter_map(|export| {
        let Item::Func(ty) = &export.item else { return None };
        Some((export, Function::of(ty)?))
    })
}

impl Function {
    fn of(ty: &FuncType) -> Option<Function> {
        let numbers = |types: &[ValType]| types.iter().map(|ty| number(*ty)).collect::<Option<Vec<_>>>();
        Some(Function { params: numbers(ty.params())?, results: numbers(ty.results())? })
    }
}

fn number(ty: ValType) -> Option<NumberType> {
    match ty {
        ValType::I32 => Some(NumberType::I32),
        ValType::I64 => Some(NumberType::I64),
        ValType::F32 => Some(NumberType::F32),
        ValType::F64 => Some(NumberType::F64),
        ValType::V128 | ValType::Ref(_) => None,
    }
}

/// Returns the names of the functions' parameters by the functions' numbers, as far as the module's section of names has them.
/// Nothing depends on it, so what is malformed there is left out.
fn parameter_names(wasm: &[u8], functions: &[(&Export, Function)]) -> HashMap<u32, Vec<String>> {
    let counts: HashMap<u32, usize> =
        functions.iter().map(|(export, function)| (export.index, function.params.len())).collect();
    let mut names = HashMap::new();
    for payload in Parser::new(0).parse_all(wasm) {
        let Ok(payload) = payload else { break };
        if let Payload::CustomSection(section) = payload
            && let KnownCustom::Name(reader) = section.as_known()
        {
            read_names(reader, &counts, &mut names);
        }
    }
    names
}

fn read_names(
    reader: NameSectionReader<'_>,
    counts: &HashMap<u32, usize>,
    names: &mut HashMap<u32, Vec<String>>,
) {
    let locals = reader.into_iter().filter_map(|subsection| match subsection {
        Ok(Name::Local(locals)) => Some(locals),
        _ => None,
    });
    for function in locals.flatten().filter_map(Result::ok) {
        let Some(count) = counts.get(&function.index) else { continue };
        // A function's parameters are its first locals, in order.
        let named = function.names.into_iter().map_while(Result::ok).take(*count);
        let in_order =
            named.zip(0..).map_while(|(naming, index)| (naming.index == index).then_some(naming.name));
        let short = in_order.take_while(|name| name.len() <= TASK_NAME_BYTES_MAX);
        names.insert(function.index, short.map(String::from).collect());
    }
}
