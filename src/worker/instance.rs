//! One task: a fresh store and instance, the call, and what came of it.

use std::future::Future;
use std::io::{self, Write};
use std::pin::pin;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use rustix::time::ClockId;
use wasmtime::{Instance, ModuleExport, Store, UpdateDeadline, WasmParams, WasmResults};

use super::abi::read_envelope;
use super::budget::Budget;
use super::clocks::Clock;
use super::journal::Journal;
use super::linker::TaskState;
use super::loaded::{Loaded, Modules};
use super::stdio::GuestOutput;
use super::verdict;
use super::wasi::{self, TaskDir};
use super::watcher::Shared;
use crate::limits::WASI_CALL_BYTES_MAX;
use crate::task::{TaskId, TaskLimits};
use crate::wire::message::{Cost, Entry, LogSource, ModuleId, Verdict};

/// Runs tasks, one after the other.
pub(super) struct Runner {
    modules: Modules,
    dirs: Vec<TaskDir>,
    shared: Arc<Shared>,
    to_host: Arc<Mutex<dyn Write + Send>>,
    /// Drives the timers of WASI; no thread of its own.
    runtime: tokio::runtime::Runtime,
}

/// What the host asked for.
pub(super) struct Order {
    pub(super) task: TaskId,
    pub(super) run: u64,
    pub(super) module: ModuleId,
    pub(super) entry: Entry,
    pub(super) limits: TaskLimits,
}

/// A task that has ended.
pub(super) struct Ended {
    pub(super) verdict: Verdict,
    pub(super) payload: Vec<u8>,
    pub(super) cost: Cost,
}

/// One task's call, as its phases need it.
struct Call<'a> {
    run: u64,
    entry: &'a Entry,
    limits: TaskLimits,
    input: Vec<u8>,
    stdout: GuestOutput,
    stderr: GuestOutput,
}

impl Runner {
    pub(super) fn new(
        modules: Modules,
        dirs: Vec<TaskDir>,
        shared: Arc<Shared>,
        to_host: Arc<Mutex<dyn Write + Send>>,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        Ok(Runner { modules, dirs, shared, to_host, runtime })
    }

    /// Runs what was asked for; the number tells an interrupt of this run from all others.
    pub(super) fn run(&mut self, order: &Order, input: Vec<u8>) -> Ended {
        self.shared.set_current(order.run);
        let (began, cpu_began) = (Instant::now(), cpu_ns());
        let mut cost = Cost::default();
        let (verdict, payload) = match self.modules.get(order.module) {
            Err(message) => (Verdict::Instantiate { message }, Vec::new()),
            Ok(loaded) => self.run_in(&loaded, order, input, &mut cost),
        };
        self.shared.set_current(0);
        cost.run_ns = began.elapsed().as_nanos() as u64;
        cost.cpu_ns = cpu_ns().saturating_sub(cpu_began);
        Ended { verdict, payload, cost }
    }

    fn run_in(&self, loaded: &Loaded, order: &Order, input: Vec<u8>, cost: &mut Cost) -> (Verdict, Vec<u8>) {
        let Order { task, run, entry, limits, .. } = order;
        let (task, run, limits) = (*task, *run, *limits);
        let journal = Journal::new(task, limits.log_bytes_max, limits.log_overflow, self.to_host.clone());
        let (stdout, stderr) = match entry {
            Entry::Command { .. } => {
                let bytes_max = limits.output_bytes_max;
                (GuestOutput::capture(bytes_max), GuestOutput::capture(bytes_max))
            }
            Entry::Task(_) => (
                GuestOutput::lines(journal.clone(), LogSource::Stdout),
                GuestOutput::lines(journal.clone(), LogSource::Stderr),
            ),
        };
        let mut call = Call { run, entry, limits, input, stdout, stderr };
        let mut store = match self.store(loaded, &mut call, journal.clone()) {
            Ok(store) => store,
            Err(error) => return (Verdict::Instantiate { message: format!("{error:#}") }, Vec::new()),
        };
        // An interrupt that came before the store had its deadline bumped an epoch that nobody
        // watched. From here on the bump is seen; so look once now (the fence pairs with the one
        // in `Shared::interrupt`).
        fence(Ordering::SeqCst);
        if self.shared.is_interrupted(run) {
            return (Verdict::Interrupted, Vec::new());
        }
        // Ordinary modules run on this very stack. WASI may wait, so it runs on a fiber that an
        // interrupt can drop in the middle of a host call.
        let ran = if loaded.description.uses_wasi {
            self.runtime.block_on(self.unless_interrupted(run, execute::<true>(&mut store, loaded, &call)))
        } else {
            poll_once(execute::<false>(&mut store, loaded, &call))
        };
        call.stdout.flush_line();
        call.stderr.flush_line();
        cost.peak_memory_bytes = store.data().budget.peak;
        if loaded.description.metered {
            let fuel = limits.fuel.unwrap_or(u64::MAX);
            cost.fuel_used = Some(fuel - store.get_fuel().unwrap_or_default().min(fuel));
        }
        let ended = match ran {
            None => (Verdict::Interrupted, Vec::new()),
            Some(ran) => match journal.fatal_bytes() {
                Some(bytes) => (Verdict::LogsTooLarge { bytes }, Vec::new()),
                None => self.judge(ran, &store, &call),
            },
        };
        cost.log_bytes_dropped = journal.dropped();
        ended
    }

