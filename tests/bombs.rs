//! Modules made to cost the compiler minutes or gigabytes end at their limits, and cost it once.
//!
//! This suite has an executable of its own because it counts and measures every compiler that its process starts.

mod support;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use support::{Guarded, PATIENCE, bombs, build, builder, is_child, raw, wat};
use wasmpool::error::ModuleError;
use wasmpool::limits::{CompileLimit, CompileLimits};
use wasmpool::module::ModuleOptions;
use wasmpool::sandbox::{SandboxLayer, SandboxPolicy};
use wasmpool::{Module, PoolBuilder};

/// The time that a busy machine may add to a deadline; `benches/bombs.rs` has the figures.
const SLACK: Duration = Duration::from_secs(10);

const MIB: u64 = 1 << 20;

/// Children of this process are counted: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn uncached(limits: CompileLimits) -> PoolBuilder {
    builder(1).without_cache().compile_limits(limits)
}

fn refused(pool: &Guarded, wasm: &[u8]) -> Refusal {
    refusal(pool.load(wasm))
}

#[derive(Debug, PartialEq)]
struct Refusal {
    kind: CompileLimit,
    limit: u64,
    seen: u64,
    function: Option<u32>,
    quarantined: bool,
}

fn refusal(loaded: Result<Module, ModuleError>) -> Refusal {
    match loaded.expect_err("it must be refused") {
        ModuleError::CompileLimit { kind, limit, seen, function, quarantined, .. } => {
            Refusal { kind, limit, seen, function, quarantined }
        }
        other => panic!("{other:?}"),
    }
}

/// Loads it until it is in quarantine, and holds each attempt against the rule: whoever went over the
/// memory, or over the time with a tenth of it on a CPU, is in quarantine from then on, and nobody else.
/// `false` if the machine is so busy that the module never had its tenth, and is rightly not blamed.
fn comes_to_quarantine(pool: &Guarded, wasm: &[u8], first: &Refusal) -> bool {
    const ATTEMPTS: usize = 8;
    let mut is_to_blame = is_to_blame(first);
    for _ in 0..ATTEMPTS {
        let refusal = refused(pool, wasm);
        assert_eq!(refusal.quarantined, is_to_blame, "after {first:?}: {refusal:?}");
        if refusal.quarantined {
            return true;
        }
        is_to_blame = self::is_to_blame(&refusal);
    }
    eprintln!("the machine is too busy: no tenth of {} ms on a CPU in {ATTEMPTS} attempts", first.limit);
    false
}

fn is_to_blame(refusal: &Refusal) -> bool {
    refusal.kind != CompileLimit::Time || refusal.seen >= refusal.limit / 10
}

/// The compiler processes of this one, while it lives: which there were, how many at a time, and the
/// most that one of them had resident.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

#[derive(Default, Debug)]
struct Seen {
    pids: BTreeSet<u32>,
    at_a_time: usize,
    peak_bytes: u64,
}

impl Watch {
    fn new() -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let mut seen = Seen::default();
                while !stop.load(Ordering::Relaxed) {
                    seen.look();
                    std::thread::sleep(Duration::from_millis(1));
                }
                seen
            }
        });
        Watch { stop, thread }
    }

    fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("watches")
    }
}

impl Seen {
    fn look(&mut self) {
        let compilers = compilers();
        self.at_a_time = self.at_a_time.max(compilers.len());
        for pid in compilers {
            self.pids.insert(pid);
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
            self.peak_bytes =
                self.peak_bytes.max(kib.map_or(0, |kib| kib.parse::<u64>().expect("a number") * 1024));
        }
    }
}

fn compilers() -> Vec<u32> {
    let threads = std::fs::read_dir("/proc/self/task").expect("reads").flatten();
    let children =
        threads.map(|thread| std::fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    let pids: Vec<u32> = children
        .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect::<Vec<_>>())
        .collect();
    pids.into_iter()
        .filter(|pid| {
            let name = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            name.starts_with(b"wasmpool-compiler\0") && is_child(*pid)
        })
        .collect()
}

/// A copy of this program as the pool's own, which can be made unable to start.
struct Program(tempfile::TempDir);

impl Program {
    fn new() -> Program {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::copy(std::env::current_exe().expect("a path"), dir.path().join("worker")).expect("copies");
        Program(dir)
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("worker")
    }

