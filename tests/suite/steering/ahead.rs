//! A worker is handed tasks beyond the one that it runs.

use super::*;

#[test]
fn a_cancelled_task_never_runs_though_a_worker_had_been_handed_it() {
    let pool = pool(1);
    let tasks = tasks(&pool);
    // Had the worker begun one of them, it would be at it still.
    let (endless, ahead) = stocked(&pool, &tasks, || several(&pool, &tasks.spin, 200));
    for spin in &ahead {
        assert!(spin.cancel() && spin.is_done(), "{spin:?}");
    }
    for spin in &ahead {
        assert!(spin.is_cancelled());
        assert_eq!(attempts(spin), 0);
        assert!(!failure(spin).may_have_run());
    }
    let answered = pool.stats().workers[0].answered;
    endless.abort();
    assert!(matches!(error(&endless), TaskError::Aborted { killed: false }));
    several(&pool, &tasks.echo, 50).iter().for_each(|echo| drop(output(echo)));
    assert_eq!(pool.stats().workers[0].answered, answered + 51);
    assert_eq!((pool.stats().ended.cancelled, pool.stats().workers_started), (200, 1));
}

#[test]
fn a_worker_from_which_tasks_were_taken_back_sleeps_when_their_module_has_ended() {
    let pool = build(builder(1).sandbox(wasmpool::sandbox::SandboxPolicy::Off));
    let tasks = tasks(&pool);
    let module =
        support::wat(&pool, &support::ECHO_WAT.replacen("(memory", "(global i32 (i32.const 1)) (memory", 1));
    let ended = raw(&module, "echo");
    output(&submit(&pool, &ended));
    let (endless, ahead) = stocked(&pool, &tasks, || several(&pool, &ended, 3));
    for echo in &ahead {
        assert!(echo.cancel(), "{echo:?}");
    }
    endless.abort();
    assert!(matches!(error(&endless), TaskError::Aborted { killed: false }));
    drop((ahead, ended, module));
    let pid = pool.worker_pids()[0];
    // The worker's watcher hears of the end and calls the main thread, which has nothing else to do.
    eventually("the worker to let go of the module", || {
        // An ordinary user may not look into a worker; then the sleep alone is looked at.
        let Ok(maps) = std::fs::read_to_string(format!("/proc/{pid}/maps")) else { return true };
        let artifacts = maps.lines().filter(|line| line.contains("memfd:wasmpool-artifact"));
        artifacts.filter_map(|line| line.split_whitespace().nth(4)).collect::<HashSet<_>>().len() <= 1
    });
    let computed = || std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/schedstat")).expect("is there");
    eventually("its main thread to sleep", || {
        let before = computed();
        std::thread::sleep(Duration::from_millis(50));
        computed().split(' ').next() == before.split(' ').next()
    });
}

#[test]
fn a_task_is_either_cancelled_and_never_runs_or_it_runs() {
    let pool = pool(2);
    let tasks = tasks(&pool);
    let futures = several(&pool, &tasks.echo, 3_000);
    // Tasks are cancelled from the end, where they are pending, to the front, where they run.
    let mut cancelled = 0;
    let mut ran = 0;
    for echo in futures.iter().rev() {
        let is_cancelled = echo.cancel();
        assert!(!is_cancelled || echo.is_done());
        cancelled += u64::from(is_cancelled);
    }
    for echo in &futures {
        match echo.result_timeout(PATIENCE).expect("done in time") {
            Ok(_) => {
                ran += 1;
                assert_eq!(attempts(echo), 1);
            }
            Err(failure) => {
                assert_eq!((failure.error(), failure.may_have_run()), (&TaskError::Cancelled, false));
            }
        }
    }
    assert_eq!((cancelled + ran, pool.stats().ended.cancelled), (3_000, cancelled));
    let mut workers = Vec::new();
    eventually("the workers to rest", || {
        workers = pool.stats().workers;
        workers.iter().all(|worker| worker.state == WorkerState::Idle)
    });
    let answered: u64 = workers.iter().map(|worker| worker.answered).sum();
    assert_eq!(answered, ran, "workers ran what was not cancelled, and nothing else");
}

#[test]
fn quick_tasks_behind_an_endless_one_move_to_an_idle_worker() {
    // The tasks are cancelled whether the worker that has them answers or not.
    for freeze in [false, true] {
        let pool = pool(2);
        let tasks = tasks(&pool);
        let before = several(&pool, &tasks.spin, 2);
        let pids = [0, 1].map(|number: usize| worker_of(&pool, before[number].task_id()));
        before[0].abort();
        assert!(matches!(error(&before[0]), TaskError::Aborted { .. }));
        several(&pool, &tasks.echo, 50).iter().for_each(|echo| drop(output(echo)));
        let blocked = submit(&pool, &tasks.spin);
        worker_of(&pool, blocked.task_id());
        let endless = submit(&pool, &tasks.spin);
        let quick = several(&pool, &tasks.echo, 60);
        // The first worker goes on to the endless one, and is handed its share of the quick ones.
        blocked.abort();
        assert_eq!(worker_of(&pool, endless.task_id()), pids[0]);
        let frozen = freeze.then(|| Frozen::new(pids[0]));
        before[1].abort();
        for echo in &quick {
            output(echo);
            let report = echo.report().expect("done");
            assert_eq!((report.attempts, report.worker_pid), (1, Some(pids[1])));
        }
        assert!(endless.is_running() && !endless.is_done());
        assert_eq!(pool.stats().workers_started, 2);
        drop(frozen);
        pool.kill();
    }
}

#[test]
fn a_frozen_worker_holds_up_nothing_but_the_task_that_it_runs() {
    let pool = pool(2);
    let tasks = tasks(&pool);
    pool.prestart(2);
    let frozen = Frozen::new(idle_workers(&pool, 2)[0]);
    let quick = several(&pool, &tasks.echo, 300);
    eventually("all but one to be done", || quick.iter().filter(|echo| echo.is_done()).count() == 299);
    let stuck = quick.iter().find(|echo| !echo.is_done()).expect("the one");
    assert_eq!(worker_of(&pool, stuck.task_id()), frozen.0);
    assert!(!stuck.cancel(), "it runs");
    drop(frozen);
    quick.iter().for_each(|echo| drop(output(echo)));
    assert!(quick.iter().all(|echo| attempts(echo) == 1));
}
