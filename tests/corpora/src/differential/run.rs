//! Instantiates a module, calls what it exports, and notes all that can be seen of it.

use proto::safepoints::{POLLING_PAGE_BYTES, Safepoints};
use wasmtime::{
    Engine, Extern, ExternType, Func, Instance, Linker, Memory, Module, ResourceLimiter, Store, Table,
    ThrownException, Trap, Val, WasmBacktrace,
};

use super::values::{Value, argument};
use crate::random::Random;

/// Fuel of one call. A stack runs out of room before that.
const FUEL: u64 = 200_000;

/// Exported functions that are called, and how often each.
const FUNCTIONS_MAX: usize = 12;
const ROUNDS: usize = 2;

/// Entries of a table that are looked at.
const ENTRIES_MAX: u64 = 64;

/// A module as it is run.
pub(super) struct Subject<'a> {
    pub(super) engine: &'a Engine,
    pub(super) module: &'a Module,
    /// Its code counts fuel.
    pub(super) is_metered: bool,
    /// What was added, if the module is instrumented.
    pub(super) safepoints: Option<&'a Safepoints>,
    /// What the module exports as its author wrote it.
    pub(super) exports: &'a [(String, ExternType)],
}

/// How a module is called.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Names the arguments.
    pub(super) seed: u64,
    /// Bytes of all memories and tables.
    pub(super) bytes_max: u64,
    /// Calls that are left out.
    pub(super) skipped: Vec<usize>,
    /// Calls from this number on are not made: the stack has overflowed before, and who knows whether they end.
    pub(super) calls_end: usize,
}

impl Plan {
    pub(super) fn new(seed: u64, bytes_max: u64) -> Plan {
        Plan { seed, bytes_max, skipped: Vec::new(), calls_end: usize::MAX }
    }
}

/// What was seen of a run, in order.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) events: Vec<Event>,
    /// The run ended since this did not end within its fuel: a call, or else the start.
    pub(super) endless: Option<Option<usize>>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Event {
    /// There is an instance, and its start function has returned; or not.
    Instance(End),
    /// A call, by its number.
    Call(usize, End),
    /// The globals that are exported.
    Globals(Vec<Value>),
    /// A memory: its index among the exports, its bytes, and a digest of these.
    Memory(usize, u64, u64),
    /// A table: its index among the exports, its length, and the first entries.
    Table(usize, u64, Vec<Value>),
    /// An export that the module should have.
    Missing(String),
}

/// How a call ended.
#[derive(Debug, PartialEq)]
pub(super) enum End {
    Values(Vec<Value>),
    /// The wasm stack has overflowed. Where it does depends on how the code was compiled, so nothing is compared that
    /// follows.
    StackOverflow,
    Trap(Trap, Vec<Frame>),
    Exception(Vec<Value>, Vec<Frame>),
    Error(String, Vec<Frame>),
}

/// A frame of a stack, with its place in the author's module.
#[derive(Debug, PartialEq)]
pub(super) struct Frame {
    function: u32,
    name: Option<String>,
    offset: Option<u64>,
}

impl End {
    /// Returns whether this is the same trap of the same function, told at a later instruction. Cranelift puts a load into
    /// the instruction that uses its value where nothing stands between, and then a trap of the load is told to be there.
    /// Which bytes are of which instruction is compared without running anything.
    pub(super) fn is_told_later_than(&self, other: &End) -> bool {
        let (End::Trap(trap, frames), End::Trap(others, other_frames)) = (self, other) else { return false };
        let ([at, callers @ ..], [other, other_callers @ ..]) = (&frames[..], &other_frames[..]) else {
            return false;
        };
        trap == others
            && callers == other_callers
            && (at.function, &at.name) == (other.function, &other.name)
            && at.offset > other.offset
            && other.offset.is_some()
    }
}

/// The state of a store: what is left of its room.
#[derive(Debug)]
pub(super) struct State {
    bytes_left: u64,
}

