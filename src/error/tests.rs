use std::cell::Cell;
use std::error::Error;
use std::io;
use std::time::Duration;

use super::*;
use crate::future::AsCompletedTimeout;
use crate::report::{CommandOutput, TaskReport};
use proto::limits::compile::{CompileLimit, ExceededLimit};
use proto::message::CompileError;
use proto::schema::SchemaError;
use proto::shortage::{Scarce, Shortage};
use proto::task::TaskId;
use proto::text::is_harmless;
use proto::trap::{Frame, TrapCode};

/// This text sets a terminal's title, reverses the reading order, hides text, and begins a line of its own.
const HOSTILE: &str =
    "a\u{1b}]0;title\u{7}\u{202e}b\u{9b}31m\u{200b}\u{ad}\u{e0041}\u{fe0f}\rerror: forged\nerror: forged";

fn text() -> String {
    HOSTILE.to_string()
}

fn assert_harmless(errors: &[&dyn Error]) {
    for error in errors {
        let shown = error.to_string();
        assert!(shown.chars().all(is_harmless), "{shown:?}");
        assert!(shown.contains("\\u{1b}]0;title"), "it is escaped, not left out: {shown:?}");
        assert!(shown.lines().skip(1).all(|line| line.starts_with("    ")), "{shown:?}");
    }
}

#[test]
fn what_a_module_says_of_itself_cannot_drive_a_terminal() {
    let death = |cause| Death::new(1, cause, Phase::Compiling, String::new());
    assert_harmless(&[
        &ModuleError::Read { path: text().into(), message: text() },
        &ModuleError::Invalid { message: text() },
        &ModuleError::Unsupported { feature: text(), message: text() },
        &ModuleError::UnknownImports { imports: vec![text(), text()] },
        &ModuleError::Abi { message: text() },
        &ModuleError::CompilerDied { death: death(DeathCause::SpawnFailed(text())), quarantined: false },
        &ModuleError::Compiler { message: text() },
        &ModuleError::NoCompiler { shortage: Shortage::new(Scarce::Processes, text()) },
        &ModuleError::NoDescriptors { message: text() },
        &ModuleError::UnknownTask { module: text(), name: text(), known: vec![text()] },
        &ModuleError::SchemaMismatch {
            module: text(),
            task: text(),
            side: "input".into(),
            declared: text(),
            asked: text(),
        },
        &ModuleError::RawTask { module: text(), task: text() },
        &ModuleError::NotACommand { module: text(), known: vec![text()] },
        &ModuleError::Closed { message: text() },
        &ModuleError::Replacement {
            module: text(),
            why: Box::new(ModuleError::RawTask { module: text(), task: text() }),
        },
        &ModuleError::ForeignModule { module: text() },
    ]);
}

#[test]
fn what_a_task_or_its_worker_says_cannot_drive_a_terminal() {
    assert_harmless(&[
        &TaskError::Trap {
            code: TrapCode::Other,
            message: text(),
            backtrace: Vec::new(),
            stderr: String::new(),
        },
        &TaskError::Panic { message: text(), location: text(), backtrace: Vec::new() },
        &TaskError::Guest { message: text(), chain: vec![text()], data: None },
        &TaskError::InputDecode { message: text() },
        &TaskError::OutputDecode { message: text() },
        &TaskError::Abi { message: text() },
        &TaskError::Instantiate { message: text() },
        &TaskError::NoWorker(Shortage::new(Scarce::Memory, text())),
    ]);
}

#[test]
fn the_name_of_a_task_that_is_refused_cannot_drive_a_terminal() {
    assert_harmless(&[
        &SubmitError::Encode { task: text(), message: text() },
        &SubmitError::InputTooLarge { task: text(), bytes: 2, max: 1 },
        &SubmitError::NotMetered { task: text(), module: text() },
        &SubmitError::ForeignModule { task: text() },
        &SubmitError::Unrepresentable { task: text(), what: "an argument", character: '\0', text: text() },
        &SubmitError::ShutDown { task: text() },
        &SubmitError::OtherProcess { task: text() },
    ]);
}

