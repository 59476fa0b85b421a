//! Every number in a report was measured, or is absent.

use std::collections::HashSet;
use std::time::Duration;

use crate::support::{ECHO_WAT, build, builder, eventually, failure, load, raw, signal, wat};
use rustix::process::Signal;
use wasmpool::error::MapError;
use wasmpool::module::{Interrupt, ModuleOptions, RawTask};
use wasmpool::pool::OnWorkerDeath;
use wasmpool::task::TaskReport;
use wasmpool::{Bytes, Pool, TaskError, TaskFailure, TaskFuture, TaskOptions};

/// A task that never ends; its worker is killed where it is to be stopped.
fn deaf(pool: &Pool) -> RawTask {
    let wasm = ::wat::parse_str(ECHO_WAT).expect("valid text");
    let options = ModuleOptions::new().interrupt(Interrupt::Kill);
    raw(&pool.load_with(&wasm, options).expect("loads"), "spin")
}

/// Waits until the task has run for a while, and kills its worker.
fn kill_worker_of(pool: &Pool, future: &TaskFuture<Bytes>) {
    let ran = |pool: &Pool| pool.stats().workers.iter().find_map(|worker| worker.task);
    eventually("the task to run for a while", || {
        ran(pool).is_some_and(|(task, ran)| task == future.task_id() && ran > Duration::from_millis(20))
    });
    pool.worker_pids().into_iter().for_each(|pid| signal(pid, Signal::KILL));
}

/// The worker has said nothing of the task, and so nothing is known that only it could have said.
fn says_nothing(report: &TaskReport) {
    assert_eq!(report.output_bytes, None, "{report:?}");
    assert_eq!(report.log_bytes_dropped, None, "{report:?}");
    assert_eq!(report.refusals, None, "{report:?}");
    assert_eq!((report.peak_memory_bytes, report.fuel_used), (None, None), "{report:?}");
}

fn is_cut_off(failure: &TaskFailure) {
    let report = failure.report();
    says_nothing(report);
    assert_eq!((report.attempts, report.input_bytes), (1, Some(3)), "{report:?}");
    assert!(report.run >= Duration::from_millis(10) && report.worker_pid.is_some(), "{report:?}");
    assert!(report.total >= report.queued + report.run && failure.may_have_run(), "{report:?}");
}

fn never_began(failure: &TaskFailure) {
    let report = failure.report();
    says_nothing(report);
    assert_eq!((report.attempts, report.worker_pid, report.cpu), (0, None, None), "{report:?}");
    assert_eq!((report.run, report.queued), (Duration::ZERO, report.total), "{report:?}");
    assert!(!report.total.is_zero() && !failure.may_have_run(), "{report:?}");
}

#[test]
fn of_a_task_whose_worker_was_killed_nothing_is_known_that_only_the_worker_could_say() {
    let pool = build(builder(1).on_worker_death(OnWorkerDeath::replace()));
    let task = deaf(&pool);
    let options = TaskOptions::new().timeout(Duration::from_millis(50));
    let late = failure(&pool.submit_with(&task, &Bytes::from("abc"), options).expect("submits"));
    assert!(matches!(late.error(), TaskError::Timeout { killed: true, .. }), "{late}");
    is_cut_off(&late);

    let future = pool.submit_bytes(&task, "abc").expect("submits");
    kill_worker_of(&pool, &future);
    let dead = failure(&future);
    assert!(matches!(dead.error(), TaskError::WorkerDied(_)), "{dead}");
    is_cut_off(&dead);
    assert_eq!(future.report().as_ref(), Some(dead.report()));

    let future = pool.submit_bytes(&task, "abc").expect("submits");
    eventually("the task to run for a while", || {
        let ran = pool.stats().workers.iter().find_map(|worker| worker.task);
        ran.is_some_and(|(task, ran)| task == future.task_id() && ran > Duration::from_millis(20))
    });
    future.abort();
    let aborted = failure(&future);
    assert!(matches!(aborted.error(), TaskError::Aborted { killed: true }), "{aborted}");
    is_cut_off(&aborted);
}

#[test]
fn what_a_worker_has_said_is_known_even_if_it_is_nothing() {
    let pool = build(builder(1));
    let module = wat(&pool, ECHO_WAT);
    let future = pool.submit_bytes(&raw(&module, "echo"), "abc").expect("submits");
    future.result().expect("echoes");
    let report = future.report().expect("done");
    assert_eq!(
        (report.input_bytes, report.output_bytes, report.log_bytes_dropped),
        (Some(3), Some(3), Some(0))
    );
    assert!(report.refusals.as_ref().is_some_and(|refusals| refusals.is_empty()), "{report:?}");
    // The cost of a task that heeded an interrupt is reported, too.
    let options = TaskOptions::new().timeout(Duration::from_millis(50));
    let late = failure(&pool.submit_with(&raw(&module, "spin"), &Bytes::new(), options).expect("submits"));
    assert!(matches!(late.error(), TaskError::Timeout { killed: false, .. }), "{late}");
    let report = late.report();
    assert_eq!((report.output_bytes, report.log_bytes_dropped), (Some(0), Some(0)), "{report:?}");
    assert!(report.peak_memory_bytes.is_some_and(|bytes| bytes >= 4 << 16), "{report:?}");
}

#[test]
fn a_task_that_ended_before_it_began_has_no_attempt_and_no_numbers_but_its_wait() {
    let pool = build(builder(1));
    let task = deaf(&pool);
    let running = pool.submit_bytes(&task, "abc").expect("submits");
    let cancelled = pool.submit_bytes(&task, "abc").expect("submits");
    let waiting: Vec<_> = (0..5).map(|_| pool.submit_bytes(&task, "abc").expect("submits")).collect();
    assert!(cancelled.cancel());
    never_began(&failure(&cancelled));
    kill_worker_of(&pool, &running);
    let broken = failure(&running);
    assert!(matches!(broken.error(), TaskError::Broken(_)), "{broken}");
    is_cut_off(&broken);
    for future in &waiting {
        let broken = failure(future);
        assert!(matches!(broken.error(), TaskError::Broken(_)), "{broken}");
        never_began(&broken);
    }
}

/// Outputs of short tasks that travel in batches, none of which is what it should be.
#[test]
fn a_task_of_a_batch_whose_output_cannot_be_read_has_a_report_of_its_own() {
    let pool = build(builder(1));
    let undecodable = load(&pool, "faults").task::<u64, String>("bad_output").expect("types agree");
    let mut ids = HashSet::new();
    for result in pool.map(&undecodable, 0..4_000) {
        let Err(MapError::Task(failure)) = result else { panic!("it cannot be read") };
        assert!(matches!(failure.error(), TaskError::OutputDecode { .. }), "{failure}");
        let report = failure.report();
        assert_eq!((report.attempts, report.output_bytes), (1, Some(3)), "{report:?}");
        assert!(report.worker_pid.is_some() && failure.may_have_run(), "{report:?}");
        assert!(!report.run.is_zero(), "{report:?}");
        assert!(report.total >= report.run + report.queued, "{report:?}");
        assert!(ids.insert(failure.task_id()), "{} stands for two", failure.task_id());
    }
    assert_eq!(ids.len(), 4_000);
}
