//! Computes the build's fingerprint, by which host, workers and cached machine code know each other.

use std::path::Path;

#[path = "src/fingerprint/sources.rs"]
mod sources;

fn main() -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    println!("cargo:rerun-if-changed=build.rs");
    for folder in sources::folders(root) {
        for path in ["Cargo.toml", "src"] {
            println!("cargo:rerun-if-changed={}", folder.join(path).display());
        }
    }
    let hash = sources::fingerprint(root, env!("CARGO_PKG_VERSION"))?;
    println!("cargo:rustc-env=WASMPOOL_BUILD={hash}");
    Ok(())
}
