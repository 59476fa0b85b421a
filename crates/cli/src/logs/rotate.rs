//! A file that begins anew once a day, or once it is full; so many old ones are kept.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::FileType;

use crate::args::Rotation;
use files::{Folder, HostFiles, Identity, InUse, Names, OpenError, Output, OutputFile};

/// Names that are tried for an old file before it is an error.
const NAMES_MAX: usize = 100;

/// Bytes of `2026-01-31`.
const DAY_BYTES: usize = 10;

/// The file of that name is the newest. Older ones are `NAME.2026-01-31` for days, and `NAME.1`, the
/// last one, `NAME.2` and so on for sizes.
#[derive(Debug)]
pub(super) struct LogFile {
    file: OutputFile,
    /// A rotation begins a new file of this name; `None` if the log is never rotated, such as a pipe, a
    /// terminal or a device.
    named: Option<Named>,
    /// These are the command's files: none of them may have a name that a rotation uses.
    #[expect(dead_code, reason = "it is held")]
    names: Option<Arc<InUse>>,
    /// The error that kept it from beginning anew, until that is asked for.
    trouble: Option<io::Error>,
    bytes: u64,
    /// The day of its lines.
    day: String,
    rotation: Rotation,
    kept: usize,
}

/// A file's name in its folder. The folder is held open, so that logs stay in it whatever becomes of the
/// path.
#[derive(Debug)]
struct Named {
    folder: Folder,
    name: OsString,
}

impl LogFile {
    pub(super) fn open(
        path: &Path,
        rotation: Rotation,
        kept: usize,
        files: &HostFiles,
    ) -> Result<LogFile, OpenError> {
        let Output { file, entry, .. } = files.append(path, "the log file")?;
        // The entry is the file's own, and not that of the link that may lead to it.
        let named = entry.map(|(folder, name)| Named { folder, name });
        let names = match &named {
            Some(named) if rotation != Rotation::Never => Some(named.hold(rotation, kept, files)?),
            _ => None,
        };
        let metadata = file.file().metadata()?;
        let bytes = metadata.len();
        let day = if bytes == 0 { day(SystemTime::now()) } else { day(metadata.modified()?) };
        Ok(LogFile { file, named, names, trouble: None, bytes, day, rotation, kept })
    }

    /// Returns whether it is to begin anew, and is nothing that can: a pipe, a terminal, a device.
    pub(super) fn never_begins_anew(&self) -> bool {
        self.named.is_none() && self.rotation != Rotation::Never
    }

    /// Returns once why it did not begin anew.
    pub(super) fn trouble(&mut self) -> Option<io::Error> {
        self.trouble.take()
    }

    /// Appends a line by one write.
    pub(super) fn write(&mut self, line: &str, now: SystemTime) -> io::Result<()> {
        let bytes = line.len() as u64;
        let is_over = match self.rotation {
            Rotation::Never => false,
            Rotation::Daily => self.day != day(now),
            Rotation::Size(bytes_max) => self.bytes > 0 && self.bytes + bytes > bytes_max,
        };
        // A line too many in the old file is better than a line that is lost.
        if is_over && let Err(error) = self.begin_anew(now) {
            self.named = None;
            self.trouble = Some(error);
        }
        self.file.write_all(line.as_bytes())?;
        self.bytes += bytes;
        Ok(())
    }

    fn begin_anew(&mut self, now: SystemTime) -> io::Result<()> {
        let Some(named) = &self.named else { return Ok(()) };
        match self.rotation {
            Rotation::Never => return Ok(()),
            // Another process may write to it, too, and have been first.
            Rotation::Daily if self.bytes > 0 && named.is_current(self.file.file())? => {
                named.move_to_day(self.file.file(), &self.day)?;
                named.prune(self.kept)?;
            }
            Rotation::Daily => {}
            Rotation::Size(_) if !named.is_current(self.file.file())? => {}
            Rotation::Size(_) => named.shift(self.kept)?,
        }
        self.file = named.folder.append_after(&named.name, self.file.file())?.file;
        self.bytes = self.file.file().metadata()?.len();
        self.day = day(now);
        Ok(())
    }
}

impl Named {
    /// Holds the names that rotations use: the log's own, and those of its old files.
    fn hold(&self, rotation: Rotation, kept: usize, files: &HostFiles) -> Result<Arc<InUse>, OpenError> {
        let prefix = self.numbered("");
        let is_old: Box<dyn Fn(&OsStr) -> bool + Send + Sync> = match rotation {
            Rotation::Size(_) => {
                // Numbers that something else has are left out, so that there are others behind them.
                let names = self.folder.entries().unwrap_or_default().into_iter().map(|entry| entry.name);
                let numbered = names.filter(|name| number_of(name, &prefix).is_some());
                let taken = numbered.filter(|name| self.is_taken(name).unwrap_or_default()).count();
                let last = if kept == 0 { 0 } else { kept.saturating_add(taken) };
                Box::new(move |name| number_of(name, &prefix).is_some_and(|number| number <= last))
            }
            Rotation::Daily | Rotation::Never => Box::new(move |name| is_day(name, &prefix)),
        };
        files.hold_names((&self.folder, &self.name), Names(is_old), "the log file, or an old one,")
    }

