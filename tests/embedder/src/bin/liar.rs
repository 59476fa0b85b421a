//! A worker that lies. It speaks the wire by hand, not with the library, and does what its
//! own file name says: the tests link this program under one name for each lie.
//!
//! The wire that it needs to know is written down in `crates/proto/src`: a control socket on stdin, a shared
//! file with two rings behind a header of 4096 bytes, frames of sixteen bytes of header, postcard and
//! payload.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer};
use rustix::net::{SendAncillaryMessage, SendFlags};

const RING_BYTES: usize = 1024 * 1024;
const HEADER_BYTES: usize = 4096;

/// A report of the policy `best-effort` without a layer, and that runs are stopped at the host's signal, which a liar
/// ignores.
const NO_SANDBOX: [u8; 3] = [1, 0, 1];

/// Places in the header.
const TO_WORKER_TAKEN: usize = 0;
const TO_WORKER_PUT: usize = 128;
const TO_HOST_PUT: usize = 384;
const HOST_RUNG: usize = 512;
const HOST_CALLED: usize = 520;
const CLAIMS: usize = 768;
/// A place in the header where nothing stands.
const NOWHERE: usize = 4032;

/// Fills more memory than the least that a worker can be given, and keeps it.
fn hoard() {
    let bytes = wasmpool::limits::WORKER_MEMORY_BYTES_MIN as usize + (224 << 20);
    let hoard = std::hint::black_box(vec![1u8; bytes]);
    sleep();
    drop(hoard);
}

fn main() {
    if !std::env::args().any(|argument| argument == "--wasmpool-role=worker") {
        // The compiler is an honest one.
        wasmpool::init();
        return;
    }
    let path = std::fs::read_link("/proc/self/exe").expect("a path");
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    let mut wire = Wire::open();
    wire.lie(name.trim_start_matches("liar-"));
}

struct Wire {
    build: Vec<u8>,
    base: *mut u8,
    put: u64,
    taken: u64,
}

/// A run that the host asked for, as far as a liar cares.
struct Run {
    task: u64,
    run: u64,
    claim: u64,
    /// The first of its tasks, and how many.
    items: Option<(u64, u64)>,
    payload: Vec<u8>,
}

