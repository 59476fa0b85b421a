//! A map holds a bounded amount of memory, and its batches keep the bounds of single tasks.

use super::*;

/// An input of `s` loops for ever. Any other input is a number of KiB, and the answer has that length. It
/// logs nothing.
const LARGE_WAT: &str = r#"(module
    (memory (export "memory") 258)
    (func (export "wasmpool_abi_v1"))
    (func (export "wasmpool_alloc") (param i32) (result i32) i32.const 64)
    (func (export "large") (param $at i32) (param $len i32) (result i64)
        (if (i32.eq (i32.load8_u (local.get $at)) (i32.const 115)) (then (loop (br 0))))
        (i64.or (i64.shl (i64.const 65535) (i64.const 32))
                (i64.extend_i32_u (i32.add (i32.const 1) (i32.mul (i32.const 1024) (i32.load (local.get $at))))))))"#;

const MIB: u64 = 1024 * 1024;

fn kib(kib: u32) -> Bytes {
    kib.to_le_bytes().to_vec().into()
}

fn large(pool: &Pool) -> RawTask {
    support::raw(&support::wat(pool, LARGE_WAT), "large")
}

/// Waits until nothing more happens in the pool.
fn come_to_rest(pool: &Pool) {
    let mut before = (0, std::time::Instant::now());
    eventually("the pool to come to rest", || {
        let stats = pool.stats();
        let sum = stats.ended.succeeded + stats.submitted;
        if sum != before.0 {
            before = (sum, std::time::Instant::now());
        }
        before.1.elapsed() > ms(300)
    });
}

#[test]
fn results_that_wait_behind_a_slow_one_fill_their_account_and_no_more() {
    let pool = pool(2);
    let large = large(&pool);
    let spin: fn() -> Bytes = || Bytes::from_static(b"sss");
    // Each result is 4 MiB and may be 8, and the first one does not come.
    let inputs = std::iter::once(spin()).chain(std::iter::repeat_with(|| kib(4096)).take(300));
    let options = TaskOptions::new().output_bytes_max(8 * MIB as usize);
    let mut map = pool.map(&large, inputs).options(options).bytes_max(64 * MIB);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| (map.next(), map.collect::<Vec<_>>()));
        eventually("the first to run for a while", || {
            pool.stats().workers.iter().any(|worker| worker.task.is_some_and(|(_, ran)| ran > ms(200)))
        });
        come_to_rest(&pool);
        let stats = pool.stats();
        // The running task is charged 9 MiB, and so is the next one: at least (64 - 9 - 9) / 4 results are
        // there before it has no room.
        let held = stats.ended.succeeded;
        assert!((10..=14).contains(&held), "{held} results of 4 MiB wait where there is room for 64 MiB");
        assert_eq!(stats.pending, 0, "nothing waits that would have no room");
        let spinning = stats.workers.iter().filter_map(|worker| worker.task).max_by_key(|(_, ran)| *ran);
        assert!(pool.abort(spinning.expect("it runs").0));
        let (first, rest) = first.join().expect("maps");
        assert!(first.expect("a result").is_err());
        assert_eq!(
            rest.iter().filter(|result| result.as_ref().is_ok_and(|bytes| bytes.len() == 4 << 20)).count(),
            300
        );
    });
}

#[test]
fn results_that_nobody_asks_for_fill_their_account_and_no_more() {
    for is_unordered in [false, true] {
        let pool = build(builder(2).map_bytes_max(40 * MIB));
        let large = large(&pool);
        let inputs = std::iter::repeat_with(|| kib(2048)).take(200);
        let options = TaskOptions::new().output_bytes_max(4 * MIB as usize);
        let mut map = either(is_unordered, pool.map(&large, inputs).options(options));
        assert!(map.next().expect("a result").1.is_ok());
        come_to_rest(&pool);
        let done = pool.stats().ended.succeeded;
        assert!((12..=20).contains(&done), "{done} results of 2 MiB where there is room for 40 MiB");
        assert_eq!(map.filter(|(_, result)| result.is_ok()).count(), 199);
    }
}

/// The most that a task with an output limit of 64 KiB may return, as it is counted.
const ONE_RESULT: u64 = 64 * 1024 + MIB + 4096;

#[test]
fn an_input_that_never_has_room_is_an_error_of_its_own_and_the_others_run_one_by_one() {
    for (is_unordered, is_local) in [(false, false), (true, false), (false, true), (true, true)] {
        let pool = pool(2);
        let act = act(&pool);
        let mut most = 0;
        let is_large = |number: usize| number % 7 == 3;
        let long = || Bytes::from(vec![b'e'; 100]);
        let inputs = (0..300).map(move |number| if is_large(number) { long() } else { numbered(number) });
        let options = TaskOptions::new().output_bytes_max(1000);
        let map = match is_local {
            false => pool.map(&act, inputs),
            true => pool.map_local(&act, inputs),
        };
        let map = either(is_unordered, map.options(options).bytes_max(ONE_RESULT + 50));
        let mut count = 0;
        for (number, result) in map {
            count += 1;
            match result {
                Ok(output) => assert!(!is_large(number) && output == numbered(number)),
                Err(MapError::Submit(SubmitError::NoRoomInMap { bytes, max, .. })) => {
                    assert!(is_large(number), "{number}");
                    assert_eq!((bytes, max), (ONE_RESULT + 100, ONE_RESULT + 50));
                }
                Err(other) => panic!("{number}: {other}"),
            }
            let stats = pool.stats();
            most = most.max(stats.pending + stats.running);
        }
        assert_eq!(count, 300);
        assert!(most <= 1, "{most} at a time");
    }
}

