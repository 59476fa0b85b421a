//! The imports of a guest: WASI preview 1 and 0, and the byte ABI's `log` and `panic`; its shared inputs are in
//! `shares`, and what AssemblyScript's modules import is in `assembly_script`.

use std::sync::Arc;
use std::time::Instant;

use wasmtime::{Caller, Engine, Extern, Linker, Module, Result, Store};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{WasiCtxBuilder, WasiCtxView, WasiView};

use super::asks::AskedStdin;
use super::budget::Budget;
use super::clocks::Clock;
use super::instance::Outputs;
use super::random::Seeded;
use super::shares::{self, Mapping};
use super::task_log::TaskLog;
use super::wasi::Wasi;
use super::{assembly_script, exit, links, open, poll};
use crate::Provided;
use proto::description::ModuleForm;
use proto::imports::{HOST_MODULE, HostFunction, Preview};
use proto::limits::task::TaskLimits;
use proto::limits::{GUEST_TEXT_BYTES_MAX, LOG_RECORD_BYTES_MAX};
use proto::message::LogSource;

/// A store's own data: everything that host calls of one task may touch.
pub(super) struct TaskState {
    /// The run at hand: an interrupt of another one is none of this store's. 0 is none.
    pub(super) run: u64,
    /// The limits of the task at hand.
    pub(super) limits: TaskLimits,
    pub(super) budget: Budget,
    pub(super) task_log: TaskLog,
    pub(super) wasi: Option<Wasi>,
    pub(super) clock: Clock,
    /// The stdin of a command that reads it by asking the host.
    pub(super) stdin: Option<AskedStdin>,
    /// Message and location of the guest's panic.
    pub(super) panic: Option<(String, String)>,
    /// The random numbers of a deterministic task that `env.seed` has begun to draw.
    pub(super) seeds: Option<Seeded>,
    /// They are in the order of the task's options.
    pub(super) shares: Vec<Arc<Mapping>>,
}

impl TaskState {
    /// The next task's: nothing of the one before is left here, unless it is to run in the same instance of a component. That
    /// has handles of streams and descriptors, which would lead nowhere in another table.
    pub(super) fn begin(&mut self, limits: &TaskLimits, began: Instant) {
        self.limits = *limits;
        self.budget.begin(limits.memory_bytes_max, began);
        if !matches!(self.wasi, Some(Wasi::Preview2 { .. })) {
            self.wasi = None;
            self.clock = Clock::none();
        }
        self.panic = None;
        self.seeds = None;
        self.stdin = None;
        self.shares.clear();
    }

    /// Makes the state of a store that is not any task's yet.
    pub(super) fn new(budget: Budget, task_log: TaskLog) -> Self {
        TaskState {
            run: 0,
            limits: TaskLimits::default(),
            budget,
            task_log,
            wasi: None,
            clock: Clock::none(),
            stdin: None,
            panic: None,
            seeds: None,
            shares: Vec::new(),
        }
    }

    /// Makes a state for a store in which nothing runs.
    pub(super) fn for_linking() -> Self {
        TaskState::new(Budget::new(0, Instant::now()), TaskLog::nowhere())
    }

    pub(super) fn wasi(&mut self) -> &mut WasiP1Ctx {
        // The context is set for every module that imports WASI; the empty one grants nothing.
        if !matches!(self.wasi, Some(Wasi::Preview1(_))) {
            self.wasi = None;
        }
        let empty = || Wasi::build(WasiCtxBuilder::new(), ModuleForm::Core, Outputs::none());
        match self.wasi.get_or_insert_with(empty) {
            Wasi::Preview1(wasi) => wasi,
            Wasi::Preview2 { .. } => unreachable!("it was made for a module, a line above"),
        }
    }
}

impl WasiView for TaskState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        if !matches!(self.wasi, Some(Wasi::Preview2 { .. })) {
            self.wasi = None;
        }
        let empty = || Wasi::build(WasiCtxBuilder::new(), ModuleForm::Component, Outputs::none());
        match self.wasi.get_or_insert_with(empty) {
            Wasi::Preview2 { context, table, .. } => WasiCtxView { ctx: context, table },
            Wasi::Preview1(_) => unreachable!("it was made for a component, a line above"),
        }
    }
}

