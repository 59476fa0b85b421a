//! Settings that are not typed each time: environment variables and `wasmpool.toml`; and
//! `wasmpool config`, which says where each comes from.
//!
//! A setting in a file becomes the default of the flag of that name, so that flags and variables go before it
//! by themselves, and a value is held to the same rules wherever it stands.

mod found;

use std::cmp::Reverse;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use bytesize::ByteSize;
use clap::parser::ValueSource;
use clap::{ArgMatches, ColorChoice, CommandFactory as _, FromArgMatches as _};
use serde_json::{Value, json};

use super::args::{Args, Command, ConfigArgs};
use super::console::{self, Console};
use super::exit::{Exit, Failure};
use super::object::Object;
use super::origin::{self, Origin, blamed, without_empty_variables, without_variables};
use files::{HostFiles, TaskDirs};
use found::Found;
use proto::text::Name;
use wasmpool::error::BuildError;
use wasmpool::internal::{self, InFiles, Measure, SETTINGS, Setting, SettingDefault};

const FILE_NAME: &str = "wasmpool.toml";

/// An error shows an unknown name only up to this many bytes, since it may be part of a secret.
const NAME_BYTES_MAX: usize = 32;

/// One setting that a file may have.
struct Key {
    /// The flag's name, without dashes.
    name: &'static str,
    setting: &'static Setting,
    /// The commands that have the flag, if not all have it.
    verbs: Vec<String>,
}

/// The settings that a file may have: first those of every command, and then those of fewer.
static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let args = Args::command();
    let has = |command: &clap::Command, name| command.get_arguments().any(|arg| arg.get_long() == Some(name));
    let key = |setting: &'static Setting| {
        let name = setting.flag.filter(|_| setting.is_in_files())?;
        let verbs = args.get_subcommands().filter(|verb| !has(&args, name) && has(verb, name));
        Some(Key { name, setting, verbs: verbs.map(|verb| verb.get_name().to_string()).collect() })
    };
    let mut keys: Vec<_> = SETTINGS.iter().filter_map(key).collect();
    keys.sort_by_key(|key| (!key.verbs.is_empty(), Reverse(key.verbs.len())));
    keys
});

impl Key {
    /// Returns the value that holds if nothing sets another.
    fn default(&self) -> String {
        self.setting.default.to_string()
    }

    /// Returns what a value comes to by this measure, so that of two the lower one is known.
    fn measured(&self, measure: Measure, text: &str) -> Option<u128> {
        if matches!(self.setting.default, SettingDefault::Words(words) if words == text) {
            return self.default_of_this_machine();
        }
        match measure {
            Measure::Time if text == "none" => Some(u128::MAX),
            Measure::Time => humantime::parse_duration(text).ok().map(|duration| duration.as_nanos()),
            Measure::Bytes => text.parse::<ByteSize>().ok().map(|size| size.as_u64().into()),
            Measure::Count => text.parse().ok(),
        }
    }

    /// Returns the default that words stand for.
    fn default_of_this_machine(&self) -> Option<u128> {
        match self.name {
            "workers" => std::thread::available_parallelism().ok().map(|cpus| cpus.get() as u128),
            "compile-memory" => Some(internal::compile_memory_bytes_default().into()),
            _ => None,
        }
    }
}

