//! The tasks of a module whose types are written as text: the functions of a WIT interface.
//!
//! ```text
//! /// Counts words.
//! words: func(text: string) -> stats;
//! record stats { words: u32, longest: option<string> }
//! ```
//!
//! The text may be the body of an interface, as here, or a whole file with `package`, `interface` and `world`. Modules bring
//! it, so it is a stranger's: its length and its nesting are bounded before the parser sees it, since that calls itself
//! for each type inside of another one, and a schema is never larger than any schema may be.

mod body;
mod embed;
mod schema;
#[cfg(test)]
mod tests;

use wit_parser::{Function, FunctionKind, InterfaceId, Resolve, SourceMap, WorldId, WorldItem};

use proto::description::TaskDescription;
use proto::limits::{TASK_TYPES_BYTES_MAX, TASKS_PER_MODULE_MAX};
use proto::schema::Unfit;
use proto::text::{Name, Words};

use body::Document;

pub use embed::{EmbedError, embed};

/// Says why a text describes no tasks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WitError {
    /// The text is longer than any description may be.
    #[error("the types have {bytes} bytes of text, and {TASK_TYPES_BYTES_MAX} is the limit")]
    TooLong {
        /// The length of the text.
        bytes: usize,
    },
    /// Types are nested deeper than in any schema.
    #[error("line {line}: types are nested deeper than {} levels", proto::limits::SCHEMA_DEPTH_MAX)]
    TooDeep {
        /// The line of the text, from 1.
        line: usize,
    },
    /// The text is not WIT, or names a type that is not there.
    #[error("line {line}, column {column}: {}", Words(message))]
    Syntax {
        /// The line of the text, from 1.
        line: usize,
        /// The column in it, in bytes from 1.
        column: usize,
        /// The parser's words.
        message: String,
    },
    /// There is nothing to call.
    #[error("it has no function; a task is written `name: func(text: string) -> u32;`")]
    NoFunctions,
    /// More functions than a module may have tasks.
    #[error("it has {count} functions, and a module has at most {TASKS_PER_MODULE_MAX} tasks")]
    TooManyFunctions {
        /// The number of functions.
        count: usize,
    },
    /// A function that cannot be a task.
    #[error("of `{}`: {}", Name(function), Words(reason))]
    Function {
        /// Its name.
        function: String,
        /// The reason.
        reason: String,
    },
}

/// Reads the tasks that a text describes, in its order. The export behind each is called like the task; a caller that knows
/// the exports may find it by another of [`export_names`].
///
/// # Errors
/// [`WitError`], with the place in the text.
pub fn tasks(text: &str) -> Result<Vec<TaskDescription>, WitError> {
    let document = Document::of(text)?;
    let mut source = SourceMap::new();
    source.push_str("types.wit", document.whole.as_str());
    let group =
        source.parse().map_err(|(_, error)| document.wrong(error.kind().span(), error.to_string()))?;
    let mut resolve = Resolve::new();
    let package =
        resolve.push_group(group).map_err(|error| document.wrong(error.kind().span(), error.to_string()))?;
    let package = &resolve.packages[package];
    let mut functions = Vec::new();
    match package.worlds.is_empty() {
        true => package.interfaces.values().for_each(|id| of_interface(&resolve, *id, &mut functions)),
        false => package.worlds.values().for_each(|id| of_world(&resolve, *id, &mut functions)),
    }
    match functions.len() {
        0 => return Err(WitError::NoFunctions),
        1..=TASKS_PER_MODULE_MAX => {}
        count => return Err(WitError::TooManyFunctions { count }),
    }
    functions.into_iter().map(|function| task(&resolve, function)).collect()
}

/// Returns the names of exports that a task of this name may have, the likeliest first: compilers of most languages cannot
/// export a name with hyphens.
pub fn export_names(task: &str) -> [String; 3] {
    let mut words = task.split('-');
    let mut camel = words.next().unwrap_or_default().to_string();
    for word in words {
        let mut chars = word.chars();
        camel.extend(chars.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(chars.as_str());
    }
    [task.to_string(), task.replace('-', "_"), camel]
}

fn of_interface<'a>(resolve: &'a Resolve, id: InterfaceId, functions: &mut Vec<&'a Function>) {
    functions.extend(resolve.interfaces[id].functions.values());
}

/// Only what a world exports is the module's own.
fn of_world<'a>(resolve: &'a Resolve, id: WorldId, functions: &mut Vec<&'a Function>) {
    for item in resolve.worlds[id].exports.values() {
        match item {
            WorldItem::Function(function) => functions.push(function),
            WorldItem::Interface { id, .. } => of_interface(resolve, *id, functions),
            WorldItem::Type { .. } => {}
        }
    }
}

fn task(resolve: &Resolve, function: &Function) -> Result<TaskDescription, WitError> {
    let unfit = |reason: String| WitError::Function { function: function.name.clone(), reason };
    match function.kind {
        FunctionKind::Freestanding => {}
        FunctionKind::AsyncFreestanding => {
            return Err(unfit("it is asynchronous: a task is called and returns".into()));
        }
        _ => return Err(unfit(Unfit::Handle("a resource").to_string())),
    }
    let params: Vec<_> = function.params.iter().map(|param| param.ty).collect();
    let input =
        schema::of_values(resolve, &params).map_err(|why| unfit(format!("of its parameters, {why}")))?;
    let (output, error) =
        schema::of_result(resolve, function.result).map_err(|why| unfit(format!("of its result, {why}")))?;
    let doc = function.docs.contents.as_deref().unwrap_or_default().trim();
    let params = function.params.iter().map(|param| param.name.clone()).collect();
    let task = TaskDescription::json(&function.name, doc, params, input, output, error);
    task.check().map_err(|defect| unfit(defect.to_string()))?;
    Ok(task)
}
