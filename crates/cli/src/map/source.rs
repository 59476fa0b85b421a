//! The sources of a map's inputs.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::FileType;

use super::joblog::Digest;
use super::walk;
use crate::args::MapArgs;
use crate::console::Console;
use crate::exit::Failure;
use crate::input;
use crate::object::Object;
use crate::settings::Settings;
use crate::streams;
use files::{Folder, HostFiles, Identity, OpenError};
use proto::text::quoted;

/// A label shows this much of a line.
const SHOWN_BYTES_MAX: usize = 80;

/// A line that is skipped for so long is said to be.
const SKIPPED_IN_SILENCE: Duration = Duration::from_secs(1);

/// Most bytes of an input, and whom to tell of one that has no end.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) bytes_max: usize,
    pub(super) console: Console,
}

/// An input that was found.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// A file that was named as an argument.
    Named(PathBuf),
    /// A file in the folder of this number, by its path from there.
    Beneath(usize, PathBuf),
    /// The path of a folder, and why a part of it cannot be read.
    Failed(String, String),
}

/// The files of all arguments, in order.
#[derive(Debug)]
pub(super) struct Files {
    host: HostFiles,
    /// The folders that were named, with the identity that each had when its files were found.
    folders: Vec<(PathBuf, Identity)>,
    found: Vec<Found>,
    /// These are left out, since this command writes them itself: arguments, and what is in folders.
    pub(super) left_out: Vec<PathBuf>,
}

/// A source that is known to be there. It is read as it is needed.
#[derive(Debug)]
pub(super) enum Source {
    Files(Files),
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

/// An input's content, as far as it exists before it is needed.
#[derive(Debug)]
pub(super) enum Content {
    Line(Vec<u8>),
    File(InputFile),
}

/// A file that is opened only when it is read: by its own path, or beneath the folder in which it was found,
/// which is held open.
#[derive(Debug)]
pub(super) struct InputFile {
    host: HostFiles,
    folder: Option<Arc<Folder>>,
    path: PathBuf,
    shown: PathBuf,
}

impl InputFile {
    fn read(&self, bytes_max: usize) -> Result<Vec<u8>, Failure> {
        match &self.folder {
            None => input::read_file(&self.host, &self.path, bytes_max),
            Some(folder) => {
                input::read_opened(&self.shown, folder.open_beneath(&self.host, &self.path), bytes_max)
            }
        }
    }
}

impl Content {
    pub(super) fn read(self, bytes_max: usize) -> Result<Vec<u8>, Failure> {
        match self {
            Content::Line(line) => Ok(line),
            Content::File(file) => file.read(bytes_max),
        }
    }

    /// Returns how a job log knows it: by the line, or by the file's path.
    pub(super) fn digest(&self) -> Digest {
        match self {
            Content::Line(line) => Digest::of(line),
            Content::File(file) => Digest::of(file.shown.as_os_str().as_encoded_bytes()),
        }
    }
}

/// The name of an input in results and errors.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Label {
    File(String),
    Line { number: u64, text: String },
    Stdin,
}

impl Source {
    /// Finds the files. A path that is not there is refused before anything runs.
    pub(super) fn resolve(args: &MapArgs, settings: &Settings) -> Result<Source, Failure> {
        if !args.files.is_empty() {
            let files = Files::find(&args.files, &settings.files, &own_files(args, settings))?;
            check_replaced(args, settings)?;
            return Ok(Source::Files(files));
        }
        if !input::is_piped() {
            let message = "there are no inputs: name --files, or pipe lines to stdin";
            return Err(Failure::Usage(message.into()));
        }
        Ok(if args.jsonl { Source::JsonLines } else { Source::Lines })
    }

    /// Returns how many inputs there are, if that is known.
    pub(super) fn len(&self) -> Option<usize> {
        match self {
            Source::Files(files) => Some(files.found.len()),
            Source::Lines | Source::JsonLines => None,
        }
    }

