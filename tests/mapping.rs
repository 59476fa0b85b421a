//! `map` in its variants, and others' code in the middle of the pool: iterators, done callbacks and
//! wakers that use the pool, end it, panic or wait for it.

mod common;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use common::{Guarded, PATIENCE, build, builder, error, eventually, raw, signal};
use crossbeam_channel::unbounded;
use rustix::process::Signal;
use wasmpool::{
    Bytes, EventKind, MapError, Pool, PoolBuilder, RawTask, ShutdownMode, SubmitError, TaskError, TaskFuture,
    TaskOptions, TaskOutcome, WorkerState,
};

type Future = TaskFuture<Bytes>;

fn pool(workers: usize) -> Guarded {
    build(builder(workers))
}

/// One task that does what the first byte of its input says, by the bare byte ABI: `s` spins for
/// ever, `t` traps, `r` returns an error of its own, and all else is returned as it came.
const ACT_WAT: &str = r#"(module
    (memory (export "memory") 4)
    (func (export "wasmpool_abi_v1"))
    (func (export "wasmpool_alloc") (param i32) (result i32) i32.const 1025)
    (func (export "act") (param $at i32) (param $len i32) (result i64) (local $what i32)
        (local.set $what (i32.load8_u (local.get $at)))
        (if (i32.eq (local.get $what) (i32.const 115)) (then (loop (br 0))))
        (if (i32.eq (local.get $what) (i32.const 116)) (then unreachable))
        (i32.store8 (i32.const 1024) (i32.eq (local.get $what) (i32.const 114)))
        (i64.or (i64.shl (i64.const 1024) (i64.const 32))
                (i64.extend_i32_u (i32.add (local.get $len) (i32.const 1))))))"#;

fn act(pool: &Pool) -> RawTask {
    raw(&common::wat(pool, ACT_WAT), "act")
}

/// An input that comes back as it is, and can be told from others.
fn numbered(number: usize) -> Bytes {
    format!("e{number}").into()
}

fn submit(pool: &Pool, act: &RawTask, what: &'static str) -> Future {
    pool.submit_bytes(act, what).expect("submits")
}

fn output(future: &Future) -> Bytes {
    future.result_timeout(PATIENCE).expect("done in time").expect("succeeds")
}

fn texts(texts: &[&'static str]) -> Vec<Bytes> {
    texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
}

fn items(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).expect("not zero")
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn is_timeout(result: &Result<Bytes, MapError>) -> bool {
    matches!(result, Err(MapError::Timeout { .. }))
}

/// Runs `work` on a thread of its own; a deadlock fails the test instead of hanging it.
fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = crossbeam_channel::bounded(1);
    std::thread::spawn(move || sender.send(work()));
    match receiver.recv_timeout(PATIENCE) {
        Ok(done) => done,
        Err(crossbeam_channel::RecvTimeoutError::Timeout) => panic!("{what} hangs"),
        Err(crossbeam_channel::RecvTimeoutError::Disconnected) => panic!("{what} panicked"),
    }
}

/// A task without end that runs.
fn running(pool: &Pool, act: &RawTask) -> Future {
    let spin = submit(pool, act, "s");
    eventually("it to run", || spin.running());
    spin
}

// ── Results ──────────────────────────────────────────────────────────────────

#[test]
fn chunks_of_any_size_give_what_a_sequential_map_gives() {
    let pool = pool(2);
    let act = act(&pool);
    let expected: Vec<_> = (0..500).map(numbered).collect();
    for size in [1, 3, 40, 1000] {
        let map = || pool.map(&act, expected.clone()).chunk_size(items(size)).buffer_size(items(200));
        let ordered: Vec<_> = map().map(|result| result.expect("succeeds")).collect();
        assert_eq!(ordered, expected, "chunks of {size}");
        let mut unordered = BTreeMap::new();
        for (number, result) in map().unordered() {
            let earlier = unordered.insert(number, result.expect("succeeds"));
            assert_eq!(earlier, None, "each number once");
        }
        assert!(unordered.into_iter().eq(expected.iter().cloned().enumerate()), "chunks of {size}");
    }
    assert_eq!(pool.map(&act, []).count() + pool.map(&act, []).unordered().count(), 0);
    assert_eq!((pool.stats().submitted, pool.stats().retries), (4_000, 0));
}

#[test]
fn an_unordered_map_goes_on_where_an_ordered_one_was_left() {
    let pool = pool(2);
    let act = act(&pool);
    let mut ordered = pool.map(&act, (0..100).map(numbered));
    let mut seen: Vec<_> = ordered.by_ref().take(10).map(|result| result.expect("succeeds")).collect();
    seen.extend(ordered.unordered().map(|(_, result)| result.expect("succeeds")));
    seen.sort();
    let mut expected: Vec<_> = (0..100).map(numbered).collect();
    expected.sort();
    assert_eq!(seen, expected);
}

