//! Short tasks of a map travel in batches, and nobody can tell but by the time that it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::support::act::act;
use crate::support::{Guarded, build, builder, eventually, signal};
use rustix::process::Signal;
use wasmpool::error::MapError;
use wasmpool::pool::{OnWorkerDeath, Replacement, ShutdownMode};
use wasmpool::{Bytes, Pool, TaskError, TaskOptions};

/// Inputs before the first that is not short: by then batches are under way.
const SHORT: usize = 2_000;
const ALL: usize = 4_000;

fn replacing(workers: usize) -> Guarded {
    build(builder(workers).on_worker_death(OnWorkerDeath::Replace(Replacement::new())))
}

fn input(number: usize, special: &'static str) -> Bytes {
    match number {
        SHORT => special.into(),
        _ => format!("e{number}").into(),
    }
}

/// All but the special one are as they should be; that is returned.
fn all_but_one(results: Vec<Result<Bytes, MapError>>) -> Result<Bytes, MapError> {
    assert_eq!(results.len(), ALL);
    let mut special = None;
    for (number, result) in results.into_iter().enumerate() {
        match number {
            SHORT => special = Some(result),
            _ => assert_eq!(result.expect("succeeds"), input(number, ""), "{number}"),
        }
    }
    special.expect("there was one")
}

/// Answers of workers: one for each batch.
fn answers(pool: &Pool) -> u64 {
    pool.stats().workers.iter().map(|worker| worker.answered).sum()
}

#[test]
fn short_tasks_travel_together_and_are_counted_one_by_one() {
    let pool = build(builder(2));
    let act = act(&pool);
    let mut rounds = 0;
    let mut before = 0;
    // Tasks are not short on a busy machine: they travel alone there, and another round shows.
    eventually("short tasks to travel together", || {
        let results: Vec<_> = pool.map(&act, (0..ALL).map(|number| input(number, "x"))).collect();
        all_but_one(results).expect("succeeds");
        rounds += 1;
        let stats = pool.stats();
        assert_eq!((stats.submitted, stats.ended.succeeded), (rounds * ALL as u64, rounds * ALL as u64));
        let answers = answers(&pool) - std::mem::replace(&mut before, answers(&pool));
        answers < ALL as u64 / 4
    });
    eventually("nothing to be left", || (pool.stats().pending, pool.stats().running) == (0, 0));
}

#[test]
fn an_unordered_map_has_each_result_once() {
    let pool = build(builder(2));
    let act = act(&pool);
    let mut results = BTreeMap::new();
    for (number, result) in pool.map(&act, (0..ALL).map(|number| input(number, "t"))).unordered() {
        assert!(results.insert(number, result).is_none(), "{number} came twice");
    }
    let error = all_but_one(results.into_values().collect()).expect_err("traps");
    assert!(matches!(&error, MapError::Task(failure) if matches!(failure.error(), TaskError::Trap { .. })));
}

#[test]
fn a_task_that_fails_in_a_batch_stands_in_its_own_place_with_its_own_number() {
    let pool = build(builder(2));
    let act = act(&pool);
    for special in ["t", "r"] {
        let results: Vec<_> = pool.map(&act, (0..ALL).map(|number| input(number, special))).collect();
        let MapError::Task(failure) = all_but_one(results).expect_err("fails") else {
            panic!("not the task's")
        };
        match failure.error() {
            TaskError::Trap { backtrace, .. } if special == "t" => assert!(!backtrace.is_empty()),
            TaskError::Guest { .. } if special == "r" => {}
            other => panic!("{special}: {other}"),
        }
        let report = failure.report();
        assert!(report.worker_pid.is_some() && report.attempts == 1);
        assert!(!report.run.is_zero() && report.total >= report.queued + report.run, "{report:?}");
        assert!(report.output_bytes.is_some() && report.log_bytes_dropped == Some(0), "{report:?}");
    }
    let ended = pool.stats().ended;
    assert_eq!((ended.succeeded, ended.failed), (2 * ALL as u64 - 2, 2));
}

#[test]
fn a_task_that_times_out_in_a_batch_costs_the_others_nothing() {
    let pool = build(builder(2));
    let act = act(&pool);
    let options = TaskOptions::new().timeout(Duration::from_millis(100));
    let inputs = (0..ALL).map(|number| input(number, "s"));
    let results: Vec<_> = pool.map(&act, inputs).options(options).collect();
    let MapError::Task(failure) = all_but_one(results).expect_err("times out") else {
        panic!("not the task's")
    };
    assert!(matches!(failure.error(), TaskError::Timeout { killed: false, .. }), "{failure}");
    let stats = pool.stats();
    assert_eq!((stats.ended.succeeded, stats.ended.timed_out), (ALL as u64 - 1, 1));
    assert_eq!(stats.workers_died, 0);
}

