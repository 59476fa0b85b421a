//! A task with a seed is a function of its module, its input and the seed: in every worker, after
//! whatever other tasks, the same bytes and the same fuel.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::support::{self, PATIENCE, build, builder, error, load, preview0, raw};
use wasmpool::error::SubmitError;
use wasmpool::module::ModuleOptions;
use wasmpool::task::CommandInput;
use wasmpool::{Bytes, Module, Pool, TaskError, TaskFuture, TaskOptions};

fn rounds() -> usize {
    std::env::var("WASMPOOL_DETERMINISTIC_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
}

fn deterministic() -> ModuleOptions {
    ModuleOptions::new().deterministic(true)
}

fn seeded(seed: u64) -> TaskOptions {
    TaskOptions::new().deterministic(seed).memory_bytes_max(8 << 20)
}

fn load_so(pool: &Pool, text: &str) -> Module {
    let wasm = wat::parse_str(preview0::guest(module_path!(), text)).expect("valid text");
    pool.load_with(&wasm, deterministic()).expect("loads")
}

/// Everything that differs from run to run where nothing is done about it: randomness, clocks, the bits of
/// NaNs, relaxed SIMD, and how far a memory grows. The results stand from 1024 on, 8 bytes each.
const EVERYTHING: &str = r#"(module
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_res_get" (func $resolution (param i32 i32) (result i32)))
    (memory (export "memory") 2 1000)
    (global $at (mut i32) (i32.const 1025))
    (func (export "wasmpool_abi_v1"))
    (func (export "wasmpool_alloc") (param i32) (result i32) (i32.const 16))
    (func $put (param i64)
        (i64.store (global.get $at) (local.get 0))
        (global.set $at (i32.add (global.get $at) (i32.const 8))))
    (func $f32 (param f32) (call $put (i64.extend_i32_u (i32.reinterpret_f32 (local.get 0)))))
    (func $f64 (param f64) (call $put (i64.reinterpret_f64 (local.get 0))))
    (func $v128 (param v128)
        (call $put (i64x2.extract_lane 0 (local.get 0)))
        (call $put (i64x2.extract_lane 1 (local.get 0))))
    (func $clock (param i32)
        (call $put (i64.extend_i32_u (call $resolution (local.get 0) (i32.const 512))))
        (call $put (i64.load (i32.const 512)))
        (call $put (i64.extend_i32_u (call $time (local.get 0) (i64.const 0) (i32.const 512))))
        (call $put (i64.load (i32.const 512))))
    (func (export "nans") (param $in i32) (param i32) (result i64)
        (local $zero f32) (local $zeros f64) (local $odd f32) (local $odds f64) (local $lanes v128)
        ;; From the input, so that nothing is computed when it is compiled.
        (local.set $zero (f32.load (local.get $in)))
        (local.set $zeros (f64.load (local.get $in)))
        (local.set $odd (f32.reinterpret_i32 (i32.or (i32.const 0xffa12345) (i32.load (local.get $in)))))
        (local.set $odds (f64.reinterpret_i64
            (i64.or (i64.const 0xfff123456789abcd) (i64.load (local.get $in)))))
        (local.set $lanes (f32x4.splat (local.get $zero)))
        (call $f32 (f32.div (local.get $zero) (local.get $zero)))
        (call $f64 (f64.div (local.get $zeros) (local.get $zeros)))
        (call $f32 (f32.sqrt (f32.sub (local.get $zero) (f32.const 1))))
        (call $f64 (f64.sub (f64.div (f64.const 1) (local.get $zeros)) (f64.div (f64.const 1) (local.get $zeros))))
        (call $f32 (f32.add (local.get $odd) (f32.const 1)))
        (call $f64 (f64.mul (local.get $odds) (f64.const 3)))
        (call $f32 (f32.min (local.get $odd) (local.get $zero)))
        (call $f64 (f64.max (local.get $odds) (local.get $zeros)))
        (call $f32 (f32.demote_f64 (local.get $odds)))
        (call $f64 (f64.promote_f32 (local.get $odd)))
        (call $f32 (f32.nearest (local.get $odd)))
        (call $f64 (f64.floor (local.get $odds)))
        (call $v128 (f32x4.div (local.get $lanes) (local.get $lanes)))
        (call $v128 (f64x2.sqrt (f64x2.splat (f64.sub (local.get $zeros) (f64.const 1)))))
        (call $done))
    (func (export "everything") (param $in i32) (param i32) (result i64) (local $lanes v128) (local $grown i32)
        (call $put (i64.extend_i32_u (call $random (i32.const 600) (i32.const 64))))
        (call $put (i64.load (i32.const 600)))
        (call $put (i64.load (i32.const 656)))
        (call $put (i64.extend_i32_u (call $random (i32.const 600) (i32.const 1))))
        (call $put (i64.load8_u (i32.const 600)))
        (call $clock (i32.const 0))
        (call $clock (i32.const 1))
        (call $clock (i32.const 0))
        (call $clock (i32.const 2))
        ;; What each CPU may do in its own way.
        (local.set $lanes (v128.load (i32.const 600)))
        (call $v128 (i8x16.relaxed_swizzle (local.get $lanes)
            (v128.const i8x16 0 15 16 17 127 128 200 255 1 2 3 4 5 6 7 8)))
        (call $v128 (i32x4.relaxed_trunc_f32x4_s (v128.const f32x4 nan 3e9 -3e9 1.5)))
        (call $v128 (f32x4.relaxed_min (v128.const f32x4 nan -0.0 0.0 1) (v128.const f32x4 1 0.0 -0.0 nan)))
        (call $v128 (f32x4.relaxed_madd (v128.const f32x4 1e30 1.0000001 3 nan)
            (v128.const f32x4 1e30 1.0000001 0.33333333 1) (v128.const f32x4 -inf -1 -1 0)))
        (call $v128 (i16x8.relaxed_dot_i8x16_i7x16_s (local.get $lanes) (v128.const i64x2 -1 -1)))
        ;; How often it grows by 17 pages, and what it is told then.
        (block $full (loop $more
            (local.set $grown (memory.grow (i32.const 17)))
            (br_if $full (i32.eq (local.get $grown) (i32.const -1)))
            (br $more)))
        (call $put (i64.extend_i32_u (memory.size)))
        ;; Bytes that random numbers choose decide how much is computed.
        (local.set $grown (i32.load16_u (i32.const 600)))
        (block $out (loop $more
            (br_if $out (i32.eqz (local.get $grown)))
            (local.set $grown (i32.sub (local.get $grown) (i32.const 1)))
            (br $more)))
        (call $done))
    (func $done (result i64)
        (i32.store8 (i32.const 1024) (i32.const 0))
        (i64.or (i64.const 0x40000000000) (i64.extend_i32_u (i32.sub (global.get $at) (i32.const 1024))))))"#;

