//! A program without the engine: its pools start their children from a program that has it. Run by itself
//! (`cargo test -p no-engine`), since with the whole workspace the features of all packages are united.

use std::path::PathBuf;
use std::time::Duration;

use wasmpool::error::BuildError;
use wasmpool::sandbox::Doctor;
use wasmpool::{Pool, PoolBuilder, TaskError};

const WORKER: &str = env!("CARGO_BIN_EXE_worker");

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(60);

fn builder() -> PoolBuilder {
    let cache = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cache");
    Pool::builder().workers(2).cache_dir(cache).worker_program(WORKER)
}

fn prebuilt(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../guest-tasks/prebuilt").join(format!("{name}.wasm"))
}

/// Returns whether the engine is built in: other packages have it so when the whole workspace is built.
fn has_engine() -> bool {
    !matches!(Pool::builder().build(), Err(BuildError::NoEngine))
}

#[test]
fn without_a_worker_program_the_error_says_what_to_name() {
    wasmpool::init();
    match Pool::builder().build() {
        Err(error @ BuildError::NoEngine) => {
            let said = error.to_string();
            assert!(
                said.contains("PoolBuilder::worker_program") && said.contains("wasmpool-worker"),
                "{said}"
            );
            assert!(matches!(Doctor::new().run(), Err(BuildError::NoEngine)));
        }
        Err(error) => panic!("{error}"),
        Ok(_) => assert!(has_engine()),
    }
}

#[test]
fn a_worker_program_runs_tasks_and_traps_are_errors() {
    let pool = builder().build().expect("builds");
    let count =
        pool.load_file(prebuilt("primes")).expect("loads").task::<u64, u64>("count").expect("is there");
    let future = pool.submit(&count, &1000).expect("submits");
    assert_eq!(future.result_timeout(PATIENCE).expect("in time").expect("runs"), 168);
    let faults = pool.load_file(prebuilt("faults")).expect("loads");
    let unreachable = faults.task::<(), ()>("unreachable").expect("is there");
    let failure = pool.submit(&unreachable, &()).expect("submits").result_timeout(PATIENCE).expect("in time");
    assert!(matches!(failure.expect_err("traps").error(), TaskError::Trap { .. }));
}

#[test]
fn the_doctor_tries_the_worker_program() {
    let report = Doctor::new().worker_program(WORKER).run().expect("can be tried");
    assert!(!report.attacks.is_empty());
}

#[test]
fn a_worker_that_is_killed_breaks_the_pool_and_names_its_pid() {
    let pool = builder().build().expect("builds");
    let spin = pool.load_file(prebuilt("echo")).expect("loads").task::<u64, u64>("spin").expect("is there");
    let future = pool.submit(&spin, &u64::MAX).expect("submits");
    let deadline = std::time::Instant::now() + PATIENCE;
    let pid = loop {
        let busy = pool.stats().workers.into_iter().find(|worker| worker.task.is_some());
        if let Some(worker) = busy {
            break worker.pid;
        }
        assert!(std::time::Instant::now() < deadline, "no worker began");
        std::thread::sleep(Duration::from_millis(1));
    };
    let pid_of = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a pid");
    rustix::process::kill_process(pid_of, rustix::process::Signal::KILL).expect("is there");
    let failure = future.result_timeout(PATIENCE).expect("in time").expect_err("its worker died");
    match failure.error() {
        TaskError::Broken(broken) => assert_eq!((broken.pid(), broken.signal()), (pid, Some(9))),
        other => panic!("{other}"),
    }
}
