//! `wasmpool new`: the folder of a guest, which builds, passes its test and can be run.
//!
//! It holds the SDK of its language, so that it builds wherever it is put, and needs nothing of this repository's.

mod embedded;

use std::borrow::Cow;
use std::io;
use std::path::Path;

use super::args::{GuestKind, GuestLang, NewArgs};
use super::console::{self, Console};
use super::doctor::machine;
use super::exit::{Exit, Failure};
use files::{HostFiles, OpenError};

/// The version of the SDK for Rust that is written into a new crate.
const SDK_VERSION: &str = "0.1.0";

const TARGET: &str = "wasm32-wasip1";

const NAME_BYTES_MAX: usize = 64;

/// Debian's compiler, its library from source, and a linker that is as new.
const FALLBACK: &str = "\
export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
export {variable}_LINKER=$(rustup run stable rustc --print sysroot)/lib/rustlib/x86_64-unknown-linux-gnu/bin/rust-lld
export {variable}_RUSTFLAGS=\"-C link-self-contained=no -L /usr/lib/wasm32-wasi{flags}\"
/usr/bin/cargo build --release --target {target} -Zbuild-std=std,panic_abort";

/// A command begins at C's `_start`.
const COMMAND_FLAGS: &str = " \\
  -C link-arg=/usr/lib/wasm32-wasi/crt1-command.o";

pub(super) fn new(args: &NewArgs, files: &HostFiles, console: &Console) -> Result<Exit, Failure> {
    let guest = Guest { name: &guest_name(&args.path)?, lang: args.lang, kind: args.kind };
    if guest.lang != GuestLang::Rust && guest.kind == GuestKind::Command {
        return Err(Failure::Usage(
            "a command in another language than Rust needs nothing of wasmpool's: every program that its compiler makes \
             for WASI runs as it is"
                .into(),
        ));
    }
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
    for (path, text) in guest.files() {
        let path = args.path.join(path);
        let folder = files.make_folder(path.parent().unwrap_or(&args.path), 0o777).map_err(cannot)?;
        let name = path.file_name().unwrap_or_default();
        folder.put(name, "new", text.as_bytes()).map_err(|error| cannot(error.into()))?;
    }
    console::print_line(&format!("made {}; next:", args.path.display()))?;
    console::print_line(&format!("  cd {}", args.path.display()))?;
    for line in guest.commands().lines() {
        console::print_line(&format!("  {line}"))?;
    }
    if guest.lang == GuestLang::Rust && !machine::has_target(TARGET) {
        console.say(&format!(
            "warning: the target {TARGET} is not installed: rustup target add {TARGET}; where rustup cannot, see \
             \"Building\" in the crate's README.md"
        ));
    }
    Ok(Exit::Success)
}

struct Guest<'a> {
    name: &'a str,
    lang: GuestLang,
    kind: GuestKind,
}

