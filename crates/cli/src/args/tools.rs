//! The arguments of everything around running tasks.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};
use clap_complete::Shell;

use super::Target;
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
  wasmpool new reports/daily --kind command";

#[derive(Debug, ClapArgs)]
pub(crate) struct NewArgs {
    /// The folder to make; its last part is the crate's name
    pub(crate) path: PathBuf,

    /// What the guest is
    #[arg(long, value_name = "KIND", default_value = "task")]
    pub(crate) kind: GuestKind,

    /// Where the SDK is, if it is not to be found at its usual place
    #[arg(long, value_name = "DIR")]
    pub(crate) sdk: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GuestKind {
    /// Typed tasks, with the SDK
    Task,
    /// A WASI program, without
    Command,
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

    /// Write the module to this file, and leave the first one as it is
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
