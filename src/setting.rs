//! What the table of settings says of each, and what is made of it.
//!
//! The table stands in `limits.rs`, beside the names of the defaults. The keys of the command's settings file and the
//! README's table are made from it; the command's help and the documentation of the builder's methods are held to it by
//! a test. ARCHITECTURE.md says how a limit is added.

use std::fmt;
use std::time::Duration;

use crate::limits::SETTINGS;
use crate::options::TaskOptions;

/// One thing that can be set.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The method that sets it, with its type: `PoolBuilder::workers`. Empty if only the command has it.
    pub method: &'static str,
    /// The value that holds unless another is set.
    pub default: SettingDefault,
    /// The command's flag, without dashes.
    pub flag: Option<&'static str>,
    /// The settings' files that may have it, under the flag's name.
    pub in_files: InFiles,
    /// If this is given, the command makes the flag of this row.
    pub set: Option<SetLimit>,
    /// It bounds or chooses this.
    pub what: &'static str,
}

/// Says which files may have a setting. What a file may have, the variable `WASMPOOL_…` sets, too.
///
/// A file in the working directory may have been written by somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InFiles {
    /// No file has it: it is typed.
    Never,
    /// The user's own file may have it. In the hand of somebody else it could reach beyond the working directory, weaken
    /// the sandbox, or redirect files and logs.
    Own,
    /// The user's own file may have it, and one in the working directory may lower what holds otherwise, by this
    /// measure.
    Lower(Measure),
    /// Any file may have it: only the looks depend on it.
    Any,
}

/// Sets a limit of tasks, which is more than 0.
#[derive(Debug, Clone, Copy)]
pub enum SetLimit {
    /// It is a time.
    Time(fn(TaskOptions, Duration) -> TaskOptions),
    /// It is a number of bytes.
    Bytes(fn(TaskOptions, usize) -> TaskOptions),
    /// It counts what the name says.
    Count(fn(TaskOptions, usize) -> TaskOptions),
}

/// The measure by which one value is lower than another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// It is a time, or `none`, which is above all others.
    Time,
    /// It is a number of bytes.
    Bytes,
    /// It is a number.
    Count,
}

/// A default, with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingDefault {
    /// It is a time.
    Time(Duration),
    /// It is a number of bytes.
    Bytes(u64),
    /// It counts what the name says.
    Count(u64),
    /// A choice, or words for what depends on the machine.
    Words(&'static str),
    /// It is not set.
    None,
}

impl Setting {
    /// Returns the environment variable that sets it, if there is one.
    pub fn variable(&self) -> Option<String> {
        let flag = self.flag.filter(|_| self.is_in_files())?;
        Some(format!("WASMPOOL_{}", flag.replace('-', "_").to_uppercase()))
    }

    /// Returns whether a settings file may have it.
    pub fn is_in_files(&self) -> bool {
        self.in_files != InFiles::Never
    }
}

/// Shows it as the command reads it: `1h`, `512MiB`, `4096`, `none`.
impl fmt::Display for SettingDefault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            SettingDefault::Time(time) => match (time.as_secs(), time.subsec_millis()) {
                (0, millis) => write!(f, "{millis}ms"),
                (seconds, _) if seconds % 3600 == 0 => write!(f, "{}h", seconds / 3600),
                (seconds, _) if seconds % 60 == 0 => write!(f, "{}m", seconds / 60),
                (seconds, _) => write!(f, "{seconds}s"),
            },
            SettingDefault::Bytes(bytes) => {
                let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
                match units.iter().find(|(_, bits)| bytes > 0 && bytes.is_multiple_of(1 << bits)) {
                    Some((unit, bits)) => write!(f, "{}{unit}", bytes >> bits),
                    None => write!(f, "{bytes}"),
                }
            }
            SettingDefault::Count(count) => write!(f, "{count}"),
            SettingDefault::Words(words) => f.write_str(words),
            SettingDefault::None => f.write_str("none"),
        }
    }
}

/// Makes the row of what only a method sets.
pub(crate) const fn pool(method: &'static str, default: SettingDefault, what: &'static str) -> Setting {
    Setting { method, default, flag: None, in_files: InFiles::Never, set: None, what }
}

/// Makes the row of what is typed each time.
pub(crate) const fn flag(
    method: &'static str,
    default: SettingDefault,
    flag: &'static str,
    what: &'static str,
) -> Setting {
    Setting { method, default, flag: Some(flag), in_files: InFiles::Never, set: None, what }
}

/// Makes the row of a limit of tasks that has its flag by this row, and that files may have.
pub(crate) const fn task(
    set: SetLimit,
    method: &'static str,
    default: SettingDefault,
    flag: &'static str,
    what: &'static str,
) -> Setting {
    let measure = match set {
        SetLimit::Time(_) => Measure::Time,
        SetLimit::Bytes(_) => Measure::Bytes,
        SetLimit::Count(_) => Measure::Count,
    };
    Setting { set: Some(set), ..lower(measure, method, default, flag, what) }
}

/// Makes the row of a limit that files may have; its default says how it is measured.
pub(crate) const fn file(
    method: &'static str,
    default: SettingDefault,
    flag: &'static str,
    what: &'static str,
) -> Setting {
    let measure = match default {
        SettingDefault::Time(_) => Measure::Time,
        SettingDefault::Bytes(_) => Measure::Bytes,
        SettingDefault::Count(_) => Measure::Count,
        SettingDefault::Words(_) | SettingDefault::None => {
            panic!("its default does not say how it is measured")
        }
    };
    lower(measure, method, default, flag, what)
}

