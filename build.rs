//! Computes the build's fingerprint, by which host, workers and cached machine code know each other.

use std::path::Path;

#[path = "src/wire/fingerprint/sources.rs"]
mod sources;

fn main() -> std::io::Result<()> {
    for path in ["build.rs", "Cargo.toml", "src"] {
        println!("cargo:rerun-if-changed={path}");
    }
    let hash = sources::fingerprint(Path::new(env!("CARGO_MANIFEST_DIR")), env!("CARGO_PKG_VERSION"))?;
    println!("cargo:rustc-env=WASMPOOL_BUILD={hash}");
    Ok(())
}
