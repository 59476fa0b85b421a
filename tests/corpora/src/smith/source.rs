//! The generator's process, and what comes from it.

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// The build script of this package, which is the generator.
const GENERATOR: &str = concat!(env!("OUT_DIR"), "/generator");

/// The kinds of modules; see `generator/smith.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The generator gave up.
    Nothing,
    /// Generated; imports nothing.
    Plain,
    /// Generated; imports from what the pool provides.
    Hosted,
    /// Generated; imports anything, or needs features that the pool does not offer.
    Foreign,
    /// Generated, then damaged.
    Damaged,
    /// A file, mutated.
    Mutant,
    /// A file, mutated so that it still does the same.
    Equivalent,
}

impl Kind {
    const ALL: [Kind; 7] = [
        Kind::Nothing,
        Kind::Plain,
        Kind::Hosted,
        Kind::Foreign,
        Kind::Damaged,
        Kind::Mutant,
        Kind::Equivalent,
    ];
}

/// One module of the sequence.
#[derive(Debug, PartialEq, Eq)]
pub struct Specimen {
    /// Its place in the sequence.
    pub index: u64,
    /// The way in which it was made.
    pub kind: Kind,
    /// The index of the file that it comes from, if it is a mutant.
    pub file: usize,
    /// The module.
    pub wasm: Vec<u8>,
}

/// A sequence of modules that its seed names.
#[derive(Debug)]
pub struct Source {
    /// The seed.
    pub seed: u64,
    pub(crate) files: Vec<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    generator: Child,
    records: BufReader<ChildStdout>,
    next: u64,
    end: u64,
}

impl Source {
    /// Modules `first` to `first + count` of the sequence. `files` are mutated.
    ///
    /// # Errors
    /// If the generator cannot be started.
    pub fn start(seed: u64, first: u64, count: u64, files: Vec<PathBuf>) -> io::Result<Source> {
        let mut generator = Command::new(GENERATOR)
            .args([seed, first, count].map(|number| number.to_string()))
            .args(&files)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = generator.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?;
        let state = State { generator, records: BufReader::new(stdout), next: first, end: first + count };
        Ok(Source { seed, files, state: Mutex::new(state) })
    }

    /// The next module; `None` at the end.
    ///
    /// # Errors
    /// A generator that ends early, or does not speak the format.
    pub fn next(&self) -> io::Result<Option<Specimen>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.next == state.end {
            return Ok(None);
        }
        let mut head = [0; 9];
        state.records.read_exact(&mut head)?;
        let number = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| head[at + byte])) as usize;
        let kind = Kind::ALL.get(head[0] as usize).ok_or_else(|| io::Error::other("an unknown kind"))?;
        let mut wasm = vec![0; number(5)];
        state.records.read_exact(&mut wasm)?;
        let index = state.next;
        state.next += 1;
        Ok(Some(Specimen { index, kind: *kind, file: number(1), wasm }))
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        // The generator may be gone already; either way it is waited for.
        let _ = state.generator.kill();
        let _ = state.generator.wait();
    }
}

/// The modules that are mutated: those of the repository.
///
/// # Errors
/// If the folder cannot be read.
pub fn prebuilt() -> io::Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest-tasks/prebuilt");
    let mut files: Vec<_> = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "wasm"));
    files.sort();
    Ok(files)
}
