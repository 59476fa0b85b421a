//! A few hundred modules that nobody wrote. `--bin smith` runs as many as one likes.

use std::path::Path;

use corpora::smith::{Campaign, Settings, Source, prebuilt};

wasmpool::init_at_load!();

#[test]
fn whatever_a_module_does_the_host_lives_and_every_outcome_has_a_name() {
    let room = corpora::pool::raise_descriptor_limit();
    assert!(room > 200, "this system allows too few descriptors: room for {room} modules");
    let keep = Path::new(env!("CARGO_TARGET_TMPDIR")).join("smith");
    let settings = Settings { workers: 2, loaders: 3, modules_per_pool: 150, keep };
    let source = Source::start(7, 0, 300, prebuilt().expect("the prebuilt modules")).expect("starts");
    let summary = Campaign::run(&source, &settings, || {}).expect("runs");
    println!("{summary}");
    summary.check().expect("everything is explained");
    assert!(summary.tasks_that("succeeded") > 50);
    assert!(summary.tasks_that("Trap: Unreachable") > 5);
}

#[test]
fn a_seed_names_its_modules() {
    let modules = |first, count| {
        let source = Source::start(3, first, count, Vec::new()).expect("starts");
        std::iter::from_fn(|| source.next().expect("the generator's format")).collect::<Vec<_>>()
    };
    let all = modules(0, 40);
    assert_eq!(all[15..], modules(15, 25));
    assert!(all.iter().any(|specimen| specimen.wasm.len() > 100));
}
