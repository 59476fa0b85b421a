//! Callers at the edges: destructors, wakers and callbacks that use the pool, and settings
//! beyond all measure.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::support::{self, PATIENCE, builder, error, eventually, load, pool, raw};
use wasmpool::error::{MapError, ModuleError, SubmitError};
use wasmpool::future::FutureState;
use wasmpool::module::RawTask;
use wasmpool::pool::ShutdownMode;
use wasmpool::task::CommandInput;
use wasmpool::{Bytes, Pool, TaskError, TaskFuture, TaskOptions};

fn spin_and_echo(pool: &Pool) -> (RawTask, RawTask) {
    let module = support::wat(pool, support::ECHO_WAT);
    (raw(&module, "spin"), raw(&module, "echo"))
}

/// Runs `work` on a thread of its own; a deadlock fails the test instead of hanging it.
fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = crossbeam_channel::bounded(1);
    std::thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{what} hangs"))
}

#[test]
fn an_inputs_destructor_may_use_the_pool() {
    struct Curious(Pool);
    impl AsRef<[u8]> for Curious {
        fn as_ref(&self) -> &[u8] {
            b"input"
        }
    }
    impl Drop for Curious {
        fn drop(&mut self) {
            assert!(
                self.0.workers_max() > 0
                    && self.0.unresolved_tasks() < 100
                    && self.0.worker_pids().len() < 10
            );
        }
    }
    in_time("a destructor", || {
        let pool = pool(1);
        let (spin, echo) = spin_and_echo(&pool);
        let running = pool.submit_bytes(&spin, "").expect("submits");
        let pending = pool.submit_bytes(&echo, Bytes::from_owner(Curious(pool.clone()))).expect("submits");
        assert!(pending.cancel());
        running.abort();
        let sent = pool.submit_bytes(&echo, Bytes::from_owner(Curious(pool.clone()))).expect("submits");
        assert_eq!(sent.result().expect("echoes"), "input");
    });
}

#[test]
fn the_last_handle_of_a_pool_may_be_dropped_by_a_waker() {
    struct Owner(std::sync::Mutex<Option<Pool>>, AtomicUsize);
    impl Wake for Owner {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().expect("locks").take());
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }
    in_time("dropping the pool in a waker", || {
        let pool = pool(1);
        let (_, echo) = spin_and_echo(&pool);
        let module = echo.clone();
        let mut future = pool.submit_bytes(&echo, "x").expect("submits");
        let owner = Arc::new(Owner(std::sync::Mutex::new(Some(pool)), AtomicUsize::new(0)));
        let waker = Waker::from(owner.clone());
        let polled =
            std::future::Future::poll(std::pin::Pin::new(&mut future), &mut Context::from_waker(&waker));
        if matches!(polled, Poll::Pending) {
            eventually("the waker to be called", || owner.1.load(Ordering::SeqCst) == 1);
        }
        assert_eq!(future.result().expect("echoes"), "x");
        drop((module, echo));
    });
}

#[test]
fn done_callbacks_have_run_when_the_pool_is_gone() {
    let ran = Arc::new(AtomicUsize::new(0));
    {
        let pool = pool(2);
        let (_, echo) = spin_and_echo(&pool);
        for _ in 0..50 {
            let ran = ran.clone();
            let future = pool.submit_bytes(&echo, "x").expect("submits");
            future.on_done(move |_| {
                ran.fetch_add(1, Ordering::SeqCst);
            });
        }
    }
    assert_eq!(ran.load(Ordering::SeqCst), 50);
}

#[test]
fn a_submit_that_waits_for_room_learns_of_a_shutdown() {
    let pool = builder(1).queue_tasks_max(1).build().expect("builds");
    let (spin, echo) = spin_and_echo(&pool);
    let running = pool.submit_bytes(&spin, "").expect("submits");
    eventually("it to run", || running.is_running());
    let (waiting, about_to_wait) = crossbeam_channel::bounded(0);
    let submitter = std::thread::spawn({
        let pool = pool.clone();
        move || {
            waiting.send(()).expect("sends");
            pool.submit_bytes(&echo, "x")
        }
    });
    about_to_wait.recv_timeout(PATIENCE).expect("starts");
    pool.begin_shutdown(ShutdownMode::Finish);
    let refused = in_time("the submit", move || submitter.join().expect("joins"));
    assert!(matches!(refused, Err(SubmitError::ShutDown { .. })), "{refused:?}");
    running.abort();
}