    /// Makes every start of the program an error from here on.
    fn forbid(&self) {
        std::fs::set_permissions(self.path(), std::fs::Permissions::from_mode(0o600)).expect("changes");
    }
}

/// Every bomb of its kind, and the bound that stops it; the others are lifted.
fn by_shape() -> Vec<(&'static str, CompileLimit, Vec<u8>)> {
    vec![
        ("80,000 loops in loops", CompileLimit::LoopNesting, bombs::nested_loops(80_000)),
        ("40,000 blocks in blocks", CompileLimit::Nesting, bombs::nested_blocks(40_000)),
        ("1,500 br_tables of 1,500 targets", CompileLimit::BranchTargets, bombs::br_tables(1500, 1500)),
        ("80,000 joins", CompileLimit::Blocks, bombs::joins(80_000, 1)),
        ("80,000 joins in a loop", CompileLimit::Blocks, bombs::joins_in_a_loop(80_000, 10)),
        ("900,000 functions", CompileLimit::Functions, bombs::trivial_functions(900_000)),
        ("one function of 7 MB", CompileLimit::FunctionBytes, bombs::straight_line(6_000_000)),
        ("1,000 blocks of 1,000 values", CompileLimit::BlockValues, bombs::wide_blocks(1000, 1000)),
        ("40,000 locals", CompileLimit::Locals, bombs::joins(100, 40_000)),
        ("1,000 handlers of 1,000 calls", CompileLimit::BranchTargets, bombs::handlers(1000, 1000)),
    ]
}

#[test]
fn with_the_default_limits_each_bomb_is_refused_by_its_shape_and_costs_one_process() {
    let _alone = alone();
    let program = Program::new();
    let pool = build(uncached(CompileLimits::new()).worker_program(program.path()));
    let mut first = Vec::new();
    for (name, _, wasm) in by_shape() {
        let began = Instant::now();
        let refusal = refused(&pool, &wasm);
        let is_shape =
            !matches!(refusal.kind, CompileLimit::Time | CompileLimit::CpuTime | CompileLimit::Memory);
        assert!(is_shape, "{name}: {refusal:?}");
        assert_eq!(refusal.limit, CompileLimits::new().get(refusal.kind));
        assert!(refusal.seen > refusal.limit && !refusal.quarantined, "{name}: {refusal:?}");
        assert!(began.elapsed() < SLACK, "{name}: {:?}", began.elapsed());
        first.push((wasm, refusal));
    }
    program.forbid();
    for (wasm, refusal) in first {
        assert_eq!(refused(&pool, &wasm), Refusal { quarantined: true, ..refusal });
    }
    let unknown = pool.load(&bombs::trivial_functions(1)).expect_err("nothing can be started");
    assert!(matches!(unknown, ModuleError::Compiler { .. }), "{unknown:?}");
}

#[test]
fn each_bound_of_the_shape_stops_its_bomb_by_itself() {
    let _alone = alone();
    for (name, kind, wasm) in by_shape() {
        let only = CompileLimits::trusted().with(kind, CompileLimits::new().get(kind));
        let refusal = refused(&build(uncached(only)), &wasm);
        assert_eq!(refusal.kind, kind, "{name}");
        let in_a_function = !matches!(kind, CompileLimit::Functions);
        assert_eq!(refusal.function, in_a_function.then_some(0), "{name}");
    }
}

