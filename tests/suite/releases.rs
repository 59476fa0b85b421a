//! A module ends with its last holder: in the host, in its workers, and in the pool's tables.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use crate::support::{self, Holdings, PATIENCE, builder, error, eventually, is_own_process, load, raw, wat};
use wasmpool::error::ModuleError;
use wasmpool::module::{ModuleOptions, RawTask};
use wasmpool::pool::OnWorkerDeath;
use wasmpool::sandbox::SandboxPolicy;
use wasmpool::task::Isolation;
use wasmpool::{Bytes, Module, Pool, PoolBuilder, TaskError, TaskOptions};

/// Makes one of many modules, which differ by a constant.
fn one_of_many(number: usize) -> Vec<u8> {
    let text =
        support::ECHO_WAT.replacen("(memory", &format!("(global i32 (i32.const {number})) (memory"), 1);
    wat::parse_str(&text).expect("valid text")
}

fn echo(module: &Module) -> RawTask {
    raw(module, "echo")
}

fn run(pool: &Pool, task: &RawTask) {
    let future = pool.submit_bytes(task, "x").expect("submits");
    let result = future.result_timeout(PATIENCE).unwrap_or_else(|timeout| panic!("{timeout}"));
    assert_eq!(result.unwrap_or_else(|failure| panic!("{failure}")), "x");
}

/// Returns how many modules the pool and each of its workers hold.
fn held(pool: &Pool) -> (usize, Vec<usize>) {
    let stats = pool.stats();
    (stats.modules, stats.workers.iter().map(|worker| worker.modules).collect())
}

fn all_are_released(pool: &Pool) {
    eventually("every module to be released", || {
        let (pools, workers) = held(pool);
        pools == 0 && workers.iter().all(|modules| *modules == 0)
    });
}

/// Makes a pool whose workers run as this user, who may then look into their /proc.
fn open(workers: usize) -> PoolBuilder {
    builder(workers).sandbox(SandboxPolicy::Off)
}

/// Returns a worker's descriptors, and its mappings of machine code; `None` if they cannot be seen.
fn inside(pid: u32) -> Option<(usize, usize)> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let mapped = maps.lines().filter(|line| line.contains("memfd:wasmpool-artifact")).count();
    Some((std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count(), mapped))
}

/// Does the same for the only worker.
fn inside_worker(pool: &Pool) -> Option<(usize, usize)> {
    let pids = pool.worker_pids();
    assert_eq!(pids.len(), 1, "one worker, which nobody replaces");
    inside(pids[0])
}

fn limit_descriptors(to: u64) {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = Some(to);
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("lowers it");
}

#[test]
fn six_hundred_modules_one_after_the_other_need_no_more_descriptors_than_one() {
    if !is_own_process(
        module_path!(),
        "six_hundred_modules_one_after_the_other_need_no_more_descriptors_than_one",
    ) {
        return;
    }
    limit_descriptors(128);
    let pool = open(1).build().expect("builds");
    let mut at_first = None;
    let mut inside_at_first = None;
    for number in 0..600 {
        let module = pool.load(&one_of_many(number)).unwrap_or_else(|error| panic!("{number}: {error}"));
        run(&pool, &echo(&module));
        drop(module);
        if number == 5 {
            all_are_released(&pool);
            eventually("the worker to have let go of them", || {
                inside_at_first = inside_worker(&pool);
                inside_at_first.is_none_or(|(_, mapped)| mapped == 0)
            });
            at_first = Some(Holdings::now().descriptors);
        }
    }
    all_are_released(&pool);
    eventually("this process to have no more than at first", || {
        Some(Holdings::now().descriptors) <= at_first
    });
    eventually("the worker to have let go of them", || inside_worker(&pool) == inside_at_first);
    let stats = pool.stats();
    assert_eq!((stats.workers_started, stats.workers_recycled, stats.workers_died), (1, 0, 0), "{stats:?}");
}

