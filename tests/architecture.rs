//! Holds the sources to the lines that ARCHITECTURE.md draws: who may know whom.
//!
//! This suite has an executable of its own because it only reads: without the engine it is linked at once.

use std::path::{Path, PathBuf};

/// The crates that are a part of this workspace, and the name under which their rooms are known here. The library's
/// own rooms, in `src`, have none before them.
const CRATES: [&str; 8] = ["proto", "files", "sandbox", "engine", "json", "wit", "derive", "cli"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The sources of all crates, by their room: `engine/worker/memories.rs`, `host/core.rs`.
fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, room: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(dir).expect("reads").flatten() {
            let path = entry.path();
            let room = room.join(entry.file_name());
            if path.is_dir() {
                walk(&path, &room, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push((room, std::fs::read_to_string(&path).expect("reads")));
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join("src"), Path::new(""), &mut found);
    for name in CRATES {
        walk(&root().join("crates").join(name).join("src"), Path::new(name), &mut found);
    }
    assert!(found.len() > 200, "the sources are elsewhere");
    found
}

/// The code without comments and without what stands in `mod tests`.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// `name` belongs to a room if it is its file or lies in its folder.
fn is_in(path: &Path, room: &str) -> bool {
    path.starts_with(room) || path == Path::new(&format!("{room}.rs"))
}

fn assert_room_without(room: &str, names: &[&str]) {
    let mut files = 0;
    for (path, text) in sources() {
        if is_in(&path, room) {
            files += 1;
            let code = code(&text);
            for name in names {
                assert!(!code.contains(name), "{} names {name}: {room} may not", path.display());
            }
        }
    }
    assert!(files > 0, "there is no room {room}");
}

/// The names of the dependencies that a manifest has for all who build it: those of tests do not count.
fn dependencies(manifest: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(manifest).expect("reads");
    let section = text.split("\n[dependencies]\n").nth(1).unwrap_or_default();
    let section = section.split("\n[").next().unwrap_or_default();
    let lines = section.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.split_once(['.', ' ', '='])?.0.to_string())).collect()
}

/// Cargo refuses a circle, and a name that is not among the dependencies. So the layers are what the manifests say.
#[test]
fn each_crate_depends_on_the_layers_below_it_alone() {
    let below: [(&str, &[&str]); 9] = [
        ("crates/proto", &[]),
        ("crates/files", &["proto"]),
        ("crates/sandbox", &["proto"]),
        ("crates/engine", &["json", "proto", "sandbox", "wit"]),
        ("crates/json", &["proto"]),
        ("crates/wit", &["proto"]),
        ("crates/derive", &[]),
        (".", &["derive", "engine", "files", "proto", "sandbox"]),
        ("crates/cli", &["files", "json", "proto", "wasmpool", "wit"]),
    ];
    for (folder, expected) in below {
        let all = dependencies(&root().join(folder).join("Cargo.toml"));
        assert!(!all.is_empty(), "{folder} has no dependencies that could be read");
        let known = |name: &&String| CRATES.contains(&name.as_str()) || *name == "wasmpool";
        let mut own: Vec<_> = all.iter().filter(known).map(String::as_str).collect();
        own.sort_unstable();
        assert_eq!(own, expected, "{folder}");
        // An embedder gets no command line, and without an engine no runtime.
        let only_here = |names: &[&str], home: &str| {
            let found: Vec<_> = names.iter().filter(|name| all.iter().any(|one| one == *name)).collect();
            assert!(folder == home || found.is_empty(), "{folder} has {found:?}: only {home} may");
        };
        only_here(&["wasmtime", "wasmtime-wasi", "tokio", "rayon"], "crates/engine");
        // The command looks for the sections of a module into which it puts types.
        if folder != "crates/wit" {
            only_here(&["wasmparser"], "crates/engine");
        }
        only_here(&["clap", "indicatif", "tracing-subscriber", "toml"], "crates/cli");
    }
    let text = std::fs::read_to_string(root().join("Cargo.toml")).expect("reads");
    assert!(
        text.contains("\nengine = { workspace = true, optional = true }\n"),
        "the engine can be left out"
    );
}

