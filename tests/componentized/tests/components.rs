//! Components made of modules do what the modules do. The tests of directories are those of tests/suite, once more.

#[path = "../../support/mod.rs"]
mod support;
#[path = "../../suite"]
mod suite {
    pub(super) mod dirs;
}

use std::fs;

use suite::dirs;
use support::{PATIENCE, componentize};
use wasmpool::module::{ModuleForm, ModuleKind};
use wasmpool::sandbox::DirAccess;
use wasmpool::task::CommandInput;
use wasmpool::{Module, Pool, TaskError};

/// Returns the exit code and stdout.
fn run(pool: &Pool, module: &Module, args: &[&str], stdin: &str) -> (i32, String) {
    assert_eq!(module.description().kind, ModuleKind::Command);
    let input = CommandInput::new().args(args.iter().copied()).stdin(stdin.to_string());
    let future = pool.submit(&module.command().expect("a command"), &input).expect("is accepted");
    let output = match future.result_timeout(PATIENCE).expect("in time") {
        Ok(output) => output,
        Err(failure) => match failure.error() {
            TaskError::Exit { output } => output.clone(),
            other => panic!("{args:?}: {other}"),
        },
    };
    assert_eq!(output.exit_code == 0, output.stderr.is_empty(), "{args:?}: {output:?}");
    (output.exit_code, String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_command_that_was_made_a_component_prints_the_same() {
    let pool = support::pool(1);
    let module = support::load(&pool, "csv_stats");
    let component = fs::read(support::prebuilt("csv_stats")).expect("reads");
    let component = pool.load(&componentize::command(&component)).expect("loads");
    assert_eq!(component.description().form, ModuleForm::Component);
    let many: String = (0..20_000).map(|row| format!("row{row},{}\n", row % 97)).collect();
    let texts = ["name,age\nann,30\nbob,40\n".to_string(), format!("name,age\n{many}"), String::new()];
    for text in &texts {
        for args in [&[][..], &["--column", "age"], &["--column", "none"], &["--no-such-flag"]] {
            let (code, stdout) = run(&pool, &module, args, text);
            // A component's exit says only whether it went well.
            assert_eq!(run(&pool, &component, args, text), (code.min(1), stdout), "{args:?}");
        }
    }
    let (code, stdout) = run(&pool, &component, &[], &texts[0]);
    assert!(code == 0 && stdout.contains("age") && stdout.contains("35"), "{stdout}");
    assert_eq!(pool.stats().workers_died, 0);
}

/// Loads direct.wat, which speaks to WASI 0.2 itself.
fn direct(pool: &Pool) -> Module {
    let module = wat::parse_str(include_str!("direct.wat")).expect("valid text");
    pool.load(&componentize::of_world(&module, include_str!("direct.wit"))).expect("loads")
}

/// The number of `insufficient-memory`, as an `error-code`.
const TOO_MANY: u32 = 22;

/// A worker needs descriptors for the modules that the host sends.
#[test]
fn files_can_be_open_up_to_the_limit_and_no_further() {
    let place = dirs::Place::new();
    let dir = place.dir("dir");
    place.file("dir/in", "a");
    let pool = support::build(support::builder(1).dir(&dir, "/dir", DirAccess::ReadOnly));
    let hoard = direct(&pool).task::<(), u32>("hoard").expect("has these types");
    for _ in 0..3 {
        let future = pool.submit(&hoard, &()).expect("is accepted");
        let answer = future.result_timeout(PATIENCE).expect("in time").expect("succeeds");
        // One thing that counts is the directory.
        assert_eq!((answer / 100, answer % 100), (proto::limits::TASK_DESCRIPTORS_MAX as u32 - 1, TOO_MANY));
    }
    assert_eq!(pool.stats().workers_died, 0);
}

/// A list holds all names of a directory, in the worker's own memory.
#[test]
fn lists_of_directories_are_bounded() {
    let place = dirs::Place::new();
    let dir = place.dir("dir");
    for number in 0..1000 {
        fs::write(dir.join(format!("{number:0200}")), "").expect("writes");
    }
    let pool = support::build(support::builder(1).dir(&dir, "/dir", DirAccess::ReadOnly));
    let hoard = direct(&pool).task::<(), u32>("hoard-lists").expect("has these types");
    let future = pool.submit(&hoard, &()).expect("is accepted");
    let answer = future.result_timeout(PATIENCE).expect("in time").expect("succeeds");
    assert_eq!((answer / 100, answer % 100), (proto::limits::DIRECTORY_LISTS_MAX as u32, TOO_MANY));
    assert_eq!(pool.stats().workers_died, 0);
}

/// Wasmtime's own streams would start a thread for these calls, and that is the end of a worker.
#[test]
fn the_streams_of_a_file_are_read_and_written_at_once() {
    let place = dirs::Place::new();
    let dir = place.dir("dir");
    place.file("dir/in", "hello, world");
    let pool = support::build(support::builder(1).dir(&dir, "/dir", DirAccess::ReadWrite));
    let copy = direct(&pool).task::<(), u64>("copy").expect("has these types");
    let future = pool.submit(&copy, &()).expect("is accepted");
    assert!(future.result_timeout(PATIENCE).expect("in time").expect("succeeds") > 0);
    assert_eq!(fs::read_to_string(dir.join("out")).expect("reads"), "ello, world\0\0ello");
    assert_eq!(pool.stats().workers_died, 0);
}
