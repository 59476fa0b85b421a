//! Workers that lie on the wire: each lie is one worker's death with its own words, the host
//! is unharmed, and another pool beside it notices nothing. `src/bin/liar.rs` tells the lies.

use std::io::Read;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use wasmpool::error::{BrokenPool, DeathCause, MapError, SubmitError};
use wasmpool::module::RawTask;
use wasmpool::pool::{OnWorkerDeath, Replacement, ShutdownMode};
use wasmpool::task::CommandInput;
use wasmpool::{Bytes, Module, Pool, PoolBuilder, TaskError, TaskFuture, TaskOptions};

wasmpool::init_at_load!();

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Few enough that the first results come before the last inputs: then tasks travel in batches.
const BUFFER: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// The program under the name of one lie; gone when this is.
struct Liar(PathBuf);

impl Liar {
    fn new(lie: &str) -> Liar {
        // A folder for each, since a test may ask for the same lie twice.
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!(
            "liars-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join(format!("liar-{lie}"));
        let _ = std::fs::remove_file(&path);
        let program = env!("CARGO_BIN_EXE_liar");
        // A copy is open for writing in whatever another test starts meanwhile, and cannot be run for so
        // long; another user's file cannot be linked.
        if std::fs::hard_link(program, &path).is_err() {
            std::fs::copy(program, &path).expect("copies");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("an executable");
        }
        Liar(path)
    }

    fn builder(&self) -> PoolBuilder {
        let cache = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cache");
        Pool::builder()
            .workers(1)
            .cache_dir(cache)
            .worker_program(&self.0)
            .start_timeout(Duration::from_secs(20))
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
        if let Some(folder) = self.0.parent() {
            // The folder goes with the last of its liars.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

fn echo(pool: &Pool) -> RawTask {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../guest-tasks/prebuilt/echo.wasm");
    let module: Module = pool.load_file(path).expect("loads");
    module.raw_task("echo").expect("is there")
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("reads");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

fn broken(lie: &str, input: Bytes) -> BrokenPool {
    let liar = Liar::new(lie);
    let pool = liar.builder().build().expect("builds");
    let echo = echo(&pool);
    let failure = |future: TaskFuture<Bytes>| match future.result_timeout(PATIENCE) {
        Ok(result) => result.expect_err("a lie is no result"),
        Err(timeout) => panic!("{lie}: {timeout}"),
    };
    let first = pool.submit_bytes(&echo, input).expect("submits");
    let broken = match pool.submit_bytes(&echo, &b"2nd"[..]) {
        Ok(second) => match failure(second).error() {
            TaskError::Broken(broken) => broken.clone(),
            other => panic!("{lie}: {other:?}"),
        },
        // The lie was found out before the second task came.
        Err(SubmitError::Broken(broken)) => broken,
        Err(other) => panic!("{lie}: {other:?}"),
    };
    failure(first);
    broken
}

#[test]
fn a_lie_is_a_protocol_violation_that_says_what_it_was() {
    let small = || Bytes::from_static(b"input");
    let large = Bytes::from(vec![7; 8 << 20]);
    let before = resident_kib();
    for (lie, input, says) in [
        ("magic", small(), "a frame starts with"),
        ("fat-meta", small(), "4294967295 bytes of metadata"),
        ("fat-payload", small(), "bytes of payload, the limit is"),
        ("payload-over-limit", small(), "314572800 bytes of payload"),
        ("garbage-meta", small(), "metadata is malformed"),
        ("endless-varint", small(), "metadata is malformed"),
        ("left-over", small(), "metadata is malformed"),
        ("other-task", small(), "a task that it does not have"),
        ("no-task", small(), "a task that it does not have"),
        ("heeded", small(), "an answer to no question"),
        ("forged-log", small(), "a task that it does not have"),
        ("log-with-payload", small(), "logs are over the limit"),
        ("log-as-itself", small(), "its own words for a task's"),
        ("forged-event", small(), "a task that it does not have"),
        ("event-with-payload", small(), "something of itself that cannot be"),
        ("event-as-a-guest", small(), "something of itself that cannot be"),
        ("endless-logs", small(), "logs are over the limit"),
        ("put-too-far", small(), "a ring position is out of range"),
        ("put-backwards", small(), "a ring position is out of range"),
        ("put-wraps", small(), "a ring position is out of range"),
        ("taken-too-far", large.clone(), "a ring position is out of range"),
        ("early", large, "before it had read its input"),
        ("ready-twice", small(), "ready twice"),
        ("other-build", small(), "built from another version"),
        ("garbage-control", small(), "malformed"),
        ("fat-control", small(), "too long"),
        ("descriptor", small(), "brings descriptors"),
    ] {
        let broken = broken(lie, input);
        let DeathCause::ProtocolViolation(words) = &broken.death().cause else {
            panic!("{lie}: {broken}");
        };
        assert!(words.contains(says), "{lie}: {words}");
        assert!(broken.pid() > 0, "{lie}: {broken}");
    }
    // Other tests hold memory meanwhile, in this same process; they end.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let grown = resident_kib().saturating_sub(before);
        if grown < 64 * 1024 {
            break;
        }
        assert!(Instant::now() < deadline, "the lies cost the host {grown} KiB");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs a map whose short tasks travel in batches, in a worker that lies.
fn map(lie: &str) -> (Vec<Result<Bytes, MapError>>, Option<BrokenPool>) {
    let liar = Liar::new(lie);
    let pool = liar.builder().build().expect("builds");
    let inputs = (0..1000).map(|number: u32| Bytes::from(number.to_string()));
    let results = pool.map(&echo(&pool), inputs).buffer_size(BUFFER).timeout(PATIENCE).collect();
    (results, pool.broken())
}

#[test]
fn a_lie_about_a_batch_is_a_protocol_violation_that_says_what_it_was() {
    for (lie, says) in [
        ("batch-other-item", "a task that it does not have"),
        ("batch-too-many", "a task that it does not have"),
        ("batch-none", "as one of a batch"),
        ("batch-other-item-shortly", "a task that it does not have"),
        ("batch-too-many-shortly", "a task that it does not have"),
        ("batch-none-shortly", "as one of a batch"),
        ("batch-nothing", "without having done anything"),
        ("batch-payload", "for a batch as a whole"),
        ("batch-guest", "a batch one end"),
        ("batch-other-log", "a task that it does not have"),
        ("batch-old-log", "a task that it does not have"),
    ] {
        let (results, broken) = map(lie);
        assert_eq!(results.len(), 1000, "{lie}: each input has its result");
        let broken = broken.unwrap_or_else(|| panic!("{lie}: it went unnoticed"));
        let DeathCause::ProtocolViolation(words) = &broken.death().cause else { panic!("{lie}: {broken}") };
        assert!(words.contains(says), "{lie}: {words}");
        for result in results {
            match result {
                Ok(output) => assert_eq!(output, "lie"),
                Err(MapError::Task(failure)) => {
                    assert!(matches!(failure.error(), TaskError::Broken(_)), "{failure}")
                }
                Err(MapError::Submit(SubmitError::Broken(_))) => {}
                Err(other) => panic!("{lie}: {other}"),
            }
        }
    }
}

/// Runs a command in a worker that lies, until it fails.
fn reads(lie: &str, timeout: Duration, stdin: impl Read + Send + 'static) -> (TaskError, Pool, Liar) {
    let liar = Liar::new(lie);
    let pool = liar.builder().grace(Duration::from_millis(50)).build().expect("builds");
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../guest-tasks/prebuilt/csv_stats.wasm");
    let command = pool.load_file(path).expect("loads").command().expect("a command");
    let input = CommandInput::new().stdin_reader(stdin);
    let options = TaskOptions::new().timeout(timeout);
    let future = pool.submit_with(&command, &input, options).expect("submits");
    let failure = future.result_timeout(PATIENCE).expect("in time").expect_err("a lie is no result");
    (failure.error().clone(), pool, liar)
}

#[test]
fn a_question_that_cannot_be_is_a_protocol_violation_that_says_what_it_was() {
    for (lie, says) in [
        ("ask-other-run", "in the name of another run"),
        ("ask-with-payload", "with a payload"),
        ("ask-out-of-turn", "its question 1 had the number 2"),
        ("ask-too-much", "65537 bytes at once"),
        ("ask-unanswered", "again before it had its answer"),
        ("ask-again", "its question 2 had the number 1"),
        ("ask-after-the-end", "for more after the end"),
        ("ask-unheard", "an answer cannot be sent"),
    ] {
        let (error, pool, _liar) = match lie {
            // The answer to the question never comes.
            "ask-unanswered" => {
                let (reader, writer) = std::io::pipe().expect("a pipe");
                let lied = reads(lie, PATIENCE, reader);
                drop(writer);
                lied
            }
            "ask-unheard" => reads(lie, PATIENCE, std::io::repeat(7)),
            _ => reads(lie, PATIENCE, &b"a few bytes"[..]),
        };
        let TaskError::Broken(broken) = error else { panic!("{lie}: {error}") };
        let DeathCause::ProtocolViolation(words) = &broken.death().cause else { panic!("{lie}: {broken}") };
        assert!(words.contains(says), "{lie}: {words}");
        assert!(pool.broken().is_some());
    }
    let broken = broken("ask-of-a-task", Bytes::from_static(b"input"));
    let DeathCause::ProtocolViolation(words) = &broken.death().cause else { panic!("{broken}") };
    assert!(words.contains("what its task does not have"), "{words}");
}

#[test]
fn a_question_after_the_answer_is_a_violation_and_the_answer_counts() {
    let liar = Liar::new("ask-after-its-answer");
    let pool = liar.builder().build().expect("builds");
    let echo = echo(&pool);
    let first = pool.submit_bytes(&echo, &b"1"[..]).expect("submits");
    assert_eq!(first.result_timeout(PATIENCE).expect("in time").expect("it was answered"), "");
    let deadline = Instant::now() + PATIENCE;
    while pool.broken().is_none() {
        assert!(Instant::now() < deadline, "it went unnoticed");
        std::thread::sleep(Duration::from_millis(1));
    }
    let broken = pool.broken().expect("it is broken");
    let DeathCause::ProtocolViolation(words) = &broken.death().cause else { panic!("{broken}") };
    assert!(words.contains("a task that it does not have"), "{words}");
}

#[test]
fn a_worker_that_asks_without_end_ends_at_its_deadline_and_costs_the_host_no_memory() {
    let before = resident_kib();
    let (error, pool, _liar) = reads("ask-without-end", Duration::from_millis(500), std::io::repeat(7));
    assert!(matches!(error, TaskError::Timeout { killed: true, .. }), "{error}");
    assert!(pool.broken().is_none());
    // Other tests hold memory meanwhile, so this waits until they end.
    let deadline = Instant::now() + PATIENCE;
    while resident_kib().saturating_sub(before) > 64 * 1024 {
        assert!(Instant::now() < deadline, "it cost the host too much");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_batch_of_an_honest_worker_by_hand_is_answered_task_by_task() {
    for honest in ["batch-honest", "batch-honest-shortly"] {
        let (results, broken) = map(honest);
        assert_eq!((results.len(), results.iter().filter(|result| result.is_ok()).count()), (1000, 1000));
        assert!(broken.is_none(), "{honest}");
    }
}

#[test]
fn a_worker_that_dies_between_the_last_answer_and_the_end_of_its_batch_takes_no_task_along() {
    let liar = Liar::new("batch-dies");
    let policy = OnWorkerDeath::Replace(Replacement::new().crashes_max(1000));
    let pool = liar.builder().on_worker_death(policy).build().expect("builds");
    let inputs = (0..1000).map(|number: u32| Bytes::from(number.to_string()));
    let results = pool.map(&echo(&pool), inputs).buffer_size(BUFFER).timeout(PATIENCE);
    let outputs: Result<Vec<_>, _> = results.collect();
    assert_eq!(outputs.expect("each has its answer").len(), 1000);
    // The last batch ends a moment after the last of its tasks.
    assert!(pool.shutdown_timeout(ShutdownMode::Finish, PATIENCE), "it stops");
    let stats = pool.stats();
    assert!(stats.workers_died > 0, "there was no batch");
    assert_eq!((stats.submitted, stats.ended.succeeded, stats.ended.lost), (1000, 1000, 0));
}

#[test]
fn half_a_frame_holds_up_nobody_but_its_task() {
    let liar = Liar::new("half");
    let pool = liar.builder().workers(2).grace(Duration::from_millis(50)).build().expect("builds");
    let echo = echo(&pool);
    let submit = |input: &'static [u8]| pool.submit_bytes(&echo, input).expect("submits");
    for future in [submit(b"1"), submit(b"2")] {
        assert_eq!(future.result_timeout(PATIENCE).expect("in time").expect("runs"), "lie");
    }
    let half = submit(b"half");
    let began = Instant::now();
    assert!(half.result_timeout(Duration::from_millis(50)).is_err(), "it has no answer");
    assert!(began.elapsed() < PATIENCE / 2, "who waits for so long waits no longer");
    std::thread::scope(|scope| {
        // Meanwhile somebody reads that worker's ring, and waits.
        let waits = scope.spawn(|| half.result_timeout(PATIENCE));
        let others: Vec<_> = (0..50).map(|_| submit(b"x")).collect();
        for future in others {
            assert_eq!(future.result_timeout(PATIENCE).expect("the other worker").expect("runs"), "lie");
        }
        assert!(half.abort());
        let failure = waits.join().expect("waits").expect("in time").expect_err("it never answered");
        assert!(matches!(failure.error(), TaskError::Aborted { killed: true }), "{failure}");
    });
    assert!(pool.broken().is_none());
}

#[test]
fn a_caller_that_reads_for_itself_learns_that_its_worker_is_gone() {
    let liar = Liar::new("honest");
    let pool = liar.builder().grace(Duration::from_millis(50)).build().expect("builds");
    let echo = echo(&pool);
    let first = pool.submit_bytes(&echo, &b"1"[..]).expect("submits");
    assert_eq!(first.result_timeout(PATIENCE).expect("in time").expect("runs"), "lie");
    // The worker is there, and silent from here on: this thread reads its ring, asleep.
    let options = TaskOptions::new().timeout(Duration::from_millis(100));
    let second = pool.submit_with(&echo, &Bytes::from_static(b"2"), options).expect("submits");
    let failure = second.result_timeout(PATIENCE).expect("in time").expect_err("no answer");
    assert!(matches!(failure.error(), TaskError::Timeout { killed: true, .. }), "{failure}");
    let options = TaskOptions::new().timeout(Duration::from_secs(3600));
    let third = pool.submit_with(&echo, &Bytes::from_static(b"3"), options).expect("submits");
    third.result_timeout(PATIENCE).expect("in time").expect("another worker runs it");
}

#[test]
fn a_frame_that_is_cut_off_is_the_death_of_its_writer() {
    for (lie, code) in [("torn", 0), ("torn-header", 3)] {
        let broken = broken(lie, Bytes::new());
        assert_eq!(broken.exit_code(), Some(code), "{lie}: {broken}");
        assert_eq!(broken.tasks_in_flight().len(), 1, "{lie}: {broken}");
    }
}

#[test]
fn a_worker_that_takes_the_hosts_sleepers_off_their_words_dies_as_any_other() {
    let broken = broken("requeues", Bytes::from_static(b"input"));
    assert_eq!(broken.exit_code(), Some(3), "{broken}");
}

#[test]
fn a_worker_that_never_stops_talking_holds_up_nobody_beyond_the_deadline() {
    let liar = Liar::new("chatters");
    let pool = liar.builder().grace(Duration::from_millis(50)).build().expect("builds");
    let future = pool.submit_bytes(&echo(&pool), &b"x"[..]).expect("submits");
    let (sender, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let waited = future.result_timeout(Duration::from_millis(300)).is_err();
            sender.send(waited).expect("somebody listens");
        });
        let waited = told.recv_timeout(PATIENCE);
        pool.kill();
        assert_eq!(waited, Ok(true), "it waited until its deadline, and no longer");
    });
}

#[test]
fn what_was_said_before_the_lie_counts() {
    let liar = Liar::new("twice");
    let pool = liar.builder().build().expect("builds");
    let echo = echo(&pool);
    let first = pool.submit_bytes(&echo, &b"1"[..]).expect("submits");
    let result = first.result_timeout(PATIENCE).expect("in time").expect("it was answered once");
    assert_eq!(&result[..], b"lie");
    let broken = loop {
        match pool.submit_bytes(&echo, &b"2"[..]) {
            Err(wasmpool::error::SubmitError::Broken(broken)) => break broken,
            Err(other) => panic!("{other}"),
            Ok(future) => {
                let _ = future.result_timeout(PATIENCE).expect("in time");
            }
        }
    };
    assert!(matches!(broken.death().cause, DeathCause::ProtocolViolation(_)), "{broken}");
}

#[test]
fn a_worker_that_does_nothing_is_killed_at_the_deadline_and_the_pool_lives_on() {
    for lie in ["stalled", "claims"] {
        let liar = Liar::new(lie);
        let builder = liar.builder().grace(Duration::from_millis(50));
        let pool = builder.timeout(Duration::from_millis(100)).build().expect("builds");
        let echo = echo(&pool);
        let futures: Vec<_> =
            (0..3).map(|_| pool.submit_bytes(&echo, vec![1; 4 << 20]).expect("submits")).collect();
        for future in futures {
            let failure = future.result_timeout(PATIENCE).expect("in time").expect_err("no answer");
            assert!(matches!(failure.error(), TaskError::Timeout { killed: true, .. }), "{lie}: {failure}");
        }
        assert!(pool.broken().is_none());
        let cancelled = pool.submit_bytes(&echo, &b"last"[..]).expect("submits");
        assert!(cancelled.cancel() || cancelled.abort(), "{lie}");
    }
}

/// The lying worker sets no limits for itself, so only the host's look finds it.
#[test]
fn a_worker_that_holds_more_memory_than_it_may_is_killed_for_it_busy_or_idle() {
    for lie in ["hoards", "hoards-idle"] {
        let liar = Liar::new(lie);
        let builder = liar.builder().worker_memory_bytes_max(wasmpool::limits::WORKER_MEMORY_BYTES_MIN);
        let pool = builder.build().expect("builds");
        let mut events = pool.events();
        let echo = echo(&pool);
        pool.prestart(1);
        let busy = (lie == "hoards").then(|| pool.submit_bytes(&echo, &b"x"[..]).expect("submits"));
        let deadline = Instant::now() + PATIENCE;
        let death = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = events.next_timeout(left).unwrap_or_else(|| panic!("{lie}: nobody minds"));
            if let wasmpool::event::EventKind::WorkerEnded { death, expected } = event.kind {
                assert!(!expected, "{lie}: {death}");
                break death;
            }
        };
        let limit = wasmpool::limits::WORKER_MEMORY_BYTES_MIN;
        match death.cause {
            DeathCause::MemoryExceeded { limit_bytes, seen_bytes } => {
                assert!(limit_bytes == limit && seen_bytes > limit, "{lie}: {limit_bytes}, {seen_bytes}");
            }
            other => panic!("{lie}: {other:?}"),
        }
        let failed =
            busy.map(|busy| busy.result_timeout(PATIENCE).expect("in time").expect_err("it is dead"));
        assert!(failed.is_none_or(|failure| failure.to_string().contains("bytes of memory")), "{lie}");
    }
}

#[test]
fn a_silent_worker_is_killed_after_its_time_to_start() {
    let liar = Liar::new("silent");
    let pool = liar.builder().start_timeout(Duration::from_millis(200)).build().expect("builds");
    let future = pool.submit_bytes(&echo(&pool), &b"x"[..]).expect("submits");
    let failure = future.result_timeout(PATIENCE).expect("in time").expect_err("nobody is there");
    let TaskError::Broken(broken) = failure.error() else { panic!("{failure}") };
    assert!(matches!(broken.death().cause, DeathCause::StartTimeout(_)), "{broken}");
    assert!(!failure.may_have_run(), "{failure}");
}

#[test]
fn with_replacement_a_liar_costs_the_task_that_it_was_given() {
    let liar = Liar::new("magic");
    let policy = OnWorkerDeath::Replace(Replacement::new().crashes_max(3));
    let pool = liar.builder().on_worker_death(policy).build().expect("builds");
    let echo = echo(&pool);
    let options = TaskOptions::new().retry(wasmpool::task::Retry::attempts(2));
    let plain = pool.submit_bytes(&echo, &b"plain"[..]).expect("submits");
    let retried = pool.submit_with(&echo, &Bytes::from_static(b"again"), options).expect("submits");
    for (future, attempts) in [(plain, 1), (retried, 2)] {
        let failure = future.result_timeout(PATIENCE).expect("in time").expect_err("a lie is no result");
        let TaskError::WorkerDied(death) = failure.error() else { panic!("{failure}") };
        assert!(matches!(death.cause, DeathCause::ProtocolViolation(_)), "{death}");
        assert_eq!(failure.report().attempts, attempts, "{failure}");
    }
    assert!(pool.broken().is_none(), "the tasks were to blame, or might have been");
}

#[test]
fn an_honest_pool_beside_the_liars_notices_nothing() {
    let cache = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cache");
    let honest = Pool::builder().workers(1).cache_dir(cache).build().expect("builds");
    let echo = echo(&honest);
    for lie in ["magic", "put-wraps", "twice", "endless-logs"] {
        let future = honest.submit_bytes(&echo, &b"before"[..]).expect("submits");
        if lie != "twice" {
            broken(lie, Bytes::from_static(b"x"));
        }
        assert_eq!(&future.result_timeout(PATIENCE).expect("in time").expect("runs")[..], b"before");
    }
    assert_eq!(honest.stats().workers_died, 0);
}
