//! Runs one task: it makes a fresh store and instance, calls, and judges the result.
//!
//! An instance serves one task, or under `Isolation::Reuse` one after the other, until one of them
//! does not succeed. Between two tasks, when nothing waits, the next instance of the module at hand
//! is made in advance (*prepared*), where no code of the guest's runs for that.

use std::future::Future;
use std::io::{self, Write};
use std::pin::{Pin, pin};
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use wasmtime::{Store, UpdateDeadline};

use super::asks::Asker;
use super::budget::Budget;
use super::call::{Bound, BoundInstance, CallContext, CallPayload, CallResult, execute, payload_bytes};
use super::cpu::CpuClock;
use super::linker::TaskState;
use super::loaded::{Loaded, Modules, Program};
use super::run_end;
use super::stdio::GuestOutput;
use super::task_log::TaskLog;
use super::wasi::{self, TaskDir, Wasi, WasiContext};
use super::watcher::WatcherState;
use proto::description::ModuleForm;
use proto::inbox::Input;
use proto::limits::WASI_CALL_BYTES_MAX;
use proto::limits::task::TaskLimits;
use proto::message::{Callee, Completion, Cost, LogSource, ModuleId, RunEnd, RunMessage};

/// Runs tasks, one after the other.
pub(super) struct Runner {
    modules: Modules,
    dirs: Vec<TaskDir>,
    watcher: Arc<WatcherState>,
    to_host: Arc<Mutex<dyn Write + Send>>,
    /// All tasks share it, and each begins it anew.
    task_log: TaskLog,
    /// Drives the timers of WASI; no thread of its own.
    runtime: tokio::runtime::Runtime,
    clock: CpuClock,
    /// The instance is boxed, since it is large and is moved between this field and the call that runs in it.
    warm: Option<Box<WarmInstance>>,
    /// The module of the last task, and of how many in a row.
    in_a_row: (Option<(ModuleId, Arc<Loaded>)>, u32),
    /// The last task had this index in its module.
    last_task: usize,
}

/// An instance, or what will have one.
struct WarmInstance {
    module: ModuleId,
    store: Store<TaskState>,
    bound: Option<Bound>,
    /// Tasks that have run in it: 0 if it was prepared.
    served: u32,
}

/// Takes what came of a task, before its instance is torn down: the host need not wait for that.
pub(super) type Answer<'a> = &'a mut dyn FnMut(&mut dyn Input, Completion, &[u8]) -> io::Result<()>;

/// An instance is prepared for the next task once this many tasks of one module have come in a row.
const PREPARED_AFTER: u32 = 2;

impl Runner {
    /// This must be called before the process locks itself down.
    pub(super) fn new(
        modules: Modules,
        dirs: Vec<TaskDir>,
        watcher: Arc<WatcherState>,
        to_host: Arc<Mutex<dyn Write + Send>>,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let task_log = TaskLog::new(to_host.clone());
        watcher.set_task_log(task_log.clone());
        Ok(Runner {
            modules,
            dirs,
            watcher,
            task_log,
            to_host,
            runtime,
            clock: CpuClock::new(),
            warm: None,
            in_a_row: (None, 0),
            last_task: 0,
        })
    }

    /// Runs what was asked for, and answers once; the run's number tells an interrupt of it from all
    /// others.
    ///
    /// # Errors
    /// If the host is gone.
    pub(super) fn run(
        &mut self,
        message: &RunMessage,
        limits: &TaskLimits,
        input: &mut dyn Input,
        answer: Answer<'_>,
    ) -> io::Result<()> {
        self.clock.begin();
        self.watcher.begin(message.run, message.task, self.clock.began_cpu_ns());
        if let Callee::Task(index) = message.callee {
            self.last_task = index.0 as usize;
        }
        let answered = match self.loaded(message.module) {
            Err(message) => self.answer_unrun(RunEnd::Instantiate { message }, input, answer),
            Ok(loaded) => {
                let answered = self.run_in(&loaded, message, limits, input, answer);
                // It was taken from there, since to count its handles costs more than to move one.
                self.in_a_row.0 = Some((message.module, loaded));
                answered
            }
        };
        self.watcher.end();
        answered
    }

    /// Maps the module of the next task ahead of it. An error is not lost: the task gets it again.
    pub(super) fn bring(&mut self, module: ModuleId) {
        if self.in_a_row.0.as_ref().is_none_or(|(last, _)| *last != module) {
            let _ = self.modules.get(module);
        }
    }

