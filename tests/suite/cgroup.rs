//! Workers in cgroups: what is made of a delegated place, and what is said where there is none.

use std::path::{Path, PathBuf};

use crate::support::{self, PATIENCE, eventually, load, signal};
use rustix::process::Signal;
use wasmpool::TaskError;
use wasmpool::error::DeathCause;
use wasmpool::pool::OnWorkerDeath;
use wasmpool::sandbox::{LayerReport, SandboxLayer, SandboxPolicy};

fn layer(pool: &wasmpool::Pool) -> LayerReport {
    let echo = load(pool, "echo").raw_task("echo").expect("a task");
    pool.submit(&echo, "x").expect("submits").result_timeout(PATIENCE).expect("in time").expect("runs");
    let sandbox = pool.sandbox().expect("a worker was ready");
    sandbox.layer(SandboxLayer::Cgroup).expect("is reported").clone()
}

fn groups(place: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(place).expect("reads").flatten().map(|entry| entry.path()).collect()
}

/// A directory that takes what is written to it, as a delegated one would.
#[test]
fn each_worker_is_put_into_a_group_of_its_own_with_its_limits() {
    let place = tempfile::tempdir().expect("a directory");
    let pool =
        support::builder(1).worker_memory_bytes_max(3 << 30).cgroup(place.path()).build().expect("builds");
    let report = layer(&pool);
    assert!(report.requested && report.applied, "{report:?}");
    assert!(report.reason.contains("memory 3072 MiB"), "{report:?}");
    let pid = pool.worker_pids()[0].to_string();
    let group = groups(place.path())
        .into_iter()
        .find(|group| std::fs::read_to_string(group.join("cgroup.procs")).expect("reads") == pid);
    let group = group.expect("a group with the worker's pid");
    let memory = std::fs::read_to_string(group.join("memory.max")).expect("reads");
    assert_eq!(memory, (3u64 << 30).to_string());
}

#[test]
fn a_worker_that_the_kernel_killed_for_its_memory_is_said_to_be_so() {
    let place = tempfile::tempdir().expect("a directory");
    let builder = support::builder(1).cgroup(place.path()).on_worker_death(OnWorkerDeath::replace());
    let pool = builder.build().expect("builds");
    layer(&pool);
    let spin = load(&pool, "faults").raw_task("endless_loop").expect("a task");
    let future = pool.submit(&spin, &wasmpool::Bytes::new()).expect("submits");
    eventually("it to run", || future.is_running());
    let pid = pool.worker_pids()[0];
    for group in groups(place.path()) {
        std::fs::write(group.join("memory.events"), "oom 1\noom_kill 1\n").expect("writes");
    }
    signal(pid, Signal::KILL);
    let failure = future.result_timeout(PATIENCE).expect("in time").expect_err("died");
    match failure.error() {
        TaskError::WorkerDied(death) => {
            assert!(matches!(death.cause, DeathCause::OutOfMemory { .. }), "{death}");
            assert!(failure.to_string().contains("used up its"), "{failure}");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_place_without_controllers_is_reported_with_the_file_that_is_missing() {
    // A real hierarchy of version 2, whose controllers belong to version 1 or are not delegated.
    let place = Path::new("/sys/fs/cgroup/unified");
    let controllers = std::fs::read_to_string(place.join("cgroup.subtree_control"));
    let is_root = rustix::process::getuid().is_root();
    if !is_root || controllers.is_ok_and(|controllers| controllers.contains("memory")) || !place.exists() {
        eprintln!("skipped: there is no such hierarchy here, or it is not ours");
        return;
    }
    let before = groups(place);
    let pool = support::builder(1).cgroup(place).build().expect("builds");
    let report = layer(&pool);
    assert!(report.requested && !report.applied && report.reason.contains("memory.max"), "{report:?}");
    drop(pool);
    assert_eq!(groups(place), before, "nothing is left behind");
}

#[test]
fn a_strict_pool_does_not_start_without_the_group_that_it_was_given() {
    let builder = support::builder(1).sandbox(SandboxPolicy::Strict).cgroup("/proc/nowhere");
    let pool = builder.build().expect("builds");
    let echo = load(&pool, "echo").raw_task("echo").expect("a task");
    let future = pool.submit(&echo, "x").expect("submits");
    let failure = future.result_timeout(PATIENCE).expect("in time").expect_err("no worker");
    let text = failure.to_string();
    assert!(text.contains("layer `cgroup`") && text.contains("strict"), "{text}");
}

#[test]
fn without_a_delegated_place_the_report_says_so() {
    let report = layer(&support::builder(1).without_cgroup().build().expect("builds"));
    assert!(!report.requested && !report.applied, "{report:?}");
    let report = layer(&support::builder(1).build().expect("builds"));
    assert!(report.applied || report.reason.contains("no delegated cgroup"), "{report:?}");
}
