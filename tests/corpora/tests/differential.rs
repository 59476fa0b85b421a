//! A few hundred modules with safepoints against the same modules without. `--bin differential` compares as many as one
//! likes.

use std::path::Path;

use corpora::differential::{Campaign, Outcome, Settings, Skipped, Trial, cases};
use corpora::smith::{Source, prebuilt};
use corpora::spec::{Plan, scripts};
use proto::description::MemoryKind;

fn folder(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("differential").join(name)
}

#[test]
fn modules_do_the_same_with_safepoints() {
    let files = cases::write_small(&folder("cases")).expect("the cases");
    let source = Source::start(11, 0, 400, files).expect("starts");
    let summary = Campaign::run(&source, &Settings { keep: folder("kept") }, || {}).expect("runs");
    println!("{summary}");
    summary.check().expect("nothing differs");
    assert!(summary.seen("call: returned") > 500);
    assert!(summary.seen("call: trap UnreachableCodeReached") > 50);
    assert!(summary.seen("memories") > 50);
}

#[test]
fn what_was_written_for_it_does_the_same_with_safepoints() {
    let mut trial = Trial::new().expect("engines");
    let mut surprises = Vec::new();
    for case in cases::all().expect("texts") {
        for kind in MemoryKind::ALL {
            // What is large takes long to compile.
            let seeds = if case.wasm.len() > 10_000 { 1 } else { 4 };
            for seed in 0..seeds {
                let outcome = trial.compare(&case.wasm, kind, seed, 32 << 20).expect("engines");
                let is_endless = case.name == "start-never-ends";
                match outcome {
                    Outcome::Same(_) if !is_endless => {}
                    Outcome::Skipped(Skipped::EndlessStart) if is_endless => {}
                    other => surprises.push(format!("{} with {kind:?}: {other:?}", case.name)),
                }
            }
        }
    }
    assert!(surprises.is_empty(), "{surprises:#?}");
}

#[test]
fn modules_of_the_specification_do_the_same_with_safepoints() {
    let mut trial = Trial::new().expect("engines");
    let (mut compared, mut skipped) = (0, 0);
    // All of them take half a minute.
    for (place, script) in scripts().iter().enumerate() {
        let modules = Plan::of(script).map(Plan::modules).unwrap_or_default();
        for (number, (line, wasm)) in modules.into_iter().enumerate().skip(place % 3).step_by(3) {
            let kind = MemoryKind::ALL[number % 2];
            match trial.compare(&wasm, kind, 1, 64 << 20).expect("engines") {
                Outcome::Same(_) => compared += 1,
                Outcome::Skipped(_) => skipped += 1,
                other => panic!("{}:{line} with {kind:?}: {other:?}", script.path()),
            }
        }
    }
    println!("{compared} modules compared, {skipped} skipped");
    assert!(compared > 1000, "only {compared} were compared");
}

/// They are as compilers make them. Most of what they export does little with such arguments, and traps.
#[test]
fn guests_of_the_repository_do_the_same_with_safepoints() {
    let mut trial = Trial::new().expect("engines");
    let mut compared = 0;
    for file in prebuilt().expect("the prebuilt modules") {
        let wasm = std::fs::read(&file).expect("reads");
        for kind in MemoryKind::ALL {
            match trial.compare(&wasm, kind, 1, 64 << 20).expect("engines") {
                Outcome::Same(_) => compared += 1,
                Outcome::Skipped(why) => println!("{}: {why:?}", file.display()),
                other => panic!("{} with {kind:?}: {other:?}", file.display()),
            }
        }
    }
    assert!(compared > 20, "only {compared} were compared");
}
