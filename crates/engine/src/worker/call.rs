//! The call itself: instantiate, initialize, hand the input over, call, read the envelope.

use std::ops::Range;

use wasmtime::{Instance, Memory, ModuleExport, Store, TypedFunc, WasmParams, WasmResults};

use super::component::{self, BoundComponent};
use super::instance::Outputs;
use super::json_codec::{self, Encoded};
use super::linker::TaskState;
use super::loaded::{CoreProgram, Loaded, Program};
use super::numbers;
use super::watcher::WatcherState;
use proto::guest::abi::read_envelope;
use proto::inbox::Input;
use proto::limits::task::TaskLimits;
use proto::message::{Callee, RunEnd};

/// Holds what the phases of one task's call need.
pub(super) struct CallContext<'a> {
    pub(super) callee: &'a Callee,
    pub(super) limits: &'a TaskLimits,
    pub(super) input: &'a mut dyn Input,
    pub(super) output: Outputs,
}

/// The result of a call.
pub(super) struct CallResult {
    pub(super) end: RunEnd,
    pub(super) payload: CallPayload,
    /// A command's stdout is this much of the payload; stderr follows.
    pub(super) stdout_bytes: u64,
}

impl CallResult {
    pub(super) fn of(end: RunEnd) -> Self {
        CallResult { end, payload: CallPayload::Owned(Vec::new()), stdout_bytes: 0 }
    }
}

/// A task, as it is called: a pointer and a length in, an envelope out.
type TaskFunction = TypedFunc<(u32, u32), i64>;

/// An instance of a module or of a component, by the form of the file.
pub(super) enum Bound {
    Core(BoundInstance),
    Component(BoundComponent),
}

/// An instance, and what has been looked up in it: another task need not look again.
pub(super) struct BoundInstance {
    instance: Instance,
    memory: Option<Memory>,
    alloc: Option<TypedFunc<(u32,), u32>>,
    /// The function of the last task, by its index.
    task: Option<(usize, TaskFunction)>,
    /// The page that its code polls, if it is in a memory of the instance.
    polling_page: Option<usize>,
}

impl BoundInstance {
    pub(super) fn new(instance: Instance, store: &mut Store<TaskState>, program: &CoreProgram) -> Self {
        // A memory never moves: neither those of the worker's own nor those of the engine's pool.
        let polling_page = program.polling_page.as_ref().and_then(|(export, offset)| {
            let memory = instance.get_module_export(&mut *store, export)?.into_memory()?;
            Some(memory.data_ptr(&*store).expose_provenance() + usize::try_from(*offset).ok()?)
        });
        BoundInstance { instance, memory: None, alloc: None, task: None, polling_page }
    }

    /// Looks up what the next task will need, if it is the same as the last one. The task is told of what is
    /// missing.
    pub(super) fn resolve_exports(
        &mut self,
        store: &mut Store<TaskState>,
        program: &CoreProgram,
        task: usize,
    ) {
        let _ = self.memory(store, program);
        let _ = self.alloc(store, program);
        let _ = self.task(store, program, task);
    }

    fn memory(&mut self, store: &mut Store<TaskState>, program: &CoreProgram) -> wasmtime::Result<Memory> {
        if let Some(memory) = self.memory {
            return Ok(memory);
        }
        let memory = program
            .memory
            .as_ref()
            .and_then(|export| self.instance.get_module_export(&mut *store, export))
            .and_then(|export| export.into_memory())
            .ok_or_else(|| wasmtime::format_err!("the module does not export its memory"))?;
        Ok(*self.memory.insert(memory))
    }

    fn alloc(
        &mut self,
        store: &mut Store<TaskState>,
        program: &CoreProgram,
    ) -> wasmtime::Result<&TypedFunc<(u32,), u32>> {
        if self.alloc.is_none() {
            self.alloc = Some(function(store, &self.instance, program.alloc.as_ref())?);
        }
        self.alloc.as_ref().ok_or_else(missing)
    }

    fn task(
        &mut self,
        store: &mut Store<TaskState>,
        program: &CoreProgram,
        index: usize,
    ) -> wasmtime::Result<&TaskFunction> {
        if self.task.as_ref().is_none_or(|(last, _)| *last != index) {
            let export = program.tasks.get(index).and_then(Option::as_ref);
            self.task = Some((index, function(store, &self.instance, export)?));
        }
        self.task.as_ref().map(|(_, task)| task).ok_or_else(missing)
    }
}

/// The payload that belongs to the end.
pub(super) enum CallPayload {
    Owned(Vec<u8>),
    /// It lies in the guest's memory, within its bounds, and is sent from there.
    Guest(Memory, Range<usize>),
}