#[test]
fn a_state_never_runs_backwards() {
    let pool = pool(2);
    let (_, echo) = spin_and_echo(&pool);
    for _ in 0..2_000 {
        let future = pool.submit_bytes(&echo, "x").expect("submits");
        let mut last = FutureState::Pending;
        while last != FutureState::Finished {
            let state = future.state();
            assert!(
                !(last == FutureState::Running && state == FutureState::Pending),
                "running, then pending"
            );
            last = state;
        }
    }
}

#[test]
fn limits_beyond_all_measure_are_limits_still() {
    let pool =
        builder(1).compile_timeout(Duration::MAX).start_timeout(Duration::MAX).build().expect("builds");
    let echo = raw(&load(&pool, "echo"), "echo");
    for bytes in [usize::MAX, 1 << 63, 1 << 40] {
        let options =
            TaskOptions::new().output_bytes_max(bytes).memory_bytes_max(bytes).timeout(Duration::MAX);
        let future = pool.submit_with(&echo, &vec![7; 1 << 20], options).expect("submits");
        assert_eq!(future.result().expect("echoes").len(), 1 << 20);
    }
}

/// A worker is told a task's limits where they differ from those of the task before, which it may have skipped.
#[test]
fn each_task_keeps_its_own_limits_whatever_is_run_or_taken_back_before_it() {
    let pool = pool(1);
    let (spin, echo) = spin_and_echo(&pool);
    let limits = [None, Some(100), Some(50)];
    let submit = |index: usize| {
        let limit = limits[index % 3];
        let options = TaskOptions::new();
        let options = limit.map_or(options.clone(), |bytes| options.output_bytes_max(bytes));
        (limit, pool.submit_with(&echo, &vec![7; 1000], options).expect("submits"))
    };
    for round in 0..20 {
        // The worker has in store what stands behind the one that spins.
        let mut tasks: Vec<_> = (0..30).map(|index| submit(index * (1 + round % 4))).collect();
        let spinning = pool.submit_bytes(&spin, "").expect("submits");
        tasks.extend((0..30).map(|index| submit(round + index * index / (1 + round % 3))));
        eventually("it to spin", || spinning.is_running());
        for (_, future) in tasks.iter().skip(31 + round % 5).step_by(3 + round % 7) {
            future.cancel();
        }
        spinning.abort();
        for (limit, future) in tasks {
            match (limit, future.result()) {
                (_, Err(failure)) if *failure.error() == TaskError::Cancelled => {}
                (None, result) => assert_eq!(result.expect("echoes").len(), 1000),
                (Some(bytes), result) => {
                    let failure = result.expect_err("over its limit");
                    let TaskError::OutputTooLarge { limit, .. } = failure.error() else {
                        panic!("{failure}")
                    };
                    assert_eq!(*limit, bytes as u64);
                }
            }
        }
    }
}

#[test]
fn arguments_that_fit_no_frame_are_refused_by_submit() {
    let pool = pool(1);
    let command = load(&pool, "csv_stats").command().expect("a command");
    let huge = CommandInput::new().arg("x".repeat(2 << 20));
    let refused = pool.submit(&command, &huge).expect_err("too large");
    assert!(matches!(refused, SubmitError::InputTooLarge { .. }), "{refused}");
    let input = CommandInput::new().stdin("a\n1\n");
    pool.submit(&command, &input).expect("submits").result().expect("the pool goes on");
}

#[test]
fn a_pool_that_was_killed_is_shut_down_and_not_broken() {
    let pool = pool(2);
    let (spin, echo) = spin_and_echo(&pool);
    let futures: Vec<_> = (0..2).map(|_| pool.submit_bytes(&spin, "").expect("submits")).collect();
    eventually("both to run", || futures.iter().all(TaskFuture::is_running));
    pool.kill();
    assert!(pool.broken().is_none());
    for future in &futures {
        match error(future) {
            TaskError::Broken(broken) => assert_eq!(broken.tasks_in_flight(), [future.task_id()]),
            other => panic!("{other}"),
        }
    }
    assert!(matches!(pool.submit_bytes(&echo, "x"), Err(SubmitError::ShutDown { .. })));
    assert!(matches!(pool.load(b"\0asm\x01\0\0\0"), Err(ModuleError::Closed { .. }) | Ok(_)));
}

