//! Finds the files of settings, and reads those that count: somebody named them, or nobody but this user and root can
//! have put them there.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use super::{FILE_NAME, FromFile, parsed};
use crate::exit::Failure;
use files::{Finding, HostFiles, OpenError, Stranger};
use proto::refused::{calling, is_shortage};

/// A file has at most this many bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The flag that names a file.
const FLAG: &str = "--config";

/// The settings that were looked for.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The files that there are, the one that counts for more first.
    pub(super) files: Vec<FromFile>,
    pub(super) left_out: Vec<String>,
}

pub(super) fn files(typed: &[OsString], host: &HostFiles) -> Result<Found, Failure> {
    if let Some(path) =
        named(typed).or_else(|| std::env::var_os("WASMPOOL_CONFIG").filter(|name| !name.is_empty()))
    {
        let path = PathBuf::from(path);
        return match read(host, &path, Finding::Named, None)? {
            Read::File(file) => Ok(Found { files: vec![file], ..Found::default() }),
            Read::Nothing | Read::LeftOut(_) => {
                Err(Failure::Usage(format!("there is no settings' file {}", path.display())))
            }
        };
    }
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
    let mut found = Found::default();
    if let Some(base) = base {
        found.take(read(host, &base.join("wasmpool").join(FILE_NAME), Finding::Settings, None)?);
    }
    let here = read(host, Path::new(FILE_NAME), Finding::Stray, found.files.first())?;
    found.take(here);
    Ok(found)
}

impl Found {
    /// Takes a file that counts for more than those before it.
    fn take(&mut self, read: Read) {
        match read {
            Read::File(file) => self.files.insert(0, file),
            Read::LeftOut(why) => self.left_out.push(why),
            Read::Nothing => {}
        }
    }
}

/// The file that was typed. It has to be known before the rest can be parsed.
fn named(typed: &[OsString]) -> Option<OsString> {
    let mut words = typed.iter().take_while(|word| *word != "--");
    let mut named = None;
    // The last one counts.
    while let Some(word) = words.next() {
        if word == FLAG {
            named = words.next().cloned();
        }
        let value =
            word.as_encoded_bytes().strip_prefix(FLAG.as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
        if let Some(value) = value.and_then(|value| std::str::from_utf8(value).ok()) {
            named = Some(OsStr::new(value).to_os_string());
        }
    }
    named
}

/// The result of reading a path at which settings may stand.
enum Read {
    File(FromFile),
    /// There is no file, or none that may be looked at.
    Nothing,
    /// There is something that somebody else may have put there. It must not decide about anything, not even whether
    /// the command works here.
    LeftOut(String),
}

/// Reads a file of settings; `below` is the file of lower rank.
fn read(host: &HostFiles, path: &Path, finding: Finding, below: Option<&FromFile>) -> Result<Read, Failure> {
    let wrong = |what: String| Failure::Usage(format!("{}: {what}", path.display()));
    let is_stray = finding == Finding::Stray;
    let file = match host.read_own(path, finding) {
        Err(error) if error.is_absence() && finding != Finding::Named => return Ok(Read::Nothing),
        Err(OpenError::System(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(Read::Nothing),
        Err(error @ OpenError::Strangers(_)) => return Ok(left_out(path, &error)),
        // A file that is not there says nothing; one that is there is left out or an error.
        Err(OpenError::TasksMayWrite(_)) if finding != Finding::Named && host.look(path).is_err() => {
            return Ok(Read::Nothing);
        }
        Err(OpenError::TasksMayWrite(_)) if is_stray => {
            return Ok(left_out(path, &OpenError::Strangers(Stranger::Tasks)));
        }
        // The link was made by another user, who could lead this read to any file of ours.
        Err(error @ (OpenError::Link(_) | OpenError::LinkOf { .. })) if finding == Finding::Settings => {
            return Ok(left_out(path, &error));
        }
        Err(OpenError::System(error)) if is_shortage(&error) => {
            let error = calling("open")(error);
            return Err(Failure::Internal(format!(
                "cannot read the settings' file {}: {error}",
                path.display()
            )));
        }
        Err(error) => return Err(wrong(format!("cannot read it: {error}"))),
        Ok(file) => file,
    };
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(file, FILE_BYTES_MAX + 1), &mut text)
        .map_err(|error| wrong(format!("cannot read it: {error}")))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(wrong(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    // Some editors put a byte order mark at the beginning.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let values = parsed(text, is_stray, below).map_err(wrong)?;
    Ok(Read::File(FromFile { path: path.to_path_buf(), values }))
}

fn left_out(path: &Path, error: &OpenError) -> Read {
    let path = path.display();
    let remedy = match error {
        OpenError::Strangers(Stranger::Tasks) => {
            "to have it read, name it at another place, with --config".into()
        }
        _ => format!("if you trust what it says, name it: --config {path}"),
    };
    Read::LeftOut(format!("the settings' file {path} is not read: {error}; {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_is_named_is_found_before_the_rest_is_parsed() {
        let named = |words: &[&str]| named(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(named(&["wasmpool", "--config", "a", "run"]), Some("a".into()));
        assert_eq!(named(&["wasmpool", "run", "--config=b"]), Some("b".into()));
        assert_eq!(named(&["wasmpool", "run", "m", "--", "--config", "c"]), None);
        assert_eq!(named(&["wasmpool", "--configs=c"]), None);
        assert_eq!(named(&["wasmpool", "--config", "a", "run", "--config=b"]), Some("b".into()));
    }
}