#[test]
fn the_scheduler_knows_no_clock_no_thread_no_process_and_no_bytes() {
    let effects =
        ["std::io", "std::thread", "std::process", "Instant", "std::sync", "std::fs", "rustix", "bytes::"];
    let rooms = [
        "crate::host",
        "crate::pool",
        "crate::future",
        "proto::ring",
        "proto::message",
        "files::",
        "sandbox::",
    ];
    assert_room_without("scheduler", &[&effects[..], &rooms[..]].concat());
}

#[test]
fn a_future_knows_its_owner_and_not_the_host() {
    assert_room_without("future", &["crate::host", "crate::scheduler", "crate::pool"]);
}

#[test]
fn the_two_children_do_not_know_each_other() {
    assert_room_without("engine/compile", &["crate::worker"]);
    assert_room_without("engine/worker", &["crate::compile"]);
}

#[test]
fn the_host_knows_nothing_of_who_calls_it() {
    assert_room_without("host", &["crate::pool"]);
    // The reader of a worker's ring tells whoever listens.
    assert_room_without("host/link", &["host::core", "super::core"]);
}

#[test]
fn unsafe_stands_where_a_syscall_or_shared_memory_needs_it_each_with_its_argument() {
    let rooms = [
        "proto/ring",
        "fork",
        "sandbox",
        "files/own",
        "files/tests",
        "engine/compile",
        "engine/lib",
        "engine/worker/alarm",
        "engine/worker/component/lift",
        "engine/worker/component/lower",
        "engine/worker/faults",
        "engine/worker/loaded",
        "engine/worker/memories",
        "engine/worker/polling_page",
        "engine/worker/samples",
        "engine/worker/shares",
        "engine/worker/signals",
        "engine/worker/stop_signal",
        "engine/worker/watcher",
        "proto/role",
        "init",
        "proto/slice",
        "host/cpu",
        "cli/interrupt/cpu_time",
        "host/usage",
        "host/descriptors",
        "fuzzing/host_link/memory",
    ];
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            let is_unsafe =
                line.contains("unsafe {") || line.contains("unsafe impl") || line.contains("#[unsafe(");
            if !is_unsafe || line.trim_start().starts_with("//") {
                continue;
            }
            assert!(rooms.iter().any(|room| is_in(&path, room)), "{}:{}", path.display(), number + 1);
            let before: Vec<_> = text.lines().skip(number.saturating_sub(6)).take(7).collect();
            assert!(before.iter().any(|line| line.contains("SAFETY:")), "{}:{}", path.display(), number + 1);
        }
    }
}

/// A file that imports what it names shows every arrow, to readers and to tools.
#[test]
fn nothing_but_tests_imports_all_of_its_parent() {
    for (path, text) in sources() {
        let is_test =
            path.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs")));
        // The simulation is compiled for tests only.
        if !is_test && !is_in(&path, "scheduler/simulation") {
            assert!(!code(&text).contains("use super::*"), "{}", path.display());
        }
    }
}

/// Each `#[error("…")]` of the library shows a text through one of the types of text.rs. The command line
/// escapes its own errors where it writes them.
#[test]
fn no_error_of_the_library_names_a_text_raw() {
    let mut texts = 0;
    for (path, text) in sources().into_iter().filter(|(path, _)| !is_in(path, "cli")) {
        for variant in code(&text).split("#[error(").skip(1) {
            let (message, rest) = variant.split_once(")]").unwrap_or((variant, ""));
            assert!(!message.contains(".display()"), "{}: {message}", path.display());
            let body = rest.split("\n    }").next().unwrap_or_default();
            // A text that is known when the library is compiled is its own, and harmless.
            let is_text = |ty: &str| ["String", "PathBuf", "str>"].iter().any(|part| ty.contains(part));
            for field in body.lines().filter_map(|line| line.trim().strip_suffix(',')?.split_once(": ")) {
                let (name, ty) = field;
                if !is_text(ty) {
                    continue;
                }
                texts += 1;
                let raw = [format!("{{{name}}}"), format!("{{{name}:")];
                assert!(
                    !raw.iter().any(|raw| message.contains(raw)),
                    "{}: {name} in {message}",
                    path.display()
                );
            }
        }
    }
    assert!(texts > 30, "{texts} texts: the errors are written in another way");
}

