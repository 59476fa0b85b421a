//! A module that is compiled quickly first runs at once, and is optimised while it runs: nobody notices but by its speed.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::{self, PATIENCE, build, builder, eventually, is_own_process, prebuilt, raw};
use rustix::process::Signal;
use wasmpool::error::ModuleError;
use wasmpool::event::EventKind;
use wasmpool::limits::{CompileLimits, QUICK_MODULES_MAX};
use wasmpool::module::{ModuleOptions, Tier, Tiering};
use wasmpool::{Module, Pool};

fn always() -> ModuleOptions {
    ModuleOptions::new().tiering(Tiering::Always)
}

/// A module that echoes its input, and is another one for each number.
fn numbered(number: usize) -> Vec<u8> {
    wat::parse_str(format!(
        r#"{} (data (i32.const 2048) "{number}"))"#,
        support::ECHO_WAT.trim_end().strip_suffix(')').expect("a module")
    ))
    .expect("valid text")
}

/// Runs the task, and returns the tier that it ran by.
fn tier_of_a_run(pool: &Pool, module: &Module) -> Option<Tier> {
    let future = pool.submit_bytes(&raw(module, "echo"), "said").expect("submits");
    let output = future.result_timeout(PATIENCE).expect("in time").expect("succeeds");
    assert_eq!(&output[..], b"said");
    future.report().expect("it has ended").tier
}

/// The compiler processes of this process.
fn compilers() -> Vec<u32> {
    let is_compiler = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.ends_with(b"--wasmpool-role=compiler\0") && support::is_child(*pid)
    };
    let pids = std::fs::read_dir("/proc").expect("reads").flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_compiler).collect()
}

/// One compile slot of two is taken for as long as this is not ended: nothing is optimised meanwhile.
struct Held {
    compiler: u32,
    load: JoinHandle<Result<Module, ModuleError>>,
}

impl Held {
    /// A module whose compiler died is in quarantine, so each time another one is compiled.
    fn by_a_long_compilation(pool: &Pool) -> Held {
        static TIMES: AtomicU32 = AtomicU32::new(0);
        let functions = 40_000 + TIMES.fetch_add(1, Ordering::SeqCst);
        let pool = pool.clone();
        let load = std::thread::spawn(move || {
            let limits = CompileLimits::trusted().timeout(Duration::from_secs(600));
            let long = support::bombs::ordinary_functions(functions, 2_000);
            pool.load_with(&long, ModuleOptions::new().compile_limits(limits).tiering(Tiering::Never))
        });
        let mut found = Vec::new();
        eventually("the compiler to start", || {
            found = compilers();
            !found.is_empty()
        });
        Held { compiler: found[0], load }
    }

    fn end(self) {
        support::signal(self.compiler, Signal::KILL);
        let error = self.load.join().expect("no panic").expect_err("its compiler was killed");
        assert!(matches!(error, ModuleError::CompilerDied { .. }), "{error}");
    }
}

/// The tiers of the entries of a cache.
fn entries(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).expect("reads").flatten().map(|entry| entry.file_name());
    let names = names.filter_map(|name| name.into_string().ok());
    let tier = |name: String| Some(name.strip_suffix(".module")?.rsplit_once('-')?.1.to_string());
    names.filter_map(tier).collect()
}

#[test]
fn tasks_run_by_quick_code_until_the_optimised_code_is_there() {
    if !is_own_process(module_path!(), "tasks_run_by_quick_code_until_the_optimised_code_is_there") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let pool = build(builder(2).cache_dir(dir.path()));
    let mut events = pool.events();
    let held = Held::by_a_long_compilation(&pool);
    let module = pool.load_with(&numbered(0), always()).expect("loads");
    assert_eq!(module.tier(), Tier::Quick);
    assert_eq!(tier_of_a_run(&pool, &module), Some(Tier::Quick));
    assert_eq!(module.wait_until_optimized(Some(Duration::ZERO)).expect("it still may be"), Tier::Quick);
    assert_eq!(entries(dir.path()), ["quick"]);
    // A task that has begun goes on by the code that it began with.
    let spins = pool.submit_bytes(&raw(&module, "spin"), "").expect("submits");
    eventually("it to run", || spins.is_running());

    held.end();
    assert_eq!(
        module.wait_until_optimized(Some(PATIENCE)).expect("nothing is wrong with it"),
        Tier::Optimized
    );
    assert_eq!(tier_of_a_run(&pool, &module), Some(Tier::Optimized));
    assert!(!spins.is_done(), "it was stopped");
    spins.abort();
    assert_eq!(support::failure(&spins).report().tier, Some(Tier::Quick));
    assert_eq!(entries(dir.path()), ["optimized"]);
    // Both workers know the new code, and go on with it.
    let both: Vec<_> = (0..50).map(|_| tier_of_a_run(&pool, &module)).collect();
    assert_eq!(both, [Some(Tier::Optimized); 50]);
    pool.kill();
    let told = std::iter::from_fn(|| events.next());
    let told: Vec<_> = told.filter(|event| matches!(event.kind, EventKind::ModuleOptimized { .. })).collect();
    assert_eq!(told.len(), 1, "{told:?}");
}