    /// The module of the task at hand, which [`run`](Self::run) notes as the last one.
    fn loaded(&mut self, module: ModuleId) -> Result<Arc<Loaded>, String> {
        match self.in_a_row.0.take() {
            Some((last, loaded)) if last == module => {
                self.in_a_row.1 = self.in_a_row.1.saturating_add(1);
                Ok(loaded)
            }
            before => {
                // Where that fails, the last module stays the last.
                self.in_a_row.0 = before;
                let loaded = self.modules.get(module)?;
                self.in_a_row.1 = 1;
                Ok(loaded)
            }
        }
    }

    /// Drops what is warm of modules that have ended. The watcher hears from the host that they have, but has
    /// no access to it.
    pub(super) fn let_go(&mut self) {
        if !self.watcher.takes_call() {
            return;
        }
        let has_ended = |module: &ModuleId| !self.watcher.modules.has(*module);
        if self.warm.as_ref().is_some_and(|warm| has_ended(&warm.module)) {
            self.warm = None;
        }
        if self.in_a_row.0.as_ref().is_some_and(|(module, _)| has_ended(module)) {
            self.in_a_row = (None, 0);
        }
    }

    /// Makes the next instance in advance, of the module that seems to be the next.
    pub(super) fn prepare(&mut self) {
        let (Some((module, loaded)), PREPARED_AFTER..) = &self.in_a_row else { return };
        if self.warm.is_some() {
            return;
        }
        // While no task is at hand, code of the guest's must not run, since no deadline would end it.
        if loaded.description.uses_wasi || loaded.description.has_start {
            return;
        }
        let Ok(mut store) = self.store(loaded) else { return };
        // An error here is left to the task, which meets it again and reports it.
        let bound = match &loaded.program {
            Program::Core(program) => program.instance.instantiate(&mut store).ok().map(|instance| {
                let mut bound = BoundInstance::new(instance, &mut store, program);
                bound.resolve_exports(&mut store, program, self.last_task);
                Bound::Core(bound)
            }),
            Program::Component(program) => program.prepare(&mut store, self.last_task).map(Bound::Component),
        };
        if bound.is_some() {
            self.warm = Some(Box::new(WarmInstance { module: *module, store, bound, served: 0 }));
        }
    }

    fn answer(
        &mut self,
        mut completion: Completion,
        payload: &[u8],
        input: &mut dyn Input,
        answer: Answer<'_>,
    ) -> io::Result<()> {
        (completion.cost.run_ns, completion.cost.cpu_ns) = self.clock.end();
        answer(input, completion, payload)
    }

    /// Answers a task that did not begin.
    fn answer_unrun(&mut self, end: RunEnd, input: &mut dyn Input, answer: Answer<'_>) -> io::Result<()> {
        let completion = Completion { end, cost: Cost::default(), stdout_bytes: 0 };
        self.answer(completion, &[], input, answer)
    }

    fn run_in(
        &mut self,
        loaded: &Loaded,
        message: &RunMessage,
        limits: &TaskLimits,
        input: &mut dyn Input,
        answer: Answer<'_>,
    ) -> io::Result<()> {
        let RunMessage { task, run, callee, .. } = message;
        self.task_log.begin(*task, limits);
        let shares = self.watcher.inputs.get(&message.shares);
        let ready = shares.and_then(|shares| {
            let ready =
                self.ready(loaded, message.module, limits, callee).map_err(|error| format!("{error:#}"))?;
            Ok((ready, shares))
        });
        let (mut warm, shares) = match ready {
            Ok(ready) => ready,
            Err(message) => return self.answer_unrun(RunEnd::Instantiate { message }, input, answer),
        };
        let WarmInstance { store, bound, served, .. } = &mut *warm;
        let state = store.data_mut();
        state.run = *run;
        state.shares = shares;
        let mut call = CallContext { callee, limits, input, output: Outputs::none() };
        if loaded.description.uses_wasi
            && let Err(end) = self.give_wasi(loaded.description.form, state, message, &mut call)
        {
            return self.answer_unrun(end, call.input, answer);
        }
        // An interrupt that came before the store had its deadline bumped an epoch that nobody
        // watched. From here on the bump is seen; so look once now (the fence pairs with the one
        // in `bump_epochs`).
        fence(Ordering::SeqCst);
        if self.watcher.is_interrupted(*run) {
            return self.answer_unrun(RunEnd::Interrupted, call.input, answer);
        }
        self.watcher.code.set(loaded.code());
        // Ordinary modules run on this very stack. WASI may wait, so it runs on a fiber that an
        // interrupt can drop in the middle of a host call.
        let ran = if loaded.description.uses_wasi {
            let work = execute::<true>(store, loaded, bound, *served == 0, &mut call, &self.watcher);
            self.runtime.block_on(self.unless_interrupted(*run, work))
        } else {
            poll_once(pin!(execute::<false>(store, loaded, bound, *served == 0, &mut call, &self.watcher)))
        };
        self.watcher.page.settle();
        call.output.flush_lines();
        let logged = self.task_log.end();
        let result = self.judge(ran, logged.fatal_bytes, loaded, store, &call);
        let cost = cost_of(loaded, limits, store, logged.dropped);
        let CallResult { end, payload, stdout_bytes } = result;
        let input = call.input;
        // Only an instance whose task succeeded is reused.
        *served += 1;
        let is_reusable = matches!(end, RunEnd::Ok) && *served < limits.instance_tasks_max;
        let completion = Completion { end, cost, stdout_bytes };
        self.answer(completion, payload_bytes(&payload, store), input, answer)?;
        if is_reusable && warm.bound.is_some() {
            // The instance may wait for its next task for long, and holds no shared inputs meanwhile.
            warm.store.data_mut().shares.clear();
            self.warm = Some(warm);
        }
        Ok(())
    }

