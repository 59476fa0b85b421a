//! Exactly what was typed. Nothing is looked up or opened here.

mod halt;
mod help;
mod limits;
mod map;
#[cfg(test)]
mod tests;
mod tools;
mod values;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use tracing::level_filters::LevelFilter;

pub(super) use halt::{Halt, Stop as HaltStop};
use help::{EXIT_CODES, PRECEDENCE};
pub(super) use limits::{Limits, bytes};
pub(super) use map::{MapArgs, Progress};
use proto::limits::{COMPILE_MEMORY_BYTES_MIN, WORKERS_MAX};
pub(super) use tools::{
    BenchArgs, CompletionsArgs, ConfigArgs, DevArgs, DoctorArgs, EmbedArgs, GuestKind, GuestLang, ManArgs,
    NewArgs, TestArgs,
};
pub(super) use values::Rotation;
use wasmpool::limits::CompileLimit;
use wasmpool::sandbox::DirAccess;

const EXAMPLES: &str = "\
Examples:
  wasmpool inspect primes.wasm
  wasmpool run primes.wasm count --input 1000000
  wasmpool run csv_stats.wasm -- --column age < people.csv
  wasmpool map word_count.wasm --files src/ --workers 8 > counts.jsonl";

const RUN_EXAMPLES: &str = "\
Input:
  A typed task takes JSON in --input. Several arguments are an array in their
  order, or an object by their names; a task without arguments needs no input.
  --input-file and piped stdin are the text itself if the task's one argument is
  a String or bytes, and JSON otherwise. To an untyped task and to a WASI command
  (as its stdin) both are bytes, as they stand. A command's stdin is read as the
  command asks for it, and what it does not ask for stays for whoever reads next.

  In JSON, bytes are a string (its UTF-8), an array of numbers, or
  {\"base64\": \"…\"}; NaN, inf and -inf are strings; numbers beyond 64 bits are
  strings; an enum is \"Variant\" or {\"Variant\": …}; an absent Option is null, and
  one that holds what may be null itself (an Option, ()) is {\"Some\": …}.

Output:
  A typed task's result is one line of JSON. Bytes that are UTF-8 are a string
  there, others {\"base64\": \"…\"}, and so are a command's stdout and stderr with
  --json. An untyped task's bytes and a command's stdout and stderr are passed on
  as they are; if they go to a terminal, control characters are escaped. So is what
  a command wrote before it failed, unless its worker had to be killed: then that is
  lost with it. Files that options name to be written must not be symbolic links
  (root's are followed, and links to /dev/stdout and the like).

Examples:
  wasmpool run primes.wasm count --input 1000000
  wasmpool run monte_carlo.wasm pi --input '[1000000, 42]'
  wasmpool run monte_carlo.wasm pi --input '{\"samples\": 1000000, \"seed\": 42}' --timeout 5s
  wasmpool run word_count.wasm --input-file README.md --json
  wasmpool run compress.wasm deflate < notes.txt > notes.zz
  wasmpool run csv_stats.wasm -- --column age < people.csv
  wasmpool run tool.wasm add 3 4             # a function of a command, not its program";

const COMPILING: &str = "Compiling";
const LOGS: &str = "Logs";

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Run WebAssembly tasks in a pool of worker processes.
#[derive(Debug, Parser)]
#[command(name = "wasmpool", version = VERSION, max_term_width = 100)]
// Of an option that is given twice the last one counts, as in most tools: scripts and aliases add theirs in front.
#[command(args_override_self = true)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) verb: Command,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run one task, or a WASI command
    #[command(after_help = format!("{RUN_EXAMPLES}\n\n{EXIT_CODES}"))]
    Run(RunArgs),
    /// Run one task over many inputs
    #[command(after_help = format!("{}\n\n{EXIT_CODES}", map::EXAMPLES))]
    Map(MapArgs),
    /// Show what a module is and which tasks it has
    #[command(after_help = EXIT_CODES)]
    Inspect(InspectArgs),
    /// Give a module the types of its tasks, written as text
    #[command(after_help = format!("{}\n\n{EXIT_CODES}", tools::EMBED_EXAMPLES))]
    Embed(EmbedArgs),
    /// Measure one task: latency and throughput at each isolation level
    #[command(after_help = format!("{}\n\n{EXIT_CODES}", tools::BENCH_EXAMPLES))]
    #[command(mut_arg("profile", |arg| arg.hide(true)))]
    Bench(BenchArgs),
    /// Run a file of cases, and compare outputs, errors and fuel with what it expects
    #[command(after_help = format!("{}\n\n{EXIT_CODES}", tools::TEST_EXAMPLES))]
    Test(TestArgs),
    /// Run one input again whenever the module, or what it is built from, changes
    #[command(after_help = format!("{}\n\n{EXIT_CODES}", tools::DEV_EXAMPLES))]
    #[command(mut_arg("profile", |arg| arg.hide(true)), mut_arg("trace", |arg| arg.hide(true)))]
    #[command(mut_arg("trace_bytes", |arg| arg.hide(true)))]
    Dev(DevArgs),
    /// Make the crate of a guest, with its test
    #[command(after_help = format!("{}\n\n{EXIT_CODES}", tools::NEW_EXAMPLES))]
    New(NewArgs),
    /// Look at this machine, and try the sandbox: have throw-away workers attack it
    #[command(after_help = EXIT_CODES)]
    Doctor(DoctorArgs),
    /// Show the settings, and where each comes from
    #[command(after_help = format!("{PRECEDENCE}\n\n{EXIT_CODES}"))]
    Config(ConfigArgs),
    /// Print what a shell needs to complete this command
    Completions(CompletionsArgs),
    /// Print the manual page
    Man(ManArgs),
}

impl Command {
    /// The directories that tasks may write to.
    pub(super) fn writable_dirs(&self) -> impl Iterator<Item = &Path> + Clone {
        let dirs = match self {
            Command::Run(args) => &args.target.dir[..],
            Command::Map(args) => &args.target.dir,
            Command::Bench(args) => &args.target.dir,
            Command::Dev(args) => &args.target.dir,
            Command::Test(args) => &args.dir,
            _ => &[],
        }
        .iter();
        dirs.filter(|dir| dir.access.is_writable()).map(|dir| &*dir.host)
    }

    /// Whether a program reads stdout even of a failure. The lines of `map` are JSON
    /// anyway, one for each input; what stops the whole of it belongs to none of them.
    pub(super) fn wants_json(&self) -> bool {
        match self {
            Command::Run(args) => args.json,
            Command::Map(_) => false,
            Command::Inspect(args) => args.json,
            Command::Bench(args) => args.json,
            Command::Test(args) => args.json,
            Command::Dev(_) => false,
            Command::Doctor(args) => args.json,
            Command::Config(args) => args.json,
            Command::Embed(args) => args.json,
            Command::New(_) | Command::Completions(_) | Command::Man(_) => false,
        }
    }
}

#[derive(Debug, ClapArgs)]
pub(super) struct Common {
    /// Most worker processes [default: the CPUs there are; run: 1]
    #[arg(long, global = true, value_name = "N", value_parser = some_workers, help_heading = "Pool", env = "WASMPOOL_WORKERS")]
    pub(super) workers: Option<usize>,

    /// How long running tasks of a map may take after SIGTERM or SIGHUP, such as 30s; 5s later it ends in any case [default: 10s]
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration, help_heading = "Pool", env = "WASMPOOL_STOP_GRACE")]
    pub(super) stop_grace: Option<Duration>,

    /// Where compiled modules are kept [default: wasmpool in $XDG_CACHE_HOME, or in ~/.cache]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Pool", env = "WASMPOOL_CACHE_DIR")]
    pub(super) cache_dir: Option<PathBuf>,

    /// Keep no compiled modules, whatever --cache-dir says
    #[arg(long, global = true, help_heading = "Pool")]
    pub(super) no_cache: bool,

    /// Most bytes of disk for compiled modules; those used least recently make room for others, 0 keeps none
    /// [default: 2GiB]
    #[arg(long, global = true, value_name = "SIZE", help_heading = "Pool", env = "WASMPOOL_CACHE_LIMIT")]
    pub(super) cache_limit: Option<ByteSize>,

    /// How much of the operating system's sandbox around workers is demanded [default: best-effort]
    #[arg(long, global = true, value_name = "POLICY", help_heading = "Pool", env = "WASMPOOL_SANDBOX")]
    pub(super) sandbox: Option<Policy>,

    /// Most CPU time for compiling the module, of all threads together, such as 30s [default: 5m]
    #[arg(long, global = true, value_name = "DURATION", value_parser = some_time, help_heading = COMPILING, env = "WASMPOOL_COMPILE_CPU_TIME")]
    pub(super) compile_cpu_time: Option<Duration>,

    /// Most time for compiling the module, which takes longer on a busy machine [default: 2h]
    #[arg(long, global = true, value_name = "DURATION", value_parser = some_time, help_heading = COMPILING, env = "WASMPOOL_COMPILE_TIMEOUT")]
    pub(super) compile_timeout: Option<Duration>,

    /// Most memory of the compiler, such as 4GiB [default: 6GiB, or half of this machine's if that is less]
    #[arg(long, global = true, value_name = "SIZE", value_parser = compile_memory, help_heading = COMPILING, env = "WASMPOOL_COMPILE_MEMORY")]
    pub(super) compile_memory: Option<ByteSize>,

    /// Set a bound on the shape of a module that is compiled, such as functions=200000; an error names it. One that the
    /// cache has was compiled before
    #[arg(long, global = true, value_name = "NAME=N", value_parser = compile_limit, help_heading = COMPILING)]
    pub(super) compile_limit: Vec<(CompileLimit, u64)>,

    /// Lift the bounds on the module's shape; time and memory stay bounded
    #[arg(long, global = true, help_heading = COMPILING)]
    pub(super) trust_module: bool,

    /// Say more on stderr; twice: everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Display")]
    pub(super) verbose: u8,

    /// Say nothing on stderr but errors: no logs of guests, no progress, no summary
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Display")]
    pub(super) quiet: bool,

    /// Write logs to this file, too, from info up
    #[arg(long, global = true, value_name = "FILE", help_heading = LOGS, env = "WASMPOOL_LOG_FILE")]
    pub(super) log_file: Option<PathBuf>,

    /// The lines of the log file
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text", help_heading = LOGS, env = "WASMPOOL_LOG_FORMAT")]
    pub(super) log_format: LogFormat,

    /// When the log file begins anew: never, daily (at midnight, UTC), or size=N bytes [size: 64MiB]
    #[arg(long, global = true, value_name = "WHEN", default_value = "never", help_heading = LOGS, env = "WASMPOOL_LOG_ROTATE")]
    pub(super) log_rotate: Rotation,

    /// Most old log files that are kept
    #[arg(long, global = true, value_name = "N", default_value_t = 7, help_heading = LOGS, env = "WASMPOOL_LOG_KEEP")]
    pub(super) log_keep: usize,

    /// Most bytes of logs a second from the tasks of one worker; the rest is dropped and counted [default: 4MiB]
    #[arg(long, global = true, value_name = "SIZE", value_parser = rate, help_heading = LOGS, env = "WASMPOOL_LOG_RATE")]
    pub(super) log_rate: Option<u64>,

    /// What workers say of themselves, from this level up [default: warn; with -v debug, with -vv trace]
    #[arg(long, global = true, value_name = "LEVEL", help_heading = LOGS, env = "WASMPOOL_WORKER_LOG")]
    pub(super) worker_log: Option<Severity>,

    /// What the engine inside of them says; debug and trace are slow
    #[arg(long, global = true, value_name = "LEVEL", default_value = "off", help_heading = LOGS, env = "WASMPOOL_ENGINE_LOG")]
    pub(super) engine_log: Severity,

    /// The settings' file, in place of those that are looked for; see `wasmpool help config`
    #[arg(long, global = true, value_name = "FILE", help_heading = "Display", env = "WASMPOOL_CONFIG")]
    pub(super) config: Option<PathBuf>,

    /// Colours
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        help_heading = "Display",
        env = "WASMPOOL_COLOR"
    )]
    pub(super) color: Color,
}