    pub(super) fn items(self, reading: &Reading) -> Box<dyn Iterator<Item = Item>> {
        let stdin = || BufReader::new(streams::stdin());
        let Reading { bytes_max, console } = reading.clone();
        let warn = move |message: &str| console.say(message);
        match self {
            Source::Files(files) => Box::new(files.items()),
            Source::Lines => Box::new(lines(stdin(), false, bytes_max, warn)),
            Source::JsonLines => Box::new(lines(stdin(), true, bytes_max, warn)),
        }
    }
}

/// Lists the files that this command writes. They are never inputs, be they in a folder of inputs or named:
/// otherwise the next run would have other inputs. They are compared by device and number; a file that does
/// not exist yet is not listed.
fn own_files(args: &MapArgs, settings: &Settings) -> Vec<Identity> {
    let target = &args.target;
    let named = [
        args.joblog.as_deref(),
        args.output_dir.as_deref(),
        target.trace.as_deref(),
        target.profile.as_deref(),
        settings.log_file.as_deref(),
        Some(Path::new("/proc/self/fd/1")),
        Some(Path::new("/proc/self/fd/2")),
    ];
    let found = named.into_iter().flatten().filter_map(|path| settings.files.look(path).ok());
    let kinds = [FileType::RegularFile, FileType::Directory];
    found
        .filter(|stat| kinds.contains(&FileType::from_raw_mode(stat.st_mode)))
        .map(|stat| Identity::of(&stat))
        // The log's rotation gives its old files other names.
        .chain(settings.files.files_of_held_names())
        .collect()
}

/// Leaves out of the inputs what is appended to, such as the job log; one that was named must not be
/// replaced.
fn check_replaced(args: &MapArgs, settings: &Settings) -> Result<(), Failure> {
    let look = |path: &Path| settings.files.look(path).ok().map(|stat| Identity::of(&stat));
    let target = &args.target;
    for (output, what) in [(&target.trace, "timeline"), (&target.profile, "profile")] {
        let Some((output, replaced)) = output.as_ref().and_then(|output| Some((output, look(output)?)))
        else {
            continue;
        };
        if args.files.iter().any(|input| look(input) == Some(replaced)) {
            let output = output.display();
            return Err(Failure::Usage(format!(
                "{output} is an input, and would be replaced by the {what}: name another file for it"
            )));
        }
    }
    Ok(())
}

impl Files {
    fn find(paths: &[PathBuf], host: &HostFiles, own: &[Identity]) -> Result<Files, Failure> {
        let mut files =
            Files { host: host.clone(), folders: Vec::new(), found: Vec::new(), left_out: Vec::new() };
        for path in paths {
            // `-` is stdin, as in other programs: a file of that name is `./-`.
            if path.as_os_str() == "-" {
                files.found.push(Found::Named(path.clone()));
                continue;
            }
            let cannot =
                |error: OpenError| Failure::Input(format!("cannot read {}: {error}", path.display()));
            let stat = host.look(path).map_err(cannot)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let folder = host.folder(path).map_err(cannot)?;
                let identity = Identity::of_open(&folder).map_err(|errno| cannot(errno.into()))?;
                let number = files.folders.len();
                files.folders.push((path.clone(), identity));
                let shown = path.display().to_string();
                for found in walk::files(host, &folder, own) {
                    match found {
                        Ok(walk::Found::File(path)) => files.found.push(Found::Beneath(number, path)),
                        Ok(walk::Found::Own(beneath)) => files.left_out.push(path.join(beneath)),
                        Err(message) => files.found.push(Found::Failed(shown.clone(), message)),
                    }
                }
            } else if own.contains(&Identity::of(&stat)) {
                files.left_out.push(path.clone());
            } else {
                files.found.push(Found::Named(path.clone()));
            }
        }
        Ok(files)
    }

    /// Only one folder is held open at a time, since the files of a folder follow each other.
    fn items(self) -> impl Iterator<Item = Item> {
        let Files { host, folders, found, .. } = self;
        let mut held: Option<(usize, Result<Arc<Folder>, String>)> = None;
        found.into_iter().map(move |found| {
            let (path, folder, shown) = match found {
                Found::Failed(folder, message) => {
                    return Item { label: Label::File(folder), content: Err(Failure::Input(message)) };
                }
                Found::Named(path) => (path.clone(), None, path),
                Found::Beneath(number, path) => {
                    let (named, identity) = &folders[number];
                    if held.as_ref().is_none_or(|(held, _)| *held != number) {
                        held = Some((number, hold(&host, named, *identity)));
                    }
                    let folder = held.as_ref().map(|(_, folder)| folder.clone());
                    let shown = named.join(&path);
                    (path, folder, shown)
                }
            };
            let label = Label::File(shown.display().to_string());
            let content = match folder.transpose() {
                Ok(folder) => Ok(Content::File(InputFile { host: host.clone(), folder, path, shown })),
                Err(message) => Err(Failure::Input(message)),
            };
            Item { label, content }
        })
    }
}

