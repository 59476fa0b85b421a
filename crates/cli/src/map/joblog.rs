//! The job log: what is done, in GNU parallel's columns, so that a map can go on where it ended.
//!
//! A record is one line, appended by one `write` once the result is out. Whatever ends this process,
//! a record stands whole, or is the last line and torn; a torn one counts for nothing and is taken
//! away. That holds for the end of the process, not of the machine: neither results nor records are forced to
//! the disk, which would cost milliseconds for each, so that after a power cut a record may stand whose
//! result is lost. Whoever fears that runs again without the log.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::args::MapArgs;
use crate::exit::Failure;
use files::{self, Finding, HostFiles, Locked, OpenError, OutputFile};
use proto::text::is_harmless;

/// GNU parallel's nine, and ours.
const HEADER: &str = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\tInput\n";
const COLUMNS: usize = 10;

/// A record that is longer than this is not ours, and is not read.
const RECORD_BYTES_MAX: usize = 64 * 1024;

/// Most bytes of `Command`.
const COMMAND_BYTES_MAX: usize = 4096;

/// A file that records are appended to. It is locked for as long as it is open, if its file system has locks.
#[derive(Debug)]
pub(super) struct JobLog {
    path: PathBuf,
    file: OutputFile,
}

/// One input that is done.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) seq: u64,
    pub(super) run: Duration,
    pub(super) sent_bytes: usize,
    pub(super) received_bytes: usize,
    /// 0 is success.
    pub(super) exit_code: i32,
    pub(super) signal: i32,
    pub(super) command: String,
    pub(super) digest: Digest,
}

/// Stands for an input in the log, and tells the inputs of another run apart. 0 means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest(u32);

impl Digest {
    pub(super) fn of(input: &[u8]) -> Digest {
        let hash = blake3::hash(input);
        let [a, b, c, d, ..] = *hash.as_bytes();
        Digest(u32::from_le_bytes([a, b, c, d]).max(1))
    }
}

/// The inputs that a log says are done, in four bytes each.
#[derive(Debug, Default)]
pub(super) struct Done {
    pages: HashMap<u64, Box<[u32; Done::PAGE as usize]>>,
    pub(super) count: u64,
}

impl Done {
    const PAGE: u64 = 1024;

    /// The digest of an input that is done.
    pub(super) fn get(&self, seq: u64) -> Option<Digest> {
        let page = self.pages.get(&(seq / Self::PAGE))?;
        Some(Digest(page[(seq % Self::PAGE) as usize])).filter(|digest| digest.0 != 0)
    }

    fn insert(&mut self, seq: u64, digest: Digest) {
        let page = self.pages.entry(seq / Self::PAGE).or_insert_with(|| Box::new([0; Self::PAGE as usize]));
        let slot = &mut page[(seq % Self::PAGE) as usize];
        self.count += u64::from(*slot == 0);
        *slot = digest.0;
    }
}

impl JobLog {
    /// Opens the log that the arguments name, and reads what it says is done.
    /// A pipe, a terminal or a device cannot be read back: it is written to as it is, and nothing can be
    /// resumed from it.
    pub(super) fn open(
        args: &MapArgs,
        files: &HostFiles,
    ) -> Result<Option<(JobLog, Done, Vec<String>)>, Failure> {
        let Some(path) = args.joblog.as_ref().filter(|_| !args.dry_run) else { return Ok(None) };
        let mut warnings = Vec::new();
        let cannot = |what: &str, error: io::Error| {
            Failure::Usage(format!("cannot {what} the job log {}: {error}", path.display()))
        };
        let output = files.append(path, "the job log").map_err(|error| cannot("open", error.into()))?;
        let file = output.file;
        if !output.is_regular {
            if args.resume || args.resume_failed {
                let path = path.display();
                return Err(Failure::Usage(format!(
                    "the job log {path} is no regular file, so that there is nothing to go on with: leave out --resume"
                )));
            }
            let mut log = JobLog { path: path.clone(), file };
            log.write(HEADER)?;
            return Ok(Some((log, Done::default(), warnings)));
        }
        match files::lock(file.file()).map_err(|error| cannot("lock", error))? {
            Locked::Ours(_) => {}
            Locked::Others => {
                let path = path.display();
                return Err(Failure::Usage(format!(
                    "the job log {path} is in use by another wasmpool: wait for it, or name another file"
                )));
            }
            Locked::NotHere => {
                let path = path.display();
                warnings.push(format!(
                    "the job log {path} cannot be locked: no other wasmpool may use it meanwhile"
                ));
            }
        }
        let len = file.file().metadata().map_err(|error| cannot("read", error))?.len();
        let resumes = args.resume || args.resume_failed;
        // A run that could not begin leaves a log without records.
        if len > HEADER.len() as u64 && !resumes {
            let path = path.display();
            return Err(Failure::Usage(format!(
                "the job log {path} is there already: go on with it by --resume, or name another file"
            )));
        }
        let (done, whole) = read(file.file(), path, args.resume_failed)?;
        if whole < len {
            file.file().set_len(whole).map_err(|error| cannot("repair", error))?;
            let path = path.display();
            warnings.push(format!("the last line of the job log {path} was torn, and counts for nothing"));
        }
        let mut log = JobLog { path: path.clone(), file };
        if whole == 0 {
            log.write(HEADER)?;
        }
        Ok(Some((log, done, warnings)))
    }