impl Common {
    /// Returns how much workers log of themselves: if nothing else is asked for, in as much detail as the pool does.
    pub(super) fn worker_log(&self) -> Severity {
        self.worker_log.unwrap_or(match self.verbose {
            0 => Severity::Warn,
            1 => Severity::Debug,
            _ => Severity::Trace,
        })
    }
}

/// [`SandboxPolicy`](wasmpool::sandbox::SandboxPolicy) as it is typed.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Policy {
    /// Every layer, or nothing starts
    Strict,
    /// Every layer that there is; not without seccomp
    BestEffort,
    /// None: what escapes from WebAssembly has your rights
    Off,
}

/// [`Interrupt`](wasmpool::module::Interrupt) as it is typed.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Stop {
    /// Within microseconds, and the worker goes on
    Check,
    /// With its worker, which is replaced; not with --fuel or --deterministic
    Kill,
}

/// [`Isolation`](wasmpool::task::Isolation) as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Level {
    /// Each task has a fresh instance
    Instance,
    /// Tasks have the instance as the one before left it
    Reuse,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Color {
    /// On terminals only
    Auto,
    Always,
    Never,
}

impl Color {
    /// For every stream that anstream opens from here on.
    pub(super) fn write_global(self) {
        match self {
            Color::Auto => anstream::ColorChoice::Auto,
            Color::Always => anstream::ColorChoice::Always,
            Color::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}

/// A level of logs as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Severity {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Severity {
    /// Returns the filter that lets through what is at least so severe.
    pub(super) fn filter(self) -> LevelFilter {
        match self {
            Severity::Off => LevelFilter::OFF,
            Severity::Error => LevelFilter::ERROR,
            Severity::Warn => LevelFilter::WARN,
            Severity::Info => LevelFilter::INFO,
            Severity::Debug => LevelFilter::DEBUG,
            Severity::Trace => LevelFilter::TRACE,
        }
    }
}

/// The lines of a log file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// Time, level, target, fields, message
    Text,
    /// An object each
    Json,
}

