//! Where results go: lines on stdout, and files where these are asked for.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use super::feed::Job;
use super::source::Label;
use crate::cli::call::Answer;
use crate::cli::exit::Failure;
use crate::cli::object::{self, Object};
use crate::{TaskReport, text};

/// Most bytes that a file's name takes from its input's.
const NAME_BYTES_MAX: usize = 100;

/// How results are written.
#[derive(Debug)]
pub(super) struct Outputs {
    dir: Option<PathBuf>,
    report: bool,
}

impl Outputs {
    /// Makes the folder, if there is to be one.
    pub(super) fn open(dir: Option<PathBuf>, report: bool) -> Result<Outputs, Failure> {
        if let Some(dir) = &dir {
            std::fs::create_dir_all(dir).map_err(|error| cannot("make the folder", dir, &error))?;
        }
        Ok(Outputs { dir, report })
    }

    /// The line of a result; its files are written.
    pub(super) fn line(
        &self,
        job: &Job,
        result: Result<&Answer, &Failure>,
        report: &TaskReport,
    ) -> Result<String, Failure> {
        let object = job.label.add_to(Object::new());
        let object = match (result, &self.dir) {
            (Err(failure), dir) => {
                let object = object.field("ok", false).raw("error", &object::error(failure));
                match (dir, failure) {
                    (Some(dir), Failure::Task(task)) if let Some(output) = task.output() => {
                        let name = name(job.seq, &job.label);
                        let path = write_command(dir, &name, &output.stdout, &output.stderr)?;
                        object.field("file", path.display().to_string())
                    }
                    _ => object.partial_output(failure),
                }
            }
            (Ok(answer), None) => answer.add_to(object),
            (Ok(answer), Some(dir)) => {
                let path = write(dir, &name(job.seq, &job.label), answer)?;
                answer.add_status_to(object).field("file", path.display().to_string())
            }
        };
        let object = match self.report {
            true => object.raw("report", &object::report(report)),
            false => object,
        };
        Ok(object.finish())
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

/// Writes what a call returned, and says where.
fn write(dir: &Path, name: &str, answer: &Answer) -> Result<PathBuf, Failure> {
    match answer {
        Answer::Json(json) => put(dir, &format!("{name}.json"), format!("{json}\n").as_bytes()),
        Answer::Bytes(bytes) => put(dir, &format!("{name}.bin"), bytes),
        Answer::Command(output) => write_command(dir, name, &output.stdout, &output.stderr),
    }
}

fn write_command(dir: &Path, name: &str, stdout: &[u8], stderr: &[u8]) -> Result<PathBuf, Failure> {
    if !stderr.is_empty() {
        put(dir, &format!("{name}.err"), stderr)?;
    }
    put(dir, &format!("{name}.out"), stdout)
}

/// Whoever looks finds the whole file, or none.
fn put(dir: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf, Failure> {
    let path = dir.join(name);
    let unfinished = dir.join(format!(".{name}.unfinished"));
    let written: io::Result<()> =
        std::fs::write(&unfinished, bytes).and_then(|()| std::fs::rename(&unfinished, &path));
    written.map_err(|error| cannot("write", &path, &error))?;
    Ok(path)
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::Machinery(format!("cannot {what} {}: {error}", path.display()))
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
