//! `--output`: the result of a task in a file, bytes as they are.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::call::CallOutput;
use super::exit::Failure;
use files::{HostFiles, OpenError, Output};

/// Errors of other files of this command call the file so.
const WHAT: &str = "the result";

/// This path stands for stdout.
const STDOUT: &str = "-";

/// The file that a result is to be written to.
#[derive(Debug)]
pub(super) struct ResultFile {
    path: PathBuf,
    files: HostFiles,
    /// It was opened before the task ran, so that a failure is reported early; what it has is replaced once there is
    /// a result, which takes this.
    output: Option<Output>,
}

impl ResultFile {
    /// Opens the file, if there is to be one, and changes nothing in it.
    pub(super) fn open(path: Option<&Path>, files: &HostFiles) -> Result<Option<ResultFile>, Failure> {
        let Some(path) = path else { return Ok(None) };
        let path = if path.as_os_str() == STDOUT { Path::new("/dev/stdout") } else { path };
        let output = files.append(path, WHAT).map_err(|error| cannot_open(path, error))?;
        Ok(Some(ResultFile { path: path.into(), files: files.clone(), output: Some(output) }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes what a task returned: bytes as they are, other values as a line of JSON; of a command, its stdout.
    pub(super) fn write(self, output: &CallOutput) -> Result<(), Failure> {
        self.write_by(|out| write_to(out, output))
    }

    /// Writes what a command had written to stdout when it failed.
    pub(super) fn write_partly(self, stdout: &[u8]) -> Result<(), Failure> {
        self.write_by(|out| out.write_all(stdout))
    }

    fn write_by(mut self, write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> Result<(), Failure> {
        let path = self.path.clone();
        let mut file = match self.output.take() {
            Some(output) if !output.is_regular => output.file,
            // It is given up first, since nothing else of this command may write to it.
            opened => {
                drop(opened);
                self.files.replace(&path, WHAT).map_err(|error| cannot_open(&path, error))?.file
            }
        };
        let written = write(&mut file).and_then(|()| file.flush());
        written.map_err(|error| Failure::Internal(format!("cannot write {}: {error}", path.display())))
    }
}

impl Drop for ResultFile {
    /// Leaves the file as it was, since there is no result. A file that was made for it is removed; an empty one that stood
    /// there before cannot be told from that, and is removed as well.
    fn drop(&mut self) {
        let Some(Output { file, is_regular: true, entry: Some((folder, name)) }) = self.output.take() else {
            return;
        };
        if let Ok(Some(stat)) = folder.look(&name)
            && stat.st_size == 0
        {
            drop(file);
            let _ = folder.remove_file(&name);
        }
    }
}

fn cannot_open(path: &Path, error: OpenError) -> Failure {
    let error = io::Error::from(error);
    Failure::Usage(format!("cannot write the result to {}: {error}", path.display()))
}

/// Writes a result as a file has it.
pub(super) fn write_to(out: &mut (impl io::Write + ?Sized), output: &CallOutput) -> io::Result<()> {
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
