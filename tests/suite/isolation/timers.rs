//! Runs on a system that makes no timers, where tasks are stopped by messages.

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
