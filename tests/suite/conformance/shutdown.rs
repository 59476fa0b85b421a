//! `test_shutdown.py`.

use std::time::Instant;

use wasmpool::error::SubmitError;
use wasmpool::future::{ReturnWhen, wait};
use wasmpool::pool::ShutdownMode;
use wasmpool::{TaskError, TaskFuture, TaskOptions};

use super::{Duration, FOREVER, Mode, Process, Tasks, assert_reaped, in_both_modes, in_time, output, steps};
use crate::support::{Holdings, PATIENCE, error, eventually, is_alive};

/// Runs `use_pool` in a process of its own, and there, three times: what the first left (the
/// runtime's own) is all that is left after the others.
fn leaves_nothing(test: &str, mode: Mode, use_pool: impl Fn()) {
    if let Process::Parent(mut child) = Process::of(test, Some(mode)) {
        return child.succeed();
    }
    use_pool();
    let before = Holdings::now();
    assert_eq!((before.mappings, before.children), (0, 0));
    use_pool();
    use_pool();
    // The callback threads end when the last future is gone; give them the time to.
    eventually("everything to be given back", || {
        let now = Holdings::now();
        now.descriptors <= before.descriptors
            && now.threads <= before.threads
            && (now.mappings, now.children) == (0, 0)
    });
}

