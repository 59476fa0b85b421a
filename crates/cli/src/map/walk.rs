//! Walks the files of a folder as `git` and `rg` list them: sorted by name in each folder, and without hidden
//! files, links, and files that a `.gitignore` or `.ignore` names.
//!
//! Each folder and each file of rules is opened beneath the first folder, which is held open: a link or a
//! pipe that a task or another user puts there is neither followed nor waited for.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::FileType;

use files::{Finding, Folder, HostFiles, Identity};

/// A file of rules that is longer than this is ignored.
const RULES_BYTES_MAX: u64 = 1024 * 1024;

/// A file or folder that was found, by its path from the first folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    File(PathBuf),
    /// A file or folder that this command writes.
    Own(PathBuf),
}

/// Lists the files beneath a folder; `Err` says what could not be read.
pub(super) fn files<'a>(
    host: &'a HostFiles,
    folder: &'a Folder,
    own: &'a [Identity],
) -> impl Iterator<Item = Result<Found, String>> + 'a {
    let rules = Rules::above(host, folder);
    let mut walk = Walk { host, folder, own, rules, open: Vec::new() };
    let first = walk.enter(Path::new(""));
    let mut failed = first.err();
    std::iter::from_fn(move || failed.take().map(Err).or_else(|| walk.next()))
}

struct Walk<'a> {
    host: &'a HostFiles,
    folder: &'a Folder,
    own: &'a [Identity],
    rules: Rules,
    /// The folders that are being walked, outermost first, each with its remaining entries, the next one
    /// last.
    open: Vec<Vec<(PathBuf, Kind)>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
    /// Be it a file or a folder.
    Own,
}

impl Walk<'_> {
    fn next(&mut self) -> Option<Result<Found, String>> {
        loop {
            let Some((path, kind)) = self.open.last_mut()?.pop() else {
                self.open.pop();
                self.rules.leave();
                continue;
            };
            match kind {
                Kind::File => return Some(Ok(Found::File(path))),
                Kind::Own => return Some(Ok(Found::Own(path))),
                Kind::Folder => {
                    if let Err(message) = self.enter(&path) {
                        return Some(Err(message));
                    }
                }
            }
        }
    }

    fn enter(&mut self, path: &Path) -> Result<(), String> {
        let cannot = |error: &dyn std::fmt::Display| {
            let shown = self.folder.shown().join(path);
            format!("cannot read the folder {}: {error}", shown.display())
        };
        let below = match path.as_os_str().is_empty() {
            true => None,
            false => Some(self.folder.folder_beneath(self.host, path).map_err(|error| cannot(&error))?),
        };
        let folder = below.as_ref().unwrap_or(self.folder);
        let entries = folder.entries().map_err(|error| cannot(&error))?;
        self.rules.enter(self.host, folder, path);
        let mut found: Vec<_> = entries
            .into_iter()
            .filter_map(|entry| {
                let is_folder = match entry.kind {
                    FileType::RegularFile => false,
                    FileType::Directory => true,
                    FileType::Unknown => match kind(folder, &entry.name)? {
                        FileType::RegularFile => false,
                        FileType::Directory => true,
                        _ => return None,
                    },
                    _ => return None,
                };
                let path = path.join(&entry.name);
                let is_wanted = self.rules.shows(&path, &entry.name, is_folder);
                let kind = match is_folder {
                    _ if is_wanted && self.is_own(folder, &entry.name) => Kind::Own,
                    true => Kind::Folder,
                    false => Kind::File,
                };
                is_wanted.then_some((path, kind))
            })
            .collect();
        found.sort_unstable_by(|(a, _), (b, _)| b.as_os_str().as_bytes().cmp(a.as_os_str().as_bytes()));
        self.open.push(found);
        Ok(())
    }

    /// Returns whether this command writes that file.
    fn is_own(&self, folder: &Folder, name: &OsStr) -> bool {
        let is_own = |stat| self.own.contains(&Identity::of(&stat));
        !self.own.is_empty() && folder.look(name).ok().flatten().is_some_and(is_own)
    }
}

fn kind(folder: &Folder, name: &OsStr) -> Option<FileType> {
    folder.look(name).ok()?.map(|stat| FileType::from_raw_mode(stat.st_mode))
}

/// The rules that apply in the folder at hand: its own and those of the folders above.
struct Rules {
    /// This is the absolute path of the first folder, since rules of the folders above are matched against
    /// absolute paths.
    root: PathBuf,
    /// The outermost folder comes first.
    levels: Vec<Level>,
    global: Gitignore,
}

