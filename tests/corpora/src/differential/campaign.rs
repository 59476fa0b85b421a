//! Compares one generated module after the other, and counts what comes of them.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use proto::description::MemoryKind;

use super::trial::{Outcome, Skipped, Trial, Validity};
use crate::random::Random;
use crate::smith::{Kind, Source};

/// A module with safepoints that takes so long does not end, though it did without.
const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes that memories and tables of an instance may have.
const BYTES_MAX: u64 = 32 << 20;

/// Each module is damaged so often.
const DAMAGES: u32 = 4;

/// The settings of a campaign.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder that keeps modules that do something else with safepoints.
    pub keep: PathBuf,
}

/// What came of a campaign.
#[derive(Debug, Default)]
pub struct Summary {
    modules: BTreeMap<String, u64>,
    skipped: BTreeMap<(Kind, Skipped), u64>,
    seen: BTreeMap<String, u64>,
    /// What differed in the bits of NaNs or in the depth of the stack alone.
    pub explained: Vec<String>,
    /// What differed: where the module is kept, and how.
    pub different: Vec<String>,
    elapsed: Duration,
}

/// A campaign in progress.
#[derive(Debug)]
pub struct Campaign<'a> {
    source: &'a Source,
    settings: &'a Settings,
    /// The module at hand, and since when.
    at_hand: Mutex<Option<(u64, Vec<u8>, Instant)>>,
    summary: Summary,
}

impl Campaign<'_> {
    /// Compares all modules of a source. `done` is told of each.
    ///
    /// # Errors
    /// Engines that cannot be made, or a generator that fails; not what modules do.
    pub fn run(
        source: &Source,
        settings: &Settings,
        done: impl FnMut(),
    ) -> Result<Summary, Box<dyn std::error::Error>> {
        let began = Instant::now();
        let at_hand = Mutex::new(None);
        let mut campaign = Campaign { source, settings, at_hand, summary: Summary::default() };
        campaign.all(done)?;
        campaign.summary.elapsed = began.elapsed();
        Ok(campaign.summary)
    }

    fn all(&mut self, mut done: impl FnMut()) -> Result<(), Box<dyn std::error::Error>> {
        let mut trial = Trial::new()?;
        let (source, settings) = (self.source, self.settings);
        let at_hand = std::mem::take(&mut self.at_hand);
        let (ended, end) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let end = end;
                while end.recv_timeout(Duration::from_secs(1))
                    == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
                {
                    watch(&at_hand, source, settings);
                }
            });
            let _ended = ended;
            while let Some(specimen) = source.next()? {
                let mut random = Random::new(!source.seed, specimen.index);
                let memories = MemoryKind::ALL[random.below(2) as usize];
                *lock(&at_hand) = Some((specimen.index, specimen.wasm.clone(), Instant::now()));
                let outcome = trial.compare(&specimen.wasm, memories, random.number(), BYTES_MAX)?;
                self.count(specimen.index, specimen.kind, memories, &specimen.wasm, outcome);
                for _ in 0..DAMAGES {
                    let wasm = damaged(&specimen.wasm, &mut random);
                    let validity = trial.check_validity(&wasm)?;
                    self.count_damaged(specimen.index, &wasm, validity);
                }
                *lock(&at_hand) = None;
                done();
            }
            Ok(())
        })
    }

    fn count_damaged(&mut self, index: u64, wasm: &[u8], validity: Validity) {
        let name = match validity {
            Validity::Valid => "damaged modules that are valid",
            Validity::Invalid => "damaged modules that are not valid",
            Validity::Hidden(what) => {
                let place = keep(&self.settings.keep, &format!("damaged-{}-{index}", self.source.seed), wasm);
                let what = format!("module {index} of seed {}, damaged ({place}): {what}", self.source.seed);
                eprintln!("{what}");
                self.summary.different.push(what);
                "damaged modules that are accepted with safepoints"
            }
        };
        *self.summary.seen.entry(name.into()).or_default() += 1;
    }

    fn count(&mut self, index: u64, kind: Kind, memories: MemoryKind, wasm: &[u8], outcome: Outcome) {
        let name = match &outcome {
            Outcome::Skipped(skipped) => {
                *self.summary.skipped.entry((kind, *skipped)).or_default() += 1;
                "skipped".to_string()
            }
            Outcome::Same(_) => format!("the same, {memories:?}"),
            Outcome::Explained(..) => format!("the same at the second look, {memories:?}"),
            Outcome::Different(_) => format!("different, {memories:?}"),
        };
        *self.summary.modules.entry(name).or_default() += 1;
        match outcome {
            Outcome::Skipped(_) => {}
            Outcome::Same(seen) => self.summary.see(seen),
            Outcome::Explained(seen, what) => {
                self.summary.see(seen);
                let place =
                    keep(&self.settings.keep, &format!("explained-{}-{index}", self.source.seed), wasm);
                self.summary.explained.push(format!("module {index} ({place}), {memories:?}: {what}"));
            }
            Outcome::Different(what) => {
                let place = keep(&self.settings.keep, &format!("{}-{index}", self.source.seed), wasm);
                let what =
                    format!("module {index} of seed {} ({place}), {memories:?}: {what}", self.source.seed);
                eprintln!("{what}");
                self.summary.different.push(what);
            }
        }
    }
}

