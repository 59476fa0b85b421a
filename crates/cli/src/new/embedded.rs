//! The files of new guests: those that stand in the repository under guest-tasks, as they are.

use super::super::args::GuestLang;

/// A path in the new folder, and what is written there.
pub(super) type File = (&'static str, &'static str);

/// Files of one SDK, under their own names.
macro_rules! sdk {
    ($sdk:literal: $($path:literal),+ $(,)?) => {
        &[$(($path, include_str!(concat!("../../sdks/", $sdk, "/", $path)))),+]
    };
}

/// Files of the SDK for Rust, as the crate `wasmpool-guest` inside of the new one.
macro_rules! rust_sdk {
    ($into:literal, $from:literal: $($path:literal),+ $(,)?) => {
        [$((concat!("wasmpool-guest/", $into, "src/", $path), include_str!(concat!("../../rust-sdk/", $from, "/", $path)))),+]
    };
}

pub(super) const RUST_TASK: [File; 3] = [
    ("Cargo.toml", include_str!("task/Cargo.toml.in")),
    ("src/lib.rs", include_str!("task/lib.rs.in")),
    ("README.md", include_str!("README.md.in")),
];
pub(super) const RUST_COMMAND: [File; 3] = [
    ("Cargo.toml", include_str!("command/Cargo.toml.in")),
    ("src/main.rs", include_str!("command/main.rs.in")),
    ("README.md", include_str!("README.md.in")),
];

const SDK_SOURCES: [File; 11] = rust_sdk!("", "sdk":
    "allocator.rs", "answer.rs", "console.rs", "host.rs", "lib.rs", "logging.rs", "memory.rs", "own_error.rs", "record.rs", "shared.rs",
    "spans.rs",
);
const MACROS_SOURCES: [File; 3] = rust_sdk!("macros/", "macros": "case.rs", "lib.rs", "shape.rs");

/// Returns the files of the SDK for Rust. Its tests stay where they are, and so do the lints of the workspace there.
pub(super) fn rust_sdk() -> Vec<(&'static str, String)> {
    let before =
        |text: &str, end: &str| text.split(end).next().unwrap_or_default().trim_end().to_string() + "\n";
    let sdk = before(include_str!("../../rust-sdk/sdk.toml"), "[dev-dependencies]");
    let manifests = [
        ("wasmpool-guest/Cargo.toml", sdk.replace("\"../sdk-macros\"", "\"macros\"")),
        ("wasmpool-guest/macros/Cargo.toml", before(include_str!("../../rust-sdk/macros.toml"), "[lints]")),
    ];
    let sources = SDK_SOURCES.into_iter().chain(MACROS_SOURCES);
    manifests.into_iter().chain(sources.map(|(path, text)| (path, text.to_string()))).collect()
}

const CASES: File = ("cases.toml", include_str!("../../sdks/cases.toml"));
const TYPES: File = ("types.wit", include_str!("../../sdks/types.wit"));
const WORLD: File = ("wit/world.wit", include_str!("../../sdks/world.wit"));
const GUEST_WORLD: File = ("wit/deps/wasmpool-guest.wit", include_str!("../../sdks/wasmpool-guest.wit"));

/// Returns the files of a guest in another language, and what its folder has that is no source.
pub(super) fn other(lang: GuestLang) -> (&'static [File], &'static [File], &'static str) {
    match lang {
        // Rust is none of them.
        GuestLang::Rust => (&[], &[], "/target\n"),
        GuestLang::C => {
            (sdk!("c": "README.md", "tasks.c", "test.c", "wasmpool.h"), &[CASES], "/tasks.wasm\n/test\n")
        }
        GuestLang::Zig => (
            sdk!("zig": "README.md", "tasks.zig", "wasmpool.zig"),
            &[CASES],
            "/tasks.wasm\n/tasks.wasm.o\n/.zig-cache\n/zig-out\n",
        ),
        GuestLang::Go => (
            sdk!("go": "README.md", "go.mod", "tasks.go", "tasks_test.go", "wasmpool/host_native.go",
                "wasmpool/host_wasm.go", "wasmpool/trap_wasm.s", "wasmpool/wasmpool.go"),
            &[CASES, TYPES],
            "/tasks.wasm\n",
        ),
        GuestLang::As => (
            sdk!("assemblyscript": "README.md", "asconfig.json", "assembly/tasks.ts", "assembly/wasmpool.ts",
                "package.json", "tests/tasks.test.mjs"),
            &[CASES, TYPES],
            "/node_modules\n/tasks.wasm\n",
        ),
        GuestLang::Js => (
            sdk!("javascript": "README.md", "package.json", "tasks.js", "tasks.test.js", "wasmpool.js"),
            &[CASES, WORLD, GUEST_WORLD],
            "/node_modules\n/tasks.wasm\n",
        ),
        GuestLang::Python => (
            sdk!("python": "README.md", "tasks.py", "test_tasks.py"),
            &[CASES, WORLD, GUEST_WORLD],
            "/bindings\n/tasks.wasm\n__pycache__\n",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// The names of the files in a folder of this package, where it is there.
    fn names(folder: &str) -> BTreeSet<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
        entries
            .filter(|entry| entry.path().is_file())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn every_source_of_an_sdk_is_written() {
        for (folder, sources) in
            [("rust-sdk/sdk", &SDK_SOURCES[..]), ("rust-sdk/macros", &MACROS_SOURCES[..])]
        {
            let written: BTreeSet<String> = sources
                .iter()
                .map(|(path, _)| path.rsplit('/').next().unwrap_or_default().to_string())
                .collect();
            assert_eq!(written, names(folder));
        }
        let langs = [
            (GuestLang::C, "c"),
            (GuestLang::Zig, "zig"),
            (GuestLang::Go, "go"),
            (GuestLang::As, "assemblyscript"),
            (GuestLang::Js, "javascript"),
            (GuestLang::Python, "python"),
        ];
        for (lang, folder) in langs {
            let (sources, shared, ignored) = other(lang);
            let written: BTreeSet<String> = sources
                .iter()
                .filter(|(path, _)| !path.contains('/'))
                .map(|(path, _)| path.to_string())
                .collect();
            let missing: Vec<_> = names(&format!("sdks/{folder}"))
                .difference(&written)
                .filter(|name| !ignored.contains(name.as_str()) && !name.contains("lock"))
                .cloned()
                .collect();
            assert_eq!(missing, [""; 0], "{folder}");
            assert!(shared.iter().any(|(path, _)| *path == "cases.toml"), "{folder}");
        }
    }

    #[test]
    fn the_sdk_for_rust_leans_on_no_workspace() {
        for (path, text) in rust_sdk() {
            if path.ends_with("Cargo.toml") {
                assert!(!text.contains("workspace = true"), "{path}: {text}");
                let table: toml::Table = text.parse().expect("TOML");
                assert_eq!(table["package"]["version"].as_str(), Some(super::super::SDK_VERSION), "{path}");
            }
        }
    }
}
