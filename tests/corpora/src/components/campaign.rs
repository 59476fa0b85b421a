//! Tries one type after the other, with values of it, and counts what was tried.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use wasmpool::Pool;
use wasmpool::pool::ShutdownMode;
use wasmtime::Engine;

use super::in_process::{self, InProcess, Spoiled};
use super::text::{ComponentText, ENCODINGS, has_text};
use super::through_pool::{self, Wrong};
use super::types::{Type, TypeCase};
use super::value::Value;
use crate::pool;
use crate::random::Random;

/// Types before another pool takes over.
const TYPES_PER_POOL: u64 = 500;

/// With so many types whose values differ, no more are tried after the pool at hand.
const DIFFERENT_MAX: usize = 100;

/// The time that a pool may take to end. It has nothing to do any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// The settings of a campaign: what is tried.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names the sequence of types.
    pub seed: u64,
    /// The first type of the sequence, and their number.
    pub first: u64,
    pub count: u64,
    /// Values of each type.
    pub values: u64,
    /// Worker processes.
    pub workers: usize,
    /// The folder that keeps components whose values differ.
    pub keep: PathBuf,
}

/// What came of a campaign.
#[derive(Debug, Default)]
pub struct Summary {
    types: u64,
    values: u64,
    /// How many types were like this.
    seen: BTreeMap<&'static str, u64>,
    spoiled: Spoiled,
    /// What differed: where the component is kept, and how.
    pub different: Vec<String>,
    elapsed: Duration,
}

/// A campaign in progress.
#[derive(Debug)]
pub struct Campaign<'a> {
    settings: &'a Settings,
    engine: Engine,
    summary: Summary,
}

impl Campaign<'_> {
    /// Tries all types. `done` is told of each.
    ///
    /// # Errors
    /// An engine or a pool that cannot be made; not what values do.
    pub fn run(settings: &Settings, mut done: impl FnMut()) -> Result<Summary, Box<dyn std::error::Error>> {
        let began = Instant::now();
        let mut campaign = Campaign { settings, engine: in_process::engine()?, summary: Summary::default() };
        let end = settings.first + settings.count;
        let mut next = settings.first;
        while next < end && campaign.summary.different.len() < DIFFERENT_MAX {
            let pool = pool::steady(settings.workers, |builder| builder)?;
            let last = end.min(next + TYPES_PER_POOL);
            for index in next..last {
                campaign.try_type(&pool, index);
                done();
            }
            next = last;
            if let Err(different) = pool::check(&pool) {
                campaign.summary.differ(different);
            }
            if !pool.shutdown_timeout(ShutdownMode::CancelPending, PATIENCE) {
                campaign.summary.differ("a pool had to be killed at its end".into());
            }
        }
        campaign.summary.elapsed = began.elapsed();
        Ok(campaign.summary)
    }

    fn try_type(&mut self, pool: &Pool, index: u64) {
        let mut random = Random::new(self.settings.seed, index);
        let case = TypeCase::random(&mut random);
        let encoding = ENCODINGS[random.below(3) as usize];
        let text = ComponentText::new(&case, encoding);
        // Each value has a sequence of its own, so that it stays the same if there are more of them, or fewer.
        let seed = random.number();
        let values: Vec<_> = (0..self.settings.values)
            .map(|value| Value::random(&case.ty, &mut Random::new(seed, value)))
            .collect();
        self.summary.count(&case.ty, &text, encoding, self.settings.values);
        if let Err(Wrong { value, what }) = self.compare(pool, &case.ty, &text, &values, &mut random) {
            let seed = self.settings.seed;
            let path = self.settings.keep.join(format!("{seed}-{index}.wat"));
            let kept: io::Result<()> =
                std::fs::create_dir_all(&self.settings.keep).and_then(|()| std::fs::write(&path, &text.text));
            let kept = kept.map_or_else(|error| error.to_string(), |()| path.display().to_string());
            let value =
                value.map_or("all values".into(), |value| format!("value {value}, {:?}", values[value]));
            self.summary.differ(format!("type {index} of seed {seed} ({kept}), {value}: {what}"));
        }
    }

    fn compare(
        &mut self,
        pool: &Pool,
        ty: &Type,
        text: &ComponentText,
        values: &[Value],
        random: &mut Random,
    ) -> Result<(), Wrong> {
        let all = |what: String| Wrong { value: None, what };
        let wasm = wat::parse_str(&text.text).map_err(|error| all(error.to_string()))?;
        let in_process = InProcess::new(&self.engine, &wasm, text, ty);
        let mut in_process = in_process.map_err(|error| all(format!("{error:#}")))?;
        for (index, value) in values.iter().enumerate() {
            let checked = in_process.check(value, random);
            checked.map_err(|what| Wrong { value: Some(index), what })?;
        }
        self.summary.spoiled.read += in_process.spoiled.read;
        self.summary.spoiled.refused += in_process.spoiled.refused;
        through_pool::check(pool, &wasm, values, ty, random)
    }
}

