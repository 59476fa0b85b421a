//! The pool: what an embedder holds, how it is built, and what it does when something goes wrong.

mod background;
mod batch;
mod builder;
pub(crate) mod events;
mod feed;
mod load;
mod map;
mod quarantine;
mod share;
mod stream;
mod submit;
mod submission;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use background::Background;
pub use builder::PoolBuilder;
pub use map::{Map, UnorderedMap};
pub use stream::MapStream;
pub use submission::Submission;
pub use submit::Submit;

use self::events::Events;
use self::load::Loads;
use crate::error::{BrokenPool, BuildError};
use crate::fork::OfProcess;
use crate::host::cache::Cache;
use crate::host::compile::CompileSlots;
use crate::host::core::Core;
use crate::host::is_io_thread;
use crate::module::{Callable, InputOf};
use crate::observe::PoolStats;
pub use crate::policy::{DropPolicy, OnWorkerDeath, Replacement};
use crate::scheduler::Event;
use crate::shared_input::Shares;
use proto::limits;
use proto::policy::SandboxReport;
use proto::sync::Lock;
use proto::task::TaskId;

/// A pool of worker processes that run WebAssembly tasks. Cheap to clone; all clones are
/// the same pool.
///
/// Workers start on demand. When the last clone is dropped, the pool finishes what was submitted and then
/// ends its processes, as leaving Python's `with` block does: a `?` that leaves `main` early waits for
/// running tasks for as long as their timeouts allow. [`PoolBuilder::on_drop`] chooses otherwise
/// ([`DropPolicy`]), and [`shutdown`](Pool::shutdown) and [`kill`](Pool::kill) end the pool earlier. A pool
/// that is dropped during a panic kills its tasks, whatever the policy.
///
/// A pool belongs to the process that built it. After a `fork`, the child's copy does nothing: submitting,
/// loading and the results of its tasks are errors (`OtherProcess`), no call waits, and dropping it has no
/// effect. The parent does not notice.
///
/// All methods may be called from any thread, from done callbacks too. Done callbacks and
/// [`Waker`](std::task::Waker)s run on threads of their own, one each: one that blocks holds up the
/// next, and nothing else. Inside of a waker the pool's methods do not wait: a full queue refuses,
/// and shutting down or dropping the pool only begins it.
#[derive(Clone)]
#[doc(alias = "ProcessPoolExecutor")]
#[doc(alias = "Executor")]
pub struct Pool(Arc<OfProcess<Handle>>);

struct Handle {
    core: Arc<Core>,
    cache: Option<Cache>,
    loads: Loads,
    shares: Shares,
    compile_slots: CompileSlots,
    supervisor: Mutex<Option<JoinHandle<()>>>,
    callback_thread: std::thread::ThreadId,
}

