//! Turns a script into what the pool is asked: which modules to load, and which tasks to run.

use std::collections::HashMap;

use wasmparser::{Parser, Payload, TypeRef, Validator, WasmFeatures};
use wasmpool::error::TrapCode;
use wast::core::{ModuleKind, WastArgCore, WastRetCore};
use wast::token::{Id, Span};
use wast::{QuoteWat, Wast, WastArg, WastDirective, WastExecute, WastInvoke, WastRet, Wat};

use super::replay::{self, Action, Expected, INSTANTIATION, Step};
use super::tally::{Outcome, Reason};
use super::{OFFERED, Script};
use crate::outline::Outline;
use crate::rewrite::{Definition, Definitions};

/// Everything that one script asks of the pool.
#[derive(Debug, Default)]
pub struct Plan {
    /// Directives that are settled without the pool, by line.
    pub(crate) settled: Vec<(usize, Outcome)>,
    pub(crate) jobs: Vec<Job>,
}

/// One module, and what must come of it.
#[derive(Debug)]
pub(crate) enum Job {
    /// Must not load.
    Refuse { line: usize, wasm: Vec<u8>, refusal: Refusal },
    /// Must load; nothing can be called.
    Accept { line: usize, wasm: Vec<u8> },
    /// Must load, and its tasks end as they should. A binary of the script's own must load, too.
    Run { wasm: Vec<u8>, original: Option<Vec<u8>>, checks: Vec<Check> },
}

/// The ways in which a module is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The module is invalid, or needs a feature that is not offered and without which it would be invalid,
    /// too.
    Invalid,
    /// The module needs a feature that is not offered.
    Unsupported,
}

/// One task: replay up to this step.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) line: usize,
    pub(crate) step: u32,
    pub(crate) ends: Ends,
    /// The directive, for a person.
    pub(crate) shown: String,
}

/// The ends that a task may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    Well,
    /// The task ends in one of these traps.
    InTrap(&'static [TrapCode]),
}

impl Plan {
    /// Reads a script.
    ///
    /// # Errors
    /// A script that cannot be parsed, for a person.
    pub fn of(script: &Script) -> Result<Plan, String> {
        let failed = |error: wast::Error| format!("{}: {error}", script.path());
        let text = script.source.raw();
        let mut lexer = wast::lexer::Lexer::new(text);
        lexer.allow_confusing_unicode(true);
        let buffer = wast::parser::ParseBuffer::new_with_lexer(lexer).map_err(failed)?;
        let mut wast = wast::parser::parse::<Wast<'_>>(&buffer).map_err(failed)?;
        let mut planner = Planner { text, ..Planner::default() };
        // The modules of the script are encoded first: the steps borrow from the same directives.
        let modules: Vec<_> = wast.directives.iter_mut().map(module_of).collect();
        for (directive, module) in wast.directives.iter().zip(modules) {
            planner.directive(directive, module);
        }
        Ok(planner.finish())
    }

    /// Returns the modules that are valid: those of the script, and those with the script inside.
    pub fn modules(self) -> Vec<(usize, Vec<u8>)> {
        let modules = self.jobs.into_iter().flat_map(|job| match job {
            Job::Refuse { .. } => Vec::new(),
            Job::Accept { line, wasm } => vec![(line, wasm)],
            Job::Run { wasm, original, checks } => {
                let line = checks.first().map_or(0, |check| check.line);
                [Some(wasm), original].into_iter().flatten().map(|wasm| (line, wasm)).collect()
            }
        });
        modules.collect()
    }
}

/// The module of a directive, as bytes.
struct Encoded {
    /// `None` for text that is malformed.
    wasm: Option<Vec<u8>>,
    is_binary: bool,
}

fn module_of(directive: &mut WastDirective<'_>) -> Option<Encoded> {
    let of_wat = |wat: &mut Wat<'_>| {
        let is_binary = matches!(wat, Wat::Module(wast::core::Module { kind: ModuleKind::Binary(_), .. }));
        Some(Encoded { wasm: wat.encode().ok(), is_binary })
    };
    match directive {
        WastDirective::Module(module)
        | WastDirective::ModuleDefinition(module)
        | WastDirective::AssertMalformed { module, .. }
        | WastDirective::AssertInvalid { module, .. }
        | WastDirective::AssertMalformedCustom { module, .. }
        | WastDirective::AssertInvalidCustom { module, .. } => match module {
            QuoteWat::Wat(wat) => of_wat(wat),
            quoted => Some(Encoded { wasm: quoted.encode().ok(), is_binary: false }),
        },
        WastDirective::AssertTrap { exec: WastExecute::Wat(wat), .. } => of_wat(wat),
        _ => None,
    }
}

