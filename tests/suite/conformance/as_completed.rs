//! `test_as_completed.py`.

use std::collections::HashSet;

use wasmpool::future::{as_completed, as_completed_timeout};

use super::{Duration, Mode, Tasks, in_both_modes, output};
use crate::support::{PATIENCE, eventually};

in_both_modes! {
    fn test_no_timeout(mode: Mode) {
        let pool = mode.pool(2);
        let tasks = Tasks::new(&pool);
        let (last, _) = tasks.running(&pool);
        let cancelled = tasks.echo(&pool);
        cancelled.cancel();
        let futures = vec![last, tasks.echo(&pool), tasks.trap(&pool), cancelled];
        let last = futures[0].task_id();
        let mut order = Vec::new();
        for future in as_completed(&futures) {
            assert!(future.is_done());
            order.push(future.task_id());
            if order.len() == 3 {
                assert!(futures[0].abort(), "nothing else is left");
            }
        }
        assert_eq!(order.last(), Some(&last), "in the order of completion");
        assert_eq!(order.iter().collect::<HashSet<_>>().len(), 4, "each once");
    }

    fn test_future_times_out(mode: Mode) {
        let pool = mode.pool(2);
        let tasks = Tasks::new(&pool);
        let (running, _) = tasks.running(&pool);
        let done = tasks.echo(&pool);
        output(&done);
        for timeout in [Duration::ZERO, Duration::from_millis(20)] {
            let mut seen = as_completed_timeout([&running, &done], timeout);
            let first = seen.next().expect("one is done").expect("before the time is up");
            assert_eq!(first.task_id(), done.task_id());
            assert!(seen.next().expect("a last word").is_err());
            assert!(seen.next().is_none());
        }
        pool.kill();
    }

    fn test_duplicate_futures(mode: Mode) {
        let pool = mode.pool(1);
        let tasks = Tasks::new(&pool);
        let future = tasks.echo(&pool);
        assert_eq!(as_completed([&future, &future, &future]).count(), 1);
        assert_eq!(as_completed([&future, &future]).count(), 1, "done already");
    }

    fn test_free_reference_yielded_future(mode: Mode) {
        let pool = mode.pool(2);
        let tasks = Tasks::new(&pool);
        let megabyte = || "x".repeat(200_000);
        let futures: Vec<_> =
            (0..100).map(|_| pool.submit_bytes(&tasks.echo, megabyte()).expect("submits")).collect();
        let outputs = std::sync::Arc::new(());
        for future in &futures {
            let held = outputs.clone();
            // A callback is kept by its future and goes with it.
            future.on_done(move |_| drop(held));
        }
        let mut completed = as_completed(futures);
        let mut left = 100;
        while let Some(future) = completed.next() {
            left -= 1;
            output(&future);
            drop(future);
            assert_eq!(completed.size_hint(), (left, Some(left)));
        }
        eventually("every callback to be freed", || std::sync::Arc::strong_count(&outputs) == 1);
    }

    fn test_correct_timeout_exception_msg(mode: Mode) {
        let pool = mode.pool(2);
        let tasks = Tasks::new(&pool);
        let done = [tasks.echo(&pool), tasks.echo(&pool)];
        done.iter().for_each(|future| drop(output(future)));
        let running = tasks.endless(&pool);
        let pending = tasks.endless(&pool);
        let futures = [&running, &done[0], &pending, &done[1]];
        let last = as_completed_timeout(futures, Duration::from_millis(20)).last().expect("a last word");
        assert_eq!(last.expect_err("the time is up").to_string(), "2 of 4 futures unfinished");
        pool.kill();
        assert!(as_completed_timeout(futures, PATIENCE).all(|future| future.is_ok()));
    }
}
