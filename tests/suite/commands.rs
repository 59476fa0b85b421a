//! The results of WASI commands: what they wrote, however they end, their exit codes, their refusals, and the
//! inputs that they cannot be given.

use std::time::Duration;

use crate::support::{self, PATIENCE, build, builder, failure, preview0};
use wasmpool::error::{SubmitError, TrapCode};
use wasmpool::module::{Interrupt, ModuleOptions};
use wasmpool::pool::{OnWorkerDeath, Replacement};
use wasmpool::task::{CommandInput, RefusalKind};
use wasmpool::{Command, Pool, TaskError, TaskFailure, TaskOptions};

/// The guest says `out` and `err`, and then does what its first argument says.
const SAYS: &str = r#"(module
    (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "outerr")
    (func $recurse (param i64) (result i64) (i64.add (call $recurse (local.get 0)) (i64.const 1)))
    (func $say (param $fd i32) (param $at i32)
        (i32.store (i32.const 0) (local.get $at))
        (i32.store (i32.const 4) (i32.const 3))
        (drop (call $write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
    (func (export "_start") (local $how i32)
        (drop (call $args (i32.const 1024) (i32.const 2048)))
        (local.set $how (i32.load8_u (i32.load (i32.const 1028))))
        (call $say (i32.const 1) (i32.const 100))
        (call $say (i32.const 2) (i32.const 103))
        (if (i32.eq (local.get $how) (i32.const 0x74 (; t ;))) (then unreachable))
        (if (i32.eq (local.get $how) (i32.const 0x6c (; l ;))) (then (loop (br 0))))
        (if (i32.eq (local.get $how) (i32.const 0x72 (; r ;))) (then (drop (call $recurse (i64.const 0)))))
        (if (i32.eq (local.get $how) (i32.const 0x66 (; f ;)))
            (then (loop (call $say (i32.const 1) (i32.const 100)) (br 0))))
        (if (i32.eq (local.get $how) (i32.const 0x73 (; s ;))) (then
            (i64.store (i32.const 512) (i64.const 0))
            (i64.store (i32.const 520) (i64.const 0))
            (i64.store (i32.const 528) (i64.const 1))
            (i64.store (i32.const 536) (i64.const 3600000000000))
            (drop (call $poll (i32.const 512) (i32.const 576) (i32.const 1) (i32.const 8)))))
        (if (i32.eq (local.get $how) (i32.const 0x6d (; m ;))) (then
            (drop (memory.grow (i32.const 65000))) (drop (memory.grow (i32.const 1)))
            unreachable))
        (if (i32.eq (local.get $how) (i32.const 0x78 (; x ;))) (then
            (drop (memory.grow (i32.const 65000))) (drop (memory.grow (i32.const 65001)))
            (call $exit (i32.const 7))))))"#;

fn says(pool: &Pool) -> Command {
    support::wat(pool, &preview0::guest(module_path!(), SAYS)).command().expect("a command")
}

fn fails(pool: &Pool, command: &Command, how: &str, options: TaskOptions) -> TaskFailure {
    failure(&pool.submit_with(command, &CommandInput::new().arg(how), options).expect("submits"))
}

/// Returns what it had written, as text.
fn written(failure: &TaskFailure) -> (String, String) {
    let output = failure.output().unwrap_or_else(|| panic!("no output: {failure}"));
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    (text(&output.stdout), text(&output.stderr))
}

/// Checks that the error is the expected one.
type Expected = fn(&TaskError) -> bool;

#[test]
fn what_a_command_wrote_before_it_failed_comes_with_every_failure() {
    let pool = build(builder(1));
    let command = says(&pool);
    let soon = TaskOptions::new().timeout(Duration::from_millis(50));
    let is_timeout: Expected = |error| matches!(error, TaskError::Timeout { killed: false, .. });
    let cases: [(&str, TaskOptions, Expected); 6] = [
        ("trap", TaskOptions::new(), |error| matches!(error, TaskError::Trap { .. })),
        ("recurse", TaskOptions::new(), |error| {
            matches!(error, TaskError::Trap { code: TrapCode::StackOverflow, .. })
        }),
        ("loop", soon.clone(), is_timeout),
        ("sleep", soon, is_timeout),
        ("memory", TaskOptions::new(), |error| matches!(error, TaskError::Trap { .. })),
        (
            "x",
            TaskOptions::new(),
            |error| matches!(error, TaskError::Exit { output } if output.exit_code == 7),
        ),
    ];
    for (how, options, expected) in cases {
        let failure = fails(&pool, &command, how, options);
        assert!(expected(failure.error()), "{how}: {failure}");
        assert_eq!(written(&failure), ("out".into(), "err".into()), "{how}");
        assert_eq!(failure.report().output_bytes, Some(6), "{how}");
    }
    assert!(pool.broken().is_none());
}

#[test]
fn a_flood_is_kept_up_to_its_limit() {
    let pool = build(builder(1));
    let failure = fails(&pool, &says(&pool), "flood", TaskOptions::new().output_bytes_max(1000));
    assert!(matches!(failure.error(), TaskError::OutputTooLarge { limit: 1000, .. }), "{failure}");
    let (stdout, stderr) = written(&failure);
    assert_eq!((stdout, stderr.as_str()), ("out".repeat(334)[..1000].to_string(), "err"));
}

#[test]
fn what_an_aborted_command_wrote_is_had_unless_its_worker_was_killed() {
    for (interrupt, killed) in [(Interrupt::default(), false), (Interrupt::Kill, true)] {
        // Each has a worker of its own, whose CPU time is the command's.
        let policy = OnWorkerDeath::Replace(Replacement::new());
        let pool = build(builder(1).on_worker_death(policy));
        let options = ModuleOptions::new().interrupt(interrupt);
        let says = wat::parse_str(preview0::guest(module_path!(), SAYS)).expect("valid text");
        let module = pool.load_with(&says, options).expect("loads");
        let command = module.command().expect("a command");
        let future = pool.submit(&command, &CommandInput::new().arg("loop")).expect("submits");
        let mut began = false;
        support::eventually("the command to compute", || {
            began |= future.is_running();
            began
                && pool
                    .worker_pids()
                    .first()
                    .is_some_and(|pid| support::cpu_of(*pid) > Duration::from_millis(50))
        });
        assert!(future.abort());
        let failure = failure(&future);
        assert_eq!(*failure.error(), TaskError::Aborted { killed }, "{failure}");
        match killed {
            false => assert_eq!(written(&failure), ("out".into(), "err".into())),
            true => assert!(failure.output().is_none(), "it went with the process: {failure}"),
        }
    }
}

#[test]
fn a_task_that_is_no_command_has_no_output_of_this_kind() {
    let pool = build(builder(1));
    let faults = support::load(&pool, "faults");
    let failure = failure(&pool.submit_bytes(&support::raw(&faults, "unreachable"), "").expect("submits"));
    assert!(failure.output().is_none(), "{failure}");
}

#[test]
fn every_exit_code_is_passed_on_as_it_is() {
    let pool = build(builder(2));
    for code in (0..256).chain([256, 257, -1, i32::MIN, i32::MAX]) {
        let text = format!(
            r#"(module
                (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
                (memory (export "memory") 1)
                (func (export "_start") (call $exit (i32.const {code})) unreachable))"#
        );
        // Each code is a module that must be compiled, so codes that are treated alike are tried by a few.
        if (4..124).contains(&code) || (130..252).contains(&code) {
            continue;
        }
        let command =
            support::wat(&pool, &preview0::guest(module_path!(), &text)).command().expect("a command");
        let future = pool.submit(&command, &CommandInput::new()).expect("submits");
        match future.result_timeout(PATIENCE).expect("in time") {
            Ok(output) => assert_eq!((output.exit_code, code), (0, 0)),
            Err(failure) => match failure.error() {
                TaskError::Exit { output } => assert_eq!(output.exit_code, code),
                other => panic!("{code}: {other}"),
            },
        }
    }
}

#[test]
fn memory_that_was_refused_is_reported_beside_whatever_became_of_the_task() {
    let pool = build(builder(1));
    let command = says(&pool);
    let limit = 1 << 20;
    let options = || TaskOptions::new().memory_bytes_max(limit as usize);
    let trapped = fails(&pool, &command, "memory", options());
    assert!(
        matches!(trapped.error(), TaskError::Trap { code: TrapCode::Unreachable, .. }),
        "why it trapped, only it knows: {trapped}"
    );
    let exited = fails(&pool, &command, "x", options());
    assert!(matches!(exited.error(), TaskError::Exit { .. }), "{exited}");
    for (failure, count, times) in [(&trapped, 1, "once"), (&exited, 2, "2 times")] {
        let refusals = failure.report().refusals.as_ref().unwrap_or_else(|| panic!("none: {failure}"));
        let first = refusals.first().expect("there was one");
        let last = refusals.last().expect("there was one");
        assert_eq!(refusals.count(), count, "{failure}");
        assert_eq!((first.kind, first.limit, first.requested), (RefusalKind::Memory, limit, 65001 << 16));
        assert_eq!(last.requested, (65000 + count) << 16);
        assert!(first.after <= last.after && last.after <= failure.report().run, "{refusals:?}");
        assert!(failure.to_string().contains(&format!("memory was refused {times}")), "{failure}");
    }
    let trap = fails(&pool, &command, "trap", options());
    assert!(
        trap.report().refusals.as_ref().is_some_and(|refusals| refusals.is_empty())
            && !trap.to_string().contains("refused"),
        "{trap}"
    );
}

#[test]
fn what_a_program_would_see_cut_off_is_refused() {
    let pool = build(builder(1));
    let command = says(&pool);
    let new = CommandInput::new;
    for (input, says) in [
        (new().arg("a\0b"), "an argument with '\\0' in it: a\\u{0}b"),
        (new().args(["a", "\0"]), "an argument"),
        (new().program("p\0q"), "an argument"),
        (new().env("A\0B", "c"), "a variable's name"),
        (new().env("A=B", "c"), "a variable's name with '=' in it"),
        (new().env("A", "b\0c"), "a variable's value"),
    ] {
        let refused = pool.submit(&command, &input).expect_err(says);
        assert!(matches!(refused, SubmitError::Unrepresentable { .. }), "{refused}");
        assert!(refused.to_string().contains(says), "{refused}");
    }
    // stdin carries any byte, and a variable's value may have a character that its name may not.
    let input = new().arg("nothing").env("A", "b=c").stdin(&b"a\0b"[..]);
    pool.submit(&command, &input).expect("submits").result_timeout(PATIENCE).expect("in time").expect("runs");
}

#[test]
fn the_export_without_a_name_is_the_program_and_else_start() {
    let pool = support::pool(1);
    let unnamed = SAYS.replace(r#"(export "_start")"#, r#"(export "")"#);
    let both =
        format!(r#"{} (func (export "_start") unreachable))"#, unnamed.strip_suffix(')').expect("a module"));
    for text in [SAYS, &unnamed, &both] {
        let command =
            support::wat(&pool, &preview0::guest(module_path!(), text)).command().expect("a command");
        let future = pool.submit(&command, &CommandInput::new().arg("x")).expect("submits");
        let said = written(&failure(&future));
        assert_eq!(said, ("out".into(), "err".into()));
    }
    let odd = wat::parse_str(r#"(module (func (export "_start") (result i32) (i32.const 0)))"#);
    let error = pool.load(&odd.expect("valid text")).expect_err("it cannot be called").to_string();
    assert!(error.contains("`_start` is () -> (i32), and must be () -> ()"), "{error}");
}
