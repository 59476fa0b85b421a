//! `Interrupt::Kill`: code that does not look whether it is to stop is stopped all the same, and nobody
//! else pays for it but with a worker's start.

use std::time::{Duration, Instant};

use crate::support::{self, Guarded, PATIENCE, error, prebuilt};
use wasmpool::module::{Interrupt, ModuleOptions};
use wasmpool::pool::OnWorkerDeath;
use wasmpool::task::Retry;
use wasmpool::{Module, Pool, TaskError, TaskOptions};

/// A grace period that nobody waits for in these tests.
const LONG: Duration = Duration::from_secs(3600);

fn pool(workers: usize) -> Guarded {
    support::build(support::builder(workers).grace(LONG))
}

fn load(pool: &Pool, options: ModuleOptions) -> Module {
    pool.load_file_with(prebuilt("echo"), options).expect("loads")
}

fn deaf(pool: &Pool) -> Module {
    load(pool, ModuleOptions::new().interrupt(Interrupt::Kill))
}

#[test]
fn a_task_that_hears_no_interrupt_ends_at_its_deadline_without_the_grace_period() {
    let pool = pool(1);
    let module = deaf(&pool);
    assert_eq!(module.description().interrupt, Interrupt::Kill);
    let spin = module.task::<u64, u64>("spin").expect("has it");
    let limit = Duration::from_millis(100);
    let endless = pool.submit_with(&spin, &u64::MAX, TaskOptions::new().timeout(limit)).expect("submits");
    assert!(endless.failure_timeout(PATIENCE).is_ok(), "it ends");
    assert_eq!(error(&endless), TaskError::Timeout { limit, killed: true });
    let first = endless.report().expect("has run").worker_pid;
    // The pool goes on, with another worker.
    let next = pool.submit(&spin, &10).expect("submits");
    next.result_timeout(PATIENCE).expect("in time").expect("succeeds");
    assert_ne!(next.report().expect("has run").worker_pid, first);
    assert_eq!(pool.stats().workers_died, 0, "the pool's own doing is no death");
}

#[test]
fn a_task_that_hears_no_interrupt_is_aborted_and_those_behind_it_run() {
    let pool = pool(1);
    let spin = deaf(&pool).task::<u64, u64>("spin").expect("has it");
    let endless = pool.submit(&spin, &u64::MAX).expect("submits");
    let behind: Vec<_> = (0..20).map(|n| pool.submit(&spin, &n).expect("submits")).collect();
    // One that was dispatched and not begun is not at work yet, and ends without a kill.
    support::eventually("it to compute", || {
        let pids = pool.worker_pids();
        pids.first().is_some_and(|pid| support::cpu_of(*pid) > Duration::from_millis(100))
    });
    assert!(endless.abort());
    for future in &behind {
        future.result_timeout(PATIENCE).expect("in time").expect("succeeds");
    }
    assert_eq!(error(&endless), TaskError::Aborted { killed: true });
    assert_eq!(pool.stats().workers_died, 0);
}

#[test]
fn a_deadline_that_is_retried_runs_again_on_another_worker() {
    let pool = pool(1);
    let spin = deaf(&pool).task::<u64, u64>("spin").expect("has it");
    let retry = Retry::attempts(3).after_timeouts();
    let options = TaskOptions::new().timeout(Duration::from_millis(20)).retry(retry);
    let endless = pool.submit_with(&spin, &u64::MAX, options).expect("submits");
    assert!(endless.failure_timeout(PATIENCE).is_ok(), "it ends");
    assert_eq!(endless.report().expect("has run").attempts, 3);
}

#[test]
fn both_kinds_of_one_module_are_two_modules_of_a_pool() {
    let pool = pool(1);
    let checked = load(&pool, ModuleOptions::new());
    let unchecked = deaf(&pool);
    assert_eq!(checked.description().interrupt, Interrupt::Check);
    let limit = Duration::from_millis(100);
    for (module, killed) in [(&checked, false), (&unchecked, true), (&checked, false)] {
        let spin = module.task::<u64, u64>("spin").expect("has it");
        let options = TaskOptions::new().timeout(limit);
        let endless = pool.submit_with(&spin, &u64::MAX, options).expect("submits");
        assert!(endless.failure_timeout(PATIENCE).is_ok(), "it ends");
        assert_eq!(error(&endless), TaskError::Timeout { limit, killed });
    }
}

