//! # Coming from `concurrent.futures`
//!
//! This pool keeps the promises of Python's `ProcessPoolExecutor` (3.14), for code that the caller does not
//! trust. Every name of the Python module has its row in the tables below. Where a row says *differs*, the
//! [reasons](#deliberate-differences) follow.
//!
//! ```python
//! from concurrent.futures import ProcessPoolExecutor
//!
//! def count(upto): ...
//!
//! if __name__ == "__main__":
//!     with ProcessPoolExecutor(max_workers=4) as pool:
//!         future = pool.submit(count, 1_000_000)
//!         print(future.result())
//! ```
//!
//! ```no_run
//! use wasmpool::Pool;
//!
//! fn main() -> anyhow::Result<()> {
//!     wasmpool::init();
//!     let pool = Pool::builder().workers(4).build()?;
//!     let module = pool.load_file("prebuilt/primes.wasm")?;
//!     let count = module.task::<u64, u64>("count")?;
//!     let future = pool.submit(&count, &1_000_000)?;
//!     println!("{}", future.result()?);
//!     Ok(())
//! }
//! ```
//!
//! Three lines are new. [`init`] stands where `if __name__ == "__main__"` stands in Python, and for the same
//! reason: the workers are this very program, started again. [`load_file`] brings the code in, which is not a
//! part of this program: a function with the attribute `#[wasmpool_guest::task]`, in a crate of its own that
//! is compiled to WebAssembly (guest-tasks/README.md says how, and how it is done in other languages).
//! [`task`] makes a handle of its name, and compares the types here with those that the module declares.
//!
//! # Names
//!
//! ## Pools
//!
//! | Python | here | differs |
//! |---|---|---|
//! | `ProcessPoolExecutor(…)` | [`Pool::builder()`][builder], then [`build()?`][build] | settings that cannot be are errors of `build` |
//! | `max_workers` | [`workers`] | 1 to 1024; the default heeds the cgroup's CPU quota, too |
//! | `mp_context` | none; [`worker_program`] names another executable | [never a fork](#processes) |
//! | `initializer` | `#[wasmpool_guest::init]`, in the module | it prepares the memory that every task begins with; if it fails, [the task does][`TaskError::Guest`] |
//! | `initargs` | none | what differs from task to task is input |
//! | `max_tasks_per_child` | [`recycle_after_tasks`] | also by [memory][`recycle_above_memory`] and by [age][`recycle_after`] |
//! | `with … as pool:` | the scope of `pool` | [the last clone counts](#the-end-of-a-pool) |
//! | `shutdown()`, `shutdown(wait=True)` | [`shutdown`] with [`ShutdownMode::Finish`] | returns when the processes are gone and the callbacks have run |
//! | `shutdown(wait=False)` | [`begin_shutdown`] | dropping the pool still waits |
//! | `shutdown(cancel_futures=True)` | [`shutdown`] with [`ShutdownMode::CancelPending`] | |
//! | `terminate_workers()` | [`terminate`] | waits; SIGKILL after [`grace`] |
//! | `kill_workers()` | [`kill`] | waits |
//! | `Executor` | none: [`Pool`] is the only one | |
//! | `ThreadPoolExecutor`, `InterpreterPoolExecutor` | none | |
//! | | [`shutdown_timeout`], [`prestart`], [`resize`], [`idle_timeout`] | |
//!
//! ## Tasks
//!
//! | Python | here | differs |
//! |---|---|---|
//! | `submit(f, x)` | [`pool.submit(&task, &x)?`][`submit`] | [encoded at once](#inputs-and-outputs); [waits while the queue is full](#the-queue) |
//! | `submit(f, x, y)` | `pool.submit(&task, &(x, y))?` | several arguments are one tuple |
//! | `submit(f, key=x)` | a struct as input | |
//! | `map(f, xs)` | [`pool.map(&task, xs)`][`map`] | [lazy; an item's error does not end it](#map) |
//! | `map(f, xs, ys)` | `pool.map(&task, xs.zip(ys))` | |
//! | `map(timeout=…)` | [`Map::timeout`] | what is done is still yielded, then one [`MapError::Timeout`] |
//! | `map(chunksize=…)` | [`Map::chunk_size`] | each item stays a task of its own; the default is by how long tasks take |
//! | `map(buffersize=…)` | [`Map::buffer_size`] | the default is 1024 (4096 of very short tasks), not all |
//! | | [`try_submit`], [`submit_async`], [`pool.task(…)`](crate::Pool::task) for options, [`Map::unordered`] | |
//!
//! ## Futures
//!
//! | Python | here | differs |
//! |---|---|---|
//! | `Future` | [`TaskFuture`] | has a type; is also a [`std::future::Future`] |
//! | `result()` | [`result`] | decodes anew at each call |
//! | `result(timeout)` | [`result_timeout`] | the outer error is [`WaitTimeout`] |
//! | `exception()` | [`failure`] | of a cancelled task, too: Python raises |
//! | `exception(timeout)` | [`failure_timeout`] | the outer error is [`WaitTimeout`] |
//! | `cancel()` | [`cancel`] | [at once, for every waiter](#cancelling-and-stopping) |
//! | `cancelled()` | [`is_cancelled`] | |
//! | `running()` | [`is_running`] | [only what a worker has begun](#cancelling-and-stopping) |
//! | `done()` | [`is_done`] | |
//! | `add_done_callback(f)` | [`on_done`] | [on a thread of its own](#callbacks); is given the result, not the future |
//! | `set_running_or_notify_cancel()`, `set_result(…)`, `set_exception(…)`, `Future()` | none | [only the pool completes a future](#futures-and-their-errors) |
//! | | [`abort`] (for others by id: [`Pool::cancel`], [`Pool::abort`]), [`try_result`], [`state`], [`report`], [`task_id`], `.await` | |
//!
//! ## Waiting for many
//!
//! | Python | here | differs |
//! |---|---|---|
//! | `wait(fs, timeout, return_when)` | [`wait(&fs, timeout, when)`][`wait`] | |
//! | `done, not_done` | [`Waited`] | [indices, not sets](#futures-and-their-errors) |
//! | `FIRST_COMPLETED` | [`ReturnWhen::FirstCompleted`] | a cancelled one is completed |
//! | `FIRST_EXCEPTION` | [`ReturnWhen::FirstException`] | as in Python, a cancelled one has not failed |
//! | `ALL_COMPLETED` | [`ReturnWhen::AllCompleted`] | |
//! | `as_completed(fs)` | [`as_completed(fs)`][`as_completed`] | |
//! | `as_completed(fs, timeout)` | [`as_completed_timeout(fs, timeout)`][`as_completed_timeout`] | yields one [`AsCompletedTimeout`] at the end |
//! | `asyncio.wrap_future(future)`, `loop.run_in_executor(pool, f, x)` | `future.await` | in [any executor](#async) |
//!
//! ## Errors
//!
//! | Python | here | differs |
//! |---|---|---|
//! | what the function raises | [`TaskError::Guest`], [`TaskError::Panic`], [`TaskError::Trap`] | texts and a backtrace, not the object |
//! | `CancelledError` | [`TaskError::Cancelled`] | |
//! | `TimeoutError` | [`WaitTimeout`], [`AsCompletedTimeout`], [`MapError::Timeout`] | [who was out of time](#timeouts); a task's own is [`TaskError::Timeout`] |
//! | `BrokenProcessPool`, `BrokenExecutor` | [`TaskError::Broken`], [`SubmitError::Broken`] | [pid, signal, phase, last words](#deaths) |
//! | `BrokenThreadPool`, `BrokenInterpreterPool` | none | |
//! | `RuntimeError`, after `shutdown` | [`SubmitError::ShutDown`] | |
//! | `PicklingError`, in the future | [`SubmitError::Encode`], from `submit` | [at once](#inputs-and-outputs) |
//! | an error of unpickling, in the worker | [`TaskError::InputDecode`] | that task fails; Python's pool breaks |
//! | an error of unpickling, in the host | [`TaskError::OutputDecode`], from `result` | likewise |
//! | `InvalidStateError` | none | [only the pool completes a future](#futures-and-their-errors) |
//!
//! ## Around the module
//!
//! | Python | here | differs |
//! |---|---|---|
//! | `if __name__ == "__main__":` | [`wasmpool::init()`][`init`] | forgetting it is [`BuildError::InitMissing`] |
//! | a function | a [`Task`], by name, of a [`Module`] | [what a task can see](#what-a-task-can-see) |
//! | pickle | postcard, with a schema | [`ModuleError::SchemaMismatch`] before the first call |
//! | `bytes` in and out | [`RawTask`], [`submit_bytes`] | no codec |
//! | `subprocess.run(…)` | [`Command`] | a WASI program: argv, environment, stdin |
//! | `QueueHandler`, `QueueListener` | this program's `tracing` subscriber | a task's records carry its id and label |
//!
//! # Side by side
//!
//! ## Handling errors
//!
//! ```python
//! try:
//!     print(pool.submit(count, n).result(timeout=5))
//! except TimeoutError:
//!     print("not done yet, or it raised TimeoutError")
//! except CancelledError:
//!     print("cancelled")
//! except BrokenProcessPool:
//!     print("some worker died")
//! except Exception as error:
//!     print("it failed:", error)
//! ```
//!
//! ```no_run
//! use std::time::Duration;
//! use wasmpool::{Pool, Task, TaskError};
//!
//! fn show(pool: &Pool, count: &Task<u64, u64>, n: u64) -> anyhow::Result<()> {
//!     let future = pool.submit(count, &n)?;
//!     match future.result_timeout(Duration::from_secs(5)) {
//!         Err(timeout) => println!("{timeout}"),
//!         Ok(Ok(primes)) => println!("{primes}"),
//!         Ok(Err(failure)) => match failure.error() {
//!             TaskError::Cancelled => println!("cancelled"),
//!             TaskError::Timeout { limit, .. } => println!("it ran for {limit:?} and was stopped"),
//!             TaskError::Broken(broken) => println!("worker {} died: {:?}", broken.pid(), broken.signal()),
//!             _ => println!("it failed: {failure}"),
//!         },
//!     }
//!     Ok(())
//! }
//! ```
//!
//! ## Mapping
//!
//! ```python
//! for primes in pool.map(count, range(100), timeout=60, chunksize=10, buffersize=200):
//!     print(primes)                           # the first exception ends the loop
//! ```
//!
//! ```no_run
//! # fn size(items: usize) -> std::num::NonZeroUsize { std::num::NonZeroUsize::new(items).unwrap() }
//! use std::time::Duration;
//! use wasmpool::{Pool, Task};
//!
//! fn print_all(pool: &Pool, count: &Task<u64, u64>) {
//!     let map = pool.map(count, 0..100);
//!     for primes in map.timeout(Duration::from_secs(60)).chunk_size(size(10)).buffer_size(size(200)) {
//!         match primes {
//!             Ok(primes) => println!("{primes}"),
//!             Err(error) => println!("{error}"),          // the loop goes on
//!         }
//!     }
//! }
//! ```
//!
//! ## Waiting
//!
//! ```python
//! futures = {pool.submit(count, n): n for n in numbers}
//! done, not_done = wait(futures, timeout=5, return_when=FIRST_EXCEPTION)
//! print(len(done), "done,", len(not_done), "not")
//! for future in as_completed(futures):
//!     print(futures[future], future.result())
//! ```
//!
//! ```no_run
//! use std::collections::HashMap;
//! use std::time::Duration;
//! use wasmpool::future::{ReturnWhen, as_completed, wait};
//! use wasmpool::{Pool, Task};
//!
//! fn follow(pool: &Pool, count: &Task<u64, u64>, numbers: &[u64]) -> anyhow::Result<()> {
//!     let futures = numbers.iter().map(|n| pool.submit(count, n)).collect::<Result<Vec<_>, _>>()?;
//!     let waited = wait(&futures, Some(Duration::from_secs(5)), ReturnWhen::FirstException);
//!     println!("{} done, {} not", waited.done.len(), waited.not_done.len());
//!     let number: HashMap<_, _> = futures.iter().map(|future| future.task_id()).zip(numbers).collect();
//!     for future in as_completed(futures) {
//!         println!("{} {}", number[&future.task_id()], future.result()?);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! If only the pairs are wanted, [`Map::unordered`] is shorter: it yields each result with the number of its
//! input.
//!
//! ## Adding a callback
//!
//! ```python
//! future.add_done_callback(lambda future: print(future.result()))
//! ```
//!
//! ```no_run
//! # fn example(future: wasmpool::TaskFuture<u64>) {
//! future.on_done(|result| match result {
//!     Ok(primes) => println!("{primes}"),
//!     Err(failure) => println!("{failure}"),
//! });
//! # }
//! ```
//!
//! ## Cancelling
//!
//! ```python
//! if not future.cancel():
//!     ...                                     # it runs, and nothing stops it
//! ```
//!
//! ```no_run
//! # fn example(future: wasmpool::TaskFuture<u64>) {
//! if !future.cancel() {
//!     future.abort();                         // it runs, and is stopped
//! }
//! # }
//! ```
//!
//! ## Shutting down
//!
//! ```python
//! pool.shutdown(wait=True, cancel_futures=True)
//! pool.shutdown(wait=False)
//! pool.kill_workers()
//! ```
//!
//! ```no_run
//! use std::time::Duration;
//! use wasmpool::pool::ShutdownMode;
//! use wasmpool::Pool;
//!
//! fn end(pool: &Pool) {
//!     pool.shutdown(ShutdownMode::CancelPending);
//!     pool.begin_shutdown(ShutdownMode::Finish);
//!     pool.kill();
//!     // All of it with a deadline:
//!     pool.shutdown_timeout(ShutdownMode::Finish, Duration::from_secs(10));
//! }
//! ```
//!
//! ## Async
//!
//! ```python
//! async def both(pool):
//!     loop = asyncio.get_running_loop()
//!     return await asyncio.gather(
//!         loop.run_in_executor(pool, count, 1_000),
//!         loop.run_in_executor(pool, count, 2_000),
//!     )
//! ```
//!
//! ```no_run
//! use wasmpool::{Pool, Task};
//!
//! async fn both(pool: &Pool, count: &Task<u64, u64>) -> anyhow::Result<(u64, u64)> {
//!     let first = pool.submit_async(count, &1_000).await?;
//!     let second = pool.submit_async(count, &2_000).await?;
//!     // Both have been handed over: they run while the first is awaited.
//!     Ok((first.await?, second.await?))
//! }
//! ```
//!
//! A [`TaskFuture`] needs no runtime: it wakes whoever polled it last, under tokio, smol or anything else.
//! Dropping it changes nothing for its task. [`build`], [`load_file`], [`submit`] on a full queue,
//! [`result`], [`shutdown`] and the drop of the last clone of a pool make their thread wait, so none of them
//! belongs on an executor's threads: [`load_file_async`](crate::Pool::load_file_async),
//! [`submit_async`] and [`shutdown_async`](crate::Pool::shutdown_async) are for those, and
//! [`Map::stream`](crate::pool::Map::stream) for the results of a map. A future that is given up with its caller is
//! one with [`abort_on_drop`](crate::TaskFuture::abort_on_drop).
//!
//! # What a task can see
//!
//! A Python task is a function of the program: it sees the program's modules and globals, and whatever
//! earlier tasks in the same worker left there. It can open files and connections, and reads the environment.
//!
//! A task here begins in a fresh instance of its module: memory and globals are as the module defines them,
//! after its initializer, if it has one. It sees its input. If it imports WASI, it can ask for the time and
//! for random bytes. What it prints goes to the log. There are no files (unless the pool is given
//! [directories][`PoolBuilder::dir`] to share), no network, no environment, no
//! threads and no other process, and a module that imports anything but WASI preview 1 (or 0) and the pool's own
//! `log`, `panic`, `shared_len` and `shared_read` is refused when it is loaded. A [`Command`] sees the argv,
//! environment and stdin that the caller gives it, and no more.
//!
//! Therefore, **nothing is carried from task to task**. A cache in a global is empty each time, a counter starts at
//! its first value, and a task that corrupts its memory harms nobody but itself. What tasks have in common
//! belongs into the module, as data or made by its initializer, or is given to them as a shared input
//! ([`Pool::share`](crate::Pool::share), [`TaskOptions::shared`](crate::TaskOptions::shared)), which they can read and not change; what one finds and
//! another needs goes through the caller, as output and input. Compiled code is shared, too: a worker
//! maps a module once.
//!
//! A task cannot reach the pool either. In Python a task that submits to its own pool and waits deadlocks;
//! here it is the caller, or a callback, that submits what follows.
//!
//! # Deliberate differences
//!
//! ## Inputs and outputs
//!
//! [`submit`] encodes its input before it returns. Python pickles later, in another thread: a change made
//! meanwhile is seen or not, as luck has it, and an object that cannot be pickled is an error of the future,
//! far from the line that is wrong.
//!
//! Postcard takes the place of pickle because unpickling runs what the sender chose, and the senders here are
//! not trusted. It has no names and no types in its bytes, so both sides are compared by schema when
//! [`Module::task`][`task`] makes the handle. An output that still does not decode fails that one future: the
//! worker has said nothing that the pool depends on.
//!
//! ## The queue
//!
//! Python's queue of pending work has no end. Here at most [`queue_tasks_max`] tasks wait or run (65,536,
//! unless set): [`submit`] waits for room, [`try_submit`] refuses with [`SubmitError::QueueFull`], and
//! [`submit_async`] waits without a thread. A producer that is faster than its workers is then slowed down,
//! and does not fill the memory of the host. Every other size has a bound, too: see [`limits`].
//!
//! ## `map`
//!
//! Python submits everything when `map` is called, or `buffersize` of it. Here nothing is pulled from the
//! inputs before the first result is asked for, and never more than [`Map::buffer_size`] ahead: an iterator
//! that nobody drives does nothing, as Rust's iterators do, and endless inputs work without a setting. The
//! time of [`Map::timeout`] still counts from the call of `map`. From the first result on, a thread of the map's own
//! pulls, so that neither waits for the other; an iterator that borrows is pulled where results are asked for, by
//! [`map_local`](crate::Pool::map_local). What a map holds is bounded in bytes, too
//! ([`PoolBuilder::map_bytes_max`](crate::PoolBuilder::map_bytes_max)).
//!
//! Each item is a [`Result`], and a failure does not end the iteration: in Python the first exception ends
//! the generator and cancels the rest. An untrusted input is expected to fail now and then; `collect` into a
//! `Result`, or `?` in the loop, is Python's behaviour where it is wanted. For the same reason a chunk is
//! only a hint for where its items run. Dropping the iterator cancels what does not run yet, as closing
//! Python's does.
//!
//! ## Cancelling and stopping
//!
//! A cancelled future is done at once, for every waiter. In Python `wait` and `as_completed` do not notice
//! before the executor comes across the cancelled item in its queue, which can be much later than `cancel`.
//!
//! [`is_running`] says that a worker has begun the task. Python moves `max_workers + 1` items into its call
//! queue and calls them running; from there they cannot be cancelled. Here a worker is handed tasks ahead,
//! too, but until it has begun one, the task is pending: it can be cancelled, and it moves to another worker
//! if its own takes long or dies.
//!
//! [`abort`] stops a task that runs, which Python cannot do: wasm code can be interrupted at every loop and
//! call, and the worker survives it. Only a worker that does not heed the interrupt within [`grace`] is
//! killed and replaced. The task fails as [`TaskError::Aborted`], since a part of it has run.
//!
//! ## Timeouts
//!
//! Three things can run out of time, and Python calls them all `TimeoutError`, as it calls one that the task
//! itself raises. Here each is a type of its own. To wait no longer is [`WaitTimeout`] or
//! [`AsCompletedTimeout`]: the task goes on, as in Python. [`MapError::Timeout`] ends a map.
//! [`TaskError::Timeout`] is the end of the task itself: [`TaskOptions::timeout`] counts from when it is handed to
//! a worker, so that a long queue is not held against it, and stops it as [`abort`] does.
//!
//! ## Deaths
//!
//! A failure inside of a task is that task's error, and its worker goes on: a trap, a panic, an exit,
//! an endless loop with a deadline, too much memory, output or fuel. None of them breaks the pool, and
//! neither does a worker that the pool itself ends for a timeout, an abort or its age. An untrusted task
//! could otherwise take every other down with it.
//!
//! The unexpected death of a worker breaks the pool, as in Python. [`BrokenPool`] then says which
//! process it was, how it ended, what it did, its last words and the tasks that it had; each [`TaskFailure`]
//! adds whether its own task [may have run][`may_have_run`]. With [`OnWorkerDeath::Replace`] a death costs
//! only the task that ran there, and [`Retry`] runs that one again if it may be run twice.
//!
//! If the host dies, its workers die with it, in the middle of a task, too; Python's live on. Ctrl-C reaches
//! the host only.
//!
//! ## Processes
//!
//! A worker is this executable, started anew with an empty environment, never a copy of the running program.
//! A fork inherits locks that no thread will release, and memory that a task should not see; Python has given
//! up `fork` as its default for the first of these reasons. A program may fork all the same: its child's copy of
//! a pool is inert, and says so (`OtherProcess`).
//!
//! ## Futures and their errors
//!
//! Only the pool completes a future, and only once. The methods with which Python's executors do it are
//! public there, and `InvalidStateError` is what becomes of a second call; here neither can be said.
//!
//! [`TaskFailure`] owns what it says: texts, numbers, the [report]. It is cheap to clone, the same for
//! everyone who asks, and outlives the pool. A Python exception is an object with a traceback that holds on
//! to frames and all that is in them, and that changes with every `raise`.
//!
//! [`wait`] answers with indices into the slice that it was given, in order. Python's sets need futures that
//! can be shared and hashed; a [`TaskFuture`] has one owner, and stays where it is. A future given twice is
//! in the answer at both of its places, where the sets collapse it; [`as_completed`] yields it once, as
//! Python does.
//!
//! ## Callbacks
//!
//! They run on a thread of the pool's that does nothing else, one after the other. So a callback may submit,
//! wait or block; it only keeps other callbacks waiting. In Python they run on the thread that completes the
//! future, usually the one that serves the executor: there a callback that blocks stops the pool. A callback
//! that panics is logged, and the next one runs, as in Python.
//!
//! ## The end of a pool
//!
//! The drop of the last clone of a [`Pool`] finishes what was submitted, as leaving the `with` block does,
//! and as Python does for an executor that is collected: a `?` that leaves `main` waits for what runs. What must
//! not wait says so before, by [`shutdown_timeout`], [`terminate`] or [`kill`], or once, by [`on_drop`]. A panic
//! does not wait: a pool that it drops kills what runs. Futures may be dropped before or after the pool; their
//! tasks run either way.
//!
//! Python also waits when the interpreter exits. A Rust program has no such moment: a pool in a `static`, or
//! a call of [`std::process::exit`], ends the workers with the process, whatever they do.
//!
//! [`terminate`] and [`kill`] wait until every worker is gone, so that nothing is left behind when they
//! return. Running tasks fail as [`TaskError::Broken`], pending ones are cancelled.
//!
//! # What Python has not
//!
//! - [`TaskOptions`]: a timeout, [memory][`TaskOptions::memory_bytes_max`],
//!   [output][`TaskOptions::output_bytes_max`], [fuel][`TaskOptions::fuel`] and
//!   [logs][`TaskOptions::log_bytes_max`] for each task; a [priority][`TaskOptions::priority`]; a
//!   [label][`TaskOptions::label`] that errors and logs carry; a [trust domain][`TaskOptions::domain`], whose
//!   worker processes no task of another one ever shares.
//! - [`abort`], for a task that runs.
//! - [`OnWorkerDeath::Replace`] and [`Retry`].
//! - [`TaskReport`]: what a task cost, and where its time went.
//! - [`stats`]: the pool's numbers now. [`events`]: what happens in it. [`slow_after`]: a warning.
//! - [`resize`], [`prestart`], [`idle_timeout`], [`workers_min`].
//! - Modules that are compiled once and [kept][`cache_dir`], in a process that may be lost.
//!
//! [builder]: crate::Pool::builder
//! [build]: crate::PoolBuilder::build
//! [report]: crate::task::TaskReport
//! [`build`]: crate::PoolBuilder::build
//! [`init`]: crate::init
//! [`load_file`]: crate::Pool::load_file
//! [`task`]: crate::Module::task
//! [`workers`]: crate::PoolBuilder::workers
//! [`workers_min`]: crate::PoolBuilder::workers_min
//! [`worker_program`]: crate::PoolBuilder::worker_program
//! [`recycle_after_tasks`]: crate::PoolBuilder::recycle_after_tasks
//! [`recycle_above_memory`]: crate::PoolBuilder::recycle_above_memory
//! [`recycle_after`]: crate::PoolBuilder::recycle_after
//! [`idle_timeout`]: crate::PoolBuilder::idle_timeout
//! [`slow_after`]: crate::PoolBuilder::slow_after
//! [`queue_tasks_max`]: crate::PoolBuilder::queue_tasks_max
//! [`PoolBuilder::dir`]: crate::PoolBuilder::dir
//! [`cache_dir`]: crate::PoolBuilder::cache_dir
//! [`grace`]: crate::PoolBuilder::grace
//! [`shutdown`]: crate::Pool::shutdown
//! [`shutdown_timeout`]: crate::Pool::shutdown_timeout
//! [`begin_shutdown`]: crate::Pool::begin_shutdown
//! [`terminate`]: crate::Pool::terminate
//! [`kill`]: crate::Pool::kill
//! [`on_drop`]: crate::PoolBuilder::on_drop
//! [`prestart`]: crate::Pool::prestart
//! [`resize`]: crate::Pool::resize
//! [`stats`]: crate::Pool::stats
//! [`events`]: crate::Pool::events
//! [`submit`]: crate::Pool::submit
//! [`submit_async`]: crate::Pool::submit_async
//! [`submit_bytes`]: crate::Pool::submit_bytes
//! [`try_submit`]: crate::Pool::try_submit
//! [`map`]: crate::Pool::map
//! [`result`]: crate::TaskFuture::result
//! [`result_timeout`]: crate::TaskFuture::result_timeout
//! [`try_result`]: crate::TaskFuture::try_result
//! [`failure`]: crate::TaskFuture::failure
//! [`failure_timeout`]: crate::TaskFuture::failure_timeout
//! [`Pool::cancel`]: crate::Pool::cancel
//! [`Pool::abort`]: crate::Pool::abort
//! [`cancel`]: crate::TaskFuture::cancel
//! [`is_cancelled`]: crate::TaskFuture::is_cancelled
//! [`abort`]: crate::TaskFuture::abort
//! [`is_running`]: crate::TaskFuture::is_running
//! [`is_done`]: crate::TaskFuture::is_done
//! [`state`]: crate::TaskFuture::state
//! [`report`]: crate::TaskFuture::report
//! [`task_id`]: crate::TaskFuture::task_id
//! [`on_done`]: crate::TaskFuture::on_done
//! [`may_have_run`]: crate::TaskFailure::may_have_run
//! [`wait`]: crate::future::wait()
//! [`as_completed`]: crate::future::as_completed()
//! [`as_completed_timeout`]: crate::future::as_completed_timeout
//! [`Pool`]: crate::Pool
//! [`Task`]: crate::Task
//! [`RawTask`]: crate::module::RawTask
//! [`Command`]: crate::Command
//! [`Module`]: crate::Module
//! [`TaskFuture`]: crate::TaskFuture
//! [`TaskFailure`]: crate::TaskFailure
//! [`TaskReport`]: crate::task::TaskReport
//! [`TaskOptions`]: crate::TaskOptions
//! [`TaskOptions::timeout`]: crate::TaskOptions::timeout
//! [`TaskOptions::memory_bytes_max`]: crate::TaskOptions::memory_bytes_max
//! [`TaskOptions::output_bytes_max`]: crate::TaskOptions::output_bytes_max
//! [`TaskOptions::fuel`]: crate::TaskOptions::fuel
//! [`TaskOptions::log_bytes_max`]: crate::TaskOptions::log_bytes_max
//! [`TaskOptions::priority`]: crate::TaskOptions::priority
//! [`TaskOptions::label`]: crate::TaskOptions::label
//! [`TaskOptions::domain`]: crate::TaskOptions::domain
//! [`BrokenPool`]: crate::error::BrokenPool
//! [`BuildError::InitMissing`]: crate::error::BuildError::InitMissing
//! [`ModuleError::SchemaMismatch`]: crate::error::ModuleError::SchemaMismatch
//! [`SubmitError::Broken`]: crate::error::SubmitError::Broken
//! [`SubmitError::Encode`]: crate::error::SubmitError::Encode
//! [`SubmitError::QueueFull`]: crate::error::SubmitError::QueueFull
//! [`SubmitError::ShutDown`]: crate::error::SubmitError::ShutDown
//! [`TaskError::Aborted`]: crate::TaskError::Aborted
//! [`TaskError::Broken`]: crate::TaskError::Broken
//! [`TaskError::Cancelled`]: crate::TaskError::Cancelled
//! [`TaskError::Guest`]: crate::TaskError::Guest
//! [`TaskError::InputDecode`]: crate::TaskError::InputDecode
//! [`TaskError::OutputDecode`]: crate::TaskError::OutputDecode
//! [`TaskError::Panic`]: crate::TaskError::Panic
//! [`TaskError::Timeout`]: crate::TaskError::Timeout
//! [`TaskError::Trap`]: crate::TaskError::Trap
//! [`OnWorkerDeath::Replace`]: crate::pool::OnWorkerDeath::Replace
//! [`Retry`]: crate::task::Retry
//! [`ReturnWhen::FirstCompleted`]: crate::future::ReturnWhen::FirstCompleted
//! [`ReturnWhen::FirstException`]: crate::future::ReturnWhen::FirstException
//! [`ReturnWhen::AllCompleted`]: crate::future::ReturnWhen::AllCompleted
//! [`ShutdownMode::Finish`]: crate::pool::ShutdownMode::Finish
//! [`ShutdownMode::CancelPending`]: crate::pool::ShutdownMode::CancelPending
//! [`Waited`]: crate::future::Waited
//! [`WaitTimeout`]: crate::error::WaitTimeout
//! [`AsCompletedTimeout`]: crate::future::AsCompletedTimeout
//! [`MapError::Timeout`]: crate::error::MapError::Timeout
//! [`Map::timeout`]: crate::pool::Map::timeout
//! [`Map::chunk_size`]: crate::pool::Map::chunk_size
//! [`Map::buffer_size`]: crate::pool::Map::buffer_size
//! [`Map::options`]: crate::pool::Map::options
//! [`Map::unordered`]: crate::pool::Map::unordered
//! [`limits`]: crate::limits
