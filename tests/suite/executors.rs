//! The futures of a pool under several executors: tokio's two, smol's, that of `futures`, and one by
//! hand that polls only when it is woken, so that a lost wake-up is a test that does not end.

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use crate::support::{self, PATIENCE, builder, eventually, load, pool, raw, signal};
use futures::future::{BoxFuture, join, join_all};
use futures::stream::{FuturesUnordered, StreamExt};
use rustix::process::Signal;
use wasmpool::error::SubmitError;
use wasmpool::module::RawTask;
use wasmpool::pool::{ShutdownMode, Submit};
use wasmpool::{Bytes, Pool, TaskError, TaskFuture, TaskOptions};

// ── The executors ────────────────────────────────────────────────────────────

trait Executor {
    fn block_on<F: Future>(future: F) -> F::Output;
}

struct TokioCurrentThread;
struct TokioMultiThread;
struct Smol;
struct Futures;
struct ByHand;

impl Executor for TokioCurrentThread {
    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().expect("builds").block_on(future)
    }
}

impl Executor for TokioMultiThread {
    fn block_on<F: Future>(future: F) -> F::Output {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).build().expect("builds").block_on(future)
    }
}

impl Executor for Smol {
    fn block_on<F: Future>(future: F) -> F::Output {
        smol::block_on(future)
    }
}

impl Executor for Futures {
    fn block_on<F: Future>(future: F) -> F::Output {
        futures::executor::block_on(future)
    }
}

/// Polls once for each time that it was woken, however often its thread is unparked.
struct Bell {
    rung: AtomicBool,
    sleeper: Thread,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.store(true, Ordering::SeqCst);
        self.sleeper.unpark();
    }
}

impl Executor for ByHand {
    fn block_on<F: Future>(future: F) -> F::Output {
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), sleeper: std::thread::current() });
        let waker = Waker::from(bell.clone());
        let mut future = pin!(future);
        loop {
            while !bell.rung.swap(false, Ordering::SeqCst) {
                std::thread::park();
            }
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return output;
            }
        }
    }
}

/// Each test under each executor, within [`PATIENCE`].
macro_rules! under_each_executor {
    ($($test:ident)*) => {
        under_each_executor! { @ under_tokio_current_thread TokioCurrentThread $($test)* }
        under_each_executor! { @ under_tokio_multi_thread TokioMultiThread $($test)* }
        under_each_executor! { @ under_smol Smol $($test)* }
        under_each_executor! { @ under_futures Futures $($test)* }
        under_each_executor! { @ under_one_by_hand ByHand $($test)* }
    };
    (@ $name:ident $executor:ident $($test:ident)*) => {
        mod $name {
            $(
                #[test]
                fn $test() {
                    super::in_time(super::$test::<super::$executor>);
                }
            )*
        }
    };
}

under_each_executor! {
    two_hundred_futures_are_joined
    two_hundred_submitters_share_a_queue_of_two
    results_stream_as_they_come
    a_full_queue_holds_submit_async_up_until_there_is_room
    a_submit_async_dropped_before_it_is_ready_submits_nothing
    a_task_future_dropped_in_mid_await_leaves_the_task_to_finish
    a_shutdown_wakes_a_submitter_with_its_error
    a_breakage_wakes_waiters_and_submitters_with_theirs
    an_error_that_needs_no_room_does_not_wait_for_it
    a_future_moves_to_another_executor
}

