//! `wasmpool completions` and `wasmpool man`: what others need to know of the command line.

use clap::CommandFactory as _;

use super::args::{Args, CompletionsArgs, ManArgs};
use super::console;
use super::exit::{Exit, Failure};

/// The command's name for shells and pages.
const NAME: &str = "wasmpool";

pub(super) fn completions(args: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), NAME, &mut script);
    console::write_stdout(&script)?;
    Ok(Exit::Success)
}

pub(super) fn man(args: &ManArgs) -> Result<Exit, Failure> {
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Args::command()).render(&mut page).map_err(Failure::Output)?;
        console::write_stdout(&page)?;
        return Ok(Exit::Success);
    };
    let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Args::command(), dir));
    written.map_err(|error| {
        Failure::Machinery(format!("cannot write the manual pages to {}: {error}", dir.display()))
    })?;
    Ok(Exit::Success)
}