#[test]
fn quick_code_from_the_cache_is_optimised_too_and_then_forgotten() {
    if !is_own_process(module_path!(), "quick_code_from_the_cache_is_optimised_too_and_then_forgotten") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    {
        let pool = build(builder(1).cache_dir(dir.path()));
        let held = Held::by_a_long_compilation(&pool);
        let module = pool.load_with(&numbered(0), always()).expect("loads");
        // Who waits for a pool that ends is told.
        let waits = std::thread::spawn({
            let module = module.clone();
            move || module.wait_until_optimized(None)
        });
        pool.kill();
        let error = waits.join().expect("no panic").expect_err("it never was");
        assert!(matches!(error, ModuleError::Closed { .. }), "{error}");
        assert_eq!(module.tier(), Tier::Quick);
        assert!(held.load.join().expect("no panic").is_err());
    }
    assert_eq!(entries(dir.path()), ["quick"]);
    // Whoever wants optimised code gets no other.
    let pool = build(builder(1).cache_dir(dir.path()).compilers_max(1));
    assert!(!pool.load_with(&numbered(1), always()).expect("loads").from_cache());
    let pool = build(builder(1).cache_dir(dir.path()));
    let module = pool.load_with(&numbered(0), always()).expect("loads");
    assert!(module.from_cache());
    tier_of_a_run(&pool, &module);
    assert_eq!(
        module.wait_until_optimized(Some(PATIENCE)).expect("nothing is wrong with it"),
        Tier::Optimized
    );
    assert_eq!(tier_of_a_run(&pool, &module), Some(Tier::Optimized));
    assert_eq!(entries(dir.path()), ["optimized", "optimized"]);
    let again = build(builder(1).cache_dir(dir.path())).load_with(&numbered(0), always()).expect("loads");
    assert!(again.from_cache() && again.tier() == Tier::Optimized);
}

#[test]
fn only_so_many_modules_wait_to_be_optimised_and_others_are_at_once() {
    if !is_own_process(module_path!(), "only_so_many_modules_wait_to_be_optimised_and_others_are_at_once") {
        return;
    }
    let pool = build(builder(1).without_cache());
    let held = Held::by_a_long_compilation(&pool);
    let modules: Vec<_> = (0..QUICK_MODULES_MAX + 2)
        .map(|number| pool.load_with(&numbered(number), always()).expect("loads"))
        .collect();
    let tiers: Vec<_> = modules.iter().map(Module::tier).collect();
    let (waiting, rest) = tiers.split_at(QUICK_MODULES_MAX);
    assert!(waiting.iter().all(|tier| *tier == Tier::Quick), "{tiers:?}");
    assert_eq!(rest, [Tier::Optimized; 2]);
    // Nobody holds these, and no cache would keep what came of them.
    let kept: Vec<_> = modules.into_iter().skip(QUICK_MODULES_MAX / 2).collect();
    held.end();
    for module in &kept {
        assert_eq!(module.wait_until_optimized(Some(PATIENCE)).expect("nothing is wrong"), Tier::Optimized);
        tier_of_a_run(&pool, module);
    }
    // Whoever comes next finds the room that they left.
    let held = Held::by_a_long_compilation(&pool);
    assert_eq!(pool.load_with(&numbered(100), always()).expect("loads").tier(), Tier::Quick);
    held.end();
}

#[test]
fn a_module_that_cannot_be_optimised_says_why_and_goes_on_as_it_is() {
    if !is_own_process(module_path!(), "a_module_that_cannot_be_optimised_says_why_and_goes_on_as_it_is") {
        return;
    }
    let pool = build(builder(1).without_cache());
    let held = Held::by_a_long_compilation(&pool);
    let large = std::fs::read(prebuilt("kernels")).expect("reads");
    let module = pool.load_with(&large, always()).expect("loads");
    let before = compilers();
    held.end();
    let mut optimizing = Vec::new();
    eventually("the optimising compiler", || {
        optimizing = compilers();
        optimizing.retain(|pid| !before.contains(pid));
        !optimizing.is_empty()
    });
    support::signal(optimizing[0], Signal::KILL);
    let error = module.wait_until_optimized(Some(PATIENCE)).expect_err("its compiler was killed");
    assert!(matches!(error, ModuleError::CompilerDied { .. }), "{error}");
    assert_eq!(module.tier(), Tier::Quick);
    drop(module);
    // It is not tried a second time: who loads it again gets optimised code.
    let again = pool.load_with(&large, always()).expect("loads");
    assert_eq!(again.tier(), Tier::Optimized);
}

#[test]
fn small_modules_and_those_that_do_the_same_each_time_are_optimised_at_once() {
    let pool = build(builder(1).without_cache());
    let one = |options| pool.load_with(&numbered(0), options).expect("loads").tier();
    assert_eq!(one(ModuleOptions::new()), Tier::Optimized);
    assert_eq!(one(always().metered(true)), Tier::Optimized);
    assert_eq!(one(always().deterministic(true)), Tier::Optimized);
    // Nothing can be compiled in the background where only one compiler may run.
    let pool = build(builder(1).without_cache().compilers_max(1).tiering(Tiering::Always));
    let module = pool.load(&numbered(0)).expect("loads");
    assert_eq!(module.tier(), Tier::Optimized);
    assert_eq!(tier_of_a_run(&pool, &module), Some(Tier::Optimized));
    // A pool's choice holds for modules that make none.
    let pool = build(builder(1).without_cache().tiering(Tiering::Always));
    let module = pool.load_with(&numbered(0), ModuleOptions::new().tiering(Tiering::Never)).expect("loads");
    assert_eq!(module.tier(), Tier::Optimized);
}
