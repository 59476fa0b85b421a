//! A limit of CPU time counts only what a task computes, so that a busy machine does not change the verdict.

use std::time::{Duration, Instant};

use crate::support::{self, Guarded, build, builder, wat};
use wasmpool::event::TaskOutcome;
use wasmpool::module::{Interrupt, ModuleOptions};
use wasmpool::task::{CommandInput, Isolation, Retry, TaskReport};
use wasmpool::{TaskError, TaskFailure, TaskOptions};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The program's first argument lists what it does, as letters with numbers: `s` sleeps this many
/// milliseconds, `c` computes this many rounds.
const PROGRAM: &str = r#"(module
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
    (memory (export "memory") 1)
    (global $sum (mut i64) (i64.const 1))
    (func $sleep (param $ms i32)
        (memory.fill (i32.const 0) (i32.const 0) (i32.const 48))
        (i32.store (i32.const 16) (i32.const 1))
        (i64.store (i32.const 24) (i64.mul (i64.extend_i32_u (local.get $ms)) (i64.const 1000000)))
        (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128))))
    (func $compute (param $rounds i32)
        (local $left i64)
        (local.set $left (i64.mul (i64.extend_i32_u (local.get $rounds)) (i64.const 1000)))
        (loop $again
            (global.set $sum (i64.add (i64.mul (global.get $sum) (i64.const 6364136223846793005)) (i64.const 1)))
            (local.set $left (i64.sub (local.get $left) (i64.const 1)))
            (br_if $again (i64.gt_s (local.get $left) (i64.const 0)))))
    (func (export "_start")
        (local $at i32) (local $what i32) (local $number i32) (local $byte i32)
        (drop (call $args (i32.const 1024) (i32.const 2048)))
        (local.set $at (i32.load (i32.const 1028)))
        (loop $next
            (local.set $what (i32.load8_u (local.get $at)))
            (if (i32.eqz (local.get $what)) (then (return)))
            (local.set $number (i32.const 0))
            (loop $digits
                (local.set $at (i32.add (local.get $at) (i32.const 1)))
                (local.set $byte (i32.sub (i32.load8_u (local.get $at)) (i32.const 48)))
                (if (i32.lt_u (local.get $byte) (i32.const 10)) (then
                    (local.set $number
                        (i32.add (i32.mul (local.get $number) (i32.const 10)) (local.get $byte)))
                    (br $digits))))
            (if (i32.eq (local.get $what) (i32.const 115))
                (then (call $sleep (local.get $number)))
                (else (call $compute (local.get $number))))
            (br $next))))"#;

fn module(pool: &Guarded) -> wasmpool::Module {
    wat(pool, PROGRAM)
}

type Ran = (Result<(), TaskFailure>, TaskReport);

fn run(pool: &Guarded, module: &wasmpool::Module, what: &str, options: TaskOptions) -> Ran {
    let command = module.command().expect("is a command");
    let future = pool.submit_with(&command, &CommandInput::new().arg(what), options).expect("submits");
    let result = future.result().map(drop);
    (result, future.report().expect("it has ended"))
}

fn limited(cpu: Duration) -> TaskOptions {
    TaskOptions::new().cpu_time(cpu)
}

/// Finds how many rounds take about a millisecond here and now.
fn rounds_a_millisecond(pool: &Guarded, module: &wasmpool::Module) -> u64 {
    const ROUNDS: u64 = 50_000;
    let measured = (0..3).map(|_| run(pool, module, &format!("c{ROUNDS}"), limited(ms(60_000))).1.cpu);
    let quickest = measured.min().flatten().expect("measured");
    (ROUNDS as u128 * 1_000_000 / quickest.as_nanos().max(1)) as u64
}

/// One computing process for each CPU, until this is dropped.
struct Load(Vec<std::process::Child>);

