//! A module is replaced by another version while its tasks run: each task is of one version, and a version that does not fit
//! what is held changes nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use crate::support::{self, PATIENCE, builder, error, eventually, pool, raw};
use wasmpool::error::ModuleError;
use wasmpool::module::ModuleOptions;
use wasmpool::task::CommandInput;
use wasmpool::{Module, Pool, Task, TaskError, TaskFuture, TaskOptions};

/// Makes a module whose tasks say which version it is: `version` at once, `later` when it has counted down. The more
/// functions come before, the further back are both.
fn version(number: i32, before: &str) -> Vec<u8> {
    let text = format!(
        r#"(module {before}
            (func (export "version") (param i32) (result i32) (i32.const {number}))
            (func (export "later") (param $turns i64) (result i32)
                (loop $again
                    (local.set $turns (i64.sub (local.get $turns) (i64.const 1)))
                    (br_if $again (i64.gt_s (local.get $turns) (i64.const 0))))
                (i32.const {number}))
            (func (export "spin") (loop (br 0))))"#
    );
    wat::parse_str(&text).expect("valid text")
}

const MORE: &str = r#"(func (export "first") (result i64) (i64.const 0)) (func (export "more") (param f64))"#;

fn task(module: &Module) -> Task<i32, i32> {
    module.task("version").unwrap_or_else(|error| panic!("{error}"))
}

fn value<O: std::fmt::Debug>(future: &TaskFuture<O>) -> O {
    let result = future.result_timeout(PATIENCE).unwrap_or_else(|timeout| panic!("{timeout}"));
    result.unwrap_or_else(|failure| panic!("{failure}"))
}

fn run(pool: &Pool, task: &Task<i32, i32>) -> i32 {
    value(&pool.submit(task, &0).unwrap_or_else(|error| panic!("{error}")))
}

#[test]
fn handles_of_the_module_and_of_its_clones_call_the_new_version_wherever_its_task_is() {
    let pool = pool(2);
    let module = pool.load(&version(1, "")).expect("loads");
    let (task, untyped) = (task(&module), raw(&module, "version"));
    let elsewhere = pool.load(&version(1, "")).expect("loads");
    let of_elsewhere = self::task(&elsewhere);
    assert_eq!(run(&pool, &task), 1);
    let new = pool.replace_module(&module.clone(), &version(2, MORE)).expect("fits");
    assert_eq!(
        (run(&pool, &task), run(&pool, &self::task(&module)), run(&pool, &self::task(&new))),
        (2, 2, 2)
    );
    // 2 as postcard writes it.
    assert_eq!(value(&pool.submit_bytes(&untyped, &[0_u8][..]).expect("submits")), &[4][..]);
    // What is said of a handle stays true of what it was returned for.
    assert_eq!((module.description().tasks.len(), new.description().tasks.len()), (3, 5));
    assert!(module != new && module.current() == new && new.current() == new && module == elsewhere);
    // A task that only the new version has can be asked for.
    let more = module.task::<f64, ()>("more").expect("it is there now");
    value(&pool.submit(&more, &0.5).expect("submits"));
    // Whoever loaded the same bytes has them still.
    assert_eq!(run(&pool, &of_elsewhere), 1);
    // And back again, with a handle of the new one.
    drop(more);
    pool.replace_module(&new, &version(1, "")).expect("fits");
    assert_eq!((run(&pool, &task), module.current() == module), (1, true));
}

#[test]
fn what_was_submitted_before_runs_the_version_of_that_time() {
    let pool = pool(1);
    let module = pool.load(&version(1, "")).expect("loads");
    let later = module.task::<i64, i32>("later").expect("types agree");
    let running = pool.submit(&later, &200_000_000).expect("submits");
    eventually("the task to run", || running.is_running());
    let waiting: Vec<_> = (0..20).map(|_| pool.submit(&later, &1).expect("submits")).collect();
    pool.replace_module(&module, &version(2, MORE)).expect("fits");
    let after = pool.submit(&later, &1).expect("submits");
    assert_eq!(value(&running), 1);
    assert!(waiting.iter().all(|future| value(future) == 1));
    assert_eq!(value(&after), 2);
}