/// The settings of one file.
#[derive(Debug)]
struct FromFile {
    path: PathBuf,
    /// The values, by key.
    values: Vec<(&'static str, String)>,
}

/// The arguments with what stands behind them.
pub(super) struct Typed {
    pub(super) args: Args,
    /// The door to the host's files, which knows where this command's tasks may write.
    pub(super) host: HostFiles,
    /// Each file of settings that was left out, and why.
    pub(super) left_out: Vec<String>,
    /// The value and the source of each setting, by key.
    sources: Vec<(&'static str, String, Origin)>,
}

/// The ways in which arguments can be wrong.
pub(super) enum ParseFailure {
    /// An error of clap's; help and version are of this kind, too.
    Clap(clap::Error),
    Failed {
        failure: Failure,
        /// A program reads what has failed.
        json: bool,
    },
}

impl From<clap::Error> for ParseFailure {
    fn from(error: clap::Error) -> Self {
        ParseFailure::Clap(error)
    }
}

/// Parses what was typed, with the files' settings behind it.
pub(super) fn parse(typed: impl IntoIterator<Item = OsString>) -> Result<Typed, ParseFailure> {
    let typed: Vec<_> = typed.into_iter().collect();
    // Errors about the arguments themselves need the colour that was typed; no settings file is read for
    // them, nor for help and the version.
    write_global_color(color(&typed));
    let mut command = without_empty_variables(Args::command());
    let mut matches =
        command.clone().try_get_matches_from(&typed).map_err(|error| blamed(error, &command, &typed))?;
    // No file says which directories tasks have, so this is known before a file is looked for.
    let verb = Args::from_arg_matches(&matches)?.verb;
    let failed = |failure| ParseFailure::Failed { failure, json: verb.wants_json() };
    let host = host_files(&verb).map_err(failed)?;
    let Found { files, left_out } = found::files(&typed, &host).map_err(failed)?;
    for key in KEYS.iter() {
        let Some((value, _)) = value_in(&files, key.name) else { continue };
        // The value is leaked once in the life of the process.
        let value: &'static str = value.to_string().leak();
        let id = key.name.replace('-', "_");
        let with_default = |arg: clap::Arg| arg.default_value(value);
        command = match &*key.verbs {
            [] => command.mut_arg(&id, with_default),
            verbs => verbs.iter().fold(command, |command, verb| {
                command.mut_subcommand(verb, |command| command.mut_arg(&id, with_default))
            }),
        };
    }
    if !files.is_empty() {
        matches = command.try_get_matches_from(&typed)?;
    }
    let sources: Vec<_> = KEYS.iter().map(|key| source(key, &matches, &files)).collect();
    origin::remember(sources.iter().map(|(key, _, origin)| (*key, origin.clone())).collect());
    Ok(Typed { args: Args::from_arg_matches(&matches)?, host, left_out, sources })
}

/// Opens the door to the host's files.
fn host_files(verb: &Command) -> Result<HostFiles, Failure> {
    let dirs = TaskDirs::open(verb.writable_dirs())
        .map_err(|(path, source)| BuildError::Directory { path, source })?;
    Ok(HostFiles::new(dirs).telling(tell))
}

/// Says what is waited for. A file of settings is read before there is a log.
fn tell(text: &str) {
    match tracing::dispatcher::has_been_set() {
        true => tracing::warn!("{text}"),
        false => Console::new().say(&format!("warning: {text}")),
    }
}

impl Typed {
    /// `wasmpool config`.
    ///
    /// # Errors
    /// A value that the command it is for would refuse. The values of files were checked when they were read.
    pub(super) fn show(&self, args: &ConfigArgs) -> Result<Exit, Failure> {
        for (key, (_, value, origin)) in KEYS.iter().zip(&self.sources) {
            if let Origin::Variable(name) = origin {
                check(key, value).map_err(|why| Failure::Usage(format!("{name}: {why}")))?;
            }
        }
        if args.json {
            let settings: Value = self
                .sources
                .iter()
                .map(|(key, value, from)| json!({"key": key, "value": value, "from": from.to_string()}))
                .collect();
            console::print_line(&Object::new().field("ok", true).field("settings", settings).finish())?;
            return Ok(Exit::Success);
        }
        let rows = self.sources.iter();
        let rows = rows.map(|(key, value, from)| {
            [key.to_string(), Name(value).to_string(), Name(from.to_string()).to_string()]
        });
        console::write_stdout(columns(&rows.collect::<Vec<_>>()).as_bytes())?;
        Ok(Exit::Success)
    }
}

/// Rows whose cells stand below each other, whatever is in them. A cell that is wider than most (a folder's path)
/// pushes only its own row aside.
fn columns(rows: &[[String; 3]]) -> String {
    const WIDTH_MAX: usize = 40;
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.filter(|width| *width <= WIDTH_MAX).max().unwrap_or(0)
    };
    let first = width(0);
    let second = width(1);
    let mut page = String::new();
    for [key, value, from] in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(page, "{key:<first$}  {value:<second$}  {from}");
    }
    page
}

fn write_global_color(choice: ColorChoice) {
    match choice {
        ColorChoice::Auto => anstream::ColorChoice::Auto,
        ColorChoice::Always => anstream::ColorChoice::Always,
        ColorChoice::Never => anstream::ColorChoice::Never,
    }
    .write_global();
}

/// Returns whether clap is to use colour, which has not parsed the flag yet where it says what is wrong.
fn color(typed: &[OsString]) -> ColorChoice {
    let mut words = typed.iter().map(|word| word.to_string_lossy()).take_while(|word| word != "--");
    let mut flag = None;
    while let Some(word) = words.next() {
        if let Some(value) = word.strip_prefix("--color=") {
            flag = Some(value.to_string());
        } else if word == "--color" {
            flag = words.next().map(|word| word.into_owned());
        }
    }
    let variable = || std::env::var("WASMPOOL_COLOR").ok().filter(|value| !value.is_empty());
    match flag.or_else(variable).as_deref() {
        Some("always") => ColorChoice::Always,
        Some("never") => ColorChoice::Never,
        _ => ColorChoice::Auto,
    }
}