#[test]
fn thousands_of_unknown_imports_are_a_list_that_can_be_read() {
    let limits = wasmpool::limits::CompileLimits::new().with(wasmpool::limits::CompileLimit::Imports, 3000);
    let pool = builder(1).compile_limits(limits).build().expect("builds");
    let imports: String = (0..3000).map(|n| format!("(import \"env\" \"f{n}\" (func))")).collect();
    let wasm = wat::parse_str(format!("(module {imports})")).expect("valid text");
    match pool.load(&wasm).expect_err("must be refused") {
        ModuleError::UnknownImports { imports } => {
            assert_eq!(imports.last().map(String::as_str), Some("and 2900 more"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_map_keeps_its_timeout_at_a_full_queue() {
    for unordered in [false, true] {
        let pool = builder(1).queue_tasks_max(2).build().expect("builds");
        let (spin, echo) = spin_and_echo(&pool);
        let _running = pool.submit_bytes(&spin, "").expect("submits");
        let _pending = pool.submit_bytes(&echo, "x").expect("submits");
        let limit = Duration::from_millis(50);
        let ended = pool.clone();
        in_time("a map at a full queue", move || {
            let map = pool.map(&echo, std::iter::repeat_with(|| "y")).timeout(limit);
            let results: Vec<_> =
                if unordered { map.unordered().map(|(_, result)| result).collect() } else { map.collect() };
            assert!(
                matches!(results[..], [Err(MapError::Timeout { limit: said })] if said == limit),
                "{results:?}"
            );
        });
        assert_eq!(ended.unresolved_tasks(), 2, "nothing of the map is left in the queue");
        ended.kill();
    }
}

#[test]
fn a_map_pulls_nothing_after_its_time() {
    let pool = pool(1);
    let (_, echo) = spin_and_echo(&pool);
    let pulled = Arc::new(AtomicUsize::new(0));
    let inputs = {
        let pulled = pulled.clone();
        std::iter::repeat_with(move || {
            pulled.fetch_add(1, Ordering::SeqCst);
            Bytes::from_static(b"x")
        })
    };
    let mut map = pool.map(&echo, inputs).timeout(Duration::from_millis(200));
    let last = loop {
        match map.next().expect("a last word") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(last, MapError::Timeout { .. }), "{last}");
    let at_the_end = pulled.load(Ordering::SeqCst);
    // One input may be on its way from the iterator at that moment.
    assert!(map.next().is_none() && pulled.load(Ordering::SeqCst) <= at_the_end + 1);
}

#[test]
fn a_task_can_be_cancelled_and_aborted_by_its_id() {
    let pool = pool(1);
    let (spin, echo) = spin_and_echo(&pool);
    let running = pool.submit_bytes(&spin, "").expect("submits");
    let pending = pool.submit_bytes(&echo, "x").expect("submits");
    eventually("it to run", || running.is_running());
    assert!(!pool.cancel(running.task_id()), "it runs");
    assert!(pool.cancel(pending.task_id()) && pending.is_cancelled());
    assert!(pool.abort(running.task_id()));
    assert_eq!(error(&running), TaskError::Aborted { killed: false });
    assert!(!pool.abort(running.task_id()) && !pool.cancel(running.task_id()), "done");
}

#[test]
fn exception_is_what_result_would_be() {
    #[derive(Debug)]
    struct Unreadable;
    impl wasmpool::postcard_schema::Schema for Unreadable {
        const SCHEMA: &'static wasmpool::postcard_schema::schema::NamedType =
            <u64 as wasmpool::postcard_schema::Schema>::SCHEMA;
    }
    impl<'de> serde::Deserialize<'de> for Unreadable {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Err(serde::de::Error::custom("as a test"))
        }
    }
    let pool = pool(2);
    let module = load(&pool, "primes");
    let unreadable = module.task::<u64, Unreadable>("count").expect("the schema agrees");
    let future = pool.submit(&unreadable, &10).expect("submits");
    let failure = future.failure_timeout(PATIENCE).expect("in time").expect("cannot be decoded");
    assert!(matches!(failure.error(), TaskError::OutputDecode { .. }), "{failure}");
    let (spin, _) = spin_and_echo(&pool);
    let spinning = pool.submit_bytes(&spin, "").expect("submits");
    let refused =
        wasmpool::future::wait(&[&future], Some(PATIENCE), wasmpool::future::ReturnWhen::FirstException);
    assert_eq!(refused.done, [0]);
    assert!(spinning.failure_timeout(Duration::ZERO).is_err(), "it runs");
    pool.kill();
}
