//! `test_wait.py`.

use std::sync::Barrier;

use wasmpool::TaskFuture;
use wasmpool::future::{ReturnWhen, wait};
use wasmpool::pool::ShutdownMode;

use super::{Bytes, Duration, Mode, Tasks, in_both_modes, output};
use crate::support::{PATIENCE, error};

in_both_modes! {
    fn test_20369(mode: Mode) {
        let pool = mode.pool(1);
        let tasks = Tasks::new(&pool);
        let future = tasks.echo(&pool);
        let twice = wait(&[&future, &future], Some(PATIENCE), ReturnWhen::AllCompleted);
        assert_eq!((twice.done, twice.not_done), (vec![0, 1], vec![]));
    }

    fn test_first_completed(mode: Mode) {
        let pool = mode.pool(2);
        let tasks = Tasks::new(&pool);
        let futures = [tasks.endless(&pool), tasks.echo(&pool)];
        let first = wait(&futures, Some(PATIENCE), ReturnWhen::FirstCompleted);
        assert_eq!((first.done, first.not_done), (vec![1], vec![0]));
        pool.kill();
    }

    fn test_first_completed_some_already_completed(mode: Mode) {
        let pool = mode.pool(1);
        let tasks = Tasks::new(&pool);
        let done = tasks.echo(&pool);
        output(&done);
        let (running, _) = tasks.running(&pool);
        let cancelled = tasks.echo(&pool);
        assert!(cancelled.cancel());
        let first = wait(&[&running, &done, &cancelled], Some(PATIENCE), ReturnWhen::FirstCompleted);
        assert_eq!((first.done, first.not_done), (vec![1, 2], vec![0]));
        // A cancelled one alone is enough: it is done.
        let first = wait(&[&running, &cancelled], Some(PATIENCE), ReturnWhen::FirstCompleted);
        assert_eq!((first.done, first.not_done), (vec![1], vec![0]));
        pool.kill();
    }

    fn test_first_exception(mode: Mode) {
        let pool = mode.pool(4);
        let tasks = Tasks::new(&pool);
        let futures = [tasks.echo(&pool), tasks.endless(&pool), tasks.trap(&pool), tasks.endless(&pool)];
        let first = wait(&futures, Some(PATIENCE), ReturnWhen::FirstException);
        assert!(first.done.contains(&2) && first.not_done.contains(&1) && first.not_done.contains(&3), "{first:?}");
        pool.kill();
    }

    fn test_first_exception_some_already_complete(mode: Mode) {
        let pool = mode.pool(2);
        let tasks = Tasks::new(&pool);
        let done = tasks.echo(&pool);
        output(&done);
        let (running, _) = tasks.running(&pool);
        let (other, _) = tasks.running(&pool);
        let cancelled = tasks.echo(&pool);
        assert!(cancelled.cancel());
        other.abort();
        error(&other);
        // A success is not enough, and a cancelled one is not either; a failure is.
        let futures = [&done, &running, &cancelled, &tasks.trap(&pool)];
        let first = wait(&futures, Some(PATIENCE), ReturnWhen::FirstException);
        assert_eq!((first.done, first.not_done), (vec![0, 2, 3], vec![1]));
        pool.kill();
    }

    fn test_first_exception_one_already_failed(mode: Mode) {
        let pool = mode.pool(1);
        let tasks = Tasks::new(&pool);
        let failed = tasks.trap(&pool);
        error(&failed);
        let (running, _) = tasks.running(&pool);
        let first = wait(&[&failed, &running], Some(PATIENCE), ReturnWhen::FirstException);
        assert_eq!((first.done, first.not_done), (vec![0], vec![1]));
        pool.kill();
    }

    fn test_all_completed(mode: Mode) {
        let pool = mode.pool(2);
        let tasks = Tasks::new(&pool);
        let cancelled = tasks.echo(&pool);
        cancelled.cancel();
        let futures = [tasks.echo(&pool), tasks.trap(&pool), cancelled, tasks.echo(&pool)];
        let all = wait(&futures, None, ReturnWhen::AllCompleted);
        assert_eq!((all.done, all.not_done), (vec![0, 1, 2, 3], vec![]));
        let none: [TaskFuture<Bytes>; 0] = [];
        assert!(wait(&none, None, ReturnWhen::AllCompleted).done.is_empty(), "nothing to wait for");
    }

    fn test_timeout(mode: Mode) {
        let pool = mode.pool(2);
        let tasks = Tasks::new(&pool);
        let (running, _) = tasks.running(&pool);
        let done = tasks.echo(&pool);
        output(&done);
        let some = wait(&[&done, &running], Some(Duration::from_millis(20)), ReturnWhen::AllCompleted);
        assert_eq!((some.done, some.not_done), (vec![0], vec![1]));
        let now = wait(&[&done, &running], Some(Duration::ZERO), ReturnWhen::AllCompleted);
        assert_eq!((now.done, now.not_done), (vec![0], vec![1]));
        pool.kill();
    }

    /// Stressed here; `tests/model` goes through every order of a small one.
    fn test_pending_calls_race(mode: Mode) {
        let pool = mode.pool(2);
        let tasks = Tasks::new(&pool);
        for _ in 0..50 {
            let futures: Vec<_> = (0..20).map(|_| tasks.echo(&pool)).collect();
            let barrier = Barrier::new(3);
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        barrier.wait();
                        let all = wait(&futures, Some(PATIENCE), ReturnWhen::AllCompleted);
                        assert_eq!(all.done.len(), 20, "{all:?}");
                    });
                }
            });
        }
        pool.shutdown(ShutdownMode::Finish);
    }
}
