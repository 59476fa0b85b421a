//! `wasmpool new`: the crate of a guest, which builds, passes its test and can be run.

use std::io;
use std::path::{Path, PathBuf};

use super::args::{GuestKind, NewArgs};
use super::console::{self, Console};
use super::doctor::machine;
use super::exit::{Exit, Failure};
use files::{HostFiles, OpenError};

/// The SDK of the repository that this command was built from.
const SDK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../guest-tasks/sdk");

const NAME_BYTES_MAX: usize = 64;

/// Debian's compiler, its library from source, and a linker that is as new.
const FALLBACK: &str = "\
export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
export {variable}_LINKER=$(rustup run stable rustc --print sysroot)/lib/rustlib/x86_64-unknown-linux-gnu/bin/rust-lld
/usr/bin/cargo build --release --target {target} -Zbuild-std=std,panic_abort";

/// A command begins at C's `_start`.
const FALLBACK_FLAGS: &str = "\
export {variable}_RUSTFLAGS=\"-C link-self-contained=no -L /usr/lib/wasm32-wasi \\
  -C link-arg=/usr/lib/wasm32-wasi/crt1-command.o\"\n";

/// The files that are made, by path; `{name}` and the like are filled in.
const TASK_FILES: [(&str, &str); 3] = [
    ("Cargo.toml", include_str!("new/task/Cargo.toml.in")),
    ("src/lib.rs", include_str!("new/task/lib.rs.in")),
    ("README.md", include_str!("new/README.md.in")),
];
const COMMAND_FILES: [(&str, &str); 3] = [
    ("Cargo.toml", include_str!("new/command/Cargo.toml.in")),
    ("src/main.rs", include_str!("new/command/main.rs.in")),
    ("README.md", include_str!("new/README.md.in")),
];

pub(super) fn new(args: &NewArgs, files: &HostFiles, console: &Console) -> Result<Exit, Failure> {
    let name = crate_name(&args.path)?;
    let guest = Guest { name: &name, kind: args.kind, sdk: sdk(args)? };
    let cannot =
        |error: OpenError| Failure::Internal(format!("cannot make {}: {error}", args.path.display()));
    match files.make_new_folder(&args.path) {
        Ok(_) => {}
        Err(OpenError::System(error)) if error.kind() == io::ErrorKind::AlreadyExists => {
            let path = args.path.display();
            return Err(Failure::Usage(format!(
                "{path} is there already: name another folder, or take it away"
            )));
        }
        Err(error) => return Err(cannot(error)),
    }
    let ignored = (".gitignore", "/target\n");
    for (path, text) in guest.files().into_iter().chain([ignored]) {
        let path = args.path.join(path);
        let folder = files.make_folder(path.parent().unwrap_or(&args.path), 0o777).map_err(cannot)?;
        let name = path.file_name().unwrap_or_default();
        folder.put(name, "new", guest.fill(text).as_bytes()).map_err(|error| cannot(error.into()))?;
    }
    console::print_line(&format!("made {}; next:", args.path.display()))?;
    console::print_line(&format!("  cd {}", args.path.display()))?;
    console::print_line("  cargo test")?;
    for line in guest.commands().lines() {
        console::print_line(&format!("  {line}"))?;
    }
    if !machine::has_target(guest.target()) {
        let target = guest.target();
        console.say(&format!(
            "warning: the target {target} is not installed: rustup target add {target}; \
             where rustup cannot, see \"Building\" in the crate's README.md"
        ));
    }
    Ok(Exit::Success)
}

struct Guest<'a> {
    name: &'a str,
    kind: GuestKind,
    /// A task's SDK.
    sdk: Option<PathBuf>,
}

