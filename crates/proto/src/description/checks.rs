//! Checks of what a module says of its tasks, for the compiler and for those who read its description.

use std::collections::HashSet;

use super::{Codec, ModuleDescription, TaskDescription};
use crate::limits::{SCHEMA_NODES_MAX, TASK_DOC_BYTES_MAX, TASK_NAME_BYTES_MAX, TASKS_PER_MODULE_MAX};
use crate::schema::{Node, SchemaError, TypeSchema, check_distinct};
use crate::text::{Name, is_blank};

/// A task is refused for one of these.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskDefect {
    /// It exceeds a bound of `limits.rs`.
    #[error("a name, a doc comment or a list of arguments is too long")]
    TooLong,
    #[error("its name, or its export's, is blank")]
    Blank,
    #[error("of its arguments, {0}")]
    Arguments(SchemaError),
    #[error("it names {names} arguments, and its input is {}", Name(input))]
    ArgumentCount { names: usize, input: String },
    #[error("its types are malformed: {0}")]
    Types(SchemaError),
}

impl TaskDescription {
    /// Holds it to its bounds.
    pub fn check(&self) -> Result<(), TaskDefect> {
        let mut names = self.params.iter().chain([&self.name, &self.export]);
        if names.any(|name| name.len() > TASK_NAME_BYTES_MAX)
            || self.doc.len() > TASK_DOC_BYTES_MAX
            || self.params.len() > SCHEMA_NODES_MAX
        {
            return Err(TaskDefect::TooLong);
        }
        if is_blank(&self.name) || is_blank(&self.export) {
            return Err(TaskDefect::Blank);
        }
        let types = [Some(&self.input), Some(&self.output), self.error.as_ref()];
        types.into_iter().flatten().try_for_each(TypeSchema::check).map_err(TaskDefect::Types)?;
        check_distinct(self.params.iter()).map_err(TaskDefect::Arguments)?;
        let is_fitting = match (self.params.len(), self.codec, self.input.root()) {
            (1, ..) | (0, Codec::Raw, _) | (0, _, Node::Unit) => true,
            (names, Codec::Postcard | Codec::Json, Node::Tuple(types)) => names == types.len(),
            _ => false,
        };
        match is_fitting {
            true => Ok(()),
            false => Err(TaskDefect::ArgumentCount {
                names: self.params.len(),
                input: self.input.show_inside(self.input.root()),
            }),
        }
    }
}

impl ModuleDescription {
    /// Holds a description that came over a wire to its bounds.
    pub fn is_well_formed(&self) -> bool {
        are_well_formed(&self.tasks)
    }
}

/// Returns whether a module may have these tasks.
pub(super) fn are_well_formed(tasks: &[TaskDescription]) -> bool {
    let mut names = HashSet::new();
    tasks.len() <= TASKS_PER_MODULE_MAX
        && tasks.iter().all(|task| task.check().is_ok() && names.insert(&task.name))
}
