//! The pool: what an embedder holds.

mod builder;
mod map;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use builder::PoolBuilder;
pub use map::{Map, MapError};

use crate::compile::cache::{Cache, CacheKey, Compiled};
use crate::dispatch::Event;
use crate::error::{BrokenPool, BuildError, ModuleError, SubmitError};
use crate::future::TaskFuture;
use crate::host::core::{Call, Core};
use crate::host::{compile, is_io_thread};
use crate::limits;
use crate::module::{Callable, Digest, Loaded, Module, ModuleOptions, RawTask};
use crate::task::TaskOptions;
use crate::wire::message::{Entry, ModuleId};

/// A pool of worker processes that run WebAssembly tasks. Cheap to clone; all clones are
/// the same pool.
///
/// Workers start on demand. When the last clone is dropped, the pool finishes what was
/// submitted and then ends its processes, as leaving Python's `with` block does;
/// [`shutdown`](Pool::shutdown) and [`kill`](Pool::kill) are the ways to do otherwise.
///
/// All methods may be called from any thread, from done callbacks too. Inside of a
/// [`Waker`](std::task::Waker), which may run on a thread that the pool depends on, nothing
/// waits: a full queue refuses, and shutting down or dropping the pool only begins it.
#[derive(Clone)]
pub struct Pool(Arc<Handle>);

struct Handle {
    core: Arc<Core>,
    cache: Option<Cache>,
    modules: Mutex<HashMap<(Digest, bool), Module>>,
    supervisor: Mutex<Option<JoinHandle<()>>>,
    callback_thread: std::thread::ThreadId,
}

/// What [`Pool::shutdown`] does with tasks that do not run yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ShutdownMode {
    /// They run.
    Finish,
    /// They are cancelled; what runs is finished.
    CancelPending,
}

impl Pool {
    /// A builder with the defaults: one worker for each CPU that this process may use.
    pub fn builder() -> PoolBuilder {
        PoolBuilder::new()
    }

    /// A pool with the defaults.
    ///
    /// # Errors
    /// As [`PoolBuilder::build`].
    pub fn new() -> Result<Pool, BuildError> {
        Pool::builder().build()
    }

    /// Loads a wasm file: compiled in a process of its own, or taken from the cache.
    /// The module is named after the file.
    ///
    /// # Errors
    /// [`ModuleError`].
    pub fn load_file(&self, path: impl AsRef<Path>) -> Result<Module, ModuleError> {
        self.load_file_with(path, ModuleOptions::new())
    }

    /// As [`load_file`](Self::load_file), with options.
    ///
    /// # Errors
    /// [`ModuleError`].
    pub fn load_file_with(
        &self,
        path: impl AsRef<Path>,
        mut options: ModuleOptions,
    ) -> Result<Module, ModuleError> {
        let path = path.as_ref();
        if options.name.is_none() {
            options.name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        }
        let wasm = compile::read_wasm(path, limits::MODULE_BYTES_MAX as u64)?;
        self.load_with(&wasm, options)
    }

    /// Loads a module from its bytes.
    ///
    /// # Errors
    /// [`ModuleError`].
    pub fn load(&self, wasm: &[u8]) -> Result<Module, ModuleError> {
        self.load_with(wasm, ModuleOptions::new())
    }

