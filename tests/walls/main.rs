//! The second wall as if the first were gone: native code in throw-away workers attacks what is
//! around them. It does so with all layers, with each alone and with none; and the filter is tried number by number.
//!
//! This suite has an executable of its own because attacks without a wall succeed, against their parent process
//! too.

use std::fmt::Write as _;

use wasmpool::Pool;
use wasmpool::sandbox::{AttackOutcome, Doctor, DoctorReport, SandboxLayer, SandboxPolicy};

wasmpool::init_at_load!();

/// `uretprobe` and `uprobe`: the kernel keeps them past every filter (Linux 6.11 and 6.18), and refuses
/// them to whoever does not come from its own trampoline.
const KERNELS_OWN: [i64; 2] = [335, 336];

const SIGABRT: i32 = 6;
const SIGSEGV: i32 = 11;
const SIGSYS: i32 = 31;

fn examine(doctor: &Doctor) -> DoctorReport {
    let report = doctor.run().expect("it can be tried");
    let unknown: Vec<_> =
        report.attacks.iter().filter(|attack| matches!(attack.outcome, AttackOutcome::Unknown(_))).collect();
    assert!(unknown.is_empty(), "nobody knows what came of {unknown:?}");
    report
}

#[test]
fn with_all_layers_no_attack_succeeds() {
    let report = examine(&Doctor::new().sandbox(SandboxPolicy::BestEffort));
    assert!(report.attacks.len() >= 40, "{}", report.attacks.len());
    let succeeded: Vec<_> = report.succeeded().collect();
    assert!(succeeded.is_empty(), "{succeeded:?}");
    for layer in report.sandbox.layers.iter().filter(|layer| layer.applied) {
        assert_ne!(layer.verified, Some(false), "{layer:?}");
    }
    assert_eq!(report.sandbox.layer(SandboxLayer::Seccomp).and_then(|layer| layer.verified), Some(true));
}

/// Attacks that fail anyway would prove nothing.
#[test]
fn without_a_wall_most_attacks_succeed() {
    let report = examine(&Doctor::new().sandbox(SandboxPolicy::Off));
    let succeeded = report.succeeded().count();
    assert!(succeeded >= 40, "only {succeeded} of {} succeed without a wall", report.attacks.len());
    assert_eq!(report.holes().count(), 0, "{:?}", report.holes().collect::<Vec<_>>());
}

/// Prints the table; `WASMPOOL_BLESS=1` writes it to `table.txt`, which is for SECURITY.md.
#[test]
fn each_layer_alone_stops_what_it_is_there_to_stop() {
    let columns = [
        ("none", Doctor::new().sandbox(SandboxPolicy::Off)),
        ("rlimits", Doctor::new().only(SandboxLayer::ResourceLimits)),
        ("identity", Doctor::new().only(SandboxLayer::Identity)),
        ("names", Doctor::new().only(SandboxLayer::Namespaces)),
        ("root", Doctor::new().only(SandboxLayer::EmptyRoot)),
        ("caps", Doctor::new().only(SandboxLayer::Capabilities)),
        ("undump", Doctor::new().only(SandboxLayer::NotDumpable)),
        ("landlock", Doctor::new().only(SandboxLayer::Landlock)),
        ("seccomp", Doctor::new().only(SandboxLayer::Seccomp)),
        ("all", Doctor::new()),
    ];
    let reports: Vec<_> = columns.iter().map(|(_, doctor)| examine(doctor)).collect();
    let mut table = format!("{:<22}", "attack");
    columns.iter().for_each(|(name, _)| write!(table, " {name:>8}").expect("a string"));
    table.push('\n');
    for (row, attack) in reports[0].attacks.iter().enumerate() {
        write!(table, "{:<22}", attack.name).expect("a string");
        for report in &reports {
            let cell = match &report.attacks[row].outcome {
                AttackOutcome::Succeeded(_) => "OPEN",
                AttackOutcome::Killed(SIGSYS) => "killed",
                AttackOutcome::Killed(_) => "died",
                _ => "refused",
            };
            write!(table, " {cell:>8}").expect("a string");
        }
        table.push('\n');
    }
    print!("{table}");
    for ((name, _), report) in columns.iter().zip(&reports) {
        let holes: Vec<_> = report.holes().collect();
        assert!(holes.is_empty(), "{name} alone: {holes:?}");
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/walls/table.txt");
    if std::env::var_os("WASMPOOL_BLESS").is_some() {
        std::fs::write(path, &table).expect("writes");
    }
    let names = |table: &str| {
        let names = table.lines().filter_map(|line| line.split(' ').next());
        names.map(str::to_string).collect::<Vec<_>>()
    };
    let kept = std::fs::read_to_string(path).expect("reads");
    assert_eq!(names(&kept), names(&table), "WASMPOOL_BLESS=1 writes the table anew");
    let security =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/SECURITY.md")).expect("reads");
    assert!(security.contains(&kept), "SECURITY.md has another table than tests/walls/table.txt");
}

#[test]
fn every_system_call_that_is_not_listed_kills() {
    assert!(Doctor::system_calls().len() <= 30, "{:?}", Doctor::system_calls());
    for as_compiler in [false, true] {
        let (allowed, answered) = Doctor::system_calls_of(as_compiler);
        let listed = |number: &i64| allowed.contains(number) || answered.contains(number);
        let numbers: Vec<i64> = (0..=470).filter(|number| !listed(number)).collect();
        let calls: Vec<_> = numbers.iter().map(|number| (*number, [0; 6])).collect();
        let outcomes = Doctor::new().try_calls(as_compiler, &calls).expect("can be tried");
        for (number, outcome) in numbers.iter().zip(outcomes) {
            if KERNELS_OWN.contains(number) {
                assert!(!matches!(outcome, AttackOutcome::Succeeded(_)), "system call {number}: {outcome}");
                continue;
            }
            assert_eq!(outcome, AttackOutcome::Killed(SIGSYS), "system call {number}");
        }
        let refused: Vec<_> = answered.iter().map(|number| (*number, [0; 6])).collect();
        for outcome in Doctor::new().try_calls(as_compiler, &refused).expect("can be tried") {
            assert!(
                matches!(&outcome, AttackOutcome::Refused(why) if why.contains("os error 38")),
                "{outcome}"
            );
        }
    }
}

/// The same numbers of the other ABI of x86-64 are other calls.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_x32_numbers_of_listed_calls_kill() {
    let (allowed, _) = Doctor::system_calls_of(false);
    let calls: Vec<_> = allowed.iter().map(|number| (number | 0x4000_0000, [0; 6])).collect();
    for outcome in Doctor::new().try_calls(false, &calls).expect("can be tried") {
        assert_eq!(outcome, AttackOutcome::Killed(SIGSYS));
    }
}

