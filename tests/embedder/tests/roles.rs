//! What an embedder meets: with `init`, without it, with another program as worker.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use wasmpool::{BuildError, DeathCause, ModuleError, Pool};

wasmpool::init_at_load!();

/// Runs a program to its end, at most for `limit`.
fn run(program: &str, limit: Duration) -> Output {
    let mut child =
        Command::new(program).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let deadline = Instant::now() + limit;
    while child.try_wait().expect("waits").is_none() {
        assert!(Instant::now() < deadline, "{program} did not end within {limit:?}");
        std::thread::yield_now();
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

#[test]
fn forgetting_init_is_a_clear_error_within_a_second() {
    let output = run(env!("CARGO_BIN_EXE_forgetful"), Duration::from_secs(1));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with("refused: wasmpool::init() was not called"), "{said}");
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
        ModuleError::CompilerDied { death } => assert_eq!(death.cause, DeathCause::Exited(0), "{death}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_missing_worker_program_is_named() {
    let error = Pool::builder().worker_program("no/such/program").build().expect_err("missing");
    assert!(matches!(error, BuildError::WorkerProgram { .. }), "{error}");
    assert!(error.to_string().contains("no/such/program"), "{error}");
}
