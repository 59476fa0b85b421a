//! Inputs that are borrowed, and options in one way.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use wasmpool::module::{Callable, Digest};
use wasmpool::{Bytes, Schema, TaskError, TaskOptions};

use crate::support::{load, pool, raw};

#[derive(serde::Deserialize, Schema)]
struct Counts {
    lines: u64,
    words: u64,
    bytes: u64,
    distinct: u64,
    top: Vec<(String, u64)>,
}

#[test]
fn a_task_takes_what_it_says_and_each_borrowed_form_of_it() {
    let pool = pool(1);
    let count = load(&pool, "word_count").task::<Vec<u8>, Counts>("count").expect("types agree");
    let text = b"to be or not\n";
    let owned = text.to_vec();
    let futures = [
        pool.submit(&count, &owned),
        pool.submit(&count, text),
        pool.submit(&count, &text[..]),
        pool.submit(&count, &&text[..]),
        pool.submit(&count, &Box::new(owned.clone())),
        pool.submit(&count, &Rc::new(owned.clone())),
        pool.submit(&count, &Arc::new(owned.clone())),
        pool.task(&count).submit(text),
    ];
    for future in futures {
        let counts = future.expect("submits").result().expect("counts");
        let Counts { lines, words, bytes, distinct, top } = counts;
        assert_eq!((lines, words, bytes, distinct, top.len()), (1, 4, text.len() as u64, 4, 4));
    }
    let mapped = pool.map_local(&count, [&text[..], b"a b"]).map(|counts| counts.expect("counts").words);
    assert_eq!(mapped.collect::<Vec<_>>(), [4, 2]);
    // Numbers need no suffix, and a reference to a reference is the same input.
    let primes = load(&pool, "primes").task::<u64, u64>("count").expect("types agree");
    assert_eq!(pool.submit(&primes, &10).expect("submits").result().expect("counts"), 4);
    assert_eq!(pool.submit(&primes, &&10).expect("submits").result().expect("counts"), 4);
    let numbers = [10, 20];
    let counts = pool.map_local(&primes, &numbers).map(|count| count.expect("counts"));
    assert_eq!(counts.collect::<Vec<_>>(), [4, 8]);
}

#[test]
fn a_task_of_strings_takes_str() {
    let pool = pool(1);
    let table = pool.share(Bytes::from_static(b"a\tone\nb\ttwo\n")).expect("shares");
    let find = load(&pool, "lookup").task::<String, Option<String>>("find").expect("types agree");
    let find = pool.task(&find).shared(&table);
    assert_eq!(find.submit("b").expect("submits").result().expect("finds").as_deref(), Some("two"));
    assert_eq!(
        find.submit(&"a".to_string()).expect("submits").result().expect("finds").as_deref(),
        Some("one")
    );
    let found = find.map(["a", "c"]).map(|found| found.expect("finds"));
    assert_eq!(found.collect::<Vec<_>>(), [Some("one".to_string()), None]);
}

#[test]
fn an_untyped_task_takes_bytes_of_every_kind() {
    let pool = pool(1);
    let echo = raw(&load(&pool, "echo"), "echo");
    let long = "x".repeat(10_000);
    for future in [
        pool.submit(&echo, "a"),
        pool.submit(&echo, b"a"),
        pool.submit(&echo, &b"a"[..]),
        pool.submit(&echo, &vec![b'a']),
        pool.submit(&echo, &"a".to_string()),
        pool.submit(&echo, &Bytes::from_static(b"a")),
        pool.submit_bytes(&echo, "a"),
    ] {
        assert_eq!(future.expect("submits").result().expect("echoes"), "a");
    }
    assert_eq!(pool.submit(&echo, &long).expect("submits").result().expect("echoes"), long);
}

