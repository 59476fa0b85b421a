//! Two single-producer single-consumer byte rings in one shared memfd, with futex wake-ups.
//!
//! Positions count bytes since the start and never wrap (2^64 bytes last longer than the
//! machine); the place in the ring is the position masked. Each side keeps its own
//! position privately and only *publishes* it, so a hostile peer can move only its own:
//! what it publishes is checked against ours, and anything impossible is a [`Violation`].
//!
//! Both sides share this file; nothing here blocks except [`End::wait`] and what a reader does with
//! [`End::event_count`]. What is announced, and the words that are slept on, stand in shared memory. A hostile peer
//! may change them, or have the kernel take the host's sleeper off its word: it can then leave its own words unheard,
//! and the host's wake-ups too, until the host looks again by itself ([`LOOK_AGAIN`]).

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use rustix::process::{Resource, getrlimit};

use super::event_count::EventCount;
pub use super::event_count::{FOR_DATA, FOR_SPACE};
use super::frame::Source;
use super::spin::Spinning;
use crate::limits::{PREFETCH_MAX, RING_BYTES, RING_BYTES_MIN};
use crate::refused::calling;

/// The peer published a position that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a ring position is out of range")]
pub struct Violation;

impl From<Violation> for io::Error {
    fn from(violation: Violation) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, violation)
    }
}

/// Says which end of the two rings this process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Host,
    Worker,
}

/// The host sleeps no longer than that without a look: a worker that was taken over may requeue whoever sleeps
/// on a word that it shares, or have itself woken in their place. A worker trusts its host.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Runs that may be outstanding at a worker: each has a word by which it is claimed or revoked.
pub const CLAIMS: usize = PREFETCH_MAX + 1;

/// States of a claim, in the low bits of its word; the number of the run is above them, so that
/// a word may be used again while the worker has not yet come to the run that it stood for.
const OPEN: u64 = 0;
const CLAIMED: u64 = 1;
const REVOKED: u64 = 2;
/// The run was claimed and has what it needs: from here on the worker computes for it.
const BEGUN: u64 = 3;

/// Keeps a line to itself, so that the two sides do not fight over it.
#[repr(C, align(128))]
struct Padded<T>(T);

#[repr(C)]
struct Lane {
    /// Bytes ever taken out, written by the consumer.
    taken: Padded<AtomicU64>,
    /// Bytes ever put in, written by the producer.
    put: Padded<AtomicU64>,
}

#[repr(C)]
struct Header {
    to_worker: Lane,
    to_host: Lane,
    host: Padded<EventCount>,
    worker: Padded<EventCount>,
    claims: [AtomicU64; CLAIMS],
    /// The last run that the host wants stopped, written by the host.
    stop: Padded<AtomicU64>,
}

/// The other side is told after each piece of this size, and copies it while the next one is written.
const PIECE_BYTES: usize = 64 * 1024;

const HEADER_BYTES: usize = 4096;
const _: () = assert!(size_of::<Header>() <= HEADER_BYTES);
const _: () = assert!(RING_BYTES.is_power_of_two() && RING_BYTES_MIN.is_power_of_two());

/// The places and sizes of what lies in shared memory. They are a part of the wire's fingerprint.
pub(crate) const LAYOUT: [usize; 12] = [
    size_of::<Header>(),
    offset_of!(Header, to_worker),
    offset_of!(Header, to_host),
    offset_of!(Header, host),
    offset_of!(Header, worker),
    offset_of!(Header, claims),
    offset_of!(Header, stop),
    offset_of!(Lane, taken),
    offset_of!(Lane, put),
    CLAIMS,
    HEADER_BYTES,
    RING_BYTES,
];

/// The size of the file that holds both rings.
const fn map_bytes(ring_bytes: usize) -> usize {
    HEADER_BYTES + 2 * ring_bytes
}

/// Returns the size that rings should have, or what `file_bytes_max` has room for: a limit on files
/// (`RLIMIT_FSIZE`) counts files in memory, too. Smaller rings are slower with large payloads, which pass through
/// them piece by piece.
fn ring_bytes(file_bytes_max: u64) -> usize {
    let mut bytes = RING_BYTES;
    while bytes > RING_BYTES_MIN && map_bytes(bytes) as u64 > file_bytes_max {
        bytes /= 2;
    }
    bytes
}

/// The shared mapping.
#[derive(Debug)]
struct Region {
    base: NonNull<u8>,
    /// The size of each of the two rings, a power of two.
    ring_bytes: usize,
}