    /// Gives a store what a guest that imports WASI needs, and the call its outputs.
    fn give_wasi(
        &self,
        form: ModuleForm,
        state: &mut TaskState,
        message: &RunMessage,
        call: &mut CallContext<'_>,
    ) -> Result<(), RunEnd> {
        if let Some(Wasi::Preview2 { outputs, .. }) = &state.wasi {
            // The instance at hand has handles of these.
            call.output = outputs.clone();
            return Ok(());
        }
        call.output = Outputs::new(call.callee, call.limits, &self.task_log);
        let asker = || Asker {
            task: message.task,
            run: message.run,
            watcher: self.watcher.clone(),
            to_host: self.to_host.clone(),
        };
        let WasiContext { wasi, clock, stdin } =
            wasi::context(form, call.callee, call.limits, call.input, &call.output, &self.dirs, asker)?;
        state.wasi = Some(wasi);
        state.clock = clock;
        state.stdin = stdin;
        Ok(())
    }

    /// A store for the task, with its instance if that stands already.
    fn ready(
        &mut self,
        loaded: &Loaded,
        module: ModuleId,
        limits: &TaskLimits,
        callee: &Callee,
    ) -> wasmtime::Result<Box<WarmInstance>> {
        // A program begins in an instance of its own, since its module may have functions that were called before.
        let served_max = match callee {
            Callee::Command { .. } => 1,
            Callee::Task(_) => limits.instance_tasks_max,
        };
        let warm = self.warm.take().filter(|warm| {
            // An instance that is over this task's limit is made again, and then fails as it should.
            warm.module == module
                && warm.served < served_max
                && warm.store.data().budget.used() <= limits.memory_bytes_max
        });
        let mut warm = match warm {
            Some(warm) => warm,
            None => {
                let store = self.store(loaded)?;
                Box::new(WarmInstance { module, store, bound: None, served: 0 })
            }
        };
        let store = &mut warm.store;
        store.data_mut().begin(limits, self.clock.began());
        if loaded.description.metered {
            store.set_fuel(limits.fuel.unwrap_or(u64::MAX))?;
        }
        // Any bump of the epoch calls back; only one that is meant for this task stops it. Code that is not metered does
        // not look at it.
        store.set_epoch_deadline(1);
        Ok(warm)
    }

    /// A store that is not any task's yet.
    fn store(&self, loaded: &Loaded) -> wasmtime::Result<Store<TaskState>> {
        let engine = loaded.engine();
        let budget = Budget::new(u64::MAX, self.clock.began());
        let mut store = Store::new(engine, TaskState::new(budget, self.task_log.clone()));
        store.set_hostcall_fuel(WASI_CALL_BYTES_MAX);
        store.limiter(|state| &mut state.budget);
        if loaded.looks_at_epoch() {
            self.watch_epoch(&mut store);
        }
        Ok(store)
    }

    /// Has code that looks at the engine's epoch stop, if the run at hand is to.
    fn watch_epoch(&self, store: &mut Store<TaskState>) {
        store.set_epoch_deadline(1);
        let watcher = self.watcher.clone();
        store.epoch_deadline_callback(move |store| {
            if watcher.is_interrupted(store.data().run) {
                return Ok(UpdateDeadline::Interrupt);
            }
            Ok(UpdateDeadline::Continue(1))
        });
    }