/// An instance, and what the script does with it.
struct Instance<'s> {
    line: usize,
    wasm: Vec<u8>,
    is_binary: bool,
    /// The imports from other modules that can be copied.
    imported: Definitions,
    /// Why nothing can be asked of it, or not any more.
    beyond: Option<Reason>,
    /// The end of its instantiation, which may be a trap.
    instantiates: Ends,
    steps: Vec<Step<'s>>,
    checks: Vec<Check>,
}

#[derive(Default)]
struct Planner<'s> {
    text: &'s str,
    plan: Plan,
    instances: Vec<Instance<'s>>,
    by_id: HashMap<Id<'s>, usize>,
    definitions: HashMap<Id<'s>, (Vec<u8>, bool)>,
    last_definition: Option<(Vec<u8>, bool)>,
    registered: HashMap<&'s str, usize>,
    current: Option<usize>,
}

impl<'s> Planner<'s> {
    fn line(&self, span: Span) -> usize {
        span.linecol_in(self.text).0 + 1
    }

    fn shown(&self, line: usize) -> String {
        self.text.lines().nth(line - 1).unwrap_or_default().trim().to_string()
    }

    fn settle(&mut self, line: usize, outcome: Outcome) {
        self.plan.settled.push((line, outcome));
    }

    fn not_applicable(&mut self, line: usize, reason: Reason) {
        self.settle(line, Outcome::NotApplicable(reason));
    }

    fn directive(&mut self, directive: &'s WastDirective<'s>, module: Option<Encoded>) {
        let line = self.line(directive.span());
        match directive {
            WastDirective::Module(quoted) => self.module(line, quoted.name(), module, Ends::Well),
            WastDirective::ModuleDefinition(quoted) => self.definition(line, quoted.name(), module),
            WastDirective::ModuleInstance { instance, module, .. } => {
                let definition = match module {
                    Some(id) => self.definitions.get(id).cloned(),
                    None => self.last_definition.clone(),
                };
                let encoded = definition.map(|(wasm, is_binary)| Encoded { wasm: Some(wasm), is_binary });
                self.module(line, *instance, encoded, Ends::Well);
            }
            WastDirective::AssertMalformed { module: source, .. }
            | WastDirective::AssertInvalid { module: source, .. } => self.refusal(line, source, module),
            WastDirective::Register { name, module, .. } => {
                if let Some(index) = self.instance(*module) {
                    self.registered.insert(name, index);
                }
                self.not_applicable(line, Reason::Registration);
            }
            WastDirective::Invoke(invoke) => {
                self.step(line, Exec::Invoke(invoke), Expected::Completion, Ends::Well);
            }
            WastDirective::AssertReturn { exec, results, .. } => {
                let results = results.iter().filter_map(|result| match result {
                    WastRet::Core(result) => Some(result),
                    _ => None,
                });
                let results: Vec<&'s WastRetCore<'s>> = results.collect();
                self.execute(line, exec, Expected::Results(results), Ends::Well);
            }
            WastDirective::AssertTrap { exec: WastExecute::Wat(_), message, .. } => {
                self.module(line, None, module, Ends::InTrap(trap_codes(message)));
            }
            WastDirective::AssertTrap { exec, message, .. } => {
                self.execute(line, exec, Expected::Trap, Ends::InTrap(trap_codes(message)));
            }
            WastDirective::AssertExhaustion { call, .. } => {
                let ends = Ends::InTrap(&[TrapCode::StackOverflow]);
                self.step(line, Exec::Invoke(call), Expected::Trap, ends);
            }
            WastDirective::AssertException { exec, .. } => {
                let ends = Ends::InTrap(&[TrapCode::UncaughtException]);
                self.execute(line, exec, Expected::Exception, ends);
            }
            WastDirective::AssertUnlinkable { .. } => self.not_applicable(line, Reason::Linking),
            WastDirective::AssertMalformedCustom { .. } | WastDirective::AssertInvalidCustom { .. } => {
                self.not_applicable(line, Reason::CustomSection);
            }
            WastDirective::AssertSuspension { .. }
            | WastDirective::Thread(_)
            | WastDirective::Wait { .. } => self.not_applicable(line, Reason::Threads),
        }
    }

    fn instance(&self, id: Option<Id<'s>>) -> Option<usize> {
        match id {
            Some(id) => self.by_id.get(&id).copied(),
            None => self.current,
        }
    }

