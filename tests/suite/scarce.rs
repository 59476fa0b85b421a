//! Runs on a machine that is short of descriptors: a pool that cannot grow goes on with what there is, and
//! grows when it can.
//!
//! The limit is the whole process's, so each test has a process of its own.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::{self, PATIENCE, build, builder, error, eventually, is_own_process, raw, wat};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use wasmpool::error::{ModuleError, Scarce};
use wasmpool::event::{EventKind, Events};
use wasmpool::module::RawTask;
use wasmpool::pool::OnWorkerDeath;
use wasmpool::{Pool, TaskError, TaskFuture, TaskOptions};

/// Starting a worker, or loading a module, takes this many for a moment.
const ENOUGH_FOR_ONE: usize = 14;

/// A limit on how many more descriptors this process may open; dropping it restores the limit.
struct Short {
    before: Rlimit,
    /// These files take up what there is.
    taken: Mutex<Vec<File>>,
}

impl Short {
    fn of_descriptors() -> Short {
        Short { before: getrlimit(Resource::Nofile), taken: Mutex::default() }
    }

    /// Leaves this many descriptors from here on.
    fn leave(&self, left: usize) {
        let mut taken = self.taken.lock().expect("no panic");
        let limit = File::open("/dev/null").expect("opens").as_raw_fd() as u64 + 64;
        setrlimit(Resource::Nofile, Rlimit { current: Some(limit), ..self.before }).expect("lowers");
        while let Ok(file) = File::open("/dev/null") {
            taken.push(file);
        }
        let kept = taken.len().checked_sub(left).expect("there were as many");
        taken.truncate(kept);
    }

    fn ease(&self) {
        self.taken.lock().expect("no panic").clear();
        setrlimit(Resource::Nofile, self.before).expect("raises");
    }
}

impl Drop for Short {
    fn drop(&mut self) {
        let _ = setrlimit(Resource::Nofile, self.before);
    }
}

const POLICIES: [fn() -> OnWorkerDeath; 2] = [OnWorkerDeath::default, OnWorkerDeath::replace];

fn echo_and_spin(pool: &Pool) -> (RawTask, RawTask) {
    let module = wat(pool, support::ECHO_WAT);
    (raw(&module, "echo"), raw(&module, "spin"))
}

fn succeed(futures: &[TaskFuture<bytes::Bytes>]) {
    for future in futures {
        let result = future.result_timeout(PATIENCE).expect("in time");
        assert_eq!(result.unwrap_or_else(|error| panic!("{error}")), "x");
    }
}

fn shortages(events: &mut Events) -> Vec<EventKind> {
    let told = std::iter::from_fn(|| events.try_next());
    told.map(|event| event.kind).filter(|kind| matches!(kind, EventKind::WorkersShort { .. })).collect()
}

#[test]
fn a_pool_that_cannot_grow_goes_on_with_the_workers_it_has_and_says_so_once() {
    if !is_own_process(
        module_path!(),
        "a_pool_that_cannot_grow_goes_on_with_the_workers_it_has_and_says_so_once",
    ) {
        return;
    }
    let short = Short::of_descriptors();
    for policy in POLICIES {
        let pool = build(builder(16).on_worker_death(policy()));
        let mut events = pool.events();
        let (echo, spin) = echo_and_spin(&pool);
        short.leave(40);
        // At least one worker is busy for ever, and the others do the rest beside it.
        let busy = pool.submit_bytes(&spin, "").expect("submits");
        // The pool starts one worker after the other, and the tasks of one round may be done before it is short.
        let mut told = Vec::new();
        let mut round = || {
            let futures: Vec<_> = (0..300).map(|_| pool.submit_bytes(&echo, "x").expect("submits")).collect();
            succeed(&futures);
            told.extend(shortages(&mut events));
            told.len()
        };
        eventually("the shortage to be told", || round() > 0);
        round();
        let workers = pool.worker_pids().len();
        assert!((2..16).contains(&workers), "{workers} workers");
        assert!(pool.broken().is_none() && pool.stats().workers_died == 0);
        assert!(busy.abort());
        assert_eq!(error(&busy), TaskError::Aborted { killed: false });
        told.extend(shortages(&mut events));
        match &told[..] {
            [EventKind::WorkersShort { workers, shortage }] => {
                assert!(*workers < 16 && shortage.of == Scarce::Descriptors, "{shortage}");
            }
            told => panic!("{told:?}"),
        }
        // Loading a new module needs descriptors, too: the workers have left some.
        let module = pool.load(&unseen()).unwrap_or_else(|error| panic!("{error}"));
        assert!(!module.from_cache());
        short.ease();
    }
}