/// A directory as it is typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dir {
    pub(super) host: PathBuf,
    pub(super) guest: String,
    pub(super) access: DirAccess,
}

/// What a task is and may use.
#[derive(Debug, Clone, ClapArgs)]
pub(super) struct Target {
    /// The .wasm file
    pub(super) module: PathBuf,

    /// The task's name; not needed if there is only one. Without a name a command runs its program; another function that it
    /// exports has a name as well. Its arguments may stand behind it in one word, in the way of the component model
    /// (WAVE): 'add(3, 4)'
    pub(super) task: Option<String>,

    /// Arguments of the task, each as JSON, or as it is where the task takes text or bytes. What begins with a hyphen
    /// follows `--`, as all that is for a command
    #[arg(value_name = "ARG", allow_negative_numbers = true)]
    pub(super) task_args: Vec<String>,

    #[command(flatten)]
    pub(super) limits: Limits,

    /// Give a WASI module this directory, to be read only unless it says rw; may be given again.
    /// HOST[:GUEST[:ro|rw]], GUEST being its path in the guest [default: HOST as typed]. Weakens the sandbox. Links that
    /// tasks make in it lead downwards only: absolute ones and those with .. are refused
    #[arg(long, value_name = "DIR", value_parser = dir)]
    pub(super) dir: Vec<Dir>,

