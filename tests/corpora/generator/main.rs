//! Two programs in one. As this package's build script it copies itself to where the package finds it;
//! started with arguments, it is the generator of modules:
//!
//! `generator SEED FIRST COUNT FILE…` writes modules FIRST, FIRST + 1, … of the sequence that SEED names
//! to stdout; the files are modules to be mutated. A record is one byte for the [`Kind`], a
//! little-endian `u32` for the number of the file, one for the length, and the module.
//!
//! Why a build script: wasm-smith and wasm-mutate ask for features of `arbitrary` and `rand` that cranelift
//! and wasmtime do not, and as ordinary dependencies would have them built anew. Cargo keeps the features
//! of build scripts apart.

mod random;
mod smith;

use std::io::{self, BufWriter, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use random::Random;
use smith::{Kind, generate};

fn main() -> io::Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    if let [seed, first, count, files @ ..] = &args[..] {
        let number = |text: &String| text.parse::<u64>().map_err(io::Error::other);
        let files = files.iter().map(std::fs::read).collect::<io::Result<Vec<_>>>()?;
        return write_modules(number(seed)?, number(first)?, number(count)?, &files);
    }
    println!("cargo::rerun-if-changed=generator");
    let folder = std::env::var("OUT_DIR").map_err(io::Error::other)?;
    // Moved into place: an older one may be running.
    let new = Path::new(&folder).join("new");
    let place = Path::new(&folder).join("generator");
    std::fs::copy(std::env::current_exe()?, &new)?;
    std::fs::rename(new, place)
}

fn write_modules(seed: u64, first: u64, count: u64, files: &[Vec<u8>]) -> io::Result<()> {
    // A generator's panic is its own bug, and says nothing of a pool.
    std::panic::set_hook(Box::new(|_| {}));
    let mut out = BufWriter::new(io::stdout().lock());
    for index in first..first + count {
        let mut random = Random::new(seed, index);
        let generated = catch_unwind(AssertUnwindSafe(|| generate(&mut random, files))).ok().flatten();
        let (kind, file, wasm) = generated.unwrap_or((Kind::Nothing, 0, Vec::new()));
        out.write_all(&[kind as u8])?;
        out.write_all(&(file as u32).to_le_bytes())?;
        out.write_all(&(wasm.len() as u32).to_le_bytes())?;
        out.write_all(&wasm)?;
        out.flush()?;
    }
    Ok(())
}
