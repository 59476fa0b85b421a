//! The generator's process, and what comes from it.

use std::io::{self, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// The build script of this package, which is the generator.
const GENERATOR: &str = concat!(env!("OUT_DIR"), "/generator");

/// What a module is; see `generator/smith.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Nothing,
    Plain,
    Hosted,
    Foreign,
    Damaged,
    Mutant,
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
#[derive(Debug)]
pub(crate) struct Specimen {
    /// Its place in the sequence.
    pub(crate) index: u64,
    pub(crate) kind: Kind,
    /// Which of the files it comes from, if it is a mutant.
    pub(crate) file: usize,
    pub(crate) wasm: Vec<u8>,
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
    pub(crate) fn next(&self) -> io::Result<Option<Specimen>> {
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
        // It may be gone already; either way it is waited for.
        let _ = state.generator.kill();
        let _ = state.generator.wait();
    }
}