    fn store(
        &self,
        loaded: &Loaded,
        call: &mut Call<'_>,
        journal: Journal,
    ) -> wasmtime::Result<Store<TaskState>> {
        let engine = loaded.instance.module().engine();
        let (wasi, clock) = match loaded.description.uses_wasi {
            true => {
                let Call { entry, limits, input, stdout, stderr, .. } = call;
                let (wasi, clock) = wasi::context(entry, limits, input, stdout, stderr, &self.dirs)?;
                (Some(wasi), clock)
            }
            false => (None, Clock::none()),
        };
        let budget = Budget::new(call.limits.memory_bytes_max);
        let mut store = Store::new(engine, TaskState { budget, journal, wasi, clock, panic: None });
        store.set_hostcall_fuel(WASI_CALL_BYTES_MAX);
        store.limiter(|state| &mut state.budget);
        if loaded.description.metered {
            store.set_fuel(call.limits.fuel.unwrap_or(u64::MAX))?;
        }
        // Any bump of the epoch calls back; only one that is meant for this task stops it.
        store.set_epoch_deadline(1);
        let (shared, run) = (self.shared.clone(), call.run);
        store.epoch_deadline_callback(move |_| {
            Ok(if shared.is_interrupted(run) {
                UpdateDeadline::Interrupt
            } else {
                UpdateDeadline::Continue(1)
            })
        });
        Ok(store)
    }

    /// `None` if the host's interrupt came first.
    async fn unless_interrupted<T>(&self, run: u64, work: impl Future<Output = T>) -> Option<T> {
        let interrupted = async {
            // A permit may be left over from an interrupt that came too late for its task.
            while !self.shared.is_interrupted(run) {
                self.shared.interrupt.notified().await;
            }
        };
        let (mut interrupted, mut work) = (pin!(interrupted), pin!(work));
        std::future::poll_fn(|context| {
            if interrupted.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            work.as_mut().poll(context).map(Some)
        })
        .await
    }

    fn judge(
        &self,
        ran: wasmtime::Result<(Verdict, Vec<u8>)>,
        store: &Store<TaskState>,
        call: &Call<'_>,
    ) -> (Verdict, Vec<u8>) {
        let is_command = matches!(call.entry, Entry::Command { .. });
        let verdict = match ran {
            Ok((Verdict::Exited { code, .. }, _)) if is_command => Verdict::Exited { code, stdout_bytes: 0 },
            Ok(ended) => return ended,
            Err(error) => match call.stdout.overflow().or(call.stderr.overflow()) {
                Some(bytes) => Verdict::OutputTooLarge { bytes },
                None => verdict::of_error(&error, store.data(), self.shared.is_interrupted(call.run)),
            },
        };
        match verdict {
            Verdict::Exited { code, .. } => {
                let mut payload = call.stdout.take();
                let stdout_bytes = payload.len() as u64;
                payload.extend(call.stderr.take());
                (Verdict::Exited { code, stdout_bytes }, payload)
            }
            verdict => (verdict, Vec::new()),
        }
    }
}

