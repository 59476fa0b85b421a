//! The arguments of everything around running tasks.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};
use clap_complete::Shell;

use super::{Dir, Limits, Target};
use wasmpool::sandbox::{DirAccess, SandboxLayer};

#[derive(Debug, ClapArgs)]
pub(crate) struct DoctorArgs {
    /// Leave a layer out, such as landlock; may be given again
    #[arg(long, value_name = "LAYER", value_parser = super::values::layer)]
    pub(crate) without: Vec<SandboxLayer>,

    /// This layer alone, and what cannot be left out
    #[arg(long, value_name = "LAYER", value_parser = super::values::layer, conflicts_with = "without")]
    pub(crate) only: Option<SandboxLayer>,

    /// As in a pool with directories, to be read (ro) or also written (rw)
    #[arg(long, value_name = "ACCESS", value_parser = super::access)]
    pub(crate) dirs: Option<DirAccess>,

    /// Show every attack, not only those that succeeded
    #[arg(long)]
    pub(crate) all: bool,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ConfigArgs {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: Shell,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ManArgs {
    /// Write a page for each command into this folder, instead of the first one to stdout
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

pub(super) const NEW_EXAMPLES: &str = "\
Examples:
  wasmpool new hello
  wasmpool new hello --lang go
  wasmpool new reports/daily --kind command";

#[derive(Debug, ClapArgs)]
pub(crate) struct NewArgs {
    /// The folder to make; its last part is the guest's name
    pub(crate) path: PathBuf,

    /// The language it is written in
    #[arg(long, value_name = "LANG", default_value = "rust")]
    pub(crate) lang: GuestLang,

    /// What the guest is; in other languages than Rust it has tasks
    #[arg(long, value_name = "KIND", default_value = "task")]
    pub(crate) kind: GuestKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GuestLang {
    /// Rust, with the SDK
    Rust,
    /// C, or C++, with the header wasmpool.h
    C,
    /// Zig, with wasmpool.zig
    Zig,
    /// Go, with a package
    Go,
    /// AssemblyScript, with wasmpool.ts
    As,
    /// JavaScript, as a component
    Js,
    /// Python, as a component
    Python,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GuestKind {
    /// Typed tasks, with the SDK
    Task,
    /// A WASI program, without
    Command,
}

pub(super) const TEST_EXAMPLES: &str = "\
A file of cases is TOML, and its paths are relative to its folder:

  module = \"word_count.wasm\"

  [[case]]
  name = \"two words\"
  task = \"count\"           # not for a command, nor where there is only one
  input = \"a b\"            # the input as in JSON; or input_json = '…', or
                           # input_file = \"…\", or wave = 'count(\"a b\")'
  output = { words = 2, … } # or output_json, or output_file
  fuel_max = 100000        # more fuel than this fails the case

  [[case]]
  name = \"no customer\"
  task = \"find\"
  input = 7
  error = \"no such customer\" # or error_contains, error_kind = \"guest\",
                           # error_data = { … }, trap = \"unreachable\"

  [[case]]
  name = \"an empty table\"   # of a command
  args = [\"--column\", \"age\"]
  env = { LANG = \"C\" }
  stdin = \"age\\n\"         # or input_file
  exit = 1                 # absent: 0
  stderr_contains = \"no column\" # or stdout, stdout_contains, output_file

A case that expects nothing is only to succeed. Numbers are compared by what they
count, and a field of an output that is null need not be there. Every module
counts fuel here, so that each line shows what a ceiling may be set to.

Examples:
  wasmpool test cases.toml
  wasmpool test cases.toml empty --timeout 1s --json";

#[derive(Debug, ClapArgs)]
pub(crate) struct TestArgs {
    /// The file of cases, `-` for stdin
    pub(crate) cases: PathBuf,

    /// Run only cases with this in their names
    pub(crate) filter: Option<String>,

    #[command(flatten)]
    pub(crate) limits: Limits,

    /// Give a WASI module this directory, as for `run`; may be given again
    #[arg(long, value_name = "DIR", value_parser = super::dir)]
    pub(crate) dir: Vec<Dir>,

    /// A file that the tasks share, as for `run`; may be given again
    #[arg(long, value_name = "FILE")]
    pub(crate) share: Vec<PathBuf>,

    /// The same result for the same input, as for `run`
    #[arg(long, value_name = "SEED")]
    pub(crate) deterministic: Option<u64>,

    /// Print one JSON object for each case, and one for all of them
    #[arg(long)]
    pub(crate) json: bool,
}

impl TestArgs {
    pub(crate) fn has_chosen(&self, case: &str) -> bool {
        self.filter.as_deref().is_none_or(|filter| case.contains(filter))
    }

    /// Returns the module with everything that its cases have in common.
    pub(crate) fn target(&self, module: PathBuf) -> Target {
        Target {
            module,
            task: None,
            task_args: Vec::new(),
            limits: self.limits.clone(),
            dir: self.dir.clone(),
            share: self.share.clone(),
            domain: None,
            deterministic: self.deterministic,
            interrupt: None,
            isolation: None,
            env: Vec::new(),
            slow_after: None,
            profile: None,
            trace: None,
            trace_bytes: 0,
            args: Vec::new(),
        }
    }
}

pub(super) const DEV_EXAMPLES: &str = "\
The input is run once, and again whenever the module's file changes, also by being
replaced. With --build it is run when something in the folders of --watch changes:
first the build, by `sh -c` on this machine, with your rights and in no sandbox, and
then the input, if the build has made another module. A build that fails shows its
output, and the next change is waited for. A change stops a run that goes on. Hidden
names, target and node_modules are not watched. Ctrl-C ends it.

Examples:
  wasmpool dev primes.wasm count 1000000
  wasmpool dev --build 'cargo build --release --target wasm32-unknown-unknown' \\
    target/wasm32-unknown-unknown/release/hello.wasm greet you
  wasmpool dev main.wasm --build 'tinygo build -o main.wasm -target wasip1 .' -- --verbose";

#[derive(Debug, ClapArgs)]
pub(crate) struct DevArgs {
    #[command(flatten)]
    pub(crate) target: Target,

    /// The input of each run, as for `run`
    #[arg(long, value_name = "JSON", allow_hyphen_values = true, conflicts_with = "task_args")]
    pub(crate) input: Option<String>,

    /// A file with the input, which is read for each run
    #[arg(long, value_name = "FILE", conflicts_with_all = ["input", "task_args"])]
    pub(crate) input_file: Option<PathBuf>,

    /// What makes the module: your own command, run by `sh -c`
    #[arg(long, value_name = "COMMAND")]
    pub(crate) build: Option<String>,

    /// A folder whose changes call for a build; may be given again [default: .]
    #[arg(long, value_name = "DIR", requires = "build")]
    pub(crate) watch: Vec<PathBuf>,
}

pub(super) const EMBED_EXAMPLES: &str = "\
The types are the functions of a WIT interface, or a whole WIT file:

  /// Counts words.
  count-words: func(text: string, min-length: option<u32>) -> result<stats, string>;
  record stats { words: u32, longest: option<string> }

The module keeps to the byte ABI, and exports each function as count-words,
count_words or countWords. Its tasks then read and write JSON, whose types are
checked before the call and after it.

Examples:
  wasmpool embed types.wit guest.wasm
  wasmpool embed types.wit guest.wasm --output typed.wasm";

#[derive(Debug, ClapArgs)]
pub(crate) struct EmbedArgs {
    /// The file with the types, - for stdin
    pub(crate) types: PathBuf,

    /// The .wasm file
    pub(crate) module: PathBuf,

    /// Write the module to this file, - for stdout, and leave the first one as it is
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

pub(super) const BENCH_EXAMPLES: &str = "\
For each isolation level: how long one call takes from submit to result, one at a
time, and how many a second the pool does when it is kept busy. --isolation names
one of them.

Examples:
  wasmpool bench primes.wasm count --input 1000
  wasmpool bench echo.wasm hash --input '\"hello\"' --time 10s --json
  wasmpool bench csv_stats.wasm --input-file people.csv -- --column age";

#[derive(Debug, ClapArgs)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) target: Target,

    /// The input of each call, as for `run`
    #[arg(long, value_name = "JSON", allow_hyphen_values = true, conflicts_with = "task_args")]
    pub(crate) input: Option<String>,

    /// A file with the input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["input", "task_args"])]
    pub(crate) input_file: Option<PathBuf>,

    /// How long each of the measurements takes, such as 500ms or 5s
    #[arg(long, value_name = "DURATION", value_parser = super::duration, default_value = "2s")]
    pub(crate) time: Duration,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
