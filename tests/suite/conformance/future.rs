//! `test_future.py`. Python makes futures by hand; these come from a pool.

use std::time::Instant;

use wasmpool::future::FutureState;
use wasmpool::{Pool, TaskError, TaskFailure, TaskFuture};

use super::{Arc, AtomicUsize, Bytes, Duration, Mode, Ordering, Tasks, in_both_modes, output};
use crate::support::{PATIENCE, error, eventually};

/// The state and result that a done callback was called with.
type Seen = (FutureState, Result<Bytes, TaskFailure>);

/// Has the future report its end.
fn watched(future: &Arc<TaskFuture<Bytes>>) -> crossbeam_channel::Receiver<Seen> {
    let (sender, receiver) = crossbeam_channel::unbounded();
    let its = Arc::downgrade(future);
    future.on_done(move |result| {
        let state = its.upgrade().expect("the test holds it").state();
        sender.send((state, result)).expect("the test listens");
    });
    receiver
}

/// Called once, and with the final state.
fn called_once(receiver: &crossbeam_channel::Receiver<Seen>) -> Seen {
    let seen = receiver.recv_timeout(PATIENCE).expect("called");
    // The callback is dropped with its sender once it has run.
    assert_eq!(
        receiver.recv_timeout(PATIENCE).expect_err("only once"),
        crossbeam_channel::RecvTimeoutError::Disconnected
    );
    seen
}

/// One pool of one worker that is busy, one that it runs, and pending ones.
struct States {
    pool: Pool,
    tasks: Tasks,
    pending: TaskFuture<Bytes>,
    running: TaskFuture<Bytes>,
    cancelled: TaskFuture<Bytes>,
    failed: TaskFuture<Bytes>,
    successful: TaskFuture<Bytes>,
}

impl States {
    fn new(mode: Mode) -> States {
        let pool = mode.pool(1);
        let tasks = Tasks::new(&pool);
        let failed = tasks.trap(&pool);
        let successful = tasks.echo(&pool);
        error(&failed);
        output(&successful);
        let (running, _) = tasks.running(&pool);
        let pending = tasks.echo(&pool);
        let cancelled = tasks.echo(&pool);
        assert!(cancelled.cancel());
        States { pool, tasks, pending, running, cancelled, failed, successful }
    }

    fn each(&self) -> [&TaskFuture<Bytes>; 5] {
        [&self.pending, &self.running, &self.cancelled, &self.failed, &self.successful]
    }
}

impl Drop for States {
    fn drop(&mut self) {
        self.pool.kill();
    }
}

