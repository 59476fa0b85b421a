//! An embedder with `init`, without it, and with another program as its worker.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use wasmpool::Pool;
use wasmpool::error::{BuildError, DeathCause, ModuleError};

wasmpool::init_at_load!();

/// Runs a program to its end, at most for `limit`.
fn run(program: &str, limit: Duration) -> Output {
    let mut child =
        Command::new(program).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let deadline = Instant::now() + limit;
    while child.try_wait().expect("waits").is_none() {
        assert!(Instant::now() < deadline, "{program} did not end within {limit:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.wait_with_output().expect("output")
}

#[test]
fn an_embedders_integration_test_can_use_a_pool() {
    let pool = Pool::builder().workers(2).build().expect("builds");
    assert_eq!(embedder::count_primes(&pool, 10_000).expect("counts"), 1229);
}

#[test]
fn a_program_that_calls_init_first_serves_as_its_own_worker() {
    let output = run(env!("CARGO_BIN_EXE_proper"), Duration::from_secs(30));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "168\n", "{output:?}");
}

/// This is what `use_a_pool` prints.
const USED: &str = "168\n5019\n25\n";

#[test]
fn handlers_of_the_embedders_exit_do_not_run_in_workers_and_compilers() {
    let output = run(env!("CARGO_BIN_EXE_at_exit"), Duration::from_secs(60));
    assert_eq!(String::from_utf8_lossy(&output.stdout), USED, "{output:?}");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn an_embedder_may_have_another_allocator() {
    let output = run(env!("CARGO_BIN_EXE_other_allocator"), Duration::from_secs(60));
    assert_eq!(String::from_utf8_lossy(&output.stdout), USED, "{output:?}");
    assert!(output.status.success(), "{output:?}");
}

/// The limits of workers and compilers are for what they take themselves.
#[test]
fn an_embedder_may_hold_more_memory_at_its_start_than_a_worker_may() {
    let output = run(env!("CARGO_BIN_EXE_large_at_start"), Duration::from_secs(60));
    assert_eq!(String::from_utf8_lossy(&output.stdout), USED, "{output:?}");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn forgetting_init_is_a_clear_error_within_a_second() {
    let output = run(env!("CARGO_BIN_EXE_forgetful"), Duration::from_secs(1));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with("refused: wasmpool::init() was not called"), "{said}");
    let left: Vec<_> = std::fs::read_dir("/proc")
        .expect("reads")
        .flatten()
        .filter(|entry| {
            std::fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe.ends_with("forgetful"))
        })
        // The other test's worker program runs the same file, as a named role.
        .filter(|entry| {
            !std::fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|line| line.contains("role="))
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn when_the_host_is_killed_no_worker_is_left_a_second_later_even_in_an_endless_loop() {
    let mut host =
        Command::new(env!("CARGO_BIN_EXE_endless_host")).stdout(Stdio::piped()).spawn().expect("starts");
    let mut line = String::new();
    BufReader::new(host.stdout.take().expect("piped")).read_line(&mut line).expect("says its pids");
    let pids: Vec<u32> = line.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect();
    assert!(pids.len() == 2 && pids.iter().all(|pid| is_worker(*pid)), "{line}");
    host.kill().expect("SIGKILL");
    let killed = Instant::now();
    host.wait().expect("reaped");
    while pids.iter().any(|pid| is_worker(*pid)) {
        assert!(killed.elapsed() < Duration::from_secs(1), "workers survive their host");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Returns whether the pid is (still) a running worker.
fn is_worker(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie waits for whoever adopts it; it runs no more.
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    !stat.is_empty() && !matches!(state, Some('Z' | 'X'))
}

#[test]
fn another_program_serves_as_worker() {
    let pool =
        Pool::builder().workers(1).worker_program(env!("CARGO_BIN_EXE_proper")).build().expect("builds");
    assert_eq!(embedder::count_primes(&pool, 100).expect("counts"), 25);
}

#[test]
fn a_worker_program_that_forgets_init_is_refused_inside_and_reported_outside() {
    // The child reaches Pool::build: it must refuse as a nested pool, and exit.
    let pool = Pool::builder()
        .workers(1)
        .without_cache()
        .worker_program(env!("CARGO_BIN_EXE_forgetful"))
        .build()
        .expect("builds");
    match pool.load_file(embedder::PRIMES).expect_err("no compiler") {
        ModuleError::CompilerDied { death, .. } => assert_eq!(death.cause, DeathCause::Exited(0), "{death}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_missing_worker_program_is_named() {
    let error = Pool::builder().worker_program("no/such/program").build().expect_err("missing");
    assert!(matches!(error, BuildError::WorkerProgram { .. }), "{error}");
    assert!(error.to_string().contains("no/such/program"), "{error}");
}