/// Opens a folder whose files were found before, and refuses it if it was replaced meanwhile.
fn hold(host: &HostFiles, path: &Path, identity: Identity) -> Result<Arc<Folder>, String> {
    let cannot = |error: OpenError| format!("cannot read the folder {}: {error}", path.display());
    let folder = host.folder(path).map_err(cannot)?;
    match Identity::of_open(&folder) {
        Ok(found) if found == identity => Ok(Arc::new(folder)),
        Ok(_) => Err(format!("the folder {} was replaced by another", path.display())),
        Err(errno) => Err(cannot(errno.into())),
    }
}

/// Numbered lines without their ends. Blank lines are no JSON lines. One that is too long is an error as soon
/// as that is known: its rest, which may have no end, is skipped before the next one is read.
fn lines(
    mut stdin: impl BufRead,
    skip_blank: bool,
    bytes_max: usize,
    warn: impl Fn(&str),
) -> impl Iterator<Item = Item> {
    let mut number = 0;
    let mut ended = false;
    let mut has_rest = false;
    std::iter::from_fn(move || {
        while !ended {
            let skipped = match std::mem::take(&mut has_rest) {
                true => skip_line(&mut stdin, |bytes| {
                    warn(&format!(
                        "warning: line {number} has no end so far: {bytes} bytes of it are skipped, and inputs behind it \
                         wait; Ctrl-C ends that"
                    ));
                }),
                false => Ok(()),
            };
            number += 1;
            let mut next = skipped.and_then(|()| next_line(&mut stdin, bytes_max));
            if let (1, Ok(Some(Ok(line)))) = (number, &mut next) {
                input::without_bom_in_place(line);
            }
            match next {
                Ok(None) => ended = true,
                Ok(Some(Ok(line))) if skip_blank && line.trim_ascii().is_empty() => {}
                Ok(Some(content)) => {
                    let text = content.as_ref().map_or(String::new(), |line| quoted(line, SHOWN_BYTES_MAX));
                    has_rest = content.as_ref().is_err_and(|TooLong { has_rest }| *has_rest);
                    let content = content
                        .map(Content::Line)
                        .map_err(|TooLong { .. }| input::too_long(&format!("line {number}"), bytes_max));
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

/// A line that is not taken. Its rest is still to be skipped, if it has one.
#[derive(Debug, PartialEq, Eq)]
struct TooLong {
    has_rest: bool,
}

fn next_line(stdin: &mut impl BufRead, bytes_max: usize) -> io::Result<Option<Result<Vec<u8>, TooLong>>> {
    let mut line = Vec::new();
    // Two bytes more: the line's end does not count.
    stdin.by_ref().take((bytes_max as u64).saturating_add(2)).read_until(b'\n', &mut line)?;
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
    Ok(Some(Err(TooLong { has_rest: !ended })))
}

/// Reads on to the end of the line; `tell` is told once, where that takes long.
fn skip_line(stdin: &mut impl BufRead, tell: impl Fn(u64)) -> io::Result<()> {
    let began = Instant::now();
    let mut is_told = false;
    let mut skipped = 0;
    loop {
        if !is_told && began.elapsed() > SKIPPED_IN_SILENCE {
            is_told = true;
            tell(skipped);
        }
        let buffer = stdin.fill_buf()?;
        let (len, ended) = match buffer.iter().position(|&byte| byte == b'\n') {
            Some(place) => (place + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        stdin.consume(len);
        skipped += len as u64;
        if ended {
            return Ok(());
        }
    }
}

impl Label {
    /// Returns a short name for logs and errors of the pool.
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
        lines(text.as_bytes(), skip_blank, 100, |_| {})
            .map(|item| (item.label.to_string(), item.content.and_then(|it| it.read(100)).expect("a line")))
            .collect()
    }

    /// Gives lines until one that does not end: whoever reads on is told to go away.
    struct Endless<'a>(&'a [u8]);

    impl io::Read for Endless<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            match self.0.read(into)? {
                0 => Err(io::Error::other("nobody was to read on")),
                read => Ok(read),
            }
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_an_error_before_its_end_is_there() {
        let source = Endless(b"abc\nabcdefgh");
        let mut lines = lines(io::BufReader::with_capacity(2, source), false, 3, |_| {});
        assert!(lines.next().expect("a line").content.is_ok());
        let refused = lines.next().expect("a line").content.expect_err("too long").to_string();
        assert_eq!(refused, "line 2 is longer than 3 bytes: raise --input-limit");
        let after = lines.next().expect("the error").content.expect_err("it is read on").to_string();
        assert!(after.contains("nobody was to read on"), "{after}");
        assert!(lines.next().is_none());
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
        let stdin = io::BufReader::with_capacity(3, &b"abcdefghij\nabc\r\nabcd\nabc"[..]);
        let items = lines(stdin, false, 3, |_| {});
        let found: Vec<_> = items.map(|item| item.content.and_then(|it| it.read(3)).ok()).collect();
        let abc = Some(b"abc".to_vec());
        assert_eq!(found, [None, abc.clone(), None, abc]);
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
        let host = HostFiles::default();
        let find = |paths: &[PathBuf], own: &[Identity]| Files::find(paths, &host, own);
        let found = find(&[root.join("skip.log"), root.to_path_buf()], &[]).expect("all are there");
        let beneath = ["a.txt", "b.txt", "sub/c.txt"].map(|path| Found::Beneath(0, path.into()));
        assert_eq!(found.found[0], Found::Named(root.join("skip.log")));
        assert_eq!(found.found[1..], beneath);
        assert!(find(&[root.join("missing")], &[]).is_err());
        let of = |name: &str| host.look(&root.join(name)).map(|stat| Identity::of(&stat));
        let own = [of("b.txt").expect("is there"), of("sub").expect("is there")];
        let found = find(&[root.to_path_buf(), root.join("b.txt")], &own).expect("reads");
        assert_eq!(found.found, [Found::Beneath(0, "a.txt".into())], "what we write is no input");
        assert_eq!(found.left_out, ["b.txt", "sub", "b.txt"].map(|name| root.join(name)), "and that is said");
    }

    #[test]
    fn a_folder_that_was_replaced_is_read_no_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("in");
        let other = folder.path().join("other");
        for (folder, text) in [(&root, "one"), (&other, "secret")] {
            std::fs::create_dir(folder).expect("a folder");
            std::fs::write(folder.join("a.txt"), text).expect("writes");
        }
        let find = || Files::find(std::slice::from_ref(&root), &HostFiles::default(), &[]).expect("reads");
        let read = |files: Files| files.items().map(|item| item.content.and_then(|it| it.read(100))).next();
        assert_eq!(read(find()).expect("one").expect("reads"), b"one");
        let found = find();
        std::fs::rename(&root, folder.path().join("away")).expect("moves");
        std::fs::rename(&other, &root).expect("moves");
        let refused = read(found).expect("one").expect_err("is another");
        assert!(refused.to_string().contains("replaced by another"), "{refused}");
    }
}