/// Runs the test on a thread of its own, and gives it up after [`PATIENCE`].
fn in_time(test: impl FnOnce() + Send + 'static) {
    let (done, ended) = channel();
    let thread = std::thread::spawn(move || {
        test();
        done.send(()).expect("somebody waits");
    });
    match ended.recv_timeout(PATIENCE) {
        Err(RecvTimeoutError::Timeout) => panic!("it did not end: nobody was woken"),
        Ok(()) | Err(RecvTimeoutError::Disconnected) => {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

// ── What they run ────────────────────────────────────────────────────────────

/// A pool of one worker whose queue of two is full: one task runs for ever, one waits behind it.
struct Full {
    pool: Pool,
    echo: RawTask,
    running: TaskFuture<Bytes>,
    pending: TaskFuture<Bytes>,
}

fn full() -> Full {
    let pool = builder(1).queue_tasks_max(2).build().expect("builds");
    let module = support::wat(&pool, support::ECHO_WAT);
    let spin = raw(&module, "spin");
    let echo = raw(&module, "echo");
    // A test that fails does not wait for it for ever when it drops the pool.
    let options = TaskOptions::new().timeout(PATIENCE);
    let running = pool.submit_with(&spin, &Bytes::new(), options).expect("submits");
    let pending = pool.submit_bytes(&echo, "pending").expect("submits");
    eventually("the task to run", || running.is_running());
    Full { pool, echo, running, pending }
}

impl Full {
    fn submit(&self, input: &'static str) -> Submit<RawTask> {
        self.pool.submit_async(&self.echo, &input)
    }
}

/// Polls once, by whoever runs this.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context))).await
}

fn two_hundred_futures_are_joined<E: Executor>() {
    let pool = pool(2);
    let count = load(&pool, "primes").task::<u64, u64>("count").expect("types agree");
    let futures = (0..200).map(|_| pool.submit(&count, &100).expect("submits"));
    let counts = E::block_on(join_all(futures));
    assert_eq!(counts.len(), 200);
    assert!(counts.into_iter().all(|count| count.expect("counts") == 25));
}

fn two_hundred_submitters_share_a_queue_of_two<E: Executor>() {
    let pool = builder(2).queue_tasks_max(2).build().expect("builds");
    let module = support::wat(&pool, support::ECHO_WAT);
    let echo = raw(&module, "echo");
    let calls = (0..200).map(|n: u32| {
        let pool = &pool;
        let echo = &echo;
        async move {
            let input = Bytes::from(n.to_string());
            let accepted = pool.submit_async(echo, &input).await.expect("accepted");
            assert!(pool.unresolved_tasks() <= 2);
            assert_eq!(accepted.await.expect("echoes"), input);
        }
    });
    assert_eq!(E::block_on(join_all(calls)).len(), 200);
    assert_eq!((pool.stats().submitted, pool.stats().ended.succeeded), (200, 200));
}

fn results_stream_as_they_come<E: Executor>() {
    let pool = pool(2);
    let module = support::wat(&pool, support::ECHO_WAT);
    let spin = raw(&module, "spin");
    let echo = raw(&module, "echo");
    let slow = pool.submit_bytes(&spin, "").expect("submits");
    let mut futures: FuturesUnordered<_> =
        (0..20).map(|n: u32| pool.submit_bytes(&echo, n.to_string()).expect("submits")).collect();
    E::block_on(async {
        let mut seen = HashSet::new();
        while let Some(echoed) = futures.next().await {
            assert!(seen.insert(echoed.expect("echoes")));
        }
        assert_eq!(seen.len(), 20);
        assert!(!slow.is_done() && slow.abort());
        assert!(matches!(slow.await.expect_err("stopped").error(), TaskError::Aborted { .. }));
    });
}

fn a_full_queue_holds_submit_async_up_until_there_is_room<E: Executor>() {
    let full = full();
    E::block_on(async {
        // `join` polls the submitter first: it is pending before there is room, and has to be woken.
        let (accepted, ()) = join(full.submit("waited"), async {
            assert_eq!(full.pool.unresolved_tasks(), 2);
            full.running.abort();
        })
        .await;
        assert_eq!(accepted.expect("accepted").await.expect("echoes"), "waited");
        assert_eq!(full.pending.await.expect("echoes"), "pending");
    });
}

fn a_submit_async_dropped_before_it_is_ready_submits_nothing<E: Executor>() {
    let full = full();
    let never = full.submit("never polled");
    let mut once = full.submit("polled once");
    let Full { pool, running, pending, .. } = full;
    E::block_on(async {
        assert!(poll_once(&mut once).await.is_pending());
        drop((never, once));
        running.abort();
        assert_eq!(pending.await.expect("echoes"), "pending");
        assert!(running.await.is_err());
    });
    let stats = pool.stats();
    assert_eq!((stats.submitted, stats.pending, stats.running), (2, 0, 0));
}

fn a_task_future_dropped_in_mid_await_leaves_the_task_to_finish<E: Executor>() {
    let Full { pool, echo, mut running, mut pending } = full();
    E::block_on(async {
        assert!(poll_once(&mut pending).await.is_pending());
        assert!(poll_once(&mut running).await.is_pending());
        drop(pending);
        running.abort();
        assert!(running.await.is_err());
        let last = pool.submit_async(&echo, "last").await.expect("accepted");
        assert_eq!(last.await.expect("echoes"), "last");
    });
    // The one worker runs them in the order of their submission: the dropped one came before.
    assert_eq!(pool.stats().ended.succeeded, 2);

    // One that runs goes on, too: to its own end, here its deadline.
    let module = support::wat(&pool, support::ECHO_WAT);
    let options = TaskOptions::new().timeout(Duration::from_millis(50));
    let mut running = pool.submit_with(&raw(&module, "spin"), &Bytes::new(), options).expect("submits");
    eventually("the task to run", || running.is_running() || running.is_done());
    E::block_on(async { drop(poll_once(&mut running).await) });
    drop(running);
    eventually("its deadline", || pool.stats().ended.timed_out == 1);
}

fn a_shutdown_wakes_a_submitter_with_its_error<E: Executor>() {
    for mode in [ShutdownMode::Finish, ShutdownMode::CancelPending] {
        let full = full();
        E::block_on(async {
            let (refused, ()) = join(full.submit("late"), async { full.pool.begin_shutdown(mode) }).await;
            match refused.expect_err("it takes no more tasks") {
                SubmitError::ShutDown { task } => assert_eq!(task, "echo"),
                other => panic!("{other}"),
            }
            // Accepted tasks are finished or cancelled while others are refused.
            full.running.abort();
            match (mode, full.pending.await) {
                (ShutdownMode::Finish, echoed) => assert_eq!(echoed.expect("echoes"), "pending"),
                (_, ended) => {
                    assert_eq!(*ended.expect_err("cancelled").error(), TaskError::Cancelled);
                }
            }
        });
    }
}

fn a_breakage_wakes_waiters_and_submitters_with_theirs<E: Executor>() {
    let full = full();
    let pid = full.pool.worker_pids()[0];
    let submit = full.submit("late");
    E::block_on(async {
        let futures = join(full.running, full.pending);
        let ((refused, (running, pending)), ()) =
            join(join(submit, futures), async { signal(pid, Signal::KILL) }).await;
        match refused.expect_err("broken") {
            SubmitError::Broken(broken) => assert_eq!(broken.pid(), pid),
            other => panic!("{other}"),
        }
        for ended in [running, pending] {
            match ended.expect_err("broken").error() {
                TaskError::Broken(broken) => assert_eq!(broken.pid(), pid),
                other => panic!("{other}"),
            }
        }
    });
}

fn an_error_that_needs_no_room_does_not_wait_for_it<E: Executor>() {
    let full = full();
    let elsewhere = pool(1);
    let foreign = raw(&support::wat(&elsewhere, support::ECHO_WAT), "echo");
    let refused = E::block_on(full.pool.submit_async(&foreign, &Bytes::new()));
    assert!(matches!(refused, Err(SubmitError::ForeignModule { .. })), "{refused:?}");
    let refused = E::block_on(full.pool.task(&full.echo).fuel(1).submit_async(&Bytes::new()));
    assert!(matches!(refused, Err(SubmitError::NotMetered { .. })), "{refused:?}");
    full.pool.kill();
}

fn a_future_moves_to_another_executor<E: Executor>() {
    let mut full = full();
    let mut submit = full.submit("waited");
    E::block_on(async {
        assert!(poll_once(&mut full.pending).await.is_pending());
        assert!(poll_once(&mut submit).await.is_pending());
    });
    // The executor that polled them first is gone; another one, on another thread, has to be woken.
    let Full { running, pending, .. } = full;
    let elsewhere = std::thread::spawn(move || {
        E::block_on(async {
            let ((accepted, echoed), _) = join(join(submit, pending), async { running.abort() }).await;
            assert_eq!(echoed.expect("echoes"), "pending");
            assert_eq!(accepted.expect("accepted").await.expect("echoes"), "waited");
        });
    });
    elsewhere.join().expect("no panic there");
}

// ── Wakers ───────────────────────────────────────────────────────────────────

/// Counts how often it was woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    fn poll<F: Future + Unpin>(self: &Arc<Self>, future: &mut F) -> Poll<F::Output> {
        Pin::new(future).poll(&mut Context::from_waker(&Waker::from(self.clone())))
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Waits until it has been woken so often: wakers run on a thread of the pool's.
    fn wait(&self, times: usize) {
        eventually("a waker to be called", || self.get() == times);
    }
}

#[test]
fn of_two_wakers_the_later_one_is_woken() {
    let mut full = full();
    let first = Arc::<Count>::default();
    let second = Arc::<Count>::default();
    let mut submit = full.submit("waited");
    for waker in [&first, &second] {
        assert!(waker.poll(&mut full.pending).is_pending());
    }
    assert!(full.pending.cancel());
    second.wait(1);
    assert_eq!(first.get(), 0, "the task's owner is who polled last");
    assert_eq!(Arc::strong_count(&first), 1, "nothing is kept of the earlier waker");

    // Now there is room for one.
    let taken = full.pool.submit_bytes(&full.echo, "taken").expect("submits");
    for waker in [&first, &second] {
        assert!(waker.poll(&mut submit).is_pending());
    }
    assert!(taken.cancel());
    second.wait(2);
    assert!(second.poll(&mut submit).is_ready());
    full.pool.kill();
}

#[test]
fn a_cancel_wakes_waiters_and_submitters() {
    let mut full = full();
    let waiter = Arc::<Count>::default();
    let submitter = Arc::<Count>::default();
    let mut submit = full.submit("waited");
    assert!(waiter.poll(&mut full.pending).is_pending());
    assert!(submitter.poll(&mut submit).is_pending());
    assert!(full.pending.cancel());
    waiter.wait(1);
    submitter.wait(1);
    match waiter.poll(&mut full.pending) {
        Poll::Ready(ended) => assert_eq!(*ended.expect_err("cancelled").error(), TaskError::Cancelled),
        Poll::Pending => panic!("a cancelled future is done"),
    }
    assert!(submitter.poll(&mut submit).is_ready());
    full.pool.kill();
}

#[test]
#[should_panic(expected = "polled after it was ready")]
fn a_submit_async_that_was_ready_is_not_polled_again() {
    let pool = pool(1);
    let echo = raw(&support::wat(&pool, support::ECHO_WAT), "echo");
    let waker = Arc::<Count>::default();
    let mut submit = pool.submit_async(&echo, &Bytes::new());
    assert!(waker.poll(&mut submit).is_ready());
    let _ = waker.poll(&mut submit);
}

/// Panics when woken.
struct Grenade;

impl Wake for Grenade {
    fn wake(self: Arc<Self>) {
        panic!("as a test");
    }
}

#[test]
fn a_waker_that_panics_costs_nobody_else_the_wake_up() {
    let mut full = full();
    let waiter = Arc::<Count>::default();
    let mut first = full.submit("first");
    let mut second = full.submit("second");
    let grenade = Waker::from(Arc::new(Grenade));
    assert!(Pin::new(&mut first).poll(&mut Context::from_waker(&grenade)).is_pending());
    assert!(waiter.poll(&mut second).is_pending());
    assert!(Pin::new(&mut full.running).poll(&mut Context::from_waker(&grenade)).is_pending());
    full.running.abort();
    eventually("the one behind it to be woken", || waiter.get() > 0);
    assert_eq!(full.pending.result_timeout(PATIENCE).expect("in time").expect("echoes"), "pending");
}

/// An executor that polls where it is woken: on the pool's own threads.
struct OnTheSpot {
    task: Mutex<Option<BoxFuture<'static, ()>>>,
    rung: AtomicBool,
}

impl OnTheSpot {
    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        Arc::new(OnTheSpot { task: Mutex::new(Some(Box::pin(task))), rung: AtomicBool::new(false) }).wake();
    }
}