/// A setting's value, and where it comes from.
fn source(key: &Key, matches: &ArgMatches, files: &[FromFile]) -> (&'static str, String, Origin) {
    let variable = key.setting.variable().unwrap_or_default();
    let (value, origin) = if let Some(typed) = typed_value(key, matches) {
        (typed, Origin::Flag(key.name))
    } else if let Some(value) = std::env::var_os(&variable).filter(|value| !value.is_empty()) {
        (value.to_string_lossy().into_owned(), Origin::Variable(variable))
    } else if let Some((value, path)) = value_in(files, key.name) {
        (value.to_string(), Origin::File(path.display().to_string()))
    } else {
        let default = match key.name {
            // The default place depends on the environment.
            "cache-dir" => default_cache_dir(),
            _ => key.default(),
        };
        (default, Origin::Default)
    };
    (key.name, value, origin)
}

/// Returns the value of a flag that was typed, before the verb or behind it.
fn typed_value(key: &Key, matches: &ArgMatches) -> Option<String> {
    let id = key.name.replace('-', "_");
    let of_verb = matches.subcommand().map(|(_, matches)| matches);
    let is_typed = |matches: &&ArgMatches| {
        matches.try_contains_id(&id).is_ok() && matches.value_source(&id) == Some(ValueSource::CommandLine)
    };
    let matches = of_verb.into_iter().chain([matches]).find(is_typed)?;
    let mut values = matches.get_raw(&id)?;
    values.next().map(|value| value.to_string_lossy().into_owned())
}

fn default_cache_dir() -> String {
    internal::cache_dir_default().map_or("none".into(), |dir| dir.to_string_lossy().into_owned())
}

fn value_in<'a>(files: &'a [FromFile], key: &str) -> Option<(&'a str, &'a Path)> {
    files.iter().find_map(|file| {
        let (_, value) = file.values.iter().find(|(name, _)| *name == key)?;
        Some((value.as_str(), file.path.as_path()))
    })
}

/// Parses the text into values by key. Errors quote no line of a text that is not settings: it may be a
/// secret.
fn parsed(
    text: &str,
    is_stray: bool,
    below: Option<&FromFile>,
) -> Result<Vec<(&'static str, String)>, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        format!("line {} is no line of TOML, such as workers = 4", before.matches('\n').count() + 1)
    })?;
    let mut values = Vec::new();
    for (name, value) in table {
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            let names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
            return Err(format!("there is no setting {}; there are {}", shown(&name), names.join(", ")));
        };
        let value = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            other => return Err(format!("`{name}` must be text or a number, not {}", other.type_str())),
        };
        check(key, &value).map_err(|why| format!("`{name}`: {why}"))?;
        if is_stray {
            check_stray(key, &value, below)?;
        }
        values.push((key.name, value));
    }
    Ok(values)
}

/// Shows a name only if it looks like a setting's; anything else may be a secret.
fn shown(name: &str) -> String {
    let is_like_ours = |c: char| c.is_ascii_lowercase() || c == '-';
    match name.len() <= NAME_BYTES_MAX && name.chars().all(is_like_ours) {
        true => format!("`{name}`"),
        false => "of one of its names".into(),
    }
}

/// Checks that a file which somebody else may have written only sets what it may.
fn check_stray(key: &Key, value: &str, below: Option<&FromFile>) -> Result<(), String> {
    let name = key.name;
    let elsewhere = format!("it belongs into ~/.config/wasmpool/{FILE_NAME}, or is typed (--{name})");
    let measure = match key.setting.in_files {
        InFiles::Any => return Ok(()),
        InFiles::Lower(measure) => measure,
        InFiles::Own | InFiles::Never => {
            return Err(format!("`{name}` is not taken from a file in the working directory: {elsewhere}"));
        }
    };
    let own = below.and_then(|file| file.values.iter().find(|(key, _)| *key == name));
    let default = key.default();
    let holds = own.map_or(&default, |(_, value)| value);
    // A value that cannot be measured cannot be shown to be lower, and is refused.
    match key.measured(measure, value).zip(key.measured(measure, holds)) {
        Some((wanted, holds)) if wanted <= holds => Ok(()),
        _ => Err(format!(
            "`{name}` may only be lowered by a file in the working directory, and is {holds} otherwise: {elsewhere}"
        )),
    }
}

