//! Trust domains: no process is ever shared by two of them, and nobody waits for ever for one.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::{self, Guarded, PATIENCE, build, builder, error, eventually, raw, say, signal};
use rustix::process::Signal;
use wasmpool::event::{EventKind, Events, LeaveReason, WorkerState, WorkerStats};
use wasmpool::module::RawTask;
use wasmpool::pool::{OnWorkerDeath, Replacement, ShutdownMode};
use wasmpool::task::{Retry, TaskId};
use wasmpool::{Module, Pool, TaskError, TaskFuture, TaskOptions};

type Future = TaskFuture<wasmpool::Bytes>;

/// No domain, and some with a name.
const DOMAINS: [Option<&str>; 4] = [None, Some("a"), Some("b"), Some("c")];

fn of(domain: Option<&str>) -> TaskOptions {
    match domain {
        None => TaskOptions::new(),
        Some(name) => TaskOptions::new().domain(name),
    }
}

/// Tasks that no other domain's module has.
struct Tasks {
    module: Module,
    echo: RawTask,
    spin: RawTask,
}

fn tasks(pool: &Pool, domain: &str) -> Tasks {
    let data = format!("(data (i32.const 0) \"{domain}\")\n    (func (export \"echo\")");
    let module = support::wat(pool, &support::ECHO_WAT.replacen("(func (export \"echo\")", &data, 1));
    Tasks { echo: raw(&module, "echo"), spin: raw(&module, "spin"), module }
}

fn submit(pool: &Pool, task: &RawTask, options: TaskOptions) -> Future {
    pool.submit_with(task, "x", options).expect("submits")
}

fn output(future: &Future) -> wasmpool::Bytes {
    let result = future.result_timeout(PATIENCE).unwrap_or_else(|timeout| panic!("{timeout}"));
    result.unwrap_or_else(|failure| panic!("{failure}"))
}

fn pid_of(future: &Future) -> u32 {
    output(future);
    future.report().expect("done").worker_pid.expect("it ran")
}

/// The worker that runs the task, once it does.
fn worker_of(pool: &Pool, task: TaskId) -> WorkerStats {
    let mut found = None;
    eventually("the task to run", || {
        let runs_it = |worker: &WorkerStats| worker.task.is_some_and(|(id, _)| id == task);
        found = pool.stats().workers.into_iter().find(runs_it);
        found.is_some()
    });
    found.expect("a worker")
}

/// Everything that happened, once the pool has stopped.
fn all(events: Events) -> Vec<EventKind> {
    let mut seen = Vec::new();
    let mut events = events;
    while let Some(event) = events.next_timeout(PATIENCE) {
        seen.push(event.kind);
    }
    assert_eq!(seen.last(), Some(&EventKind::Stopped));
    seen
}

/// Holds what was told to the promise, given the tasks' domains. Says how many processes each
/// domain had.
fn check(told: &[EventKind], domain_of: &HashMap<TaskId, Option<&str>>) -> HashMap<String, usize> {
    // This has, by pid, the domain by the worker's word, and that of each task that began there.
    let mut workers: HashMap<u32, (Option<String>, HashSet<Option<&str>>)> = HashMap::new();
    let mut processes = HashMap::new();
    for kind in told {
        match kind {
            // A pid may come again, for another process.
            EventKind::WorkerStarted { pid } => drop(workers.insert(*pid, Default::default())),
            EventKind::WorkerBound { pid, domain } => {
                let (bound, _) = workers.get_mut(pid).expect("it was started");
                assert_eq!(bound.replace(domain.to_string()), None, "bound twice");
            }
            EventKind::TaskStarted { task, pid, .. } => {
                let (bound, domains) = workers.get_mut(pid).expect("it was started");
                let domain = domain_of[task];
                if domains.insert(domain) {
                    *processes.entry(domain.unwrap_or_default().to_string()).or_default() += 1;
                }
                assert_eq!(domains.len(), 1, "{pid} ran tasks of {domains:?}");
                assert_eq!(bound.as_deref(), domain, "it is bound to it before");
            }
            _ => {}
        }
    }
    processes
}