impl Wake for OnTheSpot {
    fn wake(self: Arc<Self>) {
        self.rung.store(true, Ordering::SeqCst);
        while self.rung.load(Ordering::SeqCst) {
            // The holder of the lock looks at the bell again after it.
            let Ok(mut slot) = self.task.try_lock() else { return };
            self.rung.store(false, Ordering::SeqCst);
            let waker = Waker::from(self.clone());
            let is_over = slot.as_mut().is_none_or(|task| {
                let mut context = Context::from_waker(&waker);
                task.as_mut().poll(&mut context).is_ready()
            });
            if is_over {
                *slot = None;
            }
        }
    }
}

#[test]
fn tasks_that_are_polled_inside_of_their_wakers_submit_wait_and_end_the_pool() {
    let pool = builder(2).queue_tasks_max(2).build().expect("builds");
    let echo = raw(&support::wat(&pool, support::ECHO_WAT), "echo");
    let (done, ended) = channel();
    for _ in 0..4 {
        let pool = pool.clone();
        let echo = echo.clone();
        let done = done.clone();
        OnTheSpot::spawn(async move {
            for n in 0..100u32 {
                let input = Bytes::from(n.to_string());
                let accepted = pool.submit_async(&echo, &input).await.expect("accepted");
                assert_eq!(accepted.await.expect("echoes"), input);
            }
            let pids = pool.worker_pids();
            // The last of the four has the last handle.
            drop((pool, echo));
            done.send(pids).expect("somebody waits");
        });
    }
    drop(pool);
    let mut pids = Vec::new();
    for _ in 0..4 {
        pids.extend(ended.recv_timeout(PATIENCE).expect("every task ends"));
    }
    eventually("the workers to be gone", || pids.iter().all(|pid| !support::is_alive(*pid)));
}