#[test]
fn each_way_to_give_options_gives_the_same() {
    let pool = pool(1);
    let module = load(&pool, "faults");
    let endless = module.raw_task("endless_loop").expect("there is");
    let limit = Duration::from_millis(20);
    let options = TaskOptions::new().timeout(limit).label("one");
    let endless = pool.task(&endless).timeout(limit).label("one");
    let mut failures = vec![
        endless.submit("").expect("submits").failure(),
        endless.try_submit("").expect("submits").failure(),
        smol::block_on(endless.submit_async("")).expect("submits").failure(),
        endless.clone().label("another").options(options.clone()).submit("").expect("submits").failure(),
    ];
    failures.extend(endless.map([""]).map(|result| match result {
        Err(wasmpool::error::MapError::Task(failure)) => Some(failure),
        _ => None,
    }));
    assert_eq!(failures.len(), 5);
    for failure in failures {
        let failure = failure.expect("it has a timeout");
        assert_eq!((failure.kind(), failure.label()), ("timeout", Some("one")), "{failure}");
        assert!(matches!(failure.error(), TaskError::Timeout { limit: at, .. } if *at == limit));
    }
}

/// A bound is enough for generic code: what a task takes is an input of it.
fn all<C: Callable<Output = u64>>(pool: &wasmpool::Pool, task: &C, inputs: &[C::Input]) -> u64 {
    let futures: Vec<_> = inputs.iter().map(|input| pool.submit(task, input).expect("submits")).collect();
    futures.iter().map(|future| future.result().expect("a number")).sum()
}

#[test]
fn generic_code_names_what_a_task_takes_and_returns() {
    let pool = pool(1);
    let primes = load(&pool, "primes").task::<u64, u64>("count").expect("types agree");
    assert_eq!(all(&pool, &primes, &[10, 20]), 12);
}

#[test]
fn modules_are_told_apart_and_digests_read_from_text() {
    let pool = pool(1);
    let (echo, primes) = (load(&pool, "echo"), load(&pool, "primes"));
    assert!(echo == load(&pool, "echo") && echo != primes);
    let digests = HashSet::from([echo.digest(), primes.digest(), echo.digest()]);
    assert_eq!(digests.len(), 2);
    let text = echo.digest().to_string();
    assert_eq!(text.parse::<Digest>(), Ok(echo.digest()));
    assert_eq!(text.to_uppercase().parse::<Digest>(), Ok(echo.digest()));
    for wrong in ["", &text[1..], &format!("{text}0"), &format!("g{}", &text[1..]), &"é".repeat(32)] {
        let error = wrong.parse::<Digest>().expect_err(wrong);
        assert_eq!(error.to_string(), "a module's digest is 64 hex digits");
    }
}

#[test]
fn tuples_of_up_to_sixteen_are_arguments() {
    use wasmpool::module::{Args, TypeSchema};
    type Seven = Args<(u8, u8, u8, u8, u8, u8, u8)>;
    type Sixteen = (u8, u16, u32, u64, i8, i16, i32, i64, bool, char, f32, f64, String, u8, u8, u8);
    #[derive(wasmpool::Schema)]
    #[expect(dead_code, reason = "its type is looked at")]
    struct Same(u8, u16, u32, u64, i8, i16, i32, i64, bool, char, f32, f64, String, u8, u8, u8);
    let schema = TypeSchema::of::<Args<Sixteen>>();
    assert!(schema.is_compatible(&TypeSchema::of::<Same>()));
    assert!(!schema.is_compatible(&TypeSchema::of::<Seven>()));
    // A task of this type takes the tuple as its input.
    fn takes(pool: &wasmpool::Pool, task: &wasmpool::Task<Seven, u64>) {
        let _ = pool.submit(task, &(1, 2, 3, 4, 5, 6, 7));
        let _ = pool.submit(task, &Args((1, 2, 3, 4, 5, 6, 7)));
    }
    let _ = takes;
    let args = Args((1_u8, 300_u16, "x"));
    assert_eq!(serde_json::to_value(args).expect("is data"), serde_json::json!([1, 300, "x"]));
}