fn words(output: &Bytes) -> Vec<u64> {
    output.chunks(8).map(|word| u64::from_le_bytes(word.try_into().expect("whole words"))).collect()
}

fn done(future: &TaskFuture<Bytes>) -> (Bytes, u64) {
    let output = future.result_timeout(PATIENCE).expect("in time").expect("runs");
    (output, future.report().and_then(|report| report.fuel_used).expect("metered"))
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_fuel_in_every_worker_and_pool_and_after_other_tasks() {
    let mut seen = HashSet::new();
    let mut pids = HashSet::new();
    let mut others = HashSet::new();
    for round in 0..3 {
        let pool = build(builder(3).prefetch_max(round));
        let everything = raw(&load_so(&pool, EVERYTHING), "everything");
        let faults = pool.load_file_with(support::prebuilt("faults"), deterministic()).expect("loads");
        let tasks = ["hash_order", "clocks", "panic", "ok"].map(|name| raw(&faults, name));
        let input = Bytes::from_static(&[0; 16]);
        for _ in 0..rounds().div_ceil(3) {
            let mut futures = Vec::new();
            for at in 0..4 {
                // Others in between, with seeds and without.
                let other = Bytes::from(postcard::to_stdvec(&9_u64).expect("encodes"));
                pool.submit_with(&tasks[at], &other, seeded(at as u64)).expect("submits");
                pool.submit(&tasks[3], &Bytes::new()).expect("submits");
                futures.push(pool.submit_with(&everything, &input, seeded(7)).expect("submits"));
                let unseeded = pool.submit(&everything, &input).expect("submits");
                others.insert(done(&unseeded).0.slice(8..24));
            }
            for future in &futures {
                seen.insert(done(future));
                pids.insert(future.report().and_then(|report| report.worker_pid));
            }
        }
    }
    assert_eq!(seen.len(), 1, "one answer and one amount of fuel: {seen:?}");
    assert!(pids.len() > 3, "of several workers and pools");
    assert_eq!(others.len(), 3 * 4 * rounds().div_ceil(3), "without a seed none came twice");
}

#[test]
fn another_seed_gives_other_randomness_and_nothing_else() {
    let pool = support::pool(2);
    let everything = raw(&load_so(&pool, EVERYTHING), "everything");
    let input = Bytes::from_static(&[0; 16]);
    let mut seen = HashSet::new();
    for seed in (0..50).chain([u64::MAX, u64::MAX - 1, 1 << 63]) {
        let (output, fuel) = done(&pool.submit_with(&everything, &input, seeded(seed)).expect("submits"));
        let words = words(&output);
        assert!(seen.insert((words[1], words[2])) && fuel > 0);
        // Wall clock, monotonic clock, and the wall clock again: each one step later.
        let epoch = 1_577_836_800_000_000_000;
        assert_eq!(words[5..13], [0, 1_000, 0, epoch + 1_000, 0, 1_000, 0, 2_000]);
        assert_eq!(words[13..17], [0, 1_000, 0, epoch + 3_000]);
        // 8 MiB are 128 pages: twice 1, and 7 times 17.
        assert_eq!(words.last(), Some(&121));
    }
}

#[test]
fn operations_make_one_nan_only() {
    let pool = support::pool(1);
    let input = Bytes::from_static(&[0; 16]);
    let nans = raw(&load_so(&pool, EVERYTHING), "nans");
    let (output, _) = done(&pool.submit_with(&nans, &input, seeded(1)).expect("submits"));
    let single = 0x7fc0_0000_u64;
    let double = 0x7ff8_0000_0000_0000_u64;
    let singles = single << 32 | single;
    let doubles = double;
    let expected: Vec<_> =
        [single, double].repeat(6).into_iter().chain([singles, singles, doubles, doubles]).collect();
    assert_eq!(words(&output), expected);
    // Otherwise they are the CPU's: this test would see nothing.
    let plain = raw(&support::wat(&pool, EVERYTHING), "nans");
    let output = pool.submit(&plain, &input).expect("submits").result().expect("runs");
    assert_ne!(words(&output), expected);
}

#[test]
fn programs_of_the_standard_library_repeat_themselves() {
    let pools = [support::pool(1), support::pool(2)];
    let mut orders = HashSet::new();
    let mut by_seed = HashSet::new();
    let mut times = HashSet::new();
    for pool in &pools {
        let faults = pool.load_file_with(support::prebuilt("faults"), deterministic()).expect("loads");
        let hash_order = faults.task::<u32, Vec<u32>>("hash_order").expect("types agree");
        let clocks = faults.task::<u64, Vec<u64>>("clocks").expect("types agree");
        for _ in 0..10 {
            let order = pool.submit_with(&hash_order, &100, seeded(1)).expect("submits");
            orders.insert(order.result().expect("runs"));
            let time = pool.submit_with(&clocks, &5, seeded(1)).expect("submits");
            times.insert(time.result().expect("runs"));
        }
        for seed in 0..20 {
            let order = pool.submit_with(&hash_order, &100, seeded(seed)).expect("submits");
            by_seed.insert(order.result().expect("runs"));
        }
    }
    assert_eq!((orders.len(), by_seed.len(), times.len()), (1, 20, 1), "{times:?}");
    let time = times.into_iter().next().expect("one");
    assert_eq!(time[0], 1_577_836_800_000_001_000, "the first reading");
    assert!((5_000_000..5_010_000).contains(&time[2]), "5 ms and a few readings: {time:?}");
    assert!(time[1] - time[0] > time[2], "{time:?}");
}

/// Sleeps and polls, each by a subscription of its own kind; then says what it was told, and when.
const SLEEPER: &str = r#"(module
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 4)
    (global $out (mut i32) (i32.const 65536))
    (func $put (param i64)
        (i64.store (global.get $out) (local.get 0))
        (global.set $out (i32.add (global.get $out) (i32.const 8))))
    ;; At 1024 + 48 n: its number, its tag, a clock or descriptor, a timeout, flags.
    (func $subscribe (param $n i32) (param $tag i32) (param $id i32) (param $timeout i64) (param $flags i32)
        (local $at i32)
        (local.set $at (i32.add (i32.const 1024) (i32.mul (local.get $n) (i32.const 48))))
        (i64.store (local.get $at) (i64.extend_i32_u (i32.add (i32.const 70) (local.get $n))))
        (i64.store offset=8 (local.get $at) (i64.extend_i32_u (local.get $tag)))
        (i32.store offset=16 (local.get $at) (local.get $id))
        (i64.store offset=24 (local.get $at) (local.get $timeout))
        (i64.store offset=40 (local.get $at) (i64.extend_i32_u (local.get $flags))))
    ;; The error, how many are ready, of the first and second the number, and the time after.
    (func $poll_and_say (param $count i32)
        (memory.fill (i32.const 8192) (i32.const 0) (i32.const 128))
        (i32.store (i32.const 512) (i32.const -1))
        (call $put (i64.extend_i32_u
            (call $poll (i32.const 1024) (i32.const 8192) (local.get $count) (i32.const 512))))
        (call $put (i64.extend_i32_u (i32.load (i32.const 512))))
        (call $put (i64.load (i32.const 8192)))
        (call $put (i64.load (i32.const 8224)))
        (drop (call $time (i32.const 1) (i64.const 0) (i32.const 512)))
        (call $put (i64.load (i32.const 512))))
    (func (export "_start")
        (call $subscribe (i32.const 0) (i32.const 0) (i32.const 1) (i64.const 3600000000000) (i32.const 0))
        (call $poll_and_say (i32.const 1))
        ;; The earlier of two; then both at the same time, absolute on either clock.
        (call $subscribe (i32.const 1) (i32.const 0) (i32.const 0) (i64.const 1000000) (i32.const 0))
        (call $poll_and_say (i32.const 2))
        (call $subscribe (i32.const 0) (i32.const 0) (i32.const 1) (i64.const 7200000000000) (i32.const 1))
        (call $subscribe (i32.const 1) (i32.const 0) (i32.const 0) (i64.const 1577844000000000000) (i32.const 1))
        (call $poll_and_say (i32.const 2))
        ;; In the past.
        (call $poll_and_say (i32.const 2))
        ;; A descriptor is ready, so the sleep does not happen.
        (call $subscribe (i32.const 0) (i32.const 0) (i32.const 1) (i64.const 3600000000000) (i32.const 0))
        (call $subscribe (i32.const 1) (i32.const 2) (i32.const 1) (i64.const 0) (i32.const 0))
        (call $poll_and_say (i32.const 2))
        (call $subscribe (i32.const 1) (i32.const 1) (i32.const 0) (i64.const 0) (i32.const 0))
        (call $poll_and_say (i32.const 2))
        ;; Errors: to read from stdout, no descriptor, no such clock, no such kind, none at all.
        (call $subscribe (i32.const 0) (i32.const 1) (i32.const 1) (i64.const 0) (i32.const 0))
        (call $poll_and_say (i32.const 1))
        (call $subscribe (i32.const 0) (i32.const 2) (i32.const 9) (i64.const 0) (i32.const 0))
        (call $poll_and_say (i32.const 1))
        (call $subscribe (i32.const 0) (i32.const 0) (i32.const 2) (i64.const 0) (i32.const 0))
        (call $poll_and_say (i32.const 1))
        (call $subscribe (i32.const 0) (i32.const 3) (i32.const 0) (i64.const 0) (i32.const 0))
        (call $poll_and_say (i32.const 1))
        (call $poll_and_say (i32.const 0))
        ;; For ever: to the end of time, which stands still from then on.
        (call $subscribe (i32.const 0) (i32.const 0) (i32.const 1) (i64.const -1) (i32.const 0))
        (call $poll_and_say (i32.const 1))
        (call $poll_and_say (i32.const 1))
        (i32.store (i32.const 0) (i32.const 65536))
        (i32.store (i32.const 4) (i32.sub (global.get $out) (i32.const 65536)))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

#[test]
fn a_sleep_sets_the_clock_forward_and_does_not_wait() {
    let pool = support::pool(1);
    let command = load_so(&pool, SLEEPER).command().expect("a command");
    let began = Instant::now();
    let output = pool.submit_with(&command, &CommandInput::new(), seeded(1)).expect("submits").result();
    let said = words(&output.expect("runs").stdout);
    assert!(began.elapsed() < Duration::from_secs(60), "it slept");
    let said: Vec<_> = said.chunks(5).collect();
    let hour = 3_600_000_000_000_u64;
    assert_eq!(said[0][..4], [0, 1, 70, 0]);
    assert!((hour..hour + 100_000).contains(&said[0][4]), "{said:?}");
    assert_eq!(said[1][..4], [0, 1, 71, 0], "the earlier one alone");
    assert!((hour + 1_000_000..hour + 1_100_000).contains(&said[1][4]), "{said:?}");
    assert_eq!(said[2][..4], [0, 2, 70, 71], "1577844000 is two hours later");
    assert!((2 * hour..2 * hour + 100_000).contains(&said[2][4]), "{said:?}");
    assert_eq!(said[3][..4], [0, 2, 70, 71], "both are past");
    for ready in &said[4..6] {
        assert_eq!(ready[..4], [0, 1, 71, 0], "the descriptor alone");
        assert!(ready[4] < 2 * hour + 200_000, "no time passed: {said:?}");
    }
    let badf = 8;
    let inval = 28;
    let none = u64::from(u32::MAX);
    let errors: Vec<_> = said[6..11].iter().map(|said| (said[0], said[1])).collect();
    assert_eq!(errors, [(badf, none), (badf, none), (inval, none), (inval, none), (inval, none)]);
    let end = i64::MAX as u64 - 1_577_836_800_000_000_000;
    assert_eq!((said[11], said[12]), (&[0, 1, 70, 0, end][..], &[0, 1, 70, 0, end][..]));
}

#[test]
fn endless_sleeps_and_waits_end_by_fuel_or_timeout() {
    const NAPS: &str = r#"(module
        (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "_start")
            (i32.store (i32.const 16) (i32.const 1))
            (i64.store (i32.const 24) (i64.const 3600000000000))
            (loop (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128))) (br 0))))"#;
    let pool = support::pool(1);
    let naps = load_so(&pool, NAPS).command().expect("a command");
    let mut used = HashSet::new();
    for _ in 0..20 {
        let future = pool.submit_with(&naps, &CommandInput::new(), seeded(1).fuel(100_000)).expect("submits");
        assert!(matches!(error(&future), TaskError::Fuel { limit: 100_000, .. }));
        used.insert(future.report().and_then(|report| report.fuel_used));
    }
    assert_eq!(used.len(), 1);
    let timeout = Duration::from_millis(20);
    let future = pool.submit_with(&naps, &CommandInput::new(), seeded(1).timeout(timeout)).expect("submits");
    assert_eq!(error(&future), TaskError::Timeout { limit: timeout, killed: false });
    // A loop that waits for a second to pass, by a million readings.
    const WAIT: &str = r#"(module
        (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "_start") (loop
            (drop (call $time (i32.const 1) (i64.const 0) (i32.const 0)))
            (br_if 0 (i64.lt_u (i64.load (i32.const 0)) (i64.const 1000000000))))))"#;
    let wait = load_so(&pool, WAIT).command().expect("a command");
    let future = pool.submit_with(&wait, &CommandInput::new(), seeded(1)).expect("submits");
    future.result_timeout(PATIENCE).expect("in time").expect("time passed");
}

