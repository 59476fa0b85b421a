//! `test_process_pool.py`.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use rustix::process::Signal;
use wasmpool::error::{BuildError, DeathCause, Phase, SubmitError, TrapCode};
use wasmpool::future::{ReturnWhen, wait};
use wasmpool::pool::ShutdownMode;
use wasmpool::{Pool, TaskError, TaskFuture, TaskOptions};

use super::{
    Bytes, Duration, FOREVER, Mode, Process, Tasks, assert_reaped, in_both_modes, in_time, is_death, output,
    pid_of, steps,
};
use crate::support::{PATIENCE, error, eventually, failure, is_alive, load, signal};

/// The pid of the worker that ran it.
fn ran_in(future: &TaskFuture<Bytes>) -> u32 {
    output(future);
    future.report().expect("done").worker_pid.expect("a worker ran it")
}

/// Later submits are refused with the breakage, or run by a replacement.
fn assert_after_death(mode: Mode, pool: &Pool, tasks: &Tasks, pid: u32) {
    match mode {
        Mode::Break => match pool.submit_bytes(&tasks.echo, "x").expect_err("the pool is broken") {
            SubmitError::Broken(broken) => assert_eq!(broken.pid(), pid),
            other => panic!("{other}"),
        },
        Mode::Replace => {
            output(&tasks.echo(pool));
            assert!(pool.broken().is_none());
        }
    }
}

/// Resident memory of a process, in KiB.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

