//! A pool belongs to the process that built it. Its copy in a forked process does nothing, waits for nothing
//! and says so, and the original does not notice.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::support::{self, PATIENCE, builder, eventually, failure, is_own_process, load, raw, wat};
use wasmpool::error::{MapError, ModuleError, ShareError, SubmitError};
use wasmpool::event::{Events, PoolStats};
use wasmpool::future::{AsCompleted, FutureState, ReturnWhen, as_completed, wait};
use wasmpool::module::RawTask;
use wasmpool::pool::{Map, ShutdownMode, UnorderedMap};
use wasmpool::task::SharedInput;
use wasmpool::{Bytes, Module, Pool, Task, TaskError, TaskFuture, TaskOptions};

/// Runs `child` in a fork of this process, which must succeed within [`PATIENCE`].
fn fork(child: impl FnOnce()) {
    // SAFETY: the child has one thread, uses only what the C library makes safe after a fork (memory), and
    // leaves by `_exit`.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "{}", std::io::Error::last_os_error());
    if pid == 0 {
        let code = i32::from(catch_unwind(AssertUnwindSafe(child)).is_err());
        // SAFETY: _exit has no preconditions.
        unsafe { libc::_exit(code) };
    }
    let deadline = Instant::now() + PATIENCE;
    let mut status = 0;
    loop {
        // SAFETY: the pid is our own child's, and the pointer leads to a place for its status.
        match unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } {
            0 if Instant::now() < deadline => std::thread::sleep(Duration::from_micros(200)),
            0 => {
                // SAFETY: the child was not waited for, so the pid is still its own.
                unsafe { libc::kill(pid, libc::SIGKILL) };
                // SAFETY: the pid is our own child's, and the pointer leads to a place for its status.
                unsafe { libc::waitpid(pid, &mut status, 0) };
                panic!("the child hangs");
            }
            ended => {
                assert_eq!((ended, status), (pid, 0), "the child says on stderr what went wrong");
                return;
            }
        }
    }
}

fn poll<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Everything of a pool that a program can hold.
struct Held {
    module: Module,
    count: Task<u64, u64>,
    shared: SharedInput,
    done: TaskFuture<u64>,
    running: TaskFuture<Bytes>,
    pending: TaskFuture<Bytes>,
    events: Events,
    completed: AsCompleted<TaskFuture<Bytes>>,
    map: Map<RawTask, std::iter::Repeat<Bytes>>,
    unordered: UnorderedMap<RawTask, std::iter::RepeatN<Bytes>>,
    echo: RawTask,
    pool: Pool,
}

impl Held {
    /// Makes one task run and others wait.
    fn new(pool: &Pool) -> Held {
        let module = load(pool, "primes");
        let count = module.task::<u64, u64>("count").expect("types agree");
        let tasks = wat(pool, support::ECHO_WAT);
        let echo = raw(&tasks, "echo");
        let spin = raw(&tasks, "spin");
        let shared = pool.share(vec![7; 1000]).expect("shares");
        let events = pool.events();
        let done = pool.submit_with(&count, &100, TaskOptions::new().shared(&shared)).expect("submits");
        assert_eq!(done.result().unwrap_or_else(|failure| panic!("{failure}")), 25);
        let x = || Bytes::from_static(b"x");
        let mut map = pool.map(&echo, std::iter::repeat(x()));
        let mut unordered = pool.map(&echo, std::iter::repeat_n(x(), 500)).unordered();
        assert!(map.next().is_some_and(|first| first.is_ok_and(|output| output == "x")));
        assert!(unordered.next().is_some_and(|(_, first)| first.is_ok_and(|output| output == "x")));
        let running = pool.submit_bytes(&spin, "").expect("submits");
        eventually("the task to run", || running.is_running());
        let pending = pool.submit_bytes(&echo, "x").expect("submits");
        let completed = as_completed((0..3).map(|_| pool.submit_bytes(&echo, "x").expect("submits")));
        let pool = pool.clone();
        Held { module, count, shared, done, running, pending, events, completed, map, unordered, echo, pool }
    }

