//! Nothing beyond the directories can be reached, by tasks or by an attacker who has taken a worker over.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use wasmpool::sandbox::{AttackOutcome, DirAccess, Doctor, SandboxLayer};

use super::{Guest, PERM, Place};
use crate::support;

/// Makes guests with all layers, and with WASI's own care alone.
fn guests(place: &Place) -> [Guest; 3] {
    let build = || support::builder(1).dir(place.path("dir"), "/dir", DirAccess::ReadWrite);
    let off = build().sandbox(wasmpool::sandbox::SandboxPolicy::Off);
    let landlock_less = build().sandbox_without(SandboxLayer::Landlock);
    [build(), off, landlock_less].map(Guest::new)
}

#[test]
fn neither_dots_nor_absolute_paths_nor_links_lead_out() {
    let place = Place::new();
    let dir = place.dir("dir");
    place.dir("dir/sub");
    place.dir("beside");
    let secret = place.path("secret");
    symlink("../secret", dir.join("up")).expect("is made");
    symlink(&secret, dir.join("absolute")).expect("is made");
    symlink("..", dir.join("parent")).expect("is made");
    symlink("../..", dir.join("sub/parent")).expect("is made");
    symlink("/proc/self/root", dir.join("proc")).expect("is made");
    for guest in guests(&place) {
        let secret = secret.to_str().expect("a text");
        let ways = [
            "../secret",
            "sub/../../secret",
            "./../secret",
            secret,
            "up",
            "absolute",
            "parent/secret",
            "sub/parent/secret",
            "proc/etc/passwd",
            "/etc/passwd",
            "../../../../../../../etc/passwd",
            "/dir/../secret",
        ];
        for way in ways {
            for task in ["read", "write", "append", "stat_followed", "touch", "unlink_beyond"] {
                let task = task.strip_suffix("_beyond").unwrap_or(task);
                // A task may remove or look at a link itself; the others follow it.
                if task == "unlink" && !way.contains('/') {
                    continue;
                }
                assert!(guest.ask(task, 3, way, "x").is_err(), "{task} {way}");
            }
        }
        for way in ["..", "../beside", "parent", "sub/parent", "/", "sub/../.."] {
            assert!(guest.names(3, way).is_err(), "list {way}");
            assert!(guest.ask("make_dir", 3, &format!("{way}/new"), "").is_err(), "make {way}/new");
        }
        for (task, first, second) in [
            ("rename", "sub", "../sub"),
            ("rename", "../secret", "mine"),
            ("link", "../secret", "mine"),
            ("link", "absolute/../secret", "mine"),
            ("symlink", "x", "../made"),
        ] {
            assert!(guest.ask(task, 3, first, second).is_err(), "{task} {first} {second}");
        }
        guest.assert_nobody_died();
    }
    assert_eq!(fs::read_to_string(&secret).expect("is there"), "the secret");
    assert_eq!(fs::read_dir(place.path("beside")).expect("reads").count(), 0);
}

#[test]
fn a_link_that_a_task_makes_leads_nowhere_either() {
    let place = Place::new();
    place.dir("dir");
    for guest in guests(&place) {
        // WASI makes no link to an absolute path, and follows none out of the directory.
        assert!(guest.ask("symlink", 3, "/etc/passwd", "absolute").is_err());
        let _ = guest.ask("symlink", 3, "../secret", "out");
        assert!(guest.ask("read", 3, "out", "").is_err());
        let _ = guest.ask("unlink", 3, "out", "");
        guest.assert_nobody_died();
    }
}

/// A link is followed on the host as what it is, by whoever names it.
#[test]
fn no_link_that_leads_out_is_made_or_moved() {
    let place = Place::new();
    let dir = place.dir("dir");
    place.dir("dir/sub");
    let user = rustix::process::getuid().as_raw();
    symlink("..", dir.join("sub/up")).expect("is made");
    symlink("/etc", dir.join("sub/root")).expect("is made");
    symlink("sub", dir.join("down")).expect("is made");
    let guest = Guest::in_dir(&dir, DirAccess::ReadWrite);
    for target in
        ["..", "../secret", "sub/..", "sub/../x", "./..", "a/../..", "//etc", "/", "../", ".", "./."]
    {
        let refused = guest.ask("symlink", 3, target, "made");
        assert_eq!(refused, Err(PERM), "{target}");
    }
    for task in ["rename", "link"] {
        for from in ["sub/up", "down/up", "./sub//up", "sub/root", "sub/up/"] {
            let refused = guest.ask(task, 3, from, "made");
            assert!(refused.is_err(), "{task} {from}");
        }
    }
    assert!(fs::symlink_metadata(dir.join("made")).is_err());
    // A link that leads downwards is one like any other, wherever it stands.
    for (task, first, second) in [
        ("symlink", "sub", "made"),
        ("symlink", "...", "dots"),
        ("rename", "made", "sub/moved"),
        ("rename", "sub/moved", "made"),
        ("link", "made", "sub/second"),
        ("make_dir", "a", ""),
        ("write", "a/f", "text"),
        ("rename", "a/f", "sub/f"),
        ("link", "sub/f", "a/g"),
        ("rename", "a", "b"),
    ] {
        assert_eq!(guest.ask(task, 3, first, second), Ok(Vec::new()), "{task} {first} {second}");
    }
    assert_eq!(guest.text("read", 3, "made/f"), Ok("text".into()));
    guest.assert_nobody_died();
    for path in ["sub/up", "sub/root"] {
        assert_eq!(fs::symlink_metadata(dir.join(path)).expect("is there").uid(), user, "{path}");
    }
}

