//! The floors, which nothing can be faster than: two processes that only wake each other, and bytes that are
//! only copied.

use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use anyhow::Context;
use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};
use rustix::thread::{CpuSet, futex};

use crate::work::{p50, seconds};

/// The first argument of the process that answers.
const CHILD: &str = "--answers-pings";

/// The ways in which the two wake each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Wake {
    /// Futexes: each sleeps until the other wakes it, on one CPU. The two ways differ tenfold, and the
    /// scheduler changes its mind, so both are measured, each held to its CPUs.
    AsleepOnOne,
    /// The same on two CPUs, each of which the other has to wake as well.
    AsleepOnTwo,
    /// Each looks without pause.
    Spinning,
    /// 64 bytes each way through a pair of sockets.
    Socket,
}

impl Wake {
    fn name(self) -> &'static str {
        match self {
            Wake::AsleepOnOne => "asleep-on-one",
            Wake::AsleepOnTwo => "asleep-on-two",
            Wake::Spinning => "spinning",
            Wake::Socket => "socket",
        }
    }

    fn sleeps(self) -> bool {
        matches!(self, Wake::AsleepOnOne | Wake::AsleepOnTwo)
    }

    /// Returns which of the CPUs that it may use each side keeps to: the one that asks, the one that answers.
    fn cpus(self) -> Option<(usize, usize)> {
        match self {
            Wake::AsleepOnOne => Some((0, 0)),
            Wake::AsleepOnTwo => Some((0, 1)),
            Wake::Spinning | Wake::Socket => None,
        }
    }
}

/// Each word on a cache line of its own, as two sides that wake each other would have it.
#[repr(C, align(128))]
struct Word(AtomicU32);

#[repr(C)]
struct Words {
    ping: Word,
    pong: Word,
}

const MAP_BYTES: usize = 4096;
const OVER: u32 = u32::MAX;

fn map(file: impl AsFd) -> anyhow::Result<&'static Words> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::SHARED;
    // SAFETY: a fresh mapping, of a file that has MAP_BYTES, at an address of the kernel's choice.
    let base = unsafe { rustix::mm::mmap(ptr::null_mut(), MAP_BYTES, protection, flags, file, 0)? };
    // SAFETY: page aligned, larger than Words, whose fields are atomics; never unmapped, one page
    // for each measurement.
    Ok(unsafe { &*base.cast::<Words>() })
}

fn send(word: &Word, value: u32, wake: Wake) {
    word.0.store(value, Ordering::SeqCst);
    if wake.sleeps() {
        // Fails for no reason that would matter here.
        let _ = futex::wake(&word.0, futex::Flags::empty(), 1);
    }
}

/// The word's next value.
fn receive(word: &Word, last: u32, wake: Wake) -> u32 {
    loop {
        let value = word.0.load(Ordering::SeqCst);
        if value != last {
            return value;
        }
        if wake.sleeps() {
            // Returns at once if the word has changed meanwhile.
            let _ = futex::wait(&word.0, futex::Flags::empty(), last, None);
        } else {
            std::hint::spin_loop();
        }
    }
}

/// Seconds of the middle one of so many round trips to a process of its own, which is there for as
/// long as they take: one that spins would be in the way of all others.
pub(crate) fn round_trip(wake: Wake, count: usize) -> anyhow::Result<f64> {
    let file = File::from(rustix::fs::memfd_create("ping-pong", MemfdFlags::CLOEXEC)?);
    file.set_len(MAP_BYTES as u64)?;
    let words = map(&file)?;
    let (mut stream, theirs) = UnixStream::pair()?;
    let child = Command::new(std::env::current_exe()?)
        .args([CHILD, wake.name(), &std::process::id().to_string(), &file.as_raw_fd().to_string()])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()?;
    let _ended = Ended { child, words, wake };
    let _kept = wake.cpus().map(|(ours, _)| Pinned::to(ours)).transpose()?;
    let mut hello = [0];
    stream.read_exact(&mut hello).context("the process that answers has left")?;
    let mut number = 0;
    let mut bytes = [0; 64];
    let mut once = || {
        if wake == Wake::Socket {
            stream.write_all(&bytes)?;
            stream.read_exact(&mut bytes)?;
        } else {
            number += 1;
            send(&words.ping, number, wake);
            receive(&words.pong, number - 1, wake);
        }
        Ok(())
    };
    for _ in 0..count / 10 {
        once()?;
    }
    p50(count, once)
}