    /// Uses and then drops all of it, in a fork.
    fn assert_inert(mut self) {
        self.refuses();
        self.says_nothing();
        future_is_another_processes(&self.done);
        future_is_another_processes(&self.running);
        future_is_another_processes(&self.pending);
        let pair = [&self.running, &self.pending];
        for when in [ReturnWhen::AllCompleted, ReturnWhen::FirstCompleted, ReturnWhen::FirstException] {
            let waited = wait(&pair, None, when);
            assert!(!waited.done.is_empty());
        }
        assert_eq!(as_completed(pair).count(), 2);
        assert_eq!(self.completed.by_ref().count(), 3);
        assert!(self.events.try_next().is_none() && self.events.next().is_none());
        assert!(self.events.next_timeout(PATIENCE).is_none());
        assert_eq!(self.events.dropped(), 0);
        assert!(matches!(self.map.next(), Some(Err(_))));
        assert!(self.map.by_ref().take(3000).all(|item| item.is_err()));
        assert!(self.unordered.by_ref().all(|(_, item)| item.is_err()));
        assert_eq!(self.shared.len(), 1000);
        assert!(self.module.raw_task("count").is_ok() && self.module.name() == "primes.wasm");
        let _ = format!("{:?} {:?} {:?} {:?}", self.pool, self.module, self.running, self.completed);
    }

    fn refuses(&self) {
        let Held { pool, count, echo, .. } = self;
        let is_elsewhere = |error: &SubmitError| {
            assert!(error.to_string().contains("another process"), "{error}");
            matches!(error, SubmitError::OtherProcess { .. })
        };
        assert!(pool.submit(count, &1).is_err_and(|error| is_elsewhere(&error)));
        assert!(pool.submit_bytes(echo, "x").is_err_and(|error| is_elsewhere(&error)));
        assert!(pool.try_submit(count, &1).is_err_and(|error| is_elsewhere(&error)));
        match poll(pool.submit_async(count, &1)) {
            Poll::Ready(Err(error)) => assert!(is_elsewhere(&error)),
            other => panic!("{other:?}"),
        }
        drop(pool.submit_async(count, &1));
        match pool.map(count, [1]).next() {
            Some(Err(MapError::Submit(error))) => assert!(is_elsewhere(&error)),
            other => panic!("{other:?}"),
        }
        assert_eq!(pool.map(count, [1, 2, 3]).unordered().filter(|(_, item)| item.is_err()).count(), 3);
        assert!(matches!(pool.load(b"\0asm\x01\0\0\0"), Err(ModuleError::OtherProcess)));
        assert!(matches!(
            pool.replace_module(&self.module, b"\0asm\x01\0\0\0"),
            Err(ModuleError::OtherProcess)
        ));
        assert!(matches!(pool.load_file(support::prebuilt("primes")), Err(ModuleError::OtherProcess)));
        assert!(matches!(pool.share(vec![1]), Err(ShareError::OtherProcess)));
    }

    fn says_nothing(&self) {
        let Held { pool, running, .. } = self;
        assert_eq!(pool.stats(), PoolStats::default());
        assert_eq!((pool.workers_max(), pool.unresolved_tasks(), pool.worker_pids()), (0, 0, Vec::new()));
        assert!(pool.broken().is_none() && pool.sandbox().is_none());
        assert!(!pool.cancel(running.task_id()) && !pool.abort(running.task_id()));
        assert_eq!(pool.events().count(), 0);
        pool.prestart(2);
        pool.resize(1, 3);
        pool.sample();
        pool.begin_shutdown(ShutdownMode::CancelPending);
        assert!(pool.shutdown_timeout(ShutdownMode::Finish, PATIENCE));
        pool.shutdown(ShutdownMode::Finish);
        pool.terminate();
        pool.kill();
    }
}

fn future_is_another_processes<O: std::fmt::Debug + 'static>(future: &TaskFuture<O>) {
    let is_elsewhere = |result: &Result<O, wasmpool::TaskFailure>| {
        result.as_ref().is_err_and(|failure| *failure.error() == TaskError::OtherProcess)
    };
    assert!(is_elsewhere(&future.result()) && future.failure().is_some());
    assert!(future.result_timeout(PATIENCE).is_ok_and(|result| is_elsewhere(&result)));
    assert!(future.try_result().is_some_and(|result| is_elsewhere(&result)));
    assert!(
        future.is_done()
            && !future.is_running()
            && !future.is_cancelled()
            && !future.cancel()
            && !future.abort()
    );
    assert_eq!((future.state(), future.report().is_none()), (FutureState::Finished, true));
    let called = Arc::new(AtomicBool::new(false));
    let call = called.clone();
    future.on_done(move |result| call.store(result.is_err(), Ordering::SeqCst));
    assert!(called.load(Ordering::SeqCst));
}

