//! Lies that a worker may write into the memory that it shares with the host.

use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags};

use crate::fuzzing::Input;
use proto::frame::write_frame;
use proto::limits::RING_BYTES;
use proto::message::samples::run_ends;
use proto::message::{Completion, Cost, FromWorker, LogRecord, LogSource, Question, RunEnd};
use proto::ring::CLAIMS;
use proto::task::TaskId;

/// The shared file, as `proto::ring` lays it out.
const HEADER_BYTES: usize = 4096;
const MAP_BYTES: usize = HEADER_BYTES + 2 * RING_BYTES;
const TO_WORKER_TAKEN: usize = 0;
const TO_WORKER_PUT: usize = 128;
const TO_HOST_PUT: usize = 384;
const CLAIM_WORDS: usize = 768;

/// The worker's own mapping of the rings: it may write wherever it likes.
pub(super) struct Memory {
    base: NonNull<u8>,
    /// The bytes that an honest worker would have put into the ring towards the host.
    put: u64,
}

impl Memory {
    pub(super) fn map(rings: &OwnedFd) -> Memory {
        // SAFETY: a fresh mapping at an address of the kernel's choice, of a file of that size.
        let base = unsafe {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            rustix::mm::mmap(std::ptr::null_mut(), MAP_BYTES, protection, MapFlags::SHARED, rings.as_fd(), 0)
        };
        Memory { base: NonNull::new(base.expect("maps").cast()).expect("an address"), put: 0 }
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at < HEADER_BYTES);
        // SAFETY: aligned, and inside of the mapping, which lives as long as self.
        unsafe { self.base.add(at).cast().as_ref() }
    }

    /// One thing that a worker may do to the memory that it shares.
    pub(super) fn lie(&mut self, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0 => self.write(input),
            1 | 2 => self.say(&log(input), &[]),
            3 | 4 => {
                let (task, end, cost) = ended(input);
                let len = usize::from(input.u16()) * usize::from(input.byte() % 8);
                let completion = Completion { end, cost, stdout_bytes: len as u64 / 2 };
                self.say(&FromWorker::Done { task, completion }, &vec![b'x'; len]);
            }
            12 | 13 => {
                let (task, end, cost) = ended(input);
                let len = usize::from(input.u16()) * usize::from(input.byte() % 8);
                let completion = Completion { end, cost, stdout_bytes: 0 };
                let ended = match completion.end {
                    RunEnd::Ok => FromWorker::Returned { task, run_ns: completion.cost.run_ns },
                    _ => FromWorker::Item { task, completion },
                };
                self.say(&ended, &vec![b'x'; len]);
            }
            14 => self.batch(input),
            5 => self.word(TO_HOST_PUT).store(input.u64(), Ordering::SeqCst),
            6 => {
                // The worker lies by a little.
                let by = i64::from(input.byte() as i8);
                self.word(TO_HOST_PUT).store(self.put.wrapping_add_signed(by), Ordering::SeqCst);
            }
            7 => self.word(TO_WORKER_TAKEN).store(input.u64(), Ordering::SeqCst),
            8 => {
                // It has read everything.
                let put = self.word(TO_WORKER_PUT).load(Ordering::SeqCst);
                self.word(TO_WORKER_TAKEN).store(put, Ordering::SeqCst);
            }
            9 => {
                // It begins a run, or says so.
                let claim = usize::from(input.byte()) % CLAIMS;
                let run = u64::from(input.byte());
                self.word(CLAIM_WORDS + 8 * claim).store(run << 2 | 1, Ordering::SeqCst);
            }
            10 => {
                let at = usize::from(input.u16()) % (HEADER_BYTES / 8) * 8;
                self.word(at).store(input.u64(), Ordering::SeqCst);
            }
            _ => {
                // Every run is begun.
                for claim in 0..CLAIMS {
                    self.word(CLAIM_WORDS + 8 * claim).fetch_or(1, Ordering::SeqCst);
                }
            }
        }
    }

    /// Some of a batch, as an honest worker runs it, or one too many; a record in the middle; and the end,
    /// if it comes to that.
    fn batch(&mut self, input: &mut Input<'_>) {
        let first = u64::from(input.byte());
        let count = u64::from(input.byte() % 16);
        let choice = input.byte();
        let cost = Cost { run_ns: u64::from(choice) * 1000, ..Cost::default() };
        for task in first..first + count {
            if choice % 4 == 3 {
                let record = LogRecord {
                    source: LogSource::Stdout,
                    level: 3,
                    target: String::new(),
                    message: "a line of its own ".repeat(usize::from(choice)),
                    fields: String::new(),
                };
                // The frame is of this run, or of the one before.
                self.say(
                    &FromWorker::Log { task: TaskId(task - u64::from(choice & 4 != 0).min(task)), record },
                    &[],
                );
            }
            let task = TaskId(task);
            let cost = cost.clone();
            // An honest worker says it in short; the long way is not wrong.
            let ended = match choice % 3 {
                0 => FromWorker::Item {
                    task,
                    completion: Completion { end: RunEnd::Ok, cost, stdout_bytes: 0 },
                },
                _ => FromWorker::Returned { task, run_ns: cost.run_ns },
            };
            self.say(&ended, b"an output");
        }
        if !choice.is_multiple_of(8) {
            let batch = TaskId(first - u64::from(input.byte() % 4).min(first));
            let end = if choice % 8 == 1 { RunEnd::Interrupted } else { RunEnd::Ok };
            let completion = Completion { end, cost, stdout_bytes: 0 };
            self.say(&FromWorker::Done { task: batch, completion }, &[]);
        }
    }

    fn write(&mut self, input: &mut Input<'_>) {
        let len = usize::from(input.byte());
        let bytes = input.bytes(len);
        self.put(bytes);
    }

    fn say(&mut self, message: &FromWorker, payload: &[u8]) {
        let mut frame = Vec::new();
        // One that is longer than a frame may be is not written.
        if write_frame(&mut frame, &mut Vec::new(), message, payload).is_ok() {
            self.put(&frame);
        }
    }

    /// Puts it into the ring, whether there is room or not, and publishes it.
    fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let at = self.put as usize % RING_BYTES;
            let (now, rest) = bytes.split_at(bytes.len().min(RING_BYTES - at));
            // SAFETY: inside of the ring towards the host; nobody else holds a reference there.
            unsafe {
                let to = self.base.add(HEADER_BYTES + RING_BYTES + at).as_ptr();
                std::ptr::copy_nonoverlapping(now.as_ptr(), to, now.len());
            }
            self.put = self.put.wrapping_add(now.len() as u64);
            bytes = rest;
        }
        self.word(TO_HOST_PUT).store(self.put, Ordering::SeqCst);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: this mapping was made in `map`, and nobody holds a reference into it any more.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), MAP_BYTES) };
    }
}

