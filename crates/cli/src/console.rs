//! stdout and stderr: what goes where, and what a terminal is spared.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex};

use anstyle::{AnsiColor, Style};
use clap::error::ContextValue;
use indicatif::ProgressBar;
use rustix::fs::FileType;

use super::exit::Failure;
use super::streams::{self, Stdout};
use proto::sync::Lock;
use proto::text::{Escaped, Name, is_harmless};

const ERROR: Style = AnsiColor::Red.on_default().bold();

/// stderr, shared by errors, logs and the progress bar. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Console {
    bar: Arc<Mutex<Option<ProgressBar>>>,
}

impl Console {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// An error, with what a guest may have put into it escaped.
    pub(super) fn error(&self, message: &str) {
        self.print(format_args!("{ERROR}error:{ERROR:#} {}\n", Escaped(indented(message))));
    }

    /// A line of any other kind, escaped as well.
    pub(super) fn say(&self, message: &str) {
        self.print(format_args!("{}\n", Escaped(indented(message))));
    }

    /// Text that is safe to show, with its styles.
    pub(super) fn print(&self, text: fmt::Arguments<'_>) {
        self.above_the_bar(|| {
            let text = styled(text.to_string(), &io::stderr());
            // A failure cannot be reported: stderr is where it would go.
            let _ = streams::stderr().write_all(text.as_bytes());
        });
    }

    /// Draws this bar below everything else from here on; `None` takes it away.
    pub(super) fn set_bar(&self, bar: Option<ProgressBar>) {
        let mut current = self.bar.hold();
        if let Some(old) = std::mem::replace(&mut *current, bar) {
            old.finish_and_clear();
        }
    }