/// Makes the row of a limit that files may have and whose default is no number.
pub(crate) const fn lower(
    measure: Measure,
    method: &'static str,
    default: SettingDefault,
    flag: &'static str,
    what: &'static str,
) -> Setting {
    Setting { method, default, flag: Some(flag), in_files: InFiles::Lower(measure), set: None, what }
}

/// Makes the row of what only the user's own file may have.
pub(crate) const fn own(
    method: &'static str,
    default: SettingDefault,
    flag: &'static str,
    what: &'static str,
) -> Setting {
    Setting { method, default, flag: Some(flag), in_files: InFiles::Own, set: None, what }
}

/// Makes the row of what any file may have.
pub(crate) const fn looks(
    method: &'static str,
    default: SettingDefault,
    flag: &'static str,
    what: &'static str,
) -> Setting {
    Setting { method, default, flag: Some(flag), in_files: InFiles::Any, set: None, what }
}

/// Returns the README's table of the settings.
pub fn settings_markdown() -> String {
    let mut lines = vec![
        "| setting | default | flag | in `wasmpool.toml` and as `WASMPOOL_…` |".to_string(),
        "|---|---|---|---|".to_string(),
    ];
    for setting in SETTINGS {
        let method =
            if setting.method.is_empty() { String::new() } else { format!(" (`{}`)", setting.method) };
        let flag = setting.flag.map(|flag| format!("`--{flag}`")).unwrap_or_default();
        let in_files = if setting.is_in_files() { "yes" } else { "" };
        lines.push(format!("| {}{method} | {} | {flag} | {in_files} |", setting.what, setting.default));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The documentation that stands before a method.
    fn documentation(source: &str, method: &str) -> Option<String> {
        let at =
            ["", "const "].iter().find_map(|word| source.find(&format!("    pub {word}fn {method}(")))?;
        let lines = source[..at].lines().rev().take_while(|line| line.trim_start().starts_with(['/', '#']));
        let lines: Vec<_> = lines.filter_map(|line| line.trim_start().strip_prefix("///")).collect();
        Some(lines.into_iter().rev().collect::<Vec<_>>().join(" "))
    }

    /// Removes differences of spelling, as in `512 MiB` and `512MiB`, `65,536` and `65536`.
    fn plain(text: &str) -> String {
        text.chars().filter(|c| !" ,`".contains(*c)).collect::<String>().to_lowercase()
    }

    #[test]
    fn the_documentation_of_each_method_tells_its_default() {
        // A package holds its own sources only.
        let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("crates");
        let of_proto =
            crates.is_dir().then(|| std::fs::read_to_string(crates.join("proto/src/limits/compile.rs")));
        let of_proto = of_proto.map(|text| text.expect("reads"));
        let sources = [
            ("PoolBuilder", Some(include_str!("pool/builder.rs"))),
            ("TaskOptions", Some(include_str!("options.rs"))),
            ("CompileLimits", of_proto.as_deref()),
        ];
        let mut told = 0;
        for setting in SETTINGS.iter().filter(|setting| !setting.method.is_empty()) {
            let (ty, method) = setting.method.split_once("::").expect("a type and a method");
            let source = sources.iter().find(|(name, _)| *name == ty).expect("a known type").1;
            let Some(source) = source else { continue };
            let text =
                documentation(source, method).unwrap_or_else(|| panic!("there is no {}", setting.method));
            match setting.default {
                SettingDefault::Words(_) => continue,
                SettingDefault::None => continue,
                default => {
                    let wanted = plain(&default.to_string());
                    // A link to the constant will do.
                    let is_told = plain(&text).contains(&wanted)
                        || ty == "CompileLimits" && text.contains("limits::COMPILE_");
                    assert!(is_told, "{} does not say {default}: {text}", setting.method);
                    told += 1;
                }
            }
        }
        assert!(told > 15, "{told} defaults");
    }

    /// `WASMPOOL_WRITE_README=1` has the table written anew.
    #[test]
    fn the_readmes_table_is_this_one() {
        const MARK: &str = "<!-- settings -->\n";
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
        let readme = std::fs::read_to_string(&path).expect("reads");
        let parts: Vec<_> = readme.split(MARK).collect();
        let [before, shown, after] = parts[..] else { panic!("README.md has the marks of the table") };
        let table = settings_markdown();
        if std::env::var_os("WASMPOOL_WRITE_README").is_some() {
            std::fs::write(&path, [before, &*table, after].join(MARK)).expect("writes");
            return;
        }
        assert!(
            shown == table,
            "README.md differs: have its table written anew (WASMPOOL_WRITE_README=1 cargo test --release -p wasmpool \
             --lib readme), which is\n{table}"
        );
    }

    #[test]
    fn values_are_shown_as_the_command_reads_them() {
        let shown = [
            (SettingDefault::Time(Duration::from_millis(500)), "500ms"),
            (SettingDefault::Time(Duration::from_secs(7200)), "2h"),
            (SettingDefault::Time(Duration::from_secs(300)), "5m"),
            (SettingDefault::Time(Duration::from_secs(10)), "10s"),
            (SettingDefault::Bytes(1 << 30), "1GiB"),
            (SettingDefault::Bytes(256 << 10), "256KiB"),
            (SettingDefault::Count(4096), "4096"),
            (SettingDefault::None, "none"),
        ];
        shown.iter().for_each(|(value, text)| assert_eq!(value.to_string(), *text));
    }

    #[test]
    fn names_are_told_apart() {
        let mut flags: Vec<_> = SETTINGS.iter().filter_map(|setting| setting.flag).collect();
        flags.sort_unstable();
        let count = flags.len();
        flags.dedup();
        assert_eq!(flags.len(), count);
        assert!(SETTINGS.iter().all(|setting| setting.flag.is_some() || !setting.is_in_files()));
    }
}