#[test]
fn workers_come_once_there_are_descriptors_again() {
    if !is_own_process(module_path!(), "workers_come_once_there_are_descriptors_again") {
        return;
    }
    let short = Short::of_descriptors();
    for policy in POLICIES {
        let pool = build(builder(4).on_worker_death(policy()));
        let mut events = pool.events();
        let (_, spin) = echo_and_spin(&pool);
        short.leave(ENOUGH_FOR_ONE);
        let futures: Vec<_> = (0..4).map(|_| pool.submit_bytes(&spin, "").expect("submits")).collect();
        eventually("one to run", || futures[0].is_running());
        eventually("the shortage to be told", || !shortages(&mut events).is_empty());
        assert_eq!(pool.worker_pids().len(), 1);
        short.ease();
        eventually("all to run", || futures.iter().all(TaskFuture::is_running));
        let pids: HashSet<_> = pool.worker_pids().into_iter().collect();
        assert_eq!(pids.len(), 4);
        pool.kill();
    }
}

#[test]
fn where_no_worker_can_be_had_tasks_fail_with_the_limit_and_the_pool_lives_on() {
    if !is_own_process(
        module_path!(),
        "where_no_worker_can_be_had_tasks_fail_with_the_limit_and_the_pool_lives_on",
    ) {
        return;
    }
    let short = Short::of_descriptors();
    for policy in POLICIES {
        let pool = build(builder(3).on_worker_death(policy()));
        let (echo, _) = echo_and_spin(&pool);
        short.leave(2);
        let futures: Vec<_> = (0..10).map(|_| pool.submit_bytes(&echo, "x").expect("submits")).collect();
        let many = pool.map(&echo, (0..100).map(|_| bytes::Bytes::from_static(b"x"))).collect::<Vec<_>>();
        for error in futures.iter().map(error) {
            let TaskError::NoWorker(shortage) = &error else { panic!("{error}") };
            assert_eq!(shortage.of, Scarce::Descriptors);
            assert_eq!(shortage.limit, getrlimit(Resource::Nofile).current);
            assert!(error.to_string().contains("ulimit -n"), "{error}");
        }
        assert!(many.iter().all(Result::is_err));
        assert!(futures.iter().all(|future| !support::failure(future).may_have_run()));
        assert!(pool.broken().is_none());
        short.ease();
        succeed(&[pool.submit_bytes(&echo, "x").expect("it takes more")]);
    }
}

#[test]
fn a_worker_of_another_domain_leaves_its_place_where_none_can_be_added() {
    if !is_own_process(module_path!(), "a_worker_of_another_domain_leaves_its_place_where_none_can_be_added")
    {
        return;
    }
    let short = Short::of_descriptors();
    let pool = build(builder(4));
    let (echo, _) = echo_and_spin(&pool);
    short.leave(ENOUGH_FOR_ONE);
    for round in 0..6 {
        let options = TaskOptions::new().domain(if round % 2 == 0 { "one" } else { "other" });
        let future = pool.submit_with(&echo, "x", options).expect("submits");
        succeed(&[future]);
        assert!(pool.worker_pids().len() <= 2, "{:?}", pool.worker_pids());
    }
    assert!(pool.broken().is_none());
}

/// Does something at the first event that says these words.
struct At<F> {
    words: &'static str,
    once: AtomicBool,
    then: F,
}

impl<F: Fn() + Send + Sync + 'static> Subscriber for At<F> {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut text = String::new();
        event.record(&mut |_: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            text.push_str(&format!("{value:?}"));
        });
        if text.contains(self.words) && !self.once.swap(true, Ordering::SeqCst) {
            (self.then)();
        }
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Makes a module with a new name each time, so that no cache has it.
fn unseen() -> Vec<u8> {
    let name = format!("{:?}", std::time::SystemTime::now());
    wat::parse_str(format!("(module (memory 1) (func (export \"_start\") ) (data \"{name}\"))"))
        .expect("valid")
}

#[test]
fn a_module_is_compiled_once_there_are_descriptors_again() {
    if !is_own_process(module_path!(), "a_module_is_compiled_once_there_are_descriptors_again") {
        return;
    }
    let short = Arc::new(Short::of_descriptors());
    let pool = build(Pool::builder().workers(1).without_cache());
    short.leave(4);
    let eased = At {
        words: "no compiler can be started",
        once: AtomicBool::new(false),
        then: {
            let short = short.clone();
            move || short.ease()
        },
    };
    let loaded = tracing::subscriber::with_default(eased, || pool.load(&unseen()));
    loaded.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_module_that_no_compiler_can_be_had_for_is_refused_with_the_limit_and_not_for_good() {
    if !is_own_process(
        module_path!(),
        "a_module_that_no_compiler_can_be_had_for_is_refused_with_the_limit_and_not_for_good",
    ) {
        return;
    }
    let short = Short::of_descriptors();
    let pool = build(Pool::builder().workers(1).without_cache());
    let wasm = unseen();
    short.leave(4);
    match pool.load(&wasm).expect_err("there is no compiler") {
        error @ ModuleError::NoDescriptors { .. } => assert!(error.to_string().contains("ulimit -n")),
        other => panic!("{other}"),
    }
    short.ease();
    pool.load(&wasm).unwrap_or_else(|error| panic!("it is in no quarantine: {error}"));
}