#[test]
fn an_idle_worker_unmaps_what_it_kept_for_the_next_task() {
    let pool = open(1).build().expect("builds");
    let kept = pool.load(&one_of_many(0)).expect("loads");
    run(&pool, &echo(&kept));
    let before = inside_worker(&pool);
    assert!(before.is_none_or(|(_, mapped)| mapped > 0), "{before:?}");
    let prepared = TaskOptions::new();
    let reused = TaskOptions::new().isolation(Isolation::Reuse);
    for (number, options) in [(1, prepared), (2, reused)] {
        let module = pool.load(&one_of_many(number)).expect("loads");
        for _ in 0..5 {
            let task = echo(&module);
            let future = pool.submit_with(&task, &Bytes::from_static(b"x"), options.clone());
            future.expect("submits").result().unwrap_or_else(|failure| panic!("{failure}"));
        }
        let during = inside_worker(&pool);
        assert!(during.is_none() || during > before, "{during:?} after {before:?}");
        drop(module);
        eventually("the worker to let go of it", || inside_worker(&pool) == before);
    }
    run(&pool, &echo(&kept));
}

#[test]
fn whatever_is_held_of_a_module_keeps_it() {
    let pool = builder(1).build().expect("builds");
    let count = || pool.stats().modules;
    let module = load(&pool, "primes");
    let task = module.task::<u64, u64>("count").expect("types agree");
    let raw_task = module.raw_task("count").expect("is there");
    let again = load(&pool, "primes");
    drop(module);
    assert_eq!((count(), again.name()), (1, "primes.wasm"));
    drop(again);
    assert_eq!(count(), 1);
    drop(task.clone());
    drop(task);
    assert_eq!(count(), 1);
    drop(raw_task);
    assert_eq!(count(), 0);
    let text = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;
    let command = wat(&pool, text).command().expect("is one");
    assert_eq!(count(), 1);
    drop(command);
    assert_eq!(count(), 0);
}

#[test]
fn open_tasks_keep_their_module_and_nothing_else_does() {
    let pool = builder(1).build().expect("builds");
    let running = pool.submit_bytes(&raw(&wat(&pool, support::ECHO_WAT), "spin"), "").expect("submits");
    eventually("the task to run", || running.is_running());
    let pending: Vec<_> = (1..4)
        .map(|number| {
            let module = pool.load(&one_of_many(number)).expect("loads");
            pool.submit_bytes(&echo(&module), "x").expect("submits")
        })
        .collect();
    assert_eq!(pool.stats().modules, 4);
    assert!(pending[2].cancel());
    eventually("the cancelled task's module to end", || pool.stats().modules == 3);
    assert!(running.abort());
    for future in &pending[..2] {
        let result = future.result_timeout(PATIENCE).unwrap_or_else(|timeout| panic!("{timeout}"));
        assert_eq!(result.unwrap_or_else(|failure| panic!("{failure}")), "x");
    }
    assert!(matches!(error(&running), TaskError::Aborted { .. }));
    // The futures are still held, but their modules are not.
    all_are_released(&pool);
}