#[test]
fn an_error_stands_at_its_own_position_inside_of_a_chunk_and_the_rest_goes_on() {
    let pool = pool(2);
    let act = act(&pool);
    let input = |number: usize| match number % 10 {
        3 => Bytes::from_static(b"trap"),
        7 => Bytes::from_static(b"refuse"),
        _ => numbered(number),
    };
    let check = |number: usize, result: Result<Bytes, MapError>| match (number % 10, result) {
        (3, Err(MapError::Task(failure))) => {
            assert!(matches!(failure.error(), TaskError::Trap { .. }), "{failure}")
        }
        (7, Err(MapError::Task(failure))) => {
            assert_eq!(failure.error(), &TaskError::Guest { message: "refuse".into() });
        }
        (3 | 7, other) => panic!("{number}: {other:?}"),
        (_, result) => assert_eq!(result.expect("succeeds"), numbered(number)),
    };
    let map = || pool.map(&act, (0..200).map(input)).chunk_size(items(40));
    assert_eq!(map().enumerate().map(|(number, result)| check(number, result)).count(), 200);
    assert_eq!(map().unordered().map(|(number, result)| check(number, result)).count(), 200);
}

#[test]
fn options_go_to_each_task_and_a_tasks_timeout_is_not_the_maps() {
    let pool = build(builder(2).grace(PATIENCE));
    let act = act(&pool);
    let options = TaskOptions::new().label("batch 7").timeout(Duration::from_secs(1));
    let mut map = pool.map(&act, texts(&["e", "s", "e"])).options(options).timeout(PATIENCE);
    assert_eq!(map.next().expect("a result").expect("succeeds"), "e");
    match map.next().expect("a result").expect_err("it never ends") {
        MapError::Task(failure) => {
            assert_eq!(failure.label(), Some("batch 7"));
            assert_eq!(failure.error(), &TaskError::Timeout { limit: Duration::from_secs(1), killed: false });
        }
        other => panic!("{other}"),
    }
    assert_eq!(map.next().expect("a result").expect("succeeds"), "e");
    assert!(map.next().is_none());
}

// ── Its time ─────────────────────────────────────────────────────────────────

type Results = Box<dyn Iterator<Item = (usize, Result<Bytes, MapError>)> + Send>;

/// Either map, as pairs of a number and a result.
fn either(
    unordered: bool,
    map: wasmpool::Map<RawTask, impl Iterator<Item = Bytes> + Send + 'static>,
) -> Results {
    if unordered { Box::new(map.unordered()) } else { Box::new(map.enumerate()) }
}

#[test]
fn when_a_maps_time_is_up_it_yields_what_is_done_then_says_so_once() {
    let limit = Duration::from_secs(1);
    let inputs = texts(&["e0", "e1", "s", "e3", "e4"]);
    // In order, nothing can follow what is not done; else what can be done is.
    for (is_unordered, expected) in [(false, &[0, 1][..]), (true, &[0, 1, 3, 4])] {
        let pool = pool(2);
        let act = act(&pool);
        pool.prestart(2);
        eventually("both workers to be ready", || {
            let workers = pool.stats().workers;
            workers.len() == 2 && workers.iter().all(|worker| worker.state == WorkerState::Idle)
        });
        let mut map = either(is_unordered, pool.map(&act, inputs.clone()).timeout(limit));
        let mut done = Vec::new();
        let end = loop {
            match map.next().expect("an end") {
                (number, Ok(output)) => done.push((number, output)),
                (_, Err(end)) => break end,
            }
        };
        assert!(matches!(end, MapError::Timeout { limit: told } if told == limit), "{end}");
        assert_eq!(end.to_string(), "the map was not done within 1s");
        assert!(map.next().is_none() && map.next().is_none());
        done.sort();
        assert_eq!(done, expected.iter().map(|&number| (number, numbered(number))).collect::<Vec<_>>());
        pool.kill();
    }
}

#[test]
fn what_was_done_in_time_is_yielded_however_late_it_is_asked_for() {
    let limit = Duration::from_secs(2);
    for is_unordered in [false, true] {
        let pool = pool(1);
        let act = act(&pool);
        let before = running(&pool, &act);
        let inputs = (0..8).map(numbered).chain(texts(&["s"]));
        let mut map = either(is_unordered, pool.map(&act, inputs).timeout(limit));
        // Nothing is done before all is pulled.
        let first = std::thread::scope(|scope| {
            let first = scope.spawn(|| map.next());
            eventually("all to be pulled", || pool.stats().pending == 9);
            before.abort();
            first.join().expect("joins").expect("a result")
        });
        eventually("all but the last to be done", || pool.stats().ended.succeeded == 8);
        submit(&pool, &act, "e").result_timeout(limit).expect_err("the worker is busy");
        let rest: Vec<_> = map.by_ref().take(7).collect();
        for (number, (place, result)) in std::iter::once(first).chain(rest).enumerate() {
            assert_eq!((place, result.expect("done")), (number, numbered(number)));
        }
        assert!(is_timeout(&map.next().expect("an end").1));
        assert!(map.next().is_none());
        pool.kill();
    }
}

