//! One module, compared.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::panic::resume_unwind;

use engine::compile::{self, safepoints};
use proto::description::MemoryKind;
use proto::safepoints::Safepoints;
use wasmtime::{Engine, Module};

use super::engines::{Engines, LARGE_THREAD_BYTES, Look};
use super::run::{End, Event, Plan, Run, Subject};
use super::structure;

/// A module is instantiated so often to find out which calls end.
const ATTEMPTS_MAX: usize = 5;

/// What compares modules, one after the other.
#[derive(Debug)]
pub struct Trial {
    /// Says which modules are valid as their authors wrote them.
    author: Engine,
    engines: BTreeMap<(bool, Look), Engines>,
}

/// What came of a comparison.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing could be compared.
    Skipped(Skipped),
    /// The same was seen, this often.
    Same(BTreeMap<String, u64>),
    /// Something else was seen, but for the bits of NaNs or the depth of the stack: the same with engines where these are
    /// fixed.
    Explained(BTreeMap<String, u64>, String),
    /// Something else was seen: this.
    Different(String),
}

/// Whether a module is valid, and the same with safepoints.
#[derive(Debug, PartialEq, Eq)]
pub enum Validity {
    /// It is valid.
    Valid,
    /// It is not, and that is seen with safepoints as well; or the author's module is asked for.
    Invalid,
    /// It is not, for this reason, and nobody would see it.
    Hidden(String),
}

/// Why nothing could be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Skipped {
    /// It is not valid, or needs features that the pool does not offer.
    Invalid,
    /// Neither engine has room for it.
    Refused,
    /// Its start function does not end within its fuel.
    EndlessStart,
    /// Too many calls do not end within their fuel.
    EndlessCalls,
}

impl Trial {
    /// # Errors
    /// What wasmtime says of its configuration.
    pub fn new() -> wasmtime::Result<Trial> {
        let author = Engines::new(MemoryKind::Own, Look::First)?.plain;
        Ok(Trial { author, engines: BTreeMap::new() })
    }

    /// Compares a module whose instances have such memories. `seed` names the arguments.
    ///
    /// # Errors
    /// Those of the engines' configuration, not of the module.
    pub fn compare(
        &mut self,
        wasm: &[u8],
        memories: MemoryKind,
        seed: u64,
        bytes_max: u64,
    ) -> wasmtime::Result<Outcome> {
        match self.check_validity(wasm)? {
            Validity::Valid => {}
            Validity::Invalid => return Ok(Outcome::Skipped(Skipped::Invalid)),
            Validity::Hidden(what) => return Ok(Outcome::Different(what)),
        }
        for kind in MemoryKind::ALL {
            let instrumented = match safepoints::insert(wasm, kind) {
                Ok(instrumented) => instrumented,
                Err(error) => {
                    return Ok(Outcome::Different(format!("no safepoints for a valid module: {error}")));
                }
            };
            if let Err(what) = structure::compare(wasm, &instrumented) {
                return Ok(Outcome::Different(format!("{kind:?}: {what}")));
            }
        }
        let plan = Plan::new(seed, bytes_max);
        let first = pair(self.engines(memories, Look::First)?, wasm, memories, &plan);
        let Outcome::Different(what) = first else { return Ok(first) };
        let engines = self.engines(memories, Look::Second)?;
        let second = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(LARGE_THREAD_BYTES);
            let again = thread.spawn_scoped(scope, || pair(engines, wasm, memories, &plan))?;
            Ok::<_, std::io::Error>(again.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })?;
        Ok(match second {
            Outcome::Same(seen) => Outcome::Explained(seen, what),
            _ => Outcome::Different(what),
        })
    }

    /// Looks whether safepoints hide that a module is not valid. The compiler asks for the author's module only where it is
    /// told that they may.
    ///
    /// # Errors
    /// Those of the engines' configuration, not of the module.
    pub fn check_validity(&mut self, wasm: &[u8]) -> wasmtime::Result<Validity> {
        let Err(invalid) = Module::validate(&self.author, wasm) else { return Ok(Validity::Valid) };
        for memories in MemoryKind::ALL {
            let engine = self.engines(memories, Look::First)?.instrumented.clone();
            let Ok(instrumented) = safepoints::insert(wasm, memories) else { continue };
            if !instrumented.hides_faults && Module::validate(&engine, &instrumented.wasm).is_ok() {
                return Ok(Validity::Hidden(format!("{memories:?}: safepoints hide this: {invalid:#}")));
            }
        }
        Ok(Validity::Invalid)
    }

    fn engines(&mut self, memories: MemoryKind, look: Look) -> wasmtime::Result<&Engines> {
        Ok(match self.engines.entry((memories == MemoryKind::Own, look)) {
            Entry::Occupied(engines) => engines.into_mut(),
            Entry::Vacant(place) => place.insert(Engines::new(memories, look)?),
        })
    }
}