/// A child that forked while another thread held such a lock would wait for ever. The command and the workers
/// do not fork, so their locks are free.
#[test]
fn a_lock_that_outlives_every_pool_is_of_one_process() {
    for (path, text) in sources() {
        if ["cli", "engine", "sandbox"].iter().any(|room| is_in(&path, room)) {
            continue;
        }
        for line in code(&text).lines().filter(|line| line.trim_start().contains("static ")) {
            let is_lock = ["Mutex<", "RwLock<", "Condvar"].iter().any(|lock| line.contains(lock));
            assert!(!is_lock || line.contains("PerProcess<"), "{}: {line}", path.display());
        }
    }
}

/// `LogFile::open` must not count as `File::open`.
fn has_word(code: &str, word: &str) -> bool {
    let is_whole =
        |at: usize| !word.starts_with(char::is_alphabetic) || !code[..at].ends_with(char::is_alphanumeric);
    code.match_indices(word).any(|(at, _)| is_whole(at))
}

/// The names by which a file is opened, found or changed by its path.
const BY_PATH: &[&str] = &[
    "fs::write",
    "fs::read",
    "fs::rename",
    "fs::copy",
    "fs::remove_",
    "fs::create_dir",
    "fs::hard_link",
    "fs::set_permissions",
    "fs::metadata",
    "fs::symlink_metadata",
    "fs::canonicalize",
    "fs::exists",
    "DirBuilder",
    "File::open",
    "File::create",
    "File::options",
    "OpenOptions",
    "symlink(",
    "tempfile",
    "WalkBuilder",
    ".exists()",
    ".try_exists()",
    ".is_file()",
    ".is_dir()",
    ".canonicalize()",
    ".read_dir()",
    ".read_link()",
    ".metadata_at(",
    "rustix::fs::open",
    "rustix::fs::openat",
    "rustix::fs::renameat",
    "rustix::fs::mkdir",
    "rustix::fs::unlink",
    "rustix::fs::link",
    "rustix::fs::symlink",
    "rustix::fs::stat(",
    "rustix::fs::statat",
    "rustix::fs::readlink",
    "rustix::fs::mknod",
    "CWD",
];

/// The rooms that may say such a name all the same. Each exception states its reason.
const BY_PATH_ALLOWED: &[(&str, &str)] = &[
    // A cgroup's directory is root's or delegated to this user, and only the kernel makes files in it.
    ("host/cgroup.rs", "fs::write"),
    ("host/cgroup.rs", "fs::read"),
    ("host/cgroup.rs", "fs::create_dir"),
    ("host/cgroup.rs", "fs::remove_"),
    // The doctor makes targets for attacks in a directory of its own, which it opens to all when it is
    // done.
    ("host/doctor.rs", "fs::write"),
    ("host/doctor.rs", "fs::create_dir"),
    ("host/doctor.rs", "tempfile"),
    ("host/doctor.rs", "fs::set_permissions"),
    ("host/doctor.rs", "File::options"),
    // The host opens the worker's program, once and as a place.
    ("host/spawn.rs", "rustix::fs::open"),
    // The cache's own directory is held open, and belongs to this user alone.
    ("host/cache.rs", "rustix::fs::open"),
    ("host/cache.rs", "rustix::fs::openat"),
    ("host/cache/dir.rs", "rustix::fs::open"),
    ("host/cache/dir.rs", "rustix::fs::openat"),
    ("host/cache/room.rs", "rustix::fs::open"),
    ("host/cache/room.rs", "rustix::fs::openat"),
    // This looks for the folders of the tool-chain, and reads nothing in them.
    ("cli/doctor/machine.rs", ".is_dir()"),
];

