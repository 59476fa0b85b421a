//! The call itself: instantiate, initialize, hand the input over, call, read the envelope.

use std::ops::Range;

use wasmtime::{Instance, Memory, ModuleExport, Store, WasmParams, WasmResults};

use super::abi::read_envelope;
use super::inbox::Input;
use super::instance::Outputs;
use super::linker::TaskState;
use super::loaded::Loaded;
use crate::task::TaskLimits;
use crate::wire::message::{Entry, Verdict};

/// One task's call, as its phases need it.
pub(super) struct Call<'a> {
    pub(super) entry: &'a Entry,
    pub(super) limits: &'a TaskLimits,
    pub(super) input: &'a mut dyn Input,
    pub(super) output: Outputs,
}

/// What came of a call.
pub(super) struct Ended {
    pub(super) verdict: Verdict,
    pub(super) payload: Payload,
    /// In which it ran to its end.
    pub(super) instance: Option<Instance>,
}

impl Ended {
    pub(super) fn of(verdict: Verdict) -> Self {
        Ended { verdict, payload: Payload::Owned(Vec::new()), instance: None }
    }
}

/// What belongs to the verdict.
pub(super) enum Payload {
    Owned(Vec<u8>),
    /// In the guest's memory, within its bounds: it is sent from there.
    Guest(Memory, Range<usize>),
}

/// The payload's bytes.
pub(super) fn payload_bytes<'a>(payload: &'a Payload, store: &'a Store<TaskState>) -> &'a [u8] {
    match payload {
        Payload::Owned(bytes) => bytes,
        // A memory never shrinks.
        Payload::Guest(memory, range) => memory.data(store).get(range.clone()).unwrap_or_default(),
    }
}

/// Instantiates, unless that is done, initializes what is fresh, and calls. With `FIBER`, every step may be suspended; without,
/// none is.
pub(super) async fn execute<const FIBER: bool>(
    store: &mut Store<TaskState>,
    loaded: &Loaded,
    instance: Option<Instance>,
    is_fresh: bool,
    call: &mut Call<'_>,
) -> wasmtime::Result<Ended> {
    let instance = match instance {
        Some(instance) => instance,
        None if FIBER => loaded.instance.instantiate_async(&mut *store).await?,
        None => loaded.instance.instantiate(&mut *store)?,
    };
    let index = match call.entry {
        Entry::Command { .. } => {
            invoke::<FIBER, (), ()>(store, &instance, loaded.start.as_ref(), ()).await?;
            return Ok(Ended::of(Verdict::Exited { code: 0, stdout_bytes: 0 }));
        }
        Entry::Task(index) => *index as usize,
    };
    if is_fresh && loaded.reactor_start.is_some() {
        invoke::<FIBER, (), ()>(store, &instance, loaded.reactor_start.as_ref(), ()).await?;
    }
    let output_bytes_max = call.limits.output_bytes_max;
    if is_fresh && loaded.initializer.is_some() {
        let packed =
            invoke::<FIBER, (u32, u32), i64>(store, &instance, loaded.initializer.as_ref(), (0, 0)).await?;
        let ended = envelope(store, &instance, loaded, packed, output_bytes_max)?;
        if ended.verdict != Verdict::Ok {
            return Ok(ended);
        }
    }
    let Ok(len) = u32::try_from(call.input.left()) else {
        let message = format!("{} bytes of input do not fit a 32-bit memory", call.input.left());
        let payload = Payload::Owned(message.into_bytes());
        return Ok(Ended { payload, ..Ended::of(Verdict::InputDecode) });
    };
    let pointer = invoke::<FIBER, (u32,), u32>(store, &instance, loaded.alloc.as_ref(), (len,)).await?;
    if let Some(refused) = write_input(store, &instance, loaded, pointer, call.input)? {
        return Ok(Ended::of(refused));
    }
    let function = loaded.tasks.get(index).and_then(Option::as_ref);
    let packed = invoke::<FIBER, (u32, u32), i64>(store, &instance, function, (pointer, len)).await?;
    envelope(store, &instance, loaded, packed, output_bytes_max)
}

async fn invoke<const FIBER: bool, P: WasmParams + Sync, R: WasmResults + Sync>(
    store: &mut Store<TaskState>,
    instance: &Instance,
    export: Option<&ModuleExport>,
    params: P,
) -> wasmtime::Result<R> {
    let function = export
        .and_then(|export| instance.get_module_export(&mut *store, export))
        .and_then(|export| export.into_func())
        .ok_or_else(|| wasmtime::format_err!("the module does not export the function"))?
        .typed::<P, R>(&*store)?;
    if FIBER { function.call_async(&mut *store, params).await } else { function.call(&mut *store, params) }
}

/// Reads the input to where the guest said; or says why it cannot.
fn write_input(
    store: &mut Store<TaskState>,
    instance: &Instance,
    loaded: &Loaded,
    pointer: u32,
    input: &mut dyn Input,
) -> wasmtime::Result<Option<Verdict>> {
    let memory = memory(store, instance, loaded)?;
    let (data, state) = memory.data_and_store_mut(&mut *store);
    let end = pointer as u64 + input.left();
    if pointer == 0 || end > data.len() as u64 {
        let (len, memory_bytes) = (input.left() as u32, data.len() as u64);
        // A null pointer is how the ABI says that there is no memory left.
        if let (0, Some(requested)) = (pointer, state.budget.refused) {
            return Ok(Some(Verdict::Memory { requested, backtrace: Vec::new() }));
        }
        if pointer == 0 {
            let message =
                format!("wasmpool_alloc returned 0: the guest has no room for an input of {len} bytes");
            return Ok(Some(Verdict::Abi { message }));
        }
        return Ok(Some(Verdict::BadPointer { pointer, len, memory_bytes }));
    }
    // A host that is gone takes this process with it.
    input.read(&mut data[pointer as usize..end as usize])?;
    Ok(None)
}

fn envelope(
    store: &mut Store<TaskState>,
    instance: &Instance,
    loaded: &Loaded,
    packed: i64,
    output_bytes_max: u64,
) -> wasmtime::Result<Ended> {
    let memory = memory(store, instance, loaded)?;
    let (verdict, range) = read_envelope(memory.data(&*store), packed, output_bytes_max);
    Ok(Ended { verdict, payload: Payload::Guest(memory, range), instance: Some(*instance) })
}

fn memory(store: &mut Store<TaskState>, instance: &Instance, loaded: &Loaded) -> wasmtime::Result<Memory> {
    loaded
        .memory
        .as_ref()
        .and_then(|export| instance.get_module_export(&mut *store, export))
        .and_then(|export| export.into_memory())
        .ok_or_else(|| wasmtime::format_err!("the module does not export its memory"))
}