/// Compiles a module twice, runs both, and compares.
fn pair(engines: &Engines, wasm: &[u8], memories: MemoryKind, plan: &Plan) -> Outcome {
    let Engines { metered, plain, instrumented } = engines;
    let added = match safepoints::insert(wasm, memories) {
        Ok(added) => added,
        Err(error) => return Outcome::Different(error.to_string()),
    };
    let (author, module) = match (Module::new(metered, wasm), Module::new(instrumented, &added.wasm)) {
        (Ok(author), Ok(module)) => (author, module),
        (Err(_), Err(_)) => return Outcome::Skipped(Skipped::Refused),
        // The compiler refuses it: the engine with room for a polling page's memory takes one more.
        (Err(_), Ok(_)) if compile::has_too_many_memories(wasm) => return Outcome::Skipped(Skipped::Refused),
        (Err(error), Ok(_)) => {
            return Outcome::Different(format!("with safepoints it is accepted, and without: {error:#}"));
        }
        (Ok(_), Err(error)) => {
            return Outcome::Different(format!("without safepoints it is accepted, and with: {error:#}"));
        }
    };
    let exports: Vec<_> = author.exports().map(|export| (export.name().to_string(), export.ty())).collect();
    let mut plan = plan.clone();
    let exports = &exports[..];
    let subject = Subject { engine: metered, module: &author, is_metered: true, safepoints: None, exports };
    let Some(expected) = run_what_ends(&subject, &mut plan) else {
        let skipped = if plan.skipped.is_empty() { Skipped::EndlessStart } else { Skipped::EndlessCalls };
        return Outcome::Skipped(skipped);
    };
    if let Err(what) = exports_are_those_told(&module, exports, &added.safepoints) {
        return Outcome::Different(what);
    }
    let safepoints = Some(&added.safepoints);
    let subject = Subject { engine: instrumented, module: &module, is_metered: false, safepoints, exports };
    let run = subject.run(&plan);
    let first = compare_runs(&expected, &run, plan.skipped.len(), Places::AsExpected);
    let Outcome::Different(_) = first else { return first };
    let Ok(author) = Module::new(plain, wasm) else { return first };
    let subject = Subject { engine: plain, module: &author, is_metered: false, safepoints: None, exports };
    let mut second = compare_runs(&subject.run(&plan), &run, plan.skipped.len(), Places::MayBeLater);
    if let Outcome::Same(seen) = &mut second {
        seen.insert("modules that are compared with code that counts no fuel".into(), 1);
    }
    second
}

/// Leaves out of the plan what does not end. `None` if that is the start function, or too much.
fn run_what_ends(subject: &Subject<'_>, plan: &mut Plan) -> Option<Run> {
    for _ in 0..ATTEMPTS_MAX {
        let run = subject.run(plan);
        match run.endless {
            None => {
                plan.calls_end = match run.events.last() {
                    Some(Event::Instance(End::StackOverflow)) => 0,
                    Some(Event::Call(number, End::StackOverflow)) => number + 1,
                    _ => usize::MAX,
                };
                return Some(run);
            }
            Some(None) => return None,
            Some(Some(call)) => plan.skipped.push(call),
        }
    }
    None
}

fn exports_are_those_told(
    module: &Module,
    exports: &[(String, wasmtime::ExternType)],
    added: &Safepoints,
) -> Result<(), String> {
    let names: Vec<_> = module.exports().map(|export| export.name().to_string()).collect();
    let told = exports.iter().map(|(name, _)| name.clone());
    let told: Vec<_> = told.chain(added.page_export.clone()).chain(added.start_export.clone()).collect();
    if names == told { Ok(()) } else { Err(format!("the exports are {names:?}, not {told:?}")) }
}

/// Says what is expected of the places that traps are told to be at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Places {
    AsExpected,
    /// See [`End::is_told_later_than`].
    MayBeLater,
}

fn compare_runs(expected: &Run, run: &Run, endless: usize, places: Places) -> Outcome {
    let mut told_later = 0;
    for (expected, event) in expected.events.iter().zip(&run.events) {
        let is_told_later = places == Places::MayBeLater
            && match (event, expected) {
                (Event::Call(call, end), Event::Call(other, expected)) => {
                    call == other && end.is_told_later_than(expected)
                }
                (Event::Instance(end), Event::Instance(expected)) => end.is_told_later_than(expected),
                _ => false,
            };
        told_later += u64::from(is_told_later);
        if expected != event && !is_told_later {
            return Outcome::Different(format!("{event:?}, not {expected:?}"));
        }
    }
    if expected.events.len() != run.events.len() || run.endless.is_some() {
        return Outcome::Different(format!("{} events, not {}", run.events.len(), expected.events.len()));
    }
    let mut seen = BTreeMap::new();
    for event in &expected.events {
        *seen.entry(name(event)).or_default() += 1;
    }
    if told_later > 0 {
        seen.insert("traps that are told at a later instruction".into(), told_later);
    }
    if endless > 0 {
        seen.insert("calls left out, since they do not end".into(), endless as u64);
    }
    Outcome::Same(seen)
}

fn name(event: &Event) -> String {
    match event {
        Event::Instance(end) => format!("instance: {}", end_name(end)),
        Event::Call(_, end) => format!("call: {}", end_name(end)),
        Event::Globals(_) => "looks at globals".into(),
        Event::Memory(..) => "memories".into(),
        Event::Table(..) => "tables".into(),
        Event::Missing(_) => "exports that are missing".into(),
    }
}

fn end_name(end: &End) -> String {
    match end {
        End::Values(_) => "returned".into(),
        End::StackOverflow => "trap StackOverflow".into(),
        End::Trap(trap, _) => format!("trap {trap:?}"),
        End::Exception(..) => "exception".into(),
        // The message without its numbers.
        End::Error(message, _) => {
            let words = message.split([':', '`']).next().unwrap_or(message);
            format!("error {}", words.replace(|letter: char| letter.is_ascii_digit(), "#"))
        }
    }
}