/// The payload's bytes.
pub(super) fn payload_bytes<'a>(payload: &'a CallPayload, store: &'a Store<TaskState>) -> &'a [u8] {
    match payload {
        CallPayload::Owned(bytes) => bytes,
        // A memory never shrinks.
        CallPayload::Guest(memory, range) => memory.data(store).get(range.clone()).unwrap_or_default(),
    }
}

/// Instantiates, unless that is done, initializes what is fresh, and calls. Every step may be suspended with
/// `FIBER`, and none without it. Where it ended well, `bound` is what it ran in.
pub(super) async fn execute<const FIBER: bool>(
    store: &mut Store<TaskState>,
    loaded: &Loaded,
    bound: &mut Option<Bound>,
    is_fresh: bool,
    call: &mut CallContext<'_>,
    watcher: &WatcherState,
) -> wasmtime::Result<CallResult> {
    let program = match &loaded.program {
        Program::Core(program) => program,
        Program::Component(program) => {
            return component::execute::<FIBER>(store, program, bound, call).await;
        }
    };
    let polling_page = match bound {
        Some(Bound::Core(bound)) => bound.polling_page,
        _ => None,
    };
    if lend(store, watcher, polling_page) {
        return Ok(CallResult::of(RunEnd::Interrupted));
    }
    if bound.is_none() {
        let instance = match FIBER {
            true => Box::pin(program.instance.instantiate_async(&mut *store)).await?,
            false => program.instance.instantiate(&mut *store)?,
        };
        *bound = Some(Bound::Core(BoundInstance::new(instance, store, program)));
    }
    // Only an instance of a module is kept for a module, so this cannot fail.
    let Some(Bound::Core(bound)) = bound else { return Err(missing()) };
    execute_in::<FIBER>(store, loaded, program, bound, is_fresh, call, watcher).await
}

/// Initializes what is fresh, and calls.
async fn execute_in<const FIBER: bool>(
    store: &mut Store<TaskState>,
    loaded: &Loaded,
    program: &CoreProgram,
    bound: &mut BoundInstance,
    is_fresh: bool,
    call: &mut CallContext<'_>,
    watcher: &WatcherState,
) -> wasmtime::Result<CallResult> {
    let instance = bound.instance;
    if bound.polling_page.is_some() && lend(store, watcher, bound.polling_page) {
        return Ok(CallResult::of(RunEnd::Interrupted));
    }
    if is_fresh && program.module_start.is_some() {
        let start = function(store, &instance, program.module_start.as_ref())?;
        invoke::<FIBER, (), ()>(store, &start, ()).await?;
    }
    // A module that has a program as well is initialised all the same, as by wasmtime.
    if is_fresh && program.reactor_start.is_some() {
        let start = function(store, &instance, program.reactor_start.as_ref())?;
        invoke::<FIBER, (), ()>(store, &start, ()).await?;
    }
    let index = match call.callee {
        Callee::Command { .. } => {
            let start = function(store, &instance, program.start.as_ref())?;
            invoke::<FIBER, (), ()>(store, &start, ()).await?;
            return Ok(CallResult::of(RunEnd::Exited { code: 0 }));
        }
        Callee::Task(index) => index.0 as usize,
    };
    let output_bytes_max = call.limits.output_bytes_max;
    if is_fresh && program.initializer.is_some() {
        let initializer = function(store, &instance, program.initializer.as_ref())?;
        let packed = invoke::<FIBER, (u32, u32), i64>(store, &initializer, (0, 0)).await?;
        let (end, payload) = envelope(store, bound, program, packed, output_bytes_max)?;
        if end != RunEnd::Ok {
            return Ok(CallResult { payload, ..CallResult::of(end) });
        }
    }
    if loaded.takes_numbers(index) {
        let export = program.tasks.get(index).and_then(Option::as_ref);
        let function = export.and_then(|export| instance.get_module_export(&mut *store, export));
        let function = function.and_then(|export| export.into_func()).ok_or_else(missing)?;
        return numbers::call::<FIBER>(store, function, call.input, output_bytes_max).await;
    }
    let Some(task) = loaded.json_task(index) else {
        let (end, payload) =
            call_bytes::<FIBER>(store, program, bound, index, call.input, output_bytes_max).await?;
        return Ok(CallResult { payload, ..CallResult::of(end) });
    };
    let encoded = match Encoded::read(call.input)? {
        Ok(encoded) => encoded,
        Err(bytes) => return Ok(CallResult::of(RunEnd::InputTooLarge { bytes })),
    };
    let mut input = match encoded.for_guest(task, call.limits) {
        Ok(input) => input,
        Err(refused) => return Ok(refused),
    };
    let written_max = json_codec::written_bytes_max(output_bytes_max);
    let (end, payload) = call_bytes::<FIBER>(store, program, bound, index, &mut input, written_max).await?;
    Ok(json_codec::ended(task, end, payload_bytes(&payload, store), call.limits))
}