/// A seeded mixture of domains and ways to end.
fn mixture(pool: &Pool, count: u64, kills: bool) -> HashMap<TaskId, Option<&'static str>> {
    let modules: Vec<_> = DOMAINS.iter().map(|domain| tasks(pool, domain.unwrap_or("none"))).collect();
    let mut domain_of = HashMap::new();
    let mut futures = Vec::new();
    let mut random = 7_u64;
    for number in 0..count {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let index = (random >> 60) as usize % DOMAINS.len();
        let tasks = &modules[index];
        let options = of(DOMAINS[index]);
        let future = match number % 16 {
            3 => submit(pool, &tasks.spin, options.timeout(Duration::from_millis(3))),
            7 => submit(
                pool,
                &tasks.spin,
                options.timeout(Duration::from_millis(3)).retry(Retry::attempts(2).after_timeouts()),
            ),
            11 => submit(pool, &tasks.spin, options.retry(Retry::attempts(2))),
            13 => submit(pool, &tasks.echo, options.priority(1)),
            _ => submit(pool, &tasks.echo, options),
        };
        domain_of.insert(future.task_id(), DOMAINS[index]);
        match number % 16 {
            5 => drop(future.cancel()),
            // The task is aborted at whatever place it is by now.
            11 if !kills || number % 64 != 11 => drop(future.abort()),
            11 => {
                signal(worker_of(pool, future.task_id()).pid, Signal::KILL);
                eventually("the second attempt", || {
                    future.report().is_some() || {
                        let runs = pool.stats().workers;
                        runs.iter()
                            .any(|worker| worker.task.is_some_and(|(task, _)| task == future.task_id()))
                    }
                });
                future.abort();
            }
            _ => {}
        }
        futures.push(future);
    }
    for future in &futures {
        let _ = future.result_timeout(PATIENCE).unwrap_or_else(|timeout| panic!("{timeout}"));
    }
    domain_of
}

#[test]
fn no_process_runs_tasks_of_two_domains() {
    for (mode, kills) in [(OnWorkerDeath::Break, false), (OnWorkerDeath::Replace(Replacement::new()), true)] {
        for workers in [1, 3] {
            let pool = build(builder(workers).on_worker_death(mode));
            let events = pool.events();
            let domain_of = mixture(&pool, 400, kills);
            let stats = pool.stats();
            assert!(stats.workers.len() <= 2 * workers, "those that leave are bounded");
            pool.shutdown(ShutdownMode::Finish);
            let told = all(events);
            let processes = check(&told, &domain_of);
            assert_eq!(processes.len(), DOMAINS.len(), "{processes:?}");
            let left = |kind: &&EventKind| {
                matches!(kind, EventKind::WorkerLeaving { reason: LeaveReason::Domain, .. })
            };
            assert!(told.iter().filter(left).count() > 0, "four domains do not fit into {workers} workers");
        }
    }
}

#[test]
fn a_worker_maps_the_modules_of_its_domain_only() {
    // Workers show these files of /proc to root only; what they map does not depend on who looks.
    if !rustix::process::getuid().is_root() {
        return;
    }
    // The machine code comes from the cache, where the files have names, so the first pool only compiles.
    let names = ["mapped a", "mapped b"];
    {
        let pool = build(builder(1));
        names.iter().for_each(|name| drop(tasks(&pool, name)));
    }
    let pool = build(builder(2));
    let modules: Vec<_> = names.iter().map(|name| tasks(&pool, name)).collect();
    for _ in 0..5 {
        let futures = names.iter().zip(&modules).map(|(name, tasks)| {
            submit(&pool, &tasks.echo, TaskOptions::new().domain(*name));
            submit(&pool, &tasks.spin, TaskOptions::new().domain(*name))
        });
        let futures: Vec<_> = futures.collect();
        for (index, future) in futures.iter().enumerate() {
            let worker = worker_of(&pool, future.task_id());
            assert_eq!(worker.domain.as_deref(), Some(names[index]));
            let maps = || std::fs::read_to_string(format!("/proc/{}/maps", worker.pid)).expect("it lives");
            let is_mapped = |tasks: &Tasks| maps().contains(&tasks.module.digest().short());
            eventually("its module to be mapped", || is_mapped(&modules[index]));
            assert!(!is_mapped(&modules[1 - index]), "{}", maps());
            // The worker does not hold the other's descriptors, either.
            let held = std::fs::read_dir(format!("/proc/{}/fd", worker.pid)).expect("it lives").flatten();
            let links = held.filter_map(|fd| std::fs::read_link(fd.path()).ok());
            let other = modules[1 - index].module.digest().short();
            assert_eq!(links.filter(|link| link.to_string_lossy().contains(&other)).count(), 0);
        }
        futures.iter().for_each(|future| assert!(future.abort()));
        futures.iter().for_each(|future| assert!(matches!(error(future), TaskError::Aborted { .. })));
    }
}