impl ResourceLimiter for State {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // This is how the worker tells a polling page from a guest's memory.
        if maximum == Some(POLLING_PAGE_BYTES as usize) {
            return Ok(true);
        }
        Ok(maximum.is_none_or(|maximum| desired <= maximum) && self.take(desired - current))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(maximum.is_none_or(|maximum| desired <= maximum)
            && self.take((desired - current).saturating_mul(8)))
    }
}

impl State {
    fn take(&mut self, bytes: usize) -> bool {
        let left = self.bytes_left.checked_sub(bytes as u64);
        self.bytes_left = left.unwrap_or(self.bytes_left);
        left.is_some()
    }
}

impl Subject<'_> {
    pub(super) fn run(&self, plan: &Plan) -> Run {
        let mut store = Store::new(self.engine, State { bytes_left: plan.bytes_max });
        store.limiter(|state| state);
        if self.safepoints.is_some() {
            // As a worker does, though this code does not look at it.
            store.set_epoch_deadline(1);
        }
        let mut run = Run::default();
        let instance = match self.instance(&mut store) {
            Ok(instance) => instance,
            Err(end) => {
                match end {
                    End::Trap(Trap::OutOfFuel, _) => run.endless = Some(None),
                    end => run.events.push(Event::Instance(end)),
                }
                return run;
            }
        };
        run.events.push(Event::Instance(End::Values(Vec::new())));
        let exports = self.exports(&mut store, &instance, &mut run);
        run.globals(&mut store, &exports);
        if self.calls(&mut store, &exports, plan, &mut run) {
            run.memories_and_tables(&mut store, &exports);
        }
        run
    }

    /// Instantiates as a worker does, with the start function.
    fn instance(&self, store: &mut Store<State>) -> Result<Instance, End> {
        let mut linker = Linker::new(self.engine);
        // What the host returns is nothing that a module could tell apart.
        if linker.define_unknown_imports_as_default_values(&mut *store, self.module).is_err() {
            linker = Linker::new(self.engine);
            self.ended(store, linker.define_unknown_imports_as_traps(self.module))?;
        }
        self.refuel(store);
        let instance = linker.instantiate(&mut *store, self.module);
        let instance = self.ended(store, instance)?;
        if let Some(name) = self.safepoints.and_then(|added| added.start_export.as_deref()) {
            let start = instance.get_typed_func::<(), ()>(&mut *store, name);
            let started = start.and_then(|start| start.call(&mut *store, ()));
            self.ended(store, started)?;
        }
        Ok(instance)
    }

    fn refuel(&self, store: &mut Store<State>) {
        if self.is_metered {
            // It can only fail where fuel is not counted.
            let _ = store.set_fuel(FUEL);
        }
    }

    fn exports(&self, store: &mut Store<State>, instance: &Instance, run: &mut Run) -> Vec<Extern> {
        let mut exports = Vec::with_capacity(self.exports.len());
        for (name, _) in self.exports {
            match instance.get_export(&mut *store, name) {
                Some(export) => exports.push(export),
                None => run.events.push(Event::Missing(name.clone())),
            }
        }
        exports
    }

    /// Returns whether what follows can be compared.
    fn calls(&self, store: &mut Store<State>, exports: &[Extern], plan: &Plan, run: &mut Run) -> bool {
        let functions = exports.iter().filter_map(|export| export.clone().into_func()).take(FUNCTIONS_MAX);
        let functions: Vec<_> = functions.collect();
        for round in 0..ROUNDS {
            for (index, function) in functions.iter().enumerate() {
                let number = round * FUNCTIONS_MAX + index;
                if number >= plan.calls_end {
                    return false;
                }
                if plan.skipped.contains(&number) {
                    continue;
                }
                let mut random = Random::new(plan.seed, number as u64);
                let Some(end) = self.call(store, *function, &mut random) else { continue };
                if let End::Trap(Trap::OutOfFuel, _) = end {
                    run.endless = Some(Some(number));
                    return false;
                }
                let is_overflow = end == End::StackOverflow;
                run.events.push(Event::Call(number, end));
                if is_overflow {
                    return false;
                }
                run.globals(store, exports);
            }
        }
        true
    }

    /// `None` if nobody can make its arguments.
    fn call(&self, store: &mut Store<State>, function: Func, random: &mut Random) -> Option<End> {
        let ty = function.ty(&*store);
        let args = ty.params().map(|ty| argument(store, &ty, function, random));
        let args = args.collect::<Option<Vec<_>>>()?;
        let mut results = vec![Val::I32(0); ty.results().len()];
        self.refuel(store);
        let called = function.call(&mut *store, &args, &mut results);
        Some(match self.ended(store, called) {
            Ok(()) => End::Values(results.into_iter().map(|value| Value::of(store, value)).collect()),
            Err(end) => end,
        })
    }

    fn ended<T>(&self, store: &mut Store<State>, result: wasmtime::Result<T>) -> Result<T, End> {
        result.map_err(|error| {
            let frames = error.downcast_ref::<WasmBacktrace>().map(|stack| self.frames(stack));
            let frames = frames.unwrap_or_default();
            match error.downcast_ref::<Trap>() {
                Some(Trap::StackOverflow) => End::StackOverflow,
                Some(trap) => End::Trap(*trap, frames),
                None if error.is::<ThrownException>() => End::Exception(thrown(store), frames),
                None => End::Error(error.root_cause().to_string(), frames),
            }
        })
    }

    fn frames(&self, stack: &WasmBacktrace) -> Vec<Frame> {
        let original = |offset: usize| match self.safepoints {
            Some(safepoints) => safepoints.insertions.original(offset as u64),
            None => offset as u64,
        };
        let frames = stack.frames().iter().map(|frame| Frame {
            function: frame.func_index(),
            name: frame.func_name().map(str::to_string),
            offset: frame.module_offset().map(original),
        });
        frames.collect()
    }
}