/// Makes a linker for modules that import WASI, which alone needs fibers.
///
/// # Errors
/// The same errors as those of [`linker`].
pub(super) fn linker_with_wasi(engine: &Engine, previews: Previews) -> Result<Linker<TaskState>> {
    let mut linker = linker(engine)?;
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, TaskState::wasi)?;
    poll::define(&mut linker, Preview::One)?;
    open::define(&mut linker)?;
    links::define(&mut linker)?;
    exit::define(&mut linker)?;
    match previews {
        Previews::One => {}
        Previews::Both => add_preview_0(&mut linker, engine)?,
    }
    Ok(linker)
}

/// The versions of WASI that a linker has. Each of them costs its part of the time in which a module is mapped.
#[derive(Clone, Copy)]
pub(super) enum Previews {
    One,
    Both,
}

impl Previews {
    pub(super) fn of(module: &Module) -> Previews {
        match module.imports().any(|import| import.module() == Preview::Zero.module()) {
            true => Previews::Both,
            false => Previews::One,
        }
    }
}

/// The functions of preview 0 whose arguments or results lie otherwise in the guest's memory than those of preview 1.
/// Wasmtime translates them to preview 1, but for `poll_oneoff`, which is ours.
const OTHERS_IN_PREVIEW_0: [&str; 4] = ["fd_filestat_get", "fd_seek", "path_filestat_get", "poll_oneoff"];

/// Adds preview 0 to a linker that has preview 1. Its functions are the very same ones wherever the two agree, so whatever is
/// replaced in preview 1 is replaced here.
fn add_preview_0(linker: &mut Linker<TaskState>, engine: &Engine) -> Result<()> {
    wasmtime_wasi::p0::add_to_linker_async(linker, TaskState::wasi)?;
    let mut store = Store::new(engine, TaskState::for_linking());
    let (old, new) = (Preview::Zero.module(), Preview::One.module());
    let names = linker.iter(&mut store).filter(|(module, ..)| *module == old);
    let names: Vec<String> = names.map(|(_, name, _)| name.to_string()).collect();
    linker.allow_shadowing(true);
    for name in names.iter().filter(|name| !OTHERS_IN_PREVIEW_0.contains(&name.as_str())) {
        linker.alias(new, name, old, name)?;
    }
    linker.allow_shadowing(false);
    poll::define(linker, Preview::Zero)
}

/// Makes a linker with the functions of the byte ABI.
///
/// # Errors
/// Returns wasmtime's; each name is defined once, so none is expected.
pub(super) fn linker(engine: &Engine) -> Result<Linker<TaskState>> {
    let mut linker = Linker::new(engine);
    for function in HostFunction::ALL {
        let name = function.name();
        match function {
            HostFunction::Log => linker.func_wrap(HOST_MODULE, name, log)?,
            HostFunction::Panic => linker.func_wrap(HOST_MODULE, name, panic)?,
            HostFunction::SharedLen => linker.func_wrap(HOST_MODULE, name, shares::len)?,
            HostFunction::SharedRead => linker.func_wrap(HOST_MODULE, name, shares::read)?,
        };
    }
    assembly_script::define(&mut linker)?;
    Ok(linker)
}

/// Returns what a worker with such an engine provides to modules.
///
/// # Errors
/// The same errors as those of [`linker`].
pub(crate) fn provided(engine: &Engine) -> Result<Provided> {
    let linker = linker_with_wasi(engine, Previews::Both)?;
    let mut store = Store::new(engine, TaskState::for_linking());
    let items: Vec<_> =
        linker.iter(&mut store).map(|(m, n, item)| ((m.to_string(), n.to_string()), item)).collect();
    let functions = items.into_iter().filter_map(|(name, item)| Some((name, item.into_func()?)));
    Ok(functions.map(|(name, function)| (name, function.ty(&store))).collect())
}

type TextAt = (u32, u32);

#[expect(clippy::too_many_arguments, reason = "the byte ABI's signature")]
fn log(
    mut caller: Caller<'_, TaskState>,
    level: u32,
    target: u32,
    target_len: u32,
    message: u32,
    message_len: u32,
    fields: u32,
    fields_len: u32,
) -> Result<()> {
    let target = text(&mut caller, (target, target_len), LOG_RECORD_BYTES_MAX)?;
    let message = text(&mut caller, (message, message_len), LOG_RECORD_BYTES_MAX)?;
    let fields = text(&mut caller, (fields, fields_len), LOG_RECORD_BYTES_MAX)?;
    let level = level.clamp(1, 5) as u8;
    Ok(caller.data().task_log.record(LogSource::Guest, level, &target, &message, &fields)?)
}