/// Keeps this thread to one of its CPUs, and lets it go again.
struct Pinned(CpuSet);

impl Pinned {
    /// Pins the thread to the first of the CPUs that it may use, the second, and so on.
    fn to(index: usize) -> anyhow::Result<Pinned> {
        let before = rustix::thread::sched_getaffinity(None)?;
        let mut allowed = (0..CpuSet::MAX_CPU).filter(|&cpu| before.is_set(cpu));
        let mut only = CpuSet::new();
        only.set(allowed.nth(index).context("there are too few CPUs")?);
        rustix::thread::sched_setaffinity(None, &only)?;
        Ok(Pinned(before))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // The thread gets back the CPUs that it had before; only a change from outside could refuse that.
        let _ = rustix::thread::sched_setaffinity(None, &self.0);
    }
}

/// Has the child leave, and waits for it.
struct Ended {
    child: Child,
    words: &'static Words,
    wake: Wake,
}

impl Drop for Ended {
    fn drop(&mut self) {
        match self.wake {
            // The child's socket does not end before ours is dropped, which comes later.
            Wake::Socket => drop(self.child.kill()),
            wake => send(&self.words.ping, OVER, wake),
        }
        let _ = self.child.wait();
    }
}

/// The process that answers, if this is it.
pub(crate) fn answer_if_asked() -> anyhow::Result<bool> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [flag, wake, pid, file] = arguments.as_slice() else { return Ok(false) };
    if flag != CHILD {
        return Ok(false);
    }
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let all = [Wake::AsleepOnOne, Wake::AsleepOnTwo, Wake::Spinning, Wake::Socket];
    let wake = all.into_iter().find(|known| known.name() == wake).context("an unknown way to wake")?;
    let path = format!("/proc/{pid}/fd/{file}");
    let words = map(File::options().read(true).write(true).open(path)?)?;
    let _kept = wake.cpus().map(|(_, theirs)| Pinned::to(theirs)).transpose()?;
    let mut stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    stream.write_all(&[1])?;
    if wake == Wake::Socket {
        let mut bytes = [0; 64];
        while stream.read_exact(&mut bytes).is_ok() {
            stream.write_all(&bytes)?;
        }
        return Ok(true);
    }
    let mut last = 0;
    loop {
        last = receive(&words.ping, last, wake);
        if last == OVER {
            return Ok(true);
        }
        send(&words.pong, last, wake);
    }
}

/// Copies a payload from one buffer to the next, all of them touched before.
pub(crate) struct Copies(Vec<Vec<u8>>);

impl Copies {
    pub(crate) fn new(bytes: usize, copies: usize) -> Copies {
        Copies((0..=copies).map(|fill| vec![fill as u8 + 1; bytes]).collect())
    }

    /// Seconds of all copies together.
    pub(crate) fn run(&mut self) -> anyhow::Result<f64> {
        seconds(|| {
            for index in 1..self.0.len() {
                let (from, to) = self.0.split_at_mut(index);
                to[0].copy_from_slice(black_box(&from[index - 1]));
                black_box(&mut to[0]);
            }
            Ok(())
        })
    }
}

/// Seconds from the start of the least program there is to its end.
pub(crate) fn process() -> anyhow::Result<f64> {
    let began = Instant::now();
    let status = Command::new("true").status()?;
    anyhow::ensure!(status.success(), "true says {status}");
    Ok(began.elapsed().as_secs_f64())
}
