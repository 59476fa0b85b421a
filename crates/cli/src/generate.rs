//! `wasmpool completions` and `wasmpool man`: what others need to know of the command line.

use std::io::{self, Write as _};
use std::path::Path;

use clap::{Command, CommandFactory as _};

use super::args::{Args, CompletionsArgs, ManArgs};
use super::console;
use super::exit::{Exit, Failure};
use files::HostFiles;

/// The command's name for shells and pages.
const NAME: &str = "wasmpool";

pub(super) fn completions(args: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), NAME, &mut script);
    console::write_stdout(&script)?;
    Ok(Exit::Success)
}

pub(super) fn man(args: &ManArgs, files: &HostFiles) -> Result<Exit, Failure> {
    let mut command = Args::command().disable_help_subcommand(true);
    command.build();
    let Some(dir) = &args.dir else {
        let (_, page) = page(command).map_err(Failure::Output)?;
        console::write_stdout(&page)?;
        return Ok(Exit::Success);
    };
    write_pages(&command, dir, files).map_err(|error| {
        Failure::Internal(format!("cannot write the manual pages to {}: {error}", dir.display()))
    })?;
    Ok(Exit::Success)
}

/// The command's page, and one for each of its subcommands.
fn write_pages(command: &Command, dir: &Path, files: &HostFiles) -> io::Result<()> {
    let folder = files.make_folder(dir, 0o777)?;
    for command in std::iter::once(command).chain(command.get_subcommands()) {
        let (name, page) = page(command.clone())?;
        folder.replace_by(name, "new", |file| file.write_all(&page))?;
    }
    Ok(())
}

/// A page and its file's name. The part behind the options in the help is set as it stands there, with a
/// heading for each of its parts: clap's own would fill the lines of tables and examples.
fn page(command: Command) -> io::Result<(String, Vec<u8>)> {
    let notes = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let has_subcommands = command.has_subcommands();
    let has_version = command.get_version().is_some();
    let man = clap_mangen::Man::new(command);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if has_subcommands {
        man.render_subcommands_section(&mut page)?;
    }
    let mut is_literal = false;
    for line in notes.lines() {
        let heading = line.strip_suffix(':').filter(|line| !line.starts_with(' '));
        if heading.is_some() == is_literal {
            writeln!(page, "{}", if is_literal { ".fi" } else { ".nf" })?;
            is_literal = !is_literal;
        }
        match heading {
            Some(heading) => writeln!(page, ".SH \"{}\"", literal(&heading.to_uppercase()))?,
            None => writeln!(page, "{}", literal(line))?,
        }
    }
    if is_literal {
        writeln!(page, ".fi")?;
    }
    if has_version {
        man.render_version_section(&mut page)?;
    }
    Ok((man.get_filename(), page))
}

/// A line that roff shows as it is.
fn literal(line: &str) -> String {
    let line = line.replace('\\', "\\\\").replace('-', "\\-");
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}