#[test]
fn one_worker_serves_domains_that_take_turns() {
    let pool = build(builder(1));
    let tasks = tasks(&pool, "turns");
    let events = pool.events();
    let mut domain_of = HashMap::new();
    // One at a time, each has to have a process of its own.
    let mut last = None;
    for turn in 0..12 {
        let domain = DOMAINS[turn % 2 + 1];
        let future = submit(&pool, &tasks.echo, of(domain));
        domain_of.insert(future.task_id(), domain);
        let pid = Some(pid_of(&future));
        assert_ne!(pid, last);
        last = pid;
    }
    // All at once, they share what a moment is enough for.
    let futures: Vec<_> = (0..200)
        .map(|number| {
            let domain = DOMAINS[number % DOMAINS.len()];
            let future = submit(&pool, &tasks.echo, of(domain));
            domain_of.insert(future.task_id(), domain);
            future
        })
        .collect();
    futures.iter().for_each(|future| drop(output(future)));
    let stats = pool.stats();
    assert_eq!((stats.ended.succeeded, stats.workers_died), (212, 0));
    pool.shutdown(ShutdownMode::Finish);
    check(&all(events), &domain_of);
}

#[test]
fn a_domain_keeps_its_worker_while_there_is_room() {
    let pool = build(builder(3));
    let tasks = tasks(&pool, "kept");
    let first: Vec<_> =
        [None, Some("a"), Some("b")].map(|domain| pid_of(&submit(&pool, &tasks.echo, of(domain)))).into();
    for _ in 0..50 {
        for (domain, pid) in [None, Some("a"), Some("b")].into_iter().zip(&first) {
            assert_eq!(pid_of(&submit(&pool, &tasks.echo, of(domain))), *pid);
        }
    }
    let mut domains: Vec<_> = pool.stats().workers.into_iter().map(|worker| worker.domain).collect();
    domains.sort();
    assert_eq!(domains.iter().map(|domain| domain.as_deref()).collect::<Vec<_>>(), DOMAINS[..3]);
    assert_eq!(pool.stats().workers_started, 3);
}

#[test]
fn without_domains_nothing_changes() {
    let pool = build(builder(4));
    let tasks = tasks(&pool, "plain");
    let events = pool.events();
    let pid = pid_of(&submit(&pool, &tasks.echo, of(None)));
    for _ in 0..100 {
        assert_eq!(pid_of(&submit(&pool, &tasks.echo, of(None))), pid, "one at a time, one worker");
    }
    assert_eq!(pool.stats().workers.iter().map(|worker| worker.domain.clone()).collect::<Vec<_>>(), [None]);
    let futures: Vec<_> = (0..2_000).map(|_| submit(&pool, &tasks.echo, of(None))).collect();
    let pids: HashSet<_> = futures.iter().map(pid_of).collect();
    assert!(pids.len() <= 4 && pool.stats().workers_started <= 4, "{pids:?}");
    pool.shutdown(ShutdownMode::Finish);
    for kind in all(events) {
        match kind {
            EventKind::WorkerBound { .. } => panic!("{kind:?}"),
            EventKind::WorkerLeaving { reason, .. } => assert_eq!(reason, LeaveReason::PoolEnds),
            _ => {}
        }
    }
}

#[test]
fn a_pools_default_domain_is_that_of_tasks_that_name_none() {
    let pool = build(builder(2).task_defaults(TaskOptions::new().domain("default")));
    let tasks = tasks(&pool, "default");
    let theirs = pid_of(&submit(&pool, &tasks.echo, of(None)));
    assert_eq!(pid_of(&submit(&pool, &tasks.echo, of(Some("default")))), theirs);
    assert_ne!(pid_of(&submit(&pool, &tasks.echo, of(Some("other")))), theirs);
    let domain = |pid| pool.stats().workers.iter().find(|worker| worker.pid == pid)?.domain.clone();
    assert_eq!(domain(theirs).as_deref(), Some("default"));
}