    /// Reads what the log of a dry run says is done, and leaves the log as it is.
    pub(super) fn look(args: &MapArgs, files: &HostFiles) -> Result<Done, Failure> {
        let Some(path) = &args.joblog else { return Ok(Done::default()) };
        match files.read_own(path, Finding::Usual) {
            Ok(file) => Ok(read(&file.0, path, args.resume_failed)?.0),
            Err(OpenError::System(error)) if error.kind() == io::ErrorKind::NotFound => Ok(Done::default()),
            // A pipe or a device cannot be read back, so it says of nothing that it is done.
            Err(OpenError::NotRegular(_)) => Ok(Done::default()),
            Err(error) => Err(Failure::Usage(format!("cannot open the job log {}: {error}", path.display()))),
        }
    }

    pub(super) fn append(&mut self, record: &Record) -> Result<(), Failure> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.write(&record.line(now))
    }

    fn write(&mut self, line: &str) -> Result<(), Failure> {
        self.file.write_all(line.as_bytes()).map_err(|error| {
            Failure::Internal(format!("cannot write to the job log {}: {error}", self.path.display()))
        })
    }
}

impl Record {
    fn line(&self, now: Duration) -> String {
        let Record { seq, run, sent_bytes, received_bytes, exit_code, signal, command, digest } = self;
        let exit_code = exit_code.cast_unsigned();
        let began = now.saturating_sub(*run).as_secs_f64();
        let run = run.as_secs_f64();
        let mut line = format!(
            "{seq}\t:\t{began:.3}\t{run:.6}\t{sent_bytes}\t{received_bytes}\t{exit_code}\t{signal}\t"
        );
        for c in command.chars() {
            if line.len() >= COMMAND_BYTES_MAX {
                line.push('…');
                break;
            }
            match is_harmless(c) && c != '\t' && c != '\n' && c != '\\' {
                true => line.push(c),
                false => line.extend(c.escape_default()),
            }
        }
        // Writing to a String cannot fail.
        let _ = writeln!(line, "\t{:08x}", digest.0);
        line
    }
}

/// Returns what is done, and how many bytes are whole lines.
fn read(file: &File, path: &Path, only_successes: bool) -> Result<(Done, u64), Failure> {
    let refused = |number: u64, what: &str| {
        Failure::Usage(format!(
            "line {number} of {} is no record of a job log ({what}): mend the line or take it out, or name another file",
            path.display()
        ))
    };
    let mut done = Done::default();
    let mut whole = 0;
    let mut number = 0;
    let mut reader = BufReader::with_capacity(256 * 1024, file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = io::Read::take(&mut reader, RECORD_BYTES_MAX as u64);
        limited.read_until(b'\n', &mut line).map_err(|error| {
            Failure::Usage(format!("cannot read the job log {}: {error}", path.display()))
        })?;
        number += 1;
        let Some(text) = line.strip_suffix(b"\n") else {
            if line.len() == RECORD_BYTES_MAX {
                return Err(refused(number, "it is too long"));
            }
            // Something else than a torn log of ours would be lost by mending it.
            if number == 1 && !HEADER.as_bytes().starts_with(&line) {
                return Err(refused(number, "the columns are others"));
            }
            return Ok((done, whole));
        };
        whole += line.len() as u64;
        if number == 1 {
            if line != HEADER.as_bytes() {
                return Err(refused(number, "the columns are others"));
            }
            continue;
        }
        let (seq, exit_code, digest) = parse(text).ok_or_else(|| refused(number, "columns are missing"))?;
        if exit_code == 0 || !only_successes {
            done.insert(seq, digest);
        }
    }
}

