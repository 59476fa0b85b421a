//! Writes results: as lines on stdout, and as files if these are asked for.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::feed::Job;
use super::source::Label;
use crate::call::CallOutput;
use crate::console::Console;
use crate::exit::Failure;
use crate::object::{self, Line, Object};
use crate::result_file;
use files::{Folder, HostFiles, Locked, OpenError, Waiting};
use proto::text;
use wasmpool::task::TaskReport;

/// A file's name takes at most this many bytes from its input's.
const NAME_BYTES_MAX: usize = 100;

/// The places to which results are written.
#[derive(Debug)]
pub(super) struct Outputs {
    dir: Option<OutputDir>,
    report: bool,
}

/// The folder of the outputs' files. It is held open, and locked because two maps number their files alike
/// and would replace each other's.
#[derive(Debug)]
struct OutputDir {
    /// They know what else this command writes.
    files: HostFiles,
    folder: Folder,
    /// The folder's path as it was typed.
    path: PathBuf,
    lock: Locked,
}

/// The name of a file that is being written ends in this.
const UNFINISHED: &str = "unfinished";

impl Outputs {
    /// Makes the folder, if there is to be one.
    pub(super) fn open(
        dir: Option<&Path>,
        report: bool,
        files: &HostFiles,
        console: &Console,
    ) -> Result<Outputs, Failure> {
        let dir = dir.map(|dir| OutputDir::open(dir, files, console)).transpose()?;
        Ok(Outputs { dir, report })
    }

    /// Writes the files of a result and makes its line. If a file cannot be written, the input has failed: then the line
    /// says so, and the failure is returned beside it. The other inputs go on.
    ///
    /// # Errors
    /// A failure that would be the same for each input.
    pub(super) fn line(
        &self,
        job: &Job,
        result: Result<&CallOutput, &Failure>,
        report: Option<&TaskReport>,
    ) -> Result<(Line, Option<Failure>), Failure> {
        let written = match self.written(job, result, report) {
            Ok(line) => return Ok((line, None)),
            Err(written) => written,
        };
        if written.is_the_same_for_all() {
            return Err(written.into());
        }
        let failure = Failure::from(written);
        let object =
            job.label.add_to(Object::new()).field("ok", false).raw("error", &object::error(&failure));
        Ok((self.with_report(object, report), Some(failure)))
    }

    /// An input that was never submitted has `null` for a report.
    fn with_report(&self, object: Object, report: Option<&TaskReport>) -> Line {
        match (self.report, report) {
            (true, Some(report)) => object.raw("report", &object::report(report)),
            (true, None) => object.raw("report", "null"),
            (false, _) => object,
        }
        .into_line()
    }

    fn written(
        &self,
        job: &Job,
        result: Result<&CallOutput, &Failure>,
        report: Option<&TaskReport>,
    ) -> Result<Line, Unwritten> {
        let object = job.label.add_to(Object::new());
        let object = match (result, &self.dir) {
            (Err(failure), dir) => {
                let object = object.field("ok", false).raw("error", &object::error(failure));
                match (dir, failure) {
                    (Some(dir), Failure::Task(task)) if let Some(output) = task.output() => {
                        let name = name(job.seq, &job.label);
                        let file = dir.write_command(&name, &output.stdout, &output.stderr)?;
                        object.field("file", dir.path.join(file).display().to_string())
                    }
                    _ => object.partial_output(failure),
                }
            }
            (Ok(output), None) => output.add_to(object),
            (Ok(output), Some(dir)) => {
                let file = dir.write(&name(job.seq, &job.label), output)?;
                let path = dir.path.join(file);
                output.add_status_to(object).field("file", path.display().to_string())
            }
        };
        Ok(self.with_report(object, report))
    }
}