    fn definition(&mut self, line: usize, id: Option<Id<'s>>, module: Option<Encoded>) {
        let Some(Encoded { wasm: Some(wasm), is_binary }) = module else {
            return self.settle(line, Outcome::Failed("it cannot be encoded".into()));
        };
        let imports_nothing = Outline::of(&wasm).is_ok_and(|outline| outline.imports.is_empty());
        if validates(OFFERED, &wasm) && imports_nothing {
            self.plan.jobs.push(Job::Accept { line, wasm: wasm.clone() });
        } else if validates(OFFERED, &wasm) {
            self.not_applicable(line, Reason::Linking);
        } else {
            self.plan.jobs.push(Job::Refuse { line, wasm: wasm.clone(), refusal: Refusal::Unsupported });
        }
        self.last_definition = Some((wasm.clone(), is_binary));
        if let Some(id) = id {
            self.definitions.insert(id, (wasm, is_binary));
        }
    }

    fn module(&mut self, line: usize, id: Option<Id<'s>>, module: Option<Encoded>, ends: Ends) {
        let mut imported = Definitions::new();
        let (wasm, is_binary, beyond) = match module {
            Some(Encoded { wasm: Some(wasm), is_binary }) => {
                let beyond = self.beyond(&wasm, &mut imported);
                (wasm, is_binary, beyond)
            }
            _ => {
                self.settle(line, Outcome::Failed("it cannot be encoded".into()));
                (Vec::new(), false, Some(Reason::NotLoaded))
            }
        };
        match beyond {
            Some(Reason::Refused) if !wasm.is_empty() => {
                let refusal = Refusal::Unsupported;
                self.plan.jobs.push(Job::Refuse { line, wasm: wasm.clone(), refusal });
            }
            Some(reason) if !wasm.is_empty() => self.not_applicable(line, reason),
            _ => {}
        }
        self.instances.push(Instance {
            line,
            wasm,
            is_binary,
            imported,
            beyond,
            instantiates: ends,
            steps: Vec::new(),
            checks: Vec::new(),
        });
        let index = self.instances.len() - 1;
        // A module that must trap becomes nobody's current module.
        if ends == Ends::Well {
            self.current = Some(index);
            if let Some(id) = id {
                self.by_id.insert(id, index);
            }
        }
    }

    /// Why a module cannot be run as it should be, if so; and what it imports.
    fn beyond(&mut self, wasm: &[u8], imported: &mut Definitions) -> Option<Reason> {
        let is_refused = !validates(OFFERED, wasm) || shares_memory(wasm);
        if is_refused && validates(WasmFeatures::all(), wasm) {
            return Some(Reason::Refused);
        }
        let Ok(outline) = Outline::of(wasm) else { return None };
        let mut beyond = None;
        for import in outline.imports.iter().filter(|import| import.module != "spectest") {
            let exporter = self.registered.get(import.module).copied();
            let definition = exporter.and_then(|exporter| {
                Outline::of(&self.instances[exporter].wasm).ok()?.definition(import.name)
            });
            // The tag that it throws must have a name here, too.
            let definition = definition.filter(|definition| match definition {
                Definition::Throws(tag) => outline.imported_tag(import.module, tag).is_some(),
                _ => true,
            });
            if let (Some(definition), TypeRef::Func(_) | TypeRef::Tag(_)) = (definition, import.ty) {
                imported.insert((import.module.into(), import.name.into()), definition);
                continue;
            }
            beyond = Some(Reason::Linking);
            // Whatever it does to its exporter, the exporter's own replay does not see.
            if let Some(exporter) = exporter {
                self.instances[exporter].beyond.get_or_insert(Reason::Shared);
            }
        }
        beyond
    }

    fn refusal(&mut self, line: usize, source: &QuoteWat<'_>, module: Option<Encoded>) {
        match (source, module) {
            (QuoteWat::Wat(_), Some(Encoded { wasm: Some(wasm), .. })) => {
                self.plan.jobs.push(Job::Refuse { line, wasm, refusal: Refusal::Invalid });
            }
            _ => self.not_applicable(line, Reason::Text),
        }
    }

    fn execute(&mut self, line: usize, exec: &'s WastExecute<'s>, expected: Expected<'s>, ends: Ends) {
        match exec {
            WastExecute::Invoke(invoke) => self.step(line, Exec::Invoke(invoke), expected, ends),
            WastExecute::Get { module, global, .. } => {
                self.step(line, Exec::Get(*module, global), expected, ends);
            }
            WastExecute::Wat(_) => self.settle(line, Outcome::Failed("a module returns nothing".into())),
        }
    }