    /// A file that the tasks share: sent once to each worker, read with `shared`; may be given again
    #[arg(long, value_name = "FILE")]
    pub(super) share: Vec<PathBuf>,

    /// The trust domain of the tasks: their workers run no tasks of another one
    #[arg(long, value_name = "NAME")]
    pub(super) domain: Option<String>,

    /// The same result for the same input: clocks that only move when read, and randomness from this seed
    #[arg(long, value_name = "SEED")]
    pub(super) deterministic: Option<u64>,

    /// How a task is stopped: its code checks for it, or its worker is killed with what it wrote, and the code is faster
    #[arg(long, value_name = "HOW", help_heading = "Speed")]
    pub(super) interrupt: Option<Stop>,

    /// What a task shares with the one before: nothing of its instance, or all of it, faster, for trusted code
    #[arg(long, value_name = "LEVEL", help_heading = "Speed")]
    pub(super) isolation: Option<Level>,

    /// Set an environment variable of a command
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub(super) env: Vec<(String, String)>,

    /// Warn of tasks that run for longer than this, such as 10s, and log where they are
    #[arg(long, value_name = "DURATION", value_parser = some_time, help_heading = "Diagnostics")]
    pub(super) slow_after: Option<Duration>,

    /// Write where tasks spend their time to this file, for www.speedscope.app
    #[arg(long, value_name = "FILE", conflicts_with = "interrupt", help_heading = "Diagnostics")]
    pub(super) profile: Option<PathBuf>,

    /// Write a timeline of workers and tasks to this file, for ui.perfetto.dev
    #[arg(long, value_name = "FILE", help_heading = "Diagnostics")]
    pub(super) trace: Option<PathBuf>,

    /// Most bytes of the timeline; what is over is left out
    #[arg(long, value_name = "SIZE", value_parser = rate, default_value = "256MiB", help_heading = "Diagnostics")]
    pub(super) trace_bytes: u64,

    /// Arguments of a command, or of a task
    #[arg(last = true)]
    pub(super) args: Vec<String>,
}

impl Target {
    /// Returns the task's name, as it was typed or as a call has it.
    pub(super) fn task_name(&self) -> Option<&str> {
        let typed = self.task.as_deref()?;
        Some(json::call(typed).map_or(typed, |call| call.name))
    }

    /// Returns the arguments of a call in WAVE, if that is how the task was named.
    pub(super) fn wave(&self) -> Option<&str> {
        self.task.as_deref().and_then(json::call).map(|call| call.arguments)
    }