/// Instantiates and calls. With `FIBER`, every step may be suspended; without, none is.
async fn execute<const FIBER: bool>(
    store: &mut Store<TaskState>,
    loaded: &Loaded,
    call: &Call<'_>,
) -> wasmtime::Result<(Verdict, Vec<u8>)> {
    let instance = if FIBER {
        loaded.instance.instantiate_async(&mut *store).await?
    } else {
        loaded.instance.instantiate(&mut *store)?
    };
    let index = match call.entry {
        Entry::Command { .. } => {
            invoke::<FIBER, (), ()>(store, &instance, loaded.start.as_ref(), ()).await?;
            return Ok((Verdict::Exited { code: 0, stdout_bytes: 0 }, Vec::new()));
        }
        Entry::Task(index) => *index as usize,
    };
    if loaded.reactor_start.is_some() {
        invoke::<FIBER, (), ()>(store, &instance, loaded.reactor_start.as_ref(), ()).await?;
    }
    if loaded.initializer.is_some() {
        let packed =
            invoke::<FIBER, (u32, u32), i64>(store, &instance, loaded.initializer.as_ref(), (0, 0)).await?;
        let (verdict, payload) = envelope(store, &instance, loaded, packed, call.limits.output_bytes_max)?;
        if verdict != Verdict::Ok {
            return Ok((verdict, payload));
        }
    }
    let Ok(len) = u32::try_from(call.input.len()) else {
        let message = format!("{} bytes of input do not fit a 32-bit memory", call.input.len());
        return Ok((Verdict::InputDecode, message.into_bytes()));
    };
    let pointer = invoke::<FIBER, (u32,), u32>(store, &instance, loaded.alloc.as_ref(), (len,)).await?;
    if let Some(refused) = write_input(store, &instance, loaded, pointer, &call.input)? {
        return Ok((refused, Vec::new()));
    }
    let function = loaded.tasks.get(index).and_then(Option::as_ref);
    let packed = invoke::<FIBER, (u32, u32), i64>(store, &instance, function, (pointer, len)).await?;
    envelope(store, &instance, loaded, packed, call.limits.output_bytes_max)
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

/// Copies the input to where the guest said; or says why it cannot.
fn write_input(
    store: &mut Store<TaskState>,
    instance: &Instance,
    loaded: &Loaded,
    pointer: u32,
    input: &[u8],
) -> wasmtime::Result<Option<Verdict>> {
    let memory = memory(store, instance, loaded)?;
    let data = memory.data_mut(&mut *store);
    let end = pointer as u64 + input.len() as u64;
    if pointer == 0 || end > data.len() as u64 {
        let (len, memory_bytes) = (input.len() as u32, data.len() as u64);
        // A null pointer is how the ABI says that there is no memory left.
        if let (0, Some(requested)) = (pointer, store.data().budget.refused) {
            return Ok(Some(Verdict::Memory { requested, backtrace: Vec::new() }));
        }
        if pointer == 0 {
            let message =
                format!("wasmpool_alloc returned 0: the guest has no room for an input of {len} bytes");
            return Ok(Some(Verdict::Abi { message }));
        }
        return Ok(Some(Verdict::BadPointer { pointer, len, memory_bytes }));
    }
    data[pointer as usize..end as usize].copy_from_slice(input);
    Ok(None)
}

fn envelope(
    store: &mut Store<TaskState>,
    instance: &Instance,
    loaded: &Loaded,
    packed: i64,
    output_bytes_max: u64,
) -> wasmtime::Result<(Verdict, Vec<u8>)> {
    let memory = memory(store, instance, loaded)?;
    Ok(read_envelope(memory.data(&*store), packed, output_bytes_max))
}

fn memory(
    store: &mut Store<TaskState>,
    instance: &Instance,
    loaded: &Loaded,
) -> wasmtime::Result<wasmtime::Memory> {
    loaded
        .memory
        .as_ref()
        .and_then(|export| instance.get_module_export(&mut *store, export))
        .and_then(|export| export.into_memory())
        .ok_or_else(|| wasmtime::format_err!("the module does not export its memory"))
}

/// Runs a future that never waits.
fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// CPU time of this thread.
fn cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64)
}