#[test]
fn whatever_its_shape_each_bomb_ends_at_its_time_or_memory() {
    let _alone = alone();
    let timeout = Duration::from_secs(1);
    let memory = 512 * MIB;
    let limits = CompileLimits::trusted().cpu_time(timeout).memory_bytes_max(memory);
    let program = Program::new();
    let pool = build(uncached(limits.clone()).worker_program(program.path()));
    let echo = raw(&wat(&pool, support::ECHO_WAT), "echo");
    let mut first = Vec::new();
    // The remaining bombs compile within a second, on a fast machine.
    let slow = by_shape()
        .into_iter()
        .filter(|(_, kind, _)| !matches!(kind, CompileLimit::Nesting | CompileLimit::Locals));
    for (name, _, wasm) in slow {
        let watch = Watch::new();
        let began = Instant::now();
        let refusal = refused(&pool, &wasm);
        let took = began.elapsed();
        let seen = watch.end();
        assert!(took < timeout + SLACK, "{name}: {took:?}");
        assert!(seen.peak_bytes <= memory / 10 * 11, "{name}: {} MiB", seen.peak_bytes / MIB);
        assert_eq!(seen.pids.len(), 1, "{name}");
        match refusal.kind {
            CompileLimit::CpuTime => {
                assert_eq!(refusal.limit, 1000, "{name}");
                // The host looks at the compiler's own clock, and comes later on a busy machine.
                assert!((1000..1500).contains(&refusal.seen), "{name}: {refusal:?}");
            }
            CompileLimit::Memory => {
                assert_eq!(refusal.limit, memory, "{name}");
                assert!(refusal.seen >= memory, "{name}: {refusal:?}");
            }
            other => panic!("{name}: {other:?}"),
        }
        assert!(!refusal.quarantined, "{name}");
        if comes_to_quarantine(&pool, &wasm, &refusal) {
            first.push((wasm, refusal));
        }
        assert!(compilers().is_empty(), "{name}");
        assert_eq!(pool.submit_bytes(&echo, "on").expect("submits").result().expect("echoes"), "on");
    }
    program.forbid();
    for (wasm, refusal) in first {
        let again = refused(&pool, &wasm);
        assert!(again.quarantined && again.limit == refusal.limit, "{again:?}");
    }
}

#[test]
fn a_compiler_without_memory_names_the_limit_and_what_was_needed() {
    let _alone = alone();
    let memory = 128 * MIB;
    let pool = build(uncached(CompileLimits::trusted().memory_bytes_max(memory)));
    for wasm in
        [bombs::wide_blocks(1000, 1000), bombs::br_tables(1000, 1000), bombs::trivial_functions(200_000)]
    {
        let refusal = refused(&pool, &wasm);
        assert_eq!((refusal.kind, refusal.limit), (CompileLimit::Memory, memory));
        assert!(refusal.seen >= memory, "{refusal:?}");
        let message = pool.load(&wasm).expect_err("is in quarantine").to_string();
        assert!(message.contains("memory_bytes_max") && message.contains("quarantine"), "{message}");
    }
}

/// They are the module's, and no layer of the sandbox.
#[test]
fn the_compilers_limits_hold_where_the_sandbox_is_off_or_does_without_its_own() {
    let _alone = alone();
    let memory = 128 * MIB;
    let limits = CompileLimits::trusted().memory_bytes_max(memory);
    for builder in [
        uncached(limits.clone()).sandbox(SandboxPolicy::Off),
        uncached(limits).sandbox_without(SandboxLayer::ResourceLimits),
    ] {
        let refusal = refused(&build(builder), &bombs::trivial_functions(200_000));
        assert_eq!((refusal.kind, refusal.limit), (CompileLimit::Memory, memory));
    }
}

#[test]
fn the_least_memory_that_can_be_set_is_enough_for_small_modules() {
    let _alone = alone();
    let pool = build(uncached(CompileLimits::new().memory_bytes_max(1)).compile_threads(1));
    let module = pool.load_file(support::prebuilt("word_count")).expect("loads");
    assert_eq!(pool.load_file(support::prebuilt("echo")).expect("loads").name(), "echo.wasm");
    assert!(module.description().machine_code_bytes > 10_000);
}

#[test]
fn threads_that_submit_the_same_bomb_share_one_compiler() {
    let _alone = alone();
    let timeout = Duration::from_secs(1);
    let pool = build(uncached(CompileLimits::trusted().timeout(timeout)).compilers_max(8));
    let wasm = bombs::nested_loops(80_000);
    let watch = Watch::new();
    let refusals: Vec<Refusal> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..10).map(|_| scope.spawn(|| refused(&pool, &wasm))).collect();
        threads.into_iter().map(|thread| thread.join().expect("loads")).collect()
    });
    assert!(refusals.iter().all(|refusal| refusal.kind == CompileLimit::Time), "{refusals:?}");
    assert_eq!(watch.end().pids.len(), 1);
}

#[test]
fn threads_that_load_the_same_module_share_one_compiler() {
    let _alone = alone();
    let pool = build(uncached(CompileLimits::new()).compilers_max(8));
    // A second or so of compilation, in many functions.
    let wasm = bombs::trivial_functions(20_000);
    let watch = Watch::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..10).map(|_| scope.spawn(|| pool.load(&wasm).expect("loads"))).collect();
        for thread in threads {
            let module = thread.join().expect("loads");
            assert!(!module.from_cache());
        }
    });
    assert_eq!(watch.end().pids.len(), 1);
}