// SAFETY: the mapping is plain shared memory; all concurrent access goes through the
// atomics of `Header`, or through byte ranges that exactly one producer or consumer owns.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    fn map(fd: BorrowedFd<'_>) -> io::Result<Arc<Region>> {
        if cfg!(wasmpool_loom) {
            // Loom's atomics are no plain words: they have no place in shared memory.
            return Err(io::ErrorKind::Unsupported.into());
        }
        // A shorter file would turn accesses into SIGBUS.
        let file_bytes = rustix::fs::fstat(fd)?.st_size;
        let sizes = std::iter::successors(Some(RING_BYTES), |bytes| Some(bytes / 2));
        let mut sizes = sizes.take_while(|bytes| *bytes >= RING_BYTES_MIN);
        let ring_bytes = sizes
            .find(|bytes| map_bytes(*bytes) as i64 == file_bytes)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the ring file has the wrong size"))?;
        // SAFETY: a fresh mapping of the whole file, at an address of the kernel's choice.
        let base = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                map_bytes(ring_bytes),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                fd,
                0,
            )
            .map_err(calling("mmap (of the rings)"))?
        };
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Arc::new(Region { base, ring_bytes }))
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: the mapping is page aligned, lives as long as self, is at least as large
        // as Header, and every field of Header is an atomic, valid for any bit pattern.
        unsafe { self.base.cast::<Header>().as_ref() }
    }

    /// Start of the bytes of the ring towards the worker or the host.
    #[inline]
    fn bytes(&self, towards: Side) -> *mut u8 {
        let offset = match towards {
            Side::Worker => HEADER_BYTES,
            Side::Host => HEADER_BYTES + self.ring_bytes,
        };
        // SAFETY: both offsets lie within the mapping.
        unsafe { self.base.as_ptr().add(offset) }
    }

    #[inline]
    fn lane(&self, towards: Side) -> &Lane {
        match towards {
            Side::Worker => &self.header().to_worker,
            Side::Host => &self.header().to_host,
        }
    }

    #[inline]
    fn event_count(&self, of: Side) -> &EventCount {
        match of {
            Side::Host => &self.header().host.0,
            Side::Worker => &self.header().worker.0,
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: this mapping was made in `map`, and nobody holds a reference into it any more.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), map_bytes(self.ring_bytes)) };
    }
}

/// A fresh pair of rings: a sealed memfd for the worker, and the host's end.
///
/// # Errors
/// An error of memfd_create, ftruncate or mmap.
pub fn create() -> io::Result<(OwnedFd, End)> {
    let file_bytes_max = getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX);
    create_within(file_bytes_max)
}

fn create_within(file_bytes_max: u64) -> io::Result<(OwnedFd, End)> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("wasmpool-ring", flags).map_err(calling("memfd_create"))?;
    let bytes = map_bytes(ring_bytes(file_bytes_max)) as u64;
    rustix::fs::ftruncate(&fd, bytes).map_err(calling("ftruncate (of the rings, 12 KiB at least)"))?;
    // The worker holds this file too: without the seals it could shrink it, and the host's
    // next access would be a SIGBUS.
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&fd, seals).map_err(calling("fcntl (F_ADD_SEALS)"))?;
    let end = End { region: Region::map(fd.as_fd())?, side: Side::Host };
    Ok((fd, end))
}

/// The worker's end of rings that the host created.
///
/// # Errors
/// A file of the wrong size, or what the system says to mmap.
pub fn open(fd: BorrowedFd<'_>) -> io::Result<End> {
    Ok(End { region: Region::map(fd)?, side: Side::Worker })
}

/// One side of the pair, for sleeping and waking. Cheap to clone.
#[derive(Debug, Clone)]
pub struct End {
    region: Arc<Region>,
    side: Side,
}

impl End {
    #[inline]
    fn peer(&self) -> Side {
        match self.side {
            Side::Host => Side::Worker,
            Side::Worker => Side::Host,
        }
    }

    /// The outgoing and the incoming ring. Call it once: each is single-ended.
    #[inline]
    pub fn split(&self) -> (Producer, Consumer) {
        let producer = Producer { end: self.clone(), put: 0, streaming: Spinning::new() };
        (producer, Consumer { end: self.clone(), taken: 0 })
    }

    /// Returns what this side sleeps on. How long it may is in [`at_most`](Self::at_most).
    #[inline]
    pub fn event_count(&self) -> &EventCount {
        self.region.event_count(self.side)
    }

    #[inline]
    fn ring_bytes(&self) -> usize {
        self.region.ring_bytes
    }