/// A system call with its arguments.
type Call = (i64, [u64; 6]);

// Protections of a mapping.
const READ: u64 = 1;
const WRITE: u64 = 2;
const EXEC: u64 = 4;

// Flags of a mapping.
const SHARED: u64 = 1;
const OWN: u64 = 2;
const SHARED_VALIDATE: u64 = 3;
const DROPPABLE: u64 = 8;
const FIXED: u64 = 0x10;
const ANONYMOUS: u64 = 0x20;
const GROWS_DOWN: u64 = 0x100;
const LOCKED: u64 = 0x2000;
const NO_RESERVE: u64 = 0x4000;
const POPULATE: u64 = 0x8000;
const STACK: u64 = 0x2_0000;
const HUGE: u64 = 0x4_0000;
const FIXED_ONCE: u64 = 0x10_0000;

// Advice for a mapping.
const FREE: u64 = 8;
const HUGE_PAGE: u64 = 14;
const NO_HUGE_PAGE: u64 = 15;
const NO_DUMP: u64 = 16;
const DUMP: u64 = 17;

/// `prctl`'s option that names a mapping.
const NAME_MAPPING: u64 = 0x5356_4d41;

// Operations on a futex, and their flags.
const WAIT: u64 = 0;
const WAKE: u64 = 1;
const REQUEUE: u64 = 3;
const LOCK_PI: u64 = 6;
const WAIT_BITSET: u64 = 9;
const WAKE_BITSET: u64 = 10;
const PRIVATE: u64 = 128;
const REALTIME: u64 = 256;

/// The kernel looks at the lower half of such an argument; the filter must look at both.
const UPPER: u64 = 1 << 32;

fn map_as(protection: u64, flags: u64) -> Call {
    (libc::SYS_mmap, [0, 4096, protection, flags, u64::MAX, 0])
}

fn map(protection: u64) -> Call {
    map_as(protection, OWN | ANONYMOUS)
}

fn advise(advice: u64) -> Call {
    (libc::SYS_madvise, [0, 0, advice, 0, 0, 0])
}

fn control(option: u64, argument: u64) -> Call {
    (libc::SYS_prctl, [option, argument, 0, 0, 0, 0])
}

fn protect(protection: u64) -> Call {
    (libc::SYS_mprotect, [0, 0, protection, 0, 0, 0])
}

fn stat(flags: u64) -> Call {
    (libc::SYS_newfstatat, [u64::MAX, 0, 0, flags, 0, 0])
}

/// Names no address: a waiter that is given one that is not there returns at once.
fn futex(operation: u64) -> Call {
    (libc::SYS_futex, [0, operation, 0, 0, 0, 0])
}

fn assert_killed(as_compiler: bool, calls: &[Call]) {
    let outcomes = Doctor::new().try_calls(as_compiler, calls).expect("can be tried");
    for (call, outcome) in calls.iter().zip(outcomes) {
        assert_eq!(outcome, AttackOutcome::Killed(SIGSYS), "{call:?}");
    }
}