    /// As [`load`](Self::load), with options. A module that this pool has loaded already
    /// is returned as it is, under its first name; it stays loaded as long as the pool
    /// lives. Waits for the compiler.
    ///
    /// # Errors
    /// [`ModuleError`].
    pub fn load_with(&self, wasm: &[u8], options: ModuleOptions) -> Result<Module, ModuleError> {
        if wasm.len() > limits::MODULE_BYTES_MAX {
            let max = limits::MODULE_BYTES_MAX as u64;
            return Err(ModuleError::TooLarge { bytes: wasm.len() as u64, max });
        }
        let digest = Digest::of(wasm);
        let known = |handle: &Handle| handle.modules().get(&(digest, options.metered)).cloned();
        if let Some(module) = known(&self.0) {
            return Ok(module);
        }
        let (compiled, from_cache) = self.compiled(wasm, digest, options.metered)?;
        let name = options.name.unwrap_or_else(|| digest.short());
        let mut modules = self.0.modules();
        let id = ModuleId(modules.len() as u32);
        let module = Module(Arc::new(Loaded {
            pool: self.0.core.id,
            id,
            shown: format!("{name} (sha256 {}…)", digest.short()).into(),
            name,
            digest,
            description: compiled.description,
            from_cache,
            artifact: compiled.artifact,
            description_file: compiled.description_file,
        }));
        // Another thread may have loaded the same meanwhile: the first stays.
        Ok(modules.entry((digest, options.metered)).or_insert(module).clone())
    }

    fn compiled(&self, wasm: &[u8], digest: Digest, metered: bool) -> Result<(Compiled, bool), ModuleError> {
        let key = CacheKey::new(digest, metered);
        if let Some(cache) = &self.0.cache
            && let Some(compiled) = cache.find(&key)
        {
            return Ok((compiled, true));
        }
        let compiled = compile::compile(&self.0.core, wasm, metered)?;
        if let Some(cache) = &self.0.cache
            && let Err(error) = cache.store(&key, &compiled)
        {
            tracing::warn!(%digest, %error, "a compiled module could not be cached");
        }
        Ok((compiled, false))
    }

