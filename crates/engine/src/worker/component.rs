//! Components: instantiated, called with typed values, and given their imports.
//!
//! A task's input is postcard by its schema, as for any other task. It is put into the component's memory by the canonical
//! ABI from those bytes (`lower`), and the result is written as such bytes from there (`lift`): values are never held in
//! between, where a list of small ones would take many times its size.

mod files;
mod guest;
mod lift;
mod lower;
mod wasi;

use wasmtime::component::{
    Component, ComponentExportIndex, Func, Instance, InstancePre, Linker, TypedFunc,
    types::{ComponentInstance, ComponentItem},
};
use wasmtime::{Engine, Store, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::call::{Bound, CallContext, CallPayload, CallResult};
use super::linker::TaskState;
use proto::description::{ModuleDescription, TaskDescription};
use proto::message::{Callee, RunEnd};

pub use lift::{Limit, Returned};
pub use lower::Arguments;

/// The interface that a command exports, with a version behind it.
const RUN_INTERFACE: &str = "wasi:cli/run@";
const RUN_FUNCTION: &str = "run";

/// A component ready to be instantiated, with every lookup by name done.
pub(super) struct ComponentProgram {
    instance: InstancePre<TaskState>,
    /// A command's program.
    run: Option<ComponentExportIndex>,
    /// The exported function of each task, in the description's order.
    tasks: Vec<Option<ComponentExportIndex>>,
}

/// An instance of a component, and the function of the last task.
pub(super) struct BoundComponent {
    instance: Instance,
    task: Option<(usize, TypedFunc<Arguments, Returned>)>,
}

impl ComponentProgram {
    /// # Errors
    /// What the component imports and is not given.
    pub(super) fn new(
        engine: &Engine,
        component: &Component,
        description: &ModuleDescription,
    ) -> wasmtime::Result<ComponentProgram> {
        let instance = linker(engine, description.uses_wasi)?.instantiate_pre(component)?;
        let run = interface(engine, component, RUN_INTERFACE).and_then(|(name, _)| {
            let interface = component.get_export_index(None, &name)?;
            component.get_export_index(Some(&interface), RUN_FUNCTION)
        });
        let tasks = description.tasks.iter().map(|task| export(component, task)).collect();
        Ok(ComponentProgram { instance, run, tasks })
    }

    pub(super) fn engine(&self) -> &Engine {
        self.instance.engine()
    }

    /// Makes an instance in advance, for a task like the last one. An error is left to the task, which meets it again.
    pub(super) fn prepare(&self, store: &mut Store<TaskState>, task: usize) -> Option<BoundComponent> {
        let instance = self.instance.instantiate(&mut *store).ok()?;
        let mut bound = BoundComponent { instance, task: None };
        let _ = bound.task(store, self, task);
        Some(bound)
    }
}

/// Returns the name of the exported interface whose name begins so, and its type.
fn interface(engine: &Engine, component: &Component, begin: &str) -> Option<(String, ComponentInstance)> {
    component.component_type().exports(engine).find_map(|(name, item)| match item.ty {
        ComponentItem::ComponentInstance(ty) if name.starts_with(begin) => Some((name.to_string(), ty)),
        _ => None,
    })
}

fn export(component: &Component, task: &TaskDescription) -> Option<ComponentExportIndex> {
    match task.export.split_once('#') {
        None => component.get_export_index(None, &task.export),
        Some((interface, function)) => {
            let interface = component.get_export_index(None, interface)?;
            component.get_export_index(Some(&interface), function)
        }
    }
}

/// Makes a linker for components; only those that import WASI need its fibers.
///
/// # Errors
/// Wasmtime's; each name is defined once, so none is expected.
fn linker(engine: &Engine, uses_wasi: bool) -> wasmtime::Result<Linker<TaskState>> {
    let mut linker = Linker::new(engine);
    guest::define(&mut linker)?;
    if uses_wasi {
        wasi::define(&mut linker)?;
    }
    Ok(linker)
}

/// Checks for the compiler that a worker gives a component all that it imports.
///
/// # Errors
/// What is missing, or has another type.
pub(crate) fn check_imports(component: &Component) -> wasmtime::Result<()> {
    linker(component.engine(), true)?.instantiate_pre(component).map(drop)
}

impl BoundComponent {
    fn task(
        &mut self,
        store: &mut Store<TaskState>,
        program: &ComponentProgram,
        index: usize,
    ) -> wasmtime::Result<TypedFunc<Arguments, Returned>> {
        if let Some((last, function)) = &self.task
            && *last == index
        {
            return Ok(*function);
        }
        let export = program.tasks.get(index).and_then(Option::as_ref);
        let function = self.function(store, export)?.typed(&*store)?;
        self.task = Some((index, function));
        Ok(function)
    }

    fn function(
        &self,
        store: &mut Store<TaskState>,
        export: Option<&ComponentExportIndex>,
    ) -> wasmtime::Result<Func> {
        export
            .and_then(|export| self.instance.get_func(&mut *store, export))
            .ok_or_else(|| wasmtime::format_err!("the component does not export the function"))
    }
}

/// Instantiates, unless that is done, and calls. Every step may be suspended with `FIBER`, and none without it. Where it
/// ended well, `bound` is what it ran in.
pub(super) async fn execute<const FIBER: bool>(
    store: &mut Store<TaskState>,
    program: &ComponentProgram,
    bound: &mut Option<Bound>,
    call: &mut CallContext<'_>,
) -> wasmtime::Result<CallResult> {
    if bound.is_none() {
        let instance = match FIBER {
            true => Box::pin(program.instance.instantiate_async(&mut *store)).await?,
            false => program.instance.instantiate(&mut *store)?,
        };
        *bound = Some(Bound::Component(BoundComponent { instance, task: None }));
    }
    let Some(Bound::Component(bound)) = bound else {
        return Err(wasmtime::format_err!("what is bound is no component"));
    };
    let index = match call.callee {
        Callee::Command { .. } => {
            let function = bound.function(store, program.run.as_ref())?;
            let run: TypedFunc<(), (Result<(), ()>,)> = function.typed(&*store)?;
            let (ended,) = match FIBER {
                true => Box::pin(run.call_async(&mut *store, ())).await?,
                false => run.call(&mut *store, ())?,
            };
            return Ok(CallResult::of(RunEnd::Exited { code: i32::from(ended.is_err()) }));
        }
        Callee::Task(index) => index.0 as usize,
    };
    let function = bound.task(store, program, index)?;
    let arguments = match Arguments::read(call.input)? {
        Ok(arguments) => arguments,
        Err(bytes) => return Ok(CallResult::of(RunEnd::InputTooLarge { bytes })),
    };
    let refused_before = store.data().budget.refusals();
    let limit = Limit::set(call.limits.output_bytes_max);
    let called = match FIBER {
        true => Box::pin(function.call_async(&mut *store, arguments)).await,
        false => function.call(&mut *store, arguments),
    };
    drop(limit);
    match called {
        Ok(Returned::Value(bytes)) => {
            Ok(CallResult { payload: CallPayload::Owned(bytes), ..CallResult::of(RunEnd::Ok) })
        }
        Ok(Returned::Error(bytes)) => {
            Ok(CallResult { payload: CallPayload::Owned(bytes), ..CallResult::of(RunEnd::GuestData) })
        }
        Err(error) => judge(error, store.data().budget.refusals() > refused_before),
    }
}

/// Says how a call ended that failed, where that is known here.
///
/// # Errors
/// The other errors: traps, exits and refused memory.
fn judge(error: wasmtime::Error, was_refused_memory: bool) -> wasmtime::Result<CallResult> {
    if let Some(lower::BadInput(message)) = error.downcast_ref() {
        let payload = CallPayload::Owned(message.clone().into_bytes());
        return Ok(CallResult { payload, ..CallResult::of(RunEnd::InputDecode) });
    }
    match error.downcast_ref() {
        Some(lift::Unliftable::TooLarge { bytes }) => {
            return Ok(CallResult::of(RunEnd::OutputTooLarge { bytes: *bytes }));
        }
        Some(defect @ lift::Unliftable::Malformed(_)) => {
            return Ok(CallResult::of(RunEnd::Abi { message: defect.to_string() }));
        }
        None => {}
    }
    let is_the_guests = error.is::<Trap>() || error.is::<I32Exit>() || error.is::<WasmBacktrace>();
    if is_the_guests || was_refused_memory {
        return Err(error);
    }
    // What is left are the engine's checks of what the component's own functions returned: a place that is none.
    let message = proto::text::truncated(&format!("{error:#}"), proto::limits::GUEST_TEXT_BYTES_MAX);
    Ok(CallResult::of(RunEnd::Abi { message }))
}

/// The bytes that a set of so many flags takes in memory, by the canonical ABI.
fn flags_bytes(count: usize) -> usize {
    match count {
        ..=8 => 1,
        9..=16 => 2,
        more => 4 * more.div_ceil(32),
    }
}
