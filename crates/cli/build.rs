//! Has the linker pack the command's relocations, where the C library of this system can unpack them: each worker is
//! this program, and starts by applying 30,000 of them. benches/README.md has the figures.

/// glibc unpacks them since this version; an older one would leave them as they are.
const UNPACKS_SINCE: (u32, u32) = (2, 36);

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is_native = std::env::var("HOST") == std::env::var("TARGET");
    if is_native && glibc() >= Some(UNPACKS_SINCE) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Returns the version of the C library that this script runs with, which is the command's, too; `None` if it is
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
