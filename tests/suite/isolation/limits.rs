//! This process has limits itself. A worker's limit above them is lowered to them, and a call that needs more
//! names the limit.

use rustix::process::{Resource, Rlimit, setrlimit};
use wasmpool::sandbox::{Doctor, SandboxLayer, SandboxPolicy};

use super::refusals::all_words;
use super::reports::{builder, lacks, pool, wasm};
use super::{Case, outside};
use crate::support::PATIENCE;

/// Lowers a limit of this process for good.
fn lower(resource: Resource, value: u64) {
    setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })
        .expect("to lower it is allowed");
}

pub(crate) fn are_kept_where_less_is_allowed(case: &Case) {
    let lowered = [
        (Resource::Nofile, "NOFILE", 512),
        (Resource::Sigpending, "SIGPENDING", 10),
        (Resource::Data, "DATA", 1 << 30),
        (Resource::Fsize, "FSIZE", 64 << 20),
    ];
    for (resource, _, value) in lowered {
        lower(resource, value);
    }
    let report = pool(builder(SandboxPolicy::Strict));
    lacks(&report, case.missing());
    let reason = &report.layer(SandboxLayer::ResourceLimits).expect("is reported").reason;
    for (_, name, _) in lowered {
        let (_, said) = reason.split_once(name).unwrap_or_else(|| panic!("no {name} in {reason}"));
        let said = said.split(", ").next().unwrap_or_default();
        assert!(said.contains("no more is allowed here"), "{name}: {reason}");
    }
    let doctor = Doctor::new().run().expect("can be tried");
    assert_eq!(doctor.holes().count(), 0, "{:?}", doctor.holes().collect::<Vec<_>>());
    assert_eq!(doctor.succeeded().count(), 0, "{:?}", doctor.succeeded().collect::<Vec<_>>());
}

/// One limit cannot be set: the others stand, and the report names it.
pub(crate) fn stand_but_for_one(case: &Case) {
    let pool = builder(SandboxPolicy::BestEffort).build().expect("builds");
    let module = pool.load(&wasm()).expect("compiles");
    let echo = module.raw_task("echo").expect("has the task");
    pool.submit_bytes(&echo, "on")
        .expect("submits")
        .result_timeout(PATIENCE)
        .expect("in time")
        .expect("echoes");
    let report = pool.sandbox().expect("a worker is ready");
    lacks(&report, case.missing());
    let reason = &report.layer(SandboxLayer::ResourceLimits).expect("is reported").reason;
    assert!(reason.contains("setrlimit SIGPENDING") && reason.contains("the others stand: DATA"), "{reason}");
    outside::limits_stand_but_for(pool.worker_pids()[0], "Max pending signals");
    said_once();
}

/// The command says it once, and without `-v`.
fn said_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("echo.wasm");
    std::fs::write(&path, wasm()).expect("writes");
    let Some(mut command) = super::reports::wasmpool() else { return };
    command.env_clear().args(["run", "--no-cache"]).arg(&path).args(["echo", "--input", "on"]);
    let output = command.output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{output:?}");
    let warnings: Vec<_> = said.lines().filter(|line| line.contains("sandbox lacks layers")).collect();
    assert_eq!(warnings.len(), 1, "{said}");
    assert!(warnings[0].contains("`rlimits`") && warnings[0].contains("SIGPENDING"), "{said}");
}

/// Rings are as large as they may be, and what is larger goes through them in pieces. A module whose own
/// files have no room is an error that says how much room there would have to be, and no signal.
pub(crate) fn on_files_make_smaller_rings_and_errors(case: &Case) {
    lower(Resource::Fsize, 2_100_224);
    works(case);
    // Rings of 64 KiB, and machine code that has just room.
    lower(Resource::Fsize, 256 << 10);
    works(case);
    // The limit leaves no room for the rings or, further down, for the machine code of any module.
    lower(Resource::Fsize, 8 << 10);
    all_words(&super::refusals::first_error(), &["RLIMIT_FSIZE is 8192", "ulimit -f", "File too large"]);
    let doctor = Doctor::new().run().expect_err("there are no rings so small").to_string();
    all_words(&doctor, &["ftruncate", "RLIMIT_FSIZE is 8192", "ulimit -f"]);
    if let Some((success, page)) = super::reports::doctor_command("best-effort") {
        assert!(!success, "{page}");
        all_words(&page["error"]["message"].to_string(), &["RLIMIT_FSIZE", "ulimit -f"]);
    }
    lower(Resource::Fsize, 2 << 10);
    let error = super::refusals::first_error();
    all_words(&error, &["machine code", "RLIMIT_FSIZE is 2048", "ulimit -f", "bytes are needed"]);
}