    /// See [`EventCount::wait`].
    #[inline]
    pub fn wait(&self, what: u32, ready: impl Fn() -> bool) {
        self.event_count().wait(what, self.at_most(None), ready);
    }

    /// Returns how long this side may sleep, if it was asked to sleep for so long.
    #[inline]
    pub fn at_most(&self, asked: Option<Duration>) -> Option<Duration> {
        match self.side {
            Side::Host => Some(asked.map_or(LOOK_AGAIN, |asked| asked.min(LOOK_AGAIN))),
            Side::Worker => asked,
        }
    }

    /// See [`EventCount::wake`].
    #[inline]
    pub fn wake_self(&self) {
        self.event_count().wake();
    }

    /// The host wants the run stopped, and signals the worker then. The numbers of runs only grow, so of two that are to
    /// stop the later one counts: the earlier one is over.
    #[inline]
    pub fn ask_to_stop(&self, run: u64) {
        self.region.header().stop.0.fetch_max(run, Ordering::SeqCst);
    }

    /// Returns the last run that the host wants stopped, or 0. Safe in a signal handler.
    #[inline]
    pub fn run_to_stop(&self) -> u64 {
        self.region.header().stop.0.load(Ordering::SeqCst)
    }

    #[inline]
    fn claim_word(&self, index: u8) -> Option<&AtomicU64> {
        self.region.header().claims.get(index as usize)
    }

    /// The host opens the claim before it sends the run: then the worker may begin it, or the host take it
    /// back.
    #[inline]
    pub fn open_claim(&self, index: u8, run: u64) {
        if let Some(word) = self.claim_word(index) {
            word.store(run << 2 | OPEN, Ordering::SeqCst);
        }
    }

    #[inline]
    fn close_claim(&self, index: u8, run: u64, how: u64) -> bool {
        let open = run << 2 | OPEN;
        let closed = run << 2 | how;
        self.claim_word(index).is_some_and(|word| {
            word.compare_exchange(open, closed, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        })
    }

    /// The worker claims a run: `true` if it is to begin, `false` if it was taken back.
    #[inline]
    pub fn claim(&self, index: u8, run: u64) -> bool {
        self.close_claim(index, run, CLAIMED)
    }

    /// The worker marks a run that it has claimed as begun.
    #[inline]
    pub fn begin(&self, index: u8, run: u64) {
        if let Some(word) = self.claim_word(index) {
            word.store(run << 2 | BEGUN, Ordering::SeqCst);
        }
    }

    /// The host asks whether the worker says that the run has begun. A lie gains the worker no more than the
    /// host allows (`CpuCount::look`).
    #[inline]
    pub fn has_begun(&self, index: u8, run: u64) -> bool {
        self.claim_word(index).is_some_and(|word| word.load(Ordering::SeqCst) == run << 2 | BEGUN)
    }

    /// The host asks whether the worker has yet to claim the run, by the worker's word.
    #[inline]
    pub fn is_open(&self, index: u8, run: u64) -> bool {
        self.claim_word(index).is_some_and(|word| word.load(Ordering::SeqCst) == run << 2 | OPEN)
    }

    /// The host takes a run back: `true` if the worker has not begun it, and now never will. A worker that
    /// lies here harms only itself: what it says of that run afterwards is a violation.
    #[inline]
    pub fn revoke(&self, index: u8, run: u64) -> bool {
        self.close_claim(index, run, REVOKED)
    }
}

/// The writing end of one ring.
#[derive(Debug)]
pub struct Producer {
    end: End,
    put: u64,
    /// The spinning of whoever waits for space here.
    streaming: Spinning,
}

impl Producer {
    /// Bytes that fit now.
    #[inline]
    pub fn space(&self) -> Result<usize, Violation> {
        let taken = self.end.region.lane(self.end.peer()).taken.0.load(Ordering::Acquire);
        match self.put.checked_sub(taken) {
            Some(used) if used <= self.end.ring_bytes() as u64 => Ok(self.end.ring_bytes() - used as usize),
            _ => Err(Violation),
        }
    }

    /// Copies in as much of `bytes` as fits, publishes it and wakes the peer. Returns how much.
    #[inline]
    pub fn try_write(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        let mut written = 0;
        while let rest @ [_, ..] = &bytes[written..] {
            match self.write_piece(rest)? {
                0 => break,
                len => written += len,
            }
        }
        Ok(written)
    }