/// Calls a task by the byte ABI.
async fn call_bytes<const FIBER: bool>(
    store: &mut Store<TaskState>,
    program: &CoreProgram,
    bound: &mut BoundInstance,
    index: usize,
    input: &mut dyn Input,
    output_bytes_max: u64,
) -> wasmtime::Result<(RunEnd, CallPayload)> {
    let Ok(len) = u32::try_from(input.left()) else {
        let message = format!("{} bytes of input do not fit a 32-bit memory", input.left());
        return Ok((RunEnd::InputDecode, CallPayload::Owned(message.into_bytes())));
    };
    let alloc = bound.alloc(store, program)?;
    let refused_before = store.data().budget.refusals();
    let pointer = invoke::<FIBER, (u32,), u32>(store, alloc, (len,)).await?;
    let memory = bound.memory(store, program)?;
    if let Some(refused) = write_input(store, memory, pointer, input, refused_before)? {
        return Ok((refused, CallPayload::Owned(Vec::new())));
    }
    let task = bound.task(store, program, index)?;
    let packed = invoke::<FIBER, (u32, u32), i64>(store, task, (pointer, len)).await?;
    envelope(store, bound, program, packed, output_bytes_max)
}

/// Lends the run at hand its polling page. Returns whether it is to stop: from here on an interrupt closes the page, and
/// one that came before has closed none.
fn lend(store: &Store<TaskState>, watcher: &WatcherState, page: Option<usize>) -> bool {
    watcher.page.lend(page);
    watcher.is_interrupted(store.data().run)
}

fn function<P: WasmParams, R: WasmResults>(
    store: &mut Store<TaskState>,
    instance: &Instance,
    export: Option<&ModuleExport>,
) -> wasmtime::Result<TypedFunc<P, R>> {
    export
        .and_then(|export| instance.get_module_export(&mut *store, export))
        .and_then(|export| export.into_func())
        .ok_or_else(missing)?
        .typed::<P, R>(&*store)
}

fn missing() -> wasmtime::Error {
    wasmtime::format_err!("the module does not export the function")
}

async fn invoke<const FIBER: bool, P: WasmParams + Sync, R: WasmResults + Sync>(
    store: &mut Store<TaskState>,
    function: &TypedFunc<P, R>,
    params: P,
) -> wasmtime::Result<R> {
    // The future is boxed. Otherwise each call without a fiber, too, would have room for one in its own future: 3
    // KiB a task.
    if FIBER {
        Box::pin(function.call_async(&mut *store, params)).await
    } else {
        function.call(&mut *store, params)
    }
}

/// Reads the input to where the guest said; or says why it cannot.
fn write_input(
    store: &mut Store<TaskState>,
    memory: Memory,
    pointer: u32,
    input: &mut dyn Input,
    refused_before: u64,
) -> wasmtime::Result<Option<RunEnd>> {
    let (data, state) = memory.data_and_store_mut(&mut *store);
    let end = pointer as u64 + input.left();
    if pointer == 0 || end > data.len() as u64 {
        let len = input.left() as u32;
        let memory_bytes = data.len() as u64;
        // The ABI's null pointer means that no memory is left. It is a memory failure only if this very call
        // was refused some.
        if pointer == 0
            && state.budget.refusals() > refused_before
            && let Some(requested) = state.budget.refused
        {
            return Ok(Some(RunEnd::Memory { requested, backtrace: Vec::new() }));
        }
        if pointer == 0 {
            let message =
                format!("wasmpool_alloc returned 0: the guest has no room for an input of {len} bytes");
            return Ok(Some(RunEnd::Abi { message }));
        }
        return Ok(Some(RunEnd::BadPointer { pointer, len, memory_bytes }));
    }
    // This process ends with its host, so the error is dropped.
    input.read(&mut data[pointer as usize..end as usize])?;
    Ok(None)
}

fn envelope(
    store: &mut Store<TaskState>,
    bound: &mut BoundInstance,
    program: &CoreProgram,
    packed: i64,
    output_bytes_max: u64,
) -> wasmtime::Result<(RunEnd, CallPayload)> {
    let memory = bound.memory(store, program)?;
    let (end, range) = read_envelope(memory.data(&*store), packed, output_bytes_max);
    Ok((end, CallPayload::Guest(memory, range)))
}