    /// Writes to the terminal while the bar is out of the way.
    pub(super) fn above_the_bar<T>(&self, write: impl FnOnce() -> T) -> T {
        let bar = self.bar.hold().clone();
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

/// Indents a guest's message: what follows a line feed must not look like a line of our own.
pub(super) fn indented(message: &str) -> String {
    let mut lines = message.lines();
    let mut text = lines.next().unwrap_or_default().to_string();
    for line in lines {
        text.push_str(if line.starts_with("    ") { "\n" } else { "\n    " });
        text.push_str(line);
    }
    text
}

/// stdout, buffered.
pub(super) type BufferedStdout = BufWriter<Stdout>;

fn buffered_stdout() -> BufferedStdout {
    BufWriter::with_capacity(64 * 1024, streams::stdout())
}

fn write_line(
    stdout: &mut BufferedStdout,
    mut write: impl FnMut(&mut BufferedStdout) -> io::Result<()>,
) -> io::Result<()> {
    write(stdout)?;
    stdout.write_all(b"\n")
}

/// Lines on stdout, buffered.
#[derive(Debug)]
pub(super) struct Lines {
    stdout: BufferedStdout,
    /// Lines go around the progress bar if that is drawn on the same terminal.
    console: Option<Console>,
}

impl Lines {
    pub(super) fn new(console: &Console) -> Self {
        let stdout = io::stdout();
        let console = stdout.is_terminal().then(|| console.clone());
        Lines { stdout: buffered_stdout(), console }
    }

    pub(super) fn push(&mut self, line: &str) -> Result<(), Failure> {
        self.push_by(|out| out.write_all(line.as_bytes()))
    }

    /// Prints a line that is made as it is written.
    pub(super) fn push_by(
        &mut self,
        mut write: impl FnMut(&mut BufferedStdout) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let stdout = &mut self.stdout;
        match &self.console {
            // A terminal's reader waits for each line.
            Some(console) => {
                console.above_the_bar(|| write_line(stdout, &mut write).and_then(|()| stdout.flush()))
            }
            None => write_line(stdout, &mut write),
        }
        .map_err(Failure::Output)
    }

    /// Shows what is buffered, before a wait.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.stdout.flush().map_err(Failure::Output)
    }
}

/// Ends the last line of stdout, if it is a file whose writer was killed amid a line.
pub(super) fn end_torn_line() -> Result<(), Failure> {
    let is_torn = || {
        let stdout = io::stdout();
        let is_file = rustix::fs::fstat(&stdout)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        let stdout = files::reopened(is_file.then_some(stdout)?).ok()?;
        let metadata = stdout.metadata().ok().filter(|metadata| metadata.len() > 0)?;
        let mut last = [0];
        stdout.read_exact_at(&mut last, metadata.len() - 1).ok()?;
        Some(last != *b"\n")
    };
    if is_torn() == Some(true) { print_line("") } else { Ok(()) }
}

/// Prints one line on stdout.
pub(super) fn print_line(line: &str) -> Result<(), Failure> {
    streams::stdout().write_all(format!("{line}\n").as_bytes()).map_err(Failure::Output)
}

/// Prints one line on stdout that is made as it is written.
pub(super) fn print_line_by(write: impl FnMut(&mut BufferedStdout) -> io::Result<()>) -> Result<(), Failure> {
    let mut stdout = buffered_stdout();
    write_line(&mut stdout, write).and_then(|()| stdout.flush()).map_err(Failure::Output)
}

/// Prints text with styles on stdout; the styles are left out if stdout is no terminal.
pub(super) fn print_page(page: String) -> Result<(), Failure> {
    let page = styled(page, &io::stdout());
    streams::stdout().write_all(page.as_bytes()).map_err(Failure::Output)
}

/// Prints clap's help and version on stdout, and its errors on stderr. An error repeats what was typed, which
/// a script may have from a stranger: it is escaped.
pub(super) fn print_clap(mut error: clap::Error) -> Result<(), Failure> {
    let shown = |text: &String| Name(text).to_string();
    let context = error.context().filter_map(|(kind, value)| match value {
        ContextValue::String(text) => Some((kind, ContextValue::String(shown(text)))),
        ContextValue::Strings(texts) => {
            Some((kind, ContextValue::Strings(texts.iter().map(shown).collect())))
        }
        _ => None,
    });
    for (kind, value) in context.collect::<Vec<_>>() {
        error.insert(kind, value);
    }
    let text = error.render();
    // A value's own parser may put text of its own into the error; it is escaped if anything in it is
    // harmful.
    let text = match text.to_string().chars().all(is_harmless) {
        true => text.ansi().to_string(),
        false => Escaped(text.to_string()).to_string(),
    };
    if !error.use_stderr() {
        return print_page(text);
    }
    let text = styled(text, &io::stderr());
    // A failure cannot be reported: stderr is where it would go.
    let _ = streams::stderr().write_all(text.as_bytes());
    Ok(())
}

fn styled(text: String, stream: &impl anstream::stream::RawStream) -> String {
    match anstream::AutoStream::choice(stream) {
        anstream::ColorChoice::Never => anstream::adapter::strip_str(&text).to_string(),
        _ => text,
    }
}

/// A guest's bytes on stdout: as they are, unless a terminal would obey them.
pub(super) fn write_stdout(bytes: &[u8]) -> Result<(), Failure> {
    write(bytes, io::stdout().is_terminal(), &mut streams::stdout()).map_err(Failure::Output)
}

/// A guest's bytes on stderr.
pub(super) fn write_stderr(bytes: &[u8]) {
    // There is nowhere left to report a closed stderr to.
    let _ = write(bytes, io::stderr().is_terminal(), &mut streams::stderr());
}

fn write(bytes: &[u8], terminal: bool, out: &mut impl io::Write) -> io::Result<()> {
    if terminal {
        out.write_all(Escaped(String::from_utf8_lossy(bytes)).to_string().as_bytes())?;
    } else {
        out.write_all(bytes)?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_second_line_does_not_look_like_ours() {
        assert_eq!(indented("panicked: a\nerror: b\n    0: f"), "panicked: a\n    error: b\n    0: f");
    }

    #[test]
    fn only_a_terminal_is_spared_what_a_guest_writes() {
        let mut out = Vec::new();
        write(b"\x1b[2J\xff\n", false, &mut out).expect("writes");
        assert_eq!(out, b"\x1b[2J\xff\n");
        out.clear();
        write(b"\x1b[2J\xff\n", true, &mut out).expect("writes");
        assert_eq!(out, "\\u{1b}[2J\u{fffd}\n".as_bytes());
    }
}
