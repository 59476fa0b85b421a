//! Runs on a system that makes no timers, where tasks are stopped by messages; and with more workers than the usual
//! limits have timers for.

use std::fs::File;
use std::sync::Mutex;
use std::time::Duration;

use wasmpool::TaskError;
use wasmpool::sandbox::SandboxPolicy;
use wasmpool::task::TaskOptions;

use super::Case;
use super::reports::builder;
use crate::support::{self, PATIENCE, eventually};

pub(crate) fn are_done_without(_: &Case) {
    let pool = builder(SandboxPolicy::Strict).grace(PATIENCE).build().expect("builds");
    let faults = support::load(&pool, "faults");
    // One computes, and the other waits in a host call.
    for task in ["endless_loop", "sleep_forever"] {
        let future = pool.submit_bytes(&support::raw(&faults, task), "").expect("submits");
        eventually("it to run", || future.is_running());
        assert!(future.abort());
        assert_eq!(support::error(&future), TaskError::Aborted { killed: false }, "{task}");
        let limit = Duration::from_millis(20);
        let options = TaskOptions::new().timeout(limit);
        let future = pool.submit_with(&support::raw(&faults, task), "", options).expect("submits");
        assert_eq!(support::error(&future), TaskError::Timeout { limit, killed: false }, "{task}");
    }
    assert_eq!(pool.stats().workers_started, 1);
}

/// A user's timers count together (`RLIMIT_SIGPENDING`).
pub(crate) fn are_there_for_many_workers(_: &Case) {
    const WORKERS: usize = 40;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let log = File::create(&path).expect("creates");
    tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(Mutex::new(log)).init();
    let builder = builder(SandboxPolicy::Strict).workers(WORKERS).worker_log_level(tracing::Level::DEBUG);
    let pool = builder.build().expect("builds");
    let faults = support::load(&pool, "faults");
    let sleep = support::raw(&faults, "sleep_forever");
    let sleepers: Vec<_> = (0..WORKERS).map(|_| pool.submit_bytes(&sleep, "").expect("submits")).collect();
    eventually("all to run", || sleepers.iter().all(wasmpool::TaskFuture::is_running));
    assert_eq!(pool.worker_pids().len(), WORKERS);
    let said = || std::fs::read_to_string(&path).expect("reads");
    // Whatever a worker has said before comes before that.
    let ready = || said().lines().filter(|line| line.contains("wasm_stack_bytes")).count();
    eventually("all to say that they are ready", || ready() == WORKERS);
    let said = said();
    assert!(!said.contains("no timers") && !said.contains("stopped by a signal"), "{said}");
    sleepers.iter().for_each(|sleeper| assert!(sleeper.abort()));
}