in_both_modes! {
    fn test_killed_child(mode: Mode) {
        for (sent, number) in [(Signal::TERM, 15), (Signal::KILL, 9)] {
            let pool = mode.pool(1);
            let tasks = Tasks::new(&pool);
            let (running, pid) = tasks.running(&pool);
            signal(pid, sent);
            let failed = failure(&running);
            assert!(is_death(mode, failed.error()), "{failed}");
            assert!(failed.to_string().contains(if number == 9 { "SIGKILL" } else { "SIGTERM" }), "{failed}");
            assert_after_death(mode, &pool, &tasks, pid);
        }
    }

    fn test_broken_process_pool_traceback(mode: Mode) {
        let pool = mode.pool(1);
        let tasks = Tasks::new(&pool);
        let (running, pid) = tasks.running(&pool);
        let pending = tasks.endless(&pool);
        signal(pid, Signal::KILL);
        let first = failure(&running);
        if mode == Mode::Replace {
            // Only the task that ran there fails.
            signal(pid_of(&pool, &pending), Signal::KILL);
        }
        let second = failure(&pending);
        // Each says of its own task what became of it, and outlives the future and the pool.
        let ids = (running.task_id(), pending.task_id());
        drop((running, pending, tasks, pool));
        assert_eq!((first.task_id(), second.task_id()), ids);
        assert!(first.to_string().starts_with(&format!("task {}, ", ids.0)), "{first}");
        assert!(second.to_string().starts_with(&format!("task {}, ", ids.1)), "{second}");
        assert!(first.may_have_run() && first.to_string().contains("it may have run"), "{first}");
        assert_eq!(second.may_have_run(), mode == Mode::Replace);
        assert_eq!(second.to_string().contains("never started"), mode == Mode::Break, "{second}");
    }

    fn test_map_chunksize(mode: Mode) {
        let pool = mode.pool(2);
        let count = load(&pool, "primes").task::<u64, u64>("count").expect("types agree");
        let alone: Vec<u64> = pool.map(&count, 0..40).collect::<Result<_, _>>().expect("counts");
        for chunk in [6, 40, 50] {
            let map = pool.map(&count, 0..40).chunk_size(NonZeroUsize::new(chunk).expect("not zero"));
            assert_eq!(map.collect::<Result<Vec<u64>, _>>().expect("counts"), alone, "chunks of {chunk}");
        }
    }

    fn test_traceback(mode: Mode) {
        let pool = mode.pool(1);
        let tasks = Tasks::new(&pool);
        match error(&tasks.trap(&pool)) {
            TaskError::Trap { code, backtrace, .. } => {
                assert_eq!(code, TrapCode::IntegerDivideByZero);
                let names: Vec<_> = backtrace.iter().map(|frame| frame.function.as_deref()).collect();
                assert_eq!(names, [Some("divide"), Some("trap")], "{backtrace:?}");
            }
            other => panic!("{other}"),
        }
        // A Rust guest's names, demangled.
        let trap = load(&pool, "faults").task::<(), i32>("divide_by_zero").expect("types agree");
        let failed = failure(&pool.submit(&trap, &()).expect("submits"));
        assert!(failed.to_string().contains("divide_by_zero"), "{failed}");
        output(&tasks.echo(&pool));
    }

    fn test_traceback_when_child_process_terminates_abruptly(mode: Mode) {
        let pool = mode.pool(1);
        let tasks = Tasks::new(&pool);
        let labelled = pool
            .submit_with(&tasks.work, &steps(FOREVER), TaskOptions::new().label("invoice 4711"))
            .expect("submits");
        let pid = pid_of(&pool, &labelled);
        signal(pid, Signal::ABORT);
        let failed = failure(&labelled);
        let death = match failed.error() {
            TaskError::Broken(broken) => {
                assert_eq!(broken.tasks_in_flight(), [labelled.task_id()]);
                broken.death().clone()
            }
            TaskError::WorkerDied(death) => death.clone(),
            other => panic!("{other}"),
        };
        assert_eq!((death.pid, death.cause, death.phase), (pid, DeathCause::Signaled(6), Phase::Running));
        let says = failed.to_string();
        for part in ["invoice 4711", "`work`", "SIGABRT", "while it ran a task", &pid.to_string()] {
            assert!(says.contains(part), "no {part} in: {says}");
        }
    }

    fn test_ressources_gced_in_workers(mode: Mode) {
        let pool = mode.pool(1);
        let tasks = Tasks::new(&pool);
        let many = |tasks_run: usize| {
            for echoed in pool.map(&tasks.echo, std::iter::repeat_n(Bytes::from_static(&[7; 100]), tasks_run)) {
                echoed.expect("echoes");
            }
        };
        many(10_000);
        let pid = pool.worker_pids()[0];
        let before = resident_kib(pid);
        many(90_000);
        assert_eq!(pool.worker_pids(), [pid]);
        let grown = resident_kib(pid).saturating_sub(before);
        assert!(grown < 2048, "grew by {grown} KiB over 90,000 tasks");
    }

    fn test_saturation(mode: Mode) {
        let pool = mode.pool(3);
        let tasks = Tasks::new(&pool);
        let futures: Vec<_> = (0..15 * 3).map(|_| tasks.endless(&pool)).collect();
        eventually("three to run", || pool.stats().running == 3);
        let stats = pool.stats();
        assert_eq!((stats.workers.len(), stats.workers_started, stats.pending), (3, 3, 14 * 3), "{stats:?}");
        pool.kill();
        assert!(futures.iter().all(TaskFuture::is_done));
        assert_eq!(pool.stats().workers_started, 3);
    }

    fn test_idle_process_reuse_one(mode: Mode) {
        let pool = mode.pool(4);
        let tasks = Tasks::new(&pool);
        assert!(pool.worker_pids().is_empty(), "nothing to do yet");
        let pids: HashSet<u32> = (0..20).map(|_| ran_in(&tasks.echo(&pool))).collect();
        assert_eq!((pids.len(), pool.stats().workers_started), (1, 1), "one at a time needs one worker");
    }

    fn test_idle_process_reuse_multiple(mode: Mode) {
        let pool = mode.pool(4);
        let tasks = Tasks::new(&pool);
        let first = tasks.running(&pool);
        let second = tasks.running(&pool);
        first.0.abort();
        second.0.abort();
        error(&first.0);
        error(&second.0);
        for _ in 0..20 {
            assert!([first.1, second.1].contains(&ran_in(&tasks.echo(&pool))));
        }
        assert_eq!(pool.stats().workers_started, 2);
    }

    fn test_max_tasks_per_child(mode: Mode) {
        let pool = mode.builder(1).recycle_after_tasks(3).build().expect("builds");
        let tasks = Tasks::new(&pool);
        let pids: Vec<_> = (0..9).map(|_| ran_in(&tasks.echo(&pool))).collect();
        let of_each: Vec<_> = pids.chunk_by(|a, b| a == b).map(<[u32]>::len).collect();
        assert_eq!(of_each, [3, 3, 3], "{pids:?}");
    }

    fn test_max_tasks_per_child_pending_tasks_gh115634(mode: Mode) {
        let pool = mode.builder(2).recycle_after_tasks(3).build().expect("builds");
        let tasks = Tasks::new(&pool);
        let futures: Vec<_> = (0..50).map(|_| tasks.echo(&pool)).collect();
        let mut of_each = std::collections::HashMap::<u32, u32>::new();
        futures.iter().for_each(|future| *of_each.entry(ran_in(future)).or_default() += 1);
        assert!(of_each.values().all(|tasks| *tasks <= 3), "{of_each:?}");
        assert!(of_each.len() >= 17, "{of_each:?}");
    }

    fn test_shutdown_no_wait_max_tasks_gh119592(mode: Mode) {
        for mode_of_end in [ShutdownMode::Finish, ShutdownMode::CancelPending] {
            let pool = mode.builder(1).recycle_after_tasks(1).build().expect("builds");
            let tasks = Tasks::new(&pool);
            let futures: Vec<_> = (0..10).map(|_| tasks.echo(&pool)).collect();
            let events = pool.events();
            pool.begin_shutdown(mode_of_end);
            let waited = wait(&futures, Some(PATIENCE), ReturnWhen::AllCompleted);
            assert!(waited.not_done.is_empty(), "{waited:?}");
            in_time("the pool's end", move || drop((tasks, pool)));
            assert_reaped(events);
        }
    }

    fn test_gc_during_max_tasks_worker_exit_gh152967(mode: Mode) {
        let pool = mode.builder(2).recycle_after_tasks(1).build().expect("builds");
        let tasks = Tasks::new(&pool);
        let futures: Vec<_> = (0..20).map(|_| tasks.echo(&pool)).collect();
        eventually("a worker to leave", || pool.stats().workers_recycled > 0);
        let events = pool.events();
        in_time("dropping a pool whose workers leave", move || drop((tasks, pool)));
        assert!(futures.iter().all(|future| future.result().is_ok()), "a drop finishes what was submitted");
        assert_reaped(events);
    }

    fn test_force_shutdown_during_max_tasks_worker_exit(mode: Mode) {
        for gently in [true, false] {
            let pool = mode.builder(2).recycle_after_tasks(1).build().expect("builds");
            let tasks = Tasks::new(&pool);
            let events = pool.events();
            let futures: Vec<_> = (0..50).map(|_| tasks.echo(&pool)).collect();
            eventually("a worker to leave", || pool.stats().workers_recycled > 0);
            if gently { pool.terminate() } else { pool.kill() }
            assert!(pool.worker_pids().is_empty());
            assert!(futures.iter().all(TaskFuture::is_done));
            // No replacement that was on its way escapes.
            assert_reaped(events);
        }
    }

    fn test_failed_worker_replacement_breaks_pool(mode: Mode) {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("worker");
        std::fs::copy(std::env::current_exe().expect("has a path"), &program).expect("copies");
        let executable = |is: bool| {
            let mode = std::fs::Permissions::from_mode(if is { 0o755 } else { 0o600 });
            std::fs::set_permissions(&program, mode).expect("changes its mode");
        };
        executable(true);
        let pool = mode.builder(1).worker_program(&program).recycle_after_tasks(2).build().expect("builds");
        let tasks = Tasks::new(&pool);
        let first = ran_in(&tasks.echo(&pool));
        executable(false);
        let futures: Vec<_> = (0..5).map(|_| pool.submit_bytes(&tasks.echo, "x")).collect();
        let broken = futures.iter().find_map(|future| match future {
            Ok(future) => match future.result_timeout(PATIENCE).expect("in time") {
                Ok(_) => None,
                Err(failure) => match failure.error() {
                    TaskError::Broken(broken) => Some(broken.clone()),
                    other => panic!("{other}"),
                },
            },
            Err(SubmitError::Broken(broken)) => Some(broken.clone()),
            Err(other) => panic!("{other}"),
        });
        let broken = broken.expect("the replacement cannot start");
        assert_eq!(broken.death().phase, Phase::Start, "{broken}");
        assert!(matches!(&broken.death().cause, DeathCause::SpawnFailed(why) if why.contains("ermission")), "{broken}");
        eventually("the first to be gone", || !is_alive(first));
    }

    fn test_max_tasks_early_shutdown(mode: Mode) {
        let pool = mode.builder(3).recycle_after_tasks(1).build().expect("builds");
        let tasks = Tasks::new(&pool);
        let futures: Vec<_> = (0..6).map(|_| tasks.echo(&pool)).collect();
        pool.shutdown(ShutdownMode::Finish);
        for future in &futures {
            assert_eq!(future.try_result().expect("done").expect("finishes"), "x");
        }
    }

    fn test_python_finalization_error(mode: Mode) {
        let test = "process_pool::test_python_finalization_error";
        if let Process::Parent(mut child) = Process::of(test, Some(mode)) {
            return child.succeed();
        }
        let pool = mode.pool(2);
        let tasks = Tasks::new(&pool);
        // The first pool's threads are to have theirs, and sleep in their loops.
        let own = rustix::thread::gettid().as_raw_nonzero().to_string();
        eventually("its threads to stand", || {
            std::fs::read_dir("/proc/self/task").expect("reads").flatten().all(|thread| {
                let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
                thread.file_name() == *own || stat.contains(") S ")
            })
        });
        // No thread can have a stack from here on.
        let pages = std::fs::read_to_string("/proc/self/statm").expect("reads");
        let used: u64 = pages.split(' ').next().and_then(|pages| pages.parse().ok()).expect("a number");
        let limit = rustix::process::Rlimit { current: Some(used * 4096 + (1 << 20)), maximum: None };
        rustix::process::setrlimit(rustix::process::Resource::As, limit).expect("sets");
        match mode.builder(1).build() {
            Err(BuildError::System { what, .. }) => assert!(what.contains("thread"), "{what}"),
            other => panic!("a thread without a stack: {other:?}"),
        }
        let future = tasks.echo(&pool);
        match future.result_timeout(PATIENCE).expect("an error, not a hang") {
            Ok(echoed) => panic!("a worker without memory answers {echoed:?}"),
            Err(failure) => match failure.error() {
                TaskError::Broken(broken) => assert_eq!(broken.death().phase, Phase::Start, "{broken}"),
                // The host itself has no memory for a worker's rings; that must not break the pool.
                TaskError::NoWorker(_) => assert!(failure.to_string().contains("RLIMIT_AS"), "{failure}"),
                other => panic!("{other}"),
            },
        }
    }

    fn test_terminate_workers(mode: Mode) {
        ends_at_once(mode, Pool::terminate);
    }

    fn test_kill_workers(mode: Mode) {
        ends_at_once(mode, Pool::kill);
    }

    fn test_force_shutdown_workers(mode: Mode) {
        for end in [Pool::terminate, Pool::kill] {
            // A worker that was stopped does not heed SIGTERM: it is killed after the grace period.
            let pool = mode.builder(1).grace(Duration::from_millis(100)).build().expect("builds");
            let tasks = Tasks::new(&pool);
            let (running, pid) = tasks.running(&pool);
            signal(pid, Signal::STOP);
            let ended = pool.clone();
            in_time("an end by force", move || end(&ended));
            assert!(matches!(error(&running), TaskError::Broken(_)));
            assert!(!is_alive(pid));
        }
    }

    fn test_force_shutdown_workers_dead_workers(mode: Mode) {
        for end in [Pool::terminate, Pool::kill] {
            let pool = mode.pool(1);
            let tasks = Tasks::new(&pool);
            let (running, pid) = tasks.running(&pool);
            signal(pid, Signal::KILL);
            assert!(is_death(mode, &error(&running)));
            let ended = pool.clone();
            in_time("ending a pool whose workers are dead", move || end(&ended));
            assert!(pool.worker_pids().is_empty());
        }
    }

    fn test_force_shutdown_workers_not_started_yet(mode: Mode) {
        for end in [Pool::terminate, Pool::kill] {
            let pool = mode.pool(2);
            let tasks = Tasks::new(&pool);
            let ended = pool.clone();
            in_time("ending a pool without workers", move || end(&ended));
            let refused = pool.submit_bytes(&tasks.echo, "x");
            assert!(matches!(refused, Err(SubmitError::ShutDown { .. })), "{refused:?}");
            assert_eq!(pool.stats().workers_started, 0);

            // The same holds for a pool whose worker is on its way.
            let pool = mode.pool(2);
            let tasks = Tasks::new(&pool);
            let events = pool.events();
            let future = tasks.echo(&pool);
            let ended = pool.clone();
            in_time("ending a pool whose worker starts", move || end(&ended));
            assert!(future.is_done());
            assert_reaped(events);
        }
    }

    fn test_force_shutdown_workers_stops_pool(mode: Mode) {
        for end in [Pool::terminate, Pool::kill] {
            let pool = mode.pool(2);
            let tasks = Tasks::new(&pool);
            output(&tasks.echo(&pool));
            let events = pool.events();
            end(&pool);
            assert!(pool.worker_pids().is_empty() && pool.broken().is_none());
            let refused = pool.submit_bytes(&tasks.echo, "x");
            assert!(matches!(refused, Err(SubmitError::ShutDown { .. })), "{refused:?}");
            assert_reaped(events);
            end(&pool);
        }
    }
}

/// Running tasks are lost with the pool, pending ones are cancelled, later ones are refused.
fn ends_at_once(mode: Mode, end: fn(&Pool)) {
    let pool = mode.pool(2);
    let tasks = Tasks::new(&pool);
    let running = [tasks.running(&pool), tasks.running(&pool)];
    let pending: Vec<_> = (0..20).map(|_| tasks.echo(&pool)).collect();
    let began = Instant::now();
    end(&pool);
    assert!(began.elapsed() < PATIENCE);
    for (future, pid) in &running {
        match error(future) {
            TaskError::Broken(broken) => {
                assert_eq!(broken.death().cause, DeathCause::Killed, "{broken}");
                assert_eq!(broken.tasks_in_flight(), [future.task_id()]);
            }
            other => panic!("{other}"),
        }
        assert!(!is_alive(*pid));
    }
    for future in &pending {
        assert!(future.is_cancelled(), "{:?}", error(future));
    }
    let refused = pool.submit_bytes(&tasks.echo, "x");
    assert!(matches!(refused, Err(SubmitError::ShutDown { .. })), "{refused:?}");
}