/// Tasks are submitted while the last handle goes, the same bytes are loaded again while their module's end
/// is on the way, and workers come and go.
#[test]
fn modules_that_come_and_go_in_every_order_run() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 250;
    let pool = builder(2).on_worker_death(OnWorkerDeath::replace()).build().expect("builds");
    let wasm: Vec<_> = (0..3).map(one_of_many).collect();
    wasm.iter().for_each(|wasm| drop(pool.load(wasm).expect("loads")));
    let start = Barrier::new(THREADS + 1);
    std::thread::scope(|scope| {
        let pool = &pool;
        let wasm = &wasm;
        let start = &start;
        let hammers: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    start.wait();
                    for round in 0..ROUNDS {
                        let module = pool.load(&wasm[(thread + round) % wasm.len()]).expect("loads");
                        let task = echo(&module);
                        drop(module);
                        let futures: Vec<_> = (0..1 + round % 3)
                            .map(|_| pool.submit_bytes(&task, "x").expect("submits"))
                            .collect();
                        drop(task);
                        // Some tasks that a worker was offered are taken back.
                        let cancelled = futures[0].cancel();
                        for future in &futures[usize::from(cancelled)..] {
                            let result = future.result_timeout(PATIENCE);
                            let result =
                                result.unwrap_or_else(|timeout| panic!("{thread} {round}: {timeout}"));
                            assert!(result.is_ok(), "{thread} {round}: {}", result.expect_err("failed"));
                        }
                    }
                })
            })
            .collect();
        start.wait();
        while hammers.iter().any(|hammer| !hammer.is_finished()) {
            pool.resize(0, 1);
            std::thread::sleep(Duration::from_millis(5));
            pool.resize(0, 2);
            std::thread::sleep(Duration::from_millis(5));
        }
        hammers.into_iter().for_each(|hammer| hammer.join().expect("no hammer fails"));
    });
    all_are_released(&pool);
    assert_eq!(pool.stats().workers_died, 0);
}

#[test]
fn modules_that_are_held_are_bounded_and_the_error_is_typed() {
    let pool = builder(1).modules_max(2).build().expect("builds");
    let first = pool.load(&one_of_many(0)).expect("loads");
    let second = pool.load(&one_of_many(1)).expect("loads");
    match pool.load(&one_of_many(2)).expect_err("one too many") {
        error @ ModuleError::TooMany { max: 2 } => {
            assert!(error.to_string().contains("modules_max"), "{error}")
        }
        other => panic!("{other:?}"),
    }
    // Loading the same module takes no second permit, but a metered one is another module.
    drop(pool.load(&one_of_many(1)).expect("is there"));
    let metered = || pool.load_with(&one_of_many(1), ModuleOptions::new().metered(true));
    assert!(matches!(metered(), Err(ModuleError::TooMany { .. })));
    drop(second);
    drop(metered().expect("there is room"));
    // A module that cannot be loaded keeps no permit.
    for _ in 0..3 {
        assert!(matches!(pool.load(b"hello"), Err(ModuleError::Invalid { .. })));
    }
    let third = pool.load(&one_of_many(2)).expect("there is room again");
    [first, third].iter().for_each(|module| run(&pool, &echo(module)));
    let refused = builder(1).modules_max(0).build().expect_err("no module could be loaded");
    assert!(refused.to_string().contains("modules_max"), "{refused}");
}

#[test]
fn a_system_without_descriptors_is_said_so_and_what_is_dropped_makes_room() {
    if !is_own_process(
        module_path!(),
        "a_system_without_descriptors_is_said_so_and_what_is_dropped_makes_room",
    ) {
        return;
    }
    let pool = builder(1).build().expect("builds");
    // These modules are in the cache after this, and the worker is ready.
    (0..60).for_each(|number| run(&pool, &echo(&pool.load(&one_of_many(number)).expect("loads"))));
    limit_descriptors(Holdings::now().descriptors as u64 + 60);
    let mut held = Vec::new();
    let error = (0..60).find_map(|number| match pool.load(&one_of_many(number)) {
        Ok(module) => {
            held.push(module);
            None
        }
        Err(error) => Some(error),
    });
    match error {
        Some(error @ ModuleError::NoDescriptors { .. }) => {
            assert!(error.to_string().contains("ulimit -n"), "{error}");
        }
        other => panic!("{other:?} with {} held", held.len()),
    }
    held.truncate(held.len() / 2);
    run(&pool, &echo(&pool.load(&one_of_many(50)).expect("there is room again")));
    held.iter().for_each(|module| run(&pool, &echo(module)));
}

/// The figures that /proc has of a process.
#[derive(Debug, Clone, Copy)]
struct Figures {
    descriptors: usize,
    threads: usize,
    /// The rings count in it: a worker's two MiB of them are touched bit by bit, and not given back.
    resident_kb: u64,
    /// The rings do not count in this.
    anonymous_kb: u64,
}