fn log(input: &mut Input<'_>) -> FromWorker {
    let task = TaskId(u64::from(input.byte()));
    let source =
        [LogSource::Guest, LogSource::Stdout, LogSource::Stderr, LogSource::Stack, LogSource::Worker];
    let kind = usize::from(input.byte());
    let source = source[kind % source.len()];
    let level = input.byte();
    let len = usize::from(input.byte());
    let message = String::from_utf8_lossy(input.bytes(len)).repeat(1 + usize::from(level & 7) * 40);
    let record = LogRecord { source, level, target: "guest".into(), message, fields: "\u{9b}".into() };
    match kind / 5 % 5 {
        4 => {
            let run = u64::from(level & 3);
            let number = u64::from(level >> 4);
            let question = Question::Stdin { bytes_max: (len as u32) << (level >> 3) };
            FromWorker::Ask { task, run, number, question }
        }
        0 => FromWorker::Event { task: None, record },
        1 => FromWorker::Event { task: Some(task), record },
        _ => FromWorker::Log { task, record },
    }
}

/// Chooses how a task ended.
fn ended(input: &mut Input<'_>) -> (TaskId, RunEnd, Cost) {
    let task = TaskId(u64::from(input.byte()));
    let choice = usize::from(input.byte());
    let frames = usize::from(input.byte());
    let mut ends = run_ends();
    let count = ends.len();
    let mut end = ends.swap_remove(choice % count);
    let backtrace = match &mut end {
        RunEnd::Trap(trapped) => Some(&mut trapped.backtrace),
        RunEnd::Panic(panicked) => Some(&mut panicked.backtrace),
        RunEnd::Memory { backtrace, .. } | RunEnd::Table { backtrace, .. } | RunEnd::Fuel { backtrace } => {
            Some(backtrace)
        }
        _ => None,
    };
    if let Some(backtrace) = backtrace
        && let Some(frame) = backtrace.first().cloned()
    {
        backtrace.resize(frames * 8, frame);
    }
    let cost = Cost { run_ns: input.u64(), cpu_ns: input.u64(), ..Cost::default() };
    (task, end, cost)
}