#[test]
fn failures_repeat_themselves_as_well() {
    let pools = [support::pool(1), support::pool(1)];
    let mut seen = HashSet::new();
    for pool in &pools {
        let faults = pool.load_file_with(support::prebuilt("faults"), deterministic()).expect("loads");
        for _ in 0..5 {
            for name in ["stack_overflow", "memory_bomb", "table_bomb", "unreachable"] {
                let future =
                    pool.submit_with(&raw(&faults, name), &Bytes::new(), seeded(3)).expect("submits");
                let error = error(&future);
                seen.insert((
                    name,
                    format!("{error:?}"),
                    future.report().and_then(|report| report.fuel_used),
                ));
            }
        }
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert!(seen.iter().all(|(_, _, fuel)| fuel.is_some()));
}

#[test]
fn a_seed_wants_a_module_that_was_loaded_for_it() {
    let pool = support::pool(1);
    let input = Bytes::new();
    let metered = |on| ModuleOptions::new().metered(on);
    for options in [metered(false), metered(true)] {
        let module = pool.load_file_with(support::prebuilt("echo"), options).expect("loads");
        let refused = pool.submit_with(&raw(&module, "echo"), &input, seeded(1)).expect_err("no such code");
        assert!(
            matches!(&refused, SubmitError::NotDeterministic { task, .. } if task == "echo"),
            "{refused}"
        );
        assert!(refused.to_string().contains("loaded to be `deterministic`"), "{refused}");
    }
    let module = pool.load_file_with(support::prebuilt("echo"), deterministic()).expect("loads");
    let options = seeded(1).fuel(1_000_000);
    let future = pool.submit_with(&raw(&module, "echo"), &input, options).expect("deterministic is metered");
    assert_eq!(future.result().expect("runs"), input);
    // A pool's default is held to the same.
    let pool = builder(1).task_defaults(seeded(5)).build().expect("builds");
    let plain = load(&pool, "echo");
    let refused = pool.submit(&raw(&plain, "echo"), &input).expect_err("no such code");
    assert!(matches!(refused, SubmitError::NotDeterministic { .. }));
    // The three kinds of code of one module are three modules, side by side.
    let three = [metered(false), metered(true), deterministic()]
        .map(|options| pool.load_file_with(support::prebuilt("echo"), options).expect("loads"));
    let kinds = three.each_ref().map(|module| {
        let description = module.description();
        (description.metered, description.deterministic)
    });
    assert_eq!(kinds, [(false, false), (true, false), (true, true)]);
}