/// The rules of one folder.
struct Level {
    ignore: Gitignore,
    git: Gitignore,
    /// The rules of `.git/info/exclude`.
    exclude: Gitignore,
    is_repository: bool,
}

impl Rules {
    /// Reads the rules of the folders above.
    fn above(host: &HostFiles, folder: &Folder) -> Rules {
        // Only the rules inside of the folder apply if the kernel does not say where it is.
        let root = folder.current_path().unwrap_or_else(|| "/".into());
        let above: Vec<_> = root.ancestors().skip(1).collect();
        let levels = above.into_iter().rev().map(|path| match host.folder(path) {
            Ok(folder) => Level::read(host, &folder, path),
            Err(_) => Level::none(),
        });
        Rules { levels: levels.collect(), global: global(host), root }
    }

    fn enter(&mut self, host: &HostFiles, folder: &Folder, path: &Path) {
        let level = Level::read(host, folder, &self.root.join(path));
        self.levels.push(level);
    }

    fn leave(&mut self) {
        self.levels.pop();
    }

    /// The innermost rule wins; `.ignore` beats `.gitignore`, which reaches no further than its repository.
    fn shows(&self, path: &Path, name: &OsStr, is_folder: bool) -> bool {
        let path = self.root.join(path);
        let [mut ignore, mut git, mut exclude] = [Match::None, Match::None, Match::None];
        let mut is_outside = false;
        for level in self.levels.iter().rev() {
            if ignore.is_none() {
                ignore = level.ignore.matched(&path, is_folder);
            }
            if !is_outside && git.is_none() {
                git = level.git.matched(&path, is_folder);
            }
            if !is_outside && exclude.is_none() {
                exclude = level.exclude.matched(&path, is_folder);
            }
            is_outside |= level.is_repository;
        }
        let found = ignore.or(git).or(exclude).or(self.global.matched(&path, is_folder));
        match found {
            Match::Ignore(_) => false,
            Match::Whitelist(_) => true,
            Match::None => !name.as_bytes().starts_with(b"."),
        }
    }
}

impl Level {
    fn none() -> Level {
        Level {
            ignore: Gitignore::empty(),
            git: Gitignore::empty(),
            exclude: Gitignore::empty(),
            is_repository: false,
        }
    }

    fn read(host: &HostFiles, folder: &Folder, path: &Path) -> Level {
        let rules = |name: &str| match folder.open_beneath(host, Path::new(name)) {
            Ok(file) => parsed(path, &text(file)),
            Err(_) => Gitignore::empty(),
        };
        let is_repository = matches!(folder.look(".git"), Ok(Some(_)));
        let exclude = if is_repository { rules(".git/info/exclude") } else { Gitignore::empty() };
        Level { ignore: rules(".ignore"), git: rules(".gitignore"), exclude, is_repository }
    }
}

fn parsed(path: &Path, text: &str) -> Gitignore {
    let mut rules = GitignoreBuilder::new(path);
    for line in text.trim_start_matches('\u{feff}').lines() {
        // A line that is not a pattern is skipped, as git does.
        let _ = rules.add_line(None, line);
    }
    rules.build().unwrap_or_else(|_| Gitignore::empty())
}

fn text(file: impl Read) -> String {
    let mut bytes = Vec::new();
    match file.take(RULES_BYTES_MAX + 1).read_to_end(&mut bytes) {
        Ok(len) if len as u64 <= RULES_BYTES_MAX => String::from_utf8_lossy(&bytes).into_owned(),
        _ => String::new(),
    }
}

