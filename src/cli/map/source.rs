//! Where `map` takes its inputs from.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;

use super::joblog::Digest;
use crate::cli::args::MapArgs;
use crate::cli::exit::Failure;
use crate::cli::input;
use crate::cli::object::Object;
use crate::cli::streams;
use crate::limits::INPUT_BYTES_MAX;
use crate::text::quoted;

/// What a label shows of a line.
const SHOWN_BYTES_MAX: usize = 80;

/// A file, or the folder that could not be entered and why.
type Found = Result<PathBuf, (String, String)>;

/// A source that is known to be there. It is read as it is needed.
#[derive(Debug)]
pub(super) enum Source {
    /// Files in their order.
    Files(Vec<Found>),
    /// Lines of stdin.
    Lines,
    /// Lines of stdin, each JSON.
    JsonLines,
}

/// One input, or why there is none.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) label: Label,
    pub(super) content: Result<Content, Failure>,
}

/// What is there of an input before it is needed.
#[derive(Debug)]
pub(super) enum Content {
    Line(Vec<u8>),
    File(PathBuf),
}

impl Content {
    pub(super) fn read(self) -> Result<Vec<u8>, Failure> {
        match self {
            Content::Line(line) => Ok(line),
            Content::File(path) => input::read_file(&path),
        }
    }

    /// By what a job log knows it: the line, or the file's path.
    pub(super) fn digest(&self) -> Digest {
        match self {
            Content::Line(line) => Digest::of(line),
            Content::File(path) => Digest::of(path.as_os_str().as_encoded_bytes()),
        }
    }
}

/// What an input is called in results and errors.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Label {
    File(String),
    Line { number: u64, text: String },
    Stdin,
}

impl Source {
    /// Finds the files. A path that is not there is refused before anything runs.
    pub(super) fn resolve(args: &MapArgs) -> Result<Source, Failure> {
        if !args.files.is_empty() {
            return Ok(Source::Files(files(&args.files, &own_files(args))?));
        }
        if !input::is_piped() {
            let message = "there are no inputs: name --files, or pipe lines to stdin";
            return Err(Failure::Usage(message.into()));
        }
        Ok(if args.jsonl { Source::JsonLines } else { Source::Lines })
    }

    /// How many inputs there are, where that is known.
    pub(super) fn len(&self) -> Option<usize> {
        match self {
            Source::Files(files) => Some(files.len()),
            Source::Lines | Source::JsonLines => None,
        }
    }

    pub(super) fn items(self) -> Box<dyn Iterator<Item = Item>> {
        match self {
            Source::Files(files) => Box::new(files.into_iter().map(file)),
            Source::Lines => Box::new(lines(BufReader::new(streams::stdin()), false)),
            Source::JsonLines => Box::new(lines(BufReader::new(streams::stdin()), true)),
        }
    }
}

/// What this command writes: where it lies in a folder of inputs, it is none of them, and the inputs are the
/// same the next time. By device and number; what is not there yet cannot be found.
fn own_files(args: &MapArgs) -> Vec<(u64, u64)> {
    let stdout = Path::new("/proc/self/fd/1");
    let named = [args.joblog.as_deref(), args.output_dir.as_deref(), Some(stdout)];
    let found = named.into_iter().flatten().filter_map(|path| std::fs::metadata(path).ok());
    found.filter(|found| found.is_file() || found.is_dir()).map(|found| (found.dev(), found.ino())).collect()
}

fn files(paths: &[PathBuf], own: &[(u64, u64)]) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::new();
    for path in paths {
        // As others have it: a file of that name is `./-`.
        if path.as_os_str() == "-" {
            found.push(Ok(path.clone()));
            continue;
        }
        let metadata = std::fs::metadata(path)
            .map_err(|error| Failure::Input(format!("cannot read {}: {error}", path.display())))?;
        if metadata.is_dir() {
            found.extend(walk(path, own.to_vec()));
        } else {
            found.push(Ok(path.clone()));
        }
    }
    Ok(found)
}

/// The files of a folder, sorted by name in each, without hidden and ignored ones.
fn walk(folder: &Path, own: Vec<(u64, u64)>) -> impl Iterator<Item = Found> {
    let shown = folder.display().to_string();
    WalkBuilder::new(folder)
        // A .gitignore counts in an exported tree too.
        .require_git(false)
        .sort_by_file_name(Ord::cmp)
        .filter_entry(move |entry| {
            let is_own = |found: std::fs::Metadata| own.contains(&(found.dev(), found.ino()));
            own.is_empty() || !entry.path().metadata().is_ok_and(is_own)
        })
        .build()
        .filter_map(move |entry| match entry {
            Ok(entry) if entry.file_type().is_some_and(|kind| kind.is_file()) => Some(Ok(entry.into_path())),
            Ok(_) => None,
            Err(error) => Some(Err((shown.clone(), error.to_string()))),
        })
}

fn file(found: Found) -> Item {
    match found {
        Ok(path) => Item { label: Label::File(path.display().to_string()), content: Ok(Content::File(path)) },
        Err((folder, message)) => Item { label: Label::File(folder), content: Err(Failure::Input(message)) },
    }
}

