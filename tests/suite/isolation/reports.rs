//! The reports of pools and doctors if layers are missing: they say which ones and why, and that all others
//! stand.

use std::fs::File;
use std::path::Path;

use wasmpool::sandbox::{
    AttackReport, Doctor, DoctorReport, LayerReport, SandboxLayer, SandboxPolicy, SandboxReport,
};
use wasmpool::{Pool, PoolBuilder};

use super::{Case, LEAKED, outside};
use crate::support::{ECHO_WAT, PATIENCE};

pub(crate) fn wasm() -> Vec<u8> {
    wat::parse_str(ECHO_WAT).expect("valid text")
}

pub(crate) fn builder(policy: SandboxPolicy) -> PoolBuilder {
    Pool::builder().workers(1).without_cache().without_cgroup().sandbox(policy)
}

/// Runs a task, and holds what the worker says of itself against what is seen of it. `Err` with the
/// first error's words.
pub(crate) fn try_pool(builder: PoolBuilder) -> Result<SandboxReport, String> {
    let pool = builder.build().map_err(|error| error.to_string())?;
    let module = pool.load(&wasm()).map_err(|error| error.to_string())?;
    let echo = module.raw_task("echo").expect("has the task");
    let answer = pool.submit_bytes(&echo, "on").expect("submits").result_timeout(PATIENCE).expect("in time");
    assert_eq!(answer.map_err(|error| error.to_string())?, "on");
    let report = pool.sandbox().expect("a worker is ready");
    outside::holds(pool.worker_pids()[0], &report);
    Ok(SandboxReport::clone(&report))
}

pub(crate) fn pool(builder: PoolBuilder) -> SandboxReport {
    try_pool(builder).unwrap_or_else(|error| panic!("{error}"))
}

/// Exactly these are missing, each with a reason; all others that there can be here stand.
pub(crate) fn lacks(report: &SandboxReport, missing: &[SandboxLayer]) {
    for layer in SandboxLayer::ALL {
        let said = report.layer(layer).expect("each is reported");
        let LayerReport { requested, applied, reason, .. } = said;
        let is_root = rustix::process::getuid().is_root();
        let can_be = layer != SandboxLayer::Cgroup && (is_root || layer != SandboxLayer::Identity);
        assert!(!reason.is_empty(), "{said:?}");
        match (missing.contains(&layer), can_be) {
            (true, _) => assert!(*requested && !applied, "{said:?}"),
            (false, true) => assert!(*requested && *applied, "{said:?}"),
            (false, false) => assert!(!requested && !applied, "{said:?}"),
        }
    }
    assert_eq!(report.missing().count(), missing.len());
}

pub(crate) fn are_true(case: &Case) {
    let folder = tempfile::tempdir().expect("a folder");
    let _leaked = leak(folder.path());
    let missing = case.missing();
    lacks(&pool(builder(SandboxPolicy::BestEffort)), missing);
    // An ordinary user may look at more of a worker that is dumpable.
    pool(builder(SandboxPolicy::BestEffort).sandbox_without(SandboxLayer::NotDumpable));
    // The host does without everything, and without `Off` nothing is asked for that is refused.
    let off = pool(builder(SandboxPolicy::Off));
    assert_eq!(off.missing().count(), 0, "{off}");
    strict(folder.path(), missing);
    doctor(missing);
    command(missing);
}

/// Open across exec, as a careless embedder has it.
fn leak(folder: &Path) -> File {
    let file = File::create(folder.join(LEAKED)).expect("creates");
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).expect("sets");
    file
}