fn shortage() -> Shortage {
    Shortage::new(Scarce::Descriptors, "the words".into())
}

/// Makes one value for each pattern; a variant that is missing here does not compile.
macro_rules! one_of_each {
    ($($pattern:pat => $value:expr,)*) => {{
        let values = vec![$($value),*];
        for value in &values {
            match value {
                $($pattern => {})*
            }
        }
        values
    }};
}

thread_local! {
    static IS_HOSTILE: Cell<bool> = const { Cell::new(false) };
}

/// Text from a stranger, who may be hostile.
fn word(text: &str) -> String {
    if IS_HOSTILE.get() { format!("{text}{HOSTILE}") } else { text.into() }
}

fn frames() -> Vec<Frame> {
    let frame = |index| Frame::new(Some(word(&format!("f{index}"))), index, None);
    vec![frame(1), frame(2)]
}

fn death() -> Death {
    let mut death = Death::new(7, DeathCause::Signaled(9), Phase::Running, word("its last words"));
    death.last_logs.push(word("its last log"));
    death
}

fn broken() -> BrokenPool {
    BrokenPool::new(death(), vec![TaskId(3)])
}

fn refusal() -> io::Error {
    io::Error::from_raw_os_error(13)
}

fn task_errors() -> Vec<TaskError> {
    let message = || word("the guest's words");
    let output = CommandOutput { exit_code: 3, stdout: word("out").into(), stderr: word("err").into() };
    one_of_each! {
        TaskError::Trap { .. } => {
            TaskError::Trap {
                code: TrapCode::Unreachable,
                message: message(),
                backtrace: frames(),
                stderr: word("its last line"),
            }
        },
        TaskError::Panic { .. } => {
            TaskError::Panic { message: message(), location: word("a.rs:1:2"), backtrace: frames() }
        },
        TaskError::Guest { .. } => TaskError::Guest { message: message(), chain: vec![word("cause")], data: None },
        TaskError::InputDecode { .. } => TaskError::InputDecode { message: message() },
        TaskError::InputTooLarge { .. } => TaskError::InputTooLarge { bytes: 1 },
        TaskError::OutputDecode { .. } => TaskError::OutputDecode { message: message() },
        TaskError::CpuTime { .. } => TaskError::CpuTime { limit: Duration::from_secs(1), killed: false },
        TaskError::Timeout { .. } => TaskError::Timeout { limit: Duration::from_secs(1), killed: true },
        TaskError::Memory { .. } => TaskError::Memory { limit: 1, requested: 2, backtrace: frames() },
        TaskError::Table { .. } => TaskError::Table { limit: 1, requested: 2, backtrace: frames() },
        TaskError::Fuel { .. } => TaskError::Fuel { limit: 1, backtrace: frames() },
        TaskError::OutputTooLarge { .. } => TaskError::OutputTooLarge { limit: 1, bytes: 2 },
        TaskError::LogsTooLarge { .. } => TaskError::LogsTooLarge { limit: 1, bytes: 2 },
        TaskError::Exit { .. } => TaskError::Exit { output },
        TaskError::BadPointer { .. } => TaskError::BadPointer { pointer: 1, len: 2, memory_bytes: 3 },
        TaskError::Abi { .. } => TaskError::Abi { message: message() },
        TaskError::Instantiate { .. } => TaskError::Instantiate { message: message() },
        TaskError::Aborted { .. } => TaskError::Aborted { killed: false },
        TaskError::Cancelled => TaskError::Cancelled,
        TaskError::OtherProcess => TaskError::OtherProcess,
        TaskError::WorkerDied(_) => TaskError::WorkerDied(death()),
        TaskError::NoWorker(_) => TaskError::NoWorker(shortage()),
        TaskError::Broken(_) => TaskError::Broken(broken()),
    }
}

fn failures() -> Vec<TaskFailure> {
    let failure = |error| {
        let label = Some(word("a label"));
        TaskFailure::new(
            error,
            TaskId(3),
            word("count").into(),
            word("primes").into(),
            label,
            TaskReport::default(),
        )
    };
    task_errors().into_iter().map(failure).collect()
}

