//! The one table of what can be set: of a pool, a task or the command, with its default.
//!
//! Each default stands once, in [`limits`](crate::limits), or here where it is no number. The command's settings file, its
//! help and the README's table come from this table or are held to it by a test, and so is the documentation of the
//! builder's methods. Whoever adds a limit adds its constant to `proto::limits`, its method, and a row here; if the command
//! is to have it, the flag.

use std::fmt;
use std::time::Duration;

use proto::limits;

/// One thing that can be set.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The method that sets it, with its type: `PoolBuilder::workers`. Empty if only the command has it.
    pub method: &'static str,
    /// The value that holds unless another is set.
    pub default: SettingDefault,
    /// The command's flag, without dashes.
    pub flag: Option<&'static str>,
    /// A settings file may have it under the flag's name, and the variable `WASMPOOL_…` too.
    pub in_files: bool,
    /// It bounds or chooses this.
    pub what: &'static str,
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
        let flag = self.flag.filter(|_| self.in_files)?;
        Some(format!("WASMPOOL_{}", flag.replace('-', "_").to_uppercase()))
    }

    /// Returns what kind of value it takes.
    pub fn kind(&self) -> &'static str {
        match self.default {
            SettingDefault::Time(_) => "duration",
            SettingDefault::Bytes(_) => "size",
            SettingDefault::Count(_) => "number",
            SettingDefault::Words(_) | SettingDefault::None => "",
        }
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

const fn pool(method: &'static str, default: SettingDefault, what: &'static str) -> Setting {
    Setting { method, default, flag: None, in_files: false, what }
}

const fn flag(
    method: &'static str,
    default: SettingDefault,
    flag: &'static str,
    what: &'static str,
) -> Setting {
    Setting { method, default, flag: Some(flag), in_files: false, what }
}

const fn file(
    method: &'static str,
    default: SettingDefault,
    flag: &'static str,
    what: &'static str,
) -> Setting {
    Setting { method, default, flag: Some(flag), in_files: true, what }
}