/// Holds a value to the rules of its flag.
fn check(key: &Key, value: &str) -> Result<(), String> {
    let verb = key.verbs.last().map_or("inspect", String::as_str);
    let typed = ["wasmpool", verb, "module.wasm", &format!("--{}={value}", key.name)].map(String::from);
    // The variables are left out: a wrong value in one of them is not the file's fault.
    match without_variables(Args::command(), |_| true).try_get_matches_from(typed) {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            // The reader of this message has not typed the flag.
            let flag = format!(" for '--{}", key.name);
            let line = match line
                .split_once(&flag)
                .and_then(|(before, rest)| Some((before, rest.split_once('\'')?.1)))
            {
                Some((before, after)) => format!("{before}{after}"),
                None => line.to_string(),
            };
            Err(line.trim_start_matches("error: ").to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_a_flag_and_a_variable_of_the_same_name() {
        let command = Args::command();
        for key in KEYS.iter() {
            let verbs = &*key.verbs;
            let commands: Vec<_> = match verbs {
                [] => vec![&command],
                verbs => verbs.iter().filter_map(|verb| command.find_subcommand(verb)).collect(),
            };
            assert_eq!(commands.len(), verbs.len().max(1), "{}", key.name);
            for command in commands {
                let flag = command.get_arguments().find(|arg| arg.get_long() == Some(key.name));
                let flag = flag.unwrap_or_else(|| panic!("no flag --{} of {}", key.name, command.get_name()));
                let variable = format!("WASMPOOL_{}", key.name.replace('-', "_").to_uppercase());
                assert_eq!(flag.get_env().and_then(std::ffi::OsStr::to_str), Some(&*variable));
            }
        }
    }

    /// Returns the flag of this name, wherever it is.
    fn flag_of<'a>(command: &'a clap::Command, name: &str) -> Option<&'a clap::Arg> {
        let commands = std::iter::once(command).chain(command.get_subcommands());
        commands.flat_map(clap::Command::get_arguments).find(|arg| arg.get_long() == Some(name))
    }

    #[test]
    fn help_tells_the_defaults_of_the_table_of_settings() {
        let command = Args::command();
        let mut told = 0;
        for setting in SETTINGS {
            let Some(name) = setting.flag else { continue };
            let flag = flag_of(&command, name).unwrap_or_else(|| panic!("there is no flag --{name}"));
            let variable = flag.get_env().map(|name| name.to_string_lossy().into_owned());
            assert_eq!(variable, setting.variable(), "--{name}");
            let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
            let values = flag.get_default_values();
            let default = setting.default.to_string();
            match setting.default {
                // clap itself shows these values.
                _ if !values.is_empty() => assert_eq!(values[0].to_string_lossy(), default, "--{name}"),
                SettingDefault::None => {
                    assert!(!help.contains("[default: ") || help.contains("[default: none]"))
                }
                // The words of the help are longer.
                SettingDefault::Words(words) => {
                    let first = words.split([';', '/']).next_back().unwrap_or_default().trim();
                    let is_told =
                        help.contains(first) || help.contains(words.split(';').next().unwrap_or_default());
                    assert!(is_told, "--{name}: {words}: {help}");
                }
                _ => assert!(help.contains(&format!("[default: {default}")), "--{name}: {default}: {help}"),
            }
            told += 1;
        }
        assert!(told > 25, "{told} flags");
    }

    #[test]
    fn no_cell_of_the_page_runs_into_the_next() {
        let long = |bytes| "x".repeat(bytes);
        for bytes in [1, 25, 26, 27, 39, 40, 41, 200] {
            let rows =
                [["key", "a", "here"].map(String::from), ["long-key".into(), long(bytes), "there".into()]];
            let page = columns(&rows);
            let cells: Vec<Vec<_>> = page.lines().map(|line| line.split_whitespace().collect()).collect();
            assert_eq!(cells[1], ["long-key", &*long(bytes), "there"], "{page}");
            let starts: Vec<_> = page.lines().filter_map(|line| line.find("here")).collect();
            // The other's is a "there", of which the end is looked for.
            assert!(bytes > 40 || starts[0] + 1 == starts[1], "{page}");
        }
    }

    #[test]
    fn values_are_held_to_the_rules_of_their_flags() {
        let check = |name: &str, value| check(KEYS.iter().find(|key| key.name == name).expect(name), value);
        assert_eq!(check("workers", "4"), Ok(()));
        assert_eq!(check("progress", "never"), Ok(()));
        assert!(check("timeout", "soon").is_err_and(|why| why.contains("'soon'")));
        assert!(check("workers", "-1").is_err());
    }
}
