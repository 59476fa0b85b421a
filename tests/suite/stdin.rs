//! A command's stdin that is read while it runs: as far as the command asks, and by a thread that nobody else
//! waits for.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::support::{PATIENCE, build, builder, error, eventually, failure, preview0};
use wasmpool::error::SubmitError;
use wasmpool::module::ModuleOptions;
use wasmpool::task::{CommandInput, CommandOutput, Retry};
use wasmpool::{Command, Pool, TaskError, TaskFuture, TaskOptions};

/// All the guests import this. `$read` reads up to this many bytes to 65536, and returns how many came, or -1
/// with an error at 12; `$write` writes this many from there.
const PRELUDE: &str = r#"
    (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 40)
    (func $read (param $len i32) (result i32)
        (i32.store (i32.const 0) (i32.const 65536))
        (i32.store (i32.const 4) (local.get $len))
        (i32.store (i32.const 12) (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
        (if (result i32) (i32.load (i32.const 12)) (then (i32.const -1)) (else (i32.load (i32.const 8)))))
    (func $write (param $len i32)
        (i32.store (i32.const 0) (i32.const 65536))
        (i32.store (i32.const 4) (local.get $len))
        (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
    ;; Waits for stdin, or so many nanoseconds; which of them it was: 1 for stdin, 2 for the clock, 3 for both.
    (func $poll (param $nanoseconds i64) (result i32)
        (memory.fill (i32.const 1024) (i32.const 0) (i32.const 256))
        (i64.store (i32.const 1024) (i64.const 1))
        (i32.store8 (i32.const 1032) (i32.const 1))
        (i64.store (i32.const 1072) (i64.const 2))
        (i32.store (i32.const 1088) (i32.const 1))
        (i64.store (i32.const 1096) (local.get $nanoseconds))
        (drop (call $poll_oneoff (i32.const 1024) (i32.const 1152) (i32.const 2) (i32.const 16)))
        (i32.add (i32.load (i32.const 1152))
            (select (i32.load (i32.const 1184)) (i32.const 0) (i32.gt_u (i32.load (i32.const 16)) (i32.const 1)))))"#;

fn command_with(pool: &Pool, body: &str, options: ModuleOptions) -> Command {
    let text = format!("(module {PRELUDE} (func (export \"_start\") (local $n i32) {body}))");
    let wasm = wat::parse_str(preview0::guest(module_path!(), &text)).expect("valid text");
    pool.load_with(&wasm, options).expect("loads").command().expect("a command")
}

fn command(pool: &Pool, body: &str) -> Command {
    command_with(pool, body, ModuleOptions::new())
}

/// Copies stdin to stdout, this many bytes at a time.
fn copier(pool: &Pool, at_a_time: usize) -> Command {
    command(pool, &copying(at_a_time))
}

fn copying(at_a_time: usize) -> String {
    format!(
        "(loop $more
            (local.set $n (call $read (i32.const {at_a_time})))
            (if (i32.eq (local.get $n) (i32.const -1)) (then (call $exit (i32.load (i32.const 12)))))
            (call $write (local.get $n))
            (br_if $more (local.get $n)))"
    )
}

fn output(future: &TaskFuture<CommandOutput>) -> CommandOutput {
    future.result_timeout(PATIENCE).expect("in time").unwrap_or_else(|failure| panic!("{failure}"))
}

/// A reader that yields what it is sent, records how much it was asked for, and counts its instances.
struct Fed {
    bytes: Receiver<Vec<u8>>,
    asked: Arc<Mutex<Vec<usize>>>,
    alive: Arc<AtomicUsize>,
}

struct Feeder {
    bytes: Sender<Vec<u8>>,
    asked: Arc<Mutex<Vec<usize>>>,
    alive: Arc<AtomicUsize>,
}

impl Feeder {
    fn new() -> (Feeder, Fed) {
        let (sender, bytes) = mpsc::channel();
        let asked = Arc::default();
        let alive = Arc::new(AtomicUsize::new(1));
        let fed = Fed { bytes, asked: Arc::clone(&asked), alive: Arc::clone(&alive) };
        (Feeder { bytes: sender, asked, alive }, fed)
    }

    fn asked(&self) -> Vec<usize> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_gone(&self) -> bool {
        self.alive.load(Ordering::SeqCst) == 0
    }
}

impl Read for Fed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(into.len());
        let Ok(bytes) = self.bytes.recv() else { return Ok(0) };
        into[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

fn pipe() -> (OwnedFd, std::fs::File) {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    (reader, writer.into())
}

#[test]
fn a_command_reads_a_stdin_of_any_length_as_it_asks_for_it() {
    let pool = build(builder(1).input_bytes_max(1000));
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| (number / 7) as u8).collect();
    for at_a_time in [1000, 65_536, 1 << 20] {
        let copier = copier(&pool, at_a_time);
        let future = pool
            .submit(&copier, &CommandInput::new().stdin_reader(io::Cursor::new(bytes.clone())))
            .expect("submits");
        assert_eq!(output(&future).stdout, bytes, "{at_a_time}");
        assert_eq!(future.report().expect("done").input_bytes, Some(bytes.len() as u64));
    }
}

#[test]
fn nothing_is_read_that_was_not_asked_for() {
    let pool = build(builder(1));
    let twice =
        command(&pool, "(call $write (call $read (i32.const 5))) (call $write (call $read (i32.const 7)))");
    let (feeder, fed) = Feeder::new();
    let future = pool.submit(&twice, &CommandInput::new().stdin_reader(fed)).expect("submits");
    feeder.bytes.send(b"hello".to_vec()).expect("it reads");
    // A read returns what there is, even if it is less than was asked for.
    feeder.bytes.send(b"you".to_vec()).expect("it reads");
    assert_eq!(output(&future).stdout, "helloyou");
    assert_eq!(feeder.asked(), [5, 7]);
    eventually("the reader to be dropped", || feeder.is_gone());
    // A descriptor behaves the same, and the rest stays for the next reader.
    let (reader, mut writer) = pipe();
    writer.write_all(b"hellothe restand more").expect("writes");
    let ours = reader.as_fd().try_clone_to_owned().expect("a descriptor");
    let future = pool.submit(&twice, &CommandInput::new().stdin_from(ours)).expect("submits");
    assert_eq!(output(&future).stdout, "hellothe res");
    drop(writer);
    let mut rest = String::new();
    std::fs::File::from(reader).read_to_string(&mut rest).expect("reads");
    assert_eq!(rest, "tand more");
}

#[test]
fn who_asks_for_nothing_waits_for_nothing_and_the_reader_can_be_given_again() {
    let pool = build(builder(1));
    let deaf = command(&pool, "(call $write (i32.const 0))");
    let (feeder, fed) = Feeder::new();
    let input = CommandInput::new().stdin_reader(fed);
    output(&pool.submit(&deaf, &input).expect("submits"));
    // The reader was not touched, so it can be given again.
    let future = pool.submit(&copier(&pool, 10), &input.clone()).expect("submits");
    feeder.bytes.send(b"now".to_vec()).expect("it is there");
    eventually("it to be read", || !feeder.asked().is_empty());
    let taken = pool.submit(&deaf, &input).expect_err("another reads it");
    assert!(matches!(taken, SubmitError::StdinTaken { .. }), "{taken}");
    drop(feeder.bytes);
    assert_eq!(output(&future).stdout, "now");
}

#[test]
fn a_command_that_waits_for_its_stdin_ends_at_its_deadline_and_takes_no_cpu_time() {
    let pool = build(builder(1));
    let copier = copier(&pool, 10);
    let (feeder, fed) = Feeder::new();
    let options = TaskOptions::new().timeout(Duration::from_millis(300));
    let future = pool.submit_with(&copier, &CommandInput::new().stdin_reader(fed), options).expect("submits");
    feeder.bytes.send(b"some".to_vec()).expect("it reads");
    let failure = failure(&future);
    assert!(matches!(failure.error(), TaskError::Timeout { killed: false, .. }), "{failure}");
    assert_eq!(failure.output().expect("a command's").stdout, "some");
    let report = failure.report();
    assert!(
        report.run >= Duration::from_millis(290)
            && report.cpu.expect("it has an answer") < Duration::from_millis(100),
        "{report:?}"
    );
    // The worker goes on while that reader still blocks; what the reader returns is lost.
    let pids = pool.worker_pids();
    let next = pool.submit(&copier, &CommandInput::new().stdin_reader(&b"next"[..])).expect("submits");
    assert_eq!(output(&next).stdout, "next");
    assert!(!feeder.is_gone());
    feeder.bytes.send(b"late".to_vec()).expect("it still reads");
    eventually("the reader to be dropped", || feeder.is_gone());
    let last = pool.submit(&copier, &CommandInput::new().stdin_reader(&b"last"[..])).expect("submits");
    assert_eq!(output(&last).stdout, "last");
    assert_eq!(pool.worker_pids(), pids);
}

#[test]
fn an_abort_ends_a_command_that_waits_for_its_stdin() {
    let pool = build(builder(1));
    let (feeder, fed) = Feeder::new();
    let future = pool.submit(&copier(&pool, 10), &CommandInput::new().stdin_reader(fed)).expect("submits");
    eventually("it to ask", || !feeder.asked().is_empty());
    assert!(future.abort());
    assert_eq!(error(&future), TaskError::Aborted { killed: false });
}

#[test]
fn a_pool_ends_while_a_reader_blocks() {
    let pool = build(builder(2));
    let copier = copier(&pool, 10);
    let feeders: Vec<_> = (0..4)
        .map(|_| {
            let (feeder, fed) = Feeder::new();
            (pool.submit(&copier, &CommandInput::new().stdin_reader(fed)).expect("submits"), feeder)
        })
        .collect();
    eventually("two to ask", || feeders.iter().filter(|(_, feeder)| !feeder.asked().is_empty()).count() == 2);
    pool.kill();
    for (future, feeder) in feeders {
        assert!(matches!(error(&future), TaskError::Broken(_) | TaskError::Cancelled), "{future:?}");
        drop(feeder.bytes);
        eventually("its reader to be dropped", || feeder.alive.load(Ordering::SeqCst) == 0);
    }
}

/// A reader that fails once, then yields a byte, then panics.
struct Broken(u32);

impl Read for Broken {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0 += 1;
        match self.0 {
            1 => Err(io::Error::from_raw_os_error(21)),
            2 => Err(io::Error::other("no number")),
            3 => {
                into[0] = b'x';
                Ok(1)
            }
            _ => panic!("a reader that panics"),
        }
    }
}

#[test]
fn what_goes_wrong_with_a_reader_is_an_error_of_the_read_and_nobody_elses() {
    let pool = build(builder(1));
    let counts = command(
        &pool,
        "(drop (call $read (i32.const 1))) (i32.store8 (i32.const 70000) (i32.load (i32.const 12)))
        (drop (call $read (i32.const 1))) (i32.store8 (i32.const 70001) (i32.load (i32.const 12)))
        (i32.store8 (i32.const 70002) (call $read (i32.const 1)))
        (drop (call $read (i32.const 1))) (i32.store8 (i32.const 70003) (i32.load (i32.const 12)))
        (i32.store8 (i32.const 70004) (call $read (i32.const 1)))
        (memory.copy (i32.const 65536) (i32.const 70000) (i32.const 5))
        (call $write (i32.const 5))",
    );
    let future = pool.submit(&counts, &CommandInput::new().stdin_reader(Broken(0))).expect("submits");
    // These are WASI's numbers for EISDIR and EIO, then one byte, EIO again, and the end.
    assert_eq!(output(&future).stdout[..], [31, 29, 1, 29, 0]);
    assert!(pool.broken().is_none());
}

#[test]
fn a_stdin_that_is_read_once_is_refused_a_second_attempt() {
    let pool = build(builder(1));
    let copier = copier(&pool, 10);
    let input = CommandInput::new().stdin_reader(&b"x"[..]);
    let again = TaskOptions::new().retry(Retry::attempts(2));
    let refused = pool.submit_with(&copier, &input, again).expect_err("it is to be retried");
    assert!(matches!(refused, SubmitError::StdinReadOnce { .. }), "{refused}");
    // The refused submission did not use the reader up.
    assert_eq!(output(&pool.submit(&copier, &input).expect("submits")).stdout, "x");
    let again = pool.submit(&copier, &input).expect_err("it has been read");
    assert!(matches!(again, SubmitError::StdinTaken { .. }), "{again}");
}

#[test]
fn a_poll_of_stdin_waits_for_it_or_for_the_time_that_it_says() {
    const HOUR: i64 = 3_600_000_000_000;
    const MOMENT: i64 = 50_000_000;
    let pool = build(builder(1));
    // Each step writes one byte: what was ready (1 is stdin, 2 the clock, 3 both), or how many bytes were
    // read.
    let says = |steps: &[Result<i64, usize>], stdin: CommandInput, begun: &dyn Fn()| {
        let step = |(at, step): (usize, &Result<i64, usize>)| {
            let call = match step {
                Ok(nanoseconds) => format!("(call $poll (i64.const {nanoseconds}))"),
                Err(len) => format!("(call $read (i32.const {len}))"),
            };
            format!("(i32.store8 (i32.const {}) {call})", 70_000 + at)
        };
        let body: String = steps.iter().enumerate().map(step).collect();
        let len = steps.len();
        let end = format!("(memory.copy (i32.const 65536) (i32.const 70000) (i32.const {len}))");
        let polls = command(&pool, &format!("{body} {end} (call $write (i32.const {len}))"));
        let future = pool.submit(&polls, &stdin).expect("submits");
        eventually("it to run", || future.is_running() || future.is_done());
        begun();
        output(&future).stdout.to_vec()
    };
    // A silent stdin is polled with and without waiting.
    let (reader, writer) = pipe();
    let silent = CommandInput::new().stdin_from(reader);
    assert_eq!(says(&[Ok(MOMENT), Ok(0), Ok(MOMENT)], silent, &|| {}), [2, 2, 2]);
    drop(writer);
    // Some bytes come and are read, and nothing follows.
    let (reader, writer) = pipe();
    let steps = [Ok(HOUR), Ok(HOUR), Ok(0), Err(4), Ok(MOMENT), Ok(0)];
    let come = || (&writer).write_all(b"some").expect("writes");
    assert_eq!(says(&steps, CommandInput::new().stdin_from(reader), &come), [1, 1, 3, 4, 2, 2]);
    // The end counts as something to read, too.
    let (reader, _) = pipe();
    let steps = [Ok(HOUR), Err(4), Ok(HOUR), Err(4)];
    assert_eq!(says(&steps, CommandInput::new().stdin_from(reader), &|| {}), [1, 0, 1, 0]);
    // A stdin that was sent is ready, and so is a reader, since it cannot be asked.
    let sent = CommandInput::new().stdin("some");
    assert_eq!(says(&[Ok(HOUR), Err(4), Ok(HOUR), Err(4)], sent, &|| {}), [1, 4, 1, 0]);
    let reader = CommandInput::new().stdin_reader(&b"some"[..]);
    assert_eq!(says(&[Ok(HOUR), Err(4), Ok(HOUR), Err(4)], reader, &|| {}), [1, 4, 1, 0]);
}

#[test]
fn a_deterministic_command_reads_the_same_however_it_comes() {
    /// A reader that yields one byte at a time.
    struct Slow(io::Cursor<Vec<u8>>);

    impl Read for Slow {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.0.read(&mut into[..1])
        }
    }
    let pool = build(builder(1));
    // The guest writes how many bytes each read returned, as one byte each.
    let body = "(loop $more
        (local.set $n (call $read (i32.const 100)))
        (i32.store8 (i32.const 65536) (local.get $n))
        (call $write (i32.const 1))
        (br_if $more (local.get $n)))";
    let sizes = command_with(&pool, body, ModuleOptions::new().deterministic(true));
    let bytes = io::Cursor::new(vec![7; 250]);
    for input in
        [CommandInput::new().stdin_reader(bytes.clone()), CommandInput::new().stdin_reader(Slow(bytes))]
    {
        let options = TaskOptions::new().deterministic(1);
        let future = pool.submit_with(&sizes, &input, options).expect("submits");
        assert_eq!(output(&future).stdout[..], [100, 100, 50, 0]);
    }
}

#[test]
fn what_runs_behind_a_command_that_reads_does_not_hold_up_its_answers() {
    // Many short commands run first, so that tasks are sent ahead; what is sent behind the reading one is
    // more than a ring holds.
    let pool = build(builder(1).prefetch_max(64));
    let copier = copier(&pool, 100);
    for _ in 0..50 {
        output(&pool.submit(&copier, &CommandInput::new()).expect("submits"));
    }
    let reads: Vec<_> = (0..20)
        .flat_map(|number| {
            let reader = io::Cursor::new(vec![number; 1000]);
            let large = vec![number; 3 * proto::limits::RING_BYTES];
            [CommandInput::new().stdin_reader(reader), CommandInput::new().stdin(large)]
        })
        .map(|input| pool.submit(&copier, &input).expect("submits"))
        .collect();
    for (number, future) in reads.iter().enumerate() {
        let len = if number % 2 == 0 { 1000 } else { 3 * proto::limits::RING_BYTES };
        assert_eq!(output(future).stdout, vec![(number / 2) as u8; len]);
    }
}