/// Maps, and kills the worker that is at the endless task.
fn map_and_kill(pool: &Pool) -> Vec<Result<Bytes, MapError>> {
    let act = act(pool);
    std::thread::scope(|scope| {
        let mapped =
            scope.spawn(|| pool.map(&act, (0..ALL).map(|number| input(number, "s"))).collect::<Vec<_>>());
        let mut victim = None;
        eventually("the endless task to run for a while", || {
            let long = |ran: Duration| ran > Duration::from_millis(300);
            let stats = pool.stats();
            let at = stats.workers.iter().find(|worker| worker.task.is_some_and(|(_, ran)| long(ran)));
            victim = at.map(|worker| worker.pid);
            victim.is_some()
        });
        signal(victim.expect("it runs"), Signal::KILL);
        mapped.join().expect("maps")
    })
}

#[test]
fn a_worker_that_dies_loses_the_task_that_it_was_at_and_no_other() {
    let pool = replacing(2);
    let results = map_and_kill(&pool);
    let MapError::Task(failure) = all_but_one(results).expect_err("is lost") else {
        panic!("not the task's")
    };
    assert!(matches!(failure.error(), TaskError::WorkerDied(_)), "{failure}");
    let stats = pool.stats();
    assert_eq!((stats.ended.succeeded, stats.ended.lost, stats.workers_died), (ALL as u64 - 1, 1, 1));
}

#[test]
fn where_a_death_breaks_the_pool_every_task_of_a_batch_ends_with_it() {
    let results = map_and_kill(&build(builder(1)));
    assert_eq!(results.len(), ALL, "each input has a result");
    let mut ids = BTreeSet::new();
    let mut begun = 0;
    for (number, result) in results.into_iter().enumerate() {
        match result {
            // Tasks that a batch gives back wait while the next one runs: later ones may be done, too.
            Ok(output) => assert!(number != SHORT && output == input(number, "")),
            Err(MapError::Task(failure)) => {
                assert!(matches!(failure.error(), TaskError::Broken(_)), "{failure}");
                let report = failure.report();
                let has_begun = report.worker_pid.is_some();
                begun += u32::from(has_begun);
                assert_eq!(report.attempts, u32::from(has_begun), "{number}: {report:?}");
                assert_eq!(report.run.is_zero(), !has_begun, "{report:?}");
                assert!(report.total >= report.queued + report.run && !report.total.is_zero(), "{report:?}");
                assert_eq!(report.output_bytes, None, "{report:?}");
                assert!(ids.insert(failure.task_id()), "{} stands for two", failure.task_id());
            }
            Err(MapError::Submit(_)) => assert!(number > SHORT),
            Err(other) => panic!("{number}: {other}"),
        }
    }
    assert_eq!(begun, 1, "the worker was at one of them");
}

#[test]
fn dropping_a_map_cancels_what_is_left_of_its_batches() {
    let pool = build(builder(1));
    let act = act(&pool);
    let options = TaskOptions::new().timeout(Duration::from_millis(300));
    let mut map = pool.map(&act, (0..).map(|number| input(number, "s"))).options(options);
    for number in 0..SHORT {
        assert_eq!(map.next().expect("endless").expect("succeeds"), input(number, ""));
    }
    drop(map);
    eventually("nothing to be left", || {
        let stats = pool.stats();
        (stats.pending, stats.running) == (0, 0)
    });
    let stats = pool.stats();
    let ended = stats.ended;
    assert_eq!((ended.timed_out, ended.failed, ended.lost), (1, 0, 0), "the one that ran");
    assert_eq!(ended.succeeded + ended.cancelled + 1, stats.submitted);
    assert!(ended.cancelled > 0, "{ended:?}");
}

#[test]
fn a_shut_down_pool_finishes_the_batches_that_it_has() {
    let pool = build(builder(2));
    let act = act(&pool);
    let mut map = pool.map(&act, (0..).map(|number| input(number, "x")));
    for _ in 0..SHORT {
        map.next().expect("endless").expect("succeeds");
    }
    let begun = pool.stats().submitted;
    pool.shutdown(ShutdownMode::Finish);
    let stats = pool.stats();
    assert!(stats.submitted >= begun);
    assert_eq!(stats.ended.succeeded, stats.submitted, "everything that was accepted");
    // Each accepted task has its result; the rest of the endless inputs is refused.
    let left = map.by_ref().take_while(Result::is_ok).count() as u64;
    assert_eq!(SHORT as u64 + left, stats.ended.succeeded);
}