fn figures(pid: &str) -> Option<Figures> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some(Figures {
        descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count(),
        threads: field("Threads:")? as usize,
        resident_kb: field("VmRSS:")?,
        anonymous_kb: field("RssAnon:")?,
    })
}

fn setting(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// `WASMPOOL_RELEASE_MODULES=100000` makes the long run, `WASMPOOL_RELEASE_SECONDS` ends it early, and
/// `WASMPOOL_RELEASE_CACHE=1` stores each module in a cache.
#[test]
fn many_distinct_modules_in_one_pool_stay_flat() {
    if !is_own_process(module_path!(), "many_distinct_modules_in_one_pool_stay_flat") {
        return;
    }
    let modules = setting("WASMPOOL_RELEASE_MODULES", 300);
    // Fewer modules must do on one busy CPU.
    let seconds = setting("WASMPOOL_RELEASE_SECONDS", if modules > 300 { 100_000 } else { 60 }) as u64;
    let cache = tempfile::tempdir().expect("a directory");
    let builder = Pool::builder().workers(2).sandbox(SandboxPolicy::Off);
    let pool = match setting("WASMPOOL_RELEASE_CACHE", 0) {
        0 => builder.without_cache(),
        _ => builder.cache_dir(cache.path()),
    };
    let pool = pool.build().expect("builds");
    let look = || {
        all_are_released(&pool);
        eventually("the workers to have let go of them", || {
            pool.worker_pids().iter().all(|pid| inside(*pid).is_none_or(|(_, mapped)| mapped == 0))
        });
        let workers: Vec<_> = pool.worker_pids().iter().filter_map(|pid| figures(&pid.to_string())).collect();
        (figures("self").expect("this process"), workers)
    };
    // Both workers must be ready and have run something.
    let first = pool.load(&one_of_many(0)).expect("loads");
    let spin = raw(&first, "spin");
    let busy = pool.submit_bytes(&spin, "").expect("submits");
    eventually("the first worker to be busy", || busy.is_running());
    run(&pool, &echo(&first));
    busy.abort();
    assert!(matches!(error(&busy), TaskError::Aborted { .. }));
    drop((first, spin));
    let began = Instant::now();
    let settled = modules / 3;
    let mut before = look();
    for number in 1..=modules {
        let module = pool.load(&one_of_many(number)).unwrap_or_else(|error| panic!("{number}: {error}"));
        run(&pool, &echo(&module));
        drop(module);
        let is_over = number > settled && began.elapsed().as_secs() >= seconds;
        if number == settled {
            before = look();
        }
        if number.is_multiple_of(1000) && number.ilog10() != (number - 1).ilog10()
            || number.is_multiple_of(10_000)
            || number == modules
            || is_over
        {
            println!("{number} modules, {:?}: {:?}", began.elapsed(), look());
        }
        if is_over {
            break;
        }
    }
    // The supervisor hears of the last compiler's end a little later.
    let mut after = look();
    let has_settled = |after: &(Figures, Vec<Figures>)| {
        let pairs = std::iter::once((&before.0, &after.0)).chain(before.1.iter().zip(&after.1));
        pairs
            .into_iter()
            .all(|(before, after)| after.threads <= before.threads && after.descriptors <= before.descriptors)
    };
    eventually("threads and descriptors to be those of before", || {
        after = look();
        has_settled(&after)
    });
    assert_eq!(pool.stats().workers_recycled, 0);
    let pairs = std::iter::once((&before.0, &after.0)).chain(before.1.iter().zip(&after.1));
    for (before, after) in pairs {
        assert!(after.resident_kb < before.resident_kb + 4 * 1024, "{before:?} {after:?}");
        assert!(after.anonymous_kb < before.anonymous_kb + 1024, "{before:?} {after:?}");
    }
}