impl Summary {
    fn count(&mut self, ty: &Type, text: &ComponentText, encoding: &'static str, values: u64) {
        self.types += 1;
        self.values += values;
        let mut kinds = Vec::new();
        ty.visit(&mut |ty| kinds.push(kind(ty)));
        if text.has_slots {
            kinds.push("flat arguments");
        }
        if text.has_one {
            kinds.push("a flat result");
        }
        if has_text(ty) {
            kinds.push(encoding);
        }
        kinds.sort_unstable();
        kinds.dedup();
        kinds.into_iter().for_each(|kind| *self.seen.entry(kind).or_default() += 1);
    }

    fn differ(&mut self, what: String) {
        eprintln!("{what:.4000}");
        self.different.push(what);
    }

    /// Types that were like this, or that had one of this kind inside.
    pub fn seen(&self, name: &str) -> u64 {
        self.seen.get(name).copied().unwrap_or(0)
    }

    /// # Errors
    /// What is wrong, for a person.
    pub fn check(&self) -> Result<(), String> {
        match &self.different[..] {
            [] => Ok(()),
            [first, ..] => Err(format!("values of {} types differ: {first}", self.different.len())),
        }
    }
}

/// The word for a type, whatever it is made of.
fn kind(ty: &Type) -> &'static str {
    match ty {
        Type::Bool => "bool",
        Type::Signed(_) => "signed integer",
        Type::Unsigned(_) => "unsigned integer",
        Type::F32 => "f32",
        Type::F64 => "f64",
        Type::Char => "char",
        Type::String => "string",
        Type::List(of) if matches!(**of, Type::Unsigned(8)) => "list of u8",
        Type::List(_) => "list",
        Type::Record { .. } => "record",
        Type::Tuple(_) => "tuple",
        Type::Variant { cases, .. } if cases.len() > 256 => "variant of more than 256 cases",
        Type::Variant { .. } => "variant",
        Type::Enum { cases, .. } if cases.len() > 256 => "enum of more than 256 cases",
        Type::Enum { .. } => "enum",
        Type::Option(of) if matches!(**of, Type::Option(_)) => "option of an option",
        Type::Option(_) => "option",
        Type::Result(None, None) => "result",
        Type::Result(Some(_), None) => "result<T>",
        Type::Result(None, Some(_)) => "result<_, E>",
        Type::Result(Some(_), Some(_)) => "result<T, E>",
        Type::Flags { flags, .. } => match flags.len() {
            ..=8 => "flags in one byte",
            9..=16 => "flags in two bytes",
            _ => "flags in four bytes",
        },
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64();
        let rate = self.values as f64 / seconds;
        writeln!(
            f,
            "{} types, {} values, {seconds:.0} s: {rate:.0} values a second",
            self.types, self.values
        )?;
        writeln!(f, "types with:")?;
        for (name, count) in &self.seen {
            writeln!(f, "{count:>9}  {name}")?;
        }
        let Spoiled { read, refused } = self.spoiled;
        writeln!(f, "spoiled values: {read} were read by both, {refused} by neither")?;
        write!(f, "values of {} types differ", self.different.len())
    }
}