    /// Returns the arguments of a task, before `--` and behind it.
    pub(super) fn words(&self) -> Vec<String> {
        self.task_args.iter().chain(&self.args).cloned().collect()
    }
}

#[derive(Debug, ClapArgs)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) target: Target,

    /// The input: JSON for a typed task, else the bytes of this text
    #[arg(long, value_name = "JSON", allow_hyphen_values = true, conflicts_with = "task_args")]
    pub(super) input: Option<String>,

    /// A file with the input, `-` for stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["input", "task_args"])]
    pub(super) input_file: Option<PathBuf>,

    /// Do not read stdin: a command gets an empty one. Without this flag only as much is read as the command
    /// asks for
    #[arg(long, conflicts_with_all = ["input", "input_file"])]
    pub(super) no_stdin: bool,

    /// Write the result to this file: bytes as they are, other values as JSON, of a command what it wrote to stdout
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,

    /// Print one JSON object: result or error, and what it cost
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct InspectArgs {
    /// The .wasm file
    pub(super) module: PathBuf,

    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; examples: 500ms, 5s, 2m"))
}

/// Parses a limit of time, which must leave some.
fn some_time(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("within no time nothing can be done: give more than 0, such as 500ms".into()),
        time => Ok(time),
    }
}

fn rate(text: &str) -> Result<u64, String> {
    let size = text.parse::<ByteSize>().ok().map(|size| size.as_u64()).filter(|size| *size > 0);
    size.ok_or_else(|| "it must be a size from 1, such as 64KiB or 4MiB".into())
}

fn some_workers(text: &str) -> Result<usize, String> {
    let workers = text.parse::<usize>().ok().filter(|workers| (1..=WORKERS_MAX).contains(workers));
    workers.ok_or_else(|| format!("choose 1 to {}", WORKERS_MAX))
}

fn compile_memory(text: &str) -> Result<ByteSize, String> {
    let size = text.parse::<ByteSize>().ok().filter(|size| size.as_u64() >= COMPILE_MEMORY_BYTES_MIN);
    size.ok_or_else(|| format!("it must be a size from {}, such as 4GiB", ByteSize(COMPILE_MEMORY_BYTES_MIN)))
}

fn dir(text: &str) -> Result<Dir, String> {
    const FORM: &str = "it must have the form HOST[:GUEST[:ro|rw]]";
    let mut parts = text.split(':');
    let host = parts.next().unwrap_or_default();
    let guest = parts.next();
    let access = parts.next();
    if host.is_empty() || guest.is_some_and(str::is_empty) || parts.next().is_some() {
        return Err(FORM.into());
    }
    // Somebody means the access, and would get a read-only directory of a strange name.
    if let (Some(guest @ ("ro" | "rw")), None) = (guest, access) {
        return Err(format!("{FORM}: for `{guest}`, write {host}:{host}:{guest}"));
    }
    let access = match access {
        None | Some("ro") => DirAccess::ReadOnly,
        Some("rw") => DirAccess::ReadWrite,
        Some(other) => return Err(format!("{FORM}, not `{other}`")),
    };
    Ok(Dir { host: host.into(), guest: guest.unwrap_or(host).into(), access })
}

/// What a directory is given for.
fn access(text: &str) -> Result<DirAccess, String> {
    match text {
        "ro" => Ok(DirAccess::ReadOnly),
        "rw" => Ok(DirAccess::ReadWrite),
        _ => Err("it must be ro or rw".into()),
    }
}

fn compile_limit(text: &str) -> Result<(CompileLimit, u64), String> {
    let (name, max) = text.split_once('=').ok_or("it must have the form NAME=N")?;
    let kind = match CompileLimit::from_name(name) {
        Some(CompileLimit::CpuTime) => return Err("use --compile-cpu-time".into()),
        Some(CompileLimit::Time) => return Err("use --compile-timeout".into()),
        Some(CompileLimit::Memory) => return Err("use --compile-memory".into()),
        Some(kind) => kind,
        None => {
            let shapes = CompileLimit::ALL.into_iter().filter(|kind| {
                !matches!(kind, CompileLimit::CpuTime | CompileLimit::Time | CompileLimit::Memory)
            });
            let names: Vec<_> = shapes.map(|kind| kind.to_string()).collect();
            return Err(format!("there is no bound of that name; there are {}", names.join(", ")));
        }
    };
    let max: ByteSize = max.parse().map_err(|_| "N must be a number or a size, such as 5000 or 2MiB")?;
    Ok((kind, max.as_u64()))
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("it must have the form NAME=VALUE".into()),
    }
}
