//! Settings that are not typed each time: environment variables and `wasmpool.toml`; and
//! `wasmpool config`, which says where each comes from.
//!
//! A setting in a file becomes the default of the flag of that name, so that flags and variables go before it
//! by themselves, and a value is held to the same rules wherever it stands.

mod found;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

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
use wasmpool::internal::{self, SETTINGS, Setting, SettingDefault};

const FILE_NAME: &str = "wasmpool.toml";

/// An error shows an unknown name only up to this many bytes, since it may be part of a secret.
const NAME_BYTES_MAX: usize = 32;

/// One setting that a file may have.
struct Key {
    /// The flag's name, without dashes.
    name: &'static str,
    scope: Scope,
    stray: Stray,
}

/// A file in the working directory may have been written by somebody else: this is what it may do to a
/// setting.
#[derive(Clone, Copy)]
enum Stray {
    /// It may set any value: only the looks depend on it.
    Free,
    /// It may set a value that is at most what holds otherwise, by this measure.
    Lower(fn(&str) -> Option<u128>),
    /// It may not set it: the setting could reach beyond the working directory, weaken the sandbox, or
    /// redirect files and logs.
    Refused,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// A flag of every command.
    Common,
    /// A flag of the commands that run tasks.
    Tasks,
    /// A flag of `map`.
    Map,
}

impl Scope {
    fn verbs(self) -> &'static [&'static str] {
        match self {
            Scope::Common => &[],
            Scope::Tasks => &["run", "map", "bench"],
            Scope::Map => &["map"],
        }
    }
}

const fn key(name: &'static str, scope: Scope, stray: Stray) -> Key {
    Key { name, scope, stray }
}

const fn refused(name: &'static str) -> Key {
    Key { name, scope: Scope::Common, stray: Stray::Refused }
}

const KEYS: [Key; 25] = [
    key("workers", Scope::Common, Stray::Lower(workers)),
    key("stop-grace", Scope::Common, Stray::Lower(duration)),
    refused("sandbox"),
    refused("cache-dir"),
    refused("cache-limit"),
    key("compile-cpu-time", Scope::Common, Stray::Lower(duration)),
    key("compile-timeout", Scope::Common, Stray::Lower(duration)),
    key("compile-memory", Scope::Common, Stray::Lower(compile_memory)),
    refused("log-file"),
    refused("log-format"),
    refused("log-rotate"),
    refused("log-keep"),
    key("log-rate", Scope::Common, Stray::Lower(size)),
    refused("worker-log"),
    refused("engine-log"),
    key("color", Scope::Common, Stray::Free),
    key("timeout", Scope::Tasks, Stray::Lower(duration)),
    key("cpu-time", Scope::Tasks, Stray::Lower(duration)),
    key("memory", Scope::Tasks, Stray::Lower(size)),
    key("input-limit", Scope::Tasks, Stray::Lower(size)),
    key("output-limit", Scope::Tasks, Stray::Lower(size)),
    key("log-limit", Scope::Tasks, Stray::Lower(size)),
    key("wasm-stack", Scope::Tasks, Stray::Lower(size)),
    key("map-memory", Scope::Map, Stray::Lower(size)),
    key("progress", Scope::Map, Stray::Free),
];

impl Key {
    /// Returns the value that holds if nothing sets another, as the table of settings has it.
    fn default(&self) -> String {
        let setting = SETTINGS.iter().find(|setting| setting.flag == Some(self.name));
        setting.map(|setting| setting.default.to_string()).unwrap_or_default()
    }
}

/// The words of the default stand for the amount that this machine's memory gives.
fn compile_memory(text: &str) -> Option<u128> {
    if is_words_of("compile-memory", text) {
        return Some(internal::compile_memory_bytes_default().into());
    }
    size(text)
}

fn workers(text: &str) -> Option<u128> {
    if is_words_of("workers", text) {
        return std::thread::available_parallelism().ok().map(|cpus| cpus.get() as u128);
    }
    text.parse().ok()
}

/// Returns whether the text is the default of this flag, in words.
fn is_words_of(flag: &str, text: &str) -> bool {
    let is_it = |setting: &Setting| matches!(setting.default, SettingDefault::Words(words) if words == text);
    SETTINGS.iter().any(|setting| setting.flag == Some(flag) && is_it(setting))
}

/// `none` is above every limit.
fn duration(text: &str) -> Option<u128> {
    if text == "none" {
        return Some(u128::MAX);
    }
    humantime::parse_duration(text).ok().map(|duration| duration.as_nanos())
}

fn size(text: &str) -> Option<u128> {
    text.parse::<ByteSize>().ok().map(|size| size.as_u64().into())
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
    for key in &KEYS {
        let Some((value, _)) = value_in(&files, key.name) else { continue };
        // The value is leaked once in the life of the process.
        let value: &'static str = value.to_string().leak();
        let id = key.name.replace('-', "_");
        let with_default = |arg: clap::Arg| arg.default_value(value);
        command = match key.scope {
            Scope::Common => command.mut_arg(&id, with_default),
            scope => scope.verbs().iter().fold(command, |command, verb| {
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
    let variable = format!("WASMPOOL_{}", key.name.replace('-', "_").to_uppercase());
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
    let Stray::Lower(measure) = key.stray else {
        return match key.stray {
            Stray::Refused => {
                Err(format!("`{name}` is not taken from a file in the working directory: {elsewhere}"))
            }
            _ => Ok(()),
        };
    };
    let own = below.and_then(|file| file.values.iter().find(|(key, _)| *key == name));
    let default = key.default();
    let holds = own.map_or(&default, |(_, value)| value);
    // A value that cannot be measured cannot be shown to be lower, and is refused.
    match measure(value).zip(measure(holds)) {
        Some((wanted, holds)) if wanted <= holds => Ok(()),
        _ => Err(format!(
            "`{name}` may only be lowered by a file in the working directory, and is {holds} otherwise: {elsewhere}"
        )),
    }
}

/// Holds a value to the rules of its flag.
fn check(key: &Key, value: &str) -> Result<(), String> {
    let verb = key.scope.verbs().last().copied().unwrap_or("inspect");
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
        for key in &KEYS {
            let verbs = key.scope.verbs();
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
        // Every setting of a file is in the table.
        for key in &KEYS {
            let is_there = |setting: &&Setting| setting.flag == Some(key.name) && setting.in_files;
            assert!(SETTINGS.iter().any(|setting| is_there(&setting)), "{}", key.name);
        }
        assert_eq!(SETTINGS.iter().filter(|setting| setting.in_files).count(), KEYS.len());
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