#[test]
fn a_map_keeps_the_version_that_it_began_with_in_batches_and_alone() {
    let pool = pool(2);
    let module = pool.load(&version(1, "")).expect("loads");
    let task = task(&module);
    let (inputs, source) = mpsc::channel::<i32>();
    let mut slow = pool.map(&task, source);
    inputs.send(0).expect("the map lives");
    assert_eq!(slow.next().expect("one input").expect("runs"), 1);
    let mut short = pool.map(&task, 0..20_000);
    let mut seen: Vec<_> = short.by_ref().take(5_000).map(|result| result.expect("runs")).collect();
    pool.replace_module(&module, &version(2, MORE)).expect("fits");
    seen.extend(short.map(|result| result.expect("runs")));
    assert!(seen.len() == 20_000 && seen.iter().all(|version| *version == 1));
    for _ in 0..100 {
        inputs.send(0).expect("the map lives");
        assert_eq!(slow.next().expect("one input").expect("runs"), 1);
    }
    drop(inputs);
    assert!(slow.next().is_none());
    assert!(pool.map(&task, 0..5_000).all(|result| result.expect("runs") == 2));
}

#[test]
fn a_version_that_does_not_fit_what_is_held_changes_nothing() {
    let pool = pool(1);
    let module = pool.load_with(&version(1, ""), ModuleOptions::new().name("answers")).expect("loads");
    let (task, spin) = (task(&module), raw(&module, "spin"));
    let refused = |text: &str| {
        let wasm = wat::parse_str(text).expect("valid text");
        let error = pool.replace_module(&module, &wasm).expect_err("it does not fit");
        assert_eq!((run(&pool, &task), error.kind(), module.current() == module), (1, "replacement", true));
        error.to_string()
    };
    let other_type =
        r#"(module (func (export "version") (param i32) (result i64) (i64.const 2)) (func (export "spin")))"#;
    let said = refused(other_type);
    assert!(said.contains("cannot replace answers (sha256") && said.contains("goes on as it is"), "{said}");
    assert!(said.contains("`version`") && said.contains("i64") && said.contains("i32"), "{said}");
    let gone = refused(r#"(module (func (export "version") (param i32) (result i32) (i32.const 2)))"#);
    assert!(gone.contains("no task `spin`"), "{gone}");
    let program = refused(r#"(module (memory (export "memory") 1) (func (export "_start")))"#);
    assert!(program.contains("no task"), "{program}");
    let bytes = refused(&support::ECHO_WAT.replace("\"echo\"", "\"version\""));
    assert!(bytes.contains("codec"), "{bytes}");
    // What nobody holds may change.
    drop(spin);
    pool.replace_module(
        &module,
        &wat::parse_str(r#"(module (func (export "version") (param i32) (result i32) (i32.const 2)))"#)
            .expect("valid text"),
    )
    .expect("nobody holds `spin`");
    assert_eq!(run(&pool, &task), 2);
}

#[test]
fn a_version_that_cannot_be_loaded_changes_nothing_and_another_pools_module_is_refused() {
    let ours = builder(1).modules_max(2).build().expect("builds");
    let module = ours.load(&version(1, "")).expect("loads");
    let task = task(&module);
    let broken = ours.replace_module(&module, b"hello");
    assert!(matches!(broken, Err(ModuleError::Invalid { .. })), "{broken:?}");
    assert!(matches!(ours.replace_module_file(&module, "/nowhere.wasm"), Err(ModuleError::Read { .. })));
    let third = ours.load(&version(3, "")).expect("loads");
    // Both versions are held for a moment.
    assert!(matches!(ours.replace_module(&module, &version(2, "")), Err(ModuleError::TooMany { max: 2 })));
    drop(third);
    assert_eq!(run(&ours, &task), 1);
    let foreign = pool(1).replace_module(&module, &version(2, ""));
    assert!(matches!(foreign, Err(ModuleError::ForeignModule { .. })), "{foreign:?}");
    ours.replace_module(&module, &version(2, "")).expect("there is room again");
    assert_eq!(run(&ours, &task), 2);
}

#[test]
fn a_new_version_is_compiled_as_the_old_one_was() {
    let pool = pool(1);
    let options = ModuleOptions::new().metered(true).name("counted");
    let module = pool.load_with(&version(1, ""), options).expect("loads");
    let task = task(&module);
    let new = pool.replace_module(&module, &version(2, MORE)).expect("fits");
    assert!(new.description().metered && new.name() == "counted");
    let future = pool.submit_with(&task, &0, TaskOptions::new().fuel(1_000)).expect("it is metered");
    assert_eq!(value(&future), 2);
    assert!(future.report().and_then(|report| report.fuel_used).is_some());
}

#[test]
fn a_program_is_replaced_by_a_program_only() {
    let pool = pool(1);
    let exits = |code: i32| {
        let text = format!(
            r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
                (memory (export "memory") 1) (func (export "_start") (call $exit (i32.const {code}))))"#
        );
        wat::parse_str(&text).expect("valid text")
    };
    let module = pool.load(&exits(3)).expect("loads");
    let command = module.command().expect("is one");
    let code = || match error(&pool.submit(&command, &CommandInput::new()).expect("submits")) {
        TaskError::Exit { output } => output.exit_code,
        other => panic!("{other}"),
    };
    assert_eq!(code(), 3);
    let refused = pool.replace_module(&module, &version(2, "")).expect_err("it is no program");
    assert!(refused.to_string().contains("not a WASI command"), "{refused}");
    assert_eq!(code(), 3);
    pool.replace_module(&module, &exits(4)).expect("fits");
    assert_eq!(code(), 4);
}

#[test]
fn a_file_that_was_renamed_into_place_is_the_new_version() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("answers.wasm");
    std::fs::write(&path, version(1, "")).expect("writes");
    let pool = pool(1);
    let module = pool.load_file(&path).expect("loads");
    let task = task(&module);
    assert_eq!(run(&pool, &task), 1);
    std::fs::write(folder.path().join("new"), version(2, MORE)).expect("writes");
    std::fs::rename(folder.path().join("new"), &path).expect("renames");
    let new = pool.replace_module_file(&module, &path).expect("fits");
    assert_eq!((run(&pool, &task), new.name()), (2, "answers.wasm"));
}

/// Many threads submit and ask for handles while versions change under them.
#[test]
fn those_who_submit_meanwhile_see_one_version_or_the_other_and_never_go_back() {
    const ROUNDS: i32 = 60;
    let pool = pool(2);
    let versions: Vec<_> =
        (0..=ROUNDS).map(|number| version(number, if number % 2 == 0 { "" } else { MORE })).collect();
    let module = pool.load(&versions[0]).expect("loads");
    let task = task(&module);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (pool, task, module, over) = (&pool, &task, &module, &over);
        let callers: Vec<_> = (0..3)
            .map(|caller| {
                scope.spawn(move || {
                    // Of each handle: one is switched before the other.
                    let mut last = [0; 2];
                    while !over.load(Ordering::SeqCst) {
                        let own = self::task(module);
                        let submit = |call: usize| pool.submit([task, &own][call % 2], &0).expect("submits");
                        let futures: Vec<_> = (0..10).map(submit).collect();
                        for (call, future) in futures.iter().enumerate() {
                            let version = value(future);
                            let last = &mut last[call % 2];
                            assert!(version >= *last, "caller {caller} saw {version} after {last}");
                            *last = version;
                        }
                        if caller == 0 {
                            let mapped: Vec<_> =
                                pool.map(task, 0..200).map(|result| result.expect("runs")).collect();
                            assert!(mapped.iter().all(|version| *version == mapped[0]), "{mapped:?}");
                        }
                    }
                })
            })
            .collect();
        for (number, wasm) in versions.iter().enumerate().skip(1) {
            pool.replace_module(module, wasm).unwrap_or_else(|error| panic!("{number}: {error}"));
            assert_eq!(run(pool, task), number as i32);
        }
        over.store(true, Ordering::SeqCst);
        callers.into_iter().for_each(|caller| caller.join().expect("no caller fails"));
    });
    assert_eq!(run(&pool, &task), ROUNDS);
}