fn panic(
    mut caller: Caller<'_, TaskState>,
    message: u32,
    message_len: u32,
    file: u32,
    file_len: u32,
    line: u32,
    column: u32,
) -> Result<()> {
    let message = text(&mut caller, (message, message_len), GUEST_TEXT_BYTES_MAX)?;
    let file = text(&mut caller, (file, file_len), LOG_RECORD_BYTES_MAX)?;
    // Not every language knows where it panics, nor in which column.
    let location = match (file.as_str(), column) {
        ("", _) => String::new(),
        (_, 0) => format!("{file}:{line}"),
        _ => format!("{file}:{line}:{column}"),
    };
    // The first panic is the cause; a second one happens while the first is reported.
    caller.data_mut().panic.get_or_insert((message, location));
    Ok(())
}

/// A guest's text: bounds checked in 64 bits, cut to `bytes_max`, made UTF-8.
fn text(caller: &mut Caller<'_, TaskState>, (pointer, len): TextAt, bytes_max: usize) -> Result<String> {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        return Err(wasmtime::format_err!("the module has no memory to read a text from"));
    };
    let data = memory.data(&*caller);
    let start = pointer as u64;
    let end = pointer as u64 + len as u64;
    if end > data.len() as u64 {
        return Err(wasmtime::Trap::MemoryOutOfBounds.into());
    }
    let bytes = &data[start as usize..end as usize];
    let cut = &bytes[..bytes.len().min(bytes_max)];
    let mut text = String::from_utf8_lossy(cut).into_owned();
    if cut.len() < bytes.len() {
        text.push('…');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proto::imports::{SCRIPT_MODULE, ScriptFunction};

    #[test]
    fn the_linker_has_the_functions_of_the_list_and_no_others() {
        let engine = Engine::default();
        let linker = linker(&engine).expect("a linker");
        let mut store = Store::new(&engine, TaskState::for_linking());
        let defined: Vec<_> =
            linker.iter(&mut store).map(|(module, name, _)| format!("{module}.{name}")).collect();
        let of_script = ScriptFunction::ALL.map(|function| format!("{SCRIPT_MODULE}.{}", function.name()));
        let listed = HostFunction::ALL.map(|function| format!("{HOST_MODULE}.{}", function.name()));
        let listed = [&listed[..], &of_script].concat();
        assert!(listed.iter().all(|function| defined.contains(function)), "{defined:?}");
        assert_eq!(defined.len(), listed.len(), "{defined:?}");
    }

    /// Names and types agree, but for a call that came with preview 1. So a program finds all that it imports, and the
    /// aliases are of functions with the same parameters.
    #[test]
    fn preview_0_has_the_functions_of_preview_1_with_their_types() {
        let provided = provided(&Engine::default()).expect("a linker");
        let of = |preview: Preview| {
            let functions = provided.iter().filter(|((module, _), _)| module == preview.module());
            functions.map(|((_, name), ty)| (name.clone(), ty.to_string())).collect::<BTreeMap<_, _>>()
        };
        let mut newer = of(Preview::One);
        assert!(newer.remove("sock_accept").is_some());
        assert_eq!(of(Preview::Zero), newer);
        assert!(OTHERS_IN_PREVIEW_0.iter().all(|name| newer.contains_key(*name)));
    }

    #[test]
    fn what_a_worker_provides_has_its_types_wasi_and_the_byte_abi() {
        let provided = provided(&Engine::default()).expect("a linker");
        let params = |module: &str, name: &str| {
            provided.get(&(module.to_string(), name.to_string())).map(|function| function.params().len())
        };
        assert_eq!(params(HOST_MODULE, "log"), Some(7));
        for preview in Preview::ALL {
            assert_eq!(params(preview.module(), "fd_write"), Some(4));
            assert_eq!(params(preview.module(), "no_such_call"), None);
        }
        assert_eq!(params(Preview::Zero.module(), "sock_accept"), None);
    }
}