/// Waits until a map's time is up, and until all that it has submitted is done before each
/// further result: of an endless map, as many as it may have ahead can follow, and then its end.
fn ends_when_its_time_is_up(is_unordered: bool) {
    let (limit, ahead) = (ms(50), 4);
    let pool = pool(1);
    let act = act(&pool);
    let map = pool.map(&act, std::iter::repeat_with(|| numbered(0))).timeout(limit).buffer_size(items(ahead));
    // Not before the map's own time has begun: it is over no later than ours.
    let began = std::time::Instant::now();
    let mut map = either(is_unordered, map);
    let is_over = map.next().is_none_or(|(_, result)| is_timeout(&result));
    eventually("its time to be up", || began.elapsed() > limit);
    let submitted = pool.stats().submitted;
    let mut late = map.by_ref().take_while(|(_, result)| {
        eventually("all to be done", || pool.unresolved_tasks() == 0);
        !is_timeout(result)
    });
    assert!(is_over || late.by_ref().take(ahead + 1).count() <= ahead, "there is no end to it");
    assert_eq!(pool.stats().submitted, submitted, "nothing is pulled any more");
}

#[test]
fn an_endless_map_ends_when_its_time_is_up() {
    ends_when_its_time_is_up(false);
}

#[test]
fn an_endless_unordered_map_ends_when_its_time_is_up() {
    ends_when_its_time_is_up(true);
}

#[test]
fn a_maps_time_runs_while_it_waits_for_room_in_the_queue() {
    let pool = build(builder(1).queue_tasks_max(2));
    let act = act(&pool);
    let mut map = pool.map(&act, texts(&["s"; 5])).timeout(ms(100));
    let end = in_time("the map", move || map.next().expect("an end"));
    assert!(is_timeout(&end), "{end:?}");
    pool.kill();
}

// ── What it has ahead ────────────────────────────────────────────────────────