    /// Returns whether the file of that name is the one that is open.
    fn is_current(&self, file: &File) -> io::Result<bool> {
        let open = Identity::of_open(file)?;
        let named = self.folder.look(&self.name)?;
        Ok(named.is_some_and(|named| Identity::of(&named) == open))
    }

    fn move_to_day(&self, mut file: &File, day: &str) -> io::Result<()> {
        let to = self.free(day)?;
        if self.folder.look(&to)?.is_none() {
            return self.folder.rename(&self.name, to);
        }
        // The day's file exists already, so the newer lines are appended to it.
        let mut older = self.folder.append(&to)?.file;
        file.rewind()?;
        let len = file.metadata()?.len();
        io::copy(&mut file.take(len), &mut older)?;
        self.folder.remove_file(&self.name)
    }

    /// The name of an old file. Another kind of thing may have it, which stays: then there are others, `DAY.1` and so on.
    fn free(&self, day: &str) -> io::Result<OsString> {
        for number in 0..NAMES_MAX {
            let name = match number {
                0 => self.numbered(day),
                number => self.numbered(&format!("{day}.{number}")),
            };
            if !self.is_taken(&name)? {
                return Ok(name);
            }
        }
        Err(io::Error::other(format!(
            "{NAMES_MAX} names for its old file are taken by folders, links or devices"
        )))
    }

    /// Returns whether a name is that of something else than a file.
    fn is_taken(&self, name: &OsString) -> io::Result<bool> {
        let stat = self.folder.look(name)?;
        Ok(stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile))
    }

    /// Renames each old file to the next number. A number whose name something else has is left out.
    fn shift(&self, kept: usize) -> io::Result<()> {
        let mut names = Vec::new();
        let mut number = 0;
        while names.len() < kept {
            number += 1;
            if number > kept + NAMES_MAX {
                return Err(io::Error::other(format!(
                    "more than {NAMES_MAX} names for its old files are taken by folders, links or devices"
                )));
            }
            let name = self.numbered(&number.to_string());
            if !self.is_taken(&name)? {
                names.push(name);
            }
        }
        for pair in names.windows(2).rev() {
            match self.folder.rename(&pair[0], &pair[1]) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        match names.first() {
            None => self.folder.remove_file(&self.name),
            Some(first) => self.folder.rename(&self.name, first),
        }
    }

    /// Removes the oldest days.
    fn prune(&self, kept: usize) -> io::Result<()> {
        let prefix = self.numbered("");
        let is_regular = |name: &OsString| {
            let stat = self.folder.look(name).ok().flatten();
            stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
        };
        let names = self.folder.entries()?.into_iter().map(|entry| entry.name);
        let mut days: Vec<_> = names.filter(|name| is_day(name, &prefix)).filter(is_regular).collect();
        days.sort_unstable();
        let old = days.len().saturating_sub(kept);
        days.iter().take(old).try_for_each(|name| self.folder.remove_file(name))
    }

    fn numbered(&self, number: &str) -> OsString {
        let mut name = self.name.clone();
        name.push(".");
        name.push(number);
        name
    }
}

/// Returns whether it is the name of a day's old file.
fn is_day(name: &OsStr, prefix: &OsStr) -> bool {
    let rest = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes()).unwrap_or_default();
    let (day, number) = rest.split_at(rest.len().min(DAY_BYTES));
    day.len() == DAY_BYTES
        && day.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-')
        && (number.is_empty() || number[0] == b'.' && number[1..].iter().all(u8::is_ascii_digit))
}

/// The number of an old file of that name, from 1 on.
fn number_of(name: &OsStr, prefix: &OsStr) -> Option<usize> {
    let rest = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes())?;
    let is_number = rest.first().is_some_and(|byte| *byte != b'0') && rest.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(rest).ok()?.parse().ok())?
}