#[test]
fn in_a_fork_everything_of_a_pool_says_so_and_the_parent_does_not_notice() {
    if !is_own_process(
        module_path!(),
        "in_a_fork_everything_of_a_pool_says_so_and_the_parent_does_not_notice",
    ) {
        return;
    }
    let pool = builder(1).build().expect("builds");
    let mut held = Held::new(&pool);
    let workers = pool.worker_pids();
    // The child takes what is held and drops it there; the original keeps its own.
    fork(|| {
        // SAFETY: this process never comes back to the original.
        unsafe { std::ptr::read(&held) }.assert_inert();
        drop(pool.clone());
    });
    fork(|| {
        let mut polled = unpolled(&held.pending);
        assert!(matches!(poll(&mut polled), Poll::Ready(Err(_))));
        std::mem::forget(polled);
    });
    assert_eq!((pool.worker_pids(), pool.broken()), (workers, None));
    assert!(held.running.is_running() && held.running.abort());
    assert!(matches!(failure(&held.running).error(), TaskError::Aborted { .. }));
    assert!(held.pending.result_timeout(PATIENCE).is_ok_and(|result| result.is_ok()));
    assert_eq!(held.completed.by_ref().filter(|future| future.result().is_ok()).count(), 3);
    assert!(held.map.by_ref().take(2000).all(|item| item.is_ok()));
    assert!(held.unordered.by_ref().all(|(_, item)| item.is_ok()));
    let shared = TaskOptions::new().shared(&held.shared);
    let again = pool.submit_with(&held.count, &100, shared).expect("submits");
    assert!(again.result_timeout(PATIENCE).is_ok_and(|result| result.is_ok_and(|primes| primes == 25)));
    let stats = pool.stats();
    assert_eq!((stats.workers_started, stats.workers_died, stats.workers[0].modules), (1, 0, 2));
    assert!(held.events.try_next().is_some());
}

/// Makes a copy of the future, which must be forgotten.
fn unpolled(future: &TaskFuture<Bytes>) -> TaskFuture<Bytes> {
    // SAFETY: the caller forgets the copy, in a process that does not use the original.
    unsafe { std::ptr::read(future) }
}

/// Makes two versions of a module.
fn versions() -> [Vec<u8>; 2] {
    let larger = support::ECHO_WAT.replace("\"memory\") 4", "\"memory\") 5");
    [support::ECHO_WAT, &larger].map(|text| wat::parse_str(text).expect("valid text"))
}

/// Replaces the module and makes a handle of it: both take the lock of its handles.
fn replace(pool: &Pool, module: &Module, wasm: &[u8]) -> usize {
    pool.replace_module(module, wasm).expect("fits");
    usize::from(module.raw_task("echo").is_ok())
}

