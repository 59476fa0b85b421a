//! The `wasmpool` command. The command line is handled in three steps: what was typed (`args`), what that means
//! (`settings`), and the work itself (`run`, `map`, `test`, `inspect`, `doctor` …).
//!
//! Results go to stdout and everything else to stderr. Every way to end is a row of the
//! table in `exit`, and `main` is the only place that turns one into an exit code.
//!
//! A terminal never obeys what a guest says: bytes go out as they are only where stdout is a file or a pipe
//! (`console`), and JSON is written with the same characters escaped (`object`).

mod args;
mod config;
mod settings;

mod run;
mod map;
mod inspect;
mod embed;
mod bench;
mod test;
mod dev;
mod new;
mod doctor;
mod generate;

mod call;
mod input;
mod object;
mod profile;
mod result_file;
mod trace;

mod exit;
mod interrupt;
mod origin;
mod console;
mod streams;
mod logs;

use std::process::ExitCode;
use std::sync::Arc;

use rustix::process::Resource;

use args::Command;
use config::{ParseFailure, Typed};
use console::Console;
use exit::{Exit, Failure};
use logs::FileWriter;
use settings::Settings;

use files::{HostFiles, InUse};
use proto::refused::raise_to_hard;

/// [`wasmpool::init`] never comes back in a process that a pool started: it does that process's work.
fn main() -> ExitCode {
    wasmpool::init();
    // The soft limit of descriptors is low by default, for programs that use select(2). It is raised before
    // the first file is opened; workers and compilers lower theirs again.
    raise_to_hard(Resource::Nofile);
    let typed = match config::parse(std::env::args_os()) {
        Ok(typed) => typed,
        Err(ParseFailure::Failed { failure, json }) => {
            return ExitCode::from(report(&failure, json, &Console::new()).code());
        }
        // Help and version are no errors: clap prints them to stdout and its code is 0.
        Err(ParseFailure::Clap(error)) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(Exit::Usage.code());
            let said = console::print_clap(error);
            return ExitCode::from(
                said.map_or_else(|failure| report(&failure, false, &Console::new()).code(), |()| code),
            );
        }
    };
    typed.args.common.color.write_global();
    let console = Console::new();
    let json = typed.args.verb.wants_json();
    // The writer outlives the work: the last lines are written when it is dropped.
    let mut writer = None;
    let files = typed.host.clone();
    let exit = begin(&typed, &files, &console).and_then(|(_held, log_writer)| {
        writer = log_writer;
        dispatch(typed, files, &console)
    });
    let exit = exit.unwrap_or_else(|failure| {
        let exit = report(&failure, json, &console);
        // A failure after a signal comes from that signal.
        interrupt::exit().unwrap_or(exit)
    });
    drop(writer);
    interrupt::finish_saying();
    ExitCode::from(exit.code())
}

/// The command's inputs, for as long as they are held, and the log's writer.
type Begun = (Vec<Arc<InUse>>, Option<FileWriter>);

/// Does what comes before the work itself. No output of this command takes the place of what is held from here on.
fn begin(typed: &Typed, files: &HostFiles, console: &Console) -> Result<Begun, Failure> {
    let common = &typed.args.common;
    for file in typed.left_out.iter().filter(|_| !common.quiet) {
        console.say(&format!("warning: {file}"));
    }
    let inputs = input::files_of(&typed.args.verb).into_iter();
    let config = common.config.as_deref().map(|path| (path, "the settings' file"));
    let named = inputs.chain(config).filter_map(|(path, what)| files.hold_input(path, what));
    let mut held: Vec<_> = named.chain(files.hold_stream(rustix::stdio::stdin(), "stdin")).collect();
    let streams = [(rustix::stdio::stdout(), "stdout"), (rustix::stdio::stderr(), "stderr")];
    for (stream, name) in streams {
        if let (Command::Run(_) | Command::Map(_), Some(what)) =
            (&typed.args.verb, files.use_of_stream(stream))
        {
            return Err(Failure::Usage(format!(
                "{name} goes to a file that is {what} of this command as well, which would read what it writes: send it \
                 to another file"
            )));
        }
    }
    // Only now, since both may go to one file (`> all 2>&1`).
    held.extend(streams.into_iter().filter_map(|(stream, name)| files.hold_stream(stream, name)));
    interrupt::begin(common.stop_grace, console)?;
    Ok((held, logs::init(common, files, console)?))
}

fn dispatch(typed: Typed, files: HostFiles, console: &Console) -> Result<Exit, Failure> {
    let settings = Settings::resolve(&typed.args.common, files);
    match &typed.args.verb {
        Command::Run(args) => run::run(args, &settings, console),
        Command::Map(args) => map::map(args, &settings, console),
        Command::Inspect(args) => inspect::inspect(args, &settings),
        Command::Embed(args) => embed::embed(args, &settings),
        Command::Bench(args) => bench::bench(args, &settings, console),
        Command::Test(args) => test::test(args, &settings, console),
        Command::Dev(args) => dev::dev(args, &settings, console),
        Command::New(args) => new::new(args, &settings.files, console),
        Command::Doctor(args) => doctor::doctor(args, &settings),
        Command::Config(args) => typed.show(args),
        Command::Completions(args) => generate::completions(args),
        Command::Man(args) => generate::man(args, &settings.files),
    }
}

/// Says what went wrong: to a program on stdout, to a person on stderr.
fn report(failure: &Failure, json: bool, console: &Console) -> Exit {
    if !failure.is_closed_pipe() {
        if json {
            // Only stderr is left to say it on if stdout is gone as well.
            if console::print_line(&object::failure(failure)).is_err() {
                console.error(&failure.to_string());
            }
        } else {
            console.error(&failure.to_string());
        }
    }
    failure.exit()
}