#[test]
fn maps_of_several_domains_run_side_by_side() {
    for (workers, chunk) in [(1, None), (2, None), (2, NonZeroUsize::new(16)), (1, NonZeroUsize::new(500))] {
        let pool = build(builder(workers));
        let events = pool.events();
        let tasks = tasks(&pool, "mapped");
        let ids = std::sync::Mutex::new(HashMap::new());
        std::thread::scope(|scope| {
            for domain in DOMAINS {
                let pool = &pool;
                let tasks = &tasks;
                let ids = &ids;
                scope.spawn(move || {
                    let inputs = (0..300_u32).map(|number| wasmpool::Bytes::from(number.to_string()));
                    let mut map = pool.map(&tasks.echo, inputs).options(of(domain).label(name(domain)));
                    if let Some(size) = chunk {
                        map = map.chunk_size(size);
                    }
                    let outputs: Vec<_> = map.map(|output| output.expect("succeeds")).collect();
                    assert_eq!(outputs.len(), 300);
                    ids.lock().expect("no panic").insert(name(domain), domain);
                });
            }
        });
        pool.shutdown(ShutdownMode::Finish);
        let told = all(events);
        let labelled = told.iter().filter_map(|kind| match kind {
            EventKind::TaskQueued { task, label: Some(label), .. } => {
                Some((*task, DOMAINS.into_iter().find(|domain| name(*domain) == *label)?))
            }
            _ => None,
        });
        let domain_of: HashMap<_, _> = labelled.collect();
        assert_eq!(domain_of.len(), 1_200);
        check(&told, &domain_of);
    }
}

fn name(domain: Option<&'static str>) -> String {
    domain.unwrap_or("none").to_string()
}

#[test]
fn tasks_are_cancelled_and_aborted_across_domains() {
    let pool = build(builder(1));
    let tasks = tasks(&pool, "ends");
    let runs = submit(&pool, &tasks.spin, of(Some("a")));
    let first = worker_of(&pool, runs.task_id()).pid;
    let waits: Vec<_> = DOMAINS.iter().map(|domain| submit(&pool, &tasks.spin, of(*domain))).collect();
    assert!(waits[0].cancel() && waits[2].cancel());
    assert_eq!(error(&waits[0]), TaskError::Cancelled);
    assert!(!runs.is_done(), "the others are not concerned");
    assert!(runs.abort());
    // One task of "a" and one of "c" are left.
    let own = worker_of(&pool, waits[1].task_id());
    assert_eq!((own.pid, own.domain.as_deref()), (first, Some("a")), "its worker goes on");
    assert!(waits[1].abort());
    let other = worker_of(&pool, waits[3].task_id());
    assert_ne!(other.pid, first);
    assert_eq!(other.domain.as_deref(), Some("c"));
    assert!(waits[3].abort());
    assert!(matches!(error(&waits[3]), TaskError::Aborted { .. }));
    // The first in line is cancelled while a worker starts for it: that one serves another.
    let gone = submit(&pool, &tasks.echo, of(Some("b")));
    gone.cancel();
    assert_eq!(output(&submit(&pool, &tasks.echo, of(Some("c")))).as_ref(), b"x");
}

#[test]
fn a_domain_that_floods_does_not_starve_another() {
    for workers in [1, 2] {
        let pool = build(builder(workers).queue_tasks_max(500));
        let tasks = tasks(&pool, "flood");
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let flood = scope.spawn(|| {
                let mut count = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    // Waits while the queue is full: it always is.
                    drop(submit(&pool, &tasks.echo, of(Some("flood"))));
                    count += 1;
                }
                count
            });
            let stop_at_end = StopAtEnd(&stop);
            eventually("the flood", || pool.stats().pending > 300);
            let began = Instant::now();
            for _ in 0..10 {
                let future = submit(&pool, &tasks.echo, of(Some("other")));
                assert_eq!(output(&future).as_ref(), b"x");
                assert!(pool.stats().pending > 0 || !flood.is_finished());
            }
            let took = began.elapsed();
            drop(stop_at_end);
            println!(
                "{workers} workers: 10 of the other in {took:?}, {} of the flood",
                flood.join().expect("ends")
            );
        });
    }
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_death_concerns_its_own_domain_where_workers_are_replaced() {
    let pool = build(builder(2).on_worker_death(OnWorkerDeath::Replace(Replacement::new())));
    let tasks = tasks(&pool, "deaths");
    let spins = ["a", "b"].map(|domain| submit(&pool, &tasks.spin, of(Some(domain))));
    let pids = spins.each_ref().map(|spin| worker_of(&pool, spin.task_id()).pid);
    signal(pids[0], Signal::KILL);
    assert!(matches!(error(&spins[0]), TaskError::WorkerDied(_)));
    assert!(!spins[1].is_done());
    let next = submit(&pool, &tasks.echo, of(Some("a")));
    assert!(!pids.contains(&pid_of(&next)));
    assert!(spins[1].abort());
}