    #[inline]
    fn write_piece(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        let len = self.space()?.min(bytes.len()).min(PIECE_BYTES);
        if len == 0 {
            return Ok(0);
        }
        let towards = self.end.peer();
        let ring_bytes = self.end.ring_bytes();
        let start = self.put as usize & (ring_bytes - 1);
        let first = len.min(ring_bytes - start);
        let ring = self.end.region.bytes(towards);
        // SAFETY: `start + first <= ring_bytes` and `len - first <= start`, so both ranges lie in
        // the ring; they are free by the check in `space`, and this is the only producer.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), ring.add(start), first);
            ptr::copy_nonoverlapping(bytes.as_ptr().add(first), ring, len - first);
        }
        self.put += len as u64;
        self.end.region.lane(towards).put.0.store(self.put, Ordering::Release);
        self.end.region.event_count(towards).notify(FOR_DATA);
        Ok(len)
    }
}

/// The reading end of one ring.
#[derive(Debug)]
pub struct Consumer {
    end: End,
    taken: u64,
}

impl Consumer {
    /// Bytes to be had now.
    #[inline]
    pub fn available(&self) -> Result<usize, Violation> {
        let put = self.end.region.lane(self.end.side).put.0.load(Ordering::Acquire);
        match put.checked_sub(self.taken) {
            Some(ready) if ready <= self.end.ring_bytes() as u64 => Ok(ready as usize),
            _ => Err(Violation),
        }
    }

    /// Copies out what there is, up to `into`'s length, and gives the space back. Returns how much.
    #[inline]
    pub fn try_read(&mut self, into: &mut [u8]) -> Result<usize, Violation> {
        let len = self.available()?.min(into.len());
        // SAFETY: `into` is valid for `len` bytes.
        unsafe { self.copy_out(into.as_mut_ptr(), len) };
        Ok(len)
    }

    /// Does the same as [`try_read`](Self::try_read), and appends at most `most` bytes to `into`, as far as that
    /// has room.
    #[inline]
    pub fn try_append(&mut self, into: &mut Vec<u8>, most: usize) -> Result<usize, Violation> {
        let room = into.spare_capacity_mut();
        let len = self.available()?.min(room.len()).min(most);
        // SAFETY: the room is valid for `len` bytes, which are initialised when they count.
        unsafe {
            self.copy_out(room.as_mut_ptr().cast(), len);
            into.set_len(into.len() + len);
        }
        Ok(len)
    }

    /// # Safety
    /// `into` is valid for writes of `len` bytes, of which there are no more than `available`.
    unsafe fn copy_out(&mut self, into: *mut u8, len: usize) {
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(PIECE_BYTES);
            // SAFETY: what is left of what the caller has promised.
            unsafe { self.copy_piece(into.add(done), piece) };
            done += piece;
        }
    }

    /// # Safety
    /// As for [`copy_out`](Self::copy_out).
    unsafe fn copy_piece(&mut self, into: *mut u8, len: usize) {
        let ring_bytes = self.end.ring_bytes();
        let start = self.taken as usize & (ring_bytes - 1);
        let first = len.min(ring_bytes - start);
        let ring = self.end.region.bytes(self.end.side);
        // SAFETY: both ranges lie in the ring as in `try_write`. A hostile peer may write to them
        // while they are copied: the copy then holds whatever bytes, and is validated afterwards.
        unsafe {
            ptr::copy_nonoverlapping(ring.add(start), into, first);
            ptr::copy_nonoverlapping(ring, into.add(first), len - first);
        }
        self.taken += len as u64;
        self.end.region.lane(self.end.side).taken.0.store(self.taken, Ordering::Release);
        self.end.region.event_count(self.end.peer()).notify(FOR_SPACE);
    }
}

impl Source for Consumer {
    #[inline]
    fn take(&mut self, into: &mut [u8]) -> io::Result<usize> {
        Ok(self.try_read(into)?)
    }

    #[inline]
    fn append(&mut self, into: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        Ok(self.try_append(into, most)?)
    }
}

/// Blocking reads.
#[cfg(test)]
impl io::Read for Consumer {
    #[inline]
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let len = self.try_read(into)?;
            if len > 0 || into.is_empty() {
                return Ok(len);
            }
            self.end.wait(FOR_DATA, || !matches!(self.available(), Ok(0)));
        }
    }
}

/// Blocking writes, for the worker.
impl io::Write for Producer {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let len = self.try_write(bytes)?;
            if len > 0 || bytes.is_empty() {
                return Ok(len);
            }
            let has_space = || self.space() != Ok(0);
            self.streaming.wait(has_space, || self.end.wait(FOR_SPACE, has_space));
        }
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