/// The name of an input's files, without what says the kind.
fn name(seq: u64, label: &Label) -> String {
    let Label::File(path) = label else { return seq.to_string() };
    let name = Path::new(path).file_name().map_or(Cow::Borrowed(""), |name| name.to_string_lossy());
    let name = text::Name(name).to_string();
    let end = (0..=NAME_BYTES_MAX.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
    format!("{seq}-{}", &name[..end.unwrap_or(0)])
}

impl OutputDir {
    fn open(path: &Path, files: &HostFiles, console: &Console) -> Result<OutputDir, Failure> {
        let shown = path.display();
        let folder = files.make_folder(path, 0o777).map_err(|error| match error {
            OpenError::System(error) => cannot("make the folder", path, &error),
            error => Failure::Usage(format!("cannot write outputs to {shown}: {error}")),
        })?;
        let lock = folder.lock().map_err(|error| cannot("lock the folder", path, &error))?;
        match lock {
            Locked::Ours(_) => {}
            Locked::Others => {
                return Err(Failure::Usage(format!(
                    "the folder {shown} is in use by another wasmpool, whose outputs would have the same names: wait \
                     for it, or name another folder"
                )));
            }
            Locked::NotHere => console.say(&format!(
                "warning: the folder {shown} cannot be locked: another map into it would replace these outputs"
            )),
        }
        let dir = OutputDir { files: files.clone(), folder, path: path.to_path_buf(), lock };
        dir.sweep();
        Ok(dir)
    }

    /// Removes what a map that was killed left unfinished. Only the holder of the lock may do so: nobody else
    /// writes here meanwhile.
    fn sweep(&self) {
        if !matches!(self.lock, Locked::Ours(_)) {
            return;
        }
        for entry in self.folder.entries().unwrap_or_default() {
            if Folder::is_made_name(&entry.name, UNFINISHED) {
                // An unfinished file that cannot be removed does no harm.
                let _ = self.folder.remove_file(&entry.name);
            }
        }
    }

    /// Writes what a call returned, and returns the name of the file.
    fn write(&self, name: &str, output: &CallOutput) -> Result<String, Unwritten> {
        match output {
            CallOutput::Json(json) => self.put(format!("{name}.json"), format!("{json}\n").as_bytes()),
            CallOutput::Value(value) => {
                let kind = if value.as_bytes().is_some() { "bin" } else { "json" };
                let name = format!("{name}.{kind}");
                let written = self.replace(&name, |file| result_file::write_to(file, output));
                self.put_as(name, written)
            }
            CallOutput::Bytes(bytes) => self.put(format!("{name}.bin"), bytes),
            CallOutput::Command(output) => self.write_command(name, &output.stdout, &output.stderr),
        }
    }

    fn write_command(&self, name: &str, stdout: &[u8], stderr: &[u8]) -> Result<String, Unwritten> {
        if !stderr.is_empty() {
            self.put(format!("{name}.err"), stderr)?;
        }
        self.put(format!("{name}.out"), stdout)
    }

    /// Writes a file whole: a reader finds all of it or none.
    fn put(&self, name: String, bytes: &[u8]) -> Result<String, Unwritten> {
        let written = self.replace(&name, |file| file.write_all(bytes));
        self.put_as(name, written)
    }

    fn replace(
        &self,
        name: &str,
        write: impl FnOnce(&mut Waiting<File>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.files.check_output(&self.folder, name.as_ref())?;
        self.folder.replace_by(name, UNFINISHED, write)
    }

    fn put_as(&self, name: String, written: io::Result<()>) -> Result<String, Unwritten> {
        match written {
            Ok(()) => Ok(name),
            Err(error) => Err(Unwritten { path: self.path.join(&name), error }),
        }
    }
}

/// A file of an output that could not be written.
#[derive(Debug)]
struct Unwritten {
    path: PathBuf,
    error: io::Error,
}

impl Unwritten {
    /// Returns whether no other output could be written either.
    fn is_the_same_for_all(&self) -> bool {
        matches!(
            self.error.kind(),
            io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::PermissionDenied
                | io::ErrorKind::StaleNetworkFileHandle
        )
    }
}

impl From<Unwritten> for Failure {
    fn from(unwritten: Unwritten) -> Failure {
        cannot("write", &unwritten.path, &unwritten.error)
    }
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::Internal(format!("cannot {what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_stay_in_their_folder() {
        let file = |path: &str| name(7, &Label::File(path.into()));
        assert_eq!(file("a/b.txt"), "7-b.txt");
        assert_eq!(file(".."), "7-");
        assert_eq!(file("a\u{1b}b"), "7-a\\u{1b}b");
        assert_eq!(file(&"ä".repeat(200)), format!("7-{}", "ä".repeat(50)));
        assert!(file(&"\u{1b}".repeat(90)).len() <= NAME_BYTES_MAX + 2, "as it is written");
        assert_eq!(name(8, &Label::Line { number: 9, text: "../x".into() }), "8");
    }
}