    /// Hands a task over. The input is encoded at once: later changes to it are not seen.
    /// Waits while the queue is full.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn submit<C: Callable>(
        &self,
        task: &C,
        input: &C::Input,
    ) -> Result<TaskFuture<C::Output>, SubmitError> {
        self.submit_with(task, input, TaskOptions::new())
    }

    /// As [`submit`](Self::submit), with options of the task's own.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn submit_with<C: Callable>(
        &self,
        task: &C,
        input: &C::Input,
        options: TaskOptions,
    ) -> Result<TaskFuture<C::Output>, SubmitError> {
        self.hand_over(task, input, options, true)
    }

    /// As [`submit_with`](Self::submit_with), but does not wait.
    ///
    /// # Errors
    /// [`SubmitError::QueueFull`], and the others.
    pub fn try_submit<C: Callable>(
        &self,
        task: &C,
        input: &C::Input,
        options: TaskOptions,
    ) -> Result<TaskFuture<C::Output>, SubmitError> {
        self.hand_over(task, input, options, false)
    }

    /// Submits bytes to an untyped task.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn submit_bytes(
        &self,
        task: &RawTask,
        input: impl Into<Bytes>,
    ) -> Result<TaskFuture<Bytes>, SubmitError> {
        self.submit(task, &input.into())
    }

    fn hand_over<C: Callable>(
        &self,
        task: &C,
        input: &C::Input,
        options: TaskOptions,
        wait: bool,
    ) -> Result<TaskFuture<C::Output>, SubmitError> {
        let core = &self.0.core;
        let target = task.target();
        let name = || target.name.to_string();
        if target.module.0.pool != core.id {
            return Err(SubmitError::ForeignModule { task: name() });
        }
        let options = options.or(&core.settings.defaults);
        if options.fuel.is_some() && !target.module.0.description.metered {
            let module = target.module.0.shown.to_string();
            return Err(SubmitError::NotMetered { task: name(), module });
        }
        let (entry, input) = task.encode(input)?;
        let max = core.settings.input_bytes_max;
        if input.len() > max {
            return Err(SubmitError::InputTooLarge { task: name(), bytes: input.len(), max });
        }
        if let Entry::Command { args, env } = &entry {
            let texts = args.iter().chain(env.iter().flat_map(|(name, value)| [name, value]));
            let bytes = texts.map(|text| text.len() + 8).sum();
            let max = limits::FRAME_META_BYTES_MAX / 2;
            if bytes > max {
                return Err(SubmitError::InputTooLarge { task: name(), bytes, max });
            }
        }
        let call = Call { module: target.module.clone(), entry, limits: options.limits(), input };
        let cell = core.submit(call, target.name.clone(), options, wait)?;
        Ok(TaskFuture::new(cell, C::decode, Arc::downgrade(core)))
    }

    /// Runs the task over every input and yields the results in input order. Inputs are
    /// pulled as needed, at most [`Map::buffer_size`] ahead, so endless iterators work.
    /// Dropping the iterator cancels what does not run yet.
    pub fn map<C, I>(&self, task: &C, inputs: I) -> Map<C, I::IntoIter>
    where
        C: Callable + Clone,
        I: IntoIterator<Item = C::Input>,
    {
        Map::new(self.clone(), task.clone(), inputs.into_iter())
    }

    /// Takes no more tasks, and waits until what was submitted is done (or cancelled, by
    /// `mode`) and every process is gone. Later submits get [`SubmitError::ShutDown`].
    pub fn shutdown(&self, mode: ShutdownMode) {
        self.begin_shutdown(mode);
        self.0.wait_until_gone();
    }

    /// As [`shutdown`](Self::shutdown), but kills what is left after `timeout`. `true` if
    /// nothing had to be killed.
    pub fn shutdown_timeout(&self, mode: ShutdownMode, timeout: Duration) -> bool {
        self.begin_shutdown(mode);
        let in_time = self.0.core.wait_stopped(Instant::now().checked_add(timeout));
        if !in_time {
            self.kill();
        }
        in_time
    }

    /// Starts a [`shutdown`](Self::shutdown) and returns at once.
    pub fn begin_shutdown(&self, mode: ShutdownMode) {
        let cancel_pending = mode == ShutdownMode::CancelPending;
        self.0.core.handle(Event::Shutdown { cancel_pending });
    }

    /// Kills every worker and waits until they are gone: pending tasks are cancelled,
    /// running ones fail as [`TaskError::Broken`](crate::TaskError::Broken).
    pub fn kill(&self) {
        self.0.core.handle(Event::Kill);
        self.0.wait_until_gone();
    }

    /// The breakage, if a worker's death has broken the pool.
    pub fn broken(&self) -> Option<BrokenPool> {
        self.0.core.broken()
    }

    /// The pids of the workers that live now.
    pub fn worker_pids(&self) -> Vec<u32> {
        self.0.core.worker_pids()
    }

    /// Most workers that this pool runs.
    pub fn workers_max(&self) -> usize {
        self.0.core.settings.workers_max
    }

    /// Tasks accepted and not yet done.
    pub fn unresolved_tasks(&self) -> usize {
        self.0.core.unresolved()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = &self.0.core;
        write!(f, "Pool({} of {} workers", core.worker_pids().len(), core.settings.workers_max)?;
        write!(f, ", {} tasks", core.unresolved())?;
        f.write_str(if core.broken().is_some() { ", broken)" } else { ")" })
    }
}

impl Handle {
    fn modules(&self) -> std::sync::MutexGuard<'_, HashMap<(Digest, bool), Module>> {
        self.modules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the pool has stopped, its threads are gone and done callbacks have run.
    /// Not on a thread of the pool's own, which would wait for itself.
    fn wait_until_gone(&self) {
        if is_io_thread() {
            return;
        }
        self.core.wait_stopped(None);
        self.join();
        if std::thread::current().id() == self.callback_thread {
            return;
        }
        let (ran, marker) = crossbeam_channel::bounded::<()>(0);
        // The marker is dropped when its turn comes, after every callback before it.
        if self.core.callbacks.send(Box::new(move || drop(ran))).is_ok() {
            let _ = marker.recv();
        }
    }

    /// Waits for the supervisor's thread, which ends once the pool has stopped.
    fn join(&self) {
        let supervisor = self.supervisor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(supervisor) = supervisor
            && supervisor.join().is_err()
        {
            tracing::error!("the supervisor panicked");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.handle(Event::Shutdown { cancel_pending: false });
        self.wait_until_gone();
    }
}
