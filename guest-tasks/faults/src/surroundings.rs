//! Tasks that ask for what they were not given, or say what they were.

use std::collections::HashMap;
use std::fmt::Display;
use std::io::Read;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn text(error: impl Display) -> String {
    error.to_string()
}

/// Looks for arguments, variables, input, files and a network, and returns what it finds.
#[wasmpool_guest::task]
fn look_around() -> Vec<String> {
    let mut found: Vec<String> = std::env::args().map(|arg| format!("argument {arg}")).collect();
    found.extend(std::env::vars().map(|(name, value)| format!("variable {name}={value}")));
    let mut input = Vec::new();
    if std::io::stdin().read_to_end(&mut input).is_ok_and(|bytes| bytes > 0) {
        found.push(format!("input of {} bytes", input.len()));
    }
    for path in ["/", ".", "..", "/etc", "/proc/self", "/tmp"] {
        if let Ok(entries) = std::fs::read_dir(path) {
            found.push(format!("{path} with {} entries", entries.count()));
        }
    }
    for path in ["/etc/passwd", "/proc/self/maps", "/dev/null", "Cargo.toml"] {
        if std::fs::File::open(path).is_ok() {
            found.push(format!("file {path}"));
        }
    }
    if std::fs::write("/tmp/here", "I was").is_ok() {
        found.push("a place to write to".into());
    }
    if std::net::TcpStream::connect("127.0.0.1:1").is_ok_and(|_| true) {
        found.push("a network".into());
    }
    found
}

/// Puts so many numbers into a `HashMap` and returns them in its order.
#[wasmpool_guest::task]
fn hash_order(count: u32) -> Vec<u32> {
    let map: HashMap<u32, ()> = (0..count).map(|number| (number, ())).collect();
    map.into_keys().collect()
}

/// Sleeps, and returns nanoseconds: the wall clock before and after, and what the monotonic one says.
#[wasmpool_guest::task]
fn clocks(sleep_ms: u64) -> Result<Vec<u64>, String> {
    let wall = || SystemTime::now().duration_since(UNIX_EPOCH).map(|time| time.as_nanos() as u64);
    let (before, began) = (wall().map_err(text)?, Instant::now());
    std::thread::sleep(Duration::from_millis(sleep_ms));
    let passed = began.elapsed().as_nanos() as u64;
    Ok(vec![before, wall().map_err(text)?, passed])
}

/// Returns a file's bytes.
#[wasmpool_guest::task]
fn read_file(path: String) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(text)
}

/// Makes or replaces a file.
#[wasmpool_guest::task]
fn write_file(path: String, content: Vec<u8>) -> Result<(), String> {
    std::fs::write(path, content).map_err(text)
}

/// Does one thing to a path: `mkdir`, `remove`, `rmdir`, `rename`, `link`, `append`, `truncate`.
#[wasmpool_guest::task]
fn change_file(what: String, path: String, other: String) -> Result<(), String> {
    match &*what {
        "mkdir" => std::fs::create_dir(path),
        "remove" => std::fs::remove_file(path),
        "rmdir" => std::fs::remove_dir(path),
        "rename" => std::fs::rename(path, other),
        "link" => std::fs::hard_link(path, other),
        "append" => std::fs::File::options().append(true).open(path).map(|_| ()),
        "truncate" => std::fs::File::options().write(true).open(path).and_then(|file| file.set_len(0)),
        _ => return Err(format!("{what} is nothing that this task does")),
    }
    .map_err(text)
}

/// Names what a directory holds, sorted.
#[wasmpool_guest::task]
fn list_dir(path: String) -> Result<Vec<String>, String> {
    let entries = std::fs::read_dir(path).map_err(text)?;
    let mut names: Vec<String> = entries
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_, _>>()
        .map_err(text)?;
    names.sort();
    Ok(names)
}