#[test]
fn every_condition_of_the_filter_lets_through() {
    let through = [
        map(READ),
        map(READ | WRITE),
        map(0),
        map_as(READ | WRITE, OWN),
        map_as(READ | WRITE, OWN | ANONYMOUS | NO_RESERVE | STACK),
        map_as(READ | WRITE, OWN | ANONYMOUS | FIXED_ONCE),
        map_as(READ, SHARED),
        advise(4),
        advise(FREE),
        advise(HUGE_PAGE),
        advise(NO_HUGE_PAGE),
        advise(NO_DUMP),
        advise(DUMP),
        control(NAME_MAPPING, 0),
        (libc::SYS_mremap, [0, 4096, 8192, 1, 0, 0]),
        protect(READ | WRITE),
        protect(READ | EXEC),
        stat(0x1000),
        futex(WAIT),
        futex(WAKE | PRIVATE),
        futex(WAIT_BITSET | PRIVATE | REALTIME),
        futex(WAKE_BITSET),
    ];
    let outcomes = Doctor::new().try_calls(false, &through).expect("can be tried");
    for (call, outcome) in through.iter().zip(outcomes) {
        assert!(!matches!(outcome, AttackOutcome::Killed(_)), "{call:?}: {outcome}");
    }
}

#[test]
fn every_condition_of_the_filter_kills() {
    assert_killed(
        false,
        &[
            futex(REQUEUE),
            futex(REQUEUE | PRIVATE),
            futex(LOCK_PI),
            futex(WAIT | 2),
            futex(WAKE | 4),
            futex(WAKE | 512),
            futex(u64::from(u32::MAX)),
            map(EXEC),
            map(READ | WRITE | EXEC),
            map(EXEC | UPPER),
            map_as(READ | WRITE, SHARED),
            map_as(WRITE, SHARED),
            map_as(0, SHARED),
            map_as(READ | UPPER, SHARED),
            map_as(READ, SHARED | ANONYMOUS),
            map_as(READ, SHARED_VALIDATE),
            map_as(READ | WRITE, SHARED | ANONYMOUS),
            map_as(READ | WRITE, SHARED_VALIDATE | ANONYMOUS),
            map_as(READ | WRITE, DROPPABLE | ANONYMOUS),
            map_as(READ | WRITE, ANONYMOUS),
            map_as(READ | WRITE, OWN | ANONYMOUS | GROWS_DOWN),
            map_as(READ | WRITE, OWN | ANONYMOUS | LOCKED),
            map_as(READ | WRITE, OWN | ANONYMOUS | POPULATE),
            map_as(READ | WRITE, OWN | ANONYMOUS | HUGE),
            map_as(READ | WRITE, OWN | ANONYMOUS | UPPER),
            map_as(READ | WRITE | EXEC, OWN | ANONYMOUS | FIXED),
            advise(3),
            advise(9),
            advise(12),
            advise(22),
            advise(23),
            advise(102),
            control(NAME_MAPPING, 1),
            control(22, 2),
            protect(WRITE | EXEC),
            protect(WRITE | EXEC | UPPER),
            stat(0),
            stat(0x100),
            stat(0x1000 | UPPER),
            (libc::SYS_tgkill, [1, 1, SIGABRT as u64, 0, 0, 0]),
            (libc::SYS_tgkill, [u64::from(std::process::id()), 0, SIGABRT as u64, 0, 0, 0]),
        ],
    );
}

/// The compiler may use a thread's flags and no others, and name a thread and change nothing else of it.
#[test]
fn every_condition_of_the_compilers_filter_kills() {
    assert_killed(
        true,
        &[
            (libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0, 0, 0, 0]),
            (libc::SYS_clone, [libc::CLONE_NEWUSER as u64, 0, 0, 0, 0, 0]),
            (libc::SYS_prctl, [libc::PR_SET_DUMPABLE as u64, 1, 0, 0, 0, 0]),
        ],
    );
}

/// A policy's verdict must not be mistaken for a bug, nor a bug for one.
#[test]
fn a_panic_behind_the_wall_is_an_abort_and_a_crash_is_a_crash() {
    let [panic, crash] = Doctor::new().try_ends().expect("can be tried");
    assert_eq!(panic, AttackOutcome::Killed(SIGABRT));
    assert_eq!(crash, AttackOutcome::Killed(SIGSEGV));
}

#[test]
fn a_pool_that_is_to_be_verified_says_so_of_each_layer() {
    let pool = Pool::builder().workers(1).verify_sandbox(true).build().expect("builds");
    let events = pool.events();
    pool.prestart(1);
    let report = events.into_iter().find_map(|event| match event.kind {
        wasmpool::event::EventKind::WorkerReady { sandbox, .. } => Some(sandbox),
        _ => None,
    });
    let report = report.expect("a worker");
    assert_eq!(report.layer(SandboxLayer::Seccomp).and_then(|layer| layer.verified), Some(true), "{report}");
}
