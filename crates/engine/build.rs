//! Links the programs of this package without shared libraries, where this system has the C library as an archive. Each
//! worker is such a program, and to find, map and link three libraries was a sixth of its start; benches/README.md has
//! the figures. Addresses stay random, since the programs are still position-independent.
//!
//! rustc's own way, `-C target-feature=+crt-static`, is for all crates or for none, and procedural macros cannot have it.
//! So the linker is given, for the names of the libraries, scripts that lead to the archives.
//!
//! `WASMPOOL_SHARED_LIBC=1` leaves the libraries shared. So does everything that says otherwise in the flags of rustc.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Since this version glibc's libraries of threads, timers and loading are parts of libc itself.
const WHOLE_SINCE: (u32, u32) = (2, 34);

/// glibc unpacks relocations since this version; an older one would leave them as they are.
const UNPACKS_SINCE: (u32, u32) = (2, 36);

/// The shared libraries that rustc names, and the archives in their place.
const ARCHIVES: [(&str, &[&str]); 3] = [
    ("libgcc_s.so", &["libgcc_eh.a", "libgcc.a"]),
    ("libm.so", &["libm.a"]),
    ("libc.so", &["libc.a", "libgcc_eh.a", "libgcc.a"]),
];

/// Functions that std takes if they are there, and an archive gives only what is asked of it. Without them std calls the
/// kernel itself, as the children's filter does not expect (glibc answers a `statx` that is refused by `newfstatat`), or
/// forks in place of `posix_spawn`. They are older than `WHOLE_SINCE`.
const IF_THERE: [&str; 4] =
    ["statx", "getrandom", "__cxa_thread_atexit_impl", "posix_spawn_file_actions_addchdir_np"];

/// Flags of rustc that decide about libraries, or that bring libraries of their own.
const OTHERS: [&str; 5] =
    ["crt-static", "prefer-dynamic", "sanitizer", "instrument-coverage", "profile-generate"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=WASMPOOL_SHARED_LIBC");
    if variable("HOST") != variable("TARGET") {
        return;
    }
    let version = glibc();
    let flags = variable("CARGO_ENCODED_RUSTFLAGS");
    let is_free =
        variable("WASMPOOL_SHARED_LIBC").is_empty() && !OTHERS.iter().any(|flag| flags.contains(flag));
    match is_free && version >= Some(WHOLE_SINCE) {
        true if let Some(folder) = scripts(Path::new(&variable("OUT_DIR"))) => {
            println!("cargo::rustc-link-arg-bins=-L{}", folder.display());
            println!("cargo::rustc-env=WASMPOOL_LIBRARIES=none");
            println!("cargo::rustc-link-arg-bins=-static-pie");
            for name in IF_THERE {
                println!("cargo::rustc-link-arg-bins=-Wl,-u,{name}");
            }
        }
        // Each start applies 30,000 relocations.
        _ if version >= Some(UNPACKS_SINCE) => {
            println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
        }
        _ => {}
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// Writes the linker's scripts. `None` if an archive is missing.
fn scripts(folder: &Path) -> Option<PathBuf> {
    let folder = folder.join("archives");
    std::fs::create_dir_all(&folder).ok()?;
    for (library, archives) in ARCHIVES {
        let found: Option<Vec<_>> = archives.iter().map(|name| archive(name)).collect();
        std::fs::write(folder.join(library), format!("GROUP ( {} )\n", found?.join(" "))).ok()?;
    }
    Some(folder)
}

/// Returns where the compiler of C, by which rustc links, has an archive.
fn archive(name: &str) -> Option<String> {
    let linker = Some(variable("RUSTC_LINKER")).filter(|linker| !linker.is_empty());
    let asked =
        Command::new(linker.as_deref().unwrap_or("cc")).arg(format!("-print-file-name={name}")).output();
    let path = String::from_utf8(asked.ok()?.stdout).ok()?.trim().to_string();
    // One that is not found is answered with its name. A script of the linker's cannot tell a space in a path.
    (Path::new(&path).is_absolute() && Path::new(&path).is_file() && !path.contains(char::is_whitespace))
        .then_some(path)
}

/// Returns the version of the C library that this script runs with, which is the programs', too; `None` if it is
/// another library.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn glibc() -> Option<(u32, u32)> {
    use std::ffi::{CStr, c_char};

    unsafe extern "C" {
        fn gnu_get_libc_version() -> *const c_char;
    }
    // SAFETY: it takes nothing, and returns a text that lives as long as the process.
    let version = unsafe { CStr::from_ptr(gnu_get_libc_version()) };
    let mut numbers = version.to_str().ok()?.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn glibc() -> Option<(u32, u32)> {
    None
}