fn submit_errors() -> Vec<SubmitError> {
    let task = || word("count");
    let module = || word("primes");
    one_of_each! {
        SubmitError::Encode { .. } => SubmitError::Encode { task: task(), message: word("the codec's words") },
        SubmitError::InputTooLarge { .. } => SubmitError::InputTooLarge { task: task(), bytes: 2, max: 1 },
        SubmitError::QueueFull { .. } => SubmitError::QueueFull { max: 1 },
        SubmitError::NotMetered { .. } => SubmitError::NotMetered { task: task(), module: module() },
        SubmitError::NotDeterministic { .. } => SubmitError::NotDeterministic { task: task(), module: module() },
        SubmitError::DirsNotDeterministic { .. } => SubmitError::DirsNotDeterministic { task: task() },
        SubmitError::ForeignModule { .. } => SubmitError::ForeignModule { task: task() },
        SubmitError::ForeignShared { .. } => SubmitError::ForeignShared { task: task() },
        SubmitError::TooManyShared { .. } => SubmitError::TooManyShared { task: task(), count: 2, max: 1 },
        SubmitError::NoRoomInMap { .. } => SubmitError::NoRoomInMap { task: task(), bytes: 2, max: 1 },
        SubmitError::Unrepresentable { .. } => SubmitError::Unrepresentable {
            task: task(),
            what: "an argument",
            character: '=',
            text: word("a=b"),
        },
        SubmitError::StdinTaken { .. } => SubmitError::StdinTaken { task: task() },
        SubmitError::StdinReadOnce { .. } => SubmitError::StdinReadOnce { task: task() },
        SubmitError::ShutDown { .. } => SubmitError::ShutDown { task: task() },
        SubmitError::OtherProcess { .. } => SubmitError::OtherProcess { task: task() },
        SubmitError::Broken(_) => SubmitError::Broken(broken()),
    }
}

fn module_errors() -> Vec<ModuleError> {
    let module = || word("primes");
    let message = || word("the words");
    one_of_each! {
        ModuleError::Read { .. } => ModuleError::Read { path: word("a.wasm").into(), message: message() },
        ModuleError::TooLarge { .. } => ModuleError::TooLarge { bytes: 2, max: 1 },
        ModuleError::Invalid { .. } => ModuleError::Invalid { message: message() },
        ModuleError::Unsupported { .. } => {
            ModuleError::Unsupported { feature: word("threads"), message: message() }
        },
        ModuleError::UnknownImports { .. } => ModuleError::UnknownImports { imports: vec![word("a.b")] },
        ModuleError::Abi { .. } => ModuleError::Abi { message: message() },
        ModuleError::CompileLimit { .. } => ModuleError::CompileLimit {
            kind: CompileLimit::Time,
            limit: 2,
            seen: 1,
            function: None,
            offset: None,
            others: vec![ExceededLimit::new(CompileLimit::Blocks, 3, 4)],
            quarantined: true,
        },
        ModuleError::CompileLimitUnavailable { .. } => ModuleError::CompileLimitUnavailable {
            kind: CompileLimit::Memory,
            asked: 2,
            most: 1,
            why: message(),
        },
        ModuleError::CompilerDied { .. } => ModuleError::CompilerDied { death: death(), quarantined: true },
        ModuleError::Compiler { .. } => ModuleError::Compiler { message: message() },
        ModuleError::NoCompiler { .. } => ModuleError::NoCompiler { shortage: shortage() },
        ModuleError::UnknownTask { .. } => {
            ModuleError::UnknownTask { module: module(), name: word("a"), known: vec![word("b")] }
        },
        ModuleError::SchemaMismatch { .. } => ModuleError::SchemaMismatch {
            module: module(),
            task: word("count"),
            side: word("input"),
            declared: word("u64"),
            asked: word("u32"),
        },
        ModuleError::RawTask { .. } => ModuleError::RawTask { module: module(), task: word("count") },
        ModuleError::NotACommand { .. } => ModuleError::NotACommand { module: module(), known: Vec::new() },
        ModuleError::TooMany { .. } => ModuleError::TooMany { max: 1 },
        ModuleError::NoDescriptors { .. } => ModuleError::NoDescriptors { message: message() },
        ModuleError::Replacement { .. } => ModuleError::Replacement {
            module: module(),
            why: Box::new(ModuleError::RawTask { module: word("new"), task: word("count") }),
        },
        ModuleError::ForeignModule { .. } => ModuleError::ForeignModule { module: module() },
        ModuleError::OtherProcess => ModuleError::OtherProcess,
        ModuleError::Closed { .. } => ModuleError::Closed { message: message() },
    }
}