#[test]
fn a_bound_below_one_result_lets_none_run() {
    for is_unordered in [false, true] {
        let pool = pool(1);
        let act = act(&pool);
        let map = either(is_unordered, pool.map(&act, (0..50).map(numbered)).bytes_max(1));
        let refused = map.filter(|(_, result)| {
            matches!(result, Err(MapError::Submit(SubmitError::NoRoomInMap { max: 1, .. })))
        });
        assert_eq!((refused.count(), pool.stats().submitted), (50, 0));
    }
}

#[test]
fn a_bound_of_one_result_has_tasks_run_one_by_one() {
    for is_unordered in [false, true] {
        let pool = pool(2);
        let act = act(&pool);
        let mut most = 0;
        let inputs = (0..300).map(numbered);
        let options = TaskOptions::new().output_bytes_max(1000);
        let map = pool.map(&act, inputs).options(options).bytes_max(ONE_RESULT + 4);
        let map = either(is_unordered, map);
        for (number, result) in map {
            assert_eq!(result.expect("succeeds"), numbered(number));
            let stats = pool.stats();
            most = most.max(stats.pending + stats.running);
        }
        assert!(most <= 1, "{most} at a time");
    }
}

/// The rest of a batch is handed back and done later once its answers have come to more than it is charged
/// for.
#[test]
fn a_batch_whose_answers_are_large_after_all_has_each_answer_once() {
    for (is_unordered, is_local) in [(false, false), (true, false), (false, true)] {
        let pool = pool(2);
        let large = large(&pool);
        // The tasks are short and small for long enough to be batched, and then large.
        let size = |number: u32| if number % 1_500 > 1_400 { 512 } else { 0 };
        let inputs = (0..6_000).map(size).map(kib);
        let map = match is_local {
            false => pool.map(&large, inputs),
            true => pool.map_local(&large, inputs),
        };
        let mut lengths: Vec<_> = either(is_unordered, map)
            .map(|(number, result)| {
                (number, result.unwrap_or_else(|error| panic!("{number}: {error}")).len())
            })
            .collect();
        lengths.sort_unstable();
        assert!(
            lengths.into_iter().eq((0..6_000).map(|number| (number as usize, size(number) as usize * 1024)))
        );
        let stats = pool.stats();
        assert_eq!((stats.submitted, stats.ended.succeeded), (6_000, 6_000), "nothing is begun twice");
        // A batch ends a moment after the last of its tasks.
        eventually("nothing to be left", || {
            let stats = pool.stats();
            (stats.pending, stats.running, pool.unresolved_tasks()) == (0, 0, 0)
        });
    }
}

#[test]
fn an_input_that_is_too_large_is_refused_in_a_batch_as_it_is_alone() {
    let pool = build(builder(2).input_bytes_max(8));
    let act = act(&pool);
    let is_large = |number: usize| number % 7 == 3 || number % 1_000 > 900;
    let input =
        move |number: usize| if is_large(number) { Bytes::from(vec![b'e'; 9]) } else { numbered(number) };
    for is_unordered in [false, true] {
        let mut results = BTreeMap::new();
        results.extend(either(is_unordered, pool.map(&act, (0..5_000).map(input))));
        assert_eq!(results.len(), 5_000);
        for (number, result) in results {
            match result {
                Ok(output) => assert!(!is_large(number) && output == numbered(number)),
                Err(MapError::Submit(SubmitError::InputTooLarge { bytes: 9, max: 8, .. })) => {
                    assert!(is_large(number));
                }
                Err(other) => panic!("{number}: {other}"),
            }
        }
    }
}

#[test]
fn a_batch_takes_the_room_of_all_its_tasks_in_the_queue() {
    for (is_unordered, max) in [(false, 4), (true, 4), (false, 100), (true, 100)] {
        let pool = build(builder(2).queue_tasks_max(max));
        let act = act(&pool);
        let mut most = 0;
        let map = either(is_unordered, pool.map(&act, (0..20_000).map(numbered)));
        for (count, (_, result)) in map.enumerate() {
            result.expect("succeeds");
            if count % 16 == 0 {
                let stats = pool.stats();
                most = most.max(stats.pending + stats.running).max(pool.unresolved_tasks());
            }
        }
        assert!(most <= max, "{most} wait or run where {max} may");
    }
}

/// The command prints its second argument.
const SAY_WAT: &str = r#"(module
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start") (local $at i32)
        (drop (call $sizes (i32.const 0) (i32.const 4)))
        (drop (call $args (i32.const 16) (i32.const 1024)))
        (local.set $at (i32.load (i32.const 20)))
        (i32.store (i32.const 64) (local.get $at))
        (i32.store (i32.const 68)
            (i32.sub (i32.sub (i32.add (i32.const 1024) (i32.load (i32.const 4))) (local.get $at)) (i32.const 1)))
        (drop (call $write (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 72)))))"#;

/// The task does nothing, and is so short that tasks would travel in batches.
const NOTHING_WAT: &str = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;

#[test]
fn commands_of_a_map_each_have_their_own_arguments() {
    let pool = pool(2);
    for (text, is_said) in [(SAY_WAT, true), (NOTHING_WAT, false)] {
        let command = support::wat(&pool, text).command().expect("a command");
        for is_unordered in [false, true] {
            let inputs = (0..5_000).map(|number| CommandInput::new().arg(format!("argument {number}")));
            let map = pool.map(&command, inputs);
            let results: BTreeMap<_, _> = match is_unordered {
                false => map.enumerate().collect(),
                true => map.unordered().collect(),
            };
            assert_eq!(results.len(), 5_000);
            for (number, result) in results {
                let output = result.unwrap_or_else(|error| panic!("{number}: {error}"));
                let expected = if is_said { format!("argument {number}") } else { String::new() };
                assert_eq!(output.stdout, expected);
            }
        }
    }
}