#[test]
fn no_more_compilers_run_at_a_time_than_there_may_and_each_has_its_own_time() {
    let _alone = alone();
    let timeout = Duration::from_millis(700);
    let pool = build(uncached(CompileLimits::trusted().timeout(timeout)).compilers_max(2));
    let watch = Watch::new();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for depth in 0..6 {
            let pool = &pool;
            scope.spawn(move || {
                let refusal = refused(pool, &bombs::nested_loops(80_000 + depth));
                assert_eq!((refusal.kind, refusal.quarantined), (CompileLimit::Time, false));
            });
        }
    });
    assert!(began.elapsed() >= timeout * 3, "{:?}", began.elapsed());
    let seen = watch.end();
    assert_eq!((seen.pids.len(), seen.at_a_time), (6, 2));
}

#[test]
fn a_larger_limit_leads_out_of_quarantine() {
    let _alone = alone();
    let pool = build(uncached(CompileLimits::trusted().timeout(Duration::from_millis(50))));
    // This module takes about a third of a second of one CPU.
    let wasm = bombs::nested_loops(600);
    let with = |limits| pool.load_with(&wasm, ModuleOptions::new().compile_limits(limits));
    let first = refused(&pool, &wasm);
    assert_eq!(first.kind, CompileLimit::Time);
    if comes_to_quarantine(&pool, &wasm, &first) {
        let shape = refusal(with(CompileLimits::new().timeout(Duration::ZERO)));
        assert!(shape.quarantined, "less time, and a shape that would be refused too: {shape:?}");
    }
    let shape = refusal(with(CompileLimits::new()));
    assert_eq!((shape.kind, shape.quarantined), (CompileLimit::LoopNesting, false));
    let loaded = with(CompileLimits::trusted().timeout(PATIENCE * 10)).expect("loads");
    assert_eq!(pool.load(&wasm).expect("is loaded").digest(), loaded.digest());
}

#[test]
fn what_is_no_module_ends_at_once_however_much_there_is_of_it() {
    let _alone = alone();
    let limits = CompileLimits::trusted().timeout(PATIENCE).memory_bytes_max(1024 * MIB);
    let pool = build(uncached(limits));
    let began = Instant::now();
    let mut junk = b"\0asm\x01\0\0\0".to_vec();
    let mut state = 1u64;
    while junk.len() < 256 << 20 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        junk.extend_from_slice(&state.to_le_bytes());
    }
    junk.truncate(256 << 20);
    let error = pool.load(&junk).expect_err("is junk");
    assert!(matches!(error, ModuleError::Invalid { .. }), "{error:?}");
    junk.push(0);
    let error = pool.load(&junk).expect_err("is too large");
    assert!(matches!(error, ModuleError::TooLarge { .. }), "{error:?}");
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

#[test]
fn a_file_over_the_limit_is_not_even_read() {
    let _alone = alone();
    let program = Program::new();
    let pool = build(uncached(CompileLimits::new()).worker_program(program.path()));
    program.forbid();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("large.wasm");
    std::fs::File::create(&path).and_then(|file| file.set_len(200 * MIB)).expect("makes a sparse file");
    let refusal = refusal(pool.load_file(&path));
    assert_eq!((refusal.kind, refusal.seen), (CompileLimit::WasmBytes, 200 * MIB));
    let strict = CompileLimits::new().wasm_bytes_max(7);
    let error = pool.load_with(b"\0asm\x01\0\0\0", ModuleOptions::new().compile_limits(strict));
    let error = error.expect_err("has eight bytes").to_string();
    assert!(error.contains("8 bytes of wasm") && error.contains("wasm_bytes_max"), "{error}");
}

#[test]
fn a_pool_that_ends_ends_its_compilers_and_those_who_wait_for_one() {
    let _alone = alone();
    let pool = build(uncached(CompileLimits::trusted().timeout(PATIENCE)).compilers_max(1));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|depth| {
                let pool = &pool;
                scope.spawn(move || pool.load(&bombs::nested_loops(80_000 + depth)).expect_err("is closed"))
            })
            .collect();
        support::eventually("a compiler", || !compilers().is_empty());
        pool.kill();
        for thread in threads {
            let error = thread.join().expect("loads");
            assert!(matches!(error, ModuleError::Closed { .. }), "{error:?}");
        }
    });
    assert!(compilers().is_empty());
}