impl Load {
    fn new() -> Load {
        let busy =
            || std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().expect("starts");
        Load((0..std::thread::available_parallelism().map_or(1, usize::from)).map(|_| busy()).collect())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn what_a_task_computes_is_limited_and_what_it_sleeps_is_not() {
    let pool = build(builder(1));
    let module = module(&pool);
    let endless = format!("c{}", u32::MAX);
    let limit = ms(60);
    let (result, report) = run(&pool, &module, &endless, limited(limit));
    let failure = result.expect_err("computes for long");
    assert_eq!(*failure.error(), TaskError::CpuTime { limit, killed: false });
    assert!(failure.to_string().contains("used more CPU time than its limit of 60ms"), "{failure}");
    assert!(report.cpu > Some(limit) && failure.report().cpu == report.cpu, "{report:?}");
    let (result, report) = run(&pool, &module, "s300c1s100", limited(limit));
    result.expect("sleeps");
    assert!(report.run >= ms(390) && report.cpu.is_some_and(|cpu| cpu < limit), "{report:?}");
    // Whichever comes first is what is said.
    let both = || limited(limit).timeout(ms(400));
    let (result, _) = run(&pool, &module, "s60000", both());
    let timed_out = TaskError::Timeout { limit: ms(400), killed: false };
    assert_eq!(result.expect_err("sleeps for long").error(), &timed_out);
    let (result, _) = run(&pool, &module, &format!("s50{endless}"), both().timeout(ms(60_000)));
    assert!(matches!(result.expect_err("computes").error(), TaskError::CpuTime { .. }));
    assert_eq!(pool.stats().ended.timed_out, 3);
}

/// Looking costs some of the CPU time that is looked at.
#[test]
fn a_task_that_sleeps_near_its_limit_is_not_stopped() {
    let pool = build(builder(1));
    let module = module(&pool);
    for limit in [ms(6), ms(10)] {
        let (result, report) = run(&pool, &module, "c1s1500", limited(limit));
        assert!(result.is_ok(), "{limit:?}: {result:?}");
        assert!(report.run >= ms(1490) && report.cpu.is_some_and(|cpu| cpu < limit), "{report:?}");
    }
}

#[test]
fn it_is_the_same_limit_however_a_task_is_run() {
    let pool = build(builder(1));
    let endless = format!("c{}", u32::MAX);
    let limit = ms(30);
    let wasm = ::wat::parse_str(PROGRAM).expect("is valid");
    let ways = [
        (ModuleOptions::new().interrupt(Interrupt::Kill), limited(limit), true),
        (ModuleOptions::new().deterministic(true), limited(limit).deterministic(7), false),
        (ModuleOptions::new().metered(true), limited(limit), false),
        (ModuleOptions::new(), limited(limit).isolation(Isolation::Reuse), false),
    ];
    for (options, limited, killed) in ways {
        let module = pool.load_with(&wasm, options).expect("loads");
        let (result, report) = run(&pool, &module, &endless, limited);
        assert_eq!(result.expect_err("computes").error(), &TaskError::CpuTime { limit, killed });
        assert!(report.cpu > Some(limit), "{report:?}");
    }
    let module = module(&pool);
    let (result, report) =
        run(&pool, &module, &endless, limited(limit).retry(Retry::attempts(3).after_timeouts()));
    assert!(matches!(result.expect_err("computes").error(), TaskError::CpuTime { .. }));
    assert_eq!(report.attempts, 3);
}

#[test]
fn a_limit_of_the_pools_is_each_tasks_in_a_map_too() {
    let pool = build(builder(2).cpu_time(ms(100)));
    let module = wat(
        &pool,
        r#"(module
            (memory (export "memory") 1)
            (func (export "wasmpool_abi_v1"))
            (func (export "wasmpool_alloc") (param i32) (result i32) i32.const 1024)
            (func (export "spin") (param $at i32) (param $len i32) (result i64)
                (block $no (br_if $no (i32.ne (i32.load8_u (local.get $at)) (i32.const 120)))
                    (loop $ever (br $ever)))
                (i32.store8 (i32.const 512) (i32.const 0))
                (i64.const 0x0000_0200_0000_0001)))"#,
    );
    let spin = support::raw(&module, "spin");
    let inputs: Vec<Vec<u8>> =
        (0..300).map(|n| if n == 150 { b"x".to_vec() } else { b"y".to_vec() }).collect();
    let results: Vec<_> = pool.map(&spin, inputs).collect();
    for (n, result) in results.iter().enumerate() {
        match (n, result) {
            (150, Err(wasmpool::error::MapError::Task(failure))) => {
                assert_eq!(*failure.error(), TaskError::CpuTime { limit: ms(100), killed: false });
            }
            (_, result) => assert!(n != 150 && result.is_ok(), "{n}: {result:?}"),
        }
    }
    assert_eq!(results.len(), 300);
    assert_eq!(pool.stats().ended.timed_out, 1);
}

/// This is a judge's work: fifty programs whose verdicts depend on their own CPU time, beside processes that
/// want every CPU. `WASMPOOL_JUDGE_RUNS` sets how often it runs.
#[test]
fn verdicts_are_the_same_in_each_run_on_a_busy_machine() {
    let runs = std::env::var("WASMPOOL_JUDGE_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(1);
    let pool = build(builder(2));
    let module = module(&pool);
    let a_millisecond = rounds_a_millisecond(&pool, &module);
    let limit = ms(100);
    let compute = |ms: u64| format!("c{}", ms * a_millisecond);
    let mut programs: Vec<(String, bool)> = Vec::new();
    for n in 0..10 {
        programs.push((compute(1 + 3 * n), true));
        programs.push((compute(400 + 40 * n), false));
        programs.push((format!("s{}", 20 + 20 * n), true));
        programs.push((format!("s50{}s50", compute(5 + 2 * n)), true));
        programs.push((format!("s20{}s20{}", compute(100), compute(300 + 10 * n)), false));
    }
    assert_eq!(programs.len(), 50);
    let load = Load::new();
    let command = module.command().expect("is a command");
    let mut most = Duration::ZERO;
    let mut over = Duration::ZERO;
    for run in 0..runs {
        let began = Instant::now();
        let futures: Vec<_> = programs
            .iter()
            .map(|(what, _)| pool.submit_with(&command, &CommandInput::new().arg(what), limited(limit)))
            .collect();
        for (future, (what, passes)) in futures.into_iter().zip(&programs) {
            let future = future.expect("submits");
            let result = future.result();
            let cpu = future.report().expect("has ended").cpu.expect("is measured");
            match (&result, passes) {
                (Ok(_), true) => most = most.max(cpu),
                (Err(failure), false) if matches!(failure.error(), TaskError::CpuTime { .. }) => {
                    over = over.max(cpu - limit);
                }
                _ => panic!("run {run}, {what}: {result:?}, after {cpu:?}"),
            }
        }
        println!("run {run}: {:?}", began.elapsed());
    }
    println!("{runs} runs: passed with {most:?} at most, found out {over:?} over the limit at most");
    drop(load);
}

/// The report is what the worker's thread has measured where there is no limit, and the process's clock where
/// there is one. Both must agree.
#[test]
fn the_report_has_the_cpu_time_of_the_task_and_not_of_what_was_before_or_after() {
    let pool = build(builder(1));
    let module = module(&pool);
    let a_millisecond = rounds_a_millisecond(&pool, &module);
    let what = format!("c{}", 20 * a_millisecond);
    for _ in 0..5 {
        let (_, limited) = run(&pool, &module, &what, limited(ms(60_000)));
        let (_, other) = run(&pool, &module, &what, TaskOptions::new());
        let (Some(by_host), Some(by_worker)) = (limited.cpu, other.cpu) else {
            panic!("{limited:?} {other:?}");
        };
        // The machine itself varies by some of this.
        assert!(by_host.abs_diff(by_worker) < by_host.max(by_worker) / 2, "{limited:?} {other:?}");
    }
    // A task that does nothing must not be charged for what the task before it did.
    for _ in 0..5 {
        run(&pool, &module, &what, limited(ms(60_000))).0.expect("ends");
        let (result, report) = run(&pool, &module, "", limited(ms(5)));
        result.expect("nothing is little");
        assert!(report.cpu.is_some_and(|cpu| cpu < ms(5)), "{report:?}");
    }
}

#[test]
fn a_task_over_its_cpu_time_counts_as_timed_out() {
    let pool = build(builder(1));
    let mut events = pool.events();
    let module = module(&pool);
    run(&pool, &module, &format!("c{}", u32::MAX), limited(ms(10))).0.expect_err("computes");
    let finished = std::iter::from_fn(|| events.try_next()).find_map(|event| match event.kind {
        wasmpool::event::EventKind::TaskFinished { outcome, report, .. } => Some((outcome, report)),
        _ => None,
    });
    let (outcome, report) = finished.expect("is told");
    assert_eq!(outcome, TaskOutcome::TimedOut);
    assert!(report.cpu >= Some(ms(10)), "{report:?}");
}

/// Returns the time slice of a process's main thread, 0 being this very thread; 0 where the kernel knows none.
fn slice_ns(pid: u32) -> u64 {
    let pid = libc::pid_t::try_from(pid).expect("a pid");
    // SAFETY: zeroes are a value of each field.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::sched_attr>();
    // SAFETY: sched_getattr(2) writes a structure of at most the size that it is told.
    let failed = unsafe { libc::syscall(libc::SYS_sched_getattr, pid, &raw mut attributes, size, 0) };
    assert_eq!(failed, 0, "{}", std::io::Error::last_os_error());
    attributes.sched_runtime
}

/// A worker inherits the slice of the supervisor, which asks for a short one.
#[test]
fn workers_compute_in_slices_as_long_as_those_of_the_program_itself() {
    let pool = build(builder(1));
    let program = module(&pool).command().expect("a command");
    pool.submit(&program, &CommandInput::new().arg("c1")).expect("submits").result().expect("succeeds");
    let pids = pool.worker_pids();
    assert_eq!(pids.len(), 1);
    assert_eq!(slice_ns(pids[0]), slice_ns(0));
}
