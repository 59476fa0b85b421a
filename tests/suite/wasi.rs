//! Tests the defaults of a guest: no file, no network, no argument, no variable, no input, coarse clocks,
//! true randomness, and outputs in memory. It also tests what one call may ask for.
//!
//! These tests are run twice: with guests for WASI preview 1, and with guests for preview 0.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::support::{self, PATIENCE, builder, error, load, pool, preview0, raw};
use wasmpool::error::SubmitError;
use wasmpool::module::{ModuleOptions, RawTask};
use wasmpool::task::{CommandInput, CommandOutput};
use wasmpool::{Bytes, Command, Pool, TaskError, TaskFuture, TaskOptions};

/// WASI's error numbers:
/// <https://github.com/WebAssembly/WASI/blob/wasi-0.1/preview1/docs.md#errno>.
const BADF: u32 = 8;
const INVAL: u32 = 28;
const NOMEM: u32 = 48;
const NOTSOCK: u32 = 57;
const NOTSUP: u32 = 58;

/// All of WASI that the tests call, and what they share: `$say` puts a number into the output.
const PRELUDE: &str = r#"
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_res_get" (func $resolution (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_prestat_dir_name" (func $prestat_name (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_readdir" (func $readdir (param i32 i32 i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_filestat_get" (func $filestat (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_renumber" (func $renumber (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_open"
        (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_create_directory" (func $mkdir (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_symlink" (func $symlink (param i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_raise" (func $raise (param i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "sock_accept" (func $accept (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "sock_recv" (func $recv (param i32 i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "sock_send" (func $send (param i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "sock_shutdown" (func $shutdown (param i32 i32) (result i32)))
    (func (export "wasmpool_abi_v1"))
    (func (export "wasmpool_alloc") (param i32) (result i32) (i32.const 16))
    (global $out (mut i32) (i32.const 1025))
    (func $say (param i32)
        (i32.store (global.get $out) (local.get 0))
        (global.set $out (i32.add (global.get $out) (i32.const 4))))
    (func $said (result i64)
        (i64.or (i64.const 0x40000000000) (i64.extend_i32_u (i32.sub (global.get $out) (i32.const 1024)))))
    (data (i32.const 900) "/etc/passwd")"#;

/// A task `probe` with this body, in a memory of so many pages.
fn probe(pool: &Pool, pages: u32, body: &str) -> RawTask {
    probe_with(pool, pages, body, ModuleOptions::new())
}

fn probe_with(pool: &Pool, pages: u32, body: &str, options: ModuleOptions) -> RawTask {
    let text = format!(
        r#"(module {PRELUDE} (memory (export "memory") {pages})
            (func (export "probe") (param $in i32) (param $len i32) (result i64) (local $n i32) (local $at i32)
                {body} (call $said)))"#
    );
    let wasm = wat::parse_str(preview0::guest(module_path!(), &text)).expect("valid text");
    raw(&pool.load_with(&wasm, options).expect("loads"), "probe")
}

fn run(pool: &Pool, task: &RawTask, options: TaskOptions) -> Result<Vec<u32>, TaskError> {
    let future = pool.submit_with(task, &Bytes::new(), options).expect("submits");
    let output =
        future.result_timeout(PATIENCE).expect("in time").map_err(|failure| failure.error().clone())?;
    Ok(output.chunks(4).map(|number| u32::from_le_bytes(number.try_into().expect("whole"))).collect())
}

/// Returns what a probe says under the defaults.
fn says(pages: u32, body: &str) -> Vec<u32> {
    let pool = pool(1);
    let task = probe(&pool, pages, body);
    run(&pool, &task, TaskOptions::new()).expect("runs")
}

fn command(pool: &Pool, body: &str) -> Command {
    let text = format!(
        r#"(module {PRELUDE} (memory (export "memory") 2100)
            (func $give (param $fd i32) (param $at i32) (param $len i32)
                (i32.store (i32.const 0) (local.get $at))
                (i32.store (i32.const 4) (local.get $len))
                (call $say (call $write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
            (func (export "_start") {body}))"#
    );
    // `_start` would be hidden by the marker of the byte ABI.
    let text = text.replace(r#"(func (export "wasmpool_abi_v1"))"#, "");
    support::wat(pool, &preview0::guest(module_path!(), &text)).command().expect("a command")
}

fn output(future: &TaskFuture<CommandOutput>) -> CommandOutput {
    future.result_timeout(PATIENCE).expect("in time").expect("runs")
}

#[test]
fn a_program_that_looks_around_finds_nothing() {
    let pool = pool(2);
    let look = load(&pool, "faults").task::<(), Vec<String>>("look_around").expect("types agree");
    let found = pool.submit(&look, &()).expect("submits").result().expect("runs");
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn no_descriptor_opens_anything_and_none_is_a_socket() {
    let said = says(
        4,
        r#"(loop $more
            (call $say (call $prestat (local.get $n) (i32.const 512)))
            (call $say (call $open (local.get $n) (i32.const 1) (i32.const 900) (i32.const 11) (i32.const 0)
                (i64.const 0x1fffffff) (i64.const 0x1fffffff) (i32.const 0) (i32.const 512)))
            (call $say (call $open (local.get $n) (i32.const 0) (i32.const 901) (i32.const 3) (i32.const 9)
                (i64.const 0x1fffffff) (i64.const 0x1fffffff) (i32.const 0) (i32.const 512)))
            (call $say (call $readdir (local.get $n) (i32.const 512) (i32.const 128) (i64.const 0) (i32.const 504)))
            (call $say (call $mkdir (local.get $n) (i32.const 901) (i32.const 3)))
            ;; A target from the root is refused whatever the descriptor.
            (call $say (call $symlink (i32.const 901) (i32.const 3) (local.get $n) (i32.const 902) (i32.const 2)))
            (call $say (call $accept (local.get $n) (i32.const 0) (i32.const 512)))
            (call $say (call $recv (local.get $n) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 512)
                (i32.const 516)))
            (call $say (call $send (local.get $n) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 512)))
            (call $say (call $shutdown (local.get $n) (i32.const 3)))
            (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (br_if $more (i32.lt_u (local.get $n) (i32.const 11))))
        ;; Nor does another number make it one.
        (call $say (call $renumber (i32.const 1) (i32.const 3)))
        (call $say (call $prestat (i32.const -1) (i32.const 512)))
        (call $say (call $filestat (i32.const 3) (i32.const 512)))"#,
    );
    for (fd, errors) in said[..110].chunks(10).enumerate() {
        let (files, sockets) = errors.split_at(6);
        assert!(files.iter().all(|error| *error == BADF || *error == 54), "descriptor {fd}: {errors:?}");
        let expected = if fd < 3 { NOTSOCK } else { BADF };
        assert_eq!(sockets, [expected; 4], "descriptor {fd}");
    }
    assert_eq!(said[110..], [BADF, BADF, BADF]);
}

#[test]
fn a_task_has_no_arguments_no_environment_and_no_input_and_raises_no_signal() {
    let said = says(
        1,
        r#"(i64.store (i32.const 512) (i64.const -1))
        (i64.store (i32.const 520) (i64.const -1))
        (call $say (call $args_sizes (i32.const 512) (i32.const 516)))
        (call $say (i32.load (i32.const 512)))
        (call $say (i32.load (i32.const 516)))
        (call $say (call $environ_sizes (i32.const 520) (i32.const 524)))
        (call $say (i32.load (i32.const 520)))
        (call $say (i32.load (i32.const 524)))
        ;; They write nothing anywhere, so that even these places are fine.
        (call $say (call $args (i32.const -1) (i32.const -1)))
        (call $say (call $environ (i32.const -1) (i32.const -1)))
        (i32.store (i32.const 512) (i32.const 600))
        (i32.store (i32.const 516) (i32.const 100))
        (i32.store (i32.const 520) (i32.const -1))
        (call $say (call $read (i32.const 0) (i32.const 512) (i32.const 1) (i32.const 520)))
        (call $say (i32.load (i32.const 520)))
        (call $say (call $raise (i32.const 9)))
        (call $say (call $raise (i32.const 6)))"#,
    );
    assert_eq!(said, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NOTSUP, NOTSUP]);
}

#[test]
fn a_command_gets_what_its_caller_gives_and_not_more() {
    let pool = builder(1).input_bytes_max(1000).build().expect("builds");
    let echo = command(
        &pool,
        r#"(drop (call $args_sizes (i32.const 512) (i32.const 516)))
        (drop (call $args (i32.const 4096) (i32.const 8192)))
        (call $give (i32.const 1) (i32.const 8192) (i32.load (i32.const 516)))
        (drop (call $environ_sizes (i32.const 512) (i32.const 516)))
        (drop (call $environ (i32.const 4096) (i32.const 16384)))
        (call $give (i32.const 1) (i32.const 16384) (i32.load (i32.const 516)))
        (i32.store (i32.const 0) (i32.const 32768))
        (i32.store (i32.const 4) (i32.const 65536))
        (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 512)))
        (call $give (i32.const 2) (i32.const 32768) (i32.load (i32.const 512)))"#,
    );
    let input = CommandInput::new().program("p").args(["a", "b c"]).env("K", "v=w").stdin("in");
    let given = output(&pool.submit(&echo, &input).expect("submits"));
    assert_eq!((&given.stdout[..], &given.stderr[..]), (&b"p\0a\0b c\0K=v=w\0"[..], &b"in"[..]));
    // stdin has the limit of every input.
    let full = CommandInput::new().stdin(vec![b'x'; 1000]);
    assert_eq!(output(&pool.submit(&echo, &full).expect("submits")).stderr, vec![b'x'; 1000]);
    let refused = pool.submit(&echo, &CommandInput::new().stdin(vec![0; 1001])).expect_err("too large");
    assert!(matches!(refused, SubmitError::InputTooLarge { bytes: 1001, max: 1000, .. }), "{refused}");
    let long = CommandInput::new().arg("x".repeat(proto::limits::FRAME_META_BYTES_MAX));
    assert!(matches!(pool.submit(&echo, &long), Err(SubmitError::InputTooLarge { .. })));
}

#[test]
fn stdout_and_stderr_have_the_tasks_own_limit_each() {
    let pool = pool(1);
    for fd in [1, 2] {
        let flood =
            command(&pool, &format!("(call $give (i32.const {fd}) (i32.const 8192) (i32.const 5000))"));
        let with = |bytes| {
            let options = TaskOptions::new().output_bytes_max(bytes);
            pool.submit_with(&flood, &CommandInput::new(), options).expect("submits")
        };
        let whole = output(&with(5000));
        assert_eq!(whole.stdout.len() + whole.stderr.len(), 5000);
        let error = error(&with(4999));
        assert!(matches!(error, TaskError::OutputTooLarge { limit: 4999, bytes: 5000 }), "{error:?}");
    }
}

#[test]
fn one_call_writes_at_most_128_mib_and_no_number_of_buffers_is_too_many_to_refuse() {
    let pool = pool(1);
    let body = format!(
        r#"(call $give (i32.const 1) (i32.const 65536) (i32.const {}))
        (call $give (i32.const 2) (i32.const 65536) (i32.const {}))
        ;; 2^32 - 1 buffers.
        (call $say (call $write (i32.const 2) (i32.const 0) (i32.const -1) (i32.const 8)))
        (call $say (call $read (i32.const 0) (i32.const 0) (i32.const -1) (i32.const 8)))
        (call $give (i32.const 2) (i32.const 1025) (i32.sub (global.get $out) (i32.const 1025)))"#,
        proto::limits::WASI_CALL_BYTES_MAX - 8,
        proto::limits::WASI_CALL_BYTES_MAX
    );
    let write = command(&pool, &body);
    let options = TaskOptions::new().output_bytes_max(proto::limits::WASI_CALL_BYTES_MAX);
    let written = output(&pool.submit_with(&write, &CommandInput::new(), options).expect("submits"));
    assert_eq!(written.stdout.len(), proto::limits::WASI_CALL_BYTES_MAX - 8);
    let end = written.stderr.len() - 4 * 4;
    let said: Vec<_> = written.stderr[end..]
        .chunks(4)
        .map(|number| u32::from_le_bytes(number.try_into().expect("whole")))
        .collect();
    assert_eq!(said, [0, NOMEM, NOMEM, NOMEM]);
}

#[test]
fn a_pointer_out_of_the_memory_fails_the_task_and_nothing_else() {
    let pool = pool(1);
    let calls = [
        "$write (i32.const 2) (i32.const -8) (i32.const 1) (i32.const 8)",
        "$write (i32.const 2) (i32.const -4) (i32.const 1) (i32.const 8)",
        "$write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const -4)",
        "$read (i32.const 0) (i32.const 65532) (i32.const 1) (i32.const 8)",
        "$random (i32.const -8) (i32.const 9)",
        "$random (i32.const 65535) (i32.const 2)",
        "$poll (i32.const -48) (i32.const 0) (i32.const 2) (i32.const 512)",
        "$poll (i32.const 0) (i32.const 65528) (i32.const 1) (i32.const 512)",
        "$poll (i32.const 0) (i32.const 4096) (i32.const 1) (i32.const 65536)",
        "$time (i32.const 0) (i64.const 0) (i32.const -8)",
        "$environ_sizes (i32.const -4) (i32.const -4)",
        "$open (i32.const 3) (i32.const 0) (i32.const -1) (i32.const 2) (i32.const 0) (i64.const 0) \
         (i64.const 0) (i32.const 0) (i32.const 512)",
    ];
    // Some bytes of a buffer that ends beyond the memory.
    let write = "(i32.store (i32.const 0) (i32.const 65530)) (i32.store (i32.const 4) (i32.const 10))";
    for call in calls.into_iter().chain(["$write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)"]) {
        let deterministic = ModuleOptions::new().deterministic(true);
        let task = probe_with(&pool, 1, &format!("{write} (drop (call {call}))"), deterministic);
        for options in [TaskOptions::new(), TaskOptions::new().deterministic(1)] {
            let error = run(&pool, &task, options).expect_err(call);
            assert!(
                matches!(&error, TaskError::Trap { message, .. } if message.contains("out of bounds")),
                "{call}: {error:?}"
            );
        }
    }
    assert_eq!(pool.worker_pids().len(), 1);
    assert!(pool.broken().is_none());
}

#[test]
fn randomness_has_a_limit_and_no_two_tasks_share_it() {
    let pool = pool(2);
    let most = proto::limits::WASI_RANDOM_BYTES_MAX;
    let allowed = format!(
        r#"(call $say (call $random (i32.const 65536) (i32.const {most})))
        (call $say (call $random (i32.const -1) (i32.const 0)))
        (call $say (i32.load (i32.const {})))"#,
        65536 + most - 4
    );
    let said = run(&pool, &probe(&pool, 100, &allowed), TaskOptions::new()).expect("runs");
    assert!(said[..2] == [0, 0] && said[2] != 0, "{said:?}");
    let few = probe(
        &pool,
        1,
        "(loop (call $say (call $random (i32.const 512) (i32.const 8)))
            (call $say (i32.load (i32.const 512)))
            (call $say (i32.load (i32.const 516)))
            (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (br_if 0 (i32.lt_u (local.get $n) (i32.const 10))))",
    );
    let mut seen = HashSet::new();
    for _ in 0..500 {
        for drawn in run(&pool, &few, TaskOptions::new()).expect("runs").chunks(3) {
            assert_eq!(drawn[0], 0);
            assert!(seen.insert((drawn[1], drawn[2])), "it came twice");
        }
    }
    for bytes in [most + 1, 64 << 20, u64::from(u32::MAX)] {
        let too_many = probe(&pool, 100, &format!("(drop (call $random (i32.const 0) (i32.const {bytes})))"));
        let error = run(&pool, &too_many, TaskOptions::new()).expect_err("too many");
        assert!(
            matches!(&error, TaskError::Trap { message, .. } if message.contains("exceeds limit 4194304")),
            "{error:?}"
        );
    }
    assert!(pool.broken().is_none());
}

#[test]
fn polls_have_a_limit_and_cost_the_worker_no_memory_of_their_own() {
    let most = proto::limits::WASI_SUBSCRIPTIONS_MAX;
    let pool = pool(1);
    // Zeros are subscriptions to the wall clock that are due at once. Memory: 48 and 32 bytes each.
    let many = probe(
        &pool,
        100,
        &format!(
            r#"(call $say (call $poll (i32.const 65536) (i32.const 2000000) (i32.const {most}) (i32.const 512)))
            (call $say (i32.load (i32.const 512)))
            (call $say (call $poll (i32.const 65536) (i32.const 2000000) (i32.const {}) (i32.const 512)))
            (call $say (call $poll (i32.const 65536) (i32.const 2000000) (i32.const 1000000) (i32.const 512)))
            (call $say (call $poll (i32.const 65536) (i32.const 2000000) (i32.const -1) (i32.const 512)))
            (call $say (call $poll (i32.const 65536) (i32.const 2000000) (i32.const 0) (i32.const 512)))
"#,
            most + 1
        ),
    );
    for _ in 0..50 {
        let said = run(&pool, &many, TaskOptions::new()).expect("runs");
        assert_eq!(said, [0, most, NOMEM, NOMEM, NOMEM, INVAL]);
    }
    let pid = pool.worker_pids()[0];
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line");
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(kib < 200 * 1024, "the worker had {kib} KiB");
}

/// The steps that a clock makes while it is read for a while: the smallest, and whether all are
/// multiples of the resolution that it claims.
const STEPS: &str = r#"
    (call $say (call $resolution (i32.load8_u (i32.const 899)) (i32.const 512)))
    (call $say (i32.load (i32.const 512)))
    (call $say (call $time (i32.load8_u (i32.const 899)) (i64.const 0) (i32.const 520)))
    (i64.store (i32.const 536) (i64.load (i32.const 520)))
    (loop $more
        (drop (call $time (i32.load8_u (i32.const 899)) (i64.const 1) (i32.const 528)))
        (if (i64.ne (i64.load (i32.const 528)) (i64.load (i32.const 536))) (then
            (call $say (i32.wrap_i64 (i64.sub (i64.load (i32.const 528)) (i64.load (i32.const 536)))))
            (i64.store (i32.const 536) (i64.load (i32.const 528)))
            (local.set $n (i32.add (local.get $n) (i32.const 1)))))
        (br_if $more (i32.lt_u (local.get $n) (i32.const 20))))"#;

#[test]
fn clocks_step_by_a_millisecond_unless_the_task_says_otherwise() {
    let pool = pool(1);
    for clock in [0, 1] {
        let body = format!("(i32.store8 (i32.const 899) (i32.const {clock})) {STEPS}");
        let steps = probe(&pool, 1, &body);
        let run = |options| run(&pool, &steps, options).expect("runs");
        for (options, resolution) in [
            (TaskOptions::new(), 1_000_000),
            (TaskOptions::new().clock_resolution(Duration::from_millis(7)), 7_000_000),
            (TaskOptions::new().clock_resolution(Duration::from_micros(20)), 20_000),
        ] {
            let said = run(options);
            assert_eq!(said[..3], [0, resolution, 0]);
            assert!(said[3..].iter().all(|step| step % resolution == 0), "{said:?}");
        }
        let finest = run(TaskOptions::new().clock_resolution(Duration::ZERO));
        assert_eq!(finest[1], 1);
        assert!(finest[3..].iter().any(|step| step % 1000 != 0), "{finest:?}");
    }
    // A pool may have another default, and no resolution is too coarse.
    let day = Duration::from_secs(86_400);
    let pool = builder(1).task_defaults(TaskOptions::new().clock_resolution(day)).build().expect("builds");
    let now = probe(
        &pool,
        1,
        "(call $say (call $time (i32.const 0) (i64.const 0) (i32.const 520)))
        (call $say (i32.wrap_i64 (i64.rem_u (i64.load (i32.const 520)) (i64.const 86400000000000))))
        (call $say (call $time (i32.const 1) (i64.const 0) (i32.const 520)))
        (call $say (i32.wrap_i64 (i64.div_u (i64.load (i32.const 520)) (i64.const 86400000000000))))
        (call $say (call $time (i32.const 2) (i64.const 0) (i32.const 520)))
        (call $say (call $resolution (i32.const 3) (i32.const 520)))",
    );
    for options in [TaskOptions::new(), TaskOptions::new().clock_resolution(Duration::MAX)] {
        let said = run(&pool, &now, options).expect("runs");
        assert_eq!(said, [0, 0, 0, 1, BADF, BADF]);
    }
}

#[test]
fn coarse_clocks_shorten_no_sleep() {
    let pool = pool(1);
    let clocks = load(&pool, "faults").task::<u64, Vec<u64>>("clocks").expect("types agree");
    for sleep_ms in [0, 1, 5, 20] {
        let began = Instant::now();
        let times = pool.submit(&clocks, &sleep_ms).expect("submits").result().expect("runs");
        assert!(began.elapsed() >= Duration::from_millis(sleep_ms));
        assert!(times[2] >= sleep_ms * 1_000_000 && times[1] - times[0] >= sleep_ms * 1_000_000, "{times:?}");
        assert!(times.iter().all(|time| time % 1_000_000 == 0), "{times:?}");
    }
}
