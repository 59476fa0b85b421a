//! `executor.py`.

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicU64;

use wasmpool::error::{BuildError, MapError, ModuleError, SubmitError};
use wasmpool::pool::{Map, ShutdownMode};
use wasmpool::{TaskError, TaskOptions};

use super::{
    Arc, AtomicUsize, Counted, Duration, FOREVER, Mode, Ordering, Tasks, in_both_modes, in_time, output,
    pid_of, steps,
};
use crate::support::{PATIENCE, error, eventually, load};

fn items(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).expect("not zero")
}

in_both_modes! {
    fn test_submit(mode: Mode) {
        let pool = mode.pool(2);
        let count = load(&pool, "primes").task::<u64, u64>("count").expect("types agree");
        assert_eq!(output(&pool.submit(&count, &100).expect("submits")), 25);
    }

    fn test_submit_keyword(mode: Mode) {
        let pool = mode.pool(2);
        let module = load(&pool, "monte_carlo");
        let pi = module.task::<(u64, u64), f64>("pi").expect("two arguments, as a tuple");
        assert!((output(&pool.submit(&pi, &(100_000, 7)).expect("submits")) - std::f64::consts::PI).abs() < 0.1);
        // A name that is not there is an error that names those that are.
        let unknown = module.task::<(u64, u64), f64>("tau").expect_err("no such task");
        assert!(matches!(unknown, ModuleError::UnknownTask { .. }), "{unknown:?}");
        assert!(unknown.to_string().contains("`tau`") && unknown.to_string().contains("pi"), "{unknown}");
    }

    fn test_map(mode: Mode) {
        let pool = mode.pool(2);
        let count = load(&pool, "primes").task::<u64, u64>("count").expect("types agree");
        let sequential: Vec<u64> = (0..10).map(|n| (2..=n).filter(|p| (2..*p).all(|d| p % d > 0)).count() as u64).collect();
        let mapped: Vec<u64> = pool.map(&count, 0..10).collect::<Result<_, _>>().expect("counts");
        assert_eq!(mapped, sequential);
        let chunked = pool.map(&count, 0..10).chunk_size(items(3));
        assert_eq!(chunked.collect::<Result<Vec<u64>, _>>().expect("counts"), sequential);
    }

    fn test_map_exception(mode: Mode) {
        let pool = mode.pool(2);
        let own_error = load(&pool, "faults").task::<String, ()>("own_error").expect("types agree");
        let ok = load(&pool, "init_table").task::<u32, Vec<u32>>("lookup").expect("types agree");
        for chunk in [1, 5] {
            // 0 is not in the table: an error of the task's own.
            let inputs = [6, 0, 10, 0, 15];
            let results: Vec<_> = pool.map(&ok, inputs).chunk_size(items(chunk)).collect();
            assert_eq!(results.len(), 5, "iteration continues after an error");
            for (result, input) in results.iter().zip(inputs) {
                match (input, result) {
                    (0, Err(MapError::Task(failure))) => {
                        let TaskError::Guest { message, .. } = failure.error() else { panic!("{failure}") };
                        assert!(message.contains("0 is not in the table"), "{message}");
                    }
                    (_, Ok(factors)) => assert_eq!(factors.iter().product::<u32>(), input),
                    (_, other) => panic!("{input}: {other:?}"),
                }
            }
        }
        let only = pool.map(&own_error, ["mine".to_string()]).next().expect("one").expect_err("an error");
        assert!(only.to_string().ends_with(": mine"), "{only}");
    }

    fn test_map_timeout_from_callable(mode: Mode) {
        let pool = mode.pool(2);
        let tasks = Tasks::new(&pool);
        let limit = Duration::from_millis(50);
        let mut map = pool
            .map(&tasks.work, [steps(FOREVER), steps(0)])
            .options(TaskOptions::new().timeout(limit))
            .timeout(PATIENCE);
        match map.next().expect("an item").expect_err("the task's own timeout") {
            MapError::Task(failure) => assert_eq!(*failure.error(), TaskError::Timeout { limit, killed: false }),
            other => panic!("{other}"),
        }
        assert_eq!(map.next().expect("the next item").expect("works"), steps(0));
        assert!(map.next().is_none());
    }

    fn test_map_timeout(mode: Mode) {
        let pool = mode.pool(2);
        let tasks = Tasks::new(&pool);
        output(&tasks.echo(&pool));
        let limit = Duration::from_millis(1500);
        // The time runs from the call, not from the first `next`.
        let mut map = pool.map(&tasks.work, [0, 0, FOREVER, 0].map(steps)).timeout(limit);
        let began = std::time::Instant::now();
        assert_eq!(map.next().expect("the first").expect("was in time"), steps(0));
        assert_eq!(map.next().expect("the second").expect("was in time"), steps(0));
        match map.next().expect("a last word").expect_err("the time is up") {
            MapError::Timeout { limit: said } => assert_eq!(said, limit),
            other => panic!("{other}"),
        }
        assert!(began.elapsed() >= limit - Duration::from_millis(50));
        assert!(map.next().is_none() && map.next().is_none());
        drop(map);
        pool.kill();
    }

    fn test_map_close(mode: Mode) {
        let pool = mode.pool(1);
        let tasks = Tasks::new(&pool);
        let mut inputs = vec![steps(0); 50];
        inputs[1] = steps(FOREVER);
        let mut map = pool.map(&tasks.work, inputs);
        assert_eq!(map.next().expect("the first").expect("works"), steps(0));
        eventually("the second to run, and all to be pulled", || {
            let stats = pool.stats();
            stats.running == 1 && stats.ended.succeeded == 1
        });
        let submitted = pool.stats().submitted;
        drop(map);
        let stats = pool.stats();
        assert_eq!((stats.pending, stats.running), (0, 1), "{stats:?}");
        assert_eq!(stats.ended.cancelled, submitted - 2, "what was pending is cancelled");
        pool.kill();
    }

    fn test_map_buffersize(mode: Mode) {
        let pool = mode.pool(2);
        let tasks = Tasks::new(&pool);
        for buffer in [1, 2, 7, 50] {
            let inputs: Vec<_> = (0..50).map(steps).collect();
            let map = pool.map(&tasks.work, inputs.clone()).buffer_size(items(buffer));
            assert_eq!(map.collect::<Result<Vec<_>, _>>().expect("works"), inputs, "buffer of {buffer}");
        }
    }

    fn test_map_buffersize_on_infinite_iterable(mode: Mode) {
        let pool = mode.pool(2);
        let tasks = Tasks::new(&pool);
        let map = pool.map(&tasks.work, (0..).map(steps)).buffer_size(items(4));
        let some: Vec<_> = map.take(100).collect::<Result<_, _>>().expect("works");
        assert_eq!(some, (0..100).map(steps).collect::<Vec<_>>());
    }

    fn test_map_buffersize_on_empty_iterable(mode: Mode) {
        let pool = mode.pool(2);
        let tasks = Tasks::new(&pool);
        assert!(pool.map(&tasks.work, [""; 0]).buffer_size(items(8)).next().is_none());
        assert!(pool.worker_pids().is_empty(), "there was nothing to start one for");
    }

    fn test_map_buffersize_on_multiple_infinite_iterables(mode: Mode) {
        let pool = mode.pool(2);
        let pi = load(&pool, "monte_carlo").task::<(u64, u64), f64>("pi").expect("types agree");
        // Several iterables are one of tuples.
        let map = pool.map(&pi, (1000u64..).zip(5u64..)).buffer_size(items(4));
        assert_eq!(map.take(20).filter(Result::is_ok).count(), 20);
    }

    fn test_map_buffersize_when_buffer_is_full(mode: Mode) {
        let pool = mode.pool(1);
        let tasks = Tasks::new(&pool);
        let pulled = Arc::new(AtomicU64::new(0));
        let counted = {
            let pulled = pulled.clone();
            std::iter::from_fn(move || {
                let number = pulled.fetch_add(1, Ordering::SeqCst);
                // The first is quick, and nothing comes after the second.
                Some(steps(if number == 1 { FOREVER } else { 0 }))
            })
        };
        let mut map = pool.map(&tasks.work, counted).buffer_size(items(4));
        assert_eq!(pulled.load(Ordering::SeqCst), 0, "nothing is pulled before it is asked for");
        assert!(map.next().is_some());
        let after_first = pulled.load(Ordering::SeqCst);
        assert!((1..=4).contains(&after_first), "{after_first} pulled");
        in_time("a map that is dropped while its next item runs", {
            let pool = pool.clone();
            move || {
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        eventually("the second to run", || pool.stats().running == 1 && pool.stats().submitted == 5);
                        pool.kill();
                    });
                    assert!(map.next().expect("an item").is_err(), "the pool was killed");
                });
                // One was yielded, then four were ahead.
                assert_eq!(pulled.load(Ordering::SeqCst), 5);
            }
        });
    }

    fn test_shutdown_race_issue12456(mode: Mode) {
        let pool = mode.builder(2).queue_tasks_max(3).build().expect("builds");
        let tasks = Tasks::new(&pool);
        in_time("a shutdown that meets a full queue", move || {
            std::thread::scope(|scope| {
                let submitters: Vec<_> = (0..4)
                    .map(|_| {
                        scope.spawn(|| {
                            let mut accepted = Vec::new();
                            loop {
                                match pool.submit_bytes(&tasks.echo, "x") {
                                    Ok(future) => accepted.push(future),
                                    Err(SubmitError::ShutDown { .. }) => return accepted,
                                    Err(other) => panic!("{other}"),
                                }
                            }
                        })
                    })
                    .collect();
                eventually("some to be done", || pool.stats().ended.succeeded > 20);
                pool.shutdown(ShutdownMode::Finish);
                for submitter in submitters {
                    let accepted = submitter.join().expect("ends");
                    assert!(accepted.iter().all(|future| future.result().is_ok()), "what was accepted is done");
                }
            });
        });
    }

    fn test_no_stale_references(mode: Mode) {
        let pool = mode.pool(1);
        let tasks = Tasks::new(&pool);
        let count = Arc::new(AtomicUsize::new(0));
        let future = pool.submit_bytes(&tasks.echo, Counted::input(&count)).expect("submits");
        assert_eq!(output(&future), "counted");
        // The future is still held, the input is not.
        eventually("the input to be freed", || count.load(Ordering::SeqCst) == 0);
        let running = tasks.endless(&pool);
        pid_of(&pool, &running);
        let cancelled = pool.submit_bytes(&tasks.echo, Counted::input(&count)).expect("submits");
        assert_eq!(count.load(Ordering::SeqCst), 1, "a pending task has its input");
        assert!(cancelled.cancel());
        eventually("the input of a cancelled task to be freed", || count.load(Ordering::SeqCst) == 0);
        running.abort();
        error(&running);
    }

    fn test_free_reference(mode: Mode) {
        let pool = mode.pool(2);
        let tasks = Tasks::new(&pool);
        let count = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let inputs = {
            let count = count.clone();
            let most = most.clone();
            std::iter::repeat_with(move || {
                let input = Counted::input(&count);
                most.fetch_max(count.load(Ordering::SeqCst), Ordering::SeqCst);
                input
            })
        };
        let map = pool.map(&tasks.echo, inputs.take(1000)).buffer_size(items(8));
        for echoed in map {
            drop(echoed.expect("echoes"));
        }
        eventually("every input to be freed", || count.load(Ordering::SeqCst) == 0);
        // Inputs are held by tasks that are ahead, and by those that their worker's thread is about to drop.
        let most = most.load(Ordering::SeqCst);
        assert!(most <= 8 + 2 + 1, "{most} inputs were held at once");
    }
}

/// Python checks that `buffersize=0` is refused; here no such number can be said.
#[test]
fn test_map_buffersize_value_validation() {
    type Tasks = wasmpool::Task<u64, u64>;
    type Items = std::ops::Range<u64>;
    let _: fn(Map<Tasks, Items>, NonZeroUsize) -> Map<Tasks, Items> = Map::buffer_size;
    let _: fn(Map<Tasks, Items>, NonZeroUsize) -> Map<Tasks, Items> = Map::chunk_size;
    assert_eq!(NonZeroUsize::new(0), None);
}

#[test]
fn test_max_workers_negative() {
    for workers in [0, wasmpool::limits::WORKERS_MAX + 1, usize::MAX] {
        match crate::support::builder(workers).build().expect_err("refused") {
            BuildError::Workers { workers: said, max } => {
                assert_eq!((said, max), (workers, wasmpool::limits::WORKERS_MAX));
            }
            other => panic!("{other}"),
        }
    }
    let minimum = crate::support::builder(2).workers_min(3).build().expect_err("more than the most");
    assert!(matches!(minimum, BuildError::Setting { setting: "workers_min", .. }), "{minimum}");
}