/// All or nothing; by the compiler, and by a worker of a module that was compiled before.
fn strict(folder: &Path, missing: &[SandboxLayer]) {
    let Some(first) = missing.first() else {
        lacks(&pool(builder(SandboxPolicy::Strict)), missing);
        return;
    };
    let names = |error: &str| {
        let named = missing.iter().any(|layer| error.contains(&format!("layer `{layer}`")));
        assert!(named, "{error}");
        assert!(error.contains("strict") && error.contains("the policy `best-effort`"), "{error}");
    };
    names(&try_pool(builder(SandboxPolicy::Strict)).expect_err("the compiler does not start"));
    let cache = folder.join("cache");
    let lenient = builder(SandboxPolicy::BestEffort).cache_dir(&cache).build().expect("builds");
    lenient.load(&wasm()).expect("is compiled");
    let error = try_pool(builder(SandboxPolicy::Strict).cache_dir(&cache)).expect_err("no worker starts");
    names(&error);
    // Layers are left out one by one, as each error names the next.
    let without =
        missing.iter().fold(builder(SandboxPolicy::Strict), |builder, layer| builder.sandbox_without(*layer));
    let report = pool(without);
    assert!(missing.iter().all(|layer| !report.has(*layer)), "{first} and others: {report}");
    let error = Doctor::new().sandbox(SandboxPolicy::Strict).run().expect_err("is refused").to_string();
    names(&error);
}

fn succeeded<'a>(report: &'a DoctorReport, attack: &AttackReport) -> &'a AttackReport {
    report.attacks.iter().find(|other| other.name == attack.name).expect("the same attacks")
}

/// A missing layer stops nothing, and must not be said to; a layer that stands stops all that it is there to
/// stop.
fn doctor(missing: &[SandboxLayer]) {
    let report = Doctor::new().run().expect("can be tried");
    lacks(&report.sandbox, missing);
    assert_eq!(report.holes().count(), 0, "{:?}", report.holes().collect::<Vec<_>>());
    for attack in report.succeeded() {
        assert!(attack.against.iter().all(|layer| missing.contains(layer)), "{attack:?}");
    }
    for said in &report.sandbox.layers {
        assert_ne!(said.verified, Some(false), "{said:?}");
        assert!(said.verified.is_none() || said.applied, "{said:?}");
    }
    // The one attack that this layer alone is there to stop comes through, and is shown to.
    let came_through = |name: &str| report.succeeded().any(|attack| attack.name == name);
    assert_eq!(came_through("stat-empty-path"), missing.contains(&SandboxLayer::EmptyRoot));
    assert_eq!(came_through("all-memory"), missing.contains(&SandboxLayer::ResourceLimits));
    let open = Doctor::new().sandbox(SandboxPolicy::Off).run().expect("can be tried");
    for layer in missing {
        let alone = Doctor::new().only(*layer).run().expect("can be tried");
        let said = alone.sandbox.layer(*layer).expect("is reported");
        assert!(said.requested && !said.applied && said.verified.is_none(), "{said:?}");
        assert_eq!(alone.holes().count(), 0, "{:?}", alone.holes().collect::<Vec<_>>());
        let against: Vec<_> = open.succeeded().filter(|attack| attack.against.contains(layer)).collect();
        assert!(!against.is_empty(), "{layer} is against nothing");
        for attack in against {
            let outcome = &succeeded(&alone, attack).outcome;
            // The host kills a worker that holds too much, whether that worker has limits of its own or not.
            let is_the_hosts = *outcome == wasmpool::sandbox::AttackOutcome::Killed(9);
            assert!(
                !outcome.failed() || is_the_hosts,
                "{layer} is said to be missing, and {}: {outcome}",
                attack.name
            );
        }
    }
}

/// `wasmpool doctor --json` says what the library says.
fn command(missing: &[SandboxLayer]) {
    let Some((success, page)) = doctor_command("best-effort") else { return };
    assert!(success && page["ok"] == true, "{page}");
    let report: DoctorReport = serde_json::from_value(page["report"].clone()).expect("is a report");
    lacks(&report.sandbox, missing);
    let Some((success, page)) = doctor_command("strict") else { return };
    assert_eq!((success, &page["ok"]), (missing.is_empty(), &missing.is_empty().into()), "{page}");
    let said = page["error"]["message"].to_string();
    let named = missing.iter().any(|layer| said.contains(&format!("layer `{layer}`")));
    assert!(named || missing.is_empty(), "{said}");
}