#[test]
fn no_domain_reads_anothers_last_words_in_its_error() {
    let pool = build(builder(2));
    let module = support::wat(&pool, &say::text(1));
    let spin = raw(&module, "say_and_spin");
    let submit = |words: &'static str, domain| pool.submit_with(&spin, words, of(domain)).expect("submits");
    let talks = submit("the secret of a", Some("a"));
    let pid = worker_of(&pool, talks.task_id()).pid;
    let other = submit("the secret of b", Some("b"));
    worker_of(&pool, other.task_id());
    let waits_too = submit("more of a", Some("a"));
    let nobodys = submit("of nobody", None);
    // A worker that computes has said all; what is on its way is read before the death is told.
    eventually("the first to compute", || support::cpu_of(pid) > Duration::from_millis(100));
    signal(pid, Signal::KILL);
    for (future, hears) in [(&talks, true), (&waits_too, true), (&other, false), (&nobodys, false)] {
        let TaskError::Broken(broken) = error(future) else { panic!("not broken") };
        assert_eq!((broken.pid(), broken.signal()), (pid, Some(9)));
        let words = format!("{broken} {broken:?}");
        assert_eq!(words.contains("the secret of a"), hears, "{words}");
        let line = format!("task {}, stdout: the secret of a-the secret of a", talks.task_id());
        assert_eq!(broken.death().last_logs.last(), hears.then_some(&line));
    }
    for (domain, hears) in [(Some("a"), true), (Some("b"), false), (None, false)] {
        let refused = pool.submit_with(&spin, "late", of(domain)).expect_err("it is broken");
        assert_eq!(format!("{refused} {refused:?}").contains("the secret of a"), hears, "{refused}");
    }
    let whole = pool.broken().expect("it is").to_string();
    assert!(whole.contains("the secret of a"), "the embedder is told all: {whole}");
}

#[test]
fn a_worker_that_leaves_for_another_domain_breaks_nothing() {
    let pool = build(builder(1));
    let tasks = tasks(&pool, "leaves");
    let mut events = pool.events();
    let first = pid_of(&submit(&pool, &tasks.echo, of(Some("a"))));
    let second = pid_of(&submit(&pool, &tasks.echo, of(Some("b"))));
    assert_ne!(first, second);
    let mut told = Vec::new();
    while !matches!(told.last(), Some(EventKind::WorkerEnded { .. })) {
        told.push(events.next_timeout(PATIENCE).expect("it ends").kind);
    }
    assert!(told.contains(&EventKind::WorkerBound { pid: first, domain: "a".into() }));
    assert!(told.contains(&EventKind::WorkerLeaving { pid: first, reason: LeaveReason::Domain }));
    assert!(matches!(told.last(), Some(EventKind::WorkerEnded { expected: true, .. })));
    assert_eq!(pool.stats().workers_died, 0);
}

#[test]
fn the_minimum_stays_and_the_idle_leave_whatever_the_domains() {
    let pool = build(builder(3).workers_min(1).idle_timeout(Duration::from_millis(50)));
    let tasks = tasks(&pool, "idle");
    for domain in DOMAINS {
        output(&submit(&pool, &tasks.echo, of(domain)));
    }
    eventually("one to be left", || {
        let workers = pool.stats().workers;
        workers.len() == 1 && workers[0].state == WorkerState::Idle
    });
    pool.resize(2, 2);
    eventually("two", || pool.stats().workers.len() == 2);
    for domain in DOMAINS {
        output(&submit(&pool, &tasks.echo, of(domain)));
    }
    eventually("two again", || pool.stats().workers.len() == 2);
}

#[test]
fn many_names_leave_nothing_behind() {
    let pool: Guarded = build(builder(2));
    let tasks = tasks(&pool, "names");
    let futures: Vec<_> = (0..60)
        .map(|number| submit(&pool, &tasks.echo, TaskOptions::new().domain(format!("tenant {number}"))))
        .collect();
    let pids: HashSet<_> = futures.iter().map(pid_of).collect();
    assert!(pids.len() > 30, "sixty domains, {} pids", pids.len());
    eventually("those that left to be gone", || pool.stats().workers.len() <= 2);
    assert_eq!(pool.stats().workers_started, 60);
}