/// Everything that a pool does, with small payloads and large ones.
fn works(case: &Case) {
    let pool = builder(SandboxPolicy::BestEffort).workers(2).build().expect("builds");
    let module = pool.load(&wasm()).expect("compiles");
    let echo = module.raw_task("echo").expect("has the task");
    for len in [0, 5, 4096, 70_000, 200_000] {
        let bytes: Vec<u8> = (0..len).map(|n: u32| n as u8).collect();
        let future = pool.submit_bytes(&echo, bytes.clone()).expect("submits");
        let answer = future.result_timeout(PATIENCE).expect("in time").expect("echoes");
        assert!(answer == bytes, "{len} bytes come back as they went");
    }
    let inputs = (0..500_u32).map(|n| n.to_le_bytes().to_vec());
    let results: Vec<_> = pool.map(&echo, inputs).collect::<Result<_, _>>().expect("all of them");
    assert_eq!(results.len(), 500);
    // One with memories of the engine, which are not the worker's own.
    let wasi = crate::support::wat(
        &pool,
        r#"(module
            (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
            (memory (export "memory") 1 100)
            (data (i32.const 100) "x")
            (func (export "_start")
                (drop (call $yield))
                (if (i32.ne (i32.load8_u (i32.const 100)) (i32.const 120)) (then unreachable))
                (i32.store8 (i32.const 100) (i32.const 7))
                (if (i32.ne (memory.grow (i32.const 50)) (i32.const 1)) (then unreachable))
                (i32.store8 (i32.const 3000000) (i32.const 1))))"#,
    );
    let command = wasi.command().expect("is a command");
    for _ in 0..3 {
        let future = pool.submit(&command, &wasmpool::task::CommandInput::new()).expect("submits");
        future.result_timeout(PATIENCE).expect("in time").expect("each begins with a fresh memory");
    }
    lacks(&pool.sandbox().expect("a worker is ready"), case.missing());
}

/// Memories are not reserved in advance; where not even one has room, that is an error which says how much does.
pub(crate) fn on_addresses_mean_memories_one_by_one(case: &Case) {
    for addresses in [60_000_000 << 10, 6 << 30] {
        lower(Resource::As, addresses);
        works(case);
        let doctor = Doctor::new().sandbox(SandboxPolicy::BestEffort).run().expect("a worker starts");
        assert_eq!(doctor.holes().count(), 0, "{:?}", doctor.holes().collect::<Vec<_>>());
    }
    lower(Resource::As, 3 << 30);
    let error = super::refusals::first_error();
    all_words(&error, &["RLIMIT_AS is 3221225472", "ulimit -v", "6291456 KiB are enough"]);
}

/// A soft limit of CPU time is this program's own, and children raise theirs; a hard one ends them, which is said.
pub(crate) fn on_cpu_time_are_named(_: &Case) {
    let pool = || builder(SandboxPolicy::BestEffort).build().expect("builds");
    let spinning = |pool: &wasmpool::Pool| {
        let module =
            crate::support::wat(pool, r#"(module (func (export "_start") (loop $ever (br $ever))))"#);
        module.command().expect("is a command")
    };
    let spin = |pool: &wasmpool::Pool, cpu: u64| {
        let options = wasmpool::TaskOptions::new().cpu_time(std::time::Duration::from_millis(cpu));
        let future = pool.submit_with(&spinning(pool), &wasmpool::task::CommandInput::new(), options);
        future
            .expect("submits")
            .result_timeout(PATIENCE)
            .expect("in time")
            .expect_err("never ends")
            .to_string()
    };
    let soft = Rlimit { current: Some(1), maximum: None };
    if setrlimit(Resource::Cpu, soft).is_ok() {
        all_words(&spin(&pool(), 1_500), &["more CPU time than its limit of 1.5s"]);
    }
    lower(Resource::Cpu, 1);
    all_words(&spin(&pool(), 60_000), &["RLIMIT_CPU is 1 s", "ulimit -t"]);
    let many = format!("(module {})", "(func)".repeat(90_000));
    let slow = ::wat::parse_str(many).expect("is valid");
    let limits = wasmpool::limits::CompileLimits::trusted();
    let options = wasmpool::module::ModuleOptions::new().compile_limits(limits);
    let error = pool().load_with(&slow, options).expect_err("takes longer").to_string();
    all_words(&error, &["compiler", "RLIMIT_CPU is 1 s", "ulimit -t"]);
}