fn build_errors() -> Vec<BuildError> {
    let words = || word("the words");
    one_of_each! {
        BuildError::InitMissing => BuildError::InitMissing,
        BuildError::NoEngine => BuildError::NoEngine,
        BuildError::NestedInit => BuildError::NestedInit,
        BuildError::Workers { .. } => BuildError::Workers { workers: 0, max: 1 },
        BuildError::Setting { .. } => BuildError::Setting { setting: "workers_min", value: 2, must: words() },
        BuildError::NoSeccomp => BuildError::NoSeccomp,
        BuildError::SandboxRefused { .. } => BuildError::SandboxRefused { message: words() },
        BuildError::SandboxHole { .. } => BuildError::SandboxHole { attack: words(), outcome: words() },
        BuildError::PagemapScan { .. } => BuildError::PagemapScan { reason: words() },
        BuildError::Directory { .. } => BuildError::Directory { path: word("data").into(), source: refusal() },
        BuildError::CacheDir { .. } => BuildError::CacheDir { path: word("data").into(), source: refusal() },
        BuildError::WorkerProgram { .. } => BuildError::WorkerProgram { path: word("a").into(), source: refusal() },
        BuildError::System { .. } => BuildError::System { what: "start a thread", source: refusal() },
    }
}

fn share_errors() -> Vec<ShareError> {
    one_of_each! {
        ShareError::TooLarge { .. } => ShareError::TooLarge { bytes: 2, max: 1 },
        ShareError::OtherProcess => ShareError::OtherProcess,
        ShareError::TooMany { .. } => ShareError::TooMany { max: 1 },
        ShareError::System { .. } => ShareError::System { bytes: 1, source: refusal() },
    }
}

fn map_errors() -> Vec<MapError> {
    let limit = Duration::from_secs(1);
    let mut errors = one_of_each! {
        MapError::Submit(_) => MapError::Submit(SubmitError::QueueFull { max: 1 }),
        MapError::Task(_) => MapError::Task(failures().remove(0)),
        MapError::Timeout { .. } => MapError::Timeout { limit },
    };
    errors.extend(submit_errors().into_iter().map(MapError::Submit));
    errors.extend(failures().into_iter().map(MapError::Task));
    errors
}

/// Each error must show a stranger's text harmlessly; a new variant does not compile until it is in the lists
/// above.
#[test]
fn no_error_shows_a_strangers_text_raw() {
    IS_HOSTILE.set(true);
    let errors: Vec<_> = boxed(task_errors())
        .chain(boxed(failures()))
        .chain(boxed(submit_errors()))
        .chain(boxed(module_errors()))
        .chain(boxed(build_errors()))
        .chain(boxed(share_errors()))
        .chain(boxed(map_errors()))
        .chain(boxed(vec![broken()]))
        .collect();
    IS_HOSTILE.set(false);
    let mut escaped = 0;
    for error in errors {
        let shown = error.to_string();
        assert!(shown.chars().all(|c| is_harmless(c) && c != '\t'), "{shown:?}");
        // Frames of a backtrace are indented in the same way.
        assert!(shown.lines().skip(1).all(|line| line.starts_with("    ")), "{shown:?}");
        escaped += usize::from(shown.contains("\\u{1b}]0;title"));
    }
    assert!(escaped > 60, "{escaped} have strangers' text");
}

fn boxed<E: Error + 'static>(errors: Vec<E>) -> impl Iterator<Item = Box<dyn Error>> {
    errors.into_iter().map(|error| Box::new(error) as Box<dyn Error>)
}