impl Wire {
    fn open() -> Wire {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let received =
            rustix::net::recvmsg(rustix::stdio::stdin(), &mut slices, &mut ancillary, RecvFlags::empty())
                .expect("a message");
        let ring: OwnedFd = ancillary
            .drain()
            .find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                _ => None,
            })
            .expect("the rings");
        use rustix::mm::{MapFlags, ProtFlags};
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                HEADER_BYTES + 2 * RING_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &ring,
                0,
            )
        };
        // The message is the variant 0, the build's number, which is said back as it came, and the
        // sandbox that is asked for.
        let setup = &bytes[1..received.bytes];
        let end = setup.iter().position(|byte| byte & 0x80 == 0).expect("a varint") + 1;
        Wire { build: setup[..end].to_vec(), base: base.expect("maps").cast(), put: 0, taken: 0 }
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        // SAFETY: inside of the mapping, which lives as long as the process; aligned.
        unsafe { &*self.base.add(at).cast() }
    }

    fn say(&self, message: &[u8]) {
        let mut none = SendAncillaryBuffer::default();
        let slices = [IoSlice::new(message)];
        rustix::net::sendmsg(rustix::stdio::stdin(), &slices, &mut none, SendFlags::empty()).expect("sends");
    }

    fn ready(&self) {
        self.say(&[&[0], &self.build[..], &NO_SANDBOX].concat());
    }

    /// Waits for the first frame, and reads what it says of the task: its payload may not have come yet.
    fn run(&mut self) -> Run {
        let head = self.peek(24);
        let mut meta = &head[17..];
        let mut number = || varint(&mut meta);
        Run { task: number(), run: number(), claim: number(), items: None, payload: Vec::new() }
    }

    /// Waits for the next frame and takes it, whole.
    fn next(&mut self) -> Run {
        let head = self.peek(16);
        let meta_bytes = u32::from_le_bytes(head[4..8].try_into().expect("four")) as usize;
        let payload_bytes = u64::from_le_bytes(head[8..].try_into().expect("eight")) as usize;
        let frame = self.peek(16 + meta_bytes + payload_bytes);
        self.taken += frame.len() as u64;
        self.word(TO_WORKER_TAKEN).store(self.taken, Ordering::SeqCst);
        let (meta, payload) = frame[16..].split_at(meta_bytes);
        let mut meta = &meta[1..];
        let mut number = || varint(&mut meta);
        let task = number();
        let run = number();
        let claim = number();
        let _module = number();
        assert_eq!(number(), 0, "a task, not a command");
        let _index = number();
        let option = |number: &mut dyn FnMut() -> u64| (number() == 1).then(number);
        let has_limits = number() == 1;
        if has_limits {
            // Memory and output.
            let [_, _] = [(); 2].map(|()| number());
            let _fuel = option(&mut number);
            // Seconds and nanoseconds.
            let [_, _] = [(); 2].map(|()| number());
            let _seed = option(&mut number);
            // Logs, what becomes of too many, tasks of an instance.
            let [_, _, _] = [(); 3].map(|()| number());
        }
        let items = (number() == 1).then(|| (number(), number()));
        Run { task, run, claim, items, payload: payload.to_vec() }
    }

    /// Reads this many bytes of the ring towards the worker, once they are there.
    fn peek(&self, len: usize) -> Vec<u8> {
        while self.word(TO_WORKER_PUT).load(Ordering::SeqCst) < self.taken + len as u64 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let at = |index| HEADER_BYTES + ((self.taken + index) as usize & (RING_BYTES - 1));
        // SAFETY: inside of the ring towards the worker, where the host has published these bytes.
        (0..len as u64).map(|index| unsafe { self.base.add(at(index)).read() }).collect()
    }

    fn claim(&self, run: &Run) {
        self.word(CLAIMS + 8 * run.claim as usize).store(run.run << 2 | 1, Ordering::SeqCst);
    }

    /// Publishes bytes on the ring towards the host, and rings its bell.
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let at = HEADER_BYTES + RING_BYTES + (self.put as usize & (RING_BYTES - 1));
            // SAFETY: inside of the ring towards the host.
            unsafe { self.base.add(at).write(byte) };
            self.put += 1;
        }
        self.publish(self.put);
    }

    fn publish(&self, put: u64) {
        self.word(TO_HOST_PUT).store(put, Ordering::SeqCst);
        for at in [HOST_RUNG, HOST_CALLED] {
            // SAFETY: inside of the mapping; aligned.
            let word: &AtomicU32 = unsafe { &*self.base.add(at).cast() };
            word.fetch_add(1, Ordering::SeqCst);
            let flags = rustix::thread::futex::Flags::empty();
            let _ = rustix::thread::futex::wake(word, flags, 1);
        }
    }

    fn lie(&mut self, what: &str) {
        match what {
            "silent" => return sleep(),
            "other-build" => self.say(&[&[0, 1], &NO_SANDBOX[..]].concat()),
            "garbage-control" => self.say(&[0xff; 64]),
            "fat-control" => self.say(&vec![0; 100_000]),
            "descriptor" => self.send_descriptor(),
            "hoards-idle" => {
                self.ready();
                return hoard();
            }
            _ => self.ready(),
        }
        if what == "ready-twice" {
            self.ready();
        }
        if what == "half" || what.starts_with("batch-") {
            return self.lie_later(what);
        }
        let run = self.run();
        let done = done_frame(run.task);
        match what {
            "honest" => {
                self.claim(&run);
                self.write(&done);
            }
            "early" => self.write(&done),
            "twice" => {
                self.write(&done);
                self.write(&done);
            }
            "heeded" => self.write(&frame(&[&[1], &number(run.task)[..], &heeded()].concat(), b"")),
            "claims" => self.claim_all(),
            "requeues" => {
                self.requeue();
                std::process::exit(3);
            }
            "hoards" => hoard(),
            "stalled" | "ready-twice" | "other-build" | "garbage-control" | "fat-control" | "descriptor" => {}
            _ if what.starts_with("ask-") => self.ask(what, &run),
            _ if self.lie_in_a_frame(what, &run) => {}
            _ if self.lie_in_a_record(what, &run) => {}
            _ if self.lie_in_the_ring(what, &done) => {}
            other => panic!("there is no lie called {other}"),
        }
        sleep();
    }

    /// Tells a lie that is a frame's, if there is one of this name.
    fn lie_in_a_frame(&mut self, what: &str, run: &Run) -> bool {
        let done = done_frame(run.task);
        match what {
            "torn" => {
                self.write(&done[..done.len() - 2]);
                std::process::exit(0);
            }
            "torn-header" => {
                self.write(&done[..7]);
                std::process::exit(3);
            }
            "magic" => self.write(&[b'X'; 16]),
            "fat-meta" => self.write(&head(u32::MAX, 0)),
            "fat-payload" => self.write(&head(8, u64::MAX / 2)),
            "payload-over-limit" => self.write(&head(8, 300 << 20)),
            "garbage-meta" => self.write(&frame(&[0xee; 40], b"")),
            "endless-varint" => self.write(&frame(&[0xff; 64], b"")),
            "left-over" => {
                self.write(&frame(&[&done[16..][..done.len() - 19], &[0; 5][..]].concat(), b"lie"))
            }
            "other-task" => self.write(&done_frame(run.task + 1)),
            "no-task" => self.write(&frame(&[&[1, 0], &ok()[..]].concat(), b"lie")),
            _ => return false,
        }
        true
    }

    /// Tells a lie in a log record or an event, if there is one of this name.
    fn lie_in_a_record(&mut self, what: &str, run: &Run) -> bool {
        match what {
            "forged-log" => self.write(&frame(&log(run.task + 1, 5), b"")),
            "log-with-payload" => self.write(&frame(&log(run.task, 5), b"payload")),
            "log-as-itself" => {
                self.write(&frame(&[&[0], &number(run.task)[..], &record(WORKER)].concat(), b""))
            }
            "forged-event" => self.write(&frame(&event(Some(run.task + 1), WORKER), b"")),
            "event-with-payload" => self.write(&frame(&event(None, WORKER), b"payload")),
            "event-as-a-guest" => self.write(&frame(&event(None, GUEST), b"")),
            "endless-logs" => {
                for _ in 0..200 {
                    self.write(&frame(&log(run.task, 15_000), b""));
                    self.wait_for_host(RING_BYTES as u64 / 2);
                }
            }
            "chatters" => self.chatter(&frame(&event(None, WORKER), b"")),
            _ => return false,
        }
        true
    }

    /// Tells a lie about the positions in a ring, if there is one of this name.
    fn lie_in_the_ring(&mut self, what: &str, done: &[u8]) -> bool {
        match what {
            "put-too-far" => self.publish(RING_BYTES as u64 + 1),
            "put-backwards" => {
                self.write(&done[..9]);
                self.wait_for_host(0);
                self.publish(1);
            }
            "put-wraps" => self.publish(u64::MAX),
            "taken-too-far" => {
                self.word(TO_WORKER_TAKEN).store(u64::MAX, Ordering::SeqCst);
                self.publish(self.put);
            }
            _ => return false,
        }
        true
    }

    /// Claims every task at once, and runs none.
    fn claim_all(&self) {
        for index in 0..64 {
            self.word(CLAIMS + 8 * index).store(u64::MAX, Ordering::SeqCst);
        }
    }

    /// Answers in all honesty until it comes to a batch, or to an input that says `half`.
    fn lie_later(&mut self, what: &str) {
        loop {
            let run = self.next();
            self.claim(&run);
            let done = done_frame(run.task);
            match run.items {
                None if what == "half" && run.payload == b"half" => {
                    self.write(&done[..done.len() / 2]);
                    return sleep();
                }
                None if what == "batch-none" || what == "batch-none-shortly" => {
                    let item = if what == "batch-none" { said(2, run.task) } else { returned(run.task) };
                    self.write(&frame(&item, b"lie"));
                    return sleep();
                }
                None => self.write(&done),
                Some((first, count)) => {
                    self.batch(what, run.task, run.task + first, count);
                    if !matches!(what, "batch-honest" | "batch-honest-shortly" | "batch-dies" | "batch-guest")
                    {
                        return sleep();
                    }
                }
            }
        }
    }

    fn batch(&mut self, what: &str, batch: u64, first: u64, count: u64) {
        let shortly = what.ends_with("-shortly");
        let item = |task: u64| frame(&if shortly { returned(task) } else { said(2, task) }, b"lie");
        let done = |payload: &[u8]| frame(&said(1, batch), payload);
        match what {
            "batch-other-item" | "batch-other-item-shortly" => return self.write(&item(first + 1)),
            "batch-nothing" => return self.write(&done(b"")),
            "batch-guest" => return self.write(&frame(&[&[1], &number(batch)[..], &guests()].concat(), b"")),
            "batch-other-log" => return self.write(&frame(&log(first + count, 5), b"")),
            "batch-old-log" => {
                self.write(&item(first));
                return self.write(&frame(&log(first, 5), b""));
            }
            _ => {}
        }
        (first..first + count).for_each(|task| self.write(&item(task)));
        match what {
            "batch-too-many" | "batch-too-many-shortly" => self.write(&item(first + count)),
            "batch-payload" => self.write(&done(b"lie")),
            "batch-dies" if count > 0 => std::process::exit(3),
            "batch-honest" | "batch-honest-shortly" | "batch-dies" => self.write(&done(b"")),
            other => panic!("there is no lie called {other}"),
        }
    }

    /// Takes whoever sleeps on the host's words off them, until all do that will: the kernel lets everyone who
    /// shares a word.
    fn requeue(&self) {
        use rustix::thread::futex::{Flags, requeue};
        // SAFETY: inside of the mapping; aligned.
        let word = |at: usize| -> &AtomicU32 { unsafe { &*self.base.add(at).cast() } };
        for _ in 0..300 {
            for at in [HOST_RUNG, HOST_CALLED] {
                let _ = requeue(word(at), Flags::empty(), 0, i32::MAX as u32, word(NOWHERE));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Asks in ways in which no honest worker does.
    fn ask(&mut self, what: &str, run: &Run) {
        self.claim(run);
        let ask = |run_number: u64, asked: u64, bytes_max: u64| {
            let numbers = [run.task, run_number, asked, 0, bytes_max];
            [vec![4], numbers.into_iter().flat_map(number).collect()].concat()
        };
        let first = frame(&ask(run.run, 1, 10), b"");
        match what {
            "ask-of-a-task" => self.write(&first),
            "ask-other-run" => self.write(&frame(&ask(run.run + 1, 1, 10), b"")),
            "ask-out-of-turn" => self.write(&frame(&ask(run.run, 2, 10), b"")),
            "ask-too-much" => self.write(&frame(&ask(run.run, 1, 65_537), b"")),
            "ask-with-payload" => self.write(&frame(&ask(run.run, 1, 10), b"payload")),
            "ask-unanswered" => self.write(&[&first[..], &frame(&ask(run.run, 2, 10), b"")].concat()),
            "ask-again" => {
                self.write(&first);
                self.hear();
                self.write(&first);
            }
            "ask-after-the-end" => {
                for asked in 1.. {
                    self.write(&frame(&ask(run.run, asked, 65_536), b""));
                    self.hear();
                }
            }
            "ask-after-its-answer" => {
                self.write(&frame(&[&[1], &number(run.task)[..], &ok()].concat(), b""));
                self.write(&first);
            }
            // This worker never reads its answers, and nobody may wait for it.
            "ask-unheard" => {
                for asked in 1.. {
                    self.write(&frame(&ask(run.run, asked, 65_536), b""));
                    self.wait_for_host(0);
                    // Another thread sends the answers, and may be slower than this one.
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            // This worker asks correctly, but for ever.
            "ask-without-end" => {
                for asked in 1.. {
                    self.write(&frame(&ask(run.run, asked, 65_536), b""));
                    self.hear();
                }
            }
            other => panic!("there is no lie called {other}"),
        }
    }

    /// Waits for an answer on the control socket, which also carries modules.
    fn hear(&self) {
        const MODULE: u8 = 1;
        let mut bytes = vec![0; 100_000];
        loop {
            let mut none = RecvAncillaryBuffer::default();
            let mut slices = [IoSliceMut::new(&mut bytes)];
            let flags = RecvFlags::empty();
            let received = rustix::net::recvmsg(rustix::stdio::stdin(), &mut slices, &mut none, flags);
            match received.expect("a message").bytes {
                0 => std::process::exit(0),
                _ if bytes[0] == MODULE => {}
                _ => return,
            }
        }
    }

    /// Says it as fast as the host hears it, and never anything else.
    fn chatter(&mut self, frame: &[u8]) {
        let many = frame.repeat(RING_BYTES / 4 / frame.len());
        loop {
            self.write(&many);
            self.wait_for_host(RING_BYTES as u64 / 2);
        }
    }

    /// Waits until the host has left no more than this many bytes in its ring; it may have given up before.
    fn wait_for_host(&self, left_max: u64) {
        // The host's position in its ring.
        const TO_HOST_TAKEN: usize = 256;
        for _ in 0..5_000 {
            if self.put - self.word(TO_HOST_TAKEN).load(Ordering::SeqCst) <= left_max {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn send_descriptor(&self) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let stdin = rustix::stdio::stdin();
        let descriptors = [stdin.as_fd()];
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        let message = [&[0], &self.build[..]].concat();
        rustix::net::sendmsg(stdin, &[IoSlice::new(&message)], &mut ancillary, SendFlags::empty())
            .expect("sends");
    }
}

/// Sleeps until the host has had enough of it.
fn sleep() {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn head(meta_bytes: u32, payload_bytes: u64) -> Vec<u8> {
    [b"WP1\0", &meta_bytes.to_le_bytes()[..], &payload_bytes.to_le_bytes()].concat()
}

fn frame(meta: &[u8], payload: &[u8]) -> Vec<u8> {
    [&head(meta.len() as u32, payload.len() as u64)[..], meta, payload].concat()
}

/// Says that a task has ended well, with three bytes of output.
fn done_frame(task: u64) -> Vec<u8> {
    frame(&said(1, task), b"lie")
}

/// This cost counts nothing, and lists no refusal.
const COST: [u8; 6] = [0; 6];

/// The verdict `Ok`, without a cost and without stdout.
fn ok() -> Vec<u8> {
    [&[0], &COST[..], &[0]].concat()
}

/// The verdict of a guest's own error.
fn guests() -> Vec<u8> {
    [&[2], &COST[..], &[0]].concat()
}

/// The verdict that an interrupt was heeded.
fn heeded() -> Vec<u8> {
    [&[9], &COST[..], &[0]].concat()
}

/// Says that a task has ended (1), or one of a batch (2), well and at no cost.
fn said(message: u8, task: u64) -> Vec<u8> {
    [&[message], &number(task)[..], &ok()].concat()
}

/// Says that one of a batch has returned.
fn returned(task: u64) -> Vec<u8> {
    [&[5], &number(task)[..], &[1]].concat()
}

/// A record of the guest's, at level 3, without target and fields.
fn log(task: u64, bytes: u64) -> Vec<u8> {
    [&[0], &number(task)[..], &[0, 3, 0], &number(bytes), &vec![b'l'; bytes as usize], &[0]].concat()
}

/// Something of the worker's own, perhaps of a task.
fn event(task: Option<u64>, source: u8) -> Vec<u8> {
    let task = task.map_or(vec![0], |task| [&[1], &number(task)[..]].concat());
    [&[3], &task[..], &record(source)].concat()
}

/// Sources of a record.
const GUEST: u8 = 0;
const WORKER: u8 = 4;

/// A record at level 3 that says nothing.
fn record(source: u8) -> [u8; 5] {
    [source, 3, 0, 0, 0]
}

fn number(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (&byte, rest) = bytes.split_first().expect("a number");
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}