/// Numbered lines without their ends. In JSON lines, blank ones are none.
fn lines(mut stdin: impl BufRead, skip_blank: bool) -> impl Iterator<Item = Item> {
    let mut number = 0;
    let mut ended = false;
    std::iter::from_fn(move || {
        while !ended {
            number += 1;
            let mut next = next_line(&mut stdin, INPUT_BYTES_MAX);
            if let (1, Ok(Some(Ok(line)))) = (number, &mut next) {
                input::without_bom_in_place(line);
            }
            match next {
                Ok(None) => ended = true,
                Ok(Some(Ok(line))) if skip_blank && line.trim_ascii().is_empty() => {}
                Ok(Some(content)) => {
                    let text = content.as_ref().map_or(String::new(), |line| quoted(line, SHOWN_BYTES_MAX));
                    let content = content.map(Content::Line).map_err(|TooLong| {
                        Failure::Input(format!("the line has more than {INPUT_BYTES_MAX} bytes"))
                    });
                    return Some(Item { label: Label::Line { number, text }, content });
                }
                Err(error) => {
                    ended = true;
                    let content = Err(Failure::Input(format!("cannot read it: {error}")));
                    return Some(Item { label: Label::Stdin, content });
                }
            }
        }
        None
    })
}

/// A line that was skipped.
#[derive(Debug, PartialEq, Eq)]
struct TooLong;

fn next_line(stdin: &mut impl BufRead, bytes_max: usize) -> io::Result<Option<Result<Vec<u8>, TooLong>>> {
    let mut line = Vec::new();
    // Two bytes more: the line's end does not count.
    stdin.by_ref().take(bytes_max as u64 + 2).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    let ended = line.ends_with(b"\n");
    if ended {
        line.pop();
        if line.ends_with(b"\r") {
            line.pop();
        }
    }
    if line.len() <= bytes_max {
        return Ok(Some(Ok(line)));
    }
    if !ended {
        skip_line(stdin)?;
    }
    Ok(Some(Err(TooLong)))
}

fn skip_line(stdin: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = stdin.fill_buf()?;
        let (len, ended) = match buffer.iter().position(|&byte| byte == b'\n') {
            Some(place) => (place + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        stdin.consume(len);
        if ended {
            return Ok(());
        }
    }
}

impl Label {
    /// For logs and errors of the pool.
    pub(super) fn short(&self) -> String {
        match self {
            Label::File(path) => path.clone(),
            Label::Line { number, .. } => format!("line {number}"),
            Label::Stdin => "stdin".into(),
        }
    }

    pub(super) fn add_to(&self, object: Object) -> Object {
        match self {
            Label::File(path) => object.field("input", path.as_str()),
            Label::Line { number, text } => object.field("line", *number).field("input", text.as_str()),
            Label::Stdin => object.field("input", "stdin"),
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Label::Line { number, text } => write!(f, "line {number} ({text})"),
            other => f.write_str(&other.short()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, skip_blank: bool) -> Vec<(String, Vec<u8>)> {
        lines(text.as_bytes(), skip_blank)
            .map(|item| (item.label.to_string(), item.content.and_then(Content::read).expect("a line")))
            .collect()
    }

    #[test]
    fn lines_are_numbered_and_lose_their_ends() {
        let found = read("a\r\n\nb", false);
        let expected = [("line 1 (a)", "a"), ("line 2 ()", ""), ("line 3 (b)", "b")];
        assert_eq!(found, expected.map(|(label, line)| (label.into(), line.into())));
        assert_eq!(read("a\n \nb\n", true)[1].0, "line 3 (b)");
        assert_eq!(read("", false), []);
        let marked = read("\u{feff}a\n\u{feff}b", false);
        assert_eq!(
            marked.iter().map(|(_, line)| &line[..]).collect::<Vec<_>>(),
            [&b"a"[..], "\u{feff}b".as_bytes()]
        );
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_and_the_next_one_read() {
        let mut stdin = io::BufReader::with_capacity(3, &b"abcdefghij\nabc\r\nabcd\nabc"[..]);
        let mut next = || next_line(&mut stdin, 3).expect("reads");
        assert_eq!(next(), Some(Err(TooLong)));
        assert_eq!(next(), Some(Ok(b"abc".to_vec())));
        assert_eq!(next(), Some(Err(TooLong)));
        assert_eq!(next(), Some(Ok(b"abc".to_vec())));
        assert_eq!(next(), None);
    }

    #[test]
    fn folders_are_walked_in_order_without_hidden_and_ignored_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        std::fs::create_dir(root.join("sub")).expect("a folder");
        for name in ["b.txt", "a.txt", ".hidden", "sub/c.txt", "skip.log"] {
            std::fs::write(root.join(name), name).expect("writes");
        }
        std::fs::write(root.join(".gitignore"), "*.log\n").expect("writes");
        let found = files(&[root.join("skip.log"), root.to_path_buf()], &[]).expect("all are there");
        let names: Vec<_> = found
            .iter()
            .map(|path| path.as_ref().expect("readable").strip_prefix(root).expect("inside").to_path_buf())
            .collect();
        assert_eq!(names, ["skip.log", "a.txt", "b.txt", "sub/c.txt"].map(PathBuf::from));
        assert!(files(&[root.join("missing")], &[]).is_err());
        let of = |name: &str| std::fs::metadata(root.join(name)).map(|found| (found.dev(), found.ino()));
        let own = [of("b.txt").expect("is there"), of("sub").expect("is there")];
        assert_eq!(files(&[root.to_path_buf()], &own).expect("reads").len(), 1, "what we write is no input");
    }
}