// ── Runtimes that end ────────────────────────────────────────────────────────

#[test]
fn a_runtime_that_ends_first_leaves_neither_tasks_nor_wakers_behind() {
    let Full { pool, echo, running, pending } = full();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("builds");
    let polled = Arc::new(AtomicUsize::new(0));
    let tracked = Arc::new(());
    let waiting = runtime.spawn(pending);
    for _ in 0..20 {
        let pool = pool.clone();
        let echo = echo.clone();
        let polled = polled.clone();
        let tracked = tracked.clone();
        runtime.spawn(async move {
            let mut submit = pool.submit_async(&echo, "late");
            let first = poll_once(&mut submit).await;
            polled.fetch_add(1, Ordering::SeqCst);
            assert!(first.is_pending());
            drop(submit.await);
            drop(tracked);
        });
    }
    eventually("all of them to wait", || polled.load(Ordering::SeqCst) == 20);
    drop(runtime);
    drop(waiting);
    assert_eq!(Arc::strong_count(&tracked), 1, "its tasks are dropped");
    running.abort();
    let last = pool.submit_bytes(&echo, "last").expect("submits once there is room");
    assert_eq!(last.result_timeout(PATIENCE).expect("in time").expect("echoes"), "last");
    let stats = pool.stats();
    assert_eq!((stats.submitted, stats.ended.succeeded, stats.ended.aborted), (3, 2, 1));
}

#[test]
fn a_submit_async_that_is_polled_often_is_kept_once() {
    let full = full();
    let waker = Arc::<Count>::default();
    let mut submit = full.submit("waited");
    for _ in 0..1000 {
        assert!(waker.poll(&mut submit).is_pending());
    }
    let kept = Arc::strong_count(&waker) - 1;
    drop(submit);
    let left = Arc::strong_count(&waker) - 1;
    full.pool.kill();
    assert!(kept <= 1, "{kept} wakers are kept of one future");
    assert_eq!(left, 0, "and of none when it is dropped");
}