#[test]
fn the_old_version_is_released_everywhere_when_its_last_task_has_ended() {
    let pool = pool(1);
    let module = pool.load(&version(1, "")).expect("loads");
    let (task, spin) = (task(&module), raw(&module, "spin"));
    assert_eq!(run(&pool, &task), 1);
    let held = || {
        let stats = pool.stats();
        (stats.modules, stats.workers.iter().map(|worker| worker.modules).sum::<usize>())
    };
    assert_eq!(held(), (1, 1));
    let running = pool.submit_bytes(&spin, "").expect("submits");
    eventually("the task to run", || running.is_running());
    let new = pool.replace_module(&module, &version(2, MORE)).expect("fits");
    // The running task holds the old version. Neither its handles nor the old module do.
    assert_eq!(held().0, 2);
    assert!(running.abort());
    assert!(matches!(error(&running), TaskError::Aborted { .. }));
    eventually("the old version to be released", || held() == (1, 0));
    assert_eq!((run(&pool, &task), held()), (2, (1, 1)));
    // A hundred versions later there is one, whatever is held of the earlier ones.
    let mut handles = vec![module, new];
    for number in 3..103 {
        handles.push(pool.replace_module(&handles[0], &version(number, "")).expect("fits"));
        assert_eq!(run(&pool, &task), number);
    }
    eventually("all but one to be released", || held() == (1, 1));
    assert_eq!(handles[7].description().tasks.len(), 3);
    drop((handles, task, spin));
    eventually("the last one to be released", || held() == (0, 0));
}