/// The settings, by what they are about.
pub const SETTINGS: &[Setting] = &[
    // Workers
    file(
        "PoolBuilder::workers",
        SettingDefault::Words("the CPUs there are; run: 1"),
        "workers",
        "most worker processes",
    ),
    pool("PoolBuilder::workers_min", SettingDefault::Count(0), "workers that are kept without work"),
    pool("PoolBuilder::idle_timeout", SettingDefault::None, "how long a worker without work stays"),
    pool(
        "PoolBuilder::start_timeout",
        SettingDefault::Time(limits::START_TIMEOUT),
        "how long a worker may take to start",
    ),
    pool(
        "PoolBuilder::grace",
        SettingDefault::Time(limits::GRACE),
        "how long a task has to heed an interrupt before its worker is killed",
    ),
    pool(
        "PoolBuilder::prefetch_max",
        SettingDefault::Count(limits::PREFETCH_MAX as u64),
        "most tasks that wait in a worker behind the running one",
    ),
    pool("PoolBuilder::recycle_after_tasks", SettingDefault::None, "tasks after which a worker is replaced"),
    pool(
        "PoolBuilder::recycle_above_memory",
        SettingDefault::None,
        "resident memory above which a worker is replaced",
    ),
    pool("PoolBuilder::recycle_after", SettingDefault::None, "age at which a worker is replaced"),
    pool(
        "PoolBuilder::worker_memory_bytes_max",
        SettingDefault::Bytes(limits::WORKER_MEMORY_BYTES_MAX),
        "most writable memory of a worker process",
    ),
    // The pool holds these
    pool(
        "PoolBuilder::queue_tasks_max",
        SettingDefault::Count(limits::QUEUE_TASKS_MAX as u64),
        "most tasks that wait or run",
    ),
    file(
        "PoolBuilder::input_bytes_max",
        SettingDefault::Bytes(limits::INPUT_BYTES_MAX as u64),
        "input-limit",
        "most bytes of one input",
    ),
    file(
        "PoolBuilder::map_bytes_max",
        SettingDefault::Bytes(limits::MAP_BYTES_MAX),
        "map-memory",
        "most bytes that a map holds in this process",
    ),
    pool(
        "PoolBuilder::share_bytes_max",
        SettingDefault::Bytes(limits::SHARE_BYTES_MAX),
        "most bytes of one shared input",
    ),
    pool(
        "PoolBuilder::shares_max",
        SettingDefault::Count(limits::SHARES_MAX as u64),
        "most shared inputs at a time",
    ),
    pool(
        "PoolBuilder::modules_max",
        SettingDefault::Count(limits::MODULES_MAX as u64),
        "most modules that are held at a time",
    ),
    // Compiling
    file(
        "CompileLimits::cpu_time",
        SettingDefault::Time(limits::COMPILE_CPU_TIME),
        "compile-cpu-time",
        "most CPU time for compiling one module",
    ),
    file(
        "CompileLimits::timeout",
        SettingDefault::Time(limits::COMPILE_TIMEOUT),
        "compile-timeout",
        "most time for compiling one module",
    ),
    file(
        "CompileLimits::memory_bytes_max",
        SettingDefault::Words("6GiB; half of all"),
        "compile-memory",
        "most memory of the compiler",
    ),
    pool(
        "PoolBuilder::compilers_max",
        SettingDefault::Count(limits::COMPILERS_MAX as u64),
        "most compiler processes at a time",
    ),
    file(
        "PoolBuilder::cache_bytes_max",
        SettingDefault::Bytes(limits::CACHE_BYTES_MAX),
        "cache-limit",
        "most bytes of disk for compiled modules",
    ),
    file(
        "PoolBuilder::cache_dir",
        SettingDefault::Words("~/.cache/wasmpool"),
        "cache-dir",
        "where compiled modules are kept",
    ),
    // Tasks
    file("TaskOptions::timeout", SettingDefault::Time(limits::TIMEOUT), "timeout", "how long a task may run"),
    file("TaskOptions::cpu_time", SettingDefault::None, "cpu-time", "most CPU time of a task"),
    file(
        "TaskOptions::memory_bytes_max",
        SettingDefault::Bytes(limits::MEMORY_BYTES_MAX as u64),
        "memory",
        "most memory of a task",
    ),
    file(
        "TaskOptions::output_bytes_max",
        SettingDefault::Bytes(limits::OUTPUT_BYTES_MAX as u64),
        "output-limit",
        "most bytes of a task's output",
    ),
    file(
        "TaskOptions::log_bytes_max",
        SettingDefault::Bytes(limits::LOG_BYTES_PER_TASK_MAX as u64),
        "log-limit",
        "most bytes of a task's logs",
    ),
    flag(
        "TaskOptions::clock_resolution",
        SettingDefault::Time(limits::CLOCK_RESOLUTION),
        "clock-resolution",
        "step of the clocks that WASI gives a task",
    ),
    flag("TaskOptions::fuel", SettingDefault::None, "fuel", "most fuel of a task"),
    pool(
        "TaskOptions::instance_tasks_max",
        SettingDefault::Count(limits::INSTANCE_TASKS_MAX as u64),
        "tasks that one instance serves where instances are reused",
    ),
    file(
        "PoolBuilder::wasm_stack_bytes_max",
        SettingDefault::Bytes(limits::WASM_STACK_BYTES_MAX as u64),
        "wasm-stack",
        "stack that the wasm of a task may use",
    ),
    flag(
        "PoolBuilder::slow_after",
        SettingDefault::None,
        "slow-after",
        "running time after which a task is reported as slow",
    ),
    // Sandbox and logs
    file(
        "PoolBuilder::sandbox",
        SettingDefault::Words("best-effort"),
        "sandbox",
        "how much of the sandbox is demanded",
    ),
    file(
        "PoolBuilder::log_rate_max",
        SettingDefault::Bytes(limits::LOG_BYTES_PER_SECOND_MAX),
        "log-rate",
        "most bytes of logs a second from the tasks of one worker",
    ),
    file(
        "PoolBuilder::worker_log_level",
        SettingDefault::Words("warn; -v: debug"),
        "worker-log",
        "what workers say of themselves",
    ),
    file(
        "PoolBuilder::engine_log_level",
        SettingDefault::Words("off"),
        "engine-log",
        "what the engine in a worker says",
    ),
    // The command's own
    file(
        "",
        SettingDefault::Time(limits::STOP_GRACE),
        "stop-grace",
        "how long running tasks of a map may take after SIGTERM or SIGHUP",
    ),
    file("", SettingDefault::None, "log-file", "a file that logs are written to, too"),
    file("", SettingDefault::Words("text"), "log-format", "the lines of the log file"),
    file("", SettingDefault::Words("never"), "log-rotate", "when the log file begins anew"),
    file("", SettingDefault::Count(7), "log-keep", "most old log files that are kept"),
    file("", SettingDefault::Words("auto"), "color", "colours"),
    file("", SettingDefault::Words("auto"), "progress", "whether `map` shows its progress"),
    flag("", SettingDefault::Bytes(256 << 20), "trace-bytes", "most bytes of a timeline"),
];

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
        let in_files = if setting.in_files { "yes" } else { "" };
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
        let sources = [
            ("PoolBuilder", include_str!("pool/builder.rs")),
            ("TaskOptions", include_str!("options.rs")),
            ("CompileLimits", include_str!("../crates/proto/src/limits/compile.rs")),
        ];
        let mut told = 0;
        for setting in SETTINGS.iter().filter(|setting| !setting.method.is_empty()) {
            let (ty, method) = setting.method.split_once("::").expect("a type and a method");
            let source = sources.iter().find(|(name, _)| *name == ty).expect("a known type").1;
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

    #[test]
    fn the_readmes_table_is_this_one() {
        let readme = include_str!("../README.md");
        let shown = readme.split("<!-- settings -->\n").nth(1).expect("README.md has the marks of the table");
        assert!(shown == settings_markdown(), "README.md differs; it should have\n{}", settings_markdown());
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
        assert!(SETTINGS.iter().all(|setting| setting.flag.is_some() || !setting.in_files));
    }
}