/// Changes some bytes, most of them by little.
fn damaged(wasm: &[u8], random: &mut Random) -> Vec<u8> {
    let mut wasm = wasm.to_vec();
    if wasm.len() <= 8 {
        return wasm;
    }
    for _ in 0..=random.below(3) {
        let at = 8 + random.below(wasm.len() as u64 - 8) as usize;
        wasm[at] = match random.below(4) {
            0 => random.number() as u8,
            1 => wasm[at].wrapping_add(1),
            2 => wasm[at].wrapping_sub(1),
            _ => wasm[at] ^ (1 << random.below(8)),
        };
    }
    wasm
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends this process if the module at hand does not end: nothing else stops its code.
fn watch(at_hand: &Mutex<Option<(u64, Vec<u8>, Instant)>>, source: &Source, settings: &Settings) {
    let at_hand = lock(at_hand);
    let Some((index, wasm, began)) = &*at_hand else { return };
    if began.elapsed() > PATIENCE {
        let place = keep(&settings.keep, &format!("{}-{index}", source.seed), wasm);
        eprintln!("module {index} of seed {} ({place}) does not end with safepoints", source.seed);
        std::process::exit(1);
    }
}

/// Keeps a module for a person; returns where.
fn keep(folder: &Path, name: &str, wasm: &[u8]) -> String {
    let path = folder.join(format!("{name}.wasm"));
    let kept: io::Result<()> = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, wasm));
    kept.map_or_else(|error| error.to_string(), |()| path.display().to_string())
}

impl Summary {
    fn see(&mut self, seen: BTreeMap<String, u64>) {
        for (name, count) in seen {
            *self.seen.entry(name).or_default() += count;
        }
    }

    /// How often this was seen in both forms of a module.
    pub fn seen(&self, name: &str) -> u64 {
        self.seen.get(name).copied().unwrap_or(0)
    }

    /// # Errors
    /// What is wrong, for a person.
    pub fn check(&self) -> Result<(), String> {
        match &self.different[..] {
            [] => Ok(()),
            [first, ..] => Err(format!("{} modules differ with safepoints: {first}", self.different.len())),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let modules: u64 = self.modules.values().sum();
        let seconds = self.elapsed.as_secs_f64();
        writeln!(f, "{modules} modules, {seconds:.0} s: {:.0} modules a second", modules as f64 / seconds)?;
        for (outcome, count) in &self.modules {
            writeln!(f, "{count:>9}  {outcome}")?;
        }
        writeln!(f, "skipped:")?;
        for ((kind, skipped), count) in &self.skipped {
            writeln!(f, "{count:>9}  {kind:?}: {skipped:?}")?;
        }
        writeln!(f, "seen with and without safepoints:")?;
        for (name, count) in &self.seen {
            writeln!(f, "{count:>9}  {name}")?;
        }
        for what in &self.explained {
            writeln!(f, "at the second look: {what:.600}")?;
        }
        write!(f, "{} modules differ", self.different.len())
    }
}
