//! Remembers where the value of each setting comes from, for errors that say so.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::sync::OnceLock;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue};

/// The place that a value comes from.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// The flag of this name, without dashes.
    Flag(&'static str),
    Variable(String),
    /// A file's path.
    File(String),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(name) => write!(f, "the flag --{name}"),
            Origin::Variable(name) => write!(f, "the environment variable {name}"),
            Origin::File(path) => f.write_str(path),
            Origin::Default => f.write_str("the default"),
        }
    }
}

/// The origin of each setting's value, by key.
static ORIGINS: OnceLock<Vec<(&'static str, Origin)>> = OnceLock::new();

/// Notes where values come from, for [`told`].
pub(super) fn remember(origins: Vec<(&'static str, Origin)>) {
    ORIGINS.get_or_init(|| origins);
}

/// Returns what a message calls a flag whose value is wrong: the variable or the file, if the value comes from there.
pub(super) fn told(flag: &str) -> String {
    let key = flag.trim_start_matches('-');
    let origin = ORIGINS.get().and_then(|origins| origins.iter().find(|(name, _)| *name == key));
    match origin {
        Some((_, Origin::Variable(name))) => name.clone(),
        Some((_, Origin::File(path))) => format!("`{key}` in {path}"),
        Some((_, Origin::Flag(_) | Origin::Default)) | None => flag.into(),
    }
}

/// Has an error about a variable's value name the variable, and not the flag that was not typed.
pub(super) fn blamed(mut error: clap::Error, command: &clap::Command, typed: &[OsString]) -> clap::Error {
    let of = |error: &clap::Error| match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(arg)) => Some(arg.clone()),
        _ => None,
    };
    let Some(wrong) = of(&error) else { return error };
    let without = without_variables(command.clone(), |_| true).try_get_matches_from(typed);
    if without.is_err_and(|other| of(&other).as_ref() == Some(&wrong)) {
        return error;
    }
    let commands = std::iter::once(command).chain(command.get_subcommands());
    let mut args = commands.flat_map(clap::Command::get_arguments);
    // The error shows it as `--flag <VALUE>`.
    let flag = wrong.split(' ').next().and_then(|flag| flag.strip_prefix("--"));
    let is_it =
        |arg: &clap::Arg| arg.get_long() == flag && arg.get_env().and_then(std::env::var_os).is_some();
    let arg = args.find(|arg| flag.is_some() && is_it(arg));
    if let Some(variable) = arg.and_then(clap::Arg::get_env) {
        let variable = variable.to_string_lossy().into_owned();
        error.insert(ContextKind::InvalidArg, ContextValue::String(variable));
    }
    error
}

/// An empty variable counts as unset, as in `WASMPOOL_TIMEOUT= wasmpool …`.
pub(super) fn without_empty_variables(command: clap::Command) -> clap::Command {
    without_variables(command, |name| std::env::var_os(name).is_some_and(|value| value.is_empty()))
}

/// Makes every flag ignore the variables for which `is_left_out` is true.
pub(super) fn without_variables(command: clap::Command, is_left_out: fn(&OsStr) -> bool) -> clap::Command {
    command
        .mut_args(|arg| match arg.get_env().is_some_and(is_left_out) {
            true => arg.env(Resettable::Reset),
            false => arg,
        })
        .mut_subcommands(|command| without_variables(command, is_left_out))
}