#[test]
fn a_metered_module_looks_at_its_fuel_and_hears_interrupts() {
    let pool = pool(1);
    let options = ModuleOptions::new().metered(true).interrupt(Interrupt::Kill);
    let module = load(&pool, options);
    assert_eq!(module.description().interrupt, Interrupt::Check);
    let spin = module.task::<u64, u64>("spin").expect("has it");
    let limit = Duration::from_millis(100);
    let options = TaskOptions::new().timeout(limit);
    let endless = pool.submit_with(&spin, &u64::MAX, options).expect("submits");
    assert!(endless.failure_timeout(PATIENCE).is_ok(), "it ends");
    assert_eq!(error(&endless), TaskError::Timeout { limit, killed: false });
}

#[test]
fn whoever_stops_a_task_that_has_just_ended_hits_none_of_those_behind_it() {
    let pool = pool(1);
    let spin = deaf(&pool).task::<u64, u64>("spin").expect("has it");
    // Short ones first, so that many stand behind the one at hand.
    for _ in 0..200 {
        pool.submit(&spin, &10).expect("submits").result().expect("succeeds");
    }
    // A task may mostly end before anybody stops it on a busy machine.
    let deadline = Instant::now() + PATIENCE;
    let mut aborted = 0;
    let mut round = 0;
    while round < 50 || (aborted == 0 && Instant::now() < deadline) {
        round += 1;
        let futures: Vec<_> = (0..64).map(|_| pool.submit(&spin, &2000).expect("submits")).collect();
        let mut stopped = None;
        while stopped.is_none() && !futures.iter().all(wasmpool::TaskFuture::is_done) {
            stopped = futures.iter().position(|future| future.is_running() && future.abort());
        }
        for (index, future) in futures.iter().enumerate() {
            let ended = future.result_timeout(PATIENCE).expect("in time");
            match ended {
                Ok(_) => {}
                Err(_) if Some(index) == stopped => aborted += 1,
                Err(failure) => panic!("round {round}, task {index}, {stopped:?} was stopped: {failure}"),
            }
        }
    }
    assert!(aborted > 0, "none was stopped: the test has tried nothing");
    assert_eq!(pool.stats().workers_died, 0);
}

/// The least time that a task has run before it is killed.
const RAN: Duration = Duration::from_millis(200);

/// Waits until the only worker has computed for a while.
fn computes(pool: &Pool) -> u32 {
    support::eventually("it to compute", || {
        let pids = pool.worker_pids();
        pids.first().is_some_and(|pid| support::cpu_of(*pid) > RAN)
    });
    pool.worker_pids()[0]
}

/// None of the worker's own words is left of such a task, and the pool says what it has measured.
#[track_caller]
fn is_measured(report: &wasmpool::task::TaskReport) {
    let cpu = report.cpu.expect("the process's clock says it");
    assert!(report.run >= RAN / 2 && report.run <= report.total, "{report:?}");
    // A worker has two threads. On a busy machine it may get little of the time until its deadline.
    assert!(cpu > Duration::ZERO && cpu <= report.run * 2 + RAN, "{report:?}");
    assert_eq!(report.peak_memory_bytes, None, "nobody has said it");
}

#[test]
fn a_task_that_is_killed_with_its_worker_reports_what_the_pool_has_measured() {
    let replace = || support::builder(1).on_worker_death(OnWorkerDeath::replace()).grace(LONG);
    for how in ["deadline", "abort", "crash", "broken pool", "retried"] {
        let builder = if how == "broken pool" { support::builder(1) } else { replace() };
        let pool = support::build(builder);
        let spin = deaf(&pool).task::<u64, u64>("spin").expect("has it");
        // The worker has run another task, whose time is not this one's.
        pool.submit(&spin, &1_000_000).expect("submits").result().expect("succeeds");
        let limit = if how == "deadline" { RAN * 3 } else { PATIENCE };
        let mut options = TaskOptions::new().timeout(limit);
        if how == "retried" {
            options = options.retry(Retry::attempts(2).backoff(LONG));
        }
        let endless = pool.submit_with(&spin, &u64::MAX, options).expect("submits");
        let never = pool.submit(&spin, &1).expect("submits");
        match how {
            "deadline" => {}
            "abort" => {
                computes(&pool);
                endless.abort();
            }
            _ => support::signal(computes(&pool), rustix::process::Signal::KILL),
        }
        if how == "retried" {
            support::eventually("it to wait for its second attempt", || pool.stats().retries == 1);
            assert!(endless.cancel());
        }
        let failure = support::failure(&endless);
        is_measured(failure.report());
        is_measured(&endless.report().expect("it has ended"));
        if let Some(report) = never.report().filter(|report| report.attempts == 0) {
            assert_eq!((report.run, report.cpu, report.peak_memory_bytes), (Duration::ZERO, None, None));
        }
    }
}
