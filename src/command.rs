//! The input of a WASI command.

use std::io::Read;
use std::os::fd::OwnedFd;

use bytes::Bytes;

use crate::stdin::StdinSource;

/// The input of a WASI command: argv, environment, stdin.
///
/// ```
/// let input = wasmpool::task::CommandInput::new()
///     .args(["-c", "print(6*7)"])
///     .env("LANG", "C")
///     .stdin("text");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandInput {
    pub(crate) program: Option<String>,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) stdin: Stdin,
}

/// The stdin of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stdin {
    Bytes(Bytes),
    Source(StdinSource),
}

impl Default for Stdin {
    fn default() -> Self {
        Stdin::Bytes(Bytes::new())
    }
}

impl CommandInput {
    /// No arguments, no environment, empty stdin.
    pub fn new() -> Self {
        Self::default()
    }

    /// `argv[0]`; the module's name unless set.
    pub fn program(mut self, name: impl Into<String>) -> Self {
        self.program = Some(name.into());
        self
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable. The last value of a name counts.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        let value = value.into();
        match self.env.iter_mut().find(|(other, _)| *other == name) {
            Some((_, before)) => *before = value,
            None => self.env.push((name, value)),
        }
        self
    }

    /// The whole of stdin, sent with the command.
    pub fn stdin(mut self, stdin: impl Into<Bytes>) -> Self {
        self.stdin = Stdin::Bytes(stdin.into());
        self
    }

    /// A stdin of any length that is read as the command asks for it: each of its reads is one
    /// [`read`](std::io::Read::read) of as many bytes as it asked for (at most 64 KiB,
    /// [`ASK_BYTES_MAX`](proto::limits::ASK_BYTES_MAX)), and what it never asks for is never read. A command that
    /// reads nothing waits for nothing. An error of the reader is the command's own (`EIO`, or the system's).
    ///
    /// A thread of its own uses the reader from the command's first question on, and drops it when the
    /// command has ended. The reader may block for as long as it likes: the command's deadline ends the
    /// command, and the thread ends with its last read. A command that polls this stdin is told that it is
    /// ready, since a reader cannot be asked; a [descriptor](Self::stdin_from) can.
    ///
    /// Only one task reads it: a clone of this input has the same reader. Submitting it again is refused
    /// ([`SubmitError::StdinTaken`](crate::error::SubmitError::StdinTaken)) unless the first task never read
    /// anything, and so is a [retry](crate::TaskOptions::retry)
    /// ([`SubmitError::StdinReadOnce`](crate::error::SubmitError::StdinReadOnce)). For a
    /// [deterministic](crate::TaskOptions::deterministic) command each read is filled to what was asked for.
    ///
    /// ```
    /// let lines = std::io::Cursor::new("b\na\n");
    /// let input = wasmpool::task::CommandInput::new().arg("sort").stdin_reader(lines);
    /// ```
    pub fn stdin_reader(mut self, reader: impl Read + Send + 'static) -> Self {
        self.stdin = Stdin::Source(StdinSource::of_reader(reader));
        self
    }

    /// Does the same as [`stdin_reader`](Self::stdin_reader) with a file, pipe, socket or terminal. Nothing
    /// is buffered, so that what the command does not ask for is there for the next one who reads; and a
    /// command that polls it learns whether there is any.
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// use std::os::fd::AsFd;
    /// let input = wasmpool::task::CommandInput::new().stdin_from(std::io::stdin().as_fd().try_clone_to_owned()?);
    /// # Ok(()) }
    /// ```
    pub fn stdin_from(mut self, descriptor: impl Into<OwnedFd>) -> Self {
        self.stdin = Stdin::Source(StdinSource::of_descriptor(descriptor.into()));
        self
    }
}