in_both_modes! {
    fn test_run_after_shutdown(mode: Mode) {
        let pool = mode.pool(2);
        let tasks = Tasks::new(&pool);
        pool.shutdown(ShutdownMode::Finish);
        let refused = pool.submit_bytes(&tasks.echo, "x").expect_err("refused");
        assert!(matches!(refused, SubmitError::ShutDown { .. }), "{refused:?}");
        assert_eq!(refused.to_string(), "cannot submit `echo` after the pool was shut down");
        let mapped = pool.map(&tasks.echo, ["x"]).next().expect("an item");
        assert!(matches!(mapped, Err(wasmpool::error::MapError::Submit(SubmitError::ShutDown { .. }))), "{mapped:?}");
    }

    fn test_interpreter_shutdown(mode: Mode) {
        // The handle goes with its scope, as at the end of main.
        let futures = {
            let pool = mode.pool(2);
            let tasks = Tasks::new(&pool);
            (0..20).map(|_| tasks.echo(&pool)).collect::<Vec<_>>()
        };
        for future in &futures {
            assert_eq!(future.try_result().expect("a drop finishes what was submitted").expect("echoes"), "x");
        }
    }

    fn test_del_shutdown(mode: Mode) {
        let pool = mode.pool(2);
        let tasks = Tasks::new(&pool);
        let events = pool.events();
        let results: Vec<_> = pool.map(&tasks.echo, vec!["x"; 20]).collect();
        let clone = pool.clone();
        drop(pool);
        output(&tasks.echo(&clone));
        drop(clone);
        assert!(results.iter().all(Result::is_ok));
        assert_reaped(events);
    }

    fn test_hang_issue12364(mode: Mode) {
        let pool = mode.pool(2);
        let tasks = Tasks::new(&pool);
        let futures: Vec<_> = (0..50).map(|_| pool.submit_bytes(&tasks.work, steps(1_000_000)).expect("submits")).collect();
        pool.shutdown(ShutdownMode::Finish);
        assert!(futures.iter().all(|future| future.result().is_ok()));
    }

    fn test_hang_gh94440(mode: Mode) {
        for _ in 0..20 {
            let pool = mode.pool(1);
            let tasks = Tasks::new(&pool);
            output(&tasks.echo(&pool));
            // The second is cancelled while the worker is handed it, or has it.
            let first = tasks.echo(&pool);
            let second = tasks.echo(&pool);
            let cancelled = second.cancel();
            in_time("submit, cancel, shutdown", move || pool.shutdown(ShutdownMode::Finish));
            output(&first);
            assert_eq!(second.is_cancelled(), cancelled);
            assert!(cancelled || second.result().is_ok());
        }
    }

    fn test_cancel_futures(mode: Mode) {
        let pool = mode.pool(2);
        let tasks = Tasks::new(&pool);
        let running: Vec<TaskFuture<_>> = (0..2)
            .map(|_| {
                let options = TaskOptions::new().timeout(Duration::from_millis(300));
                pool.submit_with(&tasks.work, &steps(FOREVER), options).expect("submits")
            })
            .collect();
        eventually("both to run", || pool.stats().running == 2);
        let pending: Vec<_> = (0..30).map(|_| tasks.echo(&pool)).collect();
        std::thread::scope(|scope| {
            let waiters: Vec<_> = pending.iter().map(|future| scope.spawn(|| future.result())).collect();
            pool.begin_shutdown(ShutdownMode::CancelPending);
            for waiter in waiters {
                let failure = waiter.join().expect("woken").expect_err("cancelled");
                assert_eq!(*failure.error(), TaskError::Cancelled);
            }
        });
        // The running ones went on to their own end.
        for future in &running {
            assert!(matches!(error(future), TaskError::Timeout { .. }));
        }
        pool.shutdown(ShutdownMode::CancelPending);
    }

    fn test_hang_gh83386(mode: Mode) {
        match Process::of("shutdown::test_hang_gh83386", Some(mode)) {
            Process::Child(words) => {
                let pool = mode.pool(2);
                let tasks = Tasks::new(&pool);
                let (_running, pid) = tasks.running(&pool);
                std::fs::write(words, pid.to_string()).expect("writes");
                pool.begin_shutdown(ShutdownMode::Finish);
                // Python hangs here. The pool is neither waited for nor dropped.
                std::process::exit(0);
            }
            Process::Parent(mut child) => {
                child.succeed();
                let pid = child.words().parse().expect("a pid");
                eventually("the worker to be gone", || !is_alive(pid));
            }
        }
    }

    fn test_processes_terminate(mode: Mode) {
        leaves_nothing("shutdown::test_processes_terminate", mode, || {
            let pool = mode.pool(3);
            let tasks = Tasks::new(&pool);
            let futures: Vec<_> = (0..30).map(|_| tasks.echo(&pool)).collect();
            let running = tasks.endless(&pool);
            running.abort();
            pool.shutdown(ShutdownMode::Finish);
            assert!(pool.worker_pids().is_empty());
            assert!(futures.iter().all(TaskFuture::is_done));
        });
    }

    fn test_context_manager_shutdown(mode: Mode) {
        leaves_nothing("shutdown::test_context_manager_shutdown", mode, || {
            let pool = mode.pool(3);
            let tasks = Tasks::new(&pool);
            assert!(pool.map(&tasks.echo, (0..300).map(|_| "x")).all(|echoed| echoed.is_ok()));
        });
    }

    fn test_shutdown_no_wait(mode: Mode) {
        leaves_nothing("shutdown::test_shutdown_no_wait", mode, || {
            let pool = mode.pool(3);
            let tasks = Tasks::new(&pool);
            let futures: Vec<_> = (0..30).map(|_| tasks.echo(&pool)).collect();
            pool.begin_shutdown(ShutdownMode::Finish);
            let waited = wait(&futures, Some(PATIENCE), ReturnWhen::AllCompleted);
            assert!(waited.not_done.is_empty() && futures.iter().all(|future| future.result().is_ok()));
        });
    }

    fn test_shutdown_gh_132969_case_1(mode: Mode) {
        in_time("limit 1, a failing task, no wait", move || {
            let pool = mode.builder(1).recycle_after_tasks(1).build().expect("builds");
            let tasks = Tasks::new(&pool);
            let failing = tasks.trap(&pool);
            pool.begin_shutdown(ShutdownMode::Finish);
            assert!(matches!(error(&failing), TaskError::Trap { .. }));
        });
    }

    fn test_shutdown_gh_132969_case_2(mode: Mode) {
        in_time("limit 1, several tasks of which one fails, no wait", move || {
            let pool = mode.builder(1).recycle_after_tasks(1).build().expect("builds");
            let tasks = Tasks::new(&pool);
            let futures = [tasks.echo(&pool), tasks.trap(&pool), tasks.echo(&pool)];
            let began = Instant::now();
            pool.begin_shutdown(ShutdownMode::Finish);
            output(&futures[0]);
            assert!(matches!(error(&futures[1]), TaskError::Trap { .. }));
            output(&futures[2]);
            assert!(began.elapsed() < PATIENCE);
        });
    }
}