/// The date, in UTC.
fn day(time: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(time).to_string();
    text.split('T').next().unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    /// Returns what is in the folder, by name.
    fn files(folder: &Path) -> Vec<(String, String)> {
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .expect("reads")
            .flatten()
            .map(|entry| {
                let text = std::fs::read_to_string(entry.path()).expect("reads");
                (entry.file_name().into_string().expect("text"), text)
            })
            .collect();
        files.sort();
        files
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect()
    }

    #[test]
    fn a_full_file_begins_anew_and_so_many_old_ones_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = LogFile::open(&folder.path().join("log"), Rotation::Size(4), 2, &HostFiles::default())
            .expect("opens");
        for line in ["a\n", "b\n", "c\n", "too long for it\n", "d\n", "e\n"] {
            log.write(line, SystemTime::now()).expect("writes");
        }
        assert_eq!(
            files(folder.path()),
            pairs(&[("log", "d\ne\n"), ("log.1", "too long for it\n"), ("log.2", "c\n")])
        );
    }

    #[test]
    fn a_new_file_has_the_mode_of_the_one_before_it() {
        use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};

        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        File::options().write(true).create_new(true).mode(0o600).open(&path).expect("makes");
        let mut log = LogFile::open(&path, Rotation::Size(4), 2, &HostFiles::default()).expect("opens");
        for line in ["a\n", "too long for it\n", "b\n"] {
            log.write(line, SystemTime::now()).expect("writes");
        }
        assert!(log.trouble().is_none());
        for name in ["log", "log.1", "log.2"] {
            let mode = std::fs::metadata(folder.path().join(name)).expect(name).permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn a_day_begins_a_file_and_the_oldest_days_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        std::fs::write(folder.path().join("log.txt"), "not ours").expect("writes");
        std::fs::write(&path, "before\n").expect("writes");
        let first = SystemTime::UNIX_EPOCH + DAY * 20_000;
        File::options().write(true).open(&path).and_then(|file| file.set_modified(first)).expect("sets");
        let mut log = LogFile::open(&path, Rotation::Daily, 2, &HostFiles::default()).expect("opens");
        for days in 0..4 {
            log.write(&format!("day {days}\n"), first + DAY * days).expect("writes");
        }
        let expected = [
            ("log", "day 3\n"),
            ("log.2024-10-05", "day 1\n"),
            ("log.2024-10-06", "day 2\n"),
            ("log.txt", "not ours"),
        ];
        assert_eq!(files(folder.path()), pairs(&expected));
    }

    #[test]
    fn a_name_that_something_else_has_is_left_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        for taken in ["log.1", "log.3", "log.2024-10-04"] {
            std::fs::create_dir(folder.path().join(taken)).expect("makes");
        }
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect(name);
        let mut log = LogFile::open(&path, Rotation::Size(4), 2, &HostFiles::default()).expect("opens");
        for line in ["a\n", "too long for it\n", "b\n", "c\n", "the last one\n"] {
            log.write(line, SystemTime::now()).expect("writes");
            assert!(log.trouble().is_none());
        }
        assert_eq!(
            [read("log"), read("log.2"), read("log.4")],
            ["the last one\n", "b\nc\n", "too long for it\n"]
        );
        std::fs::remove_file(&path).expect("is there");
        let first = SystemTime::UNIX_EPOCH + DAY * 20_000;
        std::fs::write(&path, "before\n").expect("writes");
        File::options().write(true).open(&path).and_then(|file| file.set_modified(first)).expect("sets");
        let mut log = LogFile::open(&path, Rotation::Daily, 2, &HostFiles::default()).expect("opens");
        for days in 0..2 {
            log.write(&format!("day {days}\n"), first + DAY * days).expect("writes");
        }
        assert_eq!([read("log"), read("log.2024-10-04.1")], ["day 1\n", "before\nday 0\n"]);
    }

    #[test]
    fn a_file_that_cannot_begin_anew_goes_on_and_says_so_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        for number in 1..=NAMES_MAX + 2 {
            std::fs::create_dir(folder.path().join(format!("log.{number}"))).expect("makes");
        }
        let mut log = LogFile::open(&path, Rotation::Size(4), 2, &HostFiles::default()).expect("opens");
        let lines = ["a\n", "b\n", "c\n", "d\n"];
        let troubles = lines.into_iter().filter(|line| {
            log.write(line, SystemTime::now()).expect("writes");
            log.trouble().is_some()
        });
        assert_eq!(troubles.count(), 1);
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), "a\nb\nc\nd\n");
    }

    #[test]
    fn what_a_link_leads_to_begins_anew_where_it_is() {
        // A link of root's is one that is followed to what is written.
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("logs")).expect("makes");
        let link = folder.path().join("log");
        std::os::unix::fs::symlink("logs/real", &link).expect("links");
        let mut log = LogFile::open(&link, Rotation::Size(4), 2, &HostFiles::default()).expect("opens");
        for line in ["a\n", "b\n", "c\n"] {
            log.write(line, SystemTime::now()).expect("writes");
        }
        assert!(std::fs::symlink_metadata(&link).expect("is there").is_symlink());
        assert_eq!(files(&folder.path().join("logs")), pairs(&[("real", "c\n"), ("real.1", "a\nb\n")]));
    }
}