/// Tasks that compute on every CPU until this is dropped.
struct Computing {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Computing {
    fn new(pool: &Guarded) -> Computing {
        let stop = Arc::new(AtomicBool::new(false));
        let module = pool.load_file(support::prebuilt("primes")).expect("loads");
        let count = module.task::<u64, u64>("count").expect("has it");
        let thread = || {
            let pool = wasmpool::Pool::clone(pool);
            let count = count.clone();
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    pool.submit(&count, &300_000).expect("submits").result().expect("counts");
                }
            })
        };
        let threads = (0..pool.workers_max()).map(|_| thread()).collect();
        support::eventually("tasks", || pool.stats().ended.succeeded > 4);
        Computing { stop, threads }
    }
}

impl Drop for Computing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().expect("ends"));
    }
}

/// The largest program known has about as many functions, and the limits are the defaults. It takes a minute
/// and gigabytes, so it is for `--ignored`.
#[test]
#[ignore = "takes minutes of CPU and gigabytes"]
fn a_program_of_620_000_functions_loads_by_default() {
    let _alone = alone();
    let wasm = bombs::ordinary_functions(620_000, 79);
    let watch = Watch::new();
    let began = Instant::now();
    let module = build(uncached(CompileLimits::new())).load(&wasm).expect("loads");
    let took = began.elapsed();
    let peak = watch.end().peak_bytes / MIB;
    let code = module.description().machine_code_bytes / MIB;
    println!("{} MB of wasm: {took:.1?}, {peak} MiB resident, {code} MiB of code", wasm.len() / 1_000_000);
}

/// Returns whether a compiler was seen stopped while `load` ran.
fn is_stopped_during<T>(load: impl FnOnce() -> T) -> (T, bool) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut seen = false;
            while !stop.load(Ordering::Relaxed) {
                seen |= compilers().into_iter().any(|pid| {
                    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
                });
                std::thread::sleep(Duration::from_millis(1));
            }
            seen
        });
        let loaded = load();
        stop.store(true, Ordering::Relaxed);
        (loaded, watching.join().expect("watches"))
    })
}

#[test]
fn only_a_bomb_steps_back_and_only_while_tasks_compute_and_it_ends_all_the_same() {
    let _alone = alone();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let limits = || CompileLimits::trusted().cpu_time(Duration::from_millis(3000));
    let open = || build(uncached(limits()).workers(cpus));
    let honest = bombs::ordinary_functions(3_000, 100);
    // Half a megabyte may use about two seconds.
    let bomb = bombs::nested_loops(80_000);
    let pool = open();
    let (refused, stopped) = is_stopped_during(|| refused(&pool, &bomb));
    assert_eq!((refused.kind, stopped), (CompileLimit::CpuTime, false), "no task computes");
    let pool = open();
    let computing = Computing::new(&pool);
    let (loaded, stopped) = is_stopped_during(|| pool.load(&honest));
    loaded.expect("compiles");
    assert!(!stopped, "somebody waits for it, and it is no bomb");
    let (refused, stopped) = is_stopped_during(|| self::refused(&pool, &bomb));
    assert!(stopped, "it is over its allowance");
    assert_eq!((refused.kind, refused.limit, refused.quarantined), (CompileLimit::CpuTime, 3000, false));
    assert!(refused.seen >= 3000, "{refused:?}");
    let again = self::refused(&pool, &bomb);
    assert!(again.quarantined, "CPU time is its own: {again:?}");
    drop(computing);
}

#[test]
fn a_memory_limit_that_cannot_be_had_is_an_error_and_one_that_can_is_not_cut() {
    let _alone = alone();
    // The limit is above what workers have, 4 GiB.
    let pool = build(uncached(CompileLimits::new().memory_bytes_max(5 << 30)).compile_threads(1));
    let watched = AtomicBool::new(false);
    let limit = std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut most = 0;
            while !watched.load(Ordering::Relaxed) {
                for pid in compilers() {
                    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
                    let line = limits.lines().find_map(|line| line.strip_prefix("Max data size"));
                    let soft = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
                    most = most.max(soft.unwrap_or(0));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            most
        });
        pool.load(&bombs::ordinary_functions(2_000, 100)).expect("compiles");
        watched.store(true, Ordering::Relaxed);
        watching.join().expect("watches")
    });
    assert!(limit >= 5 << 30, "it was held to {limit} bytes");
}