/// What the exception carries that nobody has caught.
fn thrown(store: &mut Store<State>) -> Vec<Value> {
    let Some(exception) = store.take_pending_exception() else { return Vec::new() };
    let Ok(ty) = exception.ty(&*store) else { return Vec::new() };
    let fields: Vec<_> =
        (0..ty.fields().len()).filter_map(|index| exception.field(&mut *store, index).ok()).collect();
    fields.into_iter().map(|field| Value::of(store, field)).collect()
}

impl Run {
    fn globals(&mut self, store: &mut Store<State>, exports: &[Extern]) {
        let mut values = Vec::new();
        for global in exports.iter().filter_map(|export| export.clone().into_global()) {
            let value = global.get(&mut *store);
            values.push(Value::of(store, value));
        }
        self.events.push(Event::Globals(values));
    }

    fn memories_and_tables(&mut self, store: &mut Store<State>, exports: &[Extern]) {
        for (index, export) in exports.iter().enumerate() {
            match export {
                Extern::Memory(memory) => self.memory(store, index, *memory),
                Extern::Table(table) => self.table(store, index, *table),
                _ => {}
            }
        }
    }

    fn memory(&mut self, store: &Store<State>, index: usize, memory: Memory) {
        let data = memory.data(store);
        self.events.push(Event::Memory(index, data.len() as u64, digest(data)));
    }

    fn table(&mut self, store: &mut Store<State>, index: usize, table: Table) {
        let len = table.size(&*store);
        let mut entries = Vec::new();
        for at in 0..len.min(ENTRIES_MAX) {
            let Some(entry) = table.get(&mut *store, at) else { break };
            entries.push(Value::of_ref(store, entry));
        }
        self.events.push(Event::Table(index, len, entries));
    }
}

/// Each byte changes it. Whole pages of zeros are passed over by their number.
fn digest(data: &[u8]) -> u64 {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut digest = 0u64;
    for (number, page) in data.chunks(ZEROS.len()).enumerate() {
        if *page == ZEROS[..page.len()] {
            continue;
        }
        digest = (digest ^ number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for word in page.chunks(8) {
            let mut bytes = [0; 8];
            bytes[..word.len()].copy_from_slice(word);
            digest = (digest.rotate_left(23) ^ u64::from_le_bytes(bytes)).wrapping_mul(0x94d0_49bb_1331_11eb);
        }
    }
    digest
}
