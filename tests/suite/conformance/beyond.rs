//! Tests of what this pool must do, and Python does not test.

use std::time::Instant;

use rustix::process::Signal;
use wasmpool::error::{DeathCause, Phase, SubmitError};
use wasmpool::pool::{OnWorkerDeath, Replacement};
use wasmpool::task::{CommandInput, LogOverflow};
use wasmpool::{TaskError, TaskOptions};

use super::{Duration, FOREVER, Mode, Process, Tasks, in_both_modes, is_death, output, pid_of, steps};
use crate::support::{BadWorker, PATIENCE, error, eventually, failure, is_alive, load, signal};

in_both_modes! {
    fn callback_submits_while_breaking(mode: Mode) {
        let pool = mode.pool(2);
        let tasks = Tasks::new(&pool);
        let (running, pid) = tasks.running(&pool);
        let pending: Vec<_> = (0..20).map(|_| tasks.endless(&pool)).collect();
        let (sender, receiver) = crossbeam_channel::unbounded();
        for future in pending.iter().chain([&running]) {
            let pool = pool.clone();
            let echo = tasks.echo.clone();
            let sender = sender.clone();
            future.on_done(move |_| {
                let again = pool.submit_bytes(&echo, "again");
                sender.send(again.map(|future| future.task_id())).expect("listens");
            });
        }
        signal(pid, Signal::KILL);
        match mode {
            Mode::Break => {
                for _ in 0..21 {
                    let refused = receiver.recv_timeout(PATIENCE).expect("no deadlock").expect_err("broken");
                    assert!(matches!(refused, SubmitError::Broken(_)), "{refused}");
                }
            }
            Mode::Replace => {
                receiver.recv_timeout(PATIENCE).expect("no deadlock").expect("a replacement takes it");
                assert!(is_death(mode, &error(&running)));
            }
        }
        pool.kill();
    }

    fn host_sigkilled(mode: Mode) {
        match Process::of("beyond::host_sigkilled", Some(mode)) {
            Process::Child(words) => {
                let pool = mode.pool(3);
                let tasks = Tasks::new(&pool);
                let running = [tasks.running(&pool), tasks.running(&pool)];
                output(&tasks.echo(&pool));
                assert_eq!(running.len(), 2);
                let pids: Vec<_> = pool.worker_pids().iter().map(u32::to_string).collect();
                std::fs::write(words, format!("{}\n", pids.join(" "))).expect("writes");
                running[0].0.result().expect("never");
            }
            Process::Parent(mut child) => {
                eventually("its workers", || child.words().ends_with('\n') || child.process.try_wait().expect("waits").is_some());
                let pids: Vec<u32> = child.words().split_whitespace().map(|pid| pid.parse().expect("a pid")).collect();
                assert_eq!(pids.len(), 3, "two in an endless task, one idle");
                child.process.kill().expect("kills");
                let killed = Instant::now();
                eventually("every worker to be gone", || !pids.iter().any(|pid| is_alive(*pid)));
                assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
            }
        }
    }

    fn worker_stopped(mode: Mode) {
        let pool = mode.builder(1).grace(Duration::from_millis(50)).build().expect("builds");
        let tasks = Tasks::new(&pool);
        let limit = Duration::from_secs(1);
        let future =
            pool.submit_with(&tasks.work, &steps(FOREVER), TaskOptions::new().timeout(limit)).expect("submits");
        let pid = pid_of(&pool, &future);
        signal(pid, Signal::STOP);
        let failed = failure(&future);
        assert_eq!((failed.error(), failed.worker_pid()), (&TaskError::Timeout { limit, killed: true }, Some(pid)));
        output(&tasks.echo(&pool));
        assert!(pool.broken().is_none() && !is_alive(pid));
    }

    fn guest_writes_to_stdout_and_stderr(mode: Mode) {
        let pool = mode.pool(1);
        let faults = load(&pool, "faults");
        for flood in ["stdout_flood", "stderr_flood"] {
            let flood = faults.task::<u64, ()>(flood).expect("types agree");
            let future = pool.submit(&flood, &(1 << 20)).expect("submits");
            output(&future);
            assert!(future.report().expect("done").log_bytes_dropped.is_some_and(|bytes| bytes > 0), "over the limit");
            let options = TaskOptions::new().log_bytes_max(1000).log_overflow(LogOverflow::Fail);
            let failed = error(&pool.submit_with(&flood, &(1 << 20), options).expect("submits"));
            assert!(matches!(failed, TaskError::LogsTooLarge { .. }), "{failed}");
        }
        // A command's are its output, whatever bytes they are.
        let command = load(&pool, "csv_stats").command().expect("a command");
        let answer = output(&pool.submit(&command, &CommandInput::new().stdin("a\n1\n3\n")).expect("submits"));
        assert!(!answer.stdout.is_empty() && answer.exit_code == 0);
        assert_eq!(pool.stats().workers_started, 1);
    }
}

/// The first crash breaks the pool in `Break` mode, so this test has one mode.
#[test]
fn crash_loop() {
    let policy =
        Replacement::new().crashes_max(3).backoff(Duration::from_millis(40), Duration::from_millis(100));
    let folder = tempfile::tempdir().expect("a directory");
    let pool = crate::support::builder(1)
        .worker_program(BadWorker::Exits.program(folder.path()))
        .on_worker_death(OnWorkerDeath::Replace(policy))
        .build()
        .expect("builds");
    let count = load(&pool, "primes").task::<u64, u64>("count").expect("types agree");
    let began = Instant::now();
    let failed = failure(&pool.submit(&count, &1).expect("submits"));
    match failed.error() {
        TaskError::Broken(broken) => {
            assert_eq!(broken.death().phase, Phase::Start);
            assert_eq!(broken.death().cause, DeathCause::Exited(1));
        }
        other => panic!("{other}"),
    }
    assert!(!failed.may_have_run() && failed.to_string().contains("never started"), "{failed}");
    // Three crashes are forgiven, with a pause after each that doubles up to the longest.
    assert_eq!(pool.stats().workers_started, 4);
    assert!(began.elapsed() >= Duration::from_millis(40 + 80 + 100), "{:?}", began.elapsed());
    let refused = pool.submit(&count, &1).expect_err("broken");
    assert!(matches!(refused, SubmitError::Broken(_)), "{refused}");
}