/// The fork may come while any lock is held and any work is halfway.
#[test]
fn forks_at_any_moment_of_a_busy_pool_neither_hang_nor_harm_it() {
    const FORKS: usize = 150;
    if !is_own_process(module_path!(), "forks_at_any_moment_of_a_busy_pool_neither_hang_nor_harm_it") {
        return;
    }
    let pool = builder(2).build().expect("builds");
    let wasm = versions();
    let module = pool.load(&wasm[0]).expect("loads");
    let echo = raw(&module, "echo");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let hammers: Vec<_> = (0..4)
            .map(|number| {
                let pool = &pool;
                let (module, wasm) = (&module, &wasm);
                let echo = &echo;
                let over = &over;
                scope.spawn(move || {
                    let mut tasks = 0;
                    while !over.load(Ordering::SeqCst) {
                        tasks += match number {
                            0 => pool.map(echo, (0..300).map(|_| "x")).filter(Result::is_ok).count(),
                            1 => {
                                as_completed((0..50).map(|_| pool.submit_bytes(echo, "x").expect("submits")))
                                    .filter(|future| future.result().is_ok())
                                    .count()
                            }
                            2 => replace(pool, module, &wasm[tasks % 2]),
                            _ => {
                                let mut events = pool.events_buffered(10);
                                let _ = (events.try_next(), pool.stats());
                                1
                            }
                        };
                    }
                    tasks
                })
            })
            .collect();
        for number in 0..FORKS {
            let mut events = pool.events();
            let future = pool.submit_bytes(&echo, "x").expect("submits");
            let map = pool.map(&echo, (0..100).map(|_| Bytes::from_static(b"x"))).unordered();
            // These have yielded a result, and their threads go on pulling.
            let endless = || pool.map(&echo, std::iter::repeat(Bytes::from_static(b"x")));
            let mut ordered = endless();
            let mut unordered = endless().unordered();
            assert!(ordered.next().is_some_and(|result| result.is_ok()));
            assert!(unordered.next().is_some_and(|(_, result)| result.is_ok()));
            fork(|| {
                assert!(ordered.next().is_some_and(|result| result.is_err()), "fork {number}");
                assert!(pool.submit_bytes(&echo, "x").is_err(), "fork {number}");
                assert!(module.raw_task("echo").is_ok() && module.current().raw_task("echo").is_ok());
                assert!(future.result().is_err() && future.is_done() && events.next().is_none());
                pool.shutdown(ShutdownMode::Finish);
                if number % 30 == 0 {
                    let own = builder(1).build().expect("builds");
                    assert!(own.load_file(support::prebuilt("primes")).is_ok(), "fork {number}");
                }
                drop((map, events, future, ordered, unordered));
                let _ = format!("{pool:?} {:?}", pool.stats());
                // SAFETY: this process leaves without using or dropping the original.
                let last: Pool = unsafe { std::ptr::read(&pool) };
                drop((last.clone(), last));
            });
        }
        over.store(true, Ordering::SeqCst);
        for hammer in hammers {
            assert!(hammer.join().expect("no hammer fails") > 0);
        }
    });
    assert_eq!((pool.broken(), pool.stats().workers_died), (None, 0));
}

#[test]
fn a_child_may_build_a_pool_of_its_own_and_so_may_its_child() {
    if !is_own_process(module_path!(), "a_child_may_build_a_pool_of_its_own_and_so_may_its_child") {
        return;
    }
    fn works() -> Pool {
        let pool = builder(1).build().expect("builds");
        let count = load(&pool, "primes").task::<u64, u64>("count").expect("types agree");
        let result = pool.submit(&count, &100).expect("submits").result_timeout(PATIENCE);
        assert!(result.is_ok_and(|result| result.is_ok_and(|primes| primes == 25)));
        pool
    }
    let first = works();
    fork(|| {
        let second = works();
        assert!(first.worker_pids().is_empty() && !second.worker_pids().is_empty());
        fork(|| {
            assert!(first.worker_pids().is_empty() && second.worker_pids().is_empty());
            let third = works();
            drop((first.clone(), second.clone()));
            drop(third);
        });
        assert!(!second.worker_pids().is_empty());
    });
    drop(works());
    assert!(!first.worker_pids().is_empty());
}

/// The child leaves by `std::process::exit`, as a program would.
#[test]
fn a_child_that_exits_leaves_the_parents_workers_alone() {
    if !is_own_process(module_path!(), "a_child_that_exits_leaves_the_parents_workers_alone") {
        return;
    }
    let pool = builder(1).build().expect("builds");
    let echo = raw(&wat(&pool, support::ECHO_WAT), "echo");
    let workers = {
        assert!(pool.submit_bytes(&echo, "x").expect("submits").result().is_ok());
        pool.worker_pids()
    };
    fork(|| {
        let error = pool.submit_bytes(&echo, "x").map(drop).map_err(|error| error.to_string());
        assert!(error.is_err_and(|error| error.contains("a pool of its own")));
        // The child drops its last handle.
        // SAFETY: this process leaves without using or dropping the original.
        drop(unsafe { std::ptr::read(&pool) });
        // SAFETY: the child has no other thread that exit handlers could disturb.
        unsafe { libc::exit(0) };
    });
    assert!(pool.submit_bytes(&echo, "x").expect("submits").result().is_ok());
    assert_eq!((pool.worker_pids(), pool.stats().workers_started), (workers, 1));
}
