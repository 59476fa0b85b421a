//! This process has limits itself. A worker's limit above them is lowered to them, and a call that needs more
//! names the limit.

use rustix::process::{Resource, Rlimit, setrlimit};
use wasmpool::{Doctor, SandboxLayer, SandboxPolicy};

use super::common::PATIENCE;
use super::refusals::all_words;
use super::reports::{builder, lacks, pool, wasm};
use super::{Case, outside};

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
    #[cfg(feature = "cli")]
    said_once();
}

/// The command says it once, and without `-v`.
#[cfg(feature = "cli")]
fn said_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("echo.wasm");
    std::fs::write(&path, wasm()).expect("writes");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_wasmpool"));
    command.env_clear().args(["run", "--no-cache"]).arg(&path).args(["echo", "--input", "on"]);
    let output = command.output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{output:?}");
    let warnings: Vec<_> = said.lines().filter(|line| line.contains("sandbox lacks layers")).collect();
    assert_eq!(warnings.len(), 1, "{said}");
    assert!(warnings[0].contains("`rlimits`") && warnings[0].contains("SIGPENDING"), "{said}");
}

/// Even a worker's rings have no room, which must be an error and not a signal.
pub(crate) fn on_files_are_errors(_: &Case) {
    lower(Resource::Fsize, 2_100_224);
    let error = super::refusals::first_error();
    all_words(&error, &["RLIMIT_FSIZE is 2100224", "ulimit -f", "File too large"]);
    #[cfg(feature = "cli")]
    {
        let (success, page) = super::reports::doctor_command("best-effort");
        assert!(!success, "{page}");
        all_words(&page["error"]["message"].to_string(), &["RLIMIT_FSIZE", "ulimit -f"]);
    }
}

pub(crate) fn on_addresses_are_named(_: &Case) {
    lower(Resource::As, 60 << 30);
    let error = super::refusals::first_error();
    all_words(&error, &["RLIMIT_AS is 64424509440", "ulimit -v"]);
    let doctor = Doctor::new().run().expect_err("no worker starts").to_string();
    all_words(&doctor, &["RLIMIT_AS is 64424509440", "ulimit -v"]);
}