/// Inputs, and how many of them have been pulled.
fn counted(inputs: impl Iterator<Item = Bytes>) -> (impl Iterator<Item = Bytes>, Arc<AtomicUsize>) {
    let pulled = Arc::new(AtomicUsize::new(0));
    let counter = pulled.clone();
    let inputs = inputs.inspect(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    (inputs, pulled)
}

#[test]
fn inputs_are_pulled_up_to_the_buffers_size_and_no_further() {
    let pool = pool(2);
    let act = act(&pool);
    for (is_unordered, size) in [(false, 1), (true, 1), (false, 7), (true, 7)] {
        // Nothing comes of the first: it is as far ahead as it gets.
        let (inputs, pulled) = counted(std::iter::repeat_with(|| Bytes::from_static(b"s")));
        let options = TaskOptions::new().timeout(PATIENCE);
        let map = pool.map(&act, inputs).buffer_size(items(size)).options(options).timeout(ms(100));
        let mut map = either(is_unordered, map);
        assert_eq!(pulled.load(Ordering::SeqCst), 0, "nothing was asked for");
        assert!(is_timeout(&map.next().expect("an end").1));
        assert_eq!(pulled.load(Ordering::SeqCst), size);
        drop(map);
    }
    pool.kill();
}

#[test]
fn results_make_room_for_as_many_inputs() {
    let pool = pool(2);
    let act = act(&pool);
    for (is_unordered, size) in [(false, 1), (true, 1), (false, 7), (true, 7)] {
        let (inputs, pulled) = counted((0..).map(numbered));
        let mut map = either(is_unordered, pool.map(&act, inputs).buffer_size(items(size)));
        for yielded in 0..500 {
            let result = map.next().expect("a result").1;
            result.expect("succeeds");
            let pulled = pulled.load(Ordering::SeqCst);
            assert!(
                pulled > yielded && pulled <= yielded + size,
                "{pulled} pulled, {yielded} yielded before"
            );
        }
    }
}

#[test]
fn dropping_either_map_cancels_what_does_not_run_yet() {
    for is_unordered in [false, true] {
        let pool = pool(1);
        let act = act(&pool);
        let mut map = either(is_unordered, pool.map(&act, texts(&["s"; 10])).timeout(ms(100)));
        assert!(is_timeout(&map.next().expect("an end").1));
        eventually("the first to run", || pool.stats().running == 1);
        assert_eq!(pool.stats().pending, 9);
        drop(map);
        let stats = pool.stats();
        assert_eq!((stats.pending, stats.running, stats.ended.cancelled), (0, 1, 9));
        pool.kill();
    }
}

/// As above, where the map holds the pool's last handle: the pool waits for what runs, only.
fn cancels_before_the_pool_ends(is_unordered: bool) {
    let pool = builder(1).timeout(Duration::from_secs(2)).build().expect("builds");
    let act = act(&pool);
    let events = pool.events();
    let mut map = either(is_unordered, pool.map(&act, texts(&["s"; 10])).timeout(ms(100)));
    assert!(is_timeout(&map.next().expect("an end").1));
    eventually("the first to run", || pool.stats().running == 1);
    drop(pool);
    in_time("the drop", move || drop(map));
    let ends = events.filter_map(|event| match event.kind {
        EventKind::TaskFinished { outcome, .. } => Some(outcome),
        _ => None,
    });
    let ends: Vec<_> = ends.collect();
    let cancelled = ends.iter().filter(|end| **end == TaskOutcome::Cancelled).count();
    assert_eq!((ends.len(), cancelled), (10, 9), "{ends:?}");
}

#[test]
fn dropping_a_map_with_the_last_handle_of_its_pool_cancels_too() {
    cancels_before_the_pool_ends(false);
}

#[test]
fn dropping_an_unordered_map_with_the_last_handle_of_its_pool_cancels_too() {
    cancels_before_the_pool_ends(true);
}

/// Resident memory of this process, in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("reads");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

#[test]
fn a_hundred_thousand_items_leave_the_hosts_memory_flat() {
    // In a process of its own: other tests have a memory, too.
    if std::env::var_os("WASMPOOL_FLAT_CHILD").is_none() {
        let status = std::process::Command::new(std::env::current_exe().expect("a path"))
            .args(["--exact", "a_hundred_thousand_items_leave_the_hosts_memory_flat"])
            .env("WASMPOOL_FLAT_CHILD", "1")
            .status()
            .expect("runs");
        assert!(status.success());
        return;
    }
    let pool = pool(2);
    let act = act(&pool);
    for is_unordered in [false, true] {
        let endless = (0..).map(numbered);
        let map = either(is_unordered, pool.map(&act, endless).buffer_size(items(16)));
        let (mut early, mut grown) = (None, 0);
        for (count, (_, result)) in map.take(100_000).enumerate() {
            result.expect("succeeds");
            if count >= 10_000 && count % 1_000 == 0 {
                let resident = resident_kib();
                grown = grown.max(resident.saturating_sub(*early.get_or_insert(resident)));
            }
        }
        assert!(grown < 8 * 1024, "the host grew by {grown} KiB");
    }
}

// ── Iterators ────────────────────────────────────────────────────────────────

/// Runs either map over 200 inputs, with `step` called for each before it is handed over.
fn with_an_iterator(
    what: &'static str,
    builder: PoolBuilder,
    step: impl Fn(usize, &Pool, &RawTask) + Send + Sync + 'static,
) {
    let step = Arc::new(step);
    for is_unordered in [false, true] {
        let pool = build(builder.clone());
        let act = act(&pool);
        let (inner, task, step) = (pool.clone(), act.clone(), step.clone());
        let inputs = (0..200).map(move |number| {
            step(number, &inner, &task);
            numbered(number)
        });
        let map = either(is_unordered, pool.map(&act, inputs).buffer_size(items(16)));
        let mut results = in_time(what, move || map.collect::<Vec<_>>());
        results.sort_by_key(|(number, _)| *number);
        assert_eq!(results.len(), 200, "{what}");
        for (number, (place, result)) in results.into_iter().enumerate() {
            assert_eq!((place, result.expect("succeeds")), (number, numbered(number)), "{what}");
        }
    }
}

#[test]
fn an_iterator_may_submit_to_the_pool_and_wait_for_it() {
    for workers in [1, 2] {
        with_an_iterator("submitting", builder(workers).queue_tasks_max(4), |number, pool, act| {
            let another = pool.submit_bytes(act, numbered(number)).expect("submits");
            if number % 3 == 0 {
                assert_eq!(output(&another), numbered(number));
            }
        });
    }
}

#[test]
fn an_iterator_may_cancel_and_abort() {
    let earlier: Mutex<Option<Future>> = Mutex::new(None);
    with_an_iterator("cancelling", builder(2), move |number, pool, act| {
        let spin = submit(pool, act, "s");
        if let Some(earlier) = earlier.lock().expect("locks").replace(spin) {
            let stop = [TaskFuture::cancel, TaskFuture::abort][number % 2];
            if !stop(&earlier) {
                earlier.abort();
            }
        }
        if number == 199 {
            earlier.lock().expect("locks").take().expect("the last").abort();
        }
    });
}

#[test]
fn an_iterator_may_map_over_the_same_pool() {
    with_an_iterator("mapping", builder(1), |_, pool, act| {
        assert!(pool.map(act, (0..5).map(numbered)).all(|result| result.is_ok()));
    });
}

#[test]
fn an_iterator_may_drop_other_handles_of_the_pool() {
    for is_unordered in [false, true] {
        let pool = builder(2).build().expect("builds");
        let act = act(&pool);
        let events = pool.events();
        let mut handle = Some(pool.clone());
        let inputs = (0..200).map(move |number| {
            if number == 50 {
                drop(handle.take());
            }
            numbered(number)
        });
        let map = either(is_unordered, pool.map(&act, inputs).buffer_size(items(16)));
        drop(pool);
        let succeeded = in_time("the map", move || map.filter(|(_, result)| result.is_ok()).count());
        assert_eq!(succeeded, 200);
        assert_eq!(events.last().map(|event| event.kind), Some(EventKind::Stopped), "the map's was the last");
    }
}

/// A map whose iterator ends the pool half-way: each input has its result, or its error.
fn ends_in_an_iterator(end: fn(&Pool), may_lose: bool) {
    for is_unordered in [false, true] {
        let pool = pool(2);
        let act = act(&pool);
        let inner = pool.clone();
        let inputs = (0..100).map(move |number| {
            if number == 50 {
                end(&inner);
            }
            numbered(number)
        });
        let map = either(is_unordered, pool.map(&act, inputs).buffer_size(items(16)));
        let mut results = in_time("the map", move || map.collect::<Vec<_>>());
        results.sort_by_key(|(number, _)| *number);
        assert!(results.iter().map(|(number, _)| *number).eq(0..100));
        for (place, result) in results {
            match result {
                Ok(output) => assert_eq!(output, numbered(place)),
                Err(MapError::Submit(SubmitError::ShutDown { .. })) => assert!(place >= 50, "{place}"),
                Err(MapError::Task(failure)) => {
                    assert!(place < 50 && may_lose, "{place}: {failure}");
                    assert!(matches!(failure.error(), TaskError::Cancelled | TaskError::Broken(_)));
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(pool.unresolved_tasks(), 0);
    }
}

#[test]
fn an_iterator_may_shut_the_pool_down_or_kill_it() {
    ends_in_an_iterator(|pool| pool.shutdown(ShutdownMode::Finish), false);
    ends_in_an_iterator(|pool| pool.shutdown(ShutdownMode::CancelPending), true);
    ends_in_an_iterator(Pool::kill, true);
}

#[test]
fn an_iterator_may_terminate_the_pool() {
    (0..20).for_each(|_| ends_in_an_iterator(Pool::terminate, true));
}

#[test]
fn an_iterator_that_panics_costs_its_caller_one_result_and_nobody_else_any() {
    for is_unordered in [false, true] {
        let pool = pool(2);
        let act = act(&pool);
        let others: Vec<_> = (0..50).map(|_| submit(&pool, &act, "e")).collect();
        let inputs = (0..100).map(|number| {
            assert_ne!(number, 50, "as a test");
            numbered(number)
        });
        let mut map = either(is_unordered, pool.map(&act, inputs).buffer_size(items(16)));
        let (mut results, mut panics) = (Vec::new(), 0);
        loop {
            match catch_unwind(AssertUnwindSafe(|| map.next())) {
                Ok(None) => break,
                Ok(Some((_, result))) => results.push(result.expect("succeeds")),
                Err(_) => panics += 1,
            }
        }
        assert_eq!(panics, 1);
        results.sort();
        let mut expected: Vec<_> = (0..100).filter(|number| *number != 50).map(numbered).collect();
        expected.sort();
        assert_eq!(results, expected, "nothing that was pulled is lost");
        others.iter().for_each(|other| drop(output(other)));
        assert_eq!(output(&submit(&pool, &act, "e")), "e");
    }
}

// ── Done callbacks ───────────────────────────────────────────────────────────

#[test]
fn callbacks_may_submit_while_the_pool_breaks() {
    let pool = pool(1);
    let act = act(&pool);
    let spin = running(&pool, &act);
    let pending: Vec<_> = (0..100).map(|_| submit(&pool, &act, "e")).collect();
    let (told, refusals) = unbounded();
    for future in pending.iter().chain([&spin]) {
        let (pool, act, told) = (pool.clone(), act.clone(), told.clone());
        future.add_done_callback(move |result| {
            assert!(matches!(result.expect_err("broken").error(), TaskError::Broken(_)));
            let again = pool.submit_bytes(&act, "again");
            let at_once = pool.try_submit(&act, &"again".into(), TaskOptions::new());
            told.send((again.expect_err("broken"), at_once.expect_err("broken"))).expect("sends");
        });
    }
    signal(pool.worker_pids()[0], Signal::KILL);
    for _ in 0..101 {
        let refused = refusals.recv_timeout(PATIENCE).expect("called");
        assert!(matches!(refused, (SubmitError::Broken(_), SubmitError::Broken(_))), "{refused:?}");
    }
    assert!(pending.iter().all(TaskFuture::done));
    in_time("the end", move || drop(pool));
}

#[test]
fn a_callback_may_drop_the_last_handle_of_the_pool() {
    let pool = builder(2).build().expect("builds");
    let act = act(&pool);
    let events = pool.events();
    let spins = [0, 1].map(|_| submit(&pool, &act, "s"));
    let pending: Vec<_> = (0..50).map(|_| submit(&pool, &act, "e")).collect();
    let (called, calls) = unbounded();
    let owner = pool.clone();
    spins[0].add_done_callback(move |_| drop(owner));
    for future in &pending {
        let called = called.clone();
        future.add_done_callback(move |_| called.send(()).expect("sends"));
    }
    drop(pool);
    spins.iter().for_each(|spin| assert!(spin.abort()));
    for future in &pending {
        assert_eq!(output(future), "e", "what was submitted is finished");
        calls.recv_timeout(PATIENCE).expect("called");
    }
    assert_eq!(in_time("the pool", move || events.last()).expect("an event").kind, EventKind::Stopped);
}

#[test]
fn a_callback_may_end_the_pool() {
    let ends: [fn(&Pool); 4] = [
        |pool| pool.shutdown(ShutdownMode::Finish),
        |pool| assert!(pool.shutdown_timeout(ShutdownMode::CancelPending, PATIENCE)),
        Pool::terminate,
        Pool::kill,
    ];
    for end in ends {
        let pool = pool(1);
        let act = act(&pool);
        let first = running(&pool, &act);
        let pending: Vec<_> = (0..50).map(|_| submit(&pool, &act, "e")).collect();
        let (ended, is_ended) = unbounded();
        first.add_done_callback({
            let pool = pool.clone();
            move |_| {
                end(&pool);
                ended.send(pool.worker_pids()).expect("sends");
            }
        });
        first.abort();
        assert!(is_ended.recv_timeout(PATIENCE).expect("called").is_empty());
        assert!(pending.iter().all(TaskFuture::done));
        // And from outside, meanwhile and after.
        in_time("the end", move || drop(pool));
    }
}

#[test]
fn a_callback_may_wait_for_other_tasks_and_panic_and_the_next_still_run() {
    let pool = pool(1);
    let act = act(&pool);
    let first = running(&pool, &act);
    let (told, outputs) = unbounded();
    let earlier = Arc::new(submit(&pool, &act, "earlier"));
    first.add_done_callback({
        let (pool, act, told, earlier) = (pool.clone(), act.clone(), told.clone(), earlier.clone());
        move |_| {
            told.send(output(&earlier)).expect("sends");
            told.send(output(&submit(&pool, &act, "later"))).expect("sends");
            let mapped = pool.map(&act, texts(&["each"; 20])).filter(Result::is_ok).count();
            assert_eq!(mapped, 20);
            panic!("as a test");
        }
    });
    first.add_done_callback(move |_| told.send("next".into()).expect("sends"));
    first.abort();
    for expected in ["earlier", "later", "next"] {
        assert_eq!(outputs.recv_timeout(PATIENCE).expect("called"), expected);
    }
    assert_eq!(output(&submit(&pool, &act, "e")), "e");
}

// ── Wakers ───────────────────────────────────────────────────────────────────

type Action = Box<dyn FnOnce() + Send>;

/// Does something once when it is woken.
struct OnWake(Mutex<Option<Action>>);

impl Wake for OnWake {
    fn wake(self: Arc<Self>) {
        let action = self.0.lock().expect("locks").take();
        if let Some(action) = action {
            action();
        }
    }
}

/// Has `action` done by the waker of a future that is not done yet.
fn when_woken(future: &mut Future, action: impl FnOnce() + Send + 'static) {
    let waker = Waker::from(Arc::new(OnWake(Mutex::new(Some(Box::new(action))))));
    let polled = std::future::Future::poll(Pin::new(future), &mut Context::from_waker(&waker));
    assert!(polled.is_pending(), "it runs or waits");
}

#[test]
fn a_waker_may_submit_and_a_full_queue_refuses() {
    let pool = build(builder(1).queue_tasks_max(1));
    let act = act(&pool);
    let mut spin = running(&pool, &act);
    let (told, submitted) = unbounded();
    when_woken(&mut spin, {
        let (pool, act) = (pool.clone(), act.clone());
        // The first takes all the room there is, and does not end.
        move || ["s", "e"].into_iter().for_each(|what| drop(told.send(pool.submit_bytes(&act, what))))
    });
    spin.abort();
    let [first, second] = [0, 1].map(|_| submitted.recv_timeout(PATIENCE).expect("woken"));
    let first = first.expect("there is room");
    assert!(matches!(second.expect_err("full"), SubmitError::QueueFull { max: 1 }));
    first.abort();
    error(&first);
}

#[test]
fn wakers_may_submit_panic_or_drop_handles_while_the_pool_breaks() {
    let pool = builder(1).build().expect("builds");
    let act = act(&pool);
    let mut futures = vec![running(&pool, &act)];
    futures.extend((0..30).map(|_| submit(&pool, &act, "e")));
    let (told, woken) = unbounded();
    for (number, future) in futures.iter_mut().enumerate() {
        let (pool, act, told) = (pool.clone(), act.clone(), told.clone());
        when_woken(future, move || {
            let refused = pool.submit_bytes(&act, "e").expect_err("broken");
            told.send(matches!(refused, SubmitError::Broken(_))).expect("sends");
            match number % 3 {
                0 => drop(pool),
                1 => pool.shutdown(ShutdownMode::Finish),
                _ => panic!("as a test"),
            }
        });
    }
    let events = pool.events();
    signal(pool.worker_pids()[0], Signal::KILL);
    drop(pool);
    for _ in &futures {
        assert!(woken.recv_timeout(PATIENCE).expect("woken"));
    }
    futures.iter().for_each(|future| assert!(matches!(error(future), TaskError::Broken(_))));
    assert_eq!(in_time("the pool", move || events.last()).expect("an event").kind, EventKind::Stopped);
}

#[test]
fn a_waker_that_ends_the_pool_only_begins_it() {
    let ends: [fn(&Pool); 3] = [|pool| pool.shutdown(ShutdownMode::Finish), Pool::terminate, Pool::kill];
    for (number, end) in ends.into_iter().enumerate() {
        let pool = pool(1);
        let act = act(&pool);
        let mut spin = running(&pool, &act);
        let pending: Vec<_> = (0..20).map(|_| submit(&pool, &act, "e")).collect();
        let (told, returned) = unbounded();
        when_woken(&mut spin, {
            let pool = pool.clone();
            move || {
                end(&pool);
                told.send(()).expect("sends");
            }
        });
        spin.abort();
        returned.recv_timeout(PATIENCE).expect("it does not wait");
        in_time("the end", {
            let pool = pool.clone();
            move || pool.shutdown(ShutdownMode::Finish)
        });
        assert!(pending.iter().all(TaskFuture::done) && pool.worker_pids().is_empty());
        let succeeded = pending.iter().filter(|future| future.result().is_ok()).count();
        assert!(number > 0 || succeeded == 20, "a shutdown finishes what was submitted");
    }
}

#[test]
fn a_panicking_waker_costs_nobody_anything() {
    let pool = pool(1);
    let act = act(&pool);
    let spin = running(&pool, &act);
    let mut futures: Vec<_> = (0..100).map(|_| submit(&pool, &act, "e")).collect();
    for future in futures.iter_mut().step_by(3) {
        when_woken(future, || panic!("as a test"));
    }
    spin.abort();
    futures.iter().for_each(|future| assert_eq!(output(future), "e"));
    assert_eq!(output(&submit(&pool, &act, "e")), "e");
    assert_eq!((pool.stats().workers_died, pool.broken()), (0, None));
}

#[test]
fn a_waker_that_waits_for_a_task_does_not_hold_up_the_pool() {
    let pool = pool(1);
    let act = act(&pool);
    let mut spin = running(&pool, &act);
    let [awaited, other] = ["e0", "e1"].map(|what| submit(&pool, &act, what));
    let (told, is_woken) = unbounded();
    when_woken(&mut spin, move || {
        told.send(()).expect("sends");
        let _ = awaited.result_timeout(PATIENCE);
    });
    spin.abort();
    is_woken.recv_timeout(PATIENCE).expect("woken");
    assert!(matches!(other.result_timeout(PATIENCE / 6), Ok(Ok(_))), "the worker's answers are not heard");
}

#[test]
fn an_inputs_destructor_that_panics_costs_nobody_a_result() {
    struct Bomb;
    impl AsRef<[u8]> for Bomb {
        fn as_ref(&self) -> &[u8] {
            b"e"
        }
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("as a test");
        }
    }
    let pool = pool(1);
    let act = act(&pool);
    let bomb = pool.submit_bytes(&act, Bytes::from_owner(Bomb)).expect("submits");
    for future in [bomb, submit(&pool, &act, "e")] {
        let result = future.result_timeout(PATIENCE / 6).expect("it is resolved");
        assert_eq!(result.expect("succeeds"), "e");
    }
    assert_eq!(pool.broken(), None);
}

// ── A full queue ─────────────────────────────────────────────────────────────

#[test]
fn a_full_queue_refuses_those_who_do_not_wait_and_holds_up_those_who_do() {
    let pool = build(builder(1).queue_tasks_max(3));
    let act = act(&pool);
    let spin = running(&pool, &act);
    let pending = [0, 1].map(|_| submit(&pool, &act, "e"));
    let refused = || pool.try_submit(&act, &"e".into(), TaskOptions::new()).expect_err("full");
    let full = refused();
    assert!(matches!(full, SubmitError::QueueFull { max: 3 }));
    assert_eq!(full.to_string(), "the queue is full: 3 tasks are waiting or running");
    let (told, waited) = unbounded();
    for number in 0..4 {
        let (pool, act, told) = (pool.clone(), act.clone(), told.clone());
        std::thread::spawn(move || told.send(pool.submit_bytes(&act, numbered(number))));
    }
    assert!(waited.try_recv().is_err());
    // One goes, one comes.
    assert!(pending[0].cancel());
    let first = waited.recv_timeout(PATIENCE).expect("there is room").expect("submits");
    assert!(matches!(refused(), SubmitError::QueueFull { max: 3 }));
    assert_eq!((pool.stats().submitted, pool.unresolved_tasks()), (4, 3));
    assert!(waited.try_recv().is_err(), "for one");
    spin.abort();
    let later = [0, 1, 2].map(|_| waited.recv_timeout(PATIENCE).expect("there is room").expect("submits"));
    let mut outputs: Vec<_> = later.iter().chain([&first]).map(output).collect();
    outputs.sort();
    assert_eq!(outputs, (0..4).map(numbered).collect::<Vec<_>>());
    assert_eq!(pool.stats().submitted, 7, "what was refused does not count");
}

#[test]
fn those_who_wait_for_room_learn_of_the_end_of_the_pool() {
    let breakage: fn(&Pool) = |pool| signal(pool.worker_pids()[0], Signal::KILL);
    for (end, is_broken) in [(breakage, true), (Pool::kill as fn(&Pool), false)] {
        let pool = build(builder(1).queue_tasks_max(1));
        let act = act(&pool);
        let _spin = running(&pool, &act);
        let (told, waited) = unbounded();
        for _ in 0..3 {
            let (pool, act, told) = (pool.clone(), act.clone(), told.clone());
            std::thread::spawn(move || told.send(pool.submit_bytes(&act, "e")));
        }
        assert!(waited.try_recv().is_err());
        end(&pool);
        for _ in 0..3 {
            match waited.recv_timeout(PATIENCE).expect("it returns").expect_err("the pool is gone") {
                SubmitError::Broken(_) => assert!(is_broken),
                SubmitError::ShutDown { .. } => assert!(!is_broken),
                other => panic!("{other}"),
            }
        }
    }
}

/// Counts how often it is woken.
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn an_asynchronous_submission_waits_for_room_and_submits_nothing_if_dropped() {
    let pool = build(builder(1).queue_tasks_max(1));
    let act = act(&pool);
    let spin = running(&pool, &act);
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(count.clone());
    let mut context = Context::from_waker(&waker);
    let mut submit_async = |what: &'static str| {
        let mut submission = pool.submit_async(&act, &what.into(), TaskOptions::new());
        assert!(std::future::Future::poll(Pin::new(&mut submission), &mut context).is_pending());
        submission
    };
    drop(submit_async("dropped"));
    let mut submission = submit_async("e");
    assert_eq!((count.0.load(Ordering::SeqCst), pool.stats().submitted), (0, 1));
    spin.abort();
    eventually("the waker to be called", || count.0.load(Ordering::SeqCst) > 0);
    match std::future::Future::poll(Pin::new(&mut submission), &mut context) {
        Poll::Ready(Ok(future)) => assert_eq!(output(&future), "e"),
        other => panic!("{other:?}"),
    }
    assert_eq!(pool.stats().submitted, 2);
}

#[test]
fn a_submission_that_is_polled_over_and_over_keeps_no_heap_of_wakers() {
    let pool = build(builder(1).queue_tasks_max(1));
    let act = act(&pool);
    let _spin = running(&pool, &act);
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(count.clone());
    let mut submission = pool.submit_async(&act, &"e".into(), TaskOptions::new());
    for _ in 0..1_000 {
        let polled = std::future::Future::poll(Pin::new(&mut submission), &mut Context::from_waker(&waker));
        assert!(polled.is_pending());
    }
    assert!(Arc::strong_count(&count) < 10, "{} of them", Arc::strong_count(&count));
    pool.kill();
}
