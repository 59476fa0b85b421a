//! Sets the fingerprint of the included sources: host and worker of a fuzz target are always of the same
//! build.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-env=WASMPOOL_BUILD=1");
}
