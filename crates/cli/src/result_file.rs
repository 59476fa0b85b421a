//! `--output`: the result of a task in a file, bytes as they are.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::call::CallOutput;
use super::exit::Failure;
use files::{HostFiles, OutputFile};

/// The file that a result is to be written to.
#[derive(Debug)]
pub(super) struct ResultFile {
    path: PathBuf,
    /// It was opened before the task ran, so that a failure is reported early.
    file: OutputFile,
}

impl ResultFile {
    /// Opens the file, if there is to be one.
    pub(super) fn open(path: Option<&Path>, files: &HostFiles) -> Result<Option<ResultFile>, Failure> {
        let Some(path) = path else { return Ok(None) };
        let file = files.replace(path, "the result").map_err(|error| {
            let error = io::Error::from(error);
            Failure::Usage(format!("cannot write the result to {}: {error}", path.display()))
        })?;
        Ok(Some(ResultFile { path: path.into(), file: file.file }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes what a task returned: bytes as they are, other values as a line of JSON; of a command, its stdout.
    pub(super) fn write(mut self, output: &CallOutput) -> Result<(), Failure> {
        let written = write_to(&mut self.file, output).and_then(|()| self.file.flush());
        written.map_err(|error| Failure::Internal(format!("cannot write {}: {error}", self.path.display())))
    }
}

/// Writes a result as a file has it.
pub(super) fn write_to(out: &mut impl io::Write, output: &CallOutput) -> io::Result<()> {
    match output {
        CallOutput::Json(json) => writeln!(out, "{json}"),
        CallOutput::Value(value) => match value.as_bytes() {
            Some(bytes) => out.write_all(bytes),
            None => {
                let mut out = io::BufWriter::with_capacity(64 * 1024, out);
                value.write(&mut out)?;
                out.write_all(b"\n")?;
                out.flush()
            }
        },
        CallOutput::Bytes(bytes) => out.write_all(bytes),
        CallOutput::Command(output) => out.write_all(&output.stdout),
    }
}
