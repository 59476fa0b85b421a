//! Reads what the host sends, frame by frame; each payload goes straight to where it is wanted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::frame::{Incoming, Source};
use crate::limits::FRAME_PAYLOAD_BYTES_MAX;
use crate::message::ToWorker;
use crate::ring::{self, Consumer, End};
use crate::spin::Spinning;

/// A source that can be waited for.
pub trait Inbound: Source {
    /// Returns once there is more to take. It may return early, but not for a call of the watcher, which is answered
    /// between messages only: whoever waits amid one would return at once, again and again.
    ///
    /// # Errors
    /// The stream has ended, and nothing more will come.
    fn wait(&mut self) -> io::Result<()>;

    /// Returns once there is more to take, or the watcher calls the main thread. It may return early.
    ///
    /// # Errors
    /// The stream has ended, and nothing more will come.
    fn wait_or_call(&mut self) -> io::Result<()>;

    /// Returns whether there is something now.
    fn has_more(&self) -> bool;
}

/// The ring. It never ends: the watcher ends the process when the host is gone.
pub struct Ring {
    end: End,
    ring: Consumer,
    spinning: Spinning,
    /// The watcher sets this when modules have ended; see `watcher::WatcherState`.
    is_called: Arc<AtomicBool>,
}

impl Ring {
    #[inline]
    pub fn new(end: End, ring: Consumer, is_called: Arc<AtomicBool>) -> Self {
        Ring { end, ring, spinning: Spinning::new(), is_called }
    }
}

impl Source for Ring {
    #[inline]
    fn take(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.ring.take(into)
    }

    #[inline]
    fn append(&mut self, into: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        self.ring.append(into, most)
    }
}

impl Inbound for Ring {
    #[inline]
    fn wait(&mut self) -> io::Result<()> {
        let Ring { end, ring, spinning, .. } = self;
        let has_more = || ring.available() != Ok(0);
        spinning.wait(has_more, || end.wait(ring::FOR_DATA, has_more));
        Ok(())
    }

    #[inline]
    fn wait_or_call(&mut self) -> io::Result<()> {
        let Ring { end, ring, spinning, is_called } = self;
        let has_more = || ring.available() != Ok(0) || is_called.load(Ordering::SeqCst);
        spinning.wait(has_more, || end.wait(ring::FOR_DATA, has_more));
        Ok(())
    }

    #[inline]
    fn has_more(&self) -> bool {
        self.ring.available() != Ok(0)
    }
}

/// One task's input, not read yet.
pub trait Input {
    /// Bytes of it that are left.
    fn left(&self) -> u64;

    /// Fills `into`, which is no longer than what is left.
    ///
    /// # Errors
    /// If the host is gone.
    fn read(&mut self, into: &mut [u8]) -> io::Result<()>;

    /// Reads what is left to nowhere.
    ///
    /// # Errors
    /// If the host is gone.
    fn skip(&mut self) -> io::Result<()>;
}

/// Reads an input whole; or returns how long it is, if there is no memory for it.
///
/// # Errors
/// If the host is gone.
pub fn read_whole(input: &mut dyn Input) -> io::Result<Result<Vec<u8>, u64>> {
    let len = input.left();
    let mut bytes = Vec::new();
    if usize::try_from(len).ok().and_then(|len| bytes.try_reserve_exact(len).ok()).is_none() {
        return Ok(Err(len));
    }
    bytes.resize(len as usize, 0);
    input.read(&mut bytes)?;
    Ok(Ok(bytes))
}

/// The stream of the host's frames.
pub struct Inbox<S> {
    from: S,
    incoming: Incoming,
    payload_left: u64,
}

impl<S: Inbound> Inbox<S> {
    #[inline]
    pub fn new(from: S) -> Self {
        Inbox { from, incoming: Incoming::new(), payload_left: 0 }
    }

    /// The next message; what was left of the payload before it is skipped. Its own comes next.
    ///
    /// # Errors
    /// A stream that breaks, or a host that does not speak the protocol.
    #[inline]
    pub fn next_message(&mut self) -> io::Result<ToWorker> {
        self.skip()?;
        loop {
            let head = self.incoming.head(|| FRAME_PAYLOAD_BYTES_MAX).map_err(io::Error::other)?;
            if let Some((message, payload_bytes)) = head {
                self.payload_left = payload_bytes;
                return Ok(message);
            }
            self.fill()?;
        }
    }

    /// Waits for the next message, but may return early: see [`Inbound::wait_or_call`]. The payload of the last
    /// message must have been read or skipped, since its rest would count as the next one's begin.
    ///
    /// # Errors
    /// The stream has ended, and nothing more will come.
    #[inline]
    pub fn wait(&mut self) -> io::Result<()> {
        self.from.wait_or_call()
    }

    /// Returns whether the next message has begun to come.
    #[inline]
    pub fn has_more(&self) -> bool {
        self.incoming.has_rest() || self.from.has_more()
    }

    #[inline]
    fn fill(&mut self) -> io::Result<()> {
        while self.incoming.fill(|room| self.from.take(room)).map_err(io::Error::other)? == 0 {
            self.from.wait()?;
        }
        Ok(())
    }
}

impl<S: Inbound> Input for Inbox<S> {
    #[inline]
    fn left(&self) -> u64 {
        self.payload_left
    }

    #[inline]
    fn read(&mut self, into: &mut [u8]) -> io::Result<()> {
        self.payload_left -= into.len() as u64;
        let ahead = self.incoming.payload(into.len() as u64);
        into[..ahead.len()].copy_from_slice(ahead);
        let mut filled = ahead.len();
        while filled < into.len() {
            match self.from.take(&mut into[filled..])? {
                0 => self.from.wait()?,
                len => filled += len,
            }
        }
        Ok(())
    }

    #[inline]
    fn skip(&mut self) -> io::Result<()> {
        while self.payload_left > 0 {
            self.payload_left -= self.incoming.payload(self.payload_left).len() as u64;
            if self.payload_left > 0 {
                self.fill()?;
            }
        }
        Ok(())
    }
}

/// One input of a batch.
pub struct Item<'a> {
    of: &'a mut dyn Input,
    left: u64,
}

impl<'a> Item<'a> {
    /// The next one.
    ///
    /// # Errors
    /// A stream that breaks, or a host that does not speak the protocol.
    #[inline]
    pub fn next(of: &'a mut dyn Input) -> io::Result<Self> {
        let mut len = [0; 4];
        let misfit = || io::Error::new(io::ErrorKind::InvalidData, "a batch is shorter than its items");
        if of.left() < len.len() as u64 {
            return Err(misfit());
        }
        of.read(&mut len)?;
        let left = u64::from(u32::from_le_bytes(len));
        if left > of.left() { Err(misfit()) } else { Ok(Item { of, left }) }
    }
}

impl Input for Item<'_> {
    #[inline]
    fn left(&self) -> u64 {
        self.left
    }

    #[inline]
    fn read(&mut self, into: &mut [u8]) -> io::Result<()> {
        self.left -= into.len() as u64;
        self.of.read(into)
    }

    #[inline]
    fn skip(&mut self) -> io::Result<()> {
        if self.left == 0 {
            return Ok(());
        }
        let mut nowhere = [0; 4096];
        while self.left > 0 {
            let len = self.left.min(nowhere.len() as u64) as usize;
            self.read(&mut nowhere[..len])?;
        }
        Ok(())
    }
}