impl Guest<'_> {
    fn files(&self) -> Vec<(&'static str, Cow<'static, str>)> {
        let (sources, shared, ignored) = embedded::other(self.lang);
        let mut files = vec![(".gitignore", ignored.into())];
        files.extend(sources.iter().chain(shared).map(|(path, text)| (*path, Cow::from(*text))));
        if self.lang == GuestLang::Rust {
            let (crate_files, sdk) = match self.kind {
                GuestKind::Task => (embedded::RUST_TASK, embedded::rust_sdk()),
                GuestKind::Command => (embedded::RUST_COMMAND, Vec::new()),
            };
            files.extend(crate_files.map(|(path, text)| (path, self.fill(text).into())));
            files.extend(sdk.into_iter().map(|(path, text)| (path, text.into())));
        }
        files
    }

    /// Returns the commands that test it, build it, and run it once and many times.
    fn commands(&self) -> String {
        if self.lang != GuestLang::Rust {
            let (sources, ..) = embedded::other(self.lang);
            let readme = sources.iter().find(|(path, _)| *path == "README.md").map_or("", |(_, text)| text);
            return first_block(readme).into();
        }
        let build = format!("cargo test\ncargo build --release --target {TARGET}");
        match self.kind {
            GuestKind::Task => {
                // The file of a library has underscores.
                let module = format!("target/{TARGET}/release/{}.wasm", self.name.replace('-', "_"));
                format!(
                    "{build}\nwasmpool run {module} greet --input '\"Ann\"'\n\
                     printf 'Ann\\nBob\\n' | wasmpool map {module} greet --lines\n"
                )
            }
            GuestKind::Command => {
                let module = format!("target/{TARGET}/release/{}.wasm", self.name);
                format!(
                    "{build}\nprintf 'one two\\n' | wasmpool run {module}\n\
                     printf 'one two\\nthree\\n' | wasmpool map {module} --lines\n"
                )
            }
        }
    }

    fn fill(&self, text: &str) -> String {
        let flags = if self.kind == GuestKind::Command { COMMAND_FLAGS } else { "" };
        let variable = format!("CARGO_TARGET_{}", TARGET.replace('-', "_").to_uppercase());
        text.replace("{name}", self.name)
            .replace("{fallback}", FALLBACK)
            .replace("{flags}", flags)
            .replace("{variable}", &variable)
            .replace("{sdk-version}", SDK_VERSION)
            .replace("{target}", TARGET)
            .replace("{commands}", self.commands().trim_end())
    }
}

/// The first commands of a page.
fn first_block(page: &str) -> &str {
    let block = page.split_once("```sh\n").map_or("", |(_, rest)| rest);
    block.split_once("```").map_or("", |(block, _)| block)
}

/// The last part of the path, if a crate, a package or a folder may be called that.
fn guest_name(path: &Path) -> Result<String, Failure> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_fine = name.len() <= NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
    // These names are cargo's or Rust's own.
    let is_taken =
        ["test", "core", "std", "alloc", "self", "super", "crate", "build", "deps"].contains(&name);
    if !is_fine || is_taken {
        return Err(Failure::Usage(format!(
            "`{name}` is no name for a guest: lower-case letters, digits, - and _, beginning with a letter, such as \
             hello"
        )));
    }
    Ok(name.to_string())
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn a_name_is_what_cargo_takes() {
        for name in ["hello", "a/b/hello-2", "x_y"] {
            assert!(guest_name(Path::new(name)).is_ok(), "{name}");
        }
        for name in ["", "..", "Hello", "2nd", "a b", "test", "a/ü"] {
            assert!(guest_name(Path::new(name)).is_err(), "{name}");
        }
    }

    #[test]
    fn nothing_is_left_to_be_filled_in() {
        for kind in [GuestKind::Task, GuestKind::Command] {
            let guest = Guest { name: "hello-you", lang: GuestLang::Rust, kind };
            for (path, text) in guest.files() {
                if path.starts_with("wasmpool-guest") {
                    continue;
                }
                for place in [
                    "{name}",
                    "{sdk-version}",
                    "{target}",
                    "{commands}",
                    "{fallback}",
                    "{variable}",
                    "{flags}",
                ] {
                    assert!(!text.contains(place), "{path}: {place}");
                }
                if path == "Cargo.toml" {
                    let table: toml::Table = text.parse().expect("TOML");
                    assert_eq!(table["package"]["name"].as_str(), Some("hello-you"));
                }
            }
        }
    }

    #[test]
    fn every_language_has_commands_that_build_and_run_it() {
        for lang in GuestLang::value_variants() {
            let guest = Guest { name: "hello", lang: *lang, kind: GuestKind::Task };
            let commands = guest.commands();
            assert!(commands.contains("wasmpool run "), "{lang:?}: {commands}");
            assert!(commands.contains("test"), "{lang:?}: {commands}");
            let files = guest.files();
            assert!(
                files.iter().any(|(path, text)| *path == "README.md" && text.contains(&commands)),
                "{lang:?}"
            );
            let here = env!("CARGO_MANIFEST_DIR");
            assert!(files.iter().all(|(_, text)| !text.contains(here) && !text.is_empty()), "{lang:?}");
        }
    }
}