in_both_modes! {
    fn test_done_callback_with_result(mode: Mode) {
        let pool = mode.pool(1);
        let future = Arc::new(Tasks::new(&pool).echo(&pool));
        let (state, result) = called_once(&watched(&future));
        assert_eq!((state, result.expect("echoes")), (FutureState::Finished, "x".into()));
    }

    fn test_done_callback_with_exception(mode: Mode) {
        let pool = mode.pool(1);
        let future = Arc::new(Tasks::new(&pool).trap(&pool));
        let (state, result) = called_once(&watched(&future));
        assert_eq!(state, FutureState::Finished);
        assert!(matches!(result.expect_err("traps").error(), TaskError::Trap { .. }));
    }

    fn test_done_callback_with_cancel(mode: Mode) {
        let states = States::new(mode);
        let future = Arc::new(states.tasks.echo(&states.pool));
        let receiver = watched(&future);
        assert!(future.cancel());
        let (state, result) = called_once(&receiver);
        assert_eq!((state, result.expect_err("cancelled").error()), (FutureState::Cancelled, &TaskError::Cancelled));
    }

    fn test_done_callback_raises(mode: Mode) {
        let pool = mode.pool(1);
        let tasks = Tasks::new(&pool);
        let (future, _) = tasks.running(&pool);
        let ran = Arc::new(AtomicUsize::new(0));
        for number in 0..3 {
            let ran = ran.clone();
            future.on_done(move |_| {
                ran.fetch_add(1, Ordering::SeqCst);
                assert!(number == 1, "a callback that panics, as a test");
            });
        }
        future.abort();
        eventually("all three to run", || ran.load(Ordering::SeqCst) == 3);
        output(&tasks.echo(&pool));
    }

    fn test_done_callback_already_successful(mode: Mode) {
        let pool = mode.pool(1);
        let future = Arc::new(Tasks::new(&pool).echo(&pool));
        output(&future);
        let (state, result) = called_once(&watched(&future));
        assert!(state == FutureState::Finished && result.is_ok());
    }

    fn test_done_callback_already_failed(mode: Mode) {
        let pool = mode.pool(1);
        let future = Arc::new(Tasks::new(&pool).trap(&pool));
        error(&future);
        let (state, result) = called_once(&watched(&future));
        assert!(state == FutureState::Finished && result.is_err());
    }

    fn test_done_callback_already_cancelled(mode: Mode) {
        let states = States::new(mode);
        let future = Arc::new(states.tasks.echo(&states.pool));
        assert!(future.cancel());
        let (state, result) = called_once(&watched(&future));
        assert!(state == FutureState::Cancelled && result.is_err());
    }

    fn test_repr(mode: Mode) {
        let states = States::new(mode);
        let shown = states.each().map(|future| format!("{future:?}"));
        let expected = ["Pending", "Running", "Cancelled", "Finished", "Finished"];
        for ((shown, state), future) in shown.iter().zip(expected).zip(states.each()) {
            assert_eq!(*shown, format!("TaskFuture(task {}, {state})", future.task_id()));
        }
    }

    fn test_cancel(mode: Mode) {
        let states = States::new(mode);
        assert_eq!(states.each().map(TaskFuture::cancel), [true, false, true, false, false]);
        assert!(states.pending.is_cancelled());
        assert!(states.pending.cancel(), "again");
        assert!(states.running.is_running(), "a running one is left alone");
    }

    fn test_cancelled(mode: Mode) {
        let states = States::new(mode);
        assert_eq!(states.each().map(TaskFuture::is_cancelled), [false, false, true, false, false]);
    }

    fn test_done(mode: Mode) {
        let states = States::new(mode);
        assert_eq!(states.each().map(TaskFuture::is_done), [false, false, true, true, true]);
    }

    fn test_running(mode: Mode) {
        let states = States::new(mode);
        assert_eq!(states.each().map(TaskFuture::is_running), [false, true, false, false, false]);
    }

    fn test_result_with_timeout(mode: Mode) {
        let states = States::new(mode);
        for open in [&states.pending, &states.running] {
            let timeout = open.result_timeout(Duration::ZERO).expect_err("not done");
            assert_eq!((timeout.task, open.is_done()), (open.task_id(), false));
        }
        assert_eq!(*states.cancelled.result_timeout(Duration::ZERO).expect("done").expect_err("cancelled").error(), TaskError::Cancelled);
        assert!(matches!(states.failed.result_timeout(Duration::ZERO).expect("done").expect_err("failed").error(), TaskError::Trap { .. }));
        assert_eq!(states.successful.result_timeout(Duration::ZERO).expect("done").expect("echoed"), "x");
    }

    fn test_result_with_success(mode: Mode) {
        let pool = mode.pool(1);
        let tasks = Tasks::new(&pool);
        let (running, _) = tasks.running(&pool);
        let future = tasks.echo(&pool);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| future.result());
            running.abort();
            assert_eq!(waiter.join().expect("ends").expect("echoes"), "x");
        });
    }

    fn test_result_with_cancel(mode: Mode) {
        let states = States::new(mode);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| states.pending.result());
            assert!(states.pending.cancel());
            assert_eq!(*waiter.join().expect("ends").expect_err("cancelled").error(), TaskError::Cancelled);
        });
        // The future is cancelled at once, and not when a worker gets to it: the only one is still busy.
        assert!(states.running.is_running());
    }

    fn test_exception_with_timeout(mode: Mode) {
        let states = States::new(mode);
        let began = Instant::now();
        assert!(states.running.result_timeout(Duration::from_millis(20)).is_err());
        assert!(began.elapsed() >= Duration::from_millis(20));
        assert!(states.successful.failure().is_none());
        assert_eq!(*states.cancelled.failure().expect("cancelled").error(), TaskError::Cancelled);
        assert!(matches!(states.failed.failure().expect("failed").error(), TaskError::Trap { .. }));
    }

    fn test_exception_with_success(mode: Mode) {
        let pool = mode.pool(1);
        let tasks = Tasks::new(&pool);
        let (running, _) = tasks.running(&pool);
        let future = tasks.trap(&pool);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| future.failure());
            running.abort();
            let failure = waiter.join().expect("ends").expect("an exception");
            assert!(matches!(failure.error(), TaskError::Trap { .. }), "{failure}");
        });
    }

    /// No caller can complete a future. The ends that race here are the pool's own: an answer, an abort, a
    /// cancel and a kill; whichever comes first stays.
    fn test_multiple_set_result(mode: Mode) {
        for _ in 0..10 {
            let pool = mode.pool(1);
            let tasks = Tasks::new(&pool);
            let futures: Vec<_> = (0..20).map(|_| tasks.echo(&pool)).collect();
            std::thread::scope(|scope| {
                scope.spawn(|| futures.iter().for_each(|future| assert!(!future.cancel() || future.is_done() && future.is_cancelled())));
                scope.spawn(|| futures.iter().rev().for_each(|future| {
                    future.abort();
                }));
                scope.spawn(|| pool.kill());
                for future in &futures {
                    let first = future.result_timeout(PATIENCE).expect("in time").map_err(|failure| failure.error().clone());
                    for _ in 0..3 {
                        assert_eq!(future.result().map_err(|failure| failure.error().clone()), first);
                    }
                }
            });
        }
    }

    fn test_multiple_set_exception(mode: Mode) {
        let pool = mode.pool(1);
        let tasks = Tasks::new(&pool);
        let future = tasks.trap(&pool);
        let first = error(&future);
        assert!(!future.abort() && !future.cancel(), "it is done");
        pool.kill();
        assert_eq!(error(&future), first);
    }

    fn test_get_snapshot(mode: Mode) {
        let pool = mode.pool(2);
        let tasks = Tasks::new(&pool);
        for _ in 0..500 {
            let future = tasks.echo(&pool);
            let mut last = 0;
            while last < 2 {
                let now = match future.state() {
                    FutureState::Pending => 0,
                    FutureState::Running => 1,
                    FutureState::Cancelled | FutureState::Finished => 2,
                    other => panic!("{other:?}"),
                };
                assert!(now >= last, "a state ran backwards");
                last = now;
            }
            // One read says all: done, with its result and its report.
            assert!(future.is_done() && future.try_result().expect("done").is_ok() && future.report().is_some());
        }
    }
}