/// The fate of tasks that do not run yet at a [`Pool::shutdown`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ShutdownMode {
    /// They run.
    #[default]
    Finish,
    /// They are cancelled; what runs is finished.
    #[doc(alias = "cancel_futures")]
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

    /// Runs the task over every input and yields the results in input order. Inputs are
    /// pulled as needed, at most [`Map::buffer_size`] ahead, so endless iterators work; nothing
    /// is pulled before the first result is asked for. Dropping the iterator cancels what does
    /// not run yet.
    ///
    /// A result that is there is yielded at once, whatever `inputs` does: it may be slow, or wait for a
    /// result before it has another input. So a thread of the map's own pulls the inputs while something is
    /// under way. While nothing is, or with a [`buffer_size`](Map::buffer_size) of 1, the thread that asks
    /// for a result does. If `inputs` panics, the panic comes out of the map once the results before it have
    /// been yielded. If the map is dropped while `inputs` waits for something, that thread ends and drops
    /// `inputs` as soon as it returns.
    ///
    /// [`map_local`](Self::map_local) takes an iterator that borrows or is not [`Send`].
    ///
    /// ```no_run
    /// # fn main() -> anyhow::Result<()> {
    /// # wasmpool::init();
    /// # let pool = wasmpool::Pool::new()?;
    /// # let count = pool.load_file("primes.wasm")?.task::<u64, u64>("count")?;
    /// // Each input is sent when the result before it has come.
    /// let (inputs, source) = std::sync::mpsc::channel::<u64>();
    /// inputs.send(10)?;
    /// for primes in pool.map(&count, source) {
    ///     let primes = primes?;
    ///     if primes > 1_000 {
    ///         break;
    ///     }
    ///     inputs.send(10 * (primes + 1))?;
    /// }
    /// # Ok(()) }
    /// ```
    pub fn map<C, I>(&self, task: &C, inputs: I) -> Map<C, I::IntoIter>
    where
        C: Callable + Clone + 'static,
        I: IntoIterator,
        I::Item: InputOf<C>,
        I::IntoIter: Send + 'static,
    {
        Map::new(self.clone(), task.clone(), inputs.into_iter(), Some(feed::start_thread))
    }

    /// Does the same as [`map`](Self::map) for an iterator that borrows or cannot go to another thread: the
    /// thread that asks for a result pulls the inputs. If the iterator takes longer than 20 µs for an input,
    /// a result that is there is yielded before anything more is pulled; otherwise two more inputs are pulled
    /// first. While the iterator waits, so does the caller: a result that comes meanwhile is yielded when the
    /// iterator returns, and an iterator that waits for a result before it has another input waits for ever.
    ///
    /// ```no_run
    /// # fn main() -> anyhow::Result<()> {
    /// # wasmpool::init();
    /// # let pool = wasmpool::Pool::new()?;
    /// # let count = pool.load_file("primes.wasm")?.task::<u64, u64>("count")?;
    /// let numbers = vec![10, 100, 1000];
    /// for (upto, primes) in numbers.iter().zip(pool.map_local(&count, numbers.iter().copied())) {
    ///     println!("{} primes below {upto}", primes?);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn map_local<C, I>(&self, task: &C, inputs: I) -> Map<C, I::IntoIter>
    where
        C: Callable + Clone,
        I: IntoIterator,
        I::Item: InputOf<C>,
    {
        Map::new(self.clone(), task.clone(), inputs.into_iter(), None)
    }

    /// Returns its handle, or `None` in a process that was forked from its own.
    fn here(&self) -> Option<&Handle> {
        self.0.here()
    }

    /// Returns its core, or `None` in a process that was forked from its own.
    pub(crate) fn core(&self) -> Option<&Arc<Core>> {
        self.here().map(|handle| &handle.core)
    }

    fn handle(&self, event: Event) {
        if let Some(core) = self.core() {
            core.handle(event);
        }
    }

    fn wait_until_gone(&self) {
        self.here().into_iter().for_each(Handle::wait_until_gone);
    }

    /// Takes no more tasks, and waits until what was submitted is done (or cancelled, by
    /// `mode`) and every process is gone. Later submits get [`SubmitError::ShutDown`](crate::error::SubmitError::ShutDown).
    pub fn shutdown(&self, mode: ShutdownMode) {
        self.begin_shutdown(mode);
        self.wait_until_gone();
    }

    /// Does the same as [`shutdown`](Self::shutdown), but kills what is left after `timeout`. Returns `true`
    /// if nothing had to be killed.
    pub fn shutdown_timeout(&self, mode: ShutdownMode, timeout: Duration) -> bool {
        self.begin_shutdown(mode);
        let deadline = Instant::now().checked_add(timeout);
        let in_time = self.core().is_none_or(|core| core.wait_stopped(deadline));
        if !in_time {
            self.kill();
        }
        in_time
    }

    /// Starts a [`shutdown`](Self::shutdown) and returns at once.
    pub fn begin_shutdown(&self, mode: ShutdownMode) {
        let cancel_pending = mode == ShutdownMode::CancelPending;
        self.handle(Event::Shutdown { cancel_pending });
    }

    /// Ends every worker with SIGTERM, those that do not leave within the grace period with
    /// SIGKILL, and waits until they are gone: pending tasks are cancelled, running ones fail as
    /// [`TaskError::Broken`](crate::TaskError::Broken).
    #[doc(alias = "terminate_workers")]
    pub fn terminate(&self) {
        self.handle(Event::Kill { gently: true });
        self.wait_until_gone();
    }

    /// Does the same as [`terminate`](Self::terminate), but with SIGKILL at once.
    #[doc(alias = "kill_workers")]
    pub fn kill(&self) {
        self.handle(Event::Kill { gently: false });
        self.wait_until_gone();
    }

    /// Has so many workers started now, at most the maximum, and does not wait for them. With
    /// an idle timeout they leave again if nothing comes.
    pub fn prestart(&self, workers: usize) {
        self.handle(Event::Prestart { workers });
    }

    /// Changes the bounds for the number of workers. Too many leave: idle ones at once, busy
    /// ones when their task is done. Clamped to 1 to 1024, and the minimum to the maximum.
    pub fn resize(&self, workers_min: usize, workers_max: usize) {
        self.handle(Event::Resize { workers_min, workers_max });
    }

    /// [`TaskFuture::cancel`](crate::TaskFuture::cancel) for those who know the task's id, and do not
    /// hold its future. `false` also if there is no such task, or it was done already.
    pub fn cancel(&self, task: TaskId) -> bool {
        let Some(cell) = self.core().and_then(|core| core.cell(task)) else { return false };
        self.handle(Event::Cancel { task });
        cell.is_cancelled()
    }

    /// [`TaskFuture::abort`](crate::TaskFuture::abort) for those who know the task's id. `false` if
    /// there is no such task, or it was done already.
    pub fn abort(&self, task: TaskId) -> bool {
        let is_open = self.core().is_some_and(|core| core.cell(task).is_some());
        self.handle(Event::Abort { task });
        is_open
    }

    /// The pool's numbers now.
    pub fn stats(&self) -> PoolStats {
        let Some(handle) = self.here() else { return PoolStats::default() };
        PoolStats { modules: handle.loads.held(), ..handle.core.stats() }
    }

    /// Returns what happens in the pool from now on, in order. Neither the pool nor its tasks ever wait for
    /// the reader: events that do not fit into the buffer of 65,536 are dropped and counted.
    ///
    /// While anyone listens, short tasks of a map travel alone, not in batches: only their worker knows when
    /// the tasks of a batch began, so an event of each would have to be made up. A map of tasks of some
    /// microseconds becomes slower by as much as its batches had saved.
    pub fn events(&self) -> Events {
        self.events_buffered(limits::EVENTS_BUFFERED_MAX)
    }

    /// Does the same as [`events`](Self::events), with a buffer for this many events.
    pub fn events_buffered(&self, events: usize) -> Events {
        self.core().map_or_else(Events::none, |core| Events::new(core.subscribe(events)))
    }

    /// The breakage, if a worker's death has broken the pool.
    pub fn broken(&self) -> Option<BrokenPool> {
        self.core()?.broken()
    }

    /// The pids of the workers that live now.
    pub fn worker_pids(&self) -> Vec<u32> {
        self.core().map(|core| core.worker_pids()).unwrap_or_default()
    }

    /// Returns how the worker that became ready last has locked itself down; `None` before the first.
    /// [`EventKind::WorkerReady`](crate::event::EventKind::WorkerReady) has it for each worker.
    pub fn sandbox(&self) -> Option<Arc<SandboxReport>> {
        self.core()?.sandbox()
    }

    /// Most workers that this pool runs.
    pub fn workers_max(&self) -> usize {
        self.core().map_or(0, |core| core.workers_max())
    }

    /// Tasks accepted and not yet done.
    pub fn unresolved_tasks(&self) -> usize {
        self.core().map_or(0, |core| core.unresolved())
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(core) = self.core() else { return f.write_str("Pool(of another process)") };
        write!(f, "Pool({} of {} workers", core.worker_pids().len(), core.workers_max())?;
        write!(f, ", {} tasks", core.unresolved())?;
        f.write_str(if core.broken().is_some() { ", broken)" } else { ")" })
    }
}

impl Handle {
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
        if self.core.queues.callbacks.send(Box::new(move || drop(ran))).is_ok() {
            let _ = marker.recv();
        }
    }

    /// Waits for the supervisor's thread, which ends once the pool has stopped.
    fn join(&self) {
        let supervisor = self.supervisor.hold().take();
        if let Some(supervisor) = supervisor
            && supervisor.join().is_err()
        {
            tracing::error!("the supervisor panicked");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.handle(match self.core.settings.on_drop {
            // A panicking program must not wait for tasks that may run for an hour; the panic may be about
            // them.
            _ if std::thread::panicking() => Event::Kill { gently: false },
            DropPolicy::Finish => Event::Shutdown { cancel_pending: false },
            DropPolicy::CancelPending => Event::Shutdown { cancel_pending: true },
            DropPolicy::Kill => Event::Kill { gently: false },
        });
        self.wait_until_gone();
    }
}