fn parse(line: &[u8]) -> Option<(u64, i64, Digest)> {
    let columns: Vec<_> = std::str::from_utf8(line).ok()?.split('\t').collect();
    if columns.len() != COLUMNS {
        return None;
    }
    let digest = u32::from_str_radix(columns[9], 16).ok().filter(|digest| *digest != 0)?;
    // Logs of before have those over 31 bits as negative.
    let exit_code: i64 = columns[6].parse().ok()?;
    let signal: i64 = columns[7].parse().ok()?;
    Some((columns[0].parse().ok()?, exit_code | signal, Digest(digest)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(seq: u64, exit_code: i32) -> Record {
        Record {
            seq,
            run: Duration::from_millis(1500),
            sent_bytes: 2,
            received_bytes: 3,
            exit_code,
            signal: 0,
            command: "tab\there\nand there\\".into(),
            digest: Digest::of(b"input"),
        }
    }

    fn read_bytes(bytes: &[u8], only_successes: bool) -> Result<(Done, u64), Failure> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        std::fs::write(&path, bytes).expect("writes");
        read(&File::open(&path).expect("opens"), &path, only_successes)
    }

    fn log(records: &[Record]) -> String {
        let lines = records.iter().map(|record| record.line(Duration::from_secs(100)));
        std::iter::once(HEADER.to_string()).chain(lines).collect()
    }

    #[test]
    fn a_record_is_one_line_of_gnu_parallels_columns_and_a_digest() {
        let line = record(7, 1).line(Duration::from_secs(100));
        let columns: Vec<_> = line.trim_end().split('\t').collect();
        let expected = ["7", ":", "98.500", "1.500000", "2", "3", "1", "0", "tab\\there\\nand there\\\\"];
        assert_eq!(columns[..9], expected);
        assert_eq!(parse(line.trim_end().as_bytes()), Some((7, 1, Digest::of(b"input"))));
    }

    #[test]
    fn failures_are_done_unless_only_successes_count() {
        let text = log(&[record(1, 0), record(2, 1), record(5000, 0)]);
        let seen = |only| {
            let (done, whole) = read_bytes(text.as_bytes(), only).expect("reads");
            assert_eq!(whole, text.len() as u64);
            ([1, 2, 3, 5000].map(|seq| done.get(seq).is_some()), done.count)
        };
        assert_eq!(seen(false), ([true, true, false, true], 3));
        assert_eq!(seen(true), ([true, false, false, true], 2));
    }

    #[test]
    fn what_is_no_log_of_ours_is_refused_and_not_repaired() {
        for text in ["notes", "Seq\tHost\n1\t2\n", &format!("{HEADER}1\t2\n{HEADER}"), &"x".repeat(70_000)] {
            let message = read_bytes(text.as_bytes(), false).expect_err("is refused").to_string();
            assert!(message.contains("name another file"), "{message}");
        }
    }

    proptest! {
        #[test]
        fn wherever_a_log_is_torn_whole_records_count_and_the_rest_does_not(records in 0_u64..5, cut in 0_usize..600) {
            let text = log(&(1..=records).map(|seq| record(seq, 0)).collect::<Vec<_>>());
            let torn = &text.as_bytes()[..cut.min(text.len())];
            let (done, whole) = read_bytes(torn, false).expect("a torn log is a log");
            let lines = torn.iter().filter(|byte| **byte == b'\n').count() as u64;
            prop_assert_eq!(done.count, lines.saturating_sub(1));
            prop_assert!(whole <= torn.len() as u64 && torn[..whole as usize].last().is_none_or(|byte| *byte == b'\n'));
        }
    }
}
