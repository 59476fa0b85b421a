//! No worker starts without seccomp or no_new_privs, unless both are done without knowingly.

use wasmpool::error::BuildError;
use wasmpool::sandbox::{Doctor, SandboxLayer, SandboxPolicy};

use super::Case;
use super::reports::{builder, pool, try_pool};

/// Says what is missing, and how to go on.
fn explains(error: &str, what: &str) {
    for part in [what, "the policy `off`"] {
        assert!(error.contains(part), "no {part:?} in: {error}");
    }
}

fn is_done_without_knowingly(layer: SandboxLayer) {
    let off = pool(builder(SandboxPolicy::Off));
    assert!(!off.has(SandboxLayer::Seccomp), "{off}");
    if layer == SandboxLayer::Seccomp {
        let report = pool(builder(SandboxPolicy::BestEffort).sandbox_without(layer));
        let said = report.layer(layer).expect("is reported");
        assert!(!said.requested && !said.applied, "{said:?}");
        assert!(report.has(SandboxLayer::Landlock) && report.has(SandboxLayer::Namespaces), "{report}");
        assert_eq!(report.missing().count(), 0, "{report}");
    }
}

fn doctors_say_so(what: &str) {
    for policy in [SandboxPolicy::BestEffort, SandboxPolicy::Strict] {
        match Doctor::new().sandbox(policy).run() {
            Err(BuildError::SandboxRefused { message }) => {
                // A policy that demands all layers reports the first that is missing.
                let is_strict = policy == SandboxPolicy::Strict && message.contains("cannot be applied");
                assert!(is_strict || message.contains(what), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
    let report = Doctor::new().sandbox(SandboxPolicy::Off).run().expect("can be tried");
    assert_eq!(report.holes().count(), 0, "{:?}", report.holes().collect::<Vec<_>>());
    assert!(report.succeeded().any(|attack| attack.name == "io-uring"), "nothing stops it");
    if let Some((success, page)) = super::reports::doctor_command("best-effort") {
        assert!(!success && page["ok"] == false, "{page}");
        let said = page["error"]["message"].to_string();
        explains(&said, what);
    }
}

pub(crate) fn is_not_there(_: &Case) {
    for policy in [SandboxPolicy::BestEffort, SandboxPolicy::Strict] {
        match builder(policy).build() {
            Err(error @ BuildError::NoSeccomp) => explains(&error.to_string(), "no seccomp filters"),
            other => panic!("{other:?}"),
        }
    }
    is_done_without_knowingly(SandboxLayer::Seccomp);
    doctors_say_so("layer `seccomp`");
}

pub(crate) fn refuses_in_the_end(_: &Case) {
    explains(
        &try_pool(builder(SandboxPolicy::BestEffort)).expect_err("nothing starts"),
        "layer `seccomp` cannot be applied",
    );
    is_done_without_knowingly(SandboxLayer::Seccomp);
    doctors_say_so("layer `seccomp`");
}

/// An ordinary user has played this by a filter, for which it had to set it: that is inherited.
pub(crate) fn has_no_new_privileges_to_stand_on(_: &Case) {
    let inherited = rustix::thread::no_new_privs().expect("can be asked");
    let what = if inherited { "layer `seccomp`" } else { "layer `no-new-privs`" };
    explains(&try_pool(builder(SandboxPolicy::BestEffort)).expect_err("nothing starts"), what);
    is_done_without_knowingly(SandboxLayer::NoNewPrivileges);
    let off = pool(builder(SandboxPolicy::Off));
    let said = off.layer(SandboxLayer::NoNewPrivileges).expect("is reported");
    assert_eq!((said.requested, said.applied), (true, inherited), "{said:?}");
    doctors_say_so(what);
}