/// The command, which is another package's: it stands above the folder of this test once the workspace was
/// built. Its part is left out where only this package was built, unless `WASMPOOL_EXPECT_COMMAND` is set.
pub(crate) fn wasmpool() -> Option<std::process::Command> {
    let own = std::env::current_exe().expect("has a path");
    let path = own.ancestors().nth(2).expect("lies in a folder of the target").join("wasmpool");
    let is_there = path.exists();
    assert!(is_there || std::env::var_os("WASMPOOL_EXPECT_COMMAND").is_none(), "no {}", path.display());
    is_there.then(|| std::process::Command::new(path))
}

/// Returns whether it succeeded, and what it printed.
pub(crate) fn doctor_command(policy: &str) -> Option<(bool, serde_json::Value)> {
    let mut command = wasmpool()?;
    let output = command.env_clear().args(["doctor", "--json", "--sandbox", policy]).output().expect("runs");
    let page = serde_json::from_slice(&output.stdout);
    Some((output.status.success(), page.unwrap_or_else(|error| panic!("{error}: {output:?}"))))
}

pub(crate) fn of_the_cgroup(case: &Case) {
    // The place exists, and nothing may be made in it.
    let place = Path::new("/sys/fs/cgroup");
    let report = pool(builder(SandboxPolicy::BestEffort).cgroup(place));
    lacks(&report, case.missing());
    let reason = &report.layer(SandboxLayer::Cgroup).expect("is reported").reason;
    assert!(reason.contains("/sys/fs/cgroup/wasmpool-"), "{reason}");
    let error = try_pool(builder(SandboxPolicy::Strict).cgroup(place)).expect_err("no worker starts");
    assert!(error.contains("layer `cgroup`") && error.contains("strict"), "{error}");
    lacks(&pool(builder(SandboxPolicy::Strict)), &[]);
}

pub(crate) fn of_what_is_left_out(_: &Case) {
    let without = |policy, layers: &[SandboxLayer]| {
        layers.iter().fold(builder(policy), |builder, layer| builder.sandbox_without(*layer))
    };
    for layer in SandboxLayer::ALL {
        // One that is held against /proc by `pool`.
        let report = match (layer, try_pool(without(SandboxPolicy::Strict, &[layer]))) {
            // An ordinary user has no empty root without namespaces, and is told so.
            (SandboxLayer::Namespaces, Err(error)) if !rustix::process::getuid().is_root() => {
                assert!(error.contains("layer `empty-root`"), "{error}");
                continue;
            }
            (_, report) => report.unwrap_or_else(|error| panic!("without {layer}: {error}")),
        };
        assert_eq!(report.missing().count(), 0, "{report}");
        let said = report.layer(layer).expect("is reported");
        match layer {
            SandboxLayer::Session | SandboxLayer::Descriptors => assert!(said.requested && said.applied),
            // Landlock and seccomp both need it.
            SandboxLayer::NoNewPrivileges => {
                assert!(!said.requested && said.applied && said.reason.contains("stands"), "{said:?}");
            }
            _ => assert!(!said.requested && !said.applied, "{said:?}"),
        }
    }
    let privileges = SandboxLayer::NoNewPrivileges;
    let filter = SandboxLayer::Seccomp;
    let landlock = SandboxLayer::Landlock;
    for other in [filter, landlock] {
        let report = pool(without(SandboxPolicy::BestEffort, &[privileges, other]));
        assert!(report.has(privileges), "{report}");
    }
    let report = pool(without(SandboxPolicy::BestEffort, &[privileges, filter, landlock]));
    let inherited = rustix::thread::no_new_privs().expect("can be asked");
    assert_eq!(report.has(privileges), inherited, "{report}");
}