/// Reads this user's rules for all repositories: the file that git's `core.excludesFile` names, else
/// `git/ignore` beside other settings. They are about paths from the working directory.
fn global(host: &HostFiles) -> Gitignore {
    let read = |path: PathBuf| host.read_own(&path, Finding::Usual).ok().map(text);
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = absolute("HOME");
    let settings = absolute("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
    let configs = [
        home.as_ref().map(|home| home.join(".gitconfig")),
        settings.as_ref().map(|settings| settings.join("git/config")),
    ];
    let named = configs.into_iter().flatten().filter_map(read).find_map(|config| excludes_file(&config));
    let named = named.and_then(|path| match (path.strip_prefix("~/"), &home) {
        (Some(rest), Some(home)) => Some(home.join(rest)),
        (Some(_), None) => None,
        (None, _) => Some(PathBuf::from(path)),
    });
    let rules = named.or_else(|| Some(settings?.join("git/ignore"))).and_then(read);
    rules.map_or_else(Gitignore::empty, |rules| {
        let here = std::env::current_dir().unwrap_or_else(|_| "/".into());
        parsed(&here, &rules)
    })
}

/// Finds `core.excludesFile` in the text of git's settings.
fn excludes_file(config: &str) -> Option<String> {
    config.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        let value = value.trim().trim_matches('"');
        name.trim()
            .eq_ignore_ascii_case("excludesfile")
            .then(|| value.to_string())
            .filter(|value| !value.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(root: &Path) -> Vec<String> {
        let host = HostFiles::default();
        let folder = host.folder(root).expect("is there");
        let found = files(&host, &folder, &[]).map(|found| found.expect("reads"));
        found
            .map(|found| match found {
                Found::File(path) => path.to_str().expect("text").to_string(),
                Found::Own(path) => panic!("nothing writes to {}", path.display()),
            })
            .collect()
    }

    fn lay_out(root: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = root.join(name);
            let folder = path.parent().expect("a folder");
            std::fs::create_dir_all(folder).and_then(|()| std::fs::write(path, text)).expect("writes");
        }
    }

    #[test]
    fn the_innermost_rule_counts_and_rules_end_at_their_repository() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        lay_out(
            root,
            &[
                (".gitignore", "*.log\n/top\n"),
                (".ignore", "*.tmp\n"),
                ("top", ""),
                ("a/top", ""),
                ("a/x.log", ""),
                ("a/.gitignore", "!x.log\n!.shown\nout/\n"),
                ("a/.shown", ""),
                ("a/out/y", ""),
                ("a/out2", ""),
                ("repo/.git/info/exclude", "secret\n"),
                ("repo/z.log", ""),
                ("repo/z.tmp", ""),
                ("repo/secret", ""),
                ("repo/sub/secret", ""),
            ],
        );
        assert_eq!(list(root), ["a/.shown", "a/out2", "a/top", "a/x.log", "repo/z.log"]);
        assert_eq!(list(&root.join("a")), [".shown", "out2", "top", "x.log"]);
        assert_eq!(list(&root.join("repo/sub")), [""; 0], "rules above count, too");
    }

    /// The crate `ignore` is the reference: this walk replaces it and must list the same files.
    #[test]
    fn it_lists_what_ripgreps_walk_lists() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        lay_out(
            root,
            &[
                (".gitignore", "# none\n*.o\n!keep.o\nbuild/\n**/deep/*.txt\nsub/x?\n"),
                ("one.o", ""),
                ("keep.o", ""),
                ("build/a", ""),
                ("sub/build", ""),
                ("sub/x1", ""),
                ("sub/x22", ""),
                ("sub/deep/a.txt", ""),
                ("sub/deep/a.rs", ""),
                ("sub/.ignore", "!x1\n"),
                ("sub/b c", ""),
                ("sub-b", ""),
                ("sub.c/d", ""),
                ("Zz", ""),
            ],
        );
        std::os::unix::fs::symlink(root.join("one.o"), root.join("link")).expect("links");
        let walk = ignore::WalkBuilder::new(root).require_git(false).sort_by_file_name(Ord::cmp).build();
        let expected: Vec<_> = walk
            .map(|entry| entry.expect("reads"))
            .filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()))
            .map(|entry| entry.path().strip_prefix(root).expect("inside").to_str().expect("text").to_string())
            .collect();
        assert_eq!(list(root), expected);
        assert!(expected.contains(&"sub/x1".to_string()) && !expected.contains(&"one.o".to_string()));
    }

    #[test]
    fn rules_that_are_a_pipe_or_a_link_are_none_and_nobody_waits() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        lay_out(root, &[("in/a", ""), ("in/b", ""), ("rules", "a\n")]);
        std::os::unix::fs::symlink("../rules", root.join("in/.ignore")).expect("links");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, root.join("in/.gitignore"), FileType::Fifo, mode, 0)
            .expect("makes");
        assert_eq!(list(&root.join("in")), ["a", "b"]);
    }

    #[test]
    fn gits_own_settings_name_a_file_of_rules() {
        let config = "[user]\n\tname = a\n[core]\n  excludesFile = \"~/rules\"\n";
        assert_eq!(excludes_file(config).as_deref(), Some("~/rules"));
        assert_eq!(excludes_file("[core]\n"), None);
    }
}