    /// `None` if the host's interrupt came first.
    async fn unless_interrupted<T>(&self, run: u64, work: impl Future<Output = T>) -> Option<T> {
        let interrupted = async {
            // A permit may be left over from an interrupt that came too late for its task.
            while !self.watcher.is_interrupted(run) {
                self.watcher.interrupt.notified().await;
            }
        };
        let mut interrupted = pin!(interrupted);
        let mut work = pin!(work);
        std::future::poll_fn(|context| {
            if interrupted.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            work.as_mut().poll(context).map(Some)
        })
        .await
    }

    fn stopped(&self, run: u64) -> run_end::Stopped {
        run_end::Stopped {
            is_interrupted: self.watcher.is_interrupted(run),
            at_safepoint: self.watcher.was_stopped(run),
        }
    }

    /// Says how a call ended that `ran`, or was interrupted (`None`). `fatal_log_bytes` is what the task logged if that
    /// was more than it may.
    fn judge(
        &self,
        ran: Option<wasmtime::Result<CallResult>>,
        fatal_log_bytes: Option<u64>,
        loaded: &Loaded,
        store: &Store<TaskState>,
        call: &CallContext<'_>,
    ) -> CallResult {
        let mut result = match (ran, fatal_log_bytes) {
            (None, _) => CallResult::of(RunEnd::Interrupted),
            (Some(_), Some(bytes)) => CallResult::of(RunEnd::LogsTooLarge { bytes }),
            (Some(Ok(result)), None) => result,
            (Some(Err(error)), None) => CallResult::of(match call.output.overflow() {
                Some(bytes) => RunEnd::OutputTooLarge { bytes },
                None => run_end::of_error(&error, loaded, store.data(), self.stopped(store.data().run)),
            }),
        };
        match (call.callee, &result.end) {
            (Callee::Command { .. }, _) => {
                // The caller gets what the command wrote until its end, however it ended.
                let (stdout_bytes, written) = call.output.take();
                result.stdout_bytes = stdout_bytes;
                result.payload = CallPayload::Owned(written);
            }
            // A runtime says there why it stops, and then traps or exits.
            (Callee::Task(_), RunEnd::Trap(_) | RunEnd::Exited { .. }) => {
                result.payload = CallPayload::Owned(call.output.last_words());
            }
            _ => {}
        }
        result
    }
}

/// Returns what a run cost, without its times.
fn cost_of(loaded: &Loaded, limits: &TaskLimits, store: &Store<TaskState>, log_bytes_dropped: u64) -> Cost {
    let budget = &store.data().budget;
    Cost {
        peak_memory_bytes: budget.peak,
        refusals: budget.report(),
        fuel_used: loaded.description.metered.then(|| {
            let fuel = limits.fuel.unwrap_or(u64::MAX);
            fuel - store.get_fuel().unwrap_or_default().min(fuel)
        }),
        log_bytes_dropped,
        ..Cost::default()
    }
}

/// A guest's stdout and stderr, if it can have them. Clones are the same outputs.
#[derive(Clone)]
pub(super) struct Outputs(pub(super) Option<[GuestOutput; 2]>);

impl Outputs {
    pub(super) fn none() -> Self {
        Outputs(None)
    }

    fn new(callee: &Callee, limits: &TaskLimits, task_log: &TaskLog) -> Self {
        Outputs(Some(match callee {
            Callee::Command { .. } => [(); 2].map(|()| GuestOutput::capture(limits.output_bytes_max)),
            Callee::Task(_) => [LogSource::Stdout, LogSource::Stderr]
                .map(|source| GuestOutput::lines(task_log.clone(), source)),
        }))
    }

    fn flush_lines(&self) {
        self.0.iter().flatten().for_each(GuestOutput::flush_line);
    }

    fn overflow(&self) -> Option<u64> {
        self.0.iter().flatten().find_map(GuestOutput::overflow)
    }

    /// Returns the end of what a task wrote to stderr.
    fn last_words(&self) -> Vec<u8> {
        self.0.as_ref().map(|[_, stderr]| stderr.last_words()).unwrap_or_default()
    }

    /// Returns how much was written to stdout, and then stdout and stderr in one piece.
    fn take(&self) -> (u64, Vec<u8>) {
        let Some([stdout, stderr]) = &self.0 else { return (0, Vec::new()) };
        let mut bytes = stdout.take();
        let stdout_bytes = bytes.len() as u64;
        bytes.extend(stderr.take());
        (stdout_bytes, bytes)
    }
}

/// Runs a future that never waits.
fn poll_once<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
