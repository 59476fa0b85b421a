//! The arguments of `map`.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args as ClapArgs, ValueEnum};

use super::Target;
use super::halt::Halt;

pub(super) const EXAMPLES: &str = "\
Each result is one line of JSON on stdout, in the order of the inputs:
  {\"input\": \"a.txt\", \"ok\": true, \"output\": …}
  {\"line\": 7, \"input\": \"twelve\", \"ok\": false, \"error\": {\"kind\": …, \"message\": …}}
A command's lines have exit_code, stdout and stderr in place of output. With
--output-dir outputs are files, 7.json for the seventh input, 7-a.txt.json where
it is the file a.txt: .bin of tasks that return bytes, .json of others, .out and
.err of commands; the line then has file in place of output.

A WASI command is run once for each input. With --lines, `{}` in ARGS is the
line; if there is none, the line is the command's stdin. With --files, the file
is the command's stdin, and `{}` is its path.

The job log has a line for each input that is done, in GNU parallel's columns:
Seq, Host, Starttime, JobRuntime, Send, Receive, Exitval, Signal, Command; then
Input, a digest of the line or path. A line is written once the result is out:
after a crash or kill -9, --resume runs what has none; the last result before
may be on stdout twice. That is about this process: neither outputs nor the log
are forced to the disk, and where the machine itself goes down (a power cut), a
line may have survived whose output has not.

Files that the command writes must not be symbolic links (root's are followed,
and links to /dev/stdout and the like), and are no inputs, even in a folder of
--files.

Ctrl-C starts nothing more and finishes what runs; again, it stops that, too.
SIGTERM and SIGHUP do the same, but stop what runs after --stop-grace; SIGQUIT
stops it at once. Either way the summary says what was done. Five seconds after
what runs was stopped the command is gone, whatever it waits for, such as a
reader of stdout that does not read; one more signal ends it at once.

Examples:
  wasmpool map word_count.wasm --files docs/ README.md
  seq 1 100 | wasmpool map primes.wasm count --lines --workers 8
  wasmpool map monte_carlo.wasm pi --jsonl --timeout 2s < inputs.jsonl
  wasmpool map csv_stats.wasm --files data/ -- --column age
  wasmpool map primes.wasm count --joblog jobs.tsv --resume < numbers >> out.jsonl
  wasmpool map primes.wasm count --halt now,fail=1 --retries 2 --unordered < numbers";

#[derive(Debug, ClapArgs)]
pub(crate) struct MapArgs {
    #[command(flatten)]
    pub(crate) target: Target,

    /// Each of these files is an input; of folders, all files that are neither hidden nor named in a .gitignore, and
    /// no symbolic links
    #[arg(long, value_name = "PATH", num_args = 1.., group = "source", help_heading = "Inputs")]
    pub(crate) files: Vec<PathBuf>,

    /// Each line of stdin is an input: the text itself for a String or bytes, else JSON [default]
    #[arg(long, group = "source", help_heading = "Inputs")]
    pub(crate) lines: bool,

    /// Each line of stdin is an input in JSON
    #[arg(long, group = "source", help_heading = "Inputs")]
    pub(crate) jsonl: bool,

    /// Say what would be run, and which inputs do not fit; run nothing
    #[arg(long, help_heading = "Inputs")]
    pub(crate) dry_run: bool,

    /// Results in the order of the inputs [default]
    #[arg(short, long, conflicts_with = "unordered", help_heading = "Results")]
    pub(crate) keep_order: bool,

    /// Results as they come
    #[arg(long, help_heading = "Results")]
    pub(crate) unordered: bool,

    /// Write each output to a file of its own in this folder, which is made if need be
    #[arg(long, value_name = "DIR", help_heading = "Results")]
    pub(crate) output_dir: Option<PathBuf>,

    /// Add to each line what the task cost; null is what is not known, as of a task whose worker was killed
    #[arg(long, help_heading = "Results")]
    pub(crate) report: bool,

    /// Most bytes that this map may hold, such as 256MiB: inputs under way, the largest results that they may
    /// have, and results that wait. An input is run once there is room for its largest result
    /// (--output-limit, twice for commands), and there must be room for one [default: 1GiB, or more for many
    /// workers]
    #[arg(long, value_name = "SIZE", help_heading = "Limits", env = "WASMPOOL_MAP_MEMORY")]
    pub(crate) map_memory: Option<ByteSize>,

    /// When to end early: never, or WHEN,WHAT=N, WHEN being soon (finish what runs) or now (stop
    /// it), WHAT being fail, success or done
    #[arg(long, value_name = "HALT", default_value = "never", help_heading = "Failures")]
    pub(crate) halt: Halt,

    /// Run an input that fails again, up to N times; a worker's death then costs its task no more than that
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Failures")]
    pub(crate) retries: u32,

    /// Note in this file what is done. It must be new, unless --resume or --resume-failed is given
    #[arg(long, value_name = "FILE", help_heading = "Failures")]
    pub(crate) joblog: Option<PathBuf>,

    /// Leave out what the job log says is done, failed inputs among it
    #[arg(long, requires = "joblog", help_heading = "Failures")]
    pub(crate) resume: bool,

    /// Leave out what the job log says has succeeded
    #[arg(long, requires = "joblog", help_heading = "Failures")]
    pub(crate) resume_failed: bool,

    /// How far it is, on stderr: a bar where that is a terminal, else a line each second
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "auto",
        help_heading = "Display",
        env = "WASMPOOL_PROGRESS"
    )]
    pub(crate) progress: Progress,

    /// Progress with a row for each worker: what it runs, for how long, its memory
    #[arg(long, help_heading = "Display")]
    pub(crate) watch: bool,
}

/// When progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// On terminals only
    Auto,
    Always,
    Never,
}