/// Native code, as if the first wall were gone.
#[test]
fn a_worker_that_is_taken_over_does_not_get_beyond_its_directories() {
    for access in [DirAccess::ReadOnly, DirAccess::ReadWrite] {
        let report = Doctor::new().with_dirs(access).run().expect("can be tried");
        assert!(report.attacks.iter().any(|attack| attack.name == "dir-stat-beyond"));
        if report.sandbox.has(SandboxLayer::EmptyRoot) {
            let succeeded: Vec<_> = report.succeeded().collect();
            assert!(succeeded.is_empty(), "{access}: {succeeded:?}");
        }
        let holes: Vec<_> = report.holes().collect();
        assert!(holes.is_empty(), "{access}: {holes:?}");
        let unknown = |outcome: &AttackOutcome| matches!(outcome, AttackOutcome::Unknown(_));
        let unknown: Vec<_> = report.attacks.iter().filter(|attack| unknown(&attack.outcome)).collect();
        assert!(unknown.is_empty(), "{access}: {unknown:?}");
    }
}

#[test]
fn each_layer_alone_keeps_a_worker_in_its_directories_as_far_as_it_says() {
    let layers = [SandboxLayer::Landlock, SandboxLayer::EmptyRoot, SandboxLayer::Seccomp];
    for layer in layers {
        let report = Doctor::new().only(layer).with_dirs(DirAccess::ReadWrite).run().expect("can be tried");
        let holes: Vec<_> = report.holes().collect();
        assert!(holes.is_empty(), "{layer} alone: {holes:?}");
        let came_of = |name: &str| {
            let attack = report.attacks.iter().find(|attack| attack.name == name);
            attack.expect("is tried").outcome.clone()
        };
        let stands = report.sandbox.has(layer);
        for name in ["dir-read-beyond", "dir-write-beyond", "dir-create-beyond", "dir-climb"] {
            let held = layer != SandboxLayer::Seccomp;
            assert!(!stands || came_of(name).failed() == held, "{layer}, {name}: {}", came_of(name));
        }
    }
}

/// Attacks that fail anyway would prove nothing.
#[test]
fn without_a_wall_the_way_out_of_a_directory_is_open() {
    let doctor = Doctor::new().sandbox(wasmpool::sandbox::SandboxPolicy::Off).with_dirs(DirAccess::ReadWrite);
    let report = doctor.run().expect("can be tried");
    for name in ["dir-read-beyond", "dir-write-beyond", "dir-stat-beyond", "dir-climb", "dir-link-beyond"] {
        let attack = report.attacks.iter().find(|attack| attack.name == name).expect("is tried");
        assert!(matches!(attack.outcome, AttackOutcome::Succeeded(_)), "{name}: {}", attack.outcome);
    }
}

#[test]
fn what_is_not_on_the_list_of_a_worker_with_directories_kills() {
    const SIGSYS: i32 = 31;
    for access in [DirAccess::ReadOnly, DirAccess::ReadWrite] {
        let doctor = Doctor::new().with_dirs(access);
        let allowed = Doctor::system_calls_with_dirs(access);
        println!("{access}: {} calls, {} without", allowed.len(), Doctor::system_calls().len());
        let listed = |number: &i64| allowed.iter().any(|(_, allowed)| allowed == number);
        let answered = [
            libc::SYS_statx,
            libc::SYS_mremap,
            libc::SYS_memfd_create,
            libc::SYS_faccessat,
            libc::SYS_faccessat2,
        ];
        // 335 and 336 are the kernel's own.
        let numbers = (0..=470).filter(|number| !listed(number) && !answered.contains(number));
        let calls: Vec<_> = numbers.filter(|n| ![335, 336].contains(n)).map(|n| (n, [0; 6])).collect();
        let outcomes = doctor.try_calls(false, &calls).expect("can be tried");
        for ((number, _), outcome) in calls.iter().zip(outcomes) {
            assert_eq!(outcome, AttackOutcome::Killed(SIGSYS), "{access}, system call {number}");
        }
        let open = |flags: i32| (libc::SYS_openat, [u64::MAX, 0, flags as u64, 0, 0, 0]);
        let stat = |flags: u64| (libc::SYS_newfstatat, [u64::MAX, 0, 0, flags, 0, 0]);
        let control = |command: i32| (libc::SYS_fcntl, [0, command as u64, 0, 0, 0, 0]);
        let through =
            [open(libc::O_RDONLY), stat(0x100), stat(0x1000), control(libc::F_GETFL), control(libc::F_SETFL)];
        for (call, outcome) in through.iter().zip(doctor.try_calls(false, &through).expect("can be tried")) {
            assert!(!matches!(outcome, AttackOutcome::Killed(_)), "{access}, {call:?}: {outcome}");
        }
        let mut killed = vec![stat(0), stat(0x200), control(libc::F_SETOWN), control(libc::F_DUPFD)];
        if access == DirAccess::ReadOnly {
            let flags = [libc::O_WRONLY, libc::O_RDWR, libc::O_CREAT, libc::O_TRUNC, libc::O_ACCMODE];
            killed.extend(flags.map(open));
        }
        for (call, outcome) in killed.iter().zip(doctor.try_calls(false, &killed).expect("can be tried")) {
            assert_eq!(outcome, AttackOutcome::Killed(SIGSYS), "{access}, {call:?}");
        }
    }
}