    fn step(&mut self, line: usize, exec: Exec<'s>, expected: Expected<'s>, ends: Ends) {
        let (id, action) = match exec {
            Exec::Invoke(invoke) => {
                let args = invoke.args.iter().filter_map(|arg| match arg {
                    WastArg::Core(arg) => Some(arg),
                    _ => None,
                });
                let args: Vec<&'s WastArgCore<'s>> = args.collect();
                (invoke.module, Action::Invoke { name: invoke.name, args })
            }
            Exec::Get(id, global) => (id, Action::Get { global }),
        };
        let Some(index) = self.instance(id) else {
            return self.settle(line, Outcome::Failed("there is no such instance".into()));
        };
        if let Some(reason) = self.instances[index].beyond {
            return self.not_applicable(line, reason);
        }
        let shown = self.shown(line);
        let instance = &mut self.instances[index];
        let step = instance.steps.len() as u32;
        instance.steps.push(Step { action, expected });
        instance.checks.push(Check { line, step, ends, shown });
    }

    fn finish(mut self) -> Plan {
        for instance in std::mem::take(&mut self.instances) {
            // An instance that was shared later is still replayed as far as it was not.
            if !matches!(instance.beyond, None | Some(Reason::Shared)) {
                continue;
            }
            let Instance { line, wasm, is_binary, imported, instantiates: ends, steps, mut checks, .. } =
                instance;
            let shown = self.shown(line);
            checks.insert(0, Check { line, step: INSTANTIATION, ends, shown });
            match replayed(&wasm, &imported, &steps) {
                Ok(replayed) => {
                    // The module's very bytes are loaded, too: they are what such a script tests.
                    let stands_alone = Outline::of(&wasm).is_ok_and(|outline| outline.imports.is_empty());
                    let original = (is_binary && stands_alone).then_some(wasm);
                    self.plan.jobs.push(Job::Run { wasm: replayed, original, checks });
                }
                Err(why) => {
                    for check in checks {
                        self.settle(check.line, Outcome::Failed(format!("no replay: {why}")));
                    }
                }
            }
        }
        self.plan
    }
}

enum Exec<'s> {
    Invoke(&'s WastInvoke<'s>),
    Get(Option<Id<'s>>, &'s str),
}

/// The module with its script inside, if that is still a valid module.
fn replayed(wasm: &[u8], imported: &Definitions, steps: &[Step<'_>]) -> Result<Vec<u8>, String> {
    let outline = Outline::of(wasm).map_err(|error| error.to_string())?;
    let replayed = replay::compile(&outline, imported, steps).map_err(|error| error.to_string())?;
    Validator::new_with_features(OFFERED).validate_all(&replayed).map_err(|error| error.to_string())?;
    Ok(replayed)
}

fn validates(features: WasmFeatures, wasm: &[u8]) -> bool {
    Validator::new_with_features(features).validate_all(wasm).is_ok()
}

/// Returns whether a module has a memory that threads share.
fn shares_memory(wasm: &[u8]) -> bool {
    Parser::new(0).parse_all(wasm).any(|payload| match payload {
        Ok(Payload::MemorySection(memories)) => memories.into_iter().flatten().any(|memory| memory.shared),
        Ok(Payload::ImportSection(imports)) => imports
            .into_imports()
            .flatten()
            .any(|import| matches!(import.ty, TypeRef::Memory(memory) if memory.shared)),
        _ => false,
    })
}

/// The trap's kind, from the words of the specification's interpreter. Older scripts are less exact.
fn trap_codes(message: &str) -> &'static [TrapCode] {
    const WORDS: [(&str, &[TrapCode]); 13] = [
        ("unreachable", &[TrapCode::Unreachable]),
        ("out of bounds memory access", &[TrapCode::MemoryOutOfBounds]),
        ("out of bounds table access", &[TrapCode::TableOutOfBounds]),
        ("out of bounds array access", &[TrapCode::ArrayOutOfBounds]),
        ("out of bounds", &[TrapCode::MemoryOutOfBounds, TrapCode::TableOutOfBounds]),
        ("undefined", &[TrapCode::TableOutOfBounds]),
        ("uninitialized", &[TrapCode::IndirectCallToNull]),
        ("indirect call", &[TrapCode::IndirectCallTypeMismatch]),
        ("integer divide by zero", &[TrapCode::IntegerDivideByZero]),
        ("integer overflow", &[TrapCode::IntegerOverflow]),
        ("invalid conversion to integer", &[TrapCode::InvalidConversionToInteger]),
        ("null", &[TrapCode::NullReference]),
        ("cast failure", &[TrapCode::CastFailure]),
    ];
    let known = WORDS.iter().find(|(words, _)| message.starts_with(words));
    known.map_or(&[], |(_, codes)| *codes)
}
