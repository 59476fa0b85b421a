//! A sample of the specification's tests, in files: each of them whole.

use corpora::spec::{KNOWN, pool, run, scripts};

wasmpool::init_at_load!();

/// Something of each feature, what the pool refuses, and files with known failures.
const SAMPLE: [&str; 36] = [
    "core/call_indirect.wast",
    "core/conversions.wast",
    "core/f32.wast",
    "core/fac.wast",
    "core/float_exprs.wast",
    "core/i64.wast",
    "core/memory_trap.wast",
    "core/skip-stack-guard-page.wast",
    "core/start.wast",
    "core/table_grow.wast",
    "core/traps.wast",
    "core/type-rec.wast",
    "core/unwind.wast",
    "bulk-memory/bulk.wast",
    "bulk-memory/memory_fill.wast",
    "custom-page-sizes/custom-page-sizes.wast",
    "exceptions/throw.wast",
    "exceptions/try_table.wast",
    "extended-const/global.wast",
    "function-references/call_ref.wast",
    "function-references/return_call_ref.wast",
    "gc/array.wast",
    "gc/array_init_elem.wast",
    "gc/i31.wast",
    "gc/ref_test.wast",
    "gc/type-subtyping.wast",
    "memory64/memory_grow64.wast",
    "multi-memory/float_exprs1.wast",
    "multi-memory/memory_copy1.wast",
    "multi-value/fac.wast",
    "relaxed-simd/relaxed_madd_nmadd.wast",
    "simd/simd_conversions.wast",
    "simd/simd_lane.wast",
    "tail-call/return_call.wast",
    "threads/atomic.wast",
    "wide-arithmetic/wide-arithmetic.wast",
];

#[test]
fn a_sample_of_the_specification_goes_as_it_says() {
    let room = corpora::pool::raise_descriptor_limit();
    assert!(room > 1000, "this system allows too few descriptors: room for {room} modules");
    let mut scripts = scripts();
    scripts.retain(|script| SAMPLE.contains(&script.path().as_str()));
    assert_eq!(scripts.len(), SAMPLE.len(), "a file of the sample is gone");
    let pool = pool(2).expect("the pool builds");
    let tally = run(&pool, &scripts, 3, |_| {});
    println!("{tally}");
    assert_eq!(tally.surprises(), Vec::<String>::new());
    assert!(tally.passed() > 6_500, "only {} passed", tally.passed());
    corpora::pool::check(&pool).expect("no worker has died");
}

#[test]
fn every_known_failure_names_a_file_of_the_suite_and_a_reason() {
    let paths: Vec<_> = scripts().iter().map(corpora::spec::Script::path).collect();
    for line in KNOWN.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, reason) = line.split_once(' ').expect("a name and a reason");
        let (path, number) = name.split_once(':').expect("a path and a line");
        assert!(paths.iter().any(|known| known == path), "{path} is not in the suite");
        assert!(number.parse::<usize>().is_ok() && !reason.trim().is_empty(), "{line}");
    }
}