/// Only `files` opens what the host names by a path, since it asks who may change what leads there.
#[test]
fn the_hosts_files_are_opened_by_one_door() {
    let mut used = vec![false; BY_PATH_ALLOWED.len()];
    for (path, text) in sources() {
        let is_hosts = ["cli", "host", "pool"].iter().any(|room| is_in(&path, room));
        // The children's files are sandboxed, so only the host's are checked.
        if !is_hosts || path.ends_with("tests.rs") {
            continue;
        }
        let code = code(&text);
        for name in BY_PATH.iter().filter(|name| has_word(&code, name)) {
            let at = BY_PATH_ALLOWED.iter().position(|(file, call)| path == Path::new(file) && call == name);
            let at = at.unwrap_or_else(|| panic!("{} has {name}: open it by crates/files", path.display()));
            used[at] = true;
        }
    }
    let unused: Vec<_> = BY_PATH_ALLOWED.iter().zip(used).filter(|(_, used)| !used).collect();
    assert!(unused.is_empty(), "exceptions that nothing needs: {unused:?}");
}

#[test]
fn the_readmes_programs_are_examples_that_ci_runs() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).expect("reads");
    let readme = read("README.md");
    let programs: Vec<_> =
        readme.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let examples = ["examples/quickstart.rs", "examples/policies.rs"];
    assert_eq!(programs.len(), examples.len());
    for (program, path) in programs.iter().zip(examples) {
        let example = read(path);
        let expected = example.split_once("\n\n").expect("a comment, then the program").1;
        assert_eq!(*program, expected, "README.md and {path} differ");
    }
}

/// The command and programs in other languages pass on what the library says of an error: it names limits and
/// settings, and no paths of Rust. Only the author of a program reads that `init` was not called.
#[test]
fn no_error_names_a_path_of_rust() {
    const OF_PROGRAMMERS: &[&str] = &[
        "was not called: make it",
        "is itself a wasmpool worker",
        "was built without wasmpool's feature",
        "is started by a pool: name it with",
    ];
    let mut found = Vec::new();
    for (path, text) in sources() {
        if path.starts_with("cli/new") || path.ends_with("tests.rs") {
            continue;
        }
        for text in strings(&code(&text)) {
            let is_path = |word: &str| {
                let parts: Vec<_> = word.split("::").collect();
                let is_name =
                    |part: &&str| part.chars().all(|c| c.is_alphanumeric() || "_{}`()'!,.;".contains(c));
                parts.len() > 1 && parts.iter().all(is_name) && !parts[0].is_empty()
            };
            // A target of events is one word by itself.
            let is_sentence = text.contains(' ');
            let is_known = OF_PROGRAMMERS.iter().any(|known| text.contains(known));
            if is_sentence && !is_known && text.split_whitespace().any(is_path) {
                found.push(format!("{}: {text}", path.display()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// The strings of a source, with their escapes as they are typed.
fn strings(code: &str) -> Vec<String> {
    let mut strings = Vec::new();
    let mut rest = code.chars().collect::<std::collections::VecDeque<_>>();
    while let Some(first) = rest.pop_front() {
        match (first, rest.front(), rest.get(1)) {
            // A character, which may be a quotation mark.
            ('\'', Some('\\'), Some(_)) => drop(rest.drain(..3.min(rest.len()))),
            ('\'', Some(_), Some('\'')) => drop(rest.drain(..2)),
            ('"', ..) => {
                let mut text = String::new();
                while let Some(next) = rest.pop_front().filter(|next| *next != '"') {
                    text.push(next);
                    text.extend((next == '\\').then(|| rest.pop_front()).flatten());
                }
                strings.push(text);
            }
            _ => {}
        }
    }
    strings
}

#[test]
fn strings_are_found_between_characters_that_look_like_their_ends() {
    let code = r#"('"', '\"', '\\', "a \" b", b'x', &'static str, "c")"#;
    assert_eq!(strings(code), ["a \\\" b", "c"]);
}
