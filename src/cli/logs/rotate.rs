//! A file that begins anew once a day, or once it is full; so many old ones are kept.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use bytesize::ByteSize;

/// Bytes of a file that begins anew by its size, unless set.
const SIZE_BYTES: u64 = 64 * 1024 * 1024;

/// When a log file begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Rotation {
    Never,
    /// At midnight, UTC.
    Daily,
    /// Before it has more bytes than this.
    Size(u64),
}

impl FromStr for Rotation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "never" => Ok(Rotation::Never),
            None if text == "daily" => Ok(Rotation::Daily),
            None if text == "size" => Ok(Rotation::Size(SIZE_BYTES)),
            Some(("size", size)) => match size.parse::<ByteSize>() {
                Ok(size) if size.as_u64() >= 1024 => Ok(Rotation::Size(size.as_u64())),
                _ => Err("the size must be 1KiB or more, such as size=10MiB".into()),
            },
            _ => Err("it must be never, daily, size or size=N, such as size=10MiB".into()),
        }
    }
}

/// The file of that name is the newest. Older ones are `NAME.2026-01-31` for days, and `NAME.1`, the
/// last one, `NAME.2` and so on for sizes.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Of what is in it.
    day: String,
    rotation: Rotation,
    kept: usize,
}

impl LogFile {
    pub(super) fn open(path: PathBuf, rotation: Rotation, kept: usize) -> io::Result<LogFile> {
        let file = append(&path)?;
        let metadata = file.metadata()?;
        let bytes = metadata.len();
        let day = if bytes == 0 { day(SystemTime::now()) } else { day(metadata.modified()?) };
        Ok(LogFile { path, file, bytes, day, rotation, kept })
    }

    /// Appends a line by one write.
    pub(super) fn write(&mut self, line: &str, now: SystemTime) -> io::Result<()> {
        let bytes = line.len() as u64;
        let is_over = match self.rotation {
            Rotation::Never => false,
            Rotation::Daily => self.day != day(now),
            Rotation::Size(bytes_max) => self.bytes > 0 && self.bytes + bytes > bytes_max,
        };
        if is_over {
            self.begin_anew(now)?;
        }
        self.file.write_all(line.as_bytes())?;
        self.bytes += bytes;
        Ok(())
    }

    fn begin_anew(&mut self, now: SystemTime) -> io::Result<()> {
        match self.rotation {
            Rotation::Never => return Ok(()),
            // Another process may write to it, too, and have been first.
            Rotation::Daily if self.bytes > 0 && self.is_current()? => {
                let to = self.numbered(&self.day);
                if to.try_exists()? {
                    // What is there stays, and goes on with what came after it.
                    std::io::copy(&mut File::open(&self.path)?, &mut append(&to)?)?;
                    std::fs::remove_file(&self.path)?;
                } else {
                    std::fs::rename(&self.path, to)?;
                }
                self.prune()?;
            }
            Rotation::Daily => {}
            Rotation::Size(_) if !self.is_current()? => {}
            Rotation::Size(_) => {
                for number in (1..self.kept).rev() {
                    match std::fs::rename(
                        self.numbered(&number.to_string()),
                        self.numbered(&(number + 1).to_string()),
                    ) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                }
                match self.kept {
                    0 => std::fs::remove_file(&self.path)?,
                    _ => std::fs::rename(&self.path, self.numbered("1"))?,
                }
            }
        }
        self.file = append(&self.path)?;
        self.bytes = self.file.metadata()?.len();
        self.day = day(now);
        Ok(())
    }

    /// Whether the file of that name is the one that is open.
    fn is_current(&self) -> io::Result<bool> {
        let (open, named) = (self.file.metadata()?, std::fs::metadata(&self.path));
        Ok(named.is_ok_and(|named| (named.dev(), named.ino()) == (open.dev(), open.ino())))
    }

    /// Removes the oldest days.
    fn prune(&self) -> io::Result<()> {
        let folder = self.path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let mut name = self.path.file_name().unwrap_or_default().to_os_string();
        name.push(".");
        let prefix = name.as_encoded_bytes();
        let is_day = |name: &OsString| {
            let rest = name.as_encoded_bytes().strip_prefix(prefix).unwrap_or_default();
            rest.len() == 10 && rest.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-')
        };
        let mut days: Vec<_> =
            std::fs::read_dir(folder)?.flatten().map(|entry| entry.file_name()).filter(is_day).collect();
        days.sort_unstable();
        let old = days.len().saturating_sub(self.kept);
        days.iter().take(old).try_for_each(|name| std::fs::remove_file(folder.join(name)))
    }

    fn numbered(&self, number: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".");
        path.push(number);
        path.into()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
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

    /// What is in the folder, by name.
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
        let mut log = LogFile::open(folder.path().join("log"), Rotation::Size(4), 2).expect("opens");
        for line in ["a\n", "b\n", "c\n", "too long for it\n", "d\n", "e\n"] {
            log.write(line, SystemTime::now()).expect("writes");
        }
        assert_eq!(
            files(folder.path()),
            pairs(&[("log", "d\ne\n"), ("log.1", "too long for it\n"), ("log.2", "c\n")])
        );
    }

    #[test]
    fn a_day_begins_a_file_and_the_oldest_days_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        std::fs::write(folder.path().join("log.txt"), "not ours").expect("writes");
        std::fs::write(&path, "before\n").expect("writes");
        let first = SystemTime::UNIX_EPOCH + DAY * 20_000;
        File::options().write(true).open(&path).and_then(|file| file.set_modified(first)).expect("sets");
        let mut log = LogFile::open(path, Rotation::Daily, 2).expect("opens");
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
    fn rotations_are_named_and_sizes_have_a_least() {
        assert_eq!("daily".parse(), Ok(Rotation::Daily));
        assert_eq!("size=2KiB".parse(), Ok(Rotation::Size(2048)));
        assert_eq!("size".parse(), Ok(Rotation::Size(SIZE_BYTES)));
        for (text, words) in [("weekly", "daily"), ("size=10", "1KiB"), ("size=big", "1KiB")] {
            let message = text.parse::<Rotation>().expect_err(text);
            assert!(message.contains(words), "{message}");
        }
    }
}