impl Guest<'_> {
    fn files(&self) -> [(&'static str, &'static str); 3] {
        match self.kind {
            GuestKind::Task => TASK_FILES,
            GuestKind::Command => COMMAND_FILES,
        }
    }

    fn target(&self) -> &'static str {
        match self.kind {
            GuestKind::Task => "wasm32-unknown-unknown",
            GuestKind::Command => "wasm32-wasip1",
        }
    }

    /// Returns the commands that build it, and run it once and many times.
    fn commands(&self) -> String {
        let target = self.target();
        let build = format!("cargo build --release --target {target}");
        match self.kind {
            GuestKind::Task => {
                // The file of a library has underscores.
                let module = format!("target/{target}/release/{}.wasm", self.name.replace('-', "_"));
                format!(
                    "{build}\nwasmpool run {module} greet --input '\"Ann\"'\n\
                     printf 'Ann\\nBob\\n' | wasmpool map {module} greet --lines\n"
                )
            }
            GuestKind::Command => {
                let module = format!("target/{target}/release/{}.wasm", self.name);
                format!(
                    "{build}\nprintf 'one two\\n' | wasmpool run {module}\n\
                     printf 'one two\\nthree\\n' | wasmpool map {module} --lines\n"
                )
            }
        }
    }

    fn fill(&self, text: &str) -> String {
        // A string of JSON is one of TOML, too.
        let sdk =
            self.sdk.as_deref().map(|sdk| serde_json::Value::from(sdk.display().to_string()).to_string());
        let flags = if self.kind == GuestKind::Command { FALLBACK_FLAGS } else { "" };
        let variable = format!("CARGO_TARGET_{}", self.target().replace('-', "_").to_uppercase());
        text.replace("{name}", self.name)
            .replace("{fallback}", &format!("{flags}{FALLBACK}"))
            .replace("{variable}", &variable)
            .replace("{sdk}", &sdk.unwrap_or_default())
            .replace("{target}", self.target())
            .replace("{commands}", self.commands().trim_end())
    }
}

/// The last part of the path, if a crate may be called that.
fn crate_name(path: &Path) -> Result<String, Failure> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_fine = name.len() <= NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
    // These names are cargo's or Rust's own.
    let is_taken =
        ["test", "core", "std", "alloc", "self", "super", "crate", "build", "deps"].contains(&name);
    if !is_fine || is_taken {
        return Err(Failure::Usage(format!(
            "`{name}` is no name for a crate: lower-case letters, digits, - and _, beginning with a letter, such as \
             hello"
        )));
    }
    Ok(name.to_string())
}

/// Finds the SDK, if one is needed.
fn sdk(args: &NewArgs) -> Result<Option<PathBuf>, Failure> {
    if args.kind == GuestKind::Command {
        return Ok(None);
    }
    let sdk = args.sdk.clone().unwrap_or_else(|| SDK.into());
    match sdk.canonicalize() {
        Ok(found) if found.join("Cargo.toml").is_file() => Ok(Some(found)),
        _ => Err(Failure::Usage(format!(
            "the SDK is not at {}: name its folder (guest-tasks/sdk of wasmpool's repository) with --sdk, or make a \
             guest that needs none: --kind command",
            sdk.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_cargo_takes() {
        for name in ["hello", "a/b/hello-2", "x_y"] {
            assert!(crate_name(Path::new(name)).is_ok(), "{name}");
        }
        for name in ["", "..", "Hello", "2nd", "a b", "test", "a/ü"] {
            assert!(crate_name(Path::new(name)).is_err(), "{name}");
        }
    }

    #[test]
    fn nothing_is_left_to_be_filled_in() {
        for kind in [GuestKind::Task, GuestKind::Command] {
            let guest = Guest { name: "hello-you", kind, sdk: Some("/a \"b\"".into()) };
            for (path, text) in guest.files() {
                let text = guest.fill(text);
                for place in ["{name}", "{sdk}", "{target}", "{commands}", "{fallback}", "{variable}"] {
                    assert!(!text.contains(place), "{path}: {place}");
                }
                if path == "Cargo.toml" {
                    let table: toml::Table = text.parse().expect("TOML");
                    assert_eq!(table["package"]["name"].as_str(), Some("hello-you"));
                }
            }
        }
    }
}