/// Some programs print a whole chain of sources: `{:#}` of anyhow, and the command line.
#[test]
fn no_error_says_again_what_was_said_before_it_in_its_chain() {
    let errors = boxed(task_errors())
        .chain(boxed(failures()))
        .chain(boxed(submit_errors()))
        .chain(boxed(module_errors()))
        .chain(boxed(build_errors()))
        .chain(boxed(share_errors()))
        .chain(boxed(map_errors()))
        .chain(boxed(vec![broken()]))
        .chain(boxed(vec![WaitTimeout { task: TaskId(3), waited: Duration::from_secs(1) }]))
        .chain(boxed(vec![AsCompletedTimeout { unfinished: 1, total: 2 }]))
        .chain(boxed(vec![SchemaError::Truncated, SchemaError::UnknownTag(7), SchemaError::Malformed]));
    let mut count = 0;
    let mut with_sources = 0;
    for error in errors {
        let mut said = error.to_string();
        let mut source = error.source();
        count += 1;
        with_sources += usize::from(source.is_some());
        while let Some(error) = source {
            let text = error.to_string();
            assert!(!text.is_empty() && !said.contains(&text), "{said:?}, and again {text:?}");
            said = format!("{said}: {text}");
            source = error.source();
        }
        for words in ["the guest's words", "f1", "its last words"] {
            assert!(said.matches(words).count() <= 1, "{said:?} says {words:?} twice");
        }
    }
    // These errors leave the system's message to the source: of a directory, the cache's, a worker's program,
    // a thread and a shared input.
    assert!(count > 100 && with_sources == 5, "{with_sources} of {count}");
}

#[test]
fn a_failure_tells_all_of_its_error_itself() {
    for (failure, error) in failures().iter().zip(task_errors()) {
        assert!(failure.to_string().contains(&error.to_string()) && failure.source().is_none(), "{failure}");
        assert_eq!(format!("{:#}", anyhow::Error::new(failure.clone())), failure.to_string());
    }
}

#[test]
fn an_unknown_import_is_told_with_the_functions_that_there_are() {
    let message = ModuleError::UnknownImports { imports: vec!["env.a: () -> ()".into()] }.to_string();
    let provided = "wasmpool (log, panic, shared_len, shared_read) and env (abort, trace, seed) to modules, WASI 0.2 and wasmpool:guest to components";
    assert!(message.ends_with(provided), "{message}");
}

#[test]
fn a_child_met_a_shortage_only_if_it_ended_before_it_was_ready() {
    let code = Shortage::exit_code(&rustix::io::Errno::MFILE.into()).expect("a code");
    let death = |cause, phase| Death::new(7, cause, phase, "its words".into());
    let met = death(DeathCause::Exited(code), Phase::Start).shortage().expect("a shortage");
    assert_eq!((met.of, met.message.as_str()), (Scarce::Descriptors, "its words"));
    assert_eq!(
        death(DeathCause::Exited(code), Phase::Running).shortage(),
        None,
        "a worker's word for itself"
    );
    assert_eq!(death(DeathCause::Exited(1), Phase::Start).shortage(), None);
    assert_eq!(death(DeathCause::Signaled(9), Phase::Start).shortage(), None);
}

#[test]
fn what_a_compiler_refuses_is_the_error_of_that_name_and_not_in_quarantine() {
    let text = || "it says so".to_string();
    let refusals = [
        CompileError::Invalid { message: text() },
        CompileError::Unsupported { feature: text(), message: text() },
        CompileError::UnknownImports { imports: vec![text()] },
        CompileError::Abi { message: text() },
        CompileError::CompileLimit {
            kind: CompileLimit::Memory,
            limit: 1,
            seen: 2,
            function: Some(3),
            offset: Some(4),
            others: vec![ExceededLimit::new(CompileLimit::Blocks, 5, 6)],
        },
        CompileError::Compiler { message: text() },
        CompileError::UnknownTask { module: text(), name: text(), known: vec![text()] },
        CompileError::NotACommand { module: text(), known: vec![text()] },
    ];
    for refusal in refusals {
        let said = format!("{refusal:?}");
        let error = ModuleError::from(refusal);
        let shown = format!("{error:?}").replace(", quarantined: false", "");
        assert_eq!(shown, said);
    }
}
